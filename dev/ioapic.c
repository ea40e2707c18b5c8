/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The I/O APIC. (Intel 82093AA data sheet, order 290566; the EOI register and version 0x20: ICH data sheets)
 *
 * Each pin has a redirection entry that turns it into a message to local APICs, sent through m->intc.msi: the fields of
 * the entry are those of a message-signalled interrupt, in other places.
 *
 * Edge pins: a rising edge while unmasked sends one message; edges of masked pins are lost (data sheet, 3.2.4
 * "Interrupt Mask"). Level pins: a message when the line is high and Remote IRR is clear; sending sets Remote IRR, the
 * EOI of that vector clears it, and the message goes out again if the line is still high.
 */
#include <stdlib.h>

#include "base/str.h"
#include "dev/dev.h"

enum {
	REG_ID = 0x00,
	REG_VERSION = 0x01,
	REG_ARBITRATION = 0x02,
	REG_REDIRECTION = 0x10,

	IOREGSEL = 0x00,
	IOWIN = 0x10,
	IOEOI = 0x40,

	VERSION = 0x20,
};

#define REDIR_VECTOR 0xffull
#define REDIR_MODE (7ull << 8)
#define REDIR_LOGICAL (1ull << 11)
#define REDIR_LOW (1ull << 13)
#define REDIR_REMOTE_IRR (1ull << 14)
#define REDIR_LEVEL (1ull << 15)
#define REDIR_MASKED (1ull << 16)
#define REDIR_WRITABLE                                                                                                 \
	(REDIR_VECTOR | REDIR_MODE | REDIR_LOGICAL | REDIR_LOW | REDIR_LEVEL | REDIR_MASKED | 0xffull << 56)

struct ioapic {
	struct device dev;
	struct mem_region region;
	uint8_t first_id;
	uint8_t id, select;
	uint32_t lines; /* levels of the pins */
	uint64_t redir[IOAPIC_PINS];
};

static void
send(struct ioapic *a, uint64_t e)
{
	struct intc *c = &a->dev.m->intc;
	uint64_t addr = LAPIC_BASE | (e >> 56) << 12 | (e & REDIR_LOGICAL ? 4 : 0);
	uint32_t data = (uint32_t)(e & (REDIR_VECTOR | REDIR_MODE | REDIR_LEVEL)) | 1 << 14;

	if (c->msi)
		c->msi(c->msi_opaque, addr, data);
}

/* Send what a level pin has to send. */
static void
service(struct ioapic *a, int pin)
{
	uint64_t *e = &a->redir[pin];

	if (!(a->lines & 1u << pin) || !(*e & REDIR_LEVEL) || *e & (REDIR_MASKED | REDIR_REMOTE_IRR))
		return;
	*e |= REDIR_REMOTE_IRR;
	send(a, *e);
}

static void
set_input(void *opaque, int pin, int level)
{
	struct ioapic *a = opaque;
	uint32_t bit = 1u << pin;
	bool rising = level && !(a->lines & bit);

	a->lines = level ? a->lines | bit : a->lines & ~bit;
	if (a->redir[pin] & REDIR_LEVEL)
		service(a, pin);
	else if (rising && !(a->redir[pin] & REDIR_MASKED))
		send(a, a->redir[pin]);
}

static void
eoi(void *opaque, int vector)
{
	struct ioapic *a = opaque;

	for (int pin = 0; pin < IOAPIC_PINS; pin++) {
		uint64_t *e = &a->redir[pin];

		if ((*e & REDIR_VECTOR) != (uint64_t)vector || !(*e & REDIR_REMOTE_IRR))
			continue;
		*e &= ~REDIR_REMOTE_IRR;
		service(a, pin);
	}
}

/* ---- registers ---- */

static uint32_t
reg_read(const struct ioapic *a)
{
	unsigned i = a->select - REG_REDIRECTION;

	switch (a->select) {
	case REG_ID:
	case REG_ARBITRATION:
		return (uint32_t)a->id << 24;
	case REG_VERSION:
		return VERSION | (IOAPIC_PINS - 1) << 16;
	}
	if (a->select < REG_REDIRECTION || i / 2 >= IOAPIC_PINS)
		return 0;
	return (uint32_t)(a->redir[i / 2] >> (i & 1 ? 32 : 0));
}

static void
reg_write(struct ioapic *a, uint32_t v)
{
	unsigned i = a->select - REG_REDIRECTION, shift = i & 1 ? 32 : 0;
	uint64_t mask = (REDIR_WRITABLE >> shift & 0xffffffff) << shift, *e;

	if (a->select == REG_ID)
		a->id = v >> 24 & 15;
	if (a->select < REG_REDIRECTION || i / 2 >= IOAPIC_PINS)
		return;
	e = &a->redir[i / 2];
	*e = (*e & ~mask) | ((uint64_t)v << shift & mask);
	/* Remote IRR is undefined for edges (3.2.4); systems clear it by switching a pin to edge and back. */
	if (!(*e & REDIR_LEVEL))
		*e &= ~REDIR_REMOTE_IRR;
	service(a, (int)(i / 2));
}

static uint64_t
mmio_read(void *opaque, uint64_t off, unsigned size)
{
	struct ioapic *a = opaque;

	switch (off & 0xff) {
	case IOREGSEL:
		return a->select;
	case IOWIN:
		return reg_read(a);
	}
	return 0;
}

static void
mmio_write(void *opaque, uint64_t off, uint64_t value, unsigned size)
{
	struct ioapic *a = opaque;

	switch (off & 0xff) {
	case IOREGSEL:
		a->select = (uint8_t)value;
		break;
	case IOWIN:
		reg_write(a, (uint32_t)value);
		break;
	case IOEOI:
		eoi(a, (uint8_t)value);
		break;
	}
}

static const struct bus_ops ops = { mmio_read, mmio_write, 4, 4 };

/* ---- the device ---- */

static const struct field fields[] = {
	FIELD(struct ioapic, id),
	FIELD(struct ioapic, select),
	FIELD(struct ioapic, lines),
	FIELD_ARRAY(struct ioapic, redir),
	FIELD_END,
};

static void
reset(struct device *d)
{
	struct ioapic *a = (struct ioapic *)d;

	a->id = a->first_id;
	a->select = 0;
	for (int pin = 0; pin < IOAPIC_PINS; pin++)
		a->redir[pin] = REDIR_MASKED;
}

static void
destroy(struct device *d)
{
	struct ioapic *a = (struct ioapic *)d;

	mem_remove(&d->m->mem, &a->region);
	free(a);
}

static const struct dev_class class = { .name = "ioapic", .fields = fields, .reset = reset, .destroy = destroy };

struct ioapic *
ioapic_create(struct machine *m, uint8_t id, gpa_t base)
{
	struct ioapic *a = xcalloc(1, sizeof(*a));

	device_add(m, &a->dev, &class);
	a->first_id = id & 15;
	reset(&a->dev);
	a->region = (struct mem_region){ .name = "ioapic",
		.kind = MEM_MMIO,
		.enabled = true,
		.priority = 1,
		.base = base,
		.size = PAGE_SIZE,
		.ops = &ops,
		.opaque = a };
	mem_add(&m->mem, &a->region);
	m->intc.eoi = eoi;
	m->intc.eoi_opaque = a;
	return a;
}

struct irq
ioapic_input(struct ioapic *a, int pin)
{
	return (struct irq){ set_input, a, pin };
}
