/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The fixed pieces of host code at the start of each vCPU's arena.
 *
 * Translated code runs on the C stack of jit_enter()'s caller with RSP 16-byte aligned, so that a stub that was called
 * has 8 bytes to make good before it calls C. C code may leave by longjmp: all guest registers are in v.state before
 * any call that can raise.
 */
#include "cpu/jit/emit.h"

#define NONE H_NONE

/* Guest register to host register; NONE: it lives in v.state only. The ones compilers use least have no register. */
const uint8_t jit_host_reg[16] = {
	[RAX] = H_AX,
	[RCX] = H_9,
	[RDX] = H_DX,
	[RBX] = H_BX,
	[RSP] = H_10,
	[RBP] = H_BP,
	[RSI] = H_SI,
	[RDI] = H_DI,
	[R8] = H_8,
	[R9] = NONE,
	[R10] = NONE,
	[R11] = NONE,
	[R12] = H_12,
	[R13] = H_13,
	[R14] = H_14,
	[R15] = NONE,
};

static bool
kept_by_c(unsigned host)
{
	return host == H_BX || host == H_BP || host >= H_12;
}

static void
save_guest(struct emit *e)
{
	for (unsigned g = 0; g < 16; g++)
		if (jit_host_reg[g] != NONE)
			e_store(e, jit_host_reg[g], JIT_OFF_GPR(g));
}

/* `all`: also those that C code preserves. */
static void
load_guest(struct emit *e, bool all)
{
	for (unsigned g = 0; g < 16; g++)
		if (jit_host_reg[g] != NONE && (all || !kept_by_c(jit_host_reg[g])))
			e_load(e, jit_host_reg[g], JIT_OFF_GPR(g));
}

static void
call_c(struct emit *e, const void *fn)
{
	e_load(e, H_DI, JIT_OFF(self));
	E_BYTES(e, 0x48, 0xb8); /* mov rax, imm64 */
	e_put(e, &fn, 8);
	E_BYTES(e, 0xff, 0xd0); /* call rax */
}

static void
stack(struct emit *e, int by)
{
	e_alu_imm(e, true, by < 0 ? 5 : 0, H_SP, by < 0 ? -by : by);
}

/* jmp rax with the guest's registers loaded and T_A = rip; RAX's way is the host stack's red zone-free slot. */
static void
go_on(struct emit *e)
{
	e_store(e, H_AX, JIT_OFF(scratch));
	load_guest(e, true);
	e_load(e, T_A, JIT_OFF(i.c.v.state.rip));
	E_BYTES(e, 0x65, 0xff, 0x24, 0x25); /* jmp gs:[scratch] */
	e32(e, JIT_OFF(scratch));
}

/* unsigned enter(struct jit_cpu *j, const void *code) */
static void
make_enter(struct jit_cpu *j, struct emit *e)
{
	j->enter = (unsigned (*)(struct jit_cpu *, const void *))(void *)(j->rx + e_at(e));
	E_BYTES(e, 0x53, 0x55, 0x41, 0x54, 0x41, 0x55, 0x41, 0x56, 0x41, 0x57); /* push rbx rbp r12-r15 */
	stack(e, -8);
	e_mov(e, H_AX, H_SI);
	go_on(e);
}

static void
make_leave(struct jit_cpu *j, struct emit *e)
{
	j->stub.leave = e_at(e);
	save_guest(e);
	j->stub.left = e_at(e);
	stack(e, 8);
	E_BYTES(e, 0x41, 0x5f, 0x41, 0x5e, 0x41, 0x5d, 0x41, 0x5c, 0x5d, 0x5b, 0xc3);
}

static void
make_memory(struct jit_cpu *j, struct emit *e)
{
	j->stub.memory = e_at(e);
	stack(e, -8);
	save_guest(e);
	e_mov(e, H_SI, T_A);
	e_mov32(e, H_DX, H_CX);
	call_c(e, (const void *)(uintptr_t)jit_memory);
	e_mov(e, T_A, H_AX);
	e_mov(e, T_B, H_DX);
	load_guest(e, false);
	stack(e, 8);
	e8(e, 0xc3);
}

static void
make_written(struct jit_cpu *j, struct emit *e)
{
	uint32_t leave;

	j->stub.written = e_at(e);
	e8(e, 0x9c); /* pushfq */
	save_guest(e);
	e_mov32(e, H_SI, H_CX);
	e_mem(e, true, 0x8b, H_DX, H_SP, H_NONE, 0, 0);
	e_mov(e, H_CX, T_B);
	call_c(e, (const void *)(uintptr_t)jit_written);
	E_BYTES(e, 0x85, 0xc0); /* test eax, eax */
	leave = e_jump_later(e, 5);
	load_guest(e, false);
	E_BYTES(e, 0x9d, 0xc3); /* popfq; ret */
	e_here(e, leave);
	stack(e, 16);
	e_jmp(e, j->stub.left);
}

/* RAX: 0 to leave, else code to go on with; the stack as in translated code. */
static void
leave_or_go(struct jit_cpu *j, struct emit *e)
{
	uint32_t leave;

	E_BYTES(e, 0x48, 0x85, 0xc0);
	leave = e_jump_later(e, 4);
	go_on(e);
	e_here(e, leave);
	e_jmp(e, j->stub.left);
}

static void
make_call(struct jit_cpu *j, struct emit *e)
{
	uint32_t other;

	j->stub.call = e_at(e);
	stack(e, -8);
	save_guest(e);
	e_mov32(e, H_SI, H_CX);
	e_load(e, H_DI, JIT_OFF(self));
	E_BYTES(e, 0x65, 0x42, 0xff, 0x14, 0xdd); /* call gs:[r11 * 8 + helper] */
	e32(e, JIT_OFF(helper));
	E_BYTES(e, 0x48, 0x83, 0xf8, 0x01); /* cmp rax, 1 */
	other = e_jump_later(e, 5);
	load_guest(e, true);
	stack(e, 8);
	e8(e, 0xc3);
	e_here(e, other);
	stack(e, 16);
	leave_or_go(j, e);
}

static void
make_jump(struct jit_cpu *j, struct emit *e)
{
	j->stub.jump = e_at(e);
	save_guest(e);
	e_mov(e, H_SI, T_A);
	call_c(e, (const void *)(uintptr_t)jit_jump);
	leave_or_go(j, e);
}

static void
make_link(struct jit_cpu *j, struct emit *e)
{
	j->stub.link = e_at(e);
	save_guest(e);
	e_mov32(e, H_SI, H_CX);
	call_c(e, (const void *)(uintptr_t)jit_link_taken);
	leave_or_go(j, e);
}

/* run_ok was 0 at a block's entry: T_A = offset of rip in its page. */
static void
make_poll(struct jit_cpu *j, struct emit *e)
{
	j->stub.poll = e_at(e);
	e_load(e, T_B, JIT_OFF(page_va));
	e_lea(e, true, T_A, T_A, T_B, 0, 0);
	e_store(e, T_A, JIT_OFF(i.c.v.state.rip));
	e_jmp(e, j->stub.leave);
}

void
jit_make_stubs(struct jit_cpu *j)
{
	struct emit e = { j->rw, j->rw };

	make_enter(j, &e);
	make_leave(j, &e);
	make_memory(j, &e);
	make_written(j, &e);
	make_call(j, &e);
	make_jump(j, &e);
	make_link(j, &e);
	make_poll(j, &e);
	j->start = j->used = (e_at(&e) + 63) & ~63u;
}
