/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The handle over a chain of images: synchronous calls, and requests with their queue.
 *
 * A request travels:  device -> block_submit() -> queue -> a worker thread -> finished list -> the loop (or
 * block_drain()) -> done(). Everything on the way is under b->lock, apart from the transfer itself. Workers ring an
 * eventfd when the finished list becomes non-empty; the loop's watch on it calls done() with the machine lock held.
 * Without a loop (tests, tools) completions are delivered by block_drain() alone.
 *
 * A short read of what the host has in its page cache does not travel at all: it is done at once (read_at_once()).
 *
 * To wake a thread takes longer than a short write. So a guest that does one thing after the other is spared it: a worker that
 * got its last request soon after the one before watches for WATCH_NS before it sleeps, and the only request in flight is
 * given to done() by its worker when the machine lock is free.
 *
 * Workers are started when a loop is attached, so that all threads exist before the process gives up its privileges,
 * and when there is no loop at the first submit. They block every signal. One of them, after a second without work,
 * writes metadata that is still only in memory (vdi), so that a process that dies loses little of a guest that never
 * flushes. When there is a merge (merge.c), a worker without a request does a piece of it, and every eighth request is
 * followed by one.
 *
 * Transfers hold b->chain for reading; who changes the chain (merge.c) holds it for writing, and so waits for those
 * under way and keeps the next ones back.
 */
#include "block/block.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"
#include "base/rights.h"
#include "block/file.h"
#include "block/format.h"

#define WORKERS_MAX 4
#define WORKER_STACK (512 << 10)
#define AT_ONCE_MAX 65536 /* bytes of a read that is not given to a worker */
#define WATCH_NS 50000
#define JOB_SHARE 8 /* of so many requests one is followed by a piece of the merge */

struct block *
block_open_with(const char *path, const char *format, int flags, const struct block_finder *finder, struct err *e)
{
	struct block *b = xcalloc(1, sizeof(*b));
	pthread_rwlockattr_t attr;

	if (finder)
		b->finder = *finder;
	b->top = image_open(path, format, flags, 0, &b->finder, e);
	if (!b->top) {
		free(b);
		return NULL;
	}
	b->direct = b->top->direct;
	b->detect_zeroes = flags & BLOCK_DETECT_ZEROES;
	b->queue_tail = &b->queue;
	b->finished_tail = &b->finished;
	b->bell = -1;
	pthread_rwlockattr_init(&attr);
	pthread_rwlockattr_setkind_np(&attr, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
	pthread_rwlock_init(&b->chain, &attr);
	pthread_rwlockattr_destroy(&attr);
	pthread_mutex_init(&b->lock, NULL);
	pthread_cond_init(&b->work, NULL);
	pthread_cond_init(&b->idle, NULL);
	return b;
}

struct block *
block_open(const char *path, const char *format, int flags, struct err *e)
{
	return block_open_with(path, format, flags, NULL, e);
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
	if (b->merge)
		block_merge_cancel(b->merge);
	image_close(b->top);
	if (b->bell >= 0)
		close(b->bell);
	pthread_mutex_destroy(&b->lock);
	pthread_cond_destroy(&b->work);
	pthread_cond_destroy(&b->idle);
	pthread_rwlock_destroy(&b->chain);
	free(b);
}

void
block_get_info(struct block *b, struct block_info *out)
{
	pthread_rwlock_rdlock(&b->chain);
	image_get_info(b->top, out);
	pthread_rwlock_unlock(&b->chain);
}

const char *
block_path(struct block *b)
{
	return b->top->path;
}

int
block_chain_length(struct block *b)
{
	int n = 0;

	pthread_rwlock_rdlock(&b->chain);
	for (struct image *i = b->top; i; i = i->backing)
		n++;
	pthread_rwlock_unlock(&b->chain);
	return n;
}

bool
block_chain_info(struct block *b, int depth, struct block_info *out)
{
	struct image *i;

	pthread_rwlock_rdlock(&b->chain);
	for (i = b->top; i && depth > 0; i = i->backing)
		depth--;
	if (i)
		image_get_info(i, out);
	pthread_rwlock_unlock(&b->chain);
	return i;
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
	return len <= b->top->size && off <= b->top->size - len;
}

static uint64_t
iov_length(const struct iovec *iov, int iovcnt)
{
	uint64_t len = 0;

	for (int i = 0; i < iovcnt; i++)
		len += iov[i].iov_len;
	return len;
}

int
block_readv(struct block *b, const struct iovec *iov, int iovcnt, uint64_t off)
{
	uint64_t len = iov_length(iov, iovcnt);
	int r = -EINVAL;

	pthread_rwlock_rdlock(&b->chain);
	if (iovcnt >= 0 && iovcnt <= BLOCK_IOV_MAX && in_range(b, off, len)) {
		atomic_fetch_add_explicit(&b->reads, 1, memory_order_relaxed);
		atomic_fetch_add_explicit(&b->bytes_read, len, memory_order_relaxed);
		r = b->top->format->read(b->top, iov, iovcnt, 0, off, len);
	}
	pthread_rwlock_unlock(&b->chain);
	return tidy_error(b, r);
}

/* Chain lock held. `iov` NULL: zeroes. */
static int
change(struct block *b, const struct iovec *iov, int iovcnt, uint64_t off, uint64_t len)
{
	struct block_merge *m = b->merge;
	struct merge_ticket t = { 0 };
	int r;

	if (m)
		t = merge_enter(m, off, len);
	r = iov ? b->top->format->write(b->top, iov, iovcnt, 0, off, len) : b->top->format->zero(b->top, off, len);
	if (m && !r && iov)
		merge_mirror_write(m, iov, iovcnt, off, len);
	else if (m && !r)
		merge_mirror_zero(m, off, len);
	if (m)
		merge_leave(m, t);
	return r;
}

int
block_writev(struct block *b, const struct iovec *iov, int iovcnt, uint64_t off)
{
	uint64_t len = iov_length(iov, iovcnt);
	int r = -EINVAL;

	pthread_rwlock_rdlock(&b->chain);
	if (iovcnt < 0 || iovcnt > BLOCK_IOV_MAX || !in_range(b, off, len)) {
		r = -EINVAL;
	} else if (b->top->read_only) {
		r = -EROFS;
	} else {
		atomic_fetch_add_explicit(&b->writes, 1, memory_order_relaxed);
		atomic_fetch_add_explicit(&b->bytes_written, len, memory_order_relaxed);
		r = change(b, b->detect_zeroes && iov_is_zero(iov, iovcnt) ? NULL : iov, iovcnt, off, len);
	}
	pthread_rwlock_unlock(&b->chain);
	return tidy_error(b, r);
}

int
block_read(struct block *b, void *buf, uint64_t len, uint64_t off)
{
	struct iovec iov = { buf, len };

	return block_readv(b, &iov, 1, off);
}

int
block_write(struct block *b, const void *buf, uint64_t len, uint64_t off)
{
	struct iovec iov = { (void *)buf, len };

	return block_writev(b, &iov, 1, off);
}

int
block_flush(struct block *b)
{
	int r = 0;

	pthread_rwlock_rdlock(&b->chain);
	if (!b->top->read_only) {
		atomic_fetch_add_explicit(&b->flushes, 1, memory_order_relaxed);
		r = b->top->format->flush(b->top);
		if (!r && b->merge)
			r = merge_mirror_flush(b->merge);
	}
	pthread_rwlock_unlock(&b->chain);
	return tidy_error(b, r);
}

int
block_write_zeroes(struct block *b, uint64_t off, uint64_t len)
{
	int r;

	pthread_rwlock_rdlock(&b->chain);
	if (!in_range(b, off, len))
		r = -EINVAL;
	else if (b->top->read_only)
		r = -EROFS;
	else
		r = change(b, NULL, 0, off, len);
	pthread_rwlock_unlock(&b->chain);
	return tidy_error(b, r);
}

int
block_discard(struct block *b, uint64_t off, uint64_t len)
{
	return block_write_zeroes(b, off, len);
}

bool
block_is_zero(struct block *b, uint64_t off, uint64_t *len)
{
	enum map_kind kind = MAP_DATA;

	pthread_rwlock_rdlock(&b->chain);
	if (image_map_all(b->top, off, len, &kind))
		kind = MAP_DATA; /* who reads there gets the error */
	pthread_rwlock_unlock(&b->chain);
	return kind == MAP_ZERO;
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
		log_error(
			"block", "'%s': the completion eventfd cannot be written (%s)", b->top->path, strerror(errno));
}

/* The host's disk is full, or a password is missing: keep the request, and have that told. Lock held. False: it fails.
 */
static bool
hold(struct block *b, struct block_req *r)
{
	if ((r->result != -ENOSPC && r->result != -ENOKEY) || !b->full || b->draining)
		return false;
	if (!b->held) {
		b->full_due = true;
		b->held_tail = &b->held;
		ring(b);
	}
	*b->held_tail = r;
	b->held_tail = &r->next;
	return true;
}

/* What is held goes to the front of the queue. Lock held. */
static void
unhold(struct block *b)
{
	if (!b->held)
		return;
	*b->held_tail = b->queue;
	if (!b->queue)
		b->queue_tail = b->held_tail;
	b->queue = b->held;
	b->held = NULL;
	b->full_due = false;
	pthread_cond_broadcast(&b->work);
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

/* Metadata that is in memory only. Nobody swaps the top while it is looked at: then it is not dirty, for now. */
static bool
is_dirty(struct block *b)
{
	bool dirty = false;

	if (pthread_rwlock_tryrdlock(&b->chain))
		return true;
	dirty = !b->top->read_only && b->top->format->dirty && b->top->format->dirty(b->top);
	pthread_rwlock_unlock(&b->chain);
	return dirty;
}

static int
flush_idle(struct block *b)
{
	int r = 0;

	pthread_rwlock_rdlock(&b->chain);
	if (!b->top->read_only)
		r = b->top->format->flush(b->top);
	pthread_rwlock_unlock(&b->chain);
	return r;
}

/* A piece of the merge, when there is one and nobody else is at it. Lock held. False: nothing was done. */
static bool
do_job(struct block *b)
{
	struct block_merge *m = b->merge;

	if (!m || b->job_busy || !merge_has_work(m))
		return false;
	b->job_busy = true;
	pthread_mutex_unlock(&b->lock);
	merge_step(m);
	pthread_mutex_lock(&b->lock);
	b->job_busy = false;
	pthread_cond_broadcast(&b->idle);
	return true;
}

/* For a moment, if the last time was worth it. Lock held, not meanwhile: the caller looks at everything anew. */
static bool
watch_for_work(struct block *b)
{
	uint64_t until;

	if (!b->worth_watching || b->watching)
		return false;
	b->watching = true;
	pthread_mutex_unlock(&b->lock);
	until = loop_now() + WATCH_NS;
	while (b->watching && loop_now() < until)
		for (int i = 0; i < 16; i++)
			__builtin_ia32_pause();
	pthread_mutex_lock(&b->lock);
	b->worth_watching = !b->watching;
	b->watching = false;
	return true;
}

/* Wait for work, at most a second when there is metadata to write. Lock held. */
static void
wait_for_work(struct block *b)
{
	struct timespec until;

	b->sleeping++;
	b->idle_since = loop_now();
	if (!is_dirty(b)) {
		pthread_cond_wait(&b->work, &b->lock);
		b->sleeping--;
		return;
	}
	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec++;
	if (pthread_cond_timedwait(&b->work, &b->lock, &until) == ETIMEDOUT && !b->stop && is_dirty(b)) {
		pthread_mutex_unlock(&b->lock);
		if (flush_idle(b))
			sleep(1); /* a full disk: the dirt stays, a guest's own flush will tell the guest */
		pthread_mutex_lock(&b->lock);
	}
	b->sleeping--;
}

static struct block_req *
take_finished(struct block *b)
{
	struct block_req *r;

	pthread_mutex_lock(&b->lock);
	r = b->finished;
	if (r) {
		b->finished = r->next;
		if (!b->finished)
			b->finished_tail = &b->finished;
		b->in_flight--; /* before done(): the owner may free the request, submit it again, or drain */
	}
	pthread_mutex_unlock(&b->lock);
	return r;
}

static bool
take_full_due(struct block *b)
{
	bool due;

	pthread_mutex_lock(&b->lock);
	due = b->full_due;
	b->full_due = false;
	pthread_mutex_unlock(&b->lock);
	return due;
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

	/* Before the list is looked at, so that what comes later rings again. */
	if (b->bell >= 0 && read(b->bell, &count, sizeof(count)) < 0 && errno != EAGAIN)
		log_error("block", "'%s': the completion eventfd cannot be read (%s)", b->top->path, strerror(errno));
	if (take_full_due(b))
		b->full(b->full_opaque);
	while ((r = take_finished(b)))
		r->done(r, r->result);
}

/*
 * The only request in flight goes to done() from its worker, without a way through the loop. Lock held, not meanwhile. False: the
 * machine lock is not free.
 */
static bool
hand_over(struct block *b, struct block_req *r)
{
	struct loop *loop = b->loop; /* as long as something is in flight */

	if (!loop || b->in_flight != 1 || !loop_try_lock(loop))
		return false;
	b->in_flight = 0;
	b->writing++; /* a write that done() submits is this worker's */
	pthread_cond_broadcast(&b->idle);
	pthread_mutex_unlock(&b->lock);
	r->done(r, r->result);
	loop_unlock(loop);
	pthread_mutex_lock(&b->lock);
	b->writing--;
	return true;
}

static void *
worker(void *opaque)
{
	struct block *b = opaque;

	rights_drop_capabilities(); /* the files are open; what a guest's image makes of this thread needs no more */
	pthread_mutex_lock(&b->lock);
	while (!b->stop) {
		struct block_req *r = take_request(b);

		if (!r) {
			if (!do_job(b) && !watch_for_work(b))
				wait_for_work(b);
			continue;
		}
		b->writing += r->op == BLOCK_WRITE;
		pthread_mutex_unlock(&b->lock);
		if (b->limit && (r->op == BLOCK_READ || r->op == BLOCK_WRITE))
			block_limit_take(b->limit, iov_length(r->iov, r->iovcnt));
		r->result = carry_out(b, r);
		pthread_mutex_lock(&b->lock);
		b->writing -= r->op == BLOCK_WRITE;
		if (!hold(b, r) && !hand_over(b, r))
			finish(b, r);
		if (++b->taken % JOB_SHARE == 0)
			do_job(b);
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
		log_error("block", "'%s': no completion eventfd (%s); its disk will not answer", b->top->path,
			strerror(errno));
	start_workers(b, b->top->read_only ? 2 : WORKERS_MAX);
}

/*
 * A read of what the host has in its page cache is a copy: quicker done than given to another thread. False: it is not,
 * or somebody changes the chain, or it is to be held back; then it goes the long way.
 */
static bool
read_at_once(struct block *b, const struct block_req *r)
{
	uint64_t len = iov_length(r->iov, r->iovcnt);
	int res = -EAGAIN;

	if (r->op != BLOCK_READ || len > AT_ONCE_MAX || !b->loop || b->limit || pthread_rwlock_tryrdlock(&b->chain))
		return false;
	if (b->top->direct) { /* there is nothing of it in the page cache */
		pthread_rwlock_unlock(&b->chain);
		return false;
	}
	file_cached_only(true);
	if (r->iovcnt <= BLOCK_IOV_MAX && in_range(b, r->off, len))
		res = b->top->format->read(b->top, r->iov, r->iovcnt, 0, r->off, len);
	file_cached_only(false);
	pthread_rwlock_unlock(&b->chain);
	if (res)
		return false;
	atomic_fetch_add_explicit(&b->reads, 1, memory_order_relaxed);
	atomic_fetch_add_explicit(&b->bytes_read, len, memory_order_relaxed);
	return true;
}

/* Lock held. Writes through the page cache take turns in the host's kernel anyway: who is at one takes the next as well. */
static void
wake_worker(struct block *b, const struct block_req *r)
{
	if (r->op == BLOCK_WRITE && b->writing && !b->direct)
		return;
	if (b->watching) {
		b->watching = false;
		return;
	}
	if (b->in_flight == 1 && loop_now() - b->idle_since < WATCH_NS)
		b->worth_watching = true;
	pthread_cond_signal(&b->work);
}

void
block_submit(struct block *b, struct block_req *r)
{
	r->b = b;
	r->next = NULL;
	if (read_at_once(b, r)) {
		r->done(r, 0);
		return;
	}
	if (!b->workers)
		start_workers(b, 1);
	pthread_mutex_lock(&b->lock);
	b->in_flight++;
	if (b->workers) {
		*b->queue_tail = r;
		b->queue_tail = &r->next;
		wake_worker(b, r);
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
	if (b->limit)
		block_limit_hurry(b->limit, true);
	pthread_mutex_lock(&b->lock);
	b->draining++;
	unhold(b);
	while (b->in_flight) {
		while (!b->finished && b->in_flight)
			pthread_cond_wait(&b->idle, &b->lock);
		pthread_mutex_unlock(&b->lock);
		deliver(b);
		pthread_mutex_lock(&b->lock);
	}
	b->draining--;
	pthread_mutex_unlock(&b->lock);
	if (b->limit)
		block_limit_hurry(b->limit, false);
}

/* ---- a full disk, bandwidth ---- */

void
block_hold_when_full(struct block *b, void (*full)(void *opaque), void *opaque)
{
	b->full = full;
	b->full_opaque = opaque;
}

bool
block_is_full(struct block *b)
{
	bool full;

	pthread_mutex_lock(&b->lock);
	full = b->held != NULL;
	pthread_mutex_unlock(&b->lock);
	return full;
}

void
block_retry(struct block *b)
{
	pthread_mutex_lock(&b->lock);
	unhold(b);
	pthread_mutex_unlock(&b->lock);
}

void
block_set_limit(struct block *b, struct block_limit *l)
{
	b->limit = l;
}
