/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One PCI bus: configuration space, BARs, interrupts. (PCI Local Bus 3.0, "PCI" below; MSI-X: section 6.8)
 *
 * A function's configuration space is 256 bytes and a mask of the bits a guest may change. Whatever is written is
 * stored through the mask first; then the consequences are drawn from the bytes as they stand (sync_bars(),
 * sync_interrupts()), never from what was written. Loading a saved machine therefore is: restore the bytes, draw the
 * consequences (pci_loaded()).
 *
 * A BAR is mapped while its decode bit in the command register is set and its address makes sense: not 0, and not
 * ending at the top of its space, which is what a guest leaves in it while it probes the size (PCI 6.2.5.1).
 *
 * INTx lines of the functions of one slot that share a pin are ORed here; the south bridge sees slots and pins.
 */
#include "bus/pci.h"
#include "base/bytes.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/str.h"
#include "bus/machine.h"

/* Header registers (PCI 6.1) */
enum {
	PCI_COMMAND = 0x04,
	PCI_STATUS = 0x06,
	PCI_BAR0 = 0x10,
	PCI_ROM = 0x30,
	PCI_CAPABILITIES = 0x34,
	PCI_LINE = 0x3c,
	PCI_PIN = 0x3d,
	PCI_HEADER_END = 0x40,

	COMMAND_IO = 1,
	COMMAND_MEMORY = 2,
	COMMAND_MASTER = 4,
	COMMAND_INTX_OFF = 1 << 10,
	COMMAND_WRITABLE = 0x0547,

	STATUS_INTERRUPT = 1 << 3,
	STATUS_CAPABILITIES = 1 << 4,

	CAP_MSI = 0x05,
	CAP_MSIX = 0x11,
	MSI_ENABLE = 1,
	MSI_64 = 0x80,
	MSIX_ENABLE = 1 << 15,
	MSIX_MASK_ALL = 1 << 14,
	MSIX_ENTRY = 16,
	MSIX_VECTOR_MASK = 1,
};

#define MEM64_LIMIT (1ull << 52)

const struct field pci_fields[] = {
	FIELD_ARRAY(struct pci_dev, config),
	FIELD(struct pci_dev, intx_level),
	FIELD_END,
};

static unsigned
bar_reg(int bar)
{
	return bar == 6 ? PCI_ROM : PCI_BAR0 + 4 * (unsigned)bar;
}

static uint16_t
command(const struct pci_dev *d)
{
	return le16(d->config + PCI_COMMAND);
}

/* ---- BARs ---- */

/* Where the BAR is to be mapped now; 0: nowhere. */
static uint64_t
bar_address(const struct pci_dev *d, int i)
{
	const struct pci_bar *b = &d->bars[i];
	uint32_t low = le32(d->config + bar_reg(i));
	uint64_t at, limit = 1ull << 32;

	switch (b->kind) {
	case PCI_BAR_IO:
		if (!(command(d) & COMMAND_IO))
			return 0;
		at = low & ~3u;
		return at && at + b->size <= 65536 ? at : 0;
	case PCI_BAR_MEM32:
		at = low & ~15u;
		break;
	case PCI_BAR_MEM64:
		at = (low & ~15u) | (uint64_t)le32(d->config + bar_reg(i) + 4) << 32;
		limit = MEM64_LIMIT;
		break;
	case PCI_BAR_ROM:
		if (!(low & 1))
			return 0;
		at = low & ~2047u;
		break;
	default:
		return 0;
	}
	if (!(command(d) & COMMAND_MEMORY) || at >= limit || b->size >= limit - at)
		return 0;
	return at;
}

static void
bar_map(struct pci_dev *d, int i, uint64_t at)
{
	struct pci_bar *b = &d->bars[i];
	struct machine *m = d->dev.m;

	if (b->kind == PCI_BAR_IO) {
		io_remove(&m->io, b->io_handle);
		b->io_handle = at ? io_add(&m->io, (uint16_t)at, (uint32_t)b->size, b->ops, b->opaque) : -1;
		if (at && b->io_handle < 0)
			log_guest(d->dev.name, "no room to map its I/O ports at %#x", (unsigned)at);
		b->mapped_at = at;
		return;
	}
	b->mapped_at = at;
	b->region.enabled = at != 0;
	b->region.base = at;
	mem_update(&m->mem);
}

static void
sync_bars(struct pci_dev *d)
{
	for (int i = 0; i < PCI_BARS; i++) {
		uint64_t at;

		if (d->bars[i].kind == PCI_BAR_NONE)
			continue;
		at = bar_address(d, i);
		if (at != d->bars[i].mapped_at)
			bar_map(d, i, at);
	}
}

/* Type bits into the register, size into the mask, and a region for what is not I/O. */
static void
bar_setup(struct pci_dev *d, int i)
{
	struct pci_bar *b = &d->bars[i];
	unsigned reg = bar_reg(i);
	uint64_t mask = ~(b->size - 1);

	b->io_handle = -1;
	b->mapped_at = 0;
	switch (b->kind) {
	case PCI_BAR_NONE:
		return;
	case PCI_BAR_IO:
		put_le32(d->config + reg, 1);
		put_le32(d->writable + reg, (uint32_t)mask & ~3u);
		return;
	case PCI_BAR_ROM:
		put_le32(d->writable + reg, ((uint32_t)mask & ~2047u) | 1);
		break;
	case PCI_BAR_MEM64:
		put_le32(d->writable + reg + 4, (uint32_t)(mask >> 32));
		/* fall through */
	case PCI_BAR_MEM32:
		put_le32(d->config + reg, (b->kind == PCI_BAR_MEM64 ? 4u : 0u) | (b->prefetchable ? 8u : 0u));
		put_le32(d->writable + reg, (uint32_t)mask & ~15u);
		break;
	}
	b->region = (struct mem_region){ .name = d->dev.name,
		.kind = !b->ram			 ? MEM_MMIO
			: b->kind == PCI_BAR_ROM ? MEM_ROM
						 : MEM_RAM,
		.priority = 1,
		.size = b->size,
		.ram = b->ram,
		.ops = b->ops,
		.opaque = b->opaque };
	mem_add(&d->dev.m->mem, &b->region);
}

static void
bar_remove(struct pci_dev *d, int i)
{
	struct pci_bar *b = &d->bars[i];

	if (b->kind == PCI_BAR_IO)
		io_remove(&d->dev.m->io, b->io_handle);
	else if (b->kind != PCI_BAR_NONE)
		mem_remove(&d->dev.m->mem, &b->region);
	b->kind = PCI_BAR_NONE;
}

/* ---- interrupts ---- */

bool
pci_msi_enabled(struct pci_dev *d)
{
	return d->msi_cap && d->config[d->msi_cap + 2] & MSI_ENABLE;
}

static uint16_t
msix_control(const struct pci_dev *d)
{
	return d->msix_cap ? le16(d->config + d->msix_cap + 2) : 0;
}

bool
pci_msix_enabled(struct pci_dev *d)
{
	return msix_control(d) & MSIX_ENABLE;
}

static bool
intx_asserted(struct pci_dev *d)
{
	return d->intx_level && !(command(d) & COMMAND_INTX_OFF) && !pci_msi_enabled(d) && !pci_msix_enabled(d);
}

/* Drive the slot's pin that `d` shares with the other functions of its slot. */
static void
sync_intx(struct pci_dev *d)
{
	struct pci_bus *b = &d->dev.m->pci;
	int level = 0;

	if (d->intx_level)
		d->config[PCI_STATUS] |= STATUS_INTERRUPT;
	else
		d->config[PCI_STATUS] &= (uint8_t)~STATUS_INTERRUPT;
	if (!d->intx_pin || !b->set_intx)
		return;
	for (int f = 0; f < PCI_FUNCTIONS; f++) {
		struct pci_dev *o = b->devs[d->slot * PCI_FUNCTIONS + f];

		if (o && o->intx_pin == d->intx_pin && intx_asserted(o))
			level = 1;
	}
	b->set_intx(b->intx_opaque, d->slot, d->intx_pin, level);
}

void
pci_intx(struct pci_dev *d, int level)
{
	if (d->intx_level == !!level)
		return;
	d->intx_level = !!level;
	sync_intx(d);
}

/* A message is a memory write of a bus master (PCI 6.8.2); the ones to the APICs' window are interrupts. */
static void
send_message(struct pci_dev *d, uint64_t addr, uint32_t data)
{
	struct machine *m = d->dev.m;
	uint8_t bytes[4];

	if (!pci_bus_master(d))
		return;
	if (addr >> 20 == 0xfee) {
		if (m->intc.msi)
			m->intc.msi(m->intc.msi_opaque, addr, data);
		return;
	}
	put_le32(bytes, data);
	mem_write(&m->mem, addr, bytes, sizeof(bytes));
}

void
pci_msi(struct pci_dev *d)
{
	const uint8_t *c = d->config + d->msi_cap;

	if (pci_msi_enabled(d))
		send_message(d, le64(c + 4), le16(c + 12));
}

static bool
msix_masked(struct pci_dev *d, unsigned vector)
{
	return msix_control(d) & MSIX_MASK_ALL || d->msix_table[vector * MSIX_ENTRY + 12] & MSIX_VECTOR_MASK;
}

void
pci_msix(struct pci_dev *d, unsigned vector)
{
	const uint8_t *entry;

	if (!pci_msix_enabled(d) || vector >= d->msix_vectors)
		return;
	if (msix_masked(d, vector)) {
		d->msix_pba[vector / 8] |= (uint8_t)(1 << vector % 8);
		return;
	}
	d->msix_pba[vector / 8] &= (uint8_t) ~(1 << vector % 8);
	entry = d->msix_table + vector * MSIX_ENTRY;
	send_message(d, le64(entry), le32(entry + 8));
}

/* Send what was held back and is not masked any more. */
static void
msix_flush(struct pci_dev *d)
{
	if (!pci_msix_enabled(d))
		return;
	for (unsigned v = 0; v < d->msix_vectors; v++)
		if (d->msix_pba[v / 8] & 1 << v % 8 && !msix_masked(d, v))
			pci_msix(d, v);
}

void
pci_irq(struct pci_dev *d, int level)
{
	int was = d->intx_level;

	pci_intx(d, level);
	if (level && !was)
		pci_msi(d);
}

static void
sync_interrupts(struct pci_dev *d)
{
	sync_intx(d);
	if (d->msix_cap)
		msix_flush(d);
}

/* ---- the MSI-X table and pending bits: the halves of their BAR ---- */

static uint64_t
msix_read(void *opaque, uint64_t off, unsigned size)
{
	struct pci_dev *d = opaque;
	uint64_t half = d->bars[d->config[d->msix_cap + 4] & 7].size / 2;
	const uint8_t *p = off < half ? d->msix_table : d->msix_pba;
	uint64_t len = off < half ? (uint64_t)d->msix_vectors * MSIX_ENTRY : (d->msix_vectors + 63u) / 64 * 8;
	uint64_t value = 0;

	off &= half - 1;
	if (off <= len && size <= len - off)
		memcpy(&value, p + off, size);
	return value;
}

static void
msix_write(void *opaque, uint64_t off, uint64_t value, unsigned size)
{
	struct pci_dev *d = opaque;
	uint64_t len = (uint64_t)d->msix_vectors * MSIX_ENTRY;

	if (off > len || size > len - off) /* also the pending bits: read-only */
		return;
	memcpy(d->msix_table + off, &value, size);
	msix_flush(d);
}

static const struct bus_ops msix_ops = { msix_read, msix_write, 4, 8 };

/* ---- capabilities ---- */

uint8_t
pci_add_capability(struct pci_dev *d, uint8_t id, unsigned len)
{
	unsigned at = d->cap_end ? d->cap_end : PCI_HEADER_END;

	len = (len + 3) & ~3u;
	/* cap_end is a byte: the last four bytes of the space are never given away, so it cannot wrap. */
	if (len < 2 || len > 252 - at)
		return 0;
	d->config[at] = id;
	d->config[at + 1] = d->config[PCI_CAPABILITIES];
	d->config[PCI_CAPABILITIES] = (uint8_t)at;
	d->config[PCI_STATUS] |= STATUS_CAPABILITIES;
	d->cap_end = (uint8_t)(at + len);
	return (uint8_t)at;
}

void
pci_add_msi(struct pci_dev *d)
{
	uint8_t at = pci_add_capability(d, CAP_MSI, 14);

	if (!at)
		return;
	d->msi_cap = at;
	d->config[at + 2] = MSI_64;
	d->writable[at + 2] = MSI_ENABLE;
	put_le32(d->writable + at + 4, ~3u);
	put_le32(d->writable + at + 8, ~0u);
	put_le16(d->writable + at + 12, 0xffff);
}

static void
msix_table_reset(struct pci_dev *d)
{
	memset(d->msix_table, 0, d->msix_vectors * MSIX_ENTRY);
	memset(d->msix_pba, 0, (d->msix_vectors + 63u) / 64 * 8);
	for (unsigned v = 0; v < d->msix_vectors; v++)
		d->msix_table[v * MSIX_ENTRY + 12] = MSIX_VECTOR_MASK;
}

void
pci_add_msix(struct pci_dev *d, int bar, unsigned vectors)
{
	uint8_t at = pci_add_capability(d, CAP_MSIX, 12);
	uint64_t half = 2048;

	if (!at || !vectors || vectors > 2048)
		return;
	while (half < vectors * MSIX_ENTRY)
		half *= 2;
	d->msix_cap = at;
	d->msix_vectors = (uint16_t)vectors;
	d->msix_table = xcalloc(vectors, MSIX_ENTRY);
	d->msix_pba = xcalloc((vectors + 63) / 64, 8);
	msix_table_reset(d);
	put_le16(d->config + at + 2, (uint16_t)(vectors - 1));
	put_le16(d->writable + at + 2, MSIX_ENABLE | MSIX_MASK_ALL);
	put_le32(d->config + at + 4, (uint32_t)bar);
	put_le32(d->config + at + 8, (uint32_t)half | (uint32_t)bar);
	d->bars[bar] = (struct pci_bar){ .kind = PCI_BAR_MEM32, .size = 2 * half, .ops = &msix_ops, .opaque = d };
	if (d->dev.m) /* added after pci_add() */
		bar_setup(d, bar);
}

/* ---- adding and removing ---- */

static void
fill_header(struct pci_dev *d)
{
	uint8_t *c = d->config;

	put_le16(c + 0x00, d->vendor);
	put_le16(c + 0x02, d->device);
	c[0x08] = d->revision;
	c[0x09] = (uint8_t)d->class;
	c[0x0a] = (uint8_t)(d->class >> 8);
	c[0x0b] = (uint8_t)(d->class >> 16);
	c[0x0e] = d->multifunction ? 0x80 : 0;
	put_le16(c + 0x2c, d->subvendor);
	put_le16(c + 0x2e, d->subdevice);
	c[PCI_PIN] = d->intx_pin;
	put_le16(d->writable + PCI_COMMAND, COMMAND_WRITABLE);
	d->writable[0x0c] = 0xff; /* cache line size */
	d->writable[0x0d] = 0xff; /* latency timer */
	d->writable[PCI_LINE] = 0xff;
}

static int
free_slot(const struct pci_bus *b)
{
	for (int s = 3; s < PCI_SLOTS; s++) {
		bool used = false;

		for (int f = 0; f < PCI_FUNCTIONS; f++)
			used |= b->devs[s * PCI_FUNCTIONS + f] != NULL;
		if (!used)
			return s;
	}
	return -1;
}

static void
free_msix(struct pci_dev *d)
{
	free(d->msix_table);
	free(d->msix_pba);
	d->msix_table = d->msix_pba = NULL;
	d->msix_vectors = 0;
	d->msix_cap = 0;
}

int
pci_add(struct machine *m, struct pci_dev *d, const struct dev_class *class, int slot, int function)
{
	if (slot < 0)
		slot = free_slot(&m->pci);
	if (slot < 0 || slot >= PCI_SLOTS || function < 0 || function >= PCI_FUNCTIONS ||
		m->pci.devs[slot * PCI_FUNCTIONS + function]) {
		free_msix(d);
		return -1;
	}
	d->slot = (uint8_t)slot;
	d->function = (uint8_t)function;
	device_add(m, &d->dev, class);
	d->dev.m = m;
	fill_header(d);
	m->pci.devs[slot * PCI_FUNCTIONS + function] = d;
	for (int i = 0; i < PCI_BARS; i++)
		bar_setup(d, i);
	return 0;
}

void
pci_remove(struct machine *m, struct pci_dev *d)
{
	pci_intx(d, 0);
	for (int i = 0; i < PCI_BARS; i++)
		bar_remove(d, i);
	m->pci.devs[d->slot * PCI_FUNCTIONS + d->function] = NULL;
	free_msix(d);
}

void
pci_reset(struct pci_dev *d)
{
	for (unsigned i = 0; i < sizeof(d->config); i++)
		d->config[i] &= (uint8_t)~d->writable[i];
	if (d->msix_cap)
		msix_table_reset(d);
	d->intx_level = 0;
	pci_loaded(d);
}

void
pci_loaded(struct pci_dev *d)
{
	sync_bars(d);
	sync_interrupts(d);
}

/* ---- configuration accesses ---- */

uint32_t
pci_config_read(struct pci_bus *b, unsigned devfn, unsigned reg, unsigned size)
{
	struct pci_dev *d = devfn < ARRAY_LEN(b->devs) ? b->devs[devfn] : NULL;
	uint32_t value = 0;

	if (d && d->config_reading)
		d->config_reading(d, reg, size);
	for (unsigned i = 0; i < size; i++)
		value |= (uint32_t)(d && reg + i < sizeof(d->config) ? d->config[reg + i] : 0xff) << (8 * i);
	return value;
}

void
pci_config_write(struct pci_bus *b, unsigned devfn, unsigned reg, uint32_t value, unsigned size)
{
	struct pci_dev *d = devfn < ARRAY_LEN(b->devs) ? b->devs[devfn] : NULL;

	if (!d || reg >= sizeof(d->config))
		return;
	for (unsigned i = 0; i < size && reg + i < sizeof(d->config); i++) {
		uint8_t mask = d->writable[reg + i], byte = (uint8_t)(value >> (8 * i));

		d->config[reg + i] = (uint8_t)((d->config[reg + i] & ~mask) | (byte & mask));
	}
	sync_bars(d);
	sync_interrupts(d);
	if (d->config_written)
		d->config_written(d, reg, value, size);
}

/* ---- configuration mechanism #1 (PCI 3.2.2.3.2): address at 0xcf8, data at 0xcfc ---- */

#define CONFIG_ENABLE 0x80000000u

/* Which function and register the address names; false: none on this bus. */
static bool
config_target(const struct pci_bus *b, uint64_t off, unsigned *devfn, unsigned *reg)
{
	uint32_t a = b->config_address;

	*devfn = a >> 8 & 0xff;
	*reg = (a & 0xfc) + (unsigned)(off & 3);
	return a & CONFIG_ENABLE && !(a >> 16 & 0xff);
}

static uint64_t
config_port_read(void *opaque, uint64_t off, unsigned size)
{
	struct pci_bus *b = &((struct machine *)opaque)->pci;
	unsigned devfn, reg;

	if (off < 4)
		return off == 0 && size == 4 ? b->config_address : ~0ull;
	return config_target(b, off, &devfn, &reg) ? pci_config_read(b, devfn, reg, size) : ~0ull;
}

static void
config_port_write(void *opaque, uint64_t off, uint64_t value, unsigned size)
{
	struct pci_bus *b = &((struct machine *)opaque)->pci;
	unsigned devfn, reg;

	if (off == 0 && size == 4)
		b->config_address = (uint32_t)value & 0x80fffffc;
	else if (off >= 4 && config_target(b, off, &devfn, &reg))
		pci_config_write(b, devfn, reg, (uint32_t)value, size);
}

static const struct bus_ops config_port_ops = { config_port_read, config_port_write, 1, 4 };

void
pci_add_ports(struct machine *m)
{
	io_add(&m->io, 0xcf8, 8, &config_port_ops, m);
}
