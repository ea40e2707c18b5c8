#!/usr/bin/env bats
# A stock kernel under each software engine by name; the other tests take the one that `auto` chooses.

load common

setup_file() { setup_file_common; }

# What the guest does gives the same everywhere: digests of text made, packed, sorted and cut by its tools.
work='T=${T:-/t}; i=0; while [ $i -lt 300 ]; do echo "line $i $((i * 7919 % 1000))"; i=$((i + 1)); done >$T; for n in 1 2 3 4; do
	sort -k3 -n $T | gzip | gunzip | sed "s/line/$n/" | awk "{ s += \$3 * \$1 } END { print s }"; done; cat $T $T | md5sum;
	head -c 3000000 /dev/zero | sha256sum'

boots_and_works() { # ENGINE CPUS
	run boot_linux "grep -c ^processor /proc/cpuinfo; $work" --engine "$1" --cpus "$2" --stats
	echo "$output"
	show "$console"
	[ "$status" -eq 0 ]
	[[ $output == *"engine $1"* ]]
	grep -q "^$2" "$console"
	T=$BATS_TEST_TMPDIR/t bash -c "$work" >"$BATS_TEST_TMPDIR/host"
	[ "$(wc -l <"$BATS_TEST_TMPDIR/host")" -eq 6 ]
	while read -r line; do
		grep -qF -- "${line%  -}" "$console" || { echo "the host says: $line"; return 1; }
	done <"$BATS_TEST_TMPDIR/host"
}

@test "a stock kernel boots translated on one CPU and computes what the host computes" {
	boots_and_works jit 1
}

@test "a stock kernel boots translated on two CPUs and computes what the host computes" {
	boots_and_works jit 2
}

@test "a stock kernel boots translated on four CPUs and computes what the host computes" {
	boots_and_works jit 4
}

@test "a stock kernel boots interpreted on two CPUs and computes what the host computes" {
	boots_and_works interp 2
}

@test "a kernel that finds no vector extensions beyond SSE2 boots translated too" {
	run boot_linux 'grep -c avx /proc/cpuinfo; head -c 3000000 /dev/zero | sha256sum' --engine jit --cpu-model x86-64
	echo "$output"
	show "$console"
	[ "$status" -eq 0 ]
	grep -q "^$(head -c 3000000 /dev/zero | sha256sum | cut -d' ' -f1)" "$console"
}
