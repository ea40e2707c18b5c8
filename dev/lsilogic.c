/* SPDX-License-Identifier: Apache-2.0 */
/*
 * LSI Logic 53C1030, a parallel SCSI controller with the Fusion-MPT message interface ("Fusion-MPT Device Management
 * User's Guide" and "Fusion-MPT Message Passing Interface Specification" 1.5, "MPI" below), and SAS1068, its successor
 * for serial attached SCSI: the same, but for the configuration pages by which drives are found (lsisas.c).
 *
 *	BAR 0 (ports) and BAR 1 (memory)
 *	0x00 doorbell: state 31:28, active 27, who initialised it 26:24, data 15:0    0x30 interrupt status
 *	0x04 write sequence: opens the next register                                  0x34 interrupt mask
 *	0x08 diagnostic: reset 2, write enable 7, history 5                           0x40 request queue (0x48 urgent)
 *	0x44 reply queue: written: a free reply frame; read: a reply, all ones: none
 *
 *	a message:    2 chain offset in words (requests) or length in words (replies), 3 function, 8 context;
 *	              replies: 14 status
 *	SCSI request: 0 target, 1 bus, 4 CDB length, 5 sense length, 12 LUN, 20 direction, 24 CDB[16],
 *	              40 data length, 44 sense buffer, 48 scatter list
 *	scatter list: u32 flags 31:24 and length, u32 or u64 address; a chain element: u16 length, u8 next, u8 flags,
 *	              address
 *
 * Theory of operation. A message comes either word by word through the doorbell, and is answered the same way, or as
 * the address of a frame in memory through the request queue, and is answered through the reply queue: a SCSI command
 * that went well by its context alone, all else by a frame of those that the host has given. Requests are started as
 * they come, as long as there is room for their replies; what is more waits in `requests`.
 *
 * States of the controller (doorbell 31:28):
 *
 *	READY        IOC INIT: OPERATIONAL                   takes messages through the doorbell
 *	OPERATIONAL  message unit reset, adapter reset: READY   takes all
 *	FAULT        adapter reset: READY                    the host has left no reply frame where one was needed
 *
 * A reset waits for what is in flight, whose replies are then not given.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/log.h"
#include "base/str.h"
#include "dev/lsisas.h"
#include "dev/scsi.h"

#define QUEUE 512u /* entries of each queue, one of which stays empty */
#define IN_FLIGHT 256u
#define FRAME_MAX 128u /* of a request */
#define REPLY_MAX 128u
#define PIECES_MAX 512
#define ELEMENTS_MAX 1024
#define HANDSHAKE_MAX 64u /* words of a message through the doorbell */
#define HOST_ID LSILOGIC_TARGETS
#define DIAG_BAR_SIZE 0x10000

/* Registers */
enum {
	DOORBELL = 0x00,
	WRITE_SEQUENCE = 0x04,
	DIAGNOSTIC = 0x08,
	INTERRUPT_STATUS = 0x30,
	INTERRUPT_MASK = 0x34,
	REQUESTS = 0x40,
	REPLIES = 0x44,
	URGENT_REQUESTS = 0x48,

	DOORBELL_ACTIVE = 1 << 27,
	DIAG_RESET = 4,
	DIAG_HISTORY = 0x20,
	DIAG_WRITE_ENABLE = 0x80,
	INT_DOORBELL = 1,
	INT_REPLY = 8,
};
enum ioc_state { IOC_READY = 1, IOC_OPERATIONAL = 2, IOC_FAULT = 4 };
/* What the doorbell does: DB_END has given the last word, and the host has not acknowledged it. */
enum doorbell { DB_IDLE, DB_TAKE, DB_GIVE, DB_END };

enum {
	SCSI_IO = 0x00,
	TASK_MANAGEMENT = 0x01,
	IOC_INIT = 0x02,
	IOC_FACTS = 0x03,
	CONFIG = 0x04,
	PORT_FACTS = 0x05,
	PORT_ENABLE = 0x06,
	EVENT_NOTIFICATION = 0x07,
	EVENT_ACK = 0x08,
	MESSAGE_UNIT_RESET = 0x40,
	IO_UNIT_RESET = 0x41,
	HANDSHAKE = 0x42,
	FRAME_REMOVAL = 0x43,
};

/* IOCStatus */
enum {
	SUCCESS = 0x00,
	BAD_FUNCTION = 0x01,
	BAD_LIST = 0x03,
	BAD_FIELD = 0x07,
	BAD_STATE = 0x08,
	CONFIG_BAD_ACTION = 0x20,
	CONFIG_BAD_PAGE = 0x22,
	CONFIG_BAD_DATA = 0x23,
	SCSI_BAD_BUS = 0x41,
	SCSI_BAD_TARGET = 0x42,
	SCSI_NOT_THERE = 0x43,
	SCSI_OVERRUN = 0x44,
	SCSI_UNDERRUN = 0x45,
};

struct queue {
	uint32_t head, tail;
	uint32_t entry[QUEUE];
};

struct request {
	struct scsi_cmd cmd;
	struct lsilogic *d;
	struct request *next_idle;
	uint8_t frame[FRAME_MAX];
	bool reset; /* the controller was reset meanwhile: no reply */
	int pieces;
	struct iovec iov[PIECES_MAX];
	gpa_t gpa[PIECES_MAX];
};

struct lsilogic {
	struct pci_dev pci;
	struct request *idle;
	uint32_t in_flight;
	bool resetting, starting;
	bool sas;
	uint8_t targets;

	uint32_t status, mask, diagnostic;
	uint8_t state, who, sequence, events;
	uint8_t doorbell, word_read;
	uint16_t words, word; /* of the message in the doorbell: its length and the next; 32-bit in, 16-bit out */
	uint8_t message[HANDSHAKE_MAX * 4];
	uint16_t reply_frame_size, fault;
	uint32_t frames_high, sense_high;
	uint8_t max_devices, max_buses;
	struct queue requests, free_frames, replies;
	uint32_t parameters[LSILOGIC_TARGETS], configuration[LSILOGIC_TARGETS]; /* SCSI device page 1 */
	struct scsi_unit unit[LSILOGIC_TARGETS];
};

#define UNIT(n) SCSI_UNIT_FIELDS(struct lsilogic, unit[n])

static const struct field lsilogic_fields[] = {
	FIELD(struct lsilogic, status),
	FIELD(struct lsilogic, mask),
	FIELD(struct lsilogic, diagnostic),
	FIELD(struct lsilogic, state),
	FIELD(struct lsilogic, who),
	FIELD(struct lsilogic, sequence),
	FIELD(struct lsilogic, events),
	FIELD(struct lsilogic, doorbell),
	FIELD(struct lsilogic, word_read),
	FIELD(struct lsilogic, words),
	FIELD(struct lsilogic, word),
	FIELD_ARRAY(struct lsilogic, message),
	FIELD(struct lsilogic, reply_frame_size),
	FIELD(struct lsilogic, fault),
	FIELD(struct lsilogic, frames_high),
	FIELD(struct lsilogic, sense_high),
	FIELD(struct lsilogic, max_devices),
	FIELD(struct lsilogic, max_buses),
	FIELD(struct lsilogic, requests),
	FIELD(struct lsilogic, free_frames),
	FIELD(struct lsilogic, replies),
	FIELD_ARRAY(struct lsilogic, parameters),
	FIELD_ARRAY(struct lsilogic, configuration),
	UNIT(0),
	UNIT(1),
	UNIT(2),
	UNIT(3),
	UNIT(4),
	UNIT(5),
	UNIT(6),
	UNIT(7),
	UNIT(8),
	UNIT(9),
	UNIT(10),
	UNIT(11),
	UNIT(12),
	UNIT(13),
	UNIT(14),
	UNIT(15),
	FIELD_END,
};

static struct mem *
memory(struct lsilogic *d)
{
	return &d->pci.dev.m->mem;
}

/* ---- queues ---- */

static uint32_t
queue_used(const struct queue *q)
{
	return (q->tail + QUEUE - q->head) % QUEUE;
}

static bool
queue_put(struct queue *q, uint32_t value)
{
	if (queue_used(q) == QUEUE - 1)
		return false;
	q->entry[q->tail] = value;
	q->tail = (q->tail + 1) % QUEUE;
	return true;
}

static bool
queue_take(struct queue *q, uint32_t *value)
{
	if (q->head == q->tail)
		return false;
	*value = q->entry[q->head];
	q->head = (q->head + 1) % QUEUE;
	return true;
}

/* ---- interrupts and replies ---- */

static void
update_irq(struct lsilogic *d)
{
	if (d->replies.head != d->replies.tail)
		d->status |= INT_REPLY;
	else
		d->status &= ~(uint32_t)INT_REPLY;
	pci_intx(&d->pci, (d->status & ~d->mask & (INT_REPLY | INT_DOORBELL)) != 0);
}

static void
raise_doorbell(struct lsilogic *d)
{
	d->status |= INT_DOORBELL;
	update_irq(d);
}

static void
fail(struct lsilogic *d, const char *why)
{
	if (d->state != IOC_FAULT)
		log_guest(d->pci.dev.name, "%s; the controller needs a reset", why);
	d->state = IOC_FAULT;
	d->fault = 0x8113;
}

static void
post(struct lsilogic *d, uint32_t descriptor)
{
	if (!queue_put(&d->replies, descriptor))
		fail(d, "the host does not take its replies");
	update_irq(d);
}

/* A reply of `len` bytes through the queue, in a frame of the host's. */
static void
post_frame(struct lsilogic *d, const uint8_t *reply, uint32_t len)
{
	uint32_t at;

	if (!queue_take(&d->free_frames, &at)) {
		fail(d, "there is no free reply frame");
		return;
	}
	if (!mem_write(memory(d), (gpa_t)d->frames_high << 32 | at, reply, MIN(len, (uint32_t)d->reply_frame_size)))
		log_guest(d->pci.dev.name, "the reply frame %#x is not in memory", at);
	post(d, 0x80000000u | at >> 1);
}

/* The part that all replies have, of `len` bytes. */
static void
begin_reply(uint8_t *r, const uint8_t *request, uint32_t len, uint16_t status)
{
	memset(r, 0, REPLY_MAX);
	r[2] = (uint8_t)(len / 4);
	r[3] = request[3];
	r[7] = request[7];
	memcpy(r + 8, request + 8, 4);
	put_le16(r + 14, status);
}

/* ---- SCSI commands (MPI 5.1) ---- */

static struct request *
request_get(struct lsilogic *d)
{
	struct request *r = d->idle;

	if (r) {
		d->idle = r->next_idle;
		return r;
	}
	r = xcalloc(1, sizeof(*r));
	r->d = d;
	return r;
}

static void start_requests(struct lsilogic *d);

static void
release(struct request *r)
{
	r->next_idle = r->d->idle;
	r->d->idle = r;
}

static void
scsi_reply(struct request *r, uint16_t status, uint32_t sense)
{
	struct lsilogic *d = r->d;
	const struct scsi_cmd *c = &r->cmd;
	uint8_t reply[REPLY_MAX];

	begin_reply(reply, r->frame, 36, status);
	memcpy(reply, r->frame, 2);
	reply[4] = r->frame[4];
	reply[5] = r->frame[5];
	reply[12] = c->status;
	reply[13] = sense ? 1 : 0; /* the sense data is valid */
	put_le32(reply + 20, c->moved);
	put_le32(reply + 24, sense);
	put_le16(reply + 32, 0xffff);
	post_frame(d, reply, 36);
}

static uint32_t
write_sense(struct request *r)
{
	uint32_t n = MIN((uint32_t)r->frame[5], (uint32_t)SCSI_SENSE_LEN);
	gpa_t at = (gpa_t)r->d->sense_high << 32 | le32(r->frame + 44);

	return r->cmd.has_sense && n && mem_write(memory(r->d), at, r->cmd.sense, n) ? n : 0;
}

static void
note_written(struct request *r)
{
	uint32_t left = r->cmd.dir == SCSI_IN ? r->cmd.moved : 0;

	for (int i = 0; i < r->pieces && left; i++) {
		uint32_t n = (uint32_t)MIN((uint64_t)left, r->iov[i].iov_len);

		mem_written(memory(r->d), r->gpa[i], n);
		left -= n;
	}
}

static void
command_done(struct scsi_cmd *c)
{
	struct request *r = container_of(c, struct request, cmd);
	struct lsilogic *d = r->d;

	note_written(r);
	d->in_flight--;
	if (r->reset) {
		release(r);
		return;
	}
	if (c->overrun)
		scsi_reply(r, SCSI_OVERRUN, 0);
	else if (c->status != SCSI_GOOD)
		scsi_reply(r, SUCCESS, write_sense(r));
	else if (c->moved < c->len)
		scsi_reply(r, SCSI_UNDERRUN, 0);
	else
		post(d, le32(r->frame + 8));
	release(r);
	start_requests(d);
}

/* The memory that one element names, as pieces of the command's buffer. */
static bool
add_element(struct request *r, gpa_t at, uint32_t len, bool write)
{
	while (len) {
		struct mem_section s;
		uint32_t n;

		if (r->pieces == PIECES_MAX || !mem_find(memory(r->d), at, &s) || s.kind == MEM_MMIO ||
			(write && s.kind != MEM_RAM))
			return false;
		n = (uint32_t)MIN((uint64_t)len, s.last - at + 1);
		r->iov[r->pieces] = (struct iovec){ s.ram->host + s.ram_offset + (at - s.start), n };
		r->gpa[r->pieces++] = at;
		at += n;
		len -= n;
	}
	return true;
}

/* Bytes of the list's current segment: from the request's frame first, then from memory. */
static bool
read_list(struct request *r, bool in_frame, gpa_t at, uint8_t *e, uint32_t len)
{
	if (!in_frame)
		return mem_read(memory(r->d), at, e, len);
	if (at > FRAME_MAX - len)
		return false;
	memcpy(e, r->frame + at, len);
	return true;
}

/* The scatter list at byte 48 of the frame, for at most `want` bytes. False: it makes no sense. */
static bool
map_list(struct request *r, uint32_t want, bool write)
{
	bool in_frame = true;
	gpa_t at = 48;

	for (int i = 0; i < ELEMENTS_MAX && want; i++) {
		uint8_t e[12] = { 0 }, flags;
		gpa_t address;
		uint32_t len;

		if (!read_list(r, in_frame, at, e, 8))
			return false;
		flags = e[3];
		if ((flags & 2) && !read_list(r, in_frame, at, e, 12))
			return false;
		address = flags & 2 ? le64(e + 4) : le32(e + 4);
		at += flags & 2 ? 12 : 8;
		if ((flags & 0x30) == 0x30) { /* the list goes on elsewhere */
			in_frame = false;
			at = address;
			continue;
		}
		if ((flags & 0x30) != 0x10)
			return false;
		len = MIN(le32(e) & 0xffffff, want);
		if (!add_element(r, address, len, write))
			return false;
		want -= len;
		if (flags & 1) /* the end of the list */
			break;
	}
	return true;
}

/* Which unit a request or a task management is for; NULL and *status. */
static struct scsi_unit *
find_unit(struct lsilogic *d, const uint8_t *frame, uint16_t *status)
{
	*status = frame[1] ? SCSI_BAD_BUS : frame[0] >= d->targets ? SCSI_BAD_TARGET : SCSI_NOT_THERE;
	if (frame[1] || frame[0] >= d->targets || !d->unit[frame[0]].present)
		return NULL;
	return &d->unit[frame[0]];
}

static void
refuse(struct request *r, uint16_t status)
{
	r->cmd.status = SCSI_GOOD;
	r->cmd.moved = 0;
	r->d->in_flight--;
	scsi_reply(r, status, 0);
	release(r);
}

static void
scsi_io(struct lsilogic *d, const uint8_t *frame)
{
	struct request *r = request_get(d);
	struct scsi_cmd *c = &r->cmd;
	uint16_t status;
	uint8_t way;

	d->in_flight++;
	memcpy(r->frame, frame, sizeof(r->frame));
	r->reset = false;
	r->pieces = 0;
	memset(c->cdb, 0, sizeof(c->cdb));
	memcpy(c->cdb, frame + 24, MIN(frame[4], 16));
	c->u = find_unit(d, frame, &status);
	c->lun = (uint64_t)(frame[12] & 0x3f) << 8 | frame[13];
	c->len = le32(frame + 40);
	way = frame[23] & 3;
	c->dir = !c->len || !way ? SCSI_NO_DATA : way == 1 ? SCSI_OUT : SCSI_IN;
	c->done = command_done;
	if (!way)
		c->len = 0;
	if (!c->u) {
		refuse(r, status);
	} else if (!map_list(r, c->len, c->dir == SCSI_IN)) {
		refuse(r, BAD_LIST);
	} else {
		c->iov = r->iov;
		c->gpa = r->gpa;
		c->iovcnt = r->pieces;
		scsi_start(c);
	}
}

/* Nothing can be called back: what is to end is waited for, and ends in the ordinary way before the reply. */
static void
task_management(struct lsilogic *d, const uint8_t *frame)
{
	uint8_t reply[REPLY_MAX], type = frame[5];
	uint16_t status;
	struct scsi_unit *u = find_unit(d, frame, &status);

	for (int i = 0; i < LSILOGIC_TARGETS; i++) {
		if (&d->unit[i] != u && type != 4)
			continue;
		scsi_drain(&d->unit[i]);
		if (type == 3 || type == 4 || type == 5) /* target, bus, unit reset */
			scsi_reset(&d->unit[i], false);
	}
	begin_reply(reply, frame, 24, u || type == 4 ? SUCCESS : status);
	memcpy(reply, frame, 2);
	reply[5] = type;
	post_frame(d, reply, 24);
}

/* ---- configuration pages (MPI 6) ---- */

enum {
	PAGE_IO_UNIT = 0,
	PAGE_IOC = 1,
	PAGE_SCSI_PORT = 3,
	PAGE_SCSI_DEVICE = 4,
	PAGE_MANUFACTURING = 9,
	PAGE_EXTENDED = 15,
	CHANGEABLE = 0x10
};

/* Ultra320, wide, with the offset that goes with it: IU 0, DT 1, QAS 2, period 15:8, offset 23:16, wide 29 */
#define PORT_CAPABILITIES 0x207f0807u
#define PAGE_BYTES 64

static const struct page {
	uint8_t type, number, version, words, attributes;
} pages[] = {
	{ PAGE_MANUFACTURING, 0, 0, 19 - 3, 0 }, /* chip, revision, board name, assembly: 16 words */
	{ PAGE_IO_UNIT, 0, 0, 3, 0 },
	{ PAGE_IO_UNIT, 1, 1, 2, CHANGEABLE },
	{ PAGE_IOC, 0, 1, 7, 0 },
	{ PAGE_IOC, 1, 1, 4, CHANGEABLE },
	{ PAGE_IOC, 2, 2, 3, 0 },
	{ PAGE_IOC, 3, 0, 2, 0 },
	{ PAGE_SCSI_PORT, 0, 2, 3, 0 },
	{ PAGE_SCSI_PORT, 1, 3, 3, CHANGEABLE },
	{ PAGE_SCSI_DEVICE, 0, 4, 3, 0 },
	{ PAGE_SCSI_DEVICE, 1, 5, 4, CHANGEABLE },
};

static const struct page *
find_page(const struct lsilogic *d, uint8_t type, uint8_t number)
{
	if (d->sas && (type == PAGE_SCSI_PORT || type == PAGE_SCSI_DEVICE))
		return NULL;
	for (size_t i = 0; i < ARRAY_LEN(pages); i++)
		if (pages[i].type == type && pages[i].number == number)
			return &pages[i];
	return NULL;
}

static void
put_header(uint8_t *p, const struct page *page)
{
	p[0] = page->version;
	p[1] = page->words;
	p[2] = page->number;
	p[3] = page->type | page->attributes;
}

/* What is in a page; those that are not here are zeroes behind their header. */
static void
fill_page(struct lsilogic *d, const struct page *page, uint32_t address, uint8_t p[PAGE_BYTES])
{
	uint32_t target = address & 0xff;

	memset(p, 0, PAGE_BYTES);
	put_header(p, page);
	switch (page->type << 8 | page->number) {
	case PAGE_MANUFACTURING << 8 | 0:
		memcpy(p + 4, d->sas ? "LSISAS1068" : "LSI53C1030", 10);
		memcpy(p + 20, "B2", 2);
		memcpy(p + 28, "LODGE SCSI", 10);
		break;
	case PAGE_IOC << 8 | 0:
		put_le16(p + 12, d->pci.vendor);
		put_le16(p + 14, d->pci.device);
		p[16] = d->pci.revision;
		put_le32(p + 20, d->pci.class);
		break;
	case PAGE_SCSI_PORT << 8 | 0:
		put_le32(p + 4, PORT_CAPABILITIES);
		put_le32(p + 8, 3); /* low voltage differential */
		break;
	case PAGE_SCSI_PORT << 8 | 1:
		put_le32(p + 4, HOST_ID | 1u << (16 + 7));
		break;
	case PAGE_SCSI_DEVICE << 8 | 0: /* a target agrees to what it was asked for */
		put_le32(p + 4, target < LSILOGIC_TARGETS ? d->parameters[target] : 0);
		put_le32(p + 8, 1);
		break;
	case PAGE_SCSI_DEVICE << 8 | 1:
		put_le32(p + 4, target < LSILOGIC_TARGETS ? d->parameters[target] : 0);
		put_le32(p + 12, target < LSILOGIC_TARGETS ? d->configuration[target] : 0);
		break;
	}
}

/* Where a page goes to or comes from: one simple element at byte 28. */
static bool
page_buffer(const uint8_t *frame, gpa_t *at, uint32_t *len)
{
	uint32_t flags = le32(frame + 28);

	*len = flags & 0xffffff;
	*at = flags >> 24 & 2 ? le64(frame + 32) : le32(frame + 32);
	return (flags >> 24 & 0x30) == 0x10;
}

static uint16_t
write_page(struct lsilogic *d, const struct page *page, uint32_t address, gpa_t at, uint32_t len)
{
	uint8_t p[PAGE_BYTES] = { 0 };
	uint32_t target = address & 0xff;

	if (!(page->attributes & CHANGEABLE) || target >= LSILOGIC_TARGETS)
		return CONFIG_BAD_ACTION;
	if (!mem_read(memory(d), at, p, MIN(len, page->words * 4u)))
		return CONFIG_BAD_DATA;
	if (page->type == PAGE_SCSI_DEVICE && page->number == 1) {
		d->parameters[target] = le32(p + 4);
		d->configuration[target] = le32(p + 12);
	}
	return SUCCESS;
}

/* Extended pages are only read: a write of one that is there changes nothing that a guest could see. */
static uint32_t
config_extended(struct lsilogic *d, const uint8_t *frame, uint8_t *reply)
{
	uint8_t action = frame[0], p[LSISAS_PAGE_MAX];
	bool present[LSISAS_TARGETS], there;
	uint32_t len, size;
	gpa_t at;

	for (int i = 0; i < LSISAS_TARGETS; i++)
		present[i] = d->unit[i].present;
	size = d->sas ? lsisas_page(frame[6], frame[22], le32(frame + 24), present, p, &there) : 0;
	begin_reply(reply, frame, 24, SUCCESS);
	reply[0] = action;
	reply[6] = frame[6];
	memcpy(reply + 20, frame + 20, 4);
	if (!size) {
		put_le16(reply + 14, CONFIG_BAD_PAGE);
		return 24;
	}
	put_le16(reply + 4, (uint16_t)(size / 4));
	memcpy(reply + 20, p, 4);
	if (action == 0)
		return 24;
	if (action == 2 || action == 4 || action > 6)
		put_le16(reply + 14, CONFIG_BAD_ACTION);
	else if (!there)
		put_le16(reply + 14, CONFIG_BAD_PAGE);
	else if (!page_buffer(frame, &at, &len) || (action != 3 && !mem_write(memory(d), at, p, MIN(len, size))))
		put_le16(reply + 14, CONFIG_BAD_DATA);
	return 24;
}

static uint32_t
config(struct lsilogic *d, const uint8_t *frame, uint8_t *reply)
{
	const struct page *page = find_page(d, frame[23] & 15, frame[22]);
	uint32_t address = le32(frame + 24), len;
	uint8_t action = frame[0], p[PAGE_BYTES];
	uint16_t status = SUCCESS;
	gpa_t at;

	if ((frame[23] & 15) == PAGE_EXTENDED)
		return config_extended(d, frame, reply);
	begin_reply(reply, frame, 24, SUCCESS);
	reply[0] = action;
	memcpy(reply + 20, frame + 20, 4);
	if (!page) {
		reply[21] = 0;
		status = CONFIG_BAD_PAGE;
	} else if (action == 0) {
		put_header(reply + 20, page);
	} else if (action > 6 || !page_buffer(frame, &at, &len)) {
		status = action > 6 ? CONFIG_BAD_ACTION : CONFIG_BAD_DATA;
	} else {
		put_header(reply + 20, page);
		if (action == 2 || action == 4) {
			status = write_page(d, page, address, at, len);
		} else if (action != 3) {
			fill_page(d, page, address, p);
			if (!mem_write(memory(d), at, p, MIN(len, page->words * 4u)))
				status = CONFIG_BAD_DATA;
		}
	}
	put_le16(reply + 14, status);
	return 24;
}

/* ---- the controller's own messages (MPI 4) ---- */

static uint32_t
ioc_facts(struct lsilogic *d, const uint8_t *frame, uint8_t *reply)
{
	begin_reply(reply, frame, 80, SUCCESS);
	put_le16(reply, 0x0105); /* MPI 1.5 */
	put_le16(reply + 4, 0x0d00);
	reply[20] = 1; /* chains */
	reply[21] = d->who;
	reply[22] = FRAME_MAX / 4 / 2; /* block size, words */
	put_le16(reply + 24, QUEUE - 1);
	put_le16(reply + 26, FRAME_MAX / 4);
	put_le16(reply + 30, d->sas ? 0x2704 : 0x0704); /* of the SAS, the SCSI family */
	put_le32(reply + 32, d->frames_high);
	put_le16(reply + 36, IN_FLIGHT);
	reply[38] = 1; /* ports */
	reply[39] = d->events;
	put_le32(reply + 40, d->sense_high);
	put_le16(reply + 44, d->reply_frame_size);
	reply[46] = d->targets;
	reply[47] = 1;			  /* buses */
	put_le32(reply + 52, 1);	  /* urgent requests have a queue */
	put_le32(reply + 56, 0x01032710); /* firmware 1.3.39.16 */
	put_le16(reply + 60, QUEUE - 1);
	return 80;
}

static uint32_t
ioc_init(struct lsilogic *d, const uint8_t *frame, uint8_t *reply)
{
	begin_reply(reply, frame, 20, SUCCESS);
	memcpy(reply, frame, 2);
	memcpy(reply + 4, frame + 4, 3);
	if (!le16(frame + 12)) { /* firmware gives less than the longest reply has, and reads only so much */
		put_le16(reply + 14, BAD_FIELD);
		return 20;
	}
	d->who = frame[0] & 7;
	d->max_devices = frame[5];
	d->max_buses = frame[6];
	d->reply_frame_size = le16(frame + 12);
	d->frames_high = le32(frame + 16);
	d->sense_high = le32(frame + 20);
	d->state = IOC_OPERATIONAL;
	return 20;
}

static uint32_t
port_facts(struct lsilogic *d, const uint8_t *frame, uint8_t *reply)
{
	begin_reply(reply, frame, 40, frame[6] ? BAD_FIELD : SUCCESS);
	reply[6] = frame[6];
	if (frame[6])
		return 40;
	reply[21] = d->sas ? 0x30 : 1; /* SAS; parallel SCSI */
	put_le16(reply + 22, d->targets);
	put_le16(reply + 24, d->targets); /* its own number is the one behind them */
	put_le16(reply + 26, 8 | 1);	  /* an initiator; logical bus addresses */
	return 40;
}

static uint32_t
event_notification(struct lsilogic *d, const uint8_t *frame, uint8_t *reply)
{
	d->events = frame[0] & 1;
	begin_reply(reply, frame, 32, SUCCESS);
	put_le16(reply, 1);	   /* words of event data */
	put_le32(reply + 20, 0xa); /* whether events are told has changed */
	reply[28] = d->events;
	return 32;
}

/* Fill in the reply to `frame` and return its length; 0: it comes later, through the queue. */
static uint32_t
message(struct lsilogic *d, const uint8_t *frame, uint8_t *reply)
{
	uint8_t function = frame[3];
	bool early = function == IOC_FACTS || function == IOC_INIT || function == PORT_FACTS;

	begin_reply(reply, frame, 20, SUCCESS);
	if (d->state != IOC_OPERATIONAL && !early) {
		put_le16(reply + 14, BAD_STATE);
		return 20;
	}
	switch (function) {
	case TASK_MANAGEMENT:
		task_management(d, frame);
		return 0;
	case IOC_INIT:
		return ioc_init(d, frame, reply);
	case IOC_FACTS:
		return ioc_facts(d, frame, reply);
	case CONFIG:
		return config(d, frame, reply);
	case PORT_FACTS:
		return port_facts(d, frame, reply);
	case PORT_ENABLE:
		reply[6] = frame[6];
		return 20;
	case EVENT_NOTIFICATION:
		return event_notification(d, frame, reply);
	case EVENT_ACK:
		return 20;
	}
	log_guest(d->pci.dev.name, "function %02x is not one", function);
	put_le16(reply + 14, BAD_FUNCTION);
	return 20;
}

/* ---- the request queue ---- */

static void
start_request(struct lsilogic *d, uint32_t at)
{
	uint8_t frame[FRAME_MAX] = { 0 }, reply[REPLY_MAX];
	gpa_t from = (gpa_t)d->frames_high << 32 | (at & ~3u); /* bits 1:0 are how long it is */
	uint32_t len;

	/* A frame may end at the end of memory; the shortest message has 12 bytes. */
	if (!mem_read(memory(d), from, frame, sizeof(frame)) && !mem_read(memory(d), from, frame, 12)) {
		fail(d, "a request is not in memory");
		return;
	}
	if (frame[3] == SCSI_IO) {
		scsi_io(d, frame);
		return;
	}
	len = message(d, frame, reply);
	if (len)
		post_frame(d, reply, len);
}

/* Is there room for the replies of one more request? */
static bool
may_start(const struct lsilogic *d)
{
	return d->state == IOC_OPERATIONAL && !d->resetting && d->in_flight < IN_FLIGHT &&
	       d->in_flight + queue_used(&d->replies) < QUEUE - 1 && pci_bus_master(&d->pci);
}

static void
start_requests(struct lsilogic *d)
{
	uint32_t at;

	if (d->starting)
		return;
	d->starting = true;
	while (may_start(d) && queue_take(&d->requests, &at))
		start_request(d, at);
	d->starting = false;
}

static void
write_request(struct lsilogic *d, uint32_t at)
{
	if (d->state != IOC_OPERATIONAL)
		return;
	if (!queue_put(&d->requests, at))
		fail(d, "there are more requests than the queue has room for");
	start_requests(d);
}

static uint32_t
read_reply(struct lsilogic *d)
{
	uint32_t descriptor;

	if (!queue_take(&d->replies, &descriptor))
		return 0xffffffff;
	update_irq(d);
	start_requests(d);
	return descriptor;
}

/* ---- resets ---- */

static void
drain(struct lsilogic *d)
{
	for (int i = 0; i < LSILOGIC_TARGETS; i++)
		scsi_drain(&d->unit[i]);
}

/* Message unit reset: READY, with empty queues. What is in flight ends without a reply. */
static void
unit_reset(struct lsilogic *d)
{
	d->resetting = true;
	d->state = IOC_READY;
	drain(d);
	d->resetting = false;
	d->who = 0;
	d->events = 0;
	d->fault = 0;
	d->doorbell = DB_IDLE;
	d->words = d->word = d->word_read = 0;
	d->frames_high = d->sense_high = 0;
	d->reply_frame_size = 0;
	memset(&d->requests, 0, sizeof(d->requests));
	memset(&d->free_frames, 0, sizeof(d->free_frames));
	memset(&d->replies, 0, sizeof(d->replies));
	d->status = 0;
	update_irq(d);
}

static void
adapter_reset(struct lsilogic *d)
{
	unit_reset(d);
	for (int i = 0; i < LSILOGIC_TARGETS; i++) {
		scsi_reset(&d->unit[i], false);
		d->parameters[i] = PORT_CAPABILITIES;
		d->configuration[i] = 0;
	}
	d->sequence = 0;
	d->mask = INT_REPLY | INT_DOORBELL;
	d->diagnostic = DIAG_HISTORY;
	update_irq(d);
}

/* ---- the doorbell (MPI 3.2) ---- */

static void
handshake_complete(struct lsilogic *d)
{
	uint8_t reply[REPLY_MAX];
	uint32_t len = d->message[3] == SCSI_IO ? 0 : message(d, d->message, reply);

	d->word = 0;
	d->word_read = 0;
	d->doorbell = DB_IDLE;
	if (d->message[3] == SCSI_IO) {
		begin_reply(reply, d->message, 20, BAD_FUNCTION);
		len = 20;
	}
	if (!len) /* the reply has gone through the queue */
		return;
	memset(d->message, 0, sizeof(d->message));
	memcpy(d->message, reply, len);
	d->words = (uint16_t)(len / 2);
	d->doorbell = DB_GIVE;
	raise_doorbell(d);
}

static void
doorbell_write(struct lsilogic *d, uint32_t value)
{
	if (d->doorbell == DB_TAKE) {
		put_le32(d->message + 4 * d->word++, value);
		if (d->word == d->words)
			handshake_complete(d);
		return;
	}
	d->doorbell = DB_IDLE;
	switch (value >> 24) {
	case MESSAGE_UNIT_RESET:
	case IO_UNIT_RESET:
		unit_reset(d);
		break;
	case HANDSHAKE:
		d->words = value >> 16 & 0xff;
		d->word = 0;
		if (d->words < 3 || d->words > HANDSHAKE_MAX) {
			log_guest(d->pci.dev.name, "a message of %u words", d->words);
			break;
		}
		memset(d->message, 0, sizeof(d->message));
		d->doorbell = DB_TAKE;
		raise_doorbell(d);
		break;
	case FRAME_REMOVAL:
		memset(&d->free_frames, 0, sizeof(d->free_frames));
		break;
	}
}

static uint32_t
doorbell_read(struct lsilogic *d)
{
	uint32_t value = (uint32_t)d->state << 28 | (uint32_t)d->who << 24;

	if (d->state == IOC_FAULT)
		value |= d->fault;
	if (d->doorbell == DB_TAKE)
		return value | DOORBELL_ACTIVE;
	if (d->doorbell != DB_GIVE)
		return value;
	value = (value & 0xffff0000) | DOORBELL_ACTIVE | le16(d->message + 2 * d->word++);
	d->word_read = 1;
	if (d->word == d->words)
		d->doorbell = DB_END;
	return value;
}

/* The host acknowledges the doorbell's interrupt: the next word, or the end, is announced by another. */
static void
acknowledge(struct lsilogic *d)
{
	d->status &= ~(uint32_t)INT_DOORBELL;
	if (d->word_read) {
		d->word_read = 0;
		if (d->doorbell == DB_END)
			d->doorbell = DB_IDLE;
		d->status |= INT_DOORBELL;
	}
	update_irq(d);
}

/* ---- registers ---- */

static void
write_sequence(struct lsilogic *d, uint32_t value)
{
	static const uint8_t keys[] = { 0x04, 0x0b, 0x02, 0x07, 0x0d };

	value &= 15;
	if (d->sequence < ARRAY_LEN(keys) && value == keys[d->sequence])
		d->sequence++;
	else
		d->sequence = value == keys[0];
	if (d->sequence == ARRAY_LEN(keys)) {
		d->sequence = 0;
		d->diagnostic |= DIAG_WRITE_ENABLE;
	} else if (value == 15) {
		d->diagnostic &= ~(uint32_t)DIAG_WRITE_ENABLE;
	}
}

static void
write_diagnostic(struct lsilogic *d, uint32_t value)
{
	if (!(d->diagnostic & DIAG_WRITE_ENABLE))
		return;
	d->diagnostic = (d->diagnostic & (DIAG_WRITE_ENABLE | DIAG_HISTORY)) | (value & 0x613);
	if (!(value & DIAG_HISTORY))
		d->diagnostic &= ~(uint32_t)DIAG_HISTORY;
	if (value & DIAG_RESET)
		adapter_reset(d);
}

static uint64_t
lsilogic_read(void *opaque, uint64_t off, unsigned size)
{
	struct lsilogic *d = opaque;

	switch (off & ~3ull) {
	case DOORBELL:
		return doorbell_read(d);
	case DIAGNOSTIC:
		return d->diagnostic;
	case INTERRUPT_STATUS:
		return d->status;
	case INTERRUPT_MASK:
		return d->mask;
	case REPLIES:
		return read_reply(d);
	}
	return 0;
}

static void
lsilogic_write(void *opaque, uint64_t off, uint64_t value, unsigned size)
{
	struct lsilogic *d = opaque;

	switch (off & ~3ull) {
	case DOORBELL:
		doorbell_write(d, (uint32_t)value);
		break;
	case WRITE_SEQUENCE:
		write_sequence(d, (uint32_t)value);
		break;
	case DIAGNOSTIC:
		write_diagnostic(d, (uint32_t)value);
		break;
	case INTERRUPT_STATUS:
		acknowledge(d);
		break;
	case INTERRUPT_MASK:
		d->mask = (uint32_t)value & (INT_REPLY | INT_DOORBELL);
		update_irq(d);
		break;
	case REQUESTS:
	case URGENT_REQUESTS:
		write_request(d, (uint32_t)value);
		break;
	case REPLIES:
		if (!queue_put(&d->free_frames, (uint32_t)value))
			log_guest(d->pci.dev.name, "there are more free reply frames than the queue has room for");
		break;
	}
}

static uint64_t
nothing_read(void *opaque, uint64_t off, unsigned size)
{
	return 0;
}

static void
nothing_write(void *opaque, uint64_t off, uint64_t value, unsigned size)
{
}

static const struct bus_ops lsilogic_ops = { lsilogic_read, lsilogic_write, 4, 4 };
static const struct bus_ops diag_ops = { nothing_read, nothing_write, 1, 8 };

/* ---- the device ---- */

static void
lsilogic_reset(struct device *dev)
{
	struct lsilogic *d = (struct lsilogic *)dev;

	adapter_reset(d);
	d->diagnostic = 0;
	for (int i = 0; i < LSILOGIC_TARGETS; i++)
		scsi_reset(&d->unit[i], true);
	pci_reset(&d->pci);
}

static void
lsilogic_drain(struct device *dev)
{
	struct lsilogic *d = (struct lsilogic *)dev;

	do
		drain(d);
	while (d->in_flight);
}

static void
check_queue(struct queue *q)
{
	if (q->head >= QUEUE || q->tail >= QUEUE)
		q->head = q->tail = 0;
}

static void
lsilogic_loaded(struct device *dev)
{
	struct lsilogic *d = (struct lsilogic *)dev;

	check_queue(&d->requests);
	check_queue(&d->free_frames);
	check_queue(&d->replies);
	if (d->doorbell > DB_END || (d->doorbell == DB_TAKE && (d->words > HANDSHAKE_MAX || d->word >= d->words)) ||
		(d->doorbell >= DB_GIVE && (d->words > REPLY_MAX / 2 || d->word >= d->words + (d->doorbell == DB_END))))
		d->doorbell = DB_IDLE;
	d->in_flight = 0;
	update_irq(d);
	start_requests(d);
}

static void
lsilogic_destroy(struct device *dev)
{
	struct lsilogic *d = (struct lsilogic *)dev;
	struct request *r;

	unit_reset(d);
	for (int i = 0; i < LSILOGIC_TARGETS; i++)
		scsi_detach(&d->unit[i]);
	pci_remove(dev->m, &d->pci);
	while ((r = d->idle)) {
		d->idle = r->next_idle;
		free(r);
	}
	free(d);
}

static const struct dev_class lsilogic_class = {
	.name = "lsilogic",
	.fields = lsilogic_fields,
	.reset = lsilogic_reset,
	.loaded = lsilogic_loaded,
	.destroy = lsilogic_destroy,
	.drain = lsilogic_drain,
};

static const struct dev_class lsisas_class = {
	.name = "lsisas",
	.fields = lsilogic_fields,
	.reset = lsilogic_reset,
	.loaded = lsilogic_loaded,
	.destroy = lsilogic_destroy,
	.drain = lsilogic_drain,
};

static struct lsilogic *
create(struct machine *m, int slot, bool sas, struct err *e)
{
	struct lsilogic *d = xcalloc(1, sizeof(*d));
	struct pci_dev *p = &d->pci;

	d->sas = sas;
	d->targets = sas ? LSISAS_TARGETS : LSILOGIC_TARGETS;
	p->vendor = 0x1000;
	p->device = sas ? 0x0054 : 0x0030;
	p->subvendor = 0x1000;
	p->subdevice = sas ? 0x3050 : 0x8000;
	p->revision = sas ? 0x01 : 0x08;
	p->class = sas ? 0x010700 : 0x010000;
	p->intx_pin = 1;
	p->bars[0] = (struct pci_bar){ .kind = PCI_BAR_IO, .size = 256, .ops = &lsilogic_ops, .opaque = d };
	p->bars[1] = (struct pci_bar){ .kind = PCI_BAR_MEM32, .size = 0x4000, .ops = &lsilogic_ops, .opaque = d };
	p->bars[2] = (struct pci_bar){ .kind = PCI_BAR_MEM32, .size = DIAG_BAR_SIZE, .ops = &diag_ops, .opaque = d };
	if (pci_add(m, p, sas ? &lsisas_class : &lsilogic_class, slot, 0)) {
		free(d);
		err_set(e, ERR_IN_USE, "There is no free PCI slot for the LSI Logic controller");
		return NULL;
	}
	lsilogic_reset(&p->dev);
	return d;
}

struct lsilogic *
lsilogic_create(struct machine *m, int slot, struct err *e)
{
	return create(m, slot, false, e);
}

struct lsilogic *
lsisas_create(struct machine *m, int slot, struct err *e)
{
	return create(m, slot, true, e);
}

int
lsilogic_attach(struct lsilogic *d, int target, const struct drive_config *cfg, struct err *e)
{
	if (target < 0 || target >= d->targets)
		return err_set(
			e, ERR_INVALID, "The LSI Logic controller has ports 0 to %d, not %d", d->targets - 1, target);
	if (d->unit[target].present)
		return err_set(
			e, ERR_IN_USE, "There is a drive already at port %d of the LSI Logic controller", target);
	if (!cfg->cdrom && !cfg->block)
		return err_set(e, ERR_INVALID, "The disk at port %d of the LSI Logic controller has no image", target);
	scsi_attach(&d->unit[target], d->pci.dev.m, cfg, d->pci.dev.name, target);
	return 0;
}

int
lsilogic_change_medium(struct lsilogic *d, int target, struct block *medium, bool force)
{
	if (target < 0 || target >= d->targets)
		return -ENOENT;
	return scsi_change_medium(&d->unit[target], medium, force);
}
