/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/lock.h"
#include "base/loop.h"

struct sleeper {
	struct fair_lock lock;
	bool had; /* under the lock */
	_Atomic bool stop;
	uint64_t counted; /* under the lock */
};

static void *
take_once(void *opaque)
{
	struct sleeper *s = opaque;

	fair_lock(&s->lock);
	s->had = true;
	fair_unlock(&s->lock);
	return NULL;
}

static void
hold(struct sleeper *s)
{
	uint64_t end = loop_now() + 20000;

	while (loop_now() < end)
		;
	s->counted++;
}

/* Take the lock again and again, as a vCPU in a loop of MMIO does, with another thread asleep for it; how often? */
static unsigned
times_ahead(struct sleeper *s)
{
	pthread_t t;
	unsigned n = 0;

	s->had = false;
	fair_lock(&s->lock);
	pthread_create(&t, NULL, take_once, s);
	while (!s->lock.waiting)
		;
	while (!s->had) {
		hold(s);
		fair_unlock(&s->lock);
		fair_lock(&s->lock);
		n++;
	}
	fair_unlock(&s->lock);
	pthread_join(t, NULL);
	return n;
}

static void
a_thread_that_takes_it_without_end_does_not_keep_another_out(void **state)
{
	struct sleeper s = { 0 };

	fair_lock_init(&s.lock);
	for (int i = 0; i < 100; i++)
		assert_in_range(times_ahead(&s), 1, FAIR_LOCK_AHEAD + 1);
	fair_lock_destroy(&s.lock);
}

static void *
take_and_take(void *opaque)
{
	struct sleeper *s = opaque;

	while (!s->stop) {
		fair_lock(&s->lock);
		fair_lock(&s->lock);
		hold(s);
		fair_unlock(&s->lock);
		fair_unlock(&s->lock);
	}
	return NULL;
}

static void
several_threads_that_do_so_all_go_on(void **state)
{
	struct sleeper s = { 0 };
	pthread_t t[3];

	fair_lock_init(&s.lock);
	for (int i = 0; i < 3; i++)
		pthread_create(&t[i], NULL, take_and_take, &s);
	for (int i = 0; i < 50; i++) {
		fair_lock(&s.lock);
		hold(&s);
		fair_unlock(&s.lock);
	}
	s.stop = true;
	for (int i = 0; i < 3; i++)
		pthread_join(t[i], NULL);
	assert_int_equal(s.lock.waiting, 0);
	assert_int_equal(s.lock.deferring, 0);
	fair_lock_destroy(&s.lock);
}

static void
the_owner_takes_it_again_while_others_wait(void **state)
{
	struct sleeper g = { 0 };
	pthread_t t;

	fair_lock_init(&g.lock);
	fair_lock(&g.lock);
	pthread_create(&t, NULL, take_and_take, &g);
	while (!g.lock.waiting)
		;
	for (int i = 0; i < 100; i++)
		fair_lock(&g.lock);
	for (int i = 0; i < 100; i++)
		fair_unlock(&g.lock);
	assert_int_equal(g.counted, 0);
	fair_unlock(&g.lock);
	g.stop = true;
	pthread_join(t, NULL);
	assert_int_equal(g.lock.waiting, 0);
	assert_int_equal(g.lock.deferring, 0);
	fair_lock_destroy(&g.lock);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_thread_that_takes_it_without_end_does_not_keep_another_out),
		cmocka_unit_test(several_threads_that_do_so_all_go_on),
		cmocka_unit_test(the_owner_takes_it_again_while_others_wait),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
