/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Segments: addresses, descriptors, segment loads, far transfers, call gates, task switches, IRET
 * (SDM 3A chapters 3, 5, 8 and 20; the operation sections of SDM 2 for JMP, CALL, RET, IRET, MOV, LAR...).
 *
 * Two rules make every transfer restartable: checks and memory accesses come first, on copies (struct desc, struct
 * stack), and the CPU's state changes only behind the last point that can raise. A task switch is the exception the
 * architecture makes: what it finds wrong after the new TSS was loaded is raised in the new task.
 *
 * CPL is the DPL of the hidden part of SS (as VMX has it), so whatever changes CPL loads SS, if need be a null one with
 * the right DPL. Selectors in error codes are without RPL; x86_raise_error() adds EXT.
 *
 * Compiled for general registers only (Makefile), for cpu/jit/fp.c's sake.
 */
#include "cpu/x86/desc.h"

#include "base/str.h"

#define ATTR_REAL 0x0093u /* present, writable data, accessed */
#define ATTR_VM86 0x00f3u /* the same with DPL 3 */
#define RPL(sel) ((sel)&3u)
#define IS_NULL(sel) (!((sel)&0xfffcu))
#define SEL_ERROR(sel) ((sel)&0xfffcu)

static uint64_t
size_mask(unsigned size)
{
	return size == 8 ? UINT64_MAX : size == 4 ? UINT32_MAX : 0xffff;
}

static bool
protected_mode(const struct soft_cpu *c)
{
	return c->mode != X86_REAL && c->mode != X86_VM86;
}

/* ---- addresses ---- */

static _Noreturn void
segment_fault(struct soft_cpu *c, enum seg_name seg)
{
	x86_raise_error(c, seg == SEG_SS ? EXC_SS : EXC_GP, 0);
}

static bool
type_allows(uint32_t attr, enum x86_access access)
{
	if (attr & TYPE_CODE)
		return access == X86_EXEC || (access == X86_READ && attr & TYPE_READ);
	return access != X86_EXEC && (access == X86_READ || attr & TYPE_WRITE);
}

/* [off, off+size) against a segment's limit (SDM 3A 5.3). */
static bool
limit_allows(const struct x86_seg *s, uint64_t off, unsigned size)
{
	uint64_t last = off + (size ? size - 1 : 0);

	if ((s->attr & (SEG_S | TYPE_CODE | TYPE_DOWN)) == (SEG_S | TYPE_DOWN))
		return off > s->limit && last <= (s->attr & SEG_DB ? UINT32_MAX : 0xffff);
	return last <= s->limit || s->limit == UINT32_MAX;
}

gva_t
x86_linear(struct soft_cpu *c, enum seg_name seg, uint64_t off, unsigned size, enum x86_access access)
{
	const struct x86_seg *s = &c->v.state.seg[seg];

	if (c->mode == X86_LONG64) {
		gva_t a = off + (seg == SEG_FS || seg == SEG_GS ? s->base : 0);

		if (unlikely(!x86_canonical(a) || !x86_canonical(a + (size ? size - 1 : 0))))
			segment_fault(c, seg);
		return a;
	}
	if (protected_mode(c) && (s->attr & SEG_UNUSABLE || !type_allows(s->attr, access)))
		segment_fault(c, seg);
	if (!limit_allows(s, off, size))
		segment_fault(c, seg);
	return (uint32_t)(s->base + off);
}

/* ---- stacks ---- */

static unsigned
ss_width(const struct x86_seg *ss)
{
	return ss->attr & SEG_DB ? 4 : 2;
}

struct stack
x86_stack_now(const struct soft_cpu *c)
{
	struct stack s = { .seg = c->v.state.seg[SEG_SS], .sp = c->v.state.gpr[RSP], .width = c->stack_size };

	s.mmu = (enum x86_mmu)c->mmu;
	return s;
}

/* `ss` NULL: a 64-bit stack. */
struct stack
x86_stack_new(const struct soft_cpu *c, const struct x86_seg *ss, uint64_t sp, unsigned cpl)
{
	struct stack s = { .sp = sp, .width = ss ? ss_width(ss) : 8, .mmu = x86_cpl_mmu(c, cpl) };

	if (ss) {
		s.seg = *ss;
		s.error = SEL_ERROR(ss->sel);
	}
	return s;
}

static gva_t
stack_linear(struct soft_cpu *c, const struct stack *s, uint64_t sp, unsigned size, enum x86_access access)
{
	if (s->width == 8) {
		if (!x86_canonical(sp) || !x86_canonical(sp + size - 1))
			x86_raise_error(c, EXC_SS, s->error);
		return sp;
	}
	if (protected_mode(c) && (s->seg.attr & SEG_UNUSABLE || !type_allows(s->seg.attr, access)))
		x86_raise_error(c, EXC_SS, s->error);
	if (!limit_allows(&s->seg, sp, size))
		x86_raise_error(c, EXC_SS, s->error);
	return (uint32_t)(s->seg.base + sp);
}

void
x86_push(struct soft_cpu *c, struct stack *s, uint64_t value, unsigned size)
{
	uint64_t mask = size_mask(s->width), sp = (s->sp - size) & mask;

	x86_store(c, stack_linear(c, s, sp, size, X86_WRITE), value, size, s->mmu);
	s->sp = (s->sp & ~mask) | sp;
}

uint64_t
x86_pop(struct soft_cpu *c, struct stack *s, unsigned size)
{
	uint64_t mask = size_mask(s->width), sp = s->sp & mask;
	uint64_t v = x86_load(c, stack_linear(c, s, sp, size, X86_READ), size, s->mmu);

	s->sp = (s->sp & ~mask) | ((sp + size) & mask);
	return v;
}

static void
stack_skip(struct stack *s, uint64_t bytes)
{
	uint64_t mask = size_mask(s->width);

	s->sp = (s->sp & ~mask) | ((s->sp + bytes) & mask);
}

void
x86_stack_commit(struct soft_cpu *c, const struct stack *s)
{
	uint64_t *rsp = &c->v.state.gpr[RSP];

	if (s->width == 2 && !s->fresh)
		*rsp = (*rsp & ~0xffffULL) | (s->sp & 0xffff);
	else
		*rsp = s->width == 8 ? s->sp : (uint32_t)s->sp;
}

/* ---- descriptors ---- */

/* Where `sel` is in its table; false: outside. `size` 8 or 16. */
static bool
desc_place(const struct soft_cpu *c, uint16_t sel, unsigned size, gva_t *at)
{
	const struct x86_seg *ldt = &c->v.state.seg[SEG_LDTR];
	gva_t base = c->v.state.gdt.base;
	uint32_t limit = c->v.state.gdt.limit;

	if (sel & 4) {
		if (ldt->attr & SEG_UNUSABLE)
			return false;
		base = ldt->base;
		limit = ldt->limit;
	}
	if ((sel & 0xfff8u) + size - 1 > limit)
		return false;
	*at = base + (sel & 0xfff8u);
	if (!x86_long(c))
		*at = (uint32_t)*at;
	return true;
}

static bool
desc_try(struct soft_cpu *c, uint16_t sel, struct desc *d)
{
	uint64_t v;

	if (!desc_place(c, sel, 8, &d->addr))
		return false;
	v = x86_load(c, d->addr, 8, x86_sys_mmu(c));
	d->lo = (uint32_t)v;
	d->hi = (uint32_t)(v >> 32);
	d->base_hi = d->zero = 0;
	d->attr = (d->hi >> 8) & 0xf0ff;
	return true;
}

void
x86_desc_read(struct soft_cpu *c, uint16_t sel, struct desc *d, int vector)
{
	if (!desc_try(c, sel, d))
		x86_raise_error(c, vector, SEL_ERROR(sel));
}

/* System descriptors are 16 bytes in long mode; the second type field has to be 0 (SDM 3A 5.8.3.1, 8.2.3). */
static void
desc_read_upper(struct soft_cpu *c, uint16_t sel, struct desc *d)
{
	gva_t at;
	uint64_t v;

	if (!x86_long(c))
		return;
	if (!desc_place(c, sel, 16, &at))
		x86_raise_error(c, EXC_GP, SEL_ERROR(sel));
	v = x86_load(c, at + 8, 8, x86_sys_mmu(c));
	d->base_hi = (uint32_t)v;
	d->zero = (uint32_t)(v >> 32);
	if (d->zero & 0x1f00)
		x86_raise_error(c, EXC_GP, SEL_ERROR(sel));
}

static uint32_t
desc_limit(const struct desc *d)
{
	uint32_t limit = (d->lo & 0xffff) | (d->hi & 0xf0000);

	return d->attr & SEG_G ? limit << 12 | 0xfff : limit;
}

struct x86_seg
x86_desc_seg(uint16_t sel, const struct desc *d)
{
	struct x86_seg s = { .sel = sel, .attr = d->attr, .limit = desc_limit(d) };

	s.base = (d->lo >> 16) | (d->hi & 0xff) << 16 | (d->hi & 0xff000000);
	s.base |= (uint64_t)d->base_hi << 32;
	if (d->attr & SEG_S)
		s.attr |= TYPE_ACCESSED;
	return s;
}

/* Set and clear bits of a descriptor's type byte with one locked access, as the CPU does. */
static void
desc_change_type(struct soft_cpu *c, const struct desc *d, uint8_t set, uint8_t clear)
{
	struct soft_tlb_entry *e;
	uint8_t *p = x86_host(c, d->addr + 5, 1, X86_WRITE, x86_sys_mmu(c), &e);

	if (!p) {
		uint64_t v = x86_load(c, d->addr + 5, 1, x86_sys_mmu(c));

		x86_store(c, d->addr + 5, (v & ~(uint64_t)clear) | set, 1, x86_sys_mmu(c));
		return;
	}
	if (set)
		__atomic_fetch_or(p, set, __ATOMIC_SEQ_CST);
	if (clear)
		__atomic_fetch_and(p, (uint8_t)~clear, __ATOMIC_SEQ_CST);
	if (*e->flags)
		x86_page_written(c, e);
}

void
x86_desc_accessed(struct soft_cpu *c, const struct desc *d)
{
	if (!(d->attr & TYPE_ACCESSED))
		desc_change_type(c, d, TYPE_ACCESSED, 0);
}

static struct x86_seg
null_seg(uint16_t sel, unsigned dpl)
{
	return (struct x86_seg){ .sel = sel, .attr = SEG_UNUSABLE | dpl << 5 };
}

/* ---- segment loads (SDM 2B MOV) ---- */

static void
load_real(struct soft_cpu *c, enum seg_name seg, uint16_t sel)
{
	struct x86_seg *s = &c->v.state.seg[seg];

	s->sel = sel;
	s->base = (uint64_t)sel << 4;
	if (x86_vm86(c)) {
		s->limit = 0xffff;
		s->attr = ATTR_VM86;
		return;
	}
	/* Real mode leaves limit and rights as they are: "unreal mode" lives on that. */
	if (s->attr & SEG_UNUSABLE) {
		s->limit = 0xffff;
		s->attr = ATTR_REAL;
	}
}

void
x86_stack_desc(struct soft_cpu *c, uint16_t sel, unsigned cpl, struct desc *d, int vector)
{
	if (IS_NULL(sel))
		x86_raise_error(c, vector, 0);
	x86_desc_read(c, sel, d, vector);
	if (RPL(sel) != cpl || !desc_is_writable(d) || desc_dpl(d) != cpl)
		x86_raise_error(c, vector, SEL_ERROR(sel));
	if (!desc_present(d))
		x86_raise_error(c, EXC_SS, SEL_ERROR(sel));
}

static void
load_ss(struct soft_cpu *c, uint16_t sel)
{
	struct desc d;

	if (IS_NULL(sel) && c->mode == X86_LONG64 && c->cpl < 3 && RPL(sel) == c->cpl) {
		c->v.state.seg[SEG_SS] = null_seg(sel, c->cpl);
		return;
	}
	x86_stack_desc(c, sel, c->cpl, &d, EXC_GP);
	x86_desc_accessed(c, &d);
	c->v.state.seg[SEG_SS] = x86_desc_seg(sel, &d);
}

/* The descriptor of a data segment; raises `vector` or #NP. */
static void
data_desc(struct soft_cpu *c, uint16_t sel, struct desc *d, unsigned cpl, int vector)
{
	x86_desc_read(c, sel, d, vector);
	if (!(d->attr & SEG_S) || (d->attr & TYPE_CODE && !(d->attr & TYPE_READ)))
		x86_raise_error(c, vector, SEL_ERROR(sel));
	if (!desc_is_conforming(d) && (RPL(sel) > desc_dpl(d) || cpl > desc_dpl(d)))
		x86_raise_error(c, vector, SEL_ERROR(sel));
	if (!desc_present(d))
		x86_raise_error(c, EXC_NP, SEL_ERROR(sel));
}

static void
load_data(struct soft_cpu *c, enum seg_name seg, uint16_t sel)
{
	struct desc d;

	if (IS_NULL(sel)) {
		c->v.state.seg[seg] = null_seg(sel, 0);
		return;
	}
	data_desc(c, sel, &d, c->cpl, EXC_GP);
	x86_desc_accessed(c, &d);
	c->v.state.seg[seg] = x86_desc_seg(sel, &d);
}

void
x86_load_seg(struct soft_cpu *c, enum seg_name seg, uint16_t sel)
{
	if (seg == SEG_CS)
		x86_ud(c);
	if (!protected_mode(c))
		load_real(c, seg, sel);
	else if (seg == SEG_SS)
		load_ss(c, sel);
	else
		load_data(c, seg, sel);
	x86_update_mode(c);
}

void
x86_drop_segs(struct soft_cpu *c)
{
	static const enum seg_name names[] = { SEG_ES, SEG_DS, SEG_FS, SEG_GS };

	for (size_t i = 0; i < ARRAY_LEN(names); i++) {
		struct x86_seg *s = &c->v.state.seg[names[i]];
		bool conforming = (s->attr & (TYPE_CODE | TYPE_CONFORMING)) == (TYPE_CODE | TYPE_CONFORMING);

		if (!(s->attr & SEG_UNUSABLE) && !conforming && SEG_DPL(s->attr) < SEG_DPL(c->v.state.seg[SEG_SS].attr))
			*s = null_seg(0, 0);
	}
}

void
x86_vm86_segs(struct soft_cpu *c, const uint16_t sel[6])
{
	for (int i = SEG_ES; i <= SEG_GS; i++) {
		struct x86_seg *s = &c->v.state.seg[i];

		*s = (struct x86_seg){
			.sel = sel[i], .base = (uint64_t)sel[i] << 4, .limit = 0xffff, .attr = ATTR_VM86
		};
	}
}

/* ---- code segments ---- */

void
x86_code_check(struct soft_cpu *c, const struct desc *d, uint16_t sel, uint64_t off)
{
	if (x86_long(c) && d->attr & SEG_L) {
		if (d->attr & SEG_DB)
			x86_raise_error(c, EXC_GP, SEL_ERROR(sel));
		if (!x86_canonical(off))
			x86_gp(c, 0);
	} else if ((uint32_t)off > desc_limit(d)) {
		x86_gp(c, 0);
	}
}

/* CS:RIP change without a change of CPL; all checks are done. */
static void
enter_code(struct soft_cpu *c, uint16_t sel, const struct desc *d, uint64_t off)
{
	x86_desc_accessed(c, d);
	c->v.state.seg[SEG_CS] = x86_desc_seg((uint16_t)(SEL_ERROR(sel) | c->cpl), d);
	c->v.state.rip = x86_long(c) && d->attr & SEG_L ? off : (uint32_t)off;
	x86_update_mode(c);
}

static void
real_enter(struct soft_cpu *c, uint16_t sel, uint64_t off)
{
	if (off > c->v.state.seg[SEG_CS].limit)
		x86_gp(c, 0);
	load_real(c, SEG_CS, sel);
	c->v.state.rip = off;
	x86_update_mode(c);
}

static void
direct_code_check(struct soft_cpu *c, uint16_t sel, const struct desc *d)
{
	bool ok = desc_is_conforming(d) ? desc_dpl(d) <= c->cpl : RPL(sel) <= c->cpl && desc_dpl(d) == c->cpl;

	if (!ok)
		x86_gp(c, SEL_ERROR(sel));
	if (!desc_present(d))
		x86_raise_error(c, EXC_NP, SEL_ERROR(sel));
}

/* ---- gates ---- */

struct gate {
	uint16_t sel;
	uint64_t off;
	unsigned params, size;
};

/* `d` is the call gate `sel` names. Checks it and reads the code descriptor behind it (SDM 3A 5.8.4). */
static struct gate
call_gate(struct soft_cpu *c, uint16_t sel, struct desc *d, struct desc *code)
{
	struct gate g = { .sel = (uint16_t)(d->lo >> 16), .params = d->hi & 31 };

	desc_read_upper(c, sel, d);
	g.size = x86_long(c) ? 8 : desc_type(d) == DESC_CALL32 ? 4 : 2;
	g.off = (d->lo & 0xffff) | (d->hi & 0xffff0000) | (uint64_t)d->base_hi << 32;
	if (g.size == 2)
		g.off &= 0xffff;
	if (desc_dpl(d) < c->cpl || desc_dpl(d) < RPL(sel))
		x86_gp(c, SEL_ERROR(sel));
	if (!desc_present(d))
		x86_raise_error(c, EXC_NP, SEL_ERROR(sel));
	if (IS_NULL(g.sel))
		x86_gp(c, 0);
	x86_desc_read(c, g.sel, code, EXC_GP);
	if (!desc_is_code(code) || desc_dpl(code) > c->cpl)
		x86_gp(c, SEL_ERROR(g.sel));
	if (x86_long(c) && (code->attr & (SEG_L | SEG_DB)) != SEG_L)
		x86_gp(c, SEL_ERROR(g.sel));
	return g;
}

static void
gate_code_present(struct soft_cpu *c, const struct gate *g, const struct desc *code)
{
	if (!desc_present(code))
		x86_raise_error(c, EXC_NP, SEL_ERROR(g->sel));
}

void
x86_tss_stack(struct soft_cpu *c, unsigned cpl, unsigned ist, uint16_t *sel, uint64_t *sp)
{
	const struct x86_seg *tr = &c->v.state.seg[SEG_TR];
	enum x86_mmu mmu = x86_sys_mmu(c);
	unsigned off, last;

	if (x86_long(c)) {
		off = ist ? 36 + 8 * (ist - 1) : 4 + 8 * cpl;
		last = off + 7;
	} else if (tr->attr & 8) {
		off = 4 + 8 * cpl;
		last = off + 5;
	} else {
		off = 2 + 4 * cpl;
		last = off + 3;
	}
	if (last > tr->limit)
		x86_raise_error(c, EXC_TS, SEL_ERROR(tr->sel));
	if (x86_long(c)) {
		*sp = x86_load(c, tr->base + off, 8, mmu);
		*sel = (uint16_t)cpl;
	} else if (tr->attr & 8) {
		*sp = x86_load(c, (uint32_t)(tr->base + off), 4, mmu);
		*sel = (uint16_t)x86_load(c, (uint32_t)(tr->base + off + 4), 2, mmu);
	} else {
		*sp = x86_load(c, (uint32_t)(tr->base + off), 2, mmu);
		*sel = (uint16_t)x86_load(c, (uint32_t)(tr->base + off + 2), 2, mmu);
	}
}

/* A call gate to an inner level: new stack, old stack pointer, parameters, return address. */
static void
call_inner(struct soft_cpu *c, const struct gate *g, const struct desc *code)
{
	unsigned cpl = desc_dpl(code);
	struct stack old = x86_stack_now(c), new;
	struct x86_seg ss;
	struct desc sd;
	uint64_t sp, params[31];
	uint16_t sel;

	x86_tss_stack(c, cpl, 0, &sel, &sp);
	if (x86_long(c)) {
		ss = null_seg(sel, cpl);
		new = x86_stack_new(c, NULL, sp, cpl);
	} else {
		x86_stack_desc(c, sel, cpl, &sd, EXC_TS);
		ss = x86_desc_seg(sel, &sd);
		new = x86_stack_new(c, &ss, sp, cpl);
		new.fresh = true;
	}
	x86_code_check(c, code, g->sel, g->off);
	x86_push(c, &new, c->v.state.seg[SEG_SS].sel, g->size);
	x86_push(c, &new, old.sp, g->size);
	if (!x86_long(c)) {
		for (unsigned i = 0; i < g->params; i++)
			params[i] = x86_pop(c, &old, g->size);
		for (unsigned i = g->params; i-- > 0;)
			x86_push(c, &new, params[i], g->size);
	}
	x86_push(c, &new, c->v.state.seg[SEG_CS].sel, g->size);
	x86_push(c, &new, c->next_rip, g->size);
	if (!x86_long(c))
		x86_desc_accessed(c, &sd);
	x86_desc_accessed(c, code);
	c->v.state.seg[SEG_SS] = ss;
	c->v.state.seg[SEG_CS] = x86_desc_seg((uint16_t)(SEL_ERROR(g->sel) | cpl), code);
	c->v.state.rip = g->off;
	x86_stack_commit(c, &new);
	x86_update_mode(c);
}

static void
call_through_gate(struct soft_cpu *c, uint16_t sel, struct desc *d)
{
	struct desc code;
	struct gate g = call_gate(c, sel, d, &code);
	struct stack s;

	gate_code_present(c, &g, &code);
	if (!desc_is_conforming(&code) && desc_dpl(&code) < c->cpl) {
		call_inner(c, &g, &code);
		return;
	}
	x86_code_check(c, &code, g.sel, g.off);
	s = x86_stack_now(c);
	/* In long mode a gate pushes onto a 64-bit stack, also from compatibility mode. */
	if (x86_long(c))
		s.width = 8;
	x86_push(c, &s, c->v.state.seg[SEG_CS].sel, g.size);
	x86_push(c, &s, c->next_rip, g.size);
	enter_code(c, g.sel, &code, g.off);
	x86_stack_commit(c, &s);
}

static void
jump_through_gate(struct soft_cpu *c, uint16_t sel, struct desc *d)
{
	struct desc code;
	struct gate g = call_gate(c, sel, d, &code);

	if (!desc_is_conforming(&code) && desc_dpl(&code) != c->cpl)
		x86_gp(c, SEL_ERROR(g.sel));
	gate_code_present(c, &g, &code);
	x86_code_check(c, &code, g.sel, g.off);
	enter_code(c, g.sel, &code, g.off);
}

/* JMP or CALL to a TSS or a task gate. */
static void
switch_to(struct soft_cpu *c, uint16_t sel, struct desc *d, enum task_switch how)
{
	struct desc tss = *d;
	unsigned type;

	if (desc_dpl(d) < c->cpl || desc_dpl(d) < RPL(sel))
		x86_gp(c, SEL_ERROR(sel));
	if (desc_type(d) == DESC_TASK) {
		if (!desc_present(d))
			x86_raise_error(c, EXC_NP, SEL_ERROR(sel));
		sel = (uint16_t)(d->lo >> 16);
		if (sel & 4 || IS_NULL(sel))
			x86_gp(c, SEL_ERROR(sel));
		x86_desc_read(c, sel, &tss, EXC_GP);
	}
	type = tss.attr & (SEG_S | SEG_TYPE);
	if (sel & 4 || (type != DESC_TSS16 && type != DESC_TSS32))
		x86_gp(c, SEL_ERROR(sel));
	if (!desc_present(&tss))
		x86_raise_error(c, EXC_NP, SEL_ERROR(sel));
	x86_task_switch(c, sel, &tss, how, c->next_rip, NULL);
}

/* JMP or CALL whose selector names a system descriptor. */
static void
transfer_system(struct soft_cpu *c, uint16_t sel, struct desc *d, bool call)
{
	switch (desc_type(d)) {
	case DESC_CALL16:
		if (x86_long(c))
			break;
		/* fall through */
	case DESC_CALL32:
		if (call)
			call_through_gate(c, sel, d);
		else
			jump_through_gate(c, sel, d);
		return;
	case DESC_TASK:
	case DESC_TSS16:
	case DESC_TSS32:
		if (x86_long(c))
			break;
		switch_to(c, sel, d, call ? TASK_CALL : TASK_JUMP);
		return;
	default:
		break;
	}
	x86_gp(c, SEL_ERROR(sel));
}

/* ---- far JMP, CALL, RET ---- */

void
x86_far_jump(struct soft_cpu *c, uint16_t sel, uint64_t off, unsigned opsize)
{
	struct desc d;

	off &= size_mask(opsize);
	if (!protected_mode(c)) {
		real_enter(c, sel, off);
		return;
	}
	if (IS_NULL(sel))
		x86_gp(c, 0);
	x86_desc_read(c, sel, &d, EXC_GP);
	if (!(d.attr & SEG_S)) {
		transfer_system(c, sel, &d, false);
		return;
	}
	if (!desc_is_code(&d))
		x86_gp(c, SEL_ERROR(sel));
	direct_code_check(c, sel, &d);
	x86_code_check(c, &d, sel, off);
	enter_code(c, sel, &d, off);
}

void
x86_far_call(struct soft_cpu *c, uint16_t sel, uint64_t off, unsigned opsize)
{
	struct stack s = x86_stack_now(c);
	struct desc d = { 0 };

	off &= size_mask(opsize);
	if (protected_mode(c)) {
		if (IS_NULL(sel))
			x86_gp(c, 0);
		x86_desc_read(c, sel, &d, EXC_GP);
		if (!(d.attr & SEG_S)) {
			transfer_system(c, sel, &d, true);
			return;
		}
		if (!desc_is_code(&d))
			x86_gp(c, SEL_ERROR(sel));
		direct_code_check(c, sel, &d);
		x86_code_check(c, &d, sel, off);
	} else if (off > c->v.state.seg[SEG_CS].limit) {
		x86_gp(c, 0);
	}
	x86_push(c, &s, c->v.state.seg[SEG_CS].sel, opsize);
	x86_push(c, &s, c->next_rip, opsize);
	if (protected_mode(c))
		enter_code(c, sel, &d, off);
	else
		real_enter(c, sel, off);
	x86_stack_commit(c, &s);
}

/* The code segment a RET or IRET goes back to. */
static void
return_code_desc(struct soft_cpu *c, uint16_t sel, struct desc *d)
{
	bool ok;

	if (IS_NULL(sel))
		x86_gp(c, 0);
	x86_desc_read(c, sel, d, EXC_GP);
	ok = desc_is_conforming(d) ? desc_dpl(d) <= RPL(sel) : desc_dpl(d) == RPL(sel);
	if (!desc_is_code(d) || RPL(sel) < c->cpl || !ok)
		x86_gp(c, SEL_ERROR(sel));
	if (!desc_present(d))
		x86_raise_error(c, EXC_NP, SEL_ERROR(sel));
}

/* The stack segment it goes back to; null only for 64-bit code that is not at CPL 3. */
static struct x86_seg
return_stack_seg(struct soft_cpu *c, uint16_t sel, uint16_t cs, const struct desc *code)
{
	struct desc d;

	if (IS_NULL(sel) && x86_long(c) && code->attr & SEG_L && RPL(cs) != 3 && RPL(sel) == RPL(cs))
		return null_seg(sel, RPL(cs));
	x86_stack_desc(c, sel, RPL(cs), &d, EXC_GP);
	x86_desc_accessed(c, &d);
	return x86_desc_seg(sel, &d);
}

/* CS:RIP and SS:RSP change together; `extra` bytes of the new stack are dropped. All checks are done. */
static void
return_to(struct soft_cpu *c, uint16_t cs, const struct desc *code, uint64_t rip, const struct x86_seg *ss, uint64_t sp,
	unsigned extra)
{
	bool to64 = x86_long(c) && code->attr & SEG_L;
	struct stack s = x86_stack_new(c, to64 ? NULL : ss, sp, RPL(cs));

	x86_desc_accessed(c, code);
	c->v.state.seg[SEG_CS] = x86_desc_seg(cs, code);
	c->v.state.seg[SEG_SS] = *ss;
	c->v.state.rip = to64 ? rip : (uint32_t)rip;
	stack_skip(&s, extra);
	x86_stack_commit(c, &s);
}

void
x86_far_ret(struct soft_cpu *c, unsigned opsize, uint16_t pop_bytes)
{
	struct stack s = x86_stack_now(c);
	uint64_t rip = x86_pop(c, &s, opsize), sp;
	uint16_t cs = (uint16_t)x86_pop(c, &s, opsize);
	struct x86_seg ss;
	struct desc d;

	if (!protected_mode(c)) {
		real_enter(c, cs, rip);
		stack_skip(&s, pop_bytes);
		x86_stack_commit(c, &s);
		return;
	}
	return_code_desc(c, cs, &d);
	stack_skip(&s, pop_bytes);
	if (RPL(cs) == c->cpl) {
		x86_code_check(c, &d, cs, rip);
		enter_code(c, cs, &d, rip);
		x86_stack_commit(c, &s);
		return;
	}
	sp = x86_pop(c, &s, opsize);
	ss = return_stack_seg(c, (uint16_t)x86_pop(c, &s, opsize), cs, &d);
	x86_code_check(c, &d, cs, rip);
	return_to(c, cs, &d, rip, &ss, sp, pop_bytes);
	x86_drop_segs(c);
	x86_update_mode(c);
}

/* ---- IRET ---- */

#define FLAGS_STATUS (FLAG_CF | FLAG_PF | FLAG_AF | FLAG_ZF | FLAG_SF | FLAG_OF | FLAG_DF | FLAG_TF | FLAG_NT)

static void
set_flags(struct soft_cpu *c, uint64_t value, uint64_t mask)
{
	uint64_t f = (c->v.state.rflags & ~mask) | (value & mask) | 2;

	/* RF only says "not this breakpoint again": without breakpoints nobody would clear it. */
	c->v.state.rflags = c->code_bp ? f : f & ~(uint64_t)FLAG_RF;
}

static uint64_t
iret_mask(const struct soft_cpu *c, unsigned opsize)
{
	uint64_t mask = FLAGS_STATUS;

	if (c->cpl <= x86_iopl(c))
		mask |= FLAG_IF;
	if (c->cpl == 0)
		mask |= FLAG_IOPL;
	if (opsize > 2)
		mask |= FLAG_RF | FLAG_AC | FLAG_ID | (c->cpl == 0 ? FLAG_VIF | FLAG_VIP : 0);
	return mask;
}

static void
iret_real(struct soft_cpu *c, unsigned opsize)
{
	struct stack s = x86_stack_now(c);
	uint64_t rip = x86_pop(c, &s, opsize), mask = FLAGS_STATUS | FLAG_IF;
	uint16_t cs = (uint16_t)x86_pop(c, &s, opsize);
	uint64_t flags = x86_pop(c, &s, opsize);

	if (!x86_vm86(c))
		mask |= FLAG_IOPL;
	if (opsize > 2)
		mask |= FLAG_RF | FLAG_AC | FLAG_ID;
	if (x86_vm86(c) && x86_iopl(c) < 3) {
		/* CR4.VME: IF is VIF (SDM 3B 21.3.3.4) */
		if (flags & FLAG_TF || (flags & FLAG_IF && c->v.state.rflags & FLAG_VIP))
			x86_gp(c, 0);
		mask = (mask & ~(uint64_t)FLAG_IF) | FLAG_VIF;
		flags = (flags & ~(uint64_t)FLAG_VIF) | (flags & FLAG_IF ? FLAG_VIF : 0);
	}
	real_enter(c, cs, rip);
	x86_stack_commit(c, &s);
	set_flags(c, flags, mask);
	x86_update_mode(c);
}

static void
iret_task(struct soft_cpu *c)
{
	const struct x86_seg *tr = &c->v.state.seg[SEG_TR];
	uint16_t sel = (uint16_t)x86_load(c, tr->base, 2, x86_sys_mmu(c));
	struct desc d;
	unsigned type;

	if (sel & 4 || IS_NULL(sel))
		x86_raise_error(c, EXC_TS, SEL_ERROR(sel));
	x86_desc_read(c, sel, &d, EXC_TS);
	type = d.attr & (SEG_S | SEG_TYPE);
	if (type != DESC_TSS16_BUSY && type != DESC_TSS32_BUSY)
		x86_raise_error(c, EXC_TS, SEL_ERROR(sel));
	if (!desc_present(&d))
		x86_raise_error(c, EXC_NP, SEL_ERROR(sel));
	x86_task_switch(c, sel, &d, TASK_IRET, c->next_rip, NULL);
}

static void
iret_to_vm86(struct soft_cpu *c, struct stack *s, uint64_t rip, uint16_t cs, uint64_t flags)
{
	static const enum seg_name order[] = { SEG_SS, SEG_ES, SEG_DS, SEG_FS, SEG_GS };
	uint64_t sp = x86_pop(c, s, 4);
	uint16_t sel[6];

	sel[SEG_CS] = cs;
	for (size_t i = 0; i < ARRAY_LEN(order); i++)
		sel[order[i]] = (uint16_t)x86_pop(c, s, 4);
	if (rip > 0xffff)
		x86_gp(c, 0);
	x86_vm86_segs(c, sel);
	c->v.state.gpr[RSP] = (uint32_t)sp;
	c->v.state.rip = rip;
	set_flags(c, flags, iret_mask(c, 4) | FLAG_VM);
	x86_update_mode(c);
}

static void
iret_protected(struct soft_cpu *c, unsigned opsize)
{
	struct stack s = x86_stack_now(c);
	uint64_t rip = x86_pop(c, &s, opsize), sp, flags, mask = iret_mask(c, opsize);
	uint16_t cs = (uint16_t)x86_pop(c, &s, opsize);
	bool outer = RPL(cs) > c->cpl;
	struct x86_seg ss;
	struct desc d;

	flags = x86_pop(c, &s, opsize);
	if (flags & FLAG_VM && opsize == 4 && c->cpl == 0 && !x86_long(c)) {
		iret_to_vm86(c, &s, rip, cs, flags);
		return;
	}
	return_code_desc(c, cs, &d);
	if (!outer && c->mode != X86_LONG64) {
		x86_code_check(c, &d, cs, rip);
		enter_code(c, cs, &d, rip);
		x86_stack_commit(c, &s);
	} else {
		sp = x86_pop(c, &s, opsize);
		ss = return_stack_seg(c, (uint16_t)x86_pop(c, &s, opsize), cs, &d);
		x86_code_check(c, &d, cs, rip);
		return_to(c, cs, &d, rip, &ss, sp, 0);
		if (outer)
			x86_drop_segs(c);
	}
	set_flags(c, flags, mask);
	x86_update_mode(c);
}

void
x86_iret(struct soft_cpu *c, unsigned opsize)
{
	if (x86_vm86(c) && x86_iopl(c) < 3 && !(c->v.state.cr4 & CR4_VME && opsize == 2))
		x86_gp(c, 0);
	c->v.state.nmi_blocked = 0;
	if (!protected_mode(c)) {
		iret_real(c, opsize);
		return;
	}
	if (c->v.state.rflags & FLAG_NT) {
		if (x86_long(c))
			x86_gp(c, 0);
		iret_task(c);
		return;
	}
	iret_protected(c, opsize);
}

/* ---- task switches (SDM 3A 8.3) ---- */

/* The dynamic part of a TSS. Segments by enum seg_name. */
struct task {
	uint32_t cr3, eip, eflags, gpr[8];
	uint16_t seg[6], ldt;
	bool trap;
};

static uint32_t
tss_load(struct soft_cpu *c, gva_t base, unsigned off, unsigned size)
{
	return (uint32_t)x86_load(c, (uint32_t)(base + off), size, x86_sys_mmu(c));
}

static void
tss_store(struct soft_cpu *c, gva_t base, unsigned off, uint32_t value, unsigned size)
{
	x86_store(c, (uint32_t)(base + off), value, size, x86_sys_mmu(c));
}

static void
task_load(struct soft_cpu *c, gva_t base, bool is32, struct task *t)
{
	*t = (struct task){ 0 };
	if (is32) {
		t->cr3 = tss_load(c, base, 28, 4);
		t->eip = tss_load(c, base, 32, 4);
		t->eflags = tss_load(c, base, 36, 4);
		for (unsigned i = 0; i < 8; i++)
			t->gpr[i] = tss_load(c, base, 40 + 4 * i, 4);
		for (unsigned i = 0; i < 6; i++)
			t->seg[i] = (uint16_t)tss_load(c, base, 72 + 4 * i, 2);
		t->ldt = (uint16_t)tss_load(c, base, 96, 2);
		t->trap = tss_load(c, base, 100, 2) & 1;
		return;
	}
	t->eip = tss_load(c, base, 14, 2);
	t->eflags = tss_load(c, base, 16, 2);
	for (unsigned i = 0; i < 8; i++)
		t->gpr[i] = tss_load(c, base, 18 + 2 * i, 2);
	for (unsigned i = 0; i < 4; i++)
		t->seg[i] = (uint16_t)tss_load(c, base, 34 + 2 * i, 2);
	t->ldt = (uint16_t)tss_load(c, base, 42, 2);
}

static void
task_save(struct soft_cpu *c, uint64_t rip, uint64_t flags)
{
	const struct x86_state *s = &c->v.state;
	gva_t base = s->seg[SEG_TR].base;

	if (s->seg[SEG_TR].attr & 8) {
		tss_store(c, base, 32, (uint32_t)rip, 4);
		tss_store(c, base, 36, (uint32_t)flags, 4);
		for (unsigned i = 0; i < 8; i++)
			tss_store(c, base, 40 + 4 * i, (uint32_t)s->gpr[i], 4);
		for (unsigned i = 0; i < 6; i++)
			tss_store(c, base, 72 + 4 * i, s->seg[i].sel, 2);
		return;
	}
	tss_store(c, base, 14, (uint32_t)rip, 2);
	tss_store(c, base, 16, (uint32_t)flags, 2);
	for (unsigned i = 0; i < 8; i++)
		tss_store(c, base, 18 + 2 * i, (uint32_t)s->gpr[i], 2);
	for (unsigned i = 0; i < 4; i++)
		tss_store(c, base, 34 + 2 * i, s->seg[i].sel, 2);
}

static void
task_load_ldt(struct soft_cpu *c, uint16_t sel)
{
	struct desc d;

	c->v.state.seg[SEG_LDTR] = null_seg(sel, 0);
	if (IS_NULL(sel))
		return;
	if (sel & 4)
		x86_raise_error(c, EXC_TS, SEL_ERROR(sel));
	x86_desc_read(c, sel, &d, EXC_TS);
	if ((d.attr & (SEG_S | SEG_TYPE)) != DESC_LDT || !desc_present(&d))
		x86_raise_error(c, EXC_TS, SEL_ERROR(sel));
	c->v.state.seg[SEG_LDTR] = x86_desc_seg(sel, &d);
}

static void
task_load_cs(struct soft_cpu *c, uint16_t sel)
{
	struct desc d;
	bool ok;

	if (IS_NULL(sel))
		x86_raise_error(c, EXC_TS, 0);
	x86_desc_read(c, sel, &d, EXC_TS);
	ok = desc_is_conforming(&d) ? desc_dpl(&d) <= RPL(sel) : desc_dpl(&d) == RPL(sel);
	if (!desc_is_code(&d) || !ok)
		x86_raise_error(c, EXC_TS, SEL_ERROR(sel));
	if (!desc_present(&d))
		x86_raise_error(c, EXC_NP, SEL_ERROR(sel));
	x86_desc_accessed(c, &d);
	c->v.state.seg[SEG_CS] = x86_desc_seg(sel, &d);
}

/* The visible parts are in place; now the descriptors, with faults in the new task. */
static void
task_load_segs(struct soft_cpu *c, const struct task *t)
{
	static const enum seg_name names[] = { SEG_ES, SEG_DS, SEG_FS, SEG_GS };
	unsigned cpl = RPL(t->seg[SEG_CS]);
	struct desc d;

	task_load_ldt(c, t->ldt);
	if (x86_vm86(c))
		return;
	x86_stack_desc(c, t->seg[SEG_SS], cpl, &d, EXC_TS);
	x86_desc_accessed(c, &d);
	c->v.state.seg[SEG_SS] = x86_desc_seg(t->seg[SEG_SS], &d);
	for (size_t i = 0; i < ARRAY_LEN(names); i++) {
		uint16_t sel = t->seg[names[i]];

		if (IS_NULL(sel))
			continue;
		data_desc(c, sel, &d, cpl, EXC_TS);
		x86_desc_accessed(c, &d);
		c->v.state.seg[names[i]] = x86_desc_seg(sel, &d);
	}
	task_load_cs(c, t->seg[SEG_CS]);
}

/* Registers of the new task; the segments as selectors only. */
static void
task_enter(struct soft_cpu *c, const struct task *t, bool is32)
{
	struct x86_state *s = &c->v.state;

	if (is32 && s->cr0 & CR0_PG && t->cr3 != s->cr3) {
		if (s->cr4 & CR4_PAE && !x86_load_pdptes(c, t->cr3))
			x86_raise_error(c, EXC_TS, SEL_ERROR(s->seg[SEG_TR].sel));
		s->cr3 = t->cr3;
		x86_tlb_switch(c, false);
	}
	s->rip = t->eip;
	s->rflags = (t->eflags & 0x3f7fd5) | 2;
	for (unsigned i = 0; i < 8; i++)
		s->gpr[i] = t->gpr[i];
	s->cr0 |= CR0_TS;
	s->dr[7] &= ~0x155ULL; /* local breakpoints end with their task */
	if (t->eflags & FLAG_VM) {
		x86_vm86_segs(c, t->seg);
	} else {
		for (unsigned i = SEG_ES; i <= SEG_GS; i++)
			s->seg[i] = null_seg(t->seg[i], RPL(t->seg[SEG_CS]));
	}
	x86_update_mode(c);
}

static void
task_push_error(struct soft_cpu *c, bool is32, uint32_t error)
{
	struct stack s = x86_stack_now(c);

	x86_push(c, &s, error, is32 ? 4 : 2);
	x86_stack_commit(c, &s);
}

void
x86_task_switch(struct soft_cpu *c, uint16_t sel, struct desc *d, enum task_switch how, uint64_t return_rip,
	const uint32_t *error)
{
	struct x86_state *s = &c->v.state;
	struct x86_seg tss = x86_desc_seg(sel, d), old = s->seg[SEG_TR];
	bool is32 = desc_type(d) & 8;
	uint64_t flags = s->rflags;
	struct desc old_desc;
	struct task t;

	if (tss.limit < (is32 ? 0x67u : 0x2bu))
		x86_raise_error(c, EXC_TS, SEL_ERROR(sel));
	task_load(c, tss.base, is32, &t);
	if (how == TASK_IRET)
		flags &= ~(uint64_t)FLAG_NT;
	task_save(c, return_rip, flags);
	if (how == TASK_CALL) {
		tss_store(c, tss.base, 0, old.sel, 2);
		t.eflags |= FLAG_NT;
	} else if (desc_try(c, old.sel, &old_desc)) {
		desc_change_type(c, &old_desc, 0, 2);
	}
	if (how != TASK_IRET)
		desc_change_type(c, d, 2, 0);
	tss.attr |= 2;
	s->seg[SEG_TR] = tss;
	task_enter(c, &t, is32);
	task_load_segs(c, &t);
	if (t.trap)
		c->pending_db |= 1u << 15;
	x86_update_mode(c);
	if (error)
		task_push_error(c, is32, *error);
	if (t.eip > s->seg[SEG_CS].limit)
		x86_gp(c, 0);
}

/* ---- LLDT, LTR, LAR, LSL, VERR, VERW ---- */

static void
check_protected(struct soft_cpu *c)
{
	if (!protected_mode(c))
		x86_ud(c);
}

void
x86_lldt(struct soft_cpu *c, uint16_t sel)
{
	struct desc d;

	check_protected(c);
	x86_check_cpl0(c);
	if (IS_NULL(sel)) {
		c->v.state.seg[SEG_LDTR] = null_seg(sel, 0);
		return;
	}
	if (sel & 4)
		x86_gp(c, SEL_ERROR(sel));
	x86_desc_read(c, sel, &d, EXC_GP);
	if ((d.attr & (SEG_S | SEG_TYPE)) != DESC_LDT)
		x86_gp(c, SEL_ERROR(sel));
	if (!desc_present(&d))
		x86_raise_error(c, EXC_NP, SEL_ERROR(sel));
	desc_read_upper(c, sel, &d);
	c->v.state.seg[SEG_LDTR] = x86_desc_seg(sel, &d);
}

void
x86_ltr(struct soft_cpu *c, uint16_t sel)
{
	struct x86_seg tr;
	struct desc d;
	unsigned type;

	check_protected(c);
	x86_check_cpl0(c);
	if (IS_NULL(sel))
		x86_gp(c, 0);
	if (sel & 4)
		x86_gp(c, SEL_ERROR(sel));
	x86_desc_read(c, sel, &d, EXC_GP);
	type = d.attr & (SEG_S | SEG_TYPE);
	if (type != DESC_TSS32 && (type != DESC_TSS16 || x86_long(c)))
		x86_gp(c, SEL_ERROR(sel));
	if (!desc_present(&d))
		x86_raise_error(c, EXC_NP, SEL_ERROR(sel));
	desc_read_upper(c, sel, &d);
	tr = x86_desc_seg(sel, &d);
	if (x86_long(c) && !x86_canonical(tr.base))
		x86_gp(c, SEL_ERROR(sel));
	desc_change_type(c, &d, 2, 0);
	tr.attr |= 2;
	c->v.state.seg[SEG_TR] = tr;
}

/* Common to the four: is the descriptor there and may this level see it? */
static bool
visible_desc(struct soft_cpu *c, uint16_t sel, struct desc *d)
{
	check_protected(c);
	if (IS_NULL(sel) || !desc_try(c, sel, d))
		return false;
	return desc_is_conforming(d) || (desc_dpl(d) >= c->cpl && desc_dpl(d) >= RPL(sel));
}

#define TYPES(...) type_set((const uint8_t[]){ __VA_ARGS__, 16 })
static uint32_t
type_set(const uint8_t *types)
{
	uint32_t set = 0;

	for (; *types < 16; types++)
		set |= 1u << *types;
	return set;
}

bool
x86_lar(struct soft_cpu *c, uint16_t sel, uint32_t *value)
{
	uint32_t legacy = TYPES(DESC_TSS16, DESC_LDT, DESC_TSS16_BUSY, DESC_CALL16, DESC_TASK, DESC_TSS32,
		DESC_TSS32_BUSY, DESC_CALL32);
	uint32_t in_long = TYPES(DESC_LDT, DESC_TSS32, DESC_TSS32_BUSY, DESC_CALL32);
	struct desc d;

	if (!visible_desc(c, sel, &d))
		return false;
	if (!(d.attr & SEG_S) && !((x86_long(c) ? in_long : legacy) >> desc_type(&d) & 1))
		return false;
	*value = d.hi & 0x00f0ff00;
	return true;
}

bool
x86_lsl(struct soft_cpu *c, uint16_t sel, uint32_t *value)
{
	uint32_t legacy = TYPES(DESC_TSS16, DESC_LDT, DESC_TSS16_BUSY, DESC_TSS32, DESC_TSS32_BUSY);
	uint32_t in_long = TYPES(DESC_LDT, DESC_TSS32, DESC_TSS32_BUSY);
	struct desc d;

	if (!visible_desc(c, sel, &d))
		return false;
	if (!(d.attr & SEG_S) && !((x86_long(c) ? in_long : legacy) >> desc_type(&d) & 1))
		return false;
	*value = desc_limit(&d);
	return true;
}

bool
x86_verify(struct soft_cpu *c, uint16_t sel, bool write)
{
	struct desc d;

	if (!visible_desc(c, sel, &d) || !(d.attr & SEG_S))
		return false;
	if (write)
		return desc_is_writable(&d);
	return !desc_is_code(&d) || d.attr & TYPE_READ;
}
