/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Paging under running code: pages mapped anew, aliases, permissions, demand paging at every kind of access, A and D
 * bits, page tables written while in use, TLB shoot-down between CPUs.
 */
#include "mini.h"

/* Two versions of a function at A_AT and B_AT, mapped by turns at X_AT. */
#define A_AT 0x300000
#define B_AT 0x301000
#define X_AT 0x302000
#define TABLE2_AT 0x18000 /* a second set of tables: PML4, PDPT, PD, PT */

static void
put_function(struct mini *f, uint32_t at, uint8_t add)
{
	/* add eax, n; ret */
	memcpy(f->mem + at, (const uint8_t[]){ 0x83, 0xc0, add, 0xc3 }, 4);
	mem_written(&f->m.mem, at, 4);
}

#define SYMBOLS                                                                                                        \
	".set pt, 0x13000\n"                                                                                           \
	".set x_pte, 0x13000 + 8 * 0x302\n"

GUEST(remap, 64,
	SYMBOLS "	xor eax, eax\n"
		"	mov ecx, 200\n"
		"	mov edi, 0x300007\n"
		"	xor edx, edx\n"
		"remap_l: mov [x_pte], rdi\n"
		"	invlpg [0x302000]\n"
		"	call 0x302000 + remap_code - 0x100000\n"
		"	mov rbx, [0x302ff8]\n"
		"	add rdx, rbx\n"
		"	xor edi, 0x1000\n"
		"	dec ecx\n"
		"	jnz remap_l\n"
		"	hlt\n");

static void
a_page_mapped_anew_gives_its_code_and_data(void **state)
{
	struct mini *f = *state;

	put_function(f, A_AT, 1);
	put_function(f, B_AT, 100);
	put64(f, A_AT + 0xff8, 1);
	put64(f, B_AT + 0xff8, 100);
	RUN(f, remap);
	assert_int_equal(REG(f, RAX), 100 * 101);
	assert_int_equal(REG(f, RDX), 100 * 101);
}

/* The page of the running code itself: the same code up to the change, another behind it. */
GUEST(under, 64,
	SYMBOLS "	mov edi, 0x301007\n"
		"	mov ebx, 1\n"
		"	jmp 0x302000 + under_code - 0x100000\n");
GUEST(under_a, 64,
	SYMBOLS "	mov [x_pte], rdi\n"
		"	invlpg [0x302000]\n"
		"	mov eax, 1\n"
		"	hlt\n");
GUEST(under_b, 64,
	SYMBOLS "	mov [x_pte], rdi\n"
		"	invlpg [0x302000]\n"
		"	mov eax, 2\n"
		"	hlt\n");

static void
the_page_of_the_running_code_itself(void **state)
{
	struct mini *f = *state;

	mini_load_at(f, A_AT, under_a_code, under_a_end);
	mini_load_at(f, B_AT, under_b_code, under_b_end);
	put64(f, mini_pte(X_AT), A_AT | 7);
	RUN(f, under);
	assert_int_equal(REG(f, RAX), 2);
}

/* A second address space that differs in one page. */
static void
second_space(struct mini *f)
{
	put64(f, TABLE2_AT, (TABLE2_AT + 0x1000) | 7);
	put64(f, TABLE2_AT + 0x1000, (TABLE2_AT + 0x2000) | 7);
	memcpy(f->mem + TABLE2_AT + 0x2000, f->mem + PD_AT, PAGE_SIZE);
	put64(f, TABLE2_AT + 0x2008, (TABLE2_AT + 0x3000) | 7);
	memcpy(f->mem + TABLE2_AT + 0x3000, f->mem + PT_AT + PAGE_SIZE, PAGE_SIZE);
	put64(f, TABLE2_AT + 0x3000 + 8 * (X_AT >> 12 & 511), B_AT | 7);
	put64(f, mini_pte(X_AT), A_AT | 7);
}

GUEST(spaces, 64,
	SYMBOLS "	xor eax, eax\n"
		"	mov ecx, 200\n"
		"	mov rsi, 0x10000\n"
		"	mov rdi, 0x18000\n"
		"spaces_l: mov cr3, rsi\n"
		"	call 0x302000 + spaces_code - 0x100000\n"
		"	add rdx, [0x302ff8]\n"
		"	xchg rsi, rdi\n"
		"	dec ecx\n"
		"	jnz spaces_l\n"
		"	hlt\n");

static void
two_address_spaces_by_turns(void **state)
{
	struct mini *f = *state;

	second_space(f);
	put_function(f, A_AT, 1);
	put_function(f, B_AT, 100);
	put64(f, A_AT + 0xff8, 1);
	put64(f, B_AT + 0xff8, 100);
	LOAD(f, spaces);
	mini_long(f, 0, CODE_AT);
	REG(f, RDX) = 0;
	assert_int_equal(mini_go(f), CPU_EXIT_HALT);
	assert_int_equal(mini_vector(f), -1);
	assert_int_equal(REG(f, RAX), 100 * 101);
	assert_int_equal(REG(f, RDX), 100 * 101);
}

/*
 * An engine that numbers address spaces comes round at some time: what it knows of one that had the number before must
 * be forgotten by then. jit's numbers have 16 bits. The function is run in the first space, and again when about as many
 * "new" ones have come as there are numbers, so often that one of them is the first's; not so often that it is hot.
 */
GUEST(renumbered, 64,
	SYMBOLS "	xor eax, eax\n"
		"	mov rsi, 0x10000\n"
		"	mov rdi, 0x18000\n"
		"	mov cr3, rsi\n"
		"	call 0x301ffe + renumbered_code - 0x100000\n"
		"	call 0x301ffe + renumbered_code - 0x100000\n"
		"	mov ecx, 65000\n"
		"renumbered_1: mov cr3, rdi\n"
		"	dec ecx\n"
		"	jnz renumbered_1\n"
		"	mov ecx, 1000\n"
		"renumbered_2: mov cr3, rdi\n"
		"	call 0x301ffe + renumbered_code - 0x100000\n"
		"	dec ecx\n"
		"	jnz renumbered_2\n"
		"	hlt\n");

static void
an_instruction_whose_second_page_differs_between_many_spaces(void **state)
{
	struct mini *f = *state;
	static const uint8_t begin[] = { 0x83, 0xc0 }; /* add eax, n; ret: n and RET are in the second page */

	second_space(f);
	put64(f, TABLE2_AT + 0x3000 + 8 * (X_AT >> 12 & 511), DATA_AT | 7);
	memcpy(f->mem + B_AT + 0xffe, begin, sizeof(begin));
	memcpy(f->mem + A_AT, (const uint8_t[]){ 1, 0xc3 }, 2);
	memcpy(f->mem + DATA_AT, (const uint8_t[]){ 100, 0xc3 }, 2);
	RUN(f, renumbered);
	assert_int_equal(REG(f, RAX), 2 * 1 + 1000 * 100);
}

/* The same of direct jumps to another page: 700, of which one comes when its number is the first's again. */
GUEST(links, 64,
	SYMBOLS "	xor eax, eax\n"
		"	mov rsi, 0x10000\n"
		"	mov rdi, 0x18000\n"
		"	lea rbx, [rip + links_of]\n"
		"	mov ecx, 700\n"
		"links_1: mov cr3, rsi\n"
		"	mov cr3, rsi\n"
		"	call rbx\n"
		"	add rbx, 8\n"
		"	dec ecx\n"
		"	jnz links_1\n"
		"	mov ecx, 64480\n"
		"links_2: mov cr3, rdi\n"
		"	dec ecx\n"
		"	jnz links_2\n"
		"	lea rbx, [rip + links_of]\n"
		"	mov ecx, 700\n"
		"links_3: mov cr3, rdi\n"
		"	call rbx\n"
		"	add rbx, 8\n"
		"	dec ecx\n"
		"	jnz links_3\n"
		"	hlt\n"
		"	.balign 8\n"
		"links_of:\n"
		"	.rept 700\n"
		"	jmp 0x302000 + links_code - 0x100000\n"
		"	.balign 8\n"
		"	.endr\n");

static void
direct_jumps_to_a_page_that_differs_between_many_spaces(void **state)
{
	struct mini *f = *state;

	second_space(f);
	put_function(f, A_AT, 1);
	put_function(f, B_AT, 100);
	RUN(f, links);
	assert_int_equal(REG(f, RAX), 700 * 101);
}

/* The same with process-context identifiers and without flushing, then a page of one of them invalidated. */
GUEST(pcids, 64,
	SYMBOLS "	mov rax, cr4\n"
		"	or eax, 1 << 17\n"
		"	mov cr4, rax\n"
		"	xor eax, eax\n"
		"	mov ecx, 200\n"
		"	mov rsi, 0x10001\n"
		"	mov rdi, 0x18002\n"
		"	mov cr3, rsi\n"
		"	mov cr3, rdi\n"
		"	bts rsi, 63\n"
		"	bts rdi, 63\n"
		"pcids_l: mov cr3, rsi\n"
		"	call 0x302000 + pcids_code - 0x100000\n"
		"	add rdx, [0x302ff8]\n"
		"	xchg rsi, rdi\n"
		"	dec ecx\n"
		"	jnz pcids_l\n"
		/* the first space's page goes to B, by INVLPG in that space and by a MOV CR3 that flushes */
		"	mov cr3, rsi\n"
		"	mov qword ptr [x_pte], 0x301007\n"
		"	invlpg [0x302000]\n"
		"	call 0x302000 + pcids_code - 0x100000\n" /* + 100 */
		"	mov qword ptr [x_pte], 0x300007\n"
		"	mov cr3, rdi\n"
		"	btr rsi, 63\n"
		"	mov cr3, rsi\n"
		"	call 0x302000 + pcids_code - 0x100000\n" /* + 1 */
		"	hlt\n");

static void
two_address_spaces_with_identifiers(void **state)
{
	struct mini *f = *state;

	if (!(f->cpus.model.cr4_supported & CR4_PCIDE))
		skip();
	second_space(f);
	put_function(f, A_AT, 1);
	put_function(f, B_AT, 100);
	put64(f, A_AT + 0xff8, 1);
	put64(f, B_AT + 0xff8, 100);
	LOAD(f, pcids);
	mini_long(f, 0, CODE_AT);
	REG(f, RDX) = 0;
	assert_int_equal(mini_go(f), CPU_EXIT_HALT);
	assert_int_equal(mini_vector(f), -1);
	assert_int_equal(REG(f, RAX), 100 * 101 + 101);
	assert_int_equal(REG(f, RDX), 100 * 101);
}

/* A global page outlives MOV CR3, not a change of CR4.PGE. */
GUEST(globals, 64,
	SYMBOLS "	xor eax, eax\n"
		"	mov qword ptr [x_pte], 0x300107\n"
		"	invlpg [0x302000]\n"
		"	call 0x302000 + globals_code - 0x100000\n" /* + 1 */
		"	mov qword ptr [x_pte], 0x301107\n"
		"	mov rbx, cr4\n"
		"	mov rcx, rbx\n"
		"	and bl, 0x7f\n"
		"	mov cr4, rbx\n"
		"	mov cr4, rcx\n"
		"	call 0x302000 + globals_code - 0x100000\n" /* + 100 */
		"	mov qword ptr [x_pte], 0x300107\n"
		"	invlpg [0x302000]\n"
		"	call 0x302000 + globals_code - 0x100000\n" /* + 1 */
		"	hlt\n");

static void
a_global_page(void **state)
{
	struct mini *f = *state;

	put_function(f, A_AT, 1);
	put_function(f, B_AT, 100);
	RUN(f, globals);
	assert_int_equal(REG(f, RAX), 102);
}

/* One page of code by two names: what depends on RIP depends on the name. */
GUEST(names, 64,
	SYMBOLS "	mov qword ptr [0x13000 + 8 * 0x303], 0x300007\n"
		"	mov qword ptr [x_pte], 0x300007\n"
		"	mov ecx, 100\n"
		"names_l: call 0x302000 + names_code - 0x100000\n"
		"	mov rbx, rax\n"
		"	call 0x303000 + names_code - 0x100000\n"
		"	sub rax, rbx\n"
		"	add rdx, rax\n"
		"	dec ecx\n"
		"	jnz names_l\n"
		"	mov rax, rdx\n"
		"	hlt\n");
GUEST(names_f, 64,
	"	lea rax, [rip + 1f]\n"
	"	jmp 2f\n"
	"	ud2\n"
	"1:	nop\n"
	"2:	call 3f\n"
	"3:	pop rsi\n"
	"	add rax, rsi\n"
	"	ret\n");

static void
one_page_of_code_by_two_names(void **state)
{
	struct mini *f = *state;

	mini_load_at(f, A_AT, names_f_code, names_f_end);
	LOAD(f, names);
	mini_long(f, 0, CODE_AT);
	REG(f, RDX) = 0;
	assert_int_equal(mini_go(f), CPU_EXIT_HALT);
	assert_int_equal(mini_vector(f), -1);
	assert_int_equal(REG(f, RAX), 100 * 0x2000);
}

/* ---- permissions ---- */

/* A page of code loses its right to execute, though code that ran before jumps there directly, calls it, returns. */
GUEST(nx, 64,
	SYMBOLS "	mov ecx, 50\n"
		"nx_l: call 0x302000 + nx_code - 0x100000\n"
		"	dec ecx\n"
		"	jnz nx_l\n"
		"	bts qword ptr [x_pte], 63\n"
		"	invlpg [0x302000]\n"
		"	call 0x302000 + nx_code - 0x100000\n"
		"	ud2\n");

static void
a_page_that_may_no_longer_execute(void **state)
{
	struct mini *f = *state;

	put_function(f, X_AT, 1);
	mini_long(f, 0, CODE_AT);
	LOAD(f, nx);
	assert_int_equal(mini_go(f), CPU_EXIT_HALT);
	assert_int_equal(mini_vector(f), EXC_PF);
	assert_int_equal(f->cpus.cpu[0]->state.cr2, X_AT);
	assert_int_equal(get64(f, REG(f, RSP)), 0x11); /* error code: present, fetch */
	assert_int_equal(get64(f, REG(f, RSP) + 8), X_AT);
}

/* The same for the page the code itself is on: it runs on up to the end of nothing. */
GUEST(nx_self, 64,
	SYMBOLS "	bts qword ptr [0x13000 + 8 * 0x100], 63\n"
		"	invlpg [0x100000]\n"
		"nx_self_f: mov eax, 1\n"
		"	hlt\n");
LABEL(nx_self_f);

static void
the_page_of_the_code_itself_may_not_execute(void **state)
{
	struct mini *f = *state;

	mini_long(f, 0, CODE_AT);
	LOAD(f, nx_self);
	assert_int_equal(mini_go(f), CPU_EXIT_HALT);
	assert_int_equal(mini_vector(f), EXC_PF);
	assert_int_equal(get64(f, REG(f, RSP) + 8), ADDRESS(nx_self, nx_self_f));
}

GUEST(wp, 64,
	SYMBOLS "	mov qword ptr [x_pte], 0x302005\n" /* read-only */
		"	invlpg [0x302000]\n"
		"	mov rax, cr0\n"
		"	btr eax, 16\n"
		"	mov cr0, rax\n"
		"	mov byte ptr [0x302000], 1\n" /* allowed */
		"	bts eax, 16\n"
		"	mov cr0, rax\n"
		"	mov bl, [0x302000]\n"
		"wp_f: mov byte ptr [0x302000], 2\n" /* not allowed */
		"	ud2\n");
LABEL(wp_f);

static void
write_protection_of_the_kernel_itself(void **state)
{
	struct mini *f = *state;

	mini_long(f, 0, CODE_AT);
	LOAD(f, wp);
	assert_int_equal(mini_go(f), CPU_EXIT_HALT);
	assert_int_equal(mini_vector(f), EXC_PF);
	assert_int_equal(f->mem[X_AT], 1);
	assert_int_equal(REG(f, RBX) & 0xff, 1);
	assert_int_equal(get64(f, REG(f, RSP)), 3);
	assert_int_equal(get64(f, REG(f, RSP) + 8), ADDRESS(wp, wp_f));
}

GUEST(smap, 64,
	SYMBOLS "	mov qword ptr [x_pte], 0x302007\n"	   /* user */
		"	and dword ptr [0x13000 + 8 * 0x200], -5\n" /* the data page is the kernel's */
		"	mov rax, cr4\n"
		"	or eax, 1 << 21\n"
		"	mov cr4, rax\n"
		"	mov ecx, 20\n"
		"smap_l: stac\n"
		"	mov byte ptr [0x302000], cl\n"
		"	clac\n"
		"	mov bl, [0x200000]\n"
		"	dec ecx\n"
		"	jnz smap_l\n"
		"smap_f: mov byte ptr [0x302000], 77\n"
		"	ud2\n");
LABEL(smap_f);

static void
user_pages_are_out_of_bounds_with_smap(void **state)
{
	struct mini *f = *state;

	if (!(f->cpus.model.cr4_supported & CR4_SMAP))
		skip();
	/* code, stack and tables have to be the kernel's */
	for (unsigned i = 0; i < 1024; i++)
		put64(f, PT_AT + 8 * i, i << 12 | 3);
	mini_long(f, 0, CODE_AT);
	LOAD(f, smap);
	assert_int_equal(mini_go(f), CPU_EXIT_HALT);
	assert_int_equal(mini_vector(f), EXC_PF);
	assert_int_equal(f->mem[X_AT], 1);
	assert_int_equal(get64(f, REG(f, RSP) + 8), ADDRESS(smap, smap_f));
}

/* ---- demand paging ---- */

/* The handler maps the page to itself and goes on. At 0x200000 it counts; r8-r15 are not touched. */
#define DEMAND(name)                                                                                                   \
#name "_pf: push rax\n"                                                                                        \
	      "	push rdi\n"                                                                                            \
	      "	mov rax, cr2\n"                                                                                        \
	      "	invlpg [rax]\n"                                                                                        \
	      "	mov rdi, rax\n"                                                                                        \
	      "	shr rdi, 12\n"                                                                                         \
	      "	and rax, -4096\n"                                                                                      \
	      "	or rax, 7\n"                                                                                           \
	      "	mov [0x13000 + rdi * 8], rax\n"                                                                        \
	      "	inc qword ptr [0x200000]\n"                                                                            \
	      "	pop rdi\n"                                                                                             \
	      "	pop rax\n"                                                                                             \
	      "	add rsp, 8\n"                                                                                          \
	      "	iretq\n"

GUEST(demand, 64,
	"	mov rbp, 0x320000\n"
	"	mov rcx, 0x0123456789abcdef\n"
	/* an access to a page each, and one across two */
	"	mov [rbp], rcx\n"
	"	add rbp, 0x1000\n"
	"	mov rdx, [rbp]\n"
	"	add rbp, 0x1000\n"
	"	lock add [rbp], rcx\n"
	"	add rbp, 0x2000\n"
	"	mov [rbp - 3], rcx\n"
	"	add rbp, 0x2000\n"
	"	mov rbx, [rbp - 3]\n"
	"	add rbp, 0x2000\n"
	"	add [rbp - 3], rcx\n"
	"	add rbp, 0x1000\n"
	"	movq xmm0, rcx\n"
	"	movups [rbp], xmm0\n"
	"	add rbp, 0x2000\n"
	"	movups [rbp - 8], xmm0\n"
	"	add rbp, 0x1000\n"
	"	fninit\n"
	"	fld1\n"
	"	fstp tbyte ptr [rbp]\n"
	"	add rbp, 0x1000\n"
	"	mov r8, rsp\n"
	"	lea rsp, [rbp + 8]\n"
	"	push rcx\n" /* handlers run on a stack of their own */
	"	add rbp, 0x2000\n"
	"	lea rsp, [rbp + 3]\n"
	"	push rcx\n"
	"	pop r12\n"
	"	lea rsp, [rbp + 0x2005]\n"
	"	call demand_call\n"
	"	add rbp, 0x3000\n"
	"	lea rsp, [rbp + 0x10]\n"
	"	pop r9\n"
	"	mov rsp, rbp\n"
	"	push qword ptr [rbp + 0x1000]\n"
	"	pop qword ptr [rbp + 0x2000]\n"
	"	mov rsp, r8\n"
	/* 3 pages by string instructions */
	"	lea rdi, [rbp + 0x3000]\n"
	"	mov rax, rcx\n"
	"	mov ecx, 0x600\n"
	"	rep stosq\n"
	"	lea rsi, [rbp + 0x3000]\n"
	"	lea rdi, [rbp + 0x7004]\n"
	"	mov ecx, 0x600\n"
	"	rep movsq\n"
	"	mov r10, [rbp + 0x7004 + 0x2000]\n"
	"	mov rcx, [0x200000]\n"
	"	hlt\n"
	"demand_call: pop r11\n"
	"	push r11\n"
	"	ret\n" DEMAND(demand));
LABEL(demand_pf);

static void
every_kind_of_access_finds_its_page_missing(void **state)
{
	struct mini *f = *state;

	for (uint32_t a = 0x320000; a < 0x360000; a += PAGE_SIZE)
		put64(f, mini_pte(a), 0);
	mini_gate(f, EXC_PF, ADDRESS(demand, demand_pf), 1);
	RUN(f, demand);
	assert_int_equal(REG(f, RDX), 0);
	assert_int_equal(REG(f, RBX), 0);
	assert_int_equal(REG(f, R12), 0x0123456789abcdef);
	assert_int_equal(REG(f, R10), 0x0123456789abcdef);
	assert_int_equal(get64(f, 0x320000), 0x0123456789abcdef);
	assert_int_equal(get64(f, 0x322000), 0x0123456789abcdef);
	assert_int_equal(get64(f, 0x323ffd), 0x0123456789abcdef);
	assert_int_equal(get64(f, 0x327ffd), 0x0123456789abcdef);
	assert_int_equal(f->mem[0x32c000 + 7], 0x80); /* 1.0 */
	assert_int_equal(get64(f, 0x32d000), 0x0123456789abcdef);
	/* the same number of faults in both engines: each page once */
	unsigned mapped = 0;
	for (uint32_t a = 0x320000; a < 0x360000; a += PAGE_SIZE)
		mapped += get64(f, mini_pte(a)) & 1;
	assert_int_equal(REG(f, RCX), mapped);
}

/* Both pointers of a MOVS come to pages that fault, with the same element, which on the side of the load lies across. */
GUEST(both, 64,
	"	mov esi, 0x3015bd\n"
	"	mov edi, 0x3045c0\n"
	"	mov ecx, 0x390\n"
	"	rep movsq\n"
	"	ud2\n");

static void
the_load_of_a_string_instruction_faults_before_its_store(void **state)
{
	struct mini *f = *state;

	put64(f, mini_pte(0x303000), 0);
	put64(f, mini_pte(0x306000), 0);
	mini_long(f, 0, CODE_AT);
	LOAD(f, both);
	assert_int_equal(mini_go(f), CPU_EXIT_HALT);
	assert_int_equal(mini_vector(f), EXC_PF);
	assert_int_equal(f->cpus.cpu[0]->state.cr2, 0x303000);
	assert_int_equal(REG(f, RSI), 0x302ffd);
	assert_int_equal(REG(f, RDI), 0x306000);
	assert_int_equal(get64(f, REG(f, RSP)), 0); /* error code: not present, read */
}

/* Code that lies on pages that are not there yet; the last instruction of a page goes on in the next. */
GUEST(fetch, 64,
	"	mov ecx, 3\n"
	"fetch_l: mov rax, 0x330ffe\n"
	"	call rax\n"
	"	mov rax, 0x332000\n"
	"	call rax\n"
	"	mov qword ptr [0x13000 + 8 * 0x330], 0\n"
	"	mov qword ptr [0x13000 + 8 * 0x331], 0\n"
	"	mov qword ptr [0x13000 + 8 * 0x332], 0\n"
	"	mov rax, cr3\n"
	"	mov cr3, rax\n"
	"	dec ecx\n"
	"	jnz fetch_l\n"
	"	mov rcx, [0x200000]\n"
	"	hlt\n" DEMAND(fetch));
LABEL(fetch_pf);

static void
code_whose_pages_are_missing(void **state)
{
	struct mini *f = *state;

	mini_gate(f, EXC_PF, ADDRESS(fetch, fetch_pf), 1);
	/* add edx, 0x01010101 on two pages; ret; inc ebx; ret */
	memcpy(f->mem + 0x330ffe, (const uint8_t[]){ 0x81, 0xc2, 1, 1, 1, 1, 0xc3 }, 7);
	memcpy(f->mem + 0x332000, (const uint8_t[]){ 0xff, 0xc3, 0xc3 }, 3);
	for (uint32_t a = 0x330000; a < 0x333000; a += PAGE_SIZE)
		put64(f, mini_pte(a), 0);
	LOAD(f, fetch);
	mini_long(f, 0, CODE_AT);
	REG(f, RDX) = 0;
	assert_int_equal(mini_go(f), CPU_EXIT_HALT);
	assert_int_equal(mini_vector(f), -1);
	assert_int_equal(REG(f, RDX), 0x03030303);
	assert_int_equal(REG(f, RBX), 3);
	assert_int_equal(REG(f, RCX), 9);
}

GUEST(half, 64,
	"	mov rax, 0x330ffe\n"
	"	jmp rax\n");

static void
the_missing_second_half_of_an_instruction_is_named(void **state)
{
	struct mini *f = *state;

	memcpy(f->mem + 0x330ffe, (const uint8_t[]){ 0x81, 0xc2, 1, 1, 1, 1, 0xf4 }, 7);
	put64(f, mini_pte(0x331000), 0);
	mini_long(f, 0, CODE_AT);
	LOAD(f, half);
	assert_int_equal(mini_go(f), CPU_EXIT_HALT);
	assert_int_equal(mini_vector(f), EXC_PF);
	assert_int_equal(f->cpus.cpu[0]->state.cr2, 0x331000);
	assert_int_equal(get64(f, REG(f, RSP) + 8), 0x330ffe);
}

/* ---- A and D ---- */

GUEST(bits, 64,
	SYMBOLS "	mov rdi, x_pte\n"
		"	mov ecx, 10\n"
		"bits_l: mov qword ptr [rdi], 0x302007\n"
		"	invlpg [0x302000]\n"
		"	mov al, [0x302000]\n"
		"	mov rbx, [rdi]\n" /* A */
		"	mov [0x302000], al\n"
		"	mov rdx, [rdi]\n" /* A, D */
		"	cmp rbx, 0x302027\n"
		"	jne bits_bad\n"
		"	cmp rdx, 0x302067\n"
		"	jne bits_bad\n"
		"	mov qword ptr [rdi], 0x302007\n"
		"	invlpg [0x302000]\n"
		"	push rcx\n"
		"	lock add byte ptr [0x302001], 1\n"
		"	pop rcx\n"
		"	cmp qword ptr [rdi], 0x302067\n"
		"	jne bits_bad\n"
		"	mov qword ptr [rdi], 0x302007\n"
		"	invlpg [0x302000]\n"
		"	movups xmm0, [0x302010]\n"
		"	cmp qword ptr [rdi], 0x302027\n"
		"	jne bits_bad\n"
		"	movups [0x302010], xmm0\n"
		"	cmp qword ptr [rdi], 0x302067\n"
		"	jne bits_bad\n"
		"	dec ecx\n"
		"	jnz bits_l\n"
		"	hlt\n"
		"bits_bad: ud2\n");

static void
accessed_and_dirty_are_set_again_when_cleared(void **state)
{
	struct mini *f = *state;

	RUN(f, bits);
}

/* Code that runs on a large page, and reads it, does not make it dirty. */
GUEST(clean, 64,
	"	mov rbp, 0x600000\n"
	"	call rbp\n"
	"	mov rax, [0x12000 + 8 * 3]\n"
	"	mov [rbp + 0x800], rax\n"
	"	mov rbx, [0x12000 + 8 * 3]\n"
	"	hlt\n");

static void
a_large_page_is_dirty_when_it_is_written(void **state)
{
	struct mini *f = *state;

	/* mov ecx, [rbp + 0x100]; add edx, ecx; ret */
	memcpy(f->mem + 0x600000, (const uint8_t[]){ 0x8b, 0x8d, 0, 1, 0, 0, 0x01, 0xca, 0xc3 }, 9);
	RUN(f, clean);
	assert_int_equal(REG(f, RAX), 0x6000a7);
	assert_int_equal(REG(f, RBX), 0x6000e7);
}

/* ---- tables in use are written ---- */

/* The page tables' own page is written by many kinds of stores while its entries are used. */
GUEST(tables, 64,
	SYMBOLS "	mov ecx, 100\n"
		"tables_l: mov edx, ecx\n"
		"	and edx, 1\n"
		"	shl edx, 12\n"
		"	lea rax, [rdx + 0x300007]\n"
		"	test cl, 2\n"
		"	jz 1f\n"
		"	mov [x_pte], rax\n"
		"	jmp 3f\n"
		"1:	test cl, 4\n"
		"	jz 2f\n"
		"	xchg [x_pte], rax\n"
		"	jmp 3f\n"
		"2:	mov [x_pte], eax\n"
		"	mov rdi, x_pte\n"
		"	stosq\n"
		"3:	invlpg [0x302000]\n"
		"	movzx eax, byte ptr [0x302000]\n"
		"	shr edx, 12\n"
		"	cmp eax, edx\n"
		"	jne tables_bad\n"
		"	dec ecx\n"
		"	jnz tables_l\n"
		/* a large page is split; the parts lead elsewhere */
		"	mov eax, [0x600000]\n"
		"	mov qword ptr [0x12000 + 8 * 3], 0x1c007\n"
		"	invlpg [0x600000]\n"
		"	mov ebx, [0x600000]\n"
		"	mov esi, [0x601000]\n"
		/* and made whole again */
		"	mov qword ptr [0x12000 + 8 * 3], 0x600087\n"
		"	invlpg [0x601000]\n"
		"	mov edi, [0x601000]\n"
		"	hlt\n"
		"tables_bad: ud2\n");

static void
page_tables_in_use_are_written(void **state)
{
	struct mini *f = *state;

	f->mem[A_AT] = 0;
	f->mem[B_AT] = 1;
	put32(f, 0x600000, 0x60);
	put32(f, 0x601000, 0x61);
	for (unsigned i = 0; i < 512; i++)
		put64(f, 0x1c000 + 8 * i, (0x600000 + ((i ^ 1) << 12)) | 7);
	RUN(f, tables);
	assert_int_equal(REG(f, RAX), 0x60);
	assert_int_equal(REG(f, RBX), 0x61);
	assert_int_equal(REG(f, RSI), 0x60);
	assert_int_equal(REG(f, RDI), 0x61);
}

/* ---- shoot-down ---- */

/*
 * CPU 0 moves a page that CPU 1 reads and calls all the time, tells it by an interrupt and waits until its handler has
 * invalidated the page; from then on CPU 1 must not see the old one, which CPU 0 spoils. 0x200000: round; 0x200040: the
 * last round CPU 1 has acknowledged; 0x200080: end.
 */
GUEST(shoot, 64,
	SYMBOLS "	test r15d, r15d\n"
		"	jnz shoot_1\n"
		"	mov ebx, 1\n"
		"	mov edi, 0x301007\n"
		"shoot_0: mov [x_pte], rdi\n"
		"	mov [0x200000], ebx\n"
		"	mov al, 1\n"
		"	out 0x20, al\n"
		"1:	pause\n"
		"	cmp [0x200040], ebx\n"
		"	jne 1b\n"
		"	mov rsi, rdi\n"
		"	xor rsi, 0x1000\n"
		"	and rsi, -4096\n"
		"	mov dword ptr [rsi], 0x0b0f0b0f\n" /* ud2 in the old page */
		"	mov dword ptr [rsi + 0x800], 0xdead\n"
		"	mov eax, 300\n"
		"2:	dec eax\n"
		"	jnz 2b\n"
		"	mov dword ptr [rsi], 0xc390c089\n" /* mov eax, eax; nop; ret */
		"	mov dword ptr [rsi + 0x800], 0x600d\n"
		"	xor edi, 0x1000\n"
		"	inc ebx\n"
		"	cmp ebx, 500\n"
		"	jne shoot_0\n"
		"	mov dword ptr [0x200080], 1\n"
		"	hlt\n"
		"shoot_1: sti\n"
		"3:	call 0x302000 + shoot_code - 0x100000\n"
		"	cmp dword ptr [0x302800], 0x600d\n"
		"	jne shoot_bad\n"
		"	inc r14\n"
		"	cmp dword ptr [0x200080], 0\n"
		"	je 3b\n"
		"	cli\n"
		"	hlt\n"
		"shoot_bad: ud2\n"
		"shoot_irq: push rax\n"
		"	invlpg [0x302000]\n"
		"	mov eax, [0x200000]\n"
		"	mov [0x200040], eax\n"
		"	pop rax\n"
		"	iretq\n");
LABEL(shoot_irq);

static void
a_cpu_is_told_that_a_page_has_moved(void **state)
{
	struct mini *f = *state;

	LOAD(f, shoot);
	mini_gate(f, 0x40, ADDRESS(shoot, shoot_irq), 0);
	put64(f, mini_pte(X_AT), A_AT | 7);
	for (unsigned i = 0; i < 2; i++) {
		put32(f, A_AT + 0x1000 * i, 0xc390c089);
		put32(f, A_AT + 0x1000 * i + 0x800, 0x600d);
	}
	f->cpus.cpu[1]->state.gpr[R15] = 1;
	mini_run_all(f);
	assert_int_equal(get32(f, 0x200040), 499);
	assert_true(f->cpus.cpu[1]->state.gpr[R14] > 0);
}

/* ---- addresses that differ where they must not ---- */

/* Code is run in several spaces; then jumps go to where it is, but for bits 48 to 63. */
GUEST(twisted, 64,
	"	lea r15, [rip + 1f]\n"
	"	mov r14, " AT(twisted, twisted_f) "\n"
						  "	mov ebx, 4\n"
						  "1:	mov cr3, rsi\n"
						  "	dec ebx\n"
						  "	js 2f\n"
						  "	jmp r14\n"
						  "2:	lea r15, [rip + 3f]\n"
						  "	mov ebx, 127\n"
						  "	jmp r14\n"
						  "3:	mov rax, rbx\n"
						  "	shl rax, 48\n"
						  "	xor rax, r14\n"
						  "	dec ebx\n"
						  "	js 4f\n"
						  "	jmp rax\n"
						  "4:	hlt\n"
						  "twisted_gp: inc r12\n"
						  "	mov [rsp + 8], r15\n"
						  "	add rsp, 8\n"
						  "	iretq\n"
						  "	.balign 4096\n"
						  "twisted_f: inc r13\n"
						  "	jmp r15\n");
LABEL(twisted_f);
LABEL(twisted_gp);

static void
code_is_not_found_at_addresses_that_are_not_canonical(void **state)
{
	struct mini *f = *state;

	mini_gate(f, EXC_GP, ADDRESS(twisted, twisted_gp), 0);
	LOAD(f, twisted);
	mini_long(f, 0, CODE_AT);
	REG(f, RSI) = PML4_AT;
	assert_int_equal(mini_go(f), CPU_EXIT_HALT);
	assert_int_equal(mini_vector(f), -1);
	assert_int_equal(REG(f, R12), 127);
	assert_int_equal(REG(f, R13), 4 + 1);
}

static const struct CMUnitTest tests[] = {
	TEST(code_is_not_found_at_addresses_that_are_not_canonical),
	TEST(a_page_mapped_anew_gives_its_code_and_data),
	TEST(the_page_of_the_running_code_itself),
	TEST(two_address_spaces_by_turns),
	TEST(an_instruction_whose_second_page_differs_between_many_spaces),
	TEST(direct_jumps_to_a_page_that_differs_between_many_spaces),
	TEST(two_address_spaces_with_identifiers),
	TEST(a_global_page),
	TEST(one_page_of_code_by_two_names),
	TEST(a_page_that_may_no_longer_execute),
	TEST(the_page_of_the_code_itself_may_not_execute),
	TEST(write_protection_of_the_kernel_itself),
	TEST(user_pages_are_out_of_bounds_with_smap),
	TEST(every_kind_of_access_finds_its_page_missing),
	TEST(the_load_of_a_string_instruction_faults_before_its_store),
	TEST(code_whose_pages_are_missing),
	TEST(the_missing_second_half_of_an_instruction_is_named),
	TEST(accessed_and_dirty_are_set_again_when_cleared),
	TEST(a_large_page_is_dirty_when_it_is_written),
	TEST(page_tables_in_use_are_written),
	TEST_2(a_cpu_is_told_that_a_page_has_moved),
};

int
main(void)
{
	return mini_main("paging under running code", tests, ARRAY_LEN(tests), NULL, 0);
}
