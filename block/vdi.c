/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vdi: VirtualBox's disk image, version 1.1, dynamic and fixed.
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
 *   0xffffffff never written, 0xfffffffe known to be zero. Both read as zeroes in an image without a parent.
 *   A UUID is stored with its first three fields little-endian.
 *
 * Nothing the file says is used before check_header() and load_map() have bounded it: every map entry is below the
 * number of blocks, lies whole within the file, and no two are the same.
 *
 * Reading and writing. The whole map is in memory. Entries only ever go from unallocated to allocated while an image is
 * open, so that readers look at it without a lock; giving space back punches a hole into a data block and leaves it
 * allocated.
 *
 * Allocating, and why a crash or a power cut at any moment leaves a good image:
 *   1. under `lock`: pick the lowest free data block; see that its place in the file exists and reads as zeroes (the
 * file grows, or what an earlier crash left there is punched out); enter it in the map in memory; mark the map page.
 *   2. without a lock: write the guest's bytes into it, like any later write to that block.
 *   3. at the next flush, or a second later when nobody flushes: the header with the count of allocated blocks, then
 *      fdatasync, then the marked map pages, then fdatasync.
 * So whatever part of step 3 gets to the disk, a map entry found there names a block of the file whose contents are the
 * guest's bytes or zeroes, which is what a disk with a write cache may show after a power cut, and the count in the
 * header is never lower than what the map uses (VirtualBox takes its next block from that count).
 */
#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "block/file.h"
#include "block/format.h"

#define VDI_SIGNATURE 0xbeda107fu
#define VDI_VERSION 0x00010001u
#define VDI_HEADER_SIZE 0x190u
#define VDI_HEADER_END 0x1d8u
#define VDI_BLOCK (1u << 20)
#define VDI_FREE 0xffffffffu
#define VDI_ZERO 0xfffffffeu
/* 16 TiB; bounds the memory that a hostile header can ask for at 64 MiB. */
#define VDI_BLOCKS_MAX (1u << 24)
#define MAP_AT 4096u /* where this code puts the map of a new image */
#define MAP_PAGE 4096u
#define MAP_PAGE_ENTRIES (MAP_PAGE / 4)

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
	AT_GEOMETRY = 0x1c8,
};

struct vdi {
	uint8_t header[512];
	uint32_t type;
	uint64_t map_at, data_at;
	uint32_t blocks, block_size;
	_Atomic uint32_t *map; /* host order */

	pthread_mutex_t lock;	/* everything below, and changing map entries */
	uint8_t *used;		/* a bit for each data block of the file */
	uint32_t first_free;	/* no data block below it is free */
	uint32_t end;		/* one more than the highest data block in use */
	uint64_t file_end;	/* length of the file */
	uint64_t stale_end;	/* bytes from here on were never written: they read as zeroes */
	uint8_t *dirty;		/* a byte for each page of the map that differs from the file */
	_Atomic bool any_dirty; /* some page is, or the header's count */
	bool changed;		/* the UUID of the last change was already renewed */
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

static bool
vdi_probe(const struct block_head *h)
{
	return h->len >= AT_VERSION + 4 && le32(h->bytes + AT_SIGNATURE) == VDI_SIGNATURE;
}

static int
bad(struct block *b, struct err *e, const char *what, uint64_t value)
{
	return err_set(
		e, ERR_FILE, "'%s' is not a good VDI image: %s (%llu)", b->path, what, (unsigned long long)value);
}

static int
check_kind(struct block *b, const uint8_t *h, struct err *e)
{
	if (le32(h + AT_SIGNATURE) != VDI_SIGNATURE)
		return bad(b, e, "its signature is wrong", le32(h + AT_SIGNATURE));
	if (le32(h + AT_VERSION) != VDI_VERSION)
		return err_set(e, ERR_UNSUPPORTED, "'%s' is a VDI image of version %u.%u; only 1.1 can be used",
			b->path, le32(h + AT_VERSION) >> 16, le32(h + AT_VERSION) & 0xffff);
	if (le32(h + AT_TYPE) == VDI_DIFF || le32(h + AT_TYPE) == VDI_UNDO)
		return err_set(e, ERR_UNSUPPORTED,
			"'%s' is a differencing VDI image, which needs its parent; that is not supported yet", b->path);
	if (le32(h + AT_TYPE) != VDI_DYNAMIC && le32(h + AT_TYPE) != VDI_FIXED)
		return bad(b, e, "its type is unknown", le32(h + AT_TYPE));
	/* From here up to AT_UUID_PARENT must be there; the geometry behind is optional. */
	if (le32(h + AT_HEADER_SIZE) < AT_UUID_PARENT + 16 - AT_HEADER_SIZE || le32(h + AT_HEADER_SIZE) > 1 << 20)
		return bad(b, e, "the size of its header is impossible", le32(h + AT_HEADER_SIZE));
	return 0;
}

/* Every number of the header, against each other and against the length of the file. */
static int
check_header(struct block *b, const uint8_t *h, uint64_t file_end, struct err *e)
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
load_map(struct block *b, struct vdi *v, struct err *e)
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
	pthread_mutex_destroy(&v->lock);
	pthread_mutex_destroy(&v->commit);
	free(v);
}

static int
read_header(struct block *b, struct vdi *v, struct err *e)
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

static int
vdi_open(struct block *b, struct err *e)
{
	struct vdi *v = calloc(1, sizeof(*v));

	if (!v)
		return err_sys(e, ERR_FAILED, ENOMEM, "'%s' cannot be opened", b->path);
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
	if (load_map(b, v, e))
		goto fail;
	b->state = v;
	b->size = le64(v->header + AT_DISK_SIZE);
	b->variant = v->type == VDI_FIXED ? "fixed" : "dynamic";
	b->uuid = uuid_swap(v->header + AT_UUID);
	return 0;
fail:
	vdi_free(v);
	return -1;
}

static void
vdi_close(struct block *b)
{
	vdi_free(b->state);
}

/* ---- reading ---- */

static uint64_t
data_offset(const struct vdi *v, uint32_t block)
{
	return v->data_at + (uint64_t)block * v->block_size;
}

/*
 * How the bytes from `off` on are stored: returns the map entry and in *len (at most what it was) how many bytes follow
 * in the file without a gap, or are unallocated together.
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

		if (first < VDI_ZERO ? next != expected : next < VDI_ZERO)
			break;
		n += v->block_size;
	}
	*len = MIN(*len, n);
	return first;
}

static int
vdi_read(struct block *b, const struct iovec *iov, int iovcnt, uint64_t off, uint64_t len)
{
	struct vdi *v = b->state;
	uint64_t done = 0;

	while (done < len) {
		uint64_t n = len - done;
		uint32_t block = extent(v, off + done, &n);
		int r = 0;

		if (block >= VDI_ZERO)
			iov_zero(iov, iovcnt, done, n);
		else
			r = file_readv(
				b->fd, iov, iovcnt, done, n, data_offset(v, block) + (off + done) % v->block_size);
		if (r)
			return r;
		done += n;
	}
	return 0;
}

/* ---- allocating and writing ---- */

/* Step 1 of the head of this file: the place of data block `block` exists and reads as zeroes. Lock held. */
static int
prepare_place(struct block *b, struct vdi *v, uint32_t block)
{
	uint64_t at = data_offset(v, block), end = at + v->block_size;

	if (at < v->stale_end) {
		int r = file_zero(b->fd, at, MIN(end, v->stale_end) - at);

		if (r)
			return r;
	}
	if (end <= v->file_end)
		return 0;
	if (ftruncate(b->fd, (off_t)end))
		return -errno;
	v->file_end = end;
	return 0;
}

static int
allocate_locked(struct block *b, struct vdi *v, uint32_t i)
{
	uint32_t block = v->first_free;
	int r;

	if (atomic_load_explicit(&v->map[i], memory_order_relaxed) < VDI_ZERO)
		return 0; /* another writer was faster */
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
	atomic_store_explicit(&v->map[i], block, memory_order_release);
	v->dirty[i / MAP_PAGE_ENTRIES] = 1;
	atomic_store(&v->any_dirty, true);
	return 0;
}

static int
allocate(struct block *b, uint64_t off)
{
	struct vdi *v = b->state;
	int r;

	pthread_mutex_lock(&v->lock);
	r = allocate_locked(b, v, (uint32_t)(off / v->block_size));
	pthread_mutex_unlock(&v->lock);
	return r;
}

static int
vdi_write(struct block *b, const struct iovec *iov, int iovcnt, uint64_t off, uint64_t len)
{
	struct vdi *v = b->state;
	uint64_t done = 0;
	int r = 0;

	while (done < len && !r) {
		uint64_t n = len - done;
		uint32_t block = extent(v, off + done, &n);

		if (block >= VDI_ZERO) {
			r = allocate(b, off + done);
			continue; /* look again: it has a place now, or the error ends the loop */
		}
		r = file_writev(b->fd, iov, iovcnt, done, n, data_offset(v, block) + (off + done) % v->block_size);
		done += n;
	}
	return r;
}

static int
vdi_zero(struct block *b, uint64_t off, uint64_t len)
{
	struct vdi *v = b->state;
	uint64_t done = 0;
	int r = 0;

	while (done < len && !r) {
		uint64_t n = len - done;
		uint32_t block = extent(v, off + done, &n);

		if (block < VDI_ZERO)
			r = file_zero(b->fd, data_offset(v, block) + (off + done) % v->block_size, n);
		done += n;
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

static int
sync_file(int fd)
{
	return fdatasync(fd) ? -errno : 0;
}

/* Step 3 of the head of this file. */
static int
write_metadata(struct block *b, struct vdi *v, const struct map_page *taken, uint32_t count)
{
	int r;

	if (!v->changed) {
		struct uuid change = uuid_random();

		put_uuid(v->header + AT_UUID_CHANGE, &change);
		v->changed = true;
	}
	r = file_pwrite(b->fd, v->header, sizeof(v->header), 0);
	if (!r)
		r = sync_file(b->fd);
	for (uint32_t i = 0; i < count && !r; i++)
		r = file_pwrite(b->fd, taken[i].bytes, taken[i].len, v->map_at + (uint64_t)taken[i].page * MAP_PAGE);
	return r ? r : sync_file(b->fd);
}

static int
vdi_flush(struct block *b)
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
			return sync_file(b->fd);
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
vdi_dirty(struct block *b)
{
	struct vdi *v = b->state;

	return atomic_load(&v->any_dirty);
}

/* ---- creating ---- */

static void
fill_header(uint8_t h[VDI_HEADER_END], const struct block_create *c, uint32_t blocks, uint32_t data_at)
{
	static const char text[] = "<<< Oracle VM VirtualBox Disk Image >>>\n";
	struct uuid image = c->uuid ? *c->uuid : uuid_random(), change = uuid_random();
	uint64_t cylinders = c->size / 512 / (255 * 63);

	memset(h, 0, VDI_HEADER_END);
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

static int
vdi_create(int fd, const struct block_create *c, struct err *e)
{
	uint64_t blocks = (c->size + VDI_BLOCK - 1) / VDI_BLOCK,
		 map_len = (blocks * 4 + MAP_PAGE - 1) & ~(MAP_PAGE - 1ull);
	/* Data on a 1 MiB boundary of the file, as VirtualBox has it: blocks align with the host's extents. */
	uint64_t data_at = (MAP_AT + map_len + VDI_BLOCK - 1) & ~(VDI_BLOCK - 1ull);
	uint8_t header[VDI_HEADER_END];
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
	/* The header last: a file without it is nobody's image. */
	if (!r)
		r = file_pwrite(fd, header, sizeof(header), 0);
	if (r)
		return err_sys(e, ERR_FILE, r, "The VDI image '%s' cannot be written", c->path);
	return 0;
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
	.dirty = vdi_dirty,
	.create = vdi_create,
};
