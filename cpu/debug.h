/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a debugger can ask of the CPUs: breakpoints, watchpoints, single steps, and a look at a CPU's memory.
 *
 * A `struct cpu_debug` is attached to all CPUs of a machine while they are parked. Breakpoints and watchpoints are
 * linear addresses and hold for every CPU. While nothing is attached they cost nothing: engines look at vcpu.debug
 * when run() begins and where they are slow anyway.
 *
 * How the software engines do it: code of a page that has a breakpoint is interpreted one instruction at a time, so
 * everything else runs at full speed. A page with a watchpoint is kept out of the TLB for data, and filling it raises
 * X86_RETRY instead: nothing has happened yet, and the landing place has the instruction carried out once more by the
 * interpreter, with `exact` set: then the page is mapped and every access is compared. What a debugger wants is not
 * visible to the guest: its debug registers stay its own.
 *
 * How KVM does it: the host's four debug registers carry breakpoints and watchpoints together; the guest's own are not
 * honoured meanwhile.
 *
 * A CPU that meets a breakpoint parks itself ("frozen": cpus_resume() passes over it), notes why in `debug_reason` and
 * calls `stopped`. The debugger then pauses the others, and decides for each CPU whether it goes on, goes one step, or
 * stays frozen before it resumes them.
 */
#ifndef CPU_DEBUG_H
#define CPU_DEBUG_H

#include "cpu/cpu.h"

#define CPU_DEBUG_BREAKS 256
#define CPU_DEBUG_WATCHES 32
#define CPU_DEBUG_KVM_SLOTS 4

/* X(name, text): why a CPU stopped for the debugger. */
#define CPU_DEBUG_REASONS(X)                                                                                           \
	X(CPU_DEBUG_NONE, "none")                                                                                      \
	X(CPU_DEBUG_STEPPED, "step")                                                                                   \
	X(CPU_DEBUG_BREAK, "breakpoint")                                                                               \
	X(CPU_DEBUG_WATCH, "watchpoint")                                                                               \
	X(CPU_DEBUG_SHUTDOWN, "triple fault")                                                                          \
	X(CPU_DEBUG_ERROR, "engine error")

#define CPU_DEBUG_ENUM(name, text) name,
enum cpu_debug_reason { CPU_DEBUG_REASONS(CPU_DEBUG_ENUM) CPU_DEBUG_REASON_COUNT };
#undef CPU_DEBUG_ENUM

enum { CPU_WATCH_WRITE = 1, CPU_WATCH_READ = 2 }; /* bits */

struct cpu_watch {
	gva_t a;
	uint32_t len;
	uint8_t kind;
};

struct cpu_debug {
	int break_count, watch_count;
	gva_t breaks[CPU_DEBUG_BREAKS];
	struct cpu_watch watches[CPU_DEBUG_WATCHES];
	uint64_t pages; /* bit n: a breakpoint's page number is n modulo 64 */
	/* On the CPU's thread, without locks; must not block. */
	void (*stopped)(void *opaque, struct vcpu *v);
	void *opaque;
};

/* ---- for debuggers. All CPUs are parked. ---- */

/* 0, or -1 and *e: the engine cannot be debugged, or somebody else does. `d` stays until cpu_debug_detach(). */
int cpu_debug_attach(struct cpus *c, struct cpu_debug *d, struct err *e);
/* Nothing is frozen or stepping any more. */
void cpu_debug_detach(struct cpus *c);
/* Change the sets of `d`, attached or not. False: no room (or not in the debug registers), or not there. */
bool cpu_debug_add_break(struct cpus *c, struct cpu_debug *d, gva_t a);
bool cpu_debug_remove_break(struct cpu_debug *d, gva_t a);
bool cpu_debug_add_watch(struct cpus *c, struct cpu_debug *d, struct cpu_watch w);
bool cpu_debug_remove_watch(struct cpu_debug *d, struct cpu_watch w);
/* The sets are not those of the last call: engines forget what they made with the old ones. Costs retranslation. */
void cpu_debug_changed(struct cpus *c);

enum cpu_debug_go { CPU_DEBUG_RUN, CPU_DEBUG_STEP, CPU_DEBUG_STAY };
/* What `v` does at the next cpus_resume(). `irqs`: interrupts may be taken during a step. */
void cpu_debug_go(struct vcpu *v, enum cpu_debug_go how, bool irqs);

const char *cpu_debug_reason_text(enum cpu_debug_reason r);

/* ---- for cpu.c and engines, on the CPU's thread ---- */

enum cpu_debug_next { CPU_DEBUG_GO_ON, CPU_DEBUG_ONE, CPU_DEBUG_STOP };
/*
 * Before the instruction at linear address `pc` is executed: go on at full speed (not into the pages of
 * cpu_debug_page()), execute exactly this one and ask again, or leave run() with CPU_EXIT_DEBUG.
 */
enum cpu_debug_next cpu_debug_before(struct vcpu *v, gva_t pc);
/* An access that may touch a watchpoint. */
void cpu_debug_access(struct vcpu *v, gva_t a, unsigned len, bool write);
/* Park at the next opportunity and tell the debugger. */
void cpu_debug_stop(struct vcpu *v, enum cpu_debug_reason why);

/* Does the page of `pc` have a breakpoint? v->debug is not NULL. Inline: the translator calls it while the guest's
 * vector registers are in the host's, so it has to be compiled as the caller is. */
static inline bool
cpu_debug_page(const struct vcpu *v, gva_t pc)
{
	const struct cpu_debug *d = v->debug;

	if (!(d->pages >> ((pc >> PAGE_SHIFT) & 63) & 1))
		return false;
	for (int i = 0; i < d->break_count; i++)
		if (!((d->breaks[i] ^ pc) >> PAGE_SHIFT))
			return true;
	return false;
}

/* Does the page of `a` have a watchpoint? v->debug is not NULL. Inline as above. */
static inline bool
cpu_debug_watched(const struct vcpu *v, gva_t a)
{
	const struct cpu_debug *d = v->debug;
	gva_t page = a >> PAGE_SHIFT;

	for (int i = 0; i < d->watch_count; i++)
		if (page >= d->watches[i].a >> PAGE_SHIFT &&
			page <= (d->watches[i].a + d->watches[i].len - 1) >> PAGE_SHIFT)
			return true;
	return false;
}

/* ---- looking into a parked CPU ---- */

/*
 * A copy of a CPU's registers with paging and segmentation of its own, for any engine: what a debugger does with it
 * cannot disturb the engine. cpu_view_load() takes the state of `v` (parked, state complete).
 */
struct cpu_view;
struct cpu_view *cpu_view_open(struct cpus *c); /* NULL: no memory */
void cpu_view_close(struct cpu_view *w);
void cpu_view_load(struct cpu_view *w, struct vcpu *v);

bool cpu_view_translate(struct cpu_view *w, gva_t a, gpa_t *gpa);
/* Memory by linear address; permissions do not count. Return the number of bytes done: fewer where nothing is mapped,
 * or where it is not RAM (for reading: nor ROM). Device registers are not touched. */
size_t cpu_view_read(struct cpu_view *w, gva_t a, void *buf, size_t len);
size_t cpu_view_write(struct cpu_view *w, gva_t a, const void *buf, size_t len);
/* From now on addresses are translated by the page tables at `cr3`, for a supervisor. False: not a long-mode CPU. */
bool cpu_view_use_tables(struct cpu_view *w, uint64_t cr3);
/* 16, 32 or 64: how the code at CS:RIP is decoded. */
unsigned cpu_view_bits(const struct cpu_view *w);
unsigned cpu_view_cpl(const struct cpu_view *w);
gva_t cpu_view_pc(const struct cpu_view *w); /* linear */
/*
 * Set as the instructions do, with their checks, in the copy and in the CPU's state: a segment register from a
 * descriptor (real mode: base = selector * 16; CS only there); CR0, CR3, CR4, CR8, EFER (n = 0x80). False: the CPU
 * would refuse it.
 */
bool cpu_view_set_segment(struct cpu_view *w, enum seg_name seg, uint16_t sel);
enum { CPU_VIEW_EFER = 0x80 };
bool cpu_view_set_control(struct cpu_view *w, int n, uint64_t value);
/*
 * One instruction as text, "mov rax, [rbx]"; Intel's notation. Returns its length; 0: not mapped or undefined (then
 * `text` says so).
 */
unsigned cpu_view_disassemble(struct cpu_view *w, gva_t a, char *text, size_t size);
/* The software TLB of `v`: linear page, physical page, whose eyes, rights. 0 entries for KVM, whose TLB is hardware. */
void cpu_debug_print_tlb(struct vcpu *v, FILE *f);
/* Disassemble `code` in a 16-, 32- or 64-bit mode as if it stood at `a`. */
unsigned cpu_disassemble(unsigned bits, const uint8_t *code, size_t avail, uint64_t a, char *text, size_t size);

#endif
