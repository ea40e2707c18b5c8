/* SPDX-License-Identifier: Apache-2.0 */
/*
 * lodge-nethelper: the one program of Lodge with rights over the host's network (CAP_NET_ADMIN and CAP_NET_RAW, as
 * file capabilities, through `sudo -n`, or because root started it). It is started with a SOCK_SEQPACKET socket as
 * descriptor 0 and lives until the other end is closed. Each request is one packet of text, each answer one packet:
 *
 *	tap vboxnetN MAC [IP/LEN [IP6/LEN]]	a TAP of that name with these addresses, up
 *	bridge BRIDGE				a TAP, up, in that Linux bridge of the host
 *	packet INTERFACE			a packet socket of that interface, in promiscuous mode
 *	address [IP/LEN [IP6/LEN]]		other addresses for the TAP of this session ("-": none)
 *
 *	"ok NAME" with one descriptor (not for address), or "error TEXT"
 *
 * There is nothing else it can be asked. A session makes one thing; after that only `address` is left to ask for.
 * Nothing it makes outlives its descriptors: the kernel removes a TAP with the last one that stands for it, and a
 * packet socket's promiscuous mode with the socket. So there is nothing to clean up, whoever crashes.
 *
 * Who may ask for what, when the caller is not root: taps within the ranges of /etc/vbox/networks.conf (default
 * 192.168.56.0/21, and fe80::/10 and fd00::/8); bridges and interfaces that /etc/lodge/net.conf names, one a line:
 *
 *	bridge br0
 *	interface eth0
 *
 * Both files count only when they are root's and nobody else may write to them.
 */
#ifndef NETHELPER_PROTOCOL_H
#define NETHELPER_PROTOCOL_H

#define NETHELPER_MESSAGE_MAX 256
#define NETHELPER_ALLOWED "/etc/lodge/net.conf"

#endif
