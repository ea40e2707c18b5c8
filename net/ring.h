/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A wire made of shared memory: two rings of frames, one each way, between a machine and its switch.
 *
 *	memfd of WIRE_BYTES     struct wire_shared: [0] machine to switch, [1] switch to machine
 *	two eventfds            one bell a side; rung only when that side has said that it waits
 *
 * A ring has one producer and one consumer. Positions count bytes and never wrap to zero but with their 32 bits; a
 * record is 4 bytes (bits 0 to 16: length, 17 to 31: MSS of a large frame, net/net.h, else 0) and the frame, padded to
 * 8 bytes, never split: 4 bytes of RING_SKIP say "go on at the start". Large frames go only where the consumer has said
 * that it takes them. A producer that finds the ring empty goes back to the start too, so that a ring whose consumer keeps up lives
 * in a few pages, and in the cache. Nothing is allocated, and no system call made, per frame.
 *
 * The two sides do not trust each other: positions are looked at once and checked, lengths are copied and checked,
 * frames are copied out before anyone looks at them. A side that breaks the rules is told apart (ring_get() returns
 * -1) and unplugged. Each side is used by one thread at a time.
 */
#ifndef NET_RING_H
#define NET_RING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

#define RING_BYTES (512u << 10) /* a power of two */
#define RING_SKIP UINT32_MAX
#define RING_MSS_MAX 0x7ffeu

struct ring_shared {
	_Atomic uint32_t tail; /* the producer's; on cache lines of their own */
	_Atomic uint32_t want_room;
	uint8_t pad0[56];
	_Atomic uint32_t head; /* the consumer's */
	_Atomic uint32_t want_data;
	_Atomic uint32_t large; /* the consumer takes large frames */
	uint8_t pad1[52];
	uint8_t bytes[RING_BYTES];
};

struct wire_shared {
	struct ring_shared ring[2];
};
#define WIRE_BYTES sizeof(struct wire_shared)

/* One end of one ring. */
struct ring {
	struct ring_shared *s;
	uint32_t at;	 /* our own position: tail of a producer, head of a consumer */
	uint32_t other;	 /* the other's, as last seen */
	uint32_t before; /* a consumer's, before the last ring_get() */
	bool published;	 /* nothing was put since */
};

/* ---- producing ---- */

/* Add a frame; false when there is no room. It is seen by the other side after ring_publish(). */
bool ring_put(struct ring *r, const uint8_t *frame, size_t len, unsigned mss);
/* May `mss` be other than 0? */
bool ring_large(const struct ring *r);
/* Show what was put. True: the other side waits, ring its bell. */
bool ring_publish(struct ring *r);
/* Bytes that are free now, records' heads and all. */
uint32_t ring_room(struct ring *r);
/* Ask for the bell when there is room. True: there is some already. */
bool ring_await_room(struct ring *r);

/* ---- consuming ---- */

/* Copy the oldest frame to `buf` and go on to the next. Its length; 0: there is none; -1: the other side broke a rule.
 * Nothing is known of a large frame but that it says so. */
int ring_get(struct ring *r, uint8_t *buf, size_t size, unsigned *mss);
/* Say whether large frames may come; some may be under way when it changes. */
void ring_take_large(struct ring *r, bool on);
/* The last one again, next time. */
void ring_unget(struct ring *r);
/* Give the room of what was taken back. True: the other side waits for it, ring its bell. */
bool ring_release(struct ring *r);
/* About to sleep: ask for the bell. True: something has come already, do not sleep. */
bool ring_await_data(struct ring *r);
/* Awake: no bell needed. */
void ring_awake(struct ring *r);

/* ---- both rings and their bells ---- */

struct wire {
	struct wire_shared *shared; /* NULL: not there */
	struct ring out, in;
	int bell_in, bell_out; /* ours to wait on, theirs to ring */
};

/* The switch's side: new memory and bells. fds: memory, the machine's bell, the switch's bell, to be sent along. */
int wire_create(struct wire *w, int fds[3], struct err *e);
/* The machine's side, from these descriptors, which it takes over, also when it fails. */
int wire_open(struct wire *w, const int fds[3], struct err *e);
void wire_close(struct wire *w);
void wire_ring(const struct wire *w); /* the other's bell */
void wire_hush(const struct wire *w); /* our own */

#endif
