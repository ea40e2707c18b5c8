/* SPDX-License-Identifier: Apache-2.0 */
#include "board.h"

struct fixture {
	struct board b;
	struct i8259 *pic;
};

static struct fixture f;

static void
init_pic(uint16_t port, uint8_t base, uint8_t icw3, uint8_t icw4)
{
	out8(&f.b, port, 0x11);
	out8(&f.b, port + 1, base);
	out8(&f.b, port + 1, icw3);
	out8(&f.b, port + 1, icw4);
	out8(&f.b, port + 1, 0);
}

static int
setup(void **state)
{
	board_open(&f.b, 0);
	f.pic = i8259_create(&f.b.m, board_wire(&f.b, 0));
	init_pic(0x20, 0x20, 4, 1);
	init_pic(0xa0, 0x28, 2, 1);
	return 0;
}

static int
teardown(void **state)
{
	board_close(&f.b);
	return 0;
}

static void
set(int n, int level)
{
	struct irq w = i8259_input(f.pic, n);

	irq_set(&w, level);
}

static int
ack(void)
{
	return f.b.m.intc.pic_ack(f.b.m.intc.pic_opaque);
}

static void
a_lower_number_goes_first_and_blocks_higher_ones(void **state)
{
	set(5, 1);
	set(3, 1);
	assert_int_equal(f.b.wire[0].level, 1);
	assert_int_equal(ack(), 0x23);
	assert_int_equal(f.b.wire[0].level, 0); /* 5 has to wait */
	set(1, 1);
	assert_int_equal(ack(), 0x21); /* 1 does not */
	out8(&f.b, 0x20, 0x20);
	assert_int_equal(f.b.wire[0].level, 0);
	out8(&f.b, 0x20, 0x20);
	assert_int_equal(ack(), 0x25);
}

static void
an_edge_counts_once_and_a_level_until_it_falls(void **state)
{
	set(4, 1);
	assert_int_equal(ack(), 0x24);
	out8(&f.b, 0x20, 0x20);
	assert_int_equal(f.b.wire[0].level, 0); /* still high, but no new edge */
	set(4, 0);
	out8(&f.b, 0x4d0, 0x10);
	assert_int_equal(in8(&f.b, 0x4d0), 0x10);
	set(4, 1);
	assert_int_equal(ack(), 0x24);
	out8(&f.b, 0x20, 0x20);
	assert_int_equal(f.b.wire[0].level, 1);
	set(4, 0);
	assert_int_equal(f.b.wire[0].level, 0);
}

static void
the_timer_keyboard_and_cascade_cannot_be_levels(void **state)
{
	out16(&f.b, 0x4d0, 0xffff);
	assert_int_equal(in16(&f.b, 0x4d0), 0xdef8);
}

static void
the_slave_interrupts_through_input_2(void **state)
{
	set(12, 1);
	assert_int_equal(in8(&f.b, 0x20), 4); /* IRR */
	assert_int_equal(ack(), 0x2c);
	out8(&f.b, 0x20, 0x0b);
	out8(&f.b, 0xa0, 0x0b);
	assert_int_equal(in8(&f.b, 0x20), 4); /* ISR */
	assert_int_equal(in8(&f.b, 0xa0), 0x10);
	set(8, 1);
	assert_int_equal(f.b.wire[0].level, 0); /* input 2 is in service */
	out8(&f.b, 0xa0, 0x20);
	out8(&f.b, 0x20, 0x20);
	assert_int_equal(ack(), 0x28);
}

static void
in_fully_nested_mode_the_slave_interrupts_itself(void **state)
{
	init_pic(0x20, 0x20, 4, 0x11);
	set(12, 1);
	assert_int_equal(ack(), 0x2c);
	set(8, 1);
	assert_int_equal(f.b.wire[0].level, 1);
	assert_int_equal(ack(), 0x28);
}

static void
a_request_that_goes_away_is_the_spurious_interrupt_7(void **state)
{
	out8(&f.b, 0x4d0, 0x20);
	out8(&f.b, 0x4d1, 0x02);
	set(5, 1);
	set(5, 0);
	assert_int_equal(ack(), 0x27);
	out8(&f.b, 0x20, 0x0b);
	assert_int_equal(in8(&f.b, 0x20), 0); /* not in service */
	set(9, 1);
	out8(&f.b, 0x21, 0x04);
	assert_int_equal(ack(), 0x27);
}

static void
a_masked_input_waits(void **state)
{
	out8(&f.b, 0x21, 0x08);
	set(3, 1);
	assert_int_equal(f.b.wire[0].level, 0);
	out8(&f.b, 0x21, 0);
	assert_int_equal(f.b.wire[0].level, 1);
}

static void
rotation_makes_the_one_just_served_the_last(void **state)
{
	set(3, 1);
	assert_int_equal(ack(), 0x23);
	out8(&f.b, 0x20, 0xa0); /* rotate on non-specific EOI */
	set(3, 0);
	set(3, 1);
	set(7, 1);
	assert_int_equal(ack(), 0x27);
	out8(&f.b, 0x20, 0x67); /* specific EOI of 7 */
	assert_int_equal(ack(), 0x23);
	out8(&f.b, 0x20, 0x63);
	out8(&f.b, 0x20, 0xc7); /* set priority: 7 is the last again */
	set(0, 1);
	set(6, 1);
	assert_int_equal(ack(), 0x20);
}

static void
special_mask_mode_lets_lower_ones_through_a_masked_service(void **state)
{
	set(3, 1);
	assert_int_equal(ack(), 0x23);
	out8(&f.b, 0x21, 0x08);
	set(6, 1);
	assert_int_equal(f.b.wire[0].level, 0);
	out8(&f.b, 0x20, 0x68);
	assert_int_equal(f.b.wire[0].level, 1);
	assert_int_equal(ack(), 0x26);
	out8(&f.b, 0x20, 0x20); /* the non-specific EOI passes over the masked 3 */
	out8(&f.b, 0x20, 0x0b);
	assert_int_equal(in8(&f.b, 0x20), 0x08);
}

static void
automatic_end_of_interrupt_leaves_nothing_in_service(void **state)
{
	init_pic(0x20, 0x20, 4, 3);
	set(1, 1);
	assert_int_equal(ack(), 0x21);
	out8(&f.b, 0x20, 0x0b);
	assert_int_equal(in8(&f.b, 0x20), 0);
}

static void
a_poll_acknowledges(void **state)
{
	out8(&f.b, 0x20, 0x0c);
	assert_int_equal(in8(&f.b, 0x20), 0);
	set(6, 1);
	out8(&f.b, 0x20, 0x0c);
	assert_int_equal(in8(&f.b, 0x20), 0x86);
	out8(&f.b, 0x20, 0x0b);
	assert_int_equal(in8(&f.b, 0x20), 0x40);
}

static void
a_shared_isa_line_stays_high_until_the_last_driver_lets_go(void **state)
{
	struct isairq *isa = isairq_create(&f.b.m, f.pic, NULL);
	struct irq a = isairq_input(isa, 10), b = isairq_input(isa, 10);

	out8(&f.b, 0x4d1, 0x04);
	irq_set(&a, 1);
	irq_set(&b, 1);
	irq_set(&a, 0);
	assert_int_equal(f.b.wire[0].level, 1);
	irq_set(&b, 0);
	assert_int_equal(f.b.wire[0].level, 0);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int
main(void)
{
	const struct CMUnitTest tests[] = {
		T(a_lower_number_goes_first_and_blocks_higher_ones),
		T(an_edge_counts_once_and_a_level_until_it_falls),
		T(the_timer_keyboard_and_cascade_cannot_be_levels),
		T(the_slave_interrupts_through_input_2),
		T(in_fully_nested_mode_the_slave_interrupts_itself),
		T(a_request_that_goes_away_is_the_spurious_interrupt_7),
		T(a_masked_input_waits),
		T(rotation_makes_the_one_just_served_the_last),
		T(special_mask_mode_lets_lower_ones_through_a_masked_service),
		T(automatic_end_of_interrupt_leaves_nothing_in_service),
		T(a_poll_acknowledges),
		T(a_shared_isa_line_stays_high_until_the_last_driver_lets_go),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
