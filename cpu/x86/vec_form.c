/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The normal form of an instruction: the same operation in the host's 64-bit code, with vector, mask and MMX registers
 * under their own numbers, general registers renamed to those a thunk may use, the memory operand as [RSI], and
 * prefixes and bits that mean nothing left out. Outside 64-bit mode the result is decoded again and compared, since a
 * bit that was ignored there may count in 64-bit code.
 */
#include <string.h>

#include "cpu/x86/vec.h"

#define HOST_RSI 6

/* ---- operands ---- */

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
place(struct vec_form *f, ZydisOperandEncoding encoding, int host, bool implicit_ok)
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
gpr_operand(struct vec_op *op, struct vec_form *f, const ZydisDecodedOperand *o)
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
reg_operand(struct vec_op *op, struct vec_form *f, const ZydisDecodedOperand *o)
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

bool
vec_form_operands(struct vec_op *op, struct vec_form *f)
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
put_legacy(struct bytes *b, const struct vec_form *f)
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
put_vex(struct bytes *b, const struct vec_form *f)
{
	const ZydisDecodedInstructionRawVex *v = &f->in->raw.vex;
	unsigned vvvv = f->vvvv == NO_REG ? 15 : ~(unsigned)f->vvvv & 15;

	put(b, 0xc4);
	put(b, inverted(f->reg, 8, 0x80) | 0x40 | (f->mem ? 0x20 : inverted(f->rm, 8, 0x20)) | v->m_mmmm);
	put(b, (f->w ? 0x80u : 0) | vvvv << 3 | (unsigned)v->L << 2 | v->pp);
}

static void
put_evex(struct bytes *b, const struct vec_form *f)
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
put_modrm(struct bytes *b, const struct vec_form *f)
{
	unsigned reg = f->reg == NO_REG ? f->in->raw.modrm.reg : (unsigned)f->reg & 7;
	unsigned rm = f->rm == NO_REG ? f->in->raw.modrm.rm : (unsigned)f->rm & 7;

	if (f->mem)
		put(b, reg << 3 | HOST_RSI);
	else
		put(b, 0xc0 | reg << 3 | rm);
}

void
vec_form_encode(struct vec_op *op, const struct vec_form *f, const uint8_t *guest)
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

static ZydisRegister
whole(ZydisRegister r)
{
	ZydisRegister w = ZydisRegisterGetLargestEnclosing(ZYDIS_MACHINE_MODE_LONG_64, r);

	return w == ZYDIS_REGISTER_NONE ? r : w;
}

static bool
same_operand(const ZydisDecodedOperand *a, const ZydisDecodedOperand *b)
{
	if (a->visibility == ZYDIS_OPERAND_VISIBILITY_HIDDEN)
		return a->type != ZYDIS_OPERAND_TYPE_REGISTER || whole(a->reg.value) == whole(b->reg.value) ||
		       ZydisRegisterGetClass(a->reg.value) == ZYDIS_REGCLASS_FLAGS;
	return a->type == b->type && a->size == b->size && a->actions == b->actions;
}

/* Does the host's 64-bit code mean the same by the normal form? */
static bool
same_meaning(const struct vec_op *op, const struct vec_form *f)
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
prefixes(struct vec_op *op, struct vec_form *f)
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

bool
vec_form_normalise(struct vec_op *op, struct vec_form *f, const uint8_t *guest, bool check)
{
	prefixes(op, f);
	if (check && (op->mnemonic == ZYDIS_MNEMONIC_VPCMPESTRI || op->mnemonic == ZYDIS_MNEMONIC_VPCMPESTRM))
		f->w = false; /* lengths in EAX and EDX; the decoder shows RAX and RDX also in 32-bit code */
	vec_form_encode(op, f, guest);
	if (!check || same_meaning(op, f))
		return true;
	if (!f->w)
		return false;
	f->w = false; /* ignored outside 64-bit mode by instructions with a general register or its memory form */
	vec_form_encode(op, f, guest);
	return same_meaning(op, f);
}
