#!/usr/bin/env bats
# The kvm engine on a CPU with virtualization, emulated by QEMU: see test/guest/kvm-nested.

load ../guest/common

setup_file() { setup_file_common; }

@test "KVM passes the engine tests and boots a stock kernel, chosen by auto" {
	[ -x "$LODGE_OUT/unit/cpu/engine" ] || make OUT="$LODGE_OUT" "$LODGE_OUT/unit/cpu/engine"
	test/guest/kvm-nested "$(command -v lodge)" "$LODGE_OUT/unit/cpu/engine" "$ISO.vmlinuz" "$ISO.initrd" "$LODGE_OUT/cache" \
		>"$BATS_TEST_TMPDIR/outer" 2>&1 || true
	show "$BATS_TEST_TMPDIR/outer"
	grep -q '^engine tests: 0' "$BATS_TEST_TMPDIR/outer"
	grep -q '^a million instructions of kernel code took' "$BATS_TEST_TMPDIR/outer" # so none of the engine tests was skipped
	grep -q '^sum 42' "$BATS_TEST_TMPDIR/outer"
	grep -q '^engine kvm' "$BATS_TEST_TMPDIR/outer"
	grep -q '^lodge boot: 0' "$BATS_TEST_TMPDIR/outer"
}
