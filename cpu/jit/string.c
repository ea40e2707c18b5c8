/* SPDX-License-Identifier: Apache-2.0 */
/*
 * String instructions, called from translated code: page by page over host memory, element by element
 * where an element crosses pages or a page is not plain memory. Registers are up to date after each run, so faults and
 * requests find a partly done instruction (SDM 1, 7.3.9.2). Backwards, other address sizes and segments with a base are
 * the interpreter's. Compiled for general registers only: the vector registers may be the guest's.
 */
#include "cpu/jit/jit.h"

#define ST (j->i.c.v.state)
#define likely(x) __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)

typedef uint16_t mem2 __attribute__((may_alias, aligned(1)));
typedef uint32_t mem4 __attribute__((may_alias, aligned(1)));
typedef uint64_t mem8 __attribute__((may_alias, aligned(1)));

/* One operand of a run. */
struct span {
	gva_t a;
	uint8_t *host; /* NULL: one element, by the ordinary way */
	struct soft_tlb_entry *e;
};

/* Shortens the run `*n` to what lies in one page. Raises. False: an address that the interpreter has to look at. */
static bool
open_span(struct jit_cpu *j, int reg, unsigned size, enum x86_access access, uint64_t *n, struct span *s)
{
	struct soft_cpu *c = &j->i.c;
	uint64_t most;

	s->a = ST.gpr[reg];
	s->host = NULL;
	if (unlikely(!x86_canonical(s->a) || !x86_canonical(s->a + size - 1)))
		return false;
	if ((s->a & PAGE_MASK) > PAGE_SIZE - size)
		return true;
	most = ST.rflags & FLAG_DF ? (s->a & PAGE_MASK) / size + 1 : (PAGE_SIZE - (s->a & PAGE_MASK)) / size;
	s->host = x86_host(c, s->a, size, access, c->mmu, &s->e);
	if (s->host && *n > most)
		*n = most;
	return true;
}

static inline void
written(struct jit_cpu *j, struct span *s)
{
	if (unlikely(*s->e->flags))
		x86_page_written(&j->i.c, s->e);
}

static inline uint64_t
load(const void *p, unsigned size)
{
	switch (size) {
	case 1:
		return *(const uint8_t *)p;
	case 2:
		return *(const mem2 *)p;
	case 4:
		return *(const mem4 *)p;
	default:
		return *(const mem8 *)p;
	}
}

static inline void
element(void *p, uint64_t v, unsigned size)
{
	switch (size) {
	case 1:
		*(volatile uint8_t *)p = (uint8_t)v;
		break;
	case 2:
		*(volatile mem2 *)p = (uint16_t)v;
		break;
	case 4:
		*(volatile mem4 *)p = (uint32_t)v;
		break;
	default:
		*(volatile mem8 *)p = v;
		break;
	}
}

/* Ascending copy, element by element in effect: an overlap of destination behind source repeats a pattern. */
static void
copy_up(uint8_t *d, const uint8_t *s, uint64_t n, unsigned size)
{
	uint64_t bytes = n * size;

	if (d <= s || (uint64_t)(d - s) >= bytes) {
		__asm__ volatile("rep movsb" : "+D"(d), "+S"(s), "+c"(bytes) : : "memory");
		return;
	}
	for (; n; n--, d += size, s += size)
		element(d, load(s, size), size);
}

/* The same downwards from the elements at `d` and `s`. */
static void
copy_down(uint8_t *d, const uint8_t *s, uint64_t n, unsigned size)
{
	for (; n; n--, d -= size, s -= size)
		element(d, load(s, size), size);
}

static void
fill(uint8_t *d, uint64_t v, uint64_t n, unsigned size)
{
	switch (size) {
	case 1:
		__asm__ volatile("rep stosb" : "+D"(d), "+c"(n) : "a"(v) : "memory");
		break;
	case 2:
		__asm__ volatile("rep stosw" : "+D"(d), "+c"(n) : "a"(v) : "memory");
		break;
	case 4:
		__asm__ volatile("rep stosl" : "+D"(d), "+c"(n) : "a"(v) : "memory");
		break;
	default:
		__asm__ volatile("rep stosq" : "+D"(d), "+c"(n) : "a"(v) : "memory");
		break;
	}
}

static inline uint64_t
count_of(struct jit_cpu *j, uint32_t site)
{
	return site & (SITE_READ | SITE_WRITE) ? ST.gpr[RCX] : 1;
}

static inline void
count_down(struct jit_cpu *j, uint32_t site, uint64_t n)
{
	if (site & (SITE_READ | SITE_WRITE))
		ST.gpr[RCX] -= n;
}

/* The first two: where to go on. */
enum run { RUN_DONE, RUN_AGAIN, RUN_INTERP, RUN_MORE };

static enum run
movs(struct jit_cpu *j, uint32_t site, unsigned size)
{
	struct soft_cpu *c = &j->i.c;
	uint64_t n = count_of(j, site), v = 0;
	struct span s, d;

	if (!open_span(j, RSI, size, X86_READ, &n, &s))
		return RUN_INTERP;
	if (!s.host) { /* before the destination is looked at: if both fault, it is the load that does */
		jit_fp_home(j);
		v = x86_load(c, s.a, size, c->mmu);
	}
	if (!open_span(j, RDI, size, X86_WRITE, &n, &d))
		return RUN_INTERP;
	if (s.host && d.host) {
		if (ST.rflags & FLAG_DF)
			copy_down(d.host, s.host, n, size);
		else
			copy_up(d.host, s.host, n, size);
		written(j, &d);
	} else {
		n = 1;
		jit_fp_home(j);
		x86_store(c, d.a, s.host ? load(s.host, size) : v, size, c->mmu);
	}
	ST.gpr[RSI] += ST.rflags & FLAG_DF ? 0 - n * size : n * size;
	ST.gpr[RDI] += ST.rflags & FLAG_DF ? 0 - n * size : n * size;
	count_down(j, site, n);
	return RUN_MORE;
}

static enum run
stos(struct jit_cpu *j, uint32_t site, unsigned size)
{
	struct soft_cpu *c = &j->i.c;
	uint64_t n = count_of(j, site);
	struct span d;

	if (!open_span(j, RDI, size, X86_WRITE, &n, &d))
		return RUN_INTERP;
	if (d.host) {
		fill(d.host, ST.gpr[RAX], n, size);
		written(j, &d);
	} else {
		n = 1;
		jit_fp_home(j);
		x86_store(c, d.a, ST.gpr[RAX], size, c->mmu);
	}
	ST.gpr[RDI] += n * size;
	count_down(j, site, n);
	return RUN_MORE;
}

static enum run
lods(struct jit_cpu *j, uint32_t site, unsigned size)
{
	uint64_t n = 1, v, mask = size == 8 ? UINT64_MAX : (1ull << size * 8) - 1;
	struct span s;

	if (!open_span(j, RSI, size, X86_READ, &n, &s))
		return RUN_INTERP;
	if (!s.host)
		jit_fp_home(j);
	v = s.host ? load(s.host, size) : x86_load(&j->i.c, s.a, size, j->i.c.mmu);
	ST.gpr[RAX] = size == 4 ? (uint32_t)v : (ST.gpr[RAX] & ~mask) | (v & mask);
	ST.gpr[RSI] += size;
	count_down(j, site, 1);
	return RUN_MORE;
}

/* Flags of a - b. */
static void
compare(struct jit_cpu *j, uint64_t a, uint64_t b, unsigned size)
{
	uint64_t f, mask = FLAG_CF | FLAG_PF | FLAG_AF | FLAG_ZF | FLAG_SF | FLAG_OF;
	unsigned up = 64 - size * 8;

	__asm__("cmp %2, %1\n\tpushfq\n\tpop %0" : "=&r"(f) : "r"(a << up), "r"(b << up) : "cc");
	if (up) { /* AF and PF are those of the low byte */
		uint64_t low;

		__asm__("cmpb %b2, %b1\n\tpushfq\n\tpop %0" : "=&r"(low) : "q"(a), "q"(b) : "cc");
		f = (f & ~(uint64_t)(FLAG_AF | FLAG_PF)) | (low & (FLAG_AF | FLAG_PF));
	}
	j->string_flags = (ST.rflags & ~mask) | (f & mask);
}

/* `n` elements until they differ (repe) or are equal; returns how many were looked at. */
static enum run
compared(struct jit_cpu *j, uint32_t site, uint64_t n, const uint8_t *a, const uint8_t *b, bool step_a, unsigned size,
	int reg_a, int reg_b)
{
	uint64_t k = 0, x, y;

	do {
		x = load(a, size);
		y = load(b, size);
		a += step_a ? size : 0;
		b += size;
		k++;
	} while (k < n && (site & SITE_WRITE ? x != y : x == y));
	compare(j, x, y, size);
	if (step_a)
		ST.gpr[reg_a] += k * size;
	ST.gpr[reg_b] += k * size;
	count_down(j, site, k);
	return (site & SITE_WRITE ? x == y : x != y) ? RUN_DONE : RUN_MORE;
}

static enum run
cmps(struct jit_cpu *j, uint32_t site, unsigned size)
{
	uint64_t n = count_of(j, site), va, vb;
	struct span s, d;

	if (!open_span(j, RSI, size, X86_READ, &n, &s) || !open_span(j, RDI, size, X86_READ, &n, &d))
		return RUN_INTERP;
	if (s.host && d.host)
		return compared(j, site, n, s.host, d.host, true, size, RSI, RDI);
	jit_fp_home(j);
	va = x86_load(&j->i.c, s.a, size, j->i.c.mmu);
	vb = x86_load(&j->i.c, d.a, size, j->i.c.mmu);
	return compared(j, site, 1, (uint8_t *)&va, (uint8_t *)&vb, true, size, RSI, RDI);
}

static enum run
scas(struct jit_cpu *j, uint32_t site, unsigned size)
{
	uint64_t n = count_of(j, site), v = 0;
	struct span d;

	if (!open_span(j, RDI, size, X86_READ, &n, &d))
		return RUN_INTERP;
	if (d.host)
		return compared(j, site, n, (uint8_t *)&ST.gpr[RAX], d.host, false, size, RAX, RDI);
	jit_fp_home(j);
	v = x86_load(&j->i.c, d.a, size, j->i.c.mmu);
	return compared(j, site, 1, (uint8_t *)&ST.gpr[RAX], (uint8_t *)&v, false, size, RAX, RDI);
}

/* Outside 64-bit mode the registers are 32 bits wide. */
static inline void
narrow(struct jit_cpu *j)
{
	if (likely(j->i.c.mode == X86_LONG64))
		return;
	ST.gpr[RCX] = (uint32_t)ST.gpr[RCX];
	ST.gpr[RSI] = (uint32_t)ST.gpr[RSI];
	ST.gpr[RDI] = (uint32_t)ST.gpr[RDI];
}

/* False: nothing was done, the interpreter has to. v.state is complete; c.next_rip is set. */
bool
jit_string(struct jit_cpu *j, uint32_t site)
{
	static enum run (*const runs[])(struct jit_cpu *, uint32_t, unsigned) = { movs, stos, lods, cmps, scas };
	unsigned what = SITE_REASON(site), size = SITE_SIZE(site);
	enum run r = RUN_MORE;

	j->string_flags = ST.rflags;
	if ((ST.rflags & FLAG_DF && what != JIT_MOVS) || j->i.c.dr_armed)
		return false;
	narrow(j);
	while (r == RUN_MORE && count_of(j, site)) {
		r = runs[what](j, site, size);
		narrow(j);
		if (r == RUN_MORE && !(site & (SITE_READ | SITE_WRITE)))
			r = RUN_DONE;
		if (r == RUN_MORE && !j->hot.run_ok && ST.gpr[RCX])
			r = RUN_AGAIN;
	}
	if (r != RUN_INTERP && r != RUN_AGAIN &&
		(what == JIT_CMPS || what == JIT_SCAS)) /* not before: a fault restores them (SDM 2, REP) */
		ST.rflags = j->string_flags;
	if (r == RUN_INTERP)
		return false;
	if (r != RUN_AGAIN)
		ST.rip = j->i.c.next_rip;
	return true;
}
