/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The file of a saved state, version 1. All numbers are little-endian.
 *
 *	0	header, 4096 bytes
 *		 0  8	"LodgeSav"
 *		 8  4	version: 1
 *		12  4	size of a chunk in bytes: 131072
 *		16  8	length of the file
 *		24  8	offset of the table	32  8	its length, compressed	40  8	its length, expanded
 *		48  8	offset of the description	56  8	its length, compressed	64  8	its length, expanded
 *		72  4	CRC-32C of the table as stored	76  4	CRC-32C of the description as stored
 *		80  4	CRC-32C of the bytes 0-79
 *		84	zeroes
 *	4096	chunks: memory in pieces of 128 KiB (the last of a block may be shorter), each a zstd frame
 *	...	the table, a zstd frame: u32 number of memory blocks; for each: 32 bytes name, u64 size; then for all
 *		chunks of all blocks in order: u64 offset, u32 length, u32 CRC-32C of what is stored. Length 0: zeroes
 *	...	the description, a zstd frame: see describe.c
 *
 * The header is written last, after everything else is on stable storage: a file without it is one whose making was
 * interrupted. Every byte that is used is covered by a checksum: chunks by the table's, the table and the description
 * by the header's, the header by its own.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zstd.h>

#include "base/bytes.h"
#include "state/private.h"

#define MAGIC "LodgeSav"
#define VERSION 1
#define HEADER 4096u
#define HEADER_USED 84u
#define RAM_ROW 40u
#define CHUNK_ROW 16u
#define TABLE_MAX (1ull << 30)
#define DESCRIPTION_MAX (64u << 20)
#define RAM_MAX (1ull << 41)

/* ---- CRC-32C (RFC 3720, appendix B.4): polynomial 0x1edc6f41, reflected ---- */

__attribute__((target("sse4.2"))) static uint32_t
crc_fast(uint32_t crc, const uint8_t *p, size_t n)
{
	uint64_t c = crc;

	for (; n >= 8; n -= 8, p += 8)
		c = __builtin_ia32_crc32di(c, le64(p));
	for (; n; n--, p++)
		c = __builtin_ia32_crc32qi((uint32_t)c, *p);
	return (uint32_t)c;
}

static uint32_t
crc_slow(uint32_t crc, const uint8_t *p, size_t n)
{
	for (; n; n--, p++) {
		crc ^= *p;
		for (int bit = 0; bit < 8; bit++)
			crc = crc >> 1 ^ (0x82f63b78u & -(crc & 1));
	}
	return crc;
}

uint32_t
state_crc(uint32_t crc, const void *p, size_t n)
{
	return ~(__builtin_cpu_supports("sse4.2") ? crc_fast(~crc, p, n) : crc_slow(~crc, p, n));
}

uint32_t
state_checksum(const void *p, size_t n)
{
	return state_crc(0, p, n);
}

unsigned
state_threads(void)
{
	long n = sysconf(_SC_NPROCESSORS_ONLN);

	return n < 1 ? 1 : n > STATE_THREADS_MAX ? STATE_THREADS_MAX : (unsigned)n;
}

size_t
state_bound(void)
{
	return ZSTD_compressBound(STATE_CHUNK);
}

/* ---- the map ---- */

static int
map_add(struct state_map *map, const char *name, uint64_t size)
{
	struct state_ram *r = &map->ram[map->rams];

	if (map->rams == STATE_RAMS_MAX || !size || size % PAGE_SIZE || size > RAM_MAX)
		return -1;
	memset(r, 0, sizeof(*r));
	memcpy(r->name, name, strnlen(name, sizeof(r->name) - 1));
	r->size = size;
	r->first = map->count;
	r->chunks = (size + STATE_CHUNK - 1) / STATE_CHUNK;
	map->count += r->chunks;
	map->rams++;
	return 0;
}

int
state_map_init(struct state_map *map, struct mem *mem, struct err *e)
{
	memset(map, 0, sizeof(*map));
	for (struct ram *r = mem->rams; r; r = r->next) {
		if (map_add(map, r->name, r->size))
			return err_set(e, ERR_UNSUPPORTED, "the machine has more memory than a saved state can hold");
		map->ram[map->rams - 1].ram = r;
	}
	map->chunk = xcalloc(map->count + 1, sizeof(*map->chunk));
	return 0;
}

void
state_map_free(struct state_map *map)
{
	free(map->chunk);
	map->chunk = NULL;
}

static const struct state_ram *
ram_of(const struct state_map *map, uint64_t n)
{
	int i = map->rams - 1;

	while (i > 0 && n < map->ram[i].first)
		i--;
	return &map->ram[i];
}

static uint32_t
chunk_len(const struct state_map *map, uint64_t n)
{
	const struct state_ram *r = ram_of(map, n);

	return (uint32_t)MIN((uint64_t)STATE_CHUNK, r->size - (n - r->first) * STATE_CHUNK);
}

uint8_t *
state_chunk_at(const struct state_map *map, uint64_t n, uint32_t *len)
{
	const struct state_ram *r = ram_of(map, n);

	*len = chunk_len(map, n);
	return r->ram ? r->ram->host + (n - r->first) * STATE_CHUNK : NULL;
}

uint64_t
state_chunk_of(const struct state_map *map, const void *address)
{
	const uint8_t *a = address;

	for (int i = 0; i < map->rams; i++) {
		const struct state_ram *r = &map->ram[i];

		if (r->ram && a >= r->ram->host && (uint64_t)(a - r->ram->host) < r->size)
			return r->first + (uint64_t)(a - r->ram->host) / STATE_CHUNK;
	}
	return UINT64_MAX;
}

/* ---- writing ---- */

void
state_writer_init(struct state_writer *w, int fd, struct state_map *map)
{
	w->fd = fd;
	w->map = map;
	w->end = HEADER;
}

int
state_packer_open(struct state_packer *p)
{
	ZSTD_CCtx *z = ZSTD_createCCtx();

	p->room = state_bound();
	p->out = malloc(p->room);
	p->zstd = z;
	if (!z || !p->out) {
		state_packer_close(p);
		return -ENOMEM;
	}
	ZSTD_CCtx_setParameter(z, ZSTD_c_compressionLevel, STATE_LEVEL);
	return 0;
}

void
state_packer_close(struct state_packer *p)
{
	ZSTD_freeCCtx(p->zstd);
	free(p->out);
	*p = (struct state_packer){ 0 };
}

static bool
all_zero(const uint8_t *p, size_t n)
{
	return !p[0] && !memcmp(p, p + 1, n - 1);
}

int
state_pack(struct state_packer *p, struct state_map *map, uint64_t n, const uint8_t *data, uint32_t len)
{
	struct state_chunk *c = &map->chunk[n];
	size_t packed;

	*c = (struct state_chunk){ 0 };
	if (mem_untouched(state_mem(map), data, len) || all_zero(data, len))
		return 0;
	packed = ZSTD_compress2(p->zstd, p->out, p->room, data, len);
	if (ZSTD_isError(packed))
		return -EIO;
	c->length = (uint32_t)packed;
	c->crc = state_crc(0, p->out, packed);
	return (int)packed;
}

static int
write_at(int fd, const void *data, size_t len, uint64_t offset)
{
	const uint8_t *p = data;

	while (len) {
		ssize_t n = pwrite(fd, p, len, (off_t)offset);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n ? -errno : -ENOSPC;
		p += n;
		len -= (size_t)n;
		offset += (uint64_t)n;
	}
	return 0;
}

int
state_put(struct state_writer *w, struct state_packer *p, uint64_t n, uint64_t offset)
{
	struct state_chunk *c = &w->map->chunk[n];

	c->offset = c->length ? offset : 0;
	return c->length ? write_at(w->fd, p->out, c->length, offset) : 0;
}

static void
put_bytes(struct str *s, uint64_t value, unsigned bytes)
{
	uint8_t b[8];

	put_le64(b, value);
	str_addn(s, (char *)b, bytes);
}

static void
write_table(struct str *s, const struct state_map *map)
{
	put_bytes(s, (uint64_t)map->rams, 4);
	for (int i = 0; i < map->rams; i++) {
		str_addn(s, map->ram[i].name, sizeof(map->ram[i].name));
		put_bytes(s, map->ram[i].size, 8);
	}
	for (uint64_t n = 0; n < map->count; n++) {
		put_bytes(s, map->chunk[n].offset, 8);
		put_bytes(s, map->chunk[n].length, 4);
		put_bytes(s, map->chunk[n].crc, 4);
	}
}

/* One of the two compressed parts behind the chunks: its place goes to header + at, its checksum to header + crc_at. */
static int
write_part(struct state_writer *w, uint8_t *header, unsigned at, unsigned crc_at, const struct str *s)
{
	size_t room = ZSTD_compressBound(s->len), n;
	uint8_t *out = malloc(room);
	int r;

	if (!out)
		return -ENOMEM;
	n = ZSTD_compress(out, room, s->s, s->len, STATE_LEVEL);
	r = ZSTD_isError(n) ? -EIO : write_at(w->fd, out, n, w->end);
	put_le64(header + at, w->end);
	put_le64(header + at + 8, n);
	put_le64(header + at + 16, s->len);
	put_le32(header + crc_at, state_crc(0, out, r ? 0 : n));
	w->end += n;
	free(out);
	return r;
}

int
state_writer_finish(struct state_writer *w, const struct str *description, struct err *e)
{
	uint8_t header[HEADER] = MAGIC;
	struct str table = { 0 };
	int r;

	put_le32(header + 8, VERSION);
	put_le32(header + 12, STATE_CHUNK);
	write_table(&table, w->map);
	r = write_part(w, header, 24, 72, &table);
	r = r ? r : write_part(w, header, 48, 76, description);
	str_free(&table);
	put_le64(header + 16, w->end);
	put_le32(header + 80, state_crc(0, header, 80));
	if (!r && fdatasync(w->fd))
		r = -errno;
	r = r ? r : write_at(w->fd, header, sizeof(header), 0);
	if (!r && fsync(w->fd))
		r = -errno;
	return r ? err_sys(e, ERR_FILE, r, "cannot write the saved state") : 0;
}

/* ---- reading ---- */

static int
read_at(int fd, void *data, size_t len, uint64_t offset)
{
	uint8_t *p = data;

	while (len) {
		ssize_t n = pread(fd, p, len, (off_t)offset);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n ? -errno : -EIO;
		p += n;
		len -= (size_t)n;
		offset += (uint64_t)n;
	}
	return 0;
}

static int
broken(const struct state_file *f, struct err *e, const char *what)
{
	return err_set(e, ERR_FILE, "The saved state '%s' is damaged: %s", f->path, what);
}

static bool
within(const struct state_file *f, uint64_t offset, uint64_t len)
{
	return offset >= HEADER && offset <= f->size && len <= f->size - offset;
}

/* A compressed part as write_part() made it. */
static int
read_part(struct state_file *f, const uint8_t *header, unsigned at, unsigned crc_at, uint64_t max, const char *what,
	struct str *out, struct err *e)
{
	uint64_t offset = le64(header + at), len = le64(header + at + 8), expanded = le64(header + at + 16);
	uint8_t *packed;
	int r = 0;

	if (!within(f, offset, len) || !len || !expanded || expanded > max)
		return broken(f, e, what);
	packed = malloc(len);
	out->s = malloc(expanded + 1);
	if (!packed || !out->s)
		r = err_set(e, ERR_HOST, "no memory for the saved state '%s'", f->path);
	else if (read_at(f->fd, packed, len, offset) || state_crc(0, packed, len) != le32(header + crc_at) ||
		 ZSTD_decompress(out->s, expanded, packed, len) != expanded)
		r = broken(f, e, what);
	free(packed);
	out->len = expanded;
	out->cap = expanded + 1;
	if (!r)
		out->s[expanded] = 0;
	return r;
}

static int
check_header(struct state_file *f, const uint8_t *h, struct err *e)
{
	if (memcmp(h, MAGIC, 8))
		return err_set(e, ERR_FILE,
			"'%s' is not a saved state, or the saving was interrupted before it was complete", f->path);
	if (state_crc(0, h, 80) != le32(h + 80))
		return broken(f, e, "its header's checksum is wrong");
	if (le32(h + 8) > VERSION)
		return err_set(e, ERR_UNSUPPORTED,
			"The saved state '%s' has version %u and this program knows versions up to %d: use the newer "
			"program that wrote it",
			f->path, le32(h + 8), VERSION);
	if (le32(h + 8) != VERSION || le32(h + 12) != STATE_CHUNK)
		return broken(f, e, "its header makes no sense");
	if (le64(h + 16) != f->size)
		return err_set(e, ERR_FILE, "The saved state '%s' is damaged: it has %llu bytes instead of %llu",
			f->path, (unsigned long long)f->size, (unsigned long long)le64(h + 16));
	return 0;
}

static int
parse_rams(struct state_file *f, const uint8_t *t, size_t len, uint32_t rams)
{
	for (uint32_t i = 0; i < rams; i++) {
		const uint8_t *row = t + 4 + (size_t)i * RAM_ROW;

		if (!memchr(row, 0, 32) || map_add(&f->map, (const char *)row, le64(row + 32)))
			return -1;
	}
	return (len - 4 - rams * RAM_ROW) / CHUNK_ROW == f->map.count ? 0 : -1;
}

static int
parse_table(struct state_file *f, const struct str *s, struct err *e)
{
	const uint8_t *t = (const uint8_t *)s->s, *row;
	uint32_t rams = s->len >= 4 ? le32(t) : 0;

	if (!rams || rams > STATE_RAMS_MAX || s->len < 4 + (size_t)rams * RAM_ROW ||
		(s->len - 4 - rams * RAM_ROW) % CHUNK_ROW || parse_rams(f, t, s->len, rams))
		return broken(f, e, "its list of memory makes no sense");
	f->map.chunk = xcalloc(f->map.count + 1, sizeof(*f->map.chunk));
	row = t + 4 + rams * RAM_ROW;
	for (uint64_t n = 0; n < f->map.count; n++, row += CHUNK_ROW) {
		f->map.chunk[n] = (struct state_chunk){ le64(row), le32(row + 8), le32(row + 12) };
		if (f->map.chunk[n].length &&
			(f->map.chunk[n].length > state_bound() || !within(f, le64(row), le32(row + 8))))
			return broken(f, e, "a piece of memory lies outside of the file");
	}
	return 0;
}

struct state_file *
state_open(int fd, const char *path, struct err *e)
{
	struct state_file *f = xcalloc(1, sizeof(*f));
	uint8_t header[HEADER_USED] = { 0 };
	struct str table = { 0 };
	struct stat st;
	int r = -1;

	f->fd = fd;
	f->path = xstrdup(path);
	if (fstat(fd, &st) || !S_ISREG(st.st_mode)) {
		err_set(e, ERR_FILE, "'%s' is not a file", path);
		goto out;
	}
	f->size = (uint64_t)st.st_size;
	if (f->size >= HEADER && read_at(fd, header, sizeof(header), 0)) {
		err_sys(e, ERR_FILE, errno, "cannot read the saved state '%s'", path);
		goto out;
	}
	if (check_header(f, header, e) ||
		read_part(f, header, 24, 72, TABLE_MAX, "its table cannot be read", &table, e) ||
		read_part(f, header, 48, 76, DESCRIPTION_MAX, "its description cannot be read", &f->description, e) ||
		parse_table(f, &table, e) || state_parse(f, e))
		goto out;
	r = 0;
out:
	str_free(&table);
	if (!r)
		return f;
	state_close(f);
	return NULL;
}

void
state_close(struct state_file *f)
{
	if (!f)
		return;
	state_load_wait(f);
	if (f->fd >= 0)
		close(f->fd);
	str_free(&f->description);
	state_map_free(&f->map);
	free(f->path);
	free(f);
}

const struct cpu_model *
state_model(const struct state_file *f)
{
	return &f->model;
}

int
state_get(const struct state_file *f, uint64_t n, void *zstd, uint8_t *scratch, uint8_t *out, uint32_t len)
{
	const struct state_chunk *c = &f->map.chunk[n];
	int r;

	if (!c->length) {
		memset(out, 0, len);
		return 0;
	}
	r = read_at(f->fd, scratch, c->length, c->offset);
	if (r)
		return r;
	if (state_crc(0, scratch, c->length) != c->crc ||
		ZSTD_decompressDCtx(zstd, out, len, scratch, c->length) != len)
		return -EBADMSG;
	return 0;
}

/* ---- checking all of it ---- */

struct verify {
	const struct state_file *f;
	const uint8_t *map; /* the whole file */
	_Atomic uint64_t next;
	_Atomic uint64_t bad; /* the first chunk found wrong */
};

static void *
verify_some(void *opaque)
{
	struct verify *v = opaque;
	uint64_t n;

	while ((n = v->next++) < v->f->map.count && v->bad == UINT64_MAX) {
		const struct state_chunk *c = &v->f->map.chunk[n];

		if (c->length && state_crc(0, v->map + c->offset, c->length) != c->crc)
			v->bad = n;
	}
	return NULL;
}

int
state_verify(struct state_file *f, struct err *e)
{
	struct verify v = { .f = f, .bad = UINT64_MAX };
	unsigned count = state_threads(), made = 0;
	pthread_t t[STATE_THREADS_MAX];
	void *map = mmap(NULL, f->size, PROT_READ, MAP_PRIVATE, f->fd, 0);

	if (map == MAP_FAILED)
		return err_sys(e, ERR_FILE, errno, "cannot read the saved state '%s'", f->path);
	madvise(map, f->size, MADV_SEQUENTIAL);
	v.map = map;
	while (made + 1 < count && !pthread_create(&t[made], NULL, verify_some, &v))
		made++;
	verify_some(&v);
	while (made)
		pthread_join(t[--made], NULL);
	munmap(map, f->size);
	if (v.bad == UINT64_MAX)
		return 0;
	return err_set(e, ERR_FILE,
		"The saved state '%s' is damaged: piece %llu of the memory '%s' has a wrong checksum", f->path,
		(unsigned long long)(v.bad - ram_of(&f->map, v.bad)->first), ram_of(&f->map, v.bad)->name);
}
