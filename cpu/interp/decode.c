/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From Zydis' description of an instruction to one operation.
 *
 * translate() is one switch over mnemonics; each case picks a handler and fills in the operands the way that handler
 * reads them (its comment, or the tables in op.h). What is not named there and touches only vector, FPU or general
 * registers and flags is left to cpu/x86/vec.c; the rest is #UD.
 */
#include <cpuid.h>
#include <stdio.h>

#include "cpu/interp/op.h"
#include "cpu/x86/decode.h"

struct decoding {
	struct interp_cpu *i;
	struct op *op;
	const uint8_t *code;
	ZydisDecodedInstruction in;
	ZydisDecodedOperand o[ZYDIS_MAX_OPERAND_COUNT];
	struct op_traits *traits;
	bool end; /* of the block */
};

#define HOT_OFFSET(member) ((uint16_t)(offsetof(struct interp_cpu, c.hot) + offsetof(struct soft_hot, member)))
_Static_assert(offsetof(struct interp_cpu, c.hot) + sizeof(struct soft_hot) < 65536, "op.base reaches the hot words");
_Static_assert(offsetof(struct interp_cpu, c.v.state.gpr) == 0, "register offsets are those of state.gpr");

/* ---- operands ---- */

static unsigned
gpr_offset(ZydisRegister r)
{
	if (r >= ZYDIS_REGISTER_RAX && r <= ZYDIS_REGISTER_R15)
		return (unsigned)(r - ZYDIS_REGISTER_RAX) * 8;
	if (r >= ZYDIS_REGISTER_EAX && r <= ZYDIS_REGISTER_R15D)
		return (unsigned)(r - ZYDIS_REGISTER_EAX) * 8;
	if (r >= ZYDIS_REGISTER_AX && r <= ZYDIS_REGISTER_R15W)
		return (unsigned)(r - ZYDIS_REGISTER_AX) * 8;
	if (r >= ZYDIS_REGISTER_AL && r <= ZYDIS_REGISTER_BL)
		return (unsigned)(r - ZYDIS_REGISTER_AL) * 8;
	if (r >= ZYDIS_REGISTER_AH && r <= ZYDIS_REGISTER_BH)
		return (unsigned)(r - ZYDIS_REGISTER_AH) * 8 + 1;
	return (unsigned)(r - ZYDIS_REGISTER_SPL + 4) * 8; /* SPL to R15B */
}

static bool
is_reg(const ZydisDecodedOperand *o)
{
	return o->type == ZYDIS_OPERAND_TYPE_REGISTER;
}

static bool
is_mem(const ZydisDecodedOperand *o)
{
	return o->type == ZYDIS_OPERAND_TYPE_MEMORY;
}

static bool
is_imm(const ZydisDecodedOperand *o)
{
	return o->type == ZYDIS_OPERAND_TYPE_IMMEDIATE;
}

static bool
is_seg(const ZydisDecodedOperand *o)
{
	return is_reg(o) && o->reg.value >= ZYDIS_REGISTER_ES && o->reg.value <= ZYDIS_REGISTER_GS;
}

static uint8_t
reg(const ZydisDecodedOperand *o)
{
	return (uint8_t)gpr_offset(o->reg.value);
}

static uint8_t
seg_of(ZydisRegister r)
{
	return r >= ZYDIS_REGISTER_ES && r <= ZYDIS_REGISTER_GS ? (uint8_t)(r - ZYDIS_REGISTER_ES) : SEG_DS;
}

static unsigned
bytes(const ZydisDecodedOperand *o)
{
	return o->size / 8;
}

static bool
long64(const struct decoding *d)
{
	return d->i->c.mode == X86_LONG64;
}

/* The segment of a string instruction's source, XLAT and the like. */
static uint8_t
data_segment(const struct decoding *d)
{
	static const struct {
		uint64_t attribute;
		uint8_t seg;
	} rows[] = {
		{ ZYDIS_ATTRIB_HAS_SEGMENT_CS, SEG_CS },
		{ ZYDIS_ATTRIB_HAS_SEGMENT_SS, SEG_SS },
		{ ZYDIS_ATTRIB_HAS_SEGMENT_ES, SEG_ES },
		{ ZYDIS_ATTRIB_HAS_SEGMENT_FS, SEG_FS },
		{ ZYDIS_ATTRIB_HAS_SEGMENT_GS, SEG_GS },
	};

	for (size_t k = 0; k < sizeof(rows) / sizeof(rows[0]); k++)
		if (d->in.attributes & rows[k].attribute)
			return rows[k].seg;
	return SEG_DS;
}

/* Base, index, displacement and segment; returns the kind of address (op.h). */
static unsigned
memory(struct decoding *d, const ZydisDecodedOperand *o)
{
	struct op *op = d->op;
	bool flat;

	op->flags |= OP_MEM;
	op->base = op->index = HOT_OFFSET(zero);
	op->disp = (int32_t)o->mem.disp.value;
	op->seg = seg_of(o->mem.segment);
	if (o->mem.base == ZYDIS_REGISTER_RIP || o->mem.base == ZYDIS_REGISTER_EIP) {
		op->base = HOT_OFFSET(block_rip);
		if (__builtin_add_overflow(op->disp, op->off + d->in.length, &op->disp)) {
			op->disp = (int32_t)o->mem.disp.value;
			op->flags |= OP_RIPADJ;
			return 3;
		}
	} else if (o->mem.base) {
		op->base = (uint16_t)gpr_offset(o->mem.base);
	}
	if (o->mem.index && o->mem.type != ZYDIS_MEMOP_TYPE_VSIB) {
		op->index = (uint16_t)gpr_offset(o->mem.index);
		op->shift = o->mem.scale ? (uint8_t)__builtin_ctz(o->mem.scale) : 0;
	}
	if (long64(d))
		flat = op->seg < SEG_FS;
	else
		flat = d->i->c.flat & (1u << op->seg);
	if (flat && d->in.address_width == 64)
		return op->index != HOT_OFFSET(zero);
	return flat && d->in.address_width == 32 ? 2 : 3;
}

/* An r/m operand that the handler takes as memory or register `dst`. */
static void
rm(struct decoding *d, const ZydisDecodedOperand *o)
{
	if (is_mem(o))
		memory(d, o);
	else
		d->op->dst = reg(o);
}

static void
sized(struct decoding *d, unsigned size)
{
	d->op->size = (uint8_t)size;
}

static void
ends(struct decoding *d, op_fn fn)
{
	d->op->fn = fn;
	d->end = true;
}

static bool
locked(const struct decoding *d)
{
	return d->in.attributes & ZYDIS_ATTRIB_HAS_LOCK;
}

static void
undefined(struct decoding *d)
{
	ends(d, interp_op_ud);
}

/* ---- families ---- */

static void
binop(struct decoding *d, enum binop b)
{
	struct op *op = d->op;
	unsigned n = log2_size(bytes(&d->o[0])), kind;

	sized(d, bytes(&d->o[0]));
	if (is_imm(&d->o[1]))
		op->imm = d->o[1].imm.value.s;
	if (is_mem(&d->o[0])) {
		kind = memory(d, &d->o[0]);
		if (!is_imm(&d->o[1]))
			op->src = reg(&d->o[1]);
		if (locked(d))
			op->fn = is_imm(&d->o[1]) ? interp_rmw_binop_i[b][n] : interp_rmw_binop_r[b][n];
		else
			op->fn = is_imm(&d->o[1]) ? interp_binop_mi[b][n][kind] : interp_binop_mr[b][n][kind];
		d->traits->fused = is_imm(&d->o[1]) ? interp_fused_mi[b][n][kind] : interp_fused_mr[b][n][kind];
		return;
	}
	op->dst = reg(&d->o[0]);
	if (is_mem(&d->o[1])) {
		kind = memory(d, &d->o[1]);
		op->fn = interp_binop_rm[b][n][kind];
		d->traits->fused = interp_fused_rm[b][n][kind];
		return;
	}
	if (b != BINOP_ADC && b != BINOP_SBB)
		d->traits->effect = FLAGS_WRITTEN;
	if (is_imm(&d->o[1])) {
		op->fn = interp_binop_ri[b][n];
		d->traits->quiet = interp_quiet_ri[b][n];
		d->traits->fused = interp_fused_ri[b][n];
	} else {
		op->src = reg(&d->o[1]);
		op->fn = interp_binop_rr[b][n];
		d->traits->quiet = interp_quiet_rr[b][n];
		d->traits->fused = interp_fused_rr[b][n];
	}
}

static void
unop(struct decoding *d, enum unop u)
{
	unsigned n = log2_size(bytes(&d->o[0]));

	rm(d, &d->o[0]);
	sized(d, bytes(&d->o[0]));
	d->op->fn = is_mem(&d->o[0]) ? interp_rmw_unop[u][n] : interp_unop_r[u][n];
	if (is_mem(&d->o[0]))
		return;
	d->traits->effect = u == UNOP_NOT ? FLAGS_KEPT : u == UNOP_NEG ? FLAGS_WRITTEN : FLAGS_PARTLY;
	d->traits->quiet = interp_quiet_unop[u][n];
	d->traits->fused = interp_fused_unop[u][n];
}

static void
shift(struct decoding *d, enum shift s)
{
	unsigned n = log2_size(bytes(&d->o[0]));
	bool imm = is_imm(&d->o[1]);

	rm(d, &d->o[0]);
	sized(d, bytes(&d->o[0]));
	if (imm)
		d->op->imm = (int64_t)d->o[1].imm.value.u;
	if (is_mem(&d->o[0])) {
		d->op->fn = imm ? interp_rmw_shift_i[s][n] : interp_rmw_shift_c[s][n];
		return;
	}
	d->op->fn = imm ? interp_shift_ri[s][n] : interp_shift_rc[s][n];
	if (!imm || s == SHIFT_RCL || s == SHIFT_RCR)
		return;
	d->traits->effect = FLAGS_PARTLY;
	d->traits->quiet = interp_quiet_shift[s][n];
	if (d->op->imm & (d->op->size == 8 ? 63 : 31) && interp_shift_ri_all[s][n]) {
		d->op->fn = interp_shift_ri_all[s][n];
		d->traits->effect = FLAGS_WRITTEN;
	}
}

static void
double_shift(struct decoding *d, unsigned right)
{
	unsigned n = log2_size(bytes(&d->o[0]));

	rm(d, &d->o[0]);
	d->op->src = reg(&d->o[1]);
	sized(d, bytes(&d->o[0]));
	if (is_imm(&d->o[2])) {
		d->op->imm = (int64_t)d->o[2].imm.value.u;
		d->op->fn = interp_rmw_shld_i[right][n];
	} else {
		d->op->fn = interp_rmw_shld_c[right][n];
	}
}

static void
bit(struct decoding *d, enum bitop b)
{
	unsigned n = log2_size(bytes(&d->o[0]));

	rm(d, &d->o[0]);
	sized(d, bytes(&d->o[0]));
	if (is_imm(&d->o[1])) {
		d->op->imm = (int64_t)d->o[1].imm.value.u;
		d->op->fn = interp_rmw_bit_i[b][n];
	} else {
		d->op->src = reg(&d->o[1]);
		d->op->fn = interp_rmw_bit_r[b][n];
	}
}

/* Destination register, source r/m in `src` or memory. */
static void
from_source(struct decoding *d, const op_fn row[4])
{
	d->op->dst = reg(&d->o[0]);
	sized(d, bytes(&d->o[0]));
	if (is_mem(&d->o[1]))
		memory(d, &d->o[1]);
	else
		d->op->src = reg(&d->o[1]);
	d->op->fn = row[log2_size(bytes(&d->o[0]))];
}

static void
one_operand(struct decoding *d, const op_fn row[4])
{
	rm(d, &d->o[0]);
	sized(d, bytes(&d->o[0]));
	d->op->fn = row[log2_size(bytes(&d->o[0]))];
}

static void
imul(struct decoding *d)
{
	if (d->in.operand_count_visible == 1) {
		one_operand(d, interp_imul1);
	} else if (d->in.operand_count_visible == 2) {
		from_source(d, interp_imul_rr);
		d->traits->quiet = interp_quiet_imul_rr[log2_size(d->op->size)];
	} else {
		from_source(d, interp_imul_ri);
		d->op->imm = d->o[2].imm.value.s;
		d->traits->quiet = interp_quiet_imul_ri[log2_size(d->op->size)];
	}
	if (d->in.operand_count_visible > 1 && is_reg(&d->o[1]))
		d->traits->effect = FLAGS_PARTLY;
	else
		d->traits->quiet = NULL;
}

/* XADD, CMPXCHG, XCHG: r/m and register, in either order for XCHG. */
static void
exchange(struct decoding *d, const op_fn row[4])
{
	const ZydisDecodedOperand *a = &d->o[0], *b = &d->o[1];

	if (is_mem(b)) {
		a = &d->o[1];
		b = &d->o[0];
	}
	rm(d, a);
	d->op->src = reg(b);
	sized(d, bytes(b));
	d->op->fn = row[log2_size(bytes(b))];
	if (row == interp_rmw_xchg && !is_mem(a))
		d->op->fn = interp_op_xchg_rr;
}

static void
system_register(struct decoding *d)
{
	bool to = !(d->o[0].reg.value >= ZYDIS_REGISTER_RAX && d->o[0].reg.value <= ZYDIS_REGISTER_R15) &&
		  !(d->o[0].reg.value >= ZYDIS_REGISTER_EAX && d->o[0].reg.value <= ZYDIS_REGISTER_R15D);
	ZydisRegister r = d->o[to ? 0 : 1].reg.value;

	sized(d, long64(d) ? 8 : 4);
	d->op->dst = reg(&d->o[to ? 1 : 0]);
	if (r >= ZYDIS_REGISTER_CR0 && r <= ZYDIS_REGISTER_CR15) {
		d->op->src = (uint8_t)(r - ZYDIS_REGISTER_CR0);
		ends(d, to ? interp_op_mov_to_cr : interp_op_mov_from_cr);
	} else if (r >= ZYDIS_REGISTER_DR0 && r <= ZYDIS_REGISTER_DR15) {
		d->op->src = (uint8_t)(r - ZYDIS_REGISTER_DR0);
		ends(d, to ? interp_op_mov_to_dr : interp_op_mov_from_dr);
	} else {
		undefined(d);
		return;
	}
	d->end = to;
}

static bool
is_general(const ZydisDecodedOperand *o)
{
	return is_reg(o) && o->reg.value >= ZYDIS_REGISTER_AL && o->reg.value <= ZYDIS_REGISTER_R15;
}

static void
mov(struct decoding *d)
{
	struct op *op = d->op;
	const ZydisDecodedOperand *to = &d->o[0], *from = &d->o[1];
	unsigned n, kind;

	sized(d, bytes(to));
	if (is_seg(to)) {
		rm(d, from);
		op->src = seg_of(to->reg.value);
		if (op->src == SEG_CS)
			undefined(d);
		else
			ends(d, interp_op_mov_to_seg);
		return;
	}
	if (is_seg(from)) {
		rm(d, to);
		op->src = seg_of(from->reg.value);
		op->fn = interp_op_mov_from_seg;
		return;
	}
	if (is_reg(to) && is_reg(from) && (!is_general(to) || !is_general(from))) {
		system_register(d);
		return;
	}
	if (d->in.opcode_map == ZYDIS_OPCODE_MAP_DEFAULT && d->in.opcode >= 0xa0 && d->in.opcode <= 0xa3) {
		const ZydisDecodedOperand *m = is_mem(to) ? to : from;

		memory(d, m);
		op->imm = m->mem.disp.value;
		if (d->in.address_width != 64)
			op->imm &= (int64_t)size_mask(d->in.address_width / 8);
		op->fn = is_mem(to) ? interp_op_mov_moffs_a : interp_op_mov_a_moffs;
		return;
	}
	n = log2_size(bytes(to));
	if (is_mem(to)) {
		kind = memory(d, to);
		if (is_imm(from)) {
			op->imm = from->imm.value.s;
			op->fn = interp_mov_mi[n][kind];
		} else {
			op->src = reg(from);
			op->fn = interp_mov_mr[n][kind];
		}
		return;
	}
	op->dst = reg(to);
	if (is_mem(from)) {
		kind = memory(d, from);
		op->fn = interp_mov_rm[n][kind];
		return;
	}
	d->traits->effect = FLAGS_KEPT;
	if (is_imm(from)) {
		op->imm = from->imm.value.s;
		op->fn = interp_mov_ri[n];
	} else {
		op->src = reg(from);
		op->fn = interp_mov_rr[n];
	}
}

static void
extend(struct decoding *d, unsigned sign)
{
	unsigned from = log2_size(bytes(&d->o[1])), to = log2_size(bytes(&d->o[0]));

	if (from >= to) {
		mov(d);
		return;
	}
	d->op->dst = reg(&d->o[0]);
	sized(d, bytes(&d->o[0]));
	if (is_mem(&d->o[1])) {
		unsigned kind = memory(d, &d->o[1]);

		d->op->fn = interp_movx_rm[sign][from][to][kind];
	} else {
		d->op->src = reg(&d->o[1]);
		d->op->fn = interp_movx_rr[sign][from][to];
		d->traits->effect = FLAGS_KEPT;
	}
}

static void
lea(struct decoding *d)
{
	unsigned kind;

	memory(d, &d->o[1]);
	d->op->dst = reg(&d->o[0]);
	sized(d, bytes(&d->o[0]));
	if (d->op->flags & OP_RIPADJ || d->in.address_width == 16)
		kind = 3;
	else if (d->in.address_width == 32)
		kind = 2;
	else
		kind = d->op->index != HOT_OFFSET(zero);
	d->op->fn = interp_lea[log2_size(d->op->size)][kind];
	d->traits->effect = FLAGS_KEPT;
}

static unsigned
condition_code(const struct decoding *d)
{
	return d->in.opcode & 15;
}

static void
cmov(struct decoding *d)
{
	d->op->dst = reg(&d->o[0]);
	sized(d, bytes(&d->o[0]));
	if (is_mem(&d->o[1])) {
		memory(d, &d->o[1]);
		d->op->src = (uint8_t)condition_code(d);
		d->op->fn = interp_op_cmov_m;
	} else {
		d->op->src = reg(&d->o[1]);
		d->op->fn = interp_cmov_rr[condition_code(d)][log2_size(d->op->size)];
	}
}

static void
setcc(struct decoding *d)
{
	rm(d, &d->o[0]);
	sized(d, 1);
	d->op->src = (uint8_t)condition_code(d);
	d->op->fn = is_mem(&d->o[0]) ? interp_op_setcc_m : interp_setcc_r[condition_code(d)];
}

/* ---- flow and stack ---- */

static unsigned
opsize(const struct decoding *d)
{
	return d->in.operand_width / 8u;
}

static void
relative(struct decoding *d, op_fn fn)
{
	d->op->imm = d->op->off + d->in.length + d->o[0].imm.value.s;
	sized(d, opsize(d));
	ends(d, fn);
}

static void
branch(struct decoding *d, bool call)
{
	const ZydisDecodedOperand *o = &d->o[0];
	unsigned n = opsize(d);

	sized(d, n);
	if (o->type == ZYDIS_OPERAND_TYPE_POINTER) {
		d->op->imm = (int64_t)((uint64_t)o->ptr.segment << 32 | o->ptr.offset);
		ends(d, call ? interp_op_call_far : interp_op_jmp_far);
	} else if (is_imm(o)) {
		relative(d, call ? long64(d) ? interp_op_call64 : interp_op_call_rel : interp_op_jmp);
		if (call && long64(d))
			d->op->seg = SEG_SS;
	} else if (is_mem(o) && d->in.meta.branch_type == ZYDIS_BRANCH_TYPE_FAR) {
		memory(d, o);
		ends(d, call ? interp_op_call_far_m : interp_op_jmp_far_m);
	} else if (is_mem(o)) {
		memory(d, o);
		ends(d, call ? interp_op_call_rm : interp_op_jmp_rm);
	} else {
		d->op->dst = reg(o);
		ends(d, call ? interp_op_call_rm : interp_op_jmp_rm);
		if (long64(d)) {
			d->op->seg = SEG_SS;
			d->op->fn = call ? interp_op_call64_r : interp_op_jmp_r;
		}
	}
}

static void
ret(struct decoding *d)
{
	bool far = d->in.opcode == 0xca || d->in.opcode == 0xcb;

	sized(d, opsize(d));
	if (d->in.opcode == 0xc2 || d->in.opcode == 0xca)
		d->op->imm = (int64_t)(d->o[0].imm.value.u & 0xffff);
	d->op->seg = SEG_SS;
	if (far)
		ends(d, interp_op_ret_far);
	else
		ends(d, long64(d) && opsize(d) == 8 ? interp_op_ret64 : interp_op_ret);
}

/* 0: general, 1: 64-bit stack and operand, 2: flat 32-bit stack and 32-bit operand */
static unsigned
stack_kind(const struct decoding *d)
{
	const struct soft_cpu *c = &d->i->c;

	if (long64(d))
		return opsize(d) == 8;
	return c->stack_size == 4 && c->flat & (1u << SEG_SS) && opsize(d) == 4 ? 2 : 0;
}

static void
push(struct decoding *d)
{
	static const op_fn by_reg[] = { interp_op_push, interp_op_push64_r, interp_op_push32_r };
	static const op_fn by_imm[] = { interp_op_push_imm, interp_op_push64_i, interp_op_push32_i };
	const ZydisDecodedOperand *o = &d->o[0];

	sized(d, opsize(d));
	d->op->seg = SEG_SS;
	if (is_seg(o)) {
		d->op->src = seg_of(o->reg.value);
		d->op->fn = interp_op_push_seg;
	} else if (is_imm(o)) {
		d->op->imm = o->imm.value.s;
		d->op->fn = by_imm[stack_kind(d)];
	} else if (is_mem(o)) {
		memory(d, o);
		d->op->fn = interp_op_push_rm;
	} else {
		d->op->src = reg(o);
		d->op->fn = by_reg[stack_kind(d)];
	}
}

static void
pop(struct decoding *d)
{
	static const op_fn by_reg[] = { interp_op_pop_r, interp_op_pop64_r, interp_op_pop32_r };
	const ZydisDecodedOperand *o = &d->o[0];

	sized(d, opsize(d));
	d->op->seg = SEG_SS;
	if (is_seg(o)) {
		d->op->src = seg_of(o->reg.value);
		ends(d, interp_op_pop_seg);
	} else if (is_mem(o)) {
		memory(d, o);
		d->op->fn = interp_op_pop_rm;
	} else {
		d->op->dst = reg(o);
		d->op->fn = by_reg[stack_kind(d)];
	}
}

static void
leave(struct decoding *d)
{
	sized(d, opsize(d));
	d->op->seg = SEG_SS;
	d->op->fn = stack_kind(d) == 1 ? interp_op_leave64 : interp_op_leave;
}

/* ---- strings and ports ---- */

static unsigned
rep_flags(const struct decoding *d)
{
	unsigned f = 0;

	for (unsigned k = 0; k < d->in.raw.prefix_count; k++) {
		if (d->in.raw.prefixes[k].value == 0xf3)
			f = OP_REPE;
		else if (d->in.raw.prefixes[k].value == 0xf2)
			f = OP_REPNE;
	}
	return f;
}

static void
string(struct decoding *d, op_fn fn)
{
	sized(d, d->in.opcode & 1 ? opsize(d) : 1);
	if (fn == interp_op_ins || fn == interp_op_outs) {
		if (d->op->size == 8)
			sized(d, 4);
		d->end = true;
	}
	d->op->seg = data_segment(d);
	d->op->flags |= (uint8_t)rep_flags(d);
	d->op->fn = fn;
}

/* By opcode: some mnemonics are also those of vector instructions. */
static op_fn
string_handler(const struct decoding *d)
{
	static const op_fn low[4] = { interp_op_ins, interp_op_ins, interp_op_outs, interp_op_outs };
	static const op_fn high[12] = { interp_op_movs, interp_op_movs, interp_op_cmps, interp_op_cmps, NULL, NULL,
		interp_op_stos, interp_op_stos, interp_op_lods, interp_op_lods, interp_op_scas, interp_op_scas };

	if (d->in.encoding != ZYDIS_INSTRUCTION_ENCODING_LEGACY || d->in.opcode_map != ZYDIS_OPCODE_MAP_DEFAULT)
		return NULL;
	if (d->in.opcode >= 0x6c && d->in.opcode <= 0x6f)
		return low[d->in.opcode - 0x6c];
	if (d->in.opcode >= 0xa4 && d->in.opcode <= 0xaf)
		return high[d->in.opcode - 0xa4];
	return NULL;
}

static void
port(struct decoding *d, bool in)
{
	const ZydisDecodedOperand *which = &d->o[in ? 1 : 0];

	sized(d, bytes(&d->o[in ? 0 : 1]));
	if (is_imm(which)) {
		d->op->imm = (int64_t)(which->imm.value.u & 0xff);
		ends(d, in ? interp_op_in_imm : interp_op_out_imm);
	} else {
		ends(d, in ? interp_op_in_dx : interp_op_out_dx);
	}
}

/* ---- system ---- */

static void
rm_system(struct decoding *d, op_fn fn)
{
	rm(d, &d->o[0]);
	sized(d, bytes(&d->o[0]));
	d->op->fn = fn;
}

/* LLDT and others that exist in protected mode only. */
static void
rm_protected(struct decoding *d, op_fn fn, bool end)
{
	if (d->i->c.mode == X86_REAL || d->i->c.mode == X86_VM86) {
		undefined(d);
		return;
	}
	rm_system(d, fn);
	d->end = end;
}

/* LAR and LSL: the selector is the r/m operand, the destination `src`. */
static void
lar(struct decoding *d, op_fn fn)
{
	if (d->i->c.mode == X86_REAL || d->i->c.mode == X86_VM86) {
		undefined(d);
		return;
	}
	rm(d, &d->o[1]);
	d->op->src = reg(&d->o[0]);
	sized(d, bytes(&d->o[0]));
	d->op->fn = fn;
}

static void
load_far(struct decoding *d, enum seg_name seg)
{
	memory(d, &d->o[1]);
	d->op->dst = reg(&d->o[0]);
	d->op->src = (uint8_t)seg;
	sized(d, bytes(&d->o[0]));
	ends(d, interp_op_load_far);
}

static void
table(struct decoding *d, op_fn fn, bool end)
{
	memory(d, &d->o[0]);
	sized(d, opsize(d));
	d->op->fn = fn;
	d->end = end;
}

static bool
host_has(unsigned leaf, unsigned reg_index, unsigned bit_index)
{
	unsigned r[4];

	if (!__get_cpuid_count(leaf, 0, &r[0], &r[1], &r[2], &r[3]))
		return false;
	return r[reg_index] & (1u << bit_index);
}

static void
random_number(struct decoding *d, bool has, op_fn fn)
{
	if (has)
		rm_system(d, fn);
	else
		undefined(d);
}

/* 0x66 makes no difference; REX.W does. */
static void
fast_return(struct decoding *d, op_fn fn)
{
	sized(d, d->in.attributes & ZYDIS_ATTRIB_HAS_REX && d->in.raw.rex.W ? 8 : 4);
	ends(d, fn);
}

static void
pure(struct decoding *d)
{
	const struct vec_op *v = vec_compile(&d->i->c, d->code, d->in.length, &d->in, d->o);

	if (!v) {
		undefined(d);
		return;
	}
	for (unsigned k = 0; k < d->in.operand_count; k++) {
		if (!is_mem(&d->o[k]) || d->o[k].mem.type == ZYDIS_MEMOP_TYPE_AGEN)
			continue;
		memory(d, &d->o[k]);
		break;
	}
	d->op->imm = (int64_t)(uintptr_t)v;
	d->op->fn = interp_op_vec;
}

#define M(name) case ZYDIS_MNEMONIC_##name
#define PLAIN(name, handler)                                                                                           \
	M(name) : d->op->fn = interp_op_##handler;                                                                     \
	break
#define SIZED(name, handler)                                                                                           \
	M(name) : sized(d, opsize(d));                                                                                 \
	d->op->fn = interp_op_##handler;                                                                               \
	break
#define ENDS(name, handler)                                                                                            \
	M(name) : sized(d, opsize(d));                                                                                 \
	ends(d, interp_op_##handler);                                                                                  \
	break
#define FAMILY(name, call)                                                                                             \
	M(name) : call;                                                                                                \
	break

/* Arithmetic, moves, bits. False: not one of these. */
static bool
translate_integer(struct decoding *d)
{
	switch (d->in.mnemonic) {
		FAMILY(ADD, binop(d, BINOP_ADD));
		FAMILY(OR, binop(d, BINOP_OR));
		FAMILY(ADC, binop(d, BINOP_ADC));
		FAMILY(SBB, binop(d, BINOP_SBB));
		FAMILY(AND, binop(d, BINOP_AND));
		FAMILY(SUB, binop(d, BINOP_SUB));
		FAMILY(XOR, binop(d, BINOP_XOR));
		FAMILY(CMP, binop(d, BINOP_CMP));
		FAMILY(TEST, binop(d, BINOP_TEST));
		FAMILY(INC, unop(d, UNOP_INC));
		FAMILY(DEC, unop(d, UNOP_DEC));
		FAMILY(NEG, unop(d, UNOP_NEG));
		FAMILY(NOT, unop(d, UNOP_NOT));
		FAMILY(ROL, shift(d, SHIFT_ROL));
		FAMILY(ROR, shift(d, SHIFT_ROR));
		FAMILY(RCL, shift(d, SHIFT_RCL));
		FAMILY(RCR, shift(d, SHIFT_RCR));
		FAMILY(SHL, shift(d, SHIFT_SHL));
		FAMILY(SHR, shift(d, SHIFT_SHR));
		FAMILY(SAR, shift(d, SHIFT_SAR));
		FAMILY(SHLD, double_shift(d, 0));
		FAMILY(SHRD, double_shift(d, 1));
		FAMILY(BT, bit(d, BIT_BT));
		FAMILY(BTS, bit(d, BIT_BTS));
		FAMILY(BTR, bit(d, BIT_BTR));
		FAMILY(BTC, bit(d, BIT_BTC));
		FAMILY(BSF, from_source(d, interp_scan[0]));
		FAMILY(BSR, from_source(d, interp_scan[1]));
		FAMILY(TZCNT, from_source(d, interp_scan[2]));
		FAMILY(LZCNT, from_source(d, interp_scan[3]));
		FAMILY(POPCNT, from_source(d, interp_popcnt));
		FAMILY(IMUL, imul(d));
		FAMILY(MUL, one_operand(d, interp_mul));
		FAMILY(DIV, one_operand(d, interp_div));
		FAMILY(IDIV, one_operand(d, interp_idiv));
		FAMILY(XADD, exchange(d, interp_rmw_xadd));
		FAMILY(CMPXCHG, exchange(d, interp_rmw_cmpxchg));
		FAMILY(XCHG, exchange(d, interp_rmw_xchg));
		FAMILY(MOV, mov(d));
		FAMILY(MOVZX, extend(d, 0));
		FAMILY(MOVSX, extend(d, 1));
		FAMILY(MOVSXD, extend(d, 1));
		FAMILY(LEA, lea(d));
		SIZED(CBW, cbw);
		SIZED(CWDE, cbw);
		SIZED(CDQE, cbw);
		SIZED(CWD, cwd);
		SIZED(CDQ, cwd);
		SIZED(CQO, cwd);
		PLAIN(CLC, clc);
		PLAIN(STC, stc);
		PLAIN(CMC, cmc);
		PLAIN(CLD, cld);
		PLAIN(STD, std);
		PLAIN(LAHF, lahf);
		PLAIN(SAHF, sahf);
		PLAIN(SALC, salc);
		PLAIN(AAA, aaa);
		PLAIN(AAS, aas);
		PLAIN(DAA, daa);
		PLAIN(DAS, das);
		M(CMPXCHG8B) : memory(d, &d->o[0]);
		d->op->fn = interp_op_cmpxchg8b;
		break;
		M(CMPXCHG16B) : memory(d, &d->o[0]);
		d->op->fn = interp_op_cmpxchg16b;
		break;
		M(AAM) : M(AAD) : d->op->imm = (int64_t)(d->in.raw.imm[0].value.u & 0xff);
		d->op->fn = d->in.mnemonic == ZYDIS_MNEMONIC_AAM ? interp_op_aam : interp_op_aad;
		break;
		M(BSWAP) : d->op->dst = reg(&d->o[0]);
		sized(d, bytes(&d->o[0]));
		d->op->fn = interp_op_bswap;
		break;
		M(MOVBE) : sized(d, bytes(&d->o[0]));
		memory(d, &d->o[is_mem(&d->o[0]) ? 0 : 1]);
		if (is_mem(&d->o[0]))
			d->op->src = reg(&d->o[1]);
		else
			d->op->dst = reg(&d->o[0]);
		d->op->fn = is_mem(&d->o[0]) ? interp_op_movbe_store : interp_op_movbe_load;
		break;
		M(MOVNTI) : sized(d, bytes(&d->o[0]));
		memory(d, &d->o[0]);
		d->op->src = reg(&d->o[1]);
		d->op->fn = interp_op_movnti;
		break;
		M(XLAT) : d->op->seg = data_segment(d);
		d->op->fn = interp_op_xlat;
		break;
		M(BOUND) : memory(d, &d->o[1]);
		d->op->dst = reg(&d->o[0]);
		sized(d, bytes(&d->o[0]));
		d->op->fn = interp_op_bound;
		break;
		M(NOP)
		    : M(ENDBR32)
		    : M(ENDBR64)
		    : M(PREFETCH)
		    : M(PREFETCHNTA)
		    : M(PREFETCHT0)
		    : M(PREFETCHT1)
		    : M(PREFETCHT2)
		    : M(PREFETCHW)
		    : M(PREFETCHWT1) : M(CLDEMOTE) : M(LFENCE) : M(SFENCE) : M(SERIALIZE) : d->op->fn = interp_op_nop;
		break;
		PLAIN(MFENCE, mfence);
		PLAIN(PAUSE, pause);
		M(CLFLUSH) : M(CLFLUSHOPT) : M(CLWB) : memory(d, &d->o[0]);
		d->op->fn = interp_op_probe_read;
		break;
	default:
		return false;
	}
	return true;
}

static bool
translate_flow(struct decoding *d)
{
	switch (d->in.mnemonic) {
		FAMILY(PUSH, push(d));
		FAMILY(POP, pop(d));
		SIZED(PUSHA, pusha);
		SIZED(PUSHAD, pusha);
		SIZED(POPA, popa);
		SIZED(POPAD, popa);
		FAMILY(LEAVE, leave(d));
		M(ENTER) : sized(d, opsize(d));
		d->op->imm = (int64_t)(d->o[0].imm.value.u & 0xffff);
		d->op->disp = (int32_t)(d->o[1].imm.value.u & 0xff);
		d->op->fn = interp_op_enter;
		break;
		FAMILY(CALL, branch(d, true));
		FAMILY(JMP, branch(d, false));
		FAMILY(RET, ret(d));
		FAMILY(LOOP, relative(d, interp_op_loop));
		FAMILY(LOOPE, relative(d, interp_op_loope));
		FAMILY(LOOPNE, relative(d, interp_op_loopne));
		FAMILY(JCXZ, relative(d, interp_op_jcxz));
		FAMILY(JECXZ, relative(d, interp_op_jcxz));
		FAMILY(JRCXZ, relative(d, interp_op_jcxz));
		ENDS(INT3, int3);
		ENDS(INT1, int1);
		ENDS(INTO, into);
		M(INT) : d->op->imm = (int64_t)(d->o[0].imm.value.u & 0xff);
		ends(d, interp_op_int_n);
		break;
		ENDS(IRET, iret);
		ENDS(IRETD, iret);
		ENDS(IRETQ, iret);
		ENDS(SYSCALL, syscall);
		ENDS(SYSENTER, sysenter);
		FAMILY(SYSRET, fast_return(d, interp_op_sysret));
		FAMILY(SYSEXIT, fast_return(d, interp_op_sysexit));
		M(UD0) : M(UD1) : M(UD2) : undefined(d);
		break;
	default:
		return false;
	}
	return true;
}

static bool
translate_system(struct decoding *d)
{
	switch (d->in.mnemonic) {
		FAMILY(IN, port(d, true));
		FAMILY(OUT, port(d, false));
		PLAIN(CLI, cli);
		ENDS(STI, sti);
		ENDS(HLT, hlt);
		SIZED(PUSHF, pushf);
		SIZED(PUSHFD, pushf);
		SIZED(PUSHFQ, pushf);
		ENDS(POPF, popf);
		ENDS(POPFD, popf);
		ENDS(POPFQ, popf);
		FAMILY(LDS, load_far(d, SEG_DS));
		FAMILY(LES, load_far(d, SEG_ES));
		FAMILY(LSS, load_far(d, SEG_SS));
		FAMILY(LFS, load_far(d, SEG_FS));
		FAMILY(LGS, load_far(d, SEG_GS));
		FAMILY(LGDT, table(d, interp_op_lgdt, true));
		FAMILY(LIDT, table(d, interp_op_lidt, true));
		FAMILY(SGDT, table(d, interp_op_sgdt, false));
		FAMILY(SIDT, table(d, interp_op_sidt, false));
		FAMILY(SLDT, rm_protected(d, interp_op_sldt, false));
		FAMILY(STR, rm_protected(d, interp_op_str, false));
		FAMILY(LLDT, rm_protected(d, interp_op_lldt, true));
		FAMILY(LTR, rm_protected(d, interp_op_ltr, true));
		FAMILY(VERR, rm_protected(d, interp_op_verr, false));
		FAMILY(VERW, rm_protected(d, interp_op_verw, false));
		FAMILY(SMSW, rm_system(d, interp_op_smsw));
		M(LMSW) : rm_system(d, interp_op_lmsw);
		d->end = true;
		break;
		FAMILY(LAR, lar(d, interp_op_lar));
		FAMILY(LSL, lar(d, interp_op_lsl));
		M(ARPL) : rm_protected(d, interp_op_arpl, false);
		d->op->src = reg(&d->o[1]);
		break;
		ENDS(CLTS, clts);
		M(INVLPG) : memory(d, &d->o[0]);
		ends(d, interp_op_invlpg);
		break;
		M(INVPCID) : memory(d, &d->o[1]);
		d->op->dst = reg(&d->o[0]);
		ends(d, interp_op_invpcid);
		break;
		PLAIN(WBINVD, wbinvd);
		PLAIN(INVD, wbinvd);
		PLAIN(RDMSR, rdmsr);
		ENDS(WRMSR, wrmsr);
		PLAIN(RDTSC, rdtsc);
		PLAIN(RDTSCP, rdtscp);
		PLAIN(RDPMC, rdpmc);
		PLAIN(CPUID, cpuid);
		PLAIN(XGETBV, xgetbv);
		ENDS(XSETBV, xsetbv);
		PLAIN(SWAPGS, swapgs);
		FAMILY(RDPID, rm_system(d, interp_op_rdpid));
		FAMILY(RDFSBASE, rm_system(d, interp_op_rdfsbase));
		FAMILY(RDGSBASE, rm_system(d, interp_op_rdgsbase));
		FAMILY(WRFSBASE, rm_system(d, interp_op_wrfsbase));
		FAMILY(WRGSBASE, rm_system(d, interp_op_wrgsbase));
		ENDS(CLAC, clac);
		ENDS(STAC, stac);
		FAMILY(RDRAND, random_number(d, host_has(1, 2, 30), interp_op_rdrand));
		FAMILY(RDSEED, random_number(d, host_has(7, 1, 18), interp_op_rdseed));
		M(MONITOR) : M(MWAIT) : M(RSM) : undefined(d);
		break;
	default:
		return false;
	}
	return true;
}

static void
conditional_jump(struct decoding *d)
{
	relative(d, interp_jcc[condition_code(d)]);
	d->traits->condition = (uint8_t)condition_code(d);
}

/* Conditions are in the opcode; the mnemonics of one group have no order. */
static bool
translate_condition(struct decoding *d)
{
	unsigned row = d->in.opcode & 0xf0;

	if (d->in.encoding != ZYDIS_INSTRUCTION_ENCODING_LEGACY)
		return false;
	if (d->in.opcode_map == ZYDIS_OPCODE_MAP_DEFAULT ? row == 0x70
							 : d->in.opcode_map == ZYDIS_OPCODE_MAP_0F && row == 0x80)
		conditional_jump(d);
	else if (d->in.opcode_map == ZYDIS_OPCODE_MAP_0F && row == 0x90)
		setcc(d);
	else if (d->in.opcode_map == ZYDIS_OPCODE_MAP_0F && row == 0x40)
		cmov(d);
	else
		return false;
	return true;
}

static void
translate(struct decoding *d)
{
	op_fn fn = string_handler(d);

	if (fn)
		string(d, fn);
	else if (!translate_condition(d) && !translate_integer(d) && !translate_flow(d) && !translate_system(d))
		pure(d);
	if (!d->op->fn)
		undefined(d);
}

/* ---- the decoder ---- */

static void
make_decoder(struct interp_cpu *i, ZydisDecoder *z)
{
	bool compat = i->c.mode == X86_LONG16 || i->c.mode == X86_LONG32;

	if (i->c.code_size == 8)
		ZydisDecoderInit(z, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
	else if (i->c.code_size == 4)
		ZydisDecoderInit(z, compat ? ZYDIS_MACHINE_MODE_LONG_COMPAT_32 : ZYDIS_MACHINE_MODE_LEGACY_32,
			ZYDIS_STACK_WIDTH_32);
	else
		ZydisDecoderInit(z, compat ? ZYDIS_MACHINE_MODE_LONG_COMPAT_16 : ZYDIS_MACHINE_MODE_LEGACY_16,
			ZYDIS_STACK_WIDTH_16);
	/* what no guest is offered decodes as the NOP it is then */
	ZydisDecoderEnableMode(z, ZYDIS_DECODER_MODE_MPX, ZYAN_FALSE);
	ZydisDecoderEnableMode(z, ZYDIS_DECODER_MODE_CET, ZYAN_FALSE);
}

enum decode_result
interp_decode(struct interp_cpu *i, const uint8_t *code, unsigned avail, struct op *op, struct op_traits *traits)
{
	struct decoding d = { .i = i, .op = op, .code = code, .traits = traits };
	ZydisDecoder z;
	ZyanStatus s;

	*traits = (struct op_traits){ .condition = 0xff };
	make_decoder(i, &z);
	s = x86_decode(&z, code, avail < 15 ? avail : 15, &d.in, d.o);
	if (s == ZYDIS_STATUS_NO_MORE_DATA && avail < 15)
		return DECODE_MORE;
	if (ZYAN_FAILED(s)) {
		op->len = (uint8_t)(avail < 15 ? avail : 15); /* a write to any of them may mend it */
		op->fn = s == ZYDIS_STATUS_INSTRUCTION_TOO_LONG || s == ZYDIS_STATUS_NO_MORE_DATA ? interp_op_gp
												  : interp_op_ud;
		return DECODE_END;
	}
	op->len = d.in.length;
	if (d.in.address_width == 16)
		op->flags |= OP_A16;
	else if (d.in.address_width == 32)
		op->flags |= OP_A32;
	if (locked(&d))
		op->flags |= OP_LOCK;
	translate(&d);
	return d.end ? DECODE_END : DECODE_OK;
}

void
interp_disassemble(struct interp_cpu *i, const uint8_t *code, unsigned avail, char *text, unsigned size)
{
	ZydisDecodedOperand o[ZYDIS_MAX_OPERAND_COUNT];
	ZydisDecodedInstruction in;
	ZydisFormatter f;
	ZydisDecoder z;

	make_decoder(i, &z);
	ZydisFormatterInit(&f, ZYDIS_FORMATTER_STYLE_INTEL);
	if (ZYAN_FAILED(x86_decode(&z, code, avail, &in, o)) ||
		ZYAN_FAILED(ZydisFormatterFormatInstruction(
			&f, &in, o, in.operand_count_visible, text, size, i->c.v.state.rip, NULL)))
		snprintf(text, size, "(bad)");
}
