/* SPDX-License-Identifier: Apache-2.0 */
/* The floppy controller and the DMA controllers, driven by ports. */
#include "base/bytes.h"
#include "test/unit/dev/small.h"

#define BUFFER 0x20000u

static struct small s;
static struct fdc *fdc;
static struct block *floppy, *dd;
static int level;
static uint8_t result[16];

static void
irq_changed(void *opaque, int n, int l)
{
	level = l;
}

static void
out(uint16_t port, uint8_t value)
{
	io_write(&s.m.io, port, value, 1);
}

static uint8_t
in(uint16_t port)
{
	return (uint8_t)io_read(&s.m.io, port, 1);
}

static void
program_dma(uint32_t at, uint32_t len, bool to_memory)
{
	out(0x0a, 6);
	out(0x0c, 0);
	out(0x04, (uint8_t)at);
	out(0x04, (uint8_t)(at >> 8));
	out(0x05, (uint8_t)(len - 1));
	out(0x05, (uint8_t)((len - 1) >> 8));
	out(0x81, (uint8_t)(at >> 16));
	out(0x0b, to_memory ? 0x46 : 0x4a);
	out(0x0a, 2);
}

/* Give a command, let it come to its end, fetch its results; how many. */
static int
command(const uint8_t *bytes, int n)
{
	int got = 0;

	for (int i = 0; i < n; i++) {
		assert_int_equal(in(0x3f4) & 0xc0, 0x80);
		out(0x3f5, bytes[i]);
	}
	device_drain_all(&s.m);
	while ((in(0x3f4) & 0xf0) == 0xd0 && got < 16)
		result[got++] = in(0x3f5);
	return got;
}

static void
seek(uint8_t cylinder)
{
	assert_int_equal(command((uint8_t[]){ 0x0f, 0, cylinder }, 3), 0);
	assert_int_equal(level, 1);
	assert_int_equal(command((uint8_t[]){ 0x08 }, 1), 2);
	assert_int_equal(result[0], 0x20);
	assert_int_equal(result[1], cylinder);
	assert_int_equal(level, 0);
}

/* READ (E6h) or WRITE (C5h) from a sector on, to the end of the track. */
static int
transfer(uint8_t op, uint8_t c, uint8_t h, uint8_t r)
{
	return command((uint8_t[]){ op, (uint8_t)(h << 2), c, h, r, 2, 18, 0x1b, 0xff }, 9);
}

static int
set_up(void **state)
{
	struct err e = { 0 };

	small_open(&s);
	floppy = small_image("floppy", 1474560, 512);
	dd = small_image("dd", 737280, 512);
	fdc = fdc_create(&s.m, (struct irq){ irq_changed, NULL, 0 }, i8237_create(&s.m));
	assert_int_equal(fdc_set_drive(fdc, 0, floppy, &e), 0);
	level = 0;
	out(0x3f2, 0x0c);
	assert_int_equal(level, 1);
	for (uint8_t i = 0; i < 4; i++) {
		assert_int_equal(command((uint8_t[]){ 0x08 }, 1), 2);
		assert_int_equal(result[0], 0xc0 | i);
	}
	assert_int_equal(level, 0);
	out(0x3f2, 0x1c);
	out(0x3f7, 0);
	return 0;
}

static int
tear_down(void **state)
{
	small_close(&s);
	block_close(floppy);
	block_close(dd);
	return 0;
}

static void
sectors_are_read_until_the_dma_controller_says_it_is_enough(void **state)
{
	seek(1);
	program_dma(BUFFER, 3 * 512, true);
	assert_int_equal(transfer(0xe6, 1, 0, 17), 7); /* 17, 18 of head 0, 1 of head 1 */
	assert_int_equal(result[0] & 0xc0, 0);
	assert_int_equal(result[3], 1);
	assert_int_equal(result[4], 1);
	assert_int_equal(result[5], 2);
	for (uint64_t i = 0; i < 3; i++)
		assert_int_equal(le64(s.ram->host + BUFFER + 512 * i), 36 + 16 + i);
	assert_int_equal(in(0x08) & 4, 4);
}

static void
sectors_are_written(void **state)
{
	seek(79);
	memset(s.ram->host + BUFFER, 0x77, 512);
	program_dma(BUFFER, 512, false);
	assert_int_equal(transfer(0xc5, 79, 1, 18), 7);
	assert_int_equal(result[0] & 0xc0, 0);
	program_dma(BUFFER + 512, 512, true);
	assert_int_equal(transfer(0xe6, 79, 1, 18), 7);
	assert_memory_equal(s.ram->host + BUFFER, s.ram->host + BUFFER + 512, 512);
}

static void
what_is_not_there_is_not_found(void **state)
{
	seek(5);
	program_dma(BUFFER, 512, true);
	assert_int_equal(transfer(0xe6, 4, 0, 1), 7); /* the head is elsewhere */
	assert_int_equal(result[0] & 0xc0, 0x40);
	assert_int_equal(result[2], 0x10);
	assert_int_equal(transfer(0xe6, 5, 0, 19), 7);
	assert_int_equal(result[0] & 0xc0, 0x40);
	assert_int_equal(result[1], 0x04);
	program_dma(BUFFER, 65536, true);
	assert_int_equal(transfer(0x66, 5, 1, 1), 7); /* the end of the track before the end of the count */
	assert_int_equal(result[1], 0x80);
	assert_int_equal(command((uint8_t[]){ 0x1f }, 1), 1);
	assert_int_equal(result[0], 0x80);
}

static void
a_disk_is_read_only_at_its_own_data_rate(void **state)
{
	assert_int_equal(command((uint8_t[]){ 0x4a, 0 }, 2), 7);
	assert_int_equal(result[0] & 0xc0, 0);
	out(0x3f7, 2);
	assert_int_equal(command((uint8_t[]){ 0x4a, 0 }, 2), 7);
	assert_int_equal(result[0] & 0xc0, 0x40);
	assert_int_equal(fdc_change_medium(fdc, 0, dd), 0);
	assert_int_equal(command((uint8_t[]){ 0x4a, 0 }, 2), 7);
	assert_int_equal(result[0] & 0xc0, 0);
}

static void
a_changed_disk_shows_until_the_head_moves(void **state)
{
	seek(1);
	assert_int_equal(in(0x3f7) & 0x80, 0);
	assert_int_equal(fdc_change_medium(fdc, 0, dd), 0);
	assert_int_equal(in(0x3f7) & 0x80, 0x80);
	seek(2);
	assert_int_equal(in(0x3f7) & 0x80, 0);
	assert_int_equal(fdc_change_medium(fdc, 0, NULL), 0);
	seek(3);
	assert_int_equal(in(0x3f7) & 0x80, 0x80);
	assert_int_equal(fdc_change_medium(fdc, 1, floppy), -2);
}

static void
data_goes_through_the_fifo_without_dma(void **state)
{
	seek(0);
	assert_int_equal(command((uint8_t[]){ 0x03, 0xdf, 0x03 }, 3), 0);
	for (int i = 0; i < 9; i++)
		out(0x3f5, ((uint8_t[]){ 0x46, 0, 0, 0, 18, 2, 18, 0x1b, 0xff })[i]);
	device_drain_all(&s.m);
	assert_int_equal(in(0x3f4), 0xf0);
	assert_int_equal(in(0x3f5), 17);
	for (int i = 1; i < 512; i++)
		assert_int_equal(in(0x3f5), i < 8 ? 0 : 17);
	assert_int_equal(in(0x3f4), 0xd0);
}

static void
a_saved_controller_goes_on_where_it_was(void **state)
{
	seek(7);
	small_save_and_load(&s, fdc, false);
	program_dma(BUFFER, 512, true);
	assert_int_equal(transfer(0xe6, 7, 0, 1), 7);
	assert_int_equal(result[0] & 0xc0, 0);
	assert_int_equal(le64(s.ram->host + BUFFER), 7 * 36);
}

static void
an_image_of_no_size_that_a_floppy_has_is_refused(void **state)
{
	struct block *odd = small_image("odd", 100 * 512, 512);
	struct err e = { 0 };

	assert_int_equal(fdc_set_drive(fdc, 1, odd, &e), -1);
	assert_non_null(strstr(e.text, "no floppy disk has that size"));
	block_close(odd);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(
			sectors_are_read_until_the_dma_controller_says_it_is_enough, set_up, tear_down),
		cmocka_unit_test_setup_teardown(sectors_are_written, set_up, tear_down),
		cmocka_unit_test_setup_teardown(what_is_not_there_is_not_found, set_up, tear_down),
		cmocka_unit_test_setup_teardown(a_disk_is_read_only_at_its_own_data_rate, set_up, tear_down),
		cmocka_unit_test_setup_teardown(a_changed_disk_shows_until_the_head_moves, set_up, tear_down),
		cmocka_unit_test_setup_teardown(data_goes_through_the_fifo_without_dma, set_up, tear_down),
		cmocka_unit_test_setup_teardown(a_saved_controller_goes_on_where_it_was, set_up, tear_down),
		cmocka_unit_test_setup_teardown(an_image_of_no_size_that_a_floppy_has_is_refused, set_up, tear_down),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
