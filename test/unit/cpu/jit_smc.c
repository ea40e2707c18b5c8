/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Code that is changed: by itself, under an alias, by string and vector instructions, by a device, by another CPU,
 * while it is somebody's stack. The x86 architecture makes a CPU see its own stores to code at once (SDM 3A 12.6), and
 * those of another CPU once it has serialised (SDM 3A 9.1.3).
 */
#include "base/bytes.h"
#include "mini.h"

/* ---- one CPU ---- */

GUEST(next, 64,
	"	mov byte ptr [rip + next_p + 1], 0x42\n"
	"next_p: mov eax, 0x11\n"
	"	hlt\n");

static void
the_next_instruction(void **state)
{
	struct mini *f = *state;

	RUN(f, next);
	assert_int_equal(REG(f, RAX), 0x42);
	LOAD(f, next); /* and from the start once more: what was translated is stale */
	mini_run(f);
	assert_int_equal(REG(f, RAX), 0x42);
}

GUEST(each, 64,
	"	xor eax, eax\n"
	"	mov ecx, 100\n"
	"each_l: inc byte ptr [rip + each_p + 2]\n"
	"each_p: add eax, 1\n"
	"	dec ecx\n"
	"	jnz each_l\n"
	"	hlt\n");

static void
each_round_of_a_loop_changes_it(void **state)
{
	struct mini *f = *state;

	RUN(f, each);
	assert_int_equal(REG(f, RAX), 5150);
}

GUEST(behind, 64,
	"	xor eax, eax\n"
	"	mov ecx, 50\n"
	"behind_p: add eax, 1\n"
	"	nop dword ptr [rax]\n"
	"	inc byte ptr [rip + behind_p + 2]\n"
	"	dec ecx\n"
	"	jnz behind_p\n"
	"	hlt\n");

static void
an_instruction_behind_in_the_same_block(void **state)
{
	struct mini *f = *state;

	RUN(f, behind);
	assert_int_equal(REG(f, RAX), 1275);
}

GUEST(blocks, 64,
	"	xor eax, eax\n"
	"	mov ecx, 60\n"
	"blocks_l: inc byte ptr [rip + blocks_p + 2]\n"
	"	jmp blocks_p\n"
	"	ud2\n"
	"blocks_p: add eax, 1\n"
	"	inc byte ptr [rip + blocks_q + 2]\n"
	"	call blocks_q\n"
	"	dec ecx\n"
	"	jnz blocks_l\n"
	"	hlt\n"
	"	.balign 4096\n"
	"blocks_q: add eax, 1\n"
	"	ret\n");

static void
the_next_block_and_one_of_another_page(void **state)
{
	struct mini *f = *state;

	RUN(f, blocks);
	assert_int_equal(REG(f, RAX), 2 * 1890);
}

GUEST(jumps, 64,
	"	xor eax, eax\n"
	"	mov ecx, 100\n"
	"jumps_l: jmp jumps_a\n"
	"jumps_j: .byte 0xeb, 0\n" /* jmp short, goes to a or b by turns */
	"jumps_a: add eax, 1\n"
	"	jmp jumps_n\n"
	"jumps_b: add eax, 1000\n"
	"jumps_n: xor byte ptr [rip + jumps_j + 1], (jumps_b - jumps_a)\n"
	"	dec ecx\n"
	"	jnz jumps_j\n"
	"	hlt\n");

static void
where_a_jump_goes(void **state)
{
	struct mini *f = *state;

	RUN(f, jumps);
	assert_int_equal(REG(f, RAX), 50 * 1001);
}

GUEST(self, 64,
	"	xor eax, eax\n"
	"	mov ecx, 2\n"
	"	mov edx, 0x9090c0ff\n" /* inc eax; nop; nop */
	"self_l: mov rdi, " AT(self, self_p) "\n"
					     "self_p: mov dword ptr [rdi], edx\n" /* 89 17 */
					     "	nop\n"
					     "	nop\n"
					     "	nop\n"
					     "	dec ecx\n"
					     "	jnz self_l\n"
					     "	hlt\n");

static void
the_storing_instruction_itself(void **state)
{
	struct mini *f = *state;

	RUN(f, self);
	assert_int_equal(REG(f, RCX), 0);
	assert_int_equal(REG(f, RAX), 1);
}

GUEST(alias, 64,
	"	xor eax, eax\n"
	"	mov ecx, 60\n"
	"alias_l: inc byte ptr [0x300000 + alias_p - alias_code + 2]\n" /* the same page by another name */
	"alias_p: add eax, 1\n"
	"	dec ecx\n"
	"	jnz alias_l\n"
	"	hlt\n");

static void
by_an_alias_of_the_page(void **state)
{
	struct mini *f = *state;

	put64(f, mini_pte(0x300000), CODE_AT | 7);
	RUN(f, alias);
	assert_int_equal(REG(f, RAX), 1890);
}

/* A function whose immediate is written in every way there is. */
#define WAY(name, text)                                                                                                \
	GUEST(way_##name, 64,                                                                                          \
		"	xor eax, eax\n"                                                                                      \
		"	mov ebx, 40\n"                                                                                       \
		"	mov rbp, " AT(                                                                                 \
			way_##name, way_##name##_f) "\n"                                                               \
						    "way_" #name "_l: mov edx, 0xb890\n" /* nop; mov eax, ...*/        \
						    "	mov esi, ebx\n"                                                  \
						    "	shl rsi, 16\n"                                                   \
						    "	or rdx, rsi\n"                                                   \
						    "	mov rsi, 0xc3000000000000\n"                                     \
						    "	or rdx, rsi\n" /* rdx: the new code of f, 8 bytes */           \
		text "	call rbp\n"                                                                                     \
						    "	cmp eax, ebx\n"                                                  \
						    "	jne way_" #name "_bad\n"                                       \
						    "	dec ebx\n"                                                       \
						    "	jnz way_" #name "_l\n"                                         \
						    "	hlt\n"                                                           \
						    "way_" #name "_bad: ud2\n"                                         \
						    "	.balign 4096\n"                                                  \
						    "	.balign 64\n"                                                    \
						    "	.fill 64, 1, 0x90\n"                                             \
						    "way_" #name "_f: nop\n"                                           \
						    "	mov eax, 1\n"                                                    \
						    "	ret\n"                                                           \
						    "	.fill 1024, 1, 0x90\n")

WAY(mov, "mov [rbp], rdx\n");
WAY(bytes, "mov r8, rdx\nmov ecx, 8\n1: mov [rbp], r8b\nshr r8, 8\ninc rbp\nloop 1b\nsub rbp, 8\n");
WAY(misaligned, "mov [rbp - 3], rdx\nmov [rbp], rdx\n");
WAY(xchg, "mov r8, rdx\nxchg [rbp], r8\n");
WAY(cmpxchg, "mov rax, [rbp]\nlock cmpxchg [rbp], rdx\njnz way_cmpxchg_bad\n");
WAY(cmpxchg16b, "mov r8, rbx\nmov r9, rdx\nmov rax, [rbp]\nmov rdx, [rbp + 8]\nmov rbx, r9\nmov rcx, rdx\n"
		"lock cmpxchg16b [rbp]\nmov rbx, r8\njnz way_cmpxchg16b_bad\n");
WAY(xadd, "mov r8, rdx\nsub r8, [rbp]\nlock xadd [rbp], r8\n");
WAY(push, "mov r8, rsp\nlea rsp, [rbp + 8]\npush rdx\nmov rsp, r8\n");
WAY(pop, "push rdx\npop qword ptr [rbp]\n");
WAY(stos, "mov rdi, rbp\nmov rax, rdx\nstosq\n");
WAY(rep, "mov r8, rdx\nlea rsi, [rsp - 64]\nmov [rsi], rdx\nmov rdi, rbp\nmov ecx, 8\nrep movsb\n");
WAY(sse, "movq xmm0, rdx\nmovups [rbp], xmm0\n");
WAY(movq, "movq xmm0, rdx\nmovq [rbp], xmm0\n");
WAY(mmx, "movq mm0, rdx\nmovq [rbp], mm0\nemms\n");
WAY(x87, "fninit\nmov [rsp - 8], rdx\nfild qword ptr [rsp - 8]\nfistp qword ptr [rbp]\n");
WAY(fxsave,
	"movq xmm0, rdx\nlea rdi, [rbp - 160 + 96]\nand rdi, -16\nlea rsi, [rbp]\nsub rsi, rdi\nmovq [rbp], xmm0\n");
WAY(rmw, "mov r8, rdx\nxor r8, [rbp]\nxor [rbp], r8\n");
WAY(bts, "mov qword ptr [rbp], 0\nmov ecx, 63\n1: bt rdx, rcx\njnc 2f\nlock bts [rbp], rcx\n2: dec ecx\njns 1b\n");
WAY(avx, "vmovq xmm0, rdx\nvmovdqu [rbp], ymm0\n");

static void
by_every_kind_of_store(void **state)
{
	struct mini *f = *state;
#define WAY_ROW(name)                                                                                                  \
	{                                                                                                              \
#name, way_##name##_code, way_##name##_end                                                             \
	}
	static const struct {
		const char *name;
		const uint8_t *code, *end;
	} ways[] = { WAY_ROW(mov), WAY_ROW(bytes), WAY_ROW(misaligned), WAY_ROW(xchg), WAY_ROW(cmpxchg),
		WAY_ROW(cmpxchg16b), WAY_ROW(xadd), WAY_ROW(push), WAY_ROW(pop), WAY_ROW(stos), WAY_ROW(rep),
		WAY_ROW(sse), WAY_ROW(movq), WAY_ROW(mmx), WAY_ROW(x87), WAY_ROW(fxsave), WAY_ROW(rmw), WAY_ROW(bts),
		WAY_ROW(avx) };

	for (unsigned i = 0; i < ARRAY_LEN(ways); i++) {
		if (!strcmp(ways[i].name, "avx") && !(f->cpus.model.xcr0_supported & 4))
			continue;
		mini_load_at(f, CODE_AT, ways[i].code, ways[i].end);
		mini_long(f, 0, CODE_AT);
		if (mini_go(f) != CPU_EXIT_HALT || mini_vector(f) >= 0)
			fail_msg("%s: vector %d, rbx %llx", ways[i].name, mini_vector(f),
				(unsigned long long)REG(f, RBX));
	}
}

/* The store begins on a page of data and ends in the code of the next page. */
GUEST(across, 64,
	"	xor eax, eax\n"
	"	mov ebx, 50\n"
	"across_l: inc byte ptr [rip + across_v + 7]\n"
	"	mov rdx, [rip + across_v]\n"
	"	mov [0x101000 - 5], rdx\n" /* byte 7 is the immediate */
	"	call across_f\n"
	"	dec ebx\n"
	"	jnz across_l\n"
	"	hlt\n"
	"	.balign 8\n"
	"across_v: .byte 0, 0, 0, 0, 0, 0x83, 0xc0, 0\n"
	"	.balign 4096\n"
	"across_f: add eax, 0\n"
	"	ret\n");

static void
by_a_store_across_two_pages(void **state)
{
	struct mini *f = *state;

	RUN(f, across);
	assert_int_equal(REG(f, RAX), 1275);
}

/* An instruction lies on two pages; only its second part changes. */
GUEST(split, 64,
	"	xor eax, eax\n"
	"	mov ebx, 100\n"
	"split_l: inc byte ptr [rip + split_p + 2]\n"
	"	jmp split_p\n"
	"	.fill 4096 - (. - split_code) - 2, 1, 0x90\n"
	"split_p: add eax, 0\n" /* 83 c0 | 00 */
	"	dec ebx\n"
	"	jnz split_l\n"
	"	hlt\n");

static void
an_instruction_that_lies_on_two_pages(void **state)
{
	struct mini *f = *state;

	RUN(f, split);
	assert_int_equal(REG(f, RAX), 5050);
}

/* A counter and a stack on the page of the code: much is written, nothing of it is code. */
GUEST(beside, 64,
	"	lea rsp, [rip + beside_stack]\n"
	"	mov ecx, 20000\n"
	"beside_l: inc qword ptr [rip + beside_n]\n"
	"	push rcx\n"
	"	call beside_f\n"
	"	pop rcx\n"
	"	dec ecx\n"
	"	jnz beside_l\n"
	"	mov rax, [rip + beside_n]\n"
	"	hlt\n"
	"beside_f: add rbx, rcx\n"
	"	ret\n"
	"	.balign 64\n"
	"beside_n: .quad 0\n"
	"	.fill 256, 1, 0\n"
	"beside_stack:\n");

static void
data_and_a_stack_on_the_page_of_code(void **state)
{
	struct mini *f = *state;

	RUN(f, beside);
	assert_int_equal(REG(f, RAX), 20000);
	assert_int_equal(REG(f, RBX), 200010000);
	assert_true(f->cpus.cpu[0]->count.blocks_dropped < 1000);
}

GUEST(device, 64,
	"device_l: mov eax, 0x11\n"
	"	hlt\n"
	"	jmp device_l\n");

static void
by_a_device(void **state)
{
	struct mini *f = *state;

	LOAD(f, device);
	mini_long(f, 0, CODE_AT);
	for (unsigned n = 0; n < 50; n++) {
		f->mem[CODE_AT + 1] = (uint8_t)n;
		mem_written(&f->m.mem, CODE_AT + 1, 1);
		assert_int_equal(mini_go(f), CPU_EXIT_HALT);
		assert_int_equal(REG(f, RAX), n);
	}
}

/* Thousands of pages with a little code each, run, changed and run again. */
static void
thousands_of_pages(void **state)
{
	struct mini *f = *state;
	uint32_t first = 0x400000, pages = 2500;

	for (unsigned round = 1; round <= 3; round++) {
		for (uint32_t i = 0; i < pages; i++) {
			uint8_t *p = f->mem + first + i * PAGE_SIZE + (i & 63) * 16;
			uint32_t next = i + 1 < pages ? PAGE_SIZE + ((i + 1) & 63) * 16 - (i & 63) * 16 - 8 : 0;

			/* add eax, round; jmp next; or hlt */
			memcpy(p, (const uint8_t[]){ 0x83, 0xc0, (uint8_t)round, 0xe9, 0, 0, 0, 0 }, 8);
			put_le32(p + 4, next);
			if (!next)
				p[3] = 0xf4;
			mem_written(&f->m.mem, first + i * PAGE_SIZE, PAGE_SIZE);
		}
		for (unsigned k = 0; k < 2; k++) {
			mini_long(f, 0, first);
			assert_int_equal(mini_go(f), CPU_EXIT_HALT);
			assert_int_equal(REG(f, RAX), round * pages);
		}
	}
}

/* The handler of #UD mends the instruction behind its first byte, as kernels that patch themselves do. */
GUEST(mend, 64,
	"	mov ecx, 2\n"
	"	mov rdx, 0x200000\n"
	"mend_l: mov byte ptr [rip + mend_p + 1], 0x3a\n"
	"	jmp mend_p\n"
	"	.balign 64\n"
	"mend_p: .byte 0x8c, 0x3a\n" /* undefined; 8c 0a: mov [rdx], cs */
	"	inc ebx\n"
	"	dec ecx\n"
	"	jnz mend_l\n"
	"	hlt\n"
	"mend_ud: mov byte ptr [rip + mend_p + 1], 0x0a\n"
	"	inc edi\n"
	"	iretq\n");
LABEL(mend_ud);

static void
an_undefined_instruction_that_is_mended(void **state)
{
	struct mini *f = *state;

	mini_gate(f, EXC_UD, ADDRESS(mend, mend_ud), 0);
	RUN(f, mend);
	assert_int_equal(REG(f, RBX), 2);
	assert_int_equal(REG(f, RDI), 2);
	assert_int_equal(get32(f, 0x200000) & 0xffff, SEL_CODE64);
}

/* ---- several CPUs ---- */

/* CPU 1 changes a function, CPU 0 runs it after both have agreed on it. r15: number of the CPU. */
GUEST(cross, 64,
	"	test r15d, r15d\n"
	"	jnz cross_1\n"
	"	mov ebx, 1\n"
	"cross_0: cmp [0x200000], ebx\n" /* until round ebx is announced */
	"	jne cross_0\n"
	"	mov ecx, 0\n"
	"	xor eax, eax\n"
	"	push rbx\n"
	"	cpuid\n"
	"	pop rbx\n"
	"	call cross_f\n"
	"	cmp eax, ebx\n"
	"	jne cross_bad\n"
	"	mov [0x200040], ebx\n"
	"	inc ebx\n"
	"	cmp ebx, 2000\n"
	"	jne cross_0\n"
	"	hlt\n"
	"cross_1: mov ebx, 1\n"
	"2:	mov [rip + cross_f + 4], ebx\n" /* aligned */
	"	mov [0x200000], ebx\n"
	"3:	cmp [0x200040], ebx\n"
	"	jne 3b\n"
	"	inc ebx\n"
	"	cmp ebx, 2000\n"
	"	jne 2b\n"
	"	hlt\n"
	"cross_bad: ud2\n"
	"	.balign 4096\n"
	"cross_f: nop\n"
	"	nop\n"
	"	nop\n"
	"	mov eax, 0\n"
	"	ret\n");

static void
code_that_another_cpu_changes(void **state)
{
	struct mini *f = *state;

	LOAD(f, cross);
	f->cpus.cpu[1]->state.gpr[R15] = 1;
	mini_run_all(f);
}

/* The other CPU changes it without asking: each call gives an old or a new value, never less than before. */
GUEST(race, 64,
	"	xor ebx, ebx\n"
	"	test r15d, r15d\n"
	"	jnz race_1\n"
	"race_0: call race_f\n"
	"	cmp eax, ebx\n"
	"	jb race_bad\n"
	"	mov ebx, eax\n"
	"	cmp eax, 20000\n"
	"	jne race_0\n"
	"	hlt\n"
	"race_1: inc ebx\n"
	"	mov [rip + race_f + 4], ebx\n"
	"	cmp ebx, 20000\n"
	"	jne race_1\n"
	"	hlt\n"
	"race_bad: ud2\n"
	"	.balign 4096\n"
	"race_f: nop\n"
	"	nop\n"
	"	nop\n"
	"	mov eax, 0\n"
	"	ret\n");

static void
code_that_another_cpu_changes_all_the_time(void **state)
{
	struct mini *f = *state;

	LOAD(f, race);
	f->cpus.cpu[1]->state.gpr[R15] = 1;
	mini_run_all(f);
}

/* CPU 0's stack is on the page of a function that CPU 1 calls all the time. */
GUEST(shared, 64,
	"	test r15d, r15d\n"
	"	jnz shared_1\n"
	"	lea rsp, [rip + shared_stack]\n"
	"	mov ecx, 30000\n"
	"shared_0: push rcx\n"
	"	call shared_g\n"
	"	pop rdx\n"
	"	cmp rdx, rcx\n"
	"	jne shared_bad\n"
	"	dec ecx\n"
	"	jnz shared_0\n"
	"	hlt\n"
	"shared_g: add rbx, rcx\n"
	"	ret\n"
	"shared_1: mov ecx, 30000\n"
	"2:	call shared_f\n"
	"	dec ecx\n"
	"	jnz 2b\n"
	"	hlt\n"
	"shared_bad: ud2\n"
	"	.balign 4096\n"
	"shared_f: add rax, rcx\n"
	"	ret\n"
	"	.fill 512, 1, 0xcc\n"
	"	.balign 8\n"
	"shared_stack:\n");

static void
code_of_one_cpu_is_the_stack_of_another(void **state)
{
	struct mini *f = *state;

	LOAD(f, shared);
	f->cpus.cpu[1]->state.gpr[R15] = 1;
	mini_run_all(f);
	assert_int_equal(f->cpus.cpu[0]->state.gpr[RBX], 450015000);
	assert_int_equal(f->cpus.cpu[1]->state.gpr[RAX], 450015000);
}

/* A page that held code once, and is only written now. */
GUEST(former, 64,
	"	call former_f\n"
	"	mov ecx, 100000\n"
	"former_l: inc qword ptr [rip + former_n]\n"
	"	dec ecx\n"
	"	jnz former_l\n"
	"	mov rax, [rip + former_n]\n"
	"	hlt\n"
	"	.balign 4096\n"
	"former_f: ret\n"
	"	.balign 64\n"
	"former_n: .quad 0\n");
LABEL(former_n);

static void
a_page_that_is_no_longer_code_is_written_fast(void **state)
{
	struct mini *f = *state;
	uint64_t page;

	RUN(f, former);
	page = ADDRESS(former, former_n) >> PAGE_SHIFT;
	assert_int_equal(REG(f, RAX), 100000);
	if (!strcmp(engine->name, "jit")) { /* writes beside the fast path are counted there */
		assert_in_range(f->ram->gens[page], 0, 200);
		assert_int_equal(f->ram->flags[page], 0);
	}
}

static const struct CMUnitTest tests[] = {
	TEST(the_next_instruction),
	TEST(each_round_of_a_loop_changes_it),
	TEST(an_instruction_behind_in_the_same_block),
	TEST(the_next_block_and_one_of_another_page),
	TEST(where_a_jump_goes),
	TEST(the_storing_instruction_itself),
	TEST(by_an_alias_of_the_page),
	TEST(by_every_kind_of_store),
	TEST(by_a_store_across_two_pages),
	TEST(an_instruction_that_lies_on_two_pages),
	TEST(data_and_a_stack_on_the_page_of_code),
	TEST(by_a_device),
	TEST(thousands_of_pages),
	TEST(an_undefined_instruction_that_is_mended),
	TEST(a_page_that_is_no_longer_code_is_written_fast),
	TEST_2(code_that_another_cpu_changes),
	TEST_2(code_that_another_cpu_changes_all_the_time),
	TEST_2(code_of_one_cpu_is_the_stack_of_another),
};

int
main(void)
{
	return mini_main("code that is changed", tests, ARRAY_LEN(tests), NULL, 0);
}
