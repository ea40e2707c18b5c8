#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# What Packer 1.6.6 and its plugin 1.1.6 call, as they call it (names, relative paths), and the answers as they read them.
# The guest is the firmware that finds nothing to boot; test/long/packer.bats has the program itself.
# shellcheck disable=SC2154 # status, output and stderr are set by run
load common

calls() { # each line of stdin is a call that Packer makes of the machine $n; it says nothing
	local words
	while read -r words; do
		eval "run --separate-stderr VBoxManage $words"
		[ "$status" = 0 ] || {
			echo "VBoxManage $words: $status; $stderr"
			return 1
		}
	done
}

off() { # as Packer waits for a machine's end
	[[ $(VBoxManage showvminfo "$n" --machinereadable | sed -n 's/^VMState="\(.*\)"/\1/p') != @(running|stopping|paused) ]]
}

@test "the calls of virtualbox-iso make a machine, type, and end in an appliance" {
	needs_machines
	n="built from iso"
	[[ $(VBoxManage --version) =~ ^[0-9]+\.[0-9]+\.[0-9]+ ]]
	[[ $(VBoxManage --version 2>&1) != *vboxdrv* ]]
	additions=$(VBoxManage list systemproperties | sed -n 's/^Default Guest Additions ISO: *//p')
	[ -f "$additions" ]
	make_iso boot.iso
	truncate -s 1440K floppy.vfd
	mkdir out
	# shellcheck disable=SC2016 # for eval
	calls <<-'END'
		setextradata global GUI/RegistrationData triesLeft=0
		setextradata global GUI/SuppressMessages confirmInputCapture,remindAboutAutoCapture
		setextradata global GUI/UpdateDate "1 d, 2027-01-01, stable"
		setextradata global GUI/UpdateCheckCount 60
		createvm --name "$n" --ostype Debian_64 --register
		modifyvm "$n" --boot1 disk --boot2 dvd --boot3 none --boot4 none
		modifyvm "$n" --cpus 1
		modifyvm "$n" --memory 32
		modifyvm "$n" --usb off
		modifyvm "$n" --audio none
		createhd --filename "out/$n.vdi" --size 64 --format VDI --variant Standard
		storagectl "$n" --name "IDE Controller" --add ide
		storagectl "$n" --name "SATA Controller" --add sata --portcount 1
		storageattach "$n" --storagectl "SATA Controller" --port 0 --device 0 --type hdd --medium "out/$n.vdi" --nonrotational off --discard off
		storageattach "$n" --storagectl "IDE Controller" --port 0 --device 1 --type dvddrive --medium "$PWD/boot.iso"
		storageattach "$n" --storagectl "IDE Controller" --port 1 --device 0 --type dvddrive --medium "$additions"
		modifyvm "$n" --vrdeaddress 127.0.0.1 --vrdeauthtype null --vrde on --vrdeport 5940
	END
	if VBoxManage showvminfo "$n" --machinereadable | grep -q '^storagecontrollertype.="I82078"'; then false; fi
	calls <<-'END'
		storagectl "$n" --name "Floppy Controller" --add floppy
		storageattach "$n" --storagectl "Floppy Controller" --port 0 --device 0 --type fdd --medium "$PWD/floppy.vfd"
		modifyvm "$n" --nic1 nat
		modifyvm "$n" --natpf1 packercomm,tcp,127.0.0.1,3987,,22
	END
	VBoxManage showvminfo "$n" --machinereadable | grep -q '^storagecontrollertype.="I82078"'
	# A rule that an earlier build left: Packer looks for this sentence, deletes it and makes it again.
	vbm modifyvm "$n" --natpf1 packercomm,tcp,127.0.0.1,3988,,22
	fails_with 1 "A NAT rule of this name already exists"
	VBoxManage modifyvm "$n" --natpf1 delete packercomm
	VBoxManage modifyvm "$n" --natpf1 packercomm,tcp,127.0.0.1,3988,,22
	said=$(VBoxManage startvm "$n" --type headless 2>&1) # Packer waits for the end of this pipe
	[[ $said == *"successfully started."* ]]
	# 25 codes at most in a call, shift and all.
	VBoxManage controlvm "$n" keyboardputscancode 11 91 22 a2 12 92 14 94 39 b9 0c 8c 10 90 2a 18 aa 98 39 b9 35 b5 20 a0 1e
	VBoxManage controlvm "$n" keyboardputscancode 9e e0 48 e0 c8 1c 9c
	# What cannot be done now is tried again, a minute later, if this is in what it said.
	vbm unregistervm "$n" --delete
	fails_with 1 VBOX_E_INVALID_OBJECT_STATE
	VBoxManage controlvm "$n" acpipowerbutton
	if off; then false; fi
	VBoxManage controlvm "$n" poweroff 2>/dev/null
	off
	calls <<-'END'
		storageattach "$n" --storagectl "Floppy Controller" --port 0 --device 0 --medium none
		storagectl "$n" --name "Floppy Controller" --remove
		storageattach "$n" --storagectl "IDE Controller" --port 0 --device 1 --type dvddrive --medium none
		storageattach "$n" --storagectl "IDE Controller" --port 1 --device 0 --type dvddrive --medium none
		modifyvm "$n" --natpf1 delete packercomm
		export "$n" --output "out/$n.ova"
		unregistervm "$n" --delete
	END
	[ "$(ls out)" = "$n.ova" ]
	[ -z "$(VBoxManage list vms; VBoxManage list hdds)" ]
}

@test "the calls of virtualbox-ovf take an appliance in and give one out" {
	needs_machines
	make_vm source
	n="built from ovf" source_mac=$(mr source macaddress1)
	VBoxManage export source -o source.ova 2>/dev/null
	for options in "--options keepallmacs" ""; do
		mkdir out
		# shellcheck disable=SC2016 # for eval
		calls <<-END
			import source.ova --vsys 0 --vmname "\$n" $options
			modifyvm "\$n" --vrdeaddress 127.0.0.1 --vrdeauthtype null --vrde on --vrdeport 5941
			modifyvm "\$n" --memory 32
			modifyvm "\$n" --nic1 nat
			modifyvm "\$n" --natpf1 packercomm,tcp,127.0.0.1,3989,,22
			startvm "\$n" --type headless
			controlvm "\$n" poweroff
			modifyvm "\$n" --natpf1 delete packercomm
			export "\$n" --output "out/\$n.ovf" --manifest --vsys 0 --version 1.0
		END
		[ -z "$options" ] || [ "$(mr "$n" macaddress1)" = "$source_mac" ]
		[ "$(ls out)" = "$n.mf
$n.ovf" ]
		VBoxManage unregistervm "$n" --delete 2>/dev/null
		rm -r out
	done
}

# Packer's own expression: a UUID belongs to the name on the line before it, and a line that begins with "Current" is about
# the snapshot before it.
snapshots() { # NAME: "name uuid" of each, the current one with a star
	VBoxManage snapshot "$1" list --machinereadable | python3 -c '
import re, sys
tree = []
for line in sys.stdin.read().splitlines():
    m = re.match(r"Snapshot(Name|UUID)((?:-[1-9]+)*)=\"([^\"]*)\"", line)
    if line.startswith("Current"):
        tree[-1][2] = "*"
    elif m and m.group(1) == "Name":
        tree.append([m.group(3), None, ""])
    elif m:
        assert tree[-1][1] is None
        tree[-1][1] = m.group(3)
for name, uuid, star in tree:
    assert re.fullmatch(r"[0-9a-f-]{36}", uuid)
    print(name + star, uuid)'
}

@test "the calls of virtualbox-vm find snapshots, go to one, take one and delete one" {
	n="machine that is there"
	make_vm "$n"
	vbm snapshot "$n" list --machinereadable
	[ "$output" = "This machine does not have any snapshots" ] # Packer looks at this before the exit status
	VBoxManage snapshot "$n" take base 2>/dev/null
	VBoxManage snapshot "$n" take later 2>/dev/null
	[ "$(snapshots "$n" | cut -d' ' -f1 | tr '\n' ' ')" = "base later* " ]
	VBoxManage snapshot "$n" restore "$(snapshots "$n" | sed -n 's/^base //p')" 2>/dev/null
	[ "$(snapshots "$n" | cut -d' ' -f1 | tr '\n' ' ')" = "base* later " ]
	VBoxManage snapshot "$n" take made 2>/dev/null
	[ "$(snapshots "$n" | cut -d' ' -f1 | tr '\n' ' ')" = "base later made* " ]
	VBoxManage snapshot "$n" delete "$(snapshots "$n" | sed -n 's/^made\* //p')" 2>/dev/null
	[ "$(snapshots "$n" | cut -d' ' -f1 | tr '\n' ' ')" = "base* later " ]
}

@test "what the plugin asks of a machine that it makes only to look at it" {
	t=packer_temp_vm_1795400000
	VBoxManage createvm --name $t --ostype Debian_64 --register --default --basefolder "$PWD/tmp" >/dev/null
	[ -n "$(mr $t graphicscontroller)" ]
	vbm modifyvm $t --ioapic on --usbohci off --usbehci off --usbxhci off --audio-enabled off --nat-localhostreachable1 on \
		--rtcuseutc on --chipset piix3 --firmware bios --graphicscontroller "$(mr $t graphicscontroller)" --vram 16 \
		--nictype1 82540EM --nictype2 82540EM --nictype3 82540EM --nictype4 82540EM
	succeeds
	VBoxManage unregistervm $t --delete 2>/dev/null
	[ -z "$(VBoxManage list vms)" ]
}
