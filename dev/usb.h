/* SPDX-License-Identifier: Apache-2.0 */
/*
 * USB devices, and where they meet a host controller. Private to dev/ but for their constructors in dev.h.
 *
 * A device answers whole transfers: the controller has gathered the bytes of one (OUT) or has room for one (IN), and
 * calls control() or data() once; data that was not there yet (USB_NAK) is asked for again after wake(). A device never
 * touches guest memory. Machine lock held throughout.
 */
#ifndef DEV_USB_H
#define DEV_USB_H

#include <stdbool.h>
#include <stdint.h>

#include "bus/machine.h"
#include "dev/dev.h"

enum usb_speed { USB_FULL = 1, USB_LOW = 2, USB_HIGH = 3, USB_SUPER = 4 }; /* numbers of PORTSC's port speed */
/* What a transfer comes to besides a number of bytes. */
enum { USB_NAK = -1, USB_STALL = -2 };

#define USB_CONTROL_MAX 512 /* bytes of a control transfer's data */

/* First in its object; device_add() registers it, with a dev_class that saves, resets and destroys it. */
struct usb_device {
	struct device dev;
	const struct usb_class *class;
	enum usb_speed speed;
	struct xhci *host; /* the controller it is plugged in, and: */
	/* Set by the controller: this endpoint (number, direction) may have something to say now. */
	void (*wake)(void *opaque, int endpoint, bool in);
	void *opaque;
};

/* Into `port` (0-based), or the last free one (-1). -1 and *e: it is taken, or there is none. */
int xhci_plug(struct xhci *x, struct usb_device *d, int port, struct err *e);
/* It is about to go: a part of its destroy, which comes before the controller's. */
void xhci_unplug(struct usb_device *d);

struct usb_class {
	/* Bytes moved or USB_STALL. `setup`: the 8 bytes of the request; data: wLength bytes at most. */
	int (*control)(struct usb_device *d, const uint8_t setup[8], uint8_t *data, int len);
	/* Bytes moved (IN: at most len), USB_NAK or USB_STALL. */
	int (*data)(struct usb_device *d, int endpoint, bool in, uint8_t *data, int len);
	void (*reset)(struct usb_device *d); /* of the bus */
};

/* What all devices answer the same way: descriptors and configurations (USB 2.0 9.4). */
struct usb_description {
	const uint8_t *device, *configuration;
	int configuration_len;
	const char *const *strings; /* from index 1 */
	int string_count;
};
/* USB_NAK: not one of these, the class decides. *configured is kept. */
int usb_standard(const struct usb_description *t, const uint8_t setup[8], uint8_t *data, int len, uint8_t *configured);

/* A mouse that says where it is, and a keyboard; the reports of a boot keyboard (HID 1.11 appendix B). */
struct usb_device *usb_hid_device(struct usb_hid *h);
struct usb_hid *usb_tablet_create(struct machine *m);
struct usb_hid *usb_keyboard_create(struct machine *m);
/* A disk: Bulk-Only Transport 1.0 over a SCSI unit of scsi.c. */
struct usb_storage;
struct usb_storage *usb_storage_create(struct machine *m, const struct drive_config *cfg, int id);
struct usb_device *usb_storage_device(struct usb_storage *s);

#endif
