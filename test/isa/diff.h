/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The same code on the bare CPU and under a software engine, and a comparison of all that came out.
 *
 * Bare: a signal handler puts the start state into its signal frame and returns into the code; the code ends with UD2
 * (or with whatever exception it raises), and the next handler finds the end state in its frame. So nothing of the
 * state has to be set or read by instructions. Under the engine: a machine with the same linear addresses, in user
 * mode, with an IDT whose handlers halt.
 *
 * The program: up to ISA_CODE_SIZE bytes at ISA_CODE. Memory it may use: ISA_DATA (two pages, nothing around them) and
 * the stack (ISA_STACK, one page). Not for use by several threads.
 */
#ifndef TEST_ISA_DIFF_H
#define TEST_ISA_DIFF_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "cpu/cpu.h"

#define ISA_CODE 0x20000000u
#define ISA_CODE_SIZE 8192u
#define ISA_DATA 0x10000000u
#define ISA_DATA_SIZE 8192u
#define ISA_STACK 0x10010000u
#define ISA_STACK_SIZE 4096u
#define ISA_FLAGS 0xcd5u /* arithmetic flags and DF */

struct isa_state {
	uint64_t gpr[16], rip, rflags;
	uint16_t fcw, fsw;
	uint8_t ftw;
	uint32_t mxcsr;
	uint8_t st[8][16];
	uint8_t zmm[32][64];
	uint64_t k[8];
	uint8_t data[ISA_DATA_SIZE], stack[ISA_STACK_SIZE];
	/* how it ended */
	int vector;
	uint32_t error; /* of vectors that have one */
	uint64_t cr2;	/* of vector 14 */
};

struct isa;

/* bits: 64, or 32 for compatibility mode. `engine`: the software engine to compare with. NULL: it said why on stderr.
 */
struct isa *isa_open(const struct cpu_engine *engine, int bits);
void isa_close(struct isa *t);

/* A start state filled from `seed`: random registers and memory, RSP in the middle of the stack, R13-R15 and RBP as the
 * generators want them (integer.c), x87 and vector registers random but without pending exceptions. */
void isa_random_state(struct isa_state *s, uint64_t seed, int bits);
uint64_t isa_random(uint64_t *seed);

void isa_run_bare(struct isa *t, const uint8_t *code, unsigned len, const struct isa_state *in, struct isa_state *out);
void isa_run_engine(
	struct isa *t, const uint8_t *code, unsigned len, const struct isa_state *in, struct isa_state *out);

enum { ISA_VECTORS = 1 }; /* compare x87 and vector state too */
/* True if equal; else the differences go to `f` (NULL: nowhere). `flags_mask`: of ISA_FLAGS, what counts. */
bool isa_equal(
	const struct isa_state *bare, const struct isa_state *engine, unsigned what, unsigned flags_mask, FILE *f);
void isa_disassemble(const uint8_t *code, unsigned len, int bits, FILE *f);

#endif
