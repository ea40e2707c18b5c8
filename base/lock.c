/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation: lock.h says what is promised. `waiting` counts the threads asleep in the mutex. Each of them
 * changes `turn` when it has got it, which is what newcomers wait for, in a futex, when enough have gone ahead.
 *
 * No wake-up is lost: who defers counts itself before it sleeps on the value of `turn` it has seen; who takes a turn
 * changes `turn` before it looks whether somebody defers. It cannot wait for ever: it waits only while it has seen a
 * thread in the mutex, which the owner of the mutex, and nobody else, keeps there.
 *
 * A thread that owns the lock must not defer. It finds itself in `last` with `depth` above 0, and nobody else writes
 * these while it owns the lock. Read by a thread that does not own it while another takes it, the two may seem to say
 * that it does; then it goes to the mutex without deferring, which does no harm.
 */
#include "base/lock.h"

#include <limits.h>
#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

void
fair_lock_init(struct fair_lock *l)
{
	pthread_mutexattr_t attr;

	*l = (struct fair_lock){ 0 };
	pthread_mutexattr_init(&attr);
	pthread_mutexattr_settype(&attr, PTHREAD_MUTEX_RECURSIVE);
	pthread_mutex_init(&l->mutex, &attr);
	pthread_mutexattr_destroy(&attr);
}

void
fair_lock_destroy(struct fair_lock *l)
{
	pthread_mutex_destroy(&l->mutex);
}

/* Until one of those who sleep has had its turn. */
static void
defer(struct fair_lock *l)
{
	uint32_t turn = l->turn;

	l->deferring++;
	while (l->waiting && l->turn == turn)
		syscall(SYS_futex, &l->turn, FUTEX_WAIT_PRIVATE, turn, NULL, NULL, 0);
	l->deferring--;
}

void
fair_lock_contended(struct fair_lock *l)
{
	bool own = l->last == (uintptr_t)pthread_self() && l->depth;

	if (!own && l->waiting && l->ahead++ >= FAIR_LOCK_AHEAD)
		defer(l);
	if (!pthread_mutex_trylock(&l->mutex))
		return;
	l->waiting++;
	pthread_mutex_lock(&l->mutex);
	l->waiting--;
	l->ahead = 0;
	l->turn++;
	if (l->deferring)
		syscall(SYS_futex, &l->turn, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0);
}
