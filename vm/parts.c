/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From the configuration to the machine's parts list: images opened, networks plugged in, serial lines connected, and
 * one row of pc_config.devices each.
 *
 * PCI slots are those of a VirtualBox machine, so that guests name their interfaces the same (enp0s3, enp0s8):
 * the guest device in slot 4; network adapters 1-4 in slots 3, 8, 9, 10, 5-8 in 16-19; the SATA controller in 13.
 * Others take what is free.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "dev/dev.h"
#include "vm/private.h"

static const int nic_slots[VM_NICS_MAX] = { 3, 8, 9, 10, 16, 17, 18, 19 };
#define AHCI_SLOT 13
#define GUEST_DEVICE_SLOT 4

/* ---- disks ---- */

static int
open_disk(struct vm *v, int controller, int attachment, struct err *e)
{
	struct vm_attachment *a = &v->c->controllers[controller].attachments[attachment];
	struct vm_disk *d = &v->disks[v->disk_count];
	bool readonly = a->readonly || a->type == VM_DVD;

	if (v->disk_count == VM_DISKS_MAX)
		return err_set(e, ERR_INVALID, "the machine has too many disks");
	*d = (struct vm_disk){ .v = v, .controller = controller, .attachment = attachment };
	if (a->path[0]) {
		d->block = block_open(a->path, a->format[0] ? a->format : NULL,
			vm_cache_flags(d) | (readonly		? BLOCK_RDONLY
						    : a->shared ? BLOCK_SHARED
								: 0),
			e);
		if (!d->block)
			return -1;
		vm_disk_opened(d);
	}
	v->disk_count++;
	return 0;
}

int
vm_open_disks(struct vm *v, struct err *e)
{
	for (int i = 0; i < v->c->controller_count; i++)
		for (int k = 0; k < v->c->controllers[i].attachment_count; k++)
			if (open_disk(v, i, k, e)) {
				vm_close_disks(v);
				return -1;
			}
	return 0;
}

void
vm_close_disks(struct vm *v)
{
	while (v->disk_count) {
		struct vm_disk *d = &v->disks[--v->disk_count];

		if (d->block)
			block_close(d->block);
		d->block = NULL;
	}
}

struct vm_disk *
vm_find_disk(struct vm *v, const char *controller, int port, int device)
{
	for (int i = 0; i < v->disk_count; i++) {
		struct vm_controller *c = &v->c->controllers[v->disks[i].controller];
		struct vm_attachment *a = &c->attachments[v->disks[i].attachment];

		if (!strcmp(c->name, controller) && a->port == port && a->device == device && !a->gone)
			return &v->disks[i];
	}
	return NULL;
}

int
vm_change_medium(struct vm *v, struct vm_disk *d, const char *path, bool force, struct err *e)
{
	struct vm_attachment *a = &v->c->controllers[d->controller].attachments[d->attachment];
	struct block *b = NULL;

	if (path && path[0]) {
		b = vm_open_image(v, path, NULL, vm_cache_flags(d) | (a->type == VM_DVD ? BLOCK_RDONLY : 0), e);
		if (!b)
			return -1;
	}
	if (pc_change_medium(v->pc, d->device, d->unit, b, force, e)) {
		if (b)
			block_close(b);
		return -1;
	}
	if (d->block)
		block_close(d->block);
	d->block = b;
	if (b)
		vm_disk_opened(d);
	free(a->path);
	a->path = xstrdup(path ? path : "");
	d->ejected = false;
	vm_status_write(v);
	return 0;
}

/*
 * The guest opened the tray. The image stays open until it is changed or the machine ends. Who reads the status knows;
 * this may be a thread that cannot write it.
 */
static void
disc_ejected(void *opaque)
{
	struct vm_disk *d = opaque;

	log_info(d->v->c->name, "the guest has ejected a disc");
	d->ejected = true;
	vm_post_job(d->v, (struct vm_job){ .kind = JOB_EJECTED });
}

/* The place of an attachment as machine/ counts. */
static int
drive_unit(const struct vm_controller *c, const struct vm_attachment *a)
{
	return c->type == VM_IDE ? a->port * 2 + a->device : c->type == VM_FLOPPY ? a->device : a->port;
}

struct pc_drive
vm_drive_of(struct vm_disk *d)
{
	const struct vm_attachment *a = &d->v->c->controllers[d->controller].attachments[d->attachment];
	struct pc_drive drive = {
		.unit = d->unit,
		.block = d->block,
		.dvd = a->type == VM_DVD,
		.nonrotational = a->nonrotational,
		.discard = a->discard,
		.ejected = disc_ejected,
		.opaque = d,
	};

	snprintf(drive.serial, sizeof(drive.serial), "%s", a->serial);
	return drive;
}

static void
add_drive(struct vm_disk *d, struct pc_device *p, int unit)
{
	d->device = p;
	d->unit = unit;
	p->drives[p->drive_count++] = vm_drive_of(d);
}

/* ---- serial lines ---- */

static const enum chardev_kind chardev_kinds[] = {
	[VM_SERIAL_DISCONNECTED] = CHARDEV_NULL,
	[VM_SERIAL_FILE] = CHARDEV_FILE,
	[VM_SERIAL_STDIO] = CHARDEV_STDIO,
	[VM_SERIAL_PTY] = CHARDEV_PTY,
	[VM_SERIAL_SERVER] = CHARDEV_UNIX_SERVER,
	[VM_SERIAL_CLIENT] = CHARDEV_UNIX_CLIENT,
	[VM_SERIAL_TCP_SERVER] = CHARDEV_TCP_SERVER,
	[VM_SERIAL_TCP_CLIENT] = CHARDEV_TCP_CLIENT,
	[VM_SERIAL_DEVICE] = CHARDEV_DEVICE,
};

/* On the user's terminal: Ctrl-A x ends the machine, Ctrl-A Ctrl-A is a Ctrl-A for the guest. */
static size_t
escape_keys(void *opaque, uint8_t *bytes, size_t n)
{
	struct vm *v = opaque;
	size_t left = 0;

	for (size_t i = 0; i < n; i++) {
		bool escaped = v->escape_seen;

		v->escape_seen = !escaped && bytes[i] == 1;
		if (v->escape_seen)
			continue;
		if (escaped && (bytes[i] | 0x20) == 'x')
			vm_request_stop(v);
		else
			bytes[left++] = bytes[i];
	}
	return left;
}

static int
open_serial(struct vm *v, const struct vm_serial *s, struct err *e)
{
	bool argument = s->mode != VM_SERIAL_DISCONNECTED && s->mode != VM_SERIAL_STDIO && s->mode != VM_SERIAL_PTY;
	struct pc_serial *port = &v->pcc.serial[s->port];

	if (s->mode == VM_SERIAL_STDIO && !v->o.foreground)
		return err_set(
			e, ERR_INVALID, "serial port %d cannot use stdio: the machine runs in the background", s->port);
	port->base = s->base;
	port->irq = s->irq;
	port->cd = chardev_open(v->m->loop, chardev_kinds[s->mode], argument ? s->path : NULL, e);
	if (!port->cd)
		return err_wrap(e, "serial port %d", s->port);
	if (s->mode == VM_SERIAL_STDIO && isatty(STDIN_FILENO))
		chardev_set_filter(port->cd, escape_keys, v);
	if (s->mode != VM_SERIAL_PTY)
		return 0;
	log_info(v->c->name, "serial port %d is %s", s->port, chardev_path(port->cd));
	if (s->path[0]) {
		unlink(s->path);
		if (symlink(chardev_path(port->cd), s->path))
			return err_sys(
				e, ERR_FILE, errno, "cannot make the link %s to %s", s->path, chardev_path(port->cd));
	}
	return 0;
}

int
vm_open_serial(struct vm *v, struct err *e)
{
	for (int i = 0; i < v->c->serial_count; i++)
		if (open_serial(v, &v->c->serial[i], e)) {
			vm_close_serial(v);
			return -1;
		}
	return 0;
}

void
vm_close_serial(struct vm *v)
{
	audio_close(v->audio);
	v->audio = NULL;
	for (int i = 0; i < v->device_count; i++) {
		if (v->devices[i].cd)
			chardev_close(v->devices[i].cd);
		v->devices[i].cd = NULL;
	}
	for (int i = 0; i < PC_SERIAL_MAX; i++) {
		if (v->pcc.serial[i].cd)
			chardev_close(v->pcc.serial[i].cd);
		v->pcc.serial[i].cd = NULL;
	}
}

/* ---- the list ---- */

static struct pc_device *
add_device(struct vm *v, const char *type, int slot)
{
	struct pc_device *d = &v->devices[v->device_count];

	if (v->device_count == PC_DEVICES_MAX)
		return NULL;
	v->device_count++;
	*d = (struct pc_device){ .type = type, .slot = slot };
	return d;
}

static bool
slot_taken(struct vm *v, int slot)
{
	for (int i = 0; i < v->device_count; i++)
		if (v->devices[i].slot == slot)
			return true;
	return false;
}

static void
list_nics(struct vm *v)
{
	static const char *const models[] = {
		[VM_82543GC] = "82543GC",
		[VM_82545EM] = "82545EM",
		[VM_AM79C970A] = "Am79C970A",
		[VM_AM79C973] = "Am79C973",
	};

	for (int i = 0; i < v->c->nic_count; i++) {
		struct vm_nic *n = &v->c->nics[i];
		bool pcnet = n->model == VM_AM79C970A || n->model == VM_AM79C973;
		const char *type = n->model == VM_VIRTIO_NET ? "virtio-net" : pcnet ? "pcnet" : "e1000";
		struct pc_device *d = add_device(v, type, nic_slots[n->slot]);

		d->link = &v->links[i];
		d->variant = models[n->model];
		d->boot_priority = n->boot_priority;
	}
}

/* One device for all drives of a controller that is not virtio-blk. */
static int
list_controller(struct vm *v, int n, struct err *e)
{
	static const char *const types[] = {
		[VM_IDE] = "ide",
		[VM_AHCI] = "ahci",
		[VM_VIRTIO_SCSI] = "virtio-scsi",
		[VM_NVME] = "nvme",
		[VM_LSILOGIC] = "lsilogic",
		[VM_LSISAS] = "lsisas",
		[VM_FLOPPY] = "floppy",
		[VM_USB] = "xhci",
	};
	struct vm_controller *c = &v->c->controllers[n];
	struct pc_device *d;

	d = add_device(v, types[c->type], c->type == VM_AHCI && !slot_taken(v, AHCI_SLOT) ? AHCI_SLOT : -1);
	if (!d)
		return err_set(e, ERR_INVALID, "the machine has too many devices");
	d->ports = c->ports ? c->ports : 1;
	d->variant = c->model[0] ? c->model : NULL;
	d->not_bootable = !c->bootable;
	d->tablet = c->type == VM_USB && v->c->usb_tablet;
	d->keyboard = c->type == VM_USB && v->c->usb_keyboard;
	for (int i = 0; i < v->disk_count; i++) {
		struct vm_attachment *a = &c->attachments[v->disks[i].attachment];

		if (v->disks[i].controller == n)
			add_drive(&v->disks[i], d, drive_unit(c, a));
	}
	return 0;
}

static int
list_virtio_disks(struct vm *v, int n, struct err *e)
{
	for (int i = 0; i < v->disk_count; i++) {
		struct pc_device *d;

		if (v->disks[i].controller != n)
			continue;
		d = add_device(v, "virtio-blk", -1);
		if (!d)
			return err_set(e, ERR_INVALID, "the machine has too many devices");
		d->not_bootable = !v->c->controllers[n].bootable;
		add_drive(&v->disks[i], d, 0);
	}
	return 0;
}

/* "virtio-rng", "virtio-console=file:/path" */
static int
list_named(struct vm *v, const char *text, struct err *e)
{
	const char *argument = strchr(text, '=');
	struct pc_device *d = add_device(v, vm_device_type(text), -1);

	if (!d)
		return err_set(e, ERR_INVALID, "the machine has too many devices");
	if (!argument)
		return 0;
	d->cd = chardev_parse(v->m->loop, argument + 1, e);
	return d->cd ? 0 : -1;
}

static int
list_agent(struct vm *v, struct err *e)
{
	struct pc_device *d = add_device(v, "virtio-serial", -1);

	if (!d)
		return err_set(e, ERR_INVALID, "the machine has too many devices");
	vm_agent_wire(v, d);
	return 0;
}

/* The USB controller, unless one with disks is listed as that, and the sound card. */
static int
list_others(struct vm *v, struct err *e)
{
	bool usb = v->c->usb || v->c->usb_tablet || v->c->usb_keyboard;
	struct pc_device *d;

	for (int i = 0; i < v->c->controller_count; i++)
		usb &= v->c->controllers[i].type != VM_USB;
	if (usb) {
		d = add_device(v, "xhci", -1);
		if (!d)
			return err_set(e, ERR_INVALID, "the machine has too many devices");
		d->tablet = v->c->usb_tablet;
		d->keyboard = v->c->usb_keyboard;
	}
	if (!v->c->audio)
		return 0;
	d = add_device(v, v->c->hda ? "hda" : "ac97", -1);
	if (!d)
		return err_set(e, ERR_INVALID, "the machine has too many devices");
	if (v->c->audio_file[0] && !v->audio)
		v->audio = audio_file_open(v->c->audio_file, e);
	d->audio = v->audio;
	return v->c->audio_file[0] && !v->audio ? -1 : 0;
}

int
vm_list_devices(struct vm *v, struct err *e)
{
	v->device_count = 0;
	if (v->c->vga_mib) {
		struct pc_device *d = add_device(v, "vga", -1);

		d->vram = v->c->vga_mib << 20;
		d->monitors = v->c->vga_vbox ? v->c->vga_monitors : 0;
	}
	if (v->shares) {
		struct pc_device *d = add_device(v, "vmmdev", GUEST_DEVICE_SLOT);

		d->share = vm_share_of(v);
		d->props = vm_props(v);
		d->vram = v->c->vga_mib << 20;
		d->no_host_time = !v->c->host_time;
		d->time_offset_ms = v->c->rtc_offset_ms;
	}
	list_nics(v);
	for (int i = 0; i < v->c->controller_count; i++)
		if (v->c->controllers[i].type != VM_VIRTIO && list_controller(v, i, e))
			return -1;
	for (int i = 0; i < v->c->controller_count; i++)
		if (v->c->controllers[i].type == VM_VIRTIO && list_virtio_disks(v, i, e))
			return -1;
	if (list_others(v, e))
		return -1;
	for (int i = 0; i < v->c->device_count; i++)
		if (list_named(v, v->c->devices[i], e))
			return -1;
	return v->c->agent ? list_agent(v, e) : 0;
}
