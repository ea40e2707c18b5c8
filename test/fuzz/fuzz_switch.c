/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fuzz target: frames of hostile machines into a switch with VLANs, guards, promiscuous ports and limits, through rings
 * whose positions and lengths are lies as well. What comes out is checked against what core.h promises.
 */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/str.h"
#include "net/net.h"
#include "net/ring.h"
#include "switch/core.h"
#include "test/fuzz/input.h"

#define PORTS 6

static struct sw_core *core;
static struct sw_port_config config[PORTS];
static struct wire sw, vm;
static uint64_t now;
static int source; /* the port the frame came from */

static void
piece(void *opaque, const uint8_t *frame, size_t len)
{
	struct net_tcp t;

	if (!net_tcp_find(frame, len, &t) || len - t.payload > *(const unsigned *)opaque)
		__builtin_trap();
}

static void
cut(const uint8_t *frame, size_t len, unsigned mss)
{
	static uint8_t scratch[NET_FRAME_MAX + 64];
	struct net_tcp t;

	if (net_large_find(frame, len, mss, &t))
		net_cut_tcp(frame, len, &t, scratch, piece, &mss);
}

/* As the switch gives it to the core, and again when there was no room. */
static void
input(int port, uint8_t *f, size_t len, unsigned mss)
{
	uint8_t *again = malloc(len + SW_HEADROOM + 14);
	struct net_tcp t;

	memcpy(again + SW_HEADROOM, f, len);
	if (mss && !net_large_find(f, len, mss, &t))
		len = 0;
	if (sw_try(core, port, f, len, mss, now) >= 0)
		sw_input(core, port, again + SW_HEADROOM, len, mss, now);
	free(again);
}

static bool
deliver(void *opaque, const uint8_t *frame, size_t len, unsigned mss)
{
	int i = (int)(intptr_t)opaque;
	volatile uint8_t last = frame[len - 1];

	(void)last;
	/* never back to the sender, never out of bounds, never a foreign address from a port that has only its own */
	if (i == source || len < 14 || len > (mss ? SW_LARGE_MAX : SW_FRAME_MAX) + 4)
		__builtin_trap();
	if (!config[source].any_source && memcmp(frame + 6, config[source].mac, 6))
		__builtin_trap();
	/* access ports of different VLANs never see each other's frames, whatever tags are in them */
	if (!config[i].trunk && !config[source].trunk && config[i].vlan != config[source].vlan)
		__builtin_trap();
	/* what a port does that takes no large ones */
	if (mss)
		cut(frame, len, mss);
	return (now >> 3 & 7) != 0;
}

static void
make_ports(void)
{
	uint32_t gateway = 0x0102000a;
	int fds[3], copies[3];

	core = sw_open();
	for (int i = 0; i < PORTS; i++) {
		config[i] = (struct sw_port_config){ .mac = { 8, 0, 0x27, 0, 0, (uint8_t)i }, .has_mac = true };
		config[i].vlan = i < 4 ? (uint16_t)(i / 2 * 10) : 0;
		config[i].trunk = i == 4;
		config[i].any_source = i == 5;
		config[i].promisc = i == 3 ? SW_ALLOW_ALL : i == 1 ? SW_ALLOW_VMS : SW_DENY;
		config[i].storm = i == 0 ? 5 : 0;
		if (i == 4)
			memset(config[i].allowed, 0xff, sizeof(config[i].allowed));
		sw_port_add(core, &config[i], deliver, (void *)(intptr_t)i);
	}
	sw_guard(core, true, &gateway, 1);
	if (wire_create(&sw, fds, NULL))
		__builtin_trap();
	for (int i = 0; i < 3; i++)
		copies[i] = dup(fds[i]);
	if (wire_open(&vm, copies, NULL))
		__builtin_trap();
}

static void
frame(struct input *in)
{
	uint32_t how = take(in, 2);
	size_t len = how & 0x8000 ? take(in, 2) % 17000 : 14 + take(in, 1) % 200;
	uint8_t *b = malloc(SW_HEADROOM + len + 14), *f = b + SW_HEADROOM;

	memset(b, 0, SW_HEADROOM + len + 14);
	source = (int)(how % PORTS);
	if (how & 0x100) { /* most should get past the first checks */
		memcpy(f, config[how >> 3 & 3].mac, 6);
		memcpy(f + 6, config[source].mac, 6);
		f[0] |= how >> 9 & 1 ? 0xff : 0;
		f[12] = how & 0x400 ? 0x81 : 0x86;
		f[13] = how & 0x400 ? 0 : 0xdd;
		for (size_t i = 14; i < MIN(len, (size_t)80); i++)
			f[i] = (uint8_t)take(in, 1);
	} else {
		for (size_t i = 0; i < MIN(len, (size_t)80); i++)
			f[i] = (uint8_t)take(in, 1);
	}
	now += how >> 11;
	input(source, f, len, how & 0x4000 ? take(in, 2) & RING_MSS_MAX : 0);
	free(b);
}

/* The machine's side of the ring, with its memory scribbled over. */
static void
ring(struct input *in)
{
	static uint8_t buf[SW_HEADROOM + NET_FRAME_MAX];
	struct ring r = sw.in;
	unsigned mss;
	uint32_t at = (uint32_t)take(in, 3) % RING_BYTES;

	for (int i = 0; i < 16; i++)
		sw.in.s->bytes[(at + (unsigned)i) % RING_BYTES] = (uint8_t)take(in, 1);
	r.at = r.other = at & ~7u;
	sw.in.s->tail = (uint32_t)take(in, 4);
	source = 5;
	for (int n, i = 0; i < 64 && (n = ring_get(&r, buf + SW_HEADROOM, NET_FRAME_MAX, &mss)) > 0; i++) {
		if (i % 5 == 4)
			ring_unget(&r);
		else
			input(5, buf + SW_HEADROOM, (size_t)n, mss);
	}
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input in = { data, size };

	if (!core)
		make_ports();
	while (in.left > 3)
		if (take(&in, 1) & 7)
			frame(&in);
		else
			ring(&in);
	return 0;
}
