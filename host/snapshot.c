/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Snapshots: taking, restoring, listing, editing. Deleting is in prune.c.
 *
 * A snapshot is a row of `snapshot` (settings of that time as JSON, the file of its memory) and a row of
 * `snapshot_disk` for each of its disks. The disks themselves are media like others, tied together by medium.parent:
 *
 *	base.vdi <- {s1's overlay} <- {s2's overlay} <- {the current one}
 *	  of s1          of s2             of s3           attached
 *
 * Taking: each disk that is attached becomes the snapshot's, and a new, empty differencing image on it is attached
 * instead. Off, the images are made here; while it runs, by the machine's process at the one moment at which it also
 * fixes memory. Restoring: the attached images go, new ones are made on the snapshot's disks.
 *
 * What an interruption leaves is put right by work.c: files that were made are in "created" before they are, and those
 * that are of no use any more in "trash" of the transaction that makes them so.
 */
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include "block/block.h"
#include "host/chain.h"
#include "host/inv.h"
#include "host/run.h"

/* ---- differencing images ---- */

const char *
diff_format(const char *format, const char **suffix)
{
	static const struct {
		const char *format, *name, *suffix;
	} rows[] = { { "VDI", "vdi", "vdi" }, { "VMDK", "vmdk", "vmdk" }, { "VHD", "vhd", "vhd" },
		{ "QCOW2", "qcow2", "qcow2" } };

	for (size_t i = 0; i < ARRAY_LEN(rows); i++)
		if (!strcasecmp(format, rows[i].format)) {
			*suffix = rows[i].suffix;
			return rows[i].name;
		}
	*suffix = "vdi";
	return "vdi";
}

void
overlay_name(
	struct overlay *o, const struct host_vm *vm, const struct host_controller *c, const struct host_attachment *a)
{
	struct uuid u = uuid_random();
	const char *suffix;

	*o = (struct overlay){ .port = a->port, .device = a->device };
	o->controller = xstrdup(c->name);
	uuid_text(&u, o->uuid);
	snprintf(o->parent, sizeof(o->parent), "%s", a->medium);
	o->parent_path = xstrdup(a->path);
	o->parent_format = xstrdup(a->format);
	o->format = diff_format(a->format, &suffix);
	o->path = xasprintf("%s/{%s}.%s", vm->snap_folder, o->uuid, suffix);
}

void
overlays_free(struct overlay *o, int count)
{
	for (int i = 0; i < count; i++) {
		free(o[i].controller);
		free(o[i].path);
		free(o[i].parent_path);
		free(o[i].parent_format);
	}
	free(o);
}

struct overlay *
overlays_plan(const struct host_vm *vm, const struct host_vm *to, int *count)
{
	struct overlay *o = NULL;

	*count = 0;
	for (int i = 0; i < vm->ctl_count; i++) {
		for (int k = 0; k < vm->ctl[i].at_count; k++) {
			const struct host_attachment *a = &vm->ctl[i].at[k];

			if (a->type != HOST_DISK || !a->medium || !medium_kind_snapshots(a->kind))
				continue;
			o = realloc(o, (size_t)(*count + 1) * sizeof(*o));
			if (!o)
				abort();
			overlay_name(&o[(*count)++], to, &vm->ctl[i], a);
		}
	}
	return o;
}

int
overlay_create(const struct overlay *o, struct err *e)
{
	char format[16] = "";
	struct uuid u;

	uuid_parse(o->uuid, &u);
	for (size_t i = 0; o->parent_format[i] && i < sizeof(format) - 1; i++)
		format[i] = (char)tolower((unsigned char)o->parent_format[i]);
	return block_create_diff(o->parent_path, format, o->path, o->format, &u, e)
		       ? err_wrap(e, "Could not create the differencing image '%s'", o->path)
		       : 0;
}

/* The image as a medium, and in the place of its parent. Inside a transaction. */
int
overlay_register(struct host *h, const struct overlay *o, struct err *e)
{
	char upper[16] = "";

	for (size_t i = 0; o->format[i] && i < sizeof(upper) - 1; i++)
		upper[i] = (char)toupper((unsigned char)o->format[i]);
	return db_run(h, e,
		"INSERT INTO medium(uuid, type, path, format, variant, size, parent)"
		" SELECT ?, 'disk', ?, ?, 'differencing', size, id FROM medium WHERE uuid = ?",
		"ssss", o->uuid, o->path, upper, o->parent);
}

int
overlay_attach(struct host_vm *vm, const struct overlay *o)
{
	struct host_controller *c = vm_controller(vm, o->controller);
	struct host_attachment *a = c ? (struct host_attachment *)host_vm_attachment(c, o->port, o->device) : NULL;

	if (!a)
		return -1;
	free(a->medium);
	free(a->path);
	free(a->format);
	a->medium = xstrdup(o->uuid);
	a->path = xstrdup(o->path);
	a->format = xstrdup(o->format);
	return 0;
}

static json_t *
paths_of(const struct overlay *o, int count, const char *more)
{
	json_t *list = json_array();

	for (int i = 0; i < count; i++)
		json_array_append_new(list, json_string(o[i].path));
	if (more)
		json_array_append_new(list, json_string(more));
	return list;
}

static void
remove_overlays(const struct overlay *o, int count)
{
	for (int i = 0; i < count; i++)
		if (!access(o[i].path, F_OK) && block_remove(o[i].path, NULL))
			unlink(o[i].path);
}

static void
remove_trash(json_t *trash)
{
	json_t *v;
	size_t i;

	json_array_foreach(trash, i, v)
	{
		const char *path = json_string_value(v);

		if (str_ends(path, ".sav") || block_remove(path, NULL))
			unlink(path);
	}
}

/* ---- rows ---- */

static int64_t
snapshot_row(struct host *h, const char *uuid)
{
	sqlite3_stmt *s = db_query(h, NULL, "SELECT id FROM snapshot WHERE uuid = ?", "s", uuid);
	int64_t row = s && db_step(h, s, NULL) > 0 ? sqlite3_column_int64(s, 0) : -1;

	sqlite3_finalize(s);
	return row;
}

bool
snapshot_owns_state(struct host *h, const char *path)
{
	sqlite3_stmt *s = db_query(h, NULL, "SELECT 1 FROM snapshot WHERE state_file = ?", "s", path);
	bool owns = s && db_step(h, s, NULL) > 0;

	sqlite3_finalize(s);
	return owns;
}

/* The machine as it is becomes the snapshot `uuid`; the overlays take over. Inside a transaction. */
static int
insert_snapshot(struct host *h, struct host_vm *vm, const char *uuid, const char *name, const char *description,
	int64_t time, const char *state_file, const struct overlay *o, int count, struct err *e)
{
	json_t *hardware = vboxfile_hardware(vm);
	char *text = hardware ? json_dumps(hardware, JSON_COMPACT) : NULL;
	int r;

	json_decref(hardware);
	if (!text)
		return err_set(e, ERR_FAILED, "The settings of machine '%s' cannot be written down", vm->name);
	r = db_run(h, e,
		"INSERT INTO snapshot(machine, uuid, parent, name, description, time, state_file, settings)"
		" SELECT id, ?2, snapshot, ?3, ?4, ?5, ?6, ?7 FROM machine WHERE uuid = ?1",
		"sssslss", vm->uuid, uuid, name, description, time, state_file, text);
	free(text);
	for (int i = 0; i < count && !r; i++)
		r = db_run(h, e,
			    "INSERT INTO snapshot_disk VALUES((SELECT id FROM snapshot WHERE uuid = ?), ?, ?, ?,"
			    " (SELECT id FROM medium WHERE uuid = ?))",
			    "ssiis", uuid, o[i].controller, o[i].port, o[i].device, o[i].parent) ||
		    overlay_register(h, &o[i], e) || overlay_attach(vm, &o[i]);
	if (!r)
		r = vm_store(h, vm, e) ||
		    db_run(h, e,
			    "UPDATE machine SET snapshot = (SELECT id FROM snapshot WHERE uuid = ?) WHERE uuid = ?",
			    "ss", uuid, vm->uuid);
	snprintf(vm->snapshot, sizeof(vm->snapshot), "%s", uuid);
	return r ? -1 : 0;
}

/* ---- taking ---- */

static int
check_take(const struct host_vm *vm, struct err *e)
{
	switch (vm->state) {
	case HOST_POWEROFF:
	case HOST_SAVED:
	case HOST_ABORTED:
	case HOST_RUNNING:
	case HOST_PAUSED:
		return 0;
	default:
		return err_set(e, ERR_VM_STATE,
			"Cannot take a snapshot of the machine while it is changing the state (machine state: %s)",
			host_state_api(vm->state));
	}
}

json_t *
overlays_request(const struct overlay *o, int count, const char *state_file)
{
	json_t *disks = json_array();

	for (int i = 0; i < count; i++)
		json_array_append_new(disks,
			json_pack("{s:s, s:i, s:i, s:s, s:s, s:s, s:s, s:s}", "controller", o[i].controller, "port",
				o[i].port, "device", o[i].device, "path", o[i].path, "format", o[i].format, "uuid",
				o[i].uuid, "parent", o[i].parent_path, "parent_format", o[i].parent_format));
	return json_pack("{s:s?, s:o}", "path", state_file[0] ? state_file : NULL, "disks", disks);
}

/* Images of a machine that is off, unless somebody stops that. */
static int
create_overlays(const struct overlay *o, int count, const struct host_progress *p, const char *what, struct err *e)
{
	int r = 0;

	for (int i = 0; i < count && !r; i++) {
		r = overlay_create(&o[i], e);
		if (p && p->percent)
			p->percent(p->opaque, 99 * (i + 1) / count);
	}
	return r || !p || !p->stopped || !p->stopped(p->opaque)
		       ? r
		       : err_set(e, ERR_FAILED, "%s was cancelled; the machine is as before", what);
}

/* Make the images, here or in the machine's process. */
static int
make_images(struct host *h, const struct host_vm *vm, const struct host_snapshot_take *t, struct overlay *o, int count,
	const char *state_file, struct host_snapshot_numbers *n, struct err *e)
{
	static const struct host_progress silent;
	json_t *answer;

	if (!host_state_live(vm->state))
		return create_overlays(o, count, t->progress, "Taking the snapshot", e);
	answer = vm_call_long(
		h, vm, "snapshot.take", overlays_request(o, count, state_file), t->progress ? t->progress : &silent, e);
	if (!answer)
		return -1;
	n->stopped_ms = json_number_value(json_object_get(answer, "stopped_ms"));
	n->ms = json_number_value(json_object_get(answer, "ms"));
	n->memory = (uint64_t)json_integer_value(json_object_get(answer, "memory"));
	n->written = (uint64_t)json_integer_value(json_object_get(answer, "written"));
	json_decref(answer);
	return 0;
}

/* In "files" of the work, so that an interrupted take can be finished. */
json_t *
overlays_json(const struct overlay *o, int count)
{
	json_t *list = json_array();

	for (int i = 0; i < count; i++)
		json_array_append_new(
			list, json_pack("{s:s, s:i, s:i, s:s, s:s, s:s, s:s}", "controller", o[i].controller, "port",
				      o[i].port, "device", o[i].device, "path", o[i].path, "format", o[i].format,
				      "uuid", o[i].uuid, "parent", o[i].parent));
	return list;
}

static json_t *
describe_take(const struct host_vm *vm, const char *uuid, const struct host_snapshot_take *t, const struct overlay *o,
	int count, const char *state_file)
{
	return json_pack("{s:o, s:s, s:s, s:s, s:s?, s:b, s:o}", "created",
		paths_of(o, count, host_state_live(vm->state) && state_file[0] ? state_file : NULL), "uuid", uuid,
		"name", t->name, "description", t->description ? t->description : "", "state",
		state_file[0] ? state_file : NULL, "live", host_state_live(vm->state), "overlays",
		overlays_json(o, count));
}

int
host_snapshot_take(struct host *h, const char *id, const struct host_snapshot_take *t, char uuid[37],
	struct host_snapshot_numbers *n, struct err *e)
{
	struct host_vm *vm = host_vm_load(h, id, e), *now = NULL;
	struct overlay *o = NULL;
	struct uuid u = uuid_random();
	json_t *files = NULL;
	char *state_file = NULL;
	int count = 0, start_lock = -1, r = -1;
	enum work_outcome outcome = WORK_UNDONE;
	bool live;
	struct work w;

	*n = (struct host_snapshot_numbers){ 0 };
	if (!vm || check_take(vm, e))
		goto out;
	live = host_state_live(vm->state);
	if (t->uuid && !uuid_parse(t->uuid, &u)) {
		err_set(e, ERR_INVALID, "Invalid UUID '%s'", t->uuid);
		goto out;
	}
	uuid_text(&u, uuid);
	if (live && !t->disks_only)
		state_file = snapshot_state_path(vm, e);
	else
		state_file = xstrdup(vm->state == HOST_SAVED ? vm->state_file : "");
	if (!state_file || dir_make(vm->snap_folder, 0700, e))
		goto out;
	o = overlays_plan(vm, vm, &count);
	files = describe_take(vm, uuid, t, o, count, state_file);
	if (work_begin(h, vm, "take", files, &w, e))
		goto out;
	if (!live && (start_lock = vm_take_start_lock(h, vm->uuid)) < 0) {
		vm_busy(vm, e);
		goto end;
	}
	if (make_images(h, vm, t, o, count, state_file, n, e)) {
		if (!live)
			remove_overlays(o, count);
		else if (!vm_process_alive(h, vm->uuid)) /* it died over it */
			outcome = snapshot_recover_take(h, vm->uuid, files, e);
		if (live && outcome == WORK_UNDONE && !vm_process_alive(h, vm->uuid))
			remove_trash(json_object_get(files, "created"));
		goto end;
	}
	r = -1;
	if (!db_begin(h, e) && (now = host_vm_load(h, vm->uuid, e)) != NULL &&
		!insert_snapshot(h, now, uuid, t->name, t->description ? t->description : "", now_ns(), state_file, o,
			count, e) &&
		!work_done(&w, files, e) && !vboxfile_write(h, now, e) && !db_commit(h, e))
		r = 0;
	if (r)
		db_rollback(h);
	if (r && !live)
		remove_overlays(o, count);
	else if (r)
		outcome = WORK_STUCK; /* the guest writes to them already */
end:
	if (start_lock >= 0)
		close(start_lock);
	if (outcome == WORK_STUCK)
		work_leave(&w);
	else
		work_end(&w);
out:
	json_decref(files);
	overlays_free(o, count);
	free(state_file);
	host_vm_free(now);
	host_vm_free(vm);
	return r;
}

/* ---- a take that was interrupted ---- */

static struct overlay *
read_overlays(json_t *files, int *count)
{
	json_t *list = json_object_get(files, "overlays"), *v;
	struct overlay *o = xcalloc(json_array_size(list) + 1, sizeof(*o));
	size_t i;

	*count = 0;
	json_array_foreach(list, i, v)
	{
		const char *controller = "", *path = "", *format = "", *uuid = "", *parent = "", *suffix;
		struct overlay *x = &o[*count];

		if (json_unpack(v, "{s:s, s:i, s:i, s:s, s:s, s:s, s:s}", "controller", &controller, "port", &x->port,
			    "device", &x->device, "path", &path, "format", &format, "uuid", &uuid, "parent", &parent))
			continue;
		x->controller = xstrdup(controller);
		x->path = xstrdup(path);
		x->format = diff_format(format, &suffix);
		snprintf(x->uuid, sizeof(x->uuid), "%s", uuid);
		snprintf(x->parent, sizeof(x->parent), "%s", parent);
		(*count)++;
	}
	return o;
}

/* Is the file a saved state that was written to its end? */
static bool
state_complete(const char *path)
{
	char head[8] = "";
	FILE *f = path ? fopen(path, "re") : NULL;

	if (f && fread(head, 1, sizeof(head), f) != sizeof(head))
		head[0] = 0;
	if (f)
		fclose(f);
	return !path || !memcmp(head, "LodgeSav", sizeof(head));
}

/* The guest may have written to an overlay that its process pushed before it was killed: that goes where it belongs. */
static int
fold_back(const struct overlay *o, struct err *e)
{
	struct block *b;
	int r;

	if (access(o->path, F_OK))
		return 0;
	b = block_open(o->path, NULL, 0, e);
	r = b ? block_merge_offline(b, 0, BLOCK_MERGE_DOWN, NULL, e) : -1;
	if (b)
		block_close(b);
	if (r)
		return -1;
	block_remove(o->path, NULL);
	unlink(o->path);
	return 0;
}

/* A process that is still at it, or has not begun yet, finishes by itself: wait until it has. */
void
snapshot_wait_for_process(struct host *h, const char *uuid)
{
	static const struct host_progress silent;
	struct host_vm *vm = vm_process_alive(h, uuid) ? host_vm_load(h, uuid, NULL) : NULL;

	if (vm)
		json_decref(vm_call_long(h, vm, "barrier", json_object(), &silent, NULL));
	host_vm_free(vm);
}

static bool
is_medium(struct host *h, const char *uuid)
{
	sqlite3_stmt *s = db_query(h, NULL, "SELECT 1 FROM medium WHERE uuid = ?", "s", uuid);
	bool is = s && db_step(h, s, NULL) > 0;

	sqlite3_finalize(s);
	return is;
}

/* The machine's own overlays of an interrupted fork: attached when they are there, for the guest writes to them. */
static int
take_over(struct host *h, const char *uuid, struct overlay *o, int count, struct err *e)
{
	struct host_vm *vm = NULL;
	int r = db_begin(h, e);

	if (!r)
		vm = host_vm_load(h, uuid, e);
	r = r || !vm;
	for (int i = 0; i < count && !r; i++)
		if (!is_medium(h, o[i].uuid))
			r = overlay_register(h, &o[i], e) || overlay_attach(vm, &o[i]);
	r = r || vm_store(h, vm, e) || vboxfile_write(h, vm, e) || db_commit(h, e);
	if (r)
		db_rollback(h);
	host_vm_free(vm);
	return r ? -1 : 0;
}

/* The opposite, of one whose overlays are gone: attached is what was behind them. */
static int
give_back(struct host *h, const char *uuid, const struct overlay *o, int count, struct err *e)
{
	struct host_vm *vm = NULL;
	int r = db_begin(h, e);

	for (int i = 0; i < count && !r; i++)
		r = db_run(h, e,
			"UPDATE attachment SET medium = (SELECT parent FROM medium WHERE uuid = ?1)"
			" WHERE medium = (SELECT id FROM medium WHERE uuid = ?1)",
			"s", o[i].uuid);
	for (int i = 0; i < count && !r; i++)
		r = db_run(h, e, "DELETE FROM medium WHERE uuid = ?", "s", o[i].uuid);
	if (!r)
		vm = host_vm_load(h, uuid, e);
	r = r || !vm || vboxfile_write(h, vm, e) || db_commit(h, e);
	if (r)
		db_rollback(h);
	host_vm_free(vm);
	return r ? -1 : 0;
}

int
snapshot_recover_fork(struct host *h, const char *uuid, json_t *files, struct err *e)
{
	int count, there = 0, r = 0;
	struct overlay *o = read_overlays(files, &count);

	snapshot_wait_for_process(h, uuid);
	for (int i = 0; i < count && !r; i++)
		if (access(o[i].path, F_OK))
			r = give_back(h, uuid, &o[i], 1, e);
	for (int i = 0; i < count; i++)
		there += !access(o[i].path, F_OK);
	if (!r && there && there == count)
		r = take_over(h, uuid, o, count, e);
	else
		for (int i = 0; i < count && !r && !vm_process_alive(h, uuid); i++)
			r = fold_back(&o[i], e);
	overlays_free(o, count);
	return r;
}

enum work_outcome
snapshot_recover_take(struct host *h, const char *uuid, json_t *files, struct err *e)
{
	const char *snapshot = "", *name = "", *description = "", *state = NULL;
	enum work_outcome end = WORK_UNDONE;
	int count, live = 0, there = 0;
	struct overlay *o = read_overlays(files, &count);
	struct host_vm *vm;

	json_unpack(files, "{s:s, s:s, s:s, s?s, s:b}", "uuid", &snapshot, "name", &name, "description", &description,
		"state", &state, "live", &live);
	if (live)
		snapshot_wait_for_process(h, uuid);
	for (int i = 0; i < count; i++)
		there += !access(o[i].path, F_OK);
	if (live && snapshot_row(h, snapshot) < 0 && there == count && state_complete(state)) {
		end = WORK_STUCK;
		vm = db_begin(h, e) ? NULL : host_vm_load(h, uuid, e);
		if (vm &&
			!insert_snapshot(
				h, vm, snapshot, name, description, now_ns(), state ? state : "", o, count, e) &&
			!vboxfile_write(h, vm, e) && !db_commit(h, e))
			end = WORK_FINISHED;
		else
			db_rollback(h);
		host_vm_free(vm);
	}
	for (int i = 0; i < count && live && end == WORK_UNDONE && !vm_process_alive(h, uuid); i++)
		if (fold_back(&o[i], e))
			end = WORK_STUCK;
	overlays_free(o, count);
	return end;
}

/* ---- the tree ---- */

void
host_snapshot_release(struct host_snapshot *s)
{
	free(s->name);
	free(s->description);
	free(s->state_file);
	*s = (struct host_snapshot){ 0 };
}

void
host_snapshots_free(struct host_snapshot *s, size_t count)
{
	for (size_t i = 0; i < count; i++)
		host_snapshot_release(&s[i]);
	free(s);
}

static void
fill_snapshot(struct host_snapshot *x, sqlite3_stmt *s, const char *current)
{
	snprintf(x->uuid, sizeof(x->uuid), "%s", db_text(s, 0));
	snprintf(x->parent, sizeof(x->parent), "%s", db_text(s, 1));
	x->name = xstrdup(db_text(s, 2));
	x->description = xstrdup(db_text(s, 3));
	x->time = sqlite3_column_int64(s, 4);
	x->state_file = xstrdup(db_text(s, 5));
	x->current = !strcmp(x->uuid, current);
}

/* Depth first; the query gives them by the order of their making, so children of one parent keep it. */
static void
sort_tree(struct host_snapshot *in, size_t count, const char *parent, int depth, struct host_snapshot *out, size_t *n)
{
	for (size_t i = 0; i < count; i++) {
		if (!in[i].name || strcmp(in[i].parent, parent))
			continue;
		in[i].depth = depth;
		out[(*n)++] = in[i];
		in[i].name = NULL; /* moved */
		sort_tree(in, count, out[*n - 1].uuid, depth + 1, out, n);
	}
}

int
host_snapshots_load(struct host *h, const char *id, struct host_snapshot **out, size_t *count, struct err *e)
{
	struct host_vm *vm = host_vm_load(h, id, e);
	struct host_snapshot *list = NULL;
	size_t n = 0;
	sqlite3_stmt *s;
	int r = -1;

	*out = NULL;
	*count = 0;
	if (!vm)
		return -1;
	s = db_query(h, e,
		"SELECT s.uuid, p.uuid, s.name, s.description, s.time, s.state_file FROM snapshot s"
		" LEFT JOIN snapshot p ON p.id = s.parent JOIN machine m ON m.id = s.machine WHERE m.uuid = ?"
		" ORDER BY s.id",
		"s", vm->uuid);
	while (s && (r = db_step(h, s, e)) > 0) {
		list = realloc(list, (n + 1) * sizeof(*list));
		if (!list)
			abort();
		memset(&list[n], 0, sizeof(*list));
		fill_snapshot(&list[n++], s, vm->snapshot);
	}
	sqlite3_finalize(s);
	host_vm_free(vm);
	*out = xcalloc(n + 1, sizeof(**out));
	sort_tree(list, n, "", 0, *out, count);
	free(list);
	return r;
}

int
host_snapshot_find(struct host *h, const char *id, const char *snapshot, struct host_snapshot *out, struct err *e)
{
	struct host_snapshot *list;
	char text[37];
	struct uuid u;
	bool is_uuid = snapshot && uuid_parse(snapshot, &u), found;
	size_t count, i;

	if (is_uuid)
		uuid_text(&u, text);
	if (host_snapshots_load(h, id, &list, &count, e))
		return -1;
	for (i = 0; i < count; i++)
		if (snapshot ? !strcmp(is_uuid ? list[i].uuid : list[i].name, is_uuid ? text : snapshot)
			     : list[i].current)
			break;
	found = i < count;
	if (found) {
		*out = list[i];
		memset(&list[i], 0, sizeof(list[i]));
	} else if (!count) {
		err_set(e, ERR_NOT_FOUND, "This machine does not have any snapshots");
	} else if (is_uuid) {
		err_set(e, ERR_NOT_FOUND, "Could not find a snapshot with UUID {%s}", text);
	} else {
		err_set(e, ERR_NOT_FOUND, "Could not find a snapshot named '%s'", snapshot ? snapshot : "");
	}
	host_snapshots_free(list, count);
	return found ? 0 : -1;
}

int
host_snapshot_edit(
	struct host *h, const char *id, const char *snapshot, const char *name, const char *description, struct err *e)
{
	struct host_snapshot s = { 0 };
	struct host_vm *vm = NULL;
	int r = -1;

	if (db_begin(h, e))
		return -1;
	if (!host_snapshot_find(h, id, snapshot, &s, e) && (vm = host_vm_load(h, id, e)) != NULL &&
		!db_run(h, e,
			"UPDATE snapshot SET name = COALESCE(?, name), description = COALESCE(?, description)"
			" WHERE uuid = ?",
			"sss", name, description, s.uuid) &&
		!vboxfile_write(h, vm, e))
		r = db_commit(h, e);
	if (r)
		db_rollback(h);
	host_snapshot_release(&s);
	host_vm_free(vm);
	return r;
}

/* ---- restoring ---- */

/* The machine of a snapshot, its disks by snapshot_disk. Name, UUID and folder are those of `vm`. */
struct host_vm *
snapshot_machine(struct host *h, const struct host_vm *vm, const char *uuid, struct err *e)
{
	sqlite3_stmt *s = db_query(h, e, "SELECT settings FROM snapshot WHERE uuid = ?", "s", uuid);
	json_t *doc = s && db_step(h, s, e) > 0 ? json_loads(db_text(s, 0), 0, NULL) : NULL;
	struct host_vm *old = NULL;
	int r = -1;

	sqlite3_finalize(s);
	if (!doc) {
		err_set(e, ERR_XML, "The settings of the snapshot {%s} cannot be read", uuid);
		return NULL;
	}
	snapshot_fix_disks(h, uuid, doc);
	old = vm_new(vm->name, vm->folder);
	snprintf(old->uuid, sizeof(old->uuid), "%s", vm->uuid);
	r = vboxfile_read_hardware(h, old, doc, vm->cfg_file, e);
	json_decref(doc);
	old->state = vm->state;
	if (!r)
		return old;
	host_vm_free(old);
	return NULL;
}

struct host_vm *
host_snapshot_machine(struct host *h, const char *id, const char *snapshot, struct err *e)
{
	struct host_vm *vm = host_vm_load(h, id, e), *old = NULL;
	struct host_snapshot s = { 0 };

	if (vm && !host_snapshot_find(h, id, snapshot, &s, e))
		old = snapshot_machine(h, vm, s.uuid, e);
	if (old) {
		old->state = s.state_file[0] ? HOST_SAVED : HOST_POWEROFF;
		old->state_time = s.time;
		free(old->state_file);
		old->state_file = xstrdup(s.state_file);
	}
	host_snapshot_release(&s);
	host_vm_free(vm);
	return old;
}

/* Where a snapshot's disks are now is in snapshot_disk; the settings say where they were. */
void
snapshot_fix_disks(struct host *h, const char *uuid, json_t *doc)
{
	json_t *controllers = json_object_get(doc, "controllers"), *c, *a;
	size_t i, k;

	json_array_foreach(controllers, i, c)
	{
		json_array_foreach(json_object_get(c, "attachments"), k, a)
		{
			sqlite3_stmt *s = db_query(h, NULL,
				"SELECT m.uuid, m.path, m.format FROM snapshot_disk d JOIN medium m ON m.id = d.medium"
				" JOIN snapshot s ON s.id = d.snapshot WHERE s.uuid = ? AND d.controller = ? AND"
				" d.port = ? AND d.device = ?",
				"ssii", uuid, json_string_value(json_object_get(c, "name")),
				(int)json_integer_value(json_object_get(a, "port")),
				(int)json_integer_value(json_object_get(a, "device")));

			if (s && db_step(h, s, NULL) > 0) {
				json_object_set_new(a, "medium", json_string(db_text(s, 0)));
				json_object_set_new(a, "path", json_string(db_text(s, 1)));
				json_object_set_new(a, "format", json_string(db_text(s, 2)));
			}
			sqlite3_finalize(s);
		}
	}
}

/* Differencing images that only the current state had: out of the registry, their files into `trash`. */
static int
drop_current_disks(struct host *h, const struct host_vm *vm, json_t *trash, struct err *e)
{
	for (int i = 0; i < vm->ctl_count; i++) {
		for (int k = 0; k < vm->ctl[i].at_count; k++) {
			const struct host_attachment *a = &vm->ctl[i].at[k];

			if (a->type == HOST_DISK && a->medium && medium_drop_if_unused(h, a->medium, trash, e))
				return -1;
		}
	}
	return 0;
}

static int
restore_into(struct host *h, const struct host_vm *vm, const struct host_snapshot *s, struct overlay *o, int count,
	struct host_vm *old, json_t *trash, struct err *e)
{
	for (int i = 0; i < count; i++)
		if (overlay_register(h, &o[i], e) || overlay_attach(old, &o[i]))
			return -1;
	snprintf(old->snapshot, sizeof(old->snapshot), "%s", s->uuid);
	free(old->state_file);
	old->state_file = xstrdup(s->state_file);
	old->state = s->state_file[0] ? HOST_SAVED : HOST_POWEROFF;
	if (vm->state == HOST_SAVED && vm->state_file[0] && !snapshot_owns_state(h, vm->state_file))
		json_array_append_new(trash, json_string(vm->state_file));
	return vm_store(h, old, e) || drop_current_disks(h, vm, trash, e) ||
			       db_run(h, e,
				       "UPDATE machine SET snapshot = (SELECT id FROM snapshot WHERE uuid = ?)"
				       " WHERE uuid = ?",
				       "ss", s->uuid, vm->uuid) ||
			       vm_set_final_state(h, vm->uuid, old->state, s->state_file, e) ||
			       vboxfile_write(h, old, e)
		       ? -1
		       : 0;
}

int
host_snapshot_restore(
	struct host *h, const char *id, const char *snapshot, const struct host_progress *p, struct err *e)
{
	struct host_vm *vm = host_vm_load(h, id, e), *old = NULL;
	struct host_snapshot s = { 0 };
	json_t *files = NULL, *trash = json_array();
	struct overlay *o = NULL;
	int count = 0, lock = -1, r = -1;
	struct work w;

	if (!vm || host_snapshot_find(h, id, snapshot, &s, e))
		goto out;
	if (host_state_live(vm->state)) {
		err_set(e, ERR_VM_STATE, "Cannot delete the current state of the running machine (machine state: %s)",
			host_state_api(vm->state));
		goto out;
	}
	old = snapshot_machine(h, vm, s.uuid, e);
	if (!old || dir_make(vm->snap_folder, 0700, e))
		goto out;
	o = overlays_plan(old, old, &count);
	files = json_pack("{s:o, s:O}", "created", paths_of(o, count, NULL), "trash", trash);
	if (work_begin(h, vm, "restore", files, &w, e))
		goto out;
	lock = vm_take_start_lock(h, vm->uuid);
	r = lock < 0 ? vm_busy(vm, e) : create_overlays(o, count, p, "Restoring the snapshot", e);
	if (!r)
		r = db_begin(h, e) || restore_into(h, vm, &s, o, count, old, trash, e) || work_done(&w, files, e) ||
				    db_commit(h, e)
			    ? -1
			    : 0;
	if (r) {
		db_rollback(h);
		remove_overlays(o, count);
	} else {
		remove_trash(trash);
	}
	if (lock >= 0)
		close(lock);
	work_end(&w);
out:
	json_decref(files);
	json_decref(trash);
	overlays_free(o, count);
	host_snapshot_release(&s);
	host_vm_free(old);
	host_vm_free(vm);
	return r;
}

/* ---- the settings file ---- */

static json_t *
disks_json(struct host *h, const char *uuid)
{
	sqlite3_stmt *s = db_query(h, NULL,
		"SELECT d.controller, d.port, d.device, m.uuid, m.path, m.format FROM snapshot_disk d"
		" JOIN medium m ON m.id = d.medium JOIN snapshot s ON s.id = d.snapshot WHERE s.uuid = ?",
		"s", uuid);
	json_t *list = json_array();

	while (s && db_step(h, s, NULL) > 0)
		json_array_append_new(
			list, json_pack("{s:s, s:i, s:i, s:s, s:s, s:s}", "controller", db_text(s, 0), "port",
				      sqlite3_column_int(s, 1), "device", sqlite3_column_int(s, 2), "medium",
				      db_text(s, 3), "path", db_text(s, 4), "format", db_text(s, 5)));
	sqlite3_finalize(s);
	return list;
}

static json_t *
hardware_of(struct host *h, const char *uuid)
{
	sqlite3_stmt *s = db_query(h, NULL, "SELECT settings FROM snapshot WHERE uuid = ?", "s", uuid);
	json_t *doc = s && db_step(h, s, NULL) > 0 ? json_loads(db_text(s, 0), 0, NULL) : NULL;

	sqlite3_finalize(s);
	return doc ? doc : json_object();
}

json_t *
snapshots_json(struct host *h, const struct host_vm *vm)
{
	struct host_snapshot *list;
	json_t *out = json_array();
	size_t count;

	if (host_snapshots_load(h, vm->uuid, &list, &count, NULL))
		return out;
	for (size_t i = 0; i < count; i++)
		json_array_append_new(
			out, json_pack("{s:s, s:s, s:s, s:s, s:I, s:s, s:o, s:o}", "uuid", list[i].uuid, "parent",
				     list[i].parent, "name", list[i].name, "description", list[i].description, "time",
				     (json_int_t)list[i].time, "statefile", list[i].state_file, "hardware",
				     hardware_of(h, list[i].uuid), "disks", disks_json(h, list[i].uuid)));
	host_snapshots_free(list, count);
	return out;
}

static int
restore_disk(struct host *h, const char *snapshot, json_t *d, struct err *e)
{
	const char *controller = "", *medium = "", *path = "", *format = "";
	char uuid[37], *p = NULL, *f = NULL;
	int port = 0, device = 0, r;

	if (json_unpack(d, "{s:s, s:i, s:i, s:s, s:s, s:s}", "controller", &controller, "port", &port, "device",
		    &device, "medium", &medium, "path", &path, "format", &format))
		return err_set(e, ERR_XML, "a disk of a snapshot is not complete");
	r = medium_register(h, HOST_DISK, medium, path, format, e) || medium_get(h, HOST_DISK, path, uuid, &p, &f, e) ||
	    medium_note_parents(h, path, e) ||
	    db_run(h, e,
		    "INSERT INTO snapshot_disk VALUES((SELECT id FROM snapshot WHERE uuid = ?), ?, ?, ?,"
		    " (SELECT id FROM medium WHERE uuid = ?))",
		    "ssiis", snapshot, controller, port, device, uuid);
	free(p);
	free(f);
	return r ? -1 : 0;
}

static int
restore_one(struct host *h, const struct host_vm *vm, json_t *v, struct err *e)
{
	const char *uuid = "", *parent = "", *name = "", *description = "", *state_file = "";
	json_t *hardware = NULL, *disks = NULL, *d;
	json_int_t time = 0;
	char *text;
	size_t i;
	int r;

	if (json_unpack(v, "{s:s, s:s, s:s, s:s, s:I, s:s, s:o, s:o}", "uuid", &uuid, "parent", &parent, "name", &name,
		    "description", &description, "time", &time, "statefile", &state_file, "hardware", &hardware,
		    "disks", &disks))
		return err_set(e, ERR_XML, "a snapshot is not complete");
	text = json_dumps(hardware, JSON_COMPACT);
	r = db_run(h, e,
		"INSERT INTO snapshot(machine, uuid, parent, name, description, time, state_file, settings)"
		" VALUES((SELECT id FROM machine WHERE uuid = ?), ?, (SELECT id FROM snapshot WHERE uuid = ?), ?, ?, ?,"
		" ?, ?)",
		"ssssslss", vm->uuid, uuid, parent, name, description, (int64_t)time, state_file, text);
	free(text);
	json_array_foreach(disks, i, d)
	{
		if (!r)
			r = restore_disk(h, uuid, d, e);
	}
	return r;
}

int
snapshots_restore_json(struct host *h, const struct host_vm *vm, json_t *list, const char *current, struct err *e)
{
	json_t *v;
	size_t i;

	json_array_foreach(list, i, v) if (restore_one(h, vm, v, e)) return -1;
	for (int c = 0; c < vm->ctl_count; c++)
		for (int k = 0; k < vm->ctl[c].at_count; k++)
			if (vm->ctl[c].at[k].type == HOST_DISK && vm->ctl[c].at[k].path &&
				medium_note_parents(h, vm->ctl[c].at[k].path, e))
				return -1;
	return db_run(h, e, "UPDATE machine SET snapshot = (SELECT id FROM snapshot WHERE uuid = ?) WHERE uuid = ?",
		"ss", current, vm->uuid);
}
