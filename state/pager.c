/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Loading memory, at once or on demand.
 *
 * At once: threads decompress chunks side by side into the machine's memory.
 *
 * On demand (userfaultfd(2), mode "missing"): all pages of the large blocks are dropped and the blocks registered; the
 * machine runs at once, and what it touches first waits for a thread that waits for faults, decompresses the chunk and
 * puts it in place (UFFDIO_COPY). Meanwhile other threads do the same for all chunks in order, so that after a while
 * nothing is missing any more; then the blocks are taken off again and the file is not needed.
 *
 *	state of a chunk	0 missing	1 somebody is decompressing it		2 in place
 *
 * Whoever takes a chunk from 0 to 1 puts it in place. A fault in a chunk of state 1 is woken by whoever finishes it; in
 * a chunk of state 2 it comes too late, or the page was given back since (a balloon): it gets zeroes.
 *
 * Small blocks (ROMs) are always loaded at once. All checksums were verified before (state_verify()), so that what goes
 * wrong here is a disk that fails or a file that somebody changes: there is no memory then for the guest to go on with,
 * and the process ends.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <zstd.h>

#include "base/log.h"
#include "state/private.h"

#define LAZY_MIN (4u << 20) /* blocks smaller than this are loaded at once */

/* ---- userfaultfd ---- */

int
state_uffd_open(void)
{
	int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK), device;
	struct uffdio_api api = { .api = UFFD_API };

	if (fd < 0) {
		device = open("/dev/userfaultfd", O_RDWR | O_CLOEXEC);
		if (device >= 0) {
			fd = ioctl(device, USERFAULTFD_IOC_NEW, O_CLOEXEC | O_NONBLOCK);
			close(device);
		}
	}
	if (fd < 0)
		return -1;
#ifdef UFFD_FEATURE_WP_UNPOPULATED
	api.features = UFFD_FEATURE_PAGEFAULT_FLAG_WP | UFFD_FEATURE_WP_UNPOPULATED;
	if (!ioctl(fd, UFFDIO_API, &api))
		return fd;
#endif
	api = (struct uffdio_api){ .api = UFFD_API, .features = UFFD_FEATURE_PAGEFAULT_FLAG_WP };
	if (!ioctl(fd, UFFDIO_API, &api))
		return fd;
	close(fd);
	return -1;
}

/* ---- one thread's tools ---- */

struct tools {
	void *zstd;
	uint8_t *packed, *plain;
};

static int
tools_open(struct tools *t)
{
	t->zstd = ZSTD_createDCtx();
	t->packed = malloc(state_bound());
	t->plain = aligned_alloc(PAGE_SIZE, STATE_CHUNK);
	return t->zstd && t->packed && t->plain ? 0 : -ENOMEM;
}

static void
tools_close(struct tools *t)
{
	ZSTD_freeDCtx(t->zstd);
	free(t->packed);
	free(t->plain);
}

/* ---- at once ---- */

struct load {
	const struct state_file *f;
	_Atomic uint64_t next;
	_Atomic int result;
	bool small_only;
};

static bool
is_small(const struct state_file *f, uint64_t n)
{
	for (int i = 0; i < f->map.rams; i++)
		if (n >= f->map.ram[i].first && n - f->map.ram[i].first < f->map.ram[i].chunks)
			return f->map.ram[i].size < LAZY_MIN;
	return false;
}

/* Fresh memory is zeroes: nothing to write then, and no page to allocate. */
static int
load_chunk(const struct state_file *f, uint64_t n, struct tools *t)
{
	uint32_t len;
	uint8_t *at = state_chunk_at(&f->map, n, &len);

	if (!f->map.chunk[n].length)
		return mem_discard(state_mem(&f->map), at, len);
	return state_get(f, n, t->zstd, t->packed, at, len);
}

static void *
load_some(void *opaque)
{
	struct load *l = opaque;
	struct tools t;
	uint64_t n;
	int r = tools_open(&t);

	while (!r && !l->result && (n = l->next++) < l->f->map.count)
		if (!l->small_only || is_small(l->f, n))
			r = load_chunk(l->f, n, &t);
	if (r)
		l->result = r;
	tools_close(&t);
	return NULL;
}

static int
load_now(struct state_file *f, bool small_only, struct err *e)
{
	struct load l = { .f = f, .small_only = small_only };
	unsigned count = small_only ? 1 : state_threads(), made = 0;
	pthread_t t[STATE_THREADS_MAX];

	while (made + 1 < count && !pthread_create(&t[made], NULL, load_some, &l))
		made++;
	load_some(&l);
	while (made)
		pthread_join(t[--made], NULL);
	return l.result ? err_sys(e, ERR_FILE, l.result, "cannot load the memory from '%s'", f->path) : 0;
}

/* ---- on demand ---- */

struct state_pager {
	struct state_file *f;
	char who[80];
	int uffd, stop_fd;
	_Atomic uint8_t *done; /* of each chunk */
	_Atomic uint64_t next;
	_Atomic unsigned readers; /* background threads at work */
	pthread_t handler, reader[STATE_THREADS_MAX];
	unsigned reader_count;
	bool joined;
	_Atomic bool busy;
};

static void __attribute__((noreturn)) give_up(struct state_pager *p, int r)
{
	log_error(p->who, "memory cannot be loaded from the saved state '%s' (%s): the machine ends", p->f->path,
		r == -EBADMSG ? "it was changed since it was verified" : strerror(-r));
	_exit(1);
}

/* Put [at, at+len) in place from `src`; NULL: zeroes. Pages that are there already are left alone. */
static void
put_in_place(struct state_pager *p, uint8_t *at, uint32_t len, const uint8_t *src)
{
	uint32_t done = 0;

	while (done < len) {
		struct uffdio_copy c = { .dst = (uintptr_t)at + done, .src = (uintptr_t)src + done, .len = len - done };
		struct uffdio_zeropage z = { .range = { (uintptr_t)at + done, len - done } };
		struct uffdio_range wake = { (uintptr_t)at + done, PAGE_SIZE };
		int r = src ? ioctl(p->uffd, UFFDIO_COPY, &c) : ioctl(p->uffd, UFFDIO_ZEROPAGE, &z);
		int64_t moved = src ? c.copy : z.zeropage;

		if (!r)
			return;
		if (moved > 0) {
			done += (uint32_t)moved;
		} else if (errno == EEXIST) {
			ioctl(p->uffd, UFFDIO_WAKE, &wake);
			done += PAGE_SIZE;
		} else if (errno != EAGAIN) {
			give_up(p, -errno);
		}
	}
}

static void
bring(struct state_pager *p, uint64_t n, struct tools *t)
{
	uint8_t missing = 0;
	uint32_t len;
	uint8_t *at = state_chunk_at(&p->f->map, n, &len);
	int r;

	if (!__atomic_compare_exchange_n(
		    (uint8_t *)&p->done[n], &missing, 1, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST))
		return;
	if (p->f->map.chunk[n].length) {
		r = state_get(p->f, n, t->zstd, t->packed, t->plain, len);
		if (r)
			give_up(p, r);
		put_in_place(p, at, len, t->plain);
	} else if (!mem_untouched(state_mem(&p->f->map), at, len)) {
		put_in_place(p, at, len, NULL);
	} /* else zeroes it is, but where somebody waits: that would cost memory */
	p->done[n] = 2;
}

static void
fault(struct state_pager *p, uint64_t address, struct tools *t)
{
	uint64_t n = state_chunk_of(&p->f->map, (void *)(uintptr_t)address);

	if (n == UINT64_MAX)
		return;
	if (p->done[n] == 2 || !p->f->map.chunk[n].length)
		put_in_place(p, (uint8_t *)(uintptr_t)(address & ~(uint64_t)PAGE_MASK), PAGE_SIZE, NULL);
	else
		bring(p, n, t);
}

static void *
handle_faults(void *opaque)
{
	struct state_pager *p = opaque;
	struct pollfd w[2] = { { .fd = p->uffd, .events = POLLIN }, { .fd = p->stop_fd, .events = POLLIN } };
	struct tools t;

	if (tools_open(&t))
		give_up(p, -ENOMEM);
	while (!w[1].revents) {
		struct uffd_msg msg;

		if (poll(w, 2, -1) < 0 && errno != EINTR)
			break;
		while (read(p->uffd, &msg, sizeof(msg)) == sizeof(msg))
			if (msg.event == UFFD_EVENT_PAGEFAULT)
				fault(p, msg.arg.pagefault.address, &t);
	}
	tools_close(&t);
	return NULL;
}

static void
unregister(struct state_pager *p)
{
	for (int i = 0; i < p->f->map.rams; i++) {
		struct state_ram *r = &p->f->map.ram[i];
		struct uffdio_range range = { (uintptr_t)r->ram->host, r->size };

		if (r->size >= LAZY_MIN)
			ioctl(p->uffd, UFFDIO_UNREGISTER, &range);
	}
	mem_alias_go(state_mem(&p->f->map));
}

/* The last of the background threads takes the blocks off: nobody can be waiting any more then. */
static void *
read_ahead(void *opaque)
{
	struct state_pager *p = opaque;
	uint64_t one = 1, n;
	struct tools t;

	if (tools_open(&t))
		give_up(p, -ENOMEM);
	while ((n = p->next++) < p->f->map.count)
		if (!is_small(p->f, n))
			bring(p, n, &t);
	tools_close(&t);
	if (--p->readers)
		return NULL;
	for (n = 0; n < p->f->map.count; n++)
		while (!is_small(p->f, n) && p->done[n] != 2)
			sched_yield(); /* the handler has it in hand */
	unregister(p);
	if (write(p->stop_fd, &one, sizeof(one)) != sizeof(one))
		give_up(p, -errno);
	p->busy = false;
	log_info(p->who, "all memory is loaded from the saved state");
	return NULL;
}

static int
register_blocks(struct state_pager *p)
{
	mem_alias_stop(state_mem(&p->f->map)); /* nothing is missing in another mapping of the file */
	for (int i = 0; i < p->f->map.rams; i++) {
		struct state_ram *r = &p->f->map.ram[i];
		struct uffdio_register reg = { .range = { (uintptr_t)r->ram->host, r->size },
			.mode = UFFDIO_REGISTER_MODE_MISSING };

		if (r->size < LAZY_MIN)
			continue;
		if (mem_discard(r->ram->mem, r->ram->host, r->size) || ioctl(p->uffd, UFFDIO_REGISTER, &reg))
			return -errno;
	}
	return 0;
}

static void
pager_free(struct state_pager *p)
{
	if (p->stop_fd >= 0)
		close(p->stop_fd);
	free((void *)p->done);
	free(p);
}

int
state_pager_start(struct state_file *f, struct machine *m, int uffd, struct err *e)
{
	struct state_pager *p = xcalloc(1, sizeof(*p));
	unsigned count = state_threads();

	p->f = f;
	p->uffd = uffd;
	snprintf(p->who, sizeof(p->who), "%s", m->name);
	p->stop_fd = eventfd(0, EFD_CLOEXEC);
	p->done = xcalloc(f->map.count, 1);
	if (register_blocks(p) || p->stop_fd < 0) {
		unregister(p);
		pager_free(p);
		return 1; /* then not on demand */
	}
	p->busy = true;
	f->pager = p;
	if (pthread_create(&p->handler, NULL, handle_faults, p))
		give_up(p, -ENOMEM);
	p->readers = p->reader_count = count;
	for (unsigned i = 0; i < count; i++)
		if (pthread_create(&p->reader[i], NULL, read_ahead, p))
			give_up(p, -ENOMEM);
	return 0;
}

int
state_load_memory(struct state_file *f, struct machine *m, int uffd, struct err *e)
{
	if (uffd < 0)
		return load_now(f, false, e);
	if (load_now(f, true, e))
		return -1;
	return state_pager_start(f, m, uffd, e) ? load_now(f, false, e) : 0;
}

bool
state_load_busy(struct state_file *f)
{
	return f->pager && f->pager->busy;
}

void
state_load_wait(struct state_file *f)
{
	struct state_pager *p = f->pager;

	if (!p)
		return;
	for (unsigned i = 0; i < p->reader_count; i++)
		pthread_join(p->reader[i], NULL);
	pthread_join(p->handler, NULL);
	pager_free(p);
	f->pager = NULL;
}
