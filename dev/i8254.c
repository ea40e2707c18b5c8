/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The 8254 interval timer and the gate, speaker and refresh bits of port 0x61. (Intel 8254 data sheet, order 231164)
 *
 * A counter is a function of time: the tick it started at and what it was loaded with say at any moment what it
 * counts and what its output is; nothing runs per tick. Ticks are 1/1193182 s of virtual time since `start`, which is
 * kept across periods, so modes 2 and 3 do not drift.
 *
 * Only counter 0's output is a wire. The timer behind it is armed for the next rising edge after now. Edges that pass
 * while the host is late are not made up for: the interrupt controllers hold one edge anyway, and a guest that cannot
 * keep up would get no rest.
 *
 * A counter is idle after a control word, `loaded` once its count is complete, and `running` while ticks are counted
 * (its gate allows it, or a trigger came in modes 1 and 5).
 */
#include <stdlib.h>
#include <string.h>

#include "base/str.h"
#include "dev/dev.h"

#define HZ 1193182u
#define NS 1000000000u

/* A guest may ask for an interrupt every microsecond; the host's timer is armed no more often than this. */
#define EDGE_MIN_NS 50000

enum { ACCESS_LATCH, ACCESS_LOW, ACCESS_HIGH, ACCESS_BOTH };

struct counter {
	uint64_t start;	      /* virtual ns at tick 0, while running */
	uint64_t held;	      /* ticks gone, while not running */
	uint64_t switch_tick; /* when `next` becomes the count (modes 2 and 3) */
	uint32_t count;	      /* 1-65536 */
	uint32_t next;	      /* a count that waits for the end of the period or a trigger; 0: none */
	uint16_t latch;
	uint8_t mode, bcd, access;
	uint8_t gate, loaded, running;
	uint8_t null_count;
	uint8_t write_low, write_second; /* first of two bytes, and whether it came */
	uint8_t read_second;
	uint8_t latched; /* latched bytes that were not read yet */
	uint8_t status, status_latched;
};

struct i8254 {
	struct device dev;
	struct irq irq0;
	struct vtimer edge;
	struct counter counter[3];
	uint8_t speaker; /* port 0x61 bit 1 */
};

/* ---- a counter as a function of time ---- */

static uint64_t
tick_time(const struct counter *c, uint64_t tick)
{
	return c->start + (uint64_t)(((unsigned __int128)tick * NS + HZ - 1) / HZ);
}

static uint64_t
elapsed(const struct counter *c, uint64_t now)
{
	return c->running ? muldiv64(now - c->start, HZ, NS) : c->held;
}

/* A new count takes over at the end of the period in modes 2 and 3. */
static void
settle(struct counter *c, uint64_t now)
{
	if (!c->next || !c->running || (c->mode != 2 && c->mode != 3) || elapsed(c, now) < c->switch_tick)
		return;
	c->start = tick_time(c, c->switch_tick);
	c->count = c->next;
	c->next = 0;
	c->null_count = 0;
}

static bool
output(const struct counter *c, uint64_t now)
{
	uint64_t d = elapsed(c, now);

	switch (c->mode) {
	case 0:
		return c->loaded && d >= c->count;
	case 1:
		return !c->running || d >= c->count;
	case 2:
		return !c->running || d % c->count != c->count - 1;
	case 3:
		return !c->running || d % c->count < (c->count + 1) / 2;
	case 4:
		return !c->loaded || d != c->count;
	default:
		return !c->running || d != c->count;
	}
}

static uint16_t
to_bcd(uint32_t v)
{
	return (uint16_t)(v % 10 | v / 10 % 10 << 4 | v / 100 % 10 << 8 | v / 1000 % 10 << 12);
}

static uint16_t
value(const struct counter *c, uint64_t now)
{
	uint64_t d = elapsed(c, now);
	uint32_t modulo = c->bcd ? 10000 : 65536, v;

	switch (c->mode) {
	case 2:
		v = c->count - (uint32_t)(d % c->count);
		break;
	case 3: /* counts down by twos, twice a period */
		v = c->count - (uint32_t)(2 * d % c->count);
		break;
	default:
		v = (c->count + modulo - (uint32_t)(d % modulo)) % modulo;
	}
	return c->bcd ? to_bcd(v % modulo) : (uint16_t)v;
}

/* The tick of the next rising edge of the output after `now`; false: none will come by itself. */
static bool
next_edge(const struct counter *c, uint64_t now, uint64_t *tick)
{
	uint64_t d = elapsed(c, now);

	if (!c->running)
		return false;
	if (c->mode == 2 || c->mode == 3) {
		*tick = (d / c->count + 1) * c->count;
		return true;
	}
	*tick = c->mode < 2 ? c->count : c->count + 1ull;
	return d < *tick;
}

/* ---- counter 0's wire ---- */

static void
arm(struct i8254 *p, uint64_t now)
{
	const struct counter *c = &p->counter[0];
	uint64_t tick;

	vtimer_cancel(&p->edge);
	if (!next_edge(c, now, &tick))
		return;
	if (c->count < 60 && (c->mode == 2 || c->mode == 3))
		vtimer_arm(&p->edge, MAX(tick_time(c, tick), now + EDGE_MIN_NS));
	else
		vtimer_arm(&p->edge, tick_time(c, tick));
}

static void
drive(struct i8254 *p, uint64_t now)
{
	const struct counter *c = &p->counter[0];

	/* In modes 2 and 3 the wire is high between the edges, which expired() makes out of a short low. */
	irq_set(&p->irq0, c->mode == 2 || c->mode == 3 || output(c, now));
	arm(p, now);
}

static void
expired(void *opaque)
{
	struct i8254 *p = opaque;
	uint64_t now = MAX(clock_now(&p->dev.m->clock), p->edge.when);

	settle(&p->counter[0], now);
	irq_set(&p->irq0, 0);
	irq_set(&p->irq0, 1);
	arm(p, now);
}

/* Before a register changes: what is due has happened. Returns the time. */
static uint64_t
catch_up(struct i8254 *p)
{
	uint64_t now = clock_now(&p->dev.m->clock);

	if (p->edge.armed && p->edge.when <= now) {
		vtimer_cancel(&p->edge);
		expired(p);
	}
	for (int i = 0; i < 3; i++)
		settle(&p->counter[i], now);
	return now;
}

/* ---- programming ---- */

static void
run_from(struct counter *c, uint64_t now, uint64_t ticks_gone)
{
	uint64_t ns = muldiv64(ticks_gone, NS, HZ);

	c->running = 1;
	c->held = 0;
	c->start = now - MIN(ns, now);
}

static void
set_gate(struct counter *c, uint64_t now, bool gate)
{
	if (c->gate == gate)
		return;
	c->gate = gate;
	if (!c->loaded)
		return;
	switch (c->mode) {
	case 0:
	case 4:
		if (gate) {
			run_from(c, now, c->held);
		} else {
			c->held = elapsed(c, now);
			c->running = 0;
		}
		break;
	case 1:
	case 5: /* the edge is the trigger */
		if (gate) {
			c->count = c->next ? c->next : c->count;
			c->next = 0;
			c->null_count = 0;
			run_from(c, now, 0);
		}
		break;
	default:
		c->count = c->next ? c->next : c->count;
		c->next = 0;
		c->held = 0;
		c->running = 0;
		if (gate)
			run_from(c, now, 0);
	}
}

/* Both bytes of a count are there. */
static void
load(struct counter *c, uint64_t now, uint16_t raw)
{
	uint32_t n = raw;

	if (c->bcd)
		n = (raw & 15u) + (raw >> 4 & 15u) * 10 + (raw >> 8 & 15u) * 100 + (raw >> 12) * 1000u;
	if (!n)
		n = c->bcd ? 10000 : 65536;
	if (c->mode == 1 || c->mode == 5) {
		if (!c->loaded)
			c->count = n;
		c->next = n;
		c->null_count = 1;
	} else if ((c->mode == 2 || c->mode == 3) && c->running) {
		c->next = n;
		c->null_count = 1;
		c->switch_tick = (elapsed(c, now) / c->count + 1) * c->count;
	} else {
		c->count = n;
		c->null_count = 0;
		c->held = 0;
		c->running = 0;
		if (c->gate)
			run_from(c, now, 0);
	}
	c->loaded = 1;
}

static void
write_count(struct counter *c, uint64_t now, uint8_t v)
{
	switch (c->access) {
	case ACCESS_LOW:
		load(c, now, v);
		break;
	case ACCESS_HIGH:
		load(c, now, (uint16_t)(v << 8));
		break;
	default:
		c->write_second ^= 1;
		if (!c->write_second) {
			load(c, now, (uint16_t)(v << 8 | c->write_low));
			break;
		}
		c->write_low = v;
		if (c->mode == 0) { /* the first byte stops the count */
			c->running = 0;
			c->held = 0;
			c->loaded = 0;
		}
	}
}

static void
latch_count(struct counter *c, uint64_t now)
{
	if (c->latched)
		return;
	c->latch = value(c, now);
	c->latched = c->access == ACCESS_BOTH ? 2 : 1;
}

static void
latch_status(struct counter *c, uint64_t now)
{
	if (c->status_latched)
		return;
	c->status = (uint8_t)(output(c, now) << 7 | c->null_count << 6 | c->access << 4 | c->mode << 1 | c->bcd);
	c->status_latched = 1;
}

static void
write_control(struct i8254 *p, uint64_t now, uint8_t v)
{
	struct counter *c = &p->counter[v >> 6];

	if (v >> 6 == 3) { /* read-back: D5 and D4 low latch count and status of the counters in D3-D1 */
		for (int i = 0; i < 3; i++) {
			if (!(v & 2 << i))
				continue;
			if (!(v & 0x20))
				latch_count(&p->counter[i], now);
			if (!(v & 0x10))
				latch_status(&p->counter[i], now);
		}
		return;
	}
	if ((v >> 4 & 3) == ACCESS_LATCH) {
		latch_count(c, now);
		return;
	}
	c->access = v >> 4 & 3;
	c->mode = v >> 1 & 7;
	if (c->mode > 5)
		c->mode &= 3;
	c->bcd = v & 1;
	c->loaded = c->running = 0;
	c->held = 0;
	c->next = 0;
	c->null_count = 1;
	c->write_second = c->read_second = c->latched = c->status_latched = 0;
}

static uint8_t
read_count(struct counter *c, uint64_t now)
{
	uint16_t v;

	if (c->status_latched) {
		c->status_latched = 0;
		return c->status;
	}
	v = c->latched ? c->latch : value(c, now);
	if (c->latched)
		c->latched--;
	if (c->access == ACCESS_LOW)
		return (uint8_t)v;
	if (c->access == ACCESS_HIGH)
		return (uint8_t)(v >> 8);
	c->read_second ^= 1;
	return (uint8_t)(c->read_second ? v : v >> 8);
}

static uint64_t
port_read(void *opaque, uint64_t off, unsigned size)
{
	struct i8254 *p = opaque;

	return off < 3 ? read_count(&p->counter[off], catch_up(p)) : 0xff;
}

static void
port_write(void *opaque, uint64_t off, uint64_t v, unsigned size)
{
	struct i8254 *p = opaque;
	uint64_t now = catch_up(p);

	if (off < 3)
		write_count(&p->counter[off], now, (uint8_t)v);
	else
		write_control(p, now, (uint8_t)v);
	if (off == 0 || (off == 3 && v >> 6 == 0 && v & 0x30))
		drive(p, now);
}

/* Port 0x61: gate of counter 2, speaker, a bit that changes every refresh cycle (15 us), output of counter 2. */
static uint64_t
system_read(void *opaque, uint64_t off, unsigned size)
{
	struct i8254 *p = opaque;
	uint64_t now = catch_up(p);

	return p->counter[2].gate | (uint64_t)p->speaker << 1 | (now / 15085 & 1) << 4 |
	       (uint64_t)output(&p->counter[2], now) << 5;
}

static void
system_write(void *opaque, uint64_t off, uint64_t v, unsigned size)
{
	struct i8254 *p = opaque;

	set_gate(&p->counter[2], catch_up(p), v & 1);
	p->speaker = v >> 1 & 1;
}

static const struct bus_ops port_ops = { port_read, port_write, 1, 1 };
static const struct bus_ops system_ops = { system_read, system_write, 1, 1 };

/* ---- the device ---- */

static const struct field fields[] = {
	FIELD_ARRAY(struct i8254, counter),
	FIELD(struct i8254, speaker),
	FIELD_END,
};

static void
reset(struct device *d)
{
	struct i8254 *p = (struct i8254 *)d;

	memset(p->counter, 0, sizeof(p->counter));
	for (int i = 0; i < 3; i++) {
		p->counter[i].mode = 3;
		p->counter[i].access = ACCESS_BOTH;
		p->counter[i].count = 65536;
		p->counter[i].gate = i < 2;
		p->counter[i].null_count = 1;
	}
	p->speaker = 0;
	vtimer_cancel(&p->edge);
	irq_set(&p->irq0, 0);
}

static void
loaded(struct device *d)
{
	drive((struct i8254 *)d, clock_now(&d->m->clock));
}

static void
destroy(struct device *d)
{
	vtimer_cancel(&((struct i8254 *)d)->edge);
	free(d);
}

static const struct dev_class class = {
	.name = "i8254",
	.fields = fields,
	.reset = reset,
	.loaded = loaded,
	.destroy = destroy,
};

struct device *
i8254_create(struct machine *m, struct irq irq0)
{
	struct i8254 *p = xcalloc(1, sizeof(*p));

	device_add(m, &p->dev, &class);
	p->irq0 = irq0;
	vtimer_init(&p->edge, &m->clock, expired, p);
	io_add(&m->io, 0x40, 4, &port_ops, p);
	io_add(&m->io, 0x61, 1, &system_ops, p);
	reset(&p->dev);
	return &p->dev;
}
