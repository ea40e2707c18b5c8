/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A limit of bytes a second, shared by any number of images and links.
 *
 * Each transfer takes the time that its bytes need at that rate; `next` is when the one that comes next may begin. A
 * limit that was idle lets BURST_NS worth of bytes through at once, so that the rate holds over a tenth of a second and
 * more. Who has to wait sleeps; a change of the rate wakes everybody to look again, and the time that was promised to
 * those who wait counts by the new rate only for those who come later.
 */
#include <pthread.h>
#include <stdlib.h>
#include <time.h>

#include "block/block.h"

#define BURST_NS 100000000u

struct block_limit {
	pthread_mutex_t lock;
	pthread_cond_t changed;
	uint64_t rate; /* bytes a second; 0: none */
	uint64_t next; /* CLOCK_MONOTONIC, ns */
	unsigned hurry;
};

static uint64_t
now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

struct block_limit *
block_limit_create(uint64_t rate)
{
	struct block_limit *l = xcalloc(1, sizeof(*l));
	pthread_condattr_t attr;

	pthread_mutex_init(&l->lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&l->changed, &attr);
	pthread_condattr_destroy(&attr);
	l->rate = rate;
	return l;
}

void
block_limit_free(struct block_limit *l)
{
	if (!l)
		return;
	pthread_cond_destroy(&l->changed);
	pthread_mutex_destroy(&l->lock);
	free(l);
}

void
block_limit_set(struct block_limit *l, uint64_t rate)
{
	pthread_mutex_lock(&l->lock);
	l->rate = rate;
	l->next = 0;
	pthread_cond_broadcast(&l->changed);
	pthread_mutex_unlock(&l->lock);
}

/* When a transfer of `bytes` may begin; 0: at once. Lock held. */
static uint64_t
book(struct block_limit *l, uint64_t bytes)
{
	uint64_t t = now(), begin, cost;

	if (!l->rate)
		return 0;
	cost = (uint64_t)((unsigned __int128)bytes * 1000000000u / l->rate);
	if (l->next + BURST_NS < t)
		l->next = t - BURST_NS;
	begin = l->next;
	l->next += cost;
	return begin > t ? begin : 0;
}

void
block_limit_take(struct block_limit *l, uint64_t bytes)
{
	uint64_t begin, rate;

	pthread_mutex_lock(&l->lock);
	begin = book(l, bytes);
	rate = l->rate;
	while (begin > now() && !l->hurry) {
		struct timespec until = { .tv_sec = (time_t)(begin / 1000000000u),
			.tv_nsec = (long)(begin % 1000000000u) };

		pthread_cond_timedwait(&l->changed, &l->lock, &until);
		if (l->rate == rate)
			continue;
		rate = l->rate;
		begin = book(l, bytes);
	}
	pthread_mutex_unlock(&l->lock);
}

void
block_limit_hurry(struct block_limit *l, bool on)
{
	pthread_mutex_lock(&l->lock);
	l->hurry += on ? 1 : -1u;
	pthread_cond_broadcast(&l->changed);
	pthread_mutex_unlock(&l->lock);
}
