/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Importing an appliance: reading it, and making what the plan (ovf_plan.c) says.
 *
 * Steps: places are chosen and checked (nothing that exists is written over), a note names all that will be made
 * (media_job.c), disks are copied one after the other into images of our own, and one transaction registers them and
 * the machines. A failure at any step removes what was made; a kill leaves that to the next command.
 *
 * An image of a stranger is opened alone: one that reads through to another file, or has further files, is refused, so
 * that an appliance cannot bring a file of this host into a machine. Its format is the one the envelope says, or that
 * of its contents, but never raw by default.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

#include "block/block.h"
#include "host/chain.h"
#include "host/net.h"
#include "host/ovf.h"

/* ---- reading ---- */

struct host_appliance *
host_appliance_read(struct host *h, const char *path, struct err *e)
{
	struct host_appliance *a = xcalloc(1, sizeof(*a));

	a->h = h;
	a->package = package_open(path, e);
	if (a->package)
		a->ovf = ovf_parse(a->package->text, a->package->len, a->package->path, e);
	if (a->ovf && !plan_make(h, a, e))
		return a;
	host_appliance_free(a);
	return NULL;
}

void
host_appliance_free(struct host_appliance *a)
{
	if (!a)
		return;
	plan_free(a);
	ovf_free(a->ovf);
	package_free(a->package);
	free(a);
}

const char *
host_appliance_path(const struct host_appliance *a)
{
	return a->package->path;
}

int
host_appliance_systems(const struct host_appliance *a)
{
	return a->systems;
}

const struct host_ovf_system *
host_appliance_system(const struct host_appliance *a, int system)
{
	return system >= 0 && system < a->systems ? &a->system[system] : NULL;
}

bool
host_appliance_disk(const struct host_appliance *a, int i, struct host_ovf_disk *out)
{
	const struct ovf_disk *d;

	if (i < 0 || i >= a->ovf->disks)
		return false;
	d = &a->ovf->disk[i];
	*out = (struct host_ovf_disk){ .id = d->id,
		.format = d->format,
		.file = "",
		.capacity = d->capacity,
		.size = -1,
		.chunk = -1,
		.populated = d->populated ? (int64_t)d->populated : -1,
		.compression = "" };
	if (d->file >= 0) {
		const struct ovf_file *f = &a->ovf->file[d->file];

		out->file = f->href;
		out->size = f->size ? (int64_t)f->size : -1;
		out->compression = f->gzip ? "gzip" : "";
	}
	return true;
}

/* ---- importing ---- */

/* A disk in the making. */
struct making {
	int system;
	const struct plan_disk *plan;
	char *path, *format; /* format as block/ names it */
	char uuid[37];
	bool made;
};

struct import {
	struct host_appliance *a;
	struct host *h;
	const struct host_import *how;
	struct host_vm **vm; /* one a system */
	struct making *disk;
	int disks;
	char *scratch;
	char **made; /* files, then directories, for the note and for undoing */
	int files, count;
	int done;   /* disks */
	bool wrote; /* settings files */
};

static void say(const struct import *m, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

static void
say(const struct import *m, const char *fmt, ...)
{
	char *text;
	va_list ap;

	va_start(ap, fmt);
	text = xvasprintf(fmt, ap);
	va_end(ap);
	if (m->how->note)
		m->how->note(m->how->opaque, text);
	free(text);
}

/* ---- where everything goes ---- */

static int
check_name(struct import *m, const char *name, const char *cfg, struct err *e)
{
	sqlite3_stmt *s;
	struct stat st;
	int r;

	if (!*name || strlen(name) > 200 || strchr(name, '/') || strchr(name, '\n') || !strcmp(name, ".") ||
		!strcmp(name, ".."))
		return err_set(
			e, ERR_INVALID, "Invalid machine name '%s': it must have 1 to 200 bytes and no '/'", name);
	if (!lstat(cfg, &st))
		return err_set(e, ERR_FILE, "Machine settings file '%s' already exists", cfg);
	s = db_query(m->h, e, "SELECT 1 FROM machine WHERE name = ?", "s", name);
	r = s ? db_step(m->h, s, e) : -1;
	sqlite3_finalize(s);
	return r > 0 ? err_set(e, ERR_IN_USE, "A machine with the name '%s' already exists (VERR_ALREADY_EXISTS)", name)
		     : r;
}

static int
place_machine(struct import *m, int i, struct err *e)
{
	const struct host_ovf_system *s = &m->a->system[i];
	const char *name = plan_unit(s, HOST_OVF_NAME)->value, *cfg = plan_unit(s, HOST_OVF_SETTINGS)->value;
	const char *slash = strrchr(cfg, '/');
	char *file = xasprintf("%s.vbox", name), *folder;
	int r = 0;

	if (strcmp(slash + 1, file))
		r = err_set(e, ERR_INVALID, "The settings file '%s' of machine '%s' has to be called '%s'", cfg, name,
			file);
	free(file);
	if (r || check_name(m, name, cfg, e))
		return -1;
	for (int k = 0; k < i; k++)
		if (!strcmp(m->vm[k]->name, name))
			return err_set(e, ERR_INVALID, "Two virtual systems have the name '%s'", name);
	folder = strndup(cfg, (size_t)MAX(slash - cfg, 1));
	m->vm[i] = vm_new(name, folder);
	free(folder);
	return 0;
}

static const char *
format_of_path(const char *path)
{
	static const char *const rows[][2] = { { ".vdi", "vdi" }, { ".vmdk", "vmdk" }, { ".vhd", "vhd" },
		{ ".qcow2", "qcow2" }, { ".iso", "iso" } };

	for (size_t i = 0; i < ARRAY_LEN(rows); i++)
		if (strlen(path) > strlen(rows[i][0]) &&
			!strcasecmp(path + strlen(path) - strlen(rows[i][0]), rows[i][0]))
			return rows[i][1];
	return NULL;
}

/* "disk.vmdk" becomes "disk.vdi" where VDI was asked for, or where its own format cannot be written. */
static void
choose_format(struct import *m, struct making *k, bool given)
{
	const char *format = format_of_path(k->path), *dot = strrchr(k->path, '.'), *slash = strrchr(k->path, '/');
	char *path;

	if (k->plan->iso) {
		k->format = xstrdup("iso");
		return;
	}
	if (format && !strcmp(format, "iso"))
		format = NULL;
	if (m->how->to_vdi && (!given || !format))
		format = NULL;
	k->format = xstrdup(format ? format : "vdi");
	if (format || given)
		return;
	path = xasprintf("%.*s.vdi", dot > slash ? (int)(dot - k->path) : (int)strlen(k->path), k->path);
	free(k->path);
	k->path = path;
}

/* A name that no other disk of the import has. */
static void
unique_path(struct import *m, struct making *k)
{
	for (int n = 2, again = 1; again && n < 1000; n++) {
		again = 0;
		for (int i = 0; i < m->disks && !again; i++)
			again = !strcmp(m->disk[i].path, k->path);
		if (again) {
			char *dot = strrchr(k->path, '.'), *path;

			path = xasprintf("%.*s-%d%s", (int)(dot - k->path), k->path, n, dot);
			free(k->path);
			k->path = path;
		}
	}
}

static int
place_disk(struct import *m, int system, const struct plan_disk *p, struct err *e)
{
	const struct host_ovf_unit *u = &m->a->system[system].unit[p->unit];
	struct making *k = &m->disk[m->disks];
	struct uuid id = uuid_random();
	struct stat st;

	*k = (struct making){ .system = system, .plan = p };
	k->path = u->value[0] == '/' ? host_absolute_path(u->value) : NULL;
	if (!k->path) {
		char *path = xasprintf("%s/%s", m->vm[system]->folder, u->value);

		k->path = host_absolute_path(path);
		free(path);
	}
	uuid_text(&id, k->uuid);
	choose_format(m, k, u->given);
	if (!u->given)
		unique_path(m, k);
	m->disks++;
	if (!lstat(k->path, &st))
		return err_set(e, ERR_FILE,
			"Could not create the imported medium '%s'.\nThe file exists already (VERR_ALREADY_EXISTS)",
			k->path);
	for (int i = 0; i < m->disks - 1; i++)
		if (!strcmp(m->disk[i].path, k->path))
			return err_set(e, ERR_INVALID, "Two disks are to have the path '%s'", k->path);
	return 0;
}

static int
place_all(struct import *m, struct err *e)
{
	int count = 0;

	m->vm = xcalloc((size_t)m->a->systems, sizeof(*m->vm));
	for (int i = 0; i < m->a->systems; i++) {
		if (place_machine(m, i, e))
			return -1;
		count += m->a->plan[i].disks;
	}
	m->disk = xcalloc((size_t)count + 1, sizeof(*m->disk));
	for (int i = 0; i < m->a->systems; i++)
		for (int n = 0; n < m->a->plan[i].disks; n++) {
			const struct plan_disk *p = &m->a->plan[i].disk[n];

			if (!m->a->system[i].unit[p->unit].ignored && place_disk(m, i, p, e))
				return -1;
		}
	m->scratch = xasprintf("%s/import-in-progress", m->vm[0]->folder);
	return 0;
}

static void
add_made(struct import *m, char *path)
{
	m->made = realloc(m->made, (size_t)(m->count + 1) * sizeof(*m->made));
	if (!m->made)
		abort();
	m->made[m->count++] = path;
}

/* The machine's settings file first: it is what a sentence about an interrupted import names. */
static void
list_made(struct import *m)
{
	for (int i = 0; i < m->a->systems; i++)
		add_made(m, xstrdup(m->vm[i]->cfg_file));
	for (int i = 0; i < m->disks; i++)
		add_made(m, xstrdup(m->disk[i].path));
	add_made(m, xasprintf("%s/packed", m->scratch));
	add_made(m, xasprintf("%s/plain", m->scratch));
	add_made(m, xasprintf("%s/mark", m->scratch));
	m->files = m->count;
	add_made(m, xstrdup(m->scratch));
	for (int i = 0; i < m->a->systems; i++)
		add_made(m, xstrdup(m->vm[i]->folder));
}

static void
remove_scratch(struct import *m)
{
	char *file = xasprintf("%s/packed", m->scratch);

	unlink(file);
	free(file);
	file = xasprintf("%s/plain", m->scratch);
	unlink(file);
	free(file);
	file = xasprintf("%s/mark", m->scratch);
	unlink(file);
	free(file);
	rmdir(m->scratch);
}

static void
undo(struct import *m)
{
	for (int i = 0; i < m->disks; i++)
		if (m->disk[i].made && block_remove(m->disk[i].path, NULL))
			unlink(m->disk[i].path);
	for (int i = 0; m->wrote && i < m->a->systems; i++)
		unlink(m->vm[i]->cfg_file);
	remove_scratch(m);
	for (int i = m->files; i < m->count; i++)
		rmdir(m->made[i]);
}

/* ---- disks ---- */

/* Progress of one disk: fetching it is the first half of its share. */
struct share {
	struct import *m;
	int from, to;
};

static void
share_at(void *opaque, int percent)
{
	struct share *s = opaque;
	const struct host_progress *p = s->m->how->progress;
	int all = MAX(s->m->disks, 1) * 100;

	if (p && p->percent)
		p->percent(p->opaque, (s->m->done * 100 + s->from + (s->to - s->from) * percent / 100) * 99 / all);
}

static bool
share_stopped(void *opaque)
{
	const struct host_progress *p = ((struct share *)opaque)->m->how->progress;

	return p && p->stopped && p->stopped(p->opaque);
}

/* VMDKs can be a text that names other files. */
static bool
has_parts(struct block *b)
{
	const char *part;

	for (int i = 0; (part = block_part(b, i)); i++)
		if (*part)
			return true;
	return false;
}

/* The image of a stranger, alone. */
static struct block *
open_image(const char *path, const char *format, const char *shown, struct err *e)
{
	struct block *b = block_open(path, format, BLOCK_RDONLY | BLOCK_NO_PARENT, e);
	struct block_info info;

	if (!b) {
		err_wrap(e, "The disk image '%s' cannot be used", shown);
		return NULL;
	}
	block_get_info(b, &info);
	if (!format && (!strcmp(info.format, "raw") || !strcmp(info.format, "iso")))
		err_set(e, ERR_FILE, "The disk image '%s' has no format that is known", shown);
	else if (info.backing || (info.variant && !strcmp(info.variant, "differencing")))
		err_set(e, ERR_UNSUPPORTED, "The disk image '%s' reads through to another file", shown);
	else if (has_parts(b))
		err_set(e, ERR_UNSUPPORTED, "The disk image '%s' has further files, which an appliance cannot bring",
			shown);
	else if (info.encrypted)
		err_set(e, ERR_PASSWORD, "The disk image '%s' is encrypted", shown);
	else
		return b;
	block_close(b);
	return NULL;
}

static int
create_target(struct making *k, uint64_t size, bool safe, struct err *e)
{
	struct uuid u;
	struct block_create c = { .path = k->path, .format = k->format, .size = (size + 511) & ~511ull, .uuid = &u };

	uuid_parse(k->uuid, &u);
	c.unsafe = !safe;
	if (block_create(&c, e))
		return -1;
	k->made = true;
	return 0;
}

static int
convert(struct making *k, const char *path, const char *format, const char *shown, const struct block_progress *p,
	struct err *e)
{
	struct block *from = open_image(path, format, shown, e), *to = NULL;
	struct block_info info;
	int r = -1;

	if (!from)
		return -1;
	block_get_info(from, &info);
	if (!create_target(k, info.size, false, e) && (to = block_open(k->path, k->format, BLOCK_UNSAFE, e)))
		r = block_copy(&(struct block_copy){ .from = from, .to = to, .sync = true, .progress = p }, e);
	block_close(to);
	block_close(from);
	return r;
}

static int
import_disk(struct import *m, struct making *k, struct err *e)
{
	const struct ovf *o = m->a->ovf;
	const struct ovf_disk *d = k->plan->disk >= 0 ? &o->disk[k->plan->disk] : NULL;
	const struct ovf_file *f = k->plan->file >= 0 ? &o->file[k->plan->file] : NULL;
	struct share fetching = { m, 0, m->a->package->ova ? 50 : 20 }, copying = { m, fetching.to, 100 };
	struct block_progress p = { share_at, share_stopped, &fetching };
	uint64_t limit = (d ? d->capacity + d->capacity / 8 : 16ull << 30) + (64u << 20);
	char *path;
	int r;

	if (!f)
		return create_target(k, d->capacity, true, e);
	path = package_fetch(m->a->package, f, m->scratch, limit, &p, e);
	if (!path)
		return -1;
	p.opaque = &copying;
	if (k->plan->iso) {
		r = clone_file(path, k->path, e);
		k->made = !r;
	} else {
		r = convert(k, path, d ? plan_format(d->format) : NULL, f->href, &p, e);
	}
	if (str_starts(path, m->scratch))
		unlink(path);
	free(path);
	return r;
}

/* Vagrant removes folders of machines that have no file in them (hidden ones do not count): there is one from here on.
 */
static int
make_scratch(struct import *m, struct err *e)
{
	char *mark = xasprintf("%s/mark", m->scratch);
	int fd = dir_make(m->scratch, 0700, e) ? -1 : open(mark, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);

	if (fd >= 0)
		close(fd);
	free(mark);
	return fd >= 0 ? 0 : err_sys(e, ERR_FILE, errno, "The folder '%s' cannot be made", m->scratch);
}

static int
import_disks(struct import *m, struct err *e)
{
	if (make_scratch(m, e))
		return -1;
	for (int i = 0; i < m->disks; i++) {
		char *dir = strndup(m->disk[i].path, (size_t)(strrchr(m->disk[i].path, '/') - m->disk[i].path));
		struct stat st;
		int r = *dir && stat(dir, &st) ? dir_make(dir, 0755, e) : 0;

		free(dir);
		if (r || import_disk(m, &m->disk[i], e))
			return err_wrap(e, "Could not create the imported medium '%s'", m->disk[i].path);
		m->done++;
	}
	return 0;
}

/* ---- the machine ---- */

static struct host_controller *
controller_of_bus(struct host_vm *vm, enum host_bus bus)
{
	static const struct {
		enum host_bus bus;
		const char *name;
	} names[] = { { HOST_IDE, "IDE Controller" }, { HOST_SATA, "SATA Controller" },
		{ HOST_SCSI, "SCSI Controller" }, { HOST_FLOPPY_BUS, "Floppy Controller" },
		{ HOST_NVME, "NVMe Controller" }, { HOST_VIRTIO_SCSI, "VirtioSCSI Controller" },
		{ HOST_VIRTIO_BLK, "VirtIO Controller" } };
	const struct bus_row *row = bus_of(bus);
	struct host_controller *c;
	const char *name = row->word;

	for (int i = 0; i < vm->ctl_count; i++)
		if (vm->ctl[i].bus == bus)
			return &vm->ctl[i];
	for (size_t i = 0; i < ARRAY_LEN(names); i++)
		if (names[i].bus == bus)
			name = names[i].name;
	c = vm_controller_add(vm, name);
	c->bus = bus;
	c->type = row->type;
	c->max_ports = row->max_ports;
	c->devices_per_port = row->devices;
	c->ports = bus == HOST_SATA ? 1 : row->ports;
	c->bootable = true;
	return c;
}

/* Where the disk goes: where <vbox:Machine> has it, else where the envelope's items put it, else anywhere free. */
static struct host_controller *
disk_place(struct import *m, const struct making *k, int *port, int *device)
{
	const struct xml *machine = m->a->ovf->system[k->system].machine;
	struct host_controller *c = NULL;
	const char *name;

	if (k->plan->uuid && machine_find_disk(machine, k->plan->uuid, &name, port, device))
		c = vm_controller(m->vm[k->system], name);
	if (!c || *port >= c->max_ports || *device >= c->devices_per_port) {
		c = controller_of_bus(m->vm[k->system], k->plan->bus);
		*port = k->plan->port;
		*device = k->plan->device;
	}
	return c;
}

static int
attach_disk(struct import *m, const struct making *k, struct err *e)
{
	struct host_attachment *a;
	int port, device, places;
	struct host_controller *c = disk_place(m, k, &port, &device);
	char uuid[37];

	places = c->max_ports * c->devices_per_port;
	for (int i = 0; host_vm_attachment(c, port, device); i++) {
		const struct host_attachment *there = host_vm_attachment(c, port, device);

		/* An empty drive is where its disc goes. */
		if (k->plan->iso && there->type == HOST_DVD && !there->medium)
			break;
		if (i == places)
			return err_set(
				e, ERR_INVALID, "Controller '%s' has no room for the disk '%s'", c->name, k->path);
		device = (device + 1) % c->devices_per_port;
		port = device ? port : (port + 1) % c->max_ports;
	}
	a = (struct host_attachment *)host_vm_attachment(c, port, device);
	if (!a)
		a = vm_attachment_add(c, port, device);
	a->type = k->plan->iso ? HOST_DVD : HOST_DISK;
	c->ports = MAX(c->ports, port + 1);
	if (medium_get(m->h, a->type, k->path, uuid, &a->path, &a->format, e))
		return -1;
	a->medium = xstrdup(uuid);
	return 0;
}

static int
attach_all(struct import *m, struct err *e)
{
	for (int i = 0; i < m->disks; i++)
		if (attach_disk(m, &m->disk[i], e))
			return -1;
	return 0;
}

/* The network that an adapter is on, from its unit: a bridge needs an interface of this host. */
static void
plug_adapter(struct import *m, struct host_vm *vm, int slot, const char *kind, struct ovf_notes *notes)
{
	struct host_netif *ifs = NULL;
	size_t count = 0;

	if (!strcasecmp(kind, "Bridged")) {
		if (host_netifs(&ifs, &count, NULL) || !count) {
			notes_add(notes, "nic%d=bridged", slot + 1);
			kind = "NAT";
		} else {
			notes_set(notes, m->h, vm, HK_BRIDGEADAPTER, slot, ifs[0].name);
		}
		free(ifs);
	} else if (!strcasecmp(kind, "HostOnly")) {
		json_t *all = host_net_list(m->h, HOST_NET_HOSTONLYIF, NULL);
		const char *first = json_object_iter_key(json_object_iter(all));

		notes_set(notes, m->h, vm, HK_HOSTONLYADAPTER, slot, first ? first : "vboxnet0");
		json_decref(all);
	}
	notes_set(notes, m->h, vm, HK_NIC, slot, !strcasecmp(kind, "Internal") ? "intnet" : kind);
}

static void
plug_adapters(struct import *m, int i, struct ovf_notes *notes)
{
	static const char *const types[] = { "82540EM", "Am79C970A", "Am79C973", "82540EM", "82543GC", "82545EM",
		"virtio" };
	const struct host_ovf_system *s = &m->a->system[i];

	vm_set(m->vm[i], HK_NIC, 0, "none");
	for (int u = 0; u < s->units; u++) {
		const char *extra = s->unit[u].extra, *kind = strstr(extra, "type=");
		int slot, type;

		if (s->unit[u].kind != HOST_OVF_NIC || s->unit[u].ignored || !kind ||
			sscanf(extra, "slot=%d", &slot) != 1)
			continue;
		type = atoi(s->unit[u].value);
		notes_set(notes, m->h, m->vm[i], HK_NICTYPE, slot, types[type > 0 && type < 7 ? type : 3]);
		plug_adapter(m, m->vm[i], slot, kind + 5, notes);
	}
}

/* Units that the caller switched off go, whatever <vbox:Machine> says. */
static void
apply_ignored(struct import *m, int i)
{
	const struct host_ovf_system *s = &m->a->system[i];

	for (int u = 0; u < s->units; u++) {
		int slot;

		if (!s->unit[u].ignored)
			continue;
		if (s->unit[u].kind == HOST_OVF_NIC && sscanf(s->unit[u].extra, "slot=%d", &slot) == 1)
			vm_set(m->vm[i], HK_NIC, slot, "none");
		if (s->unit[u].kind == HOST_OVF_SOUND) {
			vm_set(m->vm[i], HK_AUDIO, 0, "none");
			vm_set(m->vm[i], HK_AUDIOENABLED, 0, "off");
		}
	}
}

/* Drives that the envelope alone speaks of. */
static void
add_drives(struct import *m, int i)
{
	struct host_vm *vm = m->vm[i];
	const struct host_ovf_unit *floppy = plan_unit(&m->a->system[i], HOST_OVF_FLOPPY);
	const struct host_ovf_unit *cdrom = plan_unit(&m->a->system[i], HOST_OVF_CDROM);

	if (floppy && !floppy->ignored)
		vm_attachment_add(controller_of_bus(vm, HOST_FLOPPY_BUS), 0, 0)->type = HOST_FLOPPY;
	if (cdrom && !cdrom->ignored) {
		struct host_controller *c = controller_of_bus(vm, HOST_IDE);

		if (!host_vm_attachment(c, 1, 0))
			vm_attachment_add(c, 1, 0)->type = HOST_DVD;
	}
}

static int
apply_units(struct import *m, int i, struct ovf_notes *notes, struct err *e)
{
	static const struct {
		enum host_ovf_kind kind;
		enum host_key key;
	} keys[] = { { HOST_OVF_OS, HK_OSTYPE }, { HOST_OVF_GROUP, HK_GROUPS }, { HOST_OVF_CPUS, HK_CPUS },
		{ HOST_OVF_MEMORY, HK_MEMORY }, { HOST_OVF_DESCRIPTION, HK_DESCRIPTION } };

	for (size_t k = 0; k < ARRAY_LEN(keys); k++) {
		const struct host_ovf_unit *u = plan_unit(&m->a->system[i], keys[k].kind);

		/* The machine's own description counts, unless the caller has another. */
		if (!u || (keys[k].kind == HOST_OVF_DESCRIPTION && !u->given &&
				  *host_vm_get(m->vm[i], HK_DESCRIPTION, 0)))
			continue;
		if (u->given && vm_apply(m->h, m->vm[i], &(struct host_change){ keys[k].key, 0, u->value }, e))
			return -1;
		if (!u->given)
			notes_set(notes, m->h, m->vm[i], keys[k].key, 0, u->value);
	}
	return 0;
}

static int
describe_machine(struct import *m, int i, struct ovf_notes *notes, struct err *e)
{
	const struct ovf_system *o = &m->a->ovf->system[i];
	struct host_vm *vm = m->vm[i];
	char *normal;

	if (o->machine) {
		machine_read_settings(m->h, vm, o->machine, notes);
		if (m->how->keep_all_macs || m->how->keep_nat_macs)
			machine_read_macs(vm, o->machine, !m->how->keep_all_macs);
		machine_read_controllers(vm, o->machine, notes);
	} else {
		normal = setting_normal(HK_RTCUSEUTC, 0, "on", NULL);
		vm_set(vm, HK_RTCUSEUTC, 0, normal);
		free(normal);
		plug_adapters(m, i, notes);
	}
	if (apply_units(m, i, notes, e))
		return -1;
	apply_ignored(m, i);
	return 0;
}

static int
register_machine(struct import *m, int i, struct ovf_notes *notes, struct err *e)
{
	const struct xml *machine = m->a->ovf->system[i].machine;
	struct host_vm *vm = m->vm[i];

	if (vm_store(m->h, vm, e) || (machine && machine_read_pairs(m->h, vm, machine, notes, e)))
		return -1;
	m->wrote = true;
	return vboxfile_write(m->h, vm, e);
}

static int
register_all(struct import *m, struct err *e)
{
	struct ovf_notes notes = { 0 };
	int r = 0;

	for (int i = 0; i < m->a->systems && !r; i++)
		r = describe_machine(m, i, &notes, e);
	r = r ? r : db_begin(m->h, e) || attach_all(m, e) ? -1 : 0;
	for (int i = 0; i < m->a->systems && !r; i++) {
		if (!m->a->ovf->system[i].machine)
			add_drives(m, i);
		r = dir_make(m->vm[i]->folder, 0700, e) ? -1 : register_machine(m, i, &notes, e);
	}
	r = r || db_commit(m->h, e) ? -1 : 0;
	if (r)
		db_rollback(m->h);
	else if (notes.text.len)
		say(m, "Not taken over, because it cannot be had here or belongs to another host: %s", notes.text.s);
	str_free(&notes.text);
	return r;
}

/* ---- all of it ---- */

static int
check_licenses(const struct host_appliance *a, struct err *e)
{
	for (int i = 0; i < a->systems; i++)
		if (plan_unit(&a->system[i], HOST_OVF_LICENSE) && !a->system[i].license_accepted)
			return err_set(
				e, ERR_INVALID, "Cannot import until the license agreement listed above is accepted.");
	return 0;
}

static void
import_free(struct import *m)
{
	for (int i = 0; m->vm && i < m->a->systems; i++)
		host_vm_free(m->vm[i]);
	for (int i = 0; i < m->disks; i++) {
		free(m->disk[i].path);
		free(m->disk[i].format);
	}
	for (int i = 0; i < m->count; i++)
		free(m->made[i]);
	free(m->made);
	free(m->vm);
	free(m->disk);
	free(m->scratch);
}

int
host_appliance_import(struct host_appliance *a, const struct host_import *how, struct err *e)
{
	struct import m = { .a = a, .h = a->h, .how = how };
	struct media_job *job = NULL;
	int r = -1;

	if (check_licenses(a, e) || place_all(&m, e))
		goto out;
	list_made(&m);
	job = media_job_begin_all(a->h, "import", m.made, m.count, e);
	if (!job)
		goto out;
	r = import_disks(&m, e);
	r = r ? r : register_all(&m, e);
	remove_scratch(&m);
	if (r)
		undo(&m);
	media_job_end(job);
out:
	import_free(&m);
	return r;
}
