/* SPDX-License-Identifier: Apache-2.0 */
/* Paging of the software engines (cpu/x86/mmu.c) against the rules of SDM 3A chapter 4, spelled out anew here. */
#include "test/unit/cpu/soft.h"

#define NX (1ULL << 63)
enum { P = 1, W = 2, U = 4, A = 32, D = 64, PS = 128, G = 256 };

enum paging { P32_4K, P32_4M, PAE_4K, PAE_2M, LONG_4K, LONG_2M, LONG_1G, PAGINGS };

/* The address all of these tests map, and where to: page at 8 MiB. */
#define AT 0x40c05678ULL /* PDPT 1, PD 6, PT 5; in 32-bit paging PD 0x103, PT 5 */
#define TO 0x800000ULL

/* Page tables for `p` at 0x100000 on; `upper` is or-ed into entries above the leaf, `leaf` into the leaf. */
static struct entry {
	uint64_t v;
} __attribute__((packed)) * leaf_at, *upper_at; /* in 32-bit paging aligned to 4 only */

static void
map(enum paging p, uint64_t upper, uint64_t leaf)
{
	struct x86_state *s = &c->v.state;
	bool lng = p >= LONG_4K, pae = p >= PAE_4K;
	uint64_t page = TO;

	memset(ram + 0x100000, 0, 0x10000);
	s->cr0 = CR0_PE | CR0_PG | CR0_WP | CR0_ET;
	s->cr4 = (pae ? CR4_PAE : 0) | CR4_PSE | CR4_PGE;
	s->efer = lng ? EFER_LME | EFER_LMA | EFER_NXE : pae ? EFER_NXE : 0;
	s->cr3 = 0x100000;
	if (!pae) {
		put32(0x100000 + 4 * (AT >> 22), (uint32_t)(p == P32_4M ? page | PS | leaf : 0x101000 | upper));
		put32(0x101000 + 4 * ((AT >> 12) & 1023), (uint32_t)(page | leaf));
		upper_at = (struct entry *)(ram + 0x100000 + 4 * (AT >> 22));
		leaf_at = p == P32_4M ? upper_at : (struct entry *)(ram + 0x101000 + 4 * ((AT >> 12) & 1023));
		goto done;
	}
	put64(0x100000, 0x101000 | upper);
	put64(0x101000 + 8 * (AT >> 30), p == LONG_1G ? PS | leaf : 0x102000 | upper);
	put64(0x102000 + 8 * ((AT >> 21) & 511), p == LONG_2M || p == PAE_2M ? page | PS | leaf : 0x103000 | upper);
	put64(0x103000 + 8 * ((AT >> 12) & 511), page | leaf);
	s->pdpte[1] = 0x102000 | P;
	upper_at = (struct entry *)(ram + (lng ? 0x100000 : 0x102000 + 8 * ((AT >> 21) & 511)));
	leaf_at = (struct entry *)(ram + (p == LONG_1G			       ? 0x101000 + 8 * (AT >> 30)
						 : p == LONG_2M || p == PAE_2M ? 0x102000 + 8 * ((AT >> 21) & 511)
									       : 0x103000 + 8 * ((AT >> 12) & 511)));
done:
	x86_tlb_flush(c, true);
	x86_update_mode(c);
}

static bool
has_upper(enum paging p)
{
	return p != P32_4M && p != PAE_2M;
}

static uint64_t
target(enum paging p)
{
	static const unsigned shift[] = { 12, 22, 12, 21, 12, 21, 30 };
	uint64_t mask = (1ULL << shift[p]) - 1;

	return (p == LONG_1G ? 0 : TO & ~mask) | (AT & mask);
}

/* What SDM 3A 4.6.1 says, as plainly as it can be said. */
static bool
allowed(bool user_page, bool write, bool nx, enum x86_access acc, enum x86_mmu mmu)
{
	const struct x86_state *s = &c->v.state;

	if (mmu == MMU_USER) {
		if (!user_page)
			return false;
		return acc == X86_READ ? true : acc == X86_WRITE ? write : !nx;
	}
	if (acc == X86_EXEC)
		return !nx && !(user_page && s->cr4 & CR4_SMEP);
	if (user_page && s->cr4 & CR4_SMAP && mmu == MMU_KERNEL_SMAP)
		return false;
	return acc == X86_READ || write || !(s->cr0 & CR0_WP);
}

static void
check_one(enum paging p, uint64_t upper, uint64_t leaf, enum x86_access acc, enum x86_mmu mmu)
{
	struct x86_state *s = &c->v.state;
	bool user = leaf & U && (upper & U || !has_upper(p)), write = leaf & W && (upper & W || !has_upper(p));
	bool nx = leaf & NX || (has_upper(p) && upper & NX);
	unsigned error = P | (acc == X86_WRITE ? 2 : 0) | (mmu == MMU_USER ? 4 : 0);
	gpa_t gpa = 0;

	if (acc == X86_EXEC && ((s->cr4 & CR4_PAE && s->efer & EFER_NXE) || s->cr4 & CR4_SMEP))
		error |= 16;
	TRY(x86_tlb_fill(c, AT, acc, mmu, &gpa));
	if (!allowed(user, write, nx, acc, mmu)) {
		assert_int_equal(caught, EXC_PF);
		assert_int_equal(c->exc_error, error);
		assert_int_equal(s->cr2, AT);
		assert_false(leaf_at->v & A);
		return;
	}
	assert_int_equal(caught, -1);
	assert_int_equal(gpa, target(p));
	assert_true(leaf_at->v & A);
	assert_true(upper_at->v & A);
	assert_int_equal((leaf_at->v & D) != 0, acc == X86_WRITE);
}

static void
every_mode_grants_and_refuses_as_the_rights_say(void **state)
{
	static const uint64_t rights[] = { P, P | W, P | U, P | W | U };

	for (int p = 0; p < PAGINGS; p++)
		for (int n = 0; n < 4 * 4 * 4 * 3 * 3 * 8; n++) {
			uint64_t upper = rights[n & 3], leaf = rights[n >> 2 & 3];
			int nx = n >> 4 & 3, rest = n >> 6, acc = rest % 3, mmu = rest / 3 % 3, cr = rest / 9;

			if (p >= PAE_4K) {
				upper |= nx & 1 ? NX : 0;
				leaf |= nx & 2 ? NX : 0;
			} else if (nx) {
				continue;
			}
			map((enum paging)p, upper, leaf);
			c->v.state.cr0 &= cr & 1 ? ~0ULL : ~(uint64_t)CR0_WP;
			c->v.state.cr4 |= (cr & 2 ? CR4_SMEP : 0) | (cr & 4 ? CR4_SMAP : 0);
			check_one((enum paging)p, upper, leaf, (enum x86_access)acc, (enum x86_mmu)mmu);
		}
}

static void
an_entry_that_is_not_present_faults_without_p(void **state)
{
	for (int p = 0; p < PAGINGS; p++) {
		map((enum paging)p, P | W | U, W | U);
		RAISES(EXC_PF, 2 | 4, x86_tlb_fill(c, AT, X86_WRITE, MMU_USER, NULL));
		if (!has_upper((enum paging)p))
			continue;
		map((enum paging)p, W | U, P | W | U);
		RAISES(EXC_PF, 0, x86_tlb_fill(c, AT, X86_READ, MMU_KERNEL, NULL));
	}
	map(PAE_4K, P | W | U, P | W | U);
	c->v.state.pdpte[1] = 0;
	RAISES(EXC_PF, 0, x86_tlb_fill(c, AT, X86_READ, MMU_KERNEL, NULL));
}

static void
reserved_bits_fault_with_rsvd(void **state)
{
	static const struct {
		enum paging p;
		uint64_t leaf;
	} t[] = {
		{ P32_4M, 1 << 21 },
		{ PAE_4K, 1ULL << 52 },
		{ PAE_4K, 1ULL << 62 },
		{ PAE_2M, 1 << 13 },
		{ PAE_2M, 1 << 20 },
		{ LONG_4K, 1ULL << 51 },
		{ LONG_2M, 1 << 13 },
		{ LONG_2M, 1 << 20 },
		{ LONG_1G, 1 << 13 },
		{ LONG_1G, 1 << 29 },
		{ LONG_1G, 1ULL << 51 },
	};

	for (size_t i = 0; i < ARRAY_LEN(t); i++) {
		map(t[i].p, P | W | U, P | W | U | t[i].leaf);
		RAISES(EXC_PF, P | 8 | 4, x86_tlb_fill(c, AT, X86_READ, MMU_USER, NULL));
	}
	/* bits 62:52 are free in 4-level paging, and so is NX only with EFER.NXE */
	map(LONG_4K, P | W | U, P | W | U | 1ULL << 52 | 1ULL << 62);
	FINE(x86_tlb_fill(c, AT, X86_READ, MMU_USER, NULL));
	map(LONG_4K, P | W | U, P | W | U | NX);
	c->v.state.efer &= ~(uint64_t)EFER_NXE;
	RAISES(EXC_PF, P | 8, x86_tlb_fill(c, AT, X86_READ, MMU_KERNEL, NULL));
	/* PS in a PML4 entry */
	map(LONG_4K, P | W | U, P | W | U);
	put64(0x100000, 0x101000 | P | W | U | PS);
	RAISES(EXC_PF, P | 8, x86_tlb_fill(c, AT, X86_READ, MMU_KERNEL, NULL));
}

static void
pse36_puts_bits_39_to_32_where_the_manual_has_them(void **state)
{
	gpa_t gpa;

	map(P32_4M, 0, P | W | U | 5 << 13);
	assert_true(x86_translate(c, AT, &gpa));
	assert_int_equal(gpa, 5ULL << 32 | target(P32_4M));
	/* without CR4.PSE the PS bit means nothing: the entry points to a page table */
	map(P32_4M, 0, P | W | U);
	c->v.state.cr4 &= ~(uint64_t)CR4_PSE;
	put32((TO & ~0xfffULL) + 4 * ((AT >> 12) & 1023), 0x300000 | P | W | U);
	assert_true(x86_translate(c, AT, &gpa));
	assert_int_equal(gpa, 0x300000 | (AT & 0xfff));
}

static void
tables_outside_memory_read_as_ones(void **state)
{
	map(LONG_4K, P | W | U, P | W | U);
	put64(0x100000, 0x3000000000 | P | W | U);
	RAISES(EXC_PF, P | 8, x86_tlb_fill(c, AT, X86_READ, MMU_KERNEL, NULL));
}

static void
a_page_becomes_writable_only_with_its_dirty_flag(void **state)
{
	struct soft_tlb_entry *e;

	map(LONG_4K, P | W | U, P | W | U);
	FINE(assert_int_equal(x86_load(c, AT, 4, MMU_KERNEL), 0));
	e = x86_tlb_slot(c, AT, MMU_KERNEL);
	assert_int_equal(e->read, (AT & ~0xfffULL) | c->tlb_gen);
	assert_int_equal(e->write, SOFT_TLB_NEVER);
	assert_false(leaf_at->v & D);
	FINE(x86_store(c, AT, 0x12345678, 4, MMU_KERNEL));
	assert_true(leaf_at->v & D);
	assert_int_equal(e->write, (AT & ~0xfffULL) | c->tlb_gen);
	assert_int_equal(get32(target(LONG_4K)), 0x12345678);
}

static void
invlpg_forgets_one_page_and_a_whole_large_page(void **state)
{
	map(LONG_4K, P | W | U, P | W | U);
	FINE(x86_load(c, AT, 4, MMU_KERNEL));
	leaf_at->v = 0;
	FINE(x86_load(c, AT, 4, MMU_KERNEL)); /* still in the TLB */
	x86_tlb_flush_page(c, AT);
	RAISES(EXC_PF, 0, x86_load(c, AT, 4, MMU_KERNEL));

	map(LONG_2M, P | W | U, P | W | U);
	FINE(x86_load(c, AT, 4, MMU_KERNEL));
	FINE(x86_load(c, AT + 0x3000, 4, MMU_KERNEL));
	leaf_at->v = 0;
	x86_tlb_flush_page(c, AT + 0x3000);
	RAISES(EXC_PF, 0, x86_load(c, AT, 4, MMU_KERNEL));

	map(LONG_1G, P | W | U, P | W | U);
	FINE(x86_load(c, 0x40000000, 4, MMU_KERNEL));
	leaf_at->v = 0;
	x86_tlb_flush_page(c, 0x7ffff000);
	RAISES(EXC_PF, 0, x86_load(c, 0x40000000, 4, MMU_KERNEL));

	map(P32_4M, 0, P | W | U);
	FINE(x86_load(c, 0x40c00000, 4, MMU_KERNEL));
	leaf_at->v = 0;
	x86_tlb_flush_page(c, 0x40fff000);
	RAISES(EXC_PF, 0, x86_load(c, 0x40c00000, 4, MMU_KERNEL));
}

static void
global_pages_stay_through_mov_cr3_and_others_do_not(void **state)
{
	set_seg(SEG_SS, SEL_DATA0, 0xc092);
	map(LONG_4K, P | W | U, P | W | U | G);
	FINE(x86_load(c, AT, 4, MMU_KERNEL));
	leaf_at->v = 0;
	FINE(x86_write_cr(c, 3, 0x100000));
	FINE(x86_load(c, AT, 4, MMU_KERNEL));
	FINE(x86_write_cr(c, 4, c->v.state.cr4 & ~(uint64_t)CR4_PGE));
	RAISES(EXC_PF, 0, x86_load(c, AT, 4, MMU_KERNEL));

	map(LONG_4K, P | W | U, P | W | U);
	FINE(x86_load(c, AT, 4, MMU_KERNEL));
	leaf_at->v = 0;
	FINE(x86_write_cr(c, 3, 0x100000));
	RAISES(EXC_PF, 0, x86_load(c, AT, 4, MMU_KERNEL));

	/* and INVLPG takes a global page too */
	map(LONG_4K, P | W | U, P | W | U | G);
	FINE(x86_load(c, AT, 4, MMU_KERNEL));
	leaf_at->v = 0;
	FINE(x86_write_cr(c, 3, 0x100000));
	x86_tlb_flush_page(c, AT);
	RAISES(EXC_PF, 0, x86_load(c, AT, 4, MMU_KERNEL));
}

static void
a_global_page_does_not_gain_rights_by_moving(void **state)
{
	set_seg(SEG_SS, SEL_DATA0, 0xc092);
	map(LONG_4K, P | W | U, P | U | G);
	FINE(x86_load(c, AT, 4, MMU_USER));
	FINE(x86_write_cr(c, 3, 0x100000));
	FINE(x86_load(c, AT, 4, MMU_USER));
	RAISES(EXC_PF, P | 2 | 4, x86_store(c, AT, 0, 4, MMU_USER));
}

static void
pcids_keep_their_entries_apart_and_alive(void **state)
{
	struct x86_state *s = &c->v.state;
	uint64_t desc[2] = { 1, AT };

	set_seg(SEG_SS, SEL_DATA0, 0xc092);
	map(LONG_4K, P | W | U, P | W | U);
	FINE(x86_write_cr(c, 4, s->cr4 | CR4_PCIDE));
	FINE(x86_write_cr(c, 3, 0x100001));
	FINE(x86_load(c, AT, 4, MMU_KERNEL));
	leaf_at->v = 0;
	/* PCID 2 has never seen the page */
	FINE(x86_write_cr(c, 3, 0x100002));
	RAISES(EXC_PF, 0, x86_load(c, AT, 4, MMU_KERNEL));
	/* PCID 1 with bit 63 still has */
	FINE(x86_write_cr(c, 3, 0x100001 | 1ULL << 63));
	assert_int_equal(s->cr3, 0x100001);
	FINE(x86_load(c, AT, 4, MMU_KERNEL));
	/* INVPCID of one address in a PCID that is not current */
	memcpy(ram + 0x7000, desc, 16);
	map(LONG_1G, P | W | U, P | W | U); /* a page for the descriptor */
	put64(0x101000, PS | P | W | U);
	s->cr4 |= CR4_PCIDE;
	s->cr3 = 0x100001;
	x86_tlb_flush(c, true);
	FINE(x86_load(c, AT, 4, MMU_KERNEL));
	leaf_at->v = 0;
	FINE(x86_write_cr(c, 3, 0x100002 | 1ULL << 63));
	FINE(x86_invpcid(c, 0, 0x7000));
	FINE(x86_write_cr(c, 3, 0x100001 | 1ULL << 63));
	RAISES(EXC_PF, 0, x86_load(c, AT, 4, MMU_KERNEL));
	RAISES(EXC_GP, 0, x86_invpcid(c, 4, 0x7000));
}

static void
invpcid_types_forget_what_they_name(void **state)
{
	struct x86_state *s = &c->v.state;

	set_seg(SEG_SS, SEL_DATA0, 0xc092);
	for (int type = 1; type <= 3; type++)
		for (int global = 0; global < 2; global++) {
			bool gone = type == 2 || !global;

			map(LONG_1G, P | W | U, P | W | U | (global ? G : 0));
			put64(0x101000, PS | P | W | U);
			s->cr4 |= CR4_PCIDE;
			s->cr3 = 0x100001;
			x86_tlb_flush(c, true);
			put64(0x7000, 1);
			put64(0x7008, 0);
			FINE(x86_load(c, AT, 4, MMU_KERNEL));
			leaf_at->v = 0;
			FINE(x86_invpcid(c, (unsigned)type, 0x7000));
			TRY(x86_load(c, AT, 4, MMU_KERNEL));
			assert_int_equal(caught, gone ? EXC_PF : -1);
		}
}

static void
running_out_of_generations_forgets_everything(void **state)
{
	map(LONG_4K, P | W | U, P | W | U);
	for (int i = 0; i < 10000; i++) {
		leaf_at->v = TO | P | W | U;
		FINE(x86_load(c, AT, 4, MMU_KERNEL));
		assert_true(c->tlb_gen < SOFT_TLB_GEN);
		leaf_at->v = 0;
		x86_tlb_flush(c, i & 1);
		TRY(x86_load(c, AT, 4, MMU_KERNEL));
		assert_int_equal(caught, EXC_PF);
	}
}

static void
accesses_across_pages_are_all_or_nothing(void **state)
{
	uint64_t before;

	map(LONG_4K, P | W | U, P | W | U);
	put64(0x103000 + 8 * (((AT >> 12) & 511) + 1), 0x900000 | P | U);
	put32(TO + 0xffc, 0x44332211);
	put32(0x900000, 0x88776655);
	FINE(assert_int_equal(x86_load(c, (AT & ~0xfffULL) + 0xffc, 8, MMU_KERNEL), 0x8877665544332211));
	before = get64(TO + 0xff8);
	RAISES(EXC_PF, P | 2, x86_store(c, (AT & ~0xfffULL) + 0xffc, 0, 8, MMU_KERNEL));
	assert_int_equal(c->v.state.cr2, (AT & ~0xfffULL) + 0x1000);
	assert_int_equal(get64(TO + 0xff8), before);
	put64(0x103000 + 8 * (((AT >> 12) & 511) + 1), 0x900000 | P | W | U);
	x86_tlb_flush(c, true);
	FINE(x86_store(c, (AT & ~0xfffULL) + 0xffe, 0xaabbccdd, 4, MMU_KERNEL));
	assert_int_equal(get16(TO + 0xffe), 0xccdd);
	assert_int_equal(get16(0x900000), 0xaabb);
	FINE(x86_store_bytes(c, (AT & ~0xfffULL) + 0xff0, "0123456789abcdefghij", 20, MMU_KERNEL));
	assert_memory_equal(ram + TO + 0xff0, "0123456789abcdef", 16);
	assert_memory_equal(ram + 0x900000, "ghij", 4);
}

static void
linear_addresses_wrap_at_4_gib_outside_long_mode(void **state)
{
	struct x86_state *s = &c->v.state;

	map(P32_4K, P | W | U, P | W | U);
	put32(0x100000 + 4 * 1023, 0x104000 | P | W | U);
	put32(0x104000 + 4 * 1023, 0xa00000 | P | W | U);
	put32(0x100000, 0x105000 | P | W | U);
	put32(0x105000, 0xb00000 | P | W | U);
	FINE(x86_store(c, 0xfffffffe, 0x44332211, 4, MMU_KERNEL));
	assert_int_equal(get16(0xa00ffe), 0x2211);
	assert_int_equal(get16(0xb00000), 0x4433);
	FINE(assert_int_equal(x86_load(c, 0xfffffffe, 4, MMU_KERNEL), 0x44332211));
	s->seg[SEG_DS] = (struct x86_seg){ .sel = 8, .attr = 0xc093, .limit = 0xffffffff, .base = 0xfffff000 };
	FINE(assert_int_equal(x86_linear(c, SEG_DS, 0x2000, 4, X86_READ), 0x1000));
}

static void
device_pages_get_no_tags_and_reach_the_device(void **state)
{
	struct soft_tlb_entry *e;
	gpa_t gpa;

	map(LONG_4K, P | W | U, P | W | U);
	leaf_at->v = REGS_AT | P | W | U;
	FINE(assert_int_equal(x86_load(c, AT & ~0xfffULL, 8, MMU_KERNEL), 0x8877665544332211));
	FINE(x86_store(c, (AT & ~0xfffULL) + 8, 0xabcd, 2, MMU_KERNEL));
	assert_int_equal(regs_last_write, 0xabcd);
	FINE(e = x86_tlb_fill(c, AT, X86_READ, MMU_KERNEL, &gpa));
	assert_int_equal(gpa, REGS_AT + (AT & 0xfff));
	assert_int_equal(e->read, SOFT_TLB_NEVER);
	assert_int_equal(e->write, SOFT_TLB_NEVER);
	FINE(assert_null(x86_host(c, AT, 4, X86_READ, MMU_KERNEL, NULL)));
	assert_int_equal(regs_reads, 1);
	/* an access that begins in memory and ends in registers */
	put64(0x103000 + 8 * (((AT >> 12) & 511) - 1), 0x900000 | P | W | U);
	put32(0x900ffc, 0xdeadbeef);
	FINE(assert_int_equal(x86_load(c, (AT & ~0xfffULL) - 4, 8, MMU_KERNEL), 0x44332211deadbeef));
	/* no one executes registers: open bus */
	{
		uint8_t code[4];

		FINE(x86_fetch_bytes(c, AT, code, 4));
		assert_memory_equal(code, "\xff\xff\xff\xff", 4);
	}
	leaf_at->v = NOTHING_AT | P | W | U;
	x86_tlb_flush_page(c, AT);
	FINE(assert_int_equal(x86_load(c, AT, 4, MMU_KERNEL), 0xffffffff));
	FINE(x86_store(c, AT, 1, 4, MMU_KERNEL));
}

static void
rom_reads_executes_and_drops_writes(void **state)
{
	map(LONG_4K, P | W | U, P | W | U);
	leaf_at->v = ROM_AT | P | W | U;
	FINE(assert_int_equal(x86_load(c, AT, 2, MMU_KERNEL), 0x5a5a));
	FINE(assert_non_null(x86_host(c, AT, 4, X86_EXEC, MMU_KERNEL, NULL)));
	FINE(x86_store(c, AT, 0, 2, MMU_KERNEL));
	FINE(assert_int_equal(x86_load(c, AT, 2, MMU_KERNEL), 0x5a5a));
	FINE(assert_null(x86_host(c, AT, 4, X86_WRITE, MMU_KERNEL, NULL)));
}

static void
writes_to_watched_pages_are_noticed(void **state)
{
	struct ram *r = ram_region.ram;
	uint32_t gen;

	map(LONG_4K, P | W | U, P | W | U);
	FINE(x86_store(c, AT, 1, 4, MMU_KERNEL));
	assert_false(c->code_written);
	mem_watch_code(r, TO >> 12);
	gen = r->gens[TO >> 12];
	FINE(x86_store(c, AT, 2, 4, MMU_KERNEL));
	assert_true(c->code_written);
	assert_int_not_equal(r->gens[TO >> 12], gen);
	/* the CPU's own A and D bits count as writes of the page table's page */
	c->code_written = false;
	mem_watch_code(r, 0x103);
	x86_tlb_flush(c, true);
	leaf_at->v &= ~(uint64_t)A;
	FINE(x86_load(c, AT, 4, MMU_KERNEL));
	assert_true(c->code_written);
}

static void
data_breakpoints_are_noted_for_the_instruction(void **state)
{
	struct x86_state *s = &c->v.state;

	map(LONG_4K, P | W | U, P | W | U);
	s->dr[1] = AT;
	s->dr[7] = 0x400 | 1 << 2 | 0xdu << 20; /* L1, write, 4 bytes */
	x86_update_mode(c);
	assert_int_equal(c->dr_armed, 2);
	FINE(x86_load(c, AT, 4, MMU_KERNEL));
	assert_int_equal(c->pending_db, 0);
	FINE(x86_store(c, AT - 1, 0, 1, MMU_KERNEL));
	assert_int_equal(c->pending_db, 0);
	FINE(x86_store(c, AT - 1, 0, 2, MMU_KERNEL));
	assert_int_equal(c->pending_db, 2);
	c->pending_db = 0;
	s->dr[7] |= 3u << 20; /* read or write */
	x86_update_mode(c);
	FINE(x86_load(c, AT + 3, 1, MMU_KERNEL));
	assert_int_equal(c->pending_db, 2);
}

static void
misaligned_user_data_raises_ac_when_asked_for(void **state)
{
	struct x86_state *s = &c->v.state;

	map(LONG_4K, P | W | U, P | W | U);
	set_seg(SEG_SS, SEL_DATA3, 0xc0f2);
	set_seg(SEG_CS, SEL_USER64, 0xa0fa);
	s->rflags |= FLAG_AC;
	s->cr0 |= CR0_AM;
	x86_update_mode(c);
	RAISES(EXC_AC, 0, x86_load(c, AT + 1, 4, MMU_USER));
	RAISES(EXC_AC, 0, x86_store(c, AT + 2, 0, 4, MMU_USER));
	FINE(x86_load(c, AT + 1, 1, MMU_USER));
	FINE(x86_load(c, AT, 8, MMU_USER));
	s->cr0 &= ~(uint64_t)CR0_AM;
	x86_update_mode(c);
	FINE(x86_load(c, AT + 1, 4, MMU_USER));
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(every_mode_grants_and_refuses_as_the_rights_say),
		TEST(an_entry_that_is_not_present_faults_without_p),
		TEST(reserved_bits_fault_with_rsvd),
		TEST(pse36_puts_bits_39_to_32_where_the_manual_has_them),
		TEST(tables_outside_memory_read_as_ones),
		TEST(a_page_becomes_writable_only_with_its_dirty_flag),
		TEST(invlpg_forgets_one_page_and_a_whole_large_page),
		TEST(global_pages_stay_through_mov_cr3_and_others_do_not),
		TEST(a_global_page_does_not_gain_rights_by_moving),
		TEST(pcids_keep_their_entries_apart_and_alive),
		TEST(invpcid_types_forget_what_they_name),
		TEST(running_out_of_generations_forgets_everything),
		TEST(accesses_across_pages_are_all_or_nothing),
		TEST(linear_addresses_wrap_at_4_gib_outside_long_mode),
		TEST(device_pages_get_no_tags_and_reach_the_device),
		TEST(rom_reads_executes_and_drops_writes),
		TEST(writes_to_watched_pages_are_noticed),
		TEST(data_breakpoints_are_noted_for_the_instruction),
		TEST(misaligned_user_data_raises_ac_when_asked_for),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
