#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
load common

@test "modifyvm is silent and its settings are what showvminfo shows" {
	make_vm web1
	vbm modifyvm web1 --memory 1024 --cpus 2 --vram 32 --rtcuseutc on --boot1 dvd --boot2 disk --boot3 none \
		--description "a test" --groups /lab --hpet on --biosbootmenu messageandmenu
	says ""
	[ -z "$stderr" ]
	vbm showvminfo web1 --machinereadable
	for line in memory=1024 cpus=2 vram=32 'rtcuseutc="on"' 'boot1="dvd"' 'boot2="disk"' 'boot3="none"' 'hpet="on"' \
		'description="a test"' 'groups="/lab"' 'bootmenu="messageandmenu"'; do
		has_line "$line"
	done
}

@test "options are taken in every spelling" {
	make_vm web1
	VBoxManage modifyvm web1 --memory=200
	[ "$(mr web1 memory)" = 200 ]
	VBoxManage modifyvm web1 --memory:201
	[ "$(mr web1 memory)" = 201 ]
	VBoxManage modifyvm web1 -memory 202
	[ "$(mr web1 memory)" = 202 ]
	VBoxManage modifyvm --memory 0xCB web1
	[ "$(mr web1 memory)" = 203 ]
	VBoxManage modifyvm web1 --os-type Debian_64 --rtc-use-utc on --nic-type1 virtio --mac-address1 080027AABBCC
	VBoxManage modifyvm web1 --ostype Ubuntu_64 --rtcuseutc off --nictype1=82540EM --macaddress1:080027AABBCD
	[ "$(mr web1 macaddress1)" = 080027AABBCD ]
	VBoxManage modifyvm web1 --nat-pf1 a,tcp,,1,,2
	VBoxManage modifyvm web1 --natpf1 delete a
}

@test "the value of --audio none is taken, with VirtualBox's warning" {
	make_vm web1
	vbm modifyvm web1 --memory 1024 --cpus 1 --audio none
	says ""
	[ "$stderr" = "Warning: --audio is deprecated and will be removed soon. Use --audio-driver instead!" ]
}

@test "what docker-machine and packer ask for is taken" {
	make_vm web1
	vbm modifyvm web1 --firmware bios --bioslogofadein off --bioslogofadeout off --bioslogodisplaytime 0 \
		--biosbootmenu disabled --ostype Linux26_64 --cpus 1 --memory 1024 --acpi on --ioapic on --rtcuseutc on \
		--natdnshostresolver1 off --natdnsproxy1 on --cpuhotplug off --pae on --hpet on --hwvirtex on --nestedpaging on \
		--largepages on --vtxvpid on --accelerate3d off --boot1 dvd
	says ""
	vbm modifyvm web1 --nic1 nat --nictype1 82540EM --cableconnected1 on --boot1 disk --boot2 dvd --boot3 none \
		--boot4 none --usb off --audio-enabled off --mouse ps2 --keyboard ps2 --chipset piix3 --nested-hw-virt off \
		--usbohci off --usbehci off --usbxhci off --nat-localhostreachable1 on --clipboard disabled \
		--graphicscontroller vboxvga --nic2 none --nic3 none --nic4 none --nic5 none --nic6 none --nic7 none --nic8 none
	says ""
	vbm modifyvm web1 --vrdeaddress 127.0.0.1 --vrdeauthtype null --vrde on --vrdeport 5940
	says ""
}

@test "a value without an effect is refused in a sentence" {
	make_vm web1
	for words in "--nic1 cloud" "--firmware efi" "--chipset ich9" "--usb-ohci on" "--audio-controller sb16" "--ioapic off" \
		"--accelerate3d on" "--nested-hw-virt on" "--nictype1 NE2000" "--tpm-type 2.0" \
		"--cpuexecutioncap 0" "--lpt1 0x378 7" "--teleporter on"; do
		# shellcheck disable=SC2086 # words
		vbm modifyvm web1 $words
		fails_with 1 "VBoxManage: error: "
		[[ $stderr == *" here"* || $stderr == *Invalid* ]]
	done
	vbm modifyvm web1 --nic1 cloud
	fails_with 1 "VBOX_E_NOT_SUPPORTED (0x80bb0009)"
	[ "$(mr web1 nic1)" = nat ]
}

@test "what a guest runs as well without is kept with a warning, and read back" {
	make_vm web1
	for words in "graphicscontroller vmsvga" "paravirtprovider kvm" "clipboard bidirectional" "draganddrop hosttoguest"; do
		# shellcheck disable=SC2086 # words
		vbm modifyvm web1 --$words
		succeeds
		[[ $stderr == "VBoxManage: warning: ${words% *} '${words#* }' has no effect here: "* ]]
		[ "$(mr web1 "${words% *}")" = "${words#* }" ]
	done
	vbm showvminfo web1
	has_line "Graphics Controller:         VMSVGA"
	has_line "Paravirt. Provider:          KVM"
}

@test "values that do not exist are refused in VirtualBox's words" {
	make_vm web1
	vbm modifyvm web1 --firmware x
	fails_with 1 "Invalid --firmware argument 'x'"
	vbm modifyvm web1 --nic1 x
	fails_with 1 "Invalid type 'x' specfied for NIC 1"
	vbm modifyvm web1 --nictype1 x
	fails_with 1 "Invalid NIC type 'x' specified for NIC 1"
	vbm modifyvm web1 --memory 1
	fails_with 1 "Invalid RAM size: 1 MB (must be in range [4, "
	vbm modifyvm web1 --cpus 65
	fails_with 1 "Invalid virtual CPU count: 65"
	vbm modifyvm web1 --memory many
	fails_with 2 "many"
	vbm modifyvm web1 --acpi maybe
	fails_with 2 "maybe"
	vbm modifyvm web1 --ostype Frobnix
	fails_with 1 "'Frobnix' is not a valid Guest OS type"
	vbm modifyvm web1 --macaddress1 12
	fails_with 1 "Invalid value '12'"
	vbm modifyvm web1 --macaddress1 010203040506
	fails_with 1 "Invalid value"
}

@test "an unknown option is a syntax error, and a missing value too" {
	make_vm web1
	vbm modifyvm web1 --frob 1
	fails_with 2 "Unknown option: --frob"
	vbm modifyvm web1 --nic9 nat
	fails_with 2 "Unknown option: --nic9"
	vbm modifyvm web1 --nic0 nat
	fails_with 2 "Unknown option: --nic0"
	vbm modifyvm web1 --memory
	fails_with 2 "--memory"
	vbm modifyvm
	fails_with 2 "Not enough parameters"
	vbm modifyvm web1 web2 --memory 64
	fails_with 2 "Invalid parameter 'web2'"
}

@test "of several options none is taken when one is refused" {
	make_vm web1
	vbm modifyvm web1 --memory 512 --natpf1 a,tcp,,1,,1 --natpf1 a,tcp,,2,,2
	fails_with 1 "A NAT rule of this name already exists"
	[ "$(mr web1 memory)" = 128 ]
	[ -z "$(mr web1 'Forwarding(0)')" ]
}

@test "forwarding rules are kept by name and shown behind their adapter" {
	make_vm web1
	VBoxManage modifyvm web1 --natpf1 tcp8080,tcp,,8080,,80 --natpf1 dns,udp,127.0.0.1,5353,,53 \
		--natpf1 ssh,tcp,127.0.0.1,2222,,22
	vbm showvminfo web1 --machinereadable
	has_line 'Forwarding(0)="dns,udp,127.0.0.1,5353,,53"'
	has_line 'Forwarding(1)="ssh,tcp,127.0.0.1,2222,,22"'
	has_line 'Forwarding(2)="tcp8080,tcp,,8080,,80"'
	nic=$(grep -n '^nic1=' <<<"$output" | cut -d: -f1)
	rule=$(grep -n '^Forwarding(0)' <<<"$output" | cut -d: -f1)
	state=$(grep -n '^VMState=' <<<"$output" | cut -d: -f1)
	[ "$state" -lt "$nic" ] && [ "$nic" -lt "$rule" ]
	vbm modifyvm web1 --natpf1 other,tcp,127.0.0.1,2222,,23
	fails_with 1 "A NAT rule for this host port and this host IP already exists"
	vbm modifyvm web1 --natpf1 delete nope
	fails_with 1 "E_INVALIDARG"
	VBoxManage modifyvm web1 --natpf1 delete dns --natpf1 delete ssh
	vbm showvminfo web1 --machinereadable
	has_line 'Forwarding(0)="tcp8080,tcp,,8080,,80"'
	vbm modifyvm web1 --natpf1 broken
	fails_with 1 "broken"
	vbm modifyvm web1 --natpf1 a,tcp,,70000,,22
	fails_with 1 "70000"
}

@test "serial ports take one or two words" {
	make_vm web1
	VBoxManage modifyvm web1 --uart1 0x3F8 4 --uartmode1 file "$HOME/serial.log"
	VBoxManage modifyvm web1 --uart2 0x2F8 3 --uartmode2 server /tmp/pipe --uart-type2 16550A
	vbm showvminfo web1 --machinereadable
	has_line 'uart1="0x03f8,4"'
	has_line "uartmode1=\"file,$HOME/serial.log\""
	has_line 'uarttype1="16550A"'
	has_line 'uartmode2="server,/tmp/pipe"'
	has_line 'uart3="off"'
	vbm modifyvm web1 --uart3 0x3F8 4
	fails_with 1 "same I/O base"
	vbm modifyvm web1 --uart1 0x3F8
	fails_with 2 "--uart1"
	VBoxManage modifyvm web1 --uart1 off --uartmode2 disconnected
	vbm showvminfo web1 --machinereadable
	has_line 'uart1="off"'
	has_line 'uartmode2="disconnected"'
}

@test "modifyvm --name renames the folder, the settings file and the disks in it" {
	make_vm web1
	VBoxManage createmedium --filename "VirtualBox VMs/web1/a.vdi" --size 5 >/dev/null 2>&1
	VBoxManage storagectl web1 --name SATA --add sata
	VBoxManage storageattach web1 --storagectl SATA --port 0 --type hdd --medium "VirtualBox VMs/web1/a.vdi"
	vbm modifyvm web1 --name web2
	says ""
	[ -f "VirtualBox VMs/web2/web2.vbox" ]
	[ ! -e "VirtualBox VMs/web1" ]
	[ "$(mr web2 SATA-0-0)" = "$HOME/VirtualBox VMs/web2/a.vdi" ]
	make_vm web3
	vbm modifyvm web2 --name web3
	fails_with 1 "VERR_ALREADY_EXISTS"
	[ -f "VirtualBox VMs/web2/web2.vbox" ]
	[ "$(mr web2 name)" = web2 ]
}

@test "macaddress auto makes a new address of VirtualBox's range" {
	make_vm web1
	before=$(mr web1 macaddress1)
	[[ $before =~ ^080027[0-9A-F]{6}$ ]]
	VBoxManage modifyvm web1 --macaddress1 auto
	[[ $(mr web1 macaddress1) =~ ^080027[0-9A-F]{6}$ ]]
	[ "$(mr web1 macaddress1)" != "$before" ]
}

@test "old vrdp options warn and work" {
	make_vm web1
	vbm modifyvm web1 --vrdpport 5999
	says ""
	[ "$stderr" = "Warning: '--vrdpport' is deprecated. Use '--vrdeport'." ]
}

@test "twenty createvm at once all succeed" {
	for i in $(seq 20); do VBoxManage createvm --name "vm$i" --register >"out$i" 2>&1 & done
	wait
	[ "$(VBoxManage list vms | wc -l)" = 20 ]
	[ "$(cat out* | grep -c 'is created and registered')" = 20 ]
}

@test "of twenty createvm of one name one succeeds" {
	for i in $(seq 20); do VBoxManage createvm --name same --register >"out$i" 2>&1 & done
	wait
	[ "$(VBoxManage list vms | wc -l)" = 1 ]
	[ "$(cat out* | grep -c 'is created and registered')" = 1 ]
	[ "$(cat out* | grep -c 'already exists')" = 19 ]
	[ -f "VirtualBox VMs/same/same.vbox" ]
}

@test "twenty modifyvm at once lose no change" {
	make_vm web1
	for i in $(seq 20); do VBoxManage modifyvm web1 --natpf1 "r$i,tcp,,$((3000 + i)),,22" & done
	wait
	[ "$(VBoxManage showvminfo web1 --machinereadable | grep -c '^Forwarding')" = 20 ]
}

@test "USB and sound are switched on, and shown as VirtualBox does" {
	make_vm web1
	vbm modifyvm web1 --usb-xhci on --mouse usbtablet --keyboard usb --audio-driver file --audio-enabled on --audio-out on
	says ""
	for pair in xhci=on hidpointing=usbtablet hidkeyboard=usbkbd audio=file audio_out=on audio_in=off usb=off; do
		[ "$(mr web1 "${pair%=*}")" = "${pair#*=}" ]
	done
	VBoxManage showvminfo web1 | grep -qE '^Pointing Device: +USB Tablet$'
	VBoxManage showvminfo web1 | grep -qE '^Audio: +enabled \(Driver: File, Controller: AC97, Codec: AD1980\)$'
	VBoxManage showvminfo web1 | grep -qE '^xHCI USB: +enabled$'
	vbm modifyvm web1 --usb-ehci on
	fails_with 1 "use --usbxhci on"
	vbm modifyvm web1 --usb on
	succeeds
	[[ $stderr == *"this is --usb-xhci on"* ]]
	vbm modifyvm web1 --audio none
	[ "$(mr web1 audio)" = none ]
}

@test "a USB device without a USB controller does not start, and says what to do" {
	make_vm web1
	VBoxManage modifyvm web1 --mouse usbtablet
	vbm startvm web1 --type headless
	fails_with 1 "modifyvm --usbxhci on gives it one"
}
