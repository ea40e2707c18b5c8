/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What an import would make, as the numbered units that VBoxManage lists.
 *
 * The order of the units is VirtualBox's: operating system, names and places, CPUs and memory, sound, USB, adapters,
 * floppy and disc drives, controllers, disks. Clients find a disk's unit by that number (Vagrant) or assume it.
 *
 * Other people's hardware becomes the nearest there is here: a VMware SCSI adapter of any kind is an LSI Logic one, a
 * vmxnet3 is a virtio adapter for Linux and an 82540EM else. A machine has at most one controller of a bus; disks of a
 * second one move to the first.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>

#include "host/ovf.h"

#define SYSTEM_UNITS_MAX 512

/* ---- units ---- */

static struct host_ovf_unit *
add_unit(struct host_ovf_system *s, enum host_ovf_kind kind, const char *orig, char *value, char *extra)
{
	struct host_ovf_unit *u;

	s->unit = realloc(s->unit, (size_t)(s->units + 1) * sizeof(*u));
	if (!s->unit)
		abort();
	u = &s->unit[s->units++];
	*u = (struct host_ovf_unit){ .kind = kind, .orig = xstrdup(orig ? orig : ""), .value = value };
	u->extra = extra ? extra : xstrdup("");
	return u;
}

static struct host_ovf_unit *
find_unit(struct host_ovf_system *s, enum host_ovf_kind kind)
{
	for (int i = 0; i < s->units; i++)
		if (s->unit[i].kind == kind)
			return &s->unit[i];
	return NULL;
}

const struct host_ovf_unit *
plan_unit(const struct host_ovf_system *s, enum host_ovf_kind kind)
{
	return find_unit((struct host_ovf_system *)s, kind);
}

static void
set_value(struct host_ovf_unit *u, const char *value)
{
	char *copy = xstrdup(value);

	free(u->value);
	u->value = copy;
}

/* ---- names and places ---- */

static bool
name_taken(struct host *h, const struct host_appliance *a, const char *name)
{
	char *dir = xasprintf("%s/%s", host_machine_folder(h), name);
	sqlite3_stmt *s = db_query(h, NULL, "SELECT 1 FROM machine WHERE name = ?", "s", name);
	bool taken = s && db_step(h, s, NULL) > 0;
	struct stat st;

	sqlite3_finalize(s);
	taken |= !lstat(dir, &st);
	free(dir);
	for (int i = 0; i < a->systems; i++) {
		const struct host_ovf_unit *u = plan_unit(&a->system[i], HOST_OVF_NAME);

		taken |= u && !strcmp(u->value, name);
	}
	return taken;
}

/* A name that can be a directory's, and that nobody has: "box", "box 1"... */
static char *
free_name(struct host *h, const struct host_appliance *a, const char *wanted)
{
	char *base = strndup(*wanted ? wanted : "vm", 180), *name;

	for (char *p = base; *p; p++)
		if (*p == '/' || (unsigned char)*p < ' ' || *p == 0x7f)
			*p = '_';
	if (!strcmp(base, ".") || !strcmp(base, ".."))
		base[0] = '_';
	name = xstrdup(base);
	for (int i = 1; i < 100000 && name_taken(h, a, name); i++) {
		free(name);
		name = xasprintf("%s %d", base, i);
	}
	free(base);
	return name;
}

/* The settings file follows the name and the base folder, unless it was given. */
static void
follow_name(struct host_ovf_system *s)
{
	struct host_ovf_unit *file = find_unit(s, HOST_OVF_SETTINGS);
	const char *base = find_unit(s, HOST_OVF_BASE)->value, *name = find_unit(s, HOST_OVF_NAME)->value;

	if (file->given)
		return;
	free(file->value);
	file->value = xasprintf("%s/%s/%s.vbox", strcmp(base, "/") ? base : "", name, name);
}

static void
add_about(struct host_ovf_system *s, enum host_ovf_kind kind, const char *text)
{
	if (text)
		add_unit(s, kind, text, xstrdup(text), NULL);
}

static void
plan_names(struct host *h, struct host_appliance *a, const struct ovf_system *o, struct host_ovf_system *s)
{
	const char *vbox_type = xml_attr(o->machine, "OSType");
	const struct host_ostype *t = vbox_type ? host_ostype_find(vbox_type) : NULL;
	char *name = free_name(h, a, o->name);

	add_unit(s, HOST_OVF_OS, o->ostype, xstrdup(t ? t->id : o->ostype), NULL);
	add_unit(s, HOST_OVF_NAME, o->name, name, NULL);
	add_about(s, HOST_OVF_PRODUCT, o->product);
	add_about(s, HOST_OVF_VENDOR, o->vendor);
	add_about(s, HOST_OVF_VERSION, o->version);
	add_about(s, HOST_OVF_PRODUCT_URL, o->product_url);
	add_about(s, HOST_OVF_VENDOR_URL, o->vendor_url);
	add_unit(s, HOST_OVF_GROUP, "", xstrdup("/"), NULL);
	add_unit(s, HOST_OVF_SETTINGS, "", NULL, NULL);
	add_unit(s, HOST_OVF_BASE, "", xstrdup(host_machine_folder(h)), NULL);
	follow_name(s);
	add_about(s, HOST_OVF_DESCRIPTION, o->description);
	add_about(s, HOST_OVF_LICENSE, o->license);
}

/* ---- processors, memory ---- */

static void
plan_size(const struct ovf_system *o, struct host_ovf_system *s)
{
	const struct xml *hw = xml_child(o->machine, "Hardware");
	const char *cpus = xml_attr(xml_child(hw, "CPU"), "count"), *ram = xml_attr(xml_child(hw, "Memory"), "RAMSize");
	uint64_t count = 0, memory = 0, n;

	for (int i = 0; i < o->items; i++) {
		count += o->item[i].type == OVF_CPU ? MIN(o->item[i].quantity, 65536) : 0;
		memory += o->item[i].type == OVF_MEMORY ? MIN(o->item[i].quantity, 1ull << 50) : 0;
	}
	memory >>= 20;
	if (cpus && str_to_u64(cpus, 1, 65536, &n))
		count = n;
	if (ram && str_to_u64(ram, 1, 1ull << 30, &n))
		memory = n;
	/* Nothing said, or nothing possible: as a new machine; too much: as much as there can be. */
	count = MIN(MAX(count, 1), (uint64_t)host_setting(HK_CPUS)->max);
	memory = memory ? memory : host_ostype_find(o->ostype)->memory_mb;
	memory = MIN(MAX(memory, 4), (uint64_t)host_setting(HK_MEMORY)->max);
	add_unit(s, HOST_OVF_CPUS, NULL, xasprintf("%llu", (unsigned long long)count), NULL);
	add_unit(s, HOST_OVF_MEMORY, NULL, xasprintf("%llu", (unsigned long long)memory), NULL);
}

/* ---- adapters ---- */

static const struct nic_type {
	const char *name;
	int number; /* of VirtualBox's NetworkAdapterType */
} nic_types[] = { { "Am79C970A", 1 }, { "Am79C973", 2 }, { "82540EM", 3 }, { "82543GC", 4 }, { "82545EM", 5 },
	{ "virtio", 6 } };

static const char *
nic_type_of(const struct ovf_system *o, const char *subtype)
{
	bool linux_guest = !strcmp(host_ostype_find(o->ostype)->family, "Linux");

	if (!subtype)
		return "82540EM";
	if (!strncasecmp(subtype, "pcnet", 5))
		return "Am79C970A";
	if (!strncasecmp(subtype, "virtio", 6) || (!strncasecmp(subtype, "vmxnet", 6) && linux_guest))
		return "virtio";
	/* VMware's is the 82545EM. */
	return !strncasecmp(subtype, "e1000", 5) && !o->by_virtualbox ? "82545EM" : "82540EM";
}

static int
nic_number(const char *type)
{
	for (size_t i = 0; i < ARRAY_LEN(nic_types); i++)
		if (!strcasecmp(nic_types[i].name, type))
			return nic_types[i].number;
	return 3;
}

/* Names that networks of an envelope have when VirtualBox wrote it; any other one is NAT. */
static const char *
network_kind(const char *name)
{
	static const char *const kinds[] = { "NAT", "Bridged", "HostOnly", "Internal", "NATNetwork", "Generic",
		"Null" };

	for (size_t i = 0; name && i < ARRAY_LEN(kinds); i++)
		if (!strcasecmp(name, kinds[i]))
			return kinds[i];
	return "NAT";
}

static void
plan_nics_of_machine(const struct xml *network, struct host_ovf_system *s)
{
	static const char *const kinds[][2] = { { "NAT", "NAT" }, { "BridgedInterface", "Bridged" },
		{ "InternalNetwork", "Internal" }, { "HostOnlyInterface", "HostOnly" },
		{ "GenericInterface", "Generic" }, { "NATNetwork", "NATNetwork" } };

	for (const struct xml *x = xml_child(network, "Adapter"); x; x = xml_again(x)) {
		const char *enabled = xml_attr(x, "enabled"), *slot = xml_attr(x, "slot"), *type = xml_attr(x, "type");
		const char *kind = "Null";
		uint64_t n;

		if (!enabled || strcmp(enabled, "true") || !slot || !str_to_u64(slot, 0, HOST_NICS - 1, &n))
			continue;
		for (size_t i = 0; i < ARRAY_LEN(kinds); i++)
			if (xml_child(x, kinds[i][0]))
				kind = kinds[i][1];
		add_unit(s, HOST_OVF_NIC, kind, xasprintf("%d", nic_number(type ? type : "82540EM")),
			xasprintf("slot=%d;type=%s", (int)n, kind));
	}
}

static void
plan_nics(const struct ovf_system *o, struct host_ovf_system *s)
{
	const struct xml *network = xml_child(xml_child(o->machine, "Hardware"), "Network");
	int slot = 0;

	if (network) {
		plan_nics_of_machine(network, s);
		return;
	}
	for (int i = 0; i < o->items && slot < HOST_NICS; i++) {
		const struct ovf_item *it = &o->item[i];

		if (it->type != OVF_NIC)
			continue;
		add_unit(s, HOST_OVF_NIC, it->network, xasprintf("%d", nic_number(nic_type_of(o, it->subtype))),
			xasprintf("slot=%d;type=%s", slot, network_kind(it->network)));
		slot++;
	}
}

/* ---- controllers and disks ---- */

struct bus_kind {
	enum host_bus bus;
	enum host_ovf_kind kind;
	const char *type;
};

static const struct bus_kind *
bus_kind_of(enum host_bus bus)
{
	static const struct bus_kind rows[] = { { HOST_IDE, HOST_OVF_IDE, "PIIX4" },
		{ HOST_SATA, HOST_OVF_SATA, "AHCI" }, { HOST_SCSI, HOST_OVF_SCSI, "LsiLogic" },
		{ HOST_SAS, HOST_OVF_SCSI, "LsiLogicSas" }, { HOST_NVME, HOST_OVF_NVME, "NVMe" },
		{ HOST_VIRTIO_SCSI, HOST_OVF_VIRTIO_SCSI, "VirtioSCSI" },
		{ HOST_VIRTIO_BLK, HOST_OVF_VIRTIO_BLK, "VirtioBlk" } };

	for (size_t i = 0; i < ARRAY_LEN(rows); i++)
		if (rows[i].bus == bus)
			return &rows[i];
	return &rows[0];
}

static bool
contains(const char *text, const char *word)
{
	return text && strcasestr(text, word);
}

/* Which controller an item is; false: it is none. */
static bool
controller_bus(const struct ovf_item *it, enum host_bus *bus)
{
	if (it->type == OVF_IDE)
		*bus = HOST_IDE;
	else if (it->type == OVF_SCSI)
		*bus = contains(it->subtype, "virtioscsi")    ? HOST_VIRTIO_SCSI
		       : contains(it->subtype, "lsilogicsas") ? HOST_SAS
							      : HOST_SCSI;
	else if (it->type == OVF_STORAGE && contains(it->subtype, "nvme"))
		*bus = HOST_NVME;
	else if (it->type == OVF_STORAGE && contains(it->subtype, "virtioscsi"))
		*bus = HOST_VIRTIO_SCSI;
	else if (it->type == OVF_STORAGE && contains(it->subtype, "virtioblk"))
		*bus = HOST_VIRTIO_BLK;
	else if (it->type == OVF_STORAGE && (!it->subtype || contains(it->subtype, "ahci")))
		*bus = HOST_SATA;
	else
		return false;
	return true;
}

struct controllers {
	const struct ovf_item *item[64];
	int unit[64], channel[64];
	enum host_bus bus[64];
	int count, ides;
};

static void
plan_controllers(const struct ovf_system *o, struct host_ovf_system *s, struct controllers *c)
{
	for (int i = 0; i < o->items && c->count < (int)ARRAY_LEN(c->item); i++) {
		const struct ovf_item *it = &o->item[i];
		enum host_bus bus;
		uint64_t n;

		if (!controller_bus(it, &bus))
			continue;
		c->item[c->count] = it;
		c->bus[c->count] = bus;
		c->channel[c->count] = it->address && str_to_u64(it->address, 0, 1, &n) ? (int)n : c->ides % 2;
		c->ides += bus == HOST_IDE;
		c->unit[c->count++] = s->units;
		add_unit(s, bus_kind_of(bus)->kind, it->id, xstrdup(bus_kind_of(bus)->type), NULL);
	}
}

static int
find_controller(const struct controllers *c, const char *id)
{
	for (int i = 0; id && i < c->count; i++)
		if (c->item[i]->id && !strcmp(c->item[i]->id, id))
			return i;
	return c->count ? 0 : -1;
}

static bool
place_taken(const struct plan *p, enum host_bus bus, int port, int device)
{
	for (int i = 0; i < p->disks; i++)
		if (p->disk[i].bus == bus && p->disk[i].port == port && p->disk[i].device == device)
			return true;
	return false;
}

/* The first free place of the bus from (port, device) on, and else from its beginning. */
static bool
find_place(const struct plan *p, enum host_bus bus, int *port, int *device)
{
	const struct bus_row *row = bus_of(bus);
	int places = row->max_ports * row->devices, at = *port * row->devices + *device;

	for (int i = 0; i < places; i++) {
		int k = (at + i) % places;

		if (place_taken(p, bus, k / row->devices, k % row->devices))
			continue;
		*port = k / row->devices;
		*device = k % row->devices;
		return true;
	}
	return false;
}

/* "ovf:/disk/vmdisk1", "/disk/vmdisk1", "ovf:/file/file2" */
static int
find_resource(const struct ovf *o, const char *text, int *disk, int *file)
{
	const char *slash = text ? strrchr(text, '/') : NULL;

	*disk = *file = -1;
	if (!slash)
		return -1;
	for (int i = 0; i < o->disks && *disk < 0; i++)
		if (!strcmp(o->disk[i].id, slash + 1))
			*disk = i;
	if (*disk >= 0)
		*file = o->disk[*disk].file;
	for (int i = 0; i < o->files && *disk < 0 && *file < 0; i++)
		if (!strcmp(o->file[i].id, slash + 1))
			*file = i;
	return *disk < 0 && *file < 0 ? -1 : 0;
}

const char *
plan_format(const char *url)
{
	static const char *const rows[][2] = { { "vmdk", "vmdk" }, { "vhdx", "vhdx" }, { "vhd", "vhd" },
		{ "137171", "vhd" }, { "vdi", "vdi" }, { "qcow", "qcow2" }, { "ecma-119", "iso" } };

	for (size_t i = 0; i < ARRAY_LEN(rows); i++)
		if (strcasestr(url, rows[i][0]))
			return rows[i][1];
	return NULL;
}

/* What the new image is to be called: as its file, without directories and without .gz. */
static char *
target_name(const char *href, const char *id, bool gzip)
{
	const char *slash = href ? strrchr(href, '/') : NULL, *name = slash ? slash + 1 : href;
	size_t n;

	if (!name)
		return xasprintf("%s.vmdk", id);
	n = strlen(name);
	if (gzip && n > 3 && !strcmp(name + n - 3, ".gz"))
		n -= 3;
	return strndup(name, n);
}

static void
place_disk(const struct ovf_item *it, const struct controllers *c, int ctl, const struct plan *p, struct plan_disk *d)
{
	uint64_t n;

	d->bus = ctl < 0 ? HOST_SATA : c->bus[ctl];
	d->controller = ctl < 0 ? -1 : c->unit[ctl];
	if (!it->on_parent || !str_to_u64(it->on_parent, 0, 255, &n))
		n = 0;
	d->port = d->bus == HOST_IDE ? (ctl < 0 ? 0 : c->channel[ctl])
				     : (int)MIN(n, (uint64_t)bus_of(d->bus)->max_ports - 1);
	d->device = d->bus == HOST_IDE ? (int)MIN(n, 1) : 0;
}

static int
plan_disk(struct host_appliance *a, const struct ovf_item *it, const struct controllers *c, struct host_ovf_system *s,
	struct plan *p, struct err *e)
{
	const struct ovf *o = a->ovf;
	struct plan_disk *d;
	const char *href, *id;
	int disk, file, ctl = find_controller(c, it->parent);
	bool iso = it->type != OVF_DISK;

	if (find_resource(o, it->resource, &disk, &file)) {
		if (iso)
			return 0; /* an empty drive */
		return err_set(e, ERR_XML, "the disk '%.60s' is on '%.100s', which the envelope does not have",
			it->name ? it->name : "", it->resource ? it->resource : "");
	}
	if (s->units == SYSTEM_UNITS_MAX)
		return err_set(e, ERR_XML, "a virtual system has too many disks");
	if (disk >= 0 && o->disk[disk].parent)
		return err_set(e, ERR_UNSUPPORTED,
			"the disk '%.60s' reads through to another one, which cannot be imported", o->disk[disk].id);
	href = file >= 0 ? o->file[file].href : NULL;
	id = disk >= 0 ? o->disk[disk].id : o->file[file].id;
	p->disk = realloc(p->disk, (size_t)(p->disks + 1) * sizeof(*d));
	if (!p->disk)
		abort();
	d = &p->disk[p->disks];
	*d = (struct plan_disk){ .unit = s->units, .disk = disk, .file = file, .iso = iso };
	d->uuid = disk >= 0 ? o->disk[disk].uuid : NULL;
	place_disk(it, c, ctl, p, d);
	if (!find_place(p, d->bus, &d->port, &d->device))
		return err_set(e, ERR_UNSUPPORTED, "a controller of the kind %s has no room for all disks",
			bus_kind_of(d->bus)->type);
	p->disks++;
	add_unit(s, HOST_OVF_DISK, href ? href : id, target_name(href, id, file >= 0 && o->file[file].gzip),
		xasprintf("controller=%d;port=%d", d->controller,
			d->bus == HOST_IDE ? d->port * 2 + d->device : d->port));
	return 0;
}

static int
plan_storage(
	struct host_appliance *a, const struct ovf_system *o, struct host_ovf_system *s, struct plan *p, struct err *e)
{
	struct controllers *c = xcalloc(1, sizeof(*c));
	int r = 0;

	plan_controllers(o, s, c);
	for (int i = 0; i < o->items && !r; i++)
		if (o->item[i].type == OVF_DISK || o->item[i].type == OVF_CD || o->item[i].type == OVF_DVD)
			r = plan_disk(a, &o->item[i], c, s, p, e);
	free(c);
	return r;
}

/* ---- all of it ---- */

static bool
has_item(const struct ovf_system *o, unsigned type)
{
	for (int i = 0; i < o->items; i++)
		if (o->item[i].type == type)
			return true;
	return false;
}

static int
plan_system(struct host *h, struct host_appliance *a, int i, struct err *e)
{
	const struct ovf_system *o = &a->ovf->system[i];
	struct host_ovf_system *s = &a->system[i];

	plan_names(h, a, o, s);
	plan_size(o, s);
	if (has_item(o, OVF_SOUND))
		add_unit(s, HOST_OVF_SOUND, "", xstrdup(""), NULL);
	if (has_item(o, OVF_USB))
		add_unit(s, HOST_OVF_USB, "", xstrdup(""), NULL);
	plan_nics(o, s);
	a->plan[i].floppy = has_item(o, OVF_FLOPPY);
	a->plan[i].cdrom = has_item(o, OVF_CD) || has_item(o, OVF_DVD);
	if (a->plan[i].floppy)
		add_unit(s, HOST_OVF_FLOPPY, "", xstrdup(""), NULL);
	if (a->plan[i].cdrom)
		add_unit(s, HOST_OVF_CDROM, "", xstrdup(""), NULL);
	if (plan_storage(a, o, s, &a->plan[i], e))
		return err_wrap(e, "'%s' cannot be imported: virtual system '%.100s'", a->package->path, o->id);
	return 0;
}

int
plan_make(struct host *h, struct host_appliance *a, struct err *e)
{
	int count = a->ovf->systems;

	a->system = xcalloc((size_t)count, sizeof(*a->system));
	a->plan = xcalloc((size_t)count, sizeof(*a->plan));
	for (a->systems = 0; a->systems < count; a->systems++)
		if (plan_system(h, a, a->systems, e)) {
			a->systems++;
			return -1;
		}
	return 0;
}

void
plan_free(struct host_appliance *a)
{
	for (int i = 0; i < a->systems; i++) {
		struct host_ovf_system *s = &a->system[i];

		for (int u = 0; u < s->units; u++) {
			free(s->unit[u].orig);
			free(s->unit[u].value);
			free(s->unit[u].extra);
		}
		free(s->unit);
		free(a->plan[i].disk);
	}
	free(a->system);
	free(a->plan);
}

/* ---- changes ---- */

static struct host_ovf_system *
system_at(struct host_appliance *a, int system, struct err *e)
{
	if (system >= 0 && system < a->systems)
		return &a->system[system];
	err_set(e, ERR_INVALID, "Invalid index %d with -vsys option; the OVF contains only %d virtual system(s).",
		system, a->systems);
	return NULL;
}

int
host_appliance_set(struct host_appliance *a, int system, enum host_ovf_kind kind, const char *value, struct err *e)
{
	static const struct {
		enum host_ovf_kind kind;
		enum host_key key;
	} keys[] = { { HOST_OVF_OS, HK_OSTYPE }, { HOST_OVF_GROUP, HK_GROUPS }, { HOST_OVF_CPUS, HK_CPUS },
		{ HOST_OVF_MEMORY, HK_MEMORY }, { HOST_OVF_DESCRIPTION, HK_DESCRIPTION } };
	struct host_ovf_system *s = system_at(a, system, e);
	struct host_ovf_unit *u = s ? find_unit(s, kind) : NULL;
	char *normal = NULL;

	if (!s)
		return -1;
	if (!u)
		u = add_unit(s, kind, "", xstrdup(""), NULL);
	for (size_t i = 0; i < ARRAY_LEN(keys); i++) {
		if (keys[i].kind != kind)
			continue;
		normal = setting_normal(keys[i].key, 0, value, e);
		if (!normal)
			return -1;
	}
	if (kind == HOST_OVF_BASE || kind == HOST_OVF_SETTINGS)
		normal = host_absolute_path(value);
	set_value(u, normal ? normal : value);
	free(normal);
	u->given = true;
	follow_name(s);
	return 0;
}

int
host_appliance_accept_license(struct host_appliance *a, int system, struct err *e)
{
	struct host_ovf_system *s = system_at(a, system, e);

	if (!s)
		return -1;
	s->license_accepted = true;
	return 0;
}

static int
unit_kind_refused(const struct host_ovf_unit *u, int unit, const char *option, struct err *e)
{
	return err_set(e, ERR_INVALID, "Option \"%s\" cannot be used with unit %d, '%s'", option, unit,
		*u->orig ? u->orig : u->value);
}

static int
move_disk(struct host_appliance *a, int system, int unit, const struct host_ovf_change *c, struct err *e)
{
	struct host_ovf_system *s = &a->system[system];
	struct plan *p = &a->plan[system];
	struct plan_disk *d = NULL, old;
	int port, at;

	for (int i = 0; i < p->disks; i++)
		if (p->disk[i].unit == unit)
			d = &p->disk[i];
	if (!d)
		return 0;
	old = *d;
	if (c->controller >= 0) {
		if (c->controller >= s->units || s->unit[c->controller].kind < HOST_OVF_IDE ||
			s->unit[c->controller].kind == HOST_OVF_DISK)
			return err_set(e, ERR_INVALID, "Unit %d is no controller", c->controller);
		for (int b = HOST_IDE; b <= HOST_VIRTIO_SCSI; b++)
			if (bus_kind_of((enum host_bus)b)->kind == s->unit[c->controller].kind &&
				bus_kind_of((enum host_bus)b)->bus == (enum host_bus)b)
				d->bus = (enum host_bus)b;
		d->controller = c->controller;
	}
	port = c->port >= 0 ? c->port : old.bus == HOST_IDE ? old.port * 2 + old.device : old.port;
	at = d->bus == HOST_IDE ? port / 2 : port;
	d->port = d->device = -1; /* its own place is free */
	if (at >= bus_of(d->bus)->max_ports || place_taken(p, d->bus, at, d->bus == HOST_IDE ? port % 2 : 0)) {
		*d = old;
		return err_set(e, ERR_INVALID, "Port %d of unit %d is not free", port, c->controller);
	}
	d->port = at;
	d->device = d->bus == HOST_IDE ? port % 2 : 0;
	d->uuid = NULL; /* what <vbox:Machine> says of it does not count any more */
	free(s->unit[unit].extra);
	s->unit[unit].extra = xasprintf("controller=%d;port=%d", d->controller, port);
	return 0;
}

static int
change_disk(struct host_appliance *a, int system, int unit, const struct host_ovf_change *c, struct err *e)
{
	struct host_ovf_unit *u = &a->system[system].unit[unit];
	char *path;

	if (c->disk) {
		/* A directory keeps the name. */
		path = str_ends(c->disk, "/") ? xasprintf("%s%s", c->disk, u->value) : xstrdup(c->disk);
		set_value(u, path);
		free(path);
		u->given = true;
	}
	return c->controller >= 0 || c->port >= 0 ? move_disk(a, system, unit, c, e) : 0;
}

int
host_appliance_change(struct host_appliance *a, int system, int unit, const struct host_ovf_change *c, struct err *e)
{
	struct host_ovf_system *s = system_at(a, system, e);
	struct host_ovf_unit *u;

	if (!s)
		return -1;
	if (unit < 0 || unit >= s->units)
		return err_set(e, ERR_INVALID, "Virtual system %d has no unit %d: its units are 0 to %d", system, unit,
			s->units - 1);
	u = &s->unit[unit];
	if (c->ignore && u->kind < HOST_OVF_SOUND)
		return unit_kind_refused(u, unit, "--ignore", e);
	if ((c->disk || c->controller >= 0 || c->port >= 0) && u->kind != HOST_OVF_DISK)
		return unit_kind_refused(u, unit, c->disk ? "--disk" : c->port >= 0 ? "--port" : "--controller", e);
	if (c->controller_type && u->kind != HOST_OVF_SCSI)
		return unit_kind_refused(u, unit, "--scsitype", e);
	if (c->controller_type && strcasecmp(c->controller_type, "LsiLogic"))
		return err_set(e, ERR_UNSUPPORTED, "There is no SCSI controller '%s' here: it is LsiLogic",
			c->controller_type);
	u->ignored |= c->ignore;
	return u->kind == HOST_OVF_DISK ? change_disk(a, system, unit, c, e) : 0;
}
