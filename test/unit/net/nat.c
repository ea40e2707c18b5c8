/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The NAT, seen from a guest: a few hundred lines that speak ARP, DHCP and just enough TCP, plugged into a link. Real
 * sockets on the host's loopback are the other side.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/str.h"
#include "net/net.h"

static const uint8_t guest_mac[6] = { 0x08, 0, 0x27, 0xaa, 0xbb, 0xcc };

enum { FIN = 1, SYN = 2, RST = 4, PSH = 8, ACK = 16 };

struct tcp {
	bool open, reset, closed;
	uint32_t seq, ack;
	uint8_t peer_ip[4];
	uint16_t port, peer_port;
	uint8_t peer_mac[6];
	char got[64];
	size_t got_len;
};

struct guest {
	pthread_mutex_t lock;
	struct loop *loop;
	struct net_link link;
	pthread_t thread;
	pthread_cond_t changed;
	bool large; /* takes segments that are joined */
	size_t longest, udp_got, tcp_got;
	uint8_t in[64][25000]; /* frames that came, looked at from the loop, not from within libslirp */
	size_t in_len[64];
	unsigned in_head, in_tail;
	uint8_t ip[4], router[4], dns[4];
	char hostname[64];
	uint8_t gateway_mac[6];
	struct tcp tcp;
	bool serve; /* accept connections, answer in capitals */
	/* host side */
	int host_fd;
	struct loop_watch *host_watch;
	char host_got[64];
	size_t host_got_len;
	bool host_closed;
};

static void
put16(uint8_t *p, unsigned v)
{
	p[0] = (uint8_t)(v >> 8);
	p[1] = (uint8_t)v;
}

static unsigned
get16(const uint8_t *p)
{
	return (unsigned)p[0] << 8 | p[1];
}

static void
put32(uint8_t *p, uint32_t v)
{
	put16(p, v >> 16);
	put16(p + 2, v & 0xffff);
}

static uint32_t
get32(const uint8_t *p)
{
	return (uint32_t)get16(p) << 16 | get16(p + 2);
}

/* ---- what the guest sends ---- */

/* Fill in Ethernet and IPv4 in front of `l4_len` bytes at f + 34, and send. `sum_at`: checksum field within them. */
static void
send_ip(struct guest *g, uint8_t *f, const uint8_t *dst_mac, const uint8_t *dst_ip, uint8_t proto, size_t l4_len,
	size_t sum_at)
{
	uint8_t pseudo[12] = { 0 };
	uint16_t sum;

	memcpy(f, dst_mac, 6);
	memcpy(f + 6, guest_mac, 6);
	put16(f + 12, 0x0800);
	memset(f + 14, 0, 20);
	f[14] = 0x45;
	put16(f + 16, (unsigned)(20 + l4_len));
	f[22] = 64;
	f[23] = proto;
	memcpy(f + 26, g->ip, 4);
	memcpy(f + 30, dst_ip, 4);
	sum = net_sum_fold(net_sum(0, f + 14, 20));
	memcpy(f + 24, &sum, 2);
	memcpy(pseudo, f + 26, 8);
	pseudo[9] = proto;
	put16(pseudo + 10, (unsigned)l4_len);
	put16(f + 34 + sum_at, 0);
	sum = net_sum_fold(net_sum(net_sum(0, pseudo, 12), f + 34, l4_len));
	memcpy(f + 34 + sum_at, &sum, 2);
	net_send(&g->link, f, 34 + l4_len);
}

static void
send_tcp(struct guest *g, uint8_t flags, const char *data, size_t n)
{
	uint8_t f[32768] = { 0 };
	struct tcp *t = &g->tcp;

	put16(f + 34, t->port);
	put16(f + 36, t->peer_port);
	put32(f + 38, t->seq);
	put32(f + 42, flags & ACK ? t->ack : 0);
	f[46] = 5 << 4;
	f[47] = flags;
	put16(f + 48, 60000);
	if (flags & SYN) {
		f[46] = 6 << 4;
		memcpy(f + 54, "\x02\x04\x05\xb4", 4); /* MSS 1460 */
	}
	memcpy(f + 34 + (f[46] >> 4) * 4, data, n);
	send_ip(g, f, t->peer_mac, t->peer_ip, 6, (f[46] >> 4) * 4u + n, 16);
	t->seq += (uint32_t)n + !!(flags & (SYN | FIN));
}

static void
send_dhcp(struct guest *g, uint8_t type, const uint8_t *want)
{
	static const uint8_t all[6] = { 255, 255, 255, 255, 255, 255 }, zero[4];
	uint8_t f[400] = { 0 }, *b = f + 42, *o = b + 240;

	put16(f + 34, 68);
	put16(f + 36, 67);
	b[0] = 1;
	b[1] = 1;
	b[2] = 6;
	put32(b + 4, 0x1234);
	memcpy(b + 28, guest_mac, 6);
	put32(b + 236, 0x63825363);
	memcpy(o, (uint8_t[]){ 53, 1, type }, 3);
	o += 3;
	if (want) {
		*o++ = 50;
		*o++ = 4;
		memcpy(o, want, 4);
		o += 4;
	}
	*o++ = 255;
	memcpy(g->ip, zero, 4);
	put16(f + 38, (unsigned)(o - (f + 34)));
	send_ip(g, f, all, all, 17, (size_t)(o - (f + 34)), 6);
}

/* ---- what the guest receives ---- */

static void
got_arp(struct guest *g, const uint8_t *f)
{
	uint8_t r[42];

	if (get16(f + 20) == 2)
		memcpy(g->gateway_mac, f + 22, 6);
	if (get16(f + 20) != 1 || memcmp(f + 38, g->ip, 4) != 0)
		return;
	memcpy(r, f + 6, 6);
	memcpy(r + 6, guest_mac, 6);
	memcpy(r + 12, f + 12, 10);
	put16(r + 20, 2);
	memcpy(r + 22, guest_mac, 6);
	memcpy(r + 28, g->ip, 4);
	memcpy(r + 32, f + 22, 10);
	net_send(&g->link, r, sizeof(r));
}

static void
got_dhcp(struct guest *g, const uint8_t *f, size_t len)
{
	const uint8_t *b = f + 42, *end = f + len;
	uint8_t type = 0;

	for (const uint8_t *o = b + 240; o + 2 < end && *o != 255; o += 2 + o[1]) {
		if (*o == 53)
			type = o[2];
		if (*o == 3)
			memcpy(g->router, o + 2, 4);
		if (*o == 6)
			memcpy(g->dns, o + 2, 4);
		if (*o == 12)
			snprintf(g->hostname, sizeof(g->hostname), "%.*s", o[1], (const char *)o + 2);
	}
	if (type == 2)
		send_dhcp(g, 3, b + 16);
	if (type == 5)
		memcpy(g->ip, b + 16, 4);
}

static void
got_tcp_data(struct guest *g, const uint8_t *data, size_t n)
{
	struct tcp *t = &g->tcp;
	char out[64] = "";

	g->tcp_got += n;
	for (size_t i = 0; i < n && t->got_len < sizeof(t->got) - 1; i++) {
		t->got[t->got_len++] = (char)data[i];
		out[i] = (char)(data[i] >= 'a' && data[i] <= 'z' ? data[i] - 32 : data[i]);
	}
	if (g->serve)
		send_tcp(g, ACK | PSH, out, MIN(n, sizeof(out)));
	else
		send_tcp(g, ACK, "", 0);
}

static void
got_tcp(struct guest *g, const uint8_t *f, size_t len)
{
	struct tcp *t = &g->tcp;
	uint8_t flags = f[47];
	size_t head = 34 + (f[46] >> 4) * 4u, end = MIN(len, 14 + get16(f + 16));
	size_t n = end > head ? end - head : 0;

	assert_int_equal(net_checksum_verify(f, len), NET_CSUM_IP | NET_CSUM_L4);
	if (flags & RST) {
		t->reset = true;
		return;
	}
	if ((flags & SYN) && !(flags & ACK)) {
		if (!g->serve)
			return;
		*t = (struct tcp){
			.open = true, .seq = 5000, .ack = get32(f + 38) + 1, .port = (uint16_t)get16(f + 36)
		};
		t->peer_port = (uint16_t)get16(f + 34);
		memcpy(t->peer_ip, f + 26, 4);
		memcpy(t->peer_mac, f + 6, 6);
		send_tcp(g, SYN | ACK, "", 0);
		return;
	}
	if (flags & SYN) {
		t->open = true;
		t->ack = get32(f + 38) + 1;
		send_tcp(g, ACK, "", 0);
		send_tcp(g, ACK | PSH, "from guest", 10);
		return;
	}
	if (get32(f + 38) != t->ack)
		return; /* a retransmission */
	t->ack += (uint32_t)n + !!(flags & FIN);
	if (n)
		got_tcp_data(g, f + head, n);
	if (flags & FIN) {
		t->closed = true;
		send_tcp(g, ACK | FIN, "", 0);
	}
}

/* What came is answered in capitals. */
static void
got_udp(struct guest *g, const uint8_t *f, size_t len)
{
	size_t n = MIN(get16(f + 38), len - 34) - 8;
	uint8_t r[256] = { 0 };

	g->udp_got += len - 34;
	if (!g->serve || n > sizeof(r) - 42)
		return;
	memcpy(r + 34, f + 36, 2);
	memcpy(r + 36, f + 34, 2);
	put16(r + 38, (unsigned)(8 + n));
	for (size_t i = 0; i < n; i++)
		r[42 + i] = (uint8_t)toupper(f[42 + i]);
	send_ip(g, r, f + 6, f + 26, 17, 8 + n, 6);
}

static void
look_at_frames(void *opaque)
{
	struct guest *g = opaque;

	while (g->in_head != g->in_tail) {
		const uint8_t *f = g->in[g->in_head % 64];
		size_t len = g->in_len[g->in_head++ % 64];

		if (get16(f + 12) == 0x0806)
			got_arp(g, f);
		else if (f[23] == 17 && get16(f + 36) == 68)
			got_dhcp(g, f, len);
		else if (f[23] == 17)
			got_udp(g, f, len);
		else if (f[23] == 6)
			got_tcp(g, f, len);
		else if (f[23] == 1 && f[34] == 3) /* ICMP: unreachable */
			g->tcp.reset = true;
	}
	pthread_cond_broadcast(&g->changed);
}

static bool
guest_receive(void *opaque, const uint8_t *frame, size_t len)
{
	struct guest *g = opaque;

	g->longest = MAX(g->longest, len);
	if (len > sizeof(g->in[0]) || g->in_tail - g->in_head == 64)
		return true;
	memcpy(g->in[g->in_tail % 64], frame, len);
	g->in_len[g->in_tail++ % 64] = len;
	loop_post(g->loop, look_at_frames, g);
	return true;
}

/* ---- running: the loop has a thread of its own, tests hold the lock except while they wait ---- */

static void
host_ready(void *opaque, int ready)
{
	struct guest *g = opaque;
	ssize_t n = recv(g->host_fd, g->host_got + g->host_got_len, sizeof(g->host_got) - 1 - g->host_got_len, 0);

	if (n > 0)
		g->host_got_len += (size_t)n;
	else if (n == 0 || errno != EAGAIN) {
		g->host_closed = true;
		loop_watch_set(g->host_watch, 0);
	}
	pthread_cond_broadcast(&g->changed);
}

static void *
run(void *opaque)
{
	loop_run(((struct guest *)opaque)->loop);
	return NULL;
}

static void
wait_until(struct guest *g, bool (*until)(struct guest *g))
{
	struct timespec end;

	clock_gettime(CLOCK_REALTIME, &end);
	end.tv_sec += 5;
	while (!until(g))
		assert_int_equal(pthread_cond_timedwait(&g->changed, &g->lock, &end), 0);
}

static bool
has_address(struct guest *g)
{
	return g->ip[0] != 0;
}

static bool
got_reply(struct guest *g)
{
	return g->host_got_len >= 5;
}

static bool
guest_got_data(struct guest *g)
{
	return g->tcp.got_len >= 9;
}

static bool
guest_was_refused(struct guest *g)
{
	return g->tcp.reset;
}

static bool
takes_large(void *opaque)
{
	return ((struct guest *)opaque)->large;
}

static struct guest *
guest_open(const struct nat_options *o)
{
	struct guest *g = xcalloc(1, sizeof(*g));
	struct err e = { 0 };

	pthread_mutex_init(&g->lock, NULL);
	pthread_cond_init(&g->changed, NULL);
	g->loop = loop_open(&g->lock);
	g->host_fd = -1;
	net_link_init(&g->link, guest_mac);
	g->link.adapter = (struct net_adapter){ .opaque = g, .receive = guest_receive, .takes_large = takes_large };
	if (nat_open(&g->link, g->loop, o, &e))
		fail_msg("%s", e.text);
	pthread_create(&g->thread, NULL, run, g);
	pthread_mutex_lock(&g->lock);
	return g;
}

static void
guest_close(struct guest *g)
{
	loop_stop(g->loop);
	pthread_mutex_unlock(&g->lock);
	pthread_join(g->thread, NULL);
	loop_watch_remove(g->host_watch);
	if (g->host_fd >= 0)
		close(g->host_fd);
	net_link_close(&g->link);
	loop_close(g->loop);
	pthread_cond_destroy(&g->changed);
	pthread_mutex_destroy(&g->lock);
	free(g);
}

static void
guest_gets_address(struct guest *g)
{
	send_dhcp(g, 1, NULL);
	wait_until(g, has_address);
}

/* A listening socket on a free port of the host's loopback. */
static int
listen_somewhere(int type, uint16_t *port)
{
	struct sockaddr_in sin = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t len = sizeof(sin);
	int fd = socket(AF_INET, type | SOCK_CLOEXEC, 0);

	assert_true(fd >= 0);
	assert_int_equal(bind(fd, (struct sockaddr *)&sin, sizeof(sin)), 0);
	if (type == SOCK_STREAM)
		assert_int_equal(listen(fd, 4), 0);
	getsockname(fd, (struct sockaddr *)&sin, &len);
	*port = ntohs(sin.sin_port);
	return fd;
}

static uint16_t
free_port(int type)
{
	uint16_t port;

	close(listen_somewhere(type, &port));
	return port;
}

static int
connect_to(int type, uint16_t port)
{
	struct sockaddr_in sin = {
		.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)
	};
	int fd = socket(AF_INET, type | SOCK_CLOEXEC, 0);

	if (connect(fd, (struct sockaddr *)&sin, sizeof(sin))) {
		close(fd);
		return -1;
	}
	return fd;
}

static void
host_use(struct guest *g, int fd)
{
	g->host_fd = fd;
	fcntl(fd, F_SETFL, O_NONBLOCK);
	g->host_watch = loop_watch_add(g->loop, fd, LOOP_IN, host_ready, g);
}

/* ---- the tests ---- */

static void
dhcp_gives_the_layout_of_virtualbox(void **state)
{
	struct guest *g = guest_open(&(struct nat_options){ .hostname = "web1" });

	guest_gets_address(g);
	assert_memory_equal(g->ip, "\x0a\x00\x02\x0f", 4);
	assert_memory_equal(g->router, "\x0a\x00\x02\x02", 4);
	assert_memory_equal(g->dns, "\x0a\x00\x02\x03", 4);
	assert_string_equal(g->hostname, "web1");
	guest_close(g);
	g = guest_open(&(struct nat_options){ .adapter = 2 });
	guest_gets_address(g);
	assert_memory_equal(g->ip, "\x0a\x00\x04\x0f", 4);
	guest_close(g);
	g = guest_open(&(struct nat_options){ .network = "192.168.77.0/24" });
	guest_gets_address(g);
	assert_memory_equal(g->ip, "\xc0\xa8\x4d\x0f", 4);
	guest_close(g);
}

/* A host program connects through a rule, the guest answers, the host closes. */
static void
talk_through(struct guest *g, uint16_t port)
{
	int fd = connect_to(SOCK_STREAM, port);

	assert_true(fd >= 0);
	host_use(g, fd);
	assert_int_equal(send(fd, "hello", 5, 0), 5);
	wait_until(g, got_reply);
	assert_string_equal(g->host_got, "HELLO");
	assert_string_equal(g->tcp.got, "hello");
}

static void
a_rule_leads_from_a_host_port_to_the_guest(void **state)
{
	struct nat_options o = { .rule_count = 1 };
	struct guest *g;

	o.rules[0] = (struct nat_rule){
		.name = "web", .host_ip = "127.0.0.1", .host_port = free_port(SOCK_STREAM), .guest_port = 80
	};
	g = guest_open(&o);
	g->serve = true;
	guest_gets_address(g);
	talk_through(g, o.rules[0].host_port);
	assert_int_equal(g->tcp.port, 80);
	guest_close(g);
}

static void
a_rule_for_datagrams_leads_to_the_guest_and_back(void **state)
{
	struct nat_options o = { .rule_count = 1, .localhost_reachable = true };
	struct guest *g;
	int fd;

	o.rules[0] = (struct nat_rule){
		.name = "dns", .udp = true, .host_ip = "127.0.0.1", .host_port = free_port(SOCK_DGRAM), .guest_port = 53
	};
	g = guest_open(&o);
	g->serve = true;
	guest_gets_address(g);
	fd = connect_to(SOCK_DGRAM, o.rules[0].host_port);
	assert_true(fd >= 0);
	host_use(g, fd);
	assert_int_equal(send(fd, "hello", 5, 0), 5);
	wait_until(g, got_reply);
	assert_string_equal(g->host_got, "HELLO");
	guest_close(g);
}

static void
rules_come_and_go_on_a_running_machine(void **state)
{
	struct guest *g = guest_open(&(struct nat_options){ 0 });
	struct nat_rule r = { .name = "ssh", .host_ip = "127.0.0.1", .guest_ip = "10.0.2.15", .guest_port = 22 };
	struct err e;

	g->serve = true;
	guest_gets_address(g);
	r.host_port = free_port(SOCK_STREAM);
	assert_int_equal(nat_rule_add(&g->link, &r, &e), 0);
	assert_int_equal(nat_rule_add(&g->link, &r, &e), -1);
	assert_non_null(strstr(e.text, "ssh"));
	talk_through(g, r.host_port);
	assert_int_equal(nat_rule_remove(&g->link, "ssh", &e), 0);
	assert_int_equal(connect_to(SOCK_STREAM, r.host_port), -1);
	assert_int_equal(nat_rule_remove(&g->link, "ssh", &e), -1);
	assert_int_equal(e.code, ERR_NOT_FOUND);
	guest_close(g);
}

static void
a_taken_port_is_an_error_that_names_rule_address_and_port(void **state)
{
	for (int udp = 0; udp < 2; udp++) {
		struct nat_options o = { .rule_count = 1 };
		uint16_t port;
		int fd = listen_somewhere(udp ? SOCK_DGRAM : SOCK_STREAM, &port);
		pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
		struct loop *loop = loop_open(&lock);
		struct net_link link;
		struct err e = { 0 };
		char number[8];

		net_link_init(&link, guest_mac);
		o.rules[0] = (struct nat_rule){
			.name = "busy", .udp = udp, .host_ip = "127.0.0.1", .host_port = port, .guest_port = 80
		};
		assert_int_equal(nat_open(&link, loop, &o, &e), -1);
		assert_int_equal(e.code, ERR_IN_USE);
		snprintf(number, sizeof(number), "%u", port);
		assert_non_null(strstr(e.text, "'busy'"));
		assert_non_null(strstr(e.text, "127.0.0.1"));
		assert_non_null(strstr(e.text, number));
		assert_false(net_link_up(&link));
		net_link_close(&link);
		loop_close(loop);
		close(fd);
	}
}

/* The guest connects to a server on the host's loopback, at its router's address. */
static void
guest_connects(struct guest *g, uint16_t port)
{
	g->tcp = (struct tcp){ .seq = 9000, .port = 40000, .peer_port = port };
	memcpy(g->tcp.peer_ip, g->router, 4);
	memcpy(g->tcp.peer_mac, "\x52\x55\x0a\x00\x02\x02", 6);
	send_tcp(g, SYN, "", 0);
}

static void
the_guest_reaches_the_hosts_loopback_where_that_is_allowed(void **state)
{
	struct guest *g = guest_open(&(struct nat_options){ .localhost_reachable = true });
	uint16_t port;
	int server = listen_somewhere(SOCK_STREAM, &port), fd;
	char buf[16] = "";

	guest_gets_address(g);
	guest_connects(g, port);
	pthread_mutex_unlock(&g->lock);
	fd = accept(server, NULL, NULL);
	assert_true(fd >= 0);
	assert_int_equal(recv(fd, buf, 10, MSG_WAITALL), 10);
	assert_string_equal(buf, "from guest");
	assert_int_equal(send(fd, "from host", 9, 0), 9);
	pthread_mutex_lock(&g->lock);
	wait_until(g, guest_got_data);
	assert_string_equal(g->tcp.got, "from host");
	close(fd);
	close(server);
	guest_close(g);
}

/* What an adapter with segmentation offload hands to a network that takes it (net_backend_class.takes_tso). */
static void
a_packet_far_above_the_mtu_arrives_whole(void **state)
{
	struct guest *g = guest_open(&(struct nat_options){ .localhost_reachable = true });
	static char big[30000], buf[30000];
	uint16_t port;
	int server = listen_somewhere(SOCK_STREAM, &port), fd;

	for (size_t i = 0; i < sizeof(big); i++)
		big[i] = (char)(i * 7 >> 3);
	guest_gets_address(g);
	guest_connects(g, port);
	pthread_mutex_unlock(&g->lock);
	fd = accept(server, NULL, NULL);
	assert_true(fd >= 0);
	assert_int_equal(recv(fd, buf, 10, MSG_WAITALL), 10);
	pthread_mutex_lock(&g->lock);
	assert_true(g->link.class->takes_tso);
	send_tcp(g, ACK | PSH, big, sizeof(big));
	pthread_mutex_unlock(&g->lock);
	assert_int_equal(recv(fd, buf, sizeof(buf), MSG_WAITALL), sizeof(buf));
	pthread_mutex_lock(&g->lock);
	assert_memory_equal(buf, big, sizeof(buf));
	close(fd);
	close(server);
	guest_close(g);
}

static bool
got_once(struct guest *g)
{
	return g->tcp_got >= 60000;
}

static bool
got_twice(struct guest *g)
{
	return g->tcp_got >= 120000;
}

static void
send_all(struct guest *g, int fd)
{
	static const char big[60000];

	g->longest = 0;
	pthread_mutex_unlock(&g->lock);
	assert_int_equal(send(fd, big, sizeof(big), 0), sizeof(big));
	pthread_mutex_lock(&g->lock);
}

static void
segments_come_joined_while_the_adapter_takes_them_so(void **state)
{
	struct guest *g = guest_open(&(struct nat_options){ .localhost_reachable = true });
	char buf[16];
	uint16_t port;
	int server = listen_somewhere(SOCK_STREAM, &port), fd;

	g->large = true;
	guest_gets_address(g);
	guest_connects(g, port);
	pthread_mutex_unlock(&g->lock);
	fd = accept(server, NULL, NULL);
	assert_int_equal(recv(fd, buf, 10, MSG_WAITALL), 10);
	pthread_mutex_lock(&g->lock);
	send_all(g, fd);
	wait_until(g, got_once);
	assert_in_range(g->longest, 20000, 54 + 16 * 1460);
	g->large = false; /* another driver, say */
	send_all(g, fd);
	wait_until(g, got_twice);
	assert_in_range(g->longest, 1000, 1514);
	close(fd);
	close(server);
	guest_close(g);
}

static bool
got_datagram(struct guest *g)
{
	return g->udp_got >= 4000 + 8;
}

static void
a_datagram_above_the_mtu_comes_in_fragments(void **state)
{
	struct guest *g = guest_open(&(struct nat_options){ .localhost_reachable = true });
	uint8_t f[64] = { 0 };
	static char big[4000];
	struct sockaddr_in from;
	socklen_t len = sizeof(from);
	uint16_t port;
	int server = listen_somewhere(SOCK_DGRAM, &port);

	guest_gets_address(g);
	put16(f + 34, 4000);
	put16(f + 36, port);
	put16(f + 38, 12);
	send_ip(g, f, (const uint8_t *)"\x52\x55\x0a\x00\x02\x02", g->router, 17, 12, 6);
	pthread_mutex_unlock(&g->lock);
	assert_int_equal(recvfrom(server, big, 100, 0, (struct sockaddr *)&from, &len), 4);
	assert_int_equal(sendto(server, big, 4000, 0, (struct sockaddr *)&from, len), 4000);
	pthread_mutex_lock(&g->lock);
	wait_until(g, got_datagram);
	assert_int_equal(g->udp_got, 4008);
	assert_in_range(g->longest, 1000, 1514);
	close(server);
	guest_close(g);
}

static void
the_guest_does_not_reach_the_hosts_loopback_otherwise(void **state)
{
	struct guest *g = guest_open(&(struct nat_options){ 0 });
	uint16_t port;
	int server = listen_somewhere(SOCK_STREAM, &port);

	guest_gets_address(g);
	guest_connects(g, port);
	wait_until(g, guest_was_refused);
	fcntl(server, F_SETFL, O_NONBLOCK);
	assert_int_equal(accept(server, NULL, NULL), -1);
	close(server);
	guest_close(g);
}

static void
rules_are_parsed_as_vboxmanage_writes_them(void **state)
{
	struct nat_rule r;
	struct err e;

	assert_int_equal(nat_rule_parse("guestssh,tcp,,2222,,22", &r, &e), 0);
	assert_string_equal(r.name, "guestssh");
	assert_false(r.udp);
	assert_string_equal(r.host_ip, "");
	assert_int_equal(r.host_port, 2222);
	assert_int_equal(r.guest_port, 22);
	assert_int_equal(nat_rule_parse("dns,UDP,127.0.0.1,5353,10.0.2.15,53", &r, &e), 0);
	assert_true(r.udp);
	assert_string_equal(r.guest_ip, "10.0.2.15");
	assert_int_equal(nat_rule_parse("a,sctp,,1,,2", &r, &e), -1);
	assert_int_equal(nat_rule_parse("a,tcp,,0,,2", &r, &e), -1);
	assert_int_equal(nat_rule_parse("a,tcp,,1,,65536", &r, &e), -1);
	assert_int_equal(nat_rule_parse("a,tcp,1.2.3,1,,2", &r, &e), -1);
	assert_int_equal(nat_rule_parse("a,tcp,,1,2", &r, &e), -1);
	assert_int_equal(nat_rule_parse("a,tcp,,1,,2,3", &r, &e), -1);
	assert_int_equal(nat_rule_parse("", &r, &e), -1);
}

static void
bad_networks_are_refused(void **state)
{
	static const char *const bad[] = { "10.0.2.0", "10.0.2.0/31", "300.0.0.0/24", "x/24", "10.0.2.0/" };
	pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
	struct loop *loop = loop_open(&lock);
	struct net_link link;
	struct err e;

	net_link_init(&link, guest_mac);
	for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
		assert_int_equal(nat_open(&link, loop, &(struct nat_options){ .network = bad[i] }, &e), -1);
		assert_non_null(strstr(e.text, bad[i]));
	}
	net_link_close(&link);
	loop_close(loop);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(dhcp_gives_the_layout_of_virtualbox),
		cmocka_unit_test(a_rule_leads_from_a_host_port_to_the_guest),
		cmocka_unit_test(a_rule_for_datagrams_leads_to_the_guest_and_back),
		cmocka_unit_test(rules_come_and_go_on_a_running_machine),
		cmocka_unit_test(a_taken_port_is_an_error_that_names_rule_address_and_port),
		cmocka_unit_test(the_guest_reaches_the_hosts_loopback_where_that_is_allowed),
		cmocka_unit_test(a_packet_far_above_the_mtu_arrives_whole),
		cmocka_unit_test(segments_come_joined_while_the_adapter_takes_them_so),
		cmocka_unit_test(a_datagram_above_the_mtu_comes_in_fragments),
		cmocka_unit_test(the_guest_does_not_reach_the_hosts_loopback_otherwise),
		cmocka_unit_test(rules_are_parsed_as_vboxmanage_writes_them),
		cmocka_unit_test(bad_networks_are_refused),
	};

	alarm(60); /* blocking sockets of the host side */
	return cmocka_run_group_tests_name("nat", tests, NULL, NULL);
}
