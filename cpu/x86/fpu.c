/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The x87 and MMX state, and the instructions that save and restore it.
 *
 * x87 instructions run on the host's x87 unit. The guest's x87 registers stay there from one x87 instruction to the
 * next (x87_live) and come home to state.x87 when somebody looks: MMX, the save instructions, vec_sync(). That is
 * allowed because nothing else on a vCPU thread uses x87 (no long double in this program), and the kernel switches it
 * with the thread. The guest's control word is loaded with its masks: an unmasked exception only sets ES in the status
 * word, and the check before the next waiting instruction turns that into #MF before the host could raise its own.
 *
 * FIP is the guest's rip, kept here (the host's would show the thunk). FDP and FOP are updated when an instruction
 * leaves an unmasked exception, as CPUID.7.EBX.FDP_EXCPTN_ONLY says, and FDP always where the host lacks that bit. FCS
 * and FDS are stored as 0 (CPUID.7.EBX[13]).
 */
#include <string.h>

#include "base/log.h"
#include "cpu/x86/vec.h"

#define FSW_ES 0x0080
#define FSW_B 0x8000
#define FSW_EXCEPTIONS 0x003f
#define FSW_TOP 0x3800

/* ---- the host's x87 unit ---- */

#define ALL_XMM                                                                                                        \
	"xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11", "xmm12",     \
		"xmm13", "xmm14", "xmm15"

static void
x87_enter(struct soft_cpu *c)
{
	struct vec_cache *vc = c->vec;
	struct x87_state *image = (struct x87_state *)vc->image;

	memcpy(image, &c->v.state.x87, sizeof(*image));
	image->fop = 0;
	image->fip = image->fdp = 0;
	image->mxcsr = 0x1f80;
	__asm__ volatile("fxrstor64 %0" : : "m"(vc->image) : ALL_XMM);
	vc->x87_live = true;
}

static void
commit_pointers(struct soft_cpu *c)
{
	c->v.state.x87.fdp = c->vec->last_fdp;
	c->v.state.x87.fop = c->vec->last_fop;
}

static void
x87_leave(struct soft_cpu *c)
{
	struct vec_cache *vc = c->vec;
	struct x87_state *image = (struct x87_state *)vc->image, *x = &c->v.state.x87;

	__asm__ volatile("fxsave64 %0\n\tfninit" : "+m"(vc->image));
	x->fcw = image->fcw;
	x->fsw = image->fsw;
	x->ftw = image->ftw;
	memcpy(x->st, image->st, sizeof(x->st));
	memset(vc->image + FXSAVE_XMM, 0, 256);
	if (x->fsw & FSW_ES)
		commit_pointers(c);
	vc->x87_live = false;
}

void
vec_sync(struct soft_cpu *c)
{
	if (c->vec && c->vec->x87_live)
		x87_leave(c);
}

static uint16_t
host_fsw(void)
{
	uint16_t fsw;

	__asm__ volatile("fnstsw %0" : "=a"(fsw));
	return fsw;
}

static uint16_t
host_fcw(void)
{
	uint16_t fcw;

	__asm__ volatile("fnstcw %0" : "=m"(fcw));
	return fcw;
}

/* With CR0.NE = 0 the PC's wiring would raise IRQ 13 and the guest's handler would clear the exception; nothing made
 * since the 486 uses that. */
static void
ignore_pending(struct soft_cpu *c)
{
	log_guest("cpu", "An x87 exception with CR0.NE = 0 was dropped: there is no FERR# here.");
	if (c->vec->x87_live)
		__asm__ volatile("fnclex");
	else
		c->v.state.x87.fsw &= ~(FSW_ES | FSW_B | FSW_EXCEPTIONS);
}

void
vec_check_pending(struct soft_cpu *c)
{
	uint16_t fsw = c->vec->x87_live ? host_fsw() : c->v.state.x87.fsw;

	if (!(fsw & FSW_ES))
		return;
	if (c->v.state.cr0 & CR0_NE)
		x86_raise(c, EXC_MF);
	ignore_pending(c);
}

/*
 * Would a store with unmasked exceptions happen? Not where it raises one; then its address is not looked at. Tried out
 * on the buffer, with the registers put back afterwards. True: it stores. False: it did all it does.
 */
static bool
try_store(struct soft_cpu *c, struct vec_op *op)
{
	uint8_t *buf = c->vec->bounce, untouched[16], before[512] __attribute__((aligned(16)));

	__asm__ volatile("fxsave64 %0" : "=m"(before));
	memset(buf, 0xa5, sizeof(untouched));
	memset(untouched, 0xa5, sizeof(untouched));
	vec_call(c, op, buf);
	if (host_fsw() & FSW_ES && !memcmp(buf, untouched, sizeof(untouched)))
		return false;
	__asm__ volatile("fxrstor64 %0" : : "m"(before) : ALL_XMM);
	return true;
}

static void
store_x87(struct soft_cpu *c, struct vec_op *op, gva_t a)
{
	struct soft_tlb_entry *e = NULL;
	void *p;

	if (!op->x87_control && (host_fcw() & FSW_EXCEPTIONS) != FSW_EXCEPTIONS && !try_store(c, op))
		return;
	if (c->ac_check)
		vec_check_aligned(c, op, a);
	p = vec_direct(c, a, op->mem_size, X86_WRITE, &e);
	if (p) {
		vec_call(c, op, p);
		vec_written(c, e);
		return;
	}
	x86_probe(c, a, op->mem_size, X86_WRITE, c->mmu);
	vec_call(c, op, c->vec->bounce);
	x86_store_bytes(c, a, c->vec->bounce, op->mem_size, c->mmu);
}

static void
load_x87(struct soft_cpu *c, struct vec_op *op, gva_t a)
{
	struct soft_tlb_entry *e = NULL;
	void *p;

	if (c->ac_check)
		vec_check_aligned(c, op, a);
	p = vec_direct(c, a, op->mem_size, X86_READ, &e);
	if (!p) {
		p = c->vec->bounce;
		x86_load_bytes(c, a, p, op->mem_size, c->mmu);
	}
	vec_call(c, op, p);
}

void
vec_run_x87(struct soft_cpu *c, struct vec_op *op, gva_t a, uint64_t seg_base)
{
	struct vec_cache *vc = c->vec;
	struct x87_state *x = &c->v.state.x87;

	if (!vc->x87_live)
		x87_enter(c);
	if (!op->x87_nowait)
		vec_check_pending(c);
	else if (op->mnemonic == ZYDIS_MNEMONIC_FNCLEX && host_fsw() & FSW_ES)
		commit_pointers(c);
	if (op->mem_write)
		store_x87(c, op, a);
	else if (op->mem_size)
		load_x87(c, op, a);
	else
		vec_call(c, op, NULL);
	if (op->mnemonic == ZYDIS_MNEMONIC_FNINIT) {
		x->fip = x->fdp = vc->last_fdp = 0;
		x->fop = vc->last_fop = 0;
	}
	if (op->x87_control)
		return;
	x->fip = c->v.state.rip;
	vc->last_fop = op->fop;
	if (op->mem_size)
		vc->last_fdp = a - seg_base;
	if (op->mem_size && !vc->host.fdp_exception_only)
		x->fdp = a - seg_base;
}

void
vec_run_fwait(struct soft_cpu *c, struct vec_op *op, gva_t a, uint64_t seg_base)
{
	vec_check_pending(c);
}

/* ---- MMX ---- */

void
vec_mmx_check(struct soft_cpu *c)
{
	vec_sync(c);
	vec_check_pending(c);
}

/* st[] counts from TOP: the registers stay where they are when TOP changes. */
static void
set_top(struct x87_state *x, unsigned top)
{
	unsigned by = (top - X87_TOP(x->fsw)) & 7;
	uint8_t old[8][16];

	x->fsw = (uint16_t)((x->fsw & ~FSW_TOP) | top << 11);
	if (!by)
		return;
	memcpy(old, x->st, sizeof(old));
	for (unsigned i = 0; i < 8; i++)
		memcpy(x->st[i], old[(i + by) & 7], 16);
}

/* SDM 1 section 9.5.1: TOP becomes 0 and all tags valid. */
void
vec_mmx_enter(struct soft_cpu *c)
{
	set_top(&c->v.state.x87, 0);
	c->v.state.x87.ftw = 0xff;
}

void
vec_run_emms(struct soft_cpu *c, struct vec_op *op, gva_t a, uint64_t seg_base)
{
	vec_mmx_check(c);
	vec_mmx_enter(c);
	c->v.state.x87.ftw = 0;
}

void
vec_run_zero(struct soft_cpu *c, struct vec_op *op, gva_t a, uint64_t seg_base)
{
	unsigned regs = c->mode == X86_LONG64 ? 16 : 8, from = op->mnemonic == ZYDIS_MNEMONIC_VZEROALL ? 0 : 16;

	for (unsigned i = 0; i < regs; i++)
		memset(c->v.state.zmm[i] + from, 0, 64 - from);
}

/* ---- MXCSR ---- */

void
fpu_check_mxcsr(struct soft_cpu *c, uint32_t value)
{
	if (value & ~c->vec->host.mxcsr_mask)
		x86_gp(c, 0);
}

static void
ldmxcsr(struct soft_cpu *c, gva_t a)
{
	uint32_t value = (uint32_t)x86_load(c, a, 4, c->mmu);

	fpu_check_mxcsr(c, value);
	c->v.state.x87.mxcsr = value;
}

/* ---- the legacy area ---- */

/* FCW to FDP (bytes 0-23) of the FXSAVE image; `wide`: 64-bit pointers. SDM 1 table 10-2. */
void
fpu_put_environment(const struct x87_state *x, uint8_t *area, bool wide)
{
	uint32_t ip = (uint32_t)x->fip, dp = (uint32_t)x->fdp;

	memcpy(area, x, 24);
	area[5] = 0;
	if (wide)
		return;
	memset(area + 8, 0, 16);
	memcpy(area + 8, &ip, 4);
	memcpy(area + 16, &dp, 4);
}

/* ES follows from flags and masks, whatever was stored. */
static uint16_t
consistent_fsw(uint16_t fsw, uint16_t fcw)
{
	fsw &= (uint16_t) ~(FSW_ES | FSW_B);
	return fsw & FSW_EXCEPTIONS & ~fcw ? fsw | FSW_ES | FSW_B : fsw;
}

static uint16_t
consistent_fcw(uint16_t fcw)
{
	return (fcw & 0x1f3f) | 0x40;
}

static uint64_t
canonical(uint64_t a)
{
	return (uint64_t)((int64_t)(a << 16) >> 16);
}

void
fpu_get_environment(struct soft_cpu *c, const uint8_t *area, bool wide)
{
	struct x87_state *x = &c->v.state.x87;
	uint32_t ip, dp;

	memcpy(x, area, 24);
	x->reserved = 0;
	x->fop &= 0x7ff;
	x->fcw = consistent_fcw(x->fcw);
	x->fsw = consistent_fsw(x->fsw, x->fcw);
	if (wide) {
		x->fip = canonical(x->fip);
		x->fdp = canonical(x->fdp);
	} else {
		memcpy(&ip, area + 8, 4);
		memcpy(&dp, area + 16, 4);
		x->fip = ip;
		x->fdp = dp;
	}
	c->vec->last_fdp = x->fdp;
	c->vec->last_fop = x->fop;
}

void
fpu_put_registers(const struct x87_state *x, uint8_t *area)
{
	memcpy(area, x->st, 128);
	for (unsigned i = 0; i < 8; i++)
		memset(area + 16 * i + 10, 0, 6);
}

void
fpu_get_registers(struct x87_state *x, const uint8_t *area)
{
	for (unsigned i = 0; i < 8; i++) {
		memcpy(x->st[i], area + 16 * i, 10);
		memset(x->st[i] + 10, 0, 6);
	}
}

void
fpu_init_x87(struct soft_cpu *c, bool registers)
{
	struct x87_state *x = &c->v.state.x87;

	set_top(x, 0);
	x->fcw = FCW_RESET;
	x->fsw = x->ftw = 0;
	x->fop = 0;
	x->fip = x->fdp = 0;
	if (registers)
		memset(x->st, 0, sizeof(x->st));
	c->vec->last_fdp = 0;
	c->vec->last_fop = 0;
}

unsigned
fpu_xmm_count(struct soft_cpu *c)
{
	return c->mode == X86_LONG64 ? 16 : 8;
}

/* AMD's fast FXSAVE leaves the XMM registers alone at CPL 0 in 64-bit mode. */
static bool
fast_fxsave(struct soft_cpu *c)
{
	return c->v.state.efer & EFER_FFXSR && c->mode == X86_LONG64 && !c->cpl;
}

static void
fxsave(struct soft_cpu *c, struct vec_op *op, gva_t a)
{
	struct x86_state *s = &c->v.state;
	unsigned n = fast_fxsave(c) ? 0 : fpu_xmm_count(c);
	uint8_t area[512];

	if (a & 15)
		x86_gp(c, 0);
	fpu_put_environment(&s->x87, area, op->opsize == 8);
	memcpy(area + 24, &s->x87.mxcsr, 4);
	memcpy(area + 28, &c->vec->host.mxcsr_mask, 4);
	fpu_put_registers(&s->x87, area + 32);
	for (unsigned i = 0; i < n; i++)
		memcpy(area + FXSAVE_XMM + 16 * i, s->zmm[i], 16);
	x86_store_bytes(c, a, area, FXSAVE_XMM + 16 * n, c->mmu);
}

static void
fxrstor(struct soft_cpu *c, struct vec_op *op, gva_t a)
{
	struct x86_state *s = &c->v.state;
	unsigned n = fast_fxsave(c) ? 0 : fpu_xmm_count(c);
	uint8_t area[512] __attribute__((aligned(16)));
	uint32_t mxcsr;

	if (a & 15)
		x86_gp(c, 0);
	x86_load_bytes(c, a, area, 512, c->mmu);
	memcpy(&mxcsr, area + 24, 4);
	if (s->cr4 & CR4_OSFXSR) {
		fpu_check_mxcsr(c, mxcsr);
		s->x87.mxcsr = mxcsr;
	} else {
		n = 0;
	}
	fpu_get_environment(c, area, op->opsize == 8);
	fpu_get_registers(&s->x87, area + 32);
	for (unsigned i = 0; i < n; i++)
		memcpy(s->zmm[i], area + FXSAVE_XMM + 16 * i, 16);
}

/* ---- FNSTENV, FNSAVE and back (SDM 1 figures 8-9 to 8-12) ---- */

/* Two bits for each physical register: 0 valid, 1 zero, 2 special, 3 empty. */
static uint16_t
full_tags(const struct x87_state *x)
{
	uint16_t tags = 0;

	for (unsigned phys = 0; phys < 8; phys++) {
		const uint8_t *r = x->st[(phys - X87_TOP(x->fsw)) & 7];
		uint64_t mantissa;
		uint16_t exponent;
		unsigned tag = 0;

		memcpy(&mantissa, r, 8);
		memcpy(&exponent, r + 8, 2);
		exponent &= 0x7fff;
		if (!(x->ftw >> phys & 1))
			tag = 3;
		else if (!exponent && !mantissa)
			tag = 1;
		else if (!exponent || exponent == 0x7fff || !(mantissa >> 63))
			tag = 2;
		tags |= (uint16_t)(tag << (2 * phys));
	}
	return tags;
}

static uint8_t
abridged_tags(uint16_t tags)
{
	uint8_t ftw = 0;

	for (unsigned i = 0; i < 8; i++)
		if ((tags >> (2 * i) & 3) != 3)
			ftw |= (uint8_t)(1u << i);
	return ftw;
}

/* Seven words of 16 or 32 bits; in real mode the pointers are linear and share words with FOP. */
static void
environment_words(const struct x87_state *x, bool real, bool narrow, uint32_t w[7])
{
	uint32_t fill = narrow ? 0 : 0xffff0000u, ip = (uint32_t)x->fip, dp = (uint32_t)x->fdp;

	w[0] = fill | x->fcw;
	w[1] = fill | x->fsw;
	w[2] = fill | full_tags(x);
	if (!real) {
		w[3] = ip;
		w[4] = narrow ? 0 : (uint32_t)x->fop << 16;
		w[5] = dp;
		w[6] = fill;
		return;
	}
	w[3] = fill | (ip & 0xffff);
	w[4] = (narrow ? ip >> 16 << 12 & 0xf000 : ip >> 16 << 12) | x->fop;
	w[5] = fill | (dp & 0xffff);
	w[6] = narrow ? dp >> 16 << 12 & 0xf000 : dp >> 16 << 12;
}

static bool
real_format(struct soft_cpu *c)
{
	return c->mode == X86_REAL || c->mode == X86_VM86;
}

static unsigned
put_env(struct soft_cpu *c, struct vec_op *op, uint8_t *out)
{
	unsigned size = op->opsize == 2 ? 2 : 4;
	uint32_t w[7];

	environment_words(&c->v.state.x87, real_format(c), size == 2, w);
	for (unsigned i = 0; i < 7; i++)
		memcpy(out + i * size, &w[i], size);
	return 7 * size;
}

static unsigned
get_env(struct soft_cpu *c, struct vec_op *op, const uint8_t *in)
{
	struct x87_state *x = &c->v.state.x87;
	unsigned size = op->opsize == 2 ? 2 : 4;
	uint32_t w[7] = { 0 };

	for (unsigned i = 0; i < 7; i++)
		memcpy(&w[i], in + i * size, size);
	x->fcw = consistent_fcw((uint16_t)w[0]);
	x->fsw = consistent_fsw((uint16_t)w[1], x->fcw);
	x->ftw = abridged_tags((uint16_t)w[2]);
	if (real_format(c)) {
		x->fip = (w[3] & 0xffff) | (w[4] >> 12 & 0xffff) << 16;
		x->fdp = (w[5] & 0xffff) | (w[6] >> 12 & 0xffff) << 16;
		x->fop = w[4] & 0x7ff;
	} else {
		x->fip = w[3];
		x->fdp = w[5];
		x->fop = size == 2 ? 0 : w[4] >> 16 & 0x7ff;
	}
	c->vec->last_fdp = x->fdp;
	c->vec->last_fop = x->fop;
	return 7 * size;
}

static void
fnstenv(struct soft_cpu *c, struct vec_op *op, gva_t a)
{
	struct x87_state *x = &c->v.state.x87;
	uint8_t out[28];

	x86_store_bytes(c, a, out, put_env(c, op, out), c->mmu);
	x->fcw |= FSW_EXCEPTIONS;
	x->fsw = consistent_fsw(x->fsw, x->fcw);
}

static void
fnsave(struct soft_cpu *c, struct vec_op *op, gva_t a)
{
	uint8_t out[108];
	unsigned n = put_env(c, op, out);

	for (unsigned i = 0; i < 8; i++)
		memcpy(out + n + 10 * i, c->v.state.x87.st[i], 10);
	x86_store_bytes(c, a, out, n + 80, c->mmu);
	fpu_init_x87(c, false);
}

static void
fldenv(struct soft_cpu *c, struct vec_op *op, gva_t a)
{
	uint8_t in[28];

	vec_check_pending(c);
	x86_load_bytes(c, a, in, op->opsize == 2 ? 14 : 28, c->mmu);
	set_top(&c->v.state.x87, in[op->opsize == 2 ? 3 : 5] >> 3 & 7); /* of the new status word */
	get_env(c, op, in);
}

static void
frstor(struct soft_cpu *c, struct vec_op *op, gva_t a)
{
	uint8_t in[108];
	unsigned n;

	vec_check_pending(c);
	x86_load_bytes(c, a, in, op->opsize == 2 ? 94 : 108, c->mmu);
	n = get_env(c, op, in);
	for (unsigned i = 0; i < 8; i++) {
		memset(c->v.state.x87.st[i], 0, 16);
		memcpy(c->v.state.x87.st[i], in + n + 10 * i, 10);
	}
}

/* ---- dispatch ---- */

bool
vec_fpu_handles(ZydisMnemonic m)
{
	switch (m) {
	case ZYDIS_MNEMONIC_FXSAVE:
	case ZYDIS_MNEMONIC_FXSAVE64:
	case ZYDIS_MNEMONIC_FXRSTOR:
	case ZYDIS_MNEMONIC_FXRSTOR64:
	case ZYDIS_MNEMONIC_XSAVE:
	case ZYDIS_MNEMONIC_XSAVE64:
	case ZYDIS_MNEMONIC_XSAVEC:
	case ZYDIS_MNEMONIC_XSAVEC64:
	case ZYDIS_MNEMONIC_XSAVEOPT:
	case ZYDIS_MNEMONIC_XSAVEOPT64:
	case ZYDIS_MNEMONIC_XSAVES:
	case ZYDIS_MNEMONIC_XSAVES64:
	case ZYDIS_MNEMONIC_XRSTOR:
	case ZYDIS_MNEMONIC_XRSTOR64:
	case ZYDIS_MNEMONIC_XRSTORS:
	case ZYDIS_MNEMONIC_XRSTORS64:
	case ZYDIS_MNEMONIC_FNSAVE:
	case ZYDIS_MNEMONIC_FRSTOR:
	case ZYDIS_MNEMONIC_FNSTENV:
	case ZYDIS_MNEMONIC_FLDENV:
	case ZYDIS_MNEMONIC_LDMXCSR:
	case ZYDIS_MNEMONIC_STMXCSR:
	case ZYDIS_MNEMONIC_VLDMXCSR:
	case ZYDIS_MNEMONIC_VSTMXCSR:
		return true;
	default:
		return false;
	}
}

void
vec_run_fpu(struct soft_cpu *c, struct vec_op *op, gva_t a, uint64_t seg_base)
{
	vec_sync(c);
	switch (op->mnemonic) {
	case ZYDIS_MNEMONIC_FXSAVE:
	case ZYDIS_MNEMONIC_FXSAVE64:
		fxsave(c, op, a);
		break;
	case ZYDIS_MNEMONIC_FXRSTOR:
	case ZYDIS_MNEMONIC_FXRSTOR64:
		fxrstor(c, op, a);
		break;
	case ZYDIS_MNEMONIC_XSAVE:
	case ZYDIS_MNEMONIC_XSAVE64:
		xsave_save(c, op, a, false, false);
		break;
	case ZYDIS_MNEMONIC_XSAVEOPT:
	case ZYDIS_MNEMONIC_XSAVEOPT64:
		xsave_save(c, op, a, false, true);
		break;
	case ZYDIS_MNEMONIC_XSAVEC:
	case ZYDIS_MNEMONIC_XSAVEC64:
		xsave_save(c, op, a, true, true);
		break;
	case ZYDIS_MNEMONIC_XSAVES:
	case ZYDIS_MNEMONIC_XSAVES64:
		xsave_save_supervisor(c, op, a);
		break;
	case ZYDIS_MNEMONIC_XRSTOR:
	case ZYDIS_MNEMONIC_XRSTOR64:
		xsave_restore(c, op, a, false);
		break;
	case ZYDIS_MNEMONIC_XRSTORS:
	case ZYDIS_MNEMONIC_XRSTORS64:
		xsave_restore_supervisor(c, op, a);
		break;
	case ZYDIS_MNEMONIC_FNSAVE:
		fnsave(c, op, a);
		break;
	case ZYDIS_MNEMONIC_FRSTOR:
		frstor(c, op, a);
		break;
	case ZYDIS_MNEMONIC_FNSTENV:
		fnstenv(c, op, a);
		break;
	case ZYDIS_MNEMONIC_FLDENV:
		fldenv(c, op, a);
		break;
	case ZYDIS_MNEMONIC_LDMXCSR:
	case ZYDIS_MNEMONIC_VLDMXCSR:
		ldmxcsr(c, a);
		break;
	default:
		x86_store(c, a, c->v.state.x87.mxcsr, 4, c->mmu);
		break;
	}
}
