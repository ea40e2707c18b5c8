/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Model-specific registers (SDM volume 4; AMD PPR for those of AMD).
 *
 * Three kinds: architectural ones that live in struct x86_state or the local APIC; ones this CPU has only because stock
 * kernels expect them of its vendor, which read a constant and take writes without effect (`fixed`); all others raise
 * #GP, as hardware does.
 */
#include "base/log.h"
#include "base/str.h"
#include "cpu/x86/desc.h"

enum {
	MSR_TSC = 0x10,
	MSR_APIC_BASE = 0x1b,
	MSR_CORE_THREAD_COUNT = 0x35,
	MSR_TSC_ADJUST = 0x3b,
	MSR_SPEC_CTRL = 0x48,
	MSR_PRED_CMD = 0x49,
	MSR_BIOS_SIGN_ID = 0x8b,
	MSR_PLATFORM_INFO = 0xce,
	MSR_MTRRCAP = 0xfe,
	MSR_ARCH_CAPABILITIES = 0x10a,
	MSR_SYSENTER_CS = 0x174,
	MSR_SYSENTER_ESP = 0x175,
	MSR_SYSENTER_EIP = 0x176,
	MSR_MCG_STATUS = 0x17a,
	MSR_MISC_ENABLE = 0x1a0,
	MSR_MTRR_BASE0 = 0x200,
	MSR_MTRR_LAST = 0x200 + 2 * MTRR_VARIABLE - 1,
	MSR_PAT = 0x277,
	MSR_MTRR_DEF_TYPE = 0x2ff,
	MSR_TSC_DEADLINE = 0x6e0,
	MSR_X2APIC_FIRST = 0x800,
	MSR_X2APIC_LAST = 0x8ff,
};
#define MSR_EFER 0xc0000080u
#define MSR_STAR 0xc0000081u
#define MSR_LSTAR 0xc0000082u
#define MSR_CSTAR 0xc0000083u
#define MSR_SFMASK 0xc0000084u
#define MSR_FS_BASE 0xc0000100u
#define MSR_GS_BASE 0xc0000101u
#define MSR_KERNEL_GS_BASE 0xc0000102u
#define MSR_TSC_AUX 0xc0000103u

/*
 * What this CPU says of itself in IA32_ARCH_CAPABILITIES. Guest code never runs here as it is and its branches are not
 * the host's branches, so the guest need not work around the host's weaknesses; the host kernel does that for us.
 * RDCL_NO, IBRS_ALL, SKIP_L1DFL, SSB_NO, MDS_NO, PSCHANGE_MC_NO, TAA_NO, SBDR_SSDP_NO, FBSDP_NO, PSDP_NO, BHI_NO,
 * PBRSB_NO, GDS_NO, RFDS_NO, ITS_NO.
 */
#define ARCH_CAPABILITIES                                                                                              \
	(1 << 0 | 1 << 1 | 1 << 3 | 1 << 4 | 1 << 5 | 1 << 6 | 1 << 8 | 1 << 13 | 1 << 14 | 1 << 15 | 1 << 20 |        \
		1 << 24 | 1 << 26 | 1 << 27 | 1ULL << 62)

enum vendor { ANY, INTEL, AMD };

static const struct fixed_msr {
	uint32_t first, last;
	enum vendor vendor;
	uint64_t value;
	bool writable; /* writes are taken and forgotten; otherwise they raise #GP */
} fixed[] = {
	{ 0x00, 0x01, ANY, 0, true },				/* P5_MC_ADDR, P5_MC_TYPE */
	{ 0x17, 0x17, INTEL, 0, false },			/* PLATFORM_ID */
	{ 0x2a, 0x2a, INTEL, 0, true },				/* EBL_CR_POWERON */
	{ 0x34, 0x34, INTEL, 0, false },			/* SMI_COUNT */
	{ 0x3a, 0x3a, INTEL, 1, false },			/* FEATURE_CONTROL: locked, VMX off */
	{ 0x79, 0x79, INTEL, 0, true },				/* BIOS_UPDT_TRIG */
	{ 0xcd, 0xcd, INTEL, 3, false },			/* FSB_FREQ */
	{ 0xe2, 0xe2, INTEL, 0x8000, true },			/* PKG_CST_CONFIG_CONTROL: locked */
	{ 0x11e, 0x11e, INTEL, 0, true },			/* BBL_CR_CTL3 */
	{ 0x140, 0x140, INTEL, 0, true },			/* MISC_FEATURES_ENABLES */
	{ 0x179, 0x179, ANY, 0, false },			/* MCG_CAP: no banks */
	{ 0x198, 0x198, INTEL, 0x100000001000, false },		/* PERF_STATUS */
	{ 0x199, 0x19b, INTEL, 0, true },			/* PERF_CTL, CLOCK_MODULATION, THERM_INTERRUPT */
	{ 0x19c, 0x19c, INTEL, 0x88000000, true },		/* THERM_STATUS: valid, cool */
	{ 0x1a2, 0x1a2, INTEL, 100 << 16, false },		/* TEMPERATURE_TARGET */
	{ 0x1b0, 0x1b0, INTEL, 6, true },			/* ENERGY_PERF_BIAS */
	{ 0x1d9, 0x1d9, ANY, 0, true },				/* DEBUGCTL */
	{ 0x1db, 0x1de, ANY, 0, true },				/* LASTBRANCH*, LASTINT* */
	{ 0x345, 0x345, INTEL, 0, false },			/* PERF_CAPABILITIES */
	{ 0xc0010010, 0xc0010010, AMD, 0, true },		/* SYSCFG */
	{ 0xc0010015, 0xc0010015, AMD, 1 << 24, true },		/* HWCR: TscFreqSel */
	{ 0xc0010016, 0xc0010019, AMD, 0, true },		/* IORRBase, IORRMask */
	{ 0xc001001a, 0xc001001a, AMD, 0, true },		/* TOP_MEM */
	{ 0xc001001d, 0xc001001d, AMD, 0, true },		/* TOP_MEM2 */
	{ 0xc001001f, 0xc001001f, AMD, 0, true },		/* NB_CFG */
	{ 0xc0010020, 0xc0010020, AMD, 0, true },		/* PATCH_LOADER */
	{ 0xc0010055, 0xc0010055, AMD, 0, true },		/* INT_PENDING_MSG */
	{ 0xc0010058, 0xc0010058, AMD, 0, true },		/* MMIO_CFG_BASE_ADDR */
	{ 0xc0010061, 0xc0010061, AMD, 0, false },		/* PSTATE_CUR_LIMIT */
	{ 0xc0010062, 0xc0010063, AMD, 0, true },		/* PSTATE_CTL, PSTATE_STATUS */
	{ 0xc0010064, 0xc001006b, AMD, 0, false },		/* PSTATE_DEF */
	{ 0xc0010111, 0xc0010113, AMD, 0, true },		/* SMM_BASE, SMM_ADDR, SMM_MASK */
	{ 0xc0010114, 0xc0010114, AMD, 1 << 3 | 1 << 4, true }, /* VM_CR: SVM locked off */
	{ 0xc0010140, 0xc0010141, AMD, 0, true },		/* OSVW */
	{ 0xc0011020, 0xc0011023, AMD, 0, true },		/* LS_CFG, IC_CFG, DC_CFG, TW_CFG */
	{ 0xc0011029, 0xc0011029, AMD, 1 << 1, true },		/* DE_CFG: LFENCE serialises */
	{ 0xc001102a, 0xc001102d, AMD, 0, true },		/* BU_CFG2... */
};

static const struct fixed_msr *
fixed_find(const struct soft_cpu *c, uint32_t msr)
{
	for (size_t i = 0; i < ARRAY_LEN(fixed); i++)
		if (msr >= fixed[i].first && msr <= fixed[i].last &&
			(fixed[i].vendor == ANY || (fixed[i].vendor == AMD) == c->amd))
			return &fixed[i];
	return NULL;
}

static const struct cpuid_leaf *
cpuid_leaf(const struct soft_cpu *c, uint32_t leaf)
{
	const struct cpu_model *m = &c->v.cpus->model;

	for (int i = 0; i < m->leaf_count; i++)
		if (m->leaf[i].leaf == leaf && !m->leaf[i].sub)
			return &m->leaf[i];
	return NULL;
}

static uint32_t
bits7_2(const struct soft_cpu *c)
{
	uint32_t out[4];

	x86_cpuid_lookup(&c->v.cpus->model, &c->v.state, 0, 1, true, 7, 2, out);
	return out[3];
}

/* Bits of IA32_SPEC_CTRL that CPUID offers: IBRS, STIBP, SSBD, BHI_DIS_S. */
static uint64_t
spec_ctrl_bits(const struct soft_cpu *c)
{
	const struct cpuid_leaf *l7 = cpuid_leaf(c, 7), *l8 = cpuid_leaf(c, 0x80000008);
	uint64_t bits = 0;

	if (l7 && !c->amd && bits7_2(c) & 1 << 4)
		bits |= 1 << 10;
	if (l7)
		bits |= (l7->edx >> 26 & 1) | (l7->edx >> 27 & 1) << 1 | (l7->edx >> 31 & 1) << 2;
	if (c->amd && l8)
		bits |= (l8->ebx >> 14 & 1) | (l8->ebx >> 15 & 1) << 1 | (l8->ebx >> 24 & 1) << 2;
	return bits;
}

static bool
has_arch_capabilities(const struct soft_cpu *c)
{
	const struct cpuid_leaf *l7 = cpuid_leaf(c, 7);

	return l7 && l7->edx >> 29 & 1;
}

/* ---- MTRRs (SDM 3A 12.11): kept, but caches are not modelled ---- */

static uint64_t *
fixed_mtrr(struct x86_state *s, uint32_t msr)
{
	if (msr == 0x250)
		return &s->mtrr_fixed[0];
	if (msr == 0x258 || msr == 0x259)
		return &s->mtrr_fixed[msr - 0x258 + 1];
	if (msr >= 0x268 && msr <= 0x26f)
		return &s->mtrr_fixed[msr - 0x268 + 3];
	return NULL;
}

static uint64_t *
variable_mtrr(struct x86_state *s, uint32_t msr)
{
	unsigned i = (msr - MSR_MTRR_BASE0) / 2;

	if (msr < MSR_MTRR_BASE0 || msr > MSR_MTRR_LAST)
		return NULL;
	return msr & 1 ? &s->mtrr_mask[i] : &s->mtrr_base[i];
}

static bool
memory_type(uint64_t t)
{
	return t == 0 || t == 1 || (t >= 4 && t <= 6);
}

static bool
types_valid(uint64_t v, bool pat)
{
	for (int i = 0; i < 8; i++, v >>= 8)
		if (!memory_type(v & 0xff) && !(pat && (v & 0xff) == 7))
			return false;
	return true;
}

static bool
write_variable_mtrr(struct soft_cpu *c, uint32_t msr, uint64_t v)
{
	uint64_t unused = msr & 1 ? 0x7ff : 0xf00;

	if (v & (c->rsvd | 0xfff0000000000000ULL | unused) || (!(msr & 1) && !memory_type(v & 0xff)))
		return false;
	*variable_mtrr(&c->v.state, msr) = v;
	return true;
}

/* ---- registers with rules ---- */

static bool
write_efer(struct soft_cpu *c, uint64_t v)
{
	struct x86_state *s = &c->v.state;
	uint64_t changed;

	if (v & ~(c->v.cpus->model.efer_supported | EFER_LMA))
		return false;
	v = (v & ~(uint64_t)EFER_LMA) | (s->efer & EFER_LMA);
	changed = v ^ s->efer;
	if (changed & EFER_LME && s->cr0 & CR0_PG)
		return false;
	s->efer = v;
	if (changed & EFER_NXE)
		x86_tlb_flush(c, true);
	return true;
}

static bool
store_canonical(uint64_t *where, uint64_t v)
{
	if (!x86_canonical(v))
		return false;
	*where = v;
	return true;
}

static bool
store_masked(uint64_t *where, uint64_t v, uint64_t allowed)
{
	if (v & ~allowed)
		return false;
	*where = v;
	return true;
}

/* A write of the TSC moves IA32_TSC_ADJUST by as much (SDM 3B 18.17.3). */
static void
write_tsc(struct soft_cpu *c, uint64_t v)
{
	c->v.state.tsc_adjust = v - clock_tsc(&c->v.m->clock);
}

/* The local APIC counts in the machine's TSC, which knows nothing of this CPU's adjustment. */
static bool
write_deadline(struct soft_cpu *c, uint64_t v)
{
	if (v) {
		v -= c->v.state.tsc_adjust;
		v = v ? v : 1;
	}
	return cpu_apic_msr_write(&c->v, MSR_TSC_DEADLINE, v);
}

static bool
read_deadline(struct soft_cpu *c, uint64_t *v)
{
	if (!cpu_apic_msr_read(&c->v, MSR_TSC_DEADLINE, v))
		return false;
	if (*v)
		*v += c->v.state.tsc_adjust;
	return true;
}

static uint64_t
platform_info(const struct soft_cpu *c)
{
	uint64_t ratio = c->v.m->clock.tsc_hz / 100000000;

	return (ratio & 0xff) << 8 | (ratio & 0xff) << 40;
}

/* ---- the architectural ones ---- */

static bool
read_mtrr(struct soft_cpu *c, uint32_t msr, uint64_t *v)
{
	uint64_t *p = fixed_mtrr(&c->v.state, msr);

	if (!p)
		p = variable_mtrr(&c->v.state, msr);
	if (p)
		*v = *p;
	return p;
}

static bool
read_fixed(struct soft_cpu *c, uint32_t msr, uint64_t *v)
{
	const struct fixed_msr *f = fixed_find(c, msr);

	if (f)
		*v = f->value;
	return f;
}

bool
x86_msr_read(struct soft_cpu *c, uint32_t msr, uint64_t *v)
{
	const struct x86_state *s = &c->v.state;

	if (msr == MSR_APIC_BASE || (msr >= MSR_X2APIC_FIRST && msr <= MSR_X2APIC_LAST))
		return cpu_apic_msr_read(&c->v, msr, v);
	switch (msr) {
	case MSR_TSC:
		*v = clock_tsc(&c->v.m->clock) + s->tsc_adjust;
		return true;
	case MSR_CORE_THREAD_COUNT:
		*v = (uint64_t)c->v.cpus->count << 16 | (unsigned)c->v.cpus->count;
		return !c->amd;
	case MSR_TSC_ADJUST:
		*v = s->tsc_adjust;
		return true;
	case MSR_SPEC_CTRL:
		*v = s->spec_ctrl;
		return spec_ctrl_bits(c);
	case MSR_BIOS_SIGN_ID:
		*v = c->amd ? 0x01000065 : 1ULL << 32;
		return true;
	case MSR_PLATFORM_INFO:
		*v = platform_info(c);
		return !c->amd;
	case MSR_MTRRCAP:
		*v = MTRR_VARIABLE | 1 << 8 | 1 << 10; /* fixed ranges, WC */
		return true;
	case MSR_ARCH_CAPABILITIES:
		*v = ARCH_CAPABILITIES;
		return has_arch_capabilities(c);
	case MSR_SYSENTER_CS:
		*v = s->sysenter_cs;
		return true;
	case MSR_SYSENTER_ESP:
		*v = s->sysenter_esp;
		return true;
	case MSR_SYSENTER_EIP:
		*v = s->sysenter_eip;
		return true;
	case MSR_MCG_STATUS:
		*v = s->mcg_status;
		return true;
	case MSR_MISC_ENABLE:
		*v = s->misc_enable | 1 << 11 | 1 << 12; /* no BTS, no PEBS */
		return !c->amd;
	case MSR_PAT:
		*v = s->pat;
		return true;
	case MSR_MTRR_DEF_TYPE:
		*v = s->mtrr_def_type;
		return true;
	case MSR_TSC_DEADLINE:
		return read_deadline(c, v);
	case MSR_EFER:
		*v = s->efer;
		return true;
	case MSR_STAR:
		*v = s->star;
		return true;
	case MSR_LSTAR:
		*v = s->lstar;
		return true;
	case MSR_CSTAR:
		*v = s->cstar;
		return true;
	case MSR_SFMASK:
		*v = s->sfmask;
		return true;
	case MSR_FS_BASE:
		*v = s->seg[SEG_FS].base;
		return true;
	case MSR_GS_BASE:
		*v = s->seg[SEG_GS].base;
		return true;
	case MSR_KERNEL_GS_BASE:
		*v = s->kernel_gs_base;
		return true;
	case MSR_TSC_AUX:
		*v = s->tsc_aux;
		return true;
	default:
		return read_mtrr(c, msr, v) || read_fixed(c, msr, v);
	}
}

static bool
write_other(struct soft_cpu *c, uint32_t msr, uint64_t v)
{
	uint64_t *range = fixed_mtrr(&c->v.state, msr);
	const struct fixed_msr *f = fixed_find(c, msr);

	if (range) {
		if (!types_valid(v, false))
			return false;
		*range = v;
		return true;
	}
	if (variable_mtrr(&c->v.state, msr))
		return write_variable_mtrr(c, msr, v);
	return f && f->writable;
}

bool
x86_msr_write(struct soft_cpu *c, uint32_t msr, uint64_t v)
{
	struct x86_state *s = &c->v.state;

	if (msr == MSR_APIC_BASE || (msr >= MSR_X2APIC_FIRST && msr <= MSR_X2APIC_LAST))
		return cpu_apic_msr_write(&c->v, msr, v);
	switch (msr) {
	case MSR_TSC:
		write_tsc(c, v);
		return true;
	case MSR_TSC_ADJUST:
		s->tsc_adjust = v;
		return true;
	case MSR_SPEC_CTRL:
		return spec_ctrl_bits(c) && store_masked(&s->spec_ctrl, v, spec_ctrl_bits(c));
	case MSR_PRED_CMD:
		return spec_ctrl_bits(c) && !(v & ~1ULL);
	case MSR_BIOS_SIGN_ID:
		return !c->amd; /* written with 0 before CPUID fetches the revision */
	case MSR_SYSENTER_CS:
		s->sysenter_cs = (uint32_t)v;
		return true;
	case MSR_SYSENTER_ESP:
		return store_canonical(&s->sysenter_esp, v);
	case MSR_SYSENTER_EIP:
		return store_canonical(&s->sysenter_eip, v);
	case MSR_MCG_STATUS:
		return store_masked(&s->mcg_status, v, 7);
	case MSR_MISC_ENABLE:
		s->misc_enable = v & ~(1ULL << 11 | 1ULL << 12);
		return !c->amd;
	case MSR_PAT:
		if (!types_valid(v, true))
			return false;
		s->pat = v;
		return true;
	case MSR_MTRR_DEF_TYPE:
		return memory_type(v & 0xff) && store_masked(&s->mtrr_def_type, v, 0xcff);
	case MSR_TSC_DEADLINE:
		return write_deadline(c, v);
	case MSR_EFER:
		return write_efer(c, v);
	case MSR_STAR:
		s->star = v;
		return true;
	case MSR_LSTAR:
		return store_canonical(&s->lstar, v);
	case MSR_CSTAR:
		return store_canonical(&s->cstar, v);
	case MSR_SFMASK:
		return store_masked(&s->sfmask, v, UINT32_MAX);
	case MSR_FS_BASE:
		return store_canonical(&s->seg[SEG_FS].base, v);
	case MSR_GS_BASE:
		return store_canonical(&s->seg[SEG_GS].base, v);
	case MSR_KERNEL_GS_BASE:
		return store_canonical(&s->kernel_gs_base, v);
	case MSR_TSC_AUX:
		return store_masked(&s->tsc_aux, v, UINT32_MAX);
	default:
		return write_other(c, msr, v);
	}
}

/* ---- RDMSR, WRMSR ---- */

void
x86_rdmsr(struct soft_cpu *c)
{
	struct x86_state *s = &c->v.state;
	uint32_t msr = (uint32_t)s->gpr[RCX];
	uint64_t v = 0;

	x86_check_cpl0(c);
	if (!x86_msr_read(c, msr, &v)) {
		log_guest(c->v.m->name, "cpu%d: read of MSR 0x%x, which does not exist (#GP)", c->v.index, msr);
		x86_gp(c, 0);
	}
	s->gpr[RAX] = (uint32_t)v;
	s->gpr[RDX] = v >> 32;
}

void
x86_wrmsr(struct soft_cpu *c)
{
	struct x86_state *s = &c->v.state;
	uint32_t msr = (uint32_t)s->gpr[RCX];
	uint64_t v = (uint32_t)s->gpr[RAX] | s->gpr[RDX] << 32;

	x86_check_cpl0(c);
	if (!x86_msr_write(c, msr, v)) {
		log_guest(c->v.m->name, "cpu%d: write of 0x%llx to MSR 0x%x refused (#GP)", c->v.index,
			(unsigned long long)v, msr);
		x86_gp(c, 0);
	}
	if (msr >= MSR_EFER)
		x86_update_mode(c);
}
