/* SPDX-License-Identifier: Apache-2.0 */
/* What firmware leaves behind, done by hand when a kernel is started directly. Private to machine/. */
#ifndef MACHINE_BRINGUP_H
#define MACHINE_BRINGUP_H

#include "base/err.h"
#include "bus/machine.h"
#include "machine/acpi.h"

/*
 * Memory instead of ROM below 1 MiB, PCI BARs and interrupts assigned, power management ports enabled. Machine lock
 * held, all devices just reset. 0, or -1 and *e when the devices' memory does not fit below 4 GiB.
 */
int bringup_chipset(struct machine *m, uint32_t ram_below_4g, struct err *e);

/* Tables into 0xe0000-0xfffff, where operating systems look for them. Returns the RSDP's address; 0 and *e. */
uint32_t bringup_tables(struct machine *m, const struct acpi_options *a, const struct smbios_options *s, struct err *e);

#endif
