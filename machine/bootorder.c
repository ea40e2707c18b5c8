/* SPDX-License-Identifier: Apache-2.0 */
/*
 * SeaBIOS reads a file of Open Firmware device paths, one a line, and boots from the first that works (SeaBIOS,
 * docs/Runtime_config: bootorder):
 *
 *	/pci@i0cf8/ide@1,1/drive@CHANNEL/disk@UNIT
 *	/pci@i0cf8/sata@SLOT/drive@PORT/disk@0
 *	/pci@i0cf8/scsi@SLOT/disk@0,0                       virtio-blk
 *	/pci@i0cf8/scsi@SLOT/channel@0/disk@TARGET,0        virtio-scsi, lsilogic, lsisas
 *	/pci@i0cf8/nvme@SLOT/namespace@NUMBER,0
 *	/pci@i0cf8/usb@SLOT/storage@PORT/channel@0/disk@0,0 xhci
 *	/pci@i0cf8/isa@SLOT/fdc@03f0/floppy@UNIT
 *	/pci@i0cf8/ethernet@SLOT/ethernet-phy@0
 *	HALT
 *
 * Numbers are hexadecimal. HALT means that nothing else is tried: a controller that is not bootable is not listed.
 */
#include "machine/bootorder.h"

#include <string.h>

#include "machine/board.h"

static void
add_drive(struct str *out, const struct pc_device *d, const struct pc_drive *drive)
{
	if (!strcmp(d->type, "ide"))
		str_addf(out, "/pci@i0cf8/ide@%x,%x/drive@%x/disk@%x\n", (unsigned)d->pci_slot,
			(unsigned)d->pci_function, (unsigned)drive->unit / 2, (unsigned)drive->unit % 2);
	else if (!strcmp(d->type, "ahci"))
		str_addf(out, "/pci@i0cf8/sata@%x/drive@%x/disk@0\n", (unsigned)d->pci_slot, (unsigned)drive->unit);
	else if (!strcmp(d->type, "nvme"))
		str_addf(out, "/pci@i0cf8/nvme@%x/namespace@%x,0\n", (unsigned)d->pci_slot, (unsigned)drive->unit + 1);
	else if (!strcmp(d->type, "floppy"))
		str_addf(out, "/pci@i0cf8/isa@%x/fdc@03f0/floppy@%x\n", SLOT_PIIX, (unsigned)drive->unit);
	else if (!strcmp(d->type, "xhci"))
		str_addf(out, "/pci@i0cf8/usb@%x/storage@%x/channel@0/disk@0,0\n", (unsigned)d->pci_slot,
			(unsigned)drive->unit + 1);
	else if (!strcmp(d->type, "virtio-blk"))
		str_addf(out, "/pci@i0cf8/scsi@%x/disk@0,0\n", (unsigned)d->pci_slot);
	else
		str_addf(out, "/pci@i0cf8/scsi@%x/channel@0/disk@%x,0\n", (unsigned)d->pci_slot, (unsigned)drive->unit);
}

static enum pc_boot
kind_of(const struct pc_device *d, const struct pc_drive *drive)
{
	if (!strcmp(d->type, "floppy"))
		return PC_BOOT_FLOPPY;
	return drive->dvd ? PC_BOOT_DVD : PC_BOOT_DISK;
}

static void
add_kind(struct str *out, const struct pc_device *d, enum pc_boot kind)
{
	if (d->not_bootable)
		return;
	for (int i = 0; i < d->drive_count; i++)
		if (kind == kind_of(d, &d->drives[i]))
			add_drive(out, d, &d->drives[i]);
}

static void
add_adapters(struct str *out, const struct pc_config *c)
{
	static const int order[] = { 1, 2, 3, 4, 0 };

	for (size_t i = 0; i < ARRAY_LEN(order); i++)
		for (int k = 0; k < c->device_count; k++)
			if (c->devices[k].link && c->devices[k].boot_priority == order[i])
				str_addf(out, "/pci@i0cf8/ethernet@%x/ethernet-phy@0\n",
					(unsigned)c->devices[k].pci_slot);
}

void
bootorder_text(const struct pc_config *c, struct str *out)
{
	for (size_t i = 0; i < ARRAY_LEN(c->boot); i++) {
		if (c->boot[i] == PC_BOOT_NET)
			add_adapters(out, c);
		for (int k = 0; k < c->device_count && c->boot[i]; k++)
			add_kind(out, &c->devices[k], c->boot[i]);
	}
	str_add(out, "HALT");
	str_addn(out, "", 1);
}
