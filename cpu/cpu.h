/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The engine contract and the one exit loop.
 *
 * A machine has one engine and `struct cpus`; each virtual CPU is a `struct vcpu` with a host thread of its own,
 * running cpu_thread() in cpu.c: run the engine, act on why it stopped, again. Engines decide nothing about devices,
 * power or time; port and MMIO accesses of all engines go through cpu_io_*() and cpu_mmio_*() here.
 *
 * States of a vCPU (owner: its thread; others only set request bits and kick):
 *	WAIT_SIPI  an application processor before its start-up IPI
 *	RUN        executing
 *	HALT       in HLT; leaves on INTR with IF=1, NMI, SMI, INIT
 *	PARKED     stopped by cpus_pause(); `state` holds the whole architectural state
 *	DEAD       after shutdown (triple fault) until reset
 *
 * Requests are bits in `requests`, set by anyone (cpu_request), looked at by the engine at least once every few
 * microseconds of guest execution: when (requests & ~hold) != 0, run() returns CPU_EXIT_REQUEST. An engine computes
 * `hold` itself: REQ_INTR is held while RFLAGS.IF is 0 or an interrupt shadow (STI, MOV SS) lasts,
 * REQ_NMI while state.nmi_blocked; then it has to look
 * again as soon as that changes.
 */
#ifndef CPU_CPU_H
#define CPU_CPU_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "base/err.h"
#include "bus/machine.h"
#include "cpu/x86/state.h"

/* X(name, text): why run() came back. */
#define CPU_EXITS(X)                                                                                                   \
	X(CPU_EXIT_REQUEST, "request")	 /* a request bit that is not held */                                          \
	X(CPU_EXIT_HALT, "halt")	 /* HLT retired; rip is behind it */                                           \
	X(CPU_EXIT_SHUTDOWN, "shutdown") /* triple fault */                                                            \
	X(CPU_EXIT_DEBUG, "debug")	 /* a breakpoint or step of a debugger, not the guest's own */                 \
	X(CPU_EXIT_ERROR, "error")	 /* the engine cannot go on; `error` says why */

#define CPU_EXIT_ENUM(name, text) name,
enum cpu_exit { CPU_EXITS(CPU_EXIT_ENUM) CPU_EXIT_COUNT };
#undef CPU_EXIT_ENUM

enum cpu_request {
	REQ_INTR = 1 << 0, /* level, owned by the interrupt controller */
	REQ_NMI = 1 << 1,
	REQ_SMI = 1 << 2,
	REQ_INIT = 1 << 3,
	REQ_SIPI = 1 << 4,
	REQ_FLUSH = 1 << 5, /* the memory map changed: drop everything cached of it */
	REQ_PAUSE = 1 << 6, /* park */
	REQ_STOP = 1 << 7,  /* end the thread */
	REQ_REST = 1 << 8,  /* stand still, interrupts and all, until cpu_rest(v, false) */
};

enum vcpu_run_state { VCPU_WAIT_SIPI, VCPU_RUN, VCPU_HALT, VCPU_PARKED, VCPU_DEAD };

struct cpus;
struct cpu_engine;
struct cpu_debug;
struct cpu_trace;

/* X(member, "text"): counters of one vCPU, written by its thread only; printed by --stats. */
#define CPU_COUNTERS(X)                                                                                                \
	X(insns, "guest instructions (software engines)")                                                              \
	X(exits_io, "port accesses")                                                                                   \
	X(exits_mmio, "memory-mapped register accesses")                                                               \
	X(halts, "halts")                                                                                              \
	X(interrupts, "interrupts taken")                                                                              \
	X(exceptions, "exceptions raised in the guest")                                                                \
	X(tlb_misses, "TLB misses")                                                                                    \
	X(page_walks, "page walks")                                                                                    \
	X(blocks, "blocks decoded or translated")                                                                      \
	X(blocks_dropped, "blocks dropped for writes to code")                                                         \
	X(flushes, "TLB flushes")

struct cpu_counters {
#define CPU_COUNTER_MEMBER(name, text) uint64_t name;
	CPU_COUNTERS(CPU_COUNTER_MEMBER)
#undef CPU_COUNTER_MEMBER
};

enum vcpu_sleep { VCPU_AWAKE, VCPU_WATCHES /* its requests, by itself */, VCPU_SLEEPS };

/* An engine's own vCPU structure starts with this (engine->vcpu_size bytes are allocated, zeroed, 4096-byte aligned). */
struct vcpu {
	struct x86_state state; /* software engines run on it in place; see get_state */
	_Atomic uint32_t requests;
	int index; /* = APIC ID */
	enum vcpu_run_state run_state;
	bool bsp;
	uint8_t sipi_vector; /* valid with REQ_SIPI */
	void *memory;	     /* to be freed: it begins somewhere before this */
	struct machine *m;
	struct cpus *cpus;
	const struct cpu_engine *engine;
	pthread_t thread;
	pthread_cond_t wake;	  /* with cpus->park_lock: sleeping vCPUs wait here */
	_Atomic uint8_t sleeping; /* enum vcpu_sleep */
	bool worth_watching;	  /* its last halt was short */
	bool started;		  /* the thread exists */
	struct cpu_counters count;
	char error[256];	 /* text of CPU_EXIT_ERROR */
	struct cpu_trace *trace; /* cpu/trace.h; NULL: exits are not traced */

	/* cpu/debug.h; written by the debugger while the CPU is parked, by its thread otherwise */
	struct cpu_debug *debug; /* NULL: no debugger */
	bool debug_frozen;	 /* stays parked when the others go on */
	bool debug_step, debug_stepped;
	bool debug_changed;   /* the engine's debug() is to be called */
	uint8_t debug_reason; /* enum cpu_debug_reason */
	uint8_t debug_watch;  /* kind of the watchpoint that was met */
	uint32_t debug_hold;  /* requests held while stepping */
	uint64_t debug_addr;  /* of the breakpoint or watchpoint that was met */
};

struct cpu_probe {
	bool usable;
	unsigned microseconds; /* how long the probe took */
	char reason[256];      /* one sentence: why (not) */
};

struct cpu_engine {
	const char *name;
	size_t vcpu_size;
	bool aliases; /* maps memory once more if it can: ram_create_file() */
	/* Does it work on this host? Proves it by running code where that is not certain; at most 150 ms. */
	void (*probe)(struct cpu_probe *out);
	/* Once per machine, after memory exists and before vCPUs; engine-wide data goes to cpus->engine_data. */
	int (*open_machine)(struct cpus *cpus, struct err *e);
	void (*close_machine)(struct cpus *cpus);
	/* On any thread; then all of the rest on the vCPU's own thread, apart from kick. */
	int (*open)(struct vcpu *v, struct err *e);
	void (*close)(struct vcpu *v);
	/* Execute from v->state until there is a reason to stop. */
	enum cpu_exit (*run)(struct vcpu *v);
	/* Make a run() in progress notice v->requests soon; any thread, also while not running (then nothing). */
	void (*kick)(struct vcpu *v);
	/* After get_state, v->state is the whole architectural state (lazy flags, kernel registers...). put_state: the
	 * opposite, after someone changed v->state (reset, SIPI, debugger, load). */
	void (*get_state)(struct vcpu *v);
	void (*put_state)(struct vcpu *v);
	/* May a maskable interrupt be injected now (IF, shadow)? If not, run() must return REQUEST when it may. */
	bool (*can_inject)(struct vcpu *v);
	/* Deliver an external interrupt or NMI (vector 2, nmi) at the current instruction boundary. */
	void (*inject)(struct vcpu *v, int vector, bool nmi);
	/* Forget translations of guest addresses and the memory map (REQ_FLUSH). */
	void (*flush)(struct vcpu *v);
	/* The engine's own counters, one a line, for people. May be NULL. */
	void (*print_stats)(struct vcpu *v, FILE *f);
	/* What v->debug asks for has changed: forget what was made without it. On the CPU's own thread. 0, or -1 and
	 * v->error. NULL: this engine cannot be debugged. */
	int (*debug)(struct vcpu *v);
	/* The address of the instruction that is being executed, from within cpu_io_read() and the like. */
	uint64_t (*current_rip)(struct vcpu *v);
	/* What the engine made of the code at linear address `a`, for people; the CPU is parked. May be NULL. */
	void (*dump)(struct vcpu *v, gva_t a, FILE *f);
	/* The name of a reason for interpreting an instruction, in the trace of exits. May be NULL. */
	const char *(*refusal)(unsigned reason);
};

extern const struct cpu_engine cpu_engine_kvm, cpu_engine_jit, cpu_engine_interp;

struct cpus {
	struct machine *m;
	const struct cpu_engine *engine;
	int count;
	struct vcpu *cpu[CPUS_MAX];
	void *engine_data;
	struct cpu_debug *debug; /* cpu/debug.h; NULL: no debugger */
	struct mem_listener listener;
	pthread_mutex_t park_lock;
	pthread_cond_t parked; /* signalled when a vCPU parks or ends */
	int running_threads, parked_count;
	struct cpu_model model;
};

struct cpu_options {
	int count;
	const char *engine; /* "auto", "kvm", "jit", "interp" */
	const char *model;  /* "host" or a named baseline */
	/* What the guest of a saved machine was told: taken instead, if this host and engine can do all of it. Or NULL.
	 */
	const struct cpu_model *saved;
};

/*
 * Choose an engine by name; "auto" probes in the order kvm, jit, interp. `why` gets one sentence for a person.
 * NULL and *e when the name is unknown or that engine does not work here.
 */
const struct cpu_engine *cpu_choose(const char *name, char why[256], struct err *e);

/* Make vCPUs in reset state, parked, and connect them to m->intc. Machine lock not held. */
int cpus_open(
	struct cpus *c, struct machine *m, const struct cpu_engine *engine, const struct cpu_options *o, struct err *e);
/* Threads start (parked). */
int cpus_start(struct cpus *c, struct err *e);
/* All vCPUs run / are parked when it returns. Not from a vCPU thread; machine lock NOT held. */
void cpus_resume(struct cpus *c);
void cpus_pause(struct cpus *c);
/* Power-on state; all must be parked. */
void cpus_reset(struct cpus *c);
void cpus_close(struct cpus *c); /* ends threads, frees */

/* Let one vCPU stand still, or go on. It stays still over a pause. Any thread. */
void cpu_rest(struct vcpu *v, bool on);

/*
 * An engine whose structure has megabytes of tables that every access looks into: large pages for it from now on, so that
 * the host's TLB is left to the guest. Not at once: a machine that rests, as many forks do, touches little of them.
 */
void vcpu_make_large(struct vcpu *v);

/* Set request bits and wake or kick. Any thread. */
void cpu_request(struct vcpu *v, uint32_t bits);

/*
 * What engines call for accesses that leave RAM. They take the machine lock. size 1, 2, 4 (mmio also 8).
 * cpu_mmio_* handle the local APIC page of this vCPU, then the bus.
 */
uint32_t cpu_io_read(struct vcpu *v, uint16_t port, unsigned size);
void cpu_io_write(struct vcpu *v, uint16_t port, uint32_t value, unsigned size);
uint64_t cpu_mmio_read(struct vcpu *v, gpa_t gpa, unsigned size);
void cpu_mmio_write(struct vcpu *v, gpa_t gpa, uint64_t value, unsigned size);
/* MSRs that live in the local APIC (see bus/intc.h); false: #GP. */
bool cpu_apic_msr_read(struct vcpu *v, uint32_t msr, uint64_t *value);
bool cpu_apic_msr_write(struct vcpu *v, uint32_t msr, uint64_t value);
uint8_t cpu_get_cr8(struct vcpu *v);
void cpu_set_cr8(struct vcpu *v, uint8_t value);

const char *cpu_exit_text(enum cpu_exit x);

#endif
