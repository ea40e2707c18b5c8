/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation: see mem.h. Compiled for general registers only (Makefile), for cpu/jit/fp.c's sake.
 *
 * Flattening: every region's start and end is a boundary; between two neighbouring boundaries the enabled region of the
 * highest priority (then the latest order) wins; neighbours that continue each other are merged. There are a few dozen
 * regions and changes are rare (BAR moves, PAM), so the quadratic way is the readable one.
 *
 * Readers copy one section under the sequence lock and retry when it moved under them. The section array is never
 * freed, so a reader can at worst look at a section that is being rewritten, and then retries.
 */
#include "bus/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/membarrier.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/log.h"
#include "base/str.h"

int
mem_open(struct mem *m)
{
	memset(m, 0, sizeof(*m));
	/* Needed once per process before MEMBARRIER_CMD_PRIVATE_EXPEDITED; idempotent. */
	if (syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED, 0, 0) < 0)
		return -errno;
	return 0;
}

static void
ram_free(struct ram *r)
{
	if (r->host != MAP_FAILED)
		munmap(r->host, r->size);
	if (r->fd >= 0)
		close(r->fd);
	free((void *)r->flags);
	free((void *)r->gens);
	free(r->dirty);
	free(r->large);
	free(r);
}

void
mem_close(struct mem *m)
{
	struct ram *r;

	while ((r = m->rams)) {
		m->rams = r->next;
		ram_free(r);
	}
	m->regions = NULL;
	m->count = 0;
}

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25 /* Linux 6.1 */
#endif
#define LARGE_PAGE (2ull << 20)

/* At an address where large pages can be mapped. */
static uint8_t *
map_file(int fd, uint64_t size)
{
	uint8_t *p = mmap(NULL, size + LARGE_PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	uint64_t before = -(uintptr_t)p & (LARGE_PAGE - 1);

	if (p == MAP_FAILED)
		return NULL;
	if (before)
		munmap(p, before);
	munmap(p + before + size, LARGE_PAGE - before);
	if (mmap(p + before, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, 0) != MAP_FAILED)
		return p + before;
	munmap(p + before, size);
	return NULL;
}

/* Most hosts give files in memory large pages only where they are asked to at once, and not all can be asked. */
static int
memory_file(uint64_t size, uint8_t **host)
{
	int fd = memfd_create("lodge-ram", MFD_CLOEXEC);

	if (fd < 0)
		return -1;
	*host = ftruncate(fd, (off_t)size) ? NULL : map_file(fd, size);
	if (*host)
		*(volatile uint8_t *)*host = 0; /* where there is nothing at all, nothing is made large */
	if (*host && (size < LARGE_PAGE || !madvise(*host, LARGE_PAGE, MADV_COLLAPSE)))
		return fd;
	if (*host)
		munmap(*host, size);
	*host = NULL;
	close(fd);
	return -1;
}

void
ram_make_large(struct ram *r, uint64_t page)
{
	uint64_t n = page >> 9;

	if (r->large[n] || r->mem->no_alias)
		return;
	r->large[n] = 1;
	(void)*(volatile uint8_t *)(r->host + (page << PAGE_SHIFT));
	if ((n + 1) * LARGE_PAGE <= r->size)
		madvise(r->host + n * LARGE_PAGE, LARGE_PAGE, MADV_COLLAPSE);
}

static struct ram *
create(struct mem *m, const char *name, uint64_t size, bool file)
{
	uint64_t pages = size >> PAGE_SHIFT;
	struct ram *r;

	if (!size || size & PAGE_MASK)
		return NULL;
	r = calloc(1, sizeof(*r));
	if (!r)
		return NULL;
	r->name = name;
	r->size = size;
	r->fd = file ? memory_file(size, &r->host) : -1;
	if (r->fd < 0)
		r->host = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	r->large = r->fd < 0 ? NULL : calloc((pages >> 9) + 1, 1);
	r->flags = calloc(pages, sizeof(*r->flags));
	r->gens = calloc(pages, sizeof(*r->gens));
	r->dirty = calloc(pages, 1);
	if (r->host == MAP_FAILED || !r->flags || !r->gens || !r->dirty || (r->fd >= 0 && !r->large)) {
		ram_free(r);
		return NULL;
	}
	madvise(r->host, size, MADV_HUGEPAGE);
	madvise(r->host, size, MADV_DONTDUMP); /* a guest's secrets do not belong in a core file */
	r->mem = m;
	r->next = m->rams;
	m->rams = r;
	return r;
}

struct ram *
ram_create(struct mem *m, const char *name, uint64_t size)
{
	return create(m, name, size, false);
}

struct ram *
ram_create_file(struct mem *m, const char *name, uint64_t size)
{
	return create(m, name, size, true);
}

void
mem_alias_stop(struct mem *m)
{
	m->no_alias++;
	for (struct mem_listener *l = m->listeners; l; l = l->next)
		if (l->unalias)
			l->unalias(l->opaque);
}

void
mem_alias_go(struct mem *m)
{
	m->no_alias--;
}

void
ram_forget_file(struct ram *r)
{
	int fd = r->fd;

	if (fd < 0)
		return;
	mem_alias_stop(r->mem);
	r->fd = -1;
	mem_alias_go(r->mem);
	close(fd);
}

static const struct ram *
file_of(const struct mem *m, const void *at)
{
	for (const struct ram *r = m->rams; r; r = r->next)
		if ((uintptr_t)at - (uintptr_t)r->host < r->size)
			return r->fd < 0 ? NULL : r;
	return NULL;
}

int
mem_discard(struct mem *m, void *at, uint64_t len)
{
	return madvise(at, len, file_of(m, at) ? MADV_REMOVE : MADV_DONTNEED) ? -errno : 0;
}

bool
mem_untouched(const struct mem *m, const void *at, uint64_t len)
{
	const struct ram *r = file_of(m, at);
	off_t from = r ? (off_t)((uintptr_t)at - (uintptr_t)r->host) : 0, data;

	if (!r)
		return false;
	data = lseek(r->fd, from, SEEK_DATA);
	return data < 0 ? errno == ENXIO : (uint64_t)(data - from) >= len;
}

/* ---- the flat view ---- */

static bool
covers(const struct mem_region *r, const struct mem_region *best)
{
	if (!best || r->priority != best->priority)
		return !best || r->priority > best->priority;
	return r->order > best->order;
}

static const struct mem_region *
winner(const struct mem *m, gpa_t at)
{
	const struct mem_region *best = NULL;

	for (const struct mem_region *r = m->regions; r; r = r->next)
		if (r->enabled && at >= r->base && at - r->base < r->size && covers(r, best))
			best = r;
	return best;
}

static int
compare_gpa(const void *a, const void *b)
{
	gpa_t x = *(const gpa_t *)a, y = *(const gpa_t *)b;

	return x < y ? -1 : x > y;
}

static int
boundaries(const struct mem *m, gpa_t *out, int max)
{
	int n = 0, k = 0;

	for (const struct mem_region *r = m->regions; r; r = r->next) {
		if (!r->enabled || !r->size || n + 2 > max)
			continue;
		out[n++] = r->base;
		out[n++] = r->base + r->size; /* 2^64 wraps to 0: no region reaches that */
	}
	qsort(out, (size_t)n, sizeof(*out), compare_gpa);
	for (int i = 0; i < n; i++)
		if (!i || out[i] != out[k - 1])
			out[k++] = out[i];
	return k;
}

static bool
continues(const struct mem_section *a, const struct mem_section *b)
{
	return a->last + 1 == b->start && a->region == b->region &&
	       b->region_offset - a->region_offset == b->start - a->start;
}

void
mem_update(struct mem *m)
{
	enum { BOUNDARIES_MAX = 2 * MEM_SECTIONS_MAX };
	gpa_t *edge = xcalloc(BOUNDARIES_MAX, sizeof(*edge));
	struct mem_section *next = xcalloc(MEM_SECTIONS_MAX, sizeof(*next));
	int edges = boundaries(m, edge, BOUNDARIES_MAX), n = 0;

	for (int i = 0; i + 1 < edges && n < MEM_SECTIONS_MAX; i++) {
		const struct mem_region *r = winner(m, edge[i]);
		struct mem_section s;

		if (!r)
			continue;
		memset(&s, 0, sizeof(s)); /* padding too: views are compared as bytes below */
		s.start = edge[i];
		s.last = edge[i + 1] - 1;
		s.kind = r->kind;
		s.region = (struct mem_region *)r;
		s.region_offset = s.start - r->base;
		s.ram = r->ram;
		s.ram_offset = r->ram ? r->ram_offset + s.region_offset : 0;
		if (n && continues(&next[n - 1], &s))
			next[n - 1].last = s.last;
		else
			next[n++] = s;
	}
	if (n != m->count || memcmp(next, m->sections, (size_t)n * sizeof(*next))) {
		m->seq++;
		__atomic_thread_fence(__ATOMIC_SEQ_CST);
		memcpy(m->sections, next, (size_t)n * sizeof(*next));
		m->count = n;
		__atomic_thread_fence(__ATOMIC_SEQ_CST);
		m->seq++;
		for (struct mem_listener *l = m->listeners; l; l = l->next)
			if (l->changed)
				l->changed(l->opaque);
	}
	free(next);
	free(edge);
}

void
mem_add(struct mem *m, struct mem_region *r)
{
	r->order = ++m->next_order;
	r->next = m->regions;
	m->regions = r;
	mem_update(m);
}

void
mem_remove(struct mem *m, struct mem_region *r)
{
	for (struct mem_region **p = &m->regions; *p; p = &(*p)->next)
		if (*p == r) {
			*p = r->next;
			break;
		}
	mem_update(m);
}

void
mem_listen(struct mem *m, struct mem_listener *l)
{
	l->next = m->listeners;
	m->listeners = l;
}

void
mem_unlisten(struct mem *m, struct mem_listener *l)
{
	for (struct mem_listener **p = &m->listeners; *p; p = &(*p)->next)
		if (*p == l) {
			*p = l->next;
			return;
		}
}

bool
mem_find(struct mem *m, gpa_t gpa, struct mem_section *out)
{
	uint32_t seq;
	bool found;

	do {
		int lo = 0, hi;

		seq = __atomic_load_n((uint32_t *)&m->seq, __ATOMIC_ACQUIRE);
		hi = MIN(m->count, MEM_SECTIONS_MAX);
		while (lo < hi) {
			int mid = (lo + hi) / 2;

			if (m->sections[mid].last < gpa)
				lo = mid + 1;
			else
				hi = mid;
		}
		found = lo < MIN(m->count, MEM_SECTIONS_MAX) && m->sections[lo].start <= gpa;
		if (found)
			*out = m->sections[lo];
		__atomic_thread_fence(__ATOMIC_ACQUIRE);
	} while ((seq & 1) || seq != m->seq);
	return found;
}

/* ---- the door ---- */

static bool
is_memory(const struct mem_section *s, bool write)
{
	return s->kind == MEM_RAM || (s->kind == MEM_ROM && !write);
}

void *
mem_map(struct mem *m, gpa_t gpa, uint64_t len, bool write)
{
	struct mem_section s;

	if (!len || !mem_find(m, gpa, &s) || !is_memory(&s, write) || len - 1 > s.last - gpa)
		return NULL;
	return s.ram->host + s.ram_offset + (gpa - s.start);
}

void
mem_written(struct mem *m, gpa_t gpa, uint64_t len)
{
	struct mem_section s;

	while (len && mem_find(m, gpa, &s)) {
		uint64_t n = MIN(len, s.last - gpa + 1), off = s.ram_offset + (gpa - s.start);

		if (s.kind == MEM_RAM)
			for (uint64_t page = off >> PAGE_SHIFT; page <= (off + n - 1) >> PAGE_SHIFT; page++)
				if (s.ram->flags[page])
					mem_page_written(s.ram, page);
		gpa += n;
		len -= n;
	}
}

void
mem_unmap(struct mem *m, gpa_t gpa, uint64_t len, bool written)
{
	if (written)
		mem_written(m, gpa, len);
}

/* Walk [gpa, gpa+len) as pieces of memory; with buf NULL only check. */
static bool
copy(struct mem *m, gpa_t gpa, uint8_t *buf, uint64_t len, bool write)
{
	struct mem_section s;

	while (len) {
		uint64_t n;
		uint8_t *p;

		if (!mem_find(m, gpa, &s) || !is_memory(&s, write))
			return false;
		n = MIN(len, s.last - gpa + 1);
		p = s.ram->host + s.ram_offset + (gpa - s.start);
		if (buf) {
			if (write)
				memcpy(p, buf, n);
			else
				memcpy(buf, p, n);
			buf += n;
		}
		gpa += n;
		len -= n;
		if (len && !gpa)
			return false; /* wrapped around the address space */
	}
	return true;
}

bool
mem_read(struct mem *m, gpa_t gpa, void *buf, uint64_t len)
{
	if (copy(m, gpa, buf, len, false))
		return true;
	memset(buf, 0, len);
	return false;
}

bool
mem_write(struct mem *m, gpa_t gpa, const void *buf, uint64_t len)
{
	if (!copy(m, gpa, NULL, len, true))
		return false;
	copy(m, gpa, (uint8_t *)buf, len, true);
	mem_written(m, gpa, len);
	return true;
}

uint64_t
mem_load(struct mem *m, gpa_t gpa, unsigned size)
{
	struct mem_section s;
	uint64_t v = 0;

	if (!mem_find(m, gpa, &s))
		return UINT64_MAX;
	if (size - 1 > s.last - gpa) {
		for (unsigned i = 0; i < size; i++)
			v |= (mem_load(m, gpa + i, 1) & 0xff) << (8 * i);
		return v;
	}
	if (s.kind == MEM_MMIO)
		return bus_read(s.region->ops, s.region->opaque, s.region_offset + (gpa - s.start), size);
	memcpy(&v, s.ram->host + s.ram_offset + (gpa - s.start), size);
	return v;
}

void
mem_store(struct mem *m, gpa_t gpa, uint64_t value, unsigned size)
{
	struct mem_section s;

	if (!mem_find(m, gpa, &s))
		return;
	if (size - 1 > s.last - gpa) {
		for (unsigned i = 0; i < size; i++)
			mem_store(m, gpa + i, value >> (8 * i), 1);
		return;
	}
	if (s.kind == MEM_MMIO)
		bus_write(s.region->ops, s.region->opaque, s.region_offset + (gpa - s.start), value, size);
	else if (s.kind == MEM_RAM) {
		memcpy(s.ram->host + s.ram_offset + (gpa - s.start), &value, size);
		mem_written(m, gpa, size);
	}
}

/* ---- page flags ---- */

void
mem_page_written(struct ram *ram, uint64_t page)
{
	uint8_t f = ram->flags[page];

	if (f & PAGE_CODE) {
		ram->gens[page]++;
		for (struct mem_listener *l = ram->mem->listeners; l; l = l->next)
			if (l->code_written)
				l->code_written(l->opaque, ram, page);
	}
	if (f & PAGE_LOG) {
		ram->dirty[page] = 1;
		ram->flags[page] &= (uint8_t)~PAGE_LOG;
	}
}

static void
tell_watched(struct ram *ram, uint64_t page)
{
	for (struct mem_listener *l = ram->fd < 0 ? NULL : ram->mem->listeners; l; l = l->next)
		if (l->watched)
			l->watched(l->opaque, ram, page);
}

void
mem_watch_code(struct ram *ram, uint64_t page)
{
	if (ram->flags[page] & PAGE_CODE)
		return;
	ram->flags[page] |= PAGE_CODE;
	tell_watched(ram, page);
	/* Every other thread passes a full barrier: its store is visible to us now, or it will see the flag. */
	syscall(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED, 0, 0);
}

void
mem_log_start(struct ram *ram, uint64_t offset, uint64_t len)
{
	uint64_t first = offset >> PAGE_SHIFT, end = (offset + len + PAGE_MASK) >> PAGE_SHIFT;

	for (struct mem_listener *l = ram->mem->listeners; l; l = l->next)
		if (l->log_start)
			l->log_start(l->opaque, ram);
	for (uint64_t page = first; page < MIN(end, ram->size >> PAGE_SHIFT); page++) {
		ram->dirty[page] = 0;
		ram->flags[page] |= PAGE_LOG;
	}
	tell_watched(ram, UINT64_MAX);
	syscall(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED, 0, 0);
}

void
mem_log_sync(struct ram *ram)
{
	for (struct mem_listener *l = ram->mem->listeners; l; l = l->next)
		if (l->log_sync)
			l->log_sync(l->opaque, ram);
}

/* ---- access sizes ---- */

uint64_t
bus_read(const struct bus_ops *ops, void *opaque, uint64_t off, unsigned size)
{
	unsigned min = ops->min_size ? ops->min_size : 1, max = ops->max_size ? ops->max_size : 4;
	uint64_t v = 0;

	if (!ops->read)
		return UINT64_MAX;
	if (size < min) {
		uint64_t base = off & ~(uint64_t)(min - 1);

		return ops->read(opaque, base, min) >> (8 * (off - base));
	}
	if (size <= max)
		return ops->read(opaque, off, size);
	for (unsigned i = 0; i < size; i += max)
		v |= (ops->read(opaque, off + i, max) & (UINT64_MAX >> (64 - 8 * max))) << (8 * i);
	return v;
}

void
bus_write(const struct bus_ops *ops, void *opaque, uint64_t off, uint64_t value, unsigned size)
{
	unsigned min = ops->min_size ? ops->min_size : 1, max = ops->max_size ? ops->max_size : 4;

	if (!ops->write)
		return;
	if (size < min) {
		/* The device only has wide registers: the other bytes are written with zeroes, as a bridge would. */
		uint64_t base = off & ~(uint64_t)(min - 1);

		value &= UINT64_MAX >> (64 - 8 * size);
		ops->write(opaque, base, value << (8 * (off - base)), min);
		return;
	}
	if (size <= max) {
		ops->write(opaque, off, size < 8 ? value & (UINT64_MAX >> (64 - 8 * size)) : value, size);
		return;
	}
	for (unsigned i = 0; i < size; i += max)
		ops->write(opaque, off + i, (value >> (8 * i)) & (UINT64_MAX >> (64 - 8 * max)), max);
}
