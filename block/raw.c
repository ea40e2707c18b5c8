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
#include <unistd.h>

#include "block/file.h"
#include "block/format.h"

static int
raw_open(struct block *b, struct err *e)
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
raw_close(struct block *b)
{
}

static int
raw_read(struct block *b, const struct iovec *iov, int iovcnt, uint64_t off, uint64_t len)
{
	return file_readv(b->fd, iov, iovcnt, 0, len, off);
}

static int
raw_write(struct block *b, const struct iovec *iov, int iovcnt, uint64_t off, uint64_t len)
{
	return file_writev(b->fd, iov, iovcnt, 0, len, off);
}

static int
raw_flush(struct block *b)
{
	return fdatasync(b->fd) ? -errno : 0;
}

static int
raw_zero(struct block *b, uint64_t off, uint64_t len)
{
	return file_zero(b->fd, off, len);
}

static int
raw_create(int fd, const struct block_create *c, struct err *e)
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
	.create = raw_create,
};
