/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The fixed pieces of host code at the start of each vCPU's arena.
 *
 * In translated code RSP is &jit_cpu.hot; a stub that was called finds its return address below. C runs on the stack of
 * enter()'s caller (hot.c_stack, 16-byte aligned, with &hot on its top to find the way back). It may leave by longjmp:
 * all guest registers are in v.state before any call that can raise, and translated code keeps nothing on its stack.
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

enum { CC_NE = 5, CC_E = 4, CC_A = 7 };

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
to_c_stack(struct emit *e)
{
	e_load(e, H_DI, JIT_OFF(hot.self));
	e_load(e, H_SP, JIT_OFF(hot.c_stack));
}

static void
from_c_stack(struct emit *e)
{
	e_mem(e, true, 0x8b, H_SP, H_SP, NONE, 0, 0);
	if (e->pushed)
		e_alu_imm(e, true, 5, H_SP, e->pushed);
}

/* fn(j, RSI, RDX). Clobbers what C does. */
static void
call_c(struct emit *e, const void *fn)
{
	to_c_stack(e);
	E_BYTES(e, 0x48, 0xb8); /* mov rax, imm64 */
	e_put(e, &fn, 8);
	E_BYTES(e, 0xff, 0xd0); /* call rax */
	from_c_stack(e);
}

/* Jump to RAX with the guest's registers loaded and T_A = rip. */
static void
go_on(struct emit *e)
{
	e_store(e, H_AX, JIT_OFF(hot.scratch));
	load_guest(e, true);
	e_load(e, T_A, JIT_OFF(i.c.v.state.rip));
	e_cpu(e, false, 0xff, 4, JIT_OFF(hot.scratch)); /* jmp [scratch] */
}

/* unsigned enter(struct jit_cpu *j, const void *code) */
static void
make_enter(struct jit_cpu *j, struct emit *e)
{
	j->enter = (unsigned (*)(struct jit_cpu *, const void *))(void *)(j->rx + e_at(e));
	E_BYTES(e, 0x53, 0x55, 0x41, 0x54, 0x41, 0x55, 0x41, 0x56, 0x41, 0x57); /* push rbx rbp r12-r15 */
	e_lea(e, true, H_CX, H_DI, NONE, 0, (int32_t)JIT_OFF(hot));
	e8(e, 0x51); /* push rcx */
	e_mem(e, true, 0x89, H_SP, H_CX, NONE, 0, (int32_t)(JIT_OFF(hot.c_stack) - JIT_OFF(hot)));
	e_mov(e, H_SP, H_CX);
	e_mov(e, H_AX, H_SI);
	go_on(e);
}

static void
make_leave(struct jit_cpu *j, struct emit *e)
{
	j->stub.leave = e_at(e);
	save_guest(e);
	j->stub.left = e_at(e);
	e_load(e, H_SP, JIT_OFF(hot.c_stack));
	e_alu_imm(e, true, 0, H_SP, 8);
	E_BYTES(e, 0x41, 0x5f, 0x41, 0x5e, 0x41, 0x5d, 0x41, 0x5c, 0x5d, 0x5b, 0xc3);
}

/* RAX: 0 to leave, else code to go on with. Ends a stub; what is on the stack is forgotten. */
static void
leave_or_go(struct jit_cpu *j, struct emit *e)
{
	uint32_t leave;

	if (e->pushed)
		e_alu_imm(e, true, 0, H_SP, e->pushed);
	e->pushed = 0;
	E_BYTES(e, 0x48, 0x85, 0xc0);
	leave = e_jump_later(e, CC_E);
	go_on(e);
	e_here(e, leave);
	e_jmp(e, j->stub.left);
}

/* ---- memory ---- */

/* The check of one access: falls through where T_A (linear) hits; jumps to the returned site where not. */
static uint32_t
lookup(struct jit_cpu *j, struct emit *e, uint32_t tlb, uint32_t tag)
{
	if (j->bmi2) {
		E_BYTES(e, 0xc4, 0xc3, 0x7b, 0xf0, 0xc8 | (T_A & 7), 7); /* rorx ecx, r11d, 7 */
	} else {
		e_mov32(e, H_CX, T_A);
		E_BYTES(e, 0xc1, 0xe9, 7); /* shr ecx, 7 */
	}
	e_alu_imm(e, true, 4, T_B, -(int32_t)PAGE_SIZE);
	e_alu_imm(e, false, 4, H_CX, (SOFT_TLB_SIZE - 1) * sizeof(struct soft_tlb_entry));
	e_cpu(e, true, 0x0b, T_B, JIT_OFF(hot.gen)); /* or */
	e_cpu_rcx(e, 0x3b, T_B, tlb + tag);	     /* cmp */
	return e_jump_later(e, CC_NE);
}

static uint32_t
tlb_of(unsigned mmu)
{
	return JIT_OFF(i.c.tlb) + mmu * (uint32_t)sizeof(((struct soft_cpu *)0)->tlb[0]);
}

static void
make_check(struct jit_cpu *j, struct emit *e, unsigned mmu, bool write, bool align, unsigned log2, uint32_t missed)
{
	uint32_t tag = write ? (uint32_t)offsetof(struct soft_tlb_entry, write)
			     : (uint32_t)offsetof(struct soft_tlb_entry, read);

	e->p += -(uintptr_t)e->p & 15;
	j->stub.check[mmu][write][align][log2] = e_at(e);
	e->pushed = 8;
	if (align) {
		E_BYTES(e, 0x41, 0xf6, 0xc0 | (T_A & 7), (1u << log2) - 1); /* test r11b, size - 1 */
		e_set(e, e_jump_later(e, CC_NE), missed);
	}
	e_lea(e, true, T_B, T_A, NONE, 0, (1 << log2) - 1);
	e_set(e, lookup(j, e, tlb_of(mmu), tag), missed);
	if (write) {
		e_cpu_rcx(e, 0x8b, T_B, tlb_of(mmu) + (uint32_t)offsetof(struct soft_tlb_entry, flags));
		E_BYTES(e, 0x41, 0x80, 0x38 | (T_B & 7), 0); /* cmp byte [r15], 0 */
		e_set(e, e_jump_later(e, CC_NE), missed);
	}
	e_cpu_rcx(e, 0x03, T_A, tlb_of(mmu) + (uint32_t)offsetof(struct soft_tlb_entry, delta)); /* add */
	e8(e, 0xc3);
	e->pushed = 0;
}

static uint32_t
make_missed(struct jit_cpu *j, struct emit *e)
{
	uint32_t at = e_at(e), done, other;

	e->pushed = 8;
	save_guest(e);
	e_mem(e, true, 0x8b, H_CX, H_SP, NONE, 0, 0);
	e_mem(e, false, 0x8b, H_DX, H_CX, NONE, 0, 1); /* the TEST's immediate */
	e_mov(e, H_SI, T_A);
	call_c(e, (const void *)(uintptr_t)jit_memory);
	E_BYTES(e, 0x83, 0xfa, JIT_DONE); /* cmp edx */
	done = e_jump_later(e, CC_E);
	other = e_jump_later(e, CC_A);
	e_mov(e, T_A, H_AX);
	load_guest(e, false);
	e8(e, 0xc3);
	e_here(e, done);
	e_mem(e, true, 0x01, H_AX, H_SP, NONE, 0, 0); /* add [rsp], rax */
	load_guest(e, true);
	e_flags_load(e);
	e8(e, 0xc3);
	e_here(e, other);
	leave_or_go(j, e);
	return at;
}

static void
make_window(struct jit_cpu *j, struct emit *e, unsigned mmu)
{
	uint32_t out[2], tlb = tlb_of(mmu), smap = 0;

	j->stub.window[mmu] = e_at(e);
	e->pushed = 8;
	if (mmu == MMU_KERNEL) { /* what it finds with AC set has to be good when AC is clear again */
		e_cpu(e, false, 0x83, 7, JIT_OFF(view[JIT_KERNEL].mmu));
		e8(e, MMU_KERNEL_SMAP);
		smap = e_jump_later(e, CC_E);
	}
	e_mov(e, T_B, T_A);
	out[0] = lookup(j, e, tlb, (uint32_t)offsetof(struct soft_tlb_entry, write));
	e_cpu_rcx(e, 0x8b, T_B, tlb + (uint32_t)offsetof(struct soft_tlb_entry, flags));
	E_BYTES(e, 0x41, 0x80, 0x38 | (T_B & 7), 0);
	out[1] = e_jump_later(e, CC_NE);
	e_store(e, T_B, JIT_OFF(hot.stack_flags));
	e_mov(e, T_B, T_A);
	e_alu_imm(e, true, 4, T_B, -(int32_t)PAGE_SIZE);
	e_store(e, T_B, JIT_OFF(hot.stack_page));
	/* what a page's linear address and offset become: host = (a ^ page) + (page + delta) */
	e_cpu_rcx(e, 0x03, T_B, tlb + (uint32_t)offsetof(struct soft_tlb_entry, delta));
	e_store(e, T_B, JIT_OFF(hot.stack_host));
	e_here(e, out[0]);
	e_here(e, out[1]);
	e8(e, 0xc3);
	e->pushed = 0;
	if (smap)
		e_here(e, smap); /* make_window(MMU_KERNEL_SMAP) is next */
}

static void
make_checks(struct jit_cpu *j, struct emit *e)
{
	uint32_t missed = make_missed(j, e);

	j->stub.missed = missed;
	for (unsigned mmu = 0; mmu < MMU_COUNT; mmu++)
		for (unsigned size = 0; size < JIT_SIZES; size++)
			for (unsigned how = 0; how < 4; how++)
				make_check(j, e, mmu, how & 1, how & 2, size, missed);
	for (unsigned mmu = 0; mmu < MMU_COUNT; mmu++)
		make_window(j, e, mmu);
}
_Static_assert(MMU_KERNEL + 1 == MMU_KERNEL_SMAP, "make_window() goes on with the next one");

/* ---- calls of C ---- */

static void
make_call(struct jit_cpu *j, struct emit *e)
{
	uint32_t other;

	j->stub.call = e_at(e);
	e->pushed = 8;
	save_guest(e);
	e_mov32(e, H_SI, H_CX);
	e_mov(e, H_DX, T_B);
	e_load(e, H_DI, JIT_OFF(hot.self));
	e_mov(e, H_AX, T_A);
	e_mem(e, true, 0x8b, H_AX, H_SP, H_AX, 3, e_disp(e, JIT_OFF(helper)));
	e_load(e, H_SP, JIT_OFF(hot.c_stack));
	E_BYTES(e, 0xff, 0xd0); /* call rax */
	from_c_stack(e);
	E_BYTES(e, 0x48, 0x83, 0xf8, 0x01); /* cmp rax, 1 */
	other = e_jump_later(e, CC_NE);
	load_guest(e, true);
	e8(e, 0xc3);
	e_here(e, other);
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
make_far(struct jit_cpu *j, struct emit *e)
{
	for (unsigned upper = 0; upper < 2; upper++) {
		j->stub.far[upper] = e_at(e);
		e_far_jump(e, upper, j->bmi2, j->stub.jump);
	}
}

static void
make_link(struct jit_cpu *j, struct emit *e, const void *taken)
{
	save_guest(e);
	e_mov32(e, H_SI, H_CX);
	call_c(e, taken);
	leave_or_go(j, e);
}

/* Shared blocks are in the lower half. */
static void
make_link_far(struct jit_cpu *j, struct emit *e)
{
	uint64_t meta = (uint64_t)(uintptr_t)j->meta;

	j->stub.link_far = e_at(e);
	E_BYTES(e, 0x49, 0xb8 | (T_B & 7)); /* mov r15, imm64 */
	e_put(e, &meta, 8);
	e_mem(e, false, 0x8b, T_A, T_B, H_CX, 0, (int32_t)offsetof(struct jit_link, target));
	e_cpu(e, true, 0x03, T_A, JIT_OFF(hot.page_va)); /* add */
	e_jmp(e, j->stub.far[0]);
}

/* It is linked again after as many misses as its `wait` says. */
static void
make_cross(struct jit_cpu *j, struct emit *e, bool upper)
{
	uint64_t meta = (uint64_t)(uintptr_t)j->meta;
	uint32_t again;

	j->stub.cross[upper] = e_at(e);
	E_BYTES(e, 0x49, 0xb8 | (T_B & 7)); /* mov r15, imm64 */
	e_put(e, &meta, 8);
	e_mem(e, false, 0xff, 1, T_B, H_CX, 0, (int32_t)offsetof(struct jit_cross, wait)); /* dec */
	again = e_jump_later(e, CC_E);
	e_mem(e, true, 0x63, T_B, T_B, H_CX, 0, (int32_t)offsetof(struct jit_cross, off)); /* movsxd */
	e_rr(e, true, 0x01, T_B, T_A);
	e_jmp(e, j->stub.far[upper]);
	e_here(e, again);
	make_link(j, e, (const void *)(uintptr_t)jit_cross_taken);
}

static uint32_t
make_poll(struct jit_cpu *j, struct emit *e, bool host_form)
{
	uint32_t at = e_at(e);

	e->pushed = 8;
	if (host_form)
		e_flags_save(e);
	save_guest(e);
	e_mem(e, true, 0x8b, H_SI, H_SP, NONE, 0, 0);
	call_c(e, (const void *)(uintptr_t)jit_poll);
	leave_or_go(j, e);
	return at;
}

static void
make_flags(struct jit_cpu *j, struct emit *e)
{
	e->pushed = 8;
	j->stub.save = e_at(e);
	e_flags_save(e);
	e8(e, 0xc3);
	j->stub.load = e_at(e);
	e_flags_load(e);
	e8(e, 0xc3);
	e->pushed = 0;
}

void
jit_make_stubs(struct jit_cpu *j)
{
	struct emit e = { j->rw, j->rw, 0 };

	make_enter(j, &e);
	make_leave(j, &e);
	make_checks(j, &e);
	make_call(j, &e);
	make_jump(j, &e);
	make_far(j, &e);
	j->stub.link = e_at(&e);
	make_link(j, &e, (const void *)(uintptr_t)jit_link_taken);
	make_link_far(j, &e);
	make_cross(j, &e, false);
	make_cross(j, &e, true);
	j->stub.poll_host = make_poll(j, &e, true);
	j->stub.poll_mem = make_poll(j, &e, false);
	make_flags(j, &e);
	jit_make_mode_stubs(j, &e);
	j->start = j->used = (e_at(&e) + 63) & ~63u;
}
