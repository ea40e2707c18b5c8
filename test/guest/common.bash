# Shared by the tests that boot guests. LODGE_BIN and LODGE_OUT come from tools/run-tests.

setup_file_common() {
	export PATH=$LODGE_BIN:$PATH
	ISO=$LODGE_OUT/demo.iso
	export ISO
	[[ -f $ISO && $ISO -nt tools/make-iso ]] || tools/make-iso "$ISO" "$LODGE_OUT/cache"
	export LODGE_ENGINE=${LODGE_TEST_ENGINE:-auto}
}

setup() {
	console=$BATS_TEST_TMPDIR/console # the guest's serial console
}

# A shell script as the word lodge.sh=... for the kernel's command line.
script() {
	printf 'lodge.sh=%s' "$(base64 -w0)"
}

# boot_linux SCRIPT OPTION...: boot the stock kernel directly, run SCRIPT in the guest, its console in $console.
boot_linux() {
	local text=$1
	shift
	timeout 120 lodge boot --memory 256 --kernel "$ISO.vmlinuz" --initrd "$ISO.initrd" \
		--append "console=ttyS0 quiet $(script <<<"$text")" --serial "file:$console" --display none --timeout 110 "$@"
}

# new_netns NAME: a network namespace, or the reason to skip what wants one in SKIP, and failure.
new_netns() {
	[[ $(id -u) == 0 && -c /dev/net/tun ]] || {
		export SKIP="network namespaces and TAPs need root and /dev/net/tun"
		return 1
	}
	ip netns add "$1"
	ip netns exec "$1" true 2>/dev/null || { # it mounts: not in a bare root directory
		ip netns del "$1"
		export SKIP="ip netns exec does not work here"
		return 1
	}
}

# hostonly_netns NAME OPTION...: a network namespace $NS whose host-only interface vboxnet0 is in a network with a DHCP
# server, which gets the options too; or why not in SKIP. hostonly_netns_end puts it away.
hostonly_netns() {
	new_netns "$1" || return 0
	export NS=$1 HOME=$BATS_FILE_TMPDIR/home LODGE_HOME=$BATS_FILE_TMPDIR/lodge PATH=$LODGE_BIN:$PATH
	mkdir -p "$HOME"
	ns ip link set lo up
	ns VBoxManage hostonlyif create >/dev/null
	ns VBoxManage dhcpserver add --ifname vboxnet0 --ip 192.168.56.2 --netmask 255.255.255.0 --lowerip 192.168.56.10 \
		--upperip 192.168.56.20 --enable "${@:2}"
}

hostonly_netns_end() {
	[[ -n ${NS:-} ]] || return 0
	for lock in "$LODGE_HOME"/net/*/lock; do
		[[ ! -f $lock ]] || kill "$(cut -d' ' -f1 "$lock")" 2>/dev/null
	done
	ip netns pids "$NS" | xargs -r kill -9 2>/dev/null
	ip netns del "$NS"
}

ns() { ip netns exec "$NS" "$@"; }

# host_lease MEMBER: of the lease that a client on vboxnet0 has there; nothing and failure where there is none.
host_lease() {
	python3 -c 'import json, sys
try: print([l for l in json.load(open(sys.argv[1])) if l["mac"] == "0a0027000000"][0][sys.argv[2]])
except (OSError, ValueError, IndexError): sys.exit(1)' "$LODGE_HOME/net/hostonly-vboxnet0/leases.json" "$1"
}

free_port() {
	python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}

# wait_for SECONDS COMMAND...: until the command succeeds.
wait_for() {
	local end=$((SECONDS + $1))
	shift
	until "$@"; do
		[[ $SECONDS -lt $end ]] || return 1
		sleep 0.2
	done
}

show() { # what a failed test wants to see
	echo "--- $1"
	tail -n 30 "$1"
}
