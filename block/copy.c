/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Copying a whole disk from one image to another.
 *
 * The disk is cut into pieces of 2 MiB. Threads take the next piece each, ask the source what is there, skip what is a
 * hole or known to be zero, and carry the rest over in buffers that fit into a processor's cache; what turns out to be
 * zeroes is skipped too, by pages. Threads write to places of the target in no order; its driver puts them where it
 * likes. When the copy is to be on stable storage at the end, the thread that waits for the others has the host begin
 * with what is there already.
 *
 * Both images are opened by the caller, and nobody else uses them.
 */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "block/file.h"
#include "block/format.h"

#define PIECE (2ull << 20)
#define BUFFER (256u << 10)
#define PAGE 4096u
#define THREADS_MAX 8

struct copying {
	struct image *from, *to;
	uint64_t size;
	bool fill, sync;
	_Atomic uint64_t next, done;
	_Atomic int error;
	_Atomic bool stop;
	pthread_mutex_t lock;
	pthread_cond_t ended;
	int running;
};

/* Write what is not zero of `buf`, in pages; a run of zeroes shorter than 16 pages is not worth a call more. */
static int
write_data(struct copying *c, uint8_t *buf, uint64_t off, uint64_t len)
{
	uint64_t at = 0;
	int r = 0;

	while (at < len && !r) {
		uint64_t start = at, zeroes = 0;
		struct iovec iov;

		while (at < len && mem_is_zero(buf + at, MIN(PAGE, len - at)))
			at += MIN(PAGE, len - at);
		if (at > start && c->fill)
			r = c->to->format->zero(c->to, off + start, at - start);
		start = at;
		while (at < len && zeroes < 16) {
			zeroes = mem_is_zero(buf + at, MIN(PAGE, len - at)) ? zeroes + 1 : 0;
			at += MIN(PAGE, len - at);
		}
		if (zeroes == 16)
			at -= zeroes * PAGE;
		iov = (struct iovec){ buf + start, at - start };
		if (!r && at > start)
			r = c->to->format->write(c->to, &iov, 1, 0, off + start, at - start);
	}
	return r;
}

static int
copy_data(struct copying *c, uint8_t *buf, uint64_t off, uint64_t len)
{
	int r = 0;

	for (uint64_t n; len && !r; off += n, len -= n) {
		struct iovec iov = { buf, 0 };

		n = iov.iov_len = MIN(BUFFER - off % BUFFER, len);
		r = c->from->format->read(c->from, &iov, 1, 0, off, n);
		if (!r)
			r = write_data(c, buf, off, n);
	}
	return r;
}

static int
copy_piece(struct copying *c, uint8_t *buf, uint64_t off, uint64_t len)
{
	int r = 0;

	for (uint64_t n; len && !r && !atomic_load(&c->stop); off += n, len -= n) {
		enum map_kind kind;

		n = len;
		r = image_map_all(c->from, off, &n, &kind);
		if (!r && kind == MAP_DATA)
			r = copy_data(c, buf, off, n);
		else if (!r && c->fill)
			r = c->to->format->zero(c->to, off, n);
	}
	return r;
}

static void *
copier(void *opaque)
{
	struct copying *c = opaque;
	uint8_t *buf = aligned_alloc(PAGE, BUFFER);
	int r = buf ? 0 : -ENOMEM;

	while (!r && !atomic_load(&c->error) && !atomic_load(&c->stop)) {
		uint64_t off = atomic_fetch_add(&c->next, PIECE), len = off < c->size ? MIN(PIECE, c->size - off) : 0;

		if (!len)
			break;
		r = copy_piece(c, buf, off, len);
		atomic_fetch_add(&c->done, len);
	}
	free(buf);
	if (r)
		atomic_store(&c->error, r);
	pthread_mutex_lock(&c->lock);
	c->running--;
	pthread_cond_signal(&c->ended);
	pthread_mutex_unlock(&c->lock);
	return NULL;
}

/* How many processors this process may use. */
static int
processors(void)
{
	cpu_set_t set;

	return sched_getaffinity(0, sizeof(set), &set) ? 1 : CPU_COUNT(&set);
}

/* Tell how far it is, ten times a second, until all threads have ended. */
static void
wait_for_end(struct copying *c, const struct block_progress *p)
{
	struct timespec until;

	pthread_mutex_lock(&c->lock);
	while (c->running) {
		clock_gettime(CLOCK_REALTIME, &until);
		until.tv_nsec += 100000000;
		until.tv_sec += until.tv_nsec / 1000000000;
		until.tv_nsec %= 1000000000;
		pthread_cond_timedwait(&c->ended, &c->lock, &until);
		pthread_mutex_unlock(&c->lock);
		if (c->sync)
			image_start_sync(c->to);
		if (p && p->percent)
			p->percent(p->opaque, (int)(atomic_load(&c->done) / 1024 * 99 / (c->size / 1024 + 1)));
		if (p && p->stopped && p->stopped(p->opaque))
			atomic_store(&c->stop, true);
		pthread_mutex_lock(&c->lock);
	}
	pthread_mutex_unlock(&c->lock);
}

static void
run_copiers(struct copying *c, const struct block_progress *p)
{
	int wanted = MIN(processors(), THREADS_MAX), started = 0;
	pthread_t threads[THREADS_MAX];

	pthread_mutex_init(&c->lock, NULL);
	pthread_cond_init(&c->ended, NULL);
	c->running = wanted;
	while (started < wanted && !pthread_create(&threads[started], NULL, copier, c))
		started++;
	pthread_mutex_lock(&c->lock);
	c->running -= wanted - started;
	pthread_mutex_unlock(&c->lock);
	if (!started) { /* no thread is to be had: this one, then */
		c->running = 1;
		copier(c);
	}
	wait_for_end(c, p);
	for (int i = 0; i < started; i++)
		pthread_join(threads[i], NULL);
	pthread_mutex_destroy(&c->lock);
	pthread_cond_destroy(&c->ended);
}

int
block_copy(const struct block_copy *how, struct err *e)
{
	struct copying c = { .from = how->from->top, .to = how->to->top, .fill = how->fill, .sync = how->sync };
	int r;

	c.size = MIN(c.from->size, c.to->size);
	if (c.from->size > c.to->size)
		return err_set(e, ERR_INVALID, "'%s' has %llu bytes and '%s' only %llu", c.from->path,
			(unsigned long long)c.from->size, c.to->path, (unsigned long long)c.to->size);
	run_copiers(&c, how->progress);
	r = atomic_load(&c.error);
	if (!r && how->fill && c.to->size > c.size)
		r = c.to->format->zero(c.to, c.size, c.to->size - c.size);
	if (!r && atomic_load(&c.stop))
		return err_set(e, ERR_FAILED, "The copying was cancelled");
	if (!r && how->sync) {
		r = c.to->format->flush(c.to);
		if (!r)
			r = image_sync_files(c.to);
	}
	if (r)
		return err_sys(e, ERR_FILE, r, "'%s' cannot be copied to '%s'", c.from->path, c.to->path);
	if (how->progress && how->progress->percent)
		how->progress->percent(how->progress->opaque, 100);
	return 0;
}
