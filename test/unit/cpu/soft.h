/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A software CPU in a machine of its own, for tests of cpu/x86/: 16 MiB of RAM from 0, a ROM page and a page of device
 * registers behind it. Flat descriptors are ready in a GDT at GDT_AT, an LDT, an IDT and a TSS have their places; a
 * test fills in what it looks at.
 */
#ifndef TEST_UNIT_CPU_SOFT_H
#define TEST_UNIT_CPU_SOFT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/str.h"
#include "cpu/x86/x86.h"

/* TRY changes no local variable between setjmp() and the throw, so none can be clobbered. */
#pragma GCC diagnostic ignored "-Wclobbered"

#define RAM_SIZE (16u << 20)
#define ROM_AT RAM_SIZE
#define REGS_AT (RAM_SIZE + PAGE_SIZE)
#define NOTHING_AT (RAM_SIZE + 2 * PAGE_SIZE)

enum { GDT_AT = 0x1000, LDT_AT = 0x2000, IDT_AT = 0x3000, TSS_AT = 0x5000, TSS2_AT = 0x6000, STACK_AT = 0x9000 };

/* Selectors of the GDT gdt_default() makes. */
enum {
	SEL_CODE0 = 0x08,
	SEL_DATA0 = 0x10,
	SEL_CODE3 = 0x1b,
	SEL_DATA3 = 0x23,
	SEL_CODE64 = 0x28,
	SEL_USER64 = 0x33,
	SEL_TSS = 0x40, /* 16 bytes */
	SEL_LDT = 0x50, /* 16 bytes */
	SEL_TSS2 = 0x60,
	SEL_CODE16 = 0x70,
	SEL_DATA16 = 0x78,
	SEL_FREE = 0x80, /* for the test */
};

static struct machine machine;
static struct cpus cpus;
static struct soft_cpu *c;
static uint8_t *ram;
static struct mem_region ram_region, rom_region, regs_region;
static int caught; /* by TRY: the vector, -1 if nothing was raised */
static uint64_t regs_last_write, regs_reads, regs_writes;

/* Run a statement; `caught` says what it raised. */
#define TRY(...)                                                                                                       \
	do {                                                                                                           \
		caught = -1;                                                                                           \
		if (!setjmp(c->fault)) {                                                                               \
			__VA_ARGS__;                                                                                   \
		} else {                                                                                               \
			caught = c->exc_vector;                                                                        \
		}                                                                                                      \
	} while (0)
#define FINE(...)                                                                                                      \
	do {                                                                                                           \
		TRY(__VA_ARGS__);                                                                                      \
		assert_int_equal(caught, -1);                                                                          \
	} while (0)
#define RAISES(vector, error, ...)                                                                                     \
	do {                                                                                                           \
		TRY(__VA_ARGS__);                                                                                      \
		assert_int_equal(caught, vector);                                                                      \
		assert_int_equal(c->exc_error, error);                                                                 \
	} while (0)

static inline void
put16(uint64_t at, uint16_t v)
{
	put_le16(ram + at, v);
}
static inline void
put32(uint64_t at, uint32_t v)
{
	put_le32(ram + at, v);
}
static inline void
put64(uint64_t at, uint64_t v)
{
	put_le64(ram + at, v);
}
static inline uint64_t
get64(uint64_t at)
{
	return le64(ram + at);
}
static inline uint32_t
get32(uint64_t at)
{
	return le32(ram + at);
}
static inline uint16_t
get16(uint64_t at)
{
	return le16(ram + at);
}

static uint64_t
regs_read(void *opaque, uint64_t off, unsigned size)
{
	regs_reads++;
	return 0x8877665544332211u >> (8 * (off & 7));
}

static void
regs_write(void *opaque, uint64_t off, uint64_t value, unsigned size)
{
	regs_writes++;
	regs_last_write = value;
}

static const struct bus_ops regs_ops = { .read = regs_read, .write = regs_write, .min_size = 1, .max_size = 8 };

/* `attr` as in struct x86_seg; `limit` in bytes or pages as G says. */
static inline uint64_t
descriptor(uint32_t base, uint32_t limit, uint32_t attr)
{
	uint64_t d = (limit & 0xffff) | (uint64_t)(limit & 0xf0000) << 32;

	d |= (uint64_t)(base & 0xffffff) << 16 | (uint64_t)(base & 0xff000000) << 32;
	return d | (uint64_t)(attr & 0xf0ff) << 40;
}

static inline uint64_t
gate(uint16_t sel, uint32_t off, uint32_t type_dpl_p, uint32_t low5)
{
	uint64_t d = (off & 0xffff) | (uint64_t)sel << 16 | (uint64_t)(off & 0xffff0000) << 32;

	return d | (uint64_t)(type_dpl_p & 0xff) << 40 | (uint64_t)low5 << 32;
}

static inline void
gdt_set(uint16_t sel, uint64_t d)
{
	put64(GDT_AT + (sel & ~7u), d);
}

static inline void
gdt_default(void)
{
	memset(ram + GDT_AT, 0, 0x1000);
	gdt_set(SEL_CODE0, descriptor(0, 0xfffff, 0xc09a));
	gdt_set(SEL_DATA0, descriptor(0, 0xfffff, 0xc092));
	gdt_set(SEL_CODE3, descriptor(0, 0xfffff, 0xc0fa));
	gdt_set(SEL_DATA3, descriptor(0, 0xfffff, 0xc0f2));
	gdt_set(SEL_CODE64, descriptor(0, 0xfffff, 0xa09a));
	gdt_set(SEL_USER64, descriptor(0, 0xfffff, 0xa0fa));
	gdt_set(SEL_TSS, descriptor(TSS_AT, 0x1ff, 0x89));
	gdt_set(SEL_LDT, descriptor(LDT_AT, 0xff, 0x82));
	gdt_set(SEL_TSS2, descriptor(TSS2_AT, 0x1ff, 0x89));
	gdt_set(SEL_CODE16, descriptor(0, 0xffff, 0x9a));
	gdt_set(SEL_DATA16, descriptor(0, 0xffff, 0x92));
	c->v.state.gdt = (struct x86_table){ GDT_AT, 0xfff };
	c->v.state.idt = (struct x86_table){ IDT_AT, 0xfff };
}

static inline void
set_seg(enum seg_name n, uint16_t sel, uint32_t attr)
{
	c->v.state.seg[n] = (struct x86_seg){ .sel = sel, .attr = attr | 1, .limit = 0xffffffff };
}

/* Protected mode at `cpl` without paging, flat; RIP 0x100, RSP STACK_AT. */
static inline void
enter_protected(unsigned cpl)
{
	struct x86_state *s = &c->v.state;
	uint32_t dpl = cpl << 5;

	gdt_default();
	s->cr0 |= CR0_PE;
	set_seg(SEG_CS, cpl ? SEL_CODE3 : SEL_CODE0, 0xc09a | dpl);
	for (int i = 0; i < 6; i++)
		if (i != SEG_CS)
			set_seg((enum seg_name)i, cpl ? SEL_DATA3 : SEL_DATA0, 0xc092 | dpl);
	s->seg[SEG_TR] = (struct x86_seg){ .sel = SEL_TSS, .attr = 0x8b, .limit = 0x1ff, .base = TSS_AT };
	s->seg[SEG_LDTR] = (struct x86_seg){ .sel = SEL_LDT, .attr = 0x82, .limit = 0xff, .base = LDT_AT };
	gdt_set(SEL_TSS, descriptor(TSS_AT, 0x1ff, 0x8b));
	s->rip = 0x100;
	c->next_rip = 0x102;
	s->gpr[RSP] = STACK_AT;
	x86_update_mode(c);
}

/* 64-bit mode with the first 1 GiB mapped to itself by one large page at tables 0x100000. */
static inline void
enter_long(unsigned cpl)
{
	struct x86_state *s = &c->v.state;

	enter_protected(cpl);
	put64(0x100000, 0x101000 | 7);
	put64(0x101000, 0x87);
	s->cr3 = 0x100000;
	s->cr4 |= CR4_PAE;
	s->efer |= EFER_LME | EFER_LMA | EFER_SCE | EFER_NXE;
	s->cr0 |= CR0_PG;
	set_seg(SEG_CS, cpl ? SEL_USER64 : SEL_CODE64, 0xa09a | cpl << 5);
	x86_tlb_flush(c, true);
	x86_update_mode(c);
}

static int
soft_open(const char *model)
{
	struct ram *r, *rom;

	if (machine_open(&machine, "test"))
		return -1;
	r = ram_create(&machine.mem, "ram", RAM_SIZE);
	rom = ram_create(&machine.mem, "rom", PAGE_SIZE);
	ram = r->host;
	memset(rom->host, 0x5a, PAGE_SIZE);
	ram_region = (struct mem_region){ .name = "ram", .kind = MEM_RAM, .enabled = true, .size = RAM_SIZE, .ram = r };
	rom_region = (struct mem_region){
		.name = "rom", .kind = MEM_ROM, .enabled = true, .base = ROM_AT, .size = PAGE_SIZE, .ram = rom
	};
	regs_region = (struct mem_region){
		.name = "regs", .kind = MEM_MMIO, .enabled = true, .base = REGS_AT, .size = PAGE_SIZE, .ops = &regs_ops
	};
	mem_add(&machine.mem, &ram_region);
	mem_add(&machine.mem, &rom_region);
	mem_add(&machine.mem, &regs_region);
	mem_update(&machine.mem);
	memset(&cpus, 0, sizeof(cpus));
	cpus.m = &machine;
	cpus.count = 1;
	x86_model_init(&cpus.model, model, true, 1, 2000000000);
	c = aligned_alloc(64, (sizeof(*c) + 63) & ~(size_t)63);
	memset(c, 0, sizeof(*c));
	c->v.m = &machine;
	c->v.cpus = &cpus;
	cpus.cpu[0] = &c->v;
	x86_reset_state(&c->v.state, &cpus.model, true);
	x86_soft_open(c);
	regs_reads = regs_writes = 0;
	return 0;
}

static int
setup(void **state)
{
	return soft_open("host");
}

static int
teardown(void **state)
{
	x86_soft_close(c);
	free(c);
	machine_close(&machine);
	return 0;
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

#endif
