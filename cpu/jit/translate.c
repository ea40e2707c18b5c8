/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From guest instructions to host code.
 *
 * A block begins where somebody jumped to and goes on over conditional jumps that are not taken, up to the end of its
 * page, an unconditional transfer, or a limit. Three passes: decode; backward liveness of the arithmetic flags; code.
 *
 * Flags. While code is written, `host_ok` and `mem_ok` say where the current guest flags are: in the host's, in j->fl,
 * in both. What clobbers the host's (a memory check) first saves them if they are live and not in memory; what needs
 * them loads them. Ways out to blocks of other pages take the memory form: so calls and returns, whose checks clobber,
 * save at most once. Flags that are overwritten before they are read are not kept, not even for exceptions in between:
 * the image of RFLAGS an exception handler sees then has undefined arithmetic flags, and running on overwrites them.
 *
 * Entries of a block: see struct jit_block. What the body expects (`assume`) is chosen by its first use of flags.
 *
 * A memory operand: its linear address goes to T_A, the software TLB is looked at, T_A becomes a host address, and the
 * instruction runs on [T_A]. For stores T_B points to the flags of the page, looked at behind the instruction. A miss
 * calls stub.memory, which comes back with the same two, possibly those of a bounce buffer (MMIO, two pages).
 *
 * Everything else is the instruction itself with other registers (encode.c).
 */
#include <Zydis/Zydis.h>
#include <errno.h>
#include <stdlib.h>

#include "base/str.h"
#include "cpu/jit/emit.h"
#include "cpu/x86/vec.h"

#define ARITH_FLAGS (FLAG_CF | FLAG_PF | FLAG_AF | FLAG_ZF | FLAG_SF | FLAG_OF)
#define LATER_MAX (JIT_BLOCK_INSNS * 6)
#define NONE H_NONE

enum kind {
	K_PASS, /* the instruction itself */
	K_NOP,
	K_LEA,
	K_PUSH,
	K_POP,
	K_LEAVE,
	K_CALL,
	K_RET,
	K_JMP,
	K_JCC,
	K_DIV,
	K_STRING,
	K_SYSTEM,
	K_CLI,
	K_STI,
	K_FP,	/* K_PASS with vector registers */
	K_HELP, /* the interpreter */
};

struct insn {
	ZydisDecodedInstruction in;
	ZydisDecodedOperand o[ZYDIS_MAX_OPERAND_COUNT];
	const ZydisDecodedOperand *mem; /* of K_PASS and others, or NULL */
	const struct vec_op *vec;	/* of K_FP */
	enum kind kind;
	enum jit_refusal why;
	enum jit_system_kind system; /* of K_SYSTEM */
	bool ends;
	uint16_t off;		    /* in the page */
	uint32_t reads, kills, may; /* arithmetic flags: read, surely written, written at all */
	uint32_t live_in, live_out;
};

enum later_kind { LATER_MEMORY, LATER_WRITTEN, LATER_LINK, LATER_FAR, LATER_HELP, LATER_FP };

struct later {
	enum later_kind kind;
	uint32_t site; /* the rel32 that leads here */
	uint32_t back;
	uint32_t data;
	bool save; /* flags are in host form and are to be saved */
	bool load; /* ... and loaded again */
};

enum assume { ASSUME_DEAD, ASSUME_HOST, ASSUME_MEM };

struct jit_scratch {
	struct jit_cpu *j;
	struct emit e;
	ZydisDecoder decoder;
	uint8_t code[JIT_BLOCK_BYTES + 16];
	unsigned avail, first; /* bytes in `code`; offset in the page of the first */
	struct insn insn[JIT_BLOCK_INSNS];
	unsigned count;
	struct later later[LATER_MAX];
	unsigned laters;
	struct jit_block *b;
	uint32_t tlb; /* offset of the TLB array */
	unsigned now; /* offset in the page of the instruction being written */
	bool host_ok, mem_ok, fp_ok;
	bool wide;	/* 64-bit mode */
	unsigned stack; /* bytes of a push */
};

int
jit_translate_open(struct jit_cpu *j)
{
	j->work = calloc(1, sizeof(*j->work));
	if (!j->work)
		return -ENOMEM;
	j->work->j = j;
	return 0;
}

void
jit_translate_close(struct jit_cpu *j)
{
	free(j->work);
	j->work = NULL;
}

/* ---- decoding ---- */

static unsigned
class_of(const ZydisDecodedOperand *o)
{
	return ZydisRegisterGetClass(o->reg.value);
}

static bool
is_gpr(const ZydisDecodedOperand *o)
{
	unsigned c = class_of(o);

	return c == ZYDIS_REGCLASS_GPR8 || c == ZYDIS_REGCLASS_GPR16 || c == ZYDIS_REGCLASS_GPR32 ||
	       c == ZYDIS_REGCLASS_GPR64;
}

static bool
is_high_byte(const ZydisDecodedOperand *o)
{
	return o->reg.value >= ZYDIS_REGISTER_AH && o->reg.value <= ZYDIS_REGISTER_BH;
}

/* Number of the guest register an operand is (part of). */
static unsigned
guest_gpr(ZydisRegister r)
{
	ZydisRegister wide = ZydisRegisterGetLargestEnclosing(ZYDIS_MACHINE_MODE_LONG_64, r);

	return (unsigned)ZydisRegisterGetId(wide);
}

static void
refuse(struct insn *n, enum jit_refusal why)
{
	n->kind = K_HELP;
	n->why = why;
	n->reads = n->kills = n->may = ARITH_FLAGS;
	n->mem = NULL;
}

static void
find_flags(struct insn *n)
{
	const ZydisAccessedFlags *a = n->in.cpu_flags;

	if (!a)
		return;
	n->reads = a->tested & ARITH_FLAGS;
	n->may = (a->modified | a->set_0 | a->set_1 | a->undefined) & ARITH_FLAGS;
	n->kills = n->may;
	switch (n->in.mnemonic) {
	case ZYDIS_MNEMONIC_BT: /* processors leave alone what is undefined */
	case ZYDIS_MNEMONIC_BTS:
	case ZYDIS_MNEMONIC_BTR:
	case ZYDIS_MNEMONIC_BTC:
		n->kills = FLAG_CF;
		break;
	case ZYDIS_MNEMONIC_SHL: /* a count of 0 changes none */
	case ZYDIS_MNEMONIC_SHR:
	case ZYDIS_MNEMONIC_SAR:
	case ZYDIS_MNEMONIC_ROL:
	case ZYDIS_MNEMONIC_ROR:
	case ZYDIS_MNEMONIC_RCL:
	case ZYDIS_MNEMONIC_RCR:
	case ZYDIS_MNEMONIC_SHLD:
	case ZYDIS_MNEMONIC_SHRD: {
		const ZydisDecodedOperand *c = &n->o[n->in.operand_count_visible - 1];

		if (c->type != ZYDIS_OPERAND_TYPE_IMMEDIATE || !(c->imm.value.u & 31)) {
			n->may = ARITH_FLAGS;
			n->kills = 0;
		}
		break;
	}
	default:
		break;
	}
}

/* The one memory operand that ModRM (or moffs) encodes. False: there is another kind. */
static bool
find_memory(struct insn *n)
{
	for (unsigned i = 0; i < n->in.operand_count; i++) {
		const ZydisDecodedOperand *o = &n->o[i];

		if (o->type != ZYDIS_OPERAND_TYPE_MEMORY)
			continue;
		if (n->mem || (o->mem.type != ZYDIS_MEMOP_TYPE_MEM && o->mem.type != ZYDIS_MEMOP_TYPE_AGEN) ||
			(o->encoding != ZYDIS_OPERAND_ENCODING_MODRM_RM &&
				o->encoding != ZYDIS_OPERAND_ENCODING_DISP16_32_64))
			return false;
		n->mem = o;
	}
	return true;
}

static bool
address_ok(const struct jit_scratch *t, const struct insn *n)
{
	const ZydisDecodedOperandMem *m = &n->mem->mem;

	if (n->in.address_width == 16)
		return false;
	if (m->base == ZYDIS_REGISTER_RIP)
		return m->disp.value == (int32_t)m->disp.value && (int32_t)m->disp.value < INT32_MAX - 8192;
	if (m->base == ZYDIS_REGISTER_EIP)
		return false;
	if (m->disp.value != (int32_t)m->disp.value && n->mem->encoding == ZYDIS_OPERAND_ENCODING_MODRM_RM)
		return false;
	return t->wide || m->segment < ZYDIS_REGISTER_FS;
}

static unsigned
mem_size(const struct insn *n)
{
	return n->vec ? n->vec->mem_size : n->mem->size / 8u;
}

/* Register operands that can be renamed; `vectors`: or kept. */
static bool
registers_ok(const struct insn *n, bool vectors)
{
	for (unsigned i = 0; i < n->in.operand_count; i++) {
		const ZydisDecodedOperand *o = &n->o[i];

		if (o->type == ZYDIS_OPERAND_TYPE_POINTER)
			return false;
		if (o->type != ZYDIS_OPERAND_TYPE_REGISTER)
			continue;
		switch (class_of(o)) {
		case ZYDIS_REGCLASS_GPR8:
		case ZYDIS_REGCLASS_GPR16:
		case ZYDIS_REGCLASS_GPR32:
		case ZYDIS_REGCLASS_GPR64:
			if (o->encoding == ZYDIS_OPERAND_ENCODING_NONE && guest_gpr(o->reg.value) > RBX)
				return false;
			break;
		case ZYDIS_REGCLASS_FLAGS:
			break;
		default:
			if (!vectors)
				return false;
		}
	}
	return true;
}

static void
pass(struct jit_scratch *t, struct insn *n)
{
	n->kind = K_PASS;
	if (!find_memory(n) || !registers_ok(n, false)) {
		refuse(n, JIT_RARE);
		return;
	}
	if (n->mem && (!address_ok(t, n) || mem_size(n) & (mem_size(n) - 1) || !mem_size(n)))
		refuse(n, JIT_ADDRESS);
}

/* With a register as bit index the operand is a string of bits around the address. */
static void
bit_test(struct jit_scratch *t, struct insn *n)
{
	pass(t, n);
	if (n->mem && n->o[1].type == ZYDIS_OPERAND_TYPE_REGISTER)
		refuse(n, JIT_ADDRESS);
}

static void
stack_insn(struct jit_scratch *t, struct insn *n, enum kind kind)
{
	const ZydisDecodedOperand *o = &n->o[0];

	n->kind = kind;
	if (n->in.operand_width != t->stack * 8) {
		refuse(n, JIT_RARE);
		return;
	}
	if (o->type == ZYDIS_OPERAND_TYPE_REGISTER && !is_gpr(o)) {
		refuse(n, JIT_SYSTEM);
		return;
	}
	if (o->type == ZYDIS_OPERAND_TYPE_MEMORY) {
		n->mem = o;
		if (kind == K_POP || !address_ok(t, n))
			refuse(n, JIT_ADDRESS);
	}
}

static void
flow(struct jit_scratch *t, struct insn *n, enum kind kind)
{
	const ZydisDecodedOperand *o = &n->o[0];

	n->kind = kind;
	n->ends = kind != K_JCC;
	if (n->in.meta.branch_type == ZYDIS_BRANCH_TYPE_FAR || (n->in.operand_width != t->stack * 8)) {
		refuse(n, JIT_FAR);
		n->ends = true;
		return;
	}
	if (kind != K_RET && o->type == ZYDIS_OPERAND_TYPE_MEMORY) {
		n->mem = o;
		if (!address_ok(t, n))
			refuse(n, JIT_ADDRESS);
	}
	if (kind == K_CALL && o->type == ZYDIS_OPERAND_TYPE_REGISTER && guest_gpr(o->reg.value) == RSP)
		refuse(n, JIT_RARE);
}

static void
divide(struct jit_scratch *t, struct insn *n)
{
	pass(t, n);
	if (n->kind != K_PASS)
		return;
	n->kind = K_DIV;
	n->reads = n->kills = n->may = 0; /* flags are undefined; processors leave them alone */
	if (n->in.operand_width < 32 || n->o[0].size < 32)
		refuse(n, JIT_RARE);
}

static bool
is_string(const struct insn *n)
{
	uint8_t op = n->in.opcode;

	return n->in.encoding == ZYDIS_INSTRUCTION_ENCODING_LEGACY && n->in.opcode_map == ZYDIS_OPCODE_MAP_DEFAULT &&
	       ((op >= 0x6c && op <= 0x6f) || (op >= 0xa4 && op <= 0xa7) || (op >= 0xaa && op <= 0xaf));
}

/* INS, OUTS and unusual addresses are the interpreter's. */
static void
string(struct jit_scratch *t, struct insn *n)
{
	refuse(n, JIT_STRING);
	if (n->in.opcode < 0xa4 || !t->wide || n->in.address_width != 64)
		return;
	for (unsigned i = 0; i < n->in.raw.prefix_count; i++)
		if (n->in.raw.prefixes[i].value == 0x64 || n->in.raw.prefixes[i].value == 0x65)
			return;
	n->kind = K_STRING;
}

static bool
is_condition(const struct insn *n, unsigned row)
{
	return n->in.encoding == ZYDIS_INSTRUCTION_ENCODING_LEGACY && n->in.opcode_map == ZYDIS_OPCODE_MAP_0F &&
	       (n->in.opcode & 0xf0) == row;
}

static bool
is_jcc(const struct insn *n)
{
	return is_condition(n, 0x80) ||
	       (n->in.encoding == ZYDIS_INSTRUCTION_ENCODING_LEGACY && n->in.opcode_map == ZYDIS_OPCODE_MAP_DEFAULT &&
		       (n->in.opcode & 0xf0) == 0x70);
}

#define M(name) case ZYDIS_MNEMONIC_##name

/* Instructions of general registers that run as they are. */
static bool
is_plain(ZydisMnemonic m)
{
	switch (m) {
		M(ADD)
		    : M(OR)
		    : M(ADC)
		    : M(SBB)
		    : M(AND)
		    : M(SUB)
		    : M(XOR)
		    : M(CMP)
		    : M(TEST)
		    : M(INC)
		    : M(DEC)
		    : M(NEG)
		    : M(NOT)
		    : M(ROL)
		    : M(ROR)
		    : M(RCL)
		    : M(RCR)
		    : M(SHL)
		    : M(SHR)
		    : M(SAR)
		    : M(SHLD)
		    : M(SHRD)
		    : M(BSF)
		    : M(BSR)
		    : M(IMUL)
		    : M(MUL)
		    : M(XADD)
		    : M(CMPXCHG)
		    : M(XCHG)
		    : M(MOV)
		    : M(MOVZX)
		    : M(MOVSX)
		    : M(MOVSXD)
		    : M(CBW)
		    : M(CWDE)
		    : M(CDQE)
		    : M(CWD)
		    : M(CDQ)
		    : M(CQO)
		    : M(CLC)
		    : M(STC) : M(CMC) : M(LAHF) : M(SAHF) : M(BSWAP) : M(MOVNTI) : M(PAUSE) : M(MFENCE) : return true;
	default:
		return false;
	}
}

/* The same, but only where the guest's CPUID offers them. */
static bool
is_offered(ZydisMnemonic m)
{
	switch (m) {
		M(TZCNT)
		    : M(LZCNT)
		    : M(POPCNT)
		    : M(MOVBE)
		    : M(CRC32)
		    : M(ADCX)
		    : M(ADOX)
		    : M(ANDN)
		    : M(BEXTR)
		    : M(BLSI)
		    : M(BLSMSK)
		    : M(BLSR)
		    : M(BZHI) : M(MULX) : M(PDEP) : M(PEXT) : M(RORX) : M(SARX) : M(SHLX) : M(SHRX) : return true;
	default:
		return false;
	}
}

static bool
is_nop(ZydisMnemonic m)
{
	switch (m) {
		M(NOP)
		    : M(ENDBR32)
		    : M(ENDBR64)
		    : M(PREFETCH)
		    : M(PREFETCHNTA)
		    : M(PREFETCHT0)
		    : M(PREFETCHT1)
		    : M(PREFETCHT2) : M(PREFETCHW) : M(PREFETCHWT1) : M(CLDEMOTE) : M(LFENCE) : M(SFENCE) : return true;
	default:
		return false;
	}
}

static bool
is_system(ZydisMnemonic m)
{
	switch (m) {
		M(INT)
		    : M(INT1)
		    : M(INT3)
		    : M(INTO)
		    : M(IRET)
		    : M(IRETD)
		    : M(IRETQ)
		    : M(SYSCALL)
		    : M(SYSENTER) : M(SYSRET) : M(SYSEXIT) : M(UD0) : M(UD1) : M(UD2) : M(HLT) : return true;
	default:
		return false;
	}
}

static const struct vec_op *
compile(struct jit_scratch *t, struct insn *n)
{
	return vec_compile(&t->j->i.c, t->code + (n->off - t->first), n->in.length, &n->in, n->o);
}

/* Would it raise #UD or #NM now? All of these bits are part of the mode key. */
static bool
gate_open(const struct x86_state *s, const struct vec_gate *g)
{
	return !(s->cr0 & (g->cr0_ud | g->cr0_nm)) && !(g->cr0_mp && (s->cr0 & g->cr0_mp) == g->cr0_mp) &&
	       !(~s->cr4 & g->cr4_need) && !(~s->xcr0 & g->xcr0_need);
}

/* Vector instructions that run as they are. What masks faults of elements, and x87 and MMX, go another way. */
static void
vector(struct jit_scratch *t, struct insn *n)
{
	const struct vec_op *op = compile(t, n);

	refuse(n, op ? JIT_FP : n->in.meta.category == ZYDIS_CATEGORY_SYSTEM ? JIT_SYSTEM : JIT_RARE);
	if (!op || !t->wide || op->x87 || op->mmx || op->mask != VEC_MASK_NONE ||
		!gate_open(&t->j->i.c.v.state, &op->gate))
		return;
	if (op->run != vec_run_reg && op->run != vec_run_mem && op->run != vec_run_zero)
		return;
	if (!find_memory(n) || !registers_ok(n, true) || (n->mem && !address_ok(t, n)) || !n->mem != !op->mem_size ||
		op->mem_size & (op->mem_size - 1) || op->mem_size > 64 ||
		(op->align_mask && op->align_mask != op->mem_size - 1)) {
		n->mem = NULL;
		return;
	}
	n->kind = K_FP;
	n->vec = op;
	n->reads = op->flags_in;
	n->may = n->kills = op->flags_out;
}

/* At CPL 0 nothing is checked. */
static void
interrupt_flag(struct jit_scratch *t, struct insn *n)
{
	if (t->j->i.c.cpl) {
		refuse(n, JIT_SYSTEM);
		return;
	}
	n->kind = n->in.mnemonic == ZYDIS_MNEMONIC_CLI ? K_CLI : K_STI;
	n->reads = n->kills = n->may = 0;
}

/* Those of system.c. */
static bool
system_call(struct jit_scratch *t, struct insn *n)
{
	const struct soft_cpu *c = &t->j->i.c;
	bool smap = !c->cpl && c->v.cpus->model.cr4_supported & CR4_SMAP;

	if (!t->wide)
		return false;
	switch (n->in.mnemonic) {
	case ZYDIS_MNEMONIC_SYSCALL:
		n->system = JIT_SYSCALL;
		n->ends = true;
		break;
	case ZYDIS_MNEMONIC_SYSRET:
		n->system = JIT_SYSRET;
		n->ends = true;
		break;
	case ZYDIS_MNEMONIC_IRETQ:
		n->system = JIT_IRET;
		n->ends = true;
		break;
	case ZYDIS_MNEMONIC_SWAPGS:
		n->system = JIT_SWAPGS;
		break;
	case ZYDIS_MNEMONIC_POPFQ:
		n->system = JIT_POPF;
		break;
	case ZYDIS_MNEMONIC_STAC:
	case ZYDIS_MNEMONIC_CLAC:
		if (!smap)
			return false;
		n->system = n->in.mnemonic == ZYDIS_MNEMONIC_STAC ? JIT_STAC : JIT_CLAC;
		break;
	case ZYDIS_MNEMONIC_RDTSC:
		n->system = JIT_RDTSC;
		break;
	case ZYDIS_MNEMONIC_RDTSCP:
		n->system = JIT_RDTSCP;
		break;
	default:
		return false;
	}
	n->kind = K_SYSTEM;
	return true;
}

static void
classify(struct jit_scratch *t, struct insn *n)
{
	ZydisMnemonic m = n->in.mnemonic;

	find_flags(n);
	if (is_string(n)) {
		string(t, n);
	} else if (is_jcc(n)) {
		flow(t, n, K_JCC);
	} else if (is_condition(n, 0x40) || is_condition(n, 0x90) || is_plain(m)) {
		pass(t, n);
	} else if (is_offered(m)) {
		pass(t, n);
		if (n->kind == K_PASS && !compile(t, n))
			refuse(n, JIT_UNDEFINED);
	} else if (is_nop(m)) {
		n->kind = K_NOP;
		n->reads = n->kills = n->may = 0;
	} else if (system_call(t, n)) {
		n->reads = n->kills = n->may = ARITH_FLAGS;
	} else if (is_system(m)) {
		refuse(n, JIT_FAR);
		n->ends = true;
	} else {
		switch (m) {
			M(BT) : M(BTS) : M(BTR) : M(BTC) : bit_test(t, n);
			break;
			M(CMPXCHG8B) : M(CMPXCHG16B) : pass(t, n);
			break;
			M(DIV) : M(IDIV) : divide(t, n);
			break;
			M(LEA) : n->kind = K_LEA;
			n->mem = &n->o[1];
			if (n->in.operand_width == 16 || !address_ok(t, n) || n->in.address_width != t->stack * 8)
				refuse(n, JIT_ADDRESS);
			break;
			M(CLI) : M(STI) : interrupt_flag(t, n);
			break;
			M(PUSH) : stack_insn(t, n, K_PUSH);
			break;
			M(POP) : stack_insn(t, n, K_POP);
			break;
			M(LEAVE) : n->kind = K_LEAVE;
			if (n->in.operand_width != t->stack * 8)
				refuse(n, JIT_RARE);
			break;
			M(CALL) : flow(t, n, K_CALL);
			break;
			M(RET) : flow(t, n, K_RET);
			break;
			M(JMP) : flow(t, n, K_JMP);
			break;
		default:
			vector(t, n);
			break;
		}
	}
}

static void
make_decoder(struct jit_scratch *t)
{
	const struct soft_cpu *c = &t->j->i.c;

	if (t->wide)
		ZydisDecoderInit(&t->decoder, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
	else
		ZydisDecoderInit(&t->decoder,
			c->mode == X86_LONG32 ? ZYDIS_MACHINE_MODE_LONG_COMPAT_32 : ZYDIS_MACHINE_MODE_LEGACY_32,
			ZYDIS_STACK_WIDTH_32);
	/* what no guest is offered decodes as the NOP it is then */
	ZydisDecoderEnableMode(&t->decoder, ZYDIS_DECODER_MODE_MPX, ZYAN_FALSE);
	ZydisDecoderEnableMode(&t->decoder, ZYDIS_DECODER_MODE_CET, ZYAN_FALSE);
}

/* What cannot be decoded here is the interpreter's business, with all the bytes it wants. */
static void
decode_one(struct jit_scratch *t, struct insn *n, unsigned at)
{
	ZyanStatus s;

	memset(n, 0, offsetof(struct insn, o));
	n->mem = NULL;
	n->vec = NULL;
	n->kind = K_HELP;
	n->ends = false;
	n->reads = n->kills = n->may = 0;
	n->off = (uint16_t)(t->first + at);
	s = ZydisDecoderDecodeFull(&t->decoder, t->code + at, MIN(t->avail - at, 15), &n->in, n->o);
	if (ZYAN_SUCCESS(s)) {
		classify(t, n);
		return;
	}
	n->in.length = (uint8_t)MIN(t->avail - at, 15);
	refuse(n, s == ZYDIS_STATUS_NO_MORE_DATA ? JIT_CROSSING : JIT_UNDEFINED);
	n->ends = true;
}

/* Returns the bytes used. */
static unsigned
decode(struct jit_scratch *t)
{
	unsigned at = 0;

	t->count = 0;
	while (t->count < JIT_BLOCK_INSNS && at < t->avail && at <= JIT_BLOCK_BYTES - 15) {
		struct insn *n = &t->insn[t->count];

		decode_one(t, n, at);
		if (n->kind == K_HELP && n->why == JIT_CROSSING && t->count)
			break;
		at += n->in.length;
		t->count++;
		if (n->ends)
			break;
	}
	return at;
}

/* The instruction behind STI has to be in the same block: interrupts are taken between blocks. */
static void
check_shadow(struct jit_scratch *t)
{
	struct insn *last = &t->insn[t->count - 1];

	if (last->kind == K_STI)
		refuse(last, JIT_STEP);
}

static void
find_liveness(struct jit_scratch *t)
{
	uint32_t live = ARITH_FLAGS;

	for (unsigned i = t->count; i-- > 0;) {
		struct insn *n = &t->insn[i];

		if (n->kind == K_JCC || n->kind == K_HELP || n->kind == K_SYSTEM || n->kind == K_STRING)
			live = ARITH_FLAGS;
		n->live_out = live;
		live = (live & ~n->kills) | n->reads;
		if (n->kind == K_HELP || n->kind == K_SYSTEM || n->kind == K_STRING)
			live = ARITH_FLAGS;
		n->live_in = live;
	}
}

static bool
needs_host(const struct insn *n)
{
	return n->reads || (n->may && n->live_in);
}

static enum assume
choose_assumption(const struct jit_scratch *t)
{
	if (!t->insn[0].live_in)
		return ASSUME_DEAD;
	for (unsigned i = 0; i < t->count; i++) {
		const struct insn *n = &t->insn[i];

		if (n->kind == K_HELP || n->kind == K_SYSTEM || n->kind == K_STRING || n->kind == K_CLI ||
			n->kind == K_STI || n->kind == K_CALL || n->kind == K_RET || n->mem || n->kind == K_PUSH ||
			n->kind == K_POP || n->kind == K_LEAVE)
			return ASSUME_MEM;
		if (n->kind == K_JCC || needs_host(n))
			return ASSUME_HOST;
	}
	return ASSUME_HOST;
}

/* ---- flags ---- */

static void
save_flags(struct jit_scratch *t)
{
	if (!t->mem_ok)
		e_flags_save(&t->e);
	t->mem_ok = true;
}

/* The host's flags are about to be lost; `live`: the guest's that count from here on. */
static void
clobber(struct jit_scratch *t, uint32_t live)
{
	if (live)
		save_flags(t);
	t->host_ok = false;
}

static void
need_host(struct jit_scratch *t)
{
	if (!t->host_ok)
		e_flags_load(&t->e);
	t->host_ok = true;
}

/* ---- things to be done behind the block ---- */

static struct later *
later(struct jit_scratch *t, enum later_kind kind, uint32_t site, uint32_t data)
{
	struct later *l = &t->later[t->laters++];

	*l = (struct later){ .kind = kind, .site = site, .data = data, .back = e_at(&t->e) };
	return l;
}

static uint32_t
site_of(const struct jit_scratch *t, const struct insn *n)
{
	return SITE_MAKE(n->off, n->in.length) | (t->mem_ok ? (uint32_t)SITE_FLAGS : 0);
}

/* ---- memory ---- */

/* Host register of a guest register; one that has none is loaded into `temp`. */
static unsigned
fetch(struct jit_scratch *t, unsigned guest, unsigned temp)
{
	if (jit_host_reg[guest] != NONE)
		return jit_host_reg[guest];
	e_load(&t->e, temp, JIT_OFF_GPR(guest));
	return temp;
}

/* The address (offset) of `m` into `dst`; T_B is used, flags are kept. */
static void
address(struct jit_scratch *t, const struct insn *n, const ZydisDecodedOperand *o, unsigned dst, bool w)
{
	const ZydisDecodedOperandMem *m = &o->mem;
	unsigned base = NONE, index = NONE, shift = 0;
	int32_t disp = (int32_t)m->disp.value;

	if (o->encoding == ZYDIS_OPERAND_ENCODING_DISP16_32_64 && t->wide) {
		E_BYTES(&t->e, 0x49, 0xb8 | (T_A & 7)); /* mov r11, imm64 */
		e_put(&t->e, &m->disp.value, 8);
		return;
	}
	if (m->base == ZYDIS_REGISTER_RIP) {
		e_load(&t->e, dst, JIT_OFF(page_va));
		e_lea(&t->e, w, dst, dst, NONE, 0, disp + n->off + n->in.length);
		return;
	}
	if (m->base != ZYDIS_REGISTER_NONE)
		base = fetch(t, guest_gpr(m->base), T_A);
	if (m->index != ZYDIS_REGISTER_NONE) {
		index = fetch(t, guest_gpr(m->index), T_B);
		shift = m->scale == 8 ? 3 : m->scale == 4 ? 2 : m->scale == 2 ? 1 : 0;
	}
	if (index == NONE && !disp && base != NONE && w)
		e_mov(&t->e, dst, base);
	else
		e_lea(&t->e, w, dst, base, index, shift, disp);
}

static void
linear_address(struct jit_scratch *t, const struct insn *n, const ZydisDecodedOperand *o)
{
	unsigned seg = o->mem.segment;

	address(t, n, o, T_A, n->in.address_width == 64);
	if (seg == ZYDIS_REGISTER_FS || seg == ZYDIS_REGISTER_GS) {
		e_load(&t->e, H_CX,
			JIT_OFF(i.c.v.state.seg) +
				(uint32_t)sizeof(struct x86_seg) * (seg == ZYDIS_REGISTER_FS ? SEG_FS : SEG_GS) +
				(uint32_t)offsetof(struct x86_seg, base));
		e_lea(&t->e, true, T_A, T_A, H_CX, 0, 0);
	}
}

/* T_A: linear address, becomes a host address; T_B: flags of the page, for stores. Clobbers RCX and host flags. */
static void
check(struct jit_scratch *t, const struct insn *n, unsigned size, unsigned how)
{
	struct emit *e = &t->e;
	uint32_t tag = how & SITE_WRITE ? (uint32_t)offsetof(struct soft_tlb_entry, write)
					: (uint32_t)offsetof(struct soft_tlb_entry, read);
	uint32_t site = site_of(t, n) | how | SITE_SIZE_BITS(__builtin_ctz(size)), miss, miss2 = 0;

	if (how & SITE_ALIGN) {
		E_BYTES(e, 0x41, 0xf6, 0xc0 | (T_A & 7), size - 1); /* test r11b, size - 1 */
		miss2 = e_jump_later(e, 5);
	}
	if (t->j->bmi2) {
		E_BYTES(e, 0xc4, 0xc3, 0x7b, 0xf0, 0xc8 | (T_A & 7), 7); /* rorx ecx, r11d, 7 */
	} else {
		e_mov32(e, H_CX, T_A);
		E_BYTES(e, 0xc1, 0xe9, 7); /* shr ecx, 7 */
	}
	if (size > 1)
		e_lea(e, true, T_B, T_A, NONE, 0, (int32_t)size - 1);
	else
		e_mov(e, T_B, T_A);
	e_alu_imm(e, true, 4, T_B, -(int32_t)PAGE_SIZE);
	e_alu_imm(e, false, 4, H_CX, (SOFT_TLB_SIZE - 1) * 32);
	e_gs(e, true, false, 0x0b, T_B, JIT_OFF(i.c.tlb_gen)); /* or */
	e_gs_rcx(e, 0x3b, T_B, t->tlb + tag);		       /* cmp */
	miss = e_jump_later(e, 5);
	e_gs_rcx(e, 0x03, T_A, t->tlb + (uint32_t)offsetof(struct soft_tlb_entry, delta)); /* add */
	if (how & SITE_WRITE)
		e_gs_rcx(e, 0x8b, T_B, t->tlb + (uint32_t)offsetof(struct soft_tlb_entry, flags));
	later(t, LATER_MEMORY, miss, site);
	if (miss2)
		later(t, LATER_MEMORY, miss2, site);
}

/* Behind a store: did it go to a page somebody watches? `live`: flags that count. */
static void
check_written(struct jit_scratch *t, const struct insn *n, unsigned size, uint32_t live, unsigned how)
{
	struct emit *e = &t->e;
	uint32_t site;

	if (!live || t->mem_ok) {
		E_BYTES(e, 0x41, 0x80, 0x38 | (T_B & 7), 0); /* cmp byte [r15], 0 */
		t->host_ok = false;
		site = e_jump_later(e, 5);
	} else {
		E_BYTES(e, 0x41, 0x0f, 0xb6, 0x08 | (T_B & 7)); /* movzx ecx, byte [r15] */
		e_jrcxz(e, 5);
		site = e_jump_later(e, 0xff);
	}
	later(t, LATER_WRITTEN, site, site_of(t, n) | how | SITE_SIZE_BITS(__builtin_ctz(size)));
}

static unsigned
segment_bit(const struct insn *n)
{
	return n->mem && n->mem->mem.segment == ZYDIS_REGISTER_SS ? SITE_SS : 0;
}

/* ---- flow ---- */

/* T_A = rip: through the jump cache. Flags are in memory form. */
static void
far_jump(struct jit_scratch *t)
{
	struct emit *e = &t->e;
	uint32_t site;

	E_BYTES(e, 0x41, 0x69, 0xc8 | (T_A & 7)); /* imul ecx, r11d, JIT_HASH */
	e32(e, JIT_HASH);
	E_BYTES(e, 0xc1, 0xe9, 32 - 4 - JIT_TARGET_BITS); /* shr ecx */
	e_alu_imm(e, false, 4, H_CX, (JIT_TARGETS - 1) << 4);
	e_mov(e, T_B, T_A);
	e_gs(e, true, false, 0x33, T_B, JIT_OFF(ctx));
	e_gs_rcx(e, 0x3b, T_B, JIT_OFF(target));
	site = e_jump_later(e, 5);
	E_BYTES(e, 0x65, 0xff, 0xa1); /* jmp gs:[rcx + target.code] */
	e32(e, JIT_OFF(target) + (uint32_t)offsetof(struct jit_target, code));
	e_set(e, site, t->j->stub.jump);
}

static void
rip_to(struct jit_scratch *t, unsigned reg, int64_t off)
{
	e_load(&t->e, reg, JIT_OFF(page_va));
	if (off)
		e_lea(&t->e, t->wide, reg, reg, NONE, 0, (int32_t)off);
}

static bool
in_page(int64_t off)
{
	return off >= 0 && off < PAGE_SIZE;
}

/* The rel32 at `site` becomes a link to the block at `off`. */
static void
link_site(struct jit_scratch *t, uint32_t site, int64_t off, bool mem)
{
	struct jit_link *l = jit_meta(t->j, sizeof(*l));

	l->from = t->b;
	l->site = site;
	l->target = (uint16_t)off;
	l->mem = mem;
	l->ahead = off > t->now;
	later(t, LATER_LINK, site, (uint32_t)((uint8_t *)l - t->j->meta))->save = !t->mem_ok;
}

/* Go to `off` in (or out of) this page. */
static void
direct_jump(struct jit_scratch *t, int64_t off)
{
	if (in_page(off)) {
		link_site(t, e_jump_later(&t->e, 0xff), off, !t->host_ok);
		return;
	}
	save_flags(t);
	rip_to(t, T_A, off);
	far_jump(t);
}

static int64_t
target_of(const struct insn *n)
{
	return n->off + n->in.length + n->o[0].imm.value.s;
}

static void
conditional_jump(struct jit_scratch *t, const struct insn *n)
{
	int64_t off = target_of(n);
	unsigned cc = n->in.opcode & 15;

	need_host(t);
	if (in_page(off))
		link_site(t, e_jump_later(&t->e, cc), off, false);
	else
		later(t, LATER_FAR, e_jump_later(&t->e, cc), (uint32_t)(int32_t)off)->save = !t->mem_ok;
}

/* ---- instructions ---- */

/* Guest registers that need a temporary for one instruction. */
struct slots {
	struct {
		uint8_t guest, host;
		bool in, out;
	} s[3];
	unsigned count;
	uint32_t free; /* temporaries, by number */
};

static unsigned
take_slot(struct slots *s, unsigned guest, unsigned host, bool in, bool out)
{
	for (unsigned i = 0; i < s->count; i++)
		if (s->s[i].guest == guest) {
			s->s[i].in |= in;
			s->s[i].out |= out;
			return s->s[i].host;
		}
	if (host == NONE) {
		static const uint8_t order[] = { H_CX, T_B, T_A };

		for (unsigned i = 0; i < 3 && host == NONE; i++)
			if (s->free & 1u << order[i])
				host = order[i];
	}
	if (host == NONE || !(s->free & 1u << host))
		return NONE;
	s->free &= ~(1u << host);
	s->s[s->count].guest = (uint8_t)guest;
	s->s[s->count].host = (uint8_t)host;
	s->s[s->count].in = in;
	s->s[s->count++].out = out;
	return host;
}

static bool
place(struct jit_form *f, const ZydisDecodedOperand *o, unsigned host)
{
	switch (o->encoding) {
	case ZYDIS_OPERAND_ENCODING_MODRM_REG:
		f->reg = (uint8_t)host;
		return true;
	case ZYDIS_OPERAND_ENCODING_MODRM_RM:
		f->rm = (uint8_t)host;
		return true;
	case ZYDIS_OPERAND_ENCODING_NDSNDD:
		f->vvvv = (uint8_t)host;
		return true;
	case ZYDIS_OPERAND_ENCODING_OPCODE:
		f->opreg = (uint8_t)host;
		return true;
	default:
		return o->encoding == ZYDIS_OPERAND_ENCODING_NONE;
	}
}

static bool
any_high_byte(const struct insn *n)
{
	for (unsigned i = 0; i < n->in.operand_count; i++)
		if (n->o[i].type == ZYDIS_OPERAND_TYPE_REGISTER && is_high_byte(&n->o[i]))
			return true;
	return false;
}

static bool
place_gpr(struct slots *s, struct jit_form *f, const ZydisDecodedOperand *o, bool high, bool keep)
{
	unsigned g = guest_gpr(o->reg.value), host = jit_host_reg[g];
	bool in = o->actions & ZYDIS_OPERAND_ACTION_MASK_READ || o->size < 32 ||
		  o->actions & ZYDIS_OPERAND_ACTION_CONDWRITE || keep;
	bool out = o->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE;

	if (o->encoding == ZYDIS_OPERAND_ENCODING_NONE && g != RCX)
		return true;
	if (g == RCX && (high || o->encoding == ZYDIS_OPERAND_ENCODING_NONE))
		host = take_slot(s, RCX, H_CX, in, out);
	else if (g == RSP && high)
		return false;
	else if (host == NONE)
		host = take_slot(s, g, NONE, in, out);
	if (host == NONE)
		return false;
	if (is_high_byte(o))
		host += 4;
	else if (o->size == 8 && host >= 4)
		f->force_rex = true;
	return place(f, o, host);
}

/* The implicit RCX first: it has no choice. */
static bool
place_registers(const struct insn *n, struct slots *s, struct jit_form *f)
{
	bool high = any_high_byte(n);
	bool keep = n->in.mnemonic == ZYDIS_MNEMONIC_BSF || n->in.mnemonic == ZYDIS_MNEMONIC_BSR;

	for (unsigned round = 0; round < 2; round++)
		for (unsigned i = 0; i < n->in.operand_count; i++) {
			const ZydisDecodedOperand *o = &n->o[i];
			bool first = o->encoding == ZYDIS_OPERAND_ENCODING_NONE || high;

			if (o->type != ZYDIS_OPERAND_TYPE_REGISTER || first != (round == 0))
				continue;
			if (!is_gpr(o)) {
				int id = ZydisRegisterGetId(o->reg.value);

				if (id >= 0 && o->encoding != ZYDIS_OPERAND_ENCODING_NONE)
					place(f, o, (unsigned)id);
			} else if (!place_gpr(s, f, o, high, keep))
				return false;
		}
	return true;
}

static void
load_slots(struct jit_scratch *t, const struct slots *s)
{
	for (unsigned i = 0; i < s->count; i++) {
		if (!s->s[i].in)
			continue;
		if (jit_host_reg[s->s[i].guest] != NONE)
			e_mov(&t->e, s->s[i].host, jit_host_reg[s->s[i].guest]);
		else
			e_load(&t->e, s->s[i].host, JIT_OFF_GPR(s->s[i].guest));
	}
}

static void
store_slots(struct jit_scratch *t, const struct slots *s)
{
	for (unsigned i = 0; i < s->count; i++) {
		if (!s->s[i].out)
			continue;
		if (jit_host_reg[s->s[i].guest] != NONE)
			e_mov(&t->e, jit_host_reg[s->s[i].guest], s->s[i].host);
		else
			e_store(&t->e, s->s[i].host, JIT_OFF_GPR(s->s[i].guest));
	}
}

static void
help(struct jit_scratch *t, const struct insn *n)
{
	save_flags(t);
	e_mov_imm32(&t->e, H_CX, site_of(t, n) | SITE_REFUSAL(n->why));
	e_mov_imm32(&t->e, T_A, HELP_INTERP);
	e_call(&t->e, t->j->stub.call);
	t->host_ok = t->fp_ok = false;
}

static void
string_help(struct jit_scratch *t, const struct insn *n)
{
	static const uint8_t kinds[12] = { JIT_MOVS, JIT_MOVS, JIT_CMPS, JIT_CMPS, 0, 0, JIT_STOS, JIT_STOS, JIT_LODS,
		JIT_LODS, JIT_SCAS, JIT_SCAS };
	unsigned size = n->in.opcode & 1 ? n->in.operand_width / 8u : 1;
	uint32_t site;

	save_flags(t);
	site = site_of(t, n) | SITE_SIZE_BITS(__builtin_ctz(size)) | SITE_REFUSAL(kinds[n->in.opcode - 0xa4]);
	for (unsigned i = 0; i < n->in.raw.prefix_count; i++) {
		if (n->in.raw.prefixes[i].value == 0xf3)
			site = (site & ~(uint32_t)SITE_WRITE) | SITE_READ;
		else if (n->in.raw.prefixes[i].value == 0xf2)
			site = (site & ~(uint32_t)SITE_READ) | SITE_WRITE;
	}
	e_mov_imm32(&t->e, H_CX, site);
	e_mov_imm32(&t->e, T_A, HELP_STRING);
	e_call(&t->e, t->j->stub.call);
	t->host_ok = t->fp_ok = false;
}

static void
system_help(struct jit_scratch *t, const struct insn *n)
{
	bool quad =
		n->in.mnemonic != ZYDIS_MNEMONIC_SYSRET || (n->in.attributes & ZYDIS_ATTRIB_HAS_REX && n->in.raw.rex.W);

	save_flags(t);
	e_mov_imm32(&t->e, H_CX, site_of(t, n) | SITE_SIZE_BITS(quad ? 3 : 2) | SITE_REFUSAL(n->system));
	e_mov_imm32(&t->e, T_A, HELP_SYSTEM);
	e_call(&t->e, t->j->stub.call);
	t->host_ok = t->fp_ok = false;
}

static unsigned
access_of(const struct insn *n)
{
	unsigned a = n->mem->actions;

	if (n->vec)
		return (n->vec->mem_write ? SITE_WRITE : 0) | (n->vec->mem_read ? SITE_READ : 0) | segment_bit(n) |
		       (n->vec->align_mask ? SITE_ALIGN : 0);

	return (a & ZYDIS_OPERAND_ACTION_MASK_WRITE ? SITE_WRITE : 0) |
	       (a & ZYDIS_OPERAND_ACTION_MASK_READ ? SITE_READ : 0) | segment_bit(n) |
	       (n->in.mnemonic == ZYDIS_MNEMONIC_CMPXCHG16B ? SITE_ALIGN : 0);
}

/* Can this instruction's registers be placed? Decided before anything is written. */
static bool
plan(const struct insn *n, struct slots *s, struct jit_form *f)
{
	bool write = n->mem && access_of(n) & SITE_WRITE;

	*f = (struct jit_form){ NONE, NONE, NONE, NONE, NONE, false };
	memset(s, 0, sizeof(*s));
	s->free = 1u << H_CX | (write ? 0 : 1u << T_B) | (n->mem ? 0 : 1u << T_A);
	if (n->mem) {
		f->base = T_A;
		if (any_high_byte(n)) { /* no REX: the address goes to RCX */
			f->base = H_CX;
			s->free &= ~(1u << H_CX);
		}
	}
	return place_registers(n, s, f);
}

/* Vector registers are to be in the host's. The flags stay as they are. */
static void
need_fp(struct jit_scratch *t, const struct insn *n)
{
	struct later *l;

	if (t->fp_ok)
		return;
	e_load32(&t->e, H_CX, JIT_OFF(fp_off));
	e_jrcxz(&t->e, 5);
	l = later(t, LATER_FP, e_jump_later(&t->e, 0xff), site_of(t, n) | SITE_REFUSAL(JIT_FP));
	l->save = !t->mem_ok;
	l->load = t->host_ok;
	t->fp_ok = true;
}

static void
passing(struct jit_scratch *t, struct insn *n)
{
	struct slots s;
	struct jit_form f;
	unsigned how = 0;

	if (!plan(n, &s, &f)) {
		refuse(n, JIT_REGISTERS);
		n->live_in = n->live_out = ARITH_FLAGS;
		help(t, n);
		return;
	}
	if (n->kind == K_FP)
		need_fp(t, n);
	if (n->mem) {
		how = access_of(n);
		clobber(t, n->live_in);
		linear_address(t, n, n->mem);
		check(t, n, mem_size(n), how);
	}
	if (needs_host(n))
		need_host(t);
	if (f.base == H_CX)
		e_mov(&t->e, H_CX, T_A);
	load_slots(t, &s);
	jit_encode(&t->e, &n->in, t->code + (n->off - t->first), &f);
	if (n->may) {
		t->host_ok = true;
		t->mem_ok = false;
	}
	store_slots(t, &s);
	if (how & SITE_WRITE)
		check_written(t, n, mem_size(n), n->live_out, how);
}

static void
lea(struct jit_scratch *t, const struct insn *n)
{
	unsigned g = guest_gpr(n->o[0].reg.value), host = jit_host_reg[g];
	bool w = n->in.operand_width == 64;

	address(t, n, n->mem, host == NONE ? T_A : host, w);
	if (host == NONE)
		e_store(&t->e, T_A, JIT_OFF_GPR(g));
}

static void
move_sp(struct jit_scratch *t, int32_t by)
{
	e_lea(&t->e, t->wide, H_10, H_10, NONE, 0, by);
}

/* The place on top of the stack for one push; T_A. */
static void
push_check(struct jit_scratch *t, const struct insn *n, unsigned how)
{
	e_lea(&t->e, t->wide, T_A, H_10, NONE, 0, -(int32_t)t->stack);
	check(t, n, t->stack, SITE_WRITE | SITE_SS | how);
}

static void
pop_check(struct jit_scratch *t, const struct insn *n, unsigned from)
{
	e_mov(&t->e, T_A, from);
	check(t, n, t->stack, SITE_READ | SITE_SS);
}

static void
store_value(struct jit_scratch *t, unsigned reg)
{
	e_mem(&t->e, t->wide, 0x89, reg, T_A, NONE, 0, 0);
}

static void
load_value(struct jit_scratch *t, unsigned reg)
{
	e_mem(&t->e, t->wide, 0x8b, reg, T_A, NONE, 0, 0);
}

static void
load_operand(struct jit_scratch *t, const struct insn *n)
{
	linear_address(t, n, n->mem);
	check(t, n, t->stack, SITE_READ | segment_bit(n));
	load_value(t, H_CX);
}

static void
push(struct jit_scratch *t, const struct insn *n)
{
	const ZydisDecodedOperand *o = &n->o[0];

	clobber(t, n->live_in);
	if (n->mem) {
		load_operand(t, n);
		e_store(&t->e, H_CX, JIT_OFF(scratch));
	}
	push_check(t, n, 0);
	if (n->mem) {
		e_load(&t->e, H_CX, JIT_OFF(scratch));
		store_value(t, H_CX);
	} else if (o->type == ZYDIS_OPERAND_TYPE_IMMEDIATE) {
		e_mem(&t->e, t->wide, 0xc7, 0, T_A, NONE, 0, 0);
		e32(&t->e, (uint32_t)o->imm.value.s);
	} else {
		store_value(t, fetch(t, guest_gpr(o->reg.value), H_CX));
	}
	move_sp(t, -(int32_t)t->stack);
	check_written(t, n, t->stack, n->live_out, SITE_WRITE);
}

static void
pop(struct jit_scratch *t, const struct insn *n)
{
	unsigned g = guest_gpr(n->o[0].reg.value), host = jit_host_reg[g];

	clobber(t, n->live_in);
	pop_check(t, n, H_10);
	load_value(t, host == NONE ? H_CX : host);
	if (host == NONE)
		e_store(&t->e, H_CX, JIT_OFF_GPR(g));
	if (g != RSP)
		move_sp(t, (int32_t)t->stack);
}

static void
leave(struct jit_scratch *t, const struct insn *n)
{
	clobber(t, n->live_in);
	pop_check(t, n, H_BP);
	e_lea(&t->e, t->wide, H_10, H_BP, NONE, 0, (int32_t)t->stack);
	load_value(t, H_BP);
}

static void
call(struct jit_scratch *t, const struct insn *n)
{
	const ZydisDecodedOperand *o = &n->o[0];

	clobber(t, ARITH_FLAGS);
	if (n->mem) {
		load_operand(t, n);
		e_store(&t->e, H_CX, JIT_OFF(scratch));
	}
	push_check(t, n, SITE_STAY);
	rip_to(t, H_CX, n->off + n->in.length);
	store_value(t, H_CX);
	move_sp(t, -(int32_t)t->stack);
	check_written(t, n, t->stack, ARITH_FLAGS, SITE_WRITE | SITE_STAY);
	if (o->type == ZYDIS_OPERAND_TYPE_IMMEDIATE) {
		direct_jump(t, target_of(n));
		return;
	}
	if (n->mem)
		e_load(&t->e, T_A, JIT_OFF(scratch));
	else
		e_mov(&t->e, T_A, fetch(t, guest_gpr(o->reg.value), T_A));
	far_jump(t);
}

static void
ret(struct jit_scratch *t, const struct insn *n)
{
	int32_t more = n->o[0].type == ZYDIS_OPERAND_TYPE_IMMEDIATE ? (int32_t)(n->o[0].imm.value.u & 0xffff) : 0;

	clobber(t, ARITH_FLAGS);
	pop_check(t, n, H_10);
	load_value(t, T_A);
	move_sp(t, (int32_t)t->stack + more);
	far_jump(t);
}

static void
jump(struct jit_scratch *t, const struct insn *n)
{
	const ZydisDecodedOperand *o = &n->o[0];

	if (o->type == ZYDIS_OPERAND_TYPE_IMMEDIATE) {
		direct_jump(t, target_of(n));
		return;
	}
	clobber(t, ARITH_FLAGS);
	if (n->mem) {
		load_operand(t, n);
		e_mov(&t->e, T_A, H_CX);
	} else {
		e_mov(&t->e, T_A, fetch(t, guest_gpr(o->reg.value), T_A));
	}
	far_jump(t);
}

/* Overflow and division by 0 are left to the interpreter: a host exception would be a signal. */
static void
division(struct jit_scratch *t, const struct insn *n)
{
	struct emit *e = &t->e;
	bool w = n->in.operand_width == 64, is_signed = n->in.mnemonic == ZYDIS_MNEMONIC_IDIV;
	uint32_t data, out[2];
	unsigned outs = 0;

	clobber(t, n->live_in);
	if (n->mem) {
		linear_address(t, n, n->mem);
		check(t, n, mem_size(n), SITE_READ | segment_bit(n));
		e_mem(e, w, 0x8b, H_CX, T_A, NONE, 0, 0);
	} else {
		e_mov(e, H_CX, fetch(t, guest_gpr(n->o[0].reg.value), H_CX));
	}
	if (is_signed) {
		e_mov(e, T_B, H_AX);
		e_rex(e, w, 0, 0, T_B); /* sar r15, 63 or 31 */
		E_BYTES(e, 0xc1, 0xf8 | (T_B & 7), w ? 63 : 31);
		e_rr(e, w, 0x39, H_DX, T_B);
		out[outs++] = e_jump_later(e, 5);
		e_lea(e, w, T_B, H_CX, NONE, 0, 1);
		e_alu_imm(e, w, 7, T_B, 1);
		out[outs++] = e_jump_later(e, 6);
	} else {
		e_rr(e, w, 0x39, H_CX, H_DX); /* cmp rdx, rcx */
		out[outs++] = e_jump_later(e, 3);
	}
	e_rr(e, w, 0xf7, is_signed ? 7 : 6, H_CX);
	data = site_of(t, n) | SITE_REFUSAL(JIT_DIVIDE);
	for (unsigned i = 0; i < outs; i++)
		later(t, LATER_HELP, out[i], data);
	t->fp_ok = t->host_ok = false;
}

static void
clear_or_set_if(struct jit_scratch *t, const struct insn *n)
{
	struct emit *e = &t->e;

	clobber(t, n->live_in);
	if (n->kind == K_CLI) {
		e_gs(e, false, false, 0x81, 4, JIT_OFF(i.c.v.state.rflags)); /* and */
		e32(e, ~(uint32_t)FLAG_IF);
		return;
	}
	e_gs(e, false, false, 0x81, 1, JIT_OFF(i.c.v.state.rflags)); /* or */
	e32(e, FLAG_IF);
	e_gs(e, false, false, 0x83, 7, JIT_OFF(i.c.v.requests)); /* cmp dword [requests], 0 */
	e8(e, 0);
	E_BYTES(e, 0x74, 12); /* je over the next */
	e_gs(e, false, false, 0xc7, 0, JIT_OFF(run_ok));
	e32(e, 0);
}

static void
write_insn(struct jit_scratch *t, struct insn *n)
{
	switch (n->kind) {
	case K_PASS:
	case K_FP:
		passing(t, n);
		break;
	case K_NOP:
		break;
	case K_LEA:
		lea(t, n);
		break;
	case K_PUSH:
		push(t, n);
		break;
	case K_POP:
		pop(t, n);
		break;
	case K_LEAVE:
		leave(t, n);
		break;
	case K_CALL:
		call(t, n);
		break;
	case K_RET:
		ret(t, n);
		break;
	case K_JMP:
		jump(t, n);
		break;
	case K_JCC:
		conditional_jump(t, n);
		break;
	case K_DIV:
		division(t, n);
		break;
	case K_STRING:
		string_help(t, n);
		break;
	case K_SYSTEM:
		system_help(t, n);
		break;
	case K_CLI:
	case K_STI:
		clear_or_set_if(t, n);
		break;
	case K_HELP:
		help(t, n);
		break;
	}
}

/* ---- blocks ---- */

/* Entries and the poll. */
static void
write_entries(struct jit_scratch *t)
{
	struct emit *e = &t->e;
	enum assume assume = choose_assumption(t);
	struct jit_block *b = t->b;
	uint32_t over = 0, stop = e_at(e);

	/* JRCXZ reaches 128 bytes: what it leads to comes first */
	if (assume == ASSUME_HOST)
		e_flags_save(e);
	e_mov_imm32(e, T_A, t->first);
	e_jmp(e, t->j->stub.poll);
	if (assume == ASSUME_MEM) {
		b->near_entry = e_at(e);
		e_flags_save(e);
		over = e_jump_later(e, 0xff);
	}
	b->far_entry = e_at(e);
	e_lea(e, t->wide, T_A, T_A, NONE, 0, -(int32_t)t->first);
	e_store(e, T_A, JIT_OFF(page_va));
	b->mem_entry = e_at(e);
	if (assume == ASSUME_MEM)
		e_here(e, over);
	if (assume == ASSUME_HOST)
		e_flags_load(e);
	if (assume != ASSUME_MEM)
		b->near_entry = e_at(e);
	t->fp_ok = false;
	t->host_ok = assume != ASSUME_MEM;
	t->mem_ok = assume == ASSUME_MEM;
	e_load32(e, H_CX, JIT_OFF(run_ok));
	e_jrcxz(e, stop - (e_at(e) + 2));
	b->host_body = assume != ASSUME_MEM ? e_at(e) : 0;
	b->mem_body = assume == ASSUME_MEM ? e_at(e) : 0;
}

static void
write_later(struct jit_scratch *t, const struct later *l)
{
	struct emit *e = &t->e;
	struct jit_link *link;

	e_here(e, l->site);
	if (l->kind == LATER_LINK) {
		link = (struct jit_link *)(void *)(t->j->meta + l->data);
		link->stub = e_at(e);
	}
	if (l->save)
		e_flags_save(e);
	switch (l->kind) {
	case LATER_MEMORY:
		e_mov_imm32(e, H_CX, l->data);
		e_call(e, t->j->stub.memory);
		e_jmp(e, l->back);
		break;
	case LATER_WRITTEN:
		e_mov_imm32(e, H_CX, l->data);
		e_call(e, t->j->stub.written);
		e_jmp(e, l->back);
		break;
	case LATER_LINK:
		e_mov_imm32(e, H_CX, l->data);
		e_jmp(e, t->j->stub.link);
		break;
	case LATER_FAR:
		rip_to(t, T_A, (int32_t)l->data);
		far_jump(t);
		break;
	case LATER_FP:
		e_mov_imm32(e, H_CX, l->data | SITE_FLAGS);
		e_mov_imm32(e, T_A, HELP_FP);
		e_call(e, t->j->stub.call);
		if (l->load)
			e_flags_load(e);
		e_jmp(e, l->back);
		break;
	case LATER_HELP:
		e_mov_imm32(e, H_CX, l->data);
		e_mov_imm32(e, T_A, HELP_INTERP);
		e_call(e, t->j->stub.call);
		e_jmp(e, l->back);
		break;
	}
}

static struct jit_block *
new_block(struct jit_scratch *t, uintptr_t host, uint64_t key, struct soft_tlb_entry *e, unsigned bytes)
{
	struct jit_block *b = jit_meta(t->j, sizeof(*b) + bytes);

	b->host = host;
	b->key = key;
	b->page = jit_page_of(t->j, x86_tlb_meta(&t->j->i.c, e)->ram, x86_tlb_meta(&t->j->i.c, e)->page, true);
	b->bytes = (uint16_t)bytes;
	memcpy(b->code, t->code, bytes);
	return b;
}

static void
write_block(struct jit_scratch *t)
{
	const struct insn *last = &t->insn[t->count - 1];

	write_entries(t);
	for (unsigned i = 0; i < t->count; i++) {
		t->now = t->insn[i].off;
		write_insn(t, &t->insn[i]);
	}
	if (!last->ends || last->kind == K_HELP || last->kind == K_SYSTEM)
		direct_jump(t, last->off + last->in.length);
	/* what is seldom run goes elsewhere, so that hot code is dense */
	t->b->end = e_at(&t->e);
	t->e.p = t->j->rw + t->j->cold;
	for (unsigned i = 0; i < t->laters; i++)
		write_later(t, &t->later[i]);
}

struct jit_block *
jit_translate(struct jit_cpu *j, gva_t a, struct soft_tlb_entry *e, uint64_t key)
{
	struct jit_scratch *t = j->work;
	const struct soft_cpu *c = &j->i.c;
	uintptr_t host = a + e->delta;
	unsigned bytes;

	jit_make_room(j);
	t->first = a & PAGE_MASK;
	t->avail = MIN(PAGE_SIZE - t->first, (unsigned)sizeof(t->code));
	t->wide = c->mode == X86_LONG64;
	t->stack = t->wide ? 8 : 4;
	t->tlb = JIT_OFF(i.c.tlb) + (uint32_t)sizeof(c->tlb[0]) * c->mmu;
	t->laters = 0;
	mem_watch_code(x86_tlb_meta(&j->i.c, e)->ram, x86_tlb_meta(&j->i.c, e)->page);
	memcpy(t->code, (const void *)host, t->avail);
	make_decoder(t);
	bytes = decode(t);
	check_shadow(t);
	find_liveness(t);
	t->b = new_block(t, host, key, e, bytes);
	t->e = (struct emit){ j->rw + j->used, j->rw };
	write_block(t);
	j->guest_bytes += bytes;
	j->host_bytes += t->b->end - j->used;
	j->cold_bytes += e_at(&t->e) - j->cold;
	j->cold = e_at(&t->e);
	j->used = (t->b->end + 15) & ~15u;
	jit_add(j, t->b);
	j->i.c.v.count.blocks++;
	return t->b;
}
