/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The little that SeaBIOS does for a kernel beyond loading it. Register numbers: 82441FX (PAM 0x59-0x5f), PIIX3
 * (PIRQRC 0x60-0x63, ELCR port 0x4d0), PIIX4 (PMBASE 0x40, PMREGMISC 0x80), PCI 3.0 chapter 6.
 */
#include "machine/bringup.h"

#include <string.h>

#define DEVFN(slot, function) ((unsigned)(slot) << 3 | (function))
#define SLOT_PIIX 1

#define IO_WINDOW 0xc000u
#define TABLES_AT 0xe0000u
#define TABLES_END 0xf0000u
#define ANCHORS_AT 0xf0000u /* RSDP and SMBIOS anchor: searched for on 16-byte boundaries from here */

static const uint8_t pirq_irqs[4] = { 10, 10, 11, 11 };

static void
enable_low_ram(struct pci_bus *b)
{
	pci_config_write(b, 0, 0x59, 0x30, 1);
	for (unsigned reg = 0x5a; reg <= 0x5f; reg++)
		pci_config_write(b, 0, reg, 0x33, 1);
}

static void
route_interrupts(struct machine *m)
{
	for (unsigned i = 0; i < 4; i++)
		pci_config_write(&m->pci, DEVFN(SLOT_PIIX, 0), 0x60 + i, pirq_irqs[i], 1);
	io_write(&m->io, 0x4d1, 0x0c, 1); /* interrupts 10 and 11 are level-triggered */
}

static void
enable_power_management(struct pci_bus *b)
{
	pci_config_write(b, DEVFN(SLOT_PIIX, 3), 0x40, PC_PM_BASE | 1, 4);
	pci_config_write(b, DEVFN(SLOT_PIIX, 3), 0x80, 1, 1);
}

struct windows {
	uint64_t io, mem;
};

/* Give one BAR the next place in its window. */
static int
assign_bar(struct pci_bus *b, struct pci_dev *d, int n, struct windows *w, struct err *e)
{
	unsigned devfn = DEVFN(d->slot, d->function), reg = n == 6 ? 0x30 : 0x10 + 4 * (unsigned)n;
	struct pci_bar *bar = &d->bars[n];
	bool io = bar->kind == PCI_BAR_IO;
	uint64_t *next = io ? &w->io : &w->mem, size = bar->size;
	uint64_t limit = io ? 0x10000 : PC_IOAPIC_BASE;

	if (bar->kind == PCI_BAR_NONE || bar->kind == PCI_BAR_ROM)
		return 0;
	if (!io && size < PAGE_SIZE)
		size = PAGE_SIZE;
	*next = (*next + size - 1) & ~(size - 1);
	if (*next > limit || size > limit - *next)
		return err_set(e, ERR_INVALID, "%s: its registers do not fit into the PCI address space", d->dev.name);
	pci_config_write(b, devfn, reg, (uint32_t)*next, 4);
	if (bar->kind == PCI_BAR_MEM64)
		pci_config_write(b, devfn, reg + 4, (uint32_t)(*next >> 32), 4);
	*next += size;
	return 0;
}

static int
setup_device(struct pci_bus *b, struct pci_dev *d, struct windows *w, struct err *e)
{
	unsigned devfn = DEVFN(d->slot, d->function);
	uint32_t command = pci_config_read(b, devfn, 4, 2);

	for (int n = 0; n < PCI_BARS; n++) {
		if (assign_bar(b, d, n, w, e))
			return -1;
		if (d->bars[n].kind == PCI_BAR_IO)
			command |= 1;
		else if (d->bars[n].kind == PCI_BAR_MEM32 || d->bars[n].kind == PCI_BAR_MEM64)
			command |= 2;
	}
	pci_config_write(b, devfn, 4, command, 2);
	if (d->intx_pin)
		pci_config_write(b, devfn, 0x3c, pirq_irqs[(unsigned)(d->slot + 3 + d->intx_pin - 1) % 4], 1);
	return 0;
}

int
bringup_chipset(struct machine *m, uint32_t ram_below_4g, struct err *e)
{
	struct windows w = { IO_WINDOW, pci_hole(ram_below_4g) };

	enable_low_ram(&m->pci);
	route_interrupts(m);
	for (size_t i = 0; i < ARRAY_LEN(m->pci.devs); i++)
		if (m->pci.devs[i] && setup_device(&m->pci, m->pci.devs[i], &w, e))
			return -1;
	enable_power_management(&m->pci);
	return 0;
}

uint32_t
bringup_tables(struct machine *m, const struct acpi_options *a, const struct smbios_options *s, struct err *e)
{
	uint32_t rsdp = ANCHORS_AT, anchor = ANCHORS_AT + 0x40, smbios_at;
	struct acpi_tables acpi;
	struct smbios_tables smbios;
	bool ok;

	acpi_build(&acpi, a);
	smbios_build(&smbios, s);
	smbios_at = (uint32_t)(TABLES_AT + ((acpi.tables.len + 15) & ~(size_t)15));
	acpi_link(&acpi, TABLES_AT);
	smbios_place(&smbios, smbios_at);
	ok = smbios_at + smbios.tables.len <= TABLES_END &&
	     mem_write(&m->mem, TABLES_AT, acpi.tables.s, acpi.tables.len) &&
	     mem_write(&m->mem, smbios_at, smbios.tables.s, smbios.tables.len) &&
	     mem_write(&m->mem, rsdp, acpi.rsdp, sizeof(acpi.rsdp)) &&
	     mem_write(&m->mem, anchor, smbios.anchor, sizeof(smbios.anchor));
	acpi_free(&acpi);
	smbios_free(&smbios);
	if (ok)
		return rsdp;
	err_set(e, ERR_FAILED, "the ACPI and SMBIOS tables do not fit below 1 MiB");
	return 0;
}
