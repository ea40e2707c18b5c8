/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Machines come and go: create, register, unregister.
 *
 * Order on the way in: folder, settings file, commit. On the way out: commit, then the files. So whatever is
 * interrupted, the inventory never names a machine whose settings are not there.
 */
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "block/block.h"
#include "host/inv.h"
#include "host/unattended.h"

static int
check_name(const char *name, struct err *e)
{
	size_t n = strlen(name);

	if (!n || n > 200 || !strcmp(name, ".") || !strcmp(name, "..") || strchr(name, '/'))
		return err_set(
			e, ERR_INVALID, "Invalid machine name '%s': it must have 1 to 200 bytes and no '/'", name);
	for (const char *p = name; *p; p++)
		if (iscntrl((unsigned char)*p))
			return err_set(e, ERR_INVALID, "Invalid machine name: it contains a control character");
	return 0;
}

static int
name_is_free(struct host *h, const char *name, struct err *e)
{
	sqlite3_stmt *s = db_query(h, e, "SELECT 1 FROM machine WHERE name = ?", "s", name);
	int r = s ? db_step(h, s, e) : -1;

	sqlite3_finalize(s);
	if (r > 0)
		return err_set(
			e, ERR_IN_USE, "A machine with the name '%s' already exists (VERR_ALREADY_EXISTS)", name);
	return r;
}

static int
uuid_is_free(struct host *h, const char *uuid, struct err *e)
{
	sqlite3_stmt *s = db_query(h, e, "SELECT folder, name FROM machine WHERE uuid = ?", "s", uuid);
	int r = s ? db_step(h, s, e) : -1;

	if (r > 0)
		r = err_set(e, ERR_IN_USE, "Registered machine with UUID {%s} ('%s/%s.vbox') already exists", uuid,
			db_text(s, 0), db_text(s, 1));
	sqlite3_finalize(s);
	return r;
}

/* What --default gives: memory as the system likes it, a disk controller and a DVD drive. */
static void
apply_defaults(struct host_vm *vm)
{
	const struct host_ostype *t = host_ostype_find(vm->value[HK_OSTYPE][0]);
	struct host_controller *c;
	struct host_attachment *a;
	char number[16];

	snprintf(number, sizeof(number), "%u", MAX(t->memory_mb, 4u));
	vm_set(vm, HK_MEMORY, 0, number);
	snprintf(number, sizeof(number), "%u", MAX(t->vram_mb, 1u));
	vm_set(vm, HK_VRAM, 0, number);
	for (int i = 0; i < 2; i++) {
		const struct bus_row *bus = bus_row(i ? "sata" : "ide");

		c = vm_controller_add(vm, i ? "SATA" : "IDE");
		c->bus = bus->bus;
		c->type = bus->type;
		c->max_ports = bus->max_ports;
		c->devices_per_port = bus->devices;
		c->ports = i ? 1 : bus->ports;
		c->bootable = true;
	}
	a = vm_attachment_add(&vm->ctl[0], 1, 0);
	a->type = HOST_DVD;
}

static struct host_vm *
describe(struct host *h, const struct host_vm_create *c, struct err *e)
{
	char *base = host_absolute_path(c->base_folder ? c->base_folder : host_machine_folder(h));
	char *folder = xasprintf("%s%s%s", strcmp(base, "/") ? base : "", "/", c->name);
	struct host_change change[] = {
		{ HK_OSTYPE, 0, c->ostype ? c->ostype : "Other" },
		{ HK_GROUPS, 0, c->groups ? c->groups : "/" },
	};
	struct host_vm *vm = vm_new(c->name, folder);
	struct uuid u;

	free(base);
	free(folder);
	for (size_t i = 0; i < ARRAY_LEN(change); i++)
		if (vm_apply(h, vm, &change[i], e))
			goto fail;
	if (c->uuid) {
		if (!uuid_parse(c->uuid, &u)) {
			err_set(e, ERR_INVALID, "Invalid UUID '%s'", c->uuid);
			goto fail;
		}
		uuid_text(&u, vm->uuid);
		vm_set(vm, HK_HARDWAREUUID, 0, vm->uuid);
	}
	if (c->defaults)
		apply_defaults(vm);
	return vm;
fail:
	host_vm_free(vm);
	return NULL;
}

/* The folder for a new machine; *made: it was not there before. */
static int
make_folder(const struct host_vm *vm, bool *made, struct err *e)
{
	struct stat st;

	if (!stat(vm->cfg_file, &st))
		return err_set(e, ERR_FILE, "Machine settings file '%s' already exists", vm->cfg_file);
	*made = stat(vm->folder, &st) != 0;
	if (dir_make(vm->folder, 0700, e))
		return err_wrap(e, "Could not create the folder of machine '%s'", vm->name);
	return 0;
}

int
host_vm_create(struct host *h, const struct host_vm_create *c, char uuid[37], char **cfg_file, struct err *e)
{
	struct host_vm *vm;
	struct media_job *job = NULL;
	bool made = false, wrote = false;

	if (check_name(c->name, e))
		return -1;
	vm = describe(h, c, e);
	if (!vm)
		return -1;
	/* Also for a machine that is not registered: two of one name must not share a folder. */
	if (db_begin(h, e))
		goto fail;
	if (make_folder(vm, &made, e) || name_is_free(h, vm->name, e) || uuid_is_free(h, vm->uuid, e))
		goto fail;
	if (c->registered && vm_store(h, vm, e))
		goto fail;
	job = media_job_begin_all(h, "creation", (char *[]){ vm->cfg_file, vm->folder }, made ? 2 : 1, e);
	if (!job)
		goto fail;
	wrote = true;
	if (vboxfile_write(h, vm, e) || db_commit(h, e))
		goto fail;
	media_job_end(job);
	snprintf(uuid, 37, "%s", vm->uuid);
	*cfg_file = xstrdup(vm->cfg_file);
	host_vm_free(vm);
	return 0;
fail:
	db_rollback(h);
	if (wrote)
		unlink(vm->cfg_file);
	media_job_end(job);
	if (made)
		rmdir(vm->folder);
	host_vm_free(vm);
	return -1;
}

int
host_vm_register(struct host *h, const char *cfg_file, char uuid[37], struct err *e)
{
	char *path = host_absolute_path(cfg_file);
	struct host_vm *vm = NULL;
	json_t *doc = NULL;

	if (db_begin(h, e))
		goto fail;
	vm = vboxfile_read(h, path, &doc, e);
	if (!vm || uuid_is_free(h, vm->uuid, e) || name_is_free(h, vm->name, e))
		goto fail;
	if (vm_store(h, vm, e) || vboxfile_restore_pairs(h, vm, doc, e) || db_commit(h, e))
		goto fail;
	snprintf(uuid, 37, "%s", vm->uuid);
	json_decref(doc);
	host_vm_free(vm);
	free(path);
	return 0;
fail:
	db_rollback(h);
	json_decref(doc);
	host_vm_free(vm);
	free(path);
	return -1;
}

/* ---- unregistering ---- */

/* What we made in the log folder. */
static void
add_logs(const struct host_vm *vm, json_t *files)
{
	DIR *d = opendir(vm->log_folder);
	struct dirent *f;

	while (d && (f = readdir(d)))
		if (str_starts(f->d_name, "VBox.log"))
			json_array_append_new(files, json_sprintf("%s/%s", vm->log_folder, f->d_name));
	if (d)
		closedir(d);
}

/* A note of all that goes, in case this is killed halfway: with the settings file first, directories last. It may be
 * a full disk that is being tidied: without a note it is done all the same. */
static struct media_job *
note_deletion(struct host *h, const struct host_vm *vm, json_t *files)
{
	size_t n = json_array_size(files), count = 0;
	char **paths = xcalloc(n + 4, sizeof(*paths));
	struct media_job *job;

	paths[count++] = vm->cfg_file;
	for (size_t i = 0; i < n; i++)
		paths[count++] = (char *)json_string_value(json_array_get(files, i));
	paths[count++] = vm->log_folder;
	paths[count++] = vm->snap_folder;
	paths[count++] = vm->folder;
	job = media_job_begin_all(h, "deletion", paths, (int)count, NULL);
	free(paths);
	return job;
}

static void
remove_files(const struct host_vm *vm, json_t *files)
{
	json_t *v;
	size_t i;

	json_array_foreach(files, i, v)
	{
		const char *path = json_string_value(v);

		if (str_ends(path, ".sav") || block_remove(path, NULL))
			unlink(path);
	}
	rmdir(vm->log_folder);
	rmdir(vm->snap_folder);
	vboxfile_remove(vm->cfg_file);
	rmdir(vm->folder);
}

int
host_vm_unregister(struct host *h, const char *id, bool delete_files, struct err *e)
{
	json_t *drop = json_array();
	struct media_job *job = NULL;
	struct host_vm *vm = NULL;
	char *answers = NULL;

	if (db_begin(h, e)) {
		json_decref(drop);
		return -1;
	}
	vm = host_vm_load(h, id, e);
	if (!vm)
		goto fail;
	if (vm_locked(h, vm->uuid)) {
		err_set(e, ERR_OBJECT_STATE, "Cannot unregister the machine '%s' while it is locked", vm->name);
		goto fail;
	}
	if (!delete_files && vboxfile_write(h, vm, e))
		goto fail;
	if (delete_files)
		answers = host_unattended_medium(h, vm->uuid);
	if (delete_files ? machine_drop(h, vm, drop, e)
			 : db_run(h, e, "DELETE FROM machine WHERE uuid = ?", "s", vm->uuid))
		goto fail;
	if (delete_files) {
		add_logs(vm, drop);
		job = note_deletion(h, vm, drop);
	}
	if (db_commit(h, e))
		goto fail;
	vm_forget_run_dir(h, vm->uuid);
	if (answers)
		host_unattended_remove(h, answers);
	if (delete_files)
		remove_files(vm, drop);
	media_job_end(job);
	free(answers);
	json_decref(drop);
	host_vm_free(vm);
	return 0;
fail:
	db_rollback(h);
	media_job_end(job);
	free(answers);
	json_decref(drop);
	host_vm_free(vm);
	return -1;
}
