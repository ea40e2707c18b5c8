/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An NVM Express controller with up to 64 namespaces. (NVM Express base specification 1.4; figures and sections below
 * are its.)
 *
 *	BAR 0   0x00 CAP, 0x08 VS, 0x0c INTMS, 0x10 INTMC, 0x14 CC, 0x1c CSTS, 0x24 AQA, 0x28 ASQ, 0x30 ACQ
 *	        0x1000 + 8 * queue: tail of the submission queue, + 4: head of the completion queue
 *	BAR 4   MSI-X table and PBA: a vector for the admin queue and one for each queue of I/O
 *
 *	submission entry, 64 bytes: 0 opcode, 1 flags, 2 command identifier, 4 namespace, 24 PRP 1, 32 PRP 2,
 *	                            40 CDW10-15
 *	completion entry, 16 bytes: 0 result, 8 head of the submission queue, 10 its number, 12 identifier,
 *	                            14 phase and status
 *
 * Theory of operation. A doorbell makes fetch() take commands from a submission queue, each into a request of its own
 * from a list kept for reuse; at most IN_FLIGHT of a queue are under way at a time, and none is taken for whose
 * completion there is no room yet, so a guest cannot make the host hold more and a completion never has to wait. Data
 * of reads and writes moves between the image and guest memory without a copy: the pages of the PRP list become the
 * block layer's iovec. Data structures of admin commands are made in a buffer and copied along the list.
 *
 * Namespaces: port n is namespace n + 1. One that comes or goes while the machine runs is told by an asynchronous event
 * and listed in the log page of changed namespaces (5.14.1.4).
 *
 * Life of the controller (CC.EN, CSTS.RDY):
 *
 *	OFF       EN 0, RDY 0         EN = 1 with queues that make sense: READY; else FAILED
 *	READY     EN 1, RDY 1         EN = 0: what is in flight is waited for, queues are forgotten: OFF
 *	          CC.SHN              every namespace is flushed, then CSTS.SHST says "complete"; still READY
 *	FAILED    CSTS.CFS            a queue is not in memory any more; nothing is taken until EN = 0
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/log.h"
#include "base/str.h"
#include "block/block.h"
#include "dev/dev.h"

#define QUEUES 17 /* the admin queue and 16 for I/O */
#define QUEUE_ENTRIES 1024u
#define IN_FLIGHT 256 /* of one submission queue */
#define SECTOR 512u
#define MDTS 7 /* 512 KiB in a command: 129 pages, which an iovec holds */
#define TRANSFER_MAX (4096u << MDTS)
#define EVENTS_MAX 4
#define RANGES_MAX 256
#define DISCARD_MAX (1u << 22) /* blocks in one request to the image */

/* Registers (3.1) */
enum { CAP = 0x00, VS = 0x08, INTMS = 0x0c, INTMC = 0x10, CC = 0x14, CSTS = 0x1c, AQA = 0x24, ASQ = 0x28, ACQ = 0x30 };
enum { DOORBELLS = 0x1000, BAR_SIZE = 0x2000, MSIX_BAR = 4 };
enum { CC_EN = 1, CC_SHN = 3 << 14, CSTS_RDY = 1, CSTS_CFS = 2, CSTS_SHST = 3 << 2, CSTS_SHUT = 2 << 2 };
/* NVM command set, 10 s to become ready, queues contiguous, 1024 entries, pages of 4 KiB */
#define CAPABILITIES (1ull << 37 | 20ull << 24 | 1ull << 16 | (QUEUE_ENTRIES - 1))
#define VERSION 0x00010400u

/* Status codes (figures 128 - 131): type << 8 | code; what the guest need not try again carries DNR */
enum {
	OK = 0x000,
	BAD_OPCODE = 0x001,
	BAD_FIELD = 0x002,
	DATA_ERROR = 0x004,
	ABORTED = 0x007,
	BAD_NAMESPACE = 0x00b,
	BAD_PRP = 0x013,
	OUT_OF_RANGE = 0x080,
	CAPACITY_EXCEEDED = 0x081,
	BAD_CQ = 0x100,
	BAD_QUEUE = 0x101,
	BAD_SIZE = 0x102,
	TOO_MANY_EVENTS = 0x105,
	BAD_VECTOR = 0x108,
	BAD_LOG = 0x109,
	BAD_QUEUE_DELETION = 0x10c,
	NOT_SAVEABLE = 0x10d,
	NOT_CHANGEABLE = 0x10e,
	READ_ONLY = 0x182,
	WRITE_FAULT = 0x280,
	READ_FAULT = 0x281,
	DNR = 0x4000,
	NO_COMPLETION = 0xffff, /* not a status: the command is under way, or is never completed */
};

/* Saved as bytes. */
struct sq {
	uint64_t base;
	uint32_t entries; /* 0: no such queue */
	uint32_t head, tail;
	uint32_t cq;
	/* not saved: 0 once drained, and derived */
	uint32_t in_flight, fetching;
};

struct cq {
	uint64_t base;
	uint32_t entries;
	uint32_t head, tail;
	uint16_t vector;
	uint8_t phase, interrupts;
	uint32_t busy; /* commands under way that will be completed here; not saved: 0 once drained */
};

struct nvme_ns {
	struct block *block; /* NULL: there is none */
	uint64_t blocks;
	struct uuid uuid;
	bool discard, read_only;
};

struct request {
	struct nvme *d;
	struct request *next; /* idle */
	uint32_t queue;
	uint8_t sqe[64];
	uint32_t result;
	uint16_t status;
	struct nvme_ns *ns;
	/* the request to the image */
	struct block_req io;
	bool to_memory, fua;
	int ranges, range;
	struct iovec iov[BLOCK_IOV_MAX];
	gpa_t at[BLOCK_IOV_MAX];
	uint8_t *list; /* of a dataset management command: `ranges` of 16 bytes; `range` is the next */
	uint64_t off, left;
};

struct nvme {
	struct pci_dev pci;
	int ports;
	char serial[21];
	struct nvme_ns ns[NVME_NAMESPACES];
	struct request *idle;
	unsigned flushing; /* namespaces that a shutdown still flushes */

	uint32_t cc, csts, aqa, intms;
	uint64_t asq, acq;
	struct sq sq[QUEUES];
	struct cq cq[QUEUES];
	uint32_t event_config;
	uint16_t event_cid[EVENTS_MAX];
	uint8_t events; /* requests for an event that wait */
	uint8_t event_due, event_masked;
	uint8_t write_cache;
	uint8_t changed[NVME_NAMESPACES]; /* since the log page was read */
	uint16_t temperature_high, temperature_low;
	uint32_t arbitration, error_recovery, coalescing, atomicity;
};

static const struct field nvme_fields[] = {
	FIELD(struct nvme, cc),
	FIELD(struct nvme, csts),
	FIELD(struct nvme, aqa),
	FIELD(struct nvme, intms),
	FIELD(struct nvme, asq),
	FIELD(struct nvme, acq),
	FIELD_ARRAY(struct nvme, sq),
	FIELD_ARRAY(struct nvme, cq),
	FIELD(struct nvme, event_config),
	FIELD_ARRAY(struct nvme, event_cid),
	FIELD(struct nvme, events),
	FIELD(struct nvme, event_due),
	FIELD(struct nvme, event_masked),
	FIELD(struct nvme, write_cache),
	FIELD_ARRAY(struct nvme, changed),
	FIELD(struct nvme, temperature_high),
	FIELD(struct nvme, temperature_low),
	FIELD(struct nvme, arbitration),
	FIELD(struct nvme, error_recovery),
	FIELD(struct nvme, coalescing),
	FIELD(struct nvme, atomicity),
	FIELD_END,
};

static struct mem *
memory(struct nvme *d)
{
	return &d->pci.dev.m->mem;
}

static uint32_t
cdw(const struct request *r, int n)
{
	return le32(r->sqe + 4 * n);
}

/* ---- interrupts (7.5) ---- */

/* The line is up while a completion queue with interrupts has entries that the guest has not taken. */
static void
update_line(struct nvme *d)
{
	int level = 0;

	for (int i = 0; i < QUEUES; i++)
		if (d->cq[i].entries && d->cq[i].interrupts && d->cq[i].head != d->cq[i].tail &&
			!(d->intms >> (d->cq[i].vector & 31) & 1))
			level = 1;
	pci_intx(&d->pci, level);
}

static void
interrupt(struct nvme *d, const struct cq *q)
{
	if (!q->interrupts)
		return;
	if (pci_msix_enabled(&d->pci))
		pci_msix(&d->pci, q->vector);
	else
		update_line(d);
}

static void
fail_controller(struct nvme *d, const char *what)
{
	if (!(d->csts & CSTS_CFS))
		log_guest(d->pci.dev.name, "%s; the controller needs a reset", what);
	d->csts |= CSTS_CFS;
}

static bool
running(const struct nvme *d)
{
	return (d->csts & (CSTS_RDY | CSTS_CFS)) == CSTS_RDY && pci_bus_master(&d->pci);
}

/* ---- completions ---- */

static struct request *
request_get(struct nvme *d)
{
	struct request *r = d->idle;

	if (r) {
		d->idle = r->next;
		return r;
	}
	r = xcalloc(1, sizeof(*r));
	r->d = d;
	return r;
}

static void
release(struct request *r)
{
	free(r->list);
	r->list = NULL;
	r->next = r->d->idle;
	r->d->idle = r;
}

/* Is there room for the completion of one more command, besides those under way? */
static bool
cq_room(const struct cq *q)
{
	uint32_t used = (q->tail + q->entries - q->head) % q->entries;

	return used + q->busy + 1 < q->entries;
}

static void
post(struct request *r)
{
	struct nvme *d = r->d;
	struct sq *sq = &d->sq[r->queue];
	struct cq *q = &d->cq[sq->cq];
	uint8_t e[16] = { 0 };

	put_le32(e, r->result);
	put_le16(e + 8, (uint16_t)sq->head);
	put_le16(e + 10, (uint16_t)r->queue);
	memcpy(e + 12, r->sqe + 2, 2);
	put_le16(e + 14, (uint16_t)(r->status << 1 | q->phase));
	if (!mem_write(memory(d), q->base + q->tail * 16ull, e, sizeof(e)))
		fail_controller(d, "a completion queue is not in memory");
	q->tail = (q->tail + 1) % q->entries;
	if (!q->tail)
		q->phase ^= 1;
	interrupt(d, q);
}

static void fetch(struct nvme *d, uint32_t n);

static void
begin(struct nvme *d, struct request *r, uint32_t queue)
{
	r->queue = queue;
	r->result = 0;
	r->ranges = 0;
	d->sq[queue].in_flight++;
	d->cq[d->sq[queue].cq].busy++;
}

static void
end(struct request *r)
{
	struct nvme *d = r->d;

	d->sq[r->queue].in_flight--;
	d->cq[d->sq[r->queue].cq].busy--;
	release(r);
}

/* The command is over. */
static void
complete(struct request *r, uint16_t status)
{
	struct nvme *d = r->d;
	uint32_t queue = r->queue;

	r->status = status;
	if (running(d)) /* otherwise the controller is being reset, or has failed: nobody hears of it */
		post(r);
	end(r);
	fetch(d, queue);
}

static void send_events(struct nvme *d);

/* The guest has taken entries of queue `cq`: there may be room for the commands that wait. */
static void
room_made(struct nvme *d, uint32_t cq)
{
	for (uint32_t i = 0; i < QUEUES; i++)
		if (d->sq[i].entries && d->sq[i].cq == cq)
			fetch(d, i);
	if (!cq)
		send_events(d);
}

/* ---- asynchronous events (5.2) ---- */

enum { EVENT_NAMESPACE = 1 };
#define EVENT_NAMESPACE_RESULT (0x02u | 0x00u << 8 | 0x04u << 16) /* notice, attribute changed, log page 4 */

static void
send_events(struct nvme *d)
{
	struct request *r;

	if (!(d->event_due & ~d->event_masked) || !d->events || !running(d) || !cq_room(&d->cq[0]))
		return;
	d->event_due &= (uint8_t)~EVENT_NAMESPACE;
	d->event_masked |= EVENT_NAMESPACE; /* until the log page is read */
	r = request_get(d);
	begin(d, r, 0);
	d->events--;
	put_le16(r->sqe + 2, d->event_cid[d->events]);
	r->result = EVENT_NAMESPACE_RESULT;
	complete(r, OK);
}

static void
namespace_changed(struct nvme *d, int n)
{
	d->changed[n] = 1;
	if (!(d->event_config & 1u << 8))
		return;
	d->event_due |= EVENT_NAMESPACE;
	send_events(d);
}

static uint16_t
event_request(struct request *r)
{
	struct nvme *d = r->d;

	if (d->events == EVENTS_MAX)
		return TOO_MANY_EVENTS | DNR;
	d->event_cid[d->events++] = le16(r->sqe + 2);
	end(r);
	send_events(d);
	return NO_COMPLETION;
}

/* ---- data pointers (4.3) ---- */

/* One more piece of at most a page at `at`. False: it is not memory, or there are too many. */
static bool
add_piece(struct request *r, gpa_t at, uint32_t len)
{
	uint8_t *p = mem_map(memory(r->d), at, len, r->to_memory);
	struct iovec *last = r->ranges ? &r->iov[r->ranges - 1] : NULL;

	if (!p)
		return false;
	if (last && (uint8_t *)last->iov_base + last->iov_len == p && r->at[r->ranges - 1] + last->iov_len == at) {
		last->iov_len += len;
		return true;
	}
	if (r->ranges == BLOCK_IOV_MAX)
		return false;
	r->at[r->ranges] = at;
	r->iov[r->ranges++] = (struct iovec){ p, len };
	return true;
}

/* The pages of a PRP list at `at` for `left` bytes. A list goes on in another when its page ends. */
static bool
add_list(struct request *r, gpa_t at, uint32_t left)
{
	while (left) {
		uint8_t e[8];
		uint32_t n = MIN(left, 4096u);
		bool last_of_page = (at & 4095) == 4088;

		if ((at & 7) || !mem_read(memory(r->d), at, e, sizeof(e)))
			return false;
		if (last_of_page && left > 4096) {
			at = le64(e);
			continue;
		}
		if ((le64(e) & 4095) || !add_piece(r, le64(e), n))
			return false;
		left -= n;
		at += 8;
	}
	return true;
}

static void
unmap(struct request *r)
{
	for (int i = 0; i < r->ranges; i++)
		mem_unmap(memory(r->d), r->at[i], r->iov[i].iov_len, r->to_memory);
	r->ranges = 0;
}

/* Both PRPs of the command, for `len` bytes, become r->iov. */
static bool
map(struct request *r, uint32_t len, bool to_memory)
{
	gpa_t one = le64(r->sqe + 24), two = le64(r->sqe + 32);
	uint32_t n = MIN(len, 4096u - (uint32_t)(one & 4095));
	bool ok;

	r->ranges = 0;
	r->to_memory = to_memory;
	ok = len <= TRANSFER_MAX && !(one & 3) && add_piece(r, one, n);
	len -= n;
	if (ok && len > 4096)
		ok = add_list(r, two, len);
	else if (ok && len)
		ok = !(two & 4095) && add_piece(r, two, len);
	if (!ok) {
		for (int i = 0; i < r->ranges; i++)
			mem_unmap(memory(r->d), r->at[i], r->iov[i].iov_len, false);
		r->ranges = 0;
	}
	return ok;
}

/* `len` bytes of a data structure to the host. */
static uint16_t
send(struct request *r, const void *data, uint32_t len)
{
	const uint8_t *p = data;

	if (!map(r, len, true))
		return BAD_PRP | DNR;
	for (int i = 0; i < r->ranges; i++) {
		memcpy(r->iov[i].iov_base, p, r->iov[i].iov_len);
		p += r->iov[i].iov_len;
	}
	unmap(r);
	return OK;
}

static bool
receive(struct request *r, void *data, uint32_t len)
{
	uint8_t *p = data;

	if (!map(r, len, false))
		return false;
	for (int i = 0; i < r->ranges; i++) {
		memcpy(p, r->iov[i].iov_base, r->iov[i].iov_len);
		p += r->iov[i].iov_len;
	}
	unmap(r);
	return true;
}

/* ---- I/O commands (6) ---- */

static uint16_t
io_status(struct request *r, int result)
{
	log_guest(r->d->pci.dev.name, "namespace %d: %s at byte %llu failed: %s", (int)(r->ns - r->d->ns) + 1,
		r->io.op == BLOCK_READ ? "a read" : "a write", (unsigned long long)r->io.off, strerror(-result));
	if (result == -ENOSPC)
		return CAPACITY_EXCEEDED;
	return r->io.op == BLOCK_READ ? READ_FAULT : WRITE_FAULT;
}

static void
submit(struct request *r, enum block_op op, uint64_t off, uint64_t len, void (*done)(struct block_req *io, int result))
{
	r->io = (struct block_req){
		.op = op, .off = off, .len = len, .iov = r->iov, .iovcnt = r->ranges, .done = done
	};
	block_submit(r->ns->block, &r->io);
}

static void
io_done(struct block_req *io, int result)
{
	struct request *r = container_of(io, struct request, io);

	unmap(r);
	if (!result && r->fua) {
		r->fua = false;
		submit(r, BLOCK_FLUSH, 0, 0, io_done);
		return;
	}
	complete(r, result ? io_status(r, result) : OK);
}

static struct nvme_ns *
find_namespace(struct nvme *d, uint32_t nsid)
{
	return nsid && nsid <= (uint32_t)d->ports && d->ns[nsid - 1].block ? &d->ns[nsid - 1] : NULL;
}

static bool
in_range(const struct nvme_ns *ns, uint64_t lba, uint64_t count)
{
	return count <= ns->blocks && lba <= ns->blocks - count;
}

static uint16_t
transfer(struct request *r, bool write)
{
	uint64_t lba = le64(r->sqe + 40);
	uint32_t count = (cdw(r, 12) & 0xffff) + 1;

	if (write && r->ns->read_only)
		return READ_ONLY | DNR;
	if (!in_range(r->ns, lba, count))
		return OUT_OF_RANGE | DNR;
	if (count > TRANSFER_MAX / SECTOR)
		return BAD_FIELD | DNR;
	if (!map(r, count * SECTOR, !write))
		return BAD_PRP | DNR;
	r->fua = write && ((cdw(r, 12) >> 30 & 1) || !r->d->write_cache);
	submit(r, write ? BLOCK_WRITE : BLOCK_READ, lba * SECTOR, 0, io_done);
	return NO_COMPLETION;
}

static uint16_t
write_zeroes(struct request *r)
{
	uint64_t lba = le64(r->sqe + 40);
	uint32_t count = (cdw(r, 12) & 0xffff) + 1;

	if (r->ns->read_only)
		return READ_ONLY | DNR;
	if (!in_range(r->ns, lba, count))
		return OUT_OF_RANGE | DNR;
	r->fua = (cdw(r, 12) >> 30 & 1) || !r->d->write_cache;
	submit(r, BLOCK_WRITE_ZEROES, lba * SECTOR, (uint64_t)count * SECTOR, io_done);
	return NO_COMPLETION;
}

/* Range after range of r->list: attributes (4), blocks (4), first block (8). */
static void
next_range(struct block_req *io, int result)
{
	struct request *r = container_of(io, struct request, io);
	int count = (int)(cdw(r, 10) & 0xff) + 1;
	uint64_t n;

	if (result) {
		complete(r, io_status(r, result));
		return;
	}
	while (!r->left && r->range < count) {
		const uint8_t *e = r->list + 16 * r->range++;

		r->left = le32(e + 4);
		r->off = le64(e + 8);
	}
	if (!r->left) {
		complete(r, OK);
		return;
	}
	n = MIN(r->left, DISCARD_MAX);
	r->left -= n;
	r->off += n;
	submit(r, BLOCK_DISCARD, (r->off - n) * SECTOR, n * SECTOR, next_range);
}

static uint16_t
dataset_management(struct request *r)
{
	uint32_t count = (cdw(r, 10) & 0xff) + 1;

	if (r->ns->read_only)
		return READ_ONLY | DNR;
	r->list = xcalloc(count, 16);
	if (!receive(r, r->list, count * 16))
		return BAD_PRP | DNR;
	for (uint32_t i = 0; i < count; i++)
		if (!in_range(r->ns, le64(r->list + 16 * i + 8), le32(r->list + 16 * i + 4)))
			return OUT_OF_RANGE | DNR;
	if (!(cdw(r, 11) & 4) || !r->ns->discard) /* only deallocating does anything */
		return OK;
	r->range = 0;
	r->left = 0;
	next_range(&r->io, 0);
	return NO_COMPLETION;
}

/* The namespace that all (FFFFFFFFh) begins with: the rest follow one by one. */
static void
flush_next(struct block_req *io, int result)
{
	struct request *r = container_of(io, struct request, io);
	struct nvme *d = r->d;

	if (result) {
		complete(r, io_status(r, result));
		return;
	}
	while (r->range < d->ports && !d->ns[r->range].block)
		r->range++;
	if (r->range == d->ports) {
		complete(r, OK);
		return;
	}
	r->ns = &d->ns[r->range++];
	submit(r, BLOCK_FLUSH, 0, 0, flush_next);
}

static uint16_t
flush(struct request *r)
{
	r->fua = false;
	if (cdw(r, 1) == 0xffffffff) {
		r->range = 0;
		flush_next(&r->io, 0);
	} else {
		submit(r, BLOCK_FLUSH, 0, 0, io_done);
	}
	return NO_COMPLETION;
}

static uint16_t
io_command(struct request *r)
{
	r->ns = find_namespace(r->d, cdw(r, 1));
	if (!r->ns && !(r->sqe[0] == 0x00 && cdw(r, 1) == 0xffffffff))
		return BAD_NAMESPACE | DNR;
	if (r->sqe[1]) /* fused, or an SGL */
		return BAD_FIELD | DNR;
	switch (r->sqe[0]) {
	case 0x00:
		return flush(r);
	case 0x01:
		return transfer(r, true);
	case 0x02:
		return transfer(r, false);
	case 0x08:
		return write_zeroes(r);
	case 0x09:
		return dataset_management(r);
	}
	return BAD_OPCODE | DNR;
}

/* ---- queues (5.3 - 5.6) ---- */

static bool
sq_used(const struct nvme *d, uint32_t n)
{
	return n < QUEUES && d->sq[n].entries;
}

static bool
cq_used(const struct nvme *d, uint32_t n)
{
	return n < QUEUES && d->cq[n].entries;
}

static uint16_t
create_cq(struct request *r)
{
	struct nvme *d = r->d;
	uint32_t n = cdw(r, 10) & 0xffff, entries = (cdw(r, 10) >> 16) + 1, vector = cdw(r, 11) >> 16;

	if (!n || n >= QUEUES || d->cq[n].entries)
		return BAD_QUEUE | DNR;
	if (entries < 2 || entries > QUEUE_ENTRIES)
		return BAD_SIZE | DNR;
	if (vector >= QUEUES || (vector && !pci_msix_enabled(&d->pci)))
		return BAD_VECTOR | DNR;
	if (!(cdw(r, 11) & 1) || (le64(r->sqe + 24) & 4095))
		return BAD_FIELD | DNR;
	d->cq[n] = (struct cq){ .base = le64(r->sqe + 24),
		.entries = entries,
		.vector = (uint16_t)vector,
		.phase = 1,
		.interrupts = cdw(r, 11) >> 1 & 1 };
	return OK;
}

static uint16_t
create_sq(struct request *r)
{
	struct nvme *d = r->d;
	uint32_t n = cdw(r, 10) & 0xffff, entries = (cdw(r, 10) >> 16) + 1, cq = cdw(r, 11) >> 16;

	if (!n || n >= QUEUES || d->sq[n].entries)
		return BAD_QUEUE | DNR;
	if (!cq || !cq_used(d, cq))
		return BAD_CQ | DNR;
	if (entries < 2 || entries > QUEUE_ENTRIES)
		return BAD_SIZE | DNR;
	if (!(cdw(r, 11) & 1) || (le64(r->sqe + 24) & 4095))
		return BAD_FIELD | DNR;
	d->sq[n] = (struct sq){ .base = le64(r->sqe + 24), .entries = entries, .cq = cq };
	return OK;
}

static void
drain(struct nvme *d)
{
	for (int i = 0; i < d->ports; i++)
		if (d->ns[i].block)
			block_drain(d->ns[i].block);
}

static uint16_t
delete_sq(struct request *r)
{
	struct nvme *d = r->d;
	uint32_t n = cdw(r, 10) & 0xffff;

	if (!n || !sq_used(d, n))
		return BAD_QUEUE | DNR;
	d->sq[n].tail = d->sq[n].head; /* nothing more is taken */
	drain(d);
	memset(&d->sq[n], 0, sizeof(d->sq[n]));
	return OK;
}

static uint16_t
delete_cq(struct request *r)
{
	struct nvme *d = r->d;
	uint32_t n = cdw(r, 10) & 0xffff;

	if (!n || !cq_used(d, n))
		return BAD_QUEUE | DNR;
	for (uint32_t i = 0; i < QUEUES; i++)
		if (d->sq[i].entries && d->sq[i].cq == n)
			return BAD_QUEUE_DELETION | DNR;
	memset(&d->cq[n], 0, sizeof(d->cq[n]));
	update_line(d);
	return OK;
}

/* ---- identify (5.15) ---- */

static void
put_text(uint8_t *p, size_t len, const char *text)
{
	size_t n = strlen(text);

	memset(p, ' ', len);
	memcpy(p, text, MIN(n, len));
}

static void
identify_controller(struct nvme *d, uint8_t *p)
{
	put_le16(p, d->pci.vendor);
	put_le16(p + 2, d->pci.subvendor);
	put_text(p + 4, 20, d->serial);
	put_text(p + 24, 40, "ORCL-VBOX-NVME-VER12");
	put_text(p + 64, 8, "1.0");
	p[72] = 6;    /* arbitration burst */
	p[73] = 0x27; /* OUI 08-00-27, little-endian */
	p[75] = 0x08;
	p[77] = MDTS;
	put_le32(p + 80, VERSION);
	put_le32(p + 92, 1u << 8); /* tells of changed namespaces */
	p[111] = 1;		   /* an I/O controller */
	p[258] = 3;		   /* aborts at a time, 0-based */
	p[259] = EVENTS_MAX - 1;
	p[260] = 3;		/* one firmware slot, read-only */
	p[261] = 0;		/* SMART is not per namespace */
	p[262] = 0;		/* entries of the error log, 0-based */
	put_le16(p + 266, 343); /* warning temperature, kelvin */
	put_le16(p + 268, 353); /* critical */
	p[512] = 0x66;		/* entries of 64 */
	p[513] = 0x44;		/* and 16 bytes */
	put_le32(p + 516, (uint32_t)d->ports);
	put_le16(p + 520, 4 | 8); /* dataset management, write zeroes */
	p[525] = 1 | 3 << 1;	  /* a volatile write cache; flush takes FFFFFFFFh */
	snprintf((char *)p + 768, 256, "nqn.2014.08.org.nvmexpress:%04x%04x%-20s%-40s", d->pci.vendor, d->pci.subvendor,
		d->serial, "ORCL-VBOX-NVME-VER12");
}

static void
identify_namespace(const struct nvme_ns *ns, uint8_t *p)
{
	put_le64(p, ns->blocks);
	put_le64(p + 8, ns->blocks);
	put_le64(p + 16, ns->blocks);
	p[24] = ns->discard ? 1 : 0; /* thin */
	p[99] = ns->read_only ? 1 : 0;
	put_le32(p + 128, 9u << 16); /* format 0: blocks of 512 bytes */
}

/* Identifiers (figure 249): a UUID where the image has one, otherwise one from the place, of the type EUI-64. */
static void
identify_descriptors(const struct nvme *d, const struct nvme_ns *ns, uint8_t *p)
{
	if (le64(ns->uuid.b) || le64(ns->uuid.b + 8)) {
		p[0] = 3;
		p[1] = 16;
		memcpy(p + 4, ns->uuid.b, 16);
		return;
	}
	p[0] = 1;
	p[1] = 8;
	p[4] = 0x08;
	p[6] = 0x27;
	p[10] = d->pci.slot;
	p[11] = (uint8_t)(ns - d->ns + 1);
}

static void
list_namespaces(struct nvme *d, uint32_t after, uint8_t *p)
{
	for (uint32_t i = after; i < (uint32_t)d->ports; i++)
		if (d->ns[i].block) {
			put_le32(p, i + 1);
			p += 4;
		}
}

static uint16_t
identify(struct request *r)
{
	struct nvme *d = r->d;
	uint32_t nsid = cdw(r, 1), cns = cdw(r, 10) & 0xff;
	struct nvme_ns *ns = find_namespace(d, nsid);
	uint8_t page[4096] = { 0 };

	switch (cns) {
	case 0x00:
	case 0x11: /* allocated namespaces are active ones */
		if (!nsid || (nsid > (uint32_t)d->ports && nsid != 0xffffffff))
			return BAD_NAMESPACE | DNR;
		if (ns || nsid == 0xffffffff)
			identify_namespace(ns ? ns : &(struct nvme_ns){ 0 }, page);
		break;
	case 0x01:
		identify_controller(d, page);
		break;
	case 0x02:
	case 0x10:
		if (nsid >= 0xfffffffe)
			return BAD_NAMESPACE | DNR;
		list_namespaces(d, nsid, page);
		break;
	case 0x03:
		if (!ns)
			return BAD_NAMESPACE | DNR;
		identify_descriptors(d, ns, page);
		break;
	default:
		return BAD_FIELD | DNR;
	}
	return send(r, page, sizeof(page));
}

/* ---- log pages (5.14) ---- */

static void
smart_log(struct nvme *d, uint8_t *p)
{
	uint64_t read = 0, written = 0, reads = 0, writes = 0;

	for (int i = 0; i < d->ports; i++) {
		struct block_stats s = { 0 };

		if (d->ns[i].block)
			block_get_stats(d->ns[i].block, &s);
		read += s.bytes_read;
		written += s.bytes_written;
		reads += s.reads;
		writes += s.writes;
	}
	put_le16(p + 1, 313); /* 40 degrees */
	p[3] = 100;	      /* spare */
	p[4] = 10;	      /* its threshold */
	put_le64(p + 32, (read + 511999) / 512000);
	put_le64(p + 48, (written + 511999) / 512000);
	put_le64(p + 64, reads);
	put_le64(p + 80, writes);
	put_le64(p + 112, 1);
}

static void
changed_log(struct nvme *d, uint8_t *p, bool keep)
{
	for (int i = 0; i < d->ports; i++) {
		if (!d->changed[i])
			continue;
		put_le32(p, (uint32_t)i + 1);
		p += 4;
		if (!keep)
			d->changed[i] = 0;
	}
	if (!keep)
		d->event_masked &= (uint8_t)~EVENT_NAMESPACE;
}

static uint16_t
get_log_page(struct request *r)
{
	struct nvme *d = r->d;
	uint32_t id = cdw(r, 10) & 0xff, size;
	uint64_t len = (((uint64_t)cdw(r, 11) & 0xffff) << 16 | cdw(r, 10) >> 16) * 4 + 4, off = le64(r->sqe + 48);
	uint8_t page[4096] = { 0 };
	bool keep = cdw(r, 10) >> 15 & 1;
	uint16_t status;

	switch (id) {
	case 0x01: /* no errors */
		size = 64;
		break;
	case 0x02:
		smart_log(d, page);
		size = 512;
		break;
	case 0x03:
		page[0] = 1;
		put_text(page + 8, 8, "1.0");
		size = 512;
		break;
	case 0x04:
		changed_log(d, page, keep);
		size = 4096;
		break;
	default:
		return BAD_LOG | DNR;
	}
	if (off >= size || (off & 3) || len > TRANSFER_MAX)
		return BAD_FIELD | DNR;
	status = send(r, page + off, (uint32_t)MIN(len, size - off));
	if (status == OK && id == 0x04 && !keep)
		send_events(d);
	return status;
}

/* ---- features (5.21) ---- */

enum {
	ARBITRATION = 1,
	POWER,
	TEMPERATURE = 4,
	ERROR_RECOVERY,
	WRITE_CACHE,
	QUEUE_COUNT,
	COALESCING,
	VECTOR,
	ATOMICITY,
	EVENTS
};

/* Values as they are now; *known is false for one that does not exist. */
static uint32_t
feature(struct request *r, uint32_t id, uint32_t select, bool *known)
{
	struct nvme *d = r->d;
	bool now = select == 0;

	*known = true;
	switch (id) {
	case ARBITRATION:
		return now ? d->arbitration : 6;
	case POWER:
		return 0;
	case TEMPERATURE:
		if (cdw(r, 11) >> 16 & 15)
			return 0;
		return cdw(r, 11) >> 20 & 3 ? (now ? d->temperature_low : 0) : (now ? d->temperature_high : 343);
	case ERROR_RECOVERY:
		return now ? d->error_recovery : 0;
	case WRITE_CACHE:
		return now ? d->write_cache : 1;
	case QUEUE_COUNT:
		return (QUEUES - 2) | (QUEUES - 2) << 16;
	case COALESCING:
		return now ? d->coalescing : 0;
	case VECTOR:
		return (cdw(r, 11) & 0xffff) | 1u << 16; /* interrupts are never held back */
	case ATOMICITY:
		return now ? d->atomicity : 0;
	case EVENTS:
		return now ? d->event_config : 0;
	}
	*known = false;
	return 0;
}

static uint16_t
get_features(struct request *r)
{
	uint32_t id = cdw(r, 10) & 0xff, select = cdw(r, 10) >> 8 & 7, value;
	bool known;

	value = feature(r, id, select, &known);
	if (!known || select > 3)
		return BAD_FIELD | DNR;
	if (select == 3) /* can be changed, is not saved */
		value = id == POWER || id == VECTOR ? 0 : 4;
	r->result = value;
	return OK;
}

static void
cache_switched_off(struct block_req *io, int result)
{
	struct request *r = container_of(io, struct request, io);

	if (!result)
		r->d->write_cache = 0;
	flush_next(io, result);
}

static uint16_t
set_features(struct request *r)
{
	struct nvme *d = r->d;
	uint32_t id = cdw(r, 10) & 0xff, value = cdw(r, 11);
	bool known;

	feature(r, id, 0, &known);
	if (!known)
		return BAD_FIELD | DNR;
	if (cdw(r, 10) >> 31)
		return NOT_SAVEABLE | DNR;
	switch (id) {
	case ARBITRATION:
		d->arbitration = value;
		break;
	case POWER: /* there is one state */
		if (value & 31)
			return BAD_FIELD | DNR;
		break;
	case TEMPERATURE:
		if (value >> 20 & 3)
			d->temperature_low = (uint16_t)value;
		else
			d->temperature_high = (uint16_t)value;
		break;
	case ERROR_RECOVERY:
		d->error_recovery = value & 0xffff;
		break;
	case WRITE_CACHE:
		if (value & 1) {
			d->write_cache = 1;
			break;
		}
		r->range = 0; /* what the cache holds is written out */
		r->ns = NULL;
		cache_switched_off(&r->io, 0);
		return NO_COMPLETION;
	case QUEUE_COUNT:
		if ((value & 0xffff) == 0xffff || value >> 16 == 0xffff)
			return BAD_FIELD | DNR;
		r->result = (QUEUES - 2) | (QUEUES - 2) << 16;
		break;
	case COALESCING:
		d->coalescing = value & 0xffff;
		break;
	case ATOMICITY:
		d->atomicity = value & 1;
		break;
	case EVENTS:
		d->event_config = value;
		break;
	}
	return OK;
}

/* ---- admin commands ---- */

/* A command that is under way cannot be called back: "not aborted" (5.1). */
static uint16_t
abort_command(struct request *r)
{
	r->result = 1;
	return OK;
}

static uint16_t
admin_command(struct request *r)
{
	if (r->sqe[1])
		return BAD_FIELD | DNR;
	switch (r->sqe[0]) {
	case 0x00:
		return delete_sq(r);
	case 0x01:
		return create_sq(r);
	case 0x02:
		return get_log_page(r);
	case 0x04:
		return delete_cq(r);
	case 0x05:
		return create_cq(r);
	case 0x06:
		return identify(r);
	case 0x08:
		return abort_command(r);
	case 0x09:
		return set_features(r);
	case 0x0a:
		return get_features(r);
	case 0x0c:
		return event_request(r);
	}
	return BAD_OPCODE | DNR;
}

/* Take what there is in submission queue `n`. */
static void
fetch(struct nvme *d, uint32_t n)
{
	struct sq *q = &d->sq[n];

	if (q->fetching)
		return;
	q->fetching = 1;
	while (running(d) && q->entries && q->head != q->tail && q->in_flight < IN_FLIGHT && cq_room(&d->cq[q->cq])) {
		struct request *r = request_get(d);
		uint16_t status;

		if (!mem_read(memory(d), q->base + q->head * 64ull, r->sqe, sizeof(r->sqe))) {
			release(r);
			fail_controller(d, "a submission queue is not in memory");
			break;
		}
		q->head = (q->head + 1) % q->entries;
		begin(d, r, n);
		status = n ? io_command(r) : admin_command(r);
		if (status != NO_COMPLETION)
			complete(r, status);
	}
	q->fetching = 0;
}

/* ---- enabling, shutting down, resetting ---- */

/* Everything in flight comes to its end unheard, and the queues are forgotten. */
static void
stop(struct nvme *d)
{
	d->csts &= ~(uint32_t)CSTS_RDY;
	drain(d);
	memset(d->sq, 0, sizeof(d->sq));
	memset(d->cq, 0, sizeof(d->cq));
	d->events = d->event_due = d->event_masked = 0;
	d->event_config = 0;
	d->write_cache = 1;
	d->arbitration = 6;
	d->temperature_high = 343;
	d->temperature_low = 0;
	d->error_recovery = d->coalescing = d->atomicity = 0;
	d->intms = 0;
	memset(d->changed, 0, sizeof(d->changed));
	d->csts = 0;
	update_line(d);
}

static void
enable(struct nvme *d)
{
	uint32_t sq = (d->aqa & 0xfff) + 1, cq = (d->aqa >> 16 & 0xfff) + 1;

	/* NVM command set, pages of 4 KiB; the entry sizes count only when queues are created (3.1.5) */
	if ((d->cc >> 4 & 7) || (d->cc >> 7 & 15) || sq < 2 || cq < 2 || (d->asq & 4095) || (d->acq & 4095)) {
		fail_controller(d, "the admin queues or CC make no sense");
		return;
	}
	d->sq[0] = (struct sq){ .base = d->asq, .entries = sq };
	d->cq[0] = (struct cq){ .base = d->acq, .entries = cq, .phase = 1, .interrupts = 1 };
	d->csts = CSTS_RDY;
}

static void
shutdown_flushed(struct block_req *io, int result)
{
	struct request *r = container_of(io, struct request, io);
	struct nvme *d = r->d;

	if (!--d->flushing && (d->cc & CC_SHN))
		d->csts = (d->csts & ~(uint32_t)CSTS_SHST) | CSTS_SHUT;
	release(r);
}

static void
begin_shutdown(struct nvme *d)
{
	d->csts = (d->csts & ~(uint32_t)CSTS_SHST) | 1 << 2; /* occurring */
	d->flushing++;
	for (int i = 0; i < d->ports; i++)
		if (d->ns[i].block) {
			struct request *r = request_get(d);

			r->ns = &d->ns[i];
			r->ranges = 0;
			d->flushing++;
			submit(r, BLOCK_FLUSH, 0, 0, shutdown_flushed);
		}
	if (!--d->flushing)
		d->csts = (d->csts & ~(uint32_t)CSTS_SHST) | CSTS_SHUT;
}

static void
write_cc(struct nvme *d, uint32_t value)
{
	uint32_t was = d->cc;

	d->cc = value & 0x00fffff1;
	if (!(value & CC_EN) && (was & CC_EN))
		stop(d);
	else if ((value & CC_EN) && !(was & CC_EN))
		enable(d);
	if ((value & CC_SHN) && !(was & CC_SHN))
		begin_shutdown(d);
	else if (!(value & CC_SHN) && (was & CC_SHN))
		d->csts &= ~(uint32_t)CSTS_SHST;
}

/* ---- registers ---- */

static void
doorbell(struct nvme *d, uint32_t off, uint32_t value)
{
	uint32_t n = off >> 3;

	if (!running(d) || n >= QUEUES)
		return;
	if (off & 4) {
		struct cq *q = &d->cq[n];

		if (value >= q->entries) {
			log_guest(d->pci.dev.name, "head %u of completion queue %u is not in it", value, n);
			return;
		}
		q->head = value;
		update_line(d);
		room_made(d, n);
	} else {
		if (value >= d->sq[n].entries) {
			log_guest(d->pci.dev.name, "tail %u of submission queue %u is not in it", value, n);
			return;
		}
		d->sq[n].tail = value;
		fetch(d, n);
	}
}

static uint64_t
half(uint64_t value, uint64_t off)
{
	return off & 4 ? value >> 32 : value;
}

static uint64_t
read4(struct nvme *d, uint64_t off)
{
	switch (off) {
	case CAP:
	case CAP + 4:
		return half(CAPABILITIES, off);
	case VS:
		return VERSION;
	case INTMS:
	case INTMC:
		return d->intms;
	case CC:
		return d->cc;
	case CSTS:
		return d->csts;
	case AQA:
		return d->aqa;
	case ASQ:
	case ASQ + 4:
		return half(d->asq, off);
	case ACQ:
	case ACQ + 4:
		return half(d->acq, off);
	}
	return 0;
}

static void
put_half(uint64_t *value, uint64_t off, uint32_t v)
{
	if (off & 4)
		*value = (*value & UINT32_MAX) | (uint64_t)v << 32;
	else
		*value = (*value & ~(uint64_t)UINT32_MAX) | v;
}

static void
write4(struct nvme *d, uint64_t off, uint32_t value)
{
	switch (off) {
	case INTMS:
		d->intms |= value;
		update_line(d);
		break;
	case INTMC:
		d->intms &= ~value;
		update_line(d);
		break;
	case CC:
		write_cc(d, value);
		break;
	case AQA:
		d->aqa = value & 0x0fff0fff;
		break;
	case ASQ:
	case ASQ + 4:
		put_half(&d->asq, off, value);
		break;
	case ACQ:
	case ACQ + 4:
		put_half(&d->acq, off, value);
		break;
	}
}

static uint64_t
nvme_read(void *opaque, uint64_t off, unsigned size)
{
	struct nvme *d = opaque;
	uint64_t value = read4(d, off & ~3ull);

	if (size == 8)
		value = (value & UINT32_MAX) | read4(d, off + 4) << 32;
	return size < 4 ? value >> 8 * (off & 3) : value;
}

static void
nvme_write(void *opaque, uint64_t off, uint64_t value, unsigned size)
{
	struct nvme *d = opaque;

	if (size < 4 || (off & 3))
		return;
	if (off >= DOORBELLS) {
		doorbell(d, (uint32_t)off - DOORBELLS, (uint32_t)value);
		return;
	}
	write4(d, off, (uint32_t)value);
	if (size == 8)
		write4(d, off + 4, (uint32_t)(value >> 32));
}

static const struct bus_ops nvme_ops = { nvme_read, nvme_write, 1, 8 };

/* A guest that allows bus mastering after it has rung a doorbell. */
static void
config_written(struct pci_dev *p, unsigned reg, uint32_t value, unsigned size)
{
	struct nvme *d = (struct nvme *)p;

	for (uint32_t i = 0; reg <= 4 && i < QUEUES; i++)
		if (d->sq[i].entries)
			fetch(d, i);
}

/* ---- the device ---- */

static void
nvme_reset(struct device *dev)
{
	struct nvme *d = (struct nvme *)dev;

	stop(d);
	d->cc = d->aqa = 0;
	d->asq = d->acq = 0;
	pci_reset(&d->pci);
}

static void
nvme_drain(struct device *dev)
{
	drain((struct nvme *)dev);
}

/* What came from a file is no better than what comes from a guest. */
static void
nvme_loaded(struct device *dev)
{
	struct nvme *d = (struct nvme *)dev;

	for (int i = 0; i < QUEUES; i++) {
		struct cq *c = &d->cq[i];

		if (c->entries > 4096 || c->head >= c->entries || c->tail >= c->entries)
			memset(c, 0, sizeof(*c));
		c->phase &= 1;
		c->busy = 0;
	}
	for (int i = 0; i < QUEUES; i++) {
		struct sq *s = &d->sq[i];

		s->in_flight = s->fetching = 0;
		if (s->entries > 4096 || s->head >= s->entries || s->tail >= s->entries || !cq_used(d, s->cq))
			memset(s, 0, sizeof(*s));
	}
	d->events = MIN(d->events, EVENTS_MAX);
	update_line(d);
	for (uint32_t i = 0; i < QUEUES; i++)
		if (d->sq[i].entries)
			fetch(d, i);
}

static void
nvme_destroy(struct device *dev)
{
	struct nvme *d = (struct nvme *)dev;
	struct request *r;

	stop(d);
	for (int i = 0; i < d->ports; i++)
		if (d->ns[i].block)
			block_attach_loop(d->ns[i].block, NULL);
	pci_remove(dev->m, &d->pci);
	while ((r = d->idle)) {
		d->idle = r->next;
		free(r);
	}
	free(d);
}

static const struct dev_class nvme_class = {
	.name = "nvme",
	.fields = nvme_fields,
	.reset = nvme_reset,
	.loaded = nvme_loaded,
	.destroy = nvme_destroy,
	.drain = nvme_drain,
};

struct nvme *
nvme_create(struct machine *m, int slot, int ports, struct err *e)
{
	struct nvme *d;
	struct pci_dev *p;

	if (ports < 1 || ports > NVME_NAMESPACES) {
		err_set(e, ERR_INVALID, "An NVMe controller has 1 to %d ports, not %d", NVME_NAMESPACES, ports);
		return NULL;
	}
	d = xcalloc(1, sizeof(*d));
	p = &d->pci;
	p->vendor = 0x80ee;
	p->device = 0x4e56;
	p->subvendor = 0x80ee;
	p->subdevice = 0x4e56;
	p->revision = 1;
	p->class = 0x010802;
	p->intx_pin = 1;
	p->config_written = config_written;
	p->bars[0] = (struct pci_bar){ .kind = PCI_BAR_MEM64, .size = BAR_SIZE, .ops = &nvme_ops, .opaque = d };
	d->ports = ports;
	pci_add_msix(p, MSIX_BAR, QUEUES);
	if (pci_add(m, p, &nvme_class, slot, 0)) {
		free(d);
		err_set(e, ERR_IN_USE, "There is no free PCI slot for the NVMe controller");
		return NULL;
	}
	snprintf(d->serial, sizeof(d->serial), "VB%04u-%08x", p->slot, 0x4e564d45u);
	nvme_reset(&p->dev);
	return d;
}

int
nvme_attach(struct nvme *d, int port, const struct drive_config *cfg, struct err *e)
{
	struct block_info info = { 0 };
	struct nvme_ns *ns;

	if (port < 0 || port >= d->ports)
		return err_set(e, ERR_INVALID, "The NVMe controller has ports 0 to %d, not %d", d->ports - 1, port);
	ns = &d->ns[port];
	if (ns->block)
		return err_set(e, ERR_IN_USE, "There is a disk already at NVMe port %d", port);
	if (cfg->cdrom || !cfg->block)
		return err_set(e, ERR_INVALID, "NVMe port %d takes a disk with an image", port);
	block_get_info(cfg->block, &info);
	*ns = (struct nvme_ns){ .block = cfg->block,
		.blocks = info.size / SECTOR,
		.uuid = info.uuid,
		.read_only = info.read_only,
		.discard = cfg->discard && !info.read_only };
	block_attach_loop(ns->block, d->pci.dev.m->loop);
	if (cfg->serial && port == 0)
		snprintf(d->serial, sizeof(d->serial), "%.20s", cfg->serial);
	namespace_changed(d, port);
	return 0;
}

int
nvme_detach(struct nvme *d, int port)
{
	struct block *b;

	if (port < 0 || port >= d->ports || !d->ns[port].block)
		return -ENOENT;
	b = d->ns[port].block;
	block_drain(b); /* completions may start other commands, which find it still there */
	d->ns[port].block = NULL;
	block_drain(b);
	block_attach_loop(b, NULL);
	namespace_changed(d, port);
	return 0;
}
