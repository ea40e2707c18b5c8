/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One file of a chain (struct image), what its format is to the rest (a constant table of calls), and the open handle
 * over a chain (struct block). Private to block/.
 *
 * A driver keeps its own state behind `b->state` and reaches the file only through `b->fd` and the helpers of file.h
 * and image_data_*(). Its calls may come from several worker threads at once; it locks what it has to. Ranges given to
 * it are within [0, b->size).
 *
 * Layers. What an image does not hold itself reads through to b->backing (image_read_backing()). A place that becomes
 * the image's own shows the same bytes before and after at every moment, to readers that hold no lock: it is filled
 * before it is entered in the tables.
 */
#ifndef BLOCK_FORMAT_H
#define BLOCK_FORMAT_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "block/block.h"
#include "block/file.h"

/* The first bytes of a file, for probes: `len` may be less than sizeof(head) at the end of a short file. */
struct block_head {
	uint8_t bytes[32768 + 2048];
	size_t len;
};

/* What one image, without those behind it, has at a place. */
enum map_kind {
	MAP_HOLE, /* nothing: it reads through */
	MAP_ZERO, /* zeroes, without a look at the file */
	MAP_DATA,
};

struct image;
struct crypt;
struct direct;

struct block_format {
	const char *name;
	bool read_only; /* cannot be written even when asked */

	/* Do the contents say that the file is of this format? NULL: never found by looking (raw). */
	bool (*probe)(const struct block_head *h);
	/* The same of the last 512 bytes, asked before a file is taken for raw. May be NULL. */
	bool (*probe_end)(const uint8_t tail[512]);
	/* Check everything the file says, set size, variant, uuid, state; image_open_parent() where there is one. */
	int (*open)(struct image *b, struct err *e);
	/* Free b->state; the file is already flushed. */
	void (*close)(struct image *b);
	/* 0 or -errno. The `len` bytes of the disk at `off` start at byte `skip` of the iov. */
	int (*read)(struct image *b, const struct iovec *iov, int iovcnt, uint64_t skip, uint64_t off, uint64_t len);
	int (*write)(struct image *b, const struct iovec *iov, int iovcnt, uint64_t skip, uint64_t off, uint64_t len);
	/* Data and metadata on stable storage. */
	int (*flush)(struct image *b);
	/* The range reads as zeroes afterwards, whatever is behind; space is given back where that is possible. */
	int (*zero)(struct image *b, uint64_t off, uint64_t len);
	/* What is at `off`, and in *len (at most what it was) for how many bytes. */
	int (*map)(struct image *b, uint64_t off, uint64_t *len, enum map_kind *kind);
	/* Is there metadata in memory that a flush would write? Asked when the workers are idle; may be NULL. */
	bool (*dirty)(struct image *b);

	/*
	 * Lay out a new image in the empty file `fd`, which reads through to `parent` (NULL: to nothing). NULL: this
	 * format cannot be created. c->format, c->size are checked.
	 */
	int (*create)(int fd, const struct block_create *c, struct image *parent, struct err *e);
	bool differencing; /* create() takes a parent */
	/* Further files, beside the first: the name of file `i`, "" for none, NULL behind the last. May be NULL. */
	const char *(*part)(struct image *b, int i);
	int (*part_fd)(struct image *b, int i);
	/* Take away the further files that create() made. NULL where it makes none. */
	void (*uncreate)(const struct block_create *c);

	/* NULL: cannot be done with this format. All leave the file as it was, or as asked, wherever they are cut. */
	/* The image says from now on that it reads through to `parent`, on stable storage; `b->backing` is not touched.
	 */
	int (*set_parent)(struct image *b, struct image *parent, struct err *e);
	int (*set_uuid)(struct image *b, const struct uuid *uuid, struct err *e);
	int (*resize)(struct image *b, uint64_t size, struct err *e);
	/* Give unused space back. */
	int (*compact)(struct image *b, const struct block_progress *p, struct err *e);
	/* A text kept with the image; value NULL removes it. get: xstrdup()ed or NULL. */
	int (*set_text)(struct image *b, const char *key, const char *value, struct err *e);
	char *(*get_text)(struct image *b, const char *key);
};

extern const struct block_format block_raw, block_iso, block_vdi, block_qcow2, block_vmdk, block_vhd, block_vhdx;

/* Is `head`, of 512 bytes, that of a VDI with this UUID? */
bool vdi_header_uuid(const uint8_t head[512], const struct uuid *u);

struct image {
	const struct block_format *format;
	void *state;
	int fd;
	bool read_only;
	bool keep_change;  /* writing does not change what children know the image by (merges) */
	bool loses_parent; /* what is behind its parent will show through (merge.c): that its parent is zero is not
			      enough */
	uint64_t size;
	const char *variant;
	struct uuid uuid, change; /* of the image, and of its last change; zero where the format has none */
	uint32_t cid;		  /* what a VMDK child knows it by; 0: nothing */
	char *path;
	struct image *backing; /* what shows through, owned; NULL: nothing */
	int depth;	       /* images in front of this one in its chain when it was opened */
	int flags;	       /* of image_open() */
	const struct block_finder *finder;
	struct data_span span;
	struct crypt *crypt;   /* the data is encrypted; NULL: it is not */
	struct direct *direct; /* its files without the page cache; NULL: through it */
};

/* More flags of image_open(), behind those of block_open(). */
enum image_flags {
	IMAGE_NO_PARENT = 1 << 8,    /* leave `backing` alone */
	IMAGE_LOCK_SHARED = 1 << 9,  /* though it is opened for writing; image_lock() comes later */
	IMAGE_KEEP_CHANGE = 1 << 10, /* keep_change */
};

/* ---- image.c ---- */

struct image *image_open(
	const char *path, const char *format, int flags, int depth, const struct block_finder *finder, struct err *e);
/* Flush, close, and the same for all behind it. */
void image_close(struct image *b);
void image_get_info(struct image *b, struct block_info *out);
const struct block_format *format_by_name(const char *name);

/*
 * A further file of `b`, which the image calls `name`: opened and locked like the first one. It has to be in the same
 * directory, so that an image cannot make us use other files of the user. A descriptor, or -1 and *e.
 */
int image_open_part(struct image *b, const char *name, struct err *e);

/* What an image says about the one behind it. */
struct parent_ref {
	const char *name;   /* a path relative to the directory of the image; NULL: it does not say */
	const char *name2;  /* another one to try; may be NULL */
	const char *format; /* NULL: its contents tell, and raw is refused */
	struct uuid uuid, change;
	uint32_t cid; /* not used when 0 */
};
/*
 * Open, read-only, the image behind `b`, into b->backing. A parent is never taken for raw by default, since what a
 * guest once wrote into a raw disk would then decide. One that is not the same as when the child was made is refused.
 * Without effect with IMAGE_NO_PARENT.
 */
int image_open_parent(struct image *b, const struct parent_ref *ref, struct err *e);

/* Where `name` is, when the image at `path` says it; free() it. NULL: it is not the name of a file. */
char *image_name_beside(const char *path, const char *name);
/* How the image at `path` names the one at `parent`: relative when it is in the same directory or in one above. */
char *image_parent_name(const char *path, const char *parent);

/* Locks, all files of the image: for writing or for reading. */
int image_lock(struct image *b, bool writing, struct err *e);
void image_unlock(struct image *b);

/* What is behind `b`; what is longer than that reads as zeroes. */
int image_read_backing(struct image *b, const struct iovec *iov, int iovcnt, uint64_t skip, uint64_t off, uint64_t len);
/* What [off, off + *len) shows, all layers together: MAP_DATA or MAP_ZERO. */
int image_map_all(struct image *b, uint64_t off, uint64_t *len, enum map_kind *kind);
/* Does what is behind read as zeroes, all of it, without a look at data? */
bool image_backing_is_zero(struct image *b, uint64_t off, uint64_t len);

/* The image's data at offset `at` of one of its files, which is byte `off` of its disk: decrypted and encrypted on the
 * way. */
int image_data_read(struct image *b, int fd, const struct iovec *iov, int iovcnt, uint64_t skip, uint64_t len,
	uint64_t at, uint64_t off);
int image_data_write(struct image *b, int fd, const struct iovec *iov, int iovcnt, uint64_t skip, uint64_t len,
	uint64_t at, uint64_t off);
int image_data_zero(struct image *b, int fd, uint64_t len, uint64_t at, uint64_t off);
/* fdatasync() of one of the files of `b`, unless it was opened as unsafe. 0 or -errno. */
int image_sync(struct image *b, int fd);
/* All files of `b` onto stable storage in any case. */
int image_sync_files(struct image *b);
/* Let the host begin to write out what it holds of them; image_sync_files() comes later. May take a while. */
void image_start_sync(struct image *b);
/* Is a new place in the file not at once what the disk shows there? */
static inline bool
image_needs_fill(const struct image *b)
{
	return b->backing || b->crypt;
}

/* ---- direct.c ---- */

/* With BLOCK_DIRECT: open the files of `b`, which its driver has opened, once more. */
void direct_open(struct image *b);
void direct_close(struct image *b);
/* As file_readv() and file_writev(), of one of the files of `b`, past the page cache if that is wanted and can be. */
int direct_readv(
	struct image *b, int fd, const struct iovec *iov, int iovcnt, uint64_t skip, uint64_t len, uint64_t at);
int direct_writev(
	struct image *b, int fd, const struct iovec *iov, int iovcnt, uint64_t skip, uint64_t len, uint64_t at);

/* ---- create.c ---- */

/* As block_create(), with the parent already open. */
int image_create(const struct block_create *c, struct image *parent, struct err *e);

/* ---- crypt.c ---- */

/* Called at the end of an open: finds out whether the image is encrypted, and sets b->crypt, locked. */
int crypt_open(struct image *b, struct err *e);
void crypt_close(struct crypt *c);

/* ---- the handle ---- */

struct block {
	struct image *top;
	pthread_rwlock_t chain; /* held for reading by who does I/O, for writing by who changes the chain */
	struct block_merge *merge;
	bool detect_zeroes;
	bool direct; /* the top's files without the page cache */
	struct block_finder finder;

	/* The queue; see block.c. */
	pthread_mutex_t lock;
	pthread_cond_t work; /* queue is not empty, or stop */
	pthread_cond_t idle; /* a request was finished */
	struct block_req *queue, **queue_tail;
	struct block_req *finished, **finished_tail;
	unsigned in_flight; /* submitted and not yet given to done() */
	unsigned sleeping;  /* workers waiting for work */
	_Atomic bool
		watching; /* one of them looks at this for a moment, and need not be woken: cleared, there is work */
	bool worth_watching;
	unsigned writing;    /* workers at a write */
	uint64_t idle_since; /* ns; when a worker last had none */
	unsigned taken;	     /* requests, for the share of the background job */
	bool job_busy;	     /* a worker is at the merge */
	bool stop;
	int workers;
	pthread_t threads[4];
	struct loop *loop;
	struct loop_watch *watch;
	int bell;			     /* eventfd: the finished list is not empty */
	struct block_req *held, **held_tail; /* the host's disk is full: block_retry() */
	void (*full)(void *opaque);	     /* NULL: they fail */
	void *full_opaque;
	bool full_due;	   /* to be called */
	unsigned draining; /* nothing is held */
	struct block_limit *limit;

	_Atomic uint64_t reads, writes, flushes, bytes_read, bytes_written, errors;
};

/* ---- merge.c ---- */

/* Before and after a change of [off, off+len) by the guest, and the same change made to the other image. */
struct merge_ticket {
	int slot;
};
struct merge_ticket merge_enter(struct block_merge *m, uint64_t off, uint64_t len);
void merge_leave(struct block_merge *m, struct merge_ticket t);
void merge_mirror_write(struct block_merge *m, const struct iovec *iov, int iovcnt, uint64_t off, uint64_t len);
void merge_mirror_zero(struct block_merge *m, uint64_t off, uint64_t len);
int merge_mirror_flush(struct block_merge *m);
/* A piece of the work. False: there is nothing to do now. Any thread, one at a time; no lock held. */
bool merge_step(struct block_merge *m);
bool merge_has_work(const struct block_merge *m);

#endif
