/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Random integer programs on the bare CPU and under the interpreter and the translator; encodings.c is wider, this one
 * goes deeper where compilers go.
 *
 *	isa/integer [--bits 32|64] [--count N] [--seed S] [--insns N] [--engine interp|jit]
 *
 * Without --bits both widths, without --engine both engines. Each program has its own seed, printed when it fails,
 * together with the shortest prefix that does; `--seed S --count 1` runs it again. Registers that programs do not
 * overwrite: RSP, RBP, R14 and R15 point into memory, R13 is a small index.
 */
#include <stdlib.h>
#include <string.h>

#include "base/str.h"
#include "cpu/x86/state.h"
#include "test/isa/diff.h"

#define INSNS_MAX 64

struct program {
	uint64_t seed;
	int bits;
	uint8_t code[INSNS_MAX * 40];
	unsigned len, insns;
	unsigned end[INSNS_MAX]; /* of each instruction, with what prepares it */
};

static unsigned
pick(struct program *p, unsigned n)
{
	return (unsigned)(isa_random(&p->seed) % n);
}

static void
put(struct program *p, unsigned byte)
{
	p->code[p->len++] = (uint8_t)byte;
}

static void
put_imm(struct program *p, uint64_t v, unsigned size)
{
	for (unsigned i = 0; i < size; i++)
		put(p, (unsigned)(v >> (8 * i)) & 0xff);
}

static uint64_t
immediate(struct program *p)
{
	uint64_t r = isa_random(&p->seed);

	return r & 7 ? isa_random(&p->seed) : r & 8 ? 0x80000000 : r & 16 ? UINT64_MAX : 0;
}

/* Registers that may be overwritten. */
static unsigned
free_reg(struct program *p, bool high_too)
{
	static const unsigned regs[] = { 0, 1, 2, 3, 6, 7, 8, 9, 10, 11, 12 };

	return regs[pick(p, high_too && p->bits == 64 ? 11 : 6)];
}

struct shape {
	unsigned size; /* 1, 2, 4, 8 */
	unsigned reg;  /* 0-15; for bytes without REX 4-7 are AH to BH */
	bool mem, rex, lock;
	unsigned rm, base;
};

/*
 * Emit prefixes, opcode and ModRM for r/m and reg. `fixed`: the reg field if not -1 (an opcode extension).
 */
static void
modrm_insn(struct program *p, struct shape *s, const uint8_t *opcode, unsigned opcode_len, int fixed)
{
	bool wide = p->bits == 64;
	bool index = s->mem && wide && pick(p, 3) == 0, rip_relative = s->mem && wide && !index && pick(p, 6) == 0;
	unsigned reg = fixed >= 0 ? (unsigned)fixed : s->reg, rex = 0;
	int32_t disp = (int32_t)pick(p, 160) - 80;

	s->base = s->mem && wide && !rip_relative && !(s->size == 1 && !s->rex) ? (pick(p, 3) == 0 ? 15 : 14) : 5;
	if (index && s->base == 5 && s->size == 1 && !s->rex)
		index = false;
	if (s->size == 2)
		put(p, 0x66);
	if (s->lock)
		put(p, 0xf0);
	if (wide) {
		rex = (s->size == 8 ? 8 : 0) | (reg & 8 ? 4 : 0) | (index ? 2 : 0) |
		      ((s->mem ? !rip_relative && s->base & 8 : s->rm & 8) ? 1 : 0);
		if (rex || s->rex)
			put(p, 0x40 | rex);
	}
	for (unsigned i = 0; i < opcode_len; i++)
		put(p, opcode[i]);
	if (!s->mem) {
		put(p, 0xc0 | (reg & 7) << 3 | (s->rm & 7));
	} else if (rip_relative) {
		put(p, (reg & 7) << 3 | 5);
		/* the length of what follows is not known: aim at the middle of the data */
		put_imm(p, ISA_DATA + 4096 - 8 - (ISA_CODE + p->len + 4), 4);
	} else if (index) {
		put(p, 0x80 | (reg & 7) << 3 | 4);
		put(p, pick(p, 4) << 6 | 5 << 3 | (s->base & 7));
		put_imm(p, (uint64_t)(int64_t)disp, 4);
	} else {
		bool wide_disp = pick(p, 4) == 0;

		put(p, (wide_disp ? 0x80 : 0x40) | (reg & 7) << 3 | (s->base & 7));
		put_imm(p, (uint64_t)(int64_t)disp, wide_disp ? 4 : 1);
	}
}

static unsigned
random_size(struct program *p)
{
	static const unsigned sizes[] = { 1, 2, 4, 8 };

	return sizes[pick(p, p->bits == 64 ? 4 : 3)];
}

static unsigned
byte_reg(struct program *p, bool rex)
{
	unsigned r;

	if (rex)
		return free_reg(p, true);
	do
		r = pick(p, 8);
	while (r == 5 && false);
	return r; /* AL CL DL BL AH CH DH BH */
}

static struct shape
random_shape(struct program *p, bool bytes_too)
{
	struct shape s = { .mem = pick(p, 2) };

	do
		s.size = random_size(p);
	while (!bytes_too && s.size == 1);
	if (s.size == 1) {
		s.rex = p->bits == 64 && pick(p, 2);
		s.reg = byte_reg(p, s.rex);
		s.rm = byte_reg(p, s.rex);
	} else {
		s.reg = free_reg(p, true);
		s.rm = free_reg(p, true);
	}
	return s;
}

static void
small_register(struct program *p, unsigned r, unsigned mask)
{
	if (r & 8)
		put(p, 0x41);
	put(p, 0x81);
	put(p, 0xe0 | (r & 7)); /* and r32, mask */
	put_imm(p, mask, 4);
}

/* ---- the kinds of instructions ---- */

static void
gen_alu(struct program *p)
{
	struct shape s = random_shape(p, true);
	unsigned op = pick(p, 8), form = pick(p, 3);
	uint8_t code = (uint8_t)(op << 3 | (s.size > 1));

	s.lock = s.mem && op != 7 && form != 1 && pick(p, 4) == 0;
	if (form == 0) {
		modrm_insn(p, &s, &code, 1, -1);
	} else if (form == 1) {
		code |= 2;
		modrm_insn(p, &s, &code, 1, -1);
	} else {
		bool imm8 = s.size == 1 || pick(p, 2);

		code = s.size == 1 ? 0x80 : imm8 ? 0x83 : 0x81;
		modrm_insn(p, &s, &code, 1, (int)op);
		put_imm(p, immediate(p), imm8 ? 1 : s.size == 2 ? 2 : 4);
	}
}

static void
gen_alu_accumulator(struct program *p)
{
	unsigned op = pick(p, 9), size = random_size(p);

	if (size == 2)
		put(p, 0x66);
	if (size == 8)
		put(p, 0x48);
	put(p, (op == 8 ? 0xa8 : op << 3 | 4) | (size > 1));
	put_imm(p, immediate(p), size == 8 ? 4 : size);
}

static void
gen_test_or_not(struct program *p)
{
	struct shape s = random_shape(p, true);
	unsigned ext = pick(p, 4);
	uint8_t code = s.size > 1 ? 0xf7 : 0xf6;

	s.lock = s.mem && ext >= 2 && pick(p, 4) == 0;
	modrm_insn(p, &s, &code, 1, (int)ext);
	if (ext < 2)
		put_imm(p, immediate(p), s.size == 8 ? 4 : s.size);
}

static void
gen_mul_div(struct program *p)
{
	struct shape s = random_shape(p, true);
	unsigned ext = 4 + pick(p, 4);
	uint8_t code = s.size > 1 ? 0xf7 : 0xf6;

	if (ext >= 6) {
		/* mostly quotients that fit */
		put(p, 0x31);
		put(p, 0xd2); /* xor edx, edx */
		if (s.size == 1)
			small_register(p, RAX, 0x3f);
	}
	modrm_insn(p, &s, &code, 1, (int)ext);
}

static void
gen_test(struct program *p)
{
	struct shape s = random_shape(p, true);
	uint8_t code = s.size > 1 ? 0x85 : 0x84;

	modrm_insn(p, &s, &code, 1, -1);
}

static void
gen_inc_dec(struct program *p)
{
	struct shape s = random_shape(p, true);
	uint8_t code = s.size > 1 ? 0xff : 0xfe;

	s.lock = s.mem && pick(p, 4) == 0;
	modrm_insn(p, &s, &code, 1, (int)pick(p, 2));
}

static void
gen_mov(struct program *p)
{
	struct shape s = random_shape(p, true);
	uint8_t code = (uint8_t)(0x88 | (s.size > 1));

	switch (pick(p, 4)) {
	case 0:
		modrm_insn(p, &s, &code, 1, -1);
		break;
	case 1:
		code |= 2;
		modrm_insn(p, &s, &code, 1, -1);
		break;
	case 2:
		code = s.size > 1 ? 0xc7 : 0xc6;
		modrm_insn(p, &s, &code, 1, 0);
		put_imm(p, immediate(p), s.size == 8 ? 4 : s.size);
		break;
	default:
		if (s.size == 2)
			put(p, 0x66);
		if (s.size == 8 || s.rm & 8 || s.rex)
			put(p, 0x40 | (s.size == 8 ? 8 : 0) | (s.rm & 8 ? 1 : 0));
		put(p, (s.size > 1 ? 0xb8 : 0xb0) | (s.rm & 7));
		put_imm(p, immediate(p), s.size);
	}
}

static void
gen_extend(struct program *p)
{
	struct shape s = random_shape(p, false);
	uint8_t code[2] = { 0x0f, 0 };
	static const uint8_t ops[] = { 0xb6, 0xb7, 0xbe, 0xbf };
	unsigned which = pick(p, p->bits == 64 ? 5 : 4);

	if (which == 4) {
		code[0] = 0x63;
		modrm_insn(p, &s, code, 1, -1);
		return;
	}
	code[1] = ops[which];
	if (!(code[1] & 1) && !s.mem && s.size != 8)
		s.rm = free_reg(p, false) & 3;
	modrm_insn(p, &s, code, 2, -1);
}

static void
gen_lea(struct program *p)
{
	struct shape s = random_shape(p, false);
	uint8_t code = 0x8d;

	s.mem = true;
	modrm_insn(p, &s, &code, 1, -1);
}

static void
gen_shift(struct program *p)
{
	struct shape s = random_shape(p, true);
	unsigned ext = pick(p, 8), form = pick(p, 3);
	uint8_t code = (uint8_t)((form == 0 ? 0xc0 : form == 1 ? 0xd0 : 0xd2) | (s.size > 1));

	modrm_insn(p, &s, &code, 1, (int)ext);
	if (form == 0)
		put(p, pick(p, 80));
	if (form == 0 && ext < 2) {
		/* OF is undefined, and differs on hosts between the forms with an immediate and with CL */
		put(p, 0x84);
		put(p, 0xc0);
	}
}

static void
gen_double_shift(struct program *p)
{
	struct shape s = random_shape(p, false);
	uint8_t code[2] = { 0x0f, (uint8_t)(pick(p, 2) ? 0xa4 : 0xac) };
	bool by_cl = pick(p, 2);

	/* counts beyond the operand are undefined in the result too */
	if (s.size == 2)
		s.size = 4;
	code[1] |= by_cl;
	modrm_insn(p, &s, code, 2, -1);
	if (!by_cl)
		put(p, pick(p, 80));
}

static void
gen_bit(struct program *p)
{
	struct shape s = random_shape(p, false);
	static const uint8_t ops[] = { 0xa3, 0xab, 0xb3, 0xbb };
	uint8_t code[2] = { 0x0f, 0 };
	unsigned which = pick(p, 4);

	s.lock = s.mem && which && pick(p, 4) == 0;
	if (pick(p, 2)) {
		code[1] = 0xba;
		modrm_insn(p, &s, code, 2, (int)(4 + which));
		put(p, pick(p, 256));
		return;
	}
	if (s.mem)
		small_register(p, s.reg, 0x7ff);
	code[1] = ops[which];
	modrm_insn(p, &s, code, 2, -1);
}

static void
gen_scan(struct program *p)
{
	struct shape s = random_shape(p, false);
	static const uint8_t ops[] = { 0xbc, 0xbd, 0xbc, 0xbd, 0xb8 };
	unsigned which = pick(p, 5);
	uint8_t code[2] = { 0x0f, ops[which] };

	if (which >= 2) {
		/* F3 goes in front of 66 and REX */
		put(p, 0xf3);
	}
	modrm_insn(p, &s, code, 2, -1);
}

static void
gen_imul(struct program *p)
{
	struct shape s = random_shape(p, false);
	uint8_t code[2] = { 0x0f, 0xaf };

	if (pick(p, 2)) {
		modrm_insn(p, &s, code, 2, -1);
		return;
	}
	code[0] = pick(p, 2) ? 0x6b : 0x69;
	modrm_insn(p, &s, code, 1, -1);
	put_imm(p, immediate(p), code[0] == 0x6b ? 1 : s.size == 2 ? 2 : 4);
}

static void
gen_condition(struct program *p)
{
	struct shape s = random_shape(p, true);
	uint8_t code[2] = { 0x0f, (uint8_t)(0x90 | pick(p, 16)) };

	if (s.size == 1) {
		modrm_insn(p, &s, code, 2, 0);
		return;
	}
	code[1] = (uint8_t)(0x40 | pick(p, 16));
	modrm_insn(p, &s, code, 2, -1);
}

static void
gen_exchange(struct program *p)
{
	struct shape s = random_shape(p, true);
	uint8_t code[2] = { 0x0f, 0 };
	unsigned which = pick(p, 3);

	s.lock = s.mem && pick(p, 2);
	if (which == 0) {
		code[0] = s.size > 1 ? 0x87 : 0x86;
		modrm_insn(p, &s, code, 1, -1);
	} else {
		code[1] = (uint8_t)((which == 1 ? 0xc0 : 0xb0) | (s.size > 1));
		modrm_insn(p, &s, code, 2, -1);
	}
}

static void
gen_cmpxchg8b(struct program *p)
{
	struct shape s = { .size = p->bits == 64 && pick(p, 2) ? 8 : 4, .mem = true };
	uint8_t code[2] = { 0x0f, 0xc7 };

	s.lock = pick(p, 2);
	modrm_insn(p, &s, code, 2, 1);
}

static void
gen_stack(struct program *p)
{
	unsigned r = free_reg(p, true), q = free_reg(p, true);

	switch (pick(p, 5)) {
	case 0:
		if (r & 8)
			put(p, 0x41);
		put(p, 0x50 | (r & 7));
		break;
	case 1:
		put(p, 0x68);
		put_imm(p, immediate(p), 4);
		break;
	case 2:
		put(p, 0x66);
		put(p, 0x68);
		put_imm(p, immediate(p), 2);
		put(p, 0x66);
		put(p, 0x58 | (q & 7));
		return;
	case 3:
		put(p, 0xff);
		put(p, 0x75);
		put(p, pick(p, 64)); /* push [rbp+disp8] */
		break;
	default:
		put(p, 0x9c); /* pushf; and the system flags are not compared */
		put(p, 0x83);
		put(p, 0x24);
		put(p, 0x24);
		put(p, 0xd5);
		put(p, 0x9d);
		return;
	}
	if (pick(p, 3) == 0) {
		put(p, 0x8f);
		put(p, 0x45);
		put(p, pick(p, 64)); /* pop [rbp+disp8] */
		return;
	}
	if (q & 8)
		put(p, 0x41);
	put(p, 0x58 | (q & 7));
}

static void
gen_frame(struct program *p)
{
	put(p, 0xc8);
	put_imm(p, pick(p, 64), 2);
	put(p, pick(p, 4)); /* enter; the level copies what RBP points to, so leave it at small levels */
	put(p, 0xc9);
}

static void
gen_convert(struct program *p)
{
	unsigned prefix = pick(p, p->bits == 64 ? 3 : 2);

	if (prefix == 1)
		put(p, 0x66);
	if (prefix == 2)
		put(p, 0x48);
	put(p, 0x98 + pick(p, 2));
}

static void
gen_flags(struct program *p)
{
	static const uint8_t ops[] = { 0xf8, 0xf9, 0xf5, 0x9e, 0x9f };

	put(p, ops[pick(p, 5)]);
}

static void
gen_bswap(struct program *p)
{
	unsigned r = free_reg(p, true), rex = (p->bits == 64 && pick(p, 2) ? 8u : 0) | (r >> 3);

	if (rex)
		put(p, 0x40 | rex);
	put(p, 0x0f);
	put(p, 0xc8 | (r & 7));
}

/* mov rsi/rdi, imm32 to data; mov ecx, n; (cld|std); rep? op; cld */
static void
gen_string(struct program *p)
{
	static const uint8_t ops[] = { 0xa4, 0xa6, 0xaa, 0xac, 0xae };
	unsigned op = ops[pick(p, 5)], size = random_size(p), rep = pick(p, 3), back = pick(p, 4) == 0;

	put(p, 0xbe);
	put_imm(p, ISA_DATA + 2000 + pick(p, 3000), 4);
	put(p, 0xbf);
	put_imm(p, ISA_DATA + 2000 + pick(p, 3000), 4);
	put(p, 0xb9);
	put_imm(p, pick(p, 8) ? pick(p, 40) : pick(p, 900), 4);
	put(p, back ? 0xfd : 0xfc);
	if (rep)
		put(p, 0xf1 + rep);
	if (size == 2)
		put(p, 0x66);
	if (size == 8)
		put(p, 0x48);
	put(p, op | (size > 1));
	put(p, 0xfc);
}

static void
gen_decimal(struct program *p)
{
	static const uint8_t ops[] = { 0x27, 0x2f, 0x37, 0x3f, 0xd4, 0xd5, 0xd6 };
	unsigned op = ops[pick(p, 7)];

	put(p, op);
	if (op == 0xd4 || op == 0xd5)
		put(p, pick(p, 4) ? 10 : pick(p, 256));
}

static void
gen_movbe(struct program *p)
{
	struct shape s = random_shape(p, false);
	uint8_t code[3] = { 0x0f, 0x38, (uint8_t)(0xf0 | pick(p, 2)) };

	s.mem = true;
	modrm_insn(p, &s, code, 3, -1);
}

/* VEX-encoded: BMI1, BMI2 and AVX on registers or [rbp + disp8]. */
static void
vex_insn(struct program *p, unsigned map, unsigned pp, unsigned w, unsigned l, unsigned opcode, unsigned reg,
	unsigned vvvv, bool mem, unsigned rm)
{
	unsigned b = mem ? 0 : rm >> 3;

	put(p, 0xc4);
	put(p, (reg & 8 ? 0 : 0x80) | 0x40 | (b ? 0 : 0x20) | map);
	put(p, w << 7 | (~vvvv & 15) << 3 | l << 2 | pp);
	put(p, opcode);
	if (mem) {
		put(p, 0x40 | (reg & 7) << 3 | 5);
		put(p, pick(p, 80));
	} else {
		put(p, 0xc0 | (reg & 7) << 3 | (rm & 7));
	}
}

static void
gen_bmi(struct program *p)
{
	static const struct {
		uint8_t map, pp, opcode;
	} ops[] = { { 2, 0, 0xf2 }, { 2, 0, 0xf7 }, { 2, 0, 0xf5 }, { 2, 3, 0xf5 }, { 2, 2, 0xf5 }, { 2, 1, 0xf7 },
		{ 2, 2, 0xf7 }, { 2, 3, 0xf7 }, { 2, 3, 0xf6 }, { 2, 0, 0xf3 }, { 3, 3, 0xf0 } };
	unsigned which = pick(p, ARRAY_LEN(ops)), reg = free_reg(p, true), v = free_reg(p, true);

	if (ops[which].opcode == 0xf3)
		reg = 1 + pick(p, 3);
	vex_insn(p, ops[which].map, ops[which].pp, p->bits == 64 ? pick(p, 2) : 0, 0, ops[which].opcode, reg,
		ops[which].opcode == 0xf0 ? 0 : v, pick(p, 3) == 0, free_reg(p, true));
	if (ops[which].opcode == 0xf0)
		put(p, pick(p, 64));
}

static void
gen_crc_adx(struct program *p)
{
	struct shape s = random_shape(p, false);
	uint8_t crc[3] = { 0x0f, 0x38, 0xf1 }, adx[3] = { 0x0f, 0x38, 0xf6 };

	if (s.size == 2)
		s.size = 4;
	if (pick(p, 2)) {
		put(p, 0xf2);
		modrm_insn(p, &s, crc, 3, -1);
	} else {
		put(p, pick(p, 2) ? 0xf3 : 0x66);
		modrm_insn(p, &s, adx, 3, -1);
	}
}

static void
gen_vector(struct program *p)
{
	/* 66 0F: logic and integer arithmetic; the unaligned moves come with prefix F3 */
	static const uint8_t ops[] = { 0xef, 0xeb, 0xdb, 0xdf, 0xfe, 0xfa, 0xd4, 0xf4, 0x60, 0x76, 0x66, 0x6c };
	unsigned top = p->bits == 64 ? 16 : 8, opcode = ops[pick(p, ARRAY_LEN(ops))], reg = pick(p, top);

	switch (pick(p, 4)) {
	case 0:
		vex_insn(p, 1, 1, 0, pick(p, 2), opcode, reg, pick(p, top), pick(p, 2), pick(p, top));
		break;
	case 1:
		vex_insn(p, 1, 2, 0, pick(p, 2), pick(p, 2) ? 0x6f : 0x7f, reg, 0, true, 0);
		break;
	case 2:
		put(p, 0xf3);
		put(p, 0x0f);
		put(p, pick(p, 2) ? 0x6f : 0x7f);
		put(p, 0x40 | (reg & 7) << 3 | 5);
		put(p, pick(p, 80));
		break;
	default:
		put(p, 0x66);
		put(p, 0x0f);
		put(p, opcode);
		put(p, 0xc0 | (reg & 7) << 3 | pick(p, 8));
	}
}

static void generate_one(struct program *p);

/* A branch over, or not over, another instruction; sometimes a call and a return. */
static void
gen_branch(struct program *p)
{
	unsigned at, kind = pick(p, 4);

	if (kind == 0) {
		put(p, 0xe8); /* call +2; jmp over; ret */
		put_imm(p, 2, 4);
		put(p, 0xeb);
		put(p, 1);
		put(p, 0xc3);
		return;
	}
	if (kind == 1) {
		put(p, 0xe3 - pick(p, 4)); /* loop family, jrcxz */
	} else {
		put(p, 0x70 | pick(p, 16));
	}
	at = p->len;
	put(p, 0);
	generate_one(p);
	p->code[at] = (uint8_t)(p->len - at - 1);
}

static void
generate_one(struct program *p)
{
	static void (*const kinds[])(struct program *) = { gen_alu, gen_alu, gen_alu, gen_alu, gen_alu_accumulator,
		gen_test_or_not, gen_mul_div, gen_test, gen_inc_dec, gen_mov, gen_mov, gen_extend, gen_lea, gen_shift,
		gen_shift, gen_double_shift, gen_bit, gen_scan, gen_imul, gen_condition, gen_exchange, gen_cmpxchg8b,
		gen_stack, gen_frame, gen_convert, gen_flags, gen_bswap, gen_string, gen_movbe, gen_branch, gen_bmi,
		gen_crc_adx, gen_vector, gen_vector, gen_decimal };

	kinds[pick(p, p->bits == 64 ? ARRAY_LEN(kinds) - 1 : ARRAY_LEN(kinds))](p);
}

static void
generate(struct program *p, uint64_t seed, int bits, unsigned insns)
{
	memset(p, 0, sizeof(*p));
	p->seed = seed;
	p->bits = bits;
	for (p->insns = 0; p->insns < insns; p->insns++) {
		generate_one(p);
		p->end[p->insns] = p->len;
	}
}

/* ---- running ---- */

struct options {
	uint64_t seed, count;
	unsigned insns;
	int bits; /* 0: both */
	const struct cpu_engine *engine;
};

static bool
same(struct isa *t, struct program *p, unsigned len, uint64_t seed, bool jit, FILE *f)
{
	static struct isa_state in, bare, engine;

	isa_random_state(&in, seed, p->bits == 64 ? ISA_USER64 : ISA_USER32);
	in.gpr[RBP] = ISA_DATA + 4000 + (isa_random(&seed) & 127);
	if (p->bits == 64) {
		in.gpr[R13] = isa_random(&seed) & 31;
		in.gpr[R14] = ISA_DATA + 4000 + (isa_random(&seed) & 127);
		in.gpr[R15] = ISA_DATA + 1000 + (isa_random(&seed) & 127);
	}
	isa_run_bare(t, p->code, len, &in, &bare);
	isa_run_engine(t, 0, p->code, len, &in, &engine);
	/* The translator does not keep arithmetic flags that are overwritten before they are read, for a fault between.
	 */
	if (jit && bare.vector != EXC_UD)
		return isa_equal(&bare, &engine, ISA_VECTORS, FLAG_DF, f);
	return isa_equal(&bare, &engine, ISA_VECTORS, ISA_FLAGS, f);
}

static void
explain(struct isa *t, struct program *p, uint64_t seed, bool jit)
{
	unsigned n;

	for (n = 0; n + 1 < p->insns; n++)
		if (!same(t, p, p->end[n], seed, jit, NULL))
			break;
	printf("seed %llu (%d bits): after %u of %u instructions:\n", (unsigned long long)seed, p->bits, n + 1,
		p->insns);
	same(t, p, p->end[n], seed, jit, stdout);
	isa_disassemble(p->code, p->end[n], ISA_CODE, p->bits, stdout);
}

static uint64_t
run(const struct options *o, const struct cpu_engine *engine, int bits)
{
	struct program p = { 0 };
	struct isa *t = isa_open(bits == 64 ? ISA_USER64 : ISA_USER32, &engine, 1);
	bool jit = engine == &cpu_engine_jit;
	uint64_t failures = 0;

	if (!t)
		return 1;
	for (uint64_t s = o->seed; s < o->seed + o->count && failures < 8; s++) {
		generate(&p, s, bits, o->insns);
		if (!same(t, &p, p.len, s, jit, NULL)) {
			explain(t, &p, s, jit);
			failures++;
		}
	}
	printf("integer, %d bits, %s: %llu programs from seed %llu: %llu differ\n", bits, engine->name,
		(unsigned long long)o->count, (unsigned long long)o->seed, (unsigned long long)failures);
	isa_close(t);
	return failures;
}

int
main(int argc, char **argv)
{
	static const struct cpu_engine *const engines[] = { &cpu_engine_interp, &cpu_engine_jit };
	struct options o = { .seed = 1, .count = 10000, .insns = 24 };
	uint64_t failures = 0;

	for (int i = 1; i + 1 < argc; i += 2) {
		if (!strcmp(argv[i], "--seed"))
			o.seed = strtoull(argv[i + 1], NULL, 0);
		else if (!strcmp(argv[i], "--count"))
			o.count = strtoull(argv[i + 1], NULL, 0);
		else if (!strcmp(argv[i], "--engine"))
			o.engine = !strcmp(argv[i + 1], "jit") ? &cpu_engine_jit : &cpu_engine_interp;
		else if (!strcmp(argv[i], "--bits"))
			o.bits = atoi(argv[i + 1]);
		else if (!strcmp(argv[i], "--insns"))
			o.insns = (unsigned)atoi(argv[i + 1]);
	}
	if (o.insns > INSNS_MAX)
		o.insns = INSNS_MAX;
	for (int bits = 64; bits >= 32; bits -= 32)
		for (unsigned e = 0; e < ARRAY_LEN(engines); e++)
			if ((!o.bits || bits == o.bits) && (!o.engine || engines[e] == o.engine))
				failures += run(&o, engines[e], bits);
	return failures != 0;
}
