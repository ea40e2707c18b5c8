/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Exceptions and interrupts (SDM 3A chapter 6), debug exceptions (SDM 3B chapter 18), fast system calls (SDM 3A 5.8.7,
 * 5.8.8).
 *
 * An exception is recorded by x86_raise() and thrown to the engine, whose landing place calls x86_deliver_exception().
 * Delivery may itself raise: then x86_raise() lands in try_deliver() here, the two are combined (table 6-5), and what
 * comes out is delivered instead, up to the triple fault. A delivery that raises has changed nothing, except where a
 * task switch had already entered the new task; then the new task is where the next attempt starts.
 *
 * Compiled for general registers only (Makefile): x86_raise() may run while the guest's vector registers are in the
 * host's (cpu/jit/fp.c).
 */
#include <string.h>

#include "cpu/trace.h"
#include "cpu/x86/desc.h"

#define SEL_ERROR(sel) ((sel)&0xfffcu)
#define IS_NULL(sel) (!((sel)&0xfffcu))

enum event_kind {
	EVENT_EXCEPTION,
	EVENT_EXTERNAL, /* interrupts and NMI: benign whatever the vector */
	EVENT_SOFT,	/* INT n, INT3, INTO: the gate's DPL counts */
	EVENT_ICEBP,
};

struct event {
	int vector;
	enum event_kind kind;
	bool has_error;
	uint32_t error;
	uint64_t rip; /* EVENT_SOFT and ICEBP: the return address; others return to state.rip */
};

/* ---- raising ---- */

_Noreturn void
x86_raise(struct soft_cpu *c, int vector)
{
	c->exc_vector = vector;
	c->exc_has_error = false;
	c->exc_error = 0;
	longjmp(c->fault, 1);
}

_Noreturn void
x86_raise_error(struct soft_cpu *c, int vector, uint32_t error)
{
	c->exc_vector = vector;
	c->exc_has_error = true;
	/* EXT, SDM 3A 6.13; page fault and alignment check codes do not have it */
	c->exc_error = vector >= EXC_TS && vector <= EXC_GP ? error | c->event : error;
	longjmp(c->fault, 1);
}

/* ---- delivery in real mode, and into the 8086 task itself (SDM 3B 21.1.4, 21.3.3) ---- */

static void
enter_vector16(struct soft_cpu *c, gva_t entry, uint64_t flags, uint64_t rip, enum x86_mmu mmu)
{
	struct x86_state *s = &c->v.state;
	struct stack st = x86_stack_now(c);
	uint64_t v = x86_load(c, (uint32_t)entry, 4, mmu);

	x86_push(c, &st, flags, 2);
	x86_push(c, &st, s->seg[SEG_CS].sel, 2);
	x86_push(c, &st, rip, 2);
	x86_stack_commit(c, &st);
	s->seg[SEG_CS].sel = (uint16_t)(v >> 16);
	s->seg[SEG_CS].base = (v >> 16) << 4;
	s->rip = v & 0xffff;
}

static void
deliver_real(struct soft_cpu *c, const struct event *ev, uint64_t rip)
{
	struct x86_state *s = &c->v.state;

	if ((unsigned)ev->vector * 4 + 3 > s->idt.limit)
		x86_gp(c, (unsigned)ev->vector * 8 + 2);
	enter_vector16(c, s->idt.base + (unsigned)ev->vector * 4, s->rflags, rip, MMU_KERNEL);
	s->rflags &= ~(uint64_t)(FLAG_IF | FLAG_TF | FLAG_AC | FLAG_RF);
}

/* INT n in virtual-8086 mode under CR4.VME: is it the task's own business? (SDM 3B table 21-2) */
static bool
vme_redirects(struct soft_cpu *c, int vector)
{
	const struct x86_seg *tr = &c->v.state.seg[SEG_TR];
	unsigned map;

	if (!(c->v.state.cr4 & CR4_VME) || tr->limit < 103)
		return false;
	map = (unsigned)x86_load(c, (uint32_t)(tr->base + 102), 2, x86_sys_mmu(c));
	if (map < 32 || map > tr->limit)
		return false;
	map += (unsigned)vector / 8 - 32;
	return !(x86_load(c, (uint32_t)(tr->base + map), 1, x86_sys_mmu(c)) >> (vector & 7) & 1);
}

static void
vme_int(struct soft_cpu *c, int vector)
{
	struct x86_state *s = &c->v.state;
	uint64_t flags = s->rflags, clear = FLAG_TF;

	if (x86_iopl(c) < 3) {
		flags = (flags & ~(uint64_t)FLAG_IF) | FLAG_IOPL | (flags & FLAG_VIF ? FLAG_IF : 0);
		clear |= FLAG_VIF;
	} else {
		clear |= FLAG_IF;
	}
	enter_vector16(c, (unsigned)vector * 4, flags, c->next_rip, MMU_USER);
	s->rflags &= ~clear;
}

/* ---- delivery through the IDT (SDM 3A 6.12, 6.14) ---- */

struct gate {
	uint16_t sel;
	uint64_t off;
	unsigned type, size, ist;
};

static struct gate
read_gate(struct soft_cpu *c, const struct event *ev)
{
	const struct x86_table *idt = &c->v.state.idt;
	bool in_long = x86_long(c);
	uint32_t error = (unsigned)ev->vector * 8 + 2, hi, lo;
	unsigned size = in_long ? 16 : 8, off = (unsigned)ev->vector * size;
	uint64_t v;
	struct gate g = { 0 };

	if (off + size - 1 > idt->limit)
		x86_gp(c, error);
	v = x86_load(c, in_long ? idt->base + off : (uint32_t)(idt->base + off), 8, x86_sys_mmu(c));
	lo = (uint32_t)v;
	hi = (uint32_t)(v >> 32);
	g.type = (hi >> 8) & 0x1f;
	g.sel = (uint16_t)(lo >> 16);
	g.off = (lo & 0xffff) | (hi & 0xffff0000);
	if (in_long) {
		g.off |= x86_load(c, idt->base + off + 8, 8, x86_sys_mmu(c)) << 32;
		g.ist = hi & 7;
	}
	g.size = in_long ? 8 : g.type & 8 ? 4 : 2;
	if (g.size == 2)
		g.off &= 0xffff;
	if (g.type != DESC_INT32 && g.type != DESC_TRAP32 &&
		(in_long || (g.type != DESC_INT16 && g.type != DESC_TRAP16 && g.type != DESC_TASK)))
		x86_gp(c, error);
	if (ev->kind == EVENT_SOFT && ((hi >> 13) & 3) < c->cpl)
		x86_gp(c, error);
	if (!(hi & 0x8000))
		x86_raise_error(c, EXC_NP, error);
	return g;
}

static void
deliver_task(struct soft_cpu *c, const struct event *ev, const struct gate *g, uint64_t rip)
{
	struct desc d;
	unsigned type;

	if (g->sel & 4 || IS_NULL(g->sel))
		x86_gp(c, SEL_ERROR(g->sel));
	x86_desc_read(c, g->sel, &d, EXC_GP);
	type = d.attr & (SEG_S | SEG_TYPE);
	if (type != DESC_TSS16 && type != DESC_TSS32)
		x86_gp(c, SEL_ERROR(g->sel));
	if (!desc_present(&d))
		x86_raise_error(c, EXC_NP, SEL_ERROR(g->sel));
	x86_task_switch(c, g->sel, &d, TASK_CALL, rip, ev->has_error ? &ev->error : NULL);
}

static void
handler_desc(struct soft_cpu *c, const struct gate *g, struct desc *d)
{
	uint32_t error = SEL_ERROR(g->sel);

	if (IS_NULL(g->sel))
		x86_gp(c, 0);
	x86_desc_read(c, g->sel, d, EXC_GP);
	if (!desc_is_code(d) || desc_dpl(d) > c->cpl)
		x86_gp(c, error);
	if (x86_long(c) && (d->attr & (SEG_L | SEG_DB)) != SEG_L)
		x86_gp(c, error);
	if (!desc_present(d))
		x86_raise_error(c, EXC_NP, error);
	if (x86_vm86(c) && (desc_is_conforming(d) || desc_dpl(d) != 0))
		x86_gp(c, error);
}

/* Faults leave RF set in the pushed image, so that an instruction breakpoint is not met again (SDM 3B 18.3.1.1). */
static uint64_t
pushed_flags(const struct soft_cpu *c, const struct event *ev)
{
	bool fault =
		ev->kind == EVENT_EXCEPTION && ev->vector != EXC_DB && ev->vector != EXC_DF && ev->vector != EXC_MC;

	return c->v.state.rflags | (fault ? FLAG_RF : 0);
}

/* CS, RIP and flags of the handler; everything was pushed. */
static void
enter_handler(struct soft_cpu *c, const struct gate *g, const struct desc *d, unsigned cpl)
{
	struct x86_state *s = &c->v.state;
	uint64_t clear = FLAG_TF | FLAG_NT | FLAG_RF | FLAG_VM;

	if (!(g->type & 1))
		clear |= FLAG_IF;
	x86_desc_accessed(c, d);
	s->seg[SEG_CS] = x86_desc_seg((uint16_t)(SEL_ERROR(g->sel) | cpl), d);
	s->rip = g->off;
	s->rflags &= ~clear;
}

/* The frame of long mode is five or six 64-bit words on an aligned stack, mostly inside one page. `words` ascend, the
 * pushes descend: the last word is the first to fault. */
static uint64_t
push_frame64(struct soft_cpu *c, uint64_t sp, const uint64_t *words, unsigned n, enum x86_mmu mmu)
{
	uint64_t top = (sp & ~15ULL) - 8, at = top - 8 * (n - 1);
	struct soft_tlb_entry *e;
	uint8_t *p;

	if (!x86_canonical(at) || !x86_canonical(top))
		x86_raise_error(c, EXC_SS, 0);
	p = x86_host(c, top, 8, X86_WRITE, mmu, &e);
	if (likely(p && !((at ^ top) & ~(uint64_t)PAGE_MASK) && !c->dr_armed)) {
		memcpy(p - 8 * (n - 1), words, 8 * n);
		if (*e->flags)
			x86_page_written(c, e);
		return at;
	}
	for (unsigned i = n; i-- > 0;)
		x86_store(c, at + 8 * i, words[i], 8, mmu);
	return at;
}

static void
deliver_long(struct soft_cpu *c, const struct event *ev, const struct gate *g, uint64_t rip)
{
	struct x86_state *s = &c->v.state;
	uint64_t sp = s->gpr[RSP], frame[6];
	unsigned cpl = c->cpl;
	struct desc d;
	uint16_t ss;

	handler_desc(c, g, &d);
	if (!desc_is_conforming(&d))
		cpl = desc_dpl(&d);
	if (g->ist || cpl < c->cpl)
		x86_tss_stack(c, cpl, g->ist, &ss, &sp);
	if (!x86_canonical(g->off))
		x86_gp(c, 0);
	frame[0] = ev->error;
	frame[1] = rip;
	frame[2] = s->seg[SEG_CS].sel;
	frame[3] = pushed_flags(c, ev);
	frame[4] = s->gpr[RSP];
	frame[5] = s->seg[SEG_SS].sel;
	sp = ev->has_error ? push_frame64(c, sp, frame, 6, x86_cpl_mmu(c, cpl))
			   : push_frame64(c, sp, frame + 1, 5, x86_cpl_mmu(c, cpl));
	if (cpl < c->cpl)
		s->seg[SEG_SS] = (struct x86_seg){ .sel = (uint16_t)cpl, .attr = SEG_UNUSABLE | cpl << 5 };
	enter_handler(c, g, &d, cpl);
	s->gpr[RSP] = sp;
}

/* After an interrupt out of virtual-8086 mode the data segments are null. */
static void
null_data_segs(struct soft_cpu *c)
{
	static const enum seg_name names[] = { SEG_ES, SEG_DS, SEG_FS, SEG_GS };

	for (unsigned i = 0; i < 4; i++)
		c->v.state.seg[names[i]] = (struct x86_seg){ .attr = SEG_UNUSABLE };
}

static void
push_old_stack(struct soft_cpu *c, struct stack *st, unsigned size)
{
	static const enum seg_name vm86_order[] = { SEG_GS, SEG_FS, SEG_DS, SEG_ES };
	const struct x86_state *s = &c->v.state;

	for (unsigned i = 0; x86_vm86(c) && i < 4; i++)
		x86_push(c, st, s->seg[vm86_order[i]].sel, size);
	x86_push(c, st, s->seg[SEG_SS].sel, size);
	x86_push(c, st, s->gpr[RSP], size);
}

static void
deliver_legacy(struct soft_cpu *c, const struct event *ev, const struct gate *g, uint64_t rip)
{
	struct x86_state *s = &c->v.state;
	struct stack st = x86_stack_now(c);
	struct x86_seg ss = s->seg[SEG_SS];
	unsigned cpl = c->cpl;
	struct desc d, sd;
	uint64_t sp;
	uint16_t sel;

	handler_desc(c, g, &d);
	if (!desc_is_conforming(&d))
		cpl = desc_dpl(&d);
	if (cpl < c->cpl) {
		x86_tss_stack(c, cpl, 0, &sel, &sp);
		x86_stack_desc(c, sel, cpl, &sd, EXC_TS);
		ss = x86_desc_seg(sel, &sd);
		st = x86_stack_new(c, &ss, sp, cpl);
		st.fresh = true;
	}
	x86_code_check(c, &d, g->sel, g->off);
	if (cpl < c->cpl)
		push_old_stack(c, &st, g->size);
	x86_push(c, &st, pushed_flags(c, ev), g->size);
	x86_push(c, &st, s->seg[SEG_CS].sel, g->size);
	x86_push(c, &st, rip, g->size);
	if (ev->has_error)
		x86_push(c, &st, ev->error, g->size);
	if (cpl < c->cpl)
		x86_desc_accessed(c, &sd);
	enter_handler(c, g, &d, cpl);
	if (x86_vm86(c))
		null_data_segs(c);
	s->seg[SEG_SS] = ss;
	x86_stack_commit(c, &st);
}

static void
deliver(struct soft_cpu *c, const struct event *ev)
{
	uint64_t rip = ev->kind == EVENT_SOFT || ev->kind == EVENT_ICEBP ? ev->rip : c->v.state.rip;
	struct gate g;

	c->event = ev->kind != EVENT_SOFT;
	if (c->mode == X86_REAL) {
		deliver_real(c, ev, rip);
	} else {
		g = read_gate(c, ev);
		if (x86_long(c))
			deliver_long(c, ev, &g, rip);
		else if (g.type == DESC_TASK)
			deliver_task(c, ev, &g, rip);
		else
			deliver_legacy(c, ev, &g, rip);
	}
	if (ev->vector == EXC_DB && ev->kind != EVENT_EXTERNAL)
		c->v.state.dr[7] &= ~(1ULL << 13); /* GD */
	c->v.state.shadow = 0;
	c->event = 0;
	x86_update_mode(c);
}

/* ---- what happens when delivery faults (SDM 3A table 6-5) ---- */

enum event_class { BENIGN, CONTRIBUTORY, PAGE_FAULT, DOUBLE_FAULT };

static enum event_class
class_of(const struct event *ev)
{
	if (ev->kind != EVENT_EXCEPTION)
		return BENIGN;
	if (ev->vector == EXC_DE || (ev->vector >= EXC_TS && ev->vector <= EXC_GP))
		return CONTRIBUTORY;
	return ev->vector == EXC_PF ? PAGE_FAULT : ev->vector == EXC_DF ? DOUBLE_FAULT : BENIGN;
}

static bool
try_deliver(struct soft_cpu *c, const struct event *ev)
{
	if (setjmp(c->fault))
		return false;
	deliver(c, ev);
	return true;
}

static struct event
recorded(const struct soft_cpu *c)
{
	return (struct event){ .vector = c->exc_vector, .has_error = c->exc_has_error, .error = c->exc_error };
}

static bool
deliver_all(struct soft_cpu *c, struct event ev)
{
	while (!try_deliver(c, &ev)) {
		struct event second = recorded(c);
		enum event_class a = class_of(&ev), b = class_of(&second);

		c->event = 0;
		if (unlikely(second.vector == X86_RETRY)) {
			x86_watch_begin(c);
			continue;
		}
		c->v.count.exceptions++;
		if (a == DOUBLE_FAULT)
			return false;
		if ((a == CONTRIBUTORY && b == CONTRIBUTORY) ||
			(a == PAGE_FAULT && (b == CONTRIBUTORY || b == PAGE_FAULT)))
			ev = (struct event){ .vector = EXC_DF, .has_error = true };
		else
			ev = second;
	}
	return true;
}

/* The engine's landing place is put back when delivery is done with `fault`. */
static bool
deliver_event(struct soft_cpu *c, struct event ev)
{
	jmp_buf engine;
	bool ok;

	memcpy(&engine, &c->fault, sizeof(engine));
	ok = deliver_all(c, ev);
	if (unlikely(c->exact))
		x86_watch_end(c);
	memcpy(&c->fault, &engine, sizeof(engine));
	return ok;
}

bool
x86_deliver_exception(struct soft_cpu *c)
{
	c->v.count.exceptions++;
	if (unlikely(c->v.trace))
		cpu_trace(&c->v, CPU_TRACE_EXCEPTION, c->v.state.rip, (unsigned)c->exc_vector);
	c->pending_db = 0;
	c->event = 0;
	return deliver_event(c, recorded(c));
}

bool
x86_deliver_interrupt(struct soft_cpu *c, int vector, bool nmi)
{
	struct event ev = { .vector = nmi ? EXC_NMI : vector, .kind = EVENT_EXTERNAL };

	c->v.count.interrupts++;
	if (nmi)
		c->v.state.nmi_blocked = 1;
	return deliver_event(c, ev);
}

/* ---- INT n, INT3, INTO, INT1 ---- */

void
x86_software_int(struct soft_cpu *c, int vector, enum x86_int_kind kind)
{
	struct event ev = { .vector = vector, .kind = kind == X86_INT1 ? EVENT_ICEBP : EVENT_SOFT, .rip = c->next_rip };

	if (x86_vm86(c) && kind == X86_INT_N) {
		if (vme_redirects(c, vector)) {
			vme_int(c, vector);
			x86_update_mode(c);
			return;
		}
		if (x86_iopl(c) < 3)
			x86_gp(c, 0);
	}
	deliver(c, &ev);
}

/* ---- debug exceptions ---- */

enum { DR6_BS = 1 << 14 };

static _Noreturn void
raise_db(struct soft_cpu *c, uint64_t bits)
{
	uint64_t *dr6 = &c->v.state.dr[6];

	*dr6 = (*dr6 & ~15ULL) | bits;
	x86_raise(c, EXC_DB);
}

void
x86_trap_step(struct soft_cpu *c)
{
	uint64_t bits = c->pending_db;

	if (!bits || c->v.state.rflags & FLAG_TF)
		bits |= DR6_BS;
	c->pending_db = 0;
	raise_db(c, bits);
}

void
x86_check_code_bp(struct soft_cpu *c)
{
	struct x86_state *s = &c->v.state;
	gva_t a = c->mode == X86_LONG64 ? s->rip : (uint32_t)(s->seg[SEG_CS].base + s->rip);
	uint64_t bits = 0;

	if (s->rflags & FLAG_RF) {
		s->rflags &= ~(uint64_t)FLAG_RF;
		return;
	}
	for (int i = 0; i < 4; i++) {
		bool enabled = s->dr[7] >> (2 * i) & 3, exec = !(s->dr[7] >> (16 + 4 * i) & 3);

		if (enabled && exec && s->dr[i] == a)
			bits |= 1u << i;
	}
	if (bits)
		raise_db(c, bits);
}

/* ---- SYSCALL, SYSRET, SYSENTER, SYSEXIT (SDM 2B; AMD APM 3 for their flavour outside 64-bit mode) ---- */

#define ATTR_CODE 0x009bu /* present, code, readable, accessed */
#define ATTR_DATA 0x0093u

/* A flat code or stack segment that no descriptor is read for. `extra`: SEG_L or SEG_DB. */
static void
set_flat(struct soft_cpu *c, enum seg_name seg, uint64_t sel, unsigned dpl, uint32_t extra)
{
	c->v.state.seg[seg] = (struct x86_seg){
		.sel = (uint16_t)(SEL_ERROR(sel) | dpl),
		.attr = (seg == SEG_CS ? ATTR_CODE : ATTR_DATA) | dpl << 5 | SEG_G | extra,
		.limit = UINT32_MAX,
	};
}

void
x86_syscall(struct soft_cpu *c)
{
	struct x86_state *s = &c->v.state;
	uint64_t sel = s->star >> 32;

	if (!(s->efer & EFER_SCE) || !x86_pe(c) || (c->mode != X86_LONG64 && !c->amd))
		x86_ud(c);
	if (x86_long(c)) {
		s->gpr[RCX] = c->next_rip;
		s->gpr[R11] = s->rflags & ~(uint64_t)FLAG_RF;
		s->rip = c->mode == X86_LONG64 ? s->lstar : s->cstar;
		s->rflags = (s->rflags & ~(s->sfmask | FLAG_RF)) | 2;
	} else {
		s->gpr[RCX] = (uint32_t)c->next_rip;
		s->rip = (uint32_t)s->star;
		s->rflags &= ~(uint64_t)(FLAG_VM | FLAG_IF | FLAG_RF);
	}
	set_flat(c, SEG_CS, sel, 0, x86_long(c) ? SEG_L : SEG_DB);
	set_flat(c, SEG_SS, (sel & 0xfffc) + 8, 0, SEG_DB);
	x86_update_mode(c);
}

void
x86_sysret(struct soft_cpu *c, unsigned opsize)
{
	struct x86_state *s = &c->v.state;
	uint64_t sel = s->star >> 48;

	if (!(s->efer & EFER_SCE) || !x86_pe(c) || (c->mode != X86_LONG64 && !c->amd))
		x86_ud(c);
	if (c->cpl)
		x86_gp(c, 0);
	if (opsize == 8 && !c->amd && !x86_canonical(s->gpr[RCX]))
		x86_gp(c, 0);
	s->rip = opsize == 8 ? s->gpr[RCX] : (uint32_t)s->gpr[RCX];
	if (x86_long(c))
		s->rflags = (s->gpr[R11] & 0x3c7fd7 & ~(uint64_t)FLAG_RF) | 2;
	else
		s->rflags |= FLAG_IF;
	if (opsize == 8)
		set_flat(c, SEG_CS, sel + 16, 3, SEG_L);
	else
		set_flat(c, SEG_CS, sel, 3, SEG_DB);
	set_flat(c, SEG_SS, sel + 8, 3, SEG_DB);
	x86_update_mode(c);
}

void
x86_sysenter(struct soft_cpu *c)
{
	struct x86_state *s = &c->v.state;
	bool in_long = x86_long(c);

	if (c->amd && in_long)
		x86_ud(c);
	if (!x86_pe(c) || IS_NULL(s->sysenter_cs))
		x86_gp(c, 0);
	s->rflags &= ~(uint64_t)(FLAG_VM | FLAG_IF | FLAG_RF);
	s->gpr[RSP] = in_long ? s->sysenter_esp : (uint32_t)s->sysenter_esp;
	s->rip = in_long ? s->sysenter_eip : (uint32_t)s->sysenter_eip;
	set_flat(c, SEG_CS, s->sysenter_cs, 0, in_long ? SEG_L : SEG_DB);
	set_flat(c, SEG_SS, (s->sysenter_cs & 0xfffc) + 8, 0, SEG_DB);
	x86_update_mode(c);
}

void
x86_sysexit(struct soft_cpu *c, unsigned opsize)
{
	struct x86_state *s = &c->v.state;
	bool to64 = opsize == 8;

	if (c->amd && x86_long(c))
		x86_ud(c);
	if (!x86_pe(c) || IS_NULL(s->sysenter_cs) || c->cpl)
		x86_gp(c, 0);
	if (to64 && (!x86_canonical(s->gpr[RDX]) || !x86_canonical(s->gpr[RCX])))
		x86_gp(c, 0);
	s->rip = to64 ? s->gpr[RDX] : (uint32_t)s->gpr[RDX];
	s->gpr[RSP] = to64 ? s->gpr[RCX] : (uint32_t)s->gpr[RCX];
	set_flat(c, SEG_CS, (s->sysenter_cs & 0xfffc) + (to64 ? 32 : 16), 3, to64 ? SEG_L : SEG_DB);
	set_flat(c, SEG_SS, (s->sysenter_cs & 0xfffc) + (to64 ? 40 : 24), 3, SEG_DB);
	x86_update_mode(c);
}
