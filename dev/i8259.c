/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The two 8259A interrupt controllers of a PC, cascaded through input 2 of the master. (Intel 8259A data sheet,
 * order 231468; edge/level registers: 82371FB/SB PIIX data sheet, 2.5.12)
 *
 * A request latches in IRR on a rising edge (edge mode) or follows its line (level mode, ELCR). The output INT is high
 * while an unmasked request has a higher priority than everything in service; INTA moves the winner to ISR. A request
 * that is gone by the time of INTA gives the spurious interrupt 7.
 *
 * The slave's INT is not an edge for the master but a line it follows: master IRR bit 2 is whether the slave has
 * something to say, so the two never disagree. State is kept as arrays of two: [0] the master, [1] the slave.
 */
#include <stdlib.h>

#include "base/str.h"
#include "dev/dev.h"

enum { MASTER, SLAVE, CASCADE = 2 };

enum init_step { INIT_NONE, INIT_ICW2, INIT_ICW3, INIT_ICW4 };

struct i8259 {
	struct device dev;
	struct irq intr;
	uint8_t lines[2]; /* levels of the inputs */
	uint8_t irr[2], imr[2], isr[2], elcr[2];
	uint8_t base[2];    /* vector of input 0 */
	uint8_t highest[2]; /* the input that has the highest priority; 0 unless rotated */
	uint8_t step[2], want_icw4[2], single[2];
	uint8_t read_isr[2], poll[2], special_mask[2], auto_eoi[2], rotate_aeoi[2], fully_nested[2];
	uint8_t output;
};

static const uint8_t elcr_mask[2] = { 0xf8, 0xde }; /* 0, 1, 2, 8 and 13 are always edges */

/* Rank of the first bit in priority order, 0 the highest, 8 for none. */
static int
rank(const struct i8259 *p, int c, uint8_t bits)
{
	for (int r = 0; r < 8; r++)
		if (bits & 1 << ((r + p->highest[c]) & 7))
			return r;
	return 8;
}

/* The input that would be acknowledged now; -1: none. */
static int
pending(const struct i8259 *p, int c)
{
	uint8_t blocking = p->isr[c];
	int r = rank(p, c, p->irr[c] & (uint8_t)~p->imr[c]);

	if (p->special_mask[c])
		blocking &= (uint8_t)~p->imr[c];
	/* Special fully nested mode: the slave may interrupt itself with something more important. */
	if (c == MASTER && p->fully_nested[c])
		blocking &= (uint8_t) ~(1 << CASCADE);
	return r < rank(p, c, blocking) ? (r + p->highest[c]) & 7 : -1;
}

static void
update(struct i8259 *p)
{
	uint8_t level;

	if (pending(p, SLAVE) >= 0)
		p->irr[MASTER] |= 1 << CASCADE;
	else
		p->irr[MASTER] &= (uint8_t) ~(1 << CASCADE);
	level = pending(p, MASTER) >= 0;
	if (level == p->output)
		return;
	p->output = level;
	irq_set(&p->intr, level);
}

static void
set_input(void *opaque, int n, int level)
{
	struct i8259 *p = opaque;
	int c = n >> 3 & 1;
	uint8_t bit = (uint8_t)(1 << (n & 7));

	if (level && (!(p->lines[c] & bit) || p->elcr[c] & bit))
		p->irr[c] |= bit;
	else if (!level && p->elcr[c] & bit)
		p->irr[c] &= (uint8_t)~bit;
	p->lines[c] = (uint8_t)(level ? p->lines[c] | bit : p->lines[c] & ~bit);
	update(p);
}

static void
acknowledge(struct i8259 *p, int c, int n)
{
	uint8_t bit = (uint8_t)(1 << n);

	if (!(p->elcr[c] & bit))
		p->irr[c] &= (uint8_t)~bit;
	if (!p->auto_eoi[c])
		p->isr[c] |= bit;
	else if (p->rotate_aeoi[c])
		p->highest[c] = (uint8_t)((n + 1) & 7);
}

static int
inta(void *opaque)
{
	struct i8259 *p = opaque;
	int n = pending(p, MASTER), vector;

	if (n == CASCADE) {
		int s = pending(p, SLAVE);

		acknowledge(p, MASTER, CASCADE);
		if (s >= 0)
			acknowledge(p, SLAVE, s);
		vector = p->base[SLAVE] + (s >= 0 ? s : 7);
	} else {
		if (n >= 0)
			acknowledge(p, MASTER, n);
		vector = p->base[MASTER] + (n >= 0 ? n : 7);
	}
	update(p);
	return vector;
}

/* ---- command words ---- */

static void
write_icw1(struct i8259 *p, int c, uint8_t v)
{
	p->step[c] = INIT_ICW2;
	p->want_icw4[c] = v & 1;
	p->single[c] = v >> 1 & 1;
	p->imr[c] = p->isr[c] = 0;
	p->irr[c] = p->lines[c] & p->elcr[c];
	p->highest[c] = p->special_mask[c] = p->read_isr[c] = p->poll[c] = 0;
	p->auto_eoi[c] = p->rotate_aeoi[c] = p->fully_nested[c] = 0;
}

/* End of interrupt and rotation: bits 7-5 are R, SL, EOI. */
static void
write_ocw2(struct i8259 *p, int c, uint8_t v)
{
	uint8_t in_service = p->isr[c];
	int n = v & 7, r;

	switch (v >> 5) {
	case 0:
	case 4:
		p->rotate_aeoi[c] = v >> 7;
		break;
	case 1:
	case 5: /* non-specific */
		if (p->special_mask[c])
			in_service &= (uint8_t)~p->imr[c];
		r = rank(p, c, in_service);
		if (r == 8)
			break;
		n = (r + p->highest[c]) & 7;
		p->isr[c] &= (uint8_t) ~(1 << n);
		if (v & 0x80)
			p->highest[c] = (uint8_t)((n + 1) & 7);
		break;
	case 3:
	case 7: /* specific */
		p->isr[c] &= (uint8_t) ~(1 << n);
		if (v & 0x80)
			p->highest[c] = (uint8_t)((n + 1) & 7);
		break;
	case 6:
		p->highest[c] = (uint8_t)((n + 1) & 7);
		break;
	}
}

static void
write_ocw3(struct i8259 *p, int c, uint8_t v)
{
	if (v & 4)
		p->poll[c] = 1;
	if (v & 2)
		p->read_isr[c] = v & 1;
	if (v & 0x40)
		p->special_mask[c] = v >> 5 & 1;
}

static void
write_icw2_to_4(struct i8259 *p, int c, uint8_t v)
{
	switch (p->step[c]) {
	case INIT_ICW2:
		p->base[c] = v & 0xf8;
		p->step[c] = !p->single[c] ? INIT_ICW3 : p->want_icw4[c] ? INIT_ICW4 : INIT_NONE;
		break;
	case INIT_ICW3: /* the cascade is wired, not programmed */
		p->step[c] = p->want_icw4[c] ? INIT_ICW4 : INIT_NONE;
		break;
	default:
		p->fully_nested[c] = v >> 4 & 1;
		p->auto_eoi[c] = v >> 1 & 1;
		p->step[c] = INIT_NONE;
	}
}

static void
port_write(struct i8259 *p, int c, uint64_t off, uint8_t v)
{
	if (off == 0 && v & 0x10)
		write_icw1(p, c, v);
	else if (off == 0 && v & 0x08)
		write_ocw3(p, c, v);
	else if (off == 0)
		write_ocw2(p, c, v);
	else if (p->step[c] != INIT_NONE)
		write_icw2_to_4(p, c, v);
	else
		p->imr[c] = v;
	update(p);
}

/* A poll takes the place of INTA: bit 7 tells whether there was a request. */
static uint8_t
poll(struct i8259 *p, int c)
{
	int n = pending(p, c);

	p->poll[c] = 0;
	if (n < 0)
		return 0;
	acknowledge(p, c, n);
	update(p);
	return (uint8_t)(0x80 | n);
}

static uint8_t
port_read(struct i8259 *p, int c, uint64_t off)
{
	if (p->poll[c])
		return poll(p, c);
	if (off == 1)
		return p->imr[c];
	return p->read_isr[c] ? p->isr[c] : p->irr[c];
}

static uint64_t
master_read(void *opaque, uint64_t off, unsigned size)
{
	return port_read(opaque, MASTER, off);
}

static void
master_write(void *opaque, uint64_t off, uint64_t value, unsigned size)
{
	port_write(opaque, MASTER, off, (uint8_t)value);
}

static uint64_t
slave_read(void *opaque, uint64_t off, unsigned size)
{
	return port_read(opaque, SLAVE, off);
}

static void
slave_write(void *opaque, uint64_t off, uint64_t value, unsigned size)
{
	port_write(opaque, SLAVE, off, (uint8_t)value);
}

static uint64_t
elcr_read(void *opaque, uint64_t off, unsigned size)
{
	return ((struct i8259 *)opaque)->elcr[off & 1];
}

static void
elcr_write(void *opaque, uint64_t off, uint64_t value, unsigned size)
{
	struct i8259 *p = opaque;
	int c = off & 1;

	p->elcr[c] = (uint8_t)value & elcr_mask[c];
	/* What is a level now follows its line. */
	p->irr[c] = (uint8_t)((p->irr[c] & ~p->elcr[c]) | (p->lines[c] & p->elcr[c]));
	update(p);
}

static const struct bus_ops master_ops = { master_read, master_write, 1, 1 };
static const struct bus_ops slave_ops = { slave_read, slave_write, 1, 1 };
static const struct bus_ops elcr_ops = { elcr_read, elcr_write, 1, 1 };

/* ---- the device ---- */

static const struct field fields[] = {
	FIELD_ARRAY(struct i8259, lines),
	FIELD_ARRAY(struct i8259, irr),
	FIELD_ARRAY(struct i8259, imr),
	FIELD_ARRAY(struct i8259, isr),
	FIELD_ARRAY(struct i8259, elcr),
	FIELD_ARRAY(struct i8259, base),
	FIELD_ARRAY(struct i8259, highest),
	FIELD_ARRAY(struct i8259, step),
	FIELD_ARRAY(struct i8259, want_icw4),
	FIELD_ARRAY(struct i8259, single),
	FIELD_ARRAY(struct i8259, read_isr),
	FIELD_ARRAY(struct i8259, poll),
	FIELD_ARRAY(struct i8259, special_mask),
	FIELD_ARRAY(struct i8259, auto_eoi),
	FIELD_ARRAY(struct i8259, rotate_aeoi),
	FIELD_ARRAY(struct i8259, fully_nested),
	FIELD_END,
};

static void
reset(struct device *d)
{
	struct i8259 *p = (struct i8259 *)d;

	for (int c = 0; c < 2; c++) {
		p->elcr[c] = 0;
		write_icw1(p, c, 0);
		p->step[c] = INIT_NONE;
		p->imr[c] = 0xff; /* silent until programmed */
		p->base[c] = 0;
	}
	update(p);
}

static void
loaded(struct device *d)
{
	struct i8259 *p = (struct i8259 *)d;

	p->output = pending(p, MASTER) >= 0;
	irq_set(&p->intr, p->output);
}

static const struct dev_class class = { .name = "i8259", .fields = fields, .reset = reset, .loaded = loaded };

struct i8259 *
i8259_create(struct machine *m, struct irq intr)
{
	struct i8259 *p = xcalloc(1, sizeof(*p));

	device_add(m, &p->dev, &class);
	p->intr = intr;
	m->intc.pic_ack = inta;
	m->intc.pic_opaque = p;
	io_add(&m->io, 0x20, 2, &master_ops, p);
	io_add(&m->io, 0xa0, 2, &slave_ops, p);
	io_add(&m->io, 0x4d0, 2, &elcr_ops, p);
	reset(&p->dev);
	return p;
}

struct irq
i8259_input(struct i8259 *p, int n)
{
	return (struct irq){ set_input, p, n };
}
