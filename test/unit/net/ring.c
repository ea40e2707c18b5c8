/* SPDX-License-Identifier: Apache-2.0 */
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/str.h"
#include "net/net.h"
#include "net/ring.h"

static struct wire sw, vm;
static unsigned mss;

static int
setup(void **state)
{
	int fds[3], copies[3];

	if (wire_create(&sw, fds, NULL))
		return -1;
	for (int i = 0; i < 3; i++)
		copies[i] = dup(fds[i]);
	close(fds[0]);
	return wire_open(&vm, copies, NULL);
}

static int
teardown(void **state)
{
	wire_close(&vm);
	wire_close(&sw);
	return 0;
}

static void
frames_come_out_as_they_went_in(void **state)
{
	uint8_t in[NET_FRAME_MAX], out[NET_FRAME_MAX];
	uint32_t lens[64], seed = 1;
	int put = 0, got = 0;

	for (int round = 0; round < 3000; round++) {
		size_t len = 14 + (seed = seed * 1103515245 + 12345) % (round % 7 ? 2000 : NET_FRAME_MAX - 14);

		memset(in, put & 255, len);
		if (put - got < 64 && ring_put(&vm.out, in, len, 0)) {
			lens[put++ % 64] = (uint32_t)len;
			ring_publish(&vm.out);
			continue;
		}
		for (int n; (n = ring_get(&sw.in, out, sizeof(out), &mss)) != 0; got++) {
			assert_int_equal(n, lens[got % 64]);
			assert_int_equal(out[0], got & 255);
			assert_int_equal(out[n - 1], got & 255);
		}
		ring_release(&sw.in);
	}
	assert_true(got > 1000);
}

static void
a_full_ring_says_so_and_has_room_again(void **state)
{
	uint8_t frame[1500] = { 0 };
	int put = 0, got = 0;

	while (ring_put(&vm.out, frame, sizeof(frame), 0))
		put++;
	assert_true(put >= (int)(RING_BYTES / 1512) - 1);
	assert_false(ring_publish(&vm.out));
	assert_false(ring_await_room(&vm.out));
	while (ring_get(&sw.in, frame, sizeof(frame), &mss) > 0)
		got++;
	assert_int_equal(put, got);
	assert_true(ring_release(&sw.in));
	assert_true(ring_put(&vm.out, frame, sizeof(frame), 0));
}

/* A ring that was emptied goes back to its start; that must not cost it its room. */
static void
a_ring_has_room_wherever_it_stands_when_it_is_empty(void **state)
{
	uint8_t frame[1500] = { 0 };

	for (int round = 0; round < 2000; round++) {
		int put = 0, got = 0;

		for (int i = 0; i < 1 + round % 7; i++)
			assert_true(ring_put(&vm.out, frame, sizeof(frame), 0));
		ring_publish(&vm.out);
		while (ring_get(&sw.in, frame, sizeof(frame), &mss) > 0)
			;
		ring_release(&sw.in);
		while (put < 150 && ring_put(&vm.out, frame, sizeof(frame), 0)) {
			put++;
			ring_publish(&vm.out);
		}
		assert_int_equal(put, 150);
		while (ring_get(&sw.in, frame, sizeof(frame), &mss) > 0)
			got++;
		ring_release(&sw.in);
		assert_int_equal(got, 150);
	}
}

static void
the_bell_is_asked_for_only_by_who_waits(void **state)
{
	uint8_t frame[64] = { 0 };

	ring_put(&vm.out, frame, sizeof(frame), 0);
	assert_false(ring_publish(&vm.out));
	assert_true(ring_await_data(&sw.in)); /* it has come already */
	ring_awake(&sw.in);
	assert_int_equal(ring_get(&sw.in, frame, sizeof(frame), &mss), 64);
	assert_false(ring_await_data(&sw.in));
	ring_put(&vm.out, frame, sizeof(frame), 0);
	assert_true(ring_publish(&vm.out));
	ring_put(&vm.out, frame, sizeof(frame), 0);
	assert_false(ring_publish(&vm.out));
}

static void
lies_about_positions_and_lengths_are_told_apart(void **state)
{
	static const uint32_t tails[] = { 4, 1, RING_BYTES + 8, 0x80000000u, UINT32_MAX & ~7u };
	static const uint32_t lens[] = { 0, 5000, NET_FRAME_MAX + 1, RING_BYTES, UINT32_MAX - 1, UINT32_MAX };
	uint8_t frame[NET_FRAME_MAX];
	struct ring in;

	for (size_t i = 0; i < ARRAY_LEN(tails); i++) {
		in = sw.in;
		in.s->tail = tails[i];
		assert_int_equal(ring_get(&in, frame, sizeof(frame), &mss), -1);
	}
	for (size_t i = 0; i < ARRAY_LEN(lens); i++) {
		in = sw.in;
		in.s->tail = 1024;
		memcpy(in.s->bytes, &lens[i], 4);
		assert_int_equal(ring_get(&in, frame, sizeof(frame), &mss), -1);
	}
	in = sw.in;
	in.s->tail = 1024;
	memcpy(in.s->bytes, "\x00\x01\x00\x00", 4);
	assert_int_equal(ring_get(&in, frame, 100, &mss), -1); /* longer than the reader has room for */
}

static void
the_memory_of_a_wire_cannot_be_shrunk(void **state)
{
	struct wire w;
	int fds[3];

	assert_int_equal(wire_create(&w, fds, NULL), 0);
	assert_int_equal(ftruncate(fds[0], 0), -1);
	close(fds[0]);
	wire_close(&w);
}

#define MANY 200000

static void *
produce(void *opaque)
{
	uint8_t frame[256];

	for (uint32_t i = 0; i < MANY; i++) {
		size_t len = 16 + i % 200;

		memcpy(frame, &i, 4);
		memset(frame + 4, (int)(i & 255), sizeof(frame) - 4);
		while (!ring_put(&vm.out, frame, len, 0)) {
			if (ring_publish(&vm.out))
				wire_ring(&vm);
			sched_yield();
		}
		if (ring_publish(&vm.out))
			wire_ring(&vm);
	}
	return NULL;
}

static void
two_threads_lose_nothing(void **state)
{
	uint8_t frame[256];
	pthread_t t;

	pthread_create(&t, NULL, produce, NULL);
	for (uint32_t want = 0; want < MANY;) {
		int n = ring_get(&sw.in, frame, sizeof(frame), &mss);
		uint32_t i;

		if (!n) {
			ring_release(&sw.in);
			sched_yield();
			continue;
		}
		memcpy(&i, frame, 4);
		if ((uint32_t)n != 16 + want % 200 || i != want || frame[n - 1] != (want & 255))
			fail_msg("frame %u: %u of %d bytes", want, i, n);
		want++;
	}
	pthread_join(t, NULL);
}

int
main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	static const struct CMUnitTest tests[] = {
		T(frames_come_out_as_they_went_in),
		T(a_full_ring_says_so_and_has_room_again),
		T(a_ring_has_room_wherever_it_stands_when_it_is_empty),
		T(the_bell_is_asked_for_only_by_who_waits),
		T(lies_about_positions_and_lengths_are_told_apart),
		T(the_memory_of_a_wire_cannot_be_shrunk),
		T(two_threads_lose_nothing),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
