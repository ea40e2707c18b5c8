/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A board without a processor, for unit tests of its chips: ports and registers are accessed as a CPU would, virtual
 * time stands still and is moved by hand, and what would reach the CPU is recorded.
 */
#ifndef TEST_UNIT_DEV_BOARD_H
#define TEST_UNIT_DEV_BOARD_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

#include "dev/dev.h"

#define MS 1000000ull
#define SECOND 1000000000ull

struct board {
	struct machine m;
	struct {
		int intr, nmi, smi, init, sipi, vector;
	} cpu[CPUS_MAX];
	int events[8]; /* how often each enum machine_event came */
	int status;
	struct {
		int level, rises;
	} wire[32];
};

struct board_cpu {
	struct board *b;
	int n;
};

static inline void
board_signal(void *opaque, enum cpu_signal what, int arg)
{
	struct board_cpu *c = opaque;

	switch (what) {
	case CPU_INTR:
		c->b->cpu[c->n].intr = arg;
		break;
	case CPU_NMI:
		c->b->cpu[c->n].nmi++;
		break;
	case CPU_SMI:
		c->b->cpu[c->n].smi++;
		break;
	case CPU_INIT:
		c->b->cpu[c->n].init++;
		break;
	case CPU_SIPI:
		c->b->cpu[c->n].sipi++;
		c->b->cpu[c->n].vector = arg;
		break;
	}
}

static inline void
board_event(void *opaque, enum machine_event what, int status)
{
	struct board *b = opaque;

	b->events[what]++;
	b->status = status;
}

static inline void
board_open(struct board *b, int cpus)
{
	static struct board_cpu ports[CPUS_MAX];

	memset(b, 0, sizeof(*b));
	assert_int_equal(machine_open(&b->m, "board"), 0);
	b->m.event = board_event;
	b->m.event_opaque = b;
	for (int i = 0; i < cpus; i++) {
		ports[i] = (struct board_cpu){ b, i };
		b->m.intc.cpu[i] = (struct cpu_port){ &ports[i], board_signal };
	}
}

static inline void
board_close(struct board *b)
{
	machine_close(&b->m);
}

/* A wire whose level and rising edges are recorded. */
static inline void
board_wire_set(void *opaque, int n, int level)
{
	struct board *b = opaque;

	b->wire[n].rises += level && !b->wire[n].level;
	b->wire[n].level = level;
}

static inline struct irq
board_wire(struct board *b, int n)
{
	return (struct irq){ board_wire_set, b, n };
}

static inline void
board_set_time(struct board *b, uint64_t ns)
{
	clock_set(&b->m.clock, ns, muldiv64(ns, b->m.clock.tsc_hz, SECOND));
}

/* Move time on, firing every timer at its moment; returns how many fired. */
static inline int
board_run(struct board *b, uint64_t ns)
{
	struct clock *c = &b->m.clock;
	uint64_t end = clock_now(c) + ns;
	int fired = 0;

	for (;;) {
		struct vtimer *first = NULL;

		for (struct vtimer *t = c->timers; t; t = t->next)
			if (t->when <= end && (!first || t->when < first->when))
				first = t;
		if (!first)
			break;
		if (first->when > clock_now(c))
			board_set_time(b, first->when);
		vtimer_cancel(first);
		first->fn(first->opaque);
		fired++;
		assert_true(fired < 1000000);
	}
	board_set_time(b, end);
	return fired;
}

static inline void
out8(struct board *b, uint16_t port, uint32_t v)
{
	io_write(&b->m.io, port, v, 1);
}
static inline void
out16(struct board *b, uint16_t port, uint32_t v)
{
	io_write(&b->m.io, port, v, 2);
}
static inline void
out32(struct board *b, uint16_t port, uint32_t v)
{
	io_write(&b->m.io, port, v, 4);
}
static inline uint8_t
in8(struct board *b, uint16_t port)
{
	return (uint8_t)io_read(&b->m.io, port, 1);
}
static inline uint16_t
in16(struct board *b, uint16_t port)
{
	return (uint16_t)io_read(&b->m.io, port, 2);
}
static inline uint32_t
in32(struct board *b, uint16_t port)
{
	return io_read(&b->m.io, port, 4);
}

static inline uint32_t
apic_read(struct board *b, int cpu, uint32_t reg)
{
	return b->m.intc.lapic[cpu].mmio_read(b->m.intc.lapic[cpu].opaque, reg);
}
static inline void
apic_write(struct board *b, int cpu, uint32_t reg, uint32_t v)
{
	b->m.intc.lapic[cpu].mmio_write(b->m.intc.lapic[cpu].opaque, reg, v);
}
static inline bool
apic_rdmsr(struct board *b, int cpu, uint32_t msr, uint64_t *v)
{
	return b->m.intc.lapic[cpu].msr_read(b->m.intc.lapic[cpu].opaque, msr, v);
}
static inline bool
apic_wrmsr(struct board *b, int cpu, uint32_t msr, uint64_t v)
{
	return b->m.intc.lapic[cpu].msr_write(b->m.intc.lapic[cpu].opaque, msr, v);
}
static inline int
apic_ack(struct board *b, int cpu)
{
	return b->m.intc.lapic[cpu].ack(b->m.intc.lapic[cpu].opaque);
}

/* Many random accesses to everything that is there: none may crash or hang. */
static inline uint32_t
board_random(uint64_t *seed)
{
	*seed = *seed * 6364136223846793005ull + 1442695040888963407ull;
	return (uint32_t)(*seed >> 33);
}

#endif
