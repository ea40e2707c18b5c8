/* SPDX-License-Identifier: Apache-2.0 */
/* A host without room, and limits of bandwidth. A limit on the size of files stands for the full disk. */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/log.h"
#include "block/block.h"

#define SIZE (8u << 20)

static char dir[] = "/tmp/lodge-room-XXXXXX";
static struct block *image;
static int told, result, completions;

static int
set_up(void **state)
{
	char path[64];
	struct block_create c = { .path = path, .format = "raw", .size = SIZE };
	struct err e = { 0 };

	log_set_level(LOG_ERROR);
	signal(SIGXFSZ, SIG_IGN);
	strcpy(dir, "/tmp/lodge-room-XXXXXX");
	assert_non_null(mkdtemp(dir));
	snprintf(path, sizeof(path), "%s/a.img", dir);
	if (block_create(&c, &e))
		fail_msg("%s", e.text);
	image = block_open(path, "raw", 0, &e);
	assert_non_null(image);
	told = completions = 0;
	result = 1;
	return 0;
}

static void
files_may_have(rlim_t bytes)
{
	struct rlimit l;

	getrlimit(RLIMIT_FSIZE, &l);
	l.rlim_cur = MIN(bytes, l.rlim_max);
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &l), 0);
}

static int
tear_down(void **state)
{
	char cmd[64];

	files_may_have(RLIM_INFINITY);
	block_close(image);
	snprintf(cmd, sizeof(cmd), "rm -rf %s", dir);
	return system(cmd);
}

static void
full(void *opaque)
{
	told++;
}

static void
done(struct block_req *r, int res)
{
	completions++;
	result = res;
}

static void
milliseconds(int n)
{
	nanosleep(&(struct timespec){ .tv_sec = n / 1000, .tv_nsec = n % 1000 * 1000000 }, NULL);
}

static struct block_req
write_at(struct iovec *iov, uint64_t off)
{
	return (struct block_req){ .op = BLOCK_WRITE, .off = off, .iov = iov, .iovcnt = 1, .done = done };
}

/* The loop's part, without a loop. */
static void
wait_until_full(void)
{
	for (int i = 0; i < 2000 && !block_is_full(image); i++)
		milliseconds(1);
	assert_true(block_is_full(image));
}

static void
a_write_without_room_is_held_and_goes_on_when_there_is_some(void **state)
{
	uint8_t data[4096], back[4096];
	struct iovec iov = { data, sizeof(data) };
	struct block_req r = write_at(&iov, SIZE - 4096);

	memset(data, 0x5a, sizeof(data));
	block_hold_when_full(image, full, NULL);
	files_may_have(4096);
	block_submit(image, &r);
	wait_until_full();
	assert_int_equal(completions, 0);
	files_may_have(RLIM_INFINITY);
	block_retry(image);
	block_drain(image);
	assert_false(block_is_full(image));
	assert_int_equal(completions, 1);
	assert_int_equal(result, 0);
	assert_int_equal(block_read(image, back, sizeof(back), SIZE - 4096), 0);
	assert_memory_equal(back, data, sizeof(data));
}

static void
a_write_that_is_held_when_the_machine_ends_fails(void **state)
{
	uint8_t data[4096] = { 1 };
	struct iovec iov = { data, sizeof(data) };
	struct block_req r = write_at(&iov, SIZE - 4096);

	block_hold_when_full(image, full, NULL);
	files_may_have(4096);
	block_submit(image, &r);
	wait_until_full();
	block_drain(image);
	assert_int_equal(completions, 1);
	assert_int_equal(result, -ENOSPC);
}

static void
without_anybody_to_tell_a_write_without_room_fails_at_once(void **state)
{
	uint8_t data[4096] = { 1 };
	struct iovec iov = { data, sizeof(data) };
	struct block_req r = write_at(&iov, SIZE - 4096);

	files_may_have(4096);
	block_submit(image, &r);
	block_drain(image);
	assert_int_equal(result, -ENOSPC);
}

static void
a_read_of_what_the_host_has_cached_is_done_at_once(void **state)
{
	uint8_t data[4096], back[4096] = { 0 };
	struct iovec iov = { back, sizeof(back) };
	struct block_req r = { .op = BLOCK_READ, .off = 8192, .iov = &iov, .iovcnt = 1, .done = done };
	pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
	struct loop *loop = loop_open(&lock);

	assert_non_null(loop);
	memset(data, 0x66, sizeof(data));
	assert_int_equal(block_write(image, data, sizeof(data), 8192), 0);
	block_submit(image, &r); /* nobody's loop would hear of it: the long way */
	block_drain(image);
	assert_int_equal(completions, 1);
	block_attach_loop(image, loop);
	block_submit(image, &r);
	if (completions == 1) {
		block_drain(image);
		print_message("the file system of /tmp does not tell what it has cached: not tested\n");
	}
	assert_int_equal(completions, 2);
	assert_memory_equal(back, data, sizeof(data));
	block_attach_loop(image, NULL);
	loop_close(loop);
}

static double
seconds(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* 600 KB at 1 MB a second, of which a tenth of a second's worth is free. */
static void
a_limit_holds(void **state)
{
	struct block_limit *l = block_limit_create(1000000);
	double start = seconds();

	for (int i = 0; i < 10; i++)
		block_limit_take(l, 60000);
	assert_true(seconds() - start > 0.35);
	assert_true(seconds() - start < 2.0);
	block_limit_free(l);
}

static void
a_change_of_the_limit_is_felt_by_who_waits(void **state)
{
	struct block_limit *l = block_limit_create(1000);
	double start = seconds();
	uint8_t data[65536] = { 0 };
	struct iovec iov = { data, sizeof(data) };
	struct block_req r[4];

	block_set_limit(image, l);
	for (int i = 0; i < 4; i++) {
		r[i] = write_at(&iov, (uint64_t)i * sizeof(data));
		block_submit(image, &r[i]); /* minutes at that rate */
	}
	milliseconds(50);
	block_limit_set(l, 0);
	block_drain(image);
	assert_int_equal(completions, 4);
	assert_true(seconds() - start < 5.0);
	block_set_limit(image, NULL);
	block_limit_free(l);
}

static void
a_drain_does_not_wait_for_a_limit(void **state)
{
	struct block_limit *l = block_limit_create(1000);
	double start = seconds();
	uint8_t data[65536] = { 0 };
	struct iovec iov = { data, sizeof(data) };
	struct block_req r[2];

	block_set_limit(image, l);
	for (int i = 0; i < 2; i++) {
		r[i] = write_at(&iov, 0);
		block_submit(image, &r[i]);
	}
	block_drain(image);
	assert_int_equal(completions, 2);
	assert_true(seconds() - start < 5.0);
	block_set_limit(image, NULL);
	block_limit_free(l);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(
			a_write_without_room_is_held_and_goes_on_when_there_is_some, set_up, tear_down),
		cmocka_unit_test_setup_teardown(a_write_that_is_held_when_the_machine_ends_fails, set_up, tear_down),
		cmocka_unit_test_setup_teardown(
			without_anybody_to_tell_a_write_without_room_fails_at_once, set_up, tear_down),
		cmocka_unit_test_setup_teardown(a_read_of_what_the_host_has_cached_is_done_at_once, set_up, tear_down),
		cmocka_unit_test_setup_teardown(a_limit_holds, set_up, tear_down),
		cmocka_unit_test_setup_teardown(a_change_of_the_limit_is_felt_by_who_waits, set_up, tear_down),
		cmocka_unit_test_setup_teardown(a_drain_does_not_wait_for_a_limit, set_up, tear_down),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
