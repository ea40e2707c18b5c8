/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "dev/dev.h"

struct fixture {
	struct machine m;
	struct vga *vga;
	struct display_source src;
	struct surface s;
};

static int
setup(void **state)
{
	static struct fixture f;

	memset(&f, 0, sizeof(f));
	if (machine_open(&f.m, "test"))
		return -1;
	pci_add_ports(&f.m);
	f.vga = vga_create(&f.m, 2, &(struct vga_rom){ 0 }, 16 << 20);
	f.src = vga_display(f.vga);
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

static void
index_write(struct fixture *f, uint16_t port, uint8_t index, uint8_t value)
{
	io_write(&f->m.io, port, index, 1);
	io_write(&f->m.io, port + 1, value, 1);
}

static void
vbe(struct fixture *f, uint16_t index, uint16_t value)
{
	io_write(&f->m.io, 0x1ce, index, 2);
	io_write(&f->m.io, 0x1cf, value, 2);
}

/* Mode 3 as a BIOS sets it, as far as the picture depends on it; 80x25, 8x16, colours 1:1, one glyph. */
static void
text_mode(struct fixture *f)
{
	static const uint8_t crtc[] = { 0x5f, 79, 80, 0x82, 0x55, 0x81, 0xbf, 0x1f, 0, 0x4f, 13, 14, 0, 0, 0, 0, 0x9c,
		0x8e, 0x8f, 40, 0x1f, 0x96, 0xb9, 0xa3, 0xff };

	io_write(&f->m.io, 0x3c2, 0x67, 1);
	index_write(f, 0x3d4, 17, 0); /* unlock registers 0-7 */
	for (uint8_t i = 0; i < sizeof(crtc); i++)
		index_write(f, 0x3d4, i, crtc[i]);
	for (uint8_t i = 0; i < 16; i++) {
		io_read(&f->m.io, 0x3da, 1);
		io_write(&f->m.io, 0x3c0, i, 1);
		io_write(&f->m.io, 0x3c0, i, 1);
	}
	io_write(&f->m.io, 0x3c8, 0, 1);
	for (unsigned i = 0; i < 16 * 3; i++)
		io_write(&f->m.io, 0x3c9, i / 3 * 4, 1);
	/* glyph 'A' into plane 2 with sequential addressing */
	index_write(f, 0x3c4, 1, 1);
	index_write(f, 0x3c4, 2, 4);
	index_write(f, 0x3c4, 4, 6);
	index_write(f, 0x3ce, 5, 0);
	index_write(f, 0x3ce, 6, 4);
	index_write(f, 0x3ce, 8, 0xff);
	for (unsigned y = 0; y < 16; y++)
		mem_store(&f->m.mem, 0xa0000 + 'A' * 32 + y, 0x80 >> (y & 7), 1);
	index_write(f, 0x3c4, 2, 3);
	index_write(f, 0x3c4, 4, 2);
	index_write(f, 0x3ce, 5, 0x10);
	index_write(f, 0x3ce, 6, 0x0e);
	io_write(&f->m.io, 0x3c0, 0x20, 1); /* screen on */
	index_write(f, 0x3d4, 10, 0x20);    /* no cursor */
}

static void
text_is_drawn_from_characters_attributes_and_the_loaded_font(void **state)
{
	struct fixture *f = *state;
	uint32_t fg, bg;

	text_mode(f);
	mem_store(&f->m.mem, 0xb8000 + 2 * 81, 0x1741, 2); /* row 1, column 1: 'A', colour 7 on 1 */
	assert_true(f->src.draw(f->src.opaque, &f->s));
	assert_int_equal(f->s.width, 640);
	assert_int_equal(f->s.height, 400);
	fg = f->s.pixels[16 * 640 + 8];
	bg = f->s.pixels[16 * 640 + 9];
	assert_int_equal(fg, 0x717171); /* 28 of 63 */
	assert_int_equal(bg, 0x101010); /* 4 of 63 */
	assert_int_equal(f->s.pixels[17 * 640 + 9], fg);
	assert_int_equal(f->s.pixels[0], 0);
}

static void
the_text_screen_reads_as_lines(void **state)
{
	struct fixture *f = *state;
	char buf[8192];

	text_mode(f);
	for (unsigned i = 0; i < 80 * 25; i++)
		mem_store(&f->m.mem, 0xb8000 + 2 * i, 0x0720, 2);
	mem_store(&f->m.mem, 0xb8000, 0x074f, 2);
	mem_store(&f->m.mem, 0xb8002, 0x074b, 2);
	mem_store(&f->m.mem, 0xb8000 + 160, 0x07db, 2);
	assert_int_not_equal(f->src.text(f->src.opaque, buf, sizeof(buf)), 0);
	assert_memory_equal(buf, "OK\n█\n\n", 8);
}

static void
a_vbe_mode_shows_the_linear_frame_buffer(void **state)
{
	struct fixture *f = *state;
	uint32_t bar;

	vbe(f, 4, 0);
	vbe(f, 1, 800);
	vbe(f, 2, 600);
	vbe(f, 3, 32);
	vbe(f, 4, 0x41);
	pci_config_write(&f->m.pci, 2 << 3, 0x10, 0xe0000000, 4);
	pci_config_write(&f->m.pci, 2 << 3, 4, 2, 2);
	bar = pci_config_read(&f->m.pci, 2 << 3, 0x10, 4) & ~15u;
	assert_int_equal(bar, 0xe0000000);
	mem_store(&f->m.mem, bar + (5 * 800 + 7) * 4, 0x00abcdef, 4);
	assert_true(f->src.draw(f->src.opaque, &f->s));
	assert_int_equal(f->s.width, 800);
	assert_int_equal(f->s.pixels[5 * 800 + 7], 0xabcdef);
	assert_int_equal(f->src.text(f->src.opaque, (char[4]){ 0 }, 4), 0);
}

static void
write_mode_2_and_the_bit_mask_draw_one_planar_pixel(void **state)
{
	struct fixture *f = *state;

	text_mode(f);
	index_write(f, 0x3c4, 2, 15);
	index_write(f, 0x3c4, 4, 6);
	index_write(f, 0x3ce, 5, 2);
	index_write(f, 0x3ce, 6, 5);
	index_write(f, 0x3ce, 8, 0x20); /* the third pixel of the byte */
	index_write(f, 0x3d4, 9, 0);
	io_read(&f->m.io, 0x3da, 1);
	io_write(&f->m.io, 0x3c0, 18, 1);
	io_write(&f->m.io, 0x3c0, 15, 1); /* all planes shown */
	io_write(&f->m.io, 0x3c0, 0x20, 1);
	mem_load(&f->m.mem, 0xa0000 + 80, 1); /* fill the latches: row 1 */
	mem_store(&f->m.mem, 0xa0000 + 80, 9, 1);
	assert_true(f->src.draw(f->src.opaque, &f->s));
	assert_int_equal(f->s.width, 640);
	assert_int_equal(f->s.pixels[640 + 2], 0x929292); /* 36 of 63 */
	assert_int_equal(f->s.pixels[640 + 3], 0);
}

/* Whoever copies a running machine's memory goes by its log (bus/mem.h). */
static void
what_comes_in_through_the_window_is_logged(void **state)
{
	struct fixture *f = *state;
	struct ram *vram = f->m.mem.rams;
	uint64_t logged = 0;

	while (vram && strcmp(vram->name, "vga") != 0)
		vram = vram->next;
	assert_non_null(vram);
	text_mode(f);
	mem_log_start(vram, 0, vram->size);
	mem_store(&f->m.mem, 0xb8000, 0x0741, 2);
	for (uint64_t page = 0; page < vram->size >> PAGE_SHIFT; page++)
		logged += vram->dirty[page];
	assert_int_equal(logged, 1);
	mem_log_start(vram, 0, vram->size);
	vbe(f, 4, 0x41);
	vbe(f, 1, 64);
	vbe(f, 2, 64);
	vbe(f, 3, 32);
	vbe(f, 4, 0);
	mem_log_start(vram, 0, vram->size);
	vbe(f, 4, 0x41);
	assert_int_equal(vram->dirty[0], 1);
	assert_int_equal(vram->dirty[3], 1);
}

static void
no_register_contents_make_drawing_leave_the_video_memory(void **state)
{
	struct fixture *f = *state;
	char buf[256];

	srand(1);
	for (int round = 0; round < 60; round++) {
		for (int i = 0; i < 64; i++) {
			static const uint16_t ports[] = { 0x3c0, 0x3c2, 0x3c4, 0x3c5, 0x3ce, 0x3cf, 0x3d4, 0x3d5,
				0x3da };

			io_write(&f->m.io, ports[(unsigned)rand() % 9], (uint32_t)rand(), 1);
			vbe(f, (uint16_t)(rand() % 12), (uint16_t)rand());
			mem_store(&f->m.mem, 0xa0000 + (unsigned)rand() % 0x20000, (uint64_t)rand(), 4);
		}
		f->src.draw(f->src.opaque, &f->s);
		f->src.text(f->src.opaque, buf, sizeof(buf));
		assert_true(f->s.width <= SURFACE_MAX);
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
		T(text_is_drawn_from_characters_attributes_and_the_loaded_font),
		T(the_text_screen_reads_as_lines),
		T(a_vbe_mode_shows_the_linear_frame_buffer),
		T(write_mode_2_and_the_bit_mask_draw_one_planar_pixel),
		T(what_comes_in_through_the_window_is_logged),
		T(no_register_contents_make_drawing_leave_the_video_memory),
	};

	return cmocka_run_group_tests_name("dev/vga", tests, NULL, NULL);
}
