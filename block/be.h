/* SPDX-License-Identifier: Apache-2.0 */
/* Big-endian fields of image files. Private to block/. */
#ifndef BLOCK_BE_H
#define BLOCK_BE_H

#include <stdint.h>

static inline uint16_t
be16(const void *p)
{
	const uint8_t *b = p;

	return (uint16_t)(b[0] << 8 | b[1]);
}
static inline uint32_t
be32(const void *p)
{
	return (uint32_t)be16(p) << 16 | be16((const uint8_t *)p + 2);
}
static inline uint64_t
be64(const void *p)
{
	return (uint64_t)be32(p) << 32 | be32((const uint8_t *)p + 4);
}
static inline void
put_be16(void *p, uint16_t v)
{
	uint8_t *b = p;

	b[0] = (uint8_t)(v >> 8);
	b[1] = (uint8_t)v;
}
static inline void
put_be32(void *p, uint32_t v)
{
	put_be16(p, (uint16_t)(v >> 16));
	put_be16((uint8_t *)p + 2, (uint16_t)v);
}
static inline void
put_be64(void *p, uint64_t v)
{
	put_be32(p, (uint32_t)(v >> 32));
	put_be32((uint8_t *)p + 4, (uint32_t)v);
}

#endif
