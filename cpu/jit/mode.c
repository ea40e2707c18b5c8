/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Changes of mode without C: what a system call consists of beside the kernel's own code.
 *
 * SYSCALL in user mode, SYSRET to 64-bit user mode, STAC and CLAC do here what x86_syscall(), x86_sysret() and
 * x86_set_ac() do, for the ordinary case. What else x86_update_mode() and the run loop derive from the new mode is in
 * the mode's `view`; nothing that it depends on changes without C, which forgets the views then (note_view() in run.c).
 * All that is not ordinary (a view that is not known, EFER.SCE clear, AC or TF to be set, a request waiting for IF) goes
 * to C with nothing changed yet.
 *
 * Translated code runs with no trap flag, breakpoint or alignment check (wants_single() and mode_translated() in run.c),
 * and here none of these begins.
 *
 * With AC set the stack window is one that supervisor accesses may go through without it (make_window() in stubs.c), so
 * it stays open over STAC and CLAC.
 */
#include "bus/machine.h"
#include "cpu/jit/emit.h"

#define NONE H_NONE
#define ARITH_FLAGS (FLAG_CF | FLAG_PF | FLAG_AF | FLAG_ZF | FLAG_SF | FLAG_OF)
#define LAHF_FLAGS (ARITH_FLAGS & ~FLAG_OF)
#define SYSRET_FLAGS 0x3c7fd7u /* from R11; RF is cleared */
#define ATTR_CODE 0x009bu      /* present, code, readable, accessed */
#define ATTR_DATA 0x0093u
#define ATTR_DPL3 0x0060u
#define OFF_STATE(member) JIT_OFF(i.c.v.state.member)

enum { CC_E = 4, CC_NE = 5 };

struct slow {
	uint32_t site[8];
	unsigned count;
};

/* ---- a few more forms ---- */

static void
shift(struct emit *e, bool w, unsigned ext, unsigned reg, unsigned by)
{
	e_rex(e, w, 0, 0, reg);
	E_BYTES(e, 0xc1, 0xc0 | ext << 3 | (reg & 7), by);
}
#define shl(e, w, reg, by) shift(e, w, 4, reg, by)
#define shr(e, w, reg, by) shift(e, w, 5, reg, by)

static void
and32(struct emit *e, unsigned reg, uint32_t imm)
{
	e_alu_imm(e, false, 4, reg, (int32_t)imm);
}

static void
or32(struct emit *e, unsigned reg, uint32_t imm)
{
	e_alu_imm(e, false, 1, reg, (int32_t)imm);
}

static void
store_imm(struct emit *e, bool w, uint32_t off, uint32_t imm)
{
	e_cpu(e, w, 0xc7, 0, off);
	e32(e, imm);
}

static void
store_imm8(struct emit *e, uint32_t off, uint8_t imm)
{
	e_cpu(e, false, 0xc6, 0, off);
	e8(e, imm);
}

static void
copy(struct emit *e, uint32_t to, uint32_t from)
{
	e_load(e, H_CX, from);
	e_store(e, H_CX, to);
}

/* movzx reg, word [off] */
static void
load16(struct emit *e, unsigned reg, uint32_t off)
{
	e_rex(e, false, reg, 0, 0);
	E_BYTES(e, 0x0f, 0xb7);
	e_modrm(e, reg, H_SP, NONE, 0, e_disp(e, off));
}

static void
test_imm(struct emit *e, unsigned reg, uint32_t imm)
{
	e_rex(e, false, 0, 0, reg);
	E_BYTES(e, 0xf7, 0xc0 | (reg & 7));
	e32(e, imm);
}

/* ---- to C ---- */

static void
slow_if(struct emit *e, struct slow *s, unsigned cc)
{
	s->site[s->count++] = e_jump_later(e, cc);
}

static void
slow_if_bit(struct emit *e, struct slow *s, uint32_t off, uint8_t bit, bool set)
{
	e_cpu(e, false, 0xf6, 0, off); /* test byte [off], bit */
	e8(e, bit);
	slow_if(e, s, set ? CC_NE : CC_E);
}

/* A dword of struct jit_cpu is (or is not) a small value. */
static void
slow_if_value(struct emit *e, struct slow *s, uint32_t off, int8_t value, bool equal)
{
	e_cpu(e, false, 0x83, 7, off); /* cmp dword [off], value */
	e8(e, (uint8_t)value);
	slow_if(e, s, equal ? CC_E : CC_NE);
}

/* The stub was called as the general one is, but for T_A. */
static void
write_slow(struct jit_cpu *j, struct emit *e, const struct slow *s)
{
	e->pushed = 0;
	for (unsigned i = 0; i < s->count; i++)
		e_here(e, s->site[i]);
	e_mov_imm32(e, T_A, HELP_SYSTEM);
	e_jmp(e, j->stub.call);
}

/* ---- flags ---- */

/* `to` = RFLAGS with the arithmetic flags in it, without RF. */
static void
whole_rflags(struct emit *e, unsigned to, unsigned temp)
{
	load16(e, to, JIT_OFF(hot.fl));
	e_mov32(e, temp, to);
	shr(e, false, temp, 8);
	and32(e, temp, LAHF_FLAGS);
	and32(e, to, 1);
	shl(e, false, to, 11);
	e_rr(e, false, 0x09, to, temp); /* or */
	e_load32(e, to, OFF_STATE(rflags));
	and32(e, to, ~(uint32_t)(ARITH_FLAGS | FLAG_RF));
	e_rr(e, false, 0x09, temp, to);
}

/* T_A becomes RFLAGS. RCX and T_A are clobbered. */
static void
set_rflags(struct emit *e)
{
	e_store(e, T_A, OFF_STATE(rflags));
	e_mov32(e, H_CX, T_A);
	and32(e, H_CX, LAHF_FLAGS);
	or32(e, H_CX, 2);
	shl(e, false, H_CX, 8);
	shr(e, false, T_A, 11);
	and32(e, T_A, 1);
	e_rr(e, false, 0x09, T_A, H_CX);
	e8(e, 0x66);
	e_cpu(e, false, 0x89, H_CX, JIT_OFF(hot.fl)); /* mov word [fl], cx */
}

/* ---- segments and views ---- */

/* ECX: selector. As set_flat() in excp.c. */
static void
set_segment(struct emit *e, enum seg_name n, uint32_t attr)
{
	uint32_t seg = OFF_STATE(seg) + (uint32_t)sizeof(struct x86_seg) * (uint32_t)n;

	_Static_assert(offsetof(struct x86_seg, attr) >= 4, "the selector is written as a dword");
	e_store32(e, H_CX, seg + (uint32_t)offsetof(struct x86_seg, sel));
	store_imm(e, false, seg + (uint32_t)offsetof(struct x86_seg, attr), attr | SEG_G);
	store_imm(e, false, seg + (uint32_t)offsetof(struct x86_seg, limit), UINT32_MAX);
	store_imm(e, true, seg + (uint32_t)offsetof(struct x86_seg, base), 0);
}

static void
enter_view(struct emit *e, enum jit_view_name to)
{
	copy(e, JIT_OFF(hot.ctx[0]), JIT_OFF(view[to].ctx[0]));
	copy(e, JIT_OFF(hot.ctx[1]), JIT_OFF(view[to].ctx[1]));
	e_load32(e, H_CX, JIT_OFF(view[to].mode_key));
	e_store32(e, H_CX, JIT_OFF(i.c.mode_key));
	e_store32(e, H_CX, JIT_OFF(seen_key)); /* its upper half is the generation */
	e_load32(e, H_CX, JIT_OFF(view[to].mmu));
	e_cpu(e, false, 0x88, H_CX, JIT_OFF(i.c.mmu)); /* mov byte [mmu], cl */
}

static void
change_window(struct emit *e, enum jit_view_name from, enum jit_view_name to)
{
	copy(e, JIT_OFF(view[from].stack_page), JIT_OFF(hot.stack_page));
	copy(e, JIT_OFF(view[from].stack_host), JIT_OFF(hot.stack_host));
	copy(e, JIT_OFF(view[from].stack_flags), JIT_OFF(hot.stack_flags));
	copy(e, JIT_OFF(hot.stack_page), JIT_OFF(view[to].stack_page));
	copy(e, JIT_OFF(hot.stack_host), JIT_OFF(view[to].stack_host));
	copy(e, JIT_OFF(hot.stack_flags), JIT_OFF(view[to].stack_flags));
}

/* T_A = rip, in the upper half or not */
static void
go(struct jit_cpu *j, struct emit *e, bool upper)
{
	e_alu_imm(e, true, 0, H_SP, 8);
	e->pushed = 0;
	e_far_jump(e, upper, j->bmi2, j->stub.jump);
}

/* ---- the instructions ---- */

/* R9, the guest's RCX = rip behind the instruction that `ECX` tells of */
static void
next_rip(struct emit *e)
{
	e_mov32(e, H_9, H_CX);
	and32(e, H_9, 0x1fff); /* SITE_OFF */
	shr(e, false, H_CX, 13);
	and32(e, H_CX, 15); /* SITE_LEN */
	e_rr(e, true, 0x01, H_CX, H_9);
	e_cpu(e, true, 0x03, H_9, JIT_OFF(hot.page_va)); /* add */
}

static void
make_syscall(struct jit_cpu *j, struct emit *e)
{
	struct slow s = { .count = 0 };

	j->stub.syscall = e_at(e);
	e->pushed = 8;
	slow_if_bit(e, &s, OFF_STATE(efer), EFER_SCE, false);
	slow_if_value(e, &s, JIT_OFF(view[JIT_KERNEL].mmu), (int8_t)JIT_NO_VIEW, true);
	whole_rflags(e, T_B, T_A);
	e_load(e, T_A, OFF_STATE(sfmask));
	e_rex(e, true, 0, 0, T_A);
	E_BYTES(e, 0xf7, 0xd0 | (T_A & 7)); /* not */
	e_rr(e, true, 0x21, T_B, T_A);	    /* and */
	or32(e, T_A, 2);
	test_imm(e, T_A, FLAG_AC);
	slow_if(e, &s, CC_NE);

	e_store(e, T_B, JIT_OFF_GPR(R11));
	next_rip(e);
	set_rflags(e);
	e_load32(e, H_CX, OFF_STATE(star) + 4);
	and32(e, H_CX, 0xfffc);
	set_segment(e, SEG_CS, ATTR_CODE | SEG_L);
	e_alu_imm(e, false, 0, H_CX, 8);
	and32(e, H_CX, 0xfffc);
	set_segment(e, SEG_SS, ATTR_DATA | SEG_DB);
	store_imm8(e, JIT_OFF(i.c.cpl), 0);
	change_window(e, JIT_USER, JIT_KERNEL);
	enter_view(e, JIT_KERNEL);
	e_load(e, T_A, OFF_STATE(lstar));
	go(j, e, true);
	write_slow(j, e, &s);
}

static void
make_sysret(struct jit_cpu *j, struct emit *e)
{
	struct slow s = { .count = 0 };

	j->stub.sysret = e_at(e);
	e->pushed = 8;
	slow_if_bit(e, &s, OFF_STATE(efer), EFER_SCE, false);
	slow_if_value(e, &s, JIT_OFF(view[JIT_USER].mmu), (int8_t)JIT_NO_VIEW, true);
	slow_if_value(e, &s, JIT_OFF(i.c.v.requests), 0, false);
	e_mov(e, T_B, H_9);
	shift(e, true, 4, T_B, 16);
	shift(e, true, 7, T_B, 16);    /* sar: canonical? */
	e_rr(e, true, 0x39, H_9, T_B); /* cmp */
	slow_if(e, &s, CC_NE);
	e_load32(e, T_A, JIT_OFF_GPR(R11));
	test_imm(e, T_A, FLAG_AC | FLAG_TF);
	slow_if(e, &s, CC_NE);

	and32(e, T_A, SYSRET_FLAGS & ~(uint32_t)FLAG_RF);
	or32(e, T_A, 2);
	set_rflags(e);
	load16(e, H_CX, OFF_STATE(star) + 6);
	e_alu_imm(e, false, 0, H_CX, 16);
	and32(e, H_CX, 0xfffc);
	or32(e, H_CX, 3);
	set_segment(e, SEG_CS, ATTR_CODE | ATTR_DPL3 | SEG_L);
	load16(e, H_CX, OFF_STATE(star) + 6);
	e_alu_imm(e, false, 0, H_CX, 8);
	and32(e, H_CX, 0xfffc);
	or32(e, H_CX, 3);
	set_segment(e, SEG_SS, ATTR_DATA | ATTR_DPL3 | SEG_DB);
	store_imm8(e, JIT_OFF(i.c.cpl), 3);
	change_window(e, JIT_KERNEL, JIT_USER);
	enter_view(e, JIT_USER);
	e_mov(e, T_A, H_9);
	go(j, e, false);
	write_slow(j, e, &s);
}

/* The view it leads to says whether SMAP is on: without it AC changes nothing. */
static uint32_t
make_ac(struct jit_cpu *j, struct emit *e, bool set)
{
	enum jit_view_name to = set ? JIT_KERNEL_AC : JIT_KERNEL;
	struct slow s = { .count = 0 };
	uint32_t at = e_at(e);

	e->pushed = 8;
	slow_if_value(e, &s, JIT_OFF(view[to].mmu), set ? MMU_KERNEL : MMU_KERNEL_SMAP, false);
	e_cpu(e, false, 0x81, set ? 1 : 4, OFF_STATE(rflags)); /* or, and */
	e32(e, set ? FLAG_AC : ~(uint32_t)FLAG_AC);
	enter_view(e, to);
	e8(e, 0xc3);
	write_slow(j, e, &s);
	return at;
}

/* As clock_tsc(). */
static uint32_t
make_rdtsc(struct jit_cpu *j, struct emit *e, bool with_aux)
{
	const struct clock *clock = &j->i.c.v.m->clock;
	struct slow s = { .count = 0 };
	uint32_t at = e_at(e);

	e->pushed = 8;
	slow_if_bit(e, &s, OFF_STATE(cr4), CR4_TSD, true);
	E_BYTES(e, 0x49, 0xb8 | (T_A & 7)); /* mov r11, imm64 */
	e_put(e, &clock, 8);
	e_mem(e, false, 0x8b, T_B, T_A, NONE, 0, (int32_t)offsetof(struct clock, seq));
	test_imm(e, T_B, 1);
	slow_if(e, &s, CC_NE);
	e_mem(e, false, 0x80, 7, T_A, NONE, 0, (int32_t)offsetof(struct clock, running)); /* cmp byte */
	e8(e, 0);
	slow_if(e, &s, CC_E);
	E_BYTES(e, 0x0f, 0x31); /* rdtsc */
	shl(e, true, H_DX, 32);
	e_rr(e, true, 0x09, H_DX, H_AX);
	e_mem(e, true, 0x03, H_AX, T_A, NONE, 0, (int32_t)offsetof(struct clock, tsc_offset));
	e_mem(e, false, 0x3b, T_B, T_A, NONE, 0, (int32_t)offsetof(struct clock, seq));
	slow_if(e, &s, CC_NE);
	e_cpu(e, true, 0x03, H_AX, OFF_STATE(tsc_adjust));
	e_mov(e, H_DX, H_AX);
	shr(e, true, H_DX, 32);
	e_mov32(e, H_AX, H_AX);
	if (with_aux)
		e_load32(e, H_9, OFF_STATE(tsc_aux));
	e8(e, 0xc3);
	write_slow(j, e, &s);
	return at;
}

static void
make_rflags(struct jit_cpu *j, struct emit *e)
{
	j->stub.rflags = e_at(e);
	e->pushed = 8;
	whole_rflags(e, H_CX, T_B);
	and32(e, H_CX, 0xfcffff); /* VM and RF are stored as 0 */
	e8(e, 0xc3);
	e->pushed = 0;
}

void
jit_make_mode_stubs(struct jit_cpu *j, struct emit *e)
{
	make_syscall(j, e);
	make_sysret(j, e);
	j->stub.stac = make_ac(j, e, true);
	j->stub.clac = make_ac(j, e, false);
	j->stub.rdtsc = make_rdtsc(j, e, false);
	j->stub.rdtscp = make_rdtsc(j, e, true);
	make_rflags(j, e);
}
