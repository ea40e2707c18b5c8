/* SPDX-License-Identifier: Apache-2.0 */
/*
 * XSAVE, XSAVEOPT, XSAVEC, XSAVES, XRSTOR, XRSTORS and XINUSE (SDM 1 chapter 13).
 *
 * A component is in use when its registers are not all in their initial configuration: looked up when asked, exactly.
 * Components: 0 x87, 1 SSE (with MXCSR), 2 the upper halves of YMM, 5 k0-k7, 6 the upper halves of ZMM0-15, 7 ZMM16-31.
 * Outside 64-bit mode registers 8 and up are neither saved nor restored. All of an area is checked, and what is to be
 * restored is read, before anything changes.
 */
#include <string.h>

#include "cpu/x86/vec.h"

#define XSAVE_HEADER 512
#define XSAVE_EXTENDED 576
#define XCOMP_COMPACT (1ull << 63)

enum { XC_X87, XC_SSE, XC_AVX, XC_OPMASK = 5, XC_ZMM_HI256, XC_HI16_ZMM, XC_COUNT };

/* `n` is a multiple of 16. */
static bool
all_zero(const uint8_t *p, unsigned n)
{
	uint64_t w[2];

	for (unsigned i = 0; i < n; i += 16) {
		memcpy(w, p + i, 16);
		if (w[0] | w[1])
			return false;
	}
	return true;
}

static bool
x87_in_use(const struct x87_state *x)
{
	return x->fcw != FCW_RESET || x->fsw || x->ftw || x->fop || x->fip || x->fdp ||
	       !all_zero(x->st[0], sizeof(x->st));
}

static bool
zmm_in_use(const struct x86_state *s, unsigned first, unsigned count, unsigned from, unsigned to)
{
	for (unsigned i = first; i < first + count; i++)
		if (!all_zero(s->zmm[i] + from, to - from))
			return true;
	return false;
}

uint64_t
vec_xinuse(struct soft_cpu *c)
{
	const struct x86_state *s = &c->v.state;
	uint64_t use = 0;

	vec_sync(c);
	use |= (uint64_t)x87_in_use(&s->x87) << XC_X87;
	use |= (uint64_t)zmm_in_use(s, 0, 16, 0, 16) << XC_SSE;
	use |= (uint64_t)zmm_in_use(s, 0, 16, 16, 32) << XC_AVX;
	use |= (uint64_t)!all_zero((const uint8_t *)s->k, sizeof(s->k)) << XC_OPMASK;
	use |= (uint64_t)zmm_in_use(s, 0, 16, 32, 64) << XC_ZMM_HI256;
	use |= (uint64_t)zmm_in_use(s, 16, 16, 0, 64) << XC_HI16_ZMM;
	return use & s->xcr0;
}

/* The registers that make up an extended component in this mode, as parts of zmm[]. */
struct part {
	unsigned first, count, from, size;
};

static struct part
part_of(struct soft_cpu *c, unsigned component)
{
	unsigned n = fpu_xmm_count(c);

	switch (component) {
	case XC_AVX:
		return (struct part){ 0, n, 16, 16 };
	case XC_ZMM_HI256:
		return (struct part){ 0, n, 32, 32 };
	case XC_HI16_ZMM:
		return (struct part){ 16, n == 16 ? 16 : 0, 0, 64 };
	default:
		return (struct part){ 0 };
	}
}

/* From the state into `buf`; returns how many bytes there are in this mode. */
static unsigned
get_component(struct soft_cpu *c, unsigned i, uint8_t *buf)
{
	struct x86_state *s = &c->v.state;
	struct part p = part_of(c, i);

	if (i == XC_OPMASK) {
		memcpy(buf, s->k, sizeof(s->k));
		return sizeof(s->k);
	}
	for (unsigned r = 0; r < p.count; r++)
		memcpy(buf + r * p.size, s->zmm[p.first + r] + p.from, p.size);
	return p.count * p.size;
}

/* From `buf` into the state; NULL: the initial configuration. */
static void
put_component(struct soft_cpu *c, unsigned i, const uint8_t *buf)
{
	struct x86_state *s = &c->v.state;
	struct part p = part_of(c, i);

	if (i == XC_OPMASK && buf)
		memcpy(s->k, buf, sizeof(s->k));
	else if (i == XC_OPMASK)
		memset(s->k, 0, sizeof(s->k));
	for (unsigned r = 0; r < p.count; r++) {
		if (buf)
			memcpy(s->zmm[p.first + r] + p.from, buf + r * p.size, p.size);
		else
			memset(s->zmm[p.first + r] + p.from, 0, p.size);
	}
}

/* Where each component of `bv` lies. */
static void
layout(struct vec_cache *vc, uint64_t bv, bool compact, uint32_t off[XC_COUNT])
{
	uint32_t at = XSAVE_EXTENDED;

	for (unsigned i = XC_AVX; i < XC_COUNT; i++) {
		const struct vec_component *k = &vc->component[i];
		if (!(bv >> i & 1))
			continue;
		if (compact && k->align)
			at = (at + 63) & ~63u;
		off[i] = compact ? at : k->offset;
		at += k->size;
	}
}

static uint64_t
requested(struct soft_cpu *c)
{
	const struct x86_state *s = &c->v.state;

	return s->xcr0 & ((uint32_t)s->gpr[RAX] | s->gpr[RDX] << 32) & 0xff;
}

static void
save_legacy(struct soft_cpu *c, struct vec_op *op, gva_t a, uint64_t write, bool mxcsr)
{
	struct x86_state *s = &c->v.state;
	uint8_t area[256];

	if (write >> XC_X87 & 1) {
		fpu_put_environment(&s->x87, area, op->opsize == 8);
		x86_store_bytes(c, a, area, 24, c->mmu);
		fpu_put_registers(&s->x87, area);
		x86_store_bytes(c, a + 32, area, 128, c->mmu);
	}
	if (mxcsr)
		x86_store(c, a + 24, s->x87.mxcsr | (uint64_t)c->vec->host.mxcsr_mask << 32, 8, c->mmu);
	if (write >> XC_SSE & 1) {
		for (unsigned i = 0; i < fpu_xmm_count(c); i++)
			memcpy(area + 16 * i, s->zmm[i], 16);
		x86_store_bytes(c, a + FXSAVE_XMM, area, 16 * fpu_xmm_count(c), c->mmu);
	}
}

void
xsave_save(struct soft_cpu *c, struct vec_op *op, gva_t a, bool compact, bool optimise)
{
	uint64_t rfbm = requested(c), use, write, header[2];
	uint32_t off[XC_COUNT] = { 0 };
	uint8_t buf[1024];
	bool mxcsr;

	if (a & 63)
		x86_gp(c, 0);
	layout(c->vec, rfbm, compact, off);
	x86_probe(c, a, XSAVE_EXTENDED, X86_WRITE, c->mmu);
	for (unsigned i = XC_AVX; i < XC_COUNT; i++)
		if (off[i])
			x86_probe(c, a + off[i], c->vec->component[i].size, X86_WRITE, c->mmu);
	use = vec_xinuse(c) & rfbm;
	if (compact && rfbm >> XC_SSE & 1 && c->v.state.x87.mxcsr != 0x1f80)
		use |= 1u << XC_SSE; /* SDM 1 section 13.10 */
	write = optimise ? use : rfbm;
	mxcsr = compact ? use >> XC_SSE & 1 : (rfbm & 6) != 0;
	save_legacy(c, op, a, write, mxcsr);
	for (unsigned i = XC_AVX; i < XC_COUNT; i++)
		if (off[i] && write >> i & 1)
			x86_store_bytes(c, a + off[i], buf, get_component(c, i, buf), c->mmu);
	header[0] = x86_load(c, a + XSAVE_HEADER, 8, c->mmu);
	header[0] = compact ? use : (header[0] & ~rfbm) | use;
	header[1] = rfbm | XCOMP_COMPACT;
	x86_store_bytes(c, a + XSAVE_HEADER, header, compact ? 16 : 8, c->mmu);
}

static void
check_header(struct soft_cpu *c, const uint64_t h[8], bool supervisor)
{
	uint64_t xcr0 = c->v.state.xcr0;
	uint64_t listed = h[1] & ~XCOMP_COMPACT;
	bool compact = h[1] >> 63;

	if (compact ? !c->vec->compaction : supervisor)
		x86_gp(c, 0);
	if (compact && (listed & ~xcr0 || h[0] & ~listed))
		x86_gp(c, 0);
	if (!compact && (h[0] & ~xcr0 || h[1]))
		x86_gp(c, 0);
	for (unsigned i = 2; i < (compact ? 8 : 3); i++)
		if (h[i])
			x86_gp(c, 0);
}

static void
restore_legacy(struct soft_cpu *c, struct vec_op *op, const uint8_t *area, uint64_t rfbm, uint64_t bv)
{
	struct x86_state *s = &c->v.state;

	if (rfbm >> XC_X87 & 1) {
		if (bv >> XC_X87 & 1) {
			fpu_get_environment(c, area, op->opsize == 8);
			fpu_get_registers(&s->x87, area + 32);
		} else {
			fpu_init_x87(c, true);
		}
	}
	if (rfbm >> XC_SSE & 1)
		for (unsigned i = 0; i < fpu_xmm_count(c); i++) {
			if (bv >> XC_SSE & 1)
				memcpy(s->zmm[i], area + FXSAVE_XMM + 16 * i, 16);
			else
				memset(s->zmm[i], 0, 16);
		}
}

/* What XRSTOR does to MXCSR: true, and the value; false: nothing. SDM 1 sections 13.8.1 and 13.8.2. */
static bool
restored_mxcsr(const uint8_t *area, uint64_t rfbm, uint64_t bv, bool compact, uint32_t *value)
{
	memcpy(value, area + 24, 4);
	if (!compact)
		return (rfbm & 6) != 0;
	if (!(bv >> XC_SSE & 1))
		*value = 0x1f80;
	return rfbm >> XC_SSE & 1;
}

void
xsave_restore(struct soft_cpu *c, struct vec_op *op, gva_t a, bool supervisor)
{
	uint64_t rfbm = requested(c), header[8];
	uint32_t off[XC_COUNT] = { 0 }, mxcsr;
	uint8_t area[XSAVE_EXTENDED] __attribute__((aligned(16))), ext[XC_COUNT][1024];
	bool compact, set_mxcsr;

	if (a & 63)
		x86_gp(c, 0);
	x86_load_bytes(c, a, area, sizeof(area), c->mmu);
	memcpy(header, area + XSAVE_HEADER, sizeof(header));
	check_header(c, header, supervisor);
	compact = header[1] >> 63;
	set_mxcsr = restored_mxcsr(area, rfbm, header[0], compact, &mxcsr);
	if (set_mxcsr)
		fpu_check_mxcsr(c, mxcsr);
	layout(c->vec, compact ? header[1] : rfbm, compact, off);
	for (unsigned i = XC_AVX; i < XC_COUNT; i++) {
		if (rfbm & header[0] & 1u << i)
			x86_load_bytes(c, a + off[i], ext[i], c->vec->component[i].size, c->mmu);
	}
	if (set_mxcsr)
		c->v.state.x87.mxcsr = mxcsr;
	restore_legacy(c, op, area, rfbm, header[0]);
	for (unsigned i = XC_AVX; i < XC_COUNT; i++)
		if (rfbm >> i & 1)
			put_component(c, i, header[0] >> i & 1 ? ext[i] : NULL);
}

void
xsave_save_supervisor(struct soft_cpu *c, struct vec_op *op, gva_t a)
{
	if (c->cpl)
		x86_gp(c, 0);
	xsave_save(c, op, a, true, true);
}

void
xsave_restore_supervisor(struct soft_cpu *c, struct vec_op *op, gva_t a)
{
	if (c->cpl)
		x86_gp(c, 0);
	xsave_restore(c, op, a, true);
}
