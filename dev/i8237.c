/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The two 8237A DMA controllers of a PC and their page registers. (Intel 8237A data sheet, order 231466; the PC's
 * wiring as in the 82371AB data sheet, 3.5)
 *
 *	0x00-0x0f  channels 0-3, bytes         register 2n: address of channel n, 2n + 1: its count less one; low byte
 *	0xc0-0xdf  channels 4-7, words,        first, a flip-flop tells which half is next
 *	           every second port           8 status, command; 9 request; a mask of one; b mode; c clear flip-flop;
 *	                                       d reset; e clear mask; f mask
 *	0x80-0x8f  bits 23:16 of the address: 0x87 0x83 0x81 0x82 for channels 0-3, 0x8b 0x89 0x8a for 5-7; the others
 *	           are storage
 *
 * Nothing moves by itself: a device on a channel calls i8237_transfer() when it has data, and all of it goes at once.
 * An address counts within its 64 KiB (128 KiB for words), as the chip's 16 bits do.
 */
#include <stdlib.h>
#include <string.h>

#include "base/str.h"
#include "dev/dev.h"

enum { MODE_DECREMENT = 0x20, MODE_AUTO = 0x10, MODE_TO_MEMORY = 1, MODE_FROM_MEMORY = 2, COMMAND_DISABLE = 4 };

struct channel {
	uint16_t base_address, base_count, address, count;
	uint8_t mode, pad;
};

struct controller {
	struct channel channel[4];
	uint8_t command, status, mask, flip_flop;
};

struct i8237 {
	struct device dev;
	struct controller ctl[2];
	uint8_t page[16];
};

static const struct field i8237_fields[] = {
	FIELD_ARRAY(struct i8237, ctl[0].channel),
	FIELD(struct i8237, ctl[0].command),
	FIELD(struct i8237, ctl[0].status),
	FIELD(struct i8237, ctl[0].mask),
	FIELD(struct i8237, ctl[0].flip_flop),
	FIELD_ARRAY(struct i8237, ctl[1].channel),
	FIELD(struct i8237, ctl[1].command),
	FIELD(struct i8237, ctl[1].status),
	FIELD(struct i8237, ctl[1].mask),
	FIELD(struct i8237, ctl[1].flip_flop),
	FIELD_ARRAY(struct i8237, page),
	FIELD_END,
};

/* ---- registers ---- */

static void
controller_reset(struct controller *c)
{
	c->command = c->status = c->flip_flop = 0;
	c->mask = 15;
}

static uint8_t
half_read(struct controller *c, uint16_t value)
{
	c->flip_flop ^= 1;
	return (uint8_t)(c->flip_flop ? value : value >> 8);
}

static void
half_write(struct controller *c, uint16_t *base, uint16_t *current, uint8_t value)
{
	c->flip_flop ^= 1;
	*base = (uint16_t)(c->flip_flop ? (*base & 0xff00) | value : (*base & 0xff) | value << 8);
	*current = *base;
}

static uint8_t
register_read(struct controller *c, unsigned reg)
{
	struct channel *ch = &c->channel[reg >> 1 & 3];
	uint8_t value = 0;

	if (reg < 8)
		return half_read(c, reg & 1 ? ch->count : ch->address);
	if (reg == 8) {
		value = c->status;
		c->status &= 0xf0;
	} else if (reg == 15) {
		value = (uint8_t)(0xf0 | c->mask);
	}
	return value;
}

static void
register_write(struct controller *c, unsigned reg, uint8_t value)
{
	struct channel *ch = &c->channel[reg >> 1 & 3];
	uint8_t bit = (uint8_t)(1 << (value & 3));

	switch (reg) {
	case 8:
		c->command = value;
		break;
	case 9: /* a request by software */
		c->status = (uint8_t)(value & 4 ? c->status | bit << 4 : c->status & ~(bit << 4));
		break;
	case 10:
		c->mask = (uint8_t)(value & 4 ? c->mask | bit : c->mask & ~bit);
		break;
	case 11:
		c->channel[value & 3].mode = value;
		break;
	case 12:
		c->flip_flop = 0;
		break;
	case 13:
		controller_reset(c);
		break;
	case 14:
		c->mask = 0;
		break;
	case 15:
		c->mask = value & 15;
		break;
	default:
		if (reg & 1)
			half_write(c, &ch->base_count, &ch->count, value);
		else
			half_write(c, &ch->base_address, &ch->address, value);
	}
}

static uint64_t
bytes_read(void *opaque, uint64_t off, unsigned size)
{
	return register_read(&((struct i8237 *)opaque)->ctl[0], (unsigned)off);
}

static void
bytes_write(void *opaque, uint64_t off, uint64_t value, unsigned size)
{
	register_write(&((struct i8237 *)opaque)->ctl[0], (unsigned)off, (uint8_t)value);
}

static uint64_t
words_read(void *opaque, uint64_t off, unsigned size)
{
	return off & 1 ? 0xff : register_read(&((struct i8237 *)opaque)->ctl[1], (unsigned)off >> 1);
}

static void
words_write(void *opaque, uint64_t off, uint64_t value, unsigned size)
{
	if (!(off & 1))
		register_write(&((struct i8237 *)opaque)->ctl[1], (unsigned)off >> 1, (uint8_t)value);
}

static uint64_t
page_read(void *opaque, uint64_t off, unsigned size)
{
	return ((struct i8237 *)opaque)->page[off & 15];
}

static void
page_write(void *opaque, uint64_t off, uint64_t value, unsigned size)
{
	((struct i8237 *)opaque)->page[off & 15] = (uint8_t)value;
}

static const struct bus_ops bytes_ops = { bytes_read, bytes_write, 1, 1 };
static const struct bus_ops words_ops = { words_read, words_write, 1, 1 };
static const struct bus_ops page_ops = { page_read, page_write, 1, 1 };

/* ---- transfers ---- */

static gpa_t
address_of(const struct i8237 *d, int channel)
{
	static const uint8_t pages[8] = { 0x7, 0x3, 0x1, 0x2, 0xf, 0xb, 0x9, 0xa };
	gpa_t at = d->ctl[channel >> 2].channel[channel & 3].address;

	if (channel < 4)
		return at | (gpa_t)d->page[pages[channel]] << 16;
	return at << 1 | (gpa_t)(d->page[pages[channel]] & 0xfe) << 16;
}

static void
advance(struct channel *ch, uint16_t units)
{
	ch->address = (uint16_t)(ch->mode & MODE_DECREMENT ? ch->address - units : ch->address + units);
	ch->count = (uint16_t)(ch->count - units);
}

/* The count ran out: terminal count. */
static void
end_of_count(struct controller *c, int n)
{
	struct channel *ch = &c->channel[n];

	c->status |= (uint8_t)(1 << n);
	if (ch->mode & MODE_AUTO) {
		ch->address = ch->base_address;
		ch->count = ch->base_count;
	} else {
		c->mask |= (uint8_t)(1 << n);
	}
}

size_t
i8237_transfer(struct i8237 *d, int channel, void *buf, size_t len, bool write, bool *tc)
{
	struct controller *c = &d->ctl[channel >> 2];
	struct channel *ch = &c->channel[channel & 3];
	size_t unit = channel < 4 ? 1 : 2, done = 0;
	unsigned way = ch->mode >> 2 & 3;

	*tc = false;
	if (c->mask >> (channel & 3) & 1 || c->command & COMMAND_DISABLE ||
		(way && way != (write ? MODE_TO_MEMORY : MODE_FROM_MEMORY)))
		return 0;
	while (len - done >= unit && !*tc) {
		uint8_t *p = (uint8_t *)buf + done;
		gpa_t at = address_of(d, channel);

		/* What is not memory reads as all ones and takes no writes. */
		if (way == MODE_TO_MEMORY)
			mem_write(&d->dev.m->mem, at, p, unit);
		else if (way == MODE_FROM_MEMORY && !mem_read(&d->dev.m->mem, at, p, unit))
			memset(p, 0xff, unit);
		advance(ch, 1);
		done += unit;
		if (ch->count == 0xffff) {
			*tc = true;
			end_of_count(c, channel & 3);
		}
	}
	return done;
}

/* ---- the device ---- */

static void
i8237_reset(struct device *dev)
{
	struct i8237 *d = (struct i8237 *)dev;

	memset(d->ctl, 0, sizeof(d->ctl));
	memset(d->page, 0, sizeof(d->page));
	controller_reset(&d->ctl[0]);
	controller_reset(&d->ctl[1]);
}

static const struct dev_class i8237_class = { .name = "i8237", .fields = i8237_fields, .reset = i8237_reset };

struct i8237 *
i8237_create(struct machine *m)
{
	struct i8237 *d = xcalloc(1, sizeof(*d));

	device_add(m, &d->dev, &i8237_class);
	io_add(&m->io, 0x00, 16, &bytes_ops, d);
	io_add(&m->io, 0xc0, 32, &words_ops, d);
	io_add(&m->io, 0x80, 16, &page_ops, d);
	i8237_reset(&d->dev);
	return d;
}
