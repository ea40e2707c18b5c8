/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Guest instructions a second of a software engine, on integer loops.
 *
 *	bench/insns [ENGINE] [SECONDS]
 *
 * The loops are C functions of this program in a section of their own. They are copied into the memory of a machine
 * with one CPU in 64-bit mode, without devices, and also run as they are: the last column is how much longer the
 * engine takes.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "bus/machine.h"
#include "cpu/cpu.h"
#include "cpu/x86/x86.h"

#define GUEST                                                                                                          \
	__attribute__((section("guest"), noinline,                                                                     \
		optimize("O2", "no-stack-protector", "no-tree-vectorize", "no-tree-loop-distribute-patterns")))
extern const char __start_guest[], __stop_guest[];

#define RAM_SIZE (64u << 20)
#define CODE 0x100000u
#define DATA 0x1000000u
#define STACK 0x800000u
#define RETURN 0x90000u /* a HLT */

/* ---- the loops: memory at `m`, a count, and a result that depends on all they did ---- */

GUEST static uint64_t
sieve(uint8_t *m, uint64_t n)
{
	uint64_t primes = 0;

	for (uint64_t i = 0; i < n; i++)
		m[i] = 1;
	for (uint64_t i = 2; i < n; i++) {
		if (!m[i])
			continue;
		primes++;
		for (uint64_t k = i * 2; k < n; k += i)
			m[k] = 0;
	}
	return primes;
}

GUEST static uint64_t
shell_sort(uint8_t *mem, uint64_t n)
{
	uint32_t *m = (uint32_t *)mem, x = 1, sum = 0;

	for (uint64_t i = 0; i < n; i++) {
		x = x * 1664525 + 1013904223;
		m[i] = x;
	}
	for (uint64_t gap = n / 2; gap; gap /= 2)
		for (uint64_t i = gap; i < n; i++) {
			uint32_t v = m[i];
			uint64_t k;

			for (k = i; k >= gap && m[k - gap] > v; k -= gap)
				m[k] = m[k - gap];
			m[k] = v;
		}
	for (uint64_t i = 0; i < n; i += 97)
		sum = sum * 31 + m[i];
	return sum;
}

GUEST static uint64_t
crc32_bytes(uint8_t *mem, uint64_t n)
{
	uint32_t *table = (uint32_t *)mem, crc = ~0u;
	uint8_t *m = mem + 4096;

	for (uint32_t i = 0; i < 256; i++) {
		uint32_t c = i;

		for (int k = 0; k < 8; k++)
			c = c & 1 ? c >> 1 ^ 0xedb88320 : c >> 1;
		table[i] = c;
	}
	for (uint64_t i = 0; i < n; i++)
		crc = crc >> 8 ^ table[(uint8_t)(crc ^ m[i & 0xffff])];
	return crc;
}

GUEST static uint64_t
fib(uint64_t n)
{
	return n < 2 ? n : fib(n - 1) + fib(n - 2);
}

GUEST static uint64_t
calls(uint8_t *m, uint64_t n)
{
	return fib(n);
}

GUEST static uint64_t
list_walk(uint8_t *mem, uint64_t n)
{
	uint64_t *m = (uint64_t *)mem, at = 0, sum = 0;

	for (uint64_t i = 0; i < 4096; i++)
		m[i] = (i * 1663 + 71) & 4095;
	for (uint64_t i = 0; i < n; i++) {
		at = m[at];
		sum += at;
	}
	return sum;
}

typedef float vec4 __attribute__((vector_size(16)));

GUEST static uint64_t
vectors(uint8_t *mem, uint64_t n)
{
	vec4 *m = (vec4 *)mem, sum = { 0 };
	/* no constants: they would lie outside of the section that is copied */
	float third = (float)(int64_t)(n >> 18) / (float)(int64_t)(n >> 17), f;

	for (int64_t i = 0; i < 1024; i++)
		m[i] = (vec4){ (float)i, (float)(i + 1), (float)(i + 2), (float)(i * 2) };
	for (uint64_t i = 0; i < n; i++) {
		sum = (sum + m[i & 1023]) * third;
		m[(i + 7) & 1023] = sum;
	}
	f = sum[0] + sum[1] + sum[2] + sum[3];
	return (uint64_t)(int64_t)f;
}

static const struct {
	const char *name;
	uint64_t (*run)(uint8_t *m, uint64_t n);
	uint64_t n;
} loops[] = {
	{ "sieve", sieve, 1000000 },
	{ "sort", shell_sort, 100000 },
	{ "crc", crc32_bytes, 4000000 },
	{ "calls", calls, 27 },
	{ "list", list_walk, 4000000 },
	{ "vectors", vectors, 400000 },
};

/* ---- the machine ---- */

static double
now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* Flat 64-bit mode, the first 1 GiB mapped to itself in pages of 2 MiB. */
static void
start(struct vcpu *v, uint8_t *ram, const struct cpu_model *model)
{
	struct x86_state *s = &v->state;
	uint64_t pml4 = 0x2000 | 7, pdpt = 0x3000 | 7;

	memcpy(ram + 0x1000, &pml4, 8);
	memcpy(ram + 0x2000, &pdpt, 8);
	for (uint64_t i = 0; i < 512; i++) {
		uint64_t pde = i << 21 | 0x87;

		memcpy(ram + 0x3000 + 8 * i, &pde, 8);
	}
	x86_reset_state(s, model, true);
	s->cr0 = CR0_PE | CR0_MP | CR0_ET | CR0_NE | CR0_WP | CR0_PG;
	s->cr3 = 0x1000;
	s->cr4 = (CR4_PAE | CR4_OSFXSR | CR4_OSXMMEXCPT) & model->cr4_supported;
	s->efer = EFER_LME | EFER_LMA;
	for (int i = SEG_ES; i <= SEG_GS; i++)
		s->seg[i] = (struct x86_seg){ .sel = 0x10, .attr = 0xc093, .limit = UINT32_MAX };
	s->seg[SEG_CS].attr = 0xa09b;
	s->rflags = 2;
}

static uint64_t
run_guest(struct vcpu *v, uint8_t *ram, unsigned which, double *seconds, uint64_t *insns)
{
	struct x86_state *s = &v->state;
	uint64_t back = RETURN, before = v->count.insns;
	double t;

	s->gpr[RDI] = DATA;
	s->gpr[RSI] = loops[which].n;
	s->gpr[RSP] = STACK - 8;
	memcpy(ram + STACK - 8, &back, 8);
	s->rip = CODE + (uint64_t)((const char *)loops[which].run - __start_guest);
	v->engine->put_state(v);
	t = now();
	if (v->engine->run(v) != CPU_EXIT_HALT) {
		fprintf(stderr, "%s did not end with HLT but at %llx\n", loops[which].name, (unsigned long long)s->rip);
		exit(1);
	}
	*seconds = now() - t;
	v->engine->get_state(v);
	*insns = v->count.insns - before;
	return s->gpr[RAX];
}

static void
measure(struct vcpu *v, uint8_t *ram, uint8_t *native, unsigned which, double at_least)
{
	double best = 1e9, best_native = 1e9, t, end = now() + at_least;
	uint64_t insns = 0, result, expected = 0;

	do {
		result = run_guest(v, ram, which, &t, &insns);
		if (t < best)
			best = t;
		t = now();
		expected = loops[which].run(native, loops[which].n);
		t = now() - t;
		if (t < best_native)
			best_native = t;
	} while (now() < end);
	printf("%-8s %8.1f MIPS %10.1f ms %8.1f ms native %7.1f x%s\n", loops[which].name, (double)insns / best / 1e6,
		best * 1e3, best_native * 1e3, best / best_native, result == expected ? "" : "  WRONG RESULT");
}

int
main(int argc, char **argv)
{
	struct cpu_options o = { .count = 1, .model = "host" };
	const struct cpu_engine *engine;
	struct mem_region region;
	struct machine m;
	struct cpus cpus;
	struct err e = { 0 };
	struct ram *ram;
	uint8_t *native;
	char why[256];

	engine = cpu_choose(argc > 1 ? argv[1] : "interp", why, &e);
	if (!engine || machine_open(&m, "bench")) {
		fprintf(stderr, "%s\n", e.text);
		return 1;
	}
	ram = ram_create(&m.mem, "ram", RAM_SIZE);
	region = (struct mem_region){ .name = "ram", .kind = MEM_RAM, .enabled = true, .size = RAM_SIZE, .ram = ram };
	mem_add(&m.mem, &region);
	mem_update(&m.mem);
	if (cpus_open(&cpus, &m, engine, &o, &e)) {
		fprintf(stderr, "%s\n", e.text);
		return 1;
	}
	memcpy(ram->host + CODE, __start_guest, (size_t)(__stop_guest - __start_guest));
	ram->host[RETURN] = 0xf4;
	native = malloc(RAM_SIZE - DATA);
	cpus.cpu[0]->requests = 0;
	start(cpus.cpu[0], ram->host, &cpus.model);
	for (unsigned i = 0; i < sizeof(loops) / sizeof(loops[0]); i++)
		measure(cpus.cpu[0], ram->host, native, i, argc > 2 ? atof(argv[2]) : 0.5);
	free(native);
	cpus_close(&cpus);
	machine_close(&m);
	return 0;
}
