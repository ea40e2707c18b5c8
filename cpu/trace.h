/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The trace of exits: where guest code leaves full speed, by reason, place and object. Each vCPU counts in a table of
 * its own; with a file each event is also one line there. What is traced costs a hash lookup an event; when it is off,
 * one test where engines are slow anyway.
 */
#ifndef CPU_TRACE_H
#define CPU_TRACE_H

#include <stdio.h>

#include "cpu/cpu.h"

/* X(name, text, what the object is): */
#define CPU_TRACES(X)                                                                                                  \
	X(CPU_TRACE_IN, "in", "port")                                                                                  \
	X(CPU_TRACE_OUT, "out", "port")                                                                                \
	X(CPU_TRACE_MMIO_READ, "mmio-read", "address")                                                                 \
	X(CPU_TRACE_MMIO_WRITE, "mmio-write", "address")                                                               \
	X(CPU_TRACE_HALT, "halt", "")                                                                                  \
	X(CPU_TRACE_INTERRUPT, "interrupt", "vector")                                                                  \
	X(CPU_TRACE_EXCEPTION, "exception", "vector")                                                                  \
	X(CPU_TRACE_INTERPRETED, "interpreted", "refusal")

#define CPU_TRACE_ENUM(name, text, object) name,
enum cpu_trace_kind { CPU_TRACES(CPU_TRACE_ENUM) CPU_TRACE_COUNT };
#undef CPU_TRACE_ENUM

#define CPU_TRACE_LINES_MAX 1000000u /* of a file; the counts go on */

/* On all CPUs, which are parked. `lines` (NULL: none) gets one line an event and stays the caller's. 0 or -ENOMEM. */
int cpu_trace_start(struct cpus *c, FILE *lines);
void cpu_trace_stop(struct cpus *c); /* the CPUs are parked */

/* Note an event; v->trace is not NULL. On the CPU's thread. */
void cpu_trace(struct vcpu *v, enum cpu_trace_kind kind, uint64_t rip, uint64_t object);
uint64_t cpu_trace_rip(struct vcpu *v);

/* Totals by reason, then the `most` most frequent (reason, place, object) over all CPUs. The CPUs are parked. */
void cpu_trace_print(struct cpus *c, unsigned most, FILE *f);

#endif
