/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Making and removing image files.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "block/format.h"
#include "block/vmdk.h"

static int
check_create(const struct block_create *c, const struct block_format *f, struct err *e)
{
	struct stat st;

	if (!f || !f->create)
		return err_set(e, ERR_UNSUPPORTED, "Images of the format '%s' cannot be created", c->format);
	if (c->backing && !f->differencing)
		return err_set(e, ERR_UNSUPPORTED, "An image of the format '%s' cannot read through to another one",
			c->format);
	if (c->split && f != &block_vmdk)
		return err_set(e, ERR_UNSUPPORTED, "An image of the format '%s' cannot be split into files of 2 GB",
			c->format);
	if (c->backing && (c->fixed || c->split || c->stream))
		return err_set(e, ERR_UNSUPPORTED, "A differencing image cannot be fixed, split or stream-optimized");
	if (c->stream && f != &block_vmdk)
		return err_set(e, ERR_UNSUPPORTED, "An image of the format '%s' cannot be stream-optimized", c->format);
	if (c->stream && (c->fixed || c->split))
		return err_set(e, ERR_UNSUPPORTED, "A stream-optimized image cannot be fixed or split");
	if (c->size == 0 || c->size % 512 || c->size > (uint64_t)INT64_MAX / 2)
		return err_set(e, ERR_INVALID, "A disk cannot have %llu bytes; the size is a multiple of 512",
			(unsigned long long)c->size);
	if (!lstat(c->path, &st))
		return err_sys(e, ERR_FILE, EEXIST, "The medium '%s' cannot be created", c->path);
	return 0;
}

/* The directory part of `path` for opening an unnamed file in it. */
static char *
directory_of(const char *path)
{
	const char *slash = strrchr(path, '/');

	if (!slash)
		return xstrdup(".");
	return slash == path ? xstrdup("/") : xasprintf("%.*s", (int)(slash - path), path);
}

/*
 * A file without a name where the file system can do that: it appears under its name when it is complete, and a
 * process that is killed half-way leaves nothing. *named tells whether it already has the name.
 */
static int
create_file(const char *path, bool *named)
{
	char *dir = directory_of(path);
	int fd = open(dir, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);

	free(dir);
	*named = fd < 0;
	if (fd >= 0)
		return fd;
	return open(path, O_CREAT | O_EXCL | O_RDWR | O_CLOEXEC, 0600);
}

static int
give_name(int fd, const char *path)
{
	char self[32];

	snprintf(self, sizeof(self), "/proc/self/fd/%d", fd);
	return linkat(AT_FDCWD, self, AT_FDCWD, path, AT_SYMLINK_FOLLOW) ? -errno : 0;
}

/* Make the file of c->path: `fill` writes it, `undo` (may be NULL) takes away what it made beside. */
static int
make_file(const struct block_create *c, int (*fill)(int fd, const struct block_create *c, void *opaque, struct err *e),
	void (*undo)(const struct block_create *c), void *opaque, struct err *e)
{
	bool named, made;
	int fd = create_file(c->path, &named), r;

	if (fd < 0)
		return err_sys(e, errno == EACCES ? ERR_ACCESS : ERR_FILE, errno, "The medium '%s' cannot be created",
			c->path);
	r = fill(fd, c, opaque, e);
	made = !r;
	if (!r && !c->unsafe && fsync(fd))
		r = err_sys(e, ERR_FILE, errno, "The medium '%s' cannot be written", c->path);
	if (!r && !named) {
		r = give_name(fd, c->path);
		if (r)
			err_sys(e, ERR_FILE, r, "The medium '%s' cannot be created", c->path);
	}
	if (r && named)
		unlink(c->path);
	if (r && made && undo)
		undo(c);
	close(fd);
	if (!r && c->progress)
		c->progress(c->opaque, 100);
	return r ? -1 : 0;
}

struct creation {
	const struct block_format *format;
	struct image *parent;
};

/* A child of an encrypted image has the same key. */
static int
pass_key(int fd, const struct creation *n, struct err *e)
{
	static const char *const keys[] = { "CRYPT/KeyId", "CRYPT/KeyStore" };
	struct image *b;
	char self[32];
	int r = 0;

	if (!n->format->set_text)
		return err_set(e, ERR_UNSUPPORTED,
			"'%s' is encrypted, and a %s image on it cannot be; VDI, VMDK and QCOW2 can", n->parent->path,
			n->format->name);
	snprintf(self, sizeof(self), "/proc/self/fd/%d", fd);
	b = image_open(self, n->format->name, IMAGE_NO_PARENT | IMAGE_KEEP_CHANGE, 0, NULL, e);
	for (size_t i = 0; b && i < ARRAY_LEN(keys) && !r; i++) {
		char *value = n->parent->format->get_text(n->parent, keys[i]);

		r = value ? b->format->set_text(b, keys[i], value, e) : 0;
		free(value);
	}
	image_close(b);
	return b ? r : -1;
}

static int
fill_new(int fd, const struct block_create *c, void *opaque, struct err *e)
{
	struct creation *n = opaque;
	int r = n->format->create(fd, c, n->parent, e);

	return !r && n->parent && n->parent->crypt ? pass_key(fd, n, e) : r;
}

int
image_create(const struct block_create *c, struct image *parent, struct err *e)
{
	struct creation n = { format_by_name(c->format), parent };

	if (check_create(c, n.format, e))
		return -1;
	return make_file(c, fill_new, n.format->uncreate, &n, e);
}

struct streaming {
	struct image *from;
	const struct block_progress *progress;
};

static int
fill_stream(int fd, const struct block_create *c, void *opaque, struct err *e)
{
	struct streaming *s = opaque;
	int r = vmdk_stream_write(fd, c, s->from, s->progress);

	if (r == -EINTR)
		return err_set(e, ERR_FAILED, "The copying was cancelled");
	return r ? err_sys(e, ERR_FILE, r, "'%s' cannot be copied to '%s'", s->from->path, c->path) : 0;
}

int
block_copy_stream(struct block *from, const struct block_create *c, const struct block_progress *p, struct err *e)
{
	struct block_create with = *c;
	struct streaming s = { from->top, p };

	with.format = "vmdk";
	with.stream = true;
	with.size = from->top->size;
	if (check_create(&with, &block_vmdk, e))
		return -1;
	return make_file(&with, fill_stream, NULL, &s, e);
}

int
block_create(const struct block_create *c, struct err *e)
{
	struct block_create with = *c;
	struct image *parent = NULL;
	char *path;
	int r;

	if (!c->backing)
		return image_create(c, NULL, e);
	path = image_name_beside(c->path, c->backing);
	if (!path)
		return err_set(
			e, ERR_UNSUPPORTED, "'%s' is not a file; an image reads through to files only", c->backing);
	parent = image_open(path, c->backing_format, BLOCK_RDONLY, 0, NULL, e);
	free(path);
	if (!parent)
		return -1;
	if (!with.size)
		with.size = parent->size;
	r = image_create(&with, parent, e);
	image_close(parent);
	return r;
}

int
block_create_diff(const char *parent, const char *parent_format, const char *path, const char *format,
	const struct uuid *uuid, struct err *e)
{
	struct image *p = image_open(parent, parent_format, BLOCK_RDONLY, 0, NULL, e);
	struct block_create c = { .path = path, .uuid = uuid };
	char *name;
	int r;

	if (!p)
		return -1;
	name = image_parent_name(path, parent);
	c.format = format ? format : p->format->differencing ? p->format->name : "vdi";
	c.backing = name;
	c.backing_format = p->format->name;
	c.size = p->size;
	r = image_create(&c, p, e);
	free(name);
	image_close(p);
	return r;
}

int
block_remove(const char *path, struct err *e)
{
	struct image *b = image_open(path, NULL, BLOCK_RDONLY | IMAGE_NO_PARENT, 0, NULL, NULL);
	const char *part;
	int r = 0;

	for (int i = 0; b && !r && b->format->part && (part = b->format->part(b, i)); i++) {
		char *name = *part ? image_name_beside(path, part) : NULL;

		if (name && unlink(name) && errno != ENOENT)
			r = err_sys(e, ERR_FILE, errno, "'%s' cannot be deleted", name);
		free(name);
	}
	image_close(b);
	if (!r && unlink(path))
		r = err_sys(e, ERR_FILE, errno, "'%s' cannot be deleted", path);
	return r;
}
