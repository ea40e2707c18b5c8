/* SPDX-License-Identifier: Apache-2.0 */
/* See diff.h. */
#include "test/isa/diff.h"

#include <Zydis/Zydis.h>
#include <cpuid.h>
#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>

#include "bus/machine.h"
#include "cpu/x86/x86.h"

/* Of the engine's machine: low memory holds its tables. */
#define LOW_SIZE 0x20000u
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

/* Offsets in the standard XSAVE area (SDM 1, 13.4), found by CPUID. */
struct xsave_layout {
	unsigned ymm, k, zmm_hi, zmm16;
};

struct isa {
	int bits;
	const struct cpu_engine *engine;
	uint8_t *code, *data, *stack; /* bare */
	struct machine m;
	struct mem_region low_region, code_region, data_region, stack_region;
	struct ram *low, *code_ram, *data_ram, *stack_ram;
	struct cpus cpus;
	struct vcpu *v;
	void *altstack;
	struct xsave_layout x;
	/* for the signal handlers */
	const struct isa_state *in;
	struct isa_state *out;
	bool started;
	ucontext_t before;
	sigjmp_buf done;
};

static struct isa *running; /* the handlers have no other way to find it */

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
isa_random_state(struct isa_state *s, uint64_t seed, int bits)
{
	uint64_t mask = bits == 64 ? UINT64_MAX : UINT32_MAX;

	memset(s, 0, sizeof(*s));
	for (int r = 0; r < (bits == 64 ? 16 : 8); r++)
		s->gpr[r] = random_value(&seed) & mask;
	s->gpr[RSP] = ISA_STACK + ISA_STACK_SIZE / 2 + (isa_random(&seed) & 0xf8);
	s->gpr[RBP] = ISA_DATA + 4000 + (isa_random(&seed) & 127);
	if (bits == 64) {
		s->gpr[R13] = isa_random(&seed) & 31;
		s->gpr[R14] = ISA_DATA + 4000 + (isa_random(&seed) & 127);
		s->gpr[R15] = ISA_DATA + 1000 + (isa_random(&seed) & 127);
	}
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

static void
on_signal(int sig, siginfo_t *info, void *context)
{
	struct isa *t = running;

	if (!t->started) {
		t->started = true;
		enter_program(t, context);
		return;
	}
	leave_program(t, context);
	siglongjmp(t->done, 1);
}

static void
place_code(uint8_t *at, const uint8_t *code, unsigned len)
{
	static const uint8_t ud2[2] = { 0x0f, 0x0b };

	memcpy(at, code, len);
	memcpy(at + len, ud2, 2);
}

void
isa_run_bare(struct isa *t, const uint8_t *code, unsigned len, const struct isa_state *in, struct isa_state *out)
{
	static const int signals[] = { SIGILL, SIGFPE, SIGSEGV, SIGBUS, SIGTRAP };
	struct sigaction sa = { .sa_sigaction = on_signal, .sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER }, old[5];
	stack_t ss = { .ss_sp = t->altstack, .ss_size = 65536 }, old_ss;

	place_code(t->code, code, len);
	memcpy(t->data, in->data, ISA_DATA_SIZE);
	memcpy(t->stack, in->stack, ISA_STACK_SIZE);
	memset(out, 0, sizeof(*out));
	t->in = in;
	t->out = out;
	t->started = false;
	running = t;
	sigaltstack(&ss, &old_ss);
	for (int i = 0; i < 5; i++)
		sigaction(signals[i], &sa, &old[i]);
	if (t->bits == 32)
		__asm__ volatile("mov %0, %%ds\n\tmov %0, %%es" : : "r"(USER_DS));
	if (!sigsetjmp(t->done, 0))
		raise(SIGILL);
	for (int i = 0; i < 5; i++)
		sigaction(signals[i], &old[i], NULL);
	sigaltstack(&old_ss, NULL);
	memcpy(out->data, t->data, ISA_DATA_SIZE);
	memcpy(out->stack, t->stack, ISA_STACK_SIZE);
}

/* ---- the engine ---- */

static void
put64(struct isa *t, unsigned at, uint64_t v)
{
	memcpy(t->low->host + at, &v, 8);
}

static void
make_tables(struct isa *t)
{
	put64(t, PML4, PDPT | 7);
	put64(t, PDPT, PD | 7);
	put64(t, PD, 0 | 0x83); /* low 2 MiB, supervisor */
	put64(t, PD + 8 * (ISA_DATA >> 21), PT_DATA | 7);
	put64(t, PD + 8 * (ISA_CODE >> 21), PT_CODE | 7);
	for (unsigned p = 0; p < ISA_DATA_SIZE; p += PAGE_SIZE)
		put64(t, PT_DATA + 8 * (p >> 12), (ISA_DATA + p) | 7);
	for (unsigned p = 0; p < ISA_STACK_SIZE; p += PAGE_SIZE)
		put64(t, PT_DATA + 8 * ((ISA_STACK - ISA_DATA + p) >> 12), (ISA_STACK + p) | 7);
	for (unsigned p = 0; p < ISA_CODE_SIZE; p += PAGE_SIZE)
		put64(t, PT_CODE + 8 * (p >> 12), (ISA_CODE + p) | 7);
	memset(t->low->host + HANDLERS, 0xf4, 256);
	for (unsigned v = 0; v < 32; v++) {
		uint64_t at = HANDLERS + v;

		put64(t, IDT + 16 * v, (at & 0xffff) | 8 << 16 | 1ull << 32 | 0xee00ull << 32 | (at >> 16) << 48);
		put64(t, IDT + 16 * v + 8, 0);
	}
	put64(t, GDT + 8, 0x00af9b000000ffff);
	put64(t, GDT + 16, 0x00cf93000000ffff);
	put64(t, TSS + 4, IST_TOP);
	put64(t, TSS + 36, IST_TOP);
}

static void
start_state(struct isa *t, const struct isa_state *in)
{
	struct x86_state *s = &t->v->state;
	bool w = t->bits == 64;

	x86_reset_state(s, &t->cpus.model, true);
	memcpy(s->gpr, in->gpr, sizeof(s->gpr));
	s->rip = in->rip;
	s->rflags = in->rflags;
	s->cr0 = CR0_PE | CR0_MP | CR0_ET | CR0_NE | CR0_WP | CR0_PG;
	s->cr3 = PML4;
	s->cr4 = (CR4_PAE | CR4_OSFXSR | CR4_OSXMMEXCPT | CR4_OSXSAVE | CR4_FSGSBASE) & t->cpus.model.cr4_supported;
	s->efer = EFER_LME | EFER_LMA | EFER_SCE | EFER_NXE;
	s->xcr0 = t->cpus.model.xcr0_supported;
	s->gdt = (struct x86_table){ .base = GDT, .limit = 23 };
	s->idt = (struct x86_table){ .base = IDT, .limit = 32 * 16 - 1 };
	for (int i = SEG_ES; i <= SEG_GS; i++)
		s->seg[i] = (struct x86_seg){ .sel = USER_DS, .attr = 0xc0f3, .limit = UINT32_MAX };
	s->seg[SEG_CS] =
		(struct x86_seg){ .sel = w ? 0x33 : USER_CS32, .attr = w ? 0xa0fb : 0xc0fb, .limit = UINT32_MAX };
	s->seg[SEG_TR] = (struct x86_seg){ .sel = 0x40, .attr = 0x8b, .base = TSS, .limit = 103 };
	s->x87.fcw = in->fcw;
	s->x87.fsw = in->fsw;
	s->x87.ftw = in->ftw;
	s->x87.mxcsr = in->mxcsr;
	memcpy(s->x87.st, in->st, sizeof(s->x87.st));
	memcpy(s->zmm, in->zmm, sizeof(s->zmm));
	memcpy(s->k, in->k, sizeof(s->k));
}

static void
end_state(struct isa *t, struct isa_state *out)
{
	const struct x86_state *s = &t->v->state;
	bool has_error;
	uint64_t frame[6];

	memcpy(out->gpr, s->gpr, sizeof(out->gpr));
	out->vector = (int)(s->rip - 1 - HANDLERS);
	has_error = out->vector == 8 || (out->vector >= 10 && out->vector <= 14) || out->vector == 17;
	memcpy(frame, t->low->host + s->gpr[RSP] - (has_error ? 0 : 8), sizeof(frame));
	out->error = has_error ? (uint32_t)frame[0] : 0;
	out->rip = frame[1];
	out->rflags = frame[3];
	out->gpr[RSP] = frame[4];
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

void
isa_run_engine(struct isa *t, const uint8_t *code, unsigned len, const struct isa_state *in, struct isa_state *out)
{
	enum cpu_exit x;

	place_code(t->code_ram->host, code, len);
	mem_written(&t->m.mem, ISA_CODE, ISA_CODE_SIZE);
	memcpy(t->data_ram->host, in->data, ISA_DATA_SIZE);
	memcpy(t->stack_ram->host, in->stack, ISA_STACK_SIZE);
	memset(out, 0, sizeof(*out));
	start_state(t, in);
	t->engine->put_state(t->v);
	x = t->engine->run(t->v);
	t->engine->get_state(t->v);
	if (x == CPU_EXIT_HALT) {
		end_state(t, out);
	} else {
		fprintf(stderr, "the engine stopped: %s at %llx\n", cpu_exit_text(x),
			(unsigned long long)t->v->state.rip);
		out->vector = -1;
	}
	memcpy(out->data, t->data_ram->host, ISA_DATA_SIZE);
	memcpy(out->stack, t->stack_ram->host, ISA_STACK_SIZE);
}

/* ---- life ---- */

static void *
bare_memory(uint64_t at, size_t size, int prot)
{
	void *p = mmap((void *)at, size, prot, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);

	return p == MAP_FAILED ? NULL : p;
}

static void
add_ram(struct isa *t, struct mem_region *r, struct ram **ram, const char *name, uint64_t base, uint64_t size)
{
	*ram = ram_create(&t->m.mem, name, size);
	*r = (struct mem_region){
		.name = name, .kind = MEM_RAM, .enabled = true, .base = base, .size = size, .ram = *ram
	};
	mem_add(&t->m.mem, r);
}

struct isa *
isa_open(const struct cpu_engine *engine, int bits)
{
	struct isa *t = aligned_alloc(64, (sizeof(*t) + 63) & ~63ull);
	struct cpu_options o = { .count = 1, .model = "host" };
	struct err e = { 0 };

	memset(t, 0, sizeof(*t));
	t->bits = bits;
	t->engine = engine;
	t->altstack = malloc(65536);
	find_layout(&t->x);
	t->code = bare_memory(ISA_CODE, ISA_CODE_SIZE, PROT_READ | PROT_WRITE | PROT_EXEC);
	t->data = bare_memory(ISA_DATA, ISA_DATA_SIZE, PROT_READ | PROT_WRITE);
	t->stack = bare_memory(ISA_STACK, ISA_STACK_SIZE, PROT_READ | PROT_WRITE);
	if (!t->code || !t->data || !t->stack) {
		fprintf(stderr, "the addresses of the program are taken: %s\n", strerror(errno));
		return NULL;
	}
	machine_open(&t->m, "isa");
	add_ram(t, &t->low_region, &t->low, "low", 0, LOW_SIZE);
	add_ram(t, &t->code_region, &t->code_ram, "code", ISA_CODE, ISA_CODE_SIZE);
	add_ram(t, &t->data_region, &t->data_ram, "data", ISA_DATA, ISA_DATA_SIZE);
	add_ram(t, &t->stack_region, &t->stack_ram, "stack", ISA_STACK, ISA_STACK_SIZE);
	mem_update(&t->m.mem);
	make_tables(t);
	if (cpus_open(&t->cpus, &t->m, engine, &o, &e)) {
		fprintf(stderr, "%s\n", e.text);
		return NULL;
	}
	t->v = t->cpus.cpu[0];
	t->v->requests = 0;
	return t;
}

void
isa_close(struct isa *t)
{
	munmap(t->code, ISA_CODE_SIZE);
	munmap(t->data, ISA_DATA_SIZE);
	munmap(t->stack, ISA_STACK_SIZE);
	cpus_close(&t->cpus);
	machine_close(&t->m);
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
		fprintf(f, "  %s%.*d: bare %016llx, engine %016llx\n", what, index >= 0 ? 1 : 0, index >= 0 ? index : 0,
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
		fprintf(f, " (bare/engine)\n");
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

	for (int r = 0; r < 16; r++)
		bad |= differ(f, name[r], -1, a->gpr[r], b->gpr[r]);
	if (a->vector == EXC_PF)
		bad |= differ(f, "cr2", -1, a->cr2, b->cr2) | differ(f, "error", -1, a->error & ~16u, b->error & ~16u);
	bad |= bytes_differ(f, "data", 0, a->data, b->data, ISA_DATA_SIZE);
	bad |= bytes_differ(f, "stack", 0, a->stack, b->stack, ISA_STACK_SIZE);
	if (what & ISA_VECTORS)
		bad |= vectors_differ(a, b, f);
	return !bad;
}

void
isa_disassemble(const uint8_t *code, unsigned len, int bits, FILE *f)
{
	ZydisDisassembledInstruction in;

	for (unsigned at = 0; at < len; at += in.info.length) {
		if (ZYAN_FAILED(ZydisDisassembleIntel(
			    bits == 64 ? ZYDIS_MACHINE_MODE_LONG_64 : ZYDIS_MACHINE_MODE_LONG_COMPAT_32, ISA_CODE + at,
			    code + at, len - at, &in)))
			break;
		fprintf(f, "  %08x ", ISA_CODE + at);
		for (unsigned k = 0; k < 15; k++)
			fprintf(f, k < in.info.length ? "%02x" : "  ", code[at + k]);
		fprintf(f, " %s\n", in.text);
	}
}
