/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The translator: guest code of 64-bit (and flat 32-bit) modes becomes host code of the same instruction set.
 * doc/translator.md tells how it works; this header holds what the files of cpu/jit/ share, translate.h what those do
 * that write code.
 *
 *	run.c        the engine: run loop, requests, exceptions, what translated code calls in C
 *	cache.c      code memory, blocks, the pages they come from, links between them, dropping them
 *	stubs.c      the fixed pieces of host code: entry, exit, memory checks, the ways to C and back
 *	window.c     user memory where the host's MMU finds it
 *	mode.c       those that change the mode: SYSCALL, SYSRET, STAC, CLAC; RDTSC and the image of RFLAGS
 *	decode.c     guest instructions: which are translated and how; liveness of flags
 *	group.c      accesses that one check can cover
 *	memory.c     addresses and checks
 *	flow.c       jumps between blocks
 *	insn.c       one instruction
 *	translate.c  a block
 *	fp.c         vector registers, loaded when needed
 *	system.c     frequent system instructions
 *	string.c     string instructions
 *	encode.c     one guest instruction with other registers and another memory operand
 *	dump.c       blocks and counters, for people
 *
 * Registers in translated code. RSP: jit_cpu.hot, so that translated code reaches the whole struct from it; below lies
 * a small stack for calls of stubs and for host signals, C runs on its own. RCX, R11 and R15 are temporaries: T_CX, T_A
 * (address), T_B. The guest's registers: see jit_host_reg; R9, R10, R11 and R15 live in v.state.
 *
 * Flags: the guest's arithmetic flags are in the host's ("host form") or in hot.fl as LAHF and SETO give them
 * ("memory form"). Ways from block to block inside a page carry the host form, all others the memory form.
 *
 * Tiers. A block is translated first as it comes (tier 1): small, quick to make, each memory check a call. Blocks that
 * are entered often are found by sampling and translated again (tier 2) with checks in line that cover groups of
 * accesses.
 */
#ifndef CPU_JIT_JIT_H
#define CPU_JIT_JIT_H

#include <stdatomic.h>
#include <stddef.h>

#include "cpu/interp/interp.h"

#define JIT_TARGET_BITS 17
#define JIT_TARGETS (1u << JIT_TARGET_BITS) /* entries of the jump cache */
#define JIT_TARGET_ROTATE 43
#define JIT_BUCKETS 262144u
#define JIT_PAGES 4096u /* buckets */
#define JIT_CONTEXTS 1024u
#define JIT_NOTED 65536u
#define JIT_PENDING 64u
#define JIT_BLOCK_INSNS 64u
#define JIT_BLOCK_BYTES 512u
#define JIT_STACK (64u << 10)
#define JIT_SAMPLE 127u /* entries of tier-1 blocks from one sample to the next */
#define JIT_HOT_BITS (1u << 20)
#define JIT_SAMPLES_HOT 16u /* samples that make a block hot */
/* Page of the stack window when there is none. No access reaches it: not canonical. Whose RSP holds it nevertheless
 * reads and writes jit_cpu.nowhere. */
#define JIT_NO_WINDOW 0x5ad1c0de0ff5e000ull

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
	X(JIT_MEMORY, "access to a device, a watched page or two pages")                                               \
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
	struct jit_block *blocks, *tails; /* that begin here; whose last bytes are here */
};

/*
 * A jump from one block to another in the same page. Unlinked it leads to the stub behind the block. A shared block, which
 * serves two modes, is linked to shared ones only; to what is of one mode alone its stub leads through the jump cache.
 */
struct jit_link {
	struct jit_link *next; /* of the target's `in` */
	struct jit_block *from;
	uint32_t site; /* of the rel32 */
	uint32_t stub;
	uint32_t target; /* offset in the page */
	bool mem;	 /* flags are in memory form */
	bool ahead;	 /* forwards: needs no poll */
	bool cross;	 /* of a struct jit_cross */
	uint8_t leaves;	 /* offset in the stub of the rel32 that leads out of it */
};

/*
 * A direct jump to another page, in 64-bit mode. Its code compares the sum of hot.page_va and hot.ctx[upper], which says
 * all that the key of a jump cache's entry says, with that of the last time it was linked: the same, and the target is
 * the same.
 */
struct jit_cross {
	struct jit_link link;	/* first; has no stub: who has no target has a key that never matches */
	struct jit_cross *next; /* of j->crosses */
	struct jit_block *to;	/* whose `in` the link is in, or NULL */
	int32_t off;		/* of the target, from the page's begin */
	uint32_t key;		/* of the imm64 that holds the sum (flags in host form: negated) */
	uint32_t wait;		/* misses until it is linked again */
	uint32_t patience;	/* ... and how many then */
	bool upper;
};
#define JIT_CROSS_PATIENCE 256u
#define JIT_CROSS_NEVER 1	  /* equals no such sum: they are multiples of 4 */
#define JIT_CROSS_EDGE (1u << 18) /* more than what JIT_CONTEXT() has below bit 48 */

struct jit_block {
	struct jit_block *next;		/* hash chain */
	struct jit_block *page_next;	/* of page->blocks */
	struct jit_block *tail_next;	/* of second->tails */
	struct jit_page *page, *second; /* second: NULL, or where an instruction across two pages ends */
	struct jit_link *in;
	uintptr_t host;	       /* address of its first byte in host memory: what blocks are found by, with the mode */
	uintptr_t host_second; /* of the second page */
	bool upper;	       /* was translated in the upper half of addresses: which ctx `cross` is about */
	uint64_t cross;	       /* page_va ^ hot.ctx for which the second page was found to be there */
	uint64_t key;
	/* Offsets in the arena. far: T_A = rip, flags in memory form; mem: the same from inside the page; near: flags
	 * in host form, from inside the page. */
	uint32_t far_entry, mem_entry, near_entry, start, end;
	uint32_t host_body, mem_body; /* the body behind the poll if it expects that form, else 0 */
	uint16_t first;		      /* offset in the page */
	uint16_t bytes, bytes_first;  /* of the guest; those in the first page */
	uint8_t tier, samples;
	bool shared;	/* of user mode with and without windows; `key` says without, tier is 1 */
	uint8_t code[]; /* copy of the bytes */
};

struct jit_target {
	uint64_t key;  /* rip ^ hot.ctx */
	uint64_t code; /* far entry */
};

/* (mode, address space) pairs that have a number. */
struct jit_context {
	uint64_t key; /* mode_key and tlb_gen */
	uint64_t ctx;
};

/*
 * What differs between user mode and the kernel in one address space: so that translated code can go from one to the
 * other itself. C fills in one at a time, as it comes to a mode, and forgets all when anything else changes.
 * The stack window is the one the mode was left with.
 */
enum jit_view_name { JIT_USER, JIT_KERNEL, JIT_KERNEL_AC, JIT_VIEWS }; /* 64-bit mode; JIT_KERNEL_AC: only with SMAP */
#define JIT_NO_VIEW UINT32_MAX
struct jit_view {
	uint64_t ctx[2];
	uint64_t stack_page;
	uintptr_t stack_host;
	_Atomic uint8_t *stack_flags;
	uint32_t mode_key;
	uint32_t mmu; /* JIT_NO_VIEW: not known */
};

struct jit_pending {
	struct ram *ram;
	uint64_t page;
	bool all; /* drop what is still the same, too */
};

#define JIT_SIZES 7 /* of accesses: 1 to 64 bytes */

/* Fixed code; offsets in the arena. All but the first two and `far`, `jump`, `link`, `link_far`, `cross` are
 * called. */
struct jit_stubs {
	uint32_t leave;		      /* registers from the host to v.state, back to enter()'s caller */
	uint32_t left;		      /* the same, v.state is complete */
	uint32_t call;		      /* T_A: index of a helper, ECX: jit_site bits */
	uint32_t jump;		      /* T_A = rip, not in the jump cache */
	uint32_t far[2];	      /* T_A = rip in the lower or upper half: through the jump cache */
	uint32_t link;		      /* ECX = offset of the struct jit_link in `meta` */
	uint32_t link_far;	      /* the same, of a shared block: through the jump cache */
	uint32_t cross[2];	      /* ECX = offset of the struct jit_cross whose guard missed, T_A = page_va */
	uint32_t poll_host, poll_mem; /* run_ok or sample is 0, flags are in that form; rip is the calling block's */
	uint32_t save, load;	      /* flags: host form to memory form and back */
	/* T_A: linear address, becomes a host address. The call is followed by TEST EAX, jit_site bits. Where that does
	 * not work out the whole instruction is carried out in C and the rest of its code skipped. */
	uint32_t check[MMU_COUNT][2][2][JIT_SIZES]; /* [mmu][write][must be aligned][log2 of the size] */
	uint32_t missed;			    /* a check that always asks C */
	uint32_t window[MMU_COUNT];		    /* make T_A's page the stack window if it is as it should be */
	/* ECX: jit_site bits of HELP_SYSTEM; to C where it is not the ordinary case. Flags in memory form. */
	uint32_t syscall, sysret, stac, clac, rdtsc, rdtscp;
	uint32_t rflags; /* ECX = the image of RFLAGS as PUSHF stores it; clobbers T_B */
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
	SITE_MASKED = 1 << 24, /* masked elements do not fault: a miss says nothing */
	SITE_WINDOW = 1 << 26, /* a window should have had it */
	SITE_FLAGS = 1 << 25,  /* flags are in memory form */
};
#define SITE_REFUSAL(r) ((uint32_t)(r) << 27)
#define SITE_REASON(s) ((s) >> 27)
#define SITE_SKIP(n) ((uint32_t)(n) << 27) /* of a check: bytes of code behind its TEST to skip, if that many fit */
#define SITE_SKIP_MAX 31u
#define SITE_SKIPPED(s) ((s) >> 27)

enum jit_helper_index { HELP_INTERP, HELP_STRING, HELP_FP, HELP_SYSTEM, HELP_CROSS, HELP_COUNT };
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
/* What an indirect jump did to RSP. */
enum jit_moved { JIT_NOT_MOVED, JIT_POPPED, JIT_PUSHED };
/* Returns 0: leave, v.state is complete; 1: go on behind the call; else the code to go on with, v.state complete.
 * `b` is what T_B held: of HELP_CROSS, the address of the block's `cross`. */
typedef uintptr_t jit_helper(struct jit_cpu *j, uint32_t site, uintptr_t b);

struct jit_scratch;

/* ---- windows; window.c ---- */

#define JIT_REGION_SHIFT 39
#define JIT_WINDOW_REACH 65536 /* an operand is nearer than this to the address its region is taken from */
#define JIT_WREGIONS 4
#define JIT_WCONTEXTS 6u
#define JIT_WBUCKETS 16384u
#define JIT_SPACES 64u
#define JIT_SITES 65536u

/* An access through a window: where it is in the arena, and where to go on if it faults. Alive until jit_drop_all(). */
struct jit_site {
	struct jit_site *next;
	uint32_t at, stub;
};

struct jit_wcontext;

/* A page that is mapped in a window. */
struct jit_wpage {
	struct jit_wpage *page_next, *ram_next, *context_next;
	struct jit_wcontext *context;
	gva_t page;
	struct ram *ram;
	uint64_t index; /* of the page in ram */
	bool write;
};

struct jit_wcontext {
	uint64_t gen, used;
	struct jit_wpage *pages;
	uint8_t *host[JIT_WREGIONS]; /* NULL: not reserved yet */
	unsigned region[JIT_WREGIONS];
};

/* An address space, by the address of its page tables; times in ticks of the host's TSC. */
struct jit_space {
	uint64_t cr3;
	int64_t ran, wait, backoff;
	int64_t balance; /* what faults may still cost */
	bool on;
};

struct jit_windows {
	uint64_t base[256]; /* to be added to an address of the region */
	atomic_flag lock;
	uint8_t *none; /* the void */
	unsigned contexts, pages, taken;
	struct jit_wcontext context[JIT_WCONTEXTS], *current;
	uint64_t gen, clock;
	struct jit_wpage *page, *free, *by_page[JIT_WBUCKETS], *by_ram[JIT_WBUCKETS];
	struct jit_space space[JIT_SPACES], *now;
	uint64_t since, newest;
	int64_t fault_ticks, age, grace, backoff, backoff_max;
	uint64_t faults, charged, maps, dropped, full;
};

/* What translated code names most: within reach of one byte of displacement. */
struct jit_hot {
	_Atomic uint32_t run_ok; /* 0: leave at the next entry of a block that looks */
	uint32_t sample;	 /* counted down by tier-1 blocks */
	uint64_t page_va;	 /* linear address of the code page being executed */
	uint64_t gen;		 /* i.c.tlb_gen */
	uint64_t ctx[2];	 /* of the current mode and address space: lower, upper half of addresses */
	/* The stack window: a page that may be written through by accesses relative to RSP. */
	uint64_t stack_page;
	uintptr_t stack_host; /* its host address */
	_Atomic uint8_t *stack_flags;
	uint64_t scratch;
	struct jit_cpu *self;
	void *c_stack;	 /* RSP for calls of C; it points to a pointer to this struct */
	uint32_t fp_off; /* 0: the guest's vector registers are in the host's */
	uint32_t origin; /* of the last indirect jump: SITE_OFF and SITE_LEN, enum jit_moved as its reason */
	uint16_t fl;
};

struct jit_cpu {
	struct interp_cpu i; /* first */
	uint8_t stack[JIT_STACK] __attribute__((aligned(64)));
	struct jit_hot hot __attribute__((aligned(64)));
	struct jit_windows win;
	bool bmi2;  /* RORX */
	bool eager; /* for tests: code is hot at once and user mode has windows */
	jit_helper *helper[HELP_COUNT];
	bool halted, shutdown;
	uint64_t string_flags;		/* string.c: RFLAGS as they are if nothing faults any more */
	uint8_t nowhere[2 * PAGE_SIZE]; /* see JIT_NO_WINDOW */
	_Atomic uint8_t nowhere_flags;

	/* code memory */
	uint8_t *rw, *rx;
	uint32_t arena_size, used, start; /* start: behind the stubs */
	uint32_t cold, cold_start;	  /* the part for what is seldom run */
	uint32_t large;			  /* bit n: the nth 2 MiB are in a large page, or cannot be */
	uint8_t *meta;
	uint32_t meta_size, meta_used;
	struct jit_stubs stub;
	unsigned (*enter)(struct jit_cpu *j, const void *code);
	uint64_t drops; /* times everything was dropped */
	/* Hashed: code that was made hot since everything was dropped; in the time before that. */
	uint64_t hot_now[JIT_HOT_BITS / 64], hot_before[JIT_HOT_BITS / 64];

	struct jit_block *hash[JIT_BUCKETS];
	struct jit_site *sites[JIT_SITES];
	struct jit_page *pages[JIT_PAGES];
	struct jit_target target[JIT_TARGETS];
	struct jit_cross *crosses; /* all */

	/* contexts */
	struct jit_context context[JIT_CONTEXTS], upper_context[16];
	unsigned next_upper;
	uint32_t last_ctx;
	struct jit_view view[JIT_VIEWS];
	uint64_t view_base, view_epoch; /* what all of them have in common */
	uint64_t noted[JIT_NOTED / 64]; /* hashed: linear pages with entries in the jump cache */
	uint64_t seen_epoch, seen_key;
	uint16_t seen_last_gen, seen_global_gen;
	bool apart; /* some code in the upper half is not in global pages: address spaces may differ there */

	/* pages of code written by anyone, to be looked at */
	atomic_flag pending_lock;
	_Atomic unsigned pending; /* more than JIT_PENDING: look at all pages */
	struct jit_pending pend[JIT_PENDING];

	struct jit_scratch *work; /* translate.c */
	struct mem_listener listener;
	uint64_t refused[JIT_REFUSAL_COUNT];
	uint64_t guest_bytes, host_bytes, cold_bytes, missed, looked_up, fp_loads, promoted, guest_bytes_hot;
	uint64_t translate_ticks; /* of the host's TSC */
};

#define JIT_OFF(member) ((uint32_t)offsetof(struct jit_cpu, member))
#define JIT_OFF_GPR(n) (JIT_OFF(i.c.v.state.gpr) + 8u * (unsigned)(n))

extern const uint8_t jit_host_reg[16];

/* ---- stubs.c ---- */
void jit_make_stubs(struct jit_cpu *j);

/* ---- mode.c ---- */
struct emit;
void jit_make_mode_stubs(struct jit_cpu *j, struct emit *e);

/* ---- cache.c ---- */
/* Does the host give executable memory? */
bool jit_memory_allowed(void);
int jit_cache_open(struct jit_cpu *j, uint32_t arena_size);
void jit_cache_close(struct jit_cpu *j);
void jit_drop_all(struct jit_cpu *j);
/* Room for the largest block; drops all blocks if there is none. */
void jit_make_room(struct jit_cpu *j);
void *jit_meta(struct jit_cpu *j, size_t size);
struct jit_block *jit_find(struct jit_cpu *j, uintptr_t host, uint64_t key);
/* Was code hot when everything was dropped last? */
bool jit_was_hot(const struct jit_cpu *j, uintptr_t host, uint64_t key);
struct jit_page *jit_page_of(struct jit_cpu *j, struct ram *ram, uint64_t page, bool make);
void jit_add(struct jit_cpu *j, struct jit_block *b);
void jit_set_link(struct jit_cpu *j, struct jit_link *l, struct jit_block *to);
/* From now on `l`, of a shared block and not linked, looks for its target in the jump cache. */
void jit_set_far(struct jit_cpu *j, struct jit_link *l);
void jit_set_cross(struct jit_cpu *j, struct jit_cross *x, uint64_t sum, struct jit_block *to);
/* Numbers of contexts are used once more: what was found out under them is to be forgotten. */
void jit_forget_crosses(struct jit_cpu *j);
/* `b` is found no more, nor jumped to by others, who find `to` instead, or NULL: look; who runs it may go on. */
void jit_retire(struct jit_cpu *j, struct jit_block *b, const struct jit_block *to);
/* Drop what writers have changed. */
void jit_take_pending(struct jit_cpu *j);
void jit_note_written(struct jit_cpu *j, struct ram *ram, uint64_t page, bool all); /* any thread */
/* Is there the same mode with windows, or without? Where code is in the upper half they share nothing. */
static inline bool
jit_has_twin(const struct jit_cpu *j, bool upper)
{
	return j->win.contexts && j->i.c.mode == X86_LONG64 && j->i.c.cpl == 3 && !upper;
}

/*
 * Where the jump cache has `rip` if it has it: keys that are the same are of one rip, canonical, in one context. A
 * context's number is in bits 48 to 63, which are copies of bit 47 in a canonical address, and scattered over lower ones
 * to keep the contexts apart here: so the key of a canonical address tells both. In another address a guest could choose
 * the upper bits so that the key is another context's (whose code may be of another privilege). That is why bits 47 to
 * 63 of rip itself are added to the index, all of which count: such an address is looked for elsewhere.
 */
static inline struct jit_target *
jit_target(struct jit_cpu *j, uint64_t key, uint64_t rip)
{
	uint64_t at = (rip >> JIT_TARGET_ROTATE | rip << (64 - JIT_TARGET_ROTATE)) + key * 8;

	return &j->target[at >> 4 & (JIT_TARGETS - 1)];
}
_Static_assert(JIT_TARGET_BITS >= 17 && JIT_TARGET_ROTATE + 4 == 47, "bits 47 to 63 count in jit_target()");
#define JIT_CONTEXT(n) ((uint64_t)(n) << 48 | ((uint64_t)(n)*0x9e37 & 0xffff) << 2)
/* No entry of the jump cache leads anywhere. */
void jit_void_targets(struct jit_cpu *j);
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
/* The block at linear address `a`, whose page is plain memory and executable. Raises what fetching raises. */
struct jit_block *jit_translate(struct jit_cpu *j, gva_t a, struct soft_tlb_entry *e, uint64_t key, unsigned tier);

/* ---- run.c: called by stubs ---- */
enum jit_access_kind {
	JIT_HIT,       /* value: host address of the operand */
	JIT_DONE,      /* the instruction was carried out; value: bytes to skip, the TEST included */
	JIT_ELSEWHERE, /* the same; value: the code to go on with, or 0: leave */
};
struct jit_access {
	uintptr_t value;
	uint64_t kind;
};
struct jit_access jit_memory(struct jit_cpu *j, gva_t a, uint32_t site);
uintptr_t jit_jump(struct jit_cpu *j, uint64_t rip);
uintptr_t jit_link_taken(struct jit_cpu *j, uint32_t link);
uintptr_t jit_cross_taken(struct jit_cpu *j, uint32_t cross);
uintptr_t jit_poll(struct jit_cpu *j, uintptr_t from);

static inline void
jit_close_window(struct jit_cpu *j)
{
	j->hot.stack_page = JIT_NO_WINDOW;
	j->hot.stack_host = (uintptr_t)j->nowhere;
	j->hot.stack_flags = &j->nowhere_flags;
	for (int i = 0; i < JIT_VIEWS; i++) {
		j->view[i].stack_page = JIT_NO_WINDOW;
		j->view[i].stack_host = (uintptr_t)j->nowhere;
		j->view[i].stack_flags = &j->nowhere_flags;
	}
}

static inline void
jit_forget_views(struct jit_cpu *j)
{
	for (int i = 0; i < JIT_VIEWS; i++)
		j->view[i].mmu = JIT_NO_VIEW;
}

/* ---- window.c ---- */
void jit_window_open(struct jit_cpu *j);
void jit_window_close(struct jit_cpu *j);
/* This thread runs `j`. */
void jit_window_thread(struct jit_cpu *j);
/* Map the page of `a`, whose TLB entry `e` is filled, where that may be done. */
void jit_window_map(struct jit_cpu *j, gva_t a, const struct soft_tlb_entry *e);
/* The generation changed. */
void jit_window_switch(struct jit_cpu *j);
/* Whether the current address space has windows; true: the mode key changed. */
bool jit_window_policy(struct jit_cpu *j);
void jit_window_charge(struct jit_cpu *j);
/* As struct mem_listener's `watched` and `unalias`. Any thread. */
void jit_window_watch(struct jit_cpu *j, struct ram *ram, uint64_t page);
void jit_window_clear(struct jit_cpu *j);

/* ---- fp.c ---- */
/* False: MXCSR has unmasked exceptions. */
bool jit_fp_load(struct jit_cpu *j);
void jit_fp_store(struct jit_cpu *j);
static inline void
jit_fp_home(struct jit_cpu *j)
{
	if (!j->hot.fp_off)
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
	uint8_t index;		      /* added to `base`; 0: none */
	uint8_t base;		      /* of the memory operand; H_NONE: none */
	int32_t disp;		      /* ... and its displacement */
	bool force_rex;
	bool narrow; /* not from 64-bit code: VEX.W says nothing about general registers */
	bool evex;   /* encode.c's own */
};
void jit_encode(struct emit *e, const void *zydis_insn, const uint8_t *guest, const struct jit_form *f);

#endif
