/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The engine: its run loop and what translated code calls in C.
 *
 * While translated code runs, v.state.rip is stale and the arithmetic flags are in the host's or in j->fl. Every way
 * into C completes v.state first; every way back takes the flags out of it again. Exceptions leave by longjmp to run(),
 * over the frames of translated code, which hold nothing.
 *
 * Requests: kick() and whoever writes to watched code clear run_ok, which translated code looks at on entering a
 * block. loop() sets it, then looks at what there is to do: so nothing is missed.
 */
#include <asm/prctl.h>
#include <elf.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/syscall.h>
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
#define ARENA_MAX (32u << 20)

/* ---- flags ---- */

static inline void
flags_out(struct jit_cpu *j)
{
	uint64_t f = j->fl;

	ST.rflags = (ST.rflags & ~(uint64_t)ARITH_FLAGS) | ((f >> 8) & 0xd5) | ((f & 1) << 11);
}

static inline void
flags_in(struct jit_cpu *j)
{
	uint64_t f = ST.rflags;

	j->fl = (uint16_t)(((f & 0xd5) | 2) << 8 | ((f >> 11) & 1));
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
	return c->mode == X86_LONG64 && !c->ac_check;
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

static void
take_context(struct jit_cpu *j, uint64_t key)
{
	struct soft_cpu *c = &j->i.c;
	struct jit_context *x;

	jit_fp_home(j);
	/* generations start over, or a single page was forgotten */
	if (c->tlb_last_gen < j->seen_last_gen || (c->tlb_epoch != j->seen_epoch && key >> 32 == j->seen_key >> 32 &&
							  c->tlb_last_gen == j->seen_last_gen))
		jit_new_contexts(j);
	j->seen_last_gen = c->tlb_last_gen;
	j->seen_epoch = c->tlb_epoch;
	j->seen_key = key;
	x = &j->context[(key * 0x9e3779b97f4a7c15ull >> 56) % JIT_CONTEXTS];
	if (x->key != key) {
		if (j->last_ctx >= 0xfffe) {
			memset(j->target, 0, sizeof(j->target));
			memset(j->context, 0xff, sizeof(j->context));
			j->last_ctx = 0;
		}
		x->key = key;
		x->ctx = (uint64_t)++j->last_ctx << 48;
	}
	j->ctx = x->ctx;
}

static inline void
refresh(struct jit_cpu *j)
{
	uint64_t key = j->i.c.mode_key | j->i.c.tlb_gen << 32;

	if (unlikely(key != j->seen_key || j->i.c.tlb_epoch != j->seen_epoch))
		take_context(j, key);
}

/* ---- finding code ---- */

/* The block at v.state.rip; NULL: what is there cannot be translated. Raises what fetching raises. */
static struct jit_block *
block_here(struct jit_cpu *j)
{
	struct soft_cpu *c = &j->i.c;
	gva_t a = ST.rip;
	struct soft_tlb_entry *e = x86_tlb_slot(c, a, c->mmu);
	gva_t tag = (a & ~(gva_t)PAGE_MASK) | c->tlb_gen;
	struct jit_block *b;
	uint64_t start;

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
	if (likely(b != NULL))
		return b;
	jit_fp_home(j);
	start = __builtin_ia32_rdtsc();
	b = jit_translate(j, a, e, c->mode_key);
	j->translate_ticks += __builtin_ia32_rdtsc() - start;
	return b;
}

static inline void
note_target(struct jit_cpu *j, struct jit_block *b)
{
	uint64_t rip = ST.rip;
	struct jit_target *t = &j->target[(uint32_t)rip * JIT_HASH >> (32 - JIT_TARGET_BITS)];

	t->key = rip ^ j->ctx;
	t->code = (uint64_t)(uintptr_t)(j->rx + b->far_entry);
}

/* The block to go on with from a complete v.state, or NULL: back to the run loop. */
static struct jit_block *
next_block(struct jit_cpu *j)
{
	struct jit_block *b;

	if (unlikely(!j->run_ok || !mode_translated(&j->i.c) || wants_single(j) || requested(j)))
		return NULL;
	if (unlikely(j->i.c.v.debug) && cpu_debug_page(&j->i.c.v, ST.rip))
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

/* ---- what stubs call ---- */

uintptr_t
jit_jump(struct jit_cpu *j, uint64_t rip)
{
	j->looked_up++;
	flags_out(j);
	ST.rip = rip;
	return next_code(j);
}

uintptr_t
jit_link_taken(struct jit_cpu *j, uint32_t link)
{
	struct jit_link *l = (struct jit_link *)(void *)(j->meta + link);
	uint64_t drops = j->drops;
	struct jit_block *b;

	flags_out(j);
	ST.rip = j->page_va + l->target;
	b = next_block(j);
	flags_in(j);
	if (!b)
		return 0;
	if (drops == j->drops && b->page == l->from->page)
		jit_set_link(j, l, b);
	return (uintptr_t)(j->rx + b->far_entry);
}

/* v.state as it is before the instruction at `site`. */
static inline void
complete(struct jit_cpu *j, uint32_t site)
{
	ST.rip = j->page_va + SITE_OFF(site);
	j->i.c.next_rip = ST.rip + SITE_LEN(site);
}

static struct jit_access
bounce(struct jit_cpu *j, gva_t a, uint32_t site)
{
	struct soft_cpu *c = &j->i.c;
	unsigned size = SITE_SIZE(site);

	if (site & SITE_WRITE)
		x86_probe(c, a, size, X86_WRITE, c->mmu);
	if (site & SITE_READ && size <= 8) {
		uint64_t v = x86_load(c, a, size, c->mmu);

		memcpy(j->bounce, &v, sizeof(v));
	} else if (site & SITE_READ) {
		x86_load_bytes(c, a, j->bounce, size, c->mmu);
	}
	j->bounce_addr = a;
	return (struct jit_access){ (uintptr_t)j->bounce, &j->one };
}

struct jit_access
jit_memory(struct jit_cpu *j, gva_t a, uint32_t site)
{
	struct soft_cpu *c = &j->i.c;
	unsigned size = SITE_SIZE(site);
	struct soft_tlb_entry *e;
	struct jit_access r;

	j->missed++;
	complete(j, site);
	if (site & SITE_FLAGS)
		flags_out(j);
	if (c->mode == X86_LONG64 && (!x86_canonical(a) || !x86_canonical(a + size - 1)))
		x86_raise_error(c, site & SITE_SS ? EXC_SS : EXC_GP, 0);
	if (site & SITE_ALIGN && a & (size - 1))
		x86_gp(c, 0);
	if ((a & PAGE_MASK) + size <= PAGE_SIZE) {
		enum x86_access access = site & SITE_WRITE ? X86_WRITE : X86_READ;

		e = x86_tlb_fill(c, a, access, c->mmu, NULL);
		if ((access == X86_WRITE ? e->write : e->read) == ((a & ~(gva_t)PAGE_MASK) | c->tlb_gen))
			return (struct jit_access){ a + e->delta, e->flags };
	}
	if (j->fp_off)
		return bounce(j, a, site);
	jit_fp_store(j);
	r = bounce(j, a, site);
	jit_fp_load(j);
	return r;
}

static void
page_written(struct jit_cpu *j, _Atomic uint8_t *flags)
{
	for (struct ram *r = j->i.c.v.m->mem.rams; r; r = r->next)
		if (flags >= r->flags && flags < r->flags + (r->size >> PAGE_SHIFT)) {
			mem_page_written(r, (uint64_t)(flags - r->flags));
			return;
		}
}

/* After a store whose page has flags, or which was bounced. 1: v.state is complete, leave. */
unsigned
jit_written(struct jit_cpu *j, uint32_t site, uint64_t rflags, _Atomic uint8_t *flags)
{
	struct soft_cpu *c = &j->i.c;
	unsigned size = SITE_SIZE(site);
	uint64_t dropped = c->v.count.blocks_dropped, v;
	bool loaded = !j->fp_off;

	jit_fp_home(j);
	if (flags != &j->one) {
		page_written(j, flags);
	} else if (size <= 8) {
		memcpy(&v, j->bounce, sizeof(v));
		x86_store(c, j->bounce_addr, v, size, c->mmu);
	} else {
		x86_store_bytes(c, j->bounce_addr, j->bounce, size, c->mmu);
	}
	c->code_written = false;
	if (j->pending)
		jit_take_pending(j);
	if (site & SITE_STAY || dropped == c->v.count.blocks_dropped) {
		if (loaded)
			jit_fp_load(j);
		return 0;
	}
	if (!(site & SITE_FLAGS)) {
		ST.rflags = (ST.rflags & ~(uint64_t)ARITH_FLAGS) | (rflags & ARITH_FLAGS);
		flags_in(j);
	}
	ST.rip = j->page_va + SITE_OFF(site) + SITE_LEN(site);
	return 1;
}

/* One instruction by the interpreter. */
static uintptr_t
help_interp(struct jit_cpu *j, uint32_t site)
{
	struct soft_cpu *c = &j->i.c;
	uint64_t next, epoch = c->tlb_epoch;
	uint32_t key = c->mode_key;
	enum interp_result r;

	jit_fp_home(j);
	complete(j, site);
	next = c->next_rip;
	flags_out(j);
	j->refused[SITE_REASON(site)]++;
	if (unlikely(j->i.c.v.trace))
		cpu_trace(&j->i.c.v, CPU_TRACE_INTERPRETED, ST.rip, SITE_REASON(site));
	r = interp_step(&j->i);
	flags_in(j);
	if (unlikely(r != INTERP_OK)) {
		j->halted = r == INTERP_HALT;
		j->shutdown = r == INTERP_SHUTDOWN;
		return 0;
	}
	if (ST.rip == next && c->mode_key == key && c->tlb_epoch == epoch && j->run_ok && !requested(j) &&
		!wants_single(j))
		return 1;
	return next_code(j);
}

static uintptr_t
help_string(struct jit_cpu *j, uint32_t site)
{
	complete(j, site);
	flags_out(j);
	if (unlikely(!jit_string(j, site)))
		return help_interp(j, (site & SITE_MAKE(0x1fff, 15)) | SITE_REFUSAL(JIT_STRING));
	flags_in(j);
	return j->run_ok ? 1 : 0;
}

static uintptr_t
help_system(struct jit_cpu *j, uint32_t site)
{
	struct soft_cpu *c = &j->i.c;
	uint32_t key = c->mode_key;

	complete(j, site);
	flags_out(j);
	jit_system(j, site);
	if (ST.rip == c->next_rip && c->mode_key == key && j->run_ok && !requested(j) && !wants_single(j)) {
		flags_in(j);
		return 1;
	}
	return next_code(j);
}

/* A vector instruction, and the registers are not loaded. */
static uintptr_t
help_fp(struct jit_cpu *j, uint32_t site)
{
	uintptr_t r;

	if (jit_fp_load(j))
		return 1;
	r = help_interp(j, site);
	return r == 1 ? next_code(j) : r; /* "go on" would do it once more */
}

/* ---- the loop ---- */

static void
set_gs_base(struct jit_cpu *j)
{
	uint64_t base = (uint64_t)(uintptr_t)j;

	if (getauxval(AT_HWCAP2) & 2)
		__asm__ volatile("wrgsbase %0" : : "r"(base));
	else
		syscall(SYS_arch_prctl, ARCH_SET_GS, base);
}

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
		return j->run_ok ? step(j) : CPU_EXIT_COUNT;
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
		atomic_exchange(&j->run_ok, 1);
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
	set_gs_base(j);
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
	out->usable = true;
	out->microseconds = 0;
	snprintf(out->reason, sizeof(out->reason), "the translator works everywhere");
}

static void
code_written(void *opaque, struct ram *ram, uint64_t page)
{
	struct cpus *cpus = opaque;

	if (ram->gens[page] < 64) { /* holders set it again; see cache.c */
		atomic_fetch_and(&ram->flags[page], (uint8_t)~PAGE_CODE);
		ram->gens[page]++;
	}
	for (int n = 0; n < cpus->count; n++)
		if (cpus->cpu[n])
			jit_note_written((struct jit_cpu *)cpus->cpu[n], ram, page);
}

static int
engine_open(struct vcpu *v, struct err *e)
{
	struct jit_cpu *j = (struct jit_cpu *)v;
	uint32_t size = MIN(ARENA_MAX, ARENA_TOTAL / (unsigned)v->cpus->count);

	j->self = j;
	j->one = 1;
	j->helper[HELP_INTERP] = help_interp;
	j->helper[HELP_STRING] = help_string;
	j->helper[HELP_FP] = help_fp;
	j->helper[HELP_SYSTEM] = help_system;
	j->fp_off = 1;
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
	j->listener = (struct mem_listener){ .code_written = code_written, .opaque = v->cpus };
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
	jit_cache_close(j);
	jit_translate_close(j);
	x86_soft_close(&j->i.c);
	interp_close(&j->i);
}

static void
engine_kick(struct vcpu *v)
{
	((struct jit_cpu *)v)->run_ok = 0;
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
	interp_flush(&j->i);
	x86_update_mode(&j->i.c);
	return 0;
}

const struct cpu_engine cpu_engine_jit = {
	.name = "jit",
	.vcpu_size = sizeof(struct jit_cpu),
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
