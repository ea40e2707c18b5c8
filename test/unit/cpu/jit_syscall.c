/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Between user and kernel by SYSCALL and SYSRET, and what the kernel does on the way: SWAPGS, STAC, CLAC, RDTSC, PUSHF.
 * The translator does the ordinary case of these itself (cpu/jit/mode.c); here is that case and what is not ordinary.
 * Thousands of rounds, so that hot code is met too.
 */
#include "mini.h"

/* clang-format off: assembly */
/* The kernel's page is at CODE_AT, the user's behind it; the user's stack ends at 0x90000, its data is at 0x302000. */
#define SETUP(entry, user)                                                                                             \
	"	mov ecx, 0xc0000081\n" /* STAR */                                                                      \
	"	xor eax, eax\n"                                                                                              \
	"	mov edx, 0x00300008\n"                                                                                       \
	"	wrmsr\n"                                                                                                     \
	"	inc ecx\n" /* LSTAR */                                                                                 \
	"	mov eax, " entry "\n"                                                                                  \
	"	xor edx, edx\n"                                                                                              \
	"	wrmsr\n"                                                                                                     \
	"	mov ecx, 0xc0000084\n" /* SFMASK */                                                                    \
	"	mov eax, 0x47700\n"                                                                                          \
	"	wrmsr\n" TO_USER(user)
#define TO_USER(user)                                                                                                  \
	"	push 0x3b\n"                                                                                                 \
	"	push 0x90000\n"                                                                                              \
	"	push 0x202\n"                                                                                                \
	"	push 0x43\n"                                                                                                 \
	"	push " user "\n"                                                                                       \
	"	iretq\n"
#define SMAP_ON                                                                                                        \
	"	mov rax, cr4\n"                                                                                              \
	"	or eax, 1 << 21\n"                                                                                           \
	"	mov cr4, rax\n"
#define USER_PAGE "	.balign 4096\n"
#define USER_AT 0x101000
/* clang-format on */

static void
kernel_and_user_pages(struct mini *f)
{
	for (unsigned i = 0; i < 1024; i++)
		put64(f, PT_AT + 8 * i, i << 12 | 3);
	put64(f, mini_pte(USER_AT), USER_AT | 7);
	put64(f, mini_pte(0x8f000), 0x8f000 | 7);
	put64(f, mini_pte(0x302000), 0x302000 | 7);
}

static void
go(struct mini *f, int vector)
{
	enum cpu_exit x = mini_go(f);

	if (x != CPU_EXIT_HALT || mini_vector(f) != vector)
		fail_msg("%s, vector %d, cr2 %llx, frame %llx %llx", cpu_exit_text(x), mini_vector(f),
			(unsigned long long)f->cpus.cpu[0]->state.cr2, (unsigned long long)get64(f, REG(f, RSP)),
			(unsigned long long)get64(f, REG(f, RSP) + 8));
}

/* clang-format off: assembly */
GUEST(ways, 64,
	SMAP_ON SETUP(AT(ways, ways_sys),
		AT(ways, ways_user)) "ways_sys: swapgs\n"
				     "	mov r8, rsp\n"
				     "	mov rsp, 0x80000\n"
				     "	push rcx\n"
				     "	push r11\n"
				     "	push r8\n"
				     "	cmp rcx, " AT(
					     ways, ways_back) "\n"
							      "	jne ways_bad\n"
							      "	test r11d, 0x200\n" /* as the user had them */
							      "	jz ways_bad\n"
							      "	test r11d, 1\n"
							      "	jz ways_bad\n"
							      "	stac\n"
							      "	pushfq\n"
							      "	pop rdx\n"
							      "	inc qword ptr [0x302000]\n" /* the user's */
							      "	bt edx, 18\n"
							      "	jnc ways_bad\n"
							      "	clac\n"
							      "	pushfq\n"
							      "	pop rdx\n"
							      "	test edx, 0x40700\n"
							      "	jnz ways_bad\n"
							      "	mov dx, cs\n"
							      "	cmp dx, 8\n"
							      "	jne ways_bad\n"
							      "	mov dx, ss\n"
							      "	cmp dx, 16\n"
							      "	jne ways_bad\n"
							      "	pop r8\n"
							      "	pop r11\n"
							      "	pop rcx\n"
							      "	mov rsp, r8\n"
							      "	swapgs\n"
							      "	sysretq\n"
							      "ways_bad: ud2\n" USER_PAGE "ways_user: mov ebx, 6000\n"
							      "1:	push rbx\n"
							      "	mov edx, ebx\n"
							      "	shr edx, 1\n"
							      "	stc\n"
							      "	syscall\n"
							      "ways_back: jnc 2f\n"
							      "	pushfq\n"
							      "	pop rdx\n"
							      "	test edx, 0x200\n"
							      "	jz 2f\n"
							      "	mov dx, cs\n"
							      "	cmp dx, 0x43\n"
							      "	jne 2f\n"
							      "	mov dx, ss\n"
							      "	cmp dx, 0x3b\n"
							      "	jne 2f\n"
							      "	pop rdx\n"
							      "	cmp edx, ebx\n"
							      "	jne 2f\n"
							      "	dec ebx\n"
							      "	jnz 1b\n"
							      "	hlt\n" /* #GP: the end */
							      "2:	ud2\n");
/* clang-format on */
LABEL(ways_back);

static void
a_system_call_and_what_is_on_its_way(void **state)
{
	struct mini *f = *state;

	if (!(f->cpus.model.cr4_supported & CR4_SMAP))
		skip();
	kernel_and_user_pages(f);
	mini_long(f, 0, CODE_AT);
	LOAD(f, ways);
	go(f, EXC_GP);
	assert_int_equal(get64(f, 0x302000), 6000);
}

/* The handler of page faults counts and goes on at R14. */
#define SKIP_FAULT(name)                                                                                               \
#name "_pf: inc r13\n"                                                                                         \
	      "	add rsp, 8\n"                                                                                          \
	      "	mov [rsp], r14\n"                                                                                      \
	      "	iretq\n"

/* clang-format off: assembly */
GUEST(leak, 64,
	SMAP_ON "	mov ecx, 6000\n"
		"	mov r14, " AT(
			leak, leak_next) "\n"
					 "1:	mov rsp, 0x303000\n"
					 "	stac\n"
					 "	push rcx\n" /* with AC the user's page is a stack as any other */
					 "	push rcx\n"
					 "	pop rdx\n"
					 "	clac\n"
					 "	push rcx\n"
					 "	ud2\n"
					 "leak_next: stac\n"
					 "	pop rdx\n"
					 "	cmp rdx, rcx\n"
					 "	clac\n"
					 "	jne 2f\n"
					 "	dec ecx\n"
					 "	jnz 1b\n"
					 "	hlt\n"
					 "2:	ud2\n" SKIP_FAULT(leak));
/* clang-format on */
LABEL(leak_pf);

static void
with_ac_clear_the_users_stack_is_out_of_bounds_again(void **state)
{
	struct mini *f = *state;

	if (!(f->cpus.model.cr4_supported & CR4_SMAP))
		skip();
	kernel_and_user_pages(f);
	mini_gate(f, EXC_PF, ADDRESS(leak, leak_pf), 1);
	mini_gate(f, EXC_UD, HANDLERS_AT + EXC_UD, 1);
	mini_long(f, 0, CODE_AT);
	LOAD(f, leak);
	go(f, -1);
	assert_int_equal(REG(f, R13), 6000);
}

/* clang-format off: assembly */
GUEST(stacks, 64,
	SETUP(AT(stacks, stacks_sys), AT(stacks, stacks_user)) "stacks_sys: mov r8, rsp\n"
							       "	mov rsp, 0x80000\n"
							       "	push rcx\n"
							       "	call 1f\n"
							       "	pop rcx\n"
							       "	mov rsp, r8\n"
							       "	sysretq\n"
							       "1:	ret\n" SKIP_FAULT(stacks) USER_PAGE
	"stacks_user: mov ebx, 6000\n"
	"	mov r14, " AT(stacks, stacks_next) "\n"
						   "1:	push rbx\n"
						   "	syscall\n"
						   "	mov r9, rsp\n"
						   "	mov rsp, 0x80000\n" /* where the kernel has just been */
						   "	push rbx\n"
						   "	ud2\n"
						   "stacks_next: mov rsp, r9\n"
						   "	pop rdx\n"
						   "	cmp edx, ebx\n"
						   "	jne 2f\n"
						   "	dec ebx\n"
						   "	jnz 1b\n"
						   "	hlt\n"
						   "2:	ud2\n");
/* clang-format on */
LABEL(stacks_pf);

static void
the_kernels_stack_is_not_the_users(void **state)
{
	struct mini *f = *state;

	kernel_and_user_pages(f);
	mini_gate(f, EXC_PF, ADDRESS(stacks, stacks_pf), 1);
	mini_gate(f, EXC_UD, HANDLERS_AT + EXC_UD, 1);
	mini_long(f, 0, CODE_AT);
	LOAD(f, stacks);
	go(f, EXC_GP);
	assert_int_equal(REG(f, R13), 6000);
}

/*
 * The system call sets R11's flag in EBP before it goes back: a step, an alignment check, IOPL; or it goes where nothing
 * is. R12 counts what came of it.
 */
/* clang-format off: assembly */
GUEST(odd, 64,
	"	mov rax, cr0\n"
	"	or eax, 1 << 18\n" /* AM */
	"	mov cr0, rax\n" SETUP(AT(odd, odd_sys),
		AT(odd, odd_user)) "odd_sys: or r11, rbp\n"
				   "	test ebp, ebp\n"
				   "	jns odd_ret\n"
				   "	bts rcx, 62\n"
				   "odd_ret: sysretq\n"
				   "odd_db: inc r12\n"
				   "	and dword ptr [rsp + 16], -0x101\n"
				   "	iretq\n"
				   "odd_ac: inc r13\n"
				   "	add rsp, 8\n"
				   "	and dword ptr [rsp + 16], -0x40001\n"
				   "	iretq\n"
				   "odd_gp: add rsp, 8\n"
				   "	cmp word ptr [rsp + 8], 8\n" /* in the kernel */
				   "	jne odd_out\n"
				   "	cmp qword ptr [rsp], " AT(odd, odd_ret) "\n"
										"	jne odd_out\n"
										"	inc r14\n"
										"	btr rcx, 62\n"
										"	xor ebp, ebp\n"
										"	iretq\n"
										"odd_out: hlt\n" USER_PAGE
										"odd_user: mov ebx, 1000\n"
										"	xor r12d, r12d\n"
										"	xor r13d, r13d\n"
										"	xor r14d, r14d\n"
										"1:	mov ebp, 0x100\n"
										"	syscall\n"
										"	nop\n" /* the step */
										"	mov ebp, 0x40000\n"
										"	syscall\n"
										"	mov eax, [0x302001]\n"
										"	xor ebp, ebp\n"
										"	syscall\n"
										"	mov eax, [0x302001]\n"
										"	mov ebp, 0x80000000\n"
										"	syscall\n"
										"	mov ebp, 0x3000\n"
										"	syscall\n"
										"	cli\n" /* IOPL 3 */
										"	sti\n"
										"	pushfq\n"
										"	and qword ptr [rsp], -0x3001\n"
										"	popfq\n" /* IOPL stays */
										"	xor ebp, ebp\n"
										"	syscall\n"
										"	dec ebx\n"
										"	jnz 1b\n"
										"	xor r15d, r15d\n"
										"	hlt\n");
/* clang-format on */
LABEL(odd_db);
LABEL(odd_ac);
LABEL(odd_gp);

static void
sysret_with_odd_flags_and_to_nowhere(void **state)
{
	struct mini *f = *state;

	kernel_and_user_pages(f);
	mini_gate(f, EXC_DB, ADDRESS(odd, odd_db), 1);
	mini_gate(f, EXC_AC, ADDRESS(odd, odd_ac), 1);
	mini_gate(f, EXC_GP, ADDRESS(odd, odd_gp), 1);
	mini_long(f, 0, CODE_AT);
	LOAD(f, odd);
	go(f, -1);
	assert_int_equal(REG(f, RBX) & 0xffffffff, 0);
	assert_int_equal(REG(f, R12), 1000);
	assert_int_equal(REG(f, R13), 1000);
	assert_int_equal(REG(f, R14), 1000);
}

/* clang-format off: assembly */
GUEST(waits, 64,
	SETUP(AT(waits, waits_sys),
		AT(waits, waits_user)) "waits_sys: mov edx, ebx\n"
				       "	and edx, 1\n"
				       "	jz 1f\n"
				       "	xor eax, eax\n"
				       "	out 0x20, al\n" /* interrupts this CPU, whose IF is clear */
				       "	inc r12\n"
				       "1:	sysretq\n"
				       "waits_int: inc r13\n"
				       "	cmp qword ptr [rsp], " AT(
					       waits, waits_back) "\n"
								  "	jne 2f\n"
								  "	iretq\n"
								  "2:	ud2\n" USER_PAGE "waits_user: mov ebx, 6000\n"
								  "	xor r12d, r12d\n"
								  "	xor r13d, r13d\n"
								  "1:	syscall\n"
								  "waits_back: cmp r12, r13\n"
								  "	jne 2f\n"
								  "	dec ebx\n"
								  "	jnz 1b\n"
								  "	hlt\n"
								  "2:	ud2\n");
/* clang-format on */
LABEL(waits_int);

static void
an_interrupt_that_waited_comes_right_behind_sysret(void **state)
{
	struct mini *f = *state;

	kernel_and_user_pages(f);
	mini_gate(f, 0x40, ADDRESS(waits, waits_int), 0);
	mini_long(f, 0, CODE_AT);
	LOAD(f, waits);
	go(f, EXC_GP);
	assert_int_equal(REG(f, R13), 3000);
}

/* clang-format off: assembly */
GUEST(tsc, 64,
	"	mov ecx, 0xc0000103\n" /* TSC_AUX */
	"	mov eax, 77\n"
	"	xor edx, edx\n"
	"	wrmsr\n" SETUP(AT(tsc, tsc_sys),
		AT(tsc, tsc_user)) "tsc_sys: mov rax, cr4\n"
				   "	or eax, 4\n" /* TSD */
				   "	mov cr4, rax\n"
				   "	rdtsc\n" /* the kernel's all the same */
				   "	sysretq\n"
				   "tsc_gp: cmp qword ptr [rsp + 8], " AT(
					   tsc, tsc_refused) "\n"
							     "	jne 1f\n"
							     "	mov ecx, 0xc0000080\n"
							     "	rdmsr\n"
							     "	and eax, -2\n" /* SCE */
							     "	wrmsr\n" TO_USER(
								     AT(tsc, tsc_off)) "1:	hlt\n" USER_PAGE
										       "tsc_user: mov ebx, 3000\n"
										       "	xor esi, esi\n"
										       "1:	rdtsc\n"
										       "	shl rdx, 32\n"
										       "	or rax, rdx\n"
										       "	cmp rax, rsi\n"
										       "	jb 2f\n"
										       "	mov rsi, rax\n"
										       "	rdtscp\n"
										       "	shl rdx, 32\n"
										       "	or rax, rdx\n"
										       "	cmp rax, rsi\n"
										       "	jb 2f\n"
										       "	mov rsi, rax\n"
										       "	cmp rcx, 77\n"
										       "	jne 2f\n"
										       "	dec ebx\n"
										       "	jnz 1b\n"
										       "	syscall\n"
										       "tsc_refused: rdtsc\n"
										       "2:	ud2\n"
										       "tsc_off: inc r15\n"
										       "	syscall\n");
/* clang-format on */
LABEL(tsc_gp);
LABEL(tsc_off);

static void
the_time_stamp_counter_in_user_mode_and_a_syscall_switched_off(void **state)
{
	struct mini *f = *state;

	kernel_and_user_pages(f);
	mini_gate(f, EXC_GP, ADDRESS(tsc, tsc_gp), 0);
	mini_long(f, 0, CODE_AT);
	LOAD(f, tsc);
	go(f, EXC_UD);
	assert_int_equal(get64(f, REG(f, RSP)), ADDRESS(tsc, tsc_off) + 3);
}

static const struct CMUnitTest tests[] = {
	TEST(a_system_call_and_what_is_on_its_way),
	TEST(with_ac_clear_the_users_stack_is_out_of_bounds_again),
	TEST(the_kernels_stack_is_not_the_users),
	TEST(sysret_with_odd_flags_and_to_nowhere),
	TEST(an_interrupt_that_waited_comes_right_behind_sysret),
	TEST(the_time_stamp_counter_in_user_mode_and_a_syscall_switched_off),
};

int
main(void)
{
	return mini_main("system calls", tests, ARRAY_LEN(tests), NULL, 0);
}
