/* SPDX-License-Identifier: Apache-2.0 */
/*
 * qcow2: QEMU's disk image, versions 2 and 3.
 *
 * The file is an array of clusters (512 bytes to 2 MiB), all numbers are big-endian. Cluster 0 begins with the header:
 *
 *   offset  size
 *        0     4  "QFI\xfb"
 *        4     4  version, 2 or 3
 *        8     8  file offset of the name of the backing file, 0: none
 *       16     4  its length
 *       20     4  bits of a cluster: 9 to 21
 *       24     8  size of the disk in bytes
 *       32     4  encryption method, 0: none
 *       36     4  entries of the L1 table
 *       40     8  file offset of the L1 table
 *       48     8  file offset of the refcount table
 *       56     4  its clusters
 *       60     4  internal snapshots
 *       64     8  file offset of the snapshot table
 *                 version 3 only:
 *       72     8  incompatible features: 0 dirty, 1 corrupt, 2 external data file, 3 compression type, 4 extended L2
 *       80     8  compatible features: 0 lazy refcounts
 *       88     8  autoclear features: cleared by who does not know them and writes
 *       96     4  log2 of the bits of a refcount, 0 to 6 (version 2: 4)
 *      100     4  length of the header
 *      104     1  compression of clusters, with incompatible feature 3: 0 deflate, 1 zstd
 *   and behind the header extensions of (4 type, 4 length, data, padded to 8): 0 ends them, 0xe2792aca names the format
 *   of the backing file, 0x6803f857 has entries of 48 bytes: type of feature (0 incompatible), bit, name; 0x4c6f6447 is
 *   ours: lines "key=value\n" (CRYPT/KeyStore and the like), which other programs carry along.
 *
 *   L1 table: 8 bytes for each L2 table: bit 63 "copied" (its refcount is 1), bits 9-55 file offset of the table, 0
 * none. L2 table: one cluster of 8 bytes for each cluster of the disk: bit 63 copied   bit 62 compressed   bits 9-55
 * file offset of the cluster, 0 none   bit 0 reads as zeroes (v3) compressed: the low 62 - (cluster bits - 8) bits are
 * a file offset, the rest up to bit 61 the sectors of 512 bytes behind the one it is in; the contents are a raw deflate
 * stream (RFC 1951) or zstd frames (RFC 8878). With extended entries (feature 4) an L2 entry has 16 bytes, and half as
 * many fit: behind the 8 of above, where bit 0 is not used, a bit for each of the cluster's 32 subclusters, the first
 * the lowest: bits 0-31 it is in the cluster of the file, bits 32-63 it reads as zeroes, neither: it is that of the
 * backing file. refcount table: 8 bytes for each refcount block, a file offset; a block
 * is one cluster of refcounts, one for each cluster of the file.
 *
 * Tables are read and changed through meta.h. Everything an entry says is bounded when it is used: aligned, within the
 * file, outside of the header, L1 and refcount tables.
 *
 * Writing. A cluster of the disk that reads as zeroes gets a cluster of the file that reads as zeroes, is entered in
 * the L2 table (in memory) and is then written like any other, without a lock. One with other contents so far (from the
 * backing file, compressed) is written completely to its new place, under `cow`, before it is entered. Clusters that
 * are discarded stay allocated, as holes in the file. What a new place replaces is freed when the commit has ended.
 *
 * The phases of a commit (meta.h), so that a power cut leaves at worst clusters that are counted and not used:
 *   1 refcount blocks, with the data   2 refcount table   3 header   4 L2 tables   5 L1 table   then: freed clusters
 *
 * With an external data file (feature 2; its name is the header extension 0x44415441, and it lies beside the image) the
 * clusters of the disk are there, each at its own offset, where none can be shared or compressed; only what this file
 * holds is counted. An entry with the offset 0 is then one when it is marked "copied". Autoclear bit 1 says that the data
 * file alone is a raw image of the disk: what reads as zeroes is then zeroed there too.
 *
 * Not written to: images with internal snapshots, that are marked dirty or corrupt. Not supported, and refused by name:
 * encryption and every incompatible feature that is not named above.
 */
#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>
#include <zlib.h>
#include <zstd.h>

#include "base/bytes.h"
#include "block/file.h"
#include "block/format.h"
#include "block/lines.h"
#include "block/meta.h"

#define QCOW_MAGIC 0x514649fbu
#define COPIED (1ull << 63)
#define COMPRESSED (1ull << 62)
#define READS_ZERO 1ull
#define OFFSET_MASK 0x00fffffffffffe00ull
#define L1_BYTES_MAX (32ull << 20)
#define RT_BYTES_MAX (8ull << 20)
#define NAME_MAX_LEN 1023u
#define GROW_MIN (4ull << 20) /* the file grows in steps of a 16th of itself, between these */
#define GROW_MAX (64ull << 20)
#define CREATE_BITS 16
#define SUBCLUSTERS 32
#define ALL_DATA 0xffffffffull /* of the bits of an extended entry */
#define ALL_ZERO (ALL_DATA << 32)

enum {
	INCOMPAT_DIRTY = 1,
	INCOMPAT_CORRUPT = 2,
	INCOMPAT_DATA_FILE = 4,
	INCOMPAT_COMPRESSION = 8,
	INCOMPAT_EXTENDED = 16,
};
enum { AUTOCLEAR_RAW_DATA = 2 };
enum {
	EXT_END = 0,
	EXT_BACKING_FORMAT = 0xe2792aca,
	EXT_FEATURES = 0x6803f857,
	EXT_TEXT = 0x4c6f6447,
	EXT_DATA_FILE = 0x44415441,
};
enum { PHASE_REFCOUNTS = 1, PHASE_REFTABLE, PHASE_HEADER, PHASE_L2, PHASE_L1 };

enum qcow_field {
	AT_MAGIC = 0,
	AT_VERSION = 4,
	AT_BACKING = 8,
	AT_BACKING_LEN = 16,
	AT_BITS = 20,
	AT_SIZE = 24,
	AT_CRYPT = 32,
	AT_L1_SIZE = 36,
	AT_L1 = 40,
	AT_RT = 48,
	AT_RT_CLUSTERS = 56,
	AT_SNAPSHOTS = 60,
	AT_SNAPSHOT_TABLE = 64,
	V2_LENGTH = 72,
	AT_INCOMPATIBLE = 72,
	AT_COMPATIBLE = 80,
	AT_AUTOCLEAR = 88,
	AT_REFCOUNT_ORDER = 96,
	AT_LENGTH = 100,
	V3_LENGTH = 104,
	AT_COMPRESSION = 104,
};

/* How a cluster of the disk is stored. */
enum kind { HOLE, ZERO, DATA, PACKED };
struct place {
	enum kind kind;
	bool placed;	/* there is a cluster of the file for it, whatever is read */
	bool copied;	/* nobody else uses that, it can be written in place */
	uint64_t host;	/* file offset of the byte asked for (DATA) or of the stream (PACKED) */
	uint64_t entry; /* as in the L2 table */
	uint64_t bits;	/* of an extended entry */
};

/* A range of the file that loses a reference when the commit has ended. */
struct drop {
	uint64_t at, len;
};

struct qcow {
	uint32_t version, bits, refcount_order;
	bool zstd; /* how clusters are compressed; else deflate */
	uint64_t cluster, entry_size, l2_entries, l1_at, l1_entries, l1_len;
	uint64_t unit; /* what an entry tells apart: a cluster, or with extended entries a subcluster */
	int data_fd;   /* where the disk's clusters are: this file, or another */
	char *data_name;
	bool external, raw_data;
	uint64_t features_at; /* header extensions begin here */
	char *backing_name, *backing_format;
	char *text; /* of EXT_TEXT */

	pthread_mutex_t cow;  /* one copy at a time, and reading of what a copy may free; taken before `lock` */
	pthread_mutex_t lock; /* everything below */
	struct meta *meta;
	uint64_t rt_at, rt_entries;
	uint64_t file_end;   /* length of the file */
	uint64_t first_free; /* no cluster of the file below it is free */
	uint64_t fresh;	     /* clusters from here on were never used: they read as zeroes */
	struct drop *drops;
	size_t drop_count, drop_cap;
};

/* ---- opening ---- */

static bool
qcow_probe(const struct block_head *h)
{
	return h->len >= V2_LENGTH && be32(h->bytes) == QCOW_MAGIC && be32(h->bytes + AT_VERSION) >= 2;
}

static int
bad(struct image *b, struct err *e, const char *what, uint64_t value)
{
	return err_set(
		e, ERR_FILE, "'%s' is not a good QCOW2 image: %s (%llu)", b->path, what, (unsigned long long)value);
}

/* Is [at, at+len) whole within the file, and cluster-aligned? */
static bool
in_file(const struct qcow *q, uint64_t at, uint64_t len)
{
	return at % q->cluster == 0 && at >= q->cluster && len <= q->file_end && at <= q->file_end - len;
}

static int
check_tables(struct image *b, struct qcow *q, const uint8_t *h, struct err *e)
{
	uint64_t rt_len = (uint64_t)be32(h + AT_RT_CLUSTERS) * q->cluster;

	if (b->size == 0 || b->size % 512 || b->size > INT64_MAX / 2)
		return bad(b, e, "the size of its disk is not a number of sectors", b->size);
	if (q->l1_len > L1_BYTES_MAX)
		return bad(b, e, "its L1 table is too large", q->l1_len);
	if (q->l1_entries * 8 > q->l1_len)
		return bad(b, e, "its L1 table is too small for its disk", q->l1_len / 8);
	if (!in_file(q, q->l1_at, q->l1_entries * 8))
		return bad(b, e, "the offset of its L1 table is impossible", q->l1_at);
	if (rt_len == 0 || rt_len > RT_BYTES_MAX)
		return bad(b, e, "the size of its refcount table is impossible", rt_len);
	if (!in_file(q, q->rt_at, 8))
		return bad(b, e, "the offset of its refcount table is impossible", q->rt_at);
	q->rt_entries = rt_len / 8;
	return 0;
}

static int
check_geometry(struct image *b, struct qcow *q, const uint8_t *h, struct err *e)
{
	q->version = be32(h + AT_VERSION);
	q->bits = be32(h + AT_BITS);
	if (q->version != 2 && q->version != 3)
		return err_set(e, ERR_UNSUPPORTED, "'%s' is a QCOW image of version %u; 2 and 3 can be used", b->path,
			q->version);
	if (q->bits < 9 || q->bits > 21)
		return bad(b, e, "the size of its clusters is impossible", q->bits);
	if (be32(h + AT_CRYPT))
		return err_set(e, ERR_UNSUPPORTED, "'%s' is encrypted, which is not supported for QCOW2", b->path);
	q->refcount_order = q->version == 2 ? 4 : be32(h + AT_REFCOUNT_ORDER);
	if (q->refcount_order > 6)
		return bad(b, e, "the size of its refcounts is impossible", q->refcount_order);
	q->cluster = q->unit = 1ull << q->bits;
	q->entry_size = 8;
	if (q->version >= 3 && be64(h + AT_INCOMPATIBLE) & INCOMPAT_EXTENDED) {
		q->entry_size = 16;
		q->unit = q->cluster / SUBCLUSTERS;
	}
	if (q->unit < 512)
		return bad(b, e, "the size of its clusters is impossible with extended L2 entries", q->bits);
	q->external = q->version >= 3 && be64(h + AT_INCOMPATIBLE) & INCOMPAT_DATA_FILE;
	q->raw_data = q->external && be64(h + AT_AUTOCLEAR) & AUTOCLEAR_RAW_DATA;
	q->l2_entries = q->cluster / q->entry_size;
	b->size = be64(h + AT_SIZE);
	q->l1_at = be64(h + AT_L1);
	q->l1_len = (uint64_t)be32(h + AT_L1_SIZE) * 8;
	q->l1_entries = b->size / (q->cluster * q->l2_entries) + (b->size % (q->cluster * q->l2_entries) != 0);
	q->rt_at = be64(h + AT_RT);
	q->features_at = q->version == 2 ? V2_LENGTH : be32(h + AT_LENGTH);
	if (q->features_at < (q->version == 2 ? V2_LENGTH : V3_LENGTH) || q->features_at > q->cluster)
		return bad(b, e, "the length of its header is impossible", q->features_at);
	return check_tables(b, q, h, e);
}

/* The image's own name for incompatible feature `bit`, or the specification's. `out` has 47 bytes. */
static void
feature_name(const uint8_t *list, uint64_t len, unsigned bit, char out[47])
{
	static const char *const known[] = { "dirty", "corrupt", "external data file", "compression type (zstd)",
		"extended L2 entries" };

	snprintf(out, 47, "number %u", bit);
	if (bit < ARRAY_LEN(known))
		snprintf(out, 47, "%s", known[bit]);
	for (uint64_t at = 0; bit >= ARRAY_LEN(known) && len - at >= 48; at += 48) {
		if (list[at] != 0 || list[at + 1] != bit)
			continue;
		snprintf(out, 47, "%.46s", (const char *)list + at + 2);
		for (char *p = out; *p; p++)
			*p = (char)(*p < ' ' || *p > '~' ? '?' : *p);
	}
}

static int
check_features(struct image *b, const uint8_t *h, const uint8_t *list, uint64_t list_len, struct err *e)
{
	uint64_t features = be32(h + AT_VERSION) == 2 ? 0 : be64(h + AT_INCOMPATIBLE);
	char name[47];

	for (unsigned bit = 2; bit < 64; bit++) {
		if (!(features >> bit & 1) ||
			1ull << bit & (INCOMPAT_COMPRESSION | INCOMPAT_DATA_FILE | INCOMPAT_EXTENDED))
			continue;
		feature_name(list, list_len, bit, name);
		return err_set(
			e, ERR_UNSUPPORTED, "'%s' uses the QCOW2 feature '%s', which is not supported", b->path, name);
	}
	if (features & INCOMPAT_COMPRESSION && be32(h + AT_LENGTH) <= AT_COMPRESSION)
		return bad(
			b, e, "its header is too short for the compression type it says to have", be32(h + AT_LENGTH));
	if (features & INCOMPAT_COMPRESSION && h[AT_COMPRESSION] > 1)
		return err_set(e, ERR_UNSUPPORTED,
			"'%s' has clusters of the compression type %u; deflate (0) and zstd (1) can be used", b->path,
			h[AT_COMPRESSION]);
	if (!b->read_only && features & INCOMPAT_CORRUPT)
		return err_set(e, ERR_FILE,
			"'%s' is marked corrupt and cannot be written to; repair a copy with 'qemu-img check -r all'",
			b->path);
	if (!b->read_only && features & INCOMPAT_DIRTY)
		return err_set(e, ERR_FILE,
			"'%s' was not closed properly by a program that keeps refcounts in memory only; run 'qemu-img "
			"check -r all' on it before it is written to",
			b->path);
	if (!b->read_only && be32(h + AT_SNAPSHOTS))
		return err_set(e, ERR_UNSUPPORTED,
			"'%s' has %u internal snapshots and cannot be written to; it can be read, and cloned", b->path,
			be32(h + AT_SNAPSHOTS));
	return 0;
}

/* Walk the header extensions in `head` (of one cluster). */
static int
read_extensions(struct image *b, struct qcow *q, const uint8_t *head, struct err *e)
{
	const uint8_t *features = NULL;
	uint64_t at = q->features_at, features_len = 0;

	while (q->cluster - at >= 8) {
		uint32_t type = be32(head + at), len = be32(head + at + 4);

		at += 8;
		if (type == EXT_END)
			break;
		if (len > q->cluster - at)
			return bad(b, e, "a header extension is longer than the header's cluster", len);
		if (type == EXT_FEATURES) {
			features = head + at;
			features_len = len;
		}
		if (type == EXT_BACKING_FORMAT && len && len < 64 && !q->backing_format)
			q->backing_format = xasprintf("%.*s", (int)len, (const char *)head + at);
		if (type == EXT_DATA_FILE && len && len <= NAME_MAX_LEN && !q->data_name)
			q->data_name = xasprintf("%.*s", (int)len, (const char *)head + at);
		if (type == EXT_TEXT && !q->text)
			q->text = xasprintf("%.*s", (int)len, (const char *)head + at);
		at += MIN((len + 7ull) & ~7ull, q->cluster - at);
	}
	q->zstd = q->version >= 3 && be64(head + AT_INCOMPATIBLE) & INCOMPAT_COMPRESSION && head[AT_COMPRESSION] == 1;
	return check_features(b, head, features, features_len, e);
}

static int
read_backing_name(struct image *b, struct qcow *q, const uint8_t *head, struct err *e)
{
	uint64_t at = be64(head + AT_BACKING), len = be32(head + AT_BACKING_LEN);

	if (!at)
		return 0;
	if (len == 0 || len > NAME_MAX_LEN || at > q->cluster || len > q->cluster - at)
		return bad(b, e, "the name of its backing file is not in its header's cluster", at);
	q->backing_name = xasprintf("%.*s", (int)len, (const char *)head + at);
	return 0;
}

static int
read_header(struct image *b, struct qcow *q, struct err *e)
{
	uint8_t h[V3_LENGTH], *head;
	int64_t size = file_size(b->fd);
	int r;

	if (size < 0)
		return err_sys(e, ERR_FILE, (int)size, "The size of '%s' cannot be found", b->path);
	q->file_end = (uint64_t)size;
	r = file_pread(b->fd, h, sizeof(h), 0);
	if (r)
		return err_sys(e, ERR_FILE, r, "The header of '%s' cannot be read", b->path);
	if (q->file_end < V2_LENGTH || be32(h) != QCOW_MAGIC)
		return bad(b, e, "its signature is wrong", be32(h));
	if (check_geometry(b, q, h, e))
		return -1;
	head = calloc(1, q->cluster);
	r = head ? file_pread(b->fd, head, q->cluster, 0) : -ENOMEM;
	if (r)
		r = err_sys(e, ERR_FILE, r, "The header of '%s' cannot be read", b->path);
	else
		r = read_extensions(b, q, head, e) || read_backing_name(b, q, head, e) ? -1 : 0;
	free(head);
	return r;
}

/*
 * The file with the data, when it is another one. A path is good when it leads to the image's own directory. It may be
 * shorter than the disk; what it does not have reads as zeroes.
 */
static int
open_data_file(struct image *b, struct qcow *q, struct err *e)
{
	char *real, *slash, *name = q->data_name;
	int64_t size;

	q->data_fd = b->fd;
	if (!q->external)
		return 0;
	if (!name)
		return err_set(e, ERR_UNSUPPORTED,
			"'%s' has its data in an external data file and does not say in which", b->path);
	real = name[0] == '/' ? realpath(b->path, NULL) : NULL;
	slash = real ? strrchr(real, '/') : NULL;
	if (slash && !strncmp(name, real, (size_t)(slash - real) + 1))
		name += slash - real + 1;
	q->data_fd = image_open_part(b, name, e);
	free(real);
	if (q->data_fd < 0)
		return -1;
	memmove(q->data_name, name, strlen(name) + 1);
	size = file_size(q->data_fd);
	if (!b->read_only && size >= 0 && (uint64_t)size < b->size && ftruncate(q->data_fd, (off_t)b->size))
		return err_sys(e, ERR_FILE, errno, "'%s', the data of '%s', cannot be made as long as the disk",
			q->data_name, b->path);
	return 0;
}

static void
qcow_free(struct qcow *q)
{
	if (q->external && q->data_fd >= 0)
		close(q->data_fd);
	free(q->data_name);
	meta_close(q->meta);
	free(q->backing_name);
	free(q->backing_format);
	free(q->text);
	free(q->drops);
	pthread_mutex_destroy(&q->lock);
	pthread_mutex_destroy(&q->cow);
	free(q);
}

/* The first change: features that who writes must know all of are taken off. */
static int
clear_autoclear(struct image *b, struct qcow *q, struct err *e)
{
	uint64_t bits = 0, known = AUTOCLEAR_RAW_DATA;
	int r;

	if (b->read_only || q->version == 2)
		return 0;
	pthread_mutex_lock(&q->lock);
	r = meta_get64be(q->meta, AT_AUTOCLEAR, &bits);
	if (!q->external)
		known = 0;
	if (!r && bits & ~known)
		r = meta_put64be(q->meta, AT_AUTOCLEAR, bits & known, PHASE_HEADER);
	pthread_mutex_unlock(&q->lock);
	if (!r && bits & ~known)
		r = meta_commit(q->meta);
	return r ? err_sys(e, ERR_FILE, r, "The header of '%s' cannot be written", b->path) : 0;
}

static int
qcow_open(struct image *b, struct err *e)
{
	struct qcow *q = calloc(1, sizeof(*q));

	if (!q)
		return err_sys(e, ERR_FAILED, ENOMEM, "'%s' cannot be opened", b->path);
	pthread_mutex_init(&q->lock, NULL);
	pthread_mutex_init(&q->cow, NULL);
	q->data_fd = -1;
	if (read_header(b, q, e) || open_data_file(b, q, e))
		goto fail;
	q->meta = meta_open(b->fd, (unsigned)MIN(q->cluster, 4096), &q->lock, b->flags & BLOCK_UNSAFE);
	if (!q->meta) {
		err_sys(e, ERR_FAILED, ENOMEM, "'%s' cannot be opened", b->path);
		goto fail;
	}
	if (q->external)
		meta_sync_also(q->meta, q->data_fd);
	q->fresh = (q->file_end + q->cluster - 1) / q->cluster;
	if (q->backing_name &&
		image_open_parent(b, &(struct parent_ref){ .name = q->backing_name, .format = q->backing_format }, e))
		goto fail;
	if (clear_autoclear(b, q, e))
		goto fail;
	b->state = q;
	b->variant = q->backing_name ? "differencing" : "dynamic";
	return 0;
fail:
	qcow_free(q);
	return -1;
}

/* The file is as long as what is used of it. */
static void
qcow_close(struct image *b)
{
	struct qcow *q = b->state;

	if (!b->read_only && !meta_dirty(q->meta) && q->file_end > q->fresh * q->cluster &&
		ftruncate(b->fd, (off_t)(q->fresh * q->cluster)))
		q->file_end = 0; /* longer than need be, and good all the same */
	qcow_free(q);
}

/* ---- looking up; lock held ---- */

static bool
overlaps(uint64_t at, uint64_t len, uint64_t table, uint64_t table_len)
{
	return at < table + table_len && table < at + len;
}

/* Can [at, at+len) hold data or an L2 table? Not where the file's own tables are. */
static bool
good_place(const struct qcow *q, uint64_t at, uint64_t len)
{
	return at >= q->cluster && at < q->file_end && !overlaps(at, len, q->l1_at, q->l1_len) &&
	       !overlaps(at, len, q->rt_at, q->rt_entries * 8);
}

/* File offset of the L2 entry for `off`; 0 in *at: there is no table. *l1: the L1 entry. */
static int
find_entry(struct qcow *q, uint64_t off, uint64_t *at, uint64_t *l1)
{
	uint64_t i = off >> q->bits, table;
	int r = meta_get64be(q->meta, q->l1_at + i / q->l2_entries * 8, l1);

	*at = 0;
	if (r)
		return r;
	table = *l1 & OFFSET_MASK;
	if (!table)
		return 0;
	if (table % q->cluster || !good_place(q, table, q->cluster))
		return -EIO;
	*at = table + i % q->l2_entries * q->entry_size;
	return 0;
}

static int
decode(const struct qcow *q, uint64_t off, uint64_t entry, uint64_t bits, struct place *p)
{
	uint64_t host = entry & OFFSET_MASK;
	unsigned sub = (unsigned)(off % q->cluster / q->unit);

	*p = (struct place){ .kind = HOLE,
		.placed = host || (q->external && entry & COPIED),
		.copied = entry & COPIED || q->external,
		.host = host,
		.entry = entry,
		.bits = bits };
	if (entry & COMPRESSED) {
		p->kind = PACKED;
		p->placed = true;
		p->host = entry & ((1ull << (62 - (q->bits - 8))) - 1);
		return !q->external && good_place(q, p->host, 1) ? 0 : -EIO;
	}
	if (host % q->cluster || (host && !q->external && !good_place(q, host, q->cluster)))
		return -EIO;
	p->host += off % q->cluster;
	if (q->unit < q->cluster) {
		bool data = bits >> sub & 1, zero = bits >> (32 + sub) & 1;

		p->kind = data ? DATA : zero ? ZERO : HOLE;
		return data && (zero || !p->placed) ? -EIO : 0;
	}
	if (q->version >= 3 && entry & READS_ZERO)
		p->kind = ZERO;
	else if (p->placed)
		p->kind = DATA;
	return 0;
}

static int
lookup(struct qcow *q, uint64_t off, struct place *p)
{
	uint64_t at, l1, entry = 0, bits = 0;
	int r = find_entry(q, off, &at, &l1);

	if (!r && at)
		r = meta_get64be(q->meta, at, &entry);
	if (!r && at && q->entry_size == 16)
		r = meta_get64be(q->meta, at + 8, &bits);
	return r ? r : decode(q, off, entry, bits, p);
}

/* The L2 entry at `at`, with its bits where there are any. */
static int
put_entry(struct qcow *q, uint64_t at, uint64_t entry, uint64_t bits)
{
	int r = meta_put64be(q->meta, at, entry, PHASE_L2);

	return r || q->entry_size == 8 ? r : meta_put64be(q->meta, at + 8, bits, PHASE_L2);
}

/* The entry of a cluster that reads as zeroes without a place, with or without something behind it. */
static int
put_nothing(struct qcow *q, uint64_t at, bool hides)
{
	if (q->entry_size == 16)
		return put_entry(q, at, 0, hides ? ALL_ZERO : 0);
	return put_entry(q, at, hides ? READS_ZERO : 0, 0);
}

/* The same as `first`, right behind it? */
static bool
continues(const struct place *first, const struct place *p, uint64_t distance)
{
	if (p->kind != first->kind || p->copied != first->copied || p->kind == PACKED)
		return false;
	if (p->placed != first->placed)
		return false;
	return p->kind != DATA || p->host == first->host + distance;
}

/* Where the bytes from `off` on are; *len becomes how many of them are of that kind without a gap. Takes the lock. */
static int
extent(struct qcow *q, uint64_t off, uint64_t *len, struct place *p)
{
	uint64_t n = q->unit - off % q->unit;
	int r;

	pthread_mutex_lock(&q->lock);
	r = lookup(q, off, p);
	while (!r && n < *len) {
		struct place next;

		if (lookup(q, off + n, &next) || !continues(p, &next, n))
			break;
		n += q->unit;
	}
	pthread_mutex_unlock(&q->lock);
	*len = MIN(*len, n);
	return r;
}

/* ---- reading ---- */

/* Behind the stream there may be other bytes, up to the end of its last sector. */
static int
unpack_zstd(const uint8_t *in, uint64_t len, uint8_t *out, uint64_t cluster)
{
	ZSTD_inBuffer from = { in, len, 0 };
	ZSTD_outBuffer to = { out, cluster, 0 };
	ZSTD_DCtx *c = ZSTD_createDCtx();
	size_t r = 1;

	if (!c)
		return -ENOMEM;
	while (to.pos < to.size && from.pos < from.size && r) {
		r = ZSTD_decompressStream(c, &to, &from);
		if (ZSTD_isError(r))
			break;
	}
	ZSTD_freeDCtx(c);
	return to.pos == to.size && !ZSTD_isError(r) ? 0 : -EIO;
}

static int
unpack_deflate(uint8_t *in, uint64_t len, uint8_t *out, uint64_t cluster)
{
	z_stream z = { .next_in = in, .avail_in = (uInt)len, .next_out = out, .avail_out = (uInt)cluster };

	if (inflateInit2(&z, -15) != Z_OK)
		return -ENOMEM;
	inflate(&z, Z_FINISH);
	inflateEnd(&z);
	return z.avail_out ? -EIO : 0;
}

/* Decompress the cluster at `p` into `out`. */
static int
unpack(struct image *b, const struct qcow *q, const struct place *p, uint8_t *out)
{
	unsigned shift = 62 - (q->bits - 8);
	uint64_t sectors = (p->entry >> shift & ((1ull << (q->bits - 8)) - 1)) + 1;
	uint64_t len = sectors * 512 - p->host % 512;
	uint8_t *in = malloc(len);
	int r = in ? file_pread(b->fd, in, len, p->host) : -ENOMEM;

	if (!r)
		r = q->zstd ? unpack_zstd(in, len, out, q->cluster) : unpack_deflate(in, len, out, q->cluster);
	free(in);
	return r;
}

/* A range within a cluster, all of the kind of `p`, as the disk shows it. `cow` held. */
static int
read_range(struct image *b, struct qcow *q, const struct place *p, uint64_t off, uint8_t *out, uint64_t len)
{
	struct iovec iov = { out, len };

	switch (p->kind) {
	case HOLE:
		return image_read_backing(b, &iov, 1, 0, off, len);
	case DATA:
		return image_data_read(b, q->data_fd, &iov, 1, 0, len, p->host, off);
	case PACKED: /* read as a whole */
	case ZERO:
		memset(out, 0, len);
	}
	return 0;
}

/* The whole cluster that holds `off` as the disk shows it. `cow` held. */
static int
read_cluster(struct image *b, struct qcow *q, uint64_t off, uint8_t *out)
{
	struct place p;
	int r = 0;

	off -= off % q->cluster;
	for (uint64_t done = 0, n; done < q->cluster && !r; done += n) {
		n = q->cluster - done;
		r = extent(q, off + done, &n, &p);
		if (!r && p.kind == PACKED)
			return unpack(b, q, &p, out);
		if (!r)
			r = read_range(b, q, &p, off + done, out + done, n);
	}
	return r;
}

/* A compressed cluster could be moved and its place used again meanwhile: look again, and keep it. */
static int
read_packed(
	struct image *b, struct qcow *q, const struct iovec *iov, int iovcnt, uint64_t skip, uint64_t len, uint64_t off)
{
	uint8_t *buf = malloc(q->cluster);
	int r = -ENOMEM;

	if (!buf)
		return r;
	pthread_mutex_lock(&q->cow);
	r = read_cluster(b, q, off, buf);
	pthread_mutex_unlock(&q->cow);
	if (!r)
		iov_fill(iov, iovcnt, skip, buf + off % q->cluster, len);
	free(buf);
	return r;
}

static int
qcow_read(struct image *b, const struct iovec *iov, int iovcnt, uint64_t skip, uint64_t off, uint64_t len)
{
	struct qcow *q = b->state;
	int r = 0;

	for (uint64_t n; len && !r; off += n, skip += n, len -= n) {
		struct place p;

		n = len;
		r = extent(q, off, &n, &p);
		if (r)
			break;
		if (p.kind == DATA)
			r = image_data_read(b, q->data_fd, iov, iovcnt, skip, n, p.host, off);
		else if (p.kind == PACKED)
			r = read_packed(b, q, iov, iovcnt, skip, n, off);
		else if (p.kind == HOLE)
			r = image_read_backing(b, iov, iovcnt, skip, off, n);
		else
			iov_zero(iov, iovcnt, skip, n);
	}
	return r;
}

static int
qcow_map(struct image *b, uint64_t off, uint64_t *len, enum map_kind *kind)
{
	struct qcow *q = b->state;
	struct place p;
	int r = extent(q, off, len, &p);

	*kind = p.kind == HOLE ? MAP_HOLE : p.kind == ZERO ? MAP_ZERO : MAP_DATA;
	if (!r && p.kind == DATA && !b->crypt && file_is_hole_near(&b->span, q->data_fd, p.host, len))
		*kind = MAP_ZERO;
	return r;
}

/* ---- refcounts; lock held ---- */

static uint64_t
per_block(const struct qcow *q)
{
	return q->cluster * 8 >> q->refcount_order;
}

/* File offset of the refcount block for `cluster`, 0: none. */
static int
find_block(struct qcow *q, uint64_t cluster, uint64_t *at)
{
	uint64_t i = cluster / per_block(q);
	int r = 0;

	*at = 0;
	if (i >= q->rt_entries)
		return 0;
	r = meta_get64be(q->meta, q->rt_at + i * 8, at);
	if (r)
		return r;
	*at &= ~511ull;
	if (!*at)
		return 0;
	return *at % q->cluster || !good_place(q, *at, q->cluster) ? -EIO : 0;
}

static int
get_refcount(struct qcow *q, uint64_t block, uint64_t cluster, uint64_t *count)
{
	uint64_t bit = cluster % per_block(q) << q->refcount_order, width = 1ull << q->refcount_order;
	uint8_t v[8] = { 0 };
	int r = meta_get(q->meta, block + bit / 8, v, MAX(width / 8, 1));

	*count = 0;
	if (width < 8)
		*count = v[0] >> bit % 8 & ((1u << width) - 1);
	for (unsigned i = 0; i < width / 8; i++)
		*count = *count << 8 | v[i];
	return r;
}

static int
set_refcount(struct qcow *q, uint64_t block, uint64_t cluster, uint64_t count)
{
	uint64_t bit = cluster % per_block(q) << q->refcount_order, width = 1ull << q->refcount_order;
	uint8_t v[8] = { 0 };
	int r = width < 8 ? meta_get(q->meta, block + bit / 8, v, 1) : 0;

	if (r)
		return r;
	if (width < 8) {
		unsigned mask = ((1u << width) - 1) << bit % 8;

		v[0] = (uint8_t)((v[0] & ~mask) | (count << bit % 8 & mask));
	}
	for (uint64_t i = width / 8; i > 0; i--, count >>= 8)
		v[i - 1] = (uint8_t)count;
	return meta_put(q->meta, block + bit / 8, v, MAX(width / 8, 1), PHASE_REFCOUNTS);
}

/* The file has room up to `end`, reading as zeroes. */
static int
grow_file(struct image *b, struct qcow *q, uint64_t end)
{
	uint64_t step = MAX(GROW_MIN, MIN(q->file_end / 16, GROW_MAX) / GROW_MIN * GROW_MIN);
	uint64_t to = (end + step - 1) / step * step;

	if (end <= q->file_end)
		return 0;
	/* Near the end of a full disk, or of a limit, the last few clusters are had one by one. */
	if (ftruncate(b->fd, (off_t)to)) {
		to = end;
		if (ftruncate(b->fd, (off_t)to))
			return -errno;
	}
	q->file_end = to;
	return 0;
}

/* A new refcount block at cluster `at`, for the clusters of table entry `i`; it is in the table at `rt`. */
static int
enter_block(struct qcow *q, uint64_t rt, uint64_t i, uint64_t at)
{
	int r = meta_clear(q->meta, at * q->cluster, q->cluster, PHASE_REFCOUNTS);

	return r ? r : meta_put64be(q->meta, rt + i * 8, at * q->cluster, PHASE_REFTABLE);
}

static int drop_later(struct qcow *q, uint64_t at, uint64_t len);

/*
 * A refcount table of twice the size behind everything the old one covers: `n` clusters of table, then the `k` blocks
 * that count them and themselves.
 */
static int
grow_table(struct image *b, struct qcow *q)
{
	uint64_t old_at = q->rt_at, old_len = q->rt_entries * 8, n = old_len * 2 / q->cluster, k = 0;
	uint64_t first = q->rt_entries, start = first * per_block(q), rt = start * q->cluster;
	int r = 0;

	if (n * q->cluster > RT_BYTES_MAX)
		return -EFBIG;
	while (k * per_block(q) < n + k)
		k++;
	if (old_len + k * 8 > n * q->cluster || start >= INT64_MAX / q->cluster)
		return -EFBIG;
	r = grow_file(b, q, (start + n + k) * q->cluster);
	if (!r)
		r = meta_clear(q->meta, rt, n * q->cluster, PHASE_REFTABLE);
	for (uint64_t i = 0; i < first && !r; i++) {
		uint64_t at;

		r = meta_get64be(q->meta, old_at + i * 8, &at);
		if (!r && at)
			r = meta_put64be(q->meta, rt + i * 8, at, PHASE_REFTABLE);
	}
	for (uint64_t i = 0; i < k && !r; i++)
		r = enter_block(q, rt, first + i, start + n + i);
	for (uint64_t c = start; c < start + n + k && !r; c++)
		r = set_refcount(q, (start + n + (c - start) / per_block(q)) * q->cluster, c, 1);
	if (!r)
		r = meta_put64be(q->meta, AT_RT, rt, PHASE_HEADER);
	if (!r) {
		uint8_t clusters[4];

		put_be32(clusters, (uint32_t)n);
		r = meta_put(q->meta, AT_RT_CLUSTERS, clusters, 4, PHASE_HEADER);
	}
	if (r)
		return r;
	q->rt_at = rt;
	q->rt_entries = n * q->cluster / 8;
	q->fresh = MAX(q->fresh, start + n + k);
	return drop_later(q, old_at, old_len);
}

/* Look for a free cluster from `first_free` on. *block: the refcount block that counts it. */
static int
find_free(struct image *b, struct qcow *q, uint64_t *cluster, uint64_t *block)
{
	for (uint64_t c = q->first_free;; c++) {
		uint64_t count = 1;
		int r;

		if (c >= q->rt_entries * per_block(q) && (r = grow_table(b, q)))
			return r;
		r = find_block(q, c, block);
		if (r)
			return r;
		if (!*block) {
			/* Nothing counts this one and those behind it: it becomes their refcount block itself. */
			r = grow_file(b, q, (c + 1) * q->cluster);
			if (!r && !good_place(q, c * q->cluster, q->cluster))
				r = -EIO; /* not even the file's own tables are counted */
			if (!r)
				r = enter_block(q, q->rt_at, c / per_block(q), c);
			if (!r)
				r = set_refcount(q, c * q->cluster, c, 1);
			if (r)
				return r;
			q->fresh = MAX(q->fresh, c + 1);
			continue;
		}
		r = get_refcount(q, *block, c, &count);
		if (r)
			return r;
		if (count == 0 && c > 0) {
			*cluster = c;
			return 0;
		}
	}
}

/* A cluster of the file that reads as zeroes, counted once. */
static int
allocate(struct image *b, struct qcow *q, uint64_t *at)
{
	uint64_t c, block;
	int r = find_free(b, q, &c, &block);

	if (r)
		return r;
	*at = c * q->cluster;
	if (c < q->fresh && *at < q->file_end)
		r = file_zero(b->fd, *at, MIN(q->cluster, q->file_end - *at));
	if (!r)
		r = grow_file(b, q, *at + q->cluster);
	if (!r && !good_place(q, *at, q->cluster))
		r = -EIO; /* the refcounts say that a table is free */
	if (!r)
		r = set_refcount(q, block, c, 1);
	if (r)
		return r;
	q->first_free = c + 1;
	q->fresh = MAX(q->fresh, c + 1);
	return 0;
}

/* A place for the cluster of the disk at `off`, which may hold anything when it is in a data file. */
static int
allocate_data(struct image *b, struct qcow *q, uint64_t off, uint64_t *at)
{
	if (!q->external)
		return allocate(b, q, at);
	*at = off - off % q->cluster;
	return 0;
}

static int
drop_later(struct qcow *q, uint64_t at, uint64_t len)
{
	if (q->drop_count == q->drop_cap) {
		size_t cap = q->drop_cap * 2 + 64;
		struct drop *d = realloc(q->drops, cap * sizeof(*d));

		if (!d)
			return -ENOMEM;
		q->drops = d;
		q->drop_cap = cap;
	}
	q->drops[q->drop_count++] = (struct drop){ at, len };
	return 0;
}

/* What an L2 entry referred to is to be freed. */
static int
drop_entry(struct qcow *q, const struct place *p)
{
	unsigned shift = 62 - (q->bits - 8);
	uint64_t sectors = (p->entry >> shift & ((1ull << (q->bits - 8)) - 1)) + 1;

	if (q->external)
		return 0;
	if (p->kind == PACKED)
		return drop_later(q, p->host, sectors * 512 - p->host % 512);
	if (p->entry & OFFSET_MASK)
		return drop_later(q, p->entry & OFFSET_MASK, q->cluster);
	return 0;
}

/* One reference less to each cluster of the range. */
static int
drop_now(struct qcow *q, const struct drop *d)
{
	for (uint64_t c = d->at / q->cluster; c <= (d->at + d->len - 1) / q->cluster; c++) {
		uint64_t block, count = 0;
		int r = find_block(q, c, &block);

		if (!r && block)
			r = get_refcount(q, block, c, &count);
		if (!r && count)
			r = set_refcount(q, block, c, count - 1);
		if (r)
			return r;
		if (count == 1)
			q->first_free = MIN(q->first_free, c);
	}
	return 0;
}

/* ---- writing ---- */

/* A table without the mark "copied": who made the image forgot it, or shares the table with a snapshot it denies. */
static int
own_table(struct qcow *q, uint64_t off, uint64_t l1)
{
	uint64_t cluster = (l1 & OFFSET_MASK) >> q->bits, block, count = 0;
	int r = find_block(q, cluster, &block);

	if (!r && block)
		r = get_refcount(q, block, cluster, &count);
	if (r || count != 1)
		return r ? r : -EIO;
	return meta_put64be(q->meta, q->l1_at + (off >> q->bits) / q->l2_entries * 8, l1 | COPIED, PHASE_L1);
}

/* File offset of the L2 entry for `off`, making its table. Lock held. */
static int
need_entry(struct image *b, struct qcow *q, uint64_t off, uint64_t *at)
{
	uint64_t l1, table;
	int r = find_entry(q, off, at, &l1);

	if (r)
		return r;
	if (*at)
		return l1 & COPIED ? 0 : own_table(q, off, l1);
	r = allocate(b, q, &table);
	if (!r)
		r = meta_clear(q->meta, table, q->cluster, PHASE_L2);
	if (!r)
		r = meta_put64be(q->meta, q->l1_at + (off >> q->bits) / q->l2_entries * 8, table | COPIED, PHASE_L1);
	*at = table + (off >> q->bits) % q->l2_entries * q->entry_size;
	return r;
}

/* Does the cluster read as zeroes, with nothing to free when it gets a place? */
static bool
is_blank(const struct image *b, const struct place *p)
{
	if (b->crypt)
		return false;
	return !p->placed && (p->kind == ZERO || (p->kind == HOLE && !b->backing));
}

/* The subclusters `data` of the cluster at `host`, or with plain entries all of it, read as zeroes in the data file. */
static int
zero_data_file(struct image *b, struct qcow *q, uint64_t host, uint64_t data)
{
	int r = 0;

	for (uint64_t at = host; at < MIN(host + q->cluster, b->size) && !r; at += q->unit)
		if (q->unit == q->cluster || data >> (at - host) / q->unit & 1)
			r = file_zero(q->data_fd, at, MIN(q->unit, b->size - at));
	return r;
}

/* Give places to the blank clusters of [off, off+len). */
static int
fill_blanks(struct image *b, struct qcow *q, uint64_t off, uint64_t len)
{
	uint64_t end = off + len;
	int r = 0;

	pthread_mutex_lock(&q->lock);
	for (uint64_t next; off < end && !r; off = next) {
		struct place p;
		uint64_t at, host, data;

		next = off - off % q->cluster + q->cluster;
		r = lookup(q, off, &p);
		/* Of subclusters, those that read as zeroes become data; the others may be shown by a backing file. */
		data = b->backing ? p.bits >> 32 : ALL_DATA;
		if (r || !is_blank(b, &p))
			continue;
		r = need_entry(b, q, off, &at);
		if (!r)
			r = allocate_data(b, q, off, &host);
		if (!r && q->external)
			r = zero_data_file(b, q, host, data);
		if (!r)
			r = put_entry(q, at, host | COPIED, data);
	}
	pthread_mutex_unlock(&q->lock);
	return r;
}

/* Put `data`, a whole cluster, in a new place, and enter that instead of what was there. `cow` held. */
static int
replace_cluster(struct image *b, struct qcow *q, const struct place *old, uint64_t off, const uint8_t *data)
{
	struct iovec iov = { (uint8_t *)data, q->cluster };
	uint64_t at, host = 0;
	int r;

	pthread_mutex_lock(&q->lock);
	r = need_entry(b, q, off, &at);
	if (!r)
		r = allocate_data(b, q, off, &host);
	pthread_mutex_unlock(&q->lock);
	if (r)
		return r;
	if (q->external) /* a data file ends with the disk */
		iov.iov_len = MIN(q->cluster, b->size - host);
	r = image_data_write(b, q->data_fd, &iov, 1, 0, iov.iov_len, host, off - off % q->cluster);
	pthread_mutex_lock(&q->lock);
	if (r && !q->external) {
		drop_now(q, &(struct drop){ host, q->cluster });
	} else if (!r) {
		r = put_entry(q, at, host | COPIED, ALL_DATA);
		if (!r)
			r = drop_entry(q, old);
	}
	pthread_mutex_unlock(&q->lock);
	return r;
}

/* The bits of the subclusters that [off, off+len), within one cluster, touches. */
static uint64_t
sub_bits(const struct qcow *q, uint64_t off, uint64_t len)
{
	uint64_t first = off % q->cluster / q->unit, last = (off % q->cluster + len - 1) / q->unit;

	return (2ull << last) - (1ull << first);
}

/*
 * The subclusters that [off, off+len) touches, all of the kind of `p` and not data, become data; their cluster gets a
 * place when it has none. `buf` has room for a cluster; `cow` held.
 */
static int
fill_subclusters(struct image *b, struct qcow *q, const struct place *p, const struct iovec *iov, int iovcnt,
	uint64_t skip, uint64_t len, uint64_t off, uint8_t *buf)
{
	uint64_t from = off - off % q->unit, to = MIN((off + len + q->unit - 1) / q->unit * q->unit, b->size);
	uint64_t at, host = p->entry & OFFSET_MASK, set = sub_bits(q, off, len);
	struct iovec whole = { buf, to - from };
	struct place now;
	int r = read_range(b, q, p, from, buf, to - from);

	if (r)
		return r;
	iov_copy(iov, iovcnt, skip, buf + (off - from), len);
	pthread_mutex_lock(&q->lock);
	r = need_entry(b, q, off, &at);
	if (!r && !p->placed)
		r = allocate_data(b, q, off, &host);
	pthread_mutex_unlock(&q->lock);
	if (r)
		return r;
	r = image_data_write(b, q->data_fd, &whole, 1, 0, to - from, host + from % q->cluster, from);
	pthread_mutex_lock(&q->lock);
	if (!r)
		r = lookup(q, off, &now); /* fill_blanks() may have been here */
	if (!r && now.placed && (now.entry & OFFSET_MASK) != host)
		r = -EAGAIN;
	if (!r)
		r = put_entry(q, at, host | COPIED, (now.bits | set) & ~(set << 32));
	if (r && !p->placed && !q->external)
		drop_now(q, &(struct drop){ host, q->cluster });
	pthread_mutex_unlock(&q->lock);
	return r;
}

/* Write `len` bytes, all in one cluster whose present contents are not plain data of ours. */
static int
copy_on_write(
	struct image *b, struct qcow *q, const struct iovec *iov, int iovcnt, uint64_t skip, uint64_t len, uint64_t off)
{
	uint8_t *buf = malloc(q->cluster);
	uint64_t n = len;
	struct place p;
	int r;

	if (!buf)
		return -ENOMEM;
	pthread_mutex_lock(&q->cow);
	r = extent(q, off, &n, &p);
	if (!r && (n < len || (p.kind == DATA && p.copied) || is_blank(b, &p))) {
		r = -EAGAIN; /* another writer was faster */
	} else if (!r && q->unit < q->cluster && p.kind != PACKED && (p.copied || !p.placed)) {
		r = fill_subclusters(b, q, &p, iov, iovcnt, skip, len, off, buf);
	} else if (!r) {
		if (len < q->cluster)
			r = read_cluster(b, q, off, buf);
		if (!r) {
			iov_copy(iov, iovcnt, skip, buf + off % q->cluster, len);
			r = replace_cluster(b, q, &p, off, buf);
		}
	}
	pthread_mutex_unlock(&q->cow);
	free(buf);
	return r;
}

static int qcow_flush(struct image *b);

static int
qcow_write(struct image *b, const struct iovec *iov, int iovcnt, uint64_t skip, uint64_t off, uint64_t len)
{
	struct qcow *q = b->state;
	int r = 0;

	while (len && !r) {
		uint64_t n = len;
		struct place p;

		r = extent(q, off, &n, &p);
		if (!r && is_blank(b, &p)) {
			r = fill_blanks(b, q, off, n);
			continue; /* look again: they have places now, or the error ends the loop */
		}
		if (r)
			break;
		if (p.kind == DATA && p.copied) {
			r = image_data_write(b, q->data_fd, iov, iovcnt, skip, n, p.host, off);
		} else {
			n = MIN(n, q->cluster - off % q->cluster);
			r = copy_on_write(b, q, iov, iovcnt, skip, n, off);
			if (r == -EAGAIN) {
				r = 0;
				continue;
			}
		}
		off += n;
		skip += n;
		len -= n;
	}
	if (!r && meta_full(q->meta))
		r = qcow_flush(b);
	return r;
}

/* The whole cluster reads as zeroes from now on, without a place where that can be said. *done: it could. */
static int
mark_zero(struct image *b, struct qcow *q, uint64_t off, bool *done)
{
	struct place p;
	uint64_t at;
	int r;

	*done = q->version >= 3 || !b->backing;
	if (!*done)
		return 0;
	pthread_mutex_lock(&q->cow);
	pthread_mutex_lock(&q->lock);
	r = lookup(q, off, &p);
	if (!r && ((p.kind == DATA && p.copied) || (p.bits & ALL_DATA && p.placed && p.copied)))
		*done = false;
	if (!r && *done)
		r = need_entry(b, q, off, &at);
	if (!r && *done)
		r = put_nothing(q, at, q->version >= 3);
	if (!r && *done)
		r = drop_entry(q, &p);
	pthread_mutex_unlock(&q->lock);
	pthread_mutex_unlock(&q->cow);
	return r;
}

/* `len` bytes within one cluster, which is neither blank nor plain data of ours. */
static int
zero_within(struct image *b, struct qcow *q, uint64_t off, uint64_t len)
{
	bool done = false;
	struct iovec iov;
	int r = 0;

	if (len == q->cluster)
		r = mark_zero(b, q, off, &done);
	if (r || done)
		return r;
	iov = (struct iovec){ calloc(1, len), len };
	if (!iov.iov_base)
		return -ENOMEM;
	r = qcow_write(b, &iov, 1, 0, off, len);
	free(iov.iov_base);
	return r;
}

static int
qcow_zero(struct image *b, uint64_t off, uint64_t len)
{
	struct qcow *q = b->state;
	uint64_t done = 0;
	int r = 0;

	while (done < len && !r) {
		uint64_t n = len - done;
		struct place p;

		r = extent(q, off + done, &n, &p);
		if (r)
			break;
		if (p.kind == DATA && p.copied) {
			r = image_data_zero(b, q->data_fd, n, p.host, off + done);
		} else if (q->raw_data && (r = file_zero(q->data_fd, off + done, n))) {
			break;
		} else if (p.kind != ZERO && !(p.kind == HOLE && image_backing_is_zero(b, off + done, n))) {
			n = MIN(n, q->cluster - (off + done) % q->cluster);
			r = zero_within(b, q, off + done, n);
		}
		done += n;
		if (!r && meta_full(q->meta))
			r = qcow_flush(b);
	}
	return r;
}

/* ---- stable storage ---- */

/* What the commit that has just ended no longer refers to. */
static int
apply_drops(struct qcow *q, struct drop *drops, size_t count)
{
	int r = 0;

	pthread_mutex_lock(&q->cow);
	pthread_mutex_lock(&q->lock);
	for (size_t i = 0; i < count && !r; i++)
		r = drop_now(q, &drops[i]);
	pthread_mutex_unlock(&q->lock);
	pthread_mutex_unlock(&q->cow);
	return r;
}

static int
qcow_flush(struct image *b)
{
	struct qcow *q = b->state;
	struct drop *drops;
	size_t count;
	int r;

	/* Taken before the commit: all that replaces them is part of it. */
	pthread_mutex_lock(&q->lock);
	drops = q->drops;
	count = q->drop_count;
	q->drops = NULL;
	q->drop_count = q->drop_cap = 0;
	pthread_mutex_unlock(&q->lock);
	r = meta_commit(q->meta);
	if (count && !r) {
		r = apply_drops(q, drops, count);
		if (!r)
			r = meta_commit(q->meta);
		count = 0;
	}
	if (count) { /* not yet, then */
		pthread_mutex_lock(&q->lock);
		for (size_t i = 0; i < count && !drop_later(q, drops[i].at, drops[i].len); i++)
			;
		pthread_mutex_unlock(&q->lock);
	}
	free(drops);
	return r;
}

/* ---- changes of the header ---- */

/* Append an extension at *at of `head`, of `room` bytes. */
static int
add_extension(uint8_t *head, uint64_t room, uint64_t *at, uint32_t type, const void *data, size_t len)
{
	uint64_t padded = (len + 7) & ~7ull;

	if (room < 16 + padded || *at > room - 16 - padded)
		return -ENOSPC;
	put_be32(head + *at, type);
	put_be32(head + *at + 4, (uint32_t)len);
	memset(head + *at + 8, 0, padded);
	memcpy(head + *at + 8, data, len);
	*at += 8 + padded;
	return 0;
}

/* The extensions of `old` that are not about the backing file, nor ours. */
static int
keep_extensions(const struct qcow *q, const uint8_t *old, uint8_t *head, uint64_t room, uint64_t *to)
{
	uint64_t at = q->features_at;
	int r = 0;

	while (q->cluster - at >= 8 && !r) {
		uint32_t type = be32(old + at), len = be32(old + at + 4);

		at += 8;
		if (type == EXT_END || len > q->cluster - at)
			break;
		if (type != EXT_BACKING_FORMAT && type != EXT_TEXT)
			r = add_extension(head, room, to, type, old + at, len);
		at += MIN((len + 7ull) & ~7ull, q->cluster - at);
	}
	return r;
}

/*
 * The header's cluster with another backing file and text. In a cluster of 32 KiB or more the name goes to a page of
 * its own, not to that of the present name, and is stable before the first page says where it is.
 */
static int
rewrite_header(struct image *b, struct qcow *q, const char *name, const char *format, const char *text)
{
	uint8_t *old = malloc(q->cluster), *head = calloc(1, q->cluster);
	size_t len = name ? strlen(name) : 0;
	uint64_t at = q->features_at, page = q->cluster >= 32768 ? 8192 : 0, name_at;
	int r = old && head ? 0 : -ENOMEM;

	pthread_mutex_lock(&q->lock);
	if (!r)
		r = meta_get(q->meta, 0, old, q->cluster);
	if (!r) {
		memcpy(head, old, q->features_at);
		if (format)
			r = add_extension(
				head, page ? page : q->cluster, &at, EXT_BACKING_FORMAT, format, strlen(format));
	}
	if (!r)
		r = keep_extensions(q, old, head, page ? page : q->cluster, &at);
	if (!r && text && *text)
		r = add_extension(head, page ? page : q->cluster, &at, EXT_TEXT, text, strlen(text));
	at += 8; /* the end of the extensions is zeroes */
	name_at = !page ? at : be64(head + AT_BACKING) == page ? 2 * page : page;
	if (!r && (len > NAME_MAX_LEN || name_at > q->cluster || len > q->cluster - name_at))
		r = -ENAMETOOLONG;
	if (!r) {
		put_be64(head + AT_BACKING, len ? name_at : 0);
		put_be32(head + AT_BACKING_LEN, (uint32_t)len);
		if (!page && len)
			memcpy(head + name_at, name, len);
		if (page && len)
			r = meta_put(q->meta, name_at, name, len, PHASE_REFCOUNTS);
	}
	if (!r)
		r = meta_put(q->meta, 0, head, page ? page : q->cluster, PHASE_HEADER);
	pthread_mutex_unlock(&q->lock);
	free(old);
	free(head);
	return r ? r : qcow_flush(b);
}

static int
qcow_set_parent(struct image *b, struct image *parent, struct err *e)
{
	struct qcow *q = b->state;
	char *name = parent ? image_parent_name(b->path, parent->path) : NULL;
	const char *format = parent ? parent->format == &block_vhd ? "vpc" : parent->format->name : NULL;
	int r = rewrite_header(b, q, name, format, q->text);

	if (r) {
		free(name);
		return err_sys(e, ERR_FILE, r, "The header of '%s' cannot be written", b->path);
	}
	free(q->backing_name);
	free(q->backing_format);
	q->backing_name = name;
	q->backing_format = format ? xstrdup(format) : NULL;
	b->variant = parent ? "differencing" : "dynamic";
	return 0;
}

static int
qcow_set_text(struct image *b, const char *key, const char *value, struct err *e)
{
	struct qcow *q = b->state;
	char *text = lines_edit(q->text ? xstrdup(q->text) : NULL, key, value);
	int r = rewrite_header(b, q, q->backing_name, q->backing_format, text);

	if (r) {
		free(text);
		return err_sys(e, ERR_FILE, r, "The header of '%s' cannot be written", b->path);
	}
	free(q->text);
	q->text = text;
	return 0;
}

/* ---- another size ---- */

/* `n` clusters in a row at the end of the file; the first few tries may meet a new refcount block. */
static int
allocate_row(struct image *b, struct qcow *q, uint64_t n, uint64_t *at)
{
	for (int tries = 0; tries < 8; tries++) {
		uint64_t got = 0, next = 0;
		int r = 0;

		q->first_free = q->fresh;
		while (got < n && !r) {
			r = allocate(b, q, &next);
			if (!r && got && next != *at + got * q->cluster)
				break;
			if (!r && !got++)
				*at = next;
			else if (!r)
				got++;
		}
		if (r || got == n)
			return r;
		/* There is a gap: give back what there is, behind a commit, and try again. */
		r = drop_later(q, *at, got * q->cluster);
		if (!r)
			r = drop_later(q, next, q->cluster);
		if (r)
			return r;
	}
	return -EFBIG;
}

/* A larger L1 table at a new place. */
static int
move_l1(struct image *b, struct qcow *q, uint64_t entries)
{
	uint64_t len = entries * 8, n = (len + q->cluster - 1) / q->cluster, at = 0;
	int r;

	pthread_mutex_lock(&q->lock);
	r = allocate_row(b, q, n, &at);
	if (!r)
		r = meta_clear(q->meta, at, n * q->cluster, PHASE_REFCOUNTS);
	for (uint64_t i = 0; i < q->l1_len / 8 && !r; i++) {
		uint64_t entry;

		r = meta_get64be(q->meta, q->l1_at + i * 8, &entry);
		if (!r && entry)
			r = meta_put64be(q->meta, at + i * 8, entry, PHASE_REFCOUNTS);
	}
	if (!r)
		r = meta_put64be(q->meta, AT_L1, at, PHASE_HEADER);
	if (!r && q->l1_len)
		r = drop_later(q, q->l1_at, q->l1_len);
	if (!r) {
		q->l1_at = at;
		q->l1_len = len;
	}
	pthread_mutex_unlock(&q->lock);
	return r;
}

/* The rest of the last cluster of the L1 table: it may hold anything. */
static int
extend_l1(struct image *b, struct qcow *q, uint64_t entries)
{
	int r = 0;

	pthread_mutex_lock(&q->lock);
	for (uint64_t i = q->l1_len / 8; i < entries && !r; i++)
		r = meta_put64be(q->meta, q->l1_at + i * 8, 0, PHASE_L1);
	if (!r)
		q->l1_len = entries * 8;
	pthread_mutex_unlock(&q->lock);
	return r ? r : qcow_flush(b);
}

static int
write_size(struct qcow *q, uint64_t size)
{
	uint8_t entries[4];
	int r;

	put_be32(entries, (uint32_t)(q->l1_len / 8));
	pthread_mutex_lock(&q->lock);
	r = meta_put64be(q->meta, AT_SIZE, size, PHASE_HEADER);
	if (!r)
		r = meta_put(q->meta, AT_L1_SIZE, entries, 4, PHASE_HEADER);
	pthread_mutex_unlock(&q->lock);
	return r;
}

/* What is cut off was zero; clusters that hold the zeroes stay, for qemu-img and us, behind the end of the disk. */
static int
qcow_resize(struct image *b, uint64_t size, struct err *e)
{
	struct qcow *q = b->state;
	uint64_t covered = q->cluster * q->l2_entries, entries = (size + covered - 1) / covered, room;
	int r = qcow_flush(b);

	if (entries * 8 > L1_BYTES_MAX)
		return err_set(e, ERR_INVALID, "'%s' cannot have %llu bytes: its L1 table would be too large", b->path,
			(unsigned long long)size);
	room = (q->l1_len + q->cluster - 1) / q->cluster * q->cluster / 8;
	if (!r && entries > room)
		r = move_l1(b, q, entries);
	else if (!r && entries * 8 > q->l1_len)
		r = extend_l1(b, q, entries);
	if (!r && q->external && size > b->size && ftruncate(q->data_fd, (off_t)size))
		r = -errno;
	if (!r)
		r = write_size(q, size);
	if (!r)
		r = qcow_flush(b);
	if (!r && q->external && size < b->size && ftruncate(q->data_fd, (off_t)size))
		r = -errno;
	if (r)
		return err_sys(e, ERR_FILE, r, "'%s' cannot be resized", b->path);
	b->size = size;
	q->l1_entries = entries;
	return 0;
}

/* ---- giving space back ---- */

/* A cluster of the file and the entry that names it: of an L2 table, or of the L1 table. */
struct user {
	uint64_t host, entry_at;
	bool table;
};

struct users {
	struct user *list;
	size_t count, cap;
};

static int
add_user(struct users *u, uint64_t host, uint64_t entry_at, bool table)
{
	if (u->count == u->cap) {
		size_t cap = u->cap * 2 + 1024;
		struct user *list = realloc(u->list, cap * sizeof(*list));

		if (!list)
			return -ENOMEM;
		u->list = list;
		u->cap = cap;
	}
	u->list[u->count++] = (struct user){ host, entry_at, table };
	return 0;
}

/* Tables first, then from the end of the file to its beginning. */
static int
by_host(const void *a, const void *b)
{
	const struct user *x = a, *y = b;

	return x->host > y->host ? -1 : x->host < y->host;
}

/* One cluster of the disk: its place is dropped when it is zero. Lock not held. */
static int
drop_if_zero(struct image *b, struct qcow *q, uint64_t off, const struct place *p, uint8_t *buf)
{
	struct iovec iov = { buf, q->cluster };
	uint64_t at = 0, l1;
	int r;

	if (q->version < 3 && b->backing)
		return 0;
	r = image_data_read(b, q->data_fd, &iov, 1, 0, q->cluster, p->host, off);
	if (r || !mem_is_zero(buf, q->cluster))
		return r;
	if (q->external)
		r = file_zero(q->data_fd, p->host, MIN(q->cluster, b->size - off));
	pthread_mutex_lock(&q->lock);
	if (!r)
		r = find_entry(q, off, &at, &l1);
	if (!r && at)
		r = put_nothing(q, at, b->backing);
	if (!r && at)
		r = drop_entry(q, p);
	pthread_mutex_unlock(&q->lock);
	return r;
}

static int
drop_zeroes(struct image *b, struct qcow *q, uint8_t *buf, const struct block_progress *p)
{
	int r = 0;

	for (uint64_t off = 0, n; off < b->size && !r; off += n) {
		struct place at;

		n = b->size - off;
		r = extent(q, off, &n, &at);
		if (r || at.kind != DATA || !at.copied)
			continue;
		if (q->unit < q->cluster) { /* clusters that are data as a whole */
			uint64_t skip = (q->cluster - off % q->cluster) % q->cluster;

			if (n < skip + q->cluster)
				continue;
			off += skip;
			at.host += skip;
			n = (n - skip) / q->cluster * q->cluster;
		}
		for (uint64_t end = off + n; off < end && !r; off += q->cluster, at.host += q->cluster) {
			at.entry = at.host | COPIED;
			r = drop_if_zero(b, q, off, &at, buf);
			if (!r && meta_full(q->meta))
				r = qcow_flush(b);
			if (p && p->stopped && p->stopped(p->opaque))
				r = -EINTR;
			if (p && p->percent && off % (16 << 20) == 0)
				p->percent(p->opaque, (int)(off / 1024 * 50 / (b->size / 1024 + 1)));
		}
		n = 0;
	}
	return r ? r : qcow_flush(b);
}

/* All that can be moved: tables that are ours alone, and plain data in them. */
static int
list_users(struct qcow *q, struct users *u)
{
	int r = 0;

	for (uint64_t i = 0; i < q->l1_len / 8 && !r; i++) {
		uint64_t l1, entry, table;

		r = meta_get64be(q->meta, q->l1_at + i * 8, &l1);
		table = l1 & OFFSET_MASK;
		if (r || !table || !(l1 & COPIED) || table % q->cluster || !good_place(q, table, q->cluster))
			continue;
		r = add_user(u, table, q->l1_at + i * 8, true);
		for (uint64_t k = 0; k < q->l2_entries && !r && !q->external; k++) {
			r = meta_get64be(q->meta, table + k * q->entry_size, &entry);
			if (!r && entry & COPIED && !(entry & COMPRESSED) && entry & OFFSET_MASK)
				r = add_user(u, entry & OFFSET_MASK, table + k * q->entry_size, false);
		}
	}
	qsort(u->list, u->count, sizeof(*u->list), by_host);
	return r;
}

/* Copy the cluster of `u` to `to` and let its entry say so. Lock held. */
static int
move_cluster(struct image *b, struct qcow *q, const struct user *u, uint64_t to, uint8_t *buf)
{
	uint64_t entry;
	int r = meta_get64be(q->meta, u->entry_at, &entry);

	if (!r && u->table) {
		r = meta_get(q->meta, u->host, buf, q->cluster);
		if (!r)
			r = meta_put(q->meta, to, buf, q->cluster, PHASE_L2);
	} else if (!r) {
		r = file_pread(b->fd, buf, q->cluster, u->host);
		if (!r)
			r = file_pwrite(b->fd, buf, q->cluster, to);
	}
	if (!r)
		r = meta_put64be(q->meta, u->entry_at, (entry & ~OFFSET_MASK) | to, u->table ? PHASE_L1 : PHASE_L2);
	return r ? r : drop_later(q, u->host, q->cluster);
}

/* What is at the end of the file goes to the lowest free place, kind by kind: entries of a table that moves would too.
 */
static int
move_down(struct image *b, struct qcow *q, bool tables, uint8_t *buf, const struct block_progress *p)
{
	struct users u = { 0 };
	int r;

	pthread_mutex_lock(&q->lock);
	q->first_free = 0;
	r = list_users(q, &u);
	for (size_t i = 0; i < u.count && !r; i++) {
		uint64_t to = 0;

		if (u.list[i].table != tables)
			continue;
		r = allocate(b, q, &to);
		if (!r && to >= u.list[i].host) {
			r = drop_now(q, &(struct drop){ to, q->cluster });
			break;
		}
		if (!r)
			r = move_cluster(b, q, &u.list[i], to, buf);
		if (p && p->stopped && p->stopped(p->opaque))
			r = -EINTR;
		if (!r && meta_full(q->meta)) {
			pthread_mutex_unlock(&q->lock);
			r = qcow_flush(b);
			pthread_mutex_lock(&q->lock);
		}
	}
	pthread_mutex_unlock(&q->lock);
	free(u.list);
	if (p && p->percent)
		p->percent(p->opaque, tables ? 95 : 90);
	return r;
}

/* The file ends behind the last cluster that is counted. */
static int
cut_file(struct image *b, struct qcow *q)
{
	uint64_t c = (q->file_end + q->cluster - 1) / q->cluster, count = 0;
	int r = 0;

	pthread_mutex_lock(&q->lock);
	while (c > 1 && !r && !count) {
		uint64_t block;

		r = find_block(q, c - 1, &block);
		if (!r && block)
			r = get_refcount(q, block, c - 1, &count);
		c -= !count;
	}
	if (!r && c * q->cluster < q->file_end && ftruncate(b->fd, (off_t)(c * q->cluster)))
		r = -errno;
	if (!r) {
		q->file_end = MIN(q->file_end, c * q->cluster);
		q->fresh = c;
		q->first_free = MIN(q->first_free, c);
	}
	pthread_mutex_unlock(&q->lock);
	return r ? r : image_sync(b, b->fd);
}

static int
qcow_compact(struct image *b, const struct block_progress *p, struct err *e)
{
	struct qcow *q = b->state;
	uint8_t *buf = malloc(q->cluster);
	int r = buf ? drop_zeroes(b, q, buf, p) : -ENOMEM, f;

	if (!r)
		r = move_down(b, q, false, buf, p);
	f = qcow_flush(b);
	if (!r && !f)
		r = move_down(b, q, true, buf, p);
	f = f ? f : qcow_flush(b);
	if (!f)
		f = cut_file(b, q);
	free(buf);
	r = r ? r : f;
	return r ? err_sys(e, ERR_FILE, r, "'%s' cannot be compacted", b->path) : 0;
}

static char *
qcow_get_text(struct image *b, const char *key)
{
	struct qcow *q = b->state;

	return lines_get(q->text, key);
}

static const char *
qcow_part(struct image *b, int i)
{
	struct qcow *q = b->state;

	return q->external && i == 0 ? q->data_name : NULL;
}

static int
qcow_part_fd(struct image *b, int i)
{
	struct qcow *q = b->state;

	return q->external && i == 0 ? q->data_fd : -1;
}

static bool
qcow_dirty(struct image *b)
{
	struct qcow *q = b->state;

	return meta_dirty(q->meta);
}

/* ---- creating ---- */

/* Cluster 0: the header, its extensions, the name of the backing file. */
static int
fill_header(uint8_t *h, uint64_t cluster, const struct block_create *c, uint64_t l1_entries, struct err *e)
{
	const char *word = c->backing_format && !strcasecmp(c->backing_format, "vhd") ? "vpc" : c->backing_format;
	size_t name = c->backing ? strlen(c->backing) : 0, format = word ? strlen(word) : 0;
	uint64_t at = V3_LENGTH;

	if (name > NAME_MAX_LEN || format > 32)
		return err_set(e, ERR_INVALID, "The name of the backing file of '%s' is longer than %u bytes", c->path,
			NAME_MAX_LEN);
	put_be32(h, QCOW_MAGIC);
	put_be32(h + AT_VERSION, 3);
	put_be32(h + AT_BITS, CREATE_BITS);
	put_be64(h + AT_SIZE, c->size);
	put_be32(h + AT_L1_SIZE, (uint32_t)l1_entries);
	put_be64(h + AT_L1, 3 * cluster);
	put_be64(h + AT_RT, cluster);
	put_be32(h + AT_RT_CLUSTERS, 1);
	put_be32(h + AT_REFCOUNT_ORDER, 4);
	put_be32(h + AT_LENGTH, V3_LENGTH);
	if (!name)
		return 0;
	if (format) {
		put_be32(h + at, EXT_BACKING_FORMAT);
		put_be32(h + at + 4, (uint32_t)format);
		memcpy(h + at + 8, word, format);
		at += 8 + ((format + 7) & ~7ull);
	}
	at += 8; /* the end of the extensions is zeroes */
	put_be64(h + AT_BACKING, at);
	put_be32(h + AT_BACKING_LEN, (uint32_t)name);
	memcpy(h + at, c->backing, name);
	return 0;
}

static int
qcow_create(int fd, const struct block_create *c, struct image *parent, struct err *e)
{
	const uint64_t cluster = 1ull << CREATE_BITS, covered = cluster * (cluster / 8);
	uint64_t l1_entries = (c->size + covered - 1) / covered, l1_clusters = (l1_entries * 8 + cluster - 1) / cluster;
	uint64_t used = 3 + l1_clusters;
	uint8_t *buf, entry[8];
	int r;

	if (c->fixed)
		return err_set(e, ERR_UNSUPPORTED, "QCOW2 images cannot be created with the variant Fixed");
	if (l1_entries * 8 > L1_BYTES_MAX)
		return err_set(e, ERR_INVALID, "A QCOW2 image cannot have %llu bytes; 2 PiB is the most",
			(unsigned long long)c->size);
	buf = xcalloc(1, cluster);
	for (uint64_t i = 0; i < used; i++)
		put_be16(buf + 2 * i, 1);
	put_be64(entry, 2 * cluster);
	r = ftruncate(fd, (off_t)(used * cluster)) ? -errno : 0;
	if (!r)
		r = file_pwrite(fd, buf, cluster, 2 * cluster);
	if (!r)
		r = file_pwrite(fd, entry, 8, cluster);
	memset(buf, 0, cluster);
	if (!r && fill_header(buf, cluster, c, l1_entries, e)) {
		free(buf);
		return -1;
	}
	/* The header last: a file without it is nobody's image. */
	if (!r)
		r = file_pwrite(fd, buf, cluster, 0);
	free(buf);
	return r ? err_sys(e, ERR_FILE, r, "The QCOW2 image '%s' cannot be written", c->path) : 0;
}

const struct block_format block_qcow2 = {
	.name = "qcow2",
	.probe = qcow_probe,
	.open = qcow_open,
	.close = qcow_close,
	.read = qcow_read,
	.write = qcow_write,
	.flush = qcow_flush,
	.zero = qcow_zero,
	.map = qcow_map,
	.dirty = qcow_dirty,
	.part = qcow_part,
	.part_fd = qcow_part_fd,
	.create = qcow_create,
	.differencing = true,
	.set_parent = qcow_set_parent,
	.resize = qcow_resize,
	.compact = qcow_compact,
	.set_text = qcow_set_text,
	.get_text = qcow_get_text,
};
