/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fuzz target: guest code under the interpreter, in all modes, with tables it can overwrite. The host must survive it
 * and come back when a request is made. tools/run-fuzz builds and runs it.
 *
 * Input: one byte of mode and privilege, one of flags, 16 of register seeds, the rest is code at CODE.
 */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cpu/interp/interp.h"

#define RAM_SIZE (1u << 20)
#define CODE 0x8ff0u /* so that most programs cross a page */

enum { GDT_AT = 0x1000, IDT_AT = 0x2000, TSS_AT = 0x3000, PML4_AT = 0x4000, PDPT_AT = 0x5000, STACK_AT = 0x7000 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerInitialize(int *argc, char ***argv);

static struct machine m;
static struct cpus cpus;
static struct mem_region ram_region;
static struct ram *ram;

/* Every millisecond someone wants something. */
static void *
nag(void *arg)
{
	for (;;) {
		usleep(1000);
		cpus.cpu[0]->requests |= REQ_STOP;
	}
	return NULL;
}

int
LLVMFuzzerInitialize(int *argc, char ***argv)
{
	struct cpu_options o = { .count = 1, .model = "host" };
	struct err e = { 0 };
	pthread_t t;

	if (machine_open(&m, "fuzz"))
		abort();
	ram = ram_create(&m.mem, "ram", RAM_SIZE);
	ram_region =
		(struct mem_region){ .name = "ram", .kind = MEM_RAM, .enabled = true, .size = RAM_SIZE, .ram = ram };
	mem_add(&m.mem, &ram_region);
	mem_update(&m.mem);
	if (cpus_open(&cpus, &m, &cpu_engine_interp, &o, &e))
		abort();
	pthread_create(&t, NULL, nag, NULL);
	return 0;
}

static void
put64(unsigned at, uint64_t v)
{
	memcpy(ram->host + at, &v, 8);
}

static void
make_tables(bool wide)
{
	static const uint64_t gdt[] = { 0, 0x00cf9b000000ffff, 0x00cf93000000ffff, 0x00cffb000000ffff,
		0x00cff3000000ffff, 0x00af9b000000ffff, 0x00affb000000ffff, 0x00009b000000ffff, 0x000093000000ffff,
		0x00008b0030000000 | 103 };

	for (unsigned i = 0; i < sizeof(gdt) / 8; i++)
		put64(GDT_AT + 8 * i, gdt[i]);
	for (unsigned v = 0; v < 256; v++) {
		if (wide)
			put64(IDT_AT + 16 * (v & 31), CODE | 0x28ull << 16 | 0xee00ull << 32);
		else
			put64(IDT_AT + 8 * v, CODE | 0x08ull << 16 | 0xee00ull << 32);
	}
	put64(TSS_AT + 4, STACK_AT);
	put64(TSS_AT + 8, 0x10);
	put64(PML4_AT, PDPT_AT | 7);
	put64(PDPT_AT, 0x87);
}

/* 0 real, 1 vm86, 2 and 3 protected 16 and 32 bits, 4 long, 5 compatibility */
static void
enter_mode(struct x86_state *s, unsigned mode, unsigned cpl)
{
	bool lm = mode >= 4;
	uint32_t dpl = cpl << 5;

	if (mode == 0) {
		for (int i = SEG_ES; i <= SEG_GS; i++)
			s->seg[i] = (struct x86_seg){ .attr = i == SEG_CS ? 0x9b : 0x93, .limit = 0xffff };
		s->idt = (struct x86_table){ .limit = 0x3ff };
		return;
	}
	s->cr0 = CR0_PE | CR0_NE | CR0_ET | (lm ? CR0_PG : 0);
	s->gdt = (struct x86_table){ GDT_AT, 0xff };
	s->idt = (struct x86_table){ IDT_AT, 0x7ff };
	s->seg[SEG_TR] = (struct x86_seg){ .sel = 0x48, .attr = 0x8b, .base = TSS_AT, .limit = 103 };
	for (int i = SEG_ES; i <= SEG_GS; i++)
		s->seg[i] = (struct x86_seg){ .sel = (uint16_t)(cpl ? 0x23 : 0x10),
			.attr = (mode == 2 ? 0x93 : 0xc093) | dpl,
			.limit = mode == 2 ? 0xffff : UINT32_MAX };
	s->seg[SEG_CS].sel = (uint16_t)(cpl ? 0x1b : 0x08);
	s->seg[SEG_CS].attr = (mode == 2 ? 0x9b : mode == 4 ? 0xa09b : 0xc09b) | dpl;
	if (lm) {
		s->cr3 = PML4_AT;
		s->cr4 = CR4_PAE | CR4_OSFXSR | CR4_OSXMMEXCPT | CR4_OSXSAVE | CR4_FSGSBASE;
		s->efer = EFER_LME | EFER_LMA | EFER_SCE | EFER_NXE;
		s->xcr0 = 7;
	}
	if (mode == 1) {
		s->rflags |= FLAG_VM | FLAG_IOPL;
		for (int i = SEG_ES; i <= SEG_GS; i++)
			s->seg[i] = (struct x86_seg){ .attr = 0xf3, .limit = 0xffff };
	}
}

/* Some single steps, then until someone stops it. */
static void
execute(struct vcpu *v, int vector)
{
	for (int i = 0; i < 40; i++)
		if (interp_step((struct interp_cpu *)v) == INTERP_SHUTDOWN)
			return;
	while (!(v->requests & REQ_STOP)) {
		if (v->engine->run(v) == CPU_EXIT_SHUTDOWN)
			return;
		if (v->engine->can_inject(v))
			v->engine->inject(v, vector, false);
	}
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct vcpu *v = cpus.cpu[0];
	struct x86_state *s = &v->state;
	unsigned mode;

	if (size < 20)
		return 0;
	mode = data[0] % 6;
	memset(ram->host, 0, RAM_SIZE);
	make_tables(mode >= 4);
	memcpy(ram->host + CODE, data + 18, size - 18);
	mem_written(&m.mem, 0, RAM_SIZE);
	x86_reset_state(s, &cpus.model, true);
	for (int r = 0; r < 16; r++)
		s->gpr[r] = data[2 + r] & 1 ? (uint64_t)(int8_t)data[2 + r] : (uint64_t)data[2 + r] << 8;
	s->gpr[RSP] = STACK_AT;
	s->rip = CODE;
	s->rflags = 2 | (data[1] & 1 ? FLAG_TF : 0) | (data[1] & 2 ? FLAG_IF : 0) | (data[1] & 4 ? FLAG_DF : 0) |
		    (data[1] & 8 ? FLAG_AC : 0);
	s->dr[7] = data[1] & 16 ? 0xf0f00055 : 0;
	s->dr[0] = CODE + 3;
	s->dr[1] = STACK_AT - 8;
	enter_mode(s, mode, data[0] & 0x80 ? 3 : 0);
	v->engine->put_state(v);
	v->requests = 0;
	execute(v, data[1]);
	v->engine->get_state(v);
	v->engine->flush(v);
	return 0;
}
