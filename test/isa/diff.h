/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The same program on the bare CPU and under software engines, and comparisons of all that came out.
 *
 * Bare: a signal handler puts the start state into its signal frame and returns into the code; the code ends with UD2
 * (or with whatever exception it raises), and the next handler finds the end state in its frame. So nothing of the
 * state has to be set or read by instructions. Under an engine: a machine of its own with the same linear addresses,
 * in user mode, with an IDT whose handlers halt.
 *
 * Programs that the host's kernel would not let run (other modes, system instructions) are compared between engines
 * only: the whole of struct x86_state, all memory, and what was read and written at a page of device registers and at
 * ports.
 *
 * Linear memory of a program, in all modes: ISA_CODE (readable, writable, executable), ISA_DATA (two pages, behind them
 * one that is read-only, then nothing; in front of them nothing, or, for engines only, device registers), the stack
 * (nothing around it). A page at ISA_COUNT holds counters of loops and is not compared. Not for use by several threads.
 */
#ifndef TEST_ISA_DIFF_H
#define TEST_ISA_DIFF_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "cpu/cpu.h"

#define ISA_CODE 0x20000000u
#define ISA_CODE_SIZE 16384u
#define ISA_DATA 0x10000000u
#define ISA_DATA_SIZE 8192u
#define ISA_READ_ONLY (ISA_DATA + ISA_DATA_SIZE)
#define ISA_REGISTERS (ISA_DATA - 4096u)
#define ISA_STACK 0x10008000u
#define ISA_STACK_SIZE 4096u
#define ISA_COUNT 0x1000a000u
#define ISA_TABLES_SIZE 0x20000u	/* of an engine's machine, at 0 */
#define ISA_GS_BASE (ISA_DATA + 0x180u) /* in 64-bit programs */
#define ISA_FLAGS 0xcd5u		/* arithmetic flags and DF */

/* X(name, bits, bare, text). VM86 and REAL: the segments' bases are as after a stay in protected mode. */
#define ISA_MODES(X)                                                                                                   \
	X(ISA_USER64, 64, true, "64-bit, user")                                                                        \
	X(ISA_USER32, 32, true, "32-bit compatibility, user")                                                          \
	X(ISA_KERNEL64, 64, false, "64-bit, kernel")                                                                   \
	X(ISA_PROT32, 32, false, "32-bit, kernel")                                                                     \
	X(ISA_SEGMENTED32, 32, false, "32-bit, user, segments with bases and limits")                                  \
	X(ISA_COMPAT16, 16, false, "16-bit compatibility, user")                                                       \
	X(ISA_PROT16, 16, false, "16-bit, kernel")                                                                     \
	X(ISA_REAL, 16, false, "real mode")                                                                            \
	X(ISA_VM86, 16, false, "virtual 8086 mode")

#define ISA_MODE_ENUM(name, bits, bare, text) name,
enum isa_mode { ISA_MODES(ISA_MODE_ENUM) ISA_MODE_COUNT };
#undef ISA_MODE_ENUM

int isa_bits(enum isa_mode mode);
bool isa_bare(enum isa_mode mode); /* can run on the bare CPU */
const char *isa_mode_text(enum isa_mode mode);
/* What to subtract from a linear address to get an offset in that segment. */
uint64_t isa_segment_base(enum isa_mode mode, enum seg_name seg);

struct isa_state {
	uint64_t gpr[16], rip, rflags; /* rip: linear */
	uint16_t fcw, fsw;
	uint8_t ftw;
	uint32_t mxcsr;
	uint8_t st[8][16];
	uint8_t zmm[32][64];
	uint64_t k[8];
	uint8_t data[ISA_DATA_SIZE], stack[ISA_STACK_SIZE], code[ISA_CODE_SIZE]; /* code: how it is in the end */
	/* how it ended; engines: user modes only */
	int vector;
	uint32_t error; /* of vectors that have one */
	uint64_t cr2;	/* of vector 14 */
};
enum { ISA_STOPPED = -1, ISA_TIMEOUT = -2 }; /* in place of a vector: the engine gave up; it took too long */

#define ISA_ENGINES 2
struct isa;

/* NULL: it said why on stderr. */
struct isa *isa_open(enum isa_mode mode, const struct cpu_engine *const *engines, unsigned count);
void isa_close(struct isa *t);
/* How long a program may run, in CPU time. */
void isa_limit(struct isa *t, int ms);

/* A start state filled from `seed`: random registers and memory, RSP in the middle of the stack, x87 and vector
 * registers random but without pending exceptions, rip at the start of the code. */
void isa_random_state(struct isa_state *s, uint64_t seed, enum isa_mode mode);
uint64_t isa_random(uint64_t *seed);

/* `code` goes to in->rip. */
void isa_run_bare(struct isa *t, const uint8_t *code, unsigned len, const struct isa_state *in, struct isa_state *out);
void isa_run_engine(struct isa *t, unsigned engine, const uint8_t *code, unsigned len, const struct isa_state *in,
	struct isa_state *out);

enum { ISA_VECTORS = 1 }; /* compare x87 and vector state too */
/* True if equal; else the differences go to `f` (NULL: nowhere). `flags_mask`: of ISA_FLAGS, what counts. */
bool isa_equal(
	const struct isa_state *bare, const struct isa_state *engine, unsigned what, unsigned flags_mask, FILE *f);
/* Everything of engines 0 and 1 after a run of each. `flags_mask`: as above, in the image the handler found. */
bool isa_engines_equal(struct isa *t, unsigned what, unsigned flags_mask, FILE *f);
void isa_disassemble(const uint8_t *code, unsigned len, uint32_t at, int bits, FILE *f);

#endif
