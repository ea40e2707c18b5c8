/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What guests have open. A handle's number has its place in the table in the low half and a serial number above, so
 * that one that was closed is not taken for the next in its place.
 */
#include <stdlib.h>
#include <unistd.h>

#include "share/private.h"

static int
free_place(struct share *s)
{
	for (int i = 0; i < s->handle_count; i++)
		if (!s->handles[i])
			return i;
	if (s->handle_count == s->handle_max)
		return -1;
	return s->handle_count++;
}

uint64_t
handle_add(struct share *s, const struct handle *h)
{
	struct handle *n;
	int place;

	pthread_mutex_lock(&s->lock);
	place = free_place(s);
	if (place < 0) {
		pthread_mutex_unlock(&s->lock);
		return HANDLE_NIL;
	}
	n = xcalloc(1, sizeof(*n));
	*n = *h;
	pthread_mutex_init(&n->lock, NULL);
	n->refs = 1;
	if (!n->id)
		n->id = (uint64_t)(++s->next_serial & 0x7fffffff) << 32 | (uint32_t)(place + 1);
	s->handles[place] = n;
	pthread_mutex_unlock(&s->lock);
	return n->id;
}

/* The table's, or NULL. Lock held. */
static struct handle **
find(struct share *s, uint32_t client, uint32_t root, uint64_t id)
{
	uint32_t place = (uint32_t)id - 1;
	struct handle *h;

	if (place >= (uint32_t)s->handle_count || !s->handles[place])
		return NULL;
	h = s->handles[place];
	return h->id == id && h->client == client && h->root == root ? &s->handles[place] : NULL;
}

struct handle *
handle_get(struct share *s, uint32_t client, uint32_t root, uint64_t id)
{
	struct handle **at, *h = NULL;

	pthread_mutex_lock(&s->lock);
	at = find(s, client, root, id);
	if (at) {
		h = *at;
		h->refs++;
	}
	pthread_mutex_unlock(&s->lock);
	return h;
}

static void
destroy(struct handle *h)
{
	if (h->dir)
		closedir(h->dir);
	if (h->fd >= 0)
		close(h->fd);
	pthread_mutex_destroy(&h->lock);
	free(h);
}

void
handle_put(struct share *s, struct handle *h)
{
	bool last;

	pthread_mutex_lock(&s->lock);
	last = --h->refs == 0;
	pthread_mutex_unlock(&s->lock);
	if (last)
		destroy(h);
}

bool
handle_close(struct share *s, uint32_t client, uint32_t root, uint64_t id)
{
	struct handle **at, *h = NULL;

	pthread_mutex_lock(&s->lock);
	at = find(s, client, root, id);
	if (at) {
		h = *at;
		*at = NULL;
	}
	pthread_mutex_unlock(&s->lock);
	if (h)
		handle_put(s, h);
	return h != NULL;
}

void
handles_close(struct share *s, uint32_t client, uint32_t root)
{
	for (int i = 0; i < s->handle_count; i++) {
		struct handle *h;

		pthread_mutex_lock(&s->lock);
		h = s->handles[i];
		if (h && (client == UINT32_MAX || h->client == client) && (root == UINT32_MAX || h->root == root))
			s->handles[i] = NULL;
		else
			h = NULL;
		pthread_mutex_unlock(&s->lock);
		if (h)
			handle_put(s, h);
	}
}

int
share_open_handles(struct share *s)
{
	int n = 0;

	pthread_mutex_lock(&s->lock);
	for (int i = 0; i < s->handle_count; i++)
		n += s->handles[i] != NULL;
	pthread_mutex_unlock(&s->lock);
	return n;
}
