/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Saving a machine that runs on. Two ways to have memory as it was at one moment while the guest changes it:
 *
 * Copy before write (userfaultfd(2), mode "write protect"). open: all blocks of memory are registered. begin, while the
 * machine stands still: the devices are described and all memory is write-protected, which takes milliseconds.
 * finish, while it runs: threads go through memory; a chunk is copied, its protection is lifted, the copy is compressed
 * and written. A guest that writes to a chunk before its turn waits until a thread that watches for this has copied it
 * (tens of microseconds); such copies are queued for the others.
 *
 *	state of a chunk	0 protected	1 being copied	2 copied, free to be changed
 *
 * Rounds (where userfaultfd is not allowed). open: the dirty log (bus/mem.h) is switched on and all memory written
 * while the guest runs; then what has changed since, up to ROUNDS_MAX times or until that is little. begin: what has
 * changed since is copied. finish: the copies are written. How long the machine stands still depends on how fast the
 * guest writes. A chunk written twice leaves its first place in the file unused.
 */
#include <errno.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/log.h"
#include "state/private.h"

#define ROUNDS_MAX 6
#define LITTLE (16u << 20) /* so much is copied in a few milliseconds */

struct copy {
	struct copy *next;
	uint64_t n;
	uint32_t len;
	uint8_t data[];
};

struct state_live {
	struct machine *m;
	struct cpus *c;
	struct state_map map;
	struct state_writer w;
	struct str description;
	int uffd; /* -1: rounds */
	bool registered, protected;
	pthread_t handler;
	bool handler_runs;
	int stop_fd;
	_Atomic uint8_t *done;
	uint8_t *changed; /* rounds: chunks to be written */
	_Atomic uint64_t next;
	const struct state_progress *progress, *stop;

	pthread_mutex_t lock; /* the rest */
	struct copy *copies;
	uint64_t written; /* chunks */
	int percent;
	int result;
	struct state_numbers numbers;
};

/* ---- write protection ---- */

static int
protect(struct state_live *l, uint8_t *at, uint64_t len, bool on)
{
	struct uffdio_writeprotect wp = { .range = { (uintptr_t)at, len },
		.mode = on ? UFFDIO_WRITEPROTECT_MODE_WP : 0 };

	while (ioctl(l->uffd, UFFDIO_WRITEPROTECT, &wp))
		if (errno != EAGAIN && errno != EINTR)
			return -errno;
	return 0;
}

static void
unregister(struct state_live *l)
{
	for (int i = 0; l->registered && i < l->map.rams; i++) {
		struct uffdio_range r = { (uintptr_t)l->map.ram[i].ram->host, l->map.ram[i].size };

		ioctl(l->uffd, UFFDIO_UNREGISTER, &r); /* lifts what is still protected, wakes who waits */
	}
	if (l->registered)
		mem_alias_go(&l->m->mem);
	l->registered = false;
}

/* Pages that are not there yet could be written to unseen before Linux 6.4: map zeroes for them. */
static int
register_blocks(struct state_live *l)
{
	l->registered = true;
	mem_alias_stop(&l->m->mem); /* only what goes through the blocks' addresses waits */
	for (int i = 0; i < l->map.rams; i++) {
		struct state_ram *r = &l->map.ram[i];
		struct uffdio_register reg = { .range = { (uintptr_t)r->ram->host, r->size },
			.mode = UFFDIO_REGISTER_MODE_WP };

		if (ioctl(l->uffd, UFFDIO_REGISTER, &reg))
			return -errno;
#ifndef UFFD_FEATURE_WP_UNPOPULATED
#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ 22
#endif
		if (madvise(r->ram->host, r->size, MADV_POPULATE_READ))
			return -errno;
#endif
	}
	return 0;
}

/* To read what the guest never touched would make it cost memory. */
static void
copy_chunk(struct state_live *l, uint8_t *to, const uint8_t *at, uint32_t len)
{
	if (mem_untouched(&l->m->mem, at, len))
		memset(to, 0, len);
	else
		memcpy(to, at, len);
}

/* Copy chunk n as it was at `begin` into `to`. False: somebody else does or did. */
static bool
capture(struct state_live *l, uint64_t n, uint8_t *to)
{
	uint8_t untouched = 0;
	uint32_t len;
	uint8_t *at = state_chunk_at(&l->map, n, &len);

	if (!__atomic_compare_exchange_n(
		    (uint8_t *)&l->done[n], &untouched, 1, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST))
		return false;
	copy_chunk(l, to, at, len);
	protect(l, at, len, false);
	l->done[n] = 2;
	return true;
}

static void
push_copy(struct state_live *l, struct copy *c)
{
	pthread_mutex_lock(&l->lock);
	c->next = l->copies;
	l->copies = c;
	l->numbers.copied += c->len;
	pthread_mutex_unlock(&l->lock);
}

static struct copy *
pop_copy(struct state_live *l)
{
	struct copy *c;

	pthread_mutex_lock(&l->lock);
	c = l->copies;
	if (c)
		l->copies = c->next;
	pthread_mutex_unlock(&l->lock);
	return c;
}

static struct copy *
new_copy(const struct state_live *l, uint64_t n)
{
	uint32_t len;
	struct copy *c;

	state_chunk_at(&l->map, n, &len);
	c = xcalloc(1, sizeof(*c) + len);
	c->n = n;
	c->len = len;
	return c;
}

static void
fault(struct state_live *l, uint64_t address)
{
	uint64_t n = state_chunk_of(&l->map, (void *)(uintptr_t)address);
	struct uffdio_range wake = { address & ~(uint64_t)PAGE_MASK, PAGE_SIZE };
	struct copy *c;

	if (n == UINT64_MAX)
		return;
	if (l->done[n] == 2) {
		ioctl(l->uffd, UFFDIO_WAKE, &wake);
		return;
	}
	c = new_copy(l, n);
	if (capture(l, n, c->data))
		push_copy(l, c);
	else
		free(c); /* whoever copies it lifts the protection and so wakes the guest */
}

static void *
handle_faults(void *opaque)
{
	struct state_live *l = opaque;
	struct pollfd w[2] = { { .fd = l->uffd, .events = POLLIN }, { .fd = l->stop_fd, .events = POLLIN } };

	while (!w[1].revents) {
		struct uffd_msg msg;

		if (poll(w, 2, -1) < 0 && errno != EINTR)
			break;
		while (read(l->uffd, &msg, sizeof(msg)) == sizeof(msg))
			if (msg.event == UFFD_EVENT_PAGEFAULT)
				fault(l, msg.arg.pagefault.address);
	}
	return NULL;
}

/* ---- writing ---- */

/*
 * Whoever is told of progress may wait for the machine lock, and who has that may be waiting for a page that the
 * handler copies only when it gets l->lock: so nobody is told under l->lock.
 */
static void
note_result(struct state_live *l, int r)
{
	bool tell;
	int percent;

	pthread_mutex_lock(&l->lock);
	if (r < 0 && !l->result)
		l->result = r;
	l->written++;
	percent = (int)MIN(l->written * 99 / l->map.count, 99u);
	tell = l->progress && l->progress->at && percent > l->percent;
	l->percent = MAX(percent, l->percent);
	pthread_mutex_unlock(&l->lock);
	if (tell)
		l->progress->at(l->progress->opaque, percent);
}

static void
write_chunk(struct state_live *l, struct state_packer *p, uint64_t n, const uint8_t *data, uint32_t len)
{
	int r = l->result ? 0 : state_stopped(l->stop) ? -ECANCELED : state_pack(p, &l->map, n, data, len);

	if (r > 0)
		r = state_put(&l->w, p, n, atomic_fetch_add(&l->w.end, (uint64_t)r));
	note_result(l, r);
}

/*
 * Chunks in order, copies first (they take memory). In rounds the guest may change a chunk while it is read: it is
 * noted as changed then and written again.
 */
static void *
write_some(void *opaque)
{
	struct state_live *l = opaque;
	uint8_t *data = malloc(STATE_CHUNK);
	struct state_packer p = { 0 };
	struct copy *c;
	uint64_t n;

	if (!data || state_packer_open(&p)) {
		note_result(l, -ENOMEM);
		free(data);
		return NULL;
	}
	for (;;) {
		const uint8_t *at;
		uint32_t len;

		while ((c = pop_copy(l))) {
			write_chunk(l, &p, c->n, c->data, c->len);
			free(c);
		}
		n = l->next++;
		if (n >= l->map.count)
			break;
		if (l->uffd < 0) {
			if (!l->changed[n])
				continue;
			at = state_chunk_at(&l->map, n, &len);
			copy_chunk(l, data, at, len);
		} else if (!capture(l, n, data)) {
			continue;
		}
		state_chunk_at(&l->map, n, &len);
		write_chunk(l, &p, n, data, len);
	}
	state_packer_close(&p);
	free(data);
	return NULL;
}

/* Runs write_some() on several threads until nothing is left. */
static int
write_all(struct state_live *l)
{
	pthread_t t[STATE_THREADS_MAX];
	unsigned count = state_threads(), made = 0;
	bool left;

	l->next = 0;
	while (made + 1 < count && !pthread_create(&t[made], NULL, write_some, l))
		made++;
	write_some(l);
	while (made)
		pthread_join(t[--made], NULL);
	/* A copy pushed by the handler when the threads had already gone. */
	do {
		left = false;
		for (uint64_t n = 0; l->uffd >= 0 && n < l->map.count && !left; n++)
			left = l->done[n] == 1;
		if (left)
			sched_yield();
	} while (left);
	l->next = l->map.count;
	while (l->copies)
		write_some(l);
	return l->result;
}

/* ---- rounds ---- */

static void
log_start(struct state_live *l)
{
	machine_lock(l->m);
	for (int i = 0; i < l->map.rams; i++)
		mem_log_start(l->map.ram[i].ram, 0, l->map.ram[i].size);
	machine_unlock(l->m);
}

/* Which chunks were changed since log_start(); their bytes. Machine lock held. */
static uint64_t
collect(struct state_live *l)
{
	uint64_t bytes = 0;

	for (int i = 0; i < l->map.rams; i++) {
		struct state_ram *r = &l->map.ram[i];

		mem_log_sync(r->ram);
		for (uint64_t k = 0; k < r->chunks; k++) {
			uint64_t page = k * STATE_CHUNK_PAGES;
			uint64_t pages = MIN((uint64_t)STATE_CHUNK_PAGES, (r->size >> PAGE_SHIFT) - page);
			bool dirty = memchr(r->ram->dirty + page, 1, pages) != NULL;

			l->changed[r->first + k] = dirty;
			bytes += dirty ? STATE_CHUNK : 0;
		}
	}
	return bytes;
}

static int
run_rounds(struct state_live *l)
{
	uint64_t bytes;

	memset(l->changed, 1, l->map.count);
	for (;;) {
		log_start(l);
		if (write_all(l))
			return l->result;
		l->numbers.rounds++;
		machine_lock(l->m);
		bytes = collect(l);
		machine_unlock(l->m);
		/* What changes from here on comes on top: the log goes on, `changed` is collected again at begin. */
		if (bytes <= LITTLE || l->numbers.rounds == ROUNDS_MAX)
			return 0;
	}
}

/* The chunks that changed since the last round, as they are now that the machine stands still. */
static void
copy_changed(struct state_live *l)
{
	machine_lock(l->m);
	collect(l);
	machine_unlock(l->m);
	for (uint64_t n = 0; n < l->map.count; n++) {
		uint32_t len;
		struct copy *c;

		if (!l->changed[n])
			continue;
		c = new_copy(l, n);
		copy_chunk(l, c->data, state_chunk_at(&l->map, n, &len), c->len);
		push_copy(l, c); /* the order does not matter */
	}
	memset(l->changed, 0, l->map.count);
}

/* ---- the three phases ---- */

static int
open_protection(struct state_live *l, int uffd)
{
	l->uffd = uffd;
	l->stop_fd = eventfd(0, EFD_CLOEXEC);
	if (l->stop_fd < 0 || register_blocks(l)) {
		unregister(l);
		l->uffd = -1;
		return -1;
	}
	if (pthread_create(&l->handler, NULL, handle_faults, l)) {
		unregister(l);
		l->uffd = -1;
		return -1;
	}
	l->handler_runs = true;
	return 0;
}

struct state_live *
state_live_open(int fd, struct machine *m, struct cpus *c, int uffd, const struct state_progress *stop, struct err *e)
{
	struct state_live *l = xcalloc(1, sizeof(*l));
	int r = 0;

	l->m = m;
	l->c = c;
	l->stop = stop;
	l->uffd = l->stop_fd = l->percent = -1;
	pthread_mutex_init(&l->lock, NULL);
	if (state_map_init(&l->map, &m->mem, e)) {
		state_live_close(l);
		return NULL;
	}
	l->done = xcalloc(l->map.count, 1);
	l->changed = xcalloc(l->map.count, 1);
	state_writer_init(&l->w, fd, &l->map);
	for (int i = 0; i < l->map.rams; i++)
		l->numbers.memory += l->map.ram[i].size;
	if (uffd < 0 || open_protection(l, uffd))
		r = run_rounds(l);
	if (!r)
		return l;
	err_sys(e, ERR_FILE, r, "cannot write the saved state");
	state_live_close(l);
	return NULL;
}

int
state_live_begin(struct state_live *l, struct err *e)
{
	state_describe(&l->description, l->m, l->c);
	if (l->uffd < 0) {
		copy_changed(l);
		return 0;
	}
	for (int i = 0; i < l->map.rams; i++) {
		int r = protect(l, l->map.ram[i].ram->host, l->map.ram[i].size, true);

		if (r)
			return err_sys(e, ERR_HOST, r, "cannot write-protect the machine's memory");
	}
	return 0;
}

static void
stop_handler(struct state_live *l)
{
	uint64_t one = 1;

	if (!l->handler_runs)
		return;
	unregister(l);
	while (write(l->stop_fd, &one, sizeof(one)) < 0 && errno == EINTR)
		;
	pthread_join(l->handler, NULL);
	l->handler_runs = false;
}

int
state_live_finish(struct state_live *l, const struct state_progress *p, struct state_numbers *n, struct err *e)
{
	int r;

	l->progress = p;
	l->written = 0;
	l->percent = -1;
	r = write_all(l);
	stop_handler(l);
	r = r ? err_sys(e, ERR_FILE, r, "cannot write the saved state")
	      : state_writer_finish(&l->w, &l->description, e);
	l->numbers.written = l->w.end;
	if (n)
		*n = l->numbers;
	return r;
}

void
state_live_close(struct state_live *l)
{
	struct copy *c;

	if (!l)
		return;
	stop_handler(l);
	unregister(l);
	while ((c = pop_copy(l)))
		free(c);
	if (l->stop_fd >= 0)
		close(l->stop_fd);
	free((void *)l->done);
	free(l->changed);
	str_free(&l->description);
	state_map_free(&l->map);
	pthread_mutex_destroy(&l->lock);
	free(l);
}
