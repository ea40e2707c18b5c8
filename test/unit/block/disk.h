/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the tests of images share: a directory `dir` that is gone afterwards, random numbers that are the same each time, and a
 * disk beside a model of it in memory: `model`, model_size bytes.
 */
#ifndef TEST_UNIT_BLOCK_DISK_H
#define TEST_UNIT_BLOCK_DISK_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/bytes.h"
#include "block/block.h"

#define MIB (1u << 20)

static char dir[64];
static uint64_t rng = 88172645463325252u, model_size;
static uint8_t *model, *scratch; /* scratch: for a read of as much, and a page */

/* ---- the directory ---- */

/* /dev/shm is in memory, for many flushes, but not on every host: then below /tmp. */
static inline int
make_dir(const char *where, const char *name)
{
	snprintf(dir, sizeof(dir), "%s/%s-XXXXXX", access(where, W_OK) ? "/tmp" : where, name);
	return mkdtemp(dir) ? 0 : -1;
}

/* Of a file in it; good until 63 others were asked for. */
static inline const char *
path(const char *fmt, ...)
{
	static char buf[64][192];
	static int i;
	va_list ap;
	int n;

	i = (i + 1) % 64;
	n = snprintf(buf[i], sizeof(buf[i]), "%s/", dir);
	va_start(ap, fmt);
	vsnprintf(buf[i] + n, sizeof(buf[i]) - (size_t)n, fmt, ap);
	va_end(ap);
	return buf[i];
}

/* A command of the shell in it; its status. */
static inline int
run(const char *fmt, ...)
{
	char cmd[1024];
	va_list ap;
	int n = snprintf(cmd, sizeof(cmd), "cd %s && ", dir);

	va_start(ap, fmt);
	vsnprintf(cmd + n, sizeof(cmd) - (size_t)n, fmt, ap);
	va_end(ap);
	return system(cmd);
}

static inline void
must_run(const char *fmt, ...)
{
	char cmd[1024];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(cmd, sizeof(cmd), fmt, ap);
	va_end(ap);
	if (run("%s", cmd))
		fail_msg("failed: %s", cmd);
}

static inline int
remove_dir(void)
{
	return run("rm -rf %s", dir);
}

/* ---- images ---- */

static inline bool
have_qemu_img(void)
{
	if (!system("qemu-img --version >/dev/null 2>&1"))
		return true;
	fprintf(stderr, "[  SKIPPED ] qemu-img is not installed\n");
	return false;
}

static inline void
need_qemu_img(void)
{
	if (!have_qemu_img())
		skip();
}

static inline struct block *
must_open_as(const char *p, const char *format, int flags)
{
	struct err e = { 0 };
	struct block *b = block_open(p, format, flags, &e);

	if (!b)
		fail_msg("%s", e.text);
	return b;
}

static inline struct block *
must_open(const char *p, int flags)
{
	return must_open_as(p, NULL, flags);
}

static inline void
must_create(const struct block_create *c)
{
	struct err e = { 0 };

	if (block_create(c, &e))
		fail_msg("%s", e.text);
}

/* The format of a parent whose name ends in .raw cannot be told from its contents. */
static inline void
must_diff(const char *parent, const char *child, const char *format)
{
	struct err e = { 0 };

	if (block_create_diff(parent, str_ends(parent, ".raw") ? "raw" : NULL, child, format, NULL, &e))
		fail_msg("%s", e.text);
}

/* ---- the model ---- */

static inline uint64_t
rnd(uint64_t below)
{
	rng ^= rng << 13;
	rng ^= rng >> 7;
	rng ^= rng << 17;
	return rng % below;
}

/* All zeroes. */
static inline void
begin_model(uint64_t size)
{
	free(model);
	free(scratch);
	model_size = size;
	model = calloc(1, size);
	scratch = malloc(size + 4096);
	assert_true(model && scratch);
}

static inline void
save_model(const char *name)
{
	FILE *f = fopen(path("%s", name), "wb");

	assert_non_null(f);
	assert_int_equal(fwrite(model, 1, model_size, f), model_size);
	assert_int_equal(fclose(f), 0);
}

/* Some of it random, some repeating (it compresses), some zero; and as a file, model.raw. */
static inline void
new_model(void)
{
	memset(model, 0, model_size);
	for (uint64_t off = 0; off < model_size; off += 512) {
		uint64_t kind = off / (64 * 1024) % 5;

		if (kind < 2)
			memset(model + off, (int)(off / 512), MIN(512, model_size - off));
		else if (kind == 2)
			for (uint64_t i = 0; i < 512; i += 8)
				put_le64(model + off + i, rnd(~0ull));
	}
	save_model("model.raw");
}

static inline void
compare(struct block *b)
{
	for (uint64_t off = 0; off < model_size; off += MIB) {
		uint64_t n = MIN(MIB, model_size - off);

		assert_int_equal(block_read(b, scratch, n, off), 0);
		for (uint64_t k = 0; memcmp(scratch, model + off, n) && k < n; k += 512)
			if (memcmp(scratch + k, model + off + k, MIN(512, n - k)))
				fail_msg("contents differ at %llu", (unsigned long long)(off + k));
	}
}

/* A read that is compared, zeroes, a flush, or mostly a write, in pieces. */
static inline void
random_op(struct block *b)
{
	uint64_t off = rnd(model_size / 512) * 512, len = (rnd(rnd(2) ? 16 : 600) + 1) * 512;
	struct iovec iov[3];

	if (rnd(12) == 0)
		len = rnd(6) * MIB + 512;
	len = MIN(len, model_size - off);
	switch (rnd(8)) {
	case 0:
		assert_int_equal(block_read(b, scratch, len, off), 0);
		assert_memory_equal(scratch, model + off, len);
		return;
	case 1:
		assert_int_equal(block_write_zeroes(b, off, len), 0);
		memset(model + off, 0, len);
		return;
	case 2:
		assert_int_equal(block_flush(b), 0);
		return;
	}
	for (uint64_t i = 0; i < len; i += 8)
		put_le64(model + off + i, rnd(~0ull));
	iov[0] = (struct iovec){ model + off, len / 3 };
	iov[1] = (struct iovec){ model + off + len / 3, 0 };
	iov[2] = (struct iovec){ model + off + len / 3, len - len / 3 };
	assert_int_equal(block_writev(b, iov, 3, off), 0);
}

static inline void
work(struct block *b, int count)
{
	for (int i = 0; i < count; i++)
		random_op(b);
}

#endif
