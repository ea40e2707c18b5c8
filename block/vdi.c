/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vdi: VirtualBox's disk image, version 1.1: dynamic, fixed and differencing.
 *
 * The file is a header, a block map and data blocks, all little-endian:
 *
 *   offset  size  pre-header
 *    0x000    64  text, any
 *    0x040     4  signature 0xbeda107f
 *    0x044     4  version, major << 16 | minor: 0x00010001
 *                 header
 *    0x048     4  size of the header from here on (0x190; older writers 0x180 or less)
 *    0x04c     4  image type: 1 dynamic, 2 fixed, 3 undo, 4 differencing
 *    0x050     4  flags
 *    0x054   256  comment
 *    0x154     4  file offset of the block map
 *    0x158     4  file offset of the first data block
 *    0x15c    12  cylinders, heads, sectors (no longer used)
 *    0x168     4  sector size, 512
 *    0x16c     4  unused
 *    0x170     8  size of the disk in bytes
 *    0x178     4  size of a block in bytes, 1 MiB
 *    0x17c     4  bytes in front of each data block, 0
 *    0x180     4  blocks of the disk
 *    0x184     4  blocks allocated
 *    0x188    16  UUID of the image
 *    0x198    16  UUID of its last change
 *    0x1a8    16  UUID of the parent (differencing)
 *    0x1b8    16  UUID of the parent's last change
 *    0x1c8    16  cylinders, heads, sectors, sector size for the BIOS (header of 0x190)
 *
 *   the map has 4 bytes for each block of the disk: the number of its data block, counted from the first one;
 *   0xffffffff never written: it reads through to the parent, or as zeroes; 0xfffffffe zeroes.
 *   A UUID is stored with its first three fields little-endian.
 *
 * VDI has no place for the path of the parent, or for other texts. Where the map leaves room behind the header (at
 * offset 0x1000 or later) two slots of 1536 bytes, at 0x200 and 0x800, hold ours; others do not look there. The one
 * with the higher number counts, and a change goes to the other one:
 *
 *   offset  size
 *        0     8  "LODGETXT"
 *        8     4  number, little-endian
 *       12     4  length of the text
 *       16     4  CRC-32 of the text
 *       20        lines "key=value\n": parent, parent-before (paths), parent-format, CRYPT/KeyStore, ...
 *
 * Nothing the file says is used before check_header() and load_map() have bounded it: every map entry is below the
 * number of blocks, lies whole within the file, and no two are the same.
 *
 * Reading and writing. The whole map is in memory. Entries only ever go from unallocated to allocated while an image is
 * open (or from "reads through" to "zeroes"), so that readers look at it without a lock; giving space back punches a
 * hole into a data block and leaves it allocated. compact() and resize() are for images nobody else uses.
 *
 * Allocating, and why a crash or a power cut at any moment leaves a good image:
 *   1. under `lock`: pick the lowest free data block; see that its place in the file exists and reads as zeroes (the
 * file grows, or what an earlier crash left there is punched out); enter it in the map in memory; mark the map page.
 *   2. without a lock: write the guest's bytes into it, like any later write to that block.
 *   3. at the next flush, or a second later when nobody flushes: the header with the count of allocated blocks, then
 *      fdatasync, then the marked map pages, then fdatasync.
 * A block that shows something else than zeroes before it is written to (from the parent), or whose zeroes are not
 * zeroes in the file (encryption), is written completely, under `cow`, before step 1 enters it in the map. So whatever
 * part of step 3 gets to the disk, a map entry found there names a block of the file whose contents are the guest's
 * bytes or zeroes, which is what a disk with a write cache may show after a power cut, and the count in the header is
 * never lower than what the map uses (VirtualBox takes its next block from that count).
 */
#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zlib.h>

#include "base/bytes.h"
#include "block/file.h"
#include "block/format.h"
#include "block/lines.h"

#define VDI_SIGNATURE 0xbeda107fu
#define VDI_VERSION 0x00010001u
#define VDI_HEADER_SIZE 0x190u
#define VDI_BLOCK (1u << 20)
#define VDI_FREE 0xffffffffu
#define VDI_ZERO 0xfffffffeu
/* 16 TiB; bounds the memory that a hostile header can ask for at 64 MiB. */
#define VDI_BLOCKS_MAX (1u << 24)
#define MAP_AT 4096u /* where this code puts the map of a new image */
#define MAP_PAGE 4096u
#define MAP_PAGE_ENTRIES (MAP_PAGE / 4)

#define GROW (64ull << 20) /* the file grows in steps of this, and is cut when it is closed */
#define TEXT_SLOT 0x600u
#define TEXT_AT 0x200u
#define TEXT_HEAD 20u
#define TEXT_END (TEXT_AT + 2 * TEXT_SLOT)

enum { VDI_DYNAMIC = 1, VDI_FIXED = 2, VDI_UNDO = 3, VDI_DIFF = 4 };

enum vdi_field {
	AT_TEXT = 0x000,
	AT_SIGNATURE = 0x040,
	AT_VERSION = 0x044,
	AT_HEADER_SIZE = 0x048,
	AT_TYPE = 0x04c,
	AT_MAP = 0x154,
	AT_DATA = 0x158,
	AT_SECTOR_SIZE = 0x168,
	AT_DISK_SIZE = 0x170,
	AT_BLOCK_SIZE = 0x178,
	AT_BLOCK_EXTRA = 0x17c,
	AT_BLOCKS = 0x180,
	AT_ALLOCATED = 0x184,
	AT_UUID = 0x188,
	AT_UUID_CHANGE = 0x198,
	AT_UUID_PARENT = 0x1a8,
	AT_UUID_PARENT_CHANGE = 0x1b8,
	AT_GEOMETRY = 0x1c8,
};

struct vdi {
	uint8_t header[512];
	uint32_t type;
	uint64_t map_at, data_at;
	uint32_t blocks, block_size;
	_Atomic uint32_t *map; /* host order */

	bool has_text;	     /* there is room for texts */
	uint32_t text_count; /* number of the slot that counts */
	char *text;

	pthread_mutex_t cow;	/* one copy at a time; taken before `lock` */
	pthread_mutex_t lock;	/* everything below, and changing map entries */
	uint8_t *used;		/* a bit for each data block of the file */
	uint32_t first_free;	/* no data block below it is free */
	uint32_t end;		/* one more than the highest data block in use */
	uint64_t file_end;	/* length of the file */
	uint64_t stale_end;	/* bytes from here on were never written: they read as zeroes */
	uint8_t *dirty;		/* a byte for each page of the map that differs from the file */
	_Atomic bool any_dirty; /* some page is, or the header's count */
	_Atomic bool changed;	/* the UUID of the last change was already renewed */
	pthread_mutex_t commit; /* one commit at a time; taken before `lock` */
};

/* ---- UUIDs: the first three fields are little-endian in the file, big-endian in struct uuid ---- */

static struct uuid
uuid_swap(const uint8_t *b)
{
	static const uint8_t order[16] = { 3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15 };
	struct uuid u;

	for (int i = 0; i < 16; i++)
		u.b[i] = b[order[i]];
	return u;
}

static void
put_uuid(uint8_t *at, const struct uuid *u)
{
	struct uuid swapped = uuid_swap(u->b);

	memcpy(at, swapped.b, 16);
}

/* ---- opening ---- */

bool
vdi_header_uuid(const uint8_t head[512], const struct uuid *u)
{
	struct uuid own = uuid_swap(head + AT_UUID);

	return le32(head + AT_SIGNATURE) == VDI_SIGNATURE && !memcmp(&own, u, sizeof(own));
}

static bool
vdi_probe(const struct block_head *h)
{
	return h->len >= AT_VERSION + 4 && le32(h->bytes + AT_SIGNATURE) == VDI_SIGNATURE;
}

static int
bad(struct image *b, struct err *e, const char *what, uint64_t value)
{
	return err_set(
		e, ERR_FILE, "'%s' is not a good VDI image: %s (%llu)", b->path, what, (unsigned long long)value);
}

static int
check_kind(struct image *b, const uint8_t *h, struct err *e)
{
	if (le32(h + AT_SIGNATURE) != VDI_SIGNATURE)
		return bad(b, e, "its signature is wrong", le32(h + AT_SIGNATURE));
	if (le32(h + AT_VERSION) != VDI_VERSION)
		return err_set(e, ERR_UNSUPPORTED, "'%s' is a VDI image of version %u.%u; only 1.1 can be used",
			b->path, le32(h + AT_VERSION) >> 16, le32(h + AT_VERSION) & 0xffff);
	if (le32(h + AT_TYPE) == VDI_UNDO)
		return err_set(e, ERR_UNSUPPORTED, "'%s' is an undo image, which is not supported", b->path);
	if (le32(h + AT_TYPE) != VDI_DYNAMIC && le32(h + AT_TYPE) != VDI_FIXED && le32(h + AT_TYPE) != VDI_DIFF)
		return bad(b, e, "its type is unknown", le32(h + AT_TYPE));
	/* From here up to AT_UUID_PARENT must be there; the geometry behind is optional. */
	if (le32(h + AT_HEADER_SIZE) < AT_UUID_PARENT + 16 - AT_HEADER_SIZE || le32(h + AT_HEADER_SIZE) > 1 << 20)
		return bad(b, e, "the size of its header is impossible", le32(h + AT_HEADER_SIZE));
	return 0;
}

/* Every number of the header, against each other and against the length of the file. */
static int
check_header(struct image *b, const uint8_t *h, uint64_t file_end, struct err *e)
{
	uint64_t map_at = le32(h + AT_MAP), data_at = le32(h + AT_DATA), size = le64(h + AT_DISK_SIZE);
	uint64_t blocks = le32(h + AT_BLOCKS), block_size = le32(h + AT_BLOCK_SIZE);

	if (check_kind(b, h, e))
		return -1;
	if (le32(h + AT_SECTOR_SIZE) != 512)
		return bad(b, e, "its sectors are not of 512 bytes", le32(h + AT_SECTOR_SIZE));
	if (block_size != VDI_BLOCK)
		return err_set(e, ERR_UNSUPPORTED, "'%s' has blocks of %llu bytes; only 1 MiB can be used", b->path,
			(unsigned long long)block_size);
	if (le32(h + AT_BLOCK_EXTRA))
		return bad(b, e, "there are bytes between its blocks", le32(h + AT_BLOCK_EXTRA));
	if (size == 0 || size % 512)
		return bad(b, e, "the size of its disk is not a number of sectors", size);
	if (blocks > VDI_BLOCKS_MAX)
		return bad(b, e, "it has too many blocks", blocks);
	if (size > blocks * block_size)
		return bad(b, e, "its disk is larger than its blocks", size);
	if (map_at % 512 || map_at < AT_HEADER_SIZE + le32(h + AT_HEADER_SIZE))
		return bad(b, e, "the offset of its block map is impossible", map_at);
	if (data_at % 512 || data_at < map_at || data_at - map_at < blocks * 4)
		return bad(b, e, "the offset of its data is impossible", data_at);
	if (data_at > file_end)
		return err_set(e, ERR_FILE, "'%s' is truncated: its data begins at %llu, the file ends at %llu",
			b->path, (unsigned long long)data_at, (unsigned long long)file_end);
	if (le32(h + AT_ALLOCATED) > blocks)
		return bad(b, e, "more blocks are allocated than it has", le32(h + AT_ALLOCATED));
	return 0;
}

static bool
is_used(const struct vdi *v, uint32_t block)
{
	return v->used[block / 8] & 1 << block % 8;
}

static void
set_used(struct vdi *v, uint32_t block)
{
	v->used[block / 8] |= (uint8_t)(1 << block % 8);
	v->end = MAX(v->end, block + 1);
}

/* Read the map, and refuse entries that point outside of the file or to one another's block. */
static int
load_map(struct image *b, struct vdi *v, struct err *e)
{
	int r = file_pread(b->fd, v->map, (uint64_t)v->blocks * 4, v->map_at);
	/* Blocks that are whole within the file; no entry may be past them. */
	uint64_t whole = (v->file_end - v->data_at) / v->block_size;

	if (r)
		return err_sys(e, ERR_FILE, r, "The block map of '%s' cannot be read", b->path);
	for (uint32_t i = 0; i < v->blocks; i++) {
		uint32_t raw = atomic_load_explicit(&v->map[i], memory_order_relaxed), n = le32(&raw);

		atomic_store_explicit(&v->map[i], n, memory_order_relaxed);
		if (n >= VDI_ZERO)
			continue;
		if (n >= v->blocks)
			return bad(b, e, "a block map entry is out of range", n);
		if (n >= whole)
			return err_set(e, ERR_FILE,
				"'%s' is truncated: block %u of the disk is missing (data block %u, the file has %llu)",
				b->path, i, n, (unsigned long long)whole);
		if (is_used(v, n))
			return bad(b, e, "two block map entries name the same data block", n);
		set_used(v, n);
	}
	return 0;
}

static void
vdi_free(struct vdi *v)
{
	if (!v)
		return;
	free((void *)v->map);
	free(v->used);
	free(v->dirty);
	free(v->text);
	pthread_mutex_destroy(&v->cow);
	pthread_mutex_destroy(&v->lock);
	pthread_mutex_destroy(&v->commit);
	free(v);
}

static int
read_header(struct image *b, struct vdi *v, struct err *e)
{
	int64_t size = file_size(b->fd);
	int r;

	if (size < 0)
		return err_sys(e, ERR_FILE, (int)size, "The size of '%s' cannot be found", b->path);
	v->file_end = v->stale_end = (uint64_t)size;
	if (v->file_end < sizeof(v->header))
		return err_set(e, ERR_FILE, "'%s' is truncated: %llu bytes are less than a VDI header", b->path,
			(unsigned long long)size);
	r = file_pread(b->fd, v->header, sizeof(v->header), 0);
	if (r)
		return err_sys(e, ERR_FILE, r, "The header of '%s' cannot be read", b->path);
	return check_header(b, v->header, v->file_end, e);
}

/* ---- our own texts ---- */

static int
load_slot(struct image *b, struct vdi *v, uint64_t at)
{
	uint8_t slot[TEXT_SLOT];
	uint32_t len;
	int r = file_pread(b->fd, slot, sizeof(slot), at);

	len = le32(slot + 12);
	if (r || memcmp(slot, "LODGETXT", 8) || len > TEXT_SLOT - TEXT_HEAD ||
		le32(slot + 16) != crc32(0, slot + TEXT_HEAD, len))
		return r;
	if (v->text && (int32_t)(le32(slot + 8) - v->text_count) < 0)
		return 0;
	free(v->text);
	v->text = xasprintf("%.*s", (int)len, (const char *)slot + TEXT_HEAD);
	v->text_count = le32(slot + 8);
	return 0;
}

static int
load_text(struct image *b, struct vdi *v, struct err *e)
{
	int r;

	v->has_text = v->map_at >= TEXT_END && le32(v->header + AT_HEADER_SIZE) + AT_HEADER_SIZE <= TEXT_AT;
	if (!v->has_text)
		return 0;
	r = load_slot(b, v, TEXT_AT);
	if (!r)
		r = load_slot(b, v, TEXT_AT + TEXT_SLOT);
	return r ? err_sys(e, ERR_FILE, r, "The header of '%s' cannot be read", b->path) : 0;
}

static char *
vdi_get_text(struct image *b, const char *key)
{
	struct vdi *v = b->state;

	return lines_get(v->text, key);
}

static int
fill_slot(uint8_t slot[TEXT_SLOT], const char *text, uint32_t number)
{
	size_t len = strlen(text);

	if (len > TEXT_SLOT - TEXT_HEAD)
		return -ENAMETOOLONG;
	memset(slot, 0, TEXT_SLOT);
	memcpy(slot, "LODGETXT", 8);
	put_le32(slot + 8, number);
	put_le32(slot + 12, (uint32_t)len);
	put_le32(slot + 16, (uint32_t)crc32(0, (const uint8_t *)text, (uInt)len));
	memcpy(slot + TEXT_HEAD, text, len);
	return 0;
}

/* `text` (taken) becomes that of the image. */
static int
store_text(struct image *b, struct vdi *v, char *text)
{
	uint32_t number = v->text ? v->text_count + 1 : 0;
	uint8_t slot[TEXT_SLOT];
	int r = v->has_text ? fill_slot(slot, text, number) : -ENOSPC;

	if (!r)
		r = file_pwrite(b->fd, slot, sizeof(slot), TEXT_AT + number % 2 * TEXT_SLOT);
	if (!r)
		r = image_sync(b, b->fd);
	if (r) {
		free(text);
		return r;
	}
	free(v->text);
	v->text = text;
	v->text_count = number;
	return 0;
}

static int
vdi_set_text(struct image *b, const char *key, const char *value, struct err *e)
{
	struct vdi *v = b->state;
	int r;

	pthread_mutex_lock(&v->commit);
	r = store_text(b, v, lines_edit(v->text ? xstrdup(v->text) : NULL, key, value));
	pthread_mutex_unlock(&v->commit);
	if (r == -ENOSPC && !v->has_text)
		return err_set(e, ERR_UNSUPPORTED, "The header of '%s' has no room for texts: clone it", b->path);
	return r ? err_sys(e, ERR_FILE, r, "The header of '%s' cannot be written", b->path) : 0;
}

/* ---- the parent ---- */

static int
open_parent(struct image *b, struct vdi *v, struct err *e)
{
	char *name = vdi_get_text(b, "parent"), *before = vdi_get_text(b, "parent-before"),
	     *format = vdi_get_text(b, "parent-format");
	struct parent_ref ref = { .name = name,
		.name2 = before,
		.format = format,
		.uuid = uuid_swap(v->header + AT_UUID_PARENT),
		.change = uuid_swap(v->header + AT_UUID_PARENT_CHANGE) };
	int r = image_open_parent(b, &ref, e);

	free(name);
	free(before);
	free(format);
	return r;
}

/* The text of a child of `parent`, and the UUIDs in its header. */
static char *
name_parent(const char *path, uint8_t *header, char *text, struct image *parent)
{
	static const struct uuid none;
	char *name = parent ? image_parent_name(path, parent->path) : NULL;

	put_le32(header + AT_TYPE, parent ? VDI_DIFF : VDI_DYNAMIC);
	put_uuid(header + AT_UUID_PARENT, parent ? &parent->uuid : &none);
	put_uuid(header + AT_UUID_PARENT_CHANGE, parent ? &parent->change : &none);
	text = lines_edit(text, "parent", name);
	text = lines_edit(text, "parent-format", parent ? parent->format->name : NULL);
	free(name);
	return text;
}

/*
 * The text first: with the old header the parent it names is not the right one, and "parent-before" is tried. Without
 * room for it the parent is found by its UUID.
 */
static int
vdi_set_parent(struct image *b, struct image *parent, struct err *e)
{
	struct vdi *v = b->state;
	static const struct uuid none;
	uint8_t header[512];
	char *before, *text;
	int r = 0;

	if (parent && !v->has_text && !memcmp(&parent->uuid, &none, sizeof(none)))
		return err_set(e, ERR_UNSUPPORTED,
			"'%s' has no room for the name of its parent, and '%s' has no UUID: clone one of them", b->path,
			parent->path);
	pthread_mutex_lock(&v->commit);
	memcpy(header, v->header, sizeof(header));
	before = vdi_get_text(b, "parent");
	text = name_parent(b->path, header, v->text ? xstrdup(v->text) : NULL, parent);
	text = lines_edit(text, "parent-before", before);
	free(before);
	if (v->has_text)
		r = store_text(b, v, text);
	else
		free(text);
	if (!r)
		r = file_pwrite(b->fd, header, sizeof(header), 0);
	if (!r)
		r = image_sync(b, b->fd);
	if (!r) {
		pthread_mutex_lock(&v->lock);
		memcpy(v->header, header, sizeof(header));
		v->type = le32(header + AT_TYPE);
		pthread_mutex_unlock(&v->lock);
		b->variant = parent ? "differencing" : "dynamic";
	}
	pthread_mutex_unlock(&v->commit);
	return r ? err_sys(e, ERR_FILE, r, "The header of '%s' cannot be written", b->path) : 0;
}

static int
vdi_set_uuid(struct image *b, const struct uuid *uuid, struct err *e)
{
	struct vdi *v = b->state;
	int r;

	pthread_mutex_lock(&v->commit);
	put_uuid(v->header + AT_UUID, uuid);
	r = file_pwrite(b->fd, v->header, sizeof(v->header), 0);
	if (!r)
		r = image_sync(b, b->fd);
	pthread_mutex_unlock(&v->commit);
	if (r)
		return err_sys(e, ERR_FILE, r, "The header of '%s' cannot be written", b->path);
	b->uuid = *uuid;
	return 0;
}

static int
vdi_open(struct image *b, struct err *e)
{
	struct vdi *v = calloc(1, sizeof(*v));

	if (!v)
		return err_sys(e, ERR_FAILED, ENOMEM, "'%s' cannot be opened", b->path);
	pthread_mutex_init(&v->cow, NULL);
	pthread_mutex_init(&v->lock, NULL);
	pthread_mutex_init(&v->commit, NULL);
	if (read_header(b, v, e))
		goto fail;
	v->type = le32(v->header + AT_TYPE);
	v->map_at = le32(v->header + AT_MAP);
	v->data_at = le32(v->header + AT_DATA);
	v->block_size = le32(v->header + AT_BLOCK_SIZE);
	v->blocks = le32(v->header + AT_BLOCKS);
	v->map = calloc(v->blocks, 4);
	v->used = calloc(v->blocks / 8 + 1, 1);
	v->dirty = calloc(v->blocks / MAP_PAGE_ENTRIES + 1, 1);
	if (!v->map || !v->used || !v->dirty) {
		err_sys(e, ERR_FAILED, ENOMEM, "'%s' cannot be opened", b->path);
		goto fail;
	}
	if (load_map(b, v, e) || load_text(b, v, e))
		goto fail;
	b->state = v;
	b->size = le64(v->header + AT_DISK_SIZE);
	b->variant = v->type == VDI_FIXED ? "fixed" : v->type == VDI_DIFF ? "differencing" : "dynamic";
	b->uuid = uuid_swap(v->header + AT_UUID);
	b->change = uuid_swap(v->header + AT_UUID_CHANGE);
	if (v->type == VDI_DIFF && open_parent(b, v, e))
		goto fail;
	return 0;
fail:
	b->state = NULL;
	vdi_free(v);
	return -1;
}

static uint64_t
data_offset(const struct vdi *v, uint32_t block)
{
	return v->data_at + (uint64_t)block * v->block_size;
}

/* The file is as long as what is used of it. */
static void
vdi_close(struct image *b)
{
	struct vdi *v = b->state;
	uint64_t end = data_offset(v, v->end);

	if (!b->read_only && !atomic_load(&v->any_dirty) && v->file_end > end && ftruncate(b->fd, (off_t)end))
		v->file_end = 0; /* longer than need be, and good all the same */
	vdi_free(v);
}

/* ---- reading ---- */

/*
 * How the bytes from `off` on are stored: returns the map entry and in *len (at most what it was) how many bytes follow
 * in the file without a gap, or are together not allocated, or zero.
 */
static uint32_t
extent(struct vdi *v, uint64_t off, uint64_t *len)
{
	uint32_t i = (uint32_t)(off / v->block_size);
	uint32_t first = atomic_load_explicit(&v->map[i], memory_order_acquire);
	uint64_t n = v->block_size - off % v->block_size;

	while (n < *len) {
		uint32_t next = atomic_load_explicit(&v->map[++i], memory_order_acquire);
		uint32_t expected = (uint32_t)((off + n) / v->block_size - off / v->block_size) + first;

		if (next != (first < VDI_ZERO ? expected : first))
			break;
		n += v->block_size;
	}
	*len = MIN(*len, n);
	return first;
}

static int
vdi_read(struct image *b, const struct iovec *iov, int iovcnt, uint64_t skip, uint64_t off, uint64_t len)
{
	struct vdi *v = b->state;
	int r = 0;

	for (uint64_t n; len && !r; off += n, skip += n, len -= n) {
		uint32_t block;

		n = len;
		block = extent(v, off, &n);
		if (block == VDI_FREE)
			r = image_read_backing(b, iov, iovcnt, skip, off, n);
		else if (block == VDI_ZERO)
			iov_zero(iov, iovcnt, skip, n);
		else
			r = image_data_read(
				b, b->fd, iov, iovcnt, skip, n, data_offset(v, block) + off % v->block_size, off);
	}
	return r;
}

static int
vdi_map(struct image *b, uint64_t off, uint64_t *len, enum map_kind *kind)
{
	struct vdi *v = b->state;
	uint32_t block = extent(v, off, len);

	*kind = block == VDI_FREE ? MAP_HOLE : block == VDI_ZERO ? MAP_ZERO : MAP_DATA;
	if (*kind == MAP_DATA && !b->crypt &&
		file_is_hole_near(&b->span, b->fd, data_offset(v, block) + off % v->block_size, len))
		*kind = MAP_ZERO;
	return 0;
}

/* ---- allocating and writing ---- */

/* Step 1 of the head of this file: the place of data block `block` exists and reads as zeroes. Lock held. */
static int
prepare_place(struct image *b, struct vdi *v, uint32_t block)
{
	uint64_t at = data_offset(v, block), end = at + v->block_size, to;

	if (at < v->stale_end) {
		int r = file_zero(b->fd, at, MIN(end, v->stale_end) - at);

		if (r)
			return r;
	}
	if (end <= v->file_end)
		return 0;
	to = MIN((end + GROW - 1) / GROW * GROW, MAX(end, data_offset(v, v->blocks)));
	/* Near the end of a full disk, or of a limit, the last few blocks are had one by one. */
	if (ftruncate(b->fd, (off_t)to)) {
		to = end;
		if (ftruncate(b->fd, (off_t)to))
			return -errno;
	}
	v->file_end = to;
	return 0;
}

/* A free data block of the file, reading as zeroes, that nobody else gets. Lock held. */
static int
reserve(struct image *b, struct vdi *v, uint32_t *out)
{
	uint32_t block = v->first_free;
	int r;

	while (block < v->blocks && is_used(v, block))
		block++;
	if (block >= v->blocks)
		return -EIO; /* cannot be: there are as many data blocks as entries */
	v->first_free = block;
	r = prepare_place(b, v, block);
	if (r)
		return r;
	set_used(v, block);
	v->first_free = block + 1;
	*out = block;
	return 0;
}

/* Lock held. */
static void
enter(struct vdi *v, uint32_t i, uint32_t value)
{
	atomic_store_explicit(&v->map[i], value, memory_order_release);
	v->dirty[i / MAP_PAGE_ENTRIES] = 1;
	atomic_store(&v->any_dirty, true);
}

/* The first write: who is a child of this image sees by the UUID that it is no longer what it was. */
static void
note_change(struct image *b, struct vdi *v)
{
	if (atomic_load_explicit(&v->changed, memory_order_relaxed) || b->keep_change)
		return;
	pthread_mutex_lock(&v->lock);
	if (!atomic_load(&v->changed)) {
		b->change = uuid_random();
		put_uuid(v->header + AT_UUID_CHANGE, &b->change);
		atomic_store(&v->changed, true);
		atomic_store(&v->any_dirty, true);
	}
	pthread_mutex_unlock(&v->lock);
}

/* A place for a block that shows zeroes. */
static int
allocate(struct image *b, uint64_t off)
{
	struct vdi *v = b->state;
	uint32_t i = (uint32_t)(off / v->block_size), block = 0;
	int r = 0;

	pthread_mutex_lock(&v->lock);
	if (atomic_load_explicit(&v->map[i], memory_order_relaxed) >= VDI_ZERO) { /* else another writer was faster */
		r = reserve(b, v, &block);
		if (!r)
			enter(v, i, block);
	}
	pthread_mutex_unlock(&v->lock);
	return r;
}

/* The whole block around `off`, as the disk shows it. */
static int
read_block(struct image *b, struct vdi *v, uint64_t off, uint8_t *out)
{
	uint64_t start = off - off % v->block_size, len = MIN(v->block_size, b->size - start);
	struct iovec iov = { out, len };

	memset(out + len, 0, v->block_size - len);
	return vdi_read(b, &iov, 1, 0, start, len);
}

/* Write the whole of a block to its place; zeroes need not be written where they are zeroes in the file. */
static int
write_block(struct image *b, struct vdi *v, const uint8_t *data, uint32_t block, uint64_t start)
{
	const uint64_t step = 65536;
	int r = 0;

	for (uint64_t at = 0, n; at < v->block_size && !r; at += n) {
		struct iovec iov = { (uint8_t *)data + at, 0 };

		n = b->crypt ? v->block_size : MIN(step, v->block_size - at);
		iov.iov_len = n;
		if (b->crypt || !mem_is_zero(data + at, n))
			r = image_data_write(b, b->fd, &iov, 1, 0, n, data_offset(v, block) + at, start + at);
	}
	return r;
}

/* `data`, a whole block, gets a place and is entered in the map when it is there. `cow` held. */
static int
place_block(struct image *b, struct vdi *v, uint64_t off, const uint8_t *data)
{
	uint32_t block = 0;
	int r;

	pthread_mutex_lock(&v->lock);
	r = reserve(b, v, &block);
	pthread_mutex_unlock(&v->lock);
	if (r)
		return r;
	r = write_block(b, v, data, block, off - off % v->block_size);
	pthread_mutex_lock(&v->lock);
	if (r) {
		v->used[block / 8] &= (uint8_t) ~(1 << block % 8);
		v->first_free = MIN(v->first_free, block);
		v->stale_end = MAX(v->stale_end, data_offset(v, block) + v->block_size);
	} else {
		enter(v, (uint32_t)(off / v->block_size), block);
	}
	pthread_mutex_unlock(&v->lock);
	return r;
}

/* Write `len` bytes (iov NULL: zeroes) to a block that has no place yet and shows something. */
static int
copy_on_write(struct image *b, const struct iovec *iov, int iovcnt, uint64_t skip, uint64_t off, uint64_t len)
{
	struct vdi *v = b->state;
	uint32_t i = (uint32_t)(off / v->block_size), block;
	uint8_t *buf = malloc(v->block_size);
	int r = 0;

	if (!buf)
		return -ENOMEM;
	pthread_mutex_lock(&v->cow);
	block = atomic_load_explicit(&v->map[i], memory_order_acquire);
	if (block < VDI_ZERO) { /* another writer was faster */
		uint64_t at = data_offset(v, block) + off % v->block_size;

		r = iov ? image_data_write(b, b->fd, iov, iovcnt, skip, len, at, off)
			: image_data_zero(b, b->fd, len, at, off);
	} else {
		if (len < v->block_size)
			r = read_block(b, v, off, buf);
		if (iov)
			iov_copy(iov, iovcnt, skip, buf + off % v->block_size, len);
		else
			memset(buf + off % v->block_size, 0, len);
		if (!r)
			r = place_block(b, v, off, buf);
	}
	pthread_mutex_unlock(&v->cow);
	free(buf);
	return r;
}

/* Does the block, whose map entry is `entry`, show zeroes that are zeroes in a new place too? */
static bool
is_blank(struct image *b, struct vdi *v, uint32_t entry, uint64_t off)
{
	uint64_t start = off - off % v->block_size;

	if (b->crypt)
		return false;
	return entry == VDI_ZERO || image_backing_is_zero(b, start, MIN(v->block_size, b->size - start));
}

static int
vdi_write(struct image *b, const struct iovec *iov, int iovcnt, uint64_t skip, uint64_t off, uint64_t len)
{
	struct vdi *v = b->state;
	int r = 0;

	note_change(b, v);
	while (len && !r) {
		uint64_t n = len;
		uint32_t block = extent(v, off, &n);

		if (block >= VDI_ZERO && is_blank(b, v, block, off)) {
			r = allocate(b, off);
			continue; /* look again: it has a place now, or the error ends the loop */
		}
		if (block >= VDI_ZERO) {
			n = MIN(n, v->block_size - off % v->block_size);
			r = copy_on_write(b, iov, iovcnt, skip, off, n);
		} else {
			r = image_data_write(
				b, b->fd, iov, iovcnt, skip, n, data_offset(v, block) + off % v->block_size, off);
		}
		off += n;
		skip += n;
		len -= n;
	}
	return r;
}

/* A part of a block that reads through is to read as zeroes. */
static int
zero_hole(struct image *b, struct vdi *v, uint64_t off, uint64_t len)
{
	uint32_t i = (uint32_t)(off / v->block_size);
	bool whole = off % v->block_size == 0 && (len == v->block_size || off + len == b->size);

	if (image_backing_is_zero(b, off, len))
		return 0;
	if (!whole)
		return copy_on_write(b, NULL, 0, 0, off, len);
	pthread_mutex_lock(&v->cow);
	pthread_mutex_lock(&v->lock);
	whole = atomic_load_explicit(&v->map[i], memory_order_relaxed) >= VDI_ZERO;
	if (whole)
		enter(v, i, VDI_ZERO);
	pthread_mutex_unlock(&v->lock);
	pthread_mutex_unlock(&v->cow);
	return whole ? 0 : copy_on_write(b, NULL, 0, 0, off, len);
}

static int
vdi_zero(struct image *b, uint64_t off, uint64_t len)
{
	struct vdi *v = b->state;
	int r = 0;

	note_change(b, v);
	for (uint64_t n; len && !r; off += n, len -= n) {
		uint32_t block;

		n = len;
		block = extent(v, off, &n);
		if (block < VDI_ZERO) {
			r = image_data_zero(b, b->fd, n, data_offset(v, block) + off % v->block_size, off);
		} else if (block == VDI_FREE) {
			n = MIN(n, v->block_size - off % v->block_size);
			r = zero_hole(b, v, off, n);
		}
	}
	return r;
}

/* ---- stable storage ---- */

struct map_page {
	uint32_t page;
	uint32_t len;
	uint8_t bytes[MAP_PAGE];
};

static void
copy_page(struct vdi *v, uint32_t page, struct map_page *out)
{
	uint32_t first = page * MAP_PAGE_ENTRIES, n = MIN(MAP_PAGE_ENTRIES, v->blocks - first);

	out->page = page;
	out->len = n * 4;
	for (uint32_t i = 0; i < n; i++)
		put_le32(out->bytes + 4 * i, atomic_load_explicit(&v->map[first + i], memory_order_relaxed));
}

/* Take the marked pages out of the map as it is now. NULL with *count > 0: no memory. */
static struct map_page *
take_dirty(struct vdi *v, uint32_t *count)
{
	uint32_t pages = (v->blocks + MAP_PAGE_ENTRIES - 1) / MAP_PAGE_ENTRIES, n = 0;
	struct map_page *taken;

	*count = 0;
	for (uint32_t i = 0; i < pages; i++)
		*count += v->dirty[i];
	taken = calloc(*count + 1, sizeof(*taken));
	if (!taken)
		return NULL;
	for (uint32_t i = 0; i < pages; i++) {
		if (!v->dirty[i])
			continue;
		copy_page(v, i, &taken[n++]);
		v->dirty[i] = 0;
	}
	atomic_store(&v->any_dirty, false);
	put_le32(v->header + AT_ALLOCATED, v->end);
	return taken;
}

static void
give_back_dirty(struct vdi *v, const struct map_page *taken, uint32_t count)
{
	pthread_mutex_lock(&v->lock);
	for (uint32_t i = 0; i < count; i++)
		v->dirty[taken[i].page] = 1;
	atomic_store(&v->any_dirty, true);
	pthread_mutex_unlock(&v->lock);
}

/* Step 3 of the head of this file. */
static int
write_metadata(struct image *b, struct vdi *v, const struct map_page *taken, uint32_t count)
{
	int r;

	r = file_pwrite(b->fd, v->header, sizeof(v->header), 0);
	if (!r)
		r = image_sync(b, b->fd);
	for (uint32_t i = 0; i < count && !r; i++)
		r = file_pwrite(b->fd, taken[i].bytes, taken[i].len, v->map_at + (uint64_t)taken[i].page * MAP_PAGE);
	return r ? r : image_sync(b, b->fd);
}

static int
vdi_flush(struct image *b)
{
	struct vdi *v = b->state;
	struct map_page *taken;
	uint32_t count;
	int r;

	if (!atomic_load(&v->any_dirty)) {
		/* A commit that took the marks may still be on its way to the disk: wait for it. */
		pthread_mutex_lock(&v->commit);
		pthread_mutex_unlock(&v->commit);
		if (!atomic_load(&v->any_dirty))
			return image_sync(b, b->fd);
	}
	pthread_mutex_lock(&v->commit);
	pthread_mutex_lock(&v->lock);
	taken = take_dirty(v, &count);
	pthread_mutex_unlock(&v->lock);
	r = taken ? write_metadata(b, v, taken, count) : -ENOMEM;
	if (taken && r)
		give_back_dirty(v, taken, count);
	free(taken);
	pthread_mutex_unlock(&v->commit);
	return r;
}

static bool
vdi_dirty(struct image *b)
{
	struct vdi *v = b->state;

	return atomic_load(&v->any_dirty);
}

/* ---- creating ---- */

static void
fill_header(uint8_t h[512], const struct block_create *c, uint32_t blocks, uint32_t data_at)
{
	static const char text[] = "<<< Oracle VM VirtualBox Disk Image >>>\n";
	struct uuid image = c->uuid ? *c->uuid : uuid_random(), change = uuid_random();
	uint64_t cylinders = c->size / 512 / (255 * 63);

	memset(h, 0, 512);
	memcpy(h + AT_TEXT, text, sizeof(text) - 1);
	put_le32(h + AT_SIGNATURE, VDI_SIGNATURE);
	put_le32(h + AT_VERSION, VDI_VERSION);
	put_le32(h + AT_HEADER_SIZE, VDI_HEADER_SIZE);
	put_le32(h + AT_TYPE, c->fixed ? VDI_FIXED : VDI_DYNAMIC);
	put_le32(h + AT_MAP, MAP_AT);
	put_le32(h + AT_DATA, data_at);
	put_le32(h + AT_SECTOR_SIZE, 512);
	put_le64(h + AT_DISK_SIZE, c->size);
	put_le32(h + AT_BLOCK_SIZE, VDI_BLOCK);
	put_le32(h + AT_BLOCKS, blocks);
	put_le32(h + AT_ALLOCATED, c->fixed ? blocks : 0);
	put_uuid(h + AT_UUID, &image);
	put_uuid(h + AT_UUID_CHANGE, &change);
	put_le32(h + AT_GEOMETRY, (uint32_t)MIN(cylinders, 1024));
	put_le32(h + AT_GEOMETRY + 4, 255);
	put_le32(h + AT_GEOMETRY + 8, 63);
	put_le32(h + AT_GEOMETRY + 12, 512);
}

static int
write_map(int fd, uint32_t blocks, bool fixed)
{
	uint8_t page[MAP_PAGE];

	for (uint32_t first = 0; first < blocks; first += MAP_PAGE_ENTRIES) {
		int r;

		memset(page, 0, sizeof(page));
		for (uint32_t i = 0; i < MAP_PAGE_ENTRIES && first + i < blocks; i++)
			put_le32(page + 4 * i, fixed ? first + i : VDI_FREE);
		r = file_pwrite(fd, page, sizeof(page), MAP_AT + (uint64_t)first * 4);
		if (r)
			return r;
	}
	return 0;
}

/* The name of the parent, in the first of the slots for texts. */
static int
create_text(int fd, uint8_t *header, const struct block_create *c, struct image *parent)
{
	uint8_t slot[TEXT_SLOT];
	char *text = name_parent(c->path, header, NULL, parent);
	int r = fill_slot(slot, text, 0);

	free(text);
	return r ? r : file_pwrite(fd, slot, sizeof(slot), TEXT_AT);
}

static int
vdi_create(int fd, const struct block_create *c, struct image *parent, struct err *e)
{
	uint64_t blocks = (c->size + VDI_BLOCK - 1) / VDI_BLOCK,
		 map_len = (blocks * 4 + MAP_PAGE - 1) & ~(MAP_PAGE - 1ull);
	/* Data on a 1 MiB boundary of the file, as VirtualBox has it: blocks align with the host's extents. */
	uint64_t data_at = (MAP_AT + map_len + VDI_BLOCK - 1) & ~(VDI_BLOCK - 1ull);
	uint8_t header[512];
	int r;

	if (blocks > VDI_BLOCKS_MAX)
		return err_set(e, ERR_INVALID, "A VDI image cannot have %llu bytes; 16 TiB is the most",
			(unsigned long long)c->size);
	fill_header(header, c, (uint32_t)blocks, (uint32_t)data_at);
	r = write_map(fd, (uint32_t)blocks, c->fixed);
	if (!r && c->fixed)
		r = file_reserve(fd, data_at, blocks * VDI_BLOCK, c->progress, c->opaque);
	if (!r && ftruncate(fd, (off_t)(data_at + (c->fixed ? blocks * VDI_BLOCK : 0))))
		r = -errno;
	if (!r && parent)
		r = create_text(fd, header, c, parent);
	/* The header last: a file without it is nobody's image. */
	if (!r)
		r = file_pwrite(fd, header, sizeof(header), 0);
	if (r)
		return err_sys(e, ERR_FILE, r, "The VDI image '%s' cannot be written", c->path);
	return 0;
}

/* ---- another size ---- */

/* The map grows up to where the data begins; new entries first, then the header with the new size. */
static int
grow(struct image *b, struct vdi *v, uint32_t blocks, uint64_t size)
{
	_Atomic uint32_t *map = calloc(blocks, 4);
	uint8_t *used = calloc(blocks / 8 + 1, 1), *dirty = calloc(blocks / MAP_PAGE_ENTRIES + 1, 1);
	int r = map && used && dirty ? 0 : -ENOMEM;

	if (!r && v->type == VDI_FIXED)
		r = file_reserve(b->fd, v->file_end, data_offset(v, blocks) - MIN(v->file_end, data_offset(v, blocks)),
			NULL, NULL);
	for (uint32_t i = v->blocks; i < blocks && !r; i++) {
		uint8_t raw[4];

		put_le32(raw, v->type == VDI_FIXED ? i : VDI_FREE);
		r = file_pwrite(b->fd, raw, 4, v->map_at + (uint64_t)i * 4);
	}
	if (!r)
		r = image_sync(b, b->fd);
	if (r) {
		free((void *)map);
		free(used);
		free(dirty);
		return r;
	}
	for (uint32_t i = 0; i < blocks; i++)
		atomic_store(&map[i], i < v->blocks ? atomic_load(&v->map[i]) : v->type == VDI_FIXED ? i : VDI_FREE);
	memcpy(used, v->used, v->blocks / 8 + 1);
	free((void *)v->map);
	free(v->used);
	free(v->dirty);
	v->map = map;
	v->used = used;
	v->dirty = dirty;
	if (v->type == VDI_FIXED) {
		for (uint32_t i = v->blocks; i < blocks; i++)
			set_used(v, i);
		v->file_end = MAX(v->file_end, data_offset(v, blocks));
	}
	v->blocks = blocks;
	put_le32(v->header + AT_BLOCKS, blocks);
	put_le64(v->header + AT_DISK_SIZE, size);
	put_le32(v->header + AT_ALLOCATED, v->end);
	r = file_pwrite(b->fd, v->header, sizeof(v->header), 0);
	return r ? r : image_sync(b, b->fd);
}

static int vdi_compact(struct image *b, const struct block_progress *p, struct err *e);

/* What is cut off is zero. The blocks left have to be numbered below their count: they are packed first. */
static int
shrink(struct image *b, struct vdi *v, uint32_t blocks, uint64_t size, struct err *e)
{
	int r;

	if (v->type == VDI_FIXED)
		return err_set(e, ERR_UNSUPPORTED, "'%s' is a fixed VDI image and cannot be made smaller", b->path);
	for (uint32_t i = blocks; i < v->blocks; i++)
		enter(v, i, VDI_ZERO);
	b->size = size;
	if (vdi_compact(b, NULL, e))
		return -1;
	v->blocks = blocks;
	put_le32(v->header + AT_BLOCKS, blocks);
	put_le64(v->header + AT_DISK_SIZE, size);
	r = file_pwrite(b->fd, v->header, sizeof(v->header), 0);
	if (!r)
		r = image_sync(b, b->fd);
	return r ? err_sys(e, ERR_FILE, r, "The header of '%s' cannot be written", b->path) : 0;
}

static int
vdi_resize(struct image *b, uint64_t size, struct err *e)
{
	struct vdi *v = b->state;
	uint64_t blocks = (size + v->block_size - 1) / v->block_size;
	int r = vdi_flush(b);

	if (!r && blocks < v->blocks)
		return shrink(b, v, (uint32_t)blocks, size, e);
	if (blocks > VDI_BLOCKS_MAX || blocks > (v->data_at - v->map_at) / 4)
		return err_set(e, ERR_UNSUPPORTED,
			"The block map of '%s' has room for a disk of %llu MiB; clone it into a larger image", b->path,
			(unsigned long long)((v->data_at - v->map_at) / 4 * v->block_size >> 20));
	if (!r)
		r = grow(b, v, (uint32_t)blocks, size);
	if (r)
		return err_sys(e, ERR_FILE, r, "'%s' cannot be resized", b->path);
	b->size = size;
	return 0;
}

/* ---- giving space back ---- */

static int
block_is_blank(struct image *b, struct vdi *v, uint32_t i, uint8_t *buf, bool *blank)
{
	int r = read_block(b, v, (uint64_t)i * v->block_size, buf);

	*blank = !r && mem_is_zero(buf, v->block_size);
	return r;
}

/* Blocks of zeroes lose their place. */
static int
drop_blank(struct image *b, struct vdi *v, uint8_t *buf, const struct block_progress *p)
{
	int r = 0;

	for (uint32_t i = 0; i < v->blocks && !r; i++) {
		uint32_t n = atomic_load(&v->map[i]);
		bool blank = false;

		if (p && p->stopped && p->stopped(p->opaque))
			return -EINTR;
		if (p && p->percent && i % 64 == 0)
			p->percent(p->opaque, (int)((uint64_t)i * 50 / v->blocks));
		if ((uint64_t)i * v->block_size >= b->size)
			blank = true;
		else if (n < VDI_ZERO)
			r = block_is_blank(b, v, i, buf, &blank);
		if (!r && blank && n != VDI_FREE)
			enter(v, i, v->type == VDI_DIFF ? VDI_ZERO : VDI_FREE);
	}
	/* The places are free only when no map on the disk names them any more. */
	return r ? r : vdi_flush(b);
}

static void
recount(struct vdi *v)
{
	memset(v->used, 0, v->blocks / 8 + 1);
	v->end = v->first_free = 0;
	for (uint32_t i = 0; i < v->blocks; i++)
		if (atomic_load(&v->map[i]) < VDI_ZERO)
			set_used(v, atomic_load(&v->map[i]));
}

/* Blocks from the end of the file move into the gaps: all copied, made stable, then entered in the map. */
static int
close_gaps(struct image *b, struct vdi *v, uint8_t *buf, const struct block_progress *p)
{
	uint32_t *owner = calloc((size_t)v->blocks + 1, sizeof(*owner)), gap = 0, count = 0;
	int r = owner ? 0 : -ENOMEM;

	for (uint32_t i = 0; i < v->blocks && !r; i++)
		if (atomic_load(&v->map[i]) < VDI_ZERO) {
			owner[atomic_load(&v->map[i])] = i + 1;
			count++;
		}
	for (uint32_t last = v->blocks; last-- > count && !r;) {
		if (!owner[last])
			continue;
		if (p && p->stopped && p->stopped(p->opaque)) {
			r = -EINTR;
			break;
		}
		while (owner[gap])
			gap++;
		r = file_pread(b->fd, buf, v->block_size, data_offset(v, last));
		if (!r)
			r = file_pwrite(b->fd, buf, v->block_size, data_offset(v, gap));
		if (!r)
			enter(v, owner[last] - 1, gap);
		owner[gap] = owner[last];
		if (p && p->percent)
			p->percent(p->opaque, 50 + (int)((uint64_t)gap * 50 / (count + 1)));
	}
	free(owner);
	return r;
}

static int
vdi_compact(struct image *b, const struct block_progress *p, struct err *e)
{
	struct vdi *v = b->state;
	uint8_t *buf = malloc(v->block_size);
	int r = buf ? 0 : -ENOMEM;

	if (v->type == VDI_FIXED) {
		free(buf);
		return err_set(e, ERR_UNSUPPORTED, "'%s' is a fixed VDI image: there is nothing to compact", b->path);
	}
	if (!r)
		r = drop_blank(b, v, buf, p);
	if (!r)
		r = close_gaps(b, v, buf, p);
	/* The count in the header goes down only when the map on the disk is that of below. */
	if (!r || r == -EINTR) {
		int f = vdi_flush(b);

		r = r ? r : f;
		recount(v);
		put_le32(v->header + AT_ALLOCATED, v->end);
		if (!f)
			f = file_pwrite(b->fd, v->header, sizeof(v->header), 0);
		if (!f && !(f = image_sync(b, b->fd)) && ftruncate(b->fd, (off_t)data_offset(v, v->end)))
			f = -errno;
		if (!f)
			v->file_end = v->stale_end = data_offset(v, v->end);
		r = r ? r : f;
	}
	free(buf);
	return r ? err_sys(e, ERR_FILE, r, "'%s' cannot be compacted", b->path) : 0;
}

const struct block_format block_vdi = {
	.name = "vdi",
	.probe = vdi_probe,
	.open = vdi_open,
	.close = vdi_close,
	.read = vdi_read,
	.write = vdi_write,
	.flush = vdi_flush,
	.zero = vdi_zero,
	.map = vdi_map,
	.dirty = vdi_dirty,
	.create = vdi_create,
	.differencing = true,
	.set_parent = vdi_set_parent,
	.set_uuid = vdi_set_uuid,
	.resize = vdi_resize,
	.compact = vdi_compact,
	.set_text = vdi_set_text,
	.get_text = vdi_get_text,
};
