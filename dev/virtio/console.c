/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Virtio console (5.3), one port: queue 0 takes input to the driver, queue 1 output from it.
 *
 * Input waits in a small buffer until the driver gives room. Output that the other side does not take stays in its
 * queue, with the bytes already taken remembered in `sent`.
 */
#include <linux/virtio_console.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "dev/virtio/virtio.h"

enum { INPUT, OUTPUT };
#define CONFIG_LEN 12
#define COLUMNS 80
#define ROWS 25

struct virtio_console {
	struct virtio v;
	struct chardev *cd;
	uint8_t input[4096];
	uint32_t input_len;
	uint32_t sent; /* bytes of the first waiting output chain */
	struct virtq_chain chain;
};

static const struct field console_fields[] = {
	VIRTIO_FIELDS(struct virtio_console),
	FIELD_ARRAY(struct virtio_console, input),
	FIELD(struct virtio_console, input_len),
	FIELD(struct virtio_console, sent),
	FIELD_END,
};

static void
give_input(struct virtio_console *d)
{
	bool full = d->input_len == sizeof(d->input), any = false;

	while (d->input_len && d->v.pci.dev.m->clock.running && virtq_pop(&d->v, INPUT, &d->chain)) {
		uint32_t n = virtq_write(&d->chain, 0, d->input, d->input_len);

		d->input_len -= n;
		memmove(d->input, d->input + n, d->input_len);
		virtq_push(&d->v, INPUT, &d->chain, n);
		any = true;
	}
	if (any)
		virtq_notify(&d->v, INPUT);
	if (full && d->input_len < sizeof(d->input) && d->cd)
		chardev_resume(d->cd);
}

/* Write a chain from `sent` on. False: the other side takes no more for now. */
static bool
take_chain(struct virtio_console *d)
{
	uint8_t bytes[1024];
	uint32_t n;

	while ((n = virtq_read(&d->chain, d->sent, bytes, sizeof(bytes)))) {
		uint32_t taken = d->cd ? (uint32_t)chardev_write(d->cd, bytes, n) : n;

		d->sent += taken;
		if (taken < n)
			return false;
	}
	return true;
}

static void
take_output(struct virtio_console *d)
{
	bool any = false;

	while (virtq_pop(&d->v, OUTPUT, &d->chain)) {
		if (!take_chain(d)) {
			virtq_unpop(&d->v, OUTPUT, 1);
			break;
		}
		d->sent = 0;
		virtq_push(&d->v, OUTPUT, &d->chain, 0);
		any = true;
	}
	if (any)
		virtq_notify(&d->v, OUTPUT);
}

static void
console_kick(struct virtio *v, int queue)
{
	if (queue == INPUT)
		give_input((struct virtio_console *)v);
	else
		take_output((struct virtio_console *)v);
}

static size_t
user_room(void *opaque)
{
	struct virtio_console *d = opaque;

	return sizeof(d->input) - d->input_len;
}

static void
user_receive(void *opaque, const uint8_t *bytes, size_t n)
{
	struct virtio_console *d = opaque;

	n = MIN(n, sizeof(d->input) - d->input_len);
	memcpy(d->input + d->input_len, bytes, n);
	d->input_len += (uint32_t)n;
	give_input(d);
}

static void
user_writable(void *opaque)
{
	take_output(opaque);
}

static const struct chardev_user user = {
	.room = user_room,
	.receive = user_receive,
	.writable = user_writable,
};

static void
console_config_read(struct virtio *v, uint8_t *c)
{
	put_le16(c, COLUMNS);
	put_le16(c + 2, ROWS);
	put_le32(c + 4, 1); /* ports */
}

/* Emergency write (5.3.4): a character, without any queue. */
static void
console_config_write(struct virtio *v, unsigned off, uint32_t value, unsigned size)
{
	struct virtio_console *d = (struct virtio_console *)v;
	uint8_t byte = (uint8_t)value;

	if (off == 8 && d->cd)
		chardev_write(d->cd, &byte, 1);
}

static void
console_reset(struct virtio *v)
{
	((struct virtio_console *)v)->sent = 0;
}

static void
console_loaded(struct device *dev)
{
	struct virtio_console *d = (struct virtio_console *)dev;

	virtio_loaded(dev);
	d->input_len = MIN(d->input_len, (uint32_t)sizeof(d->input));
}

static void
console_destroy(struct device *dev)
{
	struct virtio_console *d = (struct virtio_console *)dev;

	if (d->cd) {
		chardev_attach(d->cd, NULL, NULL);
		chardev_close(d->cd);
	}
	virtio_remove(&d->v);
	free(d);
}

static const struct virtio_class console_class = {
	.dev = {
		.name = "virtio-console",
		.fields = console_fields,
		.reset = virtio_power_on,
		.loaded = console_loaded,
		.destroy = console_destroy,
	},
	.id = VIRTIO_ID_CONSOLE,
	.legacy_id = 0x1003,
	.pci_class = 0x078000,
	.config_len = CONFIG_LEN,
	.config_read = console_config_read,
	.config_write = console_config_write,
	.kick = console_kick,
	.reset = console_reset,
};

struct device *
virtio_console_create(struct machine *m, int slot, unsigned flags, struct chardev *cd, struct err *e)
{
	static const uint16_t sizes[] = { 128, 128 };
	struct virtio_console *d = xcalloc(1, sizeof(*d));

	d->v.host_features = VIRTIO_BIT(VIRTIO_CONSOLE_F_SIZE) | VIRTIO_BIT(VIRTIO_CONSOLE_F_EMERG_WRITE);
	d->cd = cd;
	if (virtio_add(m, &d->v, &console_class, slot, flags & VIRTIO_MODERN, sizes, ARRAY_LEN(sizes))) {
		free(d);
		err_set(e, ERR_INVALID, "PCI slot %d for a virtio console is taken", slot);
		return NULL;
	}
	if (cd)
		chardev_attach(cd, &user, d);
	return &d->v.pci.dev;
}
