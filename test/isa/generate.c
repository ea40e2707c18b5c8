/* SPDX-License-Identifier: Apache-2.0 */
/* See generate.h. */
#include "test/isa/generate.h"
#include "base/bytes.h"

#include <string.h>

#include "base/str.h"
#include "cpu/x86/decode.h"

#define ARITH_FLAGS (FLAG_CF | FLAG_PF | FLAG_AF | FLAG_ZF | FLAG_SF | FLAG_OF)

struct insn {
	ZydisDecodedInstruction in;
	ZydisDecodedOperand o[ZYDIS_MAX_OPERAND_COUNT];
	uint8_t bytes[16];
};

/* ---- small things ---- */

static uint64_t
rnd(struct program *p)
{
	return isa_random(&p->seed);
}

static unsigned
pick(struct program *p, unsigned n)
{
	return (unsigned)((rnd(p) >> 20) % n);
}

static bool
chance(struct program *p, unsigned in_1000)
{
	return pick(p, 1000) < in_1000;
}

static void
put(struct program *p, unsigned byte)
{
	if (p->len < PROGRAM_BYTES)
		p->code[p->len++] = (uint8_t)byte;
}

static void
put_imm(struct program *p, uint64_t v, unsigned size)
{
	for (unsigned i = 0; i < size; i++)
		put(p, (unsigned)(v >> (8 * i)) & 0xff);
}

static void
put_bytes(struct program *p, const char *bytes, unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		put(p, (uint8_t)bytes[i]);
}
#define PUT(p, text) put_bytes(p, text, sizeof(text) - 1)

static uint32_t
here(const struct program *p)
{
	return p->at + p->len;
}

static bool
decode(const struct program *p, const uint8_t *bytes, unsigned len, struct insn *i)
{
	ZydisMachineMode mode = ZYDIS_MACHINE_MODE_LONG_64;
	ZydisStackWidth width = ZYDIS_STACK_WIDTH_64;
	ZydisDecoder d;

	if (p->bits == 32) {
		mode = ZYDIS_MACHINE_MODE_LONG_COMPAT_32;
		width = ZYDIS_STACK_WIDTH_32;
	} else if (p->bits == 16) {
		mode = p->mode == ISA_REAL || p->mode == ISA_VM86 ? ZYDIS_MACHINE_MODE_REAL_16
								  : ZYDIS_MACHINE_MODE_LONG_COMPAT_16;
		width = ZYDIS_STACK_WIDTH_16;
	}
	ZydisDecoderInit(&d, mode, width);
	return ZYAN_SUCCESS(x86_decode(&d, bytes, len, &i->in, i->o));
}

/* The number of a general register, -1: none. */
static int
gpr_of(ZydisRegister r)
{
	switch (ZydisRegisterGetClass(r)) {
	case ZYDIS_REGCLASS_GPR8:
	case ZYDIS_REGCLASS_GPR16:
	case ZYDIS_REGCLASS_GPR32:
	case ZYDIS_REGCLASS_GPR64:
		r = ZydisRegisterGetLargestEnclosing(ZYDIS_MACHINE_MODE_LONG_64, r);
		return ZydisRegisterGetId(r);
	default:
		return -1;
	}
}

/* Load a general register without touching flags. */
static void
set_reg(struct program *p, unsigned r, uint64_t v)
{
	if (p->bits == 64) {
		bool wide = v > UINT32_MAX;

		if (wide || r & 8)
			put(p, 0x40 | (wide ? 8 : 0) | r >> 3);
		put(p, 0xb8 | (r & 7));
		put_imm(p, v, wide ? 8 : 4);
	} else {
		if (p->bits == 16)
			put(p, 0x66);
		put(p, 0xb8 | (r & 7));
		put_imm(p, v, 4);
	}
	p->known[r] = false;
}

/* ---- where accesses go ---- */

static uint64_t
in_data(struct program *p, unsigned size)
{
	uint64_t a = ISA_DATA + 256 + pick(p, ISA_DATA_SIZE - 768);

	if (size > 256)
		size = 256;
	if (size > 1 && !(size & (size - 1)) && chance(p, size >= 16 ? 950 : 700))
		a &= ~(uint64_t)(size - 1);
	return a;
}

static uint64_t
target(struct program *p, unsigned size)
{
	unsigned back = size > 1 ? 1 + pick(p, size - 1) : 0, r = pick(p, 1000);

	if (r < 60)
		return ISA_DATA + PAGE_SIZE - back;
	if (r < 68)
		return ISA_READ_ONLY - back;
	if (r < 76)
		return ISA_READ_ONLY + (pick(p, 4000) & ~15u);
	if (r < 80)
		return ISA_READ_ONLY + PAGE_SIZE - back;
	if (r < 84)
		return ISA_DATA - back;
	if (r < 90 && !p->bare) /* on the bare CPU changed code could become anything, a system call too */
		return p->at + pick(p, 4000);
	if (r < 94)
		return ISA_STACK + pick(p, ISA_STACK_SIZE);
	if (r < 96)
		return rnd(p);
	if (r < 120 && !p->bare)
		return ISA_REGISTERS + 64 * pick(p, 63); /* engines split misaligned ones as they like */
	return in_data(p, size);
}

static bool
harmless(uint64_t a, unsigned size)
{
	return a >= ISA_DATA && a + size <= ISA_READ_ONLY;
}

/* ---- random encodings ---- */

static unsigned
random_modrm(struct program *p, uint8_t *b)
{
	unsigned n = 0, mod = chance(p, 450) ? 3 : pick(p, 3), rm = pick(p, 8);

	for (unsigned tries = 0; mod != 3 && p->bits != 16 && tries < 3 && !p->known[rm]; tries++)
		rm = pick(p, 8);
	b[n++] = (uint8_t)(mod << 6 | pick(p, 8) << 3 | rm);
	for (unsigned i = 0; i < 9; i++)
		b[n++] = (uint8_t)(rnd(p) >> 24);
	return n;
}

static unsigned
legacy_prefixes(struct program *p, uint8_t *b, unsigned mandatory)
{
	static const uint8_t segments[] = { 0x26, 0x2e, 0x36, 0x3e, 0x65, 0x64 };
	unsigned n = 0;

	if (chance(p, 40))
		b[n++] = segments[pick(p, 6)];
	if (chance(p, p->bits == 64 ? 25 : 60))
		b[n++] = 0x67;
	if (chance(p, 40))
		b[n++] = 0xf0;
	if (mandatory && chance(p, mandatory))
		b[n++] = (uint8_t)(chance(p, 333) ? 0xf2 : 0xf3);
	if (chance(p, mandatory ? 300 : 150))
		b[n++] = 0x66;
	if (p->bits == 64 && chance(p, 550))
		b[n++] = (uint8_t)(0x40 | pick(p, 16));
	return n;
}

static unsigned
random_one_byte(struct program *p, uint8_t *b)
{
	unsigned n = legacy_prefixes(p, b, chance(p, 50) ? 1000 : 0);

	b[n++] = (uint8_t)(rnd(p) >> 24);
	return n + random_modrm(p, b + n);
}

static unsigned
random_two_byte(struct program *p, uint8_t *b)
{
	unsigned n = legacy_prefixes(p, b, 350), map = pick(p, 8);

	b[n++] = 0x0f;
	if (map < 3)
		b[n++] = map == 0 ? 0x3a : 0x38;
	b[n++] = (uint8_t)(rnd(p) >> 24);
	return n + random_modrm(p, b + n);
}

static unsigned
random_vex(struct program *p, uint8_t *b)
{
	b[0] = 0xc4;
	b[1] = (uint8_t)((rnd(p) >> 24 & 0xe0) | (1 + pick(p, 3)));
	b[2] = (uint8_t)(rnd(p) >> 24);
	if (p->bits != 64)
		b[1] |= 0xc0;
	if (chance(p, 300))
		b[2] |= 0x78;
	if (chance(p, 150)) { /* BMI */
		b[1] = (uint8_t)((b[1] & 0xe0) | 2);
		b[2] &= (uint8_t)~4;
		b[3] = (uint8_t)(0xf2 + pick(p, 6));
	} else {
		b[3] = (uint8_t)(rnd(p) >> 24);
	}
	return 4 + random_modrm(p, b + 4);
}

static unsigned
random_evex(struct program *p, uint8_t *b)
{
	static const uint8_t maps[] = { 1, 1, 2, 2, 2, 3, 5, 6 };

	b[0] = 0x62;
	b[1] = (uint8_t)((rnd(p) >> 24 & 0xf0) | maps[pick(p, 8)]);
	if (p->bits != 64)
		b[1] |= 0xc0;
	b[2] = (uint8_t)(rnd(p) >> 24 | 4);
	if (chance(p, 400))
		b[2] |= 0x78;
	b[3] = (uint8_t)(rnd(p) >> 24);
	if (chance(p, 500))
		b[3] |= 8;
	if (chance(p, 400))
		b[3] &= 0xf8;
	b[4] = (uint8_t)(rnd(p) >> 24);
	return 5 + random_modrm(p, b + 5);
}

static unsigned
random_x87(struct program *p, uint8_t *b)
{
	unsigned n = legacy_prefixes(p, b, 0);

	b[n++] = (uint8_t)(0xd8 + pick(p, 8));
	return n + random_modrm(p, b + n);
}

static void
random_encoding(struct program *p, uint8_t *b)
{
	unsigned r = pick(p, 100);

	if (r < 45)
		random_one_byte(p, b);
	else if (r < 70)
		random_two_byte(p, b);
	else if (r < 80)
		random_vex(p, b);
	else if (r < 92)
		random_evex(p, b);
	else
		random_x87(p, b);
}

/* ---- which of them may be used ---- */

/* Sets that a host may have and a guest is not offered, or that ask for something beyond the CPU. */
static bool
foreign(ZydisISASet set)
{
	switch (set) {
	case ZYDIS_ISA_SET_AMD3DNOW:
	case ZYDIS_ISA_SET_AMD:
	case ZYDIS_ISA_SET_AMD_INVLPGB:
	case ZYDIS_ISA_SET_AMX_BF16:
	case ZYDIS_ISA_SET_AMX_INT8:
	case ZYDIS_ISA_SET_AMX_TILE:
	case ZYDIS_ISA_SET_CET:
	case ZYDIS_ISA_SET_CLDEMOTE:
	case ZYDIS_ISA_SET_CLZERO:
	case ZYDIS_ISA_SET_ENQCMD:
	case ZYDIS_ISA_SET_FMA4:
	case ZYDIS_ISA_SET_HRESET:
	case ZYDIS_ISA_SET_KEYLOCKER:
	case ZYDIS_ISA_SET_KEYLOCKER_WIDE:
	case ZYDIS_ISA_SET_LWP:
	case ZYDIS_ISA_SET_MCOMMIT:
	case ZYDIS_ISA_SET_MONITOR:
	case ZYDIS_ISA_SET_MONITORX:
	case ZYDIS_ISA_SET_MPX:
	case ZYDIS_ISA_SET_PADLOCK_ACE:
	case ZYDIS_ISA_SET_PADLOCK_PHE:
	case ZYDIS_ISA_SET_PADLOCK_PMM:
	case ZYDIS_ISA_SET_PADLOCK_RNG:
	case ZYDIS_ISA_SET_PCONFIG:
	case ZYDIS_ISA_SET_PKU:
	case ZYDIS_ISA_SET_PREFETCHWT1:
	case ZYDIS_ISA_SET_PT:
	case ZYDIS_ISA_SET_RDPID:
	case ZYDIS_ISA_SET_RDPMC:
	case ZYDIS_ISA_SET_RDPRU:
	case ZYDIS_ISA_SET_RDRAND:
	case ZYDIS_ISA_SET_RDSEED:
	case ZYDIS_ISA_SET_RDTSCP:
	case ZYDIS_ISA_SET_RDWRFSGS:
	case ZYDIS_ISA_SET_RTM:
	case ZYDIS_ISA_SET_SERIALIZE:
	case ZYDIS_ISA_SET_SGX:
	case ZYDIS_ISA_SET_SGX_ENCLV:
	case ZYDIS_ISA_SET_SMX:
	case ZYDIS_ISA_SET_SNP:
	case ZYDIS_ISA_SET_SSE4A:
	case ZYDIS_ISA_SET_SVM:
	case ZYDIS_ISA_SET_TBM:
	case ZYDIS_ISA_SET_TDX:
	case ZYDIS_ISA_SET_TSX_LDTRK:
	case ZYDIS_ISA_SET_UINTR:
	case ZYDIS_ISA_SET_VMFUNC:
	case ZYDIS_ISA_SET_VTX:
	case ZYDIS_ISA_SET_WAITPKG:
	case ZYDIS_ISA_SET_XOP:
	case ZYDIS_ISA_SET_AVX512_VP2INTERSECT_128:
	case ZYDIS_ISA_SET_AVX512_VP2INTERSECT_256:
	case ZYDIS_ISA_SET_AVX512_VP2INTERSECT_512:
		return true;
	default:
		return set >= ZYDIS_ISA_SET_KNCE && set <= ZYDIS_ISA_SET_KNC_PF_HINT;
	}
}

/* Instructions that say what the system is like, or change it: not the host's. */
static bool
systems_own(const ZydisDecodedInstruction *in)
{
	switch (in->mnemonic) {
	case ZYDIS_MNEMONIC_CPUID:
	case ZYDIS_MNEMONIC_SGDT:
	case ZYDIS_MNEMONIC_SIDT:
	case ZYDIS_MNEMONIC_SLDT:
	case ZYDIS_MNEMONIC_SMSW:
	case ZYDIS_MNEMONIC_STR:
	case ZYDIS_MNEMONIC_LAR:
	case ZYDIS_MNEMONIC_LSL:
	case ZYDIS_MNEMONIC_VERR:
	case ZYDIS_MNEMONIC_VERW:
	case ZYDIS_MNEMONIC_XGETBV:
	case ZYDIS_MNEMONIC_ARPL:
	case ZYDIS_MNEMONIC_LDS:
	case ZYDIS_MNEMONIC_LES:
	case ZYDIS_MNEMONIC_LFS:
	case ZYDIS_MNEMONIC_LGS:
	case ZYDIS_MNEMONIC_LSS:
	/* the environment holds addresses of instructions; XINUSE is nobody's promise */
	case ZYDIS_MNEMONIC_FNSTENV:
	case ZYDIS_MNEMONIC_FLDENV:
	case ZYDIS_MNEMONIC_FNSAVE:
	case ZYDIS_MNEMONIC_FRSTOR:
	case ZYDIS_MNEMONIC_FXSAVE:
	case ZYDIS_MNEMONIC_FXSAVE64:
	case ZYDIS_MNEMONIC_FXRSTOR:
	case ZYDIS_MNEMONIC_FXRSTOR64:
		return true;
	default:
		return in->meta.isa_set == ZYDIS_ISA_SET_XSAVE || in->meta.isa_set == ZYDIS_ISA_SET_XSAVEC ||
		       in->meta.isa_set == ZYDIS_ISA_SET_XSAVEOPT || in->meta.isa_set == ZYDIS_ISA_SET_XSAVES;
	}
}

/* Not the same twice, or made by pieces of their own. */
static bool
left_out(const ZydisDecodedInstruction *in)
{
	switch (in->mnemonic) {
	case ZYDIS_MNEMONIC_RDTSC:
	case ZYDIS_MNEMONIC_RDTSCP:
	case ZYDIS_MNEMONIC_RDRAND:
	case ZYDIS_MNEMONIC_RDSEED:
	case ZYDIS_MNEMONIC_RDMSR: /* time stamps */
	case ZYDIS_MNEMONIC_RDPMC:
	case ZYDIS_MNEMONIC_WRMSR:
	case ZYDIS_MNEMONIC_POPF:
	case ZYDIS_MNEMONIC_POPFD:
	case ZYDIS_MNEMONIC_POPFQ:
	case ZYDIS_MNEMONIC_ENTER:
	case ZYDIS_MNEMONIC_LEAVE:
		return true;
	default:
		break;
	}
	switch (in->meta.category) {
	case ZYDIS_CATEGORY_COND_BR:
	case ZYDIS_CATEGORY_UNCOND_BR:
	case ZYDIS_CATEGORY_CALL:
	case ZYDIS_CATEGORY_RET:
	case ZYDIS_CATEGORY_SYSCALL:
	case ZYDIS_CATEGORY_SYSRET:
	case ZYDIS_CATEGORY_STRINGOP:
		return true;
	default:
		return false;
	}
}

static bool
is_x87(const ZydisDecodedInstruction *in)
{
	return in->encoding == ZYDIS_INSTRUCTION_ENCODING_LEGACY && in->opcode_map == ZYDIS_OPCODE_MAP_DEFAULT &&
	       in->opcode >= 0xd8 && in->opcode <= 0xdf;
}

static bool
operands_allowed(const struct program *p, const struct insn *i)
{
	for (unsigned k = 0; k < i->in.operand_count; k++) {
		const ZydisDecodedOperand *o = &i->o[k];
		bool writes = o->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE;
		int r;

		/* where an x87 store with an unmasked exception does not store, it does not look at the address */
		if (o->type == ZYDIS_OPERAND_TYPE_MEMORY && writes && is_x87(&i->in) && p->bits != 64 &&
			o->mem.segment == ZYDIS_REGISTER_CS)
			return false;
		if (o->type == ZYDIS_OPERAND_TYPE_MEMORY && p->bare && o->mem.type != ZYDIS_MEMOP_TYPE_AGEN &&
			(o->mem.segment == ZYDIS_REGISTER_FS || (o->mem.segment == ZYDIS_REGISTER_GS && p->bits != 64)))
			return false;
		if (o->type != ZYDIS_OPERAND_TYPE_REGISTER)
			continue;
		if (p->bare && ZydisRegisterGetClass(o->reg.value) == ZYDIS_REGCLASS_SEGMENT)
			return false;
		r = gpr_of(o->reg.value);
		if (r < 0 || !writes)
			continue;
		/* AH to BH: ids 4-7 of the byte class mean the registers below */
		if (r == RSP && o->visibility != ZYDIS_OPERAND_VISIBILITY_HIDDEN && !p->wild)
			return false;
		if (p->reserved[r])
			return false;
	}
	return true;
}

static bool
allowed(struct program *p, const struct insn *i)
{
	const ZydisDecodedInstruction *in = &i->in;

	if (left_out(in) || !operands_allowed(p, i))
		return false;
	if (p->bare && (foreign(in->meta.isa_set) || systems_own(in)))
		return false;
	if (in->meta.category == ZYDIS_CATEGORY_INTERRUPT) {
		if (in->mnemonic == ZYDIS_MNEMONIC_INT && p->bare && i->bytes[in->length - 1] == 0x80)
			return false;
		return in->mnemonic != ZYDIS_MNEMONIC_IRET && in->mnemonic != ZYDIS_MNEMONIC_IRETD &&
		       in->mnemonic != ZYDIS_MNEMONIC_IRETQ && chance(p, 20);
	}
	if (in->attributes & ZYDIS_ATTRIB_IS_PRIVILEGED || in->mnemonic == ZYDIS_MNEMONIC_HLT ||
		in->meta.category == ZYDIS_CATEGORY_IO || in->mnemonic == ZYDIS_MNEMONIC_CLI ||
		in->mnemonic == ZYDIS_MNEMONIC_STI)
		return chance(p, p->bare ? 20 : 100);
	if (in->mnemonic == ZYDIS_MNEMONIC_UD0 || in->mnemonic == ZYDIS_MNEMONIC_UD1 ||
		in->mnemonic == ZYDIS_MNEMONIC_UD2 || in->mnemonic == ZYDIS_MNEMONIC_BOUND)
		return chance(p, 20);
	if (p->balanced && (in->meta.category == ZYDIS_CATEGORY_PUSH || in->meta.category == ZYDIS_CATEGORY_POP))
		return false;
	if (p->bits == 32 && in->address_width == 16)
		return chance(p, 30);
	return true;
}

/* ---- aiming ---- */

static enum seg_name
segment_of(ZydisRegister r)
{
	switch (r) {
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

static uint64_t
width_mask(unsigned width)
{
	return width == 64 ? UINT64_MAX : width == 32 ? UINT32_MAX : 0xffff;
}

/* Set a displacement of 16 bits or more. */
static bool
set_displacement(struct insn *i, uint64_t v)
{
	if (i->in.raw.disp.size < 16)
		return false;
	if (i->in.raw.disp.size == 32 && i->in.address_width == 64 && (uint64_t)(int64_t)(int32_t)v != v)
		return false;
	memcpy(i->bytes + i->in.raw.disp.offset, &v, i->in.raw.disp.size / 8u);
	return true;
}

/* vmovdqu32 of indices from the read-only page: small doublewords, or quadwords from its second half. */
static void
load_indices(struct program *p, const ZydisDecodedInstruction *in, unsigned reg)
{
	bool quad = strchr(ZydisMnemonicGetString(in->mnemonic), 'q') != NULL;
	uint32_t a = ISA_READ_ONLY + (quad ? 2048 : 0) + 64 * pick(p, 31) - (uint32_t)isa_segment_base(p->mode, SEG_DS);

	if (p->bits == 16)
		put(p, 0x67);
	if (in->encoding == ZYDIS_INSTRUCTION_ENCODING_EVEX) {
		put(p, 0x62);
		put(p, 0x61 | (reg & 8 ? 0 : 0x80) | (reg & 16 ? 0 : 0x10));
		put(p, 0xfe);
		put(p, 0x48);
	} else {
		put(p, 0xc5);
		put(p, (reg & 8 ? 0 : 0x80) | 0x7e);
	}
	put(p, 0x6f);
	if (p->bits == 64) {
		put(p, (reg & 7) << 3 | 4);
		put(p, 0x25);
	} else {
		put(p, (reg & 7) << 3 | 5);
	}
	put_imm(p, a, 4);
}

/* Make operand `o` lie at an interesting place; false: cannot. */
static bool
aim(struct program *p, struct insn *i, const ZydisDecodedOperand *o)
{
	unsigned size = o->size / 8, width = i->in.address_width;
	uint64_t mask = width_mask(width);
	uint64_t a = target(p, size) - isa_segment_base(p->mode, segment_of(o->mem.segment));
	uint64_t disp = o->mem.disp.has_displacement ? (uint64_t)o->mem.disp.value : 0, sum;
	int base = gpr_of(o->mem.base), index = gpr_of(o->mem.index);
	bool vector = o->mem.type == ZYDIS_MEMOP_TYPE_VSIB;

	if (o->mem.base == ZYDIS_REGISTER_RIP) {
		i->bytes[15] = 1; /* filled in when it is placed */
		return true;
	}
	if (vector)
		load_indices(p, &i->in, (unsigned)ZydisRegisterGetId(o->mem.index));
	else if (index >= 0 && index != base && !p->reserved[index] && chance(p, 900))
		set_reg(p, (unsigned)index, p->value[index] = pick(p, 40));
	if (base < 0 && index < 0)
		return set_displacement(i, a);
	if (base < 0)
		return vector ? set_displacement(i, a) : set_displacement(i, a - p->value[index] * o->mem.scale);
	if (base == RSP) {
		if (i->in.raw.disp.size >= 16)
			return set_displacement(i, (uint64_t)(int64_t)(int)pick(p, 512) - 256);
		return true;
	}
	/* a base that is known to point into memory already */
	sum = p->value[base] + disp + (index >= 0 && index != base && !vector ? p->value[index] * o->mem.scale : 0);
	if (p->known[base] && width != 16 &&
		harmless((sum + isa_segment_base(p->mode, segment_of(o->mem.segment))) & mask, size) &&
		chance(p, p->reserved[base] ? 1000 : 700))
		return true;
	if (p->reserved[base])
		return set_displacement(i, a - p->value[base]);
	sum = a - disp;
	if (index == base)
		sum /= 1u + o->mem.scale;
	else if (index >= 0 && !vector)
		sum -= p->value[index] * o->mem.scale;
	set_reg(p, (unsigned)base, sum & mask);
	p->value[base] = sum & mask;
	p->known[base] = harmless((sum + isa_segment_base(p->mode, SEG_DS)) & mask, 128) && width != 16;
	return true;
}

/* What an instruction wants in registers besides addresses. */
static void
prepare(struct program *p, const struct insn *i)
{
	const ZydisDecodedInstruction *in = &i->in;
	unsigned r;

	switch (in->mnemonic) {
	case ZYDIS_MNEMONIC_DIV:
	case ZYDIS_MNEMONIC_IDIV:
		if (i->o[0].size == 8 && !p->reserved[RAX])
			set_reg(p, RAX, pick(p, 256));
		else if (!p->reserved[RDX])
			set_reg(p, RDX, chance(p, 900) ? 0 : rnd(p) & UINT32_MAX);
		return;
	case ZYDIS_MNEMONIC_BT:
	case ZYDIS_MNEMONIC_BTC:
	case ZYDIS_MNEMONIC_BTR:
	case ZYDIS_MNEMONIC_BTS:
		if (i->o[0].type != ZYDIS_OPERAND_TYPE_MEMORY || i->o[1].type != ZYDIS_OPERAND_TYPE_REGISTER)
			return;
		r = (unsigned)gpr_of(i->o[1].reg.value) & 15;
		if (!p->reserved[r] && !p->known[r] && r != RSP)
			set_reg(p, r, pick(p, 2000));
		return;
	case ZYDIS_MNEMONIC_XLAT:
		if (!p->reserved[RBX])
			set_reg(p, RBX, ISA_DATA + pick(p, 4000) - isa_segment_base(p->mode, SEG_DS));
		return;
	case ZYDIS_MNEMONIC_MOVDIR64B:
		r = (unsigned)gpr_of(i->o[0].reg.value) & 15;
		if (!p->reserved[r] && r != RSP)
			set_reg(p, r, ISA_DATA + 64 * pick(p, 120));
		return;
	case ZYDIS_MNEMONIC_MASKMOVQ:
	case ZYDIS_MNEMONIC_MASKMOVDQU:
	case ZYDIS_MNEMONIC_VMASKMOVDQU:
		if (!p->reserved[RDI])
			set_reg(p, RDI, in_data(p, 16) - isa_segment_base(p->mode, SEG_DS));
		return;
	default:
		return;
	}
}

static void
forget_written(struct program *p, const struct insn *i)
{
	for (unsigned k = 0; k < i->in.operand_count; k++) {
		const ZydisDecodedOperand *o = &i->o[k];
		int r = o->type == ZYDIS_OPERAND_TYPE_REGISTER ? gpr_of(o->reg.value) : -1;

		if (r < 0 || !(o->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE))
			continue;
		p->known[r] = false;
		if (o->size == 8 && r >= 4) /* may be AH to BH */
			p->known[r & 3] = false;
	}
}

/* Are undefined flags different on one CPU between forms of the instruction, or between two runs? */
static bool
flags_vary(const struct insn *i)
{
	if (i->in.mnemonic == ZYDIS_MNEMONIC_DIV || i->in.mnemonic == ZYDIS_MNEMONIC_IDIV)
		return true;
	return i->in.meta.category == ZYDIS_CATEGORY_ROTATE && (i->in.opcode & 0xfe) == 0xc0;
}

static void
place(struct program *p, struct insn *i)
{
	if (i->bytes[15]) {
		uint32_t disp = (uint32_t)target(p, 8) - (here(p) + i->in.length);

		memcpy(i->bytes + i->in.raw.disp.offset, &disp, 4);
	}
	for (unsigned k = 0; k < i->in.length; k++)
		put(p, i->bytes[k]);
	forget_written(p, i);
	if (flags_vary(i))
		PUT(p, "\x84\xc0"); /* test al, al */
}

static bool
byte_write_to_reserved(const struct program *p, const struct insn *i)
{
	for (unsigned k = 0; k < i->in.operand_count; k++) {
		const ZydisDecodedOperand *o = &i->o[k];

		if (o->type == ZYDIS_OPERAND_TYPE_REGISTER && o->reg.value >= ZYDIS_REGISTER_AH &&
			o->reg.value <= ZYDIS_REGISTER_BH && p->reserved[o->reg.value - ZYDIS_REGISTER_AH])
			return true;
	}
	return false;
}

static void
gen_encoding(struct program *p)
{
	uint8_t raw[32] = { 0 };
	struct insn i;

	for (unsigned tries = 0; tries < 300; tries++) {
		unsigned before = p->len;
		bool ok = true, known[16];

		random_encoding(p, raw);
		memcpy(i.bytes, raw, 15);
		i.bytes[15] = 0;
		if (!decode(p, i.bytes, 15, &i) || !allowed(p, &i) || byte_write_to_reserved(p, &i))
			continue;
		memcpy(known, p->known, sizeof(known));
		prepare(p, &i);
		for (unsigned k = 0; ok && k < i.in.operand_count; k++)
			if (i.o[k].type == ZYDIS_OPERAND_TYPE_MEMORY && i.o[k].mem.type != ZYDIS_MEMOP_TYPE_AGEN)
				ok = aim(p, &i, &i.o[k]);
		if (ok) {
			place(p, &i);
			return;
		}
		p->len = before;
		memcpy(p->known, known, sizeof(known));
	}
}

/* ---- the other kinds of pieces ---- */

static unsigned
scratch(struct program *p)
{
	unsigned r;

	do
		r = pick(p, p->bits == 64 ? 16 : 8);
	while (r == RSP || p->reserved[r]);
	return r;
}

/* REX in front of an instruction whose rm or opcode register is `r`. */
static void
put_rex(struct program *p, unsigned r, bool wide)
{
	if (p->bits == 64 && (wide || r & 8))
		put(p, 0x40 | (wide ? 8 : 0) | r >> 3);
}

static void
forward(struct program *p, unsigned size, unsigned farthest)
{
	struct program_branch *b = &p->branch[p->branches++];

	*b = (struct program_branch){
		.at = (uint16_t)p->len, .size = (uint8_t)size, .piece = (uint8_t)(p->piece + 1 + pick(p, farthest))
	};
	put_imm(p, 0, size);
}

static void
gen_branch(struct program *p)
{
	unsigned near = p->bits == 16 ? 2 : 4;

	if (p->branches == PROGRAM_PIECES)
		return;
	switch (pick(p, 8)) {
	case 0:
		put(p, 0xeb);
		forward(p, 1, 2);
		return;
	case 1:
		put(p, 0xe9);
		forward(p, near, 6);
		return;
	case 2: /* LOOP, LOOPE, LOOPNE, JRCXZ */
		if (p->reserved[RCX])
			return;
		if (chance(p, 100))
			put(p, 0x67);
		put(p, 0xe0 | pick(p, 4));
		p->known[RCX] = false;
		forward(p, 1, 2);
		return;
	case 3:
	case 4:
		PUT(p, "\x0f");
		put(p, 0x80 | pick(p, 16));
		forward(p, near, 6);
		return;
	default:
		put(p, 0x70 | pick(p, 16));
		forward(p, 1, 3);
	}
}

/* What a register or a place in memory is to hold for a jump to linear address `a`. */
static uint64_t
jump_value(const struct program *p, uint32_t a)
{
	return p->bits == 64 ? a : a - (uint32_t)isa_segment_base(p->mode, SEG_CS);
}

/* mov r, label; jmp or call r, or by way of memory or RET. The place is always the next instruction but one. */
static void
gen_indirect(struct program *p)
{
	unsigned r = scratch(p), kind = pick(p, 5), fix;
	uint32_t data = (uint32_t)(in_data(p, 8) - isa_segment_base(p->mode, SEG_DS));

	set_reg(p, r, ISA_CODE); /* its value comes below */
	fix = p->len - 4;
	switch (kind) {
	case 0:
	case 1: /* jmp r; call r */
		put_rex(p, r, false);
		put(p, 0xff);
		put(p, (kind ? 0xd0 : 0xe0) | (r & 7));
		break;
	case 2:
	case 3: /* mov [data], r; jmp or call [data] */
		if (p->bits == 16)
			put(p, 0x67);
		if (p->bits == 64)
			put(p, 0x48 | (r & 8 ? 4 : 0));
		put(p, 0x89);
		put(p, (r & 7) << 3 | (p->bits == 64 ? 4 : 5));
		if (p->bits == 64)
			put(p, 0x25);
		put_imm(p, data, 4);
		if (p->bits == 16)
			put(p, 0x67);
		put(p, 0xff);
		put(p, (kind == 3 ? 0x10 : 0x20) | (p->bits == 64 ? 4 : 5));
		if (p->bits == 64)
			put(p, 0x25);
		put_imm(p, data, 4);
		break;
	default: /* push r; ret */
		put_rex(p, r, false);
		put(p, 0x50 | (r & 7));
		put(p, 0xc3);
	}
	put(p, 0xcc); /* jumped over */
	put_le32(p->code + fix, (uint32_t)jump_value(p, here(p)));
}

/* call f; jmp over; f: one or two instructions; ret; over: */
static void
gen_call(struct program *p)
{
	unsigned near = p->bits == 16 ? 2 : 4, fix;

	put(p, 0xe8);
	put_imm(p, near == 2 ? 3 : 5, near);
	put(p, 0xe9);
	fix = p->len;
	put_imm(p, 0, near);
	p->balanced = true;
	gen_encoding(p);
	if (chance(p, 500))
		gen_encoding(p);
	p->balanced = false;
	if (chance(p, 200)) {
		put(p, 0xc2);
		put_imm(p, 0, 2);
	} else {
		put(p, 0xc3);
	}
	if (near == 2)
		put_le16(p->code + fix, (uint16_t)(p->len - fix - 2));
	else
		put_le32(p->code + fix, p->len - fix - 4);
}

static void
gen_string(struct program *p)
{
	static const uint8_t ops[] = { 0xa4, 0xa6, 0xaa, 0xac, 0xae };
	unsigned op = ops[pick(p, 5)], size = 1u << pick(p, p->bits == 64 ? 4 : 3), rep = pick(p, 4);
	bool back = chance(p, 200), second = chance(p, 500);

	if (p->reserved[RSI] || p->reserved[RDI] || p->reserved[RCX])
		return;
	/* of two operands that fault a CPU may report either: one of them does not */
	set_reg(p, RSI, (second ? in_data(p, size) & ~63ull : target(p, size)) - isa_segment_base(p->mode, SEG_DS));
	set_reg(p, RDI, (second ? target(p, size) : in_data(p, size) & ~63ull) - isa_segment_base(p->mode, SEG_ES));
	set_reg(p, RCX, chance(p, 30) ? rnd(p) & 0xffffff : chance(p, 100) ? pick(p, 1000) : pick(p, 20));
	put(p, back ? 0xfd : 0xfc);
	if (p->bits == 16 ? chance(p, 500) : p->bits == 64 && chance(p, 30))
		put(p, 0x67);
	if (rep >= 2)
		put(p, 0xf0 + rep);
	if (size == (p->bits == 16 ? 4 : 2))
		put(p, 0x66);
	if (size == 8)
		put(p, 0x48);
	put(p, op | (size > 1));
	put(p, 0xfc);
	p->known[RAX] = p->known[RSI] = p->known[RDI] = p->known[RCX] = false;
}

static void
gen_stack(struct program *p)
{
	unsigned r = scratch(p), q = scratch(p);

	switch (pick(p, 6)) {
	case 0: /* push r; pop q */
		put_rex(p, r, false);
		put(p, 0x50 | (r & 7));
		break;
	case 1:
		put(p, 0x6a);
		put(p, pick(p, 256));
		break;
	case 2: /* pushf; pop q; flags of the system differ: leave the arithmetic ones */
		put(p, 0x9c);
		put_rex(p, q, false);
		put(p, 0x58 | (q & 7));
		put_rex(p, q, false);
		put(p, 0x81);
		put(p, 0xe0 | (q & 7));
		put_imm(p, 0xcd5, p->bits == 16 ? 2 : 4);
		p->known[q] = false;
		return;
	case 3: /* push r; and [sp], flags; popf */
		put_rex(p, r, false);
		put(p, 0x50 | (r & 7));
		if (p->bits == 16)
			put(p, 0x67);
		put(p, 0x81);
		put(p, 0x24);
		put(p, 0x24);
		if (p->bits == 16)
			put_imm(p, 0x8d5, 2);
		else
			put_imm(p, 0x8d5 | (chance(p, 20) ? 0x40000 : 0) | (chance(p, 20) ? 0x100 : 0), 4);
		put(p, 0x9d);
		return;
	case 4: /* enter; leave */
		if (p->reserved[RBP])
			return;
		put(p, 0xc8);
		put_imm(p, 8 * pick(p, 8), 2);
		put(p, chance(p, 800) ? 0 : pick(p, 4));
		put(p, 0xc9);
		p->known[RBP] = false;
		return;
	default: /* at the end of the stack's page */
		if (!p->wild)
			return;
		set_reg(p, RSP,
			ISA_STACK + (chance(p, 500) ? 8 : ISA_STACK_SIZE - 8) + 4 - pick(p, 9) -
				isa_segment_base(p->mode, SEG_SS));
		put_rex(p, r, false);
		put(p, (chance(p, 500) ? 0x50 : 0x58) | (r & 7));
		p->known[r] = false;
		return;
	}
	put_rex(p, q, false);
	put(p, 0x58 | (q & 7));
	p->known[q] = false;
}

/* Change the immediate of an instruction: of the next one, of one further on, or, in a loop, of one behind. */
static void
gen_patch(struct program *p)
{
	unsigned r = scratch(p), nops = pick(p, 3), fix;
	uint32_t ds = (uint32_t)isa_segment_base(p->mode, SEG_DS);

	if (p->bits == 16 || p->mode == ISA_SEGMENTED32)
		return; /* code is not in reach of DS */
	PUT(p, "\x80");
	put(p, p->bits == 64 ? 0x04 : 0x05); /* add byte [place], n */
	if (p->bits == 64)
		put(p, 0x25);
	fix = p->len;
	put_imm(p, 0, 4);
	put(p, 1 + pick(p, 100));
	for (unsigned k = 0; k < nops; k++)
		gen_encoding(p);
	put_rex(p, r, false);
	put(p, 0xb8 | (r & 7));
	put_le32(p->code + fix, here(p) + pick(p, 4) - ds);
	put_imm(p, rnd(p), 4);
	p->known[r] = false;
}

static void
gen_piece(struct program *p)
{
	unsigned r = pick(p, 100);

	if (r < 76)
		gen_encoding(p);
	else if (r < 86)
		gen_branch(p);
	else if (r < 88)
		gen_indirect(p);
	else if (r < 90)
		gen_call(p);
	else if (r < 94)
		gen_string(p);
	else if (r < 98)
		gen_stack(p);
	else
		gen_patch(p);
}

/* ---- the whole ---- */

static void
resolve(struct program *p, bool all)
{
	for (unsigned k = 0; k < p->branches; k++) {
		struct program_branch *b = &p->branch[k];
		uint32_t disp = p->len - b->at - b->size;

		if (!b->size || (!all && b->piece != p->piece))
			continue;
		if (b->size == 1 && disp > 127)
			disp = 0;
		memcpy(p->code + b->at, &disp, b->size);
		b->size = 0;
	}
}

static void
reserve(struct program *p)
{
	static const uint8_t regs[] = { RBX, RBP, RSI, RDI, R8, R9, R12, R13, R14, R15 };

	for (unsigned n = 1 + pick(p, 2); n; n--) {
		unsigned r = regs[pick(p, p->bits == 64 ? 10 : 4)];

		p->reserved[r] = p->known[r] = p->bits != 16;
		p->value[r] = in_data(p, 64) - isa_segment_base(p->mode, r == RBP ? SEG_SS : SEG_DS);
	}
}

static void
loop_back(struct program *p, unsigned start, unsigned times)
{
	uint32_t a = ISA_COUNT - (uint32_t)isa_segment_base(p->mode, SEG_DS), disp;

	if (p->bits == 16)
		put(p, 0x67);
	put(p, 0x80); /* add byte [count], 1 */
	put(p, p->bits == 64 ? 0x04 : 0x05);
	if (p->bits == 64)
		put(p, 0x25);
	put_imm(p, a, 4);
	put(p, 1);
	if (p->bits == 16)
		put(p, 0x67);
	put(p, 0x80); /* cmp byte [count], times */
	put(p, p->bits == 64 ? 0x3c : 0x3d);
	if (p->bits == 64)
		put(p, 0x25);
	put_imm(p, a, 4);
	put(p, times);
	put(p, 0x0f); /* jb start */
	put(p, 0x82);
	disp = start - (p->len + (p->bits == 16 ? 2 : 4));
	put_imm(p, disp, p->bits == 16 ? 2 : 4);
}

void
program_make(struct program *p, uint64_t seed, enum isa_mode mode, bool bare, unsigned pieces)
{
	unsigned times;

	memset(p, 0, sizeof(*p));
	p->mode = mode;
	p->bits = isa_bits(mode);
	p->bare = bare;
	p->state_seed = p->seed = seed;
	rnd(p);
	p->at = ISA_CODE + (chance(p, 500) ? 0 : PAGE_SIZE - pick(p, 160));
	p->wild = chance(p, 60);
	p->loop = chance(p, 600);
	times = 2 + pick(p, 3);
	p->pieces = pieces < PROGRAM_PIECES ? pieces : PROGRAM_PIECES;
	reserve(p);
	for (p->piece = 0; p->piece < p->pieces && p->len < PROGRAM_BYTES - 600; p->piece++) {
		p->start[p->piece] = (uint16_t)p->len;
		resolve(p, false);
		gen_piece(p);
	}
	p->pieces = p->piece;
	p->start[p->pieces] = (uint16_t)p->len;
	resolve(p, true);
	if (p->loop)
		loop_back(p, 0, times);
}

void
program_drop(struct program *p, unsigned piece)
{
	memset(p->code + p->start[piece], 0x90, (size_t)(p->start[piece + 1] - p->start[piece]));
}

void
program_state(const struct program *p, struct isa_state *s)
{
	uint64_t seed = p->state_seed ^ 0x5bd1e995;

	isa_random_state(s, p->state_seed, p->mode);
	for (int r = 0; r < 16; r++)
		if (p->reserved[r])
			s->gpr[r] = p->value[r] & (p->bits == 64 ? UINT64_MAX : UINT32_MAX);
	s->rip = p->at;
	s->ftw = (uint8_t)(isa_random(&seed) & 1 ? 0xff : isa_random(&seed));
	s->fsw = (uint16_t)((isa_random(&seed) & 7) << 11);
	for (int i = 0; i < 8; i++) {
		uint64_t m = isa_random(&seed) | 1ull << 63;
		uint16_t e = (uint16_t)(0x3ff0 + isa_random(&seed) % 32 + (isa_random(&seed) & 0x8000));

		memcpy(s->st[i], &m, 8);
		memcpy(s->st[i] + 8, &e, 2);
	}
	if (isa_random(&seed) % 4 == 0) /* sensible numbers */
		for (int i = 0; i < 16; i++)
			for (int k = 0; k < 64; k += 8) {
				uint64_t v = 0x3f00000000000000 + (isa_random(&seed) >> 7 & 0x01ffffffffffffff);

				memcpy(s->zmm[i] + k, &v, 8);
			}
	if (isa_random(&seed) % 16 == 0)
		s->mxcsr = (uint32_t)(0x1f80 | (isa_random(&seed) & 0xe040));
	if (isa_random(&seed) % 32 == 0)
		s->mxcsr &= ~(uint32_t)(isa_random(&seed) % 64 << 7);
	if (isa_random(&seed) % 32 == 0)
		s->fcw &= (uint16_t) ~(isa_random(&seed) % 64);
}

/* ---- flags ---- */

static unsigned
read_flags(const struct insn *i)
{
	return i->in.cpu_flags ? i->in.cpu_flags->tested & ARITH_FLAGS : 0;
}

static unsigned
written_flags(const struct insn *i)
{
	const ZydisAccessedFlags *f = i->in.cpu_flags;

	switch (i->in.mnemonic) { /* the decoder's tables leave their flags out */
	case ZYDIS_MNEMONIC_VPTEST:
	case ZYDIS_MNEMONIC_VTESTPS:
	case ZYDIS_MNEMONIC_VTESTPD:
		return ARITH_FLAGS;
	default:
		break;
	}
	if (!f || i->in.attributes & (ZYDIS_ATTRIB_HAS_REP | ZYDIS_ATTRIB_HAS_REPE | ZYDIS_ATTRIB_HAS_REPNE))
		return 0;
	if (i->in.meta.category == ZYDIS_CATEGORY_SHIFT || i->in.meta.category == ZYDIS_CATEGORY_ROTATE)
		for (unsigned k = 1; k < i->in.operand_count; k++)
			if (i->o[k].type == ZYDIS_OPERAND_TYPE_REGISTER && i->o[k].reg.value == ZYDIS_REGISTER_CL)
				return 0; /* a count of 0 writes none */
	return (f->modified | f->set_0 | f->set_1 | f->undefined) & ARITH_FLAGS;
}

static unsigned
live_behind(struct program *p, const struct insn *i, unsigned at)
{
	unsigned next = at + i->in.length, live = ARITH_FLAGS;
	const ZydisDecodedOperand *o = &i->o[0];

	switch (i->in.meta.category) {
	case ZYDIS_CATEGORY_COND_BR:
	case ZYDIS_CATEGORY_UNCOND_BR:
	case ZYDIS_CATEGORY_CALL:
		if (o->type != ZYDIS_OPERAND_TYPE_IMMEDIATE || !o->imm.is_relative)
			return ARITH_FLAGS;
		if (next + (uint64_t)o->imm.value.s <= p->len)
			live = p->live[next + (uint64_t)o->imm.value.s];
		if (i->in.meta.category == ZYDIS_CATEGORY_COND_BR)
			live |= p->live[next];
		return live;
	case ZYDIS_CATEGORY_RET:
	case ZYDIS_CATEGORY_INTERRUPT:
	case ZYDIS_CATEGORY_SYSCALL:
	case ZYDIS_CATEGORY_SYSRET:
		return ARITH_FLAGS;
	default:
		return p->live[next];
	}
}

static void
find_live_flags(struct program *p)
{
	uint16_t starts[PROGRAM_BYTES];
	unsigned n = 0;
	bool changed = true;
	struct insn i;

	for (unsigned at = 0; at < p->len; n++) {
		starts[n] = (uint16_t)at;
		p->live[at] = 0;
		at += decode(p, p->code + at, p->len - at < 15 ? p->len - at : 15, &i) ? i.in.length : 1;
	}
	p->live[p->len] = ARITH_FLAGS;
	while (changed) {
		changed = false;
		for (unsigned k = n; k-- > 0;) {
			unsigned at = starts[k], live = ARITH_FLAGS;

			if (decode(p, p->code + at, p->len - at < 15 ? p->len - at : 15, &i))
				live = read_flags(&i) | (live_behind(p, &i, at) & ~written_flags(&i));
			changed |= live != p->live[at];
			p->live[at] = (uint16_t)live;
		}
	}
}

unsigned
program_live_flags(struct program *p, uint64_t rip)
{
	if (rip < p->at || rip >= p->at + p->len)
		return ARITH_FLAGS;
	find_live_flags(p);
	return p->live[rip - p->at] & ARITH_FLAGS;
}

/* ---- the rest ---- */

void
program_print(const struct program *p, FILE *f)
{
	fprintf(f, "%s, seed %llu, %u pieces%s:\n", isa_mode_text(p->mode), (unsigned long long)p->state_seed,
		p->pieces, p->loop ? ", a loop" : "");
	isa_disassemble(p->code, p->len, p->at, p->bits, f);
}

bool
program_fault_varies(const struct program *p, uint64_t rip)
{
	struct insn i;

	if (rip < p->at || rip >= p->at + p->len || !decode(p, p->code + (rip - p->at), 15, &i))
		return false;
	switch (i.in.mnemonic) {
	case ZYDIS_MNEMONIC_FSTP: /* a part of the 80 bits may have been stored */
	case ZYDIS_MNEMONIC_FBSTP:
	case ZYDIS_MNEMONIC_VCVTPS2PH:
	case ZYDIS_MNEMONIC_MOVNTQ:
	case ZYDIS_MNEMONIC_MASKMOVQ:
	case ZYDIS_MNEMONIC_MASKMOVDQU:
	case ZYDIS_MNEMONIC_VMASKMOVDQU:
	case ZYDIS_MNEMONIC_VPGATHERQD:
	case ZYDIS_MNEMONIC_VGATHERQPS:
	case ZYDIS_MNEMONIC_PUSHA: /* a part of the registers may have been stored */
	case ZYDIS_MNEMONIC_PUSHAD:
		return true;
	default:
		return i.in.meta.isa_set == ZYDIS_ISA_SET_PENTIUMMMX; /* may have switched to MMX state */
	}
}

static bool
has_trait(const struct program *p, const struct insn *i, enum program_trait trait)
{
	const ZydisDecodedInstruction *in = &i->in;

	switch (trait) {
	case TRAIT_CALL:
		return in->mnemonic == ZYDIS_MNEMONIC_CALL;
	case TRAIT_STRING:
		return in->meta.category == ZYDIS_CATEGORY_STRINGOP;
	case TRAIT_DIVIDE:
		return (in->mnemonic == ZYDIS_MNEMONIC_DIV || in->mnemonic == ZYDIS_MNEMONIC_IDIV) &&
		       i->o[0].type == ZYDIS_OPERAND_TYPE_MEMORY;
	case TRAIT_MASKMOV:
		return in->mnemonic == ZYDIS_MNEMONIC_MASKMOVQ || in->mnemonic == ZYDIS_MNEMONIC_MASKMOVDQU ||
		       in->mnemonic == ZYDIS_MNEMONIC_VMASKMOVDQU;
	case TRAIT_VECTOR:
		return in->encoding != ZYDIS_INSTRUCTION_ENCODING_LEGACY;
	case TRAIT_X87_STORE:
		for (unsigned k = 0; k < in->operand_count; k++)
			if (is_x87(in) && i->o[k].type == ZYDIS_OPERAND_TYPE_MEMORY &&
				i->o[k].actions & ZYDIS_OPERAND_ACTION_MASK_WRITE)
				return true;
		return false;
	default:
		return false;
	}
}

bool
program_has(const struct program *p, uint64_t rip, enum program_trait trait)
{
	struct insn i;

	for (unsigned at = 0; at < p->len; at += i.in.length ? i.in.length : 1) {
		i.in.length = 1;
		if (decode(p, p->code + at, p->len - at < 15 ? p->len - at : 15, &i) && (!rip || rip == p->at + at) &&
			has_trait(p, &i, trait))
			return true;
	}
	return false;
}
