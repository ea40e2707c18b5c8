/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Memory operands of host-executed instructions.
 *
 * Direct: an operand inside one page of RAM is used where it lies. Bounced: one that crosses pages, is not RAM or is
 * watched by a debug register goes through a buffer; a store's whole destination is checked before the instruction
 * runs, so that a fault changes nothing. Masked: only elements whose mask bit is set are touched, so that the others
 * cannot fault (SDM 1 section 15.6.4, SDM 2 "VMASKMOV"). Gathers and scatters go element by element, in ascending
 * order, each committed with its mask bit before the next, so that a fault in the middle leaves what the SDM asks for.
 */
#include <string.h>

#include "base/log.h"
#include "cpu/x86/vec.h"

static _Noreturn void
fail(struct soft_cpu *c, struct vec_op *op, uint32_t outcome)
{
	if (op->mmx)
		__asm__ volatile("emms");
	switch (outcome) {
	case VEC_FP:
		x86_raise(c, c->v.state.cr4 & CR4_OSXMMEXCPT ? EXC_XM : EXC_UD);
	case VEC_FAULT:
		log_guest("cpu", "A host-executed instruction faulted in the host at guest rip 0x%llx.",
			(unsigned long long)c->v.state.rip);
		x86_gp(c, 0);
	default:
		x86_ud(c);
	}
}

void
vec_call(struct soft_cpu *c, struct vec_op *op, void *mem)
{
	uint32_t outcome;

	if (!op->thunk && !vec_emit(c->vec, op))
		x86_ud(c);
	if (op->mmx)
		vec_mmx_enter(c);
	outcome = op->thunk(&c->v.state, mem);
	if (outcome)
		fail(c, op, outcome);
}

void
vec_run_reg(struct soft_cpu *c, struct vec_op *op, gva_t a, uint64_t seg_base)
{
	if (op->mmx)
		vec_mmx_check(c);
	vec_call(c, op, NULL);
}

void
vec_run_nothing(struct soft_cpu *c, struct vec_op *op, gva_t a, uint64_t seg_base)
{
}

/* Cache line instructions: the address is checked as for a load, and caches are not modelled. */
void
vec_run_touch(struct soft_cpu *c, struct vec_op *op, gva_t a, uint64_t seg_base)
{
	x86_probe(c, a, 1, X86_READ, c->mmu);
}

/* Scalar and MMX operands are checked for alignment, vectors of 16 bytes and more are not (SDM 1 14.4.1). */
void
vec_check_aligned(struct soft_cpu *c, const struct vec_op *op, gva_t a)
{
	gva_t mask = op->mem_size == 10 ? 7 : op->mem_size <= 8 ? op->mem_size - 1u : 0;

	if (a & mask && op->mnemonic != ZYDIS_MNEMONIC_VCVTPH2PS)
		x86_raise_error(c, EXC_AC, 0);
}

static void
store_operand(struct soft_cpu *c, struct vec_op *op, gva_t a)
{
	struct soft_tlb_entry *e = NULL;
	uint8_t *buf = c->vec->bounce;
	void *p;

	if (op->mxcsr) { /* VCVTPS2PH: its own exceptions come before the store's */
		vec_call(c, op, buf);
		x86_store_bytes(c, a, buf, op->mem_size, c->mmu);
		return;
	}
	p = vec_direct(c, a, op->mem_size, X86_WRITE, &e);
	if (p) {
		vec_call(c, op, p);
		vec_written(c, e);
		return;
	}
	x86_probe(c, a, op->mem_size, X86_WRITE, c->mmu);
	if (op->mem_read)
		x86_load_bytes(c, a, buf, op->mem_size, c->mmu);
	vec_call(c, op, buf);
	x86_store_bytes(c, a, buf, op->mem_size, c->mmu);
}

void
vec_run_mem(struct soft_cpu *c, struct vec_op *op, gva_t a, uint64_t seg_base)
{
	struct soft_tlb_entry *e = NULL;
	void *p;

	if (op->mmx)
		vec_mmx_check(c);
	if (a & op->align_mask)
		x86_gp(c, 0);
	if (c->ac_check)
		vec_check_aligned(c, op, a);
	if (op->mem_write) {
		store_operand(c, op, a);
		return;
	}
	p = vec_direct(c, a, op->mem_size, X86_READ, &e);
	if (!p) {
		p = c->vec->bounce;
		x86_load_bytes(c, a, p, op->mem_size, c->mmu);
	}
	vec_call(c, op, p);
}

/* ---- masked ---- */

static uint64_t
low_bits(unsigned n)
{
	return n >= 64 ? UINT64_MAX : (1ull << n) - 1;
}

/* Bit i: the sign bit of element i. */
static uint64_t
sign_bits(const uint8_t *reg, unsigned size, unsigned count)
{
	uint64_t mask = 0;

	for (unsigned i = 0; i < count; i++)
		mask |= (uint64_t)(reg[(i + 1) * size - 1] >> 7) << i;
	return mask;
}

/* Which elements of the memory operand are touched. */
static uint64_t
touched(struct soft_cpu *c, const struct vec_op *op)
{
	const struct x86_state *s = &c->v.state;
	uint64_t k = s->k[op->mask_reg & 7] & low_bits(op->mask_bits), m = 0;

	switch (op->mask) {
	case VEC_MASK_EACH:
		return k;
	case VEC_MASK_REPEAT:
		for (unsigned i = 0; i < op->mask_bits; i++)
			m |= (k >> i & 1) << i % op->elem_count;
		return m;
	case VEC_MASK_COMPRESS:
		return low_bits((unsigned)__builtin_popcountll(k));
	default:
		return sign_bits(s->zmm[op->mask_reg], op->elem_size, op->elem_count);
	}
}

static void
each_element(struct soft_cpu *c, struct vec_op *op, gva_t a, uint64_t mask,
	void (*fn)(struct soft_cpu *c, gva_t a, uint8_t *buf, unsigned size))
{
	for (; mask; mask &= mask - 1) {
		unsigned off = (unsigned)__builtin_ctzll(mask) * op->elem_size;
		gva_t at = c->mode == X86_LONG64 ? a + off : (uint32_t)(a + off);

		fn(c, at, c->vec->bounce + off, op->elem_size);
	}
}

static void
load_element(struct soft_cpu *c, gva_t a, uint8_t *buf, unsigned size)
{
	x86_load_bytes(c, a, buf, size, c->mmu);
}

static void
probe_element(struct soft_cpu *c, gva_t a, uint8_t *buf, unsigned size)
{
	x86_probe(c, a, size, X86_WRITE, c->mmu);
}

static void
store_element(struct soft_cpu *c, gva_t a, uint8_t *buf, unsigned size)
{
	x86_store_bytes(c, a, buf, size, c->mmu);
}

static void
masked_bounced(struct soft_cpu *c, struct vec_op *op, gva_t a, uint64_t mask)
{
	memset(c->vec->bounce, 0, op->mem_size);
	if (!op->mem_write)
		each_element(c, op, a, mask, load_element);
	else if (!op->mxcsr)
		each_element(c, op, a, mask, probe_element);
	vec_call(c, op, c->vec->bounce);
	if (!op->mem_write)
		return;
	if (op->mxcsr)
		each_element(c, op, a, mask, probe_element);
	each_element(c, op, a, mask, store_element);
}

bool
vec_touches_nothing(struct soft_cpu *c, const struct vec_op *op)
{
	return op->run == vec_run_masked && !op->mask_probe && !touched(c, op);
}

void
vec_run_masked(struct soft_cpu *c, struct vec_op *op, gva_t a, uint64_t seg_base)
{
	struct soft_tlb_entry *e = NULL;
	uint64_t mask;
	unsigned lo, hi;
	uint8_t *p;

	mask = touched(c, op);
	if (mask && a & op->align_mask)
		x86_gp(c, 0);
	if (mask && c->ac_check)
		vec_check_aligned(c, op, a);
	if (op->mask_probe)
		x86_probe(c, a, op->mem_size, X86_WRITE, c->mmu);
	if (!mask || (a & PAGE_MASK) + op->mem_size > PAGE_SIZE || (op->mem_write && op->mxcsr)) {
		masked_bounced(c, op, a, mask);
		return;
	}
	lo = (unsigned)__builtin_ctzll(mask) * op->elem_size;
	hi = (64 - (unsigned)__builtin_clzll(mask)) * op->elem_size;
	p = vec_direct(c, a + lo, hi - lo, op->mem_write ? X86_WRITE : X86_READ, &e);
	if (!p) {
		masked_bounced(c, op, a, mask);
		return;
	}
	vec_call(c, op, p - lo);
	if (op->mem_write)
		vec_written(c, e);
}

/*
 * MASKMOVQ and MASKMOVDQU: bytes of a register; no fault where the mask is 0. With alignment checks on, processors want 8 bytes
 * of all three forms, whatever the mask (tried; SDM 1 14.4.1 leaves it out).
 */
void
vec_run_maskmov(struct soft_cpu *c, struct vec_op *op, gva_t a, uint64_t seg_base)
{
	struct x86_state *s = &c->v.state;
	const uint8_t *data = s->zmm[op->vsib.dst], *select = s->zmm[op->mask_reg];
	uint64_t mask;

	if (op->mmx) {
		unsigned top;
		vec_mmx_check(c);
		top = X87_TOP(s->x87.fsw);
		data = s->x87.st[(op->vsib.dst - top) & 7];
		select = s->x87.st[(op->mask_reg - top) & 7];
	}
	if (c->ac_check && a & 7)
		x86_raise_error(c, EXC_AC, 0);
	mask = sign_bits(select, 1, op->elem_count);
	memcpy(c->vec->bounce, data, op->elem_count);
	each_element(c, op, a, mask, probe_element);
	if (op->mmx)
		vec_mmx_enter(c);
	each_element(c, op, a, mask, store_element);
}

/* ---- gathers and scatters: their elements are not checked for alignment (tried; SDM 2 table 2-27 says they are) ---- */

static gva_t
element_address(struct soft_cpu *c, struct vec_op *op, unsigned i, enum x86_access access)
{
	struct x86_state *s = &c->v.state;
	const uint8_t *index = s->zmm[op->vsib.index] + i * op->vsib.index_size;
	uint64_t off = op->vsib.base == 0xff ? 0 : s->gpr[op->vsib.base];
	int64_t n;

	if (op->vsib.index_size == 8) {
		memcpy(&n, index, 8);
	} else {
		int32_t n32;
		memcpy(&n32, index, 4);
		n = n32;
	}
	off += (uint64_t)n * op->vsib.scale + (uint64_t)(int64_t)op->vsib.disp;
	if (op->vsib.addr_size < 8)
		off &= low_bits(op->vsib.addr_size * 8u);
	return x86_linear(c, op->vsib.seg, off, op->elem_size, access);
}

static bool
element_enabled(struct soft_cpu *c, struct vec_op *op, unsigned i)
{
	struct x86_state *s = &c->v.state;

	if (op->encoding == VEC_EVEX)
		return s->k[op->vsib.mask] >> i & 1;
	return s->zmm[op->vsib.mask][(i + 1) * op->elem_size - 1] >> 7;
}

static void
element_done(struct soft_cpu *c, struct vec_op *op, unsigned i)
{
	struct x86_state *s = &c->v.state;

	if (op->encoding == VEC_EVEX)
		s->k[op->vsib.mask] &= ~(1ull << i);
	else
		memset(s->zmm[op->vsib.mask] + i * op->elem_size, 0, op->elem_size);
}

static void
mask_done(struct soft_cpu *c, struct vec_op *op)
{
	struct x86_state *s = &c->v.state;

	if (op->encoding == VEC_EVEX)
		s->k[op->vsib.mask] = 0;
	else
		memset(s->zmm[op->vsib.mask], 0, 64);
}

/* The VEX form first makes the mask all ones or zeros, and nothing above them (SDM 2 "VPGATHERDD"). */
static void
prepare_gather(struct soft_cpu *c, struct vec_op *op)
{
	struct x86_state *s = &c->v.state;
	unsigned bytes = op->elem_size * op->elem_count;

	for (unsigned i = 0; i < op->elem_count; i++)
		memset(s->zmm[op->vsib.mask] + i * op->elem_size, element_enabled(c, op, i) ? 0xff : 0, op->elem_size);
	memset(s->zmm[op->vsib.mask] + bytes, 0, 64 - bytes);
}

void
vec_run_gather(struct soft_cpu *c, struct vec_op *op, gva_t a, uint64_t seg_base)
{
	uint8_t *dst = c->v.state.zmm[op->vsib.dst];
	unsigned bytes = op->elem_size * op->elem_count;

	if (op->encoding == VEC_VEX)
		prepare_gather(c, op);
	for (unsigned i = 0; i < op->elem_count; i++) {
		if (!element_enabled(c, op, i))
			continue;
		uint8_t v[8];

		x86_load_bytes(c, element_address(c, op, i, X86_READ), v, op->elem_size, c->mmu);
		memcpy(dst + i * op->elem_size, v, op->elem_size);
		memset(dst + bytes, 0, 64 - bytes);
		element_done(c, op, i);
	}
	memset(dst + bytes, 0, 64 - bytes);
	mask_done(c, op);
}

void
vec_run_scatter(struct soft_cpu *c, struct vec_op *op, gva_t a, uint64_t seg_base)
{
	for (unsigned i = 0; i < op->elem_count; i++) {
		if (!element_enabled(c, op, i))
			continue;
		x86_store_bytes(c, element_address(c, op, i, X86_WRITE),
			c->v.state.zmm[op->vsib.dst] + i * op->elem_size, op->elem_size, c->mmu);
		element_done(c, op, i);
	}
	mask_done(c, op);
}

/* SDM 2 "MOVDIR64B": the source is an ordinary operand, the destination is ES:reg, 64-byte aligned. */
void
vec_run_movdir64b(struct soft_cpu *c, struct vec_op *op, gva_t a, uint64_t seg_base)
{
	uint64_t off = c->v.state.gpr[op->vsib.base];
	gva_t to;

	if (op->vsib.addr_size < 8)
		off &= low_bits(op->vsib.addr_size * 8u);
	x86_load_bytes(c, a, c->vec->bounce, 64, c->mmu);
	to = x86_linear(c, SEG_ES, off, 64, X86_WRITE);
	if (to & 63)
		x86_gp(c, 0);
	x86_store_bytes(c, to, c->vec->bounce, 64, c->mmu);
}
