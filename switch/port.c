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

static bool
deliver(void *opaque, const uint8_t *frame, size_t len)
{
	struct port *p = opaque;

	if (!ring_put(&p->wire.out, frame, len))
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
		uint32_t head[2];

		memcpy(head, n->later + at, 8);
		memcpy(n->frame + SW_HEADROOM, n->later + at + 8, head[0]);
		at += 8 + ((head[0] + 7) & ~7u);
		sw_input(n->core, (int)head[1], n->frame + SW_HEADROOM, head[0], now_ms());
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
net_inject(struct network *n, int port, const uint8_t *frame, size_t len)
{
	uint32_t head[2] = { (uint32_t)len, (uint32_t)port };

	if (len > NET_FRAME_MAX)
		return;
	if (!n->forwarding) {
		net_begin(n);
		memcpy(n->frame + SW_HEADROOM, frame, len);
		sw_input(n->core, port, n->frame + SW_HEADROOM, len, now_ms());
		net_end(n);
		return;
	}
	if (n->later_len + 16 + len > LATER_BYTES) {
		n->later_dropped++;
		return;
	}
	memcpy(n->later + n->later_len, head, 8);
	memcpy(n->later + n->later_len + 8, frame, len);
	n->later_len += 8 + ((len + 7) & ~(size_t)7);
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

static void
port_remove(struct port *p, const char *why)
{
	struct network *n = p->n;
	struct port **at = &n->ports, **dirty = &n->dirty;

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

/* Take frames until there are none, or the budget or the tokens are used up. False: the machine broke a rule. */
static bool
take(struct port *p)
{
	struct network *n = p->n;
	uint64_t now = now_ms();
	int len = 0;

	for (int left = BUDGET; left; left--) {
		if (!tokens_left(p))
			return true;
		len = ring_get(&p->wire.in, n->frame + SW_HEADROOM, NET_FRAME_MAX);
		if (len <= 0)
			break;
		p->tokens -= len;
		sw_input(n->core, p->number, n->frame + SW_HEADROOM, (size_t)len, now);
		if (n->later_len)
			forward_later(n);
	}
	if (len < 0)
		return false;
	if (len || ring_await_data(&p->wire.in)) {
		uint64_t one = 1;
		ssize_t w = write(p->wire.bell_in, &one, sizeof(one)); /* go on in the next round */

		(void)w;
	}
	return true;
}

static void
port_run(struct port *p)
{
	bool ok;

	net_begin(p->n);
	ring_awake(&p->wire.in);
	ok = take(p);
	if (ring_release(&p->wire.in))
		wire_ring(&p->wire);
	net_end(p->n);
	if (!ok)
		port_remove(p, "its ring is damaged");
}

static void
bell(void *opaque, int ready)
{
	struct port *p = opaque;

	wire_hush(&p->wire);
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

/* No hello in time; or, of a port that is plugged in, the end of a pause. */
static void
timer(void *opaque)
{
	struct port *p = opaque;

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
