/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What an instruction needs besides its bytes: alignment, flags, MXCSR, the control bits that gate it, how a mask
 * belongs to its memory operand, and which function of vec_mem.c or fpu.c runs it (SDM 2 tables 2-18 to 2-63).
 */
#include <string.h>

#include "cpu/x86/vec.h"

#define ARITH_FLAGS (FLAG_CF | FLAG_PF | FLAG_AF | FLAG_ZF | FLAG_SF | FLAG_OF)

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
set_alignment(struct vec_op *op, const struct vec_form *f)
{
	bool aligned = op->encoding == VEC_LEGACY ? op->mem_size == 16 && !unaligned_allowed(f->in->mnemonic)
						  : alignment_required(f->in->mnemonic);

	if (aligned)
		op->align_mask = (uint8_t)(op->mem_size - 1);
}

/* SDM 3A table 2-2 and chapters 13 of volumes 1 and 3 */
static void
set_gate(struct vec_op *op, const struct vec_form *f)
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
mask_elements(const struct vec_form *f)
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
set_mask(struct vec_op *op, const struct vec_form *f)
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
vsib_registers(struct vec_op *op, const struct vec_form *f)
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
describe_vsib(struct vec_op *op, const struct vec_form *f)
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
describe_memory(struct vec_op *op, const struct vec_form *f)
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
describe_byte_mask_move(struct vec_op *op, const struct vec_form *f)
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
describe_fpu(struct vec_op *op, const struct vec_form *f)
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
describe_x87(struct vec_op *op, const struct vec_form *f)
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
describe_simple(struct vec_op *op, const struct vec_form *f)
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
bool
vec_is_bit_scan(const ZydisDecodedInstruction *in)
{
	return in->mnemonic == ZYDIS_MNEMONIC_LZCNT || in->mnemonic == ZYDIS_MNEMONIC_TZCNT;
}

bool
vec_describe(struct soft_cpu *c, struct vec_op *op, struct vec_form *f, const uint8_t *guest)
{
	bool scan = vec_is_bit_scan(f->in) && !vec_offered(c, f->in);
	int simple;

	op->mnemonic = (uint16_t)f->in->mnemonic;
	if (vec_is_x87(f->in))
		describe_x87(op, f);
	if (!vec_form_operands(op, f))
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
	if (!vec_form_normalise(op, f, guest, c->code_size != 8 && !scan))
		return false;
	if (scan) {
		f->rep = 0;
		op->flags_out = ARITH_FLAGS;
		vec_form_encode(op, f, guest);
	}
	return true;
}
