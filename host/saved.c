/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Saved states: controlvm savestate, discardstate, adoptstate. The machine's process writes the file (vm/save.c); here
 * it is known under machine.state_file, which counts only while the machine's state is `saved`.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "host/chain.h"
#include "host/run.h"

char *
snapshot_state_path(const struct host_vm *vm, struct err *e)
{
	struct timespec now;
	struct tm tm;
	char text[40];

	if (dir_make(vm->snap_folder, 0700, e)) {
		err_wrap(e, "Could not create the snapshot folder of machine '%s'", vm->name);
		return NULL;
	}
	clock_gettime(CLOCK_REALTIME, &now);
	gmtime_r(&now.tv_sec, &tm);
	strftime(text, sizeof(text), "%Y-%m-%dT%H-%M-%S", &tm);
	return xasprintf("%s/%s-%09ldZ.sav", vm->snap_folder, text, now.tv_nsec);
}

int
vm_check_mutable(const struct host_vm *vm, struct err *e)
{
	if (vm->state != HOST_SAVED)
		return 0;
	return err_set(e, ERR_VM_STATE, "The machine is not mutable (state is Saved)");
}

static int
wrong_state(const struct host_vm *vm, struct err *e)
{
	return err_set(e, ERR_VM_STATE,
		"Cannot save the execution state as the machine is not running or paused (machine state: %s)",
		host_state_api(vm->state));
}

static int
note_state_file(struct host *h, const char *uuid, const char *path, struct err *e)
{
	return db_run(h, e, "UPDATE machine SET state_file = ? WHERE uuid = ?", "ss", path, uuid);
}

/* The settings file says of a saved machine that it is, and where. */
static void
rewrite_file(struct host *h, const char *uuid)
{
	struct host_vm *vm = host_vm_load(h, uuid, NULL);

	if (vm)
		vboxfile_write(h, vm, NULL);
	host_vm_free(vm);
}

int
host_vm_save_state(struct host *h, const char *id, const struct host_progress *p, struct err *e)
{
	static const struct host_progress silent;
	struct host_vm *vm = host_vm_load(h, id, e);
	json_t *files = NULL, *answer = NULL;
	struct work w;
	char *path = NULL;
	int r = -1;

	if (!vm)
		return -1;
	if (!host_state_live(vm->state))
		r = err_set(e, ERR_VM_STATE, "Machine '%s' is not currently running.", vm->name);
	else if (vm->state != HOST_RUNNING && vm->state != HOST_PAUSED)
		r = wrong_state(vm, e);
	else
		path = snapshot_state_path(vm, e);
	if (!path)
		goto out;
	files = json_pack("{s:[s]}", "created", path);
	if (work_begin(h, vm, "save", files, &w, e))
		goto out;
	if (!note_state_file(h, vm->uuid, path, e))
		answer = vm_call_long(h, vm, "savestate", json_pack("{s:s}", "path", path), p ? p : &silent, e);
	if (answer) {
		vm_wait_gone(h, vm->uuid);
		rewrite_file(h, vm->uuid);
		r = 0;
	} else {
		note_state_file(h, vm->uuid, "", NULL);
		unlink(path);
	}
	work_end(&w);
out:
	json_decref(answer);
	json_decref(files);
	free(path);
	host_vm_free(vm);
	return r;
}

int
host_vm_discard_state(struct host *h, const char *id, struct err *e)
{
	struct host_vm *vm;
	char *path = NULL;

	if (db_begin(h, e))
		return -1;
	vm = host_vm_load(h, id, e);
	if (!vm)
		goto fail;
	if (vm->state != HOST_SAVED) {
		err_set(e, ERR_VM_STATE,
			"Cannot discard the saved state as the machine is not in the Saved or Aborted-Saved state "
			"(machine state: %s)",
			host_state_api(vm->state));
		goto fail;
	}
	if (!snapshot_owns_state(h, vm->state_file))
		path = xstrdup(vm->state_file);
	if (vm_set_final_state(h, vm->uuid, HOST_POWEROFF, "", e) || db_commit(h, e))
		goto fail;
	if (path)
		unlink(path);
	free(path);
	rewrite_file(h, vm->uuid);
	host_vm_free(vm);
	return 0;
fail:
	db_rollback(h);
	free(path);
	host_vm_free(vm);
	return -1;
}

/* A hole stays one where the file system can share or skip; else it is copied byte by byte. */
int
clone_file(const char *from, const char *to, struct err *e)
{
	int in = open(from, O_RDONLY | O_CLOEXEC), out = -1;
	char buf[1 << 16];
	ssize_t n = 0;
	int r = 0;

	if (in < 0)
		return err_sys(e, ERR_FILE, errno, "Could not open the saved state '%s'", from);
	out = open(to, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (out < 0)
		r = err_sys(e, ERR_FILE, errno, "Could not create '%s'", to);
	while (!r && (n = copy_file_range(in, NULL, out, NULL, 1 << 30, 0)) > 0)
		;
	if (!r && n < 0) {
		lseek(in, 0, SEEK_SET);
		while ((n = read(in, buf, sizeof(buf))) > 0 && write_full(out, buf, (size_t)n) == n)
			;
	}
	if (!r && (n != 0 || fsync(out)))
		r = err_sys(e, ERR_FILE, errno, "Could not copy '%s' to '%s'", from, to);
	close(in);
	if (out >= 0)
		close(out);
	return r;
}

/* The first bytes are enough to see that a file is no saved state at all; the rest is looked at when it is started. */
static int
look_at_state(const char *path, struct err *e)
{
	char head[8] = "";
	int fd = open(path, O_RDONLY | O_CLOEXEC), r = 0;

	if (fd < 0)
		return err_sys(e, ERR_FILE, errno, "Could not open the saved state '%s'", path);
	if (read_full(fd, head, sizeof(head)) < 8 || memcmp(head, "LodgeSav", 8))
		r = err_set(e, ERR_FILE, "'%s' is not a saved state", path);
	close(fd);
	return r;
}

int
host_vm_adopt_state(struct host *h, const char *id, const char *path, struct err *e)
{
	struct host_vm *vm = host_vm_load(h, id, e);
	char *abs = host_absolute_path(path), *to = NULL;
	json_t *files = NULL;
	struct work w;
	int r = -1;

	if (!vm)
		goto out;
	if (vm->state != HOST_POWEROFF && vm->state != HOST_ABORTED) {
		err_set(e, ERR_VM_STATE,
			"Cannot adopt the saved state as the machine is not in Powered Off, Teleported or Aborted "
			"state (machine state: %s)",
			host_state_api(vm->state));
		goto out;
	}
	if (look_at_state(abs, e))
		goto out;
	to = snapshot_state_path(vm, e);
	if (!to)
		goto out;
	files = json_pack("{s:[s]}", "created", to);
	if (work_begin(h, vm, "adopt", files, &w, e))
		goto out;
	r = clone_file(abs, to, e) || db_begin(h, e) || vm_set_final_state(h, vm->uuid, HOST_SAVED, to, e) ||
			    work_done(&w, files, e) || db_commit(h, e)
		    ? -1
		    : 0;
	if (r) {
		db_rollback(h);
		unlink(to);
	} else {
		rewrite_file(h, vm->uuid);
	}
	work_end(&w);
out:
	json_decref(files);
	free(to);
	free(abs);
	host_vm_free(vm);
	return r;
}
