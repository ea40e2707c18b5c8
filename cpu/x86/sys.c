/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Control and debug registers, RFLAGS, I/O permission, and the states after power-on, INIT and start-up IPI
 * (SDM 3A 2.3-2.6, 9.1; SDM 1 19.5; SDM 3B 18.2, 21.3).
 *
 * x86_update_mode() derives all that engines look at from v.state; whoever changes a control register, RFLAGS.VM, TF or
 * AC, CS, SS or a debug register calls it at the end.
 *
 * Compiled for general registers only (Makefile), for cpu/jit/fp.c's sake.
 */
#include <string.h>

#include "cpu/debug.h"
#include "cpu/x86/desc.h"

/* ---- derived state ---- */

static enum x86_mode
mode_of(const struct x86_state *s)
{
	uint32_t cs = s->seg[SEG_CS].attr;

	if (!(s->cr0 & CR0_PE))
		return X86_REAL;
	if (s->efer & EFER_LMA)
		return cs & SEG_L ? X86_LONG64 : cs & SEG_DB ? X86_LONG32 : X86_LONG16;
	if (s->rflags & FLAG_VM)
		return X86_VM86;
	return cs & SEG_DB ? X86_PROT32 : X86_PROT16;
}

static unsigned
cpl_of(const struct soft_cpu *c)
{
	return c->mode == X86_REAL ? 0 : c->mode == X86_VM86 ? 3 : SEG_DPL(c->v.state.seg[SEG_SS].attr);
}

/*
 * Base 0, 4 GiB, readable, writable, growing up. In 64-bit mode all but FS and GS are; those count as if they had a
 * base whatever it is, so that code lives on when it changes (SWAPGS).
 */
static bool
is_flat(const struct soft_cpu *c, enum seg_name n)
{
	const struct x86_seg *s = &c->v.state.seg[n];

	if (c->mode == X86_LONG64)
		return n != SEG_FS && n != SEG_GS;
	if (s->base || s->limit != UINT32_MAX)
		return false;
	return c->mode == X86_REAL || (s->attr & (SEG_UNUSABLE | SEG_S | 8 | 4 | 2)) == (SEG_S | 2);
}

static void
update_debug(struct soft_cpu *c)
{
	uint64_t dr7 = c->v.state.dr[7];

	c->dr_armed = c->exact ? DR_DEBUGGER : 0;
	c->code_bp = false;
	for (int i = 0; i < 4; i++) {
		unsigned how = (dr7 >> (16 + 4 * i)) & 3;

		if (!(dr7 >> (2 * i) & 3))
			continue;
		if (how == 0)
			c->code_bp = true;
		else if (how != 2 || c->v.state.cr4 & CR4_DE)
			c->dr_armed |= 1u << i;
	}
}

/* Flat but for its base. */
static bool
is_plain(const struct x86_seg *s)
{
	return s->limit == UINT32_MAX && (s->attr & (SEG_UNUSABLE | SEG_S | 8 | 4 | 2)) == (SEG_S | 2);
}

static uint32_t
key_of(const struct soft_cpu *c)
{
	const struct x86_state *s = &c->v.state;
	uint32_t k = (uint32_t)c->mode | (uint32_t)c->cpl << 3 | (uint32_t)c->mmu << 5;

	k |= (c->stack_size == 8 ? 2u : c->stack_size == 4 ? 1u : 0u) << 7;
	k |= (uint32_t)(c->code_size == 4) << 9; /* real mode may have 32-bit code */
	k |= c->flat << 10;
	k |= (uint32_t)((s->cr0 >> 1) & 7) << 16; /* MP, EM, TS */
	k |= (uint32_t)((s->cr4 & CR4_OSFXSR) != 0) << 19;
	k |= (uint32_t)((s->cr4 & CR4_OSXSAVE) != 0) << 20;
	k |= (uint32_t)((s->cr4 & CR4_FSGSBASE) != 0) << 21;
	k |= (uint32_t)((s->xcr0 & 4) != 0) << 22;
	k |= (uint32_t)((s->xcr0 & 0xe0) == 0xe0) << 23;
	k |= (uint32_t)((s->rflags & FLAG_TF) != 0) << 24;
	k |= (uint32_t)c->ac_check << 25;
	k |= (uint32_t)c->code_bp << 26;
	k |= (uint32_t)(c->dr_armed != 0) << 27;
	k |= (uint32_t)((s->cr0 & CR0_NE) != 0) << 28;
	k |= (uint32_t)((s->cr4 & CR4_OSXMMEXCPT) != 0) << 29;
	if (c->mode != X86_LONG64) {
		k |= is_plain(&s->seg[SEG_FS]) ? X86_KEY_FS_PLAIN : 0;
		k |= is_plain(&s->seg[SEG_GS]) ? X86_KEY_GS_PLAIN : 0;
	}
	return k;
}

void
x86_update_mode(struct soft_cpu *c)
{
	const struct x86_state *s = &c->v.state;

	c->mode = mode_of(s);
	c->cpl = (uint8_t)cpl_of(c);
	c->mmu = (uint8_t)x86_cpl_mmu(c, c->cpl);
	c->code_size = c->mode == X86_LONG64 ? 8 : s->seg[SEG_CS].attr & SEG_DB && c->mode != X86_VM86 ? 4 : 2;
	c->stack_size = c->mode == X86_LONG64 ? 8 : s->seg[SEG_SS].attr & SEG_DB && c->mode != X86_VM86 ? 4 : 2;
	c->flat = 0;
	for (int i = SEG_ES; i <= SEG_GS; i++)
		c->flat |= (uint32_t)is_flat(c, (enum seg_name)i) << i;
	if (unlikely(s->dr[7] & 0xff || c->dr_armed || c->code_bp || c->v.debug))
		update_debug(c);
	c->ac_check = c->cpl == 3 && s->cr0 & CR0_AM && s->rflags & FLAG_AC;
	c->mode_key = key_of(c);
	if (c->cpl == 3 && c->mode == X86_LONG64)
		c->mode_key |= c->user_key;
}

void
x86_watch_begin(struct soft_cpu *c)
{
	c->exact = true;
	x86_update_mode(c);
}

/* What was mapped for the one instruction goes out of the TLB again. */
void
x86_watch_end(struct soft_cpu *c)
{
	const struct cpu_debug *d = c->v.debug;

	c->exact = false;
	x86_update_mode(c);
	for (int i = 0; d && i < d->watch_count; i++) { /* at most a page long: in two pages at most */
		x86_tlb_flush_page(c, d->watches[i].a);
		x86_tlb_flush_page(c, d->watches[i].a + d->watches[i].len - 1);
	}
}

/* ---- privilege ---- */

void
x86_check_cpl0(struct soft_cpu *c)
{
	if (c->cpl)
		x86_gp(c, 0);
}

void
x86_check_hlt(struct soft_cpu *c)
{
	x86_check_cpl0(c);
}

void
x86_check_umip(struct soft_cpu *c)
{
	if (c->v.state.cr4 & CR4_UMIP && c->cpl)
		x86_gp(c, 0);
}

/* ---- control registers ---- */

/* PDPTEs: bits 2:1, 8:5 and those beyond the physical address width have to be 0 (SDM 3A table 4-8). */
bool
x86_load_pdptes(struct soft_cpu *c, uint64_t cr3)
{
	uint64_t pdpte[4];

	memset(pdpte, 0xff, sizeof(pdpte));
	mem_read(&c->v.m->mem, cr3 & 0xffffffe0, pdpte, sizeof(pdpte));
	for (int i = 0; i < 4; i++)
		if (pdpte[i] & 1 && pdpte[i] & (0xfff00000000001e6ULL | c->rsvd))
			return false;
	memcpy(c->v.state.pdpte, pdpte, sizeof(pdpte));
	return true;
}

static bool
pae_paging(uint64_t cr0, uint64_t cr4, uint64_t efer)
{
	return cr0 & CR0_PG && cr4 & CR4_PAE && !(efer & EFER_LMA);
}

#define CR0_KNOWN (CR0_PE | CR0_MP | CR0_EM | CR0_TS | CR0_NE | CR0_WP | CR0_AM | CR0_NW | CR0_CD | CR0_PG)

/* May PG be switched on now? With EFER.LME that enters long mode (SDM 3A 9.8.5). */
static void
check_paging_on(struct soft_cpu *c)
{
	const struct x86_state *s = &c->v.state;

	if (!(s->efer & EFER_LME))
		return;
	if (!(s->cr4 & CR4_PAE) || s->seg[SEG_CS].attr & SEG_L)
		x86_gp(c, 0);
}

static void
write_cr0(struct soft_cpu *c, uint64_t v)
{
	struct x86_state *s = &c->v.state;
	uint64_t efer = s->efer, changed;

	if (v >> 32 || (v & CR0_PG && !(v & CR0_PE)) || (v & CR0_NW && !(v & CR0_CD)))
		x86_gp(c, 0);
	v = (v & CR0_KNOWN) | CR0_ET;
	changed = v ^ s->cr0;
	if (changed & CR0_PG) {
		if (v & CR0_PG)
			check_paging_on(c);
		else if (c->mode == X86_LONG64 || s->cr4 & CR4_PCIDE)
			x86_gp(c, 0);
		efer = v & CR0_PG && efer & EFER_LME ? efer | EFER_LMA : efer & ~(uint64_t)EFER_LMA;
	}
	if (pae_paging(v, s->cr4, efer) && changed & (CR0_PG | CR0_CD | CR0_NW) && !x86_load_pdptes(c, s->cr3))
		x86_gp(c, 0);
	s->cr0 = v;
	s->efer = efer;
	if (changed & (CR0_PG | CR0_PE | CR0_WP))
		x86_tlb_flush(c, true);
}

static void
write_cr3(struct soft_cpu *c, uint64_t v)
{
	struct x86_state *s = &c->v.state;
	bool keep = s->cr4 & CR4_PCIDE && v >> 63;

	if (x86_long(c)) {
		v &= s->cr4 & CR4_PCIDE ? ~(1ULL << 63) : UINT64_MAX;
		if (v & (c->rsvd | 0xfff0000000000000ULL))
			x86_gp(c, 0);
	} else if (pae_paging(s->cr0, s->cr4, s->efer) && !x86_load_pdptes(c, v)) {
		x86_gp(c, 0);
	}
	s->cr3 = v;
	x86_tlb_switch(c, keep);
}

static void
write_cr4(struct soft_cpu *c, uint64_t v)
{
	struct x86_state *s = &c->v.state;
	uint64_t changed = v ^ s->cr4;
	const uint64_t paging = CR4_PSE | CR4_PAE | CR4_PGE | CR4_SMEP | CR4_SMAP | CR4_PCIDE;

	if (v & ~c->v.cpus->model.cr4_supported)
		x86_gp(c, 0);
	if (x86_long(c) && !(v & CR4_PAE))
		x86_gp(c, 0);
	if (changed & v & CR4_PCIDE && (!x86_long(c) || s->cr3 & 0xfff))
		x86_gp(c, 0);
	if (pae_paging(s->cr0, v, s->efer) && changed & (CR4_PAE | CR4_PGE | CR4_PSE | CR4_SMEP) &&
		!x86_load_pdptes(c, s->cr3))
		x86_gp(c, 0);
	s->cr4 = v;
	if (changed & paging)
		x86_tlb_flush(c, true);
	update_debug(c);
}

uint64_t
x86_read_cr(struct soft_cpu *c, int n)
{
	const struct x86_state *s = &c->v.state;

	if (n != 0 && n != 2 && n != 3 && n != 4 && n != 8)
		x86_ud(c);
	x86_check_cpl0(c);
	switch (n) {
	case 0:
		return s->cr0;
	case 2:
		return s->cr2;
	case 3:
		return s->cr3;
	case 4:
		return s->cr4;
	default:
		return cpu_get_cr8(&c->v);
	}
}

void
x86_write_cr(struct soft_cpu *c, int n, uint64_t value)
{
	if (n != 0 && n != 2 && n != 3 && n != 4 && n != 8)
		x86_ud(c);
	x86_check_cpl0(c);
	switch (n) {
	case 0:
		write_cr0(c, value);
		break;
	case 2:
		c->v.state.cr2 = value;
		return;
	case 3:
		write_cr3(c, value);
		return; /* changes no mode */
	case 4:
		write_cr4(c, value);
		break;
	default:
		if (value > 15)
			x86_gp(c, 0);
		cpu_set_cr8(&c->v, (uint8_t)value);
		return;
	}
	x86_update_mode(c);
}

void
x86_lmsw(struct soft_cpu *c, uint16_t value)
{
	uint64_t cr0 = c->v.state.cr0;

	x86_check_cpl0(c);
	/* PE can be set this way, not cleared */
	write_cr0(c, (cr0 & ~(uint64_t)(CR0_MP | CR0_EM | CR0_TS)) | (value & 15));
	x86_update_mode(c);
}

void
x86_clts(struct soft_cpu *c)
{
	x86_check_cpl0(c);
	c->v.state.cr0 &= ~(uint64_t)CR0_TS;
	x86_update_mode(c);
}

/* SDM 2A INVPCID; `descriptor` is the linear address of its 16 bytes. */
void
x86_invpcid(struct soft_cpu *c, uint64_t type, gva_t descriptor)
{
	uint64_t d[2];

	x86_check_cpl0(c);
	if (c->mode == X86_VM86)
		x86_gp(c, 0);
	x86_load_bytes(c, descriptor, d, sizeof(d), (enum x86_mmu)c->mmu);
	if (type > 3)
		x86_gp(c, 0);
	if (type < 2 && (d[0] >> 12 || (d[0] && !(c->v.state.cr4 & CR4_PCIDE))))
		x86_gp(c, 0);
	switch (type) {
	case 0:
		if (!x86_canonical(d[1]))
			x86_gp(c, 0);
		if (d[0] == x86_pcid(c))
			x86_tlb_flush_page(c, d[1]);
		else
			x86_tlb_flush_pcid(c, (unsigned)d[0]);
		break;
	case 1:
		x86_tlb_flush_pcid(c, (unsigned)d[0]);
		break;
	case 2:
		x86_tlb_flush(c, true);
		break;
	default:
		x86_tlb_flush_pcids(c);
		break;
	}
}

/* ---- debug registers (SDM 3B 18.2) ---- */

enum { DR6_BD = 1 << 13, DR7_GD = 1 << 13 };

/* CR4.DE makes DR4 and DR5 disappear; otherwise they are DR6 and DR7. GD guards them all. */
static int
dr_access(struct soft_cpu *c, int n)
{
	struct x86_state *s = &c->v.state;

	if (n > 7 || ((n == 4 || n == 5) && s->cr4 & CR4_DE))
		x86_ud(c);
	x86_check_cpl0(c);
	if (s->dr[7] & DR7_GD) {
		s->dr[6] = (s->dr[6] & ~15ULL) | DR6_BD;
		x86_raise(c, EXC_DB);
	}
	return n == 4 || n == 5 ? n + 2 : n;
}

uint64_t
x86_read_dr(struct soft_cpu *c, int n)
{
	return c->v.state.dr[dr_access(c, n)];
}

void
x86_write_dr(struct soft_cpu *c, int n, uint64_t value)
{
	struct x86_state *s = &c->v.state;

	n = dr_access(c, n);
	if (n >= 6 && value >> 32)
		x86_gp(c, 0);
	if (n == 6)
		value = (value & 0xe00f) | 0xffff0ff0;
	else if (n == 7)
		value = (value & 0xffff23ff) | 0x400;
	s->dr[n] = value;
	update_debug(c);
	x86_update_mode(c);
}

/* ---- RFLAGS ---- */

void
x86_set_ac(struct soft_cpu *c, bool ac)
{
	uint64_t *f = &c->v.state.rflags;

	*f = ac ? *f | FLAG_AC : *f & ~(uint64_t)FLAG_AC;
	x86_update_mode(c);
}

void
x86_pushf_value(struct soft_cpu *c, unsigned opsize, uint64_t *value)
{
	uint64_t f = c->v.state.rflags & 0xfcffff; /* without VM and RF */

	if (x86_vm86(c) && x86_iopl(c) < 3) {
		if (!(c->v.state.cr4 & CR4_VME) || opsize != 2)
			x86_gp(c, 0);
		f = (f & ~(uint64_t)FLAG_IF) | FLAG_IOPL | (f & FLAG_VIF ? FLAG_IF : 0);
	}
	*value = f;
}

#define POPF_ALWAYS                                                                                                    \
	(FLAG_CF | FLAG_PF | FLAG_AF | FLAG_ZF | FLAG_SF | FLAG_TF | FLAG_DF | FLAG_OF | FLAG_NT | FLAG_AC | FLAG_ID)

static uint64_t
popf_mask(const struct soft_cpu *c)
{
	uint64_t mask = POPF_ALWAYS;

	if (!x86_vm86(c) && c->cpl == 0)
		mask |= FLAG_IOPL;
	if (c->cpl <= x86_iopl(c))
		mask |= FLAG_IF;
	return mask;
}

void
x86_popf(struct soft_cpu *c, uint64_t value, unsigned opsize)
{
	uint64_t *f = &c->v.state.rflags, mask = popf_mask(c), old = *f;

	if (x86_vm86(c) && x86_iopl(c) < 3) {
		if (!(c->v.state.cr4 & CR4_VME) || opsize != 2)
			x86_gp(c, 0);
		if (value & FLAG_TF || (value & FLAG_IF && *f & FLAG_VIP))
			x86_gp(c, 0);
		mask = (POPF_ALWAYS & 0xffff) | FLAG_VIF;
		value = (value & 0xffff) | (value & FLAG_IF ? FLAG_VIF : 0);
		*f = (*f & ~(mask | FLAG_RF)) | (value & mask) | 2;
		x86_update_mode(c);
		return;
	}
	if (opsize == 2)
		mask &= 0xffff;
	*f = (*f & ~mask & ~(uint64_t)FLAG_RF) | (value & mask) | 2;
	if ((old ^ *f) & (FLAG_TF | FLAG_AC))
		x86_update_mode(c);
}

/* CLI and STI outside their IOPL work on VIF: in virtual-8086 mode with VME, at CPL 3 with PVI (SDM 3B 21.3, 21.4). */
static bool
virtual_if(struct soft_cpu *c)
{
	uint64_t cr4 = c->v.state.cr4;

	if (c->mode == X86_REAL || c->cpl <= x86_iopl(c))
		return false;
	if (x86_vm86(c) ? cr4 & CR4_VME : c->cpl == 3 && cr4 & CR4_PVI)
		return true;
	x86_gp(c, 0);
}

void
x86_cli(struct soft_cpu *c)
{
	if (virtual_if(c))
		c->v.state.rflags &= ~(uint64_t)FLAG_VIF;
	else
		c->v.state.rflags &= ~(uint64_t)FLAG_IF;
}

void
x86_sti(struct soft_cpu *c)
{
	struct x86_state *s = &c->v.state;

	if (virtual_if(c)) {
		if (s->rflags & FLAG_VIP)
			x86_gp(c, 0);
		s->rflags |= FLAG_VIF;
		return;
	}
	if (!(s->rflags & FLAG_IF))
		s->shadow = 1;
	s->rflags |= FLAG_IF;
}

/* ---- I/O permission (SDM 1 19.5) ---- */

static bool
bitmap_allows(struct soft_cpu *c, uint16_t port, unsigned size)
{
	const struct x86_seg *tr = &c->v.state.seg[SEG_TR];
	enum x86_mmu mmu = x86_sys_mmu(c);
	unsigned at, bits;

	if (!(tr->attr & 8) || tr->limit < 103)
		return false;
	at = (unsigned)x86_load(c, tr->base + 102, 2, mmu) + port / 8u;
	if (at + 1 > tr->limit)
		return false;
	bits = (unsigned)x86_load(c, tr->base + at, 2, mmu) >> (port & 7);
	return !(bits & ((1u << size) - 1));
}

static void
check_io_bp(struct soft_cpu *c, uint16_t port, unsigned size)
{
	static const uint8_t lengths[] = { 1, 2, 8, 4 };
	const struct x86_state *s = &c->v.state;

	for (int i = 0; i < 4; i++) {
		unsigned how = (s->dr[7] >> (16 + 4 * i)) & 15, len = lengths[how >> 2];
		uint64_t at = s->dr[i] & ~(uint64_t)(len - 1);

		if (c->dr_armed >> i & 1 && (how & 3) == 2 && port < at + len && at < port + size)
			c->pending_db |= 1u << i;
	}
}

void
x86_check_io(struct soft_cpu *c, uint16_t port, unsigned size)
{
	bool free_for_all = c->mode == X86_REAL || (c->mode != X86_VM86 && c->cpl <= x86_iopl(c));

	if (!free_for_all && !bitmap_allows(c, port, size))
		x86_gp(c, 0);
	if (unlikely(c->dr_armed))
		check_io_bp(c, port, size);
}

/* ---- extended control register, time ---- */

static bool
xgetbv1(const struct soft_cpu *c)
{
	const struct cpu_model *m = &c->v.cpus->model;

	for (int i = 0; i < m->leaf_count; i++)
		if (m->leaf[i].leaf == 0xd && m->leaf[i].sub == 1)
			return m->leaf[i].eax & 4;
	return false;
}

/* XCR0; with ECX = 1 those of its components that are in use (SDM 1 13.6). */
void
x86_xgetbv(struct soft_cpu *c)
{
	struct x86_state *s = &c->v.state;
	uint32_t n = (uint32_t)s->gpr[RCX];
	uint64_t v;

	if (!(s->cr4 & CR4_OSXSAVE))
		x86_ud(c);
	if (n > 1 || (n == 1 && !xgetbv1(c)))
		x86_gp(c, 0);
	v = n ? vec_xinuse(c) : s->xcr0;
	s->gpr[RAX] = (uint32_t)v;
	s->gpr[RDX] = v >> 32;
}

static bool
xcr0_valid(uint64_t v, uint64_t supported)
{
	if (!(v & 1) || v & ~supported)
		return false;
	if (v & 4 && !(v & 2))
		return false;
	if (v & 0xe0 && ((v & 0xe0) != 0xe0 || !(v & 4)))
		return false;
	return true;
}

void
x86_xsetbv(struct soft_cpu *c)
{
	struct x86_state *s = &c->v.state;
	uint64_t v = (uint32_t)s->gpr[RAX] | s->gpr[RDX] << 32;

	if (!(s->cr4 & CR4_OSXSAVE))
		x86_ud(c);
	x86_check_cpl0(c);
	if ((uint32_t)s->gpr[RCX] || !xcr0_valid(v, c->v.cpus->model.xcr0_supported))
		x86_gp(c, 0);
	s->xcr0 = v;
	x86_update_mode(c);
}

uint64_t
x86_rdtsc(struct soft_cpu *c)
{
	if (c->v.state.cr4 & CR4_TSD && c->cpl)
		x86_gp(c, 0);
	return clock_tsc(&c->v.m->clock) + c->v.state.tsc_adjust;
}

/* ---- power-on, INIT, start-up IPI (SDM 3A table 9-1) ---- */

static void
reset_seg(struct x86_seg *s, uint16_t sel, uint64_t base, uint32_t attr)
{
	*s = (struct x86_seg){ .sel = sel, .base = base, .limit = 0xffff, .attr = attr };
}

static void
reset_common(struct x86_state *s)
{
	memset(s->gpr, 0, sizeof(s->gpr));
	s->rip = 0xfff0;
	s->rflags = 2;
	for (int i = SEG_ES; i <= SEG_GS; i++)
		reset_seg(&s->seg[i], 0, 0, 0x93);
	reset_seg(&s->seg[SEG_CS], 0xf000, 0xffff0000, 0x9b);
	reset_seg(&s->seg[SEG_LDTR], 0, 0, 0x82);
	reset_seg(&s->seg[SEG_TR], 0, 0, 0x8b);
	s->gdt = s->idt = (struct x86_table){ .limit = 0xffff };
	s->cr2 = s->cr3 = s->cr4 = 0;
	s->efer = 0;
	memset(s->dr, 0, sizeof(s->dr));
	s->dr[6] = 0xffff0ff0;
	s->dr[7] = 0x400;
	s->shadow = s->nmi_blocked = s->smm = 0;
}

/* EDX holds the processor's signature. */
static uint32_t
signature(const struct cpu_model *model)
{
	for (int i = 0; model && i < model->leaf_count; i++)
		if (model->leaf[i].leaf == 1)
			return model->leaf[i].eax;
	return 0x600;
}

void
x86_reset_state(struct x86_state *s, const struct cpu_model *model, bool bsp)
{
	(void)bsp; /* which of them waits for a start-up IPI is the exit loop's business */
	memset(s, 0, sizeof(*s));
	reset_common(s);
	s->gpr[RDX] = signature(model);
	s->cr0 = CR0_CD | CR0_NW | CR0_ET;
	s->xcr0 = 1;
	s->pat = 0x0007040600070406ULL;
	s->misc_enable = 1; /* fast strings */
	s->smbase = 0x30000;
	s->x87.fcw = 0x40;
	s->x87.ftw = 0xff; /* FTW 5555h: all valid zeros */
	s->x87.mxcsr = 0x1f80;
	s->x87.mxcsr_mask = 0xffff;
}

void
x86_init_state(struct x86_state *s, bool bsp)
{
	(void)bsp;
	reset_common(s);
	s->gpr[RDX] = 0x600;
	s->cr0 = (s->cr0 & (CR0_CD | CR0_NW)) | CR0_ET;
}

void
x86_sipi_state(struct x86_state *s, uint8_t vector)
{
	s->seg[SEG_CS].sel = (uint16_t)(vector << 8);
	s->seg[SEG_CS].base = (uint64_t)vector << 12;
	s->rip = 0;
}

/* ---- life ---- */

static const struct cpuid_leaf *
leaf_of(const struct cpu_model *m, uint32_t leaf)
{
	for (int i = 0; i < m->leaf_count; i++)
		if (m->leaf[i].leaf == leaf && m->leaf[i].sub == 0)
			return &m->leaf[i];
	return NULL;
}

void
x86_soft_open(struct soft_cpu *c)
{
	const struct cpu_model *m = &c->v.cpus->model;
	const struct cpuid_leaf *vendor = leaf_of(m, 0), *ext = leaf_of(m, 0x80000001);
	unsigned bits = m->phys_bits ? m->phys_bits : 36;

	c->amd = vendor && (vendor->ebx == 0x68747541 || vendor->ebx == 0x6f677948); /* "Auth", "Hygo" */
	c->page_1g = ext && ext->edx >> 26 & 1;
	c->rsvd = 0x000fffffffffffffULL & ~((1ULL << bits) - 1);
	x86_tlb_open(c);
	vec_open(c);
	update_debug(c);
	x86_update_mode(c);
}

void
x86_soft_close(struct soft_cpu *c)
{
	vec_close(c);
	c->ram_near.ram = NULL;
}
