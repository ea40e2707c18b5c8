/* SPDX-License-Identifier: Apache-2.0 */
/* What the two files of the VMDK format share. Private to block/. */
#ifndef BLOCK_VMDK_H
#define BLOCK_VMDK_H

#include <stdint.h>

#include "base/str.h"
#include "block/block.h"

struct image;

/* The descriptor of a new image. */
void vmdk_describe(const struct block_create *c, struct image *parent, struct str *t);
/* The header of a stream: of `size` bytes, text at sector 1, grains from sector `overhead` on, the directory at `gd`.
 */
void vmdk_stream_header(uint8_t h[512], uint64_t size, uint64_t text_sectors, uint64_t overhead, uint64_t gd);
/* All of `from` (NULL: a disk of zeroes of c->size) as a streamOptimized image into the empty file. 0 or -errno. */
int vmdk_stream_write(int fd, const struct block_create *c, struct image *from, const struct block_progress *p);

#endif
