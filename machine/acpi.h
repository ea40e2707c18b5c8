/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ACPI and SMBIOS tables of the PC in machine/pc.c, as files a firmware links into memory.
 */
#ifndef MACHINE_ACPI_H
#define MACHINE_ACPI_H

#include <stdbool.h>
#include <stdint.h>

#include "base/str.h"
#include "machine/machine.h"

/* Where the chips are; the same numbers go into tables and constructors. */
#define PC_PM_BASE 0x600   /* where SeaBIOS puts the PIIX4's power management ports */
#define PC_GPE_BASE 0xafe0 /* general purpose events */
#define PC_SCI_IRQ 9
#define PC_IOAPIC_BASE 0xfec00000u
#define PC_LAPIC_BASE 0xfee00000u
#define PC_HPET_BASE 0xfed00000u
#define PC_VMGENID_BASE 0xfed11000u
#define PC_ACPI_ENABLE 0xf1 /* written to port 0xb2 */
#define PC_ACPI_DISABLE 0xf0

/* Start of the PCI devices' memory below 4 GiB; it ends at the I/O APIC. */
uint32_t pci_hole(uint32_t ram_below_4g);

struct acpi_options {
	int cpus;
	bool hpet;
	uint32_t ram_below_4g;
	uint16_t serial_base[PC_SERIAL_MAX]; /* 0: none */
	int serial_irq[PC_SERIAL_MAX];
};

/* How the tables are tied together once their place is known; the rows of QEMU's table loader. */
enum acpi_link_kind { ACPI_LINK_POINTER, ACPI_LINK_CHECKSUM };
struct acpi_link {
	enum acpi_link_kind kind;
	bool in_rsdp;	      /* the place is in rsdp, otherwise in tables */
	uint32_t offset;      /* of the pointer or the checksum */
	uint32_t start, size; /* pointer: size 4 or 8; checksum: the bytes it covers */
};

struct acpi_tables {
	struct str tables; /* "etc/acpi/tables": everything but the RSDP; pointers hold offsets in it */
	uint8_t rsdp[36];
	struct acpi_link links[64];
	int link_count;
};

void acpi_build(struct acpi_tables *t, const struct acpi_options *o);
/* "etc/table-loader": the links as firmware reads them. */
void acpi_loader_script(const struct acpi_tables *t, struct str *out);
/* Do what the script says, for tables that will be at guest address `base`. */
void acpi_link(struct acpi_tables *t, uint32_t base);
void acpi_free(struct acpi_tables *t);

struct smbios_tables {
	struct str tables;
	uint8_t anchor[31];
};
struct smbios_options {
	const struct smbios_strings *strings;
	const struct uuid *uuid;
	int cpus;
	uint64_t ram;
	uint64_t ram_below_4g;
};
void smbios_build(struct smbios_tables *t, const struct smbios_options *o);
/* Fill in address and checksums for tables that will be at guest address `base`. */
void smbios_place(struct smbios_tables *t, uint32_t base);
void smbios_free(struct smbios_tables *t);

#endif
