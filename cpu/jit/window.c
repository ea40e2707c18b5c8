/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Windows: user memory of a guest where the host's own MMU finds it.
 *
 * The lower half of the linear addresses is 256 regions of 512 GiB. A window is as much of the host's address space,
 * reserved (PROT_NONE), into which single pages of guest memory are mapped once more (bus/mem.h, ram->fd) at the place
 * that they have in the region. Second-tier code of user mode whose mode key has X86_KEY_OWN adds win.base[region] to
 * an address and accesses memory there: nothing is looked up, flags stay as they are. What is not mapped, or not to be
 * written, is a fault of the host; the signal's handler leads to the access's copy among what is seldom run, which asks
 * C, as a miss of the TLB does, and C maps the page.
 *
 * What a guest can reach. The region's number is bits 39 to 46 of an address X that the operand lies within WINDOW_REACH
 * of; base[] holds (the host's address of a window) - (region << 39), or the same of the `void`, a window that nothing
 * is ever mapped into. So the lower 47 bits of base + X are an address in a window, and the upper 17 are those of X: all
 * zeroes, and it is in that window; all ones, and it is in the upper half, which is the host kernel's (its one page that
 * may be readable there would need a window in the last 16 MiB of the lower half: reserve() takes none there); else it
 * is not canonical. Operands reach beyond a window by at most WINDOW_REACH and their size: that much is reserved, and
 * never mapped, on both sides (GUARD). So every access is to a page that was mapped for that very linear address, or
 * faults.
 *
 * Invariants
 *	- A page is mapped for context and linear page exactly while a struct jit_wpage says so, with the rights it says.
 *	- A context is the TLB generation `gen`; what is mapped in it was allowed to user mode by a TLB entry of that
 *	  generation, at a time since which nothing made the TLB forget it: window_gone() is called whenever something
 *	  does. (The TLB itself forgets more. Processors may keep an entry as long as nobody invalidates it.) Pages
 *	  that are global are never mapped: they would outlive their generation.
 *	- base[] shows the context of the current generation or none; translated code of user mode only runs after
 *	  take_context() (run.c) has seen to that, as with hot.gen.
 *	- A page is mapped to be written only while its flags (bus/mem.h) are 0. Who sets flags calls
 *	  jit_window_watch() behind it: map_page() links its note first and looks at the flags then, under the same lock,
 *	  so one of the two sees the other.
 *	- Nothing is mapped while mem->no_alias; who sets it calls jit_window_clear() behind it.
 *
 * `lock` guards notes and mappings, which other threads take away; bases, generations and spaces are the vCPU's own.
 *
 * Policy. A fault costs microseconds, so windows are for address spaces that last: a space is given them when it has
 * run for a while since it was switched to for the first time, and loses them when faults cost more than a share of
 * its time, for a while that doubles each time. Both are a change of mode key (user_key), decided in loop() and on
 * changes of the address space: blocks with and without windows live side by side.
 *
 * Compiled for general registers only (Makefile).
 */
#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

#include "base/log.h"
#include "base/str.h"
#include "bus/machine.h"
#include "cpu/jit/emit.h"
#include "cpu/x86/vec.h"

#define likely(x) __builtin_expect(!!(x), 1)
#define REGION (1ull << JIT_REGION_SHIFT)
#define GUARD (1ull << 20)
#define LAST_START (0x7fff00000000ull - REGION) /* no window reaches the last 4 GiB of the lower half */
#define NOBODY UINT64_MAX			/* generation of a context that is none's */
#define NO_REGION 256u

/* Of all vCPUs: a process may have 65530 mappings, and a page in the middle of nothing makes two. */
#define PAGES_TOTAL 24000u
#define WINDOWS_TOTAL 128u

#define FAULT_NS 8000	  /* what a fault costs, the mapping and its end included */
#define AGE_NS 40000000u  /* a space is this old before it has windows */
#define GRACE_NS 3000000u /* ... and may spend this on faults at once */
#define SHARE 32	  /* ... and of its time, one part in so many */
#define BACKOFF_NS 50000000u
#define BACKOFF_MAX_NS 6400000000ull

_Static_assert(GUARD >= JIT_WINDOW_REACH + 2 * PAGE_SIZE, "operands stay within the guard pages");

/* ---- system calls; the C library's functions may use vector registers ---- */

static uint8_t *
map(void *at, uint64_t len, int prot, int flags, int fd, uint64_t off)
{
	long r = syscall(SYS_mmap, at, len, prot, flags, fd, off);

	return r < 0 ? NULL : (uint8_t *)r;
}

/* What was there must not stay: there is nothing to go on with if the host has no memory for that. */
static void
hide(uint8_t *at, uint64_t len)
{
	const int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED;

	if (likely(map(at, len, PROT_NONE, flags, -1, 0) != NULL))
		return;
	if (!syscall(SYS_mprotect, at, len, PROT_NONE))
		return;
	log_error("jit", "the host has no memory to change mappings: the machine ends");
	_exit(1);
}

static uint8_t *
reserve(void)
{
	uint8_t *p = map(NULL, REGION + 2 * GUARD, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (p && (uintptr_t)p > LAST_START) {
		syscall(SYS_munmap, p, REGION + 2 * GUARD);
		return NULL;
	}
	return p ? p + GUARD : NULL;
}

static void
lock(struct jit_windows *w)
{
	for (unsigned n = 0; atomic_flag_test_and_set_explicit(&w->lock, memory_order_acquire); n++) {
		__builtin_ia32_pause();
		if (n % 64 == 63)
			syscall(SYS_sched_yield);
	}
}

static void
unlock(struct jit_windows *w)
{
	atomic_flag_clear_explicit(&w->lock, memory_order_release);
}

/* ---- notes of what is mapped ---- */

static unsigned
hash(uint64_t a)
{
	return (unsigned)(a * 0x9e3779b97f4a7c15ull >> 48) % JIT_WBUCKETS;
}

static struct jit_wpage **
by_page(struct jit_windows *w, const struct jit_wcontext *x, gva_t page)
{
	return &w->by_page[hash((page >> PAGE_SHIFT) + ((uint64_t)(x - w->context) << 40))];
}

static struct jit_wpage **
by_ram(struct jit_windows *w, const struct ram *ram, uint64_t page)
{
	return &w->by_ram[hash(page + (uintptr_t)ram)];
}

static struct jit_wpage *
find(struct jit_windows *w, const struct jit_wcontext *x, gva_t page)
{
	struct jit_wpage *p = *by_page(w, x, page);

	while (p && (p->context != x || p->page != page))
		p = p->page_next;
	return p;
}

static void
forget_hashed(struct jit_windows *w, struct jit_wpage *p)
{
	struct jit_wpage **at = by_page(w, p->context, p->page);

	while (*at != p)
		at = &(*at)->page_next;
	*at = p->page_next;
	for (at = by_ram(w, p->ram, p->index); *at != p;)
		at = &(*at)->ram_next;
	*at = p->ram_next;
	p->page_next = w->free;
	w->free = p;
}

static uint8_t *
place(const struct jit_wcontext *x, gva_t page)
{
	for (unsigned i = 0; i < JIT_WREGIONS; i++)
		if (x->region[i] == page >> JIT_REGION_SHIFT)
			return x->host[i] + (page & (REGION - 1));
	return NULL;
}

static void
drop_page(struct jit_windows *w, struct jit_wpage *p)
{
	struct jit_wpage **at = &p->context->pages;

	hide(place(p->context, p->page), PAGE_SIZE);
	while (*at != p)
		at = &(*at)->context_next;
	*at = p->context_next;
	forget_hashed(w, p);
}

static void
drop_context(struct jit_windows *w, struct jit_wcontext *x)
{
	struct jit_wpage *p;

	if (!x->pages)
		return;
	w->dropped++;
	for (unsigned i = 0; i < JIT_WREGIONS; i++)
		if (x->region[i] != NO_REGION)
			hide(x->host[i], REGION);
	while ((p = x->pages)) {
		x->pages = p->context_next;
		forget_hashed(w, p);
	}
}

static void
drop_all(struct jit_windows *w)
{
	for (unsigned i = 0; i < w->contexts; i++)
		drop_context(w, &w->context[i]);
}

static struct jit_wpage *
new_page(struct jit_windows *w)
{
	struct jit_wpage *p;

	if (!w->free && w->taken < w->pages)
		return &w->page[w->taken++];
	if (!w->free) {
		w->full++;
		drop_all(w);
	}
	p = w->free;
	w->free = p->page_next;
	return p;
}

/* ---- contexts ---- */

/* `on`: base[] shows this context's windows, else the void. */
static void
show(struct jit_windows *w, const struct jit_wcontext *x, bool on)
{
	for (unsigned i = 0; x && i < JIT_WREGIONS; i++)
		if (x->region[i] != NO_REGION)
			w->base[x->region[i]] =
				(uintptr_t)(on ? x->host[i] : w->none) - ((uint64_t)x->region[i] << JIT_REGION_SHIFT);
}

static struct jit_wcontext *
context_of(struct jit_windows *w, uint64_t gen)
{
	for (unsigned i = 0; i < w->contexts; i++)
		if (w->context[i].gen == gen)
			return &w->context[i];
	return NULL;
}

/* The one used longest ago becomes that of `gen`, empty. */
static struct jit_wcontext *
new_context(struct jit_windows *w, uint64_t gen)
{
	struct jit_wcontext *x = &w->context[0];

	for (unsigned i = 1; i < w->contexts; i++)
		if (w->context[i].used < x->used)
			x = &w->context[i];
	drop_context(w, x);
	if (x == w->current)
		show(w, x, false);
	for (unsigned i = 0; i < JIT_WREGIONS; i++)
		x->region[i] = NO_REGION;
	x->gen = gen;
	return x;
}

/* Generations begin anew, or all are void. */
static void
void_contexts(struct jit_windows *w)
{
	show(w, w->current, false);
	w->current = NULL;
	w->gen = NOBODY;
	for (unsigned i = 0; i < w->contexts; i++) {
		w->context[i].gen = NOBODY;
		w->context[i].used = 0;
	}
}

static uint8_t *
new_region(struct jit_wcontext *x, gva_t page)
{
	for (unsigned i = 0; i < JIT_WREGIONS; i++) {
		if (x->region[i] != NO_REGION)
			continue;
		if (!x->host[i])
			x->host[i] = reserve();
		if (!x->host[i])
			return NULL;
		x->region[i] = (unsigned)(page >> JIT_REGION_SHIFT);
		return place(x, page);
	}
	return NULL;
}

/* ---- mapping ---- */

static void
note_page(struct jit_windows *w, struct jit_wpage *p)
{
	struct jit_wpage **at = by_page(w, p->context, p->page);

	p->page_next = *at;
	*at = p;
	at = by_ram(w, p->ram, p->index);
	p->ram_next = *at;
	*at = p;
	p->context_next = p->context->pages;
	p->context->pages = p;
}

static void
map_page(struct jit_windows *w, struct jit_wcontext *x, gva_t page, const struct soft_tlb_meta *m, bool write)
{
	uint8_t *at = place(x, page);
	struct jit_wpage *p = find(w, x, page);

	if (!at)
		at = new_region(x, page);
	if (!at)
		return;
	if (p && (p->ram != m->ram || p->index != m->page)) {
		drop_page(w, p);
		p = NULL;
	}
	if (!p) {
		p = new_page(w);
		*p = (struct jit_wpage){ .context = x, .page = page, .ram = m->ram, .index = m->page };
		note_page(w, p);
	} else if (p->write == write) {
		return;
	}
	p->write = write;
	atomic_thread_fence(memory_order_seq_cst);
	if (atomic_load(&m->ram->flags[m->page]))
		p->write = false;
	w->maps++;
	if (!map(at, PAGE_SIZE, p->write ? PROT_READ | PROT_WRITE : PROT_READ, MAP_SHARED | MAP_FIXED | MAP_POPULATE,
		    m->ram->fd, m->page << PAGE_SHIFT)) {
		w->full++;
		drop_all(w); /* too many mappings, perhaps */
	}
}

void
jit_window_map(struct jit_cpu *j, gva_t a, const struct soft_tlb_entry *e)
{
	struct soft_cpu *c = &j->i.c;
	struct jit_windows *w = &j->win;
	const struct soft_tlb_meta *m = x86_tlb_meta(c, e);
	gva_t page = a & ~(gva_t)PAGE_MASK, tag = page | c->tlb_gen;
	struct jit_wcontext *x;

	if (!w->contexts || c->mmu != MMU_USER || a >> 47 || e->read != tag || m->global != SOFT_TLB_NEVER)
		return;
	lock(w);
	if (likely(!m->ram->mem->no_alias && m->ram->fd >= 0)) {
		x = context_of(w, c->tlb_gen);
		if (!x)
			x = new_context(w, c->tlb_gen);
		x->used = ++w->clock;
		map_page(w, x, page, m, e->write == tag && !*e->flags);
		w->current = x;
		w->gen = c->tlb_gen;
		show(w, x, true);
	}
	unlock(w);
}

/* ---- what is not so any more ---- */

static void
window_gone(struct soft_cpu *c, enum x86_gone what, gva_t a)
{
	struct jit_cpu *j = (struct jit_cpu *)c;
	struct jit_windows *w = &j->win;
	struct jit_wcontext *x;
	struct jit_wpage *p;

	if (what == X86_GONE_ALL) {
		void_contexts(w);
		return;
	}
	x = context_of(w, c->tlb_gen);
	if (!x || !x->pages)
		return;
	lock(w);
	if (what == X86_GONE_SPACE)
		drop_context(w, x);
	else if ((p = find(w, x, a & ~(gva_t)PAGE_MASK)))
		drop_page(w, p);
	unlock(w);
}

void
jit_window_watch(struct jit_cpu *j, struct ram *ram, uint64_t page)
{
	struct jit_windows *w = &j->win;

	lock(w);
	if (page == UINT64_MAX)
		drop_all(w);
	for (struct jit_wpage *p = page == UINT64_MAX ? NULL : *by_ram(w, ram, page); p; p = p->ram_next)
		if (p->ram == ram && p->index == page && p->write) {
			p->write = false;
			if (syscall(SYS_mprotect, place(p->context, p->page), PAGE_SIZE, PROT_READ))
				hide(place(p->context, p->page), PAGE_SIZE);
		}
	unlock(w);
}

void
jit_window_clear(struct jit_cpu *j)
{
	lock(&j->win);
	drop_all(&j->win);
	unlock(&j->win);
}

/* ---- faults ---- */

static _Thread_local struct jit_cpu *volatile running;
static const int signals[2] = { SIGSEGV, SIGBUS }; /* SIGBUS: not canonical, from RSP or RBP (#SS) */
static struct sigaction previous[2];
static pthread_once_t installed = PTHREAD_ONCE_INIT;

static const struct jit_site *
site_at(struct jit_cpu *j, uintptr_t rip)
{
	const struct jit_site *s;

	if (!j || rip - (uintptr_t)j->rx >= j->arena_size)
		return NULL;
	for (s = j->sites[(rip - (uintptr_t)j->rx) % JIT_SITES]; s; s = s->next)
		if (s->at == rip - (uintptr_t)j->rx)
			return s;
	return NULL;
}

/* An access through a window goes on where C is asked; all else is somebody else's fault. */
static void
on_fault(int sig, siginfo_t *info, void *context)
{
	ucontext_t *uc = context;
	greg_t *rip = &uc->uc_mcontext.gregs[REG_RIP];
	struct jit_cpu *j = running;
	const struct jit_site *s = site_at(j, (uintptr_t)*rip);
	const struct sigaction *before = &previous[sig == SIGBUS];

	if (s) {
		j->win.faults++;
		*rip = (greg_t)(uintptr_t)(j->rx + s->stub);
	} else if (before->sa_flags & SA_SIGINFO) {
		before->sa_sigaction(sig, info, context);
	} else if (before->sa_handler != SIG_DFL && before->sa_handler != SIG_IGN) {
		before->sa_handler(sig);
	} else {
		sigaction(sig, before, NULL); /* happens again, and ends the process */
	}
}

static void
install(void)
{
	struct sigaction sa = { .sa_sigaction = on_fault, .sa_flags = SA_SIGINFO | SA_ONSTACK };

	sigemptyset(&sa.sa_mask);
	for (unsigned i = 0; i < ARRAY_LEN(signals); i++)
		sigaction(signals[i], &sa, &previous[i]);
}

/* ---- policy ---- */

static int64_t
ticks(const struct jit_cpu *j, uint64_t ns)
{
	return (int64_t)(ns * (j->i.c.v.m->clock.tsc_hz / 1000000) / 1000);
}

void
jit_window_charge(struct jit_cpu *j)
{
	struct jit_windows *w = &j->win;

	w->now->balance -= (int64_t)(w->faults - w->charged) * w->fault_ticks;
	w->charged = w->faults;
	if (w->now->balance < 0)
		j->hot.run_ok = 0; /* loop() looks at it */
}

static void
account(struct jit_windows *w, uint64_t t)
{
	int64_t d = (int64_t)(t - w->since);

	w->since = t;
	w->now->ran += d;
	w->now->balance += d / SHARE;
	if (w->now->balance > w->grace)
		w->now->balance = w->grace;
}

static void
begin_space(struct jit_windows *w, struct jit_space *s, uint64_t cr3)
{
	*s = (struct jit_space){ .cr3 = cr3, .wait = w->age, .backoff = w->backoff };
}

static void
decide(const struct jit_cpu *j, struct jit_space *s)
{
	const struct jit_windows *w = &j->win;

	if (!s->on && (s->ran >= s->wait || j->eager) && w->contexts && !j->i.c.v.m->mem.no_alias) {
		s->on = true;
		s->balance = w->grace;
	} else if (s->on && s->balance < 0 && !j->eager) {
		s->on = false;
		s->wait = s->ran + s->backoff;
		s->backoff = MIN(s->backoff * 2, w->backoff_max);
	}
}

bool
jit_window_policy(struct jit_cpu *j)
{
	struct soft_cpu *c = &j->i.c;
	struct jit_windows *w = &j->win;
	uint64_t cr3 = c->v.state.cr3 & ~(uint64_t)PAGE_MASK, t;
	struct jit_space *s = &w->space[(cr3 * 0x9e3779b97f4a7c15ull >> 40) % JIT_SPACES];
	uint32_t key;

	if (!w->contexts)
		return false;
	t = __builtin_ia32_rdtsc();
	account(w, t);
	/* a generation that was never seen, and not of the space that was current: perhaps another process's tables */
	if (s->cr3 != cr3 || (s != w->now && c->tlb_gen > w->newest))
		begin_space(w, s, cr3);
	w->newest = MAX(w->newest, c->tlb_gen);
	w->now = s;
	decide(j, s);
	key = s->on ? X86_KEY_OWN : 0;
	if (key == c->user_key)
		return false;
	c->user_key = key;
	x86_update_mode(c);
	jit_forget_views(j);
	return true;
}

void
jit_window_switch(struct jit_cpu *j)
{
	struct jit_windows *w = &j->win;

	if (w->gen == j->i.c.tlb_gen)
		return;
	show(w, w->current, false);
	w->gen = j->i.c.tlb_gen;
	w->current = context_of(w, w->gen);
	if (w->current)
		w->current->used = ++w->clock;
	show(w, w->current, true);
}

/* ---- life ---- */

void
jit_window_thread(struct jit_cpu *j)
{
	sigset_t set;

	if (likely(running == j) || !j->win.contexts)
		return;
	sigemptyset(&set);
	for (unsigned i = 0; i < ARRAY_LEN(signals); i++)
		sigaddset(&set, signals[i]);
	pthread_sigmask(SIG_UNBLOCK, &set, NULL); /* a blocked one would end the process */
	running = j;
}

static void
reach(struct jit_cpu *j, unsigned cpus)
{
	struct jit_windows *w = &j->win;
	uint8_t *pages;

	w->none = reserve();
	w->pages = PAGES_TOTAL / cpus;
	pages = map(NULL, w->pages * sizeof(*w->page), PROT_READ | PROT_WRITE,
		MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	w->page = (struct jit_wpage *)(void *)pages;
	for (unsigned i = 0; w->none && i < ARRAY_LEN(w->base); i++)
		w->base[i] = (uintptr_t)w->none - ((uint64_t)i << JIT_REGION_SHIFT);
	if (!w->none || !w->page)
		return;
	pthread_once(&installed, install);
	w->contexts = MIN(JIT_WCONTEXTS, WINDOWS_TOTAL / JIT_WREGIONS / cpus);
}

void
jit_window_open(struct jit_cpu *j)
{
	struct jit_windows *w = &j->win;
	bool file = false;

	w->gen = NOBODY;
	w->now = &w->space[0];
	w->since = __builtin_ia32_rdtsc();
	w->fault_ticks = ticks(j, FAULT_NS);
	w->age = ticks(j, AGE_NS);
	w->grace = ticks(j, GRACE_NS);
	w->backoff = ticks(j, BACKOFF_NS);
	w->backoff_max = ticks(j, BACKOFF_MAX_NS);
	for (unsigned i = 0; i < JIT_WCONTEXTS; i++) {
		w->context[i].gen = NOBODY;
		for (unsigned k = 0; k < JIT_WREGIONS; k++)
			w->context[i].region[k] = NO_REGION;
	}
	for (const struct ram *r = j->i.c.v.m->mem.rams; r; r = r->next)
		file |= r->fd >= 0;
	if (!file || !j->bmi2)
		return;
	reach(j, (unsigned)j->i.c.v.cpus->count);
	if (w->contexts)
		j->i.c.gone = window_gone;
}

void
jit_window_close(struct jit_cpu *j)
{
	struct jit_windows *w = &j->win;

	for (unsigned i = 0; i < JIT_WCONTEXTS; i++)
		for (unsigned k = 0; k < JIT_WREGIONS; k++)
			if (w->context[i].host[k])
				syscall(SYS_munmap, w->context[i].host[k] - GUARD, REGION + 2 * GUARD);
	if (w->none)
		syscall(SYS_munmap, w->none - GUARD, REGION + 2 * GUARD);
	if (w->page)
		syscall(SYS_munmap, w->page, w->pages * sizeof(*w->page));
	*w = (struct jit_windows){ 0 };
	if (running == j)
		running = NULL;
}
