/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the files share that make a block: decode.c and group.c look at it, memory.c, flow.c, insn.c and translate.c
 * write it. Three passes: decode; backward liveness of the arithmetic flags, and in tier 2 groups of accesses; code.
 *
 * Flags. While code is written, `host_ok` and `mem_ok` say where the current guest flags are: in the host's, in hot.fl,
 * in both. What clobbers the host's (a memory check) first saves them if they are live and not in memory; what needs
 * them loads them. Ways out to blocks of other pages take the memory form: so calls and returns, whose checks clobber,
 * save at most once. Flags that are overwritten before they are read are not kept, not even for exceptions in between:
 * the image of RFLAGS an exception handler sees then has undefined arithmetic flags, and running on overwrites them.
 *
 * A memory operand, tier 1: its linear address goes to T_A, a stub checks it and makes it a host address, the
 * instruction runs on [T_A]. If the page is not plain memory, or is watched, or the operand lies across two pages, the
 * stub has the interpreter carry out the instruction and skips its code.
 *
 * Tier 2: instructions that follow each other and whose operands lie at fixed distances (the same base and index, or
 * the stack) form a group. The check of the first covers all of them, in line: a miss leads to a copy of the group in
 * tier-1 fashion, among what is seldom run, which ends where the group ends.
 *
 * Everything else is the instruction itself with other registers (encode.c).
 */
#ifndef CPU_JIT_TRANSLATE_H
#define CPU_JIT_TRANSLATE_H

#include <Zydis/Zydis.h>

#include "base/str.h"
#include "cpu/jit/emit.h"
#include "cpu/x86/vec.h"

#define ARITH_FLAGS (FLAG_CF | FLAG_PF | FLAG_AF | FLAG_ZF | FLAG_SF | FLAG_OF)
#define LATER_MAX (JIT_BLOCK_INSNS * 6)
#define NONE H_NONE

enum kind {
	K_PASS, /* the instruction itself */
	K_NOP,
	K_LEA,
	K_PUSH,
	K_POP,
	K_LEAVE,
	K_CALL,
	K_RET,
	K_JMP,
	K_JCC,
	K_DIV,
	K_BITS, /* BT and friends on a string of bits in memory */
	K_STRING,
	K_SYSTEM,
	K_QUICK, /* those of K_SYSTEM that a stub does mostly, and the block goes on */
	K_PUSHF,
	K_SWAPGS, /* at CPL 0 */
	K_CLI,
	K_STI,
	K_CLD,
	K_STD,
	K_FP,	/* K_PASS with vector registers */
	K_HELP, /* the interpreter */
};

struct insn {
	ZydisDecodedInstruction in;
	ZydisDecodedOperand o[ZYDIS_MAX_OPERAND_COUNT];
	const ZydisDecodedOperand *mem; /* of K_PASS and others, or NULL */
	const struct vec_op *vec;	/* of K_FP */
	enum kind kind;
	enum jit_refusal why;
	enum jit_system_kind system; /* of K_SYSTEM */
	bool ends;
	uint16_t off;		    /* in the page */
	uint32_t reads, kills, may; /* arithmetic flags: read, surely written, written at all */
	uint32_t live_in, live_out;
	/* group.c */
	bool grouped;	 /* the access is covered by its group's check */
	int32_t at;	 /* ... this far behind the group's first byte */
	uint8_t members; /* of the first of a group: instructions to the last one with an access */
	struct {
		int32_t low; /* of the group's first byte, from where this instruction's operand is */
		uint16_t span;
		uint8_t align, align_at; /* bytes at `align_at` have to be aligned to `align` (0: none have) */
		bool write, stack, fp;
	} group;
};

enum later_kind { LATER_GROUP, LATER_LINK, LATER_FAR, LATER_HELP, LATER_FP, LATER_CROSS, LATER_GUARD };

/* Where the flags and vector registers are, and how memory is looked at (STAC, CLAC). */
struct where {
	bool host_ok, mem_ok, fp_ok;
	enum x86_mmu mmu;
};

struct later {
	enum later_kind kind;
	uint32_t site[3]; /* rel32s that lead here; 0: none */
	uint32_t back;
	uint32_t data;
	bool save;		    /* flags are in host form and are to be saved */
	bool load;		    /* ... and loaded again */
	struct where before, after; /* a group */
	unsigned first, end;	    /* ... and its accesses through a window */
};

enum assume { ASSUME_DEAD, ASSUME_HOST, ASSUME_MEM };

struct jit_scratch {
	struct jit_cpu *j;
	struct emit e;
	ZydisDecoder decoder;
	uint8_t code[JIT_BLOCK_BYTES + 16];
	unsigned avail, first; /* bytes in `code`; offset in the page of the first */
	unsigned here;	       /* bytes of `code` in the first page */
	uintptr_t host;	       /* address of the first byte */
	uint64_t key;
	struct insn insn[JIT_BLOCK_INSNS];
	unsigned count;
	struct later later[LATER_MAX];
	unsigned laters;
	struct jit_block *b;
	struct soft_tlb_entry *second; /* the page of an instruction's end, or NULL */
	unsigned tier;
	unsigned now; /* offset in the page of the instruction being written */
	struct where w;
	bool poll;     /* ways out may not skip the poll of where they lead */
	bool in_line;  /* groups are used: tier 2, not the copy of a group */
	bool in_group; /* T_A is taken */
	bool windows;  /* groups go through windows (window.c) ... */
	bool asks;     /* ... and this is the copy of one, for what they do not show */
	/* The only access of a group is at [base + T_B + disp], not at T_A; base NONE: it is not. */
	struct {
		unsigned base;
		int32_t disp;
	} through;
	struct access {
		uint32_t at;	/* of its host instruction */
		uint16_t insn;	/* which it belongs to */
		struct where w; /* before it */
	} access[JIT_BLOCK_INSNS];
	unsigned accesses;
	uint32_t tested; /* behind the last check's TEST; 0: none */
	bool upper;	 /* half of the linear addresses */
	bool wide;	 /* 64-bit mode */
	bool smp;
	unsigned stack; /* bytes of a push */
};

/* ---- decode.c ---- */
/* Fill in t->insn and t->count; returns the bytes used. Raises what fetching from a second page raises. */
unsigned jit_decode(struct jit_scratch *t, gva_t a);
void jit_find_liveness(struct jit_scratch *t);
/* The interpreter is to do it. */
void jit_refuse(struct insn *n, enum jit_refusal why);
unsigned jit_guest_gpr(ZydisRegister r);
bool jit_is_high_byte(const ZydisDecodedOperand *o);
bool jit_is_gpr(const ZydisDecodedOperand *o);

static inline unsigned
jit_mem_size(const struct insn *n)
{
	return n->vec ? n->vec->mem_size : n->mem->size / 8u;
}

/* ---- group.c ---- */
void jit_find_groups(struct jit_scratch *t);

/* ---- memory.c ---- */
unsigned jit_fetch(struct jit_scratch *t, unsigned guest, unsigned temp);
void jit_address(struct jit_scratch *t, const struct insn *n, const ZydisDecodedOperand *o, unsigned dst, bool w);
/* T_A = linear address of `o`, plus `more`. T_B and RCX are used, flags are kept. */
void jit_linear_address(struct jit_scratch *t, const struct insn *n, const ZydisDecodedOperand *o, int32_t more);
/* T_A: linear becomes host address. Clobbers RCX, T_B and flags. `how`: SITE_* bits. */
void jit_check(struct jit_scratch *t, const struct insn *n, unsigned size, unsigned how);
/* The instruction is written: that is where its check leads when C has done it all. */
void jit_checked(struct jit_scratch *t);
/* The check of a group, T_A: host address of its first byte. */
void jit_group_check(struct jit_scratch *t, const struct insn *n);
/* The same among what is seldom run: the group once more. */
void jit_group_again(struct jit_scratch *t, const struct later *l);
unsigned jit_access_of(const struct insn *n);
/* The next host instruction is the access of `n`, which may be a group's. */
void jit_access_here(struct jit_scratch *t, const struct insn *n);

/* ---- flags, in memory.c ---- */
void jit_save_flags(struct jit_scratch *t);
void jit_clobber(struct jit_scratch *t, uint32_t live);
void jit_need_host(struct jit_scratch *t);

/* ---- flow.c ---- */
void jit_far_jump(struct jit_scratch *t);
void jit_note_origin(struct jit_scratch *t, const struct insn *n, enum jit_moved moved);
void jit_rip_to(struct jit_scratch *t, unsigned reg, int64_t off);
void jit_direct_jump(struct jit_scratch *t, int64_t off);
/* The part of a direct jump to another page that is seldom run. */
void jit_far_jump_later(struct jit_scratch *t, const struct later *l);
void jit_conditional_jump(struct jit_scratch *t, const struct insn *n);
int64_t jit_target_of(const struct insn *n);

/* ---- insn.c ---- */
void jit_write_insn(struct jit_scratch *t, struct insn *n);
/* Vector registers are to be in the host's. The flags stay as they are. */
void jit_need_fp(struct jit_scratch *t, const struct insn *n);
/* Can the registers be placed in a group, where T_A is taken? */
bool jit_fits_group(const struct insn *n);
/* ... where T_B is taken, and T_A too if `both`? */
bool jit_fits_window(const struct insn *n, bool both);

/* ---- translate.c ---- */
struct later *jit_later(struct jit_scratch *t, enum later_kind kind, uint32_t site, uint32_t data);

static inline uint32_t
jit_site_of(const struct jit_scratch *t, const struct insn *n)
{
	return SITE_MAKE(n->off, n->in.length) | (t->w.mem_ok ? (uint32_t)SITE_FLAGS : 0);
}

#endif
