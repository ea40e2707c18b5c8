/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The 82441FX host bridge, as far as software sees it: what the last 384 KiB of the first MiB are. (Intel 440FX data
 * sheet, order 290549: PAM registers 3.2.19, SMRAM 3.2.23)
 *
 * A nibble of a PAM register says of one segment whether reads and writes go to RAM or to the PCI bus, where the
 * firmware's last 128 KiB answer at the top and nothing answers below. Seen as memory regions over the RAM beneath:
 *
 *	reads  writes
 *	PCI    PCI     the ROM, or an empty region
 *	RAM    PCI     RAM as if it were ROM
 *	PCI    RAM     handlers: reads from the ROM, writes to RAM (nothing can be executed there but slowly)
 *	RAM    RAM     no region: what is beneath shows
 *
 * Neighbours of one kind are one region, so that the flat map stays short. The registers' state alone decides
 * (sync_pam(), sync_smram()).
 */
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/str.h"
#include "dev/dev.h"

enum {
	PAM0 = 0x59,
	PAM_LAST = 0x5f,
	SMRAM = 0x72,
	SMRAM_OPEN = 1 << 6,
	SMRAM_CLOSED = 1 << 5,
	SMRAM_LOCKED = 1 << 4,

	PAM_READ = 1,
	PAM_WRITE = 2,

	SEGMENTS = 13, /* twelve of 16 KiB from 0xc0000, then 64 KiB at 0xf0000 */
};

#define HOLE 0xa0000u
#define PAM_BASE 0xc0000u
#define SEGMENT_SIZE 0x4000u
#define MIB 0x100000u

/* A run of segments of one kind, which starts at segment number i; unused when segment i belongs to an earlier run. */
struct run {
	struct i440fx *bridge;
	struct mem_region region;
};

struct i440fx {
	struct pci_dev pci;
	struct ram *ram, *bios;
	struct mem_region hole, smram;
	struct run runs[SEGMENTS];
	uint32_t bios_start; /* where the firmware shows below 1 MiB */
};

static gpa_t
segment_start(int i)
{
	return PAM_BASE + (gpa_t)i * SEGMENT_SIZE;
}

static gpa_t
segment_end(int i)
{
	return i == SEGMENTS - 1 ? MIB : segment_start(i + 1);
}

static unsigned
segment_mode(const struct i440fx *b, int i)
{
	if (i == SEGMENTS - 1)
		return b->pci.config[PAM0] >> 4 & 3;
	return b->pci.config[PAM0 + 1 + i / 2] >> (i & 1 ? 4 : 0) & 3;
}

static bool
segment_has_rom(const struct i440fx *b, int i)
{
	return segment_start(i) >= b->bios_start;
}

/* ---- handlers of what is neither RAM nor ROM ---- */

static uint64_t
empty_read(void *opaque, uint64_t off, unsigned size)
{
	return ~0ull;
}

static void
empty_write(void *opaque, uint64_t off, uint64_t value, unsigned size)
{
}

static const struct bus_ops empty_ops = { empty_read, empty_write, 1, 8 };

static uint64_t
write_only_read(void *opaque, uint64_t off, unsigned size)
{
	struct run *r = opaque;
	struct i440fx *b = r->bridge;
	gpa_t at = r->region.base + off;
	uint64_t value = ~0ull;

	if (at >= b->bios_start && at + size <= MIB)
		memcpy(&value, b->bios->host + b->bios->size - (MIB - at), size);
	return value;
}

static void
write_only_write(void *opaque, uint64_t off, uint64_t value, unsigned size)
{
	struct run *r = opaque;
	struct ram *ram = r->bridge->ram;
	gpa_t at = r->region.base + off;

	if (at + size > MIB)
		return;
	memcpy(ram->host + at, &value, size);
	/* Across a page the access was split by the caller's page walk; within the region two pages can still meet. */
	for (uint64_t page = at >> PAGE_SHIFT; page <= (at + size - 1) >> PAGE_SHIFT; page++)
		mem_page_written(ram, page);
}

static const struct bus_ops write_only_ops = { write_only_read, write_only_write, 1, 8 };

/* ---- from registers to regions ---- */

static void
fill_run(struct i440fx *b, struct run *r, int first, int end, unsigned mode)
{
	struct mem_region *g = &r->region;
	bool rom = segment_has_rom(b, first);

	g->base = segment_start(first);
	g->size = segment_end(end - 1) - g->base;
	g->enabled = mode != (PAM_READ | PAM_WRITE);
	g->ram = NULL;
	g->ram_offset = 0;
	g->ops = NULL;
	switch (mode) {
	case 0:
		g->kind = rom ? MEM_ROM : MEM_MMIO;
		g->ops = rom ? NULL : &empty_ops;
		g->ram = rom ? b->bios : NULL;
		g->ram_offset = rom ? b->bios->size - (MIB - g->base) : 0;
		break;
	case PAM_READ:
		g->kind = MEM_ROM;
		g->ram = b->ram;
		g->ram_offset = g->base;
		break;
	case PAM_WRITE:
		g->kind = MEM_MMIO;
		g->ops = &write_only_ops;
		break;
	}
}

static void
sync_pam(struct i440fx *b)
{
	for (int i = 0, end; i < SEGMENTS; i = end) {
		unsigned mode = segment_mode(b, i);

		for (end = i + 1; end < SEGMENTS; end++) {
			if (segment_mode(b, end) != mode || segment_has_rom(b, end) != segment_has_rom(b, i))
				break;
			b->runs[end].region.enabled = false;
		}
		fill_run(b, &b->runs[i], i, end, mode);
	}
}

/*
 * Without system management mode SMRAM is open or closed for everybody: D_OPEN shows the RAM under the VGA window.
 * D_LCK closes it for good, until reset.
 */
static void
sync_smram(struct i440fx *b)
{
	uint8_t v = b->pci.config[SMRAM];

	if (v & SMRAM_LOCKED) {
		b->pci.config[SMRAM] &= (uint8_t)~SMRAM_OPEN;
		b->pci.writable[SMRAM] = 0;
	} else {
		b->pci.writable[SMRAM] = 0x78;
	}
	b->smram.enabled = (b->pci.config[SMRAM] & (SMRAM_OPEN | SMRAM_CLOSED)) == SMRAM_OPEN;
}

static void
sync(struct i440fx *b)
{
	sync_pam(b);
	sync_smram(b);
	mem_update(&b->pci.dev.m->mem);
}

static void
config_written(struct pci_dev *d, unsigned reg, uint32_t value, unsigned size)
{
	if (reg <= SMRAM && reg + size > PAM0)
		sync((struct i440fx *)d);
}

/* ---- the device ---- */

static void
reset(struct device *d)
{
	struct i440fx *b = (struct i440fx *)d;

	b->pci.writable[SMRAM] = 0x78;
	pci_reset(&b->pci);
	b->pci.config[SMRAM] = 0x02;
	sync(b);
}

static void
loaded(struct device *d)
{
	sync((struct i440fx *)d);
}

static void
destroy(struct device *d)
{
	struct i440fx *b = (struct i440fx *)d;

	pci_remove(d->m, &b->pci);
	mem_remove(&d->m->mem, &b->hole);
	mem_remove(&d->m->mem, &b->smram);
	for (int i = 0; i < SEGMENTS; i++)
		mem_remove(&d->m->mem, &b->runs[i].region);
	free(b);
}

static const struct dev_class class = {
	.name = "i440fx",
	.reset = reset,
	.loaded = loaded,
	.destroy = destroy,
};

/* 0xa0000-0xbffff: nothing, unless a VGA card (priority 1) or open SMRAM (2) covers it. */
static void
add_hole(struct i440fx *b)
{
	struct mem *mem = &b->pci.dev.m->mem;

	b->hole = (struct mem_region){ .name = "hole",
		.kind = MEM_MMIO,
		.enabled = true,
		.base = HOLE,
		.size = PAM_BASE - HOLE,
		.ops = &empty_ops };
	mem_add(mem, &b->hole);
	b->smram = (struct mem_region){ .name = "smram",
		.kind = MEM_RAM,
		.priority = 2,
		.base = HOLE,
		.size = PAM_BASE - HOLE,
		.ram = b->ram,
		.ram_offset = HOLE };
	mem_add(mem, &b->smram);
}

static void
add_runs(struct i440fx *b)
{
	for (int i = 0; i < SEGMENTS; i++) {
		struct run *r = &b->runs[i];

		r->bridge = b;
		r->region = (struct mem_region){ .name = "pam", .kind = MEM_MMIO, .priority = 2, .opaque = r };
		mem_add(&b->pci.dev.m->mem, &r->region);
	}
}

struct device *
i440fx_create(struct machine *m, struct ram *ram, struct ram *bios)
{
	struct i440fx *b = xcalloc(1, sizeof(*b));
	struct pci_dev *d = &b->pci;

	d->vendor = 0x8086;
	d->device = 0x1237;
	/* SeaBIOS takes this subsystem for the sign of a virtual machine with fw_cfg. */
	d->subvendor = 0x1af4;
	d->subdevice = 0x1100;
	d->revision = 2;
	d->class = 0x060000;
	d->config_written = config_written;
	pci_add(m, d, &class, 0, 0);
	d->writable[PAM0] = 0x30;
	memset(d->writable + PAM0 + 1, 0x33, PAM_LAST - PAM0);
	b->ram = ram;
	b->bios = bios;
	b->bios_start = MIB - (uint32_t)(bios ? MIN(bios->size, 0x20000u) : 0);
	pci_add_ports(m);
	add_hole(b);
	add_runs(b);
	reset(&d->dev);
	return &d->dev;
}
