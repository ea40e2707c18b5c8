/* SPDX-License-Identifier: Apache-2.0 */
/* Two links in a real vde_switch, where it is installed. */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/log.h"
#include "base/str.h"
#include "net/net.h"
#include "test/unit/loop.h"

struct end {
	struct net_link link;
	unsigned frames;
	size_t len;
	uint8_t last[NET_FRAME_MAX];
};

static char sockets[80];
static int console[2];
static pid_t sw;
static struct end ends[2];

static bool
receive(void *opaque, const uint8_t *frame, size_t len)
{
	struct end *d = opaque;

	d->frames++;
	d->len = len;
	memcpy(d->last, frame, len);
	return true;
}

static void
start_switch(void)
{
	char *ctl = xasprintf("%s/ctl", sockets);

	unlink(ctl);
	assert_int_equal(pipe(console), 0);
	sw = fork();
	if (!sw) {
		dup2(console[0], 0); /* it ends when that does */
		close(console[1]);
		execlp("vde_switch", "vde_switch", "-s", sockets, "-x", NULL);
		_exit(127);
	}
	for (int i = 0; i < 300 && access(ctl, F_OK); i++)
		usleep(10000);
	assert_int_equal(access(ctl, F_OK), 0);
	free(ctl);
}

static void
stop_switch(void)
{
	kill(sw, SIGKILL);
	waitpid(sw, NULL, 0);
	close(console[0]);
	close(console[1]);
	sw = 0;
}

static int
setup(void **state)
{
	if (make_dir("lodge-vde"))
		return -1;
	snprintf(sockets, sizeof(sockets), "%s/vde.ctl", dir);
	memset(ends, 0, sizeof(ends));
	log_set_level(LOG_ERROR);
	return begin_loop();
}

static int
teardown(void **state)
{
	pthread_mutex_lock(&lock);
	for (int i = 0; i < 2; i++)
		net_link_close(&ends[i].link);
	pthread_mutex_unlock(&lock);
	end_loop();
	if (sw)
		stop_switch();
	return remove_dir();
}

static int
plug_in(int i, struct err *e)
{
	uint8_t mac[6] = { 8, 0, 0x27, 0, 0, (uint8_t)(i + 1) };
	int r;

	net_link_init(&ends[i].link, mac);
	ends[i].link.adapter = (struct net_adapter){ .opaque = &ends[i], .receive = receive };
	pthread_mutex_lock(&lock);
	r = vde_open(&ends[i].link, loop, sockets, e);
	pthread_mutex_unlock(&lock);
	return r;
}

static void
send_from(int i, size_t len)
{
	uint8_t f[2000] = { 8, 0, 0x27, 0, 0, (uint8_t)(2 - i), 8, 0, 0x27, 0, 0, (uint8_t)(i + 1), 0x88, 0xb5, 'x' };

	pthread_mutex_lock(&lock);
	net_send(&ends[i].link, f, len);
	pthread_mutex_unlock(&lock);
}

static bool
got(int i, unsigned frames)
{
	bool enough;

	pthread_mutex_lock(&lock);
	enough = ends[i].frames >= frames;
	pthread_mutex_unlock(&lock);
	return enough;
}

static bool
wait_frames(int i, unsigned frames, int ms)
{
	for (; ms > 0 && !got(i, frames); ms -= 5)
		usleep(5000);
	return got(i, frames);
}

static void
two_machines_on_a_vde_switch_reach_each_other(void **state)
{
	start_switch();
	assert_int_equal(plug_in(0, NULL), 0);
	assert_int_equal(plug_in(1, NULL), 0);
	send_from(0, 64);
	assert_true(wait_frames(1, 1, 2000));
	assert_int_equal(ends[1].len, 64);
	assert_int_equal(ends[1].last[14], 'x');
	send_from(1, NET_FRAME_WIRE - 4);
	assert_true(wait_frames(0, 1, 2000));
	assert_int_equal(ends[0].len, NET_FRAME_WIRE - 4);
	send_from(0, 1600); /* not cut off: dropped */
	send_from(0, 70);
	assert_true(wait_frames(1, 2, 2000));
	assert_int_equal(ends[1].len, 70);
	assert_int_equal(ends[0].link.stats.dropped, 1);
}

static void
a_vde_switch_that_is_not_there_is_an_error_and_one_that_comes_back_is_found(void **state)
{
	struct err e = { 0 };
	bool back = false;

	assert_int_equal(plug_in(0, &e), -1);
	assert_non_null(strstr(e.text, sockets));
	start_switch();
	assert_int_equal(plug_in(0, NULL), 0);
	assert_int_equal(plug_in(1, NULL), 0);
	stop_switch();
	start_switch();
	for (int i = 0; i < 100 && !back; i++) {
		send_from(0, 64);
		back = wait_frames(1, 1, 50);
	}
	assert_true(back);
}

int
main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(two_machines_on_a_vde_switch_reach_each_other, setup, teardown),
		cmocka_unit_test_setup_teardown(
			a_vde_switch_that_is_not_there_is_an_error_and_one_that_comes_back_is_found, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
