/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a frame costs in the switch, without guests: machines' rings are filled from memory, and each batch goes through
 * the whole path of lodge-switch, ring to core to ring, on one thread.
 *
 *	bench/switch [SECONDS]		one row a case on stdout: name, frames a second, Gbit/s, ns a frame
 *
 * "ring to ring" is what a network does all day: take a frame out of one machine's shared memory, decide, put it into
 * another's, publish, and take it out there (the machine's side, which is counted too). "core" is the decision alone.
 * Seconds are of processor time, so that others on the host do not count.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/str.h"
#include "net/net.h"
#include "net/ring.h"
#include "switch/core.h"

#define PORTS 100
#define BATCH 64

struct end {
	struct wire sw, vm;
	int port;
	bool dirty;
};

static struct sw_core *core;
static struct end ends[PORTS];
static uint8_t frames[PORTS][16384 + 64];
static double seconds = 1;

static double
now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static bool
to_ring(void *opaque, const uint8_t *frame, size_t len, unsigned mss)
{
	struct end *e = opaque;

	e->dirty = true;
	return ring_put(&e->sw.out, frame, len, mss);
}

static bool
to_nowhere(void *opaque, const uint8_t *frame, size_t len, unsigned mss)
{
	return true;
}

static void
open_ports(int count, sw_deliver_fn *deliver)
{
	core = sw_open();
	for (int i = 0; i < count; i++) {
		struct sw_port_config c = { .mac = { 8, 0, 0x27, 0, 0, (uint8_t)i }, .has_mac = true, .trunk = true };
		int fds[3], copies[3];

		memset(c.allowed, 0xff, sizeof(c.allowed));
		ends[i].port = sw_port_add(core, &c, deliver, &ends[i]);
		if (deliver != to_ring)
			continue;
		if (wire_create(&ends[i].sw, fds, NULL))
			exit(1);
		for (int k = 0; k < 3; k++)
			copies[k] = dup(fds[k]);
		close(fds[0]);
		if (wire_open(&ends[i].vm, copies, NULL))
			exit(1);
	}
}

static void
close_ports(int count, bool rings)
{
	for (int i = 0; i < count && rings; i++) {
		wire_close(&ends[i].vm);
		wire_close(&ends[i].sw);
	}
	sw_close(core);
}

static void
make_frame(int from, int to, size_t len)
{
	uint8_t *f = frames[from] + SW_HEADROOM;

	memset(f, 0x5a, len);
	memcpy(f, to < 0 ? (uint8_t[]){ 255, 255, 255, 255, 255, 255 } : (uint8_t[]){ 8, 0, 0x27, 0, 0, (uint8_t)to },
		6);
	memcpy(f + 6, (uint8_t[]){ 8, 0, 0x27, 0, 0, (uint8_t)from }, 6);
	memcpy(f + 12, "\x08\x00", 2);
}

static void
report(const char *name, uint64_t n, size_t len, double took)
{
	printf("%-44s %12.0f frames/s %8.2f Gbit/s %8.1f ns\n", name, (double)n / took,
		(double)n * (double)len * 8 / took / 1e9, took / (double)n * 1e9);
}

/* The decision alone: the frame stays where it is. */
static void
core_alone(const char *name, int ports, size_t len)
{
	uint64_t n = 0;
	double begin, took;

	open_ports(ports, to_nowhere);
	for (int i = 0; i < ports; i++)
		make_frame(i, (i + 1) % ports, len);
	begin = now();
	do {
		for (int i = 0; i < 1000; i++, n++)
			sw_input(core, ends[n % (unsigned)ports].port, frames[n % (unsigned)ports] + SW_HEADROOM, len,
				0, 1);
		took = now() - begin;
	} while (took < seconds);
	report(name, n, len, took);
	close_ports(ports, false);
}

/* One batch of machine `from`: its own puts, the switch's work, and what the receivers take out. */
static uint64_t
one_batch(int from, size_t len, int ports)
{
	static uint8_t buf[SW_HEADROOM + NET_FRAME_MAX];
	struct end *e = &ends[from];
	uint64_t out = 0;
	unsigned mss;
	int n;

	for (int i = 0; i < BATCH; i++)
		ring_put(&e->vm.out, frames[from] + SW_HEADROOM, len, 0);
	ring_publish(&e->vm.out);
	while ((n = ring_get(&e->sw.in, buf + SW_HEADROOM, NET_FRAME_MAX, &mss)) > 0)
		sw_try(core, e->port, buf + SW_HEADROOM, (size_t)n, mss, 1);
	ring_release(&e->sw.in);
	for (int i = 0; i < ports; i++) {
		if (!ends[i].dirty)
			continue;
		ends[i].dirty = false;
		ring_publish(&ends[i].sw.out);
		while ((n = ring_get(&ends[i].vm.in, buf, NET_FRAME_MAX, &mss)) > 0)
			out++;
		ring_release(&ends[i].vm.in);
	}
	return out;
}

static void
ring_to_ring(const char *name, int ports, size_t len, bool broadcast)
{
	uint64_t n = 0, put = 0;
	double begin, took;
	int from = 0;

	open_ports(ports, to_ring);
	for (int i = 0; i < ports; i++)
		make_frame(i, broadcast ? -1 : (i + 1) % ports, len);
	begin = now();
	do {
		n += one_batch(from, len, ports);
		put += BATCH * (broadcast ? (unsigned)ports - 1 : 1);
		from = (from + 1) % ports;
		took = now() - begin;
	} while (took < seconds);
	report(name, n, len, took);
	if (n != put) {
		printf("%llu frames were lost\n", (unsigned long long)(put - n));
		exit(1);
	}
	close_ports(ports, true);
}

int
main(int argc, char **argv)
{
	if (argc > 1)
		seconds = strtod(argv[1], NULL);
	core_alone("core, 64 bytes, 2 ports", 2, 64);
	core_alone("core, 64 bytes, 100 ports", PORTS, 64);
	ring_to_ring("ring to ring, 64 bytes, 2 ports", 2, 64, false);
	ring_to_ring("ring to ring, 64 bytes, 100 ports", PORTS, 64, false);
	ring_to_ring("ring to ring, 1500 bytes, 2 ports", 2, 1500, false);
	ring_to_ring("ring to ring, 1500 bytes, 100 ports", PORTS, 1500, false);
	ring_to_ring("broadcast, 64 bytes, 100 ports (copies)", PORTS, 64, true);
	return 0;
}
