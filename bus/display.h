/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Pictures out, keys in: where a display adapter, a keyboard controller and the consoles (PNG, RFB) meet without
 * knowing each other. Machine lock held.
 */
#ifndef BUS_DISPLAY_H
#define BUS_DISPLAY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SURFACE_MAX 8192u /* pixels in either direction */

/* A picture: XRGB8888 in host order (0x00rrggbb), rows without padding. Zero-initialise; surface_free() at the end. */
struct surface {
	unsigned width, height;
	uint32_t *pixels;
};
/* Make it width x height (contents undefined when the size changes). False: too large or no memory; unchanged then. */
bool surface_resize(struct surface *s, unsigned width, unsigned height);
void surface_free(struct surface *s);

/* A pointer that the adapter leaves to whoever shows the picture: it is nowhere in it. */
struct pointer_shape {
	uint32_t serial; /* another one: another shape */
	bool visible;	 /* if not, the rest says nothing */
	unsigned width, height, hot_x, hot_y;
	const uint32_t *pixels; /* ARGB, not premultiplied; valid until the source is asked again */
};

struct display_source {
	void *opaque;
	/* Draw what the screen shows now, resizing *s as needed. False: no picture (no memory). */
	bool (*draw)(void *opaque, struct surface *s);
	/* The text screen as lines of UTF-8 without trailing blanks, NUL-terminated; returns its length, 0 when the
	 * adapter is in a graphics mode. */
	size_t (*text)(void *opaque, char *buf, size_t size);
	/* May be NULL, and return NULL: the pointer is part of the picture. */
	const struct pointer_shape *(*pointer)(void *opaque);
};

/* Buttons of the pointer. */
enum { POINTER_LEFT = 1, POINTER_RIGHT = 2, POINTER_MIDDLE = 4 };

#define POINTER_MAX 32767u

struct input_sink {
	void *opaque;
	/* Scan codes of set 1, as a keyboard would send them. False: the queue is full, nothing was taken. */
	bool (*scancodes)(void *opaque, const uint8_t *codes, size_t n);
	/* Relative motion (right and down positive), wheel clicks (down positive), buttons held. */
	void (*pointer)(void *opaque, int dx, int dy, int dz, unsigned buttons);
	/* The pointer is at x, y of 0 to POINTER_MAX. False: the guest has nothing that hears of places; `pointer` is
	 * what there is. May be NULL. */
	bool (*place)(void *opaque, unsigned x, unsigned y, int dz, unsigned buttons);
};

#endif
