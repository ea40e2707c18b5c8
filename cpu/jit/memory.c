/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Flags between the host's and memory; addresses of operands and the checks of them.
 */
#include "cpu/jit/translate.h"

/* ---- flags ---- */

void
jit_save_flags(struct jit_scratch *t)
{
	if (!t->w.mem_ok) {
		if (t->in_line)
			e_flags_save(&t->e);
		else
			e_call(&t->e, t->j->stub.save);
	}
	t->w.mem_ok = true;
}

/* The host's flags are about to be lost; `live`: the guest's that count from here on. */
void
jit_clobber(struct jit_scratch *t, uint32_t live)
{
	if (live)
		jit_save_flags(t);
	t->w.host_ok = false;
}

void
jit_need_host(struct jit_scratch *t)
{
	if (!t->w.host_ok) {
		if (t->in_line)
			e_flags_load(&t->e);
		else
			e_call(&t->e, t->j->stub.load);
	}
	t->w.host_ok = true;
}

/* ---- addresses ---- */

/* Host register of a guest register; one that has none is loaded into `temp`. */
unsigned
jit_fetch(struct jit_scratch *t, unsigned guest, unsigned temp)
{
	if (jit_host_reg[guest] != NONE)
		return jit_host_reg[guest];
	e_load(&t->e, temp, JIT_OFF_GPR(guest));
	return temp;
}

static void
address_and(
	struct jit_scratch *t, const struct insn *n, const ZydisDecodedOperand *o, unsigned dst, bool w, int32_t more)
{
	const ZydisDecodedOperandMem *m = &o->mem;
	unsigned base = NONE, index = NONE, shift = 0;
	int32_t disp = (int32_t)m->disp.value + more;

	if (o->encoding == ZYDIS_OPERAND_ENCODING_DISP16_32_64 && t->wide) {
		uint64_t off = w ? (uint64_t)m->disp.value : (uint32_t)m->disp.value;

		E_BYTES(&t->e, 0x49, 0xb8 | (T_A & 7)); /* mov r11, imm64 */
		e_put(&t->e, &off, 8);
		return;
	}
	if (m->base == ZYDIS_REGISTER_RIP) {
		e_load(&t->e, dst, JIT_OFF(hot.page_va));
		e_lea(&t->e, w, dst, dst, NONE, 0, disp + n->off + n->in.length);
		return;
	}
	if (m->base != ZYDIS_REGISTER_NONE)
		base = jit_fetch(t, jit_guest_gpr(m->base), t->in_group ? H_CX : T_A);
	if (m->index != ZYDIS_REGISTER_NONE) {
		index = jit_fetch(t, jit_guest_gpr(m->index), T_B);
		shift = m->scale == 8 ? 3 : m->scale == 4 ? 2 : m->scale == 2 ? 1 : 0;
	}
	if (index == NONE && !disp && base != NONE && w)
		e_mov(&t->e, dst, base);
	else
		e_lea(&t->e, w, dst, base, index, shift, disp);
}

/* The address (offset) of `o` into `dst`; T_B and T_A (in a group: RCX) are used, flags are kept. */
void
jit_address(struct jit_scratch *t, const struct insn *n, const ZydisDecodedOperand *o, unsigned dst, bool w)
{
	address_and(t, n, o, dst, w, 0);
}

void
jit_linear_address(struct jit_scratch *t, const struct insn *n, const ZydisDecodedOperand *o, int32_t more)
{
	unsigned seg = o->mem.segment;

	address_and(t, n, o, T_A, n->in.address_width == 64, more);
	if (seg == ZYDIS_REGISTER_FS || seg == ZYDIS_REGISTER_GS) {
		e_load(&t->e, H_CX,
			JIT_OFF(i.c.v.state.seg) +
				(uint32_t)sizeof(struct x86_seg) * (seg == ZYDIS_REGISTER_FS ? SEG_FS : SEG_GS) +
				(uint32_t)offsetof(struct x86_seg, base));
		e_lea(&t->e, t->wide, T_A, T_A, H_CX, 0, 0);
	}
}

/* ---- one access ---- */

static unsigned
segment_bit(const struct insn *n)
{
	return n->mem && n->mem->mem.segment == ZYDIS_REGISTER_SS ? SITE_SS : 0;
}

unsigned
jit_access_of(const struct insn *n)
{
	unsigned a = n->mem->actions;

	if (n->vec)
		return (n->vec->mem_write ? SITE_WRITE : 0) | (n->vec->mem_read ? SITE_READ : 0) | segment_bit(n) |
		       (n->vec->align_mask ? SITE_ALIGN : 0) | (n->vec->mask != VEC_MASK_NONE ? SITE_MASKED : 0);

	return (a & ZYDIS_OPERAND_ACTION_MASK_WRITE ? SITE_WRITE : 0) |
	       (a & ZYDIS_OPERAND_ACTION_MASK_READ ? SITE_READ : 0) | segment_bit(n) |
	       (n->in.mnemonic == ZYDIS_MNEMONIC_CMPXCHG16B ? SITE_ALIGN : 0);
}

void
jit_check(struct jit_scratch *t, const struct insn *n, unsigned size, unsigned how)
{
	unsigned log2 = (unsigned)__builtin_ctz(size);

	if (t->asks) {
		how |= SITE_WINDOW;
		e_call(&t->e, t->j->stub.missed);
	} else {
		e_call(&t->e, t->j->stub.check[t->w.mmu][!!(how & SITE_WRITE)][!!(how & SITE_ALIGN)][log2]);
	}
	e8(&t->e, 0xa9); /* test eax, imm32 */
	e32(&t->e, jit_site_of(t, n) | how | SITE_SIZE_BITS(log2));
	t->tested = e_at(&t->e);
}

void
jit_checked(struct jit_scratch *t)
{
	uint32_t bytes = e_at(&t->e) - t->tested, site;

	if (t->tested && bytes && bytes <= SITE_SKIP_MAX) {
		memcpy(&site, t->e.base + t->tested - 4, 4);
		site |= SITE_SKIP(bytes);
		memcpy(t->e.base + t->tested - 4, &site, 4);
	}
	t->tested = 0;
}

/* ---- a group's ---- */

static bool
is_stack_kind(const struct insn *n)
{
	return n->kind == K_PUSH || n->kind == K_POP || n->kind == K_CALL || n->kind == K_RET;
}

static void
group_address(struct jit_scratch *t, const struct insn *n)
{
	if (is_stack_kind(n))
		e_lea(&t->e, t->wide, T_A, H_10, NONE, 0, n->group.low);
	else
		jit_linear_address(t, n, n->mem, n->group.low);
}

/* In the cold copy T_A ^ hot.stack_page is the linear address. */
static void
window_lookup(struct jit_scratch *t, const struct insn *n, uint32_t site[3])
{
	struct emit *e = &t->e;

	e_cpu(e, true, 0x33, T_A, JIT_OFF(hot.stack_page)); /* xor */
	e_alu_imm(e, true, 7, T_A, (int32_t)PAGE_SIZE - n->group.span);
	site[0] = e_jump_later(e, 7);	/* ja */
	if (n->group.write && t->smp) { /* others may watch the page by now */
		e_load(e, T_B, JIT_OFF(hot.stack_flags));
		E_BYTES(e, 0x41, 0x80, 0x38 | (T_B & 7), 0); /* cmp byte [r15], 0 */
		site[2] = e_jump_later(e, 5);
	}
}

static uint32_t
alignment(struct jit_scratch *t, const struct insn *n)
{
	if (!n->group.align)
		return 0;
	e_lea(&t->e, false, H_CX, T_A, NONE, 0, n->group.align_at);
	E_BYTES(&t->e, 0xf6, 0xc1, n->group.align - 1u); /* test cl, align - 1 */
	return e_jump_later(&t->e, 5);
}

static uint32_t
tlb_lookup(struct jit_scratch *t, unsigned span, bool write, uint32_t *watched)
{
	struct emit *e = &t->e;
	uint32_t tlb = JIT_OFF(i.c.tlb) + (uint32_t)sizeof(t->j->i.c.tlb[0]) * t->w.mmu, site;

	if (t->j->bmi2) {
		E_BYTES(e, 0xc4, 0xc3, 0x7b, 0xf0, 0xc8 | (T_A & 7), 7); /* rorx ecx, r11d, 7 */
	} else {
		e_mov32(e, H_CX, T_A);
		E_BYTES(e, 0xc1, 0xe9, 7); /* shr ecx, 7 */
	}
	if (span > 1)
		e_lea(e, true, T_B, T_A, NONE, 0, (int32_t)span - 1);
	else
		e_mov(e, T_B, T_A);
	e_alu_imm(e, true, 4, T_B, -(int32_t)PAGE_SIZE);
	e_alu_imm(e, false, 4, H_CX, (SOFT_TLB_SIZE - 1) * sizeof(struct soft_tlb_entry));
	e_cpu(e, true, 0x0b, T_B, JIT_OFF(hot.gen)); /* or */
	e_cpu_rcx(e, 0x3b, T_B,
		tlb + (write ? (uint32_t)offsetof(struct soft_tlb_entry, write)
			     : (uint32_t)offsetof(struct soft_tlb_entry, read)));
	site = e_jump_later(e, 5);
	if (write) {
		e_cpu_rcx(e, 0x8b, T_B, tlb + (uint32_t)offsetof(struct soft_tlb_entry, flags));
		E_BYTES(e, 0x41, 0x80, 0x38 | (T_B & 7), 0); /* cmp byte [r15], 0 */
		*watched = e_jump_later(e, 5);
	}
	e_cpu_rcx(e, 0x03, T_A, tlb + (uint32_t)offsetof(struct soft_tlb_entry, delta)); /* add */
	return site;
}

/* ---- through a window ---- */

void
jit_access_here(struct jit_scratch *t, const struct insn *n)
{
	if (t->in_line && t->windows && n->grouped)
		t->access[t->accesses++] =
			(struct access){ .at = e_at(&t->e), .insn = (uint16_t)(n - t->insn), .w = t->w };
}

/* T_B = what is to be added to addresses of the region of `reg`. RCX is clobbered, flags are kept. */
static void
window_of(struct jit_scratch *t, unsigned reg)
{
	struct emit *e = &t->e;

	E_BYTES(e, 0xc4, reg & 8 ? 0xc3 : 0xe3, 0xfb, 0xf0, 0xc8 | (reg & 7), JIT_REGION_SHIFT); /* rorx rcx, reg */
	E_BYTES(e, 0x44, 0x0f, 0xb6, 0xc1 | (T_B & 7) << 3);					 /* movzx r15d, cl */
	e_mem(e, true, 0x8b, T_B, H_SP, T_B, 3, e_disp(e, JIT_OFF(win.base)));
}

/* The host register that the group's first byte is at a fixed distance (*disp) from, or NONE. */
static unsigned
plain_base(const struct insn *n, int32_t *disp)
{
	const ZydisDecodedOperandMem *m = n->mem ? &n->mem->mem : NULL;
	int64_t d = n->group.low;

	*disp = n->group.low;
	if (is_stack_kind(n))
		return H_10;
	if (!m || m->base == ZYDIS_REGISTER_NONE || m->base == ZYDIS_REGISTER_RIP || m->index != ZYDIS_REGISTER_NONE ||
		m->segment == ZYDIS_REGISTER_FS || m->segment == ZYDIS_REGISTER_GS)
		return NONE;
	d += m->disp.value;
	if (d < -JIT_WINDOW_REACH + 512 || d > JIT_WINDOW_REACH - 512)
		return NONE;
	*disp = (int32_t)d;
	return jit_host_reg[jit_guest_gpr(m->base)];
}

static void
group_window(struct jit_scratch *t, const struct insn *n)
{
	int32_t disp;
	unsigned base = plain_base(n, &disp);
	bool direct = n->members == 1 && (is_stack_kind(n) || jit_fits_window(n, base == NONE));

	if (base == NONE) {
		group_address(t, n);
		base = T_A;
		disp = 0;
	}
	window_of(t, base);
	if (!direct)
		e_lea(&t->e, true, T_A, base, T_B, 0, disp);
	t->through.base = direct ? base : NONE;
	t->through.disp = disp;
}

void
jit_group_check(struct jit_scratch *t, const struct insn *n)
{
	struct emit *e = &t->e;
	uint32_t site[3] = { 0, 0, 0 };
	struct later *l;

	if (t->windows) {
		l = jit_later(t, LATER_GROUP, 0, (uint32_t)(n - t->insn));
		l->before = t->w;
		l->first = t->accesses;
		group_window(t, n);
		return;
	}
	jit_clobber(t, n->live_in);
	group_address(t, n);
	if (n->group.stack)
		window_lookup(t, n, site);
	site[1] = alignment(t, n);
	if (n->group.stack)
		e_cpu(e, true, 0x03, T_A, JIT_OFF(hot.stack_host)); /* add */
	else
		site[0] = tlb_lookup(t, n->group.span, n->group.write, &site[2]);
	l = jit_later(t, LATER_GROUP, site[0], (uint32_t)(n - t->insn));
	l->site[1] = site[1];
	l->site[2] = site[2];
	l->before = t->w;
}

/* ---- the copy of a group ---- */

/* From where the copy ends to what the code behind the group expects. */
static void
reconcile(struct jit_scratch *t, const struct where *w)
{
	if (w->mem_ok)
		jit_save_flags(t);
	if (w->host_ok)
		jit_need_host(t);
}

/* Accesses through a window that fault go on in the copy at the same instruction. */
static void
write_sites(struct jit_scratch *t, const struct later *l, const struct where *w, const uint32_t *at)
{
	for (unsigned i = l->first; i < l->end; i++) {
		const struct access *a = &t->access[i];
		struct jit_site *s = jit_meta(t->j, sizeof(*s)), **head = &t->j->sites[a->at % JIT_SITES];

		*s = (struct jit_site){ *head, a->at, e_at(&t->e) };
		*head = s;
		t->w = a->w;
		reconcile(t, &w[a->insn - l->data]);
		e_jmp(&t->e, at[a->insn - l->data]);
	}
}

void
jit_group_again(struct jit_scratch *t, const struct later *l)
{
	struct insn *n = &t->insn[l->data];
	const struct insn *last = &n[n->members - 1];
	struct where w[JIT_BLOCK_INSNS];
	uint32_t at[JIT_BLOCK_INSNS];

	t->w = l->before;
	t->asks = t->windows;
	if (n->group.stack && !t->windows) {
		e_cpu(&t->e, true, 0x33, T_A, JIT_OFF(hot.stack_page));
		e_call(&t->e, t->j->stub.window[t->w.mmu]);
	}
	t->in_line = false;
	for (unsigned i = 0; i < n->members; i++) {
		t->now = n[i].off;
		w[i] = t->w;
		at[i] = e_at(&t->e);
		jit_write_insn(t, &n[i]);
	}
	t->asks = false;
	if (last->kind != K_CALL && last->kind != K_RET) {
		reconcile(t, &l->after);
		e_jmp(&t->e, l->back);
	}
	if (t->windows)
		write_sites(t, l, w, at);
}
