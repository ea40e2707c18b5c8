/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fuzz target: the decoder and the translator. Random bytes as code, in a random mode and state, under the interpreter
 * and the translator; where the outcome is determined by the input, both have to end in the same state. The host must
 * survive it, and nothing outside the guest's memory may change. tools/run-fuzz builds and runs it.
 *
 * Input: mode; flags and what else; 16 bytes that choose the registers; a seed of 2 bytes; the rest is code.
 *
 * Code runs until an exception or HLT (the handlers halt), at most 20 ms. What an instruction may leave behind in more
 * than one way when it faults is not compared, nor are arithmetic flags: test/isa/encodings.c goes into those.
 */
#include <stdlib.h>

#include "cpu/x86/decode.h"
#include "test/isa/diff.c"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/*
 * The address sanitizer puts calls of memcpy() and memset(), which use vector and mask registers, into code that the
 * translator calls while the guest's are in the host's (Makefile, GENERAL): then those are not compared, nor is what EVEX
 * instructions stored.
 */
#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define WHAT 0u
#endif
#endif
#ifndef WHAT
#define WHAT ISA_VECTORS
#endif

#define HEAD 20
#define CODE_MAX 1024

static struct isa *modes[ISA_MODE_COUNT];
static uint8_t *canary; /* next to the guests' memory, as near as the host puts it */

/* ---- the state ---- */

static uint64_t
choose_register(uint8_t how, uint64_t *seed, enum isa_mode mode)
{
	uint64_t r = isa_random(seed), data = ISA_DATA - isa_segment_base(mode, SEG_DS);

	switch (how & 7) {
	case 0:
		return how >> 3;
	case 1:
		return r & 0xff;
	case 2:
		return data + r % (ISA_DATA_SIZE + 64);
	case 3:
		return data + PAGE_SIZE - (how >> 3);
	case 4:
		return data - PAGE_SIZE + r % PAGE_SIZE;
	case 5:
		return ISA_CODE - isa_segment_base(mode, SEG_CS) + r % 64;
	case 6:
		return random_value(seed);
	default:
		return r;
	}
}

static void
choose_state(struct isa_state *s, const uint8_t *data, enum isa_mode mode)
{
	uint64_t seed = (uint64_t)data[18] << 8 | data[19];

	isa_random_state(s, seed, mode);
	for (int r = 0; r < (isa_bits(mode) == 64 ? 16 : 8); r++)
		if (r != RSP || data[2 + r] & 0x80)
			s->gpr[r] = choose_register(data[2 + r], &seed, mode) &
				    (isa_bits(mode) == 64 ? UINT64_MAX : UINT32_MAX);
	s->rip = ISA_CODE + (data[1] & 1 ? PAGE_SIZE - 20 : 0);
	if (data[1] & 2)
		s->rflags |= FLAG_DF;
	if ((data[1] & 12) == 12)
		s->rflags |= FLAG_AC;
	if ((data[1] & 0x70) == 0x70)
		s->rflags |= FLAG_TF;
	s->ftw = data[1] & 0x80 ? 0xff : 0;
}

/* ---- what is not compared ---- */

static bool
decode_at(enum isa_mode mode, const uint8_t *code, ZydisDecodedInstruction *in, ZydisDecodedOperand *o)
{
	ZydisDecoder z;

	if (isa_bits(mode) == 64)
		ZydisDecoderInit(&z, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
	else if (isa_bits(mode) == 32)
		ZydisDecoderInit(&z, ZYDIS_MACHINE_MODE_LEGACY_32, ZYDIS_STACK_WIDTH_32);
	else
		ZydisDecoderInit(&z, ZYDIS_MACHINE_MODE_LEGACY_16, ZYDIS_STACK_WIDTH_16);
	return ZYAN_SUCCESS(ZydisDecoderDecodeFull(&z, code, 15, in, o));
}

/* More than one outcome is right if this one faults. */
static bool
fault_varies(const ZydisDecodedInstruction *in)
{
	if (in->meta.category == ZYDIS_CATEGORY_STRINGOP || in->meta.category == ZYDIS_CATEGORY_IOSTRINGOP)
		return true;
	switch (in->mnemonic) {
	case ZYDIS_MNEMONIC_PUSHA:
	case ZYDIS_MNEMONIC_PUSHAD:
	case ZYDIS_MNEMONIC_ENTER:
	case ZYDIS_MNEMONIC_CALL: /* to where no code can be: the return address may stand below RSP */
		return true;
	default: /* x87, MMX, vectors: see near_enough() and program_fault_varies() in test/isa */
		return in->meta.isa_ext == ZYDIS_ISA_EXT_X87 || in->meta.isa_set == ZYDIS_ISA_SET_PENTIUMMMX ||
		       in->encoding != ZYDIS_INSTRUCTION_ENCODING_LEGACY || in->opcode_map != 0;
	}
}

/*
 * A string store that writes over itself: how many rounds it does before it is read anew is a processor's own business (one
 * here, what fits in a page there).
 */
static bool
may_write_over_itself(const ZydisDecodedInstruction *in)
{
	switch (in->mnemonic) {
	case ZYDIS_MNEMONIC_MOVSB:
	case ZYDIS_MNEMONIC_MOVSW:
	case ZYDIS_MNEMONIC_MOVSD:
	case ZYDIS_MNEMONIC_MOVSQ:
	case ZYDIS_MNEMONIC_STOSB:
	case ZYDIS_MNEMONIC_STOSW:
	case ZYDIS_MNEMONIC_STOSD:
	case ZYDIS_MNEMONIC_STOSQ:
	case ZYDIS_MNEMONIC_INSB:
	case ZYDIS_MNEMONIC_INSW:
	case ZYDIS_MNEMONIC_INSD:
		return in->attributes & (ZYDIS_ATTRIB_HAS_REP | ZYDIS_ATTRIB_HAS_REPE | ZYDIS_ATTRIB_HAS_REPNE);
	default:
		return false;
	}
}

/* `rewritten`: the program has written to itself. Such inputs are run, but not compared. */
static bool
left_out(enum isa_mode mode, const uint8_t *code, size_t size, bool rewritten)
{
	ZydisDecodedOperand o[ZYDIS_MAX_OPERAND_COUNT];
	ZydisDecodedInstruction in;

	for (size_t at = 0; at < size; at++) {
		if (!decode_at(mode, code + at, &in, o))
			continue;
		if (!WHAT && in.encoding == ZYDIS_INSTRUCTION_ENCODING_EVEX)
			return true;
		if (in.mnemonic == ZYDIS_MNEMONIC_DIV || in.mnemonic == ZYDIS_MNEMONIC_IDIV)
			return true; /* known_open[] in test/isa/encodings.c: of device registers */
		if (rewritten && may_write_over_itself(&in))
			return true;
	}
	return false;
}

static bool
varies(enum isa_mode mode, const struct isa_state *s)
{
	ZydisDecodedOperand o[ZYDIS_MAX_OPERAND_COUNT];
	ZydisDecodedInstruction in;

	if (s->vector < 0)
		return s->vector == ISA_TIMEOUT;
	/* a frame that did not fit has left flags behind that are not looked for */
	if (s->vector == EXC_DF || s->gpr[RSP] < PAGE_SIZE)
		return true;
	/* what ran page tables as code saw A and D bits come, sooner or later */
	if (s->rip < ISA_CODE || s->rip > ISA_CODE + ISA_CODE_SIZE - 16)
		return true;
	if (s->vector == 256 || s->vector == EXC_UD)
		return false;
	return decode_at(mode, s->code + (s->rip - ISA_CODE), &in, o) && fault_varies(&in);
}

/* ---- the target ---- */

static void
start(enum isa_mode mode)
{
	static const struct cpu_engine *const engines[] = { &cpu_engine_interp, &cpu_engine_jit };
	struct isa *t;

	t = isa_open(mode, engines, 2);
	if (!t)
		abort();
	isa_limit(t, 20);
	if (isa_bare(mode)) {
		/* the bare side is not used, and may be opened once only */
		munmap(t->code, ISA_CODE_SIZE);
		munmap(t->data, ISA_DATA_SIZE + PAGE_SIZE);
		munmap(t->stack, ISA_STACK_SIZE);
		munmap(t->counters, PAGE_SIZE);
	}
	modes[mode] = t;
	if (!canary) {
		canary = mmap(NULL, 16 * PAGE_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		memset(canary, 0x5a, 16 * PAGE_SIZE);
	}
}

static void
check_canary(void)
{
	for (unsigned i = 0; i < 16 * PAGE_SIZE; i++)
		if (canary[i] != 0x5a) {
			fprintf(stderr, "memory of the host has changed\n");
			abort();
		}
}

static void
differ_loudly(struct isa *t, const uint8_t *code, unsigned size, struct isa_state *in, struct isa_state out[2])
{
	struct isa_state *again = malloc(sizeof(*again));

	/* time stamps, random numbers: the interpreter does not agree with itself either */
	isa_run_engine(t, 0, code, size, in, again);
	if (isa_equal(&out[0], again, ISA_VECTORS, FLAG_DF, NULL)) {
		isa_run_engine(t, 1, code, size, in, &out[1]);
		isa_run_engine(t, 0, code, size, in, &out[0]);
		if (!isa_engines_equal(t, WHAT, FLAG_DF, NULL)) {
			fprintf(stderr, "%s: interpreter and translator differ:\n", isa_mode_text(t->mode));
			isa_equal(&out[0], &out[1], ISA_VECTORS, FLAG_DF, stderr);
			isa_engines_equal(t, WHAT, FLAG_DF, stderr);
			fprintf(stderr, "  vector %d, rip %llx, rsp %llx\n", out[0].vector,
				(unsigned long long)out[0].rip, (unsigned long long)out[0].gpr[RSP]);
			for (int r = 0; r < 16; r++)
				fprintf(stderr, "  register %d: %llx\n", r, (unsigned long long)in->gpr[r]);
			isa_disassemble(code, size, (uint32_t)in->rip, t->bits, stderr);
			abort();
		}
	}
	free(again);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct isa_state in, out[2];
	uint8_t code[CODE_MAX + 16] = { 0 };
	bool rewritten;
	enum isa_mode mode;
	struct isa *t;

	if (size <= HEAD)
		return 0;
	mode = (enum isa_mode)(data[0] % ISA_MODE_COUNT);
	size = size - HEAD < CODE_MAX ? size - HEAD : CODE_MAX;
	memcpy(code, data + HEAD, size);
	if (!modes[mode])
		start(mode);
	t = modes[mode];
	choose_state(&in, data, mode);
	isa_run_engine(t, 0, code, (unsigned)size, &in, &out[0]);
	isa_run_engine(t, 1, code, (unsigned)size, &in, &out[1]);
	check_canary();
	if (out[0].vector == ISA_STOPPED && out[1].vector == ISA_STOPPED)
		return 0; /* shut down: parts of frames lie about */
	rewritten = memcmp(out[0].code + (in.rip - ISA_CODE), code, size) ||
		    memcmp(out[1].code + (in.rip - ISA_CODE), code, size);
	if (left_out(mode, code, size, rewritten) || varies(mode, &out[0]) || varies(mode, &out[1]))
		return 0;
	if (!isa_engines_equal(t, WHAT, FLAG_DF, NULL))
		differ_loudly(t, code, (unsigned)size, &in, out);
	return 0;
}
