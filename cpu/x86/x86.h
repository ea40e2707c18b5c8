/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the software engines (interp, jit) share: one CPU's architecture as functions over `struct soft_cpu`.
 *
 *	mmu.c    paging (2-level, PAE, 4-level), the software TLB, linear memory access
 *	seg.c    descriptors, segment loads, far control transfers, call gates, task switches, IRET
 *	excp.c   raising and delivering exceptions and interrupts, SYSCALL/SYSRET/SYSENTER/SYSEXIT
 *	sys.c    control and debug registers, RFLAGS, privilege checks of I/O ports, reset and SIPI state
 *	msr.c    model-specific registers
 *	cpuid.c  what CPUID says
 *	vec.c    x87, MMX, SSE, AVX, AVX-512 and other pure instructions, run on the host with the guest's operands
 *	fpu.c    FXSAVE, XSAVE and friends
 *
 * Rules every caller and callee keeps:
 * - Everything runs on the vCPU's own thread. "Raises" below means: x86_raise() leaves by longjmp to `fault`; no guest
 *   register was changed by the instruction so far unless the architecture says so (REP counts, FPU sticky flags).
 * - Before calling any function here the engine has v.state complete (flags materialised in rflags) and
 *   v.state.rip = address of the current instruction; `next_rip` = address of the one behind it.
 *   Control transfers set v.state.rip to their target. All other functions leave rip alone: the engine advances it.
 * - After any function marked (mode), the derived fields (mode, cpl, mmu, flat) are already updated; the engine has to
 *   drop its current block and look up again.
 */
#ifndef CPU_X86_X86_H
#define CPU_X86_X86_H

#include <setjmp.h>

#include "cpu/cpu.h"

enum x86_mode { X86_REAL, X86_VM86, X86_PROT16, X86_PROT32, X86_LONG16, X86_LONG32, X86_LONG64 };
/* X86_LONG16 and X86_LONG32: compatibility mode (EFER.LMA with a 16- or 32-bit code segment) */

/* Whose eyes an access is made with; each has its own TLB array. */
enum x86_mmu { MMU_USER, MMU_KERNEL, MMU_KERNEL_SMAP, MMU_COUNT };
/* MMU_KERNEL: supervisor, user pages allowed (CR4.SMAP=0 or RFLAGS.AC=1); MMU_KERNEL_SMAP: user data pages fault */

/* Bits of mode_key, not in 64-bit mode: no limit to check, may be read and written, whatever its base. */
#define X86_KEY_FS_PLAIN (1u << 30)
#define X86_KEY_GS_PLAIN (1u << 31)
/* In 64-bit mode: the engine's own. */
#define X86_KEY_OWN (1u << 30)

enum x86_access { X86_READ, X86_WRITE, X86_EXEC };

#define SOFT_TLB_BITS 14
#define SOFT_TLB_SIZE (1u << SOFT_TLB_BITS)
#define SOFT_TLB_GEN 0xfffu /* low bits of a tag: the generation; never 0xfff in a valid one */
#define SOFT_TLB_NEVER UINT64_MAX

/*
 * One 4 KiB page. A tag equals (linear & ~0xfff) | c->tlb_gen when that access may go straight to host memory at
 * linear + delta; 0 never does. Pages that are not RAM never have a tag. A store through the TLB must be followed by
 * `if (*e->flags) x86_page_written(c, e)`.
 *
 * Two entries a cache line: programs that touch many pages meet as many lines as there are entries they use.
 */
struct soft_tlb_entry {
	gva_t read, write;
	uintptr_t delta;
	_Atomic uint8_t *flags; /* of the page, bus/mem.h; for ROM: a byte that is always 0 */
};

/* The rest of an entry, in an array beside: what data accesses do not look at. */
struct soft_tlb_meta {
	gva_t exec;   /* a tag, as above */
	gva_t io[3];  /* as read, write, exec: the access is allowed, but the page is not plain memory */
	gva_t global; /* (linear & ~0xfff) | tlb_global_gen for a global page: survives a change of tlb_gen */
	struct ram *ram;
	uint64_t page; /* index into ram->flags and ram->gens */
	gpa_t gpa;     /* of the page's first byte */
};

#define DR_DEBUGGER 0x100u
#define X86_RETRY (-1) /* exc_vector: nothing to deliver; see cpu/debug.h */

struct vec_cache;

/* The interpreter's hottest words (cpu/interp/op.h); here because 16-bit offsets in its operations name them. */
struct soft_hot {
	uint64_t zero;		    /* always 0: the base or index register that is not there */
	uint64_t block_rip;	    /* of the block being executed */
	struct soft_tlb_entry *tlb; /* of c->mmu */
	uint64_t tag;		    /* tlb_gen, or SOFT_TLB_GEN and an empty tlb: all accesses go the slow way */
	uint16_t flags;		    /* arithmetic flags: byte 0 OF, byte 1 as LAHF gives them */
	bool complete;		    /* v.state holds rip and flags */
	const void *op;		    /* the operation that may be raising */
	void *block;		    /* being executed */
	void **link;		    /* where the block found next is to be noted */
};

enum x86_gone {
	X86_GONE_PAGE,	/* the page of `a` in the current generation */
	X86_GONE_SPACE, /* all of the current generation */
	X86_GONE_ALL,	/* everything; generations may be used again */
};

struct soft_cpu {
	struct vcpu v; /* first: a struct vcpu * of a software engine is a struct soft_cpu * */
	struct soft_hot hot;

	/* derived from v.state by x86_update_mode() */
	enum x86_mode mode;
	uint8_t cpl;
	uint8_t mmu;	    /* enum x86_mmu of ordinary data accesses */
	uint8_t code_size;  /* 2, 4, 8: default operand size class (8 = 64-bit mode) */
	uint8_t stack_size; /* 2, 4, 8: width of SP for pushes */
	uint32_t flat;	    /* bit n: segment n has base 0, no limit to check, and may be read and written */
	uint32_t mode_key;  /* changes whenever decoded code may mean something else: mode, cpl, CR0.TS/EM/MP,
			       CR4.OSFXSR,  XCR0, SS size, flat bits, TF ...; part of a block's key */

	uint64_t tlb_gen; /* low 12 bits of valid tags; 0 to 0xffe */
	struct soft_tlb_entry tlb[MMU_COUNT][SOFT_TLB_SIZE];

	/* the exception being raised */
	jmp_buf fault; /* __builtin_setjmp is not used: state lives in memory */
	int exc_vector;
	bool exc_has_error;
	uint32_t exc_error;

	uint64_t next_rip;
	bool code_written; /* a page with PAGE_CODE was written by this CPU: the engine leaves its block and re-checks
			    */
	uint64_t dr_armed; /* bit n: DRn is enabled as a data or I/O breakpoint (engine takes slow paths); DR_DEBUGGER:
			      watchpoints of cpu/debug.h */
	bool code_bp;	   /* some DRn is enabled as an instruction breakpoint */
	bool exact;	   /* the instruction being executed is one that touches a page with a watchpoint */
	uint64_t pending_db; /* DR6 bits to report as #DB trap after the current instruction */
	struct vec_cache *vec;
	void *engine; /* the engine's own */

	bool ac_check; /* derived: CPL 3, CR0.AM and EFLAGS.AC: misaligned data accesses raise #AC */
	/* Counts everything that may change what a linear address means (CR3, INVLPG, paging bits): for caches that an
	 * engine keys by linear address. */
	uint64_t tlb_epoch;
	/* Why tlb_epoch was counted last: INVLPG of this page; 1: something else. */
	gva_t tlb_flushed;
	/* For who keeps elsewhere what the TLB allowed, or NULL: it is to be forgotten, too. A change of tlb_gen alone is
	 * not told of. */
	void (*gone)(struct soft_cpu *c, enum x86_gone what, gva_t a);
	uint32_t user_key; /* the engine's: X86_KEY_OWN, part of mode_key in 64-bit user mode */

	/* private to cpu/x86/ */
	bool amd;      /* CPUID shows AMD or Hygon: their flavour of SYSCALL and SYSENTER */
	bool page_1g;  /* CPUID offers 1 GiB pages */
	uint8_t event; /* EXT bit of error codes: 1 while an external event or exception is delivered */
	uint64_t rsvd; /* physical address bits that must be 0 in paging structures */
	uint16_t tlb_last_gen;
	uint16_t tlb_global_gen;
	uint16_t pcid_gen[4096];     /* generation of each PCID; SOFT_TLB_GEN: none */
	uint64_t large[64], huge;    /* hashed sets of 2 or 4 MiB and 1 GiB regions with splinters in the TLB */
	struct mem_section ram_near; /* the last RAM or ROM section used; ram NULL: none */
	struct soft_tlb_meta tlb_meta[MMU_COUNT][SOFT_TLB_SIZE];
};

/* Where the TLB holds (or would hold) the page of `a`. */
static inline struct soft_tlb_entry *
x86_tlb_slot(struct soft_cpu *c, gva_t a, enum x86_mmu mmu)
{
	return &c->tlb[mmu][(a >> PAGE_SHIFT) & (SOFT_TLB_SIZE - 1)];
}

static inline struct soft_tlb_meta *
x86_tlb_meta(struct soft_cpu *c, const struct soft_tlb_entry *e)
{
	return &c->tlb_meta[0][e - c->tlb[0]];
}

/* ---- life (sys.c) ---- */
void x86_soft_open(struct soft_cpu *c); /* TLBs, vec cache; state untouched */
void x86_soft_close(struct soft_cpu *c);
/* Power-on state (SDM 3A table 9-1) and the state after INIT (keeps x87/SSE, MTRRs, TSC...). Any engine. */
void x86_reset_state(struct x86_state *s, const struct cpu_model *model, bool bsp);
void x86_init_state(struct x86_state *s, bool bsp);
void x86_sipi_state(struct x86_state *s, uint8_t vector);
/* Recompute everything derived from v.state: after put_state, reset, mode changes. put_state has to flush the TLB too:
 * x86_tlb_flush(c, true). */
void x86_update_mode(struct soft_cpu *c);

/* ---- exceptions (excp.c) ---- */
_Noreturn void x86_raise(struct soft_cpu *c, int vector);
_Noreturn void x86_raise_error(struct soft_cpu *c, int vector, uint32_t error);
#define x86_ud(c) x86_raise(c, EXC_UD)
#define x86_gp(c, error) x86_raise_error(c, EXC_GP, error)
/*
 * The engine's landing place of `fault` calls this: deliver the recorded exception with v.state at the faulting
 * instruction (faults) or behind it (traps: #DB single step, #BP, #OF set rip themselves). Contributory and double
 * faults are handled inside. False: triple fault. (mode)
 */
bool x86_deliver_exception(struct soft_cpu *c);
/* Deliver an external interrupt or NMI at an instruction boundary; rip = next instruction to run. False: triple. (mode)
 */
bool x86_deliver_interrupt(struct soft_cpu *c, int vector, bool nmi);
/* INT n, INT3, INTO, INT1 (mode); return address is c->next_rip. */
enum x86_int_kind { X86_INT_N, X86_INT3, X86_INTO, X86_INT1 };
void x86_software_int(struct soft_cpu *c, int vector, enum x86_int_kind kind);
/*
 * After an instruction retired (rip already advanced), when TF was set before it or pending_db is not 0: raise #DB.
 * An empty pending_db, or bit 14 (BS) in it, stands for TF.
 */
void x86_trap_step(struct soft_cpu *c);
/* Around the second execution of an instruction that raised X86_RETRY (sys.c). */
void x86_watch_begin(struct soft_cpu *c);
void x86_watch_end(struct soft_cpu *c);
void x86_check_code_bp(struct soft_cpu *c); /* before executing at rip, if c->code_bp; raises #DB */

/* ---- memory (mmu.c) ---- */
/* Size 1, 2, 4, 8; any alignment, also across pages. Raises #PF. Data breakpoints and #AC are checked by the callee. */
uint64_t x86_load(struct soft_cpu *c, gva_t a, unsigned size, enum x86_mmu mmu);
void x86_store(struct soft_cpu *c, gva_t a, uint64_t value, unsigned size, enum x86_mmu mmu);
/* Any length; all-or-nothing: every page is checked before the first byte is moved. */
void x86_load_bytes(struct soft_cpu *c, gva_t a, void *buf, unsigned len, enum x86_mmu mmu);
void x86_store_bytes(struct soft_cpu *c, gva_t a, const void *buf, unsigned len, enum x86_mmu mmu);
/* Raise if [a, a+len) cannot be written (or read). */
void x86_probe(struct soft_cpu *c, gva_t a, unsigned len, enum x86_access access, enum x86_mmu mmu);
/* Instruction bytes at linear address `a` (execute permission; what is not memory reads as 0xff). Raises #PF. */
void x86_fetch_bytes(struct soft_cpu *c, gva_t a, void *buf, unsigned len);
/*
 * Host pointer for len bytes inside one page, or NULL when the page is not plain memory for this access (MMIO, ROM
 * written) or crosses a page. Raises #PF. *e (may be NULL) is the TLB entry: after storing, check its flags.
 */
void *x86_host(
	struct soft_cpu *c, gva_t a, unsigned len, enum x86_access access, enum x86_mmu mmu, struct soft_tlb_entry **e);
/* Fill the TLB for one access; the engine's inline lookup missed. Raises #PF. Returns the entry (its tag for `access`
 * may still be NEVER: MMIO), and the physical address in *gpa. */
struct soft_tlb_entry *x86_tlb_fill(struct soft_cpu *c, gva_t a, enum x86_access access, enum x86_mmu mmu, gpa_t *gpa);
/* Slow path of a store to a page with flags: bump generations, dirty log; sets code_written for PAGE_CODE. */
void x86_page_written(struct soft_cpu *c, struct soft_tlb_entry *e);
void x86_tlb_flush(struct soft_cpu *c, bool globals);
void x86_tlb_flush_page(struct soft_cpu *c, gva_t a); /* INVLPG */
/* For debuggers: no exception, no A/D bits. */
bool x86_translate(struct soft_cpu *c, gva_t a, gpa_t *gpa);

/*
 * Segmented address to linear, with the checks of the current mode: limit, type, null, canonical. Raises #GP or #SS.
 * Engines skip it where c->flat says so (and in 64-bit mode for segments other than FS and GS only canonicality
 * counts).
 */
gva_t x86_linear(struct soft_cpu *c, enum seg_name seg, uint64_t off, unsigned size, enum x86_access access);
static inline bool
x86_canonical(gva_t a)
{
	return (uint64_t)((int64_t)(a << 16) >> 16) == a;
}

/* ---- segmentation and far transfers (seg.c) ---- */
void x86_load_seg(struct soft_cpu *c, enum seg_name seg, uint16_t sel); /* MOV/POP/LxS to ES, SS, DS, FS, GS (mode) */
/* opsize 2, 4, 8. Return addresses pushed are c->next_rip. (mode) */
void x86_far_jump(struct soft_cpu *c, uint16_t sel, uint64_t off, unsigned opsize);
void x86_far_call(struct soft_cpu *c, uint16_t sel, uint64_t off, unsigned opsize);
void x86_far_ret(struct soft_cpu *c, unsigned opsize, uint16_t pop_bytes);
void x86_iret(struct soft_cpu *c, unsigned opsize);
void x86_syscall(struct soft_cpu *c);
void x86_sysret(struct soft_cpu *c, unsigned opsize);
void x86_sysenter(struct soft_cpu *c);
void x86_sysexit(struct soft_cpu *c, unsigned opsize);
void x86_lldt(struct soft_cpu *c, uint16_t sel);
void x86_ltr(struct soft_cpu *c, uint16_t sel);
/* LAR, LSL, VERR, VERW: true = ZF set; *value for the first two. */
bool x86_lar(struct soft_cpu *c, uint16_t sel, uint32_t *value);
bool x86_lsl(struct soft_cpu *c, uint16_t sel, uint32_t *value);
bool x86_verify(struct soft_cpu *c, uint16_t sel, bool write);
/* SGDT and friends under UMIP, LGDT...: the privilege check only. */
void x86_check_umip(struct soft_cpu *c);
void x86_check_cpl0(struct soft_cpu *c);

/* ---- system registers (sys.c, msr.c, cpuid.c) ---- */
uint64_t x86_read_cr(struct soft_cpu *c, int n);
void x86_write_cr(struct soft_cpu *c, int n, uint64_t value); /* (mode) */
void x86_lmsw(struct soft_cpu *c, uint16_t value);	      /* (mode) */
void x86_clts(struct soft_cpu *c);			      /* (mode) */
uint64_t x86_read_dr(struct soft_cpu *c, int n);
void x86_write_dr(struct soft_cpu *c, int n, uint64_t value); /* (mode) */
void x86_invpcid(struct soft_cpu *c, uint64_t type, gva_t descriptor);
void x86_rdmsr(struct soft_cpu *c); /* ECX -> EDX:EAX */
void x86_wrmsr(struct soft_cpu *c); /* (mode) */
void x86_xgetbv(struct soft_cpu *c);
void x86_xsetbv(struct soft_cpu *c);	/* (mode) */
void x86_cpuid(struct soft_cpu *c);	/* EAX, ECX -> EAX..EDX */
uint64_t x86_rdtsc(struct soft_cpu *c); /* checks CR4.TSD; value includes IA32_TSC_ADJUST */
void x86_pushf_value(struct soft_cpu *c, unsigned opsize, uint64_t *value); /* raises #GP in VM86 with IOPL<3 */
/* POPF with the masks of mode, CPL and IOPL; may enable interrupts or TF. (mode) */
void x86_popf(struct soft_cpu *c, uint64_t value, unsigned opsize);
void x86_cli(struct soft_cpu *c);
void x86_sti(struct soft_cpu *c);				     /* sets the shadow where IF was 0 */
void x86_check_io(struct soft_cpu *c, uint16_t port, unsigned size); /* IOPL and the TSS bitmap; raises #GP */
void x86_check_hlt(struct soft_cpu *c);
void x86_set_ac(struct soft_cpu *c, bool ac); /* STAC, CLAC after their checks (mode) */

/* What CPUID shows: from the host, less what an engine cannot carry. `software`: for interp and jit. */
void x86_model_init(struct cpu_model *m, const char *name, bool software, int cpus, uint64_t tsc_hz);
/* Replace `m`, what this host and engine can do, by `saved`, what a guest was told elsewhere, if that is not more. */
int x86_model_take(struct cpu_model *m, const struct cpu_model *saved, struct err *e);
bool x86_model_known(const char *name); /* "host", "x86-64", "x86-64-v2", "x86-64-v3", "x86-64-v4" */
/* One CPUID lookup with the per-CPU parts (APIC ID, OSXSAVE, XCR0 sizes, APIC present) filled in. Any engine. */
void x86_cpuid_lookup(const struct cpu_model *m, const struct x86_state *s, int index, int cpus, bool apic_on,
	uint32_t leaf, uint32_t sub, uint32_t out[4]);

/* ---- host-executed instructions (vec.c, fpu.c) ---- */
struct vec_op;
/*
 * Compile the instruction in `bytes` (already decoded by Zydis in this CPU's code size) into a thunk that runs it on
 * the host: any instruction whose effects are confined to x87/MMX/vector/opmask registers, GPRs other than RSP-as-stack
 * and RIP, arithmetic flags, and at most one memory operand. Cached by encoding. NULL: not an instruction of this kind,
 * or one the guest's CPUID does not offer (then #UD).
 */
const struct vec_op *vec_compile(
	struct soft_cpu *c, const uint8_t *bytes, unsigned len, const void *zydis_insn, const void *zydis_operands);
/*
 * Run it; `a` is the linear address of its memory operand, if it has one (segment checks done by the caller for the
 * size vec_mem_size() says; VSIB and other special forms compute their own: `seg_base` is the segment's base). Raises
 * #NM, #UD, #MF, #XM, #GP (alignment), #PF. v.state.rflags holds the flags before and after.
 */
void vec_run(struct soft_cpu *c, const struct vec_op *op, gva_t a, uint64_t seg_base);
/* Raises what comes before exceptions of the address: #UD, #NM, #MF. For the caller whose segment checks will fail. */
void vec_check_first(struct soft_cpu *c, const struct vec_op *op);
unsigned vec_mem_size(const struct vec_op *op); /* 0: no memory operand */
bool vec_mem_write(const struct vec_op *op);
/* A masked access with an empty mask: its address may be anything, also non-canonical. */
bool vec_touches_nothing(struct soft_cpu *c, const struct vec_op *op);
bool vec_uses_flags(const struct vec_op *op); /* reads or writes arithmetic flags: materialise them first */
/*
 * `a` belongs to the first memory operand in the decoder's list, hidden ones included (MASKMOVDQU: [RDI]).
 *
 * The guest's x87 registers may stay in the host's between x87 instructions: an engine calls vec_sync() in get_state
 * (and before anyone else looks at state.x87), and code on vCPU threads does not use long double.
 * Ops live until vec_flush(). When vec_full() says so the engine drops all its blocks and calls vec_flush(); if it
 * never does, vec_compile() some day returns NULL for new encodings.
 */
void vec_open(struct soft_cpu *c); /* x86_soft_open(), once v.cpus is known; else with the first vec_compile() */
void vec_close(struct soft_cpu *c);
void vec_sync(struct soft_cpu *c);
bool vec_full(struct soft_cpu *c);
void vec_flush(struct soft_cpu *c);
uint64_t vec_xinuse(struct soft_cpu *c); /* state components not in their initial configuration (XGETBV(1)) */
/* FXSAVE, FXRSTOR, XSAVE, XSAVEC, XSAVEOPT, XSAVES, XRSTOR, XRSTORS, FNSAVE, FRSTOR, FNSTENV, FLDENV, LDMXCSR, STMXCSR,
 * FNINIT, FWAIT, EMMS...: vec_compile() accepts these too and vec_run() carries them out. */

#endif
