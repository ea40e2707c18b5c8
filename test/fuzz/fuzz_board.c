/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fuzz target: everything a guest can do to the chips of the board: ports and registers of all widths, configuration
 * space, the APICs' MSRs, interrupt acknowledges, keys and mouse motion in between. Virtual time stands still and is
 * moved by the input; a step of time that fires too many timers is a finding, as is one that takes long.
 */
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "dev/dev.h"

#define CPUS 2
#define RAM_SIZE (2u << 20)
#define FIRED_MAX 20000 /* in a step of at most 67 ms: six clamped timers, with room */

static struct machine m;
static struct i8042 *keyboard;
static struct piix4pm *pm;
static struct mem_region low;

struct input {
	const uint8_t *p;
	size_t left;
};

static uint32_t
take(struct input *in, unsigned bytes)
{
	uint32_t v = 0;

	for (unsigned i = 0; i < bytes && in->left; i++, in->left--)
		v |= (uint32_t)*in->p++ << (8 * i);
	return v;
}

static void
build(void)
{
	struct ram *ram, *bios;
	struct lapic *bsp;
	struct i8259 *pic;
	struct ioapic *ioapic;
	struct isairq *isa;
	struct hpet *hpet;

	log_set_level(LOG_ERROR);
	if (machine_open(&m, "fuzz"))
		abort();
	machine_lock(&m);
	ram = ram_create(&m.mem, "ram", RAM_SIZE);
	bios = ram_create(&m.mem, "bios", 1 << 18);
	low = (struct mem_region){ .name = "ram", .kind = MEM_RAM, .enabled = true, .size = RAM_SIZE, .ram = ram };
	mem_add(&m.mem, &low);
	bsp = lapic_create(&m, 0);
	lapic_create(&m, 1);
	pic = i8259_create(&m, lapic_input(bsp, 0));
	ioapic = ioapic_create(&m, 0, IOAPIC_BASE);
	isa = isairq_create(&m, pic, ioapic);
	i440fx_create(&m, ram, bios);
	piix3_create(&m, 1, isa);
	pm = piix4pm_create(&m, 1, isairq_input(isa, 9));
	hpet = hpet_create(&m, HPET_BASE, isa, ioapic);
	i8254_create(&m, hpet_legacy_input(hpet, 0));
	mc146818_create(&m, hpet_legacy_input(hpet, 1), false, 0);
	keyboard = i8042_create(&m, isairq_input(isa, 1), isairq_input(isa, 12));
	ns16550_create(&m, 0x3f8, isairq_input(isa, 4), chardev_open(m.loop, CHARDEV_NULL, NULL, NULL));
	debugexit_create(&m, 0xf4, 4);
	testdev_create(&m, isa, ioapic);
}

static void
set_time(uint64_t ns)
{
	clock_set(&m.clock, ns, muldiv64(ns, m.clock.tsc_hz, 1000000000));
}

static void
run(uint64_t ns)
{
	struct clock *c = &m.clock;
	uint64_t end = clock_now(c) + ns;

	for (int fired = 0;; fired++) {
		struct vtimer *first = NULL;

		if (fired > FIRED_MAX)
			abort();
		for (struct vtimer *t = c->timers; t; t = t->next)
			if (t->when <= end && (!first || t->when < first->when))
				first = t;
		if (!first)
			break;
		if (first->when > clock_now(c))
			set_time(first->when);
		vtimer_cancel(first);
		first->fn(first->opaque);
	}
	set_time(end);
}

/* The chips' own ports more often than others. */
static uint16_t
port(struct input *in)
{
	static const uint16_t known[] = { 0x20, 0x21, 0xa0, 0xa1, 0x4d0, 0x40, 0x42, 0x43, 0x60, 0x61, 0x64, 0x70, 0x71,
		0x92, 0xb2, 0xcf8, 0xcfc, 0xcf9, 0x3f8, 0x3f9, 0x3fa, 0x3fb, 0x3fc, 0x3fd, 0x600, 0x602, 0x604, 0x608,
		0xafe0, 0xafe2, 0xe0, 0xf4 };
	uint32_t n = take(in, 1);

	return n < 0xf0 ? known[n % (sizeof(known) / sizeof(known[0]))] : (uint16_t)take(in, 2);
}

static void
apic(struct input *in, uint32_t op)
{
	struct lapic_port *a = &m.intc.lapic[op >> 4 & 1];
	uint32_t reg = take(in, 1), value = take(in, 4);
	uint64_t v;

	switch (op >> 5) {
	case 0:
		a->mmio_write(a->opaque, reg << 4, value);
		break;
	case 1:
		a->mmio_read(a->opaque, reg << 4 | (value & 0xf));
		break;
	case 2:
		a->msr_write(a->opaque, 0x800 + reg, value | (uint64_t)take(in, 4) << 32);
		break;
	case 3:
		a->msr_read(a->opaque, 0x800 + reg, &v);
		break;
	case 4:
		a->msr_write(a->opaque, 0x1b, LAPIC_BASE | (value & 0xd00));
		break;
	case 5:
		a->msr_write(a->opaque, 0x6e0, clock_tsc(&m.clock) + value);
		break;
	case 6:
		a->set_cr8(a->opaque, (uint8_t)value);
		break;
	case 7:
		m.intc.msi(m.intc.msi_opaque, LAPIC_BASE | (value & 0xffffc), reg | (value >> 8 & 0xff00));
		break;
	}
}

static void
step(struct input *in)
{
	static const gpa_t bases[] = { IOAPIC_BASE, HPET_BASE, HPET_BASE + 0x100, 0xa0000 };
	uint32_t op = take(in, 1), size = 1u << (op >> 4 & 3), v;
	uint8_t key;

	switch (op & 15) {
	case 0:
	case 1:
	case 2:
	case 3:
		v = port(in);
		io_write(&m.io, (uint16_t)v, take(in, size < 4 ? size : 4), size < 4 ? size : 4);
		break;
	case 4:
		io_read(&m.io, port(in), size < 4 ? size : 4);
		break;
	case 5:
		v = take(in, 2);
		pci_config_write(&m.pci, v >> 8 & 0x0f, v & 0xff, take(in, 4), size < 4 ? size : 4);
		break;
	case 6:
		v = take(in, 2);
		mem_store(&m.mem, bases[op >> 6] + (op >> 6 == 3 ? v * 7 : v & 0xfff), take(in, 4), size);
		break;
	case 7:
		v = take(in, 2);
		mem_load(&m.mem, bases[op >> 6] + (op >> 6 == 3 ? v * 7 : v & 0xfff), size);
		break;
	case 8:
	case 9:
		apic(in, op);
		break;
	case 10:
		m.intc.lapic[op >> 4 & 1].ack(m.intc.lapic[op >> 4 & 1].opaque);
		break;
	case 11:
		m.pci.set_intx(m.pci.intx_opaque, (int)take(in, 1) & 31, 1 + (op >> 4 & 3), op >> 6 & 1);
		break;
	case 12:
		key = (uint8_t)take(in, 1);
		i8042_type(keyboard, &key, 1);
		break;
	case 13:
		i8042_mouse(keyboard, (int)take(in, 4), (int)take(in, 2), (int8_t)take(in, 1), op >> 4);
		break;
	case 14:
		if (op >> 4 == 0)
			piix4pm_power_button(pm);
		else if (op >> 4 == 1)
			device_reset_all(&m);
		else
			io_write(&m.io, 0xcf8, 0x80000000 | take(in, 2), 4);
		break;
	case 15:
		run((uint64_t)take(in, 2) << (op >> 4 & 10));
		break;
	}
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input in = { data, size };

	if (!m.loop)
		build();
	device_reset_all(&m);
	while (in.left)
		step(&in);
	return 0;
}
