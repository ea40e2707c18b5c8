/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is done to an image as a whole, while nobody else uses it.
 */
#include <errno.h>
#include <stdlib.h>

#include "block/crypt.h"
#include "block/file.h"
#include "block/format.h"

static int
cannot(struct image *b, const char *what, struct err *e)
{
	return err_set(e, ERR_UNSUPPORTED, "'%s' is a %s image, which cannot %s", b->path, b->format->name, what);
}

/* Is there anything but zeroes from `off` on? */
static int
check_zero(struct image *b, uint64_t off, struct err *e)
{
	const uint64_t piece = 1 << 20;
	uint8_t *buf = malloc(piece);
	int r = buf ? 0 : -ENOMEM;
	bool data = false;

	for (uint64_t n; off < b->size && !r && !data; off += n) {
		struct iovec iov = { buf, 0 };
		enum map_kind kind;

		n = MIN(piece, b->size - off);
		r = image_map_all(b, off, &n, &kind);
		if (r || kind == MAP_ZERO)
			continue;
		iov.iov_len = n;
		r = b->format->read(b, &iov, 1, 0, off, n);
		data = !r && !mem_is_zero(buf, n);
	}
	free(buf);
	if (data)
		return err_set(e, ERR_INVALID,
			"'%s' cannot be made smaller: there is data behind the new end. Make the file systems in it "
			"smaller "
			"first, and write zeroes behind them",
			b->path);
	return r ? err_sys(e, ERR_FILE, r, "'%s' cannot be read", b->path) : 0;
}

int
block_resize(struct block *b, uint64_t size, struct err *e)
{
	struct image *i = b->top;

	if (!i->format->resize)
		return cannot(i, "be resized", e);
	if (size == 0 || size % 512 || size > (uint64_t)INT64_MAX / 2)
		return err_set(e, ERR_INVALID, "A disk cannot have %llu bytes; the size is a multiple of 512",
			(unsigned long long)size);
	if (size == i->size)
		return 0;
	if (size < i->size && check_zero(i, size, e))
		return -1;
	return i->format->resize(i, size, e);
}

int
block_compact(struct block *b, const struct block_progress *p, struct err *e)
{
	int r;

	if (!b->top->format->compact)
		return cannot(b->top, "be compacted", e);
	if (crypt_locked(b->top->crypt))
		return err_set(e, ERR_PASSWORD, "'%s' is encrypted, and its password was not given", b->top->path);
	r = b->top->format->compact(b->top, p, e);
	if (!r && p && p->percent)
		p->percent(p->opaque, 100);
	return r;
}

int
block_set_uuid(struct block *b, const struct uuid *uuid, struct err *e)
{
	return b->top->format->set_uuid ? b->top->format->set_uuid(b->top, uuid, e) : cannot(b->top, "have a UUID", e);
}

int
block_set_text(struct block *b, const char *key, const char *value, struct err *e)
{
	return b->top->format->set_text ? b->top->format->set_text(b->top, key, value, e)
					: cannot(b->top, "keep texts (VDI, VMDK and QCOW2 can)", e);
}

char *
block_get_text(struct block *b, const char *key)
{
	return b->top->format->get_text ? b->top->format->get_text(b->top, key) : NULL;
}

const char *
block_part(struct block *b, int i)
{
	return b->top->format->part ? b->top->format->part(b->top, i) : NULL;
}
