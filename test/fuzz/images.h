/* SPDX-License-Identifier: Apache-2.0 */
/*
 * For fuzz targets of disk formats: the input is a list of changes to a good image of 4 MiB, in steps of 6 bytes
 * (offset, value), and a cut of its length; whatever still opens is read, written, discarded and flushed all over. The
 * offsets fall into the 512-byte sectors of the file that are not all zeroes: there the tables are.
 */
#ifndef TEST_FUZZ_IMAGES_H
#define TEST_FUZZ_IMAGES_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/log.h"
#include "block/block.h"

#define MIB (1u << 20)
#define PLACES_MAX 64

static uint8_t *image_good;
static uint64_t image_size, image_places[PLACES_MAX];
static unsigned image_place_count;

static void
image_find_places(void)
{
	static const uint8_t zero[512];

	for (uint64_t off = 0; off + 512 <= image_size && image_place_count < PLACES_MAX; off += 512)
		if (memcmp(image_good + off, zero, 512))
			image_places[image_place_count++] = off;
}

static void
image_make(const struct block_create *how)
{
	char path[] = "/tmp/lodge-fuzz-image-XXXXXX";
	struct block_create c = *how;
	struct block *b;
	FILE *f;

	close(mkstemp(path));
	unlink(path);
	c.path = path;
	c.size = 4 * MIB;
	if (block_create(&c, NULL) || !(b = block_open(path, c.format, 0, NULL)))
		abort();
	block_write(b, "x", 1, 0);
	block_write(b, "y", 1, 2 * MIB);
	block_close(b);
	f = fopen(path, "rb");
	fseek(f, 0, SEEK_END);
	image_size = (uint64_t)ftell(f);
	image_good = malloc(image_size);
	rewind(f);
	if (!image_good || fread(image_good, 1, image_size, f) != image_size)
		abort();
	fclose(f);
	unlink(path);
	image_find_places();
	log_set_level(LOG_ERROR);
}

static void
image_exercise(struct block *b)
{
	static uint8_t buf[3 * MIB / 2];
	struct block_info info;

	block_get_info(b, &info);
	for (uint64_t off = 0; off < info.size && off < 16 * MIB; off += 700 * 512) {
		uint64_t n = MIN(sizeof(buf), info.size - off);

		block_read(b, buf, n, off);
		block_write(b, buf, MIN(n, 4096), off);
	}
	if (info.size >= 512)
		block_write(b, buf, 512, info.size - 512);
	block_flush(b);
	block_discard(b, 0, MIN(info.size, 3 * MIB));
	block_read(b, buf, 512, info.size);
}

static int
image_fuzz(const struct block_create *how, const uint8_t *data, size_t size)
{
	char path[64];
	struct block *b;
	int fd;

	if (!image_good)
		image_make(how);
	if (size < 4)
		return 0;
	fd = memfd_create("image", MFD_CLOEXEC);
	if (write(fd, image_good, image_size) != (ssize_t)image_size)
		abort();
	for (size_t i = 4; i + 6 <= size; i += 6) {
		uint64_t at = image_places[data[i] % image_place_count] + data[i + 1] * 2u;

		if (pwrite(fd, data + i + 2, 4, (off_t)at) != 4)
			abort();
	}
	if (ftruncate(fd, (off_t)(image_size - le32(data) % (image_size + 1) * (data[0] & 1))))
		abort();
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	b = block_open(path, data[1] & 1 ? how->format : NULL, data[1] & 2 ? BLOCK_RDONLY : 0, NULL);
	if (b) {
		image_exercise(b);
		block_close(b);
	}
	close(fd);
	return 0;
}

#endif
