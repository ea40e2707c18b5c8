/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fuzz target: commands to VirtualBox's display adapter, well hashed and not, with any offset and data, and what is
 * shown of the screens and pointers that they say.
 */
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/log.h"
#include "base/str.h"
#include "dev/dev.h"
#include "test/fuzz/input.h"

#define BAR_AT 0xf0000000u
#define VRAM (1u << 20)
#define MONITORS 3
#define DRAWS_MAX 4 /* of up to 8192x8192 pixels each */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct machine m;
static struct vga *vga;

static void
build(void)
{
	log_set_level(LOG_ERROR);
	if (machine_open(&m, "fuzz"))
		abort();
	pci_add_ports(&m);
	vga = vboxvga_create(&m, 2, &(struct vga_rom){ 0 }, VRAM, MONITORS);
}

static void
config(unsigned reg, uint32_t value, unsigned size)
{
	io_write(&m.io, 0xcf8, 0x80000000u | 2u << 11 | (reg & 0xfc), 4);
	io_write(&m.io, (uint16_t)(0xcfc + (reg & 3)), value, size);
}

static void
draw(unsigned n)
{
	static struct surface s;
	static char text[1 << 16];
	const struct pointer_shape *p;
	struct display_source src;
	uint32_t sum = 0;

	if (!vga_screen(vga, n, &src))
		abort();
	if (src.draw(src.opaque, &s) && (!s.pixels || !s.width || !s.height))
		abort();
	src.text(src.opaque, text, sizeof(text));
	p = src.pointer(src.opaque);
	for (unsigned i = 0; p->visible && i < p->width * p->height; i++)
		sum += p->pixels[i];
	if (p->visible && (p->hot_x >= p->width || p->hot_y >= p->height))
		abort();
	__asm__ volatile("" : : "r"(sum)); /* the pixels are read */
}

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

/* A command whose hash is right, of `len` bytes of the input. */
static void
command(struct input *in, uint32_t at, uint32_t len)
{
	static const uint8_t numbers[] = { 1, 3, 4, 5, 6, 7, 8, 12, 19, 20, 21, 6, 6, 8 };
	uint8_t hashed[24] = { 0 }, tail[8] = { 0 };
	unsigned which = (unsigned)take(in, 1);

	put_le32(hashed, at);
	put_le32(hashed + 4, len);
	hashed[9] = which & 15 ? 2 : 1;
	put_le16(hashed + 10, which & 15 ? numbers[(which >> 4) % ARRAY_LEN(numbers)] : 0);
	put_le32(tail + 4, hash(hashed, 24));
	mem_write(&m.mem, (gpa_t)BAR_AT + at, hashed + 4, 16);
	for (uint32_t i = 0; i < len && in->left; i += 4)
		mem_store(&m.mem, (gpa_t)BAR_AT + at + 16 + i, take(in, 4), 4);
	mem_write(&m.mem, (gpa_t)BAR_AT + at + 16 + len, tail, 8);
	io_write(&m.io, 0x3d0, at, 4);
}

static void
hint(struct input *in)
{
	struct vga_hint h = { (unsigned)take(in, 2), (unsigned)take(in, 2), (unsigned)take(in, 1), take(in, 1) & 1,
		take(in, 1) & 1, (unsigned)take(in, 4), (unsigned)take(in, 4) };

	vga_hint(vga, (unsigned)take(in, 1) % 4, &h);
}

static void
step(struct input *in, int *draws)
{
	unsigned op = (unsigned)take(in, 1), x, y;

	switch (op & 15) {
	case 0:
	case 1:
	case 2:
	case 3:
	case 4:
		command(in, (uint32_t)take(in, 3) & (VRAM - 1), op >> 4 ? 4 * (op >> 4) : (uint32_t)take(in, 2));
		break;
	case 5:
		command(in, op & 0x10 ? (uint32_t)take(in, 4) : VRAM - (uint32_t)take(in, 1), (uint32_t)take(in, 2));
		break;
	case 6:
		mem_store(&m.mem, BAR_AT + take(in, 3) % VRAM, take(in, 4), 4);
		break;
	case 7:
		io_write(&m.io, 0x3d0, (uint32_t)take(in, 4), 4);
		break;
	case 8:
		io_write(&m.io, 0x3b0, op & 0x10 ? UINT32_MAX : (uint32_t)take(in, 4), 4);
		break;
	case 9:
		hint(in);
		break;
	case 10:
		io_write(&m.io, 0x1ce, op >> 4, 2);
		io_write(&m.io, 0x1cf, (uint32_t)take(in, 2), 2);
		break;
	case 11:
		io_read(&m.io, op & 0x10 ? 0x3b0 : 0x3d0, 4);
		io_read(&m.io, 0x1cf, 4);
		break;
	case 12:
		x = (unsigned)take(in, 2) & POINTER_MAX;
		y = (unsigned)take(in, 2) & POINTER_MAX;
		vga_map_pointer(vga, POINTER_MAX, &x, &y);
		if (x > POINTER_MAX || y > POINTER_MAX)
			abort();
		break;
	case 13:
		if (op >> 4 == 0)
			device_reset_all(&m);
		break;
	default:
		if (++*draws <= DRAWS_MAX)
			draw((op >> 4) % MONITORS);
	}
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input in = { data, size };
	int draws = 0;

	if (!m.loop)
		build();
	device_reset_all(&m);
	config(0x10, BAR_AT, 4);
	config(0x04, 3, 2);
	while (in.left)
		step(&in, &draws);
	for (unsigned n = 0; n < MONITORS; n++)
		draw(n);
	return 0;
}
