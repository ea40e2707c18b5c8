/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The host-guest shared memory interface (HGSMI) of VirtualBox's display adapter: what dev/vga.c has it do. Machine
 * lock held throughout.
 */
#ifndef DEV_HGSMI_H
#define DEV_HGSMI_H

#include <stdbool.h>
#include <stdint.h>

#include "bus/irq.h"
#include "bus/machine.h"

#define HGSMI_SCREENS_MAX 64
#define HGSMI_CURSOR_MAX 64 /* pixels in either direction */

struct hgsmi;
/* `vram`: what offsets of the guest are in; `irq`: raised while host flags are pending. Never fails. */
struct hgsmi *hgsmi_create(struct machine *m, struct ram *vram, unsigned monitors, struct irq irq);

/* Port 0x3d0: the guest has written a command at `offset`. Carried out when this returns. */
void hgsmi_submit(struct hgsmi *h, uint32_t offset);
/* Port 0x3b0: ~0 says that it has seen the host flags. */
void hgsmi_acknowledge(struct hgsmi *h, uint32_t value);
/* The guest enabled or disabled a mode by the DISPI registers. */
void hgsmi_vbe_changed(struct hgsmi *h);

enum hgsmi_kind { HGSMI_NOTHING, HGSMI_BLANK, HGSMI_PICTURE };
struct hgsmi_picture {
	uint32_t offset; /* in video memory; all of it lies inside */
	uint32_t pitch, width, height, bpp;
};
/* What the guest's driver shows on a screen. HGSMI_NOTHING: it has set no mode there; `out` is not filled in. */
enum hgsmi_kind hgsmi_screen(const struct hgsmi *h, unsigned screen, struct hgsmi_picture *out);

/* Somebody would like screen `screen` to be like this; sizes of 0: no wish any more. */
struct hgsmi_hint {
	uint32_t width, height, bpp;
	bool enabled, placed; /* placed: x and y count */
	uint32_t x, y;
};
void hgsmi_hint(struct hgsmi *h, unsigned screen, const struct hgsmi_hint *hint);

/* A place on screen 0, 0 to `max` in either direction, becomes one of the rectangle that the driver wants it in. */
void hgsmi_map_pointer(const struct hgsmi *h, unsigned max, unsigned *x, unsigned *y);

struct pointer_shape;
const struct pointer_shape *hgsmi_pointer(struct hgsmi *h);

#endif
