/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Disk images: sectors in and out, whatever the format.
 *
 * A `struct block` is one open image with all the images it reads through to. Offsets and lengths are in bytes; the
 * guest-facing devices use multiples of 512. An image opened for writing is locked (advisory OFD lock on the file,
 * exclusive), one opened read-only takes a shared lock; a second user gets ERR_IN_USE with the holder's process number
 * where the kernel tells.
 *
 * Synchronous calls may be used from any one thread at a time. Asynchronous requests are carried out by a pool of
 * worker threads (one per image, shared by all its requests); completion runs on the machine's loop, under its lock,
 * so devices need no locking of their own. Requests of one image may complete in any order; a flush covers the writes
 * that had completed before it was submitted. Flush means: on stable storage (fdatasync of data and metadata).
 */
#ifndef BLOCK_BLOCK_H
#define BLOCK_BLOCK_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

#include "base/err.h"
#include "base/loop.h"
#include "base/str.h"

struct block;

enum block_open_flags { BLOCK_RDONLY = 1 };

struct block_info {
	const char *format;  /* "raw", "vdi", "iso", "qcow2", "vmdk", "vhd" */
	const char *variant; /* "dynamic", "fixed" */
	uint64_t size;	     /* virtual, bytes */
	uint64_t on_disk;    /* bytes allocated in the file system */
	bool read_only;
	struct uuid uuid;    /* of the image itself; zero where the format has none */
	const char *backing; /* path of the image this one reads through to; NULL: none */
};

/* Open `path`; format from its contents (never from its name), or `format` when not NULL. NULL and *e on failure. */
struct block *block_open(const char *path, const char *format, int flags, struct err *e);
void block_close(struct block *b); /* waits for requests in flight, flushes */
void block_get_info(struct block *b, struct block_info *out);
const char *block_path(struct block *b);

/* 0 or -errno (-EIO for a broken image). Reads past the end are -EINVAL. */
int block_readv(struct block *b, const struct iovec *iov, int iovcnt, uint64_t off);
int block_writev(struct block *b, const struct iovec *iov, int iovcnt, uint64_t off);
int block_read(struct block *b, void *buf, uint64_t len, uint64_t off);
int block_write(struct block *b, const void *buf, uint64_t len, uint64_t off);
int block_flush(struct block *b);
/* The range may read as zeroes afterwards (discard) or must (write zeroes); a hint for space. */
int block_discard(struct block *b, uint64_t off, uint64_t len);
int block_write_zeroes(struct block *b, uint64_t off, uint64_t len);

enum block_op { BLOCK_READ, BLOCK_WRITE, BLOCK_FLUSH, BLOCK_DISCARD, BLOCK_WRITE_ZEROES };

#define BLOCK_IOV_MAX 256

/* Embedded by the device; not to be touched between submit and done. The iov memory stays the caller's. */
struct block_req {
	enum block_op op;
	uint64_t off, len; /* len: for discard and write zeroes */
	struct iovec *iov;
	int iovcnt;
	void (*done)(struct block_req *r, int result); /* on the loop, machine lock held */
	/* private */
	struct block *b;
	int result;
	struct block_req *next;
};
/*
 * Completion goes to `loop`: before the first submit. NULL: no longer, block_drain() delivers alone. The device that
 * uses the image attaches it, and in its destroy drains it and takes it off: the loop is closed before the image is.
 */
void block_attach_loop(struct block *b, struct loop *loop);
void block_submit(struct block *b, struct block_req *r);
/* Returns when nothing is in flight; completions run on the caller (machine lock held by it). */
void block_drain(struct block *b);

struct block_create {
	const char *path;   /* must not exist */
	const char *format; /* "raw", "vdi", "qcow2", "vmdk", "vhd", any case */
	bool fixed;
	bool split; /* into files of 2 GB (vmdk) */
	/* The new image reads through to this one until it is written to (qcow2), as the file will name it; or NULL. */
	const char *backing, *backing_format;
	uint64_t size;
	const struct uuid *uuid; /* NULL: random */
	/* Called now and then with 0-100; may be NULL. */
	void (*progress)(void *opaque, int percent);
	void *opaque;
};
/* Nothing is left behind on failure. */
int block_create(const struct block_create *c, struct err *e);

/* Delete the image with all its files; a parent stays. What cannot be opened is one file. */
int block_remove(const char *path, struct err *e);

/* Totals since open, for performance views. */
struct block_stats {
	uint64_t reads, writes, flushes, bytes_read, bytes_written, errors;
};
void block_get_stats(struct block *b, struct block_stats *out);

#endif
