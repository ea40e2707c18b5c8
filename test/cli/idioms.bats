#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# What public shell scripts do with VBoxManage, in their words: names with spaces, relative paths, old spellings, and
# answers taken apart by awk, grep, cut and sed.
load common

@test "names with spaces go through list, awk and cut, and back as names and as identifiers" {
	make_vm "my first vm"
	make_vm second
	[ "$(VBoxManage list vms | awk -F'"' '{ print $2 }' | sort | tr '\n' ,)" = "my first vm,second," ]
	uuid=$(VBoxManage list vms | grep '"my first vm"' | cut -d '{' -f2 | cut -d '}' -f1)
	[ "$(VBoxManage list vms | awk '/my first vm/ { print $NF }')" = "{$uuid}" ]
	for id in "$uuid" "{$uuid}" "my first vm"; do
		VBoxManage showvminfo "$id" --machinereadable | grep -qx 'name="my first vm"'
	done
	VBoxManage showvminfo "my first vm" | grep -q '^State: *powered off'
	VBoxManage list vms | sed 's/^"\(.*\)" {\(.*\)}$/\2/' | while read -r id; do
		VBoxManage unregistervm "$id" --delete
	done
	[ -z "$(VBoxManage list vms)" ]
}

@test "the name in lower case is the same program, and the state is found by grep" {
	vboxmanage createvm --name low --register >/dev/null
	[ "$(vboxmanage --version)" = "$(VBoxManage -v)" ]
	[ "$(vboxmanage showvminfo low --machinereadable | grep VMState= | cut -d= -f2)" = '"poweroff"' ]
	eval "$(vboxmanage showvminfo low --machinereadable | grep '^VMState=')"
	[ "$VMState" = poweroff ]
}

@test "relative paths mean the directory one is in, and the old spellings of disks and media still do" {
	mkdir -p "some where"
	cd "some where"
	make_iso disc.iso
	make_vm old
	VBoxManage createhd --filename "a disk.vdi" --size 64 >/dev/null 2>&1
	[ -f "a disk.vdi" ]
	VBoxManage storagectl old --name "SATA Controller" --add sata --controller IntelAHCI
	VBoxManage storagectl old --name IDE --add ide
	VBoxManage storageattach old --storagectl "SATA Controller" --port 0 --device 0 --type hdd --medium "./a disk.vdi"
	VBoxManage storageattach old --storagectl IDE --port 0 --device 0 --type dvddrive --medium disc.iso
	[ "$(mr old 'SATA Controller-0-0')" = "$PWD/a disk.vdi" ]
	[ "$(mr old IDE-0-0)" = "$PWD/disc.iso" ]
	VBoxManage modifyhd "a disk.vdi" --resize 128 >/dev/null 2>&1
	VBoxManage showhdinfo "a disk.vdi" | grep -qE '^Capacity: +128 MBytes'
	VBoxManage clonehd "a disk.vdi" ../copy.vdi >/dev/null 2>&1
	cd ..
	[ -f copy.vdi ]
	VBoxManage closemedium disk copy.vdi --delete >/dev/null 2>&1
	[ ! -e copy.vdi ]
}

@test "a script asks whether there is a machine by the exit status, and whether it runs by its line" {
	if VBoxManage showvminfo absent >/dev/null 2>&1; then false; fi
	make_vm there
	VBoxManage showvminfo there >/dev/null 2>&1
	if VBoxManage list runningvms | grep -q '"there"'; then false; fi
}

@test "a script starts a machine, presses its power button, waits a little and then switches it off" {
	needs_machines
	make_vm "head less"
	VBoxManage modifyvm "head less" --memory 16
	said=$(VBoxManage startvm "head less" --type headless) # returns though somebody reads its output
	grep -qF 'VM "head less" has been successfully started.' <<<"$said"
	VBoxManage list runningvms | grep -q '^"head less" {'
	VBoxManage controlvm "head less" acpipowerbutton
	VBoxManage showvminfo "head less" --machinereadable | grep -q '^VMState="running"' # nothing in it hears the button
	VBoxManage controlvm "head less" poweroff
	VBoxManage showvminfo "head less" --machinereadable | grep -qx 'VMState="poweroff"'
	[ -z "$(VBoxManage list runningvms)" ]
}

@test "VBoxHeadless stays until the machine has ended, and switches it off when it is told to stop" {
	needs_machines
	make_vm "head less"
	VBoxManage modifyvm "head less" --memory 16
	for end in poweroff TERM INT; do
		exec {said}< <(exec VBoxHeadless --startvm "head less" --vrde off)
		headless=$!
		read -r -t 20 line <&"$said"
		[ "$line" = 'VM "head less" has been successfully started.' ]
		[ "$(mr "head less" VMState)" = running ]
		kill -0 "$headless"
		case $end in
		poweroff) VBoxManage controlvm "head less" poweroff ;;
		*) kill -"$end" "$headless" ;;
		esac
		wait "$headless"
		exec {said}<&-
		[ "$(mr "head less" VMState)" = poweroff ]
	done
	run VBoxHeadless --startvm absent
	[ "$status" = 1 ]
	[[ $output == *"Could not find a registered machine named 'absent'"* ]]
	run VBoxHeadless
	[ "$status" = 2 ]
}
