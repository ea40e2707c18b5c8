/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A VGA with the Bochs VBE extension ("DISPI"), which SeaBIOS's stdvga BIOS knows, in two forms: PCI 1234:1111, for
 * Linux's driver bochs, and VirtualBox's adapter, PCI 80ee:beef, for its driver vboxvideo.
 *
 * Sources: IBM VGA register descriptions (Ferraro, "Programmer's Guide to the EGA and VGA cards"); the DISPI register
 * list of the Bochs VBE documentation, version 0xb0c5; QEMU's docs/specs/standard-vga.txt for BAR 2; Linux's
 * drivers/gpu/drm/vboxvideo/vboxvideo_vbe.h for what VirtualBox's has more.
 *
 *	ports 0x3b4-0x3b5, 0x3ba, 0x3c0-0x3cf, 0x3d4-0x3d5, 0x3da    VGA
 *	ports 0x1ce (index), 0x1cf/0x1d0 (data)                      DISPI
 *	BAR 0  prefetchable, video memory
 *	0xa0000-0xbffff  the legacy window
 *  1234:1111 also has
 *	BAR 2  4 KiB: +0x400 VGA ports from 0x3c0, +0x500 DISPI
 *  80ee:beef also has
 *	ports 0x3b0 and 0x3d0 as double words    HGSMI (dev/hgsmi.c), with INTA#
 *	DISPI identities 0xbe00 to 0xbe02, that a driver looks for; the last lets lines have any length; the data
 *	register as a double word is the size of video memory; register 10 is the number of screens then
 *
 * Memory: byte o of plane p is video memory byte o * 4 + p, so that chained-4 and linear modes are the identity and a
 * CPU can write the linear frame buffer (BAR 0) without any handler. Nothing is drawn while the guest runs: vga_draw()
 * makes a picture of the current registers and memory when a console asks for one.
 */
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/log.h"
#include "base/str.h"
#include "bus/pci.h"
#include "dev/dev.h"
#include "dev/hgsmi.h"

enum { SEQ_RESET, SEQ_CLOCK, SEQ_MASK, SEQ_CHARMAP, SEQ_MODE, SEQ_COUNT = 8 };
enum { SEQ_CLOCK_8DOT = 1, SEQ_CLOCK_OFF = 0x20, SEQ_MODE_ODDEVEN_OFF = 4, SEQ_MODE_CHAIN4 = 8 };
enum {
	GFX_SR,
	GFX_ESR,
	GFX_COMPARE,
	GFX_ROTATE,
	GFX_READMAP,
	GFX_MODE,
	GFX_MISC,
	GFX_DONTCARE,
	GFX_BITMASK,
	GFX_COUNT = 16
};
enum {
	GFX_MODE_ODDEVEN = 0x10,
	GFX_MODE_SHIFT_CGA = 0x20,
	GFX_MODE_SHIFT_256 = 0x40,
	GFX_MISC_GRAPHICS = 1,
	GFX_MISC_CHAIN = 2
};
enum {
	CRTC_HDISP = 1,
	CRTC_OVERFLOW = 7,
	CRTC_PRESET_ROW = 8,
	CRTC_MAX_SCAN = 9,
	CRTC_CURSOR_START = 10,
	CRTC_CURSOR_END = 11,
	CRTC_START_HI = 12,
	CRTC_START_LO = 13,
	CRTC_CURSOR_HI = 14,
	CRTC_CURSOR_LO = 15,
	CRTC_VSYNC_END = 17,
	CRTC_VDISP_END = 18,
	CRTC_OFFSET = 19,
	CRTC_UNDERLINE = 20,
	CRTC_MODE = 23,
	CRTC_LINE_COMPARE = 24,
	CRTC_COUNT = 32
};
enum { ATTR_MODE = 16, ATTR_OVERSCAN = 17, ATTR_PLANES = 18, ATTR_PEL = 19, ATTR_COLOR = 20, ATTR_COUNT = 32 };
enum { ATTR_MODE_BLINK = 8, ATTR_MODE_8BIT = 0x40, ATTR_MODE_P54 = 0x80 };
enum {
	VBE_ID,
	VBE_XRES,
	VBE_YRES,
	VBE_BPP,
	VBE_ENABLE,
	VBE_BANK,
	VBE_VIRT_WIDTH,
	VBE_VIRT_HEIGHT,
	VBE_X_OFFSET,
	VBE_Y_OFFSET,
	VBE_MEMORY_64K,
	VBE_COUNT
};
enum { VBE_ENABLED = 1, VBE_GETCAPS = 2, VBE_8BIT_DAC = 0x20, VBE_LFB = 0x40, VBE_NOCLEARMEM = 0x80 };
#define VBE_ID_MIN 0xb0c0
#define VBE_ID_MAX 0xb0c5
#define VBE_ID_VBOX 0xbe00
#define VBE_ID_ANYX 0xbe02
#define VBE_XRES_MAX 2560
#define VBE_YRES_MAX 1600

struct screen {
	struct vga *v;
	unsigned n;
};

struct vga {
	struct pci_dev pci;
	struct hgsmi *hgsmi; /* NULL: 1234:1111 */
	struct screen screens[HGSMI_SCREENS_MAX];
	unsigned monitors;
	struct ram *vram;
	uint32_t vram_size; /* a power of two, at least 1 MiB: masks every address made from registers */
	struct mem_region window;
	int io_vga, io_vbe;

	uint8_t seq_index, seq[SEQ_COUNT];
	uint8_t gfx_index, gfx[GFX_COUNT];
	uint8_t crtc_index, crtc[CRTC_COUNT];
	uint8_t attr_index, attr_flip, attr[ATTR_COUNT]; /* flip: next write to 0x3c0 is data */
	uint8_t misc, feature;
	uint8_t dac_state, dac_mask, dac_read, dac_write, dac_sub, dac_cache[3], dac[768];
	uint8_t latch[4];
	uint16_t vbe_index, vbe[VBE_COUNT];
};

static const struct field fields[] = {
	FIELD(struct vga, seq_index),
	FIELD_ARRAY(struct vga, seq),
	FIELD(struct vga, gfx_index),
	FIELD_ARRAY(struct vga, gfx),
	FIELD(struct vga, crtc_index),
	FIELD_ARRAY(struct vga, crtc),
	FIELD(struct vga, attr_index),
	FIELD(struct vga, attr_flip),
	FIELD_ARRAY(struct vga, attr),
	FIELD(struct vga, misc),
	FIELD(struct vga, feature),
	FIELD(struct vga, dac_state),
	FIELD(struct vga, dac_mask),
	FIELD(struct vga, dac_read),
	FIELD(struct vga, dac_write),
	FIELD(struct vga, dac_sub),
	FIELD_ARRAY(struct vga, dac_cache),
	FIELD_ARRAY(struct vga, dac),
	FIELD_ARRAY(struct vga, latch),
	FIELD(struct vga, vbe_index),
	FIELD_ARRAY(struct vga, vbe),
	FIELD_END,
};

/* ---- the legacy window, 0xa0000-0xbffff ---- */

static bool
vbe_on(const struct vga *v)
{
	return v->vbe[VBE_ENABLE] & VBE_ENABLED;
}

/* The offset into the selected window (GFX_MISC bits 2-3), or false when the address is outside it. */
static bool
window_offset(const struct vga *v, uint64_t addr, uint32_t *off)
{
	static const struct {
		uint32_t base, size;
	} map[4] = { { 0, 0x20000 }, { 0, 0x10000 }, { 0x10000, 0x8000 }, { 0x18000, 0x8000 } };
	unsigned sel = (v->gfx[GFX_MISC] >> 2) & 3;

	if (addr < map[sel].base || addr - map[sel].base >= map[sel].size)
		return false;
	*off = (uint32_t)(addr - map[sel].base);
	if (vbe_on(v))
		*off += (uint32_t)v->vbe[VBE_BANK] << 16;
	return true;
}

static uint8_t *
cell(struct vga *v, uint32_t index)
{
	return v->vram->host + (index & (v->vram_size - 1));
}

/* Who copies memory while the machine runs has to see what comes in through the window, too. */
static void
set_cell(struct vga *v, uint32_t index, uint8_t value)
{
	uint32_t page = (index & (v->vram_size - 1)) >> PAGE_SHIFT;

	*cell(v, index) = value;
	if (v->vram->flags[page])
		mem_page_written(v->vram, page);
}

static void
clear(struct vga *v, uint64_t len)
{
	memset(v->vram->host, 0, len);
	for (uint64_t page = 0; page < (len + PAGE_MASK) >> PAGE_SHIFT; page++)
		if (v->vram->flags[page])
			mem_page_written(v->vram, page);
}

static uint8_t
window_read8(struct vga *v, uint64_t addr)
{
	uint32_t off;
	uint8_t diff = 0;

	if (!window_offset(v, addr, &off))
		return 0xff;
	if (v->seq[SEQ_MODE] & SEQ_MODE_CHAIN4)
		return *cell(v, off);
	if (v->gfx[GFX_MODE] & GFX_MODE_ODDEVEN)
		return *cell(v, (off & ~1u) * 4 + ((v->gfx[GFX_READMAP] & 2) | (off & 1)));
	for (unsigned p = 0; p < 4; p++)
		v->latch[p] = *cell(v, off * 4 + p);
	if (!(v->gfx[GFX_MODE] & 8))
		return v->latch[v->gfx[GFX_READMAP] & 3];
	/* read mode 1: a bit is set where all planes that count have the compare colour */
	for (unsigned p = 0; p < 4; p++)
		if (v->gfx[GFX_DONTCARE] >> p & 1)
			diff |= v->latch[p] ^ (v->gfx[GFX_COMPARE] >> p & 1 ? 0xff : 0);
	return (uint8_t)~diff;
}

static uint8_t
raster_op(const struct vga *v, uint8_t value, uint8_t latch)
{
	switch ((v->gfx[GFX_ROTATE] >> 3) & 3) {
	case 1:
		return value & latch;
	case 2:
		return value | latch;
	case 3:
		return value ^ latch;
	}
	return value;
}

/* What write modes 0 to 3 put on plane p before the bit mask. */
static uint8_t
plane_value(const struct vga *v, unsigned p, uint8_t value, uint8_t *mask)
{
	unsigned rot = v->gfx[GFX_ROTATE] & 7;
	uint8_t turned = (uint8_t)(value >> rot | value << (8 - rot)), set = v->gfx[GFX_SR] >> p & 1 ? 0xff : 0;

	*mask = v->gfx[GFX_BITMASK];
	switch (v->gfx[GFX_MODE] & 3) {
	case 0:
		return raster_op(v, v->gfx[GFX_ESR] >> p & 1 ? set : turned, v->latch[p]);
	case 1:
		*mask = 0;
		return 0;
	case 2:
		return raster_op(v, value >> p & 1 ? 0xff : 0, v->latch[p]);
	}
	*mask &= turned;
	return set;
}

static void
window_write8(struct vga *v, uint64_t addr, uint8_t value)
{
	uint8_t planes = v->seq[SEQ_MASK] & 15, mask;
	uint32_t off;

	if (!window_offset(v, addr, &off))
		return;
	if (v->seq[SEQ_MODE] & SEQ_MODE_CHAIN4) {
		if (planes >> (off & 3) & 1)
			set_cell(v, off, value);
		return;
	}
	if (v->gfx[GFX_MODE] & GFX_MODE_ODDEVEN) {
		for (unsigned p = off & 1; p < 4; p += 2)
			if (planes >> p & 1)
				set_cell(v, (off & ~1u) * 4 + p, value);
		return;
	}
	for (unsigned p = 0; p < 4; p++) {
		uint8_t x = plane_value(v, p, value, &mask);

		if (planes >> p & 1)
			set_cell(v, off * 4 + p, (uint8_t)((x & mask) | (v->latch[p] & ~mask)));
	}
}

static uint64_t
window_read(void *opaque, uint64_t off, unsigned size)
{
	uint64_t value = 0;

	for (unsigned i = 0; i < size; i++)
		value |= (uint64_t)window_read8(opaque, off + i) << (8 * i);
	return value;
}

static void
window_write(void *opaque, uint64_t off, uint64_t value, unsigned size)
{
	for (unsigned i = 0; i < size; i++)
		window_write8(opaque, off + i, (uint8_t)(value >> (8 * i)));
}

static const struct bus_ops window_ops = { .read = window_read, .write = window_write, .min_size = 1, .max_size = 8 };

/* ---- DISPI ---- */

static unsigned
vbe_bytes_per_line(const struct vga *v)
{
	unsigned bpp = v->vbe[VBE_BPP];

	return bpp == 4 ? v->vbe[VBE_VIRT_WIDTH] / 2 : v->vbe[VBE_VIRT_WIDTH] * ((bpp + 7u) / 8);
}

/* The virtual screen is at least as wide as the visible one and as tall as memory allows. */
static void
vbe_fix_virtual(struct vga *v)
{
	unsigned line, lines;

	if (v->vbe[VBE_VIRT_WIDTH] < v->vbe[VBE_XRES])
		v->vbe[VBE_VIRT_WIDTH] = v->vbe[VBE_XRES];
	line = vbe_bytes_per_line(v);
	lines = line ? v->vram_size / line : 0;
	v->vbe[VBE_VIRT_HEIGHT] = (uint16_t)MIN(lines, 0xffffu);
}

static void
vbe_enable(struct vga *v, uint16_t value)
{
	bool was = vbe_on(v);

	v->vbe[VBE_ENABLE] = value;
	if (v->hgsmi)
		hgsmi_vbe_changed(v->hgsmi);
	if (!(value & VBE_ENABLED)) {
		v->vbe[VBE_BANK] = 0;
		return;
	}
	if (was)
		return;
	v->vbe[VBE_VIRT_WIDTH] = v->vbe[VBE_XRES];
	v->vbe[VBE_X_OFFSET] = v->vbe[VBE_Y_OFFSET] = 0;
	vbe_fix_virtual(v);
	/* The registers a linear mode needs behind the banked window. */
	v->gfx[GFX_MISC] = (v->gfx[GFX_MISC] & ~0x0c) | 0x05;
	v->seq[SEQ_MASK] |= 15;
	if (v->vbe[VBE_BPP] != 4)
		v->seq[SEQ_MODE] |= SEQ_MODE_CHAIN4;
	if (!(value & VBE_NOCLEARMEM))
		clear(v, MIN((uint64_t)v->vbe[VBE_YRES] * vbe_bytes_per_line(v), v->vram_size));
}

static bool
vbe_id_is_known(const struct vga *v, uint16_t id)
{
	return (id >= VBE_ID_MIN && id <= VBE_ID_MAX) || (v->hgsmi && id >= VBE_ID_VBOX && id <= VBE_ID_ANYX);
}

static void
vbe_write(struct vga *v, unsigned index, uint16_t value)
{
	unsigned granularity = v->vbe[VBE_ID] == VBE_ID_ANYX ? 1 : 8;

	switch (index) {
	case VBE_ID:
		if (vbe_id_is_known(v, value))
			v->vbe[VBE_ID] = value;
		break;
	case VBE_XRES:
		if (value && value <= VBE_XRES_MAX && value % granularity == 0 && !vbe_on(v))
			v->vbe[VBE_XRES] = value;
		break;
	case VBE_YRES:
		if (value && value <= VBE_YRES_MAX && !vbe_on(v))
			v->vbe[VBE_YRES] = value;
		break;
	case VBE_BPP:
		if (value == 0)
			value = 8;
		if ((value == 4 || value == 8 || value == 15 || value == 16 || value == 24 || value == 32) &&
			!vbe_on(v))
			v->vbe[VBE_BPP] = value;
		break;
	case VBE_ENABLE:
		vbe_enable(v, value);
		break;
	case VBE_BANK:
		v->vbe[VBE_BANK] = (uint16_t)(value & ((v->vram_size >> 16) - 1));
		break;
	case VBE_VIRT_WIDTH:
		v->vbe[VBE_VIRT_WIDTH] = value;
		vbe_fix_virtual(v);
		break;
	case VBE_X_OFFSET:
	case VBE_Y_OFFSET:
		v->vbe[index] = value;
		break;
	}
}

static uint16_t
vbe_read(struct vga *v, unsigned index)
{
	if (index >= VBE_COUNT)
		return 0;
	if (index == VBE_MEMORY_64K)
		return (uint16_t)(v->vbe[VBE_ID] >= VBE_ID_VBOX ? v->monitors : v->vram_size >> 16);
	if (v->vbe[VBE_ENABLE] & VBE_GETCAPS) {
		if (index == VBE_XRES)
			return VBE_XRES_MAX;
		if (index == VBE_YRES)
			return VBE_YRES_MAX;
		if (index == VBE_BPP)
			return 32;
	}
	return v->vbe[index];
}

static uint64_t
vbe_port_read(void *opaque, uint64_t off, unsigned size)
{
	struct vga *v = opaque;

	if (off == 1 && size == 4 && v->hgsmi)
		return v->vram_size;
	return off ? vbe_read(v, v->vbe_index) : v->vbe_index;
}

static void
vbe_port_write(void *opaque, uint64_t off, uint64_t value, unsigned size)
{
	struct vga *v = opaque;

	if (!off)
		v->vbe_index = (uint16_t)value;
	else if (size < 4 || !v->hgsmi) /* double words were commands of drivers before HGSMI */
		vbe_write(v, v->vbe_index, (uint16_t)value);
}

/* Word registers at 0x1ce, 0x1cf and 0x1d0 (they overlap as bytes: every access is a whole register). */
static const struct bus_ops vbe_ops = { .read = vbe_port_read, .write = vbe_port_write, .min_size = 1, .max_size = 4 };

/* ---- VGA ports; `port` is 0x3b0 to 0x3df ---- */

static bool
port_is_absent(const struct vga *v, unsigned port)
{
	/* misc bit 0 selects 0x3dx (colour) or 0x3bx (monochrome) for the CRTC and status */
	return v->misc & 1 ? port >= 0x3b0 && port <= 0x3bf : port >= 0x3d0 && port <= 0x3df;
}

static uint8_t
dac_data_read(struct vga *v)
{
	uint8_t value = v->dac[v->dac_read * 3 + v->dac_sub];

	if (++v->dac_sub == 3) {
		v->dac_sub = 0;
		v->dac_read++;
	}
	return value;
}

static void
dac_data_write(struct vga *v, uint8_t value)
{
	v->dac_cache[v->dac_sub] = value;
	if (++v->dac_sub == 3) {
		memcpy(&v->dac[v->dac_write * 3], v->dac_cache, 3);
		v->dac_sub = 0;
		v->dac_write++;
	}
}

/* Input status 1: display enable and vertical retrace follow the virtual clock at 60 Hz, 16 % of it retrace. */
static uint8_t
status1_read(struct vga *v)
{
	uint64_t t = clock_now(&v->pci.dev.m->clock) % 16666667u;

	v->attr_flip = 0;
	if (t > 14000000u)
		return 0x09;
	return t % 31778u > 25000u ? 0x01 : 0x00;
}

static uint8_t
vga_in(struct vga *v, unsigned port)
{
	if (port_is_absent(v, port))
		return 0xff;
	switch (port) {
	case 0x3c0:
		return v->attr_index;
	case 0x3c1:
		return v->attr[v->attr_index & 31];
	case 0x3c2:
		return 0x10; /* a monitor is sensed */
	case 0x3c4:
		return v->seq_index;
	case 0x3c5:
		return v->seq[v->seq_index & 7];
	case 0x3c6:
		return v->dac_mask;
	case 0x3c7:
		return v->dac_state;
	case 0x3c8:
		return v->dac_write;
	case 0x3c9:
		return dac_data_read(v);
	case 0x3ca:
		return v->feature;
	case 0x3cc:
		return v->misc;
	case 0x3ce:
		return v->gfx_index;
	case 0x3cf:
		return v->gfx[v->gfx_index & 15];
	case 0x3b4:
	case 0x3d4:
		return v->crtc_index;
	case 0x3b5:
	case 0x3d5:
		return v->crtc[v->crtc_index & 31];
	case 0x3ba:
	case 0x3da:
		return status1_read(v);
	}
	return 0xff;
}

static void
attr_write(struct vga *v, uint8_t value)
{
	v->attr_flip ^= 1;
	if (v->attr_flip)
		v->attr_index = value & 0x3f;
	else if ((v->attr_index & 31) <= ATTR_COLOR)
		v->attr[v->attr_index & 31] = value;
}

static void
crtc_write(struct vga *v, uint8_t value)
{
	unsigned i = v->crtc_index & 31;

	if ((v->crtc[CRTC_VSYNC_END] & 0x80) && i <= CRTC_OVERFLOW) {
		/* registers 0-7 are locked, apart from the line compare bit of the overflow register */
		if (i == CRTC_OVERFLOW)
			v->crtc[i] = (uint8_t)((v->crtc[i] & ~0x10) | (value & 0x10));
		return;
	}
	v->crtc[i] = value;
}

static void
vga_out(struct vga *v, unsigned port, uint8_t value)
{
	static const uint8_t gfx_mask[GFX_COUNT] = { 15, 15, 15, 31, 3, 0x7b, 15, 15, 0xff };
	static const uint8_t seq_mask[SEQ_COUNT] = { 3, 0x3d, 15, 0x3f, 14 };

	if (port_is_absent(v, port))
		return;
	switch (port) {
	case 0x3c0:
		attr_write(v, value);
		break;
	case 0x3c2:
		v->misc = value & ~0x10;
		break;
	case 0x3c4:
		v->seq_index = value & 7;
		break;
	case 0x3c5:
		v->seq[v->seq_index & 7] = value & seq_mask[v->seq_index & 7];
		break;
	case 0x3c6:
		v->dac_mask = value;
		break;
	case 0x3c7:
		v->dac_read = value;
		v->dac_sub = 0;
		v->dac_state = 3;
		break;
	case 0x3c8:
		v->dac_write = value;
		v->dac_sub = 0;
		v->dac_state = 0;
		break;
	case 0x3c9:
		dac_data_write(v, value);
		break;
	case 0x3ce:
		v->gfx_index = value & 15;
		break;
	case 0x3cf:
		v->gfx[v->gfx_index & 15] = value & gfx_mask[v->gfx_index & 15];
		break;
	case 0x3b4:
	case 0x3d4:
		v->crtc_index = value & 31;
		break;
	case 0x3b5:
	case 0x3d5:
		crtc_write(v, value);
		break;
	case 0x3ba:
	case 0x3da:
		v->feature = value;
		break;
	}
}

static uint64_t
port_read(struct vga *v, unsigned base, uint64_t off, unsigned size)
{
	uint64_t value = 0;

	for (unsigned i = 0; i < size; i++)
		value |= (uint64_t)vga_in(v, base + (unsigned)off + i) << (8 * i);
	return value;
}

static void
port_write(struct vga *v, unsigned base, uint64_t off, uint64_t value, unsigned size)
{
	for (unsigned i = 0; i < size; i++)
		vga_out(v, base + (unsigned)off + i, (uint8_t)(value >> (8 * i)));
}

/* HGSMI's ports are VGA's as double words: no VGA driver does that. */
static bool
is_hgsmi(const struct vga *v, uint64_t off, unsigned size)
{
	return v->hgsmi && size == 4 && (off == 0 || off == 0x20);
}

static uint64_t
ports_read(void *opaque, uint64_t off, unsigned size)
{
	if (is_hgsmi(opaque, off, size))
		return UINT32_MAX; /* no command of the host's, none that ended later */
	return port_read(opaque, 0x3b0, off, size);
}

static void
ports_write(void *opaque, uint64_t off, uint64_t value, unsigned size)
{
	struct vga *v = opaque;

	if (!is_hgsmi(v, off, size))
		port_write(v, 0x3b0, off, value, size);
	else if (off)
		hgsmi_submit(v->hgsmi, (uint32_t)value);
	else
		hgsmi_acknowledge(v->hgsmi, (uint32_t)value);
}

static const struct bus_ops ports_ops = { .read = ports_read, .write = ports_write, .min_size = 1, .max_size = 4 };

/* BAR 2: VGA ports at +0x400, DISPI words at +0x500. */
static uint64_t
bar_read(void *opaque, uint64_t off, unsigned size)
{
	struct vga *v = opaque;

	if (off >= 0x400 && off + size <= 0x420)
		return port_read(v, 0x3c0, off - 0x400, size);
	if (off >= 0x500 && off < 0x500 + 2 * VBE_COUNT)
		return vbe_read(v, (unsigned)(off - 0x500) / 2);
	return UINT64_MAX;
}

static void
bar_write(void *opaque, uint64_t off, uint64_t value, unsigned size)
{
	struct vga *v = opaque;

	if (off >= 0x400 && off + size <= 0x420)
		port_write(v, 0x3c0, off - 0x400, value, size);
	else if (off >= 0x500 && off < 0x500 + 2 * VBE_COUNT)
		vbe_write(v, (unsigned)(off - 0x500) / 2, (uint16_t)value);
}

static const struct bus_ops bar_ops = { .read = bar_read, .write = bar_write, .min_size = 1, .max_size = 2 };

/* ---- making a picture ---- */

static uint32_t
dac_color(const struct vga *v, unsigned index)
{
	const uint8_t *c = &v->dac[(index & v->dac_mask & 255) * 3];

	if (v->vbe[VBE_ENABLE] & VBE_8BIT_DAC)
		return (uint32_t)c[0] << 16 | (uint32_t)c[1] << 8 | c[2];
		/* 6 bits a gun; the upper bits repeat below so that 63 is full intensity */
#define GUN(x) ((uint32_t)(((x)&63) << 2 | ((x)&63) >> 4))
	return GUN(c[0]) << 16 | GUN(c[1]) << 8 | GUN(c[2]);
#undef GUN
}

/* The 16 colours of attribute-controller modes. */
static void
attr_colors(const struct vga *v, uint32_t out[16])
{
	for (unsigned i = 0; i < 16; i++) {
		unsigned c = v->attr[i] & 0x3f;

		if (v->attr[ATTR_MODE] & ATTR_MODE_P54)
			c = (c & 15) | (v->attr[ATTR_COLOR] & 3u) << 4;
		out[i] = dac_color(v, c | (v->attr[ATTR_COLOR] & 12u) << 4);
	}
}

static unsigned
scan_lines(const struct vga *v)
{
	unsigned ov = v->crtc[CRTC_OVERFLOW];

	return (v->crtc[CRTC_VDISP_END] | (ov & 2) << 7 | (ov & 0x40) << 3) + 1u;
}

static uint32_t
start_address(const struct vga *v)
{
	return (uint32_t)v->crtc[CRTC_START_HI] << 8 | v->crtc[CRTC_START_LO];
}

struct text_mode {
	unsigned columns, rows, cell_width, cell_height, pitch; /* pitch: characters a row in memory */
	uint32_t start, cursor;
};

static struct text_mode
text_mode(const struct vga *v)
{
	struct text_mode t = {
		.columns = v->crtc[CRTC_HDISP] + 1u,
		.cell_width = v->seq[SEQ_CLOCK] & SEQ_CLOCK_8DOT ? 8 : 9,
		.cell_height = (v->crtc[CRTC_MAX_SCAN] & 31) + 1u,
		.pitch = v->crtc[CRTC_OFFSET] * 2u,
		.start = start_address(v),
		.cursor = (uint32_t)v->crtc[CRTC_CURSOR_HI] << 8 | v->crtc[CRTC_CURSOR_LO],
	};

	t.rows = scan_lines(v) / t.cell_height;
	if (v->crtc[CRTC_MAX_SCAN] & 0x80)
		t.rows /= 2;
	t.rows = MAX(MIN(t.rows, 128u), 1u);
	if (!t.pitch)
		t.pitch = t.columns;
	return t;
}

/* Offset in plane 2 of the fonts that attribute bit 3 = 0 and 1 select (sequencer register 3). */
static void
font_bases(const struct vga *v, uint32_t out[2])
{
	static const uint16_t base[8] = { 0x0000, 0x4000, 0x8000, 0xc000, 0x2000, 0x6000, 0xa000, 0xe000 };
	unsigned r = v->seq[SEQ_CHARMAP];

	out[0] = base[(r & 3) | (r >> 4 & 1) << 2];
	out[1] = base[(r >> 2 & 3) | (r >> 5 & 1) << 2];
}

static bool
cursor_visible(const struct vga *v)
{
	return !(v->crtc[CRTC_CURSOR_START] & 0x20) && clock_now(&v->pci.dev.m->clock) / 266000000u % 2 == 0;
}

static void
draw_cell(struct vga *v, const struct text_mode *t, struct surface *s, unsigned col, unsigned row,
	const uint32_t color[16], const uint32_t font[2], bool cursor)
{
	uint32_t addr = (t->start + row * t->pitch + col) * 8; /* chained odd/even: planes 0 and 1 of even offsets */
	uint8_t ch = *cell(v, addr), at = *cell(v, addr + 1);
	bool blink = v->attr[ATTR_MODE] & ATTR_MODE_BLINK;
	uint32_t fg = color[at & 15], bg = color[at >> 4 & (blink ? 7 : 15)];
	bool hidden = blink && at & 0x80 && clock_now(&v->pci.dev.m->clock) / 533000000u % 2;
	uint32_t *out = s->pixels + (size_t)row * t->cell_height * s->width + (size_t)col * t->cell_width;

	for (unsigned y = 0; y < t->cell_height; y++, out += s->width) {
		unsigned bits = hidden ? 0 : *cell(v, (font[at >> 3 & 1] + ch * 32u + y) * 4 + 2);

		if (cursor && y >= (v->crtc[CRTC_CURSOR_START] & 31) && y <= (v->crtc[CRTC_CURSOR_END] & 31))
			bits = 0xff;
		for (unsigned x = 0; x < 8; x++)
			out[x] = bits << x & 0x80 ? fg : bg;
		/* The ninth column repeats the eighth for the line-drawing characters (attribute mode bit 2). */
		if (t->cell_width == 9)
			out[8] = bits & 1 && v->attr[ATTR_MODE] & 4 && ch >= 0xc0 && ch <= 0xdf ? fg : bg;
	}
}

static bool
draw_text(struct vga *v, struct surface *s)
{
	struct text_mode t = text_mode(v);
	uint32_t color[16], font[2];
	bool cursor = cursor_visible(v);

	if (!surface_resize(s, t.columns * t.cell_width, t.rows * t.cell_height))
		return false;
	attr_colors(v, color);
	font_bases(v, font);
	for (unsigned row = 0; row < t.rows; row++)
		for (unsigned col = 0; col < t.columns; col++)
			draw_cell(v, &t, s, col, row, color, font, cursor && t.start + row * t.pitch + col == t.cursor);
	return true;
}

static uint32_t
pixel_at(struct vga *v, uint32_t addr, unsigned bpp)
{
	uint32_t b0 = *cell(v, addr), b1, b2, w;

	if (bpp == 8)
		return dac_color(v, b0);
	b1 = *cell(v, addr + 1);
	w = b0 | b1 << 8;
	if (bpp == 15)
		return (w & 0x7c00) << 9 | (w & 0x3e0) << 6 | (w & 0x1f) << 3;
	if (bpp == 16)
		return (w & 0xf800) << 8 | (w & 0x7e0) << 5 | (w & 0x1f) << 3;
	b2 = *cell(v, addr + 2);
	return w | b2 << 16;
}

/* Four planes, one bit each: pixel x of the row that starts at byte `addr` of every plane. */
static unsigned
planar_index(struct vga *v, uint32_t addr, unsigned x)
{
	unsigned bit = 7 - (x & 7), index = 0;

	for (unsigned p = 0; p < 4; p++)
		index |= (*cell(v, (addr + x / 8) * 4 + p) >> bit & 1u) << p;
	return index & v->attr[ATTR_PLANES];
}

static bool
draw_vbe(struct vga *v, struct surface *s)
{
	unsigned w = v->vbe[VBE_XRES], h = v->vbe[VBE_YRES], bpp = v->vbe[VBE_BPP], line = vbe_bytes_per_line(v);
	unsigned bytes = (bpp + 7) / 8;
	uint32_t color[16];

	if (!surface_resize(s, w, h))
		return false;
	attr_colors(v, color);
	for (unsigned y = 0; y < h; y++) {
		uint32_t *out = s->pixels + (size_t)y * w, row = (v->vbe[VBE_Y_OFFSET] + y) * line;

		if (bpp == 4) {
			for (unsigned x = 0; x < w; x++)
				out[x] = color[planar_index(v, row, x + v->vbe[VBE_X_OFFSET])];
			continue;
		}
		row += v->vbe[VBE_X_OFFSET] * bytes;
		if (bpp == 32 && (row & (v->vram_size - 1)) + 4ull * w <= v->vram_size) {
			memcpy(out, cell(v, row), 4ull * w);
			continue;
		}
		for (unsigned x = 0; x < w; x++)
			out[x] = pixel_at(v, row + x * bytes, bpp);
	}
	return true;
}

/* Modes set through the VGA's own registers: 16 colours, CGA's four, 256 colours. */
static bool
draw_graphics(struct vga *v, struct surface *s)
{
	bool wide = v->gfx[GFX_MODE] & GFX_MODE_SHIFT_256, cga = v->gfx[GFX_MODE] & GFX_MODE_SHIFT_CGA;
	unsigned w = (v->crtc[CRTC_HDISP] + 1u) * (wide ? 4 : 8), h = scan_lines(v);
	unsigned repeat = (v->crtc[CRTC_MAX_SCAN] & 31) + 1u, pitch = v->crtc[CRTC_OFFSET] * 2u;
	uint32_t color[16];

	if (v->crtc[CRTC_MAX_SCAN] & 0x80)
		repeat *= 2;
	/* CGA's interleaved banks use row scan bit 0 as an address bit (CRTC mode bit 0 = 0); then a pair of scans is
	 * two rows. */
	if (!(v->crtc[CRTC_MODE] & 1) && repeat > 1)
		repeat /= 2;
	h = MAX(h / repeat, 1u);
	if (!surface_resize(s, w, h))
		return false;
	attr_colors(v, color);
	for (unsigned y = 0; y < h; y++) {
		uint32_t *out = s->pixels + (size_t)y * w, row = start_address(v);

		if (v->crtc[CRTC_MODE] & 1)
			row += y * pitch;
		else
			row += (y / 2) * pitch + ((y & 1) << 13);
		for (unsigned x = 0; x < w; x++) {
			if (wide)
				out[x] = dac_color(v, *cell(v, row * 4 + x));
			else if (cga)
				out[x] =
					color[*cell(v, ((row + x / 4) & ~1u) * 4 + ((x / 4) & 1)) >> (6 - 2 * (x & 3)) &
						3];
			else
				out[x] = color[planar_index(v, row, x)];
		}
	}
	return true;
}

static bool
blank(const struct vga *v)
{
	return !(v->attr_index & 0x20) || v->seq[SEQ_CLOCK] & SEQ_CLOCK_OFF;
}

/* What a driver has set by HGSMI. */
static bool
draw_picture(struct vga *v, const struct hgsmi_picture *p, struct surface *s)
{
	if (!surface_resize(s, p->width, p->height))
		return false;
	for (unsigned y = 0; y < p->height; y++) {
		uint32_t *out = s->pixels + (size_t)y * p->width, row = p->offset + y * p->pitch;

		if (p->bpp == 32)
			memcpy(out, v->vram->host + row, 4ull * p->width);
		for (unsigned x = 0; x < p->width && p->bpp != 32; x++)
			out[x] = pixel_at(v, row + x * ((p->bpp + 7) / 8), p->bpp);
	}
	return true;
}

static bool
draw_black(struct surface *s, unsigned width, unsigned height)
{
	if (!surface_resize(s, width, height))
		return false;
	memset(s->pixels, 0, (size_t)s->width * s->height * 4);
	return true;
}

static bool
vga_draw(void *opaque, struct surface *s)
{
	const struct screen *screen = opaque;
	struct vga *v = screen->v;
	struct hgsmi_picture p;
	enum hgsmi_kind kind = v->hgsmi ? hgsmi_screen(v->hgsmi, screen->n, &p) : HGSMI_NOTHING;

	if (kind == HGSMI_PICTURE)
		return draw_picture(v, &p, s);
	if (kind == HGSMI_BLANK)
		return draw_black(s, p.width, p.height);
	if (screen->n)
		return false;
	if (vbe_on(v))
		return draw_vbe(v, s);
	if (blank(v))
		return draw_black(s, s->width ? s->width : 720, s->height ? s->height : 400);
	return v->gfx[GFX_MISC] & GFX_MISC_GRAPHICS ? draw_graphics(v, s) : draw_text(v, s);
}

/* Code page 437, the characters that are not ASCII. */
static const char *const cp437_low[32] = {
	" ",
	"☺",
	"☻",
	"♥",
	"♦",
	"♣",
	"♠",
	"•",
	"◘",
	"○",
	"◙",
	"♂",
	"♀",
	"♪",
	"♫",
	"☼",
	"►",
	"◄",
	"↕",
	"‼",
	"¶",
	"§",
	"▬",
	"↨",
	"↑",
	"↓",
	"→",
	"←",
	"∟",
	"↔",
	"▲",
	"▼",
};
static const char *const cp437_high[129] = {
	"⌂",
	"Ç",
	"ü",
	"é",
	"â",
	"ä",
	"à",
	"å",
	"ç",
	"ê",
	"ë",
	"è",
	"ï",
	"î",
	"ì",
	"Ä",
	"Å",
	"É",
	"æ",
	"Æ",
	"ô",
	"ö",
	"ò",
	"û",
	"ù",
	"ÿ",
	"Ö",
	"Ü",
	"¢",
	"£",
	"¥",
	"₧",
	"ƒ",
	"á",
	"í",
	"ó",
	"ú",
	"ñ",
	"Ñ",
	"ª",
	"º",
	"¿",
	"⌐",
	"¬",
	"½",
	"¼",
	"¡",
	"«",
	"»",
	"░",
	"▒",
	"▓",
	"│",
	"┤",
	"╡",
	"╢",
	"╖",
	"╕",
	"╣",
	"║",
	"╗",
	"╝",
	"╜",
	"╛",
	"┐",
	"└",
	"┴",
	"┬",
	"├",
	"─",
	"┼",
	"╞",
	"╟",
	"╚",
	"╔",
	"╩",
	"╦",
	"╠",
	"═",
	"╬",
	"╧",
	"╨",
	"╤",
	"╥",
	"╙",
	"╘",
	"╒",
	"╓",
	"╫",
	"╪",
	"┘",
	"┌",
	"█",
	"▄",
	"▌",
	"▐",
	"▀",
	"α",
	"ß",
	"Γ",
	"π",
	"Σ",
	"σ",
	"µ",
	"τ",
	"Φ",
	"Θ",
	"Ω",
	"δ",
	"∞",
	"φ",
	"ε",
	"∩",
	"≡",
	"±",
	"≥",
	"≤",
	"⌠",
	"⌡",
	"÷",
	"≈",
	"°",
	"∙",
	"·",
	"√",
	"ⁿ",
	"²",
	"■",
	" ",
};

static void
add_char(struct str *b, uint8_t ch)
{
	char c = (char)ch;

	if (ch < 32)
		str_add(b, cp437_low[ch]);
	else if (ch >= 127)
		str_add(b, cp437_high[ch - 127]);
	else
		str_addn(b, &c, 1);
}

static size_t
vga_text(void *opaque, char *buf, size_t size)
{
	const struct screen *screen = opaque;
	struct vga *v = screen->v;
	struct text_mode t = text_mode(v);
	struct hgsmi_picture p;
	struct str b = { 0 };
	size_t n;

	if (screen->n || (v->hgsmi && hgsmi_screen(v->hgsmi, 0, &p) != HGSMI_NOTHING))
		return 0;
	if (vbe_on(v) || v->gfx[GFX_MISC] & GFX_MISC_GRAPHICS || blank(v) || !size)
		return 0;
	for (unsigned row = 0; row < t.rows; row++) {
		size_t start = b.len;

		for (unsigned col = 0; col < t.columns; col++)
			add_char(&b, *cell(v, (t.start + row * t.pitch + col) * 8));
		while (b.len > start && b.s[b.len - 1] == ' ')
			b.len--;
		str_add(&b, "\n");
	}
	n = MIN(b.len, size - 1);
	memcpy(buf, b.s, n);
	buf[n] = 0;
	str_free(&b);
	return n;
}

static const struct pointer_shape *
vga_pointer(void *opaque)
{
	const struct screen *screen = opaque;

	return screen->v->hgsmi ? hgsmi_pointer(screen->v->hgsmi) : NULL;
}

bool
vga_screen(struct vga *v, unsigned n, struct display_source *out)
{
	if (n >= v->monitors)
		return false;
	v->screens[n] = (struct screen){ v, n };
	*out = (struct display_source){
		.opaque = &v->screens[n], .draw = vga_draw, .text = vga_text, .pointer = vga_pointer
	};
	return true;
}

struct display_source
vga_display(struct vga *v)
{
	struct display_source src;

	vga_screen(v, 0, &src);
	return src;
}

bool
vga_hint(struct vga *v, unsigned n, const struct vga_hint *hint)
{
	struct hgsmi_hint h = { hint->width, hint->height, hint->bpp, hint->enabled, hint->placed, hint->x, hint->y };

	if (n < v->monitors && v->hgsmi)
		hgsmi_hint(v->hgsmi, n, &h);
	return n < v->monitors;
}

void
vga_map_pointer(struct vga *v, unsigned max, unsigned *x, unsigned *y)
{
	if (v->hgsmi)
		hgsmi_map_pointer(v->hgsmi, max, x, y);
}

/* ---- life ---- */

static void
vga_reset(struct device *d)
{
	struct vga *v = (struct vga *)d;

	pci_reset(&v->pci);
	memset(v->seq, 0, sizeof(v->seq));
	memset(v->gfx, 0, sizeof(v->gfx));
	memset(v->crtc, 0, sizeof(v->crtc));
	memset(v->attr, 0, sizeof(v->attr));
	memset(v->vbe, 0, sizeof(v->vbe));
	memset(v->latch, 0, sizeof(v->latch));
	memset(v->dac, 0, sizeof(v->dac));
	v->seq_index = v->gfx_index = v->crtc_index = v->attr_index = v->attr_flip = 0;
	v->dac_state = v->dac_read = v->dac_write = v->dac_sub = 0;
	v->misc = v->feature = 0;
	v->dac_mask = 0xff;
	v->vbe_index = 0;
	v->vbe[VBE_ID] = VBE_ID_MAX;
	v->vbe[VBE_XRES] = 640;
	v->vbe[VBE_YRES] = 480;
	v->vbe[VBE_BPP] = 8;
	clear(v, v->vram_size);
}

static void
vga_destroy(struct device *d)
{
	struct vga *v = (struct vga *)d;

	mem_remove(&d->m->mem, &v->window);
	io_remove(&d->m->io, v->io_vga);
	io_remove(&d->m->io, v->io_vbe);
	pci_remove(d->m, &v->pci);
	free(v);
}

static const struct dev_class vga_class = {
	.name = "vga",
	.fields = fields,
	.reset = vga_reset,
	.destroy = vga_destroy,
};

static uint64_t
power_of_two(uint64_t n)
{
	uint64_t p = 1u << 20;

	while (p < n && p < 256u << 20)
		p <<= 1;
	return p;
}

/*
 * The video BIOS says in its PCI data structure (PCI Firmware Specification 3.0, section 5.1) for which adapter it is,
 * and firmware leaves it alone where that is another one; it drives both forms.
 */
static void
adapt_rom(uint8_t *rom, size_t len, uint16_t vendor, uint16_t device)
{
	size_t at = len >= 0x1a ? le16(rom + 0x18) : len, size = len >= 3 ? rom[2] * 512u : 0;
	uint8_t sum = 0;

	if (at + 8 > len || memcmp(rom + at, "PCIR", 4) || size > len || size < 8)
		return;
	put_le16(rom + at + 4, vendor);
	put_le16(rom + at + 6, device);
	rom[size - 1] = 0;
	for (size_t i = 0; i < size; i++)
		sum = (uint8_t)(sum + rom[i]);
	rom[size - 1] = (uint8_t)-sum;
}

static bool
add_rom(struct vga *v, struct machine *m, const void *rom, size_t len)
{
	uint64_t size = 4096;
	struct ram *r;

	while (size < len)
		size <<= 1;
	r = ram_create(&m->mem, "vga-rom", size);
	if (!r)
		return false;
	memcpy(r->host, rom, len);
	adapt_rom(r->host, len, v->pci.vendor, v->pci.device);
	v->pci.bars[6] = (struct pci_bar){ .kind = PCI_BAR_ROM, .size = size, .ram = r };
	return true;
}

static void
identify(struct vga *v, bool vbox)
{
	struct pci_dev *p = &v->pci;

	p->class = 0x030000;
	p->bars[0] =
		(struct pci_bar){ .kind = PCI_BAR_MEM32, .prefetchable = true, .size = v->vram_size, .ram = v->vram };
	if (vbox) {
		p->vendor = 0x80ee;
		p->device = 0xbeef;
		p->intx_pin = 1;
		return;
	}
	p->vendor = 0x1234;
	p->device = 0x1111;
	p->subvendor = 0x1af4;
	p->subdevice = 0x1100;
	p->revision = 2;
	p->bars[2] = (struct pci_bar){ .kind = PCI_BAR_MEM32, .size = 4096, .ops = &bar_ops, .opaque = v };
}

static void
set_irq(void *opaque, int n, int level)
{
	struct vga *v = opaque;

	pci_irq(&v->pci, level);
}

static struct vga *
create(struct machine *m, int slot, const struct vga_rom *rom, uint64_t vram_bytes, unsigned monitors, bool vbox)
{
	struct vga *v = xcalloc(1, sizeof(*v));

	v->monitors = MAX(MIN(monitors, HGSMI_SCREENS_MAX), 1u);
	v->vram_size = (uint32_t)power_of_two(vram_bytes);
	v->vram = ram_create(&m->mem, "vga", v->vram_size);
	if (!v->vram)
		goto fail;
	identify(v, vbox);
	if (rom->len && !add_rom(v, m, rom->data, rom->len))
		goto fail;
	if (pci_add(m, &v->pci, &vga_class, slot, 0))
		goto fail;
	if (vbox)
		v->hgsmi = hgsmi_create(m, v->vram, v->monitors, (struct irq){ set_irq, v, 0 });
	v->window = (struct mem_region){ .name = "vga-window",
		.kind = MEM_MMIO,
		.enabled = true,
		.priority = 1,
		.base = 0xa0000,
		.size = 0x20000,
		.ops = &window_ops,
		.opaque = v };
	mem_add(&m->mem, &v->window);
	v->io_vga = io_add(&m->io, 0x3b0, 0x30, &ports_ops, v);
	v->io_vbe = io_add(&m->io, 0x1ce, vbox ? 5 : 3, &vbe_ops, v);
	vga_reset(&v->pci.dev);
	return v;
fail:
	free(v);
	return NULL;
}

struct vga *
vga_create(struct machine *m, int slot, const struct vga_rom *rom, uint64_t vram_bytes)
{
	return create(m, slot, rom, vram_bytes, 1, false);
}

struct vga *
vboxvga_create(struct machine *m, int slot, const struct vga_rom *rom, uint64_t vram_bytes, unsigned monitors)
{
	return create(m, slot, rom, vram_bytes, monitors, true);
}
