/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Media in the registry and what they read through to.
 */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "block/block.h"
#include "host/chain.h"

static int
fill(struct host *h, sqlite3_stmt *s, struct medium_row *m, struct err *e)
{
	int r = s ? db_step(h, s, e) : -1;

	*m = (struct medium_row){ 0 };
	if (r > 0) {
		m->id = sqlite3_column_int64(s, 0);
		m->parent = sqlite3_column_int64(s, 1);
		snprintf(m->uuid, sizeof(m->uuid), "%s", db_text(s, 2));
		m->path = xstrdup(db_text(s, 3));
		m->format = xstrdup(db_text(s, 4));
	}
	sqlite3_finalize(s);
	return r;
}

#define COLUMNS "SELECT id, parent, uuid, path, format FROM medium "

int
medium_row_load(struct host *h, const char *uuid, struct medium_row *m, struct err *e)
{
	return fill(h, db_query(h, e, COLUMNS "WHERE uuid = ?", "s", uuid), m, e);
}

int
medium_row_by_id(struct host *h, int64_t id, struct medium_row *m, struct err *e)
{
	return fill(h, db_query(h, e, COLUMNS "WHERE id = ?", "l", id), m, e);
}

void
medium_row_free(struct medium_row *m)
{
	free(m->path);
	free(m->format);
	*m = (struct medium_row){ 0 };
}

int
medium_children(struct host *h, int64_t id, int64_t **out, struct err *e)
{
	return db_ids(h, db_query(h, e, "SELECT id FROM medium WHERE parent = ? ORDER BY id", "l", id), out, e);
}

static bool
is_used(struct host *h, int64_t id)
{
	sqlite3_stmt *s = db_query(h, NULL,
		"SELECT 1 FROM attachment WHERE medium = ?1 UNION SELECT 1 FROM snapshot_disk WHERE medium = ?1"
		" UNION SELECT 1 FROM medium WHERE parent = ?1",
		"l", id);
	bool used = !s || db_step(h, s, NULL) != 0;

	sqlite3_finalize(s);
	return used;
}

int
medium_drop_if_unused(struct host *h, const char *uuid, json_t *trash, struct err *e)
{
	struct medium_row m;
	int r = medium_row_load(h, uuid, &m, e);

	if (r > 0) {
		r = 0;
		if (m.parent && !is_used(h, m.id)) {
			r = db_run(h, e, "DELETE FROM medium WHERE id = ?", "l", m.id);
			json_array_append_new(trash, json_string(m.path));
		}
		medium_row_free(&m);
	}
	return r;
}

int
medium_note_parents(struct host *h, const char *path, struct err *e)
{
	struct block *b = access(path, R_OK) ? NULL : block_open(path, NULL, BLOCK_RDONLY, NULL);
	struct block_info info;
	char *child = xstrdup(path);
	int r = 0;

	for (int depth = 1; b && !r && block_chain_info(b, depth, &info); depth++) {
		char uuid[37], *p = NULL, *f = NULL;

		r = medium_get(h, HOST_DISK, info.path, uuid, &p, &f, e) ||
		    db_run(h, e,
			    "UPDATE medium SET parent = (SELECT id FROM medium WHERE uuid = ?), variant = "
			    "'differencing'"
			    " WHERE type = 'disk' AND path = ?",
			    "ss", uuid, child);
		free(child);
		child = xstrdup(info.path);
		free(p);
		free(f);
	}
	free(child);
	if (b)
		block_close(b);
	return r ? -1 : 0;
}

/* ---- a machine goes, with its files ---- */

static int
add_media(struct host *h, const char *sql, const char *uuid, json_t *out, struct err *e)
{
	sqlite3_stmt *s = db_query(h, e, sql, "s", uuid);
	int r = s ? 1 : -1;

	while (r > 0 && (r = db_step(h, s, e)) > 0)
		json_array_append_new(out, json_string(db_text(s, 0)));
	sqlite3_finalize(s);
	return r;
}

/* One round: those of `media` that nothing needs any more. The number dropped, or -1. */
static int
drop_round(struct host *h, json_t *media, json_t *out, struct err *e)
{
	int dropped = 0;
	json_t *v;
	size_t i;

	json_array_foreach(media, i, v)
	{
		struct medium_row m;
		int r = medium_row_load(h, json_string_value(v), &m, e);

		if (r < 0)
			return -1;
		if (r > 0 && !is_used(h, m.id)) {
			json_array_append_new(out, json_string(m.path));
			dropped += !db_run(h, e, "DELETE FROM medium WHERE id = ?", "l", m.id);
		}
		medium_row_free(&m);
	}
	return dropped;
}

int
machine_drop(struct host *h, const struct host_vm *vm, json_t *out, struct err *e)
{
	json_t *media = json_array();
	int r = add_media(h,
			"SELECT m.uuid FROM medium m JOIN attachment a ON a.medium = m.id JOIN controller c ON c.id ="
			" a.controller JOIN machine v ON v.id = c.machine WHERE m.type = 'disk' AND v.uuid = ?",
			vm->uuid, media, e) ||
		add_media(h,
			"SELECT m.uuid FROM medium m JOIN snapshot_disk d ON d.medium = m.id JOIN snapshot s ON s.id ="
			" d.snapshot JOIN machine v ON v.id = s.machine WHERE v.uuid = ?",
			vm->uuid, media, e) ||
		add_media(h,
			"SELECT DISTINCT s.state_file FROM snapshot s JOIN machine v ON v.id = s.machine WHERE"
			" s.state_file <> '' AND v.uuid = ?",
			vm->uuid, out, e);

	if (vm->state == HOST_SAVED && vm->state_file[0])
		json_array_append_new(out, json_string(vm->state_file));
	r = r || db_run(h, e, "DELETE FROM machine WHERE uuid = ?", "s", vm->uuid);
	while (!r) {
		int n = drop_round(h, media, out, e);

		r = n < 0;
		if (n <= 0)
			break;
	}
	json_decref(media);
	return r ? -1 : 0;
}
