/* SPDX-License-Identifier: Apache-2.0 */
/*
 * raw: byte n of the disk is byte n of the file.
 *
 * A file whose length is not a multiple of 512 is rounded up: the missing bytes of the last sector read as zeroes, and
 * writing that sector makes the file a few bytes longer. "dynamic" is a sparse file, "fixed" one whose space was
 * reserved when it was made; nothing in the file tells which.
 */
#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "block/file.h"
#include "block/format.h"

static int
raw_open(struct image *b, struct err *e)
{
	int64_t size = file_size(b->fd);

	if (size < 0)
		return err_sys(e, ERR_FILE, (int)size, "The size of '%s' cannot be found", b->path);
	if (size == 0)
		return err_set(e, ERR_FILE, "'%s' is empty; a disk image has at least 512 bytes", b->path);
	b->size = ((uint64_t)size + 511) & ~(uint64_t)511;
	b->variant = "dynamic";
	return 0;
}

static void
raw_close(struct image *b)
{
}

static int
raw_read(struct image *b, const struct iovec *iov, int iovcnt, uint64_t skip, uint64_t off, uint64_t len)
{
	return image_data_read(b, b->fd, iov, iovcnt, skip, len, off, off);
}

static int
raw_write(struct image *b, const struct iovec *iov, int iovcnt, uint64_t skip, uint64_t off, uint64_t len)
{
	return image_data_write(b, b->fd, iov, iovcnt, skip, len, off, off);
}

static int
raw_flush(struct image *b)
{
	return image_sync(b, b->fd);
}

static int
raw_zero(struct image *b, uint64_t off, uint64_t len)
{
	return file_zero(b->fd, off, len);
}

/* All of a raw disk is its own; what is a hole in the file is zero. */
static int
raw_map(struct image *b, uint64_t off, uint64_t *len, enum map_kind *kind)
{
	*kind = file_is_hole_near(&b->span, b->fd, off, len) ? MAP_ZERO : MAP_DATA;
	return 0;
}

static int
raw_resize(struct image *b, uint64_t size, struct err *e)
{
	struct stat st;

	if (fstat(b->fd, &st) || !S_ISREG(st.st_mode))
		return err_set(e, ERR_UNSUPPORTED, "'%s' is not a file and has the size it has", b->path);
	if (ftruncate(b->fd, (off_t)size) || fdatasync(b->fd))
		return err_sys(
			e, ERR_FILE, errno, "'%s' cannot be made %llu bytes long", b->path, (unsigned long long)size);
	b->size = size;
	return 0;
}

static int
raw_compact(struct image *b, const struct block_progress *p, struct err *e)
{
	int r = file_dig_holes(b->fd, 0, b->size, p);

	return r ? err_sys(e, ERR_FILE, r, "'%s' cannot be compacted", b->path) : 0;
}

static int
raw_create(int fd, const struct block_create *c, struct image *parent, struct err *e)
{
	int r;

	if (ftruncate(fd, (off_t)c->size))
		return err_sys(e, ERR_FILE, errno, "'%s' cannot be made %llu bytes long", c->path,
			(unsigned long long)c->size);
	if (!c->fixed)
		return 0;
	r = file_reserve(fd, 0, c->size, c->progress, c->opaque);
	if (r)
		return err_sys(
			e, ERR_FILE, r, "%llu bytes cannot be reserved for '%s'", (unsigned long long)c->size, c->path);
	return 0;
}

const struct block_format block_raw = {
	.name = "raw",
	.open = raw_open,
	.close = raw_close,
	.read = raw_read,
	.write = raw_write,
	.flush = raw_flush,
	.zero = raw_zero,
	.map = raw_map,
	.create = raw_create,
	.resize = raw_resize,
	.compact = raw_compact,
};
