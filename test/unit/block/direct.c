/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Images past the host's page cache: random work at odd offsets and addresses beside a model, in every format and with
 * a parent; and that what is written is not in the page cache.
 */
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/vfs.h>

#include "test/unit/block/disk.h"

#define SIZE (6ull * MIB + 1536)
#define TMPFS 0x01021994

static char paths[2][128];

static void
make(const char *p, const char *format, bool split)
{
	must_create(&(struct block_create){ .path = p, .format = format, .size = SIZE, .split = split });
}

static void
unaligned_op(struct block *b)
{
	uint64_t off = rnd(SIZE / 512) * 512, n = (rnd(rnd(2) ? 16 : 900) + 1) * 512, len = MIN(n, SIZE - off);
	uint8_t *at = scratch + rnd(3) * (rnd(2) ? 512 : 100); /* what a guest's memory may be aligned to */
	struct iovec iov[2] = { { at, len / 1024 * 512 }, { at + len / 1024 * 512, len - len / 1024 * 512 } };

	if (rnd(8) == 0) {
		assert_int_equal(block_write_zeroes(b, off, len), 0);
		memset(model + off, 0, len);
	} else if (rnd(2)) {
		for (uint64_t i = 0; i < len; i++)
			at[i] = (uint8_t)rnd(256);
		memcpy(model + off, at, len);
		assert_int_equal(block_writev(b, iov, 2, off), 0);
	} else {
		assert_int_equal(block_readv(b, iov, 2, off), 0);
		assert_memory_equal(at, model + off, len);
	}
}

/* Pages of the file that the host has in memory. */
static uint64_t
cached_pages(const char *p)
{
	int fd = open(p, O_RDONLY);
	struct stat st;
	uint64_t n = 0, pages;
	uint8_t *map, *seen;

	assert_true(fd >= 0 && !fstat(fd, &st));
	pages = ((uint64_t)st.st_size + 4095) / 4096;
	map = mmap(NULL, pages * 4096, PROT_READ, MAP_SHARED, fd, 0);
	seen = malloc(pages);
	assert_true(map != MAP_FAILED && seen && !mincore(map, pages * 4096, seen));
	for (uint64_t i = 0; i < pages; i++)
		n += seen[i] & 1;
	munmap(map, pages * 4096);
	free(seen);
	close(fd);
	return n;
}

static void
work_on(struct block *b, const char *p, const char *format)
{
	for (int i = 0; i < 400; i++)
		unaligned_op(b);
	block_close(b);
	b = must_open_as(p, format, BLOCK_RDONLY);
	assert_int_equal(block_read(b, scratch, SIZE, 0), 0);
	assert_memory_equal(scratch, model, SIZE);
	block_close(b);
}

static void
holds_what_was_written(void **state)
{
	static const char *const formats[] = { "raw", "vdi", "vmdk", "vhd", "qcow2" };
	struct err e = { 0 };

	for (size_t i = 0; i < ARRAY_LEN(formats); i++) {
		memset(model, 0, SIZE);
		make(paths[0], formats[i], false);
		work_on(must_open_as(paths[0], formats[i], BLOCK_DIRECT), paths[0], formats[i]);
		if (i) {
			assert_int_equal(block_create_diff(paths[0], NULL, paths[1], formats[i], NULL, &e), 0);
			work_on(must_open_as(paths[1], formats[i], BLOCK_DIRECT), paths[1], formats[i]);
			assert_int_equal(block_remove(paths[1], &e), 0);
		}
		assert_int_equal(block_remove(paths[0], &e), 0);
	}
}

static void
further_files_are_direct_too(void **state)
{
	struct err e = { 0 };

	memset(model, 0, SIZE);
	make(paths[0], "vmdk", true);
	work_on(must_open_as(paths[0], NULL, BLOCK_DIRECT), paths[0], NULL);
	assert_int_equal(block_remove(paths[0], &e), 0);
}

static void
leaves_nothing_in_the_page_cache(void **state)
{
	static const char *const formats[] = { "raw", "vdi", "qcow2" };
	uint8_t *buf = aligned_alloc(4096, 4 * MIB);
	struct statfs fs;
	struct err e = { 0 };

	if (statfs(dir, &fs) || fs.f_type == TMPFS)
		skip();
	memset(buf, 0x5a, 4 * MIB);
	for (size_t i = 0; i < ARRAY_LEN(formats); i++) {
		uint64_t pages[2];

		for (int direct = 0; direct < 2; direct++) {
			struct block *b;

			make(paths[0], formats[i], false);
			b = must_open_as(paths[0], formats[i], direct ? BLOCK_DIRECT : 0);
			assert_int_equal(block_write(b, buf, 4 * MIB, 0), 0);
			assert_int_equal(block_read(b, buf, 4 * MIB, 0), 0);
			block_close(b);
			pages[direct] = cached_pages(paths[0]);
			assert_int_equal(block_remove(paths[0], &e), 0);
		}
		assert_true(pages[0] >= 1024);
		assert_true(pages[1] < 256);
	}
	free(buf);
}

/* The overlay of a snapshot goes the way of the disk it is put on. */
static void
overlays_are_direct_too(void **state)
{
	struct err e = { 0 };
	struct block *b;

	memset(model, 0, SIZE);
	make(paths[0], "vdi", false);
	b = must_open_as(paths[0], "vdi", BLOCK_DIRECT);
	for (int i = 0; i < 50; i++)
		unaligned_op(b);
	assert_int_equal(block_push_overlay(b, paths[1], NULL, NULL, &e), 0);
	work_on(b, paths[1], NULL);
	assert_int_equal(block_remove(paths[1], &e), 0);
	assert_int_equal(block_remove(paths[0], &e), 0);
}

static int
set_up(void **state)
{
	begin_model(SIZE);
	if (make_dir("/var/tmp", "lodge-direct"))
		return -1;
	snprintf(paths[0], sizeof(paths[0]), "%s/a.img", dir);
	snprintf(paths[1], sizeof(paths[1]), "%s/b.img", dir);
	return 0;
}

static int
tear_down(void **state)
{
	return remove_dir();
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(holds_what_was_written),
		cmocka_unit_test(further_files_are_direct_too),
		cmocka_unit_test(leaves_nothing_in_the_page_cache),
		cmocka_unit_test(overlays_are_direct_too),
	};

	return cmocka_run_group_tests(tests, set_up, tear_down);
}
