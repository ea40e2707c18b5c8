/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Private to vec*.c, fpu.c and xsave.c: host-executed instructions.
 *
 *	vec.c       which instructions CPUID offers; the cache; vec_compile(), vec_run()
 *	vec_form.c  an instruction's operands and its normal form
 *	vec_op.c    what else it needs, and what runs it
 *	vec_emit.c  the arena, the thunks in it, the host signals a thunk can cause
 *	vec_mem.c   memory operands: direct, bounced, masked, gathered, scattered
 *	fpu.c       x87 and MMX state, FXSAVE, FNSAVE and friends
 *	xsave.c     XSAVE and friends
 */
#ifndef CPU_X86_VEC_H
#define CPU_X86_VEC_H

#include <Zydis/Zydis.h>

#include "cpu/x86/x86.h"

/* What a thunk returns. */
enum vec_outcome {
	VEC_DONE,
	VEC_ILL,   /* the host does not know the instruction: #UD */
	VEC_FP,	   /* unmasked SIMD floating-point exception; MXCSR has the flags, nothing else changed */
	VEC_FAULT, /* the thunk's own memory access failed: a bug, or state that should not have been accepted */
};

/* `mem` is the memory operand's host address. Touches only the registers in `s` that the op names. */
typedef uint32_t vec_thunk(struct x86_state *s, void *mem);

/* How the guest's control registers gate an instruction. */
struct vec_gate {
	uint32_t cr0_ud, cr0_nm, cr0_mp; /* cr0 bits that raise #UD, #NM; cr0_mp: all of these set raises #NM */
	uint32_t cr4_need, xcr0_need;	 /* #UD where one is missing */
};

struct vec_gpr {
	uint8_t guest, host; /* register numbers; the host's never RSP, RSI, RDI */
	uint8_t in, out;     /* bytes read (0, 1, 8) and written (0, 8) */
	uint8_t high;	     /* AH, CH, DH, BH: reads byte 1 */
};

enum vec_encoding { VEC_LEGACY, VEC_VEX, VEC_EVEX };

/* How elements of a masked memory operand belong to mask bits. */
enum vec_mask {
	VEC_MASK_NONE,
	VEC_MASK_EACH,	   /* memory element i belongs to bit i */
	VEC_MASK_REPEAT,   /* memory element i belongs to bits i, i + n, i + 2n (broadcasts) */
	VEC_MASK_COMPRESS, /* as many elements from the start as bits are set (VPEXPAND, VPCOMPRESS) */
	VEC_MASK_VECTOR,   /* sign bits of the elements of a vector register (VMASKMOV) */
	VEC_MASK_BYTES,	   /* sign bits of the bytes of an XMM or MMX register (MASKMOVDQU, MASKMOVQ) */
};

struct vec_op {
	/* hot */
	void (*run)(struct soft_cpu *c, struct vec_op *op, gva_t a, uint64_t seg_base);
	vec_thunk *thunk; /* NULL: to be emitted (again) */
	struct vec_gate gate;
	uint16_t mem_size;  /* bytes; 0: none */
	uint8_t align_mask; /* address bits that must be 0, else #GP(0) */
	bool mem_read, mem_write;
	bool uses_flags;

	/* the instruction in its host form */
	uint8_t len;
	uint8_t bytes[15];
	uint8_t encoding; /* enum vec_encoding */
	bool mxcsr;	  /* reads or writes MXCSR */
	bool x87;	  /* reads or writes the x87 stack or its environment */
	bool x87_control; /* leaves FIP, FDP, FOP alone */
	bool x87_nowait;  /* does not report pending exceptions */
	bool mmx;	  /* switches to MMX state */
	uint8_t mmx_in, mmx_out, k_in, k_out;
	uint32_t vec_in, vec_out;
	uint8_t vec_bytes; /* width of vector sources: 16, 32, 64 */
	uint8_t gpr_count;
	struct vec_gpr gpr[6];
	uint16_t flags_in, flags_out;

	/* masked memory operands */
	uint8_t mask; /* enum vec_mask */
	uint8_t mask_reg, mask_bits;
	uint8_t elem_size, elem_count;
	bool mask_probe; /* a masked store that faults on all of its operand (VEXTRACTI32X4) */

	/* the special ones */
	uint16_t mnemonic; /* ZydisMnemonic */
	uint8_t opsize;	   /* bytes: formats of FNSAVE, FXSAVE64 */
	uint16_t fop;	   /* x87 opcode, 11 bits */
	struct {
		uint8_t dst, index, mask, base, scale, seg; /* base 0xff: none */
		uint8_t index_size, index_bytes, addr_size;
		int32_t disp;
	} vsib;

	struct vec_op *next; /* hash chain */
	uint32_t hash;
};

struct vec_host {
	bool avx, avx512, avx512bw, fdp_exception_only;
	uint32_t mxcsr_mask;
};

#define X87_TOP(fsw) ((fsw) >> 11 & 7)

/* Where a state component lies in the standard XSAVE area (CPUID leaf 0xd). */
struct vec_component {
	uint32_t offset, size;
	bool align; /* to 64 bytes, in the compacted form */
};

#define VEC_ARENA_SIZE (4u << 20)
#define VEC_BUCKETS 4096u
#define VEC_CHUNK 64u
#define VEC_OPS_MAX (128u << 10)

struct vec_chunk {
	struct vec_chunk *next;
	unsigned used;
	struct vec_op op[VEC_CHUNK];
};

struct vec_cache {
	uint8_t bounce[128] __attribute__((aligned(64)));
	uint8_t image[512] __attribute__((aligned(64))); /* FXSAVE image on its way to and from the host's x87 */
	/* Guest x87 registers are in the host's x87 registers, state.x87 is stale apart from fip, fdp, fop, mxcsr. */
	bool x87_live;
	uint64_t last_fdp; /* of the last x87 instruction, if it should raise an exception */
	uint16_t last_fop;

	uint8_t *rw, *rx; /* two views of the arena; NULL until needed */
	uint32_t used;
	uint32_t bail_ill, bail_fp, bail_fault; /* offsets of the ways out of a thunk */
	struct vec_host host;
	struct vec_component component[8]; /* 2 AVX, 5 opmask, 6 ZMM_Hi256, 7 Hi16_ZMM */
	bool compaction;		   /* CPUID offers XSAVEC */
	struct vec_op *bucket[VEC_BUCKETS];
	struct vec_chunk *chunks;
	unsigned ops;
};

/* ---- vec.c ---- */
/* Does the guest's CPUID offer the instruction, and is it one of those that are run here? */
bool vec_offered(struct soft_cpu *c, const ZydisDecodedInstruction *in);
bool vec_is_x87(const ZydisDecodedInstruction *in);

/* ---- vec_form.c ---- */
#define NO_REG (-1)

/* The guest's instruction on its way to its normal form. */
struct vec_form {
	const ZydisDecodedInstruction *in;
	const ZydisDecodedOperand *operand;
	const ZydisDecodedOperand *mem; /* or NULL */
	int reg, rm, vvvv, is4;		/* host numbers of encoded registers, or NO_REG */
	bool w, opsize, byte_reg;
	bool gpr, mmx, xmm, k; /* kinds of registers used */
	uint8_t rep;	       /* 0xf2, 0xf3 or 0 */
};

/* Note all operands in `op` and `f`; false: one that a thunk cannot have. */
bool vec_form_operands(struct vec_op *op, struct vec_form *f);
/* Make op->bytes. `check`: not from 64-bit code; false: it means something else there. */
bool vec_form_normalise(struct vec_op *op, struct vec_form *f, const uint8_t *guest, bool check);
/* Only the bytes, after a change in `f`. */
void vec_form_encode(struct vec_op *op, const struct vec_form *f, const uint8_t *guest);

/* ---- vec_op.c ---- */
bool vec_is_bit_scan(const ZydisDecodedInstruction *in); /* LZCNT, TZCNT: run, as BSR and BSF, where not offered */
/* Fill in everything else of `op`; false: not an instruction of this kind. */
bool vec_describe(struct soft_cpu *c, struct vec_op *op, struct vec_form *f, const uint8_t *guest);

/* ---- vec_emit.c ---- */
void vec_host_detect(struct vec_host *h);
/* Make op->thunk; drops all thunks when the arena is full. False: the host gives no executable memory. */
bool vec_emit(struct vec_cache *vc, struct vec_op *op);
void vec_arena_close(struct vec_cache *vc);
/* Host signals raised inside this thread's arena end the thunk with an outcome. */
void vec_signals_install(void);
void vec_signals_thread(struct vec_cache *vc);

/* ---- vec_mem.c ---- */
void vec_run_reg(struct soft_cpu *c, struct vec_op *op, gva_t a, uint64_t seg_base);
void vec_run_mem(struct soft_cpu *c, struct vec_op *op, gva_t a, uint64_t seg_base);
void vec_run_masked(struct soft_cpu *c, struct vec_op *op, gva_t a, uint64_t seg_base);
void vec_run_maskmov(struct soft_cpu *c, struct vec_op *op, gva_t a, uint64_t seg_base);
void vec_run_gather(struct soft_cpu *c, struct vec_op *op, gva_t a, uint64_t seg_base);
void vec_run_scatter(struct soft_cpu *c, struct vec_op *op, gva_t a, uint64_t seg_base);
void vec_run_movdir64b(struct soft_cpu *c, struct vec_op *op, gva_t a, uint64_t seg_base);
void vec_run_touch(struct soft_cpu *c, struct vec_op *op, gva_t a, uint64_t seg_base);
void vec_run_nothing(struct soft_cpu *c, struct vec_op *op, gva_t a, uint64_t seg_base);
/* Raise #MF if an unmasked x87 exception is pending. */
void vec_check_pending(struct soft_cpu *c);
/* Raise #AC for a misaligned operand; alignment checks are on (c->ac_check). */
void vec_check_aligned(struct soft_cpu *c, const struct vec_op *op, gva_t a);
/* Run the thunk on host memory; raises what it reports. */
void vec_call(struct soft_cpu *c, struct vec_op *op, void *mem);

/* ---- xsave.c ---- */
void xsave_save(struct soft_cpu *c, struct vec_op *op, gva_t a, bool compact, bool optimise);
void xsave_restore(struct soft_cpu *c, struct vec_op *op, gva_t a, bool supervisor);
void xsave_save_supervisor(struct soft_cpu *c, struct vec_op *op, gva_t a);
void xsave_restore_supervisor(struct soft_cpu *c, struct vec_op *op, gva_t a);

/* ---- fpu.c ---- */
#define FCW_RESET 0x037f
#define FXSAVE_XMM 160 /* offset of XMM0 in the legacy area */

/* Bytes 0-23 of the legacy area, FCW to FDP (SDM 1 table 10-2); `wide`: 64-bit pointers. */
void fpu_put_environment(const struct x87_state *x, uint8_t *area, bool wide);
void fpu_get_environment(struct soft_cpu *c, const uint8_t *area, bool wide);
/* Its 128 bytes of ST0-ST7. */
void fpu_put_registers(const struct x87_state *x, uint8_t *area);
void fpu_get_registers(struct x87_state *x, const uint8_t *area);
void fpu_init_x87(struct soft_cpu *c, bool registers);	  /* as FNINIT; `registers`: these become 0 too */
void fpu_check_mxcsr(struct soft_cpu *c, uint32_t value); /* #GP for reserved bits */
unsigned fpu_xmm_count(struct soft_cpu *c);		  /* 16 in 64-bit mode, else 8 */

void vec_run_x87(struct soft_cpu *c, struct vec_op *op, gva_t a, uint64_t seg_base);
void vec_run_fwait(struct soft_cpu *c, struct vec_op *op, gva_t a, uint64_t seg_base);
void vec_run_emms(struct soft_cpu *c, struct vec_op *op, gva_t a, uint64_t seg_base);
void vec_run_zero(struct soft_cpu *c, struct vec_op *op, gva_t a, uint64_t seg_base); /* VZEROALL, VZEROUPPER */
void vec_run_fpu(struct soft_cpu *c, struct vec_op *op, gva_t a, uint64_t seg_base);  /* by mnemonic */
bool vec_fpu_handles(ZydisMnemonic m);
/* Raise #MF for a pending exception; then the x87 state as MMX sees it: in state.x87, TOP 0, all valid. */
void vec_mmx_check(struct soft_cpu *c);
void vec_mmx_enter(struct soft_cpu *c);

/* The host address of [a, a+len), or NULL: use the bounce buffer. Raises #PF. After a store: vec_written(). */
static inline void *
vec_direct(struct soft_cpu *c, gva_t a, unsigned len, enum x86_access access, struct soft_tlb_entry **e)
{
	struct soft_tlb_entry *t = x86_tlb_slot(c, a, c->mmu);
	gva_t tag = (a & ~(gva_t)PAGE_MASK) | c->tlb_gen;

	if (c->dr_armed)
		return NULL;
	if ((access == X86_WRITE ? t->write : t->read) == tag && (a & PAGE_MASK) + len <= PAGE_SIZE) {
		*e = t;
		return (void *)(a + t->delta);
	}
	return x86_host(c, a, len, access, c->mmu, e);
}

static inline void
vec_written(struct soft_cpu *c, struct soft_tlb_entry *e)
{
	if (*e->flags)
		x86_page_written(c, e);
}

#endif
