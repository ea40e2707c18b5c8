/* SPDX-License-Identifier: Apache-2.0 */
#include "board.h"

static struct board b;
static struct i8042 *k;

enum { OBF = 1, AUX = 0x20 };

static int
setup(void **state)
{
	board_open(&b, 0);
	k = i8042_create(&b.m, board_wire(&b, 1), board_wire(&b, 12));
	return 0;
}

static int
teardown(void **state)
{
	board_close(&b);
	return 0;
}

/* The next byte, waited for; -1: none comes. */
static int
next_byte(void)
{
	for (int i = 0; i < 100 && !(in8(&b, 0x64) & OBF); i++)
		board_run(&b, MS);
	return in8(&b, 0x64) & OBF ? in8(&b, 0x60) : -1;
}

static void
type(const char *bytes, size_t n)
{
	assert_int_equal(i8042_type(k, (const uint8_t *)bytes, n), n);
}

static void
expect(const char *bytes, size_t n)
{
	for (size_t i = 0; i < n; i++)
		assert_int_equal(next_byte(), (uint8_t)bytes[i]);
	assert_int_equal(next_byte(), -1);
}
#define EXPECT(s) expect(s, sizeof(s) - 1)
#define TYPE(s) type(s, sizeof(s) - 1)

static void
command(uint8_t c, int parameter)
{
	out8(&b, 0x64, c);
	if (parameter >= 0)
		out8(&b, 0x60, (uint32_t)parameter);
}

static void
keyboard(uint8_t c)
{
	out8(&b, 0x60, c);
}

static void
mouse(uint8_t c)
{
	command(0xd4, c);
	assert_int_equal(in8(&b, 0x64) & (OBF | AUX), OBF | AUX);
	assert_int_equal(next_byte(), 0xfa);
}

static void
the_controller_tests_itself(void **state)
{
	command(0xaa, -1);
	EXPECT("\x55");
	assert_int_equal(in8(&b, 0x64) & 4, 4);
	command(0xab, -1);
	EXPECT("\0");
	command(0x60, 0x05);
	command(0x20, -1);
	EXPECT("\x05");
	command(0x65, 0x77);
	command(0x25, -1);
	EXPECT("\x77");
}

static void
typed_keys_come_translated_as_set_1(void **state)
{
	TYPE("\x1e\x9e\xe0\x4b\xe0\xcb");
	EXPECT("\x1e\x9e\xe0\x4b\xe0\xcb");
}

static void
every_set_1_code_survives_the_way_through_set_2(void **state)
{
	for (int code = 1; code < 0x80; code++) {
		char bytes[2] = { (char)code, (char)(code | 0x80) };

		if (code == 0x60 || code == 0x61) /* whose break codes are the prefixes */
			continue;
		type(bytes, 2);
		assert_int_equal(next_byte(), code);
		assert_int_equal(next_byte(), code | 0x80);
	}
}

static void
without_translation_the_keyboard_speaks_set_2_or_1(void **state)
{
	command(0x60, 0x03);
	TYPE("\x1e\x9e\xe0\x4b\xe0\xcb");
	EXPECT("\x1c\xf0\x1c\xe0\x6b\xe0\xf0\x6b");
	TYPE("\xe1\x1d\x45\xe1\x9d\xc5"); /* Pause */
	EXPECT("\xe1\x14\x77\xe1\xf0\x14\xf0\x77");
	keyboard(0xf0);
	keyboard(1);
	EXPECT("\xfa\xfa");
	TYPE("\x1e\x9e");
	EXPECT("\x1e\x9e");
	keyboard(0xf0);
	keyboard(0);
	EXPECT("\xfa\xfa\x01");
	keyboard(0xf0);
	keyboard(3); /* not offered */
	EXPECT("\xfa\xfe");
}

static void
a_fast_typist_loses_nothing(void **state)
{
	char text[2000];
	int n = 0;

	for (size_t i = 0; i < sizeof(text); i++)
		text[i] = (char)(1 + i % 80);
	type(text, sizeof(text));
	for (int i = 0; i < 200000 && n < 2000; i++) {
		board_run(&b, MS / 10);
		if (in8(&b, 0x64) & OBF)
			assert_int_equal(in8(&b, 0x60), (uint8_t)text[n++]);
	}
	assert_int_equal(n, 2000);
	assert_int_equal(b.wire[1].rises, 2000); /* an edge a byte */
}

static void
the_queue_is_bounded_and_says_so(void **state)
{
	static uint8_t lots[70000];

	memset(lots, 0x1e, sizeof(lots));
	assert_in_range(i8042_type(k, lots, sizeof(lots)), 65536, 65537);
	assert_in_range(i8042_type(k, lots, 1), 0, 1);
	device_reset_all(&b.m);
	assert_int_equal(next_byte(), -1);
}

static void
reading_twice_gives_the_same_byte(void **state)
{
	TYPE("\x1e\x9e");
	board_run(&b, MS);
	assert_int_equal(in8(&b, 0x60), 0x1e);
	assert_int_equal(in8(&b, 0x60), 0x1e);
	assert_int_equal(next_byte(), 0x9e);
}

static void
the_keyboard_answers_its_commands(void **state)
{
	keyboard(0xff);
	EXPECT("\xfa\xaa");
	keyboard(0xee);
	EXPECT("\xee");
	keyboard(0xf2);
	EXPECT("\xfa\xab\x41"); /* 83, translated */
	keyboard(0xed);
	keyboard(0x02);
	EXPECT("\xfa\xfa");
	assert_int_equal(i8042_leds(k), 2);
	keyboard(0xf3);
	keyboard(0x20);
	EXPECT("\xfa\xfa");
	keyboard(0x01);
	EXPECT("\xfe");
	keyboard(0xf5);
	EXPECT("\xfa");
	TYPE("\x1e");
	assert_int_equal(next_byte(), -1); /* not scanning, not lost */
	keyboard(0xf4);
	assert_int_equal(next_byte(), 0xfa);
	EXPECT("\x1e");
}

static void
a_disabled_interface_holds_back(void **state)
{
	command(0xad, -1);
	TYPE("\x1e");
	assert_int_equal(next_byte(), -1);
	command(0xae, -1);
	EXPECT("\x1e");
	command(0x60, 0x50);
	command(0x20, -1);
	EXPECT("\x50");
}

static void
interrupts_follow_the_command_byte(void **state)
{
	command(0x60, 0x40);
	TYPE("\x1e");
	board_run(&b, MS);
	assert_int_equal(b.wire[1].level, 0);
	command(0x60, 0x41);
	assert_int_equal(b.wire[1].level, 1);
	in8(&b, 0x60);
	assert_int_equal(b.wire[1].level, 0);
}

static void
the_mouse_reports_motion_and_buttons(void **state)
{
	mouse(0xff);
	EXPECT("\xaa\0");
	mouse(0xf2);
	EXPECT("\0");
	i8042_mouse(k, 5, 0, 0, 0);
	assert_int_equal(next_byte(), -1); /* not reporting yet */
	mouse(0xf4);
	EXPECT("\x08\x05\x00");
	i8042_mouse(k, -3, 2, 0, 1);
	assert_int_equal(b.wire[12].level, 1);
	EXPECT("\x39\xfd\xfe"); /* towards the user is down is negative */
	i8042_mouse(k, 300, 0, 0, 1);
	EXPECT("\x09\xff\x00\x09\x2d\x00");
}

static void
the_sequence_200_100_80_makes_a_wheel(void **state)
{
	static const uint8_t rates[] = { 200, 100, 80 };

	for (int i = 0; i < 3; i++) {
		mouse(0xf3);
		mouse(rates[i]);
	}
	mouse(0xf2);
	EXPECT("\x03");
	mouse(0xf4);
	i8042_mouse(k, 0, 0, 1, 0);
	EXPECT("\x08\x00\x00\x01");
	mouse(0xe9);
	EXPECT("\x20\x02\x50");
}

static void
clicks_do_not_vanish_while_the_guest_is_slow(void **state)
{
	mouse(0xf4);
	for (int i = 0; i < 3; i++) {
		i8042_mouse(k, 0, 0, 0, 1);
		i8042_mouse(k, 0, 0, 0, 0);
	}
	EXPECT("\x09\0\0\x08\0\0\x09\0\0\x08\0\0\x09\0\0\x08\0\0");
	for (int i = 0; i < 101; i++)
		i8042_mouse(k, 0, 0, 0, i & 1 ? 0 : 2);
	for (int i = 0, v; (v = next_byte()) >= 0; i++)
		if (i % 3 == 0)
			b.status = v;
	assert_int_equal(b.status, 0x0a); /* however many were dropped, the last state is right */
}

static void
reset_has_three_ways(void **state)
{
	command(0xfe, -1);
	assert_int_equal(b.events[MACHINE_RESET], 1);
	command(0xd1, 0xfe);
	assert_int_equal(b.events[MACHINE_RESET], 2);
	out8(&b, 0x92, 3);
	assert_int_equal(b.events[MACHINE_RESET], 3);
	command(0xff, -1); /* pulses nothing */
	assert_int_equal(b.events[MACHINE_RESET], 3);
}

static void
a20_shows_in_both_places(void **state)
{
	command(0xdd, -1);
	assert_int_equal(in8(&b, 0x92), 0);
	out8(&b, 0x92, 2);
	command(0xd0, -1);
	assert_int_equal(next_byte() & 3, 3);
}

static void
no_sequence_of_port_writes_hurts(void **state)
{
	uint64_t seed = 11;

	for (int i = 0; i < 300000; i++) {
		uint32_t r = board_random(&seed);
		uint8_t byte = (uint8_t)(r >> 8);

		switch (r & 7) {
		case 0:
		case 1:
			out8(&b, 0x60, byte);
			break;
		case 2:
			out8(&b, 0x64, byte);
			break;
		case 3:
		case 4:
			in8(&b, 0x60);
			break;
		case 5:
			i8042_mouse(k, (int)board_random(&seed) - (1 << 30), INT32_MIN, (int)byte - 128, byte);
			break;
		case 6:
			i8042_type(k, &byte, 1);
			break;
		case 7:
			board_run(&b, r & 0xffff0);
			break;
		}
	}
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int
main(void)
{
	const struct CMUnitTest tests[] = {
		T(the_controller_tests_itself),
		T(typed_keys_come_translated_as_set_1),
		T(every_set_1_code_survives_the_way_through_set_2),
		T(without_translation_the_keyboard_speaks_set_2_or_1),
		T(a_fast_typist_loses_nothing),
		T(the_queue_is_bounded_and_says_so),
		T(reading_twice_gives_the_same_byte),
		T(the_keyboard_answers_its_commands),
		T(a_disabled_interface_holds_back),
		T(interrupts_follow_the_command_byte),
		T(the_mouse_reports_motion_and_buttons),
		T(the_sequence_200_100_80_makes_a_wheel),
		T(clicks_do_not_vanish_while_the_guest_is_slow),
		T(reset_has_three_ways),
		T(a20_shows_in_both_places),
		T(no_sequence_of_port_writes_hurts),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
