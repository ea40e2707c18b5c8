/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Data past the host's page cache (BLOCK_DIRECT, O_DIRECT).
 *
 * Each file of an image is opened a second time for its data; tables go on through the page cache and their own cache
 * (meta.h). The kernel keeps the two views of a file the same: a direct read first writes out what the page cache has
 * of the range, a direct write drops it from there.
 *
 * The file system says what has to be aligned (statx, STATX_DIOALIGN). A transfer whose place in the file is not
 * goes through the page cache: writing only a part of a block would have to read the rest of it first, which the
 * kernel does better. One whose place is, and whose memory is not, is copied through a buffer that is ("bounce").
 * A guest's sectors of 512 bytes on a disk with blocks of 4096 are the usual case of the first, its buffers of the
 * second.
 *
 * A file system that has no direct access at all (some in memory, some over a network) is used through the page cache;
 * that is logged.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "block/file.h"
#include "block/format.h"

#define BOUNCE (256u << 10)
#define ALIGN_USUAL 4096u

struct direct {
	struct direct *next;
	int cached, fd;		 /* of the same file */
	uint64_t memory, offset; /* what has to be aligned to what; powers of two */
};

static bool
is_power_of_two(uint64_t n)
{
	return n && !(n & (n - 1));
}

static void
ask_alignment(struct direct *d)
{
	struct statx x = { 0 };

	d->memory = d->offset = ALIGN_USUAL;
	if (statx(d->fd, "", AT_EMPTY_PATH, STATX_DIOALIGN, &x) || !(x.stx_mask & STATX_DIOALIGN))
		return;
	if (is_power_of_two(x.stx_dio_mem_align) && x.stx_dio_mem_align <= ALIGN_USUAL)
		d->memory = x.stx_dio_mem_align;
	if (is_power_of_two(x.stx_dio_offset_align) && x.stx_dio_offset_align <= BOUNCE)
		d->offset = x.stx_dio_offset_align;
}

static void
open_one(struct image *b, int cached, const char *path)
{
	int flags = (b->read_only ? O_RDONLY : O_RDWR) | O_DIRECT | O_CLOEXEC | O_NONBLOCK | O_NOCTTY;
	int fd = open(path, flags), why = errno;
	struct stat st, same;
	struct direct *d;

	if (fd >= 0 &&
		(fstat(fd, &st) || fstat(cached, &same) || st.st_dev != same.st_dev || st.st_ino != same.st_ino)) {
		close(fd);
		fd = -1;
		why = ESTALE;
	}
	if (fd < 0) {
		log_warn("block", "'%s' cannot be used without the host's I/O cache (%s): it goes through it", path,
			strerror(why));
		return;
	}
	d = xcalloc(1, sizeof(*d));
	d->cached = cached;
	d->fd = fd;
	ask_alignment(d);
	d->next = b->direct;
	b->direct = d;
}

void
direct_open(struct image *b)
{
	int fd;

	if (!(b->flags & BLOCK_DIRECT))
		return;
	open_one(b, b->fd, b->path);
	for (int i = 0; b->format->part_fd && (fd = b->format->part_fd(b, i)) != -1; i++) {
		const char *name = b->format->part(b, i);
		char *path = fd >= 0 && fd != b->fd && name && *name ? image_name_beside(b->path, name) : NULL;

		if (path)
			open_one(b, fd, path);
		free(path);
	}
}

void
direct_close(struct image *b)
{
	while (b->direct) {
		struct direct *d = b->direct;

		b->direct = d->next;
		close(d->fd);
		free(d);
	}
}

static const struct direct *
find(const struct image *b, int fd)
{
	const struct direct *d = b->direct;

	while (d && d->cached != fd)
		d = d->next;
	return d;
}

/* Can the kernel take the memory as it is? Each part is as long as a block, or several. */
static bool
is_aligned(const struct direct *d, const struct iovec *iov, int iovcnt, uint64_t skip, uint64_t len)
{
	for (int i = 0; i < iovcnt && len; i++) {
		uint64_t n;

		if (skip >= iov[i].iov_len) {
			skip -= iov[i].iov_len;
			continue;
		}
		n = MIN(iov[i].iov_len - skip, len);
		if (((uintptr_t)iov[i].iov_base + skip) % d->memory || n % d->offset)
			return false;
		skip = 0;
		len -= n;
	}
	return true;
}

/* Through a buffer. */
static int
bounce(const struct direct *d, bool writing, const struct iovec *iov, int iovcnt, uint64_t skip, uint64_t len,
	uint64_t at)
{
	uint64_t room = MIN(len, BOUNCE);
	uint8_t *buf = aligned_alloc(ALIGN_USUAL, (room + ALIGN_USUAL - 1) / ALIGN_USUAL * ALIGN_USUAL);
	int r = buf ? 0 : -ENOMEM;

	for (uint64_t n; len && !r; skip += n, at += n, len -= n) {
		n = MIN(len, room);
		if (writing)
			iov_copy(iov, iovcnt, skip, buf, n);
		r = writing ? file_pwrite(d->fd, buf, n, at) : file_pread(d->fd, buf, n, at);
		if (!writing && !r)
			iov_fill(iov, iovcnt, skip, buf, n);
	}
	free(buf);
	return r;
}

static int
move(int fd, bool writing, const struct iovec *iov, int iovcnt, uint64_t skip, uint64_t len, uint64_t at)
{
	return writing ? file_writev(fd, iov, iovcnt, skip, len, at) : file_readv(fd, iov, iovcnt, skip, len, at);
}

static int
transfer(struct image *b, bool writing, int fd, const struct iovec *iov, int iovcnt, uint64_t skip, uint64_t len,
	uint64_t at)
{
	const struct direct *d = find(b, fd);

	if (d && !(len % d->offset) && !(at % d->offset)) {
		int r = is_aligned(d, iov, iovcnt, skip, len) ? move(d->fd, writing, iov, iovcnt, skip, len, at)
							      : bounce(d, writing, iov, iovcnt, skip, len, at);

		/* The file system wants more than it said, or the file ends within a block. */
		if (r != -EINVAL)
			return r;
	}
	return move(fd, writing, iov, iovcnt, skip, len, at);
}

int
direct_readv(struct image *b, int fd, const struct iovec *iov, int iovcnt, uint64_t skip, uint64_t len, uint64_t at)
{
	return transfer(b, false, fd, iov, iovcnt, skip, len, at);
}

int
direct_writev(struct image *b, int fd, const struct iovec *iov, int iovcnt, uint64_t skip, uint64_t len, uint64_t at)
{
	return transfer(b, true, fd, iov, iovcnt, skip, len, at);
}
