/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Operations on a register or memory in place, locked or not. Registers live in memory too, so one handler serves
 * both: begin() yields a pointer and finish() does what is left to do (zero-extension of 32-bit registers, the page's
 * flags or the slow way's store).
 *
 * Locked operations run the host's locked instruction on guest memory. Where the slow way is taken (MMIO, an access
 * across two pages) they are not atomic.
 */
#include "cpu/interp/op.h"

#define HANDLER(name) static struct block *name(struct interp_cpu *i, const struct op *op)
#define GPR(r) (i->c.v.state.gpr[r])

static inline struct rmw
begin(struct interp_cpu *i, const struct op *op, unsigned size)
{
	gva_t a;

	if (!(op->flags & OP_MEM))
		return (struct rmw){ (char *)i + op->dst, &i->reg_entry };
	a = EA3(size, X86_WRITE);
	switch (size) {
	case 1:
		return rmw1(i, op, a);
	case 2:
		return rmw2(i, op, a);
	case 4:
		return rmw4(i, op, a);
	default:
		return rmw8(i, op, a);
	}
}

static inline struct block *
finish(struct interp_cpu *i, const struct op *op, unsigned size, struct soft_tlb_entry *e)
{
	if (size == 4 && !(op->flags & OP_MEM))
		REG(8, op->dst) = REG(4, op->dst);
	if (unlikely(rmw_done(i, e)))
		return interp_leave(i, op);
	NEXT;
}

#define ROW4(prefix)                                                                                                   \
	{                                                                                                              \
		prefix##1, prefix##2, prefix##4, prefix##8                                                             \
	}
#define OUT_FLAGS [f] "+m"(HOT.flags)

/* ---- locked two-operand arithmetic on memory ---- */

#define LOCKED(name, pre, n, T, sfx)                                                                                   \
	HANDLER(name##_r##n)                                                                                           \
	{                                                                                                              \
		struct rmw m = begin(i, op, n);                                                                        \
		mem##n *p = m.p;                                                                                       \
		T s = REG(n, op->src);                                                                                 \
		__asm__ volatile(pre "lock; " #name sfx " %[src], %[dst]" FLAGS_STORE                                  \
				 : [dst] "+m"(*p), OUT_FLAGS                                                           \
				 : [src] "r"(s)                                                                        \
				 : "rax", "cc", "memory");                                                             \
		return finish(i, op, n, m.e);                                                                          \
	}                                                                                                              \
	HANDLER(name##_i##n)                                                                                           \
	{                                                                                                              \
		struct rmw m = begin(i, op, n);                                                                        \
		mem##n *p = m.p;                                                                                       \
		T s = (T)op->imm;                                                                                      \
		__asm__ volatile(pre "lock; " #name sfx " %[src], %[dst]" FLAGS_STORE                                  \
				 : [dst] "+m"(*p), OUT_FLAGS                                                           \
				 : [src] "r"(s)                                                                        \
				 : "rax", "cc", "memory");                                                             \
		return finish(i, op, n, m.e);                                                                          \
	}
#define LOCKED_ALL(n, T, sfx)                                                                                          \
	LOCKED(add, "", n, T, sfx)                                                                                     \
	LOCKED(or, "", n, T, sfx)                                                                                      \
	LOCKED(adc, CARRY_LOAD, n, T, sfx)                                                                             \
	LOCKED(sbb, CARRY_LOAD, n, T, sfx)                                                                             \
	LOCKED(and, "", n, T, sfx)                                                                                     \
	LOCKED(sub, "", n, T, sfx)                                                                                     \
	LOCKED(xor, "", n, T, sfx)
OP_SIZES(LOCKED_ALL)
#define LOCKED_ROWS(form)                                                                                              \
	{                                                                                                              \
		[BINOP_ADD] = ROW4(add_##form), [BINOP_OR] = ROW4(or_##form), [BINOP_ADC] = ROW4(adc_##form),          \
		[BINOP_SBB] = ROW4(sbb_##form), [BINOP_AND] = ROW4(and_##form), [BINOP_SUB] = ROW4(sub_##form),        \
		[BINOP_XOR] = ROW4(xor_##form),                                                                        \
	}
const op_fn interp_rmw_binop_r[BINOPS][4] = LOCKED_ROWS(r);
const op_fn interp_rmw_binop_i[BINOPS][4] = LOCKED_ROWS(i);

/* ---- one operand ---- */

#define UNOP(name, pre, n, T, sfx)                                                                                     \
	HANDLER(name##_##n)                                                                                            \
	{                                                                                                              \
		struct rmw m = begin(i, op, n);                                                                        \
		mem##n *p = m.p;                                                                                       \
		if (op->flags & OP_LOCK)                                                                               \
			__asm__ volatile(pre "lock; " #name sfx " %[dst]" FLAGS_STORE                                  \
					 : [dst] "+m"(*p), OUT_FLAGS                                                   \
					 :                                                                             \
					 : "rax", "cc", "memory");                                                     \
		else                                                                                                   \
			__asm__(pre #name sfx " %[dst]" FLAGS_STORE : [dst] "+m"(*p), OUT_FLAGS : : "rax", "cc");      \
		return finish(i, op, n, m.e);                                                                          \
	}
#define UNOP_ALL(n, T, sfx)                                                                                            \
	UNOP(inc, CARRY_LOAD, n, T, sfx)                                                                               \
	UNOP(dec, CARRY_LOAD, n, T, sfx)                                                                               \
	UNOP(neg, "", n, T, sfx)                                                                                       \
	HANDLER(not_##n)                                                                                               \
	{                                                                                                              \
		struct rmw m = begin(i, op, n);                                                                        \
		mem##n *p = m.p;                                                                                       \
		if (op->flags & OP_LOCK)                                                                               \
			__asm__ volatile("lock; not" sfx " %[dst]" : [dst] "+m"(*p) : : "memory");                     \
		else                                                                                                   \
			*p = (T) ~*p;                                                                                  \
		return finish(i, op, n, m.e);                                                                          \
	}
OP_SIZES(UNOP_ALL)
const op_fn interp_rmw_unop[UNOPS][4] = { ROW4(inc_), ROW4(dec_), ROW4(neg_), ROW4(not_) };

/* ---- shifts ---- */

#define SHIFT(name, n, T, sfx)                                                                                         \
	static inline struct block *name##_by##n(struct interp_cpu *i, const struct op *op, uint8_t count)             \
	{                                                                                                              \
		struct rmw m = begin(i, op, n);                                                                        \
		mem##n *p = m.p;                                                                                       \
		__asm__(FLAGS_LOAD #name sfx " %%cl, %[dst]" FLAGS_STORE                                               \
			: [dst] "+m"(*p), OUT_FLAGS                                                                    \
			: "c"(count)                                                                                   \
			: "rax", "cc");                                                                                \
		return finish(i, op, n, m.e);                                                                          \
	}                                                                                                              \
	HANDLER(name##_i##n)                                                                                           \
	{                                                                                                              \
		return name##_by##n(i, op, (uint8_t)op->imm);                                                          \
	}                                                                                                              \
	HANDLER(name##_c##n)                                                                                           \
	{                                                                                                              \
		return name##_by##n(i, op, (uint8_t)GPR(RCX));                                                         \
	}
#define SHIFT_ALL(n, T, sfx)                                                                                           \
	SHIFT(rol, n, T, sfx)                                                                                          \
	SHIFT(ror, n, T, sfx)                                                                                          \
	SHIFT(rcl, n, T, sfx)                                                                                          \
	SHIFT(rcr, n, T, sfx)                                                                                          \
	SHIFT(shl, n, T, sfx)                                                                                          \
	SHIFT(shr, n, T, sfx)                                                                                          \
	SHIFT(sar, n, T, sfx)
OP_SIZES(SHIFT_ALL)
#define SHIFT_ROWS(form)                                                                                               \
	{                                                                                                              \
		ROW4(rol_##form), ROW4(ror_##form), ROW4(rcl_##form), ROW4(rcr_##form), ROW4(shl_##form),              \
			ROW4(shr_##form), ROW4(sar_##form)                                                             \
	}
const op_fn interp_rmw_shift_i[SHIFTS][4] = SHIFT_ROWS(i);
const op_fn interp_rmw_shift_c[SHIFTS][4] = SHIFT_ROWS(c);

#define DOUBLE(name, n, T, sfx)                                                                                        \
	static inline struct block *name##_by##n(struct interp_cpu *i, const struct op *op, uint8_t count)             \
	{                                                                                                              \
		struct rmw m = begin(i, op, n);                                                                        \
		mem##n *p = m.p;                                                                                       \
		T s = REG(n, op->src);                                                                                 \
		__asm__(FLAGS_LOAD #name sfx " %%cl, %[src], %[dst]" FLAGS_STORE                                       \
			: [dst] "+m"(*p), OUT_FLAGS                                                                    \
			: "c"(count), [src] "r"(s)                                                                     \
			: "rax", "cc");                                                                                \
		return finish(i, op, n, m.e);                                                                          \
	}                                                                                                              \
	HANDLER(name##_i##n)                                                                                           \
	{                                                                                                              \
		return name##_by##n(i, op, (uint8_t)op->imm);                                                          \
	}                                                                                                              \
	HANDLER(name##_c##n)                                                                                           \
	{                                                                                                              \
		return name##_by##n(i, op, (uint8_t)GPR(RCX));                                                         \
	}
#define DOUBLE_ALL(n, T, sfx)                                                                                          \
	DOUBLE(shld, n, T, sfx)                                                                                        \
	DOUBLE(shrd, n, T, sfx)
DOUBLE_ALL(2, uint16_t, "w")
DOUBLE_ALL(4, uint32_t, "l")
DOUBLE_ALL(8, uint64_t, "q")
const op_fn interp_rmw_shld_i[2][4] = { { NULL, shld_i2, shld_i4, shld_i8 }, { NULL, shrd_i2, shrd_i4, shrd_i8 } };
const op_fn interp_rmw_shld_c[2][4] = { { NULL, shld_c2, shld_c4, shld_c8 }, { NULL, shrd_c2, shrd_c4, shrd_c8 } };

/* ---- bits ---- */

/*
 * With a register as bit offset, memory operands are bit strings: the offset selects the word too (SDM 2A, BT). The
 * word is found here; the host's instruction then works on the bit in it.
 */
static gva_t
bit_address(struct interp_cpu *i, const struct op *op, unsigned size, int64_t bit, enum x86_access access)
{
	int64_t word = bit >> (3 + log2_size(size));
	uint64_t off = interp_offset(i, op) + (uint64_t)(word * (int64_t)size);

	if (op->flags & OP_A16)
		off = (uint16_t)off;
	else if (op->flags & OP_A32)
		off = (uint32_t)off;
	return interp_linear(i, op, op->seg, off, size, access);
}

#define BIT_OP(name, n, sfx, p, s)                                                                                     \
	do {                                                                                                           \
		if (op->flags & OP_LOCK)                                                                               \
			__asm__ volatile(FLAGS_LOAD "lock; " #name sfx " %[src], %[dst]" FLAGS_STORE                   \
					 : [dst] "+m"(*p), OUT_FLAGS                                                   \
					 : [src] "r"(s)                                                                \
					 : "rax", "cc", "memory");                                                     \
		else                                                                                                   \
			__asm__(FLAGS_LOAD #name sfx " %[src], %[dst]" FLAGS_STORE                                     \
				: [dst] "+m"(*p), OUT_FLAGS                                                            \
				: [src] "r"(s)                                                                         \
				: "rax", "cc");                                                                        \
	} while (0)
#define BIT_WRITE(name, n, T, S, sfx)                                                                                  \
	HANDLER(name##_r##n)                                                                                           \
	{                                                                                                              \
		struct rmw m = { (char *)i + op->dst, &i->reg_entry };                                                 \
		mem##n *p;                                                                                             \
		T s = REG(n, op->src);                                                                                 \
		if (op->flags & OP_MEM)                                                                                \
			m = rmw##n(i, op, bit_address(i, op, n, (S)s, X86_WRITE));                                     \
		p = m.p;                                                                                               \
		s &= n * 8 - 1;                                                                                        \
		BIT_OP(name, n, sfx, p, s);                                                                            \
		return finish(i, op, n, m.e);                                                                          \
	}                                                                                                              \
	HANDLER(name##_i##n)                                                                                           \
	{                                                                                                              \
		struct rmw m = begin(i, op, n);                                                                        \
		mem##n *p = m.p;                                                                                       \
		T s = (T)(op->imm & (n * 8 - 1));                                                                      \
		BIT_OP(name, n, sfx, p, s);                                                                            \
		return finish(i, op, n, m.e);                                                                          \
	}
#define BIT_TEST(n, T, S, sfx)                                                                                         \
	static inline struct block *bt_value##n(struct interp_cpu *i, const struct op *op, T v, T s)                   \
	{                                                                                                              \
		__asm__(FLAGS_LOAD "bt" sfx " %[src], %[dst]" FLAGS_STORE:OUT_FLAGS                                    \
			: [dst] "r"(v), [src] "r"(s)                                                                   \
			: "rax", "cc");                                                                                \
		NEXT;                                                                                                  \
	}                                                                                                              \
	HANDLER(bt_r##n)                                                                                               \
	{                                                                                                              \
		T s = REG(n, op->src);                                                                                 \
		if (op->flags & OP_MEM)                                                                                \
			return bt_value##n(i, op, load##n(i, op, bit_address(i, op, n, (S)s, X86_READ)), s);           \
		return bt_value##n(i, op, REG(n, op->dst), s);                                                         \
	}                                                                                                              \
	HANDLER(bt_i##n)                                                                                               \
	{                                                                                                              \
		return bt_value##n(i, op, (T)interp_rm_load(i, op, n), (T)op->imm);                                    \
	}
#define BIT_ALL(n, T, S, sfx)                                                                                          \
	BIT_TEST(n, T, S, sfx)                                                                                         \
	BIT_WRITE(bts, n, T, S, sfx)                                                                                   \
	BIT_WRITE(btr, n, T, S, sfx)                                                                                   \
	BIT_WRITE(btc, n, T, S, sfx)
BIT_ALL(2, uint16_t, int16_t, "w")
BIT_ALL(4, uint32_t, int32_t, "l")
BIT_ALL(8, uint64_t, int64_t, "q")
#define BIT_ROWS(form)                                                                                                 \
	{                                                                                                              \
		{ NULL, bt_##form##2, bt_##form##4, bt_##form##8 },                                                    \
			{ NULL, bts_##form##2, bts_##form##4, bts_##form##8 },                                         \
			{ NULL, btr_##form##2, btr_##form##4, btr_##form##8 },                                         \
		{                                                                                                      \
			NULL, btc_##form##2, btc_##form##4, btc_##form##8                                              \
		}                                                                                                      \
	}
const op_fn interp_rmw_bit_r[BITOPS][4] = BIT_ROWS(r);
const op_fn interp_rmw_bit_i[BITOPS][4] = BIT_ROWS(i);

/* The 16-bit form works on 32-bit registers in the host's instruction: its destination keeps the upper half. */
#define SCAN(name, n, T, sfx)                                                                                          \
	HANDLER(name##_##n)                                                                                            \
	{                                                                                                              \
		T s = (T)(op->flags & OP_MEM ? interp_rm_load(i, op, n) : REG(n, op->src));                            \
		uint64_t d = REG(8, op->dst);                                                                          \
		__asm__(FLAGS_LOAD #name sfx " %[src], " SCAN_REG##n FLAGS_STORE                                       \
			: [dst] "+r"(d), OUT_FLAGS                                                                     \
			: [src] "r"(s)                                                                                 \
			: "rax", "cc");                                                                                \
		REG(8, op->dst) = d;                                                                                   \
		NEXT;                                                                                                  \
	}
#define SCAN_REG2 "%w[dst]"
#define SCAN_REG4 "%k[dst]"
#define SCAN_REG8 "%q[dst]"
#define SCAN_ALL(name)                                                                                                 \
	SCAN(name, 2, uint16_t, "w")                                                                                   \
	SCAN(name, 4, uint32_t, "l")                                                                                   \
	SCAN(name, 8, uint64_t, "q")
SCAN_ALL(bsf)
SCAN_ALL(bsr)
SCAN_ALL(tzcnt)
SCAN_ALL(lzcnt)
SCAN_ALL(popcnt)
#define SCAN_ROW(name)                                                                                                 \
	{                                                                                                              \
		NULL, name##_2, name##_4, name##_8                                                                     \
	}
const op_fn interp_scan[4][4] = { SCAN_ROW(bsf), SCAN_ROW(bsr), SCAN_ROW(tzcnt), SCAN_ROW(lzcnt) };
const op_fn interp_popcnt[4] = SCAN_ROW(popcnt);

/* ---- exchanges ---- */

#define EXCHANGE(n, T, sfx)                                                                                            \
	HANDLER(xadd_##n)                                                                                              \
	{                                                                                                              \
		struct rmw m = begin(i, op, n);                                                                        \
		mem##n *p = m.p;                                                                                       \
		T s = REG(n, op->src), d;                                                                              \
		bool out;                                                                                              \
		if (op->flags & OP_MEM) {                                                                              \
			__asm__ volatile("lock; xadd" sfx " %[src], %[dst]" FLAGS_STORE                                \
					 : [dst] "+m"(*p), [src] "+r"(s), OUT_FLAGS                                    \
					 :                                                                             \
					 : "rax", "cc", "memory");                                                     \
			out = rmw_done(i, m.e);                                                                        \
			SET##n(op->src, s);                                                                            \
			if (unlikely(out))                                                                             \
				return interp_leave(i, op);                                                            \
			NEXT;                                                                                          \
		}                                                                                                      \
		d = REG(n, op->dst);                                                                                   \
		__asm__("xadd" sfx " %[src], %[dst]" FLAGS_STORE                                                       \
			: [dst] "+r"(d), [src] "+r"(s), OUT_FLAGS                                                      \
			:                                                                                              \
			: "rax", "cc");                                                                                \
		SET##n(op->src, s);                                                                                    \
		SET##n(op->dst, d);                                                                                    \
		NEXT;                                                                                                  \
	}                                                                                                              \
	HANDLER(cmpxchg_##n)                                                                                           \
	{                                                                                                              \
		struct rmw m = begin(i, op, n);                                                                        \
		mem##n *p = m.p;                                                                                       \
		T s = REG(n, op->src), a = REG(n, RAX * 8), was = a;                                                   \
		uint8_t equal;                                                                                         \
		bool out;                                                                                              \
		__asm__ volatile("lock; cmpxchg" sfx " %[src], %[dst]\n\tsete %[z]"                                    \
				 : [dst] "+m"(*p), "+a"(a), [z] "=q"(equal)                                            \
				 : [src] "r"(s)                                                                        \
				 : "cc", "memory");                                                                    \
		out = rmw_done(i, m.e);                                                                                \
		__asm__("cmp" sfx " %[was], %[acc]" FLAGS_STORE:OUT_FLAGS                                              \
			: [acc] "r"(was), [was] "r"(a)                                                                 \
			: "rax", "cc");                                                                                \
		if (!equal)                                                                                            \
			SET##n(RAX * 8, a);                                                                            \
		if (n == 4 && equal && !(op->flags & OP_MEM))                                                          \
			REG(8, op->dst) = REG(4, op->dst);                                                             \
		if (unlikely(out))                                                                                     \
			return interp_leave(i, op);                                                                    \
		NEXT;                                                                                                  \
	}                                                                                                              \
	HANDLER(xchg_##n)                                                                                              \
	{                                                                                                              \
		struct rmw m = begin(i, op, n);                                                                        \
		mem##n *p = m.p;                                                                                       \
		T s = REG(n, op->src);                                                                                 \
		bool out;                                                                                              \
		__asm__ volatile("xchg" sfx " %[src], %[dst]" : [dst] "+m"(*p), [src] "+r"(s) : : "memory");           \
		out = rmw_done(i, m.e);                                                                                \
		SET##n(op->src, s);                                                                                    \
		if (unlikely(out))                                                                                     \
			return interp_leave(i, op);                                                                    \
		NEXT;                                                                                                  \
	}
OP_SIZES(EXCHANGE)
const op_fn interp_rmw_xadd[4] = ROW4(xadd_);
const op_fn interp_rmw_cmpxchg[4] = ROW4(cmpxchg_);
const op_fn interp_rmw_xchg[4] = ROW4(xchg_);

static void
set_zf(struct interp_cpu *i, bool on)
{
	HOT.flags = (uint16_t)(on ? HOT.flags | HF_ZF : HOT.flags & ~HF_ZF);
}

struct block *
interp_op_cmpxchg8b(struct interp_cpu *i, const struct op *op)
{
	struct rmw m = rmw8(i, op, interp_ea(i, op, 8, X86_WRITE));
	mem8 *p = m.p;
	uint64_t expected = (uint32_t)GPR(RAX) | GPR(RDX) << 32, was = expected;
	uint64_t desired = (uint32_t)GPR(RBX) | GPR(RCX) << 32;
	bool out;

	__asm__ volatile("lock; cmpxchgq %[new], %[dst]"
			 : [dst] "+m"(*p), "+a"(was)
			 : [new] "r"(desired)
			 : "cc", "memory");
	out = rmw_done(i, m.e);
	set_zf(i, was == expected);
	if (was != expected) {
		GPR(RAX) = (uint32_t)was;
		GPR(RDX) = was >> 32;
	}
	if (unlikely(out))
		return interp_leave(i, op);
	NEXT;
}

/* 16 aligned bytes are always in one page; what is not plain memory is read and written in halves. */
struct block *
interp_op_cmpxchg16b(struct interp_cpu *i, const struct op *op)
{
	gva_t a = interp_ea(i, op, 16, X86_WRITE);
	struct soft_tlb_entry *e;
	uint64_t lo = GPR(RAX), hi = GPR(RDX), slow[2] __attribute__((aligned(16)));
	uint64_t *p;
	bool equal, out = false;

	if (a & 15)
		interp_raise_error(i, op, EXC_GP, 0);
	interp_check_canonical(i, op, op->seg, a, 16);
	HOT.op = op;
	p = x86_host(&i->c, a, 16, X86_WRITE, i->c.mmu, &e);
	if (!p) {
		slow[0] = x86_load(&i->c, a, 8, i->c.mmu);
		slow[1] = x86_load(&i->c, a + 8, 8, i->c.mmu);
	}
	__asm__ volatile("lock; cmpxchg16b %[dst]\n\tsete %[z]"
			 : [dst] "+m"(*(unsigned __int128 *)(p ? p : slow)), "+a"(lo), "+d"(hi), [z] "=q"(equal)
			 : "b"(GPR(RBX)), "c"(GPR(RCX))
			 : "cc", "memory");
	if (!p) {
		x86_store(&i->c, a, slow[0], 8, i->c.mmu);
		x86_store(&i->c, a + 8, slow[1], 8, i->c.mmu);
	} else if (atomic_load_explicit(e->flags, memory_order_relaxed)) {
		out = interp_page_flagged(i, e);
	}
	set_zf(i, equal);
	if (!equal) {
		GPR(RAX) = lo;
		GPR(RDX) = hi;
	}
	if (unlikely(out || i->c.code_written))
		return interp_leave(i, op);
	NEXT;
}

/* ---- multiplication and division into RDX:RAX ---- */

#define MULTIPLY(name, n, T, sfx)                                                                                      \
	HANDLER(name##_##n)                                                                                            \
	{                                                                                                              \
		T s = (T)interp_rm_load(i, op, n);                                                                     \
		uint64_t lo = GPR(RAX), hi = GPR(RDX), f;                                                              \
		__asm__("movzwl %[f], %%ecx\n\t"                                                                       \
			"xchg %%rcx, %%rax\n\taddb $0x7f, %%al\n\tsahf\n\txchg %%rcx, %%rax\n\t" #name sfx             \
			" %[src]\n\t"                                                                                  \
			"xchg %%rcx, %%rax\n\tlahf\n\tseto %%al\n\tmovw %%ax, %[f]\n\txchg %%rcx, %%rax"               \
			: "+&a"(lo), "+&d"(hi), "=&c"(f), OUT_FLAGS                                                    \
			: [src] "r"(s)                                                                                 \
			: "cc");                                                                                       \
		MUL_RESULT##n;                                                                                         \
		NEXT;                                                                                                  \
	}
#define MUL_RESULT1 SET2(RAX * 8, lo)
#define MUL_RESULT2                                                                                                    \
	do {                                                                                                           \
		SET2(RAX * 8, lo);                                                                                     \
		SET2(RDX * 8, hi);                                                                                     \
	} while (0)
#define MUL_RESULT4                                                                                                    \
	do {                                                                                                           \
		SET4(RAX * 8, lo);                                                                                     \
		SET4(RDX * 8, hi);                                                                                     \
	} while (0)
#define MUL_RESULT8                                                                                                    \
	do {                                                                                                           \
		GPR(RAX) = lo;                                                                                         \
		GPR(RDX) = hi;                                                                                         \
	} while (0)
#define MULTIPLY_ALL(n, T, sfx)                                                                                        \
	MULTIPLY(mul, n, T, sfx)                                                                                       \
	MULTIPLY(imul, n, T, sfx)
OP_SIZES(MULTIPLY_ALL)
const op_fn interp_mul[4] = ROW4(mul_);
const op_fn interp_imul1[4] = ROW4(imul_);

static inline bool
div_fits(unsigned __int128 dividend, uint64_t divisor, unsigned size)
{
	return divisor && (uint64_t)(dividend >> (size * 8)) < divisor;
}

/* Does the signed quotient fit `size` bytes? The host's instruction would trap where it does not. */
static inline bool
idiv_fits(__int128 dividend, int64_t divisor, unsigned size)
{
	unsigned __int128 magnitude = dividend < 0 ? -(unsigned __int128)dividend : (unsigned __int128)dividend;
	uint64_t by = divisor < 0 ? -(uint64_t)divisor : (uint64_t)divisor;
	bool negative = (dividend < 0) != (divisor < 0);
	uint64_t limit = 1ull << (size * 8 - 1);
	unsigned __int128 q;

	if (!by)
		return false;
	if (magnitude >> 64 >= by)
		return false;
	q = magnitude / by;
	return q < limit || (negative && q == limit);
}

#define DIVIDE(n, T, S, sfx, DIVIDEND, SDIVIDEND)                                                                      \
	HANDLER(div_##n)                                                                                               \
	{                                                                                                              \
		T s = (T)interp_rm_load(i, op, n);                                                                     \
		uint64_t lo = GPR(RAX), hi = GPR(RDX), f;                                                              \
		if (unlikely(!div_fits(DIVIDEND, s, n)))                                                               \
			interp_raise(i, op, EXC_DE);                                                                   \
		DIVIDE_ASM("div", n, sfx);                                                                             \
		MUL_RESULT##n;                                                                                         \
		NEXT;                                                                                                  \
	}                                                                                                              \
	HANDLER(idiv_##n)                                                                                              \
	{                                                                                                              \
		T s = (T)interp_rm_load(i, op, n);                                                                     \
		uint64_t lo = GPR(RAX), hi = GPR(RDX), f;                                                              \
		if (unlikely(!idiv_fits(SDIVIDEND, (S)s, n)))                                                          \
			interp_raise(i, op, EXC_DE);                                                                   \
		DIVIDE_ASM("idiv", n, sfx);                                                                            \
		MUL_RESULT##n;                                                                                         \
		NEXT;                                                                                                  \
	}
#define DIVIDE_ASM(name, n, sfx)                                                                                       \
	__asm__("movzwl %[f], %%ecx\n\t"                                                                               \
		"xchg %%rcx, %%rax\n\taddb $0x7f, %%al\n\tsahf\n\txchg %%rcx, %%rax\n\t" name sfx " %[src]\n\t"        \
		"xchg %%rcx, %%rax\n\tlahf\n\tseto %%al\n\tmovw %%ax, %[f]\n\txchg %%rcx, %%rax"                       \
		: "+&a"(lo), "+&d"(hi), "=&c"(f), OUT_FLAGS                                                            \
		: [src] "r"(s)                                                                                         \
		: "cc")
DIVIDE(1, uint8_t, int8_t, "b", (uint16_t)lo, (int16_t)lo)
DIVIDE(2, uint16_t, int16_t, "w", (uint32_t)((uint32_t)hi << 16 | (uint16_t)lo),
	(int32_t)((uint32_t)hi << 16 | (uint16_t)lo))
DIVIDE(4, uint32_t, int32_t, "l", hi << 32 | (uint32_t)lo, (int64_t)(hi << 32 | (uint32_t)lo))
DIVIDE(8, uint64_t, int64_t, "q", ((unsigned __int128)hi << 64 | lo), (__int128)((unsigned __int128)hi << 64 | lo))
const op_fn interp_div[4] = ROW4(div_);
const op_fn interp_idiv[4] = ROW4(idiv_);
