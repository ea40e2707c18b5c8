/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The high precision event timer. (IA-PC HPET Specification 1.0a)
 *
 * One 64-bit counter of 10 ns periods, a function of virtual time while it is enabled, and three comparators, each with
 * a host timer that is armed for its next match if a match can interrupt. A periodic comparator moves on by as many
 * periods as have passed, so a host that is late costs ticks, never a storm of them.
 *
 * Legacy replacement (2.4.6) routes comparators 0 and 1 to ISA interrupts 0 and 8 and cuts off the 8254 and the
 * MC146818, whose wires therefore run through here.
 */
#include <stdlib.h>
#include <string.h>

#include "base/str.h"
#include "dev/dev.h"

enum {
	TIMERS = 3,
	PERIOD_NS = 10,

	REG_CAPABILITIES = 0x000,
	REG_CONFIG = 0x010,
	REG_STATUS = 0x020,
	REG_COUNTER = 0x0f0,
	REG_TIMERS = 0x100,
	TIMER_SIZE = 0x20,
	TIMER_CONFIG = 0x00,
	TIMER_COMPARATOR = 0x08,

	CONFIG_ENABLE = 1,
	CONFIG_LEGACY = 2,

	TN_LEVEL = 1 << 1,
	TN_ENABLE = 1 << 2,
	TN_PERIODIC = 1 << 3,
	TN_PERIODIC_CAP = 1 << 4,
	TN_SIZE_CAP = 1 << 5,
	TN_SET_VALUE = 1 << 6,
	TN_32BIT = 1 << 8,
	TN_WRITABLE = 0x3f4e,
};

/* 10^7 fs; vendor 8086; legacy routing and a 64-bit counter; three timers; revision 1 */
#define CAPABILITIES (10000000ull << 32 | 0x8086a201u)
/* I/O APIC pins 16-23 */
#define ROUTES 0x00ff0000u
#define FIRST_ROUTE 16
#define ROUTE_COUNT 8

/* A guest's period may be 10 ns; the host's timers are armed no more often than this. */
#define FIRE_MIN_NS 50000

struct hpet;

struct comparator {
	struct hpet *hpet;
	struct vtimer timer;
};

struct hpet {
	struct device dev;
	struct mem_region region;
	struct irq isa[2];
	struct irq routes[ROUTE_COUNT];
	struct comparator comparators[TIMERS];
	uint64_t config, status;
	uint64_t counter; /* at virtual time `since`, or now, while it is not enabled */
	uint64_t since;
	uint64_t timer_config[TIMERS], comparator[TIMERS], period[TIMERS];
	uint8_t legacy_level[2]; /* what the 8254 and the MC146818 drive */
	uint8_t route_high;	 /* level-triggered routes held now */
};

/* ---- counter ---- */

static uint64_t
counter_at(const struct hpet *h, uint64_t now)
{
	return h->config & CONFIG_ENABLE ? h->counter + (now - h->since) / PERIOD_NS : h->counter;
}

static uint64_t
width_mask(const struct hpet *h, int n)
{
	return h->timer_config[n] & TN_32BIT ? 0xffffffffu : ~0ull;
}

static bool
periodic(const struct hpet *h, int n)
{
	return h->timer_config[n] & TN_PERIODIC && h->period[n];
}

/* ---- interrupts ---- */

static bool
legacy(const struct hpet *h, int n)
{
	return h->config & CONFIG_LEGACY && n < 2;
}

/* The wire of a route; NULL: none that the timers can have. */
static int
route_of(const struct hpet *h, int n)
{
	int route = (int)(h->timer_config[n] >> 9 & 31) - FIRST_ROUTE;

	return route >= 0 && route < ROUTE_COUNT ? route : -1;
}

/* Level-triggered routes follow the status bits of the timers that use them. */
static void
drive_levels(struct hpet *h)
{
	uint8_t want = 0, changed;

	for (int n = 0; n < TIMERS; n++) {
		uint64_t c = h->timer_config[n];

		if (c & TN_ENABLE && c & TN_LEVEL && h->status >> n & 1 && !legacy(h, n) && route_of(h, n) >= 0)
			want |= (uint8_t)(1 << route_of(h, n));
	}
	changed = want ^ h->route_high;
	h->route_high = want;
	for (int i = 0; i < ROUTE_COUNT; i++)
		if (changed >> i & 1)
			irq_set(&h->routes[i], want >> i & 1);
}

static void
pulse(const struct irq *w)
{
	irq_set(w, 0);
	irq_set(w, 1);
	irq_set(w, 0);
}

static void
fire(struct hpet *h, int n)
{
	if (h->timer_config[n] & TN_LEVEL)
		h->status |= 1u << n;
	if (!(h->timer_config[n] & TN_ENABLE))
		return;
	if (legacy(h, n))
		pulse(&h->isa[n]);
	else if (h->timer_config[n] & TN_LEVEL)
		drive_levels(h);
	else if (route_of(h, n) >= 0)
		pulse(&h->routes[route_of(h, n)]);
}

/* The 8254 (0) or the MC146818 (1) drives its wire. */
static void
set_legacy(void *opaque, int n, int level)
{
	struct hpet *h = opaque;

	h->legacy_level[n] = level != 0;
	if (!(h->config & CONFIG_LEGACY))
		irq_set(&h->isa[n], level);
}

/* ---- comparators ---- */

/* A periodic comparator is never behind the counter: move it to the first match after `count`. */
static void
advance(struct hpet *h, int n, uint64_t count)
{
	uint64_t mask = width_mask(h, n), behind = (count - h->comparator[n]) & mask;

	if (behind <= mask >> 1)
		h->comparator[n] = (h->comparator[n] + (behind / h->period[n] + 1) * h->period[n]) & mask;
}

static void
arm(struct hpet *h, int n, uint64_t now)
{
	struct vtimer *t = &h->comparators[n].timer;
	uint64_t mask = width_mask(h, n), to_go, when;

	vtimer_cancel(t);
	if (!(h->config & CONFIG_ENABLE) || !(h->timer_config[n] & (TN_ENABLE | TN_LEVEL)))
		return;
	to_go = (h->comparator[n] - counter_at(h, now)) & mask;
	if (!to_go) /* it matches now, and did when this was called for */
		to_go = mask == ~0ull ? mask : mask + 1;
	if (to_go > UINT64_MAX / 4 / PERIOD_NS) /* centuries */
		return;
	/* The match is when the counter's current period ends, to_go - 1 periods before that of the comparator. */
	when = now + to_go * PERIOD_NS - (now - h->since) % PERIOD_NS;
	if (periodic(h, n) && h->period[n] < FIRE_MIN_NS / PERIOD_NS)
		when = MAX(when, now + FIRE_MIN_NS);
	vtimer_arm(t, when);
}

static void
expired(void *opaque)
{
	struct comparator *c = opaque;
	struct hpet *h = c->hpet;
	int n = (int)(c - h->comparators);
	uint64_t now = MAX(clock_now(&h->dev.m->clock), c->timer.when);

	if (periodic(h, n))
		advance(h, n, counter_at(h, now));
	fire(h, n);
	arm(h, n, now);
}

static uint64_t
catch_up(struct hpet *h)
{
	uint64_t now = clock_now(&h->dev.m->clock);

	for (int n = 0; n < TIMERS; n++) {
		struct vtimer *t = &h->comparators[n].timer;

		if (t->armed && t->when <= now) {
			vtimer_cancel(t);
			expired(&h->comparators[n]);
		}
	}
	return now;
}

static void
arm_all(struct hpet *h, uint64_t now)
{
	for (int n = 0; n < TIMERS; n++)
		arm(h, n, now);
}

/* ---- registers: all are 64 bits wide, halves can be accessed ---- */

static uint64_t
timer_read(struct hpet *h, int n, uint64_t off, uint64_t now)
{
	switch (off) {
	case TIMER_CONFIG:
		return h->timer_config[n] | TN_PERIODIC_CAP | TN_SIZE_CAP | (uint64_t)ROUTES << 32;
	case TIMER_COMPARATOR:
		if (periodic(h, n) && h->config & CONFIG_ENABLE)
			advance(h, n, counter_at(h, now) - 1);
		return h->comparator[n];
	}
	return 0;
}

static uint64_t
reg_read(struct hpet *h, uint64_t reg, uint64_t now)
{
	switch (reg) {
	case REG_CAPABILITIES:
		return CAPABILITIES;
	case REG_CONFIG:
		return h->config;
	case REG_STATUS:
		return h->status;
	case REG_COUNTER:
		return counter_at(h, now);
	}
	if (reg >= REG_TIMERS && reg < REG_TIMERS + TIMERS * TIMER_SIZE)
		return timer_read(h, (int)((reg - REG_TIMERS) / TIMER_SIZE), reg % TIMER_SIZE, now);
	return 0;
}

static void
write_config(struct hpet *h, uint64_t v, uint64_t now)
{
	uint64_t old = h->config;

	v &= CONFIG_ENABLE | CONFIG_LEGACY;
	h->counter = counter_at(h, now);
	h->since = now;
	h->config = v;
	if ((old ^ v) & CONFIG_LEGACY) {
		for (int i = 0; i < 2; i++)
			irq_set(&h->isa[i], v & CONFIG_LEGACY ? 0 : h->legacy_level[i]);
		drive_levels(h);
	}
	arm_all(h, now);
}

static void
write_timer_config(struct hpet *h, int n, uint64_t v)
{
	h->timer_config[n] = v & TN_WRITABLE;
	if (!(v & TN_LEVEL))
		h->status &= ~(1ull << n);
	if (v & TN_32BIT) {
		h->comparator[n] &= 0xffffffffu;
		h->period[n] &= 0xffffffffu;
	}
	drive_levels(h);
}

/* 2.3.9.2.2: in periodic mode a write is the period, and with Tn_VAL_SET_CNF also the first match. */
static void
write_comparator(struct hpet *h, int n, uint64_t v)
{
	v &= width_mask(h, n);
	if (!(h->timer_config[n] & TN_PERIODIC) || h->timer_config[n] & TN_SET_VALUE)
		h->comparator[n] = v;
	if (h->timer_config[n] & TN_PERIODIC)
		h->period[n] = v & (width_mask(h, n) >> 1);
	h->timer_config[n] &= ~(uint64_t)TN_SET_VALUE;
}

static void
reg_write(struct hpet *h, uint64_t reg, uint64_t v, uint64_t now)
{
	int n = (int)((reg - REG_TIMERS) / TIMER_SIZE);

	switch (reg) {
	case REG_CONFIG:
		write_config(h, v, now);
		return;
	case REG_STATUS:
		h->status &= ~v;
		drive_levels(h);
		return;
	case REG_COUNTER:
		h->counter = v;
		h->since = now;
		arm_all(h, now);
		return;
	}
	if (reg < REG_TIMERS || n >= TIMERS)
		return;
	if (reg % TIMER_SIZE == TIMER_CONFIG)
		write_timer_config(h, n, v);
	else if (reg % TIMER_SIZE == TIMER_COMPARATOR)
		write_comparator(h, n, v);
	arm(h, n, now);
}

static uint64_t
mmio_read(void *opaque, uint64_t off, unsigned size)
{
	struct hpet *h = opaque;

	return reg_read(h, off & ~7ull, catch_up(h)) >> (off & 4 ? 32 : 0);
}

static void
mmio_write(void *opaque, uint64_t off, uint64_t value, unsigned size)
{
	struct hpet *h = opaque;
	uint64_t now = catch_up(h), reg = off & ~7ull, old;

	if (size == 4) {
		/* Status bits are cleared by ones: the other half must be zeroes. */
		old = reg == REG_STATUS ? 0 : reg_read(h, reg, now);
		value = off & 4 ? (uint32_t)old | value << 32 : (old & ~0xffffffffull) | (uint32_t)value;
	}
	reg_write(h, reg, value, now);
}

static const struct bus_ops ops = { mmio_read, mmio_write, 4, 8 };

/* ---- the device ---- */

static const struct field fields[] = {
	FIELD(struct hpet, config),
	FIELD(struct hpet, status),
	FIELD(struct hpet, counter),
	FIELD(struct hpet, since),
	FIELD_ARRAY(struct hpet, timer_config),
	FIELD_ARRAY(struct hpet, comparator),
	FIELD_ARRAY(struct hpet, period),
	FIELD_ARRAY(struct hpet, legacy_level),
	FIELD_END,
};

static void
reset(struct device *d)
{
	struct hpet *h = (struct hpet *)d;

	for (int n = 0; n < TIMERS; n++) {
		vtimer_cancel(&h->comparators[n].timer);
		h->timer_config[n] = 0;
		h->comparator[n] = ~0ull;
		h->period[n] = 0;
	}
	h->config = h->status = h->counter = h->since = 0;
	drive_levels(h);
	for (int i = 0; i < 2; i++)
		irq_set(&h->isa[i], h->legacy_level[i]);
}

static void
loaded(struct device *d)
{
	struct hpet *h = (struct hpet *)d;

	drive_levels(h);
	if (!(h->config & CONFIG_LEGACY))
		for (int i = 0; i < 2; i++)
			irq_set(&h->isa[i], h->legacy_level[i]);
	arm_all(h, clock_now(&d->m->clock));
}

static void
destroy(struct device *d)
{
	struct hpet *h = (struct hpet *)d;

	for (int n = 0; n < TIMERS; n++)
		vtimer_cancel(&h->comparators[n].timer);
	mem_remove(&d->m->mem, &h->region);
	free(h);
}

static const struct dev_class class = {
	.name = "hpet",
	.fields = fields,
	.reset = reset,
	.loaded = loaded,
	.destroy = destroy,
};

struct hpet *
hpet_create(struct machine *m, gpa_t base, struct isairq *isa, struct ioapic *ioapic)
{
	struct hpet *h = xcalloc(1, sizeof(*h));

	device_add(m, &h->dev, &class);
	h->isa[0] = isairq_input(isa, 0);
	h->isa[1] = isairq_input(isa, 8);
	for (int i = 0; i < ROUTE_COUNT; i++)
		h->routes[i] = ioapic_input(ioapic, FIRST_ROUTE + i);
	for (int n = 0; n < TIMERS; n++) {
		h->comparators[n].hpet = h;
		vtimer_init(&h->comparators[n].timer, &m->clock, expired, &h->comparators[n]);
	}
	h->region = (struct mem_region){ .name = "hpet",
		.kind = MEM_MMIO,
		.enabled = true,
		.priority = 1,
		.base = base,
		.size = PAGE_SIZE,
		.ops = &ops,
		.opaque = h };
	mem_add(&m->mem, &h->region);
	reset(&h->dev);
	return h;
}

struct irq
hpet_legacy_input(struct hpet *h, int n)
{
	return (struct irq){ set_legacy, h, n & 1 };
}
