/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fuzz target: what a differencing image may say of its parent. The first byte chooses the format; the rest changes a
 * good child, whose parent exists, as in images.h. What opens is read, written, and pushed an overlay on.
 */
#include <fcntl.h>
#include <sys/stat.h>

#include "test/fuzz/images.h"

#define FORMATS 4

static const char *const formats[FORMATS] = { "vdi", "vmdk", "vhd", "qcow2" };
static char dir[64];
static struct {
	uint8_t *data;
	uint64_t size, places[PLACES_MAX];
	unsigned count;
} child[FORMATS];

static void
load_child(int i, const char *path)
{
	FILE *f = fopen(path, "rb");

	image_place_count = 0;
	fseek(f, 0, SEEK_END);
	image_size = (uint64_t)ftell(f);
	image_good = malloc(image_size);
	rewind(f);
	if (!image_good || fread(image_good, 1, image_size, f) != image_size)
		abort();
	fclose(f);
	image_find_places();
	child[i].data = image_good;
	child[i].size = image_size;
	child[i].count = image_place_count;
	memcpy(child[i].places, image_places, sizeof(image_places));
}

static void
tidy(void)
{
	char cmd[128];

	snprintf(cmd, sizeof(cmd), "rm -rf %s", dir);
	if (system(cmd))
		return;
}

static void
make_children(void)
{
	strcpy(dir, "/tmp/lodge-fuzz-children-XXXXXX");
	if (!mkdtemp(dir))
		abort();
	atexit(tidy);
	for (int i = 0; i < FORMATS; i++) {
		char parent[96], path[96];
		struct block_create c = { .path = parent, .format = formats[i], .size = 4 * MIB };
		struct block *b;

		snprintf(parent, sizeof(parent), "%s/parent.%s", dir, formats[i]);
		snprintf(path, sizeof(path), "%s/child.%s", dir, formats[i]);
		if (block_create(&c, NULL) || block_create_diff(parent, NULL, path, NULL, NULL, NULL))
			abort();
		b = block_open(path, NULL, 0, NULL);
		block_write(b, "x", 1, MIB);
		block_close(b);
		load_child(i, path);
	}
	log_set_level(LOG_ERROR);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	int which = size ? data[0] % FORMATS : 0, fd;
	char path[96], over[96];
	struct block *b;

	if (!dir[0])
		make_children();
	if (size < 2)
		return 0;
	snprintf(path, sizeof(path), "%s/child.%s", dir, formats[which]);
	snprintf(over, sizeof(over), "%s/over", dir);
	fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);
	if (fd < 0 || write(fd, child[which].data, child[which].size) != (ssize_t)child[which].size)
		abort();
	for (size_t i = 1; i + 6 <= size; i += 6) {
		uint64_t at = child[which].places[data[i] % child[which].count] + data[i + 1] * 2u;

		if (pwrite(fd, data + i + 2, 4, (off_t)at) != 4)
			abort();
	}
	close(fd);
	b = block_open(path, data[1] & 1 ? formats[which] : NULL, data[1] & 2 ? BLOCK_RDONLY : 0, NULL);
	if (b) {
		image_exercise(b);
		if (!(data[1] & 6) && !block_push_overlay(b, over, NULL, NULL, NULL)) {
			image_exercise(b);
			block_merge_offline(b, 0, data[1] & 8 ? BLOCK_MERGE_UP : BLOCK_MERGE_DOWN, NULL, NULL);
		}
		block_close(b);
		unlink(over);
	}
	return 0;
}
