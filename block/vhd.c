/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vhd: Microsoft's Virtual Hard Disk: fixed, dynamic, differencing (Virtual Hard Disk Image Format Specification 1.0).
 *
 * All numbers are big-endian. A fixed image is the disk and, behind it, the footer of 512 bytes; a dynamic one begins
 * with a copy of the footer.
 *
 *   offset  size  footer
 *        0     8  "conectix"
 *        8     4  features, 2
 *       12     4  version of the format, 0x00010000
 *       16     8  file offset of the header, all ones in a fixed image
 *       24     4  seconds since 2000-01-01 when it was made
 *       28    12  program that made it, its version, its host
 *       40     8  size of the disk when it was made
 *       48     8  size of the disk in bytes
 *       56     4  cylinders (2), heads, sectors
 *       60     4  type: 2 fixed, 3 dynamic, 4 differencing
 *       64     4  checksum: one's complement of the sum of the other bytes
 *       68    16  UUID
 *
 *   offset  size  header of a dynamic image, 1024 bytes
 *        0     8  "cxsparse"
 *        8     8  all ones
 *       16     8  file offset of the block allocation table
 *       24     4  version, 0x00010000
 *       28     4  entries of the table
 *       32     4  size of a block in bytes, a power of two, 2 MiB
 *       36     4  checksum
 *       40    16  UUID of the parent (differencing)
 *       56     4  seconds since 2000-01-01 of the parent's last change
 *       64   512  file name of the parent, UTF-16
 *      576   192  8 parent locators of 24 bytes: kind (4), room (4), length (4), 0 (4), file offset (8)
 *                 "W2ru": a relative path, "W2ku": an absolute one, both UTF-16, little-endian, with backslashes;
 *                 "MacX": a URL, UTF-8
 *
 *   The table has 4 bytes for each block of the disk: the sector of the file where it begins, all ones: none, reads
 *   through to the parent, or as zeroes. A block is a bitmap, padded to sectors, with a bit for each sector that was
 *   written (the highest of a byte first), and the data. A sector without its bit reads through too. Without a parent
 * all bits of a new block are set here: what was not written reads as zeroes anyway.
 *
 * Sizes. The size of the disk is that of the footer; qemu-img before version 8 takes cylinders * heads * sectors
 * instead when it does not know the program that made the image, which is why images are signed "win " here.
 *
 * Writing: a block gets its place where the footer is, and the footer a new one behind it. The phases of a commit
 * (meta.h): 1 data and the footer   2 bitmaps   3 the table. The copy of the footer at the beginning is valid all the
 * time. A sector of a differencing image is written before its bit is set.
 *
 * The header is changed (another parent, table or size) in its first sector alone, so that it is changed as a whole or
 * not at all; the locators keep their places and lengths, padded with zeroes.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/bytes.h"
#include "block/file.h"
#include "block/format.h"
#include "block/meta.h"

#define FOOTER 512u
#define HEADER 1024u
#define SECTOR 512ull
#define BLOCK_NEW (2u << 20)
#define NO_BLOCK 0xffffffffu
#define SIZE_MAX_VHD (2040ull << 30)
#define BLOCKS_MAX (1u << 24)

enum { VHD_FIXED = 2, VHD_DYNAMIC = 3, VHD_DIFF = 4 };
enum { PHASE_FOOTER = 1, PHASE_BITMAP = 2, PHASE_TABLE = 3 };
enum { LOCATOR_RELATIVE = 0x57327275, LOCATOR_ABSOLUTE = 0x57326b75, LOCATOR_URL = 0x4d616358 };

enum vhd_field {
	AT_FEATURES = 8,
	AT_VERSION = 12,
	AT_HEADER = 16,
	AT_TIME = 24,
	AT_PROGRAM = 28,
	AT_FIRST_SIZE = 40,
	AT_SIZE = 48,
	AT_GEOMETRY = 56,
	AT_TYPE = 60,
	AT_SUM = 64,
	AT_UUID = 68,
	AT_H_TABLE = 16,
	AT_H_VERSION = 24,
	AT_H_ENTRIES = 28,
	AT_H_BLOCK = 32,
	AT_H_SUM = 36,
	AT_H_PARENT = 40,
	AT_H_PARENT_TIME = 56,
	AT_H_PARENT_NAME = 64,
	AT_H_LOCATORS = 576,
};

#define LOCATORS 8
#define LOCATOR 24
#define LOCATOR_ROOM 2048u /* bytes, for a path of 1023 units */

struct vhd {
	uint8_t footer[FOOTER], header[HEADER];
	uint64_t header_at;
	bool dynamic, differencing;
	uint64_t table_at, blocks, block, bitmap; /* bytes */
	pthread_mutex_t change;			  /* of the header, one at a time */
	pthread_mutex_t lock; /* everything below; list_blocks() and what follows has no other user */
	struct meta *meta;
	uint64_t end; /* where the footer is: the next block goes there */
};

static uint32_t
checksum(const uint8_t *p, unsigned len, unsigned sum_at)
{
	uint32_t sum = 0;

	for (unsigned i = 0; i < len; i++)
		if (i < sum_at || i >= sum_at + 4)
			sum += p[i];
	return ~sum;
}

static bool
good_footer(const uint8_t *f)
{
	return !memcmp(f, "conectix", 8) && be32(f + AT_SUM) == checksum(f, FOOTER, AT_SUM);
}

static bool
vhd_probe(const struct block_head *h)
{
	return h->len >= FOOTER && !memcmp(h->bytes, "conectix", 8);
}

/* A fixed image tells what it is at its end. */
static bool
vhd_probe_end(const uint8_t tail[512])
{
	return good_footer(tail) && be32(tail + AT_TYPE) == VHD_FIXED;
}

static int
bad(struct image *b, struct err *e, const char *what, uint64_t value)
{
	return err_set(
		e, ERR_FILE, "'%s' is not a good VHD image: %s (%llu)", b->path, what, (unsigned long long)value);
}

/* ---- opening ---- */

/* The footer, or its copy when it is damaged. */
static int
read_footer(struct image *b, struct vhd *v, uint64_t size, struct err *e)
{
	int r;

	if (size < FOOTER)
		return bad(b, e, "it is truncated", size);
	v->end = size - FOOTER;
	r = file_pread(b->fd, v->footer, FOOTER, v->end);
	if (!r && !good_footer(v->footer)) {
		v->end = size;
		r = file_pread(b->fd, v->footer, FOOTER, 0);
	}
	if (r)
		return err_sys(e, ERR_FILE, r, "The footer of '%s' cannot be read", b->path);
	if (!good_footer(v->footer))
		return bad(b, e, "the checksum of its footer is wrong", be32(v->footer + AT_SUM));
	if (be32(v->footer + AT_VERSION) != 0x10000)
		return err_set(e, ERR_UNSUPPORTED, "'%s' is a VHD image of version %x; 10000 can be used", b->path,
			be32(v->footer + AT_VERSION));
	if (be32(v->footer + AT_TYPE) < VHD_FIXED || be32(v->footer + AT_TYPE) > VHD_DIFF)
		return bad(b, e, "its type is unknown", be32(v->footer + AT_TYPE));
	return 0;
}

static int
check_header(struct image *b, struct vhd *v, const uint8_t *h, uint64_t at, struct err *e)
{
	if (memcmp(h, "cxsparse", 8))
		return bad(b, e, "there is no header where the footer says", at);
	if (be32(h + AT_H_SUM) != checksum(h, HEADER, AT_H_SUM))
		return bad(b, e, "the checksum of its header is wrong", be32(h + AT_H_SUM));
	v->block = be32(h + AT_H_BLOCK);
	if (v->block < 4096 || v->block > 256u << 20 || v->block & (v->block - 1))
		return bad(b, e, "the size of its blocks is impossible", v->block);
	v->bitmap = (v->block / SECTOR / 8 + SECTOR - 1) & ~(SECTOR - 1);
	v->blocks = be32(h + AT_H_ENTRIES);
	v->table_at = be64(h + AT_H_TABLE);
	if (v->blocks > BLOCKS_MAX)
		return bad(b, e, "it has too many blocks", v->blocks);
	if (b->size > v->blocks * v->block)
		return bad(b, e, "its disk is larger than its blocks", b->size);
	if (v->table_at % SECTOR || v->table_at < FOOTER || v->table_at > v->end ||
		v->blocks * 4 > v->end - v->table_at)
		return bad(b, e, "the place of its block table is impossible", v->table_at);
	return 0;
}

static int
open_dynamic(struct image *b, struct vhd *v, struct err *e)
{
	uint64_t at = be64(v->footer + AT_HEADER);
	uint8_t *h = v->header;
	int r;

	if (at % SECTOR || at > v->end || HEADER > v->end - at)
		return bad(b, e, "the place of its header is impossible", at);
	r = file_pread(b->fd, h, HEADER, at);
	if (r)
		return err_sys(e, ERR_FILE, r, "The header of '%s' cannot be read", b->path);
	if (check_header(b, v, h, at, e))
		return -1;
	v->dynamic = true;
	v->differencing = be32(v->footer + AT_TYPE) == VHD_DIFF;
	v->header_at = at;
	v->end = (v->end + SECTOR - 1) & ~(SECTOR - 1);
	v->meta = meta_open(b->fd, 512, &v->lock, b->flags & BLOCK_UNSAFE);
	return v->meta ? 0 : err_sys(e, ERR_FAILED, ENOMEM, "'%s' cannot be opened", b->path);
}

/* UTF-16 in either order to UTF-8, backslashes to slashes; free() it. What is not a character ends it. */
static char *
from_utf16(const uint8_t *p, size_t len)
{
	struct str s = { 0 };

	for (size_t i = 0; i + 1 < len; i += 2) {
		uint32_t c = le16(p + i);

		if (c >= 0xd800 && c < 0xdc00 && i + 3 < len) {
			c = 0x10000 + ((c & 0x3ff) << 10) + (le16(p + i + 2) & 0x3ff);
			i += 2;
		}
		if (!c)
			break;
		c = c == '\\' ? '/' : c;
		if (c < 0x80)
			str_addf(&s, "%c", (int)c);
		else if (c < 0x800)
			str_addf(&s, "%c%c", (int)(0xc0 | c >> 6), (int)(0x80 | (c & 63)));
		else if (c < 0x10000)
			str_addf(&s, "%c%c%c", (int)(0xe0 | c >> 12), (int)(0x80 | (c >> 6 & 63)),
				(int)(0x80 | (c & 63)));
		else
			str_addf(&s, "%c%c%c%c", (int)(0xf0 | c >> 18), (int)(0x80 | (c >> 12 & 63)),
				(int)(0x80 | (c >> 6 & 63)), (int)(0x80 | (c & 63)));
	}
	return s.s ? s.s : xstrdup("");
}

/* UTF-8 to UTF-16, padded with zeroes to `len` bytes; -1: it is too long, or not UTF-8. */
static int
to_utf16(const char *text, uint8_t *out, size_t len, bool big, bool backslash)
{
	const uint8_t *p = (const uint8_t *)text;
	size_t at = 0;

	memset(out, 0, len);
	while (*p) {
		int more = *p < 0x80 ? 0 : *p >> 5 == 6 ? 1 : *p >> 4 == 14 ? 2 : *p >> 3 == 30 ? 3 : -1;
		uint32_t c = more < 0 ? 0 : !more ? *p : *p & (0x3fu >> more);

		for (p++; more > 0; more--, p++) {
			if (*p >> 6 != 2)
				return -1;
			c = c << 6 | (*p & 63);
		}
		if (more < 0 || at + 6 > len)
			return -1;
		if (c == '/' && backslash)
			c = '\\';
		for (int unit = c > 0xffff ? 0 : 1; unit < 2; unit++, at += 2) {
			uint32_t u = c <= 0xffff ? c
				     : unit	 ? 0xdc00 | ((c - 0x10000) & 0x3ff)
						 : 0xd800 | (c - 0x10000) >> 10;

			out[at + big] = (uint8_t)u;
			out[at + !big] = (uint8_t)(u >> 8);
		}
	}
	return 0;
}

/* The path that the locator of that kind has; NULL: there is none. */
static char *
read_locator(struct image *b, struct vhd *v, uint32_t kind)
{
	uint8_t data[LOCATOR_ROOM + 2] = { 0 };

	for (int i = 0; i < LOCATORS; i++) {
		const uint8_t *l = v->header + AT_H_LOCATORS + i * LOCATOR;
		uint64_t at = be64(l + 16), len = be32(l + 8);

		if (be32(l) != kind)
			continue;
		if (len > LOCATOR_ROOM || at > v->end || len > v->end - at || file_pread(b->fd, data, len, at))
			return NULL;
		return kind == LOCATOR_URL ? xstrdup((const char *)data) : from_utf16(data, len);
	}
	return NULL;
}

/* The path in a URL of a file. */
static void
decode_url(char *url)
{
	char *to = url, *from = str_starts(url, "file://") ? url + 7 : url;

	for (; *from; from++) {
		unsigned c;

		if (*from == '%' && sscanf(from + 1, "%2x", &c) == 1 && c) {
			*to++ = (char)c;
			from += 2;
		} else {
			*to++ = *from;
		}
	}
	*to = 0;
}

static int
open_parent(struct image *b, struct vhd *v, struct err *e)
{
	char *relative = read_locator(b, v, LOCATOR_RELATIVE), *absolute = read_locator(b, v, LOCATOR_ABSOLUTE),
	     *url = read_locator(b, v, LOCATOR_URL);
	struct parent_ref ref = { 0 };
	int r;

	if (url)
		decode_url(url);
	ref.name = relative && *relative ? relative : absolute;
	ref.name2 = url && *url ? url : absolute;
	memcpy(ref.uuid.b, v->header + AT_H_PARENT, 16);
	r = image_open_parent(b, &ref, e);
	free(relative);
	free(absolute);
	free(url);
	return r;
}

static void
vhd_close(struct image *b)
{
	struct vhd *v = b->state;

	meta_close(v->meta);
	pthread_mutex_destroy(&v->lock);
	pthread_mutex_destroy(&v->change);
	free(v);
}

static int
vhd_open(struct image *b, struct err *e)
{
	struct vhd *v = xcalloc(1, sizeof(*v));
	int64_t size = file_size(b->fd);
	int r;

	pthread_mutex_init(&v->lock, NULL);
	pthread_mutex_init(&v->change, NULL);
	if (size < 0)
		r = err_sys(e, ERR_FILE, (int)size, "The size of '%s' cannot be found", b->path);
	else
		r = read_footer(b, v, (uint64_t)size, e);
	b->size = be64(v->footer + AT_SIZE);
	if (!r && (b->size == 0 || b->size % SECTOR || b->size > INT64_MAX / 2))
		r = bad(b, e, "the size of its disk is not a number of sectors", b->size);
	if (!r && be32(v->footer + AT_TYPE) != VHD_FIXED)
		r = open_dynamic(b, v, e);
	else if (!r && b->size > v->end)
		r = bad(b, e, "it is truncated: the disk is larger than the file", b->size);
	memcpy(b->uuid.b, v->footer + AT_UUID, 16);
	b->variant = v->differencing ? "differencing" : v->dynamic ? "dynamic" : "fixed";
	b->state = v;
	if (!r && v->differencing)
		r = open_parent(b, v, e);
	if (r)
		vhd_close(b);
	return r ? -1 : 0;
}

/* ---- blocks; lock held ---- */

/* *host: file offset of byte `off` of the disk, 0: no block. *bits: of the bitmap. */
static int
lookup(struct vhd *v, uint64_t off, uint64_t *host, uint64_t *bits)
{
	uint8_t raw[4];
	int r = meta_get(v->meta, v->table_at + off / v->block * 4, raw, 4);
	uint64_t at = be32(raw) * SECTOR;

	*host = *bits = 0;
	if (r || be32(raw) == NO_BLOCK)
		return r;
	if (at < v->table_at + v->blocks * 4 && at + v->bitmap + v->block > v->table_at)
		return -EIO;
	if (at < FOOTER || v->bitmap + v->block > v->end || at > v->end - v->bitmap - v->block)
		return -EIO;
	*bits = at;
	*host = at + v->bitmap + off % v->block;
	return 0;
}

/* Put a block in the place of the footer. */
static int
allocate(struct image *b, struct vhd *v, uint64_t off)
{
	uint64_t at = v->end, end = at + v->bitmap + v->block;
	uint8_t bits[512], raw[4];
	int r = 0;

	if (end / SECTOR >= NO_BLOCK)
		return -EFBIG;
	if (ftruncate(b->fd, (off_t)(end + FOOTER)))
		return -errno;
	memset(bits, v->differencing ? 0 : 0xff, sizeof(bits));
	r = meta_put(v->meta, end, v->footer, FOOTER, PHASE_FOOTER);
	/* The old footer is where the bitmap comes: what is behind it has never been anything. */
	for (uint64_t i = 0; i < v->bitmap && !r; i += sizeof(bits))
		r = meta_put(v->meta, at + i, bits, sizeof(bits), PHASE_BITMAP);
	put_be32(raw, (uint32_t)(at / SECTOR));
	if (!r)
		r = meta_put(v->meta, v->table_at + off / v->block * 4, raw, 4, PHASE_TABLE);
	if (!r)
		v->end = end;
	return r;
}

/* The sectors [off, off+len) of one block are there from now on. */
static int
set_bits(struct vhd *v, uint64_t bits, uint64_t off, uint64_t len)
{
	uint64_t s = off % v->block / SECTOR, end = (off % v->block + len + SECTOR - 1) / SECTOR;
	int r = 0;

	while (s < end && !r) {
		uint8_t buf[64], old[64];
		uint64_t first = s / 8, n = MIN(sizeof(buf), (end + 7) / 8 - first);

		r = meta_get(v->meta, bits + first, buf, n);
		memcpy(old, buf, n);
		for (; s < end && s / 8 < first + n; s++)
			buf[s / 8 - first] |= (uint8_t)(0x80 >> s % 8);
		if (!r && memcmp(buf, old, n))
			r = meta_put(v->meta, bits + first, buf, n, PHASE_BITMAP);
	}
	return r;
}

/* Is the sector at `off` there? *len: for how many bytes that is so, within its block. */
static int
get_bits(struct vhd *v, uint64_t bits, uint64_t off, uint64_t *len, bool *there)
{
	uint64_t first = off % v->block / SECTOR, s = first, end = (off % v->block + *len + SECTOR - 1) / SECTOR;
	bool same = true;
	int r = 0;

	while (s < end && same && !r) {
		uint8_t buf[64];
		uint64_t at = s / 8, n = MIN(sizeof(buf), (end + 7) / 8 - at);

		r = meta_get(v->meta, bits + at, buf, n);
		if (s == first)
			*there = buf[0] & 0x80 >> s % 8;
		for (; s < end && s / 8 < at + n && same; s += same)
			same = !(buf[s / 8 - at] & 0x80 >> s % 8) == !*there;
	}
	*len = MIN(*len, (s - first) * SECTOR - off % SECTOR);
	return r;
}

/* Where `off` is, 0: it reads through. *len: for how many bytes that is so. Takes the lock. */
static int
find(struct vhd *v, uint64_t off, uint64_t *len, uint64_t *host)
{
	bool there = true;
	uint64_t bits;
	int r;

	*len = MIN(*len, v->block - off % v->block);
	pthread_mutex_lock(&v->lock);
	r = lookup(v, off, host, &bits);
	if (!r && *host && v->differencing)
		r = get_bits(v, bits, off, len, &there);
	pthread_mutex_unlock(&v->lock);
	if (!there)
		*host = 0;
	return r;
}

/* The place of `off`, made when there is none. */
static int
find_place(struct image *b, struct vhd *v, uint64_t off, uint64_t *host)
{
	uint64_t bits;
	int r;

	pthread_mutex_lock(&v->lock);
	r = lookup(v, off, host, &bits);
	if (!r && !*host) {
		r = allocate(b, v, off);
		if (!r)
			r = lookup(v, off, host, &bits);
	}
	pthread_mutex_unlock(&v->lock);
	return r;
}

/* [off, off+len) of one block was written. */
static int
mark_written(struct vhd *v, uint64_t off, uint64_t len)
{
	uint64_t host, bits;
	int r;

	pthread_mutex_lock(&v->lock);
	r = lookup(v, off, &host, &bits);
	if (!r && bits)
		r = set_bits(v, bits, off, len);
	pthread_mutex_unlock(&v->lock);
	return r;
}

/* ---- reading and writing ---- */

static int
vhd_read(struct image *b, const struct iovec *iov, int iovcnt, uint64_t skip, uint64_t off, uint64_t len)
{
	struct vhd *v = b->state;
	int r = 0;

	if (!v->dynamic)
		return image_data_read(b, b->fd, iov, iovcnt, skip, len, off, off);
	for (uint64_t n; len && !r; off += n, skip += n, len -= n) {
		uint64_t host;

		n = len;
		r = find(v, off, &n, &host);
		if (!r && host)
			r = image_data_read(b, b->fd, iov, iovcnt, skip, n, host, off);
		else if (!r)
			r = image_read_backing(b, iov, iovcnt, skip, off, n);
	}
	return r;
}

static int
vhd_map(struct image *b, uint64_t off, uint64_t *len, enum map_kind *kind)
{
	struct vhd *v = b->state;
	uint64_t host = off;
	int r = v->dynamic ? find(v, off, len, &host) : 0;

	*kind = v->dynamic && !host ? MAP_HOLE : MAP_DATA;
	if (*kind == MAP_DATA && !r && file_is_hole_near(&b->span, b->fd, host, len))
		*kind = MAP_ZERO;
	return r;
}

static int vhd_flush(struct image *b);

static int
vhd_write(struct image *b, const struct iovec *iov, int iovcnt, uint64_t skip, uint64_t off, uint64_t len)
{
	struct vhd *v = b->state;
	int r = 0;

	if (!v->dynamic)
		return image_data_write(b, b->fd, iov, iovcnt, skip, len, off, off);
	for (uint64_t n; len && !r; off += n, skip += n, len -= n) {
		uint64_t host;

		n = MIN(len, v->block - off % v->block);
		r = find_place(b, v, off, &host);
		if (!r)
			r = image_data_write(b, b->fd, iov, iovcnt, skip, n, host, off);
		if (!r)
			r = mark_written(v, off, n);
	}
	if (!r && meta_full(v->meta))
		r = vhd_flush(b);
	return r;
}

static int
vhd_zero(struct image *b, uint64_t off, uint64_t len)
{
	struct vhd *v = b->state;
	int r = 0;

	if (!v->dynamic)
		return file_zero(b->fd, off, len);
	for (uint64_t n; len && !r; off += n, len -= n) {
		uint64_t host;

		n = len;
		r = find(v, off, &n, &host);
		if (!r && !host && !image_backing_is_zero(b, off, n))
			r = find_place(b, v, off, &host);
		if (!r && host)
			r = file_zero(b->fd, host, n);
		if (!r && host)
			r = mark_written(v, off, n);
	}
	if (!r && meta_full(v->meta))
		r = vhd_flush(b);
	return r;
}

static int
vhd_flush(struct image *b)
{
	struct vhd *v = b->state;

	if (v->meta)
		return meta_commit(v->meta);
	return image_sync(b, b->fd);
}

static bool
vhd_dirty(struct image *b)
{
	struct vhd *v = b->state;

	return v->meta && meta_dirty(v->meta);
}

/* ---- creating ---- */

static void
fill_footer(uint8_t *f, const struct block_create *c, bool differencing)
{
	struct uuid u = c->uuid ? *c->uuid : uuid_random();
	uint64_t cylinders = MIN(c->size / SECTOR / (16 * 255), 65535);

	memset(f, 0, FOOTER);
	memcpy(f, "conectix", 8);
	put_be32(f + AT_FEATURES, 2);
	put_be32(f + AT_VERSION, 0x10000);
	put_be64(f + AT_HEADER, c->fixed ? ~0ull : FOOTER);
	put_be32(f + AT_TIME, (uint32_t)(time(NULL) - 946684800));
	memcpy(f + AT_PROGRAM, "win \0\1\0\0Wi2k", 12);
	put_be64(f + AT_FIRST_SIZE, c->size);
	put_be64(f + AT_SIZE, c->size);
	put_be16(f + AT_GEOMETRY, (uint16_t)MAX(cylinders, 1));
	f[AT_GEOMETRY + 2] = 16;
	f[AT_GEOMETRY + 3] = 255;
	put_be32(f + AT_TYPE, c->fixed ? VHD_FIXED : differencing ? VHD_DIFF : VHD_DYNAMIC);
	memcpy(f + AT_UUID, u.b, 16);
	put_be32(f + AT_SUM, checksum(f, FOOTER, AT_SUM));
}

/* What the header says of the parent: all of it in the first sector, but for the places of the locators. */
static int
fill_parent(uint8_t *h, struct image *parent, const char *name)
{
	const char *slash = strrchr(name, '/');

	memcpy(h + AT_H_PARENT, parent->uuid.b, 16);
	put_be32(h + AT_H_PARENT_TIME, (uint32_t)(time(NULL) - 946684800));
	/* The name alone, as far as there is room: programs show it, and use the locators. */
	to_utf16(slash ? slash + 1 : name, h + AT_H_PARENT_NAME, SECTOR - AT_H_PARENT_NAME, true, false);
	put_be32(h + AT_H_SUM, checksum(h, HEADER, AT_H_SUM));
	return 0;
}

static int
write_locator(int fd, const char *name, bool relative, uint64_t at)
{
	uint8_t data[LOCATOR_ROOM];
	char *text = xasprintf("%s%s", relative && *name != '/' && *name != '.' ? "./" : "", name);
	int r = to_utf16(text, data, sizeof(data), false, relative) ? -ENAMETOOLONG : 0;

	free(text);
	return r ? r : file_pwrite(fd, data, sizeof(data), at);
}

static void
fill_locator(uint8_t *l, uint32_t kind, uint64_t at)
{
	put_be32(l, kind);
	put_be32(l + 4, LOCATOR_ROOM);
	put_be32(l + 8, LOCATOR_ROOM);
	put_be64(l + 16, at);
}

/* Both ways to the parent. A path that is absolute anyway stands in both. */
static int
write_locators(int fd, const char *path, struct image *parent, uint64_t relative_at, uint64_t absolute_at)
{
	char *name = image_parent_name(path, parent->path), *full = realpath(parent->path, NULL);
	int r = write_locator(fd, name, *name != '/', relative_at);

	if (!r && fdatasync(fd))
		r = -errno;
	if (!r && absolute_at)
		r = write_locator(fd, full ? full : name, false, absolute_at);
	free(name);
	free(full);
	return r;
}

static int
create_table(int fd, const struct block_create *c, struct image *parent, uint64_t *end)
{
	uint64_t blocks = (c->size + BLOCK_NEW - 1) / BLOCK_NEW, len = (blocks * 4 + SECTOR - 1) & ~(SECTOR - 1);
	uint64_t locators = FOOTER + HEADER, at = locators + (parent ? 2 * LOCATOR_ROOM : 0);
	uint8_t h[HEADER] = "cxsparse", *table = malloc(len);
	int r = -ENOMEM;

	put_be64(h + 8, ~0ull);
	put_be64(h + AT_H_TABLE, at);
	put_be32(h + AT_H_VERSION, 0x10000);
	put_be32(h + AT_H_ENTRIES, (uint32_t)blocks);
	put_be32(h + AT_H_BLOCK, BLOCK_NEW);
	if (parent) {
		fill_locator(h + AT_H_LOCATORS, LOCATOR_RELATIVE, locators);
		fill_locator(h + AT_H_LOCATORS + LOCATOR, LOCATOR_ABSOLUTE, locators + LOCATOR_ROOM);
		fill_parent(h, parent, parent->path);
	}
	put_be32(h + AT_H_SUM, checksum(h, HEADER, AT_H_SUM));
	if (table) {
		memset(table, 0xff, len);
		r = file_pwrite(fd, table, len, at);
	}
	free(table);
	if (!r && parent)
		r = write_locators(fd, c->path, parent, locators, locators + LOCATOR_ROOM);
	*end = at + len;
	return r ? r : file_pwrite(fd, h, HEADER, FOOTER);
}

static int
vhd_create(int fd, const struct block_create *c, struct image *parent, struct err *e)
{
	uint8_t footer[FOOTER];
	uint64_t end = c->size;
	int r;

	if (c->size > SIZE_MAX_VHD)
		return err_set(e, ERR_INVALID, "A VHD image cannot have %llu bytes; 2040 GiB is the most",
			(unsigned long long)c->size);
	if (parent && parent->format == &block_raw)
		return err_set(e, ERR_UNSUPPORTED,
			"A VHD image cannot say that its parent is raw: use VDI, VMDK or QCOW2 on '%s'", parent->path);
	fill_footer(footer, c, parent);
	if (c->fixed)
		r = file_reserve(fd, 0, c->size, c->progress, c->opaque);
	else
		r = create_table(fd, c, parent, &end);
	if (!r && !c->fixed)
		r = file_pwrite(fd, footer, FOOTER, 0);
	if (!r)
		r = file_pwrite(fd, footer, FOOTER, end);
	return r ? err_sys(e, ERR_FILE, r, "The VHD image '%s' cannot be written", c->path) : 0;
}

/* ---- changes of the header ---- */

/* The footers: the one at the end counts, the other one is for when that is damaged. */
static int
write_footers(struct image *b, struct vhd *v)
{
	int r;

	put_be32(v->footer + AT_SUM, checksum(v->footer, FOOTER, AT_SUM));
	r = file_pwrite(b->fd, v->footer, FOOTER, v->end);
	if (!r)
		r = image_sync(b, b->fd);
	if (!r && v->dynamic)
		r = file_pwrite(b->fd, v->footer, FOOTER, 0);
	if (!r && v->meta) {
		pthread_mutex_lock(&v->lock);
		r = meta_put(v->meta, v->end, v->footer, FOOTER, PHASE_FOOTER);
		pthread_mutex_unlock(&v->lock);
	}
	return r ? r : image_sync(b, b->fd);
}

static int
write_header(struct image *b, struct vhd *v)
{
	int r;

	put_be32(v->header + AT_H_SUM, checksum(v->header, HEADER, AT_H_SUM));
	r = file_pwrite(b->fd, v->header, SECTOR, v->header_at);
	return r ? r : image_sync(b, b->fd);
}

static int
set_type(struct image *b, struct vhd *v, uint32_t type)
{
	if (be32(v->footer + AT_TYPE) == type)
		return 0;
	put_be32(v->footer + AT_TYPE, type);
	return write_footers(b, v);
}

static uint64_t
locator_place(struct vhd *v, uint32_t kind)
{
	for (int i = 0; i < LOCATORS; i++) {
		const uint8_t *l = v->header + AT_H_LOCATORS + i * LOCATOR;

		if (be32(l) == kind && be32(l + 8) == LOCATOR_ROOM)
			return be64(l + 16);
	}
	return 0;
}

/*
 * The relative locator first: should the header still have the old UUID, the absolute one leads to the old parent. A
 * child without a parent is a dynamic image: sectors without a bit are zeroes in the file.
 */
static int
vhd_set_parent(struct image *b, struct image *parent, struct err *e)
{
	struct vhd *v = b->state;
	uint64_t relative = locator_place(v, LOCATOR_RELATIVE), absolute = locator_place(v, LOCATOR_ABSOLUTE);
	int r;

	if (parent && parent->format == &block_raw)
		return err_set(
			e, ERR_UNSUPPORTED, "'%s' is a VHD image and cannot say that its parent is raw", b->path);
	if (parent && (!v->differencing || !relative || !absolute))
		return err_set(e, ERR_UNSUPPORTED, "'%s' has no room for the name of a parent: clone it", b->path);
	pthread_mutex_lock(&v->change);
	if (parent) {
		r = write_locators(b->fd, b->path, parent, relative, 0);
		if (!r) {
			fill_parent(v->header, parent, parent->path);
			r = write_header(b, v);
		}
		if (!r)
			r = write_locators(b->fd, b->path, parent, relative, absolute);
	} else {
		r = set_type(b, v, VHD_DYNAMIC);
		if (!r)
			b->variant = "dynamic";
	}
	pthread_mutex_unlock(&v->change);
	return r ? err_sys(e, ERR_FILE, r, "The header of '%s' cannot be written", b->path) : 0;
}

static int
vhd_set_uuid(struct image *b, const struct uuid *uuid, struct err *e)
{
	struct vhd *v = b->state;
	int r;

	memcpy(v->footer + AT_UUID, uuid->b, 16);
	r = write_footers(b, v);
	if (r)
		return err_sys(e, ERR_FILE, r, "The footer of '%s' cannot be written", b->path);
	b->uuid = *uuid;
	return 0;
}

/* ---- another size ---- */

/* A table of `blocks` entries where the footer is, and the footer behind it. */
static int
move_table(struct image *b, struct vhd *v, uint64_t blocks)
{
	uint64_t len = (blocks * 4 + SECTOR - 1) & ~(SECTOR - 1), at = v->end;
	uint8_t *table = malloc(len);
	int r = table ? 0 : -ENOMEM;

	if (r)
		return r;
	memset(table, 0xff, len);
	r = file_pread(b->fd, table, v->blocks * 4, v->table_at);
	if (!r)
		r = file_pwrite(b->fd, v->footer, FOOTER, at + len);
	if (!r)
		r = image_sync(b, b->fd);
	/* Through the cache: it knows the old footer there. */
	if (!r) {
		pthread_mutex_lock(&v->lock);
		r = meta_put(v->meta, at, table, len, PHASE_FOOTER);
		pthread_mutex_unlock(&v->lock);
	}
	if (!r)
		r = meta_commit(v->meta);
	free(table);
	if (r)
		return r;
	v->end = at + len;
	v->table_at = at;
	put_be64(v->header + AT_H_TABLE, at);
	return 0;
}

static int
resize_fixed(struct image *b, struct vhd *v, uint64_t size)
{
	uint64_t old_end = v->end;
	int r = ftruncate(b->fd, (off_t)MAX(size + FOOTER, old_end + FOOTER)) ? -errno : 0;

	put_be64(v->footer + AT_SIZE, size);
	v->end = size;
	if (!r)
		r = write_footers(b, v);
	if (!r && size > old_end)
		r = file_zero(b->fd, old_end, MIN(FOOTER, size - old_end));
	else if (!r && ftruncate(b->fd, (off_t)(size + FOOTER)))
		r = -errno;
	return r;
}

static int
vhd_resize(struct image *b, uint64_t size, struct err *e)
{
	struct vhd *v = b->state;
	uint64_t blocks = (size + v->block - 1) / MAX(v->block, 1);
	int r = vhd_flush(b);

	if (size > SIZE_MAX_VHD)
		return err_set(e, ERR_INVALID, "A VHD image cannot have %llu bytes; 2040 GiB is the most",
			(unsigned long long)size);
	if (!r && !v->dynamic) {
		r = resize_fixed(b, v, size);
	} else if (!r) {
		if (blocks > v->blocks)
			r = move_table(b, v, blocks);
		v->blocks = MAX(blocks, v->blocks);
		put_be32(v->header + AT_H_ENTRIES, (uint32_t)v->blocks);
		if (!r)
			r = write_header(b, v);
		put_be64(v->footer + AT_SIZE, size);
		if (!r)
			r = write_footers(b, v);
	}
	if (r)
		return err_sys(e, ERR_FILE, r, "'%s' cannot be resized", b->path);
	b->size = size;
	return 0;
}

/* ---- giving space back ---- */

struct place {
	uint64_t at;
	uint32_t index;
};

static int
by_place(const void *a, const void *b)
{
	const struct place *x = a, *y = b;

	return x->at < y->at ? -1 : x->at > y->at;
}

/* The blocks of the file in their order; those that are zero lose their entry. */
static int
list_blocks(struct image *b, struct vhd *v, struct place *list, uint64_t *count, uint8_t *buf,
	const struct block_progress *p)
{
	int r = 0;

	*count = 0;
	for (uint64_t i = 0; i < v->blocks && !r; i++) {
		uint64_t host, bits, off = i * v->block, len = off < b->size ? MIN(v->block, b->size - off) : 0;
		uint8_t none[4] = { 0xff, 0xff, 0xff, 0xff };

		if (p && p->stopped && p->stopped(p->opaque))
			return -EINTR;
		if (p && p->percent)
			p->percent(p->opaque, (int)(i * 70 / v->blocks));
		r = lookup(v, off, &host, &bits);
		if (r || !bits)
			continue;
		r = file_pread(b->fd, buf, len, host);
		if (!r && mem_is_zero(buf, len) && !(v->differencing && len))
			r = meta_put(v->meta, v->table_at + i * 4, none, 4, PHASE_TABLE);
		else
			list[(*count)++] = (struct place){ bits, (uint32_t)i };
	}
	qsort(list, *count, sizeof(*list), by_place);
	/* The places are free only when no table on the disk names them any more. */
	return r ? r : meta_commit(v->meta);
}

/* The last block goes to the first gap, as long as that is in front of it. *end: behind the last block. */
static int
close_gaps(struct image *b, struct vhd *v, struct place *list, uint64_t count, uint8_t *buf, uint64_t *end)
{
	uint64_t unit = v->bitmap + v->block, at = (v->table_at + v->blocks * 4 + SECTOR - 1) & ~(SECTOR - 1);
	int r = 0;

	for (uint64_t i = 0; i < count && !r; i++) {
		uint8_t raw[4];

		if (list[i].at < at || list[i].at - at < unit) { /* in front of the table, or no gap in front of it */
			at = MAX(at, list[i].at + unit);
			continue;
		}
		r = file_pread(b->fd, buf, unit, list[count - 1].at);
		if (!r)
			r = file_pwrite(b->fd, buf + v->bitmap, v->block, at + v->bitmap);
		if (!r)
			r = meta_put(v->meta, at, buf, v->bitmap, PHASE_BITMAP);
		put_be32(raw, (uint32_t)(at / SECTOR));
		if (!r)
			r = meta_put(v->meta, v->table_at + list[count - 1].index * 4ull, raw, 4, PHASE_TABLE);
		count--;
		i--;
		at += unit;
	}
	*end = at;
	return r ? r : meta_commit(v->meta);
}

static int
vhd_compact(struct image *b, const struct block_progress *p, struct err *e)
{
	struct vhd *v = b->state;
	uint64_t count = 0, end = 0;
	struct place *list;
	uint8_t *buf;
	int r;

	if (!v->dynamic)
		return err_set(e, ERR_UNSUPPORTED, "'%s' is a fixed VHD image: there is nothing to compact", b->path);
	list = calloc(v->blocks + 1, sizeof(*list));
	buf = malloc(v->bitmap + v->block);
	r = list && buf ? list_blocks(b, v, list, &count, buf, p) : -ENOMEM;
	if (!r)
		r = close_gaps(b, v, list, count, buf, &end);
	if (!r && end < v->end) {
		/* The page of the old footer is forgotten: what is cut off must not be written again. */
		v->end = end;
		r = write_footers(b, v);
		if (!r)
			r = meta_commit(v->meta);
		if (!r && ftruncate(b->fd, (off_t)(end + FOOTER)))
			r = -errno;
	}
	free(list);
	free(buf);
	return r ? err_sys(e, ERR_FILE, r, "'%s' cannot be compacted", b->path) : 0;
}

const struct block_format block_vhd = {
	.name = "vhd",
	.probe = vhd_probe,
	.probe_end = vhd_probe_end,
	.open = vhd_open,
	.close = vhd_close,
	.read = vhd_read,
	.write = vhd_write,
	.flush = vhd_flush,
	.zero = vhd_zero,
	.map = vhd_map,
	.dirty = vhd_dirty,
	.create = vhd_create,
	.differencing = true,
	.set_parent = vhd_set_parent,
	.set_uuid = vhd_set_uuid,
	.resize = vhd_resize,
	.compact = vhd_compact,
};
