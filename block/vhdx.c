/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vhdx: Hyper-V's disk image (MS-VHDX), fixed and dynamic, read only.
 *
 * All numbers are little-endian; a GUID has its first three fields so.
 *
 *   offset  size
 *        0     8  "vhdxfile"
 *     64 K  4096  header; another one at 128 K. The one with the higher sequence number, of those that are good, counts
 *    192 K  64 K  region table; a copy at 256 K
 *
 *   header:        0 "head"   4 CRC-32C of the 4096 bytes, this field being 0   8 sequence number (8)
 *                  48 GUID of the log, 0: there is nothing to be replayed   66 version (2), 1
 *   region table:  0 "regi"   4 CRC-32C of the 64 K   8 entries   16... each: GUID (16), file offset (8), length (4),
 *                  required (4)
 *   metadata:      0 "metadata"   10 entries (2)   32... each: GUID (16), offset in the region (4), length (4), flags
 * (4) file parameters: size of a block (4), flags (4): 1 there is a parent;  size of the disk (8); sector size (4);
 * page 83 data: the UUID of the disk block table:   8 bytes a block: bits 0-2 state, bits 20-63 file offset in MiB.
 * States 0 to 3 are not there (2 and 3: zeroes), 6 is. Behind the entries of each "chunk" (2^23 sectors of the disk) is
 * one for a bitmap.
 *
 * Everything is bounded before it is used. An image whose log was not replayed (its machine crashed) or that has a
 * parent is refused.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "block/file.h"
#include "block/format.h"

#define KIB 1024ull
#define MIB (1024 * KIB)
#define HEADER_LEN 4096u
#define REGION_LEN (64 * KIB)
#define ENTRIES_MAX 2047u
#define TABLE_MAX (64 * MIB)

enum { STATE_PRESENT = 6, STATE_PARTIAL = 7 };

/* As they stand in the file. */
static const uint8_t guid_table[16] = { 0x66, 0x77, 0xc2, 0x2d, 0x23, 0xf6, 0x00, 0x42, 0x9d, 0x64, 0x11, 0x5e, 0x9b,
	0xfd, 0x4a, 0x08 };
static const uint8_t guid_metadata[16] = { 0x06, 0xa2, 0x7c, 0x8b, 0x90, 0x47, 0x9a, 0x4b, 0xb8, 0xfe, 0x57, 0x5f, 0x05,
	0x0f, 0x88, 0x6e };
static const uint8_t guid_parameters[16] = { 0x37, 0x67, 0xa1, 0xca, 0x36, 0xfa, 0x43, 0x4d, 0xb3, 0xb6, 0x33, 0xf0,
	0xaa, 0x44, 0xe7, 0x6b };
static const uint8_t guid_size[16] = { 0x24, 0x42, 0xa5, 0x2f, 0x1b, 0xcd, 0x76, 0x48, 0xb2, 0x11, 0x5d, 0xbe, 0xd8,
	0x3b, 0xf4, 0xb8 };
static const uint8_t guid_sector[16] = { 0x1d, 0xbf, 0x41, 0x81, 0x6f, 0xa9, 0x09, 0x47, 0xba, 0x47, 0xf2, 0x33, 0xa8,
	0xfa, 0xab, 0x5f };
static const uint8_t guid_uuid[16] = { 0xab, 0x12, 0xca, 0xbe, 0xe6, 0xb2, 0x23, 0x45, 0x93, 0xef, 0xc3, 0x09, 0xe0,
	0x00, 0xc7, 0x46 };

struct vhdx {
	uint64_t file_end, table_at, table_len, meta_at, meta_len;
	uint64_t block, chunk; /* bytes of a block; blocks between two entries for bitmaps */
	uint64_t blocks;
	uint64_t *table; /* payload blocks: file offset, 0: zeroes */
};

static bool
vhdx_probe(const struct block_head *h)
{
	return h->len >= 8 && !memcmp(h->bytes, "vhdxfile", 8);
}

static int
bad(struct image *b, struct err *e, const char *what, uint64_t value)
{
	return err_set(
		e, ERR_FILE, "'%s' is not a good VHDX image: %s (%llu)", b->path, what, (unsigned long long)value);
}

/* CRC-32C (Castagnoli) of `len` bytes, of which the four at `skip` count as zeroes. */
static uint32_t
crc32c(const uint8_t *p, uint64_t len, uint64_t skip)
{
	uint32_t crc = ~0u;

	for (uint64_t i = 0; i < len; i++) {
		crc ^= i >= skip && i < skip + 4 ? 0 : p[i];
		for (int bit = 0; bit < 8; bit++)
			crc = crc >> 1 ^ (crc & 1 ? 0x82f63b78u : 0);
	}
	return ~crc;
}

static bool
good_header(struct image *b, uint64_t at, uint8_t *h)
{
	return !file_pread(b->fd, h, HEADER_LEN, at) && !memcmp(h, "head", 4) &&
	       le32(h + 4) == crc32c(h, HEADER_LEN, 4);
}

static int
check_header(struct image *b, struct err *e)
{
	static const uint8_t none[16];
	uint8_t one[HEADER_LEN], two[HEADER_LEN], *h = one;
	bool first = good_header(b, 64 * KIB, one), second = good_header(b, 128 * KIB, two);

	if (!first && !second)
		return bad(b, e, "neither of its headers has the right checksum", le32(one + 4));
	if (!first || (second && le64(two + 8) > le64(one + 8)))
		h = two;
	if (le16(h + 66) != 1)
		return err_set(
			e, ERR_UNSUPPORTED, "'%s' is a VHDX image of version %u; 1 can be used", b->path, le16(h + 66));
	if (memcmp(h + 48, none, 16))
		return err_set(e, ERR_UNSUPPORTED,
			"'%s' was not closed properly: its log has to be replayed. Open it once with Hyper-V, or "
			"convert it with "
			"'qemu-img convert', which replays the log",
			b->path);
	return 0;
}

static bool
in_file(const struct vhdx *v, uint64_t at, uint64_t len)
{
	return len && at % MIB == 0 && at >= MIB && at <= v->file_end && len <= v->file_end - at;
}

static int
take_region(struct image *b, struct vhdx *v, const uint8_t *r, struct err *e)
{
	uint64_t at = le64(r + 16), len = le32(r + 24);

	if (!memcmp(r, guid_table, 16)) {
		v->table_at = at;
		v->table_len = len;
	} else if (!memcmp(r, guid_metadata, 16)) {
		v->meta_at = at;
		v->meta_len = len;
	} else if (le32(r + 28) & 1) {
		return err_set(
			e, ERR_UNSUPPORTED, "'%s' has a region of an unknown kind that it says is required", b->path);
	}
	return 0;
}

static int
read_regions(struct image *b, struct vhdx *v, struct err *e)
{
	uint8_t *t = malloc(REGION_LEN);
	uint32_t count;
	int r = -1;

	if (!t)
		return err_sys(e, ERR_FAILED, ENOMEM, "'%s' cannot be opened", b->path);
	for (int i = 0; i < 2 && r; i++)
		r = file_pread(b->fd, t, REGION_LEN, (192 + 64ull * (unsigned)i) * KIB) || memcmp(t, "regi", 4) ||
		    le32(t + 4) != crc32c(t, REGION_LEN, 4);
	count = le32(t + 8);
	if (r)
		r = bad(b, e, "neither of its region tables has the right checksum", le32(t + 4));
	else if (count > ENTRIES_MAX)
		r = bad(b, e, "it has too many regions", count);
	for (uint32_t i = 0; i < count && !r; i++)
		r = take_region(b, v, t + 16 + i * 32, e);
	free(t);
	if (r)
		return -1;
	if (!in_file(v, v->meta_at, v->meta_len) || v->meta_len < REGION_LEN)
		return bad(b, e, "the place of its metadata is impossible", v->meta_at);
	if (!in_file(v, v->table_at, v->table_len) || v->table_len > TABLE_MAX)
		return bad(b, e, "the place of its block table is impossible", v->table_at);
	return 0;
}

/* The metadata item `guid`, of exactly `len` bytes. */
static int
read_item(struct image *b, struct vhdx *v, const uint8_t *table, const uint8_t guid[16], void *out, uint32_t len,
	const char *what, struct err *e)
{
	for (uint32_t i = 0; i < le16(table + 10) && i < ENTRIES_MAX; i++) {
		const uint8_t *m = table + 32 + i * 32;
		uint64_t at = le32(m + 16);

		if (memcmp(m, guid, 16))
			continue;
		if (le32(m + 20) != len || at > v->meta_len || len > v->meta_len - at ||
			file_pread(b->fd, out, len, v->meta_at + at))
			break;
		return 0;
	}
	return bad(b, e, what, len);
}

static int
read_metadata(struct image *b, struct vhdx *v, struct err *e)
{
	uint8_t *t = malloc(REGION_LEN), parameters[8], size[8], sector[4], uuid[16];
	int r = t ? file_pread(b->fd, t, REGION_LEN, v->meta_at) : -ENOMEM;

	if (r)
		r = err_sys(e, ERR_FILE, r, "The metadata of '%s' cannot be read", b->path);
	else if (memcmp(t, "metadata", 8))
		r = bad(b, e, "its metadata has no signature", t[0]);
	else
		r = read_item(b, v, t, guid_parameters, parameters, 8, "it has no file parameters", e) ||
		    read_item(b, v, t, guid_size, size, 8, "it does not say its size", e) ||
		    read_item(b, v, t, guid_sector, sector, 4, "it does not say the size of its sectors", e);
	if (!r && !read_item(b, v, t, guid_uuid, uuid, 16, "", NULL)) {
		static const uint8_t order[16] = { 3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15 };

		for (int i = 0; i < 16; i++)
			b->uuid.b[i] = uuid[order[i]];
	}
	free(t);
	if (r)
		return -1;
	v->block = le32(parameters);
	b->size = le64(size);
	b->variant = le32(parameters + 4) & 1 ? "fixed" : "dynamic";
	if (le32(parameters + 4) & 2)
		return err_set(e, ERR_UNSUPPORTED,
			"'%s' is a differencing VHDX image, which is not supported: merge it first", b->path);
	if (v->block < MIB || v->block > 256 * MIB || v->block & (v->block - 1))
		return bad(b, e, "the size of its blocks is impossible", v->block);
	if (le32(sector) != 512 && le32(sector) != 4096)
		return bad(b, e, "the size of its sectors is impossible", le32(sector));
	if (b->size == 0 || b->size % 512 || b->size > 64ull * MIB * MIB)
		return bad(b, e, "the size of its disk is impossible", b->size);
	v->chunk = (1ull << 23) * le32(sector) / v->block;
	return 0;
}

/* The entries of payload blocks, each whole within the file. */
static int
read_table(struct image *b, struct vhdx *v, struct err *e)
{
	uint64_t entries;
	uint8_t *raw;
	int r;

	v->blocks = (b->size + v->block - 1) / v->block;
	entries = v->blocks + (v->blocks - 1) / v->chunk;
	if (entries * 8 > v->table_len)
		return bad(b, e, "its block table is too small for its disk", v->table_len);
	raw = malloc(entries * 8);
	v->table = calloc(v->blocks, sizeof(*v->table));
	r = raw && v->table ? file_pread(b->fd, raw, entries * 8, v->table_at) : -ENOMEM;
	if (r)
		err_sys(e, ERR_FILE, r, "The block table of '%s' cannot be read", b->path);
	for (uint64_t i = 0; i < v->blocks && !r; i++) {
		uint64_t entry = le64(raw + (i + i / v->chunk) * 8), at = entry >> 20 << 20;

		if ((entry & 7) == STATE_PARTIAL)
			r = bad(b, e, "a block is said to be there in part, without a parent", i);
		else if ((entry & 7) == STATE_PRESENT && !in_file(v, at, MIN(v->block, b->size - i * v->block)))
			r = bad(b, e, "a block is not in the file", i);
		else if ((entry & 7) == STATE_PRESENT)
			v->table[i] = at;
	}
	free(raw);
	return r ? -1 : 0;
}

static void
vhdx_close(struct image *b)
{
	struct vhdx *v = b->state;

	free(v->table);
	free(v);
}

static int
vhdx_open(struct image *b, struct err *e)
{
	struct vhdx *v = xcalloc(1, sizeof(*v));
	int64_t size = file_size(b->fd);

	b->state = v;
	v->file_end = size < 0 ? 0 : (uint64_t)size;
	if (!check_header(b, e) && !read_regions(b, v, e) && !read_metadata(b, v, e) && !read_table(b, v, e))
		return 0;
	vhdx_close(b);
	return -1;
}

/* Where `off` is, 0: zeroes; and for how many bytes. */
static uint64_t
find(const struct vhdx *v, uint64_t off, uint64_t *len)
{
	uint64_t at = v->table[off / v->block];

	*len = MIN(*len, v->block - off % v->block);
	return at ? at + off % v->block : 0;
}

static int
vhdx_read(struct image *b, const struct iovec *iov, int iovcnt, uint64_t skip, uint64_t off, uint64_t len)
{
	int r = 0;

	for (uint64_t n; len && !r; off += n, skip += n, len -= n) {
		uint64_t at;

		n = len;
		at = find(b->state, off, &n);
		if (at)
			r = image_data_read(b, b->fd, iov, iovcnt, skip, n, at, off);
		else
			iov_zero(iov, iovcnt, skip, n);
	}
	return r;
}

static int
vhdx_map(struct image *b, uint64_t off, uint64_t *len, enum map_kind *kind)
{
	uint64_t at = find(b->state, off, len);

	*kind = !at || file_is_hole_near(&b->span, b->fd, at, len) ? MAP_ZERO : MAP_DATA;
	return 0;
}

static int
vhdx_flush(struct image *b)
{
	return 0;
}

const struct block_format block_vhdx = {
	.name = "vhdx",
	.read_only = true,
	.probe = vhdx_probe,
	.open = vhdx_open,
	.close = vhdx_close,
	.read = vhdx_read,
	.flush = vhdx_flush,
	.map = vhdx_map,
};
