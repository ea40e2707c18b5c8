/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The engine that runs guest code with the kernel's KVM.
 *
 *	kvm.c    the machine: memory slots, CPUID, MSR filter; the vCPU's run loop and exits
 *	regs.c   struct x86_state to and from KVM's register structures
 *	probe.c  does it work here, and fast?
 *	debug.c  breakpoints, watchpoints and steps of a debugger
 */
#ifndef CPU_KVM_KVM_H
#define CPU_KVM_KVM_H

#include <linux/kvm.h>
#include <stdatomic.h>

#include "cpu/cpu.h"

#define KVM_CPUID_MAX 256
#define KVM_LOGGED_MAX 16

struct kvm_slot {
	gpa_t gpa;
	uint64_t size;
	uint8_t *host; /* NULL: unused */
	uint32_t flags;
	struct ram *ram;
	uint64_t ram_offset;
};

struct kvm_machine {
	int kvm, vm; /* descriptors; -1: not open */
	size_t run_size;
	struct machine *m;
	struct mem_listener listener;
	struct kvm_slot slot[MEM_SECTIONS_MAX];
	struct kvm_cpuid2 *supported;
	struct ram *logged[KVM_LOGGED_MAX]; /* the kernel logs writes to these; NULL: free */
};

struct kvm_vcpu {
	struct vcpu v; /* first */
	int fd;
	struct kvm_run *run;
	struct kvm_machine *km;
	_Atomic bool in_run; /* a signal to `thread` may be needed to notice a request */
	pthread_t thread;
	bool entered;		 /* the kernel's state may differ from v.state */
	bool run_valid;		 /* run->ready_for_interrupt_injection is of the present state */
	bool injected;		 /* an interrupt was queued since the last KVM_RUN */
	bool unfinished;	 /* the last exit's instruction completes with the next KVM_RUN */
	enum cpu_exit late_exit; /* for the next run(); CPU_EXIT_COUNT: none */
	bool cr8_stale;		 /* the TPR may have been changed by other means than CR8 */
	int64_t tsc_offset;
	struct kvm_vcpu_events events; /* as get_state saw them; put back if the CPU was not reset meanwhile */
	bool events_valid;
	uint64_t events_rip;
};

/* The capabilities the engine cannot do without; returns the name of the first that is missing, or NULL. */
const char *kvm_missing_capability(int kvm);
/* A sentence for an errno of open("/dev/kvm"). */
const char *kvm_open_sentence(int error);
/* Make KVM_RUN return with EINTR in the thread that gets this signal. */
#define KVM_KICK_SIGNAL SIGUSR1
void kvm_kick_install(void);

/* regs.c; 0 or -errno, with v.error filled in. */
int kvm_regs_get(struct kvm_vcpu *k);
int kvm_regs_put(struct kvm_vcpu *k);

/* debug.c: give the kernel what v.debug asks for; 0, or -errno and v.error. */
int kvm_debug_set(struct kvm_vcpu *k);
/* KVM_EXIT_DEBUG: note why. False: nobody wants to know. */
bool kvm_debug_exit(struct kvm_vcpu *k);

void kvm_probe(struct cpu_probe *out);

#endif
