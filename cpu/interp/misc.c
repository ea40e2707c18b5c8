/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Unprivileged operations that are not hot, or not hot in this form: stacks that are not flat, branches in 16-bit code,
 * decimal arithmetic, ENTER, BOUND, and the instructions that cpu/x86/vec.c runs on the host.
 */
#include <sched.h>

#include "cpu/interp/op.h"

#define HANDLER(name) struct block *interp_op_##name(struct interp_cpu *i, const struct op *op)
#define GPR(r) (i->c.v.state.gpr[r])
#define DONE(out)                                                                                                      \
	do {                                                                                                           \
		if (unlikely(out))                                                                                     \
			return interp_leave(i, op);                                                                    \
		NEXT;                                                                                                  \
	} while (0)

/* ---- push and pop ---- */

HANDLER(push)
{
	DONE(interp_push(i, op, reg_get(i, op->src, op->size), op->size));
}

HANDLER(push_imm)
{
	DONE(interp_push(i, op, (uint64_t)op->imm, op->size));
}

HANDLER(push_rm)
{
	DONE(interp_push(i, op, interp_rm_load(i, op, op->size), op->size));
}

HANDLER(pop_r)
{
	uint64_t v = interp_peek(i, op, op->size);

	interp_move_sp(i, op->size);
	reg_set(i, op->dst, v, op->size);
	NEXT;
}

/* The address of the operand is computed with SP already incremented (SDM 2B, POP). */
HANDLER(pop_rm)
{
	uint64_t sp = GPR(RSP), after, off, v = interp_peek(i, op, op->size);
	bool out;

	interp_move_sp(i, op->size);
	after = GPR(RSP);
	off = interp_offset(i, op);
	GPR(RSP) = sp;
	out = interp_store(i, op, op->seg, off, v, op->size);
	GPR(RSP) = after;
	DONE(out);
}

HANDLER(pusha)
{
	uint64_t sp = GPR(RSP);
	unsigned n = op->size;
	bool out = false;

	/* all or nothing: the last store is the one that may fault first */
	HOT.op = op;
	for (int r = RAX; r <= RDI; r++) {
		uint64_t off = sp - n * (unsigned)(r + 1);

		off &= size_mask(i->c.stack_size);
		x86_probe(&i->c, interp_linear(i, op, SEG_SS, off, n, X86_WRITE), n, X86_WRITE, i->c.mmu);
	}
	for (int r = RAX; r <= RDI; r++) {
		uint64_t off = (sp - n * (unsigned)(r + 1)) & size_mask(i->c.stack_size);

		out |= interp_store(i, op, SEG_SS, off, GPR(r), n);
	}
	interp_move_sp(i, -8 * (int64_t)n);
	DONE(out);
}

HANDLER(popa)
{
	uint64_t v[8];
	unsigned n = op->size;

	for (unsigned k = 0; k < 8; k++)
		v[k] = interp_load(i, op, SEG_SS, (GPR(RSP) + k * n) & size_mask(i->c.stack_size), n);
	interp_move_sp(i, 8 * (int64_t)n);
	for (unsigned k = 0; k < 8; k++)
		if (7 - k != RSP)
			reg_set(i, (7 - k) * 8, v[k], n);
	NEXT;
}

/* ENTER size, level: imm holds the size, disp the level. */
HANDLER(enter)
{
	unsigned n = op->size, stack = i->c.stack_size, level = (unsigned)op->disp & 31;
	uint64_t mask = size_mask(stack), sp = GPR(RSP) & mask, bp = GPR(RBP) & mask, frame;
	bool out;

	sp = (sp - n) & mask;
	out = interp_store(i, op, SEG_SS, sp, GPR(RBP), n);
	frame = sp;
	for (unsigned k = 1; k < level; k++) {
		bp = (bp - n) & mask;
		sp = (sp - n) & mask;
		out |= interp_store(i, op, SEG_SS, sp, interp_load(i, op, SEG_SS, bp, n), n);
	}
	if (level) {
		sp = (sp - n) & mask;
		out |= interp_store(i, op, SEG_SS, sp, (GPR(RSP) & ~mask) | frame, n);
	}
	sp = (sp - (uint64_t)op->imm) & mask;
	/* the new top of stack must be writable (SDM 2A, ENTER) */
	HOT.op = op;
	x86_probe(&i->c, interp_linear(i, op, SEG_SS, sp, n, X86_WRITE), n, X86_WRITE, i->c.mmu);
	reg_set(i, RBP * 8, frame, n);
	if (stack == 2)
		SET2(RSP * 8, sp);
	else
		GPR(RSP) = sp;
	DONE(out);
}

HANDLER(leave)
{
	uint64_t mask = size_mask(i->c.stack_size), bp = GPR(RBP) & mask;
	uint64_t v = interp_load(i, op, SEG_SS, bp, op->size);

	if (i->c.stack_size == 2)
		SET2(RSP * 8, bp);
	else
		GPR(RSP) = bp;
	interp_move_sp(i, op->size);
	reg_set(i, RBP * 8, v, op->size);
	NEXT;
}

/* ---- flow ---- */

static uint64_t
target_of(const struct op *op, uint64_t rip)
{
	return rip & size_mask(op->size);
}

HANDLER(jmp_rm)
{
	uint64_t target = target_of(op, interp_rm_load(i, op, op->size));

	interp_check_target(i, op, target);
	return jump(i, op, target);
}

static struct block *
call_to(struct interp_cpu *i, const struct op *op, uint64_t target, int link)
{
	interp_check_target(i, op, target);
	if (interp_push(i, op, op_next_rip(i, op), op->size)) {
		interp_leave(i, op);
		ST.rip = target;
		return NULL;
	}
	return link >= 0 ? chain(i, op, (unsigned)link, target) : jump(i, op, target);
}

HANDLER(call_rel)
{
	return call_to(i, op, target_of(op, HOT.block_rip + (uint64_t)op->imm), 1);
}

HANDLER(call_rm)
{
	return call_to(i, op, target_of(op, interp_rm_load(i, op, op->size)), -1);
}

HANDLER(ret)
{
	uint64_t target = interp_peek(i, op, op->size);

	interp_check_target(i, op, target);
	interp_move_sp(i, op->size);
	interp_move_sp(i, op->imm);
	return jump(i, op, target);
}

/* Count register of LOOP and JCXZ: as wide as addresses. */
static unsigned
count_size(struct interp_cpu *i, const struct op *op)
{
	if (op->flags & OP_A16)
		return 2;
	return op->flags & OP_A32 ? 4 : 8;
}

static struct block *
branch_if(struct interp_cpu *i, const struct op *op, bool taken)
{
	if (taken)
		return chain(i, op, 1, target_of(op, HOT.block_rip + (uint64_t)op->imm));
	return chain(i, op, 0, op_next_rip(i, op));
}

static bool
count_down(struct interp_cpu *i, const struct op *op)
{
	unsigned n = count_size(i, op);
	uint64_t count = (reg_get(i, RCX * 8, n) - 1) & size_mask(n);

	reg_set(i, RCX * 8, count, n);
	return count != 0;
}

HANDLER(loop)
{
	return branch_if(i, op, count_down(i, op));
}

HANDLER(loope)
{
	return branch_if(i, op, count_down(i, op) && (HOT.flags & HF_ZF));
}

HANDLER(loopne)
{
	return branch_if(i, op, count_down(i, op) && !(HOT.flags & HF_ZF));
}

HANDLER(jcxz)
{
	return branch_if(i, op, !reg_get(i, RCX * 8, count_size(i, op)));
}

HANDLER(bound)
{
	unsigned n = op->size;
	uint64_t off = interp_offset(i, op);
	int shift = 64 - (int)n * 8;
	int64_t index = (int64_t)(REG(8, op->dst) << shift);

	/* An index below the lower limit is out of bounds before the upper one is read. */
	if (index < (int64_t)(interp_load(i, op, op->seg, off, n) << shift) ||
		index > (int64_t)(interp_load(i, op, op->seg, off + n, n) << shift))
		interp_raise(i, op, EXC_BR);
	NEXT;
}

/* ---- data ---- */

HANDLER(cbw)
{
	if (op->size == 2)
		SET2(RAX * 8, (int8_t)GPR(RAX));
	else if (op->size == 4)
		SET4(RAX * 8, (int16_t)GPR(RAX));
	else
		GPR(RAX) = (uint64_t)(int32_t)GPR(RAX);
	NEXT;
}

HANDLER(cwd)
{
	uint64_t sign = (GPR(RAX) >> (op->size * 8 - 1)) & 1;

	reg_set(i, RDX * 8, 0 - sign, op->size);
	NEXT;
}

/* BSWAP of a 16-bit register is undefined; the host clears it. */
HANDLER(bswap)
{
	if (op->size == 8)
		REG(8, op->dst) = __builtin_bswap64(REG(8, op->dst));
	else if (op->size == 4)
		SET4(op->dst, __builtin_bswap32(REG(4, op->dst)));
	else
		SET2(op->dst, 0);
	NEXT;
}

static uint64_t
swap(uint64_t v, unsigned size)
{
	return __builtin_bswap64(v) >> (64 - size * 8);
}

HANDLER(movbe_load)
{
	uint64_t v = interp_load(i, op, op->seg, interp_offset(i, op), op->size);

	reg_set(i, op->dst, swap(v, op->size), op->size);
	NEXT;
}

HANDLER(movbe_store)
{
	uint64_t v = swap(reg_get(i, op->src, op->size), op->size);

	DONE(interp_store(i, op, op->seg, interp_offset(i, op), v, op->size));
}

HANDLER(movnti)
{
	DONE(interp_store(i, op, op->seg, interp_offset(i, op), reg_get(i, op->src, op->size), op->size));
}

HANDLER(xlat)
{
	uint64_t off = GPR(RBX) + (uint8_t)GPR(RAX);

	off &= size_mask(op->flags & OP_A16 ? 2 : op->flags & OP_A32 ? 4 : 8);
	SET1(RAX * 8, interp_load(i, op, op->seg, off, 1));
	NEXT;
}

HANDLER(xchg_rr)
{
	uint64_t d = reg_get(i, op->dst, op->size), s = reg_get(i, op->src, op->size);

	reg_set(i, op->dst, s, op->size);
	reg_set(i, op->src, d, op->size);
	NEXT;
}

HANDLER(lea_any)
{
	reg_set(i, op->dst, interp_offset(i, op), op->size);
	NEXT;
}

HANDLER(mov_a_moffs)
{
	reg_set(i, RAX * 8, interp_load(i, op, op->seg, (uint64_t)op->imm, op->size), op->size);
	NEXT;
}

HANDLER(mov_moffs_a)
{
	DONE(interp_store(i, op, op->seg, (uint64_t)op->imm, reg_get(i, RAX * 8, op->size), op->size));
}

/* `src` is the condition where the register form has a handler for each. */
static bool
condition(struct interp_cpu *i, unsigned index)
{
	unsigned f = HOT.flags;

	switch (index) {
#define CASE(index, name, condition)                                                                                   \
	case index:                                                                                                    \
		return condition;
		CONDITIONS(CASE)
#undef CASE
	}
	return false;
}

HANDLER(setcc_m)
{
	DONE(interp_store(i, op, op->seg, interp_offset(i, op), condition(i, op->src), 1));
}

HANDLER(cmov_m)
{
	uint64_t v = interp_load(i, op, op->seg, interp_offset(i, op), op->size);

	if (!condition(i, op->src))
		v = reg_get(i, op->dst, op->size);
	reg_set(i, op->dst, v, op->size);
	NEXT;
}

/* CLFLUSH and friends: a read that moves nothing. */
HANDLER(probe_read)
{
	gva_t a = interp_ea(i, op, 1, X86_READ);

	interp_check_canonical(i, op, op->seg, a, 1);
	HOT.op = op;
	x86_probe(&i->c, a, 1, X86_READ, i->c.mmu);
	NEXT;
}

HANDLER(mfence)
{
	atomic_thread_fence(memory_order_seq_cst);
	NEXT;
}

/* A guest that spins may be waiting for a vCPU that this thread keeps from running. */
HANDLER(pause)
{
	if (!(++i->pauses & 255))
		sched_yield();
	__builtin_ia32_pause();
	NEXT;
}

/* ---- flags ---- */

HANDLER(clc)
{
	HOT.flags &= (uint16_t)~HF_CF;
	NEXT;
}

HANDLER(stc)
{
	HOT.flags |= HF_CF;
	NEXT;
}

HANDLER(cmc)
{
	HOT.flags ^= HF_CF;
	NEXT;
}

HANDLER(cld)
{
	ST.rflags &= ~(uint64_t)FLAG_DF;
	NEXT;
}

HANDLER(std)
{
	ST.rflags |= FLAG_DF;
	NEXT;
}

HANDLER(lahf)
{
	REG(1, RAX * 8 + 1) = (uint8_t)((HOT.flags >> 8 & 0xd5) | 2);
	NEXT;
}

HANDLER(sahf)
{
	HOT.flags = (uint16_t)((HOT.flags & 0xff) | ((REG(1, RAX * 8 + 1) & 0xd5) | 2) << 8);
	NEXT;
}

HANDLER(salc)
{
	SET1(RAX * 8, HOT.flags & HF_CF ? 0xff : 0);
	NEXT;
}

/* ---- decimal arithmetic (SDM 2A): SF, ZF and PF follow AL; what is undefined stays as it was ---- */

static void
flags_of_al(struct interp_cpu *i)
{
	uint8_t al = (uint8_t)GPR(RAX);
	unsigned f = HOT.flags & ~(HF_SF | HF_ZF | HF_PF);

	if (al & 0x80)
		f |= HF_SF;
	if (!al)
		f |= HF_ZF;
	if (!__builtin_parity(al))
		f |= HF_PF;
	HOT.flags = (uint16_t)f;
}

static void
set_carries(struct interp_cpu *i, bool cf, bool af)
{
	HOT.flags = (uint16_t)((HOT.flags & ~(HF_CF | HF_AF)) | (cf ? HF_CF : 0) | (af ? HF_AF : 0));
}

static void
ascii_adjust(struct interp_cpu *i, int by)
{
	bool adjust = (GPR(RAX) & 15) > 9 || (HOT.flags & HF_AF);

	if (adjust)
		SET2(RAX * 8, GPR(RAX) + (uint64_t)(by * 0x106));
	HOT.flags &= (uint16_t)~HF_OF;
	set_carries(i, adjust, adjust);
	SET1(RAX * 8, GPR(RAX) & 15);
	flags_of_al(i);
}

HANDLER(aaa)
{
	ascii_adjust(i, 1);
	NEXT;
}

HANDLER(aas)
{
	ascii_adjust(i, -1);
	NEXT;
}

HANDLER(aam)
{
	uint8_t al = (uint8_t)GPR(RAX), by = (uint8_t)op->imm;

	if (!by)
		interp_raise(i, op, EXC_DE);
	SET2(RAX * 8, (al / by) << 8 | al % by);
	HOT.flags &= (uint16_t) ~(HF_OF | HF_AF | HF_CF);
	flags_of_al(i);
	NEXT;
}

HANDLER(aad)
{
	uint8_t al = (uint8_t)GPR(RAX), by = (uint8_t)(REG(1, RAX * 8 + 1) * (uint8_t)op->imm);

	/* OF, AF and CF are undefined; hosts have those of the addition */
	__asm__("addb %[src], %[dst]" FLAGS_STORE : [dst] "+r"(al), [f] "+m"(HOT.flags) : [src] "r"(by) : "rax", "cc");
	SET2(RAX * 8, al);
	NEXT;
}

static void
decimal_adjust(struct interp_cpu *i, bool subtract)
{
	uint8_t al = (uint8_t)GPR(RAX), was = al;
	bool cf = HOT.flags & HF_CF, af = (al & 15) > 9 || (HOT.flags & HF_AF), carry = false;

	if (af) {
		carry = cf || (subtract ? al < 6 : al > 0xf9);
		al = (uint8_t)(subtract ? al - 6 : al + 6);
	}
	if (was > 0x99 || cf) {
		al = (uint8_t)(subtract ? al - 0x60 : al + 0x60);
		carry = true;
	} else if (!subtract) {
		carry = false;
	}
	SET1(RAX * 8, al);
	HOT.flags &= (uint16_t)~HF_OF;
	set_carries(i, carry, af);
	flags_of_al(i);
}

HANDLER(daa)
{
	decimal_adjust(i, false);
	NEXT;
}

HANDLER(das)
{
	decimal_adjust(i, true);
	NEXT;
}

/* ---- instructions that run on the host ---- */

static void
check_first(struct interp_cpu *i, const struct op *op, const struct vec_op *v)
{
	HOT.op = op;
	ST.rip = HOT.block_rip + op->off;
	i->c.next_rip = op_next_rip(i, op);
	vec_check_first(&i->c, v);
}

HANDLER(vec)
{
	const struct vec_op *v = (const struct vec_op *)(uintptr_t)op->imm;
	unsigned size = vec_mem_size(v);
	uint64_t seg_base = 0;
	gva_t a = 0;

	if (op->flags & OP_MEM) {
		if (op->seg >= SEG_FS || i->c.mode != X86_LONG64)
			seg_base = ST.seg[op->seg].base;
		if (size) {
			if (unlikely(i->c.mode != X86_LONG64 && !(i->c.flat >> op->seg & 1)))
				check_first(i, op, v);
			a = interp_ea(i, op, size, vec_mem_write(v) ? X86_WRITE : X86_READ);
			if (unlikely(!x86_canonical(a) || !x86_canonical(a + size - 1)) &&
				!vec_touches_nothing(&i->c, v)) {
				check_first(i, op, v);
				interp_check_canonical(i, op, op->seg, a, size);
			}
		}
	}
	HOT.op = op;
	ST.rip = HOT.block_rip + op->off;
	i->c.next_rip = op_next_rip(i, op);
	if (vec_uses_flags(v)) {
		flags_out(i);
		vec_run(&i->c, v, a, seg_base);
		flags_in(i);
	} else {
		vec_run(&i->c, v, a, seg_base);
	}
	DONE(i->c.code_written);
}
