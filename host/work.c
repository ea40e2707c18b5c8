/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Operations under way, so that one that is killed leaves nothing behind.
 *
 * Before an operation makes its first file it writes a row into `work`: which machine, what, and the files. While it
 * lasts it holds the machine's `work` lock (an OFD lock on $LODGE_HOME/run/<uuid>/work). A row whose lock is free is of
 * somebody who was killed; whoever opens the inventory next puts it right:
 *
 *	done 0	the inventory is still that of before: the files in "created" go, and the directories in "folders"
 *		that are empty then. A "take" whose files are all there and
 *		complete is finished instead, because the guest may have written to its overlays
 *	done 1	the inventory is that of after: the files in "trash" go
 *	delete	always finished (merging half is not undone, it is harmless and goes on where it was)
 *
 * The change of the inventory and `done` are one transaction.
 *
 * What cannot be put right yet, because the disk is full say, keeps its row and its files: each command tries again and says
 * why not, no other work begins on the machine, and if its disks are not those of the inventory it does not start.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "block/block.h"
#include "host/inv.h"
#include "host/run.h"
#include "host/unattended.h"

static int
take_lock(struct host *h, const char *uuid)
{
	struct flock lk = { .l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 0, .l_len = 1 };
	char *dir = vm_run_dir(h, uuid), *path = xasprintf("%s/work", dir);
	int fd = -1;

	if (!dir_make(dir, 0700, NULL))
		fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (fd >= 0 && fcntl(fd, F_OFD_SETLK, &lk)) {
		close(fd);
		fd = -1;
	}
	free(path);
	free(dir);
	return fd;
}

static int
write_row(struct work *w, const char *what, int done, json_t *files, struct err *e)
{
	char *text = json_dumps(files, JSON_COMPACT);
	int r = db_run(w->h, e,
		"INSERT OR REPLACE INTO work VALUES((SELECT id FROM machine WHERE uuid = ?1), ?1,"
		" COALESCE(?2, (SELECT what FROM work WHERE uuid = ?1), ''), ?3, ?4)",
		"ssis", w->uuid, what, done, text);

	free(text);
	return r;
}

/* The work that was interrupted on the machine and is still to be put right, "" for none; free() it. Its lock is held, or free. */
static char *
left_over(struct host *h, const char *uuid)
{
	sqlite3_stmt *s = db_query(h, NULL, "SELECT what FROM work WHERE uuid = ?", "s", uuid);
	char *what = xstrdup(s && db_step(h, s, NULL) > 0 ? db_text(s, 0) : "");

	sqlite3_finalize(s);
	return what;
}

static const char *
work_text(const char *what)
{
	static const struct {
		const char *what, *text;
	} texts[] = {
		{ "take", "taking a snapshot" },
		{ "restore", "restoring a snapshot" },
		{ "delete", "deleting a snapshot" },
		{ "save", "saving its state" },
		{ "adopt", "adopting a saved state" },
		{ "clone", "cloning it" },
		{ "fork", "forking it" },
		{ "move", "moving it" },
	};

	for (size_t i = 0; i < ARRAY_LEN(texts); i++)
		if (!strcmp(what, texts[i].what))
			return texts[i].text;
	return what;
}

static int
refuse_left_over(const struct host_vm *vm, const char *what, struct err *e)
{
	return err_set(e, ERR_OBJECT_STATE, "Machine '%s': %s was interrupted, and that has to be put right first",
		vm->name, work_text(what));
}

int
work_check_disks(struct host *h, const struct host_vm *vm, struct err *e)
{
	int lock = take_lock(h, vm->uuid), r = 0;
	char *what = left_over(h, vm->uuid);

	if (lock >= 0 && (!strcmp(what, "take") || !strcmp(what, "fork")))
		r = refuse_left_over(vm, what, e);
	if (lock >= 0)
		close(lock);
	free(what);
	return r;
}

int
work_begin(struct host *h, const struct host_vm *vm, const char *what, json_t *files, struct work *w, struct err *e)
{
	char *left;
	int r;

	*w = (struct work){ .h = h };
	snprintf(w->uuid, sizeof(w->uuid), "%s", vm->uuid);
	w->lock = take_lock(h, vm->uuid);
	if (w->lock < 0)
		return vm_busy(vm, e);
	left = left_over(h, vm->uuid);
	r = left[0] ? refuse_left_over(vm, left, e) : 0;
	free(left);
	if (r) {
		close(w->lock);
		return -1;
	}
	if (!db_begin(h, e) && !write_row(w, what, 0, files, e) && !db_commit(h, e))
		return 0;
	db_rollback(h);
	close(w->lock);
	return -1;
}

int
work_note(struct work *w, json_t *files, struct err *e)
{
	if (!db_begin(w->h, e) && !write_row(w, NULL, 0, files, e) && !db_commit(w->h, e))
		return 0;
	db_rollback(w->h);
	return -1;
}

int
work_done(struct work *w, json_t *files, struct err *e)
{
	return write_row(w, NULL, 1, files, e);
}

void
work_end(struct work *w)
{
	db_run(w->h, NULL, "DELETE FROM work WHERE uuid = ?", "s", w->uuid);
	close(w->lock);
}

void
work_leave(struct work *w)
{
	close(w->lock);
}

/* ---- what a killed one left ---- */

void
work_remove_files(json_t *list)
{
	json_t *v;
	size_t i;

	json_array_foreach(list, i, v)
	{
		const char *path = json_string_value(v);

		if (path && !access(path, F_OK) && (str_ends(path, ".sav") || block_remove(path, NULL)))
			unlink(path);
	}
}

void
work_remove_folders(json_t *folders)
{
	json_t *v;
	size_t i;

	json_array_foreach(folders, i, v) rmdir(json_string_value(v));
}

/* A saved state that was not finished: its machine says whether it is one. */
static bool
finish_save(struct host *h, const char *uuid)
{
	struct host_vm *vm;
	bool saved;

	/* It may be about to begin, be at it, or on its last lines. */
	snapshot_wait_for_process(h, uuid);
	vm = host_vm_load(h, uuid, NULL);
	if (vm && (vm->state == HOST_SAVING || vm->state == HOST_STOPPING)) {
		vm_wait_gone(h, uuid);
		host_vm_free(vm);
		vm = host_vm_load(h, uuid, NULL);
	}
	saved = vm && vm->state == HOST_SAVED;

	if (!saved)
		db_run(h, NULL, "UPDATE machine SET state_file = '' WHERE uuid = ?", "s", uuid);
	host_vm_free(vm);
	return saved;
}

static enum work_outcome
put_right(struct host *h, const char *uuid, const char *what, bool done, json_t *files, struct err *e)
{
	enum work_outcome taken;

	if (!strcmp(what, "delete"))
		return snapshot_recover_delete(h, uuid, files, e) ? WORK_STUCK : WORK_FINISHED;
	if (!strcmp(what, "move")) {
		move_recover(h, uuid, files);
		return done ? WORK_FINISHED : WORK_UNDONE;
	}
	if (done) {
		work_remove_files(json_object_get(files, "trash"));
		return WORK_FINISHED;
	}
	if (!strcmp(what, "take")) {
		taken = snapshot_recover_take(h, uuid, files, e);
		if (taken != WORK_UNDONE)
			return taken;
	}
	if (!strcmp(what, "fork") && snapshot_recover_fork(h, uuid, files, e))
		return WORK_STUCK;
	if (!strcmp(what, "save") && finish_save(h, uuid))
		return WORK_FINISHED;
	work_remove_files(json_object_get(files, "created"));
	work_remove_folders(json_object_get(files, "folders"));
	return WORK_UNDONE;
}

static void
recover_one(struct host *h, const char *uuid, void (*say)(void *opaque, const char *sentence), void *opaque)
{
	int lock = take_lock(h, uuid);
	sqlite3_stmt *s = lock < 0 ? NULL
				   : db_query(h, NULL,
					     "SELECT w.what, w.done, w.files, m.name FROM work w"
					     " LEFT JOIN machine m ON m.uuid = w.uuid WHERE w.uuid = ?",
					     "s", uuid);

	if (s && db_step(h, s, NULL) > 0) {
		char *what = xstrdup(db_text(s, 0)), *name = xstrdup(db_text(s, 3)), *sentence;
		json_t *files = json_loads(db_text(s, 2), 0, NULL);
		bool done = sqlite3_column_int(s, 1);
		struct err e = { 0 };
		enum work_outcome end;

		sqlite3_finalize(s);
		s = NULL;
		end = put_right(h, uuid, what, done, files, &e);
		if (end == WORK_STUCK)
			sentence =
				xasprintf("Machine '%s': %s had been interrupted, and that cannot be put right yet: %s",
					name, work_text(what), e.text);
		else
			sentence = xasprintf("Machine '%s': %s had been interrupted and was %s", name, work_text(what),
				end == WORK_FINISHED ? "finished" : "undone");
		if (end != WORK_STUCK)
			db_run(h, NULL, "DELETE FROM work WHERE uuid = ?", "s", uuid);
		if (say)
			say(opaque, sentence);
		free(sentence);
		json_decref(files);
		free(what);
		free(name);
	}
	sqlite3_finalize(s);
	if (lock >= 0)
		close(lock);
}

void
host_recover(struct host *h, void (*say)(void *opaque, const char *sentence), void *opaque)
{
	sqlite3_stmt *s = db_query(h, NULL, "SELECT uuid FROM work", "");
	char uuids[64][37];
	int n = 0;

	while (s && n < 64 && db_step(h, s, NULL) > 0)
		snprintf(uuids[n++], 37, "%s", db_text(s, 0));
	sqlite3_finalize(s);
	while (n > 0)
		recover_one(h, uuids[--n], say, opaque);
	media_recover(h, say, opaque);
	host_unattended_settle(h);
}
