/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An Ethernet cable between two machines, on this host or on two: each frame is one UDP datagram, with nothing added,
 * as VirtualBox's UDPTunnel sends it. Datagrams from anyone but the other end are not taken (the socket is connected).
 */
#include <arpa/inet.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/str.h"
#include "net/net.h"

#define BUFFER_BYTES (1 << 20)

struct tunnel {
	struct net_link *link;
	struct loop *loop;
	struct loop_watch *watch;
	int fd;
	uint8_t frame[NET_FRAME_MAX];
};

static void
tunnel_send(void *backend, const uint8_t *frame, size_t len)
{
	struct tunnel *t = backend;

	if (send(t->fd, frame, len, MSG_DONTWAIT | MSG_NOSIGNAL) < 0)
		t->link->stats.dropped++;
}

static void
tunnel_readable(void *opaque, int ready)
{
	struct tunnel *t = opaque;

	net_receive(t->link, t->fd, t->watch, t->frame);
}

static void
tunnel_ready(void *backend)
{
	struct tunnel *t = backend;

	loop_watch_set(t->watch, LOOP_IN);
}

static void
tunnel_close(void *backend)
{
	struct tunnel *t = backend;

	loop_watch_remove(t->watch);
	if (t->fd >= 0)
		close(t->fd);
	free(t);
}

static const struct net_backend_class tunnel_class = {
	.name = "tunnel",
	.send = tunnel_send,
	.ready = tunnel_ready,
	.close = tunnel_close,
};

static bool
address(const char *text, uint16_t port, struct sockaddr_in *out)
{
	*out = (struct sockaddr_in){ .sin_family = AF_INET, .sin_port = htons(port) };
	return !text || !*text || inet_pton(AF_INET, text, &out->sin_addr) == 1;
}

int
tunnel_open(struct net_link *l, struct loop *loop, const struct tunnel_options *o, struct err *e)
{
	struct sockaddr_in local, remote;
	int bytes = BUFFER_BYTES;
	struct tunnel *t;

	if (l->class)
		return err_set(e, ERR_OBJECT_STATE, "The network adapter is already attached to '%s'", l->class->name);
	if (!o->local_port || !o->remote_port || !o->remote || !*o->remote ||
		!address(o->remote, o->remote_port, &remote) || !address(o->local_ip, o->local_port, &local))
		return err_set(e, ERR_INVALID,
			"A UDP tunnel needs the properties sport and dport (ports) and dest (an IPv4 address)");
	t = xcalloc(1, sizeof(*t));
	*t = (struct tunnel){ .link = l, .loop = loop };
	t->fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (t->fd < 0 || bind(t->fd, (struct sockaddr *)&local, sizeof(local)) ||
		connect(t->fd, (struct sockaddr *)&remote, sizeof(remote))) {
		err_sys(e, ERR_HOST, errno, "Cannot open the UDP tunnel from port %u to %s:%u", o->local_port,
			o->remote, o->remote_port);
		tunnel_close(t);
		return -1;
	}
	setsockopt(t->fd, SOL_SOCKET, SO_RCVBUF, &bytes, sizeof(bytes));
	setsockopt(t->fd, SOL_SOCKET, SO_SNDBUF, &bytes, sizeof(bytes));
	t->watch = loop_watch_add(loop, t->fd, LOOP_IN, tunnel_readable, t);
	if (!t->watch) {
		tunnel_close(t);
		return err_set(e, ERR_HOST, "no memory for a UDP tunnel");
	}
	l->class = &tunnel_class;
	l->backend = t;
	if (l->adapter.link_changed)
		l->adapter.link_changed(l->adapter.opaque, net_link_up(l));
	return 0;
}
