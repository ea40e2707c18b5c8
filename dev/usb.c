/* SPDX-License-Identifier: Apache-2.0 */
/* The requests that every USB device answers the same way (USB 2.0 section 9.4). */
#include <string.h>

#include "base/bytes.h"
#include "base/str.h"
#include "dev/usb.h"

enum {
	GET_STATUS = 0,
	CLEAR_FEATURE = 1,
	SET_FEATURE = 3,
	SET_ADDRESS = 5,
	GET_DESCRIPTOR = 6,
	GET_CONFIGURATION = 8,
	SET_CONFIGURATION = 9,
	GET_INTERFACE = 10,
	SET_INTERFACE = 11
};
enum { DEVICE = 1, CONFIGURATION = 2, STRING = 3 };

static int
answer(uint8_t *data, int len, const void *from, int n)
{
	n = MIN(n, len);
	memcpy(data, from, (size_t)n);
	return n;
}

/* UTF-16; index 0 is the list of languages. */
static int
string_descriptor(const struct usb_description *t, int index, uint8_t *data, int len)
{
	static const uint8_t languages[] = { 4, STRING, 0x09, 0x04 };
	uint8_t d[128] = { 2, STRING };

	if (!index)
		return answer(data, len, languages, sizeof(languages));
	if (index > t->string_count)
		return USB_STALL;
	for (const char *s = t->strings[index - 1]; *s && d[0] < sizeof(d) - 2; s++) {
		d[d[0]] = (uint8_t)*s;
		d[0] = (uint8_t)(d[0] + 2);
	}
	return answer(data, len, d, d[0]);
}

static int
descriptor(const struct usb_description *t, unsigned value, uint8_t *data, int len)
{
	switch (value >> 8) {
	case DEVICE:
		return answer(data, len, t->device, 18);
	case CONFIGURATION:
		return value & 0xff ? USB_STALL : answer(data, len, t->configuration, t->configuration_len);
	case STRING:
		return string_descriptor(t, value & 0xff, data, len);
	default:
		return USB_STALL;
	}
}

int
usb_standard(const struct usb_description *t, const uint8_t setup[8], uint8_t *data, int len, uint8_t *configured)
{
	static const uint8_t zero[2];
	unsigned value = le16(setup + 2);

	if ((setup[0] & 0x60) || (setup[1] == GET_DESCRIPTOR && (setup[0] & 0x1f)))
		return USB_NAK;
	switch (setup[1]) {
	case GET_STATUS:
		return answer(data, len, zero, 2);
	case GET_DESCRIPTOR:
		return descriptor(t, value, data, len);
	case GET_CONFIGURATION:
		return answer(data, len, configured, 1);
	case SET_CONFIGURATION:
		if (value > 1)
			return USB_STALL;
		*configured = (uint8_t)value;
		return 0;
	case GET_INTERFACE:
		return answer(data, len, zero, 1);
	case SET_INTERFACE:
		return value ? USB_STALL : 0;
	case CLEAR_FEATURE:
	case SET_FEATURE:
	case SET_ADDRESS: /* the controller's business */
		return 0;
	default:
		return USB_STALL;
	}
}
