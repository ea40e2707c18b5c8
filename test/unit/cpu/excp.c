/* SPDX-License-Identifier: Apache-2.0 */
/* Exceptions, interrupts, debug traps and fast system calls of the software engines (cpu/x86/excp.c). */
#include "test/unit/cpu/soft.h"

#define SEL SEL_FREE

static void
idt32(int vector, uint16_t sel, uint32_t off, uint32_t type)
{
	put64(IDT_AT + 8 * (uint64_t)vector, gate(sel, off, type, 0));
}

static void
idt64(int vector, uint16_t sel, uint64_t off, uint32_t type, unsigned ist)
{
	put64(IDT_AT + 16 * (uint64_t)vector, gate(sel, (uint32_t)off, type, ist));
	put64(IDT_AT + 16 * (uint64_t)vector + 8, off >> 32);
}

/* As an engine does: an exception comes out of an instruction and is delivered. */
static bool
take(int vector, bool has_error, uint32_t error)
{
	c->exc_vector = vector;
	c->exc_has_error = has_error;
	c->exc_error = error;
	return x86_deliver_exception(c);
}

/* ---- frames ---- */

static void
real_mode_pushes_three_words(void **state)
{
	struct x86_state *s = &c->v.state;

	s->idt = (struct x86_table){ 0, 0x3ff };
	s->gpr[RSP] = 0x8000;
	s->rip = 0x1234;
	s->seg[SEG_CS] = (struct x86_seg){ .sel = 0x100, .base = 0x1000, .limit = 0xffff, .attr = 0x9b };
	s->rflags = FLAG_IF | FLAG_TF | FLAG_CF | 2;
	x86_update_mode(c);
	put32(4 * 6, 0xabcd1111);
	assert_true(take(EXC_UD, false, 0));
	assert_int_equal(s->rip, 0x1111);
	assert_int_equal(s->seg[SEG_CS].base, 0xabcd0);
	assert_int_equal(s->gpr[RSP], 0x8000 - 6);
	assert_int_equal(get16(0x7ffa), 0x1234);
	assert_int_equal(get16(0x7ffc), 0x100);
	assert_int_equal(get16(0x7ffe), FLAG_IF | FLAG_TF | FLAG_CF | 2);
	assert_int_equal(s->rflags, FLAG_CF | 2);
	/* an IDT that is too short for #DF as well shuts the CPU down */
	s->idt.limit = 0x10;
	assert_false(take(EXC_GP, true, 0));
}

static void
a_protected_mode_fault_pushes_its_error_code_and_rf(void **state)
{
	struct x86_state *s = &c->v.state;

	enter_protected(0);
	idt32(EXC_GP, SEL_CODE0, 0x8000, 0x8e);
	s->rflags = FLAG_IF | 2;
	assert_true(take(EXC_GP, true, 0x18));
	assert_int_equal(s->rip, 0x8000);
	assert_int_equal(s->gpr[RSP], STACK_AT - 16);
	assert_int_equal(get32(STACK_AT - 16), 0x18);
	assert_int_equal(get32(STACK_AT - 12), 0x100);
	assert_int_equal(get32(STACK_AT - 8), SEL_CODE0);
	assert_int_equal(get32(STACK_AT - 4), FLAG_IF | FLAG_RF | 2);
	assert_int_equal(s->rflags, 2);
	/* a trap gate leaves IF; a trap (#DB) pushes no RF */
	enter_protected(0);
	idt32(EXC_DB, SEL_CODE0, 0x8000, 0x8f);
	s->rflags = FLAG_IF | FLAG_TF | FLAG_NT | 2;
	s->dr[7] |= 1 << 13;
	assert_true(take(EXC_DB, false, 0));
	assert_int_equal(s->rflags, FLAG_IF | 2);
	assert_int_equal(get32(STACK_AT - 4), FLAG_IF | FLAG_TF | FLAG_NT | 2);
	assert_int_equal(s->dr[7], 0x400);
}

static void
a_16_bit_gate_pushes_words(void **state)
{
	enter_protected(0);
	idt32(EXC_GP, SEL_CODE0, 0xffff8000, 0x86);
	assert_true(take(EXC_GP, true, 0x18));
	assert_int_equal(c->v.state.rip, 0x8000);
	assert_int_equal(c->v.state.gpr[RSP], STACK_AT - 8);
	assert_int_equal(get16(STACK_AT - 8), 0x18);
}

static void
an_interrupt_from_user_mode_switches_to_the_tss_stack(void **state)
{
	struct x86_state *s = &c->v.state;

	enter_protected(3);
	put32(TSS_AT + 4, 0xa000);
	put32(TSS_AT + 8, SEL_DATA0);
	idt32(0x20, SEL_CODE0, 0x8000, 0x8e);
	s->rflags = FLAG_IF | 2;
	assert_true(x86_deliver_interrupt(c, 0x20, false));
	assert_int_equal(c->cpl, 0);
	assert_int_equal(s->gpr[RSP], 0xa000 - 20);
	assert_int_equal(get32(0xa000 - 4), SEL_DATA3);
	assert_int_equal(get32(0xa000 - 8), STACK_AT);
	assert_int_equal(get32(0xa000 - 12), FLAG_IF | 2);
	assert_int_equal(get32(0xa000 - 16), SEL_CODE3);
	assert_int_equal(get32(0xa000 - 20), 0x100);
	FINE(x86_iret(c, 4));
	assert_int_equal(c->cpl, 3);
	assert_int_equal(s->rip, 0x100);
	assert_int_equal(s->gpr[RSP], STACK_AT);
}

static void
an_interrupt_out_of_virtual_8086_mode_saves_and_clears_all_segments(void **state)
{
	struct x86_state *s = &c->v.state;

	enter_protected(0);
	put32(TSS_AT + 4, 0xa000);
	put32(TSS_AT + 8, SEL_DATA0);
	idt32(EXC_GP, SEL_CODE0, 0x8000, 0x8e);
	s->rflags = FLAG_VM | FLAG_IF | 2;
	for (int i = 0; i < 6; i++)
		s->seg[i] = (struct x86_seg){ .sel = (uint16_t)(0x100 * (i + 1)), .limit = 0xffff, .attr = 0xf3 };
	s->gpr[RSP] = 0xfff0;
	x86_update_mode(c);
	assert_true(take(EXC_GP, true, 0));
	assert_int_equal(c->mode, X86_PROT32);
	assert_int_equal(c->cpl, 0);
	assert_int_equal(s->gpr[RSP], 0xa000 - 40);
	assert_int_equal(get32(0xa000 - 4), 0x600);  /* GS */
	assert_int_equal(get32(0xa000 - 16), 0x100); /* ES */
	assert_int_equal(get32(0xa000 - 20), 0x300); /* SS */
	assert_int_equal(get32(0xa000 - 28), FLAG_VM | FLAG_IF | FLAG_RF | 2);
	assert_int_equal(get32(0xa000 - 32), 0x200);
	assert_true(s->seg[SEG_DS].attr & SEG_UNUSABLE);
	/* the handler has to be at level 0 */
	enter_protected(3);
	s->rflags = FLAG_VM | FLAG_IOPL | 2;
	x86_update_mode(c);
	idt32(0x21, SEL_CODE3, 0x8000, 0xee);
	RAISES(EXC_GP, SEL_CODE3 & ~3, x86_software_int(c, 0x21, X86_INT_N));
}

static void
long_mode_aligns_the_stack_and_always_saves_it(void **state)
{
	struct x86_state *s = &c->v.state;

	enter_long(0);
	idt64(EXC_PF, SEL_CODE64, 0xffffffff81000000, 0x8e, 0);
	s->gpr[RSP] = STACK_AT + 5;
	assert_true(take(EXC_PF, true, 2));
	assert_int_equal(s->rip, 0xffffffff81000000);
	assert_int_equal(s->gpr[RSP], STACK_AT - 48);
	assert_int_equal(get64(STACK_AT - 48), 2);
	assert_int_equal(get64(STACK_AT - 40), 0x100);
	assert_int_equal(get64(STACK_AT - 16), STACK_AT + 5);
	assert_int_equal(get64(STACK_AT - 8), SEL_DATA0);
	assert_int_equal(s->seg[SEG_SS].sel, SEL_DATA0); /* same level: kept */
}

static void
long_mode_takes_rsp0_or_the_ist_stack(void **state)
{
	struct x86_state *s = &c->v.state;

	enter_long(3);
	put64(TSS_AT + 4, 0xa000);
	put64(TSS_AT + 36, 0xb000);
	put64(TSS_AT + 36 + 48, 0xc000);
	idt64(0x30, SEL_CODE64, 0x8000, 0x8e, 0);
	idt64(EXC_NMI, SEL_CODE64, 0x8000, 0x8e, 1);
	idt64(EXC_DF, SEL_CODE64, 0x8000, 0x8e, 7);
	assert_true(x86_deliver_interrupt(c, 0x30, false));
	assert_int_equal(s->gpr[RSP], 0xa000 - 40);
	assert_int_equal(s->seg[SEG_SS].sel, 0);
	assert_int_equal(c->cpl, 0);
	assert_true(x86_deliver_interrupt(c, EXC_NMI, true));
	assert_int_equal(s->gpr[RSP], 0xb000 - 40);
	assert_int_equal(s->nmi_blocked, 1);
	assert_true(take(EXC_DF, true, 0));
	assert_int_equal(s->gpr[RSP], 0xc000 - 48);
	/* IRET from compatibility mode's user level too */
	enter_long(3);
	set_seg(SEG_CS, SEL_CODE3, 0xc0fa);
	x86_update_mode(c);
	assert_int_equal(c->mode, X86_LONG32);
	assert_true(x86_deliver_interrupt(c, 0x30, false));
	assert_int_equal(c->mode, X86_LONG64);
	FINE(x86_iret(c, 8));
	assert_int_equal(c->mode, X86_LONG32);
	assert_int_equal(s->gpr[RSP], STACK_AT);
}

static void
a_task_gate_pushes_the_error_code_in_the_new_task(void **state)
{
	struct x86_state *s = &c->v.state;

	enter_protected(0);
	memset(ram + TSS2_AT, 0, 0x68);
	put32(TSS2_AT + 32, 0x6000);
	put32(TSS2_AT + 56, 0xb000);
	for (unsigned i = 0; i < 6; i++)
		put32(TSS2_AT + 72 + 4 * i, i == SEG_CS ? SEL_CODE0 : SEL_DATA0);
	idt32(EXC_DF, SEL_TSS2, 0, 0x85);
	assert_true(take(EXC_DF, true, 0));
	assert_int_equal(s->rip, 0x6000);
	assert_int_equal(s->gpr[RSP], 0xb000 - 4);
	assert_int_equal(get32(0xb000 - 4), 0);
	assert_true(s->rflags & FLAG_NT);
	assert_int_equal(get16(TSS2_AT), SEL_TSS);
	assert_int_equal(get32(TSS_AT + 32), 0x100);
}

/* ---- gates that are refused ---- */

static void
bad_gates_raise_gp_or_np_with_idt_and_ext_bits(void **state)
{
	enter_protected(0);
	/* the handler of #GP is fine, the interrupt's gate is not: what #GP gets is the error code */
	idt32(EXC_GP, SEL_CODE0, 0x8000, 0x8e);
	idt32(EXC_NP, SEL_CODE0, 0x8000, 0x8e);
	idt32(0x40, SEL_CODE0, 0x9000, 0x8c); /* a call gate */
	assert_true(x86_deliver_interrupt(c, 0x40, false));
	assert_int_equal(c->v.state.rip, 0x8000);
	assert_int_equal(get32(STACK_AT - 16), 0x40 * 8 + 2 + 1);
	enter_protected(0);
	idt32(0x40, SEL_CODE0, 0x9000, 0x0e); /* not present */
	assert_true(x86_deliver_interrupt(c, 0x40, false));
	assert_int_equal(get32(STACK_AT - 16), 0x40 * 8 + 2 + 1);
	/* software interrupts: the same without EXT, and the gate's DPL counts */
	enter_protected(3);
	idt32(0x40, SEL_CODE0, 0x9000, 0x8e);
	RAISES(EXC_GP, 0x40 * 8 + 2, x86_software_int(c, 0x40, X86_INT_N));
	idt32(0x40, SEL_CODE0, 0x9000, 0x6e);
	RAISES(EXC_NP, 0x40 * 8 + 2, x86_software_int(c, 0x40, X86_INT_N));
	c->v.state.idt.limit = 0x40 * 8 + 6;
	RAISES(EXC_GP, 0x40 * 8 + 2, x86_software_int(c, 0x40, X86_INT_N));
	/* INT1 does not look at the DPL */
	put32(TSS_AT + 4, 0xa000);
	put32(TSS_AT + 8, SEL_DATA0);
	idt32(EXC_DB, SEL_CODE0, 0x9000, 0x8e);
	FINE(x86_software_int(c, EXC_DB, X86_INT1));
	assert_int_equal(get32(0xa000 - 20), 0x102); /* the instruction behind it */
	/* long mode knows no 16-bit gates */
	enter_long(0);
	idt64(0x40, SEL_CODE64, 0x9000, 0x86, 0);
	RAISES(EXC_GP, 0x40 * 8 + 2, x86_software_int(c, 0x40, X86_INT_N));
}

static void
virtual_8086_int_n_follows_iopl_and_the_redirection_bitmap(void **state)
{
	struct x86_state *s = &c->v.state;

	enter_protected(0);
	s->rflags = FLAG_VM | FLAG_VIF | 2;
	for (int i = 0; i < 6; i++)
		s->seg[i] = (struct x86_seg){ .sel = 0x1000, .base = 0x10000, .limit = 0xffff, .attr = 0xf3 };
	s->gpr[RSP] = 0x8000;
	x86_update_mode(c);
	RAISES(EXC_GP, 0, x86_software_int(c, 0x10, X86_INT_N));
	s->cr4 |= CR4_VME;
	put16(TSS_AT + 102, 0x88);
	memset(ram + TSS_AT + 0x68, 0, 32);
	put32(4 * 0x10, 0xc0001234);
	FINE(x86_software_int(c, 0x10, X86_INT_N));
	assert_int_equal(c->mode, X86_VM86);
	assert_int_equal(s->rip, 0x1234);
	assert_int_equal(s->seg[SEG_CS].base, 0xc0000);
	assert_int_equal(get16(0x10000 + 0x8000 - 2), FLAG_IF | FLAG_IOPL | 2);
	assert_false(s->rflags & FLAG_VIF);
	/* a set bit sends it to the monitor */
	ram[TSS_AT + 0x68 + 2] = 1;
	RAISES(EXC_GP, 0, x86_software_int(c, 0x10, X86_INT_N));
}

/* ---- double and triple faults (SDM 3A table 6-5) ---- */

static void
faults_during_delivery_combine_as_the_table_says(void **state)
{
	/* The first vector's gate names a code segment that makes its delivery raise `second`. */
	static const struct {
		int first, second, result;
	} t[] = {
		{ EXC_UD, EXC_GP, EXC_GP },
		{ EXC_UD, EXC_NP, EXC_NP },
		{ EXC_UD, EXC_PF, EXC_PF },
		{ EXC_DE, EXC_GP, EXC_DF },
		{ EXC_DE, EXC_NP, EXC_DF },
		{ EXC_DE, EXC_PF, EXC_PF },
		{ EXC_NP, EXC_GP, EXC_DF },
		{ EXC_SS, EXC_NP, EXC_DF },
		{ EXC_TS, EXC_GP, EXC_DF },
		{ EXC_PF, EXC_GP, EXC_DF },
		{ EXC_PF, EXC_NP, EXC_DF },
		{ EXC_PF, EXC_PF, EXC_DF },
		{ EXC_AC, EXC_GP, EXC_GP },
		{ EXC_DB, EXC_PF, EXC_PF },
	};

	for (size_t i = 0; i < ARRAY_LEN(t); i++) {
		uint64_t missing = 2ULL << 30; /* not mapped by enter_long() */

		enter_long(0);
		memset(ram + IDT_AT, 0, 0x1000);
		for (int v = 0; v < 32; v++)
			idt64(v, SEL_CODE64, 0x8000 + 16 * (unsigned)v, 0x8e, 0);
		put64(TSS_AT + 36, missing);
		if (t[i].second == EXC_GP)
			idt64(t[i].first, SEL_DATA0, 0x7000, 0x8e, 0);
		else if (t[i].second == EXC_NP)
			idt64(t[i].first, SEL_CODE64, 0x7000, 0x0e, 0);
		else
			idt64(t[i].first, SEL_CODE64, 0x7000, 0x8e, 1); /* a stack that is not there */
		if (t[i].first == t[i].result)
			continue;
		assert_true(take(t[i].first, t[i].first != EXC_UD && t[i].first != EXC_DE && t[i].first != EXC_DB, 0));
		assert_int_equal(c->v.state.rip, 0x8000 + 16 * t[i].result);
		if (t[i].result == EXC_DF)
			assert_int_equal(get64(STACK_AT - 48), 0);
		if (t[i].second == EXC_PF)
			assert_int_equal(c->v.state.cr2, missing - 8);
	}
}

static void
a_fault_in_the_double_fault_is_the_end(void **state)
{
	enter_protected(0);
	memset(ram + IDT_AT, 0, 0x1000);
	assert_false(take(EXC_GP, true, 0));
	/* an external interrupt is benign, whatever its number: #GP, then the double fault, then the end */
	idt32(EXC_GP, SEL_CODE0, 0x8000, 0x8e);
	assert_true(x86_deliver_interrupt(c, EXC_PF, false));
	assert_int_equal(c->v.state.rip, 0x8000);
}

static void
the_engines_landing_place_survives_a_delivery(void **state)
{
	volatile int landed = 0;

	enter_protected(0);
	idt32(EXC_GP, SEL_CODE0, 0x8000, 0x8e);
	if (!setjmp(c->fault)) {
		assert_true(x86_deliver_interrupt(c, 0x50, false));
		x86_ud(c);
	} else {
		landed = 1;
	}
	assert_int_equal(landed, 1);
	assert_int_equal(c->exc_vector, EXC_UD);
}

/* ---- debug ---- */

static void
single_steps_and_breakpoints_report_in_dr6(void **state)
{
	struct x86_state *s = &c->v.state;

	enter_protected(0);
	s->rflags |= FLAG_TF;
	TRY(x86_trap_step(c));
	assert_int_equal(caught, EXC_DB);
	assert_int_equal(s->dr[6], 0xffff0ff0 | 1 << 14);
	s->rflags &= ~(uint64_t)FLAG_TF;
	c->pending_db = 2;
	s->dr[6] = 0xffff0ff0;
	TRY(x86_trap_step(c));
	assert_int_equal(s->dr[6], 0xffff0ff2);
	assert_int_equal(c->pending_db, 0);
	/* an instruction breakpoint is a fault, once, unless RF says it was seen */
	s->dr[0] = 0x100;
	FINE(x86_write_dr(c, 7, 0x401));
	assert_true(c->code_bp);
	TRY(x86_check_code_bp(c));
	assert_int_equal(caught, EXC_DB);
	assert_int_equal(s->dr[6] & 15, 1);
	s->rflags |= FLAG_RF;
	FINE(x86_check_code_bp(c));
	assert_false(s->rflags & FLAG_RF);
	s->rip = 0x101;
	FINE(x86_check_code_bp(c));
}

/* ---- SYSCALL and friends ---- */

static void
syscall_and_sysret_swap_worlds(void **state)
{
	struct x86_state *s = &c->v.state;

	enter_long(3);
	c->amd = false;
	s->star = 0x0023ULL << 48 | (uint64_t)SEL_CODE64 << 32;
	s->lstar = 0xffffffff81000000;
	s->sfmask = FLAG_IF | FLAG_TF | FLAG_AC;
	s->rflags = FLAG_IF | FLAG_AC | FLAG_CF | 2;
	FINE(x86_syscall(c));
	assert_int_equal(c->cpl, 0);
	assert_int_equal(c->mode, X86_LONG64);
	assert_int_equal(s->rip, 0xffffffff81000000);
	assert_int_equal(s->gpr[RCX], 0x102);
	assert_int_equal(s->gpr[R11], FLAG_IF | FLAG_AC | FLAG_CF | 2);
	assert_int_equal(s->rflags, FLAG_CF | 2);
	assert_int_equal(s->seg[SEG_CS].sel, SEL_CODE64);
	assert_int_equal(s->seg[SEG_SS].sel, SEL_CODE64 + 8);
	FINE(x86_sysret(c, 8));
	assert_int_equal(c->cpl, 3);
	assert_int_equal(s->rip, 0x102);
	assert_int_equal(s->rflags, FLAG_IF | FLAG_AC | FLAG_CF | 2);
	assert_int_equal(s->seg[SEG_CS].sel, 0x33);
	assert_int_equal(s->seg[SEG_SS].sel, 0x2b);
	RAISES(EXC_GP, 0, x86_sysret(c, 8));
	FINE(x86_syscall(c));
	FINE(x86_sysret(c, 4));
	assert_int_equal(c->mode, X86_LONG32);
	TRY(x86_syscall(c)); /* Intel: not from compatibility mode */
	assert_int_equal(caught, EXC_UD);
	c->amd = true;
	s->cstar = 0x5555;
	FINE(x86_syscall(c));
	assert_int_equal(s->rip, 0x5555);
	c->amd = false;
	s->gpr[RCX] = 0x800000000000;
	RAISES(EXC_GP, 0, x86_sysret(c, 8));
	s->efer &= ~(uint64_t)EFER_SCE;
	TRY(x86_syscall(c));
	assert_int_equal(caught, EXC_UD);
}

static void
sysenter_and_sysexit_use_their_msrs(void **state)
{
	struct x86_state *s = &c->v.state;

	enter_protected(3);
	c->amd = false;
	RAISES(EXC_GP, 0, x86_sysenter(c));
	s->sysenter_cs = SEL_CODE0;
	s->sysenter_esp = 0xa000;
	s->sysenter_eip = 0x8000;
	s->rflags = FLAG_IF | 2;
	FINE(x86_sysenter(c));
	assert_int_equal(c->cpl, 0);
	assert_int_equal(c->mode, X86_PROT32);
	assert_int_equal(s->rip, 0x8000);
	assert_int_equal(s->gpr[RSP], 0xa000);
	assert_int_equal(s->rflags, 2);
	s->gpr[RDX] = 0x1234;
	s->gpr[RCX] = 0x7000;
	FINE(x86_sysexit(c, 4));
	assert_int_equal(c->cpl, 3);
	assert_int_equal(s->rip, 0x1234);
	assert_int_equal(s->gpr[RSP], 0x7000);
	assert_int_equal(s->seg[SEG_CS].sel, (SEL_CODE0 + 16) | 3);
	RAISES(EXC_GP, 0, x86_sysexit(c, 4));
	enter_long(0);
	s->gpr[RDX] = 0x800000000000;
	RAISES(EXC_GP, 0, x86_sysexit(c, 8));
	s->gpr[RDX] = 0x7fff00000000;
	FINE(x86_sysexit(c, 8));
	assert_int_equal(c->mode, X86_LONG64);
	FINE(x86_sysenter(c));
	assert_int_equal(c->mode, X86_LONG64);
	c->amd = true;
	TRY(x86_sysenter(c));
	assert_int_equal(caught, EXC_UD);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(real_mode_pushes_three_words),
		TEST(a_protected_mode_fault_pushes_its_error_code_and_rf),
		TEST(a_16_bit_gate_pushes_words),
		TEST(an_interrupt_from_user_mode_switches_to_the_tss_stack),
		TEST(an_interrupt_out_of_virtual_8086_mode_saves_and_clears_all_segments),
		TEST(long_mode_aligns_the_stack_and_always_saves_it),
		TEST(long_mode_takes_rsp0_or_the_ist_stack),
		TEST(a_task_gate_pushes_the_error_code_in_the_new_task),
		TEST(bad_gates_raise_gp_or_np_with_idt_and_ext_bits),
		TEST(virtual_8086_int_n_follows_iopl_and_the_redirection_bitmap),
		TEST(faults_during_delivery_combine_as_the_table_says),
		TEST(a_fault_in_the_double_fault_is_the_end),
		TEST(the_engines_landing_place_survives_a_delivery),
		TEST(single_steps_and_breakpoints_report_in_dr6),
		TEST(syscall_and_sysret_swap_worlds),
		TEST(sysenter_and_sysexit_use_their_msrs),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
