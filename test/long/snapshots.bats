#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# A tree of snapshots, made and torn down at random for SNAPSHOT_MINUTES (default 60) while the guest writes to its disk:
# at every node the guest finds the files, in memory and on disk, that were there when it was taken.
# May take 5400 seconds.
bats_require_minimum_version 1.5.0
load ../guest/common
load ../guest/state

setup_file() { setup_file_common; }
setup() { state_setup; }
teardown() { state_teardown; }

WIDTH=30
DEPTH=30

# What the guest should have at a snapshot: its number in a file in memory and in a place of the disk.
write_number() {
	guest "echo $1 >/tmp/number; printf '%-512s' $1 | dd of=/dev/sda bs=512 seek=60000 conv=fsync 2>/dev/null; head -c 300000 /dev/urandom >/tmp/r; dd if=/tmp/r of=/dev/sda bs=4k seek=$((8000 + $1 % 100)) conv=fsync 2>/dev/null; md5sum </tmp/r >/tmp/sum"
}

number_is() {
	local said
	said=$(guest "echo 3 >/proc/sys/vm/drop_caches; cat /tmp/number; dd if=/dev/sda bs=512 skip=60000 count=1 2>/dev/null | tr -d ' '; echo; dd if=/dev/sda bs=4k skip=$((8000 + $1 % 100)) count=74 2>/dev/null | head -c 300000 | md5sum | cmp - /tmp/sum && echo same")
	[ "$(xargs <<<"$said")" = "$1 $1 same" ] || { echo "not what was there at $1: $said"; return 1; }
}

@test "a tree of snapshots made and torn down at random keeps every node as it was" {
	local end=$((SECONDS + ${SNAPSHOT_MINUTES:-60} * 60)) n=0 current='' step
	declare -A depth children parent
	export LODGE_ENGINE=${LODGE_TEST_ENGINE:-jit}
	RANDOM=${SNAPSHOT_SEED:-1}
	linux lx 128
	disk lx SATA sata 64
	up lx
	while [ $SECONDS -lt $end ]; do
		step=$((RANDOM % 10))
		live=$(VBoxManage showvminfo lx --machinereadable | grep -c '^VMState="running"' || true)
		if [ $step -lt 5 ] && [ "${#depth[@]}" -lt $WIDTH ] && { [ -z "$current" ] || [ "${depth[$current]}" -lt $DEPTH ]; }; then
			[ "$live" = 1 ] || VBoxManage startvm lx >/dev/null
			n=$((n + 1))
			write_number $n
			VBoxManage snapshot lx take $n >/dev/null 2>&1
			depth[$n]=$((${depth[${current:-0}]:-0} + 1))
			parent[$n]=$current
			[ -z "$current" ] || children[$current]=$((${children[$current]:-0} + 1))
			current=$n
		elif [ $step -lt 8 ] && [ "${#depth[@]}" -gt 0 ]; then
			# go back to one at random, and look
			nodes=("${!depth[@]}")
			current=${nodes[RANDOM % ${#nodes[@]}]}
			[ "$live" != 1 ] || VBoxManage controlvm lx poweroff 2>/dev/null
			VBoxManage snapshot lx restore "$current" >/dev/null 2>&1
			VBoxManage startvm lx >/dev/null
			number_is "$current"
		elif [ "${#depth[@]}" -gt 1 ]; then
			nodes=("${!depth[@]}")
			victim=${nodes[RANDOM % ${#nodes[@]}]}
			[ "${children[$victim]:-0}" -le 1 ] || continue
			VBoxManage snapshot lx delete "$victim" >/dev/null 2>&1
			up=${parent[$victim]}
			for node in "${!parent[@]}"; do
				if [ "${parent[$node]}" = "$victim" ]; then parent[$node]=$up; fi
			done
			[ -z "$up" ] || children[$up]=$((${children[$up]} - 1 + ${children[$victim]:-0}))
			unset "depth[$victim]" "parent[$victim]" "children[$victim]"
			[ "$current" != "$victim" ] || current=$up
		fi
	done
	echo "$n snapshots, ${#depth[@]} left"
	for node in "${!depth[@]}"; do
		VBoxManage controlvm lx poweroff 2>/dev/null || true
		VBoxManage snapshot lx restore "$node" >/dev/null 2>&1
		VBoxManage startvm lx >/dev/null
		number_is "$node"
	done
	# Torn down from the leaves, nothing is left.
	while [ "${#depth[@]}" -gt 0 ]; do
		for node in "${!depth[@]}"; do
			[ "${children[$node]:-0}" -le 1 ] || continue
			VBoxManage snapshot lx delete "$node" >/dev/null 2>&1
			up=${parent[$node]}
			for other in "${!parent[@]}"; do
				if [ "${parent[$other]}" = "$node" ]; then parent[$other]=$up; fi
			done
			[ -z "$up" ] || children[$up]=$((${children[$up]} - 1 + ${children[$node]:-0}))
			unset "depth[$node]" "parent[$node]" "children[$node]"
			break
		done
	done
	VBoxManage controlvm lx poweroff 2>/dev/null
	[ "$(VBoxManage list hdds | grep -c ^Location)" = 1 ]
	[ -z "$(ls "$HOME/VirtualBox VMs/lx/Snapshots")" ]
	qemu-img check "$HOME/lx-SATA.vdi"
}

@test "a chain of thirty snapshots of a running machine is made and deleted from both ends" {
	export LODGE_ENGINE=${LODGE_TEST_ENGINE:-jit}
	linux lx 128
	disk lx SATA sata 64
	up lx
	for n in $(seq 30); do
		write_number "$n"
		VBoxManage snapshot lx take "$n" >/dev/null 2>&1
	done
	VBoxManage controlvm lx poweroff 2>/dev/null
	for n in 1 17 30; do
		VBoxManage snapshot lx restore "$n" >/dev/null 2>&1
		VBoxManage startvm lx >/dev/null
		number_is "$n"
		VBoxManage controlvm lx poweroff 2>/dev/null
	done
	VBoxManage startvm lx >/dev/null
	for n in $(seq 15); do
		VBoxManage snapshot lx delete "$n" >/dev/null 2>&1
		VBoxManage snapshot lx delete $((31 - n)) >/dev/null 2>&1
	done
	run VBoxManage snapshot lx list
	[ "$output" = "This machine does not have any snapshots" ]
}
