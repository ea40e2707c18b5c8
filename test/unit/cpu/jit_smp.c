/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Several CPUs on one memory: atomic operations of every kind lose nothing, locks exclude, stores are seen in the order
 * the architecture promises (SDM 3A 9.2), interrupts between CPUs arrive.
 */
#include "mini.h"

/* Each CPU has its number in R15 and, with LOCK, updates counters all CPUs share. */
#define ROUNDS 6400
#define R(n) #n
#define S(n) R(n)

static void
number_cpus(struct mini *f)
{
	for (int n = 0; n < f->cpus.count; n++)
		f->cpus.cpu[n]->state.gpr[R15] = (uint64_t)n;
}

GUEST(atomics, 64,
	"	mov r14d, " S(ROUNDS) "\n"
				      "	mov rbp, 0x200000\n"
				      "atomics_l: lock inc byte ptr [rbp]\n"
				      "	lock add word ptr [rbp + 0x10], 3\n"
				      "	lock sub dword ptr [rbp + 0x20], 1\n"
				      "	lock dec qword ptr [rbp + 0x30]\n"
				      "	mov eax, 1\n"
				      "	lock xadd [rbp + 0x40], eax\n"
				      "	mov r9, 5\n"
				      "	lock xadd [rbp + 0x48], r9\n"
				      "	mov rax, [rbp + 0x50]\n"
				      "1:	lea rdx, [rax + 1]\n"
				      "	lock cmpxchg [rbp + 0x50], rdx\n"
				      "	jne 1b\n"
				      "	mov eax, [rbp + 0x60]\n"
				      "	mov edx, [rbp + 0x64]\n"
				      "1:	mov ebx, eax\n"
				      "	mov ecx, edx\n"
				      "	add ebx, 1\n"
				      "	adc ecx, 0\n"
				      "	lock cmpxchg8b [rbp + 0x60]\n"
				      "	jne 1b\n"
				      "	mov rax, [rbp + 0x70]\n"
				      "	mov rdx, [rbp + 0x78]\n"
				      "1:	lea rbx, [rax + 1]\n"
				      "	lea rcx, [rdx + 2]\n"
				      "	lock cmpxchg16b [rbp + 0x70]\n"
				      "	jne 1b\n"
				      "	mov eax, 1\n"
				      "	mov ecx, r15d\n"
				      "	shl eax, cl\n"
				      "	lock xor [rbp + 0x80], eax\n" /* each CPU its bit, an even number of times */
				      "	lock btc dword ptr [rbp + 0x84], ecx\n"
				      "	lock neg dword ptr [rbp + 0x88]\n"
				      "	lock not dword ptr [rbp + 0x8c]\n"
				      /* misaligned; across two pages they are not atomic (cpu/interp/rmw.c) */
				      "	lock inc dword ptr [rbp + 0x91]\n"
				      "	test r14d, 63\n"
				      "	jnz 1f\n"
				      "	lock inc dword ptr [rbp + 0xbe]\n" /* across two cache lines: slow */
				      "1:\n"
				      "	dec r14d\n"
				      "	jnz atomics_l\n"
				      "	hlt\n");

static void
atomic_operations_lose_nothing(void **state)
{
	struct mini *f = *state;
	uint32_t n = ROUNDS * (unsigned)f->cpus.count;

	LOAD(f, atomics);
	number_cpus(f);
	put32(f, 0x200088, 1);
	mini_run_all(f);
	assert_int_equal(f->mem[0x200000], n & 0xff);
	assert_int_equal(get32(f, 0x200010) & 0xffff, 3 * n & 0xffff);
	assert_int_equal(get32(f, 0x200020), (uint32_t)-n);
	assert_int_equal(get64(f, 0x200030), (uint64_t) - (int64_t)n);
	assert_int_equal(get32(f, 0x200040), n);
	assert_int_equal(get64(f, 0x200048), 5ull * n);
	assert_int_equal(get64(f, 0x200050), n);
	assert_int_equal(get64(f, 0x200060), n);
	assert_int_equal(get64(f, 0x200070), n);
	assert_int_equal(get64(f, 0x200078), 2ull * n);
	assert_int_equal(get32(f, 0x200080), 0);
	assert_int_equal(get32(f, 0x200084), 0);
	assert_int_equal(get32(f, 0x200088), 1);
	assert_int_equal(get32(f, 0x20008c), 0);
	assert_int_equal(get32(f, 0x200091), n);
	assert_int_equal(get32(f, 0x2000be), n / 64);
}

/* A spin lock by XCHG, one by LOCK BTS, a ticket lock; what they protect is not atomic. */
GUEST(locks, 64,
	"	mov r14d, 1000\n"
	"	mov rbp, 0x200000\n"
	"locks_l: mov eax, 1\n"
	"1:	xchg [rbp], eax\n"
	"	test eax, eax\n"
	"	jz 2f\n"
	"	pause\n"
	"	jmp 1b\n"
	"2:	inc qword ptr [rbp + 0x100]\n"
	"	mov rcx, [rbp + 0x108]\n"
	"	inc rcx\n"
	"	mov [rbp + 0x108], rcx\n"
	"	mov dword ptr [rbp], 0\n"
	"1:	lock bts dword ptr [rbp + 0x40], 7\n"
	"	jnc 2f\n"
	"	pause\n"
	"	jmp 1b\n"
	"2:	inc qword ptr [rbp + 0x180]\n"
	"	lock btr dword ptr [rbp + 0x40], 7\n"
	"	mov eax, 1\n"
	"	lock xadd [rbp + 0x80], ax\n"
	"1:	cmp ax, [rbp + 0x84]\n"
	"	je 2f\n"
	"	pause\n"
	"	jmp 1b\n"
	"2:	inc qword ptr [rbp + 0x1c0]\n"
	"	inc word ptr [rbp + 0x84]\n"
	"	dec r14d\n"
	"	jnz locks_l\n"
	"	hlt\n");

static void
locks_exclude(void **state)
{
	struct mini *f = *state;
	uint64_t n = 1000 * (unsigned)f->cpus.count;

	LOAD(f, locks);
	mini_run_all(f);
	assert_int_equal(get64(f, 0x200100), n);
	assert_int_equal(get64(f, 0x200108), n);
	assert_int_equal(get64(f, 0x200180), n);
	assert_int_equal(get64(f, 0x2001c0), n);
}

/* CPU 0 writes data, then a flag; CPU 1 sees the flag and must see the data. Also by strings and vectors. */
GUEST(message, 64,
	"	mov rbp, 0x200000\n"
	"	mov ecx, 1\n"
	"	test r15d, r15d\n"
	"	jnz message_1\n"
	"message_0: mov [rbp + 0x40], rcx\n"
	"	movq xmm0, rcx\n"
	"	punpcklqdq xmm0, xmm0\n"
	"	movups [rbp + 0x80], xmm0\n"
	"	mov rax, rcx\n"
	"	lea rdi, [rbp + 0x100]\n"
	"	mov rdx, rcx\n"
	"	mov ecx, 8\n"
	"	rep stosq\n"
	"	mov rcx, rdx\n"
	"	mov [rbp], rcx\n"
	"1:	pause\n"
	"	cmp [rbp + 0x200], rcx\n"
	"	jne 1b\n"
	"	inc rcx\n"
	"	cmp rcx, 5000\n"
	"	jne message_0\n"
	"	hlt\n"
	"message_1: pause\n"
	"	cmp [rbp], rcx\n"
	"	jne message_1\n"
	"	cmp [rbp + 0x40], rcx\n"
	"	jne message_bad\n"
	"	cmp [rbp + 0x88], rcx\n"
	"	jne message_bad\n"
	"	cmp [rbp + 0x138], rcx\n"
	"	jne message_bad\n"
	"	mov [rbp + 0x200], rcx\n"
	"	inc rcx\n"
	"	cmp rcx, 5000\n"
	"	jne message_1\n"
	"	hlt\n"
	"message_bad: ud2\n");

static void
what_is_written_first_is_seen_first(void **state)
{
	struct mini *f = *state;

	LOAD(f, message);
	number_cpus(f);
	mini_run_all(f);
}

/*
 * Each of two CPUs stores to its own word, then loads the other's, with a barrier between (MFENCE, a locked operation,
 * XCHG by turns): not both may read the old value. Rounds are synchronised by a counter.
 */
GUEST(fence, 64,
	"	mov rbp, 0x200000\n"
	"	mov r14d, 1\n"
	"	mov r13d, r15d\n"
	"	shl r13d, 6\n"
	"	mov r12d, r13d\n"
	"	xor r12d, 0x40\n"
	"fence_l: lock inc dword ptr [rbp + 0x100]\n"
	"	lea ecx, [r14 * 2]\n"
	"1:	pause\n"
	"	cmp [rbp + 0x100], ecx\n"
	"	jb 1b\n"
	"	test r14d, 1\n"
	"	jz 2f\n"
	"	mov [rbp + r13], r14d\n"
	"	mfence\n"
	"	jmp 4f\n"
	"2:	test r14d, 2\n"
	"	jz 3f\n"
	"	mov [rbp + r13], r14d\n"
	"	lock or dword ptr [rsp - 8], 0\n"
	"	jmp 4f\n"
	"3:	mov eax, r14d\n"
	"	xchg [rbp + r13], eax\n"
	"4:	mov eax, [rbp + r12]\n"
	"	mov [rbp + r13 + 0x200], eax\n"
	"	lock inc dword ptr [rbp + 0x140]\n"
	"1:	pause\n"
	"	cmp [rbp + 0x140], ecx\n"
	"	jb 1b\n"
	"	cmp [rbp + 0x200], r14d\n"
	"	je 5f\n"
	"	cmp [rbp + 0x240], r14d\n"
	"	je 5f\n"
	"	ud2\n"
	"5:	lock inc dword ptr [rbp + 0x180]\n"
	"1:	pause\n"
	"	cmp [rbp + 0x180], ecx\n"
	"	jb 1b\n"
	"	inc r14d\n"
	"	cmp r14d, 2000\n"
	"	jne fence_l\n"
	"	hlt\n");

static void
barriers_are_barriers(void **state)
{
	struct mini *f = *state;

	LOAD(f, fence);
	number_cpus(f);
	mini_run_all(f);
}

/* An interrupt goes round all CPUs, each of which runs a loop with interrupts on. */
GUEST(ring, 64,
	"	mov rbp, 0x200000\n"
	"	xor r14d, r14d\n"
	"	sti\n"
	"	test r15d, r15d\n"
	"	jnz ring_l\n"
	"	out 0x20, al\n" /* the first, to itself */
	"ring_l: inc r14\n"
	"	cmp dword ptr [rbp], 600\n"
	"	jb ring_l\n"
	"	cli\n"
	"	hlt\n"
	"ring_irq: push rax\n"
	"	inc dword ptr [rbp]\n" /* one at a time: it is passed on by this */
	"	mov eax, r15d\n"
	"	inc eax\n"
	"	cmp eax, r13d\n"
	"	jb 1f\n"
	"	xor eax, eax\n"
	"1:	out 0x20, al\n"
	"	pop rax\n"
	"	iretq\n");
LABEL(ring_irq);

static void
an_interrupt_goes_round_all_cpus(void **state)
{
	struct mini *f = *state;

	LOAD(f, ring);
	mini_gate(f, 0x40, ADDRESS(ring, ring_irq), 0);
	number_cpus(f);
	for (int n = 0; n < f->cpus.count; n++) {
		f->cpus.cpu[n]->state.gpr[R13] = (uint64_t)f->cpus.count;
		f->cpus.cpu[n]->state.gpr[RAX] = 0;
	}
	mini_run_all(f);
	assert_in_range(get32(f, 0x200000), 600, 600 + (unsigned)f->cpus.count);
}

/* All CPUs map pages, each its own, into tables they share, write to them, execute in them and unmap them. */
GUEST(pages, 64,
	"	mov rbp, 0x200000\n"
	"	mov r14d, 300\n"
	"pages_l: mov eax, r14d\n"
	"	and eax, 31\n"
	"	mov ecx, r15d\n"
	"	shl ecx, 5\n"
	"	add eax, ecx\n"
	"	mov edi, r15d\n"
	"	shl edi, 15\n"
	"	add edi, 0x380000\n" /* where this CPU maps them */
	"	mov ebx, edi\n"
	"	shr ebx, 12\n"
	"	mov ecx, eax\n"
	"	shl ecx, 12\n"
	"	lea rcx, [rcx + 0x300007]\n"
	"	mov [0x13000 + rbx * 8], rcx\n"
	"	invlpg [rdi]\n"
	"	mov byte ptr [rdi], 0xb8\n" /* mov eax, r14d; ret */
	"	mov [rdi + 1], r14d\n"
	"	mov byte ptr [rdi + 5], 0xc3\n"
	"	call rdi\n"
	"	cmp eax, r14d\n"
	"	jne pages_maybe\n"
	"pages_n: mov qword ptr [0x13000 + rbx * 8], 0\n"
	"	invlpg [rdi]\n"
	"	dec r14d\n"
	"	jnz pages_l\n"
	"	hlt\n"
	"pages_maybe: ud2\n");

static void
pages_come_and_go_on_all_cpus(void **state)
{
	struct mini *f = *state;

	LOAD(f, pages);
	number_cpus(f);
	mini_run_all(f);
}

static const struct CMUnitTest tests[] = {
	TEST_2(atomic_operations_lose_nothing),
	TEST_4(atomic_operations_lose_nothing),
	TEST_2(locks_exclude),
	TEST_4(locks_exclude),
	TEST_2(what_is_written_first_is_seen_first),
	TEST_2(barriers_are_barriers),
	TEST_4(an_interrupt_goes_round_all_cpus),
	TEST_4(pages_come_and_go_on_all_cpus),
};

int
main(void)
{
	return mini_main("several CPUs", tests, ARRAY_LEN(tests), NULL, 0);
}
