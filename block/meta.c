/* SPDX-License-Identifier: Apache-2.0 */
/*
 * See meta.h. Pages are in a hash by their offset. A commit copies the changed ones under the lock and writes the
 * copies without it; until it has ended the pages are `busy` and stay in memory, so that nobody reads an old one back
 * from the file. What could not be written is marked as changed again.
 */
#include "block/meta.h"
#include "base/bytes.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/str.h"
#include "block/file.h"

#define BUCKETS 4096u
#define CLEAN_MAX 8192u
#define DIRTY_MAX 4096u

struct page {
	struct page *next;
	uint64_t at;
	int phase; /* 0: as in the file */
	bool busy;
	uint8_t bytes[];
};

struct meta {
	int fd, data_fd;
	unsigned page_size;
	bool unsafe;
	pthread_mutex_t *lock;
	struct page *buckets[BUCKETS];
	unsigned pages;
	_Atomic unsigned dirty;
	pthread_mutex_t commit; /* one at a time; taken before *lock */
};

struct meta *
meta_open(int fd, unsigned page_size, pthread_mutex_t *lock, bool unsafe)
{
	struct meta *m = calloc(1, sizeof(*m));

	if (!m)
		return NULL;
	m->fd = fd;
	m->data_fd = -1;
	m->page_size = page_size;
	m->lock = lock;
	m->unsafe = unsafe;
	pthread_mutex_init(&m->commit, NULL);
	return m;
}

/* Drop the pages that are as in the file, or all. */
static void
drop(struct meta *m, bool all)
{
	for (unsigned i = 0; i < BUCKETS; i++) {
		struct page **at = &m->buckets[i], *p;

		while ((p = *at)) {
			if (!all && (p->phase || p->busy)) {
				at = &p->next;
				continue;
			}
			*at = p->next;
			free(p);
			m->pages--;
		}
	}
}

void
meta_close(struct meta *m)
{
	if (!m)
		return;
	drop(m, true);
	pthread_mutex_destroy(&m->commit);
	free(m);
}

static struct page **
bucket(struct meta *m, uint64_t at)
{
	return &m->buckets[(at / m->page_size * 0x9e3779b97f4a7c15ull) >> 52];
}

/* The page at `at`; `fresh`: its contents are about to be replaced and need not be read. */
static int
find_page(struct meta *m, uint64_t at, bool fresh, struct page **out)
{
	struct page **head = bucket(m, at), *p;
	int r = 0;

	for (p = *head; p && p->at != at; p = p->next)
		;
	*out = p;
	if (p)
		return 0;
	if (m->pages >= CLEAN_MAX + DIRTY_MAX)
		drop(m, false);
	p = calloc(1, sizeof(*p) + m->page_size);
	if (!p)
		return -ENOMEM;
	p->at = at;
	if (!fresh)
		r = file_pread(m->fd, p->bytes, m->page_size, at);
	if (r) {
		free(p);
		return r;
	}
	p->next = *head;
	*head = p;
	m->pages++;
	*out = p;
	return 0;
}

static void
mark(struct meta *m, struct page *p, int phase)
{
	if (!p->phase)
		atomic_fetch_add(&m->dirty, 1);
	p->phase = phase;
}

int
meta_get(struct meta *m, uint64_t off, void *buf, uint64_t len)
{
	for (uint64_t done = 0; done < len;) {
		uint64_t within = (off + done) % m->page_size, n = MIN(len - done, m->page_size - within);
		struct page *p;
		int r = find_page(m, off + done - within, false, &p);

		if (r)
			return r;
		memcpy((char *)buf + done, p->bytes + within, n);
		done += n;
	}
	return 0;
}

int
meta_put(struct meta *m, uint64_t off, const void *buf, uint64_t len, int phase)
{
	for (uint64_t done = 0; done < len;) {
		uint64_t within = (off + done) % m->page_size, n = MIN(len - done, m->page_size - within);
		struct page *p;
		int r = find_page(m, off + done - within, n == m->page_size, &p);

		if (r)
			return r;
		memcpy(p->bytes + within, (const char *)buf + done, n);
		mark(m, p, phase);
		done += n;
	}
	return 0;
}

int
meta_clear(struct meta *m, uint64_t off, uint64_t len, int phase)
{
	for (uint64_t done = 0; done < len; done += m->page_size) {
		struct page *p;
		int r = find_page(m, off + done, true, &p);

		if (r)
			return r;
		memset(p->bytes, 0, m->page_size);
		mark(m, p, phase);
	}
	return 0;
}

int
meta_get32le(struct meta *m, uint64_t off, uint32_t *value)
{
	uint8_t b[4];
	int r = meta_get(m, off, b, 4);

	*value = r ? 0 : le32(b);
	return r;
}

int
meta_put32le(struct meta *m, uint64_t off, uint32_t value, int phase)
{
	uint8_t b[4];

	put_le32(b, value);
	return meta_put(m, off, b, 4, phase);
}

int
meta_get64be(struct meta *m, uint64_t off, uint64_t *value)
{
	uint8_t b[8];
	int r = meta_get(m, off, b, 8);

	*value = r ? 0 : be64(b);
	return r;
}

int
meta_put64be(struct meta *m, uint64_t off, uint64_t value, int phase)
{
	uint8_t b[8];

	put_be64(b, value);
	return meta_put(m, off, b, 8, phase);
}

bool
meta_dirty(struct meta *m)
{
	return atomic_load(&m->dirty) != 0;
}

bool
meta_full(struct meta *m)
{
	return atomic_load(&m->dirty) > DIRTY_MAX;
}

/* ---- commits ---- */

/* A changed page on its way to the file. */
struct change {
	struct page *page;
	uint64_t at;
	int phase;
	uint8_t *bytes;
};

static int
by_phase(const void *a, const void *b)
{
	const struct change *x = a, *y = b;

	if (x->phase != y->phase)
		return x->phase < y->phase ? -1 : 1;
	return x->at < y->at ? -1 : x->at > y->at;
}

/* Copies of the changed pages, sorted. NULL: no memory, and nothing is taken. Lock held. */
static struct change *
take_changes(struct meta *m, unsigned *count)
{
	unsigned n = atomic_load(&m->dirty), k = 0;
	struct change *c = calloc(n + 1, sizeof(*c));
	uint8_t *bytes = malloc((size_t)n * m->page_size + 1);

	if (!c || !bytes) {
		free(c);
		free(bytes);
		return NULL;
	}
	c[0].bytes = bytes;
	for (unsigned i = 0; i < BUCKETS; i++) {
		for (struct page *p = m->buckets[i]; p; p = p->next) {
			if (!p->phase)
				continue;
			c[k] = (struct change){ p, p->at, p->phase, bytes + (size_t)k * m->page_size };
			memcpy(c[k++].bytes, p->bytes, m->page_size);
			p->phase = 0;
			p->busy = true;
		}
	}
	atomic_store(&m->dirty, 0);
	*count = n;
	qsort(c, n, sizeof(*c), by_phase);
	return c;
}

static void
release_changes(struct meta *m, struct change *c, unsigned count, uint8_t *bytes, bool failed)
{
	pthread_mutex_lock(m->lock);
	for (unsigned i = 0; i < count; i++) {
		c[i].page->busy = false;
		if (failed && !c[i].page->phase)
			mark(m, c[i].page, c[i].phase);
	}
	pthread_mutex_unlock(m->lock);
	free(bytes);
	free(c);
}

static int
sync_file(struct meta *m)
{
	if (m->unsafe)
		return 0;
	if (m->data_fd >= 0 && fdatasync(m->data_fd))
		return -errno;
	return fdatasync(m->fd) ? -errno : 0;
}

/* Neighbours of one phase in one call. Returns how many. */
static unsigned
write_run(struct meta *m, const struct change *c, unsigned count, int *r)
{
	struct iovec iov[64];
	unsigned n = 0;

	do {
		iov[n] = (struct iovec){ c[n].bytes, m->page_size };
		n++;
	} while (n < count && n < ARRAY_LEN(iov) && c[n].phase == c[0].phase && c[n].at == c[n - 1].at + m->page_size);
	*r = file_writev(m->fd, iov, (int)n, 0, (uint64_t)n * m->page_size, c[0].at);
	return n;
}

static int
write_changes(struct meta *m, const struct change *c, unsigned count)
{
	int phase = 1, r = 0;

	for (unsigned i = 0; i < count && !r;) {
		if (c[i].phase != phase)
			r = sync_file(m);
		phase = c[i].phase;
		if (!r)
			i += write_run(m, c + i, count - i, &r);
	}
	return r ? r : sync_file(m);
}

void
meta_sync_also(struct meta *m, int fd)
{
	m->data_fd = fd;
}

int
meta_commit(struct meta *m)
{
	struct change *c;
	uint8_t *bytes = NULL;
	unsigned count = 0;
	int r;

	pthread_mutex_lock(&m->commit);
	pthread_mutex_lock(m->lock);
	c = take_changes(m, &count);
	pthread_mutex_unlock(m->lock);
	r = -ENOMEM;
	if (c) {
		bytes = c[0].bytes;
		for (unsigned i = 0; i < count; i++)
			bytes = MIN(bytes, c[i].bytes); /* the sort moved it */
		r = write_changes(m, c, count);
		release_changes(m, c, count, bytes, r != 0);
	}
	pthread_mutex_unlock(&m->commit);
	return r;
}
