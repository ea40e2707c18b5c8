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

enum block_open_flags {
	BLOCK_RDONLY = 1,
	BLOCK_DETECT_ZEROES = 2, /* what is written as zeroes takes no space */
	BLOCK_NO_PARENT = 4,	 /* the image alone: what it does not hold reads as zeroes */
	BLOCK_SHARED = 16,	 /* others write to it as well: fixed images only, whose tables do not change */
	BLOCK_DIRECT = 32,	 /* data goes past the host's page cache (O_DIRECT), where the file system has that */
	BLOCK_UNSAFE = 8, /* a flush need not reach stable storage: for a file that is thrown away after a crash */
};

struct block_info {
	const char *format;  /* "raw", "vdi", "iso", "qcow2", "vmdk", "vhd", "vhdx" */
	const char *variant; /* "dynamic", "fixed", "differencing", VMDK's own words */
	uint64_t size;	     /* virtual, bytes */
	uint64_t on_disk;    /* bytes allocated in the file system */
	bool read_only;
	struct uuid uuid; /* of the image itself; zero where the format has none */
	const char *path;
	const char *backing;	/* path of the image this one reads through to; NULL: none */
	bool encrypted, locked; /* locked: block_unlock() comes first, until then reads and writes are -ENOKEY */
};

/* Progress of what takes long: percents; a call that returns true asks to stop (the work is undone). May be NULL. */
struct block_progress {
	void (*percent)(void *opaque, int percent);
	bool (*stopped)(void *opaque);
	void *opaque;
};

/*
 * How a parent is found whose file is not where its child says: the path, xstrdup()ed, or NULL. `uuid` is zero when the
 * child does not know it, `name` NULL likewise.
 */
struct block_finder {
	char *(*find)(void *opaque, const struct uuid *uuid, const char *name);
	void *opaque;
};

/* Open `path`; format from its contents (never from its name), or `format` when not NULL. NULL and *e on failure. */
struct block *block_open(const char *path, const char *format, int flags, struct err *e);
/* The same; `finder` is asked first for every parent (copied; may be NULL). */
struct block *block_open_with(
	const char *path, const char *format, int flags, const struct block_finder *finder, struct err *e);
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
	/*
	 * Machine lock held, mostly on the loop; a read that needs no waiting is done before block_submit() returns. It may
	 * submit and drain; it must not close the image.
	 */
	void (*done)(struct block_req *r, int result);
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
/*
 * Returns when nothing is in flight; completions run on the caller (machine lock held by it). Requests that were held
 * because the host's disk is full are tried once more, and then fail.
 */
void block_drain(struct block *b);

/*
 * When the host has no room for a write, or the password of an encrypted image is missing, hold the request instead of
 * failing it, and call `full` (on the loop, machine
 * lock held), once until block_retry(), which tries again what is held. NULL: let it fail. Before the first submit.
 */
void block_hold_when_full(struct block *b, void (*full)(void *opaque), void *opaque);
bool block_is_full(struct block *b); /* requests are held */
void block_retry(struct block *b);

/* ---- bandwidth ---- */

/* A limit of bytes a second (0: none) for all images that have it together; outlives them. Any thread. */
struct block_limit;
struct block_limit *block_limit_create(uint64_t rate);
void block_limit_free(struct block_limit *l); /* NULL: nothing */
void block_limit_set(struct block_limit *l, uint64_t rate);
/* Sleep until `bytes` may go. */
void block_limit_take(struct block_limit *l, uint64_t bytes);
/* While on (it counts), nobody sleeps: somebody waits for all to come to an end. */
void block_limit_hurry(struct block_limit *l, bool on);
/* Asynchronous reads and writes of `b` keep to it. Nothing is in flight. NULL: no limit. */
void block_set_limit(struct block *b, struct block_limit *l);

struct block_create {
	const char *path;   /* must not exist */
	const char *format; /* "raw", "vdi", "qcow2", "vmdk", "vhd", any case */
	bool fixed;
	bool split;  /* into files of 2 GB (vmdk) */
	bool stream; /* streamOptimized (vmdk): compressed, written once from its beginning to its end */
	bool unsafe; /* the file need not survive a power cut yet: block_copy() with `sync` comes */
	/*
	 * The new image reads through to this one until it is written to (qcow2, vdi, vmdk, vhd); a path, relative to
	 * the directory of the new image; or NULL. It has to be there and nobody may write to it.
	 */
	const char *backing, *backing_format;
	uint64_t size;		 /* 0 with a backing image: its size */
	const struct uuid *uuid; /* NULL: random */
	/* Called now and then with 0-100; may be NULL. */
	void (*progress)(void *opaque, int percent);
	void *opaque;
};
/* Nothing is left behind on failure. */
int block_create(const struct block_create *c, struct err *e);

/* Delete the image with all its files; a parent stays. What cannot be opened is one file. */
int block_remove(const char *path, struct err *e);

/* ---- chains ----
 *
 * A chain is an image and those it reads through to, in any mixture of formats, up to 255 of them: 0 is the top, the
 * one that is written to. All others are open for reading. A change of a chain is one header written in one piece: a
 * crash at any moment leaves either the chain of before or that of after.
 */

/*
 * A new, empty image at `path` that reads through to the one at `parent`, of the same size and of `format` (NULL: the
 * parent's, or VDI when that has no differencing images). parent_format: NULL for what its contents say (not good
 * enough for a disk that a guest could write to as raw). uuid: NULL for a random one. Nobody may have `parent` open for
 * writing: for the disk of a running machine there is block_push_overlay(). About a millisecond, and an fsync.
 */
int block_create_diff(const char *parent, const char *parent_format, const char *path, const char *format,
	const struct uuid *uuid, struct err *e);

int block_chain_length(struct block *b);
/* The image at `depth`. The strings stay good until the chain is changed. False: there is no such image. */
bool block_chain_info(struct block *b, int depth, struct block_info *out);

/*
 * A snapshot of an open disk: make a new image as block_create_diff() does, on what is the top now, and put it in
 * front. Requests may be in flight, submitted before or meanwhile; each is carried out before or after as a whole. What
 * the guest had written before the call is on stable storage in the old top, which is read-only from now on. The chain
 * stands still only for the last flush and the swap: call block_flush() just before (the guest may run), then pause it,
 * then this for each disk. Any thread, with or without the machine lock. On failure nothing has changed and no file is
 * left.
 */
int block_push_overlay(struct block *b, const char *path, const char *format, const struct uuid *uuid, struct err *e);

/*
 * Merging two neighbours of a chain, while the guest goes on.
 *
 *   BLOCK_MERGE_UP    the parent's data goes into the child. The child stays; the parent is no longer needed by it, and
 *                     may be kept for other children it has.
 *   BLOCK_MERGE_DOWN  the child's data goes into the parent. The parent stays; the child is no longer needed. Nobody
 * else may read through to the parent (its other children would change): the caller knows; others that have it open are
 * noticed and the merge refused.
 *
 * `child` names the child by its place in the chain: 0 is the top. The parent is the image behind it.
 *
 * Life: start -> RUNNING -> READY -> finish. While RUNNING and READY the disk shows the same as ever, and so would each
 * of the files when opened after a crash: start again, or leave it; half a merge does no harm to the chain. (What the
 * parent shows by itself, to a snapshot say, is gone with the first piece that went DOWN.) In READY everything is copied, and when the child is the top, what the guest writes from now on goes to both images until finish.
 *
 * How to be crash safe:
 *   UP    finish(), which makes the child say that it reads through to its grandparent (on stable storage); then note
 *         that in the inventory; then delete the parent's files if no one else needs them. After a crash the file
 * counts: block_chain_info() of the child says whether finish had been done. DOWN  when READY: note in the inventory
 * that the parent replaces the child (the attachment too, when the child is the top); then finish(); then delete the
 * child's files. After a crash the inventory counts. Other children of `child` (branches) are to be moved to the parent
 * by block_rebase() between READY and noting it down. A child that is the top and merged: the parent is the new top,
 * and writable, after finish().
 *
 * With a loop attached (block_attach_loop) the workers do the work in pieces of 1 MiB whenever no request is waiting,
 * and every eighth time when there always is one. Without one nobody does: call block_merge_wait(). One merge at a time
 * for each disk. All calls from one thread at a time, any thread; none blocks for long except wait.
 */
enum block_merge_way { BLOCK_MERGE_UP, BLOCK_MERGE_DOWN };
enum block_merge_state { BLOCK_MERGE_RUNNING, BLOCK_MERGE_READY, BLOCK_MERGE_FAILED };
struct block_merge;

/*
 * `notify` (may be NULL) is called once, on the loop with its lock held, when the state is no longer RUNNING. After
 * finish() or cancel() it is not called any more: with a notify, call those with that lock held (it may itself).
 * NULL and *e: it cannot be done (ERR_IN_USE: an image is in use elsewhere), nothing has changed.
 */
struct block_merge *block_merge_start(struct block *b, int child, enum block_merge_way way,
	void (*notify)(void *opaque, struct block_merge *m), void *opaque, struct err *e);
/* *percent: 0-100; *e: why it FAILED. Both may be NULL. */
enum block_merge_state block_merge_poll(struct block_merge *m, int *percent, struct err *e);
/* Do the work on this thread until it is no longer RUNNING. 0: READY. */
int block_merge_wait(struct block_merge *m, const struct block_progress *p, struct err *e);
/* Only when READY. The chain is shorter by one afterwards. Frees `m`, also on failure (then nothing has changed). */
int block_merge_finish(struct block_merge *m, struct err *e);
/* In any state: stop, and leave the chain as it is. Frees `m`. */
void block_merge_cancel(struct block_merge *m);

/* Start, wait, finish in one: for a disk that nobody uses. */
int block_merge_offline(
	struct block *b, int child, enum block_merge_way way, const struct block_progress *p, struct err *e);

/*
 * Let the image at `path` say that it reads through to the one at `parent` (NULL: to none), whose contents are the same
 * as its present parent's: after a merge, or when the parent was moved. The image must not be open for writing.
 */
int block_rebase(const char *path, const char *parent, const struct block_finder *finder, struct err *e);

/* ---- what can be done to an image nobody else uses (opened for writing) ---- */

/* Larger, or smaller when nothing but zeroes is cut off. Not for an image with children. */
int block_resize(struct block *b, uint64_t size, struct err *e);
/* Give back the space of what is zero, or was discarded. */
int block_compact(struct block *b, const struct block_progress *p, struct err *e);
int block_set_uuid(struct block *b, const struct uuid *uuid, struct err *e);
/* A short text kept in the image ("CRYPT/KeyStore"...), where the format has room for one. get: free() it. */
int block_set_text(struct block *b, const char *key, const char *value, struct err *e);
char *block_get_text(struct block *b, const char *key);

/* ---- encryption ---- */

/*
 * The data of an image can be encrypted with AES in XTS mode, by sectors of the disk; doc/disks.md and crypt.c tell
 * how. The key is in the image, wrapped by a password ("key store", in base64). Images that read through to one another
 * may have keys of their own; children made of an encrypted image get its key.
 */
/* Give the password to all locked images of the chain. ERR_PASSWORD: it is not the one. */
int block_unlock(struct block *b, const char *password, struct err *e);
/* A new key store, xstrdup()ed, for a new image: cipher "AES-XTS256-PLAIN64" or "AES-XTS128-PLAIN64". */
char *block_keystore_new(const char *cipher, const char *password, struct err *e);
/* The same key wrapped by another password. NULL and *e. */
char *block_keystore_change(const char *keystore, const char *password, const char *fresh, struct err *e);
/* The name of its cipher; "" when it is none. */
void block_keystore_cipher(const char *keystore, char cipher[32]);

/*
 * All of `from` into `to`, which is as large or larger and reads as zeroes all over (a new image without a parent; or
 * `fill`: it does not, and what is zero is written too). As many threads as there are processors; holes and zeroes are
 * not written. With `sync` the data is on stable storage at the end.
 */
struct block_copy {
	struct block *from, *to;
	bool fill, sync;
	const struct block_progress *progress;
};
int block_copy(const struct block_copy *c, struct err *e);
/* The disk as a new streamOptimized VMDK: c->path, c->uuid count. Nothing is left behind on failure. */
int block_copy_stream(struct block *from, const struct block_create *c, const struct block_progress *p, struct err *e);

/*
 * Where the disk is known to be zero: the range at `off` of *len bytes (made shorter) reads as zeroes (true) without
 * looking at data, or may not (false).
 */
bool block_is_zero(struct block *b, uint64_t off, uint64_t *len);

/* The name of further file `i` of the image, in its directory; "" for none, NULL behind the last. */
const char *block_part(struct block *b, int i);

/* Totals since open, for performance views. */
struct block_stats {
	uint64_t reads, writes, flushes, bytes_read, bytes_written, errors;
};
void block_get_stats(struct block *b, struct block_stats *out);

#endif
