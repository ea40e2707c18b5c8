/* SPDX-License-Identifier: Apache-2.0 */
/* Segments, far transfers, gates, tasks and IRET of the software engines (cpu/x86/seg.c). */
#include "test/unit/cpu/soft.h"

#define SEL SEL_FREE

/* ---- segment loads ---- */

static void
loading_a_segment_checks_type_privilege_and_presence(void **state)
{
	static const struct {
		unsigned cpl;
		enum seg_name seg;
		uint32_t attr;
		unsigned rpl;
		int vector; /* -1: loads */
	} t[] = {
		{ 0, SEG_DS, 0xc092, 0, -1 },
		{ 0, SEG_DS, 0xc090, 0, -1 },
		{ 0, SEG_DS, 0xc09a, 0, -1 },
		{ 0, SEG_DS, 0xc098, 0, EXC_GP }, /* execute-only */
		{ 0, SEG_DS, 0xc012, 0, EXC_NP },
		{ 0, SEG_DS, 0x0089, 0, EXC_GP }, /* a TSS */
		{ 0, SEG_DS, 0xc0f2, 3, -1 },
		{ 0, SEG_DS, 0xc092, 3, EXC_GP }, /* RPL > DPL */
		{ 3, SEG_DS, 0xc092, 0, EXC_GP }, /* CPL > DPL */
		{ 3, SEG_ES, 0xc09e, 3, -1 },	  /* conforming readable code: any level */
		{ 3, SEG_FS, 0xc0d2, 3, EXC_GP },
		{ 0, SEG_SS, 0xc092, 0, -1 },
		{ 0, SEG_SS, 0xc090, 0, EXC_GP }, /* read-only */
		{ 0, SEG_SS, 0xc09a, 0, EXC_GP },
		{ 0, SEG_SS, 0xc092, 3, EXC_GP },
		{ 0, SEG_SS, 0xc0f2, 0, EXC_GP },
		{ 0, SEG_SS, 0xc012, 0, EXC_SS },
		{ 3, SEG_SS, 0xc0f2, 3, -1 },
	};

	for (size_t i = 0; i < ARRAY_LEN(t); i++) {
		uint16_t sel = (uint16_t)(SEL | t[i].rpl);

		enter_protected(t[i].cpl);
		gdt_set(SEL, descriptor(0x12345678, 0x9abcd, t[i].attr));
		TRY(x86_load_seg(c, t[i].seg, sel));
		assert_int_equal(caught, t[i].vector);
		if (caught >= 0) {
			assert_int_equal(c->exc_error, SEL);
			assert_int_equal(ram[GDT_AT + SEL + 5], t[i].attr & 0xff);
			continue;
		}
		assert_int_equal(c->v.state.seg[t[i].seg].sel, sel);
		assert_int_equal(c->v.state.seg[t[i].seg].base, 0x12345678);
		assert_int_equal(c->v.state.seg[t[i].seg].limit, 0x9abcdfff);
		assert_int_equal(c->v.state.seg[t[i].seg].attr, t[i].attr | 1);
		assert_true(ram[GDT_AT + SEL + 5] & 1); /* accessed */
	}
}

static void
selectors_beyond_their_table_raise_gp(void **state)
{
	enter_protected(0);
	RAISES(EXC_GP, 0x1000, x86_load_seg(c, SEG_DS, 0x1003));
	RAISES(EXC_GP, 0x104, x86_load_seg(c, SEG_DS, 0x104));
	put64(LDT_AT + 8, descriptor(0x1000, 0xff, 0x92));
	FINE(x86_load_seg(c, SEG_DS, 0x0c));
	assert_int_equal(c->v.state.seg[SEG_DS].base, 0x1000);
	FINE(x86_lldt(c, 0));
	RAISES(EXC_GP, 0x0c, x86_load_seg(c, SEG_DS, 0x0c));
}

static void
a_null_selector_loads_but_cannot_be_used(void **state)
{
	enter_protected(0);
	FINE(x86_load_seg(c, SEG_DS, 3));
	assert_true(c->v.state.seg[SEG_DS].attr & SEG_UNUSABLE);
	RAISES(EXC_GP, 0, x86_linear(c, SEG_DS, 0, 1, X86_READ));
	RAISES(EXC_GP, 0, x86_load_seg(c, SEG_SS, 0));
	enter_long(0);
	FINE(x86_load_seg(c, SEG_SS, 0));
	assert_int_equal(c->cpl, 0);
	RAISES(EXC_GP, 0, x86_load_seg(c, SEG_SS, 3));
	enter_long(3);
	RAISES(EXC_GP, 0, x86_load_seg(c, SEG_SS, 3));
	c->v.state.seg[SEG_GS].base = 0x1234;
	FINE(x86_load_seg(c, SEG_GS, 0));
	assert_int_equal(c->v.state.seg[SEG_GS].base, 0);
}

static void
limits_hold_in_both_directions(void **state)
{
	enter_protected(0);
	gdt_set(SEL, descriptor(0x1000, 0xfff, 0x4092));
	FINE(x86_load_seg(c, SEG_DS, SEL));
	FINE(assert_int_equal(x86_linear(c, SEG_DS, 0xffc, 4, X86_READ), 0x1ffc));
	RAISES(EXC_GP, 0, x86_linear(c, SEG_DS, 0xffd, 4, X86_READ));
	RAISES(EXC_GP, 0, x86_linear(c, SEG_DS, 0xffffffff, 4, X86_READ));
	/* expand-down: valid above the limit, up to 64 KiB or 4 GiB */
	gdt_set(SEL, descriptor(0, 0xfff, 0x0096));
	FINE(x86_load_seg(c, SEG_DS, SEL));
	RAISES(EXC_GP, 0, x86_linear(c, SEG_DS, 0xfff, 1, X86_READ));
	FINE(x86_linear(c, SEG_DS, 0x1000, 1, X86_READ));
	FINE(x86_linear(c, SEG_DS, 0xfffc, 4, X86_READ));
	RAISES(EXC_GP, 0, x86_linear(c, SEG_DS, 0xfffd, 4, X86_READ));
	gdt_set(SEL, descriptor(0, 0xfff, 0x4096));
	FINE(x86_load_seg(c, SEG_DS, SEL));
	FINE(x86_linear(c, SEG_DS, 0xfffffffc, 4, X86_READ));
	/* rights, and #SS for the stack */
	gdt_set(SEL, descriptor(0, 0xffff, 0x0090));
	FINE(x86_load_seg(c, SEG_DS, SEL));
	RAISES(EXC_GP, 0, x86_linear(c, SEG_DS, 0, 1, X86_WRITE));
	FINE(x86_load_seg(c, SEG_SS, SEL_DATA16));
	RAISES(EXC_SS, 0, x86_linear(c, SEG_SS, 0x10000, 1, X86_READ));
	enter_long(0);
	RAISES(EXC_GP, 0, x86_linear(c, SEG_DS, 0x800000000000, 1, X86_READ));
	RAISES(EXC_GP, 0, x86_linear(c, SEG_DS, 0x7fffffffffff, 2, X86_READ));
	RAISES(EXC_SS, 0, x86_linear(c, SEG_SS, 0x800000000000, 1, X86_READ));
}

static void
real_mode_keeps_the_limit_it_had(void **state)
{
	c->v.state.seg[SEG_DS].limit = 0xffffffff;
	FINE(x86_load_seg(c, SEG_DS, 0x1234));
	assert_int_equal(c->v.state.seg[SEG_DS].base, 0x12340);
	assert_int_equal(c->v.state.seg[SEG_DS].limit, 0xffffffff);
	FINE(assert_int_equal(x86_linear(c, SEG_DS, 0x100000, 4, X86_WRITE), 0x112340));
	FINE(x86_load_seg(c, SEG_ES, 0xb800));
	RAISES(EXC_GP, 0, x86_linear(c, SEG_ES, 0x10000, 1, X86_READ));
}

/* ---- far JMP, CALL, RET ---- */

static void
far_jumps_check_the_code_segment(void **state)
{
	static const struct {
		unsigned cpl, rpl;
		uint32_t attr;
		int vector;
	} t[] = {
		{ 0, 0, 0xc09a, -1 },
		{ 0, 3, 0xc09a, EXC_GP },
		{ 3, 3, 0xc09a, EXC_GP },
		{ 3, 3, 0xc0fa, -1 },
		{ 3, 0, 0xc0fa, -1 },
		{ 3, 3, 0xc09e, -1 },
		{ 0, 0, 0xc0fe, EXC_GP },
		{ 0, 0, 0xc01a, EXC_NP },
		{ 0, 0, 0xc092, EXC_GP },
	};

	for (size_t i = 0; i < ARRAY_LEN(t); i++) {
		enter_protected(t[i].cpl);
		gdt_set(SEL, descriptor(0, 0xfffff, t[i].attr));
		TRY(x86_far_jump(c, (uint16_t)(SEL | t[i].rpl), 0x4567, 4));
		assert_int_equal(caught, t[i].vector);
		if (caught >= 0) {
			assert_int_equal(c->exc_error, SEL);
			assert_int_equal(c->v.state.rip, 0x100);
			continue;
		}
		assert_int_equal(c->v.state.rip, 0x4567);
		assert_int_equal(c->v.state.seg[SEG_CS].sel, SEL | t[i].cpl);
		assert_int_equal(c->cpl, t[i].cpl);
	}
	enter_protected(0);
	RAISES(EXC_GP, 0, x86_far_jump(c, 0, 0, 4));
	RAISES(EXC_GP, 0, x86_far_jump(c, SEL_CODE16, 0x10000, 4));
	FINE(x86_far_jump(c, SEL_CODE16, 0x1234, 2));
	assert_int_equal(c->mode, X86_PROT16);
	enter_long(0);
	gdt_set(SEL, descriptor(0, 0xfffff, 0xe09a)); /* L and D */
	RAISES(EXC_GP, SEL, x86_far_jump(c, SEL, 0, 4));
	FINE(x86_far_jump(c, SEL_CODE0, 0x1234, 4));
	assert_int_equal(c->mode, X86_LONG32);
}

static void
far_call_and_return_restore_each_other(void **state)
{
	static const unsigned sizes[] = { 2, 4, 8 };

	for (int i = 0; i < 3; i++) {
		unsigned size = sizes[i];

		if (size == 8)
			enter_long(0);
		else
			enter_protected(0);
		FINE(x86_far_call(c, size == 8 ? SEL_CODE64 : SEL_CODE0, 0x4000, size));
		assert_int_equal(c->v.state.rip, 0x4000);
		assert_int_equal(c->v.state.gpr[RSP], STACK_AT - 2 * size);
		assert_int_equal(get16(STACK_AT - 2 * size), 0x102);
		assert_int_equal(get16(STACK_AT - size), size == 8 ? SEL_CODE64 : SEL_CODE0);
		FINE(x86_far_ret(c, size, 0x20));
		assert_int_equal(c->v.state.rip, 0x102);
		assert_int_equal(c->v.state.gpr[RSP], STACK_AT + 0x20);
	}
}

static void
a_far_return_outwards_takes_the_stack_and_drops_data_segments(void **state)
{
	struct x86_state *s = &c->v.state;

	enter_protected(0);
	s->gpr[RSP] = STACK_AT - 24;
	put32(STACK_AT - 24, 0x5000);
	put32(STACK_AT - 20, SEL_CODE3);
	put32(STACK_AT - 8, 0x7000); /* two parameters in between */
	put32(STACK_AT - 4, SEL_DATA3);
	FINE(x86_load_seg(c, SEG_ES, SEL_DATA3));
	FINE(x86_far_ret(c, 4, 8));
	assert_int_equal(c->cpl, 3);
	assert_int_equal(s->rip, 0x5000);
	assert_int_equal(s->gpr[RSP], 0x7008);
	assert_int_equal(s->seg[SEG_SS].sel, SEL_DATA3);
	assert_true(s->seg[SEG_DS].attr & SEG_UNUSABLE); /* was DPL 0 */
	assert_int_equal(s->seg[SEG_ES].sel, SEL_DATA3);
	/* inwards is refused */
	put32(0x7008, 0x1000);
	put32(0x700c, SEL_CODE0);
	RAISES(EXC_GP, SEL_CODE0, x86_far_ret(c, 4, 0));
}

/* ---- call gates ---- */

static void
a_call_gate_inwards_switches_stacks_and_copies_parameters(void **state)
{
	struct x86_state *s = &c->v.state;

	enter_protected(3);
	gdt_set(SEL, gate(SEL_CODE0, 0x8000, 0xec, 3));
	put32(TSS_AT + 4, 0xa000);
	put32(TSS_AT + 8, SEL_DATA0);
	put32(STACK_AT, 0x11111111);
	put32(STACK_AT + 4, 0x22222222);
	put32(STACK_AT + 8, 0x33333333);
	FINE(x86_far_call(c, SEL | 3, 0xdead, 4));
	assert_int_equal(c->cpl, 0);
	assert_int_equal(s->rip, 0x8000);
	assert_int_equal(s->seg[SEG_CS].sel, SEL_CODE0);
	assert_int_equal(s->seg[SEG_SS].sel, SEL_DATA0);
	assert_int_equal(s->gpr[RSP], 0xa000 - 28);
	assert_int_equal(get32(0xa000 - 4), SEL_DATA3);
	assert_int_equal(get32(0xa000 - 8), STACK_AT);
	assert_int_equal(get32(0xa000 - 12), 0x33333333);
	assert_int_equal(get32(0xa000 - 20), 0x11111111);
	assert_int_equal(get32(0xa000 - 24), SEL_CODE3);
	assert_int_equal(get32(0xa000 - 28), 0x102);
	/* and back, dropping the parameters on both stacks */
	FINE(x86_far_ret(c, 4, 12));
	assert_int_equal(c->cpl, 3);
	assert_int_equal(s->gpr[RSP], STACK_AT + 12);
}

static void
call_gates_refuse_what_the_manual_lists(void **state)
{
	enter_protected(3);
	put32(TSS_AT + 4, 0xa000);
	put32(TSS_AT + 8, SEL_DATA0);
	gdt_set(SEL, gate(SEL_CODE0, 0x8000, 0x8c, 0)); /* gate DPL 0 */
	RAISES(EXC_GP, SEL, x86_far_call(c, SEL | 3, 0, 4));
	gdt_set(SEL, gate(SEL_CODE0, 0x8000, 0x6c, 0)); /* not present */
	RAISES(EXC_NP, SEL, x86_far_call(c, SEL | 3, 0, 4));
	gdt_set(SEL, gate(0, 0x8000, 0xec, 0));
	RAISES(EXC_GP, 0, x86_far_call(c, SEL | 3, 0, 4));
	gdt_set(SEL, gate(SEL_DATA0, 0x8000, 0xec, 0));
	RAISES(EXC_GP, SEL_DATA0, x86_far_call(c, SEL | 3, 0, 4));
	gdt_set(SEL, gate(SEL_CODE0, 0x8000, 0xec, 0));
	RAISES(EXC_GP, SEL_CODE0, x86_far_jump(c, SEL | 3, 0, 4)); /* JMP may not change CPL */
	put32(TSS_AT + 8, 0);
	RAISES(EXC_TS, 0, x86_far_call(c, SEL | 3, 0, 4));
	put32(TSS_AT + 8, SEL_DATA3);
	RAISES(EXC_TS, SEL_DATA3 & ~3, x86_far_call(c, SEL | 3, 0, 4));
	put32(TSS_AT + 8, SEL_CODE0);
	RAISES(EXC_TS, SEL_CODE0, x86_far_call(c, SEL | 3, 0, 4));
	put32(TSS_AT + 8, SEL_DATA0);
	c->v.state.seg[SEG_TR].limit = 8;
	RAISES(EXC_TS, SEL_TSS, x86_far_call(c, SEL | 3, 0, 4));
	assert_int_equal(c->cpl, 3);
	assert_int_equal(c->v.state.gpr[RSP], STACK_AT);
}

static void
a_16_bit_call_gate_copies_words(void **state)
{
	struct x86_state *s = &c->v.state;

	enter_protected(3);
	gdt_set(SEL, gate(SEL_CODE0, 0xffff8000, 0xe4, 1));
	put32(TSS_AT + 4, 0xa000);
	put32(TSS_AT + 8, SEL_DATA0);
	put16(STACK_AT, 0x1111);
	FINE(x86_far_call(c, SEL | 3, 0, 4));
	assert_int_equal(s->rip, 0x8000);
	assert_int_equal(s->gpr[RSP], 0xa000 - 10);
	assert_int_equal(get16(0xa000 - 2), SEL_DATA3);
	assert_int_equal(get16(0xa000 - 6), 0x1111);
	assert_int_equal(get16(0xa000 - 10), 0x102);
}

static void
a_64_bit_call_gate_takes_rsp_from_the_tss(void **state)
{
	struct x86_state *s = &c->v.state;

	enter_long(3);
	gdt_set(SEL, gate(SEL_CODE64, 0x8000, 0xec, 0));
	put64(GDT_AT + SEL + 8, 0);
	put64(TSS_AT + 4, 0xa000);
	FINE(x86_far_call(c, SEL | 3, 0, 4));
	assert_int_equal(c->mode, X86_LONG64);
	assert_int_equal(c->cpl, 0);
	assert_int_equal(s->gpr[RSP], 0xa000 - 32);
	assert_int_equal(get64(0xa000 - 8), SEL_DATA3);
	assert_int_equal(get64(0xa000 - 16), STACK_AT);
	assert_int_equal(get64(0xa000 - 24), SEL_USER64);
	assert_int_equal(get64(0xa000 - 32), 0x102);
	assert_true(s->seg[SEG_SS].attr & SEG_UNUSABLE);
	/* the upper half's type field is not 0 */
	enter_long(3);
	gdt_set(SEL, gate(SEL_CODE64, 0x8000, 0xec, 0));
	put64(GDT_AT + SEL + 8, 0x0100ULL << 32);
	RAISES(EXC_GP, SEL, x86_far_call(c, SEL | 3, 0, 4));
	/* a target that is not 64-bit code */
	gdt_set(SEL, gate(SEL_CODE0, 0x8000, 0xec, 0));
	put64(GDT_AT + SEL + 8, 0);
	RAISES(EXC_GP, SEL_CODE0, x86_far_call(c, SEL | 3, 0, 4));
}

/* ---- task switches ---- */

static void
tss32(uint32_t at, uint32_t eip, uint32_t eflags, unsigned cpl)
{
	static const uint16_t sels[] = { SEL_DATA0, SEL_CODE0, SEL_DATA0, SEL_DATA0, SEL_DATA0, SEL_DATA0 };

	memset(ram + at, 0, 0x68);
	put32(at + 32, eip);
	put32(at + 36, eflags);
	for (unsigned i = 0; i < 8; i++)
		put32(at + 40 + 4 * i, 0x1000 * (i + 1));
	for (unsigned i = 0; i < 6; i++)
		put32(at + 72 + 4 * i, cpl ? (i == SEG_CS ? SEL_CODE3 : SEL_DATA3) : sels[i]);
	put32(at + 96, SEL_LDT);
}

static unsigned
desc_type_byte(uint16_t sel)
{
	return ram[GDT_AT + sel + 5];
}

static void
a_task_call_and_iret_go_there_and_back(void **state)
{
	struct x86_state *s = &c->v.state;

	enter_protected(0);
	tss32(TSS2_AT, 0x6000, 2, 3);
	s->gpr[RAX] = 0xaaaa;
	s->rflags |= FLAG_CF;
	FINE(x86_far_call(c, SEL_TSS2, 0, 4));
	assert_int_equal(s->rip, 0x6000);
	assert_int_equal(c->cpl, 3);
	assert_int_equal(s->gpr[RAX], 0x1000);
	assert_int_equal(s->gpr[RSP], 0x5000);
	assert_int_equal(s->rflags, FLAG_NT | 2);
	assert_true(s->cr0 & CR0_TS);
	assert_int_equal(s->seg[SEG_TR].sel, SEL_TSS2);
	assert_int_equal(s->seg[SEG_TR].attr, 0x8b);
	assert_int_equal(get16(TSS2_AT), SEL_TSS);
	assert_int_equal(desc_type_byte(SEL_TSS), 0x8b); /* both busy */
	assert_int_equal(desc_type_byte(SEL_TSS2), 0x8b);
	assert_int_equal(get32(TSS_AT + 32), 0x102);
	assert_int_equal(get32(TSS_AT + 36), FLAG_CF | 2);
	assert_int_equal(get32(TSS_AT + 40), 0xaaaa);
	put32(TSS_AT + 28, s->cr3);
	put32(TSS_AT + 96, SEL_LDT);
	c->next_rip = 0x6002;
	FINE(x86_iret(c, 4));
	assert_int_equal(s->rip, 0x102);
	assert_int_equal(c->cpl, 0);
	assert_int_equal(s->gpr[RAX], 0xaaaa);
	assert_int_equal(s->rflags, FLAG_CF | 2);
	assert_int_equal(desc_type_byte(SEL_TSS2), 0x89);
	assert_int_equal(desc_type_byte(SEL_TSS), 0x8b);
	assert_false(get32(TSS2_AT + 36) & FLAG_NT);
	assert_int_equal(get32(TSS2_AT + 32), 0x6002);
}

static void
a_task_jump_leaves_no_way_back(void **state)
{
	struct x86_state *s = &c->v.state;

	enter_protected(0);
	tss32(TSS2_AT, 0x6000, 2, 0);
	put16(TSS2_AT + 100, 1); /* T */
	s->dr[7] = 0x4ff;
	gdt_set(SEL, gate(SEL_TSS2, 0, 0x85, 0));
	FINE(x86_far_jump(c, SEL, 0, 4)); /* through a task gate */
	assert_int_equal(s->rip, 0x6000);
	assert_int_equal(desc_type_byte(SEL_TSS), 0x89);
	assert_int_equal(desc_type_byte(SEL_TSS2), 0x8b);
	assert_false(s->rflags & FLAG_NT);
	assert_int_equal(c->pending_db, 1 << 15);
	assert_int_equal(s->dr[7] & 0xff, 0xaa);
}

static void
a_16_bit_task_loads_words(void **state)
{
	struct x86_state *s = &c->v.state;

	enter_protected(0);
	gdt_set(SEL_TSS2, descriptor(TSS2_AT, 0x2b, 0x81));
	memset(ram + TSS2_AT, 0, 0x2c);
	put16(TSS2_AT + 14, 0x6000);
	put16(TSS2_AT + 16, 2);
	put16(TSS2_AT + 18, 0x1234);
	put16(TSS2_AT + 26, 0x8000);
	put16(TSS2_AT + 34, SEL_DATA16);
	put16(TSS2_AT + 36, SEL_CODE16);
	put16(TSS2_AT + 38, SEL_DATA16);
	put16(TSS2_AT + 40, SEL_DATA16);
	FINE(x86_far_jump(c, SEL_TSS2, 0, 4));
	assert_int_equal(c->mode, X86_PROT16);
	assert_int_equal(s->rip, 0x6000);
	assert_int_equal(s->gpr[RAX] & 0xffff, 0x1234);
	assert_int_equal(s->gpr[RSP] & 0xffff, 0x8000);
	assert_true(s->seg[SEG_FS].attr & SEG_UNUSABLE);
}

static void
task_switches_check_the_tss_before_and_the_segments_after(void **state)
{
	enter_protected(0);
	tss32(TSS2_AT, 0x6000, 2, 0);
	gdt_set(SEL_TSS2, descriptor(TSS2_AT, 0x66, 0x89)); /* too short */
	RAISES(EXC_TS, SEL_TSS2, x86_far_jump(c, SEL_TSS2, 0, 4));
	gdt_set(SEL_TSS2, descriptor(TSS2_AT, 0x67, 0x8b)); /* busy */
	RAISES(EXC_GP, SEL_TSS2, x86_far_jump(c, SEL_TSS2, 0, 4));
	gdt_set(SEL_TSS2, descriptor(TSS2_AT, 0x67, 0x09));
	RAISES(EXC_NP, SEL_TSS2, x86_far_jump(c, SEL_TSS2, 0, 4));
	assert_int_equal(c->v.state.rip, 0x100);
	/* a bad SS is found in the new task */
	gdt_set(SEL_TSS2, descriptor(TSS2_AT, 0x67, 0x89));
	put16(TSS2_AT + 72 + 4 * SEG_SS, SEL_CODE0);
	RAISES(EXC_TS, SEL_CODE0, x86_far_jump(c, SEL_TSS2, 0, 4));
	assert_int_equal(c->v.state.rip, 0x6000);
	assert_int_equal(c->v.state.seg[SEG_TR].sel, SEL_TSS2);
	/* an IRET with NT whose link is not a busy TSS */
	enter_protected(0);
	c->v.state.rflags |= FLAG_NT;
	put16(TSS_AT, SEL_TSS2);
	gdt_set(SEL_TSS2, descriptor(TSS2_AT, 0x67, 0x89));
	RAISES(EXC_TS, SEL_TSS2, x86_iret(c, 4));
}

static void
a_task_switch_into_virtual_8086_mode_makes_8086_segments(void **state)
{
	enter_protected(0);
	tss32(TSS2_AT, 0x600, FLAG_VM | 2, 0);
	put16(TSS2_AT + 72 + 4 * SEG_CS, 0x1234);
	FINE(x86_far_jump(c, SEL_TSS2, 0, 4));
	assert_int_equal(c->mode, X86_VM86);
	assert_int_equal(c->cpl, 3);
	assert_int_equal(c->v.state.seg[SEG_CS].base, 0x12340);
}

/* ---- IRET ---- */

static void
push32(unsigned n, const uint32_t *words)
{
	for (unsigned i = 0; i < n; i++)
		put32(STACK_AT + 4 * i, words[i]);
}

static void
iret_at_the_same_level_leaves_the_stack_segment(void **state)
{
	struct x86_state *s = &c->v.state;

	enter_protected(0);
	push32(3, (uint32_t[]){ 0x777, SEL_CODE0, FLAG_IF | FLAG_CF | FLAG_IOPL | FLAG_ID | 2 });
	s->nmi_blocked = 1;
	FINE(x86_iret(c, 4));
	assert_int_equal(s->rip, 0x777);
	assert_int_equal(s->gpr[RSP], STACK_AT + 12);
	assert_int_equal(s->rflags, FLAG_IF | FLAG_CF | FLAG_IOPL | FLAG_ID | 2);
	assert_int_equal(s->nmi_blocked, 0);
}

static void
iret_to_an_outer_level_changes_flags_by_the_old_privilege(void **state)
{
	struct x86_state *s = &c->v.state;

	enter_protected(0);
	push32(5, (uint32_t[]){ 0x777, SEL_CODE3, FLAG_IF | FLAG_IOPL | 2, 0x7000, SEL_DATA3 });
	FINE(x86_iret(c, 4));
	assert_int_equal(c->cpl, 3);
	assert_int_equal(s->rflags, FLAG_IF | FLAG_IOPL | 2);
	assert_int_equal(s->gpr[RSP], 0x7000);
	assert_true(s->seg[SEG_DS].attr & SEG_UNUSABLE);
	/* CPL 3, IOPL 0: IF, IOPL, VM stay */
	enter_protected(3);
	s->rflags = FLAG_IF | 2;
	push32(3, (uint32_t[]){ 0x777, SEL_CODE3, FLAG_IOPL | FLAG_VM | FLAG_ZF | 2 });
	FINE(x86_iret(c, 4));
	assert_int_equal(s->rflags, FLAG_IF | FLAG_ZF | 2);
	assert_int_equal(c->mode, X86_PROT32);
	/* inwards is refused */
	push32(3, (uint32_t[]){ 0x777, SEL_CODE0, 2 });
	s->gpr[RSP] = STACK_AT;
	RAISES(EXC_GP, SEL_CODE0, x86_iret(c, 4));
}

static void
iret_with_vm_set_enters_virtual_8086_mode(void **state)
{
	struct x86_state *s = &c->v.state;

	enter_protected(0);
	push32(9, (uint32_t[]){ 0x777, 0x1000, FLAG_VM | FLAG_IF | FLAG_IOPL | 2, 0xfff0, 0x2000, 0x3000, 0x4000,
			  0x5000, 0x6000 });
	FINE(x86_iret(c, 4));
	assert_int_equal(c->mode, X86_VM86);
	assert_int_equal(s->seg[SEG_CS].base, 0x10000);
	assert_int_equal(s->seg[SEG_SS].base, 0x20000);
	assert_int_equal(s->seg[SEG_ES].base, 0x30000);
	assert_int_equal(s->seg[SEG_GS].base, 0x60000);
	assert_int_equal(s->gpr[RSP], 0xfff0);
	/* in virtual-8086 mode IRET needs IOPL 3 */
	put16(0x2fff0, 0x888);
	put16(0x2fff2, 0x1111);
	put16(0x2fff4, FLAG_CF);
	FINE(x86_iret(c, 2));
	assert_int_equal(s->rip, 0x888);
	assert_int_equal(s->seg[SEG_CS].base, 0x11110);
	assert_int_equal(s->rflags, FLAG_VM | FLAG_IOPL | FLAG_CF | 2);
	s->rflags &= ~(uint64_t)FLAG_IOPL;
	RAISES(EXC_GP, 0, x86_iret(c, 2));
	/* with VME it works on VIF */
	s->cr4 |= CR4_VME;
	s->gpr[RSP] = 0xfff0;
	put16(0x2fff4, FLAG_IF);
	FINE(x86_iret(c, 2));
	assert_int_equal(s->rflags, FLAG_VM | FLAG_VIF | 2);
	s->rflags |= FLAG_VIP;
	s->gpr[RSP] = 0xfff0;
	RAISES(EXC_GP, 0, x86_iret(c, 2));
}

static void
push_frame64(uint64_t rip, uint64_t cs, uint64_t flags, uint64_t rsp, uint64_t ss)
{
	uint64_t w[] = { rip, cs, flags, rsp, ss };

	for (int i = 0; i < 5; i++)
		put64(STACK_AT + 8 * (uint64_t)i, w[i]);
	c->v.state.gpr[RSP] = STACK_AT;
}

static void
iret_in_64_bit_mode_always_pops_the_stack(void **state)
{
	struct x86_state *s = &c->v.state;

	enter_long(0);
	push_frame64(0x123456789a, SEL_CODE64, 2, 0x7000, 0);
	FINE(x86_iret(c, 8));
	assert_int_equal(s->rip, 0x123456789a);
	assert_int_equal(s->gpr[RSP], 0x7000);
	assert_true(s->seg[SEG_SS].attr & SEG_UNUSABLE);
	assert_int_equal(c->cpl, 0);
	/* to user code; the null SS is not for it */
	push_frame64(0x4000, SEL_USER64, FLAG_IF, 0x7fff00000000, SEL_DATA3);
	FINE(x86_iret(c, 8));
	assert_int_equal(c->cpl, 3);
	assert_int_equal(c->mmu, MMU_USER);
	assert_int_equal(s->gpr[RSP], 0x7fff00000000);
	enter_long(0);
	push_frame64(0x4000, SEL_USER64, FLAG_IF, 0x7000, 3);
	RAISES(EXC_GP, 0, x86_iret(c, 8));
	/* to compatibility mode */
	push_frame64(0x4000, SEL_CODE3, FLAG_IF, 0x7000, SEL_DATA3);
	FINE(x86_iret(c, 8));
	assert_int_equal(c->mode, X86_LONG32);
	assert_int_equal(c->cpl, 3);
	/* NT and non-canonical targets */
	enter_long(0);
	push_frame64(0x800000000000, SEL_CODE64, 2, 0x7000, SEL_DATA0);
	RAISES(EXC_GP, 0, x86_iret(c, 8));
	s->rflags |= FLAG_NT;
	push_frame64(0x4000, SEL_CODE64, 2, 0x7000, SEL_DATA0);
	RAISES(EXC_GP, 0, x86_iret(c, 8));
}

static void
iret_to_a_16_bit_stack_leaves_the_upper_half_of_esp(void **state)
{
	enter_protected(0);
	gdt_set(SEL, descriptor(0, 0xffff, 0x00f2));
	c->v.state.gpr[RSP] = STACK_AT;
	push32(5, (uint32_t[]){ 0x777, SEL_CODE3, 2, 0x12347000, SEL | 3 });
	FINE(x86_iret(c, 4));
	assert_int_equal(c->v.state.gpr[RSP], (STACK_AT & 0xffff0000) | 0x7000);
}

/* ---- LTR, LLDT, LAR, LSL, VERR, VERW ---- */

static void
ltr_and_lldt_take_only_their_kind(void **state)
{
	enter_protected(0);
	RAISES(EXC_GP, 0, x86_ltr(c, 0));
	RAISES(EXC_GP, SEL_TSS, x86_ltr(c, SEL_TSS)); /* busy */
	RAISES(EXC_GP, SEL_LDT, x86_ltr(c, SEL_LDT));
	FINE(x86_ltr(c, SEL_TSS2));
	assert_int_equal(desc_type_byte(SEL_TSS2), 0x8b);
	assert_int_equal(c->v.state.seg[SEG_TR].base, TSS2_AT);
	RAISES(EXC_GP, SEL_DATA0, x86_lldt(c, SEL_DATA0));
	gdt_set(SEL, descriptor(0x100, 0xf, 0x02));
	RAISES(EXC_NP, SEL, x86_lldt(c, SEL));
	enter_protected(3);
	RAISES(EXC_GP, 0, x86_ltr(c, SEL_TSS2));
	enter_long(0);
	put64(GDT_AT + SEL_LDT + 8, 0xffff8000);
	FINE(x86_lldt(c, SEL_LDT));
	assert_int_equal(c->v.state.seg[SEG_LDTR].base, 0xffff800000000000 | LDT_AT);
	c->v.state.cr0 &= ~(uint64_t)CR0_PE;
	c->v.state.efer = 0;
	x86_update_mode(c);
	TRY(x86_lldt(c, SEL_LDT));
	assert_int_equal(caught, EXC_UD);
}

static void
lar_lsl_verr_and_verw_answer_without_faulting(void **state)
{
	uint32_t v;

	enter_protected(3);
	gdt_set(SEL, descriptor(0, 0x12345, 0xc0f2));
	assert_true(x86_lar(c, SEL | 3, &v));
	assert_int_equal(v, 0x00c0f200);
	assert_true(x86_lsl(c, SEL | 3, &v));
	assert_int_equal(v, 0x12345fff);
	assert_true(x86_verify(c, SEL | 3, false));
	assert_true(x86_verify(c, SEL | 3, true));
	assert_false(x86_lar(c, 0, &v));
	assert_false(x86_lar(c, 0x1000, &v));
	assert_false(x86_lar(c, SEL_DATA0, &v)); /* DPL 0 */
	assert_false(x86_verify(c, SEL_CODE3, true));
	gdt_set(SEL, descriptor(0, 0, 0xc09c)); /* conforming, execute-only */
	assert_true(x86_lar(c, SEL | 3, &v));
	assert_false(x86_verify(c, SEL | 3, false));
	gdt_set(SEL, gate(SEL_CODE0, 0, 0xec, 0));
	assert_true(x86_lar(c, SEL | 3, &v));
	assert_false(x86_lsl(c, SEL | 3, &v));
	gdt_set(SEL, gate(SEL_CODE0, 0, 0xee, 0)); /* interrupt gate */
	assert_false(x86_lar(c, SEL | 3, &v));
	enter_long(0);
	gdt_set(SEL, descriptor(0, 0x67, 0x81));
	assert_false(x86_lar(c, SEL, &v)); /* 16-bit TSS */
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(loading_a_segment_checks_type_privilege_and_presence),
		TEST(selectors_beyond_their_table_raise_gp),
		TEST(a_null_selector_loads_but_cannot_be_used),
		TEST(limits_hold_in_both_directions),
		TEST(real_mode_keeps_the_limit_it_had),
		TEST(far_jumps_check_the_code_segment),
		TEST(far_call_and_return_restore_each_other),
		TEST(a_far_return_outwards_takes_the_stack_and_drops_data_segments),
		TEST(a_call_gate_inwards_switches_stacks_and_copies_parameters),
		TEST(call_gates_refuse_what_the_manual_lists),
		TEST(a_16_bit_call_gate_copies_words),
		TEST(a_64_bit_call_gate_takes_rsp_from_the_tss),
		TEST(a_task_call_and_iret_go_there_and_back),
		TEST(a_task_jump_leaves_no_way_back),
		TEST(a_16_bit_task_loads_words),
		TEST(task_switches_check_the_tss_before_and_the_segments_after),
		TEST(a_task_switch_into_virtual_8086_mode_makes_8086_segments),
		TEST(iret_at_the_same_level_leaves_the_stack_segment),
		TEST(iret_to_an_outer_level_changes_flags_by_the_old_privilege),
		TEST(iret_with_vm_set_enters_virtual_8086_mode),
		TEST(iret_in_64_bit_mode_always_pops_the_stack),
		TEST(iret_to_a_16_bit_stack_leaves_the_upper_half_of_esp),
		TEST(ltr_and_lldt_take_only_their_kind),
		TEST(lar_lsl_verr_and_verw_answer_without_faulting),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
