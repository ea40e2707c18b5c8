#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# The life cycle of machines as VBoxManage drives it. The guest is the firmware that finds nothing to boot.
load common

machine() { # NAME: a small one
	needs_machines
	make_vm "$1"
	VBoxManage modifyvm "$1" --memory 32
}

closed() { # PORT: nobody listens there
	if (exec 9<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; then
		echo "something listens on port $1"
		return 1
	fi
}

process() { # NAME: its process number
	local uuid
	uuid=$(mr "$1" UUID)
	head -n1 "$LODGE_HOME/run/$uuid/lock"
}

@test "startvm says what VirtualBox says and the machine runs when it returns" {
	machine web1
	vbm startvm web1 --type headless
	says 'Waiting for VM "web1" to power on...
VM "web1" has been successfully started.'
	[ -z "$stderr" ]
	[ "$(mr web1 VMState)" = running ]
	vbm list runningvms
	[[ $output == '"web1" {'* ]]
	vbm showvminfo web1 --machinereadable
	has_line 'SessionName="headless"'
	has_line 'VRDEClients==0'
	has_line 'GuestOSType="Linux26_64"'
	has_line 'GuestAdditionsRunLevel=0'
	vbm controlvm web1 poweroff
	says ""
	[ "$stderr" = "0%...10%...20%...30%...40%...50%...60%...70%...80%...90%...100%" ]
	[ "$(mr web1 VMState)" = poweroff ]
	vbm list runningvms
	says ""
}

@test "the process of a machine keeps nothing of its starter open" {
	machine web1
	run timeout 20 bash -c 'exec 7>&1; out=$(VBoxManage startvm web1); echo "$out"' 7>/dev/null
	[ "$status" = 0 ]
	pid=$(process web1)
	# The process cannot be inspected by its own user (it is not dumpable): only root sees its files.
	root=()
	if [ "$(id -u)" != 0 ]; then
		sudo -n true 2>/dev/null || skip "needs root, or sudo without a password, to see the process's files"
		root=(sudo -n)
	fi
	for fd in 0 1 2; do [ "$("${root[@]}" readlink "/proc/$pid/fd/$fd")" = /dev/null ]; done
	[ "$(cut -d' ' -f6 "/proc/$pid/stat")" != "$(cut -d' ' -f6 /proc/$$/stat)" ]
	[ "$("${root[@]}" find "/proc/$pid/fd" -lname 'pipe:*' -o -lname '*.tap' -o -lname '*.out' | wc -l)" = 0 ]
}

@test "every thread of a machine and of its network's switch runs in the sandbox" {
	machine web1
	VBoxManage modifyvm web1 --nic1 intnet --intnet1 locked
	VBoxManage createmedium disk --filename d.vdi --size 8 >/dev/null 2>&1
	VBoxManage storagectl web1 --name SATA --add sata
	VBoxManage storageattach web1 --storagectl SATA --port 0 --type hdd --medium d.vdi
	VBoxManage sharedfolder add web1 --name home --hostpath "$HOME"
	VBoxManage startvm web1 >/dev/null
	pid=$(process web1)
	switch=$(pgrep -n -f "lodge-switch .*$LODGE_HOME")
	for status in /proc/{"$pid","$switch"}/task/*/status; do
		cat "$status"
		grep -Px 'Seccomp:\t2' "$status"
		grep -Px 'NoNewPrivs:\t1' "$status"
		# These two open what is plugged in while the machine runs (vm/sandbox.c).
		grep -Eqx 'Name:.(opener|shares)' "$status" && continue
		grep -Px 'CapEff:\t0+' "$status"
		grep -Px 'CapPrm:\t0+' "$status"
	done
}

@test "a machine that runs cannot be started, changed or unregistered" {
	machine web1
	VBoxManage startvm web1 >/dev/null
	vbm startvm web1
	fails_with 1 "The machine 'web1' is already locked by a session (or being locked or unlocked)"
	[[ $stderr == *"VBOX_E_INVALID_OBJECT_STATE (0x80bb0007), component MachineWrap, interface IMachine"* ]]
	vbm modifyvm web1 --memory 64
	fails_with 1 "The machine 'web1' is already locked for a session (or being unlocked)"
	vbm unregistervm web1 --delete
	fails_with 1 "Cannot unregister the machine 'web1' while it is locked"
	vbm storagectl web1 --name SATA --add sata
	fails_with 1 "already locked"
	[ "$(mr web1 VMState)" = running ]
	[ "$(mr web1 memory)" = 32 ]
}

@test "of ten startvm at once one succeeds" {
	machine web1
	for i in $(seq 10); do VBoxManage startvm web1 >"out$i" 2>&1 & done
	wait
	[ "$(cat out* | grep -c 'successfully started')" = 1 ]
	[ "$(cat out* | grep -c 'already locked')" = 9 ]
	[ "$(mr web1 VMState)" = running ]
}

@test "two machines run at once" {
	machine web1
	machine web2
	vbm startvm web1 web2
	succeeds
	[ "$(VBoxManage list runningvms | wc -l)" = 2 ]
	VBoxManage controlvm web1 poweroff 2>/dev/null
	[ "$(mr web2 VMState)" = running ]
}

@test "controlvm of a machine that does not run is one line" {
	machine web1
	for what in poweroff pause resume reset acpipowerbutton "screenshotpng x.png" "natpf1 a,tcp,,1,,1"; do
		# shellcheck disable=SC2086 # words
		vbm controlvm web1 $what
		[ "$status" = 1 ]
		[ "$stderr" = "VBoxManage: error: Machine 'web1' is not currently running." ]
	done
}

@test "pause and resume" {
	machine web1
	VBoxManage startvm web1 >/dev/null
	vbm controlvm web1 resume
	fails_with 1 "Cannot resume the machine as it is not paused (machine state: Running)"
	vbm controlvm web1 pause
	says ""
	[ -z "$stderr" ]
	[ "$(mr web1 VMState)" = paused ]
	vbm controlvm web1 pause
	fails_with 1 "Already paused"
	[[ $stderr == *"VBOX_E_INVALID_VM_STATE (0x80bb0002)"* ]]
	vbm controlvm web1 resume
	says ""
	[ "$(mr web1 VMState)" = running ]
	vbm controlvm web1 reset
	says ""
	[ "$(mr web1 VMState)" = running ]
}

@test "a screenshot is a PNG" {
	machine web1
	VBoxManage startvm web1 >/dev/null
	vbm controlvm web1 screenshotpng shot.png
	says ""
	[ "$(head -c 8 shot.png | od -An -tx1 | tr -d ' ')" = 89504e470d0a1a0a ]
	vbm controlvm web1 screenshotpng /nonexistent/shot.png
	fails_with 1 "/nonexistent/shot.png"
}

@test "keyboard input is checked before it is sent" {
	machine web1
	VBoxManage startvm web1 >/dev/null
	vbm controlvm web1 keyboardputscancode 1c 9c
	says ""
	vbm controlvm web1 keyboardputscancode 1c zz
	fails_with 2 "'zz' is not a hex byte"
	vbm controlvm web1 keyboardputscancode
	fails_with 2 "Missing argument"
	vbm controlvm web1 keyboardputstring "root" "x"
	says ""
	echo hello >text
	vbm controlvm web1 keyboardputfile text
	says ""
	vbm controlvm web1 keyboardputfile missing
	fails_with 1 "missing"
	vbm controlvm web1 dance
	fails_with 2 "Invalid parameter 'dance'"
	vbm controlvm web1 teleport
	fails_with 1 "not available"
}

@test "forwarding rules change while it runs and stay" {
	machine web1
	VBoxManage startvm web1 >/dev/null
	port=$((20000 + RANDOM % 10000))
	vbm controlvm web1 natpf1 "ssh,tcp,127.0.0.1,$port,,22"
	says ""
	exec 9<>"/dev/tcp/127.0.0.1/$port"
	exec 9>&-
	[ "$(mr web1 'Forwarding(0)')" = "ssh,tcp,127.0.0.1,$port,,22" ]
	vbm controlvm web1 natpf1 "ssh,tcp,127.0.0.1,1,,22"
	fails_with 1 "A NAT rule of this name already exists"
	vbm controlvm web1 natpf1 delete ssh
	says ""
	closed "$port"
	[ -z "$(mr web1 'Forwarding(0)')" ]
	vbm controlvm web1 setlinkstate1 off
	says ""
	[ "$(mr web1 cableconnected1)" = off ]
}

@test "a rule whose port is taken keeps the machine from starting, and its state as it was" {
	machine web1
	machine web2
	port=$((20000 + RANDOM % 10000))
	for vm in web1 web2; do VBoxManage modifyvm $vm --natpf1 "ssh,tcp,127.0.0.1,$port,,22"; done
	VBoxManage startvm web1 >/dev/null
	vbm startvm web2
	fails_with 1 "$port"
	[[ $output != *successfully* ]]
	[ "$(mr web2 VMState)" = poweroff ]
	VBoxManage modifyvm web2 --natpf1 delete ssh
	vbm startvm web2
	succeeds
}

@test "the console server follows vrde on and off" {
	machine web1
	port=$((30000 + RANDOM % 10000))
	VBoxManage modifyvm web1 --vrdeport $port
	VBoxManage startvm web1 >/dev/null
	closed "$port"
	vbm controlvm web1 vrde on
	says ""
	[ "$(mr web1 vrdeport)" = $port ]
	exec 9<>"/dev/tcp/127.0.0.1/$port"
	head -c 4 <&9 | grep -q RFB
	exec 9>&-
	vbm controlvm web1 vrde off
	says ""
	closed "$port"
}

@test "a machine whose process was killed is aborted and starts again" {
	machine web1
	VBoxManage startvm web1 >/dev/null
	kill -9 "$(process web1)"
	for _ in $(seq 50); do [ "$(mr web1 VMState)" = aborted ] && break; sleep 0.02; done
	[ "$(mr web1 VMState)" = aborted ]
	vbm showvminfo web1
	grep -q '^State:                       aborted (since' <<<"$output"
	vbm list runningvms
	says ""
	vbm controlvm web1 pause
	fails_with 1 "Machine 'web1' is not currently running."
	VBoxManage modifyvm web1 --memory 33
	vbm startvm web1
	succeeds
	[ "$(mr web1 VMState)" = running ]
	VBoxManage controlvm web1 poweroff 2>/dev/null
	[ "$(mr web1 VMState)" = poweroff ]
}

@test "killed at any moment of its start, a machine is never left half" {
	machine web1
	for ms in 0 5 10 20 30 40 60 80; do
		VBoxManage startvm web1 >/dev/null 2>&1 &
		sleep "0.$(printf %03d $ms)"
		pid=$(process web1 2>/dev/null || true) killed=''
		[ -z "$pid" ] || ! kill -9 "$pid" 2>/dev/null || killed=yes
		wait
		while [ -n "$killed" ] && kill -0 "$pid" 2>/dev/null; do sleep 0.01; done
		state=$(mr web1 VMState)
		[[ $state == aborted || $state == running || $state == poweroff ]]
		[ "$state" != running ] || VBoxManage controlvm web1 poweroff 2>/dev/null
	done
	vbm startvm web1
	succeeds
}

# Ctrl-C reaches the whole process group, as here. Packer takes a startvm that failed for a machine that is off.
@test "Ctrl-C while a machine starts: it runs and that is said, or it does not" {
	machine web1
	for s in 0.001 0.003 0.006 0.01 0.015 0.02 0.03 0.05 0.08; do
		code=0
		timeout --preserve-status -s INT "$s" VBoxManage startvm web1 >said 2>&1 || code=$?
		if [ "$code" = 0 ]; then
			grep -q 'successfully started' said
			[ "$(mr web1 VMState)" = running ]
			VBoxManage controlvm web1 poweroff 2>/dev/null
		fi
		[ "$(mr web1 VMState)" = poweroff ]
		VBoxManage modifyvm web1 --memory 32 # nothing holds it
	done
	# One that does not come up in time is given up.
	mkdir bin
	cp "$(realpath "$(command -v VBoxManage)")" bin/
	printf '#!/bin/sh\nexec sleep 60\n' >bin/lodge-vm
	chmod 755 bin/lodge-vm
	code=0
	timeout --preserve-status -s INT 0.3 bin/VBoxManage startvm web1 2>said || code=$?
	[ "$code" = 1 ]
	grep -q "The process of the machine had not started it when this was interrupted; its log is '" said
	[ "$(mr web1 VMState)" = poweroff ]
	vbm startvm web1
	succeeds
}

@test "a disc or disk that is gone, locked or broken keeps the machine from starting" {
	machine web1
	VBoxManage createmedium --filename a.vdi --size 5 >/dev/null 2>&1
	VBoxManage storagectl web1 --name SATA --add sata
	VBoxManage storageattach web1 --storagectl SATA --port 0 --type hdd --medium a.vdi
	mv a.vdi b.vdi
	vbm startvm web1
	fails_with 1 "Could not open the medium '$HOME/a.vdi' (VERR_FILE_NOT_FOUND)"
	[ "$(mr web1 VMState)" = poweroff ]
	mv b.vdi a.vdi
	truncate -s 100 a.vdi
	vbm startvm web1
	fails_with 1 "a.vdi"
	[ "$(mr web1 VMState)" = poweroff ]
	[ -z "$(VBoxManage list runningvms)" ]
}

@test "the disc in a drive changes while the machine runs" {
	machine web1
	make_iso one.iso
	make_iso two.iso
	VBoxManage storagectl web1 --name IDE --add ide
	VBoxManage storageattach web1 --storagectl IDE --port 1 --device 0 --type dvddrive --medium one.iso
	VBoxManage startvm web1 >/dev/null
	vbm storageattach web1 --storagectl IDE --port 1 --device 0 --type dvddrive --medium two.iso --forceunmount
	says ""
	[ "$(mr web1 IDE-1-0)" = "$HOME/two.iso" ]
	vbm storageattach web1 --storagectl IDE --port 1 --device 0 --type dvddrive --medium emptydrive --forceunmount
	says ""
	[ "$(mr web1 IDE-1-0)" = emptydrive ]
	vbm storageattach web1 --storagectl IDE --port 0 --device 0 --type dvddrive --medium two.iso
	fails_with 1 "does not support hot-plugging"
}

@test "guestcontrol of a guest without additions fails with VirtualBox's sentence" {
	machine web1
	VBoxManage startvm web1 >/dev/null
	vbm guestcontrol web1 --username root --password p --execute "/sbin/apk add openssh" --wait-stdout
	fails_with 1 "The guest execution service is not ready (yet)"
	vbm guestcontrol execute web1 --username root --password p -- ls
	fails_with 1 "The guest execution service is not ready (yet)"
}

@test "a serial port writes its file" {
	machine web1
	VBoxManage modifyvm web1 --uart1 0x3F8 4 --uartmode1 file "$HOME/serial.log"
	VBoxManage startvm web1 >/dev/null
	[ -e serial.log ]
}

@test "startvm keeps the logs of the last runs" {
	machine web1
	for _ in 1 2 3; do
		VBoxManage startvm web1 >/dev/null
		VBoxManage controlvm web1 poweroff 2>/dev/null
	done
	[ -s "VirtualBox VMs/web1/Logs/VBox.log" ]
	[ -s "VirtualBox VMs/web1/Logs/VBox.log.2" ]
	vbm showvminfo web1 --log 0
	[[ $output == *running* ]]
	VBoxManage unregistervm web1 --delete 2>/dev/null
	[ ! -e "VirtualBox VMs/web1" ]
}

@test "startvm without a display warns and runs the machine" {
	machine web1
	vbm startvm web1 --type gui
	succeeds
	[[ $stderr == *"warning"*"without a window"* ]]
	[ "$(mr web1 VMState)" = running ]
	vbm startvm web1 --type window
	fails_with 2 "Invalid frontend type 'window'"
}

@test "the engine is the one that extra data or LODGE_ENGINE name" {
	machine web1
	unset LODGE_ENGINE
	VBoxManage setextradata web1 Lodge/Engine interp
	VBoxManage startvm web1 >/dev/null
	vbm showvminfo web1
	has_line "Engine:                      interp"
	VBoxManage controlvm web1 poweroff 2>/dev/null
	LODGE_ENGINE=warp vbm startvm web1
	fails_with 1 "warp"
	vbm hostinfo
	grep -qE '^Engine: (kvm|jit|interp)$' <<<"$output"
	grep -q '^Engine reason: .' <<<"$output"
}

@test "showvminfo is answered while ten of them ask at once" {
	machine web1
	VBoxManage startvm web1 >/dev/null
	for i in $(seq 10); do VBoxManage showvminfo web1 --machinereadable >"out$i" 2>&1 & done
	wait
	[ "$(grep -l 'VMState="running"' out* | wc -l)" = 10 ]
}

@test "media of a machine that runs are listed as locked, and cannot be closed or used by another" {
	machine web1
	machine web2
	VBoxManage createmedium --filename a.vdi --size 5 >/dev/null 2>&1
	for vm in web1 web2; do VBoxManage storagectl $vm --name SATA --add sata; done
	VBoxManage storageattach web1 --storagectl SATA --port 0 --type hdd --medium a.vdi
	VBoxManage startvm web1 >/dev/null
	vbm list hdds
	has_line "State:          locked write"
	vbm closemedium disk a.vdi
	fails_with 1 "VBOX_E_OBJECT_IN_USE"
	vbm storageattach web2 --storagectl SATA --port 0 --type hdd --medium a.vdi
	fails_with 1 "VBOX_E_OBJECT_IN_USE"
	[ -z "$(mr web2 SATA-ImageUUID-0-0)" ]
}

@test "an image that another process has open keeps the machine from starting" {
	machine web1
	machine web2
	VBoxManage createmedium --filename a.img --size 5 --format RAW >/dev/null 2>&1
	for vm in web1 web2; do VBoxManage storagectl $vm --name SATA --add sata; done
	VBoxManage storageattach web1 --storagectl SATA --port 0 --type hdd --medium a.img
	ln a.img same.img
	VBoxManage storageattach web2 --storagectl SATA --port 0 --type hdd --medium same.img
	VBoxManage startvm web1 >/dev/null
	vbm startvm web2
	fails_with 1 "same.img"
	[ "$(mr web2 VMState)" = poweroff ]
}
