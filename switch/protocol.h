/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Everything that the process of one network (lodge-switch), the machines plugged into it and the host library agree
 * on. Constants and text only, so that host/ can include it without linking switch/.
 *
 * ---- Starting --------------------------------------------------------------------------------------------------
 *
 *	lodge-switch --dir DIR [--ready-fd N] [--foreground]
 *
 * Two processes: the keeper (its command line says lodge-keeper) holds the lock, and the TAP if there is one, and looks
 * after its child, the switch, which does the work inside a sandbox. When the switch dies the keeper starts another;
 * machines find it again by themselves. When the switch ends by itself (nobody was plugged in for `linger` seconds)
 * both are gone. With --ready-fd one line is written when the sockets are there:
 *
 *	{"ok":true,"pid":4711}  or  {"error":{"code":"VBOX_E_HOST_ERROR","text":"..."}}
 *
 * When another keeper already has the lock, the line is written as soon as that one's sockets are there.
 *
 * ---- The directory of a network ($LODGE_HOME/net/ID/) -------------------------------------------------------------
 *
 *	config.json	what the network is; below
 *	ports/ID.json	what the port of one adapter may do; below. Written by host/ before a machine may plug in
 *	lock		held (OFD write lock on byte 0) by the keeper; its text: "keeper-pid switch-pid\n"
 *	port.sock	SOCK_SEQPACKET: machines plug in here
 *	control.sock	SOCK_STREAM, messages as in vm/protocol.h
 *	leases.json	what DHCP has given out; replaced at every change, kept when nothing runs
 *	log		of the switch
 *
 * ---- Plugging in -----------------------------------------------------------------------------------------------
 *
 * The machine sends one packet, "lodge-port 1 PORT TOKEN", where PORT names the file in ports/ and TOKEN stands in it,
 * and gets one packet: "ok" with three descriptors (net/ring.h), or "error: TEXT". The plug is in as long as the
 * connection stands. "lodge-port 0" is refused at once: the way to ask whether the switch is alive, and to have it wait
 * for half a minute for who is coming. A second plug of the same port throws the first one out.
 *
 * ---- Control methods -------------------------------------------------------------------------------------------
 *
 *	status			-> {"pid", "mode": "user"|"tap"|"bridge"|"packet"|"none", "mode_reason", "interface",
 *				    "ports":[{"port","machine","slot","mac","plugged","vlan","ip",counters...}],
 *				    "uplink":{counters} or null, "leases":[...as leases.json]}
 *	reload			-> {}	read config.json and ports/ again
 *	connect  {ip, port}	-> {"port":n}  127.0.0.1:n of the host now leads to that TCP port (user mode), once
 *	trace    {on}		-> {}	all frames into the pcap file "trace.pcap" of the directory, until off
 *	dhcp     {on}		-> {}	stop answering DHCP requests, or answer them again
 *	hold			-> {}	stay until a shutdown, also when nobody is plugged in
 *	shutdown		-> {}
 */
#ifndef SWITCH_PROTOCOL_H
#define SWITCH_PROTOCOL_H

#define SWITCH_FILE_CONFIG "config.json"
#define SWITCH_FILE_LOCK "lock"
#define SWITCH_FILE_PORT "port.sock"
#define SWITCH_FILE_CONTROL "control.sock"
#define SWITCH_FILE_LEASES "leases.json"
#define SWITCH_FILE_LOG "log"
#define SWITCH_FILE_TRACE "trace.pcap"
#define SWITCH_DIR_PORTS "ports"

#define SWITCH_HELLO_MAX 512
#define SWITCH_MESSAGE_MAX (4u << 20)

/*
 * config.json; everything but version and name may be left out:
 *
 * {"version":1, "name":"NatNetwork",
 *  "kind":"natnetwork",		natnetwork hostonly hostonlynet intnet bridged : intnet
 *  "network":"10.0.2.0/24",		: none; then there is no IPv4 of the switch's own
 *  "gateway":"10.0.2.1",		the host's side: NAT's router, the host's address on a host-only network
 *  "host_dhcp":false,			uplink host: the gateway's address is the one that DHCP gives to `mac`
 *  "prefix6":"fd17:625c:f037:2::/64",	routers' advertisements for it : none
 *  "default6":false,			advertise a default route
 *  "uplink":"nat",			none nat host bridge : none. host: TAP `interface` with `gateway`, in user mode
 *					libslirp in its place
 *  "interface":"vboxnet0",		of uplinks host and bridge
 *  "mac":"0a0027000000",		of that TAP
 *  "address6":"fd00::1/64",		of that TAP
 *  "domain":"natnetwork",		of the machines' names
 *  "forwards":["name,tcp,127.0.0.1,2222,10.0.2.4,22"],	or with IPv6 addresses
 *  "localhost_reachable":false,	NAT: .2 leads to the host's loopback
 *  "localhost_reachable6":false,	NAT: ::2 of the prefix leads to it
 *  "tftp":"/path", "bootfile":"x",
 *  "guard":true,			: whether DHCP or IPv6 is served here
 *  "linger":5,				seconds; -1: for good
 *  "dhcp":{"enabled":true, "address":"10.0.2.3", "netmask":"255.255.255.0", "lower":"10.0.2.4", "upper":"10.0.2.254",
 *	"global":SCOPE,
 *	"groups":[SCOPE and "name", "conditions":[{"include":true,"type":"mac","value":"..."}]],
 *	"individual":[SCOPE and "mac":"080027...", "fixed":"10.0.2.9"]}}
 * SCOPE: {"min":s, "default":s, "max":s, "options":{"6":"08080808"} (hex), "forced":[6], "suppressed":[15]}
 * Condition types: mac mac-wild vendor vendor-wild user user-wild.
 *
 * ports/ID.json:
 * {"token":"32 hex digits", "machine":"web1", "slot":0, "mac":"080027aabbcc", "promisc":"deny",
 *  "any_source":false,	: whether promisc is not deny
 *  "vlan":0,			of untagged frames : 0
 *  "trunk":"all",		all none or "10,20-30" : all
 *  "rate":0,			bytes a second from the machine : no limit
 *  "storm":0}			group-addressed frames a second : no limit
 */
#define SWITCH_CONFIG_VERSION 1

#endif
