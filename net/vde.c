/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A port of a VDE switch ("Virtual Distributed Ethernet", vde_switch of Debian's vde2): VirtualBox's generic driver VDE.
 *
 * Theory of operation. The switch listens on DIR/ctl. A plug connects there and sends one request with the address of
 * a datagram socket of its own; the switch answers with the address of one of its own, to which that is connected. From
 * then on each frame is a datagram. The first connection stands as long as the plug is in. When it ends, because the
 * switch did, the plug looks for a switch every RETRY_NS; for the guest its cable stays in.
 *
 *	request: 0 u32 0xfeedface, 4 u32 version 3, 8 u32 type (bits 8 and up: port number, 0: any; bits 0 to 7: 0),
 *		 12 struct sockaddr_un, 122 char description[128]; host byte order
 *	answer:	 struct sockaddr_un
 *
 * Our socket has a random name in the abstract name space, which is that of a network namespace: nothing is left in a
 * directory after a crash, and the sandbox of a running machine need not let one be made. Once it is connected the kernel takes datagrams from the
 * switch only. The switch's frames are as long as a wire's with one tag (NET_FRAME_WIRE); longer ones are dropped here,
 * where it would cut them off.
 */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/log.h"
#include "base/str.h"
#include "net/net.h"

#define RETRY_NS UINT64_C(500000000)
#define FIRST_ANSWER_MS 3000
#define VDE_MAGIC 0xfeedface
#define VDE_VERSION 3

struct request {
	uint32_t magic, version, type;
	struct sockaddr_un sock;
	char description[128];
};

struct vde {
	struct net_link *link;
	struct loop *loop;
	char path[4096];
	int ctl, data; /* ctl -1: looking; data -1: there is no answer yet, or no switch */
	int bound;     /* becomes `data` with the answer */
	struct loop_watch *ctl_watch, *data_watch;
	struct loop_timer retry;
	bool lost; /* said so */
	uint8_t frame[NET_FRAME_MAX];
};

/* ---- frames ---- */

static void
vde_send(void *backend, const uint8_t *frame, size_t len)
{
	struct vde *v = backend;

	if (v->data < 0 || len > NET_FRAME_WIRE || send(v->data, frame, len, MSG_DONTWAIT | MSG_NOSIGNAL) < 0)
		v->link->stats.dropped++;
}

static void
data_ready(void *opaque, int ready)
{
	struct vde *v = opaque;

	net_receive(v->link, v->data, v->data_watch, v->frame);
}

static void
vde_ready(void *backend)
{
	struct vde *v = backend;

	if (v->data_watch)
		loop_watch_set(v->data_watch, LOOP_IN);
}

/* ---- plugging in ---- */

static void
close_fd(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

static void
let_go(struct vde *v)
{
	loop_watch_remove(v->ctl_watch);
	loop_watch_remove(v->data_watch);
	v->ctl_watch = v->data_watch = NULL;
	close_fd(&v->ctl);
	close_fd(&v->data);
	close_fd(&v->bound);
}

static void
hang_up(struct vde *v, const char *why)
{
	if (!v->lost)
		log_warn("vde", "the VDE switch '%s' is gone (%s); looking for it", v->path, why);
	v->lost = true;
	let_go(v);
	loop_timer_arm(&v->retry, loop_now() + RETRY_NS);
}

/* A datagram socket with a name of its own; the switch uses all bytes of it. */
static int
bind_somewhere(struct vde *v, struct sockaddr_un *sa)
{
	uint8_t r[8];

	*sa = (struct sockaddr_un){ .sun_family = AF_UNIX };
	v->bound = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (v->bound < 0 || getrandom(r, sizeof(r), 0) != sizeof(r))
		return -1;
	snprintf(sa->sun_path + 1, sizeof(sa->sun_path) - 1, "lodge-vde-%02x%02x%02x%02x%02x%02x%02x%02x", r[0], r[1],
		r[2], r[3], r[4], r[5], r[6], r[7]);
	return bind(v->bound, (struct sockaddr *)sa, sizeof(*sa));
}

/* Connect and ask; the answer comes later. 0 or -errno, with nothing open. */
static int
ask(struct vde *v)
{
	struct sockaddr_un sa = { .sun_family = AF_UNIX };
	struct request q = { .magic = VDE_MAGIC, .version = VDE_VERSION, .description = "Lodge" };
	int r;

	if (snprintf(sa.sun_path, sizeof(sa.sun_path), "%s/ctl", v->path) >= (int)sizeof(sa.sun_path))
		return -ENAMETOOLONG;
	v->ctl = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (v->ctl >= 0 && !connect(v->ctl, (struct sockaddr *)&sa, sizeof(sa)) && !bind_somewhere(v, &q.sock) &&
		send(v->ctl, &q, sizeof(q), MSG_NOSIGNAL) == (ssize_t)sizeof(q))
		return 0;
	r = -errno;
	let_go(v);
	return r ? r : -EIO;
}

/* The answer has come, or the end. NULL: the plug is in. */
static const char *
take_answer(struct vde *v)
{
	struct sockaddr_un sa;
	ssize_t n = recv(v->ctl, &sa, sizeof(sa), MSG_DONTWAIT);

	if (n <= 0)
		return "it refused the plug";
	if (n != (ssize_t)sizeof(sa) || sa.sun_family != AF_UNIX)
		return "its answer is not one of a VDE switch";
	if (connect(v->bound, (struct sockaddr *)&sa, sizeof(sa)))
		return strerror(errno);
	v->data = v->bound;
	v->bound = -1;
	v->data_watch = loop_watch_add(v->loop, v->data, LOOP_IN, data_ready, v);
	if (!v->data_watch)
		return "no memory";
	if (v->lost)
		log_info("vde", "plugged into '%s' again", v->path);
	v->lost = false;
	return NULL;
}

static void
ctl_ready(void *opaque, int ready)
{
	struct vde *v = opaque;
	const char *wrong;
	char byte;

	if (v->data < 0) {
		wrong = take_answer(v);
		if (wrong)
			hang_up(v, wrong);
	} else if (recv(v->ctl, &byte, 1, MSG_DONTWAIT) == 0) {
		hang_up(v, "it hung up");
	}
}

static void
look(void *opaque)
{
	struct vde *v = opaque;

	if (!ask(v))
		v->ctl_watch = loop_watch_add(v->loop, v->ctl, LOOP_IN, ctl_ready, v);
	if (!v->ctl_watch)
		hang_up(v, "it does not answer");
}

static int
first_look(struct vde *v, struct err *e)
{
	struct pollfd ready = { .events = POLLIN };
	const char *wrong;
	int r = ask(v);

	if (r)
		return err_sys(
			e, ERR_HOST, -r, "Cannot plug into the VDE switch '%s' (vde_switch -s %s)", v->path, v->path);
	ready.fd = v->ctl;
	if (poll(&ready, 1, FIRST_ANSWER_MS) != 1)
		return err_set(e, ERR_HOST, "The VDE switch '%s' does not answer", v->path);
	wrong = take_answer(v);
	if (wrong)
		return err_set(e, ERR_HOST, "Cannot plug into the VDE switch '%s': %s", v->path, wrong);
	v->ctl_watch = loop_watch_add(v->loop, v->ctl, LOOP_IN, ctl_ready, v);
	return v->ctl_watch ? 0 : err_set(e, ERR_HOST, "no memory for a VDE plug");
}

static void
vde_close(void *backend)
{
	struct vde *v = backend;

	loop_timer_cancel(&v->retry);
	let_go(v);
	free(v);
}

static const struct net_backend_class vde_class = {
	.name = "vde",
	.send = vde_send,
	.ready = vde_ready,
	.close = vde_close,
};

int
vde_open(struct net_link *l, struct loop *loop, const char *path, struct err *e)
{
	struct vde *v;

	if (l->class)
		return err_set(e, ERR_OBJECT_STATE, "The network adapter is already attached to '%s'", l->class->name);
	v = xcalloc(1, sizeof(*v));
	*v = (struct vde){ .link = l, .loop = loop, .ctl = -1, .data = -1, .bound = -1 };
	snprintf(v->path, sizeof(v->path), "%s", path && *path ? path : VDE_DEFAULT);
	loop_timer_init(&v->retry, loop, look, v);
	if (first_look(v, e)) {
		vde_close(v);
		return -1;
	}
	l->class = &vde_class;
	l->backend = v;
	if (l->adapter.link_changed)
		l->adapter.link_changed(l->adapter.opaque, net_link_up(l));
	return 0;
}
