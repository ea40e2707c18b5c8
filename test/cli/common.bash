# SPDX-License-Identifier: Apache-2.0
# Each test has a home and an inventory of its own. LODGE_BIN: where the programs under test are.

bats_require_minimum_version 1.5.0
LODGE_BIN=${LODGE_BIN:-$BATS_TEST_DIRNAME/../../out/bin}

setup() {
	BIN=$(realpath "$LODGE_BIN")
	export PATH=$BIN:$PATH
	export HOME=$BATS_TEST_TMPDIR/home
	export LODGE_HOME=$HOME/lodge
	unset LODGE_ENGINE DISPLAY
	mkdir -p "$HOME"
	cd "$HOME" || return 1
}

# Nothing that a test started survives it.
teardown() {
	local name
	cd /
	VBoxManage list runningvms 2>/dev/null | sed 's/^"\(.*\)" {.*/\1/' | while read -r name; do
		VBoxManage controlvm "$name" poweroff >/dev/null 2>&1 || true
	done
}

# vbm ARGUMENTS...: status, output (stdout) and stderr are set.
vbm() {
	run --separate-stderr VBoxManage "$@"
}

# shellcheck disable=SC2154 # status, output and stderr are set by run
fails_with() { # STATUS TEXT-IN-STDERR
	if [ "$status" -ne "$1" ]; then
		echo "exit status $status, not $1; stdout: $output; stderr: $stderr"
		return 1
	fi
	if [[ $stderr != *"$2"* ]]; then
		echo "'$2' is not in stderr: $stderr"
		return 1
	fi
}

succeeds() {
	if [ "$status" -ne 0 ]; then
		echo "exit status $status; stdout: $output; stderr: $stderr"
		return 1
	fi
}

says() { # EXACT-STDOUT
	succeeds || return 1
	if [ "$output" != "$1" ]; then
		diff <(echo "$1") <(echo "$output")
		return 1
	fi
}

has_line() { # LINE in stdout
	if ! grep -qxF -- "$1" <<<"$output"; then
		echo "no line '$1' in: $output"
		return 1
	fi
}

make_vm() { # NAME
	VBoxManage createvm --name "$1" --ostype Linux26_64 --register >/dev/null
}

# The smallest file that is an optical disc: a primary volume descriptor in sector 16 (ECMA-119 section 8.4).
make_iso() { # FILE
	truncate -s 64K "$1"
	printf '\001CD001\001' | dd of="$1" bs=1 seek=32768 conv=notrunc status=none
	printf '\040\0\0\0\0\0\0\040' | dd of="$1" bs=1 seek=$((32768 + 80)) conv=notrunc status=none
	printf '\0\010\010\0' | dd of="$1" bs=1 seek=$((32768 + 128)) conv=notrunc status=none
}

mr() { # MACHINE KEY: one value of showvminfo --machinereadable
	VBoxManage showvminfo "$1" --machinereadable | sed -n "s/^\"\?$2\"\?=\"\?\([^\"]*\)\"\?\$/\1/p"
}

needs_machines() {
	if [ ! -x "$BIN/lodge-vm" ]; then
		echo "NOT RUN: $BIN/lodge-vm is not built" >&3
		[ -z "$LODGE_ALLOW_SKIP" ] && return 1
		skip "lodge-vm is not built"
	fi
	export LODGE_ENGINE=${LODGE_TEST_ENGINE:-interp}
}
