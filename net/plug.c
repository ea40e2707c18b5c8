/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The machine's end of a wire to lodge-switch (switch/protocol.h, net/ring.h).
 *
 * Theory of operation. The plug is a state machine: looking for the switch (a timer, every RETRY_NS), asking (the
 * connection stands, the answer has not come), plugged in. The connection is only watched for its end: then the wire
 * is let go and the plug looks again. For the guest its cable stays in all the while; frames are lost as on a wire.
 *
 * Frames to the switch go into the ring at once; an adapter that can wait is told when there is no room
 * (net_can_send()), and told again when the switch has taken half of what was there. Frames from it are taken when the
 * bell rings, as long as the adapter has room; then the ring stays as it is until the adapter says it is ready. The
 * directory of the network is held open as a descriptor, so that the switch is found again from inside a sandbox and by
 * another user.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/log.h"
#include "base/str.h"
#include "net/net.h"
#include "net/ring.h"

#define RETRY_NS UINT64_C(100000000)
#define FIRST_ANSWER_MS 3000
#define BUDGET 256

struct plug {
	struct net_link *link;
	struct loop *loop;
	int dir, sock; /* sock -1: looking */
	char hello[256];
	struct loop_watch *sock_watch, *bell_watch;
	struct loop_timer retry;
	struct wire wire;
	bool paused;	  /* the adapter has no room */
	bool starved;	  /* the ring to the switch has none */
	bool lost;	  /* said so */
	bool unpublished; /* frames in the ring to the switch, which does not see them yet */
	uint8_t frame[NET_FRAME_MAX], scratch[NET_FRAME_MAX];
};

/* ---- frames ---- */

static void
plug_burst_end(void *backend)
{
	struct plug *p = backend;

	if (!p->unpublished)
		return;
	p->unpublished = false;
	if (p->wire.shared && ring_publish(&p->wire.out))
		wire_ring(&p->wire);
}

static void
plug_send_large(void *backend, const uint8_t *frame, size_t len, unsigned mss)
{
	struct plug *p = backend;

	if (!p->wire.shared || !ring_put(&p->wire.out, frame, len, mss)) {
		p->link->stats.dropped++;
		return;
	}
	p->unpublished = true;
	if (!p->link->in_burst)
		plug_burst_end(p);
}

static void
plug_send(void *backend, const uint8_t *frame, size_t len)
{
	plug_send_large(backend, frame, len, 0);
}

static bool
plug_takes_large(void *backend)
{
	struct plug *p = backend;

	return p->wire.shared && ring_large(&p->wire.out);
}

#define ROOM_BYTES (96u << 10) /* 64 KiB in frames of 1,500 bytes, and their heads */

static bool
plug_room(void *backend)
{
	struct plug *p = backend;

	if (!p->wire.shared || ring_room(&p->wire.out) >= ROOM_BYTES || ring_await_room(&p->wire.out))
		return true;
	p->starved = true;
	return false;
}

static void look(struct plug *p);

static void
hang_up(struct plug *p, const char *why)
{
	if (!p->lost)
		log_warn("plug", "the switch is gone (%s); looking for it", why);
	p->lost = true;
	loop_watch_remove(p->sock_watch);
	loop_watch_remove(p->bell_watch);
	p->sock_watch = p->bell_watch = NULL;
	wire_close(&p->wire);
	if (p->sock >= 0)
		close(p->sock);
	p->sock = -1;
	p->paused = p->starved = p->unpublished = false;
	loop_timer_arm(&p->retry, loop_now() + RETRY_NS);
	net_send_ready(p->link);
}

static void
deliver_piece(void *opaque, const uint8_t *frame, size_t len)
{
	net_deliver(opaque, frame, len);
}

/* The adapter may have stopped taking large ones since it said so. */
static void
deliver_large(struct plug *p, size_t len, unsigned mss)
{
	struct net_tcp t;

	if (!net_large_find(p->frame, len, mss, &t))
		p->link->stats.dropped++;
	else if (net_adapter_takes_large(p->link))
		net_deliver_large(p->link, p->frame, len, mss);
	else
		net_cut_tcp(p->frame, len, &t, p->scratch, deliver_piece, p->link);
}

/* Deliver what is in the ring. */
static void
take(struct plug *p)
{
	int len = 0, left = BUDGET;
	unsigned mss;

	ring_awake(&p->wire.in);
	ring_take_large(&p->wire.in, net_adapter_takes_large(p->link));
	while (left-- && !p->paused) {
		len = ring_get(&p->wire.in, p->frame, sizeof(p->frame), &mss);
		if (len <= 0)
			break;
		if (mss)
			deliver_large(p, (size_t)len, mss);
		else
			net_deliver(p->link, p->frame, (size_t)len);
		p->paused = net_link_waiting(p->link);
	}
	if (len < 0) {
		hang_up(p, "its ring is damaged");
		return;
	}
	if (ring_release(&p->wire.in))
		wire_ring(&p->wire);
	if (!p->paused && (len || ring_await_data(&p->wire.in))) {
		uint64_t one = 1;
		ssize_t n = write(p->wire.bell_in, &one, sizeof(one)); /* the rest in the next round */

		(void)n;
	}
}

static void
bell(void *opaque, int ready)
{
	struct plug *p = opaque;

	wire_hush(&p->wire);
	if (p->starved && ring_await_room(&p->wire.out)) {
		p->starved = false;
		net_send_ready(p->link);
	}
	if (p->wire.shared)
		take(p);
}

static void
plug_ready(void *backend)
{
	struct plug *p = backend;

	if (!p->wire.shared || !p->paused)
		return;
	p->paused = false;
	take(p);
}

/* ---- plugging in ---- */

enum { ANSWER_LATER = 1, ANSWER_GONE };

/* The answer: "ok" and three descriptors. 0, -1 and *e, or that it has not come yet, or never will. */
static int
read_answer(struct plug *p, struct err *e)
{
	union {
		struct cmsghdr head;
		char room[CMSG_SPACE(3 * sizeof(int))];
	} control;
	char text[512];
	struct iovec iov = { text, sizeof(text) - 1 };
	struct msghdr m = {
		.msg_iov = &iov, .msg_iovlen = 1, .msg_control = control.room, .msg_controllen = sizeof(control.room)
	};
	ssize_t n = recvmsg(p->sock, &m, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
	struct cmsghdr *c;
	int fds[3];

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return ANSWER_LATER;
	if (n <= 0)
		return ANSWER_GONE;
	text[n] = 0;
	c = CMSG_FIRSTHDR(&m);
	if (!c || c->cmsg_type != SCM_RIGHTS || c->cmsg_len != CMSG_LEN(sizeof(fds)))
		return err_set(e, ERR_FAILED, "the switch refused the machine: %s",
			str_starts(text, "error: ") ? text + 7 : text);
	memcpy(fds, CMSG_DATA(c), sizeof(fds));
	return wire_open(&p->wire, fds, e);
}

static int
plugged(struct plug *p, struct err *e)
{
	p->bell_watch = loop_watch_add(p->loop, p->wire.bell_in, LOOP_IN, bell, p);
	if (!p->bell_watch)
		return err_set(e, ERR_HOST, "no memory for a network wire");
	if (p->lost)
		log_info("plug", "plugged into the switch again");
	p->lost = false;
	ring_await_data(&p->wire.in);
	take(p);
	return 0;
}

static void
sock_ready(void *opaque, int ready)
{
	struct plug *p = opaque;
	struct err e = { 0 };
	char byte;
	int r;

	if (p->wire.shared) {
		if (recv(p->sock, &byte, 1, MSG_DONTWAIT) == 0)
			hang_up(p, "it hung up");
		return;
	}
	r = read_answer(p, &e);
	if (r == ANSWER_LATER)
		return;
	if (r || plugged(p, &e))
		hang_up(p, r == ANSWER_GONE ? "it hung up" : e.text);
}

static int
connect_switch(struct plug *p)
{
	struct sockaddr_un sa = { .sun_family = AF_UNIX };

	snprintf(sa.sun_path, sizeof(sa.sun_path), "/proc/self/fd/%d/port.sock", p->dir);
	p->sock = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (p->sock < 0)
		return -errno;
	if (connect(p->sock, (struct sockaddr *)&sa, sizeof(sa)) ||
		send(p->sock, p->hello, strlen(p->hello), MSG_NOSIGNAL) < 0) {
		int r = -errno;

		close(p->sock);
		p->sock = -1;
		return r;
	}
	return 0;
}

static void
look(struct plug *p)
{
	if (!connect_switch(p))
		p->sock_watch = loop_watch_add(p->loop, p->sock, LOOP_IN, sock_ready, p);
	else
		loop_timer_arm(&p->retry, loop_now() + RETRY_NS);
}

static void
retry(void *opaque)
{
	look(opaque);
}

/* The first time the answer is waited for, so that a refusal is heard where the machine is started. */
static int
first_look(struct plug *p, struct err *e)
{
	struct pollfd ready = { .events = POLLIN };
	int r = connect_switch(p);

	if (r) {
		log_warn("plug", "the switch does not answer (%s); looking for it", strerror(-r));
		p->lost = true;
		loop_timer_arm(&p->retry, loop_now() + RETRY_NS);
		return 0;
	}
	ready.fd = p->sock;
	poll(&ready, 1, FIRST_ANSWER_MS);
	r = read_answer(p, e);
	if (r < 0)
		return -1;
	if (r == ANSWER_GONE) { /* it has just died, and is about to come back */
		hang_up(p, "it hung up");
		return 0;
	}
	p->sock_watch = loop_watch_add(p->loop, p->sock, LOOP_IN, sock_ready, p);
	if (r != ANSWER_LATER)
		return plugged(p, e);
	log_warn("plug", "the switch has not answered yet");
	p->lost = true;
	return 0;
}

static void
plug_close(void *backend)
{
	struct plug *p = backend;

	loop_timer_cancel(&p->retry);
	loop_watch_remove(p->sock_watch);
	loop_watch_remove(p->bell_watch);
	wire_close(&p->wire);
	if (p->sock >= 0)
		close(p->sock);
	close(p->dir);
	free(p);
}

static const struct net_backend_class plug_class = {
	.name = "switch",
	.send = plug_send,
	.ready = plug_ready,
	.burst_end = plug_burst_end,
	.room = plug_room,
	.takes_large = plug_takes_large,
	.send_large = plug_send_large,
	.close = plug_close,
};

int
plug_open(struct net_link *l, struct loop *loop, const struct plug_options *o, struct err *e)
{
	struct plug *p;

	if (l->class)
		return err_set(e, ERR_OBJECT_STATE, "The network adapter is already attached to '%s'", l->class->name);
	p = xcalloc(1, sizeof(*p));
	*p = (struct plug){ .link = l, .loop = loop, .sock = -1 };
	p->wire.bell_in = p->wire.bell_out = -1;
	snprintf(p->hello, sizeof(p->hello), "lodge-port 1 %.63s %.63s", o->port, o->token);
	loop_timer_init(&p->retry, loop, retry, p);
	p->dir = open(o->dir, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (p->dir < 0) {
		err_sys(e, ERR_FILE, errno, "Cannot open the directory of the network '%s'", o->dir);
		free(p);
		return -1;
	}
	l->class = &plug_class;
	l->backend = p;
	if (first_look(p, e)) {
		l->class = NULL;
		l->backend = NULL;
		plug_close(p);
		return -1;
	}
	if (l->adapter.link_changed)
		l->adapter.link_changed(l->adapter.opaque, net_link_up(l));
	return 0;
}

/* ---- a network that is not there ---- */

static void
null_send(void *backend, const uint8_t *frame, size_t len)
{
}

static void
null_close(void *backend)
{
}

static const struct net_backend_class null_class = { .name = "null", .send = null_send, .close = null_close };

void
null_open(struct net_link *l)
{
	l->class = &null_class;
	if (l->adapter.link_changed)
		l->adapter.link_changed(l->adapter.opaque, net_link_up(l));
}
