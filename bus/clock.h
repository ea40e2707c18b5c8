/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The virtual clock: nanoseconds since power-on, standing still while the machine is paused. All guest-visible time
 * (PIT, RTC, HPET, PM timer, LAPIC, TSC) is derived from it, so they never disagree.
 *
 * Guest TSC = virtual nanoseconds scaled to `tsc_hz`, computed from the host's TSC (which must be invariant; where it
 * is not, from CLOCK_MONOTONIC): tsc_guest = host_tsc + tsc_offset while running. clock_now() and clock_tsc() may be
 * called from any thread; the rest needs the machine lock.
 */
#ifndef BUS_CLOCK_H
#define BUS_CLOCK_H

#include <stdbool.h>
#include <stdint.h>

#include "base/loop.h"

struct vtimer;

struct clock {
	struct loop *loop;
	_Atomic uint32_t seq; /* seqlock over the fields up to tsc_offset */
	bool running;
	int64_t offset;	     /* virtual = monotonic + offset, while running */
	uint64_t stopped_at; /* virtual ns, while not running */
	int64_t tsc_offset;  /* guest TSC = host TSC + tsc_offset, while running */
	uint64_t tsc_stopped_at;
	uint64_t tsc_hz;       /* host TSC rate, measured once per process */
	struct vtimer *timers; /* all armed timers, so that stop/start can move them */
};

void clock_open(struct clock *c, struct loop *l);
void clock_close(struct clock *c);
void clock_start(struct clock *c); /* power-on, resume */
void clock_stop(struct clock *c);  /* pause */
/* Load a saved machine's time: only while stopped. */
void clock_set(struct clock *c, uint64_t now_ns, uint64_t tsc);

uint64_t clock_now(struct clock *c);
uint64_t clock_tsc(struct clock *c);
/* The virtual time at which the guest TSC reaches `tsc`. */
uint64_t clock_tsc_to_ns(struct clock *c, uint64_t tsc);

/* a * b / c without overflow in the middle. */
static inline uint64_t
muldiv64(uint64_t a, uint64_t b, uint64_t c)
{
	return (uint64_t)((unsigned __int128)a * b / c);
}

/* One-shot timers in virtual time; embedded by their owner; fn runs on the loop thread under the machine lock. */
struct vtimer {
	struct clock *clock;
	struct loop_timer lt;
	void (*fn)(void *opaque);
	void *opaque;
	uint64_t when; /* virtual ns */
	bool armed;
	struct vtimer *next, **prev;
};
void vtimer_init(struct vtimer *t, struct clock *c, void (*fn)(void *opaque), void *opaque);
void vtimer_arm(struct vtimer *t, uint64_t when_ns);
void vtimer_cancel(struct vtimer *t);

#endif
