/* SPDX-License-Identifier: Apache-2.0 */
/* VirtualBox's adapter as its driver uses it: commands in video memory, and every offset that a guest could give. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "dev/dev.h"

#define VRAM (4u << 20)
#define BAR 0xe0000000u
#define HEAP (VRAM - 65536)
#define FLAGS_AT (VRAM - 16)

struct fixture {
	struct machine m;
	struct vga *vga;
	struct display_source src;
	struct surface s;
	int irq;
};

static void
intx(void *opaque, int slot, int pin, int level)
{
	((struct fixture *)opaque)->irq = level;
}

static void
config(struct fixture *f, unsigned reg, uint32_t value)
{
	io_write(&f->m.io, 0xcf8, 0x80000000u | 2u << 11 | reg, 4);
	io_write(&f->m.io, 0xcfc, value, 4);
}

static int
setup(void **state)
{
	static struct fixture f;

	memset(&f, 0, sizeof(f));
	if (machine_open(&f.m, "test"))
		return -1;
	pci_add_ports(&f.m);
	f.m.pci.set_intx = intx;
	f.m.pci.intx_opaque = &f;
	f.vga = vboxvga_create(&f.m, 2, &(struct vga_rom){ 0 }, VRAM, 3);
	f.src = vga_display(f.vga);
	config(&f, 0x10, BAR);
	config(&f, 0x04, 3);
	*state = &f;
	return 0;
}

static int
teardown(void **state)
{
	struct fixture *f = *state;

	surface_free(&f->s);
	machine_close(&f->m);
	return 0;
}

/* The hash as its author gives it, over what the format says, written down apart from the device's. */
static uint32_t
hash(const uint8_t *p, size_t n)
{
	uint32_t h = 0;

	for (size_t i = 0; i < n; i++) {
		h += p[i];
		h += h << 10;
		h ^= h >> 6;
	}
	h += h << 3;
	h ^= h >> 11;
	return h + (h << 15);
}

/* Write a command at `at` as far as it lies in memory, and say so at the port. */
static void
submit(struct fixture *f, uint32_t at, uint8_t channel, uint16_t command, const uint8_t *data, uint32_t len)
{
	uint8_t hashed[24] = { 0 }, tail[8] = { 0 };

	put_le32(hashed, at);
	put_le32(hashed + 4, len);
	hashed[9] = channel;
	put_le16(hashed + 10, command);
	put_le32(tail + 4, hash(hashed, 24));
	mem_write(&f->m.mem, (gpa_t)BAR + at, hashed + 4, 16);
	mem_write(&f->m.mem, (gpa_t)BAR + at + 16, data, len);
	mem_write(&f->m.mem, (gpa_t)BAR + at + 16 + len, tail, 8);
	io_write(&f->m.io, 0x3d0, at, 4);
}

/* ... in the heap, and what has become of the data. */
static void
command(struct fixture *f, uint8_t channel, uint16_t number, uint8_t *data, uint32_t len)
{
	submit(f, HEAP, channel, number, data, len);
	mem_read(&f->m.mem, (gpa_t)BAR + HEAP + 16, data, len);
}

static uint32_t
conf(struct fixture *f, uint32_t index)
{
	uint8_t d[8];

	put_le32(d, index);
	put_le32(d + 4, UINT32_MAX);
	command(f, 2, 1, d, 8);
	return le32(d + 4);
}

static void
view(struct fixture *f, uint32_t n, uint32_t offset)
{
	uint8_t d[16] = { 0 };

	put_le32(d, n);
	put_le32(d + 4, offset);
	command(f, 2, 3, d, 16);
}

struct mode {
	uint32_t start, pitch, width, height;
	uint16_t bpp, flags;
};

static void
mode(struct fixture *f, uint32_t n, struct mode m)
{
	uint8_t d[32] = { 0 };

	put_le32(d, n);
	put_le32(d + 12, m.start);
	put_le32(d + 16, m.pitch);
	put_le32(d + 20, m.width);
	put_le32(d + 24, m.height);
	put_le16(d + 28, m.bpp);
	put_le16(d + 30, m.flags);
	command(f, 2, 6, d, 32);
}

static void
tell_flags_and_caps(struct fixture *f, uint32_t at, uint32_t caps)
{
	uint8_t d[8];

	put_le32(d, at);
	put_le32(d + 4, 16);
	command(f, 1, 0, d, 8);
	put_le32(d, 0x80000000u);
	put_le32(d + 4, caps);
	command(f, 2, 12, d, 8);
	assert_int_equal(le32(d), 0);
}

static bool
draw(struct fixture *f, unsigned n)
{
	struct display_source src;

	assert_true(vga_screen(f->vga, n, &src));
	return src.draw(src.opaque, &f->s);
}

/* ---- tests ---- */

static void
a_driver_finds_the_adapter(void **state)
{
	struct fixture *f = *state;

	io_write(&f->m.io, 0xcf8, 0x80000000u | 2u << 11, 4);
	assert_int_equal(io_read(&f->m.io, 0xcfc, 4), 0xbeef80ee);
	io_write(&f->m.io, 0x1ce, 0, 2);
	io_write(&f->m.io, 0x1cf, 0xbe01, 2);
	assert_int_equal(io_read(&f->m.io, 0x1cf, 2), 0xbe01);
	assert_int_equal(io_read(&f->m.io, 0x1cf, 4), VRAM);
	assert_int_equal(conf(f, UINT32_MAX), UINT32_MAX); /* an index that is not: the value stays */
	assert_int_equal(conf(f, 0), 3);
	assert_int_equal(conf(f, 2), 0);
	assert_int_equal(conf(f, 3), 0);
	assert_int_equal(conf(f, 4), 2);
	/* As a byte the same port is VGA's. */
	io_write(&f->m.io, 0x3c2, 1, 1);
	io_write(&f->m.io, 0x3d4, 12, 1);
	io_write(&f->m.io, 0x3d5, 0x5a, 1);
	assert_int_equal(io_read(&f->m.io, 0x3d5, 1), 0x5a);
}

static void
a_plain_vga_has_none_of_it(void **state)
{
	struct machine m;
	struct vga *v;

	memset(&m, 0, sizeof(m));
	assert_int_equal(machine_open(&m, "plain"), 0);
	pci_add_ports(&m);
	v = vga_create(&m, 2, &(struct vga_rom){ 0 }, VRAM);
	io_write(&m.io, 0x1ce, 0, 2);
	io_write(&m.io, 0x1cf, 0xbe01, 2);
	assert_int_equal(io_read(&m.io, 0x1cf, 2), 0xb0c5);
	io_write(&m.io, 0x3d0, 0, 4);
	assert_null(vga_display(v).pointer(vga_display(v).opaque));
	machine_close(&m);
}

static void
the_picture_is_where_view_and_screen_say(void **state)
{
	struct fixture *f = *state;
	char text[64];

	view(f, 0, 0x10000);
	view(f, 1, 0x200000);
	mode(f, 0, (struct mode){ 64 * 4 + 8, 64 * 4, 16, 8, 32, 1 });
	mode(f, 1, (struct mode){ 0, 32, 16, 4, 16, 1 });
	mem_store(&f->m.mem, BAR + 0x10000 + 64 * 4 + 8, 0x00112233, 4);
	mem_store(&f->m.mem, BAR + 0x10000 + 64 * 4 * 8 + 8 + 15 * 4, 0x00445566, 4);
	mem_store(&f->m.mem, BAR + 0x200000 + 32 * 3 + 2, 0xf800, 2);
	assert_true(draw(f, 0));
	assert_int_equal(f->s.width, 16);
	assert_int_equal(f->s.height, 8);
	assert_int_equal(f->s.pixels[0], 0x112233);
	assert_int_equal(f->s.pixels[16 * 7 + 15], 0x445566);
	assert_int_equal(f->src.text(f->src.opaque, text, sizeof(text)), 0);
	assert_true(draw(f, 1));
	assert_int_equal(f->s.height, 4);
	assert_int_equal(f->s.pixels[16 * 3 + 1], 0xf80000);
	assert_false(draw(f, 2)); /* nothing has been set there */
	mode(f, 0, (struct mode){ 0, 64 * 4, 16, 8, 32, 5 });
	assert_true(draw(f, 0)); /* blank */
	assert_int_equal(f->s.pixels[0], 0);
	mode(f, 1, (struct mode){ 0, 32, 16, 4, 16, 3 });
	assert_false(draw(f, 1)); /* disabled */
}

static void
a_picture_that_does_not_lie_in_video_memory_is_black(void **state)
{
	static const struct mode bad[] = {
		{ VRAM - 16 * 8 * 4 + 4, 64, 16, 8, 32, 1 }, /* four bytes over the end */
		{ 0xfffffff0, 64, 16, 8, 32, 1 },	     /* wraps */
		{ 0, 0xffffffff, 16, 8, 32, 1 },	     /* the lines do */
		{ 0, 63, 16, 8, 32, 1 },		     /* lines that overlap */
		{ 0, 64, 16, 8, 31, 1 },		     /* no such depth */
		{ 0, 64, 16, 8, 0, 1 },
	};
	struct fixture *f = *state;

	for (gpa_t a = BAR; a < BAR + VRAM; a += 4096)
		mem_store(&f->m.mem, a, 0xffffff, 4);
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		mode(f, 0, bad[i]);
		assert_true(draw(f, 0));
		for (int k = 0; k < 16 * 8; k++)
			assert_int_equal(f->s.pixels[k], 0);
	}
	mode(f, 0, (struct mode){ VRAM - 16 * 8 * 4, 64, 16, 8, 32, 1 }); /* just fits */
	assert_true(draw(f, 0));
	mode(f, 0, (struct mode){ 0, 0xfffffffc, 0x3fffffff, 0xffffffff, 32, 1 });
	assert_true(draw(f, 0));
	assert_int_equal(f->s.width, 640);
	view(f, 0, VRAM + 4);
	mode(f, 3, (struct mode){ 0, 64, 16, 8, 32, 1 }); /* there are three screens */
	mode(f, UINT32_MAX, (struct mode){ 0, 64, 16, 8, 32, 1 });
}

static void
commands_at_any_offset_stay_inside(void **state)
{
	static const uint32_t offsets[] = { 0, VRAM - 24, VRAM - 31, VRAM - 16, VRAM - 1, VRAM, VRAM + 4, 0x7fffffff,
		UINT32_MAX - 15, UINT32_MAX };
	static const uint32_t sizes[] = { 0, 1, 7, 8, 65536, 65537, 0x7fffffff, UINT32_MAX - 23, UINT32_MAX };
	struct fixture *f = *state;

	for (size_t i = 0; i < sizeof(offsets) / sizeof(offsets[0]); i++)
		for (size_t k = 0; k < sizeof(sizes) / sizeof(sizes[0]); k++)
			for (uint16_t c = 0; c < 24; c++) {
				uint8_t head[16] = { 0 };

				put_le32(head, sizes[k]);
				head[5] = c ? 2 : 1;
				put_le16(head + 6, c);
				mem_write(&f->m.mem, (gpa_t)BAR + offsets[i], head, 16);
				io_write(&f->m.io, 0x3d0, offsets[i], 4);
			}
}

static void
a_command_with_another_hash_is_none(void **state)
{
	struct fixture *f = *state;
	uint8_t d[8];

	put_le32(d, 0);
	put_le32(d + 4, 77);
	submit(f, HEAP, 2, 1, d, 8);
	assert_int_equal(mem_load(&f->m.mem, BAR + HEAP + 20, 4), 3);
	mem_store(&f->m.mem, BAR + HEAP + 20, 77, 4);
	mem_store(&f->m.mem, BAR + HEAP + 28, mem_load(&f->m.mem, BAR + HEAP + 28, 4) ^ 1, 4);
	io_write(&f->m.io, 0x3d0, HEAP, 4);
	assert_int_equal(mem_load(&f->m.mem, BAR + HEAP + 20, 4), 77);
}

static void
hints_are_told_and_found(void **state)
{
	struct fixture *f = *state;
	uint8_t d[8 + 4 * 40];

	/* Before the driver: no interrupt, but it finds the hint. */
	assert_true(vga_hint(f->vga, 1, &(struct vga_hint){ 800, 600, 32, true, true, 5, 6 }));
	assert_false(vga_hint(f->vga, 3, &(struct vga_hint){ 800, 600, 32, true, false, 0, 0 }));
	assert_int_equal(f->irq, 0);
	memset(d, 0, sizeof(d));
	put_le16(d, 4);
	put_le16(d + 2, 40); /* larger ones than ours */
	put_le32(d + 4, 0xffffffdb);
	command(f, 2, 19, d, sizeof(d));
	assert_int_equal(le32(d + 4), 0);
	assert_int_equal(le32(d + 8), 0xffffffff); /* no wish for the first */
	assert_int_equal(le32(d + 48), 0x0801add9);
	assert_int_equal(le32(d + 52), 800);
	assert_int_equal(le32(d + 56), 600);
	assert_int_equal(le32(d + 64), 1);
	assert_int_equal(le32(d + 68), 5);
	assert_int_equal(le32(d + 76), 1);
	assert_int_equal(le32(d + 80), 0xffffffff);
	put_le16(d, 0xffff); /* more than there is room for */
	command(f, 2, 19, d, sizeof(d));
	assert_int_equal(le32(d + 4), 0xfffffffe);

	/* A driver that has not said that it wants them hears nothing; then it does. */
	tell_flags_and_caps(f, FLAGS_AT, 2);
	vga_hint(f->vga, 0, &(struct vga_hint){ 1024, 768, 0, true, false, 0, 0 });
	assert_int_equal(f->irq, 0);
	tell_flags_and_caps(f, FLAGS_AT, 2 | 4 | 16);
	vga_hint(f->vga, 0, &(struct vga_hint){ 1024, 768, 0, true, false, 0, 0 });
	assert_int_equal(f->irq, 1);
	assert_int_equal(mem_load(&f->m.mem, BAR + FLAGS_AT, 4), 0x22);
	io_write(&f->m.io, 0x3b0, 5, 4);
	assert_int_equal(f->irq, 1);
	io_write(&f->m.io, 0x3b0, UINT32_MAX, 4);
	assert_int_equal(f->irq, 0);
	assert_int_equal(mem_load(&f->m.mem, BAR + FLAGS_AT, 4), 0);
}

static void
flags_outside_of_memory_are_not_written(void **state)
{
	struct fixture *f = *state;

	tell_flags_and_caps(f, VRAM - 15, 2 | 4);
	tell_flags_and_caps(f, UINT32_MAX, 2 | 4);
	vga_hint(f->vga, 0, &(struct vga_hint){ 1024, 768, 0, true, false, 0, 0 });
	assert_int_equal(f->irq, 0);
}

static void
the_pointer_has_a_shape(void **state)
{
	uint8_t *d = calloc(1, 24 + 4096 / 8 + 64 * 64 * 4 + 64);
	const struct pointer_shape *p;
	struct fixture *f = *state;
	uint32_t serial;

	put_le32(d + 4, 1 | 4);
	put_le32(d + 8, 99); /* a hot spot outside becomes the last pixel */
	put_le32(d + 16, 9);
	put_le32(d + 20, 2);
	d[24] = 0x80; /* two lines of two bytes: the first pixel is transparent */
	put_le32(d + 28 + 4, 0x00abcdef);
	command(f, 2, 8, d, 24 + 4 + 9 * 2 * 4);
	assert_int_equal(le32(d), 0);
	p = f->src.pointer(f->src.opaque);
	serial = p->serial;
	assert_true(p->visible);
	assert_int_equal(p->width, 9);
	assert_int_equal(p->hot_x, 8);
	assert_int_equal(p->pixels[0], 0);
	assert_int_equal(p->pixels[1], 0xffabcdef);
	/* Too little data, too large: refused, the old one stays. */
	put_le32(d + 16, 10);
	command(f, 2, 8, d, 24 + 4 + 9 * 2 * 4);
	assert_int_equal((int32_t)le32(d), -2);
	put_le32(d + 16, 65);
	command(f, 2, 8, d, 24 + 4 + 9 * 2 * 4);
	assert_int_equal((int32_t)le32(d), -37);
	put_le32(d + 16, 0x10000001);
	put_le32(d + 20, 0x10000001);
	command(f, 2, 8, d, 24 + 4 + 9 * 2 * 4);
	assert_int_equal((int32_t)le32(d), -37);
	assert_int_equal(f->src.pointer(f->src.opaque)->serial, serial);
	put_le32(d + 4, 0);
	command(f, 2, 8, d, 24);
	assert_false(f->src.pointer(f->src.opaque)->visible);
	free(d);
}

static void
the_first_screen_goes_back_to_its_registers(void **state)
{
	struct fixture *f = *state;
	uint8_t d[16] = { 0 };

	mode(f, 0, (struct mode){ 0, 64, 16, 8, 32, 1 });
	io_write(&f->m.io, 0x1ce, 4, 2);
	io_write(&f->m.io, 0x1cf, 1, 2);
	draw(f, 0);
	assert_int_equal(f->s.width, 640); /* a mode set by the registers */
	tell_flags_and_caps(f, FLAGS_AT, 16);
	mode(f, 0, (struct mode){ 0, 64, 16, 8, 32, 1 });
	io_write(&f->m.io, 0x1cf, 0, 2);
	io_write(&f->m.io, 0x1cf, 1, 2);
	draw(f, 0);
	assert_int_equal(f->s.width, 16); /* this driver goes without them */
	put_le32(d, 2 | 4 | 8);
	command(f, 2, 7, d, 16);
	draw(f, 0);
	assert_int_equal(f->s.width, 640);
	mode(f, 0, (struct mode){ 0, 64, 16, 8, 32, 1 });
	device_reset_all(&f->m);
	draw(f, 0);
	assert_int_not_equal(f->s.width, 16);
}

static void
places_are_mapped_onto_all_screens(void **state)
{
	struct fixture *f = *state;
	unsigned x = 32767, y = 16384;
	uint8_t d[16] = { 0 };

	mode(f, 0, (struct mode){ 0, 400, 100, 100, 32, 1 });
	vga_map_pointer(f->vga, 32767, &x, &y);
	assert_int_equal(x, 32767);
	put_le32(d + 8, 200);
	put_le32(d + 12, 100);
	command(f, 2, 20, d, 16);
	vga_map_pointer(f->vga, 32767, &x, &y);
	assert_in_range(x, 16380, 16386);
	assert_in_range(y, 16380, 16386);
	put_le32(d, 0x80000000u);
	put_le32(d + 8, 1);
	command(f, 2, 20, d, 16);
	vga_map_pointer(f->vga, 32767, &x, &y);
	assert_in_range(x, 0, 32767);
}

static void
the_bios_is_told_whose_it_is(void **state)
{
	static uint8_t rom[1024] = { 0x55, 0xaa, 2 };
	struct machine m;
	uint8_t sum = 0;

	rom[0x18] = 0x40;
	memcpy(rom + 0x40, "PCIR\x34\x12\x11\x11", 8);
	memset(&m, 0, sizeof(m));
	assert_int_equal(machine_open(&m, "rom"), 0);
	pci_add_ports(&m);
	vboxvga_create(&m, 2, &(struct vga_rom){ rom, sizeof(rom) }, VRAM, 1);
	io_write(&m.io, 0xcf8, 0x80000000u | 2u << 11 | 0x30, 4);
	io_write(&m.io, 0xcfc, 0xd0000001, 4);
	io_write(&m.io, 0xcf8, 0x80000000u | 2u << 11 | 4, 4);
	io_write(&m.io, 0xcfc, 3, 2);
	assert_int_equal(mem_load(&m.mem, 0xd0000044, 4), 0xbeef80ee);
	for (gpa_t i = 0; i < 1024; i++)
		sum = (uint8_t)(sum + mem_load(&m.mem, 0xd0000000 + i, 1));
	assert_int_equal(sum, 0);
	machine_close(&m);
}

int
main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(a_driver_finds_the_adapter),
		TEST(a_plain_vga_has_none_of_it),
		TEST(the_picture_is_where_view_and_screen_say),
		TEST(a_picture_that_does_not_lie_in_video_memory_is_black),
		TEST(commands_at_any_offset_stay_inside),
		TEST(a_command_with_another_hash_is_none),
		TEST(hints_are_told_and_found),
		TEST(flags_outside_of_memory_are_not_written),
		TEST(the_pointer_has_a_shape),
		TEST(the_first_screen_goes_back_to_its_registers),
		TEST(places_are_mapped_onto_all_screens),
		TEST(the_bios_is_told_whose_it_is),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
