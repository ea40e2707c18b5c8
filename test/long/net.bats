#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# Who can reach whom, in every mode of an adapter, with two real guests, a host and an outside world. Host and outside are
# network namespaces that this file makes: the machine's own network is not touched. The guests are booted once and
# plugged from network to network while they run.
load ../guest/common

setup_file() {
	new_netns lodge-host-$$ || return 0
	setup_file_common
	export LODGE_ENGINE=auto HOST=lodge-host-$$ OUT=lodge-out-$$
	export HOME=$BATS_FILE_TMPDIR/home LODGE_HOME=$BATS_FILE_TMPDIR/lodge
	mkdir -p "$HOME"
	ip netns add "$OUT"
	ip link add w0 netns "$HOST" type veth peer name w1 netns "$OUT"
	host ip link set lo up
	host ip link set w0 up
	host ip addr add 10.66.0.100/24 dev w0
	host ip route add default via 10.66.0.200
	host sysctl -qw net.ipv4.ping_group_range="0 2147483647"
	outside ip link set lo up
	outside ip link set w1 up
	outside ip addr add 10.66.0.200/24 dev w1
	mkdir -p "$BATS_FILE_TMPDIR/www"
	echo outside >"$BATS_FILE_TMPDIR/www/index.html"
	outside busybox httpd -p 80 -h "$BATS_FILE_TMPDIR/www"
	host busybox httpd -p 80 -h "$BATS_FILE_TMPDIR/www"
	printf '#!/bin/sh\nprintf "\\0\\3\\0\\1outside"\n' >"$BATS_FILE_TMPDIR/block" # one block of TFTP for who asks
	chmod 755 "$BATS_FILE_TMPDIR/block"
	outside socat UDP4-RECVFROM:7069,fork EXEC:"$BATS_FILE_TMPDIR/block" 3>&- &
	for vm in a b; do
		host VBoxManage createvm --name $vm --ostype Linux26_64 --register >/dev/null
		host VBoxManage modifyvm $vm --memory 128 --boot1 dvd --nic1 null --uart1 0x3f8 4 \
			--uartmode1 server "$BATS_FILE_TMPDIR/$vm.sock"
		host VBoxManage storagectl $vm --name IDE --add ide
		host VBoxManage storageattach $vm --storagectl IDE --port 0 --device 0 --type dvddrive --medium "$ISO"
	done
	host VBoxManage modifyvm a --nicspeed1 100000
	host VBoxManage modifyvm b --nictype1 virtio --nicspeed1 10000
	host VBoxManage startvm a b >/dev/null
	guest a 120 true
	guest b 120 true
}

teardown_file() {
	[[ -n ${HOST:-} ]] || return 0
	for vm in a b; do host VBoxManage controlvm $vm poweroff 2>/dev/null; done
	for lock in "$LODGE_HOME"/net/*/lock; do
		[[ ! -f $lock ]] || kill "$(cut -d' ' -f1 "$lock")" 2>/dev/null
	done
	for n in "$HOST" "$OUT"; do
		ip netns pids "$n" | xargs -r kill 2>/dev/null
		ip netns del "$n"
	done
	return 0
}

# Each test begins with adapters that nothing was said about.
setup() {
	[[ -z ${SKIP:-} ]] || skip "$SKIP"
	for vm in a b; do
		for property in group mac-spoofing; do
			host VBoxManage controlvm $vm nicproperty1 $property= 2>/dev/null || true
		done
	done
}

host() { ip netns exec "$HOST" "$@"; }
outside() { ip netns exec "$OUT" "$@"; }
guest() { "$BATS_TEST_DIRNAME/../net/serial" "$BATS_FILE_TMPDIR/$1.sock" "${@:2}"; } # NAME SECONDS COMMAND
plug() { # MODE...: both
	host VBoxManage controlvm a nic1 "$@"
	host VBoxManage controlvm b nic1 "$@"
}
dhcp() { # NAME: take a lease; the address
	guest "$1" 30 'udhcpc -i eth0 -s /etc/udhcpc.sh -q -n -t 8 -T 1 >/dev/null 2>&1;
		ip -4 addr show eth0 | sed -n "s/.*inet \([0-9.]*\).*/\1/p"'
}
static() { guest "$1" 20 "ip addr flush dev eth0; ip addr add $2/24 dev eth0"; } # NAME ADDRESS
expect() { # yes|no WHAT COMMAND...
	if "${@:3}" >"$BATS_TEST_TMPDIR/out" 2>&1; then found=yes; else found=no; fi
	[[ $found == "$1" ]] || {
		echo "$2: $found, should be $1"
		cat "$BATS_TEST_TMPDIR/out"
		return 1
	}
}
# reach yes|no NAME ADDRESS: from a guest, by ICMP, TCP and UDP. What was asked in vain before is forgotten first: between
# the last of three ARP requests and its end, a second later, Linux asks no more, and drops what is to be sent.
reach() {
	expect "$1" "$2 to $3, ICMP" guest "$2" 20 "ip neigh flush dev eth0; ping -c 1 -W 2 $3"
	expect "$1" "$2 to $3, TCP" guest "$2" 20 "timeout 4 wget -qO- http://$3/"
	[[ ${4:-} == noudp ]] ||
		expect "$1" "$2 to $3, UDP" guest "$2" 20 "traceroute -n -m 1 -q 1 -w 2 $3 | grep -q '1  *$3 .*ms'"
}
# from yes|no host|outside ADDRESS
from() {
	expect "$1" "$2 to $3, ICMP" "$2" busybox ping -c 1 -W 2 "$3"
	expect "$1" "$2 to $3, TCP" "$2" timeout 4 curl -s "http://$3/"
	expect "$1" "$2 to $3, UDP" bash -c "ip netns exec $([[ $2 == host ]] && echo "$HOST" || echo "$OUT") \
		busybox traceroute -n -m 1 -q 1 -w 2 $3 2>&1 | grep -q '1  *$3 .*ms'"
}
# The same with IPv6, multicast and broadcast, to guest a, which has fe80::a and this address of IPv4.
from6() { # yes|no host|outside INTERFACE ADDRESS
	expect "$1" "$2 to a, IPv6" "$2" busybox ping6 -c 2 -W 2 "fe80::a%$3"
	expect "$1" "$2 to a, multicast" bash -c "ip netns exec $([[ $2 == host ]] && echo "$HOST" || echo "$OUT") \
		busybox ping6 -c 2 -W 2 ff02::1%$3 2>&1 | grep -q 'from fe80::a: seq'"
	expect "$1" "$2 to a, broadcast" "$2" busybox arping -c 2 -w 3 -I "$3" "$4"
}
# And from guest a to the interface of a host.
to6() { # yes|no host|outside INTERFACE ADDRESS
	local ll
	ll=$("$2" ip -6 -o addr show dev "$3" scope link | sed -n 's/.*inet6 \([0-9a-f:]*\).*/\1/p')
	[[ -n $ll ]]
	expect "$1" "a to $2, IPv6" guest a 20 "ping6 -c 2 -W 2 $ll%eth0"
	expect "$1" "a to $2, multicast" guest a 20 "ping6 -c 2 -W 2 ff02::1%eth0 2>&1 | grep -q 'from $ll: seq'"
	expect "$1" "a to $2, broadcast" guest a 20 "arping -c 2 -w 3 -I eth0 $4"
}
udp_out() { # yes|no: from guest a through a NAT
	expect "$1" "a to outside, UDP" guest a 20 'cd /tmp; rm -f x; timeout 5 tftp -g -r x 10.66.0.200 7069; grep -q outside x'
}
# IPv6 and multicast: link-local addresses, and the group of all nodes
reach6() { # yes|no
	guest a 20 'echo 0 >/proc/sys/net/ipv6/conf/eth0/accept_dad; ip -6 addr flush dev eth0; ip -6 addr add fe80::a/64 dev eth0'
	guest b 20 'echo 0 >/proc/sys/net/ipv6/conf/eth0/accept_dad; ip -6 addr flush dev eth0; ip -6 addr add fe80::b/64 dev eth0'
	expect "$1" "IPv6" guest a 20 'ping6 -c 2 -W 2 fe80::b%eth0'
	expect "$1" "multicast" guest a 20 'ping6 -c 2 -W 2 ff02::1%eth0 2>&1 | grep -q "from fe80::b: seq"'
	expect "$1" "broadcast" guest a 20 'arping -c 2 -w 3 -I eth0 $(cat /tmp/peer)'
}
peer() { guest a 10 "echo $1 >/tmp/peer"; }

@test "null: nobody reaches anybody" {
	plug null
	static a 10.66.0.1
	static b 10.66.0.2
	peer 10.66.0.2
	reach no a 10.66.0.2
	reach no a 10.66.0.100
	reach6 no
	from no host 10.66.0.1
	from no outside 10.66.0.1
}

@test "intnet: machines reach each other, and nobody else" {
	plug intnet lab
	static a 10.66.0.1
	static b 10.66.0.2
	peer 10.66.0.2
	reach yes a 10.66.0.2
	reach yes b 10.66.0.1
	reach6 yes
	reach no a 10.66.0.100
	reach no a 10.66.0.200
	from no host 10.66.0.1
	from no outside 10.66.0.1
	from6 no host w0 10.66.0.1
	to6 no host w0 10.66.0.100
	to6 no outside w1 10.66.0.200
	run host lodge connect a 80
	[[ $status == 1 && $output == *"no side in this network"* ]]
}

@test "intnet: a network of another name is another network" {
	host VBoxManage controlvm a nic1 intnet one
	host VBoxManage controlvm b nic1 intnet two
	reach no a 10.66.0.2
}

@test "intnet: VLANs of port groups do not reach each other" {
	host lodge net group intnet-lab red vlan=10
	host lodge net group intnet-lab blue vlan=20
	plug intnet lab
	host VBoxManage controlvm a nicproperty1 group=red
	host VBoxManage controlvm b nicproperty1 group=blue
	reach no a 10.66.0.2
	host VBoxManage controlvm b nicproperty1 group=red
	reach yes a 10.66.0.2
	host VBoxManage controlvm a nicproperty1 group=
	reach no a 10.66.0.2
	host VBoxManage controlvm b nicproperty1 group=
	reach yes a 10.66.0.2
}

@test "intnet: frames from another address get nowhere, unless that is allowed" {
	plug intnet lab
	guest a 20 'ip link set eth0 down; ip link set eth0 address 02:00:00:00:00:99; ip link set eth0 up'
	static a 10.66.0.1
	expect no "a with a forged address" guest a 20 'ping -c 1 -W 2 10.66.0.2'
	[[ $(host lodge net show lab) == *[1-9]*" spoofed"* ]]
	host VBoxManage controlvm a nicproperty1 mac-spoofing=allow
	expect yes "a with an address it may have" guest a 20 'ping -c 2 -W 2 10.66.0.2'
	host VBoxManage controlvm a nicproperty1 mac-spoofing=
	mac=$(host VBoxManage showvminfo a --machinereadable | sed -n 's/^macaddress1="\(.*\)"/\1/p' | sed 's/../&:/g; s/:$//')
	guest a 20 "ip link set eth0 down; ip link set eth0 address $mac; ip link set eth0 up"
	static a 10.66.0.1
	expect yes "a with its own address again" guest a 20 'ping -c 2 -W 2 10.66.0.2'
}

@test "hostonly: machines and the host reach each other, and nothing leaves the host" {
	host VBoxManage hostonlyif create >/dev/null
	host VBoxManage dhcpserver add --ifname vboxnet0 --ip 192.168.56.2 --netmask 255.255.255.0 \
		--lowerip 192.168.56.3 --upperip 192.168.56.254 --enable
	plug hostonly vboxnet0
	[[ $(dhcp a) == 192.168.56.3 ]]
	[[ $(dhcp b) == 192.168.56.4 ]]
	peer 192.168.56.4
	reach yes a 192.168.56.4
	reach yes a 192.168.56.1
	reach6 yes
	from yes host 192.168.56.3
	from yes host 192.168.56.4
	from6 yes host vboxnet0 192.168.56.3
	to6 yes host vboxnet0 192.168.56.1
	from6 no outside w1 192.168.56.3
	to6 no outside w1 10.66.0.200
	guest a 10 'ip route replace default via 192.168.56.1'
	reach no a 10.66.0.200 noudp
	from no outside 192.168.56.3
	run host VBoxManage dhcpserver findlease --interface vboxnet0 --mac-address \
		"$(host VBoxManage showvminfo a --machinereadable | sed -n 's/^macaddress1="\(.*\)"/\1/p')"
	[[ $output == *"IP Address:  192.168.56.3"*"State:       acked"* ]]
}

@test "hostonly: a machine cannot answer for the host nor give out addresses" {
	plug hostonly vboxnet0
	static a 192.168.56.1
	guest a 20 'for i in 1 2 3 4 5; do arping -c 1 -w 1 -U -I eth0 -s 192.168.56.1 192.168.56.1 >/dev/null; done; true'
	from yes host 192.168.56.4
	[[ $(host lodge net show vboxnet0) == *[1-9]*" guarded"* ]]
	static a 192.168.56.3
}

@test "hostonly: after a kill -9 of the switch links are back within 2 s, with the interface and the leases" {
	plug hostonly vboxnet0
	static a 192.168.56.3
	from yes host 192.168.56.3
	pid=$(cut -d' ' -f2 "$LODGE_HOME/net/hostonly-vboxnet0/lock")
	kill -9 "$pid"
	t=$(date +%s%N)
	until host busybox ping -c 1 -W 1 192.168.56.3 >/dev/null; do
		[[ $(($(date +%s%N) - t)) -lt 4000000000 ]]
	done
	ms=$((($(date +%s%N) - t) / 1000000))
	echo "# links were back after $ms ms" >&3
	[[ $ms -lt 2000 ]]
	[[ $(host cat /sys/class/net/vboxnet0/operstate) != down ]]
	[[ $(host VBoxManage showvminfo a --machinereadable) == *'VMState="running"'* ]]
}

@test "hostonly without rights: machines reach each other, the host reaches them through lodge connect" {
	host VBoxManage hostonlyif create >/dev/null
	host VBoxManage dhcpserver add --ifname vboxnet1 --ip 192.168.57.2 --netmask 255.255.255.0 \
		--lowerip 192.168.57.3 --upperip 192.168.57.254 --enable
	# as if there were no helper: its place is taken by the interface of somebody else
	kill "$(cut -d' ' -f1 "$LODGE_HOME/net/hostonly-vboxnet1/lock")"
	wait_for 5 bash -c "! ip netns exec $HOST ip link show vboxnet1 2>/dev/null"
	host ip tuntap add dev vboxnet1 mode tap
	plug hostonly vboxnet1
	[[ $(host lodge net list) == *hostonly-vboxnet1*running*"user mode"*"not ours"* ]]
	[[ $(dhcp a) == 192.168.57.3 ]]
	[[ $(dhcp b) == 192.168.57.4 ]]
	peer 192.168.57.4
	reach yes a 192.168.57.4
	reach6 yes
	from no host 192.168.57.3
	run host bash -c 'printf "GET / HTTP/1.0\r\n\r\n" | timeout 10 lodge connect a 80'
	[[ $output == *"It works"* ]]
	local port
	port=$(free_port)
	host lodge connect --socks "$port" 3>&- &
	wait_for 10 host timeout 5 curl -s --socks5-hostname "127.0.0.1:$port" http://b/
	kill $!
	guest a 10 'ip route replace default via 192.168.57.1'
	expect no "a to outside, TCP" guest a 20 "timeout 4 wget -qO- http://10.66.0.200/"
	expect no "a to outside, ICMP" guest a 20 "ping -c 1 -W 2 10.66.0.200"
	udp_out no
	expect no "a to the host, TCP" guest a 20 "timeout 4 wget -qO- http://192.168.57.1/"
	expect no "a to the host's other address, TCP" guest a 20 "timeout 4 wget -qO- http://10.66.0.100/"
	from no outside 192.168.57.3
	host ip link del vboxnet1
}

@test "hostonlynet: machines, host and the network's DHCP server, by the network's name" {
	host VBoxManage hostonlynet add --name hn --netmask 255.255.255.0 --lower-ip 192.168.60.1 \
		--upper-ip 192.168.60.199 --enable
	plug hostonlynet hn
	[[ $(dhcp a) == 192.168.60.3 ]]
	[[ $(dhcp b) == 192.168.60.4 ]]
	peer 192.168.60.4
	reach yes a 192.168.60.4
	reach yes a 192.168.60.1
	reach6 yes
	from yes host 192.168.60.3
	from6 yes host vboxnet128 192.168.60.3
	to6 yes host vboxnet128 192.168.60.1
	from no outside 192.168.60.3
	guest a 10 'ip route replace default via 192.168.60.1'
	reach no a 10.66.0.200 noudp
	host VBoxManage controlvm a nic1 null
	host VBoxManage controlvm b nic1 null
	host VBoxManage hostonlynet remove --name hn
	[[ $(host VBoxManage list hostonlynets) != *hn* ]]
}

@test "an adapter reports its speed and sends no faster" {
	plug intnet lab
	static a 10.66.0.1
	static b 10.66.0.2
	[[ $(guest a 10 'cat /sys/class/net/eth0/speed') == 100* ]]
	[[ $(guest b 10 'cat /sys/class/net/eth0/speed') == 10* ]]
	guest b 10 'mkdir -p /tmp/w; dd if=/dev/zero of=/tmp/w/f bs=1024 count=3000 2>/dev/null; httpd -p 81 -h /tmp/w'
	run guest a 30 'cut -d" " -f1 /proc/uptime; wget -qO /dev/null http://10.66.0.2:81/f; cut -d" " -f1 /proc/uptime'
	echo "$output" # 3 MB at 10 Mbit/s are 2.5 s, of which the first 125 KB go at once
	awk 'NF { t[n++] = $1 } END { d = t[1] - t[0]; exit !(n == 2 && d > 2.0 && d < 8) }' <<<"$output"
}

@test "natnetwork: machines reach each other and outside, and are reached by rules only" {
	port=$(free_port)
	host VBoxManage natnetwork add --netname nn --network 10.9.0.0/24 \
		--port-forward-4 "web:tcp:[127.0.0.1]:$port:[10.9.0.4]:80"
	plug natnetwork nn
	[[ $(dhcp a) == 10.9.0.4 ]]
	[[ $(dhcp b) == 10.9.0.5 ]]
	peer 10.9.0.5
	reach yes a 10.9.0.5
	reach yes a 10.66.0.200 noudp
	reach6 yes
	expect yes "the name of b" guest a 20 'nslookup b | grep -q 10.9.0.5'
	udp_out yes
	reach yes a 10.66.0.100 noudp # the host, as whoever is outside reaches it
	expect no "the host's loopback" guest a 20 "timeout 4 wget -qO- http://10.9.0.2/"
	from6 no host w0 10.9.0.4
	from no host 10.9.0.4
	from no outside 10.9.0.4
	run host timeout 5 curl -s "http://127.0.0.1:$port/"
	[[ $output == *"It works"* ]]
	run host bash -c 'printf "GET / HTTP/1.0\r\n\r\n" | timeout 10 lodge connect b 80'
	[[ $output == *"It works"* ]]
}

@test "natnetwork: an IPv6 port forward leads to a machine, and a boot file is served" {
	port=$(free_port)
	mkdir -p "$BATS_FILE_TMPDIR/tftp"
	echo "a boot file" >"$BATS_FILE_TMPDIR/tftp/boot.img"
	chmod 755 "$BATS_FILE_TMPDIR" "$BATS_FILE_TMPDIR/tftp"
	host VBoxManage natnetwork add --netname n6 --network 10.11.0.0/24 --ipv6 on \
		--tftp-prefix "$BATS_FILE_TMPDIR/tftp" --tftp-file boot.img
	run host VBoxManage natnetwork modify --netname n6 --port-forward-6 "web:tcp:[127.0.0.1]:$port:[10.11.0.4]:80"
	[[ $status != 0 && $output == *"not for IPv6"* ]]
	host VBoxManage natnetwork modify --netname n6 --port-forward-6 \
		"web:tcp:[::1]:$port:[fd17:625c:f037:2::b]:80"
	plug natnetwork n6
	[[ $(dhcp a) == 10.11.0.4 ]]
	guest b 20 'echo 0 >/proc/sys/net/ipv6/conf/eth0/accept_dad; ip -6 addr add fd17:625c:f037:2::b/64 dev eth0'
	wait_for 10 host timeout 5 curl -s "http://[::1]:$port/"
	run host timeout 5 curl -s "http://[::1]:$port/"
	[[ $output == *"It works"* ]]
	[[ $(guest a 20 'cd /tmp; tftp -g -r boot.img 10.11.0.2 && cat boot.img') == *"a boot file"* ]]
	guest a 10 'printf "#!/bin/sh\\nenv\\n" >/tmp/s; chmod +x /tmp/s'
	run guest a 20 'udhcpc -i eth0 -s /tmp/s -q -n -t 5 -T 1 2>&1'
	echo "$output"
	[[ $output == *"siaddr=10.11.0.2"* && $output == *"boot.img"* ]]
	at6() { guest b 20 "timeout 4 wget -qO- 'http://[fd17:625c:f037:2::$1]/'"; }
	expect no "the host's loopback by IPv6" at6 2
	host VBoxManage natnetwork modify --netname n6 --loopback-4 127.0.0.1=2
	expect no "the host's loopback by IPv6, where IPv4's is open" at6 2
	host VBoxManage natnetwork modify --netname n6 --loopback-4 delete 127.0.0.1 --loopback-6 ::1=2
	expect yes "the host's loopback by IPv6" wait_for 20 at6 2
	expect no "the host's loopback by another address" at6 7
	expect no "the host's loopback by IPv4" guest a 20 "timeout 4 wget -qO- http://10.11.0.2/"
	host VBoxManage natnetwork modify --netname n6 --port-forward-6 delete web
	run host timeout 5 curl -s "http://[::1]:$port/"
	[[ $status != 0 ]]
	host VBoxManage controlvm a nic1 null
	host VBoxManage controlvm b nic1 null
	host VBoxManage natnetwork remove --netname n6
}

@test "natnetwork: an IPv6 prefix of one's own, its default route where that is wanted, and names over IPv6" {
	host VBoxManage natnetwork add --netname p6 --network 10.13.0.0/24 --ipv6 on --ipv6-prefix fd00:13::/64
	plug natnetwork p6
	for vm in a b; do guest $vm 20 'ip -6 addr flush dev eth0; for k in ra dad; do echo 1 >/proc/sys/net/ipv6/conf/eth0/accept_$k; done;
		ip link set eth0 down; ip link set eth0 up'; done
	address6() { guest "$1" 20 'ip -6 addr show dev eth0 scope global' | sed -n 's/.*inet6 \(fd00:13::*[0-9a-f:]*\).*/\1/p' | head -n 1; }
	has_address6() { [[ -n $(address6 "$1") ]]; }
	wait_for 30 has_address6 a
	wait_for 30 has_address6 b
	expect no "a default route" guest a 10 'ip -6 route | grep -q ^default'
	b=$(address6 b)
	expect yes "b by its address of the prefix" guest a 20 "ping6 -c 2 -W 2 $b"
	expect yes "b's IPv6 address, asked for over IPv6" wait_for 20 guest a 20 "nslookup -type=aaaa b fd00:13::3 2>&1 | grep -q $b"
	host VBoxManage natnetwork modify --netname p6 --ipv6-default on
	guest a 10 'ip link set eth0 down; ip link set eth0 up'
	expect yes "a default route" wait_for 20 guest a 10 'ip -6 route | grep -q ^default'
	host VBoxManage controlvm a nic1 null
	host VBoxManage controlvm b nic1 null
	host VBoxManage natnetwork remove --netname p6
}

@test "nat: each machine reaches outside and not the other" {
	plug nat
	[[ $(dhcp a) == 10.0.2.15 ]]
	peer 10.0.2.15
	reach yes a 10.66.0.200 noudp
	udp_out yes
	reach yes a 10.66.0.100 noudp
	expect yes "the host's loopback" guest a 20 "timeout 4 wget -qO- http://10.0.2.2/"
	port=$(free_port)
	host VBoxManage controlvm a natpf1 "web,tcp,,$port,,80"
	expect yes "outside to a, TCP, by a rule" outside timeout 5 curl -s "http://10.66.0.100:$port/"
	run host bash -c 'printf "GET / HTTP/1.0\r\n\r\n" | timeout 10 lodge connect a 80'
	[[ $output == *"It works"* ]]
	host VBoxManage controlvm a natpf1 delete web
	expect no "outside to a, without the rule" outside timeout 5 curl -s "http://10.66.0.100:$port/"
	reach6 no
	from6 no host w0 10.0.2.15
	guest a 10 'ip addr flush dev eth0; ip addr add 10.0.2.16/24 dev eth0'
	expect no "a to b" guest a 20 'ping -c 1 -W 2 10.0.2.15'
	from no host 10.0.2.15
}

@test "bridged: machines are on the network of the host's interface" {
	plug bridged w0
	static a 10.66.0.1
	static b 10.66.0.2
	peer 10.66.0.2
	reach yes a 10.66.0.2
	reach yes a 10.66.0.200
	reach6 yes
	from yes outside 10.66.0.1
	from yes outside 10.66.0.2
	from6 yes outside w1 10.66.0.1
	to6 yes outside w1 10.66.0.200
	from no host 10.66.0.1
	from6 no host w0 10.66.0.1
	expect no "a to the host on its own interface" guest a 20 'ping -c 1 -W 2 10.66.0.100'
	host VBoxManage controlvm a nic1 null
	host VBoxManage controlvm b nic1 null
}

@test "bridged to a bridge of the host: machines, host and outside reach each other" {
	host ip link add br0 type bridge
	host ip link set br0 up
	host ip addr del 10.66.0.100/24 dev w0
	host ip link set w0 master br0
	host ip addr add 10.66.0.100/24 dev br0
	plug bridged br0
	static a 10.66.0.1
	static b 10.66.0.2
	peer 10.66.0.2
	reach yes a 10.66.0.2
	reach yes a 10.66.0.100
	reach yes a 10.66.0.200
	reach6 yes
	from yes host 10.66.0.1
	from yes outside 10.66.0.1
	from6 yes host br0 10.66.0.1
	to6 yes host br0 10.66.0.100
	from6 yes outside w1 10.66.0.1
	to6 yes outside w1 10.66.0.200
	host VBoxManage controlvm a nic1 null
	host VBoxManage controlvm b nic1 null
	wait_for 15 bash -c "! ip netns exec $HOST ip -o link | grep -qE ': lodge[0-9]+:'" # the TAP goes with the network
}

@test "generic: a UDP tunnel between two machines" {
	host VBoxManage controlvm a nicproperty1 sport=10001
	host VBoxManage controlvm a nicproperty1 dport=10002
	host VBoxManage controlvm a nicproperty1 dest=127.0.0.1
	host VBoxManage controlvm b nicproperty1 sport=10002
	host VBoxManage controlvm b nicproperty1 dport=10001
	host VBoxManage controlvm b nicproperty1 dest=127.0.0.1
	plug generic UDPTunnel
	static a 10.66.0.1
	static b 10.66.0.2
	peer 10.66.0.2
	reach yes a 10.66.0.2
	reach6 yes
	reach no a 10.66.0.100
	reach no a 10.66.0.200
	from no host 10.66.0.1
	from no outside 10.66.0.1
	to6 no outside w1 10.66.0.200
}

@test "generic: machines in a VDE switch reach each other" {
	command -v vde_switch >/dev/null || skip "there is no vde_switch (package vde2)"
	host vde_switch -s "$BATS_FILE_TMPDIR/vde" -d -p "$BATS_FILE_TMPDIR/vde.pid" 3>&-
	for vm in a b; do host VBoxManage controlvm $vm nicproperty1 network="$BATS_FILE_TMPDIR/vde"; done
	plug generic VDE
	static a 10.66.0.1
	static b 10.66.0.2
	peer 10.66.0.2
	reach yes a 10.66.0.2
	reach6 yes
	reach no a 10.66.0.100
	reach no a 10.66.0.200
	from no host 10.66.0.1
	from no outside 10.66.0.1
	to6 no outside w1 10.66.0.200
	kill "$(<"$BATS_FILE_TMPDIR/vde.pid")"
}

@test "a cable that is out lets nothing through, and a trace started on a running machine has the frames" {
	plug intnet lab
	static a 10.66.0.1
	static b 10.66.0.2
	host VBoxManage controlvm a setlinkstate1 off
	expect no "a without its cable" guest a 20 'ping -c 1 -W 2 10.66.0.2'
	host VBoxManage controlvm a setlinkstate1 on
	host VBoxManage controlvm a nictracefile1 "$BATS_TEST_TMPDIR/a.pcap"
	host VBoxManage controlvm a nictrace1 on
	wait_for 10 guest a 20 'ping -c 1 -W 2 10.66.0.2'
	host VBoxManage controlvm a nictrace1 off
	[[ $(od -An -tx4 -N4 "$BATS_TEST_TMPDIR/a.pcap") == *a1b2c3d4* ]]
	[[ $(stat -c %s "$BATS_TEST_TMPDIR/a.pcap") -gt 200 ]]
}

@test "a user without rights has host-only interfaces through the helper's file capabilities, and nothing else" {
	command -v setcap >/dev/null || skip "there is no setcap (package libcap2-bin)"
	local dir pid name address # bats' own directories are closed to others
	dir=$(mktemp -d /tmp/lodge-user.XXXXXX)
	mkdir -p "$dir/bin" "$dir/home"
	cp "$LODGE_BIN"/{VBoxManage,lodge,lodge-switch,lodge-nethelper} "$dir/bin"
	chown -R 65534 "$dir/home"
	chmod 755 "$dir" "$dir/bin"
	as() { # with a /dev/net/tun as udev makes it
		host bash -c 'mount -t tmpfs tun /dev/net && mknod -m 666 /dev/net/tun c 10 200 && dir=$1 && shift &&
			exec setpriv --reuid=65534 --regid=65534 --clear-groups env HOME="$dir/home" LODGE_HOME="$dir/home/lodge" \
			PATH="$dir/bin:$PATH" "$@"' as "$dir" "$@"
	}
	create() { as VBoxManage hostonlyif create 2>/dev/null | sed -n "s/^Interface '\(.*\)' was successfully created/\1/p"; }
	name=$(create)
	run as lodge net list
	echo "$output"
	[[ $output == *"user mode"*"CAP_NET_ADMIN"* ]]
	as VBoxManage hostonlyif remove "$name"
	setcap cap_net_admin,cap_net_raw+ep "$dir/bin/lodge-nethelper"
	name=$(create)
	[[ $(as lodge net list) == *"by a TAP of the host"* ]]
	address=$(as VBoxManage list hostonlyifs | awk '/^IPAddress:/ { print $2 }')
	[[ $address == 192.168.* && $(host ip -o addr show "$name") == *" $address/24 "* ]]
	run as VBoxManage hostonlyif ipconfig "$name" --ip 8.8.8.1 --netmask 255.255.255.0
	[[ $status == 1 && $output == *"not within the ranges"* ]]
	for pid in $(<"$dir/home/lodge/net/hostonly-$name/lock"); do # the keeper and the switch have nothing of it
		[[ $(awk '/^CapEff/ { print $2 }' "/proc/$pid/status") == 0000000000000000 ]]
		[[ $(awk '/^Uid/ { print $2 }' "/proc/$pid/status") == 65534 ]]
	done
	kill -9 $(<"$dir/home/lodge/net/hostonly-$name/lock")
	wait_for 5 bash -c "! ip netns exec $HOST ip link show $name 2>/dev/null"
	rm -rf "$dir"
}

@test "what was made of the host's network is gone when it is removed" {
	host VBoxManage controlvm a nic1 null
	host VBoxManage controlvm b nic1 null
	host VBoxManage hostonlyif remove vboxnet0
	host VBoxManage hostonlyif remove vboxnet1
	host VBoxManage natnetwork remove --netname nn
	run host ip -o link
	[[ $output != *vboxnet* && $output != *lodge0* ]]
	[[ -z $(host VBoxManage list hostonlyifs) ]]
}
