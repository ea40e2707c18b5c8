/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

#include "bus/machine.h"

struct fixture {
	struct machine m;
	struct ram *ram, *rom;
	struct mem_region low, high, shadow, regs;
	uint64_t last_off, last_value;
	unsigned last_size;
	int changes;
};

static uint64_t
reg_read(void *opaque, uint64_t off, unsigned size)
{
	struct fixture *f = opaque;

	f->last_off = off;
	f->last_size = size;
	return 0x1122334455667788u >> (8 * (off & 7));
}

static void
reg_write(void *opaque, uint64_t off, uint64_t value, unsigned size)
{
	struct fixture *f = opaque;

	f->last_off = off;
	f->last_value = value;
	f->last_size = size;
}

static const struct bus_ops word_ops = { .read = reg_read, .write = reg_write, .min_size = 4, .max_size = 4 };

static void
changed(void *opaque)
{
	(*(int *)opaque)++;
}

static int
setup(void **state)
{
	static struct fixture f;

	memset(&f, 0, sizeof(f));
	if (machine_open(&f.m, "test"))
		return -1;
	f.ram = ram_create(&f.m.mem, "ram", 1 << 20);
	f.rom = ram_create(&f.m.mem, "rom", 1 << 16);
	f.low = (struct mem_region){ .name = "low", .kind = MEM_RAM, .enabled = true, .size = 1 << 20, .ram = f.ram };
	f.high = (struct mem_region){
		.name = "rom", .kind = MEM_ROM, .enabled = true, .base = 0xffff0000, .size = 1 << 16, .ram = f.rom
	};
	f.regs = (struct mem_region){ .name = "regs",
		.kind = MEM_MMIO,
		.enabled = true,
		.priority = 1,
		.base = 0x8000,
		.size = 0x1000,
		.ops = &word_ops,
		.opaque = &f };
	mem_add(&f.m.mem, &f.low);
	mem_add(&f.m.mem, &f.high);
	mem_add(&f.m.mem, &f.regs);
	*state = &f;
	return 0;
}

static int
teardown(void **state)
{
	machine_close(&((struct fixture *)*state)->m);
	return 0;
}

static void
a_region_of_higher_priority_cuts_ram_in_two(void **state)
{
	struct fixture *f = *state;
	struct mem_section s;

	assert_true(mem_find(&f->m.mem, 0x7fff, &s));
	assert_int_equal(s.last, 0x7fff);
	assert_int_equal(s.kind, MEM_RAM);
	assert_true(mem_find(&f->m.mem, 0x8000, &s));
	assert_int_equal(s.kind, MEM_MMIO);
	assert_true(mem_find(&f->m.mem, 0x9004, &s));
	assert_int_equal(s.start, 0x9000);
	assert_int_equal(s.ram_offset, 0x9000);
	assert_false(mem_find(&f->m.mem, 0x100000, &s));
}

static void
the_door_gives_no_pointer_across_a_hole_a_device_or_the_end(void **state)
{
	struct fixture *f = *state;

	assert_ptr_equal(mem_map(&f->m.mem, 0x1000, 0x7000, true), f->ram->host + 0x1000);
	assert_null(mem_map(&f->m.mem, 0x1000, 0x7001, true));
	assert_null(mem_map(&f->m.mem, 0xff000, 0x1001, false));
	assert_null(mem_map(&f->m.mem, 0xff000, UINT64_MAX, false));
	assert_null(mem_map(&f->m.mem, UINT64_MAX - 1, 16, false));
	assert_null(mem_map(&f->m.mem, 0x8000, 4, false));
	assert_non_null(mem_map(&f->m.mem, 0xffff0000, 0x10000, false));
	assert_null(mem_map(&f->m.mem, 0xffff0000, 1, true));
	assert_null(mem_map(&f->m.mem, 0x1000, 0, true));
}

static void
a_write_that_would_leave_ram_changes_nothing(void **state)
{
	struct fixture *f = *state;
	char buf[32];

	memset(buf, 0x55, sizeof(buf));
	assert_false(mem_write(&f->m.mem, 0x7ff0, buf, 32));
	assert_int_equal(f->ram->host[0x7ff0], 0);
	assert_true(mem_write(&f->m.mem, 0x7fe0, buf, 32));
	assert_int_equal(f->ram->host[0x7fff], 0x55);
	assert_false(mem_read(&f->m.mem, 0x7ff0, buf, 32));
	assert_int_equal(buf[0], 0);
}

static void
stores_to_rom_are_dropped_and_holes_read_as_ones(void **state)
{
	struct fixture *f = *state;

	f->rom->host[0] = 0x42;
	mem_store(&f->m.mem, 0xffff0000, 0x99, 1);
	assert_int_equal(mem_load(&f->m.mem, 0xffff0000, 1), 0x42);
	assert_int_equal(mem_load(&f->m.mem, 0x200000, 4) & 0xffffffff, 0xffffffff);
}

static void
accesses_are_split_and_widened_to_what_the_device_can_do(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(mem_load(&f->m.mem, 0x8001, 1) & 0xff, 0x77);
	assert_int_equal(f->last_size, 4);
	assert_int_equal(f->last_off, 0);
	assert_true(mem_load(&f->m.mem, 0x8000, 8) == 0x1122334455667788u);
	mem_store(&f->m.mem, 0x8000, 0xaabbccdd00112233u, 8);
	assert_int_equal(f->last_off, 4);
	assert_int_equal(f->last_value, 0xaabbccdd);
}

static void
listeners_hear_of_changes_and_only_of_changes(void **state)
{
	struct fixture *f = *state;
	struct mem_listener l = { .changed = changed, .opaque = &f->changes };

	mem_listen(&f->m.mem, &l);
	mem_update(&f->m.mem);
	assert_int_equal(f->changes, 0);
	f->regs.enabled = false;
	mem_update(&f->m.mem);
	assert_int_equal(f->changes, 1);
	assert_non_null(mem_map(&f->m.mem, 0x8000, 4, true));
	mem_unlisten(&f->m.mem, &l);
}

static void
writing_a_watched_code_page_raises_its_generation(void **state)
{
	struct fixture *f = *state;
	uint32_t before = f->ram->gens[5];

	mem_watch_code(f->ram, 5);
	mem_store(&f->m.mem, 0x4fff, 1, 1);
	assert_int_equal(f->ram->gens[5], before);
	mem_store(&f->m.mem, 0x4ffd, 1, 4); /* the last byte is in page 5 */
	assert_int_equal(f->ram->gens[5], before + 1);
}

static void
the_dirty_log_notes_a_page_once_a_round(void **state)
{
	struct fixture *f = *state;

	mem_log_start(f->ram, 0x2000, 0x2000);
	mem_store(&f->m.mem, 0x3008, 1, 8);
	assert_int_equal(f->ram->dirty[3], 1);
	assert_int_equal(f->ram->dirty[2], 0);
	assert_int_equal(f->ram->flags[3], 0);
	assert_int_equal(f->ram->flags[2], PAGE_LOG);
	mem_log_start(f->ram, 0x2000, 0x2000);
	assert_int_equal(f->ram->dirty[3], 0);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
		T(a_region_of_higher_priority_cuts_ram_in_two),
		T(the_door_gives_no_pointer_across_a_hole_a_device_or_the_end),
		T(a_write_that_would_leave_ram_changes_nothing),
		T(stores_to_rom_are_dropped_and_holes_read_as_ones),
		T(accesses_are_split_and_widened_to_what_the_device_can_do),
		T(listeners_hear_of_changes_and_only_of_changes),
		T(writing_a_watched_code_page_raises_its_generation),
		T(the_dirty_log_notes_a_page_once_a_round),
	};

	return cmocka_run_group_tests_name("bus/mem", tests, NULL, NULL);
}
