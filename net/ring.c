/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Shared-memory rings; ring.h says how they work and what is trusted.
 *
 * Sleeping: who is about to wait stores its wish, then (after a full fence) looks again; who has published looks at the
 * wish after a full fence. One of the two sees the other, so no wake-up is lost.
 */
#include "net/ring.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/str.h"
#include "net/net.h"

#define MASK (RING_BYTES - 1)
#define LEN_BITS 17
/*
 * Farther than that from the start an empty ring begins anew. What is skipped counts as used until the consumer comes
 * by, so that the ring then holds as much as lies before the skip: not less than this.
 */
#define HOT_BYTES (RING_BYTES / 2)

static uint32_t
record_size(uint32_t len)
{
	return (4 + len + 7) & ~7u;
}

static uint32_t
used(const struct ring *r, bool producer)
{
	return producer ? r->at - r->other : r->other - r->at;
}

bool
ring_put(struct ring *r, const uint8_t *frame, size_t len, unsigned mss)
{
	uint32_t size = record_size((uint32_t)len), off = r->at & MASK, skip = RING_SKIP;
	uint32_t head = (uint32_t)len | mss << LEN_BITS;
	uint32_t gap = size > RING_BYTES - off ? RING_BYTES - off : 0;

	if (len > NET_FRAME_MAX || mss > RING_MSS_MAX)
		return false;
	if (r->published && off > HOT_BYTES) {
		r->other = atomic_load_explicit(&r->s->head, memory_order_acquire);
		if (r->other == r->at)
			gap = RING_BYTES - off;
	}
	r->published = false;
	if (used(r, true) > RING_BYTES || gap + size > RING_BYTES - used(r, true)) {
		r->other = atomic_load_explicit(&r->s->head, memory_order_acquire);
		if (used(r, true) > RING_BYTES || gap + size > RING_BYTES - used(r, true))
			return false;
	}
	if (gap) { /* positions are multiples of 8, so there is room for the mark */
		memcpy(r->s->bytes + off, &skip, 4);
		r->at += gap;
		off = 0;
	}
	memcpy(r->s->bytes + off, &head, 4);
	memcpy(r->s->bytes + off + 4, frame, len);
	r->at += size;
	return true;
}

bool
ring_publish(struct ring *r)
{
	r->published = true;
	atomic_store_explicit(&r->s->tail, r->at, memory_order_release);
	atomic_thread_fence(memory_order_seq_cst);
	if (!atomic_load_explicit(&r->s->want_data, memory_order_relaxed))
		return false;
	return atomic_exchange_explicit(&r->s->want_data, 0, memory_order_relaxed) != 0;
}

bool
ring_large(const struct ring *r)
{
	return atomic_load_explicit(&r->s->large, memory_order_relaxed) != 0;
}

void
ring_take_large(struct ring *r, bool on)
{
	if (ring_large(r) != on)
		atomic_store_explicit(&r->s->large, on, memory_order_relaxed);
}

uint32_t
ring_room(struct ring *r)
{
	r->other = atomic_load_explicit(&r->s->head, memory_order_acquire);
	return used(r, true) > RING_BYTES ? 0 : RING_BYTES - used(r, true);
}

bool
ring_await_room(struct ring *r)
{
	atomic_store_explicit(&r->s->want_room, 1, memory_order_relaxed);
	atomic_thread_fence(memory_order_seq_cst);
	r->other = atomic_load_explicit(&r->s->head, memory_order_acquire);
	return used(r, true) <= RING_BYTES / 2;
}

static bool
refill(struct ring *r)
{
	r->other = atomic_load_explicit(&r->s->tail, memory_order_acquire);
	return r->other != r->at;
}

int
ring_get(struct ring *r, uint8_t *buf, size_t size, unsigned *mss)
{
	uint32_t off, head, len, left;

	r->before = r->at;
	for (;;) {
		if (r->other == r->at && !refill(r))
			return 0;
		left = used(r, false);
		off = r->at & MASK;
		if (left > RING_BYTES || left < 8 || (r->at & 7) || (left & 7))
			return -1;
		memcpy(&head, r->s->bytes + off, 4);
		if (head != RING_SKIP)
			break;
		if (!off || RING_BYTES - off > left)
			return -1;
		r->at += RING_BYTES - off;
	}
	len = head & ((1u << LEN_BITS) - 1);
	*mss = head >> LEN_BITS;
	if (!len || len > size || len > NET_FRAME_MAX || record_size(len) > left || record_size(len) > RING_BYTES - off)
		return -1;
	memcpy(buf, r->s->bytes + off + 4, len);
	r->at += record_size(len);
	return (int)len;
}

void
ring_unget(struct ring *r)
{
	r->at = r->before;
}

bool
ring_release(struct ring *r)
{
	atomic_store_explicit(&r->s->head, r->at, memory_order_release);
	atomic_thread_fence(memory_order_seq_cst);
	if (!atomic_load_explicit(&r->s->want_room, memory_order_relaxed))
		return false;
	return atomic_exchange_explicit(&r->s->want_room, 0, memory_order_relaxed) != 0;
}

bool
ring_await_data(struct ring *r)
{
	atomic_store_explicit(&r->s->want_data, 1, memory_order_relaxed);
	atomic_thread_fence(memory_order_seq_cst);
	return refill(r);
}

void
ring_awake(struct ring *r)
{
	if (atomic_load_explicit(&r->s->want_data, memory_order_relaxed))
		atomic_store_explicit(&r->s->want_data, 0, memory_order_relaxed);
}

/* ---- the wire ---- */

static int
wire_map(struct wire *w, int memory, bool machine, struct err *e)
{
	void *p = mmap(NULL, WIRE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, memory, 0);

	if (p == MAP_FAILED)
		return err_sys(e, ERR_HOST, errno, "Cannot map the memory of a network wire");
	w->shared = p;
	w->out.s = &w->shared->ring[machine ? 0 : 1];
	w->in.s = &w->shared->ring[machine ? 1 : 0];
	return 0;
}

int
wire_create(struct wire *w, int fds[3], struct err *e)
{
	*w = (struct wire){ .bell_in = -1, .bell_out = -1 };
	fds[0] = memfd_create("lodge-wire", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	fds[1] = w->bell_out = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	fds[2] = w->bell_in = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	/* Sealed: the machine cannot shrink it under the switch, which would be a SIGBUS there. */
	if (fds[0] < 0 || fds[1] < 0 || fds[2] < 0 || ftruncate(fds[0], WIRE_BYTES) ||
		fcntl(fds[0], F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL))
		err_sys(e, ERR_HOST, errno, "Cannot make the memory of a network wire");
	else if (!wire_map(w, fds[0], false, e))
		return 0;
	if (fds[0] >= 0)
		close(fds[0]);
	wire_close(w);
	return -1;
}

int
wire_open(struct wire *w, const int fds[3], struct err *e)
{
	struct stat st;
	int seals = fcntl(fds[0], F_GET_SEALS), r;

	*w = (struct wire){ .bell_in = fds[1], .bell_out = fds[2] };
	if (fstat(fds[0], &st) || st.st_size != (off_t)WIRE_BYTES || seals < 0 || !(seals & F_SEAL_SHRINK))
		r = err_set(e, ERR_FAILED, "The switch of the network is of another version: end it (lodge net stop)");
	else
		r = wire_map(w, fds[0], true, e);
	close(fds[0]);
	if (r)
		wire_close(w);
	return r;
}

void
wire_close(struct wire *w)
{
	if (w->shared)
		munmap(w->shared, WIRE_BYTES);
	w->shared = NULL;
	if (w->bell_in >= 0)
		close(w->bell_in);
	if (w->bell_out >= 0)
		close(w->bell_out);
	w->bell_in = w->bell_out = -1;
}

void
wire_ring(const struct wire *w)
{
	uint64_t one = 1;
	ssize_t n = write(w->bell_out, &one, sizeof(one));

	(void)n; /* full means that it rings already */
}

void
wire_hush(const struct wire *w)
{
	uint64_t rung;
	ssize_t n = read(w->bell_in, &rung, sizeof(rung));

	(void)n;
}
