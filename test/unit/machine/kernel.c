/* SPDX-License-Identifier: Apache-2.0 */
/* Kernel images made up here, whole and broken; each into a small memory. */
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
#include "machine/kernel.h"

#define RAM_SIZE (16u << 20)

struct fixture {
	struct machine m;
	struct ram *ram;
	struct mem_region region;
	struct kernel *k;
	struct err e;
	struct x86_state s;
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
	x->k = xcalloc(1, sizeof(*x->k));
	x->k->append = xstrdup("console=ttyS0");
	*state = x;
	return 0;
}

static int
teardown(void **state)
{
	struct fixture *x = *state;

	kernel_free(x->k);
	machine_close(&x->m);
	free(x);
	return 0;
}

static uint8_t *
image(struct fixture *x, size_t len)
{
	free(x->k->image.data);
	x->k->image.data = xcalloc(len, 1);
	x->k->image.len = len;
	return x->k->image.data;
}

static void
add_module(struct fixture *x, size_t len)
{
	struct kernel_file *f = &x->k->modules[x->k->module_count++];

	f->data = xcalloc(len, 1);
	f->len = len;
	f->cmdline = xstrdup("/initrd");
	memset(f->data, 0x5a, len);
}

static int
load(struct fixture *x)
{
	static const struct e820 map[] = { { 0, 0x9fc00, 1 }, { 1 << 20, RAM_SIZE - (1 << 20), 1 } };
	struct kernel_env env = { &x->m.mem, map, 2, RAM_SIZE, 0xf0000 };

	return kernel_identify(x->k, &x->e) || kernel_load(x->k, &env, &x->s, &x->e) ? -1 : 0;
}

/* A bzImage of protocol 2.15 with one setup sector and 8 KiB of code. */
static uint8_t *
make_linux(struct fixture *x)
{
	uint8_t *p = image(x, 1024 + 8192);

	p[0x1f1] = 1;
	put_le16(p + 0x1fe, 0xaa55);
	p[0x201] = 0x66;
	memcpy(p + 0x202, "HdrS", 4);
	put_le16(p + 0x206, 0x020f);
	p[0x211] = 1;
	put_le32(p + 0x22c, 0x7fffffff);
	p[0x234] = 1;
	put_le32(p + 0x238, 2047);
	put_le64(p + 0x258, 2 << 20);
	put_le32(p + 0x260, 0x10000);
	memset(p + 1024, 0x90, 8192);
	return p;
}

static void
a_bzimage_is_placed_with_its_command_line_initrd_and_memory_map(void **state)
{
	struct fixture *x = *state;
	uint8_t *ram = x->ram->host, *zp;

	make_linux(x);
	add_module(x, 5000);
	assert_int_equal(load(x), 0);
	assert_int_equal(x->s.rip, 2 << 20);
	assert_int_equal(ram[2 << 20], 0x90);
	assert_int_equal(x->s.cr0 & 0x80000001u, 1);
	zp = ram + x->s.gpr[RSI];
	assert_string_equal((char *)ram + le32(zp + 0x228), "console=ttyS0");
	assert_int_equal(zp[0x210], 0xff);
	assert_int_equal(le64(zp + 0x70), 0xf0000);
	assert_int_equal(zp[0x1e8], 2);
	assert_int_equal(le64(zp + 0x2d0 + 20), 1 << 20);
	assert_int_equal(le32(zp + 0x21c), 5000);
	assert_int_equal(ram[le32(zp + 0x218) + 4999], 0x5a);
	assert_true(le32(zp + 0x218) + 5000 <= RAM_SIZE);
}

static void
linux_images_that_do_not_fit_or_are_cut_off_are_refused(void **state)
{
	struct fixture *x = *state;
	uint8_t *p;

	p = make_linux(x);
	p[0x1f1] = 255;
	assert_int_equal(load(x), -1);
	assert_non_null(strstr(x->e.text, "cut off"));
	p = make_linux(x);
	put_le32(p + 0x260, RAM_SIZE);
	assert_int_equal(load(x), -1);
	p = make_linux(x);
	put_le32(p + 0x260, 0xffffffff);
	put_le64(p + 0x258, UINT64_MAX - 100);
	assert_int_equal(load(x), -1);
	p = make_linux(x);
	put_le64(p + 0x258, 0);
	assert_int_equal(load(x), -1);
	p = make_linux(x);
	put_le32(p + 0x260, RAM_SIZE - (2 << 20) + 1);
	assert_int_equal(load(x), -1);
	assert_non_null(strstr(x->e.text, "needs 17 MiB"));
	p = make_linux(x);
	p[0x211] = 0;
	assert_int_equal(load(x), -1);
	p = make_linux(x);
	put_le16(p + 0x206, 0x0105);
	assert_int_equal(load(x), -1);
	p = make_linux(x);
	put_le32(p + 0x238, 5);
	assert_int_equal(load(x), -1);
	assert_non_null(strstr(x->e.text, "command line"));
}

static void
an_initrd_that_does_not_fit_is_refused(void **state)
{
	struct fixture *x = *state;
	uint8_t *p = make_linux(x);

	add_module(x, RAM_SIZE - (2u << 20));
	assert_int_equal(load(x), -1);
	assert_non_null(strstr(x->e.text, "initrd"));
	put_le32(p + 0x22c, 100);
	assert_int_equal(load(x), -1);
	put_le32(p + 0x22c, 0xffffffff);
	assert_int_equal(load(x), -1);
}

/* An ELF32 file with one segment of 256 bytes at 1 MiB. */
static uint8_t *
make_elf32(struct fixture *x)
{
	uint8_t *p = image(x, 8192);

	memcpy(p, "\177ELF\1\1\1", 7);
	put_le16(p + 18, 3);
	put_le32(p + 24, 1 << 20);
	put_le32(p + 28, 52);
	put_le16(p + 42, 32);
	put_le16(p + 44, 1);
	put_le32(p + 52, 1);
	put_le32(p + 56, 4096);
	put_le32(p + 64, 1 << 20);
	put_le32(p + 68, 256);
	put_le32(p + 72, 512);
	memset(p + 4096, 0x90, 256);
	return p;
}

static uint8_t *
make_multiboot(struct fixture *x, uint32_t flags)
{
	uint8_t *p = make_elf32(x);

	put_le32(p + 1024, 0x1badb002);
	put_le32(p + 1028, flags);
	put_le32(p + 1032, -(0x1badb002 + flags));
	return p;
}

static void
a_multiboot_elf_is_loaded_and_entered_with_its_information(void **state)
{
	struct fixture *x = *state;
	uint8_t *ram = x->ram->host, *info;

	make_multiboot(x, 3);
	add_module(x, 100);
	memset(ram + (1 << 20), 0xff, 1024);
	assert_int_equal(load(x), 0);
	assert_int_equal(x->s.gpr[RAX], 0x2badb002);
	assert_int_equal(x->s.rip, 1 << 20);
	assert_int_equal(ram[(1 << 20) + 255], 0x90);
	assert_int_equal(ram[(1 << 20) + 511], 0);
	assert_int_equal(ram[(1 << 20) + 512], 0xff);
	info = ram + x->s.gpr[RBX];
	assert_int_equal(le32(info + 20), 1);
	assert_int_equal(ram[le32(ram + le32(info + 24))], 0x5a);
	assert_string_equal((char *)ram + le32(info + 16), "console=ttyS0");
	assert_int_equal(le32(info + 44), 48);
}

static void
a_flat_multiboot_image_is_placed_where_its_header_says(void **state)
{
	struct fixture *x = *state;
	uint8_t *p = make_multiboot(x, 0x10003);

	put_le32(p + 1036, 0x200400); /* header_addr */
	put_le32(p + 1040, 0x200000);
	put_le32(p + 1044, 0x202000);
	put_le32(p + 1048, 0x203000);
	put_le32(p + 1052, 0x200010);
	assert_int_equal(load(x), 0);
	assert_int_equal(x->s.rip, 0x200010);
	assert_int_equal(x->ram->host[0x201000], 0x90);
	put_le32(p + 1044, 0x300000); /* more than the file has */
	assert_int_equal(load(x), -1);
	put_le32(p + 1044, 0x1ff000); /* backwards */
	assert_int_equal(load(x), -1);
	put_le32(p + 1044, 0x202000);
	put_le32(p + 1048, 0xffffffff);
	assert_int_equal(load(x), -1);
	put_le32(p + 1048, 0);
	put_le32(p + 1040, 0x200500); /* behind the header */
	assert_int_equal(load(x), -1);
	put_le32(p + 1040, 0); /* before the file */
	assert_int_equal(load(x), -1);
}

static void
multiboot_features_that_are_missing_here_are_refused(void **state)
{
	struct fixture *x = *state;

	make_multiboot(x, 0x0008);
	assert_int_equal(load(x), -1);
	assert_int_equal(x->e.code, ERR_UNSUPPORTED);
}

static void
elf_segments_outside_the_file_or_the_memory_are_refused(void **state)
{
	struct fixture *x = *state;
	static const struct {
		unsigned offset;
		uint32_t value;
	} wrong[] = {
		{ 56, 8000 },				/* offset + size > file */
		{ 56, 0xffffffff },			/* offset > file */
		{ 64, 0xffffff00 },			/* address + size wraps */
		{ 64, RAM_SIZE - 8 },			/* ends behind memory */
		{ 64, 0xf0000 },			/* ROM area */
		{ 64, 0x1000 },				/* where the loader's own things are */
		{ 72, 128 },				/* memory size < file size */
		{ 72, 0xffffffff }, { 28, 0xfffffff0 }, /* headers outside */
		{ 28, 8190 }, { 42, 0xffff0001 },	/* header size 1 */
	};

	for (size_t i = 0; i < ARRAY_LEN(wrong); i++) {
		uint8_t *p = make_multiboot(x, 3);

		put_le32(p + wrong[i].offset, wrong[i].value);
		assert_int_equal(load(x), -1);
	}
}

static void
a_pvh_note_gives_the_entry_and_broken_notes_do_not(void **state)
{
	struct fixture *x = *state;
	uint8_t *p = make_elf32(x);

	put_le16(p + 44, 2);
	put_le32(p + 84, 4); /* a second header: PT_NOTE */
	put_le32(p + 88, 2048);
	put_le32(p + 100, 20);
	put_le32(p + 2048, 4);
	put_le32(p + 2052, 4);
	put_le32(p + 2056, 18);
	memcpy(p + 2060, "Xen", 4);
	put_le32(p + 2064, 0x100010);
	assert_int_equal(load(x), 0);
	assert_int_equal(x->k->kind, KERNEL_PVH);
	assert_int_equal(x->s.rip, 0x100010);
	assert_int_equal(le32(x->ram->host + x->s.gpr[RBX]), 0x336ec578);
	put_le32(p + 2048, 0xfffffffd);
	assert_int_equal(load(x), -1);
	put_le32(p + 2048, 4);
	put_le32(p + 2052, 0xffffffff);
	assert_int_equal(load(x), -1);
	put_le32(p + 2052, 4);
	put_le32(p + 100, 19);
	assert_int_equal(load(x), -1);
}

static void
other_files_are_refused(void **state)
{
	struct fixture *x = *state;

	memcpy(image(x, 10), "not a kern", 10);
	assert_int_equal(load(x), -1);
	image(x, 100000);
	assert_int_equal(load(x), -1);
	make_elf32(x);
	assert_int_equal(load(x), -1);
	assert_non_null(strstr(x->e.text, "PVH"));
}

static void
every_prefix_of_an_image_is_either_loaded_or_refused(void **state)
{
	struct fixture *x = *state;
	static uint8_t whole[8192];

	for (int kind = 0; kind < 2; kind++) {
		size_t len = MIN(x->k->image.len, sizeof(whole));

		memcpy(whole, kind ? make_linux(x) : make_multiboot(x, 3), sizeof(whole));
		for (len = 0; len < sizeof(whole); len += 13) {
			memcpy(image(x, len ? len : 1), whole, len);
			load(x);
		}
	}
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int
main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(a_bzimage_is_placed_with_its_command_line_initrd_and_memory_map),
		TEST(linux_images_that_do_not_fit_or_are_cut_off_are_refused),
		TEST(an_initrd_that_does_not_fit_is_refused),
		TEST(a_multiboot_elf_is_loaded_and_entered_with_its_information),
		TEST(a_flat_multiboot_image_is_placed_where_its_header_says),
		TEST(multiboot_features_that_are_missing_here_are_refused),
		TEST(elf_segments_outside_the_file_or_the_memory_are_refused),
		TEST(a_pvh_note_gives_the_entry_and_broken_notes_do_not),
		TEST(other_files_are_refused),
		TEST(every_prefix_of_an_image_is_either_loaded_or_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
