/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vmdk: VMware's disk image (Virtual Disk Format 5.0): a text that describes the disk, and extents that hold it.
 *
 * The text has lines: createType="...", CID=xxxxxxxx, parentCID=ffffffff, an extent as
 *   RW <sectors> SPARSE|FLAT|ZERO ["<file>" [<first sector in it>]]
 * and ddb.<key> = "<value>", where VirtualBox keeps ddb.uuid.image. Supported are
 *   monolithicSparse      one sparse extent, with the text inside
 *   monolithicFlat        the text, and a flat extent
 *   twoGbMaxExtentSparse  the text, and sparse extents of 2047 MiB each; twoGbMaxExtentFlat with flat ones
 *   streamOptimized       one sparse extent with compressed grains, written once (vmdk_stream.c) and then only read
 *
 * A differencing image says parentCID (the CID of its parent when it was made, ffffffff: no parent), parentFileNameHint
 * and, as VirtualBox does, ddb.uuid.parent and ddb.uuid.parentmodification; here also ddb.lodge.parentFormat, for
 * parents of other formats.
 *
 * A sparse extent, all numbers little-endian and, where they are places or sizes, in sectors of 512 bytes:
 *
 *   offset  size
 *        0     4  "KDMV"
 *        4     4  version, 1 to 3
 *        8     4  flags: 0 end-of-line test is valid, 1 the second grain directory is, 2 grain 1 reads as zeroes,
 *                 16 grains are compressed, 17 there are markers
 *       12     8  sectors of the extent
 *       20     8  sectors of a grain
 *       28     8  the text, 0 none
 *       36     8  its sectors
 *       44     4  entries of a grain table, 512
 *       48     8  second grain directory
 *       56     8  grain directory; all ones: in the footer, a copy of the header 1024 bytes before the end
 *       64     8  sectors before the first grain
 *       72     1  not closed properly
 *       73     4  "\n \r\n", which a transfer as text would change
 *       77     2  compression: 0 none, 1 deflate
 *
 *   grain directory: 4 bytes for each grain table; grain table: 4 bytes for each grain: 0 never written, reads
 *   through to the parent, or as zeroes; 1 zeroes (flag 2). A compressed grain is 8 bytes sector of the disk, 4 bytes
 * length, a zlib stream (RFC 1950).
 *
 * Everything an entry says is bounded when it is used. Extents are opened only in the directory of the text.
 *
 * Writing: a grain gets its place at the end of the file, where it reads as zeroes, is entered in the tables in memory
 * and is then written without a lock; one that shows something else than zeroes before (of the parent) is written
 * completely, under `cow`, before it is entered. The phases of a commit (meta.h): 1 data   2 grain tables   3 grain
 * directories. After a power cut there are at worst grains at the end of the file that nobody uses. The first write
 * changes the CID. Another parent, or text of ours, goes with the whole text to the other half of its room, to which
 * the header points when that is stable, and then back to the first half, where qemu looks.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

#include "base/bytes.h"
#include "block/file.h"
#include "block/format.h"
#include "block/meta.h"
#include "block/vmdk.h"

#define SECTOR 512ull
#define TEXT_MAX (64u << 10)
#define EXTENTS_MAX 4096
#define SPLIT_SECTORS 4192256ull /* 2047 MiB */
#define GRAIN_SECTORS 128ull
#define GT_ENTRIES 512ull
#define TEXT_SECTORS 20ull
#define AT_END (~0ull)
#define HINT_MAX 1024
#define ZERO_GRAIN 1ull /* as the place of a grain: zeroes */

enum { FLAG_EOL = 1, FLAG_SECOND_GD = 2, FLAG_ZERO_GRAIN = 4, FLAG_COMPRESSED = 1 << 16, FLAG_MARKERS = 1 << 17 };
enum { PHASE_GT = 2, PHASE_GD = 3 };

enum vmdk_field {
	AT_MAGIC = 0,
	AT_VERSION = 4,
	AT_FLAGS = 8,
	AT_CAPACITY = 12,
	AT_GRAIN = 20,
	AT_TEXT = 28,
	AT_TEXT_LEN = 36,
	AT_GT_ENTRIES = 44,
	AT_SECOND_GD = 48,
	AT_GD = 56,
	AT_OVERHEAD = 64,
	AT_EOL = 73,
	AT_COMPRESSION = 77,
};

enum kind { EXTENT_FLAT, EXTENT_SPARSE, EXTENT_ZERO };

struct extent {
	enum kind kind;
	char *name; /* as the text says; NULL: the file of the image itself */
	int fd;
	uint64_t start, len; /* on the disk, bytes */
	uint64_t at;	     /* FLAT: where it begins in its file */

	/* SPARSE, in bytes */
	uint64_t grain, gt_entries, gd_at, second_gd, overhead;
	uint32_t flags;
	pthread_mutex_t lock;
	struct meta *meta;
	uint64_t file_end;
};

struct vmdk {
	struct extent *extents;
	int count;
	_Atomic bool changed;

	pthread_mutex_t cow;  /* one copy at a time; taken before the lock of an extent */
	pthread_mutex_t lock; /* everything below */
	char *text;
	uint64_t text_at, text_room; /* in the file; text_room 0: it may grow */
};

static bool
vmdk_probe(const struct block_head *h)
{
	static const char text[] = "# Disk DescriptorFile";

	if (h->len >= sizeof(text) && !memcmp(h->bytes, text, sizeof(text) - 1))
		return true;
	return h->len >= 512 && !memcmp(h->bytes, "KDMV", 4);
}

static int
bad(struct image *b, struct err *e, const char *what, uint64_t value)
{
	return err_set(
		e, ERR_FILE, "'%s' is not a good VMDK image: %s (%llu)", b->path, what, (unsigned long long)value);
}

/* ---- the text ---- */

/* The value of `key` in the text, without quotes, into out[len]; false: there is none. */
static bool
text_value(const char *text, const char *key, char *out, size_t len)
{
	size_t n = strlen(key);

	for (const char *line = text; line; line = strchr(line, '\n') ? strchr(line, '\n') + 1 : NULL) {
		const char *p = line;
		size_t end;

		if (strncmp(p, key, n))
			continue;
		p += n;
		p += strspn(p, " \t");
		if (*p++ != '=')
			continue;
		p += strspn(p, " \t\"");
		end = strcspn(p, "\"\r\n");
		snprintf(out, len, "%.*s", (int)MIN(end, len), p);
		return true;
	}
	return false;
}

/* One line of an extent: 1 it was one, 0 it was not, -1 and *e it cannot be used. */
static int
parse_extent(struct image *b, const char *line, struct extent *x, struct err *e)
{
	char access[16], kind[16], name[256] = "";
	unsigned long long sectors, at = 0;
	int n = sscanf(line, "%15s %llu %15s \"%255[^\"]\" %llu", access, &sectors, kind, name, &at);

	if (n < 3 || (strcmp(access, "RW") && strcmp(access, "RDONLY") && strcmp(access, "NOACCESS")))
		return 0;
	if (strcmp(access, "RW"))
		return err_set(
			e, ERR_UNSUPPORTED, "'%s' has an extent with the access %s; RW can be used", b->path, access);
	if (sectors == 0 || sectors > (1ull << 45) || at > (1ull << 45))
		return bad(b, e, "the size of an extent is impossible", sectors);
	*x = (struct extent){ .fd = -1, .len = sectors * SECTOR, .at = at * SECTOR };
	if (!strcmp(kind, "FLAT"))
		x->kind = EXTENT_FLAT;
	else if (!strcmp(kind, "SPARSE"))
		x->kind = EXTENT_SPARSE;
	else if (!strcmp(kind, "ZERO"))
		x->kind = EXTENT_ZERO;
	else
		return err_set(e, ERR_UNSUPPORTED,
			"'%s' has an extent of the kind %s; FLAT, SPARSE and ZERO can be used", b->path, kind);
	if (x->kind != EXTENT_ZERO && n < 4)
		return bad(b, e, "an extent has no file", sectors);
	x->name = x->kind == EXTENT_ZERO ? NULL : xstrdup(name);
	return 1;
}

static int
parse_extents(struct image *b, struct vmdk *v, struct err *e)
{
	const char *line = v->text;

	while (line && *line) {
		struct extent x;
		int r = parse_extent(b, line, &x, e);

		if (r < 0)
			return -1;
		if (r && v->count == EXTENTS_MAX) {
			free(x.name);
			return bad(b, e, "it has too many extents", EXTENTS_MAX);
		}
		if (r) {
			struct extent *more = realloc(v->extents, (size_t)(v->count + 1) * sizeof(x));

			if (!more)
				abort();
			v->extents = more;
			v->extents[v->count++] = x;
		}
		line = strchr(line, '\n');
		line += line != NULL;
	}
	return v->count ? 0 : bad(b, e, "it has no extents", 0);
}

static int
check_text(struct image *b, struct vmdk *v, struct err *e)
{
	static const char *const types[] = { "monolithicSparse", "monolithicFlat", "twoGbMaxExtentSparse",
		"twoGbMaxExtentFlat", "streamOptimized" };
	char type[40] = "", cid[16], uuid[64];
	size_t i = 0;

	text_value(v->text, "createType", type, sizeof(type));
	if (text_value(v->text, "CID", cid, sizeof(cid)))
		b->cid = (uint32_t)strtoul(cid, NULL, 16);
	while (i < ARRAY_LEN(types) && strcmp(types[i], type))
		i++;
	if (i == ARRAY_LEN(types))
		return err_set(e, ERR_UNSUPPORTED, "'%s' is a VMDK image of the type '%s', which is not supported",
			b->path, type);
	b->variant = types[i];
	if (text_value(v->text, "ddb.uuid.image", uuid, sizeof(uuid)))
		uuid_parse(uuid, &b->uuid);
	if (text_value(v->text, "ddb.uuid.modification", uuid, sizeof(uuid)))
		uuid_parse(uuid, &b->change);
	return 0;
}

static int
open_parent(struct image *b, struct vmdk *v, struct err *e)
{
	char cid[16] = "ffffffff", hint[HINT_MAX] = "", format[16] = "", uuid[64], change[64];
	struct parent_ref ref = { 0 };

	text_value(v->text, "parentCID", cid, sizeof(cid));
	if (!strcasecmp(cid, "ffffffff"))
		return 0;
	b->variant = "differencing";
	ref.cid = (uint32_t)strtoul(cid, NULL, 16);
	if (text_value(v->text, "parentFileNameHint", hint, sizeof(hint)) && *hint)
		ref.name = hint;
	if (text_value(v->text, "ddb.lodge.parentFormat", format, sizeof(format)) && *format)
		ref.format = format;
	if (text_value(v->text, "ddb.uuid.parent", uuid, sizeof(uuid)))
		uuid_parse(uuid, &ref.uuid);
	if (text_value(v->text, "ddb.uuid.parentmodification", change, sizeof(change)))
		uuid_parse(change, &ref.change);
	return image_open_parent(b, &ref, e);
}

static int
load_text(struct image *b, struct vmdk *v, uint64_t at, uint64_t len, struct err *e)
{
	int r;

	if (len == 0 || len > TEXT_MAX)
		return bad(b, e, "the length of its descriptor is impossible", len);
	v->text = xcalloc(1, len + 1);
	r = file_pread(b->fd, v->text, len, at);
	if (r)
		return err_sys(e, ERR_FILE, r, "The descriptor of '%s' cannot be read", b->path);
	v->text_at = at;
	v->text_room = at ? len : 0;
	return check_text(b, v, e);
}

/* Put `value` (NULL: nothing) behind `key` in the text. `quoted`: as all but the numbers at the beginning are. */
static void
edit_text(struct vmdk *v, const char *key, const char *value, bool quoted)
{
	const char *q = quoted ? "\"" : "", *end;
	size_t n = strlen(key);
	struct str s = { 0 };
	char *line;

	for (line = v->text; line; line = strchr(line, '\n') ? strchr(line, '\n') + 1 : NULL)
		if (!strncmp(line, key, n) && line[n + strspn(line + n, " \t")] == '=')
			break;
	/* A new line of the beginning goes behind the CID of the parent, one of the data base to the end. */
	if (!line && value && !str_starts(key, "ddb.") && (line = strstr(v->text, "\nparentCID=")))
		line = strchr(line + 1, '\n') ? strchr(line + 1, '\n') + 1 : NULL, end = line;
	else
		end = !line ? NULL : strchr(line, '\n') ? strchr(line, '\n') + 1 : line + strlen(line);
	str_addn(&s, v->text, line ? (size_t)(line - v->text) : strlen(v->text));
	if (s.len && s.s[s.len - 1] != '\n')
		str_add(&s, "\n");
	if (value)
		str_addf(&s, "%s=%s%s%s\n", key, q, value, q);
	if (end)
		str_add(&s, end);
	free(v->text);
	v->text = s.s ? s.s : xstrdup("");
}

/* The text as it is in memory goes to the file, in one piece. */
static int
write_text(struct image *b, struct vmdk *v)
{
	size_t len = strlen(v->text), room = v->text_room ? v->text_room : len;
	char *buf;
	int r;

	if (len > room || len > TEXT_MAX)
		return -ENOSPC;
	buf = calloc(1, room);
	if (!buf)
		return -ENOMEM;
	memcpy(buf, v->text, len);
	r = file_pwrite(b->fd, buf, room, v->text_at);
	free(buf);
	if (!r && !v->text_room && ftruncate(b->fd, (off_t)len))
		r = -errno;
	return r;
}

/*
 * Where else the text inside of a sparse extent can be: in the other half of the room it has. 0: there is none. A text
 * of half the room is one that was moved before.
 */
static uint64_t
other_half(const struct vmdk *v)
{
	const struct extent *x = &v->extents[0];
	uint64_t half = TEXT_SECTORS / 2 * SECTOR, tables = x->second_gd ? MIN(x->gd_at, x->second_gd) : x->gd_at;

	if (v->text_room != half && v->text_room < 2 * half)
		return 0;
	if (v->text_at == SECTOR + half && v->text_room == half)
		return SECTOR;
	return v->text_at == SECTOR && tables >= SECTOR + 2 * half ? SECTOR + half : 0;
}

/* The text is at `at` from now on, and the header, which is one sector, says so when it is stable there. */
static int
put_text(struct image *b, struct vmdk *v, uint64_t at, uint64_t room)
{
	uint64_t old_at = v->text_at, old_room = v->text_room;
	uint8_t h[SECTOR];
	int r;

	v->text_at = at;
	v->text_room = room;
	r = write_text(b, v);
	if (!r)
		r = image_sync(b, b->fd);
	if (!r)
		r = file_pread(b->fd, h, sizeof(h), 0);
	put_le64(h + AT_TEXT, at / SECTOR);
	put_le64(h + AT_TEXT_LEN, room / SECTOR);
	if (!r)
		r = file_pwrite(b->fd, h, sizeof(h), 0);
	if (!r)
		r = image_sync(b, b->fd);
	if (r) {
		v->text_at = old_at;
		v->text_room = old_room;
	}
	return r;
}

/*
 * Changed as a whole or not at all: the new text goes to the other half, and then to the first one too, since qemu
 * always looks there.
 */
static int
move_text(struct image *b, struct vmdk *v)
{
	uint64_t half = TEXT_SECTORS / 2 * SECTOR, to = other_half(v);
	int r;

	if (!to || strlen(v->text) > half)
		return write_text(b, v);
	r = put_text(b, v, to, half);
	return r || to == SECTOR ? r : put_text(b, v, SECTOR, half);
}

/* With a change of the text done by `edit`: on stable storage, or as before. */
static int
change_text(struct image *b, void (*edit)(struct image *b, struct vmdk *v, const void *what), const void *what,
	struct err *e)
{
	struct vmdk *v = b->state;
	char *before;
	int r;

	pthread_mutex_lock(&v->lock);
	before = xstrdup(v->text);
	edit(b, v, what);
	r = v->text_room ? move_text(b, v) : write_text(b, v);
	if (!r)
		r = image_sync(b, b->fd);
	if (r) {
		free(v->text);
		v->text = before;
	} else {
		free(before);
	}
	pthread_mutex_unlock(&v->lock);
	return r ? err_sys(e, ERR_FILE, r, "The descriptor of '%s' cannot be written", b->path) : 0;
}

struct text_line {
	const char *key, *value;
};

static void
edit_line(struct image *b, struct vmdk *v, const void *what)
{
	const struct text_line *l = what;

	edit_text(v, l->key, l->value, true);
}

static int
vmdk_set_text(struct image *b, const char *key, const char *value, struct err *e)
{
	char *name = xasprintf("ddb.lodge.%s", key);
	struct text_line l = { name, value };
	int r = value && strpbrk(value, "\"\n") ? err_set(e, ERR_INVALID, "A text of a VMDK image has no quotes") : 0;

	r = r ? r : change_text(b, edit_line, &l, e);
	free(name);
	return r;
}

static char *
vmdk_get_text(struct image *b, const char *key)
{
	struct vmdk *v = b->state;
	char *name = xasprintf("ddb.lodge.%s", key), *value = xcalloc(1, TEXT_MAX);
	bool found;

	pthread_mutex_lock(&v->lock);
	found = text_value(v->text, name, value, TEXT_MAX);
	pthread_mutex_unlock(&v->lock);
	free(name);
	if (found)
		return value;
	free(value);
	return NULL;
}

static void
edit_uuid(struct image *b, struct vmdk *v, const void *what)
{
	char text[37];

	uuid_text(what, text);
	edit_text(v, "ddb.uuid.image", text, true);
}

static int
vmdk_set_uuid(struct image *b, const struct uuid *uuid, struct err *e)
{
	if (change_text(b, edit_uuid, uuid, e))
		return -1;
	b->uuid = *uuid;
	return 0;
}

/* What a VMDK child knows `parent` by. A parent of another format has no CID: any number that does not mean "none". */
static uint32_t
parent_cid(const struct image *parent)
{
	return parent->cid ? parent->cid : le32(parent->uuid.b) & 0x7fffffff;
}

static void
edit_parent(struct image *b, struct vmdk *v, const void *what)
{
	struct image *parent = (struct image *)what;
	char *name = parent ? image_parent_name(b->path, parent->path) : NULL, cid[9] = "ffffffff", uuid[37],
	     change[37];

	if (parent) {
		snprintf(cid, sizeof(cid), "%08x", parent_cid(parent));
		uuid_text(&parent->uuid, uuid);
		uuid_text(&parent->change, change);
	}
	edit_text(v, "parentCID", cid, false);
	edit_text(v, "parentFileNameHint", name, true);
	edit_text(v, "ddb.uuid.parent", parent ? uuid : NULL, true);
	edit_text(v, "ddb.uuid.parentmodification", parent ? change : NULL, true);
	edit_text(v, "ddb.lodge.parentFormat", parent ? parent->format->name : NULL, true);
	free(name);
}

static int
vmdk_set_parent(struct image *b, struct image *parent, struct err *e)
{
	struct vmdk *v = b->state;

	if (parent && strpbrk(parent->path, "\"\n"))
		return err_set(
			e, ERR_INVALID, "The name of the parent of a VMDK image cannot have quotes or ends of lines");
	for (int i = 0; parent && i < v->count; i++)
		if (v->extents[i].kind != EXTENT_SPARSE)
			return err_set(e, ERR_UNSUPPORTED, "'%s' has a flat extent and cannot have a parent", b->path);
	if (change_text(b, edit_parent, parent, e))
		return -1;
	b->variant = parent ? "differencing" : "monolithicSparse";
	return 0;
}

/* ---- sparse extents ---- */

static int
check_sparse(struct image *b, struct extent *x, const uint8_t *h, struct err *e)
{
	uint64_t grain = le64(h + AT_GRAIN), capacity = le64(h + AT_CAPACITY), gd_len, tables;
	uint32_t version = le32(h + AT_VERSION);

	if (memcmp(h, "KDMV", 4))
		return bad(b, e, "the signature of a sparse extent is wrong", le32(h));
	if (version < 1 || version > 3)
		return bad(b, e, "the version of a sparse extent is unknown", version);
	x->flags = le32(h + AT_FLAGS);
	if (x->flags & FLAG_EOL && memcmp(h + AT_EOL, "\n \r\n", 4))
		return bad(b, e, "it was transferred as text, which destroyed it", h[AT_EOL]);
	if (grain == 0 || grain & (grain - 1) || grain > 8192)
		return bad(b, e, "the size of its grains is impossible", grain);
	if (capacity == 0 || capacity > (1ull << 45))
		return bad(b, e, "the capacity of a sparse extent is impossible", capacity);
	if (x->len && capacity * SECTOR < x->len)
		return bad(b, e, "a sparse extent is smaller than its descriptor says", capacity);
	if (x->flags & FLAG_COMPRESSED && le16(h + AT_COMPRESSION) != 1)
		return bad(b, e, "its compression is unknown", le16(h + AT_COMPRESSION));
	x->gt_entries = le32(h + AT_GT_ENTRIES);
	if (x->gt_entries == 0 || x->gt_entries > 4096 || x->gt_entries % 128)
		return bad(b, e, "the size of its grain tables is impossible", x->gt_entries);
	if (!x->len)
		x->len = capacity * SECTOR;
	x->grain = grain * SECTOR;
	tables = (capacity + grain * x->gt_entries - 1) / (grain * x->gt_entries);
	gd_len = tables * 4;
	x->gd_at = le64(h + AT_GD) * SECTOR;
	x->second_gd = x->flags & FLAG_SECOND_GD ? le64(h + AT_SECOND_GD) * SECTOR : 0;
	x->overhead = le64(h + AT_OVERHEAD) * SECTOR;
	if (le64(h + AT_GD) > x->file_end / SECTOR || x->gd_at == 0 || gd_len > x->file_end - x->gd_at)
		return bad(b, e, "the place of its grain directory is impossible", le64(h + AT_GD));
	if (le64(h + AT_SECOND_GD) > x->file_end / SECTOR && x->second_gd)
		return bad(b, e, "the place of its second grain directory is impossible", le64(h + AT_SECOND_GD));
	if (x->second_gd && gd_len > x->file_end - x->second_gd)
		return bad(b, e, "the place of its second grain directory is impossible", x->second_gd);
	return 0;
}

/* The header that counts: the footer, where the header says so. */
static int
read_sparse_header(struct image *b, struct extent *x, uint8_t h[512], struct err *e)
{
	int64_t size = file_size(x->fd);
	int r = size < 0 ? (int)size : file_pread(x->fd, h, 512, 0);

	if (!r && size < 1024)
		return bad(b, e, "a sparse extent is truncated", (uint64_t)size);
	if (!r && !memcmp(h, "KDMV", 4) && le64(h + AT_GD) == AT_END)
		r = file_pread(x->fd, h, 512, (uint64_t)size - 1024);
	if (r)
		return err_sys(e, ERR_FILE, r, "A sparse extent of '%s' cannot be read", b->path);
	x->file_end = (uint64_t)size;
	return 0;
}

static int
open_sparse(struct image *b, struct extent *x, uint8_t h[512], struct err *e)
{
	if (read_sparse_header(b, x, h, e) || check_sparse(b, x, h, e))
		return -1;
	if (x->flags & FLAG_COMPRESSED && !b->read_only)
		return err_set(e, ERR_UNSUPPORTED,
			"'%s' is a streamOptimized VMDK image, which is not made for being written to; clone it first",
			b->path);
	pthread_mutex_init(&x->lock, NULL);
	x->meta = meta_open(x->fd, 512, &x->lock, b->flags & BLOCK_UNSAFE);
	return x->meta ? 0 : err_sys(e, ERR_FAILED, ENOMEM, "'%s' cannot be opened", b->path);
}

/* ---- opening ---- */

static void
vmdk_free(struct image *b, struct vmdk *v)
{
	for (int i = 0; i < v->count; i++) {
		struct extent *x = &v->extents[i];

		if (x->meta) {
			meta_close(x->meta);
			pthread_mutex_destroy(&x->lock);
		}
		if (x->fd >= 0 && x->fd != b->fd)
			close(x->fd);
		free(x->name);
	}
	free(v->extents);
	free(v->text);
	pthread_mutex_destroy(&v->lock);
	pthread_mutex_destroy(&v->cow);
	free(v);
}

/* The image is a sparse extent with the text inside. */
static int
open_embedded(struct image *b, struct vmdk *v, struct err *e)
{
	struct extent *x = v->extents = xcalloc(1, sizeof(*x));
	uint8_t h[512];

	v->count = 1;
	x->kind = EXTENT_SPARSE;
	x->fd = b->fd;
	if (file_pread(b->fd, h, 512, 0) || le64(h + AT_TEXT) == 0 || le64(h + AT_TEXT) > TEXT_MAX ||
		le64(h + AT_TEXT_LEN) > TEXT_MAX / SECTOR)
		return bad(b, e, "the place of its descriptor is impossible", le64(h + AT_TEXT));
	if (load_text(b, v, le64(h + AT_TEXT) * SECTOR, le64(h + AT_TEXT_LEN) * SECTOR, e))
		return -1;
	if (strcmp(b->variant, "monolithicSparse") && strcmp(b->variant, "streamOptimized"))
		return err_set(
			e, ERR_UNSUPPORTED, "'%s' is one extent of a VMDK image; open the descriptor instead", b->path);
	return open_sparse(b, x, h, e);
}

static int
open_extent(struct image *b, struct extent *x, struct err *e)
{
	uint8_t h[512];
	int64_t size;

	if (x->kind == EXTENT_ZERO)
		return 0;
	x->fd = image_open_part(b, x->name, e);
	if (x->fd < 0)
		return -1;
	if (x->kind == EXTENT_SPARSE)
		return open_sparse(b, x, h, e);
	size = file_size(x->fd);
	if (size < 0 || (uint64_t)size < x->len || x->at > (uint64_t)size - x->len)
		return err_set(e, ERR_FILE, "'%s' is truncated: its extent '%s' has %lld bytes, not %llu", b->path,
			x->name, (long long)size, (unsigned long long)(x->at + x->len));
	return 0;
}

static int
open_described(struct image *b, struct vmdk *v, struct err *e)
{
	int64_t size = file_size(b->fd);

	if (load_text(b, v, 0, size < 0 ? 0 : (uint64_t)MIN(size, (int64_t)TEXT_MAX), e) || parse_extents(b, v, e))
		return -1;
	for (int i = 0; i < v->count; i++)
		if (open_extent(b, &v->extents[i], e))
			return -1;
	return 0;
}

static int
vmdk_open(struct image *b, struct err *e)
{
	struct vmdk *v = xcalloc(1, sizeof(*v));
	uint8_t magic[4];
	int r = file_pread(b->fd, magic, 4, 0);

	pthread_mutex_init(&v->lock, NULL);
	pthread_mutex_init(&v->cow, NULL);
	if (r)
		err_sys(e, ERR_FILE, r, "The header of '%s' cannot be read", b->path);
	else
		r = memcmp(magic, "KDMV", 4) ? open_described(b, v, e) : open_embedded(b, v, e);
	for (int i = 0; i < v->count && !r; i++) {
		v->extents[i].start = b->size;
		b->size += v->extents[i].len;
		if (b->size > INT64_MAX / 2)
			r = bad(b, e, "its disk is too large", b->size);
	}
	b->state = v;
	if (!r)
		r = open_parent(b, v, e);
	if (r) {
		b->state = NULL;
		vmdk_free(b, v);
		return -1;
	}
	return 0;
}

static void
vmdk_close(struct image *b)
{
	vmdk_free(b, b->state);
}

/* The extent with byte `off` of the disk; *within: where in it. */
static struct extent *
find_extent(struct vmdk *v, uint64_t off, uint64_t *within)
{
	int low = 0, high = v->count - 1;

	while (low < high) {
		int mid = (low + high + 1) / 2;

		if (v->extents[mid].start <= off)
			low = mid;
		else
			high = mid - 1;
	}
	*within = off - v->extents[low].start;
	return &v->extents[low];
}

/* ---- grains; lock held ---- */

/* File offset of the entry for the grain at `off`, in the tables of the directory at `gd`; 0 in *at: no table. */
static int
find_entry(struct extent *x, uint64_t gd, uint64_t off, uint64_t *at)
{
	uint64_t grain = off / x->grain, table;
	uint32_t sector;
	int r = meta_get32le(x->meta, gd + grain / x->gt_entries * 4, &sector);

	*at = 0;
	if (r || !sector)
		return r;
	table = sector * SECTOR;
	if (x->gt_entries * 4 > x->file_end || table > x->file_end - x->gt_entries * 4)
		return -EIO;
	*at = table + grain % x->gt_entries * 4;
	return 0;
}

/* *host: file offset of the byte `off` (of its grain, when compressed), 0: reads through, ZERO_GRAIN: zeroes. */
static int
lookup(struct extent *x, uint64_t off, uint64_t *host)
{
	uint32_t sector = 0;
	uint64_t at;
	int r = find_entry(x, x->gd_at, off, &at);

	*host = 0;
	if (!r && at)
		r = meta_get32le(x->meta, at, &sector);
	if (!r && sector == 1 && x->flags & FLAG_ZERO_GRAIN)
		*host = ZERO_GRAIN;
	if (r || !sector || *host)
		return r;
	*host = sector * SECTOR;
	if (*host < MAX(x->overhead, SECTOR) || *host >= x->file_end)
		return -EIO;
	if (!(x->flags & FLAG_COMPRESSED))
		*host += off % x->grain;
	return 0;
}

/* How far the bytes from `off` on are of one kind without a gap. Takes the lock. */
static int
grain_run(struct extent *x, uint64_t off, uint64_t *len, uint64_t *host)
{
	uint64_t n = x->grain - off % x->grain, next;
	int r;

	pthread_mutex_lock(&x->lock);
	r = lookup(x, off, host);
	while (!r && n < *len && !(x->flags & FLAG_COMPRESSED)) {
		if (lookup(x, off + n, &next) || next != (*host > ZERO_GRAIN ? *host + n : *host))
			break;
		n += x->grain;
	}
	pthread_mutex_unlock(&x->lock);
	*len = MIN(*len, n);
	return r;
}

/* A grain table, empty, at the end of the file, in the directory at `gd`. */
static int
add_table(struct extent *x, uint64_t gd, uint64_t off)
{
	uint64_t at = (x->file_end + SECTOR - 1) & ~(SECTOR - 1), len = x->gt_entries * 4;
	int r;

	if ((at + len) / SECTOR > UINT32_MAX)
		return -EFBIG;
	if (ftruncate(x->fd, (off_t)(at + len)))
		return -errno;
	x->file_end = at + len;
	r = meta_clear(x->meta, at, len, PHASE_GT);
	if (r)
		return r;
	return meta_put32le(x->meta, gd + off / x->grain / x->gt_entries * 4, (uint32_t)(at / SECTOR), PHASE_GD);
}

static int
enter(struct extent *x, uint64_t gd, uint64_t off, uint32_t sector)
{
	uint64_t at;
	int r = find_entry(x, gd, off, &at);

	if (!r && !at) {
		r = add_table(x, gd, off);
		if (!r)
			r = find_entry(x, gd, off, &at);
	}
	return r ? r : meta_put32le(x->meta, at, sector, PHASE_GT);
}

/* A place at the end of the file, reading as zeroes. */
static int
reserve_grain(struct extent *x, uint64_t *at)
{
	*at = (MAX(x->file_end, x->overhead) + x->grain - 1) & ~(x->grain - 1);
	if ((*at + x->grain) / SECTOR > UINT32_MAX)
		return -EFBIG;
	if (ftruncate(x->fd, (off_t)(*at + x->grain)))
		return -errno;
	x->file_end = *at + x->grain;
	return 0;
}

static int
enter_grain(struct extent *x, uint64_t off, uint64_t at)
{
	int r = x->second_gd ? enter(x, x->second_gd, off, (uint32_t)(at / SECTOR)) : 0;

	return r ? r : enter(x, x->gd_at, off, (uint32_t)(at / SECTOR));
}

/* Places for what has none in [off, off+len) of the extent: grains that show zeroes. */
static int
allocate(struct extent *x, uint64_t off, uint64_t len)
{
	uint64_t end = off + len, host, at;
	int r = 0;

	pthread_mutex_lock(&x->lock);
	for (off -= off % x->grain; off < end && !r; off += x->grain) {
		r = lookup(x, off, &host);
		if (r || host > ZERO_GRAIN)
			continue;
		r = reserve_grain(x, &at);
		if (!r)
			r = enter_grain(x, off, at);
	}
	pthread_mutex_unlock(&x->lock);
	return r;
}

/* ---- reading ---- */

static int
inflate_grain(const uint8_t *in, uint32_t len, uint8_t *out, uint64_t grain)
{
	z_stream z = { .next_in = (Bytef *)in, .avail_in = len, .next_out = out, .avail_out = (uInt)grain };

	if (inflateInit(&z) != Z_OK)
		return -ENOMEM;
	inflate(&z, Z_FINISH);
	inflateEnd(&z);
	/* The last grain of a disk may be short. */
	memset(out + (grain - z.avail_out), 0, z.avail_out);
	return z.avail_out == grain ? -EIO : 0;
}

static int
read_compressed(struct extent *x, const struct iovec *iov, int iovcnt, uint64_t skip, uint64_t len, uint64_t host,
	uint64_t within)
{
	uint8_t head[12], *in = NULL, *out = NULL;
	int r = file_pread(x->fd, head, sizeof(head), host);
	uint32_t size = le32(head + 8);

	if (!r && (size == 0 || size > 2 * x->grain + 4096))
		r = -EIO;
	if (!r && (!(in = malloc(size)) || !(out = malloc(x->grain))))
		r = -ENOMEM;
	if (!r)
		r = file_pread(x->fd, in, size, host + sizeof(head));
	if (!r)
		r = inflate_grain(in, size, out, x->grain);
	if (!r)
		iov_fill(iov, iovcnt, skip, out + within, len);
	free(in);
	free(out);
	return r;
}

static int
read_sparse(struct image *b, struct extent *x, const struct iovec *iov, int iovcnt, uint64_t skip, uint64_t len,
	uint64_t off)
{
	int r = 0;

	for (uint64_t n; len && !r; off += n, skip += n, len -= n) {
		uint64_t host;

		n = len;
		r = grain_run(x, off, &n, &host);
		if (r)
			break;
		if (!host)
			r = image_read_backing(b, iov, iovcnt, skip, x->start + off, n);
		else if (host == ZERO_GRAIN)
			iov_zero(iov, iovcnt, skip, n);
		else if (x->flags & FLAG_COMPRESSED)
			r = read_compressed(x, iov, iovcnt, skip, n, host, off % x->grain);
		else
			r = image_data_read(b, x->fd, iov, iovcnt, skip, n, host, x->start + off);
	}
	return r;
}

static int
vmdk_read(struct image *b, const struct iovec *iov, int iovcnt, uint64_t skip, uint64_t off, uint64_t len)
{
	int r = 0;

	for (uint64_t n; len && !r; off += n, skip += n, len -= n) {
		uint64_t within;
		struct extent *x = find_extent(b->state, off, &within);

		n = MIN(len, x->len - within);
		if (x->kind == EXTENT_ZERO)
			iov_zero(iov, iovcnt, skip, n);
		else if (x->kind == EXTENT_FLAT)
			r = image_data_read(b, x->fd, iov, iovcnt, skip, n, x->at + within, off);
		else
			r = read_sparse(b, x, iov, iovcnt, skip, n, within);
	}
	return r;
}

static int
vmdk_map(struct image *b, uint64_t off, uint64_t *len, enum map_kind *kind)
{
	uint64_t within, host;
	struct extent *x = find_extent(b->state, off, &within);
	int r = 0;

	*len = MIN(*len, x->len - within);
	*kind = x->kind == EXTENT_ZERO ? MAP_ZERO : MAP_DATA;
	host = x->at + within;
	if (x->kind == EXTENT_SPARSE) {
		r = grain_run(x, within, len, &host);
		*kind = !host ? MAP_HOLE : host == ZERO_GRAIN ? MAP_ZERO : MAP_DATA;
	}
	if (*kind == MAP_DATA && !r && !b->crypt && !(x->flags & FLAG_COMPRESSED) &&
		file_is_hole_near(&b->span, x->fd, host, len))
		*kind = MAP_ZERO;
	return r;
}

/* ---- writing ---- */

static int vmdk_flush(struct image *b);

/* Who has a child of this image sees by the CID, and VirtualBox by a UUID, that it is no longer what it was. */
static int
note_change(struct image *b, struct vmdk *v)
{
	struct uuid u;
	char text[37];
	int r;

	if (atomic_load_explicit(&v->changed, memory_order_relaxed) || b->keep_change)
		return 0;
	pthread_mutex_lock(&v->lock);
	if (atomic_load(&v->changed) || !b->cid) {
		pthread_mutex_unlock(&v->lock);
		return 0;
	}
	u = uuid_random();
	uuid_text(&u, text);
	b->cid = (le32(u.b) & 0x7fffffff) | 1;
	b->change = u;
	if (text_value(v->text, "ddb.uuid.modification", text, 0))
		edit_text(v, "ddb.uuid.modification", text, true);
	snprintf(text, sizeof(text), "%08x", b->cid);
	edit_text(v, "CID", text, false);
	r = write_text(b, v);
	if (!r)
		atomic_store(&v->changed, true);
	pthread_mutex_unlock(&v->lock);
	return r;
}

/* `data`, a whole grain, gets a place and is entered when it is there. */
static int
place_grain(struct image *b, struct extent *x, uint64_t off, uint8_t *data)
{
	struct iovec iov = { data, x->grain };
	uint64_t at = 0;
	int r;

	off -= off % x->grain;
	pthread_mutex_lock(&x->lock);
	r = reserve_grain(x, &at);
	pthread_mutex_unlock(&x->lock);
	/* Zeroes are there already. */
	if (!r && (b->crypt || !mem_is_zero(data, x->grain)))
		r = image_data_write(b, x->fd, &iov, 1, 0, x->grain, at, x->start + off);
	if (r)
		return r;
	pthread_mutex_lock(&x->lock);
	r = enter_grain(x, off, at);
	pthread_mutex_unlock(&x->lock);
	return r;
}

/* Write `len` bytes (iov NULL: zeroes) within a grain that has no place and shows something. */
static int
copy_on_write(struct image *b, struct extent *x, const struct iovec *iov, int iovcnt, uint64_t skip, uint64_t off,
	uint64_t len)
{
	struct vmdk *v = b->state;
	uint64_t host, n = len, within = off % x->grain;
	uint8_t *buf = calloc(1, x->grain);
	struct iovec whole = { buf, x->grain };
	int r;

	if (!buf)
		return -ENOMEM;
	pthread_mutex_lock(&v->cow);
	r = grain_run(x, off, &n, &host);
	if (!r && host > ZERO_GRAIN) { /* another writer was faster */
		r = iov ? image_data_write(b, x->fd, iov, iovcnt, skip, len, host, x->start + off)
			: image_data_zero(b, x->fd, len, host, x->start + off);
	} else if (!r) {
		if (len < x->grain)
			r = read_sparse(b, x, &whole, 1, 0, MIN(x->grain, x->len - (off - within)), off - within);
		if (iov)
			iov_copy(iov, iovcnt, skip, buf + within, len);
		else
			memset(buf + within, 0, len);
		if (!r)
			r = place_grain(b, x, off, buf);
	}
	pthread_mutex_unlock(&v->cow);
	free(buf);
	return r;
}

/* Do the grains around [off, off+len), all at `host`, show zeroes that are zeroes in a new place too? */
static bool
is_blank(struct image *b, struct extent *x, uint64_t host, uint64_t off, uint64_t len)
{
	uint64_t start = off - off % x->grain, end = (off + len + x->grain - 1) & ~(x->grain - 1);

	if (b->crypt)
		return false;
	return host == ZERO_GRAIN || image_backing_is_zero(b, x->start + start, MIN(end, x->len) - start);
}

static int
write_sparse(struct image *b, struct extent *x, const struct iovec *iov, int iovcnt, uint64_t skip, uint64_t len,
	uint64_t off)
{
	int r = 0;

	while (len && !r) {
		uint64_t n = len, host;

		r = grain_run(x, off, &n, &host);
		if (!r && host <= ZERO_GRAIN && is_blank(b, x, host, off, n)) {
			r = allocate(x, off, n);
			continue; /* look again: they have places now, or the error ends the loop */
		}
		if (!r && host <= ZERO_GRAIN) {
			n = MIN(n, x->grain - off % x->grain);
			r = copy_on_write(b, x, iov, iovcnt, skip, off, n);
		} else if (!r) {
			r = image_data_write(b, x->fd, iov, iovcnt, skip, n, host, x->start + off);
		}
		off += n;
		skip += n;
		len -= n;
	}
	return r;
}

static int vmdk_flush(struct image *b);

static int
vmdk_write(struct image *b, const struct iovec *iov, int iovcnt, uint64_t skip, uint64_t off, uint64_t len)
{
	int r = note_change(b, b->state);

	for (uint64_t n; len && !r; off += n, skip += n, len -= n) {
		uint64_t within;
		struct extent *x = find_extent(b->state, off, &within);

		n = MIN(len, x->len - within);
		if (x->kind == EXTENT_ZERO)
			r = -EIO;
		else if (x->kind == EXTENT_FLAT)
			r = image_data_write(b, x->fd, iov, iovcnt, skip, n, x->at + within, off);
		else
			r = write_sparse(b, x, iov, iovcnt, skip, n, within);
		if (!r && x->meta && meta_full(x->meta))
			r = vmdk_flush(b);
	}
	return r;
}

static int
zero_sparse(struct image *b, struct extent *x, uint64_t off, uint64_t len)
{
	int r = 0;

	for (uint64_t n; len && !r; off += n, len -= n) {
		uint64_t host;

		n = len;
		r = grain_run(x, off, &n, &host);
		if (r)
			break;
		if (host > ZERO_GRAIN) {
			r = image_data_zero(b, x->fd, n, host, x->start + off);
		} else if (!host && !image_backing_is_zero(b, x->start + off, n)) {
			n = MIN(n, x->grain - off % x->grain);
			r = copy_on_write(b, x, NULL, 0, 0, off, n);
		}
	}
	return r;
}

static int
vmdk_zero(struct image *b, uint64_t off, uint64_t len)
{
	int r = note_change(b, b->state);

	for (uint64_t n; len && !r; off += n, len -= n) {
		uint64_t within;
		struct extent *x = find_extent(b->state, off, &within);

		n = MIN(len, x->len - within);
		if (x->kind == EXTENT_FLAT)
			r = image_data_zero(b, x->fd, n, x->at + within, off);
		else if (x->kind == EXTENT_SPARSE)
			r = zero_sparse(b, x, within, n);
		if (!r && x->meta && meta_full(x->meta))
			r = vmdk_flush(b);
	}
	return r;
}

static int
vmdk_flush(struct image *b)
{
	struct vmdk *v = b->state;
	int r = image_sync(b, b->fd);

	for (int i = 0; i < v->count && !r; i++) {
		struct extent *x = &v->extents[i];

		if (x->meta)
			r = meta_commit(x->meta);
		else if (x->fd >= 0)
			r = image_sync(b, x->fd);
	}
	return r;
}

static bool
vmdk_dirty(struct image *b)
{
	struct vmdk *v = b->state;

	for (int i = 0; i < v->count; i++)
		if (v->extents[i].meta && meta_dirty(v->extents[i].meta))
			return true;
	return false;
}

static const char *
vmdk_part(struct image *b, int i)
{
	struct vmdk *v = b->state;

	return i < v->count ? v->extents[i].name ? v->extents[i].name : "" : NULL;
}

static int
vmdk_part_fd(struct image *b, int i)
{
	struct vmdk *v = b->state;

	return i < v->count ? v->extents[i].fd >= 0 ? v->extents[i].fd : -2 : -1;
}

/* ---- creating ---- */

static const char *
create_type(const struct block_create *c)
{
	if (c->stream)
		return "streamOptimized";
	if (c->split)
		return c->fixed ? "twoGbMaxExtentFlat" : "twoGbMaxExtentSparse";
	return c->fixed ? "monolithicFlat" : "monolithicSparse";
}

/* The file name of extent `i`, free() it; NULL: there are no more, or it is the image itself. */
static char *
extent_name(const struct block_create *c, uint64_t i)
{
	const char *slash = strrchr(c->path, '/'), *base = slash ? slash + 1 : c->path;
	int len = (int)strlen(base) - (str_ends(base, ".vmdk") ? 5 : 0);
	uint64_t sectors = c->size / SECTOR,
		 count = c->split ? (sectors + SPLIT_SECTORS - 1) / SPLIT_SECTORS : c->fixed;

	if (i >= count)
		return NULL;
	if (!c->split)
		return xasprintf("%.*s-flat.vmdk", len, base);
	return xasprintf("%.*s-%c%03u.vmdk", len, base, c->fixed ? 'f' : 's', (unsigned)i + 1);
}

static char *
path_beside(const char *path, const char *name)
{
	const char *slash = strrchr(path, '/');

	return xasprintf("%.*s%s", slash ? (int)(slash + 1 - path) : 0, path, name);
}

void
vmdk_describe(const struct block_create *c, struct image *parent, struct str *t)
{
	struct uuid u = c->uuid ? *c->uuid : uuid_random(), change = uuid_random();
	uint64_t sectors = c->size / SECTOR, left = sectors, cylinders = sectors / (16 * 63);
	const char *slash = strrchr(c->path, '/');
	char text[37], *name;

	str_addf(t, "# Disk DescriptorFile\nversion=1\nCID=%08x\nparentCID=%08x\n", (le32(change.b) & 0x7fffffff) | 1,
		parent ? parent_cid(parent) : 0xffffffff);
	name = parent ? image_parent_name(c->path, parent->path) : NULL;
	if (name)
		str_addf(t, "parentFileNameHint=\"%s\"\n", name);
	free(name);
	str_addf(t, "createType=\"%s\"\n\n", create_type(c));
	str_add(t, "# Extent description\n");
	if (!c->split && !c->fixed)
		str_addf(t, "RW %llu SPARSE \"%s\"\n", (unsigned long long)sectors, slash ? slash + 1 : c->path);
	for (uint64_t i = 0; (name = extent_name(c, i)); i++) {
		uint64_t n = c->split ? MIN(left, SPLIT_SECTORS) : left;

		str_addf(t, "RW %llu %s \"%s\"%s\n", (unsigned long long)n, c->fixed ? "FLAT" : "SPARSE", name,
			c->fixed ? " 0" : "");
		left -= n;
		free(name);
	}
	uuid_text(&u, text);
	str_addf(t,
		"\n# The Disk Data Base\n#DDB\n\nddb.virtualHWVersion = \"4\"\nddb.geometry.cylinders = \"%llu\"\n"
		"ddb.geometry.heads = \"16\"\nddb.geometry.sectors = \"63\"\nddb.adapterType = \"ide\"\n"
		"ddb.uuid.image=\"%s\"\n",
		(unsigned long long)MIN(cylinders, 16383), text);
	uuid_text(&change, text);
	str_addf(t, "ddb.uuid.modification=\"%s\"\n", text);
	if (!parent)
		return;
	uuid_text(&parent->uuid, text);
	str_addf(t, "ddb.uuid.parent=\"%s\"\n", text);
	uuid_text(&parent->change, text);
	str_addf(t, "ddb.uuid.parentmodification=\"%s\"\nddb.lodge.parentFormat=\"%s\"\n", text, parent->format->name);
}

/* One grain directory at sector `at`, its tables right behind it. */
static int
create_directory(int fd, uint64_t at, uint64_t gd_sectors, uint64_t tables)
{
	uint8_t *gd = xcalloc(gd_sectors, SECTOR);
	int r;

	for (uint64_t i = 0; i < tables; i++)
		put_le32(gd + 4 * i, (uint32_t)(at + gd_sectors + i * (GT_ENTRIES * 4 / SECTOR)));
	r = file_pwrite(fd, gd, gd_sectors * SECTOR, at * SECTOR);
	free(gd);
	return r;
}

/* A sparse extent, with `text` inside when there is one. */
static int
create_sparse(int fd, uint64_t sectors, const struct str *text)
{
	uint64_t tables = (sectors + GRAIN_SECTORS * GT_ENTRIES - 1) / (GRAIN_SECTORS * GT_ENTRIES);
	uint64_t gd_sectors = (tables * 4 + SECTOR - 1) / SECTOR,
		 half = gd_sectors + tables * (GT_ENTRIES * 4 / SECTOR);
	uint64_t first = 1 + (text ? TEXT_SECTORS : 0);
	uint64_t overhead = (first + 2 * half + GRAIN_SECTORS - 1) / GRAIN_SECTORS * GRAIN_SECTORS;
	uint8_t h[SECTOR] = "KDMV";
	int r = ftruncate(fd, (off_t)(overhead * SECTOR)) ? -errno : 0;

	put_le32(h + AT_VERSION, 1);
	put_le32(h + AT_FLAGS, FLAG_EOL | FLAG_SECOND_GD);
	put_le64(h + AT_CAPACITY, sectors);
	put_le64(h + AT_GRAIN, GRAIN_SECTORS);
	put_le64(h + AT_TEXT, text ? 1 : 0);
	put_le64(h + AT_TEXT_LEN, text ? TEXT_SECTORS : 0);
	put_le32(h + AT_GT_ENTRIES, GT_ENTRIES);
	put_le64(h + AT_SECOND_GD, first);
	put_le64(h + AT_GD, first + half);
	put_le64(h + AT_OVERHEAD, overhead);
	memcpy(h + AT_EOL, "\n \r\n", 4);
	if (!r)
		r = create_directory(fd, first, gd_sectors, tables);
	if (!r)
		r = create_directory(fd, first + half, gd_sectors, tables);
	if (!r && text)
		r = text->len > TEXT_SECTORS * SECTOR ? -ENAMETOOLONG : file_pwrite(fd, text->s, text->len, SECTOR);
	return r ? r : file_pwrite(fd, h, sizeof(h), 0);
}

void
vmdk_stream_header(uint8_t h[512], uint64_t size, uint64_t text_sectors, uint64_t overhead, uint64_t gd)
{
	memset(h, 0, SECTOR);
	memcpy(h, "KDMV", 4);
	put_le32(h + AT_VERSION, 3);
	put_le32(h + AT_FLAGS, FLAG_EOL | FLAG_COMPRESSED | FLAG_MARKERS);
	put_le64(h + AT_CAPACITY, size / SECTOR);
	put_le64(h + AT_GRAIN, GRAIN_SECTORS);
	put_le64(h + AT_TEXT, 1);
	put_le64(h + AT_TEXT_LEN, text_sectors);
	put_le32(h + AT_GT_ENTRIES, GT_ENTRIES);
	put_le64(h + AT_GD, gd);
	put_le64(h + AT_OVERHEAD, overhead);
	memcpy(h + AT_EOL, "\n \r\n", 4);
	put_le16(h + AT_COMPRESSION, 1);
}

static int
create_part(const struct block_create *c, const char *name, uint64_t sectors)
{
	char *path = path_beside(c->path, name);
	int fd = open(path, O_CREAT | O_EXCL | O_RDWR | O_CLOEXEC, 0600), r = fd < 0 ? -errno : 0;

	if (!r && c->fixed)
		r = file_reserve(fd, 0, sectors * SECTOR, c->split ? NULL : c->progress, c->opaque);
	else if (!r)
		r = create_sparse(fd, sectors, NULL);
	if (!r && fsync(fd))
		r = -errno;
	if (fd >= 0)
		close(fd);
	if (r && fd >= 0)
		unlink(path);
	free(path);
	return r;
}

/* Take away the first `count` extents. */
static void
remove_parts(const struct block_create *c, uint64_t count)
{
	char *name, *path;

	for (uint64_t i = 0; i < count && (name = extent_name(c, i)); i++) {
		path = path_beside(c->path, name);
		unlink(path);
		free(path);
		free(name);
	}
}

static void
vmdk_uncreate(const struct block_create *c)
{
	remove_parts(c, UINT64_MAX);
}

static int
vmdk_create(int fd, const struct block_create *c, struct image *parent, struct err *e)
{
	uint64_t left = c->size / SECTOR, i = 0;
	struct str text = { 0 };
	char *name;
	int r = 0;

	if (strpbrk(c->path, "\"\n") || (parent && strpbrk(parent->path, "\"\n")))
		return err_set(e, ERR_INVALID, "The name of a VMDK image cannot have quotes or ends of lines");
	if (c->stream) {
		r = vmdk_stream_write(fd, c, NULL, NULL);
		return r ? err_sys(e, ERR_FILE, r, "The VMDK image '%s' cannot be written", c->path) : 0;
	}
	if (!c->fixed && !c->split && left > UINT32_MAX / 2)
		return err_set(e, ERR_INVALID, "A VMDK image cannot have %llu bytes; 1 TiB is the most",
			(unsigned long long)c->size);
	if (c->split && left / SPLIT_SECTORS >= 999)
		return err_set(e, ERR_INVALID, "A VMDK image of extents of 2 GB cannot have %llu bytes",
			(unsigned long long)c->size);
	vmdk_describe(c, parent, &text);
	for (; !r && (name = extent_name(c, i)); i++) {
		uint64_t n = c->split ? MIN(left, SPLIT_SECTORS) : left;

		r = create_part(c, name, n);
		left -= n;
		free(name);
	}
	if (r)
		remove_parts(c, i - 1);
	else
		r = c->split || c->fixed ? file_pwrite(fd, text.s, text.len, 0)
					 : create_sparse(fd, c->size / SECTOR, &text);
	str_free(&text);
	return r ? err_sys(e, ERR_FILE, r, "The VMDK image '%s' cannot be written", c->path) : 0;
}

const struct block_format block_vmdk = {
	.name = "vmdk",
	.probe = vmdk_probe,
	.open = vmdk_open,
	.close = vmdk_close,
	.read = vmdk_read,
	.write = vmdk_write,
	.flush = vmdk_flush,
	.zero = vmdk_zero,
	.map = vmdk_map,
	.dirty = vmdk_dirty,
	.part = vmdk_part,
	.part_fd = vmdk_part_fd,
	.create = vmdk_create,
	.differencing = true,
	.set_parent = vmdk_set_parent,
	.set_uuid = vmdk_set_uuid,
	.set_text = vmdk_set_text,
	.get_text = vmdk_get_text,
	.uncreate = vmdk_uncreate,
};
