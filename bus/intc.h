/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where CPUs and interrupt controllers meet. Neither includes the other: dev/lapic.c fills in a `struct lapic_port`
 * for each CPU, cpu/cpu.c fills in a `struct cpu_port`, and both find the other here by CPU index (= APIC ID).
 *
 * All functions are called with the machine lock held.
 */
#ifndef BUS_INTC_H
#define BUS_INTC_H

#include <stdbool.h>
#include <stdint.h>

#define CPUS_MAX 64

enum cpu_signal {
	CPU_INTR, /* level: a maskable interrupt is deliverable (arg 1) or no longer (arg 0); fetch it with lapic ack */
	CPU_NMI,  /* edge */
	CPU_SMI,  /* edge */
	CPU_INIT, /* edge */
	CPU_SIPI, /* edge; arg is the vector: start at arg << 12 */
};

struct cpu_port {
	void *opaque;
	void (*signal)(void *opaque, enum cpu_signal what, int arg);
};

struct lapic_port {
	void *opaque;
	/*
	 * The CPU takes the interrupt that CPU_INTR announced: moves it to in-service (or acknowledges the 8259s for
	 * ExtINT) and returns its vector; -1 when there is none any more. Re-evaluates CPU_INTR.
	 */
	int (*ack)(void *opaque);
	/* The 4 KiB register page. `off` is 16-byte aligned for architectural registers; size is 4. */
	uint32_t (*mmio_read)(void *opaque, uint32_t off);
	void (*mmio_write)(void *opaque, uint32_t off, uint32_t value);
	/*
	 * MSRs: IA32_APIC_BASE (0x1b), IA32_TSC_DEADLINE (0x6e0), x2APIC (0x800-0x8ff). False: the access is a #GP.
	 * Values of IA32_TSC_DEADLINE are guest TSC values (bus/clock.h).
	 */
	bool (*msr_read)(void *opaque, uint32_t msr, uint64_t *value);
	bool (*msr_write)(void *opaque, uint32_t msr, uint64_t value);
	/* CR8 = TPR >> 4. */
	uint8_t (*get_cr8)(void *opaque);
	void (*set_cr8)(void *opaque, uint8_t value);
	/* Current IA32_APIC_BASE, so that a CPU can tell LAPIC addresses and CPUID.1:EDX.APIC. */
	uint64_t base;
	/* INIT: all but the APIC ID and base goes to its reset value. */
	void (*init)(void *opaque);
};

struct intc {
	int cpus;
	struct cpu_port cpu[CPUS_MAX];
	struct lapic_port lapic[CPUS_MAX];
	/* The 8259 pair as seen by the CPU's INTA cycle; filled in by dev/i8259.c, used by the lapic for ExtINT. */
	int (*pic_ack)(void *opaque);
	void *pic_opaque;
	/* A message-signalled interrupt (an upstream write to 0xfeexxxxx); filled in by dev/lapic.c. */
	void (*msi)(void *opaque, uint64_t addr, uint32_t data);
	void *msi_opaque;
	/* End of interrupt broadcast to I/O APICs for level-triggered vectors; filled in by dev/ioapic.c. */
	void (*eoi)(void *opaque, int vector);
	void *eoi_opaque;
};

#endif
