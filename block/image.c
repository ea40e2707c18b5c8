/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One image file: finding its format, locks, and the image behind it.
 *
 * Opening: the file is opened, locked, its head read, and the first format whose probe() knows the head is taken; raw
 * is what remains. Raw never claims a file that is plainly of a format we do not have: a guest would see, and write
 * over, its insides.
 *
 * Locking between processes: one OFD lock over the whole file, exclusive for writing, shared for reading. It belongs to
 * the open file, so it ends when the process does, however it ends, and two opens within one process exclude each
 * other.
 *
 * Parents. A child names its parent by a path, by the parent's UUID, or both, and remembers what the parent was when
 * the child was made (the UUID of its last change, or a number, CID). image_open_parent() tries, one after the other,
 * what the finder of the caller says (the inventory), the path, and the images in the directory of the child and the
 * two above it; the first one that carries the UUID is the parent.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "block/crypt.h"
#include "block/file.h"
#include "block/format.h"

#define DEPTH_MAX 255	/* images behind the top of a chain */
#define SEARCH_MAX 2000 /* files looked at for a parent, a directory */

static const struct block_format *const formats[] = { &block_vdi, &block_qcow2, &block_vmdk, &block_vhd, &block_vhdx,
	&block_iso, &block_raw };

/* Formats that are known and not supported: never taken for raw. */
static const struct {
	const char *name, *magic;
	size_t len;
} foreign[] = {
	{ "QCOW", "QFI\xfb", 4 },
	{ "VMDK", "COWD", 4 },
	{ "Parallels", "WithoutFreeSpace", 16 },
	{ "Parallels", "WithouFreSpacExt", 16 },
	{ "QED", "QED\0", 4 },
};

/* ---- who has the lock ---- */

/* Does /proc/<pid>/fd/<fd> refer to the file and hold a lock on it? */
static bool
fd_holds_lock(const char *pid, const char *fd, const struct stat *file)
{
	char path[64], line[256];
	struct stat st;
	bool found = false;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%.16s/fd/%.16s", pid, fd);
	if (stat(path, &st) || st.st_dev != file->st_dev || st.st_ino != file->st_ino)
		return false;
	snprintf(path, sizeof(path), "/proc/%.16s/fdinfo/%.16s", pid, fd);
	f = fopen(path, "re");
	if (!f)
		return false;
	while (!found && fgets(line, sizeof(line), f))
		found = str_starts(line, "lock:");
	fclose(f);
	return found;
}

static bool
process_holds_lock(const char *pid, const struct stat *file)
{
	char path[64];
	struct dirent *de;
	bool found = false;
	DIR *d;

	snprintf(path, sizeof(path), "/proc/%.16s/fd", pid);
	d = opendir(path);
	if (!d)
		return false;
	while (!found && (de = readdir(d)))
		found = de->d_name[0] != '.' && fd_holds_lock(pid, de->d_name, file);
	closedir(d);
	return found;
}

/* The kernel does not say who holds an OFD lock, but shows it in the holder's fdinfo. 0: none that we may look at. */
static long
lock_holder(int fd)
{
	struct stat file;
	struct dirent *de;
	long holder = 0;
	DIR *d;

	if (fstat(fd, &file))
		return 0;
	d = opendir("/proc");
	if (!d)
		return 0;
	while (!holder && (de = readdir(d)))
		if (de->d_name[0] >= '1' && de->d_name[0] <= '9' && process_holds_lock(de->d_name, &file))
			holder = strtol(de->d_name, NULL, 10);
	closedir(d);
	return holder;
}

static int
lock_file(bool writing, int fd, const char *path, struct err *e)
{
	struct flock lk = { .l_type = writing ? F_WRLCK : F_RDLCK, .l_whence = SEEK_SET };
	char by[64] = "another process";
	long holder;

	if (!fcntl(fd, F_OFD_SETLK, &lk))
		return 0;
	if (errno != EAGAIN && errno != EACCES) {
		log_warn(
			"block", "'%s' cannot be locked (%s); nothing keeps a second user away", path, strerror(errno));
		return 0;
	}
	holder = lock_holder(fd);
	if (holder == getpid())
		snprintf(by, sizeof(by), "this process (%ld)", holder);
	else if (holder)
		snprintf(by, sizeof(by), "process %ld", holder);
	return err_set(e, ERR_IN_USE, "The medium '%s' is in use: it is locked by %s", path, by);
}

int
image_lock(struct image *b, bool writing, struct err *e)
{
	int fd;

	if (lock_file(writing, b->fd, b->path, e))
		return -1;
	for (int i = 0; b->format->part_fd && (fd = b->format->part_fd(b, i)) != -1; i++)
		if (fd >= 0 && fd != b->fd && lock_file(writing, fd, b->path, e))
			return -1;
	return 0;
}

void
image_unlock(struct image *b)
{
	struct flock lk = { .l_type = F_UNLCK, .l_whence = SEEK_SET };
	int fd;

	fcntl(b->fd, F_OFD_SETLK, &lk);
	for (int i = 0; b->format->part_fd && (fd = b->format->part_fd(b, i)) != -1; i++)
		if (fd >= 0 && fd != b->fd)
			fcntl(fd, F_OFD_SETLK, &lk);
}

/* ---- open ---- */

static int
open_file(struct image *b, struct err *e)
{
	struct stat st;

	/* O_NONBLOCK: a FIFO in this place must not hang us; it means nothing for files and disks. */
	b->fd = open(b->path, (b->read_only ? O_RDONLY : O_RDWR) | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	if (b->fd < 0)
		return err_sys(e, errno == EACCES ? ERR_ACCESS : ERR_FILE, errno,
			"The medium '%s' cannot be opened for %s", b->path, b->read_only ? "reading" : "writing");
	if (fstat(b->fd, &st))
		return err_sys(e, ERR_FILE, errno, "The medium '%s' cannot be looked at", b->path);
	if (!S_ISREG(st.st_mode) && !S_ISBLK(st.st_mode))
		return err_set(e, ERR_FILE, "'%s' is neither a file nor a disk", b->path);
	return 0;
}

static int
read_head(struct image *b, struct block_head *h, struct err *e)
{
	int64_t size = file_size(b->fd);
	int r;

	if (size < 0)
		return err_sys(e, ERR_FILE, (int)size, "The size of '%s' cannot be found", b->path);
	h->len = (size_t)MIN((uint64_t)size, sizeof(h->bytes));
	r = file_pread(b->fd, h->bytes, h->len, 0);
	if (r)
		return err_sys(e, ERR_FILE, r, "The medium '%s' cannot be read", b->path);
	return 0;
}

const struct block_format *
format_by_name(const char *name)
{
	for (size_t i = 0; i < ARRAY_LEN(formats); i++)
		if (!strcasecmp(formats[i]->name, name))
			return formats[i];
	return !strcasecmp(name, "vpc") ? &block_vhd : NULL; /* as qemu calls it */
}

/* What has no head of its own may have a tail. */
static const struct block_format *
format_by_tail(struct image *b)
{
	int64_t size = file_size(b->fd);
	uint8_t tail[512];

	if (size < (int64_t)sizeof(tail) || file_pread(b->fd, tail, sizeof(tail), (uint64_t)size - sizeof(tail)))
		return NULL;
	for (size_t i = 0; i < ARRAY_LEN(formats); i++)
		if (formats[i]->probe_end && formats[i]->probe_end(tail))
			return formats[i];
	return NULL;
}

static int
find_format(struct image *b, const char *name, struct err *e)
{
	struct block_head *h;

	if (name) {
		b->format = format_by_name(name);
		if (!b->format)
			return err_set(e, ERR_UNSUPPORTED, "The medium format '%s' is not supported", name);
		return 0;
	}
	h = xcalloc(1, sizeof(*h));
	if (read_head(b, h, e)) {
		free(h);
		return -1;
	}
	for (size_t i = 0; i < ARRAY_LEN(formats) && !b->format; i++)
		if (!formats[i]->probe || formats[i]->probe(h))
			b->format = formats[i];
	for (size_t i = 0; i < ARRAY_LEN(foreign) && b->format == &block_raw; i++) {
		if (h->len < foreign[i].len || memcmp(h->bytes, foreign[i].magic, foreign[i].len))
			continue;
		free(h);
		return err_set(e, ERR_UNSUPPORTED, "'%s' is a %s image; this format is not supported yet", b->path,
			foreign[i].name);
	}
	free(h);
	if (b->format == &block_raw && format_by_tail(b))
		b->format = format_by_tail(b);
	return 0;
}

/* A format that is never written is opened for reading and locked shared, so that several machines can use one ISO. */
static int
open_as_format(struct image *b, const char *name, struct err *e)
{
	if (open_file(b, e) || find_format(b, name, e))
		return -1;
	if (b->format->read_only && !b->read_only && b->format == &block_iso) {
		close(b->fd);
		b->read_only = true;
		if (open_file(b, e))
			return -1;
	}
	if (b->format->read_only && !b->read_only)
		return err_set(e, ERR_UNSUPPORTED,
			"'%s' is a %s image, which can be read and not written here; clone it first", b->path,
			b->format->name);
	if (lock_file(!b->read_only && !(b->flags & IMAGE_LOCK_SHARED), b->fd, b->path, e))
		return -1;
	if (b->format->open(b, e))
		return -1;
	if (!(b->flags & BLOCK_SHARED) || b->format == &block_raw || !strcmp(b->variant, "fixed") ||
		str_ends(b->variant, "Flat"))
		return 0;
	b->format->close(b);
	return err_set(e, ERR_UNSUPPORTED,
		"'%s' is not a fixed image: several machines that write to it would destroy its tables", b->path);
}

/* Not of the driver's business: the handle of a file that did not open. */
static void
discard(struct image *b)
{
	if (b->fd >= 0)
		close(b->fd);
	pthread_mutex_destroy(&b->span.lock);
	free(b->path);
	free(b);
}

struct image *
image_open(const char *path, const char *format, int flags, int depth, const struct block_finder *finder, struct err *e)
{
	struct image *b = xcalloc(1, sizeof(*b));

	b->path = xstrdup(path);
	b->read_only = flags & BLOCK_RDONLY;
	b->keep_change = flags & (IMAGE_KEEP_CHANGE | BLOCK_SHARED);
	b->flags = flags & BLOCK_SHARED ? flags | IMAGE_LOCK_SHARED : flags;
	b->depth = depth;
	b->finder = finder;
	b->fd = b->span.fd = -1;
	pthread_mutex_init(&b->span.lock, NULL);
	/* An ISO that we may not write is still an ISO: find out before asking for more than is needed. */
	if (!b->read_only && access(path, W_OK) && errno == EACCES && !access(path, R_OK)) {
		b->read_only = true;
		if (!open_file(b, NULL) && !find_format(b, format, NULL) && b->format != &block_iso)
			b->read_only = false;
		if (b->fd >= 0)
			close(b->fd);
		b->format = NULL;
		b->fd = -1;
	}
	if (open_as_format(b, format, e)) {
		image_close(b->backing);
		discard(b);
		return NULL;
	}
	if (crypt_open(b, e)) {
		image_close(b);
		return NULL;
	}
	direct_open(b);
	return b;
}

void
image_close(struct image *b)
{
	while (b) {
		struct image *behind = b->backing;

		if (!b->read_only && b->format->flush(b))
			log_error("block", "'%s' could not be flushed when it was closed", b->path);
		b->format->close(b);
		crypt_close(b->crypt);
		direct_close(b);
		discard(b);
		b = behind;
	}
}

void
image_get_info(struct image *b, struct block_info *out)
{
	const char *part;
	struct stat st;

	memset(out, 0, sizeof(*out));
	out->format = b->format->name;
	out->variant = b->variant;
	out->size = b->size;
	out->read_only = b->read_only;
	out->uuid = b->uuid;
	out->path = b->path;
	out->backing = b->backing ? b->backing->path : NULL;
	out->encrypted = b->crypt;
	out->locked = crypt_locked(b->crypt);
	if (!fstat(b->fd, &st))
		out->on_disk = (uint64_t)st.st_blocks * 512;
	for (int i = 0; b->format->part && (part = b->format->part(b, i)); i++) {
		char *path = *part ? image_name_beside(b->path, part) : NULL;

		if (path && !stat(path, &st))
			out->on_disk += (uint64_t)st.st_blocks * 512;
		free(path);
	}
}

int
image_sync(struct image *b, int fd)
{
	return !(b->flags & BLOCK_UNSAFE) && fdatasync(fd) ? -errno : 0;
}

int
image_sync_files(struct image *b)
{
	int r = fdatasync(b->fd) ? -errno : 0, fd;

	for (int i = 0; !r && b->format->part_fd && (fd = b->format->part_fd(b, i)) != -1; i++)
		if (fd >= 0 && fd != b->fd && fdatasync(fd))
			r = -errno;
	return r;
}

void
image_start_sync(struct image *b)
{
	int fd;

	sync_file_range(b->fd, 0, 0, SYNC_FILE_RANGE_WRITE); /* a hint: image_sync_files() tells what went wrong */
	for (int i = 0; b->format->part_fd && (fd = b->format->part_fd(b, i)) != -1; i++)
		if (fd >= 0 && fd != b->fd)
			sync_file_range(fd, 0, 0, SYNC_FILE_RANGE_WRITE);
}

/* ---- names ---- */

char *
image_name_beside(const char *path, const char *name)
{
	const char *slash = strrchr(path, '/'), *colon;

	if (str_starts(name, "file:"))
		name += 5;
	colon = strchr(name, ':');
	if (!*name || (colon && !memchr(name, '/', (size_t)(colon - name))))
		return NULL;
	while (name[0] == '.' && name[1] == '/')
		name += 2;
	if (*name == '/' || !slash)
		return xstrdup(name);
	return xasprintf("%.*s/%s", (int)(slash - path), path, name);
}

/* The path with its directory resolved; the file itself may not be there yet, or be a link. */
static char *
resolved(const char *path)
{
	const char *slash = strrchr(path, '/');
	char *dir = slash ? xasprintf("%.*s", (int)(slash - path) + (slash == path), path) : xstrdup("."), *real, *out;

	real = realpath(dir, NULL);
	free(dir);
	if (!real)
		return xstrdup(path);
	out = xasprintf("%s/%s", !strcmp(real, "/") ? "" : real, slash ? slash + 1 : path);
	free(real);
	return out;
}

char *
image_parent_name(const char *path, const char *parent)
{
	char *from = resolved(path), *to = resolved(parent), *out = NULL;
	size_t dir = (size_t)(strrchr(to, '/') ? strrchr(to, '/') - to + 1 : 0);
	struct str s = { 0 };

	/* The directory of the parent is the beginning of the child's: "../" for each step between them. */
	if (dir > 1 && !strncmp(from, to, dir)) {
		for (const char *p = from + dir; (p = strchr(p, '/')); p++)
			str_add(&s, "../");
		str_add(&s, to + dir);
		out = s.s;
	}
	if (!out)
		out = xstrdup(to);
	free(from);
	free(to);
	return out;
}

int
image_open_part(struct image *b, const char *name, struct err *e)
{
	char *path = image_name_beside(b->path, name);
	struct stat st;
	int fd;

	if (!path || strchr(name, '/') || name[0] == '.') {
		free(path);
		return err_set(e, ERR_FILE, "'%s' says that it goes on in '%s'; only files beside it can be used",
			b->path, name);
	}
	fd = open(path, (b->read_only ? O_RDONLY : O_RDWR) | O_CLOEXEC | O_NONBLOCK | O_NOCTTY | O_NOFOLLOW);
	if (fd < 0) {
		err_sys(e, errno == EACCES ? ERR_ACCESS : ERR_FILE, errno,
			"'%s', a part of the medium '%s', cannot be opened", path, b->path);
	} else if (fstat(fd, &st) || !S_ISREG(st.st_mode) ||
		   lock_file(!b->read_only && !(b->flags & IMAGE_LOCK_SHARED), fd, path, e)) {
		if (!S_ISREG(st.st_mode))
			err_set(e, ERR_FILE, "'%s', a part of the medium '%s', is not a file", path, b->path);
		close(fd);
		fd = -1;
	}
	free(path);
	return fd;
}

/* ---- parents ---- */

static bool
is_zero_uuid(const struct uuid *u)
{
	static const struct uuid none;

	return !memcmp(u, &none, sizeof(none));
}

static bool
same_uuid(const struct uuid *a, const struct uuid *b)
{
	return !memcmp(a, b, sizeof(*a));
}

/* Is `p` the one that `ref` means, and as it was? */
static int
check_parent(struct image *b, const struct parent_ref *ref, struct image *p, struct err *e)
{
	if (!ref->format && p->format == &block_raw)
		return err_set(e, ERR_UNSUPPORTED,
			"'%s' reads through to '%s', whose format it does not say and the contents do not tell",
			b->path, p->path);
	if (!is_zero_uuid(&ref->uuid) && !is_zero_uuid(&p->uuid) && !same_uuid(&ref->uuid, &p->uuid))
		return err_set(e, ERR_FILE, "'%s' is not the parent of '%s': it has another UUID", p->path, b->path);
	if ((!is_zero_uuid(&ref->change) && !is_zero_uuid(&p->change) && !same_uuid(&ref->change, &p->change)) ||
		(ref->cid && p->cid && ref->cid != p->cid))
		return err_set(e, ERR_FILE,
			"'%s' was written to after '%s' was made from it: what the two show together is no longer what "
			"it "
			"was",
			p->path, b->path);
	return 0;
}

/* 0: it is b->backing now. 1: it is not there, or another one; *e says so. -1: it is the one and cannot be used. */
static int
try_parent(struct image *b, const struct parent_ref *ref, const char *path, struct err *e)
{
	int flags = BLOCK_RDONLY | (b->flags & (BLOCK_NO_PARENT | BLOCK_DIRECT));
	struct image *p;

	if (access(path, F_OK)) {
		err_sys(e, ERR_FILE, errno, "The medium '%s' cannot be opened for reading", path);
		return 1;
	}
	p = image_open(path, ref->format, flags, b->depth + 1, b->finder, e);
	if (!p)
		return -1;
	if (check_parent(b, ref, p, e)) {
		bool other = !is_zero_uuid(&ref->uuid) && !is_zero_uuid(&p->uuid) && !same_uuid(&ref->uuid, &p->uuid);

		image_close(p);
		return other ? 1 : -1;
	}
	b->backing = p;
	return 0;
}

/* The UUID in the header of a VDI, without opening it as an image: it may be in use. */
static bool
has_uuid(const char *path, const struct uuid *u)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	uint8_t h[512];
	bool yes;

	if (fd < 0)
		return false;
	yes = !file_pread(fd, h, sizeof(h), 0) && vdi_header_uuid(h, u);
	close(fd);
	return yes;
}

/* A VDI with that UUID in the directory; free() it. */
static char *
search_directory(const char *dir, const struct uuid *u)
{
	struct dirent *de;
	char *found = NULL;
	DIR *d = opendir(dir);

	for (int i = 0; d && !found && i < SEARCH_MAX && (de = readdir(d)); i++) {
		char *path = xasprintf("%s/%s", dir, de->d_name);

		if (de->d_type != DT_DIR && str_ends(de->d_name, ".vdi") && has_uuid(path, u))
			found = path;
		else
			free(path);
	}
	if (d)
		closedir(d);
	return found;
}

static char *
search_parent(struct image *b, const struct uuid *u)
{
	static const char *const up[] = { "", "/..", "/../.." };
	char *self = resolved(b->path), *slash = strrchr(self, '/'), *found = NULL;

	if (slash)
		*slash = 0;
	for (size_t i = 0; slash && i < ARRAY_LEN(up) && !found && !is_zero_uuid(u); i++) {
		char *dir = xasprintf("%s%s", self, up[i]);

		found = search_directory(dir, u);
		free(dir);
	}
	free(self);
	return found;
}

static int
find_parent(struct image *b, const struct parent_ref *ref, struct err *e)
{
	char *path = b->finder && b->finder->find ? b->finder->find(b->finder->opaque, &ref->uuid, ref->name) : NULL;
	const char *names[2] = { ref->name, ref->name2 };
	int r = 1;

	if (path)
		r = try_parent(b, ref, path, e);
	free(path);
	for (int i = 0; i < 2 && r > 0; i++) {
		path = names[i] ? image_name_beside(b->path, names[i]) : NULL;
		if (path)
			r = try_parent(b, ref, path, e);
		else if (names[i])
			err_set(e, ERR_UNSUPPORTED,
				"'%s' reads through to '%s', which is not a file; only files can be used", b->path,
				names[i]);
		free(path);
	}
	path = r > 0 ? search_parent(b, &ref->uuid) : NULL;
	if (path)
		r = try_parent(b, ref, path, e);
	free(path);
	return r;
}

int
image_open_parent(struct image *b, const struct parent_ref *ref, struct err *e)
{
	struct err none = { 0 };
	char text[37];

	if (!e)
		e = &none;
	if (b->flags & (IMAGE_NO_PARENT | BLOCK_NO_PARENT))
		return 0;
	if (b->depth >= DEPTH_MAX)
		return err_set(e, ERR_FILE, "'%s' has a chain of more than %d images, or one that ends in itself",
			b->path, DEPTH_MAX);
	uuid_text(&ref->uuid, text);
	err_set(e, ERR_FILE, "no image with the UUID {%s} is known or lies near it", text);
	if (!find_parent(b, ref, e))
		return 0;
	if (!b->depth)
		err_wrap(e, "The parent of '%s' cannot be used", b->path);
	return -1;
}

int
image_read_backing(struct image *b, const struct iovec *iov, int iovcnt, uint64_t skip, uint64_t off, uint64_t len)
{
	struct image *p = b->backing;
	uint64_t there = p && off < p->size ? MIN(len, p->size - off) : 0;

	iov_zero(iov, iovcnt, skip + there, len - there);
	return there ? p->format->read(p, iov, iovcnt, skip, off, there) : 0;
}

int
image_map_all(struct image *b, uint64_t off, uint64_t *len, enum map_kind *kind)
{
	for (; b; b = b->backing) {
		int r;

		if (off >= b->size)
			break;
		/* What lies behind the end of this one, and is asked for, is not its business. */
		*len = MIN(*len, b->size - off);
		r = b->format->map(b, off, len, kind);
		if (r || *kind != MAP_HOLE)
			return r;
	}
	*kind = MAP_ZERO;
	return 0;
}

/* Does the chain that begins with `i` show zeroes there, without a look at data? */
static bool
shows_zeroes(struct image *i, uint64_t off, uint64_t len)
{
	while (i && len && off < i->size) {
		enum map_kind kind;
		uint64_t n = len;

		if (image_map_all(i, off, &n, &kind) || kind == MAP_DATA)
			return false;
		off += n;
		len -= n;
	}
	return true;
}

bool
image_backing_is_zero(struct image *b, uint64_t off, uint64_t len)
{
	if (!shows_zeroes(b->backing, off, len))
		return false;
	return !b->backing || !b->loses_parent || shows_zeroes(b->backing->backing, off, len);
}
