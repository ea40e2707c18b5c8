/* SPDX-License-Identifier: Apache-2.0 */
/* See file.h. The kernel may transfer less than asked: every call here goes on until all is done or an error says no.
 */
#include "block/file.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/str.h"
#include "block/block.h"

int
iov_slice(const struct iovec *iov, int iovcnt, uint64_t skip, uint64_t len, struct iovec *out)
{
	int n = 0;

	for (int i = 0; i < iovcnt && len && n < BLOCK_IOV_MAX; i++) {
		size_t part;

		if (skip >= iov[i].iov_len) {
			skip -= iov[i].iov_len;
			continue;
		}
		part = MIN(iov[i].iov_len - skip, len);
		out[n].iov_base = (char *)iov[i].iov_base + skip;
		out[n++].iov_len = part;
		skip = 0;
		len -= part;
	}
	return n;
}

void
iov_copy(const struct iovec *iov, int iovcnt, uint64_t skip, void *to, uint64_t len)
{
	struct iovec part[BLOCK_IOV_MAX];
	int n = iov_slice(iov, iovcnt, skip, len, part);
	char *at = to;

	for (int i = 0; i < n; at += part[i++].iov_len)
		memcpy(at, part[i].iov_base, part[i].iov_len);
}

void
iov_fill(const struct iovec *iov, int iovcnt, uint64_t skip, const void *from, uint64_t len)
{
	struct iovec part[BLOCK_IOV_MAX];
	int n = iov_slice(iov, iovcnt, skip, len, part);
	const char *at = from;

	for (int i = 0; i < n; at += part[i++].iov_len)
		memcpy(part[i].iov_base, at, part[i].iov_len);
}

void
iov_zero(const struct iovec *iov, int iovcnt, uint64_t skip, uint64_t len)
{
	for (int i = 0; i < iovcnt && len; i++) {
		size_t part;

		if (skip >= iov[i].iov_len) {
			skip -= iov[i].iov_len;
			continue;
		}
		part = MIN(iov[i].iov_len - skip, len);
		memset((char *)iov[i].iov_base + skip, 0, part);
		skip = 0;
		len -= part;
	}
}

bool
mem_is_zero(const void *p, size_t len)
{
	const unsigned char *b = p;

	/* The first bytes are zero and each equals the one 16 before it. */
	for (size_t i = 0; i < 16; i++)
		if (i >= len || b[i])
			return i >= len;
	return !memcmp(b, b + 16, len - 16);
}

bool
iov_is_zero(const struct iovec *iov, int iovcnt)
{
	for (int i = 0; i < iovcnt; i++)
		if (!mem_is_zero(iov[i].iov_base, iov[i].iov_len))
			return false;
	return true;
}

/*
 * A thread's own: a machine's loop and CPUs may read only what needs no waiting, workers read all. Set around one read
 * (block_submit()), so it is no state that two machines could share.
 */
static _Thread_local bool cached_only;

void
file_cached_only(bool on)
{
	cached_only = on;
}

int
file_readv(int fd, const struct iovec *iov, int iovcnt, uint64_t skip, uint64_t len, uint64_t off)
{
	struct iovec part[BLOCK_IOV_MAX];

	while (len) {
		int cnt = iov_slice(iov, iovcnt, skip, len, part);
		ssize_t n = preadv2(fd, part, cnt, (off_t)off, cached_only ? RWF_NOWAIT : 0);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (n == 0) {
			iov_zero(iov, iovcnt, skip, len);
			return 0;
		}
		skip += (uint64_t)n;
		off += (uint64_t)n;
		len -= (uint64_t)n;
	}
	return 0;
}

int
file_writev(int fd, const struct iovec *iov, int iovcnt, uint64_t skip, uint64_t len, uint64_t off)
{
	struct iovec part[BLOCK_IOV_MAX];

	while (len) {
		int cnt = iov_slice(iov, iovcnt, skip, len, part);
		ssize_t n = pwritev(fd, part, cnt, (off_t)off);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (n == 0)
			return -EIO;
		skip += (uint64_t)n;
		off += (uint64_t)n;
		len -= (uint64_t)n;
	}
	return 0;
}

int
file_pread(int fd, void *buf, uint64_t len, uint64_t off)
{
	struct iovec iov = { buf, len };

	return file_readv(fd, &iov, 1, 0, len, off);
}

int
file_pwrite(int fd, const void *buf, uint64_t len, uint64_t off)
{
	struct iovec iov = { (void *)buf, len };

	return file_writev(fd, &iov, 1, 0, len, off);
}

static bool
not_offered(int errnum)
{
	return errnum == EOPNOTSUPP || errnum == ENOSYS || errnum == EINVAL || errnum == ENODEV || errnum == ENOTTY;
}

static int
write_zeroes(int fd, uint64_t off, uint64_t len, void (*progress)(void *, int), void *opaque)
{
	static const uint8_t zeroes[65536];
	uint64_t done = 0;

	while (done < len) {
		uint64_t n = MIN(len - done, sizeof(zeroes));
		int r = file_pwrite(fd, zeroes, n, off + done);

		if (r)
			return r;
		done += n;
		if (progress && done % (16 << 20) < n)
			progress(opaque, (int)(done * 100 / len));
	}
	return 0;
}

int
file_zero(int fd, uint64_t off, uint64_t len)
{
	int r;

	if (!len)
		return 0;
	do
		r = fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)off, (off_t)len);
	while (r && errno == EINTR);
	if (!r)
		return 0;
	if (!not_offered(errno))
		return -errno;
	return write_zeroes(fd, off, len, NULL, NULL);
}

bool
file_is_hole(int fd, uint64_t off, uint64_t *len)
{
	off_t data = lseek(fd, (off_t)off, SEEK_DATA), hole;

	if (data < 0)
		return errno == ENXIO; /* nothing but a hole up to the end, or behind it */
	if ((uint64_t)data > off) {
		*len = MIN(*len, (uint64_t)data - off);
		return true;
	}
	hole = lseek(fd, (off_t)off, SEEK_HOLE);
	if (hole > data)
		*len = MIN(*len, (uint64_t)hole - off);
	return false;
}

/* Where data was there may be a hole by now: then it is read and found to be zero. The other way round would be wrong.
 */
bool
file_is_hole_near(struct data_span *s, int fd, uint64_t off, uint64_t *len)
{
	off_t data, hole;
	bool known;

	pthread_mutex_lock(&s->lock);
	known = s->fd == fd && s->from <= off && off < s->to;
	if (known)
		*len = MIN(*len, s->to - off);
	pthread_mutex_unlock(&s->lock);
	if (known)
		return false;
	data = lseek(fd, (off_t)off, SEEK_DATA);
	if (data < 0)
		return errno == ENXIO;
	if ((uint64_t)data > off) {
		*len = MIN(*len, (uint64_t)data - off);
		return true;
	}
	hole = lseek(fd, data, SEEK_HOLE);
	if (hole <= data)
		return false;
	*len = MIN(*len, (uint64_t)hole - off);
	pthread_mutex_lock(&s->lock);
	s->fd = fd;
	s->from = off;
	s->to = (uint64_t)hole;
	pthread_mutex_unlock(&s->lock);
	return false;
}

int
file_dig_holes(int fd, uint64_t off, uint64_t len, const struct block_progress *p)
{
	static const size_t piece = 65536;
	uint8_t *buf = malloc(piece);
	int r = buf ? 0 : -ENOMEM;

	for (uint64_t done = 0, n; done < len && !r; done += n) {
		n = len - done;
		if (file_is_hole(fd, off + done, &n))
			continue;
		n = MIN(n, piece - (off + done) % piece);
		r = file_pread(fd, buf, n, off + done);
		if (!r && mem_is_zero(buf, n))
			r = file_zero(fd, off + done, n);
		if (p && p->stopped && p->stopped(p->opaque))
			r = -EINTR;
		if (p && p->percent && done % (8 << 20) < n)
			p->percent(p->opaque, (int)(done / 1024 * 100 / (len / 1024 + 1)));
	}
	free(buf);
	return r;
}

int
file_reserve(int fd, uint64_t off, uint64_t len, void (*progress)(void *opaque, int percent), void *opaque)
{
	const uint64_t step = 256 << 20;
	uint64_t done = 0;

	/* In steps, so that the caller can show how far it is and a signal does not start it all over. */
	while (done < len) {
		uint64_t n = MIN(len - done, step);

		if (fallocate(fd, 0, (off_t)(off + done), (off_t)n)) {
			if (errno == EINTR)
				continue;
			if (!not_offered(errno))
				return -errno;
			return write_zeroes(fd, off + done, len - done, progress, opaque);
		}
		done += n;
		if (progress)
			progress(opaque, (int)(done / 1024 * 100 / (len / 1024 + 1)));
	}
	return 0;
}

int64_t
file_size(int fd)
{
	struct stat st;
	uint64_t bytes;

	if (fstat(fd, &st))
		return -errno;
	if (!S_ISBLK(st.st_mode))
		return st.st_size;
	if (ioctl(fd, BLKGETSIZE64, &bytes))
		return -errno;
	return (int64_t)bytes;
}
