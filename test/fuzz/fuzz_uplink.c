/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fuzz target: the filter in front of a network's libslirp, what is done to libslirp's advertisements, and frames of a
 * packet socket, tags, joined segments and all. A sink stands where libslirp would, and looks at what it gets.
 */
#define nat_open sink_open
#include "switch/uplink.c"
#undef nat_open

#include <stdlib.h>

#include "test/fuzz/input.h"

static struct network net;
static struct uplink up;
static unsigned injected;
static bool large; /* the frame on its way is one */

/* ---- what the switch has for the uplink ---- */

void
net_inject(struct network *n, int port, const uint8_t *frame, size_t len, unsigned mss)
{
	volatile uint8_t last = frame[len - 1];
	struct net_tcp t;

	(void)last;
	if (!len || len > NET_FRAME_MAX + 64 || (mss && !net_large_find(frame, len, mss, &t)))
		__builtin_trap();
	injected++;
}

void
net_cut(struct network *n, const uint8_t *frame, size_t len, unsigned mss,
	void (*emit)(void *opaque, const uint8_t *frame, size_t len), void *opaque)
{
}

void
net_begin(struct network *n)
{
}

void
net_end(struct network *n)
{
}

/* ---- where libslirp would be ---- */

static bool
own_ip(uint32_t ip)
{
	return ip == net.c.gateway || (net.c.kind == KIND_NATNETWORK && ip == net.c.network + 2);
}

/* Head to head with what doc/networks.md promises; written without a look at the filter. */
static void
sink_send(void *backend, const uint8_t *f, size_t len)
{
	bool nat = net.c.kind == KIND_NATNETWORK;
	unsigned type = be16(f + 12);
	uint8_t names[16];

	names6(&net.c, names);
	if (type == 0x0806 && (len < 42 || !own_ip(be32(f + 38))))
		__builtin_trap();
	if (type == 0x0800 && (len < 34 || f[0] != 0x52 || f[1] != 0x55 || (!nat && !own_ip(be32(f + 30)))))
		__builtin_trap(); /* off the host from a host-only network, or not meant for it at all */
	if (type == 0x86dd && (len < 54 || !nat || !net.c.ipv6 || !memcmp(f + 38, names, 16)))
		__builtin_trap();
	if (type != 0x0806 && type != 0x0800 && type != 0x86dd)
		__builtin_trap();
	if (large && !(net_checksum_verify(f, len) & (NET_CSUM_L4 | NET_CSUM_IP_BAD)))
		__builtin_trap();
	if (large && (net_checksum_verify(f, len) & NET_CSUM_L4_BAD))
		__builtin_trap();
	/* the first packet of a connection to the host's loopback, where only that of the other IP is open */
	if (type == 0x0800 && nat && net.c.localhost_reachable6 && !net.c.localhost_reachable && f[14] == 0x45 &&
		be32(f + 30) == net.c.network + 2 && f[23] == 6 && len >= 54 && (f[47] & 0x12) == 2)
		__builtin_trap();
}

static void
sink_close(void *backend)
{
}

static const struct net_backend_class sink = { .name = "sink", .send = sink_send, .close = sink_close };

int
sink_open(struct net_link *l, struct loop *loop, const struct nat_options *o, struct err *e)
{
	return -1;
}

/* ---- what comes ---- */

static void
make_network(struct input *in)
{
	static const uint8_t mac[6] = { 0x52, 0x55 };
	unsigned how = (unsigned)take(in, 1);

	net.c = (struct net_config){ .kind = how & 1 ? KIND_HOSTONLY : KIND_NATNETWORK,
		.network = 0x0a000200,
		.netmask = 0xffffff00,
		.gateway = 0x0a000201,
		.ipv6 = how & 2,
		.default6 = how & 4,
		.localhost_reachable = how & 8,
		.localhost_reachable6 = how & 16,
		.prefix6 = { .s6_addr = { 0xfd, 0x17, 0x62, 0x5c, 0xf0, 0x37, 0, 2 } },
		.prefix6_len = 64,
		.dhcp = { .mac = { 8, 0, 0x27, 9, 9, 9 } } };
	net.c.forwards[0] = (struct nat_rule){ .udp = true, .guest_port = 53 };
	net.c.forward_count = how >> 5 & 1;
	up = (struct uplink){ .n = &net };
	net_link_init(&up.link, mac);
	up.link.class = &sink;
	net.uplink = &up;
}

/* A frame, mostly one that gets past the first checks. */
static void
fill(struct input *in, uint8_t *f, size_t len)
{
	static const uint16_t types[] = { 0x0800, 0x0806, 0x86dd, 0x8100 };
	unsigned how = (unsigned)take(in, 1);

	for (size_t i = 0; i < MIN(len, (size_t)120); i++)
		f[i] = (uint8_t)take(in, 1);
	if (!(how & 1) || len < 14)
		return;
	put_be16(f + 12, types[how >> 1 & 3]);
	put_be16(f, how & 8 ? 0x5255 : 0x5256);
	if (len < 80)
		return;
	if (be16(f + 12) == 0x0800) {
		f[14] = 0x45;
		put_be16(f + 16, (unsigned)len - 14);
		f[20] = f[21] = 0;
		f[23] = how & 16 ? 6 : 17;
		if (how & 32)
			put_be32(f + 30, 0x0a000200 + (how >> 6));
	} else if (be16(f + 12) == 0x86dd) {
		put_be16(f + 18, (unsigned)len - 54);
		f[20] = how & 16 ? 6 : 58;
		if (how & 32) {
			memcpy(f + 38, &net.c.prefix6, 16);
			f[53] = (uint8_t)(how >> 6);
		}
		if ((how & 0xd0) == 0x40)
			f[54] = 134;
	}
	if (f[23] == 6 && be16(f + 12) == 0x0800)
		f[46] = 0x50;
	if (f[20] == 6 && be16(f + 12) == 0x86dd)
		f[66] = 0x50;
}

static void
advertise(uint8_t *f, size_t len)
{
	size_t other = advertisement(&up, f, len);

	if (!other)
		return;
	if (other < len || other > len + RDNSS_BYTES || other > NET_FRAME_WIRE || be16(up.scratch + 18) != other - 54)
		__builtin_trap();
	if (!net.c.default6 && be16(up.scratch + 60))
		__builtin_trap();
	from_slirp(&up, f, len);
}

static void
from_wire(struct input *in, const uint8_t *f, size_t len)
{
	struct virtio_net_hdr h = { .flags = (uint8_t)take(in, 1),
		.gso_type = (uint8_t)(take(in, 1) & 0x83),
		.hdr_len = (uint16_t)take(in, 2),
		.gso_size = (uint16_t)take(in, 2),
		.csum_start = (uint16_t)take(in, 2),
		.csum_offset = (uint16_t)take(in, 1) };
	union {
		struct cmsghdr head;
		char room[CMSG_SPACE(sizeof(struct tpacket_auxdata))];
	} control = { .head = { CMSG_LEN(sizeof(struct tpacket_auxdata)), SOL_PACKET, PACKET_AUXDATA } };
	struct tpacket_auxdata aux = { .tp_status = take(in, 1) & 1 ? TP_STATUS_VLAN_VALID : 0,
		.tp_vlan_tci = (uint16_t)take(in, 2) };
	struct msghdr m = { .msg_control = control.room, .msg_controllen = sizeof(control.room) };

	memcpy(CMSG_DATA(&control.head), &aux, sizeof(aux));
	if (len < 14 || len > NET_FRAME_MAX) /* packet_ready() sees to that */
		return;
	memcpy(up.frame, f, len);
	finish_packet(&up, up.frame, restore_tag(up.frame, len, &m, &h), &h);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input in = { data, size };

	make_network(&in);
	while (in.left > 4) {
		unsigned what = (unsigned)take(&in, 1), mss;
		size_t len = what & 0x80 ? take(&in, 2) : 14 + take(&in, 1);
		uint8_t *f;

		len = MIN(MAX(len, (size_t)14), (size_t)NET_FRAME_MAX);
		f = calloc(1, len);
		fill(&in, f, len);
		mss = (what & 3) == 1 ? (unsigned)take(&in, 2) : 0;
		large = mss;
		switch (what & 3) {
		case 0:
		case 1:
			deliver_slirp(&up, f, len, mss);
			break;
		case 2:
			advertise(f, len);
			break;
		case 3:
			from_wire(&in, f, len);
			break;
		}
		free(f);
	}
	return 0;
}
