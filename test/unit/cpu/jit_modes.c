/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Modes and segments: from each mode to the others and back, many times over; code of several modes on one page;
 * virtual 8086 mode; task switches; 16- and 32-bit code in segments that are not flat.
 */
#include "mini.h"

/* Legacy tables of this file: a 32-bit IDT, 32-bit page tables, two 32-bit TSSs, tables for PAE. */
enum {
	IDT32_AT = 0x5000,
	TSS32_AT = 0x6000,
	TSS32B_AT = 0x6100,
	STACK32_AT = 0x70000,
	PD32_AT = 0x20000, /* 4 MiB pages */
	PAE_AT = 0x21000,  /* PDPT; PD behind it */
	SEL_TSS32 = 0x70,
	SEL_TSS32B = 0x78,
	SEL_GATE = 0x80,  /* a task gate */
	SEL_ODD16 = 0x88, /* code at an odd base */
	SEL_ODD_DATA = 0x90,
	SEL_DOWN = 0x98, /* expand-down */
	SEL_SMALL = 0xa0,
	SEL_CALL = 0xa8, /* a call gate */
};

static void
legacy_tables(struct mini *f)
{
	for (unsigned v = 0; v < 256; v++) {
		uint32_t at = HANDLERS_AT + v;

		put64(f, IDT32_AT + 8 * v,
			(at & 0xffff) | SEL_CODE32 << 16 | 0xee00ull << 32 | (uint64_t)(at >> 16) << 48);
	}
	for (unsigned i = 0; i < 8; i++)
		put32(f, PD32_AT + 4 * i, i << 22 | 0x87);
	put64(f, PAE_AT, (PAE_AT + 0x1000) | 1);
	for (unsigned i = 0; i < 16; i++)
		put64(f, PAE_AT + 0x1000 + 8 * i, (uint64_t)i << 21 | 0x87);
	gdt_set(f, SEL_TSS32, descriptor(TSS32_AT, 0x67, 0x0089));
	gdt_set(f, SEL_TSS32B, descriptor(TSS32B_AT, 0x67, 0x0089));
	gdt_set(f, SEL_GATE, (uint64_t)SEL_TSS32B << 16 | 0x8500ull << 32);
	put32(f, TSS32_AT + 4, STACK32_AT);
	put32(f, TSS32_AT + 8, SEL_DATA);
	put32(f, TSS32_AT + 100, 104u << 16);
	put32(f, TSS32B_AT + 100, 104u << 16);
}

/* 32-bit protected mode, CPL 0, flat, without paging. */
static void
mini_prot32(struct mini *f, uint32_t rip)
{
	struct x86_state *s = &f->cpus.cpu[0]->state;

	mini_long(f, 0, rip);
	s->efer = EFER_NXE;
	s->cr0 &= ~CR0_PG;
	s->cr3 = 0;
	s->cr4 = (CR4_PSE | CR4_OSFXSR | CR4_OSXMMEXCPT) & f->cpus.model.cr4_supported;
	mini_segment(s, SEG_CS, SEL_CODE32, 0, UINT32_MAX, 0xc09b);
	mini_segment(s, SEG_TR, SEL_TSS32, TSS32_AT, 0x67, 0x8b);
	s->idt = (struct x86_table){ IDT32_AT, 0x7ff };
	s->gpr[RSP] = STACK32_AT;
}

static void
mini_real(struct mini *f, uint16_t ip)
{
	struct x86_state *s = &f->cpus.cpu[0]->state;

	x86_reset_state(s, &f->cpus.model, true);
	mini_segment(s, SEG_CS, 0, 0, 0xffff, 0x9b);
	s->rip = ip;
	s->gpr[RSP] = 0xf000;
	for (unsigned v = 0; v < 256; v++)
		put32(f, 4 * v, HANDLERS_AT + v);
	f->cpus.cpu[0]->run_state = VCPU_RUN;
}

/* ---- the grand tour ---- */

/*
 * Real mode, 16-bit protected, 32-bit protected, with 32-bit paging, with PAE, compatibility 32, 64, compatibility 16,
 * 64, and all the way back, each adding to a counter by instructions whose meaning depends on the mode. All code is on
 * one page below 64 KiB, so that each mode reaches it; 48 B8... of the probe means different things in each.
 */
#define TOUR_AT 0x8000
#define T(label) "(" #label " - tour_code + 0x8000)"
/* 40 b8 imm32: in 64-bit code MOV with an empty REX; in 32-bit code INC EAX, MOV; in 16-bit code INC AX and MOV AX,
 * imm16 with two bytes behind it that are an instruction of their own (04 nn: ADD AL, nn). */
#define PROBE ".byte 0x40, 0xb8, 1, 0, 4, 2\n"
/* clang-format off */
__asm__(".pushsection .rodata\n\t.balign 4096\n\t.intel_syntax noprefix\n"
	"	.code16\n"
	"tour_code:\n"
	"tour_real:\n"
	"	xor ax, ax\n"
	"	mov ds, ax\n"
	"	mov es, ax\n"
	"	mov ss, ax\n"
	"	mov sp, 0x7000\n"
	"	inc word ptr [0x7f00]\n"
	"	" PROBE "	add [0x7f10], ax\n"
	"	call tour_16sub\n"
	"	lgdt [" T(tour_gdt) "]\n"
	"	lidt [" T(tour_idt32) "]\n"
	"	mov eax, cr0\n"
	"	or al, 1\n"
	"	mov cr0, eax\n"
	"	.byte 0xea\n"
	"	.word " T(tour_prot16) ", 0x20\n"
	"tour_16sub: inc word ptr "
	"[0x7f02]\n"
	"	ret\n"
	"tour_prot16:\n"
	"	mov ax, 0x28\n"
	"	mov ds, ax\n"
	"	mov ss, ax\n"
	"	mov es, ax\n"
	"	inc word ptr [0x7f04]\n"
	"	" PROBE
	"	add [0x7f10], ax\n"
	"	call tour_16sub\n"
	"	.byte 0x66, 0xea\n"
	"	.long " T(tour_prot32) "\n"
	"	.word 0x18\n"
	"	.code32\n"
	"tour_prot32:\n"
	"	mov ax, 0x10\n"
	"	mov ds, eax\n"
	"	mov ss, eax\n"
	"	mov es, eax\n"
	"	mov esp, 0x7000\n"
	"	inc dword ptr [0x7f08]\n"
	"	" PROBE
	"	add [0x7f14], eax\n"
	"	call tour_32sub\n"
	/* 32-bit paging */
	"	mov eax, 0x10\n"
	"	mov cr4, eax\n"
	"	mov eax, 0x20000\n"
	"	mov cr3, eax\n"
	"	mov eax, cr0\n"
	"	or eax, 0x80000000\n"
	"	mov cr0, eax\n"
	"	" PROBE
	"	add [0x7f14], eax\n"
	"	call tour_32sub\n"
	/* PAE */
	"	mov eax, cr0\n"
	"	and eax, 0x7fffffff\n"
	"	mov cr0, eax\n"
	"	mov eax, 0x30\n"
	"	mov cr4, eax\n"
	"	mov eax, 0x21000\n"
	"	mov cr3, eax\n"
	"	mov eax, cr0\n"
	"	or eax, 0x80000000\n"
	"	mov cr0, eax\n"
	"	" PROBE
	"	add [0x7f14], eax\n"
	"	call tour_32sub\n"
	/* long mode */
	"	mov eax, cr0\n"
	"	and eax, 0x7fffffff\n"
	"	mov cr0, eax\n"
	"	mov eax, 0x10000\n"
	"	mov cr3, eax\n"
	"	mov ecx, 0xc0000080\n"
	"	rdmsr\n"
	"	or eax, 0x100\n"
	"	wrmsr\n"
	"	mov eax, cr0\n"
	"	or eax, 0x80000000\n"
	"	mov cr0, eax\n"
	"	" PROBE
	"	add [0x7f14], eax\n" /* compatibility mode */
	"	call tour_32sub\n"
	"	.byte 0xea\n"
	"	.long " T(tour_64) "\n"
	"	.word 8\n"
	"tour_32sub: inc dword ptr [0x7f0c]\n"
	"	ret\n"
	"	.code64\n"
	"tour_64:\n"
	"	lidt [" T(
	tour_idt64) "]\n"
	"	mov r15, 0x1122334455667788\n"
	"	" PROBE
	"	add [0x7f18], rax\n"
	"	call tour_64sub\n"
	/* down to 16-bit compatibility mode and back */
	"	push 0x20\n"
	"	push " T(tour_c16) "\n"
	"	rex.w retf\n"
	"	.code16\n"
	"tour_c16: mov ax, 0x28\n"
	"	mov ds, ax\n"
	"	" PROBE
	"	add [0x7f10], ax\n"
	"	call tour_16sub\n"
	"	.byte 0x66, 0xea\n"
	"	.long " T(tour_64b) "\n"
	"	.word 8\n"
	"	.code64\n"
	"tour_64b: mov rax, 0x1122334455667788\n"
	"	cmp r15, rax\n"
	"	jne tour_bad\n"
	"	" PROBE
	"	add [0x7f18], rax\n"
	"	call tour_64sub\n"
	/* to 32-bit compatibility mode, out of long mode, to real mode */
	"	push 0x18\n"
	"	push " T(tour_c32) "\n"
	"	rex.w retf\n"
	"tour_64sub: inc qword ptr [0x7f20]\n"
	"	ret\n"
	"tour_bad: ud2\n"
	"	.code32\n"
	"tour_c32: mov eax, 0x10\n"
	"	mov ds, eax\n"
	"	" PROBE
	"	add [0x7f14], eax\n"
	"	mov eax, cr0\n"
	"	and eax, 0x7fffffff\n"
	"	mov cr0, eax\n"
	"	mov ecx, 0xc0000080\n"
	"	rdmsr\n"
	"	and eax, 0xfffffeff\n"
	"	wrmsr\n"
	"	xor eax, eax\n"
	"	mov cr4, eax\n"
	"	" PROBE
	"	add [0x7f14], eax\n"
	"	.byte 0xea\n"
	"	.long " T(tour_p16b) "\n"
	"	.word 0x20\n"
	"	.code16\n"
	"tour_p16b: mov ax, 0x28\n"
	"	mov ds, ax\n"
	"	mov es, ax\n"
	"	mov ss, ax\n"
	"	" PROBE
	"	add [0x7f10], ax\n"
	"	mov eax, cr0\n"
	"	and al, 0xfe\n"
	"	mov cr0, eax\n"
	"	.byte 0xea\n"
	"	.word " T(
	tour_realb) ", 0\n"
	"tour_realb: xor ax, ax\n"
	"	mov ds, ax\n"
	"	mov ss, ax\n"
	"	dec word ptr [0x7f30]\n"
	"	jnz tour_real\n"
	"	hlt\n"
	"tour_gdt: .word 0xfff\n"
	"	.long 0x1000\n"
	"tour_idt32: .word 0x7ff\n"
	"	.long 0x5000\n"
	"tour_idt64: .word 0xfff\n"
	"	.quad 0x2000\n"
	"tour_end:\n"
	"	.code64\n\t.att_syntax\n\t.popsection\n");
/* clang-format on */
extern const uint8_t tour_code[] __attribute__((visibility("hidden")));
extern const uint8_t tour_end[] __attribute__((visibility("hidden")));

static void
from_every_mode_to_the_next_and_back(void **state)
{
	struct mini *f = *state;
	unsigned rounds = 100;

	legacy_tables(f);
	mini_load_at(f, TOUR_AT, tour_code, tour_end);
	mini_real(f, TOUR_AT);
	put16(f, 0x7f30, (uint16_t)rounds);
	assert_int_equal(mini_go(f), CPU_EXIT_HALT);
	assert_int_equal(mini_vector(f), -1);
	assert_int_equal(get32(f, 0x7f00) & 0xffff, rounds);
	assert_int_equal(get32(f, 0x7f00) >> 16, 3 * rounds); /* 16sub */
	assert_int_equal(get32(f, 0x7f04) & 0xffff, rounds);
	assert_int_equal(get32(f, 0x7f08), rounds);
	assert_int_equal(get32(f, 0x7f0c), 4 * rounds);
	assert_int_equal(get64(f, 0x7f20), 2 * rounds);
	/* the probe gives 1 + 2 in 16-bit code, 0x02040001 in the others */
	assert_int_equal(get32(f, 0x7f10) & 0xffff, 4 * rounds * 3);
	assert_int_equal(get32(f, 0x7f14), (uint32_t)(6u * rounds * 0x02040001u));
	assert_int_equal(get64(f, 0x7f18), 2ull * rounds * 0x02040001u);
}

/* ---- one page, two modes ---- */

/* The same bytes run as 64-bit and as 32-bit code by turns: translations must not be mixed up. */
GUEST(both, 64,
	"	mov r14d, 200\n"
	"	xor ebx, ebx\n"
	"both_l: call both_f\n" /* 64-bit */
	"	add rbx, rax\n"
	"	push 0x18\n"
	"	push " AT(both,
		both_32) "\n"
			 "	rex.w retf\n"
			 "	.code32\n"
			 "both_32: call both_f\n"
			 "	add ebx, eax\n"
			 "	.byte 0xea\n"
			 "	.long " AT(both,
				 both_back) "\n"
					    "	.word 8\n"
					    "	.code64\n"
					    "both_back: dec r14d\n"
					    "	jnz both_l\n"
					    "	hlt\n"
					    "both_f: mov eax, 10\n"
					    "	.byte 0x48, 0x83, 0xc0, 0x05\n" /* add rax, 5; or dec eax; add eax, 5 */
					    "	ret\n");

static void
the_same_bytes_in_two_modes(void **state)
{
	struct mini *f = *state;

	RUN(f, both);
	assert_int_equal(REG(f, RBX), 200 * (15 + 14));
}

/* The same code as kernel and as user: what is privileged, and whose pages it sees. */
GUEST(rings, 64,
	"	mov r14d, 100\n"
	"rings_l: call rings_f\n"
	"	push 0x3b\n"
	"	push 0x90000\n"
	"	push 2\n"
	"	push 0x43\n"
	"	push " AT(rings, rings_user) "\n"
					     "	iretq\n"
					     "rings_user: call rings_f\n"
					     "	ud2\n"
					     "rings_f: mov rax, 0x302000\n"
					     "	inc qword ptr [rax]\n" /* the kernel's page */
					     "	ret\n"
					     "rings_pf: add rsp, 8\n"
					     "	inc r13\n"
					     "	mov rsp, 0x80000\n"
					     "	dec r14d\n"
					     "	jnz rings_l\n"
					     "	hlt\n");
LABEL(rings_pf);

static void
the_same_code_as_kernel_and_as_user(void **state)
{
	struct mini *f = *state;

	put64(f, mini_pte(0x302000), 0x302003);
	mini_gate(f, EXC_PF, ADDRESS(rings, rings_pf), 0);
	RUN(f, rings);
	assert_int_equal(REG(f, R13), 100);
	assert_int_equal(get64(f, 0x302000), 100);
}

/* ---- 32-bit code ---- */

GUEST(seg32, 32,
	"	mov ecx, 100\n"
	"	xor ebx, ebx\n"
	"seg32_l: mov eax, 0x90\n" /* base 0x201001 */
	"	mov ds, eax\n"
	"	mov fs, eax\n"
	"	add ebx, [0x10]\n"
	"	mov eax, 0x10\n"
	"	mov ds, eax\n"
	"	add ebx, [0x10]\n"
	"	add ebx, fs:[0x10]\n"
	"	add ebx, [0x201011]\n"
	"	dec ecx\n"
	"	jnz seg32_l\n"
	/* limits */
	"	mov eax, 0xa0\n" /* 0x10 bytes */
	"	mov es, eax\n"
	"	mov edx, es:[0xc]\n"
	"seg32_f: mov edx, es:[0xd]\n"
	"	ud2\n");
LABEL(seg32_f);

static void
segments_with_bases_and_limits_in_32_bit_code(void **state)
{
	struct mini *f = *state;

	legacy_tables(f);
	gdt_set(f, SEL_ODD_DATA, descriptor(0x201001, 0xfffff, 0xc093));
	gdt_set(f, SEL_SMALL, descriptor(0x201001, 0xf, 0x4093));
	put32(f, 0x201011, 1000);
	put32(f, 0x10, 1);
	LOAD(f, seg32);
	mini_prot32(f, CODE_AT);
	assert_int_equal(mini_go(f), CPU_EXIT_HALT);
	assert_int_equal(mini_vector(f), EXC_GP);
	assert_int_equal(REG(f, RBX), 100 * 3001);
	assert_int_equal(get32(f, REG(f, RSP)), 0);
	assert_int_equal(get32(f, REG(f, RSP) + 4), ADDRESS(seg32, seg32_f));
}

/* Paging in 32-bit code: a page goes back and forth between two places, in code and data. */
GUEST(page32, 32,
	"	mov ecx, 200\n"
	"	xor eax, eax\n"
	"	mov edi, 0x300007\n"
	"page32_l: mov [0x22000 + 4 * 0x302], edi\n"
	"	invlpg [0x302000]\n"
	"	call 0x302000 + page32_code - 0x100000\n"
	"	add edx, [0x302ffc]\n"
	"	xor edi, 0x1000\n"
	"	dec ecx\n"
	"	jnz page32_l\n"
	"	hlt\n");

static void
pages_mapped_anew_in_32_bit_code(void **state)
{
	struct mini *f = *state;

	legacy_tables(f);
	put32(f, PD32_AT, 0x22007);
	for (unsigned i = 0; i < 1024; i++)
		put32(f, 0x22000 + 4 * i, i << 12 | 7);
	memcpy(f->mem + 0x300000, (const uint8_t[]){ 0x83, 0xc0, 1, 0xc3 }, 4);
	memcpy(f->mem + 0x301000, (const uint8_t[]){ 0x83, 0xc0, 100, 0xc3 }, 4);
	put32(f, 0x300ffc, 1);
	put32(f, 0x301ffc, 100);
	LOAD(f, page32);
	mini_prot32(f, CODE_AT);
	f->cpus.cpu[0]->state.cr3 = PD32_AT;
	f->cpus.cpu[0]->state.cr0 |= CR0_PG;
	REG(f, RDX) = 0;
	assert_int_equal(mini_go(f), CPU_EXIT_HALT);
	assert_int_equal(mini_vector(f), -1);
	assert_int_equal(REG(f, RAX), 100 * 101);
	assert_int_equal(REG(f, RDX), 100 * 101);
}

/* ---- task switches ---- */

GUEST(tasks, 32,
	"	xor ebx, ebx\n"
	"	mov ecx, 50\n"
	"tasks_l: .byte 0x9a\n" /* call the other task; IRET comes back */
	"	.long 0\n"
	"	.word 0x78\n"
	"	add ebx, 1\n"
	"	dec ecx\n"
	"	jnz tasks_l\n"
	"	mov ecx, 50\n"
	"tasks_m: int 0x60\n" /* by a task gate of the IDT */
	"	add ebx, 1\n"
	"	dec ecx\n"
	"	jnz tasks_m\n"
	"	mov ecx, 50\n"
	"tasks_n: .byte 0xea\n" /* jump through a task gate of the GDT; it jumps back */
	"	.long 0\n"
	"	.word 0x80\n"
	"	add ebx, 1\n"
	"	dec ecx\n"
	"	jnz tasks_n\n"
	"	hlt\n"
	"tasks_b: mov eax, [0x200000]\n"
	"	inc eax\n"
	"	mov [0x200000], eax\n"
	"	cmp eax, 100\n"
	"	jae 1f\n"
	"	iret\n"
	"	jmp tasks_b\n"
	"1:	je 2f\n"
	"	.byte 0xea\n"
	"	.long 0\n"
	"	.word 0x70\n"
	"	jmp tasks_b\n"
	"2:	iret\n"
	"	jmp tasks_b\n");
LABEL(tasks_b);

static void
task_switches_by_call_jump_and_interrupt(void **state)
{
	struct mini *f = *state;

	legacy_tables(f);
	LOAD(f, tasks);
	put32(f, TSS32B_AT + 32, ADDRESS(tasks, tasks_b));
	put32(f, TSS32B_AT + 36, 2);
	put32(f, TSS32B_AT + 56, 0x68000); /* ESP */
	put32(f, TSS32B_AT + 72, SEL_DATA);
	put32(f, TSS32B_AT + 76, SEL_CODE32);
	for (unsigned o = 80; o <= 92; o += 4)
		put32(f, TSS32B_AT + o, SEL_DATA);
	put64(f, IDT32_AT + 8 * 0x60, (uint64_t)SEL_TSS32B << 16 | 0xe500ull << 32);
	gdt_set(f, SEL_TSS32, descriptor(TSS32_AT, 0x67, 0x008b));
	mini_prot32(f, CODE_AT);
	assert_int_equal(mini_go(f), CPU_EXIT_HALT);
	assert_int_equal(mini_vector(f), -1);
	assert_int_equal(REG(f, RBX), 150);
	assert_int_equal(get32(f, 0x200000), 150);
}

/* ---- virtual 8086 mode ---- */

GUEST(v86, 32,
	"	mov ecx, 50\n"
	"	xor ebx, ebx\n"
	"v86_l: push 0\n"
	"	push 0\n"
	"	push 0x5000\n" /* DS */
	"	push 0\n"
	"	push 0x6000\n" /* SS */
	"	push 0xff0\n"
	"	push 0x20002\n" /* VM */
	"	push 0x4001\n"	/* CS: an odd paragraph */
	"	push 0x10\n"
	"	iret\n"
	"v86_gp: add esp, 4\n" /* INT 0x21 in there: IOPL 0 */
	"	movzx eax, ax\n"
	"	add ebx, eax\n"
	"	mov esp, 0x70000\n"
	"	mov eax, 0x10\n"
	"	mov ds, eax\n"
	"	mov es, eax\n"
	"	dec ecx\n"
	"	jnz v86_l\n"
	"	hlt\n");
LABEL(v86_gp);
GUEST(v86_16, 16,
	"	mov ax, 1000\n"
	"	push ax\n"
	"	pop bp\n"
	"	mov ax, [0x20]\n"
	"	add ax, bp\n"
	"	mov [0x22], ax\n"
	"	call 1f\n"
	"	int 0x21\n"
	"1:	inc ax\n"
	"	ret\n");

static void
virtual_8086_mode(void **state)
{
	struct mini *f = *state;

	legacy_tables(f);
	LOAD(f, v86);
	mini_load_at(f, 0x40020, v86_16_code, v86_16_end);
	put16(f, 0x50020, 234);
	put64(f, IDT32_AT + 8 * EXC_GP,
		(ADDRESS(v86, v86_gp) & 0xffff) | SEL_CODE32 << 16 | 0xee00ull << 32 |
			(uint64_t)(ADDRESS(v86, v86_gp) >> 16) << 48);
	mini_prot32(f, CODE_AT);
	assert_int_equal(mini_go(f), CPU_EXIT_HALT);
	if (mini_vector(f) >= 0)
		fail_msg("vector %d", mini_vector(f));
	assert_int_equal(REG(f, RBX), 50 * 1235);
	assert_int_equal(get32(f, 0x50020) >> 16, 1234);
}

/* ---- 16-bit code ---- */

/* Real mode with segments at odd paragraphs; the stack and strings wrap at 64 KiB. */
GUEST(real, 16,
	"	mov ax, 0x4321\n"
	"	mov ds, ax\n"
	"	mov ax, 0x5432\n"
	"	mov es, ax\n"
	"	mov ax, 0x6001\n"
	"	mov ss, ax\n"
	"	xor sp, sp\n"
	"	mov cx, 1000\n"
	"	xor bx, bx\n"
	"real_l: push cx\n" /* the first at 0xfffe */
	"	add bx, [0x100]\n"
	"	mov es:[bx], cl\n"
	"	pop dx\n"
	"	add bx, dx\n"
	"	mov si, 0xfffe\n" /* wraps */
	"	mov di, 0xffff\n"
	"	push cx\n"
	"	mov cx, 4\n"
	"	cld\n"
	"	rep movsb\n"
	"	pop cx\n"
	"	dec cx\n"
	"	jnz real_l\n"
	"	mov bp, sp\n"
	"	hlt\n");

static void
real_mode_with_odd_segments(void **state)
{
	struct mini *f = *state;

	mini_load_at(f, TOUR_AT, real_code, real_end);
	mini_real(f, TOUR_AT);
	put16(f, 0x43310, 7);
	memcpy(f->mem + 0x43210 + 0xfffe, (const uint8_t[]){ 0x11, 0x22 }, 2);
	memcpy(f->mem + 0x43210, (const uint8_t[]){ 0x33, 0x44 }, 2);
	assert_int_equal(mini_go(f), CPU_EXIT_HALT);
	assert_int_equal(mini_vector(f), -1);
	assert_int_equal(REG(f, RBX) & 0xffff, (1000 * 7 + 500500) & 0xffff);
	assert_int_equal(REG(f, RBP) & 0xffff, 0);
	assert_int_equal(f->mem[0x54320 + 0xffff], 0x11);
	assert_int_equal(f->mem[0x54320], 0x22);
	assert_int_equal(f->mem[0x54322], 0x44);
	assert_int_equal(get32(f, 0x70000 + 0xe) & 0xffff, 1);
}

/* 32-bit addresses in 64-bit code, and no element: what is left of the registers, as processors do it. */
#define EMPTY(text)                                                                                                    \
	"	mov rsi, 0x5a5a5a5a00200000\n"                                                                               \
	"	mov rdi, 0x5a5a5a5a00200100\n"                                                                               \
	"	mov rcx, 0x5a5a5a5a00000000\n"                                                                               \
	"	" text "\n"                                                                                            \
	"	shr rsi, 63 - 1\n"                                                                                           \
	"	shr rdi, 63 - 1\n"                                                                                           \
	"	lea rbx, [rbx * 4]\n"                                                                                        \
	"	lea rbx, [rbx + rsi * 2]\n"                                                                                  \
	"	add rbx, rdi\n"                                                                                              \
	"	or rdx, rcx\n"

GUEST(empty, 64,
	"	xor ebx, ebx\n"
	"	xor edx, edx\n" EMPTY(".byte 0x67; rep movsq") EMPTY(".byte 0x67; rep stosq") EMPTY(
		".byte 0x67; rep lodsb") EMPTY(".byte 0x67; repe cmpsb") EMPTY(".byte 0x67; repne scasd") "	hlt\n");

static void
string_instructions_without_elements_and_with_32_bit_addresses(void **state)
{
	struct mini *f = *state;

	RUN(f, empty);
	/* MOVS: neither pointer keeps its upper half; STOS: RSI; the others: both */
	assert_int_equal(REG(f, RBX), ((((0 * 4 + 2) * 4) + 3) * 4 + 3) * 4 + 3);
	assert_int_equal(REG(f, RDX), 0);
}

/* What goes beyond the limit faults: a word at 0xffff, code that runs off the end. */
GUEST(limits, 16,
	"	mov ax, 0x4000\n"
	"	mov ds, ax\n"
	"limits_a: mov bx, [0xffff]\n"
	"	mov word ptr [0xffff], bx\n"
	"	.byte 0xea\n"
	"	.word 0xfffe, 0\n"
	"limits_h: inc word ptr cs:[0x500]\n" /* goes on behind an instruction of 4 bytes */
	"	push bp\n"
	"	mov bp, sp\n"
	"	add word ptr [bp + 2], 4\n"
	"	cmp word ptr [bp + 2], 0x100\n"
	"	jb 1f\n"
	"	pop bp\n"
	"	iret\n"
	"1:	mov ax, [bp + 2]\n"
	"	hlt\n");
LABEL(limits_h);

/* A push for which there is no room ends in a shutdown: there is none for its exception either (SDM 2 PUSH). */
GUEST(no_room, 16,
	"	mov sp, 1\n"
	"	push ax\n"
	"	hlt\n");

static void
the_ends_of_segments_in_real_mode(void **state)
{
	struct mini *f = *state;

	mini_load_at(f, TOUR_AT, limits_code, limits_end);
	mini_real(f, TOUR_AT);
	memcpy(f->mem + 0xfffe, (const uint8_t[]){ 0x90, 0xb0 }, 2); /* nop; mov al, one byte too far */
	put32(f, 4 * EXC_GP, (uint32_t)(TOUR_AT + (limits_h - limits_code)));
	assert_int_equal(mini_go(f), CPU_EXIT_HALT);
	assert_int_equal(mini_vector(f), -1);
	assert_int_equal(get32(f, 0x500) & 0xffff, 3);
	assert_int_equal(REG(f, RAX) & 0xffff, 3); /* 0xffff + 4 */
	mini_load_at(f, TOUR_AT, no_room_code, no_room_end);
	mini_real(f, TOUR_AT);
	assert_int_equal(mini_go(f), CPU_EXIT_SHUTDOWN);
}

/* A 16-bit code segment at an odd base, in protected mode; instructions lie across pages of linear memory anywhere. */
GUEST(odd16, 16,
	"	mov cx, 300\n"
	"	xor ax, ax\n"
	"odd16_l: add ax, 3\n"
	"	call odd16_f\n"
	"	jmp odd16_n\n"
	"odd16_f: add ax, cs:[odd16_v - odd16_code]\n"
	"	ret\n"
	"odd16_v: .word 5\n"
	"odd16_n: inc byte ptr [bx]\n"
	"	loop odd16_l\n"
	"	hlt\n");

static void
sixteen_bit_code_at_an_odd_base(void **state)
{
	struct mini *f = *state;
	struct x86_state *s = &f->cpus.cpu[0]->state;

	legacy_tables(f);
	/* such that the code lies across the boundary of a page, at every offset */
	for (uint32_t base = 0x200fd0; base < 0x201002; base++) {
		gdt_set(f, SEL_ODD16, descriptor(base, 0xffff, 0x009b));
		mini_load_at(f, base, odd16_code, odd16_end);
		mini_prot32(f, 0);
		mini_segment(s, SEG_CS, SEL_ODD16, base, 0xffff, 0x9b);
		mini_segment(s, SEG_SS, SEL_DATA16, 0, 0xffff, 0x93);
		mini_segment(s, SEG_DS, SEL_ODD_DATA, 0x210003, 0xffff, 0x93);
		s->gpr[RSP] = 0x7001;
		s->gpr[RBX] = base & 0xff;
		assert_int_equal(mini_go(f), CPU_EXIT_HALT);
		assert_int_equal(REG(f, RCX) & 0xffff, 0);
		assert_int_equal(REG(f, RAX) & 0xffff, 2400);
	}
}

/* Expand-down data and a stack in it. */
GUEST(down, 32,
	"	mov eax, 0x98\n"
	"	mov ss, eax\n"
	"	mov esp, 0x3000\n"
	"	push 0x12345678\n"
	"	pop ebx\n"
	"	mov ds, eax\n"
	"	mov ecx, [0x2ffc]\n"
	"	mov edx, [0x2000]\n" /* the first that is allowed */
	"down_f: mov edx, [0x1ffd]\n"
	"	ud2\n"
	"down_gp: hlt\n");
LABEL(down_f);

static void
segments_that_expand_down(void **state)
{
	struct mini *f = *state;

	legacy_tables(f);
	gdt_set(f, SEL_DOWN, descriptor(0x210000, 0x1fff, 0x4097));
	LOAD(f, down);
	mini_prot32(f, CODE_AT);
	assert_int_equal(mini_go(f), CPU_EXIT_HALT);
	assert_int_equal(mini_vector(f), EXC_GP);
	assert_int_equal(REG(f, RBX), 0x12345678);
	assert_int_equal(REG(f, RCX), 0x12345678);
	assert_int_equal(get32(f, 0x210000 + REG(f, RSP) + 4), ADDRESS(down, down_f));
}

/* "Unreal" mode: real mode whose data segment kept its limit of 4 GiB. */
GUEST(unreal, 16,
	"	mov ecx, 100\n"
	"unreal_l: mov esi, 0x200000\n"
	"	add dword ptr [esi], 3\n"
	"	mov byte ptr [esi + ecx * 4 + 0x100], cl\n"
	"	dec ecx\n"
	"	jnz unreal_l\n"
	"	mov eax, [esi]\n"
	"	hlt\n");

static void
real_mode_with_a_limit_of_4_gib(void **state)
{
	struct mini *f = *state;

	mini_load_at(f, TOUR_AT, unreal_code, unreal_end);
	mini_real(f, TOUR_AT);
	f->cpus.cpu[0]->state.seg[SEG_DS].limit = UINT32_MAX;
	f->cpus.cpu[0]->state.seg[SEG_DS].attr |= SEG_G;
	assert_int_equal(mini_go(f), CPU_EXIT_HALT);
	assert_int_equal(mini_vector(f), -1);
	assert_int_equal(REG(f, RAX), 300);
	assert_int_equal(f->mem[0x200100 + 4 * 77], 77);
}

static const struct CMUnitTest tests[] = {
	TEST(from_every_mode_to_the_next_and_back),
	TEST(the_same_bytes_in_two_modes),
	TEST(the_same_code_as_kernel_and_as_user),
	TEST(segments_with_bases_and_limits_in_32_bit_code),
	TEST(pages_mapped_anew_in_32_bit_code),
	TEST(task_switches_by_call_jump_and_interrupt),
	TEST(virtual_8086_mode),
	TEST(real_mode_with_odd_segments),
	TEST(string_instructions_without_elements_and_with_32_bit_addresses),
	TEST(the_ends_of_segments_in_real_mode),
	TEST(sixteen_bit_code_at_an_odd_base),
	TEST(segments_that_expand_down),
	TEST(real_mode_with_a_limit_of_4_gib),
};

int
main(void)
{
	return mini_main("modes and segments", tests, ARRAY_LEN(tests), NULL, 0);
}
