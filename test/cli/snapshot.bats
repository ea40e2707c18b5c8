#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# Snapshots, saved states and clones as VBoxManage shows and does them, without a guest.
load common

with_disk() { # NAME: off, with a disk
	make_vm "$1"
	VBoxManage modifyvm "$1" --memory 32
	VBoxManage createmedium disk --filename "$HOME/$1.vdi" --size 8 >/dev/null 2>&1
	VBoxManage storagectl "$1" --name SATA --add sata --portcount 1
	VBoxManage storageattach "$1" --storagectl SATA --port 0 --device 0 --type hdd --medium "$HOME/$1.vdi"
}

uuid_of() { # VM SNAPSHOT
	VBoxManage snapshot "$1" list --machinereadable | grep -A1 "=\"$2\"\$" | sed -n 's/^SnapshotUUID.*="\(.*\)"/\1/p'
}

@test "a machine without snapshots says so and exits with 1" {
	make_vm web1
	vbm snapshot web1 list
	[ "$status" = 1 ]
	[ "$output" = "This machine does not have any snapshots" ]
	vbm snapshot web1 restorecurrent
	fails_with 1 "This machine does not have any snapshots"
	vbm snapshot web1 restore s1
	fails_with 1 "This machine does not have any snapshots"
}

@test "take, list and showvminfo print the tree as VirtualBox does" {
	with_disk web1
	vbm snapshot web1 take base --description "a first one"
	succeeds
	[[ $output =~ ^Snapshot\ taken.\ UUID:\ [0-9a-f-]{36}$ ]]
	[ "$stderr" = "0%...10%...20%...30%...40%...50%...60%...70%...80%...90%...100%" ]
	VBoxManage snapshot web1 take 'with "quotes"' 2>/dev/null
	VBoxManage snapshot web1 restore base 2>/dev/null
	VBoxManage snapshot web1 take other 2>/dev/null
	b=$(uuid_of web1 base) q=$(uuid_of web1 'with \\"quotes\\"') o=$(uuid_of web1 other)
	vbm snapshot web1 list
	says "   Name: base (UUID: $b)
   Description:
a first one
      Name: with \"quotes\" (UUID: $q)
      Name: other (UUID: $o) *"
	vbm snapshot web1 list --machinereadable
	says "SnapshotName=\"base\"
SnapshotUUID=\"$b\"
SnapshotDescription=\"a first one\"
SnapshotName-1=\"with \\\"quotes\\\"\"
SnapshotUUID-1=\"$q\"
SnapshotName-2=\"other\"
SnapshotUUID-2=\"$o\"
CurrentSnapshotName=\"other\"
CurrentSnapshotUUID=\"$o\"
CurrentSnapshotNode=\"SnapshotName-2\""
	vbm showvminfo web1 --machinereadable
	has_line 'SnapshotName="base"'
	has_line 'CurrentSnapshotNode="SnapshotName-2"'
	vbm showvminfo web1
	has_line '* Snapshots:'
	has_line "      Name: other (UUID: $o) *"
	vbm snapshot web1 list --details
	[[ $output == *"Taken: 20"* ]]
}

@test "what does not exist or cannot be is refused in VirtualBox's words" {
	with_disk web1
	VBoxManage snapshot web1 take base 2>/dev/null
	vbm snapshot web1 restore nosuch
	fails_with 1 "Could not find a snapshot named 'nosuch'"
	fails_with 1 "VBOX_E_OBJECT_NOT_FOUND"
	for s in a b; do
		VBoxManage snapshot web1 restore base 2>/dev/null
		VBoxManage snapshot web1 take $s 2>/dev/null
	done
	vbm snapshot web1 delete base
	fails_with 1 "Snapshot 'base' of the machine 'web1' cannot be deleted, because it has 2 child snapshots, which is more than the one snapshot allowed for deletion"
	vbm discardstate web1
	fails_with 1 "Cannot discard the saved state as the machine is not in the Saved or Aborted-Saved state (machine state: PoweredOff)"
	vbm snapshot web1 take
	fails_with 2 "Missing snapshot name"
	vbm snapshot web1 explode
	fails_with 2 "Invalid parameter 'explode'"
	vbm clonevm web1 --name x --options link
	fails_with 1 "Linked clone can only be created from a snapshot"
	vbm clonevm web1 --name x --mode none
	fails_with 2 "Invalid clone mode 'none'"
	vbm clonevm nosuch
	fails_with 1 "Could not find a registered machine named 'nosuch'"
}

@test "edit changes name and description, and restoring brings settings back" {
	with_disk web1
	VBoxManage snapshot web1 take s1 2>/dev/null
	VBoxManage snapshot web1 edit s1 --name "first state" --description words
	VBoxManage snapshot web1 edit --current --description "other words"
	vbm snapshot web1 list --machinereadable
	has_line 'SnapshotName="first state"'
	has_line 'SnapshotDescription="other words"'
	VBoxManage modifyvm web1 --memory 64 --nic1 nat
	VBoxManage snapshot web1 showvminfo "first state" | grep -q '^Memory size: *32MB'
	vbm snapshot web1 restorecurrent
	says "Restoring snapshot 'first state' ($(uuid_of web1 'first state'))"
	[ "$(mr web1 memory)" = "" ] || true
	VBoxManage showvminfo web1 --machinereadable | grep -qx memory=32
}

@test "deleting leaves one disk and no files, wherever in the tree it is done" {
	with_disk web1
	for s in a b c d; do VBoxManage snapshot web1 take $s 2>/dev/null; done
	VBoxManage snapshot web1 restore b 2>/dev/null
	VBoxManage snapshot web1 take e 2>/dev/null
	for s in c d a e b; do VBoxManage snapshot web1 delete $s 2>/dev/null; done
	vbm snapshot web1 list
	[ "$output" = "This machine does not have any snapshots" ]
	[ "$(mr web1 SATA-0-0)" = "$HOME/web1.vdi" ]
	[ "$(VBoxManage list hdds | grep -c ^Location)" = 1 ]
	[ -z "$(ls "$HOME/VirtualBox VMs/web1/Snapshots")" ]
}

@test "an unregistered machine keeps its snapshots in its settings file" {
	with_disk web1
	for s in a b; do VBoxManage snapshot web1 take $s 2>/dev/null; done
	VBoxManage snapshot web1 list --machinereadable >before
	VBoxManage unregistervm web1
	VBoxManage registervm "$HOME/VirtualBox VMs/web1/web1.vbox"
	VBoxManage snapshot web1 list --machinereadable | diff before -
	VBoxManage snapshot web1 restore a 2>/dev/null
	VBoxManage snapshot web1 delete b 2>/dev/null
	VBoxManage unregistervm web1 --delete 2>/dev/null
	[ ! -e "$HOME/VirtualBox VMs/web1" ]
	[ ! -e "$HOME/web1.vdi" ]
}

@test "clones have their own UUIDs, MAC addresses and disks, or keep them on request" {
	with_disk web1
	VBoxManage modifyvm web1 --nic1 nat --nic2 null
	vbm clonevm web1 --register
	says 'Machine has been successfully cloned as "web1 Clone"'
	[ "$(mr 'web1 Clone' macaddress1)" != "$(mr web1 macaddress1)" ]
	[ "$(mr 'web1 Clone' hardwareuuid)" = "$(mr 'web1 Clone' UUID)" ]
	VBoxManage clonevm web1 --name keeps --register --options keepallmacs,keephwuuids,keepdisknames --groups /g \
		--uuid 11111111-2222-4333-8444-555555555555 --basefolder "$HOME/elsewhere" 2>/dev/null
	[ "$(mr keeps macaddress1)" = "$(mr web1 macaddress1)" ]
	[ "$(mr keeps hardwareuuid)" = "$(mr web1 UUID)" ]
	[ "$(mr keeps UUID)" = 11111111-2222-4333-8444-555555555555 ]
	[ "$(mr keeps SATA-0-0)" = "$HOME/elsewhere/keeps/web1.vdi" ]
	[ "$(mr keeps groups)" = /g ]
	VBoxManage clonevm web1 --name nat --register --options keepnatmacs 2>/dev/null
	[ "$(mr nat macaddress1)" = "$(mr web1 macaddress1)" ]
	[ "$(mr nat macaddress2)" != "$(mr web1 macaddress2)" ]
	vbm clonevm web1 --name keeps --register
	fails_with 1 "A machine with the name 'keeps' already exists"
}

@test "a linked clone reads through to the snapshot, which cannot be deleted then; a tree is cloned as a tree" {
	with_disk web1
	for s in a b; do VBoxManage snapshot web1 take $s 2>/dev/null; done
	start=$(date +%s%N)
	VBoxManage clonevm web1 --name linked --snapshot a --options link --register 2>/dev/null
	echo "a linked clone in $((($(date +%s%N) - start) / 1000000)) ms"
	vbm snapshot web1 delete a
	fails_with 1 "has more than one child hard disk (2)"
	VBoxManage clonevm web1 --name tree --mode all --register 2>/dev/null
	[ "$(VBoxManage snapshot tree list --machinereadable | grep -c ^SnapshotName)" = 2 ]
	[ "$(uuid_of tree a)" != "$(uuid_of web1 a)" ]
	VBoxManage clonevm web1 --name part --mode machineandchildren --snapshot b --register 2>/dev/null
	vbm snapshot part list --machinereadable
	has_line 'SnapshotName="b"'
	VBoxManage unregistervm linked --delete 2>/dev/null
	VBoxManage snapshot web1 delete a 2>/dev/null
	VBoxManage clonevm web1 --name loose --snapshot b --options link 2>/dev/null
	vbm list vms
	[[ $output != *loose* ]]
	VBoxManage registervm "$HOME/VirtualBox VMs/loose/loose.vbox"
	vbm snapshot web1 delete b
	fails_with 1 "has more than one child hard disk"
}

@test "a machine is saved and goes on; the state can be thrown away, or adopted by another" {
	needs_machines
	with_disk web1
	VBoxManage startvm web1 >/dev/null
	vbm controlvm web1 savestate
	says ""
	[ "$stderr" = "0%...10%...20%...30%...40%...50%...60%...70%...80%...90%...100%" ]
	[ "$(mr web1 VMState)" = saved ]
	state=$(mr web1 VMStateFile)
	[ -s "$state" ]
	vbm modifyvm web1 --memory 64
	fails_with 1 "The machine is not mutable (state is Saved)"
	cp "$state" "$HOME/copy.sav"
	VBoxManage startvm web1 >/dev/null
	[ ! -e "$state" ]
	VBoxManage controlvm web1 savestate 2>/dev/null
	vbm discardstate web1
	says ""
	[ "$(mr web1 VMState)" = poweroff ]
	[ -z "$(ls "$HOME/VirtualBox VMs/web1/Snapshots")" ]
	vbm adoptstate web1 "$HOME/copy.sav"
	says ""
	[ "$(mr web1 VMState)" = saved ]
	VBoxManage startvm web1 >/dev/null
	VBoxManage controlvm web1 poweroff 2>/dev/null
	vbm adoptstate web1 "$HOME/web1.vdi"
	fails_with 1 "is not a saved state"
}

@test "a state that is damaged, or of another machine, is refused and stays" {
	needs_machines
	with_disk web1
	VBoxManage startvm web1 >/dev/null
	VBoxManage controlvm web1 savestate 2>/dev/null
	state=$(mr web1 VMStateFile)
	cp "$state" good
	printf 'x' | dd of="$state" bs=1 seek=$(($(stat -c %s "$state") / 2)) conv=notrunc status=none
	vbm startvm web1
	fails_with 1 "is damaged"
	[ "$(mr web1 VMState)" = saved ]
	make_vm other
	VBoxManage modifyvm other --memory 48
	VBoxManage adoptstate other good
	vbm startvm other
	fails_with 1 "is of another machine"
	cp good "$state"
	VBoxManage startvm web1 >/dev/null
}

@test "a snapshot of a running machine keeps its memory, and the machine goes on from it" {
	needs_machines
	with_disk web1
	VBoxManage startvm web1 >/dev/null
	vbm snapshot web1 take live --live
	succeeds
	[ "$(mr web1 VMState)" = running ]
	vbm snapshot web1 restore live
	fails_with 1 "Cannot delete the current state of the running machine (machine state: Running)"
	VBoxManage snapshot web1 take again 2>/dev/null
	VBoxManage snapshot web1 delete live 2>/dev/null
	VBoxManage controlvm web1 poweroff 2>/dev/null
	VBoxManage snapshot web1 restore again 2>/dev/null
	[ "$(mr web1 VMState)" = saved ]
	VBoxManage startvm web1 >/dev/null
	[ "$(mr web1 VMState)" = running ]
	# The snapshot still has its memory.
	VBoxManage controlvm web1 poweroff 2>/dev/null
	VBoxManage snapshot web1 restorecurrent 2>/dev/null
	[ "$(mr web1 VMState)" = saved ]
}

killed_during() { # SECONDS COMMAND...
	local s=$1
	shift
	"$@" >/dev/null 2>&1 &
	sleep "$s"
	kill -9 $! 2>/dev/null || true
	wait $! 2>/dev/null || true
}

@test "whatever is killed, the next command finishes or undoes it, says so, and the machine is whole" {
	needs_machines
	with_disk web1
	VBoxManage startvm web1 >/dev/null
	n=0
	for s in 0.002 0.005 0.01 0.015 0.02 0.03 0.05 0.1; do
		killed_during $s VBoxManage snapshot web1 take "s$((++n))"
		VBoxManage showvminfo web1 >/dev/null 2>>said
	done
	VBoxManage snapshot web1 take last
	names=$(VBoxManage snapshot web1 list --machinereadable | sed -n 's/^SnapshotName[-0-9]*="\(.*\)"/\1/p')
	for s in $names; do
		killed_during 0.01 VBoxManage snapshot web1 delete "$s"
		VBoxManage showvminfo web1 >/dev/null 2>>said
		VBoxManage snapshot web1 delete "$s" >/dev/null 2>&1 || true
	done
	run VBoxManage snapshot web1 list
	[ "$output" = "This machine does not have any snapshots" ]
	for s in 0.003 0.01 0.03 0.1; do
		killed_during $s VBoxManage controlvm web1 savestate
		VBoxManage showvminfo web1 >/dev/null 2>>said
		case $(mr web1 VMState) in
		saved) VBoxManage startvm web1 >/dev/null ;;
		running) ;;
		*) false ;;
		esac
		[ "$(mr web1 VMState)" = running ]
	done
	for s in 0.005 0.01 0.02 0.03 0.05 0.08; do
		killed_during $s lodge fork web1 --count 2
		VBoxManage showvminfo web1 >/dev/null 2>>said
	done
	VBoxManage controlvm web1 poweroff 2>/dev/null
	for s in 0.003 0.01; do killed_during $s VBoxManage clonevm web1 --name c --register; VBoxManage list vms >/dev/null 2>>said; done
	cat said
	VBoxManage startvm web1 >/dev/null
	[ "$(mr web1 VMState)" = running ]
	# Nothing lies about that nobody knows.
	for f in "$HOME/VirtualBox VMs/web1/Snapshots"/*; do
		[ ! -e "$f" ] || VBoxManage list hdds | grep -qF "$f"
	done
}

@test "a machine's process that is killed over a snapshot loses nothing" {
	needs_machines
	with_disk web1
	VBoxManage startvm web1 >/dev/null
	for s in 0.01 0.03 0.06; do
		pid=$(head -n1 "$LODGE_HOME/run/$(mr web1 UUID)/lock")
		VBoxManage snapshot web1 take "at $s" >/dev/null 2>&1 &
		sleep $s
		kill -9 "$pid"
		wait $! || true
		timeout 20 tail --pid="$pid" -f /dev/null # killed is not yet gone: its memory is given back first
		[ "$(mr web1 VMState)" = aborted ]
		VBoxManage startvm web1 >/dev/null
	done
	VBoxManage snapshot web1 take s2 2>/dev/null
	VBoxManage controlvm web1 poweroff 2>/dev/null
	VBoxManage snapshot web1 restore s2 2>/dev/null
	VBoxManage startvm web1 >/dev/null
	for f in "$HOME/VirtualBox VMs/web1/Snapshots"/*.vdi; do VBoxManage list hdds | grep -qF "$f"; done
}

@test "a machine set back to a snapshot goes on from it although the snapshot is deleted first" {
	needs_machines
	with_disk pop
	VBoxManage startvm pop >/dev/null
	VBoxManage snapshot pop take push_1 2>/dev/null
	VBoxManage controlvm pop poweroff 2>/dev/null
	VBoxManage snapshot pop restore push_1 2>/dev/null
	VBoxManage snapshot pop delete push_1 2>/dev/null
	[ "$(mr pop VMState)" = saved ]
	VBoxManage startvm pop
	[ "$(mr pop VMState)" = running ]
	VBoxManage controlvm pop poweroff 2>/dev/null
	run find "$HOME" -name '*.sav'
	[ -z "$output" ]
}

@test "Ctrl-C takes back a clone of a machine that was begun" {
	make_vm web1
	truncate -s 1G "$HOME/big.img"
	dd if=/dev/urandom of="$HOME/big.img" bs=1M count=300 conv=notrunc status=none
	VBoxManage storagectl web1 --name SATA --add sata
	VBoxManage storageattach web1 --storagectl SATA --port 0 --device 0 --type hdd --medium "$HOME/big.img"
	VBoxManage clonevm web1 --name c --register 2>said &
	for _ in $(seq 500); do
		[ ! -e "$HOME/VirtualBox VMs/c/c-disk1.img" ] || break
		sleep 0.01
	done
	kill -INT $! 2>/dev/null || true
	wait $! && skip "it was done before the signal came"
	grep CANCELED said
	[ ! -e "$HOME/VirtualBox VMs/c" ]
	[ "$(VBoxManage list vms | grep -c .)" = 1 ]
	VBoxManage clonevm web1 --name c --register
	cmp "$HOME/big.img" "$HOME/VirtualBox VMs/c/c-disk1.img"
}

@test "a VHDX disk is not written to, which is said; snapshots on it can be, and deleted" {
	truncate -s 16M r.raw
	dd if=/dev/urandom of=r.raw bs=1M count=3 conv=notrunc status=none
	qemu-img convert -f raw -O vhdx r.raw "$HOME/a.vhdx"
	before=$(md5sum <"$HOME/a.vhdx")
	make_vm web1
	VBoxManage modifyvm web1 --memory 32
	VBoxManage storagectl web1 --name SATA --add sata --portcount 1
	VBoxManage storageattach web1 --storagectl SATA --port 0 --device 0 --type hdd --medium "$HOME/a.vhdx"
	for what in "startvm web1" "modifymedium $HOME/a.vhdx --resize 32" "modifymedium $HOME/a.vhdx --compact" \
		"internalcommands sethduuid $HOME/a.vhdx"; do
		# shellcheck disable=SC2086
		vbm $what
		fails_with 1 "is a vhdx image, which can be read and not written here; clone it first"
	done
	vbm createmedium disk --filename b.vhdx --size 8 --format VHDX
	fails_with 1 "Images of the format 'VHDX' cannot be created"
	VBoxManage snapshot web1 take s1 2>/dev/null
	VBoxManage snapshot web1 take s2 2>/dev/null
	for s in s1 s2; do
		vbm snapshot web1 delete $s
		succeeds
	done
	VBoxManage clonemedium "$(mr web1 SATA-0-0)" c.vdi >/dev/null 2>&1
	qemu-img compare -q c.vdi r.raw
	[ "$(md5sum <"$HOME/a.vhdx")" = "$before" ]
}

# VBoxManage or lodge with Ctrl-C pressed already.
stopped() {
	run --separate-stderr timeout 60 python3 -c 'import os, signal, sys
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
os.kill(os.getpid(), signal.SIGINT)
os.execvp(sys.argv[1], sys.argv[1:])' "$@"
	echo "$* -> $status: $output; $stderr"
}

@test "Ctrl-C of a snapshot, a restore, a saved state and a fork leaves the machine as it was" {
	with_disk web1
	VBoxManage snapshot web1 take base 2>/dev/null
	before() { VBoxManage showvminfo web1 --machinereadable | grep -v '^VMStateChangeTime'; VBoxManage list hdds; ls "$HOME/VirtualBox VMs" "$HOME/VirtualBox VMs/web1/Snapshots"; }
	same() {
		[ "$status" = 1 ]
		[[ $stderr == *"CANCELED"*"was cancelled"* ]]
		diff <(echo "$was") <(before)
		[ -z "$(VBoxManage list vms 2>&1 >/dev/null)" ]
	}
	was=$(before)
	stopped VBoxManage snapshot web1 take s2
	same
	stopped VBoxManage snapshot web1 restore base
	same
	VBoxManage startvm web1 --type headless >/dev/null
	was=$(before)
	stopped VBoxManage snapshot web1 take s2
	same
	stopped VBoxManage controlvm web1 savestate
	same
	stopped lodge fork web1 --count 2
	[ "$status" = 1 ]
	[[ $stderr == *"was cancelled"* ]]
	diff <(echo "$was") <(before)
	VBoxManage snapshot web1 take s2 2>/dev/null
	VBoxManage controlvm web1 poweroff 2>/dev/null
}

# What the snapshots s1 to s3 and now show, each on its image.
shows() {
	for i in 1 2 3 4; do
		qemu-img compare -q -f raw -F qcow2 "m$i.raw" "${layer[i]}" || { echo "$i is not what it was"; return 1; }
	done
}

@test "Ctrl-C in the middle of deleting a snapshot leaves all as it was, or says that it is too late" {
	local i s on code cut layer=()
	needs_machines
	make_vm web1
	VBoxManage modifyvm web1 --memory 32
	VBoxManage createmedium disk --filename "$HOME/a.qcow2" --format QCOW2 --size 1024 >/dev/null 2>&1
	VBoxManage storagectl web1 --name SATA --add sata --portcount 1
	VBoxManage storageattach web1 --storagectl SATA --port 0 --device 0 --type hdd --medium "$HOME/a.qcow2"
	truncate -s 1G m.raw
	for i in 1 2 3 4; do
		layer[i]=$(mr web1 SATA-0-0)
		qemu-io -f qcow2 -c "write -P $i $((i * 150 - 150))M $((i * 10 + 200))M" "${layer[i]}" >/dev/null
		qemu-io -f raw -c "write -P $i $((i * 150 - 150))M $((i * 10 + 200))M" m.raw >/dev/null
		cp --sparse=always m.raw "m$i.raw"
		[ "$i" = 4 ] || VBoxManage snapshot web1 take "s$i" 2>/dev/null
	done
	before() { VBoxManage snapshot web1 list --machinereadable; VBoxManage list hdds; ls "$HOME/VirtualBox VMs/web1/Snapshots"; }
	# The second goes up into the third, and nothing that shows has changed until the end.
	for on in off running; do
		cut=0
		[ "$on" = off ] || VBoxManage startvm web1 --type headless >/dev/null
		was=$(before)
		for s in 0.02 0.03 0.04 0.06 0.1 0.15 0.2; do # what one has copied is there for the next
			code=0 && timeout --preserve-status -s INT "$s" VBoxManage snapshot web1 delete s2 >said 2>&1 || code=$?
			echo "$on, after $s s: $code, $(cat said)"
			[ "$code" != 0 ]
			grep -q "0%.*CANCELED" said || continue
			cut=$((cut + 1))
			[[ $(cat said) == *"was cancelled; it is there as before"* ]]
			diff <(echo "$was") <(before)
			break
		done
		[ "$cut" -gt 0 ]
		[ "$on" = off ] || VBoxManage controlvm web1 poweroff 2>/dev/null
		shows
	done
	was=$(before)
	# The first can only go down into the base.
	for s in 0.05 0.08 0.12 0.2 0.3; do
		code=0 && timeout --preserve-status -s INT "$s" VBoxManage snapshot web1 delete s1 >said 2>&1 || code=$?
		[ "$code" != 0 ] || break
		diff <(echo "$was") <(before)
		shows
	done
	cat said
	[ "$code" = 0 ] && grep -q "cannot be taken back any more" said
	qemu-img compare -q -f raw -F qcow2 m2.raw "$HOME/a.qcow2"
	qemu-img compare -q -f raw -F qcow2 m4.raw "${layer[4]}"
}

inventory() { # SQL
	python3 -c 'import sqlite3, sys; db = sqlite3.connect(sys.argv[1]); db.execute(sys.argv[2]); db.commit()' \
		"$LODGE_HOME/inventory.db" "$1"
}

@test "a snapshot of a running machine that the inventory cannot take in is finished when it can" {
	needs_machines
	with_disk web1
	VBoxManage startvm web1 --type headless >/dev/null
	inventory "CREATE TRIGGER full BEFORE INSERT ON snapshot BEGIN SELECT RAISE(ABORT, 'there is no room'); END"
	vbm snapshot web1 take s1
	fails_with 1 "there is no room"
	VBoxManage controlvm web1 poweroff 2>/dev/null
	vbm startvm web1
	fails_with 1 "Machine 'web1': taking a snapshot had been interrupted, and that cannot be put right yet:"
	[[ $stderr == *"taking a snapshot was interrupted, and that has to be put right first"* ]]
	vbm clonevm web1 --name c --register
	fails_with 1 "taking a snapshot was interrupted, and that has to be put right first"
	inventory "DROP TRIGGER full"
	vbm snapshot web1 list
	[ "$status" = 0 ]
	[[ $stderr == *"Machine 'web1': taking a snapshot had been interrupted and was finished"* ]]
	[[ $output == *"Name: s1 "* ]]
	VBoxManage startvm web1 --type headless >/dev/null
	VBoxManage controlvm web1 poweroff 2>/dev/null
}

@test "a snapshot whose deletion has no room for its merge is not used, and goes when there is" {
	make_vm web1
	VBoxManage createmedium disk --filename "$HOME/a.qcow2" --format QCOW2 --size 64 >/dev/null 2>&1
	VBoxManage storagectl web1 --name SATA --add sata --portcount 1
	VBoxManage storageattach web1 --storagectl SATA --port 0 --device 0 --type hdd --medium "$HOME/a.qcow2"
	qemu-io -f qcow2 -c "write -P 1 0 8M" "$HOME/a.qcow2" >/dev/null
	VBoxManage snapshot web1 take s1 2>/dev/null
	qemu-io -f qcow2 -c "write -P 2 4M 40M" "$(mr web1 SATA-0-0)" >/dev/null
	trap '' XFSZ # a file that grows over the limit is told EFBIG then
	run --separate-stderr bash -c 'ulimit -f 20000; VBoxManage snapshot web1 delete s1'
	echo "$stderr"
	fails_with 1 "The snapshot cannot be used any more; each command goes on deleting it"
	run --separate-stderr bash -c 'ulimit -f 20000; VBoxManage snapshot web1 restore s1'
	echo "$stderr"
	fails_with 1 "deleting a snapshot had been interrupted, and that cannot be put right yet:"
	[[ $stderr == *"deleting a snapshot was interrupted, and that has to be put right first"* ]]
	vbm snapshot web1 list
	[ "$output" = "This machine does not have any snapshots" ]
	[[ $stderr == *"deleting a snapshot had been interrupted and was finished"* ]]
	[ "$(mr web1 SATA-0-0)" = "$HOME/a.qcow2" ]
	qemu-io -f qcow2 -c "read -P 1 0 4M" -c "read -P 2 4M 40M" "$HOME/a.qcow2" | grep -c "verification failed" && false
	[ -z "$(ls "$HOME/VirtualBox VMs/web1/Snapshots")" ]
}

@test "killed at any moment, deleting snapshots and cloning leave a disk what it held" {
	make_vm web1
	VBoxManage createmedium disk --filename "$HOME/a.qcow2" --format QCOW2 --size 24 >/dev/null 2>&1
	VBoxManage storagectl web1 --name SATA --add sata --portcount 4
	VBoxManage storageattach web1 --storagectl SATA --port 0 --device 0 --type hdd --medium "$HOME/a.qcow2"
	truncate -s 24M model.raw
	top() { mr web1 SATA-0-0; }
	for i in $(seq 12); do
		for _ in 1 2 3; do
			at=$((RANDOM % 21 * 1024))k len=$((RANDOM % 3000))k
			qemu-io -f qcow2 -c "write -P $i $at $len" "$(top)" >/dev/null
			qemu-io -f raw -c "write -P $i $at $len" model.raw >/dev/null
		done
		VBoxManage snapshot web1 take "s$i" 2>/dev/null
	done
	for i in 3 12 1 7 6 5 11 2 9 4 10 8; do
		for s in 0.004 0.00$((RANDOM % 9)) 0.01 0.0$((RANDOM % 4 + 1)); do
			killed_during $s VBoxManage snapshot web1 delete "s$i"
			VBoxManage showvminfo web1 >/dev/null 2>>said
			qemu-img compare -q -f raw -F qcow2 model.raw "$(top)"
		done
		VBoxManage snapshot web1 delete "s$i" >/dev/null 2>&1 || true
		killed_during 0.0$((RANDOM % 5)) VBoxManage clonevm web1 --name c --register
		VBoxManage list vms >/dev/null 2>>said
		if VBoxManage showvminfo c >/dev/null 2>&1; then
			VBoxManage unregistervm c --delete >/dev/null 2>&1
		fi
		[ ! -e "$HOME/VirtualBox VMs/c" ] || { find "$HOME/VirtualBox VMs/c"; tail -3 said; false; }
	done
	run VBoxManage snapshot web1 list
	[ "$output" = "This machine does not have any snapshots" ]
	grep -c . said
	qemu-img compare -q -f raw -F qcow2 model.raw "$(top)"
	[ "$(VBoxManage list hdds | grep -c ^Location)" = 1 ]
	[ -z "$(ls "$HOME/VirtualBox VMs/web1/Snapshots" 2>/dev/null)" ]
}
