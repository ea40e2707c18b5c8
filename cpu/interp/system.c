/* SPDX-License-Identifier: Apache-2.0 */
/*
 * System instructions: a complete state for the helper in cpu/x86/, the helper, and on. Those that may change what code
 * means or where it goes end the block.
 */
#include "cpu/interp/op.h"

#define HANDLER(name) struct block *interp_op_##name(struct interp_cpu *i, const struct op *op)
#define GPR(r) (i->c.v.state.gpr[r])
#define CPU (&i->c)

/* The block goes on, unless a store of this instruction hit code. */
#define RESUME                                                                                                         \
	do {                                                                                                           \
		if (unlikely(i->c.code_written))                                                                       \
			return sys_leave(i);                                                                           \
		sys_resume(i);                                                                                         \
		NEXT;                                                                                                  \
	} while (0)

HANDLER(ud)
{
	interp_raise(i, op, EXC_UD);
}

/* Longer than 15 bytes. */
HANDLER(gp)
{
	interp_raise_error(i, op, EXC_GP, 0);
}

/* ---- ports: devices may ask for anything, so the run loop looks at once ---- */

static struct block *
port_in(struct interp_cpu *i, const struct op *op, uint16_t port)
{
	sys_begin(i, op);
	x86_check_io(CPU, port, op->size);
	reg_set(i, RAX * 8, cpu_io_read(&i->c.v, port, op->size), op->size);
	return sys_leave(i);
}

static struct block *
port_out(struct interp_cpu *i, const struct op *op, uint16_t port)
{
	sys_begin(i, op);
	x86_check_io(CPU, port, op->size);
	cpu_io_write(&i->c.v, port, (uint32_t)reg_get(i, RAX * 8, op->size), op->size);
	return sys_leave(i);
}

HANDLER(in_imm)
{
	return port_in(i, op, (uint8_t)op->imm);
}

HANDLER(in_dx)
{
	return port_in(i, op, (uint16_t)GPR(RDX));
}

HANDLER(out_imm)
{
	return port_out(i, op, (uint8_t)op->imm);
}

HANDLER(out_dx)
{
	return port_out(i, op, (uint16_t)GPR(RDX));
}

/* ---- interrupts and flags ---- */

HANDLER(cli)
{
	sys_begin(i, op);
	x86_cli(CPU);
	RESUME;
}

HANDLER(sti)
{
	sys_begin(i, op);
	x86_sti(CPU);
	return sys_leave(i);
}

HANDLER(hlt)
{
	sys_begin(i, op);
	x86_check_hlt(CPU);
	i->halted = true;
	return sys_leave(i);
}

HANDLER(pushf)
{
	uint64_t v;

	sys_begin(i, op);
	x86_pushf_value(CPU, op->size, &v);
	interp_push(i, op, v, op->size);
	RESUME;
}

HANDLER(popf)
{
	uint64_t v;

	sys_begin(i, op);
	v = interp_peek(i, op, op->size);
	x86_popf(CPU, v, op->size);
	interp_move_sp(i, op->size);
	return sys_leave(i);
}

static struct block *
software_int(struct interp_cpu *i, const struct op *op, int vector, enum x86_int_kind kind)
{
	sys_begin(i, op);
	x86_software_int(CPU, vector, kind);
	i->no_trap = true;
	return sys_jump(i);
}

HANDLER(int3)
{
	return software_int(i, op, EXC_BP, X86_INT3);
}

HANDLER(int1)
{
	return software_int(i, op, EXC_DB, X86_INT1);
}

HANDLER(int_n)
{
	return software_int(i, op, (uint8_t)op->imm, X86_INT_N);
}

HANDLER(into)
{
	if (!(HOT.flags & HF_OF))
		return chain(i, op, 0, op_next_rip(i, op));
	return software_int(i, op, EXC_OF, X86_INTO);
}

HANDLER(iret)
{
	sys_begin(i, op);
	x86_iret(CPU, op->size);
	return sys_jump(i);
}

/* ---- far transfers and segment registers ---- */

/* imm: the selector above 32 bits of offset */
HANDLER(jmp_far)
{
	sys_begin(i, op);
	x86_far_jump(CPU, (uint16_t)((uint64_t)op->imm >> 32), (uint32_t)op->imm, op->size);
	return sys_jump(i);
}

HANDLER(call_far)
{
	sys_begin(i, op);
	x86_far_call(CPU, (uint16_t)((uint64_t)op->imm >> 32), (uint32_t)op->imm, op->size);
	return sys_jump(i);
}

static uint64_t
far_pointer(struct interp_cpu *i, const struct op *op, uint16_t *sel)
{
	uint64_t off = interp_offset(i, op), v;
	uint64_t mask = size_mask(op->flags & OP_A16 ? 2 : op->flags & OP_A32 ? 4 : 8);

	v = interp_load(i, op, op->seg, off, op->size);
	*sel = (uint16_t)interp_load(i, op, op->seg, (off + op->size) & mask, 2);
	return v;
}

HANDLER(jmp_far_m)
{
	uint64_t off;
	uint16_t sel;

	sys_begin(i, op);
	off = far_pointer(i, op, &sel);
	x86_far_jump(CPU, sel, off, op->size);
	return sys_jump(i);
}

HANDLER(call_far_m)
{
	uint64_t off;
	uint16_t sel;

	sys_begin(i, op);
	off = far_pointer(i, op, &sel);
	x86_far_call(CPU, sel, off, op->size);
	return sys_jump(i);
}

HANDLER(ret_far)
{
	sys_begin(i, op);
	x86_far_ret(CPU, op->size, (uint16_t)op->imm);
	return sys_jump(i);
}

/* LDS and its kin: register dst, segment register src */
HANDLER(load_far)
{
	uint64_t off;
	uint16_t sel;

	sys_begin(i, op);
	off = far_pointer(i, op, &sel);
	x86_load_seg(CPU, op->src, sel);
	reg_set(i, op->dst, off, op->size);
	return sys_leave(i);
}

HANDLER(mov_from_seg)
{
	if (interp_rm_store(i, op, ST.seg[op->src].sel, op->flags & OP_MEM ? 2 : op->size))
		return interp_leave(i, op);
	NEXT;
}

static void
shadow_of_ss(struct interp_cpu *i, unsigned seg)
{
	if (seg != SEG_SS)
		return;
	ST.shadow = 1;
	i->ss_shadow = true;
}

HANDLER(mov_to_seg)
{
	sys_begin(i, op);
	x86_load_seg(CPU, op->src, (uint16_t)interp_rm_load(i, op, 2));
	shadow_of_ss(i, op->src);
	return sys_leave(i);
}

HANDLER(push_seg)
{
	uint64_t sp = GPR(RSP);
	bool out;

	/* 32-bit pushes of a selector write only its 16 bits (SDM 2B, PUSH) */
	if (op->size == 4) {
		interp_move_sp(i, -4);
		uint64_t to = GPR(RSP);

		GPR(RSP) = sp;
		out = interp_store(i, op, SEG_SS, to & size_mask(i->c.stack_size), ST.seg[op->src].sel, 2);
		GPR(RSP) = to;
	} else {
		out = interp_push(i, op, ST.seg[op->src].sel, op->size);
	}
	if (out)
		return interp_leave(i, op);
	NEXT;
}

HANDLER(pop_seg)
{
	uint64_t sel, before, after;

	sys_begin(i, op);
	sel = interp_peek(i, op, 2);
	before = GPR(RSP);
	interp_move_sp(i, op->size);
	after = GPR(RSP);
	GPR(RSP) = before;
	x86_load_seg(CPU, op->src, (uint16_t)sel);
	GPR(RSP) = after;
	shadow_of_ss(i, op->src);
	return sys_leave(i);
}

/* ---- descriptor tables ---- */

static struct block *
load_table(struct interp_cpu *i, const struct op *op, struct x86_table *t)
{
	bool wide = i->c.mode == X86_LONG64;
	uint64_t off, base;
	uint16_t limit;

	sys_begin(i, op);
	x86_check_cpl0(CPU);
	off = interp_offset(i, op);
	limit = (uint16_t)interp_load(i, op, op->seg, off, 2);
	base = interp_load(i, op, op->seg, off + 2, wide ? 8 : 4);
	if (!wide && op->size == 2)
		base &= 0xffffff;
	if (wide && !x86_canonical(base))
		x86_gp(CPU, 0);
	t->limit = limit;
	t->base = base;
	return sys_leave(i);
}

static struct block *
store_table(struct interp_cpu *i, const struct op *op, const struct x86_table *t)
{
	unsigned n = i->c.mode == X86_LONG64 ? 8 : 4;
	uint8_t image[10];
	gva_t a;

	sys_begin(i, op);
	x86_check_umip(CPU);
	memcpy(image, &t->limit, 2);
	memcpy(image + 2, &t->base, 8);
	a = interp_ea(i, op, 2 + n, X86_WRITE);
	interp_check_canonical(i, op, op->seg, a, 2 + n);
	x86_store_bytes(CPU, a, image, 2 + n, i->c.mmu);
	RESUME;
}

HANDLER(lgdt)
{
	return load_table(i, op, &ST.gdt);
}

HANDLER(lidt)
{
	return load_table(i, op, &ST.idt);
}

HANDLER(sgdt)
{
	return store_table(i, op, &ST.gdt);
}

HANDLER(sidt)
{
	return store_table(i, op, &ST.idt);
}

/* To memory 16 bits, to a register as wide as the operand size. */
static struct block *
store_word(struct interp_cpu *i, const struct op *op, uint64_t v)
{
	sys_begin(i, op);
	x86_check_umip(CPU);
	interp_rm_store(i, op, v, op->flags & OP_MEM ? 2 : op->size);
	RESUME;
}

HANDLER(sldt)
{
	return store_word(i, op, ST.seg[SEG_LDTR].sel);
}

HANDLER(str)
{
	return store_word(i, op, ST.seg[SEG_TR].sel);
}

HANDLER(smsw)
{
	return store_word(i, op, ST.cr0);
}

HANDLER(lldt)
{
	sys_begin(i, op);
	x86_check_cpl0(CPU);
	x86_lldt(CPU, (uint16_t)interp_rm_load(i, op, 2));
	return sys_leave(i);
}

HANDLER(ltr)
{
	sys_begin(i, op);
	x86_check_cpl0(CPU);
	x86_ltr(CPU, (uint16_t)interp_rm_load(i, op, 2));
	return sys_leave(i);
}

HANDLER(lmsw)
{
	sys_begin(i, op);
	x86_check_cpl0(CPU);
	x86_lmsw(CPU, (uint16_t)interp_rm_load(i, op, 2));
	return sys_leave(i);
}

static struct block *
with_zf(struct interp_cpu *i, const struct op *op, bool on)
{
	sys_resume(i);
	HOT.flags = (uint16_t)(on ? HOT.flags | HF_ZF : HOT.flags & ~HF_ZF);
	NEXT;
}

HANDLER(verr)
{
	sys_begin(i, op);
	return with_zf(i, op, x86_verify(CPU, (uint16_t)interp_rm_load(i, op, 2), false));
}

HANDLER(verw)
{
	sys_begin(i, op);
	return with_zf(i, op, x86_verify(CPU, (uint16_t)interp_rm_load(i, op, 2), true));
}

HANDLER(lar)
{
	uint32_t v = 0;
	bool ok;

	sys_begin(i, op);
	ok = x86_lar(CPU, (uint16_t)interp_rm_load(i, op, 2), &v);
	if (ok)
		reg_set(i, op->src, v, op->size);
	return with_zf(i, op, ok);
}

HANDLER(lsl)
{
	uint32_t v = 0;
	bool ok;

	sys_begin(i, op);
	ok = x86_lsl(CPU, (uint16_t)interp_rm_load(i, op, 2), &v);
	if (ok)
		reg_set(i, op->src, v, op->size);
	return with_zf(i, op, ok);
}

HANDLER(arpl)
{
	uint16_t v, rpl = REG(2, op->src) & 3;
	bool raise;

	sys_begin(i, op);
	v = (uint16_t)interp_rm_load(i, op, 2);
	raise = (v & 3) < rpl;
	if (raise && interp_rm_store(i, op, (uint16_t)((v & ~3u) | rpl), 2)) {
		ST.rflags |= FLAG_ZF;
		return sys_leave(i);
	}
	return with_zf(i, op, raise);
}

/* ---- control, debug and model-specific registers ---- */

HANDLER(clts)
{
	sys_begin(i, op);
	x86_check_cpl0(CPU);
	x86_clts(CPU);
	return sys_leave(i);
}

HANDLER(mov_from_cr)
{
	sys_begin(i, op);
	x86_check_cpl0(CPU);
	reg_set(i, op->dst, x86_read_cr(CPU, op->src), op->size);
	RESUME;
}

HANDLER(mov_to_cr)
{
	sys_begin(i, op);
	x86_check_cpl0(CPU);
	x86_write_cr(CPU, op->src, reg_get(i, op->dst, op->size));
	return sys_leave(i);
}

HANDLER(mov_from_dr)
{
	sys_begin(i, op);
	x86_check_cpl0(CPU);
	reg_set(i, op->dst, x86_read_dr(CPU, op->src), op->size);
	RESUME;
}

HANDLER(mov_to_dr)
{
	sys_begin(i, op);
	x86_check_cpl0(CPU);
	x86_write_dr(CPU, op->src, reg_get(i, op->dst, op->size));
	return sys_leave(i);
}

HANDLER(invlpg)
{
	gva_t a = interp_offset(i, op);

	sys_begin(i, op);
	x86_check_cpl0(CPU);
	if (i->c.mode != X86_LONG64)
		a = (uint32_t)(a + ST.seg[op->seg].base);
	else if (op->seg == SEG_FS || op->seg == SEG_GS)
		a += ST.seg[op->seg].base;
	x86_tlb_flush_page(CPU, a);
	return sys_leave(i);
}

HANDLER(invpcid)
{
	gva_t a;

	sys_begin(i, op);
	x86_check_cpl0(CPU);
	a = interp_ea(i, op, 16, X86_READ);
	interp_check_canonical(i, op, op->seg, a, 16);
	x86_invpcid(CPU, reg_get(i, op->dst, i->c.mode == X86_LONG64 ? 8 : 4), a);
	return sys_leave(i);
}

HANDLER(wbinvd)
{
	sys_begin(i, op);
	x86_check_cpl0(CPU);
	RESUME;
}

HANDLER(rdmsr)
{
	sys_begin(i, op);
	x86_check_cpl0(CPU);
	x86_rdmsr(CPU);
	RESUME;
}

HANDLER(wrmsr)
{
	sys_begin(i, op);
	x86_check_cpl0(CPU);
	x86_wrmsr(CPU);
	return sys_leave(i);
}

HANDLER(rdtsc)
{
	uint64_t t;

	sys_begin(i, op);
	t = x86_rdtsc(CPU);
	GPR(RAX) = (uint32_t)t;
	GPR(RDX) = t >> 32;
	RESUME;
}

HANDLER(rdtscp)
{
	uint64_t t;

	sys_begin(i, op);
	t = x86_rdtsc(CPU);
	GPR(RAX) = (uint32_t)t;
	GPR(RDX) = t >> 32;
	GPR(RCX) = (uint32_t)ST.tsc_aux;
	RESUME;
}

/* There are no performance counters. */
HANDLER(rdpmc)
{
	interp_raise_error(i, op, EXC_GP, 0);
}

HANDLER(rdpid)
{
	REG(8, op->dst) = (uint32_t)ST.tsc_aux;
	NEXT;
}

HANDLER(cpuid)
{
	sys_begin(i, op);
	x86_cpuid(CPU);
	RESUME;
}

HANDLER(xgetbv)
{
	sys_begin(i, op);
	x86_xgetbv(CPU);
	RESUME;
}

HANDLER(xsetbv)
{
	sys_begin(i, op);
	x86_xsetbv(CPU);
	return sys_leave(i);
}

/* ---- system calls, FS and GS ---- */

HANDLER(syscall)
{
	sys_begin(i, op);
	x86_syscall(CPU);
	return sys_jump(i);
}

HANDLER(sysret)
{
	sys_begin(i, op);
	x86_sysret(CPU, op->size);
	return sys_jump(i);
}

HANDLER(sysenter)
{
	sys_begin(i, op);
	x86_sysenter(CPU);
	return sys_jump(i);
}

HANDLER(sysexit)
{
	sys_begin(i, op);
	x86_sysexit(CPU, op->size);
	return sys_jump(i);
}

HANDLER(swapgs)
{
	uint64_t base = ST.seg[SEG_GS].base;

	if (i->c.mode != X86_LONG64)
		interp_raise(i, op, EXC_UD);
	if (i->c.cpl)
		interp_raise_error(i, op, EXC_GP, 0);
	ST.seg[SEG_GS].base = ST.kernel_gs_base;
	ST.kernel_gs_base = base;
	NEXT;
}

static struct block *
read_base(struct interp_cpu *i, const struct op *op, enum seg_name seg)
{
	if (i->c.mode != X86_LONG64 || !(ST.cr4 & CR4_FSGSBASE))
		interp_raise(i, op, EXC_UD);
	reg_set(i, op->dst, ST.seg[seg].base, op->size);
	NEXT;
}

static struct block *
write_base(struct interp_cpu *i, const struct op *op, enum seg_name seg)
{
	uint64_t v = reg_get(i, op->dst, op->size);

	if (i->c.mode != X86_LONG64 || !(ST.cr4 & CR4_FSGSBASE))
		interp_raise(i, op, EXC_UD);
	if (!x86_canonical(v))
		interp_raise_error(i, op, EXC_GP, 0);
	ST.seg[seg].base = v;
	NEXT;
}

HANDLER(rdfsbase)
{
	return read_base(i, op, SEG_FS);
}

HANDLER(rdgsbase)
{
	return read_base(i, op, SEG_GS);
}

HANDLER(wrfsbase)
{
	return write_base(i, op, SEG_FS);
}

HANDLER(wrgsbase)
{
	return write_base(i, op, SEG_GS);
}

static struct block *
set_ac(struct interp_cpu *i, const struct op *op, bool on)
{
	if (i->c.cpl)
		interp_raise(i, op, EXC_UD);
	sys_begin(i, op);
	x86_set_ac(CPU, on);
	return sys_leave(i);
}

HANDLER(clac)
{
	return set_ac(i, op, false);
}

HANDLER(stac)
{
	return set_ac(i, op, true);
}

/* ---- random numbers: the host's; the caller made sure that it has them ---- */

#define RANDOM(name)                                                                                                   \
	HANDLER(name)                                                                                                  \
	{                                                                                                              \
		uint64_t v;                                                                                            \
		bool ok;                                                                                               \
		__asm__ volatile(#name " %[v]\n\tsetc %[ok]" : [v] "=r"(v), [ok] "=qm"(ok) : : "cc");                  \
		reg_set(i, op->dst, ok ? v : 0, op->size);                                                             \
		HOT.flags = ok ? HF_CF : 0;                                                                            \
		NEXT;                                                                                                  \
	}
RANDOM(rdrand)
RANDOM(rdseed)
