/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Split virtqueues (2.6), with indirect descriptors (2.6.5.3) and event indices (2.6.7, 2.6.8).
 *
 *	descriptor table, 16 bytes an entry	available ring			used ring
 *	 0 u64 address				 0 u16 flags			 0 u16 flags
 *	 8 u32 length				 2 u16 idx			 2 u16 idx
 *	12 u16 flags				 4 u16 ring[num]		 4 { u32 id, u32 len }[num]
 *	14 u16 next				 4 + 2 num u16 used_event	 4 + 8 num u16 avail_event
 *
 * Theory of operation. The three parts are mapped anew for every operation: a few comparisons, and no pointer outlives
 * the memory layout it was made for. Everything the driver wrote is read once, into locals. A chain is walked for at
 * most VIRTQ_IOV_MAX pieces, so a loop ends there. Buffers become host pointers here, in one place (map_buffer()).
 *
 * The driver runs on other threads: its index is read with acquire, ours is written with release, and between "I saw
 * nothing" and "tell me when there is something" (and the mirror image on the used side) stands a full fence.
 */
#include <string.h>

#include "base/bytes.h"
#include "dev/virtio/virtio.h"

struct desc {
	uint64_t addr;
	uint32_t len;
	uint16_t flags, next;
};

static struct mem *
mem_of(struct virtio *v)
{
	return &v->pci.dev.m->mem;
}

static bool
usable(const struct virtio *v, const struct virtq *q)
{
	return q->enabled && q->num && virtio_running(v);
}

static uint8_t *
map_avail(struct virtio *v, const struct virtq *q)
{
	return q->avail & 1 ? NULL : mem_map(mem_of(v), q->avail, 6 + 2u * q->num, false);
}

static uint8_t *
map_used(struct virtio *v, const struct virtq *q)
{
	return q->used & 3 ? NULL : mem_map(mem_of(v), q->used, 6 + 8u * q->num, true);
}

static uint16_t
load16(const uint8_t *p, int order)
{
	return order == __ATOMIC_ACQUIRE ? __atomic_load_n((const uint16_t *)p, __ATOMIC_ACQUIRE)
					 : __atomic_load_n((const uint16_t *)p, __ATOMIC_RELAXED);
}

/* ---- taking chains ---- */

/* The buffer [gpa, gpa+len) as pieces of host memory appended to `c`. */
static bool
map_buffer(struct virtio *v, struct virtq_chain *c, gpa_t gpa, uint32_t len, bool write)
{
	while (len) {
		struct mem_section s;
		unsigned n = c->out + c->in;
		uint32_t k;

		if (n == VIRTQ_IOV_MAX || !mem_find(mem_of(v), gpa, &s) || s.kind == MEM_MMIO ||
			(write && s.kind != MEM_RAM))
			return false;
		k = (uint32_t)MIN(len, s.last - gpa + 1);
		c->iov[n] = (struct iovec){ s.ram->host + s.ram_offset + (gpa - s.start), k };
		c->gpa[n] = gpa;
		if (write)
			c->in++;
		else
			c->out++;
		gpa += k;
		len -= k;
	}
	return true;
}

static bool
add_buffer(struct virtio *v, struct virtq_chain *c, const struct desc *d)
{
	bool write = d->flags & VRING_DESC_F_WRITE;
	uint32_t *total = write ? &c->in_len : &c->out_len;

	/* 2.6.4.2: what the device reads comes first */
	if ((!write && c->in) || d->len > UINT32_MAX - *total)
		return false;
	*total += d->len;
	return map_buffer(v, c, d->addr, d->len, write);
}

/* Walk `count` descriptors at `table`, from index `i`. Returns what is wrong, or NULL. */
static const char *
walk(struct virtio *v, struct virtq_chain *c, const uint8_t *table, unsigned count, unsigned i, bool indirect)
{
	for (unsigned steps = 0;; steps++) {
		struct desc d;

		if (i >= count)
			return "a descriptor index is out of range";
		if (steps >= count)
			return "a chain of descriptors has a loop";
		memcpy(&d, table + 16 * (size_t)i, sizeof(d));
		if (d.flags & VRING_DESC_F_INDIRECT) {
			uint8_t *inner;

			/* 2.6.5.3.1: not in an indirect table, not with NEXT, and only if negotiated */
			if (indirect || (d.flags & VRING_DESC_F_NEXT) || !virtio_has(v, VIRTIO_RING_F_INDIRECT_DESC) ||
				d.len % 16 || !d.len)
				return "an indirect descriptor is invalid";
			inner = mem_map(mem_of(v), d.addr, d.len, false);
			return inner ? walk(v, c, inner, d.len / 16, 0, true) : "an indirect table is not in memory";
		}
		if (!add_buffer(v, c, &d))
			return "a buffer is not in memory, out of order, or there are too many";
		if (!(d.flags & VRING_DESC_F_NEXT))
			return NULL;
		i = d.next;
	}
}

/* Chains waiting; negative: the ring is broken. */
static int
waiting(struct virtio *v, int queue, const uint8_t *avail)
{
	struct virtq *q = &v->vq[queue];
	uint16_t n = (uint16_t)(load16(avail + 2, __ATOMIC_ACQUIRE) - q->last_avail);

	if (n <= q->num)
		return n;
	virtio_broken(v, queue, "the available index jumped");
	return -1;
}

/* Nothing is there: ask to be notified of the next chain, and look again. */
static int
wait_next(struct virtio *v, int queue, const uint8_t *avail)
{
	struct virtq *q = &v->vq[queue];
	uint8_t *used;

	if (!virtio_has(v, VIRTIO_RING_F_EVENT_IDX))
		return 0; /* used->flags stays 0: the driver always notifies */
	used = map_used(v, q);
	if (!used) {
		virtio_broken(v, queue, "the used ring is not in memory");
		return -1;
	}
	__atomic_store_n((uint16_t *)(used + 4 + 8u * q->num), q->last_avail, __ATOMIC_RELAXED);
	mem_written(mem_of(v), q->used + 4 + 8u * q->num, 2);
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	return waiting(v, queue, avail);
}

bool
virtq_ready(struct virtio *v, int queue)
{
	struct virtq *q = &v->vq[queue];
	uint8_t *avail = usable(v, q) ? map_avail(v, q) : NULL;

	return avail && waiting(v, queue, avail) > 0;
}

bool
virtq_pop(struct virtio *v, int queue, struct virtq_chain *c)
{
	struct virtq *q = &v->vq[queue];
	uint8_t *avail, *table;
	const char *wrong;
	int n;

	if (!usable(v, q))
		return false;
	avail = map_avail(v, q);
	table = q->desc & 15 ? NULL : mem_map(mem_of(v), q->desc, 16u * q->num, false);
	if (!avail || !table) {
		virtio_broken(v, queue, "its rings are not in memory");
		return false;
	}
	n = waiting(v, queue, avail);
	if (!n)
		n = wait_next(v, queue, avail);
	if (n <= 0)
		return false;
	c->head = load16(avail + 4 + 2 * (q->last_avail % q->num), __ATOMIC_RELAXED);
	c->out = c->in = 0;
	c->out_len = c->in_len = 0;
	wrong = walk(v, c, table, q->num, c->head, false);
	if (wrong) {
		virtio_broken(v, queue, wrong);
		return false;
	}
	q->last_avail++;
	return true;
}

void
virtq_unpop(struct virtio *v, int queue, unsigned n)
{
	v->vq[queue].last_avail = (uint16_t)(v->vq[queue].last_avail - n);
}

/* ---- giving them back ---- */

/* Tell the memory which parts of the writable pieces have changed. */
static void
note_written(struct virtio *v, const struct virtq_chain *c, uint32_t written)
{
	for (unsigned i = c->out; i < c->out + c->in && written; i++) {
		uint32_t n = (uint32_t)MIN(written, c->iov[i].iov_len);

		mem_written(mem_of(v), c->gpa[i], n);
		written -= n;
	}
}

void
virtq_fill(struct virtio *v, int queue, const struct virtq_chain *c, uint32_t written, unsigned ahead)
{
	struct virtq *q = &v->vq[queue];
	uint8_t *used;
	unsigned at;

	note_written(v, c, written);
	if (!usable(v, q))
		return;
	used = map_used(v, q);
	if (!used) {
		virtio_broken(v, queue, "the used ring is not in memory");
		return;
	}
	at = 4 + 8 * ((unsigned)(q->used_idx + ahead) % q->num);
	put_le32(used + at, c->head);
	put_le32(used + at + 4, written);
	mem_written(mem_of(v), q->used + at, 8);
}

void
virtq_publish(struct virtio *v, int queue, unsigned n)
{
	struct virtq *q = &v->vq[queue];
	uint8_t *used = usable(v, q) ? map_used(v, q) : NULL;

	if (!used)
		return;
	q->used_idx = (uint16_t)(q->used_idx + n);
	if ((uint16_t)(q->used_idx - q->signalled) > q->num)
		q->signalled_valid = 0; /* so far ahead that the comparison below has no meaning any more */
	__atomic_store_n((uint16_t *)(used + 2), q->used_idx, __ATOMIC_RELEASE);
	mem_written(mem_of(v), q->used + 2, 2);
}

void
virtq_push(struct virtio *v, int queue, const struct virtq_chain *c, uint32_t written)
{
	virtq_fill(v, queue, c, written, 0);
	virtq_publish(v, queue, 1);
}

/* 2.6.7.1: did `to` pass `event` since `from`? */
static bool
passed(uint16_t event, uint16_t to, uint16_t from)
{
	return (uint16_t)(to - event - 1) < (uint16_t)(to - from);
}

void
virtq_notify(struct virtio *v, int queue)
{
	struct virtq *q = &v->vq[queue];
	uint8_t *avail = usable(v, q) ? map_avail(v, q) : NULL;
	bool wanted;

	if (!avail)
		return;
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	if (virtio_has(v, VIRTIO_RING_F_EVENT_IDX))
		wanted = !q->signalled_valid ||
			 passed(load16(avail + 4 + 2u * q->num, __ATOMIC_RELAXED), q->used_idx, q->signalled);
	else
		wanted = !(load16(avail, __ATOMIC_RELAXED) & VRING_AVAIL_F_NO_INTERRUPT);
	q->signalled = q->used_idx;
	q->signalled_valid = 1;
	if (wanted)
		virtio_queue_interrupt(v, queue);
}

/* ---- copies ---- */

static uint32_t
copy(const struct iovec *iov, unsigned count, uint32_t off, uint8_t *buf, uint32_t n, bool to_chain)
{
	uint32_t done = 0;

	for (unsigned i = 0; i < count && done < n; i++) {
		uint32_t len = (uint32_t)iov[i].iov_len, k;

		if (off >= len) {
			off -= len;
			continue;
		}
		k = MIN(n - done, len - off);
		if (to_chain)
			memcpy((uint8_t *)iov[i].iov_base + off, buf + done, k);
		else
			memcpy(buf + done, (uint8_t *)iov[i].iov_base + off, k);
		done += k;
		off = 0;
	}
	return done;
}

uint32_t
virtq_read(const struct virtq_chain *c, uint32_t off, void *buf, uint32_t n)
{
	return copy(c->iov, c->out, off, buf, n, false);
}

uint32_t
virtq_write(struct virtq_chain *c, uint32_t off, const void *buf, uint32_t n)
{
	return copy(c->iov + c->out, c->in, off, (uint8_t *)(uintptr_t)buf, n, true);
}
