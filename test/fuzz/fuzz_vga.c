/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fuzz target: VGA and VBE registers, the memory window, the frame buffer and the register BAR, and what is drawn of
 * whatever they say.
 */
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "dev/dev.h"
#include "test/fuzz/input.h"

#define BAR_AT 0xf0000000u
#define REGISTERS_AT 0xfeb00000u
#define DRAWS_MAX 4 /* of up to 8192x8192 pixels each */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct machine m;
static struct display_source screen;

static void
build(void)
{
	static uint8_t rom[4096] = { 0x55, 0xaa, 8 };

	log_set_level(LOG_ERROR);
	if (machine_open(&m, "fuzz"))
		abort();
	pci_add_ports(&m);
	screen = vga_display(vga_create(&m, 2, &(struct vga_rom){ rom, sizeof(rom) }, 1 << 20));
}

static void
config(unsigned reg, uint32_t value, unsigned size)
{
	io_write(&m.io, 0xcf8, 0x80000000u | 2u << 11 | (reg & 0xfc), 4);
	io_write(&m.io, (uint16_t)(0xcfc + (reg & 3)), value, size);
}

static void
draw(void)
{
	static char text[1 << 16];
	static struct surface s;

	if (screen.draw(screen.opaque, &s) && (!s.pixels || !s.width || !s.height))
		abort();
	if (screen.text(screen.opaque, text, sizeof(text)) >= sizeof(text))
		abort();
	screen.text(screen.opaque, text, 17);
}

static void
step(struct input *in, int *draws)
{
	static const gpa_t places[] = { 0xa0000, 0xa0000, BAR_AT, REGISTERS_AT };
	unsigned op = (unsigned)take(in, 1), size = 1u << (op >> 4 & 3), place = op >> 6, reg;
	gpa_t at;

	switch (op & 15) {
	case 0: /* an indexed pair */
	case 1:
		reg = (unsigned)take(in, 1);
		io_write(&m.io,
			(uint16_t)(0x3c0 + 2 * (reg >> 6) +
				   (reg >> 6 == 3	   ? 14
					   : reg >> 6 == 0 ? 0
							   : 2)),
			(uint32_t)(reg & 63) | (uint32_t)take(in, 1) << 8, 2);
		break;
	case 2:
	case 3:
		io_write(&m.io, (uint16_t)(0x3b0 + take(in, 1) % 0x30), (uint32_t)take(in, 2), size > 4 ? 4 : size);
		break;
	case 4:
		io_read(&m.io, (uint16_t)(0x3b0 + take(in, 1) % 0x30), size > 4 ? 4 : size);
		break;
	case 5:
	case 6:
	case 7:
		io_write(&m.io, 0x1ce, (uint32_t)take(in, 1) % 12, 2);
		io_write(&m.io, 0x1cf, (uint32_t)take(in, 2), 2);
		break;
	case 8:
		io_read(&m.io, (uint16_t)(0x1ce + op % 3), 2);
		break;
	case 9:
	case 10:
		at = places[place] + (place == 2 ? take(in, 3) : place == 3 ? take(in, 2) & 0xfff : take(in, 2) * 2);
		mem_store(&m.mem, at, take(in, size), size);
		break;
	case 11:
		at = places[place] + (place == 2 ? take(in, 3) : place == 3 ? take(in, 2) & 0xfff : take(in, 2) * 2);
		mem_load(&m.mem, at, size);
		break;
	case 12:
		config((unsigned)take(in, 1), (uint32_t)take(in, 4), size > 4 ? 4 : size);
		break;
	case 13: /* 0x3c0: the flip-flop is reset first */
		io_read(&m.io, 0x3da, 1);
		io_write(&m.io, 0x3c0, (uint32_t)take(in, 1), 1);
		io_write(&m.io, 0x3c0, (uint32_t)take(in, 1), 1);
		break;
	case 14:
		if (++*draws <= DRAWS_MAX)
			draw();
		break;
	case 15:
		device_reset_all(&m);
		break;
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
	config(0x18, REGISTERS_AT, 4);
	config(0x04, 3, 2);
	while (in.left)
		step(&in, &draws);
	draw();
	return 0;
}
