/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Other people's formats, both ways: images that qemu-img made are read and written here at random beside a model, then
 * checked and compared by qemu-img; the same with images that were made here. Chains, and what a file may say.
 */
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>

#include "test/unit/block/disk.h"

#define SIZE (21ull * MIB + 1536)

static void
expect_refusal(const char *p, int flags, const char *words)
{
	struct err e = { 0 };
	struct block *b = block_open(p, NULL, flags, &e);

	if (b)
		fail_msg("'%s' was opened; it should be refused because of '%s'", p, words);
	if (!strstr(e.text, words))
		fail_msg("'%s' does not say '%s'", e.text, words);
}

/* Random work on the image, with reopening in between. */
static void
exercise(const char *name, int rounds)
{
	struct block *b = must_open(path(name), 0);

	for (int round = 0; round < rounds; round++) {
		compare(b);
		work(b, 50);
		compare(b);
		block_close(b);
		b = must_open(path(name), 0);
	}
	compare(b);
	block_close(b);
}

/* What qemu-img says of the image after we worked on it. */
static void
judge(const char *format, const char *name)
{
	save_model("model.raw");
	if (strcmp(format, "vpc"))
		must_run("qemu-img check -q -f %s %s >/dev/null", format, name);
	must_run("qemu-img compare -q -f raw -F %s model.raw %s", format, name);
}

/* ---- QCOW2 ---- */

static void
test_qemu_qcow2(void **state)
{
	static const char *const options[] = { "", "-o compat=0.10", "-o cluster_size=512,refcount_bits=64",
		"-o cluster_size=2M", "-o cluster_size=4k,refcount_bits=1", "-o refcount_bits=2", "-c",
		"-c -o cluster_size=4k", "-c -o compat=0.10", "-c -o compression_type=zstd",
		"-c -o compression_type=zstd,cluster_size=4k", "-o lazy_refcounts=on", "-o preallocation=metadata",
		"-S 0 -o preallocation=falloc", "-o extended_l2=on", "-o extended_l2=on,cluster_size=16k",
		"-o extended_l2=on,cluster_size=2M", "-c -o extended_l2=on",
		"-o extended_l2=on,preallocation=metadata" };

	need_qemu_img();
	for (size_t i = 0; i < ARRAY_LEN(options); i++) {
		new_model();
		must_run("rm -f q.qcow2; qemu-img convert -f raw -O qcow2 %s model.raw q.qcow2", options[i]);
		exercise("q.qcow2", 2);
		judge("qcow2", "q.qcow2");
	}
}

/* The disk's data in a file of its own, named in each way that qemu-img does; as raw, that file alone is the disk. */
static void
test_qcow2_data_file(void **state)
{
	static const char *const options[] = { "", ",data_file_raw=on", ",extended_l2=on", ",cluster_size=4k" };

	need_qemu_img();
	for (size_t i = 0; i < ARRAY_LEN(options); i++) {
		new_model();
		must_run("rm -f d.qcow2 d.data; qemu-img convert -f raw -O qcow2 -o data_file=%s%s model.raw d.qcow2",
			i == 1 ? path("d.data") : "d.data", options[i]);
		exercise("d.qcow2", 3);
		judge("qcow2", "d.qcow2");
		if (i == 1)
			must_run("cmp -n %llu d.data model.raw", SIZE);
	}
	must_run("mkdir -p sub; mv d.data sub/; qemu-img amend -f qcow2 -o data_file=sub/d.data d.qcow2 2>/dev/null || "
		 "true");
	expect_refusal(path("d.qcow2"), 0, "d.data");
}

static void
test_qcow2_refcount_growth(void **state)
{
	static const char *const sizes[] = { "512", "1k" };

	need_qemu_img();
	for (size_t i = 0; i < ARRAY_LEN(sizes); i++) {
		memset(model, 0, SIZE);
		must_run("rm -f g.qcow2; qemu-img create -q -f qcow2 -o cluster_size=%s,refcount_bits=64 g.qcow2 %llu",
			sizes[i], SIZE);
		for (uint64_t k = 0; k < SIZE; k += 8)
			put_le64(model + k, rnd(~0ull));
		struct block *b = must_open(path("g.qcow2"), 0);

		for (uint64_t off = 0; off < SIZE; off += MIB)
			assert_int_equal(block_write(b, model + off, MIN(MIB, SIZE - off), off), 0);
		block_close(b);
		judge("qcow2", "g.qcow2");
		exercise("g.qcow2", 1);
		judge("qcow2", "g.qcow2");
	}
}

static void
test_qcow2_backing(void **state)
{
	static const char *const options[] = { "-o compat=1.1", "-o compat=0.10", "-o cluster_size=4k" };

	need_qemu_img();
	for (size_t i = 0; i < ARRAY_LEN(options); i++) {
		new_model();
		must_run(
			"rm -f *.qcow2; qemu-img convert -f raw -O qcow2 -c model.raw base.qcow2; sha256sum base.qcow2 "
			">sum");
		must_run("qemu-img create -q -f qcow2 %s -b base.qcow2 -F qcow2 top.qcow2", options[i]);
		exercise("top.qcow2", 2);
		judge("qcow2", "top.qcow2");
		must_run("sha256sum -c --quiet sum");
	}
}

static void
test_qcow2_deep_chain(void **state)
{
	struct block_create c = { .format = "qcow2", .size = SIZE, .backing_format = "raw", .backing = "model0.raw" };
	struct block_info info;
	struct block *b;
	char name[32], below[32] = "model0.raw";

	new_model();
	save_model("model0.raw");
	for (int i = 0; i < 5; i++) {
		snprintf(name, sizeof(name), "chain%d", i);
		c.path = path(name);
		c.backing = below;
		must_create(&c);
		exercise(name, 1);
		strcpy(below, name);
		c.backing_format = "qcow2";
	}
	b = must_open(path(name), BLOCK_RDONLY);
	block_get_info(b, &info);
	assert_string_equal(info.backing, path("chain3"));
	block_close(b);
	need_qemu_img();
	for (int i = 0; i < 5; i++)
		must_run("qemu-img check -q -f qcow2 chain%d", i);
	judge("qcow2", "chain4");
}

static void
test_qcow2_short_backing(void **state)
{
	need_qemu_img();
	new_model();
	must_run("rm -f *.qcow2; truncate -s 5M model.raw; qemu-img convert -f raw -O qcow2 model.raw base.qcow2");
	must_run("qemu-img create -q -f qcow2 -b base.qcow2 -F qcow2 top.qcow2 %llu", SIZE);
	memset(model + 5 * MIB, 0, SIZE - 5 * MIB);
	exercise("top.qcow2", 2);
	judge("qcow2", "top.qcow2");
}

static void
test_qcow2_bad_backing(void **state)
{
	need_qemu_img();
	must_run("rm -f *.qcow2; qemu-img create -q -f qcow2 base.qcow2 4M; cp base.qcow2 alone.qcow2");
	must_run("qemu-img create -q -f qcow2 -b base.qcow2 -F qcow2 top.qcow2; rm base.qcow2");
	expect_refusal(path("top.qcow2"), 0, "base.qcow2");
	must_run("qemu-img rebase -u -f qcow2 -b top.qcow2 -F qcow2 top.qcow2");
	expect_refusal(path("top.qcow2"), BLOCK_RDONLY, "chain");
	expect_refusal(path("top.qcow2"), 0, "in use");
	must_run("qemu-img rebase -u -f qcow2 -b nbd:localhost:10 -F raw top.qcow2");
	expect_refusal(path("top.qcow2"), 0, "not a file");
	must_run("truncate -s 4M some.raw; qemu-img rebase -u -f qcow2 -b some.raw -F raw top.qcow2");
	block_close(must_open(path("top.qcow2"), 0));
	must_create(&(struct block_create){
		.path = path("t2.qcow2"), .format = "qcow2", .size = 4 * MIB, .backing = "some.raw" });
	expect_refusal(path("t2.qcow2"), 0, "format it does not say");
}

static void
test_qcow2_snapshots(void **state)
{
	need_qemu_img();
	new_model();
	must_run("rm -f *.qcow2; qemu-img convert -f raw -O qcow2 model.raw s.qcow2; qemu-img snapshot -c one s.qcow2");
	expect_refusal(path("s.qcow2"), 0, "snapshots");
	struct block *b = must_open(path("s.qcow2"), BLOCK_RDONLY);

	compare(b);
	assert_int_equal(block_write(b, model, 512, 0), -EROFS);
	block_close(b);
	must_run("qemu-img snapshot -d one s.qcow2");
	exercise("s.qcow2", 1);
	judge("qcow2", "s.qcow2");
}

static void
patch(const char *p, uint64_t off, uint64_t value, int bytes)
{
	uint8_t b[8];
	int fd = open(p, O_WRONLY);

	put_be64(b, value << (64 - 8 * bytes));
	assert_int_equal(pwrite(fd, b, (size_t)bytes, (off_t)off), bytes);
	close(fd);
}

static void
test_qcow2_lies(void **state)
{
	static const struct {
		uint64_t off, value;
		int bytes;
		const char *words; /* NULL: opens, and what is read there is an error */
	} lies[] = {
		{ 4, 4, 4, "version" },
		{ 8, 1 << 30, 8, "backing file" },
		{ 16, 5000, 4, "" },
		{ 20, 8, 4, "clusters" },
		{ 20, 22, 4, "clusters" },
		{ 24, 0, 8, "disk" },
		{ 24, 513, 8, "disk" },
		{ 24, 1ull << 62, 8, "disk" },
		{ 24, 1ull << 40, 8, "L1 table" },
		{ 32, 1, 4, "encrypted" },
		{ 36, 0, 4, "L1 table" },
		{ 36, 0xffffffff, 4, "L1 table" },
		{ 40, 0, 8, "L1 table" },
		{ 40, 1000, 8, "L1 table" },
		{ 40, 1ull << 60, 8, "L1 table" },
		{ 48, 0, 8, "refcount table" },
		{ 48, 1ull << 63, 8, "refcount table" },
		{ 56, 0, 4, "refcount table" },
		{ 56, 1 << 20, 4, "refcount table" },
		{ 60, 3, 4, "snapshots" },
		{ 72, 1, 8, "closed properly" },
		{ 72, 2, 8, "corrupt" },
		{ 72, 4, 8, "external data file" },
		{ 72, 8, 8, "too short for the compression type" },
		{ 72, 32, 8, "number 5" },
		{ 72, 1ull << 40, 8, "number 40" },
		{ 96, 7, 4, "refcounts" },
		{ 100, 20, 4, "header" },
		{ 100, 1 << 20, 4, "header" },
		{ 196608, 0x8000000000000200, 8, NULL },	  /* L1: not aligned */
		{ 196608, 0x80ff000000000000, 8, NULL },	  /* L1: past the end */
		{ 196608, 0x8000000000000000 + 65536, 8, NULL },  /* L1: the refcount table */
		{ 262144, 0x8000000000000000 + 196608, 8, NULL }, /* L2: the L1 table */
		{ 262144, 0x8000000000000200, 8, NULL },
		{ 262144, 0x40ffffffffffffff, 8, NULL },
	};

	for (size_t i = 0; i < ARRAY_LEN(lies); i++) {
		struct block_create c = { .path = path("lie.qcow2"), .format = "qcow2", .size = 8 * MIB };
		struct block *b;

		unlink(c.path);
		must_create(&c);
		b = must_open(c.path, 0);
		assert_int_equal(block_write(b, "12345678", 8, 0), 0);
		block_close(b);
		patch(c.path, lies[i].off, lies[i].value, lies[i].bytes);
		if (lies[i].words && *lies[i].words) {
			expect_refusal(c.path, 0, lies[i].words);
			continue;
		}
		b = must_open(c.path, 0);
		assert_int_equal(block_read(b, scratch, 512, 0), lies[i].words ? 0 : -EIO);
		if (!lies[i].words)
			assert_int_equal(block_write(b, scratch, 512, 0), -EIO);
		block_close(b);
	}
}

/* ---- VMDK ---- */

static void
test_qemu_vmdk(void **state)
{
	static const char *const options[] = { "monolithicSparse", "monolithicFlat", "twoGbMaxExtentSparse",
		"twoGbMaxExtentFlat" };

	need_qemu_img();
	for (size_t i = 0; i < ARRAY_LEN(options); i++) {
		struct block_info info;
		struct block *b;

		new_model();
		must_run("rm -f v*.vmdk; qemu-img convert -f raw -O vmdk -o subformat=%s model.raw v.vmdk", options[i]);
		b = must_open(path("v.vmdk"), BLOCK_RDONLY);
		block_get_info(b, &info);
		assert_string_equal(info.variant, options[i]);
		assert_true(info.on_disk > 4 * MIB);
		block_close(b);
		exercise("v.vmdk", 2);
		judge("vmdk", "v.vmdk");
	}
}

static void
test_qemu_stream(void **state)
{
	need_qemu_img();
	new_model();
	must_run("rm -f v*.vmdk; qemu-img convert -f raw -O vmdk -o subformat=streamOptimized model.raw v.vmdk");
	expect_refusal(path("v.vmdk"), 0, "clone it");
	struct block *b = must_open(path("v.vmdk"), BLOCK_RDONLY);

	compare(b);
	block_close(b);
}

static void
test_our_vmdk(void **state)
{
	for (int i = 0; i < 4; i++) {
		struct uuid u = uuid_random();
		struct block_create c = { .path = path("o.vmdk"),
			.format = "vmdk",
			.size = SIZE,
			.fixed = i & 1,
			.split = i & 2,
			.uuid = &u };
		struct block_info info;
		struct block *b;

		memset(model, 0, SIZE);
		must_create(&c);
		b = must_open(c.path, 0);
		block_get_info(b, &info);
		assert_memory_equal(&info.uuid, &u, sizeof(u));
		block_close(b);
		exercise("o.vmdk", 2);
		if (!system("qemu-img --version >/dev/null 2>&1"))
			judge("vmdk", "o.vmdk");
		assert_int_equal(block_remove(c.path, NULL), 0);
		assert_int_not_equal(run("ls o* 2>/dev/null"), 0);
	}
}

/* More than one extent, and what lies across the border. */
static void
test_split_border(void **state)
{
	struct block_create c = { .path = path("big.vmdk"), .format = "vmdk", .size = 5ull << 30, .split = true };
	struct block *b;

	must_create(&c);
	b = must_open(c.path, 0);
	memset(scratch, 0x5a, MIB);
	assert_int_equal(block_write(b, scratch, MIB, 4192256ull * 512 - 512), 0);
	assert_int_equal(block_write(b, scratch, 512, c.size - 512), 0);
	block_close(b);
	b = must_open(c.path, 0);
	assert_int_equal(block_read(b, scratch + MIB, 2 * MIB, 4192256ull * 512 - 1024), 0);
	assert_int_equal(scratch[MIB], 0);
	assert_memory_equal(scratch + MIB + 512, scratch, MIB);
	assert_int_equal(scratch[2 * MIB + 512], 0);
	block_close(b);
	if (!system("qemu-img --version >/dev/null 2>&1"))
		must_run("qemu-img check -q big.vmdk >/dev/null");
	block_remove(c.path, NULL);
}

static void
write_text(const char *name, const char *text)
{
	FILE *f = fopen(path(name), "w");

	fprintf(f, "%s%600s\n", text, "#");
	fclose(f);
}

static void
test_vmdk_lies(void **state)
{
#define HEAD "# Disk DescriptorFile\nversion=1\nCID=12345678\nparentCID=ffffffff\ncreateType=\"monolithicFlat\"\n"
	static const struct {
		const char *text, *words;
	} texts[] = {
		{ HEAD, "no extents" },
		{ HEAD "RW 100 FLAT \"/etc/passwd\" 0\n", "only files beside it" },
		{ HEAD "RW 100 FLAT \"../x\" 0\n", "only files beside it" },
		{ HEAD "RW 100 FLAT \"missing\" 0\n", "missing" },
		{ HEAD "RW 100 FLAT \"short\" 0\n", "truncated" },
		{ HEAD "RW 2 FLAT \"short\" 1\n", "truncated" },
		{ HEAD "RW 0 FLAT \"short\" 0\n", "impossible" },
		{ HEAD "RW 99999999999999999 FLAT \"short\" 0\n", "impossible" },
		{ HEAD "RW 2 VMFS \"short\" 0\n", "VMFS" },
		{ HEAD "RDONLY 2 FLAT \"short\" 0\n", "RDONLY" },
		{ HEAD "RW 2 SPARSE \"short\"\n", "signature" },
		{ HEAD "RW 2 FLAT \"short\" 0\nRW 2 FLAT \"short\" 0\n", "in use" },
		{ "# Disk DescriptorFile\ncreateType=\"vmfsThin\"\n", "vmfsThin" },
		{ "# Disk DescriptorFile\nparentCID=1\ncreateType=\"monolithicFlat\"\nRW 1 FLAT \"short\" 0\n",
			"parent" },
	};
	static const struct {
		uint64_t off;
		uint32_t value;
		const char *words;
	} lies[] = {
		{ 4, 9, "version" },
		{ 12, 0, "capacity" },
		{ 16, 0x7fffffff, "capacity" },
		{ 20, 0, "grains" },
		{ 20, 3, "grains" },
		{ 20, 1 << 20, "grains" },
		{ 28, 0, "descriptor" },
		{ 28, 0xffffffff, "descriptor" },
		{ 36, 0, "descriptor" },
		{ 36, 0xffff, "descriptor" },
		{ 44, 0, "grain tables" },
		{ 44, 1 << 30, "grain tables" },
		{ 48, 0xffffff, "second" },
		{ 56, 0, "directory" },
		{ 56, 0xffffff, "directory" },
		{ 60, 0xffffff, "directory" },
		{ 73, 0, "as text" },
	};
	uint8_t v[4];
	int fd;

	must_run("rm -f short; dd if=/dev/zero of=short bs=512 count=2 2>/dev/null");
	for (size_t i = 0; i < ARRAY_LEN(texts); i++) {
		write_text("t.vmdk", texts[i].text);
		expect_refusal(path("t.vmdk"), 0, texts[i].words);
	}
	for (size_t i = 0; i < ARRAY_LEN(lies); i++) {
		struct block_create c = { .path = path("l.vmdk"), .format = "vmdk", .size = 8 * MIB };

		unlink(c.path);
		must_create(&c);
		put_le32(v, lies[i].value);
		fd = open(c.path, O_WRONLY);
		assert_int_equal(pwrite(fd, v, 4, (off_t)lies[i].off), 4);
		close(fd);
		expect_refusal(c.path, 0, lies[i].words);
	}
}

/* ---- VHD ---- */

static void
test_qemu_vhd(void **state)
{
	static const char *const options[] = { "dynamic", "fixed" };

	need_qemu_img();
	for (size_t i = 0; i < ARRAY_LEN(options); i++) {
		struct block_info info;
		struct block *b;

		new_model();
		must_run("rm -f d.vhd; qemu-img convert -f raw -O vpc -o force_size=on,subformat=%s model.raw d.vhd",
			options[i]);
		b = must_open(path("d.vhd"), BLOCK_RDONLY);
		block_get_info(b, &info);
		assert_string_equal(info.format, "vhd");
		assert_string_equal(info.variant, options[i]);
		assert_int_equal(info.size, SIZE);
		block_close(b);
		exercise("d.vhd", 2);
		judge("vpc", "d.vhd");
	}
}

static void
test_our_vhd(void **state)
{
	for (int i = 0; i < 2; i++) {
		struct uuid u = uuid_random();
		struct block_create c = {
			.path = path("o.vhd"), .format = "vhd", .size = SIZE, .fixed = i, .uuid = &u
		};
		struct block_info info;
		struct block *b;

		memset(model, 0, SIZE);
		unlink(c.path);
		must_create(&c);
		b = must_open(c.path, 0);
		block_get_info(b, &info);
		assert_memory_equal(&info.uuid, &u, sizeof(u));
		block_close(b);
		exercise("o.vhd", 2);
		if (!system("qemu-img --version >/dev/null 2>&1"))
			judge("vpc", "o.vhd");
	}
}

/* The footer is damaged: its copy counts, and the next block goes behind the rest of it. */
static void
test_vhd_lost_footer(void **state)
{
	struct block_create c = { .path = path("f.vhd"), .format = "vhd", .size = SIZE };
	struct block *b;
	struct stat st;

	memset(model, 0, SIZE);
	memset(model, 0x3c, 4096);
	unlink(c.path);
	must_create(&c);
	b = must_open(c.path, 0);
	assert_int_equal(block_write(b, model, 4096, 0), 0);
	block_close(b);
	stat(c.path, &st);
	patch(c.path, (uint64_t)st.st_size - 512, 0, 8);
	exercise("f.vhd", 1);
	if (!system("qemu-img --version >/dev/null 2>&1"))
		judge("vpc", "f.vhd");
}

/* Change four bytes of a part that has a checksum, and make the checksum right again. */
static void
patch_summed(const char *p, uint64_t part, unsigned len, unsigned sum_at, unsigned off, uint32_t value)
{
	uint8_t buf[1024];
	uint32_t sum = 0;
	int fd = open(p, O_RDWR);

	assert_int_equal(pread(fd, buf, len, (off_t)part), len);
	put_be32(buf + off, value);
	put_be32(buf + sum_at, 0);
	for (unsigned i = 0; i < len; i++)
		sum += buf[i];
	put_be32(buf + sum_at, ~sum);
	assert_int_equal(pwrite(fd, buf, len, (off_t)part), len);
	close(fd);
}

static void
test_vhd_lies(void **state)
{
	static const struct {
		bool header;
		unsigned off;
		uint32_t value;
		const char *words;
	} lies[] = {
		{ false, 12, 0x20000, "version" },
		{ false, 16, 0xff, "header" },
		{ false, 20, 0, "header" },
		{ false, 20, 1, "header" },
		{ false, 48, 0x7fffffff, "disk" },
		{ false, 52, 0, "disk" },
		{ false, 52, 1, "disk" },
		{ false, 60, 9, "type" },
		{ false, 60, 4, "parent" },
		{ true, 16, 1, "block table" },
		{ true, 20, 7, "block table" },
		{ true, 28, 1, "larger" },
		{ true, 28, 0xffffffff, "too many" },
		{ true, 28, 0x100000, "block table" },
		{ true, 32, 0, "blocks" },
		{ true, 32, 3000000, "blocks" },
		{ true, 32, 0x80000000, "blocks" },
		{ true, 0, 0, "no header" },
	};

	for (size_t i = 0; i < ARRAY_LEN(lies); i++) {
		struct block_create c = { .path = path("l.vhd"), .format = "vhd", .size = 8 * MIB };
		struct stat st;

		unlink(c.path);
		must_create(&c);
		stat(c.path, &st);
		if (lies[i].header)
			patch_summed(c.path, 512, 1024, 36, lies[i].off, lies[i].value);
		else
			patch_summed(c.path, (uint64_t)st.st_size - 512, 512, 64, lies[i].off, lies[i].value);
		expect_refusal(c.path, 0, lies[i].words);
	}
}

/* ---- chains, both ways ---- */

static void
test_our_chains(void **state)
{
	static const char *const formats[] = { "vmdk", "qcow2" };

	need_qemu_img();
	for (int i = 0; i < 4; i++) {
		const char *below = formats[i / 2], *above = formats[i % 2];
		struct block_create c = { .path = path("k0"), .format = below, .size = SIZE };

		/* QEMU has no VMDK on a parent of another format. */
		if (!strcmp(above, "vmdk") && strcmp(below, "vmdk"))
			continue;
		memset(model, 0, SIZE);
		must_run("rm -f k*");
		must_create(&c);
		exercise("k0", 1);
		must_diff(path("k0"), path("k1"), above);
		exercise("k1", 1);
		must_diff(path("k1"), path("k2"), above);
		exercise("k2", 1);
		judge(above, "k2");
	}
}

static void
test_qemu_chains(void **state)
{
	need_qemu_img();
	new_model();
	must_run("rm -f k*; qemu-img convert -f raw -O vmdk model.raw k0.vmdk");
	must_run("qemu-img create -q -f vmdk -b k0.vmdk -F vmdk k1.vmdk");
	exercise("k1.vmdk", 2);
	judge("vmdk", "k1.vmdk");
	must_run("qemu-img create -q -f qcow2 -b k1.vmdk -F vmdk k2.qcow2");
	exercise("k2.qcow2", 2);
	judge("qcow2", "k2.qcow2");
	/* And merged: what stays is a good image for both. */
	struct block *b = must_open(path("k2.qcow2"), 0);
	struct err e = { 0 };

	if (block_merge_offline(b, 0, BLOCK_MERGE_UP, NULL, &e) || block_merge_offline(b, 0, BLOCK_MERGE_UP, NULL, &e))
		fail_msg("%s", e.text);
	compare(b);
	block_close(b);
	must_run("rm k0.vmdk k1.vmdk");
	judge("qcow2", "k2.qcow2");
}

/* ---- sizes and space ---- */

static void
test_resize_compact(void **state)
{
	static const char *const formats[] = { "vdi", "vhd", "qcow2" };

	need_qemu_img();
	for (size_t i = 0; i < ARRAY_LEN(formats); i++) {
		struct block_create c = { .path = path("z"), .format = formats[i], .size = 9 * MIB };
		struct block_info full, small;
		struct err e = { 0 };
		struct block *b;

		must_run("rm -f z");
		must_create(&c);
		memset(model, 0, SIZE);
		b = must_open(path("z"), 0);
		for (uint64_t k = 0; k < 9 * MIB; k += 8)
			put_le64(model + k, rnd(~0ull));
		assert_int_equal(block_write(b, model, 9 * MIB, 0), 0);
		/* Odd places become zero: gaps all over the file. */
		for (uint64_t off = 0; off < 8 * MIB; off += 2 * MIB) {
			memset(scratch, 0, MIB);
			memset(model + off, 0, MIB);
			assert_int_equal(block_write(b, scratch, MIB, off), 0);
		}
		if (block_resize(b, SIZE, &e))
			fail_msg("%s", e.text);
		compare(b);
		block_get_info(b, &full);
		if (block_compact(b, NULL, &e))
			fail_msg("%s", e.text);
		compare(b);
		block_close(b);
		b = must_open(path("z"), 0);
		block_get_info(b, &small);
		if (strcmp(formats[i], "vhd")) /* blocks of 2 MiB */
			assert_true(small.on_disk + 3 * MIB < full.on_disk);
		compare(b);
		block_close(b);
		judge(strcmp(formats[i], "vhd") ? formats[i] : "vpc", "z");
		exercise("z", 2);
		judge(strcmp(formats[i], "vhd") ? formats[i] : "vpc", "z");
	}
}

/* ---- VHDX ---- */

static void
test_vhdx(void **state)
{
	static const char *const options[] = { "subformat=dynamic", "subformat=fixed",
		"subformat=dynamic,block_size=1M", "subformat=dynamic,block_size=64M" };

	need_qemu_img();
	for (size_t i = 0; i < ARRAY_LEN(options); i++) {
		struct block_info info;
		struct block *b;

		new_model();
		must_run("rm -f x.vhdx; truncate -s 22M model.raw; qemu-img convert -f raw -O vhdx -o %s model.raw "
			 "x.vhdx",
			options[i]);
		b = must_open(path("x.vhdx"), BLOCK_RDONLY);
		block_get_info(b, &info);
		assert_string_equal(info.format, "vhdx");
		assert_int_equal(info.size, 22 * MIB);
		compare(b);
		assert_int_equal(block_write(b, model, 512, 0), -EROFS);
		block_close(b);
		expect_refusal(path("x.vhdx"), 0, "clone it first");
	}
}

static void
test_vhdx_lies(void **state)
{
	static const struct {
		uint64_t off;
		uint32_t value;
		const char *words;
	} lies[] = { { 65536 + 60, 1, "" }, { 131072 + 8, 1, "" }, { 196608 + 8, 9, "" }, { 0, 1, "" } };

	need_qemu_img();
	for (size_t i = 0; i < ARRAY_LEN(lies); i++) {
		uint8_t raw[4];
		int fd;

		must_run("rm -f l.vhdx; qemu-img create -q -f vhdx l.vhdx 8M");
		fd = open(path("l.vhdx"), O_RDWR);
		put_le32(raw, lies[i].value);
		/* One of each pair may be damaged. */
		if (i < 3)
			assert_int_equal(pwrite(fd, raw, 4, (off_t)lies[i].off), 4);
		if (i < 3)
			block_close(must_open(path("l.vhdx"), BLOCK_RDONLY));
		/* Not both. */
		assert_int_equal(pwrite(fd, raw, 4, 65536 + 60), 4);
		assert_int_equal(pwrite(fd, raw, 4, 131072 + 60), 4);
		expect_refusal(path("l.vhdx"), BLOCK_RDONLY, "checksum");
		close(fd);
	}
	must_run("rm -f l.vhdx; qemu-img create -q -f vhdx l.vhdx 8M; truncate -s 300K l.vhdx");
	expect_refusal(path("l.vhdx"), BLOCK_RDONLY, "impossible");
}

static int
set_up(void **state)
{
	begin_model(SIZE);
	return make_dir("/tmp", "lodge-formats");
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
		{ "a QCOW2 of qemu-img of any kind is read, written, and found good", test_qemu_qcow2, 0, 0, 0 },
		{ "a QCOW2 whose data is in another file is read and written as QEMU does", test_qcow2_data_file, 0, 0,
			0 },
		{ "the refcount table of a QCOW2 grows", test_qcow2_refcount_growth, 0, 0, 0 },
		{ "a QCOW2 reads through to its backing file and leaves it alone", test_qcow2_backing, 0, 0, 0 },
		{ "a chain of six images agrees with a model", test_qcow2_deep_chain, 0, 0, 0 },
		{ "a backing file may be smaller than the disk", test_qcow2_short_backing, 0, 0, 0 },
		{ "a backing file that cannot be used is refused", test_qcow2_bad_backing, 0, 0, 0 },
		{ "a QCOW2 with internal snapshots is only read", test_qcow2_snapshots, 0, 0, 0 },
		{ "a QCOW2 that lies is refused, or reads as an error", test_qcow2_lies, 0, 0, 0 },
		{ "a VMDK of qemu-img of any kind is read, written, and found good", test_qemu_vmdk, 0, 0, 0 },
		{ "a streamOptimized VMDK is read, and not written", test_qemu_stream, 0, 0, 0 },
		{ "a VMDK made here is good, and goes with all its files", test_our_vmdk, 0, 0, 0 },
		{ "a VMDK of several files is one disk", test_split_border, 0, 0, 0 },
		{ "a VMDK that lies is refused", test_vmdk_lies, 0, 0, 0 },
		{ "a VHD of qemu-img of any kind is read, written, and found good", test_qemu_vhd, 0, 0, 0 },
		{ "a VHD made here is good", test_our_vhd, 0, 0, 0 },
		{ "a VHD without its footer has a copy of it", test_vhd_lost_footer, 0, 0, 0 },
		{ "qemu-img reads our chains of VMDK and QCOW2", test_our_chains, 0, 0, 0 },
		{ "its chains are read, written and merged", test_qemu_chains, 0, 0, 0 },
		{ "images grow and are compacted, and stay good for qemu-img", test_resize_compact, 0, 0, 0 },
		{ "VHDX images of qemu-img are read", test_vhdx, 0, 0, 0 },
		{ "a VHDX that lies is refused", test_vhdx_lies, 0, 0, 0 },
		{ "a VHD that lies is refused", test_vhd_lies, 0, 0, 0 },
	};

	return cmocka_run_group_tests(tests, set_up, tear_down);
}
