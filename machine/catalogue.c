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
	struct vga_rom rom = { 0 };
	void *data = path ? file_read(path, 1 << 16, &rom.len, NULL) : NULL;
	int slot = d->slot < 0 ? SLOT_VGA : d->slot;

	rom.data = data;
	if (!data)
		log_warn(p->m.name, "there is no VGA BIOS (vgabios-stdvga.bin) on this host: firmware shows nothing");
	p->vga = d->monitors ? vboxvga_create(&p->m, slot, &rom, d->vram, (unsigned)d->monitors)
			     : vga_create(&p->m, slot, &rom, d->vram);
	free(data);
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

/* ---- controllers: how drives are put on them, before power-on and while the machine runs ---- */

static int
attach_to_ide(void *made, int unit, const struct drive_config *c, struct err *e)
{
	return ide_attach(made, unit / 2, unit % 2, c, e);
}

static int
attach_to_ahci(void *made, int unit, const struct drive_config *c, struct err *e)
{
	return ahci_attach(made, unit, c, e);
}

static int
attach_to_virtio_scsi(void *made, int unit, const struct drive_config *c, struct err *e)
{
	return virtio_scsi_attach(made, unit, c, e);
}

static int
attach_to_nvme(void *made, int unit, const struct drive_config *c, struct err *e)
{
	return nvme_attach(made, unit, c, e);
}

static int
attach_to_lsilogic(void *made, int unit, const struct drive_config *c, struct err *e)
{
	return lsilogic_attach(made, unit, c, e);
}

static int
attach_to_floppy(void *made, int unit, const struct drive_config *c, struct err *e)
{
	return fdc_set_drive(made, unit, c->block, e);
}

static int
attach_to_xhci(void *made, int unit, const struct drive_config *c, struct err *e)
{
	return xhci_attach(made, unit, c, e);
}

static int
detach_from_ahci(void *made, int unit)
{
	return ahci_detach(made, unit);
}

static int
detach_from_virtio_scsi(void *made, int unit)
{
	return virtio_scsi_detach(made, unit);
}

static int
detach_from_nvme(void *made, int unit)
{
	return nvme_detach(made, unit);
}

static int
change_in_ide(void *made, int unit, struct block *medium, bool force)
{
	return ide_change_medium(made, unit / 2, unit % 2, medium, force);
}

static int
change_in_ahci(void *made, int unit, struct block *medium, bool force)
{
	return ahci_change_medium(made, unit, medium, force);
}

static int
change_in_virtio_scsi(void *made, int unit, struct block *medium, bool force)
{
	return virtio_scsi_change_medium(made, unit, medium, force);
}

static int
change_in_lsilogic(void *made, int unit, struct block *medium, bool force)
{
	return lsilogic_change_medium(made, unit, medium, force);
}

static int
change_in_floppy(void *made, int unit, struct block *medium, bool force)
{
	return fdc_change_medium(made, unit, medium);
}

static const struct controller_type {
	const char *name;
	int (*attach)(void *made, int unit, const struct drive_config *c, struct err *e);
	int (*detach)(void *made, int unit);				       /* NULL: no hot plug */
	int (*change)(void *made, int unit, struct block *medium, bool force); /* NULL: no media that come and go */
} controllers[] = {
	{ "ide", attach_to_ide, NULL, change_in_ide },
	{ "ahci", attach_to_ahci, detach_from_ahci, change_in_ahci },
	{ "virtio-scsi", attach_to_virtio_scsi, detach_from_virtio_scsi, change_in_virtio_scsi },
	{ "nvme", attach_to_nvme, detach_from_nvme, NULL },
	{ "lsilogic", attach_to_lsilogic, NULL, change_in_lsilogic },
	{ "lsisas", attach_to_lsilogic, NULL, change_in_lsilogic },
	{ "xhci", attach_to_xhci, NULL, NULL },
	{ "floppy", attach_to_floppy, NULL, change_in_floppy },
};

static const struct controller_type *
controller_type(const struct pc_device *d)
{
	for (size_t i = 0; i < ARRAY_LEN(controllers); i++)
		if (!strcmp(d->type, controllers[i].name))
			return &controllers[i];
	return NULL;
}

static int
attach_drives(struct pc_device *d, struct err *e)
{
	const struct controller_type *t = controller_type(d);

	for (int i = 0; d->made && i < d->drive_count; i++) {
		struct drive_config c = drive_config(&d->drives[i]);

		if (t->attach(d->made, d->drives[i].unit, &c, e))
			return -1;
	}
	return d->made ? 0 : -1;
}

static int
make_ide(struct pc *p, struct pc_device *d, struct err *e)
{
	struct ide_wires wires = { .irq = { isairq_input(p->isa, 14), isairq_input(p->isa, 15) },
		.piix3 = d->variant && !strcmp(d->variant, "PIIX3"),
		.ich6 = d->variant && !strcmp(d->variant, "ICH6") };

	d->made = ide_create(&p->m, SLOT_PIIX, 1, &wires);
	if (!d->made)
		return err_set(e, ERR_INVALID, "a machine can have one IDE controller");
	return attach_drives(d, e);
}

static int
make_ahci(struct pc *p, struct pc_device *d, struct err *e)
{
	d->made = ahci_create(&p->m, d->slot, d->ports, e);
	return attach_drives(d, e);
}

static int
make_virtio_scsi(struct pc *p, struct pc_device *d, struct err *e)
{
	d->made = virtio_scsi_create(&p->m, d->slot, 0, d->ports, e);
	return attach_drives(d, e);
}

static int
make_nvme(struct pc *p, struct pc_device *d, struct err *e)
{
	d->made = nvme_create(&p->m, d->slot, d->ports, e);
	return attach_drives(d, e);
}

static int
make_lsilogic(struct pc *p, struct pc_device *d, struct err *e)
{
	d->made = lsilogic_create(&p->m, d->slot, e);
	return attach_drives(d, e);
}

static int
make_lsisas(struct pc *p, struct pc_device *d, struct err *e)
{
	d->made = lsisas_create(&p->m, d->slot, e);
	return attach_drives(d, e);
}

static int
make_floppy(struct pc *p, struct pc_device *d, struct err *e)
{
	if (p->floppy)
		return err_set(e, ERR_INVALID, "a machine can have one floppy controller");
	p->floppy = fdc_create(&p->m, isairq_input(p->isa, 6), p->dma);
	d->made = p->floppy;
	return attach_drives(d, e);
}

static int
make_xhci(struct pc *p, struct pc_device *d, struct err *e)
{
	d->made = xhci_create(&p->m, d->slot, e);
	if (attach_drives(d, e))
		return -1;
	if (d->tablet && !(p->usb_tablet = xhci_add_tablet(d->made, e)))
		return -1;
	return d->keyboard && !(p->usb_keyboard = xhci_add_keyboard(d->made, e)) ? -1 : 0;
}

static int
make_ac97(struct pc *p, struct pc_device *d, struct err *e)
{
	d->made = ac97_create(&p->m, d->slot, d->audio, e);
	return d->made ? 0 : -1;
}

static int
make_hda(struct pc *p, struct pc_device *d, struct err *e)
{
	d->made = hda_create(&p->m, d->slot, d->audio, e);
	return d->made ? 0 : -1;
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
make_pcnet(struct pc *p, struct pc_device *d, struct err *e)
{
	d->made = pcnet_create(&p->m, d->slot, d->variant ? d->variant : "Am79C973", d->link, e);
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
make_virtio_serial(struct pc *p, struct pc_device *d, struct err *e)
{
	d->made = virtio_serial_create(&p->m, d->slot, 0, VIRTIO_SERIAL_AGENT, d->port, d->port_opaque, d->cd, e);
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

static int
make_vmmdev(struct pc *p, struct pc_device *d, struct err *e)
{
	struct vmmdev_wires w = { .share = d->share,
		.props = d->props,
		.ram = p->c->ram,
		.vram = d->vram,
		.no_time = d->no_host_time,
		.time_offset_ms = d->time_offset_ms };

	p->guest_device = vmmdev_create(&p->m, d->slot, &w, e);
	d->made = p->guest_device;
	return d->made ? 0 : -1;
}

static const struct device_type {
	const char *name;
	int (*make)(struct pc *p, struct pc_device *d, struct err *e);
} catalogue[] = {
	{ "vga", make_vga },
	{ "ide", make_ide },
	{ "ahci", make_ahci },
	{ "virtio-scsi", make_virtio_scsi },
	{ "nvme", make_nvme },
	{ "lsilogic", make_lsilogic },
	{ "lsisas", make_lsisas },
	{ "xhci", make_xhci },
	{ "ac97", make_ac97 },
	{ "hda", make_hda },
	{ "floppy", make_floppy },
	{ "e1000", make_e1000 },
	{ "pcnet", make_pcnet },
	{ "virtio-blk", make_virtio_blk },
	{ "virtio-net", make_virtio_net },
	{ "virtio-console", make_virtio_console },
	{ "virtio-serial", make_virtio_serial },
	{ "virtio-rng", make_virtio_rng },
	{ "virtio-balloon", make_virtio_balloon },
	{ "vmmdev", make_vmmdev },
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
	const struct controller_type *t = controller_type(d);
	int r = t && t->change ? t->change(d->made, unit, medium, force) : -ENOENT;

	if (r == -EBUSY)
		return err_set(e, ERR_IN_USE, "the guest has locked the drive; try again, or force it");
	if (r == -EINVAL)
		return err_set(e, ERR_INVALID, "'%s' has a size that no floppy disk has", block_path(medium));
	return r ? err_set(e, ERR_NOT_FOUND, "there is no drive with a medium to change at place %d of this controller",
			   unit)
		 : 0;
}

/* ---- hot plug ---- */

int
pc_attach_drive(struct pc *p, struct pc_device *d, const struct pc_drive *drive, struct err *e)
{
	const struct controller_type *t = controller_type(d);
	struct drive_config c = drive_config(drive);

	if (!t || !t->detach)
		return err_set(e, ERR_VM_STATE, "this controller does not support hot-plugging");
	if (d->drive_count == PC_DRIVES_MAX)
		return err_set(e, ERR_INVALID, "the controller has too many drives");
	if (t->attach(d->made, drive->unit, &c, e))
		return -1;
	d->drives[d->drive_count++] = *drive;
	return 0;
}

int
pc_detach_drive(struct pc *p, struct pc_device *d, int unit, struct err *e)
{
	const struct controller_type *t = controller_type(d);
	int i = 0;

	if (!t || !t->detach)
		return err_set(e, ERR_VM_STATE, "this controller does not support hot-plugging");
	if (t->detach(d->made, unit))
		return err_set(e, ERR_NOT_FOUND, "there is no drive at place %d of this controller", unit);
	while (i < d->drive_count && d->drives[i].unit != unit)
		i++;
	if (i < d->drive_count)
		memmove(&d->drives[i], &d->drives[i + 1], (size_t)(--d->drive_count - i) * sizeof(d->drives[0]));
	return 0;
}
