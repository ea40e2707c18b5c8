/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <unistd.h>

#include "base/loop.h"

struct fixture {
	pthread_mutex_t lock;
	struct loop *loop;
	int calls, order[8];
	struct loop_watch *watch;
	int fds[2];
};

static int
setup(void **state)
{
	static struct fixture f;

	f = (struct fixture){ 0 };
	pthread_mutex_init(&f.lock, NULL);
	f.loop = loop_open(&f.lock);
	*state = &f;
	return !f.loop;
}

static int
teardown(void **state)
{
	struct fixture *f = *state;

	loop_close(f->loop);
	return 0;
}

struct timed {
	struct loop_timer t;
	struct fixture *f;
	int id;
};

static void
fired(void *opaque)
{
	struct timed *t = opaque;

	t->f->order[t->f->calls++] = t->id;
	if (t->f->calls == 3)
		loop_stop(t->f->loop);
}

static void
timers_fire_in_the_order_of_their_times(void **state)
{
	struct fixture *f = *state;
	struct timed t[3];
	uint64_t now = loop_now();
	static const int delay_ms[3] = { 3, 1, 2 };

	for (int i = 0; i < 3; i++) {
		t[i].f = f;
		t[i].id = i;
		loop_timer_init(&t[i].t, f->loop, fired, &t[i]);
		loop_timer_arm(&t[i].t, now + (uint64_t)delay_ms[i] * 1000000);
	}
	loop_run(f->loop);
	assert_int_equal(f->order[0], 1);
	assert_int_equal(f->order[1], 2);
	assert_int_equal(f->order[2], 0);
}

static void
a_cancelled_timer_does_not_fire(void **state)
{
	struct fixture *f = *state;
	struct timed t[4];
	uint64_t now = loop_now();

	for (int i = 0; i < 4; i++) {
		t[i].f = f;
		t[i].id = i;
		loop_timer_init(&t[i].t, f->loop, fired, &t[i]);
		loop_timer_arm(&t[i].t, now + (uint64_t)(i + 1) * 500000);
	}
	loop_timer_cancel(&t[0].t);
	assert_false(loop_timer_armed(&t[0].t));
	loop_run(f->loop);
	assert_int_equal(f->order[0], 1);
	assert_int_equal(f->calls, 3);
}

static void
readable(void *opaque, int ready)
{
	struct fixture *f = opaque;
	char c;

	assert_true(ready & LOOP_IN);
	assert_int_equal(read(f->fds[0], &c, 1), 1);
	if (++f->calls == 2) {
		loop_watch_remove(f->watch);
		loop_stop(f->loop);
	}
}

static void
a_watch_is_called_while_its_file_is_readable(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(pipe(f->fds), 0);
	f->watch = loop_watch_add(f->loop, f->fds[0], LOOP_IN, readable, f);
	assert_non_null(f->watch);
	assert_int_equal(write(f->fds[1], "ab", 2), 2);
	loop_run(f->loop);
	assert_int_equal(f->calls, 2);
	close(f->fds[0]);
	close(f->fds[1]);
}

static void
posted(void *opaque)
{
	struct timed *t = opaque;

	fired(t);
}

static void *
poster(void *opaque)
{
	struct timed *t = opaque;

	for (int i = 0; i < 3; i++)
		loop_post(t[i].f->loop, posted, &t[i]);
	return NULL;
}

static void
calls_posted_from_another_thread_run_in_order(void **state)
{
	struct fixture *f = *state;
	struct timed t[3];
	pthread_t th;

	for (int i = 0; i < 3; i++) {
		t[i].f = f;
		t[i].id = i;
	}
	assert_int_equal(pthread_create(&th, NULL, poster, t), 0);
	loop_run(f->loop);
	pthread_join(th, NULL);
	for (int i = 0; i < 3; i++)
		assert_int_equal(f->order[i], i);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(timers_fire_in_the_order_of_their_times, setup, teardown),
		cmocka_unit_test_setup_teardown(a_cancelled_timer_does_not_fire, setup, teardown),
		cmocka_unit_test_setup_teardown(a_watch_is_called_while_its_file_is_readable, setup, teardown),
		cmocka_unit_test_setup_teardown(calls_posted_from_another_thread_run_in_order, setup, teardown),
	};

	return cmocka_run_group_tests_name("base/loop", tests, NULL, NULL);
}
