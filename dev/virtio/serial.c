/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Virtio console with VIRTIO_CONSOLE_F_MULTIPORT (5.3): one port that has a name, by which programs in the guest find
 * it (Linux: /dev/virtio-ports/NAME). The guest agent's channel.
 *
 * Queues: 0 input to the guest and 1 output of port 0; 2 control messages to the guest, 3 from it. (The port is not a
 * console: the driver makes one of it only when it is told to, which it is not.)
 *
 * What the guest is still to be told is a set of bits (`owed`), so a guest that gives no buffers for control messages
 * makes nothing grow. In this order, each as 5.3.6.2 has it:
 *
 *	the guest says		the device owes
 *	DEVICE_READY 1		PORT_ADD
 *	PORT_READY 1		PORT_NAME, and PORT_OPEN: the host's end is always there
 *	PORT_OPEN 0 or 1	nothing; who is at the host's end hears of it
 *
 * Input is copied straight into the guest's buffers: virtio_serial_write() takes what fits and calls `writable` when
 * there is room again. Output that the host's end does not take stays in its queue, with the bytes already taken
 * remembered in `sent`. How much of it is handed over at a time is bounded; the loop goes on with the rest, so that a
 * guest that writes without end leaves the machine lock to others.
 */
#include <linux/virtio_console.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/log.h"
#include "dev/virtio/virtio.h"

enum { INPUT, OUTPUT, CONTROL_IN, CONTROL_OUT };
enum { OWE_ADD = 1, OWE_NAME = 2, OWE_OPEN = 4 };
#define CONFIG_LEN 12
#define CONTROL_LEN 8	    /* struct virtio_console_control */
#define OUTPUT_BATCH 262144 /* bytes handed over before the loop does something else */
#define NAME_MAX_LEN 63

struct virtio_serial {
	struct virtio v;
	char name[NAME_MAX_LEN + 1];
	const struct virtio_port_user *user; /* NULL: nobody; output vanishes */
	void *opaque;
	struct chardev *cd; /* the user, when it is that */
	uint8_t owed, open; /* open: by the guest */
	uint8_t wants_room; /* a write was cut short */
	uint8_t posted;
	uint8_t *alive;		  /* of a posted call: it outlives the device */
	uint32_t sent;		  /* bytes of the first waiting output chain */
	struct virtq_chain chain; /* of output and control messages */
	struct virtq_chain input; /* its own: who receives output may write at once */
};

static const struct field serial_fields[] = {
	VIRTIO_FIELDS(struct virtio_serial),
	FIELD(struct virtio_serial, owed),
	FIELD(struct virtio_serial, open),
	FIELD(struct virtio_serial, sent),
	FIELD_END,
};

/* ---- control ---- */

static uint32_t
control_message(struct virtio_serial *d, uint8_t what, uint8_t out[CONTROL_LEN + NAME_MAX_LEN])
{
	uint32_t len = CONTROL_LEN;
	uint16_t event = what == OWE_ADD    ? VIRTIO_CONSOLE_PORT_ADD
			 : what == OWE_NAME ? VIRTIO_CONSOLE_PORT_NAME
					    : VIRTIO_CONSOLE_PORT_OPEN;

	put_le32(out, 0); /* port */
	put_le16(out + 4, event);
	put_le16(out + 6, 1);
	if (what == OWE_NAME) {
		memcpy(out + CONTROL_LEN, d->name, strlen(d->name));
		len += (uint32_t)strlen(d->name);
	}
	return len;
}

static void
tell_guest(struct virtio_serial *d)
{
	bool any = false;

	while (d->owed && virtq_pop(&d->v, CONTROL_IN, &d->chain)) {
		uint8_t message[CONTROL_LEN + NAME_MAX_LEN];
		uint8_t what = d->owed & (uint8_t)-d->owed;
		uint32_t n = control_message(d, what, message);

		n = virtq_write(&d->chain, 0, message, n);
		virtq_push(&d->v, CONTROL_IN, &d->chain, n);
		d->owed &= (uint8_t)~what;
		any = true;
	}
	if (any)
		virtq_notify(&d->v, CONTROL_IN);
}

static void
set_open(struct virtio_serial *d, bool open)
{
	if (open == d->open)
		return;
	d->open = open;
	d->wants_room = 0;
	if (d->user && d->user->opened)
		d->user->opened(d->opaque, open);
}

static void
hear_guest(struct virtio_serial *d)
{
	bool any = false;
	uint8_t m[CONTROL_LEN];

	while (virtq_pop(&d->v, CONTROL_OUT, &d->chain)) {
		uint32_t n = virtq_read(&d->chain, 0, m, sizeof(m));
		uint16_t event = le16(m + 4), value = le16(m + 6);

		virtq_push(&d->v, CONTROL_OUT, &d->chain, 0);
		any = true;
		if (n < sizeof(m))
			continue;
		if (event == VIRTIO_CONSOLE_DEVICE_READY && value == 1)
			d->owed |= OWE_ADD;
		else if (le32(m) != 0)
			log_guest(d->v.pci.dev.name, "a message about port %u, which does not exist", le32(m));
		else if (event == VIRTIO_CONSOLE_PORT_READY && value == 1)
			d->owed |= OWE_NAME | OWE_OPEN;
		else if (event == VIRTIO_CONSOLE_PORT_OPEN)
			set_open(d, value != 0);
	}
	if (any)
		virtq_notify(&d->v, CONTROL_OUT);
	tell_guest(d);
}

/* ---- bytes ---- */

/* Hand over a chain from `sent` on, at most *budget bytes. False: there is more of it. */
static bool
take_chain(struct virtio_serial *d, uint32_t *budget)
{
	uint8_t bytes[4096];
	uint32_t n;

	while (*budget && (n = virtq_read(&d->chain, d->sent, bytes, MIN(*budget, (uint32_t)sizeof(bytes))))) {
		size_t taken = d->user ? d->user->receive(d->opaque, bytes, n) : n;

		d->sent += (uint32_t)taken;
		*budget -= (uint32_t)taken;
		if (taken < n) {
			*budget = 0;
			d->posted = 2; /* the user says when it goes on */
			return false;
		}
	}
	return *budget != 0;
}

static void take_output(struct virtio_serial *d);

/* A device that was destroyed meanwhile has left only the byte. */
struct posted {
	struct virtio_serial *d;
	uint8_t gone;
};

static void
take_more(void *opaque)
{
	struct posted *p = opaque;

	if (!p->gone) {
		p->d->posted = 0;
		p->d->alive = NULL;
		take_output(p->d);
	}
	free(p);
}

static void
post_rest(struct virtio_serial *d)
{
	struct posted *p = xcalloc(1, sizeof(*p));

	p->d = d;
	d->posted = 1;
	d->alive = &p->gone;
	loop_post(d->v.pci.dev.m->loop, take_more, p);
}

static void
take_output(struct virtio_serial *d)
{
	uint32_t budget = OUTPUT_BATCH;
	bool any = false;

	if (d->posted)
		return;
	while (virtq_pop(&d->v, OUTPUT, &d->chain)) {
		if (!take_chain(d, &budget)) {
			virtq_unpop(&d->v, OUTPUT, 1);
			if (!d->posted)
				post_rest(d);
			break;
		}
		d->sent = 0;
		virtq_push(&d->v, OUTPUT, &d->chain, 0);
		any = true;
	}
	if (any)
		virtq_notify(&d->v, OUTPUT);
}

size_t
virtio_serial_write(struct device *dev, const void *bytes, size_t n)
{
	struct virtio_serial *d = (struct virtio_serial *)dev;
	size_t done = 0;

	while (done < n && d->open && dev->m->clock.running && virtq_pop(&d->v, INPUT, &d->input)) {
		uint32_t part =
			virtq_write(&d->input, 0, (const uint8_t *)bytes + done, (uint32_t)MIN(n - done, 65536u));

		virtq_push(&d->v, INPUT, &d->input, part);
		done += part;
		if (!part)
			break;
	}
	if (done)
		virtq_notify(&d->v, INPUT);
	d->wants_room = done < n;
	return done;
}

void
virtio_serial_resume(struct device *dev)
{
	struct virtio_serial *d = (struct virtio_serial *)dev;

	if (d->posted != 2)
		return;
	d->posted = 0;
	take_output(d);
}

bool
virtio_serial_is_open(const struct device *dev)
{
	return ((const struct virtio_serial *)dev)->open;
}

/* ---- a chardev at the host's end ---- */

static void
to_chardev_opened(void *opaque, bool open)
{
	struct virtio_serial *d = opaque;

	if (open)
		chardev_resume(d->cd);
}

static size_t
to_chardev(void *opaque, const uint8_t *bytes, size_t n)
{
	return chardev_write(((struct virtio_serial *)opaque)->cd, bytes, n);
}

static void
chardev_goes_on(void *opaque)
{
	chardev_resume(((struct virtio_serial *)opaque)->cd);
}

static const struct virtio_port_user to_chardev_user = {
	.opened = to_chardev_opened,
	.receive = to_chardev,
	.writable = chardev_goes_on,
};

static size_t
chardev_room(void *opaque)
{
	struct virtio_serial *d = opaque;

	if (d->open && virtq_ready(&d->v, INPUT))
		return 1024; /* buffers have a page in every driver there is */
	d->wants_room = 1;
	return 0;
}

static void
from_chardev(void *opaque, const uint8_t *bytes, size_t n)
{
	virtio_serial_write(opaque, bytes, n);
}

static void
chardev_writable(void *opaque)
{
	virtio_serial_resume(opaque);
}

static const struct chardev_user chardev_user = {
	.room = chardev_room,
	.receive = from_chardev,
	.writable = chardev_writable,
};

/* ---- the device ---- */

static void
serial_kick(struct virtio *v, int queue)
{
	struct virtio_serial *d = (struct virtio_serial *)v;

	if (queue == CONTROL_IN)
		tell_guest(d);
	else if (queue == CONTROL_OUT)
		hear_guest(d);
	else if (queue == OUTPUT)
		take_output(d);
	else if (d->wants_room && d->user && d->user->writable) {
		d->wants_room = 0;
		d->user->writable(d->opaque);
	}
}

static void
serial_config_read(struct virtio *v, uint8_t *c)
{
	put_le32(c + 4, 1); /* ports at most */
}

static void
serial_reset(struct virtio *v)
{
	struct virtio_serial *d = (struct virtio_serial *)v;

	d->sent = 0;
	d->owed = 0;
	if (d->posted == 2)
		d->posted = 0;
	set_open(d, false);
}

static void
serial_loaded(struct device *dev)
{
	struct virtio_serial *d = (struct virtio_serial *)dev;

	virtio_loaded(dev);
	d->owed &= OWE_ADD | OWE_NAME | OWE_OPEN;
	d->open = d->open != 0;
	d->posted = 0;
	if (d->user && d->user->opened)
		d->user->opened(d->opaque, d->open);
	post_rest(d);
}

static void
serial_destroy(struct device *dev)
{
	struct virtio_serial *d = (struct virtio_serial *)dev;

	if (d->alive)
		*d->alive = 1;
	if (d->cd) {
		chardev_attach(d->cd, NULL, NULL);
		chardev_close(d->cd);
	}
	virtio_remove(&d->v);
	free(d);
}

static const struct virtio_class serial_class = {
	.dev = {
		.name = "virtio-serial",
		.fields = serial_fields,
		.reset = virtio_power_on,
		.loaded = serial_loaded,
		.destroy = serial_destroy,
	},
	.id = VIRTIO_ID_CONSOLE,
	.legacy_id = 0x1003,
	.pci_class = 0x078000,
	.config_len = CONFIG_LEN,
	.config_read = serial_config_read,
	.kick = serial_kick,
	.reset = serial_reset,
};

struct device *
virtio_serial_create(struct machine *m, int slot, unsigned flags, const char *name, const struct virtio_port_user *u,
	void *opaque, struct chardev *cd, struct err *e)
{
	static const uint16_t sizes[] = { 128, 128, 32, 32 };
	struct virtio_serial *d = xcalloc(1, sizeof(*d));

	d->v.host_features = VIRTIO_BIT(VIRTIO_CONSOLE_F_MULTIPORT);
	strncpy(d->name, name, NAME_MAX_LEN);
	d->cd = cd;
	d->user = cd ? &to_chardev_user : u;
	d->opaque = cd ? d : opaque;
	if (virtio_add(m, &d->v, &serial_class, slot, flags & VIRTIO_MODERN, sizes, ARRAY_LEN(sizes))) {
		free(d);
		err_set(e, ERR_INVALID, "PCI slot %d for a virtio serial port is taken", slot);
		return NULL;
	}
	if (cd)
		chardev_attach(cd, &chardev_user, d);
	return &d->v.pci.dev;
}
