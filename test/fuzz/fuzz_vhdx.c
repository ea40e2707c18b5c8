/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fuzz target: what a VHDX file may say. The input changes a good image of 8 MiB, in steps of 6 bytes (which sector,
 * where in it, value); the checksums are put right afterwards, since nothing behind a wrong one is looked at.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/log.h"
#include "base/str.h"
#include "block/block.h"

#define KIB 1024u
#define MIB (1024u * KIB)
#define SIZE (5u * MIB)

static uint8_t good[SIZE];
static const uint32_t places[] = { 0, 64 * KIB, 192 * KIB, MIB, MIB + 64 * KIB, 2 * MIB };

static uint32_t
crc32c(const uint8_t *p, uint32_t len)
{
	uint32_t crc = ~0u;

	for (uint32_t i = 0; i < len; i++) {
		crc ^= i >= 4 && i < 8 ? 0 : p[i];
		for (int bit = 0; bit < 8; bit++)
			crc = crc >> 1 ^ (crc & 1 ? 0x82f63b78u : 0);
	}
	return ~crc;
}

static void
item(unsigned i, const char *guid, uint32_t at, uint64_t value, uint32_t len)
{
	uint8_t *m = good + MIB + 32 + 32 * i;

	memcpy(m, guid, 16);
	put_le32(m + 16, at);
	put_le32(m + 20, len);
	put_le64(good + MIB + at, value);
}

static void
region(unsigned i, const char *guid, uint32_t at)
{
	uint8_t *r = good + 192 * KIB + 16 + 32 * i;

	memcpy(r, guid, 16);
	put_le64(r + 16, at);
	put_le32(r + 24, MIB);
	put_le32(r + 28, 1);
}

static void
make_good(void)
{
	memcpy(good, "vhdxfile", 8);
	memcpy(good + 64 * KIB, "head", 4);
	put_le16(good + 64 * KIB + 66, 1);
	memcpy(good + 192 * KIB, "regi", 4);
	put_le32(good + 192 * KIB + 8, 2);
	region(0, "\x66\x77\xc2\x2d\x23\xf6\x00\x42\x9d\x64\x11\x5e\x9b\xfd\x4a\x08", 2 * MIB);
	region(1, "\x06\xa2\x7c\x8b\x90\x47\x9a\x4b\xb8\xfe\x57\x5f\x05\x0f\x88\x6e", MIB);
	memcpy(good + MIB, "metadata", 8);
	put_le16(good + MIB + 10, 3);
	item(0, "\x37\x67\xa1\xca\x36\xfa\x43\x4d\xb3\xb6\x33\xf0\xaa\x44\xe7\x6b", 64 * KIB, MIB, 8);
	item(1, "\x24\x42\xa5\x2f\x1b\xcd\x76\x48\xb2\x11\x5d\xbe\xd8\x3b\xf4\xb8", 64 * KIB + 8, 8 * MIB, 8);
	item(2, "\x1d\xbf\x41\x81\x6f\xa9\x09\x47\xba\x47\xf2\x33\xa8\xfa\xab\x5f", 64 * KIB + 16, 512, 4);
	put_le64(good + 2 * MIB, 3 * MIB | 6);
	put_le64(good + 2 * MIB + 8, 4 * MIB | 6);
	log_set_level(LOG_ERROR);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static uint8_t image[SIZE], buf[MIB];
	struct block_info info;
	char path[64];
	struct block *b;
	int fd;

	if (!good[0])
		make_good();
	memcpy(image, good, SIZE);
	for (size_t i = 0; i + 6 <= size; i += 6)
		memcpy(image + places[data[i] % ARRAY_LEN(places)] + data[i + 1] * 2u, data + i + 2, 4);
	put_le32(image + 64 * KIB + 4, crc32c(image + 64 * KIB, 4096));
	put_le32(image + 192 * KIB + 4, crc32c(image + 192 * KIB, 64 * KIB));
	fd = memfd_create("vhdx", MFD_CLOEXEC);
	if (write(fd, image, SIZE) != SIZE || (size && data[0] & 1 && ftruncate(fd, SIZE - size * KIB)))
		abort();
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	b = block_open(path, "vhdx", BLOCK_RDONLY, NULL);
	if (b) {
		block_get_info(b, &info);
		for (uint64_t off = 0; off < info.size && off < 64ull * MIB; off += 700 * KIB)
			block_read(b, buf, MIN(sizeof(buf), info.size - off), off);
		block_read(b, buf, 512, info.size - 512);
		block_close(b);
	}
	close(fd);
	return 0;
}
