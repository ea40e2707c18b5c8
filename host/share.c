/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Shared folders: those of a machine, which it has whenever it runs, and transient ones, which a running machine keeps
 * until it ends. The directory of a transient one is opened here, with the rights of who asks, and given to the
 * machine's process, which could not open it any more (vm/shares.c).
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "host/inv.h"
#include "host/run.h"
#include "share/share.h"

/* ---- the machine's list, sorted by name ---- */

static void
release(struct host_share *s)
{
	free(s->name);
	free(s->path);
	free(s->mount_point);
}

void
vm_shares_free(struct host_vm *vm)
{
	for (int i = 0; i < vm->share_count; i++)
		release(&vm->shares[i]);
	free(vm->shares);
	vm->shares = NULL;
	vm->share_count = 0;
}

static int
find(const struct host_vm *vm, const char *name)
{
	for (int i = 0; i < vm->share_count; i++)
		if (!strcmp(vm->shares[i].name, name))
			return i;
	return -1;
}

static int
check(const struct host_share *s, struct err *e)
{
	size_t n = strlen(s->name);

	if (!n || n > SHARE_NAME_MAX || strpbrk(s->name, "/\n") || !share_is_utf8(s->name, n))
		return err_set(e, ERR_INVALID,
			"Invalid name '%s' of a shared folder: it has 1 to %d bytes of UTF-8 and no '/'", s->name,
			SHARE_NAME_MAX);
	if (s->path[0] != '/')
		return err_set(e, ERR_INVALID, "Shared folder path '%s' is not absolute", s->path);
	if (!share_is_utf8(s->path, strlen(s->path)) || strlen(s->path) > 4095)
		return err_set(e, ERR_INVALID, "Shared folder path '%s' is not UTF-8, or too long", s->path);
	if (strlen(s->mount_point) > 255 || !share_is_utf8(s->mount_point, strlen(s->mount_point)))
		return err_set(e, ERR_INVALID, "The mount point of shared folder '%s' is too long", s->name);
	return 0;
}

int
vm_share_insert(struct host_vm *vm, const struct host_share *s, struct err *e)
{
	int i = 0;

	if (check(s, e))
		return -1;
	if (find(vm, s->name) >= 0)
		return err_set(e, ERR_IN_USE, "Shared folder named '%s' already exists", s->name);
	if (vm->share_count == SHARE_FOLDERS_MAX)
		return err_set(e, ERR_INVALID, "A machine can have %d shared folders", SHARE_FOLDERS_MAX);
	vm->shares = realloc(vm->shares, (size_t)(vm->share_count + 1) * sizeof(*vm->shares));
	if (!vm->shares)
		abort();
	while (i < vm->share_count && strcmp(vm->shares[i].name, s->name) < 0)
		i++;
	memmove(&vm->shares[i + 1], &vm->shares[i], (size_t)(vm->share_count - i) * sizeof(*vm->shares));
	vm->share_count++;
	vm->shares[i] = *s;
	vm->shares[i].name = xstrdup(s->name);
	vm->shares[i].path = xstrdup(s->path);
	vm->shares[i].mount_point = xstrdup(s->mount_point);
	while (vm->shares[i].path[1] && str_ends(vm->shares[i].path, "/"))
		vm->shares[i].path[strlen(vm->shares[i].path) - 1] = 0;
	return 0;
}

static int
take_out(struct host_vm *vm, const char *name, struct err *e)
{
	int i = find(vm, name);

	if (i < 0)
		return err_set(e, ERR_FILE, "Could not find a shared folder named '%s'", name);
	release(&vm->shares[i]);
	vm->share_count--;
	memmove(&vm->shares[i], &vm->shares[i + 1], (size_t)(vm->share_count - i) * sizeof(*vm->shares));
	return 0;
}

/* ---- the inventory ---- */

int
vm_shares_load(struct host *h, struct host_vm *vm, int64_t row, struct err *e)
{
	sqlite3_stmt *s = db_query(h, e,
		"SELECT name, path, readonly, automount, mount_point FROM sharedfolder WHERE machine = ?", "l", row);
	int r = s ? 1 : -1;

	while (r > 0 && (r = db_step(h, s, e)) > 0) {
		struct host_share f = {
			.name = (char *)sqlite3_column_text(s, 0),
			.path = (char *)sqlite3_column_text(s, 1),
			.readonly = sqlite3_column_int(s, 2),
			.automount = sqlite3_column_int(s, 3),
			.mount_point = (char *)sqlite3_column_text(s, 4),
		};

		vm_share_insert(vm, &f, NULL);
	}
	sqlite3_finalize(s);
	return r;
}

int
vm_shares_store(struct host *h, const struct host_vm *vm, int64_t row, struct err *e)
{
	if (db_run(h, e, "DELETE FROM sharedfolder WHERE machine = ?", "l", row))
		return -1;
	for (int i = 0; i < vm->share_count; i++) {
		const struct host_share *f = &vm->shares[i];

		if (db_run(h, e, "INSERT INTO sharedfolder VALUES(?, ?, ?, ?, ?, ?)", "lssiis", row, f->name, f->path,
			    (int)f->readonly, (int)f->automount, f->mount_point))
			return -1;
	}
	return 0;
}

/* ---- settings files ---- */

json_t *
vm_shares_json(const struct host_vm *vm)
{
	json_t *list = json_array();

	for (int i = 0; i < vm->share_count; i++) {
		const struct host_share *f = &vm->shares[i];

		json_array_append_new(
			list, json_pack("{s:s, s:s, s:b, s:b, s:s}", "name", f->name, "path", f->path, "readonly",
				      f->readonly, "automount", f->automount, "mount_point", f->mount_point));
	}
	return list;
}

int
vm_shares_read(struct host_vm *vm, const json_t *list, struct err *e)
{
	for (size_t i = 0; i < json_array_size(list); i++) {
		const char *name = "", *path = "", *mount_point = "";
		int readonly = 0, automount = 0;
		struct host_share f;

		if (json_unpack(json_array_get(list, i), "{s:s, s:s, s?b, s?b, s?s}", "name", &name, "path", &path,
			    "readonly", &readonly, "automount", &automount, "mount_point", &mount_point))
			return err_set(e, ERR_XML, "a shared folder is not complete");
		f = (struct host_share){ .name = (char *)name,
			.path = (char *)path,
			.mount_point = (char *)mount_point,
			.readonly = readonly,
			.automount = automount };
		if (vm_share_insert(vm, &f, e))
			return -1;
	}
	return 0;
}

/* ---- what the machine's process is told ---- */

/* Extra data "VBoxInternal2/SharedFoldersEnableSymlinksCreate/NAME": 1. */
static bool
may_link(struct host *h, const char *uuid, const char *name)
{
	char *key = xasprintf("%s%s", SHARE_SYMLINKS_KEY, name), *value = NULL;
	bool yes;

	host_extra_get(h, uuid, key, &value, NULL);
	yes = value && !strcmp(value, "1");
	free(value);
	free(key);
	return yes;
}

static json_t *
folder_json(struct host *h, const struct host_vm *vm, const struct host_share *f)
{
	return json_pack("{s:s, s:s, s:b, s:b, s:b, s:s}", "name", f->name, "path", f->path, "readonly", f->readonly,
		"symlinks", may_link(h, vm->uuid, f->name), "automount", f->automount, "mount_point", f->mount_point);
}

json_t *
vm_shares_config(struct host *h, const struct host_vm *vm)
{
	json_t *list = json_array();

	for (int i = 0; i < vm->share_count; i++)
		json_array_append_new(list, folder_json(h, vm, &vm->shares[i]));
	return list;
}

void
vm_symlinks_changed(struct host *h, const char *id, const char *key, const char *value)
{
	struct host_vm *vm;

	if (!str_starts(key, SHARE_SYMLINKS_KEY))
		return;
	vm = host_vm_load(h, id, NULL);
	if (vm && host_state_live(vm->state))
		json_decref(vm_call(h, vm, "share.symlinks",
			json_pack("{s:s, s:b}", "name", key + strlen(SHARE_SYMLINKS_KEY), "allowed",
				value && !strcmp(value, "1")),
			NULL));
	host_vm_free(vm);
}

/* ---- changes ---- */

/* `change` edits the machine in a transaction; refused while it runs. */
static int
change(struct host *h, const char *id,
	int (*edit)(struct host_vm *vm, const struct host_share_change *c, struct err *e),
	const struct host_share_change *c, struct err *e)
{
	struct host_vm *vm = vm_edit_begin(h, id, e);

	return vm ? vm_edit_end(h, vm, edit(vm, c, e), e) : -1;
}

static struct host_share
share_of(const struct host_share_change *c)
{
	return (struct host_share){
		.name = (char *)c->name,
		.path = (char *)c->path,
		.mount_point = (char *)(c->mount_point ? c->mount_point : ""),
		.readonly = c->readonly > 0,
		.automount = c->automount > 0,
	};
}

static int
add_edit(struct host_vm *vm, const struct host_share_change *c, struct err *e)
{
	struct host_share f = share_of(c);

	return vm_share_insert(vm, &f, e);
}

static int
remove_edit(struct host_vm *vm, const struct host_share_change *c, struct err *e)
{
	return take_out(vm, c->name, e);
}

static int
modify_edit(struct host_vm *vm, const struct host_share_change *c, struct err *e)
{
	int i = find(vm, c->name);

	if (i < 0)
		return err_set(e, ERR_FILE, "Could not find a shared folder named '%s'", c->name);
	if (c->readonly >= 0)
		vm->shares[i].readonly = c->readonly;
	if (c->automount >= 0)
		vm->shares[i].automount = c->automount;
	if (c->mount_point) {
		free(vm->shares[i].mount_point);
		vm->shares[i].mount_point = xstrdup(c->mount_point);
	}
	return check(&vm->shares[i], e);
}

static int
add_transient(struct host *h, const char *id, const struct host_share_change *c, struct err *e)
{
	struct host_share f = share_of(c);
	struct host_vm *vm;
	json_t *answer = NULL;
	int fd;

	if (check(&f, e))
		return -1;
	vm = vm_load_running(h, id, e);
	if (!vm)
		return -1;
	fd = open(f.path, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		err_sys(e, ERR_FILE, errno, "The directory '%s' of shared folder '%s' cannot be opened", f.path,
			f.name);
	else
		answer = vm_call_fd(h, vm, "share.add", folder_json(h, vm, &f), fd, e);
	if (fd >= 0)
		close(fd);
	json_decref(answer);
	host_vm_free(vm);
	return answer ? 0 : -1;
}

static int
remove_transient(struct host *h, const char *id, const char *name, struct err *e)
{
	struct host_vm *vm = vm_load_running(h, id, e);
	struct host_share *list = NULL;
	json_t *answer = NULL;
	bool found = false;
	int n;

	if (!vm)
		return -1;
	n = host_shares_transient(h, vm, &list);
	for (int i = 0; i < n; i++)
		found |= !strcmp(list[i].name, name);
	host_shares_free(list, n);
	if (found)
		answer = vm_call(h, vm, "share.remove", json_pack("{s:s}", "name", name), e);
	else
		err_set(e, ERR_FILE, "Could not find a shared folder named '%s'", name);
	host_vm_free(vm);
	json_decref(answer);
	return answer ? 0 : -1;
}

int
host_share_add(struct host *h, const char *id, const struct host_share_change *c, struct err *e)
{
	return c->transient ? add_transient(h, id, c, e) : change(h, id, add_edit, c, e);
}

int
host_share_remove(struct host *h, const char *id, const struct host_share_change *c, struct err *e)
{
	return c->transient ? remove_transient(h, id, c->name, e) : change(h, id, remove_edit, c, e);
}

int
host_share_modify(struct host *h, const char *id, const struct host_share_change *c, struct err *e)
{
	if (c->transient)
		return err_set(
			e, ERR_UNSUPPORTED, "A transient shared folder cannot be changed: remove it and add it again");
	return change(h, id, modify_edit, c, e);
}

/* ---- those of a running machine ---- */

int
host_shares_transient(struct host *h, const struct host_vm *vm, struct host_share **out)
{
	json_t *answer = vm_call(h, vm, "share.list", json_object(), NULL), *o;
	json_t *list = json_object_get(answer, "folders");
	int n = 0;
	size_t i;

	*out = NULL;
	if (json_array_size(list))
		*out = xcalloc(json_array_size(list), sizeof(**out));
	json_array_foreach(list, i, o)
	{
		const char *name = "", *path = "", *mount_point = "";
		int readonly = 0, automount = 0, transient = 0;

		if (json_unpack(o, "{s:s, s:s, s:b, s:b, s:s, s:b}", "name", &name, "path", &path, "readonly",
			    &readonly, "automount", &automount, "mount_point", &mount_point, "transient", &transient) ||
			!transient)
			continue;
		(*out)[n++] = (struct host_share){ .name = xstrdup(name),
			.path = xstrdup(path),
			.mount_point = xstrdup(mount_point),
			.readonly = readonly,
			.automount = automount };
	}
	json_decref(answer);
	return n;
}

void
host_shares_free(struct host_share *list, int count)
{
	for (int i = 0; i < count; i++)
		release(&list[i]);
	free(list);
}
