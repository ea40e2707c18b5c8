/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Machines' questions to the name servers of the host (/etc/resolv.conf, read anew when it has changed). A question
 * goes out of a socket of its own with an identification of our own, so that a forged answer has to guess both; the
 * machine's identification is put back. A question is given up after 5 s; there are at most QUESTIONS_MAX at a time.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "switch/private.h"

#define QUESTIONS_MAX 128
#define GIVE_UP_NS (UINT64_C(5) * 1000000000)
#define SERVERS_MAX 3
#define RESOLV_CONF "/etc/resolv.conf"

struct question {
	struct resolver *r;
	int fd; /* -1: free */
	struct loop_watch *watch;
	struct loop_timer timer;
	struct asker from;
	uint16_t id, own_id;
};

struct resolver {
	struct loop *loop;
	resolver_answer_fn *answer;
	void *opaque;
	struct question q[QUESTIONS_MAX];
	struct sockaddr_storage servers[SERVERS_MAX];
	int server_count;
	unsigned turn;
	struct timespec read_at; /* time stamp of the file that was read */
};

static void
finish(struct question *q)
{
	loop_timer_cancel(&q->timer);
	loop_watch_remove(q->watch);
	close(q->fd);
	q->fd = -1;
}

static void
give_up(void *opaque)
{
	finish(opaque);
}

static void
answered(void *opaque, int ready)
{
	struct question *q = opaque;
	uint8_t b[DNS_MAX];
	ssize_t n = recv(q->fd, b, sizeof(b), MSG_DONTWAIT);

	if (n < 0) {
		if (errno != EAGAIN && errno != EINTR)
			finish(q);
		return;
	}
	if (n < 12 || (b[0] << 8 | b[1]) != q->own_id || !(b[2] & 0x80))
		return;
	b[0] = (uint8_t)(q->id >> 8);
	b[1] = (uint8_t)q->id;
	q->r->answer(q->r->opaque, &q->from, b, (size_t)n);
	finish(q);
}

static void
add_server(struct resolver *r, const char *text)
{
	struct sockaddr_in *v4 = (struct sockaddr_in *)&r->servers[r->server_count];
	struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)v4;

	memset(v4, 0, sizeof(r->servers[0]));
	if (inet_pton(AF_INET, text, &v4->sin_addr) == 1) {
		v4->sin_family = AF_INET;
		v4->sin_port = htons(53);
		r->server_count++;
	} else if (inet_pton(AF_INET6, text, &v6->sin6_addr) == 1) {
		v6->sin6_family = AF_INET6;
		v6->sin6_port = htons(53);
		r->server_count++;
	}
}

static void
read_servers(struct resolver *r)
{
	struct stat st;
	char line[256], word[64];
	FILE *f;

	if (stat(RESOLV_CONF, &st) || !memcmp(&st.st_mtim, &r->read_at, sizeof(r->read_at)))
		return;
	r->read_at = st.st_mtim;
	r->server_count = 0;
	f = fopen(RESOLV_CONF, "re");
	while (f && fgets(line, sizeof(line), f))
		if (r->server_count < SERVERS_MAX && sscanf(line, "nameserver %63s", word) == 1)
			add_server(r, word);
	if (f)
		fclose(f);
}

struct resolver *
resolver_open(struct loop *loop, resolver_answer_fn *fn, void *opaque)
{
	struct resolver *r = xcalloc(1, sizeof(*r));

	r->loop = loop;
	r->answer = fn;
	r->opaque = opaque;
	for (int i = 0; i < QUESTIONS_MAX; i++) {
		r->q[i].r = r;
		r->q[i].fd = -1;
		loop_timer_init(&r->q[i].timer, loop, give_up, &r->q[i]);
	}
	return r;
}

void
resolver_close(struct resolver *r)
{
	for (int i = 0; i < QUESTIONS_MAX; i++)
		if (r->q[i].fd >= 0)
			finish(&r->q[i]);
	free(r);
}

bool
resolver_ask(struct resolver *r, const struct asker *from, const uint8_t *query, size_t len)
{
	const struct sockaddr_storage *to;
	uint8_t b[DNS_MAX];
	struct question *q = r->q;

	read_servers(r);
	while (q < r->q + QUESTIONS_MAX && q->fd >= 0)
		q++;
	if (q == r->q + QUESTIONS_MAX || !r->server_count || len < 12 || len > sizeof(b))
		return false;
	to = &r->servers[r->turn++ % (unsigned)r->server_count];
	q->fd = socket(to->ss_family, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (q->fd < 0)
		return false;
	q->from = *from;
	q->id = (uint16_t)(query[0] << 8 | query[1]);
	if (getrandom(&q->own_id, sizeof(q->own_id), 0) != sizeof(q->own_id))
		q->own_id = q->id;
	memcpy(b, query, len);
	b[0] = (uint8_t)(q->own_id >> 8);
	b[1] = (uint8_t)q->own_id;
	q->watch = loop_watch_add(r->loop, q->fd, LOOP_IN, answered, q);
	loop_timer_arm(&q->timer, loop_now() + GIVE_UP_NS);
	if (!q->watch ||
		connect(q->fd, (const struct sockaddr *)to,
			to->ss_family == AF_INET ? sizeof(struct sockaddr_in) : sizeof(struct sockaddr_in6)) ||
		send(q->fd, b, len, MSG_NOSIGNAL) < 0) {
		finish(q);
		return false;
	}
	return true;
}
