/* SPDX-License-Identifier: Apache-2.0 */
/*
 * HGSMI, the host-guest shared memory interface of VirtualBox's display adapter, as Linux's driver vboxvideo uses it
 * (the layouts are those of its headers hgsmi_defs.h, vboxvideo.h and hgsmi_ch_setup.h).
 *
 * The guest puts a command into video memory, writes its offset to port 0x3d0, and finds the answer in its place when
 * that write is over:
 *
 *	0 u32 size of the data, 4 u8 flags (0: in one piece), 5 u8 channel, 6 u16 command, 8 u32[2]; 16 data;
 *	then u32 0, u32 hash of the offset, the 16 bytes and that 0
 *
 *	channel 1  0 where the host flags are    0 u32 offset, 4 u32 length; there: u32 flags (1 commands pending, 2
 *	                                         interrupt, 0x10 vertical sync, 0x20 hot plug, 0x40 cursor), u32[3]
 *	channel 2  1 query configuration         0 u32 index, 4 u32 value (out)
 *	           3 view                        0 u32 screen, 4 u32 offset, 8 u32 size, 12 u32 largest screen; any number
 *	           4 heap for the host           taken: nothing is sent to the guest
 *	           5 flush                       taken: see below
 *	           6 screen                      0 u32 screen, 4 i32 x, 8 i32 y, 12 u32 start in its view, 16 u32 pitch,
 *	                                         20 u32 width, 24 u32 height, 28 u16 bits a pixel, 30 u16 flags
 *	           7 enable                      0 u32 flags (1 enable, 2 disable, 4 there is a screen), 4 u32 offset of
 *	                                         the ring, 8 i32 result (out), 12 u32 screen
 *	           8 pointer shape               0 i32 result (out), 4 u32 flags (1 visible, 2 alpha, 4 shape), 8 u32 x,
 *	                                         12 u32 y of the hot spot, 16 u32 width, 20 u32 height, 24 one bit a pixel
 *	                                         (1: transparent), at the next multiple of 4 BGRA
 *	           12 capabilities               0 i32 result (out), 4 u32 what the driver can
 *	           19 query mode hints           0 u16 how many, 2 u16 size of one, 4 i32 result (out), 8 hints (out):
 *	                                         u32 magic, width, height, bits a pixel, screen, x, y, enabled
 *	           20 input mapping              0 i32 x, 4 i32 y, 8 u32 width, 12 u32 height
 *	           21 pointer position           0 u32 given?, 4 u32 x, 8 u32 y (out: the host's)
 *
 * Rings (VBVA) tell a host which rectangles were drawn. Consoles here compare pictures, so the bit in a ring that asks
 * the guest to fill it is never set, and drivers save themselves the work.
 *
 * A command is copied, checked and then looked at; the guest may change its memory meanwhile. Every offset is checked
 * when it comes and again when it is used, for a saved state may say anything.
 *
 * ---- Modes ----
 * A screen is shown from here from the first command 6 until the driver switches its ring off. On the first one the
 * registers of VGA and DISPI are shown before and after that. A driver that does not say that it goes without them
 * (capability 16) has the first screen follow the DISPI registers again whenever they enable or disable a mode.
 *
 * ---- Interrupts ----
 * The flags in video memory are set and INTA# is raised until port 0x3b0 is written with ~0. The driver takes an
 * interrupt for its own only if the flags say so: until it has told their place and that it wants them none is raised.
 */
#include "dev/hgsmi.h"

#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/log.h"
#include "base/str.h"
#include "bus/display.h"

#define HEAD 16
#define TAIL 8
#define DATA_MAX 65536u
#define RING_HEAD 288
#define NOWHERE UINT32_MAX
#define HINT_SIZE 32
#define HINT_MAGIC 0x0801add9u

/* Results. */
enum { OK = 0, INVALID_PARAMETER = -2, NOT_SUPPORTED = -37 };
/* Host flags. */
enum { FLAG_IRQ = 2, FLAG_VSYNC = 0x10, FLAG_HOTPLUG = 0x20, FLAG_CURSOR = 0x40 };
/* What the driver can. */
enum { CAP_IRQ = 2, CAP_HINTS = 4, CAP_VBVA_ONLY = 16 };
/* Of a screen. */
enum { SCREEN_ACTIVE = 1, SCREEN_DISABLED = 2, SCREEN_BLANK = 4, SCREEN_BLANK2 = 8, SCREEN_FLAGS = 15 };
enum { RING_ENABLE = 1, RING_DISABLE = 2, RING_OF_SCREEN = 4, RING_ABSOLUTE = 8 };
enum { POINTER_VISIBLE = 1, POINTER_ALPHA = 2, POINTER_SHAPE = 4 };
/* Of the configuration. */
enum { CONF_MONITORS, CONF_HOST_HEAP, CONF_HINTS, CONF_CURSOR, CONF_CURSOR_CAPS, CONF_SCREEN_FLAGS, CONF_RECORD_MAX };

struct hgsmi {
	struct device dev;
	struct ram *vram;
	uint32_t monitors;
	struct irq irq;

	uint32_t flags_at; /* of the host flags; NOWHERE */
	uint32_t pending;  /* of them: not acknowledged */
	uint32_t caps;
	/* of each screen */
	uint32_t view[HGSMI_SCREENS_MAX], start[HGSMI_SCREENS_MAX], pitch[HGSMI_SCREENS_MAX], width[HGSMI_SCREENS_MAX],
		height[HGSMI_SCREENS_MAX];
	int32_t x[HGSMI_SCREENS_MAX], y[HGSMI_SCREENS_MAX];
	uint16_t bpp[HGSMI_SCREENS_MAX], flags[HGSMI_SCREENS_MAX]; /* flags 0: not shown from here */
	uint8_t hinted[HGSMI_SCREENS_MAX];
	uint32_t hints[HGSMI_SCREENS_MAX * HINT_SIZE / 4]; /* as the guest sees them */
	int32_t map_x, map_y; /* where places of the pointer are; width 0: nowhere special */
	uint32_t map_width, map_height;
	uint32_t pointer_serial;
	uint8_t pointer_visible, pointer_width, pointer_height, hot_x, hot_y;
	uint32_t pixels[HGSMI_CURSOR_MAX * HGSMI_CURSOR_MAX];

	/* not saved */
	struct pointer_shape shape;
	uint8_t data[DATA_MAX]; /* of the command that is being carried out */
};

static const struct field fields[] = {
	FIELD(struct hgsmi, flags_at),
	FIELD(struct hgsmi, pending),
	FIELD(struct hgsmi, caps),
	FIELD_ARRAY(struct hgsmi, view),
	FIELD_ARRAY(struct hgsmi, start),
	FIELD_ARRAY(struct hgsmi, pitch),
	FIELD_ARRAY(struct hgsmi, width),
	FIELD_ARRAY(struct hgsmi, height),
	FIELD_ARRAY(struct hgsmi, x),
	FIELD_ARRAY(struct hgsmi, y),
	FIELD_ARRAY(struct hgsmi, bpp),
	FIELD_ARRAY(struct hgsmi, flags),
	FIELD_ARRAY(struct hgsmi, hinted),
	FIELD_ARRAY(struct hgsmi, hints),
	FIELD(struct hgsmi, map_x),
	FIELD(struct hgsmi, map_y),
	FIELD(struct hgsmi, map_width),
	FIELD(struct hgsmi, map_height),
	FIELD(struct hgsmi, pointer_serial),
	FIELD(struct hgsmi, pointer_visible),
	FIELD(struct hgsmi, pointer_width),
	FIELD(struct hgsmi, pointer_height),
	FIELD(struct hgsmi, hot_x),
	FIELD(struct hgsmi, hot_y),
	FIELD_ARRAY(struct hgsmi, pixels),
	FIELD_END,
};

/* ---- video memory ---- */

static bool
inside(const struct hgsmi *h, uint64_t offset, uint64_t len)
{
	return len <= h->vram->size && offset <= h->vram->size - len;
}

/* The caller has checked that it lies inside. */
static void
put(struct hgsmi *h, uint32_t offset, const void *p, uint32_t len)
{
	memcpy(h->vram->host + offset, p, len);
	for (uint64_t page = offset >> PAGE_SHIFT; len && page <= (offset + (uint64_t)len - 1) >> PAGE_SHIFT; page++)
		if (h->vram->flags[page])
			mem_page_written(h->vram, page);
}

/* ---- host flags ---- */

static void
show_flags(struct hgsmi *h)
{
	uint8_t b[4];

	put_le32(b, h->pending);
	if (h->flags_at != NOWHERE && inside(h, h->flags_at, 4))
		put(h, h->flags_at, b, 4);
	irq_set(&h->irq, h->pending != 0);
}

static void
raise_flags(struct hgsmi *h, uint32_t flags)
{
	h->pending |= flags | FLAG_IRQ;
	show_flags(h);
}

void
hgsmi_acknowledge(struct hgsmi *h, uint32_t value)
{
	if (value != NOWHERE) /* the place of a command of the host's, and there is none */
		return;
	h->pending = 0;
	show_flags(h);
}

/* ---- screens ---- */

/* Does the picture lie in video memory? Fills in `out`. */
static bool
picture(const struct hgsmi *h, unsigned n, struct hgsmi_picture *out)
{
	uint64_t offset = (uint64_t)h->view[n] + h->start[n], row = (uint64_t)h->width[n] * ((h->bpp[n] + 7u) / 8);

	*out = (struct hgsmi_picture){ (uint32_t)offset, h->pitch[n], h->width[n], h->height[n], h->bpp[n] };
	return h->width[n] && h->height[n] && h->width[n] <= SURFACE_MAX && h->height[n] <= SURFACE_MAX &&
	       (h->bpp[n] == 8 || h->bpp[n] == 16 || h->bpp[n] == 24 || h->bpp[n] == 32) && h->pitch[n] >= row &&
	       inside(h, offset, (uint64_t)h->pitch[n] * (h->height[n] - 1) + row);
}

enum hgsmi_kind
hgsmi_screen(const struct hgsmi *h, unsigned n, struct hgsmi_picture *out)
{
	uint16_t flags = n < h->monitors ? h->flags[n] : 0;

	if (!(flags & SCREEN_ACTIVE) || (n && flags & SCREEN_DISABLED))
		return HGSMI_NOTHING;
	if (picture(h, n, out) && !(flags & (SCREEN_DISABLED | SCREEN_BLANK | SCREEN_BLANK2)))
		return HGSMI_PICTURE;
	if (!out->width || !out->height || out->width > SURFACE_MAX || out->height > SURFACE_MAX) {
		out->width = 640;
		out->height = 480;
	}
	return HGSMI_BLANK;
}

void
hgsmi_vbe_changed(struct hgsmi *h)
{
	if (!(h->caps & CAP_VBVA_ONLY))
		h->flags[0] = 0;
}

/* ---- hints ---- */

void
hgsmi_hint(struct hgsmi *h, unsigned n, const struct hgsmi_hint *hint)
{
	uint8_t *p;

	if (n >= h->monitors)
		return;
	p = (uint8_t *)&h->hints[n * HINT_SIZE / 4];
	h->hinted[n] = (hint->width && hint->height) || !hint->enabled;
	put_le32(p, HINT_MAGIC);
	put_le32(p + 4, hint->width);
	put_le32(p + 8, hint->height);
	put_le32(p + 12, hint->bpp ? hint->bpp : 32);
	put_le32(p + 16, n);
	put_le32(p + 20, hint->placed ? hint->x : NOWHERE);
	put_le32(p + 24, hint->placed ? hint->y : NOWHERE);
	put_le32(p + 28, hint->enabled);
	if (h->flags_at != NOWHERE && (h->caps & (CAP_IRQ | CAP_HINTS)) == (CAP_IRQ | CAP_HINTS))
		raise_flags(h, FLAG_HOTPLUG);
}

/* ---- the pointer ---- */

void
hgsmi_map_pointer(const struct hgsmi *h, unsigned max, unsigned *x, unsigned *y)
{
	int64_t px, py;

	if (!h->map_width || !h->map_height || !h->width[0] || !h->height[0] || !(h->flags[0] & SCREEN_ACTIVE))
		return;
	px = (int64_t)*x * h->width[0] / max + h->x[0] - h->map_x;
	py = (int64_t)*y * h->height[0] / max + h->y[0] - h->map_y;
	*x = (unsigned)(MAX(MIN(px, (int64_t)h->map_width), 0) * max / h->map_width);
	*y = (unsigned)(MAX(MIN(py, (int64_t)h->map_height), 0) * max / h->map_height);
}

const struct pointer_shape *
hgsmi_pointer(struct hgsmi *h)
{
	h->shape.serial = h->pointer_serial;
	h->shape.visible = h->pointer_visible && h->pointer_width && h->pointer_height &&
			   h->pointer_width <= HGSMI_CURSOR_MAX && h->pointer_height <= HGSMI_CURSOR_MAX;
	h->shape.width = h->pointer_width;
	h->shape.height = h->pointer_height;
	h->shape.hot_x = MIN(h->hot_x, h->pointer_width - 1);
	h->shape.hot_y = MIN(h->hot_y, h->pointer_height - 1);
	h->shape.pixels = h->pixels;
	return &h->shape;
}

/* Without alpha a bit says which pixels are transparent; those that would invert what is below become opaque. */
static void
take_pixels(struct hgsmi *h, const uint8_t *p, const uint8_t *color, bool alpha)
{
	uint32_t line = (h->pointer_width + 7u) / 8;

	for (uint32_t y = 0; y < h->pointer_height; y++)
		for (uint32_t x = 0; x < h->pointer_width; x++) {
			uint32_t i = y * h->pointer_width + x, c = le32(color + 4 * i);
			bool hole = p[y * line + x / 8] << (x & 7) & 0x80 && !(c & 0xffffff);

			h->pixels[i] = alpha ? c : hole ? 0 : c | 0xff000000u;
		}
}

static int
take_shape(struct hgsmi *h, const uint8_t *d, uint32_t len)
{
	uint32_t w = le32(d + 16), y = le32(d + 20), mask;

	if (!w || !y || w > HGSMI_CURSOR_MAX || y > HGSMI_CURSOR_MAX)
		return NOT_SUPPORTED;
	mask = ((w + 7) / 8 * y + 3) & ~3u;
	if (mask + w * y * 4 > len - 24)
		return INVALID_PARAMETER;
	h->pointer_width = (uint8_t)w;
	h->pointer_height = (uint8_t)y;
	h->hot_x = (uint8_t)MIN(le32(d + 8), w - 1);
	h->hot_y = (uint8_t)MIN(le32(d + 12), y - 1);
	take_pixels(h, d + 24, d + 24 + mask, le32(d + 4) & POINTER_ALPHA);
	return OK;
}

/* ---- commands: each may change its copy, and returns how much of it goes back ---- */

static uint32_t
flags_location(struct hgsmi *h, uint8_t *d, uint32_t len)
{
	uint32_t at = le32(d);

	if (le32(d + 4) < 16 || !inside(h, at, 16)) {
		log_guest(h->dev.m->name, "hgsmi: host flags at %#x do not lie in video memory", at);
		return 0;
	}
	h->flags_at = at;
	show_flags(h);
	return 0;
}

static uint32_t
query_conf(struct hgsmi *h, uint8_t *d, uint32_t len)
{
	static const uint32_t values[] = {
		[CONF_HINTS] = OK,
		[CONF_CURSOR] = OK,
		[CONF_CURSOR_CAPS] = 2, /* a pointer in hardware */
		[CONF_SCREEN_FLAGS] = SCREEN_FLAGS,
		[CONF_RECORD_MAX] = 128u << 20,
	};
	uint32_t index = le32(d);

	if (index >= ARRAY_LEN(values))
		return 0; /* its value stays what it was: drivers look at that */
	put_le32(d + 4, index == CONF_MONITORS ? h->monitors : values[index]);
	return 8;
}

static uint32_t
view(struct hgsmi *h, uint8_t *d, uint32_t len)
{
	for (; len >= 16; d += 16, len -= 16) {
		uint32_t n = le32(d), at = le32(d + 4);

		if (n < h->monitors && inside(h, at, le32(d + 8)))
			h->view[n] = at;
		else
			log_guest(h->dev.m->name, "hgsmi: there is no view of screen %u at %#x", n, at);
	}
	return 0;
}

static uint32_t
taken(struct hgsmi *h, uint8_t *d, uint32_t len)
{
	return 0;
}

static uint32_t
screen(struct hgsmi *h, uint8_t *d, uint32_t len)
{
	uint32_t n = le32(d);
	struct hgsmi_picture p;

	if (n >= h->monitors) {
		log_guest(h->dev.m->name, "hgsmi: there is no screen %u", n);
		return 0;
	}
	h->x[n] = (int32_t)le32(d + 4);
	h->y[n] = (int32_t)le32(d + 8);
	h->start[n] = le32(d + 12);
	h->pitch[n] = le32(d + 16);
	h->width[n] = le32(d + 20);
	h->height[n] = le32(d + 24);
	h->bpp[n] = le16(d + 28);
	h->flags[n] = le16(d + 30) & SCREEN_FLAGS;
	h->map_width = h->map_height = 0;
	if (h->flags[n] == SCREEN_ACTIVE && !picture(h, n, &p))
		log_guest(
			h->dev.m->name, "hgsmi: screen %u of %ux%u does not lie in video memory", n, p.width, p.height);
	return 0;
}

static uint32_t
enable(struct hgsmi *h, uint8_t *d, uint32_t len)
{
	uint32_t flags = le32(d), n = flags & RING_OF_SCREEN && len >= 16 ? le32(d + 12) : 0;
	uint64_t at = le32(d + 4);
	int result = OK;

	if (n >= h->monitors)
		result = INVALID_PARAMETER;
	else if (flags & RING_DISABLE)
		h->flags[n] = 0;
	else if (!inside(h, at + (flags & RING_ABSOLUTE ? 0 : h->view[n]), RING_HEAD))
		result = INVALID_PARAMETER;
	put_le32(d + 8, (uint32_t)result);
	return 12;
}

static uint32_t
shape(struct hgsmi *h, uint8_t *d, uint32_t len)
{
	uint32_t flags = le32(d + 4);
	int result = flags & POINTER_SHAPE ? take_shape(h, d, len) : OK;

	if (!result) {
		h->pointer_visible = (flags & (POINTER_VISIBLE | POINTER_SHAPE)) != 0;
		h->pointer_serial++;
	}
	put_le32(d, (uint32_t)result);
	return 4;
}

static uint32_t
capabilities(struct hgsmi *h, uint8_t *d, uint32_t len)
{
	h->caps = le32(d + 4);
	put_le32(d, OK);
	return 4;
}

static uint32_t
query_hints(struct hgsmi *h, uint8_t *d, uint32_t len)
{
	uint32_t count = le16(d), size = le16(d + 2);

	if (count * size > len - 8) {
		put_le32(d + 4, (uint32_t)INVALID_PARAMETER);
		return 8;
	}
	memset(d + 8, 0xff, count * size);
	for (uint32_t n = 0; n < MIN(count, h->monitors); n++)
		if (h->hinted[n])
			memcpy(d + 8 + n * size, &h->hints[n * HINT_SIZE / 4], MIN(size, HINT_SIZE));
	put_le32(d + 4, OK);
	return 8 + count * size;
}

static uint32_t
input_mapping(struct hgsmi *h, uint8_t *d, uint32_t len)
{
	h->map_x = (int32_t)le32(d);
	h->map_y = (int32_t)le32(d + 4);
	h->map_width = le32(d + 8);
	h->map_height = le32(d + 12);
	return 0;
}

static const struct {
	uint8_t channel;
	uint16_t command;
	uint32_t size; /* the least it has */
	uint32_t (*serve)(struct hgsmi *h, uint8_t *data, uint32_t len);
} commands[] = {
	{ 1, 0, 8, flags_location }, { 2, 1, 8, query_conf }, { 2, 3, 16, view }, { 2, 4, 8, taken },
	{ 2, 5, 4, taken }, { 2, 6, 32, screen }, { 2, 7, 12, enable }, { 2, 8, 24, shape }, { 2, 12, 8, capabilities },
	{ 2, 19, 8, query_hints }, { 2, 20, 16, input_mapping },
	{ 2, 21, 12, taken }, /* the pointer is where the guest says */
};

/* Bob Jenkins's one-at-a-time hash, https://www.burtleburtle.net/bob/hash/doobs.html */
static uint32_t
hash_more(uint32_t hash, const uint8_t *p, unsigned n)
{
	while (n--) {
		hash += *p++;
		hash += hash << 10;
		hash ^= hash >> 6;
	}
	return hash;
}

static uint32_t
hash_of(uint32_t offset, const uint8_t head[HEAD], const uint8_t tail[TAIL])
{
	uint8_t at[4];
	uint32_t hash;

	put_le32(at, offset);
	hash = hash_more(hash_more(hash_more(0, at, 4), head, HEAD), tail, 4);
	hash += hash << 3;
	hash ^= hash >> 11;
	return hash + (hash << 15);
}

/* The command at `offset`, its data copied; false: there is none. */
static bool
fetch(struct hgsmi *h, uint32_t offset, uint8_t head[HEAD], uint32_t *len)
{
	uint8_t tail[TAIL];

	if (!inside(h, offset, HEAD + TAIL))
		return false;
	memcpy(head, h->vram->host + offset, HEAD);
	*len = le32(head);
	if (*len > DATA_MAX || !inside(h, offset, (uint64_t)HEAD + *len + TAIL) || head[4] & 3)
		return false;
	memcpy(h->data, h->vram->host + offset + HEAD, *len);
	memcpy(tail, h->vram->host + offset + HEAD + *len, TAIL);
	return le32(tail + 4) == hash_of(offset, head, tail);
}

void
hgsmi_submit(struct hgsmi *h, uint32_t offset)
{
	uint8_t head[HEAD];
	uint32_t len, back;

	if (!fetch(h, offset, head, &len)) {
		log_guest(h->dev.m->name, "hgsmi: there is no command at %#x", offset);
		return;
	}
	for (size_t i = 0; i < ARRAY_LEN(commands); i++) {
		if (commands[i].channel != head[5] || commands[i].command != le16(head + 6) || len < commands[i].size)
			continue;
		back = commands[i].serve(h, h->data, len);
		put(h, offset + HEAD, h->data, back);
		return;
	}
	log_guest(h->dev.m->name, "hgsmi: there is no command %u with %u bytes on channel %u", le16(head + 6), len,
		head[5]);
}

/* ---- life ---- */

static void
hgsmi_reset(struct device *dev)
{
	struct hgsmi *h = (struct hgsmi *)dev;

	h->flags_at = NOWHERE;
	h->pending = h->caps = 0;
	memset(h->view, 0, sizeof(h->view));
	memset(h->start, 0, sizeof(h->start));
	memset(h->pitch, 0, sizeof(h->pitch));
	memset(h->width, 0, sizeof(h->width));
	memset(h->height, 0, sizeof(h->height));
	memset(h->x, 0, sizeof(h->x));
	memset(h->y, 0, sizeof(h->y));
	memset(h->bpp, 0, sizeof(h->bpp));
	memset(h->flags, 0, sizeof(h->flags));
	memset(h->hinted, 0, sizeof(h->hinted));
	memset(h->hints, 0, sizeof(h->hints));
	h->map_x = h->map_y = 0;
	h->map_width = h->map_height = 0;
	h->pointer_visible = h->pointer_width = h->pointer_height = h->hot_x = h->hot_y = 0;
	h->pointer_serial++;
	irq_set(&h->irq, 0);
}

static void
hgsmi_loaded(struct device *dev)
{
	struct hgsmi *h = (struct hgsmi *)dev;

	irq_set(&h->irq, h->pending != 0);
}

static const struct dev_class hgsmi_class = {
	.name = "hgsmi",
	.fields = fields,
	.reset = hgsmi_reset,
	.loaded = hgsmi_loaded,
};

struct hgsmi *
hgsmi_create(struct machine *m, struct ram *vram, unsigned monitors, struct irq irq)
{
	struct hgsmi *h = xcalloc(1, sizeof(*h));

	h->vram = vram;
	h->monitors = MAX(MIN(monitors, HGSMI_SCREENS_MAX), 1u);
	h->irq = irq;
	device_add(m, &h->dev, &hgsmi_class);
	hgsmi_reset(&h->dev);
	return h;
}
