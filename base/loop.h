/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The event loop: one thread waits in loop_run() for files to become ready, for timers and for posted calls.
 *
 * Built on epoll and one timerfd. `lock`, given at loop_open(), is held during every callback and released while
 * waiting: a machine passes its machine lock (bus/machine.h), so that device code always runs under it, whichever
 * thread it is on.
 *
 * Threads: loop_post() and the timer functions may be called from any thread that holds `lock` (loop_post() also
 * without it); watches are added and removed under `lock`.
 */
#ifndef BASE_LOOP_H
#define BASE_LOOP_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

struct fair_lock;
struct loop;
struct loop_watch;

/* Readiness bits, the same numbers as EPOLLIN, EPOLLOUT, EPOLLHUP|EPOLLERR are mapped to. */
enum { LOOP_IN = 1, LOOP_OUT = 2, LOOP_HUP = 4 };

struct loop *loop_open(pthread_mutex_t *lock); /* NULL when out of memory or files */
struct loop *loop_open_fair(struct fair_lock *lock);
void loop_close(struct loop *l);

/* Wait and dispatch until loop_stop(). Takes and releases the lock itself: call without it. */
void loop_run(struct loop *l);
void loop_stop(struct loop *l); /* any thread, also a signal handler */

/* For another thread that has to do what a callback would: its lock, when it is free at this moment. */
bool loop_try_lock(struct loop *l);
void loop_unlock(struct loop *l);

/*
 * Call fn(opaque, ready) whenever `fd` is ready for one of `events`. The fd stays the caller's. Returns NULL when the
 * kernel refuses. loop_watch_set() changes `events` (0: none for now). After loop_watch_remove() fn is not called
 * again, even if readiness was already noted.
 */
struct loop_watch *loop_watch_add(
	struct loop *l, int fd, int events, void (*fn)(void *opaque, int ready), void *opaque);
void loop_watch_set(struct loop_watch *w, int events);
void loop_watch_remove(struct loop_watch *w);

/* Call fn(opaque) soon on the loop's thread, once per call, in order. Any thread. */
void loop_post(struct loop *l, void (*fn)(void *opaque), void *opaque);

/* Timers: embedded by their owner; one-shot; `when` in nanoseconds of CLOCK_MONOTONIC. */
struct loop_timer {
	void (*fn)(void *opaque);
	void *opaque;
	struct loop *loop;
	uint64_t when;
	int slot; /* place in the loop's heap, -1 when not armed */
};
void loop_timer_init(struct loop_timer *t, struct loop *l, void (*fn)(void *opaque), void *opaque);
void loop_timer_arm(struct loop_timer *t, uint64_t when_ns); /* re-arming moves it */
void loop_timer_cancel(struct loop_timer *t);
static inline bool
loop_timer_armed(const struct loop_timer *t)
{
	return t->slot >= 0;
}

/* Nanoseconds of CLOCK_MONOTONIC. */
uint64_t loop_now(void);

#endif
