/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The translator: guest code of 64-bit (and flat 32-bit) modes becomes host code of the same instruction set.
 * doc/translator.md tells how it works; this header holds what the files of cpu/jit/ share.
 *
 *	run.c        the engine: run loop, requests, exceptions, what translated code calls in C
 *	cache.c      code memory, blocks, the pages they come from, links between them, dropping them
 *	stubs.c      the fixed pieces of host code: entry, exit, and the ways from translated code to C and back
 *	translate.c  from guest instructions to host code: flags, memory accesses, flow
 *	fp.c         vector registers, loaded when needed
 *	system.c     frequent system instructions
 *	string.c     string instructions
 *	encode.c     one guest instruction with other registers and another memory operand
 *	dump.c       blocks and counters, for people
 *
 * Registers in translated code. GS base: struct jit_cpu. RSP: the host stack, 16-byte aligned. RCX, R11 and R15 are
 * temporaries: T_CX, T_A (address), T_B. The guest's registers: see jit_host_reg; R9, R10, R11 and R15 live in v.state.
 *
 * Flags: the guest's arithmetic flags are in the host's ("host form") or in jit_cpu.fl as LAHF and SETO give them
 * ("memory form"). Ways from block to block inside a page carry the host form, all others the memory form.
 */
#ifndef CPU_JIT_JIT_H
#define CPU_JIT_JIT_H

#include <stdatomic.h>
#include <stddef.h>

#include "cpu/interp/interp.h"

#define JIT_TARGET_BITS 14
#define JIT_TARGETS (1u << JIT_TARGET_BITS) /* entries of the jump cache */
#define JIT_HASH 0x9e3779b1u
#define JIT_BUCKETS 16384u
#define JIT_PAGES 4096u /* buckets */
#define JIT_CONTEXTS 256u
#define JIT_PENDING 64u
#define JIT_BLOCK_INSNS 64u
#define JIT_BLOCK_BYTES 512u

enum { H_AX, H_CX, H_DX, H_BX, H_SP, H_BP, H_SI, H_DI, H_8, H_9, H_10, H_11, H_12, H_13, H_14, H_15, H_NONE = 0xff };
enum { T_CX = H_CX, T_A = H_11, T_B = H_15 };

/* X(name, text): why an instruction is left to the interpreter. */
#define JIT_REFUSALS(X)                                                                                                \
	X(JIT_SYSTEM, "system instruction")                                                                            \
	X(JIT_FAR, "far transfer, interrupt, return from one")                                                         \
	X(JIT_STRING, "string instruction")                                                                            \
	X(JIT_CROSSING, "instruction across two pages")                                                                \
	X(JIT_FP, "x87, MMX or vector instruction")                                                                    \
	X(JIT_ADDRESS, "addressing form")                                                                              \
	X(JIT_REGISTERS, "out of temporaries")                                                                         \
	X(JIT_RARE, "rare instruction")                                                                                \
	X(JIT_UNDEFINED, "undefined instruction")                                                                      \
	X(JIT_DIVIDE, "division that may overflow")                                                                    \
	X(JIT_STEP, "single step, shadow or breakpoint")

#define JIT_REFUSAL_ENUM(name, text) name,
enum jit_refusal { JIT_REFUSALS(JIT_REFUSAL_ENUM) JIT_REFUSAL_COUNT };
#undef JIT_REFUSAL_ENUM

struct jit_cpu;
struct jit_block;

/* The code pages that hold blocks; alive until jit_drop_all(). */
struct jit_page {
	struct jit_page *next;
	struct ram *ram;
	uint64_t page;
	struct jit_block *blocks;
};

/* A jump from one block to another in the same page. Unlinked it leads to the stub behind the block. */
struct jit_link {
	struct jit_link *next; /* of the target's `in` */
	struct jit_block *from;
	uint32_t site; /* of the rel32 */
	uint32_t stub;
	uint16_t target; /* offset in the page */
	bool mem;	 /* flags are in memory form */
	bool ahead;	 /* forwards: needs no poll */
};

struct jit_block {
	struct jit_block *next;	     /* hash chain */
	struct jit_block *page_next; /* of page->blocks */
	struct jit_page *page;
	struct jit_link *in;
	uintptr_t host; /* address of its first byte in host memory: what blocks are found by, with the mode */
	uint64_t key;
	/* Offsets in the arena. far: T_A = rip, flags in memory form; mem: the same from inside the page; near: flags
	 * in host form, from inside the page. */
	uint32_t far_entry, mem_entry, near_entry, end;
	uint32_t host_body, mem_body; /* the body behind the poll if it expects that form, else 0 */
	uint16_t bytes;		      /* of the guest */
	uint8_t code[];		      /* copy of them */
};

struct jit_target {
	uint64_t key;  /* rip ^ ctx */
	uint64_t code; /* far entry */
};

/* (mode, address space) pairs that have a number. */
struct jit_context {
	uint64_t key; /* mode_key and tlb_gen */
	uint64_t ctx;
};

struct jit_pending {
	struct ram *ram;
	uint64_t page;
};

/* Ways from translated code to C; offsets in the arena. */
struct jit_stubs {
	uint32_t leave;	  /* registers from the host to v.state, back to jit_enter()'s caller */
	uint32_t left;	  /* the same, v.state is complete */
	uint32_t memory;  /* an access missed: T_A = address, ECX = enum jit_site bits; T_A, T_B come back */
	uint32_t written; /* a store went to a page with flags */
	uint32_t call;	  /* T_A: index of a helper, ECX: jit_site bits */
	uint32_t jump;	  /* T_A = rip, not in the jump cache */
	uint32_t link;	  /* ECX = offset of the struct jit_link in `meta` */
	uint32_t poll;	  /* T_A = offset of rip in the page: run_ok was 0 */
};

/* What a call from translated code says about its instruction, packed in 32 bits. */
#define SITE_OFF(s) ((s)&0x1fff)	     /* offset in the page */
#define SITE_LEN(s) ((s) >> 13 & 15)	     /* length */
#define SITE_SIZE(s) (1u << ((s) >> 17 & 7)) /* of the access */
#define SITE_MAKE(off, len) ((uint32_t)(off) | (uint32_t)(len) << 13)
#define SITE_SIZE_BITS(log2) ((uint32_t)(log2) << 17)
enum {
	SITE_READ = 1 << 20,
	SITE_WRITE = 1 << 21,
	SITE_ALIGN = 1 << 22,
	SITE_SS = 1 << 23,
	SITE_STAY = 1 << 24,  /* the block need not be left after a write to code: all that follows is a jump */
	SITE_FLAGS = 1 << 25, /* flags are in memory form */
};
#define SITE_REFUSAL(r) ((uint32_t)(r) << 27)
#define SITE_REASON(s) ((s) >> 27)

enum jit_helper_index { HELP_INTERP, HELP_STRING, HELP_FP, HELP_SYSTEM, HELP_COUNT };
/* In SITE_REASON() of HELP_STRING; SITE_READ: REP or REPE, SITE_WRITE: REPNE. */
enum jit_string_kind { JIT_MOVS, JIT_STOS, JIT_LODS, JIT_CMPS, JIT_SCAS };
/* In SITE_REASON() of HELP_SYSTEM. */
enum jit_system_kind {
	JIT_SYSCALL,
	JIT_SYSRET,
	JIT_IRET,
	JIT_SWAPGS,
	JIT_POPF,
	JIT_STAC,
	JIT_CLAC,
	JIT_RDTSC,
	JIT_RDTSCP
};
/* Returns 0: leave, v.state is complete; 1: go on behind the call; else the code to go on with, v.state complete. */
typedef uintptr_t jit_helper(struct jit_cpu *j, uint32_t site);

struct jit_scratch;

struct jit_cpu {
	struct interp_cpu i; /* first */
	struct jit_cpu *self;
	uint64_t page_va; /* linear address of the code page being executed */
	uint64_t ctx;	  /* of the current mode and address space */
	_Atomic uint32_t run_ok;
	bool bmi2;	 /* RORX */
	uint32_t fp_off; /* 0: the guest's vector registers are in the host's */
	uint16_t fl;
	_Atomic uint8_t one; /* 1: the flags of the bounce buffer's page */
	uint64_t scratch;
	jit_helper *helper[HELP_COUNT];
	uint8_t bounce[64] __attribute__((aligned(64)));
	gva_t bounce_addr;
	bool halted, shutdown;

	/* code memory */
	uint8_t *rw, *rx;
	uint32_t arena_size, used, start; /* start: behind the stubs */
	uint32_t cold, cold_start;	  /* the part for what is seldom run */
	uint8_t *meta;
	uint32_t meta_size, meta_used;
	struct jit_stubs stub;
	unsigned (*enter)(struct jit_cpu *j, const void *code);
	uint64_t drops; /* times everything was dropped */

	struct jit_block *hash[JIT_BUCKETS];
	struct jit_page *pages[JIT_PAGES];
	struct jit_target target[JIT_TARGETS];

	/* contexts */
	struct jit_context context[JIT_CONTEXTS];
	uint32_t last_ctx;
	uint64_t seen_epoch, seen_key;
	uint16_t seen_last_gen;

	/* pages of code written by anyone, to be looked at */
	atomic_flag pending_lock;
	_Atomic unsigned pending; /* more than JIT_PENDING: look at all pages */
	struct jit_pending pend[JIT_PENDING];

	struct jit_scratch *work; /* translate.c */
	struct mem_listener listener;
	uint64_t refused[JIT_REFUSAL_COUNT];
	uint64_t guest_bytes, host_bytes, cold_bytes, missed, looked_up, fp_loads;
	uint64_t translate_ticks; /* of the host's TSC */
};

#define JIT_OFF(member) ((uint32_t)offsetof(struct jit_cpu, member))
#define JIT_OFF_GPR(n) (JIT_OFF(i.c.v.state.gpr) + 8u * (unsigned)(n))

extern const uint8_t jit_host_reg[16];

/* ---- stubs.c ---- */
void jit_make_stubs(struct jit_cpu *j);

/* ---- cache.c ---- */
int jit_cache_open(struct jit_cpu *j, uint32_t arena_size);
void jit_cache_close(struct jit_cpu *j);
void jit_drop_all(struct jit_cpu *j);
/* Room for the largest block; drops all blocks if there is none. */
void jit_make_room(struct jit_cpu *j);
void *jit_meta(struct jit_cpu *j, size_t size);
struct jit_block *jit_find(struct jit_cpu *j, uintptr_t host, uint64_t key);
struct jit_page *jit_page_of(struct jit_cpu *j, struct ram *ram, uint64_t page, bool make);
void jit_add(struct jit_cpu *j, struct jit_block *b);
void jit_set_link(struct jit_cpu *j, struct jit_link *l, struct jit_block *to);
/* Drop what writers have changed. */
void jit_take_pending(struct jit_cpu *j);
void jit_note_written(struct jit_cpu *j, struct ram *ram, uint64_t page); /* any thread */
/* All entries of the jump cache become void. */
void jit_new_contexts(struct jit_cpu *j);

static inline void
jit_patch32(struct jit_cpu *j, uint32_t at, uint32_t value)
{
	__atomic_store_n((uint32_t *)(void *)(j->rw + at), value, __ATOMIC_RELAXED);
}

/* ---- translate.c ---- */
int jit_translate_open(struct jit_cpu *j);
void jit_translate_close(struct jit_cpu *j);
/* The block at linear address `a`, whose page is plain memory and executable. */
struct jit_block *jit_translate(struct jit_cpu *j, gva_t a, struct soft_tlb_entry *e, uint64_t key);

/* ---- run.c: called by stubs ---- */
struct jit_access {
	uintptr_t host;		/* where the operand is */
	_Atomic uint8_t *flags; /* to be looked at after a store */
};
struct jit_access jit_memory(struct jit_cpu *j, gva_t a, uint32_t site);
unsigned jit_written(struct jit_cpu *j, uint32_t site, uint64_t rflags, _Atomic uint8_t *flags);
uintptr_t jit_jump(struct jit_cpu *j, uint64_t rip);
uintptr_t jit_link_taken(struct jit_cpu *j, uint32_t link);

/* ---- fp.c ---- */
/* False: MXCSR has unmasked exceptions. */
bool jit_fp_load(struct jit_cpu *j);
void jit_fp_store(struct jit_cpu *j);
static inline void
jit_fp_home(struct jit_cpu *j)
{
	if (!j->fp_off)
		jit_fp_store(j);
}

/* ---- system.c ---- */
void jit_system(struct jit_cpu *j, uint32_t site);

/* ---- string.c ---- */
bool jit_string(struct jit_cpu *j, uint32_t site);

/* ---- dump.c: struct cpu_engine ---- */
void jit_print_stats(struct vcpu *v, FILE *f);
void jit_dump(struct vcpu *v, gva_t a, FILE *f);
const char *jit_refusal(unsigned reason);

/* ---- encode.c ---- */
struct jit_form {
	uint8_t reg, rm, vvvv, opreg; /* host numbers; H_NONE: not there, or as the guest has it */
	uint8_t base;		      /* of the memory operand; H_NONE: none */
	bool force_rex;
};
struct emit;
void jit_encode(struct emit *e, const void *zydis_insn, const uint8_t *guest, const struct jit_form *f);

#endif
