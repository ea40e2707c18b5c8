/* SPDX-License-Identifier: Apache-2.0 */
/*
 * String instructions.
 *
 * A repeated instruction works in runs: as many elements as lie in the current pages of both operands are moved over
 * host pointers; where that is not possible (MMIO, an element across two pages, backwards, a segment limit ahead) one
 * element at a time goes through the ordinary accesses. After each run the registers are up to date, so a fault in the
 * next one finds the state of a partly done instruction (SDM 1, 7.3.9.2); between runs requests are looked at, and the
 * instruction is left and continued later.
 */
#include "cpu/interp/op.h"

#define HANDLER(name) struct block *interp_op_##name(struct interp_cpu *i, const struct op *op)
#define GPR(r) (i->c.v.state.gpr[r])
#define OP_REP (OP_REPE | OP_REPNE)

/* Elements done without looking at requests. */
#define RUN_MAX 65536

static inline unsigned
addr_size(const struct op *op)
{
	if (op->flags & OP_A16)
		return 2;
	return op->flags & OP_A32 ? 4 : 8;
}

static inline uint64_t
addr_get(struct interp_cpu *i, const struct op *op, int reg)
{
	return reg_get(i, (unsigned)reg * 8, addr_size(op));
}

static inline void
addr_advance(struct interp_cpu *i, const struct op *op, int reg, uint64_t elements)
{
	uint64_t by = elements * op->size;

	if (ST.rflags & FLAG_DF)
		by = 0 - by;
	reg_set(i, (unsigned)reg * 8, GPR(reg) + by, addr_size(op));
}

static inline void
count_down(struct interp_cpu *i, const struct op *op, uint64_t n)
{
	if (op->flags & OP_REP)
		reg_set(i, RCX * 8, GPR(RCX) - n, addr_size(op));
}

/*
 * How many elements from offset `off` of `seg` can be done in one go as far as this operand is concerned: within one
 * page, the segment's limit and the width of addresses. 0: not even one, or it cannot be told; go element by element.
 */
static uint64_t
run_length(struct interp_cpu *i, const struct op *op, enum seg_name seg, uint64_t off, gva_t a)
{
	uint64_t bytes = PAGE_SIZE - (a & PAGE_MASK);
	const struct x86_seg *s = &ST.seg[seg];

	if (i->c.mode != X86_LONG64) {
		uint64_t last = op->flags & OP_A16 ? 0xffff : 0xffffffff;

		if (!(i->c.flat & (1u << seg))) {
			if ((s->attr & 0xc) == 0x4) /* expands down */
				return 0;
			if (s->limit < last)
				last = s->limit;
		}
		if (off > last)
			return 0;
		if (bytes > last - off + 1)
			bytes = last - off + 1;
	} else if (op->flags & OP_A32 && bytes > 0x100000000 - off) {
		bytes = 0x100000000 - off;
	}
	return bytes / op->size;
}

static inline uint64_t
min_u64(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

/* An operand of the current run. */
struct span {
	gva_t a;
	uint8_t *host; /* NULL: element by element */
	struct soft_tlb_entry *e;
};

/* Find the host memory of one operand and shorten the run `*n` to it. Raises what the first element raises. */
static void
open_span(struct interp_cpu *i, const struct op *op, enum seg_name seg, int reg, enum x86_access access, uint64_t *n,
	struct span *s)
{
	uint64_t off = addr_get(i, op, reg), most;

	s->host = NULL;
	s->a = interp_linear(i, op, seg, off, op->size, access);
	interp_check_canonical(i, op, seg, s->a, op->size);
	if (*n == 0 || ST.rflags & FLAG_DF || HOT.tag == SOFT_TLB_GEN)
		return;
	most = run_length(i, op, seg, off, s->a);
	if (!most)
		return;
	HOT.op = op;
	s->host = x86_host(&i->c, s->a, op->size, access, i->c.mmu, &s->e);
	if (s->host)
		*n = min_u64(*n, most);
}

static inline bool
span_written(struct interp_cpu *i, struct span *s)
{
	if (likely(!atomic_load_explicit(s->e->flags, memory_order_relaxed)))
		return false;
	return interp_page_flagged(i, s->e);
}

static inline uint64_t
element_load(const uint8_t *p, unsigned size)
{
	switch (size) {
	case 1:
		return *p;
	case 2:
		return *(const volatile mem2 *)p;
	case 4:
		return *(const volatile mem4 *)p;
	default:
		return *(const volatile mem8 *)p;
	}
}

static inline void
element_store(uint8_t *p, uint64_t v, unsigned size)
{
	switch (size) {
	case 1:
		*p = (uint8_t)v;
		break;
	case 2:
		*(volatile mem2 *)p = (uint16_t)v;
		break;
	case 4:
		*(volatile mem4 *)p = (uint32_t)v;
		break;
	default:
		*(volatile mem8 *)p = v;
	}
}

/* One element at a time at linear addresses that were checked; the general way. */
static uint64_t
load_at(struct interp_cpu *i, const struct op *op, gva_t a)
{
	switch (op->size) {
	case 1:
		return load1(i, op, a);
	case 2:
		return load2(i, op, a);
	case 4:
		return load4(i, op, a);
	default:
		return load8(i, op, a);
	}
}

static bool
store_at(struct interp_cpu *i, const struct op *op, gva_t a, uint64_t v)
{
	switch (op->size) {
	case 1:
		return store1(i, op, a, (uint8_t)v);
	case 2:
		return store2(i, op, a, (uint16_t)v);
	case 4:
		return store4(i, op, a, (uint32_t)v);
	default:
		return store8(i, op, a, v);
	}
}

static inline uint64_t
count_of(struct interp_cpu *i, const struct op *op)
{
	return op->flags & OP_REP ? addr_get(i, op, RCX) : 1;
}

/*
 * Before the first run of MOVS and STOS. With 32-bit addresses in 64-bit mode, processors with fast string operations
 * clear the upper halves of their pointers even if the first element faults or there is none; those of the others they
 * do not.
 */
static inline void
narrow(struct interp_cpu *i, const struct op *op, int reg)
{
	if (op->flags & OP_A32 && op->flags & OP_REP)
		GPR(reg) = (uint32_t)GPR(reg);
}

/* Has it no element? Of a count in ECX the rest of RCX is cleared then, too, by any of them. */
static inline bool
is_empty(struct interp_cpu *i, const struct op *op)
{
	if (likely(count_of(i, op)))
		return false;
	narrow(i, op, RCX);
	return true;
}

/*
 * After a run: is the instruction over (*next is then what the handler returns), or does it go on here? In single mode
 * each run stands alone.
 */
static bool
run_over(struct interp_cpu *i, const struct op *op, bool stop, bool out, struct block **next)
{
	bool more = op->flags & OP_REP && !stop && addr_get(i, op, RCX);

	if (!more) {
		*next = out ? interp_leave(i, op) : op[1].fn(i, op + 1);
		return true;
	}
	if (out || i->single || atomic_load_explicit(&i->c.v.requests, memory_order_relaxed)) {
		*next = interp_again(i, op);
		return true;
	}
	return false;
}

/* Elements of the next run at most. */
static inline uint64_t
run_limit(struct interp_cpu *i, uint64_t count)
{
	return i->single ? 1 : min_u64(count, RUN_MAX);
}

/* Ascending copy, element by element in effect: an overlap of destination behind source repeats a pattern. */
static void
copy_up(uint8_t *d, const uint8_t *s, uint64_t n, unsigned size)
{
	uint64_t bytes = n * size;

	if (d <= s || (uint64_t)(d - s) >= bytes) {
		memmove(d, s, bytes);
		return;
	}
	for (; n; n--, d += size, s += size)
		element_store(d, element_load(s, size), size);
}

HANDLER(movs)
{
	uint64_t n, v = 0;
	struct span s, d;
	struct block *next;
	bool out;

	narrow(i, op, RSI);
	narrow(i, op, RDI);
	if (is_empty(i, op))
		NEXT;
	do {
		n = run_limit(i, count_of(i, op));
		open_span(i, op, op->seg, RSI, X86_READ, &n, &s);
		if (!s.host) /* before the destination is looked at: if both fault, it is the load that does */
			v = load_at(i, op, s.a);
		open_span(i, op, SEG_ES, RDI, X86_WRITE, &n, &d);
		if (s.host && d.host) {
			copy_up(d.host, s.host, n, op->size);
			out = span_written(i, &d);
		} else {
			n = 1;
			out = store_at(i, op, d.a, s.host ? element_load(s.host, op->size) : v);
		}
		addr_advance(i, op, RSI, n);
		addr_advance(i, op, RDI, n);
		count_down(i, op, n);
	} while (!run_over(i, op, false, out, &next));
	return next;
}

static void
fill(uint8_t *d, uint64_t v, uint64_t n, unsigned size)
{
	if (size == 1 || v == 0) {
		memset(d, (int)(uint8_t)v, n * size);
		return;
	}
	for (; n; n--, d += size)
		element_store(d, v, size);
}

HANDLER(stos)
{
	uint64_t n, v = reg_get(i, RAX * 8, op->size);
	struct span d;
	struct block *next;
	bool out;

	narrow(i, op, RDI);
	if (is_empty(i, op))
		NEXT;
	do {
		n = run_limit(i, count_of(i, op));
		open_span(i, op, SEG_ES, RDI, X86_WRITE, &n, &d);
		if (d.host) {
			fill(d.host, v, n, op->size);
			out = span_written(i, &d);
		} else {
			n = 1;
			out = store_at(i, op, d.a, v);
		}
		addr_advance(i, op, RDI, n);
		count_down(i, op, n);
	} while (!run_over(i, op, false, out, &next));
	return next;
}

HANDLER(lods)
{
	uint64_t n;
	struct span s;
	struct block *next;

	if (is_empty(i, op))
		NEXT;
	do {
		n = run_limit(i, count_of(i, op));
		open_span(i, op, op->seg, RSI, X86_READ, &n, &s);
		if (s.host) {
			reg_set(i, RAX * 8, element_load(s.host + (n - 1) * op->size, op->size), op->size);
		} else {
			n = 1;
			reg_set(i, RAX * 8, load_at(i, op, s.a), op->size);
		}
		addr_advance(i, op, RSI, n);
		count_down(i, op, n);
	} while (!run_over(i, op, false, false, &next));
	return next;
}

/* Flags of a - b. */
static void
compare(struct interp_cpu *i, uint64_t a, uint64_t b, unsigned size)
{
	switch (size) {
#define CASE(n, T, sfx)                                                                                                \
	case n:                                                                                                        \
		__asm__("cmp" sfx " %[b], %[a]" FLAGS_STORE                                                            \
			: [f] "+m"(HOT.flags)                                                                          \
			: [a] "r"((T)a), [b] "r"((T)b)                                                                 \
			: "rax", "cc");                                                                                \
		break;
		OP_SIZES(CASE)
#undef CASE
	}
}

/* Does a repeated comparison end with these two? */
static inline bool
ends(const struct op *op, uint64_t a, uint64_t b)
{
	return op->flags & OP_REPE ? a != b : a == b;
}

/* run_over() for comparisons. A fault in a later run finds the flags of before the instruction (SDM 2B, REP). */
static bool
compared(struct interp_cpu *i, const struct op *op, uint64_t a, uint64_t b, struct block **next)
{
	bool more = op->flags & OP_REP && !ends(op, a, b) && addr_get(i, op, RCX);

	if (!more)
		compare(i, a, b, op->size);
	return run_over(i, op, !more, false, next);
}

HANDLER(scas)
{
	uint64_t n, k, v = reg_get(i, RAX * 8, op->size), m = 0;
	struct span d;
	struct block *next;

	if (is_empty(i, op))
		NEXT;
	do {
		n = run_limit(i, count_of(i, op));
		open_span(i, op, SEG_ES, RDI, X86_READ, &n, &d);
		if (d.host) {
			for (k = 0; k < n; k++) {
				m = element_load(d.host + k * op->size, op->size);
				if (ends(op, v, m)) {
					n = k + 1;
					break;
				}
			}
		} else {
			n = 1;
			m = load_at(i, op, d.a);
		}
		addr_advance(i, op, RDI, n);
		count_down(i, op, n);
	} while (!compared(i, op, v, m, &next));
	return next;
}

HANDLER(cmps)
{
	uint64_t n, k, v = 0, m = 0;
	struct span s, d;
	struct block *next;

	if (is_empty(i, op))
		NEXT;
	do {
		n = run_limit(i, count_of(i, op));
		open_span(i, op, op->seg, RSI, X86_READ, &n, &s);
		open_span(i, op, SEG_ES, RDI, X86_READ, &n, &d);
		if (s.host && d.host) {
			for (k = 0; k < n; k++) {
				v = element_load(s.host + k * op->size, op->size);
				m = element_load(d.host + k * op->size, op->size);
				if (ends(op, v, m)) {
					n = k + 1;
					break;
				}
			}
		} else {
			n = 1;
			v = load_at(i, op, s.a);
			m = load_at(i, op, d.a);
		}
		addr_advance(i, op, RSI, n);
		addr_advance(i, op, RDI, n);
		count_down(i, op, n);
	} while (!compared(i, op, v, m, &next));
	return next;
}

/*
 * INS and OUTS reach devices, so each element is done alone, and other vCPUs and devices may react: the block ends.
 * The memory side is checked first: a fault must not lose what a port read has fetched.
 */
static struct block *
io_over(struct interp_cpu *i, const struct op *op)
{
	flags_in(i);
	HOT.complete = false;
	if (op->flags & OP_REP && addr_get(i, op, RCX))
		return interp_again(i, op);
	return interp_leave(i, op);
}

HANDLER(ins)
{
	struct soft_cpu *c = &i->c;
	uint16_t port = (uint16_t)GPR(RDX);
	uint64_t n, limit = i->single ? 1 : 4096;

	sys_begin(i, op);
	x86_check_io(c, port, op->size);
	for (n = 0; n < limit && count_of(i, op); n++) {
		gva_t a = interp_linear(i, op, SEG_ES, addr_get(i, op, RDI), op->size, X86_WRITE);
		uint32_t v;

		interp_check_canonical(i, op, SEG_ES, a, op->size);
		x86_probe(c, a, op->size, X86_WRITE, c->mmu);
		v = cpu_io_read(&c->v, port, op->size);
		x86_store(c, a, v, op->size, c->mmu);
		addr_advance(i, op, RDI, 1);
		count_down(i, op, 1);
		if (!(op->flags & OP_REP) || c->code_written ||
			atomic_load_explicit(&c->v.requests, memory_order_relaxed))
			break;
	}
	return io_over(i, op);
}

HANDLER(outs)
{
	struct soft_cpu *c = &i->c;
	uint16_t port = (uint16_t)GPR(RDX);
	uint64_t n, limit = i->single ? 1 : 4096;

	sys_begin(i, op);
	x86_check_io(c, port, op->size);
	for (n = 0; n < limit && count_of(i, op); n++) {
		gva_t a = interp_linear(i, op, op->seg, addr_get(i, op, RSI), op->size, X86_READ);

		interp_check_canonical(i, op, op->seg, a, op->size);
		cpu_io_write(&c->v, port, (uint32_t)x86_load(c, a, op->size, c->mmu), op->size);
		addr_advance(i, op, RSI, 1);
		count_down(i, op, 1);
		if (!(op->flags & OP_REP) || atomic_load_explicit(&c->v.requests, memory_order_relaxed))
			break;
	}
	return io_over(i, op);
}
