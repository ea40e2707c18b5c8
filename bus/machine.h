/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The machine as its parts see it: the lock, the loop, the clock, memory, ports, PCI, the interrupt wiring.
 *
 * Locking: `lock` (the machine lock) is held whenever device code runs: port and MMIO handlers, timers, loop
 * callbacks, interrupt acknowledge, reset. Guest code runs without it. Disk workers run without it and come back
 * through loop_post(). Nobody sleeps or does blocking I/O while holding it. It is fair: a vCPU that touches registers
 * without end keeps neither the loop nor other vCPUs from it.
 */
#ifndef BUS_MACHINE_H
#define BUS_MACHINE_H

#include <stdbool.h>

#include "base/lock.h"
#include "base/loop.h"
#include "bus/clock.h"
#include "bus/device.h"
#include "bus/intc.h"
#include "bus/io.h"
#include "bus/irq.h"
#include "bus/mem.h"
#include "bus/pci.h"

/* What the guest, or a chip on its behalf, asks of whoever runs the machine. */
enum machine_event {
	MACHINE_RESET,	      /* keyboard controller, port 0xcf9, ACPI reset register */
	MACHINE_POWEROFF,     /* ACPI S5 */
	MACHINE_SUSPEND,      /* ACPI S3 */
	MACHINE_TRIPLE_FAULT, /* a CPU shut down */
	MACHINE_DEBUG_EXIT,   /* isa-debug-exit; status = (value << 1) | 1 */
	MACHINE_ERROR,	      /* the host cannot go on: an engine failed, a disk error policy says stop */
};

/* Who wants to hear, once, that a CPU has nothing to do (any more). */
struct machine_idle {
	void (*fn)(void *opaque); /* machine lock held */
	void *opaque;
	bool wanted;
	struct machine_idle *next;
};

struct machine {
	char name[64]; /* for log lines */
	struct fair_lock lock;
	struct loop *loop;
	struct clock clock;
	struct mem mem;
	struct io io;
	struct pci_bus pci;
	struct intc intc;
	struct device *devices, **devices_tail;
	_Atomic unsigned halts; /* times that a CPU has gone to sleep */
	_Atomic bool idle_wanted;
	struct machine_idle *idle;

	/* Set by the owner (vm/) before power-on; called under the lock by machine_event(). Must not block. */
	void (*event)(void *opaque, enum machine_event what, int status);
	void *event_opaque;
};

/* An empty machine: lock, loop, clock stopped at 0, no memory. 0, or -errno. */
int machine_open(struct machine *m, const char *name);
/* Destroys all devices, last one first: then what they were connected to, and the loop, may be closed. Machine lock
 * held, no vCPU or loop thread running. */
void machine_destroy_devices(struct machine *m);
/* Destroys what devices there are and frees what open made. No vCPU or loop thread may be running. */
void machine_close(struct machine *m);

void machine_event(struct machine *m, enum machine_event what, int status);

void machine_idle_add(struct machine *m, struct machine_idle *i);
void machine_idle_remove(struct machine *m, struct machine_idle *i);
/* True: a CPU has gone to sleep since m->halts was `seen`. Otherwise fn() is called when one does. */
bool machine_idle_since(struct machine *m, struct machine_idle *i, unsigned seen);
/* A CPU goes to sleep, without the lock. */
void machine_halts(struct machine *m);

static inline void
machine_lock(struct machine *m)
{
	fair_lock(&m->lock);
}
static inline void
machine_unlock(struct machine *m)
{
	fair_unlock(&m->lock);
}

#endif
