#!/usr/bin/env bats
# Stock Linux kernels in throw-away machines.

load common

setup_file() { setup_file_common; }

@test "a stock kernel booted directly runs a script and powers off with status 0" {
	run boot_linux 'uname -m; grep -c ^processor /proc/cpuinfo; echo sum $((6 * 7))'
	show "$console"
	[ "$status" -eq 0 ]
	grep -q '^x86_64' "$console"
	grep -q '^sum 42' "$console"
}

@test "two virtual CPUs come up and both run programs" {
	run boot_linux 'grep -c ^processor /proc/cpuinfo; for c in 0 1; do taskset $((1 << c)) sh -c "echo cpu $c works"; done' --cpus 2
	show "$console"
	[ "$status" -eq 0 ]
	grep -q '^2' "$console"
	grep -q '^cpu 0 works' "$console"
	grep -q '^cpu 1 works' "$console"
}

@test "a CD boots through SeaBIOS and isolinux and its page is served through a port forward" {
	port=$(free_port)
	timeout 150 lodge boot --memory 256 --cdrom "$ISO" --nic "nat,hostfwd=tcp:127.0.0.1:$port-:80" \
		--serial "file:$console" --display "png:$BATS_TEST_TMPDIR/screen.png" --timeout 140 3>&- &
	pid=$!
	wait_for 120 curl -s --max-time 3 -o "$BATS_TEST_TMPDIR/page" "http://127.0.0.1:$port/" || { show "$console"; kill $pid; false; }
	kill $pid
	wait $pid || true
	grep -q 'Hello from a Lodge guest' "$BATS_TEST_TMPDIR/page"
	grep -q '10\.0\.2\.15' "$BATS_TEST_TMPDIR/page"
	grep -q 'LODGE-GUEST-READY 10.0.2.15' "$console"
}

@test "the same image boots as a hard disk and the guest reads it back intact: ide, ahci, virtio" {
	sum=$(head -c 4194304 "$ISO" | md5sum | cut -d' ' -f1)
	for bus in ide ahci virtio; do
		run boot_linux "cat /proc/partitions; d=\$(ls /dev/sda /dev/vda 2>/dev/null | head -n 1); head -c 4194304 \$d | md5sum" \
			--disk "$ISO,bus=$bus,readonly=on"
		show "$console"
		[ "$status" -eq 0 ]
		grep -q "^$sum" "$console"
	done
}

@test "the debug-exit device ends with its documented status" {
	# a boot sector that writes 0x10 to port 0xf4
	printf '\xb0\x10\xe6\xf4\xf4' >"$BATS_TEST_TMPDIR/bs"
	truncate -s 510 "$BATS_TEST_TMPDIR/bs"
	printf '\x55\xaa' >>"$BATS_TEST_TMPDIR/bs"
	truncate -s 1M "$BATS_TEST_TMPDIR/bs"
	run timeout 60 lodge boot --memory 64 --disk "$BATS_TEST_TMPDIR/bs" --device debug-exit --display none
	echo "$output"
	[ "$status" -eq 33 ] # (0x10 << 1) | 1
}

@test "a triple fault ends with its documented status" {
	# a boot sector that loads an empty interrupt table in protected mode and takes an interrupt:
	# cli; lidt [0x7c10]; mov eax,1; mov cr0,eax; int3
	printf '\xfa\x0f\x01\x1e\x10\x7c\x66\xb8\x01\x00\x00\x00\x0f\x22\xc0\xcc' >"$BATS_TEST_TMPDIR/bs"
	truncate -s 510 "$BATS_TEST_TMPDIR/bs"
	printf '\x55\xaa' >>"$BATS_TEST_TMPDIR/bs"
	truncate -s 1M "$BATS_TEST_TMPDIR/bs"
	run timeout 60 lodge boot --memory 64 --disk "$BATS_TEST_TMPDIR/bs" --no-reset --display none
	echo "$output"
	[ "$status" -eq 6 ]
}

@test "missing and truncated inputs are refused with a sentence that names them" {
	run lodge boot --memory 99999999 --timeout 10
	[ "$status" -eq 2 ]
	run lodge boot --cdrom /nonexistent.iso
	[ "$status" -ne 0 ]
	[[ $output == *"/nonexistent.iso"* ]]
	head -c 3000 "$ISO.vmlinuz" >"$BATS_TEST_TMPDIR/short"
	run lodge boot --kernel "$BATS_TEST_TMPDIR/short" --timeout 10
	[ "$status" -ne 0 ]
	[[ $output == *"$BATS_TEST_TMPDIR/short"* ]]
	port=$(free_port)
	python3 -c "
import socket, time
s = socket.socket(); s.bind(('127.0.0.1', $port)); s.listen(); time.sleep(20)" 3>&- &
	holder=$!
	wait_for 10 bash -c "exec 4<>/dev/tcp/127.0.0.1/$port"
	run lodge boot --kernel "$ISO.vmlinuz" --nic "nat,hostfwd=tcp:127.0.0.1:$port-:80" --timeout 10
	kill $holder
	[ "$status" -ne 0 ]
	[[ $output == *"$port"* ]]
}
