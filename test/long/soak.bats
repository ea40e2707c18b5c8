#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# Networks that live long: machines come and go, processes are killed, and nothing is left over. LODGE_SOAK_SECONDS says
# for how long in all; an hour otherwise.
# May take 5000 seconds.
load ../guest/common

setup_file() {
	export PATH=$LODGE_BIN:$PATH SOAK=${LODGE_SOAK_SECONDS:-3600}
	export HOME=$BATS_FILE_TMPDIR/home LODGE_HOME=$BATS_FILE_TMPDIR/lodge
	mkdir -p "$HOME"
}

teardown_file() {
	for lock in "$LODGE_HOME"/net/*/lock; do
		[[ ! -f $lock ]] || kill "$(cut -d' ' -f1 "$lock")" 2>/dev/null
	done
	[[ -z ${NS:-} ]] || ip netns del "$NS"
	return 0
}

@test "a hundred machines come and go: no leak, no lost lease, links are back within 2 s of a kill -9" {
	run env LODGE_SOAK_SECONDS=$((SOAK * 9 / 10)) "$LODGE_BIN/../unit/switch/soak"
	echo "$output"
	echo "# $(grep 'times in or out' <<<"$output")" >&3
	[[ $status == 0 ]]
}

in_ns() { ip netns exec "$NS" "$@"; }
taps() { in_ns ip -o link | grep -c ': vboxnet' || true; }
no_taps() { [[ $(taps) == 0 ]]; }
new_switch() { # OLD_PID: there is another one
	local pid
	pid=$(cut -d' ' -f2 "$LODGE_HOME/net/hostonly-vboxnet0/lock" 2>/dev/null) && [[ -n $pid && $pid != "$1" ]]
}

@test "interfaces come and go, their switches and keepers are killed: no TAP is left" {
	new_netns "lodge-soak-$$" || skip "$SKIP"
	export NS=lodge-soak-$$
	end=$((SECONDS + SOAK / 10 + 1)) rounds=0
	while [[ $SECONDS -lt $end ]]; do
		in_ns VBoxManage hostonlyif create >/dev/null
		[[ $(taps) == 1 ]]
		lock=$LODGE_HOME/net/hostonly-vboxnet0/lock
		pid=$(cut -d' ' -f2 "$lock")
		kill -9 "$pid"
		wait_for 2 new_switch "$pid"
		[[ $(taps) == 1 ]]
		if [[ $((rounds % 2)) == 0 ]]; then # nobody is left to clean up
			kill -9 $(<"$lock")
			wait_for 2 no_taps
		fi
		in_ns VBoxManage hostonlyif remove vboxnet0
		wait_for 2 no_taps
		rounds=$((rounds + 1))
	done
	ip netns del "$NS"
	echo "# $rounds interfaces" >&3
}
