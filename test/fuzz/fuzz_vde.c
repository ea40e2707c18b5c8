/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fuzz target: what a hostile VDE switch says, the answer to a plug's request and the datagrams after it. There is no
 * switch: the plug's connection is one end of a socket pair, and what its loop would call is called here. Addresses that
 * the switch names are abstract ones, so that no socket of the host is met.
 */
#include "net/vde.c"

#include "test/fuzz/input.h"

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct loop *loop;
static unsigned room;

static bool
receive(void *opaque, const uint8_t *frame, size_t len)
{
	volatile uint8_t last = frame[len - 1];

	(void)last;
	if (len < 14 || len > NET_FRAME_MAX)
		__builtin_trap();
	return room++ % 3 != 0;
}

/* A plug that has asked, and the switch's end of its connection. */
static struct vde *
begin(struct net_link *l, int *theirs, struct sockaddr_un *ours)
{
	static const uint8_t mac[6] = { 8, 0, 0x27, 1, 2, 3 };
	struct vde *v = xcalloc(1, sizeof(*v));
	int pair[2];

	net_link_init(l, mac);
	l->adapter.receive = receive;
	*v = (struct vde){ .link = l, .loop = loop, .ctl = -1, .data = -1, .bound = -1, .path = "fuzz" };
	loop_timer_init(&v->retry, loop, look, v);
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) || bind_somewhere(v, ours))
		__builtin_trap();
	v->ctl = pair[0];
	*theirs = pair[1];
	v->ctl_watch = loop_watch_add(loop, v->ctl, LOOP_IN, ctl_ready, v);
	l->class = &vde_class;
	l->backend = v;
	return v;
}

/* A datagram socket of the switch's. */
static int
open_data(struct sockaddr_un *sa)
{
	int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	*sa = (struct sockaddr_un){ .sun_family = AF_UNIX };
	snprintf(sa->sun_path + 1, sizeof(sa->sun_path) - 1, "lodge-fuzz-vde-%d", (int)getpid());
	if (fd < 0 || bind(fd, (struct sockaddr *)sa, sizeof(*sa)))
		__builtin_trap();
	return fd;
}

static void
answer(struct input *in, int theirs, const struct sockaddr_un *data)
{
	uint8_t text[2 * sizeof(*data)] = { 0 };
	size_t len = sizeof(*data);
	unsigned how = (unsigned)take(in, 1);

	memcpy(text, data, sizeof(*data));
	if (how & 1) /* most are as they should be, so that frames follow */
		for (size_t i = 0; i < 16; i++)
			text[i + (how & 2 ? 0 : 3)] = (uint8_t)take(in, 1);
	text[2] = 0;
	if ((how & 12) == 12)
		len = take(in, 1) % (sizeof(text) + 1);
	if (len && send(theirs, text, len, MSG_NOSIGNAL) != (ssize_t)len)
		__builtin_trap();
	if (how & 16)
		shutdown(theirs, SHUT_RDWR);
}

static void
frame(struct input *in, struct vde *v, int data, const struct sockaddr_un *ours)
{
	static uint8_t f[NET_FRAME_MAX + 100];
	size_t len = !(take(in, 1) & 7) ? take(in, 3) % sizeof(f) : take(in, 2) % 1600;

	f[12] = (uint8_t)take(in, 1);
	if (take(in, 1) & 3) {
		sendto(data, f, len, MSG_NOSIGNAL, (const struct sockaddr *)ours, sizeof(*ours));
		data_ready(v, LOOP_IN);
	} else {
		net_send(v->link, f, len);
		while (recv(data, f, sizeof(f), MSG_DONTWAIT | MSG_TRUNC) > NET_FRAME_WIRE)
			__builtin_trap();
	}
	net_adapter_ready(v->link);
}

int
LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
	struct input in = { bytes, size };
	struct sockaddr_un ours, named;
	struct net_link link;
	struct vde *v;
	int theirs, data;

	if (!loop) {
		loop = loop_open(&lock);
		log_set_level(LOG_ERROR);
	}
	v = begin(&link, &theirs, &ours);
	data = open_data(&named);
	answer(&in, theirs, &named);
	ctl_ready(v, LOOP_IN);
	if (v->data >= 0 && (v->bound >= 0 || !v->data_watch || v->ctl < 0))
		__builtin_trap();
	if (v->data < 0 && (v->bound >= 0 || v->data_watch || v->ctl >= 0 || !loop_timer_armed(&v->retry)))
		__builtin_trap();
	for (int i = 0; v->data >= 0 && in.left && i < 64; i++)
		frame(&in, v, data, &ours);
	close(theirs);
	if (v->data >= 0) { /* what is left of a long answer, then the end */
		for (size_t i = 0; i < 2 * sizeof(named) && v->data >= 0; i++)
			ctl_ready(v, LOOP_IN);
		if (v->data >= 0)
			__builtin_trap();
	}
	close(data);
	net_link_close(&link);
	return 0;
}
