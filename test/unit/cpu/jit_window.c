/* SPDX-License-Identifier: Apache-2.0 */
/*
 * User code whose memory the host's own MMU finds (cpu/jit/window.c): whatever takes a page away, or changes what may be
 * done with it, is to be seen by the next access. The translator is told to take all code for hot.
 */
#include "mini.h"

#include "cpu/jit/jit.h"

/* clang-format off: assembly */
/*
 * The kernel: system call EAX 0: entry RSI of the page tables becomes RDX, INVLPG of RDI; 1: the same without INVLPG; 2:
 * CR3 is written again. Page faults and others count in R13, keep CR2 in R12 and the error code in R15, go on at R14.
 */
#define KERNEL(name, user)                                                                                             \
	"	mov ecx, 0xc0000081\n"                                                                                       \
	"	xor eax, eax\n"                                                                                              \
	"	mov edx, 0x00300008\n"                                                                                       \
	"	wrmsr\n"                                                                                                     \
	"	inc ecx\n"                                                                                                   \
	"	mov eax, " AT(name,                                                                                    \
		name##_sys) "\n"                                                                                       \
			    "	xor edx, edx\n"                                                                          \
			    "	wrmsr\n"                                                                                 \
			    "	mov ecx, 0xc0000084\n"                                                                   \
			    "	mov eax, 0x47700\n"                                                                      \
			    "	wrmsr\n"                                                                                 \
			    "	push 0x3b\n"                                                                             \
			    "	push 0x90000\n"                                                                          \
			    "	push 0x202\n"                                                                            \
			    "	push 0x43\n"                                                                             \
			    "	push " AT(name, name##_user) "\n"                                                      \
							     "	iretq\n" #name "_sys: cmp eax, 2\n"                    \
							     "	je 3f\n"                                                \
							     "	ja 4f\n"                                                \
							     "	mov [rsi], rdx\n"                                       \
							     "	test eax, eax\n"                                        \
							     "	jnz 2f\n"                                               \
							     "	invlpg [rdi]\n"                                         \
							     "2:	sysretq\n"                                            \
							     "3:	mov rax, cr3\n"                                       \
							     "	mov cr3, rax\n"                                         \
							     "	sysretq\n"                                              \
							     "4:	hlt\n"                                                \
							     "	sysretq\n" #name "_pf: pop r15\n"                      \
							     "	mov r12, cr2\n"                                         \
							     "	inc r13\n"                                              \
							     "	mov [rsp], r14\n"                                       \
							     "	iretq\n"                                                \
							     "	.balign 4096\n" #name "_user: xor r13d, r13d\n"
/* clang-format on */

#define USER_AT 0x101000

/* cmocka takes these signals for itself around each function: what the engine installed when it was first opened. */
static struct sigaction ours[2];

static void
signals(bool keep)
{
	for (int i = 0; i < 2; i++) {
		if (keep)
			sigaction(i ? SIGBUS : SIGSEGV, NULL, &ours[i]);
		else
			sigaction(i ? SIGBUS : SIGSEGV, &ours[i], NULL);
	}
}

static int
setup(void **state, int cpus)
{
	int r;

	mini_file = true;
	r = mini_open(state, cpus);
	for (int n = 0; !r && n < cpus; n++)
		if (engine == &cpu_engine_jit)
			((struct jit_cpu *)((struct mini *)*state)->cpus.cpu[n])->eager = true;
	if (engine == &cpu_engine_jit && !ours[0].sa_sigaction)
		signals(true);
	return r;
}

static int
setup_1(void **state)
{
	return setup(state, 1);
}

static int
setup_2(void **state)
{
	return setup(state, 2);
}

static struct mini *
begin(void **state, const uint8_t *code, const uint8_t *end, uint32_t handler)
{
	struct mini *f = *state;

	if (engine == &cpu_engine_jit)
		signals(false);
	for (unsigned i = 0; i < 1024; i++)
		put64(f, PT_AT + 8 * i, i << 12 | 3);
	for (uint32_t a = USER_AT; a < USER_AT + 0x3000; a += PAGE_SIZE)
		put64(f, mini_pte(a), a | 7);
	put64(f, mini_pte(0x8f000), 0x8f000 | 7);
	for (uint32_t a = 0x300000; a < 0x340000; a += PAGE_SIZE) {
		put64(f, mini_pte(a), a | 7);
		put64(f, a, a);
		put64(f, a + 8, 0);
	}
	mini_gate(f, EXC_PF, handler, 1);
	mini_gate(f, EXC_GP, handler, 1);
	mini_gate(f, EXC_SS, handler, 1);
	mini_gate(f, EXC_UD, HANDLERS_AT + EXC_UD, 1);
	mini_long(f, 0, CODE_AT);
	mini_load_at(f, CODE_AT, code, end);
	return f;
}
#define BEGIN(guest) begin(state, guest##_code, guest##_end, ADDRESS(guest, guest##_pf))

static void
go(struct mini *f)
{
	enum cpu_exit x = mini_go(f);

	if (x != CPU_EXIT_HALT || mini_vector(f) != -1)
		fail_msg("%s, vector %d, cr2 %llx, rip %llx", cpu_exit_text(x), mini_vector(f),
			(unsigned long long)f->cpus.cpu[0]->state.cr2, (unsigned long long)f->cpus.cpu[0]->state.rip);
}

static void
had_windows(struct mini *f, int cpu)
{
	const struct jit_cpu *j = (const struct jit_cpu *)f->cpus.cpu[cpu];

	if (engine == &cpu_engine_jit && f->ram->fd >= 0 && j->bmi2) {
		assert_true(j->win.maps > 0);
		assert_true(j->win.faults > 0);
	}
}

/* ---- pages mapped anew ---- */

/* clang-format off: assembly */
#define REMAP(target, bits, kind)                                                                                      \
	"	mov eax, " kind "\n"                                                                                   \
	"	mov rdi, 0x300000\n"                                                                                         \
	"	mov rsi, 0x14800\n" /* the entry of 0x300000 */                                                        \
	"	mov rdx, " target " + " bits "\n"                                                                      \
	"	syscall\n"
GUEST(remap, 64,
	KERNEL(remap, remap_user) "	mov ebx, 300\n"
				  "1:	mov rax, [0x300000]\n"
				  "	cmp rax, 0x300000\n"
				  "	jne 9f\n"
				  "	inc qword ptr [0x300008]\n" REMAP("0x310000", "7",
					  "0") "	mov rax, [0x300000]\n"
					       "	cmp rax, 0x310000\n"
					       "	jne 9f\n"
					       "	inc qword ptr [0x300008]\n"
					       "	inc qword ptr [0x310008]\n" REMAP("0x320000", "7",
						       "1") "	mov eax, 2\n"
							    "	syscall\n"
							    "	mov rax, [0x300000]\n"
							    "	cmp rax, 0x320000\n"
							    "	jne 9f\n"
							    "	inc qword ptr [0x300008]\n" REMAP(
								    "0x300000", "7", "0") "	dec ebx\n"
											  "	jnz 1b\n"
											  "	mov eax, 3\n"
											  "	syscall\n"
											  "9:	ud2\n");
/* clang-format on */
LABEL(remap_pf);

static void
a_page_mapped_elsewhere_is_seen_there(void **state)
{
	struct mini *f = BEGIN(remap);

	go(f);
	assert_int_equal(get64(f, 0x300008), 300);
	assert_int_equal(get64(f, 0x310008), 600);
	assert_int_equal(get64(f, 0x320008), 300);
	had_windows(f, 0);
}

/* clang-format off: assembly */
GUEST(rights, 64,
	KERNEL(rights, rights_user) "	mov ebx, 200\n"
				    "1:	inc qword ptr [0x300008]\n" REMAP("0x300000", "5", "0") /* read only */
	"	lea r14, [rip + 2f]\n"
	"	xor r15d, r15d\n"
	"	mov rax, [0x300000]\n"
	"	inc qword ptr [0x300010]\n"
	"	ud2\n"
	"2:	cmp r15d, 7\n"
	"	jne 9f\n"
	"	mov r15, 0x300010\n"
	"	cmp r12, r15\n"
	"	jne 9f\n" REMAP("0x300000", "4", "0") /* not there */
	"	lea r14, [rip + 3f]\n"
	"	mov rax, [0x300000]\n"
	"	ud2\n"
	"3:	cmp r15d, 4\n"
	"	jne 9f\n" REMAP("0x300000", "3", "0") /* the kernel's */
	"	lea r14, [rip + 4f]\n"
	"	mov rax, [0x300000]\n"
	"	ud2\n"
	"4:	cmp r15d, 5\n"
	"	jne 9f\n" REMAP("0x300000", "7", "0") "	dec ebx\n"
						      "	jnz 1b\n"
						      "	mov eax, 3\n"
						      "	syscall\n"
						      "9:	ud2\n");
/* clang-format on */
LABEL(rights_pf);

static void
what_may_be_done_with_a_page_changes(void **state)
{
	struct mini *f = BEGIN(rights);

	go(f);
	assert_int_equal(get64(f, 0x300008), 200);
	assert_int_equal(get64(f, 0x300010), 0);
	assert_int_equal(REG(f, R13), 600);
	had_windows(f, 0);
}

/* ---- addresses ---- */

/* clang-format off: assembly */
#define FAULTS(address, reg, disp, error)                                                                              \
	"	movabs " reg ", " address "\n"                                                                         \
	"	lea r14, [rip + 7f]\n"                                                                                       \
	"	mov r15d, 99\n"                                                                                              \
	"	mov rdx, [" reg " + " disp "]\n"                                                                       \
	"	ud2\n"                                                                                                       \
	"7:	cmp r15d, " error "\n"                                                                                 \
	"	jne 9f\n"
GUEST(far, 64,
	KERNEL(far, far_user) "	mov ebx, 300\n"
			      "1:	mov rax, [0x300000]\n" /* a window is there */
	FAULTS("0xffffffff80000000", "rax", "0", "4") FAULTS("0xffff800000000000", "rax", "8", "4")
		FAULTS("0xfffffffffffff000", "rcx", "0x20", "4") FAULTS("0xffffffffff600000", "rsi", "0", "4")
			FAULTS("0x0000800000300000", "rax", "0", "0") FAULTS("0x0080000000300000", "rdi", "0", "0")
				FAULTS("0x8000000000300000", "r8", "0", "0")
					FAULTS("0x4000000000300000", "rbp", "0", "0") /* #SS */
	FAULTS("0xffff000000300000", "r9", "0", "0") FAULTS("0x7ffffffffff8", "rax", "0x10", "0")
		FAULTS("0x7ffffffffff8", "rax", "0", "4") FAULTS("0x7ffffffffffc", "rax", "0", "0")
			FAULTS("0x7f8000300000", "rax", "0", "4") /* another region */
	FAULTS("0x8000300000", "rax", "0", "4")
		FAULTS("0xffffffffffd00008", "rax", "-8", "4") "	mov rax, -8\n" /* round the end */
							       "	mov rdx, [rax + 0x300008]\n"
							       "	cmp rdx, 0x300000\n"
							       "	jne 9f\n"
							       "	mov rax, 0x310000\n"
							       "	mov rdx, [rax - 0x10000]\n"
							       "	cmp rdx, 0x300000\n"
							       "	jne 9f\n"
							       "	dec ebx\n"
							       "	jnz 1b\n"
							       "	mov eax, 3\n"
							       "	syscall\n"
							       "9:	ud2\n");
/* clang-format on */
LABEL(far_pf);

static void
addresses_that_are_nobodys_fault_as_they_should(void **state)
{
	struct mini *f = BEGIN(far);

	go(f);
	assert_int_equal(REG(f, R13), 300 * 15);
	had_windows(f, 0);
}

/* Regions meet at 512 GiB: the last page before is 0x301000, the first behind 0x302000. */
/* clang-format off: assembly */
GUEST(straddle, 64,
	KERNEL(straddle, straddle_user) "	mov ebx, 300\n"
					"1:	movabs rax, 0x8000000000\n"
					"	movabs rcx, 0x1122334455667788\n"
					"	mov [rax - 3], rcx\n"
					"	mov rdx, [rax - 3]\n"
					"	cmp rdx, rcx\n"
					"	jne 9f\n"
					"	mov rdx, [rax]\n"
					"	mov rsi, [0x302000]\n"
					"	cmp rdx, rsi\n"
					"	jne 9f\n"
					"	mov rdx, [rax - 8]\n"
					"	mov rsi, [0x301ff8]\n"
					"	cmp rdx, rsi\n"
					"	jne 9f\n"
					"	mov rdx, [0x300ffc]\n" /* two pages of one region */
					"	mov [0x310ffc], rdx\n"
					"	dec ebx\n"
					"	jnz 1b\n"
					"	mov eax, 3\n"
					"	syscall\n"
					"9:	ud2\n");
/* clang-format on */
LABEL(straddle_pf);

static void
operands_across_pages_and_regions(void **state)
{
	struct mini *f = BEGIN(straddle);

	/* tables at 0x280000: the end of region 0, the begin of region 1 */
	put64(f, PDPT_AT + 8 * 511, 0x280000 | 7);
	put64(f, 0x280000 + 8 * 511, 0x281000 | 7);
	put64(f, 0x281000 + 8 * 511, 0x301000 | 7);
	put64(f, PML4_AT + 8, 0x282000 | 7);
	put64(f, 0x282000, 0x283000 | 7);
	put64(f, 0x283000, 0x284000 | 7);
	put64(f, 0x284000, 0x302000 | 7);
	put64(f, 0x300ffc, 0xabcdef);
	go(f);
	assert_int_equal(get64(f, 0x301ffd), 0x1122334455667788);
	assert_int_equal(get64(f, 0x310ffc), get64(f, 0x300ffc));
	assert_int_equal(REG(f, R13), 0);
	had_windows(f, 0);
}

/* ---- code ---- */

/* clang-format off: assembly */
GUEST(patch, 64,
	KERNEL(patch, patch_user) "	mov ebx, 300\n"
				  "	xor ecx, ecx\n"
				  "1:	mov [0x300000], rbx\n"
				  "	mov [rip + 2f + 1], ebx\n"
				  "2:	mov edx, 0\n"
				  "	cmp edx, ebx\n"
				  "	jne 9f\n"
				  "	lea eax, [ebx * 2]\n"
				  "	mov [rip + patch_other + 1], eax\n" /* another page, by its alias */
				  "	call patch_other\n"
				  "	cmp edx, eax\n"
				  "	jne 9f\n"
				  "	dec ebx\n"
				  "	jnz 1b\n"
				  "	mov eax, 3\n"
				  "	syscall\n"
				  "9:	ud2\n"
				  "	.balign 4096\n"
				  "patch_other: mov edx, 0\n"
				  "	ret\n");
/* clang-format on */
LABEL(patch_pf);

static void
code_that_is_written_through_a_window(void **state)
{
	struct mini *f = BEGIN(patch);

	go(f);
	assert_int_equal(REG(f, R13), 0);
	had_windows(f, 0);
}

/* ---- what the host wants to know ---- */

/* clang-format off: assembly */
GUEST(again, 64,
	KERNEL(again, again_user) "1:	mov ebx, 100\n"
				  "2:	inc qword ptr [0x300008]\n"
				  "	mov rax, [0x310000]\n"
				  "	dec ebx\n"
				  "	jnz 2b\n"
				  "	mov eax, 3\n"
				  "	syscall\n"
				  "	jmp 1b\n");
/* clang-format on */
LABEL(again_pf);

static void
go_on(struct mini *f)
{
	struct vcpu *v = f->cpus.cpu[0];

	assert_int_equal(engine->run(v), CPU_EXIT_HALT);
}

static void
writes_are_noted_when_somebody_wants_to_know(void **state)
{
	struct mini *f = BEGIN(again);

	go(f);
	mem_log_start(f->ram, 0, f->ram->size);
	go_on(f);
	assert_true(f->ram->dirty[0x300]);
	assert_false(f->ram->dirty[0x310]);
	mem_log_start(f->ram, 0x300000, 0x1000);
	go_on(f);
	assert_true(f->ram->dirty[0x300]);
	mem_watch_code(f->ram, 0x300);
	assert_true(f->ram->flags[0x300] & PAGE_CODE);
	go_on(f);
	assert_true(f->ram->gens[0x300] > 0);
	assert_int_equal(get64(f, 0x300008), 400);
	had_windows(f, 0);
}

static void
memory_that_may_not_be_mapped_twice_for_a_while(void **state)
{
	struct mini *f = BEGIN(again);
	const struct jit_cpu *j = (const struct jit_cpu *)f->cpus.cpu[0];
	uint64_t maps;

	go(f);
	mem_alias_stop(&f->m.mem);
	maps = engine == &cpu_engine_jit ? j->win.maps : 0;
	go_on(f);
	assert_int_equal(get64(f, 0x300008), 200);
	assert_int_equal(engine == &cpu_engine_jit ? j->win.maps : 0, maps);
	mem_alias_go(&f->m.mem);
	go_on(f);
	ram_forget_file(f->ram);
	go_on(f);
	assert_int_equal(get64(f, 0x300008), 400);
}

static void
memory_that_is_given_back_reads_as_zeroes(void **state)
{
	struct mini *f = BEGIN(again);

	go(f);
	mem_discard(&f->m.mem, f->mem + 0x300000, PAGE_SIZE);
	go_on(f);
	assert_int_equal(get64(f, 0x300008), 100);
	assert_int_equal(get64(f, 0x300000), 0);
}

/* ---- another CPU ---- */

/*
 * CPU 1, as a user, writes the immediate of code at 0x310000, then the same number to 0x320000. CPU 0 runs that code and
 * is never behind what it read before; when it has seen enough it says so at 0x330000. In between it takes the page at
 * 0x300000, where the user counts, away and has the other CPU forget it: then nothing is counted there any more.
 */
/* clang-format off: assembly */
GUEST(cross, 64,
	"	mov ebx, 400\n"
	"1:	mov edi, [0x320000]\n"
	"	push rbx\n"
	"	xor eax, eax\n"
	"	cpuid\n"
	"	pop rbx\n"
	"	mov edx, 0x310000\n"
	"	call rdx\n"
	"	cmp eax, edi\n"
	"	jb 9f\n"
	"	mov qword ptr [0x14800], 0x340007\n"
	"	inc dword ptr [0x330010]\n"
	"	mov al, 1\n"
	"	out 0x20, al\n"
	"2:	pause\n"
	"	mov eax, [0x330020]\n"
	"	cmp eax, [0x330010]\n"
	"	jne 2b\n"
	"	mov rsi, [0x350008]\n" /* the same page */
	"	mov ecx, 200\n"
	"3:	pause\n"
	"	dec ecx\n"
	"	jnz 3b\n"
	"	cmp rsi, [0x350008]\n"
	"	jne 9f\n"
	"	mov qword ptr [0x14800], 0x300007\n"
	"	dec ebx\n"
	"	jnz 1b\n"
	"	mov dword ptr [0x330000], 1\n"
	"	hlt\n"
	"9:	mov dword ptr [0x330000], 1\n"
	"	ud2\n"
	"	.balign 4096\n"
	"cross_int: invlpg [0x300000]\n"
	"	push rax\n"
	"	mov eax, [0x330010]\n"
	"	mov [0x330020], eax\n"
	"	pop rax\n"
	"	iretq\n"
	"cross_one:\n" KERNEL(cross, cross_user) "	xor ebx, ebx\n"
						 "1:	inc ebx\n"
						 "	mov [0x310001], ebx\n"
						 "	mov [0x320000], ebx\n"
						 "	inc qword ptr [0x300008]\n"
						 "	cmp dword ptr [0x330000], 0\n"
						 "	je 1b\n"
						 "	mov eax, 3\n"
						 "	syscall\n");
/* clang-format on */
LABEL(cross_pf);
LABEL(cross_int);
LABEL(cross_one);

static void
another_cpu_runs_what_is_written_and_takes_pages_away(void **state)
{
	struct mini *f = BEGIN(cross);

	for (uint32_t a = USER_AT; a < CODE_AT + (uint32_t)(cross_end - cross_code); a += PAGE_SIZE)
		put64(f, mini_pte(a), a | 7);
	put64(f, mini_pte(0x340000), 0x340007);
	put64(f, mini_pte(0x350000), 0x300003);
	f->mem[0x310000] = 0xb8; /* mov eax, imm32; ret */
	memset(f->mem + 0x310001, 0, 4);
	f->mem[0x310005] = 0xc3;
	put64(f, 0x320000, 0);
	put64(f, 0x330000, 0);
	mini_gate(f, 0x40, ADDRESS(cross, cross_int), 1);
	mini_long(f, 1, ADDRESS(cross, cross_one));
	mini_run_all(f);
	had_windows(f, 1);
}

/* ---- with windows and without ---- */

/* 39 loops, each run in turns with windows and without: the address space is given them, and loses them, at each flush. */
#define TEXT_(x) #x
#define TEXT_OF(x) TEXT_(x)
#define TWINS 39
#define TWIN_ROUNDS 2000
#define TWIN_PASSES 5
/* clang-format off */
GUEST(twins, 64,
	KERNEL(twins, twins_user)
	"	mov ebx, " TEXT_OF(TWIN_PASSES) "\n"
	"5:\n"
	"	.rept " TEXT_OF(TWINS) "\n"
	"	mov ecx, " TEXT_OF(TWIN_ROUNDS) "\n"
	"1:	mov rax, [0x300000]\n"
	"	add rax, rcx\n"
	"	test cl, 1\n"
	"	jz 2f\n"
	"	xor rax, rbx\n"
	"	jmp 3f\n"
	"2:	rol rax, 3\n"
	"3:	mov [0x300000], rax\n"
	"	dec ecx\n"
	"	jnz 1b\n"
	"	mov eax, 2\n"
	"	syscall\n"
	"	.endr\n"
	"	dec ebx\n"
	"	jnz 5b\n"
	"	mov eax, 3\n"
	"	syscall\n");
/* clang-format on */
LABEL(twins_pf);

static uint64_t
twins_sum(void)
{
	uint64_t a = 0x300000;

	for (uint64_t pass = TWIN_PASSES; pass; pass--)
		for (uint64_t n = 0; n < TWINS * TWIN_ROUNDS; n++) {
			uint64_t c = TWIN_ROUNDS - n % TWIN_ROUNDS;

			a += c;
			a = c & 1 ? a ^ pass : a << 3 | a >> 61;
		}
	return a;
}

static void
run_twins(void **state)
{
	struct mini *f = BEGIN(twins);

	go(f);
	assert_int_equal(get64(f, 0x300000), twins_sum());
}

/* `b` leads nowhere, by what its code says itself, where only one of the modes it serves may go. */
static void
block_is_as_it_should_be(const struct jit_block *b)
{
	if (b->key & X86_KEY_OWN)
		assert_int_equal(b->tier, 2);
	for (const struct jit_link *l = b->in; l; l = l->next)
		assert_false(l->from->shared && !b->shared && !l->cross);
}

static void
code_that_is_not_hot_serves_both(void **state)
{
	struct mini *f = *state;
	struct jit_cpu *j = (struct jit_cpu *)f->cpus.cpu[0];
	uint64_t promoted;
	unsigned own = 0, plain = 0;

	if (engine == &cpu_engine_jit) {
		j->eager = false;
		j->win.age = 0;
		j->win.grace = 0;
		j->win.backoff = j->win.backoff_max = 0;
	}
	run_twins(state);
	had_windows(f, 0);
	if (engine != &cpu_engine_jit || !j->win.contexts)
		return;
	for (unsigned i = 0; i < JIT_BUCKETS; i++)
		for (const struct jit_block *b = j->hash[i]; b; b = b->next) {
			block_is_as_it_should_be(b);
			own += b->tier == 2 && b->key & X86_KEY_OWN;
			plain += b->tier == 2 && !(b->key & X86_KEY_OWN);
		}
	assert_in_range(own, TWINS, UINT32_MAX);
	assert_in_range(plain, TWINS, UINT32_MAX);
	/* What was hot is so at once when code memory was full and everything was dropped. */
	promoted = j->promoted;
	jit_drop_all(j);
	run_twins(state);
	assert_in_range(j->promoted - promoted, 0, TWINS / 4);
}

#define WTEST(name) cmocka_unit_test_setup_teardown(name, setup_1, mini_teardown)

static const struct CMUnitTest tests[] = {
	WTEST(a_page_mapped_elsewhere_is_seen_there),
	WTEST(what_may_be_done_with_a_page_changes),
	WTEST(addresses_that_are_nobodys_fault_as_they_should),
	WTEST(operands_across_pages_and_regions),
	WTEST(code_that_is_written_through_a_window),
	WTEST(writes_are_noted_when_somebody_wants_to_know),
	WTEST(memory_that_may_not_be_mapped_twice_for_a_while),
	WTEST(memory_that_is_given_back_reads_as_zeroes),
	WTEST(code_that_is_not_hot_serves_both),
	cmocka_unit_test_setup_teardown(another_cpu_runs_what_is_written_and_takes_pages_away, setup_2, mini_teardown),
};

int
main(void)
{
	return mini_main("windows", tests, ARRAY_LEN(tests), NULL, 0);
}
