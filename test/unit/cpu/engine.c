/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What every engine promises through struct cpu_engine and cpu/cpu.c, with guests of a few bytes in real mode. The kvm
 * engine is tested wherever /dev/kvm opens, also where its probe finds it too slow for real use.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <cpuid.h>
#include <unistd.h>

#include "bus/machine.h"
#include "cpu/cpu.h"
#include "cpu/x86/x86.h"

#define RAM_SIZE (1u << 20)
#define MMIO_AT 0xd0000u
#define ROM_AT 0xe0000u
#define CODE_AT 0x1000u
#define SEEN_MAX 16

struct fixture {
	struct machine m;
	struct cpus cpus;
	struct ram *ram, *rom;
	struct mem_region ram_region, rom_region, mmio_region;
	uint64_t seen[SEEN_MAX]; /* what was written to ports, in order */
	unsigned seen_count, mmio_reads, acks;
	uint64_t mmio_written, msr_value;
	uint32_t msr_written;
	uint8_t cr8;
	bool raise_on_out;     /* an OUT asserts the interrupt line */
	bool raise_on_missing; /* so does reading an MSR that is not there */
	_Atomic int event;     /* 1 + enum machine_event */
};

/* ---- devices ---- */

static uint64_t
port_read(void *opaque, uint64_t off, unsigned size)
{
	return 0x5a + off;
}

static void
port_write(void *opaque, uint64_t off, uint64_t value, unsigned size)
{
	struct fixture *f = opaque;

	if (f->seen_count < SEEN_MAX)
		f->seen[f->seen_count++] = value;
	if (f->raise_on_out)
		f->m.intc.cpu[0].signal(f->m.intc.cpu[0].opaque, CPU_INTR, 1);
}

static uint64_t
mmio_read(void *opaque, uint64_t off, unsigned size)
{
	((struct fixture *)opaque)->mmio_reads++;
	return 0xabcd0000 | off;
}

static void
mmio_write(void *opaque, uint64_t off, uint64_t value, unsigned size)
{
	((struct fixture *)opaque)->mmio_written = value | off << 32;
}

static const struct bus_ops port_ops = { .read = port_read, .write = port_write };
static const struct bus_ops mmio_ops = { .read = mmio_read, .write = mmio_write };

static int
lapic_ack(void *opaque)
{
	struct fixture *f = opaque;

	f->acks++;
	f->m.intc.cpu[0].signal(f->m.intc.cpu[0].opaque, CPU_INTR, 0);
	return 0x40;
}

static bool
lapic_msr_read(void *opaque, uint32_t msr, uint64_t *value)
{
	struct fixture *f = opaque;

	if (msr == 0x8ff && f->raise_on_missing)
		f->m.intc.cpu[0].signal(f->m.intc.cpu[0].opaque, CPU_INTR, 1);
	*value = f->msr_value;
	return msr != 0x8ff;
}

static bool
lapic_msr_write(void *opaque, uint32_t msr, uint64_t value)
{
	struct fixture *f = opaque;

	f->msr_written = msr;
	f->msr_value = value;
	return true;
}

static uint8_t
lapic_get_cr8(void *opaque)
{
	return ((struct fixture *)opaque)->cr8;
}

static void
lapic_set_cr8(void *opaque, uint8_t value)
{
	((struct fixture *)opaque)->cr8 = value;
}

static void
on_event(void *opaque, enum machine_event what, int status)
{
	((struct fixture *)opaque)->event = 1 + (int)what;
}

/* ---- a machine ---- */

static const struct cpu_engine *engine; /* of the group that runs */

static void
add_region(struct fixture *f, struct mem_region *r, enum mem_kind kind, gpa_t base, uint64_t size, struct ram *ram)
{
	*r = (struct mem_region){ .name = "test",
		.kind = kind,
		.enabled = true,
		.priority = base ? 1 : 0,
		.base = base,
		.size = size,
		.ram = ram,
		.ops = kind == MEM_MMIO ? &mmio_ops : NULL,
		.opaque = f };
	mem_add(&f->m.mem, r);
}

static int
setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));
	struct cpu_options o = { .count = 1 };
	struct lapic_port lapic = { .opaque = f,
		.ack = lapic_ack,
		.msr_read = lapic_msr_read,
		.msr_write = lapic_msr_write,
		.get_cr8 = lapic_get_cr8,
		.set_cr8 = lapic_set_cr8,
		.base = 0xfee00900 };
	struct x86_state *s;
	struct err e = { 0 };

	assert_int_equal(machine_open(&f->m, "test"), 0);
	f->m.event = on_event;
	f->m.event_opaque = f;
	f->ram = ram_create(&f->m.mem, "ram", RAM_SIZE);
	f->rom = ram_create(&f->m.mem, "rom", PAGE_SIZE);
	machine_lock(&f->m);
	add_region(f, &f->ram_region, MEM_RAM, 0, RAM_SIZE, f->ram);
	add_region(f, &f->rom_region, MEM_ROM, ROM_AT, PAGE_SIZE, f->rom);
	add_region(f, &f->mmio_region, MEM_MMIO, MMIO_AT, PAGE_SIZE, NULL);
	mem_update(&f->m.mem);
	io_add(&f->m.io, 0x10, 8, &port_ops, f);
	f->m.intc.lapic[0] = lapic;
	clock_start(&f->m.clock);
	machine_unlock(&f->m);
	if (cpus_open(&f->cpus, &f->m, engine, &o, &e))
		fail_msg("%s", e.text);
	s = &f->cpus.cpu[0]->state;
	s->seg[SEG_CS].sel = 0;
	s->seg[SEG_CS].base = 0;
	s->rip = CODE_AT;
	s->gpr[RSP] = 0x900;
	*state = f;
	return 0;
}

static int
teardown(void **state)
{
	struct fixture *f = *state;

	cpus_close(&f->cpus);
	machine_close(&f->m);
	free(f);
	return 0;
}

#define GUEST(f, at, ...)                                                                                              \
	memcpy((f)->ram->host + (at), (const uint8_t[]){ __VA_ARGS__ }, sizeof((const uint8_t[]){ __VA_ARGS__ }))

static uint32_t
word_at(struct fixture *f, uint32_t at)
{
	uint32_t v;

	memcpy(&v, f->ram->host + at, 4);
	return v;
}

static void
go(struct fixture *f)
{
	struct err e;

	assert_int_equal(cpus_start(&f->cpus, &e), 0);
	cpus_resume(&f->cpus);
}

static void
wait_for_halt(struct fixture *f)
{
	for (int i = 0; i < 20000 && f->cpus.cpu[0]->run_state != VCPU_HALT; i++)
		usleep(100);
	assert_int_equal(f->cpus.cpu[0]->run_state, VCPU_HALT);
}

static void
wait_for_word(struct fixture *f, uint32_t at, uint16_t value)
{
	for (int i = 0; i < 20000 && (uint16_t)word_at(f, at) != value; i++)
		usleep(100);
	assert_int_equal((uint16_t)word_at(f, at), value);
}

/* ---- tests ---- */

static void
ports_and_registers_in_memory_are_reached_in_every_way(void **state)
{
	struct fixture *f = *state;

	GUEST(f, CODE_AT, 0xb8, 0x34, 0x12,			      /* mov ax, 0x1234 */
		0xe7, 0x10,					      /* out 0x10, ax */
		0xe4, 0x11,					      /* in al, 0x11 */
		0xa2, 0x00, 0x05,				      /* mov [0x500], al */
		0xbe, 0x00, 0x06, 0xb9, 0x04, 0x00,		      /* mov si, 0x600; mov cx, 4 */
		0xba, 0x10, 0x00, 0xfc, 0xf3, 0x6f,		      /* mov dx, 0x10; cld; rep outsw */
		0xbf, 0x00, 0x07, 0xb9, 0x04, 0x00,		      /* mov di, 0x700; mov cx, 4 */
		0xba, 0x14, 0x00, 0xf3, 0x6c,			      /* mov dx, 0x14; rep insb */
		0xb8, 0x00, 0xd0, 0x8e, 0xd8,			      /* mov ax, 0xd000; mov ds, ax */
		0x66, 0xc7, 0x06, 0x10, 0x00, 0x44, 0x33, 0x22, 0x11, /* mov dword [0x10], 0x11223344 */
		0x66, 0xa1, 0x20, 0x00,				      /* mov eax, [0x20] */
		0x31, 0xc9, 0x8e, 0xd9,				      /* xor cx, cx; mov ds, cx */
		0x66, 0xa3, 0x10, 0x05,				      /* mov [0x510], eax */
		0xf4, 0xeb, 0xfd);				      /* hlt; jmp back */
	GUEST(f, 0x600, 1, 2, 3, 4, 5, 6, 7, 8);
	go(f);
	wait_for_halt(f);
	cpus_pause(&f->cpus);
	assert_int_equal(f->seen_count, 5);
	assert_int_equal(f->seen[0], 0x1234);
	assert_int_equal(f->seen[1], 0x0201);
	assert_int_equal(f->seen[4], 0x0807);
	assert_int_equal((uint8_t)word_at(f, 0x500), 0x5b);
	assert_int_equal(word_at(f, 0x700), 0x5e5e5e5e);
	assert_int_equal(f->mmio_written, 0x1011223344);
	assert_int_equal(word_at(f, 0x510), 0xabcd0020);
	assert_int_equal(f->mmio_reads, 1);
	assert_int_equal(f->cpus.cpu[0]->state.gpr[RCX] & 0xffff, 0);
}

static void
interrupts_wait_for_if_and_wake_a_halted_cpu(void **state)
{
	struct fixture *f = *state;

	f->raise_on_out = true;
	GUEST(f, 0x40 * 4, 0x00, 0x11, 0, 0); /* vector 0x40 -> 0:0x1100 */
	GUEST(f, 2 * 4, 0x00, 0x12, 0, 0);    /* NMI -> 0:0x1200 */
	GUEST(f, 0x1100, 0xa1, 0x02, 0x05, 0xa3, 0x04, 0x05, 0xff, 0x06, 0x00, 0x05, 0xcf);
	/* mov ax, [0x502]; mov [0x504], ax; inc word [0x500]; iret */
	GUEST(f, 0x1200, 0xff, 0x06, 0x06, 0x05, 0xcf); /* inc word [0x506]; iret */
	GUEST(f, CODE_AT, 0xfa, 0xe6, 0x10,		/* cli; out 0x10, al */
		0xb9, 0xe8, 0x03, 0xe2, 0xfe,		/* mov cx, 1000; loop $ */
		0xc7, 0x06, 0x02, 0x05, 0x77, 0x00,	/* mov word [0x502], 0x77 */
		0xfb, 0xf4, 0xeb, 0xfd);		/* sti; hlt; jmp to hlt */
	go(f);
	wait_for_word(f, 0x500, 1);
	assert_int_equal((uint16_t)word_at(f, 0x504), 0x77);
	wait_for_halt(f);
	machine_lock(&f->m);
	f->m.intc.cpu[0].signal(f->m.intc.cpu[0].opaque, CPU_INTR, 1);
	machine_unlock(&f->m);
	wait_for_word(f, 0x500, 2);
	machine_lock(&f->m);
	f->m.intc.cpu[0].signal(f->m.intc.cpu[0].opaque, CPU_NMI, 0);
	machine_unlock(&f->m);
	wait_for_word(f, 0x506, 1);
	for (uint16_t i = 3; i < 200; i++) {
		machine_lock(&f->m);
		f->m.intc.cpu[0].signal(f->m.intc.cpu[0].opaque, CPU_INTR, 1);
		machine_unlock(&f->m);
		wait_for_word(f, 0x500, i);
	}
}

/* Before it watches for one, while it does, while it goes to sleep, and asleep. */
static void
an_interrupt_at_any_moment_of_a_halt_is_taken(void **state)
{
	struct fixture *f = *state;

	GUEST(f, 0x40 * 4, 0x00, 0x11, 0, 0);		/* vector 0x40 -> 0:0x1100 */
	GUEST(f, 0x1100, 0xff, 0x06, 0x00, 0x05, 0xcf); /* inc word [0x500]; iret */
	GUEST(f, CODE_AT, 0xfb, 0xf4, 0xeb, 0xfd);	/* sti; hlt; jmp to hlt */
	go(f);
	wait_for_halt(f);
	for (uint16_t i = 1; i < 4000; i++) {
		uint64_t until = loop_now() + i * 37u % 120u * 1000u;

		while (loop_now() < until)
			;
		machine_lock(&f->m);
		f->m.intc.cpu[0].signal(f->m.intc.cpu[0].opaque, CPU_INTR, 1);
		machine_unlock(&f->m);
		until = loop_now() + 2000000000u;
		while ((uint16_t)word_at(f, 0x500) != i && loop_now() < until)
			;
		assert_int_equal((uint16_t)word_at(f, 0x500), i);
	}
}

static void
a_busy_cpu_stops_when_asked_and_goes_on_where_it_was(void **state)
{
	struct fixture *f = *state;

	GUEST(f, CODE_AT, 0xff, 0x06, 0x00, 0x05, 0xeb, 0xfa); /* inc word [0x500]; jmp back */
	go(f);
	for (int i = 0; i < 50; i++) {
		uint32_t before;

		usleep(500);
		cpus_pause(&f->cpus);
		before = word_at(f, 0x500);
		assert_in_range(f->cpus.cpu[0]->state.rip, CODE_AT, CODE_AT + 4);
		usleep(200);
		assert_int_equal(word_at(f, 0x500), before);
		cpus_resume(&f->cpus);
	}
}

static void
the_whole_state_goes_in_and_comes_out(void **state)
{
	struct fixture *f = *state;
	struct vcpu *v = f->cpus.cpu[0];
	struct x86_state want;

	for (unsigned i = 0; i < 16; i++)
		v->state.gpr[i] = 0x0101010101010101ull * (i + 1);
	v->state.xcr0 = f->cpus.model.xcr0_supported ? f->cpus.model.xcr0_supported : 1;
	for (unsigned i = 0; i < 32; i++)
		for (unsigned j = 0; j < 64; j++)
			if ((v->state.xcr0 & 0xe0) == 0xe0 || (i < 16 && j < (v->state.xcr0 & 4 ? 32 : 16)))
				v->state.zmm[i][j] = (uint8_t)(i * 64 + j);
	for (unsigned i = 0; i < 8; i++) {
		v->state.k[i] = v->state.xcr0 & 0x20 ? 0x1111111111111111ull * i : 0;
		for (unsigned j = 0; j < 10; j++)
			v->state.x87.st[i][j] = (uint8_t)(0x80 + i + j);
	}
	v->state.x87.fcw = 0x27f;
	v->state.x87.fsw = 0x1800;
	v->state.x87.ftw = 0x3c;
	v->state.x87.mxcsr = 0x1fa0;
	for (unsigned i = 0; i < 4; i++)
		v->state.dr[i] = 0x1000 * (i + 1);
	v->state.lstar = 0xffffffff81000000;
	v->state.star = 0x0023001000000000;
	v->state.kernel_gs_base = 0x1234567;
	v->state.sysenter_eip = 0xc0001000;
	v->state.seg[SEG_FS] = (struct x86_seg){ .sel = 0x1234, .base = 0x12340, .limit = 0xffff, .attr = 0x93 };
	want = v->state;
	GUEST(f, CODE_AT, 0xf4, 0xeb, 0xfd); /* hlt */
	go(f);
	wait_for_halt(f);
	cpus_pause(&f->cpus);
	assert_memory_equal(v->state.gpr, want.gpr, sizeof(want.gpr));
	assert_memory_equal(v->state.zmm, want.zmm, sizeof(want.zmm));
	assert_memory_equal(v->state.k, want.k, sizeof(want.k));
	for (unsigned i = 0; i < 8; i++)
		assert_memory_equal(v->state.x87.st[i], want.x87.st[i], 10);
	assert_int_equal(v->state.x87.fcw, want.x87.fcw);
	assert_int_equal(v->state.x87.fsw, want.x87.fsw);
	assert_int_equal(v->state.x87.ftw, want.x87.ftw);
	assert_int_equal(v->state.x87.mxcsr, want.x87.mxcsr);
	assert_memory_equal(v->state.dr, want.dr, 4 * 8);
	assert_int_equal(v->state.lstar, want.lstar);
	assert_int_equal(v->state.star, want.star);
	assert_int_equal(v->state.kernel_gs_base, want.kernel_gs_base);
	assert_int_equal(v->state.sysenter_eip, want.sysenter_eip);
	assert_int_equal(v->state.rip, want.rip + 1);
	assert_int_equal(v->state.xcr0, want.xcr0);
	assert_int_equal(v->state.seg[SEG_FS].sel, 0x1234);
	assert_int_equal(v->state.seg[SEG_FS].base, 0x12340);
	assert_int_equal(v->state.seg[SEG_CS].attr & 0xff, want.seg[SEG_CS].attr & 0xff);
}

static void
the_local_apics_msrs_are_the_local_apics(void **state)
{
	struct fixture *f = *state;

	GUEST(f, CODE_AT, 0x66, 0xb9, 0xe0, 0x06, 0, 0,	   /* mov ecx, IA32_TSC_DEADLINE */
		0x66, 0xb8, 0x78, 0x56, 0x34, 0x12,	   /* mov eax, 0x12345678 */
		0x66, 0x31, 0xd2, 0x0f, 0x30,		   /* xor edx, edx; wrmsr */
		0x66, 0x31, 0xc0, 0x0f, 0x32,		   /* xor eax, eax; rdmsr */
		0x66, 0xa3, 0x00, 0x05,			   /* mov [0x500], eax */
		0x66, 0xb9, 0x02, 0x08, 0, 0, 0x0f, 0x32,  /* mov ecx, 0x802; rdmsr */
		0x66, 0xa3, 0x04, 0x05,			   /* mov [0x504], eax */
		0x66, 0xb9, 0x1b, 0, 0, 0, 0x0f, 0x32,	   /* mov ecx, IA32_APIC_BASE; rdmsr */
		0x66, 0xa3, 0x08, 0x05, 0xf4, 0xeb, 0xfd); /* mov [0x508], eax; hlt */
	go(f);
	wait_for_halt(f);
	assert_int_equal(f->msr_written, 0x6e0);
	assert_int_equal(word_at(f, 0x500), 0x12345678);
	assert_int_equal(word_at(f, 0x504), 0x12345678);
	assert_int_equal(word_at(f, 0x508), 0x12345678);
}

static void
a_register_that_is_not_there_is_a_general_protection_fault(void **state)
{
	struct fixture *f = *state;

	GUEST(f, 13 * 4, 0x00, 0x11, 0, 0);
	GUEST(f, 0x1100, 0xc6, 0x06, 0x00, 0x05, 0x33, 0xf4, 0xeb, 0xfd); /* mov byte [0x500], 0x33; hlt */
	GUEST(f, CODE_AT, 0x66, 0xb9, 0xff, 0x08, 0, 0, 0x0f, 0x32, 0xf4, 0xeb, 0xfd);
	go(f);
	wait_for_halt(f);
	assert_int_equal((uint8_t)word_at(f, 0x500), 0x33);
}

/* Interrupts that arrive while a register is read that is not there: none is lost to the #GP. */
static void
no_interrupt_is_lost_to_an_exception(void **state)
{
	struct fixture *f = *state;

	GUEST(f, 13 * 4, 0x80, 0x11, 0, 0);
	GUEST(f, 0x40 * 4, 0x00, 0x11, 0, 0);
	GUEST(f, 0x1100, 0xff, 0x06, 0x00, 0x05, 0xcf);		    /* inc word [0x500]; iret */
	GUEST(f, 0x1180, 0x83, 0xc4, 0x02, 0x68, 0x0a, 0x10, 0xcf); /* add sp, 2; push 0x100a; iret */
	GUEST(f, CODE_AT, 0x66, 0xb9, 0xff, 0x08, 0, 0, 0xfb,	    /* mov ecx, 0x8ff; sti */
		0x90, 0x0f, 0x32,				    /* 1007: nop; rdmsr */
		0xff, 0x06, 0x02, 0x05,				    /* 100a: inc word [0x502] */
		0x81, 0x3e, 0x02, 0x05, 0x2c, 0x01,		    /* cmp word [0x502], 300 */
		0x75, 0xf1, 0xf4, 0xeb, 0xfd);			    /* jne 1007; hlt */
	f->raise_on_missing = true;
	go(f);
	wait_for_halt(f);
	assert_int_equal((uint16_t)word_at(f, 0x502), 300);
	assert_true(f->acks > 0);
	assert_int_equal((uint16_t)word_at(f, 0x500), f->acks);
}

static void
a_triple_fault_is_an_event_of_the_machine(void **state)
{
	struct fixture *f = *state;

	GUEST(f, CODE_AT, 0x0f, 0x01, 0x1e, 0x00, 0x06, 0x0f, 0x0b); /* lidt [0x600] (all zero); ud2 */
	go(f);
	for (int i = 0; i < 20000 && !f->event; i++)
		usleep(100);
	assert_int_equal(f->event, 1 + MACHINE_TRIPLE_FAULT);
}

static void
writes_to_rom_are_dropped(void **state)
{
	struct fixture *f = *state;

	f->rom->host[0x10] = 0x99;
	GUEST(f, CODE_AT, 0xb8, 0x00, 0xe0, 0x8e, 0xc0,	  /* mov ax, 0xe000; mov es, ax */
		0x26, 0xc6, 0x06, 0x10, 0x00, 0x55,	  /* mov byte es:[0x10], 0x55 */
		0x26, 0xa0, 0x10, 0x00, 0xa2, 0x00, 0x05, /* mov al, es:[0x10]; mov [0x500], al */
		0xf4, 0xeb, 0xfd);
	go(f);
	wait_for_halt(f);
	assert_int_equal(f->rom->host[0x10], 0x99);
	assert_int_equal((uint8_t)word_at(f, 0x500), 0x99);
}

static void
a_change_of_the_memory_map_shows_at_once(void **state)
{
	struct fixture *f = *state;

	f->raise_on_out = false;
	f->ram->host[MMIO_AT + 0x20] = 0x11;
	GUEST(f, CODE_AT, 0xb8, 0x00, 0xd0, 0x8e, 0xc0,	  /* mov ax, 0xd000; mov es, ax */
		0x26, 0xa0, 0x20, 0x00, 0xa2, 0x00, 0x05, /* mov al, es:[0x20]; mov [0x500], al */
		0xfb, 0xf4, 0xeb, 0xf5);		  /* sti; hlt; jmp to the load */
	GUEST(f, 0x40 * 4, 0x00, 0x11, 0, 0);
	GUEST(f, 0x1100, 0xcf);
	go(f);
	wait_for_halt(f);
	assert_int_equal((uint8_t)word_at(f, 0x500), 0x20);
	machine_lock(&f->m);
	f->mmio_region.enabled = false;
	mem_update(&f->m.mem);
	f->m.intc.cpu[0].signal(f->m.intc.cpu[0].opaque, CPU_INTR, 1);
	machine_unlock(&f->m);
	for (int i = 0; i < 20000 && (uint8_t)word_at(f, 0x500) != 0x11; i++)
		usleep(100);
	assert_int_equal((uint8_t)word_at(f, 0x500), 0x11);
}

/* Where the host's is not, KVM corrects the guest's by itself. */
static bool
invariant_tsc(void)
{
	uint32_t a, b, c, d;

	return __get_cpuid(0x80000007, &a, &b, &c, &d) && d >> 8 & 1;
}

static void
the_time_stamp_counter_is_the_clocks(void **state)
{
	struct fixture *f = *state;
	uint64_t before, after, guest, slack = invariant_tsc() ? 0 : f->m.clock.tsc_hz / 50;

	GUEST(f, CODE_AT, 0x0f, 0x31, 0x66, 0xa3, 0x00, 0x05, 0x66, 0x89, 0x16, 0x04, 0x05, 0xf4, 0xeb, 0xfd);
	before = clock_tsc(&f->m.clock);
	go(f);
	wait_for_halt(f);
	after = clock_tsc(&f->m.clock);
	guest = word_at(f, 0x500) | (uint64_t)word_at(f, 0x504) << 32;
	assert_in_range(guest, before > slack ? before - slack : 0, after + slack);
}

static void
cpuid_offers_what_the_model_says(void **state)
{
	struct fixture *f = *state;
	uint32_t want[4];

	GUEST(f, CODE_AT, 0x66, 0xb8, 1, 0, 0, 0, 0x0f, 0xa2,	      /* mov eax, 1; cpuid */
		0x66, 0xa3, 0x00, 0x05, 0x66, 0x89, 0x0e, 0x04, 0x05, /* mov [0x500], eax; mov [0x504], ecx */
		0x66, 0x89, 0x16, 0x08, 0x05, 0xf4, 0xeb, 0xfd);      /* mov [0x508], edx; hlt */
	x86_cpuid_lookup(&f->cpus.model, &f->cpus.cpu[0]->state, 0, 1, true, 1, 0, want);
	go(f);
	wait_for_halt(f);
	assert_int_equal(word_at(f, 0x500), want[0]);
	assert_int_equal(word_at(f, 0x504), want[2]);
	assert_int_equal(word_at(f, 0x508), want[3]);
}

static void
the_dirty_log_has_the_pages_the_guest_wrote(void **state)
{
	struct fixture *f = *state;

	GUEST(f, CODE_AT, 0xc6, 0x06, 0x00, 0x50, 0x01, /* mov byte [0x5000], 1 */
		0xa0, 0x00, 0x60,			/* mov al, [0x6000] */
		0xfb, 0xf4,				/* sti; hlt */
		0xc6, 0x06, 0x00, 0x70, 0x01,		/* mov byte [0x7000], 1 */
		0xf4, 0xeb, 0xfd);
	GUEST(f, 0x40 * 4, 0x00, 0x11, 0, 0);
	GUEST(f, 0x1100, 0xcf);
	machine_lock(&f->m);
	mem_log_start(f->ram, 0, RAM_SIZE);
	machine_unlock(&f->m);
	go(f);
	wait_for_halt(f);
	machine_lock(&f->m);
	mem_log_sync(f->ram);
	assert_int_equal(f->ram->dirty[5], 1);
	assert_int_equal(f->ram->dirty[6], 0);
	mem_log_start(f->ram, 0, RAM_SIZE);
	assert_int_equal(f->ram->dirty[5], 0);
	f->m.intc.cpu[0].signal(f->m.intc.cpu[0].opaque, CPU_INTR, 1);
	machine_unlock(&f->m);
	for (int i = 0; i < 20000 && !f->ram->dirty[7]; i++) {
		usleep(100);
		machine_lock(&f->m);
		mem_log_sync(f->ram);
		machine_unlock(&f->m);
	}
	assert_int_equal(f->ram->dirty[7], 1);
	assert_int_equal(f->ram->dirty[5], 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

static const struct CMUnitTest tests[] = {
	TEST(ports_and_registers_in_memory_are_reached_in_every_way),
	TEST(interrupts_wait_for_if_and_wake_a_halted_cpu),
	TEST(an_interrupt_at_any_moment_of_a_halt_is_taken),
	TEST(a_busy_cpu_stops_when_asked_and_goes_on_where_it_was),
	TEST(the_whole_state_goes_in_and_comes_out),
	TEST(the_local_apics_msrs_are_the_local_apics),
	TEST(a_register_that_is_not_there_is_a_general_protection_fault),
	TEST(no_interrupt_is_lost_to_an_exception),
	TEST(writes_to_rom_are_dropped),
	TEST(a_change_of_the_memory_map_shows_at_once),
	TEST(the_dirty_log_has_the_pages_the_guest_wrote),
};

/* Where KVM's probe finds it emulating instructions, these find out what the emulator leaves out. */
static const struct CMUnitTest exact_tests[] = {
	TEST(a_triple_fault_is_an_event_of_the_machine),
	TEST(the_time_stamp_counter_is_the_clocks),
	TEST(cpuid_offers_what_the_model_says),
};

static int
test_kvm(void)
{
	struct cpu_probe probe = { 0 };
	int failed;

	if (access("/dev/kvm", R_OK | W_OK)) {
		print_message("SKIPPED: the kvm engine: /dev/kvm cannot be opened\n");
		return 0;
	}
	engine = &cpu_engine_kvm;
	failed = cmocka_run_group_tests_name("kvm", tests, NULL, NULL);
	engine->probe(&probe);
	print_message("%s\n", probe.reason);
	if (probe.usable)
		return failed + cmocka_run_group_tests_name("kvm, exact", exact_tests, NULL, NULL);
	print_message("SKIPPED: 3 tests of the kvm engine that need it to be usable\n");
	return failed;
}

int
main(void)
{
	int failed;

	engine = &cpu_engine_interp;
	failed = cmocka_run_group_tests_name("interp", tests, NULL, NULL);
	failed += cmocka_run_group_tests_name("interp, exact", exact_tests, NULL, NULL);
	engine = &cpu_engine_jit;
	failed += cmocka_run_group_tests_name("jit", tests, NULL, NULL);
	failed += cmocka_run_group_tests_name("jit, exact", exact_tests, NULL, NULL);
	return failed + test_kvm();
}
