#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
load common

@test "showvminfo --machinereadable has its keys in the order programs rely on" {
	make_vm web1
	want="name Encryption groups ostype UUID CfgFile SnapFldr LogFldr hardwareuuid memory pagefusion vram cpuexecutioncap
hpet cpu-profile chipset firmware cpus pae longmode triplefaultreset apic x2apic nested-hw-virt
cpuid-portability-level bootmenu boot1 boot2 boot3 boot4 acpi ioapic biosapic biossystemtimeoffset BIOS_NVRAM_File
rtcuseutc hwvirtex nestedpaging largepages vtxvpid vtxux virtvmsavevmload iommu paravirtprovider
effparavirtprovider VMState VMStateChangeTime graphicscontroller monitorcount accelerate3d accelerate2dvideo
teleporterenabled teleporterport teleporteraddress teleporterpassword tracing-enabled tracing-allow-vm-access
tracing-config autostart-enabled autostart-delay defaultfrontend vmprocpriority natnet1 macaddress1
cableconnected1 nic1 nictype1 nicspeed1 mtu sockSnd sockRcv tcpWndSnd tcpWndRcv nic2 nic3 nic4 nic5 nic6 nic7
nic8 hidpointing hidkeyboard uart1 uart2 uart3 uart4 lpt1 lpt2 audio audio_out audio_in clipboard draganddrop
vrde usb ehci xhci recording_enabled recording_screens rec_screen0 rec_screen_enabled rec_screen_id
rec_screen_video_enabled rec_screen_audio_enabled rec_screen_dest rec_screen_dest_filename rec_screen_opts
rec_screen_video_res_xy rec_screen_video_rate_kbps rec_screen_video_fps GuestMemoryBalloon"
	got=$(VBoxManage showvminfo web1 --machinereadable | sed 's/BIOS NVRAM File/BIOS_NVRAM_File/; s/[=:].*//; s/^ //')
	diff <(tr -s ' ' '\n' <<<"$want") <(echo "$got")
}

@test "showvminfo for people labels 28 columns wide" {
	make_vm web1
	vbm showvminfo web1
	succeeds
	has_line "Name:                        web1"
	has_line "Guest OS:                    Linux 2.6 / 3.x / 4.x / 5.x (64-bit)"
	has_line "Memory size:                 128MB"
	has_line "Boot Device 1:               Floppy"
	has_line "NIC 2:                       disabled"
	has_line "RTC:                         local time"
	has_line "Configured memory balloon:   0MB"
	grep -q '^State:                       powered off (since 20' <<<"$output"
	grep -q '^NIC 1:                       MAC: 080027.*, Attachment: NAT, Cable connected: on, Trace: off (file: none), Type: 82540EM, Reported speed: 0 Mbps' <<<"$output"
}

@test "list -l vms is showvminfo of each" {
	make_vm web1
	make_vm web2
	diff <(VBoxManage showvminfo web1; VBoxManage showvminfo web2) <(VBoxManage list -l vms)
	diff <(VBoxManage list -l vms) <(VBoxManage list vms --long)
}

@test "list --sorted vms sorts by name" {
	for n in b C a; do make_vm $n; done
	vbm list -s vms
	[ "$(sed 's/ .*//' <<<"$output" | tr -d '"\n')" = abC ]
}

@test "list ostypes has a block a type" {
	vbm list ostypes
	succeeds
	[ "$(grep -c '^ID:' <<<"$output")" -ge 100 ]
	[ "$(grep '^ID:' <<<"$output" | sort | uniq -d)" = "" ]
	[ "$(grep '^Description:' <<<"$output" | sort | uniq -d)" = "" ]
	grep -A5 '^ID:          Debian_64$' <<<"$output" >got
	diff got - <<-'END'
		ID:          Debian_64
		Description: Debian (64-bit)
		Family ID:   Linux
		Family Desc: Linux
		64 bit:      true

	END
	has_line "ID:          Linux26_64"
}

@test "list hostinfo has VirtualBox's lines" {
	vbm list hostinfo
	succeeds
	[[ $output == "Host Information:"* ]]
	grep -qE '^Processor count: [0-9]+$' <<<"$output"
	grep -qE '^Processor#0 (speed|description): ' <<<"$output"
	grep -qE '^Memory size: [0-9]+ MByte$' <<<"$output"
	has_line "Operating system: Linux"
}

@test "lists of what there is not are empty or say so" {
	for what in hostonlyifs dhcpservers natnets intnets runningvms vms hdds dvds floppies webcams updates cloudproviders; do
		vbm list $what
		says ""
	done
	# The host's own drives are what the kernel says.
	for drive in hostdvds:sr hostfloppies:fd; do
		vbm list "${drive%:*}"
		succeeds
		[ "$(sed -n 's|^Name: *||p' <<<"$output")" = "$(cd /sys/block && ls -d "${drive#*:}"* 2>/dev/null | sed 's|^|/dev/|')" ]
	done
	vbm list extpacks
	says "Extension Packs: 0"
	vbm list groups
	says '"/"'
	vbm list usbhost
	has_line "<none>"
}

@test "list bridgedifs keeps the blanks behind an empty IPV6Address" {
	vbm list bridgedifs
	succeeds
	[ "$(grep -E '^IPV6Address:' <<<"$output" | grep -cvE '^IPV6Address:     ')" = 0 ]
	[ "$(grep -cE '^IPAddress: *$' <<<"$output")" = 0 ]
}

@test "list of something else is a syntax error" {
	vbm list frobs
	fails_with 2 'Unknown subcommand "frobs".'
	vbm list
	fails_with 2 "Missing subcommand"
}

@test "extra data of machines and of the host" {
	make_vm web1
	vbm setextradata web1 a/b "some value"
	says ""
	vbm getextradata web1 a/b
	says "Value: some value"
	vbm getextradata web1 x
	says "No value set!"
	VBoxManage setextradata global GUI/UpdateDate '1 d, 2027-01-01, stable'
	vbm getextradata global GUI/UpdateDate
	says "Value: 1 d, 2027-01-01, stable"
	VBoxManage setextradata web1 c d
	vbm getextradata web1 enumerate
	says "Key: a/b, Value: some value
Key: c, Value: d"
	VBoxManage setextradata web1 c
	vbm getextradata web1 c
	says "No value set!"
	vbm setextradata web1 Lodge/Engine warp
	fails_with 1 "Lodge/Engine is one of auto, kvm, jit and interp, not 'warp'"
}

@test "guest properties are stored" {
	make_vm web1
	vbm guestproperty enumerate web1
	says "No properties found."
	vbm guestproperty set web1 /VirtualBox/GuestAdd/X 10000
	says ""
	vbm guestproperty get web1 /VirtualBox/GuestAdd/X
	says "Value: 10000"
	vbm guestproperty get web1 /VirtualBox/GuestInfo/OS/Product
	says "No value set!"
	vbm guestproperty enumerate web1 --old-format
	[[ $output =~ ^Name:\ /VirtualBox/GuestAdd/X,\ value:\ 10000,\ timestamp:\ [0-9]+,\ flags:\ $ ]]
	VBoxManage guestproperty unset web1 /VirtualBox/GuestAdd/X
	vbm guestproperty get web1 /VirtualBox/GuestAdd/X
	says "No value set!"
}

@test "guest properties have flags, patterns and those who wait for them" {
	make_vm web1
	vbm guestproperty set web1 /a/locked 1 --flags rdonlyhost,transient
	says ""
	vbm guestproperty set web1 /a/locked 2
	fails_with 1 "The guest property '/a/locked' is read-only for the host"
	vbm guestproperty set web1 /a/b 2 --flags FROBNICATE
	fails_with 1 "Invalid flags 'FROBNICATE'"
	VBoxManage guestproperty set web1 /b/c 3
	vbm guestproperty enumerate web1 --no-timestamp "/a/*|/x"
	says "/a/locked = '1' TRANSIENT, RDONLYHOST"
	VBoxManage guestproperty wait web1 "/b/*" --timeout 20000 >"$BATS_TEST_TMPDIR/waited" 3>&- &
	sleep 0.3
	VBoxManage guestproperty set web1 /a/free x
	VBoxManage guestproperty set web1 /b/new y
	wait $!
	[[ $(cat "$BATS_TEST_TMPDIR/waited") == "Name: /b/new, value: y, flags: " ]]
	vbm guestproperty wait web1 "/b/*" --timeout 200 --fail-on-timeout
	[[ $status == 2 && $output == *"Time out or interruption while waiting for a notification."* ]]
}

@test "guestcontrol in every spelling says that the machine is not running" {
	make_vm web1
	sentence='Machine "web1" is not running (currently powered off)!'
	vbm guestcontrol web1 --username root --password p --execute "/sbin/apk add openssh" --wait-stdout
	fails_with 1 "$sentence"
	vbm guestcontrol execute web1 --username root --password p -- ls -la
	fails_with 1 "$sentence"
	vbm guestcontrol web1 run --exe /bin/ls --username root --password p --wait-stdout -- ls -la
	fails_with 1 "$sentence"
	vbm guestcontrol web1 execute --image /bin/ls --username root --password p --wait-exit --wait-stdout -- -la
	fails_with 1 "$sentence"
	vbm guestcontrol web1 run --username root -- /bin/ls -l --color
	fails_with 1 "$sentence"
	vbm guestcontrol web1 copyto --username root a b
	fails_with 1 "$sentence"
	vbm guestcontrol web1 run --username root
	fails_with 2 "No executable specified!"
	vbm guestcontrol web1 run --frob
	fails_with 2 "Unknown option: --frob"
}

@test "a verb leaves stdin alone" {
	make_vm web1
	run bash -c 'echo rest | { VBoxManage list vms >/dev/null; cat; }'
	[ "$output" = rest ]
}
