/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Guest properties. Of a machine at rest they are rows of the inventory. While it runs they are in its process, where
 * the guest reads and writes them: every request goes there (vm/protocol.h). The process writes them down in its run
 * directory; whoever asks first after it has ended takes that file into the inventory and removes it.
 *
 * What is TRANSIENT stays only when the machine was saved.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "host/inv.h"
#include "host/run.h"
#include "share/share.h"
#include "vm/protocol.h"

#define POLL_MS 100
#define SLICE_MS 20000

/* ---- the inventory's rows ---- */

int
guestprop_stored_each(struct host *h, const char *uuid, host_pair_fn *fn, void *opaque, struct err *e)
{
	return db_each_pair(h,
		db_query(h, e,
			"SELECT name, value, time, flags FROM guestprop WHERE machine = (SELECT id FROM machine WHERE "
			"uuid = ?) ORDER BY name",
			"s", uuid),
		fn, opaque, e);
}

static int
check(const char *name, const char *value, const char *flags, unsigned *bits, struct err *e)
{
	*bits = 0;
	if (!prop_name_ok(name))
		return err_set(e, ERR_INVALID, "Invalid guest property name '%s'", name);
	if (value && strlen(value) > PROP_VALUE_MAX)
		return err_set(e, ERR_INVALID, "The value of guest property '%s' has more than %d bytes", name,
			PROP_VALUE_MAX);
	if (value && !prop_value_ok(value))
		return err_set(e, ERR_INVALID, "The value of guest property '%s' is not UTF-8", name);
	if (flags && !prop_flags_parse(flags, bits))
		return err_set(e, ERR_INVALID,
			"Invalid flags '%s' of guest property '%s': they are of TRANSIENT, RDONLYGUEST, RDONLYHOST, "
			"READONLY and TRANSRESET",
			flags, name);
	return 0;
}

static int
get_stored(
	struct host *h, const char *uuid, const char *name, char **value, int64_t *time_ns, char **flags, struct err *e)
{
	sqlite3_stmt *s = db_query(h, e,
		"SELECT value, time, flags FROM guestprop WHERE machine = (SELECT id FROM machine WHERE uuid = ?) "
		"AND name = ?",
		"ss", uuid, name);
	int r = s ? db_step(h, s, e) : -1;

	if (r > 0) {
		*value = xstrdup(db_text(s, 0));
		*time_ns = sqlite3_column_int64(s, 1);
		*flags = xstrdup(db_text(s, 2));
	}
	sqlite3_finalize(s);
	return r < 0 ? -1 : 0;
}

static int
put_row(struct host *h, int64_t row, const char *name, const char *value, int64_t time_ns, const char *flags,
	struct err *e)
{
	return db_run(h, e, "INSERT OR REPLACE INTO guestprop VALUES(?, ?, ?, ?, ?)", "lssls", row, name, value,
		time_ns, flags);
}

/* The flags it keeps when none are given. -1 and *e: the host must not write it. */
static int
old_flags(struct host *h, const char *uuid, const char *name, unsigned *bits, struct err *e)
{
	char *value = NULL, *flags = NULL;
	int64_t when;
	int r = get_stored(h, uuid, name, &value, &when, &flags, e);

	*bits = 0;
	if (!r && flags)
		prop_flags_parse(flags, bits);
	if (*bits & PROP_RDONLYHOST)
		r = err_set(e, ERR_ACCESS, "The guest property '%s' is read-only for the host", name);
	free(value);
	free(flags);
	return r;
}

static int
set_stored(struct host *h, const char *uuid, const char *name, const char *value, const unsigned *flags, struct err *e)
{
	char text[PROP_FLAGS_SIZE];
	int64_t row = vm_row(h, uuid);
	unsigned bits;

	if (old_flags(h, uuid, name, &bits, e))
		return -1;
	if (!value)
		return db_run(h, e, "DELETE FROM guestprop WHERE machine = ? AND name = ?", "ls", row, name);
	return put_row(h, row, name, value, now_ns(), prop_flags_text(flags ? *flags : bits, text), e);
}

/* ---- what a machine's process has left ---- */

struct fold {
	struct host *h;
	int64_t row;
	bool keep_transient;
};

static int
fold_one(const struct fold *f, const json_t *o, struct err *e)
{
	const char *name = NULL, *value = NULL, *flags = "";
	char text[PROP_FLAGS_SIZE];
	json_int_t when = 0;
	unsigned bits;

	if (json_unpack((json_t *)o, "{s:s, s:s, s:I, s:s}", "name", &name, "value", &value, "time", &when, "flags",
		    &flags) ||
		check(name, value, flags, &bits, NULL))
		return 0;
	if (bits & PROP_TRANSIENT && !f->keep_transient)
		return 0;
	return put_row(f->h, f->row, name, value, when, prop_flags_text(bits, text), e);
}

/* Inside a transaction, no process: its file instead of the rows there are. */
static int
fold(struct host *h, const struct host_vm *vm, const char *path, struct err *e)
{
	struct fold f = { h, vm_row(h, vm->uuid), vm->state == HOST_SAVED };
	json_t *o = json_load_file(path, 0, NULL), *p;
	size_t i;
	int r = 0;

	if (o)
		r = db_run(h, e, "DELETE FROM guestprop WHERE machine = ?", "l", f.row);
	json_array_foreach(json_object_get(o, "properties"), i, p) if (!r) r = fold_one(&f, p, e);
	json_decref(o);
	if (!r)
		unlink(path);
	return r;
}

/* 1: the machine's process has them; 0: the rows are what counts; -1 and *e. */
static int
settle(struct host *h, const struct host_vm *vm, struct err *e)
{
	char *dir, *path;
	int r = 0;

	if (vm_process_alive(h, vm->uuid))
		return 1;
	dir = vm_run_dir(h, vm->uuid);
	path = xasprintf("%s/%s", dir, VM_FILE_PROPS);
	if (!access(path, R_OK)) {
		r = db_begin(h, e);
		/* Who starts the machine reads them in a transaction, so nobody does just now. */
		if (!r)
			r = vm_process_alive(h, vm->uuid) ? 1 : fold(h, vm, path, e);
		if (r < 0)
			db_rollback(h);
		else if (db_commit(h, e))
			r = -1;
	}
	free(path);
	free(dir);
	return r;
}

static int
add_to_list(void *opaque, const char *name, const char *value, int64_t time_ns, const char *flags)
{
	json_array_append_new(opaque, json_pack("{s:s, s:s, s:I, s:s}", "name", name, "value", value, "time",
					      (json_int_t)time_ns, "flags", flags));
	return 0;
}

json_t *
guestprop_config(struct host *h, const struct host_vm *vm, struct err *e)
{
	json_t *list = json_array();
	bool fresh = vm->state != HOST_SAVED;

	if (settle(h, vm, e) < 0 ||
		(fresh && db_run(h, e, "DELETE FROM guestprop WHERE machine = ? AND flags LIKE '%TRANSIENT%'", "l",
				  vm_row(h, vm->uuid))) ||
		guestprop_stored_each(h, vm->uuid, add_to_list, list, e)) {
		json_decref(list);
		return NULL;
	}
	return list;
}

/* ---- the API ---- */

/* What they are now, in order; NULL and *e. */
static json_t *
list(struct host *h, const struct host_vm *vm, const char *patterns, struct err *e)
{
	int r = settle(h, vm, e);
	json_t *answer = NULL, *rows, *all, *o;
	size_t i;

	if (r < 0)
		return NULL;
	if (r)
		answer = vm_call(
			h, vm, "guestprop.list", json_pack("{s:s}", "patterns", patterns ? patterns : ""), NULL);
	rows = json_incref(json_object_get(answer, "properties"));
	json_decref(answer);
	if (rows)
		return rows;
	/* At rest; or it is just starting or ending. */
	all = json_array();
	rows = json_array();
	r = guestprop_stored_each(h, vm->uuid, add_to_list, all, e);
	json_array_foreach(
		all, i, o) if (!patterns || prop_match(patterns, json_string_value(json_object_get(o, "name"))))
		json_array_append(rows, o);
	json_decref(all);
	if (!r)
		return rows;
	json_decref(rows);
	return NULL;
}

/* One of them, for the caller's function. */
static int
tell(const json_t *o, host_pair_fn *fn, void *opaque)
{
	const char *value = json_string_value(json_object_get(o, "value"));
	const char *flags = json_string_value(json_object_get(o, "flags"));

	return fn(opaque, json_string_value(json_object_get(o, "name")), value ? value : "",
		json_integer_value(json_object_get(o, "time")), flags ? flags : "");
}

int
host_guestprop_each(struct host *h, const char *id, const char *patterns, host_pair_fn *fn, void *opaque, struct err *e)
{
	struct host_vm *vm = host_vm_load(h, id, e);
	json_t *rows = vm ? list(h, vm, patterns, e) : NULL, *o;
	size_t i;

	host_vm_free(vm);
	json_array_foreach(rows, i, o) if (json_object_get(o, "name") && tell(o, fn, opaque)) break;
	json_decref(rows);
	return rows ? 0 : -1;
}

struct one {
	const char *name;
	char **value, **flags;
	int64_t *time_ns;
};

static int
take_one(void *opaque, const char *name, const char *value, int64_t time_ns, const char *flags)
{
	struct one *o = opaque;

	if (strcmp(name, o->name))
		return 0;
	*o->value = xstrdup(value);
	*o->flags = xstrdup(flags);
	*o->time_ns = time_ns;
	return 1;
}

int
host_guestprop_get(
	struct host *h, const char *id, const char *name, char **value, int64_t *time_ns, char **flags, struct err *e)
{
	struct one o = { name, value, flags, time_ns };

	*value = *flags = NULL;
	*time_ns = 0;
	return host_guestprop_each(h, id, prop_name_ok(name) ? name : "", take_one, &o, e);
}

static int
set_in_process(
	struct host *h, const struct host_vm *vm, const char *name, const char *value, const char *flags, struct err *e)
{
	json_t *answer = vm_call(h, vm, "guestprop.set",
		json_pack("{s:s, s:s*, s:s*}", "name", name, "value", value, "flags", flags), e);

	json_decref(answer);
	return answer ? 0 : -1;
}

int
host_guestprop_set(
	struct host *h, const char *id, const char *name, const char *value, const char *flags, struct err *e)
{
	struct host_vm *vm;
	unsigned bits;
	int r = -1;

	if (check(name, value, flags, &bits, e))
		return -1;
	vm = host_vm_load(h, id, e);
	if (!vm)
		return -1;
	if (vm_process_alive(h, vm->uuid)) {
		r = set_in_process(h, vm, name, value, flags, e);
	} else if (!db_begin(h, e)) {
		r = settle(h, vm, e);
		if (r > 0)
			r = err_set(e, ERR_VM_STATE, "The machine '%s' is just being started: try again", vm->name);
		if (!r)
			r = set_stored(h, vm->uuid, name, value, flags ? &bits : NULL, e);
		if (!r)
			r = vm_commit_with_file(h, vm->uuid, e);
		if (r)
			db_rollback(h);
	}
	host_vm_free(vm);
	return r;
}

/* ---- waiting ---- */

/* The names that match, as they were at first: a name that is gone has been removed. */
struct watch {
	host_pair_fn *fn;
	void *opaque;
	int64_t since;
	json_t *before, *now; /* name: true */
	bool told;
};

static int
note_name(void *opaque, const char *name, const char *value, int64_t time_ns, const char *flags)
{
	struct watch *w = opaque;

	json_object_set_new(w->now, name, json_true());
	if (!w->before || time_ns <= w->since)
		return 0;
	w->told = true;
	w->fn(w->opaque, name, value, time_ns, flags);
	return 1;
}

/* -1 and *e; w->told when there is something new. */
static int
look(struct host *h, const char *uuid, const char *patterns, struct watch *w, struct err *e)
{
	const char *name;
	json_t *v;
	int r;

	w->now = json_object();
	r = host_guestprop_each(h, uuid, patterns, note_name, w, e);
	if (!r && !w->told)
		json_object_foreach(w->before, name, v) if (!w->told && !json_object_get(w->now, name))
		{
			w->told = true;
			w->fn(w->opaque, name, "", now_ns(), "");
		}
	json_decref(w->before);
	w->before = w->now;
	return r;
}

/* Ask the machine's process to tell, at most so long. False: it does not. */
static bool
ask(struct host *h, const char *uuid, const char *patterns, int ms, struct watch *w)
{
	struct host_vm *vm = vm_process_alive(h, uuid) ? host_vm_load(h, uuid, NULL) : NULL;
	json_t *answer = NULL;

	if (vm)
		answer = vm_call(h, vm, "guestprop.wait",
			json_pack("{s:s, s:I, s:i}", "patterns", patterns, "after", (json_int_t)w->since, "timeout_ms",
				MIN(ms, SLICE_MS)),
			NULL);
	host_vm_free(vm);
	if (json_object_get(answer, "name")) {
		w->told = true;
		tell(answer, w->fn, w->opaque);
	}
	json_decref(answer);
	return answer != NULL;
}

int
host_guestprop_wait(struct host *h, const char *id, const char *patterns, int timeout_ms, host_pair_fn *fn,
	void *opaque, struct err *e)
{
	struct watch w = { .fn = fn, .opaque = opaque, .since = now_ns() };
	int64_t end = timeout_ms < 0 ? INT64_MAX : w.since + timeout_ms * 1000000ll, left;
	struct host_vm *vm = host_vm_load(h, id, e);
	char uuid[37];
	int r;

	if (!vm)
		return -1;
	snprintf(uuid, sizeof(uuid), "%s", vm->uuid);
	host_vm_free(vm);
	r = look(h, uuid, patterns, &w, e);
	while (!r && !w.told && (left = (end - now_ns()) / 1000000) > 0) {
		if (ask(h, uuid, patterns, (int)MIN(left, (int64_t)SLICE_MS), &w))
			continue;
		usleep(POLL_MS * 1000);
		r = look(h, uuid, patterns, &w, e);
	}
	json_decref(w.before);
	return r ? -1 : w.told;
}
