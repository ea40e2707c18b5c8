/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A hundred machines that come and go on one network, and a switch that is killed now and then: no lease is lost, links
 * are back within two seconds, nothing leaks. LODGE_SOAK_SECONDS says for how long; 6 otherwise.
 *
 * The first half is with kills, every KILL_EVERY_NS; the second without, so that one process lives long enough to show
 * a leak.
 */
#include <dirent.h>
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

#include "base/bytes.h"
#include "base/log.h"
#include "switch/process.h"

#define TOKEN "0123456789abcdef0123456789abcdef"
#define MACHINES 100
#define SECOND UINT64_C(1000000000)
#define KILL_EVERY_NS (3 * SECOND)
#define RECOVER_NS (2 * SECOND)

struct guest {
	struct net_link link;
	uint8_t mac[6];
	uint32_t ip, had; /* now; 0: none yet. The first time */
	unsigned leases, arp_answers;
};

struct soak {
	char dir[64];
	pid_t keeper;
	pthread_mutex_t lock;
	struct loop *loop;
	pthread_t thread;
	struct guest guests[MACHINES];
	unsigned seed, rounds, kills, plugged;
	uint64_t slowest_ns;
};

/* ---- machines ---- */

static void
send_udp(struct guest *g, const uint8_t *dhcp, size_t n)
{
	uint8_t f[400] = { 255, 255, 255, 255, 255, 255 }, *p = f + 14;
	uint16_t sum;

	memcpy(f + 6, g->mac, 6);
	put_be16(f + 12, 0x0800);
	p[0] = 0x45;
	put_be16(p + 2, (unsigned)(28 + n));
	p[8] = 64;
	p[9] = 17;
	put_be32(p + 16, UINT32_MAX);
	sum = net_sum_fold(net_sum(0, p, 20));
	memcpy(p + 10, &sum, 2);
	put_be16(p + 20, 68);
	put_be16(p + 22, 67);
	put_be16(p + 24, (unsigned)(8 + n));
	memcpy(p + 28, dhcp, n);
	net_send(&g->link, f, 42 + n);
}

static void
send_dhcp(struct guest *g, uint8_t type, uint32_t ip)
{
	uint8_t m[260] = { 1, 1, 6 };

	memcpy(m + 28, g->mac, 6);
	put_be32(m + 236, 0x63825363);
	memcpy(m + 240, (uint8_t[]){ 53, 1, type, 50, 4, 0, 0, 0, 0, 255 }, 10);
	put_be32(m + 245, ip);
	if (!ip)
		m[243] = 255;
	send_udp(g, m, sizeof(m));
}

static void
send_arp(struct guest *g)
{
	uint8_t f[42] = { 255, 255, 255, 255, 255, 255 };

	memcpy(f + 6, g->mac, 6);
	memcpy(f + 12, (uint8_t[]){ 8, 6, 0, 1, 8, 0, 6, 4, 0, 1 }, 10);
	memcpy(f + 22, g->mac, 6);
	put_be32(f + 28, g->ip);
	put_be32(f + 38, 0x0a090803);
	net_send(&g->link, f, sizeof(f));
}

static bool
receive(void *opaque, const uint8_t *f, size_t len)
{
	struct guest *g = opaque;
	uint32_t ip;

	if (memcmp(f, g->mac, 6) != 0 && f[0] != 255)
		return true;
	if (be16(f + 12) == 0x0806 && len >= 42 && f[21] == 2)
		g->arp_answers++;
	if (be16(f + 12) != 0x0800 || len < 290 || f[23] != 17 || be16(f + 36) != 68 || memcmp(f + 70, g->mac, 6) != 0)
		return true;
	ip = be32(f + 58);
	if (f[284] == 2)
		send_dhcp(g, 3, ip);
	if (f[284] == 5) {
		g->ip = ip;
		g->leases++;
	}
	return true;
}

static void
plug(struct soak *s, int i)
{
	struct guest *g = &s->guests[i];
	struct err e = { 0 };
	char id[8];

	snprintf(id, sizeof(id), "c%d", i);
	net_link_init(&g->link, g->mac);
	g->link.adapter = (struct net_adapter){ .opaque = g, .receive = receive };
	g->ip = 0;
	if (plug_open(&g->link, s->loop, &(struct plug_options){ s->dir, id, TOKEN }, &e))
		fail_msg("machine %d: %s", i, e.text);
	s->plugged++;
	send_dhcp(g, 1, 0);
}

static void
unplug(struct soak *s, int i)
{
	net_link_close(&s->guests[i].link);
	s->plugged--;
}

/* Call `again` for every machine that is plugged in and not `done`, until all are. */
static void
insist(struct soak *s, uint64_t until, bool (*done)(struct guest *g), void (*again)(struct guest *g))
{
	unsigned missing;

	do {
		missing = 0;
		pthread_mutex_lock(&s->lock);
		for (int i = 0; i < MACHINES; i++) {
			if (!s->guests[i].link.class || done(&s->guests[i]))
				continue;
			missing++;
			again(&s->guests[i]);
		}
		pthread_mutex_unlock(&s->lock);
		if (missing && loop_now() > until)
			fail_msg("%u of %u machines do not get through", missing, s->plugged);
		if (missing)
			usleep(20000);
	} while (missing);
}

static bool
has_address(struct guest *g)
{
	return g->ip != 0;
}

static void
ask_address(struct guest *g)
{
	send_dhcp(g, 1, 0);
}

static bool
has_answer(struct guest *g)
{
	return g->arp_answers != 0;
}

/* ---- the network ---- */

static void
write_file(struct soak *s, const char *name, const char *text)
{
	char *path = xasprintf("%s/%s", s->dir, name);
	FILE *f = fopen(path, "w");

	assert_non_null(f);
	fputs(text, f);
	fclose(f);
	free(path);
}

static void
write_ports(struct soak *s)
{
	char *ports = xasprintf("%s/ports", s->dir);

	mkdir(ports, 0700);
	free(ports);
	for (int i = 0; i < MACHINES; i++) {
		struct guest *g = &s->guests[i];
		char *name = xasprintf("ports/c%d.json", i), *text;

		memcpy(g->mac, (uint8_t[]){ 8, 0, 0x27, 0, 0, (uint8_t)i }, 6);
		text = xasprintf("{\"token\":\"" TOKEN "\",\"machine\":\"vm%d\",\"slot\":0,\"mac\":\"0800270000%02x\"}",
			i, (unsigned)i);
		write_file(s, name, text);
		free(text);
		free(name);
	}
}

static int
switch_pid(struct soak *s)
{
	char *path = xasprintf("%s/lock", s->dir);
	FILE *f = fopen(path, "r");
	int pid = 0;

	if (f && fscanf(f, "%*d %d", &pid) != 1)
		pid = 0;
	if (f)
		fclose(f);
	free(path);
	return pid;
}

static void
start_switch(struct soak *s)
{
	char line[1024] = "";
	int fd[2];

	strcpy(s->dir, "/tmp/lodge-soak-XXXXXX");
	assert_non_null(mkdtemp(s->dir));
	write_file(s, "config.json",
		"{\"version\":1,\"name\":\"lab\",\"kind\":\"natnetwork\",\"uplink\":\"nat\",\"network\":\"10.9.8.0/"
		"24\",\"gateway\":"
		"\"10.9.8.1\",\"domain\":\"lab\",\"dhcp\":{\"enabled\":true,\"address\":\"10.9.8.3\",\"netmask\":\"255."
		"255.255.0\","
		"\"lower\":\"10.9.8.4\",\"upper\":\"10.9.8.254\"}}");
	write_ports(s);
	log_set_level(LOG_ERROR);
	assert_int_equal(pipe(fd), 0);
	s->keeper = fork();
	if (!s->keeper) {
		close(fd[0]);
		_exit(keeper_run(s->dir, fd[1], true));
	}
	close(fd[1]);
	assert_true(read(fd[0], line, sizeof(line) - 1) > 0);
	close(fd[0]);
	assert_non_null(strstr(line, "\"ok\":true"));
}

/* Descriptors and resident kilobytes of the switch, without the rings, which it shares with machines. */
static void
measure(struct soak *s, int *fds, long *kb)
{
	char path[64], line[256];
	struct dirent *f;
	DIR *d;
	FILE *status;

	snprintf(path, sizeof(path), "/proc/%d/fd", switch_pid(s));
	d = opendir(path);
	for (*fds = 0; d && (f = readdir(d));)
		*fds += f->d_name[0] != '.';
	if (d)
		closedir(d);
	snprintf(path, sizeof(path), "/proc/%d/status", switch_pid(s));
	status = fopen(path, "r");
	for (*kb = 0; status && fgets(line, sizeof(line), status);)
		sscanf(line, "RssAnon: %ld", kb);
	if (status)
		fclose(status);
	assert_true(*kb > 0);
}

/* ---- what happens ---- */

/* One machine comes or goes; every machine has the address it had the first time. */
static void
come_or_go(struct soak *s)
{
	int i = (int)((s->seed = s->seed * 1103515245 + 12345) >> 16) % MACHINES;
	struct guest *g = &s->guests[i];

	pthread_mutex_lock(&s->lock);
	if (g->ip && g->had && g->ip != g->had)
		fail_msg("machine %d had 10.9.8.%u and got 10.9.8.%u", i, g->had & 255, g->ip & 255);
	if (g->ip)
		g->had = g->ip;
	if (g->link.class)
		unplug(s, i);
	else
		plug(s, i);
	pthread_mutex_unlock(&s->lock);
	s->rounds++;
}

static void
kill_switch(struct soak *s)
{
	uint64_t began = loop_now();

	pthread_mutex_lock(&s->lock);
	for (int i = 0; i < MACHINES; i++)
		s->guests[i].arp_answers = 0;
	kill(switch_pid(s), SIGKILL);
	pthread_mutex_unlock(&s->lock);
	usleep(1000); /* what the old one had in its rings may still come */
	insist(s, began + RECOVER_NS, has_answer, send_arp);
	if (loop_now() - began > s->slowest_ns)
		s->slowest_ns = loop_now() - began;
	s->kills++;
	insist(s, loop_now() + RECOVER_NS, has_address, ask_address);
}

static void
go_on(struct soak *s, uint64_t until, bool kills)
{
	uint64_t next = loop_now() + KILL_EVERY_NS / 2;

	while (loop_now() < until) {
		come_or_go(s);
		usleep(500);
		if (kills && loop_now() > next) {
			kill_switch(s);
			next = loop_now() + KILL_EVERY_NS;
		}
	}
}

static void
all_in(struct soak *s)
{
	pthread_mutex_lock(&s->lock);
	for (int i = 0; i < MACHINES; i++)
		if (!s->guests[i].link.class)
			plug(s, i);
	pthread_mutex_unlock(&s->lock);
	insist(s, loop_now() + 5 * SECOND, has_address, ask_address);
}

static void
a_hundred_machines_come_and_go_while_the_switch_is_killed(void **state)
{
	struct soak *s = *state;
	const char *soak = getenv("LODGE_SOAK_SECONDS");
	uint64_t half = (soak ? strtoull(soak, NULL, 10) : 6) * SECOND / 2;
	int fds[2];
	long kb[2];

	start_switch(s);
	all_in(s);
	go_on(s, loop_now() + half, true);
	all_in(s);
	for (unsigned begin = s->rounds; s->rounds < begin + 400;) /* so that the new one has done everything once */
		come_or_go(s);
	all_in(s);
	usleep(500000);
	measure(s, &fds[0], &kb[0]);
	go_on(s, loop_now() + half, false);
	all_in(s);
	for (int i = 0; i < MACHINES; i++)
		assert_int_equal(s->guests[i].ip, s->guests[i].had ? s->guests[i].had : s->guests[i].ip);
	for (int i = 0; i < 100; i++) { /* what just left may still be on its way out */
		measure(s, &fds[1], &kb[1]);
		if (fds[1] <= fds[0])
			break;
		usleep(20000);
	}
	print_message(
		"%u times in or out; %u kills, links back after %u ms at most; descriptors %d and %d, %ld and %ld KB\n",
		s->rounds, s->kills, (unsigned)(s->slowest_ns / 1000000), fds[0], fds[1], kb[0], kb[1]);
	assert_true(s->kills > 0);
	assert_true(fds[1] <= fds[0]);
	assert_true(kb[1] < kb[0] + 256);
}

static void *
run_loop(void *opaque)
{
	loop_run(opaque);
	return NULL;
}

static int
setup(void **state)
{
	struct soak *s = *state = xcalloc(1, sizeof(*s));

	s->seed = 1;
	pthread_mutex_init(&s->lock, NULL);
	s->loop = loop_open(&s->lock);
	pthread_create(&s->thread, NULL, run_loop, s->loop);
	return 0;
}

static int
teardown(void **state)
{
	struct soak *s = *state;
	char *rm = xasprintf("rm -rf %s", s->dir);
	int r;

	pthread_mutex_trylock(&s->lock); /* a failed test may hold it */
	for (int i = 0; i < MACHINES; i++)
		net_link_close(&s->guests[i].link);
	pthread_mutex_unlock(&s->lock);
	loop_stop(s->loop);
	pthread_join(s->thread, NULL);
	loop_close(s->loop);
	if (s->keeper) {
		kill(s->keeper, SIGTERM);
		waitpid(s->keeper, NULL, 0);
	}
	r = system(rm);
	free(rm);
	free(s);
	return r ? -1 : 0;
}

int
main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(
			a_hundred_machines_come_and_go_while_the_switch_is_killed, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
