/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Saving a machine that stands still. Threads compress chunks side by side and take turns to reserve their place in the
 * file, in the order of the chunks: the same machine gives the same bytes, however the threads were scheduled.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "state/private.h"

struct save {
	struct state_map map;
	struct state_writer w;
	const struct state_progress *progress;
	pthread_mutex_t lock;
	pthread_cond_t turn;
	_Atomic uint64_t next; /* chunk to be compressed */
	uint64_t placed;       /* chunks that have their place */
	int percent;
	int result;
};

/* Wait for chunk n's turn and give it its place. False: somebody failed. */
static bool
place(struct save *s, uint64_t n, int packed, uint64_t *offset)
{
	int percent;
	bool ok;

	pthread_mutex_lock(&s->lock);
	if (packed < 0 && !s->result)
		s->result = packed;
	while (s->placed != n && !s->result)
		pthread_cond_wait(&s->turn, &s->lock);
	ok = !s->result;
	*offset = s->w.end;
	if (ok) {
		s->w.end += (uint64_t)packed;
		s->placed++;
		percent = (int)(s->placed * 99 / s->map.count);
		if (s->progress && s->progress->at && percent != s->percent)
			s->progress->at(s->progress->opaque, percent);
		s->percent = percent;
	}
	pthread_cond_broadcast(&s->turn);
	pthread_mutex_unlock(&s->lock);
	return ok;
}

static void
fail(struct save *s, int result)
{
	pthread_mutex_lock(&s->lock);
	if (!s->result)
		s->result = result;
	pthread_cond_broadcast(&s->turn);
	pthread_mutex_unlock(&s->lock);
}

static void *
save_some(void *opaque)
{
	struct save *s = opaque;
	struct state_packer p;
	uint64_t n, offset;
	int r;

	if (state_packer_open(&p)) {
		fail(s, -ENOMEM);
		return NULL;
	}
	while ((n = s->next++) < s->map.count) {
		uint32_t len;
		const uint8_t *at = state_chunk_at(&s->map, n, &len);

		if (state_stopped(s->progress)) {
			fail(s, -ECANCELED);
			break;
		}
		if (!place(s, n, state_pack(&p, &s->map, n, at, len), &offset))
			break;
		r = state_put(&s->w, &p, n, offset);
		if (r) {
			fail(s, r);
			break;
		}
	}
	state_packer_close(&p);
	return NULL;
}

/* Devices draw their conclusions once before they are saved, as they will when they are loaded: saving what was loaded
 * then gives the same bytes. */
static void
settle(struct machine *m)
{
	machine_lock(m);
	for (struct device *d = m->devices; d; d = d->next)
		if (d->class->loaded)
			d->class->loaded(d);
	machine_unlock(m);
}

int
state_save(int fd, struct machine *m, struct cpus *c, const struct state_progress *p, struct state_numbers *n,
	struct err *e)
{
	struct save s = { .progress = p, .percent = -1 };
	pthread_t t[STATE_THREADS_MAX];
	unsigned count = state_threads(), made = 0;
	struct str description = { 0 };
	int r = -1;

	if (state_map_init(&s.map, &m->mem, e))
		return -1;
	settle(m);
	state_describe(&description, m, c);
	state_writer_init(&s.w, fd, &s.map);
	pthread_mutex_init(&s.lock, NULL);
	pthread_cond_init(&s.turn, NULL);
	while (made + 1 < count && !pthread_create(&t[made], NULL, save_some, &s))
		made++;
	save_some(&s);
	while (made)
		pthread_join(t[--made], NULL);
	if (s.result)
		err_sys(e, ERR_FILE, s.result, "cannot write the saved state");
	else
		r = state_writer_finish(&s.w, &description, e);
	if (n) {
		*n = (struct state_numbers){ .written = s.w.end };
		for (int i = 0; i < s.map.rams; i++)
			n->memory += s.map.ram[i].size;
	}
	pthread_cond_destroy(&s.turn);
	pthread_mutex_destroy(&s.lock);
	str_free(&description);
	state_map_free(&s.map);
	return r;
}
