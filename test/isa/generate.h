/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Random programs over the whole instruction table.
 *
 * A program is a row of pieces. Most are one instruction: random bytes of one of the opcode spaces that the decoder
 * takes, with what prepares it (a base register aimed at memory, a small count in CL...). Others are branches to later
 * pieces, calls, string instructions, code that changes code ahead or behind, and so on. The whole may be a loop with a
 * counter in memory, so that registers, and what an engine made of the code, live on. All jumps but that one go
 * forward: every program ends.
 *
 * The generator knows at each point which registers hold addresses of memory; base registers are taken from those, or
 * made such. Some accesses are aimed at borders: between pages, at what is read-only, at nothing.
 */
#ifndef TEST_ISA_GENERATE_H
#define TEST_ISA_GENERATE_H

#include "test/isa/diff.h"

#define PROGRAM_BYTES 6000u
#define PROGRAM_PIECES 48u

struct program_branch { /* to be filled in when the piece it goes to starts */
	uint16_t at;	/* of the displacement */
	uint8_t size;	/* 1, 2 or 4; 0: none */
	uint8_t piece;
};

struct program {
	enum isa_mode mode;
	int bits;
	bool bare; /* only what does the same on the bare CPU */
	uint64_t seed, state_seed;
	uint32_t at; /* linear address of the first byte */
	uint8_t code[PROGRAM_BYTES];
	unsigned len;
	unsigned pieces;
	uint16_t start[PROGRAM_PIECES + 1]; /* of each piece; the last one ends the program */

	/* the generator's: */
	bool known[16]; /* the register holds value[], an address of the middle of memory */
	uint64_t value[16];
	bool reserved[16]; /* is not written by the program */
	bool loop, wild;   /* wild: may load RSP */
	bool balanced;	   /* no pushes and pops now */
	unsigned piece;
	struct program_branch branch[PROGRAM_PIECES];
	unsigned branches;
	uint16_t live[PROGRAM_BYTES + 1]; /* before each instruction */
};

/* The same seed, mode and `bare` give the same first pieces for every number of them. */
void program_make(struct program *p, uint64_t seed, enum isa_mode mode, bool bare, unsigned pieces);
/* Put NOPs in place of a piece. */
void program_drop(struct program *p, unsigned piece);
/* Fill in the state the program expects. */
void program_state(const struct program *p, struct isa_state *s);
/* The arithmetic flags that are read, on some way, before they are written, when execution stands at `rip`. */
unsigned program_live_flags(struct program *p, uint64_t rip);
void program_print(const struct program *p, FILE *f);

/* May two processors, or a processor and a software engine, leave something else behind when this instruction faults?
 */
bool program_fault_varies(const struct program *p, uint64_t rip);

/* X(name, what): properties of an instruction by which known bugs are told apart. */
#define PROGRAM_TRAITS(X)                                                                                              \
	X(TRAIT_CALL, "near call")                                                                                     \
	X(TRAIT_STRING, "string instruction")                                                                          \
	X(TRAIT_DIVIDE, "division of a number in memory")                                                              \
	X(TRAIT_MASKMOV, "MASKMOVQ, MASKMOVDQU")                                                                       \
	X(TRAIT_VECTOR, "VEX or EVEX encoding")                                                                        \
	X(TRAIT_X87_STORE, "x87 store")
#define PROGRAM_TRAIT_ENUM(name, what) name,
enum program_trait { PROGRAM_TRAITS(PROGRAM_TRAIT_ENUM) PROGRAM_TRAIT_COUNT };
#undef PROGRAM_TRAIT_ENUM

/* Has the instruction at `rip` (0: any of the program) that property? */
bool program_has(const struct program *p, uint64_t rip, enum program_trait trait);

#endif
