/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation: see clock.h. While the clock runs, virtual time is the host's monotonic time plus an offset; a
 * stop remembers both readings and takes armed timers off the loop, a start computes new offsets and puts them back.
 * Readers on vCPU threads use the sequence lock; writers hold the machine lock.
 */
#include "bus/clock.h"

#include <cpuid.h>
#include <time.h>
#include <x86intrin.h>

/*
 * The host's TSC rate. CPUID leaf 0x15 where it is complete (SDM 2A, CPUID); otherwise measured against CLOCK_MONOTONIC
 * over 10 ms, which is good to about 10 ppm.
 */
static uint64_t
host_tsc_hz(void)
{
	uint32_t a, b, c, d;
	uint64_t t0, t1, n0, n1;

	if (__get_cpuid_max(0, NULL) >= 0x15) {
		__cpuid(0x15, a, b, c, d);
		if (a && b && c)
			return (uint64_t)c * b / a;
	}
	n0 = loop_now();
	t0 = __rdtsc();
	do
		n1 = loop_now();
	while (n1 - n0 < 10000000);
	t1 = __rdtsc();
	return muldiv64(t1 - t0, 1000000000u, n1 - n0);
}

void
clock_open(struct clock *c, struct loop *l)
{
	*c = (struct clock){ .loop = l, .tsc_hz = host_tsc_hz() };
}

void
clock_close(struct clock *c)
{
	while (c->timers)
		vtimer_cancel(c->timers);
}

static void
write_begin(struct clock *c)
{
	c->seq++;
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
}

static void
write_end(struct clock *c)
{
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	c->seq++;
}

void
clock_start(struct clock *c)
{
	if (c->running)
		return;
	write_begin(c);
	c->offset = (int64_t)(c->stopped_at - loop_now());
	c->tsc_offset = (int64_t)(c->tsc_stopped_at - __rdtsc());
	c->running = true;
	write_end(c);
	for (struct vtimer *t = c->timers; t; t = t->next)
		loop_timer_arm(&t->lt, (uint64_t)((int64_t)t->when - c->offset));
}

void
clock_stop(struct clock *c)
{
	uint64_t now, tsc;

	if (!c->running)
		return;
	now = clock_now(c);
	tsc = clock_tsc(c);
	write_begin(c);
	c->stopped_at = now;
	c->tsc_stopped_at = tsc;
	c->running = false;
	write_end(c);
	for (struct vtimer *t = c->timers; t; t = t->next)
		loop_timer_cancel(&t->lt);
}

void
clock_set(struct clock *c, uint64_t now_ns, uint64_t tsc)
{
	write_begin(c);
	c->stopped_at = now_ns;
	c->tsc_stopped_at = tsc;
	write_end(c);
}

uint64_t
clock_now(struct clock *c)
{
	uint64_t v;
	uint32_t s;

	do {
		s = c->seq;
		v = c->running ? loop_now() + (uint64_t)c->offset : c->stopped_at;
		__atomic_thread_fence(__ATOMIC_ACQUIRE);
	} while ((s & 1) || s != c->seq);
	return v;
}

uint64_t
clock_tsc(struct clock *c)
{
	uint64_t v;
	uint32_t s;

	do {
		s = c->seq;
		v = c->running ? __rdtsc() + (uint64_t)c->tsc_offset : c->tsc_stopped_at;
		__atomic_thread_fence(__ATOMIC_ACQUIRE);
	} while ((s & 1) || s != c->seq);
	return v;
}

uint64_t
clock_tsc_to_ns(struct clock *c, uint64_t tsc)
{
	int64_t delta = (int64_t)(tsc - clock_tsc(c));
	uint64_t now = clock_now(c);

	if (delta <= 0)
		return now;
	/* A deadline centuries away must not wrap around into the past. */
	if ((uint64_t)delta / c->tsc_hz > 3000000000u)
		return UINT64_MAX / 2;
	return now + muldiv64((uint64_t)delta, 1000000000u, c->tsc_hz);
}

static void
vtimer_fire(void *opaque)
{
	struct vtimer *t = opaque;

	vtimer_cancel(t);
	t->fn(t->opaque);
}

void
vtimer_init(struct vtimer *t, struct clock *c, void (*fn)(void *opaque), void *opaque)
{
	*t = (struct vtimer){ .clock = c, .fn = fn, .opaque = opaque };
	loop_timer_init(&t->lt, c->loop, vtimer_fire, t);
}

void
vtimer_arm(struct vtimer *t, uint64_t when_ns)
{
	struct clock *c = t->clock;

	t->when = when_ns;
	if (!t->armed) {
		t->armed = true;
		t->next = c->timers;
		t->prev = &c->timers;
		if (c->timers)
			c->timers->prev = &t->next;
		c->timers = t;
	}
	if (c->running)
		loop_timer_arm(&t->lt, (uint64_t)((int64_t)when_ns - c->offset));
}

void
vtimer_cancel(struct vtimer *t)
{
	if (!t->armed)
		return;
	t->armed = false;
	*t->prev = t->next;
	if (t->next)
		t->next->prev = t->prev;
	loop_timer_cancel(&t->lt);
}
