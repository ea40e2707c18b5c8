/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/bytes.h"
#include "base/str.h"
#include "bus/machine.h"
#include "machine/fwcfg.h"

#define RAM_SIZE 0x10000u

struct fixture {
	struct machine m;
	struct ram *ram;
	struct mem_region region;
	struct fwcfg *f;
};

static int
setup(void **state)
{
	struct fixture *x = xcalloc(1, sizeof(*x));

	if (machine_open(&x->m, "test"))
		return -1;
	x->ram = ram_create(&x->m.mem, "ram", RAM_SIZE);
	x->region = (struct mem_region){ .name = "ram", .enabled = true, .size = RAM_SIZE, .ram = x->ram };
	mem_add(&x->m.mem, &x->region);
	x->f = fwcfg_create(&x->m);
	fwcfg_add_file(x->f, "etc/test", "0123456789", 10);
	device_reset_all(&x->m);
	*state = x;
	return 0;
}

static int
teardown(void **state)
{
	struct fixture *x = *state;

	machine_close(&x->m);
	free(x);
	return 0;
}

/* Run one DMA command at guest address 0x100; returns the control word that came back. */
static uint32_t
dma(struct fixture *x, uint32_t control, uint32_t len, uint64_t address)
{
	uint8_t *p = x->ram->host + 0x100;

	put_be32(p, control);
	put_be32(p + 4, len);
	put_be32(p + 8, (uint32_t)(address >> 32));
	put_be32(p + 12, (uint32_t)address);
	io_write(&x->m.io, 0x514, 0, 4);
	io_write(&x->m.io, 0x518, __builtin_bswap32(0x100), 4);
	return __builtin_bswap32(le32(p));
}

#define SELECT(key) ((uint32_t)(key) << 16 | 8)
#define READ 2u
#define SKIP 4u
#define WRITE 16u

static void
the_signature_reads_byte_by_byte_and_zero_behind_its_end(void **state)
{
	struct fixture *x = *state;

	io_write(&x->m.io, 0x510, FWCFG_SIGNATURE, 2);
	assert_int_equal(io_read(&x->m.io, 0x511, 1), 'Q');
	assert_int_equal(io_read(&x->m.io, 0x511, 1), 'E');
	assert_int_equal(io_read(&x->m.io, 0x511, 1), 'M');
	assert_int_equal(io_read(&x->m.io, 0x511, 1), 'U');
	assert_int_equal(io_read(&x->m.io, 0x511, 1), 0);
	io_write(&x->m.io, 0x510, 0x7fff, 2);
	assert_int_equal(io_read(&x->m.io, 0x511, 1), 0);
}

static void
the_directory_leads_to_a_file(void **state)
{
	struct fixture *x = *state;
	uint8_t *dir = x->ram->host + 0x1000;

	assert_int_equal(dma(x, SELECT(FWCFG_FILE_DIR) | READ, 68, 0x1000), 0);
	assert_int_equal(__builtin_bswap32(le32(dir)), 1);
	assert_int_equal(__builtin_bswap32(le32(dir + 4)), 10);
	assert_string_equal((char *)dir + 12, "etc/test");
	assert_int_equal(dma(x, SELECT(dir[8] << 8 | dir[9]) | READ, 10, 0x2000), 0);
	assert_memory_equal(x->ram->host + 0x2000, "0123456789", 10);
}

static void
a_read_beyond_the_item_is_filled_with_zeroes(void **state)
{
	struct fixture *x = *state;

	memset(x->ram->host + 0x2000, 0xff, 64);
	assert_int_equal(dma(x, SELECT(FWCFG_FILE_FIRST) | READ, 32, 0x2000), 0);
	assert_memory_equal(x->ram->host + 0x2000, "0123456789\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0", 32);
	assert_int_equal(x->ram->host[0x2020], 0xff);
}

static void
a_skip_moves_on_and_never_past_the_end(void **state)
{
	struct fixture *x = *state;

	assert_int_equal(dma(x, SELECT(FWCFG_FILE_FIRST) | SKIP, 4, 0), 0);
	assert_int_equal(dma(x, READ, 1, 0x2000), 0);
	assert_int_equal(x->ram->host[0x2000], '4');
	assert_int_equal(dma(x, SKIP, 0xffffffffu, 0), 0);
	assert_int_equal(dma(x, SKIP, 0xffffffffu, 0), 0);
	assert_int_equal(dma(x, READ, 1, 0x2000), 0);
	assert_int_equal(x->ram->host[0x2000], 0);
}

static void
reads_to_where_no_memory_is_and_writes_report_an_error(void **state)
{
	struct fixture *x = *state;

	assert_int_equal(dma(x, SELECT(FWCFG_FILE_FIRST) | READ, 10, RAM_SIZE), 1);
	assert_int_equal(dma(x, SELECT(FWCFG_FILE_FIRST) | READ, 10, RAM_SIZE - 4), 1);
	assert_int_equal(dma(x, SELECT(FWCFG_FILE_FIRST) | READ, 0xffffffffu, 0x1000), 1);
	assert_int_equal(dma(x, SELECT(FWCFG_FILE_FIRST) | READ, 10, UINT64_MAX - 4), 1);
	assert_int_equal(dma(x, SELECT(FWCFG_FILE_FIRST) | WRITE, 4, 0x1000), 1);
}

static void
a_command_that_is_not_in_memory_does_nothing(void **state)
{
	struct fixture *x = *state;

	io_write(&x->m.io, 0x514, __builtin_bswap32(0xffffffffu), 4);
	io_write(&x->m.io, 0x518, __builtin_bswap32(0xfffffff8u), 4);
	io_write(&x->m.io, 0x514, 0, 4);
	io_write(&x->m.io, 0x518, __builtin_bswap32(RAM_SIZE - 8), 4);
	assert_int_equal(io_read(&x->m.io, 0x514, 4), 0x554d4551);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(
			the_signature_reads_byte_by_byte_and_zero_behind_its_end, setup, teardown),
		cmocka_unit_test_setup_teardown(the_directory_leads_to_a_file, setup, teardown),
		cmocka_unit_test_setup_teardown(a_read_beyond_the_item_is_filled_with_zeroes, setup, teardown),
		cmocka_unit_test_setup_teardown(a_skip_moves_on_and_never_past_the_end, setup, teardown),
		cmocka_unit_test_setup_teardown(
			reads_to_where_no_memory_is_and_writes_report_an_error, setup, teardown),
		cmocka_unit_test_setup_teardown(a_command_that_is_not_in_memory_does_nothing, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
