/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Machines plugging in, and frames between their rings and the switch.
 *
 * Theory of operation. A bell says that a machine's ring has frames; they are taken in batches of BUDGET, each copied
 * out once and given to the core, which copies it into the rings of those who get it. At the end of a batch the rings
 * that got something are published and, where their machine sleeps, its bell is rung: one system call a batch and
 * machine, none when both ends are busy. A port that has used up its budget or its tokens goes on later, so that one
 * machine cannot keep the others waiting.
 *
 * Where a machine sends faster than another takes it up, what it sends waits in its own ring (`waits`), as with the
 * PAUSE frames of a wire (802.3, annex 31B): the sender slows down, where otherwise both machines would work for frames
 * that nobody sees. It goes on when the receiver has taken half of its ring. One that has not within HOLD_NS is not
 * waited for in the next HURRY_NS: its frames are dropped, and a machine that stands still, or wants to hold others up,
 * takes a sixth of their time at most. Only frames for one port wait.
 *
 * A limit of bytes a second is a bucket of tokens (a tenth of a second deep, at least LIMIT_BURST): while it is
 * empty the port's ring is not read, it fills, and the machine's frames find no room there. Nothing is sent out late
 * and nothing above the limit.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/log.h"
#include "switch/private.h"

#define BUDGET 256
#define HELLO_NS (UINT64_C(5) * 1000000000)
#define LIMIT_BURST 32768
#define BACKLOG 128
#define HOLD_NS (UINT64_C(50) * 1000000)
#define HURRY_NS (UINT64_C(250) * 1000000)

/* ---- frames in ---- */

static uint64_t
now_ms(void)
{
	return loop_now() / 1000000;
}

static void
mark_dirty(struct port *p)
{
	if (p->dirty)
		return;
	p->dirty = true;
	p->next_dirty = p->n->dirty;
	p->n->dirty = p;
}

void
net_cut(struct network *n, const uint8_t *frame, size_t len, unsigned mss,
	void (*emit)(void *opaque, const uint8_t *frame, size_t len), void *opaque)
{
	struct net_tcp t;

	if (net_large_find(frame, len, mss, &t))
		net_cut_tcp(frame, len, &t, n->scratch, emit, opaque);
}

static void
put_piece(void *opaque, const uint8_t *frame, size_t len)
{
	struct port *p = opaque;

	ring_put(&p->wire.out, frame, len, 0); /* deliver_cut() has seen that there is room */
}

#define HEADERS_MAX 160 /* Ethernet, VLAN, IP and TCP with all their options, and the ring's */

static bool
deliver_cut(struct port *p, const uint8_t *frame, size_t len, unsigned mss)
{
	if (ring_room(&p->wire.out) < 2 * HEADERS_MAX + mss + len + len / mss * HEADERS_MAX)
		return false;
	net_cut(p->n, frame, len, mss, put_piece, p);
	mark_dirty(p);
	return true;
}

static bool
deliver(void *opaque, const uint8_t *frame, size_t len, unsigned mss)
{
	struct port *p = opaque;

	if (mss && (!ring_large(&p->wire.out) || len > NET_FRAME_MAX))
		return deliver_cut(p, frame, len, mss);
	if (!ring_put(&p->wire.out, frame, len, mss))
		return false;
	mark_dirty(p);
	return true;
}

void
net_begin(struct network *n)
{
	n->forwarding = true;
}

/* Those that came up meanwhile, in order; they may bring up more. */
static void
forward_later(struct network *n)
{
	for (size_t at = 0; at < n->later_len;) {
		uint32_t head[4];

		memcpy(head, n->later + at, sizeof(head));
		memcpy(n->frame + SW_HEADROOM, n->later + at + sizeof(head), head[0]);
		at += sizeof(head) + ((head[0] + 7) & ~7u);
		sw_input(n->core, (int)head[1], n->frame + SW_HEADROOM, head[0], head[2], now_ms());
	}
	n->later_len = 0;
}

void
net_end(struct network *n)
{
	forward_later(n);
	n->forwarding = false;
	while (n->dirty) {
		struct port *p = n->dirty;

		n->dirty = p->next_dirty;
		p->dirty = false;
		if (ring_publish(&p->wire.out))
			wire_ring(&p->wire);
	}
}

void
net_inject(struct network *n, int port, const uint8_t *frame, size_t len, unsigned mss)
{
	uint32_t head[4] = { (uint32_t)len, (uint32_t)port, mss };

	if (len > NET_FRAME_MAX)
		return;
	if (!n->forwarding) {
		net_begin(n);
		memcpy(n->frame + SW_HEADROOM, frame, len);
		sw_input(n->core, port, n->frame + SW_HEADROOM, len, mss, now_ms());
		net_end(n);
		return;
	}
	if (n->later_len + sizeof(head) + 8 + len > LATER_BYTES) {
		n->later_dropped++;
		return;
	}
	memcpy(n->later + n->later_len, head, sizeof(head));
	memcpy(n->later + n->later_len + sizeof(head), frame, len);
	n->later_len += sizeof(head) + ((len + 7) & ~(size_t)7);
}

/* May the port send now? If not, when. */
static bool
tokens_left(struct port *p)
{
	uint64_t now = loop_now(), passed = now - p->tokens_at;
	int64_t depth = MAX((int64_t)(p->file.rate / 10), (int64_t)LIMIT_BURST);

	if (!p->file.rate)
		return true;
	passed = MIN(passed, UINT64_C(1000000000));
	p->tokens = MIN(p->tokens + (int64_t)(passed * (p->file.rate / 1000) / 1000000), depth);
	p->tokens_at = now;
	if (p->tokens > 0)
		return true;
	loop_timer_arm(&p->timer, now + (uint64_t)(2000 - p->tokens) * 1000000 / (p->file.rate / 1000 + 1));
	return false;
}

/* Go on in the next round. */
static void
port_again(struct port *p)
{
	uint64_t one = 1;
	ssize_t n = write(p->wire.bell_in, &one, sizeof(one));

	(void)n;
}

static void
port_remove(struct port *p, const char *why)
{
	struct network *n = p->n;
	struct port **at = &n->ports, **dirty = &n->dirty;

	for (struct port *q = n->ports; q; q = q->next)
		if (q->waits == p) {
			q->waits = NULL;
			port_again(q);
		}

	while (*at != p)
		at = &(*at)->next;
	*at = p->next;
	while (*dirty && *dirty != p)
		dirty = &(*dirty)->next_dirty;
	if (*dirty)
		*dirty = p->next_dirty;
	if (p->number >= 0) {
		sw_port_remove(n->core, p->number);
		n->port_count--;
		log_info("switch", "port %s (%s, adapter %d) is unplugged: %s", p->id, p->file.machine,
			p->file.slot + 1, why);
	}
	/* Who only asked whether we are there is about to send a machine. */
	if (!n->port_count)
		net_linger(n, p->number >= 0 ? n->c.linger : MAX(n->c.linger, EXPECT_S));
	loop_timer_cancel(&p->timer);
	loop_watch_remove(p->sock_watch);
	loop_watch_remove(p->bell_watch);
	wire_close(&p->wire);
	close(p->sock);
	free(p);
}

/* `p` has a frame for the port of this number, which has no room: does it wait? */
static bool
hold(struct port *p, int number)
{
	struct port *q = p->n->ports;

	while (q && q->number != number)
		q = q->next;
	if (!q || loop_now() < q->hurry_until)
		return false;
	p->waits = q;
	loop_timer_arm(&p->timer, loop_now() + HOLD_NS);
	return true;
}

static void
let_go(struct port *p)
{
	p->waits = NULL;
	loop_timer_cancel(&p->timer);
}

/* The oldest frame of the ring into the switch; as ring_get(). */
static int
forward(struct port *p, uint64_t now)
{
	struct network *n = p->n;
	uint8_t *f = n->frame + SW_HEADROOM;
	unsigned mss;
	struct net_tcp t;
	int len = ring_get(&p->wire.in, f, NET_FRAME_MAX, &mss), full;

	if (len <= 0)
		return len;
	p->tokens -= len;
	full = sw_try(
		n->core, p->number, f, mss && !net_large_find(f, (size_t)len, mss, &t) ? 0 : (size_t)len, mss, now);
	if (full < 0)
		return len;
	ring_unget(&p->wire.in);
	if (hold(p, full)) {
		p->tokens += len;
		return len;
	}
	len = ring_get(&p->wire.in, f, NET_FRAME_MAX, &mss);
	if (len > 0) /* what it is now: the machine can write to it meanwhile */
		sw_input(n->core, p->number, f, mss && !net_large_find(f, (size_t)len, mss, &t) ? 0 : (size_t)len, mss,
			now);
	return len;
}

/* Take frames until there are none, or the budget or the tokens are used up. False: the machine broke a rule. */
static bool
take(struct port *p)
{
	struct network *n = p->n;
	uint64_t now = now_ms();
	int len = 0;

	for (int left = BUDGET; left && !p->waits; left--) {
		if (!tokens_left(p))
			return true;
		len = forward(p, now);
		if (len <= 0)
			break;
		if (n->later_len)
			forward_later(n);
	}
	if (len < 0)
		return false;
	if (!p->waits && (len || ring_await_data(&p->wire.in)))
		port_again(p);
	return true;
}

static void
port_run(struct port *p)
{
	bool ok;

	if (p->waits)
		return;
	net_begin(p->n);
	ring_awake(&p->wire.in);
	ok = take(p);
	if (ring_release(&p->wire.in))
		wire_ring(&p->wire);
	net_end(p->n);
	/* What it waits for is out now; it may have been taken already. */
	if (ok && p->waits && ring_await_room(&p->waits->wire.out)) {
		let_go(p);
		port_again(p);
	}
	if (!ok)
		port_remove(p, "its ring is damaged");
}

/* There may be room in the ring to `p`. */
static void
run_waiting(struct port *p)
{
	for (struct port *q = p->n->ports, *next; q; q = next) {
		next = q->next;
		if (q->waits != p)
			continue;
		if (!ring_await_room(&p->wire.out))
			return;
		let_go(q);
		port_again(q);
	}
}

static void
bell(void *opaque, int ready)
{
	struct port *p = opaque;

	wire_hush(&p->wire);
	run_waiting(p);
	port_run(p);
}

/* ---- plugging in ---- */

static void
send_reply(struct port *p, const char *text, const int fds[3])
{
	union {
		struct cmsghdr head;
		char room[CMSG_SPACE(3 * sizeof(int))];
	} control = { 0 };
	struct iovec iov = { (void *)(uintptr_t)text, strlen(text) };
	struct msghdr m = { .msg_iov = &iov, .msg_iovlen = 1 };

	if (fds) {
		m.msg_control = control.room;
		m.msg_controllen = sizeof(control.room);
		control.head.cmsg_len = CMSG_LEN(3 * sizeof(int));
		control.head.cmsg_level = SOL_SOCKET;
		control.head.cmsg_type = SCM_RIGHTS;
		memcpy(CMSG_DATA(&control.head), fds, 3 * sizeof(int));
	}
	if (sendmsg(p->sock, &m, MSG_NOSIGNAL | MSG_DONTWAIT) < 0)
		log_warn("switch", "port %s: the answer could not be sent: %s", p->id, strerror(errno));
}

static void
refuse(struct port *p, const char *text)
{
	char *reply = xasprintf("error: %s", text);

	log_warn("switch", "a plug was refused: %s", text);
	send_reply(p, reply, NULL);
	free(reply);
	port_remove(p, text);
}

static int
plug(struct port *p, struct err *e)
{
	struct network *n = p->n;
	int fds[3];

	if (wire_create(&p->wire, fds, e))
		return -1;
	p->number = sw_port_add(n->core, &p->file.c, deliver, p);
	if (p->number < 0) {
		close(fds[0]);
		return err_set(e, ERR_INVALID, "the switch has no more ports");
	}
	n->port_count++;
	p->tokens_at = loop_now();
	p->bell_watch = loop_watch_add(n->loop, p->wire.bell_in, LOOP_IN, bell, p);
	ring_take_large(&p->wire.in, true);
	ring_await_data(&p->wire.in);
	send_reply(p, "ok", fds);
	close(fds[0]);
	loop_timer_cancel(&p->timer);
	loop_timer_cancel(&n->linger);
	return 0;
}

static bool
same_token(const char *a, const char *b)
{
	unsigned differ = 0;

	if (strlen(a) != 32 || strlen(b) != 32)
		return false;
	for (int i = 0; i < 32; i++)
		differ |= (unsigned)(a[i] ^ b[i]);
	return !differ;
}

static struct port *
find_port(struct network *n, const char *id, const struct port *but)
{
	for (struct port *p = n->ports; p; p = p->next)
		if (p != but && p->number >= 0 && !strcmp(p->id, id))
			return p;
	return NULL;
}

static void
hello(struct port *p, char *text)
{
	char id[64], token[64], rest;
	struct port *old;
	struct err e = { 0 };

	if (!strcmp(text, "lodge-port 0")) { /* are you there? */
		send_reply(p, "error: nobody was to be plugged in", NULL);
		port_remove(p, "it only asked");
		return;
	}
	if (sscanf(text, "lodge-port 1 %63s %63s%c", id, token, &rest) != 2) {
		refuse(p, "this is not the hello of a machine");
		return;
	}
	if (port_file_read(p->n->dir, id, &p->file, &e)) {
		refuse(p, e.text);
		return;
	}
	if (!same_token(p->file.token, token)) {
		refuse(p, "the token is not that of the port");
		return;
	}
	snprintf(p->id, sizeof(p->id), "%s", id);
	old = find_port(p->n, id, p);
	if (old)
		port_remove(old, "it plugged in again");
	if (plug(p, &e))
		refuse(p, e.text);
	else
		log_info("switch", "port %s (%s, adapter %d) is plugged in", p->id, p->file.machine, p->file.slot + 1);
}

static void
sock_ready(void *opaque, int ready)
{
	struct port *p = opaque;
	char text[SWITCH_HELLO_MAX];
	ssize_t n = recv(p->sock, text, sizeof(text) - 1, MSG_DONTWAIT);

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n <= 0) {
		port_remove(p, "the machine hung up");
		return;
	}
	if (p->number >= 0)
		return; /* nothing is expected any more */
	text[n] = 0;
	hello(p, text);
}

/* No hello in time; or, of a port that is plugged in, the end of a pause, or of waiting. */
static void
timer(void *opaque)
{
	struct port *p = opaque;

	if (p->waits) {
		p->waits->hurry_until = loop_now() + HURRY_NS;
		p->waits = NULL;
	}
	if (p->number >= 0)
		port_run(p);
	else
		port_remove(p, "no hello came");
}

static void
accept_plug(void *opaque, int ready)
{
	struct network *n = opaque;
	int fd = accept4(n->listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	struct port *p;

	if (fd < 0)
		return;
	p = xcalloc(1, sizeof(*p));
	*p = (struct port){ .n = n, .sock = fd, .number = -1, .next = n->ports };
	p->wire.bell_in = p->wire.bell_out = -1;
	n->ports = p;
	loop_timer_init(&p->timer, n->loop, timer, p);
	loop_timer_arm(&p->timer, loop_now() + HELLO_NS);
	p->sock_watch = loop_watch_add(n->loop, fd, LOOP_IN, sock_ready, p);
	if (!p->sock_watch)
		port_remove(p, "there is no memory");
}

void
ports_reload(struct network *n)
{
	struct port *next;

	for (struct port *p = n->ports; p; p = next) {
		struct port_file f;
		struct err e;

		next = p->next;
		if (p->number < 0)
			continue;
		if (port_file_read(n->dir, p->id, &f, &e)) {
			port_remove(p, e.text);
			continue;
		}
		if (!same_token(f.token, p->file.token)) {
			port_remove(p, "its token is not valid any more");
			continue;
		}
		p->file = f;
		sw_port_change(n->core, p->number, &f.c);
		port_run(p); /* it may have stood still under a limit */
	}
}

/* ---- life ---- */

int
ports_open(struct network *n, struct err *e)
{
	struct sockaddr_un sa = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	n->listen_fd = fd;
	snprintf(sa.sun_path, sizeof(sa.sun_path), "/proc/self/fd/%d/" SWITCH_FILE_PORT, n->dir_fd);
	unlinkat(n->dir_fd, SWITCH_FILE_PORT, 0);
	/* Anybody who can reach it may try: the directory is its owner's, the token decides. A machine may run as
	 * another user than the one who started it and comes here through a descriptor of the directory. */
	if (fd < 0 || bind(fd, (struct sockaddr *)&sa, sizeof(sa)) || fchmodat(n->dir_fd, SWITCH_FILE_PORT, 0666, 0) ||
		listen(fd, BACKLOG))
		return err_sys(e, ERR_HOST, errno, "Cannot listen on '%s/" SWITCH_FILE_PORT "'", n->dir);
	n->listen_watch = loop_watch_add(n->loop, fd, LOOP_IN, accept_plug, n);
	return n->listen_watch ? 0 : err_set(e, ERR_HOST, "no memory for a network");
}

void
ports_close(struct network *n)
{
	while (n->ports)
		port_remove(n->ports, "the switch ends");
	loop_watch_remove(n->listen_watch);
	if (n->listen_fd >= 0) {
		unlinkat(n->dir_fd, SWITCH_FILE_PORT, 0);
		close(n->listen_fd);
	}
	n->listen_fd = -1;
	n->listen_watch = NULL;
}
