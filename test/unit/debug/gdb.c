/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The server for gdb's remote serial protocol, driven packet by packet over a socket pair, with a 64-bit guest of four
 * instructions under each engine. What real gdb makes of it is tested in test/guest/gdb.bats.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <fcntl.h>
#include <pthread.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include "base/bytes.h"
#include "cpu/x86/x86.h"
#include "debug/debug.h"
#include "debug/packet.h"

#define RAM_SIZE (1u << 20)

/*
 *	1000  inc rax
 *	1003  mov [2000], rax
 *	100b  nop
 *	100c  jmp 1000
 */
enum { CODE_AT = 0x1000, MOV_AT = 0x1003, NOP_AT = 0x100b, DATA_AT = 0x2000, TABLES_AT = 0x8000 };
static const uint8_t program[] = { 0x48, 0xff, 0xc0, 0x48, 0x89, 0x04, 0x25, 0x00, 0x20, 0x00, 0x00, 0x90, 0xeb, 0xf2 };

struct fixture {
	struct machine m;
	struct cpus cpus;
	struct ram *ram;
	struct mem_region region;
	struct gdb *gdb;
	pthread_t server;
	int fd, far_fd;
	bool quit;
	struct packet_in *in;
};

static const struct cpu_engine *engine;
static int cpu_count;

static void
op_hold(void *opaque)
{
	cpus_pause(&((struct fixture *)opaque)->cpus);
}

static void
op_release(void *opaque)
{
	cpus_resume(&((struct fixture *)opaque)->cpus);
}

static int
op_reset(void *opaque, struct err *e)
{
	return err_set(e, ERR_UNSUPPORTED, "not here");
}

static void
op_quit(void *opaque)
{
	((struct fixture *)opaque)->quit = true;
}

static const struct debug_ops ops = { op_hold, op_release, op_reset, op_quit };

static uint8_t
get_cr8(void *opaque)
{
	return 0;
}

static void
nothing(void *opaque, enum machine_event what, int status)
{
}

/* ---- a CPU in 64-bit mode, the first 2 MiB mapped as they are ---- */

static void
long_mode(struct fixture *f, struct x86_state *s)
{
	uint64_t *t = (uint64_t *)(void *)(f->ram->host + TABLES_AT);
	struct x86_seg data = { .sel = 16, .attr = 0xc093, .limit = UINT32_MAX };

	t[0] = (TABLES_AT + 0x1000) | 3;
	t[512] = (TABLES_AT + 0x2000) | 3;
	t[1024] = 0x83; /* 2 MiB */
	s->efer = EFER_LME | EFER_LMA | EFER_SCE;
	s->cr4 = CR4_PAE | CR4_OSFXSR;
	s->cr3 = TABLES_AT;
	s->cr0 = CR0_PE | CR0_PG | CR0_ET | CR0_NE;
	s->seg[SEG_CS] = (struct x86_seg){ .sel = 8, .attr = 0xa09b, .limit = UINT32_MAX };
	s->seg[SEG_DS] = s->seg[SEG_ES] = s->seg[SEG_SS] = s->seg[SEG_FS] = s->seg[SEG_GS] = data;
	s->seg[SEG_TR] = (struct x86_seg){ .sel = 24, .attr = 0x8b, .limit = 0x67 };
	s->rip = CODE_AT;
	s->gpr[RAX] = 0;
	s->gpr[RSP] = 0x7000;
}

static void *
serve(void *opaque)
{
	struct fixture *f = opaque;

	gdb_serve(f->gdb, f->far_fd);
	return NULL;
}

static int
setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));
	struct cpu_options o = { .count = cpu_count };
	struct timeval limit = { .tv_sec = 20 };
	struct err e = { 0 };
	int fds[2];

	assert_int_equal(machine_open(&f->m, "test"), 0);
	f->m.event = nothing;
	f->ram = ram_create(&f->m.mem, "ram", RAM_SIZE);
	f->region = (struct mem_region){ .name = "ram", .enabled = true, .size = RAM_SIZE, .ram = f->ram };
	mem_add(&f->m.mem, &f->region);
	mem_update(&f->m.mem);
	for (int i = 0; i < cpu_count; i++)
		f->m.intc.lapic[i] = (struct lapic_port){ .get_cr8 = get_cr8, .base = 0xfee00800 };
	if (cpus_open(&f->cpus, &f->m, engine, &o, &e))
		fail_msg("%s", e.text);
	memcpy(f->ram->host + CODE_AT, program, sizeof(program));
	for (int i = 0; i < cpu_count; i++) {
		long_mode(f, &f->cpus.cpu[i]->state);
		f->cpus.cpu[i]->run_state = VCPU_RUN;
	}
	machine_lock(&f->m);
	clock_start(&f->m.clock);
	machine_unlock(&f->m);
	f->gdb = gdb_open(NULL, &f->cpus, &ops, f, true, &e);
	if (!f->gdb)
		fail_msg("%s", e.text);
	assert_int_equal(cpus_start(&f->cpus, &e), 0);
	cpus_pause(&f->cpus); /* the server expects them to be parked */
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
	f->fd = fds[0];
	f->far_fd = fds[1];
	setsockopt(f->fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
	f->in = calloc(1, sizeof(*f->in));
	assert_int_equal(pthread_create(&f->server, NULL, serve, f), 0);
	*state = f;
	return 0;
}

static int
teardown(void **state)
{
	struct fixture *f = *state;

	close(f->fd);
	pthread_join(f->server, NULL);
	close(f->far_fd);
	cpus_pause(&f->cpus);
	gdb_close(f->gdb);
	cpus_close(&f->cpus);
	mem_remove(&f->m.mem, &f->region);
	machine_close(&f->m);
	free(f->in);
	free(f);
	return 0;
}

/* ---- a client ---- */

static void
send_raw(struct fixture *f, const char *data, size_t len)
{
	assert_int_equal(send(f->fd, data, len, MSG_NOSIGNAL), len);
}

static void
send_packet(struct fixture *f, const char *text)
{
	struct str s = { 0 };

	packet_frame(&s, text, strlen(text));
	send_raw(f, s.s, s.len);
	str_free(&s);
}

/* The next packet; acknowledgements are passed over. */
static const char *
receive(struct fixture *f)
{
	uint8_t byte;

	for (;;) {
		if (recv(f->fd, &byte, 1, 0) != 1)
			fail_msg("no answer");
		if (packet_feed(f->in, byte) == PACKET_READY)
			return f->in->data;
	}
}

static const char *
ask(struct fixture *f, const char *text)
{
	send_packet(f, text);
	return receive(f);
}

static void
expect(struct fixture *f, const char *text, const char *answer)
{
	assert_string_equal(ask(f, text), answer);
}

static bool
begins(const char *text, const char *with)
{
	return !strncmp(text, with, strlen(with));
}

/* The number of the register called `name` in the target description. */
static int
number_of(struct fixture *f, const char *name)
{
	struct reg_set *s = reg_set_open(&f->cpus.model);
	int n = reg_find(s, name);

	reg_set_close(s);
	assert_true(n >= 0);
	return n;
}

static uint64_t
get(struct fixture *f, const char *name)
{
	char text[16];
	uint8_t value[8] = { 0 };
	const char *p;

	snprintf(text, sizeof(text), "p%x", number_of(f, name));
	p = ask(f, text);
	for (unsigned i = 0; i < 8 && *p; i++)
		assert_true(hex_bytes(&p, &value[i], 1));
	return le64(value);
}

static const char *
set(struct fixture *f, const char *name, uint64_t value)
{
	struct str s = { 0 };
	uint8_t bytes[8];
	const char *answer;

	put_le64(bytes, value);
	str_addf(&s, "P%x=", number_of(f, name));
	hex_add(&s, bytes, 8);
	answer = ask(f, s.s);
	str_free(&s);
	return answer;
}

/* ---- the tests ---- */

static void
registers_are_those_of_the_description(void **state)
{
	struct fixture *f = *state;
	struct reg_set *s = reg_set_open(&f->cpus.model);
	const char *xml = reg_target_xml(s);
	unsigned count = 0, bits = 0;

	for (const char *p = xml; (p = strstr(p, "<reg ")); p++) {
		bits += (unsigned)strtoul(strstr(p, "bitsize=\"") + 9, NULL, 10);
		count++;
	}
	assert_int_equal(count, reg_count(s));
	assert_int_equal(strlen(ask(f, "g")), bits / 4);
	/* the whole document in pieces */
	assert_true(begins(ask(f, "qXfer:features:read:target.xml:0,20"), "m<?xml version=\"1.0\"?>"));
	assert_true(begins(ask(f, "qXfer:features:read:target.xml:fffff,20"), "l"));
	assert_true(begins(ask(f, "qXfer:features:read:other.xml:0,20"), "E"));
	reg_set_close(s);
}

static void
a_step_executes_one_instruction(void **state)
{
	struct fixture *f = *state;

	assert_true(begins(ask(f, "?"), "T05thread:1;"));
	assert_int_equal(get(f, "rip"), CODE_AT);
	assert_true(begins(ask(f, "vCont;s:1"), "T05thread:1;"));
	assert_int_equal(get(f, "rip"), MOV_AT);
	assert_int_equal(get(f, "rax"), 1);
	assert_true(begins(ask(f, "s"), "T05"));
	assert_int_equal(get(f, "rip"), NOP_AT);
	expect(f, "m2000,8", "0100000000000000");
}

static void
a_breakpoint_stops_before_its_instruction(void **state)
{
	struct fixture *f = *state;

	expect(f, "Z0,100b,1", "OK");
	for (unsigned round = 1; round <= 3; round++) {
		assert_true(begins(ask(f, "vCont;c"), "T05thread:1;swbreak:;"));
		assert_int_equal(get(f, "rip"), NOP_AT);
		assert_int_equal(get(f, "rax"), round);
		expect(f, "z0,100b,1", "OK");
		assert_true(begins(ask(f, "vCont;s:1;c"), "T05"));
		expect(f, "Z0,100b,1", "OK");
	}
	expect(f, "z0,100b,1", "OK");
	expect(f, "Z1,1003,1", "OK");
	assert_true(begins(ask(f, "c"), "T05thread:1;hwbreak:;"));
	assert_int_equal(get(f, "rip"), MOV_AT);
}

static void
a_watchpoint_stops_behind_the_write(void **state)
{
	struct fixture *f = *state;
	struct cpu_probe p = { 0 };

	engine->probe(&p);
	if (!p.usable) { /* a KVM that emulates kernel code does not look at data breakpoints */
		print_message("the watchpoint is not tested: %s\n", p.reason);
		skip();
	}
	expect(f, "Z2,2000,4", "OK");
	assert_true(begins(ask(f, "c"), "T05thread:1;watch:2000;"));
	assert_int_equal(get(f, "rip"), NOP_AT);
	expect(f, "m2000,1", "01");
	assert_true(begins(ask(f, "c"), "T05thread:1;watch:2000;"));
	expect(f, "m2000,1", "02");
	expect(f, "z2,2000,4", "OK");
	if (engine != &cpu_engine_kvm) { /* beside what is written */
		expect(f, "Z2,2008,8", "OK");
		expect(f, "Z3,2000,8", "OK");  /* it is not read */
		expect(f, "Z2,1ff0,10", "OK"); /* ends where it begins, in another page */
		expect(f, "Z0,100b,1", "OK");
		assert_true(begins(ask(f, "c"), "T05thread:1;swbreak:;"));
		expect(f, "z0,100b,1", "OK");
		expect(f, "Z4,2007,1", "OK"); /* the last byte of eight */
		assert_true(begins(ask(f, "c"), "T05thread:1;awatch:2007;"));
		assert_int_equal(get(f, "rip"), NOP_AT);
	}
}

static void
a_running_machine_is_interrupted_and_let_go(void **state)
{
	struct fixture *f = *state;
	uint64_t before;

	send_packet(f, "c");
	usleep(20000);
	send_raw(f, "\3", 1);
	assert_true(begins(receive(f), "T02"));
	assert_true(get(f, "rax") > 2);
	before = get(f, "rax");
	expect(f, "Z0,1003,1", "OK");
	expect(f, "D", "OK");
	usleep(20000);
	cpus_pause(&f->cpus);
	assert_true(f->cpus.cpu[0]->state.gpr[RAX] > before); /* and no breakpoint is left */
	assert_null(f->cpus.debug);
}

static void
registers_are_written_and_what_the_cpu_refuses_is_an_error(void **state)
{
	struct fixture *f = *state;

	assert_string_equal(set(f, "rbx", 0x1122334455667788), "OK");
	assert_int_equal(get(f, "rbx"), 0x1122334455667788);
	assert_string_equal(set(f, "lstar", 0x1234), "OK");
	assert_string_equal(set(f, "cr0", CR0_PG), "E16"); /* paging without protection */
	assert_int_equal(get(f, "cr0"), CR0_PE | CR0_PG | CR0_ET | CR0_NE);
	assert_string_equal(set(f, "fs_base", 0x800000000000), "E16"); /* not canonical */
	assert_string_equal(set(f, "cs_base", 1), "E01");
	assert_string_equal(set(f, "eflags", 0xffffffff), "OK");
	assert_int_equal(get(f, "eflags"), 0x3f7fd7);
	assert_string_equal(set(f, "eflags", 2), "OK"); /* or there is a trap when it goes on */
	expect(f, "p9999", "E16");
	expect(f, "P1", "E16");
}

static void
memory_is_that_of_the_page_tables(void **state)
{
	struct fixture *f = *state;

	expect(f, "m1000,e",
		"48ffc04889042500200000"
		"90ebf2");
	expect(f, "M3000,4:deadbeef", "OK");
	assert_memory_equal(f->ram->host + 0x3000, "\xde\xad\xbe\xef", 4);
	expect(f, "X3000,2:#!", "OK"); /* "#" is escaped on the way */
	assert_memory_equal(f->ram->host + 0x3000, "#!\xbe\xef", 4);
	expect(f, "m200000,4", "E0e"); /* not mapped */
	/* more than a packet holds, and more than there is: what could be read */
	assert_int_equal(strlen(ask(f, "mffff0,ffffff")), 2 * 16);
}

static void
a_damaged_packet_is_asked_for_again(void **state)
{
	struct fixture *f = *state;
	char byte;

	send_raw(f, "$?#00", 5);
	assert_int_equal(recv(f->fd, &byte, 1, 0), 1);
	assert_int_equal(byte, '-');
	expect(f, "QStartNoAckMode", "OK");
	send_raw(f, "+$?#00", 6); /* nobody asks again now */
	assert_true(begins(ask(f, "?"), "T05"));
	expect(f, "vMustReplyEmpty", "");
	send_raw(f, "-", 1); /* the client did not understand */
	assert_string_equal(receive(f), "");
}

static void
a_browser_is_not_listened_to(void **state)
{
	static const char request[] = "POST / HTTP/1.1\r\n\r\n$k#6b";
	struct fixture *f = *state;

	send_raw(f, request, sizeof(request) - 1);
	pthread_join(f->server, NULL); /* it has gone away */
	assert_false(f->quit);
	assert_int_equal(pthread_create(&f->server, NULL, serve, f), 0);
	expect(f, "vMustReplyEmpty", "");
}

static void
one_cpu_steps_while_the_other_stays(void **state)
{
	struct fixture *f = *state;

	expect(f, "qfThreadInfo", "m1,2");
	expect(f, "qsThreadInfo", "l");
	assert_true(begins(ask(f, "vCont;s:2"), "T05thread:2;"));
	assert_int_equal(get(f, "rip"), MOV_AT);
	expect(f, "Hg1", "OK");
	assert_int_equal(get(f, "rip"), CODE_AT);
	expect(f, "T2", "OK");
	expect(f, "T3", "E16");
	/* each meets a breakpoint of both */
	expect(f, "Z0,100b,1", "OK");
	assert_true(begins(ask(f, "vCont;c:1"), "T05thread:1;swbreak"));
	assert_true(begins(ask(f, "vCont;c:2"), "T05thread:2;swbreak"));
	expect(f, "qThreadExtraInfo,2",
		"4350552031"
		"2c2072756e732c2072696e672030"); /* CPU 1, runs, ring 0 */
}

static void
the_monitor_answers_and_kill_ends_the_machine(void **state)
{
	struct fixture *f = *state;

	/* "cpus" */
	assert_true(begins(ask(f, "qRcmd,63707573"), "O"));
	assert_string_equal(receive(f), "OK");
	send_packet(f, "k");
	for (int i = 0; i < 100 && !__atomic_load_n(&f->quit, __ATOMIC_SEQ_CST); i++)
		usleep(10000);
	assert_true(f->quit);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

static int
run_group(const char *name, const struct cpu_engine *which)
{
	static const struct CMUnitTest tests[] = {
		TEST(registers_are_those_of_the_description),
		TEST(a_step_executes_one_instruction),
		TEST(a_breakpoint_stops_before_its_instruction),
		TEST(a_watchpoint_stops_behind_the_write),
		TEST(a_running_machine_is_interrupted_and_let_go),
		TEST(registers_are_written_and_what_the_cpu_refuses_is_an_error),
		TEST(memory_is_that_of_the_page_tables),
		TEST(a_damaged_packet_is_asked_for_again),
		TEST(the_monitor_answers_and_kill_ends_the_machine),
		TEST(a_browser_is_not_listened_to),
	};
	static const struct CMUnitTest smp[] = { TEST(one_cpu_steps_while_the_other_stays) };
	int failed;

	engine = which;
	cpu_count = 1;
	failed = cmocka_run_group_tests_name(name, tests, NULL, NULL);
	cpu_count = 2;
	return failed + cmocka_run_group_tests_name(name, smp, NULL, NULL);
}

int
main(void)
{
	int failed = run_group("interp", &cpu_engine_interp) + run_group("jit", &cpu_engine_jit);
	int kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);

	if (kvm >= 0)
		failed += run_group("kvm", &cpu_engine_kvm);
	else
		print_message("[  SKIPPED ] kvm: /dev/kvm does not open\n");
	return failed;
}
