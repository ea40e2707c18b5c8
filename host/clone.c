/* SPDX-License-Identifier: Apache-2.0 */
/*
 * clonevm.
 *
 * What is cloned: the machine as it is now or as a snapshot has it, and, by mode, no snapshots, those below that one,
 * or all. Each disk of what is cloned is a medium; a copy of it reads through to the copy of its parent if that is
 * cloned too, and else holds everything itself. A linked clone copies nothing: its disks are new differencing images on
 * those of the snapshot.
 *
 * A machine that runs is cloned as its disks are at one moment: a snapshot of them is taken for it, and deleted again.
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
#include "host/run.h"

#define PIECE (1u << 20)

/* A medium and its copy. */
struct copy {
	int64_t id, parent; /* of the original */
	char old_uuid[37], uuid[37];
	char *old_path, *path, *old_format;
	const char *format;
	int parent_copy; /* index, -1: none */
	bool made;
	bool sealed; /* encrypted, and copied as it is */
};

struct cloning {
	struct host *h;
	const struct host_clone *c;
	struct host_vm *from; /* as it is cloned */
	struct host_vm *to;
	struct host_snapshot *snap; /* cloned along, root first */
	size_t snaps;
	struct copy *copy;
	int copies;
	int base_number;
	int done;		 /* copies */
	json_t *created, *files; /* noted down */
	struct work work;
};

/* ---- which media, and where their copies go ---- */

static int
find_copy(const struct cloning *k, int64_t id)
{
	for (int i = 0; i < k->copies; i++)
		if (k->copy[i].id == id)
			return i;
	return -1;
}

static char *
file_name(const char *path)
{
	const char *slash = strrchr(path, '/');

	return xstrdup(slash ? slash + 1 : path);
}

/* A base image lies in the machine's folder, a differencing one in its snapshot folder. */
static char *
copy_path(struct cloning *k, const struct copy *c, bool diff, const char *suffix)
{
	char *path, *name;

	if (diff)
		return xasprintf("%s/{%s}.%s", k->to->snap_folder, c->uuid, suffix);
	if (k->c->keep_disk_names) {
		name = file_name(c->old_path);
		path = xasprintf("%s/%s", k->to->folder, name);
		free(name);
		return path;
	}
	k->base_number++;
	return xasprintf("%s/%s-disk%d.%s", k->to->folder, k->to->name, k->base_number, suffix);
}

static int
plan_medium(struct cloning *k, int64_t id, struct err *e)
{
	struct medium_row m;
	struct uuid u = uuid_random();
	const char *suffix;
	struct copy *c;

	if (find_copy(k, id) >= 0)
		return 0;
	if (medium_row_by_id(k->h, id, &m, e) <= 0)
		return -1;
	k->copy = realloc(k->copy, (size_t)(k->copies + 1) * sizeof(*k->copy));
	if (!k->copy)
		abort();
	c = &k->copy[k->copies];
	*c = (struct copy){ .id = id, .parent = m.parent, .old_path = m.path, .old_format = m.format };
	snprintf(c->old_uuid, sizeof(c->old_uuid), "%s", m.uuid);
	uuid_text(&u, c->uuid);
	c->format = diff_format(m.format, &suffix);
	if (!strcmp(m.format, "RAW")) {
		c->format = "raw";
		suffix = "img";
	}
	c->parent_copy = k->c->link ? -1 : find_copy(k, m.parent);
	c->path = copy_path(k, c, k->c->link || c->parent_copy >= 0, suffix);
	if (c->parent_copy >= 0 && !strcmp(c->format, "raw"))
		c->format = "vdi";
	k->copies++;
	return 0;
}

static int64_t
medium_id(struct host *h, const char *uuid)
{
	struct medium_row m;
	int64_t id = medium_row_load(h, uuid, &m, NULL) > 0 ? m.id : -1;

	medium_row_free(&m);
	return id;
}

/* Parents before children: snapshots are in that order, the current state comes last. */
static int
plan_media(struct cloning *k, struct err *e)
{
	for (size_t i = 0; i < k->snaps; i++) {
		sqlite3_stmt *s = db_query(k->h, e,
			"SELECT d.medium FROM snapshot_disk d JOIN snapshot s ON s.id = d.snapshot WHERE s.uuid = ?",
			"s", k->snap[i].uuid);
		int r = s ? 1 : -1;

		while (r > 0 && (r = db_step(k->h, s, e)) > 0)
			if (plan_medium(k, sqlite3_column_int64(s, 0), e)) {
				r = -1;
				break;
			}
		sqlite3_finalize(s);
		if (r < 0)
			return -1;
	}
	for (int i = 0; i < k->from->ctl_count; i++)
		for (int n = 0; n < k->from->ctl[i].at_count; n++) {
			const struct host_attachment *a = &k->from->ctl[i].at[n];

			if (a->type == HOST_DISK && a->medium && plan_medium(k, medium_id(k->h, a->medium), e))
				return err_wrap(e, "Could not clone the medium '%s'", a->path);
		}
	return 0;
}

/* ---- copying ---- */

/* The medium under way is at so many percent. */
static void
tell(void *opaque, int percent)
{
	struct cloning *k = opaque;
	const struct host_progress *p = k->c->progress;

	if (p && p->percent && k->copies)
		p->percent(p->opaque, (k->done * 100 + percent) / k->copies);
}

static bool
is_stopped(void *opaque)
{
	const struct host_progress *p = ((struct cloning *)opaque)->c->progress;

	return p && p->stopped && p->stopped(p->opaque);
}

/* What differs from what the new image shows already, which reads through to the copy of its parent. */
static int
copy_difference(struct cloning *k, struct block *from, struct block *to, struct err *e)
{
	struct block_info info;
	uint8_t *a = malloc(PIECE), *b = malloc(PIECE);
	uint64_t at = 0;
	int r = a && b ? 0 : -ENOMEM;

	block_get_info(from, &info);
	while (!r && at < info.size) {
		uint64_t n = MIN((uint64_t)PIECE, info.size - at), x = n, y = n;

		if (block_is_zero(from, at, &x) && block_is_zero(to, at, &y) && x && y) {
			at += MIN(x, y);
			continue;
		}
		if (is_stopped(k))
			r = -ECANCELED;
		n = MIN((uint64_t)PIECE, info.size - at);
		r = r ? r : block_read(from, a, n, at);
		r = r ? r : block_read(to, b, n, at);
		if (!r && memcmp(a, b, n))
			r = block_write(to, a, n, at);
		at += n;
		tell(k, (int)(at / 1024 * 100 / (info.size / 1024 + 1)));
	}
	if (!r)
		r = block_flush(to);
	free(a);
	free(b);
	if (r == -ECANCELED)
		return err_set(e, ERR_FAILED, "The copying was cancelled");
	return r ? err_sys(e, ERR_FILE, r, "Could not copy '%s' to '%s'", block_path(from), block_path(to)) : 0;
}

static int
copy_contents(struct cloning *k, const struct copy *c, struct block *from, struct block *to, struct err *e)
{
	struct block_progress p = { tell, is_stopped, k };

	if (c->parent_copy >= 0)
		return copy_difference(k, from, to, e);
	return block_copy(&(struct block_copy){ .from = from, .to = to, .sync = true, .progress = &p }, e);
}

static int
create_copy(struct cloning *k, struct copy *c, uint64_t size, struct err *e)
{
	struct block_create bc = { .path = c->path, .format = c->format, .size = size };
	char *parent_format;
	struct uuid u;
	int r;

	uuid_parse(c->uuid, &u);
	bc.uuid = &u;
	if (k->c->link || c->parent_copy >= 0) {
		const char *parent = k->c->link ? c->old_path : k->copy[c->parent_copy].path;

		parent_format = xstrlower(k->c->link ? c->old_format : k->copy[c->parent_copy].format);
		r = block_create_diff(parent, parent_format, c->path, c->format, &u, e);
		free(parent_format);
		return r;
	}
	return block_create(&bc, e);
}

/* An encrypted disk, without its password: its file as it is, with a UUID of its own. */
static int
copy_sealed(struct copy *c, struct block *from, const struct block_info *info, struct err *e)
{
	const char *part;
	struct block *to;
	struct uuid u;
	int r = 0;

	for (int i = 0; (part = block_part(from, i)) && !r; i++)
		r = *part != 0;
	if (r || info->backing || c->parent_copy >= 0 || strcasecmp(c->format, info->format))
		return err_set(e, ERR_PASSWORD,
			"'%s' is encrypted, and one of a chain or of several files: decrypt it before its machine is "
			"cloned",
			c->old_path);
	c->sealed = c->made = true;
	if (clone_file(c->old_path, c->path, e))
		return -1;
	if (!strcmp(c->format, "qcow2"))
		return 0; /* has no UUID */
	uuid_parse(c->uuid, &u);
	to = block_open(c->path, c->format, BLOCK_NO_PARENT, e);
	r = to ? block_set_uuid(to, &u, e) : -1;
	block_close(to);
	return r;
}

static int
make_copy(struct cloning *k, struct copy *c, struct err *e)
{
	char *format = xstrlower(c->old_format);
	struct block *from = NULL, *to = NULL;
	struct block_info info = { 0 };
	int r = 0;

	if (!k->c->link) {
		from = block_open(c->old_path, format, BLOCK_RDONLY, e);
		if (from)
			block_get_info(from, &info);
		else
			r = -1;
	}
	if (!r && !access(c->path, F_OK))
		r = err_set(e, ERR_FILE, "The file '%s' exists already", c->path);
	if (!r && info.locked)
		r = copy_sealed(c, from, &info, e);
	else if (!r)
		c->made = !(r = create_copy(k, c, info.size, e));
	if (!r && from && !c->sealed) {
		to = block_open(c->path, c->format, 0, e);
		r = to ? copy_contents(k, c, from, to, e) : -1;
	}
	if (to)
		block_close(to);
	if (from)
		block_close(from);
	free(format);
	k->done++;
	tell(k, 0);
	return r ? err_wrap(e, "Could not clone the medium '%s'", c->old_path) : 0;
}

static void
remove_copies(struct cloning *k)
{
	for (int i = k->copies; i-- > 0;)
		if (k->copy[i].made && block_remove(k->copy[i].path, NULL))
			unlink(k->copy[i].path);
}

/* ---- the machine ---- */

static struct copy *
copy_of(struct cloning *k, const char *old_uuid)
{
	for (int i = 0; i < k->copies; i++)
		if (!strcmp(k->copy[i].old_uuid, old_uuid))
			return &k->copy[i];
	return NULL;
}

static void
copy_controllers(struct cloning *k)
{
	for (int i = 0; i < k->from->ctl_count; i++) {
		const struct host_controller *f = &k->from->ctl[i];
		struct host_controller *t = vm_controller_add(k->to, f->name);
		char *name = t->name;

		*t = *f;
		t->name = name;
		t->at = NULL;
		t->at_count = 0;
		for (int n = 0; n < f->at_count; n++) {
			struct host_attachment *a = vm_attachment_add(t, f->at[n].port, f->at[n].device);
			const struct copy *c =
				f->at[n].medium && f->at[n].type == HOST_DISK ? copy_of(k, f->at[n].medium) : NULL;

			*a = f->at[n];
			a->medium = a->medium ? xstrdup(c ? c->uuid : a->medium) : NULL;
			a->path = a->path ? xstrdup(c ? c->path : a->path) : NULL;
			a->format = a->format ? xstrdup(c ? c->format : a->format) : NULL;
		}
	}
}

static void
copy_settings(struct cloning *k)
{
	for (int key = 0; key < HK_COUNT; key++) {
		for (int i = 0; i < host_setting((enum host_key)key)->slots; i++) {
			bool nat = key == HK_MACADDRESS && !strcmp(host_vm_get(k->from, HK_NIC, i), "nat");

			if (key == HK_MACADDRESS && !k->c->keep_all_macs && !(nat && k->c->keep_nat_macs))
				continue;
			if (key == HK_HARDWAREUUID && !k->c->keep_hwuuids)
				continue;
			vm_set(k->to, (enum host_key)key, i, host_vm_get(k->from, (enum host_key)key, i));
		}
	}
	for (int n = 0; n < HOST_NICS; n++)
		for (int i = 0; i < k->from->rule_count[n]; i++)
			vm_rule_add(k->to, n, &k->from->rules[n][i], NULL);
	for (int i = 0; i < k->from->share_count; i++)
		vm_share_insert(k->to, &k->from->shares[i], NULL);
}

static int
make_machine(struct cloning *k, const struct host_vm *source, struct err *e)
{
	const struct host_clone *c = k->c;
	char *name = c->name ? xstrdup(c->name) : xasprintf("%s Clone", source->name);
	char *base = host_absolute_path(c->base_folder ? c->base_folder : host_machine_folder(k->h));
	char *folder = xasprintf("%s/%s", strcmp(base, "/") ? base : "", name);
	struct host_change groups = { HK_GROUPS, 0, c->groups };
	struct uuid u;
	int r = 0;

	if (!*name || strchr(name, '/') || strlen(name) > 200)
		r = err_set(e, ERR_INVALID, "Invalid machine name '%s'", name);
	k->to = vm_new(name, folder);
	if (!r && c->uuid) {
		if (uuid_parse(c->uuid, &u))
			uuid_text(&u, k->to->uuid);
		else
			r = err_set(e, ERR_INVALID, "Invalid UUID '%s'", c->uuid);
		vm_set(k->to, HK_HARDWAREUUID, 0, k->to->uuid);
	}
	copy_settings(k);
	if (!r && c->groups)
		r = vm_apply(k->h, k->to, &groups, e);
	free(folder);
	free(base);
	free(name);
	return r;
}

static int
check_place(struct cloning *k, struct err *e)
{
	sqlite3_stmt *s;
	struct stat st;
	int r;

	if (!stat(k->to->cfg_file, &st))
		return err_set(e, ERR_FILE, "Machine settings file '%s' already exists", k->to->cfg_file);
	s = db_query(k->h, e, "SELECT name FROM machine WHERE name = ? OR uuid = ?", "ss", k->to->name, k->to->uuid);
	r = s ? db_step(k->h, s, e) : -1;
	sqlite3_finalize(s);
	if (r > 0)
		return err_set(e, ERR_IN_USE, "A machine with the name '%s' already exists (VERR_ALREADY_EXISTS)",
			k->to->name);
	return r;
}

/* ---- snapshots that come along ---- */

/* The same tree with UUIDs of its own: what the settings file has of it. */
static json_t *
clone_snapshots(struct cloning *k, char current[37], struct err *e)
{
	json_t *all = snapshots_json(k->h, k->from), *out = json_array(), *v;
	char(*fresh)[37] = xcalloc(k->snaps + 1, sizeof(*fresh));
	size_t i;

	for (size_t n = 0; n < k->snaps; n++) {
		struct uuid u = uuid_random();

		uuid_text(&u, fresh[n]);
		if (k->snap[n].current)
			snprintf(current, 37, "%s", fresh[n]);
	}
	json_array_foreach(all, i, v)
	{
		const char *uuid = json_string_value(json_object_get(v, "uuid"));
		const char *parent = json_string_value(json_object_get(v, "parent")), *state;
		json_t *d, *disks = json_object_get(v, "disks");
		size_t n = 0, at;
		char *to;

		while (n < k->snaps && strcmp(k->snap[n].uuid, uuid))
			n++;
		if (n == k->snaps)
			continue;
		snapshot_fix_disks(k->h, uuid, json_object_get(v, "hardware"));
		json_object_set_new(v, "uuid", json_string(fresh[n]));
		at = 0;
		while (at < k->snaps && strcmp(k->snap[at].uuid, parent))
			at++;
		json_object_set_new(v, "parent", json_string(at < k->snaps ? fresh[at] : ""));
		json_array_foreach(disks, at, d)
		{
			struct copy *c = copy_of(k, json_string_value(json_object_get(d, "medium")));

			if (c) {
				json_object_set_new(d, "medium", json_string(c->uuid));
				json_object_set_new(d, "path", json_string(c->path));
				json_object_set_new(d, "format", json_string(c->format));
			}
		}
		state = json_string_value(json_object_get(v, "statefile"));
		if (state && *state) {
			to = xasprintf("%s/{%s}.sav", k->to->snap_folder, fresh[n]);
			json_array_append_new(k->created, json_string(to));
			if (work_note(&k->work, k->files, e) || clone_file(state, to, e)) {
				free(to);
				json_decref(out);
				out = NULL;
				break;
			}
			json_object_set_new(v, "statefile", json_string(to));
			free(to);
		}
		json_array_append(out, v);
	}
	json_decref(all);
	free(fresh);
	return out;
}

static bool
below(const struct host_snapshot *all, size_t count, const struct host_snapshot *s, const char *root)
{
	while (strcmp(s->uuid, root)) {
		size_t i = 0;

		while (i < count && strcmp(all[i].uuid, s->parent))
			i++;
		if (i == count)
			return false;
		s = &all[i];
	}
	return true;
}

/* Which snapshots the mode asks for. `root`: the snapshot cloned; "": the current state. */
static int
choose_snapshots(struct cloning *k, const char *id, const char *root, struct err *e)
{
	struct host_snapshot *all;
	size_t count;

	if (k->c->mode == HOST_CLONE_MACHINE || (k->c->mode == HOST_CLONE_CHILDREN && !root[0]))
		return 0;
	if (host_snapshots_load(k->h, id, &all, &count, e))
		return -1;
	k->snap = xcalloc(count + 1, sizeof(*k->snap));
	for (size_t i = 0; i < count; i++) {
		if (k->c->mode == HOST_CLONE_CHILDREN && !below(all, count, &all[i], root))
			continue;
		k->snap[k->snaps++] = all[i];
		all[i] = (struct host_snapshot){ 0 };
	}
	host_snapshots_free(all, count);
	return 0;
}

/* ---- all of it ---- */

static int
register_copy(struct cloning *k, const struct copy *c, struct err *e)
{
	char *upper = xstrdup(c->format);
	const char *parent = k->c->link ? c->old_uuid : c->parent_copy >= 0 ? k->copy[c->parent_copy].uuid : NULL;
	int r;

	for (char *p = upper; *p; p++)
		if (*p >= 'a' && *p <= 'z')
			*p = (char)(*p - 32);
	r = db_run(k->h, e,
		"INSERT INTO medium(uuid, type, path, format, variant, size, parent) SELECT ?, 'disk', ?, ?, ?, size,"
		" (SELECT id FROM medium WHERE uuid = ?) FROM medium WHERE uuid = ?",
		"ssssss", c->uuid, c->path, upper, parent ? "differencing" : "dynamic", parent, c->old_uuid);
	free(upper);
	return r;
}

static int
store(struct cloning *k, json_t *snapshots, const char *current, struct err *e)
{
	if (!k->c->registered)
		return 0;
	for (int i = 0; i < k->copies; i++)
		if (register_copy(k, &k->copy[i], e))
			return -1;
	if (vm_store(k->h, k->to, e) || snapshots_restore_json(k->h, k->to, snapshots, current, e))
		return -1;
	snprintf(k->to->snapshot, sizeof(k->to->snapshot), "%s", current);
	return 0;
}

/* The clone is not in the inventory: its settings file alone says all of it. */
static int
write_settings(struct cloning *k, json_t *snapshots, const char *current, struct err *e)
{
	return k->c->registered ? vboxfile_write(k->h, k->to, e)
				: vboxfile_write_with(k->h, k->to, snapshots, current, e);
}

static int
carry_out(struct cloning *k, const struct host_vm *source, struct err *e)
{
	json_t *snapshots = NULL;
	struct err unused = { 0 };
	char current[37] = "";
	bool diffs = k->c->link || k->snaps > 0;
	int r = -1;

	if (make_machine(k, source, e) || check_place(k, e) || plan_media(k, e))
		return -1;
	k->created = json_array();
	for (int i = 0; i < k->copies; i++)
		json_array_append_new(k->created, json_string(k->copy[i].path));
	json_array_append_new(k->created, json_string(k->to->cfg_file));
	k->files = json_pack("{s:O, s:[s, s]}", "created", k->created, "folders", k->to->snap_folder, k->to->folder);
	if (work_begin(k->h, source, "clone", k->files, &k->work, e))
		goto out;
	r = dir_make(diffs ? k->to->snap_folder : k->to->folder, 0700, e);
	for (int i = 0; i < k->copies && !r; i++)
		r = make_copy(k, &k->copy[i], e);
	if (!r) {
		copy_controllers(k);
		snapshots = k->snaps ? clone_snapshots(k, current, e) : json_array();
		r = snapshots ? 0 : -1;
	}
	if (!r)
		r = db_begin(k->h, e) || store(k, snapshots, current, e) || write_settings(k, snapshots, current, e) ||
				    work_done(&k->work, k->files, e) || db_commit(k->h, e)
			    ? -1
			    : 0;
	/* What the inventory says of their keys, too; they carry them in any case. */
	for (int i = 0; i < k->copies && !r && k->c->registered; i++)
		if (k->copy[i].sealed)
			medium_sync_key(k->h, k->copy[i].path, &unused);
	if (r) {
		db_rollback(k->h);
		remove_copies(k);
		unlink(k->to->cfg_file);
		rmdir(k->to->snap_folder);
		rmdir(k->to->folder);
	}
	work_end(&k->work);
out:
	json_decref(snapshots);
	return r;
}

static void
cloning_free(struct cloning *k)
{
	for (int i = 0; i < k->copies; i++) {
		free(k->copy[i].old_path);
		free(k->copy[i].path);
		free(k->copy[i].old_format);
	}
	free(k->copy);
	host_snapshots_free(k->snap, k->snaps);
	json_decref(k->created);
	json_decref(k->files);
	host_vm_free(k->from);
	host_vm_free(k->to);
}

static int
clone_from(struct host *h, const struct host_vm *source, const char *snapshot, const struct host_clone *c, char **name,
	char uuid[37], struct err *e)
{
	struct cloning k = { .h = h, .c = c };
	int r;

	k.from = snapshot[0] ? snapshot_machine(h, source, snapshot, e) : host_vm_load(h, source->uuid, e);
	r = k.from && !choose_snapshots(&k, source->uuid, snapshot, e) && !carry_out(&k, source, e) ? 0 : -1;
	if (!r) {
		*name = xstrdup(k.to->name);
		snprintf(uuid, 37, "%s", k.to->uuid);
	}
	cloning_free(&k);
	return r;
}

/* A running machine: as its disks are at this moment. */
static int
clone_live(struct host *h, const struct host_vm *source, const struct host_clone *c, char **name, char uuid[37],
	struct err *e)
{
	struct host_snapshot_take t = { .name = "clone", .description = "", .disks_only = true };
	struct host_snapshot_numbers n;
	char snapshot[37];
	int r;

	if (host_snapshot_take(h, source->uuid, &t, snapshot, &n, e))
		return err_wrap(e, "Could not take a snapshot to clone the running machine from");
	r = clone_from(h, source, snapshot, c, name, uuid, e);
	if (host_snapshot_delete(h, source->uuid, snapshot, NULL, r ? NULL : e) && !r)
		r = err_wrap(e, "The clone is complete, but the snapshot it was made from is still there");
	return r;
}

int
host_vm_clone(struct host *h, const char *id, const struct host_clone *c, char **name, char uuid[37], struct err *e)
{
	struct host_vm *source = host_vm_load(h, id, e);
	struct host_snapshot s = { 0 };
	int r = -1;

	if (!source)
		return -1;
	if (c->snapshot && host_snapshot_find(h, id, c->snapshot, &s, e))
		goto out;
	if (c->link && !c->snapshot)
		err_set(e, ERR_INVALID, "Linked clone can only be created from a snapshot");
	else if (c->link && c->mode != HOST_CLONE_MACHINE)
		err_set(e, ERR_INVALID, "Linked clone supported only with the clone mode 'machine'");
	else if (host_state_live(source->state) && !c->snapshot)
		r = c->mode == HOST_CLONE_MACHINE
			    ? clone_live(h, source, c, name, uuid, e)
			    : err_set(e, ERR_VM_STATE,
				      "A running machine can be cloned with its snapshots only from one of them");
	else
		r = clone_from(h, source, s.uuid, c, name, uuid, e);
out:
	host_snapshot_release(&s);
	host_vm_free(source);
	return r;
}
