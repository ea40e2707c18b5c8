/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Mini guests: a machine with 16 MiB of memory and a few devices, 1 to 4 virtual CPUs of either software engine, and
 * guest code written as assembly in the test.
 *
 * A CPU starts where the test says, in 64-bit mode at CPL 0 (mini_long()), or in a state the test makes. Interrupts are
 * off, all of memory is mapped to itself: the first 4 MiB by 4 KiB pages whose entries the test may change
 * (mini_pte()). Exceptions without a handler of the test's end in a HLT that tells the vector; so does HLT in the
 * test's code.
 *
 *	port 0x10   what is written is noted (`seen`)
 *	port 0x20   interrupts the CPU whose number is written: vector 0x40
 *	port 0x30   NMI, the same
 *	REGS_AT     a page of device registers: a read gives 0x11 * offset, writes are noted
 */
#ifndef TEST_UNIT_CPU_MINI_H
#define TEST_UNIT_CPU_MINI_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/time.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/str.h"
#include "bus/machine.h"
#include "cpu/x86/x86.h"

#define MINI_RAM (16u << 20)
#define REGS_AT MINI_RAM
#define SEEN_MAX 256

enum {
	GDT_AT = 0x1000,
	IDT_AT = 0x2000, /* 256 rows of 16 bytes */
	TSS_AT = 0x3000, /* of CPU n: 0x100 * n further */
	HANDLERS_AT = 0x4000,
	PML4_AT = 0x10000,
	PDPT_AT = 0x11000,
	PD_AT = 0x12000,
	PT_AT = 0x13000,    /* two tables: the first 4 MiB */
	STACK_AT = 0x80000, /* top; of CPU n: 0x8000 * n further up */
	IST_AT = 0xc0000,   /* the same, of handlers that want their own (IST 1) */
	DATA_AT = 0x200000, /* for tests */
	CODE_AT = 0x100000,
};

/* Selectors. */
enum {
	SEL_CODE64 = 0x08,
	SEL_DATA = 0x10,
	SEL_CODE32 = 0x18,
	SEL_CODE16 = 0x20, /* base 0, 64 KiB */
	SEL_DATA16 = 0x28,
	SEL_USER32 = 0x33, /* for SYSRET: 32-bit code, data, 64-bit code */
	SEL_USER_DATA = 0x3b,
	SEL_USER64 = 0x43,
	SEL_TSS = 0x50,	 /* 16 bytes */
	SEL_FREE = 0x60, /* and on, for tests */
};

/*
 * Guest code: assembly of so many bits, Intel syntax, to be loaded at CODE_AT unless the test says otherwise. Symbols
 * of one file share one name space. AT(label) is the guest's address of a label.
 */
#define GUEST(name, bits, text)                                                                                        \
	__asm__(".pushsection .rodata\n\t.balign 4096\n\t.intel_syntax noprefix\n\t.code" #bits "\n" #name             \
		"_code:\n" text "\n" #name "_end:\n\t.code64\n\t.att_syntax\n\t.popsection\n");                        \
	extern const uint8_t name##_code[] __attribute__((visibility("hidden")));                                      \
	extern const uint8_t name##_end[] __attribute__((visibility("hidden")))
#define LABEL(name) extern const uint8_t name[] __attribute__((visibility("hidden")))
#define AT(guest, label) "(" #label " - " #guest "_code + 0x100000)"
/* The same for C. */
#define ADDRESS(guest, label) ((uint32_t)(CODE_AT + ((label) - (guest##_code))))

struct mini {
	struct machine m;
	struct cpus cpus;
	struct ram *ram;
	uint8_t *mem;
	struct mem_region ram_region, regs_region;
	uint64_t seen[SEEN_MAX];
	unsigned seen_count;
	struct mini_port {
		struct mini *f;
		unsigned acks;
	} lapic[4];
};

static const struct cpu_engine *engine; /* of the group that runs */
static bool mini_file;			/* memory is such that it can be mapped again */

/* ---- devices ---- */

static inline uint64_t
mini_port_read(void *opaque, uint64_t off, unsigned size)
{
	return 0xa5;
}

static inline void
mini_note(void *opaque, uint64_t off, uint64_t value, unsigned size)
{
	struct mini *f = opaque;

	if (f->seen_count < SEEN_MAX)
		f->seen[f->seen_count++] = value;
}

static inline void
mini_interrupt(void *opaque, uint64_t off, uint64_t value, unsigned size)
{
	struct mini *f = opaque;
	struct cpu_port *p = &f->m.intc.cpu[value & 3];

	if (p->signal)
		p->signal(p->opaque, CPU_INTR, 1);
}

static inline void
mini_nmi(void *opaque, uint64_t off, uint64_t value, unsigned size)
{
	struct mini *f = opaque;
	struct cpu_port *p = &f->m.intc.cpu[value & 3];

	if (p->signal)
		p->signal(p->opaque, CPU_NMI, 0);
}

static inline int
mini_ack(void *opaque)
{
	struct mini_port *l = opaque;
	struct cpu_port *p = &l->f->m.intc.cpu[l - l->f->lapic];

	l->acks++;
	p->signal(p->opaque, CPU_INTR, 0);
	return 0x40;
}

static inline uint64_t
mini_regs_read(void *opaque, uint64_t off, unsigned size)
{
	return 0x11 * off;
}

static const struct bus_ops mini_note_ops = { .read = mini_port_read, .write = mini_note };
static const struct bus_ops mini_interrupt_ops = { .read = mini_port_read, .write = mini_interrupt };
static const struct bus_ops mini_nmi_ops = { .read = mini_port_read, .write = mini_nmi };
static const struct bus_ops mini_regs_ops = {
	.read = mini_regs_read, .write = mini_note, .min_size = 1, .max_size = 8
};

/* ---- memory and tables ---- */

static inline void
put16(struct mini *f, uint64_t at, uint16_t v)
{
	put_le16(f->mem + at, v);
}
static inline void
put32(struct mini *f, uint64_t at, uint32_t v)
{
	put_le32(f->mem + at, v);
}
static inline void
put64(struct mini *f, uint64_t at, uint64_t v)
{
	put_le64(f->mem + at, v);
}
static inline uint64_t
get64(struct mini *f, uint64_t at)
{
	return le64(f->mem + at);
}
static inline uint32_t
get32(struct mini *f, uint64_t at)
{
	return le32(f->mem + at);
}

/* `attr` as in struct x86_seg; `limit` in bytes or pages as G says. */
static inline uint64_t
descriptor(uint32_t base, uint32_t limit, uint32_t attr)
{
	uint64_t d = (limit & 0xffff) | (uint64_t)(limit & 0xf0000) << 32;

	d |= (uint64_t)(base & 0xffffff) << 16 | (uint64_t)(base & 0xff000000) << 32;
	return d | (uint64_t)(attr & 0xf0ff) << 40;
}

static inline void
gdt_set(struct mini *f, uint16_t sel, uint64_t d)
{
	put64(f, GDT_AT + (sel & ~7u), d);
}

/* Where the entry of a page below 4 MiB is. */
static inline uint32_t
mini_pte(uint32_t a)
{
	return PT_AT + 8 * (a >> 12);
}

/* A gate in the 64-bit IDT. `ist`: 0 or 1. */
static inline void
mini_gate(struct mini *f, unsigned vector, uint32_t at, unsigned ist)
{
	put64(f, IDT_AT + 16 * vector,
		(at & 0xffff) | SEL_CODE64 << 16 | (uint64_t)ist << 32 | 0xee00ull << 32 | (uint64_t)(at >> 16) << 48);
	put64(f, IDT_AT + 16 * vector + 8, 0);
}

static inline void
mini_tables(struct mini *f)
{
	gdt_set(f, SEL_CODE64, descriptor(0, 0xfffff, 0xa09b));
	gdt_set(f, SEL_DATA, descriptor(0, 0xfffff, 0xc093));
	gdt_set(f, SEL_CODE32, descriptor(0, 0xfffff, 0xc09b));
	gdt_set(f, SEL_CODE16, descriptor(0, 0xffff, 0x009b));
	gdt_set(f, SEL_DATA16, descriptor(0, 0xffff, 0x0093));
	gdt_set(f, SEL_USER32, descriptor(0, 0xfffff, 0xc0fb));
	gdt_set(f, SEL_USER_DATA, descriptor(0, 0xfffff, 0xc0f3));
	gdt_set(f, SEL_USER64, descriptor(0, 0xfffff, 0xa0fb));
	gdt_set(f, SEL_TSS, descriptor(TSS_AT, 0x67, 0x008b));
	memset(f->mem + HANDLERS_AT, 0xf4, 256);
	for (unsigned v = 0; v < 256; v++)
		mini_gate(f, v, HANDLERS_AT + v, 0);
	for (unsigned n = 0; n < 4; n++) {
		put64(f, TSS_AT + 0x100 * n + 4, STACK_AT + 0x8000 * n - 0x4000); /* RSP0 */
		put64(f, TSS_AT + 0x100 * n + 36, IST_AT + 0x8000 * n);
		put32(f, TSS_AT + 0x100 * n + 100, 104u << 16);
	}
	put64(f, PML4_AT, PDPT_AT | 7);
	put64(f, PDPT_AT, PD_AT | 7);
	for (unsigned i = 0; i < 16; i++)
		put64(f, PD_AT + 8 * i, i < 2 ? (PT_AT + 0x1000 * i) | 7 : (uint64_t)i << 21 | 0x87);
	for (unsigned i = 0; i < 1024; i++)
		put64(f, PT_AT + 8 * i, i << 12 | 7);
}

static inline void
mini_load_at(struct mini *f, uint32_t at, const uint8_t *code, const uint8_t *end)
{
	memcpy(f->mem + at, code, (size_t)(end - code));
	mem_written(&f->m.mem, at, (uint64_t)(end - code));
}
#define LOAD(f, guest) mini_load_at(f, CODE_AT, guest##_code, guest##_end)

/* ---- states ---- */

static inline void
mini_segment(struct x86_state *s, enum seg_name n, uint16_t sel, uint32_t base, uint32_t limit, uint32_t attr)
{
	s->seg[n] = (struct x86_seg){ .sel = sel, .attr = attr, .limit = limit, .base = base };
}

/* 64-bit mode, CPL 0. */
static inline void
mini_long(struct mini *f, int cpu, uint32_t rip)
{
	struct vcpu *v = f->cpus.cpu[cpu];
	struct x86_state *s = &v->state;

	x86_reset_state(s, &f->cpus.model, cpu == 0);
	s->cr0 = CR0_PE | CR0_PG | CR0_MP | CR0_ET | CR0_NE | CR0_WP;
	s->cr3 = PML4_AT;
	s->cr4 = (CR4_PAE | CR4_PGE | CR4_DE | CR4_OSFXSR | CR4_OSXMMEXCPT | CR4_OSXSAVE) & f->cpus.model.cr4_supported;
	s->efer = EFER_LME | EFER_LMA | EFER_SCE | EFER_NXE;
	s->xcr0 = f->cpus.model.xcr0_supported;
	s->gdt = (struct x86_table){ GDT_AT, 0xfff };
	s->idt = (struct x86_table){ IDT_AT, 0xfff };
	for (int i = SEG_ES; i <= SEG_GS; i++)
		mini_segment(s, (enum seg_name)i, SEL_DATA, 0, UINT32_MAX, 0xc093);
	mini_segment(s, SEG_CS, SEL_CODE64, 0, UINT32_MAX, 0xa09b);
	mini_segment(s, SEG_TR, SEL_TSS, TSS_AT + 0x100u * (unsigned)cpu, 0x67, 0x8b);
	s->rip = rip;
	s->rflags = 2;
	s->gpr[RSP] = STACK_AT + 0x8000u * (unsigned)cpu;
	v->run_state = VCPU_RUN;
}

/* ---- running ---- */

static struct vcpu *mini_busy;

static inline void
mini_alarm(int sig)
{
	if (!mini_busy)
		return;
	atomic_fetch_or(&mini_busy->requests, REQ_STOP);
	mini_busy->engine->kick(mini_busy);
}

static inline void
mini_watch(struct vcpu *v, unsigned seconds)
{
	struct itimerval t = { .it_value.tv_sec = seconds };

	mini_busy = v;
	signal(SIGALRM, mini_alarm);
	setitimer(ITIMER_REAL, &t, NULL);
}

/* Run CPU 0 on this thread from v->state until it halts with interrupts off; interrupts are delivered. */
static inline enum cpu_exit
mini_go(struct mini *f)
{
	struct vcpu *v = f->cpus.cpu[0];
	enum cpu_exit x;

	engine->put_state(v);
	v->requests &= (uint32_t) ~(REQ_STOP | REQ_PAUSE | REQ_FLUSH);
	mini_watch(v, 30);
	for (;;) {
		x = engine->run(v);
		if (x == CPU_EXIT_REQUEST && v->requests & REQ_STOP)
			break;
		if (x == CPU_EXIT_REQUEST && v->requests & REQ_NMI && !v->state.nmi_blocked) {
			atomic_fetch_and(&v->requests, (uint32_t)~REQ_NMI);
			engine->inject(v, 2, true);
		} else if (x == CPU_EXIT_REQUEST && v->requests & REQ_INTR && engine->can_inject(v)) {
			machine_lock(&f->m);
			int vector = mini_ack(&f->lapic[0]);
			machine_unlock(&f->m);
			engine->inject(v, vector, false);
		} else if (x != CPU_EXIT_REQUEST) {
			break;
		}
	}
	mini_watch(NULL, 0);
	engine->get_state(v);
	return x;
}

/* The vector of the default handler it stands in, -1: it stands in the test's code. */
static inline int
mini_vector(struct mini *f)
{
	uint64_t at = f->cpus.cpu[0]->state.rip - 1 - HANDLERS_AT;

	return at < 256 ? (int)at : -1;
}

/* Run from the start of a guest in 64-bit mode until its own HLT. */
static inline void
mini_run(struct mini *f)
{
	enum cpu_exit x;

	mini_long(f, 0, CODE_AT);
	x = mini_go(f);
	if (x != CPU_EXIT_HALT)
		fail_msg("it ended with: %s, at %llx", cpu_exit_text(x), (unsigned long long)f->cpus.cpu[0]->state.rip);
	if (mini_vector(f) >= 0)
		fail_msg("exception %d, cr2 %llx, frame %llx %llx", mini_vector(f),
			(unsigned long long)f->cpus.cpu[0]->state.cr2,
			(unsigned long long)get64(f, f->cpus.cpu[0]->state.gpr[RSP]),
			(unsigned long long)get64(f, f->cpus.cpu[0]->state.gpr[RSP] + 8));
}

#define RUN(f, guest)                                                                                                  \
	do {                                                                                                           \
		LOAD(f, guest);                                                                                        \
		mini_run(f);                                                                                           \
	} while (0)

#define REG(f, r) ((f)->cpus.cpu[0]->state.gpr[r])

/* All CPUs on threads of their own, each from the state it has, until all have halted. */
static inline void
mini_run_all(struct mini *f)
{
	struct err e;
	int halted = 0;

	for (int n = 0; n < f->cpus.count; n++)
		engine->put_state(f->cpus.cpu[n]);
	assert_int_equal(cpus_start(&f->cpus, &e), 0);
	cpus_resume(&f->cpus);
	for (int i = 0; i < 300000 && halted < f->cpus.count; i++) {
		usleep(100);
		halted = 0;
		for (int n = 0; n < f->cpus.count; n++)
			halted += f->cpus.cpu[n]->run_state == VCPU_HALT;
	}
	cpus_pause(&f->cpus);
	if (halted < f->cpus.count)
		for (int n = 0; n < f->cpus.count; n++)
			print_message("CPU %d: rip %llx\n", n, (unsigned long long)f->cpus.cpu[n]->state.rip);
	assert_int_equal(halted, f->cpus.count);
	for (int n = 0; n < f->cpus.count; n++) {
		uint64_t at = f->cpus.cpu[n]->state.rip - 1 - HANDLERS_AT;

		if (at < 256)
			fail_msg("CPU %d: exception %d, cr2 %llx", n, (int)at,
				(unsigned long long)f->cpus.cpu[n]->state.cr2);
	}
}

/* ---- life ---- */

static inline int
mini_open(void **state, int cpus)
{
	struct mini *f = calloc(1, sizeof(*f));
	struct cpu_options o = { .count = cpus };
	struct err e = { 0 };

	assert_int_equal(machine_open(&f->m, "mini"), 0);
	f->ram = mini_file ? ram_create_file(&f->m.mem, "ram", MINI_RAM) : ram_create(&f->m.mem, "ram", MINI_RAM);
	f->mem = f->ram->host;
	machine_lock(&f->m);
	f->ram_region =
		(struct mem_region){ .name = "ram", .kind = MEM_RAM, .enabled = true, .size = MINI_RAM, .ram = f->ram };
	f->regs_region = (struct mem_region){ .name = "regs",
		.kind = MEM_MMIO,
		.enabled = true,
		.base = REGS_AT,
		.size = PAGE_SIZE,
		.ops = &mini_regs_ops,
		.opaque = f };
	mem_add(&f->m.mem, &f->ram_region);
	mem_add(&f->m.mem, &f->regs_region);
	mem_update(&f->m.mem);
	io_add(&f->m.io, 0x10, 8, &mini_note_ops, f);
	io_add(&f->m.io, 0x20, 8, &mini_interrupt_ops, f);
	io_add(&f->m.io, 0x30, 8, &mini_nmi_ops, f);
	for (int n = 0; n < 4; n++) {
		f->lapic[n].f = f;
		f->m.intc.lapic[n] = (struct lapic_port){ .opaque = &f->lapic[n], .ack = mini_ack };
	}
	clock_start(&f->m.clock);
	machine_unlock(&f->m);
	if (cpus_open(&f->cpus, &f->m, engine, &o, &e))
		fail_msg("%s", e.text);
	mini_tables(f);
	for (int n = 0; n < cpus; n++)
		mini_long(f, n, CODE_AT);
	*state = f;
	return 0;
}

static inline int
mini_setup(void **state)
{
	return mini_open(state, 1);
}
static inline int
mini_setup_2(void **state)
{
	return mini_open(state, 2);
}
static inline int
mini_setup_4(void **state)
{
	return mini_open(state, 4);
}

static inline int
mini_teardown(void **state)
{
	struct mini *f = *state;

	cpus_close(&f->cpus);
	machine_close(&f->m);
	free(f);
	return 0;
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, mini_setup, mini_teardown)
#define TEST_2(name) cmocka_unit_test_setup_teardown(name, mini_setup_2, mini_teardown)
#define TEST_4(name) cmocka_unit_test_setup_teardown(name, mini_setup_4, mini_teardown)

/*
 * Tests that the translator is known to fail are shown as skipped, and run when MINI_OPEN is set. Who mends a bug moves
 * its tests to the others.
 */
static inline void
mini_skip(void **state)
{
	print_message("known open: MINI_OPEN=1 runs it\n");
	skip();
}

#define MINI_OPEN_MAX 8

static inline int
mini_main(const char *name, const struct CMUnitTest *tests, size_t count, const struct CMUnitTest *known_open,
	size_t open)
{
	struct CMUnitTest skipped[MINI_OPEN_MAX];
	char group[64];
	int failed;

	for (size_t i = 0; i < open; i++) {
		skipped[i] = known_open[i];
		skipped[i].test_func = mini_skip;
	}
	snprintf(group, sizeof(group), "interp: %s", name);
	engine = &cpu_engine_interp;
	failed = _cmocka_run_group_tests(group, tests, count, NULL, NULL);
	if (open)
		failed += _cmocka_run_group_tests("interp: known open in jit", known_open, open, NULL, NULL);
	snprintf(group, sizeof(group), "jit: %s", name);
	engine = &cpu_engine_jit;
	failed += _cmocka_run_group_tests(group, tests, count, NULL, NULL);
	if (open)
		failed += _cmocka_run_group_tests(
			"jit: known open", getenv("MINI_OPEN") ? known_open : skipped, open, NULL, NULL);
	return failed;
}

#endif
