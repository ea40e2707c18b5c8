/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The system instructions that are frequent enough to skip the interpreter's decoding: each is a call of what cpu/x86/
 * has for it. 64-bit mode only. The vector registers may be the guest's: see fp.c.
 */
#include "cpu/jit/jit.h"

#define ST (j->i.c.v.state)

static void
swap_gs(struct jit_cpu *j)
{
	uint64_t base = ST.seg[SEG_GS].base;

	x86_check_cpl0(&j->i.c);
	ST.seg[SEG_GS].base = ST.kernel_gs_base;
	ST.kernel_gs_base = base;
}

static void
pop_flags(struct jit_cpu *j)
{
	struct soft_cpu *c = &j->i.c;
	uint64_t v;

	if (!x86_canonical(ST.gpr[RSP]) || !x86_canonical(ST.gpr[RSP] + 7))
		x86_raise_error(c, EXC_SS, 0);
	jit_fp_home(j);
	v = x86_load(c, ST.gpr[RSP], 8, (enum x86_mmu)c->mmu);
	x86_popf(c, v, 8);
	ST.gpr[RSP] += 8;
}

static void
read_tsc(struct jit_cpu *j, bool with_aux)
{
	uint64_t t;

	jit_fp_home(j);
	t = x86_rdtsc(&j->i.c);
	ST.gpr[RAX] = (uint32_t)t;
	ST.gpr[RDX] = t >> 32;
	if (with_aux)
		ST.gpr[RCX] = (uint32_t)ST.tsc_aux;
}

/* v.state is complete, rip at the instruction; afterwards at the next one. Raises. */
void
jit_system(struct jit_cpu *j, uint32_t site)
{
	struct soft_cpu *c = &j->i.c;

	switch ((enum jit_system_kind)SITE_REASON(site)) {
	case JIT_SYSCALL:
		x86_syscall(c);
		return;
	case JIT_SYSRET:
		x86_sysret(c, SITE_SIZE(site));
		return;
	case JIT_IRET:
		jit_fp_home(j);
		x86_iret(c, SITE_SIZE(site));
		return;
	case JIT_SWAPGS:
		swap_gs(j);
		break;
	case JIT_POPF:
		pop_flags(j);
		break;
	case JIT_STAC:
	case JIT_CLAC: /* translated at CPL 0 where CPUID has SMAP: nothing to check */
		x86_set_ac(c, SITE_REASON(site) == JIT_STAC);
		break;
	case JIT_RDTSC:
	case JIT_RDTSCP:
		read_tsc(j, SITE_REASON(site) == JIT_RDTSCP);
		break;
	}
	ST.rip = c->next_rip;
}
