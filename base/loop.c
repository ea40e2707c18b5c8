/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation: see loop.h. Timers stand in a binary heap ordered by `when`; the kernel's timerfd is armed for
 * the first of them. Posted calls are a list under its own small lock, so that posting needs no machine lock; an
 * eventfd wakes the thread. A watch that is removed while its readiness is being dispatched is only marked, and freed
 * when the batch is done.
 */
#include "base/loop.h"
#include "base/lock.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

struct post {
	struct post *next;
	void (*fn)(void *);
	void *opaque;
};

struct loop_watch {
	struct loop *loop;
	struct loop_watch *next_dead;
	int fd, events;
	bool registered, dead;
	void (*fn)(void *, int);
	void *opaque;
};

struct loop {
	pthread_mutex_t *lock; /* one of these two */
	struct fair_lock *fair;
	int epfd, evfd, tfd;
	_Atomic bool stop;
	struct loop_watch *dead;
	struct loop_timer **heap;
	int heap_len, heap_cap;
	uint64_t tfd_when;
	pthread_mutex_t post_lock;
	struct post *posts, **posts_tail;
};

uint64_t
loop_now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static int
epoll_bits(int events)
{
	return (events & LOOP_IN ? EPOLLIN : 0) | (events & LOOP_OUT ? EPOLLOUT : 0);
}

struct loop *
loop_open(pthread_mutex_t *lock)
{
	struct epoll_event ev = { .events = EPOLLIN };
	struct loop *l = calloc(1, sizeof(*l));

	if (!l)
		return NULL;
	l->lock = lock;
	l->posts_tail = &l->posts;
	pthread_mutex_init(&l->post_lock, NULL);
	l->epfd = epoll_create1(EPOLL_CLOEXEC);
	l->evfd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	l->tfd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
	if (l->epfd < 0 || l->evfd < 0 || l->tfd < 0)
		goto fail;
	ev.data.ptr = &l->evfd;
	if (epoll_ctl(l->epfd, EPOLL_CTL_ADD, l->evfd, &ev))
		goto fail;
	ev.data.ptr = &l->tfd;
	if (epoll_ctl(l->epfd, EPOLL_CTL_ADD, l->tfd, &ev))
		goto fail;
	return l;
fail:
	loop_close(l);
	return NULL;
}

struct loop *
loop_open_fair(struct fair_lock *lock)
{
	struct loop *l = loop_open(NULL);

	if (l)
		l->fair = lock;
	return l;
}

static void
free_dead(struct loop *l)
{
	struct loop_watch *w;

	while ((w = l->dead)) {
		l->dead = w->next_dead;
		free(w);
	}
}

void
loop_close(struct loop *l)
{
	struct post *p;

	if (!l)
		return;
	free_dead(l);
	while ((p = l->posts)) {
		l->posts = p->next;
		free(p);
	}
	for (int i = 0; i < l->heap_len; i++)
		l->heap[i]->slot = -1;
	free(l->heap);
	if (l->epfd >= 0)
		close(l->epfd);
	if (l->evfd >= 0)
		close(l->evfd);
	if (l->tfd >= 0)
		close(l->tfd);
	pthread_mutex_destroy(&l->post_lock);
	free(l);
}

static void
wake(struct loop *l)
{
	uint64_t one = 1;
	ssize_t r = write(l->evfd, &one, sizeof(one));

	(void)r; /* EAGAIN: it is awake already */
}

void
loop_stop(struct loop *l)
{
	l->stop = true;
	wake(l);
}

/* ---- watches ---- */

static void
watch_apply(struct loop_watch *w)
{
	struct epoll_event ev = { .events = (uint32_t)epoll_bits(w->events), .data.ptr = w };

	/* Not registered at all while nothing is wanted: a hung-up peer would otherwise wake the loop for ever. */
	if (w->events && !w->registered)
		w->registered = !epoll_ctl(w->loop->epfd, EPOLL_CTL_ADD, w->fd, &ev);
	else if (w->events)
		epoll_ctl(w->loop->epfd, EPOLL_CTL_MOD, w->fd, &ev);
	else if (w->registered) {
		epoll_ctl(w->loop->epfd, EPOLL_CTL_DEL, w->fd, NULL);
		w->registered = false;
	}
}

struct loop_watch *
loop_watch_add(struct loop *l, int fd, int events, void (*fn)(void *opaque, int ready), void *opaque)
{
	struct loop_watch *w = calloc(1, sizeof(*w));

	if (!w)
		return NULL;
	*w = (struct loop_watch){ .loop = l, .fd = fd, .events = events, .fn = fn, .opaque = opaque };
	watch_apply(w);
	if (events && !w->registered) {
		free(w);
		return NULL;
	}
	return w;
}

void
loop_watch_set(struct loop_watch *w, int events)
{
	if (w->events == events)
		return;
	w->events = events;
	watch_apply(w);
}

void
loop_watch_remove(struct loop_watch *w)
{
	if (!w)
		return;
	w->events = 0;
	watch_apply(w);
	w->dead = true;
	w->next_dead = w->loop->dead;
	w->loop->dead = w;
}

/* ---- posted calls ---- */

void
loop_post(struct loop *l, void (*fn)(void *opaque), void *opaque)
{
	struct post *p = malloc(sizeof(*p));

	if (!p)
		abort(); /* 24 bytes: the process is beyond help */
	*p = (struct post){ .fn = fn, .opaque = opaque };
	pthread_mutex_lock(&l->post_lock);
	*l->posts_tail = p;
	l->posts_tail = &p->next;
	pthread_mutex_unlock(&l->post_lock);
	wake(l);
}

static void
run_posts(struct loop *l)
{
	struct post *list, *p;

	pthread_mutex_lock(&l->post_lock);
	list = l->posts;
	l->posts = NULL;
	l->posts_tail = &l->posts;
	pthread_mutex_unlock(&l->post_lock);
	while ((p = list)) {
		list = p->next;
		p->fn(p->opaque);
		free(p);
	}
}

/* ---- timers ---- */

static void
heap_put(struct loop *l, int i, struct loop_timer *t)
{
	l->heap[i] = t;
	t->slot = i;
}

static void
heap_up(struct loop *l, int i, struct loop_timer *t)
{
	while (i > 0 && l->heap[(i - 1) / 2]->when > t->when) {
		heap_put(l, i, l->heap[(i - 1) / 2]);
		i = (i - 1) / 2;
	}
	heap_put(l, i, t);
}

static void
heap_down(struct loop *l, int i, struct loop_timer *t)
{
	int c;

	while ((c = 2 * i + 1) < l->heap_len) {
		if (c + 1 < l->heap_len && l->heap[c + 1]->when < l->heap[c]->when)
			c++;
		if (l->heap[c]->when >= t->when)
			break;
		heap_put(l, i, l->heap[c]);
		i = c;
	}
	heap_put(l, i, t);
}

static void
set_timerfd(struct loop *l)
{
	struct itimerspec its = { 0 };
	uint64_t when = l->heap_len ? l->heap[0]->when : UINT64_MAX;

	if (when == l->tfd_when)
		return;
	l->tfd_when = when;
	if (when != UINT64_MAX) {
		if (!when)
			when = 1; /* zero would disarm it */
		its.it_value.tv_sec = (time_t)(when / 1000000000u);
		its.it_value.tv_nsec = (long)(when % 1000000000u);
	}
	timerfd_settime(l->tfd, TFD_TIMER_ABSTIME, &its, NULL);
}

void
loop_timer_init(struct loop_timer *t, struct loop *l, void (*fn)(void *opaque), void *opaque)
{
	*t = (struct loop_timer){ .fn = fn, .opaque = opaque, .loop = l, .slot = -1 };
}

static void
heap_remove(struct loop *l, struct loop_timer *t)
{
	int i = t->slot;
	struct loop_timer *last = l->heap[--l->heap_len];

	t->slot = -1;
	if (last == t)
		return;
	if (i > 0 && l->heap[(i - 1) / 2]->when > last->when)
		heap_up(l, i, last);
	else
		heap_down(l, i, last);
}

void
loop_timer_arm(struct loop_timer *t, uint64_t when_ns)
{
	struct loop *l = t->loop;

	if (t->slot >= 0)
		heap_remove(l, t);
	if (l->heap_len == l->heap_cap) {
		l->heap_cap = l->heap_cap ? 2 * l->heap_cap : 32;
		l->heap = realloc(l->heap, (size_t)l->heap_cap * sizeof(*l->heap));
		if (!l->heap)
			abort();
	}
	t->when = when_ns;
	heap_up(l, l->heap_len++, t);
	set_timerfd(l);
}

void
loop_timer_cancel(struct loop_timer *t)
{
	if (t->slot < 0)
		return;
	heap_remove(t->loop, t);
	set_timerfd(t->loop);
}

static void
run_timers(struct loop *l)
{
	uint64_t now = loop_now();
	struct loop_timer *t;

	while (l->heap_len && (t = l->heap[0])->when <= now) {
		heap_remove(l, t);
		t->fn(t->opaque);
	}
	l->tfd_when = 0; /* it has fired: whatever was armed is gone */
	set_timerfd(l);
}

/* ---- the loop ---- */

static void
drain(int fd)
{
	uint64_t n;
	ssize_t r = read(fd, &n, sizeof(n));

	(void)r;
}

static void
take(struct loop *l)
{
	if (l->fair)
		fair_lock(l->fair);
	else
		pthread_mutex_lock(l->lock);
}

bool
loop_try_lock(struct loop *l)
{
	return l->fair ? fair_trylock(l->fair) : !pthread_mutex_trylock(l->lock);
}

void
loop_unlock(struct loop *l)
{
	if (l->fair)
		fair_unlock(l->fair);
	else
		pthread_mutex_unlock(l->lock);
}

void
loop_run(struct loop *l)
{
	struct epoll_event ev[32];

	while (!l->stop) {
		int n = epoll_wait(l->epfd, ev, 32, -1);

		take(l);
		for (int i = 0; i < n; i++) {
			struct loop_watch *w = ev[i].data.ptr;
			int ready;

			if (ev[i].data.ptr == &l->evfd) {
				drain(l->evfd);
				run_posts(l);
				continue;
			}
			if (ev[i].data.ptr == &l->tfd) {
				drain(l->tfd);
				run_timers(l);
				continue;
			}
			ready = (ev[i].events & EPOLLIN ? LOOP_IN : 0) | (ev[i].events & EPOLLOUT ? LOOP_OUT : 0) |
				(ev[i].events & (EPOLLHUP | EPOLLERR) ? LOOP_HUP : 0);
			if (!w->dead)
				w->fn(w->opaque, ready);
		}
		free_dead(l);
		loop_unlock(l);
	}
}
