/* SPDX-License-Identifier: Apache-2.0 */
/* The serial port, and its back ends with a real loop under them. */
#include "board.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

static struct board b;
static char dir[64], path[96];

enum { DATA = 0x3f8, IER, IIR, LCR, MCR, LSR, MSR, SCR };

static int
setup(void **state)
{
	board_open(&b, 0);
	strcpy(dir, "/tmp/lodge-unit-XXXXXX");
	assert_non_null(mkdtemp(dir));
	snprintf(path, sizeof(path), "%s/port", dir);
	return 0;
}

static int
teardown(void **state)
{
	board_close(&b);
	unlink(path);
	rmdir(dir);
	return 0;
}

static void
make_port(const char *back_end)
{
	struct err e = { 0 };
	struct chardev *cd = back_end ? chardev_parse(b.m.loop, back_end, &e) : NULL;

	if (back_end && !cd)
		fail_msg("%s", e.text);
	ns16550_create(&b.m, DATA, board_wire(&b, 4), cd);
}

/* Let the loop run for a moment. */
static void
stop(void *opaque)
{
	loop_stop(opaque);
}

static void
run_loop(void)
{
	/* The loop cannot be run again once it was stopped: run it on a thread of its own for as long as it takes. */
	struct timespec ts = { 0, 30000000 };

	machine_unlock(&b.m);
	nanosleep(&ts, NULL);
	machine_lock(&b.m);
}

static void *
loop_thread(void *opaque)
{
	loop_run(b.m.loop);
	return NULL;
}

static pthread_t thread;

static void
start_loop(void)
{
	machine_lock(&b.m);
	pthread_create(&thread, NULL, loop_thread, NULL);
}

static void
end_loop(void)
{
	loop_post(b.m.loop, stop, b.m.loop);
	machine_unlock(&b.m);
	pthread_join(thread, NULL);
}

static void
say(const char *s)
{
	while (*s)
		out8(&b, DATA, (uint8_t)*s++);
}

static void
loopback_returns_what_is_sent(void **state)
{
	make_port(NULL);
	out8(&b, MCR, 0x10);
	out8(&b, LCR, 3);
	out8(&b, DATA, 0xa5);
	assert_int_equal(in8(&b, LSR) & 1, 1);
	assert_int_equal(in8(&b, DATA), 0xa5);
	assert_int_equal(in8(&b, LSR), 0x60);
	out8(&b, LCR, 0); /* five bits */
	out8(&b, DATA, 0xa5);
	assert_int_equal(in8(&b, DATA), 0x05);
}

static void
loopback_ties_outputs_to_modem_inputs(void **state)
{
	make_port(NULL);
	out8(&b, MCR, 0x10);
	in8(&b, MSR);
	assert_int_equal(in8(&b, MSR), 0);
	out8(&b, MCR, 0x1a);
	assert_int_equal(in8(&b, MSR), 0x99); /* RTS -> CTS, OUT2 -> DCD, both changed */
	assert_int_equal(in8(&b, MSR), 0x90);
	out8(&b, IER, 8);
	out8(&b, MCR, 0x1f);
	assert_int_equal(in8(&b, IIR) & 15, 0);
	assert_int_equal(b.wire[4].level, 1);
	assert_int_equal(in8(&b, MSR), 0xf2); /* DSR changed; RI rose, which is no event */
	assert_int_equal(b.wire[4].level, 0);
}

static void
the_fifo_interrupts_at_its_trigger_or_after_a_while(void **state)
{
	make_port(NULL);
	out8(&b, LCR, 3);
	out8(&b, MCR, 0x10);
	out8(&b, IIR, 0x81); /* FIFOs, trigger at 8 */
	assert_int_equal(in8(&b, IIR), 0xc1);
	out8(&b, IER, 1);
	for (int i = 0; i < 7; i++)
		out8(&b, DATA, (uint32_t)i);
	assert_int_equal(b.wire[4].level, 0);
	board_run(&b, 100 * MS);
	assert_int_equal(in8(&b, IIR), 0xcc); /* timeout */
	out8(&b, DATA, 7);
	assert_int_equal(in8(&b, IIR), 0xc4);
	for (int i = 0; i < 8; i++)
		assert_int_equal(in8(&b, DATA), i);
	assert_int_equal(b.wire[4].level, 0);
	for (int i = 0; i < 17; i++)
		out8(&b, DATA, (uint32_t)i);
	assert_int_equal(in8(&b, LSR) & 2, 2); /* overrun */
	assert_int_equal(in8(&b, LSR) & 2, 0);
	out8(&b, IIR, 0x83); /* reset the receiver */
	assert_int_equal(in8(&b, LSR) & 1, 0);
}

static void
thre_interrupts_when_enabled_and_after_each_write(void **state)
{
	make_port(NULL);
	out8(&b, IER, 2);
	assert_int_equal(b.wire[4].level, 1);
	assert_int_equal(in8(&b, IIR), 2);
	assert_int_equal(b.wire[4].level, 0); /* reading IIR was the acknowledge */
	assert_int_equal(in8(&b, IIR), 1);
	out8(&b, DATA, 'x');
	out8(&b, DATA, 'y');
	assert_int_equal(b.wire[4].level, 1);
	assert_int_equal(b.wire[4].rises, 3); /* an edge for each */
	out8(&b, IER, 0);
	assert_int_equal(b.wire[4].level, 0);
}

static void
dlab_shows_the_divisor(void **state)
{
	make_port(NULL);
	out8(&b, LCR, 0x83);
	out8(&b, DATA, 0x01);
	out8(&b, IER, 0x02);
	assert_int_equal(in8(&b, DATA), 1);
	assert_int_equal(in8(&b, IER), 2);
	out8(&b, LCR, 3);
	assert_int_equal(in8(&b, IER), 0);
	out8(&b, SCR, 0x5a);
	assert_int_equal(in8(&b, SCR), 0x5a);
	assert_int_equal(in8(&b, LCR), 3);
}

static void
a_file_gets_every_byte(void **state)
{
	char text[128], buf[64] = { 0 };
	int fd;

	snprintf(text, sizeof(text), "file:%s", path);
	make_port(text);
	out8(&b, LCR, 3);
	say("hello\n");
	fd = open(path, O_RDONLY);
	assert_int_equal(read(fd, buf, sizeof(buf)), 6);
	close(fd);
	assert_string_equal(buf, "hello\n");
}

static int
connect_to(const char *p)
{
	struct sockaddr_un un = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);

	snprintf(un.sun_path, sizeof(un.sun_path), "%s", p);
	assert_int_equal(connect(fd, (struct sockaddr *)&un, sizeof(un)), 0);
	return fd;
}

static void
a_socket_takes_one_client_after_the_other(void **state)
{
	char text[128], buf[64] = { 0 };
	int fd;

	snprintf(text, sizeof(text), "unix-server:%s", path);
	make_port(text);
	start_loop();
	out8(&b, LCR, 3);
	out8(&b, IIR, 1);
	assert_int_equal(in8(&b, MSR) & 0x80, 0);
	say("nobody listens");
	fd = connect_to(path);
	run_loop();
	assert_int_equal(in8(&b, MSR) & 0x80, 0x80); /* carrier */
	say("out");
	assert_int_equal(read(fd, buf, sizeof(buf)), 3);
	assert_int_equal(write(fd, "0123456789abcdefghijklmnopqrstuvwxyz", 36), 36);
	run_loop();
	for (int i = 0; i < 36; i++) {
		if (!(in8(&b, LSR) & 1))
			run_loop();
		assert_int_equal(in8(&b, DATA), "0123456789abcdefghijklmnopqrstuvwxyz"[i]);
	}
	close(fd);
	run_loop();
	assert_int_equal(in8(&b, MSR) & 0x80, 0);
	fd = connect_to(path);
	run_loop();
	say("again");
	assert_int_equal(read(fd, buf, sizeof(buf)), 5);
	close(fd);
	end_loop();
}

static void
a_peer_that_does_not_read_stops_the_transmitter(void **state)
{
	char text[128], buf[4096];
	size_t sent = 0, got = 0;
	ssize_t n;
	int fd;

	snprintf(text, sizeof(text), "unix-server:%s", path);
	make_port(text);
	start_loop();
	out8(&b, LCR, 3);
	fd = connect_to(path);
	run_loop();
	while (in8(&b, LSR) & 0x20) {
		out8(&b, DATA, (uint8_t)sent++);
		assert_true(sent < 10000000);
	}
	assert_in_range(sent, 65536, 1 << 22);
	while (got < sent) {
		n = read(fd, buf, sizeof(buf));
		assert_true(n > 0);
		for (ssize_t i = 0; i < n; i++)
			assert_int_equal((uint8_t)buf[i], (uint8_t)got++);
		if (got == (size_t)n || n < (ssize_t)sizeof(buf))
			run_loop();
	}
	run_loop();
	assert_int_equal(in8(&b, LSR) & 0x20, 0x20);
	close(fd);
	end_loop();
}

static void
a_pseudo_terminal_comes_and_goes(void **state)
{
	struct err e = { 0 };
	struct chardev *cd = chardev_parse(b.m.loop, "pty", &e);
	struct timespec ts = { 0, 300000000 };
	char buf[16];
	int fd;

	assert_non_null(cd);
	ns16550_create(&b.m, DATA, board_wire(&b, 4), cd);
	start_loop();
	out8(&b, LCR, 3);
	fd = open(chardev_path(cd), O_RDWR | O_NOCTTY);
	assert_true(fd >= 0);
	machine_unlock(&b.m);
	nanosleep(&ts, NULL);
	machine_lock(&b.m);
	assert_true(chardev_connected(cd));
	say("pty");
	assert_int_equal(read(fd, buf, sizeof(buf)), 3);
	assert_int_equal(write(fd, "k", 1), 1);
	run_loop();
	assert_int_equal(in8(&b, DATA), 'k');
	close(fd);
	machine_unlock(&b.m);
	nanosleep(&ts, NULL);
	machine_lock(&b.m);
	assert_false(chardev_connected(cd));
	end_loop();
}

static void
back_ends_that_cannot_be_are_refused_with_a_reason(void **state)
{
	struct err e = { 0 };

	assert_null(chardev_parse(b.m.loop, "carrier-pigeon", &e));
	assert_non_null(strstr(e.text, "carrier-pigeon"));
	assert_null(chardev_parse(b.m.loop, "file:", &e));
	assert_null(chardev_parse(b.m.loop, "file:/nonexistent/x", &e));
	assert_non_null(strstr(e.text, "No such file"));
	assert_null(chardev_parse(b.m.loop, "tcp-server:70000", &e));
	assert_null(chardev_parse(b.m.loop,
		"unix-server:/tmp/"
		"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
		"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
		&e));
	assert_int_equal(e.code, ERR_INVALID);
}

static void
a_left_over_socket_is_replaced_and_a_live_one_is_not(void **state)
{
	struct err e = { 0 };
	struct chardev *one = chardev_open(b.m.loop, CHARDEV_UNIX_SERVER, path, &e);
	struct sockaddr_un un = { .sun_family = AF_UNIX };
	struct stat st;
	int fd;

	assert_non_null(one);
	assert_null(chardev_open(b.m.loop, CHARDEV_UNIX_SERVER, path, &e));
	assert_int_equal(stat(path, &st), 0); /* the refusal removed nothing */
	chardev_close(one);
	assert_int_not_equal(stat(path, &st), 0);
	fd = socket(AF_UNIX, SOCK_STREAM, 0);
	snprintf(un.sun_path, sizeof(un.sun_path), "%s", path);
	assert_int_equal(bind(fd, (struct sockaddr *)&un, sizeof(un)), 0);
	close(fd);
	one = chardev_open(b.m.loop, CHARDEV_UNIX_SERVER, path, &e);
	assert_non_null(one);
	chardev_close(one);
}

static void
no_sequence_of_port_writes_hurts(void **state)
{
	uint64_t seed = 9;

	make_port("null");
	for (int i = 0; i < 300000; i++) {
		uint32_t r = board_random(&seed);

		if (r & 8)
			out8(&b, (uint16_t)(DATA + (r & 7)), r >> 8 & 0xff);
		else
			in8(&b, (uint16_t)(DATA + (r & 7)));
		if (!(r & 0x70))
			board_run(&b, r & 0xffffff);
	}
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int
main(void)
{
	const struct CMUnitTest tests[] = {
		T(loopback_returns_what_is_sent),
		T(loopback_ties_outputs_to_modem_inputs),
		T(the_fifo_interrupts_at_its_trigger_or_after_a_while),
		T(thre_interrupts_when_enabled_and_after_each_write),
		T(dlab_shows_the_divisor),
		T(a_file_gets_every_byte),
		T(a_socket_takes_one_client_after_the_other),
		T(a_peer_that_does_not_read_stops_the_transmitter),
		T(a_pseudo_terminal_comes_and_goes),
		T(back_ends_that_cannot_be_are_refused_with_a_reason),
		T(a_left_over_socket_is_replaced_and_a_live_one_is_not),
		T(no_sequence_of_port_writes_hurts),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
