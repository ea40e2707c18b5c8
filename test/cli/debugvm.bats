#!/usr/bin/env bats
# VBoxManage debugvm on a machine without a guest. With one: test/guest/gdb.bats.

load common

# A machine whose firmware found nothing to boot, standing still.
start_machine() {
	VBoxManage createvm --name web1 --register >/dev/null
	VBoxManage modifyvm web1 --memory 16 --cpus 2
	VBoxManage setextradata web1 Lodge/Engine interp
	VBoxManage startvm web1 --type headless >/dev/null
	VBoxManage controlvm web1 pause
}

@test "debugvm needs a running machine and a sub-command that there is" {
	VBoxManage createvm --name web1 --register >/dev/null
	vbm debugvm
	fails_with 2 "Must specify a machine"
	vbm debugvm web1
	fails_with 2 "Must specify a sub-command"
	vbm debugvm web1 nonsense
	fails_with 2 "Invalid sub-command 'nonsense'"
	vbm debugvm web1 getregisters rip
	fails_with 1 "Machine 'web1' is not currently running"
	vbm debugvm none osinfo
	fails_with 1 "VBOX_E_OBJECT_NOT_FOUND"
}

@test "registers are shown, set, and what cannot be set is refused as a whole" {
	start_machine
	vbm debugvm web1 getregisters rbx cs
	[ "$status" -eq 0 ]
	[[ ${lines[0]} =~ ^rbx\ =\ 0x[0-9a-f]{16}$ ]]
	[[ ${lines[1]} =~ ^cs\ =\ 0x[0-9a-f]{8}$ ]]
	vbm debugvm web1 setregisters rbx=0x1122334455667788 rcx=77
	[ "$status" -eq 0 ]
	vbm debugvm web1 getregisters rbx rcx
	[ "${lines[0]}" = "rbx = 0x1122334455667788" ]
	[ "${lines[1]}" = "rcx = 0x000000000000004d" ]
	vbm debugvm web1 setregisters rbx=1 cs_base=0x77
	fails_with 1 "the register 'cs_base' cannot be set"
	vbm debugvm web1 setregisters rbx=1 cr0=0x80000000
	fails_with 1 "the CPU refuses 0x80000000 for the register 'cr0'"
	vbm debugvm web1 setregisters rbx=0x1ffffffffffffffff
	fails_with 1 "is not a value of 8 bytes"
	vbm debugvm web1 getregisters rbx
	[ "$output" = "rbx = 0x1122334455667788" ]
	vbm debugvm web1 getregisters --cpu=1 all
	[ "$status" -eq 0 ]
	[ "${#lines[@]}" -gt 60 ]
	vbm debugvm web1 getregisters --cpu=2 rip
	fails_with 1 "there is no virtual CPU 2; the last one is 1"
	vbm debugvm web1 getregisters nonsense
	fails_with 1 "there is no register 'nonsense'"
}

@test "views of devices and CPUs are printed, and the help names them" {
	start_machine
	vbm debugvm web1 info help
	[ "$status" -eq 0 ]
	[[ $output == *"phys "*"pci "* ]]
	vbm debugvm web1 info cpus
	[[ ${lines[1]} == *"cpu1 "*" cr3 "* ]]
	vbm debugvm web1 info pic
	[ "${lines[0]}" = "i8259" ]
	vbm debugvm web1 info phys
	[[ $output == *"RAM"* ]]
	vbm debugvm web1 info xp 0xfffffff0 1
	[[ $output == *"  00000000fffffff0  ea "* ]] # a far jump
	vbm debugvm web1 info nonsense
	fails_with 1 "there is no item 'nonsense'"
	vbm debugvm web1 stack
	[[ ${lines[0]} == "cpu0, ring 0" ]]
	vbm debugvm web1 statistics --pattern '/CPU0/*'
	[[ $output == *'<Counter c="'*'name="/CPU0/halts"'* ]]
	[[ $output != *'/CPU1/'* ]]
	vbm debugvm web1 statistics --reset
	fails_with 2 "Counters are not reset"
}

@test "a core file is one that readelf takes, and is never written over" {
	start_machine
	vbm debugvm web1 dumpvmcore --filename "$HOME/core"
	[ "$status" -eq 0 ]
	run readelf -hln "$HOME/core"
	[ "$status" -eq 0 ]
	[[ $output == *"CORE (Core file)"* ]]
	[ "$(grep -c NT_PRSTATUS <<<"$output")" -eq 2 ]
	[ "$(stat -c %a "$HOME/core")" = 600 ]
	vbm debugvm web1 dumpvmcore --filename "$HOME/core"
	fails_with 1 "exists already"
	vbm debugvm web1 dumpvmcore
	fails_with 2 "--filename"
}

@test "what is not Linux is said not to be recognized" {
	start_machine
	vbm debugvm web1 osinfo
	fails_with 1 "the guest's operating system was not recognized"
	vbm debugvm web1 osdmesg
	fails_with 1 "no Linux kernel was found"
}

@test "an NMI is injected, samples say where CPUs are, and the log's level changes" {
	start_machine
	vbm debugvm web1 injectnmi
	[ "$status" -eq 0 ]
	vbm debugvm web1 guestsample --filename "$HOME/samples" --sample-time-us 20000 --sample-interval-us 1000
	[ "$status" -eq 0 ]
	[[ $(head -n 1 "$HOME/samples") == "20 samples, 40 of virtual CPUs" ]]
	vbm debugvm web1 log warning
	[ "$status" -eq 0 ]
	vbm debugvm web1 log
	[ "$output" = "log=warning" ]
	vbm debugvm web1 logdest
	[[ $output == "logdest="*"VBox.log" ]]
	vbm debugvm web1 logdest dir=/tmp
	fails_with 2 "is settled when the machine starts"
}

@test "gdb is served on a machine that runs, once, and until it is ended" {
	start_machine
	vbm debugvm web1 gdb 0
	[ "$status" -eq 0 ]
	[[ $output =~ ^gdb\ is\ served:\ target\ remote\ 127.0.0.1:[0-9]+$ ]]
	vbm debugvm web1 gdb 0
	fails_with 1 "gdb is served already"
	vbm debugvm web1 gdb "$HOME/socket"
	fails_with 2 "is not a port"
	vbm debugvm web1 gdb off
	[ "$status" -eq 0 ]
	vbm debugvm web1 gdb 0
	[ "$status" -eq 0 ]
}
