/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Devices a user can name: one row of `catalogue` each, with the function that makes it from a struct pc_device. To
 * leave a device out of the product, delete its file and its row.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "machine/board.h"
#include "machine/firmware.h"

static int
make_vga(struct pc *p, struct pc_device *d, struct err *e)
{
	char *path = firmware_search("vgabios-stdvga.bin");
	size_t len = 0;
	void *rom = path ? file_read(path, 1 << 16, &len, NULL) : NULL;

	if (!rom)
		log_warn(p->m.name, "there is no VGA BIOS (vgabios-stdvga.bin) on this host: firmware shows nothing");
	p->vga = vga_create(&p->m, d->slot < 0 ? SLOT_VGA : d->slot, d->vram, rom, rom ? len : 0);
	free(rom);
	free(path);
	d->made = p->vga;
	return p->vga ? 0 : err_set(e, ERR_HOST, "no memory for a VGA with %llu bytes", (unsigned long long)d->vram);
}

static int
make_debug_exit(struct pc *p, struct pc_device *d, struct err *e)
{
	d->made = debugexit_create(&p->m, 0xf4, 4);
	return 0;
}

static int
make_testdev(struct pc *p, struct pc_device *d, struct err *e)
{
	d->made = testdev_create(&p->m, p->isa, p->ioapic);
	return 0;
}

static struct drive_config
drive_config(const struct pc_drive *d)
{
	return (struct drive_config){
		.block = d->block,
		.cdrom = d->dvd,
		.nonrotational = d->nonrotational,
		.discard = d->discard,
		.serial = d->serial[0] ? d->serial : NULL,
		.ejected = d->ejected,
		.opaque = d->opaque,
	};
}

static int
make_ide(struct pc *p, struct pc_device *d, struct err *e)
{
	struct ide_wires wires = { .irq = { isairq_input(p->isa, 14), isairq_input(p->isa, 15) } };
	struct ide *ide = ide_create(&p->m, SLOT_PIIX, 1, &wires);

	d->made = ide;
	if (!ide)
		return err_set(e, ERR_INVALID, "a machine can have one IDE controller");
	for (int i = 0; i < d->drive_count; i++) {
		struct drive_config c = drive_config(&d->drives[i]);

		if (ide_attach(ide, d->drives[i].unit / 2, d->drives[i].unit % 2, &c, e))
			return -1;
	}
	return 0;
}

static int
make_ahci(struct pc *p, struct pc_device *d, struct err *e)
{
	struct ahci *ahci = ahci_create(&p->m, d->slot, d->ports, e);

	d->made = ahci;
	for (int i = 0; ahci && i < d->drive_count; i++) {
		struct drive_config c = drive_config(&d->drives[i]);

		if (ahci_attach(ahci, d->drives[i].unit, &c, e))
			return -1;
	}
	return ahci ? 0 : -1;
}

static int
make_e1000(struct pc *p, struct pc_device *d, struct err *e)
{
	d->made = e1000_create(&p->m, d->slot, d->variant ? d->variant : "82540EM", d->link, e);
	return d->made ? 0 : -1;
}

static int
make_virtio_blk(struct pc *p, struct pc_device *d, struct err *e)
{
	const struct pc_drive *drive = &d->drives[0];

	d->made = virtio_blk_create(&p->m, d->slot, 0, drive->block, drive->serial[0] ? drive->serial : NULL, e);
	return d->made ? 0 : -1;
}

static int
make_virtio_net(struct pc *p, struct pc_device *d, struct err *e)
{
	d->made = virtio_net_create(&p->m, d->slot, 0, d->link, e);
	return d->made ? 0 : -1;
}

static int
make_virtio_console(struct pc *p, struct pc_device *d, struct err *e)
{
	d->made = virtio_console_create(&p->m, d->slot, 0, d->cd, e);
	if (d->made)
		d->cd = NULL;
	return d->made ? 0 : -1;
}

static int
make_virtio_rng(struct pc *p, struct pc_device *d, struct err *e)
{
	d->made = virtio_rng_create(&p->m, d->slot, 0, e);
	return d->made ? 0 : -1;
}

static int
make_virtio_balloon(struct pc *p, struct pc_device *d, struct err *e)
{
	d->made = virtio_balloon_create(&p->m, d->slot, 0, e);
	return d->made ? 0 : -1;
}

static const struct device_type {
	const char *name;
	int (*make)(struct pc *p, struct pc_device *d, struct err *e);
} catalogue[] = {
	{ "vga", make_vga },
	{ "ide", make_ide },
	{ "ahci", make_ahci },
	{ "e1000", make_e1000 },
	{ "virtio-blk", make_virtio_blk },
	{ "virtio-net", make_virtio_net },
	{ "virtio-console", make_virtio_console },
	{ "virtio-rng", make_virtio_rng },
	{ "virtio-balloon", make_virtio_balloon },
	{ "debug-exit", make_debug_exit },
	{ "testdev", make_testdev },
};

const char *
pc_device_type(int n)
{
	return n >= 0 && n < (int)ARRAY_LEN(catalogue) ? catalogue[n].name : NULL;
}

/* Where on the PCI bus `d` went: the place that was empty in `before`. */
static void
note_place(struct pc *p, struct pc_device *d, struct pci_dev *const before[])
{
	for (size_t i = 0; i < ARRAY_LEN(p->m.pci.devs); i++)
		if (p->m.pci.devs[i] && !before[i]) {
			d->pci_slot = p->m.pci.devs[i]->slot;
			d->pci_function = p->m.pci.devs[i]->function;
		}
}

static int
build_device(struct pc *p, struct pc_device *d, struct err *e)
{
	struct pci_dev *before[ARRAY_LEN(p->m.pci.devs)];

	memcpy(before, p->m.pci.devs, sizeof(before));
	for (size_t i = 0; i < ARRAY_LEN(catalogue); i++)
		if (!strcmp(d->type, catalogue[i].name)) {
			if (catalogue[i].make(p, d, e))
				return -1;
			note_place(p, d, before);
			return 0;
		}
	return err_set(e, ERR_INVALID, "there is no device '%s'", d->type);
}

int
catalogue_build(struct pc *p, struct err *e)
{
	for (int i = 0; i < p->c->device_count; i++)
		if (build_device(p, &p->c->devices[i], e))
			return -1;
	return 0;
}

int
pc_change_medium(struct pc *p, struct pc_device *d, int unit, struct block *medium, bool force, struct err *e)
{
	int r = -ENOENT;

	if (!strcmp(d->type, "ide"))
		r = ide_change_medium(d->made, unit / 2, unit % 2, medium, force);
	else if (!strcmp(d->type, "ahci"))
		r = ahci_change_medium(d->made, unit, medium, force);
	if (r == -EBUSY)
		return err_set(e, ERR_IN_USE, "the guest has locked the drive; try again, or force it");
	return r ? err_set(e, ERR_NOT_FOUND, "there is no DVD drive at place %d of this controller", unit) : 0;
}
