/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Virtio entropy device (5.4): fills buffers from the host kernel's generator, at most RATE bytes a second of virtual
 * time, so that a guest in a loop does not spend the host's time. What is over the rate waits for a timer.
 */
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "dev/virtio/virtio.h"

#define RATE (1u << 20)
#define PERIOD_NS UINT64_C(100000000)
#define REQUEST_MAX 4096

struct virtio_rng {
	struct virtio v;
	struct vtimer refill;
	uint32_t left; /* bytes of this period */
	struct virtq_chain chain;
};

static const struct field rng_fields[] = {
	VIRTIO_FIELDS(struct virtio_rng),
	FIELD_END,
};

static void
rng_kick(struct virtio *v, int queue)
{
	struct virtio_rng *d = (struct virtio_rng *)v;
	struct virtq_chain *c = &d->chain;
	bool any = false;

	while (d->left && virtq_pop(v, queue, c)) {
		uint8_t bytes[REQUEST_MAX];
		uint32_t n = MIN(MIN(c->in_len, d->left), (uint32_t)sizeof(bytes));
		ssize_t got = n ? getrandom(bytes, n, 0) : 0;

		n = virtq_write(c, 0, bytes, got > 0 ? (uint32_t)got : 0);
		d->left -= MAX(MIN(n, d->left), 1u);
		virtq_push(v, queue, c, n);
		any = true;
	}
	if (any)
		virtq_notify(v, queue);
	if (!d->refill.armed && d->left < RATE / 10)
		vtimer_arm(&d->refill, clock_now(&v->pci.dev.m->clock) + PERIOD_NS);
}

static void
refill(void *opaque)
{
	struct virtio_rng *d = opaque;

	d->left = RATE / 10;
	rng_kick(&d->v, 0);
}

static void
rng_config_read(struct virtio *v, uint8_t *config)
{
}

static void
rng_loaded(struct device *dev)
{
	virtio_loaded(dev);
	vtimer_arm(&((struct virtio_rng *)dev)->refill, 0);
}

static void
rng_destroy(struct device *dev)
{
	struct virtio_rng *d = (struct virtio_rng *)dev;

	vtimer_cancel(&d->refill);
	virtio_remove(&d->v);
	free(d);
}

static const struct virtio_class rng_class = {
	.dev = {
		.name = "virtio-rng",
		.fields = rng_fields,
		.reset = virtio_power_on,
		.loaded = rng_loaded,
		.destroy = rng_destroy,
	},
	.id = VIRTIO_ID_RNG,
	.legacy_id = 0x1005,
	.pci_class = 0x00ff00,
	.config_read = rng_config_read,
	.kick = rng_kick,
};

struct device *
virtio_rng_create(struct machine *m, int slot, unsigned flags, struct err *e)
{
	static const uint16_t sizes[] = { 8 };
	struct virtio_rng *d = xcalloc(1, sizeof(*d));

	d->left = RATE / 10;
	vtimer_init(&d->refill, &m->clock, refill, d);
	if (virtio_add(m, &d->v, &rng_class, slot, flags & VIRTIO_MODERN, sizes, ARRAY_LEN(sizes))) {
		free(d);
		err_set(e, ERR_INVALID, "PCI slot %d for an entropy device is taken", slot);
		return NULL;
	}
	return &d->v.pci.dev;
}
