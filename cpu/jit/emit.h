/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Writing host instructions: the few forms the translator makes itself. Registers by number (H_*); `w`: 64 bits.
 * Operands in struct jit_cpu are given by JIT_OFF() and reached from RSP. The caller makes sure that there is room.
 */
#ifndef CPU_JIT_EMIT_H
#define CPU_JIT_EMIT_H

#include <string.h>

#include "cpu/jit/jit.h"

struct emit {
	uint8_t *p;
	uint8_t *base;	/* of the arena, writable view */
	int32_t pushed; /* bytes on the stack: RSP is so far below jit_cpu.hot */
};

static inline void
e_put(struct emit *e, const void *bytes, size_t n)
{
	memcpy(e->p, bytes, n);
	e->p += n;
}
#define E_BYTES(e, ...) e_put(e, (const uint8_t[]){ __VA_ARGS__ }, sizeof((const uint8_t[]){ __VA_ARGS__ }))

static inline void
e8(struct emit *e, unsigned v)
{
	*e->p++ = (uint8_t)v;
}

static inline void
e32(struct emit *e, uint32_t v)
{
	e_put(e, &v, 4);
}

static inline uint32_t
e_at(const struct emit *e)
{
	return (uint32_t)(e->p - e->base);
}

static inline void
e_rex(struct emit *e, bool w, unsigned reg, unsigned index, unsigned rm)
{
	unsigned rex = (w ? 8u : 0) | (reg & 8 ? 4u : 0) | (index & 8 ? 2u : 0) | (rm & 8 ? 1u : 0);

	if (rex)
		e8(e, 0x40 | rex);
}

/* Register to register: opcode /r with `rm` as the r/m operand. */
static inline void
e_rr(struct emit *e, bool w, unsigned opcode, unsigned reg, unsigned rm)
{
	e_rex(e, w, reg, 0, rm);
	e8(e, opcode);
	e8(e, 0xc0 | (reg & 7) << 3 | (rm & 7));
}

static inline void
e_mov(struct emit *e, unsigned dst, unsigned src)
{
	if (dst != src)
		e_rr(e, true, 0x89, src, dst);
}

static inline void
e_mov32(struct emit *e, unsigned dst, unsigned src)
{
	e_rr(e, false, 0x89, src, dst);
}

static inline void
e_mov_imm32(struct emit *e, unsigned reg, uint32_t v)
{
	e_rex(e, false, 0, 0, reg);
	e8(e, 0xb8 | (reg & 7));
	e32(e, v);
}

/* ModRM and what belongs to it of [base + index << shift + disp]; base, index: H_NONE for none, index not RSP. */
static inline void
e_modrm(struct emit *e, unsigned reg, unsigned base, unsigned index, unsigned shift, int32_t disp)
{
	bool no_base = base == H_NONE, sib = index != H_NONE || no_base || (base & 7) == 4;
	unsigned mod = no_base || (!disp && (base & 7) != 5) ? 0 : disp == (int8_t)disp ? 1 : 2;

	e8(e, mod << 6 | (reg & 7) << 3 | (sib ? 4 : base & 7));
	if (sib)
		e8(e, shift << 6 | (index == H_NONE ? 4u : index & 7) << 3 | (no_base ? 5 : base & 7));
	if (no_base || mod == 2)
		e32(e, (uint32_t)disp);
	else if (mod == 1)
		e8(e, (uint8_t)disp);
}

/* opcode /r with such an operand */
static inline void
e_mem(struct emit *e, bool w, unsigned opcode, unsigned reg, unsigned base, unsigned index, unsigned shift,
	int32_t disp)
{
	e_rex(e, w, reg, index == H_NONE ? 0 : index, base == H_NONE ? 0 : base);
	e8(e, opcode);
	e_modrm(e, reg, base, index, shift, disp);
}

static inline int32_t
e_disp(const struct emit *e, uint32_t off)
{
	return (int32_t)(off - JIT_OFF(hot)) + e->pushed;
}

/* opcode /r with an operand in struct jit_cpu */
static inline void
e_cpu(struct emit *e, bool w, unsigned opcode, unsigned reg, uint32_t off)
{
	e_mem(e, w, opcode, reg, H_SP, H_NONE, 0, e_disp(e, off));
}

static inline void
e_load(struct emit *e, unsigned reg, uint32_t off)
{
	e_cpu(e, true, 0x8b, reg, off);
}

static inline void
e_load32(struct emit *e, unsigned reg, uint32_t off)
{
	e_cpu(e, false, 0x8b, reg, off);
}

/* movzx eax, word [off] */
static inline void
e_load_ax16(struct emit *e, uint32_t off)
{
	E_BYTES(e, 0x0f, 0xb7);
	e_modrm(e, H_AX, H_SP, H_NONE, 0, e_disp(e, off));
}

static inline void
e_store(struct emit *e, unsigned reg, uint32_t off)
{
	e_cpu(e, true, 0x89, reg, off);
}

static inline void
e_store32(struct emit *e, unsigned reg, uint32_t off)
{
	e_cpu(e, false, 0x89, reg, off);
}

/* mov word [off], ax */
static inline void
e_store_ax16(struct emit *e, uint32_t off)
{
	e8(e, 0x66);
	e_cpu(e, false, 0x89, H_AX, off);
}

/* The same with RCX added to the address. */
static inline void
e_cpu_rcx(struct emit *e, unsigned opcode, unsigned reg, uint32_t off)
{
	e_mem(e, true, opcode, reg, H_SP, H_CX, 0, e_disp(e, off));
}

static inline void
e_lea(struct emit *e, bool w, unsigned reg, unsigned base, unsigned index, unsigned shift, int32_t disp)
{
	e_mem(e, w, 0x8d, reg, base, index, shift, disp);
}

/* 81 /ext id, or 83 /ext ib */
static inline void
e_alu_imm(struct emit *e, bool w, unsigned ext, unsigned reg, int32_t imm)
{
	e_rex(e, w, 0, 0, reg);
	e8(e, imm == (int8_t)imm ? 0x83 : 0x81);
	e8(e, 0xc0 | ext << 3 | (reg & 7));
	if (imm == (int8_t)imm)
		e8(e, (uint8_t)imm);
	else
		e32(e, (uint32_t)imm);
}

/* Jumps and calls to an offset in the arena. */
static inline void
e_rel32(struct emit *e, uint32_t to)
{
	e32(e, to - (e_at(e) + 4));
}

static inline void
e_jmp(struct emit *e, uint32_t to)
{
	e8(e, 0xe9);
	e_rel32(e, to);
}

static inline void
e_call(struct emit *e, uint32_t to)
{
	e8(e, 0xe8);
	e_rel32(e, to);
}

/* A jump whose target comes later: returns where its rel32 is. cc 0xff: JMP. */
static inline uint32_t
e_jump_later(struct emit *e, unsigned cc)
{
	if (cc == 0xff) {
		e8(e, 0xe9);
	} else {
		e8(e, 0x0f);
		e8(e, 0x80 | cc);
	}
	e32(e, 0);
	return e_at(e) - 4;
}

static inline void
e_here(struct emit *e, uint32_t site)
{
	uint32_t rel = e_at(e) - (site + 4);

	memcpy(e->base + site, &rel, 4);
}

static inline void
e_set(struct emit *e, uint32_t site, uint32_t to)
{
	uint32_t rel = to - (site + 4);

	memcpy(e->base + site, &rel, 4);
}

/* JRCXZ over the next `n` bytes */
static inline void
e_jrcxz(struct emit *e, unsigned n)
{
	e8(e, 0xe3);
	e8(e, n);
}

/* Guest flags: host form to memory form and back. RCX is clobbered. */
static inline void
e_flags_save(struct emit *e)
{
	e_mov(e, H_CX, H_AX);
	E_BYTES(e, 0x9f, 0x0f, 0x90, 0xc0); /* lahf; seto al */
	e_store_ax16(e, JIT_OFF(hot.fl));
	e_mov(e, H_AX, H_CX);
}

static inline void
e_flags_load(struct emit *e)
{
	e_mov(e, H_CX, H_AX);
	e_load_ax16(e, JIT_OFF(hot.fl));
	E_BYTES(e, 0x04, 0x7f, 0x9e); /* add al, 127; sahf */
	e_mov(e, H_AX, H_CX);
}

/*
 * T_A = rip, flags in memory form: through the jump cache, else to `missed`. `upper`: the half of the addresses that rip
 * is in but for rare cases, which are looked up in C. The index is that of jit_target().
 */
static inline void
e_far_jump(struct emit *e, bool upper, bool bmi2, uint32_t missed)
{
	e_load(e, T_B, JIT_OFF(hot.ctx) + 8u * upper);
	if (bmi2) {
		E_BYTES(e, 0xc4, 0xc3, 0xfb, 0xf0, 0xc8 | (T_A & 7), JIT_TARGET_ROTATE); /* rorx rcx, r11 */
	} else {
		e_mov(e, H_CX, T_A);
		E_BYTES(e, 0x48, 0xc1, 0xc9, JIT_TARGET_ROTATE); /* ror rcx */
	}
	e_rr(e, true, 0x31, T_A, T_B); /* xor */
	e_lea(e, true, H_CX, H_CX, T_B, 3, 0);
	e_alu_imm(e, false, 4, H_CX, (JIT_TARGETS - 1) << 4);
	e_cpu_rcx(e, 0x3b, T_B, JIT_OFF(target)); /* cmp */
	e_set(e, e_jump_later(e, 5), missed);
	e_mem(e, false, 0xff, 4, H_SP, H_CX, 0, /* jmp [target.code] */
		e_disp(e, JIT_OFF(target) + (uint32_t)offsetof(struct jit_target, code)));
}

#endif
