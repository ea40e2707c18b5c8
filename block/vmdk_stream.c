/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Writing a streamOptimized VMDK (Virtual Disk Format 5.0, "Stream-Optimized Compressed Sparse Extents"): the form in
 * which disks travel, in OVF packages and boxes. It is written once, from its beginning to its end:
 *
 *   sector 0     header, with the grain directory "at the end" (vmdk.c has the fields)
 *   sector 1-20  text
 *   sector 128   grains, in the order of the disk: sector of the disk (8), length (4), a zlib stream, padded to a
 * sector. Grains of zeroes are left out. Behind the last grain of each grain table a marker and the table then a marker
 * and the grain directory, a marker and the footer (the header with the place of the directory), a marker for the end
 *
 *   A marker is a sector: sectors of what follows (8), 0 (4), type (4): 0 end, 1 grain table, 2 grain directory, 3
 * footer.
 *
 * Grains are compressed by as many threads as there are processors, a grain table (32 MiB of the disk) at a time each;
 * one after the other, in order, they put what they have into the file.
 */
#include <errno.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zlib.h>

#include "base/bytes.h"
#include "block/file.h"
#include "block/format.h"
#include "block/vmdk.h"

#define SECTOR 512ull
#define GRAIN (128 * SECTOR)
#define TABLE 512ull
#define TEXT_SECTORS 20ull
#define FIRST (128 * SECTOR)
#define THREADS_MAX 8
#define LEVEL 3 /* of compression: more makes it twice as slow for a few percent */

enum { MARK_END, MARK_TABLE, MARK_DIRECTORY, MARK_FOOTER };

struct stream {
	struct image *from;
	int fd;
	uint64_t size, tables;
	uint32_t *directory; /* little-endian: it goes to the file as it is */
	_Atomic int error;
	_Atomic bool stop;

	pthread_mutex_t lock; /* everything below */
	pthread_cond_t turn;
	uint64_t next, written; /* table to take, table to write */
	uint64_t at;		/* file offset of what is written next */
	int running;
};

/* What one thread has made of one grain table. */
struct batch {
	uint8_t *buf; /* compressed grains one behind the other */
	size_t len, cap;
	uint32_t entries[TABLE]; /* offset in buf + 1 in sectors; 0: no grain */
	uint8_t *plain;
};

static int
need_room(struct batch *t, size_t more)
{
	uint8_t *buf;

	if (t->cap - t->len >= more)
		return 0;
	buf = realloc(t->buf, t->cap * 2 + more);
	if (!buf)
		return -ENOMEM;
	t->cap = t->cap * 2 + more;
	t->buf = buf;
	return 0;
}

/* One grain, of which `len` bytes are of the disk, into the batch. */
static int
pack_grain(struct batch *t, uint64_t grain, unsigned slot)
{
	uLongf packed = compressBound(GRAIN);
	size_t start = t->len;
	int r = need_room(t, 12 + packed + SECTOR);

	if (r)
		return r;
	if (compress2(t->buf + start + 12, &packed, t->plain, GRAIN, LEVEL) != Z_OK)
		return -ENOMEM;
	put_le64(t->buf + start, grain * (GRAIN / SECTOR));
	put_le32(t->buf + start + 8, (uint32_t)packed);
	t->len = (start + 12 + packed + SECTOR - 1) & ~(SECTOR - 1);
	memset(t->buf + start + 12 + packed, 0, t->len - start - 12 - packed);
	t->entries[slot] = (uint32_t)(start / SECTOR) + 1;
	return 0;
}

static int
pack_table(struct stream *s, struct batch *t, uint64_t table)
{
	int r = 0;

	t->len = 0;
	memset(t->entries, 0, sizeof(t->entries));
	for (unsigned i = 0; i < TABLE && !r && !atomic_load(&s->stop); i++) {
		uint64_t grain = table * TABLE + i, off = grain * GRAIN;
		uint64_t len = off < s->from->size ? MIN(GRAIN, s->from->size - off) : 0, n = len;
		struct iovec iov = { t->plain, len };
		enum map_kind kind;

		if (!len)
			break;
		r = image_map_all(s->from, off, &n, &kind);
		if (r || (kind == MAP_ZERO && n == len))
			continue;
		memset(t->plain + len, 0, GRAIN - len);
		r = s->from->format->read(s->from, &iov, 1, 0, off, len);
		if (!r && !mem_is_zero(t->plain, len))
			r = pack_grain(t, grain, i);
	}
	return r;
}

static int
write_mark(struct stream *s, uint64_t sectors, uint32_t type)
{
	uint8_t mark[SECTOR] = { 0 };
	int r;

	put_le64(mark, sectors);
	put_le32(mark + 12, type);
	r = file_pwrite(s->fd, mark, SECTOR, s->at);
	s->at += SECTOR;
	return r;
}

/* Lock held, and it is the table's turn. */
static int
write_table(struct stream *s, struct batch *t, uint64_t table)
{
	uint8_t raw[TABLE * 4];
	int r;

	if (!t->len)
		return 0;
	if ((s->at + t->len) / SECTOR > UINT32_MAX)
		return -EFBIG;
	for (unsigned i = 0; i < TABLE; i++)
		put_le32(raw + 4 * i, t->entries[i] ? (uint32_t)(s->at / SECTOR) + t->entries[i] - 1 : 0);
	r = file_pwrite(s->fd, t->buf, t->len, s->at);
	s->at += t->len;
	if (!r)
		r = write_mark(s, sizeof(raw) / SECTOR, MARK_TABLE);
	if (!r)
		r = file_pwrite(s->fd, raw, sizeof(raw), s->at);
	put_le32(&s->directory[table], (uint32_t)(s->at / SECTOR));
	s->at += sizeof(raw);
	return r;
}

static bool
take_table(struct stream *s, uint64_t *table)
{
	pthread_mutex_lock(&s->lock);
	*table = s->next;
	if (s->next < s->tables)
		s->next++;
	pthread_mutex_unlock(&s->lock);
	return *table < s->tables;
}

static void *
packer(void *opaque)
{
	struct stream *s = opaque;
	struct batch t = { .plain = malloc(GRAIN) };
	uint64_t table;

	while (!atomic_load(&s->error) && !atomic_load(&s->stop) && take_table(s, &table)) {
		int r = t.plain ? pack_table(s, &t, table) : -ENOMEM;

		pthread_mutex_lock(&s->lock);
		while (s->written != table)
			pthread_cond_wait(&s->turn, &s->lock);
		if (!r && !atomic_load(&s->error))
			r = write_table(s, &t, table);
		if (r)
			atomic_store(&s->error, r);
		s->written++;
		pthread_cond_broadcast(&s->turn);
		pthread_mutex_unlock(&s->lock);
	}
	free(t.buf);
	free(t.plain);
	pthread_mutex_lock(&s->lock);
	s->running--;
	pthread_cond_broadcast(&s->turn);
	pthread_mutex_unlock(&s->lock);
	return NULL;
}

static void
run_packers(struct stream *s, const struct block_progress *p)
{
	pthread_t threads[THREADS_MAX];
	int started = 0;
	cpu_set_t set;
	int wanted = sched_getaffinity(0, sizeof(set), &set) ? 1 : MIN(CPU_COUNT(&set), THREADS_MAX);

	s->running = wanted;
	while (started < wanted && !pthread_create(&threads[started], NULL, packer, s))
		started++;
	pthread_mutex_lock(&s->lock);
	s->running -= wanted - started;
	if (!started) {
		s->running = 1;
		pthread_mutex_unlock(&s->lock);
		packer(s);
		pthread_mutex_lock(&s->lock);
	}
	while (s->running) {
		uint64_t written = s->written;

		pthread_cond_wait(&s->turn, &s->lock);
		pthread_mutex_unlock(&s->lock);
		if (p && p->percent)
			p->percent(p->opaque, (int)(written * 99 / (s->tables + 1)));
		if (p && p->stopped && p->stopped(p->opaque))
			atomic_store(&s->stop, true);
		pthread_mutex_lock(&s->lock);
	}
	pthread_mutex_unlock(&s->lock);
	for (int i = 0; i < started; i++)
		pthread_join(threads[i], NULL);
}

/* The directory, the footer, the end. */
static int
write_end(struct stream *s)
{
	uint64_t len = (s->tables * 4 + SECTOR - 1) & ~(SECTOR - 1);
	uint8_t footer[SECTOR];
	int r = write_mark(s, len / SECTOR, MARK_DIRECTORY);
	uint64_t at = s->at;

	if (!r)
		r = file_pwrite(s->fd, s->directory, len, at);
	s->at += len;
	vmdk_stream_header(footer, s->size, TEXT_SECTORS, FIRST / SECTOR, at / SECTOR);
	if (!r)
		r = write_mark(s, 1, MARK_FOOTER);
	if (!r)
		r = file_pwrite(s->fd, footer, SECTOR, s->at);
	s->at += SECTOR;
	return r ? r : write_mark(s, 0, MARK_END);
}

int
vmdk_stream_write(int fd, const struct block_create *c, struct image *from, const struct block_progress *p)
{
	struct stream s = { .from = from, .fd = fd, .at = FIRST, .size = from ? from->size : c->size };
	struct str text = { 0 };
	uint8_t head[SECTOR];
	int r;

	s.tables = (s.size + GRAIN * TABLE - 1) / (GRAIN * TABLE);
	s.directory = calloc(s.tables + SECTOR / 4, 4);
	if (!s.directory)
		return -ENOMEM;
	vmdk_describe(c, NULL, &text);
	vmdk_stream_header(head, s.size, TEXT_SECTORS, FIRST / SECTOR, UINT64_MAX);
	r = text.len > TEXT_SECTORS * SECTOR ? -ENAMETOOLONG : file_pwrite(fd, text.s, text.len, SECTOR);
	str_free(&text);
	pthread_mutex_init(&s.lock, NULL);
	pthread_cond_init(&s.turn, NULL);
	if (!r && from)
		run_packers(&s, p);
	r = r ? r : atomic_load(&s.error);
	if (!r)
		r = atomic_load(&s.stop) ? -EINTR : write_end(&s);
	if (!r)
		r = file_pwrite(fd, head, SECTOR, 0);
	pthread_mutex_destroy(&s.lock);
	pthread_cond_destroy(&s.turn);
	free(s.directory);
	return r;
}
