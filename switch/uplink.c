/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The way out of the network: libslirp, a TAP, or a packet socket of one of the host's interfaces.
 *
 *	mode	what it is				who made it
 *	user	libslirp (net/nat.c) behind a filter	this process
 *	tap	the host's interface vboxnetN		the helper, for the keeper
 *	bridge	a TAP in a Linux bridge of the host	the helper
 *	packet	a packet socket of an interface		the helper
 *	none	there is no way out
 *
 * The filter in front of libslirp: it answers ARP for the addresses that are its own, and gets IPv4 and IPv6 that is
 * meant for it. Its DHCP server gets nothing: the station is the DHCP server. On a host-only network it gets what is
 * for the host's address only, so nothing leaves the host.
 *
 * A packet socket hands frames over before the kernel has finished them: checksums may be missing and TCP segments may
 * be joined; the header in front says so (PACKET_VNET_HDR, the layout of virtio's), and a VLAN tag is in the auxiliary
 * data. They are put right here.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <linux/virtio_net.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/log.h"
#include "switch/private.h"

#define BATCH 64
#define CONNECTS_MAX 32
#define VNET_HEADER sizeof(struct virtio_net_hdr)

struct uplink {
	struct network *n;
	int port;	      /* in the core */
	struct net_link link; /* to libslirp */
	bool slirp;
	struct loop_watch *watch;
	struct nat_rule connects[CONNECTS_MAX]; /* the oldest is replaced */
	unsigned connect_next;
	uint8_t frame[NET_FRAME_MAX + 64], scratch[NET_FRAME_WIRE];
};

/* ---- libslirp ---- */

static bool
slirp_address(const struct net_config *c, uint32_t ip)
{
	return ip == c->gateway || (c->kind == KIND_NATNETWORK && ip == c->network + 2);
}

/*
 * Of a packet to an address that libslirp takes for the host's loopback: answers to forwarded connections, and TFTP. The
 * first of a TCP connection of the guest's own is not, nor a datagram from a port that nothing is forwarded to.
 */
static bool
harmless(const struct net_config *c, const uint8_t *l4, size_t len, unsigned proto)
{
	if (proto == 6)
		return len >= 20 && (l4[13] & 0x12) != 2;
	if (proto != 17)
		return true;
	if (len < 8)
		return false;
	for (int i = 0; i < c->forward_count; i++)
		if (c->forwards[i].udp && c->forwards[i].guest_port == be16(l4))
			return true;
	return be16(l4 + 2) == 69;
}

/*
 * libslirp has one switch for the host's loopback, which is then behind .2 (and the broadcast address) and behind every
 * address of the IPv6 prefix but the name server's, ::3. There are two here, and ::2 only.
 */
static bool
loopback_closed(const struct net_config *c, const uint8_t *f, size_t len)
{
	static const uint8_t host[8] = { [7] = 2 }, dns[8] = { [7] = 3 };
	bool v4 = be16(f + 12) == 0x0800;
	size_t ihl = v4 ? (f[14] & 15) * 4u : 40;

	if (!c->localhost_reachable && !c->localhost_reachable6)
		return false; /* libslirp sees to it */
	if (v4 && (c->localhost_reachable || (be32(f + 30) != c->network + 2 && be32(f + 30) != UINT32_MAX)))
		return false;
	if (!v4 && (memcmp(f + 38, &c->prefix6, 8) != 0 || !memcmp(f + 46, dns, 8) ||
			   (c->localhost_reachable6 && !memcmp(f + 46, host, 8))))
		return false;
	if (v4 && (f[23] == 6 || f[23] == 17) && (be16(f + 20) & 0x3fff))
		return true; /* a fragment may hide its port */
	return len < 14 + ihl || !harmless(c, f + 14 + ihl, len - 14 - ihl, v4 ? f[23] : f[20]);
}

/* ::3 of the prefix, which libslirp would answer for too, is the station's (names6()): its packets, and who has it. */
static bool
for_names6(const struct net_config *c, const uint8_t *f, size_t len)
{
	uint8_t names[16];

	names6(c, names);
	return !memcmp(f + 38, names, 16) || (f[20] == 58 && len >= 78 && f[54] == 135 && !memcmp(f + 62, names, 16));
}

/* libslirp takes whatever it is given, so only what is meant for it is. */
static bool
slirp_wants(const struct net_config *c, const uint8_t *f, size_t len)
{
	static const uint8_t own[2] = { 0x52, 0x55 }, own6[2] = { 0x52, 0x56 };

	switch (be16(f + 12)) {
	case 0x0806:
		return len >= 42 && slirp_address(c, be32(f + 38));
	case 0x0800:
		if (len < 34 || memcmp(f, own, 2))
			return false;
		return c->kind == KIND_NATNETWORK ? !loopback_closed(c, f, len) : slirp_address(c, be32(f + 30));
	case 0x86dd:
		return c->ipv6 && c->kind == KIND_NATNETWORK && len >= 54 && (!memcmp(f, own6, 2) || (f[0] & 1)) &&
		       !for_names6(c, f, len) && !loopback_closed(c, f, len);
	default:
		return false;
	}
}

static bool
deliver_slirp(void *opaque, const uint8_t *frame, size_t len, unsigned mss)
{
	struct uplink *u = opaque;
	struct net_tcp t;

	if (!slirp_wants(&u->n->c, frame, len))
		return true;
	if (mss) { /* libslirp takes it in one piece, but looks at the checksum */
		if (len > NET_FRAME_MAX || !net_large_find(frame, len, mss, &t))
			return true;
		memcpy(u->frame, frame, len);
		net_tcp_finish(u->frame, len, &t);
		frame = u->frame;
	}
	net_send(&u->link, frame, len);
	return true;
}

/* Is this option in what is behind a router advertisement's head? */
static bool
advertised(const uint8_t *p, size_t len, uint8_t option)
{
	while (len >= 8 && p[1] && p[1] * 8u <= len) {
		if (p[0] == option)
			return true;
		len -= p[1] * 8u;
		p += p[1] * 8u;
	}
	return false;
}

/*
 * libslirp's router advertisement (RFC 4861, section 4.2) always has a default route, does not say that DHCPv6 has the
 * rest, which libslirp answers too, and names the DNS server (RFC 8106, section 5.1) only where the host has one of IPv6.
 * The length of what goes out instead, in `scratch`; 0: this is not one.
 */
static size_t
advertisement(struct uplink *u, const uint8_t *frame, size_t len)
{
	uint8_t *f = u->scratch, tail[8] = { [7] = 58 };
	uint16_t sum;

	if (len < 70 || len > NET_FRAME_WIRE - RDNSS_BYTES || be16(frame + 12) != 0x86dd || frame[20] != 58 ||
		frame[54] != 134 || be16(frame + 18) != len - 54)
		return 0;
	memcpy(f, frame, len);
	f[59] |= 0x40;
	if (!u->n->c.default6)
		put_be16(f + 60, 0);
	if (!advertised(f + 70, len - 70, RDNSS)) {
		put_rdnss(&u->n->c, f + len);
		len += RDNSS_BYTES;
	}
	put_be16(f + 18, (unsigned)len - 54);
	put_be16(f + 56, 0);
	put_be16(tail + 2, (unsigned)len - 54);
	sum = net_sum_fold(net_sum(net_sum(net_sum(0, f + 22, 32), tail, 8), f + 54, len - 54));
	memcpy(f + 56, &sum, 2);
	return len;
}

static bool
from_slirp(void *opaque, const uint8_t *frame, size_t len)
{
	struct uplink *u = opaque;
	size_t other = advertisement(u, frame, len);

	net_inject(u->n, u->port, other ? u->scratch : frame, other ? other : len, 0);
	return true;
}

/* The ports of those who take no large frames cut them up. */
static bool
takes_large(void *opaque)
{
	return true;
}

static bool
large_from_slirp(void *opaque, const uint8_t *frame, size_t len, unsigned mss)
{
	struct uplink *u = opaque;

	net_inject(u->n, u->port, frame, len, mss);
	return true;
}

static int
add_port(struct uplink *u, sw_deliver_fn *fn)
{
	struct sw_port_config c = { .host_side = true, .uplink = true, .any_source = true, .may_serve = true };

	if (u->n->c.uplink == UPLINK_BRIDGE) {
		c.trunk = true; /* tags go out as they are */
		memset(c.allowed, 0xff, sizeof(c.allowed));
	}
	u->port = sw_port_add(u->n->core, &c, fn, u);
	return u->port < 0 ? -1 : 0;
}

static int
open_slirp(struct uplink *u, struct err *e)
{
	struct network *n = u->n;
	static const uint8_t mac[6] = { 0x52, 0x55, 0, 0, 0, 0 };
	char network[32];
	struct nat_options o = { .network = network,
		.no_dhcp = true, /* not even for who asks it alone: it would answer to all */
		.localhost_reachable = n->c.localhost_reachable || n->c.localhost_reachable6,
		.ipv6 = n->c.ipv6 && n->c.kind == KIND_NATNETWORK,
		.prefix6 = n->c.ipv6 ? n->c.prefix6.s6_addr : NULL,
		.tftp_root = *n->c.tftp ? n->c.tftp : NULL,
		.bootfile = *n->c.bootfile ? n->c.bootfile : NULL };
	struct err rule = { 0 };

	snprintf(network, sizeof(network), "%u.%u.%u.%u/%u", n->c.network >> 24, n->c.network >> 16 & 255,
		n->c.network >> 8 & 255, n->c.network & 255, n->c.prefix);
	/* NAT: the gateway is where DNS is, .2 is the host. Host-only: the gateway is the host, DNS is nowhere. */
	o.router = n->c.kind == KIND_NATNETWORK ? n->c.network + 2 : n->c.gateway;
	o.dns = n->c.kind == KIND_NATNETWORK ? n->c.gateway : (n->c.network | ~n->c.netmask) - 1;
	net_link_init(&u->link, mac);
	u->link.adapter = (struct net_adapter){
		.opaque = u, .receive = from_slirp, .takes_large = takes_large, .receive_large = large_from_slirp
	};
	if (add_port(u, deliver_slirp) || nat_open(&u->link, n->loop, &o, e))
		return -1;
	u->slirp = true;
	for (int i = 0; i < n->c.forward_count; i++)
		if (nat_rule_add(&u->link, &n->c.forwards[i], &rule))
			log_error("switch", "%s", rule.text); /* the others are worth having */
	return 0;
}

/* ---- TAP ---- */

static ssize_t
write_packet(struct uplink *u, const uint8_t *frame, size_t len)
{
	static const struct virtio_net_hdr none;
	struct iovec iov[2] = { { (void *)(uintptr_t)&none, sizeof(none) }, { (void *)(uintptr_t)frame, len } };

	return writev(u->n->tap_fd, iov, 2);
}

static void
write_piece(void *opaque, const uint8_t *frame, size_t len)
{
	struct uplink *u = opaque;

	/* one that is not taken is lost as on a wire */
	ssize_t n = u->n->packet ? write_packet(u, frame, len) : write(u->n->tap_fd, frame, len);

	(void)n;
}

static bool
deliver_tap(void *opaque, const uint8_t *frame, size_t len, unsigned mss)
{
	struct uplink *u = opaque;

	if (mss) {
		net_cut(u->n, frame, len, mss, write_piece, u);
		return true;
	}
	return write(u->n->tap_fd, frame, len) == (ssize_t)len;
}

static void
tap_ready(void *opaque, int ready)
{
	struct uplink *u = opaque;

	net_begin(u->n);
	for (int i = 0; i < BATCH; i++) {
		uint8_t *f = u->n->frame + SW_HEADROOM;
		ssize_t n = read(u->n->tap_fd, f, NET_FRAME_MAX);

		if (n <= 0)
			break;
		sw_input(u->n->core, u->port, f, (size_t)n, 0, loop_now() / 1000000);
	}
	net_end(u->n);
}

/* ---- packet socket ---- */

static bool
deliver_packet(void *opaque, const uint8_t *frame, size_t len, unsigned mss)
{
	struct uplink *u = opaque;

	if (!mss)
		return write_packet(u, frame, len) == (ssize_t)(VNET_HEADER + len);
	net_cut(u->n, frame, len, mss, write_piece, u);
	return true;
}

static void
finish_packet(struct uplink *u, uint8_t *f, size_t len, struct virtio_net_hdr *h)
{
	struct net_tcp t;

	if (h->gso_type != VIRTIO_NET_HDR_GSO_NONE) {
		/* TCP that the kernel has joined from several */
		if (net_large_find(f, len, h->gso_size, &t))
			net_inject(u->n, u->port, f, len, h->gso_size);
		return;
	}
	if ((h->flags & VIRTIO_NET_HDR_F_NEEDS_CSUM) && h->csum_start < len &&
		h->csum_offset + 2u <= len - h->csum_start) {
		uint16_t sum = net_sum_fold(net_sum(0, f + h->csum_start, len - h->csum_start));

		if (!sum)
			sum = 0xffff;
		memcpy(f + h->csum_start + h->csum_offset, &sum, 2);
	}
	net_inject(u->n, u->port, f, len, 0);
}

/* The tag goes back where it was on the wire. */
static size_t
restore_tag(uint8_t *f, size_t len, const struct msghdr *m, struct virtio_net_hdr *h)
{
	struct cmsghdr *c = CMSG_FIRSTHDR((struct msghdr *)(uintptr_t)m);
	struct tpacket_auxdata aux;

	if (!c || c->cmsg_level != SOL_PACKET || c->cmsg_type != PACKET_AUXDATA ||
		c->cmsg_len < CMSG_LEN(sizeof(aux)) || len < 14)
		return len;
	memcpy(&aux, CMSG_DATA(c), sizeof(aux));
	if (!(aux.tp_status & TP_STATUS_VLAN_VALID))
		return len;
	memmove(f + 16, f + 12, len - 12);
	f[12] = 0x81;
	f[13] = 0;
	f[14] = (uint8_t)(aux.tp_vlan_tci >> 8);
	f[15] = (uint8_t)aux.tp_vlan_tci;
	h->csum_start = (uint16_t)(h->csum_start + 4);
	return len + 4;
}

static void
packet_ready(void *opaque, int ready)
{
	struct uplink *u = opaque;

	for (int i = 0; i < BATCH; i++) {
		union {
			struct cmsghdr head;
			char room[CMSG_SPACE(sizeof(struct tpacket_auxdata))];
		} control;
		struct virtio_net_hdr h;
		struct iovec iov[2] = { { &h, sizeof(h) }, { u->frame, NET_FRAME_MAX } };
		struct msghdr m = { .msg_iov = iov,
			.msg_iovlen = 2,
			.msg_control = control.room,
			.msg_controllen = sizeof(control.room) };
		ssize_t n = recvmsg(u->n->tap_fd, &m, MSG_DONTWAIT);

		if (n < 0)
			return;
		if ((size_t)n < sizeof(h) + 14 || (m.msg_flags & MSG_TRUNC))
			continue;
		finish_packet(u, u->frame, restore_tag(u->frame, (size_t)n - sizeof(h), &m, &h), &h);
	}
}

/* ---- life ---- */

static int
open_descriptor(struct uplink *u, struct err *e)
{
	struct network *n = u->n;

	if (add_port(u, n->packet ? deliver_packet : deliver_tap))
		return err_set(e, ERR_INVALID, "the switch has no more ports");
	u->watch = loop_watch_add(n->loop, n->tap_fd, LOOP_IN, n->packet ? packet_ready : tap_ready, u);
	return u->watch ? 0 : err_set(e, ERR_HOST, "no memory for a network");
}

int
uplink_open(struct network *n, struct err *e)
{
	struct uplink *u;
	int r;

	if (n->c.uplink == UPLINK_NONE || (n->tap_fd < 0 && n->c.uplink == UPLINK_BRIDGE))
		return 0;
	if (n->tap_fd < 0 && (!n->c.gateway || !n->c.netmask))
		return 0; /* a host-only network without addresses: machines among themselves */
	u = xcalloc(1, sizeof(*u));
	u->n = n;
	u->port = -1;
	n->uplink = u;
	r = n->tap_fd >= 0 ? open_descriptor(u, e) : open_slirp(u, e);
	if (r)
		uplink_close(n);
	return r;
}

void
uplink_close(struct network *n)
{
	struct uplink *u = n->uplink;

	if (!u)
		return;
	n->uplink = NULL;
	loop_watch_remove(u->watch);
	if (u->slirp)
		net_link_close(&u->link);
	if (u->port >= 0)
		sw_port_remove(n->core, u->port);
	free(u);
}

/* Rules that went and rules that came; another network needs another libslirp. */
void
uplink_reload(struct network *n)
{
	struct err e = { 0 };

	if (n->tap_fd >= 0)
		return;
	uplink_close(n);
	if (uplink_open(n, &e))
		log_error("switch", "%s", e.text);
}

int
uplink_port(const struct network *n)
{
	return n->uplink ? n->uplink->port : -1;
}

/* A port that is free now; libslirp cannot tell which one it got. */
static uint16_t
free_port(void)
{
	struct sockaddr_in sin = { .sin_family = AF_INET, .sin_addr = { htonl(INADDR_LOOPBACK) } };
	socklen_t len = sizeof(sin);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	uint16_t port = 0;

	if (fd >= 0 && !bind(fd, (struct sockaddr *)&sin, sizeof(sin)) &&
		!getsockname(fd, (struct sockaddr *)&sin, &len))
		port = ntohs(sin.sin_port);
	if (fd >= 0)
		close(fd);
	return port;
}

int
uplink_connect(struct network *n, uint32_t ip, uint16_t to_port, struct err *e)
{
	struct uplink *u = n->uplink;
	struct nat_rule *r;

	if (!u || !u->slirp)
		return err_set(e, ERR_UNSUPPORTED, "Network '%s' has no side of the host to connect from", n->c.name);
	r = &u->connects[u->connect_next++ % CONNECTS_MAX];
	if (r->host_port)
		nat_rule_remove(&u->link, r->name, NULL);
	*r = (struct nat_rule){ .host_ip = "127.0.0.1", .guest_port = to_port, .host_port = free_port() };
	snprintf(r->name, sizeof(r->name), "\001connect-%u", u->connect_next);
	snprintf(r->guest_ip, sizeof(r->guest_ip), "%u.%u.%u.%u", ip >> 24, ip >> 16 & 255, ip >> 8 & 255, ip & 255);
	if (nat_rule_add(&u->link, r, e)) {
		r->host_port = 0;
		return -1;
	}
	return r->host_port;
}
