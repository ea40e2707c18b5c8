/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Guest instructions: which are translated and how, what they do to the arithmetic flags.
 */
#include "cpu/x86/decode.h"
#include "cpu/jit/translate.h"

static unsigned
class_of(const ZydisDecodedOperand *o)
{
	return ZydisRegisterGetClass(o->reg.value);
}

bool
jit_is_gpr(const ZydisDecodedOperand *o)
{
	unsigned c = class_of(o);

	return c == ZYDIS_REGCLASS_GPR8 || c == ZYDIS_REGCLASS_GPR16 || c == ZYDIS_REGCLASS_GPR32 ||
	       c == ZYDIS_REGCLASS_GPR64;
}

bool
jit_is_high_byte(const ZydisDecodedOperand *o)
{
	return o->reg.value >= ZYDIS_REGISTER_AH && o->reg.value <= ZYDIS_REGISTER_BH;
}

/* Number of the guest register an operand is (part of). */
unsigned
jit_guest_gpr(ZydisRegister r)
{
	ZydisRegister wide = ZydisRegisterGetLargestEnclosing(ZYDIS_MACHINE_MODE_LONG_64, r);

	return (unsigned)ZydisRegisterGetId(wide);
}

void
jit_refuse(struct insn *n, enum jit_refusal why)
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
	if (t->wide)
		return true;
	switch (m->segment) {
	case ZYDIS_REGISTER_CS: /* is not written, and may not be read */
		return false;
	case ZYDIS_REGISTER_FS:
		return t->key & X86_KEY_FS_PLAIN;
	case ZYDIS_REGISTER_GS:
		return t->key & X86_KEY_GS_PLAIN;
	default:
		return true;
	}
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
			if (o->encoding == ZYDIS_OPERAND_ENCODING_NONE && jit_guest_gpr(o->reg.value) > RBX)
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
		jit_refuse(n, JIT_RARE);
		return;
	}
	if (n->in.mnemonic == ZYDIS_MNEMONIC_MOVSXD && n->in.operand_width == 16) /* Zydis' operand is too wide */
		jit_refuse(n, JIT_RARE);
	if (n->mem && (!address_ok(t, n) || jit_mem_size(n) & (jit_mem_size(n) - 1) || !jit_mem_size(n)))
		jit_refuse(n, JIT_ADDRESS);
}

/* With a register as bit index the operand is a string of bits around the address. */
static void
bit_test(struct jit_scratch *t, struct insn *n)
{
	pass(t, n);
	if (n->kind != K_PASS || !n->mem || n->o[1].type != ZYDIS_OPERAND_TYPE_REGISTER)
		return;
	n->kind = K_BITS;
	if (n->in.address_width != t->stack * 8) /* the sum wraps at that width, before a segment's base */
		jit_refuse(n, JIT_ADDRESS);
}

static void
stack_insn(struct jit_scratch *t, struct insn *n, enum kind kind)
{
	const ZydisDecodedOperand *o = &n->o[0];

	n->kind = kind;
	if (n->in.operand_width != t->stack * 8) {
		jit_refuse(n, JIT_RARE);
		return;
	}
	if (o->type == ZYDIS_OPERAND_TYPE_REGISTER && !jit_is_gpr(o)) {
		jit_refuse(n, JIT_SYSTEM);
		return;
	}
	if (o->type == ZYDIS_OPERAND_TYPE_MEMORY) {
		n->mem = o;
		if (kind == K_POP || !address_ok(t, n))
			jit_refuse(n, JIT_ADDRESS);
	}
}

static void
flow(struct jit_scratch *t, struct insn *n, enum kind kind)
{
	const ZydisDecodedOperand *o = &n->o[0];

	n->kind = kind;
	n->ends = kind != K_JCC;
	if (n->in.meta.branch_type == ZYDIS_BRANCH_TYPE_FAR || (n->in.operand_width != t->stack * 8)) {
		jit_refuse(n, JIT_FAR);
		n->ends = true;
		return;
	}
	if (kind != K_RET && o->type == ZYDIS_OPERAND_TYPE_MEMORY) {
		n->mem = o;
		if (!address_ok(t, n))
			jit_refuse(n, JIT_ADDRESS);
	}
	if (kind == K_RET && o->type == ZYDIS_OPERAND_TYPE_IMMEDIATE)
		jit_refuse(n, JIT_RARE);
	if (kind == K_CALL && o->type == ZYDIS_OPERAND_TYPE_REGISTER && jit_guest_gpr(o->reg.value) == RSP)
		jit_refuse(n, JIT_RARE);
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
		jit_refuse(n, JIT_RARE);
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
	jit_refuse(n, JIT_STRING);
	if (n->in.opcode < 0xa4 || n->in.address_width != t->stack * 8)
		return;
	for (unsigned i = 0; i < n->in.raw.prefix_count; i++)
		if (n->in.raw.prefixes[i].value == 0x64 || n->in.raw.prefixes[i].value == 0x65 ||
			(!t->wide && n->in.raw.prefixes[i].value == 0x2e))
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

/* Instructions of general registers that run as they are. PAUSE is not one: the interpreter gives way to other vCPUs. */
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
		    : M(CLC) : M(STC) : M(CMC) : M(LAHF) : M(SAHF) : M(BSWAP) : M(MOVNTI) : M(MFENCE) : return true;
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

/* Vector instructions that run as they are. x87 and MMX, and what gathers, go another way. */
static void
vector(struct jit_scratch *t, struct insn *n)
{
	const struct vec_op *op = compile(t, n);

	jit_refuse(n, op ? JIT_FP : n->in.meta.category == ZYDIS_CATEGORY_SYSTEM ? JIT_SYSTEM : JIT_RARE);
	if (!op || !t->wide || op->x87 || op->mmx || !gate_open(&t->j->i.c.v.state, &op->gate))
		return;
	if (op->mask != VEC_MASK_NONE ? op->mask != VEC_MASK_EACH && op->mask != VEC_MASK_VECTOR
				      : op->run != vec_run_reg && op->run != vec_run_mem && op->run != vec_run_zero)
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
		jit_refuse(n, JIT_SYSTEM);
		return;
	}
	n->kind = n->in.mnemonic == ZYDIS_MNEMONIC_CLI ? K_CLI : K_STI;
	n->reads = n->kills = n->may = 0;
}

static void
swap_gs(struct insn *n)
{
	n->kind = K_SWAPGS;
	n->reads = n->kills = n->may = 0;
}

/* Those of system.c and mode.c. */
static bool
system_call(struct jit_scratch *t, struct insn *n)
{
	const struct soft_cpu *c = &t->j->i.c;
	bool smap = !c->cpl && c->v.cpus->model.cr4_supported & CR4_SMAP;
	enum kind kind = K_SYSTEM;

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
	case ZYDIS_MNEMONIC_PUSHFQ:
		kind = K_PUSHF;
		break;
	case ZYDIS_MNEMONIC_STAC:
	case ZYDIS_MNEMONIC_CLAC:
		if (!smap)
			return false;
		n->system = n->in.mnemonic == ZYDIS_MNEMONIC_STAC ? JIT_STAC : JIT_CLAC;
		kind = K_QUICK;
		break;
	case ZYDIS_MNEMONIC_RDTSC:
		n->system = JIT_RDTSC;
		kind = K_QUICK;
		break;
	case ZYDIS_MNEMONIC_RDTSCP:
		n->system = JIT_RDTSCP;
		kind = K_QUICK;
		break;
	default:
		return false;
	}
	n->kind = kind;
	n->reads = kind == K_QUICK ? 0 : ARITH_FLAGS;
	n->kills = n->may = kind == K_SYSTEM ? ARITH_FLAGS : 0;
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
			jit_refuse(n, JIT_UNDEFINED);
	} else if (is_nop(m)) {
		n->kind = K_NOP;
		n->reads = n->kills = n->may = 0;
	} else if (m == ZYDIS_MNEMONIC_SWAPGS && t->wide && !t->j->i.c.cpl) {
		swap_gs(n);
	} else if (system_call(t, n)) {
		; /* it is filled in */
	} else if (is_system(m)) {
		jit_refuse(n, JIT_FAR);
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
				jit_refuse(n, JIT_ADDRESS);
			break;
			M(CLI) : M(STI) : interrupt_flag(t, n);
			break;
			M(CLD) : M(STD) : n->kind = m == ZYDIS_MNEMONIC_CLD ? K_CLD : K_STD;
			n->reads = n->kills = n->may = 0;
			break;
			M(PUSH) : stack_insn(t, n, K_PUSH);
			break;
			M(POP) : stack_insn(t, n, K_POP);
			break;
			M(LEAVE) : n->kind = K_LEAVE;
			if (n->in.operand_width != t->stack * 8)
				jit_refuse(n, JIT_RARE);
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
	n->grouped = false;
	n->members = 0;
	n->mem = NULL;
	n->vec = NULL;
	n->kind = K_HELP;
	n->ends = false;
	n->reads = n->kills = n->may = 0;
	n->off = (uint16_t)(t->first + at);
	s = x86_decode(&t->decoder, t->code + at, MIN(t->avail - at, 15), &n->in, n->o);
	if (ZYAN_SUCCESS(s)) {
		classify(t, n);
		return;
	}
	n->in.length = (uint8_t)MIN(t->avail - at, 15);
	jit_refuse(n, s == ZYDIS_STATUS_NO_MORE_DATA ? JIT_CROSSING : JIT_UNDEFINED);
	n->ends = true;
}

static unsigned
decode_page(struct jit_scratch *t)
{
	unsigned at = 0;

	t->count = 0;
	t->poll = false;
	while (t->count < JIT_BLOCK_INSNS && at < t->avail && at <= JIT_BLOCK_BYTES - 15) {
		struct insn *n = &t->insn[t->count];

		/* in cold code the same bytes need not be translated twice; hot code rather goes straight on */
		if (t->tier == 1 && t->count && t->insn[t->count - 1].kind == K_JCC &&
			jit_find(t->j, t->host + at, t->key))
			break;
		decode_one(t, n, at);
		if (n->kind == K_HELP && n->why == JIT_CROSSING && t->count)
			break;
		at += n->in.length;
		t->count++;
		if (n->ends)
			break;
		/* what waits for STI is taken behind the instruction behind it */
		if (t->count > 1 && t->insn[t->count - 2].kind == K_STI) {
			t->poll = true;
			break;
		}
	}
	return at;
}

/* One instruction with its end in the next page. What is there may be something else when the block runs: translate.c
 * looks each time. */
static unsigned
decode_across(struct jit_scratch *t, gva_t a)
{
	struct soft_cpu *c = &t->j->i.c;
	gva_t next = (a & ~(gva_t)PAGE_MASK) + PAGE_SIZE;
	struct soft_tlb_entry *e = x86_tlb_fill(c, next, X86_EXEC, c->mmu, NULL);

	if (x86_tlb_meta(c, e)->exec != (next | c->tlb_gen))
		return t->avail;
	memcpy(t->code + t->avail, (const void *)(next + e->delta), 15);
	t->avail += 15;
	decode_one(t, &t->insn[0], 0);
	t->insn[0].ends = true;
	t->second = e;
	return t->insn[0].in.length;
}

/* The instruction behind STI has to be in the same block: interrupts are taken between blocks. */
static void
check_shadow(struct jit_scratch *t)
{
	struct insn *last = &t->insn[t->count - 1];

	if (last->kind == K_STI)
		jit_refuse(last, JIT_STEP);
}

unsigned
jit_decode(struct jit_scratch *t, gva_t a)
{
	unsigned bytes;

	make_decoder(t);
	bytes = decode_page(t);
	if (t->insn[0].kind == K_HELP && t->insn[0].why == JIT_CROSSING)
		bytes = decode_across(t, a);
	check_shadow(t);
	return bytes;
}

void
jit_find_liveness(struct jit_scratch *t)
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
