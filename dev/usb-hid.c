/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A tablet (an absolute pointer) and a keyboard, as USB human interface devices ("Device Class Definition for
 * HID" 1.11, HID below; usages: "HID Usage Tables" 1.12).
 *
 * Each has one interrupt endpoint, 1 IN. A report is due (`changed`) when the state differs from what was reported
 * last; the endpoint NAKs until then. The reports:
 *
 *	tablet    buttons, x (16 bits, 0 to 32767), y, wheel
 *	keyboard  modifiers, 0, six keys: the boot keyboard's
 */
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/str.h"
#include "bus/display.h"
#include "dev/usb.h"

struct hid_state {
	uint8_t configured, idle, protocol, leds;
	uint8_t prefix;	 /* of the scan code that is coming */
	uint8_t changed; /* a report is due */
	uint8_t keys[6], modifiers, buttons;
	uint16_t x, y;
	int8_t wheel;
	uint8_t queue[128]; /* scan codes to come: the guest must see every state */
	uint8_t head, queued;
};

struct usb_hid {
	struct usb_device usb;
	struct hid_state s;
	bool keyboard;
};

static const struct field hid_fields[] = {
	FIELD(struct usb_hid, s.configured),
	FIELD(struct usb_hid, s.idle),
	FIELD(struct usb_hid, s.protocol),
	FIELD(struct usb_hid, s.leds),
	FIELD(struct usb_hid, s.prefix),
	FIELD(struct usb_hid, s.changed),
	FIELD_ARRAY(struct usb_hid, s.keys),
	FIELD(struct usb_hid, s.modifiers),
	FIELD(struct usb_hid, s.buttons),
	FIELD(struct usb_hid, s.x),
	FIELD(struct usb_hid, s.y),
	FIELD(struct usb_hid, s.wheel),
	FIELD_ARRAY(struct usb_hid, s.queue),
	FIELD(struct usb_hid, s.head),
	FIELD(struct usb_hid, s.queued),
	FIELD_END,
};

/* ---- descriptors ---- */

#define HID_REPORT 0x22
#define HID_DESCRIPTOR 0x21
#define AT_HID 18 /* of the HID descriptor in a configuration */

static const uint8_t tablet_report[] = { 0x05, 0x01, 0x09, 0x02, 0xa1, 0x01, 0x09, 0x01, 0xa1,
	0x00, /* generic desktop: mouse, pointer */
	0x05, 0x09, 0x19, 0x01, 0x29, 0x03, 0x15, 0x00, 0x25, 0x01, 0x95, 0x03, 0x75, 0x01, 0x81, 0x02, /* buttons */
	0x95, 0x01, 0x75, 0x05, 0x81, 0x01, 0x05, 0x01, 0x09, 0x30, 0x09, 0x31, 0x15, 0x00, 0x26, 0xff, 0x7f, 0x35,
	0x00, 0x46, 0xff, 0x7f, 0x75, 0x10, 0x95, 0x02, 0x81, 0x02, /* x, y: absolute */
	0x09, 0x38, 0x15, 0x81, 0x25, 0x7f, 0x35, 0x00, 0x45, 0x00, 0x75, 0x08, 0x95, 0x01, 0x81, 0x06, /* wheel */
	0xc0, 0xc0 };
static const uint8_t keyboard_report[] = { 0x05, 0x01, 0x09, 0x06, 0xa1, 0x01, 0x75, 0x01, 0x95, 0x08, 0x05, 0x07, 0x19,
	0xe0, 0x29, 0xe7, 0x15, 0x00, 0x25, 0x01, 0x81, 0x02, 0x95, 0x01, 0x75, 0x08, 0x81, 0x01, 0x95, 0x05, 0x75,
	0x01, 0x05, 0x08, 0x19, 0x01, 0x29, 0x05, 0x91, 0x02, 0x95, 0x01, 0x75, 0x03, 0x91, 0x01, 0x95, 0x06, 0x75,
	0x08, 0x15, 0x00, 0x25, 0xff, 0x05, 0x07, 0x19, 0x00, 0x29, 0xff, 0x81, 0x00, 0xc0 };
#define DEVICE_DESCRIPTOR(product)                                                                                     \
	{                                                                                                              \
		18, 1, 0x00, 0x02, 0, 0, 0, 64, 0xee, 0x80, product, 0x00, 0x00, 0x01, 1, 2, 0, 1                      \
	}
#define CONFIGURATION(subclass, protocol, report, packet, interval)                                                    \
	{                                                                                                              \
		9, 2, 34, 0, 1, 1, 0, 0xa0, 50, 9, 4, 0, 0, 1, 3, subclass, protocol, 0, 9, 0x21, 0x11, 0x01, 0, 1,    \
			0x22, sizeof(report), 0, 7, 5, 0x81, 3, packet, 0, interval                                    \
	}
static const uint8_t tablet_device[] = DEVICE_DESCRIPTOR(0x21), keyboard_device[] = DEVICE_DESCRIPTOR(0x10);
static const uint8_t tablet_configuration[] = CONFIGURATION(0, 0, tablet_report, 8, 4);
static const uint8_t keyboard_configuration[] = CONFIGURATION(1, 1, keyboard_report, 8, 8);
static const char *const tablet_strings[] = { "Lodge", "USB Tablet" };
static const char *const keyboard_strings[] = { "Lodge", "USB Keyboard" };
static const struct usb_description tablet = { tablet_device, tablet_configuration, sizeof(tablet_configuration),
	tablet_strings, 2 };
static const struct usb_description keyboard = { keyboard_device, keyboard_configuration,
	sizeof(keyboard_configuration), keyboard_strings, 2 };

/* ---- transfers ---- */

static struct usb_hid *
hid_of(struct usb_device *d)
{
	return container_of(d, struct usb_hid, usb);
}

static int
make_report(struct usb_hid *h, uint8_t *data, int len)
{
	uint8_t r[8] = { h->keyboard ? h->s.modifiers : h->s.buttons };

	if (h->keyboard) {
		memcpy(r + 2, h->s.keys, 6);
	} else {
		put_le16(r + 1, h->s.x);
		put_le16(r + 3, h->s.y);
		r[5] = (uint8_t)h->s.wheel;
		h->s.wheel = 0;
	}
	len = MIN(len, h->keyboard ? 8 : 6);
	memcpy(data, r, (size_t)len);
	return len;
}

static int
get_hid_descriptor(struct usb_hid *h, unsigned type, uint8_t *data, int len)
{
	const uint8_t *from = h->keyboard ? keyboard_report : tablet_report;
	int n = h->keyboard ? (int)sizeof(keyboard_report) : (int)sizeof(tablet_report);

	if (type == HID_DESCRIPTOR) {
		from = (h->keyboard ? keyboard_configuration : tablet_configuration) + AT_HID;
		n = 9;
	} else if (type != HID_REPORT) {
		return USB_STALL;
	}
	memcpy(data, from, (size_t)MIN(n, len));
	return MIN(n, len);
}

/* HID 7.2 */
static int
class_request(struct usb_hid *h, const uint8_t setup[8], uint8_t *data, int len)
{
	switch (setup[1]) {
	case 0x01:
		return make_report(h, data, len);
	case 0x02:
		data[0] = h->s.idle;
		return MIN(len, 1);
	case 0x03:
		data[0] = h->s.protocol;
		return MIN(len, 1);
	case 0x09:
		if (len)
			h->s.leds = data[0];
		return len;
	case 0x0a:
		h->s.idle = setup[3];
		return 0;
	case 0x0b:
		h->s.protocol = setup[2];
		return 0;
	default:
		return USB_STALL;
	}
}

static int
hid_control(struct usb_device *d, const uint8_t setup[8], uint8_t *data, int len)
{
	struct usb_hid *h = hid_of(d);
	int r = usb_standard(h->keyboard ? &keyboard : &tablet, setup, data, len, &h->s.configured);

	if (r != USB_NAK)
		return r;
	if (setup[0] == 0x81 && setup[1] == 6)
		return get_hid_descriptor(h, setup[3], data, len);
	return (setup[0] & 0x7f) == 0x21 ? class_request(h, setup, data, len) : USB_STALL;
}

static void drain_queue(struct usb_hid *h);

static int
hid_data(struct usb_device *d, int endpoint, bool in, uint8_t *data, int len)
{
	struct usb_hid *h = hid_of(d);

	if (endpoint != 1 || !in)
		return USB_STALL;
	if (!h->s.changed)
		return USB_NAK;
	h->s.changed = 0;
	len = make_report(h, data, len);
	drain_queue(h);
	return len;
}

static void
hid_reset(struct usb_device *d)
{
	struct usb_hid *h = hid_of(d);

	memset(&h->s, 0, sizeof(h->s));
	h->s.protocol = 1;
}

static void
loaded(struct device *d)
{
	struct usb_hid *h = hid_of(container_of(d, struct usb_device, dev));

	h->s.queued = MIN(h->s.queued, sizeof(h->s.queue));
}

static void
power_on(struct device *d)
{
	hid_reset(container_of(d, struct usb_device, dev));
}

static void
destroy(struct device *d)
{
	struct usb_hid *h = hid_of(container_of(d, struct usb_device, dev));

	xhci_unplug(&h->usb);
	free(h);
}

static const struct usb_class hid_class = { hid_control, hid_data, hid_reset };
static const struct dev_class tablet_class = {
	.name = "usb-tablet", .fields = hid_fields, .reset = power_on, .loaded = loaded, .destroy = destroy
};
static const struct dev_class keyboard_class = {
	.name = "usb-keyboard", .fields = hid_fields, .reset = power_on, .loaded = loaded, .destroy = destroy
};

static struct usb_hid *
create(struct machine *m, bool is_keyboard)
{
	struct usb_hid *h = xcalloc(1, sizeof(*h));

	h->usb.class = &hid_class;
	h->usb.speed = USB_FULL;
	h->keyboard = is_keyboard;
	device_add(m, &h->usb.dev, is_keyboard ? &keyboard_class : &tablet_class);
	hid_reset(&h->usb);
	return h;
}

struct usb_hid *
usb_tablet_create(struct machine *m)
{
	return create(m, false);
}

struct usb_hid *
usb_keyboard_create(struct machine *m)
{
	return create(m, true);
}

struct usb_device *
usb_hid_device(struct usb_hid *h)
{
	return &h->usb;
}

bool
usb_hid_listening(const struct usb_hid *h)
{
	return h->s.configured;
}

/* ---- people ---- */

static void
report_due(struct usb_hid *h)
{
	h->s.changed = 1;
	if (h->usb.wake)
		h->usb.wake(h->usb.opaque, 1, true);
}

void
usb_tablet_move(struct usb_hid *h, unsigned x, unsigned y, int wheel, unsigned buttons)
{
	h->s.x = (uint16_t)MIN(x, 0x7fffu);
	h->s.y = (uint16_t)MIN(y, 0x7fffu);
	h->s.wheel = (int8_t)MAX(-127, MIN(127, h->s.wheel - wheel));
	h->s.buttons = (uint8_t)((buttons & POINTER_LEFT ? 1 : 0) | (buttons & POINTER_RIGHT ? 2 : 0) |
				 (buttons & POINTER_MIDDLE ? 4 : 0));
	report_due(h);
}

/* Usages of the keys of scan code set 1; 0: none. */
static const uint8_t plain[128] = {
	0, 0x29, 0x1e, 0x1f, 0x20, 0x21, 0x22, 0x23, 0x24, 0x25, 0x26, 0x27, 0x2d, 0x2e, 0x2a, 0x2b,	/* 00 */
	0x14, 0x1a, 0x08, 0x15, 0x17, 0x1c, 0x18, 0x0c, 0x12, 0x13, 0x2f, 0x30, 0x28, 0xe0, 0x04, 0x16, /* 10 */
	0x07, 0x09, 0x0a, 0x0b, 0x0d, 0x0e, 0x0f, 0x33, 0x34, 0x35, 0xe1, 0x31, 0x1d, 0x1b, 0x06, 0x19, /* 20 */
	0x05, 0x11, 0x10, 0x36, 0x37, 0x38, 0xe5, 0x55, 0xe2, 0x2c, 0x39, 0x3a, 0x3b, 0x3c, 0x3d, 0x3e, /* 30 */
	0x3f, 0x40, 0x41, 0x42, 0x43, 0x53, 0x47, 0x5f, 0x60, 0x61, 0x56, 0x5c, 0x5d, 0x5e, 0x57, 0x59, /* 40 */
	0x5a, 0x5b, 0x62, 0x63, 0, 0, 0x64, 0x44, 0x45, 0, 0, 0, 0, 0, 0, 0,				/* 50 */
};
static const struct {
	uint8_t code, usage;
} extended[] = { { 0x1c, 0x58 }, { 0x1d, 0xe4 }, { 0x35, 0x54 }, { 0x37, 0x46 }, { 0x38, 0xe6 }, { 0x47, 0x4a },
	{ 0x48, 0x52 }, { 0x49, 0x4b }, { 0x4b, 0x50 }, { 0x4d, 0x4f }, { 0x4f, 0x4d }, { 0x50, 0x51 }, { 0x51, 0x4e },
	{ 0x52, 0x49 }, { 0x53, 0x4c }, { 0x5b, 0xe3 }, { 0x5c, 0xe7 }, { 0x5d, 0x65 } };

static uint8_t
usage_of(uint8_t code, bool e0)
{
	if (!e0)
		return plain[code & 0x7f];
	for (size_t i = 0; i < ARRAY_LEN(extended); i++)
		if (extended[i].code == (code & 0x7f))
			return extended[i].usage;
	return 0;
}

static void
press(struct usb_hid *h, uint8_t usage, bool down)
{
	uint8_t *empty = NULL;

	if (usage >= 0xe0) {
		uint8_t bit = (uint8_t)(1 << (usage - 0xe0));

		h->s.modifiers = (uint8_t)(down ? h->s.modifiers | bit : h->s.modifiers & ~bit);
		return;
	}
	for (int i = 0; i < 6; i++) {
		if (h->s.keys[i] == usage) {
			h->s.keys[i] = down ? usage : 0;
			return;
		}
		if (!h->s.keys[i] && !empty)
			empty = &h->s.keys[i];
	}
	if (down && empty)
		*empty = usage;
}

static void
take_code(struct usb_hid *h, uint8_t code)
{
	uint8_t usage;

	if (code == 0xe0 || code == 0xe1) {
		h->s.prefix = code;
		return;
	}
	usage = usage_of(code, h->s.prefix == 0xe0);
	h->s.prefix = 0;
	if (!usage)
		return;
	press(h, usage, !(code & 0x80));
	h->s.changed = 1;
}

/* Up to the next report. */
static void
drain_queue(struct usb_hid *h)
{
	while (h->s.queued && !h->s.changed) {
		uint8_t code = h->s.queue[h->s.head % sizeof(h->s.queue)];

		h->s.head = (uint8_t)((h->s.head + 1) % sizeof(h->s.queue));
		h->s.queued--;
		take_code(h, code);
	}
}

bool
usb_keyboard_type(struct usb_hid *h, const uint8_t *set1, size_t n)
{
	if (n > sizeof(h->s.queue) - h->s.queued)
		return false;
	for (size_t i = 0; i < n; i++)
		h->s.queue[(h->s.head + h->s.queued++) % sizeof(h->s.queue)] = set1[i];
	drain_queue(h);
	if (h->s.changed && h->usb.wake)
		h->usb.wake(h->usb.opaque, 1, true);
	return true;
}
