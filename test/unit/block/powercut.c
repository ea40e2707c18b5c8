/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Power cuts under an image.
 *
 * The calls by which an image changes its file (pwritev, ftruncate, fallocate, fdatasync) are replaced in this program
 * by ones that also write down what they did. A cut at any point of that record leaves on the disk: all that came
 * before the last fdatasync, and of what came after it any part, in any order, torn at sectors. Such files are made by
 * the thousand, and each has to open, to pass its checks, and to hold in every sector what the last flush had put there
 * or something that was written since.
 */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "block/block.h"

#define MIB (1u << 20)
#define BLOCKS 24u
#define SECTORS (BLOCKS * 2048u)
/* The model looks at a few sectors of each block only. */
#define PLACES (BLOCKS * 4u)
#define RECORDS_MAX 4000

enum kind { WRITE, TRUNCATE, PUNCH, SYNC, FLUSHED };

struct record {
	enum kind kind;
	uint64_t off, len;
	uint8_t *data;
};

static struct record records[RECORDS_MAX];
static int count;
static bool recording, have_qemu_img;
static const char *format;
static uint64_t rng = 0x9e3779b97f4a7c15u;

static uint64_t
rnd(uint64_t below)
{
	rng ^= rng << 13;
	rng ^= rng >> 7;
	rng ^= rng << 17;
	return rng % below;
}

static struct record *
record(enum kind kind, uint64_t off, uint64_t len)
{
	assert_true(count < RECORDS_MAX);
	records[count] = (struct record){ kind, off, len, NULL };
	return &records[count++];
}

/* ---- the calls, as block/file.c and block/vdi.c see them ---- */

ssize_t
pwritev(int fd, const struct iovec *iov, int iovcnt, off_t off)
{
	ssize_t n = syscall(SYS_pwritev, fd, iov, iovcnt, off, 0);
	struct record *r;
	size_t done = 0;

	if (n <= 0 || !recording)
		return n;
	r = record(WRITE, (uint64_t)off, (uint64_t)n);
	r->data = malloc((size_t)n);
	for (int i = 0; i < iovcnt && done < (size_t)n; i++) {
		size_t part = MIN(iov[i].iov_len, (size_t)n - done);

		memcpy(r->data + done, iov[i].iov_base, part);
		done += part;
	}
	return n;
}

int
ftruncate(int fd, off_t len)
{
	if (recording)
		record(TRUNCATE, (uint64_t)len, 0);
	return (int)syscall(SYS_ftruncate, fd, len);
}

int
fallocate(int fd, int mode, off_t off, off_t len)
{
	if (recording)
		record(PUNCH, (uint64_t)off, (uint64_t)len);
	return (int)syscall(SYS_fallocate, fd, mode, off, len);
}

int
fdatasync(int fd)
{
	if (recording)
		record(SYNC, 0, 0);
	return 0;
}

/* ---- making the file that a cut leaves ---- */

static void
apply(int fd, const struct record *r, bool torn)
{
	struct stat st;

	switch (r->kind) {
	case WRITE:
		for (uint64_t done = 0; done < r->len;) {
			uint64_t n = MIN(512 - (r->off + done) % 512, r->len - done);

			if (!torn || rnd(2))
				assert_int_equal(syscall(SYS_pwrite64, fd, r->data + done, n, r->off + done), n);
			done += n;
		}
		return;
	case TRUNCATE:
		/* Of two that grow the file only the first may have got there: the other order would not shrink it. */
		assert_int_equal(fstat(fd, &st), 0);
		if ((uint64_t)st.st_size < r->off)
			assert_int_equal(syscall(SYS_ftruncate, fd, r->off), 0);
		return;
	case PUNCH:
		syscall(SYS_fallocate, fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, r->off, r->len);
		return;
	case SYNC:
	case FLUSHED:
		return;
	}
}

/* Undo nothing, do a part: the records up to `sync` are done, of those up to `end` any. */
static void
cut(int fd, int from, int end)
{
	for (int i = from; i < end; i++)
		if (rnd(3))
			apply(fd, &records[i], rnd(2) == 0);
}

/* ---- the guest: numbered writes to a few sectors ---- */

struct write_log {
	int at; /* record it was finished at */
	uint32_t place;
	uint64_t value;
};

static struct write_log writes[2000];
static int write_count;

static uint64_t
sector_of(uint32_t place)
{
	static const uint64_t within[4] = { 0, 1, 1000, 2047 };

	return (place / 4) * 2048u + within[place % 4];
}

static void
guest(struct block *b)
{
	uint64_t value = 0;

	for (int i = 0; i < 260; i++) {
		uint32_t place = (uint32_t)rnd(PLACES);
		uint8_t buf[512];

		if (rnd(12) == 0) {
			assert_int_equal(block_flush(b), 0);
			record(FLUSHED, 0, 0);
			continue;
		}
		for (int k = 0; k < 512; k += 8)
			put_le64(buf + k, value + 1);
		value++;
		writes[write_count].at = count; /* from here on any part of it may be there */
		assert_int_equal(block_write(b, buf, 512, sector_of(place) * 512), 0);
		writes[write_count].place = place;
		writes[write_count++].value = value;
	}
}

/* May `place` hold `value` after a cut at record `end`, when everything before record `flushed` was flushed? */
static bool
allowed(uint32_t place, uint64_t value, int flushed, int end)
{
	uint64_t last = 0;

	for (int i = 0; i < write_count && writes[i].at < end; i++) {
		if (writes[i].place != place)
			continue;
		if (writes[i].at >= flushed && writes[i].value == value)
			return true;
		if (writes[i].at < flushed)
			last = writes[i].value;
	}
	return value == last;
}

/* At worst clusters that are counted and not used: exit status 3 of qemu-img. */
static void
check_tables(const char *path, int end)
{
	char cmd[200];
	int status;

	if (strcmp(format, "qcow2") || !have_qemu_img)
		return;
	snprintf(cmd, sizeof(cmd), "qemu-img check -q -f qcow2 %s >/dev/null 2>&1", path);
	status = system(cmd);
	if (status && WEXITSTATUS(status) != 3)
		fail_msg("after a cut at %d, qemu-img check ends with %d", end, WEXITSTATUS(status));
}

static void
check(const char *path, int flushed, int end)
{
	check_tables(path, end);

	struct err e = { 0 };
	struct block *b = block_open(path, format, 0, &e);
	uint8_t buf[512];

	if (!b)
		fail_msg("after a cut at %d: %s", end, e.text);
	for (uint32_t place = 0; place < PLACES; place++) {
		assert_int_equal(block_read(b, buf, 512, sector_of(place) * 512), 0);
		if (!allowed(place, le64(buf), flushed, end))
			fail_msg("after a cut at %d, place %u holds %llu", end, place, (unsigned long long)le64(buf));
	}
	/* It goes on working: fill all blocks, and find what was written. */
	for (uint32_t i = 0; i < BLOCKS; i++)
		assert_int_equal(block_write(b, buf, 512, (i * 2048ull + 77) * 512), 0);
	block_close(b);
	b = block_open(path, format, BLOCK_RDONLY, &e);
	if (!b)
		fail_msg("after going on from a cut at %d: %s", end, e.text);
	block_close(b);
}

static void
copy_file(const char *from, const char *to)
{
	char cmd[300];

	snprintf(cmd, sizeof(cmd), "cp --sparse=always %s %s", from, to);
	assert_int_equal(system(cmd), 0);
}

static void
power_cuts(void)
{
	char dir[] = "/tmp/lodge-cut-XXXXXX", image[64], start[64], stable[64], after[64], cmd[80];
	struct block_create c = { .path = image, .format = format, .size = BLOCKS * (uint64_t)MIB };
	int synced = 0, flushed = 0, fd;
	struct block *b;

	assert_non_null(mkdtemp(dir));
	snprintf(image, sizeof(image), "%s/image", dir);
	snprintf(start, sizeof(start), "%s/start", dir);
	snprintf(stable, sizeof(stable), "%s/stable", dir);
	snprintf(after, sizeof(after), "%s/after", dir);
	assert_int_equal(block_create(&c, NULL), 0);
	copy_file(image, stable);
	b = block_open(image, NULL, 0, NULL);
	assert_non_null(b);
	recording = true;
	guest(b);
	recording = false;
	block_close(b);
	for (int end = 0; end < count; end++) {
		if (records[end].kind == FLUSHED)
			flushed = end;
		/* Just before a SYNC returns most is in doubt. */
		for (int i = records[end].kind == SYNC ? 6 : rnd(3) == 0; i > 0; i--) {
			copy_file(stable, after);
			fd = open(after, O_RDWR);
			cut(fd, synced, end);
			close(fd);
			check(after, flushed, end);
		}
		if (records[end].kind != SYNC)
			continue;
		fd = open(stable, O_RDWR);
		for (; synced < end; synced++)
			apply(fd, &records[synced], false);
		close(fd);
	}
	for (int i = 0; i < count; i++)
		free(records[i].data);
	count = write_count = 0;
	snprintf(cmd, sizeof(cmd), "rm -rf %s", dir);
	assert_int_equal(system(cmd), 0);
}

static void
test_vdi(void **state)
{
	format = "vdi";
	power_cuts();
}

static void
test_qcow2(void **state)
{
	format = "qcow2";
	have_qemu_img = !system("qemu-img --version >/dev/null 2>&1");
	power_cuts();
}

static void
test_vmdk(void **state)
{
	format = "vmdk";
	power_cuts();
}

static void
test_vhd(void **state)
{
	format = "vhd";
	power_cuts();
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		{ "a power cut at any moment leaves a good VDI with all that was flushed", test_vdi, 0, 0, 0 },
		{ "a power cut at any moment leaves a good QCOW2 with all that was flushed", test_qcow2, 0, 0, 0 },
		{ "a power cut at any moment leaves a good VMDK with all that was flushed", test_vmdk, 0, 0, 0 },
		{ "a power cut at any moment leaves a good VHD with all that was flushed", test_vhd, 0, 0, 0 },
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
