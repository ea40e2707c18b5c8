/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An xHCI 1.1 host controller, 8086:1e31 ("eXtensible Host Controller Interface for Universal Serial Bus" 1.1, xHCI
 * below). All state structures are xHCI's chapter 6.
 *
 *	BAR 0, 64 KiB: 0x0000 capabilities (5.3), 0x0080 operational (5.4), 0x0480 ports (5.4.8), 0x1000 runtime (5.5),
 *	0x2000 doorbells (5.6), 0x8000 extended capabilities (7)
 *
 * Theory of operation. The guest keeps rings of 16-byte TRBs in its memory: one of commands, one for each endpoint of
 * each slot, and the event ring, which is ours to write. A doorbell says that a ring has something new. Here that ring
 * is then worked on at once: a transfer descriptor (TRBs joined by their chain bit) is gathered, the device is asked,
 * the result is put into the guest's buffers and an event is posted. A device with nothing to say (NAK) leaves the
 * descriptor where it is; its wake() runs the ring again. Only so much is done at a time (TDS_AT_ONCE), the rest by a
 * timer, so that a ring that never ends (Link TRBs) cannot hold the machine lock.
 *
 * Where an endpoint's ring is read is kept here (`ring`, `cycle`) and shown to the guest in its contexts when the
 * endpoint stops, as 4.6.9 has it.
 *
 * Endpoint states (6.2.3): DISABLED, RUNNING, HALTED (after a stall: Reset Endpoint), STOPPED (Stop Endpoint, Set TR
 * Dequeue Pointer), ERROR. Only RUNNING ones are worked on; a doorbell takes STOPPED to RUNNING.
 *
 * Ports 1 to 8 are USB 2, 9 to 16 USB 3, where nothing is ever plugged in.
 */
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/log.h"
#include "base/str.h"
#include "dev/usb.h"

#define BAR_SIZE 0x10000u
#define OPERATIONAL 0x80u
#define PORTS_AT (OPERATIONAL + 0x400u)
#define RUNTIME 0x1000u
#define DOORBELLS 0x2000u
#define EXTENDED 0x8000u
#define PORTS (2 * XHCI_PORTS)
#define USB2_PORTS XHCI_PORTS
#define SLOTS 32
#define ENDPOINTS 31
#define TDS_AT_ONCE 64
#define TRBS_MAX 256 /* of one transfer descriptor */
#define LINKS_MAX 16
#define TD_MAX (1u << 20)
#define SEGMENTS_MAX 8

enum { USBCMD_RUN = 1, USBCMD_HCRST = 2, USBCMD_INTE = 4 };
enum { USBSTS_HCH = 1, USBSTS_EINT = 8, USBSTS_PCD = 16, USBSTS_HCE = 1 << 12 };
enum { IMAN_IP = 1, IMAN_IE = 2 };
enum {
	PORTSC_CCS = 1,
	PORTSC_PED = 2,
	PORTSC_PR = 1 << 4,
	PORTSC_PLS = 0xf << 5,
	PORTSC_PP = 1 << 9,
	PORTSC_LWS = 1 << 16,
	PORTSC_CSC = 1 << 17,
	PORTSC_PRC = 1 << 21,
	PORTSC_PLC = 1 << 22,
	PORTSC_CHANGES = 0x7f << 17,
	PORTSC_KEPT = 7 << 25, /* wake-up enables */
};
enum { PLS_U0 = 0, PLS_U3 = 3, PLS_RXDETECT = 5, PLS_POLLING = 7, PLS_RESUME = 15 };

/* TRB types (6.4.6) and completion codes (6.4.5) */
enum {
	TRB_NORMAL = 1,
	TRB_SETUP,
	TRB_DATA,
	TRB_STATUS,
	TRB_ISOCH,
	TRB_LINK,
	TRB_EVENT_DATA,
	TRB_NOOP,
	CMD_ENABLE_SLOT,
	CMD_DISABLE_SLOT,
	CMD_ADDRESS_DEVICE,
	CMD_CONFIGURE,
	CMD_EVALUATE,
	CMD_RESET_ENDPOINT,
	CMD_STOP_ENDPOINT,
	CMD_SET_DEQUEUE,
	CMD_RESET_DEVICE,
	CMD_NOOP = 23,
	EVENT_TRANSFER = 32,
	EVENT_COMMAND = 33,
	EVENT_PORT = 34,
};
enum {
	CC_SUCCESS = 1,
	CC_TRANSACTION = 4,
	CC_TRB = 5,
	CC_STALL = 6,
	CC_NO_SLOTS = 9,
	CC_SLOT_DISABLED = 11,
	CC_SHORT = 13,
	CC_PARAMETER = 17,
	CC_CONTEXT = 19,
};
#define TRB_CYCLE 1u
#define TRB_TOGGLE 2u
#define TRB_ISP 4u
#define TRB_CHAIN 16u
#define TRB_IOC 32u
#define TRB_IDT 64u
#define TRB_TYPE(control) ((control) >> 10 & 0x3f)

enum ep_state { EP_DISABLED, EP_RUNNING, EP_HALTED, EP_STOPPED, EP_ERROR };
enum slot_state { SLOT_ENABLED = 0, SLOT_DEFAULT = 1, SLOT_ADDRESSED = 2, SLOT_CONFIGURED = 3 };

struct endpoint {
	uint64_t ring;
	uint8_t cycle, state, type;
	uint8_t has_setup, done; /* of a control transfer: its setup stage was seen; the device was asked */
	uint8_t setup[8];
	uint16_t out_len;
	uint8_t out[USB_CONTROL_MAX]; /* data of a control transfer before its status stage */
};

struct slot {
	uint64_t context;
	uint8_t enabled, port; /* 1-based; 0: none */
	uint8_t unused[6];
	struct endpoint ep[ENDPOINTS]; /* by device context index - 1 */
};

struct xhci {
	struct pci_dev pci;
	struct vtimer more;
	uint32_t cmd, sts, dnctrl, config, legacy;
	uint64_t command_ring, dcbaap;
	uint8_t command_cycle, event_cycle, overflow;
	uint32_t iman, imod, erstsz;
	uint64_t erstba, erdp;
	uint32_t segment, index; /* where the next event goes */
	uint64_t segment_at;
	uint32_t segment_size;
	uint64_t pending[SLOTS]; /* endpoints with work left, a bit for each index */
	uint32_t portsc[PORTS];
	struct slot slot[SLOTS];
	bool running; /* rings are being worked on: a wake does not come in between */
	struct usb_device *device[PORTS];
	uint8_t *bounce; /* TD_MAX bytes */
};

static const struct field xhci_fields[] = {
	FIELD(struct xhci, cmd),
	FIELD(struct xhci, sts),
	FIELD(struct xhci, dnctrl),
	FIELD(struct xhci, config),
	FIELD(struct xhci, legacy),
	FIELD(struct xhci, command_ring),
	FIELD(struct xhci, dcbaap),
	FIELD(struct xhci, command_cycle),
	FIELD(struct xhci, event_cycle),
	FIELD(struct xhci, overflow),
	FIELD(struct xhci, iman),
	FIELD(struct xhci, imod),
	FIELD(struct xhci, erstsz),
	FIELD(struct xhci, erstba),
	FIELD(struct xhci, erdp),
	FIELD(struct xhci, segment),
	FIELD(struct xhci, index),
	FIELD(struct xhci, segment_at),
	FIELD(struct xhci, segment_size),
	FIELD_ARRAY(struct xhci, pending),
	FIELD_ARRAY(struct xhci, portsc),
	FIELD_ARRAY(struct xhci, slot),
	FIELD_END,
};

struct trb {
	uint64_t parameter;
	uint32_t status, control;
	gpa_t at;
};

static struct mem *
memory(struct xhci *x)
{
	return &x->pci.dev.m->mem;
}

static bool
read_trb(struct xhci *x, gpa_t at, struct trb *t)
{
	uint8_t raw[16];

	t->at = at;
	if (!mem_read(memory(x), at, raw, sizeof(raw)))
		return false;
	t->parameter = le64(raw);
	t->status = le32(raw + 8);
	t->control = le32(raw + 12);
	return true;
}

/* The controller cannot go on (4.10.2.6, Host Controller Error). */
static void
fail(struct xhci *x, const char *why)
{
	log_guest(x->pci.dev.name, "%s; the controller stops", why);
	x->sts |= USBSTS_HCE | USBSTS_HCH;
	x->cmd &= ~(uint32_t)USBCMD_RUN;
}

/* ---- events ---- */

static void
update_irq(struct xhci *x)
{
	bool level = (x->iman & IMAN_IP) && (x->iman & IMAN_IE) && (x->cmd & USBCMD_INTE);

	pci_irq(&x->pci, level);
	if (level && pci_msi_enabled(&x->pci)) { /* 4.17.5 */
		x->iman &= ~(uint32_t)IMAN_IP;
		pci_irq(&x->pci, 0);
	}
}

static bool
load_segment(struct xhci *x, uint32_t n)
{
	uint8_t raw[16];

	if (!mem_read(memory(x), x->erstba + 16ull * n, raw, sizeof(raw)))
		return false;
	x->segment = n;
	x->index = 0;
	x->segment_at = le64(raw) & ~63ull;
	x->segment_size = le32(raw + 8) & 0xffff;
	return x->segment_size >= 16 && x->segment_size <= 4096;
}

static void
event_ring_begin(struct xhci *x)
{
	x->event_cycle = 1;
	x->overflow = 0;
	if (!x->erstsz || !load_segment(x, 0))
		x->segment_size = 0;
}

/* Is the entry behind the next one the guest's? Then the ring is full with the next one (4.9.4). */
static bool
ring_full(struct xhci *x)
{
	uint64_t behind = x->segment_at + 16ull * (x->index + 1);
	uint8_t raw[16];

	if (x->index + 1 == x->segment_size) {
		uint32_t next = x->segment + 1 < x->erstsz ? x->segment + 1 : 0;

		if (!mem_read(memory(x), x->erstba + 16ull * next, raw, sizeof(raw)))
			return true;
		behind = le64(raw) & ~63ull;
	}
	return behind == (x->erdp & ~15ull);
}

static void
advance_event(struct xhci *x)
{
	if (++x->index < x->segment_size)
		return;
	if (x->segment + 1 >= x->erstsz) {
		x->event_cycle ^= 1;
		if (!load_segment(x, 0))
			fail(x, "the event ring's table is broken");
	} else if (!load_segment(x, x->segment + 1)) {
		fail(x, "the event ring's table is broken");
	}
}

static void
post_event(struct xhci *x, uint64_t parameter, uint32_t status, uint32_t control)
{
	uint8_t raw[16];

	if (!x->segment_size || (x->sts & USBSTS_HCE))
		return;
	if (ring_full(x)) {
		if (!x->overflow)
			log_guest(x->pci.dev.name, "the event ring is full; events are lost");
		x->overflow = 1;
		return;
	}
	x->overflow = 0;
	put_le64(raw, parameter);
	put_le32(raw + 8, status);
	put_le32(raw + 12, control | x->event_cycle);
	if (!mem_write(memory(x), x->segment_at + 16ull * x->index, raw, sizeof(raw))) {
		fail(x, "the event ring is not memory");
		return;
	}
	advance_event(x);
	x->erdp |= 8; /* busy */
	x->iman |= IMAN_IP;
	x->sts |= USBSTS_EINT;
	update_irq(x);
}

static void
post_port_event(struct xhci *x, int port)
{
	if (x->cmd & USBCMD_RUN)
		post_event(x, (uint64_t)(port + 1) << 24, CC_SUCCESS << 24, EVENT_PORT << 10);
	x->sts |= USBSTS_PCD;
}

/* ---- contexts ---- */

static uint64_t
ep_context(const struct slot *s, int dci)
{
	return s->context + 32ull * (unsigned)dci;
}

/* The guest sees in what state an endpoint is and where its ring will be read. */
static void
show_endpoint(struct xhci *x, struct slot *s, int dci)
{
	struct endpoint *ep = &s->ep[dci - 1];
	uint8_t raw[16];
	uint64_t at = ep_context(s, dci);

	if (!mem_read(memory(x), at, raw, sizeof(raw)))
		return;
	put_le32(raw, (le32(raw) & ~7u) | ep->state);
	put_le64(raw + 8, ep->ring | ep->cycle);
	mem_write(memory(x), at, raw, sizeof(raw));
}

static void
set_ep_state(struct xhci *x, struct slot *s, int dci, enum ep_state state)
{
	s->ep[dci - 1].state = (uint8_t)state;
	show_endpoint(x, s, dci);
}

static struct usb_device *
device_of(struct xhci *x, const struct slot *s)
{
	return s->port && s->port <= PORTS && (x->portsc[s->port - 1] & PORTSC_PED) ? x->device[s->port - 1] : NULL;
}

/* ---- transfers ---- */

struct td {
	struct trb trb[TRBS_MAX];
	int count;
	uint32_t len;  /* of all its buffers */
	uint64_t next; /* behind it */
	uint8_t next_cycle;
};

enum gather { GATHER_WHOLE, GATHER_NONE, GATHER_BAD };

static bool
has_buffer(const struct trb *t)
{
	unsigned type = TRB_TYPE(t->control);

	return type == TRB_NORMAL || type == TRB_DATA || type == TRB_ISOCH;
}

/* The transfer descriptor at the head of the ring. */
static enum gather
gather(struct xhci *x, const struct endpoint *ep, struct td *td)
{
	uint64_t at = ep->ring;
	uint8_t cycle = ep->cycle;
	int links = 0;

	td->count = 0;
	td->len = 0;
	for (;;) {
		struct trb t;

		if (!read_trb(x, at, &t))
			return GATHER_BAD;
		if ((t.control & TRB_CYCLE) != cycle)
			return GATHER_NONE;
		if (TRB_TYPE(t.control) == TRB_LINK) {
			if (++links > LINKS_MAX)
				return GATHER_BAD;
			at = t.parameter & ~15ull;
			cycle ^= (t.control & TRB_TOGGLE) != 0;
			continue;
		}
		if (td->count == TRBS_MAX)
			return GATHER_BAD;
		td->trb[td->count++] = t;
		at += 16;
		if (has_buffer(&t) && (td->len += t.status & 0x1ffff) > TD_MAX)
			return GATHER_BAD;
		if (!(t.control & TRB_CHAIN))
			break;
	}
	td->next = at;
	td->next_cycle = cycle;
	return GATHER_WHOLE;
}

/* Between the guest's buffers and the bounce buffer; at most `len` bytes. */
static bool
copy(struct xhci *x, const struct td *td, uint32_t len, bool to_guest)
{
	uint32_t done = 0;

	for (int i = 0; i < td->count && done < len; i++) {
		const struct trb *t = &td->trb[i];
		uint32_t n = has_buffer(t) ? MIN(t->status & 0x1ffff, len - done) : 0;

		if (!n)
			continue;
		if (t->control & TRB_IDT) {
			if (to_guest || n > 8)
				return false;
			put_le64(x->bounce + done, t->parameter); /* TD_MAX leaves room */
		} else if (to_guest ? !mem_write(memory(x), t->parameter, x->bounce + done, n)
				    : !mem_read(memory(x), t->parameter, x->bounce + done, n)) {
			return false;
		}
		done += n;
	}
	return true;
}

/* The event of a descriptor of which `moved` bytes went over (4.10.1). */
static void
report(struct xhci *x, int slot, int dci, const struct td *td, uint32_t moved, unsigned code)
{
	uint32_t left = moved, total = 0, ids = (uint32_t)slot << 24 | (uint32_t)dci << 16 | EVENT_TRANSFER << 10;

	for (int i = 0; i < td->count; i++) {
		const struct trb *t = &td->trb[i];
		uint32_t size = has_buffer(t) ? t->status & 0x1ffff : 0, n = MIN(size, left);
		bool is_short = code == CC_SUCCESS && n < size, last = i + 1 == td->count;
		bool failed = code != CC_SUCCESS && (n < size || last);

		left -= n;
		total += n;
		if (TRB_TYPE(t->control) == TRB_EVENT_DATA && (t->control & TRB_IOC)) {
			unsigned c = moved < td->len && code == CC_SUCCESS ? CC_SHORT : code;

			post_event(x, t->parameter, total | (uint32_t)c << 24, ids | 4);
			continue;
		}
		if (!failed && !(t->control & TRB_IOC) && !(is_short && (t->control & TRB_ISP)))
			continue;
		post_event(x, t->at, (size - n) | (uint32_t)(is_short ? CC_SHORT : code) << 24, ids);
		if (failed || is_short)
			return;
	}
}

static void
halt(struct xhci *x, int slot, int dci, const struct td *td, uint32_t moved, unsigned code)
{
	report(x, slot, dci, td, moved, code);
	set_ep_state(x, &x->slot[slot - 1], dci, EP_HALTED);
}

static void
advance(struct endpoint *ep, const struct td *td)
{
	ep->ring = td->next;
	ep->cycle = td->next_cycle;
}

/* A stage of a control transfer (4.11.2.2). The device is asked in the data stage, or in the status stage when data
 * goes to it or there is none. 0, or the code to halt with. */
static unsigned
control_stage(struct xhci *x, struct usb_device *d, struct endpoint *ep, const struct td *td, uint32_t *moved)
{
	unsigned type = TRB_TYPE(td->trb[0].control);
	int r, len;

	*moved = 0;
	if (type == TRB_SETUP) {
		put_le64(ep->setup, td->trb[0].parameter);
		ep->has_setup = 1;
		ep->done = 0;
		ep->out_len = 0;
		*moved = 8;
		return 0;
	}
	if (type == TRB_NOOP)
		return 0;
	if (!ep->has_setup || (type != TRB_DATA && type != TRB_STATUS))
		return CC_TRB;
	len = MIN(le16(ep->setup + 6), USB_CONTROL_MAX);
	if (type == TRB_DATA && (ep->setup[0] & 0x80)) {
		r = d->class->control(d, ep->setup, x->bounce, MIN((int)td->len, len));
		ep->done = 1;
		if (r < 0)
			return CC_STALL;
		*moved = (uint32_t)r;
		return copy(x, td, *moved, true) ? 0 : CC_TRANSACTION;
	}
	if (type == TRB_DATA) {
		ep->out_len = (uint16_t)MIN(td->len, (uint32_t)len);
		*moved = ep->out_len;
		if (!copy(x, td, ep->out_len, false))
			return CC_TRANSACTION;
		memcpy(ep->out, x->bounce, ep->out_len);
		return 0;
	}
	ep->has_setup = 0;
	if (ep->done)
		return 0;
	memcpy(x->bounce, ep->out, sizeof(ep->out));
	/* A request for data without a data stage gets none. */
	r = d->class->control(d, ep->setup, x->bounce, ep->setup[0] & 0x80 ? 0 : ep->out_len);
	return r < 0 ? CC_STALL : 0;
}

/* False: nothing moves at present. */
static bool
control_transfer(struct xhci *x, struct usb_device *d, int slot, struct endpoint *ep, const struct td *td)
{
	uint32_t moved;
	unsigned code = control_stage(x, d, ep, td, &moved);

	if (code) {
		ep->has_setup = 0;
		halt(x, slot, 1, td, moved, code);
		return false;
	}
	if (TRB_TYPE(td->trb[0].control) == TRB_SETUP)
		moved = 0;
	report(x, slot, 1, td, moved, CC_SUCCESS);
	advance(ep, td);
	return true;
}

static bool
data_transfer(struct xhci *x, struct usb_device *d, int slot, int dci, struct endpoint *ep, const struct td *td)
{
	bool in = dci & 1;
	int r;

	if (!in && !copy(x, td, td->len, false)) {
		halt(x, slot, dci, td, 0, CC_TRANSACTION);
		return false;
	}
	r = d->class->data(d, dci / 2, in, x->bounce, (int)td->len);
	if (r == USB_NAK)
		return false;
	if (r < 0 || (in && !copy(x, td, (uint32_t)r, true))) {
		halt(x, slot, dci, td, 0, r < 0 ? CC_STALL : CC_TRANSACTION);
		return false;
	}
	report(x, slot, dci, td, in ? (uint32_t)r : td->len, CC_SUCCESS);
	advance(ep, td);
	return true;
}

/* One descriptor of an endpoint; false: it waits, or has nothing to do. */
static bool
run_td(struct xhci *x, int slot, int dci)
{
	struct slot *s = &x->slot[slot - 1];
	struct endpoint *ep = &s->ep[dci - 1];
	struct usb_device *d = device_of(x, s);
	struct td td;

	if (ep->state != EP_RUNNING || !(x->cmd & USBCMD_RUN))
		return false;
	switch (gather(x, ep, &td)) {
	case GATHER_NONE:
		return false;
	case GATHER_BAD:
		log_guest(x->pci.dev.name, "slot %d, endpoint %d: a ring that is none", slot, dci);
		set_ep_state(x, s, dci, EP_ERROR);
		return false;
	case GATHER_WHOLE:
		break;
	}
	if (!d) {
		halt(x, slot, dci, &td, 0, CC_TRANSACTION);
		return false;
	}
	return dci == 1 ? control_transfer(x, d, slot, ep, &td) : data_transfer(x, d, slot, dci, ep, &td);
}

static void
run_endpoint(struct xhci *x, int slot, int dci)
{
	uint64_t bit = 1ull << dci;

	x->pending[slot - 1] &= ~bit;
	for (int n = 0; n < TDS_AT_ONCE; n++)
		if (!run_td(x, slot, dci))
			return;
	x->pending[slot - 1] |= bit;
}

/* All that has been asked for; what a device's wake() asks for meanwhile too, a few rounds of it. */
static void
run_pending(struct xhci *x)
{
	bool any = true;

	if (x->running)
		return;
	x->running = true;
	for (int round = 0; round < 4 && any; round++) {
		any = false;
		for (int s = 1; s <= SLOTS; s++)
			for (int dci = 1; dci <= ENDPOINTS && x->pending[s - 1]; dci++)
				if (x->pending[s - 1] >> dci & 1) {
					any = true;
					run_endpoint(x, s, dci);
				}
	}
	x->running = false;
	if (any && !x->more.armed)
		vtimer_arm(&x->more, clock_now(&x->pci.dev.m->clock) + 50000);
}

static void
run_more(void *opaque)
{
	run_pending(opaque);
}

static void
kick(struct xhci *x, int slot, int dci)
{
	x->pending[slot - 1] |= 1ull << dci;
	run_pending(x);
}

/* A device has something to say. */
static void
device_wakes(void *opaque, int endpoint, bool in)
{
	struct usb_device *d = opaque;
	struct xhci *x = d->host;

	for (int s = 1; s <= SLOTS; s++)
		if (x->slot[s - 1].enabled && device_of(x, &x->slot[s - 1]) == d)
			kick(x, s, endpoint * 2 + in);
}

/* ---- commands (4.6) ---- */

static void
forget_slot(struct xhci *x, int slot)
{
	memset(&x->slot[slot - 1], 0, sizeof(x->slot[0]));
	x->pending[slot - 1] = 0;
}

static int
enable_slot(struct xhci *x)
{
	int most = MIN((int)(x->config & 0xff), SLOTS);

	for (int s = 1; s <= most; s++)
		if (!x->slot[s - 1].enabled) {
			forget_slot(x, s);
			x->slot[s - 1].enabled = 1;
			return s;
		}
	return 0;
}

/* An endpoint begins with what its context says. */
static void
open_endpoint(struct xhci *x, struct slot *s, int dci, const uint8_t context[32])
{
	struct endpoint *ep = &s->ep[dci - 1];

	memset(ep, 0, sizeof(*ep));
	ep->type = context[4] >> 3 & 7;
	ep->ring = le64(context + 8) & ~15ull;
	ep->cycle = context[8] & 1;
	ep->state = EP_RUNNING;
	mem_write(memory(x), ep_context(s, dci), context, 32);
	show_endpoint(x, s, dci);
}

static void
set_slot_state(struct xhci *x, struct slot *s, enum slot_state state, unsigned address)
{
	uint8_t raw[4];

	put_le32(raw, (uint32_t)state << 27 | address);
	mem_write(memory(x), s->context + 12, raw, 4);
}

static unsigned
address_device(struct xhci *x, int slot, const struct trb *t)
{
	struct slot *s = &x->slot[slot - 1];
	uint64_t input = t->parameter & ~15ull;
	uint8_t control[32], context[32], ep0[32], raw[8];
	unsigned port;

	if (!mem_read(memory(x), input, control, 32) || !mem_read(memory(x), input + 32, context, 32) ||
		!mem_read(memory(x), input + 64, ep0, 32) ||
		!mem_read(memory(x), x->dcbaap + 8ull * (unsigned)slot, raw, 8))
		return CC_TRB;
	port = context[6];
	if ((le32(control + 4) & 3) != 3 || !port || port > PORTS || (le32(context) & 0xfffff))
		return CC_PARAMETER;
	s->context = le64(raw) & ~63ull;
	s->port = (uint8_t)port;
	if (!device_of(x, s))
		return CC_TRANSACTION;
	mem_write(memory(x), s->context, context, 32);
	open_endpoint(x, s, 1, ep0);
	set_slot_state(
		x, s, t->control & 1 << 9 ? SLOT_DEFAULT : SLOT_ADDRESSED, t->control & 1 << 9 ? 0 : (unsigned)slot);
	return CC_SUCCESS;
}

static void
close_endpoints(struct xhci *x, struct slot *s, uint32_t which)
{
	for (int dci = 2; dci <= ENDPOINTS; dci++)
		if (which >> dci & 1 && s->ep[dci - 1].state) {
			set_ep_state(x, s, dci, EP_DISABLED);
			memset(&s->ep[dci - 1], 0, sizeof(s->ep[0]));
		}
}

static unsigned
configure(struct xhci *x, int slot, const struct trb *t)
{
	struct slot *s = &x->slot[slot - 1];
	uint64_t input = t->parameter & ~15ull;
	uint8_t control[32], context[32];
	uint32_t add, drop;

	if (!s->context)
		return CC_CONTEXT;
	if (t->control & 1 << 9) { /* deconfigure */
		close_endpoints(x, s, ~0u);
		set_slot_state(x, s, SLOT_ADDRESSED, (unsigned)slot);
		return CC_SUCCESS;
	}
	if (!mem_read(memory(x), input, control, 32))
		return CC_TRB;
	drop = le32(control);
	add = le32(control + 4);
	if ((drop & 3) || !(add & 1) || (add & 2))
		return CC_PARAMETER;
	close_endpoints(x, s, drop);
	for (int dci = 2; dci <= ENDPOINTS; dci++) {
		if (!(add >> dci & 1))
			continue;
		if (!mem_read(memory(x), input + 32ull * (unsigned)(dci + 1), context, 32))
			return CC_TRB;
		open_endpoint(x, s, dci, context);
	}
	if (mem_read(memory(x), input + 32, context, 12))
		mem_write(memory(x), s->context, context, 12);
	set_slot_state(x, s, SLOT_CONFIGURED, (unsigned)slot);
	return CC_SUCCESS;
}

/* The fields that 4.6.7 names: interrupter and exit latency of the slot, packet size of the control endpoint. */
static unsigned
evaluate(struct xhci *x, int slot, const struct trb *t)
{
	struct slot *s = &x->slot[slot - 1];
	uint64_t input = t->parameter & ~15ull;
	uint8_t control[8], from[8], to[8];

	if (!s->context)
		return CC_CONTEXT;
	if (!mem_read(memory(x), input, control, 8))
		return CC_TRB;
	if (le32(control + 4) & 2 && mem_read(memory(x), input + 64, from, 8) &&
		mem_read(memory(x), ep_context(s, 1), to, 8)) {
		memcpy(to + 6, from + 6, 2);
		mem_write(memory(x), ep_context(s, 1), to, 8);
	}
	return CC_SUCCESS;
}

static unsigned
endpoint_command(struct xhci *x, int slot, const struct trb *t)
{
	struct slot *s = &x->slot[slot - 1];
	int dci = (int)(t->control >> 16 & 0x1f);
	struct endpoint *ep;

	if (!dci || !s->context)
		return CC_PARAMETER;
	ep = &s->ep[dci - 1];
	switch (TRB_TYPE(t->control)) {
	case CMD_RESET_ENDPOINT:
		if (ep->state != EP_HALTED)
			return CC_CONTEXT;
		break;
	case CMD_STOP_ENDPOINT:
		if (ep->state != EP_RUNNING)
			return CC_CONTEXT;
		break;
	default:
		if (ep->state != EP_STOPPED && ep->state != EP_ERROR)
			return CC_CONTEXT;
		ep->ring = t->parameter & ~15ull;
		ep->cycle = t->parameter & 1;
	}
	ep->has_setup = 0;
	x->pending[slot - 1] &= ~(1ull << dci);
	set_ep_state(x, s, dci, EP_STOPPED);
	return CC_SUCCESS;
}

static unsigned
reset_device(struct xhci *x, int slot)
{
	struct slot *s = &x->slot[slot - 1];

	if (!s->context)
		return CC_CONTEXT;
	close_endpoints(x, s, ~0u);
	set_slot_state(x, s, SLOT_DEFAULT, 0);
	return CC_SUCCESS;
}

static unsigned
slot_command(struct xhci *x, int slot, const struct trb *t)
{
	if (slot < 1 || slot > SLOTS || !x->slot[slot - 1].enabled)
		return CC_SLOT_DISABLED;
	switch (TRB_TYPE(t->control)) {
	case CMD_DISABLE_SLOT:
		forget_slot(x, slot);
		return CC_SUCCESS;
	case CMD_ADDRESS_DEVICE:
		return address_device(x, slot, t);
	case CMD_CONFIGURE:
		return configure(x, slot, t);
	case CMD_EVALUATE:
		return evaluate(x, slot, t);
	case CMD_RESET_DEVICE:
		return reset_device(x, slot);
	default:
		return endpoint_command(x, slot, t);
	}
}

static void
command(struct xhci *x, const struct trb *t)
{
	int slot = (int)(t->control >> 24);
	unsigned type = TRB_TYPE(t->control), code = CC_TRB;

	if (type == CMD_NOOP) {
		code = CC_SUCCESS;
	} else if (type == CMD_ENABLE_SLOT) {
		slot = enable_slot(x);
		code = slot ? CC_SUCCESS : CC_NO_SLOTS;
	} else if (type >= CMD_DISABLE_SLOT && type <= CMD_RESET_DEVICE) {
		code = slot_command(x, slot, t);
	} else {
		log_guest(x->pci.dev.name, "there is no command %u", type);
	}
	post_event(x, t->at, (uint32_t)code << 24, (uint32_t)slot << 24 | EVENT_COMMAND << 10);
}

static void
run_commands(struct xhci *x)
{
	int links = 0;

	for (int n = 0; n < TDS_AT_ONCE && (x->cmd & USBCMD_RUN); n++) {
		struct trb t;

		if (!read_trb(x, x->command_ring, &t) || (t.control & TRB_CYCLE) != x->command_cycle)
			return;
		if (TRB_TYPE(t.control) == TRB_LINK) {
			if (++links > LINKS_MAX)
				return;
			x->command_ring = t.parameter & ~15ull;
			x->command_cycle ^= (t.control & TRB_TOGGLE) != 0;
			continue;
		}
		x->command_ring += 16;
		command(x, &t);
	}
}

/* ---- ports ---- */

static uint32_t
link_state(unsigned pls)
{
	return pls << 5;
}

static void
set_link(struct xhci *x, int n, unsigned pls)
{
	x->portsc[n] = (x->portsc[n] & ~(uint32_t)PORTSC_PLS) | link_state(pls);
}

static void
plug(struct xhci *x, int n)
{
	x->portsc[n] = PORTSC_PP | link_state(x->device[n] ? PLS_POLLING : PLS_RXDETECT);
	if (x->device[n])
		x->portsc[n] |= PORTSC_CCS | PORTSC_CSC | (uint32_t)x->device[n]->speed << 10;
}

static void
reset_port(struct xhci *x, int n)
{
	if (!x->device[n])
		return;
	x->device[n]->class->reset(x->device[n]);
	x->portsc[n] |= PORTSC_PED | PORTSC_PRC;
	set_link(x, n, PLS_U0);
	post_port_event(x, n);
}

static void
change_link(struct xhci *x, int n, unsigned pls)
{
	unsigned was = x->portsc[n] >> 5 & 15;

	if (!(x->portsc[n] & PORTSC_PED))
		return;
	if (pls == PLS_U3)
		set_link(x, n, PLS_U3);
	if (pls == PLS_RESUME || pls == PLS_U0) {
		set_link(x, n, pls);
		if (pls == PLS_U0 && was != PLS_U0) {
			x->portsc[n] |= PORTSC_PLC;
			post_port_event(x, n);
		}
	}
}

static void
write_portsc(struct xhci *x, int n, uint32_t v)
{
	x->portsc[n] &= ~(v & PORTSC_CHANGES);
	x->portsc[n] = (x->portsc[n] & ~(uint32_t)PORTSC_KEPT) | (v & PORTSC_KEPT);
	if (v & PORTSC_PED) { /* written 1: disabled */
		x->portsc[n] &= ~(uint32_t)PORTSC_PED;
		set_link(x, n, PLS_POLLING);
	}
	if (v & (PORTSC_PR | 1u << 31))
		reset_port(x, n);
	else if (v & PORTSC_LWS)
		change_link(x, n, v >> 5 & 15);
}

/* ---- registers ---- */

static void
reset_controller(struct xhci *x)
{
	vtimer_cancel(&x->more);
	x->cmd = x->dnctrl = x->config = 0;
	x->sts = USBSTS_HCH;
	x->command_ring = x->dcbaap = x->erstba = x->erdp = 0;
	x->command_cycle = x->event_cycle = x->overflow = 0;
	x->iman = x->imod = x->erstsz = x->segment = x->index = x->segment_size = 0;
	x->segment_at = 0;
	for (int s = 1; s <= SLOTS; s++)
		forget_slot(x, s);
	for (int n = 0; n < PORTS; n++)
		plug(x, n);
	update_irq(x);
}

static void
write_usbcmd(struct xhci *x, uint32_t v)
{
	bool ran = x->cmd & USBCMD_RUN;

	if (v & USBCMD_HCRST) {
		reset_controller(x);
		return;
	}
	x->cmd = v & 0xc0d;
	if (x->sts & USBSTS_HCE)
		x->cmd &= ~(uint32_t)USBCMD_RUN;
	if (x->cmd & USBCMD_RUN)
		x->sts &= ~(uint32_t)USBSTS_HCH;
	else
		x->sts |= USBSTS_HCH;
	if (!ran && (x->cmd & USBCMD_RUN))
		for (int n = 0; n < PORTS; n++)
			if (x->portsc[n] & PORTSC_CHANGES)
				post_port_event(x, n);
	update_irq(x);
}

static uint32_t
read_capability(uint32_t at)
{
	switch (at) {
	case 0x00:
		return OPERATIONAL | 0x0110u << 16;
	case 0x04:
		return SLOTS | 1 << 8 | (uint32_t)PORTS << 24;
	case 0x08:
		return 0xf0 | 3 << 4; /* IST; event ring segments: 2^3 */
	case 0x10:
		return (EXTENDED >> 2) << 16 | 1; /* 64-bit addresses */
	case 0x14:
		return DOORBELLS;
	case 0x18:
		return RUNTIME;
	default:
		return 0;
	}
}

/* 7.1 legacy support, 7.2 supported protocols. */
static uint32_t
read_extended(struct xhci *x, uint32_t at)
{
	switch (at) {
	case 0x00:
		return x->legacy | 4 << 8 | 1;
	case 0x10:
		return 0x02000000 | 4 << 8 | 2;
	case 0x14:
	case 0x24:
		return 0x20425355; /* "USB " */
	case 0x18:
		return USB2_PORTS << 8 | 1;
	case 0x20:
		return 0x03000000 | 2;
	case 0x28:
		return (PORTS - USB2_PORTS) << 8 | (USB2_PORTS + 1);
	default:
		return 0;
	}
}

static uint32_t
read_operational(struct xhci *x, uint32_t at)
{
	switch (at) {
	case 0x00:
		return x->cmd;
	case 0x04:
		return x->sts;
	case 0x08:
		return 1; /* pages of 4 KiB */
	case 0x14:
		return x->dnctrl;
	case 0x30:
		return (uint32_t)x->dcbaap;
	case 0x34:
		return (uint32_t)(x->dcbaap >> 32);
	case 0x38:
		return x->config;
	default:
		return 0; /* the command ring's address does not read back (5.4.5) */
	}
}

static uint32_t
read_runtime(struct xhci *x, uint32_t at)
{
	switch (at) {
	case 0x00:
		return (uint32_t)(clock_now(&x->pci.dev.m->clock) / 125000) & 0x3fff;
	case 0x20:
		return x->iman;
	case 0x24:
		return x->imod;
	case 0x28:
		return x->erstsz;
	case 0x30:
		return (uint32_t)x->erstba;
	case 0x34:
		return (uint32_t)(x->erstba >> 32);
	case 0x38:
		return (uint32_t)x->erdp;
	case 0x3c:
		return (uint32_t)(x->erdp >> 32);
	default:
		return 0;
	}
}

static uint64_t
xhci_read(void *opaque, uint64_t off, unsigned size)
{
	struct xhci *x = opaque;
	uint32_t at = (uint32_t)off & ~3u, v = 0;

	if (at < OPERATIONAL)
		v = read_capability(at);
	else if (at < PORTS_AT)
		v = read_operational(x, at - OPERATIONAL);
	else if (at < PORTS_AT + 16 * PORTS)
		v = at & 15 ? 0 : x->portsc[(at - PORTS_AT) / 16];
	else if (at >= RUNTIME && at < RUNTIME + 0x40)
		v = read_runtime(x, at - RUNTIME);
	else if (at >= EXTENDED)
		v = read_extended(x, at - EXTENDED);
	return v >> 8 * (off & 3);
}

static void
set_low(uint64_t *to, uint32_t v, uint32_t mask)
{
	*to = (*to & ~0xffffffffull) | (v & mask);
}

static void
set_high(uint64_t *to, uint32_t v)
{
	*to = (*to & 0xffffffffull) | (uint64_t)v << 32;
}

static void
write_operational(struct xhci *x, uint32_t at, uint32_t v)
{
	switch (at) {
	case 0x00:
		write_usbcmd(x, v);
		break;
	case 0x04:
		x->sts &= ~(v & (USBSTS_EINT | USBSTS_PCD));
		break;
	case 0x14:
		x->dnctrl = v & 0xffff;
		break;
	case 0x18: /* stop and abort: commands are done as they come */
		set_low(&x->command_ring, v, ~63u);
		x->command_cycle = v & 1;
		break;
	case 0x1c:
		set_high(&x->command_ring, v);
		break;
	case 0x30:
		set_low(&x->dcbaap, v, ~63u);
		break;
	case 0x34:
		set_high(&x->dcbaap, v);
		break;
	case 0x38:
		x->config = v & 0x3ff;
		break;
	default:
		break;
	}
}

static void
write_runtime(struct xhci *x, uint32_t at, uint32_t v)
{
	switch (at) {
	case 0x20:
		x->iman &= ~(v & IMAN_IP);
		x->iman = (x->iman & ~(uint32_t)IMAN_IE) | (v & IMAN_IE);
		update_irq(x);
		break;
	case 0x24:
		x->imod = v;
		break;
	case 0x28:
		x->erstsz = MIN(v & 0xffff, (uint32_t)SEGMENTS_MAX);
		break;
	case 0x30:
		set_low(&x->erstba, v, ~63u);
		break;
	case 0x34:
		set_high(&x->erstba, v);
		event_ring_begin(x);
		break;
	case 0x38: /* bit 3 is cleared by writing 1 */
		set_low(&x->erdp, v, ~8u);
		break;
	case 0x3c:
		set_high(&x->erdp, v);
		break;
	default:
		break;
	}
}

static void
ring_doorbell(struct xhci *x, int slot, uint32_t v)
{
	int dci = (int)(v & 0xff);

	if (!(x->cmd & USBCMD_RUN))
		return;
	if (!slot) {
		run_commands(x);
		return;
	}
	if (slot > SLOTS || !x->slot[slot - 1].enabled || !dci || dci > ENDPOINTS)
		return;
	if (x->slot[slot - 1].ep[dci - 1].state == EP_STOPPED)
		set_ep_state(x, &x->slot[slot - 1], dci, EP_RUNNING);
	kick(x, slot, dci);
}

static void
xhci_write(void *opaque, uint64_t off, uint64_t value, unsigned size)
{
	struct xhci *x = opaque;
	uint32_t at = (uint32_t)off, v = (uint32_t)value;

	if (size != 4 || (at & 3)) /* 5.1: registers are written as a whole */
		return;
	if (at >= OPERATIONAL && at < PORTS_AT)
		write_operational(x, at - OPERATIONAL, v);
	else if (at >= PORTS_AT && at < PORTS_AT + 16 * PORTS && !(at & 15))
		write_portsc(x, (int)(at - PORTS_AT) / 16, v);
	else if (at >= RUNTIME && at < RUNTIME + 0x40)
		write_runtime(x, at - RUNTIME, v);
	else if (at >= DOORBELLS && at <= DOORBELLS + 4 * SLOTS)
		ring_doorbell(x, (int)(at - DOORBELLS) / 4, v);
	else if (at == EXTENDED)
		x->legacy = v & 1 << 24;
}

static const struct bus_ops xhci_ops = { .read = xhci_read, .write = xhci_write, .min_size = 1, .max_size = 4 };

/* ---- life ---- */

static void
xhci_reset(struct device *d)
{
	struct xhci *x = container_of(d, struct xhci, pci.dev);

	pci_reset(&x->pci);
	x->legacy = 0;
	reset_controller(x);
}

/* A saved state is hostile too. Rings are looked at again. */
static void
xhci_loaded(struct device *d)
{
	struct xhci *x = container_of(d, struct xhci, pci.dev);

	x->erstsz = MIN(x->erstsz, (uint32_t)SEGMENTS_MAX);
	x->segment_size = MIN(x->segment_size, 4096u);
	for (int s = 0; s < SLOTS; s++) {
		x->slot[s].port = MIN(x->slot[s].port, PORTS);
		for (int i = 0; i < ENDPOINTS; i++) {
			x->slot[s].ep[i].out_len = MIN(x->slot[s].ep[i].out_len, USB_CONTROL_MAX);
			if (x->slot[s].ep[i].state == EP_RUNNING)
				x->pending[s] |= 2ull << i;
		}
	}
	pci_loaded(&x->pci);
	vtimer_arm(&x->more, clock_now(&d->m->clock));
}

static void
xhci_destroy(struct device *d)
{
	struct xhci *x = container_of(d, struct xhci, pci.dev);

	vtimer_cancel(&x->more);
	pci_remove(d->m, &x->pci);
	free(x->bounce);
	free(x);
}

static const struct dev_class xhci_class = {
	.name = "xhci",
	.fields = xhci_fields,
	.reset = xhci_reset,
	.loaded = xhci_loaded,
	.destroy = xhci_destroy,
};

struct xhci *
xhci_create(struct machine *m, int slot, struct err *e)
{
	struct xhci *x = xcalloc(1, sizeof(*x));
	struct pci_dev *p = &x->pci;

	p->vendor = 0x8086;
	p->device = 0x1e31;
	p->subvendor = 0x8086;
	p->subdevice = 0x1e31;
	p->class = 0x0c0330;
	p->intx_pin = 1;
	p->bars[0] = (struct pci_bar){ .kind = PCI_BAR_MEM32, .size = BAR_SIZE, .ops = &xhci_ops, .opaque = x };
	pci_add_msi(p);
	if (pci_add(m, p, &xhci_class, slot, 0)) {
		free(x);
		err_set(e, ERR_IN_USE, "There is no free PCI slot for the USB controller");
		return NULL;
	}
	x->bounce = xcalloc(1, TD_MAX + 8);
	vtimer_init(&x->more, &m->clock, run_more, x);
	xhci_reset(&p->dev);
	p->config[0x60] = 0x30; /* serial bus release 3.0 (xHCI 5.2.3) */
	return x;
}

int
xhci_plug(struct xhci *x, struct usb_device *d, int port, struct err *e)
{
	for (int n = USB2_PORTS - 1; n >= 0; n--) {
		if (x->device[n] || (port >= 0 && port != n))
			continue;
		x->device[n] = d;
		d->host = x;
		d->wake = device_wakes;
		d->opaque = d;
		plug(x, n);
		post_port_event(x, n);
		return 0;
	}
	if (port >= 0)
		return err_set(e, ERR_INVALID, "The USB controller has no free port %d", port);
	return err_set(e, ERR_INVALID, "The USB controller has %d ports, and all of them are taken", USB2_PORTS);
}

void
xhci_unplug(struct usb_device *d)
{
	for (int n = 0; d->host && n < PORTS; n++)
		if (d->host->device[n] == d)
			d->host->device[n] = NULL;
	d->host = NULL;
	d->wake = NULL;
}

struct usb_hid *
xhci_add_tablet(struct xhci *x, struct err *e)
{
	struct usb_hid *h = usb_tablet_create(x->pci.dev.m);

	return xhci_plug(x, usb_hid_device(h), -1, e) ? NULL : h;
}

struct usb_hid *
xhci_add_keyboard(struct xhci *x, struct err *e)
{
	struct usb_hid *h = usb_keyboard_create(x->pci.dev.m);

	return xhci_plug(x, usb_hid_device(h), -1, e) ? NULL : h;
}

int
xhci_attach(struct xhci *x, int port, const struct drive_config *cfg, struct err *e)
{
	if (cfg->cdrom || !cfg->block)
		return err_set(e, ERR_INVALID, "A USB port takes a disk with an image");
	if (port < 0 || port >= USB2_PORTS || x->device[port])
		return err_set(e, ERR_INVALID, "The USB controller has no free port %d", port);
	return xhci_plug(x, usb_storage_device(usb_storage_create(x->pci.dev.m, cfg, port)), port, e);
}
