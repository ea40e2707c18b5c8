#!/usr/bin/env bats
# As many timer ticks as a guest with 250 a second sees in 24 hours, in 20 minutes: 8254, MC146818, HPET and local APIC
# tick 18,016 times a second together, in a guest that computes, on a host whose processors are all busy besides.
#
# What is checked is each tick's place in its period (test/long/ticks.c). A host that is busy delays ticks by more than a
# period, and then some never come: the next due one takes their place, as on hardware whose interrupts are off for long.
# Those are accounted for, not failures. A timer that lost or gained ticks, or parts of one, would move all later
# ones within their period: one lost of 10^5 turns them once around in 12 (local APIC) to 98 s (MC146818), one of 10^6
# still more than once around over the whole run; a third of a turn fails. The counters are held against the host's clock.
#
# LODGE_TICKS chooses another number of ticks: 500000 take half a minute and find one lost of 10^5 in the faster timers.
# May take 3200 seconds.

load ../guest/common

setup_file() {
	export PATH=$LODGE_BIN:$PATH LODGE_ENGINE=${LODGE_TEST_ENGINE:-jit}
	build "$BATS_FILE_TMPDIR/ticks"
	build "$BATS_FILE_TMPDIR/registers" -DREGISTERS
}

build() { # KERNEL OPTION...
	gcc -std=gnu11 -O2 -Wall -Wextra -Werror -ffreestanding -nostdlib -static -fno-pic -no-pie -mcmodel=small -mno-red-zone \
		-mgeneral-regs-only -fno-stack-protector -fcf-protection=none "${@:2}" \
		-Wl,--build-id=none,-n,-Ttext=0x100000,--no-warn-rwx-segments -o "$1.64" test/long/ticks.c
	objcopy -O elf32-i386 "$1.64" "$1" # what multiboot loaders take
}

@test "ticks worth 24 hours come where they are due, under load" {
	run test/long/ticks "$BATS_FILE_TMPDIR/ticks" "${LODGE_TICKS:-21600000}" "$(nproc)" \
		lodge boot --memory 32 --display none --serial stdio --timeout 3000
	echo "$output"
	[ "$status" -eq 0 ]
}

@test "ticks come to a guest that does nothing but touch a device's registers" {
	run test/long/ticks "$BATS_FILE_TMPDIR/registers" 300000 "$(nproc)" \
		lodge boot --memory 32 --display none --serial stdio --timeout 300
	echo "$output"
	[ "$status" -eq 0 ]
}
