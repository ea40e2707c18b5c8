/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Vector, x87 and bit-manipulation instructions: the bare CPU is the oracle.
 *
 * Random encodings that the decoder takes and vec_compile() accepts run twice from the same random state: bare, in a
 * little frame that loads and stores everything, and through vec_run() on a software CPU whose page tables map the same
 * linear addresses with the same permissions. Registers, flags, MXCSR, x87 state, memory, the kind of exception and the
 * page it names have to agree. Operands cross into pages that are read-only or not there.
 *
 * VEC_SEED=n repeats a run, VEC_COUNT=n sets the number of instructions, VEC_ONLY="62 f1 ..." tests one encoding.
 */
#include "bare.h"

/* ---- random instructions ---- */

static unsigned
random_modrm(uint8_t *p)
{
	unsigned n = 0, mod = chance(45) ? 3 : below(3), rm = below(8);

	p[n++] = (uint8_t)(mod << 6 | below(8) << 3 | rm);
	if (mod != 3 && rm == 4)
		p[n++] = (uint8_t)rnd();
	for (unsigned i = 0; i < 5; i++)
		p[n++] = (uint8_t)rnd();
	return n;
}

static unsigned
random_legacy(uint8_t *p)
{
	static const uint8_t prefix[] = { 0, 0x66, 0xf2, 0xf3 };
	unsigned n = 0, map = below(4);
	uint8_t pre = prefix[below(4)];

	if (pre)
		p[n++] = pre;
	if (chance(3))
		p[n++] = 0x66;
	if (chance(50) && !narrow)
		p[n++] = (uint8_t)(0x40 | below(16));
	p[n++] = 0x0f;
	if (map >= 2)
		p[n++] = map == 2 ? 0x38 : 0x3a;
	p[n++] = (uint8_t)rnd();
	return n + random_modrm(p + n);
}

static unsigned
random_vex(uint8_t *p)
{
	p[0] = 0xc4;
	p[1] = (uint8_t)((rnd() & 0xe0) | (1 + below(3)));
	if (narrow)
		p[1] |= 0xc0;
	p[2] = (uint8_t)rnd();
	if (chance(30))
		p[2] |= 0x78;
	p[3] = (uint8_t)rnd();
	return 4 + random_modrm(p + 4);
}

static unsigned
random_evex(uint8_t *p)
{
	static const uint8_t maps[] = { 1, 1, 2, 2, 2, 3, 5, 6 };

	p[0] = 0x62;
	p[1] = (uint8_t)((rnd() & 0xf0) | maps[below(8)]);
	if (narrow)
		p[1] |= 0xc0;
	p[2] = (uint8_t)(rnd() | 4);
	if (chance(40))
		p[2] |= 0x78;
	p[3] = (uint8_t)rnd();
	if (chance(50))
		p[3] |= 8;
	if (chance(30))
		p[3] &= 0xf8;
	p[4] = (uint8_t)rnd();
	return 5 + random_modrm(p + 5);
}

static unsigned
random_x87_insn(uint8_t *p)
{
	p[0] = (uint8_t)(0xd8 + below(8));
	return 1 + random_modrm(p + 1);
}

static unsigned
random_insn(uint8_t *p)
{
	switch (below(8)) {
	case 0:
		return random_x87_insn(p);
	case 1:
	case 2:
		return random_legacy(p);
	case 3:
	case 4:
		return random_vex(p);
	case 5: { /* masked, with a memory operand: fault suppression */
		unsigned n = random_evex(p);
		p[3] = (uint8_t)(p[3] & 0xf8) | (uint8_t)(1 + below(7));
		p[5] &= 0x7f;
		return n;
	}
	default:
		return random_evex(p);
	}
}

/* Instructions whose results cannot be the same twice, or that test/unit/cpu/fpu.c looks at. */
static bool
left_out(ZydisMnemonic m)
{
	const char *name = ZydisMnemonicGetString(m);
	static const char *const out[] = { "rdrand", "rdseed", "fxsave", "fxrstor", "xsave", "xrstor", "fnsave",
		"frstor", "fnstenv", "fldenv", "ldmxcsr", "vldmxcsr" };

	for (unsigned i = 0; i < sizeof(out) / sizeof(out[0]); i++)
		if (!strncmp(name, out[i], strlen(out[i])))
			return true;
	return false;
}

static bool
names_rsp(const ZydisDecodedInstruction *in, const ZydisDecodedOperand *o)
{
	for (unsigned i = 0; i < in->operand_count; i++) {
		ZydisRegister r[3] = { 0 };
		if (o[i].type == ZYDIS_OPERAND_TYPE_REGISTER)
			r[0] = o[i].reg.value;
		if (o[i].type == ZYDIS_OPERAND_TYPE_MEMORY) {
			r[1] = o[i].mem.base;
			r[2] = o[i].mem.index;
		}
		for (unsigned j = 0; j < 3; j++) {
			ZydisRegister wide = ZydisRegisterGetLargestEnclosing(ZYDIS_MACHINE_MODE_LONG_64, r[j]);
			if (r[j] == ZYDIS_REGISTER_RIP || wide == ZYDIS_REGISTER_RSP)
				return true;
		}
	}
	return false;
}

static uint64_t
random_target(unsigned size)
{
	uint64_t page = VA + (1 + below(2)) * PAGE_SIZE, back = 1 + below(size > 1 ? size - 1 : 1);

	if (size > 256)
		size = 256;
	switch (below(10)) {
	case 0:
	case 1:
		return page + below(256);
	case 2:
		return VA + 2 * PAGE_SIZE - back; /* RW, RW */
	case 3:
		return VA + 3 * PAGE_SIZE - back; /* RW, RO */
	case 4:
		return VA + 4 * PAGE_SIZE - back; /* RO, hole */
	case 5:
		return chance(50) ? VA + PAGE_SIZE - back : VA + 4 * PAGE_SIZE - size; /* hole, RW; up to the end */
	default:
		return page + below(4) * 64;
	}
}

/* Give base and index values so that the operand lies at an interesting place; false: cannot. */
static bool
aim(struct x86_state *s, const ZydisDecodedInstruction *in, const ZydisDecodedOperand *o)
{
	int base = ZydisRegisterGetId(o->mem.base), index = ZydisRegisterGetId(o->mem.index);
	uint64_t target = random_target(o->size / 8),
		 disp = o->mem.disp.has_displacement ? (uint64_t)o->mem.disp.value : 0;

	if (o->mem.base == ZYDIS_REGISTER_NONE || in->address_width != (narrow ? 32 : 64))
		return false;
	if (o->mem.segment == ZYDIS_REGISTER_FS || o->mem.segment == ZYDIS_REGISTER_GS)
		return false;
	if (o->mem.type == ZYDIS_MEMOP_TYPE_VSIB) {
		bool wild = chance(20);
		for (unsigned i = 0; i < 64; i += 8) {
			uint64_t v = wild ? below(4 * PAGE_SIZE) : below(64);
			v |= (uint64_t)(chance(50) ? below(64) : 0) << 32;
			if (strchr(ZydisMnemonicGetString(in->mnemonic), 'q'))
				v &= 0xffff;
			memcpy(s->zmm[index] + i, &v, 8);
		}
		s->gpr[base] = (VA + PAGE_SIZE + below(2 * PAGE_SIZE) - disp) & (narrow ? UINT32_MAX : UINT64_MAX);
		return true;
	}
	if (o->mem.index != ZYDIS_REGISTER_NONE) {
		if (index == base)
			return false;
		s->gpr[index] = below(16);
		target -= s->gpr[index] * o->mem.scale;
	}
	s->gpr[base] = (target - disp) & (narrow ? UINT32_MAX : UINT64_MAX);
	return true;
}

static gva_t
linear(const struct x86_state *s, const ZydisDecodedOperand *o)
{
	uint64_t a = o->mem.disp.has_displacement ? (uint64_t)o->mem.disp.value : 0;

	if (o->mem.base != ZYDIS_REGISTER_NONE)
		a += s->gpr[ZydisRegisterGetId(o->mem.base)];
	if (o->mem.index != ZYDIS_REGISTER_NONE && o->mem.type != ZYDIS_MEMOP_TYPE_VSIB)
		a += s->gpr[ZydisRegisterGetId(o->mem.index)] * o->mem.scale;
	return narrow ? (uint32_t)a : a;
}

static const ZydisDecodedOperand *
memory_operand(const ZydisDecodedInstruction *in, const ZydisDecodedOperand *o)
{
	for (unsigned i = 0; i < in->operand_count; i++)
		if (o[i].type == ZYDIS_OPERAND_TYPE_MEMORY)
			return &o[i];
	return NULL;
}

static void
describe(const uint8_t *insn, const ZydisDecodedInstruction *in, const ZydisDecodedOperand *o, gva_t a)
{
	ZydisFormatter fmt;
	char text[128];

	ZydisFormatterInit(&fmt, ZYDIS_FORMATTER_STYLE_INTEL);
	ZydisFormatterFormatInstruction(&fmt, in, o, in->operand_count_visible, text, sizeof(text), 0, NULL);
	for (unsigned i = 0; i < in->length; i++)
		printf("%02x ", insn[i]);
	printf(" %s  at %llx  (%s)\n", text, (unsigned long long)a, ZydisISASetGetString(in->meta.isa_set));
}

struct tally {
	unsigned run, bad, refused, faults;
	uint8_t seen[ZYDIS_MNEMONIC_MAX_VALUE + 1], refused_seen[ZYDIS_MNEMONIC_MAX_VALUE + 1];
};

/*
 * Where processors differ and the SDM lets them: an 80-bit store that faults may have stored a part, MASKMOV may or may
 * not fault on bytes that it does not write; a faulting MMX store may have switched to MMX state, a faulting VCVTPS2PH
 * may have set MXCSR's flags, a faulting gather of half a register may leave anything in the other half.
 */
static bool
implementation_specific(
	const ZydisDecodedInstruction *in, const ZydisDecodedOperand *mem, struct outcome bare, struct outcome soft)
{
	if (!bare.vector && !soft.vector)
		return false;
	if (mem && mem->size == 80 && mem->actions & ZYDIS_OPERAND_ACTION_WRITE)
		return bare.vector == soft.vector;
	if (mem && mem->actions & ZYDIS_OPERAND_ACTION_WRITE && bare.vector == EXC_PF &&
		(in->meta.isa_set == ZYDIS_ISA_SET_PENTIUMMMX || in->mnemonic == ZYDIS_MNEMONIC_VCVTPS2PH ||
			in->mnemonic == ZYDIS_MNEMONIC_MOVNTQ))
		return true;
	if (in->mnemonic == ZYDIS_MNEMONIC_VPGATHERQD || in->mnemonic == ZYDIS_MNEMONIC_VGATHERQPS)
		return bare.vector == soft.vector && bare.address == soft.address;
	return in->mnemonic == ZYDIS_MNEMONIC_MASKMOVQ || in->mnemonic == ZYDIS_MNEMONIC_MASKMOVDQU ||
	       in->mnemonic == ZYDIS_MNEMONIC_VMASKMOVDQU;
}

static void
try_one(struct fixture *f, const uint8_t *insn, unsigned len, struct tally *t)
{
	static ZydisDecoder d;
	ZydisDecodedInstruction in;
	ZydisDecodedOperand o[ZYDIS_MAX_OPERAND_COUNT];
	const ZydisDecodedOperand *mem;
	struct x86_state *s = &f->c->v.state, start, bare;
	const struct vec_op *op;
	struct outcome eb, es;
	bool bad;
	gva_t a = 0;

	ZydisDecoderInit(&d, narrow ? ZYDIS_MACHINE_MODE_LONG_COMPAT_32 : ZYDIS_MACHINE_MODE_LONG_64,
		narrow ? ZYDIS_STACK_WIDTH_32 : ZYDIS_STACK_WIDTH_64);
	if (!ZYAN_SUCCESS(ZydisDecoderDecodeFull(&d, insn, len, &in, o)) || left_out(in.mnemonic) || names_rsp(&in, o))
		return;
	random_state(f, &start);
	mem = memory_operand(&in, o);
	if (mem && !aim(&start, &in, mem))
		return;
	if (in.mnemonic == ZYDIS_MNEMONIC_MOVDIR64B)
		start.gpr[ZydisRegisterGetId(o[0].reg.value)] = VA + PAGE_SIZE + 64 * below(32);
	op = vec_compile(f->c, insn, in.length, &in, o);
	if (!op) {
		t->refused++;
		t->refused_seen[in.mnemonic] = 1;
		return;
	}
	if (mem)
		a = linear(&start, mem);
	random_memory(f);
	*s = start;
	bare = start;
	t->run++;
	t->seen[in.mnemonic] = 1;
	run_bare(&bare, insn, in.length);
	es = run_soft(f, op, a);
	eb = bare_outcome(es.vector == EXC_MF ? EXC_MF : EXC_XM);
	t->faults += eb.vector != 0;
	bad = eb.vector != es.vector || eb.address != es.address;
	if (implementation_specific(&in, mem, eb, es))
		return;
	if (bad || states_differ(&bare, s) || memory_differs(f)) {
		printf("  exception: bare %d %llx, soft %d %llx; mxcsr %x fcw %x fsw %x\n", eb.vector,
			(unsigned long long)eb.address, es.vector, (unsigned long long)es.address, start.x87.mxcsr,
			start.x87.fcw, start.x87.fsw);
		describe(insn, &in, o, a);
		t->bad++;
	}
}

static unsigned
parse_only(const char *text, uint8_t *insn)
{
	unsigned n = 0;
	char *end;

	while (n < 15) {
		unsigned long v = strtoul(text, &end, 16);
		if (end == text)
			break;
		insn[n++] = (uint8_t)v;
		text = end;
	}
	return n;
}

static void
run_random(struct fixture *f)
{
	const char *env_seed = getenv("VEC_SEED"), *env_count = getenv("VEC_COUNT"), *only = getenv("VEC_ONLY");
	unsigned count = env_count ? (unsigned)strtoul(env_count, NULL, 0) : 60000, kinds = 0;
	struct tally t = { 0 };

	take_signals();
	seed = env_seed ? strtoull(env_seed, NULL, 0) : (uint64_t)time(NULL) * 2654435761u | 1;
	printf("VEC_SEED=%llu\n", (unsigned long long)seed);
	for (unsigned i = 0; t.run < count && t.bad < 50 && i < 40 * count; i++) {
		uint8_t insn[32] = { 0 };
		unsigned n = only ? parse_only(only, insn) : random_insn(insn);

		try_one(f, insn, n < 15 ? n : 15, &t);
	}
	for (unsigned i = 0; i <= ZYDIS_MNEMONIC_MAX_VALUE; i++)
		kinds += t.seen[i];
	printf("%u instructions of %u kinds, %u exceptions, %u encodings refused, %u wrong\n", t.run, kinds, t.faults,
		t.refused, t.bad);
	if (getenv("VEC_KINDS"))
		for (unsigned i = 0; i <= ZYDIS_MNEMONIC_MAX_VALUE; i++)
			if (t.seen[i] | t.refused_seen[i])
				printf("%s%s ", t.seen[i] ? "" : "!", ZydisMnemonicGetString(i));
	assert_int_equal(t.bad, 0);
}

static void
random_instructions_do_what_they_do_on_the_bare_cpu(void **state)
{
	run_random(*state);
}

static void
so_they_do_in_32_bit_code(void **state)
{
	run_random(*state);
}

static int
setup_narrow(void **state)
{
	narrow = true;
	return setup(state);
}

static int
teardown_narrow(void **state)
{
	narrow = false;
	return teardown(state);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(random_instructions_do_what_they_do_on_the_bare_cpu, setup, teardown),
		cmocka_unit_test_setup_teardown(so_they_do_in_32_bit_code, setup_narrow, teardown_narrow),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
