/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Code memory and the blocks in it.
 *
 * Each vCPU has an arena of its own: a memfd mapped twice, once to write and once to execute. Blocks are allocated one
 * behind the other and never freed singly; when the arena is full everything is dropped but the knowledge of what was hot,
 * which is made so at once when it is run again. So nothing here is shared between threads but the list of pages that
 * somebody wrote.
 *
 * Who writes to a page with PAGE_CODE (bus/mem.h) notes it for every vCPU and clears the flag; each vCPU then leaves
 * its code at the next poll, sets the flag again if it has blocks of that page, and compares them with memory: what is
 * still the same lives on, so that data beside code costs little. A page that is written again and again keeps its
 * flag, and now and then loses all its blocks and the flag: see code_written().
 */
#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/log.h"
#include "base/str.h"
#include "cpu/jit/emit.h"

#ifndef MFD_EXEC
#define MFD_EXEC 0x0010U
#endif

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25 /* Linux 6.1 */
#endif

#define LARGE_PAGE (2u << 20)
#define WARM (1536u << 10)
#define BLOCK_CODE_MAX (64u << 10)
#define BLOCK_META_MAX (16u << 10)

/* ---- memory ---- */

static int
arena_fd(uint32_t size)
{
	int fd = memfd_create("lodge-jit", MFD_CLOEXEC | MFD_EXEC);

	if (fd < 0 && errno == EINVAL) /* before Linux 6.3 */
		fd = memfd_create("lodge-jit", MFD_CLOEXEC);
	if (fd >= 0 && ftruncate(fd, size) < 0) {
		close(fd);
		fd = -1;
	}
	return fd;
}

static void *
map(int fd, uint32_t size, int prot)
{
	void *p = fd < 0 ? mmap(NULL, size, prot, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0)
			 : mmap(NULL, size, prot, MAP_SHARED, fd, 0);

	return p == MAP_FAILED ? NULL : p;
}

/* The same at an address that large pages can be mapped at. */
static void *
map_aligned(int fd, uint32_t size, int prot)
{
	uint8_t *p = map(-1, size + LARGE_PAGE, PROT_NONE);
	size_t before = p ? -(uintptr_t)p & (LARGE_PAGE - 1) : 0;

	if (!p)
		return NULL;
	if (before)
		munmap(p, before);
	munmap(p + before + size, LARGE_PAGE - before);
	p += before;
	if (mmap(p, size, prot, (fd < 0 ? MAP_PRIVATE | MAP_ANONYMOUS : MAP_SHARED) | MAP_FIXED, fd, 0) != MAP_FAILED)
		return p;
	munmap(p, size);
	return NULL;
}

/*
 * Large pages for the one that ends at `at` so far, of the code that begins at `start`: megabytes of code are run, a little
 * of each page, and the host's TLB would not reach over them. A memfd has none on its own in most hosts; where it cannot be
 * given any nothing is lost. A page that has less than WARM bytes of code waits: machines that do little, forks above all,
 * need not take more memory for it. With the first of code the tables get theirs.
 */
static void
make_large(struct jit_cpu *j, uint32_t start, uint32_t at)
{
	uint32_t n = at / LARGE_PAGE, from = n * LARGE_PAGE;

	if (j->large >> n & 1 || MIN(at - from, at - start) < WARM || from + LARGE_PAGE > j->arena_size)
		return;
	if (!j->large) {
		vcpu_make_large(&j->i.c.v);
		madvise(j->meta, LARGE_PAGE, MADV_HUGEPAGE);
		madvise(j->meta, LARGE_PAGE, MADV_COLLAPSE);
	}
	j->large |= 1u << n;
	if (!madvise(j->rw + from, LARGE_PAGE, MADV_COLLAPSE))
		madvise(j->rx + from, LARGE_PAGE, MADV_COLLAPSE);
}

bool
jit_memory_allowed(void)
{
	int fd = arena_fd(PAGE_SIZE);
	void *p = fd < 0 ? NULL : map(fd, PAGE_SIZE, PROT_READ | PROT_EXEC);

	if (fd >= 0)
		close(fd);
	if (p)
		munmap(p, PAGE_SIZE);
	return p;
}

int
jit_cache_open(struct jit_cpu *j, uint32_t arena_size)
{
	int fd = arena_fd(arena_size);

	if (fd < 0)
		return -errno;
	j->arena_size = arena_size;
	j->meta_size = arena_size;
	j->rw = map_aligned(fd, arena_size, PROT_READ | PROT_WRITE);
	j->rx = map_aligned(fd, arena_size, PROT_READ | PROT_EXEC);
	j->meta = map_aligned(-1, j->meta_size, PROT_READ | PROT_WRITE);
	if (j->meta && j->meta_size > LARGE_PAGE)
		madvise(j->meta + LARGE_PAGE, j->meta_size - LARGE_PAGE, MADV_HUGEPAGE); /* see make_large() */
	close(fd);
	if (!j->rw || !j->rx || !j->meta) {
		jit_cache_close(j);
		return -ENOMEM;
	}
	jit_make_stubs(j);
	jit_void_targets(j);
	jit_drop_all(j);
	return 0;
}

void
jit_cache_close(struct jit_cpu *j)
{
	if (j->rw)
		munmap(j->rw, j->arena_size);
	if (j->rx)
		munmap(j->rx, j->arena_size);
	if (j->meta)
		munmap(j->meta, j->meta_size);
	j->rw = j->rx = j->meta = NULL;
}

void
jit_drop_all(struct jit_cpu *j)
{
	if (j->meta_used > 64) { /* else they are zeroes, and not to be touched */
		memset(j->hash, 0, sizeof(j->hash));
		memset(j->pages, 0, sizeof(j->pages));
		memset(j->sites, 0, sizeof(j->sites));
	}
	memcpy(j->hot_before, j->hot_now, sizeof(j->hot_now));
	memset(j->hot_now, 0, sizeof(j->hot_now));
	j->used = j->start;
	j->cold = j->cold_start = j->arena_size / 100 * 72;
	j->crosses = NULL;
	j->meta_used = 64; /* offset 0 means nothing */
	j->drops++;
	jit_close_window(j);
	jit_new_contexts(j);
}

void
jit_make_room(struct jit_cpu *j)
{
	if (j->cold_start - j->used < BLOCK_CODE_MAX || j->arena_size - j->cold < BLOCK_CODE_MAX ||
		j->meta_size - j->meta_used < BLOCK_META_MAX)
		jit_drop_all(j);
	make_large(j, j->start, j->used);
	make_large(j, j->cold_start, j->cold);
}

void *
jit_meta(struct jit_cpu *j, size_t size)
{
	void *p = j->meta + j->meta_used;

	j->meta_used += (uint32_t)(size + 7) & ~7u;
	return memset(p, 0, size);
}

/* ---- contexts ---- */

/* The key 0 is none's, but that of addresses that are not canonical: they get where every miss does. */
void
jit_void_targets(struct jit_cpu *j)
{
	for (unsigned i = 0; i < JIT_TARGETS; i++)
		j->target[i] = (struct jit_target){ 0, (uint64_t)(uintptr_t)(j->rx + j->stub.jump) };
}

void
jit_new_contexts(struct jit_cpu *j)
{
	memset(j->context, 0xff, sizeof(j->context));
	memset(j->upper_context, 0xff, sizeof(j->upper_context));
	memset(j->noted, 0, sizeof(j->noted));
	j->seen_key = UINT64_MAX;
	jit_forget_views(j);
	j->hot.ctx[0] = j->hot.ctx[1] = 0xffffull << 48; /* matches nothing until the next refresh */
}

/* ---- finding ---- */

static inline uint64_t
hash_of(uint64_t a, uint64_t b)
{
	return (a + b * 0x9e3779b97f4a7c15ull) * 0x9e3779b97f4a7c15ull;
}

static struct jit_block **
bucket(struct jit_cpu *j, uintptr_t host, uint64_t key)
{
	return &j->hash[hash_of(host, key) >> 46];
}
_Static_assert(JIT_BUCKETS == 1u << (64 - 46), "bucket() shifts by this");

struct jit_block *
jit_find(struct jit_cpu *j, uintptr_t host, uint64_t key)
{
	struct jit_block *b = *bucket(j, host, key);

	while (b && (b->host != host || b->key != key))
		b = b->next;
	return b;
}

struct jit_page *
jit_page_of(struct jit_cpu *j, struct ram *ram, uint64_t page, bool make)
{
	struct jit_page **head = &j->pages[hash_of(page, (uintptr_t)ram) >> 52], *p = *head;

	while (p && (p->ram != ram || p->page != page))
		p = p->next;
	if (p || !make)
		return p;
	p = jit_meta(j, sizeof(*p));
	p->ram = ram;
	p->page = page;
	p->next = *head;
	*head = p;
	return p;
}
_Static_assert(JIT_PAGES == 1u << (64 - 52), "jit_page_of() shifts by this");

static unsigned
hot_bit(uintptr_t host, uint64_t key)
{
	return hash_of(host, key & ~(uint64_t)X86_KEY_OWN) >> 44;
}
_Static_assert(JIT_HOT_BITS == 1u << (64 - 44), "hot_bit() shifts by this");

bool
jit_was_hot(const struct jit_cpu *j, uintptr_t host, uint64_t key)
{
	unsigned bit = hot_bit(host, key);

	return j->hot_before[bit / 64] >> bit % 64 & 1;
}

void
jit_add(struct jit_cpu *j, struct jit_block *b)
{
	struct jit_block **head = bucket(j, b->host, b->key);
	unsigned bit = hot_bit(b->host, b->key);

	if (b->tier > 1)
		j->hot_now[bit / 64] |= 1ull << bit % 64;
	b->next = *head;
	*head = b;
	b->page_next = b->page->blocks;
	b->page->blocks = b;
	if (b->second) {
		b->tail_next = b->second->tails;
		b->second->tails = b;
	}
}

/* ---- links ---- */

void
jit_set_link(struct jit_cpu *j, struct jit_link *l, struct jit_block *to)
{
	uint32_t at = l->mem ? to->mem_entry : to->near_entry, body = l->mem ? to->mem_body : to->host_body;

	jit_patch32(j, l->site, (l->ahead && body ? body : at) - (l->site + 4));
	l->next = to->in;
	to->in = l;
	if (l->cross)
		((struct jit_cross *)l)->to = to;
}

void
jit_set_far(struct jit_cpu *j, struct jit_link *l)
{
	uint32_t at = l->stub + l->leaves;

	jit_patch32(j, at, j->stub.link_far - (at + 4));
}

static void
set_key(struct jit_cpu *j, const struct jit_cross *x, uint64_t key)
{
	memcpy(j->rw + x->key, &key, sizeof(key));
}

static void
forget_cross(struct jit_cpu *j, struct jit_cross *x)
{
	x->to = NULL;
	x->wait = 1;
	set_key(j, x, JIT_CROSS_NEVER);
}

static void
leave_target(struct jit_cross *x)
{
	struct jit_link **at;

	if (!x->to)
		return;
	for (at = &x->to->in; *at != &x->link;)
		at = &(*at)->next;
	*at = x->link.next;
	x->to = NULL;
}

void
jit_set_cross(struct jit_cpu *j, struct jit_cross *x, uint64_t sum, struct jit_block *to)
{
	if (x->to != to) {
		leave_target(x);
		jit_set_link(j, &x->link, to);
	}
	set_key(j, x, x->link.mem ? sum : -sum);
}

void
jit_forget_crosses(struct jit_cpu *j)
{
	for (struct jit_cross *x = j->crosses; x; x = x->next)
		set_key(j, x, JIT_CROSS_NEVER);
	for (unsigned i = 0; i < JIT_PAGES; i++)
		for (struct jit_page *p = j->pages[i]; p; p = p->next)
			for (struct jit_block *b = p->tails; b; b = b->tail_next)
				b->cross = UINT64_MAX;
}

void
jit_retire(struct jit_cpu *j, struct jit_block *b, const struct jit_block *to)
{
	struct jit_block **p = bucket(j, b->host, b->key);

	for (struct jit_link *l = b->in; l; l = l->next) {
		if (l->cross)
			forget_cross(j, (struct jit_cross *)l);
		else
			jit_patch32(j, l->site, l->stub - (l->site + 4));
	}
	b->in = NULL;
	/* entries of the jump cache lead here; there is room, the entry begins with LEA */
	j->rw[b->far_entry] = 0xe9;
	jit_patch32(j, b->far_entry + 1, (to ? to->far_entry : j->stub.jump) - (b->far_entry + 5));
	while (*p && *p != b)
		p = &(*p)->next;
	if (*p)
		*p = b->next;
}

/* ---- pages that were written ---- */

static bool
same(const struct jit_block *b)
{
	return !memcmp(b->code, (const void *)b->host, b->bytes_first) &&
	       !memcmp(b->code + b->bytes_first, (const void *)b->host_second, (size_t)(b->bytes - b->bytes_first));
}

static void
drop(struct jit_cpu *j, struct jit_block *b)
{
	struct jit_block **at = &b->page->blocks;

	while (*at != b)
		at = &(*at)->page_next;
	*at = b->page_next;
	if (b->second) {
		for (at = &b->second->tails; *at != b;)
			at = &(*at)->tail_next;
		*at = b->tail_next;
	}
	jit_retire(j, b, NULL);
	j->i.c.v.count.blocks_dropped++;
}

/* `all`: also what is still the same. */
static void
check_page(struct jit_cpu *j, struct jit_page *p, bool all)
{
	struct jit_block *b, *next;

	if (!p->blocks && !p->tails)
		return;
	if (!all)
		mem_watch_code(p->ram, p->page);
	jit_close_window(j);
	for (b = p->blocks; b; b = next) {
		next = b->page_next;
		if (all || !same(b))
			drop(j, b);
	}
	for (b = p->tails; b; b = next) {
		next = b->tail_next;
		if (all || !same(b))
			drop(j, b);
	}
}

static void
lock_pending(struct jit_cpu *j)
{
	while (atomic_flag_test_and_set_explicit(&j->pending_lock, memory_order_acquire))
		__builtin_ia32_pause();
}

void
jit_note_written(struct jit_cpu *j, struct ram *ram, uint64_t page, bool all)
{
	unsigned n;

	lock_pending(j);
	n = j->pending;
	if (n < JIT_PENDING)
		j->pend[n] = (struct jit_pending){ ram, page, all };
	if (n <= JIT_PENDING)
		j->pending = n + 1;
	atomic_flag_clear_explicit(&j->pending_lock, memory_order_release);
	j->hot.run_ok = 0;
}

void
jit_take_pending(struct jit_cpu *j)
{
	struct jit_pending list[JIT_PENDING];
	unsigned n;

	lock_pending(j);
	n = j->pending;
	memcpy(list, j->pend, MIN(n, JIT_PENDING) * sizeof(list[0]));
	j->pending = 0;
	atomic_flag_clear_explicit(&j->pending_lock, memory_order_release);
	for (unsigned i = 0; n <= JIT_PENDING && i < n; i++) {
		struct jit_page *p = jit_page_of(j, list[i].ram, list[i].page, false);

		if (p)
			check_page(j, p, list[i].all);
	}
	for (unsigned i = 0; n > JIT_PENDING && i < JIT_PAGES; i++)
		for (struct jit_page *p = j->pages[i]; p; p = p->next)
			check_page(j, p, false);
}
