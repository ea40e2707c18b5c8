/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The local APICs, xAPIC and x2APIC. (Intel SDM volume 3A chapter 11 "APIC", here "SDM"; numbers as of 2023)
 *
 * Interrupts arrive as messages (from I/O APICs and MSIs through m->intc.msi, from other local APICs, from the local
 * vector table) and end in IRR; the CPU is told with CPU_INTR whenever IRR holds something of a higher class than the
 * processor priority, and fetches the vector with ack(), which moves it to ISR. NMI, SMI, INIT and SIPI go to the CPU
 * as they are. ExtINT asks the CPU to acknowledge the 8259s instead; the boot processor's LINT0 is their wire.
 *
 * Everything a message can name is looked up in m->intc.lapic[], so that an APIC holds no pointer to another one.
 *
 * The timer counts nanoseconds (a bus of 1 GHz) divided by DCR. Only a timer that can interrupt is armed: one that is
 * masked counts all the same, since the current count is computed from the time of its start. A periodic timer is armed
 * for the next multiple of its period that is not past: ticks that nobody could take are one tick (IRR is a bit
 * anyway).
 */
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/str.h"
#include "dev/dev.h"

/* Register offsets (SDM table 11-1); x2APIC MSR = 0x800 + offset / 16 (table 11-6). */
enum {
	REG_ID = 0x020,
	REG_VERSION = 0x030,
	REG_TPR = 0x080,
	REG_APR = 0x090,
	REG_PPR = 0x0a0,
	REG_EOI = 0x0b0,
	REG_RRD = 0x0c0,
	REG_LDR = 0x0d0,
	REG_DFR = 0x0e0,
	REG_SVR = 0x0f0,
	REG_ISR = 0x100,
	REG_TMR = 0x180,
	REG_IRR = 0x200,
	REG_ESR = 0x280,
	REG_ICR = 0x300,
	REG_ICR_HIGH = 0x310,
	REG_LVT_TIMER = 0x320,
	REG_LVT_THERMAL = 0x330,
	REG_LVT_PERF = 0x340,
	REG_LVT_LINT0 = 0x350,
	REG_LVT_LINT1 = 0x360,
	REG_LVT_ERROR = 0x370,
	REG_TIMER_INITIAL = 0x380,
	REG_TIMER_CURRENT = 0x390,
	REG_TIMER_DIVIDE = 0x3e0,
	REG_SELF_IPI = 0x3f0,
};

enum { LVT_TIMER, LVT_THERMAL, LVT_PERF, LVT_LINT0, LVT_LINT1, LVT_ERROR, LVT_COUNT };

enum {
	LVT_MODE = 7 << 8,
	LVT_REMOTE_IRR = 1 << 14,
	LVT_LEVEL = 1 << 15,
	LVT_MASKED = 1 << 16,
	LVT_TIMER_MODE = 3 << 17,
	TIMER_ONE_SHOT = 0 << 17,
	TIMER_PERIODIC = 1 << 17,
	TIMER_DEADLINE = 2 << 17,
};
static const uint32_t lvt_writable[LVT_COUNT] = { 0x700ff, 0x107ff, 0x107ff, 0x1a7ff, 0x1a7ff, 0x100ff };

/* Delivery modes, in all messages and in LVT entries (SDM 11.5.1, 11.6.1, 11.11.2) */
enum delivery { FIXED, LOWEST, SMI, RESERVED, NMI, INIT, SIPI, EXTINT };

enum {
	ICR_LOGICAL = 1 << 11,
	ICR_ASSERT = 1 << 14,
	ICR_LEVEL = 1 << 15,
	ICR_WRITABLE = 0xccfff,

	ESR_SEND_VECTOR = 1 << 5,
	ESR_RECEIVE_VECTOR = 1 << 6,
	ESR_REGISTER = 1 << 7,

	SVR_ENABLE = 1 << 8,
	SVR_WRITABLE = 0x3ff,
};

#define VERSION (0x14u | (LVT_COUNT - 1) << 16)

#define BASE_BSP (1ull << 8)
#define BASE_X2APIC (1ull << 10)
#define BASE_ENABLE (1ull << 11)
#define BASE_ADDRESS 0x000ffffffffff000ull

#define MSR_APIC_BASE 0x1b
#define MSR_TSC_DEADLINE 0x6e0
#define MSR_X2APIC 0x800

/* A guest's period may be a nanosecond; the host's timer is not armed more often than this. */
#define PERIOD_MIN_NS 50000

#define TO_ALL 0xffffffffu

struct lapic {
	struct device dev;
	struct vtimer timer;
	uint32_t id; /* CPU index = initial APIC ID */
	uint64_t base;
	uint32_t tpr, ldr, dfr, svr;
	uint32_t isr[8], tmr[8], irr[8];
	uint32_t esr, errors; /* as read; gathered since the last write of ESR */
	uint64_t icr;
	uint32_t lvt[LVT_COUNT];
	uint32_t timer_initial, timer_divide;
	uint64_t timer_start; /* virtual ns of the last write of the initial count */
	uint64_t deadline;    /* guest TSC, 0: none */
	uint8_t extint;	      /* an ExtINT message waits for its acknowledge */
	uint8_t lint[2];      /* levels of the pins */
	uint8_t output;	      /* CPU_INTR as last signalled */
};

static void raise_error(struct lapic *a, uint32_t bit);

/* ---- small helpers ---- */

static struct lapic *
lapic_of(struct machine *m, int cpu)
{
	return m->intc.lapic[cpu].opaque;
}

static bool
x2apic(const struct lapic *a)
{
	return (a->base & (BASE_ENABLE | BASE_X2APIC)) == (BASE_ENABLE | BASE_X2APIC);
}

static bool
accepts(const struct lapic *a)
{
	return a->base & BASE_ENABLE && a->svr & SVR_ENABLE;
}

static int
highest(const uint32_t bits[8])
{
	for (int i = 7; i >= 0; i--)
		if (bits[i])
			return i * 32 + 31 - __builtin_clz(bits[i]);
	return -1;
}

static bool
bit_test(const uint32_t bits[8], int n)
{
	return bits[n >> 5] >> (n & 31) & 1;
}

static void
bit_put(uint32_t bits[8], int n, bool value)
{
	uint32_t mask = 1u << (n & 31);

	bits[n >> 5] = value ? bits[n >> 5] | mask : bits[n >> 5] & ~mask;
}

static enum delivery
lvt_mode(const struct lapic *a, int i)
{
	return (a->lvt[i] & LVT_MODE) >> 8;
}

static void
signal_cpu(struct lapic *a, enum cpu_signal what, int arg)
{
	struct cpu_port *c = &a->dev.m->intc.cpu[a->id];

	if (c->signal)
		c->signal(c->opaque, what, arg);
}

/* ---- priorities and the CPU's side ---- */

/* SDM 11.8.3.1 */
static uint32_t
priority(const struct lapic *a)
{
	int v = highest(a->isr);
	uint32_t in_service = v < 0 ? 0 : (uint32_t)v;

	return (a->tpr & 0xf0) >= (in_service & 0xf0) ? a->tpr : in_service & 0xf0;
}

static int
deliverable(const struct lapic *a)
{
	int v = accepts(a) ? highest(a->irr) : -1;

	return v >= 0 && ((uint32_t)v & 0xf0) > (priority(a) & 0xf0) ? v : -1;
}

/* Do the 8259s want the CPU's attention? With the APIC switched off LINT0 is the INTR pin (SDM 11.4.3). */
static bool
external(const struct lapic *a)
{
	if (!(a->base & BASE_ENABLE))
		return a->lint[0];
	if (a->extint)
		return true;
	return a->lint[0] && !(a->lvt[LVT_LINT0] & LVT_MASKED) && lvt_mode(a, LVT_LINT0) == EXTINT;
}

static void
update(struct lapic *a)
{
	uint8_t level = deliverable(a) >= 0 || external(a);

	if (level == a->output)
		return;
	a->output = level;
	signal_cpu(a, CPU_INTR, level);
}

static int
ack(void *opaque)
{
	struct lapic *a = opaque;
	struct intc *c = &a->dev.m->intc;
	int v = deliverable(a);

	if (v >= 0) {
		bit_put(a->irr, v, false);
		bit_put(a->isr, v, true);
	} else if (external(a)) {
		a->extint = 0;
		v = c->pic_ack ? c->pic_ack(c->pic_opaque) : -1;
	}
	update(a);
	return v;
}

/* Put `vector` into IRR; the caller has checked that the APIC accepts it. */
static void
accept_vector(struct lapic *a, int vector, bool level)
{
	if (vector < 16) {
		raise_error(a, ESR_RECEIVE_VECTOR);
		return;
	}
	bit_put(a->irr, vector, true);
	bit_put(a->tmr, vector, level);
	update(a);
}

/* One message for this APIC. */
static void
deliver(struct lapic *a, enum delivery mode, int vector, bool level)
{
	switch (mode) {
	case FIXED:
	case LOWEST:
		if (accepts(a))
			accept_vector(a, vector, level);
		break;
	case SMI:
		signal_cpu(a, CPU_SMI, 0);
		break;
	case NMI:
		signal_cpu(a, CPU_NMI, 0);
		break;
	case INIT:
		signal_cpu(a, CPU_INIT, 0);
		break;
	case SIPI:
		signal_cpu(a, CPU_SIPI, vector);
		break;
	case EXTINT:
		if (accepts(a)) {
			a->extint = 1;
			update(a);
		}
		break;
	case RESERVED:
		break;
	}
}

/* ---- destinations (SDM 11.6.2) ---- */

static uint32_t
logical_id(const struct lapic *a)
{
	return x2apic(a) ? (a->id >> 4) << 16 | 1u << (a->id & 15) : a->ldr >> 24;
}

static bool
matches_logical(const struct lapic *a, uint32_t dest)
{
	uint32_t id = logical_id(a);

	if (x2apic(a))
		return dest >> 16 == id >> 16 && dest & id & 0xffff;
	if (a->dfr >> 28 == 15)
		return dest & id & 0xff;
	/* cluster model: cluster in the high half, 15 being all of them */
	return (dest >> 4 == id >> 4 || dest >> 4 == 15) && dest & id & 15;
}

static bool
matches(const struct lapic *a, bool logical, uint32_t dest)
{
	if (!(a->base & BASE_ENABLE))
		return false;
	if (dest == TO_ALL)
		return true;
	return logical ? matches_logical(a, dest) : dest == a->id;
}

/* To all that match, or in lowest-priority mode to the one whose processor priority is lowest. */
static void
route(struct machine *m, bool logical, uint32_t dest, enum delivery mode, int vector, bool level)
{
	struct lapic *best = NULL;

	for (int i = 0; i < m->intc.cpus; i++) {
		struct lapic *a = lapic_of(m, i);

		if (!a || !matches(a, logical, dest))
			continue;
		if (mode != LOWEST)
			deliver(a, mode, vector, level);
		else if (accepts(a) && (!best || priority(a) < priority(best)))
			best = a;
	}
	if (best)
		deliver(best, LOWEST, vector, level);
}

/* SDM 11.11: the destination is 8 bits wide; 255 is everyone. */
static void
msi(void *opaque, uint64_t addr, uint32_t data)
{
	uint32_t dest = addr >> 12 & 0xff;
	enum delivery mode = data >> 8 & 7;
	bool logical = addr & 4, level = data & ICR_LEVEL;

	if (level && !(data & ICR_ASSERT))
		return;
	/* "Redirection hint": any one of the destinations */
	if (addr & 8 && logical && mode == FIXED)
		mode = LOWEST;
	if (mode == SIPI) /* not a message a device can send */
		return;
	route(opaque, logical, dest == 0xff ? TO_ALL : dest, mode, data & 0xff, level);
}

/* SDM 11.6.1 */
static void
send_ipi(struct lapic *a)
{
	struct machine *m = a->dev.m;
	uint32_t low = (uint32_t)a->icr, dest = (uint32_t)(a->icr >> 32);
	enum delivery mode = low >> 8 & 7;
	int vector = low & 0xff;

	if (mode == RESERVED || mode == EXTINT)
		return;
	if (mode == INIT && low & ICR_LEVEL && !(low & ICR_ASSERT))
		return; /* INIT level de-assert: arbitration IDs, of which there are none */
	if ((mode == FIXED || mode == LOWEST) && vector < 16) {
		raise_error(a, ESR_SEND_VECTOR);
		return;
	}
	if (!x2apic(a) && (dest >>= 24) == 0xff)
		dest = TO_ALL;
	switch (low >> 18 & 3) {
	case 0:
		route(m, low & ICR_LOGICAL, dest, mode, vector, false);
		break;
	case 1:
		deliver(a, mode, vector, false);
		break;
	case 2:
		route(m, false, TO_ALL, mode, vector, false);
		break;
	case 3:
		for (int i = 0; i < m->intc.cpus; i++) {
			struct lapic *o = lapic_of(m, i);

			if (o && o != a && o->base & BASE_ENABLE)
				deliver(o, mode, vector, false);
		}
		break;
	}
}

/* ---- local vector table ---- */

static void
fire_lvt(struct lapic *a, int i)
{
	if (!(a->lvt[i] & LVT_MASKED))
		deliver(a, i == LVT_TIMER || i == LVT_ERROR ? FIXED : lvt_mode(a, i), a->lvt[i] & 0xff, false);
}

static void
raise_error(struct lapic *a, uint32_t bit)
{
	bool news = !(a->errors & bit);

	a->errors |= bit;
	/* A bad vector in the error entry itself must not lead back here. */
	if (news && (a->lvt[LVT_ERROR] & 0xff) >= 16)
		fire_lvt(a, LVT_ERROR);
}

/* A LINT pin in fixed, level mode: once until the EOI of its vector. */
static void
service_lint(struct lapic *a, int lint)
{
	uint32_t *lvt = &a->lvt[LVT_LINT0 + lint];

	if (!a->lint[lint] || *lvt & (LVT_MASKED | LVT_REMOTE_IRR) || !(*lvt & LVT_LEVEL) ||
		lvt_mode(a, LVT_LINT0 + lint) != FIXED || !accepts(a))
		return;
	*lvt |= LVT_REMOTE_IRR;
	fire_lvt(a, LVT_LINT0 + lint);
}

static void
set_lint(void *opaque, int lint, int level)
{
	struct lapic *a = opaque;
	bool rising = level && !a->lint[lint];
	enum delivery mode = lvt_mode(a, LVT_LINT0 + lint);

	a->lint[lint] = level != 0;
	if (mode == FIXED && a->lvt[LVT_LINT0 + lint] & LVT_LEVEL)
		service_lint(a, lint);
	else if (rising && mode != EXTINT && a->base & BASE_ENABLE)
		fire_lvt(a, LVT_LINT0 + lint);
	update(a);
}

/* SDM 11.8.5 */
static void
eoi(struct lapic *a)
{
	struct intc *c = &a->dev.m->intc;
	int v = highest(a->isr);

	if (v < 0)
		return;
	bit_put(a->isr, v, false);
	for (int i = 0; i < 2; i++) {
		uint32_t *lvt = &a->lvt[LVT_LINT0 + i];

		if (*lvt & LVT_REMOTE_IRR && (*lvt & 0xff) == (uint32_t)v) {
			*lvt &= ~(uint32_t)LVT_REMOTE_IRR;
			service_lint(a, i);
		}
	}
	update(a);
	if (bit_test(a->tmr, v) && c->eoi)
		c->eoi(c->eoi_opaque, v);
}

/* ---- timer (SDM 11.5.4) ---- */

static uint32_t
timer_mode(const struct lapic *a)
{
	return a->lvt[LVT_TIMER] & LVT_TIMER_MODE;
}

/* DCR bits 3, 1, 0: 000 is 2, 001 is 4 ... 110 is 128, 111 is 1. */
static unsigned
timer_shift(const struct lapic *a)
{
	return (((a->timer_divide >> 1 & 4) | (a->timer_divide & 3)) + 1) & 7;
}

static uint64_t
timer_period(const struct lapic *a)
{
	return (uint64_t)a->timer_initial << timer_shift(a);
}

static uint32_t
timer_current(struct lapic *a)
{
	uint64_t gone = clock_now(&a->dev.m->clock) - a->timer_start, period = timer_period(a);

	if (timer_mode(a) == TIMER_DEADLINE || !a->timer_initial)
		return 0;
	if (timer_mode(a) == TIMER_PERIODIC)
		gone %= period;
	return gone >= period ? 0 : a->timer_initial - (uint32_t)(gone >> timer_shift(a));
}

/* Arm the host's timer for the next tick after `now`, if that can interrupt. */
static void
timer_arm(struct lapic *a, uint64_t now)
{
	uint64_t period = timer_period(a), when;

	vtimer_cancel(&a->timer);
	if (a->lvt[LVT_TIMER] & LVT_MASKED)
		return;
	switch (timer_mode(a)) {
	case TIMER_ONE_SHOT:
		if (a->timer_initial && now < a->timer_start + period)
			vtimer_arm(&a->timer, a->timer_start + period);
		break;
	case TIMER_PERIODIC:
		if (!period)
			break;
		when = a->timer_start + ((now - a->timer_start) / period + 1) * period;
		vtimer_arm(&a->timer, period < PERIOD_MIN_NS ? MAX(when, now + PERIOD_MIN_NS) : when);
		break;
	case TIMER_DEADLINE:
		if (a->deadline)
			vtimer_arm(&a->timer, clock_tsc_to_ns(&a->dev.m->clock, a->deadline));
		break;
	}
}

static void
timer_expired(void *opaque)
{
	struct lapic *a = opaque;
	struct clock *c = &a->dev.m->clock;
	uint64_t now = clock_now(c);

	if (timer_mode(a) == TIMER_DEADLINE) {
		/* The guest compares with its TSC: never be early by the error of the host's TSC rate. */
		if (a->deadline && clock_tsc_to_ns(c, a->deadline) > now + 500) {
			timer_arm(a, now);
			return;
		}
		a->deadline = 0;
	}
	fire_lvt(a, LVT_TIMER);
	if (timer_mode(a) == TIMER_PERIODIC)
		timer_arm(a, MAX(now, a->timer.when));
}

/* Before the timer's registers change: what is due has happened. */
static void
timer_catch_up(struct lapic *a)
{
	if (a->timer.armed && a->timer.when <= clock_now(&a->dev.m->clock)) {
		vtimer_cancel(&a->timer);
		timer_expired(a);
	}
}

static void
write_lvt(struct lapic *a, int i, uint32_t v)
{
	uint32_t old_mode = timer_mode(a);

	if (i == LVT_TIMER)
		timer_catch_up(a);
	v = (v & lvt_writable[i]) | (a->lvt[i] & LVT_REMOTE_IRR);
	if (!(a->svr & SVR_ENABLE))
		v |= LVT_MASKED;
	if (!(v & LVT_LEVEL))
		v &= ~(uint32_t)LVT_REMOTE_IRR;
	a->lvt[i] = v;
	if (i == LVT_TIMER) {
		/* Changing to or from deadline mode disarms (SDM 11.5.4.1). */
		if ((old_mode == TIMER_DEADLINE) != (timer_mode(a) == TIMER_DEADLINE)) {
			a->deadline = 0;
			a->timer_initial = 0;
		}
		timer_arm(a, clock_now(&a->dev.m->clock));
	} else if (i == LVT_LINT0 || i == LVT_LINT1) {
		service_lint(a, i - LVT_LINT0);
		update(a);
	}
}

static void
write_timer_initial(struct lapic *a, uint32_t v)
{
	if (timer_mode(a) == TIMER_DEADLINE)
		return;
	timer_catch_up(a);
	a->timer_initial = v;
	a->timer_start = clock_now(&a->dev.m->clock);
	timer_arm(a, a->timer_start);
}

/* The count goes on from where it is, at the new rate. */
static void
write_timer_divide(struct lapic *a, uint32_t v)
{
	uint64_t now = clock_now(&a->dev.m->clock);
	uint32_t gone;

	timer_catch_up(a);
	gone = a->timer_initial - timer_current(a);
	a->timer_divide = v & 11;
	if (a->timer_initial && gone < a->timer_initial)
		a->timer_start = now - MIN(now, (uint64_t)gone << timer_shift(a));
	timer_arm(a, now);
}

static void
write_deadline(struct lapic *a, uint64_t tsc)
{
	struct clock *c = &a->dev.m->clock;

	if (timer_mode(a) != TIMER_DEADLINE)
		return;
	timer_catch_up(a);
	a->deadline = tsc;
	vtimer_cancel(&a->timer);
	if (tsc && clock_tsc(c) >= tsc)
		timer_expired(a);
	else
		timer_arm(a, clock_now(c));
}

/* ---- registers ---- */

static void
write_svr(struct lapic *a, uint32_t v)
{
	a->svr = v & SVR_WRITABLE;
	if (!(a->svr & SVR_ENABLE)) {
		for (int i = 0; i < LVT_COUNT; i++)
			a->lvt[i] |= LVT_MASKED; /* SDM 11.4.7.2 */
		timer_arm(a, clock_now(&a->dev.m->clock));
	}
	update(a);
}

/* SDM 11.5.3: a write latches what was gathered. */
static void
write_esr(struct lapic *a)
{
	a->esr = a->errors;
	a->errors = 0;
}

/* The index into `lvt` of a register; -1: it is none. */
static int
lvt_index(uint32_t reg)
{
	return reg >= REG_LVT_TIMER && reg <= REG_LVT_ERROR ? (int)(reg - REG_LVT_TIMER) >> 4 : -1;
}

/* The registers both modes have. False: there is no such register, or it cannot be read. */
static bool
reg_read(struct lapic *a, uint32_t reg, uint32_t *v)
{
	if (lvt_index(reg) >= 0) {
		*v = a->lvt[lvt_index(reg)];
		return true;
	}
	if (reg >= REG_ISR && reg < REG_ESR) {
		const uint32_t *bits = reg < REG_TMR ? a->isr : reg < REG_IRR ? a->tmr : a->irr;

		*v = bits[reg >> 4 & 7];
		return true;
	}
	switch (reg) {
	case REG_VERSION:
		*v = VERSION;
		return true;
	case REG_TPR:
		*v = a->tpr;
		return true;
	case REG_PPR:
		*v = priority(a);
		return true;
	case REG_SVR:
		*v = a->svr;
		return true;
	case REG_ESR:
		*v = a->esr;
		return true;
	case REG_TIMER_INITIAL:
		*v = a->timer_initial;
		return true;
	case REG_TIMER_CURRENT:
		*v = timer_current(a);
		return true;
	case REG_TIMER_DIVIDE:
		*v = a->timer_divide;
		return true;
	}
	return false;
}

static bool
reg_write(struct lapic *a, uint32_t reg, uint32_t v)
{
	if (lvt_index(reg) >= 0) {
		write_lvt(a, lvt_index(reg), v);
		return true;
	}
	switch (reg) {
	case REG_TPR:
		a->tpr = v & 0xff;
		update(a);
		return true;
	case REG_EOI:
		eoi(a);
		return true;
	case REG_SVR:
		write_svr(a, v);
		return true;
	case REG_ESR:
		write_esr(a);
		return true;
	case REG_TIMER_INITIAL:
		write_timer_initial(a, v);
		return true;
	case REG_TIMER_DIVIDE:
		write_timer_divide(a, v);
		return true;
	}
	return false;
}

static uint32_t
mmio_read(void *opaque, uint32_t off)
{
	struct lapic *a = opaque;
	uint32_t v = 0;

	if (!(a->base & BASE_ENABLE) || x2apic(a))
		return ~0u;
	switch (off) {
	case REG_ID:
		return a->id << 24;
	case REG_LDR:
		return a->ldr;
	case REG_DFR:
		return a->dfr;
	case REG_ICR:
		return (uint32_t)a->icr;
	case REG_ICR_HIGH:
		return (uint32_t)(a->icr >> 32);
	case REG_APR:
	case REG_RRD:
	case REG_EOI:
		return 0;
	}
	if (off & 15 || !reg_read(a, off, &v))
		raise_error(a, ESR_REGISTER);
	return v;
}

static void
mmio_write(void *opaque, uint32_t off, uint32_t v)
{
	struct lapic *a = opaque;

	if (!(a->base & BASE_ENABLE) || x2apic(a))
		return;
	switch (off) {
	case REG_ID: /* read-only, as on current processors */
	case REG_VERSION:
	case REG_PPR:
	case REG_TIMER_CURRENT:
		return;
	case REG_LDR:
		a->ldr = v & 0xff000000;
		return;
	case REG_DFR:
		a->dfr = v | 0x0fffffff;
		return;
	case REG_ICR:
		a->icr = (a->icr & ~0xffffffffull) | (v & ICR_WRITABLE);
		send_ipi(a);
		return;
	case REG_ICR_HIGH:
		a->icr = (uint32_t)a->icr | (uint64_t)(v & 0xff000000) << 32;
		return;
	}
	if (off & 15 || !reg_write(a, off, v))
		raise_error(a, ESR_REGISTER);
}

/* ---- MSRs ---- */

static void
x2apic_self_ipi(struct lapic *a, uint32_t vector)
{
	if (vector < 16)
		raise_error(a, ESR_SEND_VECTOR);
	else
		deliver(a, FIXED, (int)vector, false);
}

static bool
x2apic_read(struct lapic *a, uint32_t reg, uint64_t *value)
{
	uint32_t v = 0;

	switch (reg) {
	case REG_ID:
		*value = a->id;
		return true;
	case REG_LDR:
		*value = logical_id(a);
		return true;
	case REG_ICR:
		*value = a->icr;
		return true;
	}
	if (!reg_read(a, reg, &v))
		return false;
	*value = v;
	return true;
}

/* Reserved bits are not to be written (SDM 11.12.1.3); ICR alone is 64 bits wide. */
static bool
x2apic_write(struct lapic *a, uint32_t reg, uint64_t v)
{
	int lvt = lvt_index(reg);

	if (reg == REG_ICR) {
		if ((uint32_t)v & ~(uint32_t)(ICR_WRITABLE | 1 << 12))
			return false;
		a->icr = v & ~(1ull << 12);
		send_ipi(a);
		return true;
	}
	if (v >> 32 || (lvt >= 0 && (uint32_t)v & ~(lvt_writable[lvt] | 1 << 12 | LVT_REMOTE_IRR)))
		return false;
	switch (reg) {
	case REG_TPR:
	case REG_SELF_IPI:
		if (v > 0xff)
			return false;
		break;
	case REG_EOI:
	case REG_ESR:
		if (v)
			return false;
		break;
	case REG_SVR:
		if (v & ~(uint64_t)(SVR_WRITABLE | 1 << 12))
			return false;
		break;
	case REG_TIMER_DIVIDE:
		if (v & ~11ull)
			return false;
		break;
	}
	if (reg == REG_SELF_IPI) {
		x2apic_self_ipi(a, (uint32_t)v);
		return true;
	}
	return reg_write(a, reg, (uint32_t)v);
}

/* What INIT leaves (SDM 11.4.7.3): not the base, not the ID. */
static void
init(void *opaque)
{
	struct lapic *a = opaque;

	vtimer_cancel(&a->timer);
	a->tpr = a->ldr = a->esr = a->errors = 0;
	a->dfr = 0xffffffff;
	a->svr = 0xff;
	a->icr = 0;
	memset(a->isr, 0, sizeof(a->isr));
	memset(a->tmr, 0, sizeof(a->tmr));
	memset(a->irr, 0, sizeof(a->irr));
	for (int i = 0; i < LVT_COUNT; i++)
		a->lvt[i] = LVT_MASKED;
	a->timer_initial = a->timer_divide = 0;
	a->deadline = 0;
	a->extint = 0;
	update(a);
}

/* SDM 11.12.5: from xAPIC to x2APIC and from both to off; the rest is a #GP. */
static bool
write_base(struct lapic *a, uint64_t v)
{
	uint64_t mode = v & (BASE_ENABLE | BASE_X2APIC), old = a->base & (BASE_ENABLE | BASE_X2APIC);

	if (v & ~(BASE_ADDRESS | BASE_BSP | BASE_X2APIC | BASE_ENABLE) || mode == BASE_X2APIC)
		return false;
	if (mode != old && ((mode & BASE_X2APIC && !old) || (old & BASE_X2APIC && mode)))
		return false;
	a->base = (v & ~BASE_BSP) | (a->base & BASE_BSP);
	a->dev.m->intc.lapic[a->id].base = a->base;
	if (old && !mode)
		init(a);
	if (mode != old && mode & BASE_X2APIC)
		a->icr = (uint32_t)a->icr;
	update(a);
	return true;
}

static bool
msr_read(void *opaque, uint32_t msr, uint64_t *value)
{
	struct lapic *a = opaque;

	if (msr == MSR_APIC_BASE)
		*value = a->base;
	else if (msr == MSR_TSC_DEADLINE) {
		timer_catch_up(a);
		*value = a->deadline;
	} else
		return msr >= MSR_X2APIC && msr <= MSR_X2APIC + 0xff && x2apic(a) &&
		       x2apic_read(a, (msr - MSR_X2APIC) << 4, value);
	return true;
}

static bool
msr_write(void *opaque, uint32_t msr, uint64_t value)
{
	struct lapic *a = opaque;

	if (msr == MSR_APIC_BASE)
		return write_base(a, value);
	if (msr == MSR_TSC_DEADLINE) {
		write_deadline(a, value);
		return true;
	}
	return msr >= MSR_X2APIC && msr <= MSR_X2APIC + 0xff && x2apic(a) &&
	       x2apic_write(a, (msr - MSR_X2APIC) << 4, value);
}

static uint8_t
get_cr8(void *opaque)
{
	return (uint8_t)(((struct lapic *)opaque)->tpr >> 4);
}

static void
set_cr8(void *opaque, uint8_t value)
{
	struct lapic *a = opaque;

	a->tpr = (uint32_t)(value & 15) << 4;
	update(a);
}

/* ---- the device ---- */

static const struct field fields[] = {
	FIELD(struct lapic, base),
	FIELD(struct lapic, tpr),
	FIELD(struct lapic, ldr),
	FIELD(struct lapic, dfr),
	FIELD(struct lapic, svr),
	FIELD_ARRAY(struct lapic, isr),
	FIELD_ARRAY(struct lapic, tmr),
	FIELD_ARRAY(struct lapic, irr),
	FIELD(struct lapic, esr),
	FIELD(struct lapic, errors),
	FIELD(struct lapic, icr),
	FIELD_ARRAY(struct lapic, lvt),
	FIELD(struct lapic, timer_initial),
	FIELD(struct lapic, timer_divide),
	FIELD(struct lapic, timer_start),
	FIELD(struct lapic, deadline),
	FIELD(struct lapic, extint),
	FIELD_ARRAY(struct lapic, lint),
	FIELD_END,
};

static void
reset(struct device *d)
{
	struct lapic *a = (struct lapic *)d;

	a->base = LAPIC_BASE | BASE_ENABLE | (a->id ? 0 : BASE_BSP);
	d->m->intc.lapic[a->id].base = a->base;
	init(a);
	/* Virtual wire mode, which firmware would set up (MultiProcessor Specification 3.6.2.2) */
	if (!a->id)
		a->lvt[LVT_LINT0] = EXTINT << 8;
	a->output = deliverable(a) >= 0 || external(a);
	signal_cpu(a, CPU_INTR, a->output);
}

static void
loaded(struct device *d)
{
	struct lapic *a = (struct lapic *)d;

	d->m->intc.lapic[a->id].base = a->base;
	timer_arm(a, clock_now(&d->m->clock));
	a->output = deliverable(a) >= 0 || external(a);
	signal_cpu(a, CPU_INTR, a->output);
}

static void
destroy(struct device *d)
{
	struct lapic *a = (struct lapic *)d;

	vtimer_cancel(&a->timer);
	d->m->intc.lapic[a->id] = (struct lapic_port){ 0 };
	free(a);
}

static const struct dev_class class = {
	.name = "lapic",
	.fields = fields,
	.reset = reset,
	.loaded = loaded,
	.destroy = destroy,
};

struct lapic *
lapic_create(struct machine *m, int cpu)
{
	struct lapic *a = xcalloc(1, sizeof(*a));

	device_add(m, &a->dev, &class);
	a->id = (uint32_t)cpu;
	vtimer_init(&a->timer, &m->clock, timer_expired, a);
	m->intc.lapic[cpu] = (struct lapic_port){ .opaque = a,
		.ack = ack,
		.mmio_read = mmio_read,
		.mmio_write = mmio_write,
		.msr_read = msr_read,
		.msr_write = msr_write,
		.get_cr8 = get_cr8,
		.set_cr8 = set_cr8,
		.init = init };
	m->intc.cpus = MAX(m->intc.cpus, cpu + 1);
	m->intc.msi = msi;
	m->intc.msi_opaque = m;
	reset(&a->dev);
	return a;
}

struct irq
lapic_input(struct lapic *a, int lint)
{
	return (struct irq){ set_lint, a, lint & 1 };
}
