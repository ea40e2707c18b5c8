/* SPDX-License-Identifier: Apache-2.0 */
/* See diff.h. */
#include "test/isa/diff.h"
#include "base/bytes.h"

#include <Zydis/Zydis.h>
#include <asm/prctl.h>
#include <cpuid.h>
#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <ucontext.h>
#include <unistd.h>

#include "base/str.h"
#include "bus/machine.h"
#include "cpu/jit/jit.h"
#include "cpu/x86/x86.h"

/* Low memory of an engine's machine holds its tables. */
#define LOW_SIZE 0x200000u
#define PML4 0x1000u
#define PDPT 0x2000u
#define PD 0x3000u
#define PT_DATA 0x4000u
#define PT_CODE 0x5000u
#define HANDLERS 0x6000u /* one HLT for each vector */
#define IDT 0x7000u
#define GDT 0x8000u
#define TSS 0x9000u
#define IST_TOP 0xb000u
/* The same for legacy protected modes. */
#define IDT_LEGACY 0xc000u
#define GDT_LEGACY 0xd000u
#define TSS_LEGACY 0xe000u
#define KERNEL_TOP 0x10000u
#define PD_LEGACY 0x10000u
#define PT_LEGACY_LOW 0x11000u
#define PT_LEGACY_DATA 0x12000u
#define PT_LEGACY_CODE 0x13000u
#define PT_REGISTERS 0x14000u

#define TICK_US 20000
#define TICKS_MAX 50 /* a program may run so long, in CPU time, unless isa_limit() says otherwise */

/* Offsets in the standard XSAVE area (SDM 1, 13.4), found by CPUID. */
struct xsave_layout {
	unsigned ymm, k, zmm_hi, zmm16;
};

/* A machine of an engine. */
struct guest {
	const struct cpu_engine *engine;
	struct machine m;
	struct mem_region low_region, code_region, data_region, stack_region, count_region, regs_region;
	struct ram *low, *code, *data, *stack, *counters;
	struct cpus cpus;
	struct vcpu *v;
	enum cpu_exit why;
	uint64_t accesses, log; /* of devices: bytes and digest */
	uint8_t *image;		/* the RFLAGS image its exception handler found */
};

struct isa {
	enum isa_mode mode;
	int bits;
	uint8_t *code, *data, *stack, *counters; /* bare */
	struct guest guest[ISA_ENGINES];
	unsigned guests;
	void *altstack;
	struct xsave_layout x;
	/* for the signal handlers */
	const struct isa_state *in;
	struct isa_state *out;
	bool started, bare_runs;
	ucontext_t before;
	sigjmp_buf done;
	struct vcpu *busy; /* in run() */
	volatile int ticks;
	int ticks_max;
};

static struct isa *running; /* the handlers have no other way to find it */

/* ---- modes ---- */

int
isa_bits(enum isa_mode mode)
{
	static const int bits[] = {
#define ROW(name, bits, bare, text) bits,
		ISA_MODES(ROW)
#undef ROW
	};

	return bits[mode];
}

bool
isa_bare(enum isa_mode mode)
{
	return mode <= ISA_USER32;
}

const char *
isa_mode_text(enum isa_mode mode)
{
	static const char *const texts[] = {
#define ROW(name, bits, bare, text) text,
		ISA_MODES(ROW)
#undef ROW
	};

	return texts[mode];
}

static bool
long_mode(enum isa_mode mode)
{
	return mode == ISA_USER64 || mode == ISA_USER32 || mode == ISA_KERNEL64 || mode == ISA_COMPAT16;
}

static bool
user_mode(enum isa_mode mode)
{
	return mode == ISA_USER64 || mode == ISA_USER32 || mode == ISA_SEGMENTED32 || mode == ISA_COMPAT16 ||
	       mode == ISA_VM86;
}

uint64_t
isa_segment_base(enum isa_mode mode, enum seg_name seg)
{
	if (isa_bits(mode) == 64)
		return seg == SEG_GS ? ISA_GS_BASE : 0;
	if (isa_bits(mode) == 32 && mode != ISA_SEGMENTED32)
		return 0;
	if (seg == SEG_CS)
		return ISA_CODE - (isa_bits(mode) == 32 ? 0x11000 : 0);
	return ISA_DATA - 0x1013 - 0x10u * (unsigned)seg;
}

/* ---- random numbers: splitmix64 ---- */

uint64_t
isa_random(uint64_t *seed)
{
	uint64_t z = *seed += 0x9e3779b97f4a7c15ull;

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
	return z ^ (z >> 31);
}

/* Values at the edges are worth more than uniform ones. */
static uint64_t
random_value(uint64_t *seed)
{
	static const uint64_t edges[] = { 0, 1, 2, 0x7f, 0x80, 0xff, 0x7fff, 0x8000, 0xffff, 0x7fffffff, 0x80000000,
		0xffffffff, 0x7fffffffffffffff, 0x8000000000000000, UINT64_MAX, 0x0f0f0f0f0f0f0f0f };
	uint64_t r = isa_random(seed);

	return r & 3 ? isa_random(seed) : edges[(r >> 2) % 16];
}

static void
random_bytes(void *p, size_t n, uint64_t *seed)
{
	for (size_t i = 0; i + 8 <= n; i += 8) {
		uint64_t v = isa_random(seed);

		memcpy((uint8_t *)p + i, &v, 8);
	}
}

void
isa_random_state(struct isa_state *s, uint64_t seed, enum isa_mode mode)
{
	int bits = isa_bits(mode);
	uint64_t mask = bits == 64 ? UINT64_MAX : UINT32_MAX;

	memset(s, 0, sizeof(*s));
	for (int r = 0; r < (bits == 64 ? 16 : 8); r++)
		s->gpr[r] = random_value(&seed) & mask;
	s->gpr[RSP] = ISA_STACK + ISA_STACK_SIZE / 2 + (isa_random(&seed) & 0xf8) - isa_segment_base(mode, SEG_SS);
	s->rip = ISA_CODE;
	s->rflags = 0x202 | (isa_random(&seed) & 0x8d5);
	s->fcw = 0x37f;
	s->mxcsr = 0x1f80;
	random_bytes(s->zmm, sizeof(s->zmm), &seed);
	random_bytes(s->k, sizeof(s->k), &seed);
	random_bytes(s->data, sizeof(s->data), &seed);
	random_bytes(s->stack, sizeof(s->stack), &seed);
}

/* ---- the bare CPU ---- */

#define XSTATE_MAGIC 0x46505853u /* the kernel's mark of a frame with an XSAVE area */

static void
find_layout(struct xsave_layout *x)
{
	unsigned a, b, c, d;

	memset(x, 0, sizeof(*x));
	if (!__get_cpuid_count(13, 0, &a, &b, &c, &d))
		return;
	if (a & 4)
		__get_cpuid_count(13, 2, &c, &x->ymm, &d, &b);
	if ((a & 0xe0) != 0xe0)
		return;
	__get_cpuid_count(13, 5, &c, &x->k, &d, &b);
	__get_cpuid_count(13, 6, &c, &x->zmm_hi, &d, &b);
	__get_cpuid_count(13, 7, &c, &x->zmm16, &d, &b);
}

/* Does the signal frame hold the extended area? */
static bool
has_extended(const uint8_t *fp)
{
	uint32_t magic;

	memcpy(&magic, fp + 464 /* software-reserved bytes of FXSAVE */, 4);
	return magic == XSTATE_MAGIC;
}

static void
move(void *mine, uint8_t *frame, size_t n, bool to_frame)
{
	if (to_frame)
		memcpy(frame, mine, n);
	else
		memcpy(mine, frame, n);
}

/* Copy FPU and vector state to or from the FXSAVE/XSAVE image of a signal frame. */
static void
move_vectors(const struct xsave_layout *x, struct isa_state *s, uint8_t *fp, bool to_frame)
{
	move(&s->fcw, fp, 2, to_frame);
	move(&s->fsw, fp + 2, 2, to_frame);
	move(&s->ftw, fp + 4, 1, to_frame);
	move(&s->mxcsr, fp + 24, 4, to_frame);
	for (int i = 0; i < 8; i++)
		move(s->st[i], fp + 32 + 16 * i, 10, to_frame);
	for (int i = 0; i < 16; i++)
		move(s->zmm[i], fp + 160 + 16 * i, 16, to_frame);
	if (!has_extended(fp))
		return;
	if (to_frame) {
		uint64_t bv = 7 | (x->k ? 0xe0 : 0);

		memcpy(fp + 512, &bv, 8);
	} else {
		uint64_t bv;

		/* components in their initial state may be left out of the image */
		memcpy(&bv, fp + 512, 8);
		if (x->ymm && !(bv & 4))
			memset(fp + x->ymm, 0, 256);
		if (x->k && !(bv & 0x20))
			memset(fp + x->k, 0, 64);
		if (x->k && !(bv & 0x40))
			memset(fp + x->zmm_hi, 0, 512);
		if (x->k && !(bv & 0x80))
			memset(fp + x->zmm16, 0, 1024);
	}
	for (int i = 0; x->ymm && i < 16; i++)
		move(s->zmm[i] + 16, fp + x->ymm + 16 * i, 16, to_frame);
	for (int i = 0; x->k && i < 16; i++) {
		move(s->zmm[i] + 32, fp + x->zmm_hi + 32 * i, 32, to_frame);
		move(s->zmm[16 + i], fp + x->zmm16 + 64 * i, 64, to_frame);
	}
	for (int i = 0; x->k && i < 8; i++)
		move(&s->k[i], fp + x->k + 8 * i, 8, to_frame);
}

static const int greg_of[16] = { REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP, REG_RSI, REG_RDI, REG_R8, REG_R9,
	REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15 };

#define USER_CS32 0x23
#define USER_DS 0x2b

static void
enter_program(struct isa *t, ucontext_t *u)
{
	uint64_t cs = (uint64_t)u->uc_mcontext.gregs[REG_CSGSFS];

	for (int r = 0; r < 16; r++)
		u->uc_mcontext.gregs[greg_of[r]] = (greg_t)t->in->gpr[r];
	u->uc_mcontext.gregs[REG_RIP] = (greg_t)t->in->rip;
	u->uc_mcontext.gregs[REG_EFL] = (greg_t)t->in->rflags;
	if (t->bits == 32)
		u->uc_mcontext.gregs[REG_CSGSFS] = (greg_t)((cs & ~0xffffull) | USER_CS32);
	move_vectors(&t->x, (struct isa_state *)t->in, (uint8_t *)u->uc_mcontext.fpregs, true);
}

static void
leave_program(struct isa *t, ucontext_t *u)
{
	struct isa_state *s = t->out;

	for (int r = 0; r < 16; r++)
		s->gpr[r] = (uint64_t)u->uc_mcontext.gregs[greg_of[r]];
	s->rip = (uint64_t)u->uc_mcontext.gregs[REG_RIP];
	s->rflags = (uint64_t)u->uc_mcontext.gregs[REG_EFL];
	s->vector = (int)u->uc_mcontext.gregs[REG_TRAPNO];
	s->error = (uint32_t)u->uc_mcontext.gregs[REG_ERR];
	s->cr2 = (uint64_t)u->uc_mcontext.gregs[REG_CR2];
	move_vectors(&t->x, s, (uint8_t *)u->uc_mcontext.fpregs, false);
}

/* AC stays set in a signal handler if the program had set it. NT and ID do even beyond it: a return from a handler leaves
 * them as they are, so that the next program would begin with them. */
static void
clear_flags(unsigned long long flags)
{
	__builtin_ia32_writeeflags_u64(__builtin_ia32_readeflags_u64() & ~flags);
}

static void
on_signal(int sig, siginfo_t *info, void *context)
{
	struct isa *t = running;

	clear_flags(FLAG_AC | FLAG_NT | FLAG_ID);
	if (!t->started) {
		t->started = true;
		enter_program(t, context);
		return;
	}
	leave_program(t, context);
	siglongjmp(t->done, 1);
}

/* Returns into the program, mostly: its NT and ID stay, for they are not among what a return puts back. */
static void
on_tick(int sig, siginfo_t *info, void *context)
{
	struct isa *t = running;

	clear_flags(FLAG_AC);
	if (!t || ++t->ticks < t->ticks_max)
		return;
	if (t->busy) {
		t->busy->requests |= REQ_STOP;
		t->busy->engine->kick(t->busy);
	} else if (t->bare_runs && t->started) {
		leave_program(t, context);
		t->out->vector = ISA_TIMEOUT;
		siglongjmp(t->done, 1);
	}
}

static void
place_code(uint8_t *memory, uint64_t rip, const uint8_t *code, unsigned len)
{
	static const uint8_t ud2[2] = { 0x0f, 0x0b };
	uint8_t *at = memory + (rip - ISA_CODE);

	memset(memory, 0xcc, ISA_CODE_SIZE);
	memcpy(at, code, len);
	memcpy(at + len, ud2, 2);
}

static const int signals[] = { SIGILL, SIGFPE, SIGSEGV, SIGBUS, SIGTRAP };

static void
clear_outcome(struct isa_state *out)
{
	memset(out, 0, offsetof(struct isa_state, data));
	out->vector = 0;
	out->error = 0;
	out->cr2 = 0;
}

void
isa_run_bare(struct isa *t, const uint8_t *code, unsigned len, const struct isa_state *in, struct isa_state *out)
{
	struct sigaction sa = { .sa_sigaction = on_signal, .sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER }, old[5];

	place_code(t->code, in->rip, code, len);
	memcpy(t->data, in->data, ISA_DATA_SIZE);
	memcpy(t->stack, in->stack, ISA_STACK_SIZE);
	memset(t->counters, 0, PAGE_SIZE);
	clear_outcome(out);
	t->in = in;
	t->out = out;
	t->started = false;
	t->ticks = 0;
	for (int i = 0; i < 5; i++)
		sigaction(signals[i], &sa, &old[i]);
	syscall(SYS_arch_prctl, ARCH_SET_GS, t->bits == 64 ? (unsigned long)ISA_GS_BASE : 0ul);
	if (t->bits == 32)
		__asm__ volatile("mov %0, %%ds\n\tmov %0, %%es" : : "r"(USER_DS));
	t->bare_runs = true;
	if (!sigsetjmp(t->done, 1))
		raise(SIGILL);
	t->bare_runs = false;
	for (int i = 0; i < 5; i++)
		sigaction(signals[i], &old[i], NULL);
	memcpy(out->data, t->data, ISA_DATA_SIZE);
	memcpy(out->stack, t->stack, ISA_STACK_SIZE);
	memcpy(out->code, t->code, ISA_CODE_SIZE);
}

/* ---- the engines: devices ---- */

/* By bytes: how an engine splits a misaligned access is its own business. */
static uint64_t
note(struct guest *g, uint64_t what)
{
	uint64_t v = isa_random(&what);

	g->accesses++;
	g->log += v;
	return v & 0xff;
}

static uint64_t
regs_read(void *opaque, uint64_t off, unsigned size)
{
	uint64_t v = 0;

	for (unsigned i = 0; i < size; i++)
		v |= note(opaque, off + i) << 8 * i;
	return v;
}

static void
regs_write(void *opaque, uint64_t off, uint64_t value, unsigned size)
{
	for (unsigned i = 0; i < size; i++)
		note(opaque, (off + i) << 8 | (value >> 8 * i & 0xff) | 1ull << 32);
}

static const struct bus_ops regs_ops = { .read = regs_read, .write = regs_write, .min_size = 1, .max_size = 8 };
static const struct bus_ops port_ops = { .read = regs_read, .write = regs_write };

/* ---- the engines: tables ---- */

static void
put64(struct guest *g, unsigned at, uint64_t v)
{
	memcpy(g->low->host + at, &v, 8);
}

static void
put32(struct guest *g, unsigned at, uint32_t v)
{
	memcpy(g->low->host + at, &v, 4);
}

/* One page table, of 4- or 8-byte entries. */
static void
map_page(struct guest *g, unsigned table, unsigned width, uint64_t a, uint64_t rights)
{
	unsigned at = table + width * (a >> 12 & (width == 8 ? 511 : 1023));

	if (width == 8)
		put64(g, at, a | rights);
	else
		put32(g, at, (uint32_t)(a | rights));
}

static void
map_pages(struct guest *g, unsigned width, unsigned data, unsigned code)
{
	uint64_t nx = width == 8 ? 1ull << 63 : 0;

	for (unsigned p = 0; p < ISA_DATA_SIZE; p += PAGE_SIZE)
		map_page(g, data, width, ISA_DATA + p, 7 | nx);
	map_page(g, data, width, ISA_READ_ONLY, 5 | nx);
	map_page(g, data, width, ISA_STACK, 7 | nx);
	map_page(g, data, width, ISA_COUNT, 7 | nx);
	for (unsigned p = 0; p < ISA_CODE_SIZE; p += PAGE_SIZE)
		map_page(g, code, width, ISA_CODE + p, 7);
}

/* Long mode. */
static void
make_tables(struct guest *g, bool registers)
{
	put64(g, PML4, PDPT | 7);
	put64(g, PDPT, PD | 7);
	put64(g, PD, 0 | 0x83); /* low 2 MiB, supervisor */
	put64(g, PD + 8 * (ISA_DATA >> 21), PT_DATA | 7);
	put64(g, PD + 8 * (ISA_CODE >> 21), PT_CODE | 7);
	map_pages(g, 8, PT_DATA, PT_CODE);
	if (registers) {
		put64(g, PD + 8 * (ISA_REGISTERS >> 21), PT_REGISTERS | 7);
		map_page(g, PT_REGISTERS, 8, ISA_REGISTERS, 7);
	}
	for (unsigned v = 0; v < 32; v++) {
		uint64_t at = HANDLERS + v, attr = v == 3 || v == 4 ? 0xee00 : 0x8e00;

		put64(g, IDT + 16 * v, (at & 0xffff) | 8 << 16 | 1ull << 32 | attr << 32 | (at >> 16) << 48);
		put64(g, IDT + 16 * v + 8, 0);
	}
	put64(g, GDT + 8, 0x00af9b000000ffff);
	put64(g, GDT + 16, 0x00cf93000000ffff);
	put64(g, GDT + 24, 0x00affb000000ffff);
	put64(g, GDT + 32, 0x00cff3000000ffff);
	put64(g, GDT + 40, 0x00cffb000000ffff);
	put64(g, TSS + 4, IST_TOP);
	put64(g, TSS + 36, IST_TOP);
	put32(g, TSS + 100, 104u << 16); /* no I/O bitmap */
}

/* 32-bit paging, a 32-bit TSS, an interrupt table for real mode. */
static void
make_legacy_tables(struct guest *g)
{
	put32(g, PD_LEGACY, PT_LEGACY_LOW | 3);
	put32(g, PD_LEGACY + 4 * (ISA_DATA >> 22), PT_LEGACY_DATA | 7);
	put32(g, PD_LEGACY + 4 * (ISA_CODE >> 22), PT_LEGACY_CODE | 7);
	for (unsigned p = 0; p < ISA_TABLES_SIZE; p += PAGE_SIZE)
		map_page(g, PT_LEGACY_LOW, 4, p, 3);
	map_pages(g, 4, PT_LEGACY_DATA, PT_LEGACY_CODE);
	put32(g, PD_LEGACY + 4 * (ISA_REGISTERS >> 22), PT_REGISTERS | 7);
	map_page(g, PT_REGISTERS, 4, ISA_REGISTERS, 7);
	for (unsigned v = 0; v < 32; v++) {
		uint64_t at = HANDLERS + v, attr = v == 3 || v == 4 ? 0xee00 : 0x8e00;

		put64(g, IDT_LEGACY + 8 * v, (at & 0xffff) | 8 << 16 | attr << 32 | (at >> 16) << 48);
		put32(g, 4 * v, HANDLERS + v);
	}
	put64(g, GDT_LEGACY + 8, 0x00cf9b000000ffff);
	put64(g, GDT_LEGACY + 16, 0x00cf93000000ffff);
	put64(g, GDT_LEGACY + 24, 0x00cffb000000ffff);
	put64(g, GDT_LEGACY + 32, 0x00cff3000000ffff);
	put64(g, GDT_LEGACY + 40, 0x20009b000000ffff); /* 16-bit code at ISA_CODE */
	put32(g, TSS_LEGACY + 4, KERNEL_TOP);
	put32(g, TSS_LEGACY + 8, 0x10);
	put32(g, TSS_LEGACY + 100, 104u << 16); /* no I/O bitmap */
}

/* ---- the engines: start and end ---- */

static void
set_segments(struct x86_state *s, enum isa_mode mode)
{
	uint32_t big = isa_bits(mode) == 16 ? 0 : SEG_G | SEG_DB, limit = isa_bits(mode) == 16 ? 0xffff : UINT32_MAX;
	uint32_t dpl = user_mode(mode) ? 3 << 5 : 0;

	for (int i = SEG_ES; i <= SEG_GS; i++)
		s->seg[i] = (struct x86_seg){ .sel = long_mode(mode) ? USER_DS
						     : dpl	     ? 0x23
								     : 0x10,
			.attr = big | dpl | 0x93,
			.limit = limit,
			.base = isa_segment_base(mode, (enum seg_name)i) };
	s->seg[SEG_CS].sel = isa_bits(mode) == 64 ? 0x33 : long_mode(mode) ? USER_CS32 : dpl ? 0x1b : 0x08;
	s->seg[SEG_CS].attr = (isa_bits(mode) == 64 ? SEG_G | SEG_L : big) | dpl | 0x9b;
	if (mode == ISA_SEGMENTED32) {
		s->seg[SEG_DS].attr &= ~SEG_G;
		s->seg[SEG_DS].limit = (uint32_t)(ISA_READ_ONLY - 64 - s->seg[SEG_DS].base);
		s->seg[SEG_ES].attr = (s->seg[SEG_ES].attr & ~15u) | 7; /* expand down */
		s->seg[SEG_ES].limit = (uint32_t)(ISA_DATA + 64 - s->seg[SEG_ES].base);
		s->seg[SEG_FS].attr = (s->seg[SEG_FS].attr & ~15u) | 1; /* read-only */
	}
	if (mode == ISA_KERNEL64) {
		s->seg[SEG_CS].sel = 8;
		s->seg[SEG_SS].sel = 0x10;
	}
	if (mode == ISA_REAL || mode == ISA_VM86)
		for (int i = SEG_ES; i <= SEG_GS; i++) {
			s->seg[i].sel = (uint16_t)(s->seg[i].base >> 4);
			s->seg[i].attr = dpl | 0x93;
		}
}

static void
start_state(struct guest *g, enum isa_mode mode, const struct isa_state *in)
{
	struct x86_state *s = &g->v->state;
	bool wide = long_mode(mode);

	x86_reset_state(s, &g->cpus.model, true);
	memcpy(s->gpr, in->gpr, sizeof(s->gpr));
	s->rflags = in->rflags | (mode == ISA_VM86 ? FLAG_VM : 0);
	s->cr0 = CR0_ET | CR0_NE | CR0_MP | (mode == ISA_REAL ? 0 : CR0_PE | CR0_AM | CR0_WP | CR0_PG);
	s->cr3 = wide ? PML4 : PD_LEGACY;
	s->cr4 = CR4_OSFXSR | CR4_OSXMMEXCPT | CR4_OSXSAVE | (wide ? CR4_PAE | CR4_FSGSBASE : CR4_VME);
	s->cr4 &= g->cpus.model.cr4_supported;
	s->efer = wide ? EFER_LME | EFER_LMA | EFER_SCE | EFER_NXE : 0;
	s->xcr0 = g->cpus.model.xcr0_supported;
	s->gdt = (struct x86_table){ .base = wide ? GDT : GDT_LEGACY, .limit = 47 };
	s->idt = (struct x86_table){ .base = wide ? IDT : IDT_LEGACY, .limit = (uint16_t)(32 * (wide ? 16 : 8) - 1) };
	if (mode == ISA_REAL)
		s->idt = (struct x86_table){ .base = 0, .limit = 32 * 4 - 1 };
	set_segments(s, mode);
	s->rip = in->rip - (isa_bits(mode) == 64 ? 0 : s->seg[SEG_CS].base);
	s->seg[SEG_TR] = (struct x86_seg){ .sel = 0x40, .attr = 0x8b, .base = wide ? TSS : TSS_LEGACY, .limit = 103 };
	s->x87.fcw = in->fcw;
	s->x87.fsw = in->fsw;
	s->x87.ftw = in->ftw;
	s->x87.mxcsr = in->mxcsr;
	memcpy(s->x87.st, in->st, sizeof(s->x87.st));
	memcpy(s->zmm, in->zmm, sizeof(s->zmm));
	memcpy(s->k, in->k, sizeof(s->k));
	g->log = g->accesses = 0;
}

/* The memory at a linear address; all of it is mapped to itself. NULL: nothing there. */
static uint8_t *
guest_memory(struct guest *g, uint64_t a, unsigned len)
{
	static const struct {
		uint64_t base, size;
	} parts[] = { { 0, LOW_SIZE }, { ISA_DATA, ISA_DATA_SIZE }, { ISA_STACK, ISA_STACK_SIZE } };
	struct ram *rams[] = { g->low, g->data, g->stack };

	for (unsigned i = 0; i < ARRAY_LEN(parts); i++)
		if (a >= parts[i].base && a - parts[i].base <= parts[i].size - len)
			return rams[i]->host + (a - parts[i].base);
	return NULL;
}

static uint64_t
frame_word(const uint8_t *frame, unsigned width, unsigned n)
{
	uint64_t v = 0;

	memcpy(&v, frame + width * n, width);
	return v;
}

/* The CPU stands behind the HLT of an exception handler: what the handler found. */
static void
read_frame(struct guest *g, enum isa_mode mode, struct isa_state *out)
{
	const struct x86_state *s = &g->v->state;
	unsigned width = long_mode(mode) ? 8 : mode == ISA_REAL ? 2 : 4;
	uint64_t sp = s->gpr[RSP];
	bool has_error;
	uint8_t *frame;

	out->vector = (int)(s->rip - 1 - HANDLERS);
	has_error = width > 2 && (out->vector == 8 || (out->vector >= 10 && out->vector <= 14) || out->vector == 17);
	if (width < 8)
		sp = s->seg[SEG_SS].base + (s->seg[SEG_SS].attr & SEG_DB ? (uint32_t)sp : (uint16_t)sp);
	frame = guest_memory(g, sp, 6 * width);
	if (!frame)
		return;
	if (has_error) {
		out->error = (uint32_t)frame_word(frame, width, 0);
		frame += width;
	}
	out->rip = frame_word(frame, width, 0) + (isa_bits(mode) == 64 ? 0 : isa_segment_base(mode, SEG_CS));
	out->rflags = frame_word(frame, width, 2);
	g->image = frame + 2 * width;
	if (user_mode(mode))
		out->gpr[RSP] = frame_word(frame, width, 3);
}

static void
end_state(struct guest *g, enum isa_mode mode, struct isa_state *out)
{
	const struct x86_state *s = &g->v->state;

	memcpy(out->gpr, s->gpr, sizeof(out->gpr));
	out->rip = s->rip;
	out->rflags = s->rflags;
	out->vector = 256;
	g->image = NULL;
	if (s->rip > HANDLERS && s->rip <= HANDLERS + 32)
		read_frame(g, mode, out);
	else if (mode == ISA_PROT32 &&
		 g->why == CPU_EXIT_SHUTDOWN) /* a frame that could not be pushed whole began here */
		g->image = guest_memory(g, (uint32_t)s->gpr[RSP] - 4, 4);
	out->cr2 = s->cr2;
	out->fcw = s->x87.fcw;
	out->fsw = s->x87.fsw;
	out->ftw = s->x87.ftw;
	out->mxcsr = s->x87.mxcsr;
	memcpy(out->st, s->x87.st, sizeof(out->st));
	for (int i = 0; i < 8; i++)
		memset(out->st[i] + 10, 0, 6);
	memcpy(out->zmm, s->zmm, sizeof(out->zmm));
	memcpy(out->k, s->k, sizeof(out->k));
}

/* Indices for gathers and scatters: what is read-only is known when a program is made. */
static void
fill_read_only(uint8_t *p)
{
	uint64_t seed = 7;

	for (unsigned i = 0; i < PAGE_SIZE / 2; i += 4)
		put_le32(p + i, (uint32_t)(isa_random(&seed) % 128));
	for (unsigned i = PAGE_SIZE / 2; i < PAGE_SIZE; i += 8)
		put_le64(p + i, isa_random(&seed) % 128);
}

static void
prepare_memory(struct guest *g, enum isa_mode mode, const uint8_t *code, unsigned len, const struct isa_state *in)
{
	memset(g->low->host, 0, ISA_TABLES_SIZE);
	memset(g->low->host + HANDLERS, 0xf4, 256);
	if (long_mode(mode))
		make_tables(g, !isa_bare(mode));
	else
		make_legacy_tables(g);
	place_code(g->code->host, in->rip, code, len);
	memcpy(g->data->host, in->data, ISA_DATA_SIZE);
	memcpy(g->stack->host, in->stack, ISA_STACK_SIZE);
	memset(g->counters->host, 0, PAGE_SIZE);
	if (mode == ISA_REAL) /* nothing protects it there */
		fill_read_only(g->data->host + ISA_DATA_SIZE);
	mem_written(&g->m.mem, ISA_CODE, ISA_CODE_SIZE);
	mem_written(&g->m.mem, ISA_DATA, ISA_DATA_SIZE);
	mem_written(&g->m.mem, ISA_STACK, ISA_STACK_SIZE);
	mem_written(&g->m.mem, 0, ISA_TABLES_SIZE);
}

void
isa_run_engine(struct isa *t, unsigned engine, const uint8_t *code, unsigned len, const struct isa_state *in,
	struct isa_state *out)
{
	struct guest *g = &t->guest[engine];

	running = t;
	prepare_memory(g, t->mode, code, len, in);
	clear_outcome(out);
	start_state(g, t->mode, in);
	if (g->engine == &cpu_engine_jit)
		((struct jit_cpu *)g->v)->eager = in->data[0] & 1;
	g->engine->put_state(g->v);
	g->v->requests = 0;
	t->ticks = 0;
	t->busy = g->v;
	g->why = g->engine->run(g->v);
	t->busy = NULL;
	g->engine->get_state(g->v);
	end_state(g, t->mode, out);
	if (g->why != CPU_EXIT_HALT)
		out->vector = g->why == CPU_EXIT_REQUEST ? ISA_TIMEOUT : ISA_STOPPED;
	memcpy(out->data, g->data->host, ISA_DATA_SIZE);
	memcpy(out->stack, g->stack->host, ISA_STACK_SIZE);
	memcpy(out->code, g->code->host, ISA_CODE_SIZE);
}

/* ---- life ---- */

static void *
bare_memory(uint64_t at, size_t size, int prot)
{
	void *p = mmap((void *)at, size, prot, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);

	return p == MAP_FAILED ? NULL : p;
}

static bool
open_bare(struct isa *t)
{
	t->code = bare_memory(ISA_CODE, ISA_CODE_SIZE, PROT_READ | PROT_WRITE | PROT_EXEC);
	t->data = bare_memory(ISA_DATA, ISA_DATA_SIZE + PAGE_SIZE, PROT_READ | PROT_WRITE);
	t->stack = bare_memory(ISA_STACK, ISA_STACK_SIZE, PROT_READ | PROT_WRITE);
	t->counters = bare_memory(ISA_COUNT, PAGE_SIZE, PROT_READ | PROT_WRITE);
	if (!t->code || !t->data || !t->stack || !t->counters) {
		fprintf(stderr, "the addresses of the program are taken: %s\n", strerror(errno));
		return false;
	}
	fill_read_only(t->data + ISA_DATA_SIZE);
	mprotect(t->data + ISA_DATA_SIZE, PAGE_SIZE, PROT_READ);
	return true;
}

static struct ram *
add_ram(struct guest *g, struct mem_region *r, const char *name, uint64_t base, uint64_t size)
{
	struct ram *ram = ram_create_file(&g->m.mem, name, size); /* for windows of the translator */

	*r = (struct mem_region){
		.name = name, .kind = MEM_RAM, .enabled = true, .base = base, .size = size, .ram = ram
	};
	mem_add(&g->m.mem, r);
	return ram;
}

static bool
open_guest(struct guest *g, const struct cpu_engine *engine)
{
	struct cpu_options o = { .count = 1, .model = "host" };
	struct err e = { 0 };

	g->engine = engine;
	machine_open(&g->m, "isa");
	machine_lock(&g->m);
	g->low = add_ram(g, &g->low_region, "low", 0, LOW_SIZE);
	g->code = add_ram(g, &g->code_region, "code", ISA_CODE, ISA_CODE_SIZE);
	g->data = add_ram(g, &g->data_region, "data", ISA_DATA, ISA_DATA_SIZE + PAGE_SIZE);
	g->stack = add_ram(g, &g->stack_region, "stack", ISA_STACK, ISA_STACK_SIZE);
	g->counters = add_ram(g, &g->count_region, "counters", ISA_COUNT, PAGE_SIZE);
	g->regs_region = (struct mem_region){ .name = "regs",
		.kind = MEM_MMIO,
		.enabled = true,
		.base = ISA_REGISTERS,
		.size = PAGE_SIZE,
		.ops = &regs_ops,
		.opaque = g };
	mem_add(&g->m.mem, &g->regs_region);
	mem_update(&g->m.mem);
	io_add(&g->m.io, 0, 65536, &port_ops, g);
	machine_unlock(&g->m);
	fill_read_only(g->data->host + ISA_DATA_SIZE);
	g->m.clock.tsc_hz = 1000000000; /* CPUID tells it: the same for all */
	if (cpus_open(&g->cpus, &g->m, engine, &o, &e)) {
		fprintf(stderr, "%s\n", e.text);
		return false;
	}
	g->v = g->cpus.cpu[0];
	g->v->requests = 0;
	return true;
}

static void
start_ticks(bool on)
{
	struct sigaction sa = { .sa_sigaction = on_tick, .sa_flags = SA_SIGINFO | SA_ONSTACK | SA_RESTART };
	struct itimerval every = { 0 };

	if (on)
		every.it_interval.tv_usec = every.it_value.tv_usec = TICK_US;
	for (int i = 0; i < 5; i++)
		sigaddset(&sa.sa_mask, signals[i]);
	sigaction(SIGPROF, &sa, NULL);
	setitimer(ITIMER_PROF, &every, NULL);
}

struct isa *
isa_open(enum isa_mode mode, const struct cpu_engine *const *engines, unsigned count)
{
	struct isa *t = aligned_alloc(64, (sizeof(*t) + 63) & ~63ull);
	stack_t ss = { .ss_size = 65536 };

	memset(t, 0, sizeof(*t));
	t->mode = mode;
	t->bits = isa_bits(mode);
	t->ticks_max = TICKS_MAX;
	t->altstack = ss.ss_sp = malloc(65536);
	sigaltstack(&ss, NULL);
	find_layout(&t->x);
	if (isa_bare(mode) && !open_bare(t))
		return NULL;
	for (t->guests = 0; t->guests < count; t->guests++)
		if (!open_guest(&t->guest[t->guests], engines[t->guests]))
			return NULL;
	running = t;
	start_ticks(true);
	return t;
}

void
isa_limit(struct isa *t, int ms)
{
	t->ticks_max = (ms * 1000 + TICK_US - 1) / TICK_US;
}

void
isa_close(struct isa *t)
{
	stack_t off = { .ss_flags = SS_DISABLE };

	start_ticks(false);
	running = NULL;
	if (isa_bare(t->mode)) {
		munmap(t->code, ISA_CODE_SIZE);
		munmap(t->data, ISA_DATA_SIZE + PAGE_SIZE);
		munmap(t->stack, ISA_STACK_SIZE);
		munmap(t->counters, PAGE_SIZE);
	}
	for (unsigned i = 0; i < t->guests; i++) {
		cpus_close(&t->guest[i].cpus);
		machine_close(&t->guest[i].m);
	}
	sigaltstack(&off, NULL);
	free(t->altstack);
	free(t);
}

/* ---- comparing ---- */

static bool
differ(FILE *f, const char *what, int index, uint64_t bare, uint64_t engine)
{
	if (bare == engine)
		return false;
	if (f)
		fprintf(f, "  %s%.*d: %016llx, %016llx\n", what, index >= 0 ? 1 : 0, index >= 0 ? index : 0,
			(unsigned long long)bare, (unsigned long long)engine);
	return true;
}

static bool
bytes_differ(FILE *f, const char *what, int index, const uint8_t *a, const uint8_t *b, size_t n)
{
	size_t i;

	for (i = 0; i < n && a[i] == b[i]; i++)
		;
	if (i == n)
		return false;
	if (f) {
		fprintf(f, "  %s%d differs from byte %zu:", what, index, i);
		for (size_t k = i; k < n && k < i + 16; k++)
			fprintf(f, " %02x/%02x", a[k], b[k]);
		fprintf(f, " (first/second)\n");
	}
	return true;
}

static bool
vectors_differ(const struct isa_state *a, const struct isa_state *b, FILE *f)
{
	bool bad = differ(f, "fcw", -1, a->fcw, b->fcw) | differ(f, "fsw", -1, a->fsw, b->fsw) |
		   differ(f, "ftw", -1, a->ftw, b->ftw) | differ(f, "mxcsr", -1, a->mxcsr, b->mxcsr);

	for (int i = 0; i < 8; i++)
		bad |= bytes_differ(f, "st", i, a->st[i], b->st[i], 10);
	for (int i = 0; i < 32; i++)
		bad |= bytes_differ(f, "zmm", i, a->zmm[i], b->zmm[i], 64);
	for (int i = 0; i < 8; i++)
		bad |= differ(f, "k", i, a->k[i], b->k[i]);
	return bad;
}

bool
isa_equal(const struct isa_state *a, const struct isa_state *b, unsigned what, unsigned flags_mask, FILE *f)
{
	static const char *const name[16] = { "rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", "r8", "r9", "r10",
		"r11", "r12", "r13", "r14", "r15" };
	bool bad = differ(f, "vector", -1, (uint64_t)a->vector, (uint64_t)b->vector) |
		   differ(f, "rip", -1, a->rip, b->rip) |
		   differ(f, "flags", -1, a->rflags & flags_mask, b->rflags & flags_mask);
	/* P: where the machine's tables are the host has nothing, and it says that all of the kernel's half is there */
	unsigned own = 16 | (a->cr2 < LOW_SIZE || a->cr2 >> 47 ? 1 : 0);

	for (int r = 0; r < 16; r++)
		bad |= differ(f, name[r], -1, a->gpr[r], b->gpr[r]);
	if (a->vector == EXC_PF)
		bad |= differ(f, "cr2", -1, a->cr2, b->cr2) | differ(f, "error", -1, a->error & ~own, b->error & ~own);
	else if (a->vector == EXC_GP)
		bad |= differ(f, "error", -1, a->error, b->error);
	bad |= bytes_differ(f, "data", 0, a->data, b->data, ISA_DATA_SIZE);
	bad |= bytes_differ(f, "stack", 0, a->stack, b->stack, ISA_STACK_SIZE);
	bad |= bytes_differ(f, "code", 0, a->code, b->code, ISA_CODE_SIZE);
	if (what & ISA_VECTORS)
		bad |= vectors_differ(a, b, f);
	if (f && bad)
		fprintf(f, "  (it ended with vector %d at %llx)\n", a->vector, (unsigned long long)a->rip);
	return !bad;
}

static bool
segments_differ(const struct x86_state *a, const struct x86_state *b, FILE *f)
{
	static const char *const name[SEG_COUNT] = { "es", "cs", "ss", "ds", "fs", "gs", "ldtr", "tr" };
	bool bad = false;

	for (int i = 0; i < SEG_COUNT; i++) {
		const struct x86_seg *x = &a->seg[i], *y = &b->seg[i];

		if (x->sel == y->sel && x->attr == y->attr && x->limit == y->limit && x->base == y->base)
			continue;
		bad = true;
		if (f)
			fprintf(f, "  %s: %04x %x %x %llx, %04x %x %x %llx\n", name[i], x->sel, x->attr, x->limit,
				(unsigned long long)x->base, y->sel, y->attr, y->limit, (unsigned long long)y->base);
	}
	return bad;
}

static bool
system_differs(const struct x86_state *a, const struct x86_state *b, FILE *f)
{
#define SYSTEM_REGISTERS(X)                                                                                            \
	X(rip)                                                                                                         \
	X(cr0)                                                                                                         \
	X(cr2)                                                                                                         \
	X(cr3)                                                                                                         \
	X(cr4)                                                                                                         \
	X(xcr0)                                                                                                        \
	X(efer)                                                                                                        \
	X(star)                                                                                                        \
	X(lstar)                                                                                                       \
	X(cstar)                                                                                                       \
	X(sfmask)                                                                                                      \
	X(kernel_gs_base)                                                                                              \
	X(tsc_aux)                                                                                                     \
	X(sysenter_cs)                                                                                                 \
	X(sysenter_esp)                                                                                                \
	X(sysenter_eip)                                                                                                \
	X(pat)                                                                                                         \
	X(shadow)                                                                                                      \
	X(nmi_blocked)                                                                                                 \
	X(gdt.base)                                                                                                    \
	X(gdt.limit)                                                                                                   \
	X(idt.base)                                                                                                    \
	X(idt.limit)                                                                                                   \
	X(x87.fcw)                                                                                                     \
	X(x87.fsw)                                                                                                     \
	X(x87.ftw)                                                                                                     \
	X(x87.mxcsr)                                                                                                   \
	X(x87.fop)                                                                                                     \
	X(x87.fip)                                                                                                     \
	X(x87.fdp)
	bool bad = false;

#define COMPARE(member) bad |= differ(f, #member, -1, a->member, b->member);
	SYSTEM_REGISTERS(COMPARE)
#undef COMPARE
	for (int i = 0; i < 8; i++)
		bad |= differ(f, "dr", i, a->dr[i], b->dr[i]);
	return bad | segments_differ(a, b, f);
}

/*
 * An engine may fetch ahead, and look at all of what an instruction is to write before it faults on what it reads: such
 * A and D bits do not count. (test/unit/cpu/jit_paging.c looks at those.)
 */
static void
set_accessed(struct guest *g)
{
	static const uint16_t longs[] = { PT_CODE >> 12, PT_DATA >> 12 },
			      legacy[] = { PT_LEGACY_CODE >> 12, PT_LEGACY_DATA >> 12 };

	for (unsigned t = 0; t < 2; t++)
		for (unsigned p = 0; p < 16; p++) {
			g->low->host[(longs[t] << 12) + 8 * p] |= 0x60;
			g->low->host[(legacy[t] << 12) + 4 * p] |= 0x60;
		}
}

bool
isa_engines_equal(struct isa *t, unsigned what, unsigned flags_mask, FILE *f)
{
	struct guest *g = &t->guest[0], *h = &t->guest[1];
	struct x86_state *a = &g->v->state, *b = &h->v->state;
	uint8_t dead[2] = { (uint8_t)(ISA_FLAGS & ~flags_mask), (uint8_t)((ISA_FLAGS & ~flags_mask) >> 8) };
	bool bad = differ(f, "exit", -1, g->why, h->why) | system_differs(a, b, f) |
		   differ(f, "bytes of devices", -1, g->accesses, h->accesses) |
		   differ(f, "their digest", -1, g->log, h->log) |
		   differ(f, "flags", -1, a->rflags & ~(uint64_t)(ISA_FLAGS & ~flags_mask),
			   b->rflags & ~(uint64_t)(ISA_FLAGS & ~flags_mask));

	for (int i = 0; i < 2 && g->image && h->image; i++) {
		g->image[i] &= (uint8_t)~dead[i];
		h->image[i] &= (uint8_t)~dead[i];
	}
	for (int r = 0; r < 16; r++)
		bad |= differ(f, "gpr", r, a->gpr[r], b->gpr[r]);
	for (int i = 0; i < 8; i++)
		bad |= bytes_differ(f, "st", i, a->x87.st[i], b->x87.st[i], 10);
	for (int i = 0; i < 8 && what & ISA_VECTORS; i++)
		bad |= differ(f, "k", i, a->k[i], b->k[i]);
	for (int i = 0; i < 32 && what & ISA_VECTORS; i++)
		bad |= bytes_differ(f, "zmm", i, a->zmm[i], b->zmm[i], 64);
	set_accessed(g);
	set_accessed(h);
	bad |= bytes_differ(f, "low", 0, g->low->host, h->low->host, ISA_TABLES_SIZE);
	bad |= bytes_differ(f, "data", 0, g->data->host, h->data->host, ISA_DATA_SIZE + PAGE_SIZE);
	bad |= bytes_differ(f, "stack", 0, g->stack->host, h->stack->host, ISA_STACK_SIZE);
	bad |= bytes_differ(f, "code", 0, g->code->host, h->code->host, ISA_CODE_SIZE);
	return !bad;
}

void
isa_disassemble(const uint8_t *code, unsigned len, uint32_t address, int bits, FILE *f)
{
	ZydisMachineMode mode = bits == 64   ? ZYDIS_MACHINE_MODE_LONG_64
				: bits == 32 ? ZYDIS_MACHINE_MODE_LONG_COMPAT_32
					     : ZYDIS_MACHINE_MODE_LONG_COMPAT_16;
	ZydisDisassembledInstruction in;
	unsigned size;

	for (unsigned at = 0; at < len; at += size) {
		bool ok;

		for (size = 0; at + size < len && code[at + size] == 0x90; size++)
			;
		if (size > 2) {
			fprintf(f, "  %08x %u nops\n", address + at, size);
			continue;
		}
		ok = ZYAN_SUCCESS(ZydisDisassembleIntel(mode, address + at, code + at, len - at, &in));

		size = ok ? in.info.length : 1;
		fprintf(f, "  %08x ", address + at);
		for (unsigned k = 0; k < 15; k++)
			fprintf(f, k < size ? "%02x" : "  ", k < size ? code[at + k] : 0);
		fprintf(f, " %s\n", ok ? in.text : "?");
	}
}
