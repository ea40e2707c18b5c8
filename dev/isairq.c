/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The ISA interrupt lines: each goes to the 8259s and to the I/O APIC, and can have several drivers.
 *
 * A wire handed out carries its line and a source number, so that a line stays high until the last of its drivers
 * lets go. Levels are the drivers' state, not this part's: after a load they drive their wires again.
 */
#include <assert.h>

#include "base/str.h"
#include "dev/dev.h"

#define SOURCES_MAX 16

struct isairq {
	struct device dev;
	struct irq pic[ISA_IRQS], ioapic[ISA_IRQS];
	uint16_t high[ISA_IRQS]; /* one bit a source */
	uint8_t sources[ISA_IRQS];
};

static void
set_input(void *opaque, int n, int level)
{
	struct isairq *b = opaque;
	int line = n & 15;
	uint16_t bit = (uint16_t)(1 << (n >> 4)), was = b->high[line];

	b->high[line] = (uint16_t)(level ? was | bit : was & ~bit);
	if (!was == !b->high[line])
		return;
	irq_set(&b->pic[line], b->high[line] != 0);
	irq_set(&b->ioapic[line], b->high[line] != 0);
}

static const struct dev_class class = { .name = "isairq" };

struct isairq *
isairq_create(struct machine *m, struct i8259 *pic, struct ioapic *ioapic)
{
	struct isairq *b = xcalloc(1, sizeof(*b));

	device_add(m, &b->dev, &class);
	for (int n = 0; n < ISA_IRQS; n++) {
		if (n == 2) /* the cascade of the 8259s; pin 2 is interrupt 0's */
			continue;
		if (pic)
			b->pic[n] = i8259_input(pic, n);
		if (ioapic)
			b->ioapic[n] = ioapic_input(ioapic, n ? n : 2);
	}
	return b;
}

struct irq
isairq_input(struct isairq *b, int n)
{
	assert(n >= 0 && n < ISA_IRQS && b->sources[n] < SOURCES_MAX);
	return (struct irq){ set_input, b, b->sources[n]++ << 4 | n };
}
