/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the types of media mean when a machine has one.
 *
 *   normal        snapshots have it; one machine writes to it
 *   immutable     never written to: each machine that gets it writes to a differencing image of its own, which is made
 *                 anew whenever the machine is switched on ("auto-reset")
 *   multiattach   the same, and the differencing image stays; any number of machines
 *   writethrough  written to, and no part of snapshots
 *   shareable     writethrough for several machines at once (fixed images; the guests agree about who writes)
 *   readonly      any number of machines, none of which can write
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "block/block.h"
#include "host/chain.h"

enum host_medium_kind
medium_kind(struct host *h, const char *uuid)
{
	sqlite3_stmt *s = uuid ? db_query(h, NULL, "SELECT kind FROM medium WHERE uuid = ?", "s", uuid) : NULL;
	int k = s && db_step(h, s, NULL) > 0 ? host_medium_kind_of(db_text(s, 0)) : HOST_NORMAL;

	sqlite3_finalize(s);
	return k < 0 ? HOST_NORMAL : (enum host_medium_kind)k;
}

bool
medium_kind_many(enum host_medium_kind k)
{
	return k != HOST_NORMAL && k != HOST_WRITETHROUGH;
}

bool
medium_kind_snapshots(enum host_medium_kind k)
{
	return k == HOST_NORMAL || k == HOST_IMMUTABLE || k == HOST_MULTIATTACH;
}

void
medium_open_mode(const struct host_attachment *a, json_t *o)
{
	enum host_medium_kind k = a->type == HOST_DISK ? a->kind : HOST_NORMAL;

	if (k == HOST_READONLY || k == HOST_IMMUTABLE || k == HOST_MULTIATTACH)
		json_object_set_new(o, "readonly", json_true());
	if (k == HOST_SHAREABLE)
		json_object_set_new(o, "shared", json_true());
}

static int
make_child(struct host *h, const struct host_vm *vm, bool autoreset, char uuid[37], char **path, char **format,
	struct err *e)
{
	struct host_controller none = { .name = (char *)"" };
	struct host_attachment parent = { .type = HOST_DISK, .medium = uuid, .path = *path, .format = *format };
	struct overlay *o = xcalloc(1, sizeof(*o));
	int r;

	for (char *p = *format; *p; p++)
		*p = (char)(*p >= 'A' && *p <= 'Z' ? *p + 32 : *p);
	overlay_name(o, vm, &none, &parent);
	r = dir_make(vm->snap_folder, 0755, e) || overlay_create(o, e) ? -1 : 0;
	if (!r && (overlay_register(h, o, e) || db_run(h, e, "UPDATE medium SET autoreset = ? WHERE uuid = ?", "is",
							(int)autoreset, o->uuid))) {
		block_remove(o->path, NULL);
		r = -1;
	}
	if (!r) {
		free(*path);
		free(*format);
		*path = xstrdup(o->path);
		*format = xstrdup(o->format);
		snprintf(uuid, 37, "%s", o->uuid);
	}
	overlays_free(o, 1);
	return r;
}

int
medium_attach_as(struct host *h, const struct host_vm *vm, char uuid[37], char **path, char **format, struct err *e)
{
	enum host_medium_kind k = medium_kind(h, uuid);

	if (k != HOST_IMMUTABLE && k != HOST_MULTIATTACH)
		return 0;
	return make_child(h, vm, k == HOST_IMMUTABLE, uuid, path, format, e);
}

/* An empty image in the place of the differencing one at `path`: the same UUID, the same parent. */
static int
reset_image(struct host *h, const char *path, const char *parent, const char *uuid, struct err *e)
{
	struct block_finder f = medium_finder(h);
	struct block *b = block_open_with(path, NULL, BLOCK_RDONLY, &f, e);
	struct block_info info;
	char *dir, *file;
	struct uuid u;
	int r = -1;

	if (!b)
		return -1;
	block_get_info(b, &info);
	dir = xasprintf("%.*s/.lodge-XXXXXX", (int)(strrchr(path, '/') - path), path);
	file = mkdtemp(dir) ? xasprintf("%s%s", dir, strrchr(path, '/')) : NULL;
	uuid_parse(uuid, &u);
	if (!file)
		err_sys(e, ERR_FILE, errno, "A directory '%s' cannot be made", dir);
	else
		r = block_create_diff(parent, NULL, file, info.format, &u, e);
	block_close(b);
	/* Its parent is named as from where it will be. */
	if (!r && rename(file, path))
		r = err_sys(e, ERR_FILE, errno, "'%s' cannot be reset", path);
	if (!r)
		r = block_rebase(path, parent, &f, e);
	if (r && file)
		unlink(file);
	rmdir(dir);
	free(dir);
	free(file);
	return r;
}

int
medium_reset(struct host *h, const struct host_vm *vm, struct err *e)
{
	sqlite3_stmt *s = db_query(h, e,
		"SELECT m.path, p.path, m.uuid FROM machine v JOIN controller c ON c.machine = v.id"
		" JOIN attachment a ON a.controller = c.id JOIN medium m ON m.id = a.medium JOIN medium p ON p.id = "
		"m.parent"
		" WHERE v.uuid = ? AND m.autoreset = 1",
		"s", vm->uuid);
	int r = s ? 1 : -1;

	while (r > 0 && (r = db_step(h, s, e)) > 0)
		if (reset_image(h, db_text(s, 0), db_text(s, 1), db_text(s, 2), e))
			r = -1;
	sqlite3_finalize(s);
	return r < 0 ? err_wrap(e, "A medium of the machine '%s' cannot be reset", vm->name) : 0;
}
