/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The database: opening, versions, transactions.
 *
 * WAL with synchronous=NORMAL: a commit is a write without an fsync, so a verb costs well under a millisecond of disk;
 * after a power cut the last commits may be missing but the database is whole. The log is folded back every 200 pages
 * by whoever commits then, and not when the last front end leaves (that would cost each of them two fsyncs).
 *
 * The schema carries its version in PRAGMA user_version. migrations[] lists one script a version; a new version adds a
 * script and never edits an old one.
 */
#include <errno.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "host/inv.h"

static const char *const migrations[] = {
	/* 1 */
	"CREATE TABLE machine(id INTEGER PRIMARY KEY, uuid TEXT NOT NULL UNIQUE, name TEXT NOT NULL UNIQUE,"
	" folder TEXT NOT NULL, state TEXT NOT NULL, state_time INTEGER NOT NULL);"
	"CREATE TABLE setting(machine INTEGER NOT NULL REFERENCES machine ON DELETE CASCADE, key TEXT NOT NULL,"
	" slot INTEGER NOT NULL, value TEXT NOT NULL, PRIMARY KEY(machine, key, slot)) WITHOUT ROWID;"
	"CREATE TABLE natrule(machine INTEGER NOT NULL REFERENCES machine ON DELETE CASCADE, slot INTEGER NOT NULL,"
	" name TEXT NOT NULL, udp INTEGER NOT NULL, host_ip TEXT NOT NULL, host_port INTEGER NOT NULL,"
	" guest_ip TEXT NOT NULL, guest_port INTEGER NOT NULL, PRIMARY KEY(machine, slot, name)) WITHOUT ROWID;"
	"CREATE TABLE medium(id INTEGER PRIMARY KEY, uuid TEXT NOT NULL UNIQUE, type TEXT NOT NULL,"
	" path TEXT NOT NULL, format TEXT NOT NULL, variant TEXT NOT NULL, size INTEGER NOT NULL,"
	" description TEXT NOT NULL DEFAULT '', UNIQUE(type, path));"
	"CREATE TABLE controller(id INTEGER PRIMARY KEY, machine INTEGER NOT NULL REFERENCES machine ON DELETE CASCADE,"
	" name TEXT NOT NULL, bus TEXT NOT NULL, type TEXT NOT NULL, instance INTEGER NOT NULL,"
	" ports INTEGER NOT NULL, bootable INTEGER NOT NULL, hostiocache INTEGER NOT NULL, UNIQUE(machine, name));"
	"CREATE TABLE attachment(controller INTEGER NOT NULL REFERENCES controller ON DELETE CASCADE,"
	" port INTEGER NOT NULL, device INTEGER NOT NULL, type TEXT NOT NULL, medium INTEGER REFERENCES medium,"
	" nonrotational INTEGER NOT NULL, discard INTEGER NOT NULL, hotpluggable INTEGER NOT NULL,"
	" tempeject INTEGER NOT NULL, passthrough INTEGER NOT NULL, PRIMARY KEY(controller, port, device))"
	" WITHOUT ROWID;"
	"CREATE INDEX attachment_medium ON attachment(medium);"
	"CREATE TABLE extra(machine INTEGER NOT NULL REFERENCES machine ON DELETE CASCADE, key TEXT NOT NULL,"
	" value TEXT NOT NULL, PRIMARY KEY(machine, key)) WITHOUT ROWID;"
	"CREATE TABLE global_extra(key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;"
	"CREATE TABLE guestprop(machine INTEGER NOT NULL REFERENCES machine ON DELETE CASCADE, name TEXT NOT NULL,"
	" value TEXT NOT NULL, time INTEGER NOT NULL, flags TEXT NOT NULL, PRIMARY KEY(machine, name)) WITHOUT ROWID;"
	"CREATE TABLE property(key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;",
	/*
	 * 2: saved states and snapshots (host/snapshot.c), differencing media, operations under way (host/work.c).
	 * snapshot.settings is the machine of that time as a settings file has it; snapshot_disk its disks.
	 */
	"CREATE TABLE snapshot(id INTEGER PRIMARY KEY, machine INTEGER NOT NULL REFERENCES machine ON DELETE CASCADE,"
	" uuid TEXT NOT NULL UNIQUE, parent INTEGER REFERENCES snapshot ON DELETE SET NULL, name TEXT NOT NULL,"
	" description TEXT NOT NULL, time INTEGER NOT NULL, state_file TEXT NOT NULL, settings TEXT NOT NULL);"
	"CREATE INDEX snapshot_machine ON snapshot(machine);"
	"CREATE TABLE snapshot_disk(snapshot INTEGER NOT NULL REFERENCES snapshot ON DELETE CASCADE,"
	" controller TEXT NOT NULL, port INTEGER NOT NULL, device INTEGER NOT NULL,"
	" medium INTEGER NOT NULL REFERENCES medium, PRIMARY KEY(snapshot, controller, port, device)) WITHOUT ROWID;"
	"CREATE INDEX snapshot_disk_medium ON snapshot_disk(medium);"
	"ALTER TABLE machine ADD COLUMN state_file TEXT NOT NULL DEFAULT '';"
	"ALTER TABLE machine ADD COLUMN snapshot INTEGER REFERENCES snapshot ON DELETE SET NULL;"
	"ALTER TABLE medium ADD COLUMN parent INTEGER REFERENCES medium;"
	"CREATE INDEX medium_parent ON medium(parent);"
	"CREATE TABLE work(machine INTEGER PRIMARY KEY, uuid TEXT NOT NULL, what TEXT NOT NULL, done INTEGER NOT NULL,"
	" files TEXT NOT NULL);",
	/* 3: kinds of media (media.c), what they carry (media_text.c) */
	"ALTER TABLE medium ADD COLUMN kind TEXT NOT NULL DEFAULT 'normal';"
	"ALTER TABLE medium ADD COLUMN autoreset INTEGER NOT NULL DEFAULT 0;"
	"CREATE TABLE medium_property(medium INTEGER NOT NULL REFERENCES medium ON DELETE CASCADE, key TEXT NOT NULL,"
	" value TEXT NOT NULL, PRIMARY KEY(medium, key)) WITHOUT ROWID;",
	/* 4: until now it was kept and had no effect */
	"UPDATE controller SET hostiocache = 1;",
	/* 5: shared folders (share.c) */
	"CREATE TABLE sharedfolder(machine INTEGER NOT NULL REFERENCES machine ON DELETE CASCADE, name TEXT NOT NULL,"
	" path TEXT NOT NULL, readonly INTEGER NOT NULL, automount INTEGER NOT NULL, mount_point TEXT NOT NULL,"
	" PRIMARY KEY(machine, name)) WITHOUT ROWID;",
};
#define SCHEMA_VERSION ((int)ARRAY_LEN(migrations))

int64_t
now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_REALTIME, &t);
	return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static int
db_fail(struct host *h, struct err *e)
{
	return err_set(e, sqlite3_errcode(h->db) == SQLITE_BUSY ? ERR_TIMEOUT : ERR_FAILED, "inventory '%s': %s",
		h->home, sqlite3_errmsg(h->db));
}

static sqlite3_stmt *
db_vquery(struct host *h, struct err *e, const char *sql, const char *types, va_list ap)
{
	sqlite3_stmt *s;

	if (sqlite3_prepare_v2(h->db, sql, -1, &s, NULL)) {
		db_fail(h, e);
		return NULL;
	}
	for (int i = 1; *types; types++, i++) {
		if (*types == 's')
			sqlite3_bind_text(s, i, va_arg(ap, const char *), -1, SQLITE_TRANSIENT);
		else if (*types == 'i')
			sqlite3_bind_int(s, i, va_arg(ap, int));
		else
			sqlite3_bind_int64(s, i, va_arg(ap, int64_t));
	}
	return s;
}

sqlite3_stmt *
db_query(struct host *h, struct err *e, const char *sql, const char *types, ...)
{
	sqlite3_stmt *s;
	va_list ap;

	va_start(ap, types);
	s = db_vquery(h, e, sql, types, ap);
	va_end(ap);
	return s;
}

int
db_step(struct host *h, sqlite3_stmt *s, struct err *e)
{
	int r = sqlite3_step(s);

	if (r == SQLITE_ROW)
		return 1;
	return r == SQLITE_DONE ? 0 : db_fail(h, e);
}

int
db_run(struct host *h, struct err *e, const char *sql, const char *types, ...)
{
	sqlite3_stmt *s;
	va_list ap;
	int r;

	va_start(ap, types);
	s = db_vquery(h, e, sql, types, ap);
	va_end(ap);
	if (!s)
		return -1;
	while ((r = db_step(h, s, e)) > 0)
		;
	sqlite3_finalize(s);
	return r;
}

int
db_ids(struct host *h, sqlite3_stmt *s, int64_t **out, struct err *e)
{
	int n = 0, r = s ? 1 : -1;

	*out = NULL;
	while (r > 0 && (r = db_step(h, s, e)) > 0) {
		*out = realloc(*out, (size_t)(n + 1) * sizeof(**out));
		if (!*out)
			abort();
		(*out)[n++] = sqlite3_column_int64(s, 0);
	}
	sqlite3_finalize(s);
	return r < 0 ? -1 : n;
}

const char *
db_text(sqlite3_stmt *s, int column)
{
	const unsigned char *t = sqlite3_column_text(s, column);

	return t ? (const char *)t : "";
}

static int
db_exec(struct host *h, const char *sql, struct err *e)
{
	return sqlite3_exec(h->db, sql, NULL, NULL, NULL) ? db_fail(h, e) : 0;
}

int
db_begin(struct host *h, struct err *e)
{
	if (!h->depth && db_exec(h, "BEGIN IMMEDIATE", e))
		return -1;
	h->depth++;
	return 0;
}

int
db_commit(struct host *h, struct err *e)
{
	if (!h->depth)
		return err_set(e, ERR_FAILED, "inventory '%s': the change was given up", h->home);
	if (--h->depth)
		return 0;
	if (!db_exec(h, "COMMIT", e))
		return 0;
	sqlite3_exec(h->db, "ROLLBACK", NULL, NULL, NULL);
	return -1;
}

void
db_rollback(struct host *h)
{
	if (h->depth)
		sqlite3_exec(h->db, "ROLLBACK", NULL, NULL, NULL);
	h->depth = 0;
}

int
db_begin_read(struct host *h, struct err *e)
{
	if (h->depth)
		return 0;
	return db_exec(h, "BEGIN", e);
}

void
db_end_read(struct host *h)
{
	if (!h->depth)
		sqlite3_exec(h->db, "COMMIT", NULL, NULL, NULL);
}

static int
schema_version(struct host *h, int *version, struct err *e)
{
	sqlite3_stmt *s = db_query(h, e, "PRAGMA user_version", "");
	int r = s ? db_step(h, s, e) : -1;

	if (r > 0)
		*version = sqlite3_column_int(s, 0);
	sqlite3_finalize(s);
	return r < 0 ? -1 : 0;
}

/* Bring the schema up to date; several front ends may find it old at once, one of them does the work. */
static int
schema_migrate(struct host *h, struct err *e)
{
	int version = 0;

	if (db_begin(h, e))
		return -1;
	if (schema_version(h, &version, e))
		goto fail;
	for (; version < SCHEMA_VERSION; version++) {
		char stamp[48];

		snprintf(stamp, sizeof(stamp), "PRAGMA user_version = %d", version + 1);
		if (db_exec(h, migrations[version], e) || db_exec(h, stamp, e))
			goto fail;
	}
	return db_commit(h, e);
fail:
	db_rollback(h);
	return -1;
}

/* The switch to WAL needs the database alone and does not wait for it by itself. */
static int
wal_on(struct host *h, struct err *e)
{
	for (int i = 0; i < 500; i++) {
		int r = sqlite3_exec(h->db, "PRAGMA journal_mode=WAL", NULL, NULL, NULL);

		if (r != SQLITE_BUSY && r != SQLITE_LOCKED)
			return r ? db_fail(h, e) : 0;
		usleep(10000);
	}
	return db_fail(h, e);
}

static int
schema_check(struct host *h, struct err *e)
{
	int version = 0;

	if (schema_version(h, &version, e))
		return -1;
	if (version == SCHEMA_VERSION)
		return 0;
	if (version > SCHEMA_VERSION)
		return err_set(e, ERR_UNSUPPORTED,
			"the inventory in '%s' has version %d and this program knows versions up to %d: use the newer "
			"program that wrote it",
			h->home, version, SCHEMA_VERSION);
	if (!version && wal_on(h, e))
		return -1;
	return schema_migrate(h, e);
}

static const char *
home_dir(void)
{
	const char *home = getenv("HOME");
	const struct passwd *pw;

	if (home && *home)
		return home;
	pw = getpwuid(getuid());
	return pw ? pw->pw_dir : "/";
}

static char *
lodge_home(void)
{
	const char *env = getenv("LODGE_HOME");
	char *path, *abs;

	path = env && *env ? xstrdup(env) : xasprintf("%s/.local/share/lodge", home_dir());
	abs = host_absolute_path(path);
	free(path);
	return abs;
}

static int
db_open(struct host *h, struct err *e)
{
	char *path = xasprintf("%s/inventory.db", h->home);
	int r = sqlite3_open_v2(path, &h->db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX, NULL);

	free(path);
	if (r)
		return h->db ? db_fail(h, e) : err_set(e, ERR_FAILED, "no memory for the inventory");
	sqlite3_busy_timeout(h->db, 20000);
	sqlite3_db_config(h->db, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, NULL);
	if (db_exec(h, "PRAGMA synchronous=NORMAL; PRAGMA foreign_keys=ON; PRAGMA wal_autocheckpoint=200", e))
		return -1;
	return schema_check(h, e);
}

struct host *
host_open(struct err *e)
{
	struct host *h = xcalloc(1, sizeof(*h));
	struct stat st;
	mode_t mask;

	h->home = lodge_home();
	if (stat(h->home, &st) && dir_make(h->home, 0700, e))
		goto fail;
	/* Everything below holds what guests and their consoles are protected by: for the owner only. */
	mask = umask(077);
	if (db_open(h, e)) {
		umask(mask);
		goto fail;
	}
	umask(mask);
	return h;
fail:
	host_close(h);
	return NULL;
}

void
host_close(struct host *h)
{
	if (!h)
		return;
	sqlite3_close(h->db);
	free(h->machine_folder);
	free(h->home);
	free(h);
}

const char *
host_home(struct host *h)
{
	return h->home;
}

const char *
host_machine_folder(struct host *h)
{
	sqlite3_stmt *s;

	if (h->machine_folder)
		return h->machine_folder;
	s = db_query(h, NULL, "SELECT value FROM property WHERE key = 'machinefolder'", "");
	if (s && db_step(h, s, NULL) > 0)
		h->machine_folder = xstrdup(db_text(s, 0));
	sqlite3_finalize(s);
	if (!h->machine_folder)
		h->machine_folder = xasprintf("%s/VirtualBox VMs", home_dir());
	return h->machine_folder;
}

int
host_set_machine_folder(struct host *h, const char *path, struct err *e)
{
	char *abs;
	int r;

	free(h->machine_folder);
	h->machine_folder = NULL;
	if (!strcmp(path, "default"))
		return db_run(h, e, "DELETE FROM property WHERE key = 'machinefolder'", "");
	abs = host_absolute_path(path);
	r = db_run(h, e, "INSERT OR REPLACE INTO property VALUES('machinefolder', ?)", "s", abs);
	free(abs);
	return r;
}

/* Append the part of `len` bytes, taking "." and ".." by their meaning. */
static void
path_part(struct str *b, const char *part, size_t len)
{
	if (!len || (len == 1 && part[0] == '.'))
		return;
	if (len == 2 && part[0] == '.' && part[1] == '.') {
		while (b->len && b->s[--b->len] != '/')
			;
		if (b->s)
			b->s[b->len] = 0;
		return;
	}
	str_addn(b, "/", 1);
	str_addn(b, part, len);
}

static void
path_parts(struct str *b, const char *path)
{
	while (*path) {
		size_t n = strcspn(path, "/");

		path_part(b, path, n);
		path += n + (path[n] == '/');
	}
}

char *
host_absolute_path(const char *path)
{
	struct str b = { 0 };

	if (path[0] != '/') {
		char *cwd = getcwd(NULL, 0);

		path_parts(&b, cwd ? cwd : "/");
		free(cwd);
	}
	path_parts(&b, path);
	if (!b.len)
		str_add(&b, "/");
	return b.s;
}
