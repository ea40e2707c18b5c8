#!/usr/bin/env bats
# The translator, which so far is taken only by name.

load common

setup_file() {
	setup_file_common
	export LODGE_ENGINE=jit
}

@test "random programs end in the same state translated as on the bare CPU" {
	run "$LODGE_OUT/isa/integer" --engine jit
	echo "$output"
	[ "$status" -eq 0 ]
	[[ $output == *" 0 differ"* ]]
}

@test "a stock kernel boots translated on two CPUs and computes what the host computes" {
	run boot_linux 'grep -c ^processor /proc/cpuinfo; head -c 3000000 /dev/zero | sha256sum' --cpus 2 --stats
	echo "$output"
	show "$console"
	[ "$status" -eq 0 ]
	[[ $output == *"engine jit"* ]]
	grep -q '^2' "$console"
	grep -q "^$(head -c 3000000 /dev/zero | sha256sum | cut -d' ' -f1)" "$console"
}
