/* SPDX-License-Identifier: Apache-2.0 */
/*
 * movevm: a machine's folder goes to another place, with all that is in it.
 *
 * On the same file system it is renamed; on another one it is copied as a whole, and the old one removed when the
 * inventory says that the machine is at the new one. Media outside of the folder stay where they are.
 *
 * While it lasts the machine cannot be started or worked on. Whatever is interrupted, the inventory decides: the folder
 * it names is the machine's, and what there is of the other one goes (move_recover()).
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "host/inv.h"
#include "host/run.h"

#define PIECE (1u << 20)
#define DEPTH_MAX 16

struct moving {
	struct host *h;
	const struct host_progress *progress;
	uint64_t all, done; /* bytes of files */
	bool copied;
};

/* ---- trees of files ---- */

static int
each_entry(const char *dir, int depth, int (*fn)(void *opaque, const char *path, const struct stat *st, int depth),
	void *opaque)
{
	DIR *d = opendir(dir);
	struct dirent *de;
	struct stat st;
	int r = d ? 0 : -1;

	while (!r && (de = readdir(d))) {
		char *path;

		if (!strcmp(de->d_name, ".") || !strcmp(de->d_name, ".."))
			continue;
		path = xasprintf("%s/%s", dir, de->d_name);
		r = lstat(path, &st) ? -1 : fn(opaque, path, &st, depth);
		free(path);
	}
	if (d)
		closedir(d);
	return r;
}

static int
remove_entry(void *opaque, const char *path, const struct stat *st, int depth)
{
	if (!S_ISDIR(st->st_mode))
		return unlink(path);
	if (depth < DEPTH_MAX)
		each_entry(path, depth + 1, remove_entry, opaque);
	return rmdir(path);
}

static void
remove_tree(const char *dir)
{
	each_entry(dir, 0, remove_entry, NULL);
	rmdir(dir);
}

static int
add_size(void *opaque, const char *path, const struct stat *st, int depth)
{
	struct moving *m = opaque;

	if (S_ISREG(st->st_mode))
		m->all += (uint64_t)st->st_blocks * 512;
	return S_ISDIR(st->st_mode) && depth < DEPTH_MAX ? each_entry(path, depth + 1, add_size, m) : 0;
}

/* ---- copying ---- */

static bool
stopped(const struct moving *m)
{
	return m->progress && m->progress->stopped && m->progress->stopped(m->progress->opaque);
}

static void
tell(const struct moving *m)
{
	if (m->progress && m->progress->percent)
		m->progress->percent(m->progress->opaque, (int)(MIN(m->done, m->all) * 99 / (m->all + 1)));
}

/* The data of [at, end), which has no holes. */
static int
copy_range(struct moving *m, int in, int out, off_t at, off_t end, uint8_t *buf)
{
	while (at < end) {
		ssize_t n = pread(in, buf, (size_t)MIN((off_t)PIECE, end - at), at);

		if (n <= 0)
			return n ? -errno : -EIO;
		if (pwrite(out, buf, (size_t)n, at) != n)
			return errno ? -errno : -ENOSPC;
		at += n;
		m->done += (uint64_t)n;
		tell(m);
		if (stopped(m))
			return -ECANCELED;
	}
	return 0;
}

/* Holes stay holes. */
static int
copy_data(struct moving *m, int in, int out, off_t size)
{
	uint8_t *buf = malloc(PIECE);
	off_t at = 0;
	int r = buf ? 0 : -ENOMEM;

	while (!r && at < size) {
		off_t data = lseek(in, at, SEEK_DATA), hole;

		if (data < 0 && errno == ENXIO)
			break;
		hole = data < 0 ? size : lseek(in, data, SEEK_HOLE);
		data = MAX(data, at);
		r = copy_range(m, in, out, data, hole < 0 ? size : hole, buf);
		at = hole < 0 ? size : hole;
	}
	if (!r && (ftruncate(out, size) || fsync(out)))
		r = -errno;
	free(buf);
	return r;
}

static int
copy_file(struct moving *m, const char *from, const char *to, const struct stat *st)
{
	int in = open(from, O_RDONLY | O_NOFOLLOW | O_CLOEXEC), out, r;

	if (in < 0)
		return -errno;
	out = open(to, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, st->st_mode & 0777);
	r = out < 0 ? -errno : copy_data(m, in, out, st->st_size);
	close(in);
	if (out >= 0)
		close(out);
	return r;
}

struct copying {
	struct moving *m;
	const char *from, *to; /* the folders */
	struct err *e;
};

static int
copy_link(const char *from, const char *to)
{
	char target[4096];
	ssize_t n = readlink(from, target, sizeof(target) - 1);

	if (n < 0)
		return -errno;
	target[n] = 0;
	return symlink(target, to) ? -errno : 0;
}

static int
copy_entry(void *opaque, const char *path, const struct stat *st, int depth)
{
	struct copying *c = opaque;
	char *to = xasprintf("%s%s", c->to, path + strlen(c->from));
	int r;

	if (S_ISREG(st->st_mode))
		r = copy_file(c->m, path, to, st);
	else if (S_ISLNK(st->st_mode))
		r = copy_link(path, to);
	else if (!S_ISDIR(st->st_mode) || depth == DEPTH_MAX)
		r = -EINVAL;
	else
		r = mkdir(to, st->st_mode & 0777) ? -errno : 0;
	if (r == -ECANCELED)
		err_set(c->e, ERR_FAILED, "The moving was cancelled");
	else if (r)
		err_sys(c->e, ERR_FILE, r, "'%s' cannot be moved to '%s'", path, to);
	if (!r && S_ISDIR(st->st_mode))
		r = each_entry(path, depth + 1, copy_entry, c);
	free(to);
	return r ? -1 : 0;
}

static int
copy_tree(struct moving *m, const char *from, const char *to, struct err *e)
{
	struct copying c = { m, from, to, e };

	each_entry(from, 0, add_size, m);
	if (mkdir(to, 0700))
		return err_sys(e, ERR_FILE, errno, "The folder '%s' cannot be made", to);
	m->copied = true;
	err_sys(e, ERR_FILE, EIO, "The folder '%s' cannot be read", from); /* unless it is something else */
	return each_entry(from, 0, copy_entry, &c);
}

/* ---- the inventory ---- */

static int
move_paths(struct host *h, const struct host_vm *vm, const char *from, struct err *e)
{
	if (db_run(h, e,
		    "UPDATE machine SET folder = ?1, state_file = CASE WHEN substr(state_file, 1, length(?2) + 1) = ?2 "
		    "|| '/' THEN ?1 || substr(state_file, length(?2) + 1) ELSE state_file END WHERE uuid = ?3",
		    "sss", vm->folder, from, vm->uuid))
		return -1;
	return folder_moved(h, from, vm->folder, e);
}

/* The machine as it is afterwards goes into its settings file, which lies at the new place already. */
static int
note_place(struct host *h, const char *uuid, const char *from, const char *to, struct work *w, json_t *files,
	struct err *e)
{
	struct host_vm *vm = NULL;
	int r = -1;

	if (db_begin(h, e))
		return -1;
	vm = host_vm_load(h, uuid, e);
	if (vm) {
		vm_set_place(vm, to, vm->name);
		r = move_paths(h, vm, from, e);
	}
	host_vm_free(vm);
	vm = r ? NULL : host_vm_load(h, uuid, e);
	if (vm && !vboxfile_write(h, vm, e) && !work_done(w, files, e) && !db_commit(h, e)) {
		host_vm_free(vm);
		return 0;
	}
	db_rollback(h);
	host_vm_free(vm);
	return -1;
}

/* ---- all of it ---- */

static int
carry_out(struct moving *m, const struct host_vm *vm, const char *to, struct err *e)
{
	json_t *files = json_pack("{s:s, s:s}", "from", vm->folder, "to", to);
	struct work w;
	int r = work_begin(m->h, vm, "move", files, &w, e);

	if (r) {
		json_decref(files);
		return r;
	}
	if (rename(vm->folder, to))
		r = errno == EXDEV
			    ? copy_tree(m, vm->folder, to, e)
			    : err_sys(e, ERR_FILE, errno, "The folder '%s' cannot be moved to '%s'", vm->folder, to);
	r = r ? r : note_place(m->h, vm->uuid, vm->folder, to, &w, files, e);
	if (!r && m->copied)
		remove_tree(vm->folder);
	else if (r && m->copied)
		remove_tree(to);
	else if (r)
		rename(to, vm->folder);
	work_end(&w);
	json_decref(files);
	return r;
}

void
move_recover(struct host *h, const char *uuid, json_t *files)
{
	const char *from = json_string_value(json_object_get(files, "from"));
	const char *to = json_string_value(json_object_get(files, "to"));
	struct host_vm *vm = host_vm_load(h, uuid, NULL);
	const char *other = NULL;

	if (vm && from && to && !strcmp(vm->folder, from))
		other = to;
	else if (vm && from && to && !strcmp(vm->folder, to))
		other = from;
	/* Renamed, but not noted; or copied, and one is too many. */
	if (other && access(vm->folder, F_OK))
		rename(other, vm->folder);
	else if (other)
		remove_tree(other);
	host_vm_free(vm);
}

static int
check_target(const struct host_vm *vm, const char *to, struct err *e)
{
	size_t n = strlen(vm->folder);
	struct stat st;

	if (!strcmp(to, vm->folder))
		return err_set(e, ERR_FILE, "The machine '%s' is in '%s' already", vm->name, to);
	if (!strncmp(to, vm->folder, n) && to[n] == '/')
		return err_set(e, ERR_INVALID, "The machine '%s' cannot be moved into its own folder", vm->name);
	if (!lstat(to, &st))
		return err_set(e, ERR_FILE,
			"The machine '%s' cannot be moved: '%s' exists already (VERR_ALREADY_EXISTS)", vm->name, to);
	return 0;
}

int
host_vm_move(struct host *h, const char *id, const char *folder, const struct host_progress *p, struct err *e)
{
	struct host_vm *vm = host_vm_load(h, id, e);
	struct moving m = { .h = h, .progress = p };
	char *base = NULL, *to = NULL, *dir = NULL;
	int lock = -1, r = -1;

	if (!vm)
		return -1;
	base = folder ? host_absolute_path(folder) : xstrdup(host_machine_folder(h));
	to = xasprintf("%s/%s", strcmp(base, "/") ? base : "", vm->name);
	/* The lock is a file in the machine's run directory, which one that never ran does not have. */
	dir = vm_run_dir(h, vm->uuid);
	if (!check_target(vm, to, e) && !dir_make(base, 0755, e) && !dir_make(dir, 0700, e)) {
		if (!vm_locked(h, vm->uuid))
			lock = vm_take_start_lock(h, vm->uuid);
		r = lock < 0 ? vm_busy(vm, e) : carry_out(&m, vm, to, e);
	}
	if (lock >= 0)
		close(lock);
	free(dir);
	free(base);
	free(to);
	host_vm_free(vm);
	return r;
}
