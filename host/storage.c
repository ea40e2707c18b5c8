/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Storage controllers of a machine and what is attached to them.
 */
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "block/block.h"
#include "host/inv.h"
#include "host/run.h"

static const struct bus_row buses[] = {
	{ "ide", HOST_IDE, "PIIX4", "ide", 2, 2, 2, 2 },
	{ "sata", HOST_SATA, "IntelAhci", "ahci", 30, 30, 1, 1 },
	{ "virtio", HOST_VIRTIO_BLK, "VirtioBlk", "virtio", 1, 30, 1, 1 },
	{ "floppy", HOST_FLOPPY_BUS, "I82078", "floppy", 1, 1, 1, 2 },
	{ "scsi", HOST_SCSI, "LsiLogic", "lsilogic", 16, 16, 16, 1 },
	{ "sas", HOST_SAS, "LsiLogicSas", "lsisas", 8, 8, 8, 1 },
	{ "usb", HOST_USB, "USB", "usb", 8, 8, 8, 1 },
	{ "pcie", HOST_NVME, "NVMe", "nvme", 1, 64, 1, 1 },
	{ "virtio-scsi", HOST_VIRTIO_SCSI, "VirtioSCSI", "virtio-scsi", 1, 64, 1, 1 },
};

/* Types of controllers as they may be written, and as VirtualBox spells them; NULL: not here. */
static const struct {
	const char *word;
	enum host_bus bus;
	const char *type;
} types[] = {
	{ "PIIX3", HOST_IDE, "PIIX3" },
	{ "PIIX4", HOST_IDE, "PIIX4" },
	{ "ICH6", HOST_IDE, "ICH6" },
	{ "IntelAhci", HOST_SATA, "IntelAhci" },
	{ "VirtIO", HOST_VIRTIO_BLK, "VirtioBlk" },
	{ "VirtioBlk", HOST_VIRTIO_BLK, "VirtioBlk" },
	{ "VirtIO", HOST_VIRTIO_SCSI, "VirtioSCSI" },
	{ "VirtioSCSI", HOST_VIRTIO_SCSI, "VirtioSCSI" },
	{ "LSILogic", HOST_SCSI, "LsiLogic" },
	{ "BusLogic", HOST_SCSI, NULL },
	{ "LSILogicSAS", HOST_SAS, "LsiLogicSas" },
	{ "I82078", HOST_FLOPPY_BUS, "I82078" },
	{ "USB", HOST_USB, "USB" },
	{ "NVMe", HOST_NVME, "NVMe" },
};

const struct bus_row *
bus_row(const char *word)
{
	for (size_t i = 0; i < ARRAY_LEN(buses); i++)
		if (!strcasecmp(word, buses[i].word))
			return &buses[i];
	return NULL;
}

const struct bus_row *
bus_of(enum host_bus b)
{
	for (size_t i = 0; i < ARRAY_LEN(buses); i++)
		if (buses[i].bus == b)
			return &buses[i];
	return &buses[0];
}

static struct host_controller *
need_controller(struct host_vm *vm, const char *name, struct err *e)
{
	struct host_controller *c = vm_controller(vm, name);

	if (!c)
		err_set(e, ERR_NOT_FOUND, "Could not find a storage controller named '%s'", name);
	return c;
}

const char *
controller_type(const struct bus_row *bus, const char *type)
{
	for (size_t i = 0; i < ARRAY_LEN(types); i++)
		if (types[i].bus == bus->bus && types[i].type && !strcasecmp(type, types[i].type))
			return types[i].type;
	return bus->type;
}

static int
change_type(struct host_controller *ctl, const char *type, struct err *e)
{
	const struct bus_row *bus = bus_of(ctl->bus);
	bool known = false;

	for (size_t i = 0; type && i < ARRAY_LEN(types); i++) {
		if (strcasecmp(type, types[i].word))
			continue;
		known = true;
		if (types[i].bus != ctl->bus)
			continue;
		if (!types[i].type)
			return err_set(e, ERR_UNSUPPORTED,
				"There is no storage controller '%s' here: for '%s' it is '%s'", type, bus->word,
				bus->type);
		ctl->type = types[i].type;
		return 0;
	}
	if (known)
		return err_set(e, ERR_INVALID, "A controller of the bus '%s' cannot be a '%s'", bus->word, type);
	return type ? err_set(e, ERR_INVALID, "Invalid storage controller type '%s'", type) : 0;
}

static int
check_ports(const struct bus_row *bus, int ports, struct err *e)
{
	if (ports < 0 || (ports >= bus->min_ports && ports <= bus->max_ports))
		return 0;
	return err_set(e, ERR_INVALID, "Invalid port count: %d (must be in range [%d, %d])", ports, bus->min_ports,
		bus->max_ports);
}

static int
add_controller(struct host_vm *vm, const struct host_controller_change *c, struct err *e)
{
	const struct bus_row *bus = bus_row(c->add);
	struct host_controller *ctl;

	if (!bus)
		return err_set(e, ERR_INVALID, "Invalid storage bus '%s'", c->add);
	if (!bus->type)
		return err_set(e, ERR_UNSUPPORTED,
			"A controller of the bus '%s' cannot be had: ide, sata, scsi, pcie, usb, virtio, virtio-scsi "
			"and "
			"floppy can",
			bus->word);
	if (!*c->name || strlen(c->name) > 250)
		return err_set(e, ERR_INVALID, "Invalid storage controller name '%s'", c->name);
	if (vm_controller(vm, c->name))
		return err_set(e, ERR_IN_USE, "Storage controller named '%s' already exists", c->name);
	for (int i = 0; i < vm->ctl_count; i++)
		if (vm->ctl[i].bus == bus->bus)
			return err_set(e, ERR_INVALID, "Too many storage controllers of this type: '%s' is one of '%s'",
				vm->ctl[i].name, bus->word);
	ctl = vm_controller_add(vm, c->name);
	ctl->bus = bus->bus;
	ctl->type = bus->type;
	ctl->ports = bus->ports;
	ctl->max_ports = bus->max_ports;
	ctl->devices_per_port = bus->devices;
	ctl->bootable = true;
	return 0;
}

static int
change_ports(struct host_controller *ctl, int ports, struct err *e)
{
	if (ports < 0)
		return 0;
	for (int i = 0; i < ctl->at_count; i++)
		if (ctl->at[i].port >= ports)
			return err_set(e, ERR_IN_USE,
				"Port %d of controller '%s' is in use: it needs at least %d ports", ctl->at[i].port,
				ctl->name, ctl->at[i].port + 1);
	ctl->ports = ports;
	return 0;
}

static int
apply_controller(struct host *h, struct host_vm *vm, const struct host_controller_change *c, struct err *e)
{
	struct host_controller *ctl;

	if (c->add && add_controller(vm, c, e))
		return -1;
	ctl = need_controller(vm, c->name, e);
	if (!ctl)
		return -1;
	if (c->remove) {
		if (disk_groups_rename(h, vm, ctl->name, NULL, e))
			return -1;
		vm_controller_remove(vm, ctl);
		return 0;
	}
	if (change_type(ctl, c->type, e) || check_ports(bus_of(ctl->bus), c->ports, e) ||
		change_ports(ctl, c->ports, e))
		return -1;
	if (c->bootable >= 0)
		ctl->bootable = c->bootable;
	if (c->hostiocache >= 0)
		ctl->hostiocache = c->hostiocache;
	if (c->rename) {
		if (vm_controller(vm, c->rename))
			return err_set(e, ERR_IN_USE, "Storage controller named '%s' already exists", c->rename);
		if (disk_groups_rename(h, vm, ctl->name, c->rename, e))
			return -1;
		free(ctl->name);
		ctl->name = xstrdup(c->rename);
	}
	return 0;
}

int
host_vm_controller(struct host *h, const char *id, const struct host_controller_change *c, struct err *e)
{
	struct host_vm *vm = vm_edit_begin(h, id, e);

	return vm ? vm_edit_end(h, vm, vm_check_mutable(vm, e) || apply_controller(h, vm, c, e) ? -1 : 0, e) : -1;
}

/* ---- attachments ---- */

/* Where: the only place there is when none is named; more ports when the controller can have them. */
static int
find_place(struct host_controller *c, const struct host_attach *a, int *port, int *device, struct err *e)
{
	*port = a->port;
	*device = a->device;
	if (*port < 0 && c->ports == 1)
		*port = 0;
	if (*device < 0 && c->devices_per_port == 1)
		*device = 0;
	if (*port < 0)
		return err_set(e, ERR_USAGE, "Port not specified");
	if (*device < 0)
		return err_set(e, ERR_USAGE, "Device not specified");
	if (*port >= c->max_ports || *device >= c->devices_per_port)
		return err_set(e, ERR_INVALID,
			"The port and/or device parameter are out of range: port=%d (must be in range [0, %d]), "
			"device=%d (must be in range [0, %d])",
			*port, c->max_ports - 1, *device, c->devices_per_port - 1);
	if (*port >= c->ports)
		c->ports = *port + 1;
	return 0;
}

static int
device_of(const char *word, enum host_device *out, struct err *e)
{
	if (!strcasecmp(word, "hdd"))
		*out = HOST_DISK;
	else if (!strcasecmp(word, "dvddrive"))
		*out = HOST_DVD;
	else if (!strcasecmp(word, "fdd"))
		*out = HOST_FLOPPY;
	else
		return err_set(e, ERR_USAGE, "Invalid --type argument '%s'", word);
	return 0;
}

/* Which kind of device: as said, as it is, or as the medium tells. */
static int
choose_type(struct host *h, const struct host_controller *c, const struct host_attach *a,
	const struct host_attachment *old, enum host_device *type, struct err *e)
{
	struct host_medium *m;

	if (a->type)
		return device_of(a->type, type, e);
	if (old) {
		*type = old->type;
		return 0;
	}
	if (c->bus == HOST_FLOPPY_BUS) {
		*type = HOST_FLOPPY;
		return 0;
	}
	if (!strcmp(a->medium, "emptydrive")) {
		*type = HOST_DVD;
		return 0;
	}
	for (int t = HOST_DVD; t >= HOST_DISK; t--) {
		m = host_medium_load(h, (enum host_device)t, a->medium, e);
		host_medium_free(m);
		*type = (enum host_device)t;
		if (m)
			return 0;
	}
	return err_set(e, ERR_USAGE, "Argument --type not specified");
}

static int
check_bus(const struct host_controller *c, enum host_device type, struct err *e)
{
	if ((type == HOST_FLOPPY) != (c->bus == HOST_FLOPPY_BUS))
		return err_set(e, ERR_INVALID, "A %s cannot be attached to controller '%s'",
			type == HOST_FLOPPY ? "floppy drive" : "drive that is not for floppy disks", c->name);
	if (type == HOST_DVD && (c->bus == HOST_VIRTIO_BLK || c->bus == HOST_NVME || c->bus == HOST_USB))
		return err_set(e, ERR_UNSUPPORTED,
			"A DVD drive cannot be attached to controller '%s': use one of ide, sata, scsi or virtio-scsi",
			c->name);
	return 0;
}

static int
same_machine_has(
	struct host_vm *vm, const char *medium, const char *path, struct host_attachment *except, struct err *e)
{
	for (int i = 0; i < vm->ctl_count; i++) {
		for (int k = 0; k < vm->ctl[i].at_count; k++) {
			struct host_attachment *a = &vm->ctl[i].at[k];

			if (a != except && a->type == HOST_DISK && a->medium && !strcmp(a->medium, medium))
				return err_set(e, ERR_IN_USE,
					"Medium '%s' is already attached to port %d, device %d of controller '%s' of "
					"this "
					"virtual machine",
					path, a->port, a->device, vm->ctl[i].name);
		}
	}
	return 0;
}

/* A disk has one user: two would destroy it. Discs are only read. */
static int
check_disk_free(struct host *h, struct host_vm *vm, const char *medium, const char *path,
	struct host_attachment *except, struct err *e)
{
	struct host_medium *m;
	int r = 0;

	if (same_machine_has(vm, medium, path, except, e))
		return -1;
	m = host_medium_load(h, HOST_DISK, medium, e);
	if (!m)
		return -1;
	for (int i = 0; i < m->users && !r; i++)
		if (strcmp(m->user_uuids[i], vm->uuid))
			r = err_set(e, ERR_IN_USE, "Medium '%s' is already attached to the virtual machine '%s'", path,
				m->user_names[i]);
	host_medium_free(m);
	return r;
}

/* Put the medium that `a` names into the device. */
static int
insert_medium(
	struct host *h, struct host_vm *vm, struct host_attachment *at, const struct host_attach *a, struct err *e)
{
	char uuid[37], *path = NULL, *format = NULL;

	if (!strcmp(a->medium, "emptydrive")) {
		if (at->type == HOST_DISK)
			return err_set(e, ERR_INVALID, "A hard disk cannot be an empty drive");
	} else {
		if (medium_get(h, at->type, a->medium, uuid, &path, &format, e))
			return -1;
		if (at->type == HOST_DISK &&
			((!medium_kind_many(medium_kind(h, uuid)) && check_disk_free(h, vm, uuid, path, at, e)) ||
				medium_attach_as(h, vm, uuid, &path, &format, e))) {
			free(path);
			free(format);
			return -1;
		}
	}
	free(at->medium);
	free(at->path);
	free(at->format);
	at->medium = path ? xstrdup(uuid) : NULL;
	at->path = path;
	at->format = format;
	return 0;
}

static bool
knows_hot_plug(const struct host_controller *c)
{
	return c->bus == HOST_SATA || c->bus == HOST_VIRTIO_SCSI || c->bus == HOST_NVME;
}

static int
flag_refused(const char *flag, const char *what, const struct host_controller *c, const struct host_attachment *at,
	struct err *e)
{
	return err_set(e, ERR_INVALID,
		"Setting the %s flag rejected as the device attached to device slot %d on port %d of controller '%s' "
		"is no "
		"%s",
		flag, at->device, at->port, c->name, what);
}

static int
apply_flags(const struct host_controller *c, struct host_attachment *at, const struct host_attach *a, struct err *e)
{
	if (a->passthrough > 0)
		return err_set(e, ERR_UNSUPPORTED, "Drives of the host cannot be passed through");
	if (a->hotpluggable >= 0 && !knows_hot_plug(c))
		return err_set(e, ERR_UNSUPPORTED,
			"Controller '%s' does not support changing the hot-pluggable device flag", c->name);
	if (a->nonrotational > 0 && at->type != HOST_DISK)
		return flag_refused("non-rotational medium", "hard disk", c, at, e);
	if (a->discard > 0 && at->type != HOST_DISK)
		return flag_refused("discard medium", "hard disk", c, at, e);
	if (a->tempeject > 0 && at->type != HOST_DVD)
		return flag_refused("temporary eject", "DVD", c, at, e);
	if (a->hotpluggable >= 0)
		at->hotpluggable = a->hotpluggable;
	if (a->nonrotational >= 0)
		at->nonrotational = a->nonrotational;
	if (a->discard >= 0)
		at->discard = a->discard;
	if (a->tempeject >= 0)
		at->tempeject = a->tempeject;
	return 0;
}

static int
detach(struct host_controller *c, struct host_attachment *old, int port, int device, struct err *e)
{
	if (!old)
		return err_set(e, ERR_NOT_FOUND,
			"No storage device attached to device slot %d on port %d of controller '%s'", device, port,
			c->name);
	vm_attachment_remove(c, old);
	return 0;
}

static int
set_comment(struct host *h, const struct host_attachment *at, const struct host_attach *a, struct err *e)
{
	if (!a->comment || !at->medium)
		return 0;
	return db_run(h, e, "UPDATE medium SET description = ? WHERE uuid = ?", "ss", a->comment, at->medium);
}

static int
join_group(struct host *h, const struct host_vm *vm, const struct host_controller *c, const struct host_attachment *at,
	const struct host_attach *a, struct err *e)
{
	if (!a->group)
		return 0;
	if (at->type != HOST_DISK)
		return err_set(e, ERR_INVALID, "A bandwidth group is for hard disks");
	return disk_group_join(h, vm, c->name, at->port, at->device, strcasecmp(a->group, "none") ? a->group : NULL, e);
}

/* Change `vm` in memory. *at: the attachment concerned, NULL when it was removed. */
static int
apply_attach(struct host *h, struct host_vm *vm, const struct host_attach *a, struct host_attachment **at,
	struct host_controller **ctl, struct err *e)
{
	struct host_controller *c = *ctl = need_controller(vm, a->controller, e);
	enum host_device type = HOST_DISK;
	struct host_attachment *old;
	int port, device;

	*at = NULL;
	if (!c || find_place(c, a, &port, &device, e))
		return -1;
	old = (struct host_attachment *)host_vm_attachment(c, port, device);
	if (a->medium && !strcmp(a->medium, "none"))
		return detach(c, old, port, device, e) || disk_group_join(h, vm, c->name, port, device, NULL, e) ? -1
														 : 0;
	if (!a->medium && !old)
		return err_set(e, ERR_NOT_FOUND,
			"No storage device attached to device slot %d on port %d of controller '%s'", device, port,
			c->name);
	if (choose_type(h, c, a, old, &type, e) || check_bus(c, type, e))
		return -1;
	if (old && old->type != type) {
		vm_attachment_remove(c, old);
		old = NULL;
	}
	if (!old) {
		old = vm_attachment_add(c, port, device);
		old->type = type;
	}
	*at = old;
	if (a->medium && insert_medium(h, vm, old, a, e))
		return -1;
	return apply_flags(c, old, a, e) || set_comment(h, old, a, e) || join_group(h, vm, c, old, a, e) ? -1 : 0;
}

/* A running machine: the disc in a drive it already has. */
static int
change_disc(struct host *h, const struct host_vm *vm, const struct host_controller *ctl,
	const struct host_attachment *at, bool force, struct err *e)
{
	json_t *params = json_pack("{s:s, s:i, s:i, s:s?, s:b}", "controller", ctl->name, "port", at->port, "device",
		at->device, "path", at->path, "force", force);
	json_t *answer = vm_call(h, vm, "medium.change", params, e);

	json_decref(answer);
	return answer ? 0 : -1;
}

/* ---- a running machine ---- */

enum live { LIVE_REFUSED, LIVE_CHANGE, LIVE_ATTACH, LIVE_DETACH };

/* What is asked of it: the medium of a drive, a drive that comes or goes. */
static enum live
live_change(struct host_vm *vm, const struct host_attach *a, struct err *e)
{
	struct host_controller *c = need_controller(vm, a->controller, e);
	const struct host_attachment *at = c ? host_vm_attachment(c, MAX(a->port, 0), MAX(a->device, 0)) : NULL;

	if (!c)
		return LIVE_REFUSED;
	if (!a->medium) {
		err_set(e, ERR_VM_STATE, "The machine is not mutable (state is %s)", host_state_api(vm->state));
		return LIVE_REFUSED;
	}
	if (at && at->type != HOST_DISK && strcmp(a->medium, "none") &&
		(!a->type || !strcasecmp(a->type, at->type == HOST_DVD ? "dvddrive" : "fdd")))
		return LIVE_CHANGE;
	if (!knows_hot_plug(c)) {
		err_set(e, ERR_VM_STATE, "Controller '%s' does not support hot-plugging", c->name);
		return LIVE_REFUSED;
	}
	if (at && !at->hotpluggable) {
		err_set(e, ERR_UNSUPPORTED,
			"The device slot %d on port %d of controller '%s' does not support hot-plugging", at->device,
			at->port, c->name);
		return LIVE_REFUSED;
	}
	if (!strcmp(a->medium, "none"))
		return LIVE_DETACH;
	if (at)
		err_set(e, ERR_IN_USE,
			"Device is already attached to port %d, device %d of controller '%s' of this virtual machine",
			at->port, at->device, c->name);
	else if (a->port >= c->ports && !(c->bus == HOST_SATA && c->ports == c->max_ports))
		err_set(e, ERR_INVALID, "Controller '%s' has %d ports while the machine runs, not %d", c->name,
			c->ports, a->port + 1);
	else
		return LIVE_ATTACH;
	return LIVE_REFUSED;
}

static int
plug_in(struct host *h, const struct host_vm *vm, const struct host_controller *ctl, struct host_attachment *at,
	struct err *e)
{
	char *group = host_disk_group_of(h, vm->uuid, ctl->name, at->port, at->device), format[16] = "";
	json_t *params, *answer;

	for (size_t i = 0; at->format && i < sizeof(format) - 1 && at->format[i]; i++)
		format[i] = (char)tolower((unsigned char)at->format[i]);
	params = json_pack("{s:s, s:i, s:i, s:s?, s:s, s:b, s:b, s:b, s:s?}", "controller", ctl->name, "port", at->port,
		"device", at->device, "path", at->path, "format", at->type == HOST_DISK ? format : "", "dvd",
		at->type == HOST_DVD, "nonrotational", at->nonrotational, "discard", at->discard, "group", group);
	free(group);
	at->hotpluggable = true;
	answer = vm_call(h, vm, "drive.attach", params, e);
	json_decref(answer);
	return answer ? 0 : -1;
}

static int
plug_out(struct host *h, const struct host_vm *vm, const struct host_attach *a, struct err *e)
{
	json_t *answer = vm_call(h, vm, "drive.detach",
		json_pack("{s:s, s:i, s:i}", "controller", a->controller, "port", MAX(a->port, 0), "device",
			MAX(a->device, 0)),
		e);

	json_decref(answer);
	return answer ? 0 : -1;
}

/* The image gets another UUID before it is attached. */
static int
set_medium_uuid(struct host *h, const struct host_attach *a, struct err *e)
{
	char *path = host_absolute_path(a->medium);
	struct uuid u;
	struct block *b;
	int r = -1;

	if (!*a->setuuid) {
		u = uuid_random();
	} else if (!uuid_parse(a->setuuid, &u)) {
		free(path);
		return err_set(e, ERR_USAGE, "Invalid UUID '%s'", a->setuuid);
	}
	b = block_open(path, NULL, 0, e);
	if (b)
		r = block_set_uuid(b, &u, e);
	block_close(b);
	if (!r) {
		char text[37];

		uuid_text(&u, text);
		r = db_run(h, e, "UPDATE medium SET uuid = ? WHERE path = ?", "ss", text, path);
	}
	free(path);
	return r;
}

int
host_vm_attach(struct host *h, const char *id, const struct host_attach *a, struct err *e)
{
	struct host_controller *ctl = NULL;
	struct host_attachment *at = NULL;
	struct host_vm *vm = NULL;
	enum live what = LIVE_REFUSED;
	bool live;

	if (db_begin(h, e))
		return -1;
	vm = host_vm_load(h, id, e);
	if (!vm)
		goto fail;
	live = vm_locked(h, vm->uuid);
	if (vm_check_mutable(vm, e))
		goto fail;
	if (live && (what = live_change(vm, a, e)) == LIVE_REFUSED)
		goto fail;
	if (a->setuuid && a->medium && set_medium_uuid(h, a, e))
		goto fail;
	if (apply_attach(h, vm, a, &at, &ctl, e))
		goto fail;
	if ((what == LIVE_CHANGE && change_disc(h, vm, ctl, at, a->force, e)) ||
		(what == LIVE_ATTACH && plug_in(h, vm, ctl, at, e)) || (what == LIVE_DETACH && plug_out(h, vm, a, e)))
		goto fail;
	return vm_edit_end(h, vm, 0, e);
fail:
	return vm_edit_end(h, vm, -1, e);
}
