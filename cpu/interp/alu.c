/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The hot operations, generated for each operand size and kind of address.
 *
 * Arithmetic runs on the host's own instruction of the same name and size, so that all flags, also the ones the manual
 * leaves undefined, are the host's; they are kept as LAHF and SETO deliver them (op.h).
 */
#include "cpu/interp/op.h"

#define ALU(pre, insn, sfx, d, s)                                                                                      \
	__asm__(pre insn sfx " %[src], %[dst]" FLAGS_STORE                                                             \
		: [dst] "+r"(d), [f] "+m"(HOT.flags)                                                                   \
		: [src] "r"(s)                                                                                         \
		: "rax", "cc")
#define ALU_MEM(pre, insn, sfx, p, s)                                                                                  \
	__asm__(pre insn sfx " %[src], %[dst]" FLAGS_STORE                                                             \
		: [dst] "+m"(p), [f] "+m"(HOT.flags)                                                                   \
		: [src] "r"(s)                                                                                         \
		: "rax", "cc")
#define HANDLER(name) static struct block *name(struct interp_cpu *i, const struct op *op)

/* ---- two operands: write back or compare ---- */

#define WRITE_OP(name, pre, insn, n, T, sfx)                                                                           \
	HANDLER(name##_rr##n)                                                                                          \
	{                                                                                                              \
		T d = REG(n, op->dst), s = REG(n, op->src);                                                            \
		ALU(pre, insn, sfx, d, s);                                                                             \
		SET##n(op->dst, d);                                                                                    \
		NEXT;                                                                                                  \
	}                                                                                                              \
	HANDLER(name##_ri##n)                                                                                          \
	{                                                                                                              \
		T d = REG(n, op->dst), s = (T)op->imm;                                                                 \
		ALU(pre, insn, sfx, d, s);                                                                             \
		SET##n(op->dst, d);                                                                                    \
		NEXT;                                                                                                  \
	}                                                                                                              \
	WRITE_OP_MEM(name, pre, insn, n, T, sfx, 0)                                                                    \
	WRITE_OP_MEM(name, pre, insn, n, T, sfx, 1)                                                                    \
	WRITE_OP_MEM(name, pre, insn, n, T, sfx, 2)                                                                    \
	WRITE_OP_MEM(name, pre, insn, n, T, sfx, 3)

#define WRITE_OP_MEM(name, pre, insn, n, T, sfx, kind)                                                                 \
	HANDLER(name##_rm##n##_##kind)                                                                                 \
	{                                                                                                              \
		T s = load##n(i, op, EA##kind(n, X86_READ)), d = REG(n, op->dst);                                      \
		ALU(pre, insn, sfx, d, s);                                                                             \
		SET##n(op->dst, d);                                                                                    \
		NEXT;                                                                                                  \
	}                                                                                                              \
	HANDLER(name##_mr##n##_##kind)                                                                                 \
	{                                                                                                              \
		struct rmw m = rmw##n(i, op, EA##kind(n, X86_WRITE));                                                  \
		mem##n *p = m.p;                                                                                       \
		T s = REG(n, op->src);                                                                                 \
		ALU_MEM(pre, insn, sfx, *p, s);                                                                        \
		if (unlikely(rmw_done(i, m.e)))                                                                        \
			return interp_leave(i, op);                                                                    \
		NEXT;                                                                                                  \
	}                                                                                                              \
	HANDLER(name##_mi##n##_##kind)                                                                                 \
	{                                                                                                              \
		struct rmw m = rmw##n(i, op, EA##kind(n, X86_WRITE));                                                  \
		mem##n *p = m.p;                                                                                       \
		T s = (T)op->imm;                                                                                      \
		ALU_MEM(pre, insn, sfx, *p, s);                                                                        \
		if (unlikely(rmw_done(i, m.e)))                                                                        \
			return interp_leave(i, op);                                                                    \
		NEXT;                                                                                                  \
	}

#define COMPARE_OP(name, pre, insn, n, T, sfx)                                                                         \
	HANDLER(name##_rr##n)                                                                                          \
	{                                                                                                              \
		T d = REG(n, op->dst), s = REG(n, op->src);                                                            \
		ALU(pre, insn, sfx, d, s);                                                                             \
		NEXT;                                                                                                  \
	}                                                                                                              \
	HANDLER(name##_ri##n)                                                                                          \
	{                                                                                                              \
		T d = REG(n, op->dst), s = (T)op->imm;                                                                 \
		ALU(pre, insn, sfx, d, s);                                                                             \
		NEXT;                                                                                                  \
	}                                                                                                              \
	COMPARE_OP_MEM(name, pre, insn, n, T, sfx, 0)                                                                  \
	COMPARE_OP_MEM(name, pre, insn, n, T, sfx, 1)                                                                  \
	COMPARE_OP_MEM(name, pre, insn, n, T, sfx, 2)                                                                  \
	COMPARE_OP_MEM(name, pre, insn, n, T, sfx, 3)

#define COMPARE_OP_MEM(name, pre, insn, n, T, sfx, kind)                                                               \
	HANDLER(name##_rm##n##_##kind)                                                                                 \
	{                                                                                                              \
		T s = load##n(i, op, EA##kind(n, X86_READ)), d = REG(n, op->dst);                                      \
		ALU(pre, insn, sfx, d, s);                                                                             \
		NEXT;                                                                                                  \
	}                                                                                                              \
	HANDLER(name##_mr##n##_##kind)                                                                                 \
	{                                                                                                              \
		T d = load##n(i, op, EA##kind(n, X86_READ)), s = REG(n, op->src);                                      \
		ALU(pre, insn, sfx, d, s);                                                                             \
		NEXT;                                                                                                  \
	}                                                                                                              \
	HANDLER(name##_mi##n##_##kind)                                                                                 \
	{                                                                                                              \
		T d = load##n(i, op, EA##kind(n, X86_READ)), s = (T)op->imm;                                           \
		ALU(pre, insn, sfx, d, s);                                                                             \
		NEXT;                                                                                                  \
	}

#define BINOP_ALL(n, T, sfx)                                                                                           \
	WRITE_OP(add, "", "add", n, T, sfx)                                                                            \
	WRITE_OP(or, "", "or", n, T, sfx)                                                                              \
	WRITE_OP(adc, CARRY_LOAD, "adc", n, T, sfx)                                                                    \
	WRITE_OP(sbb, CARRY_LOAD, "sbb", n, T, sfx)                                                                    \
	WRITE_OP(and, "", "and", n, T, sfx)                                                                            \
	WRITE_OP(sub, "", "sub", n, T, sfx)                                                                            \
	WRITE_OP(xor, "", "xor", n, T, sfx)                                                                            \
	COMPARE_OP(cmp, "", "cmp", n, T, sfx)                                                                          \
	COMPARE_OP(test, "", "test", n, T, sfx)
OP_SIZES(BINOP_ALL)

#define ROW4(prefix)                                                                                                   \
	{                                                                                                              \
		prefix##1, prefix##2, prefix##4, prefix##8                                                             \
	}
#define KINDS(prefix)                                                                                                  \
	{                                                                                                              \
		prefix##_0, prefix##_1, prefix##_2, prefix##_3                                                         \
	}
#define ROW4_KINDS(prefix)                                                                                             \
	{                                                                                                              \
		KINDS(prefix##1), KINDS(prefix##2), KINDS(prefix##4), KINDS(prefix##8)                                 \
	}
#define BINOP_ROWS(ROW, form)                                                                                          \
	{                                                                                                              \
		[BINOP_ADD] = ROW(add_##form), [BINOP_OR] = ROW(or_##form), [BINOP_ADC] = ROW(adc_##form),             \
		[BINOP_SBB] = ROW(sbb_##form), [BINOP_AND] = ROW(and_##form), [BINOP_SUB] = ROW(sub_##form),           \
		[BINOP_XOR] = ROW(xor_##form), [BINOP_CMP] = ROW(cmp_##form), [BINOP_TEST] = ROW(test_##form),         \
	}
const op_fn interp_binop_rr[BINOPS][4] = BINOP_ROWS(ROW4, rr);
const op_fn interp_binop_ri[BINOPS][4] = BINOP_ROWS(ROW4, ri);
const op_fn interp_binop_rm[BINOPS][4][EA_KINDS] = BINOP_ROWS(ROW4_KINDS, rm);
const op_fn interp_binop_mr[BINOPS][4][EA_KINDS] = BINOP_ROWS(ROW4_KINDS, mr);
const op_fn interp_binop_mi[BINOPS][4][EA_KINDS] = BINOP_ROWS(ROW4_KINDS, mi);

/* ---- one operand, shifts, multiplication ---- */

#define UNOP(name, pre, n, T, sfx)                                                                                     \
	HANDLER(name##_r##n)                                                                                           \
	{                                                                                                              \
		T d = REG(n, op->dst);                                                                                 \
		__asm__(pre #name sfx " %[dst]" FLAGS_STORE : [dst] "+r"(d), [f] "+m"(HOT.flags) : : "rax", "cc");     \
		SET##n(op->dst, d);                                                                                    \
		NEXT;                                                                                                  \
	}
#define SHIFT(name, n, T, sfx)                                                                                         \
	HANDLER(name##_ri##n)                                                                                          \
	{                                                                                                              \
		T d = REG(n, op->dst);                                                                                 \
		uint8_t count = (uint8_t)op->imm;                                                                      \
		__asm__(FLAGS_LOAD #name sfx " %%cl, %[dst]" FLAGS_STORE                                               \
			: [dst] "+r"(d), [f] "+m"(HOT.flags)                                                           \
			: "c"(count)                                                                                   \
			: "rax", "cc");                                                                                \
		SET##n(op->dst, d);                                                                                    \
		NEXT;                                                                                                  \
	}                                                                                                              \
	HANDLER(name##_rc##n)                                                                                          \
	{                                                                                                              \
		T d = REG(n, op->dst);                                                                                 \
		uint8_t count = (uint8_t)i->c.v.state.gpr[RCX];                                                        \
		__asm__(FLAGS_LOAD #name sfx " %%cl, %[dst]" FLAGS_STORE                                               \
			: [dst] "+r"(d), [f] "+m"(HOT.flags)                                                           \
			: "c"(count)                                                                                   \
			: "rax", "cc");                                                                                \
		SET##n(op->dst, d);                                                                                    \
		NEXT;                                                                                                  \
	}
/* A count that is not 0 writes all flags: none need to be loaded. */
#define SHIFT_ALWAYS(name, n, T, sfx)                                                                                  \
	HANDLER(name##_always##n)                                                                                      \
	{                                                                                                              \
		T d = REG(n, op->dst);                                                                                 \
		uint8_t count = (uint8_t)op->imm;                                                                      \
		__asm__(#name sfx " %%cl, %[dst]" FLAGS_STORE                                                          \
			: [dst] "+r"(d), [f] "+m"(HOT.flags)                                                           \
			: "c"(count)                                                                                   \
			: "rax", "cc");                                                                                \
		SET##n(op->dst, d);                                                                                    \
		NEXT;                                                                                                  \
	}
#define UNOP_ALL(n, T, sfx)                                                                                            \
	UNOP(inc, CARRY_LOAD, n, T, sfx)                                                                               \
	UNOP(dec, CARRY_LOAD, n, T, sfx)                                                                               \
	UNOP(neg, "", n, T, sfx)                                                                                       \
	SHIFT(rol, n, T, sfx)                                                                                          \
	SHIFT(ror, n, T, sfx)                                                                                          \
	SHIFT(rcl, n, T, sfx)                                                                                          \
	SHIFT(rcr, n, T, sfx)                                                                                          \
	SHIFT(shl, n, T, sfx)                                                                                          \
	SHIFT(shr, n, T, sfx)                                                                                          \
	SHIFT(sar, n, T, sfx)                                                                                          \
	SHIFT_ALWAYS(shl, n, T, sfx)                                                                                   \
	SHIFT_ALWAYS(shr, n, T, sfx)                                                                                   \
	SHIFT_ALWAYS(sar, n, T, sfx)                                                                                   \
	HANDLER(not_r##n)                                                                                              \
	{                                                                                                              \
		SET##n(op->dst, ~REG(n, op->dst));                                                                     \
		NEXT;                                                                                                  \
	}
OP_SIZES(UNOP_ALL)

const op_fn interp_unop_r[UNOPS][4] = { ROW4(inc_r), ROW4(dec_r), ROW4(neg_r), ROW4(not_r) };
#define SHIFT_ROWS(form)                                                                                               \
	{                                                                                                              \
		ROW4(rol_##form), ROW4(ror_##form), ROW4(rcl_##form), ROW4(rcr_##form), ROW4(shl_##form),              \
			ROW4(shr_##form), ROW4(sar_##form)                                                             \
	}
const op_fn interp_shift_ri[SHIFTS][4] = SHIFT_ROWS(ri);
const op_fn interp_shift_rc[SHIFTS][4] = SHIFT_ROWS(rc);

const op_fn interp_shift_ri_all[SHIFTS][4] = {
	[SHIFT_SHL] = ROW4(shl_always), [SHIFT_SHR] = ROW4(shr_always), [SHIFT_SAR] = ROW4(sar_always)
};

/* IMUL r, r/m and r, r/m, imm. The source is register src or memory of any kind. */
#define IMUL(n, T, sfx)                                                                                                \
	static inline T imul_source##n(struct interp_cpu *i, const struct op *op)                                      \
	{                                                                                                              \
		if (op->flags & OP_MEM)                                                                                \
			return load##n(i, op, EA3(n, X86_READ));                                                       \
		return REG(n, op->src);                                                                                \
	}                                                                                                              \
	HANDLER(imul_rr##n)                                                                                            \
	{                                                                                                              \
		T s = imul_source##n(i, op), d = REG(n, op->dst);                                                      \
		ALU(FLAGS_LOAD, "imul", sfx, d, s);                                                                    \
		SET##n(op->dst, d);                                                                                    \
		NEXT;                                                                                                  \
	}                                                                                                              \
	HANDLER(imul_ri##n)                                                                                            \
	{                                                                                                              \
		T d = imul_source##n(i, op), s = (T)op->imm;                                                           \
		ALU(FLAGS_LOAD, "imul", sfx, d, s);                                                                    \
		SET##n(op->dst, d);                                                                                    \
		NEXT;                                                                                                  \
	}
IMUL(2, uint16_t, "w")
IMUL(4, uint32_t, "l")
IMUL(8, uint64_t, "q")
const op_fn interp_imul_rr[4] = { NULL, imul_rr2, imul_rr4, imul_rr8 };
const op_fn interp_imul_ri[4] = { NULL, imul_ri2, imul_ri4, imul_ri8 };

/* ---- moves ---- */

#define MOV_MEM(n, T, kind)                                                                                            \
	HANDLER(mov_rm##n##_##kind)                                                                                    \
	{                                                                                                              \
		T v = load##n(i, op, EA##kind(n, X86_READ));                                                           \
		SET##n(op->dst, v);                                                                                    \
		NEXT;                                                                                                  \
	}                                                                                                              \
	HANDLER(mov_mr##n##_##kind)                                                                                    \
	{                                                                                                              \
		gva_t a = EA##kind(n, X86_WRITE);                                                                      \
		if (unlikely(store##n(i, op, a, REG(n, op->src))))                                                     \
			return interp_leave(i, op);                                                                    \
		NEXT;                                                                                                  \
	}                                                                                                              \
	HANDLER(mov_mi##n##_##kind)                                                                                    \
	{                                                                                                              \
		gva_t a = EA##kind(n, X86_WRITE);                                                                      \
		if (unlikely(store##n(i, op, a, (T)op->imm)))                                                          \
			return interp_leave(i, op);                                                                    \
		NEXT;                                                                                                  \
	}
#define MOV(n, T, sfx)                                                                                                 \
	HANDLER(mov_rr##n)                                                                                             \
	{                                                                                                              \
		SET##n(op->dst, REG(n, op->src));                                                                      \
		NEXT;                                                                                                  \
	}                                                                                                              \
	HANDLER(mov_ri##n)                                                                                             \
	{                                                                                                              \
		SET##n(op->dst, (uint64_t)op->imm);                                                                    \
		NEXT;                                                                                                  \
	}                                                                                                              \
	MOV_MEM(n, T, 0)                                                                                               \
	MOV_MEM(n, T, 1)                                                                                               \
	MOV_MEM(n, T, 2)                                                                                               \
	MOV_MEM(n, T, 3)
OP_SIZES(MOV)
const op_fn interp_mov_rr[4] = ROW4(mov_rr);
const op_fn interp_mov_ri[4] = ROW4(mov_ri);
const op_fn interp_mov_rm[4][EA_KINDS] = ROW4_KINDS(mov_rm);
const op_fn interp_mov_mr[4][EA_KINDS] = ROW4_KINDS(mov_mr);
const op_fn interp_mov_mi[4][EA_KINDS] = ROW4_KINDS(mov_mi);

/* Source of n bytes and type S to a destination of m bytes. */
#define MOVX_MEM(name, n, S, m, kind)                                                                                  \
	HANDLER(name##_rm##n##_##m##_##kind)                                                                           \
	{                                                                                                              \
		S v = (S)load##n(i, op, EA##kind(n, X86_READ));                                                        \
		SET##m(op->dst, (uint64_t)(int64_t)v);                                                                 \
		NEXT;                                                                                                  \
	}
#define MOVX(name, n, S, m)                                                                                            \
	HANDLER(name##_rr##n##_##m)                                                                                    \
	{                                                                                                              \
		S v = (S)REG(n, op->src);                                                                              \
		SET##m(op->dst, (uint64_t)(int64_t)v);                                                                 \
		NEXT;                                                                                                  \
	}                                                                                                              \
	MOVX_MEM(name, n, S, m, 0)                                                                                     \
	MOVX_MEM(name, n, S, m, 1)                                                                                     \
	MOVX_MEM(name, n, S, m, 2)                                                                                     \
	MOVX_MEM(name, n, S, m, 3)
#define MOVX_ALL(name, S1, S2, S4)                                                                                     \
	MOVX(name, 1, S1, 2)                                                                                           \
	MOVX(name, 1, S1, 4)                                                                                           \
	MOVX(name, 1, S1, 8)                                                                                           \
	MOVX(name, 2, S2, 2)                                                                                           \
	MOVX(name, 2, S2, 4)                                                                                           \
	MOVX(name, 2, S2, 8)                                                                                           \
	MOVX(name, 4, S4, 2)                                                                                           \
	MOVX(name, 4, S4, 4)                                                                                           \
	MOVX(name, 4, S4, 8)
MOVX_ALL(movzx, uint8_t, uint16_t, uint32_t)
MOVX_ALL(movsx, int8_t, int16_t, int32_t)
#define MOVX_RR(name)                                                                                                  \
	{                                                                                                              \
		{ NULL, name##_rr1_2, name##_rr1_4, name##_rr1_8 },                                                    \
			{ NULL, name##_rr2_2, name##_rr2_4, name##_rr2_8 },                                            \
		{                                                                                                      \
			NULL, name##_rr4_2, name##_rr4_4, name##_rr4_8                                                 \
		}                                                                                                      \
	}
#define MOVX_RM(name)                                                                                                  \
	{                                                                                                              \
		{ { NULL }, KINDS(name##_rm1_2), KINDS(name##_rm1_4), KINDS(name##_rm1_8) },                           \
			{ { NULL }, KINDS(name##_rm2_2), KINDS(name##_rm2_4), KINDS(name##_rm2_8) },                   \
		{                                                                                                      \
			{ NULL }, KINDS(name##_rm4_2), KINDS(name##_rm4_4), KINDS(name##_rm4_8)                        \
		}                                                                                                      \
	}
const op_fn interp_movx_rr[2][3][4] = { MOVX_RR(movzx), MOVX_RR(movsx) };
const op_fn interp_movx_rm[2][3][4][EA_KINDS] = { MOVX_RM(movzx), MOVX_RM(movsx) };

#define LEA(n, kind)                                                                                                   \
	HANDLER(lea##n##_##kind)                                                                                       \
	{                                                                                                              \
		SET##n(op->dst, EA##kind(n, X86_READ));                                                                \
		NEXT;                                                                                                  \
	}
LEA(4, 0)
LEA(4, 1)
LEA(4, 2)
LEA(8, 0)
LEA(8, 1)
LEA(8, 2)
const op_fn interp_lea[4][EA_KINDS] = {
	{ NULL },
	{ interp_op_lea_any, interp_op_lea_any, interp_op_lea_any, interp_op_lea_any },
	{ lea4_0, lea4_1, lea4_2, interp_op_lea_any },
	{ lea8_0, lea8_1, lea8_2, interp_op_lea_any },
};

/* ---- conditions ---- */

#define CONDITION(index, name, condition)                                                                              \
	HANDLER(cmov##name##2)                                                                                         \
	{                                                                                                              \
		unsigned f = HOT.flags;                                                                                \
		if (condition)                                                                                         \
			SET2(op->dst, REG(2, op->src));                                                                \
		NEXT;                                                                                                  \
	}                                                                                                              \
	HANDLER(cmov##name##4)                                                                                         \
	{                                                                                                              \
		unsigned f = HOT.flags;                                                                                \
		uint32_t v = REG(4, op->dst), s = REG(4, op->src);                                                     \
		SET4(op->dst, (condition) ? s : v);                                                                    \
		NEXT;                                                                                                  \
	}                                                                                                              \
	HANDLER(cmov##name##8)                                                                                         \
	{                                                                                                              \
		unsigned f = HOT.flags;                                                                                \
		uint64_t v = REG(8, op->dst), s = REG(8, op->src);                                                     \
		SET8(op->dst, (condition) ? s : v);                                                                    \
		NEXT;                                                                                                  \
	}                                                                                                              \
	HANDLER(set_##name)                                                                                            \
	{                                                                                                              \
		unsigned f = HOT.flags;                                                                                \
		SET1(op->dst, (condition) ? 1 : 0);                                                                    \
		NEXT;                                                                                                  \
	}                                                                                                              \
	HANDLER(j##name)                                                                                               \
	{                                                                                                              \
		unsigned f = HOT.flags;                                                                                \
		if (condition)                                                                                         \
			return chain(i, op, 1, branch_target(i, op));                                                  \
		return chain(i, op, 0, op_next_rip(i, op));                                                            \
	}

static inline uint64_t
branch_target(struct interp_cpu *i, const struct op *op)
{
	uint64_t rip = HOT.block_rip + (uint64_t)op->imm;

	if (likely(op->size == 8))
		return rip;
	return op->size == 4 ? (uint32_t)rip : (uint16_t)rip;
}

CONDITIONS(CONDITION)
#define CMOV_ROW(index, name, condition) { NULL, cmov##name##2, cmov##name##4, cmov##name##8 },
#define SET_ROW(index, name, condition) set_##name,
#define JCC_ROW(index, name, condition) j##name,
const op_fn interp_cmov_rr[16][4] = { CONDITIONS(CMOV_ROW) };
const op_fn interp_setcc_r[16] = { CONDITIONS(SET_ROW) };
const op_fn interp_jcc[16] = { CONDITIONS(JCC_ROW) };

/* ---- without flags: for where nothing looks at them before they are written again (block.c) ---- */

#define QUIET(name, n, T, result)                                                                                      \
	HANDLER(quiet_##name##_rr##n)                                                                                  \
	{                                                                                                              \
		T d = REG(n, op->dst), s = REG(n, op->src);                                                            \
		SET##n(op->dst, result);                                                                               \
		NEXT;                                                                                                  \
	}                                                                                                              \
	HANDLER(quiet_##name##_ri##n)                                                                                  \
	{                                                                                                              \
		T d = REG(n, op->dst), s = (T)op->imm;                                                                 \
		SET##n(op->dst, result);                                                                               \
		NEXT;                                                                                                  \
	}
#define QUIET_ONE(name, n, T, result)                                                                                  \
	HANDLER(quiet_##name##n)                                                                                       \
	{                                                                                                              \
		T d = REG(n, op->dst);                                                                                 \
		SET##n(op->dst, result);                                                                               \
		NEXT;                                                                                                  \
	}
#define QUIET_ALL(n, T, S)                                                                                             \
	QUIET(add, n, T, (T)(d + s))                                                                                   \
	QUIET(or, n, T, (T)(d | s))                                                                                    \
	QUIET(and, n, T, (T)(d & s))                                                                                   \
	QUIET(sub, n, T, (T)(d - s))                                                                                   \
	QUIET(xor, n, T, (T)(d ^ s))                                                                                   \
	QUIET_ONE(inc, n, T, (T)(d + 1))                                                                               \
	QUIET_ONE(dec, n, T, (T)(d - 1))                                                                               \
	QUIET_ONE(neg, n, T, (T)(0 - d))                                                                               \
	QUIET_ONE(shl, n, T, (T)(d << (op->imm & (n * 8 - 1))))                                                        \
	QUIET_ONE(shr, n, T, (T)(d >> (op->imm & (n * 8 - 1))))                                                        \
	QUIET_ONE(sar, n, T, (T)((S)d >> (op->imm & (n * 8 - 1))))                                                     \
	QUIET_ONE(rol, n, T, (T)(d << (op->imm & (n * 8 - 1)) | d >> (-op->imm & (n * 8 - 1))))                        \
	QUIET_ONE(ror, n, T, (T)(d >> (op->imm & (n * 8 - 1)) | d << (-op->imm & (n * 8 - 1))))                        \
	HANDLER(quiet_imul_rr##n)                                                                                      \
	{                                                                                                              \
		T d = REG(n, op->dst), s = REG(n, op->src);                                                            \
		SET##n(op->dst, (T)(d * s));                                                                           \
		NEXT;                                                                                                  \
	}                                                                                                              \
	HANDLER(quiet_imul_ri##n)                                                                                      \
	{                                                                                                              \
		T d = REG(n, op->src), s = (T)op->imm;                                                                 \
		SET##n(op->dst, (T)(d * s));                                                                           \
		NEXT;                                                                                                  \
	}
QUIET_ALL(4, uint32_t, int32_t)
QUIET_ALL(8, uint64_t, int64_t)
#define QUIET_ROW(name)                                                                                                \
	{                                                                                                              \
		NULL, NULL, quiet_##name##4, quiet_##name##8                                                           \
	}
#define QUIET_ROWS(form)                                                                                               \
	{                                                                                                              \
		[BINOP_ADD] = QUIET_ROW(add_##form), [BINOP_OR] = QUIET_ROW(or_##form),                                \
		[BINOP_AND] = QUIET_ROW(and_##form), [BINOP_SUB] = QUIET_ROW(sub_##form),                              \
		[BINOP_XOR] = QUIET_ROW(xor_##form),                                                                   \
	}
const op_fn interp_quiet_rr[BINOPS][4] = QUIET_ROWS(rr);
const op_fn interp_quiet_ri[BINOPS][4] = QUIET_ROWS(ri);
const op_fn interp_quiet_unop[UNOPS][4] = { QUIET_ROW(inc), QUIET_ROW(dec), QUIET_ROW(neg) };
const op_fn interp_quiet_shift[SHIFTS][4] = {
	[SHIFT_ROL] = QUIET_ROW(rol),
	[SHIFT_ROR] = QUIET_ROW(ror),
	[SHIFT_SHL] = QUIET_ROW(shl),
	[SHIFT_SHR] = QUIET_ROW(shr),
	[SHIFT_SAR] = QUIET_ROW(sar),
};
const op_fn interp_quiet_imul_rr[4] = QUIET_ROW(imul_rr);
const op_fn interp_quiet_imul_ri[4] = QUIET_ROW(imul_ri);

/* ---- together with the conditional jump behind ---- */

/* `op` is the arithmetic; the jump's own operation follows it. The flags are stored: someone may look later. */
#define BRANCH(condition)                                                                                              \
	do {                                                                                                           \
		op++;                                                                                                  \
		if (condition)                                                                                         \
			return chain(i, op, 1, branch_target(i, op));                                                  \
		return chain(i, op, 0, op_next_rip(i, op));                                                            \
	} while (0)

#define FUSE_CMP(cc, n, T, sfx, condition)                                                                             \
	HANDLER(cmp_##cc##_rr##n)                                                                                      \
	{                                                                                                              \
		T d = REG(n, op->dst), s = REG(n, op->src);                                                            \
		ALU("", "cmp", sfx, d, s);                                                                             \
		BRANCH(condition);                                                                                     \
	}                                                                                                              \
	HANDLER(cmp_##cc##_ri##n)                                                                                      \
	{                                                                                                              \
		T d = REG(n, op->dst), s = (T)op->imm;                                                                 \
		ALU("", "cmp", sfx, d, s);                                                                             \
		BRANCH(condition);                                                                                     \
	}                                                                                                              \
	FUSE_CMP_MEM(cc, n, T, sfx, condition, 0)                                                                      \
	FUSE_CMP_MEM(cc, n, T, sfx, condition, 1)
#define FUSE_CMP_MEM(cc, n, T, sfx, condition, kind)                                                                   \
	HANDLER(cmp_##cc##_rm##n##_##kind)                                                                             \
	{                                                                                                              \
		T s = load##n(i, op, EA##kind(n, X86_READ)), d = REG(n, op->dst);                                      \
		ALU("", "cmp", sfx, d, s);                                                                             \
		BRANCH(condition);                                                                                     \
	}                                                                                                              \
	HANDLER(cmp_##cc##_mr##n##_##kind)                                                                             \
	{                                                                                                              \
		T d = load##n(i, op, EA##kind(n, X86_READ)), s = REG(n, op->src);                                      \
		ALU("", "cmp", sfx, d, s);                                                                             \
		BRANCH(condition);                                                                                     \
	}                                                                                                              \
	HANDLER(cmp_##cc##_mi##n##_##kind)                                                                             \
	{                                                                                                              \
		T d = load##n(i, op, EA##kind(n, X86_READ)), s = (T)op->imm;                                           \
		ALU("", "cmp", sfx, d, s);                                                                             \
		BRANCH(condition);                                                                                     \
	}
#define FUSE_CMP_ALL(n, T, S, sfx)                                                                                     \
	FUSE_CMP(b, n, T, sfx, d < s)                                                                                  \
	FUSE_CMP(ae, n, T, sfx, d >= s)                                                                                \
	FUSE_CMP(z, n, T, sfx, d == s)                                                                                 \
	FUSE_CMP(nz, n, T, sfx, d != s)                                                                                \
	FUSE_CMP(be, n, T, sfx, d <= s)                                                                                \
	FUSE_CMP(a, n, T, sfx, d > s)                                                                                  \
	FUSE_CMP(l, n, T, sfx, (S)d < (S)s)                                                                            \
	FUSE_CMP(ge, n, T, sfx, (S)d >= (S)s)                                                                          \
	FUSE_CMP(le, n, T, sfx, (S)d <= (S)s)                                                                          \
	FUSE_CMP(g, n, T, sfx, (S)d > (S)s)
FUSE_CMP_ALL(1, uint8_t, int8_t, "b")
FUSE_CMP_ALL(2, uint16_t, int16_t, "w")
FUSE_CMP_ALL(4, uint32_t, int32_t, "l")
FUSE_CMP_ALL(8, uint64_t, int64_t, "q")

/* Conditions on the result alone: `r`. */
#define FUSE_TEST(cc, n, T, sfx, condition)                                                                            \
	HANDLER(test_##cc##_rr##n)                                                                                     \
	{                                                                                                              \
		T d = REG(n, op->dst), s = REG(n, op->src), r = d & s;                                                 \
		ALU("", "test", sfx, d, s);                                                                            \
		BRANCH(condition);                                                                                     \
	}                                                                                                              \
	HANDLER(test_##cc##_ri##n)                                                                                     \
	{                                                                                                              \
		T d = REG(n, op->dst), s = (T)op->imm, r = d & s;                                                      \
		ALU("", "test", sfx, d, s);                                                                            \
		BRANCH(condition);                                                                                     \
	}
#define FUSE_TEST_ALL(n, T, S, sfx)                                                                                    \
	FUSE_TEST(z, n, T, sfx, !r)                                                                                    \
	FUSE_TEST(nz, n, T, sfx, r)                                                                                    \
	FUSE_TEST(s, n, T, sfx, (S)r < 0)                                                                              \
	FUSE_TEST(ns, n, T, sfx, (S)r >= 0)                                                                            \
	FUSE_TEST(le, n, T, sfx, (S)r <= 0)                                                                            \
	FUSE_TEST(g, n, T, sfx, (S)r > 0)
FUSE_TEST_ALL(1, uint8_t, int8_t, "b")
FUSE_TEST_ALL(2, uint16_t, int16_t, "w")
FUSE_TEST_ALL(4, uint32_t, int32_t, "l")
FUSE_TEST_ALL(8, uint64_t, int64_t, "q")

#define FUSE_WRITE(name, cc, n, T, sfx, condition)                                                                     \
	HANDLER(name##_##cc##_rr##n)                                                                                   \
	{                                                                                                              \
		T d = REG(n, op->dst), s = REG(n, op->src);                                                            \
		ALU("", #name, sfx, d, s);                                                                             \
		SET##n(op->dst, d);                                                                                    \
		BRANCH(condition);                                                                                     \
	}                                                                                                              \
	HANDLER(name##_##cc##_ri##n)                                                                                   \
	{                                                                                                              \
		T d = REG(n, op->dst), s = (T)op->imm;                                                                 \
		ALU("", #name, sfx, d, s);                                                                             \
		SET##n(op->dst, d);                                                                                    \
		BRANCH(condition);                                                                                     \
	}
#define FUSE_ONE(name, cc, n, T, sfx, condition)                                                                       \
	HANDLER(name##_##cc##_r##n)                                                                                    \
	{                                                                                                              \
		T d = REG(n, op->dst);                                                                                 \
		__asm__(CARRY_LOAD #name sfx " %[dst]" FLAGS_STORE                                                     \
			: [dst] "+r"(d), [f] "+m"(HOT.flags)                                                           \
			:                                                                                              \
			: "rax", "cc");                                                                                \
		SET##n(op->dst, d);                                                                                    \
		BRANCH(condition);                                                                                     \
	}
#define FUSE_RESULT(name, FUSE, n, T, S, sfx)                                                                          \
	FUSE(name, z, n, T, sfx, !d)                                                                                   \
	FUSE(name, nz, n, T, sfx, d)                                                                                   \
	FUSE(name, s, n, T, sfx, (S)d < 0)                                                                             \
	FUSE(name, ns, n, T, sfx, (S)d >= 0)
#define FUSE_RESULT_ALL(n, T, S, sfx)                                                                                  \
	FUSE_RESULT(add, FUSE_WRITE, n, T, S, sfx)                                                                     \
	FUSE_RESULT(sub, FUSE_WRITE, n, T, S, sfx)                                                                     \
	FUSE_RESULT(and, FUSE_WRITE, n, T, S, sfx)                                                                     \
	FUSE_RESULT(inc, FUSE_ONE, n, T, S, sfx)                                                                       \
	FUSE_RESULT(dec, FUSE_ONE, n, T, S, sfx)
FUSE_RESULT_ALL(4, uint32_t, int32_t, "l")
FUSE_RESULT_ALL(8, uint64_t, int64_t, "q")

#define CC_CMP(form)                                                                                                   \
	{                                                                                                              \
		[2] = cmp_b_##form, [3] = cmp_ae_##form, [4] = cmp_z_##form, [5] = cmp_nz_##form, [6] = cmp_be_##form, \
		[7] = cmp_a_##form, [12] = cmp_l_##form, [13] = cmp_ge_##form, [14] = cmp_le_##form,                   \
		[15] = cmp_g_##form                                                                                    \
	}
#define CC_TEST(form)                                                                                                  \
	{                                                                                                              \
		[4] = test_z_##form, [5] = test_nz_##form, [8] = test_s_##form, [9] = test_ns_##form,                  \
		[14] = test_le_##form, [15] = test_g_##form                                                            \
	}
#define CC_RESULT(name, form)                                                                                          \
	{                                                                                                              \
		[4] = name##_z_##form, [5] = name##_nz_##form, [8] = name##_s_##form, [9] = name##_ns_##form           \
	}
#define CC_SIZES(name, form)                                                                                           \
	{                                                                                                              \
		{ NULL }, { NULL }, CC_RESULT(name, form##4), CC_RESULT(name, form##8)                                 \
	}
#define FUSED_ROWS(form)                                                                                               \
	{                                                                                                              \
		[BINOP_ADD] = CC_SIZES(add, form), [BINOP_SUB] = CC_SIZES(sub, form),                                  \
		[BINOP_AND] = CC_SIZES(and, form),                                                                     \
		[BINOP_CMP] = { CC_CMP(form##1), CC_CMP(form##2), CC_CMP(form##4), CC_CMP(form##8) },                  \
		[BINOP_TEST] = { CC_TEST(form##1), CC_TEST(form##2), CC_TEST(form##4), CC_TEST(form##8) },             \
	}
#define CC_KINDS(form)                                                                                                 \
	{                                                                                                              \
		CC_CMP(form##_0), CC_CMP(form##_1)                                                                     \
	}
#define FUSED_MEM(form)                                                                                                \
	{                                                                                                              \
		[BINOP_CMP] = { CC_KINDS(form##1), CC_KINDS(form##2), CC_KINDS(form##4), CC_KINDS(form##8) }           \
	}
const op_fn interp_fused_rr[BINOPS][4][16] = FUSED_ROWS(rr);
const op_fn interp_fused_ri[BINOPS][4][16] = FUSED_ROWS(ri);
const op_fn interp_fused_unop[UNOPS][4][16] = { CC_SIZES(inc, r), CC_SIZES(dec, r) };
const op_fn interp_fused_rm[BINOPS][4][EA_KINDS][16] = FUSED_MEM(rm);
const op_fn interp_fused_mr[BINOPS][4][EA_KINDS][16] = FUSED_MEM(mr);
const op_fn interp_fused_mi[BINOPS][4][EA_KINDS][16] = FUSED_MEM(mi);

/* ---- the stack and flow in 64-bit mode and on flat 32-bit stacks ---- */

#define GPR(r) (i->c.v.state.gpr[r])

struct block *
interp_op_push64_r(struct interp_cpu *i, const struct op *op)
{
	uint64_t sp = GPR(RSP) - 8;
	bool out = store8(i, op, sp, REG(8, op->src));

	GPR(RSP) = sp;
	if (unlikely(out))
		return interp_leave(i, op);
	NEXT;
}

struct block *
interp_op_push64_i(struct interp_cpu *i, const struct op *op)
{
	uint64_t sp = GPR(RSP) - 8;
	bool out = store8(i, op, sp, (uint64_t)op->imm);

	GPR(RSP) = sp;
	if (unlikely(out))
		return interp_leave(i, op);
	NEXT;
}

struct block *
interp_op_pop64_r(struct interp_cpu *i, const struct op *op)
{
	uint64_t v = load8(i, op, GPR(RSP));

	GPR(RSP) += 8;
	REG(8, op->dst) = v;
	NEXT;
}

struct block *
interp_op_push32_r(struct interp_cpu *i, const struct op *op)
{
	uint32_t sp = (uint32_t)GPR(RSP) - 4;
	bool out = store4(i, op, sp, REG(4, op->src));

	GPR(RSP) = sp;
	if (unlikely(out))
		return interp_leave(i, op);
	NEXT;
}

struct block *
interp_op_push32_i(struct interp_cpu *i, const struct op *op)
{
	uint32_t sp = (uint32_t)GPR(RSP) - 4;
	bool out = store4(i, op, sp, (uint32_t)op->imm);

	GPR(RSP) = sp;
	if (unlikely(out))
		return interp_leave(i, op);
	NEXT;
}

struct block *
interp_op_pop32_r(struct interp_cpu *i, const struct op *op)
{
	uint32_t v = load4(i, op, (uint32_t)GPR(RSP));

	GPR(RSP) = (uint32_t)(GPR(RSP) + 4);
	SET4(op->dst, v);
	NEXT;
}

struct block *
interp_op_call64(struct interp_cpu *i, const struct op *op)
{
	uint64_t sp = GPR(RSP) - 8;
	bool out = store8(i, op, sp, HOT.block_rip + op->off + op->len);

	GPR(RSP) = sp;
	if (unlikely(out)) {
		interp_leave(i, op);
		i->c.v.state.rip = HOT.block_rip + (uint64_t)op->imm;
		return NULL;
	}
	return chain(i, op, 1, HOT.block_rip + (uint64_t)op->imm);
}

struct block *
interp_op_call64_r(struct interp_cpu *i, const struct op *op)
{
	uint64_t sp = GPR(RSP) - 8, target = REG(8, op->dst);
	bool out;

	if (unlikely(!x86_canonical(target)))
		interp_check_target(i, op, target);
	out = store8(i, op, sp, HOT.block_rip + op->off + op->len);
	GPR(RSP) = sp;
	if (unlikely(out)) {
		interp_leave(i, op);
		i->c.v.state.rip = target;
		return NULL;
	}
	return jump(i, op, target);
}

struct block *
interp_op_ret64(struct interp_cpu *i, const struct op *op)
{
	uint64_t target = load8(i, op, GPR(RSP));

	if (unlikely(!x86_canonical(target)))
		interp_check_target(i, op, target);
	GPR(RSP) += 8 + (uint64_t)op->imm;
	return jump(i, op, target);
}

struct block *
interp_op_leave64(struct interp_cpu *i, const struct op *op)
{
	uint64_t v = load8(i, op, GPR(RBP));

	GPR(RSP) = GPR(RBP) + 8;
	GPR(RBP) = v;
	NEXT;
}

struct block *
interp_op_jmp(struct interp_cpu *i, const struct op *op)
{
	return chain(i, op, 1, branch_target(i, op));
}

struct block *
interp_op_jmp_r(struct interp_cpu *i, const struct op *op)
{
	uint64_t target = REG(8, op->dst);

	if (unlikely(!x86_canonical(target)))
		interp_check_target(i, op, target);
	return jump(i, op, target);
}

struct block *
interp_op_end(struct interp_cpu *i, const struct op *op)
{
	return chain(i, op, 0, op_next_rip(i, op));
}

struct block *
interp_op_nop(struct interp_cpu *i, const struct op *op)
{
	NEXT;
}
