/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The run loop.
 *
 * loop() finds the block at rip and runs blocks until one of them has no successor at hand; then v.state is completed,
 * requests are looked at, and so on. Exceptions arrive by longjmp at land(): it completes v.state from the operation
 * that raised and has the exception delivered.
 *
 * What needs a look after every instruction (TF, breakpoints, an interrupt shadow, tracing) runs blocks of one
 * instruction in step_one().
 *
 * A request that is held (an interrupt while IF is 0) keeps v.requests non-zero, so every block comes back to loop()
 * until it is taken: slower, but only while it lasts.
 */
#include <errno.h>
#include <stdio.h>

#include "base/log.h"
#include "cpu/debug.h"
#include "cpu/interp/op.h"

/*
 * Inline accesses are off while data breakpoints or alignment checks are armed: they find an empty TLB, and all of
 * them go to mmu.c.
 */
static inline void
refresh(struct interp_cpu *i)
{
	struct soft_cpu *c = &i->c;

	if (unlikely(c->dr_armed || c->ac_check)) {
		HOT.tlb = i->no_tlb;
		HOT.tag = SOFT_TLB_GEN;
	} else {
		HOT.tlb = c->tlb[c->mmu];
		HOT.tag = c->tlb_gen;
	}
	i->cs_flat = c->mode == X86_LONG64 || (!ST.seg[SEG_CS].base && ST.seg[SEG_CS].limit == UINT32_MAX);
	i->rip_mask = c->code_size == 8 ? UINT64_MAX : UINT32_MAX;
}

static inline uint32_t
held(struct interp_cpu *i)
{
	uint32_t hold = 0;

	if (!(ST.rflags & FLAG_IF) || ST.shadow)
		hold |= REQ_INTR;
	if (ST.nmi_blocked || i->ss_shadow)
		hold |= REQ_NMI;
	return hold | i->c.v.debug_hold;
}

static inline void
run_blocks(struct interp_cpu *i, struct block *b)
{
	enter_block(i, b, ST.rip);
	flags_in(i);
	HOT.complete = false;
	do
		b = b->ops[0].fn(i, b->ops);
	while (b);
}

static inline void
complete(struct interp_cpu *i)
{
	if (!HOT.complete) {
		flags_out(i);
		HOT.complete = true;
	}
	i->c.code_written = false;
}

/* ---- one instruction ---- */

static void
trace(struct interp_cpu *i)
{
	const struct block *b = HOT.block;
	char text[96];

	interp_disassemble(i, b->code, b->bytes, text, sizeof(text));
	log_line(LOG_TRACE, "interp",
		"cpu%d %04x:%016llx %-32s ax=%llx cx=%llx dx=%llx bx=%llx sp=%llx bp=%llx si=%llx di=%llx r8=%llx "
		"r9=%llx r10=%llx r11=%llx r12=%llx r13=%llx r14=%llx r15=%llx fl=%llx",
		i->c.v.index, ST.seg[SEG_CS].sel, (unsigned long long)ST.rip, text, (unsigned long long)ST.gpr[RAX],
		(unsigned long long)ST.gpr[RCX], (unsigned long long)ST.gpr[RDX], (unsigned long long)ST.gpr[RBX],
		(unsigned long long)ST.gpr[RSP], (unsigned long long)ST.gpr[RBP], (unsigned long long)ST.gpr[RSI],
		(unsigned long long)ST.gpr[RDI], (unsigned long long)ST.gpr[R8], (unsigned long long)ST.gpr[R9],
		(unsigned long long)ST.gpr[R10], (unsigned long long)ST.gpr[R11], (unsigned long long)ST.gpr[R12],
		(unsigned long long)ST.gpr[R13], (unsigned long long)ST.gpr[R14], (unsigned long long)ST.gpr[R15],
		(unsigned long long)ST.rflags);
}

/*
 * Exactly one instruction, with what surrounds it: code breakpoints before, the shadow that ends with it, RF that it
 * clears, the single-step trap and data breakpoints after.
 */
static void
step_one(struct interp_cpu *i)
{
	bool tf = ST.rflags & FLAG_TF;
	struct block *b;

	if (i->c.code_bp && !(ST.rflags & FLAG_RF))
		x86_check_code_bp(&i->c);
	ST.shadow = 0;
	i->ss_shadow = false;
	i->no_trap = false;
	HOT.link = NULL;
	b = interp_find(i, true);
	if (unlikely(i->tracing)) {
		HOT.block = b;
		trace(i);
	}
	ST.rflags &= ~(uint64_t)FLAG_RF;
	i->single = true;
	run_blocks(i, b);
	i->single = false;
	HOT.link = NULL; /* blocks of one instruction stay alone */
	complete(i);
	if ((tf && !i->no_trap && !i->ss_shadow) || i->c.pending_db)
		x86_trap_step(&i->c);
}

static inline bool
wants_single(struct interp_cpu *i)
{
	return ST.rflags & (FLAG_TF | FLAG_RF) || ST.shadow || i->c.code_bp || i->c.dr_armed || i->tracing ||
	       i->c.pending_db;
}

/* ---- the loop ---- */

static inline gva_t
linear_pc(const struct interp_cpu *i)
{
	return i->c.mode == X86_LONG64 ? ST.rip : (uint32_t)(ST.seg[SEG_CS].base + ST.rip);
}

/* Made twice: `debugged` is constant. */
static inline __attribute__((always_inline)) enum cpu_exit
loop(struct interp_cpu *i, const bool debugged)
{
	enum cpu_debug_next next = CPU_DEBUG_GO_ON;
	struct soft_cpu *c = &i->c;
	struct block *b;

	for (;;) {
		uint32_t r = atomic_load_explicit(&c->v.requests, memory_order_acquire);

		if (unlikely(r) && r & ~held(i) && !(debugged && c->exact))
			return CPU_EXIT_REQUEST;
		if (i->translatable && i->translatable(i))
			return CPU_EXIT_COUNT;
		refresh(i);
		if (debugged)
			next = c->exact ? CPU_DEBUG_ONE : cpu_debug_before(&c->v, linear_pc(i));
		if (debugged && next == CPU_DEBUG_STOP)
			return CPU_EXIT_DEBUG;
		if (unlikely(wants_single(i)) || (debugged && next == CPU_DEBUG_ONE)) {
			step_one(i);
			if (debugged && c->exact)
				x86_watch_end(c);
		} else {
			b = interp_find(i, false);
			if (HOT.link && !(b->flags & BLOCK_CROSS) && block_current(b))
				*HOT.link = b;
			HOT.link = NULL;
			run_blocks(i, b);
			complete(i);
		}
		if (unlikely(i->halted)) {
			i->halted = false;
			return CPU_EXIT_HALT;
		}
	}
}

/* An exception was raised: make v.state that of the instruction that did, and deliver it. False: triple fault. */
static bool
land(struct interp_cpu *i)
{
	if (!HOT.complete) {
		const struct op *op = HOT.op;

		ST.rip = HOT.block_rip + op->off;
		i->c.next_rip = op_next_rip(i, op);
		flags_out(i);
		HOT.complete = true;
	}
	i->single = false;
	i->ss_shadow = false;
	ST.shadow = 0;
	i->c.code_written = false;
	HOT.link = NULL;
	if (unlikely(i->c.exc_vector == X86_RETRY)) { /* the next instruction is this one again */
		x86_watch_begin(&i->c);
		return true;
	}
	return x86_deliver_exception(&i->c);
}

enum cpu_exit
interp_run(struct vcpu *v)
{
	struct interp_cpu *i = (struct interp_cpu *)v;

	if (i->shutdown) {
		i->shutdown = false;
		return CPU_EXIT_SHUTDOWN;
	}
	HOT.complete = true;
	HOT.link = NULL;
	/* delivery may use `fault` for faults of its own, so it is set anew each time */
	while (setjmp(i->c.fault))
		if (!land(i))
			return CPU_EXIT_SHUTDOWN;
	return i->c.v.debug ? loop(i, true) : loop(i, false);
}

enum interp_result
interp_step(struct interp_cpu *i)
{
	volatile enum interp_result r = INTERP_OK;
	volatile bool raised = false;
	jmp_buf callers;

	memcpy(&callers, &i->c.fault, sizeof(callers));
	HOT.complete = true;
	if (setjmp(i->c.fault)) {
		raised = i->c.exc_vector != X86_RETRY;
		if (!land(i))
			r = INTERP_SHUTDOWN;
	}
	if (!raised) {
		refresh(i);
		step_one(i);
		if (i->halted)
			r = INTERP_HALT;
		i->halted = false;
	}
	if (unlikely(i->c.exact))
		x86_watch_end(&i->c);
	memcpy(&i->c.fault, &callers, sizeof(callers));
	return r;
}

/* ---- the engine ---- */

static void
engine_probe(struct cpu_probe *out)
{
	out->usable = true;
	out->microseconds = 0;
	snprintf(out->reason, sizeof(out->reason), "the interpreter works everywhere, slowly");
}

static int
engine_open(struct vcpu *v, struct err *e)
{
	struct interp_cpu *i = (struct interp_cpu *)v;

	if (interp_open(i))
		return err_set(e, ERR_HOST, "no memory for the interpreter of virtual CPU %d", v->index);
	x86_soft_open(&i->c);
	vcpu_make_large(v);
	return 0;
}

static void
engine_close(struct vcpu *v)
{
	struct interp_cpu *i = (struct interp_cpu *)v;

	x86_soft_close(&i->c);
	interp_close(i);
}

/* run() looks at v->requests at every block. */
static void
engine_kick(struct vcpu *v)
{
}

/* Between runs the state is always complete, but for x87 registers that are still in the host's. */
static void
engine_get_state(struct vcpu *v)
{
	vec_sync(&((struct interp_cpu *)v)->c);
}

static void
engine_put_state(struct vcpu *v)
{
	struct interp_cpu *i = (struct interp_cpu *)v;

	x86_update_mode(&i->c);
	x86_tlb_flush(&i->c, true);
	i->c.pending_db = 0;
	i->halted = false;
	i->shutdown = false;
	i->ss_shadow = false;
}

static bool
engine_can_inject(struct vcpu *v)
{
	return v->state.rflags & FLAG_IF && !v->state.shadow;
}

static void
engine_inject(struct vcpu *v, int vector, bool nmi)
{
	struct interp_cpu *i = (struct interp_cpu *)v;

	v->state.shadow = 0;
	i->ss_shadow = false;
	if (!x86_deliver_interrupt(&i->c, vector, nmi))
		i->shutdown = true;
}

static void
engine_flush(struct vcpu *v)
{
	struct interp_cpu *i = (struct interp_cpu *)v;

	x86_tlb_flush(&i->c, true);
	interp_flush(i);
}

static int
engine_debug(struct vcpu *v)
{
	struct interp_cpu *i = (struct interp_cpu *)v;

	interp_flush(i); /* no block leads into a page with a breakpoint */
	x86_update_mode(&i->c);
	return 0;
}

uint64_t
interp_current_rip(struct vcpu *v)
{
	struct interp_cpu *i = (struct interp_cpu *)v;

	return HOT.complete ? ST.rip : HOT.block_rip + ((const struct op *)HOT.op)->off;
}

const struct cpu_engine cpu_engine_interp = {
	.name = "interp",
	.vcpu_size = sizeof(struct interp_cpu),
	.probe = engine_probe,
	.open = engine_open,
	.close = engine_close,
	.run = interp_run,
	.kick = engine_kick,
	.get_state = engine_get_state,
	.put_state = engine_put_state,
	.can_inject = engine_can_inject,
	.inject = engine_inject,
	.flush = engine_flush,
	.debug = engine_debug,
	.current_rip = interp_current_rip,
};
