/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The engine: its run loop and what translated code calls in C.
 *
 * While translated code runs, v.state.rip is stale and the arithmetic flags are in the host's or in j->hot.fl. Every
 * way into C completes v.state first; every way back takes the flags out of it again. Exceptions leave by longjmp to
 * run(), over the frames of translated code, which hold nothing.
 *
 * Requests: kick() and whoever writes to watched code clear run_ok, which translated code looks at on entering a
 * block. loop() sets it, then looks at what there is to do: so nothing is missed.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "base/str.h"
#include "cpu/debug.h"
#include "cpu/jit/jit.h"
#include "cpu/trace.h"

#define likely(x) __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)
#define ST (j->i.c.v.state)
#define ARITH_FLAGS (FLAG_CF | FLAG_PF | FLAG_AF | FLAG_ZF | FLAG_SF | FLAG_OF)
#define ARENA_TOTAL (64u << 20)

/* ---- flags ---- */

static inline void
flags_out(struct jit_cpu *j)
{
	uint64_t f = j->hot.fl;

	ST.rflags = (ST.rflags & ~(uint64_t)ARITH_FLAGS) | ((f >> 8) & 0xd5) | ((f & 1) << 11);
}

static inline void
flags_in(struct jit_cpu *j)
{
	uint64_t f = ST.rflags;

	j->hot.fl = (uint16_t)(((f & 0xd5) | 2) << 8 | ((f >> 11) & 1));
}

/* ---- when translated code may run ---- */

static inline uint32_t
held(struct jit_cpu *j)
{
	uint32_t hold = 0;

	if (!(ST.rflags & FLAG_IF) || ST.shadow)
		hold |= REQ_INTR;
	if (ST.nmi_blocked || j->i.ss_shadow)
		hold |= REQ_NMI;
	return hold | j->i.c.v.debug_hold;
}

static inline bool
mode_translated(const struct soft_cpu *c)
{
	const uint32_t flat = 1u << SEG_SS | 1u << SEG_DS | 1u << SEG_ES;
	const struct x86_seg *cs = &c->v.state.seg[SEG_CS];

	if (c->ac_check)
		return false;
	if (likely(c->mode == X86_LONG64))
		return true;
	return (c->mode == X86_PROT32 || c->mode == X86_LONG32) && c->stack_size == 4 && (c->flat & flat) == flat &&
	       !cs->base && cs->limit == UINT32_MAX;
}

/* Something has to be looked at after each instruction. RF alone counts for code breakpoints only. */
static inline bool
wants_single(struct jit_cpu *j)
{
	return ST.rflags & FLAG_TF || ST.shadow || j->i.c.code_bp || j->i.c.dr_armed || j->i.c.pending_db;
}

static bool
translatable(struct interp_cpu *i)
{
	return mode_translated(&i->c);
}

static inline bool
requested(struct jit_cpu *j)
{
	uint32_t r = atomic_load_explicit(&j->i.c.v.requests, memory_order_relaxed);

	return unlikely(r) && r & ~held(j);
}

/* ---- contexts: what makes a linear address mean a certain block ---- */

static inline unsigned
noted_bit(gva_t a)
{
	return (unsigned)((a >> PAGE_SHIFT) * 0x9e3779b97f4a7c15ull >> 48) % JIT_NOTED;
}

/* The generation is the same, but a page of it was forgotten that the jump cache may know. */
static bool
page_forgotten(struct jit_cpu *j)
{
	const struct soft_cpu *c = &j->i.c;
	unsigned n = noted_bit(c->tlb_flushed);

	if (c->tlb_epoch == j->seen_epoch || c->tlb_last_gen != j->seen_last_gen)
		return false; /* a new generation has a context of its own */
	return c->tlb_epoch != j->seen_epoch + 1 || c->tlb_flushed == 1 || j->noted[n / 64] >> (n % 64) & 1;
}

static uint64_t
context(struct jit_cpu *j, struct jit_context *x, uint64_t key)
{
	if (x->key != key) {
		x->key = key;
		j->last_ctx++;
		x->ctx = JIT_CONTEXT(j->last_ctx);
	}
	return x->ctx;
}

static struct jit_context *
upper_context(struct jit_cpu *j, uint32_t mode_key)
{
	for (unsigned i = 0; i < ARRAY_LEN(j->upper_context); i++)
		if (j->upper_context[i].key == mode_key)
			return &j->upper_context[i];
	return &j->upper_context[j->next_upper++ % ARRAY_LEN(j->upper_context)];
}

#define KEY_OF_VIEW (15ull << 3 | X86_KEY_OWN) /* of mode_key: CPL, the kind of eye, windows in user mode */

/* The mode that was just come to, for translated code to come to it again. */
static void
note_view(struct jit_cpu *j, uint64_t key)
{
	const struct soft_cpu *c = &j->i.c;
	struct jit_view *v;

	if ((key & ~KEY_OF_VIEW) != j->view_base || c->tlb_epoch != j->view_epoch) {
		jit_forget_views(j);
		j->view_base = key & ~KEY_OF_VIEW;
		j->view_epoch = c->tlb_epoch;
	}
	if (c->mode != X86_LONG64 || (c->cpl && c->cpl != 3) || wants_single(j) || c->ac_check)
		return;
	if (c->cpl)
		v = &j->view[JIT_USER];
	else
		v = &j->view[ST.rflags & FLAG_AC && ST.cr4 & CR4_SMAP ? JIT_KERNEL_AC : JIT_KERNEL];
	v->ctx[0] = j->hot.ctx[0];
	v->ctx[1] = j->hot.ctx[1];
	v->mode_key = c->mode_key;
	v->mmu = c->mmu;
}

/*
 * The upper half of the linear addresses has a number of its own, which changes of the address space leave alone: where
 * kernels have their code, in global pages. When code is met there that is in none, both halves have the same.
 */
static void
take_context(struct jit_cpu *j, uint64_t key)
{
	struct soft_cpu *c = &j->i.c;

	jit_fp_home(j);
	jit_close_window(j);
	if (c->cpl < 3 && jit_window_policy(j))
		key = c->mode_key | c->tlb_gen << 32;
	jit_window_switch(j);
	j->hot.gen = c->tlb_gen;
	if (c->tlb_global_gen != j->seen_global_gen)
		j->apart = false; /* may be over: kernels begin without global pages */
	if (c->tlb_last_gen < j->seen_last_gen || c->tlb_global_gen != j->seen_global_gen ||
		(key >> 32 == j->seen_key >> 32 && page_forgotten(j)))
		jit_new_contexts(j);
	j->seen_last_gen = c->tlb_last_gen;
	j->seen_global_gen = c->tlb_global_gen;
	j->seen_epoch = c->tlb_epoch;
	j->seen_key = key;
	if (j->last_ctx >= 0xfffc) { /* two are left, then 0xffff, which jit_new_contexts() uses */
		jit_void_targets(j);
		memset(j->context, 0xff, sizeof(j->context));
		memset(j->upper_context, 0xff, sizeof(j->upper_context));
		jit_forget_views(j);
		jit_forget_crosses(j);
		j->last_ctx = 0;
	}
	j->hot.ctx[1] = j->apart ? 0 : context(j, upper_context(j, c->mode_key), c->mode_key);
	j->hot.ctx[0] = context(j, &j->context[(key * 0x9e3779b97f4a7c15ull >> 48) % JIT_CONTEXTS], key);
	if (j->apart)
		j->hot.ctx[1] = j->hot.ctx[0];
	note_view(j, key);
}

static inline void
refresh(struct jit_cpu *j)
{
	uint64_t key = j->i.c.mode_key | j->i.c.tlb_gen << 32;

	if (unlikely(key != j->seen_key || j->i.c.tlb_epoch != j->seen_epoch))
		take_context(j, key);
}

/* ---- finding code ---- */

static struct jit_block *
translate(struct jit_cpu *j, gva_t a, struct soft_tlb_entry *e, uint32_t key, unsigned tier)
{
	uint64_t start;
	struct jit_block *b;

	jit_fp_home(j);
	start = __builtin_ia32_rdtsc();
	b = jit_translate(j, a, e, key, j->eager ? 2 : tier);
	j->translate_ticks += __builtin_ia32_rdtsc() - start;
	return b;
}

/* There is no block of this very mode. Until code is hot its block serves both modes, with windows and without; what is
 * hot in one is so in the other. */
static struct jit_block *
other_block(struct jit_cpu *j, gva_t a, struct soft_tlb_entry *e)
{
	uint32_t key = j->i.c.mode_key;
	struct jit_block *twin;

	if (jit_has_twin(j, a >> 63) && !j->eager) {
		twin = jit_find(j, a + e->delta, key ^ X86_KEY_OWN);
		if (twin && twin->shared)
			return twin;
		if (twin)
			return translate(j, a, e, key, 2);
		if (!jit_was_hot(j, a + e->delta, key))
			return translate(j, a, e, key & ~X86_KEY_OWN, 1);
	}
	return translate(j, a, e, key, jit_was_hot(j, a + e->delta, key) ? 2 : 1);
}

/* The block at v.state.rip; NULL: what is there cannot be translated. Raises what fetching raises. */
static struct jit_block *
block_here(struct jit_cpu *j)
{
	struct soft_cpu *c = &j->i.c;
	gva_t a = ST.rip;
	struct soft_tlb_entry *e = x86_tlb_slot(c, a, c->mmu);
	gva_t tag = (a & ~(gva_t)PAGE_MASK) | c->tlb_gen;
	struct jit_block *b;

	if (unlikely(!x86_canonical(a)))
		x86_gp(c, 0);
	if (unlikely(x86_tlb_meta(c, e)->exec != tag)) {
		jit_fp_home(j);
		c->next_rip = a;
		e = x86_tlb_fill(c, a, X86_EXEC, c->mmu, NULL);
		if (x86_tlb_meta(c, e)->exec != tag)
			return NULL;
	}
	b = jit_find(j, a + e->delta, c->mode_key);
	return likely(b != NULL) ? b : other_block(j, a, e);
}

static inline bool
is_global(struct jit_cpu *j, gva_t a)
{
	struct soft_cpu *c = &j->i.c;

	return x86_tlb_meta(c, x86_tlb_slot(c, a, c->mmu))->global == ((a & ~(gva_t)PAGE_MASK) | c->tlb_global_gen);
}

static inline void
note_target(struct jit_cpu *j, struct jit_block *b)
{
	uint64_t rip = ST.rip;
	bool upper = rip >> 63;
	struct jit_target *t;

	if (unlikely(upper && !j->apart && !is_global(j, rip))) {
		j->apart = true;
		jit_new_contexts(j);
		refresh(j);
	}
	j->noted[noted_bit(rip) / 64] |= 1ull << noted_bit(rip) % 64;
	t = jit_target(j, rip ^ j->hot.ctx[upper], rip);
	t->key = rip ^ j->hot.ctx[upper];
	t->code = (uint64_t)(uintptr_t)(j->rx + b->far_entry);
}

/* May translated code go on? Else it is the run loop's turn. */
static inline bool
may_go_on(struct jit_cpu *j)
{
	if (unlikely(!j->hot.run_ok || !mode_translated(&j->i.c) || wants_single(j) || requested(j)))
		return false;
	return likely(!j->i.c.v.debug) || !cpu_debug_page(&j->i.c.v, ST.rip);
}

/* The block to go on with from a complete v.state, or NULL: back to the run loop. */
static struct jit_block *
next_block(struct jit_cpu *j)
{
	struct jit_block *b;

	if (!may_go_on(j))
		return NULL;
	ST.rflags &= ~(uint64_t)FLAG_RF; /* there are no code breakpoints */
	b = block_here(j);
	if (!b)
		return NULL;
	refresh(j); /* after block_here(): it may have dropped everything */
	note_target(j, b);
	return b;
}

static uintptr_t
next_code(struct jit_cpu *j)
{
	struct jit_block *b = next_block(j);

	flags_in(j);
	return b ? (uintptr_t)(j->rx + b->far_entry) : 0;
}

/* The same where the jump cache may know: it is as good here as in translated code. */
static uintptr_t
next_cached(struct jit_cpu *j)
{
	const struct jit_target *t;
	uint64_t key;

	if (may_go_on(j)) {
		refresh(j);
		key = ST.rip ^ j->hot.ctx[ST.rip >> 63];
		t = jit_target(j, key, ST.rip);
		if (likely(t->key == key)) {
			ST.rflags &= ~(uint64_t)FLAG_RF;
			flags_in(j);
			return t->code;
		}
	}
	return next_code(j);
}

static bool interpret_one(struct jit_cpu *j, uint32_t site);

/* ---- what stubs call ---- */

/* An indirect jump does not reach such an address: back to before it, for the interpreter to raise what it raises. A
 * direct jump, which comes from near by, does. */
static void
not_canonical(struct jit_cpu *j, uint64_t rip)
{
	uint32_t from = j->hot.origin;

	if (rip - j->hot.page_va + (1ull << 32) < 1ull << 33)
		return;
	ST.rip = j->hot.page_va + SITE_OFF(from);
	ST.gpr[RSP] += SITE_REASON(from) == JIT_POPPED ? -8ull : SITE_REASON(from) == JIT_PUSHED ? 8 : 0;
	interpret_one(j, from);
}

uintptr_t
jit_jump(struct jit_cpu *j, uint64_t rip)
{
	j->looked_up++;
	flags_out(j);
	ST.rip = rip;
	if (unlikely(!x86_canonical(rip)))
		not_canonical(j, rip);
	return next_code(j);
}

uintptr_t
jit_link_taken(struct jit_cpu *j, uint32_t link)
{
	struct jit_link *l = (struct jit_link *)(void *)(j->meta + link);
	uint64_t drops = j->drops;
	struct jit_block *b;

	flags_out(j);
	ST.rip = j->hot.page_va + l->target;
	b = next_block(j);
	flags_in(j);
	if (!b)
		return 0;
	if (drops == j->drops && b->page == l->from->page) {
		if (l->from->shared && !b->shared)
			jit_set_far(j, l);
		else
			jit_set_link(j, l, b);
	}
	return (uintptr_t)(j->rx + b->far_entry);
}

/*
 * A sum of page and context is of these two only: the context's number is in bits 48 to 63, and pages of one half lie
 * closer together than that. Of two halves they do, too, but for the very edges, for what a context has in lower bits.
 */
static bool
sums_are_plain(uint64_t page, uint64_t rip, bool upper)
{
	return page >> 63 == upper && rip >> 63 == upper &&
	       !(((page + JIT_CROSS_EDGE) ^ (page - JIT_CROSS_EDGE)) >> 47 & 1);
}

/* A direct jump to another page, whose guard missed. */
uintptr_t
jit_cross_taken(struct jit_cpu *j, uint32_t cross)
{
	struct jit_cross *x = (struct jit_cross *)(void *)(j->meta + cross);
	uint64_t drops = j->drops, page = j->hot.page_va;
	struct jit_block *b;

	x->wait = x->patience = MIN(x->patience * 2, JIT_CROSS_PATIENCE);
	flags_out(j);
	ST.rip = page + (uint64_t)(int64_t)x->off;
	b = next_block(j);
	flags_in(j);
	if (!b)
		return 0;
	if (drops == j->drops && sums_are_plain(page, ST.rip, x->upper))
		jit_set_cross(j, x, page + j->hot.ctx[x->upper], b);
	return (uintptr_t)(j->rx + b->far_entry);
}

/* A block is hot: make it again. It may not be there any more. */
static void
promote(struct jit_cpu *j, struct jit_block *old, gva_t a)
{
	struct soft_cpu *c = &j->i.c;
	struct soft_tlb_entry *e = x86_tlb_slot(c, a, c->mmu);
	struct jit_block *b;
	uint64_t drops = j->drops;
	uint32_t key = c->mode_key;

	if (x86_tlb_meta(c, e)->exec != ((a & ~(gva_t)PAGE_MASK) | c->tlb_gen) || a + e->delta != old->host ||
		(old->shared ? key & ~X86_KEY_OWN : key) != old->key)
		return;
	jit_fp_home(j);
	jit_make_room(j);
	if (drops != j->drops)
		return;
	b = jit_translate(j, a, e, key, 2);
	jit_retire(j, old, old->shared ? NULL : b);
	j->promoted++;
}

/* A block of the first tier was noted once more. */
static void
sample(struct jit_cpu *j, struct jit_block *b)
{
	j->hot.sample = JIT_SAMPLE;
	if (b->tier == 1 && ++b->samples >= JIT_SAMPLES_HOT)
		promote(j, b, ST.rip);
}

/* A block that looked whether it may run may not, or its turn to be sampled has come. `from`: behind its call, where a
 * TEST tells which block it is. */
uintptr_t
jit_poll(struct jit_cpu *j, uintptr_t from)
{
	uint64_t drops = j->drops;
	struct jit_block *b;
	uint32_t block;

	memcpy(&block, (const void *)(from + 1), sizeof(block));
	b = (struct jit_block *)(void *)(j->meta + block);
	flags_out(j);
	ST.rip = j->hot.page_va + b->first;
	if (!j->hot.sample)
		sample(j, b);
	if (likely(j->hot.run_ok && drops == j->drops)) {
		flags_in(j); /* what was promoted leads to what it became */
		return (uintptr_t)(j->rx + b->far_entry);
	}
	return next_code(j);
}

/* v.state as it is before the instruction at `site`. */
static inline void
complete(struct jit_cpu *j, uint32_t site)
{
	ST.rip = j->hot.page_va + SITE_OFF(site);
	j->i.c.next_rip = ST.rip + SITE_LEN(site);
}

static inline void
trace(struct jit_cpu *j, enum jit_refusal why)
{
	if (likely(!j->i.c.v.trace))
		return;
	jit_fp_home(j); /* what traces may use vector registers */
	cpu_trace(&j->i.c.v, CPU_TRACE_INTERPRETED, ST.rip, why);
}

/*
 * The instruction at `site` by the interpreter. True: what follows may be run; false: next_code() knows what, after
 * j->halted and j->shutdown were looked at.
 */
static bool
interpret_one(struct jit_cpu *j, uint32_t site)
{
	struct soft_cpu *c = &j->i.c;
	uint64_t next = ST.rip + SITE_LEN(site), epoch = c->tlb_epoch, dropped = c->v.count.blocks_dropped;
	uint32_t key = c->mode_key;
	enum interp_result r;

	jit_fp_home(j);
	jit_close_window(j); /* pages may be watched afterwards */
	r = interp_step(&j->i);
	flags_in(j);
	c->code_written = false;
	if (unlikely(r != INTERP_OK)) {
		j->halted = r == INTERP_HALT;
		j->shutdown = r == INTERP_SHUTDOWN;
		atomic_store(&j->hot.run_ok, 0);
		return false;
	}
	if (unlikely(j->pending)) {
		atomic_exchange(&j->hot.run_ok, 1); /* before looking at the requests, as in loop() */
		jit_take_pending(j);
	}
	return ST.rip == next && c->mode_key == key && c->tlb_epoch == epoch && j->hot.run_ok && !requested(j) &&
	       !wants_single(j) && c->v.count.blocks_dropped == dropped;
}

/* The access missed, and so will the next: by the interpreter. */
static struct jit_access
without_translation(struct jit_cpu *j, uint32_t site)
{
	bool loaded = !j->hot.fp_off; /* before anything brings them home */

	j->refused[JIT_MEMORY]++;
	trace(j, JIT_MEMORY);
	if (interpret_one(j, site) && SITE_SKIPPED(site) && (!loaded || jit_fp_load(j)))
		return (struct jit_access){ 5 + SITE_SKIPPED(site), JIT_DONE };
	return (struct jit_access){ next_code(j), JIT_ELSEWHERE };
}

/* An operand across two pages: once both are there, it is an operand as any other. */
static void
map_both(struct jit_cpu *j, gva_t a, unsigned size, enum x86_access access)
{
	struct soft_cpu *c = &j->i.c;

	jit_window_map(j, a, x86_tlb_fill(c, a, access, c->mmu, NULL));
	a = (a + size - 1) & ~(gva_t)PAGE_MASK;
	jit_window_map(j, a, x86_tlb_fill(c, a, access, c->mmu, NULL));
}

struct jit_access
jit_memory(struct jit_cpu *j, gva_t a, uint32_t site)
{
	struct soft_cpu *c = &j->i.c;
	enum x86_access access = site & SITE_WRITE ? X86_WRITE : X86_READ;
	unsigned size = SITE_SIZE(site);
	struct soft_tlb_entry *e;

	if (site & SITE_WINDOW)
		jit_window_charge(j);
	else
		j->missed++;
	complete(j, site);
	if (site & SITE_FLAGS)
		flags_out(j);
	if (site & SITE_MASKED)
		return without_translation(j, site);
	if (c->mode == X86_LONG64 && (!x86_canonical(a) || !x86_canonical(a + size - 1)))
		x86_raise_error(c, site & SITE_SS ? EXC_SS : EXC_GP, 0);
	if (site & SITE_ALIGN && a & (size - 1))
		x86_gp(c, 0);
	if ((a & PAGE_MASK) + size <= PAGE_SIZE) {
		e = x86_tlb_fill(c, a, access, c->mmu, NULL);
		if ((access == X86_WRITE ? e->write : e->read) == ((a & ~(gva_t)PAGE_MASK) | c->tlb_gen) &&
			(access == X86_READ || !*e->flags)) {
			if (site & SITE_WINDOW)
				jit_window_map(j, a, e);
			return (struct jit_access){ a + e->delta, JIT_HIT };
		}
	} else if (site & SITE_WINDOW) {
		map_both(j, a, size, access);
	}
	return without_translation(j, site);
}

static uintptr_t
help_interp(struct jit_cpu *j, uint32_t site, uintptr_t b)
{
	(void)b;
	complete(j, site);
	flags_out(j);
	j->refused[SITE_REASON(site)]++;
	trace(j, SITE_REASON(site));
	return interpret_one(j, site) ? 1 : next_cached(j);
}

/* An instruction with its end in another page: is that page there, and is it the one it was? */
static uintptr_t
help_cross(struct jit_cpu *j, uint32_t site, uintptr_t at)
{
	struct jit_block *b = (struct jit_block *)(void *)(at - offsetof(struct jit_block, cross));
	struct soft_cpu *c = &j->i.c;
	gva_t next = j->hot.page_va + PAGE_SIZE;
	struct soft_tlb_entry *e;

	complete(j, site);
	flags_out(j);
	e = x86_tlb_fill(c, next, X86_EXEC, c->mmu, NULL);
	if (x86_tlb_meta(c, e)->exec == (next | c->tlb_gen) && next + e->delta == b->host_second) {
		if (b->upper == next >> 63 && (!b->upper || j->apart || is_global(j, next)))
			b->cross = j->hot.page_va ^ j->hot.ctx[b->upper];
		return 1;
	}
	j->refused[JIT_CROSSING]++;
	interpret_one(j, site);
	return next_code(j);
}

static uintptr_t
help_string(struct jit_cpu *j, uint32_t site, uintptr_t b)
{
	complete(j, site);
	flags_out(j);
	if (unlikely(!jit_string(j, site)))
		return help_interp(j, (site & SITE_MAKE(0x1fff, 15)) | SITE_REFUSAL(JIT_STRING), b);
	flags_in(j);
	return j->hot.run_ok ? 1 : 0;
}

static uintptr_t
help_system(struct jit_cpu *j, uint32_t site, uintptr_t b)
{
	struct soft_cpu *c = &j->i.c;
	uint32_t key = c->mode_key;

	(void)b;
	complete(j, site);
	flags_out(j);
	jit_system(j, site);
	/* behind a CLAC in a block the mode is taken for changed, which without SMAP it is not */
	if (ST.rip == c->next_rip && c->mode_key == key && j->hot.run_ok && !requested(j) && !wants_single(j) &&
		SITE_REASON(site) != JIT_CLAC) {
		flags_in(j);
		return 1;
	}
	return next_cached(j);
}

/* A vector instruction, and the registers are not loaded. */
static uintptr_t
help_fp(struct jit_cpu *j, uint32_t site, uintptr_t b)
{
	uintptr_t r;

	if (jit_fp_load(j))
		return 1;
	r = help_interp(j, site, b);
	return r == 1 ? next_code(j) : r; /* "go on" would do it once more */
}

/* ---- the loop ---- */

/* Modes that are not translated. */
static enum cpu_exit
interpret(struct jit_cpu *j)
{
	jmp_buf mine;
	enum cpu_exit x;

	memcpy(&mine, &j->i.c.fault, sizeof(mine));
	x = interp_run(&j->i.c.v);
	memcpy(&j->i.c.fault, &mine, sizeof(mine));
	jit_new_contexts(j);
	return x;
}

static enum cpu_exit
step(struct jit_cpu *j)
{
	j->refused[JIT_STEP]++;
	switch (interp_step(&j->i)) {
	case INTERP_HALT:
		return CPU_EXIT_HALT;
	case INTERP_SHUTDOWN:
		return CPU_EXIT_SHUTDOWN;
	default:
		return CPU_EXIT_COUNT;
	}
}

static enum cpu_exit
run_code(struct jit_cpu *j)
{
	struct jit_block *b;

	b = next_block(j);
	if (!b)
		return j->hot.run_ok ? step(j) : CPU_EXIT_COUNT;
	flags_in(j);
	j->enter(j, j->rx + b->far_entry);
	jit_fp_home(j);
	flags_out(j);
	if (unlikely(j->halted)) {
		j->halted = false;
		return CPU_EXIT_HALT;
	}
	if (unlikely(j->shutdown)) {
		j->shutdown = false;
		return CPU_EXIT_SHUTDOWN;
	}
	return CPU_EXIT_COUNT;
}

/* The same with an eye on what a debugger wants. */
static enum cpu_exit
debugged(struct jit_cpu *j)
{
	switch (cpu_debug_before(&j->i.c.v, ST.rip)) {
	case CPU_DEBUG_STOP:
		return CPU_EXIT_DEBUG;
	case CPU_DEBUG_ONE:
		return step(j);
	default:
		return wants_single(j) ? step(j) : run_code(j);
	}
}

static enum cpu_exit
loop(struct jit_cpu *j)
{
	enum cpu_exit x;

	do {
		atomic_exchange(&j->hot.run_ok, 1);
		jit_close_window(j);
		jit_window_policy(j);
		if (j->pending)
			jit_take_pending(j);
		if (requested(j))
			return CPU_EXIT_REQUEST;
		j->i.c.code_written = false;
		if (unlikely(!mode_translated(&j->i.c)))
			x = interpret(j);
		else if (unlikely(j->i.c.v.debug))
			x = debugged(j);
		else if (unlikely(wants_single(j)))
			x = step(j);
		else
			x = run_code(j);
	} while (x == CPU_EXIT_COUNT);
	return x;
}

static enum cpu_exit
jit_run(struct vcpu *v)
{
	struct jit_cpu *j = (struct jit_cpu *)v;

	if (j->shutdown) {
		j->shutdown = false;
		return CPU_EXIT_SHUTDOWN;
	}
	jit_window_thread(j);
	while (setjmp(j->i.c.fault)) {
		enum cpu_exit x = CPU_EXIT_COUNT;

		jit_fp_home(j);
		if (unlikely(j->i.c.exc_vector == X86_RETRY)) {
			x86_watch_begin(&j->i.c);
			x = step(j);
		} else if (!x86_deliver_exception(&j->i.c)) {
			x = CPU_EXIT_SHUTDOWN;
		}
		if (unlikely(x != CPU_EXIT_COUNT))
			return x;
	}
	return loop(j);
}

/* ---- the engine ---- */

static void
engine_probe(struct cpu_probe *out)
{
	out->microseconds = 0;
	out->usable = jit_memory_allowed();
	snprintf(out->reason, sizeof(out->reason), "%s",
		out->usable ? "the translator works everywhere" : "the host gives no executable memory");
}

/*
 * A page with code that is written again and again keeps its flag: to clear it and set it again costs more than the
 * writes do. But the code may be of former times, and the page now somebody's heap: every now and then all of its
 * blocks are dropped with the flag. Code that is still in use comes back, at a price that is small beside that of so
 * many writes.
 */
enum { KEEPS_FLAG = 64, LETS_GO = 4096 };

static void
code_written(void *opaque, struct ram *ram, uint64_t page)
{
	struct cpus *cpus = opaque;

	uint32_t writes = ram->gens[page];
	bool drop = writes >= KEEPS_FLAG && (!(writes & (writes - 1)) || !(writes % LETS_GO));

	if (writes < KEEPS_FLAG || drop) { /* holders set it again; see cache.c */
		atomic_fetch_and(&ram->flags[page], (uint8_t)~PAGE_CODE);
		ram->gens[page]++;
	}
	for (int n = 0; n < cpus->count; n++)
		if (cpus->cpu[n])
			jit_note_written((struct jit_cpu *)cpus->cpu[n], ram, page, drop);
}

static void
watched(void *opaque, struct ram *ram, uint64_t page)
{
	struct cpus *cpus = opaque;

	for (int n = 0; n < cpus->count; n++)
		if (cpus->cpu[n])
			jit_window_watch((struct jit_cpu *)cpus->cpu[n], ram, page);
}

static void
unalias(void *opaque)
{
	struct cpus *cpus = opaque;

	for (int n = 0; n < cpus->count; n++)
		if (cpus->cpu[n])
			jit_window_clear((struct jit_cpu *)cpus->cpu[n]);
}

static int
engine_open(struct vcpu *v, struct err *e)
{
	struct jit_cpu *j = (struct jit_cpu *)v;
	uint32_t size = ARENA_TOTAL / (unsigned)v->cpus->count & ~0xfffu;

	j->hot.self = j;
	j->hot.sample = JIT_SAMPLE;
	jit_close_window(j);
	j->helper[HELP_INTERP] = help_interp;
	j->helper[HELP_STRING] = help_string;
	j->helper[HELP_FP] = help_fp;
	j->helper[HELP_SYSTEM] = help_system;
	j->helper[HELP_CROSS] = help_cross;
	j->hot.fp_off = 1;
	j->bmi2 = __builtin_cpu_supports("bmi2");
	if (interp_open(&j->i))
		return err_set(e, ERR_HOST, "no memory for the interpreter of virtual CPU %d", v->index);
	j->i.translatable = translatable;
	x86_soft_open(&j->i.c);
	if (jit_translate_open(j) || jit_cache_open(j, size)) {
		jit_translate_close(j);
		x86_soft_close(&j->i.c);
		interp_close(&j->i);
		return err_set(e, ERR_HOST, "no memory for the code of virtual CPU %d", v->index);
	}
	j->listener = (struct mem_listener){
		.code_written = code_written, .watched = watched, .unalias = unalias, .opaque = v->cpus
	};
	jit_window_open(j);
	if (v->index == 0)
		mem_listen(&v->m->mem, &j->listener);
	return 0;
}

static void
engine_close(struct vcpu *v)
{
	struct jit_cpu *j = (struct jit_cpu *)v;

	if (v->index == 0)
		mem_unlisten(&v->m->mem, &j->listener);
	jit_window_close(j);
	jit_cache_close(j);
	jit_translate_close(j);
	x86_soft_close(&j->i.c);
	interp_close(&j->i);
}

static void
engine_kick(struct vcpu *v)
{
	((struct jit_cpu *)v)->hot.run_ok = 0;
}

static void
engine_get_state(struct vcpu *v)
{
	vec_sync(&((struct jit_cpu *)v)->i.c);
}

static void
engine_put_state(struct vcpu *v)
{
	struct jit_cpu *j = (struct jit_cpu *)v;

	x86_update_mode(&j->i.c);
	x86_tlb_flush(&j->i.c, true);
	jit_new_contexts(j);
	j->i.c.pending_db = 0;
	j->i.halted = j->i.shutdown = j->i.ss_shadow = false;
	j->halted = j->shutdown = false;
}

static bool
engine_can_inject(struct vcpu *v)
{
	return v->state.rflags & FLAG_IF && !v->state.shadow;
}

static void
engine_inject(struct vcpu *v, int vector, bool nmi)
{
	struct jit_cpu *j = (struct jit_cpu *)v;

	v->state.shadow = 0;
	j->i.ss_shadow = false;
	if (!x86_deliver_interrupt(&j->i.c, vector, nmi))
		j->shutdown = true;
}

static void
engine_flush(struct vcpu *v)
{
	struct jit_cpu *j = (struct jit_cpu *)v;

	x86_tlb_flush(&j->i.c, true);
	interp_flush(&j->i);
	jit_new_contexts(j);
}

static int
engine_debug(struct vcpu *v)
{
	struct jit_cpu *j = (struct jit_cpu *)v;

	jit_drop_all(j);
	jit_window_clear(j);
	interp_flush(&j->i);
	x86_update_mode(&j->i.c);
	return 0;
}

const struct cpu_engine cpu_engine_jit = {
	.name = "jit",
	.vcpu_size = sizeof(struct jit_cpu),
	.aliases = true,
	.probe = engine_probe,
	.open = engine_open,
	.close = engine_close,
	.run = jit_run,
	.kick = engine_kick,
	.get_state = engine_get_state,
	.put_state = engine_put_state,
	.can_inject = engine_can_inject,
	.inject = engine_inject,
	.flush = engine_flush,
	.print_stats = jit_print_stats,
	.dump = jit_dump,
	.refusal = jit_refusal,
	.debug = engine_debug,
	.current_rip = interp_current_rip,
};
