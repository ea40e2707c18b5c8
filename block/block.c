/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation of an open image.
 *
 * Opening: the file is opened, locked, its head read, and the first format whose probe() knows the head is taken; raw
 * is what remains. Raw never claims a file that is plainly of a format we do not have: a guest would see, and write
 * over, its insides.
 *
 * A request travels:  device -> block_submit() -> queue -> a worker thread -> finished list -> the loop (or
 * block_drain()) -> done(). Everything on the way is under b->lock, apart from the transfer itself. Workers ring an
 * eventfd when the finished list becomes non-empty; the loop's watch on it calls done() with the machine lock held.
 * Without a loop (tests, tools) completions are delivered by block_drain() alone.
 *
 * Workers are started when a loop is attached, so that all threads exist before the process gives up its privileges,
 * and when there is no loop at the first submit. They block every signal. One of them, after a second without work,
 * writes metadata that is still only in memory (vdi), so that a process that dies loses little of a guest that never
 * flushes.
 *
 * Locking between processes: one OFD lock over the whole file, exclusive for writing, shared for reading. It belongs to
 * the open file, so it ends when the process does, however it ends, and two opens within one process exclude each
 * other.
 */
#include "block/block.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"
#include "block/file.h"
#include "block/format.h"

#define WORKERS_MAX 4
#define DEPTH_MAX 64  /* images of a chain */
#define DEPTH_SHIFT 8 /* of the depth within the flags of block_open(), for block_open_parent() alone */
#define WORKER_STACK (256 << 10)

static const struct block_format *const formats[] = { &block_vdi, &block_qcow2, &block_vmdk, &block_vhd, &block_iso,
	&block_raw };

/* Formats that are known and not supported: never taken for raw. */
static const struct {
	const char *name, *magic;
	size_t len;
} foreign[] = {
	{ "QCOW", "QFI\xfb", 4 },
	{ "VMDK", "COWD", 4 },
	{ "VHDX", "vhdxfile", 8 },
	{ "Parallels", "WithoutFreeSpace", 16 },
	{ "Parallels", "WithouFreSpacExt", 16 },
	{ "QED", "QED\0", 4 },
};

/* ---- who has the lock ---- */

/* Does /proc/<pid>/fd/<fd> refer to the file and hold a lock on it? */
static bool
fd_holds_lock(const char *pid, const char *fd, const struct stat *file)
{
	char path[64], line[256];
	struct stat st;
	bool found = false;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%.16s/fd/%.16s", pid, fd);
	if (stat(path, &st) || st.st_dev != file->st_dev || st.st_ino != file->st_ino)
		return false;
	snprintf(path, sizeof(path), "/proc/%.16s/fdinfo/%.16s", pid, fd);
	f = fopen(path, "re");
	if (!f)
		return false;
	while (!found && fgets(line, sizeof(line), f))
		found = str_starts(line, "lock:");
	fclose(f);
	return found;
}

static bool
process_holds_lock(const char *pid, const struct stat *file)
{
	char path[64];
	struct dirent *de;
	bool found = false;
	DIR *d;

	snprintf(path, sizeof(path), "/proc/%.16s/fd", pid);
	d = opendir(path);
	if (!d)
		return false;
	while (!found && (de = readdir(d)))
		found = de->d_name[0] != '.' && fd_holds_lock(pid, de->d_name, file);
	closedir(d);
	return found;
}

/* The kernel does not say who holds an OFD lock, but shows it in the holder's fdinfo. 0: none that we may look at. */
static long
lock_holder(int fd)
{
	struct stat file;
	struct dirent *de;
	long holder = 0;
	DIR *d;

	if (fstat(fd, &file))
		return 0;
	d = opendir("/proc");
	if (!d)
		return 0;
	while (!holder && (de = readdir(d)))
		if (de->d_name[0] >= '1' && de->d_name[0] <= '9' && process_holds_lock(de->d_name, &file))
			holder = strtol(de->d_name, NULL, 10);
	closedir(d);
	return holder;
}

static int
lock_file(struct block *b, int fd, const char *path, struct err *e)
{
	struct flock lk = { .l_type = b->read_only ? F_RDLCK : F_WRLCK, .l_whence = SEEK_SET };
	char by[64] = "another process";
	long holder;

	if (!fcntl(fd, F_OFD_SETLK, &lk))
		return 0;
	if (errno != EAGAIN && errno != EACCES) {
		log_warn(
			"block", "'%s' cannot be locked (%s); nothing keeps a second user away", path, strerror(errno));
		return 0;
	}
	holder = lock_holder(fd);
	if (holder == getpid())
		snprintf(by, sizeof(by), "this process (%ld)", holder);
	else if (holder)
		snprintf(by, sizeof(by), "process %ld", holder);
	return err_set(e, ERR_IN_USE, "The medium '%s' is in use: it is locked by %s", path, by);
}

/* ---- open ---- */

static int
open_file(struct block *b, struct err *e)
{
	struct stat st;

	/* O_NONBLOCK: a FIFO in this place must not hang us; it means nothing for files and disks. */
	b->fd = open(b->path, (b->read_only ? O_RDONLY : O_RDWR) | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	if (b->fd < 0)
		return err_sys(e, errno == EACCES ? ERR_ACCESS : ERR_FILE, errno,
			"The medium '%s' cannot be opened for %s", b->path, b->read_only ? "reading" : "writing");
	if (fstat(b->fd, &st))
		return err_sys(e, ERR_FILE, errno, "The medium '%s' cannot be looked at", b->path);
	if (!S_ISREG(st.st_mode) && !S_ISBLK(st.st_mode))
		return err_set(e, ERR_FILE, "'%s' is neither a file nor a disk", b->path);
	return 0;
}

static int
read_head(struct block *b, struct block_head *h, struct err *e)
{
	int64_t size = file_size(b->fd);
	int r;

	if (size < 0)
		return err_sys(e, ERR_FILE, (int)size, "The size of '%s' cannot be found", b->path);
	h->len = (size_t)MIN((uint64_t)size, sizeof(h->bytes));
	r = file_pread(b->fd, h->bytes, h->len, 0);
	if (r)
		return err_sys(e, ERR_FILE, r, "The medium '%s' cannot be read", b->path);
	return 0;
}

static const struct block_format *
format_by_name(const char *name)
{
	for (size_t i = 0; i < ARRAY_LEN(formats); i++)
		if (!strcasecmp(formats[i]->name, name))
			return formats[i];
	return NULL;
}

/* What has no head of its own may have a tail. */
static const struct block_format *
format_by_tail(struct block *b)
{
	int64_t size = file_size(b->fd);
	uint8_t tail[512];

	if (size < (int64_t)sizeof(tail) || file_pread(b->fd, tail, sizeof(tail), (uint64_t)size - sizeof(tail)))
		return NULL;
	for (size_t i = 0; i < ARRAY_LEN(formats); i++)
		if (formats[i]->probe_end && formats[i]->probe_end(tail))
			return formats[i];
	return NULL;
}

static int
find_format(struct block *b, const char *name, struct err *e)
{
	struct block_head *h;

	if (name) {
		b->format = format_by_name(name);
		if (!b->format)
			return err_set(e, ERR_UNSUPPORTED, "The medium format '%s' is not supported", name);
		return 0;
	}
	h = xcalloc(1, sizeof(*h));
	if (read_head(b, h, e)) {
		free(h);
		return -1;
	}
	for (size_t i = 0; i < ARRAY_LEN(formats) && !b->format; i++)
		if (!formats[i]->probe || formats[i]->probe(h))
			b->format = formats[i];
	for (size_t i = 0; i < ARRAY_LEN(foreign) && b->format == &block_raw; i++) {
		if (h->len < foreign[i].len || memcmp(h->bytes, foreign[i].magic, foreign[i].len))
			continue;
		free(h);
		return err_set(e, ERR_UNSUPPORTED, "'%s' is a %s image; this format is not supported yet", b->path,
			foreign[i].name);
	}
	free(h);
	if (b->format == &block_raw && format_by_tail(b))
		b->format = format_by_tail(b);
	return 0;
}

/* A format that is never written is opened for reading and locked shared, so that several machines can use one ISO. */
static int
open_as_format(struct block *b, const char *name, struct err *e)
{
	if (open_file(b, e) || find_format(b, name, e))
		return -1;
	if (b->format->read_only && !b->read_only) {
		close(b->fd);
		b->read_only = true;
		if (open_file(b, e))
			return -1;
	}
	if (lock_file(b, b->fd, b->path, e))
		return -1;
	return b->format->open(b, e);
}

struct block *
block_open(const char *path, const char *format, int flags, struct err *e)
{
	struct block *b = xcalloc(1, sizeof(*b));

	b->path = xstrdup(path);
	b->read_only = flags & BLOCK_RDONLY;
	b->depth = flags >> DEPTH_SHIFT;
	b->queue_tail = &b->queue;
	b->finished_tail = &b->finished;
	b->fd = b->bell = -1;
	pthread_mutex_init(&b->lock, NULL);
	pthread_cond_init(&b->work, NULL);
	pthread_cond_init(&b->idle, NULL);
	/* An ISO that we may not write is still an ISO: find out before asking for more than is needed. */
	if (!b->read_only && access(path, W_OK) && errno == EACCES && !access(path, R_OK)) {
		b->read_only = true;
		if (!open_file(b, NULL) && !find_format(b, format, NULL) && !b->format->read_only)
			b->read_only = false;
		if (b->fd >= 0)
			close(b->fd);
		b->format = NULL;
		b->fd = -1;
	}
	if (!open_as_format(b, format, e))
		return b;
	if (b->fd >= 0)
		close(b->fd);
	free(b->path);
	free(b);
	return NULL;
}

/* Where `name` is, when the image at `path` says it. NULL: it is not the name of a file. */
static char *
name_beside(const char *path, const char *name)
{
	const char *slash = strrchr(path, '/'), *colon;

	if (str_starts(name, "file:"))
		name += 5;
	colon = strchr(name, ':');
	if (!*name || (colon && !memchr(name, '/', (size_t)(colon - name))))
		return NULL;
	if (*name == '/' || !slash)
		return xstrdup(name);
	return xasprintf("%.*s/%s", (int)(slash - path), path, name);
}

int
block_open_parent(struct block *b, const char *name, const char *format, struct block **out, struct err *e)
{
	char *path = name_beside(b->path, name);
	int flags = BLOCK_RDONLY | (b->depth + 1) << DEPTH_SHIFT;

	*out = NULL;
	if (!path)
		return err_set(e, ERR_UNSUPPORTED,
			"'%s' reads through to '%s', which is not a file; only files can be used", b->path, name);
	if (b->depth >= DEPTH_MAX)
		err_set(e, ERR_FILE, "'%s' has a chain of more than %d images, or one that ends in itself", b->path,
			DEPTH_MAX);
	else
		*out = block_open(path, format, flags, e);
	if (*out && !format && (*out)->format == &block_raw) {
		block_close(*out);
		*out = NULL;
		err_set(e, ERR_UNSUPPORTED,
			"'%s' reads through to '%s', whose format it does not say and the contents do not tell",
			b->path, path);
	}
	if (!*out && !b->depth)
		err_wrap(e, "The parent of '%s' cannot be used", b->path);
	free(path);
	return *out ? 0 : -1;
}

int
block_open_part(struct block *b, const char *name, struct err *e)
{
	char *path = name_beside(b->path, name);
	struct stat st;
	int fd;

	if (!path || strchr(name, '/') || name[0] == '.') {
		free(path);
		return err_set(e, ERR_FILE, "'%s' says that it goes on in '%s'; only files beside it can be used",
			b->path, name);
	}
	fd = open(path, (b->read_only ? O_RDONLY : O_RDWR) | O_CLOEXEC | O_NONBLOCK | O_NOCTTY | O_NOFOLLOW);
	if (fd < 0)
		err_sys(e, errno == EACCES ? ERR_ACCESS : ERR_FILE, errno,
			"'%s', a part of the medium '%s', cannot be opened", path, b->path);
	else if (fstat(fd, &st) || !S_ISREG(st.st_mode) || lock_file(b, fd, path, e)) {
		if (!S_ISREG(st.st_mode))
			err_set(e, ERR_FILE, "'%s', a part of the medium '%s', is not a file", path, b->path);
		close(fd);
		fd = -1;
	}
	free(path);
	return fd;
}

static void
stop_workers(struct block *b)
{
	pthread_mutex_lock(&b->lock);
	b->stop = true;
	pthread_cond_broadcast(&b->work);
	pthread_mutex_unlock(&b->lock);
	for (int i = 0; i < b->workers; i++)
		pthread_join(b->threads[i], NULL);
}

void
block_close(struct block *b)
{
	if (!b)
		return;
	block_drain(b);
	stop_workers(b);
	block_attach_loop(b, NULL);
	if (!b->read_only && block_flush(b))
		log_error("block", "'%s' could not be flushed when it was closed", b->path);
	b->format->close(b);
	close(b->fd);
	if (b->bell >= 0)
		close(b->bell);
	pthread_mutex_destroy(&b->lock);
	pthread_cond_destroy(&b->work);
	pthread_cond_destroy(&b->idle);
	free(b->path);
	free(b);
}

void
block_get_info(struct block *b, struct block_info *out)
{
	const char *part;
	struct stat st;

	memset(out, 0, sizeof(*out));
	out->format = b->format->name;
	out->variant = b->variant;
	out->size = b->size;
	out->read_only = b->read_only;
	out->uuid = b->uuid;
	out->backing = b->backing ? b->backing->path : NULL;
	if (!fstat(b->fd, &st))
		out->on_disk = (uint64_t)st.st_blocks * 512;
	for (int i = 0; b->format->part && (part = b->format->part(b, i)); i++) {
		char *path = *part ? name_beside(b->path, part) : NULL;

		if (path && !stat(path, &st))
			out->on_disk += (uint64_t)st.st_blocks * 512;
		free(path);
	}
}

int
block_remove(const char *path, struct err *e)
{
	struct block *b = block_open(path, NULL, BLOCK_RDONLY, NULL);
	const char *part;
	int r = 0;

	for (int i = 0; b && !r && b->format->part && (part = b->format->part(b, i)); i++) {
		char *name = *part ? name_beside(path, part) : NULL;

		if (name && unlink(name) && errno != ENOENT)
			r = err_sys(e, ERR_FILE, errno, "'%s' cannot be deleted", name);
		free(name);
	}
	block_close(b);
	if (!r && unlink(path))
		r = err_sys(e, ERR_FILE, errno, "'%s' cannot be deleted", path);
	return r;
}

const char *
block_path(struct block *b)
{
	return b->path;
}

/* ---- synchronous calls ---- */

/* "There is no room" has several names; devices know one. */
static int
tidy_error(struct block *b, int r)
{
	if (!r)
		return 0;
	atomic_fetch_add(&b->errors, 1);
	return r == -EDQUOT || r == -EFBIG ? -ENOSPC : r;
}

static bool
in_range(struct block *b, uint64_t off, uint64_t len)
{
	return len <= b->size && off <= b->size - len;
}

static uint64_t
iov_length(const struct iovec *iov, int iovcnt)
{
	uint64_t len = 0;

	for (int i = 0; i < iovcnt; i++)
		len += iov[i].iov_len;
	return len;
}

static int
transfer(struct block *b, const struct iovec *iov, int iovcnt, uint64_t off, bool write)
{
	uint64_t len = iov_length(iov, iovcnt);

	if (iovcnt < 0 || iovcnt > BLOCK_IOV_MAX || !in_range(b, off, len))
		return tidy_error(b, -EINVAL);
	if (write && b->read_only)
		return tidy_error(b, -EROFS);
	atomic_fetch_add_explicit(write ? &b->writes : &b->reads, 1, memory_order_relaxed);
	atomic_fetch_add_explicit(write ? &b->bytes_written : &b->bytes_read, len, memory_order_relaxed);
	return tidy_error(b, (write ? b->format->write : b->format->read)(b, iov, iovcnt, off, len));
}

int
block_readv(struct block *b, const struct iovec *iov, int iovcnt, uint64_t off)
{
	return transfer(b, iov, iovcnt, off, false);
}

int
block_writev(struct block *b, const struct iovec *iov, int iovcnt, uint64_t off)
{
	return transfer(b, iov, iovcnt, off, true);
}

int
block_read(struct block *b, void *buf, uint64_t len, uint64_t off)
{
	struct iovec iov = { buf, len };

	return transfer(b, &iov, 1, off, false);
}

int
block_write(struct block *b, const void *buf, uint64_t len, uint64_t off)
{
	struct iovec iov = { (void *)buf, len };

	return transfer(b, &iov, 1, off, true);
}

int
block_flush(struct block *b)
{
	if (b->read_only)
		return 0;
	atomic_fetch_add_explicit(&b->flushes, 1, memory_order_relaxed);
	return tidy_error(b, b->format->flush(b));
}

int
block_write_zeroes(struct block *b, uint64_t off, uint64_t len)
{
	if (!in_range(b, off, len))
		return tidy_error(b, -EINVAL);
	if (b->read_only)
		return tidy_error(b, -EROFS);
	return tidy_error(b, b->format->zero(b, off, len));
}

int
block_discard(struct block *b, uint64_t off, uint64_t len)
{
	return block_write_zeroes(b, off, len);
}

void
block_get_stats(struct block *b, struct block_stats *out)
{
	*out = (struct block_stats){
		.reads = atomic_load(&b->reads),
		.writes = atomic_load(&b->writes),
		.flushes = atomic_load(&b->flushes),
		.bytes_read = atomic_load(&b->bytes_read),
		.bytes_written = atomic_load(&b->bytes_written),
		.errors = atomic_load(&b->errors),
	};
}

/* ---- asynchronous requests ---- */

static int
carry_out(struct block *b, const struct block_req *r)
{
	switch (r->op) {
	case BLOCK_READ:
		return block_readv(b, r->iov, r->iovcnt, r->off);
	case BLOCK_WRITE:
		return block_writev(b, r->iov, r->iovcnt, r->off);
	case BLOCK_FLUSH:
		return block_flush(b);
	case BLOCK_DISCARD:
		return block_discard(b, r->off, r->len);
	case BLOCK_WRITE_ZEROES:
		return block_write_zeroes(b, r->off, r->len);
	}
	return -EINVAL;
}

static struct block_req *
take_request(struct block *b)
{
	struct block_req *r = b->queue;

	if (!r)
		return NULL;
	b->queue = r->next;
	if (!b->queue)
		b->queue_tail = &b->queue;
	r->next = NULL;
	return r;
}

static void
ring(struct block *b)
{
	uint64_t one = 1;

	/* The counter cannot be full: it is emptied at each delivery and grows by one for each non-empty list. */
	if (b->bell >= 0 && write(b->bell, &one, sizeof(one)) < 0)
		log_error("block", "'%s': the completion eventfd cannot be written (%s)", b->path, strerror(errno));
}

static void
finish(struct block *b, struct block_req *r)
{
	if (!b->finished)
		ring(b);
	*b->finished_tail = r;
	b->finished_tail = &r->next;
	pthread_cond_broadcast(&b->idle);
}

/* Wait for work, at most a second when there is metadata to write. Lock held. */
static void
wait_for_work(struct block *b)
{
	struct timespec until;

	b->sleeping++;
	if (!b->format->dirty || !b->format->dirty(b)) {
		pthread_cond_wait(&b->work, &b->lock);
		b->sleeping--;
		return;
	}
	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec++;
	if (pthread_cond_timedwait(&b->work, &b->lock, &until) == ETIMEDOUT && !b->stop && b->format->dirty(b)) {
		pthread_mutex_unlock(&b->lock);
		if (b->format->flush(b))
			sleep(1); /* a full disk: the dirt stays, a guest's own flush will tell the guest */
		pthread_mutex_lock(&b->lock);
	}
	b->sleeping--;
}

static void *
worker(void *opaque)
{
	struct block *b = opaque;

	pthread_mutex_lock(&b->lock);
	while (!b->stop) {
		struct block_req *r = take_request(b);

		if (!r) {
			wait_for_work(b);
			continue;
		}
		pthread_mutex_unlock(&b->lock);
		r->result = carry_out(b, r);
		pthread_mutex_lock(&b->lock);
		finish(b, r);
	}
	pthread_mutex_unlock(&b->lock);
	return NULL;
}

/* Threads that take no signal: those are for the process's own threads. */
static void
start_workers(struct block *b, int wanted)
{
	pthread_attr_t attr;
	sigset_t all, old;

	if (b->workers >= wanted)
		return;
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, WORKER_STACK);
	while (b->workers < wanted && !pthread_create(&b->threads[b->workers], &attr, worker, b))
		pthread_setname_np(b->threads[b->workers++], "block");
	pthread_attr_destroy(&attr);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
}

/* *last: nothing is in flight any more, and done() of the one returned may close the image. */
static struct block_req *
take_finished(struct block *b, bool *last)
{
	struct block_req *r;

	pthread_mutex_lock(&b->lock);
	r = b->finished;
	if (r) {
		b->finished = r->next;
		if (!b->finished)
			b->finished_tail = &b->finished;
		/* Before done(): the owner may free the request, submit it again, or drain. */
		*last = --b->in_flight == 0;
	}
	pthread_mutex_unlock(&b->lock);
	return r;
}

/*
 * Hand what is finished to its owners, one by one: done() may submit, or drain, again. Machine lock held by the caller,
 * b->lock not.
 */
static void
deliver(struct block *b)
{
	struct block_req *r;
	uint64_t count;
	bool last = false;

	/* Before the list is looked at, so that what comes later rings again. */
	if (b->bell >= 0 && read(b->bell, &count, sizeof(count)) < 0 && errno != EAGAIN)
		log_error("block", "'%s': the completion eventfd cannot be read (%s)", b->path, strerror(errno));
	while (!last && (r = take_finished(b, &last)))
		r->done(r, r->result);
}

static void
bell_rang(void *opaque, int ready)
{
	deliver(opaque);
}

void
block_attach_loop(struct block *b, struct loop *loop)
{
	if (b->watch)
		loop_watch_remove(b->watch);
	b->watch = NULL;
	b->loop = loop;
	if (!loop)
		return;
	if (b->bell < 0)
		b->bell = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (b->bell >= 0)
		b->watch = loop_watch_add(loop, b->bell, LOOP_IN, bell_rang, b);
	if (!b->watch)
		log_error("block", "'%s': no completion eventfd (%s); its disk will not answer", b->path,
			strerror(errno));
	start_workers(b, b->read_only ? 2 : WORKERS_MAX);
}

void
block_submit(struct block *b, struct block_req *r)
{
	r->b = b;
	r->next = NULL;
	if (!b->workers)
		start_workers(b, 1);
	pthread_mutex_lock(&b->lock);
	b->in_flight++;
	if (b->workers) {
		*b->queue_tail = r;
		b->queue_tail = &r->next;
		pthread_cond_signal(&b->work);
	} else {
		/* The host has no thread for us: slower, but the guest's request is not lost. */
		r->result = carry_out(b, r);
		finish(b, r);
	}
	pthread_mutex_unlock(&b->lock);
}

void
block_drain(struct block *b)
{
	pthread_mutex_lock(&b->lock);
	while (b->in_flight) {
		while (!b->finished)
			pthread_cond_wait(&b->idle, &b->lock);
		pthread_mutex_unlock(&b->lock);
		deliver(b);
		pthread_mutex_lock(&b->lock);
	}
	pthread_mutex_unlock(&b->lock);
}

/* ---- create ---- */

static int
check_create(const struct block_create *c, const struct block_format *f, struct err *e)
{
	struct stat st;

	if (!f || !f->create)
		return err_set(e, ERR_UNSUPPORTED, "Images of the format '%s' cannot be created", c->format);
	if (c->backing && f != &block_qcow2)
		return err_set(e, ERR_UNSUPPORTED, "An image of the format '%s' cannot read through to another one",
			c->format);
	if (c->split && f != &block_vmdk)
		return err_set(e, ERR_UNSUPPORTED, "An image of the format '%s' cannot be split into files of 2 GB",
			c->format);
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

int
block_create(const struct block_create *c, struct err *e)
{
	const struct block_format *f = format_by_name(c->format);
	bool named, made;
	int fd, r;

	if (check_create(c, f, e))
		return -1;
	fd = create_file(c->path, &named);
	if (fd < 0)
		return err_sys(e, errno == EACCES ? ERR_ACCESS : ERR_FILE, errno, "The medium '%s' cannot be created",
			c->path);
	r = f->create(fd, c, e);
	made = !r;
	if (!r && fsync(fd))
		r = err_sys(e, ERR_FILE, errno, "The medium '%s' cannot be written", c->path);
	if (!r && !named) {
		r = give_name(fd, c->path);
		if (r)
			err_sys(e, ERR_FILE, r, "The medium '%s' cannot be created", c->path);
	}
	if (r && named)
		unlink(c->path);
	if (r && made && f->uncreate)
		f->uncreate(c);
	close(fd);
	if (!r && c->progress)
		c->progress(c->opaque, 100);
	return r ? -1 : 0;
}
