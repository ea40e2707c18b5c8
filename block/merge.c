/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Changing a chain: an overlay put in front, two neighbours merged. The contract is in block.h.
 *
 * Why a merge is safe at any moment. Only places change that nobody sees: UP writes to the child where it has nothing,
 * and writes what showed through there; DOWN writes to the parent where the child hides it. So the chain shows the same
 * before, while and after, and one header write ends it.
 *
 * Beside a guest. The copy goes through the disk in pieces. While a piece is copied, changes by the guest that overlap
 * it wait, and it waits for those under way (merge_enter(), merge_leave()); the rest of the disk is not held up. When
 * the child is the top and goes down into its parent, every change of the guest is made to both from the start: behind
 * the piece, where it was copied already, it has to be; before it, it does no harm, as the child hides it.
 *
 * A flush by the guest, when READY, makes both stable, so that the caller may choose either as the disk from then on.
 *
 * The state goes RUNNING -> READY or FAILED, under m->lock. A parent that is written to is opened anew for writing
 * (make_writable()) and again for reading at the end: the driver's state is that of the file at any time, since nobody
 * else writes there.
 */
#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "block/crypt.h"
#include "block/file.h"
#include "block/format.h"

#define PIECE (1ull << 20)
#define SLOTS 64 /* changes by the guest at once: more than there are workers */

struct range {
	uint64_t off, end; /* end 0: not used */
};

struct block_merge {
	struct block *b;
	enum block_merge_way way;
	struct image *above, *child, *parent; /* above: what reads through to the child, NULL when that is the top */
	struct image *to;		      /* child or parent: the one that is written to */
	uint64_t size;			      /* of what is to be copied */
	uint8_t *buf;
	void (*notify)(void *opaque, struct block_merge *m);
	void *opaque;
	struct notice *notice;

	pthread_mutex_t lock; /* everything below */
	pthread_cond_t moved;
	struct range piece, changes[SLOTS];
	uint64_t at;
	enum block_merge_state state;
	struct err why;
	_Atomic bool mirror;
};

/* ---- the guest's side ---- */

static bool
overlaps(const struct range *a, uint64_t off, uint64_t end)
{
	return a->off < end && off < a->end;
}

static int
free_slot(struct block_merge *m)
{
	for (int i = 0; i < SLOTS; i++)
		if (!m->changes[i].end)
			return i;
	return -1;
}

struct merge_ticket
merge_enter(struct block_merge *m, uint64_t off, uint64_t len)
{
	struct merge_ticket t;

	pthread_mutex_lock(&m->lock);
	while (overlaps(&m->piece, off, off + len) || (t.slot = free_slot(m)) < 0)
		pthread_cond_wait(&m->moved, &m->lock);
	m->changes[t.slot] = (struct range){ off, off + len };
	pthread_mutex_unlock(&m->lock);
	return t;
}

void
merge_leave(struct block_merge *m, struct merge_ticket t)
{
	pthread_mutex_lock(&m->lock);
	m->changes[t.slot].end = 0;
	pthread_cond_broadcast(&m->moved);
	pthread_mutex_unlock(&m->lock);
}

/* What is on its way to the loop; it outlives the merge, or the merge it: who comes second frees it. */
enum { NOTICE_SENT, NOTICE_DELIVERED, NOTICE_CANCELLED };

struct notice {
	_Atomic int state;
	struct block_merge *m;
};

static void
deliver_notice(void *opaque)
{
	struct notice *n = opaque;
	int before = NOTICE_SENT;

	if (atomic_compare_exchange_strong(&n->state, &before, NOTICE_DELIVERED))
		n->m->notify(n->m->opaque, n->m);
	else
		free(n);
}

static void
tell(struct block_merge *m)
{
	if (!m->notify || !m->b->loop)
		return;
	m->notice = xcalloc(1, sizeof(*m->notice));
	m->notice->m = m;
	loop_post(m->b->loop, deliver_notice, m->notice);
}

static void
cancel_notice(struct notice *n)
{
	int before = NOTICE_SENT;

	if (n && !atomic_compare_exchange_strong(&n->state, &before, NOTICE_CANCELLED))
		free(n);
}

static void
fail_with(struct block_merge *m, int r, const char *what)
{
	bool first;

	pthread_mutex_lock(&m->lock);
	first = m->state != BLOCK_MERGE_FAILED;
	m->state = BLOCK_MERGE_FAILED;
	m->mirror = false;
	if (first)
		err_sys(&m->why, ERR_FILE, r, "'%s' and '%s' cannot be merged: %s", m->parent->path, m->child->path,
			what);
	pthread_mutex_unlock(&m->lock);
	if (first)
		tell(m);
}

/* The parent lost a change, a full disk say: the child has it, and the merge is off. */
static void
mirror_result(struct block_merge *m, int r)
{
	if (r)
		fail_with(m, r, "writing failed");
}

void
merge_mirror_write(struct block_merge *m, const struct iovec *iov, int iovcnt, uint64_t off, uint64_t len)
{
	if (m->mirror)
		mirror_result(m, m->to->format->write(m->to, iov, iovcnt, 0, off, len));
}

void
merge_mirror_zero(struct block_merge *m, uint64_t off, uint64_t len)
{
	if (m->mirror)
		mirror_result(m, m->to->format->zero(m->to, off, len));
}

int
merge_mirror_flush(struct block_merge *m)
{
	int r = m->mirror ? m->to->format->flush(m->to) : 0;

	/* Not the guest's error: its data is in the child. */
	mirror_result(m, r);
	return 0;
}

/* ---- copying ---- */

static int
read_layer(struct image *i, uint8_t *buf, uint64_t off, uint64_t len)
{
	struct iovec iov = { buf, len };

	return i->format->read(i, &iov, 1, 0, off, len);
}

static int
write_layer(struct image *i, uint8_t *buf, uint64_t off, uint64_t len)
{
	struct iovec iov = { buf, len };

	return i->format->write(i, &iov, 1, 0, off, len);
}

/* [off, off+len) of `from`, where that has it, into m->to. */
static int
copy_range(struct block_merge *m, struct image *from, uint64_t off, uint64_t len)
{
	int r = 0;

	for (uint64_t n; len && !r; off += n, len -= n) {
		enum map_kind kind = MAP_HOLE;

		n = len;
		if (off >= from->size) /* as zeroes do: nothing that is further behind may show */
			kind = from->backing ? MAP_ZERO : MAP_HOLE;
		else {
			n = MIN(n, from->size - off);
			r = from->format->map(from, off, &n, &kind);
		}
		if (r || kind == MAP_HOLE)
			continue;
		if (kind == MAP_DATA)
			r = read_layer(from, m->buf, off, n);
		if (!r && (kind == MAP_ZERO || mem_is_zero(m->buf, n)))
			r = m->to->format->zero(m->to, off, n);
		else if (!r)
			r = write_layer(m->to, m->buf, off, n);
	}
	return r;
}

/* UP: what the child does not have itself. */
static int
fill_holes(struct block_merge *m, uint64_t off, uint64_t len)
{
	int r = 0;

	for (uint64_t n; len && !r; off += n, len -= n) {
		enum map_kind kind;

		n = len;
		r = m->child->format->map(m->child, off, &n, &kind);
		if (!r && kind == MAP_HOLE)
			r = copy_range(m, m->parent, off, n);
	}
	return r;
}

/* Wait until no change overlaps the piece, and keep the next ones back. */
static void
claim(struct block_merge *m, uint64_t off, uint64_t len)
{
	bool busy;

	pthread_mutex_lock(&m->lock);
	m->piece = (struct range){ off, off + len };
	do {
		busy = false;
		for (int i = 0; i < SLOTS && !busy; i++)
			busy = m->changes[i].end && overlaps(&m->changes[i], off, off + len);
		if (busy)
			pthread_cond_wait(&m->moved, &m->lock);
	} while (busy);
	pthread_mutex_unlock(&m->lock);
}

static void
release(struct block_merge *m)
{
	pthread_mutex_lock(&m->lock);
	m->piece = (struct range){ 0, 0 };
	pthread_cond_broadcast(&m->moved);
	pthread_mutex_unlock(&m->lock);
}

/* Everything is copied: make it stable, first beside the guest, then with the guest's changes kept back. */
static void
become_ready(struct block_merge *m)
{
	int r = m->to->format->flush(m->to);

	if (!r && m->mirror)
		r = m->child->format->flush(m->child);
	pthread_rwlock_wrlock(&m->b->chain);
	if (!r && m->mirror)
		r = m->child->format->flush(m->child);
	if (!r)
		r = m->to->format->flush(m->to);
	pthread_mutex_lock(&m->lock);
	if (!r && m->state == BLOCK_MERGE_RUNNING)
		m->state = BLOCK_MERGE_READY;
	pthread_mutex_unlock(&m->lock);
	pthread_rwlock_unlock(&m->b->chain);
	if (r)
		fail_with(m, r, "the data cannot be made stable");
	else
		tell(m);
}

bool
merge_has_work(const struct block_merge *m)
{
	return m->state == BLOCK_MERGE_RUNNING;
}

bool
merge_step(struct block_merge *m)
{
	uint64_t off, len;
	int r;

	pthread_mutex_lock(&m->lock);
	off = m->at;
	r = m->state != BLOCK_MERGE_RUNNING;
	pthread_mutex_unlock(&m->lock);
	if (r)
		return false;
	if (off >= m->size) {
		become_ready(m);
		return true;
	}
	len = MIN(PIECE, m->size - off);
	pthread_rwlock_rdlock(&m->b->chain);
	claim(m, off, len);
	r = m->way == BLOCK_MERGE_UP ? fill_holes(m, off, len) : copy_range(m, m->child, off, len);
	release(m);
	pthread_rwlock_unlock(&m->b->chain);
	if (r) {
		fail_with(m, r, "copying failed");
		return true;
	}
	pthread_mutex_lock(&m->lock);
	m->at = off + len;
	pthread_mutex_unlock(&m->lock);
	return true;
}

/* ---- beginning and end ---- */

/* The place in the chain where a pointer to `i` stands. */
static struct image **
place_of(struct block *b, struct image *i)
{
	struct image **at = &b->top;

	while (*at && *at != i)
		at = &(*at)->backing;
	return at;
}

/*
 * Open the image of `old` anew, for writing or for reading, and put that in its place in the chain. The chain is not
 * changed for its readers. NULL and *e: everything is as it was.
 */
static struct image *
reopen(struct block *b, struct image *old, bool writing, struct err *e)
{
	int flags = IMAGE_NO_PARENT | IMAGE_KEEP_CHANGE | IMAGE_LOCK_SHARED | (writing ? 0 : BLOCK_RDONLY) |
		    (old->flags & BLOCK_DIRECT);
	struct image *fresh;

	int r = old->read_only ? 0 : old->format->flush(old);

	if (r) {
		err_sys(e, ERR_FILE, r, "'%s' cannot be flushed", old->path);
		return NULL;
	}
	/* A lock for reading beside an exclusive one of our own would be refused. */
	if (!old->read_only && image_lock(old, false, e))
		return NULL;
	fresh = image_open(old->path, old->format->name, flags, old->depth, old->finder, e);
	if (!fresh)
		return NULL;
	crypt_share(fresh->crypt, old->crypt);
	pthread_rwlock_wrlock(&b->chain);
	old->read_only = true; /* it is flushed, and nobody writes to it: it is not the top */
	image_unlock(old);
	if (writing && image_lock(fresh, true, e)) {
		image_lock(old, false, NULL);
		pthread_rwlock_unlock(&b->chain);
		image_close(fresh);
		return NULL; /* only who was read-only is opened for writing: it is as it was */
	}
	fresh->flags = old->flags;
	fresh->backing = old->backing;
	*place_of(b, old) = fresh;
	old->backing = NULL;
	pthread_rwlock_unlock(&b->chain);
	image_close(old);
	return fresh;
}

static struct image *
image_at(struct block *b, int depth)
{
	struct image *i = b->top;

	while (i && depth-- > 0)
		i = i->backing;
	return i;
}

static int
check_merge(struct block *b, int child, enum block_merge_way way, struct err *e)
{
	struct image *c = child < 0 ? NULL : image_at(b, child), *p = c ? c->backing : NULL;
	struct image *to = way == BLOCK_MERGE_UP ? c : p;

	if (b->merge)
		return err_set(e, ERR_OBJECT_STATE, "Images of '%s' are being merged already", b->top->path);
	if (!p)
		return err_set(e, ERR_INVALID, "The chain of '%s' has no image %d with a parent", b->top->path, child);
	if (!to->format->zero || to->format->read_only)
		return err_set(
			e, ERR_UNSUPPORTED, "'%s' cannot be merged into: it is a %s image", to->path, to->format->name);
	if (way == BLOCK_MERGE_UP && !c->format->set_parent)
		return err_set(e, ERR_UNSUPPORTED, "'%s' cannot get another parent", c->path);
	if (way == BLOCK_MERGE_DOWN && p->size != c->size && (!p->format->resize || p->size > c->size))
		return err_set(e, ERR_UNSUPPORTED,
			"'%s' has %llu bytes and its parent %llu: they can only be merged when the parent can grow",
			c->path, (unsigned long long)c->size, (unsigned long long)p->size);
	if (crypt_locked(c->crypt) || crypt_locked(p->crypt))
		return err_set(e, ERR_PASSWORD, "'%s' is encrypted and its password was not given", c->path);
	if (!c->crypt != !p->crypt)
		return err_set(e, ERR_UNSUPPORTED, "Only one of '%s' and '%s' is encrypted; they cannot be merged",
			c->path, p->path);
	return 0;
}

/* m->to can be written to, and is as large as it has to be. */
static int
prepare_target(struct block_merge *m, struct err *e)
{
	if (m->to->read_only) {
		m->to = reopen(m->b, m->to, true, e);
		if (!m->to)
			return -1;
		*(m->way == BLOCK_MERGE_UP ? &m->child : &m->parent) = m->to;
	}
	m->to->loses_parent = m->way == BLOCK_MERGE_UP;
	if (m->way == BLOCK_MERGE_DOWN && m->parent->size < m->child->size &&
		m->to->format->resize(m->to, m->child->size, e))
		return -1;
	return 0;
}

static void
merge_free(struct block_merge *m)
{
	cancel_notice(m->notice);
	pthread_mutex_destroy(&m->lock);
	pthread_cond_destroy(&m->moved);
	free(m->buf);
	free(m);
}

/* Who reads along has its merge from now on, or no longer. No worker is at it when this returns. */
static void
set_job(struct block *b, struct block_merge *m)
{
	pthread_rwlock_wrlock(&b->chain);
	pthread_mutex_lock(&b->lock);
	b->merge = m;
	pthread_cond_broadcast(&b->work);
	pthread_mutex_unlock(&b->lock);
	pthread_rwlock_unlock(&b->chain);
	pthread_mutex_lock(&b->lock);
	while (!m && b->job_busy)
		pthread_cond_wait(&b->idle, &b->lock);
	pthread_mutex_unlock(&b->lock);
}

struct block_merge *
block_merge_start(struct block *b, int child, enum block_merge_way way,
	void (*notify)(void *opaque, struct block_merge *m), void *opaque, struct err *e)
{
	struct block_merge *m;

	if (check_merge(b, child, way, e))
		return NULL;
	m = xcalloc(1, sizeof(*m));
	pthread_mutex_init(&m->lock, NULL);
	pthread_cond_init(&m->moved, NULL);
	m->b = b;
	m->way = way;
	m->notify = notify;
	m->opaque = opaque;
	m->above = child ? image_at(b, child - 1) : NULL;
	m->child = image_at(b, child);
	m->parent = m->child->backing;
	m->to = way == BLOCK_MERGE_UP ? m->child : m->parent;
	m->buf = malloc(PIECE);
	m->size = m->child->size;
	m->mirror = way == BLOCK_MERGE_DOWN && !child && !m->child->read_only;
	if (!m->buf)
		err_sys(e, ERR_FAILED, ENOMEM, "'%s' cannot be merged", m->child->path);
	if (!m->buf || prepare_target(m, e)) {
		merge_free(m);
		return NULL;
	}
	set_job(b, m);
	return m;
}

enum block_merge_state
block_merge_poll(struct block_merge *m, int *percent, struct err *e)
{
	enum block_merge_state s;

	pthread_mutex_lock(&m->lock);
	s = m->state;
	if (percent)
		*percent = (int)(m->at / 1024 * 100 / (m->size / 1024 + 1));
	if (percent && s == BLOCK_MERGE_READY)
		*percent = 100;
	if (e && s == BLOCK_MERGE_FAILED)
		*e = m->why;
	pthread_mutex_unlock(&m->lock);
	return s;
}

int
block_merge_wait(struct block_merge *m, const struct block_progress *p, struct err *e)
{
	struct block *b = m->b;
	int percent;

	while (block_merge_poll(m, &percent, e) == BLOCK_MERGE_RUNNING) {
		if (p && p->stopped && p->stopped(p->opaque))
			return err_set(e, ERR_FAILED, "The merge was stopped");
		pthread_mutex_lock(&b->lock);
		while (b->job_busy)
			pthread_cond_wait(&b->idle, &b->lock);
		b->job_busy = true;
		pthread_mutex_unlock(&b->lock);
		merge_step(m);
		pthread_mutex_lock(&b->lock);
		b->job_busy = false;
		pthread_cond_broadcast(&b->idle);
		pthread_mutex_unlock(&b->lock);
		if (p && p->percent)
			p->percent(p->opaque, percent);
	}
	return block_merge_poll(m, NULL, e) == BLOCK_MERGE_READY ? 0 : -1;
}

/* Only the top of an open chain is written to. An image that is the top stays as it is. */
static void
settle(struct block *b, struct image *i)
{
	struct err e = { 0 };

	i->loses_parent = false;
	if (i != b->top && !i->read_only && !reopen(b, i, false, &e))
		log_warn("block", "%s; it stays open for writing", e.text);
	else if (i == b->top)
		i->keep_change = false;
}

/* The image above reads through to the parent from now on: what its file says. */
static int
move_above(struct block_merge *m, struct err *e)
{
	struct image *above = m->above;
	bool was_read_only = above->read_only;

	if (was_read_only)
		above = reopen(m->b, above, true, e);
	if (!above)
		return -1;
	m->above = above;
	if (above->format->set_parent(above, m->parent, e)) {
		if (was_read_only)
			settle(m->b, above);
		return -1;
	}
	return 0;
}

static void
take_out(struct block *b, struct image *i)
{
	pthread_rwlock_wrlock(&b->chain);
	*place_of(b, i) = i->backing;
	i->backing = NULL;
	pthread_rwlock_unlock(&b->chain);
	image_close(i);
}

int
block_merge_finish(struct block_merge *m, struct err *e)
{
	struct block *b = m->b;
	struct image *kept = m->to, *above = NULL;
	bool was_top = m->child == b->top;
	int r;

	if (block_merge_poll(m, NULL, e) != BLOCK_MERGE_READY) {
		if (m->state == BLOCK_MERGE_RUNNING)
			err_set(e, ERR_OBJECT_STATE, "The merge into '%s' is not finished", m->to->path);
		block_merge_cancel(m);
		return -1;
	}
	if (m->way == BLOCK_MERGE_UP)
		r = m->child->format->set_parent(m->child, m->parent->backing, e);
	else
		r = m->above ? move_above(m, e) : 0;
	if (r) {
		block_merge_cancel(m);
		return -1;
	}
	above = m->way == BLOCK_MERGE_DOWN ? m->above : NULL;
	/* Without a mirror nobody writes to the child any more, so that it can go; with one, the chain is short at
	 * once. */
	if (m->way == BLOCK_MERGE_DOWN && was_top) {
		pthread_rwlock_wrlock(&b->chain);
		pthread_mutex_lock(&b->lock);
		b->top = m->parent;
		m->child->backing = NULL;
		b->merge = NULL;
		pthread_mutex_unlock(&b->lock);
		pthread_rwlock_unlock(&b->chain);
		image_close(m->child);
	} else {
		take_out(b, m->way == BLOCK_MERGE_UP ? m->parent : m->child);
	}
	set_job(b, NULL);
	merge_free(m);
	settle(b, kept);
	if (above)
		settle(b, above);
	return 0;
}

void
block_merge_cancel(struct block_merge *m)
{
	struct block *b = m->b;
	struct image *to = m->to;

	set_job(b, NULL);
	merge_free(m);
	settle(b, to);
}

int
block_merge_offline(struct block *b, int child, enum block_merge_way way, const struct block_progress *p, struct err *e)
{
	struct block_merge *m = block_merge_start(b, child, way, NULL, NULL, e);

	if (!m)
		return -1;
	if (block_merge_wait(m, p, e)) {
		block_merge_cancel(m);
		return -1;
	}
	return block_merge_finish(m, e);
}

/* ---- overlays ---- */

/* Put `fresh` in front, with the chain standing still. `before`: what the top was when `fresh` was made of it. */
static int
swap_in(struct block *b, struct image *fresh, const struct image *before, struct err *e)
{
	struct image *old = b->top;
	int r;

	pthread_rwlock_wrlock(&b->chain);
	r = old->read_only ? 0 : old->format->flush(old);
	if (r)
		err_sys(e, ERR_FILE, r, "'%s' cannot be flushed", old->path);
	if (!r && (memcmp(&before->change, &old->change, sizeof(old->change)) || before->cid != old->cid))
		r = fresh->format->set_parent(fresh, old, e);
	if (!r) {
		old->read_only = true;
		fresh->backing = old;
		b->top = fresh;
	}
	pthread_rwlock_unlock(&b->chain);
	if (!r && image_lock(old, false, NULL))
		log_warn("block", "'%s' stays locked for writing", old->path);
	return r;
}

int
block_push_overlay(struct block *b, const char *path, const char *format, const struct uuid *uuid, struct err *e)
{
	struct image *old = b->top, before = *old, *fresh;
	char *name = image_parent_name(path, old->path);
	struct block_create c = { .path = path,
		.format = format		      ? format
			  : old->format->differencing ? old->format->name
						      : "vdi",
		.backing = name,
		.backing_format = old->format->name,
		.size = old->size,
		.uuid = uuid };
	int r;

	if (b->merge) {
		free(name);
		return err_set(e, ERR_OBJECT_STATE, "Images of '%s' are being merged", old->path);
	}
	r = image_create(&c, old, e);
	free(name);
	if (r)
		return -1;
	fresh = image_open(path, c.format, IMAGE_NO_PARENT | (old->flags & BLOCK_DIRECT), 0, &b->finder, e);
	if (fresh)
		crypt_share(fresh->crypt, old->crypt);
	if (fresh && !swap_in(b, fresh, &before, e))
		return 0;
	image_close(fresh);
	block_remove(path, NULL);
	return -1;
}

int
block_rebase(const char *path, const char *parent, const struct block_finder *finder, struct err *e)
{
	struct image *b = image_open(path, NULL, IMAGE_NO_PARENT | IMAGE_KEEP_CHANGE, 0, finder, e), *p = NULL;
	int r = -1;

	if (!b)
		return -1;
	if (!b->format->set_parent)
		err_set(e, ERR_UNSUPPORTED, "'%s' is a %s image and has no parent", path, b->format->name);
	else if (!parent || (p = image_open(parent, NULL, BLOCK_RDONLY, 1, finder, e)))
		r = b->format->set_parent(b, p, e);
	image_close(p);
	image_close(b);
	return r;
}
