/* SPDX-License-Identifier: Apache-2.0 */
/* Whole transfers on the file behind an image, for the format drivers. Private to block/. Any thread. */
#ifndef BLOCK_FILE_H
#define BLOCK_FILE_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

#include "base/err.h"
#include "block/block.h"

/*
 * Transfer exactly `len` bytes, which start `skip` bytes into the iov, at `off` in the file. What lies past the end of
 * the file reads as zeroes. 0 or -errno.
 */
int file_readv(int fd, const struct iovec *iov, int iovcnt, uint64_t skip, uint64_t len, uint64_t off);
int file_writev(int fd, const struct iovec *iov, int iovcnt, uint64_t skip, uint64_t len, uint64_t off);
/* Until it is switched off, reads of this thread that would have to wait for a disk fail, mostly with -EAGAIN. */
void file_cached_only(bool on);
int file_pread(int fd, void *buf, uint64_t len, uint64_t off);
int file_pwrite(int fd, const void *buf, uint64_t len, uint64_t off);

/* The part [skip, skip+len) of `iov` as an iov of its own: `out` has BLOCK_IOV_MAX entries. Returns the count. */
int iov_slice(const struct iovec *iov, int iovcnt, uint64_t skip, uint64_t len, struct iovec *out);
/* Copy out of the iov, from its byte `skip` on. */
void iov_copy(const struct iovec *iov, int iovcnt, uint64_t skip, void *to, uint64_t len);
/* Copy into it. */
void iov_fill(const struct iovec *iov, int iovcnt, uint64_t skip, const void *from, uint64_t len);
/* Store zeroes into the bytes of the iov from `skip` on. */
void iov_zero(const struct iovec *iov, int iovcnt, uint64_t skip, uint64_t len);

bool iov_is_zero(const struct iovec *iov, int iovcnt);
bool mem_is_zero(const void *p, size_t len);

/* The range reads as zeroes afterwards: a hole where the file system can, zeroes written where it cannot. */
int file_zero(int fd, uint64_t off, uint64_t len);

/* Where in the file there is a hole: *len bytes (made shorter) at `off` are one (true) or may not be. */
bool file_is_hole(int fd, uint64_t off, uint64_t *len);
/* The same, remembering the last stretch of data: finding its end can cost as much as reading it. */
struct data_span {
	pthread_mutex_t lock;
	int fd;
	uint64_t from, to;
};
bool file_is_hole_near(struct data_span *s, int fd, uint64_t off, uint64_t *len);

/* Give back the space of what is zero in [off, off+len). 0 or -errno; -EINTR: stopped. */
int file_dig_holes(int fd, uint64_t off, uint64_t len, const struct block_progress *p);

/* Reserve space for [off, off+len), growing the file: reading zeroes. `progress` gets percents, may be NULL. */
int file_reserve(int fd, uint64_t off, uint64_t len, void (*progress)(void *opaque, int percent), void *opaque);

/* Size of a regular file or a block device; -errno. */
int64_t file_size(int fd);

#endif
