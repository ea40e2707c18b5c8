/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Operations, blocks and the inline paths of the interpreter; seen by cpu/interp/ only.
 *
 * An instruction becomes one `struct op`: a handler and its operands, with registers as byte offsets from the start of
 * the vCPU (so that AH is RAX's offset + 1). Handlers tail-call the next one; the last of a block returns the block
 * that follows, or NULL to go back to the run loop with v.state.rip set.
 *
 * Where the truth is, while handlers run (hot.complete false):
 *	rip     hot.block_rip + op->off
 *	flags   CF PF AF ZF SF OF in hot.flags as LAHF and SETO deliver them; the others in v.state.rflags
 * Before a call that may raise: memory accesses note the op in hot.op, from which the landing place computes rip;
 * helpers of cpu/x86/ get a complete v.state from sys_begin().
 */
#ifndef CPU_INTERP_OP_H
#define CPU_INTERP_OP_H

#include <stdatomic.h>
#include <stddef.h>
#include <string.h>

#include "cpu/interp/interp.h"

#define likely(x) __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)

struct op;
typedef struct block *(*op_fn)(struct interp_cpu *i, const struct op *op);

enum op_flags {
	OP_MEM = 1,  /* the r/m operand is memory */
	OP_LOCK = 2, /* locked */
	OP_REPE = 4, /* REP or REPE */
	OP_REPNE = 8,
	OP_A16 = 16,	/* 16-bit addresses */
	OP_A32 = 32,	/* 32-bit addresses */
	OP_RIPADJ = 64, /* rip-relative, and disp does not include off + len */
};

struct op {
	op_fn fn;
	int64_t imm; /* immediate; branch target relative to the block; struct vec_op * */
	int32_t disp;
	uint16_t base, index; /* offsets of 64-bit words */
	uint8_t dst, src;     /* offsets of registers; their meaning is the handler's */
	uint8_t shift;	      /* of index */
	uint8_t seg;	      /* enum seg_name of the memory operand */
	uint8_t off;	      /* of the instruction in its block */
	uint8_t len;
	uint8_t size;  /* operand size in bytes */
	uint8_t flags; /* enum op_flags */
};
_Static_assert(sizeof(struct op) == 32, "an operation is half a cache line");

#define BLOCK_OPS 48
#define BLOCK_BYTES 224

enum block_flags {
	BLOCK_CROSS = 1, /* one instruction across two pages: `second` counts */
	BLOCK_DEAD = 2,	 /* its code changed; only links that are not renewed yet point here */
};

/* The page a block was decoded from. */
struct block_page {
	struct ram *ram;
	uint64_t page;
	uint32_t gen;
};

struct block {
	struct block *link[2]; /* 0: falls through, 1: the branch is taken */
	_Atomic uint32_t *genp;
	uint32_t gen;
	uint16_t insns;
	uint8_t bytes;
	uint8_t flags;
	uint64_t key; /* mode_key, and bit 32: single, bit 33: CS is flat */
	gpa_t gpa;
	struct block *hash_next;
	struct block_page first, second;
	gpa_t second_gpa;    /* page */
	const uint8_t *code; /* copy of the instruction bytes */
	struct op ops[];
};

/* X(bytes, type, asm suffix) */
#define OP_SIZES(X) X(1, uint8_t, "b") X(2, uint16_t, "w") X(4, uint32_t, "l") X(8, uint64_t, "q")

typedef uint8_t reg1 __attribute__((may_alias));
typedef uint16_t reg2 __attribute__((may_alias));
typedef uint32_t reg4 __attribute__((may_alias));
typedef uint64_t reg8 __attribute__((may_alias));
typedef uint8_t mem1 __attribute__((may_alias));
typedef uint16_t mem2 __attribute__((may_alias, aligned(1)));
typedef uint32_t mem4 __attribute__((may_alias, aligned(1)));
typedef uint64_t mem8 __attribute__((may_alias, aligned(1)));

#define REG(n, off) (*(reg##n *)((char *)i + (off)))
#define SET1(off, v) (REG(1, off) = (uint8_t)(v))
#define SET2(off, v) (REG(2, off) = (uint16_t)(v))
#define SET4(off, v) (REG(8, off) = (uint32_t)(v))
#define SET8(off, v) (REG(8, off) = (v))

#define ST (i->c.v.state)
#define HOT (i->c.hot)

#define NEXT return op[1].fn(i, op + 1)

static inline unsigned
log2_size(unsigned size)
{
	return (unsigned)__builtin_ctz(size);
}

static inline uint64_t
size_mask(unsigned size)
{
	return size >= 8 ? UINT64_MAX : (1ull << (size * 8)) - 1;
}

static inline uint64_t
reg_get(struct interp_cpu *i, unsigned off, unsigned size)
{
	switch (size) {
	case 1:
		return REG(1, off);
	case 2:
		return REG(2, off);
	case 4:
		return REG(4, off);
	default:
		return REG(8, off);
	}
}

static inline void
reg_set(struct interp_cpu *i, unsigned off, uint64_t v, unsigned size)
{
	switch (size) {
	case 1:
		SET1(off, v);
		break;
	case 2:
		SET2(off, v);
		break;
	case 4:
		SET4(off, v);
		break;
	default:
		SET8(off, v);
	}
}

/* ---- flags ---- */

#define HF_OF 0x0001u
#define HF_CF 0x0100u
#define HF_PF 0x0400u
#define HF_AF 0x1000u
#define HF_ZF 0x4000u
#define HF_SF 0x8000u
#define ARITH_FLAGS (FLAG_CF | FLAG_PF | FLAG_AF | FLAG_ZF | FLAG_SF | FLAG_OF)

/* To the host's flags from hot.flags and back, around an instruction in inline assembly; RAX is clobbered. */
#define FLAGS_LOAD "movzwl %[f], %%eax\n\taddb $0x7f, %%al\n\tsahf\n\t"
#define CARRY_LOAD "btw $8, %[f]\n\t"
#define FLAGS_STORE "\n\tlahf\n\tseto %%al\n\tmovw %%ax, %[f]"

static inline void
flags_out(struct interp_cpu *i)
{
	uint64_t f = HOT.flags;

	ST.rflags = (ST.rflags & ~(uint64_t)ARITH_FLAGS) | ((f >> 8) & 0xd5) | ((f & 1) << 11);
}

static inline void
flags_in(struct interp_cpu *i)
{
	uint64_t f = ST.rflags;

	HOT.flags = (uint16_t)(((f & 0xd5) | 2) << 8 | ((f >> 11) & 1));
}

#define COND_O(f) ((f)&HF_OF)
#define COND_B(f) ((f)&HF_CF)
#define COND_Z(f) ((f)&HF_ZF)
#define COND_BE(f) ((f) & (HF_CF | HF_ZF))
#define COND_S(f) ((f)&HF_SF)
#define COND_P(f) ((f)&HF_PF)
#define COND_L(f) ((((f) >> 15) ^ (f)) & 1)
#define COND_LE(f) (((f)&HF_ZF) || COND_L(f))
/* X(index, name, condition): in the order of the encodings */
#define CONDITIONS(X)                                                                                                  \
	X(0, o, COND_O(f))                                                                                             \
	X(1, no, !COND_O(f))                                                                                           \
	X(2, b, COND_B(f))                                                                                             \
	X(3, ae, !COND_B(f))                                                                                           \
	X(4, z, COND_Z(f))                                                                                             \
	X(5, nz, !COND_Z(f))                                                                                           \
	X(6, be, COND_BE(f))                                                                                           \
	X(7, a, !COND_BE(f))                                                                                           \
	X(8, s, COND_S(f))                                                                                             \
	X(9, ns, !COND_S(f))                                                                                           \
	X(10, p, COND_P(f))                                                                                            \
	X(11, np, !COND_P(f))                                                                                          \
	X(12, l, COND_L(f))                                                                                            \
	X(13, ge, !COND_L(f))                                                                                          \
	X(14, le, COND_LE(f))                                                                                          \
	X(15, g, !COND_LE(f))

/* ---- leaving ---- */

static inline uint64_t
op_next_rip(struct interp_cpu *i, const struct op *op)
{
	return (HOT.block_rip + op->off + op->len) & i->rip_mask;
}

/* Leave the block behind `op`. */
struct block *interp_leave(struct interp_cpu *i, const struct op *op);
/* Leave the block in front of `op`: it goes on later (REP). */
struct block *interp_again(struct interp_cpu *i, const struct op *op);

/* From here on v.state is complete and helpers may raise. */
static inline void
sys_begin(struct interp_cpu *i, const struct op *op)
{
	HOT.op = op;
	ST.rip = HOT.block_rip + op->off;
	i->c.next_rip = op_next_rip(i, op);
	flags_out(i);
	HOT.complete = true;
}
/* The end of sys_begin() for operations after which the block goes on. */
static inline void
sys_resume(struct interp_cpu *i)
{
	flags_in(i);
	HOT.complete = false;
}
/* ... and for the ones that end the block: behind the instruction, */
static inline struct block *
sys_leave(struct interp_cpu *i)
{
	ST.rip = i->c.next_rip;
	return NULL;
}
/* or where the helper set rip. */
static inline struct block *
sys_jump(struct interp_cpu *i)
{
	return NULL;
}

_Noreturn void interp_raise(struct interp_cpu *i, const struct op *op, int vector);
_Noreturn void interp_raise_error(struct interp_cpu *i, const struct op *op, int vector, uint32_t error);

/* ---- memory ---- */

_Static_assert(sizeof(struct soft_tlb_entry) == 32, "tlb_entry() shifts by this");

static inline struct soft_tlb_entry *
tlb_entry(struct interp_cpu *i, gva_t a)
{
	return (struct soft_tlb_entry *)((char *)HOT.tlb + ((a >> 7) & (SOFT_TLB_SIZE - 1) * 32));
}

/*
 * Linear address of the memory operand. Kinds: 0 flat 64-bit base + disp, 1 flat 64-bit with index, 2 flat 32-bit,
 * 3 all others (segment bases and limits, 16-bit addresses).
 */
#define EA_KINDS 4
gva_t interp_ea(struct interp_cpu *i, const struct op *op, unsigned size, enum x86_access access);
/* The offset in its segment, address size applied. */
uint64_t interp_offset(struct interp_cpu *i, const struct op *op);
/* Offset to linear address with the checks of segment `seg`. */
gva_t interp_linear(struct interp_cpu *i, const struct op *op, enum seg_name seg, uint64_t off, unsigned size,
	enum x86_access access);

#define EA0(size, access) (REG(8, op->base) + (int64_t)op->disp)
#define EA1(size, access) (REG(8, op->base) + (REG(8, op->index) << op->shift) + (int64_t)op->disp)
#define EA2(size, access) ((uint32_t)(REG(4, op->base) + (REG(4, op->index) << op->shift) + (uint32_t)op->disp))
#define EA3(size, access) ea_segmented(i, op, size, access)

/* Raise #GP(0) or #SS(0) for an address that is not canonical in 64-bit mode. */
void interp_check_canonical(struct interp_cpu *i, const struct op *op, enum seg_name seg, gva_t a, unsigned size);
uint64_t interp_load_slow(struct interp_cpu *i, const struct op *op, gva_t a, unsigned size);
/* Stores return true when the block has to be left behind this instruction. */
bool interp_store_slow(struct interp_cpu *i, const struct op *op, gva_t a, uint64_t value, unsigned size);
bool interp_page_flagged(struct interp_cpu *i, struct soft_tlb_entry *e);
/* What is read and written in place, and the entry whose flags count afterwards. */
struct rmw {
	void *p;
	struct soft_tlb_entry *e;
};
struct rmw interp_rmw_slow(struct interp_cpu *i, const struct op *op, gva_t a, unsigned size);
bool interp_rmw_flagged(struct interp_cpu *i, struct soft_tlb_entry *e);

/*
 * The same through thunks (access.c) that keep all registers: a handler with a plain call on its slow path would save
 * registers on its fast path too. The stack pointer is moved beyond the red zone, in which the compiler may keep
 * values as it does not see a call.
 */
#define THUNK_CALL(name) "lea -128(%%rsp), %%rsp\n\tcall " name "\n\tlea 128(%%rsp), %%rsp"
#define THUNK_CLOBBERS                                                                                                 \
	"cc", "memory", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10",       \
		"xmm11", "xmm12", "xmm13", "xmm14", "xmm15"

static inline uint64_t
load_missed(struct interp_cpu *i, const struct op *op, gva_t a, unsigned size)
{
	uint64_t v;

	__asm__ volatile(THUNK_CALL("interp_load_thunk")
			 : "=a"(v)
			 : "D"(i), "S"(op), "d"(a), "c"(size)
			 : THUNK_CLOBBERS);
	return v;
}

static inline bool
store_missed(struct interp_cpu *i, const struct op *op, gva_t a, uint64_t value, unsigned size)
{
	register unsigned size_r8 __asm__("r8") = size;
	bool out;

	__asm__ volatile(THUNK_CALL("interp_store_thunk")
			 : "=a"(out)
			 : "D"(i), "S"(op), "d"(a), "c"(value), "r"(size_r8)
			 : THUNK_CLOBBERS);
	return out;
}

static inline struct rmw
rmw_missed(struct interp_cpu *i, const struct op *op, gva_t a, unsigned size)
{
	struct rmw m;

	__asm__ volatile(THUNK_CALL("interp_rmw_thunk")
			 : "=a"(m.p), "=d"(m.e)
			 : "D"(i), "S"(op), "1"(a), "c"(size)
			 : THUNK_CLOBBERS);
	return m;
}

static inline bool
page_flagged(struct interp_cpu *i, struct soft_tlb_entry *e)
{
	bool out;

	__asm__ volatile(THUNK_CALL("interp_flagged_thunk") : "=a"(out) : "D"(i), "S"(e) : THUNK_CLOBBERS);
	return out;
}

static inline bool
rmw_flagged(struct interp_cpu *i, struct soft_tlb_entry *e)
{
	bool out;

	__asm__ volatile(THUNK_CALL("interp_rmw_flagged_thunk") : "=a"(out) : "D"(i), "S"(e) : THUNK_CLOBBERS);
	return out;
}

static inline gva_t
ea_other(struct interp_cpu *i, const struct op *op, unsigned size, enum x86_access access)
{
	gva_t a;

	__asm__ volatile(THUNK_CALL("interp_ea_thunk")
			 : "=a"(a)
			 : "D"(i), "S"(op), "d"(size), "c"(access)
			 : THUNK_CLOBBERS);
	return a;
}

/* 64-bit addresses need at most the base of FS or GS added. */
static inline gva_t
ea_segmented(struct interp_cpu *i, const struct op *op, unsigned size, enum x86_access access)
{
	gva_t a;

	if (unlikely(op->flags & (OP_A16 | OP_A32 | OP_RIPADJ)))
		return ea_other(i, op, size, access);
	a = EA1(size, access);
	return op->seg >= SEG_FS ? a + ST.seg[op->seg].base : a;
}

/*
 * rmwN(): a pointer to N bytes to be read and written in place; afterwards rmw_done(). On the slow way that is the
 * scratch buffer, stored by rmw_done(), which cannot raise then.
 */
#define ACCESSORS(n, T, sfx)                                                                                           \
	static inline T load##n(struct interp_cpu *i, const struct op *op, gva_t a)                                    \
	{                                                                                                              \
		struct soft_tlb_entry *e = tlb_entry(i, a);                                                            \
                                                                                                                       \
		if (likely(e->read == (((a + n - 1) & ~(gva_t)PAGE_MASK) | HOT.tag)))                                  \
			return *(volatile mem##n *)(a + e->delta);                                                     \
		return (T)load_missed(i, op, a, n);                                                                    \
	}                                                                                                              \
	static inline bool store##n(struct interp_cpu *i, const struct op *op, gva_t a, T value)                       \
	{                                                                                                              \
		struct soft_tlb_entry *e = tlb_entry(i, a);                                                            \
                                                                                                                       \
		if (likely(e->write == (((a + n - 1) & ~(gva_t)PAGE_MASK) | HOT.tag))) {                               \
			*(volatile mem##n *)(a + e->delta) = value;                                                    \
			if (likely(!atomic_load_explicit(e->flags, memory_order_relaxed)))                             \
				return false;                                                                          \
			return page_flagged(i, e);                                                                     \
		}                                                                                                      \
		return store_missed(i, op, a, value, n);                                                               \
	}                                                                                                              \
	static inline struct rmw rmw##n(struct interp_cpu *i, const struct op *op, gva_t a)                            \
	{                                                                                                              \
		struct soft_tlb_entry *e = tlb_entry(i, a);                                                            \
                                                                                                                       \
		if (likely(e->write == (((a + n - 1) & ~(gva_t)PAGE_MASK) | HOT.tag)))                                 \
			return (struct rmw){ (void *)(a + e->delta), e };                                              \
		return rmw_missed(i, op, a, n);                                                                        \
	}
OP_SIZES(ACCESSORS)
#undef ACCESSORS

static inline bool
rmw_done(struct interp_cpu *i, struct soft_tlb_entry *e)
{
	if (likely(!atomic_load_explicit(e->flags, memory_order_relaxed)))
		return false;
	return rmw_flagged(i, e);
}

/* Any size, any segment: for what is not hot. */
uint64_t interp_load(struct interp_cpu *i, const struct op *op, enum seg_name seg, uint64_t off, unsigned size);
bool interp_store(
	struct interp_cpu *i, const struct op *op, enum seg_name seg, uint64_t off, uint64_t value, unsigned size);
/* The operation's memory operand, or its register `dst`. */
uint64_t interp_rm_load(struct interp_cpu *i, const struct op *op, unsigned size);
bool interp_rm_store(struct interp_cpu *i, const struct op *op, uint64_t value, unsigned size);

/* ---- the stack ---- */

bool interp_push(struct interp_cpu *i, const struct op *op, uint64_t value, unsigned size);
/* Value at the top, without moving SP. */
uint64_t interp_peek(struct interp_cpu *i, const struct op *op, unsigned size);
void interp_move_sp(struct interp_cpu *i, int64_t by);

/* ---- flow ---- */

struct block *interp_chain_slow(struct interp_cpu *i, const struct op *op, unsigned n, uint64_t rip);
/* Raise #GP(0) at `op` if code cannot be at `rip`. */
void interp_check_target(struct interp_cpu *i, const struct op *op, uint64_t rip);
struct block *interp_jump_slow(struct interp_cpu *i, const struct op *op, uint64_t rip);

/* Is the page of `rip`, seen with the current address space, the page the block was decoded from? */
static inline bool
same_page(struct interp_cpu *i, uint64_t rip, const struct block *b)
{
	const struct soft_tlb_meta *m = &i->c.tlb_meta[i->c.mmu][(rip >> PAGE_SHIFT) & (SOFT_TLB_SIZE - 1)];

	return m->exec == ((rip & ~(gva_t)PAGE_MASK) | HOT.tag) && m->gpa == (b->gpa & ~(gpa_t)PAGE_MASK);
}

static inline bool
block_current(const struct block *b)
{
	return atomic_load_explicit(b->genp, memory_order_relaxed) == b->gen;
}

static inline struct block *
enter_block(struct interp_cpu *i, struct block *b, uint64_t rip)
{
	HOT.block_rip = rip;
	HOT.block = b;
	i->c.v.count.insns += b->insns;
	return b;
}

/* To the n-th successor of this block at `rip`. Links exist only within a page, and where CS is flat. */
static inline struct block *
chain(struct interp_cpu *i, const struct op *op, unsigned n, uint64_t rip)
{
	struct block *next = ((struct block *)HOT.block)->link[n];

	if (unlikely(!next || atomic_load_explicit(&i->c.v.requests, memory_order_relaxed) || !block_current(next)))
		return interp_chain_slow(i, op, n, rip);
	return enter_block(i, next, rip);
}

static inline struct block *
jump(struct interp_cpu *i, const struct op *op, uint64_t rip)
{
	struct interp_target *t = &i->target[(rip ^ (rip >> 12)) & (INTERP_TARGETS - 1)];

	if (unlikely(t->rip != rip || !t->block || atomic_load_explicit(&i->c.v.requests, memory_order_relaxed)))
		return interp_jump_slow(i, op, rip);
	if (unlikely(t->block->key != ((struct block *)HOT.block)->key || !block_current(t->block) ||
		     !same_page(i, rip, t->block)))
		return interp_jump_slow(i, op, rip);
	return enter_block(i, t->block, rip);
}

/* ---- block.c ---- */

/* The block at v.state.rip; v.state is complete. Raises #PF, #GP. `single`: of one instruction. */
struct block *interp_find(struct interp_cpu *i, bool single);

/* ---- decode.c ---- */

enum decode_result { DECODE_OK, DECODE_END, DECODE_MORE };

/* What an operation does with the arithmetic flags. */
enum flags_effect {
	FLAGS_UNKNOWN, /* reads them, or may raise or leave the block: they have to be right before it */
	FLAGS_KEPT,    /* neither reads nor writes them, and cannot raise */
	FLAGS_PARTLY,  /* writes some or all and keeps the others, and cannot raise */
	FLAGS_WRITTEN, /* writes them all without reading any, and cannot raise */
};
/* What choosing better handlers for a block needs to know of an operation (block.c). */
struct op_traits {
	enum flags_effect effect;
	op_fn quiet;	    /* the same without flags, or NULL */
	const op_fn *fused; /* by condition: the same with the conditional jump behind it, or NULL */
	uint8_t condition;  /* a conditional jump's, or 0xff */
};
/*
 * Decode one instruction of at most `avail` bytes into `op`, whose `off` is set. END: it ends its block. MORE: the
 * bytes are not enough.
 */
enum decode_result interp_decode(
	struct interp_cpu *i, const uint8_t *code, unsigned avail, struct op *op, struct op_traits *traits);
void interp_disassemble(struct interp_cpu *i, const uint8_t *code, unsigned avail, char *text, unsigned size);

/* ---- the handlers ---- */

enum binop {
	BINOP_ADD,
	BINOP_OR,
	BINOP_ADC,
	BINOP_SBB,
	BINOP_AND,
	BINOP_SUB,
	BINOP_XOR,
	BINOP_CMP,
	BINOP_TEST,
	BINOPS
};
enum unop { UNOP_INC, UNOP_DEC, UNOP_NEG, UNOP_NOT, UNOPS };
enum shift { SHIFT_ROL, SHIFT_ROR, SHIFT_RCL, SHIFT_RCR, SHIFT_SHL, SHIFT_SHR, SHIFT_SAR, SHIFTS };
enum bitop { BIT_BT, BIT_BTS, BIT_BTR, BIT_BTC, BITOPS };

/* alu.c: [operation][log2 of size][kind of address] */
extern const op_fn interp_binop_rr[BINOPS][4], interp_binop_ri[BINOPS][4];
extern const op_fn interp_binop_rm[BINOPS][4][EA_KINDS], interp_binop_mr[BINOPS][4][EA_KINDS],
	interp_binop_mi[BINOPS][4][EA_KINDS];
extern const op_fn interp_unop_r[UNOPS][4];
extern const op_fn interp_shift_ri[SHIFTS][4], interp_shift_rc[SHIFTS][4];
/* SHL, SHR, SAR by a count that is not 0 (with the bits that count), NULL for the others */
extern const op_fn interp_shift_ri_all[SHIFTS][4];
/* without flags; NULL where there is none */
extern const op_fn interp_quiet_rr[BINOPS][4], interp_quiet_ri[BINOPS][4], interp_quiet_unop[UNOPS][4],
	interp_quiet_shift[SHIFTS][4], interp_quiet_imul_rr[4], interp_quiet_imul_ri[4];
/* with the conditional jump that follows, by condition; NULL where there is none */
extern const op_fn interp_fused_rr[BINOPS][4][16], interp_fused_ri[BINOPS][4][16], interp_fused_unop[UNOPS][4][16],
	interp_fused_rm[BINOPS][4][EA_KINDS][16], interp_fused_mr[BINOPS][4][EA_KINDS][16],
	interp_fused_mi[BINOPS][4][EA_KINDS][16];
extern const op_fn interp_mov_rr[4], interp_mov_ri[4], interp_mov_rm[4][EA_KINDS], interp_mov_mr[4][EA_KINDS],
	interp_mov_mi[4][EA_KINDS];
/* [0 zero, 1 sign][log2 of source size][log2 of destination size] */
extern const op_fn interp_movx_rr[2][3][4], interp_movx_rm[2][3][4][EA_KINDS];
extern const op_fn interp_lea[4][EA_KINDS]; /* kind 3: any address size */
extern const op_fn interp_cmov_rr[16][4], interp_setcc_r[16], interp_jcc[16];
struct block *interp_op_push64_r(struct interp_cpu *i, const struct op *op);
struct block *interp_op_push64_i(struct interp_cpu *i, const struct op *op);
struct block *interp_op_pop64_r(struct interp_cpu *i, const struct op *op);
struct block *interp_op_push32_r(struct interp_cpu *i, const struct op *op);
struct block *interp_op_push32_i(struct interp_cpu *i, const struct op *op);
struct block *interp_op_pop32_r(struct interp_cpu *i, const struct op *op);
struct block *interp_op_call64(struct interp_cpu *i, const struct op *op);
struct block *interp_op_call64_r(struct interp_cpu *i, const struct op *op);
struct block *interp_op_ret64(struct interp_cpu *i, const struct op *op);
struct block *interp_op_leave64(struct interp_cpu *i, const struct op *op);
struct block *interp_op_jmp(struct interp_cpu *i, const struct op *op);
struct block *interp_op_jmp_r(struct interp_cpu *i, const struct op *op); /* 64-bit */
struct block *interp_op_end(struct interp_cpu *i, const struct op *op); /* falls into the next block; no instruction */
struct block *interp_op_nop(struct interp_cpu *i, const struct op *op);
extern const op_fn interp_imul_rr[4], interp_imul_ri[4];

/* rmw.c: [operation][log2 of size]; register or memory, locked or not */
extern const op_fn interp_rmw_binop_r[BINOPS][4], interp_rmw_binop_i[BINOPS][4]; /* locked, memory */
extern const op_fn interp_rmw_unop[UNOPS][4];
extern const op_fn interp_rmw_shift_i[SHIFTS][4], interp_rmw_shift_c[SHIFTS][4];
extern const op_fn interp_rmw_bit_r[BITOPS][4], interp_rmw_bit_i[BITOPS][4];
extern const op_fn interp_rmw_shld_i[2][4], interp_rmw_shld_c[2][4]; /* 0 SHLD, 1 SHRD */
extern const op_fn interp_rmw_xadd[4], interp_rmw_cmpxchg[4], interp_rmw_xchg[4];
extern const op_fn interp_mul[4], interp_imul1[4], interp_div[4], interp_idiv[4];
extern const op_fn interp_scan[4][4]; /* BSF, BSR, TZCNT, LZCNT; also POPCNT below */
extern const op_fn interp_popcnt[4];
struct block *interp_op_cmpxchg8b(struct interp_cpu *i, const struct op *op);
struct block *interp_op_cmpxchg16b(struct interp_cpu *i, const struct op *op);

/* misc.c, string.c, system.c: X(name) */
#define OP_MISC(X)                                                                                                     \
	X(push)                                                                                                        \
	X(push_rm)                                                                                                     \
	X(push_imm)                                                                                                    \
	X(pop_r)                                                                                                       \
	X(pop_rm)                                                                                                      \
	X(pusha)                                                                                                       \
	X(popa)                                                                                                        \
	X(enter)                                                                                                       \
	X(leave)                                                                                                       \
	X(jmp_rm)                                                                                                      \
	X(call_rel)                                                                                                    \
	X(call_rm)                                                                                                     \
	X(ret)                                                                                                         \
	X(loop)                                                                                                        \
	X(loope)                                                                                                       \
	X(loopne)                                                                                                      \
	X(jcxz)                                                                                                        \
	X(cbw)                                                                                                         \
	X(cwd)                                                                                                         \
	X(bswap)                                                                                                       \
	X(movbe_load)                                                                                                  \
	X(movbe_store)                                                                                                 \
	X(xlat)                                                                                                        \
	X(salc)                                                                                                        \
	X(aaa)                                                                                                         \
	X(aas)                                                                                                         \
	X(aam)                                                                                                         \
	X(aad)                                                                                                         \
	X(daa)                                                                                                         \
	X(das)                                                                                                         \
	X(clc)                                                                                                         \
	X(stc)                                                                                                         \
	X(cmc)                                                                                                         \
	X(cld)                                                                                                         \
	X(std)                                                                                                         \
	X(lahf)                                                                                                        \
	X(sahf)                                                                                                        \
	X(setcc_m)                                                                                                     \
	X(cmov_m)                                                                                                      \
	X(lea_any)                                                                                                     \
	X(mov_a_moffs)                                                                                                 \
	X(mov_moffs_a)                                                                                                 \
	X(bound)                                                                                                       \
	X(mfence)                                                                                                      \
	X(pause)                                                                                                       \
	X(vec)                                                                                                         \
	X(movnti)                                                                                                      \
	X(probe_read)                                                                                                  \
	X(xchg_rr)
#define OP_STRING(X)                                                                                                   \
	X(movs)                                                                                                        \
	X(stos)                                                                                                        \
	X(lods)                                                                                                        \
	X(scas)                                                                                                        \
	X(cmps)                                                                                                        \
	X(ins)                                                                                                         \
	X(outs)
#define OP_SYSTEM(X)                                                                                                   \
	X(ud)                                                                                                          \
	X(gp)                                                                                                          \
	X(in_imm)                                                                                                      \
	X(in_dx)                                                                                                       \
	X(out_imm)                                                                                                     \
	X(out_dx)                                                                                                      \
	X(cli)                                                                                                         \
	X(sti)                                                                                                         \
	X(hlt)                                                                                                         \
	X(pushf)                                                                                                       \
	X(popf)                                                                                                        \
	X(int3)                                                                                                        \
	X(int1)                                                                                                        \
	X(int_n)                                                                                                       \
	X(into)                                                                                                        \
	X(iret)                                                                                                        \
	X(jmp_far)                                                                                                     \
	X(call_far)                                                                                                    \
	X(jmp_far_m)                                                                                                   \
	X(call_far_m)                                                                                                  \
	X(ret_far)                                                                                                     \
	X(load_far)                                                                                                    \
	X(mov_from_seg)                                                                                                \
	X(mov_to_seg)                                                                                                  \
	X(push_seg)                                                                                                    \
	X(pop_seg)                                                                                                     \
	X(lgdt)                                                                                                        \
	X(lidt)                                                                                                        \
	X(sgdt)                                                                                                        \
	X(sidt)                                                                                                        \
	X(sldt)                                                                                                        \
	X(str)                                                                                                         \
	X(lldt)                                                                                                        \
	X(ltr)                                                                                                         \
	X(smsw)                                                                                                        \
	X(lmsw)                                                                                                        \
	X(verr)                                                                                                        \
	X(verw)                                                                                                        \
	X(lar)                                                                                                         \
	X(lsl)                                                                                                         \
	X(arpl)                                                                                                        \
	X(clts)                                                                                                        \
	X(mov_from_cr)                                                                                                 \
	X(mov_to_cr)                                                                                                   \
	X(mov_from_dr)                                                                                                 \
	X(mov_to_dr)                                                                                                   \
	X(invlpg)                                                                                                      \
	X(invpcid)                                                                                                     \
	X(wbinvd)                                                                                                      \
	X(rdmsr)                                                                                                       \
	X(wrmsr)                                                                                                       \
	X(rdtsc)                                                                                                       \
	X(rdtscp)                                                                                                      \
	X(rdpmc)                                                                                                       \
	X(rdpid)                                                                                                       \
	X(cpuid)                                                                                                       \
	X(syscall)                                                                                                     \
	X(sysret)                                                                                                      \
	X(sysenter)                                                                                                    \
	X(sysexit)                                                                                                     \
	X(swapgs)                                                                                                      \
	X(rdfsbase)                                                                                                    \
	X(wrfsbase)                                                                                                    \
	X(rdgsbase)                                                                                                    \
	X(wrgsbase)                                                                                                    \
	X(xgetbv)                                                                                                      \
	X(xsetbv)                                                                                                      \
	X(clac)                                                                                                        \
	X(stac)                                                                                                        \
	X(rdrand)                                                                                                      \
	X(rdseed)
#define OP_DECLARE(name) struct block *interp_op_##name(struct interp_cpu *i, const struct op *op);
OP_MISC(OP_DECLARE)
OP_STRING(OP_DECLARE)
OP_SYSTEM(OP_DECLARE)
#undef OP_DECLARE

#endif
