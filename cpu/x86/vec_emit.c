/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Thunks: a few host instructions around one guest instruction.
 *
 *	vec_thunk(RDI = struct x86_state *, RSI = host address of the memory operand)
 *	    guest flags into the host's, if the instruction reads any
 *	    the registers it reads, from the state; MXCSR if it uses it
 *	    the instruction itself: vector, mask and MMX registers under their own numbers, general registers
 *	    renamed so that RSP, RSI, RDI stay ours, the memory operand as [RSI]
 *	    MXCSR, the registers and the flags it writes, to the state
 *	    the host's MXCSR, clean upper halves, empty x87 stack; EAX = 0
 *
 * The guest's own MXCSR is loaded, masks included. An unmasked exception therefore is a SIGFPE at the instruction, with
 * nothing but MXCSR's flags changed: exactly what the guest has to see. The handler continues at a way out that stores
 * MXCSR and returns VEC_FP. In the same way SIGILL ends in VEC_ILL (an encoding the decoder took and the host refuses).
 *
 * The arena is a memfd with two mappings, one to write and one to execute. When it is full all thunks are dropped and
 * made again as they are needed; the ops stay. One arena a vCPU, made with its first thunk.
 */
#include "cpu/x86/vec.h"

#include <cpuid.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stddef.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>

#include "base/log.h"

#ifndef MFD_EXEC
#define MFD_EXEC 0x0010U
#endif

#define ARITH_FLAGS (FLAG_CF | FLAG_PF | FLAG_AF | FLAG_ZF | FLAG_SF | FLAG_OF)
#define THUNK_MAX 512
#define MXCSR_CONTROL 0xffc0u
#define MXCSR_RESET 0x1f80u

/* Offsets in the state; RDI-relative. */
#define OFF_GPR(n) (offsetof(struct x86_state, gpr) + 8 * (n))
#define OFF_VEC(n) (offsetof(struct x86_state, zmm) + 64 * (n))
#define OFF_K(n) (offsetof(struct x86_state, k) + 8 * (n))
#define OFF_ST(n) (offsetof(struct x86_state, x87.st) + 16 * (n))
#define OFF_MXCSR offsetof(struct x86_state, x87.mxcsr)
#define OFF_RFLAGS offsetof(struct x86_state, rflags)

struct code {
	uint8_t *p, *start;
	uint32_t offset; /* of `start` in the arena */
};

static void
put(struct code *k, const void *bytes, size_t n)
{
	memcpy(k->p, bytes, n);
	k->p += n;
}

#define PUT(k, ...) put(k, (const uint8_t[]){ __VA_ARGS__ }, sizeof((const uint8_t[]){ __VA_ARGS__ }))

static void
put32(struct code *k, uint32_t v)
{
	put(k, &v, 4);
}

/* ModRM and displacement of [rdi + off] */
static void
put_state_operand(struct code *k, unsigned reg, size_t off)
{
	PUT(k, 0x87 | (reg & 7) << 3);
	put32(k, (uint32_t)off);
}

static void
move_gpr(struct code *k, bool store, unsigned reg, size_t off)
{
	PUT(k, 0x48 | (reg >= 8 ? 4 : 0), store ? 0x89 : 0x8b);
	put_state_operand(k, reg, off);
}

static void
load_byte(struct code *k, unsigned reg, size_t off)
{
	PUT(k, 0x40 | (reg >= 8 ? 4 : 0), 0x0f, 0xb6);
	put_state_operand(k, reg, off);
}

/* MOVUPS in the encoding that the instruction itself has, so that the host never mixes SSE and AVX. */
static void
move_vec(struct code *k, bool store, unsigned reg, unsigned bytes, bool vex)
{
	uint8_t opcode = store ? 0x11 : 0x10;

	if (bytes == 64) {
		PUT(k, 0x62, (reg & 8 ? 0 : 0x80) | (reg & 16 ? 0 : 0x10) | 0x61, 0x7c, 0x48, opcode);
	} else if (vex) {
		PUT(k, 0xc4, (reg & 8 ? 0 : 0x80) | 0x61, 0x78 | (bytes == 32 ? 4 : 0), opcode);
	} else {
		if (reg >= 8)
			PUT(k, 0x44);
		PUT(k, 0x0f, opcode);
	}
	put_state_operand(k, reg, OFF_VEC(reg));
}

static void
move_k(struct code *k, bool store, unsigned reg, bool quad)
{
	PUT(k, 0xc4, 0xe1, quad ? 0xf8 : 0x78, store ? 0x91 : 0x90);
	put_state_operand(k, reg, OFF_K(reg));
}

static void
load_mmx(struct code *k, unsigned reg)
{
	PUT(k, 0x0f, 0x6f);
	put_state_operand(k, reg, OFF_ST(reg));
}

static void
store_mmx(struct code *k, unsigned reg)
{
	PUT(k, 0x0f, 0x7f);
	put_state_operand(k, reg, OFF_ST(reg));
	PUT(k, 0x66, 0xc7); /* mov word [exponent], 0xffff: SDM 1 section 9.2.1 */
	put_state_operand(k, 0, OFF_ST(reg) + 8);
	PUT(k, 0xff, 0xff);
}

static void
load_flags(struct code *k)
{
	PUT(k, 0x8b); /* mov eax, [rflags] */
	put_state_operand(k, 0, OFF_RFLAGS);
	PUT(k, 0x25); /* and eax, arithmetic flags */
	put32(k, ARITH_FLAGS);
	PUT(k, 0x50, 0x9d); /* push rax; popfq */
}

static void
store_flags(struct code *k, uint32_t mask)
{
	PUT(k, 0x9c, 0x58, 0x25); /* pushfq; pop rax; and eax, mask */
	put32(k, mask);
	PUT(k, 0x48, 0x8b); /* mov rcx, [rflags] */
	put_state_operand(k, 1, OFF_RFLAGS);
	PUT(k, 0x48, 0x81, 0xe1); /* and rcx, ~mask */
	put32(k, ~mask);
	PUT(k, 0x48, 0x09, 0xc1); /* or rcx, rax */
	PUT(k, 0x48, 0x89);
	put_state_operand(k, 1, OFF_RFLAGS);
}

static void
ldmxcsr_reset(struct code *k)
{
	PUT(k, 0x0f, 0xae, 0x15); /* ldmxcsr [rip + d]: the constant at the arena's start */
	put32(k, -(k->offset + (uint32_t)(k->p - k->start) + 4));
}

static void
load_mxcsr(struct code *k)
{
	PUT(k, 0x0f, 0xae);
	put_state_operand(k, 2, OFF_MXCSR);
}

static void
store_mxcsr(struct code *k)
{
	PUT(k, 0x0f, 0xae);
	put_state_operand(k, 3, OFF_MXCSR);
}

/* The guest's MXCSR may stay in the host if it differs from the host's in sticky flags only: nobody here reads those.
 */
static void
restore_mxcsr(struct code *k)
{
	PUT(k, 0x8b);
	put_state_operand(k, 0, OFF_MXCSR);
	PUT(k, 0x25);
	put32(k, MXCSR_CONTROL);
	PUT(k, 0x3d);
	put32(k, MXCSR_RESET);
	PUT(k, 0x74, 0x07); /* je over ldmxcsr */
	ldmxcsr_reset(k);
}

static void
load_operands(struct code *k, const struct vec_host *h, const struct vec_op *op)
{
	for (unsigned i = 0; i < 32; i++)
		if (op->vec_in & 1u << i)
			move_vec(k, false, i, op->vec_bytes, op->encoding != VEC_LEGACY);
	for (unsigned i = 0; i < 8; i++) {
		if (op->k_in & 1u << i)
			move_k(k, false, i, h->avx512bw);
		if (op->mmx_in & 1u << i)
			load_mmx(k, i);
	}
	for (unsigned i = 0; i < op->gpr_count; i++) {
		const struct vec_gpr *g = &op->gpr[i];
		if (g->in == 1)
			load_byte(k, g->host, OFF_GPR(g->guest) + g->high);
		else if (g->in)
			move_gpr(k, false, g->host, OFF_GPR(g->guest));
	}
}

static void
store_operands(struct code *k, const struct vec_host *h, const struct vec_op *op)
{
	unsigned bytes = op->encoding == VEC_LEGACY ? 16 : h->avx512 ? 64 : 32;

	for (unsigned i = 0; i < 32; i++)
		if (op->vec_out & 1u << i)
			move_vec(k, true, i, bytes, op->encoding != VEC_LEGACY);
	for (unsigned i = 0; i < 8; i++) {
		if (op->k_out & 1u << i)
			move_k(k, true, i, h->avx512bw);
		if (op->mmx_out & 1u << i)
			store_mmx(k, i);
	}
	for (unsigned i = 0; i < op->gpr_count; i++)
		if (op->gpr[i].out)
			move_gpr(k, true, op->gpr[i].host, OFF_GPR(op->gpr[i].guest));
}

static void
emit_thunk(struct code *k, const struct vec_host *h, const struct vec_op *op)
{
	if (op->flags_in)
		load_flags(k);
	load_operands(k, h, op);
	if (op->mxcsr)
		load_mxcsr(k);
	put(k, op->bytes, op->len);
	if (op->mxcsr)
		store_mxcsr(k);
	store_operands(k, h, op);
	if (op->flags_out)
		store_flags(k, op->flags_out);
	if (op->mxcsr)
		restore_mxcsr(k);
	if (op->encoding != VEC_LEGACY)
		PUT(k, 0xc5, 0xf8, 0x77); /* vzeroupper */
	if (op->mmx_in | op->mmx_out)
		PUT(k, 0x0f, 0x77); /* emms */
	PUT(k, 0x31, 0xc0, 0xc3);   /* xor eax, eax; ret */
}

static uint32_t
emit_bail(struct vec_cache *vc, enum vec_outcome outcome)
{
	uint32_t at = vc->used;
	struct code k = { vc->rw + at, vc->rw + at, at };

	if (outcome == VEC_FP)
		store_mxcsr(&k);
	ldmxcsr_reset(&k);
	if (vc->host.avx)
		PUT(&k, 0xc5, 0xf8, 0x77);
	PUT(&k, 0xb8);
	put32(&k, outcome);
	PUT(&k, 0xc3);
	vc->used = (uint32_t)(k.p - vc->rw + 15) & ~15u;
	return at;
}

/* ---- the arena ---- */

static int
arena_fd(void)
{
	int fd = memfd_create("lodge-thunks", MFD_CLOEXEC | MFD_EXEC);

	if (fd < 0 && errno == EINVAL) /* before Linux 6.3 */
		fd = memfd_create("lodge-thunks", MFD_CLOEXEC);
	if (fd >= 0 && ftruncate(fd, VEC_ARENA_SIZE) < 0) {
		close(fd);
		fd = -1;
	}
	return fd;
}

static void
arena_start(struct vec_cache *vc)
{
	uint32_t mxcsr = MXCSR_RESET;

	memcpy(vc->rw, &mxcsr, 4);
	vc->used = 16;
	vc->bail_ill = emit_bail(vc, VEC_ILL);
	vc->bail_fp = emit_bail(vc, VEC_FP);
	vc->bail_fault = emit_bail(vc, VEC_FAULT);
}

static bool
arena_open(struct vec_cache *vc)
{
	int fd = arena_fd();
	void *rw = MAP_FAILED, *rx = MAP_FAILED;

	if (fd >= 0) {
		rw = mmap(NULL, VEC_ARENA_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
		rx = mmap(NULL, VEC_ARENA_SIZE, PROT_READ | PROT_EXEC, MAP_SHARED, fd, 0);
		close(fd);
	}
	if (rw == MAP_FAILED || rx == MAP_FAILED) {
		log_error("cpu", "No executable memory for host-executed instructions: %s.", strerror(errno));
		if (rw != MAP_FAILED)
			munmap(rw, VEC_ARENA_SIZE);
		if (rx != MAP_FAILED)
			munmap(rx, VEC_ARENA_SIZE);
		return false;
	}
	vc->rw = rw;
	vc->rx = rx;
	arena_start(vc);
	return true;
}

void
vec_arena_close(struct vec_cache *vc)
{
	if (vc->rw) {
		munmap(vc->rw, VEC_ARENA_SIZE);
		munmap(vc->rx, VEC_ARENA_SIZE);
	}
	vc->rw = vc->rx = NULL;
}

static void
arena_flush(struct vec_cache *vc)
{
	for (struct vec_chunk *ch = vc->chunks; ch; ch = ch->next)
		for (unsigned i = 0; i < ch->used; i++)
			ch->op[i].thunk = NULL;
	arena_start(vc);
}

bool
vec_emit(struct vec_cache *vc, struct vec_op *op)
{
	struct code k;

	vec_signals_thread(vc);
	if (!vc->rw && !arena_open(vc))
		return false;
	if (vc->used + THUNK_MAX > VEC_ARENA_SIZE)
		arena_flush(vc);
	k = (struct code){ vc->rw + vc->used, vc->rw + vc->used, vc->used };
	emit_thunk(&k, &vc->host, op);
	op->thunk = (vec_thunk *)(void *)(vc->rx + vc->used);
	vc->used = (uint32_t)(k.p - vc->rw + 15) & ~15u;
	return true;
}

/* ---- signals ---- */

/* The one place with process-wide state: what the process had installed for these signals, and whose arena this thread
 * runs. A signal from anywhere else goes where it would have gone. */
static const int signals[] = { SIGILL, SIGFPE, SIGSEGV, SIGBUS };
static struct sigaction previous[4];
static pthread_once_t installed = PTHREAD_ONCE_INIT;
static _Thread_local struct vec_cache *volatile running;

static void
pass_on(int sig, siginfo_t *info, void *context)
{
	for (unsigned i = 0; i < 4; i++) {
		if (signals[i] != sig)
			continue;
		if (previous[i].sa_flags & SA_SIGINFO)
			previous[i].sa_sigaction(sig, info, context);
		else if (previous[i].sa_handler != SIG_DFL && previous[i].sa_handler != SIG_IGN)
			previous[i].sa_handler(sig);
		else
			sigaction(sig, &previous[i], NULL); /* happens again, and ends the process */
	}
}

static void
on_signal(int sig, siginfo_t *info, void *context)
{
	ucontext_t *uc = context;
	greg_t *rip = &uc->uc_mcontext.gregs[REG_RIP];
	struct vec_cache *vc = running;
	uint32_t bail;

	if (!vc || !vc->rx || (uintptr_t)*rip - (uintptr_t)vc->rx >= VEC_ARENA_SIZE) {
		pass_on(sig, info, context);
		return;
	}
	bail = sig == SIGILL ? vc->bail_ill : sig == SIGFPE ? vc->bail_fp : vc->bail_fault;
	*rip = (greg_t)(uintptr_t)(vc->rx + bail);
}

static void
install(void)
{
	struct sigaction sa = { .sa_sigaction = on_signal, .sa_flags = SA_SIGINFO | SA_ONSTACK };

	sigemptyset(&sa.sa_mask);
	for (unsigned i = 0; i < 4; i++)
		sigaction(signals[i], &sa, &previous[i]);
}

void
vec_signals_install(void)
{
	pthread_once(&installed, install);
}

void
vec_signals_thread(struct vec_cache *vc)
{
	sigset_t set;

	if (running == vc)
		return;
	sigemptyset(&set);
	for (unsigned i = 0; i < 4; i++)
		sigaddset(&set, signals[i]);
	pthread_sigmask(SIG_UNBLOCK, &set, NULL); /* a blocked one would end the process */
	running = vc;
}

/* ---- the host ---- */

static uint64_t
host_xcr0(void)
{
	uint32_t lo, hi;

	__asm__ volatile("xgetbv" : "=a"(lo), "=d"(hi) : "c"(0));
	return (uint64_t)hi << 32 | lo;
}

static uint32_t
host_mxcsr_mask(void)
{
	uint8_t area[512] __attribute__((aligned(16))) = { 0 };
	uint32_t mask;

	__asm__ volatile("fxsave64 %0" : "=m"(area));
	memcpy(&mask, area + 28, 4);
	return mask ? mask : 0xffbf;
}

void
vec_host_detect(struct vec_host *h)
{
	uint32_t a, b, c, d;
	uint64_t xcr0 = 0;

	__cpuid(1, a, b, c, d);
	if (c & bit_OSXSAVE)
		xcr0 = host_xcr0();
	h->avx = (c & bit_AVX) && (xcr0 & 6) == 6;
	h->mxcsr_mask = host_mxcsr_mask();
	if (!__get_cpuid_count(7, 0, &a, &b, &c, &d))
		return;
	h->avx512 = h->avx && (b & bit_AVX512F) && (xcr0 & 0xe6) == 0xe6;
	h->avx512bw = h->avx512 && (b & bit_AVX512BW);
	h->fdp_exception_only = b >> 6 & 1;
}
