/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One guest instruction again, for the host: the same opcode, immediates and meaningful prefixes, other registers, and
 * [base + disp] as its memory operand. Prefixes that chose segments or address sizes are gone: the address is linear.
 */
#include <Zydis/Zydis.h>

#include "cpu/jit/emit.h"

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
	return in->raw.imm[0].size ? in->raw.imm[0].offset : in->length;
}

static bool
is_moffs(const ZydisDecodedInstruction *in)
{
	return in->encoding == ZYDIS_INSTRUCTION_ENCODING_LEGACY && in->opcode_map == ZYDIS_OPCODE_MAP_DEFAULT &&
	       in->opcode >= 0xa0 && in->opcode <= 0xa3;
}

/* INC and DEC in one byte are REX prefixes in 64-bit code. */
static bool
is_short_inc(const ZydisDecodedInstruction *in)
{
	return in->encoding == ZYDIS_INSTRUCTION_ENCODING_LEGACY && in->opcode_map == ZYDIS_OPCODE_MAP_DEFAULT &&
	       in->opcode >= 0x40 && in->opcode <= 0x4f;
}

/* 82 is another 80, but not in 64-bit code. */
static bool
is_old_group(const ZydisDecodedInstruction *in)
{
	return in->encoding == ZYDIS_INSTRUCTION_ENCODING_LEGACY && in->opcode_map == ZYDIS_OPCODE_MAP_DEFAULT &&
	       in->opcode == 0x82;
}

static unsigned
bit(unsigned reg, unsigned which)
{
	return reg != H_NONE && reg & which ? 1 : 0;
}

static void
put_legacy(struct emit *e, const ZydisDecodedInstruction *in, const struct jit_form *f)
{
	bool w = in->attributes & ZYDIS_ATTRIB_HAS_REX && in->raw.rex.W;
	unsigned rex = (w ? 8u : 0) | bit(f->reg, 8) << 2 | bit(f->index, 8) << 1 | bit(f->base, 8) | bit(f->rm, 8) |
		       bit(f->opreg, 8);

	for (unsigned i = 0; i < in->raw.prefix_count; i++) {
		uint8_t p = in->raw.prefixes[i].value;
		ZydisPrefixType type = in->raw.prefixes[i].type;

		if (p == 0xf0 || (p == 0x66 && type != ZYDIS_PREFIX_TYPE_IGNORED) ||
			((p == 0xf2 || p == 0xf3) && type == ZYDIS_PREFIX_TYPE_MANDATORY))
			e8(e, p);
	}
	if (rex || f->force_rex)
		e8(e, 0x40 | rex);
	if (in->opcode_map != ZYDIS_OPCODE_MAP_DEFAULT)
		e8(e, 0x0f);
	if (in->opcode_map == ZYDIS_OPCODE_MAP_0F38)
		e8(e, 0x38);
	if (in->opcode_map == ZYDIS_OPCODE_MAP_0F3A)
		e8(e, 0x3a);
}

static unsigned
vvvv_of(const struct jit_form *f)
{
	return f->vvvv == H_NONE ? 15 : ~(unsigned)f->vvvv & 15;
}

static void
put_vex(struct emit *e, const ZydisDecodedInstruction *in, const struct jit_form *f)
{
	const ZydisDecodedInstructionRawVex *v = &in->raw.vex;

	e8(e, 0xc4);
	e8(e, (bit(f->reg, 8) ? 0 : 0x80u) | (bit(f->index, 8) ? 0 : 0x40u) |
			(bit(f->base, 8) | bit(f->rm, 8) ? 0 : 0x20u) | v->m_mmmm);
	e8(e, (v->W && !f->narrow ? 0x80u : 0) | vvvv_of(f) << 3 | (unsigned)v->L << 2 | v->pp);
}

static void
put_evex(struct emit *e, const ZydisDecodedInstruction *in, const struct jit_form *f)
{
	const ZydisDecodedInstructionRawEvex *v = &in->raw.evex;

	e8(e, 0x62);
	e8(e, (bit(f->reg, 8) ? 0 : 0x80u) | (bit(f->rm, 16) || bit(f->index, 8) ? 0 : 0x40u) |
			(bit(f->base, 8) | bit(f->rm, 8) ? 0 : 0x20u) | (bit(f->reg, 16) ? 0 : 0x10u) | v->mmm);
	e8(e, (v->W ? 0x80u : 0) | vvvv_of(f) << 3 | 4 | v->pp);
	e8(e, (unsigned)v->z << 7 | (unsigned)v->L2 << 6 | (unsigned)v->L << 5 | (unsigned)v->b << 4 |
			(bit(f->vvvv, 16) ? 0 : 8u) | v->aaa);
}

static void
put_modrm(struct emit *e, unsigned reg, const struct jit_form *f, unsigned rm)
{
	if (f->base == H_NONE) {
		e8(e, 0xc0 | (reg & 7) << 3 | (rm & 7));
	} else if (f->index && f->evex && f->disp) {
		e8(e, 0x84 | (reg & 7) << 3);
		e8(e, (f->index & 7u) << 3 | (f->base & 7));
		e32(e, (uint32_t)f->disp);
	} else if (f->index) {
		e_modrm(e, reg, f->base, f->index, 0, f->disp);
	} else if (f->evex && f->disp) { /* a displacement of one byte would be scaled */
		e8(e, 0x80 | (reg & 7) << 3 | (f->base & 7));
		e32(e, (uint32_t)f->disp);
	} else {
		e_modrm(e, reg, f->base, H_NONE, 0, f->disp);
	}
}

void
jit_encode(struct emit *e, const void *zydis_insn, const uint8_t *guest, const struct jit_form *f)
{
	const ZydisDecodedInstruction *in = zydis_insn;
	struct jit_form g = *f;
	unsigned from = immediate_offset(in);

	g.evex = in->encoding == ZYDIS_INSTRUCTION_ENCODING_EVEX;
	if (is_short_inc(in))
		g.rm = g.opreg;
	if (in->encoding == ZYDIS_INSTRUCTION_ENCODING_LEGACY)
		put_legacy(e, in, &g);
	else if (in->encoding == ZYDIS_INSTRUCTION_ENCODING_VEX)
		put_vex(e, in, &g);
	else
		put_evex(e, in, &g);
	if (is_moffs(in)) {
		static const uint8_t other[4] = { 0x8a, 0x8b, 0x88, 0x89 };

		e8(e, other[in->opcode & 3]);
		put_modrm(e, H_AX, &g, 0);
		return;
	}
	if (is_short_inc(in)) {
		e8(e, 0xff);
		put_modrm(e, in->opcode >> 3 & 1, &g, g.rm);
		return;
	}
	if (g.opreg != H_NONE)
		e8(e, (in->opcode & 0xf8u) | (g.opreg & 7));
	else
		e8(e, is_old_group(in) ? 0x80 : in->opcode);
	if (in->attributes & ZYDIS_ATTRIB_HAS_MODRM)
		put_modrm(e, g.reg == H_NONE ? in->raw.modrm.reg : g.reg, &g, g.rm == H_NONE ? in->raw.modrm.rm : g.rm);
	e_put(e, guest + from, in->length - from);
}
