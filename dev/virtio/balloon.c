/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Virtio memory balloon (5.5): the guest gives pages up (inflate) until it has `num_pages` of them in the balloon, and
 * takes them back (deflate). The host's memory behind a page given up is freed at once; a page taken back reads as
 * zeroes until the guest writes to it.
 *
 * The statistics queue works backwards: the driver leaves one buffer with us, filled with { u16 tag, u64 value } pairs;
 * giving it back asks for fresh ones. Here it stays in the queue (virtq_unpop()) until somebody wants statistics.
 */
#include <linux/virtio_balloon.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "dev/virtio/virtio.h"

enum { INFLATE, DEFLATE, STATS };
#define CONFIG_LEN 8
#define STAT_LEN 10
#define PFNS_A_PIECE 256

struct virtio_balloon {
	struct virtio v;
	uint32_t target, actual; /* pages of 4 KiB */
	uint8_t stats_waiting;	 /* the driver's buffer is at the head of the queue, read */
	uint64_t stats[VIRTIO_BALLOON_S_NR];
	uint64_t stats_at; /* virtual time; 0: never */
	struct virtq_chain chain;
};

static const struct field balloon_fields[] = {
	VIRTIO_FIELDS(struct virtio_balloon),
	FIELD(struct virtio_balloon, target),
	FIELD(struct virtio_balloon, actual),
	FIELD(struct virtio_balloon, stats_waiting),
	FIELD_ARRAY(struct virtio_balloon, stats),
	FIELD(struct virtio_balloon, stats_at),
	FIELD_END,
};

/* Free the host's memory behind `pages` guest pages from `pfn` on. */
static void
release(struct virtio_balloon *d, uint64_t pfn, uint64_t pages)
{
	struct mem *mem = &d->v.pci.dev.m->mem;
	gpa_t gpa = pfn << VIRTIO_BALLOON_PFN_SHIFT;
	uint64_t len = pages << VIRTIO_BALLOON_PFN_SHIFT;
	void *host = mem_map(mem, gpa, len, true);

	if (!host) {
		if (pages > 1) /* not one stretch of memory: page by page */
			for (uint64_t i = 0; i < pages; i++)
				release(d, pfn + i, 1);
		return;
	}
	mem_discard(mem, host, len);
	mem_written(mem, gpa, len);
}

/* Page numbers of a chain, runs of neighbours taken together. */
static void
inflate(struct virtio_balloon *d, const struct virtq_chain *c)
{
	uint8_t pfns[4 * PFNS_A_PIECE];
	uint64_t first = 0, pages = 0;
	uint32_t off = 0, n;

	while ((n = virtq_read(c, off, pfns, sizeof(pfns)) & ~3u)) {
		for (uint32_t i = 0; i < n; i += 4) {
			uint64_t pfn = le32(pfns + i);

			if (pages && pfn == first + pages) {
				pages++;
				continue;
			}
			if (pages)
				release(d, first, pages);
			first = pfn;
			pages = 1;
		}
		off += n;
	}
	if (pages)
		release(d, first, pages);
}

/* { u16 tag, u64 value } pairs */
static void
read_stats(struct virtio_balloon *d, const struct virtq_chain *c)
{
	uint8_t stat[STAT_LEN];

	memset(d->stats, 0xff, sizeof(d->stats));
	for (uint32_t off = 0; off < 64 * STAT_LEN && virtq_read(c, off, stat, sizeof(stat)) == sizeof(stat);
		off += STAT_LEN)
		if (le16(stat) < VIRTIO_BALLOON_S_NR)
			d->stats[le16(stat)] = le64(stat + 2);
	d->stats_at = MAX(clock_now(&d->v.pci.dev.m->clock), UINT64_C(1));
}

static void
balloon_kick(struct virtio *v, int queue)
{
	struct virtio_balloon *d = (struct virtio_balloon *)v;
	struct virtq_chain *c = &d->chain;
	bool any = false;

	if (queue == STATS) {
		if (!d->stats_waiting && virtq_pop(v, queue, c)) {
			read_stats(d, c);
			virtq_unpop(v, queue, 1);
			d->stats_waiting = 1;
		}
		return;
	}
	while (virtq_pop(v, queue, c)) {
		if (queue == INFLATE)
			inflate(d, c);
		virtq_push(v, queue, c, 0);
		any = true;
	}
	if (any)
		virtq_notify(v, queue);
}

void
virtio_balloon_set(struct virtio_balloon *d, uint64_t bytes)
{
	d->target = (uint32_t)MIN(bytes >> VIRTIO_BALLOON_PFN_SHIFT, UINT32_MAX);
	virtio_config_changed(&d->v);
}

uint64_t
virtio_balloon_actual(struct virtio_balloon *d)
{
	return (uint64_t)d->actual << VIRTIO_BALLOON_PFN_SHIFT;
}

bool
virtio_balloon_stats(struct virtio_balloon *d, struct balloon_stats *out)
{
	*out = (struct balloon_stats){
		.at = d->stats_at,
		.free = d->stats[VIRTIO_BALLOON_S_MEMFREE],
		.total = d->stats[VIRTIO_BALLOON_S_MEMTOT],
		.available = d->stats[VIRTIO_BALLOON_S_AVAIL],
		.caches = d->stats[VIRTIO_BALLOON_S_CACHES],
		.swapped_in = d->stats[VIRTIO_BALLOON_S_SWAP_IN],
		.swapped_out = d->stats[VIRTIO_BALLOON_S_SWAP_OUT],
		.major_faults = d->stats[VIRTIO_BALLOON_S_MAJFLT],
		.minor_faults = d->stats[VIRTIO_BALLOON_S_MINFLT],
	};
	if (d->stats_waiting && virtq_pop(&d->v, STATS, &d->chain)) {
		d->stats_waiting = 0;
		virtq_push(&d->v, STATS, &d->chain, 0);
		virtq_notify(&d->v, STATS);
	}
	return d->stats_at != 0;
}

static void
balloon_config_read(struct virtio *v, uint8_t *c)
{
	struct virtio_balloon *d = (struct virtio_balloon *)v;

	put_le32(c, d->target);
	put_le32(c + 4, d->actual);
}

static void
balloon_config_write(struct virtio *v, unsigned off, uint32_t value, unsigned size)
{
	struct virtio_balloon *d = (struct virtio_balloon *)v;
	uint8_t actual[4];

	if (off < 4)
		return;
	put_le32(actual, d->actual);
	for (unsigned i = 0; i < size; i++)
		actual[off - 4 + i] = (uint8_t)(value >> (8 * i));
	d->actual = le32(actual);
}

static void
balloon_reset(struct virtio *v)
{
	struct virtio_balloon *d = (struct virtio_balloon *)v;

	d->actual = 0;
	d->stats_waiting = 0;
	d->stats_at = 0;
	memset(d->stats, 0xff, sizeof(d->stats));
}

static void
balloon_destroy(struct device *dev)
{
	virtio_remove((struct virtio *)dev);
	free(dev);
}

static const struct virtio_class balloon_class = {
	.dev = {
		.name = "virtio-balloon",
		.fields = balloon_fields,
		.reset = virtio_power_on,
		.loaded = virtio_loaded,
		.destroy = balloon_destroy,
	},
	.id = VIRTIO_ID_BALLOON,
	.legacy_id = 0x1002,
	.pci_class = 0x00ff00,
	.config_len = CONFIG_LEN,
	.config_read = balloon_config_read,
	.config_write = balloon_config_write,
	.kick = balloon_kick,
	.reset = balloon_reset,
};

struct virtio_balloon *
virtio_balloon_create(struct machine *m, int slot, unsigned flags, struct err *e)
{
	static const uint16_t sizes[] = { 128, 128, 128 };
	struct virtio_balloon *d = xcalloc(1, sizeof(*d));

	d->v.host_features = VIRTIO_BIT(VIRTIO_BALLOON_F_STATS_VQ) | VIRTIO_BIT(VIRTIO_BALLOON_F_DEFLATE_ON_OOM);
	if (virtio_add(m, &d->v, &balloon_class, slot, flags & VIRTIO_MODERN, sizes, ARRAY_LEN(sizes))) {
		free(d);
		err_set(e, ERR_INVALID, "PCI slot %d for a memory balloon is taken", slot);
		return NULL;
	}
	return d;
}
