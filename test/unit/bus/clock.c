/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <unistd.h>

#include "bus/machine.h"

struct fixture {
	struct machine m;
	struct vtimer t;
	uint64_t fired_at;
};

static void
fire(void *opaque)
{
	struct fixture *f = opaque;

	f->fired_at = clock_now(&f->m.clock);
	loop_stop(f->m.loop);
}

static int
setup(void **state)
{
	static struct fixture f;

	f.fired_at = 0;
	*state = &f;
	if (machine_open(&f.m, "test"))
		return -1;
	vtimer_init(&f.t, &f.m.clock, fire, &f);
	return 0;
}

static int
teardown(void **state)
{
	machine_close(&((struct fixture *)*state)->m);
	return 0;
}

static void
time_and_tsc_stand_still_until_power_on_and_while_paused(void **state)
{
	struct clock *c = &((struct fixture *)*state)->m.clock;
	uint64_t ns, tsc;

	assert_int_equal(clock_now(c), 0);
	assert_int_equal(clock_tsc(c), 0);
	clock_start(c);
	usleep(2000);
	assert_true(clock_now(c) >= 2000000);
	clock_stop(c);
	ns = clock_now(c);
	tsc = clock_tsc(c);
	usleep(2000);
	assert_true(clock_now(c) == ns);
	assert_true(clock_tsc(c) == tsc);
	clock_start(c);
	assert_in_range(clock_now(c) - ns, 0, 1500000);
}

static void
the_tsc_runs_at_the_rate_the_clock_says(void **state)
{
	struct clock *c = &((struct fixture *)*state)->m.clock;
	uint64_t ns, ticks;

	clock_start(c);
	ns = clock_now(c);
	ticks = clock_tsc(c);
	usleep(20000);
	ns = clock_now(c) - ns;
	ticks = clock_tsc(c) - ticks;
	/* within 1 %: reading the two is not atomic */
	assert_in_range(muldiv64(ticks, 1000000000u, c->tsc_hz), ns - ns / 100, ns + ns / 100);
}

static void
an_armed_timer_keeps_its_virtual_time_over_a_pause(void **state)
{
	struct fixture *f = *state;

	clock_start(&f->m.clock);
	vtimer_arm(&f->t, clock_now(&f->m.clock) + 3000000);
	clock_stop(&f->m.clock);
	usleep(5000);
	assert_int_equal(f->fired_at, 0);
	clock_start(&f->m.clock);
	loop_run(f->m.loop);
	assert_true(f->fired_at >= f->t.when);
	assert_in_range(f->fired_at - f->t.when, 0, 50000000);
}

static void
a_deadline_in_the_past_is_now_and_one_centuries_away_does_not_wrap(void **state)
{
	struct clock *c = &((struct fixture *)*state)->m.clock;

	clock_set(c, 1000, 5000);
	assert_int_equal(clock_tsc_to_ns(c, 4000), 1000);
	assert_true(clock_tsc_to_ns(c, UINT64_MAX / 2) > 1000000000000000u);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
		T(time_and_tsc_stand_still_until_power_on_and_while_paused),
		T(the_tsc_runs_at_the_rate_the_clock_says),
		T(an_armed_timer_keeps_its_virtual_time_over_a_pause),
		T(a_deadline_in_the_past_is_now_and_one_centuries_away_does_not_wrap),
	};

	return cmocka_run_group_tests_name("bus/clock", tests, NULL, NULL);
}
