/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pc-testdev: what test kernels (kvm-unit-tests) expect of a machine made for them. Scratch registers behind ports and
 * memory, to see whether accesses of all widths arrive; ports that raise interrupt lines at will.
 */
#include <stdlib.h>
#include <string.h>

#include "base/str.h"
#include "dev/dev.h"

#define IOMEM_BASE 0xff000000u
#define IOMEM_SIZE 0x10000u

struct testdev {
	struct device dev;
	struct mem_region region;
	struct irq lines[IOAPIC_PINS];
	uint8_t scratch[4]; /* ports 0xe0-0xe3 in any width and, byte by byte, 0xe8-0xeb */
	uint8_t iomem[IOMEM_SIZE];
};

static uint64_t
scratch_read(void *opaque, uint64_t off, unsigned size)
{
	struct testdev *t = opaque;
	uint64_t v = 0;

	memcpy(&v, t->scratch + off, size);
	return v;
}

static void
scratch_write(void *opaque, uint64_t off, uint64_t value, unsigned size)
{
	memcpy(((struct testdev *)opaque)->scratch + off, &value, size);
}

/* A write asks that the page of that address be dropped from the host's TLBs; here there is nothing it would change. */
static uint64_t
flush_read(void *opaque, uint64_t off, unsigned size)
{
	return ~0ull;
}

static void
flush_write(void *opaque, uint64_t off, uint64_t value, unsigned size)
{
}

static uint64_t
line_read(void *opaque, uint64_t off, unsigned size)
{
	return ~0ull;
}

static void
line_write(void *opaque, uint64_t off, uint64_t value, unsigned size)
{
	struct testdev *t = opaque;

	irq_set(&t->lines[off], value != 0);
}

static uint64_t
iomem_read(void *opaque, uint64_t off, unsigned size)
{
	struct testdev *t = opaque;
	uint64_t v = 0;

	memcpy(&v, t->iomem + off, size);
	return v;
}

static void
iomem_write(void *opaque, uint64_t off, uint64_t value, unsigned size)
{
	memcpy(((struct testdev *)opaque)->iomem + off, &value, size);
}

static const struct bus_ops scratch_ops = { scratch_read, scratch_write, 1, 4 };
static const struct bus_ops byte_ops = { scratch_read, scratch_write, 1, 1 };
static const struct bus_ops flush_ops = { flush_read, flush_write, 1, 4 };
/* Any width names one line, the first port's. */
static const struct bus_ops line_ops = { line_read, line_write, 1, 4 };
static const struct bus_ops iomem_ops = { iomem_read, iomem_write, 1, 8 };

static const struct field fields[] = {
	FIELD_ARRAY(struct testdev, scratch),
	FIELD_ARRAY(struct testdev, iomem),
	FIELD_END,
};

static void
reset(struct device *d)
{
	struct testdev *t = (struct testdev *)d;

	memset(t->scratch, 0, sizeof(t->scratch));
	memset(t->iomem, 0, sizeof(t->iomem));
	for (int n = 0; n < IOAPIC_PINS; n++)
		irq_set(&t->lines[n], 0);
}

static void
destroy(struct device *d)
{
	mem_remove(&d->m->mem, &((struct testdev *)d)->region);
	free(d);
}

static const struct dev_class class = {
	.name = "pc-testdev",
	.fields = fields,
	.reset = reset,
	.destroy = destroy,
};

struct device *
testdev_create(struct machine *m, struct isairq *isa, struct ioapic *ioapic)
{
	struct testdev *t = xcalloc(1, sizeof(*t));

	device_add(m, &t->dev, &class);
	for (int n = 0; n < IOAPIC_PINS; n++)
		t->lines[n] = n < ISA_IRQS ? isairq_input(isa, n) : ioapic_input(ioapic, n);
	io_add(&m->io, 0xe0, 4, &scratch_ops, t);
	io_add(&m->io, 0xe4, 4, &flush_ops, t);
	io_add(&m->io, 0xe8, 4, &byte_ops, t);
	io_add(&m->io, 0x2000, IOAPIC_PINS, &line_ops, t);
	t->region = (struct mem_region){ .name = "testdev",
		.kind = MEM_MMIO,
		.enabled = true,
		.priority = 1,
		.base = IOMEM_BASE,
		.size = IOMEM_SIZE,
		.ops = &iomem_ops,
		.opaque = t };
	mem_add(&m->mem, &t->region);
	return &t->dev;
}
