/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a disk format is to block.c: a constant table of calls. Private to block/.
 *
 * A driver keeps its own state behind `b->state` and reaches the file only through `b->fd` and the helpers of file.h.
 * Its calls may come from several worker threads at once; it locks what it has to. Ranges given to it are within
 * [0, b->size).
 */
#ifndef BLOCK_FORMAT_H
#define BLOCK_FORMAT_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "block/block.h"

/* The first bytes of a file, for probes: `len` may be less than sizeof(head) at the end of a short file. */
struct block_head {
	uint8_t bytes[32768 + 2048];
	size_t len;
};

struct block_format {
	const char *name;
	bool read_only; /* cannot be written even when asked */

	/* Do the contents say that the file is of this format? NULL: never found by looking (raw). */
	bool (*probe)(const struct block_head *h);
	/* The same of the last 512 bytes, asked before a file is taken for raw. May be NULL. */
	bool (*probe_end)(const uint8_t tail[512]);
	/* Check everything the file says, set b->size, b->variant, b->state. */
	int (*open)(struct block *b, struct err *e);
	/* Free b->state; the file is already flushed. */
	void (*close)(struct block *b);
	/* 0 or -errno. The iov holds exactly `len` bytes. */
	int (*read)(struct block *b, const struct iovec *iov, int iovcnt, uint64_t off, uint64_t len);
	int (*write)(struct block *b, const struct iovec *iov, int iovcnt, uint64_t off, uint64_t len);
	/* Data and metadata on stable storage. */
	int (*flush)(struct block *b);
	/* The range reads as zeroes afterwards; space is given back where that is possible. */
	int (*zero)(struct block *b, uint64_t off, uint64_t len);
	/* Is there metadata in memory that a flush would write? Asked when the workers are idle; may be NULL. */
	bool (*dirty)(struct block *b);
	/* Lay out a new image in the empty file `fd`; NULL: this format cannot be created. */
	int (*create)(int fd, const struct block_create *c, struct err *e);
	/* Further files, beside the first: the name of file `i`, "" for none, NULL behind the last. May be NULL. */
	const char *(*part)(struct block *b, int i);
	/* Take away the further files that create() made. NULL where it makes none. */
	void (*uncreate)(const struct block_create *c);
};

extern const struct block_format block_raw, block_iso, block_vdi, block_qcow2, block_vmdk, block_vhd;

/*
 * A further file of `b`, which the image calls `name`: opened and locked like the first one. It has to be in the same
 * directory, so that an image cannot make us use other files of the user. A descriptor, or -1 and *e.
 */
int block_open_part(struct block *b, const char *name, struct err *e);

/*
 * The image `name` (as an image file says it: relative to the directory of `b`) that `b` reads through to, read-only.
 * Without a `format` its contents must tell one: a parent is never taken for raw by default, since what a guest once
 * wrote into a raw disk would then decide. 0, or -1 and *e.
 */
int block_open_parent(struct block *b, const char *name, const char *format, struct block **out, struct err *e);

struct block {
	const struct block_format *format;
	void *state;
	int fd;
	bool read_only;
	uint64_t size;
	const char *variant;
	struct uuid uuid;
	char *path;
	struct block *backing; /* what shows through, owned by the driver; NULL: nothing */
	int depth;	       /* images in front of this one in its chain */

	/* The queue; see block.c. */
	pthread_mutex_t lock;
	pthread_cond_t work; /* queue is not empty, or stop */
	pthread_cond_t idle; /* a request was finished */
	struct block_req *queue, **queue_tail;
	struct block_req *finished, **finished_tail;
	unsigned in_flight; /* submitted and not yet given to done() */
	unsigned sleeping;  /* workers waiting for work */
	bool stop;
	int workers;
	pthread_t threads[4];
	struct loop *loop;
	struct loop_watch *watch;
	int bell; /* eventfd: the finished list is not empty */

	_Atomic uint64_t reads, writes, flushes, bytes_read, bytes_written, errors;
};

#endif
