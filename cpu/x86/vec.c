/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Host-executed instructions: the guest's vector, x87 and bit-manipulation instructions run on the host's units with
 * the guest's operands. Guest and host are the same architecture, so there is nothing to emulate: an instruction is
 * brought into a normal form that means the same in the host's 64-bit code (its memory operand becomes [RSI], its
 * general registers are renamed, ignored bits and prefixes dropped), and a thunk (vec_emit.c) runs that form on a
 * struct x86_state. Instructions that differ in displacement, segment or code size only share one normal form, one op
 * and one thunk.
 *
 * Which instructions: a list of instruction sets, each with the CPUID bits that offer it. What the guest's CPUID does
 * not show is not compiled, and the caller raises #UD.
 *
 * The decoder is not trusted to know every encoding the host refuses: see the signals in vec_emit.c. That an access is
 * as large as the decoder says is tested for every form (test/isa).
 */
#include "cpu/x86/vec.h"

#include <stdlib.h>
#include <string.h>

#define ARITH_FLAGS (FLAG_CF | FLAG_PF | FLAG_AF | FLAG_ZF | FLAG_SF | FLAG_OF)
#define HOST_RSI 6
#define NO_REG (-1)

/* ---- what CPUID offers ---- */

enum cpuid_word { W_NONE, W_1C, W_1D, W_7B, W_7C, W_7D, W_71A, W_8C, W_DA, W_COUNT };

static const struct {
	uint32_t leaf, sub;
	uint8_t reg;
} words[W_COUNT] = {
	[W_1C] = { 1, 0, 2 },
	[W_1D] = { 1, 0, 3 },
	[W_7B] = { 7, 0, 1 },
	[W_7C] = { 7, 0, 2 },
	[W_7D] = { 7, 0, 3 },
	[W_71A] = { 7, 1, 0 },
	[W_8C] = { 0x80000001, 0, 2 },
	[W_DA] = { 13, 1, 0 },
};

#define F(word, bit) ((word) << 5 | (bit))
#define F_AVX F(W_1C, 28)
#define F_VL F(W_7B, 31)
#define AVX512_ROWS(set, feature)                                                                                      \
	[ZYDIS_ISA_SET_##set##_128] = { feature, F_VL }, [ZYDIS_ISA_SET_##set##_256] = { feature, F_VL },              \
	[ZYDIS_ISA_SET_##set##_512] = { feature }

/* Both bits must be there. Sets without a row are not run here. */
static const uint16_t isa_set[ZYDIS_ISA_SET_MAX_VALUE + 1][2] = {
	[ZYDIS_ISA_SET_X87] = { F(W_1D, 0) },
	[ZYDIS_ISA_SET_FCMOV] = { F(W_1D, 0), F(W_1D, 15) },
	[ZYDIS_ISA_SET_PPRO] = { F(W_1D, 0), F(W_1D, 15) }, /* FCOMI; all others are not x87 and refused */
	[ZYDIS_ISA_SET_PENTIUMMMX] = { F(W_1D, 23) },
	[ZYDIS_ISA_SET_FXSAVE] = { F(W_1D, 24) },
	[ZYDIS_ISA_SET_FXSAVE64] = { F(W_1D, 24) },
	[ZYDIS_ISA_SET_SSE] = { F(W_1D, 25) },
	[ZYDIS_ISA_SET_SSEMXCSR] = { F(W_1D, 25) },
	[ZYDIS_ISA_SET_SSE_PREFETCH] = { F(W_1D, 25) },
	[ZYDIS_ISA_SET_PREFETCH_NOP] = { F(W_1D, 0) },
	[ZYDIS_ISA_SET_CLFSH] = { F(W_1D, 19) },
	[ZYDIS_ISA_SET_CLFLUSHOPT] = { F(W_7B, 23) },
	[ZYDIS_ISA_SET_CLWB] = { F(W_7B, 24) },
	[ZYDIS_ISA_SET_CLDEMOTE] = { F(W_7C, 25) },
	[ZYDIS_ISA_SET_SSE2] = { F(W_1D, 26) },
	[ZYDIS_ISA_SET_SSE2MMX] = { F(W_1D, 26) },
	[ZYDIS_ISA_SET_SSE3] = { F(W_1C, 0) },
	[ZYDIS_ISA_SET_SSE3X87] = { F(W_1C, 0) },
	[ZYDIS_ISA_SET_SSSE3] = { F(W_1C, 9) },
	[ZYDIS_ISA_SET_SSSE3MMX] = { F(W_1C, 9) },
	[ZYDIS_ISA_SET_SSE4] = { F(W_1C, 19) },
	[ZYDIS_ISA_SET_SSE42] = { F(W_1C, 20) },
	[ZYDIS_ISA_SET_SSE4A] = { F(W_8C, 6) },
	[ZYDIS_ISA_SET_POPCNT] = { F(W_1C, 23) },
	[ZYDIS_ISA_SET_LZCNT] = { F(W_8C, 5) },
	[ZYDIS_ISA_SET_BMI1] = { F(W_7B, 3) },
	[ZYDIS_ISA_SET_BMI2] = { F(W_7B, 8) },
	[ZYDIS_ISA_SET_ADOX_ADCX] = { F(W_7B, 19) },
	[ZYDIS_ISA_SET_MOVBE] = { F(W_1C, 22) },
	[ZYDIS_ISA_SET_RDRAND] = { F(W_1C, 30) },
	[ZYDIS_ISA_SET_RDSEED] = { F(W_7B, 18) },
	[ZYDIS_ISA_SET_AES] = { F(W_1C, 25) },
	[ZYDIS_ISA_SET_PCLMULQDQ] = { F(W_1C, 1) },
	[ZYDIS_ISA_SET_SHA] = { F(W_7B, 29) },
	[ZYDIS_ISA_SET_GFNI] = { F(W_7C, 8) },
	[ZYDIS_ISA_SET_AVX] = { F_AVX },
	[ZYDIS_ISA_SET_AVX2] = { F(W_7B, 5) },
	[ZYDIS_ISA_SET_AVX2GATHER] = { F(W_7B, 5) },
	[ZYDIS_ISA_SET_AVXAES] = { F(W_1C, 25), F_AVX },
	[ZYDIS_ISA_SET_AVX_GFNI] = { F(W_7C, 8), F_AVX },
	[ZYDIS_ISA_SET_AVX_VNNI] = { F(W_71A, 4) },
	[ZYDIS_ISA_SET_F16C] = { F(W_1C, 29), F_AVX },
	[ZYDIS_ISA_SET_FMA] = { F(W_1C, 12), F_AVX },
	[ZYDIS_ISA_SET_VAES] = { F(W_7C, 9), F_AVX },
	[ZYDIS_ISA_SET_VPCLMULQDQ] = { F(W_7C, 10), F_AVX },
	[ZYDIS_ISA_SET_MOVDIR] = { F(W_7C, 27), F(W_7C, 28) },
	[ZYDIS_ISA_SET_XSAVE] = { F(W_1C, 26) },
	[ZYDIS_ISA_SET_XSAVEOPT] = { F(W_DA, 0) },
	[ZYDIS_ISA_SET_XSAVEC] = { F(W_DA, 1) },
	[ZYDIS_ISA_SET_XSAVES] = { F(W_DA, 3) },
	AVX512_ROWS(AVX512F, F(W_7B, 16)),
	[ZYDIS_ISA_SET_AVX512F_128N] = { F(W_7B, 16) },
	[ZYDIS_ISA_SET_AVX512F_KOP] = { F(W_7B, 16) },
	[ZYDIS_ISA_SET_AVX512F_SCALAR] = { F(W_7B, 16) },
	AVX512_ROWS(AVX512DQ, F(W_7B, 17)),
	[ZYDIS_ISA_SET_AVX512DQ_128N] = { F(W_7B, 17) },
	[ZYDIS_ISA_SET_AVX512DQ_KOP] = { F(W_7B, 17) },
	[ZYDIS_ISA_SET_AVX512DQ_SCALAR] = { F(W_7B, 17) },
	AVX512_ROWS(AVX512BW, F(W_7B, 30)),
	[ZYDIS_ISA_SET_AVX512BW_128N] = { F(W_7B, 30) },
	[ZYDIS_ISA_SET_AVX512BW_KOP] = { F(W_7B, 30) },
	AVX512_ROWS(AVX512CD, F(W_7B, 28)),
	AVX512_ROWS(AVX512_IFMA, F(W_7B, 21)),
	AVX512_ROWS(AVX512_VBMI, F(W_7C, 1)),
	AVX512_ROWS(AVX512_VBMI2, F(W_7C, 6)),
	AVX512_ROWS(AVX512_GFNI, F(W_7C, 8)),
	AVX512_ROWS(AVX512_VAES, F(W_7C, 9)),
	AVX512_ROWS(AVX512_VPCLMULQDQ, F(W_7C, 10)),
	AVX512_ROWS(AVX512_VNNI, F(W_7C, 11)),
	AVX512_ROWS(AVX512_BITALG, F(W_7C, 12)),
	AVX512_ROWS(AVX512_VPOPCNTDQ, F(W_7C, 14)),
	AVX512_ROWS(AVX512_VP2INTERSECT, F(W_7D, 8)),
	AVX512_ROWS(AVX512_FP16, F(W_7D, 23)),
	[ZYDIS_ISA_SET_AVX512_FP16_128N] = { F(W_7D, 23) },
	[ZYDIS_ISA_SET_AVX512_FP16_SCALAR] = { F(W_7D, 23) },
	AVX512_ROWS(AVX512_BF16, F(W_71A, 5)),
};

static const struct cpuid_leaf *
find_leaf(const struct cpu_model *m, uint32_t leaf, uint32_t sub)
{
	for (int i = 0; i < m->leaf_count; i++)
		if (m->leaf[i].leaf == leaf && m->leaf[i].sub == sub)
			return &m->leaf[i];
	return NULL;
}

static bool
has_feature(const struct cpu_model *m, unsigned feature)
{
	unsigned word = feature >> 5;
	const struct cpuid_leaf *l = find_leaf(m, words[word].leaf, words[word].sub);
	uint32_t value;

	if (!l)
		return false;
	value = words[word].reg == 0 ? l->eax : words[word].reg == 1 ? l->ebx : words[word].reg == 2 ? l->ecx : l->edx;
	return value >> (feature & 31) & 1;
}

static bool
is_x87(const ZydisDecodedInstruction *in)
{
	return in->encoding == ZYDIS_INSTRUCTION_ENCODING_LEGACY && in->opcode_map == ZYDIS_OPCODE_MAP_DEFAULT &&
	       in->opcode >= 0xd8 && in->opcode <= 0xdf;
}

static bool
offered(struct soft_cpu *c, const ZydisDecodedInstruction *in)
{
	unsigned set = in->meta.isa_set;
	const struct cpu_model *m = &c->v.cpus->model;

	if (set > ZYDIS_ISA_SET_MAX_VALUE || !isa_set[set][0] || (set == ZYDIS_ISA_SET_PPRO && !is_x87(in)))
		return false;
	return has_feature(m, isa_set[set][0]) && (!isa_set[set][1] || has_feature(m, isa_set[set][1]));
}

/* ---- operands ---- */

/* The guest's instruction on its way to its normal form. */
struct form {
	const ZydisDecodedInstruction *in;
	const ZydisDecodedOperand *operand;
	const ZydisDecodedOperand *mem; /* or NULL */
	int reg, rm, vvvv, is4;		/* host numbers of encoded registers, or NO_REG */
	bool w, opsize, byte_reg;
	bool gpr, mmx, xmm, k; /* kinds of registers used */
	uint8_t rep;	       /* 0xf2, 0xf3 or 0 */
};

static int
alloc_gpr(struct vec_op *op, unsigned guest)
{
	unsigned host = 8;

	if (guest <= RDX)
		return (int)guest;
	for (unsigned i = 0; i < op->gpr_count; i++)
		if (op->gpr[i].host >= host)
			host = op->gpr[i].host + 1u;
	return host <= 11 ? (int)host : NO_REG;
}

/* Returns the host register, or NO_REG. */
static int
add_gpr(struct vec_op *op, unsigned guest, bool out)
{
	struct vec_gpr *g;
	int host;

	for (unsigned i = 0; i < op->gpr_count; i++) {
		g = &op->gpr[i];
		if (g->guest == guest && g->in == 8) {
			g->out |= out ? 8 : 0;
			return g->host;
		}
	}
	host = alloc_gpr(op, guest);
	if (host == NO_REG || op->gpr_count == 6)
		return NO_REG;
	op->gpr[op->gpr_count++] =
		(struct vec_gpr){ .guest = (uint8_t)guest, .host = (uint8_t)host, .in = 8, .out = out ? 8 : 0 };
	return host;
}

/* A source of one byte; always in a host register of its own, from R8 up. */
static int
add_byte_gpr(struct vec_op *op, ZydisRegister r)
{
	bool high = r >= ZYDIS_REGISTER_AH && r <= ZYDIS_REGISTER_BH;
	ZydisRegister wide = ZydisRegisterGetLargestEnclosing(ZYDIS_MACHINE_MODE_LONG_64, r);
	int host = alloc_gpr(op, R8);

	if (host == NO_REG || op->gpr_count == 6)
		return NO_REG;
	op->gpr[op->gpr_count++] = (struct vec_gpr){
		.guest = (uint8_t)ZydisRegisterGetId(wide), .host = (uint8_t)host, .in = 1, .high = high
	};
	return host;
}

static bool
place(struct form *f, ZydisOperandEncoding encoding, int host, bool implicit_ok)
{
	switch (encoding) {
	case ZYDIS_OPERAND_ENCODING_MODRM_REG:
		f->reg = host;
		return true;
	case ZYDIS_OPERAND_ENCODING_MODRM_RM:
		f->rm = host;
		return true;
	case ZYDIS_OPERAND_ENCODING_NDSNDD:
		f->vvvv = host;
		return true;
	case ZYDIS_OPERAND_ENCODING_IS4:
		f->is4 = host;
		return true;
	case ZYDIS_OPERAND_ENCODING_MASK:
		return true;
	case ZYDIS_OPERAND_ENCODING_NONE:
		return implicit_ok;
	default:
		return false;
	}
}

static bool
gpr_operand(struct vec_op *op, struct form *f, const ZydisDecodedOperand *o)
{
	bool out = o->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE;
	int guest, host;

	f->gpr = true;
	if (o->size == 8) {
		f->byte_reg = true;
		host = out ? NO_REG : add_byte_gpr(op, o->reg.value);
		return host != NO_REG && place(f, o->encoding, host, false);
	}
	guest = ZydisRegisterGetId(o->reg.value);
	host = guest >= 0 && guest < 16 ? add_gpr(op, (unsigned)guest, out) : NO_REG;
	return host != NO_REG && place(f, o->encoding, host, host == guest);
}

static bool
reg_operand(struct vec_op *op, struct form *f, const ZydisDecodedOperand *o)
{
	bool in = o->actions & ZYDIS_OPERAND_ACTION_MASK_READ, out = o->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE;
	int id = ZydisRegisterGetId(o->reg.value);

	switch (ZydisRegisterGetClass(o->reg.value)) {
	case ZYDIS_REGCLASS_GPR8:
	case ZYDIS_REGCLASS_GPR16:
	case ZYDIS_REGCLASS_GPR32:
	case ZYDIS_REGCLASS_GPR64:
		return gpr_operand(op, f, o);
	case ZYDIS_REGCLASS_XMM:
	case ZYDIS_REGCLASS_YMM:
	case ZYDIS_REGCLASS_ZMM:
		f->xmm = true;
		if (in || op->encoding == VEC_LEGACY)
			op->vec_in |= 1u << id;
		if (out)
			op->vec_out |= 1u << id;
		if (ZydisRegisterGetClass(o->reg.value) == ZYDIS_REGCLASS_YMM && op->vec_bytes < 32)
			op->vec_bytes = 32;
		return place(f, o->encoding, id, true);
	case ZYDIS_REGCLASS_MMX:
		f->mmx = true;
		op->mmx_in |= (uint8_t)(in << id);
		op->mmx_out |= (uint8_t)(out << id);
		return place(f, o->encoding, id, false);
	case ZYDIS_REGCLASS_MASK:
		f->k = true;
		if (o->encoding == ZYDIS_OPERAND_ENCODING_MASK && !id)
			return true; /* k0: no mask */
		op->k_in |= (uint8_t)(in << id);
		op->k_out |= (uint8_t)(out << id);
		return place(f, o->encoding, id, false);
	case ZYDIS_REGCLASS_X87:
	case ZYDIS_REGCLASS_FLAGS:
		return true;
	default: /* X87CONTROL, X87STATUS, MXCSR...; anything else never passes the list of instruction sets */
		return o->visibility == ZYDIS_OPERAND_VISIBILITY_HIDDEN;
	}
}

static bool
operands(struct vec_op *op, struct form *f)
{
	op->vec_bytes = op->encoding == VEC_EVEX ? 64 : 16;
	for (unsigned i = 0; i < f->in->operand_count; i++) {
		const ZydisDecodedOperand *o = &f->operand[i];
		bool ok = true;

		if (o->type == ZYDIS_OPERAND_TYPE_REGISTER)
			ok = reg_operand(op, f, o);
		else if (o->type == ZYDIS_OPERAND_TYPE_MEMORY && !f->mem)
			f->mem = o;
		else if (o->type == ZYDIS_OPERAND_TYPE_MEMORY)
			ok = f->in->mnemonic == ZYDIS_MNEMONIC_MOVDIR64B;
		else if (o->type == ZYDIS_OPERAND_TYPE_POINTER)
			ok = false;
		if (!ok)
			return false;
	}
	if (op->encoding == VEC_EVEX && f->in->avx.mask.mode == ZYDIS_MASK_MODE_MERGING)
		op->vec_in |= op->vec_out;
	return true;
}

/* ---- the normal form's bytes ---- */

struct bytes {
	uint8_t *p;
};

static void
put(struct bytes *b, unsigned value)
{
	*b->p++ = (uint8_t)value;
}

static void
put_legacy(struct bytes *b, const struct form *f)
{
	unsigned rex = (f->w ? 8u : 0) | (f->reg > 7 ? 4u : 0) | (!f->mem && f->rm > 7 ? 1u : 0);

	if (f->opsize)
		put(b, 0x66);
	if (f->rep)
		put(b, f->rep);
	if (rex || f->byte_reg)
		put(b, 0x40 | rex);
	if (f->in->opcode_map != ZYDIS_OPCODE_MAP_DEFAULT)
		put(b, 0x0f);
	if (f->in->opcode_map == ZYDIS_OPCODE_MAP_0F38)
		put(b, 0x38);
	if (f->in->opcode_map == ZYDIS_OPCODE_MAP_0F3A)
		put(b, 0x3a);
}

static unsigned
inverted(int reg, unsigned bit, unsigned to)
{
	return reg != NO_REG && (unsigned)reg & bit ? 0 : to;
}

static void
put_vex(struct bytes *b, const struct form *f)
{
	const ZydisDecodedInstructionRawVex *v = &f->in->raw.vex;
	unsigned vvvv = f->vvvv == NO_REG ? 15 : ~(unsigned)f->vvvv & 15;

	put(b, 0xc4);
	put(b, inverted(f->reg, 8, 0x80) | 0x40 | (f->mem ? 0x20 : inverted(f->rm, 8, 0x20)) | v->m_mmmm);
	put(b, (f->w ? 0x80u : 0) | vvvv << 3 | (unsigned)v->L << 2 | v->pp);
}

static void
put_evex(struct bytes *b, const struct form *f)
{
	const ZydisDecodedInstructionRawEvex *e = &f->in->raw.evex;
	unsigned vvvv = f->vvvv == NO_REG ? 15 : ~(unsigned)f->vvvv & 15;
	unsigned xb = f->mem ? 0x60 : inverted(f->rm, 16, 0x40) | inverted(f->rm, 8, 0x20);

	put(b, 0x62);
	put(b, inverted(f->reg, 8, 0x80) | xb | inverted(f->reg, 16, 0x10) | e->mmm);
	put(b, (f->w ? 0x80u : 0) | vvvv << 3 | 4 | e->pp);
	put(b, (unsigned)e->z << 7 | (unsigned)e->L2 << 6 | (unsigned)e->L << 5 | (unsigned)e->b << 4 |
			inverted(f->vvvv, 16, 8) | e->aaa);
}

/* Where the guest's bytes continue behind ModRM, SIB and displacement. */
static unsigned
immediate_offset(const ZydisDecodedInstruction *in)
{
	if (in->raw.disp.size)
		return in->raw.disp.offset + in->raw.disp.size / 8u;
	if (in->attributes & ZYDIS_ATTRIB_HAS_SIB)
		return in->raw.sib.offset + 1u;
	if (in->attributes & ZYDIS_ATTRIB_HAS_MODRM)
		return in->raw.modrm.offset + 1u;
	return in->length;
}

static void
put_modrm(struct bytes *b, const struct form *f)
{
	unsigned reg = f->reg == NO_REG ? f->in->raw.modrm.reg : (unsigned)f->reg & 7;
	unsigned rm = f->rm == NO_REG ? f->in->raw.modrm.rm : (unsigned)f->rm & 7;

	if (f->mem)
		put(b, reg << 3 | HOST_RSI);
	else
		put(b, 0xc0 | reg << 3 | rm);
}

static void
encode(struct vec_op *op, const struct form *f, const uint8_t *guest)
{
	struct bytes b = { op->bytes };

	memset(op->bytes, 0, sizeof(op->bytes));
	if (op->encoding == VEC_LEGACY)
		put_legacy(&b, f);
	else if (op->encoding == VEC_VEX)
		put_vex(&b, f);
	else
		put_evex(&b, f);
	put(&b, f->in->opcode);
	if (f->in->attributes & ZYDIS_ATTRIB_HAS_MODRM)
		put_modrm(&b, f);
	for (unsigned i = immediate_offset(f->in); i < f->in->length; i++)
		put(&b, guest[i]);
	if (f->is4 != NO_REG)
		b.p[-1] = (uint8_t)((unsigned)f->is4 << 4 | (b.p[-1] & 15));
	op->len = (uint8_t)(b.p - op->bytes);
}

static bool
same_operand(const ZydisDecodedOperand *a, const ZydisDecodedOperand *b)
{
	if (a->visibility == ZYDIS_OPERAND_VISIBILITY_HIDDEN)
		return a->type != ZYDIS_OPERAND_TYPE_REGISTER || a->reg.value == b->reg.value ||
		       ZydisRegisterGetClass(a->reg.value) == ZYDIS_REGCLASS_FLAGS;
	return a->type == b->type && a->size == b->size && a->actions == b->actions;
}

/* Does the host's 64-bit code mean the same by the normal form? */
static bool
same_meaning(const struct vec_op *op, const struct form *f)
{
	ZydisDecoder d;
	ZydisDecodedInstruction in;
	ZydisDecodedOperand o[ZYDIS_MAX_OPERAND_COUNT];

	ZydisDecoderInit(&d, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
	if (!ZYAN_SUCCESS(ZydisDecoderDecodeFull(&d, op->bytes, op->len, &in, o)))
		return false;
	if (in.length != op->len || in.mnemonic != f->in->mnemonic || in.meta.isa_set != f->in->meta.isa_set ||
		in.operand_count != f->in->operand_count)
		return false;
	for (unsigned i = 0; i < in.operand_count; i++)
		if (!same_operand(&o[i], &f->operand[i]))
			return false;
	return true;
}

/* The prefixes and bits that have a meaning besides naming registers. */
static void
prefixes(struct vec_op *op, struct form *f)
{
	const ZydisDecodedInstruction *in = f->in;

	for (unsigned i = 0; i < in->raw.prefix_count; i++) {
		uint8_t p = in->raw.prefixes[i].value;
		if (p == 0x66)
			f->opsize = true;
		else if (p == 0xf2 || p == 0xf3)
			f->rep = p;
	}
	if (op->encoding == VEC_VEX)
		f->w = in->raw.vex.W;
	else if (op->encoding == VEC_EVEX)
		f->w = in->raw.evex.W;
	else if (in->attributes & ZYDIS_ATTRIB_HAS_REX)
		f->w = in->raw.rex.W;
	switch (in->mnemonic) {
	case ZYDIS_MNEMONIC_POPCNT: /* 0x66 is an operand size here, and means the opposite in 16-bit code */
	case ZYDIS_MNEMONIC_LZCNT:
	case ZYDIS_MNEMONIC_TZCNT:
	case ZYDIS_MNEMONIC_CRC32:
	case ZYDIS_MNEMONIC_MOVBE:
	case ZYDIS_MNEMONIC_RDRAND:
	case ZYDIS_MNEMONIC_RDSEED:
		f->opsize = in->operand_width == 16;
		break;
	default:
		break;
	}
	if (op->x87) {
		f->opsize = f->w = false;
		f->rep = 0;
	}
}

static bool
normalise(struct vec_op *op, struct form *f, const uint8_t *guest, bool check)
{
	prefixes(op, f);
	if (check && (op->mnemonic == ZYDIS_MNEMONIC_VPCMPESTRI || op->mnemonic == ZYDIS_MNEMONIC_VPCMPESTRM))
		f->w = false; /* lengths in EAX and EDX; the decoder shows RAX and RDX also in 32-bit code */
	encode(op, f, guest);
	if (!check || same_meaning(op, f))
		return true;
	if (!f->w)
		return false;
	f->w = false; /* ignored outside 64-bit mode by instructions with a general register or its memory form */
	encode(op, f, guest);
	return same_meaning(op, f);
}

/* ---- properties ---- */

static bool
uses_mxcsr(const ZydisDecodedInstruction *in)
{
	switch (in->meta.exception_class) {
	case ZYDIS_EXCEPTION_CLASS_SSE2:
	case ZYDIS_EXCEPTION_CLASS_SSE3:
	case ZYDIS_EXCEPTION_CLASS_AVX2:
	case ZYDIS_EXCEPTION_CLASS_AVX3:
	case ZYDIS_EXCEPTION_CLASS_AVX11:
	case ZYDIS_EXCEPTION_CLASS_E2:
	case ZYDIS_EXCEPTION_CLASS_E2NF:
	case ZYDIS_EXCEPTION_CLASS_E3:
	case ZYDIS_EXCEPTION_CLASS_E3NF:
	case ZYDIS_EXCEPTION_CLASS_E11:
	case ZYDIS_EXCEPTION_CLASS_E11NF:
		return true;
	default:
		break;
	}
	switch (in->mnemonic) { /* rounding or DAZ count, but there are no exceptions or no class in the decoder */
	case ZYDIS_MNEMONIC_CVTPI2PS:
	case ZYDIS_MNEMONIC_CVTPI2PD:
	case ZYDIS_MNEMONIC_CVTPS2PI:
	case ZYDIS_MNEMONIC_CVTTPS2PI:
	case ZYDIS_MNEMONIC_CVTPD2PI:
	case ZYDIS_MNEMONIC_CVTTPD2PI:
	case ZYDIS_MNEMONIC_RCPPS:
	case ZYDIS_MNEMONIC_RCPSS:
	case ZYDIS_MNEMONIC_RSQRTPS:
	case ZYDIS_MNEMONIC_RSQRTSS:
	case ZYDIS_MNEMONIC_VRCPPS:
	case ZYDIS_MNEMONIC_VRCPSS:
	case ZYDIS_MNEMONIC_VRSQRTPS:
	case ZYDIS_MNEMONIC_VRSQRTSS:
	case ZYDIS_MNEMONIC_VRCP14PS:
	case ZYDIS_MNEMONIC_VRCP14PD:
	case ZYDIS_MNEMONIC_VRCP14SS:
	case ZYDIS_MNEMONIC_VRCP14SD:
	case ZYDIS_MNEMONIC_VRSQRT14PS:
	case ZYDIS_MNEMONIC_VRSQRT14PD:
	case ZYDIS_MNEMONIC_VRSQRT14SS:
	case ZYDIS_MNEMONIC_VRSQRT14SD:
	case ZYDIS_MNEMONIC_VRCPPH:
	case ZYDIS_MNEMONIC_VRCPSH:
	case ZYDIS_MNEMONIC_VRSQRTPH:
	case ZYDIS_MNEMONIC_VRSQRTSH:
	case ZYDIS_MNEMONIC_VFPCLASSPS:
	case ZYDIS_MNEMONIC_VFPCLASSPD:
	case ZYDIS_MNEMONIC_VFPCLASSSS:
	case ZYDIS_MNEMONIC_VFPCLASSSD:
	case ZYDIS_MNEMONIC_VFPCLASSPH:
	case ZYDIS_MNEMONIC_VFPCLASSSH:
		return true;
	default:
		return in->meta.isa_set >= ZYDIS_ISA_SET_AVX512_FP16_128 &&
		       in->meta.isa_set <= ZYDIS_ISA_SET_AVX512_FP16_SCALAR;
	}
}

static bool
unaligned_allowed(ZydisMnemonic m)
{
	switch (m) {
	case ZYDIS_MNEMONIC_MOVUPS:
	case ZYDIS_MNEMONIC_MOVUPD:
	case ZYDIS_MNEMONIC_MOVDQU:
	case ZYDIS_MNEMONIC_LDDQU:
	case ZYDIS_MNEMONIC_PCMPESTRI:
	case ZYDIS_MNEMONIC_PCMPESTRM:
	case ZYDIS_MNEMONIC_PCMPISTRI:
	case ZYDIS_MNEMONIC_PCMPISTRM:
	case ZYDIS_MNEMONIC_MASKMOVDQU:
		return true;
	default:
		return false;
	}
}

static bool
alignment_required(ZydisMnemonic m)
{
	switch (m) {
	case ZYDIS_MNEMONIC_VMOVAPS:
	case ZYDIS_MNEMONIC_VMOVAPD:
	case ZYDIS_MNEMONIC_VMOVDQA:
	case ZYDIS_MNEMONIC_VMOVDQA32:
	case ZYDIS_MNEMONIC_VMOVDQA64:
	case ZYDIS_MNEMONIC_VMOVNTDQ:
	case ZYDIS_MNEMONIC_VMOVNTDQA:
	case ZYDIS_MNEMONIC_VMOVNTPS:
	case ZYDIS_MNEMONIC_VMOVNTPD:
		return true;
	default:
		return false;
	}
}

/* SDM 2 tables 2-18 to 2-31 */
static void
set_alignment(struct vec_op *op, const struct form *f)
{
	bool aligned = op->encoding == VEC_LEGACY ? op->mem_size == 16 && !unaligned_allowed(f->in->mnemonic)
						  : alignment_required(f->in->mnemonic);

	if (aligned)
		op->align_mask = (uint8_t)(op->mem_size - 1);
}

/* SDM 3A table 2-2 and chapters 13 of volumes 1 and 3 */
static void
set_gate(struct vec_op *op, const struct form *f)
{
	struct vec_gate *g = &op->gate;

	if (op->x87) {
		g->cr0_nm = CR0_EM | CR0_TS;
	} else if (op->encoding != VEC_LEGACY && (f->xmm || f->k)) {
		g->cr4_need = CR4_OSXSAVE;
		g->xcr0_need = op->encoding == VEC_EVEX || f->k ? 0xe6 : 6;
		g->cr0_nm = CR0_TS;
	} else if (f->xmm || op->mem_size == 16) { /* CVTPD2PI has a memory operand only */
		g->cr0_ud = CR0_EM;
		g->cr4_need = CR4_OSFXSR;
		g->cr0_nm = CR0_TS;
	} else if (f->mmx) {
		g->cr0_ud = CR0_EM;
		g->cr0_nm = CR0_TS;
	}
}

static void
set_flags(struct vec_op *op, const ZydisDecodedInstruction *in)
{
	const ZydisAccessedFlags *a = in->cpu_flags;

	switch (in->mnemonic) { /* the decoder's tables leave their flags out */
	case ZYDIS_MNEMONIC_VPTEST:
	case ZYDIS_MNEMONIC_VTESTPS:
	case ZYDIS_MNEMONIC_VTESTPD:
		op->flags_out = ARITH_FLAGS;
		op->uses_flags = true;
		return;
	default:
		break;
	}
	if (!a)
		return;
	op->flags_in = a->tested & ARITH_FLAGS;
	op->flags_out = (a->modified | a->set_0 | a->set_1 | a->undefined) & ARITH_FLAGS;
	op->uses_flags = op->flags_in | op->flags_out;
}

static bool
no_fault_suppression(const ZydisDecodedInstruction *in)
{
	switch (in->mnemonic) { /* E4NF; the decoder says E4 */
	case ZYDIS_MNEMONIC_VDBPSADBW:
	case ZYDIS_MNEMONIC_VCVTNE2PS2BF16:
	case ZYDIS_MNEMONIC_VGF2P8AFFINEQB:
	case ZYDIS_MNEMONIC_VGF2P8AFFINEINVQB:
		return true;
	default:
		break;
	}
	switch (in->meta.exception_class) {
	case ZYDIS_EXCEPTION_CLASS_E1NF:
	case ZYDIS_EXCEPTION_CLASS_E2NF:
	case ZYDIS_EXCEPTION_CLASS_E3NF:
	case ZYDIS_EXCEPTION_CLASS_E4NF:
	case ZYDIS_EXCEPTION_CLASS_E5NF:
	case ZYDIS_EXCEPTION_CLASS_E6NF:
	case ZYDIS_EXCEPTION_CLASS_E9NF:
	case ZYDIS_EXCEPTION_CLASS_E10NF:
	case ZYDIS_EXCEPTION_CLASS_E11NF:
		return true;
	default:
		return false;
	}
}

static bool
is_compress(ZydisMnemonic m)
{
	switch (m) {
	case ZYDIS_MNEMONIC_VCOMPRESSPS:
	case ZYDIS_MNEMONIC_VCOMPRESSPD:
	case ZYDIS_MNEMONIC_VPCOMPRESSB:
	case ZYDIS_MNEMONIC_VPCOMPRESSW:
	case ZYDIS_MNEMONIC_VPCOMPRESSD:
	case ZYDIS_MNEMONIC_VPCOMPRESSQ:
	case ZYDIS_MNEMONIC_VEXPANDPS:
	case ZYDIS_MNEMONIC_VEXPANDPD:
	case ZYDIS_MNEMONIC_VPEXPANDB:
	case ZYDIS_MNEMONIC_VPEXPANDW:
	case ZYDIS_MNEMONIC_VPEXPANDD:
	case ZYDIS_MNEMONIC_VPEXPANDQ:
		return true;
	default:
		return false;
	}
}

static unsigned
broadcast_count(ZydisBroadcastMode mode)
{
	static const uint8_t count[] = { 0, 2, 4, 8, 16, 32, 64, 4, 8, 16, 8, 16, 16 };

	return mode < sizeof(count) ? count[mode] : 0;
}

/* Fewer mask bits than the decoder has memory elements: one for each destination element; 0: as many */
static unsigned
mask_elements(const struct form *f)
{
	const ZydisDecodedOperand *o = &f->operand[0];

	if (o->type != ZYDIS_OPERAND_TYPE_REGISTER || ZydisRegisterGetClass(o->reg.value) == ZYDIS_REGCLASS_MASK ||
		!o->element_size)
		return 0;
	switch (f->in->mnemonic) {
	case ZYDIS_MNEMONIC_VFMULCPH: /* complex numbers: a bit for a pair */
	case ZYDIS_MNEMONIC_VFCMULCPH:
	case ZYDIS_MNEMONIC_VFMADDCPH:
	case ZYDIS_MNEMONIC_VFCMADDCPH:
		return o->size / 32u;
	default:
		return (unsigned)o->size / o->element_size;
	}
}

static bool
is_scalar_complex(ZydisMnemonic m)
{
	return m == ZYDIS_MNEMONIC_VFMULCSH || m == ZYDIS_MNEMONIC_VFCMULCSH || m == ZYDIS_MNEMONIC_VFMADDCSH ||
	       m == ZYDIS_MNEMONIC_VFCMADDCSH;
}

/* EVEX with a mask register and a memory operand: which mask bits each element of memory belongs to. */
static void
set_mask(struct vec_op *op, const struct form *f)
{
	const ZydisDecodedInstruction *in = f->in;
	bool scalar = f->mem->element_count == 1 || is_scalar_complex(in->mnemonic);
	unsigned count = scalar ? 1 : f->mem->element_count, n = mask_elements(f);

	if (op->encoding != VEC_EVEX || !in->raw.evex.aaa || (no_fault_suppression(in) && !op->mem_write))
		return;
	op->mask_probe = no_fault_suppression(in);
	op->mask_reg = in->raw.evex.aaa;
	op->mask_bits = (uint8_t)count;
	op->mask = VEC_MASK_EACH;
	if (in->avx.broadcast.mode != ZYDIS_BROADCAST_MODE_INVALID) {
		op->mask = VEC_MASK_REPEAT;
		op->mask_bits = (uint8_t)broadcast_count(in->avx.broadcast.mode);
	} else if (is_compress(in->mnemonic)) {
		op->mask = VEC_MASK_COMPRESS;
	} else if (!scalar && n && n < count) { /* VPDPBUSD: four bytes for a bit */
		op->mask_bits = (uint8_t)n;
		count = n;
	}
	op->elem_count = (uint8_t)count;
	op->elem_size = (uint8_t)(op->mem_size / count);
}

/* ---- kinds ---- */

static int
reg_id(const ZydisDecodedOperand *o)
{
	return ZydisRegisterGetId(o->reg.value);
}

static enum seg_name
segment_of(const ZydisDecodedOperand *mem)
{
	switch (mem->mem.segment) {
	case ZYDIS_REGISTER_ES:
		return SEG_ES;
	case ZYDIS_REGISTER_CS:
		return SEG_CS;
	case ZYDIS_REGISTER_SS:
		return SEG_SS;
	case ZYDIS_REGISTER_FS:
		return SEG_FS;
	case ZYDIS_REGISTER_GS:
		return SEG_GS;
	default:
		return SEG_DS;
	}
}

static unsigned
min_unsigned(unsigned a, unsigned b)
{
	return a < b ? a : b;
}

/* Index elements of 8 bytes: the Q before the data's letters. */
static bool
quad_index(ZydisMnemonic m)
{
	switch (m) {
	case ZYDIS_MNEMONIC_VGATHERQPS:
	case ZYDIS_MNEMONIC_VGATHERQPD:
	case ZYDIS_MNEMONIC_VPGATHERQD:
	case ZYDIS_MNEMONIC_VPGATHERQQ:
	case ZYDIS_MNEMONIC_VSCATTERQPS:
	case ZYDIS_MNEMONIC_VSCATTERQPD:
	case ZYDIS_MNEMONIC_VPSCATTERQD:
	case ZYDIS_MNEMONIC_VPSCATTERQQ:
		return true;
	default:
		return false;
	}
}

/* Data, index and mask registers in the order of the operands. */
static bool
vsib_registers(struct vec_op *op, const struct form *f)
{
	int data = NO_REG, mask = NO_REG;

	for (unsigned i = 0; i < f->in->operand_count_visible; i++) {
		const ZydisDecodedOperand *o = &f->operand[i];
		if (o->type != ZYDIS_OPERAND_TYPE_REGISTER)
			continue;
		if (o->encoding == ZYDIS_OPERAND_ENCODING_MODRM_REG)
			data = reg_id(o);
		else
			mask = reg_id(o);
	}
	if (data == NO_REG || mask == NO_REG)
		return false;
	op->vsib.dst = (uint8_t)data;
	op->vsib.mask = (uint8_t)mask;
	return true;
}

/* Register combinations that are #UD (SDM 2 "VPGATHERDD", both forms). */
static bool
vsib_valid(const struct vec_op *op, bool scatter)
{
	if (op->encoding == VEC_EVEX)
		return op->vsib.mask && (scatter || op->vsib.dst != op->vsib.index);
	return op->vsib.dst != op->vsib.index && op->vsib.dst != op->vsib.mask && op->vsib.index != op->vsib.mask;
}

static bool
describe_vsib(struct vec_op *op, const struct form *f)
{
	const ZydisDecodedOperandMem *m = &f->mem->mem;
	bool scatter = f->mem->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE;
	unsigned index_bytes = (unsigned)ZydisRegisterGetWidth(ZYDIS_MACHINE_MODE_LONG_64, m->index) / 8,
		 data_bytes = 64;

	if (f->in->meta.category != ZYDIS_CATEGORY_GATHER && f->in->meta.category != ZYDIS_CATEGORY_AVX2GATHER &&
		f->in->meta.category != ZYDIS_CATEGORY_SCATTER)
		return false;
	if (!vsib_registers(op, f))
		return false;
	for (unsigned i = 0; i < f->in->operand_count_visible; i++)
		if (f->operand[i].encoding == ZYDIS_OPERAND_ENCODING_MODRM_REG)
			data_bytes =
				(unsigned)ZydisRegisterGetWidth(ZYDIS_MACHINE_MODE_LONG_64, f->operand[i].reg.value) /
				8;
	op->elem_size = (uint8_t)(f->mem->element_size / 8);
	op->vsib.index_size = quad_index(f->in->mnemonic) ? 8 : 4;
	op->elem_count = (uint8_t)min_unsigned(data_bytes / op->elem_size, index_bytes / op->vsib.index_size);
	op->vsib.index = (uint8_t)ZydisRegisterGetId(m->index);
	op->vsib.base = m->base == ZYDIS_REGISTER_NONE ? 0xff : (uint8_t)ZydisRegisterGetId(m->base);
	op->vsib.scale = m->scale;
	op->vsib.seg = (uint8_t)segment_of(f->mem);
	op->vsib.addr_size = f->in->address_width / 8;
	op->vsib.disp = m->disp.has_displacement ? (int32_t)m->disp.value : 0;
	op->run = scatter ? vec_run_scatter : vec_run_gather;
	return (op->elem_size == 4 || op->elem_size == 8) && vsib_valid(op, scatter);
}

static bool
is_vector_mask_move(ZydisMnemonic m)
{
	return m == ZYDIS_MNEMONIC_VMASKMOVPS || m == ZYDIS_MNEMONIC_VMASKMOVPD || m == ZYDIS_MNEMONIC_VPMASKMOVD ||
	       m == ZYDIS_MNEMONIC_VPMASKMOVQ;
}

static bool
is_byte_mask_move(ZydisMnemonic m)
{
	return m == ZYDIS_MNEMONIC_MASKMOVQ || m == ZYDIS_MNEMONIC_MASKMOVDQU || m == ZYDIS_MNEMONIC_VMASKMOVDQU;
}

static bool
describe_memory(struct vec_op *op, const struct form *f)
{
	if (f->mem->mem.type != ZYDIS_MEMOP_TYPE_MEM)
		return false;
	op->mem_read = f->mem->actions & ZYDIS_OPERAND_ACTION_MASK_READ;
	op->mem_write = f->mem->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE;
	if (!op->mem_size || op->mem_size > 64)
		return false;
	set_alignment(op, f);
	set_mask(op, f);
	if (is_vector_mask_move(f->in->mnemonic)) {
		op->mask = VEC_MASK_VECTOR;
		op->mask_reg = (uint8_t)f->vvvv;
		op->elem_size = (uint8_t)(f->mem->element_size / 8);
		op->elem_count = (uint8_t)f->mem->element_count;
	}
	op->run = op->x87 ? vec_run_x87 : op->mask ? vec_run_masked : vec_run_mem;
	return true;
}

/* Source in ModRM.reg, mask in ModRM.rm; the destination [RDI] is the caller's `a`. */
static bool
describe_byte_mask_move(struct vec_op *op, const struct form *f)
{
	op->mem_write = true;
	op->mask = VEC_MASK_BYTES;
	op->mask_reg = (uint8_t)f->rm;
	op->vsib.dst = (uint8_t)f->reg;
	op->elem_size = 1;
	op->elem_count = (uint8_t)op->mem_size;
	op->run = vec_run_maskmov;
	return op->mem_size == 8 || op->mem_size == 16;
}

static bool
describe_fpu(struct vec_op *op, const struct form *f)
{
	op->opsize = f->in->operand_width / 8;
	op->mem_size = op->mnemonic == ZYDIS_MNEMONIC_FXSAVE || op->mnemonic == ZYDIS_MNEMONIC_FXRSTOR ||
				       op->mnemonic == ZYDIS_MNEMONIC_FXSAVE64 ||
				       op->mnemonic == ZYDIS_MNEMONIC_FXRSTOR64
			       ? 512
		       : f->in->meta.isa_ext == ZYDIS_ISA_EXT_X87 ? f->mem->size / 8u
								  : 4;
	op->mem_write = f->mem->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE;
	op->mem_read = !op->mem_write;
	if (f->in->meta.isa_ext == ZYDIS_ISA_EXT_X87 || op->mem_size == 512) {
		op->gate.cr0_nm = CR0_EM | CR0_TS;
	} else if (f->in->meta.isa_set == ZYDIS_ISA_SET_SSEMXCSR) {
		op->gate = (struct vec_gate){ .cr0_ud = CR0_EM, .cr4_need = CR4_OSFXSR, .cr0_nm = CR0_TS };
	} else {
		op->gate = (struct vec_gate){ .cr4_need = CR4_OSXSAVE, .cr0_nm = CR0_TS };
		op->gate.xcr0_need = op->encoding == VEC_LEGACY ? 0 : 6; /* VLDMXCSR */
	}
	op->run = vec_run_fpu;
	return true;
}

static void
describe_x87(struct vec_op *op, const struct form *f)
{
	op->x87 = true;
	op->fop = (uint16_t)((f->in->opcode & 7) << 8 | f->in->raw.modrm.mod << 6 | f->in->raw.modrm.reg << 3 |
			     f->in->raw.modrm.rm);
	switch (op->mnemonic) {
	case ZYDIS_MNEMONIC_FNINIT:
	case ZYDIS_MNEMONIC_FNCLEX:
	case ZYDIS_MNEMONIC_FNSTCW:
	case ZYDIS_MNEMONIC_FNSTSW:
	case ZYDIS_MNEMONIC_FENI8087_NOP:
	case ZYDIS_MNEMONIC_FDISI8087_NOP:
	case ZYDIS_MNEMONIC_FSETPM287_NOP:
		op->x87_nowait = true;
		op->x87_control = true;
		break;
	case ZYDIS_MNEMONIC_FLDCW:
		op->x87_control = true;
		break;
	default:
		break;
	}
}

/* Instructions that need no thunk. 1: described, 0: not one of these, -1: refused. */
static int
describe_simple(struct vec_op *op, const struct form *f)
{
	switch (op->mnemonic) {
	case ZYDIS_MNEMONIC_FWAIT:
		op->gate.cr0_mp = CR0_MP | CR0_TS;
		op->run = vec_run_fwait;
		return 1;
	case ZYDIS_MNEMONIC_EMMS:
		op->gate = (struct vec_gate){ .cr0_ud = CR0_EM, .cr0_nm = CR0_TS };
		op->run = vec_run_emms;
		return 1;
	case ZYDIS_MNEMONIC_VZEROALL:
	case ZYDIS_MNEMONIC_VZEROUPPER:
		op->gate = (struct vec_gate){ .cr4_need = CR4_OSXSAVE, .xcr0_need = 6, .cr0_nm = CR0_TS };
		op->run = vec_run_zero;
		return 1;
	case ZYDIS_MNEMONIC_CLFLUSH:
	case ZYDIS_MNEMONIC_CLFLUSHOPT:
	case ZYDIS_MNEMONIC_CLWB:
	case ZYDIS_MNEMONIC_CLDEMOTE:
		op->mem_size = 1;
		op->mem_read = true;
		op->run = vec_run_touch;
		return 1;
	case ZYDIS_MNEMONIC_MOVDIR64B:
		op->mem_size = 64;
		op->mem_read = true;
		op->vsib.base = (uint8_t)reg_id(&f->operand[0]);
		op->vsib.addr_size = f->in->address_width / 8;
		op->run = vec_run_movdir64b;
		return 1;
	default:
		break;
	}
	if (f->in->meta.category == ZYDIS_CATEGORY_PREFETCH || f->in->meta.isa_set == ZYDIS_ISA_SET_PREFETCH_NOP) {
		op->run = vec_run_nothing;
		return 1;
	}
	if (vec_fpu_handles(op->mnemonic))
		return f->mem && describe_fpu(op, f) ? 1 : -1;
	if (f->in->meta.isa_ext == ZYDIS_ISA_EXT_XSAVE) /* XGETBV, XSETBV */
		return -1;
	return 0;
}

/* LZCNT and TZCNT are BSR and BSF with a prefix that a CPU without them ignores. */
static bool
is_old_bit_scan(const ZydisDecodedInstruction *in)
{
	return in->mnemonic == ZYDIS_MNEMONIC_LZCNT || in->mnemonic == ZYDIS_MNEMONIC_TZCNT;
}

static bool
describe(struct soft_cpu *c, struct vec_op *op, struct form *f, const uint8_t *guest)
{
	bool scan = is_old_bit_scan(f->in) && !offered(c, f->in);
	int simple;

	op->mnemonic = (uint16_t)f->in->mnemonic;
	if (is_x87(f->in))
		describe_x87(op, f);
	if (!operands(op, f))
		return false;
	simple = describe_simple(op, f);
	if (simple) {
		op->x87 = false;
		return simple > 0;
	}
	set_flags(op, f->in);
	op->mmx = f->mmx;
	op->mxcsr = uses_mxcsr(f->in);
	if (f->mem)
		op->mem_size = f->mem->size / 8;
	set_gate(op, f);
	if (f->mem && f->mem->mem.type == ZYDIS_MEMOP_TYPE_VSIB) {
		op->mem_size = 0;
		return describe_vsib(op, f);
	}
	if (is_byte_mask_move(f->in->mnemonic))
		return describe_byte_mask_move(op, f);
	op->run = op->x87 ? vec_run_x87 : vec_run_reg;
	if (f->mem && !describe_memory(op, f))
		return false;
	if (f->in->meta.isa_set >= ZYDIS_ISA_SET_AVX512_VP2INTERSECT_128 &&
		f->in->meta.isa_set <= ZYDIS_ISA_SET_AVX512_VP2INTERSECT_512)
		op->k_out = (uint8_t)(3u << (f->reg & 6)); /* a pair */
	if (!normalise(op, f, guest, c->code_size != 8 && !scan))
		return false;
	if (scan) {
		f->rep = 0;
		op->flags_out = ARITH_FLAGS;
		encode(op, f, guest);
	}
	return true;
}

/* ---- the cache ---- */

#define KEY_START offsetof(struct vec_op, gate)
#define KEY_SIZE (offsetof(struct vec_op, next) - KEY_START)

static uint32_t
hash_op(const struct vec_op *op)
{
	const uint8_t *p = (const uint8_t *)op + KEY_START;
	uint64_t h = (uintptr_t)op->run >> 4;

	for (size_t i = 0; i < KEY_SIZE; i++)
		h = (h ^ p[i]) * 0x100000001b3u;
	return (uint32_t)(h ^ h >> 32);
}

static struct vec_op *
new_op(struct vec_cache *vc)
{
	struct vec_chunk *ch = vc->chunks;

	if (vc->ops >= VEC_OPS_MAX)
		return NULL;
	if (!ch || ch->used == VEC_CHUNK) {
		ch = calloc(1, sizeof(*ch));
		if (!ch)
			return NULL;
		ch->next = vc->chunks;
		vc->chunks = ch;
	}
	vc->ops++;
	return &ch->op[ch->used++];
}

static const struct vec_op *
intern(struct vec_cache *vc, const struct vec_op *key, const struct form *f)
{
	uint32_t hash = hash_op(key);
	struct vec_op **bucket = &vc->bucket[hash % VEC_BUCKETS], *op;

	for (op = *bucket; op; op = op->next)
		if (op->hash == hash && op->run == key->run &&
			!memcmp((const char *)op + KEY_START, (const char *)key + KEY_START, KEY_SIZE))
			return op;
	op = new_op(vc);
	if (!op)
		return NULL;
	memcpy(op, key, sizeof(*op));
	op->hash = hash;
	op->next = *bucket;
	*bucket = op;
	return op;
}

static void
drop_ops(struct vec_cache *vc)
{
	struct vec_chunk *next;

	for (struct vec_chunk *ch = vc->chunks; ch; ch = next) {
		next = ch->next;
		free(ch);
	}
	vc->chunks = NULL;
	vc->ops = 0;
	memset(vc->bucket, 0, sizeof(vc->bucket));
}

static void
find_components(struct vec_cache *vc, const struct cpu_model *m)
{
	const struct cpuid_leaf *l;

	for (unsigned i = 2; i < 8; i++) {
		l = find_leaf(m, 13, i);
		if (l && l->eax && l->eax <= 1024)
			vc->component[i] = (struct vec_component){ l->ebx, l->eax, l->ecx & 2 };
	}
	vc->compaction = has_feature(m, F(W_DA, 1));
}

void
vec_open(struct soft_cpu *c)
{
	struct vec_cache *vc;

	if (c->vec)
		return;
	vc = aligned_alloc(64, (sizeof(*vc) + 63) & ~(size_t)63);
	if (!vc)
		abort(); /* out of memory */
	memset(vc, 0, sizeof(*vc));
	vec_host_detect(&vc->host);
	vec_signals_install();
	find_components(vc, &c->v.cpus->model);
	c->vec = vc;
}

void
vec_close(struct soft_cpu *c)
{
	if (!c->vec)
		return;
	drop_ops(c->vec);
	vec_arena_close(c->vec);
	free(c->vec);
	c->vec = NULL;
}

bool
vec_full(struct soft_cpu *c)
{
	return c->vec && c->vec->ops > VEC_OPS_MAX / 2;
}

void
vec_flush(struct soft_cpu *c)
{
	if (!c->vec)
		return;
	drop_ops(c->vec);
	c->vec->used = VEC_ARENA_SIZE; /* starts over with the next thunk */
}

/* ---- the interface ---- */

const struct vec_op *
vec_compile(struct soft_cpu *c, const uint8_t *bytes, unsigned len, const void *zydis_insn, const void *zydis_operands)
{
	const ZydisDecodedInstruction *in = zydis_insn;
	struct form f = { .in = in, .operand = zydis_operands, .reg = -1, .rm = -1, .vvvv = -1, .is4 = -1 };
	struct vec_op op;

	memset(&op, 0, sizeof(op));
	switch (in->encoding) {
	case ZYDIS_INSTRUCTION_ENCODING_LEGACY:
		op.encoding = VEC_LEGACY;
		break;
	case ZYDIS_INSTRUCTION_ENCODING_VEX:
		op.encoding = VEC_VEX;
		break;
	case ZYDIS_INSTRUCTION_ENCODING_EVEX:
		op.encoding = VEC_EVEX;
		break;
	default:
		return NULL;
	}
	if (in->attributes & ZYDIS_ATTRIB_HAS_LOCK)
		return NULL;
	if (op.encoding != VEC_LEGACY && (c->mode == X86_REAL || c->mode == X86_VM86))
		return NULL;
	if (!offered(c, in) && !is_old_bit_scan(in))
		return NULL;
	vec_open(c);
	vec_signals_thread(c->vec);
	if (!describe(c, &op, &f, bytes))
		return NULL;
	return intern(c->vec, &op, &f);
}

static void
check_gate(struct soft_cpu *c, const struct vec_gate *g)
{
	const struct x86_state *s = &c->v.state;

	if (s->cr0 & g->cr0_ud || ~s->cr4 & g->cr4_need || ~s->xcr0 & g->xcr0_need)
		x86_ud(c);
	if (s->cr0 & g->cr0_nm || (g->cr0_mp && (s->cr0 & g->cr0_mp) == g->cr0_mp))
		x86_raise(c, EXC_NM);
}

void
vec_run(struct soft_cpu *c, const struct vec_op *op, gva_t a, uint64_t seg_base)
{
	const struct x86_state *s = &c->v.state;
	const struct vec_gate *g = &op->gate;

	if ((s->cr0 & (g->cr0_ud | g->cr0_nm | g->cr0_mp)) | (~s->cr4 & g->cr4_need) | (~s->xcr0 & g->xcr0_need))
		check_gate(c, g);
	op->run(c, (struct vec_op *)op, a, seg_base);
}

unsigned
vec_mem_size(const struct vec_op *op)
{
	return op->mem_size;
}

bool
vec_mem_write(const struct vec_op *op)
{
	return op->mem_write;
}

bool
vec_uses_flags(const struct vec_op *op)
{
	return op->uses_flags;
}
