/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One instruction twice from the same state: bare, in a little frame that loads and stores all registers, and through
 * vec_run() on a software CPU whose page tables map the same linear addresses with the same permissions (VA: hole, two
 * pages that can be written, one that can be read, hole). What differs is printed.
 */
#ifndef TEST_UNIT_CPU_BARE_H
#define TEST_UNIT_CPU_BARE_H

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <cpuid.h>
#include <sys/mman.h>
#include <time.h>
#include <ucontext.h>

#include <Zydis/Zydis.h>

#include "bus/machine.h"
#include "cpu/x86/x86.h"

#define ALL_FLAGS (FLAG_CF | FLAG_PF | FLAG_AF | FLAG_ZF | FLAG_SF | FLAG_OF)

/* Linear addresses: hole, RW, RW, RO, hole; the guest's RAM has the three pages at PAGES. */
#define VA 0x10000000ull
#define VA_PAGES 5
#define PAGES 0x10000u
#define ROOT 0x1000u
#define RAM_SIZE (1u << 20)

/* ---- random ---- */

static uint64_t seed;

static inline uint64_t
rnd(void)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return seed * 0x2545f4914f6cdd1dull;
}

static inline unsigned
below(unsigned n)
{
	return (unsigned)((rnd() >> 32) % n);
}

static inline bool
chance(unsigned percent)
{
	return below(100) < percent;
}

/* ---- the bare side ---- */

/* Linux's selectors for user code and data. */
enum { CS32 = 0x23, CS64 = 0x33, DS32 = 0x2b };

struct frame { /* RIP-relative from the code behind it */
	uint64_t gpr[16], rflags;
	uint8_t xsave[4096] __attribute__((aligned(64)));
	uint64_t host_rsp, low_rsp;
	uint8_t stack[65536]; /* below 4 GiB: 32-bit code loses the upper half of RSP, and a signal needs a stack */
	struct {
		uint32_t offset;
		uint16_t selector;
	} __attribute__((packed)) far_pointer;
	uint8_t code[1024];
};

static const int signals[4] = { SIGSEGV, SIGBUS, SIGILL, SIGFPE };
static struct frame *frame;
static bool narrow;    /* the instruction runs in 32-bit code (compatibility mode) */
static uint8_t *after; /* where a fault in the instruction goes on */
static uint8_t *insn_start;
static volatile int bare_signal;
static volatile uint64_t bare_address;
static volatile int bare_code;
static uint32_t component[8];
static uint64_t components;

static inline void
on_signal(int sig, siginfo_t *info, void *context)
{
	ucontext_t *uc = context;

	if ((uint8_t *)uc->uc_mcontext.gregs[REG_RIP] != insn_start) {
		fprintf(stderr, "signal %d at %p, address %p\n", sig, (void *)uc->uc_mcontext.gregs[REG_RIP],
			info->si_addr);
		_exit(99);
	}
	bare_signal = sig;
	bare_address = (uint64_t)info->si_addr;
	bare_code = info->si_code;
	uc->uc_mcontext.gregs[REG_RIP] = (greg_t)after;
	uc->uc_mcontext.gregs[REG_CSGSFS] = (uc->uc_mcontext.gregs[REG_CSGSFS] & ~0xffffll) | CS64;
	uc->uc_mcontext.gregs[REG_EFL] &= ~0x10000ll;
}

static inline uint8_t *
rip_operand(uint8_t *p, unsigned reg, void *target, unsigned imm_bytes)
{
	int32_t d;

	*p++ = (uint8_t)(5 | (reg & 7) << 3);
	d = (int32_t)((uint8_t *)target - (p + 4 + imm_bytes));
	memcpy(p, &d, 4);
	return p + 4;
}

static inline uint8_t *
move(uint8_t *p, bool store, unsigned reg, void *target)
{
	*p++ = (uint8_t)(0x48 | (reg >= 8 ? 4 : 0));
	*p++ = store ? 0x89 : 0x8b;
	return rip_operand(p, reg, target, 0);
}

static inline uint8_t *
bytes(uint8_t *p, const char *s, unsigned n)
{
	memcpy(p, s, n);
	return p + n;
}

static inline uint8_t *
set_segments(uint8_t *p, uint8_t selector)
{
	*p++ = 0xb8; /* mov eax, selector; mov ds, eax; mov es, eax */
	*p++ = selector;
	return bytes(p, "\0\0\0\x8e\xd8\x8e\xc0", 7);
}

static inline void
build_frame(const uint8_t *insn, unsigned len)
{
	uint8_t *p = frame->code;
	uint32_t rfbm = (uint32_t)components;

	p = bytes(p, "\x53\x55\x41\x54\x41\x55\x41\x56\x41\x57", 10);
	p = move(p, true, RSP, &frame->host_rsp);
	*p++ = 0xb8; /* mov eax, rfbm */
	memcpy(p, &rfbm, 4);
	p = bytes(p + 4, "\x31\xd2\x48\x0f\xae", 5); /* xor edx, edx; xrstor64 */
	p = rip_operand(p, 5, frame->xsave, 0);
	p = bytes(p, "\xff", 1); /* push flags; popfq */
	p = rip_operand(p, 6, &frame->rflags, 0);
	*p++ = 0x9d;
	if (narrow)
		p = set_segments(p, DS32);
	for (unsigned i = 0; i < 16; i++)
		if (i != RSP)
			p = move(p, false, i, &frame->gpr[i]);
	if (narrow) {
		frame->low_rsp = (uintptr_t)frame->stack + sizeof(frame->stack) - 64;
		p = move(p, false, RSP, &frame->low_rsp);
		p = bytes(p, "\xff", 1); /* jmp far [far_pointer] */
		p = rip_operand(p, 5, &frame->far_pointer, 0);
		frame->far_pointer.offset = (uint32_t)(uintptr_t)p;
		frame->far_pointer.selector = CS32;
	}
	insn_start = p;
	p = bytes(p, (const char *)insn, len);
	if (narrow) {
		uint32_t back = (uint32_t)(uintptr_t)(p + 7);

		*p++ = 0xea; /* jmp far CS64:back */
		memcpy(p, &back, 4);
		p = bytes(p + 4, "\x33\x00", 2);
	}
	after = p;
	p = move(p, false, RSP, &frame->host_rsp);
	for (unsigned i = 0; i < 16; i++)
		if (i != RSP)
			p = move(p, true, i, &frame->gpr[i]);
	p = bytes(p, "\x9c\x8f", 2); /* pushfq; pop flags */
	p = rip_operand(p, 0, &frame->rflags, 0);
	*p++ = 0xb8;
	memcpy(p, &rfbm, 4);
	p = bytes(p + 4, "\x31\xd2\x48\x0f\xae", 5);
	p = rip_operand(p, 4, frame->xsave, 0);
	if (narrow)
		p = set_segments(p, 0);
	p = bytes(p, "\xdb\xe3\xc5\xf8\x77", 5); /* fninit; vzeroupper */
	p = bytes(p, "\x41\x5f\x41\x5e\x41\x5d\x41\x5c\x5d\x5b\xc3", 11);
	assert_true(p < frame->code + sizeof(frame->code));
}

static inline void
move_state(struct x86_state *s, uint8_t *area, bool put)
{
	static const struct {
		uint8_t id, first, from, size;
	} part[] = { { 1, 0, 0, 16 }, { 2, 0, 16, 16 }, { 6, 0, 32, 32 }, { 7, 16, 0, 64 } };

	memcpy(put ? (void *)area : (void *)&s->x87, put ? (void *)&s->x87 : (void *)area, 160);
	for (unsigned i = 0; i < 4; i++)
		for (unsigned r = 0; r < 16 && components >> part[i].id & 1; r++) {
			uint8_t *reg = s->zmm[part[i].first + r] + part[i].from;
			uint8_t *mem = area + component[part[i].id] + r * part[i].size;
			memcpy(put ? mem : reg, put ? reg : mem, part[i].size);
		}
	if (components & 0x20)
		memcpy(put ? (void *)(area + component[5]) : (void *)s->k,
			put ? (void *)s->k : (void *)(area + component[5]), 64);
}

static inline bool
any(const void *p, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (((const uint8_t *)p)[i])
			return true;
	return false;
}

/* Components that are not in their initial state: the others are loaded as such, so that the host's XINUSE is known. */
static inline uint64_t
in_use(const struct x86_state *s)
{
	uint64_t bv = s->x87.fcw != 0x37f || s->x87.fsw || s->x87.ftw || s->x87.fip || s->x87.fdp || s->x87.fop ||
		      any(s->x87.st, sizeof(s->x87.st));

	for (unsigned i = 0; i < 16; i++) {
		bv |= (uint64_t)any(s->zmm[i], 16) << 1 | (uint64_t)any(s->zmm[i] + 16, 16) << 2;
		bv |= (uint64_t)any(s->zmm[i] + 32, 32) << 6 | (uint64_t)any(s->zmm[16 + i], 64) << 7;
	}
	bv |= (uint64_t)any(s->k, sizeof(s->k)) << 5;
	return bv & components;
}

static inline void
run_bare(struct x86_state *s, const uint8_t *insn, unsigned len)
{
	uint64_t bv;

	memset(frame->xsave, 0, sizeof(frame->xsave));
	move_state(s, frame->xsave, true);
	bv = in_use(s);
	memcpy(frame->xsave + 512, &bv, 8);
	memcpy(frame->gpr, s->gpr, sizeof(frame->gpr));
	frame->rflags = 0x202 | (s->rflags & ALL_FLAGS);
	build_frame(insn, len);
	bare_signal = 0;
	((void (*)(void))(void *)frame->code)();
	__asm__ volatile("ldmxcsr %0" : : "m"((uint32_t){ 0x1f80 }));
	move_state(s, frame->xsave, false);
	for (unsigned i = 0; i < 16; i++)
		if (i != RSP)
			s->gpr[i] = frame->gpr[i];
	s->rflags = (s->rflags & ~(uint64_t)ALL_FLAGS) | (frame->rflags & ALL_FLAGS);
}

static inline void
find_components(void)
{
	uint32_t a, b, c, d, lo, hi;

	__asm__ volatile("xgetbv" : "=a"(lo), "=d"(hi) : "c"(0));
	component[1] = 160;
	components = lo & 0xe7;
	for (unsigned i = 2; i < 8; i++) {
		__cpuid_count(13, i, a, b, c, d);
		component[i] = b;
	}
}

/* ---- the software CPU ---- */

struct fixture {
	struct machine m;
	struct mem_region region;
	struct ram *ram;
	struct cpus cpus;
	struct soft_cpu *c;
	uint8_t *host; /* VA's pages for the bare side */
};

static inline void
put64(struct fixture *f, uint32_t at, uint64_t v)
{
	memcpy(f->ram->host + at, &v, 8);
}

static inline void
set_segment(struct x86_state *s, enum seg_name n, uint32_t attr)
{
	s->seg[n] = (struct x86_seg){ .sel = 0x1b, .attr = attr, .limit = UINT32_MAX };
}

static inline void
start_cpu(struct fixture *f)
{
	struct x86_state *s = &f->c->v.state;

	x86_reset_state(s, &f->cpus.model, true);
	for (enum seg_name n = SEG_ES; n <= SEG_GS; n++)
		set_segment(s, n, SEG_G | SEG_DB | SEG_P | SEG_S | 3 << 5 | 3);
	set_segment(s, SEG_CS, SEG_G | (narrow ? SEG_DB : SEG_L) | SEG_P | SEG_S | 3 << 5 | 11);
	s->cr0 = CR0_PE | CR0_PG | CR0_NE | CR0_MP | CR0_ET | CR0_WP;
	s->cr3 = ROOT;
	s->cr4 = CR4_PAE | CR4_OSFXSR | CR4_OSXMMEXCPT | CR4_OSXSAVE;
	s->efer = EFER_LME | EFER_LMA | EFER_NXE;
	s->xcr0 = f->cpus.model.xcr0_supported;
	s->rip = 0x400000;
	x86_update_mode(f->c);
	assert_int_equal(f->c->mode, narrow ? X86_LONG32 : X86_LONG64);
}

static inline void
map_pages(struct fixture *f)
{
	put64(f, ROOT, (ROOT + 0x1000) | 7);
	put64(f, ROOT + 0x1000, (ROOT + 0x2000) | 7);
	put64(f, ROOT + 0x2000 + (VA >> 21 & 511) * 8, (ROOT + 0x3000) | 7);
	for (unsigned i = 1; i <= 3; i++)
		put64(f, ROOT + 0x3000 + i * 8, (PAGES + i * PAGE_SIZE) | (i == 3 ? 5 : 7));
	f->host = mmap(
		(void *)VA, VA_PAGES * PAGE_SIZE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
	assert_ptr_equal(f->host, (void *)VA);
}

/* cmocka sets its own around each function: a test puts ours back with take_signals(). */
static struct sigaction handler[4];
static bool handlers_known;

static inline void
take_signals(void)
{
	for (unsigned i = 0; i < 4; i++)
		sigaction(signals[i], &handler[i], NULL);
}

static inline int
setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));
	struct sigaction sa = { .sa_sigaction = on_signal, .sa_flags = SA_SIGINFO };

	machine_open(&f->m, "test");
	f->ram = ram_create(&f->m.mem, "ram", RAM_SIZE);
	f->region = (struct mem_region){ .name = "ram", .kind = MEM_RAM, .enabled = true, .size = RAM_SIZE };
	f->region.ram = f->ram;
	machine_lock(&f->m);
	mem_add(&f->m.mem, &f->region);
	mem_update(&f->m.mem);
	machine_unlock(&f->m);
	x86_model_init(&f->cpus.model, "host", true, 1, 1000000000);
	f->cpus.m = &f->m;
	f->cpus.count = 1;
	f->c = aligned_alloc(64, (sizeof(*f->c) + 63) & ~63ul);
	memset(f->c, 0, sizeof(*f->c));
	f->c->v.m = &f->m;
	f->c->v.cpus = &f->cpus;
	frame = mmap(NULL, sizeof(*frame), PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT,
		-1, 0);
	find_components();
	for (unsigned i = 0; i < 4 && !handlers_known; i++)
		sigaction(signals[i], &sa, NULL);
	x86_soft_open(f->c); /* the first time its handlers are installed; they pass on to the above */
	for (unsigned i = 0; i < 4 && !handlers_known; i++)
		sigaction(signals[i], NULL, &handler[i]);
	handlers_known = true;
	map_pages(f);
	start_cpu(f);
	*state = f;
	return 0;
}

static inline int
teardown(void **state)
{
	struct fixture *f = *state;

	x86_soft_close(f->c);
	free(f->c);
	munmap(f->host, VA_PAGES * PAGE_SIZE);
	munmap(frame, sizeof(*frame));
	machine_close(&f->m);
	free(f);
	return 0;
}

/* ---- random states ---- */

static inline uint64_t
interesting(void)
{
	static const uint64_t values[] = {
		0,
		1,
		2,
		UINT64_MAX,
		0x8000000000000000,
		0x7fffffffffffffff,
		0x80000000,
		0x7fffffff,
		0x3ff0000000000000,
		0x3f8000003f800000,
		0x7ff0000000000000,
		0x7ff8000000000000,
		0x7ff0000000000001,
		0x7f800000ff800000,
		0x7fc000007f800001,
		0x0000000000000001,
		0x0010000000000000,
		0x0080000000000001,
		0x7fefffffffffffff,
		0x4330000000000000,
		0xc3e0000000000000,
		0x3c003c007c00fc01,
		0x0000000100000002,
	};
	uint64_t v = rnd();

	switch (below(6)) {
	case 0:
		return values[below(sizeof(values) / sizeof(values[0]))];
	case 1: /* ordinary doubles */
		return 0x3f00000000000000 + (v >> 7 & 0x01ffffffffffffff);
	case 2: /* ordinary floats */
		return 0x3e0000003e000000 + (v & 0x01ffffff01ffffff);
	case 3:
		return v & 0xff;
	default:
		return v;
	}
}

static inline void
random_x87(struct x87_state *x)
{
	memset(x, 0, sizeof(*x));
	x->fcw = (uint16_t)(0x37f & ~(chance(15) ? below(64) : 0));
	x->fcw = (uint16_t)((x->fcw & ~0xf00) | (chance(50) ? 0x300 : below(16) << 8));
	if (chance(30))
		x->fsw = (uint16_t)(rnd() & (0x4700 | (x->fcw & 0x3f)));
	x->fsw |= (uint16_t)(chance(70) ? below(8) << 11 : 0);
	if (chance(5)) {
		x->fsw |= (uint16_t)(rnd() & 0x3f);
		if (x->fsw & 0x3f & ~x->fcw)
			x->fsw |= 0x8080;
	}
	x->ftw = (uint8_t)(chance(60) ? 0xff : rnd());
	for (unsigned i = 0; i < 8; i++) {
		uint64_t m = interesting() | (chance(80) ? 1ull << 63 : 0);
		uint16_t e = (uint16_t)(chance(70) ? 0x3ff0 + below(32) + (chance(50) ? 0x8000 : 0) : rnd());
		if (chance(5))
			m = e = 0;
		memcpy(x->st[i], &m, 8);
		memcpy(x->st[i] + 8, &e, 2);
	}
	x->mxcsr = 0x1f80;
	if (chance(50))
		x->mxcsr |= (uint32_t)(rnd() & 0xe07f);
	if (chance(20))
		x->mxcsr &= ~(uint32_t)(below(64) << 7);
}

static inline void
random_state(struct fixture *f, struct x86_state *s)
{
	unsigned style = below(4);

	*s = f->c->v.state;
	for (unsigned i = 0; i < 16; i++)
		s->gpr[i] = interesting() & (narrow ? UINT32_MAX : UINT64_MAX);
	for (unsigned i = 0; i < 32; i++)
		for (unsigned j = 0; j < 64; j += 8) {
			uint64_t v = style ? interesting() : rnd();
			memcpy(s->zmm[i] + j, &v, 8);
		}
	for (unsigned i = 0; i < 8; i++)
		s->k[i] = chance(20) ? UINT64_MAX : chance(10) ? 0 : rnd();
	if (!(components & 0xe0)) {
		memset(s->k, 0, sizeof(s->k));
		memset(s->zmm[16], 0, 16 * 64);
		for (unsigned i = 0; i < 16; i++)
			memset(s->zmm[i] + 32, 0, 32);
	}
	s->rflags = 0x202 | (rnd() & ALL_FLAGS);
	random_x87(&s->x87);
}

static inline void
random_memory(struct fixture *f)
{
	uint64_t *p = (uint64_t *)(f->ram->host + PAGES + PAGE_SIZE);

	/* Only around the places where operands lie. */
	for (unsigned page = 0; page < 3; page++)
		for (unsigned i = 0; i < 512; i = i == 63 ? 256 : i == 319 ? 448 : i + 1)
			p[page * 512 + i] = interesting();
	mprotect(f->host + PAGE_SIZE, 3 * PAGE_SIZE, PROT_READ | PROT_WRITE);
	memcpy(f->host + PAGE_SIZE, p, 3 * PAGE_SIZE);
	mprotect(f->host + 3 * PAGE_SIZE, PAGE_SIZE, PROT_READ);
}

/* ---- comparing ---- */

struct outcome {
	int vector; /* 0: none */
	uint64_t address;
};

static inline struct outcome
bare_outcome(int fp_vector)
{
	struct outcome o = { 0 };

	switch (bare_signal) {
	case SIGILL:
		o.vector = EXC_UD;
		break;
	case SIGFPE:
		o.vector = fp_vector;
		break;
	case SIGSEGV:
		o.vector = bare_code == SI_KERNEL ? EXC_GP : EXC_PF;
		o.address = bare_code == SI_KERNEL ? 0 : bare_address & ~(uint64_t)PAGE_MASK;
		break;
	default:
		break;
	}
	return o;
}

static inline struct outcome
run_soft(struct fixture *f, const struct vec_op *op, gva_t a)
{
	struct outcome o = { 0 };

	if (!setjmp(f->c->fault))
		vec_run(f->c, op, a, 0);
	else
		o = (struct outcome){ f->c->exc_vector,
			f->c->exc_vector == EXC_PF ? f->c->v.state.cr2 & ~0xfffull : 0 };
	vec_sync(f->c);
	return o;
}

static bool quiet; /* compare without a word */

static inline bool
differ(const char *what, const void *bare, const void *soft, size_t n)
{
	if (!memcmp(bare, soft, n))
		return false;
	if (quiet)
		return true;
	printf("  %s: bare", what);
	for (size_t i = 0; i < n; i++)
		printf(" %02x", ((const uint8_t *)bare)[i]);
	printf("\n  %*s  soft", (int)strlen(what), "");
	for (size_t i = 0; i < n; i++)
		printf(" %02x", ((const uint8_t *)soft)[i]);
	printf("\n");
	return true;
}

static inline bool
states_differ(const struct x86_state *bare, const struct x86_state *soft)
{
	bool bad = false;
	char name[16];

	for (unsigned i = 0; i < 16; i++) {
		snprintf(name, sizeof(name), "r%u", i);
		bad |= differ(name, &bare->gpr[i], &soft->gpr[i], narrow ? 4 : 8);
	}
	for (unsigned i = 0; i < 32; i++) {
		snprintf(name, sizeof(name), "zmm%u", i);
		bad |= differ(name, bare->zmm[i], soft->zmm[i], 64);
	}
	for (unsigned i = 0; i < 8; i++) {
		snprintf(name, sizeof(name), "k%u", i);
		bad |= differ(name, &bare->k[i], &soft->k[i], 8);
		snprintf(name, sizeof(name), "st%u", i);
		bad |= differ(name, bare->x87.st[i], soft->x87.st[i], 10);
	}
	bad |= differ("rflags", &bare->rflags, &soft->rflags, 8);
	bad |= differ("mxcsr", &bare->x87.mxcsr, &soft->x87.mxcsr, 4);
	bad |= differ("fcw", &bare->x87.fcw, &soft->x87.fcw, 2);
	bad |= differ("fsw", &bare->x87.fsw, &soft->x87.fsw, 2);
	bad |= differ("ftw", &bare->x87.ftw, &soft->x87.ftw, 1);
	return bad;
}

static inline bool
memory_differs(struct fixture *f)
{
	const uint8_t *bare = f->host + PAGE_SIZE, *soft = f->ram->host + PAGES + PAGE_SIZE;
	bool bad = false;

	if (!memcmp(bare, soft, 3 * PAGE_SIZE))
		return false;
	if (quiet)
		return true;
	for (unsigned i = 0; i < 3 * PAGE_SIZE; i++)
		if (bare[i] != soft[i]) {
			if (!bad)
				printf("  memory:");
			printf(" %x:%02x/%02x", i + PAGE_SIZE, bare[i], soft[i]);
			bad = true;
		}
	printf("\n");
	return bad;
}

#endif
