/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The PIIX3 ISA bridge: PCI interrupt routing and reset control. (Intel 82371SB data sheet, order 290550: PIRQRC
 * 2.2.7, RCR 2.5.13)
 *
 * The INTx pins of all slots end at four wires, PIRQA-PIRQD, turned by one from slot to slot. Each PIRQ goes to the ISA
 * interrupt its route register names, and with it to the 8259s and to the I/O APIC pin of the same number. Slots that
 * share a wire are ORed, and so are PIRQs that are routed to the same interrupt.
 */
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/str.h"
#include "dev/dev.h"

enum { PIRQRC = 0x60, PIRQS = 4, ROUTE_OFF = 0x80 };

enum { RCR_CPU_RESET = 1 << 2 };

/* PIRQs can be routed to 3-7, 9-12, 14, 15. */
#define ROUTABLE 0xdef8u

struct piix3 {
	struct pci_dev pci;
	struct irq isa[ISA_IRQS];
	uint32_t slots[PIRQS]; /* which slots hold the wire */
	uint16_t driven;       /* ISA interrupts held now */
	uint8_t rcr;
};

static void
drive(struct piix3 *b)
{
	uint16_t want = 0, changed;

	for (int i = 0; i < PIRQS; i++) {
		uint8_t route = b->pci.config[PIRQRC + i];

		if (b->slots[i] && !(route & ROUTE_OFF))
			want |= (uint16_t)(1u << (route & 15));
	}
	want &= ROUTABLE;
	changed = want ^ b->driven;
	b->driven = want;
	for (int n = 0; n < ISA_IRQS; n++)
		if (changed >> n & 1)
			irq_set(&b->isa[n], want >> n & 1);
}

static void
set_intx(void *opaque, int slot, int pin, int level)
{
	struct piix3 *b = opaque;
	uint32_t *wire = &b->slots[piix3_pirq(slot, pin)], bit = 1u << slot;

	*wire = level ? *wire | bit : *wire & ~bit;
	drive(b);
}

static void
config_written(struct pci_dev *d, unsigned reg, uint32_t value, unsigned size)
{
	if (reg < PIRQRC + PIRQS && reg + size > PIRQRC)
		drive((struct piix3 *)d);
}

static uint64_t
reset_read(void *opaque, uint64_t off, unsigned size)
{
	return ((struct piix3 *)opaque)->rcr;
}

static void
reset_write(void *opaque, uint64_t off, uint64_t value, unsigned size)
{
	struct piix3 *b = opaque;
	bool rising = value & RCR_CPU_RESET && !(b->rcr & RCR_CPU_RESET);

	b->rcr = value & 2; /* the reset bit clears with the reset it starts */
	if (rising)
		machine_event(b->pci.dev.m, MACHINE_RESET, 0);
}

static const struct bus_ops reset_ops = { reset_read, reset_write, 1, 1 };

static const struct field fields[] = {
	FIELD_ARRAY(struct piix3, slots),
	FIELD(struct piix3, rcr),
	FIELD_END,
};

static void
reset(struct device *d)
{
	struct piix3 *b = (struct piix3 *)d;

	pci_reset(&b->pci);
	memset(b->pci.config + PIRQRC, ROUTE_OFF, PIRQS);
	b->pci.config[0x4c] = 0x4d; /* I/O recovery times */
	b->pci.config[0x4e] = 0x03; /* the BIOS and the keyboard controller are decoded */
	b->rcr = 0;
	drive(b);
}

static void
loaded(struct device *d)
{
	drive((struct piix3 *)d);
}

static void
destroy(struct device *d)
{
	d->m->pci.set_intx = NULL;
	pci_remove(d->m, (struct pci_dev *)d);
	free(d);
}

static const struct dev_class class = {
	.name = "piix3",
	.fields = fields,
	.reset = reset,
	.loaded = loaded,
	.destroy = destroy,
};

struct device *
piix3_create(struct machine *m, int slot, struct isairq *isa)
{
	struct piix3 *b = xcalloc(1, sizeof(*b));
	struct pci_dev *d = &b->pci;

	d->vendor = 0x8086;
	d->device = 0x7000;
	d->subvendor = 0x1af4;
	d->subdevice = 0x1100;
	d->class = 0x060100;
	d->multifunction = true;
	d->config_written = config_written;
	pci_add(m, d, &class, slot, 0);
	/* The bridge always decodes and always is a master. */
	d->config[4] = 7;
	put_le16(d->writable + 4, 0);
	memset(d->writable + PIRQRC, 0x8f, PIRQS);
	d->writable[0x4c] = 0x7f;
	d->writable[0x4e] = d->writable[0x4f] = 0xff;
	d->writable[0x69] = 0xfe; /* top of memory */
	for (int n = 0; n < ISA_IRQS; n++)
		if (ROUTABLE >> n & 1)
			b->isa[n] = isairq_input(isa, n);
	m->pci.set_intx = set_intx;
	m->pci.intx_opaque = b;
	io_add(&m->io, 0xcf9, 1, &reset_ops, b);
	reset(&d->dev);
	return &d->dev;
}
