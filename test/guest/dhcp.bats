#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# DHCP clients that other people wrote get leases from a network's DHCP server and renew them. No guests: the clients run
# on the host's end of a host-only network, in a network namespace that this file makes.
load common

setup_file() {
	hostonly_netns lodge-dhcp-$$ --default-lease-time 120 --global --set-opt 6 9.9.9.9 --set-opt 15 example.org
	[[ -z ${NS:-} ]] || ns ip addr flush dev vboxnet0 scope global
}

teardown_file() { hostonly_netns_end; }

setup() { [[ -z ${SKIP:-} ]] || skip "$SKIP"; }
@test "busybox udhcpc gets a lease and the options" {
	command -v busybox || skip "needs busybox"
	# shellcheck disable=SC2016
	printf '#!/bin/sh\n[ "$1" != bound ] || echo "$ip $mask $dns $domain $serverid $lease" >%s\n' "$BATS_TEST_TMPDIR/got" >"$BATS_TEST_TMPDIR/script"
	chmod 755 "$BATS_TEST_TMPDIR/script"
	ns busybox udhcpc -i vboxnet0 -n -q -t 5 -T 1 -s "$BATS_TEST_TMPDIR/script"
	[ "$(cat "$BATS_TEST_TMPDIR/got")" = "192.168.56.10 24 9.9.9.9 example.org 192.168.56.2 120" ]
	[ "$(host_lease ip)" = 192.168.56.10 ]
}

@test "ISC dhclient gets the same address, renews it and lets it go" {
	command -v dhclient || skip "needs the package isc-dhcp-client"
	conf=$BATS_TEST_TMPDIR/dhclient.conf
	: >"$conf"
	run_client() { ns timeout 30 dhclient -v -1 -sf /bin/true -cf "$conf" -lf "$BATS_TEST_TMPDIR/leases" -pf "$BATS_TEST_TMPDIR/pid" "$@" vboxnet0; }
	run run_client
	[[ $output == *"bound to 192.168.56.10"* ]]
	grep -q 'domain-name-servers 9.9.9.9' "$BATS_TEST_TMPDIR/leases"
	before=$(host_lease issued)
	sleep 2
	kill "$(cat "$BATS_TEST_TMPDIR/pid")" 2>/dev/null || true
	run run_client
	[[ $output == *"DHCPREQUEST"*"bound to 192.168.56.10"* ]]
	[ "$(host_lease issued)" -gt "$before" ]
	ns ip addr add 192.168.56.10/24 dev vboxnet0
	run run_client -r
	ns ip addr flush dev vboxnet0 scope global
	wait_for 5 bash -c "grep -q released '$LODGE_HOME/net/hostonly-vboxnet0/leases.json'"
}

@test "dhcpcd gets a lease" {
	command -v dhcpcd || skip "needs the package dhcpcd-base"
	run ns timeout 40 dhcpcd -4 -1 -d -t 20 -c /bin/true -f /dev/null vboxnet0
	echo "$output"
	[[ $output == *"leased 192.168.56.10 for 120 seconds"* ]]
	ns dhcpcd -x vboxnet0 2>/dev/null || true
	ns ip addr flush dev vboxnet0 scope global
}

# The prefix, d6, and the MAC address: of 0a:00:27:00:00:00.
ADDRESS6=fd00:56::d6:a00:2700:0

@test "ISC dhclient gets an IPv6 address by DHCPv6" {
	command -v dhclient || skip "needs the package isc-dhcp-client"
	ns VBoxManage dhcpserver modify --ifname vboxnet0 --ipv6-prefix fd00:56::/64
	ns timeout 30 dhclient -6 -v -1 -sf /bin/true -cf /dev/null -lf "$BATS_TEST_TMPDIR/leases" -pf "$BATS_TEST_TMPDIR/pid" vboxnet0
	grep -q "iaaddr $ADDRESS6 " "$BATS_TEST_TMPDIR/leases"
	kill "$(<"$BATS_TEST_TMPDIR/pid")" 2>/dev/null || true
	run ns VBoxManage dhcpserver modify --ifname vboxnet0 --ipv6-prefix fe80::/64
	[[ $status == 2 && $output == *"Invalid IPv6 prefix"* ]]
}

@test "dhcpcd gets an IPv6 address by DHCPv6" {
	command -v dhcpcd || skip "needs the package dhcpcd-base"
	# not -1: with an address and a DNS server out of the advertisement it would have all it needs, and end
	ns timeout 40 dhcpcd -6 -B -d -c /bin/true -f /dev/null --ia_na --noipv4 vboxnet0 >"$BATS_TEST_TMPDIR/log" 2>&1 3>&- &
	got() { grep -q REPLY6 "$BATS_TEST_TMPDIR/log" && grep -q "$ADDRESS6" "$BATS_TEST_TMPDIR/log"; }
	wait_for 30 got || { show "$BATS_TEST_TMPDIR/log"; return 1; }
	ns dhcpcd -x vboxnet0 2>/dev/null || true
	ns VBoxManage dhcpserver modify --ifname vboxnet0 --ipv6-prefix none
	ns ip addr flush dev vboxnet0 scope global
}

@test "systemd-networkd gets a lease" {
	networkd=/lib/systemd/systemd-networkd
	[[ -x $networkd ]] || skip "needs systemd-networkd"
	# in a mount namespace of its own, so that it finds one file and leaves nothing
	run ns timeout 25 unshare -m bash -c '
		mount -t tmpfs none /run; mkdir -p /run/systemd/netif/leases /run/systemd/netif/links /run/systemd/network /run/dbus
		chown -R systemd-network:systemd-network /run/systemd/netif 2>/dev/null
		printf "[Match]\nName=vboxnet0\n[Network]\nDHCP=ipv4\nLinkLocalAddressing=no\nIPv6AcceptRA=no\n[DHCPv4]\nClientIdentifier=mac\n" >/run/systemd/network/10.network
		mount -t tmpfs none /etc/systemd/network 2>/dev/null
		mount --bind /sys /sys; mount -o remount,bind,ro /sys # without udev, as in a container
		'$networkd' & pid=$!
		for i in $(seq 80); do
			ip -4 addr show vboxnet0 | grep -o "192.168.56.1[0-9]" && break
			sleep 0.2
		done
		kill $pid; ip addr flush dev vboxnet0 scope global'
	[[ $output != *"No such file"*"libsystemd"* ]] || skip "systemd-networkd does not run here: $output"
	echo "$output"
	[[ $output == *192.168.56.1* ]]
}

@test "a fixed address is given to its client alone, and a changed range moves clients on" {
	command -v busybox || skip "needs busybox"
	ns VBoxManage dhcpserver modify --ifname vboxnet0 --mac-address 0a:00:27:00:00:00 --fixed-address 192.168.56.77
	# shellcheck disable=SC2016
	printf '#!/bin/sh\n[ "$1" != bound ] || echo "$ip" >%s\n' "$BATS_TEST_TMPDIR/got" >"$BATS_TEST_TMPDIR/script"
	chmod 755 "$BATS_TEST_TMPDIR/script"
	ns busybox udhcpc -i vboxnet0 -n -q -t 5 -T 1 -s "$BATS_TEST_TMPDIR/script"
	[ "$(cat "$BATS_TEST_TMPDIR/got")" = 192.168.56.77 ]
	run ns VBoxManage dhcpserver findlease --interface vboxnet0 --mac-address 0A0027000000
	[[ $output == *"IP Address:  192.168.56.77"*"TTL:         120 sec"* ]]
}

@test "a server that was stopped answers nobody until it is started" {
	command -v busybox || skip "needs busybox"
	ns VBoxManage dhcpserver stop --interface vboxnet0
	run ns busybox udhcpc -i vboxnet0 -n -q -t 2 -T 1 -s /bin/true
	[ "$status" != 0 ]
	ns VBoxManage dhcpserver restart --interface vboxnet0
	ns busybox udhcpc -i vboxnet0 -n -q -t 5 -T 1 -s /bin/true
}
