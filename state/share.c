/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Memory shared between a machine and its copies: `lodge fork`.
 *
 * The memory of a machine, at one moment, is one or more layers, each an unnamed file (memfd_create(2)) laid out as all
 * blocks of memory one after the other:
 *
 *	0	the memory of the blocks, with holes
 *	total	u64 number of runs; then for each u64 offset, u64 length: what this layer holds
 *
 * The first layer holds everything; a later one hides what lies under its runs. A machine made from them maps the runs
 * privately (MAP_PRIVATE): it reads the files' pages and has its own of what it writes. Nobody ever writes to a layer
 * again once it was handed out, so all copies see the same moment.
 *
 * state_share() makes the layers for now. The first time it copies the memory into a file and maps that in its place,
 * so that from then on the machine shares with its copies itself; most of the copying is done before, while it runs
 * (state_share_prepare()), and what it writes meanwhile (the dirty log, bus/mem.h) is copied again.
 * Later it adds a layer of what the machine has of its
 * own by then (/proc/self/pagemap says which pages those are), until that is most of it or there are LAYERS_MAX, when
 * it begins anew.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/bytes.h"
#include "state/private.h"

#define LAYERS_MAX STATE_LAYERS_MAX
#define GAP_PAGES 16 /* runs as close as this become one: a process can have 65530 mappings */
#define RUNS_MAX 20000
#define PIECE (1u << 20)
#define PAGEMAP_PRESENT (1ull << 63)
#define PAGEMAP_SWAPPED (1ull << 62)
#define PAGEMAP_FILE (1ull << 61) /* or shared: not our own */

struct run {
	uint64_t offset, len;
};

struct layer {
	int fd;
	struct run *run;
	uint64_t runs, bytes;
};

struct state_share {
	int pagemap;
	struct layer prepared; /* fd -1: none */
	struct layer layer[LAYERS_MAX];
	int layers;
};

struct state_share *
state_share_open(void)
{
	struct state_share *s = xcalloc(1, sizeof(*s));

	s->prepared.fd = -1;
	s->pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	return s;
}

static void
layer_free(struct layer *l)
{
	if (l->fd >= 0)
		close(l->fd);
	free(l->run);
}

void
state_share_close(struct state_share *s)
{
	if (!s)
		return;
	for (int i = 0; i < s->layers; i++)
		layer_free(&s->layer[i]);
	layer_free(&s->prepared);
	if (s->pagemap >= 0)
		close(s->pagemap);
	free(s);
}

int
state_share_layers(const struct state_share *s, int fd[STATE_LAYERS_MAX])
{
	for (int i = 0; i < s->layers; i++)
		fd[i] = s->layer[i].fd;
	return s->layers;
}

static uint64_t
total_size(const struct mem *mem)
{
	uint64_t total = 0;

	for (struct ram *r = mem->rams; r; r = r->next)
		total += r->size;
	return total;
}

/* ---- mapping ---- */

/* The part of run `r` that lies in the block at `base`. False: none does. */
static bool
cut(const struct run *r, uint64_t base, uint64_t size, uint64_t *offset, uint64_t *len)
{
	uint64_t start = MAX(r->offset, base), end = MIN(r->offset + r->len, base + size);

	*offset = start;
	*len = end > start ? end - start : 0;
	return end > start;
}

static int
map_layer(const struct layer *l, const struct mem *mem)
{
	uint64_t base = 0, at, len;

	for (struct ram *r = mem->rams; r; base += r->size, r = r->next)
		for (uint64_t i = 0; i < l->runs; i++) {
			void *to;

			if (!cut(&l->run[i], base, r->size, &at, &len))
				continue;
			ram_forget_file(r);
			to = mmap(r->host + (at - base), len, PROT_READ | PROT_WRITE,
				MAP_PRIVATE | MAP_FIXED | MAP_NORESERVE, l->fd, (off_t)at);
			if (to == MAP_FAILED)
				return -errno;
			madvise(to, len, MADV_DONTDUMP);
		}
	return 0;
}

/* ---- writing layers ---- */

static void
add_run(struct layer *l, uint64_t offset, uint64_t len)
{
	struct run *last = l->runs ? &l->run[l->runs - 1] : NULL;

	l->bytes += len;
	if (last && offset - (last->offset + last->len) <= GAP_PAGES * PAGE_SIZE) {
		last->len = offset + len - last->offset;
		return;
	}
	if (!(l->runs & (l->runs - 1))) {
		l->run = realloc(l->run, MAX(l->runs * 2, (uint64_t)16) * sizeof(*l->run));
		if (!l->run)
			abort();
	}
	l->run[l->runs++] = (struct run){ offset, len };
}

static int
put(int fd, const void *data, uint64_t len, uint64_t offset)
{
	while (len) {
		ssize_t n = pwrite(fd, data, len, (off_t)offset);

		if (n <= 0)
			return n ? -errno : -ENOSPC;
		data = (const uint8_t *)data + n;
		len -= (uint64_t)n;
		offset += (uint64_t)n;
	}
	return 0;
}

static bool
all_zero(const uint8_t *p, uint64_t n)
{
	return !p[0] && !memcmp(p, p + 1, n - 1);
}

/* The page is not there, and so is zeroes: looking at it would only make it be there. Not so of pages of a layer. */
static bool
absent(const uint64_t *entry, uint64_t at)
{
	return entry && !(entry[at >> PAGE_SHIFT] & (PAGEMAP_PRESENT | PAGEMAP_SWAPPED | PAGEMAP_FILE));
}

/* Pages of zeroes stay holes. At most PIECE bytes. */
static int
put_pages(int pagemap, int fd, const struct ram *ram, const uint8_t *from, uint64_t len, uint64_t offset)
{
	uint64_t table[PIECE >> PAGE_SHIFT], *entry = NULL;
	size_t bytes = (len >> PAGE_SHIFT) * 8;

	uint64_t at = 0, start;

	if (mem_untouched(ram->mem, from, len))
		return 0;
	if (pagemap >= 0 && ram->fd < 0 &&
		pread(pagemap, table, bytes, (off_t)(((uintptr_t)from >> PAGE_SHIFT) * 8)) == (ssize_t)bytes)
		entry = table;
	while (at < len) {
		while (at < len && (absent(entry, at) || all_zero(from + at, PAGE_SIZE)))
			at += PAGE_SIZE;
		start = at;
		while (at < len && !absent(entry, at) && !all_zero(from + at, PAGE_SIZE))
			at += PAGE_SIZE;
		if (at > start) {
			int r = put(fd, from + start, at - start, offset + start);

			if (r)
				return r;
		}
	}
	return 0;
}

struct fill {
	const struct mem *mem;
	const struct layer *l;
	int pagemap;
	_Atomic uint64_t next; /* piece */
	uint64_t total;
	_Atomic int result;
};

/* Pieces of the machine's memory that lie in a run, by several threads. */
static void *
fill_some(void *opaque)
{
	struct fill *f = opaque;
	uint64_t n;

	while (!f->result && (n = f->next++ * PIECE) < f->total) {
		uint64_t base = 0, at, len;

		for (struct ram *r = f->mem->rams; r && !f->result; base += r->size, r = r->next)
			for (uint64_t i = 0; i < f->l->runs; i++) {
				struct run piece;

				if (!cut(&f->l->run[i], n, PIECE, &piece.offset, &piece.len) ||
					!cut(&piece, base, r->size, &at, &len))
					continue;
				f->result = put_pages(f->pagemap, f->l->fd, r, r->host + (at - base), len, at);
			}
	}
	return NULL;
}

static int
write_layer(const struct state_share *s, struct layer *l, const struct mem *mem)
{
	struct fill f = { .mem = mem, .l = l, .pagemap = s->layers ? -1 : s->pagemap, .total = total_size(mem) };
	pthread_t t[STATE_THREADS_MAX];
	unsigned count = state_threads(), made = 0;
	uint8_t number[16];
	int r;

	l->fd = memfd_create("lodge-memory", MFD_CLOEXEC);
	if (l->fd < 0 || ftruncate(l->fd, (off_t)f.total))
		return -errno;
	while (made + 1 < count && !pthread_create(&t[made], NULL, fill_some, &f))
		made++;
	fill_some(&f);
	while (made)
		pthread_join(t[--made], NULL);
	put_le64(number, l->runs);
	r = f.result ? f.result : put(l->fd, number, 8, f.total);
	for (uint64_t i = 0; i < l->runs && !r; i++) {
		put_le64(number, l->run[i].offset);
		put_le64(number + 8, l->run[i].len);
		r = put(l->fd, number, 16, f.total + 8 + i * 16);
	}
	return r;
}

/* ---- what the machine has of its own ---- */

static int
add_own_pages(struct state_share *s, struct layer *l, const struct ram *r, uint64_t base)
{
	uint64_t entry[512], pages = r->size >> PAGE_SHIFT;

	for (uint64_t i = 0; i < pages; i += ARRAY_LEN(entry)) {
		uint64_t n = MIN((uint64_t)ARRAY_LEN(entry), pages - i);
		uint64_t at = ((uintptr_t)r->host >> PAGE_SHIFT) + i;

		if (pread(s->pagemap, entry, n * 8, (off_t)(at * 8)) != (ssize_t)(n * 8))
			return -EIO;
		for (uint64_t k = 0; k < n; k++)
			if (entry[k] & PAGEMAP_SWAPPED || (entry[k] & PAGEMAP_PRESENT && !(entry[k] & PAGEMAP_FILE)))
				add_run(l, base + (i + k) * PAGE_SIZE, PAGE_SIZE);
	}
	return 0;
}

/* A layer on those there are; false: better a new base. */
static bool
add_layer(struct state_share *s, const struct mem *mem)
{
	struct layer l = { .fd = -1 };
	uint64_t base = 0;
	int r = 0;

	if (!s->layers || s->layers == LAYERS_MAX || s->pagemap < 0)
		return false;
	for (struct ram *m = mem->rams; m && !r; base += m->size, m = m->next)
		r = add_own_pages(s, &l, m, base);
	if (r || l.runs > RUNS_MAX || l.bytes > base / 2 || write_layer(s, &l, mem) || map_layer(&l, mem)) {
		layer_free(&l);
		return false;
	}
	s->layer[s->layers++] = l;
	return true;
}

/* The pages that were written since state_share_prepare(). The machine stands still. */
static int
copy_changed(struct layer *l, struct machine *m)
{
	uint64_t base = 0;
	int r = 0;

	machine_lock(m);
	for (struct ram *ram = m->mem.rams; ram; base += ram->size, ram = ram->next) {
		mem_log_sync(ram);
		for (uint64_t page = 0; page < ram->size >> PAGE_SHIFT && !r; page++)
			if (ram->dirty[page])
				r = put(l->fd, ram->host + page * PAGE_SIZE, PAGE_SIZE, base + page * PAGE_SIZE);
	}
	machine_unlock(m);
	return r;
}

void
state_share_prepare(struct state_share *s, struct machine *m)
{
	struct layer l = { .fd = -1 };

	if (s->layers || s->prepared.fd >= 0)
		return;
	machine_lock(m);
	for (struct ram *ram = m->mem.rams; ram; ram = ram->next)
		mem_log_start(ram, 0, ram->size);
	machine_unlock(m);
	add_run(&l, 0, total_size(&m->mem));
	if (write_layer(s, &l, &m->mem))
		layer_free(&l);
	else
		s->prepared = l;
}

int
state_share(struct state_share *s, struct machine *m, struct err *e)
{
	struct layer l = { .fd = -1 };
	int r;

	if (add_layer(s, &m->mem))
		return 0;
	if (s->prepared.fd >= 0) {
		l = s->prepared;
		s->prepared = (struct layer){ .fd = -1 };
		r = copy_changed(&l, m);
	} else {
		add_run(&l, 0, total_size(&m->mem));
		r = write_layer(s, &l, &m->mem);
	}
	if (!r)
		r = map_layer(&l, &m->mem);
	if (r) {
		layer_free(&l);
		return err_sys(e, ERR_HOST, r, "cannot share the machine's memory");
	}
	while (s->layers)
		layer_free(&s->layer[--s->layers]);
	s->layer[s->layers++] = l;
	return 0;
}

/* ---- the copy's side ---- */

static int
read_layer(struct layer *l, uint64_t total)
{
	uint8_t number[16];

	if (pread(l->fd, number, 8, (off_t)total) != 8)
		return -EIO;
	l->runs = le64(number);
	if (!l->runs || l->runs > RUNS_MAX + 1)
		return -EBADMSG;
	l->run = xcalloc(l->runs, sizeof(*l->run));
	for (uint64_t i = 0; i < l->runs; i++) {
		struct run *r = &l->run[i];

		if (pread(l->fd, number, 16, (off_t)(total + 8 + i * 16)) != 16)
			return -EIO;
		*r = (struct run){ le64(number), le64(number + 8) };
		if (r->offset > total || r->len > total - r->offset || !r->len || r->offset % PAGE_SIZE ||
			r->len % PAGE_SIZE)
			return -EBADMSG;
	}
	return 0;
}

int
state_share_take(struct state_share *s, struct machine *m, const int *fd, int count, struct err *e)
{
	int r = count < 1 || count > LAYERS_MAX ? -EINVAL : 0;

	for (int i = 0; i < count; i++) {
		struct layer *l = &s->layer[s->layers];

		*l = (struct layer){ .fd = fd[i] };
		if (r)
			close(fd[i]);
		else
			s->layers++;
		r = r ? r : read_layer(l, total_size(&m->mem));
		r = r ? r : map_layer(l, &m->mem);
	}
	return r ? err_sys(e, ERR_HOST, r, "cannot share the memory of the machine this is a copy of") : 0;
}

int
state_save_description(int fd, struct machine *m, struct cpus *c, struct err *e)
{
	struct str description = { 0 };
	struct state_map map;
	struct state_writer w;
	int r;

	if (state_map_init(&map, &m->mem, e))
		return -1;
	state_describe(&description, m, c);
	state_writer_init(&w, fd, &map);
	r = state_writer_finish(&w, &description, e);
	str_free(&description);
	state_map_free(&map);
	return r;
}
