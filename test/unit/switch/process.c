/* SPDX-License-Identifier: Apache-2.0 */
/* The switch as a process, with machines (links of this process) plugged in. */
#include <arpa/inet.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/log.h"
#include "switch/process.h"
#include "test/unit/loop.h"

#define TOKEN "0123456789abcdef0123456789abcdef"

struct guest {
	struct net_link link;
	unsigned frames;
	size_t len;
	uint8_t last[NET_FRAME_MAX];
	bool full;
	unsigned quota; /* frames until it is full; 0: no end */
	unsigned mss;	/* of the last, if it was a large one */
};

static pid_t keeper;
static int switch_pid;
static struct guest guests[3];

static void
write_file(const char *name, const char *text)
{
	char *path = xasprintf("%s/%s", dir, name);
	FILE *f = fopen(path, "w");

	fputs(text, f);
	fclose(f);
	free(path);
}

static void
write_port(const char *id, int number, const char *more)
{
	char *name = xasprintf("ports/%s.json", id);
	char *text = xasprintf("{\"token\":\"" TOKEN "\",\"machine\":\"vm%d\",\"slot\":0,\"mac\":\"0800270000%02d\"%s}",
		number, number, more);

	write_file(name, text);
	free(text);
	free(name);
}

/* Starts a keeper and returns what its line says; the keeper's process in *pid. */
static char *
start_keeper(pid_t *pid)
{
	static char line[1024];
	int fd[2];
	ssize_t n;

	assert_int_equal(pipe(fd), 0);
	*pid = fork();
	if (!*pid) {
		close(fd[0]);
		_exit(keeper_run(dir, fd[1], true));
	}
	close(fd[1]);
	n = read(fd[0], line, sizeof(line) - 1);
	close(fd[0]);
	line[n > 0 ? n : 0] = 0;
	return line;
}

static void
start_network(const char *config)
{
	char *line;

	assert_int_equal(make_dir("lodge-switch"), 0);
	write_file("config.json", config);
	char *ports = xasprintf("%s/ports", dir);
	mkdir(ports, 0700);
	free(ports);
	write_port("one", 1, "");
	write_port("two", 2, "");
	write_port("three", 3, "");
	log_set_level(LOG_ERROR);
	line = start_keeper(&keeper);
	if (sscanf(line, "{\"ok\":true,\"pid\":%d}", &switch_pid) != 1)
		fail_msg("the switch did not start: %s", line);
}

static int
setup(void **state)
{
	memset(guests, 0, sizeof(guests));
	return begin_loop();
}

static int
teardown(void **state)
{
	int status;

	pthread_mutex_lock(&lock);
	for (int i = 0; i < 3; i++)
		net_link_close(&guests[i].link);
	pthread_mutex_unlock(&lock);
	end_loop();
	if (keeper) {
		kill(keeper, SIGTERM);
		waitpid(keeper, &status, 0);
		keeper = 0;
	}
	return remove_dir();
}

static bool
receive(void *opaque, const uint8_t *frame, size_t len)
{
	struct guest *g = opaque;

	if (g->full)
		return false;
	g->frames++;
	g->len = len;
	memcpy(g->last, frame, len);
	g->full = g->quota && !--g->quota;
	return true;
}

static int
plug_in(int i, const char *port, const char *token, struct err *e)
{
	struct plug_options o = { dir, port, token };
	uint8_t mac[6] = { 8, 0, 0x27, 0, 0, (uint8_t)(i + 1) };
	int r;

	net_link_init(&guests[i].link, mac);
	guests[i].link.adapter = (struct net_adapter){ .opaque = &guests[i], .receive = receive };
	pthread_mutex_lock(&lock);
	r = plug_open(&guests[i].link, loop, &o, e);
	pthread_mutex_unlock(&lock);
	return r;
}

static void
send_from(int i, const void *to, unsigned type, const void *payload, size_t len)
{
	uint8_t f[2000] = { 0 };

	memcpy(f, to, 6);
	memcpy(f + 6, guests[i].link.mac, 6);
	f[12] = (uint8_t)(type >> 8);
	f[13] = (uint8_t)type;
	memcpy(f + 14, payload, len);
	pthread_mutex_lock(&lock);
	net_send(&guests[i].link, f, 14 + len);
	pthread_mutex_unlock(&lock);
}

static bool
wait_frames(int i, unsigned want, int ms)
{
	for (; ms > 0; ms -= 2) {
		unsigned got;

		pthread_mutex_lock(&lock);
		got = guests[i].frames;
		pthread_mutex_unlock(&lock);
		if (got >= want)
			return true;
		usleep(2000);
	}
	return false;
}

static const char intnet[] = "{\"version\":1,\"name\":\"lab\"}";
static const char nat[] = "{\"version\":1,\"name\":\"lab\",\"kind\":\"natnetwork\",\"uplink\":\"nat\",\"network\":"
			  "\"10.9.8.0/24\",\"gateway\":\"10.9.8.1\",\"domain\":\"lab\",\"dhcp\":{\"enabled\":true,"
			  "\"address\":\"10.9.8.3\",\"netmask\":\"255.255.255.0\",\"lower\":\"10.9.8.4\",\"upper\":"
			  "\"10.9.8.254\"}}";

static void
machines_that_are_plugged_in_reach_each_other(void **state)
{
	start_network(intnet);
	assert_int_equal(plug_in(0, "one", TOKEN, NULL), 0);
	assert_int_equal(plug_in(1, "two", TOKEN, NULL), 0);
	for (int i = 0; i < 200; i++)
		send_from(0, "\x08\x00\x27\x00\x00\x02", 0x88b5, "hello", 5);
	assert_true(wait_frames(1, 200, 2000));
	assert_memory_equal(guests[1].last + 14, "hello", 5);
	send_from(1, "\xff\xff\xff\xff\xff\xff", 0x88b5, "all", 3);
	assert_true(wait_frames(0, 1, 2000));
}

static void
a_wrong_token_or_an_unknown_port_is_refused(void **state)
{
	struct err e = { 0 };

	start_network(intnet);
	assert_int_equal(plug_in(0, "one", "00000000000000000000000000000000", &e), -1);
	assert_non_null(strstr(e.text, "token"));
	assert_int_equal(plug_in(0, "nobody", TOKEN, &e), -1);
	assert_int_equal(plug_in(0, "../config", TOKEN, &e), -1);
	assert_int_equal(plug_in(0, "one", TOKEN, &e), 0);
}

static void
after_a_kill_the_switch_is_back_and_links_recover_within_two_seconds(void **state)
{
	uint64_t began;
	unsigned seen;

	start_network(intnet);
	assert_int_equal(plug_in(0, "one", TOKEN, NULL), 0);
	assert_int_equal(plug_in(1, "two", TOKEN, NULL), 0);
	send_from(0, "\x08\x00\x27\x00\x00\x02", 0x88b5, "hello", 5);
	assert_true(wait_frames(1, 1, 2000));
	seen = guests[1].frames;
	kill(switch_pid, SIGKILL);
	began = loop_now();
	do {
		usleep(20000);
		send_from(0, "\x08\x00\x27\x00\x00\x02", 0x88b5, "hello", 5);
	} while (!wait_frames(1, seen + 1, 4) && loop_now() - began < 4000000000u);
	assert_true(wait_frames(1, seen + 1, 4));
	assert_true(loop_now() - began < 2000000000u);
	print_message("recovered after %d ms\n", (int)((loop_now() - began) / 1000000));
}

static void
a_second_keeper_finds_the_first_and_leaves_it_alone(void **state)
{
	pid_t other;
	int status, pid = 0;

	start_network(intnet);
	sscanf(start_keeper(&other), "{\"ok\":true,\"pid\":%d}", &pid);
	assert_int_equal(pid, switch_pid);
	waitpid(other, &status, 0);
	assert_true(WIFEXITED(status) && !WEXITSTATUS(status));
	assert_int_equal(plug_in(0, "one", TOKEN, NULL), 0);
}

static void
a_network_that_nobody_uses_ends(void **state)
{
	int status;

	start_network("{\"version\":1,\"name\":\"lab\",\"linger\":0}");
	assert_int_equal(plug_in(0, "one", TOKEN, NULL), 0);
	pthread_mutex_lock(&lock);
	net_link_close(&guests[0].link);
	pthread_mutex_unlock(&lock);
	for (int i = 0; i < 300 && !waitpid(keeper, &status, WNOHANG); i++)
		usleep(10000);
	assert_int_equal(kill(keeper, 0), -1);
	keeper = 0;
	assert_true(WIFEXITED(status) && !WEXITSTATUS(status));
}

static void
a_network_whose_folder_is_removed_ends(void **state)
{
	int status;

	start_network(intnet);
	assert_int_equal(plug_in(0, "one", TOKEN, NULL), 0);
	assert_int_equal(remove_dir(), 0);
	assert_int_equal(waitpid(keeper, &status, 0), keeper);
	keeper = 0;
	assert_true(WIFEXITED(status) && !WEXITSTATUS(status));
	assert_int_equal(kill(switch_pid, 0), -1);
}

static void
a_configuration_that_makes_no_sense_is_told_when_it_starts(void **state)
{
	pid_t pid;
	int status;

	assert_int_equal(make_dir("lodge-switch"), 0);
	write_file("config.json", "{\"version\":1,\"name\":\"lab\",\"colour\":\"red\"}");
	log_set_level(LOG_ERROR - 1);
	assert_non_null(strstr(start_keeper(&pid), "'colour' is not known"));
	waitpid(pid, &status, 0);
	assert_int_equal(WEXITSTATUS(status), 1);
}

/* A DHCP message of type `type` from guest `i`; asks for `ip` when that is not 0. */
static void
send_dhcp(int i, int type, uint32_t ip)
{
	uint8_t p[400] = { 0x45 }, *m = p + 28, *o = m + 240;
	uint16_t sum;
	size_t len;

	m[0] = m[1] = 1;
	m[2] = 6;
	memcpy(m + 28, guests[i].link.mac, 6);
	memcpy(m + 236, "\x63\x82\x53\x63", 4);
	memcpy(o, (uint8_t[]){ 53, 1, (uint8_t)type }, 3);
	o += 3;
	if (ip) {
		memcpy(o,
			(uint8_t[]){ 50, 4, (uint8_t)(ip >> 24), (uint8_t)(ip >> 16), (uint8_t)(ip >> 8), (uint8_t)ip },
			6);
		o += 6;
	}
	*o++ = 255;
	len = (size_t)(o - p);
	p[2] = (uint8_t)(len >> 8);
	p[3] = (uint8_t)len;
	p[8] = 64;
	p[9] = 17;
	memset(p + 16, 255, 4);
	sum = net_sum_fold(net_sum(0, p, 20));
	memcpy(p + 10, &sum, 2);
	p[21] = 68;
	p[23] = 67;
	p[24] = (uint8_t)((len - 20) >> 8);
	p[25] = (uint8_t)(len - 20);
	send_from(i, "\xff\xff\xff\xff\xff\xff", 0x0800, p, len);
}

static void
dhcp_gives_leases_that_survive_a_kill(void **state)
{
	uint8_t first[4];
	unsigned seen;

	start_network(nat);
	assert_int_equal(plug_in(0, "one", TOKEN, NULL), 0);
	send_dhcp(0, 1, 0);
	assert_true(wait_frames(0, 1, 3000));
	memcpy(first, guests[0].last + 42 + 16, 4);
	assert_memory_equal(first, "\x0a\x09\x08\x04", 4);
	send_dhcp(0, 3, 0x0a090804);
	assert_true(wait_frames(0, 2, 3000));
	assert_int_equal(guests[0].last[42 + 242], 5); /* ACK */
	kill(switch_pid, SIGKILL);
	usleep(500000);
	assert_int_equal(plug_in(1, "two", TOKEN, NULL), 0);
	seen = guests[1].frames;
	for (int i = 0; i < 10 && !wait_frames(1, seen + 1, 300); i++)
		send_dhcp(1, 1, 0);
	assert_memory_equal(guests[1].last + 42 + 16, "\x0a\x09\x08\x05", 4);
}

static void
the_gateway_and_the_station_answer_arp(void **state)
{
	static const uint8_t hosts[] = { 1, 2, 3 };

	start_network(nat);
	assert_int_equal(plug_in(0, "one", TOKEN, NULL), 0);
	for (unsigned i = 0; i < 3; i++) {
		uint8_t arp[28] = { 0, 1, 8, 0, 6, 4, 0, 1, 8, 0, 0x27, 0, 0, 1, 10, 9, 8, 4, 0, 0, 0, 0, 0, 0, 10, 9,
			8, hosts[i] };
		unsigned seen = guests[0].frames;

		send_from(0, "\xff\xff\xff\xff\xff\xff", 0x0806, arp, sizeof(arp));
		assert_true(wait_frames(0, seen + 1, 3000));
		assert_int_equal(guests[0].last[21], 2);
		assert_int_equal(guests[0].last[14 + 17], hosts[i]);
	}
}

static const char nat6[] =
	"{\"version\":1,\"name\":\"lab\",\"kind\":\"natnetwork\",\"uplink\":\"nat\",\"network\":"
	"\"10.9.8.0/24\",\"gateway\":\"10.9.8.1\",\"prefix6\":\"fd17:625c:f037:2::/64\",\"domain\":\"lab\"}";

static const char lab6[] =
	"{\"version\":1,\"name\":\"lab\",\"network\":\"10.9.8.0/24\",\"prefix6\":\"fd00:56::/64\",\"domain\":\"lab\","
	"\"dhcp\":{\"enabled\":true,\"address\":\"10.9.8.3\",\"netmask\":\"255.255.255.0\","
	"\"lower\":\"10.9.8.4\",\"upper\":\"10.9.8.254\"}}";

/* An IPv6 packet of guest 0; the checksum is at `sum_at` of the payload. */
static void
send_ip6_from(const uint8_t from[16], const void *mac, const uint8_t to[16], uint8_t next, uint8_t *payload, size_t len,
	size_t sum_at)
{
	uint8_t p[200] = { 0x60 }, tail[8] = { 0, 0, 0, (uint8_t)len, 0, 0, 0, next };
	uint16_t sum;

	p[5] = (uint8_t)len;
	p[6] = next;
	p[7] = 255;
	memcpy(p + 8, from, 16);
	memcpy(p + 24, to, 16);
	sum = net_sum_fold(net_sum(net_sum(net_sum(0, p + 8, 32), tail, 8), payload, len));
	memcpy(payload + sum_at, &sum, 2);
	memcpy(p + 40, payload, len);
	send_from(0, mac, 0x86dd, p, 40 + len);
}

/* From fe80::1 to a multicast group. */
static void
send_ip6(const char *group_mac, const uint8_t group[16], uint8_t next, uint8_t *payload, size_t len, size_t sum_at)
{
	static const uint8_t from[16] = { 0xfe, 0x80, [15] = 1 };

	send_ip6_from(from, group_mac, group, next, payload, len, sum_at);
}

/* Guest 0 asks for routers (RFC 4861, section 4.1) until one answers. The advertisement. */
static const uint8_t *
solicit_router(void)
{
	static const uint8_t routers[16] = { 0xff, 2, [15] = 2 };
	uint8_t solicit[16] = { 133, 0, 0, 0, 0, 0, 0, 0, 1, 1, 8, 0, 0x27, 0, 0, 1 };
	const uint8_t *f = guests[0].last;

	for (int i = 0; i < 20 && f[54] != 134; i++) {
		solicit[2] = solicit[3] = 0;
		send_ip6("\x33\x33\x00\x00\x00\x02", routers, 58, solicit, sizeof(solicit), 2);
		wait_frames(0, guests[0].frames + 1, 100);
	}
	assert_int_equal(f[54], 134);
	assert_int_equal(
		net_sum_fold(net_sum(net_sum(net_sum(0, f + 22, 32), (uint8_t[]){ 0, 0, f[18], f[19], 0, 0, 0, 58 }, 8),
			f + 54, (size_t)(f[18] << 8 | f[19]))),
		0);
	return f;
}

/* Guest 0 sends a DHCPv6 request, UDP header and all, until there is an answer of this type (RFC 8415). The answer. */
static const uint8_t *
ask_dhcp6(uint8_t *request, size_t len, uint8_t type)
{
	static const uint8_t servers[16] = { 0xff, 2, [13] = 1, [15] = 2 };
	const uint8_t *f = guests[0].last;

	for (int i = 0; i < 20 && (f[20] != 17 || f[62] != type); i++) {
		request[6] = request[7] = 0;
		send_ip6("\x33\x33\x00\x01\x00\x02", servers, 17, request, len, 6);
		wait_frames(0, guests[0].frames + 1, 100);
	}
	assert_int_equal(f[62], type);
	return f;
}

static void
over_ipv6_a_router_and_dhcp_for_what_else_is_needed_answer(void **state)
{
	uint8_t request[] = { 2, 34, 2, 35, 0, 32, 0, 0,      /* UDP */
		11, 1, 2, 3,				      /* information request */
		0, 1, 0, 10, 0, 3, 0, 1, 8, 0, 0x27, 0, 0, 1, /* client's identifier */
		0, 6, 0, 2, 0, 23 };			      /* wanted: DNS servers */
	const uint8_t *f;

	start_network(nat6);
	assert_int_equal(plug_in(0, "one", TOKEN, NULL), 0);
	f = solicit_router();
	assert_int_equal(f[59] & 0x40, 0x40);	 /* other configuration: ask DHCP */
	assert_int_equal(f[60] << 8 | f[61], 0); /* no default route: nobody asked for one */
	f = ask_dhcp6(request, sizeof(request), 7);
	assert_memory_equal(f + 63, "\x01\x02\x03", 3);
	assert_non_null(memmem(f + 66, guests[0].len - 66, "\x00\x17\x00\x10\xfd\x17", 6));
}

static void
an_internal_network_with_a_prefix_advertises_it_and_gives_addresses_of_it(void **state)
{
	uint8_t request[] = { 2, 34, 2, 35, 0, 42, 0, 0,      /* UDP */
		1, 1, 2, 3,				      /* solicit */
		0, 1, 0, 10, 0, 3, 0, 1, 8, 0, 0x27, 0, 0, 1, /* client's identifier */
		0, 3, 0, 12, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0, 0 };
	const uint8_t *f;

	start_network(lab6);
	assert_int_equal(plug_in(0, "one", TOKEN, NULL), 0);
	f = solicit_router();
	assert_int_equal(f[59], 0xc0);		 /* ask DHCP */
	assert_int_equal(f[60] << 8 | f[61], 0); /* no default route */
	assert_non_null(memmem(f + 54, guests[0].len - 54, "\xfd\x00\x00\x56\0\0\0\0\0\0\0\0\0\0\0\0", 16));
	f = ask_dhcp6(request, sizeof(request), 2);
	assert_int_equal(net_checksum_verify(f, guests[0].len), NET_CSUM_L4);
	assert_non_null(memmem(f + 62, guests[0].len - 62, "\xfd\x00\x00\x56\0\0\0\0\0\xd6\x08\x00\x27\0\0\1", 16));
}

/* Who has `ip`? The MAC address of the one that answers; nobody else does. */
static const uint8_t *
neighbour(const uint8_t from[16], const uint8_t ip[16])
{
	static uint8_t mac[6];
	uint8_t group[16] = { 0xff, 2, [11] = 1, 0xff, ip[13], ip[14], ip[15] };
	uint8_t group_mac[6] = { 0x33, 0x33, 0xff, ip[13], ip[14], ip[15] };
	uint8_t solicit[32] = { 135, [24] = 1, 1, 8, 0, 0x27, 0, 0, 1 };
	const uint8_t *f = guests[0].last;
	unsigned seen;

	while (seen = guests[0].frames, wait_frames(0, seen + 1, 100)) /* advertisements that were asked for before */
		;
	memcpy(solicit + 8, ip, 16);
	send_ip6_from(from, group_mac, group, 58, solicit, sizeof(solicit), 2);
	assert_true(wait_frames(0, seen + 1, 2000));
	assert_false(wait_frames(0, seen + 2, 100));
	assert_int_equal(f[54], 136);
	assert_memory_equal(f + 62, ip, 16);
	memcpy(mac, f + 6, 6);
	return mac;
}

/* Guest 0 asks for the IPv6 address of `name`, 7 bytes with their lengths. The answer's length and the message. */
static const uint8_t *
ask_name6(const uint8_t from[16], const uint8_t *server, const char *name, uint16_t type, size_t *len)
{
	uint8_t q[8 + 12 + 9 + 4] = { 0x30, 0x39, 0, 53, 0, sizeof(q), 0, 0, 0xab, 0xcd, 1, 0, 0, 1 };
	const uint8_t *mac = neighbour(from, server), *f = guests[0].last;
	unsigned seen = guests[0].frames;

	memcpy(q + 20, name, 9);
	q[30] = (uint8_t)type;
	q[32] = 1;
	send_ip6_from(from, mac, server, 17, q, sizeof(q), 6);
	assert_true(wait_frames(0, seen + 1, 2000));
	assert_int_equal(net_checksum_verify(f, guests[0].len), NET_CSUM_L4);
	assert_memory_equal(f + 22, server, 16);
	assert_memory_equal(f + 54, "\0\x35\x30\x39", 4);
	assert_memory_equal(f + 62, "\xab\xcd", 2);
	*len = guests[0].len - 62;
	return f + 62;
}

static void
names_are_answered_over_ipv6(const char *config, const uint8_t ours[16], const uint8_t server[16])
{
	static const uint8_t nobody[16];
	const uint8_t *answer;
	uint8_t option[24] = { 25, 3, 0, 0, 0, 0, 7, 8 };
	uint8_t dad[24] = { 135 }, group[16] = { 0xff, 2, [11] = 1, 0xff, ours[13], ours[14], ours[15] };
	size_t len;

	start_network(config);
	assert_int_equal(plug_in(0, "one", TOKEN, NULL), 0);
	memcpy(option + 8, server, 16);
	answer = solicit_router();
	assert_non_null(memmem(answer + 70, guests[0].len - 70, option, sizeof(option)));
	answer = ask_name6(ours, server, "\3vm2\3lab", 28, &len);
	assert_int_equal(answer[3] & 15, 3); /* there is none */
	/* it has an address, and tells by looking whether somebody else has it */
	memcpy(dad + 8, ours, 16);
	send_ip6_from(nobody, "\x33\x33\xff\0\0\x9", group, 58, dad, sizeof(dad), 2);
	answer = ask_name6(ours, server, "\3vm1\3lab", 28, &len);
	assert_int_equal(answer[3] & 15, 0);
	assert_int_equal(answer[7], 1);
	assert_non_null(memmem(answer, len, ours, 16));
	answer = ask_name6(ours, server, "\3vm1\3lab", 1, &len);
	assert_int_equal(answer[7], 0); /* and none of IPv4, but the name is there */
	assert_int_equal(answer[3] & 15, 0);
}

static void
on_a_nat_network_names_are_answered_over_ipv6(void **state)
{
	static const uint8_t ours[16] = { 0xfd, 0x17, 0x62, 0x5c, 0xf0, 0x37, 0, 2, [15] = 9 },
			     server[16] = { 0xfd, 0x17, 0x62, 0x5c, 0xf0, 0x37, 0, 2, [15] = 3 };

	names_are_answered_over_ipv6(nat6, ours, server);
}

static void
on_an_internal_network_names_are_answered_over_ipv6(void **state)
{
	static const uint8_t ours[16] = { 0xfd, 0, 0, 0x56, [15] = 9 },
			     server[16] = { 0xfd, 0, 0, 0x56, 0, 0, 0, 0, 0, 0xd6, 8, 0, 0x27, 3, 8, 3 };

	names_are_answered_over_ipv6(lab6, ours, server);
}

static void
a_limit_holds(void **state)
{
	uint8_t payload[1400] = { 0 };
	uint64_t began, took;
	size_t bytes;

	start_network(intnet);
	write_port("one", 1, ",\"rate\":1000000");
	assert_int_equal(plug_in(0, "one", TOKEN, NULL), 0);
	assert_int_equal(plug_in(1, "two", TOKEN, NULL), 0);
	began = loop_now();
	while (loop_now() - began < 1000000000u) {
		send_from(0, "\x08\x00\x27\x00\x00\x02", 0x88b5, payload, sizeof(payload));
		usleep(100);
	}
	took = loop_now() - began;
	pthread_mutex_lock(&lock);
	bytes = guests[1].frames * 1414u;
	pthread_mutex_unlock(&lock);
	print_message("%zu bytes in %d ms\n", bytes, (int)(took / 1000000));
	assert_in_range(bytes, 800000, 1000000 + 110000 + 30000);
}

static void
an_adapter_without_room_gets_its_frames_later(void **state)
{
	uint8_t payload[1400] = { 0 };

	start_network(intnet);
	assert_int_equal(plug_in(0, "one", TOKEN, NULL), 0);
	assert_int_equal(plug_in(1, "two", TOKEN, NULL), 0);
	guests[1].full = true;
	for (int i = 0; i < 150; i++)
		send_from(0, "\x08\x00\x27\x00\x00\x02", 0x88b5, payload, sizeof(payload));
	usleep(100000);
	assert_int_equal(guests[1].frames, 0);
	pthread_mutex_lock(&lock);
	guests[1].full = false;
	net_adapter_ready(&guests[1].link);
	pthread_mutex_unlock(&lock);
	assert_true(wait_frames(1, 150, 2000));
}

static _Atomic unsigned woken;

static void
send_ready(void *opaque)
{
	woken++;
}

static void
an_adapter_that_asks_before_it_sends_loses_nothing(void **state)
{
	uint8_t f[1514] = { 8, 0, 0x27, 0, 0, 2, 8, 0, 0x27, 0, 0, 1, 0x88, 0xb5 };
	unsigned sent = 0, waits = 0;

	start_network(intnet);
	write_port("one", 1, ",\"rate\":2000000"); /* so that the ring to the switch is full for most of the time */
	assert_int_equal(plug_in(0, "one", TOKEN, NULL), 0);
	assert_int_equal(plug_in(1, "two", TOKEN, NULL), 0);
	guests[0].link.adapter.send_ready = send_ready;
	woken = 0;
	while (sent < 1500) {
		bool room;

		pthread_mutex_lock(&lock);
		room = net_can_send(&guests[0].link);
		if (room) {
			net_send(&guests[0].link, f, sizeof(f));
			sent++;
		}
		pthread_mutex_unlock(&lock);
		if (room)
			continue;
		waits++;
		for (unsigned i = 0; i < 2000 && woken < waits; i++)
			usleep(1000);
		assert_int_equal(woken, waits);
	}
	assert_true(waits > 0);
	/* The receiver's ring may be full now and then, and nobody waits for long. */
	wait_frames(1, sent, 2000);
	assert_true(guests[1].frames > sent / 10 * 9);
	assert_int_equal(guests[0].link.stats.tx_frames, sent);
	assert_int_equal(guests[0].link.stats.dropped, 0);
}

/* Send frame after frame as an adapter does that can wait, each to to[i % 2]. `blocked` is called when it has to. */
static void
send_patiently(unsigned count, const uint8_t to[2], void (*blocked)(void))
{
	uint8_t f[1514] = { 8, 0, 0x27, 0, 0, 0, 8, 0, 0x27, 0, 0, 1, 0x88, 0xb5 };

	guests[0].link.adapter.send_ready = send_ready;
	for (unsigned sent = 0; sent < count;) {
		unsigned before = woken;
		bool room;

		pthread_mutex_lock(&lock);
		room = net_can_send(&guests[0].link);
		f[5] = to[sent % 2];
		if (room) {
			net_send(&guests[0].link, f, sizeof(f));
			sent++;
		}
		pthread_mutex_unlock(&lock);
		if (room)
			continue;
		blocked();
		for (unsigned i = 0; i < 2000 && woken == before; i++)
			usleep(1000);
		assert_true(woken != before);
	}
}

static unsigned blocked_times;

static void
take_some(void)
{
	blocked_times++;
	usleep(4000); /* the switch would have thrown away what there is by now */
	pthread_mutex_lock(&lock);
	guests[1].full = false;
	guests[1].quota = 200;
	net_adapter_ready(&guests[1].link);
	pthread_mutex_unlock(&lock);
}

/* Of 20,000 frames, those that arrive. */
static unsigned
to_a_slow_receiver(void)
{
	unsigned before = guests[1].frames;

	guests[1].full = true;
	send_patiently(20000, (uint8_t[]){ 2, 2 }, take_some);
	pthread_mutex_lock(&lock);
	guests[1].quota = guests[1].full = 0;
	net_adapter_ready(&guests[1].link);
	pthread_mutex_unlock(&lock);
	wait_frames(1, before + 20000, 500);
	return guests[1].frames - before;
}

static void
a_sender_waits_for_a_receiver_that_is_slow(void **state)
{
	unsigned got = 0;

	start_network(intnet);
	assert_int_equal(plug_in(0, "one", TOKEN, NULL), 0);
	assert_int_equal(plug_in(1, "two", TOKEN, NULL), 0);
	blocked_times = 0;
	/* Not all where somebody else keeps the processor for longer than the switch waits. */
	for (int i = 0; i < 8 && got < 18000; i++)
		got = to_a_slow_receiver();
	assert_true(got >= 18000);
	assert_true(blocked_times > 3);
}

static void
nothing(void)
{
}

static void
a_receiver_that_stands_still_does_not_hold_up_others(void **state)
{
	uint64_t began;

	start_network(intnet);
	for (int i = 0; i < 3; i++)
		assert_int_equal(plug_in(i, (const char *[]){ "one", "two", "three" }[i], TOKEN, NULL), 0);
	guests[1].full = true;
	began = loop_now();
	send_patiently(20000, (uint8_t[]){ 2, 3 }, nothing);
	assert_true(wait_frames(2, 9500, 2000));
	assert_true(loop_now() - began < 4000000000u);
}

/* ---- large frames ---- */

static bool
receive_large(void *opaque, const uint8_t *frame, size_t len, unsigned mss)
{
	struct guest *g = opaque;

	g->mss = mss;
	return receive(opaque, frame, len);
}

static bool
takes_large(void *opaque)
{
	return true;
}

/* From guest 0 to guest `to`: IPv4 and TCP with `payload` bytes, to be cut at `mss`, of which the header says `said`. */
static void
send_large(int to, unsigned payload, unsigned said, unsigned mss)
{
	static uint8_t f[NET_FRAME_MAX];
	uint16_t sum;

	memset(f, 0, 54);
	memcpy(f, guests[to].link.mac, 6);
	memcpy(f + 6, guests[0].link.mac, 6);
	f[12] = 8;
	memcpy(f + 14, (uint8_t[]){ 0x45, 0, (uint8_t)((40 + said) >> 8), (uint8_t)(40 + said), 0, 1, 0, 0, 64, 6 },
		10);
	memcpy(f + 26, "\x0a\x00\x00\x01\x0a\x00\x00\x02", 8);
	sum = net_sum_fold(net_sum(0, f + 14, 20));
	memcpy(f + 24, &sum, 2);
	f[46] = 0x50;
	f[47] = 0x18;
	f[50] = f[51] = 0xaa; /* means nothing */
	for (unsigned i = 0; i < payload; i++)
		f[54 + i] = (uint8_t)(i / 1000);
	pthread_mutex_lock(&lock);
	assert_true(net_takes_large(&guests[0].link));
	net_send_large(&guests[0].link, f, 54 + payload, mss);
	pthread_mutex_unlock(&lock);
}

static void
segments_stay_joined_for_who_takes_them_and_are_cut_for_who_does_not(void **state)
{
	start_network(intnet);
	assert_int_equal(plug_in(0, "one", TOKEN, NULL), 0);
	assert_int_equal(plug_in(1, "two", TOKEN, NULL), 0);
	assert_int_equal(plug_in(2, "three", TOKEN, NULL), 0);
	guests[1].link.adapter.takes_large = takes_large;
	guests[1].link.adapter.receive_large = receive_large;
	send_from(0, guests[1].link.mac, 0x88b5, "hello", 5); /* from then on the switch knows */
	assert_true(wait_frames(1, 1, 2000));
	send_large(1, 60000, 60000, 1000);
	assert_true(wait_frames(1, 2, 2000));
	assert_int_equal(guests[1].len, 60054);
	assert_int_equal(guests[1].mss, 1000);
	assert_int_equal(guests[1].last[60053], 59);
	send_large(2, 8500, 8500, 1000);
	assert_true(wait_frames(2, 9, 2000));
	assert_int_equal(guests[2].len, 554);
	assert_int_equal(guests[2].last[54], 8);
	assert_int_equal(net_checksum_verify(guests[2].last, 554), NET_CSUM_IP | NET_CSUM_L4);
	assert_int_equal(guests[2].frames, 9);
}

static void
large_frames_that_are_not_what_they_say_go_nowhere(void **state)
{
	start_network(intnet);
	assert_int_equal(plug_in(0, "one", TOKEN, NULL), 0);
	assert_int_equal(plug_in(2, "three", TOKEN, NULL), 0);
	send_large(2, 3000, 2000, 1000);
	send_large(2, 3000, 60000, 1000);
	send_large(2, 3000, 3000, 1); /* three thousand frames */
	send_large(2, 0, 0, 1000);
	send_from(0, guests[2].link.mac, 0x88b5, "hello", 5);
	assert_true(wait_frames(2, 1, 2000));
	usleep(20000);
	assert_int_equal(guests[2].frames, 1);
	assert_memory_equal(guests[2].last + 14, "hello", 5);
}

int
main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	static const struct CMUnitTest tests[] = {
		T(machines_that_are_plugged_in_reach_each_other),
		T(a_wrong_token_or_an_unknown_port_is_refused),
		T(after_a_kill_the_switch_is_back_and_links_recover_within_two_seconds),
		T(a_second_keeper_finds_the_first_and_leaves_it_alone),
		T(a_network_that_nobody_uses_ends),
		T(a_network_whose_folder_is_removed_ends),
		T(a_configuration_that_makes_no_sense_is_told_when_it_starts),
		T(dhcp_gives_leases_that_survive_a_kill),
		T(the_gateway_and_the_station_answer_arp),
		T(over_ipv6_a_router_and_dhcp_for_what_else_is_needed_answer),
		T(an_internal_network_with_a_prefix_advertises_it_and_gives_addresses_of_it),
		T(on_a_nat_network_names_are_answered_over_ipv6),
		T(on_an_internal_network_names_are_answered_over_ipv6),
		T(a_limit_holds),
		T(an_adapter_without_room_gets_its_frames_later),
		T(an_adapter_that_asks_before_it_sends_loses_nothing),
		T(a_sender_waits_for_a_receiver_that_is_slow),
		T(a_receiver_that_stands_still_does_not_hold_up_others),
		T(segments_stay_joined_for_who_takes_them_and_are_cut_for_who_does_not),
		T(large_frames_that_are_not_what_they_say_go_nowhere),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
