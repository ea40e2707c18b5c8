/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fuzz target: what a VDI file may say. The input is a list of changes to a good image of 4 MiB, in 6-byte steps of
 * (offset, value), and a cut of its length; whatever still opens is read, written, discarded and flushed all over.
 * tools/run-fuzz builds and runs it.
 */
#include <stddef.h>
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
#define HEAD 8192u

static uint8_t good[HEAD];
static uint64_t good_size;

/* The first 8 KiB of an image with two blocks allocated: header and map. */
static void
make_good(void)
{
	char path[] = "/tmp/lodge-fuzz-vdi-XXXXXX";
	struct block_create c = { .path = path, .format = "vdi", .size = 4 * MIB };
	struct block *b;
	FILE *f;

	close(mkstemp(path));
	unlink(path);
	if (block_create(&c, NULL) || !(b = block_open(path, "vdi", 0, NULL)))
		abort();
	block_write(b, "x", 1, 0);
	block_write(b, "y", 1, 2 * MIB);
	block_close(b);
	f = fopen(path, "rb");
	if (!f || fread(good, 1, HEAD, f) != HEAD)
		abort();
	fseek(f, 0, SEEK_END);
	good_size = (uint64_t)ftell(f);
	fclose(f);
	unlink(path);
	log_set_level(LOG_ERROR);
}

static void
exercise(struct block *b)
{
	static uint8_t buf[3 * MIB / 2];
	struct block_info info;

	block_get_info(b, &info);
	for (uint64_t off = 0; off < info.size && off < 64 * MIB; off += 700 * 512) {
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

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	uint8_t head[HEAD];
	char path[64];
	struct block *b;
	int fd;

	if (!good_size)
		make_good();
	if (size < 4)
		return 0;
	memcpy(head, good, HEAD);
	fd = memfd_create("vdi", MFD_CLOEXEC);
	for (size_t i = 4; i + 6 <= size; i += 6)
		memcpy(head + le16(data + i) % (HEAD - 4), data + i + 2, 4);
	if (write(fd, head, HEAD) != HEAD ||
		ftruncate(fd, (off_t)(good_size - le32(data) % (good_size + 1) * (data[0] & 1))))
		abort();
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	b = block_open(path, data[1] & 1 ? "vdi" : NULL, data[1] & 2 ? BLOCK_RDONLY : 0, NULL);
	if (b) {
		exercise(b);
		block_close(b);
	}
	close(fd);
	return 0;
}
