#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# Clients that are killed halfway, and two that do something to one machine at once: each has its answer or none, and the
# next one finds nothing in its way. (Guests that do not answer: test/guest/guestcontrol.bats.)
# shellcheck disable=SC2154 # status, output and stderr are set by run
load common

machine() { # NAME
	make_vm "$1"
	VBoxManage modifyvm "$1" --memory 16 --nic1 none
}

free_machine() { # NAME: it is off and unlocked, nothing runs for it, and it can be started, changed and removed
	local folder
	[ "$(mr "$1" VMState)" = poweroff ] || VBoxManage controlvm "$1" poweroff 2>/dev/null
	[ "$(mr "$1" VMState)" = poweroff ]
	VBoxManage modifyvm "$1" --description again
	VBoxManage startvm "$1" --type headless >/dev/null
	[ "$(mr "$1" VMState)" = running ]
	VBoxManage controlvm "$1" poweroff 2>/dev/null
	folder=$(dirname "$(mr "$1" CfgFile)")
	VBoxManage unregistervm "$1" --delete 2>/dev/null
	[ ! -e "$folder" ]
	! pgrep -f "^lodge-vm --config $LODGE_HOME/" >/dev/null
}

# after MS SIGNAL COMMAND...: the command, and a signal to it after a while; its status in `status`.
after() {
	local ms=$1 signal=$2
	shift 2
	"$@" >out 2>err 3>&- &
	sleep "$(printf '0.%03d' "$ms")"
	kill -s "$signal" $! 2>/dev/null || true
	status=0
	wait $! || status=$?
}

@test "a startvm that is killed, at any moment, leaves a machine that runs or one that is off" {
	needs_machines
	for signal in KILL INT; do
		for ms in 1 10 40; do
			machine m
			after "$ms" "$signal" VBoxManage startvm m --type headless
			case $(mr m VMState) in
			running | starting | poweroff | aborted) ;;
			*) mr m VMState; false ;;
			esac
			for _ in $(seq 100); do
				[ "$(mr m VMState)" = starting ] || break
				sleep 0.1
			done
			[ "$(mr m VMState)" != aborted ] || VBoxManage startvm m --type headless >/dev/null
			free_machine m
		done
	done
}

@test "of two that start one machine one does, and the other says that it is locked" {
	needs_machines
	machine m
	for i in 1 2 3 4; do
		VBoxManage startvm m --type headless >"out$i" 2>"err$i" 3>&- &
	done
	wait
	[ "$(grep -l 'successfully started' out? | wc -l)" = 1 ]
	[ "$(grep -lF "The machine 'm' is already locked by a session (or being locked or unlocked)" err? | wc -l)" = 3 ]
	[ "$(grep -l VBOX_E_INVALID_OBJECT_STATE err? | wc -l)" = 3 ]
	[ "$(mr m VMState)" = running ]
	vbm modifyvm m --memory 32
	fails_with 1 "The machine 'm' is already locked for a session (or being unlocked)"
	free_machine m
}

@test "of two that switch a machine off one does, and the other says that it does not run" {
	needs_machines
	for what in poweroff savestate; do
		machine m
		VBoxManage startvm m --type headless >/dev/null
		ended=0
		for i in 1 2 3; do
			VBoxManage controlvm m $what >"out$i" 2>"err$i" 3>&- &
			pids[i]=$!
		done
		for i in 1 2 3; do
			if wait "${pids[i]}"; then
				ended=$((ended + 1))
			else
				grep -qE "is not currently running|machine state: |is already locked for a session" "err$i" || { cat "err$i"; false; }
			fi
		done
		[ "$ended" -ge 1 ]
		[ $what = poweroff ] || VBoxManage discardstate m
		free_machine m
	done
}

@test "a machine that is changed while it starts is changed before or refused, never in between" {
	needs_machines
	for ms in 0 8 32; do
		machine m
		VBoxManage startvm m --type headless >/dev/null 3>&- &
		sleep "0.$(printf %03d $ms)"
		vbm modifyvm m --memory 20
		if [ "$status" = 0 ]; then
			memory=20
		else
			fails_with 1 "The machine 'm' is already locked for a session (or being unlocked)"
			memory=16
		fi
		wait $!
		[ "$(mr m memory)" = $memory ]
		free_machine m
	done
}

@test "an export, an import and a clone that are killed leave nothing but what can be done again" {
	needs_machines
	machine m
	VBoxManage storagectl m --name SATA --add sata
	head -c 40000000 /dev/urandom >raw
	VBoxManage convertfromraw raw full.vdi >/dev/null 2>&1
	VBoxManage storageattach m --storagectl SATA --port 0 --device 0 --type hdd --medium full.vdi
	for signal in KILL INT; do
		for ms in 20 150; do
			after $ms $signal VBoxManage export m --output box.ova
			VBoxManage list vms >/dev/null
			after $ms $signal VBoxManage clonevm m --name copy --register
			VBoxManage list vms >/dev/null
			if VBoxManage showvminfo copy >/dev/null 2>&1; then
				VBoxManage unregistervm copy --delete 2>/dev/null
			fi
			rm -f box.ova
			[ -z "$(ls "$HOME/VirtualBox VMs/copy" 2>/dev/null)" ]
		done
	done
	VBoxManage export m --output box.ova >/dev/null 2>&1
	for signal in KILL INT; do
		for ms in 20 150; do
			after $ms $signal VBoxManage import box.ova --vsys 0 --vmname again
			VBoxManage list vms >/dev/null
			if VBoxManage showvminfo again >/dev/null 2>&1; then
				VBoxManage unregistervm again --delete 2>/dev/null
			fi
			[ -z "$(ls "$HOME/VirtualBox VMs/again" 2>/dev/null)" ]
		done
	done
	VBoxManage import box.ova --vsys 0 --vmname again >/dev/null 2>&1
	VBoxManage clonevm m --name copy --register >/dev/null 2>&1
	free_machine again
	free_machine copy
	free_machine m
}

@test "a client that is killed while it saves a machine or takes a snapshot does not hold it" {
	needs_machines
	for ms in 5 40; do
		machine m
		VBoxManage startvm m --type headless >/dev/null
		after $ms KILL VBoxManage snapshot m take s
		for _ in $(seq 100); do
			case $(mr m VMState) in running | paused | poweroff | saved) break ;; esac
			sleep 0.1
		done
		[ "$(mr m VMState)" = running ]
		after $ms KILL VBoxManage controlvm m savestate
		for _ in $(seq 100); do
			case $(mr m VMState) in saved | running) break ;; esac
			sleep 0.1
		done
		case $(mr m VMState) in
		saved) VBoxManage discardstate m ;;
		running) VBoxManage controlvm m poweroff 2>/dev/null ;;
		*) mr m VMState; false ;;
		esac
		free_machine m
	done
}

@test "what asks for what is the case already is done, and what is not here says why" {
	needs_machines
	machine m
	VBoxManage modifyvm m --videocap off --recording off
	vbm modifyvm m --videocap on
	fails_with 1 "the screen cannot be recorded"
	vbm modifyvm m --scsi on
	fails_with 1 ""
	VBoxManage startvm m --type headless >/dev/null
	for words in "clipboard mode disabled" "draganddrop disabled" "audioin off" "recording off" "videocap off" \
		"vm-process-priority default" "webcam list"; do
		# shellcheck disable=SC2086 # words
		vbm controlvm m $words
		says ""
	done
	for words in "clipboard mode bidirectional" "recording on" "webcam" "webcam lists" "acpisleepbutton" "plugcpu 1"; do
		# shellcheck disable=SC2086 # words
		vbm controlvm m $words
		fails_with 1 "'${words%% *}' is not available here: "
	done
}
