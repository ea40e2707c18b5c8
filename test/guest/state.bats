#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# Machines that are written down and go on: saved states, snapshots of running machines, forks, with stock kernels at work.
bats_require_minimum_version 1.5.0
load common
load state

setup_file() { setup_file_common; }
setup() { state_setup; }
teardown() { state_teardown; }

counters() { # NUMBER OF DISKS
	guest "for i in \$(seq $1); do grep . /tmp/n.\$i 2>/dev/null || echo 0; done" | xargs
}

counters_grow() { # NUMBER OF DISKS
	local before after i
	before=$(counters "$1")
	for i in $(seq 30); do
		sleep 1
		after=$(counters "$1")
		[ "$(paste <(tr ' ' '\n' <<<"$before") <(tr ' ' '\n' <<<"$after") | awk '$2 > $1' | wc -l)" = "$1" ] && return 0
	done
	echo "not all disks are worked on: $before, then $after"
	return 1
}

nothing_is_bad() {
	local said
	said=$(guest 'cat /tmp/bad 2>/dev/null; dmesg | grep -iE "i/o error|ata.*(failed|exception)|hung task|BUG:|Oops:|rcu.*stall|timeout"; true')
	[ -z "$said" ] || { echo "$said"; return 1; }
}

goes_on_under() { # ENGINE
	guest 'echo $((6*7)) >/tmp/before'
	VBoxManage controlvm lx savestate
	[ "$(VBoxManage showvminfo lx --machinereadable | grep ^VMState=)" = 'VMState="saved"' ]
	LODGE_ENGINE=$1 VBoxManage startvm lx >/dev/null
	[ "$(guest 'cat /tmp/before')" = 42 ]
	grep -q "engine $1:" "$HOME/VirtualBox VMs/lx/Logs/VBox.log"
	wait_for 30 serves
}

@test "a Linux with 2 CPUs at work on disks of every controller is saved under the translator, resumed under the interpreter, and back" {
	linux lx 256 2
	disk lx IDE ide
	disk lx SATA sata
	disk lx Virtio virtio
	disk lx VirtioSCSI virtio-scsi
	disk lx NVMe pcie
	disk lx SCSI scsi
	LODGE_ENGINE=jit up lx
	disks=$(guest 'ls /dev/sd? /dev/vd? /dev/nvme0n1' | xargs)
	[ "$(wc -w <<<"$disks")" = 6 ]
	[ "$(keep_busy "$disks" | tail -n 1)" = 6 ]
	counters_grow 6
	time_before=$(guest 'cut -d. -f1 /proc/uptime')
	goes_on_under interp
	counters_grow 6
	nothing_is_bad
	goes_on_under jit
	counters_grow 6
	nothing_is_bad
	# Time stood still while the machine did.
	[ "$(guest 'cut -d. -f1 /proc/uptime')" -ge "$time_before" ]
	[ "$(guest 'cut -d. -f1 /proc/uptime')" -lt $((time_before + 180)) ]
}

@test "every network adapter goes on after a save" {
	for type in 82540EM 82543GC 82545EM virtio; do
		linux lx
		VBoxManage modifyvm lx --nictype1 "$type"
		LODGE_ENGINE=jit up lx
		LODGE_ENGINE=jit goes_on_under jit
		guest 'wget -q -T 5 -O /dev/null http://10.0.2.2:1 2>&1 | grep -c refused; ip -o link show up | grep -c LOWER_UP'
		VBoxManage controlvm lx poweroff 2>/dev/null
		VBoxManage unregistervm lx --delete 2>/dev/null
	done
}

@test "a snapshot of a busy machine stops it for at most 50 ms, and restoring it brings memory and disk of that moment back" {
	linux lx 512
	disk lx SATA sata
	export LODGE_ENGINE=jit
	up lx
	guest 'mount -o remount,size=300m / 2>/dev/null; echo then >/tmp/when; echo then | dd of=/dev/sda conv=fsync 2>/dev/null'
	# Somebody who writes to a lot of memory all the time.
	guest 'setsid sh -c "while :; do dd if=/dev/urandom of=/tmp/mem bs=1M count=40; done" </dev/null >/dev/null 2>&1 & echo'
	VBoxManage --detailed-progress snapshot lx take one --live 2>"$BATS_TEST_TMPDIR/err"
	cat "$BATS_TEST_TMPDIR/err" | tail -n 1
	stopped=$(sed -n 's/The guest stood still for \([0-9]*\)\..*/\1/p' "$BATS_TEST_TMPDIR/err")
	# On a host with nothing else to do; a busy one may take the processor away for as long.
	[ "$stopped" -le 50 ] || [ "$(cut -d. -f1 /proc/loadavg)" -ge "$(nproc)" ]
	guest 'echo now >/tmp/when; echo now | dd of=/dev/sda conv=fsync 2>/dev/null'
	VBoxManage controlvm lx poweroff
	VBoxManage snapshot lx restore one
	[ "$(VBoxManage showvminfo lx --machinereadable | grep ^VMState=)" = 'VMState="saved"' ]
	start=$(date +%s%N)
	VBoxManage startvm lx >/dev/null
	echo "restored to running in $((($(date +%s%N) - start) / 1000000)) ms"
	[ "$(guest 'cat /tmp/when; echo 1 >/proc/sys/vm/drop_caches; head -c 4 /dev/sda')" = "$(printf 'then\nthen')" ]
	guest 'dmesg | grep -q "crng reseeded due to virtual machine fork"'
}

@test "snapshots are deleted anywhere in the tree while the guest works on the disk, and nothing is lost" {
	linux lx
	disk lx SATA sata
	export LODGE_ENGINE=jit
	up lx
	[ "$(keep_busy /dev/sda | tail -n 1)" = 1 ]
	i=0
	for s in a b c d; do
		i=$((i + 1))
		guest "dd if=/dev/urandom of=/tmp/$s bs=64k count=8; dd if=/tmp/$s of=/dev/sda bs=64k seek=$((128 + i * 8)) conv=fsync" >/dev/null
		VBoxManage snapshot lx take "$s"
	done
	counters_grow 1
	for s in b d a c; do VBoxManage snapshot lx delete "$s"; done
	run VBoxManage snapshot lx list
	[ "$output" = "This machine does not have any snapshots" ]
	counters_grow 1
	guest 'touch /tmp/stop; sleep 3; echo 1 >/proc/sys/vm/drop_caches'
	i=0
	for s in a b c d; do
		i=$((i + 1))
		guest "dd if=/dev/sda bs=64k skip=$((128 + i * 8)) count=8 2>/dev/null | cmp - /tmp/$s"
	done
	nothing_is_bad
	[ -z "$(ls "$HOME/VirtualBox VMs/lx/Snapshots")" ]
	VBoxManage controlvm lx poweroff
	[ "$(VBoxManage showvminfo lx --machinereadable | sed -n 's/^"SATA-0-0"="\(.*\)"/\1/p')" = "$HOME/lx-SATA.vdi" ]
	qemu-img check "$HOME/lx-SATA.vdi"
}

@test "lodge fork makes running copies that share nothing they write" {
	linux lx
	disk lx SATA sata
	export LODGE_ENGINE=jit
	up lx
	guest 'echo common >/tmp/file; echo common | dd of=/dev/sda conv=fsync 2>/dev/null'
	VBoxManage snapshot lx take before 2>/dev/null
	run --separate-stderr lodge fork lx --count 2 --verbose
	echo "$output; $stderr"
	[ "$status" = 0 ]
	port1=$(sed -n 's/^lx-1 .* web=\([0-9]*\)$/\1/p' <<<"$output")
	port2=$(sed -n 's/^lx-2 .* web=\([0-9]*\)$/\1/p' <<<"$output")
	for p in "$port1" "$port2" "$web_port"; do
		web_port=$p wait_for 30 serves
	done
	[ "$(VBoxManage list runningvms | wc -l)" = 3 ]
	[ "$(for v in lx lx-1 lx-2; do VBoxManage showvminfo "$v" --machinereadable | grep ^macaddress1; done | sort -u | wc -l)" = 3 ]
	# The parent changes its memory and its disk; a fork of now has that, those of then have not.
	guest 'echo parent >/tmp/file; echo parent | dd of=/dev/sda conv=fsync 2>/dev/null'
	VBoxManage controlvm lx-1 savestate
	[ "$(guest 'cat /tmp/file')" = parent ]
	# What the copies read through to stays until they are gone.
	run VBoxManage snapshot lx delete before
	[ "$status" = 1 ]
	[[ $output == *"reads through to it"* ]]
	# lx-1 gets a shell of its own and tells what it knows.
	VBoxManage controlvm lx poweroff
	VBoxManage discardstate lx-1
	VBoxManage modifyvm lx-1 --uartmode1 tcpserver "$shell_port"
	VBoxManage modifyvm lx-1 --natpf1 delete web
	VBoxManage modifyvm lx-1 --natpf1 "web,tcp,127.0.0.1,$web_port,,80"
	up lx-1
	[ "$(guest 'head -c 6 /dev/sda')" = common ]
}

@test "Ctrl-C at any moment of a snapshot, a saved state or a fork leaves a busy machine as it was" {
	local what after code cut=0
	linux lx
	disk lx SATA sata
	export LODGE_ENGINE=jit
	up lx
	guest 'head -c 30000000 /dev/urandom >/tmp/much; md5sum /tmp/much >/tmp/sum'
	keep_busy /dev/sda
	for what in "VBoxManage snapshot lx take s" "lodge fork lx --count 4 --name f" "VBoxManage controlvm lx savestate"; do
		for after in 0.05 0.1 0.2 0.4; do
			# shellcheck disable=SC2086
			code=0 && timeout --preserve-status -s INT $after $what >"$HOME/said" 2>&1 || code=$?
			if [ "$code" = 0 ]; then # it was faster
				[[ $what != *fork* ]] || break 2
				[[ $what != *take* ]] || VBoxManage snapshot lx delete s 2>/dev/null
				[[ $what != *savestate ]] || VBoxManage startvm lx --type headless >/dev/null
				break
			fi
			cut=$((cut + 1))
			cat "$HOME/said"
			# 130: it had not begun
			[ "$code" = 130 ] || grep -q "was cancelled; it goes on as before" "$HOME/said"
			run VBoxManage list runningvms
			echo "$what, $after, $code: $output"
			[ "${output%% *}" = '"lx"' ]
			[ "$(VBoxManage list vms | wc -l)" = 1 ]
			[ "$(VBoxManage list hdds | grep -c ^Location)" = 1 ]
			[ -z "$(ls "$HOME/VirtualBox VMs/lx/Snapshots")" ]
			[ "$(ls "$HOME/VirtualBox VMs")" = lx ]
		done
	done
	echo "$cut times in the middle"
	[ "$cut" -ge 3 ]
	guest 'md5sum -c /tmp/sum'
	nothing_is_bad
}
