/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Extra data of a machine or of the host: keys with values.
 */
#include <stdlib.h>
#include <string.h>

#include "host/inv.h"

static bool
is_global(const char *id)
{
	return !id || !strcmp(id, "global");
}

int64_t
vm_row_of(struct host *h, const char *id, struct err *e)
{
	char text[37];
	struct uuid u;
	bool is_uuid = uuid_parse(id, &u);
	sqlite3_stmt *s;
	int64_t row = -1;
	int r;

	if (is_uuid)
		uuid_text(&u, text);
	s = db_query(h, e, is_uuid ? "SELECT id FROM machine WHERE uuid = ?" : "SELECT id FROM machine WHERE name = ?",
		"s", is_uuid ? text : id);
	r = s ? db_step(h, s, e) : -1;
	if (r > 0)
		row = sqlite3_column_int64(s, 0);
	else if (!r && is_uuid)
		err_set(e, ERR_NOT_FOUND, "Could not find a registered machine with UUID {%s}", text);
	else if (!r)
		err_set(e, ERR_NOT_FOUND, "Could not find a registered machine named '%s'", id);
	sqlite3_finalize(s);
	return row;
}

int
vm_commit_with_file(struct host *h, const char *id, struct err *e)
{
	struct host_vm *vm = host_vm_load(h, id, e);
	int r = -1;

	if (vm)
		r = vboxfile_write(h, vm, e);
	host_vm_free(vm);
	return r ? -1 : db_commit(h, e);
}

int
host_extra_get(struct host *h, const char *id, const char *key, char **value, struct err *e)
{
	int64_t row = is_global(id) ? 0 : vm_row_of(h, id, e);
	sqlite3_stmt *s;
	int r;

	*value = NULL;
	if (row < 0)
		return -1;
	s = row ? db_query(h, e, "SELECT value FROM extra WHERE machine = ? AND key = ?", "ls", row, key)
		: db_query(h, e, "SELECT value FROM global_extra WHERE key = ?", "s", key);
	r = s ? db_step(h, s, e) : -1;
	if (r > 0)
		*value = xstrdup(db_text(s, 0));
	sqlite3_finalize(s);
	return r < 0 ? -1 : 0;
}

static int
set_global(struct host *h, const char *key, const char *value, struct err *e)
{
	if (value)
		return db_run(h, e, "INSERT OR REPLACE INTO global_extra VALUES(?, ?)", "ss", key, value);
	return db_run(h, e, "DELETE FROM global_extra WHERE key = ?", "s", key);
}

static int
check_extra(const char *key, const char *value, struct err *e)
{
	if (!*key || strpbrk(key, "\n\r"))
		return err_set(e, ERR_INVALID, "Invalid extra data key '%s'", key);
	if (value && !strcmp(key, "Lodge/Engine") && strcmp(value, "auto") && strcmp(value, "kvm") &&
		strcmp(value, "jit") && strcmp(value, "interp"))
		return err_set(e, ERR_INVALID, "Lodge/Engine is one of auto, kvm, jit and interp, not '%s'", value);
	return 0;
}

int
host_extra_set(struct host *h, const char *id, const char *key, const char *value, struct err *e)
{
	int64_t row;
	int r;

	if (check_extra(key, value, e))
		return -1;
	if (is_global(id))
		return set_global(h, key, value, e);
	if (db_begin(h, e))
		return -1;
	row = vm_row_of(h, id, e);
	if (row < 0)
		r = -1;
	else if (value)
		r = db_run(h, e, "INSERT OR REPLACE INTO extra VALUES(?, ?, ?)", "lss", row, key, value);
	else
		r = db_run(h, e, "DELETE FROM extra WHERE machine = ? AND key = ?", "ls", row, key);
	if (!r && !vm_commit_with_file(h, id, e)) {
		vm_symlinks_changed(h, id, key, value);
		return 0;
	}
	db_rollback(h);
	return -1;
}

int
db_each_pair(struct host *h, sqlite3_stmt *s, host_pair_fn *fn, void *opaque, struct err *e)
{
	int r = s ? 1 : -1;

	while (r > 0 && (r = db_step(h, s, e)) > 0)
		if (fn(opaque, db_text(s, 0), db_text(s, 1), sqlite3_column_int64(s, 2), db_text(s, 3)))
			break;
	sqlite3_finalize(s);
	return r < 0 ? -1 : 0;
}

int
host_extra_each(struct host *h, const char *id, host_pair_fn *fn, void *opaque, struct err *e)
{
	int64_t row = is_global(id) ? 0 : vm_row_of(h, id, e);

	if (row < 0)
		return -1;
	if (!row)
		return db_each_pair(h, db_query(h, e, "SELECT key, value, 0, '' FROM global_extra ORDER BY key", ""),
			fn, opaque, e);
	return db_each_pair(h,
		db_query(h, e, "SELECT key, value, 0, '' FROM extra WHERE machine = ? ORDER BY key", "l", row), fn,
		opaque, e);
}
