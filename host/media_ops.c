/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Work on media: cloning, converting, resizing, compacting, moving, encrypting, their kinds and properties.
 *
 * Each of them leaves, wherever it is cut, either what was there before or what was asked for. New images are made
 * under a note (media_job.c). What replaces an image is made in a directory of its own beside it, ".lodge-XXXXXX",
 * under the same name, and renamed over it when it is on stable storage. Resizing and compacting are safe in place
 * (block/).
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

#include "block/block.h"
#include "host/chain.h"

static struct block_progress
progress_of(const struct host_progress *p)
{
	return p ? (struct block_progress){ p->percent, p->stopped, p->opaque } : (struct block_progress){ 0 };
}

/* The registered disk `id`, which no running machine has. NULL and *e. */
static struct host_medium *
idle_medium(struct host *h, enum host_device type, const char *id, struct err *e)
{
	char uuid[37], *path = NULL, *format = NULL;
	struct host_medium *m = NULL;

	if (!db_begin(h, e)) {
		if (medium_get(h, type, id, uuid, &path, &format, e) || db_commit(h, e))
			db_rollback(h);
		else
			m = host_medium_load(h, type, uuid, e);
	}
	free(path);
	free(format);
	if (m && (m->in_use || m->in_use_below)) {
		err_set(e, ERR_OBJECT_STATE, "Medium '%s' is locked for %s by a running machine", m->path,
			m->in_use ? "writing" : "reading");
		host_medium_free(m);
		return NULL;
	}
	return m;
}

static struct block *
open_medium(struct host *h, const struct host_medium *m, int flags, struct err *e)
{
	struct block_finder f = medium_finder(h);
	char *format = xstrlower(m->format);
	/* A raw optical disc is an ISO for the registry. */
	struct block *b = block_open_with(m->path, m->type == HOST_DVD ? NULL : format, flags, &f, e);

	free(format);
	return b;
}

/* An encrypted disk whose data is to be read. */
static int
unlock(struct block *b, const struct host_medium *m, const char *password, struct err *e)
{
	struct block_info info;

	block_get_info(b, &info);
	if (!info.locked)
		return 0;
	if (!password)
		return err_set(e, ERR_PASSWORD,
			"'%s' is encrypted: its password is needed (--password FILE, or - for a prompt)", m->path);
	return block_unlock(b, password, e);
}

/* ---- a new image with the contents of another one ---- */

struct target {
	const char *path, *format;
	bool fixed, split, stream;
	const struct uuid *uuid;
	uint64_t size;				  /* at least the source's */
	const char *keystore, *key_id, *password; /* to be encrypted; or NULL */
};

static int
stamp_key(const struct target *t, struct err *e)
{
	struct block *b = block_open(t->path, t->format, BLOCK_UNSAFE, e);
	int r = b ? block_set_text(b, "CRYPT/KeyId", t->key_id, e) : -1;

	if (!r)
		r = block_set_text(b, "CRYPT/KeyStore", t->keystore, e);
	block_close(b);
	return r;
}

/* The copy of an encrypted disk has its key and its password. free() both. */
struct key_of {
	char *store, *id;
};

static void
take_key(struct target *t, struct key_of *k, struct block *from, const char *password)
{
	k->store = block_get_text(from, "CRYPT/KeyStore");
	k->id = block_get_text(from, "CRYPT/KeyId");
	t->keystore = k->store;
	t->key_id = k->store && k->id ? k->id : "";
	t->password = password;
}

static void
free_key(struct key_of *k)
{
	free(k->store);
	free(k->id);
}

/* Nothing is left on failure. */
static int
copy_to(struct block *from, const struct target *t, const struct block_progress *p, struct err *e)
{
	struct block_create c = { .path = t->path,
		.format = t->format,
		.fixed = t->fixed,
		.split = t->split,
		.uuid = t->uuid,
		.size = t->size,
		.unsafe = true };
	struct block *to;
	int r;

	if (t->stream)
		return block_copy_stream(from, &c, p, e);
	if (block_create(&c, e))
		return -1;
	r = t->keystore ? stamp_key(t, e) : 0;
	to = r ? NULL : block_open(t->path, t->format, BLOCK_UNSAFE, e);
	r = to ? 0 : -1;
	if (!r && t->keystore)
		r = block_unlock(to, t->password, e);
	if (!r)
		r = block_copy(&(struct block_copy){ .from = from, .to = to, .sync = true, .progress = p }, e);
	block_close(to);
	if (r)
		block_remove(t->path, NULL);
	return r ? -1 : 0;
}

static uint64_t
size_of(struct block *b)
{
	struct block_info info;

	block_get_info(b, &info);
	return info.size;
}

/* ---- in the place of another image ---- */

/* Names for a directory beside `path`, and for a file in it with the same name; free() both. */
static void
own_directory(const char *path, char **dir, char **file)
{
	const char *slash = strrchr(path, '/');
	struct uuid u = uuid_random();
	char text[37];

	uuid_text(&u, text);
	*dir = xasprintf("%.*s/.lodge-%.8s", (int)(slash - path), path, text);
	*file = xasprintf("%s%s", *dir, slash);
}

static int
sync_directory(const char *path)
{
	char *dir = xasprintf("%.*s", (int)(strrchr(path, '/') - path), path);
	int fd = open(*dir ? dir : "/", O_RDONLY | O_DIRECTORY | O_CLOEXEC), r = fd < 0 || fsync(fd) ? -errno : 0;

	if (fd >= 0)
		close(fd);
	free(dir);
	return r;
}

/*
 * The image at `path` is replaced by the contents of `from`. `t` without its path. `then` (may be NULL) is done while
 * the note is still there: when it was not, because of a kill, media_recover() knows what to do.
 */
static int
replace_image(struct host *h, const char *what, struct block *from, const char *path, struct target t,
	int (*then)(struct host *h, const char *path, struct err *e), const struct block_progress *p, struct err *e)
{
	struct media_job *job = NULL;
	char *dir, *file;
	struct stat st;
	int r = -1;

	if (t.split || (t.fixed && !strcmp(t.format, "vmdk")))
		return err_set(e, ERR_UNSUPPORTED, "'%s' has several files and cannot be replaced; clone it", path);
	own_directory(path, &dir, &file);
	t.path = file;
	job = media_job_begin(h, what, file, e);
	if (job && mkdir(dir, 0700))
		err_sys(e, ERR_FILE, errno, "The directory '%s' cannot be made", dir);
	else if (job)
		r = copy_to(from, &t, p, e);
	if (!r && !stat(path, &st) && chmod(file, st.st_mode & 0777))
		r = err_sys(e, ERR_FILE, errno, "'%s' cannot get its permissions", file);
	if (!r && (rename(file, path) || sync_directory(path)))
		r = err_sys(e, ERR_FILE, errno, "'%s' cannot be replaced", path);
	if (r)
		unlink(file);
	rmdir(dir);
	if (!r && then)
		r = then(h, path, e);
	media_job_end(job);
	free(dir);
	free(file);
	return r;
}

/* ---- clonemedium ---- */

static const char *
suffix_of(const char *format)
{
	return !strcmp(format, "raw")	  ? ".img"
	       : !strcmp(format, "vmdk")  ? ".vmdk"
	       : !strcmp(format, "vhd")	  ? ".vhd"
	       : !strcmp(format, "qcow2") ? ".qcow2"
					  : ".vdi";
}

/* As block/ names it; NULL and *e. */
static const char *
format_word(const char *wanted, struct err *e)
{
	static const char *const words[][2] = { { "VDI", "vdi" }, { "VMDK", "vmdk" }, { "VHD", "vhd" },
		{ "QCOW2", "qcow2" }, { "QCOW", "qcow2" }, { "RAW", "raw" } };

	for (size_t i = 0; i < ARRAY_LEN(words); i++)
		if (!strcasecmp(wanted, words[i][0]))
			return words[i][1];
	err_set(e, ERR_UNSUPPORTED, "Images of the format '%s' cannot be created: VDI, VMDK, VHD, QCOW2 and RAW can",
		wanted);
	return NULL;
}

static char *
with_suffix(const char *path, const char *format)
{
	const char *name = strrchr(path, '/') + 1;

	return strchr(name, '.') ? xstrdup(path) : xasprintf("%s%s", path, suffix_of(format));
}

static int
refuse_existing(const char *path, const char *format, struct err *e)
{
	struct stat st;
	char *f;

	if (lstat(path, &st))
		return 0;
	f = xstrupper(format);
	err_set(e, ERR_FILE,
		"Could not create the clone medium '%s'.\n%s: cannot create image '%s' (VERR_ALREADY_EXISTS)", path, f,
		path);
	free(f);
	return -1;
}

static int
parent_directory(const char *path, struct err *e)
{
	char *dir = xasprintf("%.*s", (int)(strrchr(path, '/') - path), path);
	struct stat st;
	int r = *dir && stat(dir, &st) ? dir_make(dir, 0755, e) : 0;

	free(dir);
	return r;
}

static int
clone_new(struct host *h, const struct host_medium_clone *c, struct block *from, const char *format, char uuid[37],
	struct err *e)
{
	char *abs = host_absolute_path(c->to), *path = with_suffix(abs, format), *p = NULL, *f = NULL;
	struct block_progress progress = progress_of(c->progress);
	struct uuid u = uuid_random();
	struct target t = { .path = path,
		.format = format,
		.fixed = c->fixed,
		.split = c->split,
		.stream = c->stream,
		.uuid = &u,
		.size = size_of(from) };
	struct media_job *job = NULL;
	struct key_of key;
	int r = -1;

	free(abs);
	take_key(&t, &key, from, c->password);
	if (!refuse_existing(path, format, e) && !parent_directory(path, e) &&
		(job = media_job_begin(h, "clonemedium", path, e)))
		r = copy_to(from, &t, &progress, e);
	if (!r && (db_begin(h, e) || medium_get(h, c->type, path, uuid, &p, &f, e) || db_commit(h, e))) {
		db_rollback(h);
		block_remove(path, NULL);
		r = -1;
	}
	media_job_end(job);
	free_key(&key);
	free(path);
	free(p);
	free(f);
	return r;
}

/* The target keeps its format, variant, UUID and path, and its size unless that is too small. */
static int
clone_existing(struct host *h, const struct host_medium_clone *c, struct block *from, char uuid[37], struct err *e)
{
	struct block_progress progress = progress_of(c->progress);
	struct host_medium *m = idle_medium(h, c->type, c->to, e);
	struct target t = { 0 };
	struct key_of key;
	struct uuid u;
	char *format;
	int r = -1;

	if (!m)
		return -1;
	format = xstrlower(m->format);
	uuid_parse(m->uuid, &u);
	t.format = format;
	t.uuid = &u;
	t.fixed = !strcmp(m->variant, "fixed") || str_ends(m->variant, "Flat");
	t.split = str_starts(m->variant, "twoGb");
	t.size = MAX(m->size, size_of(from));
	take_key(&t, &key, from, c->password);
	if (m->has_parent || *m->parent || m->child_count)
		err_set(e, ERR_UNSUPPORTED,
			"'%s' has a parent or children and cannot be written over: clone to a new medium", m->path);
	else if (m->encrypted)
		err_set(e, ERR_UNSUPPORTED, "'%s' is encrypted and cannot be written over: clone to a new medium",
			m->path);
	else
		r = replace_image(h, "clonemedium", from, m->path, t, medium_sync_key, &progress, e);
	if (!r)
		r = db_run(h, e, "UPDATE medium SET size = ? WHERE uuid = ?", "ls", (int64_t)t.size, m->uuid);
	snprintf(uuid, 37, "%s", m->uuid);
	free_key(&key);
	free(format);
	host_medium_free(m);
	return r;
}

int
host_medium_clone(struct host *h, const struct host_medium_clone *c, char uuid[37], char **format, struct err *e)
{
	struct host_medium *m = host_medium_load(h, c->type, c->from, e);
	struct block *from = NULL;
	const char *word = NULL;
	int r = -1;

	*format = NULL;
	if (!m)
		return -1;
	if (m->in_use)
		err_set(e, ERR_OBJECT_STATE, "Medium '%s' is locked for writing by a running machine", m->path);
	else
		word = format_word(c->format ? c->format : !strcmp(m->format, "VHDX") ? "VHD" : m->format, e);
	if (word)
		from = open_medium(h, m, BLOCK_RDONLY, e);
	if (from && m->encrypted && (c->stream || !strcmp(word, "vhd") || !strcmp(word, "raw")))
		err_set(e, ERR_UNSUPPORTED,
			"'%s' is encrypted, and %s cannot be: clone it to VDI, VMDK or QCOW2, or decrypt it before",
			m->path, c->stream ? "a stream-optimized image" : "an image of that format");
	else if (from && !unlock(from, m, c->password, e))
		r = c->existing ? clone_existing(h, c, from, uuid, e) : clone_new(h, c, from, word, uuid, e);
	block_close(from);
	if (!r)
		*format = xstrupper(word);
	host_medium_free(m);
	return r;
}

/* ---- convertfromraw ---- */

/* What comes from a pipe goes straight into the image, in order. */
static int
write_stream(const struct host_convert *c, struct block *to, const struct block_progress *p, struct err *e)
{
	const size_t piece = 1 << 20;
	uint8_t *buf = malloc(piece);
	int r = buf ? 0 : -ENOMEM;

	for (uint64_t off = 0, n; off < c->size && !r; off += n) {
		ssize_t got;

		n = MIN(piece, c->size - off);
		memset(buf, 0, n);
		got = read_full(c->fd, buf, n);
		r = got < 0 ? (int)got : block_write(to, buf, n, off);
		if (p->percent)
			p->percent(p->opaque, (int)(off / 1024 * 100 / (c->size / 1024 + 1)));
		if (p->stopped && p->stopped(p->opaque))
			r = -ECANCELED;
		if (got >= 0 && (uint64_t)got < n)
			break; /* the rest of the disk is zeroes */
	}
	free(buf);
	if (!r)
		r = block_flush(to);
	return r == -ECANCELED ? err_set(e, ERR_FAILED, "The copying was cancelled")
	       : r	       ? err_sys(e, ERR_FILE, r, "The disk cannot be written to '%s'", c->to)
			       : 0;
}

static int
convert_pipe(const struct host_convert *c, const struct target *t, const struct block_progress *p, struct err *e)
{
	struct block_create bc = { .path = t->path,
		.format = t->format,
		.fixed = t->fixed,
		.split = t->split,
		.uuid = t->uuid,
		.size = t->size };
	struct block *to;
	int r;

	if (t->stream)
		return err_set(e, ERR_UNSUPPORTED, "What comes from a pipe cannot become a stream-optimized image");
	if (block_create(&bc, e))
		return -1;
	to = block_open(t->path, t->format, BLOCK_DETECT_ZEROES, e);
	r = to ? write_stream(c, to, p, e) : -1;
	block_close(to);
	if (r)
		block_remove(t->path, NULL);
	return r;
}

int
host_convert_raw(const struct host_convert *c, struct err *e)
{
	const char *format = format_word(c->format ? c->format : "VDI", e);
	char *path = host_absolute_path(c->to);
	struct block_progress p = progress_of(c->progress);
	struct uuid u = uuid_random();
	struct target t = { .path = path,
		.format = format,
		.fixed = c->fixed,
		.split = c->split,
		.stream = c->stream,
		.uuid = &u,
		.size = (c->size + 511) & ~511ull };
	struct media_job *job = NULL;
	struct block *from = NULL;
	struct host *h = NULL;
	int r = -1;

	if (!format || refuse_existing(path, format, e))
		goto out;
	if (c->uuid && !uuid_parse(c->uuid, &u)) {
		err_set(e, ERR_INVALID, "Invalid UUID '%s'", c->uuid);
		goto out;
	}
	h = host_open(e);
	job = h ? media_job_begin(h, "convertfromraw", path, e) : NULL;
	if (!job)
		goto out;
	if (!c->from) {
		r = convert_pipe(c, &t, &p, e);
		goto out;
	}
	from = block_open(c->from, "raw", BLOCK_RDONLY, e);
	if (from) {
		t.size = size_of(from);
		r = copy_to(from, &t, &p, e);
	}
out:
	block_close(from);
	media_job_end(job);
	host_close(h);
	free(path);
	return r;
}

/* ---- modifymedium ---- */

/* What VirtualBox forbids: images with a parent are normal, and what machines have attached stays what it is. */
static int
check_kind(const struct host_medium *m, enum host_medium_kind k, struct err *e)
{
	if (m->type != HOST_DISK)
		return err_set(e, ERR_UNSUPPORTED, "Only hard disks have a type that can be changed");
	if (m->kind == k)
		return 0;
	if (*m->parent)
		return err_set(e, ERR_UNSUPPORTED,
			"Cannot change the type of medium '%s' because it is a differencing medium", m->path);
	if (m->child_count && k != HOST_NORMAL && k != HOST_IMMUTABLE && k != HOST_MULTIATTACH)
		return err_set(e, ERR_IN_USE, "Cannot change the type of medium '%s' because it has %d child media",
			m->path, m->child_count);
	if (m->users > 1 || (m->users && (m->kind == HOST_SHAREABLE || k == HOST_IMMUTABLE || k == HOST_MULTIATTACH)))
		return err_set(e, ERR_IN_USE,
			"Cannot change the type of medium '%s' because it is attached to %d virtual machines", m->path,
			m->users);
	if (k == HOST_SHAREABLE && strcmp(m->variant, "fixed") && strcmp(m->variant, "monolithicFlat"))
		return err_set(e, ERR_INVALID,
			"Cannot change type for medium '%s' to 'Shareable' since it is a dynamic medium storage unit",
			m->path);
	return 0;
}

int
host_medium_set_kind(struct host *h, enum host_device type, const char *id, enum host_medium_kind k, struct err *e)
{
	struct host_medium *m = idle_medium(h, type, id, e);
	int r = m ? check_kind(m, k, e) : -1;

	if (!r)
		r = db_run(h, e, "UPDATE medium SET kind = ? WHERE uuid = ?", "ss", host_medium_kind_word(k), m->uuid);
	host_medium_free(m);
	return r;
}

int
host_medium_set_autoreset(struct host *h, const char *id, bool on, struct err *e)
{
	struct host_medium *m = idle_medium(h, HOST_DISK, id, e);
	int r = m ? 0 : -1;

	if (!r && !*m->parent)
		r = err_set(e, ERR_UNSUPPORTED, "Medium '%s' is not a differencing medium", m->path);
	if (!r)
		r = db_run(h, e, "UPDATE medium SET autoreset = ? WHERE uuid = ?", "is", (int)on, m->uuid);
	host_medium_free(m);
	return r;
}

int
host_medium_set_description(struct host *h, enum host_device type, const char *id, const char *text, struct err *e)
{
	char uuid[37], *path = NULL, *format = NULL;
	int r = db_begin(h, e);

	if (!r && (medium_get(h, type, id, uuid, &path, &format, e) ||
			  db_run(h, e, "UPDATE medium SET description = ? WHERE uuid = ?", "ss", text, uuid) ||
			  db_commit(h, e))) {
		db_rollback(h);
		r = -1;
	}
	free(path);
	free(format);
	return r;
}

int
host_medium_set_property(
	struct host *h, enum host_device type, const char *id, const char *key, const char *value, struct err *e)
{
	char uuid[37], *path = NULL, *format = NULL;
	int r = db_begin(h, e);

	if (!r && str_starts(key, "CRYPT/"))
		r = err_set(e, ERR_ACCESS,
			"The property '%s' belongs to the encryption of the medium: use encryptmedium", key);
	if (!r && (medium_get(h, type, id, uuid, &path, &format, e) || medium_put_property(h, uuid, key, value, e) ||
			  db_commit(h, e)))
		r = -1;
	if (r)
		db_rollback(h);
	free(path);
	free(format);
	return r;
}

/*
 * What the format cannot do in place: the image is written anew, without what is zero, and with `size` bytes. Only for
 * one that stands alone: children know their parent by what it was.
 */
static int
rebuild(struct host *h, const char *what, const struct host_medium *m, uint64_t size, const char *password,
	const struct block_progress *p, struct err *e)
{
	struct err why = *e;
	struct block *from;
	struct uuid u;
	char *format;
	struct target t = { .uuid = &u, .size = size };
	struct key_of key;
	int r;

	if (*m->parent || m->child_count || (strcmp(m->variant, "dynamic") && strcmp(m->variant, "monolithicSparse")))
		return -1; /* with what the format said */
	from = open_medium(h, m, BLOCK_RDONLY, e);
	if (!from)
		return -1;
	format = xstrlower(m->format);
	t.format = format;
	uuid_parse(m->uuid, &u);
	take_key(&t, &key, from, password);
	r = size < m->size || unlock(from, m, password, e) ? -1 : replace_image(h, what, from, m->path, t, NULL, p, e);
	if (size < m->size)
		*e = why;
	block_close(from);
	free_key(&key);
	free(format);
	return r;
}

int
host_medium_resize(struct host *h, const char *id, uint64_t size, const char *password, const struct host_progress *p,
	struct err *e)
{
	struct host_medium *m = idle_medium(h, HOST_DISK, id, e);
	struct block_progress progress = progress_of(p);
	struct block *b = NULL;
	int r = -1;

	size = (size + 511) & ~511ull;
	if (m && m->child_count)
		err_set(e, ERR_OBJECT_STATE, "Cannot resize medium '%s' because it has %d child media", m->path,
			m->child_count);
	else if (m)
		b = open_medium(h, m, 0, e);
	if (b && size < m->size && m->encrypted && unlock(b, m, password, e)) {
		block_close(b);
		b = NULL;
	}
	if (b)
		r = block_resize(b, size, e);
	block_close(b);
	if (b && r && e->code == ERR_UNSUPPORTED)
		r = rebuild(h, "modifymedium --resize", m, size, password, &progress, e);
	if (!r)
		r = db_run(h, e, "UPDATE medium SET size = ? WHERE uuid = ?", "ls", (int64_t)size, m->uuid);
	host_medium_free(m);
	return r;
}

int
host_medium_compact(struct host *h, const char *id, const char *password, const struct host_progress *p, struct err *e)
{
	struct host_medium *m = idle_medium(h, HOST_DISK, id, e);
	struct block *b = m ? open_medium(h, m, 0, e) : NULL;
	struct block_progress progress = progress_of(p);
	int r = b && !unlock(b, m, password, e) ? block_compact(b, &progress, e) : -1;

	block_close(b);
	if (b && r && e->code == ERR_UNSUPPORTED)
		r = rebuild(h, "modifymedium --compact", m, m->size, password, &progress, e);
	host_medium_free(m);
	return r;
}

/* ---- moving ---- */

/* Children find it where it is now; those that cannot be told (in use, gone) find it through the registry. */
static void
tell_children(struct host *h, const struct host_medium *m, const char *path)
{
	struct block_finder f = medium_finder(h);

	for (int i = 0; i < m->child_count; i++) {
		struct host_medium *k = host_medium_load(h, HOST_DISK, m->children[i], NULL);

		if (k && !k->missing)
			block_rebase(k->path, path, &f, NULL);
		host_medium_free(k);
	}
}

/* Its own parent, too: a relative path may have been right only at the old place. */
static void
tell_itself(struct host *h, const struct host_medium *m, const char *path)
{
	struct host_medium *p = *m->parent ? host_medium_load(h, HOST_DISK, m->parent, NULL) : NULL;
	struct block_finder f = medium_finder(h);

	if (p)
		block_rebase(path, p->path, &f, NULL);
	host_medium_free(p);
}

static int
note_place(struct host *h, const struct host_medium *m, const char *path, struct err *e)
{
	return db_run(h, e, "UPDATE medium SET path = ? WHERE uuid = ?", "ss", path, m->uuid);
}

/* The names of the files of the image in its directory, the image itself last; ends with NULL. */
static char **
files_of(struct host *h, const struct host_medium *m, struct err *e)
{
	struct block_finder f = medium_finder(h);
	struct block *b = block_open_with(m->path, NULL, BLOCK_RDONLY | BLOCK_NO_PARENT, &f, e);
	char **names = xcalloc(4100, sizeof(*names));
	const char *part;
	int n = 0;

	if (!b) {
		free(names);
		return NULL;
	}
	for (int i = 0; n < 4098 && (part = block_part(b, i)); i++)
		if (*part)
			names[n++] = xstrdup(part);
	names[n] = xstrdup(strrchr(m->path, '/') + 1);
	block_close(b);
	return names;
}

static void
free_names(char **names)
{
	for (int i = 0; names && names[i]; i++)
		free(names[i]);
	free(names);
}

/* A second name for the file where that can be, else a copy. */
static int
place_file(const char *from, const char *to, struct err *e)
{
	if (!link(from, to))
		return 0;
	if (errno == EEXIST)
		return err_sys(e, ERR_FILE, EEXIST, "The file '%s' cannot be made", to);
	return clone_file(from, to, e);
}

static int
place_files(const struct host_medium *m, char **names, const char *to, struct err *e)
{
	int from_dir = (int)(strrchr(m->path, '/') - m->path), to_dir = (int)(strrchr(to, '/') - to), r = 0, i;

	for (i = 0; names[i] && !r; i++) {
		char *a = xasprintf("%.*s/%s", from_dir, m->path, names[i]);
		char *b = names[i + 1] ? xasprintf("%.*s/%s", to_dir, to, names[i]) : xstrdup(to);

		r = place_file(a, b, e);
		free(a);
		free(b);
	}
	for (i -= r ? 2 : i + 1; i >= 0; i--) {
		char *b = xasprintf("%.*s/%s", to_dir, to, names[i]);

		unlink(b);
		free(b);
	}
	return r ? -1 : sync_directory(to) ? err_sys(e, ERR_FILE, errno, "'%s' cannot be made stable", to) : 0;
}

static void
remove_files(const struct host_medium *m, char **names)
{
	for (int i = 0; names[i]; i++) {
		char *a = xasprintf("%.*s/%s", (int)(strrchr(m->path, '/') - m->path), m->path, names[i]);

		unlink(a);
		free(a);
	}
}

/* Where `to` is, a file or a directory; free() it. */
static char *
move_target(const struct host_medium *m, const char *to)
{
	char *abs = host_absolute_path(to), *path;
	struct stat st;
	bool dir = (!stat(abs, &st) && S_ISDIR(st.st_mode)) || str_ends(to, "/");

	if (!dir && strchr(strrchr(abs, '/'), '.'))
		return abs;
	path = dir ? xasprintf("%s%s", abs, strrchr(m->path, '/'))
		   : xasprintf("%s%s", abs, strrchr(m->path, '.') ? strrchr(m->path, '.') : "");
	free(abs);
	return path;
}

int
host_medium_move(struct host *h, enum host_device type, const char *id, const char *to, const struct host_progress *p,
	char uuid[37], struct err *e)
{
	struct host_medium *m = idle_medium(h, type, id, e);
	char *path = m ? move_target(m, to) : NULL, **names = NULL;
	struct media_job *job = NULL;
	int r = -1;

	if (!m)
		return -1;
	snprintf(uuid, 37, "%s", m->uuid);
	if (strcmp(path, m->path)) {
		names = refuse_existing(path, m->format, e) || parent_directory(path, e) ? NULL : files_of(h, m, e);
		job = names ? media_job_begin(h, "modifymedium --move", path, e) : NULL;
		if (job && !place_files(m, names, path, e)) {
			r = note_place(h, m, path, e);
			if (r)
				block_remove(path, NULL);
			else
				remove_files(m, names);
		}
		media_job_end(job);
	} else {
		r = 0;
	}
	if (!r && names) {
		tell_itself(h, m, path);
		tell_children(h, m, path);
	}
	free_names(names);
	free(path);
	host_medium_free(m);
	return r;
}

int
host_medium_set_location(struct host *h, enum host_device type, const char *id, const char *to, struct err *e)
{
	struct host_medium *m = idle_medium(h, type, id, e);
	char *path = host_absolute_path(to);
	struct stat st;
	int r = m ? 0 : -1;

	if (!r && stat(path, &st))
		r = err_set(e, ERR_FILE, "Could not find file for the medium '%s' (VERR_FILE_NOT_FOUND)", path);
	if (!r)
		r = note_place(h, m, path, e);
	if (!r) {
		tell_itself(h, m, path);
		tell_children(h, m, path);
	}
	free(path);
	host_medium_free(m);
	return r;
}

int
host_image_set_uuid(const char *path, const char *uuid, struct err *e)
{
	struct uuid u = uuid_random();
	struct block *b;
	int r;

	if (uuid && !uuid_parse(uuid, &u))
		return err_set(e, ERR_INVALID, "Invalid UUID '%s'", uuid);
	b = block_open(path, NULL, BLOCK_NO_PARENT, e);
	r = b ? block_set_uuid(b, &u, e) : -1;
	block_close(b);
	return r;
}

/* ---- encryption ---- */

static const char *
property(const struct host_medium *m, const char *key)
{
	for (int i = 0; i < m->property_count; i++)
		if (!strcmp(m->properties[i].key, key))
			return m->properties[i].value;
	return NULL;
}

int
medium_sync_key(struct host *h, const char *path, struct err *e)
{
	static const char *const keys[] = { "CRYPT/KeyStore", "CRYPT/KeyId" };
	struct block *b = block_open(path, NULL, BLOCK_RDONLY | BLOCK_NO_PARENT, e);
	int r = b ? db_begin(h, e) : -1;

	for (size_t i = 0; i < ARRAY_LEN(keys) && !r; i++) {
		char *value = block_get_text(b, keys[i]);

		r = db_run(h, e,
			"DELETE FROM medium_property WHERE medium = (SELECT id FROM medium WHERE path = ?) AND key = ?",
			"ss", path, keys[i]);
		if (!r && value)
			r = db_run(h, e, "INSERT INTO medium_property SELECT id, ?, ? FROM medium WHERE path = ?",
				"sss", keys[i], value, path);
		free(value);
	}
	block_close(b);
	if (!r)
		r = db_commit(h, e);
	if (r)
		db_rollback(h);
	return r;
}

/* What the image itself carries; what is known of it while it is in use. free() it. */
static char *
keystore_of(const struct host_medium *m)
{
	struct block *b = m->in_use ? NULL : block_open(m->path, NULL, BLOCK_RDONLY | BLOCK_NO_PARENT, NULL);
	const char *known = property(m, "CRYPT/KeyStore");
	char *own = b ? block_get_text(b, "CRYPT/KeyStore") : NULL;

	block_close(b);
	return own ? own : known ? xstrdup(known) : NULL;
}

/* Only the wrapping of the key changes. */
static int
change_password(struct host *h, const struct host_medium *m, const struct host_medium_encrypt *c, struct err *e)
{
	const char *key_id = c->password_id ? c->password_id : m->password_id;
	char *old = keystore_of(m), *fresh = block_keystore_change(old ? old : "", c->password, c->fresh, e);
	struct block *b = fresh ? open_medium(h, m, 0, e) : NULL;
	int r = b ? block_set_text(b, "CRYPT/KeyStore", fresh, e) : -1;

	if (!r)
		r = block_set_text(b, "CRYPT/KeyId", key_id, e);
	block_close(b);
	if (!r)
		r = medium_sync_key(h, m->path, e);
	free(fresh);
	free(old);
	return r;
}

/* All the data is written anew, encrypted or in plain. */
static int
recode(struct host *h, const struct host_medium *m, const struct host_medium_encrypt *c, struct err *e)
{
	struct block_progress p = progress_of(c->progress);
	char *format = xstrlower(m->format), *keystore = NULL;
	struct block *from = NULL;
	struct uuid u;
	struct target t = { .format = format, .uuid = &u, .size = m->size };
	int r = 0;

	uuid_parse(m->uuid, &u);
	t.fixed = !strcmp(m->variant, "fixed") || str_ends(m->variant, "Flat");
	t.split = str_starts(m->variant, "twoGb");
	if (c->fresh) {
		keystore = block_keystore_new(c->cipher ? c->cipher : "AES-XTS256-PLAIN64", c->fresh, e);
		t.keystore = keystore;
		t.password = c->fresh;
		t.key_id = c->password_id;
		r = keystore ? 0 : -1;
	}
	from = r ? NULL : open_medium(h, m, BLOCK_RDONLY, e);
	r = from ? 0 : -1;
	if (!r && c->password)
		r = block_unlock(from, c->password, e);
	if (!r)
		r = replace_image(h, "encryptmedium", from, m->path, t, medium_sync_key, &p, e);
	block_close(from);
	free(keystore);
	free(format);
	return r;
}

int
host_medium_encrypt(struct host *h, const struct host_medium_encrypt *c, struct err *e)
{
	struct host_medium *m = idle_medium(h, HOST_DISK, c->id, e);
	int r = -1;

	if (!m)
		return -1;
	if (!c->password && !c->fresh)
		err_set(e, ERR_INVALID, "Neither an old nor a new password was given");
	else if (c->password && !m->encrypted)
		err_set(e, ERR_OBJECT_STATE, "The medium '%s' is not encrypted", m->path);
	else if (!c->password && m->encrypted)
		err_set(e, ERR_OBJECT_STATE, "The medium '%s' is encrypted already", m->path);
	else if (*m->parent || m->child_count)
		err_set(e, ERR_UNSUPPORTED,
			"'%s' is one image of a chain: encrypt a disk before its first snapshot, or clone it", m->path);
	else if (strcmp(m->format, "VDI") && strcmp(m->format, "VMDK") && strcmp(m->format, "QCOW2"))
		err_set(e, ERR_UNSUPPORTED, "Images of the format %s cannot be encrypted: VDI, VMDK and QCOW2 can",
			m->format);
	else if (c->fresh && !c->password && (!c->password_id || !*c->password_id))
		err_set(e, ERR_INVALID, "A name for the new password is needed (--newpasswordid)");
	else
		r = c->password && c->fresh && !c->cipher ? change_password(h, m, c, e) : recode(h, m, c, e);
	host_medium_free(m);
	return r;
}

int
host_medium_check_password(struct host *h, const char *id, const char *password, struct err *e)
{
	struct host_medium *m = host_medium_load(h, HOST_DISK, id, e);
	char *again = NULL, *own = m ? keystore_of(m) : NULL;
	int r = -1;

	if (!m)
		return -1;
	if (!own)
		err_set(e, ERR_OBJECT_STATE, "The medium '%s' is not encrypted", m->path);
	else if ((again = block_keystore_change(own, password, password, e)))
		r = 0;
	free(again);
	free(own);
	host_medium_free(m);
	return r;
}
