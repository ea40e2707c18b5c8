#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# DHCP clients that other people wrote renew their leases by themselves, at half of the lease's time (RFC 2131, 4.4.5).
# test/guest/dhcp.bats has them get one.
load ../guest/common

setup_file() {
	hostonly_netns lodge-renew-$$ --default-lease-time 60
	[[ -n ${NS:-} ]] || return 0
	# shellcheck disable=SC2016
	printf '#!/bin/sh\n[ -z "$ip$new_ip_address" ] || ip addr replace $ip$new_ip_address/24 dev vboxnet0\n' >"$BATS_FILE_TMPDIR/script"
	chmod 755 "$BATS_FILE_TMPDIR/script"
	: >"$BATS_FILE_TMPDIR/none"
}

teardown_file() { hostonly_netns_end; }

setup() {
	[[ -z ${SKIP:-} ]] || skip "$SKIP"
	ns ip addr flush dev vboxnet0 scope global
}
teardown() { [[ -z ${client:-} ]] || kill "$client" 2>/dev/null || true; }
issued() { # when the lease was given out or renewed; 0: there is none
	if [[ $(host_lease state) == acked ]]; then host_lease issued; else echo 0; fi
}
later() { [[ $(issued) -gt $1 ]]; }
renews() { # COMMAND...: runs it until it has renewed what it got
	local before first
	before=$(issued)
	sleep 1 # the server counts seconds
	ip netns exec "$NS" "$@" >"$BATS_TEST_TMPDIR/log" 2>&1 3>&- &
	client=$!
	wait_for 20 later "$before" || { show "$BATS_TEST_TMPDIR/log"; return 1; }
	first=$(issued)
	wait_for 55 later "$((first + 2))" || { show "$BATS_TEST_TMPDIR/log"; return 1; }
}

@test "busybox udhcpc renews its lease" {
	renews busybox udhcpc -f -i vboxnet0 -s "$BATS_FILE_TMPDIR/script"
}

@test "ISC dhclient renews its lease" {
	command -v dhclient || skip "needs the package isc-dhcp-client"
	renews dhclient -d -sf "$BATS_FILE_TMPDIR/script" -cf "$BATS_FILE_TMPDIR/none" -lf "$BATS_TEST_TMPDIR/leases" -pf "$BATS_TEST_TMPDIR/pid" vboxnet0
}

@test "dhcpcd renews its lease" {
	command -v dhcpcd || skip "needs the package dhcpcd-base"
	renews dhcpcd -4 -B -d -c /bin/true -f /dev/null vboxnet0
	ns dhcpcd -x vboxnet0 2>/dev/null || true
}

@test "systemd-networkd renews its lease" {
	networkd=/lib/systemd/systemd-networkd
	[[ -x $networkd ]] || skip "needs systemd-networkd"
	renews unshare -m bash -c '
		mount -t tmpfs none /run; mkdir -p /run/systemd/netif/leases /run/systemd/netif/links /run/systemd/network /run/dbus
		chown -R systemd-network:systemd-network /run/systemd/netif 2>/dev/null
		printf "[Match]\nName=vboxnet0\n[Network]\nDHCP=ipv4\nIPv6AcceptRA=no\n[DHCPv4]\nClientIdentifier=mac\n" >/run/systemd/network/10.network
		mount -t tmpfs none /etc/systemd/network 2>/dev/null
		mount --bind /sys /sys; mount -o remount,bind,ro /sys
		exec '$networkd
}
