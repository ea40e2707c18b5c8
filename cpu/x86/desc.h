/* SPDX-License-Identifier: Apache-2.0 */
/* What mmu.c, seg.c, excp.c, sys.c and msr.c share with each other only: descriptors, stacks being pushed to, the TLB's
 * address spaces. */
#ifndef CPU_X86_DESC_H
#define CPU_X86_DESC_H

#include "cpu/x86/x86.h"

#define likely(x) __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)

/* ---- mmu.c ---- */
void x86_tlb_open(struct soft_cpu *c);
/* MOV CR3: the current PCID's entries count from now on; without `keep` they are forgotten first. */
void x86_tlb_switch(struct soft_cpu *c, bool keep);
/* Forget the (non-global) entries of a PCID; of all PCIDs. */
void x86_tlb_flush_pcid(struct soft_cpu *c, unsigned pcid);
void x86_tlb_flush_pcids(struct soft_cpu *c);

static inline bool
x86_long(const struct soft_cpu *c)
{
	return c->v.state.efer & EFER_LMA;
}

static inline unsigned
x86_pcid(const struct soft_cpu *c)
{
	return c->v.state.cr4 & CR4_PCIDE ? c->v.state.cr3 & 0xfff : 0;
}

/* Accesses to descriptor tables and the TSS: supervisor whatever the CPL, and never with EFLAGS.AC (SDM 3A 4.6.1). */
static inline enum x86_mmu
x86_sys_mmu(const struct soft_cpu *c)
{
	return c->v.state.cr4 & CR4_SMAP ? MMU_KERNEL_SMAP : MMU_KERNEL;
}

/* Data accesses at privilege level `cpl`. */
static inline enum x86_mmu
x86_cpl_mmu(const struct soft_cpu *c, unsigned cpl)
{
	if (cpl == 3)
		return MMU_USER;
	return c->v.state.cr4 & CR4_SMAP && !(c->v.state.rflags & FLAG_AC) ? MMU_KERNEL_SMAP : MMU_KERNEL;
}

static inline bool
x86_pe(const struct soft_cpu *c)
{
	return c->v.state.cr0 & CR0_PE;
}

static inline bool
x86_vm86(const struct soft_cpu *c)
{
	return c->mode == X86_VM86;
}

static inline unsigned
x86_iopl(const struct soft_cpu *c)
{
	return (c->v.state.rflags >> 12) & 3;
}

/* ---- seg.c: descriptors (SDM 3A 3.4.5) ---- */

/* System descriptor types (SDM 3A table 3-2). */
enum {
	DESC_TSS16 = 1,
	DESC_LDT = 2,
	DESC_TSS16_BUSY = 3,
	DESC_CALL16 = 4,
	DESC_TASK = 5,
	DESC_INT16 = 6,
	DESC_TRAP16 = 7,
	DESC_TSS32 = 9,
	DESC_TSS32_BUSY = 11,
	DESC_CALL32 = 12,
	DESC_INT32 = 14,
	DESC_TRAP32 = 15,
};
/* Type bits of code and data descriptors. */
enum { TYPE_ACCESSED = 1, TYPE_WRITE = 2, TYPE_READ = 2, TYPE_DOWN = 4, TYPE_CONFORMING = 4, TYPE_CODE = 8 };

struct desc {
	uint32_t lo, hi;
	uint32_t base_hi, zero; /* second half of a 16-byte one */
	gva_t addr;
	uint32_t attr; /* as in struct x86_seg */
};

static inline unsigned
desc_type(const struct desc *d)
{
	return d->attr & SEG_TYPE;
}
static inline unsigned
desc_dpl(const struct desc *d)
{
	return SEG_DPL(d->attr);
}
static inline bool
desc_present(const struct desc *d)
{
	return d->attr & SEG_P;
}
static inline bool
desc_is_code(const struct desc *d)
{
	return (d->attr & (SEG_S | TYPE_CODE)) == (SEG_S | TYPE_CODE);
}
static inline bool
desc_is_conforming(const struct desc *d)
{
	return desc_is_code(d) && (d->attr & TYPE_CONFORMING);
}
static inline bool
desc_is_writable(const struct desc *d)
{
	return (d->attr & (SEG_S | TYPE_CODE | TYPE_WRITE)) == (SEG_S | TYPE_WRITE);
}

/* Read the descriptor `sel` names. Outside its table: raises `vector` with the selector as error code. */
void x86_desc_read(struct soft_cpu *c, uint16_t sel, struct desc *d, int vector);
struct x86_seg x86_desc_seg(uint16_t sel, const struct desc *d);
void x86_desc_accessed(struct soft_cpu *c, const struct desc *d);
/* A code descriptor about to be entered at `off`: L and D do not clash, `off` is inside. Raises #GP. */
void x86_code_check(struct soft_cpu *c, const struct desc *d, uint16_t sel, uint64_t off);
/* A stack descriptor for privilege level `cpl`, null allowed nowhere. Raises `vector` (#TS, #GP) or #SS with sel. */
void x86_stack_desc(struct soft_cpu *c, uint16_t sel, unsigned cpl, struct desc *d, int vector);
/* The stack of an inner level from the TSS: raises #TS. In long mode `ist` (0: by level) chooses; *sel is then null. */
void x86_tss_stack(struct soft_cpu *c, unsigned cpl, unsigned ist, uint16_t *sel, uint64_t *sp);

/* A stack being pushed to or popped from before anything of the CPU's own state is changed. */
struct stack {
	struct x86_seg seg;
	uint64_t sp;
	unsigned width; /* of SP: 2, 4, 8 */
	enum x86_mmu mmu;
	uint32_t error; /* code of #SS */
	bool fresh;	/* came out of the TSS: all of ESP is new, also where SP is 16 bits wide */
};
struct stack x86_stack_now(const struct soft_cpu *c);
struct stack x86_stack_new(const struct soft_cpu *c, const struct x86_seg *ss, uint64_t sp, unsigned cpl);
void x86_push(struct soft_cpu *c, struct stack *s, uint64_t value, unsigned size);
uint64_t x86_pop(struct soft_cpu *c, struct stack *s, unsigned size);
/* RSP takes the value, in the width of the stack. */
void x86_stack_commit(struct soft_cpu *c, const struct stack *s);

/* After a move outwards: data segments the new level may not see become null (SDM 3A 5.8.6). */
void x86_drop_segs(struct soft_cpu *c);
void x86_vm86_segs(struct soft_cpu *c, const uint16_t sel[6]); /* index by enum seg_name */

enum task_switch { TASK_JUMP, TASK_CALL, TASK_IRET };
/* `sel` and `d`: the new TSS, already checked for type and presence. For an event with an error code *error is pushed.
 */
void x86_task_switch(struct soft_cpu *c, uint16_t sel, struct desc *d, enum task_switch how, uint64_t return_rip,
	const uint32_t *error);

/* ---- sys.c ---- */
/* Load the PDPTEs of PAE paging from `cr3` (SDM 3A 4.4.1); false: a reserved bit is set, nothing loaded. */
bool x86_load_pdptes(struct soft_cpu *c, uint64_t cr3);

/* ---- msr.c ---- */
bool x86_msr_read(struct soft_cpu *c, uint32_t msr, uint64_t *value);
bool x86_msr_write(struct soft_cpu *c, uint32_t msr, uint64_t value);

#endif
