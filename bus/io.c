/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Port dispatch: one byte a port names the range that owns it, so an access is one look-up. An access belongs to the
 * range of its first port as long as it fits in there (0xcf8 as a double word is the PCI address register although
 * 0xcf9 is another chip's); where it runs over the end it is taken apart into bytes.
 */
#include "bus/io.h"

#include <string.h>

/* Give every port of [base, base + count) to the youngest range that covers it. */
static void
repaint(struct io *io, uint32_t base, uint32_t count)
{
	memset(io->map + base, 0, count);
	for (uint32_t port = base; port < base + count; port++) {
		uint32_t best = 0;

		for (int i = 0; i < IO_RANGES_MAX; i++) {
			const struct io_range *r = &io->ranges[i];

			if (r->count && port >= r->base && port - r->base < r->count && r->order >= best) {
				best = r->order;
				io->map[port] = (uint8_t)(i + 1);
			}
		}
	}
}

int
io_add(struct io *io, uint16_t base, uint32_t count, const struct bus_ops *ops, void *opaque)
{
	if (!count || count > 65536u - base)
		return -1;
	for (int i = 0; i < IO_RANGES_MAX; i++) {
		struct io_range *r = &io->ranges[i];

		if (r->count)
			continue;
		*r = (struct io_range){ base, count, ops, opaque, ++io->next_order };
		memset(io->map + base, i + 1, count);
		return i;
	}
	return -1;
}

void
io_remove(struct io *io, int handle)
{
	struct io_range old;

	if (handle < 0 || handle >= IO_RANGES_MAX || !io->ranges[handle].count)
		return;
	old = io->ranges[handle];
	io->ranges[handle].count = 0;
	repaint(io, old.base, old.count);
}

/* The range that takes an access of `size` at `port` whole; NULL: nobody, or it has to be taken apart (*split). */
static const struct io_range *
find(const struct io *io, uint16_t port, unsigned size, bool *split)
{
	const struct io_range *r;

	*split = size > 1;
	if (!io->map[port])
		return NULL;
	r = &io->ranges[io->map[port] - 1];
	return size <= r->count - (uint32_t)(port - r->base) ? r : NULL;
}

uint32_t
io_read(struct io *io, uint16_t port, unsigned size)
{
	bool split;
	const struct io_range *r = find(io, port, size, &split);
	uint32_t value = 0;

	if (r)
		return (uint32_t)bus_read(r->ops, r->opaque, (uint64_t)(port - r->base), size) &
		       (0xffffffffu >> (32 - 8 * size));
	if (!split)
		return 0xff;
	for (unsigned i = 0; i < size; i++)
		value |= (io_read(io, (uint16_t)(port + i), 1) & 0xff) << (8 * i);
	return value;
}

void
io_write(struct io *io, uint16_t port, uint32_t value, unsigned size)
{
	bool split;
	const struct io_range *r = find(io, port, size, &split);

	if (r)
		bus_write(r->ops, r->opaque, (uint64_t)(port - r->base), value, size);
	else if (split)
		for (unsigned i = 0; i < size; i++)
			io_write(io, (uint16_t)(port + i), value >> (8 * i) & 0xff, 1);
}
