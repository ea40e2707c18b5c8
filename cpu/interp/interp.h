/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The reference interpreter: every instruction of the guest, one after the other, without writing machine code.
 *
 * It is an engine of its own (cpu_engine_interp) and the fall-back of translators, which run single instructions with
 * interp_step(): a translator's vCPU structure starts with a struct interp_cpu.
 *
 *	interp.c   the engine: run loop, requests, single step, tracing
 *	block.c    finding, decoding and dropping blocks; links between them
 *	decode.c   from Zydis' view of an instruction to a struct op
 *	alu.c      the hot operations, generated for each size and address form
 *	rmw.c      read-modify-write operations on a register or memory, also locked
 *	misc.c     stack, flow and other unprivileged operations that are less hot
 *	string.c   MOVS, STOS, CMPS, SCAS, LODS, INS, OUTS and REP
 *	system.c   everything that calls the architecture's helpers in cpu/x86/
 */
#ifndef CPU_INTERP_INTERP_H
#define CPU_INTERP_INTERP_H

#include "cpu/x86/x86.h"

struct block;
struct interp_cache;

#define INTERP_TARGETS 4096

/* Where an indirect branch went before. */
struct interp_target {
	uint64_t rip;
	struct block *block;
};

struct interp_cpu {
	struct soft_cpu c; /* first */
	struct interp_cache *cache;
	uint64_t rip_mask; /* instruction pointers are so wide */
	bool cs_flat;	   /* code has base 0 and no limit: rip is the linear address, blocks may be linked */
	bool halted;
	bool shutdown;	/* a triple fault while an interrupt was delivered */
	bool single;	/* the block being run is one instruction (single step, breakpoints, shadow, trace) */
	bool ss_shadow; /* the last instruction loaded SS: it takes no single-step trap */
	bool no_trap;	/* the last instruction was a software interrupt: the same */
	bool tracing;	/* trace group "interp" */
	/* A translator's: run() of the interpreter comes back with CPU_EXIT_COUNT when this says so (looked at whenever
	 * the mode may have changed). NULL: none. */
	bool (*translatable)(struct interp_cpu *i);

	uint32_t pauses; /* PAUSE instructions, for yielding now and then */

	/* the read-modify-write access that takes the slow way */
	uint64_t scratch[2];
	gva_t rmw_addr;
	unsigned rmw_size;
	struct soft_tlb_entry rmw_entry, reg_entry;
	_Atomic uint8_t rmw_flag, reg_flag;

	struct interp_target target[INTERP_TARGETS];
	struct soft_tlb_entry no_tlb[SOFT_TLB_SIZE]; /* always zeroes: no tag has generation SOFT_TLB_GEN */
};

enum interp_result { INTERP_OK, INTERP_HALT, INTERP_SHUTDOWN };

/* The interpreter's part of opening and closing a vCPU (x86_soft_open() is not called here). 0 or -ENOMEM. */
int interp_open(struct interp_cpu *i);
void interp_close(struct interp_cpu *i);
/* Forget all decoded code: the memory map changed. */
void interp_flush(struct interp_cpu *i);

/*
 * Execute exactly one instruction (one iteration of a REP that takes the slow way, or a part of a REP) from a complete
 * v.state to a complete v.state, exceptions delivered, traps taken. c.fault is preserved.
 */
enum interp_result interp_step(struct interp_cpu *i);
/* The interpreter's run() for a translator: until there is a reason to stop, or `translatable` says so. */
enum cpu_exit interp_run(struct vcpu *v);
/* cpu_engine.current_rip */
uint64_t interp_current_rip(struct vcpu *v);

#endif
