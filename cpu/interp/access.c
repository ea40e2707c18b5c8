/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Memory as instructions see it, past the inline paths of op.h: addresses that are not flat, TLB misses, MMIO, pages
 * with flags, stacks of all widths; and the slow ways from block to block.
 */
#include "cpu/interp/op.h"

#define GPR(r) (i->c.v.state.gpr[r])

/* ---- raising and leaving ---- */

void
interp_raise(struct interp_cpu *i, const struct op *op, int vector)
{
	HOT.op = op;
	x86_raise(&i->c, vector);
}

void
interp_raise_error(struct interp_cpu *i, const struct op *op, int vector, uint32_t error)
{
	HOT.op = op;
	x86_raise_error(&i->c, vector, error);
}

/* Instructions of the block that are not executed were counted when it was entered. */
static void
uncount(struct interp_cpu *i, const struct op *op, unsigned done)
{
	struct block *b = HOT.block;
	unsigned index = (unsigned)(op - b->ops) + done;

	if (index < b->insns)
		i->c.v.count.insns -= b->insns - index;
}

struct block *
interp_leave(struct interp_cpu *i, const struct op *op)
{
	ST.rip = op_next_rip(i, op);
	uncount(i, op, 1);
	return NULL;
}

struct block *
interp_again(struct interp_cpu *i, const struct op *op)
{
	ST.rip = HOT.block_rip + op->off;
	uncount(i, op, 1);
	return NULL;
}

/* ---- addresses ---- */

uint64_t
interp_offset(struct interp_cpu *i, const struct op *op)
{
	uint64_t a = EA1(0, X86_READ);

	if (op->flags & OP_RIPADJ)
		a += op->off + op->len;
	if (op->flags & OP_A16)
		return (uint16_t)a;
	return op->flags & OP_A32 ? (uint32_t)a : a;
}

gva_t
interp_linear(struct interp_cpu *i, const struct op *op, enum seg_name seg, uint64_t off, unsigned size,
	enum x86_access access)
{
	if (i->c.mode == X86_LONG64)
		return seg >= SEG_FS ? off + ST.seg[seg].base : off;
	if (i->c.flat & (1u << seg))
		return off;
	HOT.op = op;
	return x86_linear(&i->c, seg, off, size, access);
}

gva_t
interp_ea(struct interp_cpu *i, const struct op *op, unsigned size, enum x86_access access)
{
	return interp_linear(i, op, op->seg, interp_offset(i, op), size, access);
}

void
interp_check_canonical(struct interp_cpu *i, const struct op *op, enum seg_name seg, gva_t a, unsigned size)
{
	if (i->c.mode != X86_LONG64 || (x86_canonical(a) && x86_canonical(a + size - 1)))
		return;
	interp_raise_error(i, op, seg == SEG_SS ? EXC_SS : EXC_GP, 0);
}

/* ---- accesses that missed the inline path ---- */

static uint64_t
load_checked(struct interp_cpu *i, const struct op *op, enum seg_name seg, gva_t a, unsigned size)
{
	interp_check_canonical(i, op, seg, a, size);
	HOT.op = op;
	return x86_load(&i->c, a, size, i->c.mmu);
}

/* A store to a device may have asked for something, for example a new memory map: look at it before going on. */
static bool
store_checked(struct interp_cpu *i, const struct op *op, enum seg_name seg, gva_t a, uint64_t value, unsigned size)
{
	interp_check_canonical(i, op, seg, a, size);
	HOT.op = op;
	x86_store(&i->c, a, value, size, i->c.mmu);
	return i->c.code_written || atomic_load_explicit(&i->c.v.requests, memory_order_relaxed);
}

uint64_t
interp_load_slow(struct interp_cpu *i, const struct op *op, gva_t a, unsigned size)
{
	return load_checked(i, op, op->seg, a, size);
}

bool
interp_store_slow(struct interp_cpu *i, const struct op *op, gva_t a, uint64_t value, unsigned size)
{
	return store_checked(i, op, op->seg, a, value, size);
}

bool
interp_page_flagged(struct interp_cpu *i, struct soft_tlb_entry *e)
{
	x86_page_written(&i->c, e);
	return i->c.code_written;
}

struct rmw
interp_rmw_slow(struct interp_cpu *i, const struct op *op, gva_t a, unsigned size)
{
	struct rmw m;

	interp_check_canonical(i, op, op->seg, a, size);
	HOT.op = op;
	if (HOT.tag != SOFT_TLB_GEN) {
		m.p = x86_host(&i->c, a, size, X86_WRITE, i->c.mmu, &m.e);
		if (m.p)
			return m;
	}
	x86_probe(&i->c, a, size, X86_WRITE, i->c.mmu);
	i->scratch[0] = x86_load(&i->c, a, size, i->c.mmu);
	i->rmw_addr = a;
	i->rmw_size = size;
	return (struct rmw){ i->scratch, &i->rmw_entry };
}

bool
interp_rmw_flagged(struct interp_cpu *i, struct soft_tlb_entry *e)
{
	if (e != &i->rmw_entry)
		return interp_page_flagged(i, e);
	x86_store(&i->c, i->rmw_addr, i->scratch[0], i->rmw_size, i->c.mmu);
	return i->c.code_written || atomic_load_explicit(&i->c.v.requests, memory_order_relaxed);
}

/* The thunks of op.h: all registers but the results are kept. */
#define THUNK(name, target, save_rdx, restore_rdx)                                                                     \
	__asm__(".pushsection .text\n"                                                                                 \
		".globl " name "\n.hidden " name "\n.type " name ", @function\n" name ":\n\t"                          \
		"push %rbp\n\tmov %rsp, %rbp\n\t"                                                                      \
		"push %rcx\n\tpush %rsi\n\tpush %rdi\n\tpush %r8\n\tpush %r9\n\tpush %r10\n\tpush %r11\n\t" save_rdx   \
		"and $-16, %rsp\n\tcall " target "\n\tlea -64(%rbp), %rsp\n\t" restore_rdx                             \
		"pop %r11\n\tpop %r10\n\tpop %r9\n\tpop %r8\n\tpop %rdi\n\tpop %rsi\n\tpop %rcx\n\tpop %rbp\n\tret\n"  \
		".size " name ", . - " name "\n.popsection")
THUNK("interp_load_thunk", "interp_load_slow", "push %rdx\n\t", "pop %rdx\n\t");
THUNK("interp_store_thunk", "interp_store_slow", "push %rdx\n\t", "pop %rdx\n\t");
THUNK("interp_rmw_thunk", "interp_rmw_slow", "push %rdx\n\t", "lea 8(%rsp), %rsp\n\t");
THUNK("interp_flagged_thunk", "interp_page_flagged", "push %rdx\n\t", "pop %rdx\n\t");
THUNK("interp_rmw_flagged_thunk", "interp_rmw_flagged", "push %rdx\n\t", "pop %rdx\n\t");
THUNK("interp_ea_thunk", "interp_ea", "push %rdx\n\t", "pop %rdx\n\t");

/* ---- any size, any segment ---- */

uint64_t
interp_load(struct interp_cpu *i, const struct op *op, enum seg_name seg, uint64_t off, unsigned size)
{
	gva_t a = interp_linear(i, op, seg, off, size, X86_READ);
	struct soft_tlb_entry *e = tlb_entry(i, a);

	if (likely(e->read == (((a + size - 1) & ~(gva_t)PAGE_MASK) | HOT.tag))) {
		const void *p = (const void *)(a + e->delta);

		switch (size) {
		case 1:
			return *(const volatile mem1 *)p;
		case 2:
			return *(const volatile mem2 *)p;
		case 4:
			return *(const volatile mem4 *)p;
		default:
			return *(const volatile mem8 *)p;
		}
	}
	return load_checked(i, op, seg, a, size);
}

bool
interp_store(struct interp_cpu *i, const struct op *op, enum seg_name seg, uint64_t off, uint64_t value, unsigned size)
{
	gva_t a = interp_linear(i, op, seg, off, size, X86_WRITE);
	struct soft_tlb_entry *e = tlb_entry(i, a);

	if (likely(e->write == (((a + size - 1) & ~(gva_t)PAGE_MASK) | HOT.tag))) {
		void *p = (void *)(a + e->delta);

		switch (size) {
		case 1:
			*(volatile mem1 *)p = (uint8_t)value;
			break;
		case 2:
			*(volatile mem2 *)p = (uint16_t)value;
			break;
		case 4:
			*(volatile mem4 *)p = (uint32_t)value;
			break;
		default:
			*(volatile mem8 *)p = value;
		}
		return atomic_load_explicit(e->flags, memory_order_relaxed) && interp_page_flagged(i, e);
	}
	return store_checked(i, op, seg, a, value, size);
}

uint64_t
interp_rm_load(struct interp_cpu *i, const struct op *op, unsigned size)
{
	if (op->flags & OP_MEM)
		return interp_load(i, op, op->seg, interp_offset(i, op), size);
	return reg_get(i, op->dst, size);
}

bool
interp_rm_store(struct interp_cpu *i, const struct op *op, uint64_t value, unsigned size)
{
	if (op->flags & OP_MEM)
		return interp_store(i, op, op->seg, interp_offset(i, op), value, size);
	reg_set(i, op->dst, value, size);
	return false;
}

/* ---- the stack ---- */

void
interp_move_sp(struct interp_cpu *i, int64_t by)
{
	uint64_t sp = GPR(RSP) + (uint64_t)by;

	if (i->c.stack_size == 8)
		GPR(RSP) = sp;
	else if (i->c.stack_size == 4)
		GPR(RSP) = (uint32_t)sp;
	else
		SET2(RSP * 8, sp);
}

bool
interp_push(struct interp_cpu *i, const struct op *op, uint64_t value, unsigned size)
{
	bool out = interp_store(i, op, SEG_SS, (GPR(RSP) - size) & size_mask(i->c.stack_size), value, size);

	interp_move_sp(i, -(int64_t)size);
	return out;
}

uint64_t
interp_peek(struct interp_cpu *i, const struct op *op, unsigned size)
{
	return interp_load(i, op, SEG_SS, GPR(RSP) & size_mask(i->c.stack_size), size);
}

/* ---- from block to block ---- */

void
interp_check_target(struct interp_cpu *i, const struct op *op, uint64_t rip)
{
	if (i->c.mode == X86_LONG64 ? x86_canonical(rip) : i->cs_flat || rip <= ST.seg[SEG_CS].limit)
		return;
	interp_raise_error(i, op, EXC_GP, 0);
}

struct block *
interp_chain_slow(struct interp_cpu *i, const struct op *op, unsigned n, uint64_t rip)
{
	struct block *b = HOT.block;

	if (i->cs_flat && (rip ^ HOT.block_rip) & ~(uint64_t)PAGE_MASK)
		return jump(i, op, rip);
	if (op->len && !i->cs_flat)
		interp_check_target(i, op, rip);
	ST.rip = rip;
	if (i->cs_flat)
		HOT.link = (void **)&b->link[n];
	return NULL;
}

struct block *
interp_jump_slow(struct interp_cpu *i, const struct op *op, uint64_t rip)
{
	struct interp_target *t = &i->target[(rip ^ (rip >> 12)) & (INTERP_TARGETS - 1)];

	interp_check_target(i, op, rip);
	ST.rip = rip;
	if (i->c.mode == X86_LONG64 || i->c.flat & (1u << SEG_CS)) {
		t->rip = rip;
		t->block = NULL;
		HOT.link = (void **)&t->block;
	}
	return NULL;
}
