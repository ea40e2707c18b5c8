/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation: a link joins one adapter and one network (net.h). Frames from the adapter go straight through.
 * Frames for the adapter go straight through as well while it takes them; from the first one it has no room for, they
 * wait in a bounded queue, in order, until net_adapter_ready(). A full queue drops the newest frame, as a wire does:
 * TCP slows down on its own.
 *
 * A link may share a limit of bytes a second with others. What is above it waits in a queue of the same kind, from
 * which a timer sends; a full one drops the newest frame too.
 *
 * The queue is one ring of bytes, allocated when it is first needed: a record is a 4-byte length, 4 bytes with the MSS
 * (of a large frame, else 0) and the frame, padded to 4 bytes, never split; a length of QUEUE_WRAP says "go on at the
 * start". No allocation per frame.
 */
#include "net/net.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "base/str.h"

#define QUEUE_BYTES (512u << 10)
#define QUEUE_WRAP UINT32_MAX
#define RECEIVE_BATCH 64

struct net_queue {
	size_t head, tail; /* next to take, next to fill; equal: empty */
	bool flushing;	   /* a frame is being offered: do not start again from within */
	uint8_t bytes[QUEUE_BYTES];
};

#define RECORD_HEAD 8

struct queued {
	const uint8_t *frame;
	size_t len;
	unsigned mss;
};

static size_t
record_size(size_t len)
{
	return RECORD_HEAD + ((len + 3) & ~(size_t)3);
}

/* Where a record of `size` bytes can go, contiguously, without the tail meeting the head; SIZE_MAX: nowhere. */
static size_t
queue_place(const struct net_queue *q, size_t size)
{
	if (q->tail < q->head)
		return size < q->head - q->tail ? q->tail : SIZE_MAX;
	/* 4 bytes stay for the wrap mark */
	if (size + 4 <= QUEUE_BYTES - q->tail)
		return q->tail;
	return size < q->head ? 0 : SIZE_MAX;
}

static bool
queue_put(struct net_queue *q, const uint8_t *frame, size_t len, unsigned mss)
{
	uint32_t head[2] = { (uint32_t)len, mss }, wrap = QUEUE_WRAP;
	size_t at = queue_place(q, record_size(len));

	if (at == SIZE_MAX)
		return false;
	if (at != q->tail)
		memcpy(q->bytes + q->tail, &wrap, 4);
	memcpy(q->bytes + at, head, RECORD_HEAD);
	memcpy(q->bytes + at + RECORD_HEAD, frame, len);
	q->tail = at + record_size(len);
	return true;
}

/* The oldest frame, left in the queue; false when there is none. */
static bool
queue_peek(struct net_queue *q, struct queued *f)
{
	uint32_t head[2];

	if (q->head == q->tail)
		return false;
	memcpy(head, q->bytes + q->head, 4);
	if (head[0] == QUEUE_WRAP)
		q->head = 0;
	memcpy(head, q->bytes + q->head, RECORD_HEAD);
	*f = (struct queued){ q->bytes + q->head + RECORD_HEAD, head[0], head[1] };
	return true;
}

static void
queue_drop(struct net_queue *q, size_t len)
{
	q->head += record_size(len);
	if (q->head == q->tail)
		q->head = q->tail = 0;
}

/* ---- limits: a bucket of tokens, a tenth of a second deep, that all links of a limit draw from ---- */

#define LIMIT_BURST 65536
#define LIMIT_SLICE_NS UINT64_C(5000000)

struct net_limit {
	struct loop_timer timer;
	uint64_t rate; /* bytes a second, 0: no limit */
	int64_t tokens;
	uint64_t filled; /* when tokens were counted last */
	struct net_link *links;
};

static void send_now(struct net_link *l, const struct queued *f);

static void
limit_fill(struct net_limit *m)
{
	uint64_t now = loop_now(), passed = MIN(now - m->filled, UINT64_C(1000000000));
	int64_t depth = MAX((int64_t)(m->rate / 10), (int64_t)LIMIT_BURST);
	int64_t more = (int64_t)(passed / 1000 * m->rate / 1000000);

	if (!more && passed < UINT64_C(1000000000))
		return; /* keep counting from where we were */
	m->tokens = MIN(m->tokens + more, depth);
	m->filled = now;
}

/* True: send it now. */
static bool
limit_take(struct net_limit *m, struct net_link *l, size_t len)
{
	if (!m->rate)
		return true;
	limit_fill(m);
	if (m->tokens > 0 && (!l->held || l->held->head == l->held->tail)) {
		m->tokens -= (int64_t)len;
		return true;
	}
	if (!loop_timer_armed(&m->timer))
		loop_timer_arm(&m->timer, loop_now() + LIMIT_SLICE_NS);
	return false;
}

/* One held frame of this link, if there is one. */
static bool
limit_send(struct net_limit *m, struct net_link *l)
{
	struct queued f;

	if (!l->held || !queue_peek(l->held, &f))
		return false;
	m->tokens -= (int64_t)f.len;
	if (net_link_up(l))
		send_now(l, &f);
	else
		l->stats.dropped++;
	queue_drop(l->held, f.len);
	return true;
}

/* Held frames, one of each link in turn, as far as the tokens go. */
static void
limit_run(void *opaque)
{
	struct net_limit *m = opaque;
	bool any = true;

	limit_fill(m);
	while (any && (m->tokens > 0 || !m->rate)) {
		any = false;
		for (struct net_link *l = m->links; l; l = l->limit_next)
			any |= (m->tokens > 0 || !m->rate) && limit_send(m, l);
	}
	for (struct net_link *l = m->links; l; l = l->limit_next) {
		if (l->held && l->held->head != l->held->tail && !loop_timer_armed(&m->timer))
			loop_timer_arm(&m->timer, loop_now() + LIMIT_SLICE_NS);
		if (!l->held || l->held->head == l->held->tail)
			net_send_ready(l);
	}
}

struct net_limit *
net_limit_open(struct loop *loop, uint64_t rate)
{
	struct net_limit *m = xcalloc(1, sizeof(*m));

	loop_timer_init(&m->timer, loop, limit_run, m);
	m->filled = loop_now();
	m->rate = rate;
	return m;
}

void
net_limit_set(struct net_limit *m, uint64_t rate)
{
	limit_fill(m);
	m->rate = rate;
	m->tokens = MIN(m->tokens, 0);
	if (!loop_timer_armed(&m->timer))
		loop_timer_arm(&m->timer, loop_now());
}

void
net_limit_close(struct net_limit *m)
{
	loop_timer_cancel(&m->timer);
	free(m);
}

void
net_link_limit(struct net_link *l, struct net_limit *m)
{
	if (l->limit) {
		struct net_link **at = &l->limit->links;

		while (limit_send(l->limit, l))
			;
		while (*at != l)
			at = &(*at)->limit_next;
		*at = l->limit_next;
	}
	l->limit = m;
	l->limit_next = m ? m->links : NULL;
	if (m)
		m->links = l;
}

/* ---- the link ---- */

void
net_link_init(struct net_link *l, const uint8_t mac[6])
{
	*l = (struct net_link){ .cable = true };
	memcpy(l->mac, mac, 6);
}

void
net_unplug(struct net_link *l)
{
	if (!l->class)
		return;
	l->class->close(l->backend);
	l->class = NULL;
	l->backend = NULL;
	if (l->queue && !l->queue->flushing)
		l->queue->head = l->queue->tail = 0;
	if (l->held)
		l->held->head = l->held->tail = 0;
	net_send_ready(l); /* into nothing */
	if (l->adapter.link_changed)
		l->adapter.link_changed(l->adapter.opaque, net_link_up(l));
}

void
net_link_close(struct net_link *l)
{
	if (l->class)
		l->class->close(l->backend);
	l->class = NULL;
	l->backend = NULL;
	net_link_limit(l, NULL);
	pcap_close(l->trace);
	l->trace = NULL;
	free(l->queue);
	l->queue = NULL;
	free(l->held);
	l->held = NULL;
}

#define HELD_MAX (128u << 10) /* of QUEUE_BYTES: an adapter that can wait does not fill it */

static size_t
queue_used(const struct net_queue *q)
{
	return q->tail >= q->head ? q->tail - q->head : QUEUE_BYTES - q->head + q->tail;
}

bool
net_can_send(struct net_link *l)
{
	bool held = l->limit && l->held && queue_used(l->held) > HELD_MAX;

	l->send_waits = held || (l->class && l->class->room && !l->class->room(l->backend));
	return !l->send_waits;
}

void
net_send_ready(struct net_link *l)
{
	if (!l->send_waits)
		return;
	l->send_waits = false;
	if (l->adapter.send_ready)
		l->adapter.send_ready(l->adapter.opaque);
}

bool
net_link_waiting(const struct net_link *l)
{
	return l->queue && l->queue->head != l->queue->tail;
}

static void
send_now(struct net_link *l, const struct queued *f)
{
	l->stats.tx_frames++;
	l->stats.tx_bytes += f->len;
	if (l->trace)
		pcap_frame(l->trace, f->frame, f->len);
	if (!f->mss)
		l->class->send(l->backend, f->frame, f->len);
	else if (l->class->send_large)
		l->class->send_large(l->backend, f->frame, f->len, f->mss);
}

static void
send_any(struct net_link *l, const struct queued *f)
{
	if (!net_link_up(l) || f->len < 14 || f->len > NET_FRAME_MAX) {
		l->stats.dropped++;
		return;
	}
	if (l->limit && !limit_take(l->limit, l, f->len)) {
		if (!l->held)
			l->held = xcalloc(1, sizeof(*l->held));
		if (!queue_put(l->held, f->frame, f->len, f->mss))
			l->stats.dropped++;
		return;
	}
	send_now(l, f);
}

void
net_send(struct net_link *l, const uint8_t *frame, size_t len)
{
	send_any(l, &(struct queued){ frame, len, 0 });
}

bool
net_takes_large(const struct net_link *l)
{
	return net_link_up(l) && l->class->takes_large && l->class->takes_large(l->backend);
}

void
net_send_large(struct net_link *l, const uint8_t *frame, size_t len, unsigned mss)
{
	send_any(l, &(struct queued){ frame, len, mss });
}

void
net_burst(struct net_link *l)
{
	l->in_burst = true;
}

void
net_burst_end(struct net_link *l)
{
	l->in_burst = false;
	if (l->class && l->class->burst_end)
		l->class->burst_end(l->backend);
}

static bool
offer(struct net_link *l, const struct queued *f)
{
	const struct net_adapter *a = &l->adapter;

	if (f->mss && a->receive_large ? !a->receive_large(a->opaque, f->frame, f->len, f->mss)
				       : !a->receive || !a->receive(a->opaque, f->frame, f->len))
		return false;
	l->stats.rx_frames++;
	l->stats.rx_bytes += f->len;
	return true;
}

/* True when the queue is empty afterwards. */
static bool
flush(struct net_link *l)
{
	struct net_queue *q = l->queue;
	struct queued f;

	if (!q)
		return true;
	if (q->flushing)
		return false;
	q->flushing = true;
	while (queue_peek(q, &f) && offer(l, &f))
		queue_drop(q, f.len);
	q->flushing = false;
	return q->head == q->tail;
}

static void
deliver_any(struct net_link *l, const struct queued *f)
{
	if (!l->cable || !l->adapter.receive || f->len < 14 || f->len > NET_FRAME_MAX) {
		l->stats.dropped++;
		return;
	}
	if (l->trace)
		pcap_frame(l->trace, f->frame, f->len);
	if (flush(l) && offer(l, f))
		return;
	if (!l->queue)
		l->queue = xcalloc(1, sizeof(*l->queue));
	if (!queue_put(l->queue, f->frame, f->len, f->mss))
		l->stats.dropped++;
}

void
net_deliver(struct net_link *l, const uint8_t *frame, size_t len)
{
	deliver_any(l, &(struct queued){ frame, len, 0 });
}

void
net_receive(struct net_link *l, int fd, struct loop_watch *watch, uint8_t *frame)
{
	for (int i = 0; i < RECEIVE_BATCH && !net_link_waiting(l); i++) {
		ssize_t n = recv(fd, frame, NET_FRAME_MAX, MSG_DONTWAIT);

		if (n < 0 && errno == ECONNREFUSED)
			continue; /* of something we sent: nobody listens there yet */
		if (n < 0)
			return;
		net_deliver(l, frame, (size_t)n);
	}
	if (net_link_waiting(l))
		loop_watch_set(watch, 0);
}

bool
net_adapter_takes_large(const struct net_link *l)
{
	return l->adapter.takes_large && l->adapter.takes_large(l->adapter.opaque);
}

void
net_deliver_large(struct net_link *l, const uint8_t *frame, size_t len, unsigned mss)
{
	deliver_any(l, &(struct queued){ frame, len, mss });
}

void
net_adapter_ready(struct net_link *l)
{
	if (flush(l) && l->class && l->class->ready)
		l->class->ready(l->backend);
}

void
net_set_cable(struct net_link *l, bool plugged)
{
	if (l->cable == plugged)
		return;
	l->cable = plugged;
	if (!plugged && l->queue && !l->queue->flushing)
		l->queue->head = l->queue->tail = 0;
	if (l->adapter.link_changed)
		l->adapter.link_changed(l->adapter.opaque, net_link_up(l));
}
