/* SPDX-License-Identifier: Apache-2.0 */
/* Control registers, flags, I/O permission, MSRs and CPUID of the software engines (cpu/x86/{sys,msr,cpuid}.c). */
#include "test/unit/cpu/soft.h"

/* ---- control registers ---- */

static void
cr0_refuses_what_makes_no_sense(void **state)
{
	struct x86_state *s = &c->v.state;

	enter_protected(0);
	RAISES(EXC_GP, 0, x86_write_cr(c, 0, CR0_PG));
	RAISES(EXC_GP, 0, x86_write_cr(c, 0, CR0_PE | CR0_NW));
	RAISES(EXC_GP, 0, x86_write_cr(c, 0, 1ULL << 32 | CR0_PE));
	FINE(x86_write_cr(c, 0, CR0_PE | CR0_TS));
	assert_int_equal(s->cr0, CR0_PE | CR0_TS | CR0_ET);
	FINE(x86_clts(c));
	assert_false(s->cr0 & CR0_TS);
	FINE(x86_lmsw(c, 0xfff0 | CR0_MP));
	assert_int_equal(s->cr0, CR0_PE | CR0_MP | CR0_ET); /* PE stays */
	enter_long(0);
	RAISES(EXC_GP, 0, x86_write_cr(c, 0, CR0_PE)); /* paging off in 64-bit code */
	RAISES(EXC_GP, 0, x86_write_cr(c, 4, c->v.state.cr4 & ~(uint64_t)CR4_PAE));
	enter_protected(3);
	RAISES(EXC_GP, 0, x86_write_cr(c, 0, CR0_PE));
	RAISES(EXC_GP, 0, x86_read_cr(c, 3));
	RAISES(EXC_GP, 0, x86_clts(c));
	TRY(x86_read_cr(c, 1));
	assert_int_equal(caught, EXC_UD);
}

static void
long_mode_is_entered_and_left_through_cr0_pg(void **state)
{
	struct x86_state *s = &c->v.state;

	enter_protected(0);
	put64(0x100000, 0x101000 | 7);
	put64(0x101000, 0x87);
	s->efer = EFER_LME;
	RAISES(EXC_GP, 0, x86_write_cr(c, 0, CR0_PE | CR0_PG)); /* no PAE */
	FINE(x86_write_cr(c, 4, CR4_PAE));
	s->seg[SEG_CS].attr |= SEG_L;
	RAISES(EXC_GP, 0, x86_write_cr(c, 0, CR0_PE | CR0_PG)); /* CS.L */
	s->seg[SEG_CS].attr &= ~SEG_L;
	FINE(x86_write_cr(c, 3, 0x100000));
	FINE(x86_write_cr(c, 0, CR0_PE | CR0_PG));
	assert_int_equal(s->efer, EFER_LME | EFER_LMA);
	assert_int_equal(c->mode, X86_LONG32);
	FINE(x86_far_jump(c, SEL_CODE64, 0x4000, 4));
	assert_int_equal(c->mode, X86_LONG64);
	assert_int_equal(c->code_size, 8);
	FINE(x86_far_jump(c, SEL_CODE0, 0x4000, 4));
	FINE(x86_write_cr(c, 0, CR0_PE));
	assert_int_equal(c->mode, X86_PROT32);
	assert_int_equal(s->efer, EFER_LME);
}

static void
pae_paging_loads_and_checks_its_pdptes(void **state)
{
	struct x86_state *s = &c->v.state;

	enter_protected(0);
	put64(0x100020, 0x200001);
	put64(0x100028, 0x201001);
	FINE(x86_write_cr(c, 4, CR4_PAE));
	FINE(x86_write_cr(c, 3, 0x100020));
	put64(0x200000, 0x83);
	FINE(x86_write_cr(c, 0, CR0_PE | CR0_PG));
	assert_int_equal(s->pdpte[1], 0x201001);
	put64(0x100028, 0x201003); /* W is reserved here */
	RAISES(EXC_GP, 0, x86_write_cr(c, 3, 0x100020));
	assert_int_equal(s->pdpte[1], 0x201001);
}

static void
cr3_and_cr4_know_their_reserved_bits(void **state)
{
	struct x86_state *s = &c->v.state;

	enter_long(0);
	RAISES(EXC_GP, 0, x86_write_cr(c, 3, 1ULL << 52));
	RAISES(EXC_GP, 0, x86_write_cr(c, 3, 1ULL << 63));	 /* no PCIDE */
	RAISES(EXC_GP, 0, x86_write_cr(c, 4, s->cr4 | 1 << 13)); /* VMXE */
	RAISES(EXC_GP, 0, x86_write_cr(c, 4, s->cr4 | CR4_LA57));
	s->cr3 |= 8;
	RAISES(EXC_GP, 0, x86_write_cr(c, 4, s->cr4 | CR4_PCIDE)); /* CR3[11:0] is not 0 */
	s->cr3 &= ~8ULL;
	FINE(x86_write_cr(c, 4, s->cr4 | CR4_PCIDE));
	FINE(x86_write_cr(c, 3, 1ULL << 63 | 0x100000));
	assert_int_equal(s->cr3, 0x100000);
}

static void
debug_registers_alias_guard_and_keep_fixed_bits(void **state)
{
	struct x86_state *s = &c->v.state;

	enter_protected(0);
	FINE(x86_write_dr(c, 6, 0));
	assert_int_equal(s->dr[6], 0xffff0ff0);
	FINE(x86_write_dr(c, 4, 0xffffffff));
	assert_int_equal(s->dr[6], 0xffffefff);
	FINE(x86_write_dr(c, 7, 0xffffdf00));
	assert_int_equal(s->dr[7], 0xffff0700);
	RAISES(EXC_GP, 0, x86_write_dr(c, 7, 1ULL << 32));
	s->cr4 |= CR4_DE;
	TRY(x86_read_dr(c, 5));
	assert_int_equal(caught, EXC_UD);
	FINE(x86_write_dr(c, 6, 0));
	FINE(x86_write_dr(c, 7, 1 << 13));
	TRY(x86_read_dr(c, 0));
	assert_int_equal(caught, EXC_DB);
	assert_true(s->dr[6] & 1 << 13);
}

/* ---- flags ---- */

static void
popf_changes_what_mode_and_privilege_allow(void **state)
{
	const uint64_t all = 0x3f7fd5,
		       user = FLAG_CF | FLAG_PF | FLAG_AF | FLAG_ZF | FLAG_SF | FLAG_TF | FLAG_DF | FLAG_OF | FLAG_NT;
	const struct {
		unsigned cpl, iopl, opsize;
		uint64_t become;
	} t[] = {
		{ 0, 0, 4, user | FLAG_IF | FLAG_IOPL | FLAG_AC | FLAG_ID },
		{ 0, 0, 2, user | FLAG_IF | FLAG_IOPL },
		{ 3, 0, 4, user | FLAG_AC | FLAG_ID },
		{ 3, 3, 4, user | FLAG_IF | FLAG_IOPL | FLAG_AC | FLAG_ID },
		{ 3, 2, 2, user | 2 << 12 },
	};

	for (size_t i = 0; i < ARRAY_LEN(t); i++) {
		enter_protected(t[i].cpl);
		c->v.state.rflags = 2 | (uint64_t)t[i].iopl << 12;
		FINE(x86_popf(c, all, t[i].opsize));
		assert_int_equal(c->v.state.rflags, t[i].become | 2);
		/* and back to nothing: what may not be changed stays */
		FINE(x86_popf(c, 0, t[i].opsize));
		assert_int_equal(c->v.state.rflags & FLAG_IOPL, t[i].cpl ? t[i].iopl << 12 : 0);
	}
}

static void
enter_vm86(unsigned iopl)
{
	enter_protected(0);
	c->v.state.rflags = FLAG_VM | 2 | (uint64_t)iopl << 12;
	x86_update_mode(c);
}

static void
virtual_8086_mode_has_its_own_interrupt_flag(void **state)
{
	struct x86_state *s = &c->v.state;
	uint64_t v;

	enter_vm86(0);
	RAISES(EXC_GP, 0, x86_popf(c, 0, 2));
	RAISES(EXC_GP, 0, x86_pushf_value(c, 2, &v));
	RAISES(EXC_GP, 0, x86_cli(c));
	s->cr4 |= CR4_VME;
	FINE(x86_sti(c));
	assert_int_equal(s->rflags, FLAG_VM | FLAG_VIF | 2);
	FINE(x86_pushf_value(c, 2, &v));
	assert_int_equal(v & 0xffff, FLAG_IF | FLAG_IOPL | 2);
	RAISES(EXC_GP, 0, x86_pushf_value(c, 4, &v));
	FINE(x86_popf(c, FLAG_CF, 2));
	assert_int_equal(s->rflags, FLAG_VM | FLAG_CF | 2);
	s->rflags |= FLAG_VIP;
	RAISES(EXC_GP, 0, x86_sti(c));
	RAISES(EXC_GP, 0, x86_popf(c, FLAG_IF, 2));
	RAISES(EXC_GP, 0, x86_popf(c, FLAG_TF, 2));
	enter_vm86(3);
	FINE(x86_popf(c, FLAG_IF | FLAG_VM, 4));
	assert_int_equal(s->rflags, FLAG_VM | FLAG_IF | FLAG_IOPL | 2);
}

static void
cli_and_sti_ask_iopl_and_sti_casts_a_shadow(void **state)
{
	struct x86_state *s = &c->v.state;

	enter_protected(3);
	RAISES(EXC_GP, 0, x86_sti(c));
	s->cr4 |= CR4_PVI;
	FINE(x86_sti(c));
	assert_int_equal(s->rflags, FLAG_VIF | 2);
	s->cr4 = 0;
	s->rflags = FLAG_IOPL | 2;
	FINE(x86_sti(c));
	assert_int_equal(s->shadow, 1);
	s->shadow = 0;
	FINE(x86_sti(c)); /* IF was set already */
	assert_int_equal(s->shadow, 0);
	FINE(x86_cli(c));
	assert_false(s->rflags & FLAG_IF);
}

static void
the_io_bitmap_is_asked_bit_by_bit(void **state)
{
	struct x86_state *s = &c->v.state;

	enter_protected(3);
	put16(TSS_AT + 102, 0x68);
	memset(ram + TSS_AT + 0x68, 0, 0x180);
	FINE(x86_check_io(c, 0x3f8, 1));
	ram[TSS_AT + 0x68 + 0x3f8 / 8] = 4; /* 0x3fa */
	FINE(x86_check_io(c, 0x3f8, 2));
	RAISES(EXC_GP, 0, x86_check_io(c, 0x3f8, 4));
	RAISES(EXC_GP, 0, x86_check_io(c, 0x3fa, 1));
	ram[TSS_AT + 0x68 + 0x400 / 8] = 1;
	RAISES(EXC_GP, 0, x86_check_io(c, 0x3fd, 4));  /* reaches into the next byte of the map */
	RAISES(EXC_GP, 0, x86_check_io(c, 0xffff, 1)); /* beyond the limit */
	s->rflags |= FLAG_IOPL;
	FINE(x86_check_io(c, 0xffff, 1));
	s->rflags |= FLAG_VM; /* there IOPL does not help */
	x86_update_mode(c);
	RAISES(EXC_GP, 0, x86_check_io(c, 0xffff, 1));
	enter_protected(3);
	s->seg[SEG_TR].attr = 0x83; /* 16-bit: no map */
	RAISES(EXC_GP, 0, x86_check_io(c, 0x3f8, 1));
}

static void
umip_hides_the_descriptor_tables_from_users(void **state)
{
	enter_protected(3);
	FINE(x86_check_umip(c));
	c->v.state.cr4 |= CR4_UMIP;
	RAISES(EXC_GP, 0, x86_check_umip(c));
	enter_protected(0);
	FINE(x86_check_umip(c));
}

static void
what_engines_derive_follows_the_state(void **state)
{
	struct x86_state *s = &c->v.state;
	uint32_t key;

	assert_int_equal(c->mode, X86_REAL);
	assert_int_equal(c->code_size, 2);
	enter_protected(0);
	assert_int_equal(c->flat, 0x3d); /* all but CS, which cannot be written */
	s->cr4 |= CR4_SMAP;
	x86_update_mode(c);
	assert_int_equal(c->mmu, MMU_KERNEL_SMAP);
	x86_set_ac(c, true);
	assert_int_equal(c->mmu, MMU_KERNEL);
	enter_long(3);
	assert_int_equal(c->mmu, MMU_USER);
	assert_int_equal(c->flat, 0x0f);
	key = c->mode_key;
	s->seg[SEG_FS].base = 8;
	x86_update_mode(c);
	assert_int_equal(c->flat, 0x0f);
	assert_int_equal(c->mode_key, key); /* code does not depend on whether FS has a base */
	s->cr0 |= CR0_TS;
	x86_update_mode(c);
	assert_int_not_equal(c->mode_key, key);
}

static void
xsetbv_takes_only_sensible_sets(void **state)
{
	struct x86_state *s = &c->v.state;

	enter_long(0);
	s->gpr[RDX] = 0;
	s->gpr[RAX] = 3;
	TRY(x86_xsetbv(c));
	assert_int_equal(caught, EXC_UD); /* no OSXSAVE */
	s->cr4 |= CR4_OSXSAVE;
	FINE(x86_xsetbv(c));
	s->gpr[RAX] = 2;
	RAISES(EXC_GP, 0, x86_xsetbv(c)); /* without x87 */
	s->gpr[RAX] = 5;
	RAISES(EXC_GP, 0, x86_xsetbv(c)); /* AVX without SSE */
	s->gpr[RAX] = 0x27;
	RAISES(EXC_GP, 0, x86_xsetbv(c)); /* half of AVX-512 */
	s->gpr[RAX] = 0x203;
	RAISES(EXC_GP, 0, x86_xsetbv(c)); /* PKU */
	s->gpr[RCX] = 1;
	s->gpr[RAX] = 3;
	RAISES(EXC_GP, 0, x86_xsetbv(c));
	s->gpr[RCX] = 0;
	FINE(x86_xgetbv(c));
	assert_int_equal(s->gpr[RAX], 3);
}

/* ---- power-on, INIT, SIPI ---- */

static void
reset_init_and_sipi_leave_what_the_table_says(void **state)
{
	struct x86_state *s = &c->v.state;

	assert_int_equal(s->rip, 0xfff0);
	assert_int_equal(s->seg[SEG_CS].base, 0xffff0000);
	assert_int_equal(s->cr0, 0x60000010);
	assert_int_equal(s->gpr[RDX] & 0xf00, 0x600 & s->gpr[RDX]);
	assert_int_equal(s->dr[6], 0xffff0ff0);
	assert_int_equal(s->x87.mxcsr, 0x1f80);
	enter_long(3);
	s->cr0 &= ~(uint64_t)(CR0_CD | CR0_NW);
	s->x87.fcw = 0x37f;
	s->mtrr_def_type = 0xc06;
	s->tsc_adjust = 5;
	x86_init_state(s, false);
	assert_int_equal(s->cr0, CR0_ET);
	assert_int_equal(s->efer, 0);
	assert_int_equal(s->x87.fcw, 0x37f);
	assert_int_equal(s->mtrr_def_type, 0xc06);
	assert_int_equal(s->tsc_adjust, 5);
	x86_sipi_state(s, 0x9a);
	assert_int_equal(s->seg[SEG_CS].sel, 0x9a00);
	assert_int_equal(s->seg[SEG_CS].base, 0x9a000);
	assert_int_equal(s->rip, 0);
}

/* ---- MSRs ---- */

static void
rdmsr(uint32_t msr)
{
	c->v.state.gpr[RCX] = msr;
	x86_rdmsr(c);
}

static void
wrmsr(uint32_t msr, uint64_t v)
{
	c->v.state.gpr[RCX] = msr;
	c->v.state.gpr[RAX] = (uint32_t)v;
	c->v.state.gpr[RDX] = v >> 32;
	x86_wrmsr(c);
}

static uint64_t
edx_eax(void)
{
	return c->v.state.gpr[RAX] | c->v.state.gpr[RDX] << 32;
}

static void
msrs_keep_values_and_refuse_reserved_ones(void **state)
{
	static const struct {
		uint32_t msr;
		uint64_t good, bad;
	} t[] = {
		{ 0x277, 0x0007010600070106, 0x0007010600070102 },
		{ 0x2ff, 0xc06, 0x1000 },
		{ 0x200, 0x80000006, 0x80000002 },
		{ 0x201, 0xff80000800, 1 },
		{ 0x250, 0x0606060606060606, 0x0606060606060602 },
		{ 0x26f, 0x0505050505050505, 3 },
		{ 0xc0000082, 0xffffffff81000000, 0x800000000000 },
		{ 0xc0000084, 0x47700, 1ULL << 32 },
		{ 0xc0000100, 0x7fff12345678, 1ULL << 48 },
		{ 0xc0000102, 0xffff888000000000, 0x0fff888000000000 },
		{ 0xc0000103, 3, 1ULL << 32 },
		{ 0xc0000080, EFER_SCE | EFER_NXE, 1 << 1 },
		{ 0x175, 0xfffffe0000000000, 1ULL << 50 },
	};

	enter_protected(0);
	for (size_t i = 0; i < ARRAY_LEN(t); i++) {
		FINE(wrmsr(t[i].msr, t[i].good));
		FINE(rdmsr(t[i].msr));
		assert_int_equal(edx_eax(), t[i].good);
		RAISES(EXC_GP, 0, wrmsr(t[i].msr, t[i].bad));
		FINE(rdmsr(t[i].msr));
		assert_int_equal(edx_eax(), t[i].good);
	}
	RAISES(EXC_GP, 0, rdmsr(0x12345678));
	RAISES(EXC_GP, 0, wrmsr(0x179, 0));
	RAISES(EXC_GP, 0, rdmsr(0x49)); /* PRED_CMD is write-only */
	enter_long(0);
	RAISES(EXC_GP, 0, wrmsr(0xc0000080, EFER_SCE)); /* LME with paging on */
	enter_protected(3);
	RAISES(EXC_GP, 0, rdmsr(0x10));
}

static void
writing_the_tsc_moves_tsc_adjust(void **state)
{
	uint64_t before;

	enter_protected(0);
	machine_lock(&machine);
	clock_start(&machine.clock);
	machine_unlock(&machine);
	before = x86_rdtsc(c);
	FINE(wrmsr(0x3b, 1ULL << 40));
	assert_true(x86_rdtsc(c) >= before + (1ULL << 40));
	FINE(wrmsr(0x10, 1ULL << 50));
	assert_true(x86_rdtsc(c) - (1ULL << 50) < 1ULL << 36);
	assert_true(c->v.state.tsc_adjust > 1ULL << 49);
	c->v.state.cr4 |= CR4_TSD;
	FINE(x86_rdtsc(c));
	enter_protected(3);
	RAISES(EXC_GP, 0, x86_rdtsc(c));
}

/* ---- CPUID ---- */

static struct cpu_model model;

static const uint32_t *
cpuid(uint32_t leaf, uint32_t sub)
{
	static uint32_t out[4];

	x86_cpuid_lookup(&model, &c->v.state, 2, 6, true, leaf, sub, out);
	return out;
}

static void
cpuid_never_shows_what_is_not_carried(void **state)
{
	static const char *const names[] = { "host", "x86-64", "x86-64-v2", "x86-64-v3", "x86-64-v4" };

	for (size_t i = 0; i < ARRAY_LEN(names); i++) {
		assert_true(x86_model_known(names[i]));
		x86_model_init(&model, names[i], true, 6, 2000000000);
		assert_int_equal(cpuid(1, 0)[2] & (1 << 3 | 1 << 5 | 1 << 15), 0);	     /* MONITOR, VMX, PDCM */
		assert_int_equal(cpuid(7, 0)[1] & (1 << 2 | 1 << 4 | 1 << 11 | 1 << 14), 0); /* SGX HLE RTM MPX */
		assert_int_equal(cpuid(7, 0)[2] & (1 << 3 | 1 << 7 | 1 << 16), 0);	     /* PKU, CET, LA57 */
		assert_int_equal(cpuid(7, 0)[3] & (7 << 22 & ~(1 << 23)), 0);		     /* AMX */
		assert_int_equal(cpuid(0xa, 0)[0], 0);					     /* no PMU */
		assert_int_equal(cpuid(0x80000001, 0)[2] & 4, 0);			     /* SVM */
		assert_true(cpuid(1, 0)[2] >> 31);
		assert_true(cpuid(0x80000001, 0)[3] >> 29 & 1);
		assert_int_equal(model.xcr0_supported & ~0xe7ULL, 0);
		assert_true(model.leaf_count < (int)ARRAY_LEN(model.leaf));
		assert_true(cpuid(0x80000007, 0)[3] >> 8 & 1);
	}
	assert_false(x86_model_known("pentium"));
}

static void
baselines_grow_and_do_not_depend_on_the_host(void **state)
{
	x86_model_init(&model, "x86-64", true, 1, 2000000000);
	assert_int_equal(cpuid(0, 0)[1], 0x756e6547);
	assert_int_equal(cpuid(1, 0)[2] & 1 << 28, 0);
	assert_int_equal(cpuid(1, 0)[2] & 1 << 20, 0);
	assert_int_equal(model.xcr0_supported, 1);
	assert_false(model.cr4_supported & CR4_OSXSAVE);
	x86_model_init(&model, "x86-64-v2", true, 1, 2000000000);
	assert_int_equal(cpuid(1, 0)[2] & 1 << 28, 0);
	assert_int_equal(cpuid(7, 0)[1] & 1 << 5, 0);
	x86_model_init(&model, "x86-64-v3", true, 1, 2000000000);
	assert_int_equal(cpuid(7, 0)[1] & 1 << 16, 0);
	assert_int_equal(model.xcr0_supported & ~7ULL, 0);
}

static void
topology_leaves_agree_on_six_cores(void **state)
{
	x86_model_init(&model, "x86-64-v3", true, 6, 2000000000);
	assert_int_equal(cpuid(1, 0)[1] >> 24, 2);
	assert_int_equal(cpuid(1, 0)[1] >> 16 & 0xff, 8);
	assert_true(cpuid(1, 0)[3] >> 28 & 1);
	assert_int_equal(cpuid(4, 0)[0] >> 26, 7);
	assert_int_equal(cpuid(0xb, 0)[0], 0);
	assert_int_equal(cpuid(0xb, 0)[1], 1);
	assert_int_equal(cpuid(0xb, 0)[2], 0x100);
	assert_int_equal(cpuid(0xb, 1)[0], 3);
	assert_int_equal(cpuid(0xb, 1)[1], 6);
	assert_int_equal(cpuid(0xb, 1)[2], 0x201);
	assert_int_equal(cpuid(0xb, 1)[3], 2);
	assert_int_equal(cpuid(0xb, 2)[2], 2);
	assert_int_equal(cpuid(0xb, 2)[1], 0);
}

static void
clock_leaves_give_the_tsc_rate_within_a_millionth(void **state)
{
	static const uint64_t rates[] = { 2000000000, 2893202000, 3599999123, 1000000000, 999999999, 2445424000,
		3400000001 };

	for (size_t i = 0; i < ARRAY_LEN(rates); i++) {
		const uint32_t *l;
		uint64_t hz;

		x86_model_init(&model, "x86-64-v3", true, 1, rates[i]);
		l = cpuid(0x15, 0);
		/* as Linux computes it, in 32 bits */
		hz = (uint64_t)(uint32_t)(l[2] / 1000 * l[1]) / l[0] * 1000;
		assert_true(hz < rates[i] + rates[i] / 1000000 && hz > rates[i] - rates[i] / 1000000);
		assert_int_equal(cpuid(0x40000010, 0)[0], rates[i] / 1000);
	}
	assert_memory_equal(cpuid(0x40000000, 0) + 1, "LodgeLodgeLo", 12);
}

static void
dynamic_bits_follow_the_cpu(void **state)
{
	struct x86_state *s = &c->v.state;
	uint32_t out[4];

	x86_model_init(&model, "host", true, 1, 2000000000);
	assert_false(cpuid(1, 0)[2] >> 27 & 1);
	s->cr4 |= CR4_OSXSAVE;
	assert_true(cpuid(1, 0)[2] >> 27 & 1);
	x86_cpuid_lookup(&model, s, 0, 1, false, 1, 0, out);
	assert_false(out[3] >> 9 & 1);
	s->xcr0 = 3;
	assert_int_equal(cpuid(0xd, 0)[1], 576);
	if (model.xcr0_supported & 4) {
		s->xcr0 = 7;
		assert_int_equal(cpuid(0xd, 0)[1], 832);
		assert_int_equal(cpuid(0xd, 2)[0], 256);
		assert_int_equal(cpuid(0xd, 2)[1], 576);
	}
	if (model.xcr0_supported & 0xe0) {
		s->xcr0 = 0xe7;
		assert_int_equal(cpuid(0xd, 0)[1], cpuid(0xd, 0)[2]);
	}
	assert_int_equal(cpuid(0x7fffffff, 0)[0], 0);
	assert_int_equal(cpuid(7, 99)[1], 0);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(cr0_refuses_what_makes_no_sense),
		TEST(long_mode_is_entered_and_left_through_cr0_pg),
		TEST(pae_paging_loads_and_checks_its_pdptes),
		TEST(cr3_and_cr4_know_their_reserved_bits),
		TEST(debug_registers_alias_guard_and_keep_fixed_bits),
		TEST(popf_changes_what_mode_and_privilege_allow),
		TEST(virtual_8086_mode_has_its_own_interrupt_flag),
		TEST(cli_and_sti_ask_iopl_and_sti_casts_a_shadow),
		TEST(the_io_bitmap_is_asked_bit_by_bit),
		TEST(umip_hides_the_descriptor_tables_from_users),
		TEST(what_engines_derive_follows_the_state),
		TEST(xsetbv_takes_only_sensible_sets),
		TEST(reset_init_and_sipi_leave_what_the_table_says),
		TEST(msrs_keep_values_and_refuse_reserved_ones),
		TEST(writing_the_tsc_moves_tsc_adjust),
		TEST(cpuid_never_shows_what_is_not_carried),
		TEST(baselines_grow_and_do_not_depend_on_the_host),
		TEST(topology_leaves_agree_on_six_cores),
		TEST(clock_leaves_give_the_tsc_rate_within_a_millionth),
		TEST(dynamic_bits_follow_the_cpu),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
