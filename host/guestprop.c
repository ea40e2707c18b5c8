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

#define POLL_MS 100

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

/* ---- which machine ---- */

/* Its UUID; -1 and *e. */
static int
resolve(struct host *h, const char *id, char uuid[37], struct err *e)
{
	int64_t row = vm_row_of(h, id, e);
	sqlite3_stmt *s;
	int r;

	if (row < 0)
		return -1;
	s = db_query(h, e, "SELECT uuid FROM machine WHERE id = ?", "l", row);
	r = s ? db_step(h, s, e) : -1;
	if (r > 0)
		snprintf(uuid, 37, "%s", db_text(s, 0));
	sqlite3_finalize(s);
	return r > 0 ? 0 : -1;
}

/* ---- the API ---- */

int
host_guestprop_get(
	struct host *h, const char *id, const char *name, char **value, int64_t *time_ns, char **flags, struct err *e)
{
	char uuid[37];

	*value = *flags = NULL;
	*time_ns = 0;
	if (resolve(h, id, uuid, e))
		return -1;
	return get_stored(h, uuid, name, value, time_ns, flags, e);
}

int
host_guestprop_set(
	struct host *h, const char *id, const char *name, const char *value, const char *flags, struct err *e)
{
	char uuid[37];
	unsigned bits;

	if (check(name, value, flags, &bits, e) || db_begin(h, e))
		return -1;
	if (!resolve(h, id, uuid, e) && !set_stored(h, uuid, name, value, flags ? &bits : NULL, e) &&
		!vm_commit_with_file(h, uuid, e))
		return 0;
	db_rollback(h);
	return -1;
}

/* Those that match, for the caller's function. */
struct filter {
	const char *patterns;
	host_pair_fn *fn;
	void *opaque;
};

static int
pass(void *opaque, const char *name, const char *value, int64_t time_ns, const char *flags)
{
	struct filter *f = opaque;

	if (f->patterns && !prop_match(f->patterns, name))
		return 0;
	return f->fn(f->opaque, name, value, time_ns, flags);
}

int
host_guestprop_each(struct host *h, const char *id, const char *patterns, host_pair_fn *fn, void *opaque, struct err *e)
{
	struct filter f = { patterns, fn, opaque };
	char uuid[37];

	return resolve(h, id, uuid, e) ? -1 : guestprop_stored_each(h, uuid, pass, &f, e);
}

/* ---- waiting ---- */

/* The names that match, as they were at first: a name that is gone has been removed. */
struct watch {
	struct filter f;
	int64_t since;
	char **names;
	int count, seen;
	bool collect, told;
};

static int
note_name(void *opaque, const char *name, const char *value, int64_t time_ns, const char *flags)
{
	struct watch *w = opaque;

	if (w->collect) {
		w->since = MAX(w->since, time_ns);
		w->names = realloc(w->names, (size_t)(w->count + 1) * sizeof(*w->names));
		if (!w->names)
			abort();
		w->names[w->count++] = xstrdup(name);
		return 0;
	}
	for (int i = 0; i < w->count; i++)
		w->seen += !strcmp(w->names[i], name);
	if (time_ns <= w->since)
		return 0;
	w->told = true;
	w->f.fn(w->f.opaque, name, value, time_ns, flags);
	return 1;
}

static int
tell_removed(struct host *h, const char *uuid, struct watch *w, struct err *e)
{
	for (int i = 0; i < w->count && !w->told; i++) {
		char *value = NULL, *flags = NULL;
		int64_t when = 0;

		if (host_guestprop_get(h, uuid, w->names[i], &value, &when, &flags, e))
			return -1;
		if (!value) {
			w->told = true;
			w->f.fn(w->f.opaque, w->names[i], "", now_ns(), "");
		}
		free(value);
		free(flags);
	}
	return 0;
}

int
host_guestprop_wait(struct host *h, const char *id, const char *patterns, int timeout_ms, host_pair_fn *fn,
	void *opaque, struct err *e)
{
	struct watch w = { .f = { patterns, fn, opaque }, .collect = true };
	int64_t end = now_ns() + timeout_ms * 1000000ll;
	char uuid[37];
	int r;

	if (resolve(h, id, uuid, e))
		return -1;
	r = host_guestprop_each(h, uuid, patterns, note_name, &w, e);
	w.collect = false;
	while (!r && !w.told && (timeout_ms < 0 || now_ns() < end)) {
		usleep(POLL_MS * 1000);
		w.seen = 0;
		r = host_guestprop_each(h, uuid, patterns, note_name, &w, e);
		if (!r && !w.told && w.seen < w.count)
			r = tell_removed(h, uuid, &w, e);
	}
	for (int i = 0; i < w.count; i++)
		free(w.names[i]);
	free(w.names);
	return r ? -1 : w.told;
}
