/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Deleting a snapshot: its disks are merged with what hangs on them, and it goes out of the tree.
 *
 * For each disk P of the snapshot, with the images C that read through to it:
 *
 *	none			P is deleted (a base image is kept: it was there before all snapshots)
 *	P is a base image	one C: C is merged down into P, which takes its place everywhere. More: P stays as it is
 *	P is differencing	P is merged up into each C, and deleted; with one C that holds less than P, down instead
 *
 * While the machine runs, images that it has open are merged by its process (vm/merge.c), and the others here. Each
 * disk is a step of its own, with a transaction of its own: an interrupted deletion goes on with the disk it was at,
 * and does again what it was doing (block/block.h says why that is safe).
 */
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include "block/block.h"
#include "host/chain.h"
#include "host/run.h"

struct prune {
	struct host *h;
	struct host_vm *vm; /* as it is now */
	struct work *w;
	json_t *files;
	const struct host_progress *progress;
	const char *snapshot;
	int disks, disk; /* how many steps, which */
	bool firm, told; /* it goes on to its end; who wants to stop it was told so */
	bool spoilt; /* an image of the snapshot was written to, and is not merged yet: no longer what the snapshot was */
};

/* ---- how far it is, and whether it goes on ---- */

static bool
stop_wanted_by_caller(const struct prune *p)
{
	return p->progress && p->progress->stopped && p->progress->stopped(p->progress->opaque);
}

static bool
step_stopped(void *opaque)
{
	struct prune *p = opaque;

	return !p->firm && stop_wanted_by_caller(p);
}

static int
check_stopped(struct prune *p, struct err *e)
{
	return step_stopped(p) ? err_set(e, ERR_FAILED, "Deleting the snapshot was cancelled; it is there as before")
			       : 0;
}

static void
step_percent(void *opaque, int percent)
{
	struct prune *p = opaque;

	if (p->firm && !p->told && stop_wanted_by_caller(p)) {
		p->told = true;
		if (p->progress->too_late)
			p->progress->too_late(p->progress->opaque);
	}
	if (p->progress && p->progress->percent)
		p->progress->percent(p->progress->opaque, (p->disk * 100 + percent) / (p->disks ? p->disks : 1));
}

/* ---- where an image is in use ---- */

/* The place of the running machine's disk that has the medium `id` in its chain; false: it has it not open. */
static bool
open_in_machine(struct prune *p, int64_t id, const struct host_controller **ctl, const struct host_attachment **at)
{
	if (!host_state_live(p->vm->state))
		return false;
	for (int i = 0; i < p->vm->ctl_count; i++) {
		for (int k = 0; k < p->vm->ctl[i].at_count; k++) {
			const struct host_attachment *a = &p->vm->ctl[i].at[k];
			struct medium_row m = { 0 };
			int r = a->type == HOST_DISK && a->medium ? medium_row_load(p->h, a->medium, &m, NULL) : 0;

			while (r > 0) {
				int64_t parent = m.parent;
				bool found = m.id == id;

				medium_row_free(&m);
				if (found) {
					*ctl = &p->vm->ctl[i];
					*at = a;
					return true;
				}
				r = parent ? medium_row_by_id(p->h, parent, &m, NULL) : 0;
			}
		}
	}
	return false;
}

/* ---- one merge ---- */

static json_t *
place_json(const struct host_controller *c, const struct host_attachment *a, const char *child, const char *way)
{
	return json_pack("{s:s, s:i, s:i, s:s, s:s}", "controller", c->name, "port", a->port, "device", a->device,
		"child", child, "way", way);
}

static int
call_machine(struct prune *p, const char *method, json_t *params, const struct host_progress *progress, struct err *e)
{
	json_t *answer = vm_call_long(p->h, p->vm, method, params, progress, e);

	json_decref(answer);
	return answer ? 0 : -1;
}

static int
write_files(struct prune *p, json_t *trash, struct err *e)
{
	json_object_set(p->files, "trash", trash);
	return work_done(p->w, p->files, e);
}

/* The disk is no longer the snapshot's. Inside a transaction. */
static int
leave_snapshot(struct prune *p, int64_t medium, struct err *e)
{
	return db_run(p->h, e,
		"DELETE FROM snapshot_disk WHERE medium = ? AND snapshot = (SELECT id FROM snapshot WHERE uuid = ?)",
		"ls", medium, p->snapshot);
}

/* Everything that named C names P now; C is out of the registry. Inside a transaction. */
static int
replace_medium(struct prune *p, const struct medium_row *c, const struct medium_row *parent, struct err *e)
{
	return db_run(p->h, e, "UPDATE attachment SET medium = ? WHERE medium = ?", "ll", parent->id, c->id) ||
	       db_run(p->h, e, "UPDATE snapshot_disk SET medium = ? WHERE medium = ?", "ll", parent->id, c->id) ||
	       db_run(p->h, e, "UPDATE medium SET parent = ? WHERE parent = ?", "ll", parent->id, c->id) ||
	       db_run(p->h, e, "DELETE FROM medium WHERE id = ?", "l", c->id);
}

static int
note(struct prune *p, json_t *trash, struct err *e)
{
	struct host_vm *vm = host_vm_load(p->h, p->vm->uuid, e);
	int r = vm && !write_files(p, trash, e) && !vboxfile_write(p->h, vm, e) && !db_commit(p->h, e) ? 0 : -1;

	if (r)
		db_rollback(p->h);
	if (vm) {
		host_vm_free(p->vm);
		p->vm = vm;
	}
	return r;
}

static void
take_out_trash(struct prune *p)
{
	json_t *list = json_object_get(p->files, "trash"), *v;
	size_t i;

	json_array_foreach(list, i, v)
	{
		const char *path = json_string_value(v);

		if (path && !access(path, F_OK) && (str_ends(path, ".sav") || block_remove(path, NULL)))
			unlink(path);
	}
	json_object_del(p->files, "trash");
}

/* The images beside the one that is merged that read through to C: they read through to P from now on. */
static int
rebase_branches(struct prune *p, const struct medium_row *c, const struct medium_row *parent, struct err *e)
{
	const struct host_controller *ctl;
	const struct host_attachment *at;
	int64_t *kids;
	int n = medium_children(p->h, c->id, &kids, e), r = n < 0 ? -1 : 0;

	for (int i = 0; i < n && !r; i++) {
		struct medium_row k;

		r = medium_row_by_id(p->h, kids[i], &k, e) > 0 ? 0 : -1;
		/* The one of the running machine is told by its process. */
		if (!r && !open_in_machine(p, k.id, &ctl, &at))
			r = block_rebase(k.path, parent->path, NULL, e);
		medium_row_free(&k);
	}
	free(kids);
	return r;
}

/* P has C's data and its place in the inventory: C's file goes. `finish`: what the machine's process is to be told
 * then. */
static int
note_down(struct prune *p, const struct medium_row *c, const struct medium_row *parent, json_t *finish, struct err *e)
{
	json_t *trash = json_pack("[s]", c->path);
	int r = db_begin(p->h, e);

	if (finish)
		json_object_set(p->files, "finish", finish);
	if (!r && (leave_snapshot(p, parent->id, e) || replace_medium(p, c, parent, e))) {
		db_rollback(p->h);
		r = -1;
	}
	if (!r)
		r = note(p, trash, e);
	json_decref(trash);
	return r;
}

/* Nobody writes to C: its file stays right until the inventory says that P is in its place. */
static int
merge_down_offline(struct prune *p, const struct medium_row *c, const struct medium_row *parent, struct err *e)
{
	struct block_progress bp = { .percent = step_percent, .opaque = p };
	struct block *b = block_open(c->path, NULL, 0, e);
	int r = b ? block_merge_offline(b, 0, BLOCK_MERGE_DOWN, &bp, e) : -1;

	if (b)
		block_close(b);
	return r || rebase_branches(p, c, parent, e) || note_down(p, c, parent, NULL, e) ? -1 : 0;
}

/*
 * By the machine's process. The guest writes to C when it is the top: then the inventory comes before the finish, for
 * from then on only P is written to. A process that does not have C any more had finished before.
 */
static int
merge_down_live(struct prune *p, const struct medium_row *c, const struct medium_row *parent,
	const struct host_controller *ctl, const struct host_attachment *at, struct err *e)
{
	struct host_progress progress = { .percent = step_percent, .opaque = p };
	bool top = !strcmp(at->medium, c->uuid), gone = false;
	json_t *place = place_json(ctl, at, c->path, "down");
	int r = call_machine(p, "merge.start", json_incref(place), &progress, e);

	if (r && e->code == ERR_NOT_FOUND && !top) {
		r = 0;
		gone = true;
	}
	if (!r && top)
		r = note_down(p, c, parent, place, e);
	if (r)
		call_machine(p, "merge.cancel", json_incref(place), NULL, NULL);
	else if (!gone)
		r = call_machine(p, "merge.finish", json_incref(place), NULL, e);
	if (!r && !top)
		r = rebase_branches(p, c, parent, e) || note_down(p, c, parent, NULL, e) ? -1 : 0;
	json_object_del(p->files, "finish");
	json_decref(place);
	return r;
}

/* C into P. */
static int
merge_down(struct prune *p, const struct medium_row *c, const struct medium_row *parent, struct err *e)
{
	const struct host_controller *ctl = NULL;
	const struct host_attachment *at = NULL;
	struct err why = { 0 };
	int r;

	p->firm = true;
	if (open_in_machine(p, c->id, &ctl, &at))
		r = merge_down_live(p, c, parent, ctl, at, &why);
	else
		r = merge_down_offline(p, c, parent, &why);
	if (!r) {
		take_out_trash(p);
		return 0;
	}
	p->spoilt = why.code == ERR_FILE; /* all else is said before the first write */
	if (e)
		*e = why;
	return -1;
}

/* P into C, which reads through to what P did then. */
static int
merge_up(struct prune *p, const struct medium_row *c, const struct medium_row *parent, struct err *e)
{
	struct host_progress progress = { .percent = step_percent, .stopped = step_stopped, .opaque = p };
	struct block_progress bp = { .percent = step_percent, .stopped = step_stopped, .opaque = p };
	const struct host_controller *ctl;
	const struct host_attachment *at;
	struct block *b;
	int r;

	if (open_in_machine(p, c->id, &ctl, &at)) {
		json_t *place = place_json(ctl, at, c->path, "up");

		r = call_machine(p, "merge.start", json_incref(place), &progress, e) ||
		    call_machine(p, "merge.finish", json_incref(place), NULL, e);
		json_decref(place);
	} else {
		b = block_open(c->path, NULL, 0, e);
		r = b ? block_merge_offline(b, 0, BLOCK_MERGE_UP, &bp, e) : -1;
		if (b)
			block_close(b);
	}
	if (r) {
		check_stopped(p, e);
		return -1;
	}
	p->firm = true;
	if (db_begin(p->h, e))
		return -1;
	if (parent->parent)
		r = db_run(p->h, e, "UPDATE medium SET parent = ? WHERE id = ?", "ll", parent->parent, c->id);
	else
		r = db_run(p->h, e, "UPDATE medium SET parent = NULL WHERE id = ?", "l", c->id);
	if (!r && !db_commit(p->h, e))
		return 0;
	db_rollback(p->h);
	return -1;
}

/* ---- one disk ---- */

static uint64_t
size_on_disk(const char *path)
{
	struct block_info info = { 0 };
	struct block *b = block_open(path, NULL, BLOCK_RDONLY | BLOCK_NO_PARENT, NULL);

	if (!b)
		return 0; /* in use by the running machine, for writing: a recent one */
	block_get_info(b, &info);
	block_close(b);
	return info.on_disk;
}

/* The disk is no longer the snapshot's; its image goes when nothing needs it. */
static int
let_go(struct prune *p, const struct medium_row *m, struct err *e)
{
	json_t *trash = json_array();
	int r = check_stopped(p, e) ? -1 : db_begin(p->h, e);

	p->firm = true;
	if (r)
		goto out;
	r = leave_snapshot(p, m->id, e) || medium_drop_if_unused(p->h, m->uuid, trash, e);
	if (r)
		db_rollback(p->h);
	else
		r = note(p, trash, e);
	if (!r)
		take_out_trash(p);
out:
	json_decref(trash);
	return r ? -1 : 0;
}

static int
prune_disk(struct prune *p, int64_t id, struct err *e)
{
	const struct host_controller *ctl;
	const struct host_attachment *at;
	struct medium_row m, c = { 0 };
	int64_t *kids = NULL;
	int n, r = 0;

	if (medium_row_by_id(p->h, id, &m, e) <= 0)
		return 0;
	n = medium_children(p->h, id, &kids, e);
	r = n < 0 ? -1 : 0;
	/* Nothing can be merged into a base that is not written to: what hangs on it stays there. */
	if (n == 1 && (m.parent || strcasecmp(m.format, "VHDX")) && medium_row_by_id(p->h, kids[0], &c, e) > 0) {
		bool live = open_in_machine(p, c.id, &ctl, &at);

		if (!m.parent || (!live && size_on_disk(c.path) < size_on_disk(m.path))) {
			r = merge_down(p, &c, &m, e);
			goto out;
		}
	}
	for (int i = 0; i < n && !r && m.parent; i++) {
		medium_row_free(&c);
		r = medium_row_by_id(p->h, kids[i], &c, e) > 0 ? merge_up(p, &c, &m, e) : -1;
	}
	if (!r)
		r = let_go(p, &m, e);
out:
	medium_row_free(&c);
	medium_row_free(&m);
	free(kids);
	return r;
}

/* ---- the snapshot ---- */

static int
disks_of(struct host *h, const char *snapshot, int64_t **out, struct err *e)
{
	sqlite3_stmt *s = db_query(h, e,
		"SELECT d.medium FROM snapshot_disk d JOIN snapshot s ON s.id = d.snapshot WHERE s.uuid = ?", "s",
		snapshot);

	return db_ids(h, s, out, e);
}

/* Disks of other machines (linked clones, forks) read through to the snapshot's, or to what hangs on it: they may be in
 * use, and what they read must not change. */
static int
check_clones(struct host *h, const struct host_vm *vm, const char *snapshot, struct err *e)
{
	sqlite3_stmt *s = db_query(h, e,
		"WITH RECURSIVE down(id, base) AS ("
		" SELECT c.id, d.medium FROM snapshot_disk d JOIN snapshot s ON s.id = d.snapshot"
		" JOIN medium c ON c.parent = d.medium WHERE s.uuid = ?1"
		" UNION SELECT m.id, down.base FROM medium m JOIN down ON m.parent = down.id)"
		" SELECT p.path, (SELECT COUNT(*) FROM medium k WHERE k.parent = p.id), u.name FROM down"
		" JOIN medium p ON p.id = down.base JOIN ("
		" SELECT a.medium AS medium, v.name AS name, v.uuid AS uuid FROM attachment a"
		" JOIN controller k ON k.id = a.controller JOIN machine v ON v.id = k.machine UNION"
		" SELECT x.medium, v.name, v.uuid FROM snapshot_disk x JOIN snapshot y ON y.id = x.snapshot"
		" JOIN machine v ON v.id = y.machine) u ON u.medium = down.id WHERE u.uuid <> ?2 LIMIT 1",
		"ss", snapshot, vm->uuid);
	int r = s ? db_step(h, s, e) : -1;

	if (r > 0 && sqlite3_column_int(s, 1) > 1)
		r = err_set(e, ERR_OBJECT_STATE,
			"Hard disk '%s' has more than one child hard disk (%d): a disk of the machine '%s' reads "
			"through to it",
			db_text(s, 0), sqlite3_column_int(s, 1), db_text(s, 2));
	else if (r > 0)
		r = err_set(e, ERR_OBJECT_STATE,
			"Hard disk '%s' cannot be merged: a disk of the machine '%s' reads through to it",
			db_text(s, 0), db_text(s, 2));
	sqlite3_finalize(s);
	return r;
}

static int
count_children(struct host *h, const char *snapshot)
{
	sqlite3_stmt *s = db_query(h, NULL,
		"SELECT COUNT(*) FROM snapshot WHERE parent = (SELECT id FROM snapshot WHERE uuid = ?)", "s", snapshot);
	int n = s && db_step(h, s, NULL) > 0 ? sqlite3_column_int(s, 0) : 0;

	sqlite3_finalize(s);
	return n;
}

static int
remove_row(struct prune *p, const char *snapshot, struct err *e)
{
	json_t *trash = json_array();
	sqlite3_stmt *s = db_query(p->h, e, "SELECT state_file FROM snapshot WHERE uuid = ?", "s", snapshot);
	char *state = s && db_step(p->h, s, NULL) > 0 ? xstrdup(db_text(s, 0)) : NULL;
	int r;

	sqlite3_finalize(s);
	r = db_begin(p->h, e);
	if (!r)
		r = db_run(p->h, e,
			    "UPDATE snapshot SET parent = (SELECT parent FROM snapshot WHERE uuid = ?1)"
			    " WHERE parent = (SELECT id FROM snapshot WHERE uuid = ?1)",
			    "s", snapshot) ||
		    db_run(p->h, e,
			    "UPDATE machine SET snapshot = (SELECT parent FROM snapshot WHERE uuid = ?1)"
			    " WHERE snapshot = (SELECT id FROM snapshot WHERE uuid = ?1)",
			    "s", snapshot) ||
		    db_run(p->h, e, "DELETE FROM snapshot WHERE uuid = ?", "s", snapshot);
	/* The machine may be about to go on from it: state_file is "" once it has. */
	if (!r && state && state[0] && !snapshot_owns_state(p->h, state) && strcmp(p->vm->state_file, state))
		json_array_append_new(trash, json_string(state));
	if (r)
		db_rollback(p->h);
	else
		r = note(p, trash, e);
	if (!r)
		take_out_trash(p);
	json_decref(trash);
	free(state);
	return r ? -1 : 0;
}

static int
prune(struct prune *p, const char *snapshot, struct err *e)
{
	int64_t *disks;
	int r = 0;

	p->snapshot = snapshot;
	p->disks = disks_of(p->h, snapshot, &disks, e);
	if (p->disks < 0)
		return -1;
	for (p->disk = 0; p->disk < p->disks && !r; p->disk++)
		r = check_stopped(p, e) ? -1 : prune_disk(p, disks[p->disk], e);
	free(disks);
	return r || check_stopped(p, e) ? -1 : remove_row(p, snapshot, e);
}

int
host_snapshot_delete(
	struct host *h, const char *id, const char *snapshot, const struct host_progress *progress, struct err *e)
{
	struct prune p = { .h = h, .progress = progress };
	struct host_snapshot s = { 0 };
	struct work w;
	int lock = -1, r = -1;
	bool live;

	p.vm = host_vm_load(h, id, e);
	if (!p.vm || host_snapshot_find(h, id, snapshot, &s, e))
		goto out;
	live = host_state_live(p.vm->state);
	if (live && p.vm->state != HOST_RUNNING && p.vm->state != HOST_PAUSED) {
		err_set(e, ERR_VM_STATE,
			"Cannot delete the snapshot of the machine while it is changing the state (machine state: %s)",
			host_state_api(p.vm->state));
		goto out;
	}
	if (count_children(h, s.uuid) > 1) {
		err_set(e, ERR_OBJECT_STATE,
			"Snapshot '%s' of the machine '%s' cannot be deleted, because it has %d child snapshots, which "
			"is more than the one snapshot allowed for deletion",
			s.name, p.vm->name, count_children(h, s.uuid));
		goto out;
	}
	if (check_clones(h, p.vm, s.uuid, e))
		goto out;
	p.files = json_pack("{s:s}", "uuid", s.uuid);
	if (work_begin(h, p.vm, "delete", p.files, &w, e))
		goto out;
	p.w = &w;
	lock = live ? -1 : vm_take_start_lock(h, p.vm->uuid);
	if (!live && lock < 0)
		vm_busy(p.vm, e);
	else
		r = prune(&p, s.uuid, e);
	if (lock >= 0)
		close(lock);
	if (r && p.spoilt) {
		err_wrap(e, "The snapshot cannot be used any more; each command goes on deleting it");
		work_leave(&w);
	} else {
		work_end(&w);
	}
out:
	json_decref(p.files);
	host_snapshot_release(&s);
	host_vm_free(p.vm);
	return r;
}

/* The work's lock is held by the caller. */
int
snapshot_recover_delete(struct host *h, const char *uuid, json_t *files, struct err *e)
{
	struct work w = { .h = h, .lock = -1 };
	struct prune p = { .h = h, .w = &w, .files = files };
	const char *snapshot = json_string_value(json_object_get(files, "uuid"));
	json_t *finish = json_object_get(files, "finish");
	struct host_snapshot s = { 0 };
	int lock, r = 0;

	snprintf(w.uuid, sizeof(w.uuid), "%s", uuid);
	p.vm = host_vm_load(h, uuid, e);
	if (!p.vm || !snapshot) {
		host_vm_free(p.vm);
		return 0;
	}
	lock = host_state_live(p.vm->state) ? -1 : vm_take_start_lock(h, uuid);
	/* Noted, but the machine's process was not told: it still writes to both images. */
	if (finish && host_state_live(p.vm->state))
		call_machine(&p, "merge.finish", json_incref(finish), NULL, NULL);
	json_object_del(files, "finish");
	take_out_trash(&p);
	if (!host_snapshot_find(h, uuid, snapshot, &s, NULL))
		r = prune(&p, snapshot, e);
	host_snapshot_release(&s);
	if (lock >= 0)
		close(lock);
	host_vm_free(p.vm);
	return r;
}
