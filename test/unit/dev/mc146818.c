/* SPDX-License-Identifier: Apache-2.0 */
#include "board.h"

#include <stdlib.h>
#include <time.h>

static struct board b;
static struct mc146818 *rtc;

static uint8_t
get(uint8_t reg)
{
	out8(&b, 0x70, reg);
	return in8(&b, 0x71);
}

static void
set(uint8_t reg, uint8_t v)
{
	out8(&b, 0x70, reg);
	out8(&b, 0x71, v);
}

/* 2024-02-29 23:59:58, a Thursday, BCD, 24 hours */
static void
set_leap_day(void)
{
	set(11, 0x82);
	set(0x32, 0x20);
	set(9, 0x24);
	set(8, 0x02);
	set(7, 0x29);
	set(6, 0x05);
	set(4, 0x23);
	set(2, 0x59);
	set(0, 0x58);
	set(11, 0x02);
}

static int
setup(void **state)
{
	board_open(&b, 0);
	rtc = mc146818_create(&b.m, board_wire(&b, 8), false, 0);
	set_leap_day();
	return 0;
}

static int
teardown(void **state)
{
	board_close(&b);
	return 0;
}

static void
the_clock_starts_at_the_hosts_time(void **state)
{
	struct mc146818 *r = mc146818_create(&b.m, board_wire(&b, 9), false, -86400);
	time_t t = time(NULL) - 86400, before = t - 2;
	struct tm tm, tm2;
	uint8_t day;

	assert_non_null(r);
	out8(&b, 0x70, 7);
	day = in8(&b, 0x71);
	gmtime_r(&t, &tm);
	gmtime_r(&before, &tm2);
	day = (uint8_t)((day >> 4) * 10 + (day & 15));
	assert_true(day == tm.tm_mday || day == tm2.tm_mday);
}

static void
local_time_is_the_hosts_zone(void **state)
{
	time_t t = time(NULL);
	struct tm tm;
	uint8_t hour;

	setenv("TZ", "XXX-5:30", 1);
	tzset();
	mc146818_create(&b.m, board_wire(&b, 9), true, 0);
	unsetenv("TZ");
	tzset();
	t += 5 * 3600 + 1800;
	gmtime_r(&t, &tm);
	hour = get(4);
	hour = (uint8_t)((hour >> 4) * 10 + (hour & 15));
	assert_in_range((hour - tm.tm_hour + 24) % 24, 0, 1);
}

static void
a_leap_day_ends_in_march(void **state)
{
	assert_int_equal(get(0), 0x58);
	board_run(&b, 3 * SECOND);
	assert_int_equal(get(0), 0x01);
	assert_int_equal(get(2), 0x00);
	assert_int_equal(get(4), 0x00);
	assert_int_equal(get(6), 6);
	assert_int_equal(get(7), 0x01);
	assert_int_equal(get(8), 0x03);
	assert_int_equal(get(9), 0x24);
	assert_int_equal(get(0x32), 0x20);
}

static void
twelve_hours_and_binary_are_formats(void **state)
{
	set(11, 0x04);
	assert_int_equal(get(4), 0x80 | 11);
	assert_int_equal(get(2), 59);
	board_run(&b, 2 * SECOND);
	assert_int_equal(get(4), 12);
	assert_int_equal(get(9), 24);
	set(4, 0x80 | 1); /* 1 p.m. */
	set(11, 0x02);
	assert_int_equal(get(4), 0x13);
}

static void
a_stopped_clock_is_memory(void **state)
{
	set(11, 0x82);
	set(0, 0x30);
	board_run(&b, 10 * SECOND);
	assert_int_equal(get(0), 0x30);
	assert_int_equal(get(10) & 0x80, 0);
	set(11, 0x02);
	board_run(&b, SECOND);
	assert_int_equal(get(0), 0x31);
}

static void
the_first_update_comes_half_a_second_after_the_divider_starts(void **state)
{
	set(10, 0x76);
	set(10, 0x26);
	board_run(&b, 499 * MS);
	assert_int_equal(get(0), 0x58);
	board_run(&b, 2 * MS);
	assert_int_equal(get(0), 0x59);
}

static void
uip_announces_the_update(void **state)
{
	set(10, 0x76);
	set(10, 0x26);
	board_run(&b, 499 * MS);
	assert_int_equal(get(10) & 0x80, 0);
	board_run(&b, 900000);
	assert_int_equal(get(10) & 0x80, 0x80);
	board_run(&b, 200000);
	assert_int_equal(get(10) & 0x80, 0);
}

static void
the_periodic_interrupt_waits_for_register_c(void **state)
{
	int fired;

	set(10, 0x26); /* 1024 Hz */
	set(11, 0x42);
	board_run(&b, 2 * MS);
	assert_int_equal(b.wire[8].level, 1);
	fired = board_run(&b, SECOND);
	assert_int_equal(fired, 0); /* nobody looks: nothing to do */
	assert_int_equal(b.wire[8].rises, 1);
	assert_int_equal(get(12) & 0xc0, 0xc0);
	assert_int_equal(b.wire[8].level, 0);
	assert_int_equal(get(12) & 0x40, 0);
	for (int i = 0; i < 1024; i++) {
		board_run(&b, SECOND / 1024 + (i & 1));
		get(12);
	}
	assert_in_range(b.wire[8].rises, 1023, 1026);
}

static void
the_alarm_matches_hour_minute_and_second(void **state)
{
	set(1, 0x05);
	set(3, 0x00);
	set(5, 0x00);
	set(11, 0x22);
	get(12);
	board_run(&b, 6 * SECOND);
	assert_int_equal(b.wire[8].level, 0);
	board_run(&b, 2 * SECOND);
	assert_int_equal(b.wire[8].level, 1);
	assert_int_equal(get(12) & 0xa0, 0xa0);
	board_run(&b, 86000 * SECOND);
	assert_int_equal(b.wire[8].level, 0);
	board_run(&b, 400 * SECOND);
	assert_int_equal(b.wire[8].level, 1);
}

static void
dont_care_alarms_match_every_second_and_impossible_ones_never(void **state)
{
	set(1, 0xff);
	set(3, 0xff);
	set(5, 0xff);
	set(11, 0x22);
	get(12);
	board_run(&b, SECOND + MS);
	assert_int_equal(get(12) & 0x20, 0x20);
	set(1, 0x77);
	get(12);
	assert_int_equal(board_run(&b, 200000 * SECOND), 0);
	assert_int_equal(get(12) & 0x20, 0);
}

static void
the_update_interrupt_comes_every_second(void **state)
{
	set(11, 0x12);
	get(12);
	for (int i = 0; i < 5; i++) {
		board_run(&b, SECOND);
		assert_int_equal(get(12) & 0x90, 0x90);
	}
	assert_int_equal(b.wire[8].rises, 5);
}

static void
memory_survives_reset_and_the_upper_bank_has_its_own_ports(void **state)
{
	mc146818_cmos_set(rtc, 0x34, 0x12);
	set(0x50, 0xaa);
	out8(&b, 0x72, 0x50);
	out8(&b, 0x73, 0x55);
	device_reset_all(&b.m);
	assert_int_equal(get(0x50), 0xaa);
	assert_int_equal(get(0x34), 0x12);
	assert_int_equal(get(0xb4), 0x12); /* bit 7 of the index is the NMI mask */
	out8(&b, 0x72, 0x50);
	assert_int_equal(in8(&b, 0x73), 0x55);
	assert_int_equal(mc146818_cmos_get(rtc, 0xd0), 0x55);
	assert_int_equal(get(13), 0x80);
}

static void
no_sequence_of_port_accesses_hurts(void **state)
{
	uint64_t seed = 5;

	for (int i = 0; i < 200000; i++) {
		uint32_t r = board_random(&seed);

		set(r & (r & 0x80 ? 0x3f : 15), r >> 8 & 0xff);
		get(r >> 16 & 15);
		if (!(r & 0x7000))
			board_run(&b, (uint64_t)(r >> 4) * 7);
	}
}

/* Virtual time that goes by while the host's does not: what a host that set its clock back looks like. */
static void
the_date_follows_the_hosts_when_that_moves_against_virtual_time(void **state)
{
	int64_t moved;

	mc146818_follow(rtc, 0);
	board_run(&b, SECOND);
	assert_int_equal(mc146818_follow(rtc, 5 * SECOND), 0);
	assert_int_equal(get(0), 0x59);
	board_run(&b, 36000 * SECOND);
	assert_int_equal(get(4), 0x09);
	moved = mc146818_follow(rtc, 5 * SECOND);
	assert_in_range(-moved, 36000 * SECOND, 36002 * SECOND);
	/* Beside the host's, as the guest has set it: the leap day is back. */
	assert_int_equal(get(7), 0x29);
	assert_int_equal(get(4), 0x23);
	assert_int_equal(mc146818_follow(rtc, 5 * SECOND), 0);
	/* The time that a stopped clock shows is the guest's own affair. */
	set(11, 0x82);
	set(2, 0x30);
	board_run(&b, 36000 * SECOND);
	assert_true(mc146818_follow(rtc, 0) < 0);
	assert_int_equal(get(2), 0x30);
	assert_int_equal(get(4), 0x23);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int
main(void)
{
	const struct CMUnitTest tests[] = {
		T(the_clock_starts_at_the_hosts_time),
		T(local_time_is_the_hosts_zone),
		T(a_leap_day_ends_in_march),
		T(twelve_hours_and_binary_are_formats),
		T(a_stopped_clock_is_memory),
		T(the_first_update_comes_half_a_second_after_the_divider_starts),
		T(uip_announces_the_update),
		T(the_periodic_interrupt_waits_for_register_c),
		T(the_alarm_matches_hour_minute_and_second),
		T(dont_care_alarms_match_every_second_and_impossible_ones_never),
		T(the_update_interrupt_comes_every_second),
		T(the_date_follows_the_hosts_when_that_moves_against_virtual_time),
		T(memory_survives_reset_and_the_upper_bank_has_its_own_ports),
		T(no_sequence_of_port_accesses_hurts),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
