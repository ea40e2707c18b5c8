/* SPDX-License-Identifier: Apache-2.0 */
/*
 * iso: an optical disc as a file of 2048-byte sectors, never written.
 *
 * What makes it one is a volume descriptor in sector 16 (ECMA-119 section 8; ECMA-167 part 2 section 9):
 *
 *   offset  size  in sector 16 (byte 32768 of the file)
 *        0     1  volume descriptor type; 1 is the primary one
 *        1     5  "CD001" (ISO 9660), "BEA01" (UDF), "CDW02" (ECMA-168)
 *       80     4  ISO 9660 primary: volume space in logical blocks, little-endian (big-endian copy behind it)
 *      128     2  ISO 9660 primary: bytes a logical block, little-endian
 */
#include <errno.h>
#include <string.h>

#include "base/bytes.h"
#include "block/file.h"
#include "block/format.h"

#define ISO_SECTOR 2048u
#define ISO_DESCRIPTOR (16 * ISO_SECTOR)
/* Burning programs add up to 150 sectors behind the volume, and count them; copies of a disc often lack them. */
#define ISO_PADDING (150 * ISO_SECTOR)

static bool
iso_probe(const struct block_head *h)
{
	const uint8_t *d = h->bytes + ISO_DESCRIPTOR;

	if (h->len < ISO_DESCRIPTOR + 6)
		return false;
	return !memcmp(d + 1, "CD001", 5) || !memcmp(d + 1, "BEA01", 5) || !memcmp(d + 1, "CDW02", 5);
}

/* The file is as long as the volume in it says; otherwise a download broke off. */
static int
check_length(struct image *b, uint64_t size, struct err *e)
{
	uint8_t d[ISO_SECTOR];
	uint64_t volume;
	int r = file_pread(b->fd, d, sizeof(d), ISO_DESCRIPTOR);

	if (r)
		return err_sys(e, ERR_FILE, r, "The volume descriptor of '%s' cannot be read", b->path);
	if (d[0] != 1 || memcmp(d + 1, "CD001", 5))
		return 0;
	volume = (uint64_t)le32(d + 80) * le16(d + 128);
	if (volume > size && volume - size > ISO_PADDING)
		return err_set(e, ERR_FILE,
			"'%s' is truncated: its volume has %llu bytes, the file %llu; copy or download it again",
			b->path, (unsigned long long)volume, (unsigned long long)size);
	return 0;
}

static int
iso_open(struct image *b, struct err *e)
{
	int64_t size = file_size(b->fd);

	if (size < 0)
		return err_sys(e, ERR_FILE, (int)size, "The size of '%s' cannot be found", b->path);
	if (size == 0)
		return err_set(e, ERR_FILE, "'%s' is empty, not an image of an optical disc", b->path);
	if (check_length(b, (uint64_t)size, e))
		return -1;
	b->size = ((uint64_t)size + ISO_SECTOR - 1) & ~(uint64_t)(ISO_SECTOR - 1);
	b->variant = "fixed";
	return 0;
}

static void
iso_close(struct image *b)
{
}

static int
iso_read(struct image *b, const struct iovec *iov, int iovcnt, uint64_t skip, uint64_t off, uint64_t len)
{
	return image_data_read(b, b->fd, iov, iovcnt, skip, len, off, off);
}

static int
iso_map(struct image *b, uint64_t off, uint64_t *len, enum map_kind *kind)
{
	*kind = file_is_hole_near(&b->span, b->fd, off, len) ? MAP_ZERO : MAP_DATA;
	return 0;
}

static int
iso_flush(struct image *b)
{
	return 0;
}

const struct block_format block_iso = {
	.name = "iso",
	.read_only = true,
	.probe = iso_probe,
	.open = iso_open,
	.close = iso_close,
	.read = iso_read,
	.flush = iso_flush,
	.map = iso_map,
};
