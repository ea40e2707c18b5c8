/* SPDX-License-Identifier: Apache-2.0 */
#include "board.h"

static struct board b;

#define TICK(n) ((uint64_t)(n)*1000000000 / 1193182 + 1)

static int
setup(void **state)
{
	board_open(&b, 0);
	i8254_create(&b.m, board_wire(&b, 0));
	return 0;
}

static int
teardown(void **state)
{
	board_close(&b);
	return 0;
}

static void
program(int counter, int mode, uint16_t count)
{
	out8(&b, 0x43, (uint32_t)(counter << 6 | 0x30 | mode << 1));
	out8(&b, (uint16_t)(0x40 + counter), count & 0xff);
	out8(&b, (uint16_t)(0x40 + counter), count >> 8);
}

static uint16_t
count_of(int counter)
{
	uint8_t low;

	out8(&b, 0x43, (uint32_t)counter << 6);
	low = in8(&b, (uint16_t)(0x40 + counter));
	return (uint16_t)(low | in8(&b, (uint16_t)(0x40 + counter)) << 8);
}

static void
mode_0_interrupts_once_at_the_end_of_the_count(void **state)
{
	program(0, 0, 1000);
	assert_int_equal(b.wire[0].level, 0);
	board_run(&b, TICK(999));
	assert_int_equal(b.wire[0].rises, 0);
	assert_int_equal(count_of(0), 1);
	board_run(&b, TICK(1));
	assert_int_equal(b.wire[0].rises, 1);
	assert_int_equal(b.wire[0].level, 1);
	board_run(&b, SECOND);
	assert_int_equal(b.wire[0].rises, 1);
	out8(&b, 0x43, 0x30); /* a control word takes the output low */
	assert_int_equal(b.wire[0].level, 0);
}

static void
mode_2_ticks_without_drift(void **state)
{
	program(0, 2, 1193); /* 999.847 us */
	b.wire[0].rises = 0;
	board_run(&b, 100 * SECOND);
	assert_int_equal(b.wire[0].rises, 100ull * 1193182 / 1193);
}

static void
a_late_host_gives_one_tick(void **state)
{
	program(0, 2, 1193);
	b.wire[0].rises = 0;
	board_set_time(&b, SECOND);
	assert_int_equal(board_run(&b, 1), 1);
	assert_int_equal(b.wire[0].rises, 1);
}

static void
a_count_of_one_does_not_swamp_the_host(void **state)
{
	program(0, 2, 1);
	assert_in_range(board_run(&b, 100 * MS), 1, 2100);
	program(0, 3, 1);
	assert_in_range(board_run(&b, 100 * MS), 1, 2100);
}

static void
a_new_count_in_mode_2_waits_for_the_end_of_the_period(void **state)
{
	program(0, 2, 10000);
	board_run(&b, TICK(5000));
	out8(&b, 0x40, 100);
	out8(&b, 0x40, 0);
	assert_in_range(count_of(0), 4990, 5000);
	b.wire[0].rises = 0;
	board_run(&b, TICK(4990));
	assert_int_equal(b.wire[0].rises, 0);
	board_run(&b, TICK(12));
	assert_int_equal(b.wire[0].rises, 1);
	board_run(&b, TICK(1000));
	assert_int_equal(b.wire[0].rises, 11);
}

static void
mode_3_counts_down_by_twos(void **state)
{
	program(2, 3, 1000);
	out8(&b, 0x61, 1);
	board_run(&b, TICK(100));
	assert_in_range(count_of(2), 798, 800);
	assert_int_equal(in8(&b, 0x61) & 0x20, 0x20);
	board_run(&b, TICK(450));
	assert_int_equal(in8(&b, 0x61) & 0x20, 0);
}

static void
the_gate_of_counter_2_stops_mode_0(void **state)
{
	out8(&b, 0x61, 1);
	program(2, 0, 5000);
	board_run(&b, TICK(2000));
	out8(&b, 0x61, 0);
	board_run(&b, SECOND);
	assert_in_range(count_of(2), 2998, 3000);
	assert_int_equal(in8(&b, 0x61) & 0x20, 0);
	out8(&b, 0x61, 1);
	board_run(&b, TICK(3001));
	assert_int_equal(in8(&b, 0x61) & 0x20, 0x20);
}

static void
mode_1_starts_with_the_gate(void **state)
{
	out8(&b, 0x61, 0);
	program(2, 1, 1000);
	board_run(&b, SECOND);
	assert_int_equal(in8(&b, 0x61) & 0x20, 0x20);
	out8(&b, 0x61, 1);
	assert_int_equal(in8(&b, 0x61) & 0x20, 0);
	board_run(&b, TICK(500));
	out8(&b, 0x61, 0);
	out8(&b, 0x61, 1); /* again */
	board_run(&b, TICK(900));
	assert_int_equal(in8(&b, 0x61) & 0x20, 0);
	board_run(&b, TICK(101));
	assert_int_equal(in8(&b, 0x61) & 0x20, 0x20);
}

static void
modes_4_and_5_strobe_for_one_tick(void **state)
{
	program(0, 4, 100);
	b.wire[0].rises = 0;
	board_run(&b, SECOND);
	assert_int_equal(b.wire[0].rises, 1);
	program(2, 5, 100);
	out8(&b, 0x61, 1);
	board_run(&b, TICK(99));
	assert_int_equal(in8(&b, 0x61) & 0x20, 0x20);
	board_run(&b, TICK(1));
	assert_int_equal(in8(&b, 0x61) & 0x20, 0);
	board_run(&b, TICK(1));
	assert_int_equal(in8(&b, 0x61) & 0x20, 0x20);
}

static void
read_back_latches_status_then_count(void **state)
{
	program(0, 2, 0x1234);
	out8(&b, 0x43, 0xc2); /* both of counter 0 */
	board_run(&b, SECOND);
	assert_int_equal(in8(&b, 0x40), 0xb4); /* output high, both bytes, mode 2 */
	assert_int_equal(in8(&b, 0x40), 0x34);
	assert_int_equal(in8(&b, 0x40), 0x12);
	out8(&b, 0x43, 0x34);
	out8(&b, 0x43, 0xe2); /* status alone: null count */
	assert_int_equal(in8(&b, 0x40), 0xf4);
}

static void
bcd_counts_from_ten_thousand(void **state)
{
	out8(&b, 0x43, 0xb1);
	out8(&b, 0x42, 0);
	out8(&b, 0x42, 0);
	out8(&b, 0x61, 1);
	board_run(&b, TICK(1));
	assert_int_equal(count_of(2), 0x9999);
	board_run(&b, TICK(1234));
	assert_in_range(count_of(2), 0x8764, 0x8765);
}

static void
single_byte_access_works(void **state)
{
	out8(&b, 0x43, 0x90); /* counter 2, low byte, mode 0 */
	out8(&b, 0x61, 1);
	out8(&b, 0x42, 200);
	board_run(&b, TICK(50));
	assert_in_range(in8(&b, 0x42), 149, 150);
	out8(&b, 0x43, 0xa0); /* high byte */
	out8(&b, 0x42, 2);
	board_run(&b, TICK(256));
	assert_int_equal(in8(&b, 0x42), 1);
}

static void
no_sequence_of_port_writes_hurts(void **state)
{
	uint64_t seed = 7;

	for (int i = 0; i < 300000; i++) {
		uint32_t r = board_random(&seed);
		uint16_t port = (r & 7) < 5 ? (uint16_t)(0x40 + (r & 3)) : 0x61;

		if (r & 8)
			out8(&b, port, board_random(&seed));
		else
			in8(&b, port);
		if (!(r & 0x70))
			board_run(&b, r >> 8 & 0xfffff);
	}
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int
main(void)
{
	const struct CMUnitTest tests[] = {
		T(mode_0_interrupts_once_at_the_end_of_the_count),
		T(mode_2_ticks_without_drift),
		T(a_late_host_gives_one_tick),
		T(a_count_of_one_does_not_swamp_the_host),
		T(a_new_count_in_mode_2_waits_for_the_end_of_the_period),
		T(mode_3_counts_down_by_twos),
		T(the_gate_of_counter_2_stops_mode_0),
		T(mode_1_starts_with_the_gate),
		T(modes_4_and_5_strobe_for_one_tick),
		T(read_back_latches_status_then_count),
		T(bcd_counts_from_ten_thousand),
		T(single_byte_access_works),
		T(no_sequence_of_port_writes_hurts),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
