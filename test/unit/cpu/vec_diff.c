/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Vector, x87 and bit-manipulation instructions: the bare CPU is the oracle.
 *
 * Random encodings that the decoder takes and vec_compile() accepts run twice from the same random state: bare, in a
 * little frame that loads and stores everything, and through vec_run() on a software CPU whose page tables map the same
 * linear addresses with the same permissions. Registers, flags, MXCSR, x87 state, memory, the kind of exception and the
 * page it names have to agree. Operands cross into pages that are read-only or not there.
 *
 * VEC_SEED=n repeats a run, VEC_COUNT=n sets the number of instructions, VEC_ONLY="62 f1 ..." tests one encoding.
 */
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

static uint64_t
rnd(void)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return seed * 0x2545f4914f6cdd1dull;
}

static unsigned
below(unsigned n)
{
	return (unsigned)((rnd() >> 32) % n);
}

static bool
chance(unsigned percent)
{
	return below(100) < percent;
}

/* ---- the bare side ---- */

struct frame { /* RIP-relative from the code behind it */
	uint64_t gpr[16], rflags;
	uint8_t xsave[4096] __attribute__((aligned(64)));
	uint64_t host_rsp;
	uint8_t code[1024];
};

static const int signals[4] = { SIGSEGV, SIGBUS, SIGILL, SIGFPE };
static struct frame *frame;
static uint8_t *after; /* where a fault in the instruction goes on */
static uint8_t *insn_start;
static volatile int bare_signal;
static volatile uint64_t bare_address;
static volatile int bare_code;
static uint32_t component[8];
static uint64_t components;

static void
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
	uc->uc_mcontext.gregs[REG_EFL] &= ~0x10000ll;
}

static uint8_t *
rip_operand(uint8_t *p, unsigned reg, void *target, unsigned imm_bytes)
{
	int32_t d;

	*p++ = (uint8_t)(5 | (reg & 7) << 3);
	d = (int32_t)((uint8_t *)target - (p + 4 + imm_bytes));
	memcpy(p, &d, 4);
	return p + 4;
}

static uint8_t *
move(uint8_t *p, bool store, unsigned reg, void *target)
{
	*p++ = (uint8_t)(0x48 | (reg >= 8 ? 4 : 0));
	*p++ = store ? 0x89 : 0x8b;
	return rip_operand(p, reg, target, 0);
}

static uint8_t *
bytes(uint8_t *p, const char *s, unsigned n)
{
	memcpy(p, s, n);
	return p + n;
}

static void
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
	for (unsigned i = 0; i < 16; i++)
		if (i != RSP)
			p = move(p, false, i, &frame->gpr[i]);
	insn_start = p;
	p = bytes(p, (const char *)insn, len);
	after = p;
	for (unsigned i = 0; i < 16; i++)
		if (i != RSP)
			p = move(p, true, i, &frame->gpr[i]);
	p = bytes(p, "\x9c\x8f", 2); /* pushfq; pop flags */
	p = rip_operand(p, 0, &frame->rflags, 0);
	*p++ = 0xb8;
	memcpy(p, &rfbm, 4);
	p = bytes(p + 4, "\x31\xd2\x48\x0f\xae", 5);
	p = rip_operand(p, 4, frame->xsave, 0);
	p = bytes(p, "\xdb\xe3\xc5\xf8\x77", 5); /* fninit; vzeroupper */
	p = bytes(p, "\x41\x5f\x41\x5e\x41\x5d\x41\x5c\x5d\x5b\xc3", 11);
	assert_true(p < frame->code + sizeof(frame->code));
}

static void
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

static void
run_bare(struct x86_state *s, const uint8_t *insn, unsigned len)
{
	memset(frame->xsave, 0, sizeof(frame->xsave));
	move_state(s, frame->xsave, true);
	memcpy(frame->xsave + 512, &components, 8);
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

static void
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
	uint8_t *host;		     /* VA's pages for the bare side */
	struct sigaction handler[4]; /* cmocka sets its own around each function: put ours back */
};

static void
put64(struct fixture *f, uint32_t at, uint64_t v)
{
	memcpy(f->ram->host + at, &v, 8);
}

static void
set_segment(struct x86_state *s, enum seg_name n, uint32_t attr)
{
	s->seg[n] = (struct x86_seg){ .sel = 0x1b, .attr = attr, .limit = UINT32_MAX };
}

static void
start_cpu(struct fixture *f)
{
	struct x86_state *s = &f->c->v.state;

	x86_reset_state(s, &f->cpus.model, true);
	for (enum seg_name n = SEG_ES; n <= SEG_GS; n++)
		set_segment(s, n, SEG_G | SEG_DB | SEG_P | SEG_S | 3 << 5 | 3);
	set_segment(s, SEG_CS, SEG_G | SEG_L | SEG_P | SEG_S | 3 << 5 | 11);
	s->cr0 = CR0_PE | CR0_PG | CR0_NE | CR0_MP | CR0_ET | CR0_WP;
	s->cr3 = ROOT;
	s->cr4 = CR4_PAE | CR4_OSFXSR | CR4_OSXMMEXCPT | CR4_OSXSAVE;
	s->efer = EFER_LME | EFER_LMA | EFER_NXE;
	s->xcr0 = f->cpus.model.xcr0_supported;
	s->rip = 0x400000;
	x86_update_mode(f->c);
	assert_int_equal(f->c->mode, X86_LONG64);
}

static void
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

static int
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
	frame = mmap(NULL, sizeof(*frame), PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	find_components();
	for (unsigned i = 0; i < 4; i++)
		sigaction(signals[i], &sa, NULL);
	x86_soft_open(f->c); /* its handlers pass on to the above */
	for (unsigned i = 0; i < 4; i++)
		sigaction(signals[i], NULL, &f->handler[i]);
	map_pages(f);
	start_cpu(f);
	*state = f;
	return 0;
}

static int
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

static uint64_t
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

static void
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

static void
random_state(struct fixture *f, struct x86_state *s)
{
	unsigned style = below(4);

	*s = f->c->v.state;
	for (unsigned i = 0; i < 16; i++)
		s->gpr[i] = interesting();
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

static void
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

/* ---- random instructions ---- */

static unsigned
random_modrm(uint8_t *p)
{
	unsigned n = 0, mod = chance(45) ? 3 : below(3), rm = below(8);

	p[n++] = (uint8_t)(mod << 6 | below(8) << 3 | rm);
	if (mod != 3 && rm == 4)
		p[n++] = (uint8_t)rnd();
	for (unsigned i = 0; i < 5; i++)
		p[n++] = (uint8_t)rnd();
	return n;
}

static unsigned
random_legacy(uint8_t *p)
{
	static const uint8_t prefix[] = { 0, 0x66, 0xf2, 0xf3 };
	unsigned n = 0, map = below(4);
	uint8_t pre = prefix[below(4)];

	if (pre)
		p[n++] = pre;
	if (chance(3))
		p[n++] = 0x66;
	if (chance(50))
		p[n++] = (uint8_t)(0x40 | below(16));
	p[n++] = 0x0f;
	if (map >= 2)
		p[n++] = map == 2 ? 0x38 : 0x3a;
	p[n++] = (uint8_t)rnd();
	return n + random_modrm(p + n);
}

static unsigned
random_vex(uint8_t *p)
{
	p[0] = 0xc4;
	p[1] = (uint8_t)((rnd() & 0xe0) | (1 + below(3)));
	p[2] = (uint8_t)rnd();
	if (chance(30))
		p[2] |= 0x78;
	p[3] = (uint8_t)rnd();
	return 4 + random_modrm(p + 4);
}

static unsigned
random_evex(uint8_t *p)
{
	static const uint8_t maps[] = { 1, 1, 2, 2, 2, 3, 5, 6 };

	p[0] = 0x62;
	p[1] = (uint8_t)((rnd() & 0xf0) | maps[below(8)]);
	p[2] = (uint8_t)(rnd() | 4);
	if (chance(40))
		p[2] |= 0x78;
	p[3] = (uint8_t)rnd();
	if (chance(50))
		p[3] |= 8;
	if (chance(30))
		p[3] &= 0xf8;
	p[4] = (uint8_t)rnd();
	return 5 + random_modrm(p + 5);
}

static unsigned
random_x87_insn(uint8_t *p)
{
	p[0] = (uint8_t)(0xd8 + below(8));
	return 1 + random_modrm(p + 1);
}

static unsigned
random_insn(uint8_t *p)
{
	switch (below(8)) {
	case 0:
		return random_x87_insn(p);
	case 1:
	case 2:
		return random_legacy(p);
	case 3:
	case 4:
		return random_vex(p);
	case 5: { /* masked, with a memory operand: fault suppression */
		unsigned n = random_evex(p);
		p[3] = (uint8_t)(p[3] & 0xf8) | (uint8_t)(1 + below(7));
		p[5] &= 0x7f;
		return n;
	}
	default:
		return random_evex(p);
	}
}

/* Instructions whose results cannot be the same twice, or that test/unit/cpu/fpu.c looks at. */
static bool
left_out(ZydisMnemonic m)
{
	const char *name = ZydisMnemonicGetString(m);
	static const char *const out[] = { "rdrand", "rdseed", "fxsave", "fxrstor", "xsave", "xrstor", "fnsave",
		"frstor", "fnstenv", "fldenv", "ldmxcsr", "vldmxcsr" };

	for (unsigned i = 0; i < sizeof(out) / sizeof(out[0]); i++)
		if (!strncmp(name, out[i], strlen(out[i])))
			return true;
	return false;
}

static bool
names_rsp(const ZydisDecodedInstruction *in, const ZydisDecodedOperand *o)
{
	for (unsigned i = 0; i < in->operand_count; i++) {
		ZydisRegister r[3] = { 0 };
		if (o[i].type == ZYDIS_OPERAND_TYPE_REGISTER)
			r[0] = o[i].reg.value;
		if (o[i].type == ZYDIS_OPERAND_TYPE_MEMORY) {
			r[1] = o[i].mem.base;
			r[2] = o[i].mem.index;
		}
		for (unsigned j = 0; j < 3; j++) {
			ZydisRegister wide = ZydisRegisterGetLargestEnclosing(ZYDIS_MACHINE_MODE_LONG_64, r[j]);
			if (r[j] == ZYDIS_REGISTER_RIP || wide == ZYDIS_REGISTER_RSP)
				return true;
		}
	}
	return false;
}

static uint64_t
random_target(unsigned size)
{
	uint64_t page = VA + (1 + below(2)) * PAGE_SIZE, back = 1 + below(size > 1 ? size - 1 : 1);

	if (size > 256)
		size = 256;
	switch (below(10)) {
	case 0:
	case 1:
		return page + below(256);
	case 2:
		return VA + 2 * PAGE_SIZE - back; /* RW, RW */
	case 3:
		return VA + 3 * PAGE_SIZE - back; /* RW, RO */
	case 4:
		return VA + 4 * PAGE_SIZE - back; /* RO, hole */
	case 5:
		return chance(50) ? VA + PAGE_SIZE - back : VA + 4 * PAGE_SIZE - size; /* hole, RW; up to the end */
	default:
		return page + below(4) * 64;
	}
}

/* Give base and index values so that the operand lies at an interesting place; false: cannot. */
static bool
aim(struct x86_state *s, const ZydisDecodedInstruction *in, const ZydisDecodedOperand *o)
{
	int base = ZydisRegisterGetId(o->mem.base), index = ZydisRegisterGetId(o->mem.index);
	uint64_t target = random_target(o->size / 8),
		 disp = o->mem.disp.has_displacement ? (uint64_t)o->mem.disp.value : 0;

	if (o->mem.base == ZYDIS_REGISTER_NONE || in->address_width != 64)
		return false;
	if (o->mem.segment == ZYDIS_REGISTER_FS || o->mem.segment == ZYDIS_REGISTER_GS)
		return false;
	if (o->mem.type == ZYDIS_MEMOP_TYPE_VSIB) {
		bool wild = chance(20);
		for (unsigned i = 0; i < 64; i += 8) {
			uint64_t v = wild ? below(4 * PAGE_SIZE) : below(64);
			v |= (uint64_t)(chance(50) ? below(64) : 0) << 32;
			if (strchr(ZydisMnemonicGetString(in->mnemonic), 'q'))
				v &= 0xffff;
			memcpy(s->zmm[index] + i, &v, 8);
		}
		s->gpr[base] = VA + PAGE_SIZE + below(2 * PAGE_SIZE) - disp;
		return true;
	}
	if (o->mem.index != ZYDIS_REGISTER_NONE) {
		if (index == base)
			return false;
		s->gpr[index] = below(16);
		target -= s->gpr[index] * o->mem.scale;
	}
	s->gpr[base] = target - disp;
	return true;
}

/* ---- comparing ---- */

struct outcome {
	int vector; /* 0: none */
	uint64_t address;
};

static struct outcome
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

static gva_t
linear(const struct x86_state *s, const ZydisDecodedOperand *o)
{
	uint64_t a = o->mem.disp.has_displacement ? (uint64_t)o->mem.disp.value : 0;

	if (o->mem.base != ZYDIS_REGISTER_NONE)
		a += s->gpr[ZydisRegisterGetId(o->mem.base)];
	if (o->mem.index != ZYDIS_REGISTER_NONE && o->mem.type != ZYDIS_MEMOP_TYPE_VSIB)
		a += s->gpr[ZydisRegisterGetId(o->mem.index)] * o->mem.scale;
	return a;
}

static struct outcome
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

static bool
differ(const char *what, const void *bare, const void *soft, size_t n)
{
	if (!memcmp(bare, soft, n))
		return false;
	printf("  %s: bare", what);
	for (size_t i = 0; i < n; i++)
		printf(" %02x", ((const uint8_t *)bare)[i]);
	printf("\n  %*s  soft", (int)strlen(what), "");
	for (size_t i = 0; i < n; i++)
		printf(" %02x", ((const uint8_t *)soft)[i]);
	printf("\n");
	return true;
}

static bool
states_differ(const struct x86_state *bare, const struct x86_state *soft)
{
	bool bad = false;
	char name[16];

	for (unsigned i = 0; i < 16; i++) {
		snprintf(name, sizeof(name), "r%u", i);
		bad |= differ(name, &bare->gpr[i], &soft->gpr[i], 8);
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

static bool
memory_differs(struct fixture *f)
{
	const uint8_t *bare = f->host + PAGE_SIZE, *soft = f->ram->host + PAGES + PAGE_SIZE;
	bool bad = false;

	if (!memcmp(bare, soft, 3 * PAGE_SIZE))
		return false;
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

static const ZydisDecodedOperand *
memory_operand(const ZydisDecodedInstruction *in, const ZydisDecodedOperand *o)
{
	for (unsigned i = 0; i < in->operand_count; i++)
		if (o[i].type == ZYDIS_OPERAND_TYPE_MEMORY)
			return &o[i];
	return NULL;
}

static void
describe(const uint8_t *insn, const ZydisDecodedInstruction *in, const ZydisDecodedOperand *o, gva_t a)
{
	ZydisFormatter fmt;
	char text[128];

	ZydisFormatterInit(&fmt, ZYDIS_FORMATTER_STYLE_INTEL);
	ZydisFormatterFormatInstruction(&fmt, in, o, in->operand_count_visible, text, sizeof(text), 0, NULL);
	for (unsigned i = 0; i < in->length; i++)
		printf("%02x ", insn[i]);
	printf(" %s  at %llx  (%s)\n", text, (unsigned long long)a, ZydisISASetGetString(in->meta.isa_set));
}

struct tally {
	unsigned run, bad, refused, faults;
	uint8_t seen[ZYDIS_MNEMONIC_MAX_VALUE + 1], refused_seen[ZYDIS_MNEMONIC_MAX_VALUE + 1];
};

/*
 * Where processors differ and the SDM lets them: an 80-bit store that faults may have stored a part, MASKMOV may or may
 * not fault on bytes that it does not write; a faulting MMX store may have switched to MMX state, a faulting VCVTPS2PH
 * may have set MXCSR's flags, a faulting gather of half a register may leave anything in the other half.
 */
static bool
implementation_specific(
	const ZydisDecodedInstruction *in, const ZydisDecodedOperand *mem, struct outcome bare, struct outcome soft)
{
	if (!bare.vector && !soft.vector)
		return false;
	if (mem && mem->size == 80 && mem->actions & ZYDIS_OPERAND_ACTION_WRITE)
		return bare.vector == soft.vector;
	if (mem && mem->actions & ZYDIS_OPERAND_ACTION_WRITE && bare.vector == EXC_PF &&
		(in->meta.isa_set == ZYDIS_ISA_SET_PENTIUMMMX || in->mnemonic == ZYDIS_MNEMONIC_VCVTPS2PH ||
			in->mnemonic == ZYDIS_MNEMONIC_MOVNTQ))
		return true;
	if (in->mnemonic == ZYDIS_MNEMONIC_VPGATHERQD || in->mnemonic == ZYDIS_MNEMONIC_VGATHERQPS)
		return bare.vector == soft.vector && bare.address == soft.address;
	return in->mnemonic == ZYDIS_MNEMONIC_MASKMOVQ || in->mnemonic == ZYDIS_MNEMONIC_MASKMOVDQU ||
	       in->mnemonic == ZYDIS_MNEMONIC_VMASKMOVDQU;
}

static void
try_one(struct fixture *f, const uint8_t *insn, unsigned len, struct tally *t)
{
	static ZydisDecoder d;
	ZydisDecodedInstruction in;
	ZydisDecodedOperand o[ZYDIS_MAX_OPERAND_COUNT];
	const ZydisDecodedOperand *mem;
	struct x86_state *s = &f->c->v.state, start, bare;
	const struct vec_op *op;
	struct outcome eb, es;
	bool bad;
	gva_t a = 0;

	ZydisDecoderInit(&d, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
	if (!ZYAN_SUCCESS(ZydisDecoderDecodeFull(&d, insn, len, &in, o)) || left_out(in.mnemonic) || names_rsp(&in, o))
		return;
	random_state(f, &start);
	mem = memory_operand(&in, o);
	if (mem && !aim(&start, &in, mem))
		return;
	if (in.mnemonic == ZYDIS_MNEMONIC_MOVDIR64B)
		start.gpr[ZydisRegisterGetId(o[0].reg.value)] = VA + PAGE_SIZE + 64 * below(32);
	op = vec_compile(f->c, insn, in.length, &in, o);
	if (!op) {
		t->refused++;
		t->refused_seen[in.mnemonic] = 1;
		return;
	}
	if (mem)
		a = linear(&start, mem);
	random_memory(f);
	*s = start;
	bare = start;
	t->run++;
	t->seen[in.mnemonic] = 1;
	run_bare(&bare, insn, in.length);
	es = run_soft(f, op, a);
	eb = bare_outcome(es.vector == EXC_MF ? EXC_MF : EXC_XM);
	t->faults += eb.vector != 0;
	bad = eb.vector != es.vector || eb.address != es.address;
	if (implementation_specific(&in, mem, eb, es))
		return;
	if (bad || states_differ(&bare, s) || memory_differs(f)) {
		printf("  exception: bare %d %llx, soft %d %llx; mxcsr %x fcw %x fsw %x\n", eb.vector,
			(unsigned long long)eb.address, es.vector, (unsigned long long)es.address, start.x87.mxcsr,
			start.x87.fcw, start.x87.fsw);
		describe(insn, &in, o, a);
		t->bad++;
	}
}

static unsigned
parse_only(const char *text, uint8_t *insn)
{
	unsigned n = 0;
	char *end;

	while (n < 15) {
		unsigned long v = strtoul(text, &end, 16);
		if (end == text)
			break;
		insn[n++] = (uint8_t)v;
		text = end;
	}
	return n;
}

static void
random_instructions_do_what_they_do_on_the_bare_cpu(void **state)
{
	struct fixture *f = *state;
	const char *env_seed = getenv("VEC_SEED"), *env_count = getenv("VEC_COUNT"), *only = getenv("VEC_ONLY");
	unsigned count = env_count ? (unsigned)strtoul(env_count, NULL, 0) : 60000, kinds = 0;
	static struct tally t;

	for (unsigned i = 0; i < 4; i++)
		sigaction(signals[i], &f->handler[i], NULL);
	seed = env_seed ? strtoull(env_seed, NULL, 0) : (uint64_t)time(NULL) * 2654435761u | 1;
	printf("VEC_SEED=%llu\n", (unsigned long long)seed);
	for (unsigned i = 0; t.run < count && t.bad < 50 && i < 40 * count; i++) {
		uint8_t insn[32] = { 0 };
		unsigned n = only ? parse_only(only, insn) : random_insn(insn);

		try_one(f, insn, n < 15 ? n : 15, &t);
	}
	for (unsigned i = 0; i <= ZYDIS_MNEMONIC_MAX_VALUE; i++)
		kinds += t.seen[i];
	printf("%u instructions of %u kinds, %u exceptions, %u encodings refused, %u wrong\n", t.run, kinds, t.faults,
		t.refused, t.bad);
	if (getenv("VEC_KINDS"))
		for (unsigned i = 0; i <= ZYDIS_MNEMONIC_MAX_VALUE; i++)
			if (t.seen[i] | t.refused_seen[i])
				printf("%s%s ", t.seen[i] ? "" : "!", ZydisMnemonicGetString(i));
	assert_int_equal(t.bad, 0);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(random_instructions_do_what_they_do_on_the_bare_cpu, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
