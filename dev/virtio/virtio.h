/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the virtio devices share: split virtqueues (queue.c) and the PCI transport (pci.c). "Virtual I/O Device (VIRTIO)
 * Version 1.1", OASIS; section numbers are its. Private to dev/virtio/ and its tests.
 *
 * A device embeds `struct virtio` at its start, fills in a `struct virtio_class`, and calls virtio_add(). The transport
 * calls `kick` when the guest notified a queue; the device pops chains of buffers, uses them, and pushes them back.
 *
 * Life of a queue: set up by the driver (num, addresses, enabled), in use from DRIVER_OK on, until reset. A queue that
 * makes no sense (an address that is not memory, an index out of range, a loop) sets DEVICE_NEEDS_RESET for the whole
 * device (2.1.2), after which every queue of it is empty until the driver resets it.
 *
 * All state of `struct virtio` that is saved has fixed widths; chains are never held across a save: a device that
 * cannot finish one puts it back (virtq_unpop()) or completes it in its drain().
 */
#ifndef DEV_VIRTIO_VIRTIO_H
#define DEV_VIRTIO_VIRTIO_H

#include <linux/virtio_config.h>
#include <linux/virtio_ids.h>
#include <linux/virtio_ring.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

#include "base/log.h"
#include "base/str.h"
#include "dev/dev.h"

#define VIRTIO_QUEUES_MAX 4
#define VIRTQ_SIZE_MAX 1024
#define VIRTQ_IOV_MAX 260 /* pieces of host memory in a chain */
#define VIRTIO_CONFIG_MAX 64
#define VIRTIO_NO_VECTOR 0xffff

#define VIRTIO_BIT(n) (UINT64_C(1) << (n))

/* Saved as bytes. */
struct virtq {
	uint64_t desc, avail, used; /* guest physical */
	uint16_t num, num_max;	    /* entries; num_max 0: no such queue */
	uint16_t last_avail;	    /* next to take, as the driver counts */
	uint16_t used_idx;	    /* published in the used ring */
	uint16_t signalled;	    /* used_idx at the last interrupt */
	uint16_t vector;	    /* MSI-X, or VIRTIO_NO_VECTOR */
	uint8_t enabled;
	uint8_t signalled_valid;
	uint8_t pad[2];
};

struct virtio;

struct virtio_class {
	struct dev_class dev;
	uint16_t id;	    /* VIRTIO_ID_... (5) */
	uint16_t legacy_id; /* PCI device of the transitional form; 0: there is none */
	uint32_t pci_class;
	unsigned config_len;
	void (*config_read)(struct virtio *v, uint8_t *config);				     /* the whole of it */
	void (*config_write)(struct virtio *v, unsigned off, uint32_t value, unsigned size); /* may be NULL */
	void (*kick)(struct virtio *v, int queue);
	void (*reset)(struct virtio *v);   /* driver's reset or power-on: forget and finish everything; may be NULL */
	void (*started)(struct virtio *v); /* DRIVER_OK was set; may be NULL */
};

struct virtio {
	struct pci_dev pci;
	const struct virtio_class *class;
	uint64_t host_features;
	bool transitional;
	uint8_t cfg_cap; /* where the capability of 4.1.4.7 is */

	uint64_t features; /* negotiated */
	uint32_t host_sel, driver_sel;
	uint16_t queue_sel, config_vector;
	uint8_t status, isr, generation;
	uint8_t over_asked; /* the driver set a feature bit that is not offered */
	struct virtq vq[VIRTIO_QUEUES_MAX];
};

#define VIRTIO_FIELDS(type)                                                                                            \
	FIELD(type, v.features), FIELD(type, v.host_sel), FIELD(type, v.driver_sel), FIELD(type, v.queue_sel),         \
		FIELD(type, v.config_vector), FIELD(type, v.status), FIELD(type, v.isr), FIELD(type, v.generation),    \
		FIELD(type, v.over_asked), FIELD_ARRAY(type, v.vq)

/* ---- transport ---- */

/*
 * Give the device (zeroed, `class` passed here, host_features with the device's own bits) its place in `slot`, with as
 * many queues as `sizes` has entries and one MSI-X vector each plus one. `modern`: only the 1.x interface.
 */
int virtio_add(struct machine *m, struct virtio *v, const struct virtio_class *class, int slot, bool modern,
	const uint16_t *sizes, int queues);
void virtio_remove(struct virtio *v); /* part of destroy */
/* Power-on reset; for dev_class.reset. */
void virtio_power_on(struct device *d);
/* After load: bounds of what came from a file, interrupt level; for dev_class.loaded. */
void virtio_loaded(struct device *d);
void virtio_config_changed(struct virtio *v);
void virtio_queue_interrupt(struct virtio *v, int queue);
/* The driver broke the rules: say so once, set DEVICE_NEEDS_RESET. */
void virtio_broken(struct virtio *v, int queue, const char *what);

static inline bool
virtio_has(const struct virtio *v, unsigned feature)
{
	return v->features & VIRTIO_BIT(feature);
}

/* May queues be used? Drivers of the legacy interface begin before DRIVER_OK (3.1.2). */
static inline bool
virtio_running(const struct virtio *v)
{
	if (v->status & VIRTIO_CONFIG_S_NEEDS_RESET)
		return false;
	if (v->transitional && !virtio_has(v, VIRTIO_F_VERSION_1))
		return true;
	return (v->status & VIRTIO_CONFIG_S_DRIVER_OK) && pci_bus_master(&v->pci);
}

/* ---- queues ---- */

/* One chain of buffers: first `out` pieces the device reads, then `in` pieces it writes. */
struct virtq_chain {
	uint16_t head;
	uint16_t out, in;
	uint32_t out_len, in_len;
	struct iovec iov[VIRTQ_IOV_MAX];
	gpa_t gpa[VIRTQ_IOV_MAX];
};

/* The next chain; false: none now (then the driver will notify when there is), or the device is broken or stopped. */
bool virtq_pop(struct virtio *v, int queue, struct virtq_chain *c);
/* Give back the last `n` chains popped, unused. */
void virtq_unpop(struct virtio *v, int queue, unsigned n);
/* Is there a chain to pop? Does not ask for a notification. */
bool virtq_ready(struct virtio *v, int queue);
/*
 * Put `c`, of whose writable part `written` bytes were written, into the used ring `ahead` entries behind the published
 * ones; virtq_publish() makes `n` of them visible at once; virtq_notify() interrupts if the driver wants it.
 */
void virtq_fill(struct virtio *v, int queue, const struct virtq_chain *c, uint32_t written, unsigned ahead);
void virtq_publish(struct virtio *v, int queue, unsigned n);
void virtq_notify(struct virtio *v, int queue);
/* All of it for one chain, without the interrupt. */
void virtq_push(struct virtio *v, int queue, const struct virtq_chain *c, uint32_t written);

/* Copy out of the readable, into the writable part of a chain, from byte `off` of that part. Returns bytes copied. */
uint32_t virtq_read(const struct virtq_chain *c, uint32_t off, void *buf, uint32_t n);
uint32_t virtq_write(struct virtq_chain *c, uint32_t off, const void *buf, uint32_t n);

#endif
