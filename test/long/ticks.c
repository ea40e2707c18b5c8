/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A guest that checks the ticks of every periodic timer of the board against one counter, while it computes.
 * A multiboot kernel of its own: 64-bit code, no libraries. (Multiboot 0.6.96; Intel SDM 3, chapters 5, 7 and 11;
 * 8259A, 8254, MC146818 data sheets; IA-PC HPET 1.0a)
 *
 * For every tick the handler adds the time since the tick before, in periods of that timer: the fraction that remains
 * is how late the tick is, give or take a constant, and the whole part says how many ticks fell due. What fell due and
 * did not come (the host was busy: an interrupt controller holds one edge) is accounted for by that; but if a timer
 * ever loses or gains a part of a period, its ticks are late or early by that part from then on. All arithmetic is
 * exact: periods are multiples of 1/(10^8 * frequency).
 *
 * Once a second a line goes to the serial port, all in hex:
 *	TICKS counter tsc {name due came part0 ... part15}...
 * counter is the HPET's, part0 to part15 are how many ticks of this second came in which sixteenth of their period.
 */
#include <stdbool.h>
#include <stdint.h>

/* Within the first 8 KiB of the file, which the code is. */
__asm__(".section .text.multiboot, \"ax\"; .balign 4; .long 0x1badb002, 0, -0x1badb002; .text");

#define HPET 0xfed00000
#define IOAPIC 0xfec00000
#define LAPIC 0xfee00000

#define COUNTER_HZ 100000000u
#define SECOND COUNTER_HZ

enum { VECTOR_PIT = 0x20, VECTOR_RTC = 0x28, VECTOR_HPET = 0x30, VECTOR_LAPIC = 0x31, VECTOR_SPURIOUS = 0xff };
enum { PARTS = 16, HPET_PIN = 20, PIT_COUNT = 239, HPET_HZ = 4000, LAPIC_HZ = 8000, RTC_HZ = 1024 };

static uint32_t
mmio_read(uint32_t at)
{
	return *(volatile uint32_t *)(uintptr_t)at;
}

static void
mmio_write(uint32_t at, uint32_t v)
{
	*(volatile uint32_t *)(uintptr_t)at = v;
}

static void
out(uint16_t port, uint8_t v)
{
	__asm__ volatile("outb %0, %1" : : "a"(v), "Nd"(port));
}

static uint8_t
in(uint16_t port)
{
	uint8_t v;

	__asm__ volatile("inb %1, %0" : "=a"(v) : "Nd"(port));
	return v;
}

/* ---- what is known of a timer ---- */

struct timer {
	const char *name;
	uint32_t hz;	 /* of the clock it divides, */
	uint64_t period; /* by this, in units of 1/(COUNTER_HZ * hz) s */
	uint64_t since;	 /* the part of a period that has gone when a tick comes, in the same units */
	uint32_t last;	 /* counter at the last tick */
	uint32_t due, came;
	uint32_t part[PARTS]; /* of this second */
};

static struct timer pit = { .name = "pit", .hz = 1193182, .period = (uint64_t)PIT_COUNT * COUNTER_HZ };
static struct timer rtc = { .name = "rtc", .hz = RTC_HZ, .period = COUNTER_HZ };
static struct timer hpet = { .name = "hpet", .hz = HPET_HZ, .period = COUNTER_HZ };
static struct timer lapic = { .name = "lapic", .hz = LAPIC_HZ, .period = COUNTER_HZ };
static struct timer *const timers[] = { &pit, &rtc, &hpet, &lapic };

static unsigned
part_of(uint64_t since, uint64_t period)
{
	return (unsigned)(since * PARTS / period);
}

static void
tick(struct timer *t)
{
	uint32_t now = mmio_read(HPET + 0xf0), due = 0;

	if (!t->came) {
		t->since = t->period / 2;
		due = 1;
	} else {
		t->since += (uint64_t)(now - t->last) * t->hz;
	}
	for (; t->since >= t->period; due++)
		t->since -= t->period;
	t->last = now;
	t->due += due;
	t->came++;
	t->part[part_of(t->since, t->period)]++;
}

/* ---- interrupts ---- */

struct frame;
#define HANDLER __attribute__((interrupt)) static void

HANDLER
on_pit(struct frame *f)
{
	(void)f;
	tick(&pit);
	out(0x20, 0x20);
}

HANDLER
on_rtc(struct frame *f)
{
	(void)f;
	out(0x70, 0x0c); /* reading register C lets the next one come */
	in(0x71);
	tick(&rtc);
	out(0xa0, 0x20);
	out(0x20, 0x20);
}

HANDLER
on_hpet(struct frame *f)
{
	(void)f;
	tick(&hpet);
	mmio_write(LAPIC + 0xb0, 0);
}

HANDLER
on_lapic(struct frame *f)
{
	(void)f;
	tick(&lapic);
	mmio_write(LAPIC + 0xb0, 0);
}

HANDLER
on_spurious(struct frame *f)
{
	(void)f;
}

static struct {
	uint16_t low, selector, type, middle;
	uint32_t high, reserved;
} idt[256];

static void
set_gate(int vector, void (*fn)(struct frame *))
{
	idt[vector].low = (uint16_t)(uintptr_t)fn;
	idt[vector].selector = 8;
	idt[vector].type = 0x8e00;
	idt[vector].middle = (uint16_t)((uintptr_t)fn >> 16);
}

static void
load_idt(void)
{
	struct __attribute__((packed)) {
		uint16_t limit;
		uint64_t base;
	} i = { sizeof(idt) - 1, (uintptr_t)idt };

	set_gate(VECTOR_PIT, on_pit);
	set_gate(VECTOR_RTC, on_rtc);
	set_gate(VECTOR_HPET, on_hpet);
	set_gate(VECTOR_LAPIC, on_lapic);
	set_gate(VECTOR_SPURIOUS, on_spurious);
	__asm__ volatile("lidt %0" : : "m"(i));
}

/* ---- the board ---- */

static void
start_8259s(void)
{
	out(0x20, 0x11);
	out(0xa0, 0x11);
	out(0x21, VECTOR_PIT);
	out(0xa1, VECTOR_RTC);
	out(0x21, 4);
	out(0xa1, 2);
	out(0x21, 1);
	out(0xa1, 1);
	out(0x21, 0xfa); /* IRQ 0 and the cascade */
	out(0xa1, 0xfe); /* IRQ 8 */
}

static void
start_serial_port(void)
{
	out(0x3fb, 3); /* 8 bits */
}

static void
start_timers(void)
{
	mmio_write(HPET + 0x10, 1);

	out(0x43, 0x34); /* counter 0, both bytes, mode 2 */
	out(0x40, PIT_COUNT & 0xff);
	out(0x40, PIT_COUNT >> 8);

	out(0x70, 0x0a);
	out(0x71, 0x26); /* 32768 Hz, 1024 ticks a second */
	out(0x70, 0x0b);
	out(0x71, 0x42); /* 24 hours, periodic interrupt */

	mmio_write(IOAPIC, 0x10 + 2 * HPET_PIN);
	mmio_write(IOAPIC + 0x10, VECTOR_HPET);
	mmio_write(IOAPIC, 0x11 + 2 * HPET_PIN);
	mmio_write(IOAPIC + 0x10, 0);
	mmio_write(
		HPET + 0x100, HPET_PIN << 9 | 1 << 8 | 1 << 6 | 1 << 3 | 1 << 2); /* 32 bits, set value, periodic, on */
	mmio_write(HPET + 0x108, mmio_read(HPET + 0xf0) + SECOND / HPET_HZ);
	mmio_write(HPET + 0x108, SECOND / HPET_HZ);

	mmio_write(LAPIC + 0xf0, 0x100 | VECTOR_SPURIOUS);
	mmio_write(LAPIC + 0x350, 0x700); /* LINT0: the 8259s */
	mmio_write(LAPIC + 0x3e0, 0xb);	  /* not divided: nanoseconds */
	mmio_write(LAPIC + 0x320, 1 << 17 | VECTOR_LAPIC);
	mmio_write(LAPIC + 0x380, 1000000000 / LAPIC_HZ);
}

/* ---- what is said ---- */

static void
put(char c)
{
	while (!(in(0x3fd) & 0x20))
		;
	out(0x3f8, (uint8_t)c);
}

static void
put_text(const char *s)
{
	while (*s)
		put(*s++);
}

static void
put_hex(uint64_t v)
{
	bool begun = false;

	put(' ');
	for (int shift = 60; shift >= 0; shift -= 4) {
		unsigned digit = (unsigned)(v >> shift & 15);

		begun |= digit || !shift;
		if (begun)
			put("0123456789abcdef"[digit]);
	}
}

/* The high half changed while the low one was read: once more. */
static uint64_t
counter(void)
{
	uint32_t high, low;

	do {
		high = mmio_read(HPET + 0xf4);
		low = mmio_read(HPET + 0xf0);
	} while (high != mmio_read(HPET + 0xf4));
	return (uint64_t)high << 32 | low;
}

static void
report(void)
{
	static struct timer seen[4];
	uint64_t now, tsc;

	__asm__ volatile("cli");
	now = counter();
	tsc = __builtin_ia32_rdtsc();
	for (int i = 0; i < 4; i++) {
		seen[i] = *timers[i];
		for (int k = 0; k < PARTS; k++)
			timers[i]->part[k] = 0;
	}
	__asm__ volatile("sti");
	put_text("TICKS");
	put_hex(now);
	put_hex(tsc);
	for (int i = 0; i < 4; i++) {
		put(' ');
		put_text(seen[i].name);
		put_hex(seen[i].due);
		put_hex(seen[i].came);
		for (int k = 0; k < PARTS; k++)
			put_hex(seen[i].part[k]);
	}
	put('\n');
}

#ifdef REGISTERS
/* Nothing but accesses to a device, each of which needs the machine's lock. */
static void
compute(void)
{
	for (int i = 0; i < 100000; i++)
		mmio_read(HPET);
}
#else
/* Work for the engine: loads, stores, branches that depend on them. */
static void
compute(void)
{
	static uint32_t m[65536];
	static uint32_t x = 1;

	for (int i = 0; i < 1000000; i++) {
		uint32_t *p = &m[(x = x * 1664525 + 1013904223) >> 16];

		*p = *p & 1 ? *p * 3 + 1 : *p / 2 + x;
	}
}
#endif

__attribute__((used)) static void
run(void)
{
	uint64_t next;

	load_idt();
	start_8259s();
	start_serial_port();
	start_timers();
	__asm__ volatile("sti");
	next = counter() + SECOND;
	for (;;) {
		while (counter() < next)
			compute();
		report();
		next += SECOND;
	}
}

/* From the loader's flat 32-bit mode into 64-bit mode, the first 4 GiB mapped to themselves in pages of 2 MiB. */
__asm__(".section .text.multiboot, \"ax\"\n"
	"	.code32\n"
	"	.globl _start\n"
	"_start: cld\n"
	"	mov $stack + 16384, %esp\n"
	"	mov $0x83, %eax\n" /* present, writable, a page of 2 MiB */
	"	mov $directories, %edi\n"
	"1:	mov %eax, (%edi)\n"
	"	add $8, %edi\n"
	"	add $0x200000, %eax\n"
	"	jnc 1b\n"
	"	movl $directories + 0x0003, pointers\n"
	"	movl $directories + 0x1003, pointers + 8\n"
	"	movl $directories + 0x2003, pointers + 16\n"
	"	movl $directories + 0x3003, pointers + 24\n"
	"	movl $pointers + 3, top\n"
	"	mov $top, %eax\n"
	"	mov %eax, %cr3\n"
	"	mov $0x20, %eax\n" /* PAE */
	"	mov %eax, %cr4\n"
	"	mov $0xc0000080, %ecx\n" /* EFER.LME */
	"	rdmsr\n"
	"	or $0x100, %eax\n"
	"	wrmsr\n"
	"	mov %cr0, %eax\n"
	"	or $0x80000001, %eax\n"
	"	mov %eax, %cr0\n"
	"	lgdt gdt_pointer\n"
	"	ljmp $8, $2f\n"
	"	.code64\n"
	"2:	xor %eax, %eax\n"
	"	mov %eax, %ds\n"
	"	mov %eax, %es\n"
	"	mov %eax, %ss\n"
	"	call run\n"
	"	.balign 8\n"
	"gdt:	.quad 0, 0x00af9a000000ffff\n"
	"gdt_pointer: .word 15; .long gdt\n"
	"	.comm stack, 16384, 16\n"
	"	.comm directories, 16384, 4096\n"
	"	.comm pointers, 4096, 4096\n"
	"	.comm top, 4096, 4096\n"
	"	.text");
