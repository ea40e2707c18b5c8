/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The registry of media: hard disks, DVD and floppy images.
 *
 * A medium is looked at (opened, its format, size and UUID read) when it is registered; after that lists are answered
 * from the registry without touching the file, which a running machine has locked anyway. A disk has the UUID its image
 * carries; an image without one (raw, ISO) gets one that the registry remembers for its path.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

#include "block/block.h"
#include "host/chain.h"
#include "host/inv.h"

static const char *const type_words[] = { [HOST_DISK] = "disk", [HOST_DVD] = "dvd", [HOST_FLOPPY] = "floppy" };

const char *
medium_type_word(enum host_device t)
{
	return type_words[t];
}

int
medium_type_of(const char *word)
{
	for (size_t i = 0; i < ARRAY_LEN(type_words); i++)
		if (!strcmp(word, type_words[i]))
			return (int)i;
	return -1;
}

static const char *const kind_words[] = { [HOST_NORMAL] = "normal",
	[HOST_IMMUTABLE] = "immutable",
	[HOST_WRITETHROUGH] = "writethrough",
	[HOST_SHAREABLE] = "shareable",
	[HOST_READONLY] = "readonly",
	[HOST_MULTIATTACH] = "multiattach" };

const char *
host_medium_kind_word(enum host_medium_kind k)
{
	return kind_words[k];
}

int
host_medium_kind_of(const char *word)
{
	for (int i = 0; i < HOST_MEDIUM_KINDS; i++)
		if (!strcasecmp(word, kind_words[i]))
			return i;
	return -1;
}

/* Formats of disks that can be created. The first is what one gets without asking. */
static const struct image_format {
	const char *name, *also, *format, *suffix;
} image_formats[] = {
	{ "VDI", NULL, "vdi", ".vdi" },
	{ "VMDK", NULL, "vmdk", ".vmdk" },
	{ "VHD", NULL, "vhd", ".vhd" },
	{ "QCOW2", "QCOW", "qcow2", ".qcow2" },
	{ "RAW", NULL, "raw", ".img" },
};

static const struct image_format *
find_image_format(const char *word)
{
	for (size_t i = 0; i < ARRAY_LEN(image_formats); i++)
		if (!strcasecmp(word, image_formats[i].name) ||
			(image_formats[i].also && !strcasecmp(word, image_formats[i].also)))
			return &image_formats[i];
	return NULL;
}

static void
look_inside(struct host_medium *m, const struct block_info *info)
{
	static const struct uuid none;

	m->format = !strcmp(info->format, "iso") ? xstrdup("RAW") : xstrupper(info->format);
	m->variant = xstrdup(info->variant ? info->variant : "dynamic");
	m->size = info->size;
	m->nameless = !memcmp(&info->uuid, &none, sizeof(none));
	if (!m->nameless)
		uuid_text(&info->uuid, m->uuid);
}

/* A medium is where the registry says, whatever its children say. */
static char *
find_by_uuid(void *opaque, const struct uuid *uuid, const char *name)
{
	char text[37], *path = NULL;
	sqlite3_stmt *s;

	uuid_text(uuid, text);
	s = db_query(opaque, NULL, "SELECT path FROM medium WHERE uuid = ?", "s", text);
	if (s && db_step(opaque, s, NULL) > 0)
		path = xstrdup(db_text(s, 0));
	sqlite3_finalize(s);
	return path;
}

struct block_finder
medium_finder(struct host *h)
{
	return (struct block_finder){ find_by_uuid, h };
}

static void
add_property(struct host_medium *m, const char *key, const char *value)
{
	m->properties = realloc(m->properties, (size_t)(m->property_count + 1) * sizeof(*m->properties));
	if (!m->properties)
		abort();
	m->properties[m->property_count++] = (struct host_pair){ xstrdup(key), xstrdup(value) };
}

/* What an encrypted image carries. */
static void
look_at_texts(struct host_medium *m, struct block *b)
{
	static const char *const keys[] = { "CRYPT/KeyId", "CRYPT/KeyStore" };

	for (size_t i = 0; i < ARRAY_LEN(keys) && m->encrypted; i++) {
		char *value = block_get_text(b, keys[i]);

		if (value)
			add_property(m, keys[i], value);
		free(value);
	}
}

/* What the file at `path` is. An ISO must be one, a floppy is raw, a disk anything but an optical disc. */
static int
probe_file(struct host *h, enum host_device type, const char *path, struct host_medium *m, struct err *e)
{
	struct block_finder find = medium_finder(h), *finder = &find;
	struct block_info info;
	struct block *b;
	struct stat st;
	struct uuid u = uuid_random();

	if (stat(path, &st) && errno == ENOENT)
		return err_set(e, ERR_FILE, "Could not find file for the medium '%s' (VERR_FILE_NOT_FOUND)", path);
	if (S_ISDIR(st.st_mode))
		return err_set(
			e, ERR_FILE, "Could not open the medium '%s': it is a directory (VERR_IS_A_DIRECTORY)", path);
	b = block_open_with(path,
		type == HOST_DVD      ? "iso"
		: type == HOST_FLOPPY ? "raw"
				      : NULL,
		BLOCK_RDONLY, finder, e);
	if (!b)
		return err_wrap(e, "Could not open the medium '%s'", path);
	uuid_text(&u, m->uuid);
	block_get_info(b, &info);
	m->type = type;
	m->path = xstrdup(path);
	look_inside(m, &info);
	m->encrypted = info.encrypted;
	m->has_parent = info.backing;
	m->description = xstrdup("");
	if (block_chain_info(b, 1, &info))
		uuid_text(&info.uuid, m->parent);
	look_at_texts(m, b);
	block_close(b);
	return 0;
}

static int
insert(struct host *h, const struct host_medium *m, struct err *e)
{
	int r = db_run(h, e, "INSERT INTO medium(uuid, type, path, format, variant, size) VALUES(?, ?, ?, ?, ?, ?)",
		"sssssl", m->uuid, medium_type_word(m->type), m->path, m->format, m->variant, (int64_t)m->size);

	for (int i = 0; i < m->property_count && !r; i++)
		r = medium_put_property(h, m->uuid, m->properties[i].key, m->properties[i].value, e);
	return r || !m->has_parent ? r : medium_note_parents(h, m->path, e);
}

int
medium_put_property(struct host *h, const char *uuid, const char *key, const char *value, struct err *e)
{
	if (!value)
		return db_run(h, e,
			"DELETE FROM medium_property WHERE medium = (SELECT id FROM medium WHERE uuid = ?) AND key = ?",
			"ss", uuid, key);
	return db_run(h, e,
		"INSERT OR REPLACE INTO medium_property(medium, key, value) SELECT id, ?, ? FROM medium WHERE uuid = ?",
		"sss", key, value, uuid);
}

static void
medium_release(struct host_medium *m)
{
	free(m->path);
	free(m->format);
	free(m->variant);
	free(m->description);
	for (int i = 0; i < m->users; i++)
		free(m->user_names[i]);
	free(m->user_names);
	free(m->user_uuids);
	free(m->children);
	for (int i = 0; i < m->property_count; i++) {
		free(m->properties[i].key);
		free(m->properties[i].value);
	}
	free(m->properties);
}

void
host_medium_free(struct host_medium *m)
{
	if (!m)
		return;
	medium_release(m);
	free(m);
}

void
host_media_free(struct host_medium *m, size_t count)
{
	for (size_t i = 0; i < count; i++)
		medium_release(&m[i]);
	free(m);
}

static int
duplicate_uuid(struct host *h, const struct host_medium *m, struct err *e)
{
	sqlite3_stmt *s = db_query(h, e, "SELECT path FROM medium WHERE uuid = ?", "s", m->uuid);
	int r = s ? db_step(h, s, e) : -1;

	if (r > 0)
		r = err_set(e, ERR_INVALID,
			"Cannot register the medium '%s' {%s} because a medium '%s' with UUID {%s} already exists",
			m->path, m->uuid, db_text(s, 0), m->uuid);
	sqlite3_finalize(s);
	return r;
}

/* Fill the caller's strings from a registered row. 1: found, 0: not, -1 and *e. */
static int
find(struct host *h, enum host_device type, const char *column, const char *value, char uuid[37], char **path,
	char **format, struct err *e)
{
	char sql[128];
	sqlite3_stmt *s;
	int r;

	snprintf(sql, sizeof(sql), "SELECT uuid, path, format FROM medium WHERE type = ? AND %s = ?", column);
	s = db_query(h, e, sql, "ss", medium_type_word(type), value);
	r = s ? db_step(h, s, e) : -1;
	if (r > 0) {
		snprintf(uuid, 37, "%s", db_text(s, 0));
		*path = xstrdup(db_text(s, 1));
		*format = xstrdup(db_text(s, 2));
	}
	sqlite3_finalize(s);
	return r;
}

static int
unknown_uuid(enum host_device type, const char *uuid, struct err *e)
{
	static const char *const what[] = { "hard disk", "optical disk", "floppy disk" };

	return err_set(e, ERR_NOT_FOUND, "Could not find an open %s with UUID {%s}", what[type], uuid);
}

int
medium_get(
	struct host *h, enum host_device type, const char *id, char uuid[37], char **path, char **format, struct err *e)
{
	struct host_medium m = { 0 };
	struct uuid u;
	char text[37], *abs;
	int r;

	if (uuid_parse(id, &u)) {
		uuid_text(&u, text);
		r = find(h, type, "uuid", text, uuid, path, format, e);
		return r > 0 ? 0 : r < 0 ? -1 : unknown_uuid(type, text, e);
	}
	abs = host_absolute_path(id);
	r = find(h, type, "path", abs, uuid, path, format, e);
	if (!r) {
		r = probe_file(h, type, abs, &m, e) || duplicate_uuid(h, &m, e) || insert(h, &m, e) ? -1 : 1;
		if (r > 0) {
			snprintf(uuid, 37, "%s", m.uuid);
			*path = xstrdup(m.path);
			*format = xstrdup(m.format);
		}
		medium_release(&m);
	}
	free(abs);
	return r > 0 ? 0 : -1;
}

/* What is known of a medium whose file is not there: it can be listed and detached. */
static void
describe_missing(struct host_medium *m, enum host_device type, const char *path, const char *format)
{
	const struct image_format *f = find_image_format(format);

	m->type = type;
	m->path = xstrdup(path);
	m->format = xstrdup(f ? f->name : "RAW");
	m->variant = xstrdup("dynamic");
}

int
medium_register(
	struct host *h, enum host_device type, const char *uuid, const char *path, const char *format, struct err *e)
{
	char known[37], *p = NULL, *f = NULL;
	struct host_medium m = { 0 };
	struct uuid u;
	struct stat st;
	int r = find(h, type, "path", path, known, &p, &f, e);

	free(p);
	free(f);
	if (r)
		return r < 0 ? -1 : 0;
	if (!uuid_parse(uuid, &u))
		return err_set(e, ERR_XML, "Invalid medium UUID '%s'", uuid);
	uuid_text(&u, m.uuid);
	if (stat(path, &st) && errno == ENOENT)
		describe_missing(&m, type, path, format);
	else
		r = probe_file(h, type, path, &m, e);
	/* An image that carries no UUID of its own keeps the one it was known by. */
	if (!r && m.nameless)
		uuid_text(&u, m.uuid);
	r = r || duplicate_uuid(h, &m, e) || insert(h, &m, e) ? -1 : 0;
	medium_release(&m);
	return r;
}

/* ---- looking at them ---- */

static int
load_users(struct host *h, struct host_medium *m, struct err *e)
{
	sqlite3_stmt *s = db_query(h, e,
		"SELECT v.name, v.uuid, v.id FROM machine v JOIN controller c ON c.machine = v.id"
		" JOIN attachment a ON a.controller = c.id JOIN medium m ON m.id = a.medium WHERE m.uuid = ?1 UNION"
		" SELECT v.name, v.uuid, v.id FROM machine v JOIN snapshot s ON s.machine = v.id"
		" JOIN snapshot_disk d ON d.snapshot = s.id JOIN medium m ON m.id = d.medium WHERE m.uuid = ?1"
		" ORDER BY 3",
		"s", m->uuid);
	int r = s ? 1 : -1;

	while (r > 0 && (r = db_step(h, s, e)) > 0) {
		size_t n = (size_t)m->users + 1;

		m->user_names = realloc(m->user_names, n * sizeof(*m->user_names));
		m->user_uuids = realloc(m->user_uuids, n * sizeof(*m->user_uuids));
		if (!m->user_names || !m->user_uuids)
			abort();
		m->user_names[m->users] = xstrdup(db_text(s, 0));
		snprintf(m->user_uuids[m->users], 37, "%s", db_text(s, 1));
		if (vm_locked(h, m->user_uuids[m->users]))
			m->in_use = true;
		m->users++;
	}
	sqlite3_finalize(s);
	return r;
}

static void
look_at_file(struct host_medium *m)
{
	struct stat st;

	if (stat(m->path, &st))
		m->missing = true;
	else
		m->on_disk = (uint64_t)st.st_blocks * 512;
}

static int
load_children(struct host *h, struct host_medium *m, struct err *e)
{
	sqlite3_stmt *s = db_query(h, e,
		"SELECT uuid FROM medium WHERE parent = (SELECT id FROM medium WHERE uuid = ?) ORDER BY id", "s",
		m->uuid);
	int r = s ? 1 : -1;

	while (r > 0 && (r = db_step(h, s, e)) > 0) {
		m->children = realloc(m->children, (size_t)(m->child_count + 1) * sizeof(*m->children));
		if (!m->children)
			abort();
		snprintf(m->children[m->child_count++], 37, "%s", db_text(s, 0));
	}
	sqlite3_finalize(s);
	return r;
}

static int
load_properties(struct host *h, struct host_medium *m, struct err *e)
{
	sqlite3_stmt *s = db_query(h, e,
		"SELECT key, value FROM medium_property WHERE medium = (SELECT id FROM medium WHERE uuid = ?) ORDER BY "
		"key",
		"s", m->uuid);
	int r = s ? 1 : -1;

	while (r > 0 && (r = db_step(h, s, e)) > 0) {
		add_property(m, db_text(s, 0), db_text(s, 1));
		if (!strcmp(db_text(s, 0), "CRYPT/KeyId"))
			snprintf(m->password_id, sizeof(m->password_id), "%s", db_text(s, 1));
		if (!strcmp(db_text(s, 0), "CRYPT/KeyStore")) {
			m->encrypted = true;
			block_keystore_cipher(db_text(s, 1), m->cipher);
		}
	}
	sqlite3_finalize(s);
	return r;
}

/* Does a running machine have an image that reads through to this one? */
static int
load_use_below(struct host *h, struct host_medium *m, struct err *e)
{
	sqlite3_stmt *s = db_query(h, e,
		"WITH RECURSIVE below(id) AS (SELECT k.id FROM medium k JOIN medium p ON p.id = k.parent WHERE p.uuid "
		"= ?"
		" UNION SELECT k.id FROM medium k JOIN below b ON k.parent = b.id)"
		" SELECT DISTINCT v.uuid FROM machine v JOIN controller c ON c.machine = v.id"
		" JOIN attachment a ON a.controller = c.id JOIN below b ON b.id = a.medium",
		"s", m->uuid);
	int r = s ? 1 : -1;

	while (r > 0 && (r = db_step(h, s, e)) > 0)
		if (vm_locked(h, db_text(s, 0)))
			m->in_use_below = true;
	sqlite3_finalize(s);
	return r;
}

static int
load_relations(struct host *h, struct host_medium *m, struct err *e)
{
	return load_users(h, m, e) || load_children(h, m, e) || load_properties(h, m, e) ||
			       (m->child_count && load_use_below(h, m, e))
		       ? -1
		       : 0;
}

#define MEDIUM_COLUMNS                                                                                                 \
	"SELECT uuid, path, format, variant, size, description, kind, autoreset,"                                      \
	" (SELECT p.uuid FROM medium p WHERE p.id = medium.parent) FROM medium "

static void
medium_fill(struct host_medium *m, enum host_device type, sqlite3_stmt *s)
{
	memset(m, 0, sizeof(*m));
	m->type = type;
	snprintf(m->uuid, sizeof(m->uuid), "%s", db_text(s, 0));
	m->path = xstrdup(db_text(s, 1));
	m->format = xstrdup(db_text(s, 2));
	m->variant = xstrdup(db_text(s, 3));
	m->size = (uint64_t)sqlite3_column_int64(s, 4);
	m->description = xstrdup(db_text(s, 5));
	m->kind = (enum host_medium_kind)MAX(host_medium_kind_of(db_text(s, 6)), 0);
	m->autoreset = sqlite3_column_int(s, 7);
	snprintf(m->parent, sizeof(m->parent), "%s", db_text(s, 8));
	look_at_file(m);
}

/* Move what reads through to media[at], with all below it, right behind it. Returns behind the last of them. */
static size_t
gather_children(struct host_medium *media, size_t count, size_t at)
{
	size_t to = at + 1;

	for (size_t i = to; i < count; i++) {
		struct host_medium m = media[i];

		if (strcmp(m.parent, media[at].uuid))
			continue;
		memmove(&media[to + 1], &media[to], (i - to) * sizeof(m));
		media[to] = m;
		to = gather_children(media, count, to);
		i = MAX(i, to - 1);
	}
	return to;
}

/* Children follow their parent. */
static void
sort_tree(struct host_medium *media, size_t count)
{
	for (size_t i = 0; i < count;)
		i = gather_children(media, count, i);
}

int
host_media_load(struct host *h, enum host_device type, struct host_medium **out, size_t *count, struct err *e)
{
	sqlite3_stmt *s = db_query(h, e, MEDIUM_COLUMNS "WHERE type = ? ORDER BY id", "s", medium_type_word(type));
	int r = s ? 1 : -1;

	*out = NULL;
	*count = 0;
	while (r > 0 && (r = db_step(h, s, e)) > 0) {
		*out = realloc(*out, (*count + 1) * sizeof(**out));
		if (!*out)
			abort();
		medium_fill(&(*out)[(*count)++], type, s);
		if (load_relations(h, &(*out)[*count - 1], e))
			r = -1;
	}
	sqlite3_finalize(s);
	if (r < 0)
		host_media_free(*out, *count);
	else
		sort_tree(*out, *count);
	return r < 0 ? -1 : 0;
}

struct host_medium *
host_medium_load(struct host *h, enum host_device type, const char *id, struct err *e)
{
	struct host_medium *m = xcalloc(1, sizeof(*m));
	char text[37], *abs = host_absolute_path(id);
	struct uuid u;
	bool is_uuid = uuid_parse(id, &u);
	sqlite3_stmt *s;
	int r;

	if (is_uuid)
		uuid_text(&u, text);
	s = db_query(h, e,
		is_uuid ? MEDIUM_COLUMNS "WHERE type = ? AND uuid = ?" : MEDIUM_COLUMNS "WHERE type = ? AND path = ?",
		"ss", medium_type_word(type), is_uuid ? text : abs);
	r = s ? db_step(h, s, e) : -1;
	if (r > 0) {
		medium_fill(m, type, s);
		r = load_relations(h, m, e);
	} else if (!r && is_uuid) {
		r = unknown_uuid(type, text, e);
	} else if (!r) {
		r = probe_file(h, type, abs, m, e);
		if (!r)
			look_at_file(m);
	}
	sqlite3_finalize(s);
	free(abs);
	if (!r)
		return m;
	host_medium_free(m);
	return NULL;
}

/* ---- creating ---- */

static char *
with_suffix(const char *path, const char *suffix)
{
	const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path;

	return strchr(name, '.') ? xstrdup(path) : xasprintf("%s%s", path, suffix);
}

/* The parent is registered by this, too. */
static int
create_diff(struct host *h, const struct host_medium_create *c, const char *path, const char *format, struct err *e)
{
	char uuid[37], *parent = NULL, *parent_format = NULL;
	struct block_finder f = medium_finder(h);
	struct block *p;
	int r = -1;

	if (c->fixed || c->split || c->stream)
		return err_set(e, ERR_UNSUPPORTED, "A differencing image cannot be fixed, split or stream-optimized");
	if (medium_get(h, HOST_DISK, c->parent, uuid, &parent, &parent_format, e))
		return -1;
	/* The child names the parent's format: it has to be what the registry says, not what a guest may have written.
	 */
	for (char *q = parent_format; *q; q++)
		*q = (char)(*q >= 'A' && *q <= 'Z' ? *q + 32 : *q);
	p = block_open_with(parent, parent_format, BLOCK_RDONLY, &f, e);
	block_close(p);
	if (p)
		r = block_create_diff(parent, parent_format, path, format, NULL, e);
	free(parent);
	free(parent_format);
	return r;
}

static int
create_image(struct host *h, const struct host_medium_create *c, const char *path, const char *format, struct err *e)
{
	struct media_job *job = NULL;
	struct block_create bc = {
		.path = path,
		.format = format,
		.fixed = c->fixed,
		.split = c->split,
		.stream = c->stream,
		.size = (c->size + 511) & ~511ull,
		.progress = c->progress,
		.opaque = c->opaque,
	};
	char *dir = xstrdup(path);
	struct stat st;
	int r;

	*strrchr(dir, '/') = 0;
	if (!lstat(path, &st))
		r = err_set(e, ERR_FILE,
			"Could not create the medium storage unit '%s'.\n%s: cannot create image '%s' "
			"(VERR_ALREADY_EXISTS)",
			path, find_image_format(format)->name, path);
	else
		r = *dir && stat(dir, &st) ? dir_make(dir, 0755, e) : 0;
	free(dir);
	if (r || !(job = media_job_begin(h, "createmedium", path, e)))
		return -1;
	r = c->parent ? create_diff(h, c, path, format, e) : block_create(&bc, e);
	media_job_end(job);
	return r ? err_wrap(e, "Could not create the medium storage unit '%s'", path) : 0;
}

static int
choose_format(const struct host_medium_create *c, const char **format, const char **suffix, struct err *e)
{
	const char *wanted = c->format ? c->format : c->type == HOST_DISK ? "VDI" : "RAW";
	const struct image_format *f = find_image_format(wanted);

	if (!f)
		return err_set(e, ERR_UNSUPPORTED,
			"Images of the format '%s' cannot be created: VDI, VMDK, VHD, QCOW2 and RAW can", wanted);
	if (c->type != HOST_DISK && strcmp(f->format, "raw"))
		return err_set(
			e, ERR_UNSUPPORTED, "An image of a floppy or optical disc cannot have the format '%s'", wanted);
	*format = f->format;
	*suffix = c->type == HOST_DVD ? ".iso" : f->suffix;
	return 0;
}

/* An image that was removed behind our back and is made anew replaces the old entry. */
static int
forget_stale(struct host *h, enum host_device type, const char *path, struct err *e)
{
	char uuid[37], *p = NULL, *f = NULL;
	int r = find(h, type, "path", path, uuid, &p, &f, e);

	free(p);
	free(f);
	if (r <= 0)
		return r;
	if (db_run(h, NULL, "DELETE FROM medium WHERE uuid = ?", "s", uuid))
		return err_set(
			e, ERR_IN_USE, "The medium '%s' {%s} is missing and still attached to a machine", path, uuid);
	return 0;
}

int
host_medium_create(struct host *h, const struct host_medium_create *c, char uuid[37], struct err *e)
{
	const char *format = NULL, *suffix = NULL;
	char *abs, *path, *p = NULL, *f = NULL;
	int r;

	if (choose_format(c, &format, &suffix, e))
		return -1;
	if (c->size > (1ull << 50))
		return err_set(e, ERR_INVALID, "A medium of %llu bytes is larger than the 1 PiB there can be",
			(unsigned long long)c->size);
	abs = host_absolute_path(c->path);
	path = with_suffix(abs, suffix);
	free(abs);
	/* The image first, outside of a transaction: a large fixed one takes its time. */
	r = create_image(h, c, path, format, e);
	if (!r) {
		r = db_begin(h, e) || forget_stale(h, c->type, path, e);
		if (!r && c->type != HOST_DVD)
			r = medium_get(h, c->type, path, uuid, &p, &f, e);
		r = r || db_commit(h, e) ? -1 : 0;
		if (r) {
			db_rollback(h);
			block_remove(path, NULL);
		}
	}
	free(p);
	free(f);
	free(path);
	return r;
}

/* ---- closing ---- */

static int
in_use(const struct host_medium *m, bool deleting, struct err *e)
{
	struct str list = { 0 };

	if (m->child_count)
		return err_set(e, ERR_IN_USE, "Cannot close medium '%s' because it has %d child media", m->path,
			m->child_count);
	if (!m->users)
		return 0;
	if (!deleting)
		return err_set(e, ERR_IN_USE,
			"Medium '%s' cannot be closed because it is still attached to %d virtual machines", m->path,
			m->users);
	for (int i = 0; i < m->users; i++)
		str_addf(&list, "%s%s", i ? ", " : "", m->user_uuids[i]);
	err_set(e, ERR_IN_USE,
		"Cannot delete storage: medium '%s' is still attached to the following %d virtual machine(s): %s",
		m->path, m->users, list.s);
	str_free(&list);
	return -1;
}

static int
medium_close_failed(struct host_medium *m, struct err *e)
{
	host_medium_free(m);
	return err_wrap(e, "Could not delete the medium storage unit");
}

int
host_medium_close(struct host *h, enum host_device type, const char *id, bool delete_file, struct err *e)
{
	struct host_medium *m;
	int r = -1;

	if (db_begin(h, e))
		return -1;
	m = host_medium_load(h, type, id, e);
	if (!m || in_use(m, delete_file, e))
		goto out;
	if (db_run(h, e, "DELETE FROM medium WHERE uuid = ?", "s", m->uuid))
		goto out;
	r = db_commit(h, e);
	/* Behind the commit: a file without an entry can be registered again, an entry without a file is lost. */
	if (!r && delete_file && !m->missing && block_remove(m->path, e))
		return medium_close_failed(m, e);
	if (!r) {
		host_medium_free(m);
		return 0;
	}
out:
	if (r)
		db_rollback(h);
	host_medium_free(m);
	return r;
}
