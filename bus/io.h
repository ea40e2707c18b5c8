/* SPDX-License-Identifier: Apache-2.0 */
/* The 64 Ki I/O ports. Later ranges cover earlier ones. Machine lock held. Unclaimed ports read all ones. */
#ifndef BUS_IO_H
#define BUS_IO_H

#include <stdint.h>

#include "bus/mem.h"

#define IO_RANGES_MAX 255

struct io_range {
	uint16_t base;
	uint32_t count; /* 0: free entry */
	const struct bus_ops *ops;
	void *opaque;
	uint32_t order;
};

struct io {
	uint8_t map[65536]; /* 0 or 1 + index into ranges */
	struct io_range ranges[IO_RANGES_MAX];
	uint32_t next_order;
};

/* Returns a handle for io_remove(), >= 0; -1 when the table is full or the range leaves the port space. */
int io_add(struct io *io, uint16_t base, uint32_t count, const struct bus_ops *ops, void *opaque);
void io_remove(struct io *io, int handle); /* negative: nothing */

uint32_t io_read(struct io *io, uint16_t port, unsigned size);
void io_write(struct io *io, uint16_t port, uint32_t value, unsigned size);

#endif
