/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A lock that nobody can keep from others by taking it again and again.
 *
 * A plain mutex belongs to whoever is there first when it is free: a thread that lets it go and takes it back a moment
 * later finds it free, while the thread that slept for it has not even woken. Here those who come may go ahead of a
 * thread that sleeps FAIR_LOCK_AHEAD times; the next one waits until a sleeper has had its turn. Nobody waits when
 * letting go, so that a thread which goes on to other work is not held up by those that come after it.
 *
 * The owner may take it again (recursively). Uncontended, it costs what the mutex inside costs and a few loads and
 * stores of its own cache line.
 */
#ifndef BASE_LOCK_H
#define BASE_LOCK_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#define FAIR_LOCK_AHEAD 8

struct fair_lock {
	pthread_mutex_t mutex;	    /* recursive */
	_Atomic uintptr_t last;	    /* who had it last, or has it */
	_Atomic uint32_t depth;	    /* of the owner's recursion; written by the owner */
	_Atomic uint32_t waiting;   /* threads asleep for it */
	_Atomic uint32_t ahead;	    /* how often one of those was passed since the last turn; roughly */
	_Atomic uint32_t turn;	    /* a futex: another number each time one of those got it */
	_Atomic uint32_t deferring; /* newcomers that wait for `turn` to change */
};

void fair_lock_init(struct fair_lock *l);
void fair_lock_destroy(struct fair_lock *l);
void fair_lock_contended(struct fair_lock *l); /* the slow path of fair_lock() */

static inline void
fair_lock(struct fair_lock *l)
{
	if (atomic_load_explicit(&l->waiting, memory_order_relaxed) || pthread_mutex_trylock(&l->mutex))
		fair_lock_contended(l);
	atomic_store_explicit(&l->last, (uintptr_t)pthread_self(), memory_order_relaxed);
	atomic_store_explicit(
		&l->depth, atomic_load_explicit(&l->depth, memory_order_relaxed) + 1, memory_order_relaxed);
}

/* False: somebody has it, or sleeps for it. */
static inline bool
fair_trylock(struct fair_lock *l)
{
	if (atomic_load_explicit(&l->waiting, memory_order_relaxed) || pthread_mutex_trylock(&l->mutex))
		return false;
	atomic_store_explicit(&l->last, (uintptr_t)pthread_self(), memory_order_relaxed);
	atomic_store_explicit(
		&l->depth, atomic_load_explicit(&l->depth, memory_order_relaxed) + 1, memory_order_relaxed);
	return true;
}

static inline void
fair_unlock(struct fair_lock *l)
{
	atomic_store_explicit(
		&l->depth, atomic_load_explicit(&l->depth, memory_order_relaxed) - 1, memory_order_relaxed);
	pthread_mutex_unlock(&l->mutex);
}

#endif
