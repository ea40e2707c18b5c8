/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Power cuts under an image.
 *
 * The calls by which an image changes its file (pwritev, ftruncate, fallocate, fdatasync) are replaced in this program
 * by ones that also write down what they did. A cut at any point of that record leaves on the disk: all that came
 * before the last fdatasync, and of what came after it any part, in any order, torn at sectors. Such files are made by
 * the thousand, and each has to open, to pass its checks, and to hold in every sector what the last flush had put there
 * or something that was written since. An image may have its data in a second file: each is stable as far as its own last
 * fdatasync.
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

#include "base/bytes.h"
#include "block/block.h"

#define MIB (1u << 20)
#define BLOCKS 24u
#define SECTORS (BLOCKS * 2048u)
/* The model looks at a few sectors of each block only. */
#define PLACES (BLOCKS * 4u)
#define RECORDS_MAX 8000
#define CUT_DIR "/dev/shm/lodge-cut-XXXXXX" /* in memory: thousands of files */

enum kind { WRITE, TRUNCATE, PUNCH, SYNC, FLUSHED };

struct record {
	enum kind kind;
	int file; /* 0: the image, 1: its data */
	uint64_t off, len;
	uint8_t *data;
};

static struct record records[RECORDS_MAX];
static int count;
static bool recording, have_qemu_img;
static const char *format;
/* Of an image that qemu-img makes, because block_create() does not; NULL: block_create() makes it. */
static const char *options;
static ino_t data_inode; /* 0: there is no data file */
/* What a sector that was not written holds: not 0 in a differencing image, whose parent is full of it. */
static uint64_t initial;
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
record(enum kind kind, int fd, uint64_t off, uint64_t len)
{
	struct stat st = { 0 };

	assert_true(count < RECORDS_MAX);
	if (fd >= 0 && data_inode)
		assert_int_equal(fstat(fd, &st), 0);
	records[count] = (struct record){ kind, data_inode && st.st_ino == data_inode, off, len, NULL };
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
	r = record(WRITE, fd, (uint64_t)off, (uint64_t)n);
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
		record(TRUNCATE, fd, (uint64_t)len, 0);
	return (int)syscall(SYS_ftruncate, fd, len);
}

int
fallocate(int fd, int mode, off_t off, off_t len)
{
	if (recording)
		record(PUNCH, fd, (uint64_t)off, (uint64_t)len);
	return (int)syscall(SYS_fallocate, fd, mode, off, len);
}

int
fdatasync(int fd)
{
	if (recording)
		record(SYNC, fd, 0, 0);
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

/* Undo nothing, do a part: of the records of `file` from `from` to `end` any are done. */
static void
cut(const char *path, int file, int from, int end)
{
	int fd = open(path, O_RDWR);

	assert_true(fd >= 0);
	for (int i = from; i < end; i++)
		if (records[i].file == file && rnd(3))
			apply(fd, &records[i], rnd(2) == 0);
	close(fd);
}

/* All of them are. */
static void
settle(const char *path, int file, int from, int end)
{
	int fd = open(path, O_RDWR);

	assert_true(fd >= 0);
	for (int i = from; i < end; i++)
		if (records[i].file == file)
			apply(fd, &records[i], false);
	close(fd);
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
			record(FLUSHED, -1, 0, 0);
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
	uint64_t last = initial;

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

	if (strcmp(format, "qcow2") || !have_qemu_img || initial)
		return;
	/* qemu-img looks for a data file where it is itself */
	snprintf(cmd, sizeof(cmd), "cd %.*s && qemu-img check -q -f qcow2 %s >/dev/null 2>&1",
		(int)(strrchr(path, '/') - path), path, path);
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

/* A parent of the format with `initial` in all its sectors, and the empty image on it. */
static void
make_child(const char *dir, const char *image)
{
	static uint8_t data[MIB];
	struct block_create c = { .format = format, .size = BLOCKS * (uint64_t)MIB };
	char parent[64], cmd[300];
	struct block *b;

	snprintf(parent, sizeof(parent), "%s/parent", dir);
	c.path = parent;
	for (uint32_t k = 0; k < MIB; k += 8)
		put_le64(data + k, initial);
	assert_int_equal(block_create(&c, NULL), 0);
	b = block_open(parent, NULL, 0, NULL);
	for (uint32_t i = 0; i < BLOCKS; i++)
		assert_int_equal(block_write(b, data, MIB, i * (uint64_t)MIB), 0);
	block_close(b);
	if (!options) {
		assert_int_equal(block_create_diff(parent, NULL, image, format, NULL, NULL), 0);
		return;
	}
	snprintf(cmd, sizeof(cmd), "qemu-img create -q -f %s -o %s -b %s -F %s %s", format, options, parent, format,
		image);
	assert_int_equal(system(cmd), 0);
}

static void
make_image(const char *dir, const char *image, const char *data)
{
	struct block_create c = { .path = image, .format = format, .size = BLOCKS * (uint64_t)MIB };
	char cmd[300];
	struct stat st;

	if (initial) {
		make_child(dir, image);
	} else if (options) {
		snprintf(cmd, sizeof(cmd), "cd %s && qemu-img create -q -f %s -o %s %s %u", dir, format, options, image,
			BLOCKS * MIB);
		assert_int_equal(system(cmd), 0);
	} else {
		assert_int_equal(block_create(&c, NULL), 0);
	}
	data_inode = stat(data, &st) ? 0 : st.st_ino;
}

static void
power_cuts(void)
{
	char dir[] = CUT_DIR, image[64], path[2][64], stable[2][64], cmd[80];
	int synced[2] = { 0 }, flushed = 0, files;
	struct block *b;

	assert_non_null(mkdtemp(dir));
	snprintf(image, sizeof(image), "%s/image", dir);
	for (int f = 0; f < 2; f++) {
		snprintf(path[f], sizeof(path[f]), "%s/%s", dir, f ? "data" : "image");
		snprintf(stable[f], sizeof(stable[f]), "%s/stable%d", dir, f);
	}
	make_image(dir, image, path[1]);
	files = data_inode ? 2 : 1;
	for (int f = 0; f < files; f++)
		copy_file(path[f], stable[f]);
	b = block_open(image, NULL, 0, NULL);
	assert_non_null(b);
	recording = true;
	guest(b);
	recording = false;
	block_close(b);
	for (int end = 0; end < count; end++) {
		int f = records[end].file;

		if (records[end].kind == FLUSHED)
			flushed = end;
		/* Just before a SYNC returns most is in doubt. */
		for (int i = records[end].kind == SYNC ? 6 : rnd(3) == 0; i > 0; i--) {
			for (int k = 0; k < files; k++) {
				copy_file(stable[k], path[k]);
				cut(path[k], k, synced[k], end);
			}
			check(image, flushed, end);
		}
		if (records[end].kind != SYNC)
			continue;
		settle(stable[f], f, synced[f], end);
		synced[f] = end;
	}
	for (int i = 0; i < count; i++)
		free(records[i].data);
	count = write_count = 0;
	data_inode = 0;
	snprintf(cmd, sizeof(cmd), "rm -rf %s", dir);
	assert_int_equal(system(cmd), 0);
}

/* ---- merges: whatever is cut, the chain shows what it did ---- */

static uint8_t shown[BLOCKS * MIB], looked[BLOCKS * MIB];

/* A chain of three with data in each; the model is `shown`. The top is open. */
static struct block *
make_chain(const char *dir)
{
	struct block_create c = { .format = format, .size = sizeof(shown) };
	char name[64], below[64];
	struct block *b = NULL;

	memset(shown, 0, sizeof(shown));
	for (int i = 0; i < 3; i++) {
		snprintf(name, sizeof(name), "%s/c%d", dir, i);
		c.path = name;
		assert_int_equal(
			i ? block_create_diff(below, NULL, name, format, NULL, NULL) : block_create(&c, NULL), 0);
		block_close(b);
		b = block_open(name, NULL, 0, NULL);
		assert_non_null(b);
		for (int k = 0; k < 40; k++) {
			uint64_t off = rnd(sizeof(shown) / 512) * 512, len = (rnd(300) + 1) * 512;

			len = MIN(len, sizeof(shown) - off);
			memset(shown + off, k % 5 ? i * 50 + k + 1 : 0, len);
			assert_int_equal(
				k % 5 ? block_write(b, shown + off, len, off) : block_write_zeroes(b, off, len), 0);
		}
		assert_int_equal(block_flush(b), 0);
		if (i < 2) {
			block_close(b);
			b = NULL;
		}
		strcpy(below, name);
	}
	return b;
}

static void
check_shown(const char *top, int end)
{
	struct err e = { 0 };
	struct block *b = block_open(top, NULL, BLOCK_RDONLY, &e);

	if (!b)
		fail_msg("after a cut at %d: %s", end, e.text);
	assert_int_equal(block_read(b, looked, sizeof(looked), 0), 0);
	for (size_t off = 0; off < sizeof(shown); off += 512)
		if (memcmp(shown + off, looked + off, 512))
			fail_msg("after a cut at %d the disk shows something else at %zu", end, off);
	block_close(b);
}

/* Merge c1 and c2, and cut at every record what is written to the one of them that stays. */
static void
merge_cuts(enum block_merge_way way)
{
	char dir[] = CUT_DIR, top[64], written[64], stable[64], cmd[200];
	struct err e = { 0 };
	struct block *b;
	int synced = 0;

	initial = 0;
	assert_non_null(mkdtemp(dir));
	b = make_chain(dir);
	snprintf(top, sizeof(top), "%s/c2", dir);
	snprintf(written, sizeof(written), "%s/c%d", dir, way == BLOCK_MERGE_UP ? 2 : 1);
	snprintf(stable, sizeof(stable), "%s/stable", dir);
	copy_file(written, stable);
	recording = true;
	if (block_merge_offline(b, 0, way, NULL, &e))
		fail_msg("%s", e.text);
	recording = false;
	block_close(b);
	check_shown(written, -1);
	for (int end = 0; end < count; end++) {
		for (int i = records[end].kind == SYNC ? 4 : rnd(4) == 0; i > 0; i--) {
			copy_file(stable, written);
			cut(written, 0, synced, end);
			check_shown(top, end);
		}
		if (records[end].kind != SYNC)
			continue;
		settle(stable, 0, synced, end);
		synced = end;
	}
	for (int i = 0; i < count; i++)
		free(records[i].data);
	count = 0;
	snprintf(cmd, sizeof(cmd), "rm -rf %s", dir);
	assert_int_equal(system(cmd), 0);
}

static void
test_children(void **state)
{
	static const char *const formats[] = { "vdi", "vmdk", "vhd", "qcow2" };

	for (int i = 0; i < 4; i++) {
		format = formats[i];
		initial = 0x7777777777777777;
		power_cuts();
	}
	initial = 0;
}

static void
test_merges(void **state)
{
	static const char *const formats[] = { "vdi", "vmdk", "vhd", "qcow2" };

	for (int i = 0; i < 8; i++) {
		format = formats[i / 2];
		merge_cuts(i & 1 ? BLOCK_MERGE_UP : BLOCK_MERGE_DOWN);
	}
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
	power_cuts();
}

/* What QEMU makes and this project's block_create() does not. */
static void
test_qcow2_kinds(void **state)
{
	static const struct {
		const char *options;
		uint64_t initial;
	} kinds[] = {
		{ "extended_l2=on", 0 },
		{ "extended_l2=on", 0x7777777777777777 },
		{ "data_file=data,data_file_raw=on", 0 },
		{ "data_file=data,extended_l2=on", 0 },
	};

	if (!have_qemu_img)
		skip();
	format = "qcow2";
	for (size_t i = 0; i < ARRAY_LEN(kinds); i++) {
		options = kinds[i].options;
		initial = kinds[i].initial;
		power_cuts();
	}
	options = NULL;
	initial = 0;
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
		{ "so does a QCOW2 with extended L2 entries, and one with its data in another file", test_qcow2_kinds,
			0, 0, 0 },
		{ "a power cut at any moment leaves a good VMDK with all that was flushed", test_vmdk, 0, 0, 0 },
		{ "a power cut at any moment leaves a good VHD with all that was flushed", test_vhd, 0, 0, 0 },
		{ "so it does with differencing images, and what they do not hold is the parent's", test_children, 0, 0,
			0 },
		{ "a power cut at any moment of a merge leaves a chain that shows the same", test_merges, 0, 0, 0 },
	};

	have_qemu_img = !system("qemu-img --version >/dev/null 2>&1");
	return cmocka_run_group_tests(tests, NULL, NULL);
}
