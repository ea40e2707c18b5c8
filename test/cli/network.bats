#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# The verbs of networks, byte by byte. They run in a network namespace of their own: the machine's network is not touched.
# shellcheck disable=SC2154 # status, output and stderr are set by run
load common

setup() {
	unshare -n true 2>/dev/null || skip "needs the right to make a network namespace (root)"
	BIN=$(realpath "$LODGE_BIN")
	export HOME=$BATS_TEST_TMPDIR/home
	export LODGE_HOME=$HOME/lodge
	mkdir -p "$HOME" "$BATS_TEST_TMPDIR/bin"
	for p in VBoxManage lodge; do
		printf '#!/bin/sh\nexec unshare -n -- "%s" "$@"\n' "$BIN/$p" >"$BATS_TEST_TMPDIR/bin/$p"
		chmod 755 "$BATS_TEST_TMPDIR/bin/$p"
	done
	export PATH=$BATS_TEST_TMPDIR/bin:$PATH
	cd "$HOME" || return 1
}

teardown() {
	for lock in "$LODGE_HOME"/net/*/lock; do
		[[ ! -f $lock ]] || kill "$(cut -d' ' -f1 "$lock")" 2>/dev/null || true
	done
}

@test "hostonlyif create says which, and list hostonlyifs keeps the blanks behind an empty IPV6Address" {
	vbm hostonlyif create
	says "Interface 'vboxnet0' was successfully created"
	[ "$stderr" = "0%...10%...20%...30%...40%...50%...60%...70%...80%...90%...100%" ]
	VBoxManage list hostonlyifs >list
	diff list - <<-END
		Name:            vboxnet0
		GUID:            786f6276-656e-4074-8000-0a0027000000
		DHCP:            Disabled
		IPAddress:       192.168.56.1
		NetworkMask:     255.255.255.0
		IPV6Address:     $(printf '')
		IPV6NetworkMaskPrefixLength: 0
		HardwareAddress: 0a:00:27:00:00:00
		MediumType:      Ethernet
		Wireless:        No
		Status:          Up
		VBoxNetworkName: HostInterfaceNetworking-vboxnet0

	END
	vbm hostonlyif create
	says "Interface 'vboxnet1' was successfully created"
	vbm list hostonlyifs
	has_line "GUID:            786f6276-656e-4174-8000-0a0027000001"
	has_line "IPAddress:       192.168.57.1"
	vbm hostonlyif remove vboxnet0
	succeeds
	vbm list hostonlyifs
	[[ $output != *vboxnet0* ]]
	vbm hostonlyif remove vboxnet7
	fails_with 2 "Could not find interface 'vboxnet7'"
}

@test "hostonlyif ipconfig sets addresses within the allowed ranges" {
	VBoxManage hostonlyif create
	vbm hostonlyif ipconfig vboxnet0 --ip 192.168.60.1 --netmask 255.255.255.0
	says ""
	vbm hostonlyif ipconfig vboxnet0 --ipv6 fd00:60::1 --netmasklengthv6 64
	says ""
	vbm list hostonlyifs
	has_line "IPAddress:       192.168.60.1"
	has_line "IPV6Address:     fd00:60::1"
	has_line "IPV6NetworkMaskPrefixLength: 64"
	vbm hostonlyif ipconfig vboxnet0 --ip 10.1.2.3
	[[ -e /etc/vbox/networks.conf ]] || fails_with 1 "E_ACCESSDENIED (0x80070005)"
	vbm hostonlyif ipconfig vboxnet0 --ip 192.168.60.300
	fails_with 1 "is not an IPv4 address"
	vbm hostonlyif ipconfig vboxnet0 --dhcp --ip 192.168.60.1
	fails_with 2 "You can not use --dhcp with static ip configuration parameters"
	vbm hostonlyif ipconfig vboxnet0
	fails_with 2 "Neither --dhcp nor --ip nor --ipv6 was specified"
}

host_address() { # of vboxnet0, as its switch's own namespace has it
	nsenter -t "$(cut -d' ' -f1 "$LODGE_HOME/net/hostonly-vboxnet0/lock")" -n ip -4 -o addr show dev vboxnet0 | awk '{ print $4 }'
}
has_address() { [[ $(host_address) == "$1" ]]; }

@test "hostonlyif ipconfig --dhcp: the interface has its address from the network's DHCP server" {
	VBoxManage hostonlyif create
	has_address 192.168.56.1/24
	vbm hostonlyif ipconfig vboxnet0 --dhcp
	says ""
	has_address "" # there is no server yet
	vbm list hostonlyifs
	has_line "DHCP:            Enabled"
	has_line "IPAddress:       0.0.0.0"
	VBoxManage dhcpserver add --ifname vboxnet0 --ip 192.168.57.2 --netmask 255.255.255.0 --lowerip 192.168.57.10 \
		--upperip 192.168.57.20 --enable
	has_address 192.168.57.10/24
	vbm list hostonlyifs
	has_line "IPAddress:       192.168.57.10"
	has_line "NetworkMask:     255.255.255.0"
	vbm dhcpserver findlease --interface vboxnet0 --mac-address 0a:00:27:00:00:00
	[[ $output == *"IP Address:  192.168.57.10"*"State:       acked"* ]]
	VBoxManage dhcpserver modify --ifname vboxnet0 --mac-address 0a:00:27:00:00:00 --fixed-address 192.168.57.77
	has_address 192.168.57.77/24
	before=$(<"$LODGE_HOME/net/hostonly-vboxnet0/lock")
	kill -9 "${before#* }" # the next switch takes the same again
	for ((i = 0; i < 100; i++)); do
		[[ $(<"$LODGE_HOME/net/hostonly-vboxnet0/lock") == "$before" ]] || break
		sleep 0.1
	done
	has_address 192.168.57.77/24
	[[ -e /etc/vbox/networks.conf ]] || {
		vbm dhcpserver modify --ifname vboxnet0 --ip 10.1.1.2 --lowerip 10.1.1.3 --upperip 10.1.1.9
		fails_with 1 "not within the ranges"
	}
	vbm hostonlyif ipconfig vboxnet0 --ip 192.168.56.1
	says ""
	has_address 192.168.56.1/24
	vbm list hostonlyifs
	has_line "DHCP:            Disabled"
}

@test "dhcpserver add, modify and remove, and the list as clients parse it" {
	vbm dhcpserver add --ifname vboxnet0 --ip 192.168.56.2 --netmask 255.255.255.0 --lowerip 192.168.56.3 \
		--upperip 192.168.56.254 --enable
	says ""
	vbm dhcpserver add --ifname vboxnet0 --ip 192.168.56.2 --netmask 255.255.255.0 --lowerip 192.168.56.3 --upperip 192.168.56.254
	fails_with 2 "DHCP server already exists"
	vbm list dhcpservers
	says "NetworkName:    HostInterfaceNetworking-vboxnet0
Dhcpd IP:       192.168.56.2
LowerIPAddress: 192.168.56.3
UpperIPAddress: 192.168.56.254
NetworkMask:    255.255.255.0
Enabled:        Yes
Global Configuration:
    minLeaseTime:     default
    defaultLeaseTime: default
    maxLeaseTime:     default
    Forced options:   None
    Suppressed opts.: None
        1/legacy: 255.255.255.0
Groups:               None
Individual Configs:   None"
	vbm dhcpserver modify --network=HostInterfaceNetworking-vboxnet0 --disable --global --set-opt=6 "8.8.8.8 1.1.1.1" \
		--force-opt 6 --max-lease-time 3600 --group pxe --incl-vendor-wild '*PXE*' --set-opt 67 boot.0 \
		--mac-address 08:00:27:aa:bb:cc --fixed-address 192.168.56.9
	says ""
	vbm list dhcpservers
	has_line "Enabled:        No"
	has_line "        6/legacy: 8.8.8.8 1.1.1.1"
	has_line "    Forced options:   6"
	has_line "    maxLeaseTime:     3600 sec"
	has_line "Group:                pxe"
	has_line "Individual Config:    MAC 080027aabbcc"
	has_line "    Fixed Address:    192.168.56.9"
	vbm dhcpserver modify --ifname vboxnet0 --set-opt 6 nonsense
	fails_with 2 "Invalid value 'nonsense' of DHCP option 6"
	vbm dhcpserver modify --ifname vboxnet0 --upperip 10.0.0.9
	fails_with 1 "E_INVALIDARG"
	vbm dhcpserver remove --netname HostInterfaceNetworking-vboxnet0
	says ""
	vbm dhcpserver remove --ifname vboxnet0
	fails_with 2 "DHCP server does not exist"
	vbm dhcpserver remove
	fails_with 2 "You need to specify either --network or --interface"
}

@test "between DHCP servers is an empty line, behind the last is none" {
	for n in a b; do
		VBoxManage dhcpserver add --netname $n --ip 10.7.0.2 --netmask 255.255.255.0 --lowerip 10.7.0.3 --upperip 10.7.0.9
	done
	VBoxManage list dhcpservers >list
	[ "$(grep -c '^$' list)" = 1 ]
	[ -n "$(tail -n 1 list)" ]
}

@test "rules of a running natnetwork change in its process, for IPv4 and IPv6" {
	VBoxManage natnetwork add --netname live --network 10.12.0.0/24 --ipv6 on
	VBoxManage natnetwork start --netname live
	before=$(<"$LODGE_HOME/net/nat-live/lock")
	listening() { nsenter -t "${before% *}" -n ss -ltn; } # it is in a namespace of its own
	VBoxManage natnetwork modify --netname live --port-forward-4 "w:tcp:[]:1080:[10.12.0.4]:80" \
		--port-forward-6 "w6:tcp:[]:1080:[fd17:625c:f037:2::4]:80"
	[[ $(listening) == *"0.0.0.0:1080 "* && $(listening) == *"[::]:1080 "* ]]
	vbm natnetwork list live
	[[ $output == *"Port-forwarding (ipv6)"*"w6:tcp:[]:1080"* ]]
	VBoxManage natnetwork modify --netname live --port-forward-6 delete w6
	[[ $(listening) == *"0.0.0.0:1080 "* && $(listening) != *"[::]:1080 "* ]]
	[[ $(<"$LODGE_HOME/net/nat-live/lock") == "$before" ]]
	VBoxManage natnetwork stop --netname live
	VBoxManage natnetwork remove --netname live
}

@test "natnetwork add, list, modify, start, stop and remove" {
	vbm natnetwork add --netname nn --network 10.9.0.0/24 --port-forward-4 "ssh:tcp:[]:1022:[10.9.0.4]:22"
	says ""
	vbm list natnetworks
	says "Name:         nn
Network:      10.9.0.0/24
Gateway:      10.9.0.1
DHCP Server:  Yes
IPv6:         No
IPv6 Prefix:  fd17:625c:f037:2::/64
IPv6 Default: No"
	vbm natnetwork list 'n*'
	[[ $output == "NAT Networks:"*"Enabled:      Yes"*"Port-forwarding (ipv4)
        ssh:tcp:[]:1022:[10.9.0.4]:22"*"1 network found" ]]
	vbm list dhcpservers
	has_line "NetworkName:    nn"
	has_line "Dhcpd IP:       10.9.0.3"
	vbm natnetwork modify --netname nn --network 10.10.0.0/16 --dhcp off --port-forward-4 delete ssh
	says ""
	vbm natnetwork list
	[[ $output != *ssh* && $output == *"DHCP Server:  No"* ]]
	vbm natnetwork start --netname nn
	says ""
	[[ $(lodge net list) == *nat-nn*running* ]]
	vbm natnetwork stop --netname nn
	says ""
	[[ $(lodge net list) == *nat-nn*off* ]]
	vbm natnetwork add --netname nn --network 10.9.0.0/24
	fails_with 1 "already exists"
	vbm natnetwork modify --netname nn --network 10.9.0.0/40
	fails_with 1 "Invalid network"
	vbm natnetwork modify --netname nn --port-forward-4 "ssh:tcp:1022"
	fails_with 1 "Invalid port-forward rule"
	vbm natnetwork modify --netname nn --port-forward-6 "ssh:tcp:[127.0.0.1]:1022:[10.9.0.4]:22"
	fails_with 1 "is not for IPv6"
	vbm natnetwork modify --netname nn --loopback-6 "x"
	fails_with 2 "only ::1=2 can be mapped"
	vbm natnetwork modify --netname nn --ipv6 on --ipv6-prefix fd00:0:0:9::/64 --ipv6-default on
	says ""
	vbm list natnetworks
	has_line "IPv6 Prefix:  fd00:0:0:9::/64"
	has_line "IPv6 Default: Yes"
	vbm natnetwork modify --netname nn --ipv6-prefix 2001:db8:0::
	says ""
	vbm list natnetworks
	has_line "IPv6 Prefix:  2001:db8::/64"
	for wrong in fd00::/48 fe80::/64 ff02::/64 fd00::1/64 10.0.0.0/64 nonsense; do
		vbm natnetwork modify --netname nn --ipv6-prefix $wrong
		fails_with 1 "Invalid IPv6 prefix '$wrong'"
	done
	vbm list natnetworks
	has_line "IPv6 Prefix:  2001:db8::/64"
	vbm natnetwork modify --netname nn --tftp-prefix relative
	fails_with 1 "not the full path of a directory"
	vbm natnetwork remove --netname nn
	says ""
	vbm natnetwork list
	[[ $output == *"0 networks found" ]]
	vbm list dhcpservers
	says ""
}

@test "hostonlynet add, modify and remove, by name and by id" {
	vbm hostonlynet add --name lab --netmask 255.255.255.0 --lower-ip 192.168.58.1 --upper-ip 192.168.58.99
	says ""
	vbm list hostonlynets
	has_line "Name:            lab"
	has_line "State:           Enabled"
	has_line "LowerIP:         192.168.58.1"
	has_line "VBoxNetworkName: hostonly-lab"
	id=$(sed -n 's/^GUID: *//p' <<<"$output")
	vbm hostonlynet modify --id "$id" --disable --upper-ip 192.168.58.50
	says ""
	vbm list hostonlynets
	has_line "State:           Disabled"
	has_line "UpperIP:         192.168.58.50"
	vbm hostonlynet add --name lab --netmask 255.255.255.0 --lower-ip 192.168.58.1 --upper-ip 192.168.58.99
	fails_with 2 "already exists"
	vbm hostonlynet remove --name lab
	says ""
	vbm list hostonlynets
	says ""
}

@test "modifyvm attaches adapters to networks, and showvminfo tells in its order" {
	make_vm web1
	VBoxManage modifyvm web1 --nic1 nat --nic2 hostonly --hostonlyadapter2 vboxnet0 --cableconnected2 on --nic3 intnet \
		--intnet3 lab --nic4 bridged --bridgeadapter4 eth9 --nic5 natnetwork --nat-network5 nn --nic6 generic \
		--nicgenericdrv6 UDPTunnel --nicproperty6 dest=10.0.0.9 --nic7 hostonlynet --host-only-net7 ho --nic8 null
	VBoxManage showvminfo web1 --machinereadable >info
	grep -A3 '^hostonlyadapter2=' info | sed 's/macaddress2=.*/MAC/' >got
	printf '%s\n' 'hostonlyadapter2="vboxnet0"' MAC 'cableconnected2="on"' 'nic2="hostonly"' | diff got -
	for line in 'intnet3="lab"' 'nic3="intnet"' 'bridgeadapter4="eth9"' 'nic4="bridged"' 'nat-network5="nn"' \
		'nic5="natnetwork"' 'generic6="UDPTunnel"' 'nic6="Generic"' 'nic7="hostonlynet"' 'nic8="null"'; do
		grep -qxF "$line" info
	done
	vbm showvminfo web1
	[[ $output == *"Attachment: Host-only Interface 'vboxnet0'"*"Attachment: Internal Network 'lab'"*"Attachment: Bridged Interface 'eth9'"* ]]
	[[ $output == *"Attachment: NAT Network 'nn'"*"Attachment: Generic 'UDPTunnel'"* ]]
	vbm list intnets
	says "Name:        lab"
	vbm modifyvm web1 --nicproperty6 nonsense
	fails_with 2 "Invalid --nic-property6 argument 'nonsense'"
	vbm startvm web1
	fails_with 1 "web1"
	[ "$(mr web1 VMState)" = poweroff ]
}

@test "lodge net without networks says so" {
	run lodge net show
	[ "$output" = "No network runs." ]
	run lodge net nonsense
	[ "$status" = 2 ]
	run lodge connect nobody 22
	[ "$status" = 1 ]
	[[ $output == *"Could not find a registered machine named 'nobody'"* ]]
}
