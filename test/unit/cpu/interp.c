/* SPDX-License-Identifier: Apache-2.0 */
/* The interpreter with hand-assembled code: what random programs (test/isa/) do not reach. */
#include "cpu/interp/interp.h"

#include "test/unit/cpu/soft.h"

#define CODE 0x7c00u
#define S (c->v.state)

static struct interp_cpu *second; /* another CPU of the same machine, where a test needs one */

static struct interp_cpu *
make_cpu(int index)
{
	size_t size = (sizeof(struct interp_cpu) + 63) & ~(size_t)63;
	struct interp_cpu *i = aligned_alloc(64, size);
	struct err e = { 0 };

	memset(i, 0, size);
	i->c.v.m = &machine;
	i->c.v.cpus = &cpus;
	i->c.v.index = index;
	i->c.v.engine = &cpu_engine_interp;
	x86_reset_state(&i->c.v.state, &cpus.model, true);
	assert_int_equal(cpu_engine_interp.open(&i->c.v, &e), 0);
	return i;
}

static int
open_interp(void **state)
{
	if (soft_open("host"))
		return -1;
	x86_soft_close(c);
	free(c);
	c = &make_cpu(0)->c;
	cpus.cpu[0] = &c->v;
	/* real mode at 0:CODE with a stack at 0:CODE and vector n going to 0:0x500 + n, which halts */
	for (int i = 0; i < 6; i++)
		S.seg[i] = (struct x86_seg){ .attr = 0x93, .limit = 0xffff };
	S.seg[SEG_CS].attr = 0x9b;
	S.rip = CODE;
	S.gpr[RSP] = CODE;
	for (unsigned v = 0; v < 256; v++)
		put32(v * 4, 0x500 + v);
	memset(ram + 0x500, 0xf4, 256);
	S.idt = (struct x86_table){ 0, 0x3ff };
	cpu_engine_interp.put_state(&c->v);
	return 0;
}

static int
close_interp(void **state)
{
	cpu_engine_interp.close(&c->v);
	free(c);
	if (second) {
		cpu_engine_interp.close(&second->c.v);
		free(second);
		second = NULL;
	}
	machine_close(&machine);
	return 0;
}

static void
place(unsigned at, const void *code, unsigned len)
{
	memcpy(ram + at, code, len);
	mem_written(&machine.mem, at, len);
}
#define CODE_AT(at, ...)                                                                                               \
	do {                                                                                                           \
		static const uint8_t code_bytes[] = { __VA_ARGS__ };                                                   \
		place(at, code_bytes, sizeof(code_bytes));                                                             \
	} while (0)

static enum cpu_exit
run(void)
{
	enum cpu_exit x = cpu_engine_interp.run(&c->v);

	cpu_engine_interp.get_state(&c->v);
	return x;
}

static void
run_to_halt(void)
{
	assert_int_equal(run(), CPU_EXIT_HALT);
}

/* The exception whose handler halted. */
static int
vector(void)
{
	return (int)S.rip - 1 - 0x500;
}

/* ---- real mode ---- */

static void
real_mode_adds_segment_bases_and_takes_interrupts(void **state)
{
	CODE_AT(CODE, 0xb8, 0x00, 0x20,		    /* mov ax,2000h */
		0x8e, 0xd8,			    /* mov ds,ax */
		0xc7, 0x06, 0x10, 0x00, 0x34, 0x12, /* mov word [10h],1234h */
		0xa1, 0x10, 0x00,		    /* mov ax,[10h] */
		0xcd, 0x40,			    /* int 40h */
		0x05, 0x01, 0x00,		    /* add ax,1 */
		0xf4);
	put32(0x40 * 4, 0x3000 << 16 | 0x20);
	CODE_AT(0x30020, 0x40, 0xcf); /* inc ax; iret */
	run_to_halt();
	assert_int_equal(get16(0x20010), 0x1234);
	assert_int_equal(S.gpr[RAX] & 0xffff, 0x1236);
	assert_int_equal(S.gpr[RSP], CODE);
}

static void
sixteen_bit_stacks_and_addresses_wrap(void **state)
{
	S.gpr[RSP] = 0x50000;
	S.gpr[RBX] = 0xffff;
	S.gpr[RSI] = 2;
	S.seg[SEG_SS].base = 0x40000;
	put16(0x10, 0xbeef);
	cpu_engine_interp.put_state(&c->v);
	CODE_AT(CODE, 0x68, 0xfe, 0xca, /* push 0cafeh */
		0x8b, 0x40, 0x0f,	/* mov ax,[bx+si+0fh] */
		0xf4);
	run_to_halt();
	assert_int_equal(S.gpr[RSP], 0x5fffe);
	assert_int_equal(get16(0x4fffe), 0xcafe);
	assert_int_equal(S.gpr[RAX] & 0xffff, 0xbeef);
}

static void
a_word_at_the_end_of_a_segment_raises_gp_and_code_cannot_run_off_its_end(void **state)
{
	CODE_AT(CODE, 0xbb, 0xff, 0xff, /* mov bx,0ffffh */
		0x8b, 0x07);		/* mov ax,[bx] */
	run_to_halt();
	assert_int_equal(vector(), EXC_GP);
	assert_int_equal(get16((unsigned)S.gpr[RSP] & 0xffff), CODE + 3);

	S.rip = 0xfffe;
	S.gpr[RSP] = CODE;
	CODE_AT(0xfffe, 0x40, 0x40, 0xf4);
	run_to_halt();
	assert_int_equal(vector(), EXC_GP);
	assert_int_equal(S.gpr[RAX] & 0xffff, 2);
}

static void
division_faults_point_at_the_instruction_and_traps_behind_it(void **state)
{
	CODE_AT(CODE, 0x31, 0xc9, 0xf7, 0xf1); /* xor cx,cx; div cx */
	run_to_halt();
	assert_int_equal(vector(), EXC_DE);
	assert_int_equal(get16(CODE - 6), CODE + 2);
	S.rip = CODE;
	S.gpr[RSP] = CODE;
	CODE_AT(CODE, 0x90, 0xcc); /* nop; int3 */
	run_to_halt();
	assert_int_equal(vector(), EXC_BP);
	assert_int_equal(get16(CODE - 6), CODE + 2);
}

static void
undefined_overlong_and_wrongly_locked_instructions_raise(void **state)
{
	static const struct {
		uint8_t code[16];
		int vector;
	} t[] = {
		{ { 0x0f, 0x0b }, EXC_UD },	  /* ud2 */
		{ { 0xf0, 0x90 }, EXC_UD },	  /* lock nop */
		{ { 0xf0, 0x01, 0xc8 }, EXC_UD }, /* lock add ax,cx */
		{ { 0x0f, 0x00, 0xd0 }, EXC_UD }, /* lldt in real mode */
		{ { 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x90 },
			EXC_GP },
		{ { 0x8e, 0xc8 }, EXC_UD },	  /* mov cs,ax */
		{ { 0x0f, 0x01, 0xc8 }, EXC_UD }, /* monitor */
	};

	for (size_t i = 0; i < ARRAY_LEN(t); i++) {
		place(CODE, t[i].code, 16);
		S.rip = CODE;
		S.gpr[RSP] = CODE;
		run_to_halt();
		assert_int_equal(vector(), t[i].vector);
		assert_int_equal(get16(CODE - 6), CODE);
	}
}

/* ---- code that changes ---- */

static void
the_next_instruction_of_the_block_sees_a_store_into_it(void **state)
{
	/* mov byte [CODE+6],42h; mov al,1; hlt */
	CODE_AT(CODE, 0xc6, 0x06, (CODE + 6) & 0xff, CODE >> 8, 0x42, 0xb0, 0x01, 0xf4);
	for (int i = 0; i < 3; i++) {
		ram[CODE + 6] = 1;
		mem_written(&machine.mem, CODE + 6, 1);
		S.rip = CODE;
		run_to_halt();
		assert_int_equal(S.gpr[RAX] & 0xff, 0x42);
	}
}

static void
strings_and_pushes_into_code_are_seen_too(void **state)
{
	/* mov di,x; mov cx,3; mov al,40h (inc ax); rep stosb; x: hlt hlt hlt; xor ax,ax... */
	CODE_AT(CODE, 0xbf, (CODE + 10) & 0xff, CODE >> 8, 0xb9, 3, 0, 0xb0, 0x40, 0xf3, 0xaa, 0xf4, 0xf4, 0xf4, 0xf4);
	run_to_halt();
	assert_int_equal(S.rip, CODE + 14);
	assert_int_equal(S.gpr[RAX] & 0xff, 0x43);
	/* mov sp,x+2; push 4040h; x: hlt hlt hlt */
	CODE_AT(CODE, 0xbc, (CODE + 8) & 0xff, CODE >> 8, 0x68, 0x40, 0x40, 0xf4, 0xf4, 0xf4);
	S.rip = CODE;
	run_to_halt();
	assert_int_equal(S.rip, CODE + 9);
}

static void
stores_of_devices_into_code_are_seen_at_the_next_block(void **state)
{
	static const uint8_t two = 2;

	CODE_AT(CODE, 0xb0, 0x01, 0xf4);
	run_to_halt();
	assert_true(mem_write(&machine.mem, CODE + 1, &two, 1));
	S.rip = CODE;
	run_to_halt();
	assert_int_equal(S.gpr[RAX] & 0xff, 2);
	assert_int_equal(c->v.count.blocks_dropped, 1);
}

static void
data_next_to_code_does_not_cost_decoding(void **state)
{
	/* mov cx,1000; l: inc word [CODE+100h]; loop l; hlt */
	CODE_AT(CODE, 0xb9, 0xe8, 0x03, 0xff, 0x06, 0x00, (CODE + 0x100) >> 8, 0xe2, 0xfa, 0xf4);
	run_to_halt();
	assert_int_equal(get16(CODE + 0x100), 1000);
	assert_in_range(c->v.count.blocks, 1, 8);
}

/* ---- instructions across pages ---- */

static void
an_instruction_across_two_pages_notices_changes_of_either(void **state)
{
	CODE_AT(0x7ffe, 0xb8, 0x11, 0x22, 0xf4); /* mov ax,2211h */
	S.rip = 0x7ffe;
	run_to_halt();
	assert_int_equal(S.gpr[RAX] & 0xffff, 0x2211);
	ram[0x8000] = 0x33;
	mem_written(&machine.mem, 0x8000, 1);
	S.rip = 0x7ffe;
	run_to_halt();
	assert_int_equal(S.gpr[RAX] & 0xffff, 0x3311);
	ram[0x7fff] = 0x44;
	mem_written(&machine.mem, 0x7fff, 1);
	S.rip = 0x7ffe;
	run_to_halt();
	assert_int_equal(S.gpr[RAX] & 0xffff, 0x3344);
}

/* ---- 64-bit mode with small pages: linear 0x400000 + n * 4096 ---- */

#define LIN 0x400000u
#define PT 0x102000u

static void
map(unsigned page, uint64_t to, unsigned flags)
{
	put64(PT + 8 * page, to | flags);
}

static void
idt_long(void)
{
	for (unsigned v = 0; v < 32; v++) {
		put64(IDT_AT + 16 * v, gate(SEL_CODE64, 0x500 + v, 0x8e, 1));
		put64(IDT_AT + 16 * v + 8, 0);
	}
	put64(TSS_AT + 36, STACK_AT); /* IST1 */
	put16(TSS_AT + 102, 0xffff);  /* no I/O permission bitmap */
	S.idt = (struct x86_table){ IDT_AT, 0xfff };
}

static void
long_mode(unsigned cpl)
{
	enter_long(cpl);
	/* 2 MiB pages for all but [LIN, LIN + 2 MiB) */
	put64(0x101000, 0x103000 | 7);
	for (unsigned i = 0; i < 16; i++)
		put64(0x103000 + 8 * i, i << 21 | 0x87);
	put64(0x103000 + 8 * (LIN >> 21), PT | 7);
	for (unsigned i = 0; i < 512; i++)
		map(i, 0, 0);
	idt_long();
	S.rip = CODE;
	S.gpr[RSP] = STACK_AT;
	cpu_engine_interp.put_state(&c->v);
}

static uint64_t
frame(unsigned word, bool error)
{
	return get64(S.gpr[RSP] + 8 * (word + error));
}

static void
a_crossing_instruction_faults_on_its_second_page_and_follows_its_mapping(void **state)
{
	long_mode(0);
	map(0, 0x200000, 7);
	CODE_AT(0x200fff, 0x00); /* placeholder so that the page is written */
	CODE_AT(0x200ffe, 0xb8, 0x11);
	S.rip = LIN + 0xffe;
	run_to_halt();
	assert_int_equal(vector(), EXC_PF);
	assert_int_equal(S.cr2, LIN + 0x1000);
	assert_int_equal(frame(0, true), LIN + 0xffe);

	map(1, 0x201000, 7);
	CODE_AT(0x201000, 0x22, 0, 0, 0xf4);
	S.rip = LIN + 0xffe;
	run_to_halt();
	assert_int_equal(S.gpr[RAX], 0x2211);

	map(1, 0x202000, 7);
	CODE_AT(0x202000, 0x33, 0, 0, 0xf4);
	x86_tlb_flush(c, true);
	S.rip = LIN + 0xffe;
	run_to_halt();
	assert_int_equal(S.gpr[RAX], 0x3311);
}

static void
the_same_linear_address_in_another_address_space_is_other_code(void **state)
{
	long_mode(0);
	map(0, 0x200000, 7);
	CODE_AT(0x200000, 0xb0, 1, 0xf4);
	CODE_AT(0x201000, 0xb0, 2, 0xf4);
	/* l: call [LIN]-like jump: mov rbx,LIN; call rbx... the second time the page is another one */
	for (unsigned k = 0; k < 4; k++) {
		map(0, k & 1 ? 0x201000 : 0x200000, 7);
		x86_tlb_flush(c, true);
		CODE_AT(CODE, 0xbb, 0x00, 0x00, 0x40, 0x00, 0xff, 0xe3); /* mov ebx,LIN; jmp rbx */
		S.rip = CODE;
		run_to_halt();
		assert_int_equal(S.gpr[RAX] & 0xff, 1 + (k & 1));
	}
}

static void
a_repeated_move_that_faults_can_be_continued(void **state)
{
	long_mode(0);
	map(0, 0x200000, 7);
	map(2, 0x202000, 7);
	memset(ram + 0x10000, 0xaa, 0x3000);
	S.gpr[RSI] = 0x10000;
	S.gpr[RDI] = LIN + 0x800;
	S.gpr[RCX] = 0x2000 / 8;
	CODE_AT(CODE, 0xf3, 0x48, 0xa5, 0xf4);
	run_to_halt();
	assert_int_equal(vector(), EXC_PF);
	assert_int_equal(S.cr2, LIN + 0x1000);
	assert_int_equal(frame(0, true), CODE);
	assert_int_equal(S.gpr[RCX], (0x2000 - 0x800) / 8);
	assert_int_equal(S.gpr[RDI], LIN + 0x1000);
	assert_int_equal(S.gpr[RSI], 0x10800);

	map(1, 0x201000, 7);
	S.rip = CODE;
	run_to_halt();
	assert_int_equal(S.rip, CODE + 4);
	assert_int_equal(S.gpr[RCX], 0);
	assert_memory_equal(ram + 0x200800, ram + 0x10000, 0x2000);
	assert_int_equal(ram[0x202800], 0);
}

static void
an_overlapping_ascending_move_repeats_the_pattern(void **state)
{
	long_mode(0);
	memcpy(ram + 0x10000, "abc", 3);
	S.gpr[RSI] = 0x10000;
	S.gpr[RDI] = 0x10003;
	S.gpr[RCX] = 6000;
	CODE_AT(CODE, 0xf3, 0xa4, 0xf4);
	run_to_halt();
	for (unsigned i = 0; i < 6003; i++)
		assert_int_equal(ram[0x10000 + i], "abc"[i % 3]);
}

static void
stores_across_pages_change_nothing_when_the_second_page_faults(void **state)
{
	long_mode(0);
	map(0, 0x200000, 7);
	put32(0x200ffc, 0x11223344);
	S.gpr[RBX] = LIN + 0xffe;
	S.gpr[RAX] = 0x55667788;
	CODE_AT(CODE, 0x89, 0x03, 0xf4); /* mov [rbx],eax */
	run_to_halt();
	assert_int_equal(vector(), EXC_PF);
	assert_int_equal(S.cr2, LIN + 0x1000);
	assert_int_equal(get32(0x200ffc), 0x11223344);
	/* read-modify-write: a write fault, flags and registers as before */
	CODE_AT(CODE, 0xf0, 0x0f, 0xc1, 0x03, 0xf4); /* lock xadd [rbx],eax */
	S.rip = CODE;
	run_to_halt();
	assert_int_equal(vector(), EXC_PF);
	assert_int_equal(frame(0, false), 2); /* error code: a write */
	assert_int_equal(S.gpr[RAX], 0x55667788);

	map(1, 0x201000, 7);
	S.rip = CODE;
	run_to_halt();
	assert_int_equal(S.gpr[RAX], 0x1122);
	assert_int_equal(get16(0x200ffe), 0x88aa);
	assert_int_equal(get16(0x201000), 0x5566);
}

static void
addresses_that_are_not_canonical_raise_gp_or_ss(void **state)
{
	long_mode(0);
	S.gpr[RBX] = 0x800000000000;
	CODE_AT(CODE, 0x48, 0x8b, 0x03, 0xf4); /* mov rax,[rbx] */
	run_to_halt();
	assert_int_equal(vector(), EXC_GP);
	CODE_AT(CODE, 0xff, 0xe3); /* jmp rbx */
	S.rip = CODE;
	run_to_halt();
	assert_int_equal(vector(), EXC_GP);
	assert_int_equal(frame(0, true), CODE);
	CODE_AT(CODE, 0x50, 0xf4); /* push rax */
	S.rip = CODE;
	S.gpr[RSP] = 0x800000000008;
	run_to_halt();
	assert_int_equal(vector(), EXC_SS);
	assert_int_equal(frame(3, true), 0x800000000008);
}

/* ---- device registers ---- */

static void
read_modify_write_works_on_device_registers(void **state)
{
	long_mode(0);
	S.gpr[RBX] = REGS_AT;
	S.gpr[RAX] = 1;
	CODE_AT(CODE, 0xf0, 0x01, 0x03, /* lock add [rbx],eax */
		0x48, 0x87, 0x03,	/* xchg [rbx],rax */
		0x0f, 0xb6, 0x4b, 0x02, /* movzx ecx,byte [rbx+2] */
		0xf4);
	run_to_halt();
	assert_int_equal(S.gpr[RAX], 0x8877665544332211);
	assert_int_equal(S.gpr[RCX], 0x33);
	assert_int_equal(regs_writes, 2);
	assert_int_equal(regs_last_write, 1);
}

static void
code_can_run_where_there_is_no_memory_page(void **state)
{
	long_mode(0);
	S.rip = ROM_AT;
	run_to_halt(); /* the ROM is full of 5a: pop rdx; ends in the registers 11 22 33...: adc [rdx],esp */
	assert_true(vector() == EXC_PF || vector() == EXC_GP || vector() == EXC_UD);
}

/* ---- interrupts ---- */

static void
requests_are_seen_at_block_boundaries_and_held_while_if_is_clear(void **state)
{
	/* nop; jmp to it */
	CODE_AT(CODE, 0x90, 0xeb, 0xfd);
	c->v.requests = REQ_PAUSE;
	assert_int_equal(run(), CPU_EXIT_REQUEST);
	c->v.requests = REQ_INTR;
	CODE_AT(CODE, 0x90, 0x40, 0xeb, 0x00, 0xf4); /* nop; inc ax; jmp; hlt: IF is 0 */
	S.rip = CODE;
	run_to_halt();
	S.rip = CODE;
	S.rflags |= FLAG_IF;
	assert_int_equal(run(), CPU_EXIT_REQUEST);
	assert_int_equal(S.rip, CODE);
}

static void
sti_shadows_exactly_one_instruction(void **state)
{
	c->v.requests = REQ_INTR;
	CODE_AT(CODE, 0xfb, 0x40, 0x43, 0xf4); /* sti; inc ax; inc bx; hlt */
	assert_int_equal(run(), CPU_EXIT_REQUEST);
	assert_int_equal(S.rip, CODE + 2);
	assert_true(cpu_engine_interp.can_inject(&c->v));
	cpu_engine_interp.inject(&c->v, 0x30, false);
	c->v.requests = 0;
	run_to_halt();
	assert_int_equal(vector(), 0x30);
	assert_int_equal(get16(CODE - 6), CODE + 2);
	/* sti; hlt: the interrupt ends the halt, it does not come in between */
	c->v.requests = REQ_INTR;
	CODE_AT(CODE, 0xfb, 0xf4);
	S.rip = CODE;
	run_to_halt();
	assert_int_equal(S.rip, CODE + 2);
	assert_true(cpu_engine_interp.can_inject(&c->v));
	/* sti; cli: no window at all */
	CODE_AT(CODE, 0xfb, 0xfa, 0xf4);
	S.rip = CODE;
	S.rflags &= ~(uint64_t)FLAG_IF;
	run_to_halt();
	assert_int_equal(S.rip, CODE + 3);
}

static void
mov_ss_shadows_the_next_instruction(void **state)
{
	c->v.requests = REQ_INTR;
	S.rflags |= FLAG_IF;
	c->v.requests = 0;
	CODE_AT(CODE, 0x8e, 0xd0, 0xbc, 0x00, 0x70, 0x90, 0xf4); /* mov ss,ax; mov sp,7000h; nop */
	/* a step ends behind MOV SS; from there a request has to wait for one instruction */
	assert_int_equal(interp_step((struct interp_cpu *)c), INTERP_OK);
	assert_int_equal(S.shadow, 1);
	assert_false(cpu_engine_interp.can_inject(&c->v));
	c->v.requests = REQ_INTR;
	assert_int_equal(run(), CPU_EXIT_REQUEST);
	assert_int_equal(S.rip, CODE + 5);
}

static void
a_long_repeated_instruction_looks_at_requests(void **state)
{
	long_mode(0);
	S.gpr[RSI] = 0x200000;
	S.gpr[RDI] = 0x300000;
	S.gpr[RCX] = 0x100000;
	S.rflags |= FLAG_IF;
	CODE_AT(CODE, 0xf3, 0xa4, 0xf4);
	assert_int_equal(interp_step((struct interp_cpu *)c), INTERP_OK);
	assert_int_equal(S.rip, CODE);
	assert_int_equal(S.gpr[RCX], 0xfffff);
	c->v.requests = REQ_INTR;
	assert_int_equal(run(), CPU_EXIT_REQUEST);
	assert_int_equal(S.rip, CODE);
	c->v.requests = 0;
	run_to_halt();
	assert_int_equal(S.gpr[RCX], 0);
	assert_int_equal(S.gpr[RDI], 0x400000);
}

/* ---- debugging ---- */

static void
trap_flag_steps_through_code_and_mov_ss_delays_it(void **state)
{
	/* handler of #DB: inc dword [600h] by 16-bit code: inc word [600h]; iret */
	put32(EXC_DB * 4, 0x610);
	CODE_AT(0x610, 0xff, 0x06, 0x00, 0x06, 0xcf);
	CODE_AT(CODE, 0x90, 0x40,			  /* nop; inc ax */
		0x8c, 0xd1, 0x8e, 0xd1,			  /* mov cx,ss; mov ss,cx */
		0x43,					  /* inc bx: no trap between these */
		0xeb, 0x00,				  /* jmp */
		0x9c, 0x58, 0x25, 0xff, 0xfe, 0x50, 0x9d, /* pushf; pop ax; and ax,feff; push ax; popf */
		0x90, 0xf4);
	S.rflags |= FLAG_TF;
	x86_update_mode(c);
	run_to_halt();
	/* one after each instruction up to POPF, which still traps, but not after MOV SS */
	assert_int_equal(get16(0x600), 11 - 1);
	assert_int_equal(S.dr[6] & 0x4000, 0x4000);
}

static void
instruction_and_data_breakpoints_stop_where_they_should(void **state)
{
	S.dr[0] = CODE + 1;
	S.dr[1] = 0x900;
	S.dr[7] = 0x400 | 1 | 4 | 0xd << 20; /* DR0 execute; DR1: 4 bytes, write */
	cpu_engine_interp.put_state(&c->v);
	CODE_AT(CODE, 0x90, 0x40, 0xa3, 0x02, 0x09, 0x43, 0xf4); /* nop; inc ax; mov [902h],ax; inc bx */
	run_to_halt();
	assert_int_equal(vector(), EXC_DB);
	assert_int_equal(get16(CODE - 6), CODE + 1);
	assert_int_equal(S.gpr[RAX] & 0xffff, 0);
	assert_int_equal(S.dr[6] & 15, 1);
	/* go on with RF set, as IRET does */
	S.rip = CODE + 1;
	S.rflags |= FLAG_RF;
	S.gpr[RSP] = CODE;
	S.dr[6] = 0;
	run_to_halt();
	assert_int_equal(vector(), EXC_DB);
	assert_int_equal(get16(CODE - 6), CODE + 5);
	assert_int_equal(S.gpr[RAX] & 0xffff, 1);
	assert_int_equal(S.dr[6] & 15, 2);
}

static void
steps_execute_one_instruction_each(void **state)
{
	CODE_AT(CODE, 0x40, 0x43, 0x0f, 0x0b); /* inc ax; inc bx; ud2 */
	assert_int_equal(interp_step((struct interp_cpu *)c), INTERP_OK);
	assert_int_equal(S.rip, CODE + 1);
	assert_int_equal(interp_step((struct interp_cpu *)c), INTERP_OK);
	assert_int_equal(S.gpr[RBX] & 0xffff, 1);
	assert_int_equal(interp_step((struct interp_cpu *)c), INTERP_OK);
	assert_int_equal(S.rip, 0x500 + EXC_UD);
	assert_int_equal(interp_step((struct interp_cpu *)c), INTERP_HALT);
}

static void
a_step_after_a_run_is_still_one_instruction(void **state)
{
	CODE_AT(CODE, 0x40, 0x40, 0x40, 0xf4);
	for (int k = 0; k < 3; k++) {
		S.rip = CODE;
		S.gpr[RAX] = 0;
		assert_int_equal(interp_step((struct interp_cpu *)c), INTERP_OK);
		assert_int_equal(S.rip, CODE + 1);
		assert_int_equal(S.gpr[RAX] & 0xffff, 1);
		run_to_halt();
		assert_int_equal(S.gpr[RAX] & 0xffff, 3);
	}
}

static void
into_goes_on_without_an_overflow_and_traps_with_one(void **state)
{
	CODE_AT(CODE, 0xce, 0x40, 0xf4);
	run_to_halt();
	assert_int_equal(S.rip, CODE + 3);
	S.rip = CODE;
	S.rflags |= FLAG_OF;
	run_to_halt();
	assert_int_equal(vector(), EXC_OF);
	assert_int_equal(get16(CODE - 6), CODE + 1);
}

static void
the_last_page_faults_like_any_other_while_a_watchpoint_is_armed(void **state)
{
	long_mode(0);
	S.dr[7] = 0x400 | 1 | 1 << 16;
	S.gpr[RBX] = UINT64_MAX;
	cpu_engine_interp.put_state(&c->v);
	CODE_AT(CODE, 0x00, 0x03, 0xf4); /* add [rbx],al */
	run_to_halt();
	assert_int_equal(vector(), EXC_PF);
	assert_int_equal(S.cr2, UINT64_MAX);
}

static void
a_triple_fault_is_a_shutdown(void **state)
{
	S.idt.limit = 0;
	CODE_AT(CODE, 0x0f, 0x0b);
	assert_int_equal(run(), CPU_EXIT_SHUTDOWN);
	S.rip = CODE;
	cpu_engine_interp.put_state(&c->v);
	cpu_engine_interp.inject(&c->v, 0x20, false);
	assert_int_equal(run(), CPU_EXIT_SHUTDOWN);
}

/* ---- two CPUs ---- */

#define ROUNDS 60000u

static void *
run_second(void *arg)
{
	enum cpu_exit x = cpu_engine_interp.run(&second->c.v);

	return (void *)(uintptr_t)(x == CPU_EXIT_HALT);
}

/*
 * Each CPU, ROUNDS times: lock inc [rbx]; lock xadd [rbx+6],edx (misaligned); a cmpxchg loop that adds 3 to [rbx+16];
 * cmpxchg16b that adds 1 to both halves of [rbx+32]; lock bts/btr as a lock around a plain increment of [rbx+64].
 */
static void
locked_operations_of_two_cpus_are_atomic(void **state)
{
	pthread_t t;
	void *ok;

	long_mode(0);
	CODE_AT(CODE, 0xf0, 0xff, 0x03,		    /* lock inc dword [rbx] */
		0xba, 2, 0, 0, 0,		    /* mov edx,2 */
		0xf0, 0x0f, 0xc1, 0x53, 0x06,	    /* lock xadd [rbx+6],edx */
		0x8b, 0x43, 0x10,		    /* a: mov eax,[rbx+16] */
		0x8d, 0x50, 0x03,		    /* lea edx,[rax+3] */
		0xf0, 0x0f, 0xb1, 0x53, 0x10,	    /* lock cmpxchg [rbx+16],edx */
		0x75, 0xf3,			    /* jnz a */
		0xf0, 0x0f, 0xba, 0x6b, 0x50, 0x05, /* b: lock bts dword [rbx+80],5 */
		0x72, 0xf8,			    /* jc b */
		0xff, 0x43, 0x40,		    /* inc dword [rbx+64] */
		0xf0, 0x0f, 0xba, 0x73, 0x50, 0x05, /* lock btr dword [rbx+80],5 */
		0xff, 0xce,			    /* dec esi */
		0x75, 0xd1,			    /* jnz start */
		0xf4);
	S.gpr[RBX] = 0x10000;
	S.gpr[RSI] = ROUNDS;
	second = make_cpu(1);
	second->c.v.state = S;
	cpu_engine_interp.put_state(&second->c.v);
	assert_int_equal(pthread_create(&t, NULL, run_second, NULL), 0);
	run_to_halt();
	pthread_join(t, &ok);
	assert_ptr_equal(ok, (void *)1);
	assert_int_equal(get32(0x10000), 2 * ROUNDS);
	assert_int_equal(get32(0x10006), 4 * ROUNDS);
	assert_int_equal(get32(0x10010), 6 * ROUNDS);
	assert_int_equal(get32(0x10040), 2 * ROUNDS);
}

static void
cmpxchg16b_checks_alignment_and_compares_both_halves(void **state)
{
	long_mode(0);
	put64(0x10000, 1);
	put64(0x10008, 2);
	S.gpr[RSI] = 0x10000;
	S.gpr[RAX] = 1;
	S.gpr[RDX] = 3;
	S.gpr[RBX] = 5;
	S.gpr[RCX] = 6;
	CODE_AT(CODE, 0xf0, 0x48, 0x0f, 0xc7, 0x0e, 0xf4);
	run_to_halt();
	assert_int_equal(S.gpr[RDX], 2);
	assert_false(S.rflags & FLAG_ZF);
	S.rip = CODE;
	run_to_halt();
	assert_true(S.rflags & FLAG_ZF);
	assert_int_equal(get64(0x10000), 5);
	assert_int_equal(get64(0x10008), 6);
	S.rip = CODE;
	S.gpr[RSI] = 0x10008;
	run_to_halt();
	assert_int_equal(vector(), EXC_GP);
}

/* ---- privilege ---- */

static void
user_mode_cannot_halt_or_touch_ports_or_system_registers(void **state)
{
	static const uint8_t t[][4] = { { 0xf4 }, { 0xe4, 0x80 }, { 0xe6, 0x80 }, { 0xfa }, { 0xfb },
		{ 0x0f, 0x20, 0xc0 }, { 0x0f, 0x22, 0xd8 }, { 0x0f, 0x32 }, { 0x0f, 0x09 }, { 0x0f, 0x06 }, { 0x6c },
		{ 0x0f, 0x21, 0xc0 }, { 0x0f, 0x01, 0xf8 } };

	for (size_t i = 0; i < ARRAY_LEN(t); i++) {
		long_mode(3);
		S.rflags = 2;
		place(CODE, t[i], 4);
		run_to_halt();
		assert_int_equal(vector(), EXC_GP);
		assert_int_equal(frame(0, true), CODE);
	}
}

static void
alignment_checks_apply_in_user_mode_when_armed(void **state)
{
	long_mode(3);
	S.cr0 |= CR0_AM;
	S.rflags |= FLAG_AC;
	S.gpr[RBX] = 0x10002;
	cpu_engine_interp.put_state(&c->v);
	CODE_AT(CODE, 0x66, 0x8b, 0x03, 0x8b, 0x03); /* mov ax,[rbx]; mov eax,[rbx] */
	run_to_halt();
	assert_int_equal(vector(), EXC_AC);
	assert_int_equal(frame(0, true), CODE + 3);
}

static void
a_masked_store_wants_eight_bytes_when_alignment_checks_are_armed(void **state)
{
	long_mode(3);
	S.cr0 |= CR0_AM;
	S.cr4 |= CR4_OSFXSR;
	S.rflags |= FLAG_AC;
	S.gpr[RDI] = 0x10008;
	S.gpr[RBX] = 0x1000c;
	cpu_engine_interp.put_state(&c->v);
	/* maskmovdqu xmm6,xmm4; mov rdi,rbx; maskmovdqu xmm6,xmm4: its mask is all 0 */
	CODE_AT(CODE, 0x66, 0x0f, 0xf7, 0xf4, 0x48, 0x89, 0xdf, 0x66, 0x0f, 0xf7, 0xf4);
	run_to_halt();
	assert_int_equal(vector(), EXC_AC);
	assert_int_equal(frame(0, true), CODE + 7);
}

/* ---- the rest ---- */

static void
enter_and_leave_build_and_drop_frames(void **state)
{
	long_mode(0);
	S.gpr[RBP] = 0x8f00;
	S.gpr[RSP] = STACK_AT;
	put64(0x8ef8, 0x1111);
	CODE_AT(CODE, 0xc8, 0x20, 0x00, 0x02, 0xf4); /* enter 32,2 */
	run_to_halt();
	assert_int_equal(S.gpr[RBP], STACK_AT - 8);
	assert_int_equal(S.gpr[RSP], STACK_AT - 24 - 32);
	assert_int_equal(get64(STACK_AT - 8), 0x8f00);
	assert_int_equal(get64(STACK_AT - 16), 0x1111);
	assert_int_equal(get64(STACK_AT - 24), STACK_AT - 8);
	CODE_AT(CODE, 0xc9, 0xf4);
	S.rip = CODE;
	run_to_halt();
	assert_int_equal(S.gpr[RBP], 0x8f00);
	assert_int_equal(S.gpr[RSP], STACK_AT);
}

static void
bit_strings_reach_beyond_their_word(void **state)
{
	long_mode(0);
	memset(ram + 0x10000, 0, 64);
	S.gpr[RBX] = 0x10020;
	S.gpr[RCX] = (uint64_t)-9;
	S.gpr[RDX] = 70;
	CODE_AT(CODE, 0x48, 0x0f, 0xab, 0x0b, 0x0f, 0xab, 0x13, 0xf4); /* bts [rbx],rcx; bts [rbx],edx */
	run_to_halt();
	assert_int_equal(ram[0x1001e], 0x80);
	assert_int_equal(ram[0x10028], 0x40);
}

static void
absolute_addresses_of_64_bits_are_reached(void **state)
{
	long_mode(0);
	put64(0x10000, 0x1122334455667788);
	CODE_AT(CODE, 0x48, 0xa1, 0x00, 0x00, 0x01, 0x00, 0, 0, 0, 0, /* mov rax,[10000h] */
		0xa2, 0x08, 0x00, 0x01, 0x00, 0, 0, 0, 0,	      /* mov [10008h],al */
		0xf4);
	run_to_halt();
	assert_int_equal(S.gpr[RAX], 0x1122334455667788);
	assert_int_equal(ram[0x10008], 0x88);
}

static void
instructions_are_counted_once(void **state)
{
	CODE_AT(CODE, 0x40, 0x43, 0xeb, 0x00, 0x90, 0xf4);
	run_to_halt();
	assert_int_equal(c->v.count.insns, 5);
}

int
main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, open_interp, close_interp)
	const struct CMUnitTest tests[] = {
		T(real_mode_adds_segment_bases_and_takes_interrupts),
		T(sixteen_bit_stacks_and_addresses_wrap),
		T(a_word_at_the_end_of_a_segment_raises_gp_and_code_cannot_run_off_its_end),
		T(division_faults_point_at_the_instruction_and_traps_behind_it),
		T(undefined_overlong_and_wrongly_locked_instructions_raise),
		T(the_next_instruction_of_the_block_sees_a_store_into_it),
		T(strings_and_pushes_into_code_are_seen_too),
		T(stores_of_devices_into_code_are_seen_at_the_next_block),
		T(data_next_to_code_does_not_cost_decoding),
		T(an_instruction_across_two_pages_notices_changes_of_either),
		T(a_crossing_instruction_faults_on_its_second_page_and_follows_its_mapping),
		T(the_same_linear_address_in_another_address_space_is_other_code),
		T(a_repeated_move_that_faults_can_be_continued),
		T(an_overlapping_ascending_move_repeats_the_pattern),
		T(stores_across_pages_change_nothing_when_the_second_page_faults),
		T(addresses_that_are_not_canonical_raise_gp_or_ss),
		T(read_modify_write_works_on_device_registers),
		T(code_can_run_where_there_is_no_memory_page),
		T(requests_are_seen_at_block_boundaries_and_held_while_if_is_clear),
		T(sti_shadows_exactly_one_instruction),
		T(mov_ss_shadows_the_next_instruction),
		T(a_long_repeated_instruction_looks_at_requests),
		T(trap_flag_steps_through_code_and_mov_ss_delays_it),
		T(instruction_and_data_breakpoints_stop_where_they_should),
		T(steps_execute_one_instruction_each),
		T(a_step_after_a_run_is_still_one_instruction),
		T(into_goes_on_without_an_overflow_and_traps_with_one),
		T(the_last_page_faults_like_any_other_while_a_watchpoint_is_armed),
		T(a_triple_fault_is_a_shutdown),
		T(locked_operations_of_two_cpus_are_atomic),
		T(cmpxchg16b_checks_alignment_and_compares_both_halves),
		T(user_mode_cannot_halt_or_touch_ports_or_system_registers),
		T(alignment_checks_apply_in_user_mode_when_armed),
		T(a_masked_store_wants_eight_bytes_when_alignment_checks_are_armed),
		T(enter_and_leave_build_and_drop_frames),
		T(bit_strings_reach_beyond_their_word),
		T(absolute_addresses_of_64_bits_are_reached),
		T(instructions_are_counted_once),
	};

	/* of soft.h, where other tests need them */
	(void)setup;
	(void)teardown;
	(void)caught;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
