/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Exceptions and interrupts: which instruction they are taken at, and what the handler finds. Registers and flags at
 * faults in the middle of code, single step, breakpoints, interrupts that wait for their moment and that come at any,
 * faults in handlers, encodings that only look valid, jumps to where no code can be.
 */
#include "mini.h"

#include <pthread.h>
#include <sys/mman.h>

/* ---- what the handler of a fault finds ---- */

/* Sixteen registers with known values, then an access that faults in one of many ways. The handler saves them all. */
#define SAVE_ALL(name)                                                                                                 \
#name "_pf: mov [0x200000 + 8 * 0], rax\n"                                                                     \
	      "	mov [0x200000 + 8 * 1], rcx\n"                                                                         \
	      "	mov [0x200000 + 8 * 2], rdx\n"                                                                         \
	      "	mov [0x200000 + 8 * 3], rbx\n"                                                                         \
	      "	mov [0x200000 + 8 * 5], rbp\n"                                                                         \
	      "	mov [0x200000 + 8 * 6], rsi\n"                                                                         \
	      "	mov [0x200000 + 8 * 7], rdi\n"                                                                         \
	      "	mov [0x200000 + 8 * 8], r8\n"                                                                          \
	      "	mov [0x200000 + 8 * 9], r9\n"                                                                          \
	      "	mov [0x200000 + 8 * 10], r10\n"                                                                        \
	      "	mov [0x200000 + 8 * 11], r11\n"                                                                        \
	      "	mov [0x200000 + 8 * 12], r12\n"                                                                        \
	      "	mov [0x200000 + 8 * 13], r13\n"                                                                        \
	      "	mov [0x200000 + 8 * 14], r14\n"                                                                        \
	      "	mov [0x200000 + 8 * 15], r15\n"                                                                        \
	      "	mov rax, [rsp + 32]\n"                                                                                 \
	      "	mov [0x200000 + 8 * 4], rax\n" /* RSP */                                                               \
	      "	mov rax, [rsp + 8]\n"                                                                                  \
	      "	mov [0x200000 + 8 * 16], rax\n" /* RIP */                                                              \
	      "	mov rax, [rsp + 24]\n"                                                                                 \
	      "	mov [0x200000 + 8 * 17], rax\n" /* RFLAGS */                                                           \
	      "	hlt\n"

GUEST(regs, 64,
	"	mov rax, 0x1111111111111110\n"
	"	mov rcx, 0x1111111111111111\n"
	"	mov rdx, 0x1111111111111112\n"
	"	mov rbx, 0x1111111111111113\n"
	"	mov rbp, 0x340000\n" /* not there */
	"	mov rsi, 0x1111111111111116\n"
	"	mov rdi, 0x1111111111111117\n"
	"	mov r8, 0x1111111111111118\n"
	"	mov r9, 0x1111111111111119\n"
	"	mov r10, 0x111111111111111a\n"
	"	mov r11, 0x111111111111111b\n"
	"	mov r12, 0x111111111111111c\n"
	"	mov r13, 0x111111111111111d\n"
	"	mov r14, 0x111111111111111e\n"
	"	mov r15, 0x111111111111111f\n"
	"	fninit\n"
	"	cmp r15, r14\n"
	"	jmp regs_f\n"
	"	.balign 256\n"
	"regs_f: .fill 16, 1, 0x90\n" /* the instruction is put here */
	"	ud2\n" SAVE_ALL(regs));
LABEL(regs_f);
LABEL(regs_pf);

static void
all_registers_are_right_at_a_fault(void **state)
{
	struct mini *f = *state;
	static const struct {
		const char *what;
		uint8_t code[15];
	} insns[] = {
		{ "mov rax, [rbp]", { 0x48, 0x8b, 0x45, 0x00 } },
		{ "mov [rbp], r9", { 0x4c, 0x89, 0x4d, 0x00 } },
		{ "mov r10, [rbp]", { 0x4c, 0x8b, 0x55, 0x00 } },
		{ "mov ecx, [rbp]", { 0x8b, 0x4d, 0x00 } },
		{ "add r15, [rbp]", { 0x4c, 0x03, 0x7d, 0x00 } },
		{ "add [rbp], r11", { 0x4c, 0x01, 0x5d, 0x00 } },
		{ "lock add [rbp], r11", { 0xf0, 0x4c, 0x01, 0x5d, 0x00 } },
		{ "xchg [rbp], rcx", { 0x48, 0x87, 0x4d, 0x00 } },
		{ "xchg [rbp], r10", { 0x4c, 0x87, 0x55, 0x00 } },
		{ "cmpxchg [rbp], rcx", { 0x48, 0x0f, 0xb1, 0x4d, 0x00 } },
		{ "cmpxchg16b [rbp]", { 0x48, 0x0f, 0xc7, 0x4d, 0x00 } },
		{ "xadd [rbp], r15", { 0x4c, 0x0f, 0xc1, 0x7d, 0x00 } },
		{ "shl qword [rbp], cl", { 0x48, 0xd3, 0x65, 0x00 } },
		{ "shld [rbp], r9, cl", { 0x4c, 0x0f, 0xa5, 0x4d, 0x00 } },
		{ "bts [rbp], edx", { 0x0f, 0xab, 0x55, 0x00 } },
		{ "push [rbp]", { 0xff, 0x75, 0x00 } },
		{ "pop [rbp]", { 0x8f, 0x45, 0x00 } },
		{ "call [rbp]", { 0xff, 0x55, 0x00 } },
		{ "jmp [rbp]", { 0xff, 0x65, 0x00 } },
		{ "mul qword [rbp]", { 0x48, 0xf7, 0x65, 0x00 } },
		{ "div qword [rbp]", { 0x48, 0xf7, 0x75, 0x00 } },
		{ "imul r9, [rbp], 3", { 0x4c, 0x6b, 0x4d, 0x00, 0x03 } },
		{ "movzx ecx, byte [rbp]", { 0x0f, 0xb6, 0x4d, 0x00 } },
		{ "setc [rbp]", { 0x0f, 0x92, 0x45, 0x00 } },
		{ "cmovne rcx, [rbp]", { 0x48, 0x0f, 0x45, 0x4d, 0x00 } },
		{ "adc [rbp], ecx", { 0x11, 0x4d, 0x00 } },
		{ "movups xmm0, [rbp]", { 0x0f, 0x10, 0x45, 0x00 } },
		{ "movups [rbp], xmm0", { 0x0f, 0x11, 0x45, 0x00 } },
		{ "addsd xmm0, [rbp]", { 0xf2, 0x0f, 0x58, 0x45, 0x00 } },
		{ "cvttsd2si rcx, [rbp]", { 0xf2, 0x48, 0x0f, 0x2c, 0x4d, 0x00 } },
		{ "ucomisd xmm0, [rbp]", { 0x66, 0x0f, 0x2e, 0x45, 0x00 } },
		{ "fld qword [rbp]", { 0xdd, 0x45, 0x00 } },
		{ "fnstcw [rbp]", { 0xd9, 0x7d, 0x00 } },
		{ "movq mm0, [rbp]", { 0x0f, 0x6f, 0x45, 0x00 } },
		{ "fxsave [rbp]", { 0x0f, 0xae, 0x45, 0x00 } },
		{ "crc32 ecx, byte [rbp]", { 0xf2, 0x0f, 0x38, 0xf0, 0x4d, 0x00 } },
		{ "movbe rcx, [rbp]", { 0x48, 0x0f, 0x38, 0xf0, 0x4d, 0x00 } },
		{ "popcnt r9, [rbp]", { 0xf3, 0x4c, 0x0f, 0xb8, 0x4d, 0x00 } },
		{ "mov eax, moffs", { 0xa1, 0x00, 0x00, 0x34, 0, 0, 0, 0, 0 } },
		{ "mov eax, cs", { 0x8c, 0x4d, 0x00 } },
	};

	put64(f, mini_pte(0x340000), 0);
	for (unsigned i = 0; i < ARRAY_LEN(insns); i++) {
		LOAD(f, regs);
		memset(f->mem + ADDRESS(regs, regs_f), 0x90, 16);
		memcpy(f->mem + ADDRESS(regs, regs_f), insns[i].code, 15);
		mem_written(&f->m.mem, CODE_AT, PAGE_SIZE);
		mini_gate(f, EXC_PF, ADDRESS(regs, regs_pf), 1);
		mini_long(f, 0, CODE_AT);
		f->cpus.cpu[0]->state.x87.fcw = 0x37f;
		assert_int_equal(mini_go(f), CPU_EXIT_HALT);
		if (mini_vector(f) >= 0)
			fail_msg("%s: vector %d", insns[i].what, mini_vector(f));
		for (unsigned r = 0; r < 16; r++) {
			uint64_t want = r == 4 ? STACK_AT : r == 5 ? 0x340000 : 0x1111111111111110 + r;

			if (get64(f, 0x200000 + 8 * r) != want)
				fail_msg("%s: register %u is %llx", insns[i].what, r,
					(unsigned long long)get64(f, 0x200000 + 8 * r));
		}
		assert_int_equal(get64(f, 0x200000 + 8 * 16), ADDRESS(regs, regs_f));
	}
}

/*
 * Flags: each row is an instruction that sets them from rax and rbx, then one that faults and does not set any; behind
 * it all flags are read. The image has to have them.
 */
GUEST(flags, 64,
	"	mov rbp, 0x340000\n"
	"	mov rcx, 5\n"
	"	clc\n"
	"flags_op: .fill 8, 1, 0x90\n"
	"flags_f: .fill 8, 1, 0x90\n"
	"	pushfq\n"
	"	pop r8\n"
	"	hlt\n"
	"flags_pf: mov r12, [rsp + 24]\n"
	"	mov qword ptr [0x13000 + 8 * 0x340], 0x340007\n"
	"	invlpg [0x340000]\n"
	"	add rsp, 8\n"
	"	xor edi, edi\n" /* flags of the handler's own */
	"	iretq\n");
LABEL(flags_op);
LABEL(flags_f);
LABEL(flags_pf);

static uint64_t
bare_flags(const uint8_t op[8], uint64_t a, uint64_t b)
{
	uint8_t *code = (uint8_t *)(uintptr_t)0x7e000000;
	uint64_t result;

	/* push 2; popfq; op; pushfq; pop rdx; ret */
	memcpy(code, (const uint8_t[]){ 0x6a, 2, 0x9d }, 3);
	memcpy(code + 3, op, 8);
	memcpy(code + 11, (const uint8_t[]){ 0x9c, 0x5a, 0xc3 }, 3);
	__asm__ volatile("sub $128, %%rsp\n\tcall *%4\n\tadd $128, %%rsp"
			 : "=d"(result), "+a"(a), "+b"(b)
			 : "c"(5ull), "r"(code)
			 : "cc", "memory", "rsi");
	return result & 0x8d5;
}

static void
flags_are_right_at_a_fault_and_behind_it(void **state)
{
	struct mini *f = *state;
	static const uint8_t ops[][8] = {
		{ 0x48, 0x01, 0xd8, 0x90, 0x90, 0x90, 0x90, 0x90 }, /* add rax, rbx */
		{ 0x29, 0xd8, 0x90, 0x90, 0x90, 0x90, 0x90, 0x90 }, /* sub eax, ebx */
		{ 0x38, 0xd8, 0x90, 0x90, 0x90, 0x90, 0x90, 0x90 }, /* cmp al, bl */
		{ 0x66, 0x11, 0xd8, 0x90, 0x90, 0x90, 0x90, 0x90 }, /* adc ax, bx */
		{ 0x48, 0x85, 0xd8, 0x90, 0x90, 0x90, 0x90, 0x90 }, /* test rax, rbx */
		{ 0xff, 0xc0, 0x90, 0x90, 0x90, 0x90, 0x90, 0x90 }, /* inc eax */
		{ 0x48, 0xf7, 0xd8, 0x90, 0x90, 0x90, 0x90, 0x90 }, /* neg rax */
		{ 0x48, 0xd1, 0xe0, 0x90, 0x90, 0x90, 0x90, 0x90 }, /* shl rax, 1 */
		{ 0xf9, 0xd1, 0xd8, 0x90, 0x90, 0x90, 0x90, 0x90 }, /* stc; rcr eax, 1 */
		{ 0x0f, 0xba, 0xe0, 0x07, 0x90, 0x90, 0x90, 0x90 }, /* bt eax, 7 */
		{ 0xf9, 0xfd, 0xfc, 0x90, 0x90, 0x90, 0x90, 0x90 }, /* stc; std; cld */
		{ 0xb4, 0xd5, 0x9e, 0x90, 0x90, 0x90, 0x90, 0x90 }, /* mov ah, 0xd5; sahf */
		{ 0x0f, 0xb0, 0xdb, 0x90, 0x90, 0x90, 0x90, 0x90 }, /* cmpxchg bl, bl */
		{ 0x0f, 0xc1, 0xd8, 0x90, 0x90, 0x90, 0x90, 0x90 }, /* xadd eax, ebx */
		{ 0x48, 0x39, 0xd8, 0x89, 0xc6, 0x0f, 0x44, 0xf3 }, /* cmp rax, rbx; mov esi, eax; cmove esi, ebx */
	};
	static const uint8_t faults[][8] = {
		{ 0x8a, 0x55, 0x00, 0x90, 0x90, 0x90, 0x90, 0x90 }, /* mov dl, [rbp] */
		{ 0x88, 0x55, 0x00, 0x90, 0x90, 0x90, 0x90, 0x90 }, /* mov [rbp], dl */
		{ 0x4c, 0x8b, 0x4d, 0x00, 0x90, 0x90, 0x90, 0x90 }, /* mov r9, [rbp] */
		{ 0xff, 0x75, 0x00, 0x41, 0x5b, 0x90, 0x90, 0x90 }, /* push [rbp]; pop r11 */
		{ 0x0f, 0x10, 0x45, 0x00, 0x90, 0x90, 0x90, 0x90 }, /* movups xmm0, [rbp] */
		{ 0x0f, 0x11, 0x45, 0x00, 0x90, 0x90, 0x90, 0x90 }, /* movups [rbp], xmm0 */
		{ 0x0f, 0x94, 0x45, 0x00, 0x90, 0x90, 0x90, 0x90 }, /* sete [rbp] */
		{ 0x48, 0x87, 0x55, 0x00, 0x90, 0x90, 0x90, 0x90 }, /* xchg [rbp], rdx */
		{ 0x48, 0x0f, 0x42, 0x75, 0x00, 0x90, 0x90, 0x90 }, /* cmovb rsi, [rbp] */
		{ 0xd9, 0xee, 0xdd, 0x5d, 0x00, 0x90, 0x90, 0x90 }, /* fldz; fstp qword [rbp] */
		{ 0x48, 0x89, 0xef, 0xaa, 0x90, 0x90, 0x90, 0x90 }, /* mov rdi, rbp; stosb */
		{ 0xc4, 0xe2, 0xfb, 0xf6, 0x75, 0x00, 0x90, 0x90 }, /* mulx rsi, rax, [rbp] */
		{ 0x48, 0xf7, 0x55, 0x00, 0x90, 0x90, 0x90, 0x90 }, /* not qword [rbp] */
	};
	static const uint64_t values[][2] = { { 0, 0 }, { 1, UINT64_MAX }, { 0x7fffffff, 1 },
		{ 0x80000000, 0x80000000 }, { 0x7fffffffffffffff, 1 }, { 0x8f, 0x71 }, { 3, 5 }, { 0x10, 0xf } };
	void *p = mmap((void *)0x7e000000, PAGE_SIZE, PROT_READ | PROT_WRITE | PROT_EXEC,
		MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);

	assert_ptr_equal(p, (void *)0x7e000000);
	for (unsigned o = 0; o < ARRAY_LEN(ops); o++)
		for (unsigned k = 0; k < ARRAY_LEN(faults); k++) {
			if (k == 11 && !__builtin_cpu_supports("bmi2"))
				continue;
			LOAD(f, flags);
			memcpy(f->mem + ADDRESS(flags, flags_op), ops[o], 8);
			memcpy(f->mem + ADDRESS(flags, flags_f), faults[k], 8);
			mem_written(&f->m.mem, CODE_AT, PAGE_SIZE);
			mini_gate(f, EXC_PF, ADDRESS(flags, flags_pf), 1);
			for (unsigned v = 0; v < ARRAY_LEN(values); v++) {
				uint64_t want = bare_flags(ops[o], values[v][0], values[v][1]);

				put64(f, mini_pte(0x340000), 0);
				mini_long(f, 0, CODE_AT);
				f->cpus.cpu[0]->state.x87.fcw = 0x37f;
				REG(f, RAX) = values[v][0];
				REG(f, RBX) = values[v][1];
				assert_int_equal(mini_go(f), CPU_EXIT_HALT);
				if (mini_vector(f) >= 0 || (REG(f, R12) & 0x8d5) != want ||
					(REG(f, R8) & 0x8d5) != want)
					fail_msg("operation %u, fault %u, values %u: flags %llx, at the fault %llx, "
						 "behind it %llx, vector %d",
						o, k, v, (unsigned long long)want,
						(unsigned long long)REG(f, R12) & 0x8d5,
						(unsigned long long)REG(f, R8) & 0x8d5, mini_vector(f));
			}
		}
	munmap(p, PAGE_SIZE);
}

/* CALL and JMP end a block: flags have to be right when they fault. */
GUEST(callflags, 64,
	"	mov rbp, 0x340000\n"
	"	lea rax, [rip + callflags_t]\n"
	"	mov r8, rsp\n"
	"	lea rsp, [rbp + 8]\n"
	"	mov cl, 0x7f\n"
	"	add cl, 1\n" /* OF, SF, AF */
	"callflags_f: call rax\n"
	"	.byte 0xeb, 0\n"
	"callflags_t: xor ecx, ecx\n"
	"	hlt\n");

static void
flags_are_right_when_a_call_faults(void **state)
{
	struct mini *f = *state;

	for (unsigned pass = 0; pass < 2; pass++) { /* the second time the target is known */
		put64(f, mini_pte(0x340000), 0);
		for (unsigned v = 0; v < 32; v++)
			mini_gate(f, v, HANDLERS_AT + v, 1);
		LOAD(f, callflags);
		mini_long(f, 0, CODE_AT);
		assert_int_equal(mini_go(f), CPU_EXIT_HALT);
		assert_int_equal(mini_vector(f), EXC_PF);
		assert_int_equal(get64(f, REG(f, RSP) + 24) & 0x8d5, FLAG_OF | FLAG_SF | FLAG_AF);
		assert_int_equal(get64(f, REG(f, RSP) + 32), 0x340008);
		put64(f, mini_pte(0x340000), 0x340007);
		mini_long(f, 0, CODE_AT);
		assert_int_equal(mini_go(f), CPU_EXIT_HALT);
		assert_int_equal(mini_vector(f), -1);
	}
}

/* ---- single step and breakpoints ---- */

struct trace { /* of the two engines */
	uint64_t at[2][SEEN_MAX];
	unsigned count[2];
};

/* #DB: note RIP, and DR6. */
#define TRACE(name)                                                                                                    \
#name "_db: push rax\n"                                                                                        \
	      "	push rdi\n"                                                                                            \
	      "	mov rdi, [0x200000]\n"                                                                                 \
	      "	mov rax, [rsp + 16]\n"                                                                                 \
	      "	mov [0x200100 + rdi * 8], rax\n"                                                                       \
	      "	mov rax, dr6\n"                                                                                        \
	      "	shl rax, 32\n"                                                                                         \
	      "	or [0x200100 + rdi * 8], rax\n"                                                                        \
	      "	mov eax, 0xffff0ff0\n"                                                                                 \
	      "	mov dr6, rax\n"                                                                                        \
	      "	inc qword ptr [0x200000]\n"                                                                            \
	      "	bts qword ptr [rsp + 32], 16\n" /* RF, for instruction breakpoints */                                  \
	      "	pop rdi\n"                                                                                             \
	      "	pop rax\n"                                                                                             \
	      "	iretq\n"

GUEST(step, 64,
	"	pushfq\n"
	"	or qword ptr [rsp], 0x100\n"
	"	popfq\n"
	"step_0: nop\n" /* the first trap comes behind this */
	"step_1: mov eax, 1\n"
	"step_2: add eax, [rsp]\n"
	"	call step_f\n"
	"step_3: jmp step_4\n"
	"	ud2\n"
	"step_4: test eax, eax\n"
	"	jz step_5\n"
	"	mov ecx, 3\n"
	"	mov rdi, 0x210000\n"
	"	rep stosb\n" /* a trap behind each round */
	"step_5: mov ss, edx\n"
	"	nop\n" /* no trap in front of this */
	"	movups xmm0, [rsp]\n"
	"	fninit\n"
	"	lock inc qword ptr [0x210000]\n"
	"	cpuid\n"
	"	push rax\n"
	"	pop rbx\n"
	"	int 0x50\n" /* its handler runs without trap, and so does the way back until the next instruction */
	"	xor eax, eax\n"
	"	pushfq\n"
	"	and qword ptr [rsp], -257\n"
	"	popfq\n" /* the trap of POPF itself is the last */
	"	nop\n"
	"	hlt\n"
	"step_f: mov ebx, eax\n"
	"	ret\n"
	"step_int: inc r8\n"
	"	iretq\n" TRACE(step));
LABEL(step_int);
LABEL(step_db);
LABEL(step_1);

/* Note the traps; under the translator they have to be the interpreter's. */
static void
keep_trace(struct mini *f, struct trace *t)
{
	unsigned e = engine == &cpu_engine_jit;

	t->count[e] = (unsigned)get64(f, 0x200000);
	assert_in_range(t->count[e], 1, SEEN_MAX);
	for (unsigned i = 0; i < t->count[e]; i++)
		t->at[e][i] = get64(f, 0x200100 + 8 * i);
	for (unsigned i = 0; e && i < t->count[0] && i < t->count[1]; i++)
		if (t->at[0][i] != t->at[1][i])
			fail_msg("trap %u: %llx, interpreter %llx", i, (unsigned long long)t->at[1][i],
				(unsigned long long)t->at[0][i]);
	if (e)
		assert_int_equal(t->count[0], t->count[1]);
}

static void
each_instruction_traps_in_single_step(void **state)
{
	static struct trace t;
	struct mini *f = *state;

	mini_gate(f, EXC_DB, ADDRESS(step, step_db), 1);
	mini_gate(f, 0x50, ADDRESS(step, step_int), 0);
	LOAD(f, step);
	mini_long(f, 0, CODE_AT);
	REG(f, RDX) = SEL_DATA;
	assert_int_equal(mini_go(f), CPU_EXIT_HALT);
	assert_int_equal(mini_vector(f), -1);
	keep_trace(f, &t);
	assert_int_equal(REG(f, R8), 1);
	assert_int_equal(get64(f, 0x200100), ADDRESS(step, step_1) | 0xffff4ff0ull << 32);
	assert_in_range(t.count[0], 25, 32);
}

GUEST(debug, 64,
	"	mov rax, " AT(debug, debug_x) "\n"
					      "	mov dr0, rax\n"
					      "	mov rax, 0x210000\n"
					      "	mov dr1, rax\n"
					      "	mov rax, 0x210100\n"
					      "	mov dr2, rax\n"
					      "	mov eax, 0x7d0000 + 0xdd00000 * 0 + 0x3f + 0xd0000000 * 0\n"
					      "	mov eax, 0x0fd00000 + 0x3f\n" /* DR0 execute; DR1 write, 4 bytes; DR2
										 read or write, 4 bytes */
					      "	mov dr7, rax\n"
					      "	mov ecx, 5\n"
					      "debug_l: add r8, rcx\n"
					      "	mov r9, r8\n"
					      "debug_x: inc r10\n"
					      "	mov eax, [0x210000]\n"		  /* a read: not DR1's */
					      "	mov [0x210002], cl\n"		  /* DR1 */
					      "	mov [0x20fffd], rcx\n"		  /* reaches into DR1 */
					      "	movzx eax, byte ptr [0x210100]\n" /* DR2 */
					      "	movups xmm0, [0x2100f8]\n"	  /* DR2 */
					      "	push rcx\n"
					      "	pop rdx\n"
					      "	mov [0x210004], cl\n" /* beside DR1 */
					      "	dec ecx\n"
					      "	jnz debug_l\n"
					      "	xor eax, eax\n"
					      "	mov dr7, rax\n"
					      "	inc r10\n"
					      "	mov [0x210000], eax\n"
					      "	hlt\n" TRACE(debug));
LABEL(debug_db);

static void
breakpoints_on_code_and_data(void **state)
{
	static struct trace t;
	struct mini *f = *state;

	mini_gate(f, EXC_DB, ADDRESS(debug, debug_db), 1);
	RUN(f, debug);
	keep_trace(f, &t);
	assert_int_equal(t.count[0], 25);
	assert_int_equal(REG(f, R10), 6);
}

/* ---- interrupts ---- */

/*
 * An interrupt waits; STI, POPF or IRET let it in. It is taken behind exactly the instruction the SDM names: the
 * handler notes RIP.
 */
GUEST(moment, 64,
	"	xor r9d, r9d\n"
	"	xor eax, eax\n" /* CPU 0 */
	"	mov rbp, 0x210000\n"
	"	out 0x20, al\n"
	"	sti\n"
	"moment_a: nop\n"
	"moment_a2: cli\n"
	"	out 0x20, al\n"
	"	sti\n"
	"	mov [rbp], r9\n"
	"moment_b: cli\n"
	"	out 0x20, al\n"
	"	sti\n"
	"	jmp moment_c\n"
	"	ud2\n"
	"moment_c: cli\n"
	"	out 0x20, al\n"
	"	pushfq\n"
	"	or qword ptr [rsp], 0x200\n"
	"	popfq\n" /* no shadow */
	"moment_d: cli\n"
	"	out 0x20, al\n"
	"	mov rdx, rsp\n"
	"	push 0x10\n"
	"	push rdx\n"
	"	push 0x202\n"
	"	push 8\n"
	"	lea rdx, [rip + moment_e]\n"
	"	push rdx\n"
	"	iretq\n"
	"moment_e: cli\n"
	"	out 0x20, al\n"
	"	sti\n"
	"	mov ss, ecx\n" /* the shadow of STI, then that of MOV SS */
	"moment_f0: nop\n"
	"moment_f: cli\n"
	"	sti\n"
	"	nop\n"
	"	out 0x20, al\n"
	"moment_g: nop\n"
	"	cli\n"
	"	hlt\n"
	"moment_irq: mov rdx, [rsp]\n"
	"	mov [0x200000 + r9 * 8], rdx\n"
	"	inc r9\n"
	"	iretq\n");
LABEL(moment_a2);
LABEL(moment_b);
LABEL(moment_c);
LABEL(moment_d);
LABEL(moment_e);
LABEL(moment_f);
LABEL(moment_g);
LABEL(moment_irq);

static void
an_interrupt_that_waits_is_taken_at_its_moment(void **state)
{
	struct mini *f = *state;

	mini_gate(f, 0x40, ADDRESS(moment, moment_irq), 0);
	/* handlers of the interrupt are entered with IF off: an interrupt gate */
	LOAD(f, moment);
	mini_long(f, 0, CODE_AT);
	REG(f, RCX) = SEL_DATA;
	assert_int_equal(mini_go(f), CPU_EXIT_HALT);
	assert_int_equal(mini_vector(f), -1);
	assert_int_equal(REG(f, R9), 7);
	assert_int_equal(get64(f, 0x200000), ADDRESS(moment, moment_a2));
	assert_int_equal(get64(f, 0x200008), ADDRESS(moment, moment_b));
	assert_int_equal(get64(f, 0x200010), ADDRESS(moment, moment_c));
	assert_int_equal(get64(f, 0x200018), ADDRESS(moment, moment_d));
	assert_int_equal(get64(f, 0x200020), ADDRESS(moment, moment_e));
	assert_int_equal(get64(f, 0x200028), ADDRESS(moment, moment_f));
	assert_int_equal(get64(f, 0x200030), ADDRESS(moment, moment_g));
}

/*
 * Interrupts as fast as another thread can send them into a loop that checks itself: registers,
 * flags across instructions, the stack, vector registers and string instructions. The handler uses everything.
 */
GUEST(storm, 64,
	"	fninit\n"
	"	mov rbp, 0x210000\n"
	"	pcmpeqd xmm7, xmm7\n"
	"	sti\n"
	"storm_l: mov rax, 0x7fffffffffffffff\n"
	"	add rax, 1\n" /* OF, SF, AF */
	"	mov rcx, [rbp]\n"
	"	jno storm_bad\n"
	"	lea rdx, [rcx + 1]\n"
	"	mov [rbp], rdx\n"
	"	jns storm_bad\n"
	"	push rdx\n"
	"	call storm_f\n"
	"	pop rbx\n"
	"	cmp rbx, rdx\n"
	"	jne storm_bad\n"
	"	movq xmm0, rdx\n"
	"	paddq xmm0, xmm0\n"
	"	movq rsi, xmm0\n"
	"	shr rsi, 1\n"
	"	cmp rsi, rdx\n"
	"	jne storm_bad\n"
	"	lea rsi, [rbp + 0x1000]\n"
	"	lea rdi, [rbp + 0x2003]\n"
	"	mov ecx, 40\n"
	"	rep movsb\n"
	"	test ecx, ecx\n"
	"	jnz storm_bad\n"
	"	pcmpeqd xmm1, xmm1\n"
	"	pcmpeqb xmm1, xmm7\n"
	"	pmovmskb eax, xmm1\n"
	"	cmp eax, 0xffff\n"
	"	jne storm_bad\n"
	"	mov eax, 0\n"
	"	lock cmpxchg [rbp + 64], eax\n"
	"	cmp qword ptr [0x200000], 400\n"
	"	jb storm_l\n"
	"	cli\n"
	"	hlt\n"
	"storm_f: mov r8, [rsp + 8]\n"
	"	cmp r8, rdx\n"
	"	jne storm_bad\n"
	"	ret\n"
	"storm_bad: cli\n"
	"	mov edi, 0xbad\n"
	"	hlt\n"
	"storm_irq: push rax\n"
	"	push rcx\n"
	"	push rdi\n"
	"	sub rsp, 32\n"
	"	movups [rsp], xmm0\n"
	"	movups [rsp + 16], xmm7\n"
	"	mov rax, [rsp + 56]\n"
	"	mov [0x200008], rax\n"
	"	inc qword ptr [0x200000]\n"
	"	pxor xmm0, xmm0\n"
	"	pxor xmm7, xmm7\n"
	"	mov rdi, 0x220000\n"
	"	mov ecx, 8\n"
	"	xor eax, eax\n"
	"	rep stosq\n"
	"	movups xmm0, [rsp]\n"
	"	movups xmm7, [rsp + 16]\n"
	"	add rsp, 32\n"
	"	pop rdi\n"
	"	pop rcx\n"
	"	pop rax\n"
	"	iretq\n");
LABEL(storm_irq);

struct sender {
	struct mini *f;
	_Atomic bool stop;
};

static void *
send_interrupts(void *opaque)
{
	struct sender *s = opaque;
	struct cpu_port *p = &s->f->m.intc.cpu[0];

	while (!s->stop) {
		machine_lock(&s->f->m);
		p->signal(p->opaque, CPU_INTR, 1);
		machine_unlock(&s->f->m);
		for (volatile int i = 0; i < 50; i++)
			;
	}
	return NULL;
}

static void
interrupts_at_any_moment_disturb_nothing(void **state)
{
	struct mini *f = *state;
	struct sender s = { .f = f };
	pthread_t t;

	LOAD(f, storm);
	mini_gate(f, 0x40, ADDRESS(storm, storm_irq), 1);
	mini_long(f, 0, CODE_AT);
	pthread_create(&t, NULL, send_interrupts, &s);
	assert_int_equal(mini_go(f), CPU_EXIT_HALT);
	s.stop = true;
	pthread_join(t, NULL);
	assert_int_equal(mini_vector(f), -1);
	assert_int_not_equal(REG(f, RDI), 0xbad);
	assert_true(get64(f, 0x200000) >= 400);
}

GUEST(nmi, 64,
	"	xor eax, eax\n"
	"	xor ecx, ecx\n"
	"	mov edx, 0x30\n"
	"	out dx, al\n" /* in spite of IF = 0 */
	"nmi_1: mov ebx, ecx\n"
	"	hlt\n"
	"nmi_h: inc ecx\n"
	"	cmp ecx, 2\n"
	"	je 1f\n"
	"	out dx, al\n" /* waits until IRET */
	"	nop\n"
	"	cmp ecx, 1\n"
	"	jne 2f\n"
	"1:	iretq\n"
	"2:	ud2\n");
LABEL(nmi_h);

static void
an_nmi_waits_for_the_end_of_another(void **state)
{
	struct mini *f = *state;

	mini_gate(f, EXC_NMI, ADDRESS(nmi, nmi_h), 1);
	RUN(f, nmi);
	assert_int_equal(REG(f, RCX), 2);
	assert_int_equal(REG(f, RBX), 2);
}

/* ---- faults in handlers ---- */

/* The handler of a page fault touches a page that is missing too, whose fault does the same, four deep. */
GUEST(nested, 64,
	"	mov rax, 0x340000\n"
	"	mov rbx, [rax]\n"
	"	mov rcx, [0x200000]\n"
	"	hlt\n"
	"nested_pf: push rax\n"
	"	push rdi\n"
	"	mov rax, cr2\n"
	"	push rax\n"
	"	lea rdi, [rax + 0x1000]\n"
	"	cmp rdi, 0x345000\n"
	"	jae 1f\n"
	"	add byte ptr [rdi], 1\n" /* faults */
	"1:	pop rax\n"
	"	mov rdi, rax\n"
	"	shr rdi, 12\n"
	"	and rax, -4096\n"
	"	or rax, 7\n"
	"	mov [0x13000 + rdi * 8], rax\n"
	"	inc qword ptr [0x200000]\n"
	"	pop rdi\n"
	"	pop rax\n"
	"	add rsp, 8\n"
	"	iretq\n");
LABEL(nested_pf);

static void
page_faults_in_the_handler_of_page_faults(void **state)
{
	struct mini *f = *state;

	for (uint32_t a = 0x340000; a < 0x345000; a += PAGE_SIZE)
		put64(f, mini_pte(a), 0);
	f->mem[0x340000] = 0x55;
	mini_gate(f, EXC_PF, ADDRESS(nested, nested_pf), 0);
	RUN(f, nested);
	assert_int_equal(REG(f, RCX), 5);
	assert_int_equal(REG(f, RBX), 0x55);
	assert_int_equal(f->mem[0x341000], 1);
	assert_int_equal(f->mem[0x344000], 1);
}

GUEST(bad_stack, 64,
	"	mov rsp, 0x340008\n"
	"	mov rbx, [0x341000]\n" /* its frame cannot be pushed */
	"	ud2\n");

static void
a_double_fault_has_a_stack_of_its_own(void **state)
{
	struct mini *f = *state;

	put64(f, mini_pte(0x33f000), 0);
	put64(f, mini_pte(0x340000), 0);
	put64(f, mini_pte(0x341000), 0);
	mini_gate(f, EXC_DF, HANDLERS_AT + EXC_DF, 1);
	LOAD(f, bad_stack);
	mini_long(f, 0, CODE_AT);
	assert_int_equal(mini_go(f), CPU_EXIT_HALT);
	assert_int_equal(mini_vector(f), EXC_DF);
	assert_int_equal(get64(f, REG(f, RSP)), 0);
	assert_int_equal(get64(f, REG(f, RSP) + 32), 0x340008);
	/* and without one it is the end */
	mini_gate(f, EXC_DF, HANDLERS_AT + EXC_DF, 0);
	mini_long(f, 0, CODE_AT);
	assert_int_equal(mini_go(f), CPU_EXIT_SHUTDOWN);
}

/* ---- encodings ---- */

/* What the host's CPU refuses though it looks like an instruction, and what the guest is not offered. */
static void
encodings_that_only_look_valid_are_undefined(void **state)
{
	struct mini *f = *state;
	static const uint8_t codes[][12] = {
		{ 0x0f, 0x0b },				      /* ud2 */
		{ 0x0f, 0xb9, 0xc0 },			      /* ud1 */
		{ 0xf0, 0x01, 0xd8 },			      /* lock on registers */
		{ 0xf0, 0x8b, 0x00 },			      /* lock mov */
		{ 0xf0, 0x48, 0x0f, 0xba, 0x20, 0x01 },	      /* lock bt */
		{ 0xd9, 0xd1 },				      /* no x87 instruction */
		{ 0x8e, 0xc8 },				      /* mov cs, eax */
		{ 0x0f, 0x20, 0xc8 },			      /* mov rax, cr1 */
		{ 0xc4, 0xe2, 0x79, 0x90, 0x04, 0x08 },	      /* vpgatherdd xmm0, [rax + xmm1], xmm0 */
		{ 0xc4, 0xe2, 0x71, 0x90, 0x04, 0x08 },	      /* ... its mask is its index */
		{ 0xc4, 0xe2, 0x71, 0x90, 0x0c, 0x10 },	      /* ... its result is its mask */
		{ 0x62, 0xf2, 0x7d, 0x49, 0x90, 0x04, 0x00 }, /* vpgatherdd zmm0 {k1}, [rax + zmm0] */
		{ 0x62, 0xf2, 0x7d, 0x48, 0x90, 0x04, 0x08 }, /* ... without a mask */
		{ 0xc4, 0xa1, 0xfa, 0xbd, 0xf3 },	      /* lzcnt in VEX: Knights Corner */
		{ 0xc4, 0xe1, 0x7a, 0xbc, 0xc0 },	      /* tzcnt, the same */
		{ 0xc4, 0xe1, 0x78, 0x77, 0xc0 + 0, 0 } /* vzeroupper with bytes behind: valid, see below */,
		{ 0xc4, 0xe1, 0x31, 0xef, 0xc0 | 0x80 }, /* vpxor: valid */
		{ 0xc5, 0x79, 0x6f, 0xc0 },		 /* vmovdqa: valid */
		{ 0xc5, 0x71, 0x6f, 0xc0 },		 /* ... with vvvv */
		{ 0x66, 0xc5, 0xf9, 0xef, 0xc0 },	 /* prefixes in front of VEX */
		{ 0x48, 0xc5, 0xf9, 0xef, 0xc0 },	 /* REX */
		{ 0xf0, 0xc5, 0xf9, 0xef, 0xc0 },	 /* LOCK */
		{ 0xc4, 0xe2, 0x78, 0xf2, 0xc3 },	 /* andn: valid */
		{ 0xc4, 0xe2, 0x7c, 0xf2, 0xc3 },	 /* ... with L */
		{ 0xc4, 0xe2, 0x78, 0xf3, 0xc3 },	 /* group 17, /0 */
		{ 0x62, 0xf1, 0x7c, 0x58, 0x10, 0xc0 },	 /* vmovups zmm with b on registers */
		{ 0x62, 0xf1, 0x7c, 0xc8, 0x10, 0xc0 },	 /* ... zeroing without a mask */
		{ 0x62, 0xf1, 0x7c, 0x68, 0x10, 0xc0 },	 /* ... length 3 */
		{ 0x62, 0xf1, 0x74, 0x48, 0x10, 0xc0 },	 /* ... with vvvv */
		{ 0x62, 0xf2, 0x7d, 0x48, 0xcc, 0xc0 },	 /* of the 512-bit sets nobody has */
		{ 0x62, 0xf6, 0x7f, 0x48, 0xd6, 0xc1 },	 /* vfcmulcph zmm0, zmm0, zmm1: result is a source */
		{ 0x0f, 0x38, 0xf8, 0xc0 },		 /* movdir64b on registers */
		{ 0x66, 0x0f, 0x38, 0xf8, 0xc0 },
		{ 0x0f, 0xc7, 0xc8 },		     /* cmpxchg8b on a register */
		{ 0x0f, 0x01, 0xc1 },		     /* vmcall */
		{ 0x0f, 0x01, 0xd8 },		     /* vmrun */
		{ 0x0f, 0x01, 0xcf },		     /* encls */
		{ 0x0f, 0x01, 0xee },		     /* rdpkru */
		{ 0xc7, 0xf8, 0, 0, 0, 0 },	     /* xbegin */
		{ 0x0f, 0x01, 0xd6 },		     /* xtest */
		{ 0xc4, 0xe2, 0x78, 0x49, 0xc0 },    /* tilerelease */
		{ 0x0f, 0x0e },			     /* femms */
		{ 0x0f, 0x0f, 0xc0, 0xb4 },	     /* 3DNow! pfmul */
		{ 0x8f, 0xe9, 0x78, 0x01, 0xc8 },    /* TBM */
		{ 0xc4, 0xe3, 0xf9, 0x69, 0xc0, 0 }, /* FMA4 */
		{ 0x06 },			     /* push es */
		{ 0x27 },			     /* daa */
		{ 0x62, 0x00, 0x00, 0x00 },
		{ 0xc4, 0x00, 0x00, 0x00, 0x00 },
		{ 0x9a, 0, 0, 0, 0, 0, 0 },
		{ 0xd6 },
		{ 0x82, 0xc0, 0x01 },
	};
	static const uint8_t valid[] = { 15, 16, 17, 22 };

	for (unsigned i = 0; i < ARRAY_LEN(codes); i++) {
		bool ok = false;

		for (unsigned k = 0; k < ARRAY_LEN(valid); k++)
			ok |= valid[k] == i;
		for (unsigned pass = 0; pass < 2 && !ok; pass++) {
			uint32_t at = CODE_AT + (pass ? PAGE_SIZE - 2 : 0);

			memset(f->mem + CODE_AT, 0xf4, 2 * PAGE_SIZE);
			memcpy(f->mem + at, codes[i], sizeof(codes[i]));
			mem_written(&f->m.mem, CODE_AT, 2 * PAGE_SIZE);
			mini_long(f, 0, at);
			REG(f, RAX) = DATA_AT;
			assert_int_equal(mini_go(f), CPU_EXIT_HALT);
			if (mini_vector(f) != EXC_UD)
				fail_msg("encoding %u (%02x %02x %02x %02x): vector %d", i, codes[i][0], codes[i][1],
					codes[i][2], codes[i][3], mini_vector(f));
			assert_int_equal(get64(f, REG(f, RSP)), at);
		}
	}
}

/* ---- where no code can be ---- */

GUEST(nowhere, 64,
	"	mov rax, 0x800000000000\n"
	"	mov rbx, 0x1234\n"
	"	jmp nowhere_f\n"
	"	.balign 64\n"
	"nowhere_f: .fill 16, 1, 0xf4\n");
LABEL(nowhere_f);

static void
a_jump_to_a_non_canonical_address_faults_itself(void **state)
{
	struct mini *f = *state;
	static const struct {
		uint8_t code[4];
		unsigned at, pushed; /* of the faulting instruction; bytes on the stack then */
	} rows[] = {
		{ { 0xff, 0xe0 }, 0, 0 },	      /* jmp rax */
		{ { 0xff, 0xd0 }, 0, 0 },	      /* call rax */
		{ { 0x50, 0xc3 }, 1, 8 },	      /* push rax; ret */
		{ { 0x50, 0xc2, 8, 0 }, 1, 8 },	      /* push rax; ret 8 */
		{ { 0x50, 0xff, 0x24, 0x24 }, 1, 8 }, /* push rax; jmp [rsp] */
		{ { 0x50, 0xff, 0x14, 0x24 }, 1, 8 }, /* push rax; call [rsp] */
	};

	for (unsigned i = 0; i < ARRAY_LEN(rows); i++) {
		LOAD(f, nowhere);
		memcpy(f->mem + ADDRESS(nowhere, nowhere_f), rows[i].code, 4);
		mem_written(&f->m.mem, CODE_AT, PAGE_SIZE);
		for (unsigned v = 0; v < 32; v++)
			mini_gate(f, v, HANDLERS_AT + v, 1);
		mini_long(f, 0, CODE_AT);
		assert_int_equal(mini_go(f), CPU_EXIT_HALT);
		assert_int_equal(mini_vector(f), EXC_GP);
		assert_int_equal(get64(f, REG(f, RSP)), 0);
		if (get64(f, REG(f, RSP) + 8) != ADDRESS(nowhere, nowhere_f) + rows[i].at ||
			get64(f, REG(f, RSP) + 32) != STACK_AT - rows[i].pushed)
			fail_msg("row %u: rip %llx, rsp %llx", i, (unsigned long long)get64(f, REG(f, RSP) + 8),
				(unsigned long long)get64(f, REG(f, RSP) + 32));
	}
}

/* Addresses that, with the context's number, give the key of what the jump cache does not have. */
GUEST(empty, 64,
	"	xor ecx, ecx\n"
	"	xor ebx, ebx\n"
	"empty_l: inc ecx\n"
	"	mov rax, rcx\n"
	"	shl rax, 48\n"
	"	lea rdx, [rip + empty_n]\n"
	"	jmp rax\n"
	"empty_n: imul eax, ecx, 0x9e37\n"
	"	movzx eax, ax\n"
	"	shl eax, 2\n"
	"	mov rsi, rcx\n"
	"	shl rsi, 48\n"
	"	or rax, rsi\n"
	"	lea rdx, [rip + empty_m]\n"
	"	jmp rax\n"
	"empty_m: cmp ecx, 1000\n"
	"	jne empty_l\n"
	"	hlt\n"
	"empty_gp: inc ebx\n"
	"	add rsp, 8\n"
	"	mov [rsp], rdx\n"
	"	iretq\n");
LABEL(empty_gp);

static void
no_non_canonical_address_is_in_an_empty_cache(void **state)
{
	struct mini *f = *state;

	LOAD(f, empty);
	mini_gate(f, EXC_GP, ADDRESS(empty, empty_gp), 0);
	mini_long(f, 0, CODE_AT);
	assert_int_equal(mini_go(f), CPU_EXIT_HALT);
	assert_int_equal(mini_vector(f), -1);
	assert_int_equal(REG(f, RBX), 2000);
}

/* Code runs up to the end of the lower half of the address space. */
GUEST(edge, 64,
	"	mov rax, 0x7ffffffffffe\n"
	"	jmp rax\n");

static void
code_at_the_edge_of_the_canonical_space(void **state)
{
	struct mini *f = *state;

	/* the last page of the lower half */
	put64(f, PML4_AT + 8 * 255, 0x18007);
	put64(f, 0x18000 + 8 * 511, 0x19007);
	put64(f, 0x19000 + 8 * 511, 0x1a007);
	put64(f, 0x1a000 + 8 * 511, 0x300007);
	memcpy(f->mem + 0x300ffe, (const uint8_t[]){ 0x90, 0x90 }, 2);
	LOAD(f, edge);
	mini_long(f, 0, CODE_AT);
	assert_int_equal(mini_go(f), CPU_EXIT_HALT);
	assert_int_equal(mini_vector(f), EXC_GP);
	assert_int_equal(get64(f, REG(f, RSP) + 8), 0x800000000000);
}

/* Data: the exception depends on the segment the base register stands for. */
GUEST(canonical, 64,
	"	mov rbp, 0x7ffffffffffc\n"
	"	mov rbx, rbp\n"
	"	mov eax, [rbx]\n" /* the last 4 bytes */
	"	jmp canonical_f\n"
	"	.balign 64\n"
	"canonical_f: .fill 16, 1, 0x90\n");
LABEL(canonical_f);

static void
data_across_the_edge_of_the_canonical_space(void **state)
{
	struct mini *f = *state;
	static const struct {
		uint8_t code[8];
		int vector;
	} rows[] = {
		{ { 0x48, 0x8b, 0x03 }, EXC_GP },	   /* mov rax, [rbx] */
		{ { 0x48, 0x89, 0x03 }, EXC_GP },	   /* mov [rbx], rax */
		{ { 0x48, 0x8b, 0x45, 0 }, EXC_SS },	   /* mov rax, [rbp] */
		{ { 0x48, 0x89, 0x45, 0 }, EXC_SS },	   /* mov [rbp], rax */
		{ { 0x8b, 0x43, 4 }, EXC_GP },		   /* mov eax, [rbx + 4] */
		{ { 0xff, 0x73, 4 }, EXC_GP },		   /* push [rbx + 4] */
		{ { 0x0f, 0x10, 0x03 }, EXC_GP },	   /* movups xmm0, [rbx] */
		{ { 0x0f, 0x11, 0x45, 0x00 }, EXC_SS },	   /* movups [rbp], xmm0 */
		{ { 0x48, 0x8d, 0x63, 4, 0x50 }, -1 },	   /* lea rsp, [rbx + 4]; push rax: below the edge */
		{ { 0x48, 0x8d, 0x63, 8, 0x58 }, EXC_SS }, /* lea rsp, [rbx + 8]; pop rax */
	};

	put64(f, PML4_AT + 8 * 255, 0x18007);
	put64(f, 0x18000 + 8 * 511, 0x19007);
	put64(f, 0x19000 + 8 * 511, 0x1a007);
	put64(f, 0x1a000 + 8 * 511, 0x300007);
	for (unsigned v = 0; v < 32; v++)
		mini_gate(f, v, HANDLERS_AT + v, 1);
	for (unsigned i = 0; i < ARRAY_LEN(rows); i++) {
		LOAD(f, canonical);
		memcpy(f->mem + ADDRESS(canonical, canonical_f), rows[i].code, 8);
		f->mem[ADDRESS(canonical, canonical_f) + 8] = 0xf4;
		if (rows[i].code[4] == 0x50 || rows[i].code[4] == 0x58)
			f->mem[ADDRESS(canonical, canonical_f) + 5] = 0xf4;
		mem_written(&f->m.mem, CODE_AT, PAGE_SIZE);
		mini_long(f, 0, CODE_AT);
		assert_int_equal(mini_go(f), CPU_EXIT_HALT);
		if (mini_vector(f) != rows[i].vector)
			fail_msg("row %u: vector %d", i, mini_vector(f));
	}
}

/* ---- system calls ---- */

/* A user program that makes system calls in three ways; registers and flags come and go as the SDM says. */
GUEST(calls, 64,
	"	mov ecx, 0xc0000081\n" /* STAR: kernel 8, user 0x30 */
	"	xor eax, eax\n"
	"	mov edx, 0x00330008\n"
	"	wrmsr\n"
	"	mov ecx, 0xc0000082\n"
	"	mov eax, " AT(calls, calls_sys) "\n"
						"	xor edx, edx\n"
						"	wrmsr\n"
						"	mov ecx, 0xc0000084\n"
						"	mov eax, 0x700\n"
						"	wrmsr\n"
						"	push 0x3b\n"
						"	push 0x90000\n"
						"	push 0x202\n"
						"	push 0x43\n"
						"	push " AT(
							calls, calls_user) "\n"
									   "	iretq\n"
									   "calls_user: mov ebx, 2000\n"
									   "	xor r12d, r12d\n"
									   "	xor r13d, r13d\n"
									   "1:	mov eax, ebx\n"
									   "	stc\n"
									   "	syscall\n"
									   "	jnc calls_bad\n"
									   "	cmp eax, ebx\n"
									   "	jbe calls_bad\n"
									   "	int 0x50\n"
									   "	cmp rsp, 0x90000\n"
									   "	jne calls_bad\n"
									   "	dec ebx\n"
									   "	jnz 1b\n"
									   "	hlt\n" /* #GP: the end */
									   "calls_bad: ud2\n"
									   "calls_sys: inc r12\n"
									   "	pushfq\n" /* on the user's stack */
									   "	pop rdx\n"
									   "	test edx, 0x700\n"
									   "	jnz calls_bad\n"
									   "	add eax, 1\n"
									   "	bts r11, 0\n"
									   "	sysretq\n"
									   "calls_int: inc r13\n"
									   "	iretq\n");
LABEL(calls_int);

static void
system_calls_come_and_go(void **state)
{
	struct mini *f = *state;

	mini_gate(f, 0x50, ADDRESS(calls, calls_int), 0);
	LOAD(f, calls);
	mini_long(f, 0, CODE_AT);
	assert_int_equal(mini_go(f), CPU_EXIT_HALT);
	assert_int_equal(mini_vector(f), EXC_GP);
	assert_int_equal(REG(f, R12), 2000);
	assert_int_equal(REG(f, R13), 2000);
}

static const struct CMUnitTest tests[] = {
	TEST(all_registers_are_right_at_a_fault),
	TEST(flags_are_right_at_a_fault_and_behind_it),
	TEST(flags_are_right_when_a_call_faults),
	TEST(each_instruction_traps_in_single_step),
	TEST(breakpoints_on_code_and_data),
	TEST(interrupts_at_any_moment_disturb_nothing),
	TEST(an_nmi_waits_for_the_end_of_another),
	TEST(an_interrupt_that_waits_is_taken_at_its_moment),
	TEST(encodings_that_only_look_valid_are_undefined),
	TEST(a_jump_to_a_non_canonical_address_faults_itself),
	TEST(page_faults_in_the_handler_of_page_faults),
	TEST(a_double_fault_has_a_stack_of_its_own),
	TEST(no_non_canonical_address_is_in_an_empty_cache),
	TEST(code_at_the_edge_of_the_canonical_space),
	TEST(data_across_the_edge_of_the_canonical_space),
	TEST(system_calls_come_and_go),
};

int
main(void)
{
	return mini_main("exceptions and interrupts", tests, ARRAY_LEN(tests), NULL, 0);
}
