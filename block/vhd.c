/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vhd: Microsoft's Virtual Hard Disk, fixed and dynamic (Virtual Hard Disk Image Format Specification 1.0).
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
 *
 *   The table has 4 bytes for each block of the disk: the sector of the file where it begins, all ones: none, reads as
 *   zeroes. A block is a bitmap, padded to sectors, with a bit for each sector that was written (the highest of a byte
 *   first), and the data. Here all bits of a new block are set: what was not written reads as zeroes anyway.
 *
 * Sizes. The size of the disk is that of the footer; qemu-img before version 8 takes cylinders * heads * sectors
 * instead when it does not know the program that made the image, which is why images are signed "win " here.
 *
 * Writing: a block gets its place where the footer is, and the footer a new one behind it. The phases of a commit
 * (meta.h): 1 data, bitmaps and the footer   2 the table. The copy of the footer at the beginning is valid all the
 * time.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "block/be.h"
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
enum { PHASE_BLOCK = 1, PHASE_TABLE = 2 };

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
};

struct vhd {
	uint8_t footer[FOOTER];
	bool dynamic;
	uint64_t table_at, blocks, block, bitmap; /* bytes */
	pthread_mutex_t lock;			  /* everything below */
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
bad(struct block *b, struct err *e, const char *what, uint64_t value)
{
	return err_set(
		e, ERR_FILE, "'%s' is not a good VHD image: %s (%llu)", b->path, what, (unsigned long long)value);
}

/* ---- opening ---- */

/* The footer, or its copy when it is damaged. */
static int
read_footer(struct block *b, struct vhd *v, uint64_t size, struct err *e)
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
	if (be32(v->footer + AT_TYPE) == VHD_DIFF)
		return err_set(e, ERR_UNSUPPORTED,
			"'%s' is a differencing VHD image, which needs its parent; that is not supported", b->path);
	if (be32(v->footer + AT_TYPE) != VHD_FIXED && be32(v->footer + AT_TYPE) != VHD_DYNAMIC)
		return bad(b, e, "its type is unknown", be32(v->footer + AT_TYPE));
	return 0;
}

static int
check_header(struct block *b, struct vhd *v, const uint8_t *h, uint64_t at, struct err *e)
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
open_dynamic(struct block *b, struct vhd *v, struct err *e)
{
	uint64_t at = be64(v->footer + AT_HEADER);
	uint8_t h[HEADER];
	int r;

	if (at % SECTOR || at > v->end || HEADER > v->end - at)
		return bad(b, e, "the place of its header is impossible", at);
	r = file_pread(b->fd, h, HEADER, at);
	if (r)
		return err_sys(e, ERR_FILE, r, "The header of '%s' cannot be read", b->path);
	if (check_header(b, v, h, at, e))
		return -1;
	v->dynamic = true;
	v->end = (v->end + SECTOR - 1) & ~(SECTOR - 1);
	v->meta = meta_open(b->fd, 512, &v->lock);
	return v->meta ? 0 : err_sys(e, ERR_FAILED, ENOMEM, "'%s' cannot be opened", b->path);
}

static int
vhd_open(struct block *b, struct err *e)
{
	struct vhd *v = xcalloc(1, sizeof(*v));
	int64_t size = file_size(b->fd);
	int r;

	pthread_mutex_init(&v->lock, NULL);
	if (size < 0)
		r = err_sys(e, ERR_FILE, (int)size, "The size of '%s' cannot be found", b->path);
	else
		r = read_footer(b, v, (uint64_t)size, e);
	b->size = be64(v->footer + AT_SIZE);
	if (!r && (b->size == 0 || b->size % SECTOR || b->size > INT64_MAX / 2))
		r = bad(b, e, "the size of its disk is not a number of sectors", b->size);
	if (!r && be32(v->footer + AT_TYPE) == VHD_DYNAMIC)
		r = open_dynamic(b, v, e);
	else if (!r && b->size > v->end)
		r = bad(b, e, "it is truncated: the disk is larger than the file", b->size);
	if (r) {
		pthread_mutex_destroy(&v->lock);
		free(v);
		return -1;
	}
	memcpy(b->uuid.b, v->footer + AT_UUID, 16);
	b->variant = v->dynamic ? "dynamic" : "fixed";
	b->state = v;
	return 0;
}

static void
vhd_close(struct block *b)
{
	struct vhd *v = b->state;

	meta_close(v->meta);
	pthread_mutex_destroy(&v->lock);
	free(v);
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
allocate(struct block *b, struct vhd *v, uint64_t off)
{
	uint64_t at = v->end, end = at + v->bitmap + v->block;
	uint8_t ones[512], raw[4];
	int r = 0;

	if (end / SECTOR >= NO_BLOCK)
		return -EFBIG;
	if (ftruncate(b->fd, (off_t)(end + FOOTER)))
		return -errno;
	memset(ones, 0xff, sizeof(ones));
	r = meta_put(v->meta, end, v->footer, FOOTER, PHASE_BLOCK);
	/* The old footer is where the bitmap comes: what is behind it has never been anything. */
	for (uint64_t i = 0; i < v->bitmap && !r; i += sizeof(ones))
		r = meta_put(v->meta, at + i, ones, sizeof(ones), PHASE_BLOCK);
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
	for (uint64_t s = off % v->block / SECTOR; s <= (off % v->block + len - 1) / SECTOR; s++) {
		uint8_t byte;
		int r = meta_get(v->meta, bits + s / 8, &byte, 1);

		if (!r && !(byte & 0x80 >> s % 8)) {
			byte |= (uint8_t)(0x80 >> s % 8);
			r = meta_put(v->meta, bits + s / 8, &byte, 1, PHASE_BLOCK);
		}
		if (r)
			return r;
	}
	return 0;
}

/* Where `off` is; *len: at most to the end of its block. For writing a place is made. Takes the lock. */
static int
find(struct block *b, struct vhd *v, uint64_t off, uint64_t *len, bool writing, uint64_t *host)
{
	uint64_t bits;
	int r;

	*len = MIN(*len, v->block - off % v->block);
	pthread_mutex_lock(&v->lock);
	r = lookup(v, off, host, &bits);
	if (!r && !*host && writing) {
		r = allocate(b, v, off);
		if (!r)
			r = lookup(v, off, host, &bits);
	}
	if (!r && writing)
		r = set_bits(v, bits, off, *len);
	pthread_mutex_unlock(&v->lock);
	return r;
}

/* ---- reading and writing ---- */

static int
vhd_read(struct block *b, const struct iovec *iov, int iovcnt, uint64_t off, uint64_t len)
{
	struct vhd *v = b->state;
	int r = 0;

	if (!v->dynamic)
		return file_readv(b->fd, iov, iovcnt, 0, len, off);
	for (uint64_t done = 0, n; done < len && !r; done += n) {
		uint64_t host;

		n = len - done;
		r = find(b, v, off + done, &n, false, &host);
		if (!r && host)
			r = file_readv(b->fd, iov, iovcnt, done, n, host);
		else if (!r)
			iov_zero(iov, iovcnt, done, n);
	}
	return r;
}

static int vhd_flush(struct block *b);

static int
vhd_write(struct block *b, const struct iovec *iov, int iovcnt, uint64_t off, uint64_t len)
{
	struct vhd *v = b->state;
	int r = 0;

	if (!v->dynamic)
		return file_writev(b->fd, iov, iovcnt, 0, len, off);
	for (uint64_t done = 0, n; done < len && !r; done += n) {
		uint64_t host;

		n = len - done;
		r = find(b, v, off + done, &n, true, &host);
		if (!r)
			r = file_writev(b->fd, iov, iovcnt, done, n, host);
	}
	if (!r && meta_full(v->meta))
		r = vhd_flush(b);
	return r;
}

static int
vhd_zero(struct block *b, uint64_t off, uint64_t len)
{
	struct vhd *v = b->state;
	int r = 0;

	if (!v->dynamic)
		return file_zero(b->fd, off, len);
	for (uint64_t done = 0, n; done < len && !r; done += n) {
		uint64_t host;

		n = len - done;
		r = find(b, v, off + done, &n, false, &host);
		if (!r && host)
			r = file_zero(b->fd, host, n);
	}
	return r;
}

static int
vhd_flush(struct block *b)
{
	struct vhd *v = b->state;

	if (v->meta)
		return meta_commit(v->meta);
	return fdatasync(b->fd) ? -errno : 0;
}

static bool
vhd_dirty(struct block *b)
{
	struct vhd *v = b->state;

	return v->meta && meta_dirty(v->meta);
}

/* ---- creating ---- */

static void
fill_footer(uint8_t *f, const struct block_create *c)
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
	put_be32(f + AT_TYPE, c->fixed ? VHD_FIXED : VHD_DYNAMIC);
	memcpy(f + AT_UUID, u.b, 16);
	put_be32(f + AT_SUM, checksum(f, FOOTER, AT_SUM));
}

static int
create_table(int fd, const struct block_create *c, uint64_t *end)
{
	uint64_t blocks = (c->size + BLOCK_NEW - 1) / BLOCK_NEW, len = (blocks * 4 + SECTOR - 1) & ~(SECTOR - 1);
	uint8_t h[HEADER] = "cxsparse", *table = malloc(len);
	int r = -ENOMEM;

	put_be64(h + 8, ~0ull);
	put_be64(h + AT_H_TABLE, FOOTER + HEADER);
	put_be32(h + AT_H_VERSION, 0x10000);
	put_be32(h + AT_H_ENTRIES, (uint32_t)blocks);
	put_be32(h + AT_H_BLOCK, BLOCK_NEW);
	put_be32(h + AT_H_SUM, checksum(h, HEADER, AT_H_SUM));
	if (table) {
		memset(table, 0xff, len);
		r = file_pwrite(fd, table, len, FOOTER + HEADER);
	}
	free(table);
	*end = FOOTER + HEADER + len;
	return r ? r : file_pwrite(fd, h, HEADER, FOOTER);
}

static int
vhd_create(int fd, const struct block_create *c, struct err *e)
{
	uint8_t footer[FOOTER];
	uint64_t end = c->size;
	int r;

	if (c->size > SIZE_MAX_VHD)
		return err_set(e, ERR_INVALID, "A VHD image cannot have %llu bytes; 2040 GiB is the most",
			(unsigned long long)c->size);
	fill_footer(footer, c);
	if (c->fixed)
		r = file_reserve(fd, 0, c->size, c->progress, c->opaque);
	else
		r = create_table(fd, c, &end);
	if (!r && !c->fixed)
		r = file_pwrite(fd, footer, FOOTER, 0);
	if (!r)
		r = file_pwrite(fd, footer, FOOTER, end);
	return r ? err_sys(e, ERR_FILE, r, "The VHD image '%s' cannot be written", c->path) : 0;
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
	.dirty = vhd_dirty,
	.create = vhd_create,
};
