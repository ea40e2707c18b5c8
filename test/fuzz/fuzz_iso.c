/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fuzz target: what a file says that is taken for an optical disc, by whoever asks for its format or not. The input
 * changes the first three sectors of descriptors, in steps of 6 bytes (where, value), and the length of the file.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/log.h"
#include "block/block.h"

#define SECTOR 2048u
#define SIZE (32 * SECTOR)

static void
make_good(uint8_t *disc)
{
	uint8_t *d = disc + 16 * SECTOR;

	memcpy(d, "\1CD001\1", 7);
	put_le32(d + 80, SIZE / SECTOR);
	put_le16(d + 128, SECTOR);
	memcpy(d + SECTOR, "\0BEA01\1", 7);
	memcpy(d + 2 * SECTOR,
		"\xff"
		"CD001\1",
		7);
	log_set_level(LOG_ERROR);
}

static void
look(struct block *b)
{
	static uint8_t buf[8 * SECTOR];
	struct block_info info;

	block_get_info(b, &info);
	for (uint64_t off = 0; off < info.size; off += 7 * SECTOR)
		if (block_read(b, buf, MIN(sizeof(buf), info.size - off), off))
			abort(); /* no table of an ISO can lead out of the file */
	block_read(b, buf, SECTOR, info.size);
	if (!block_write(b, buf, SECTOR, 0))
		abort();
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static uint8_t disc[SIZE];
	char path[64];
	struct block *b;
	int fd;

	memset(disc, 0, SIZE);
	make_good(disc);
	for (size_t i = 4; i + 6 <= size; i += 6)
		memcpy(disc + 16 * SECTOR + le16(data + i) % (3 * SECTOR - 4), data + i + 2, 4);
	fd = memfd_create("disc", MFD_CLOEXEC);
	if (write(fd, disc, SIZE) != SIZE || (size >= 4 && data[0] & 1 && ftruncate(fd, le16(data + 1))))
		abort();
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	b = block_open(path, size && data[0] & 2 ? "iso" : NULL, BLOCK_RDONLY, NULL);
	if (b) {
		look(b);
		block_close(b);
	}
	close(fd);
	return 0;
}
