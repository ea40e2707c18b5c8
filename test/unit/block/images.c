/* SPDX-License-Identifier: Apache-2.0 */
/* Disk images through block.h: open, probe, lock, requests, and VDI against a model, other people's tools and
 * hostility. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "test/unit/block/disk.h"

static const char *
make(const char *name, const char *format, bool fixed, uint64_t size)
{
	struct block_create c = { .path = path(name), .format = format, .fixed = fixed, .size = size };
	struct err e = { 0 };

	unlink(c.path);
	if (block_create(&c, &e))
		fail_msg("%s", e.text);
	return c.path;
}

static void
expect_refusal(const char *p, const char *format, int flags, enum err_code code, const char *words)
{
	struct err e = { 0 };
	struct block *b = block_open(p, format, flags, &e);

	assert_null(b);
	assert_int_equal(e.code, code);
	if (!strstr(e.text, words))
		fail_msg("'%s' does not say '%s'", e.text, words);
}

static void
patch(const char *p, uint64_t off, const void *data, size_t len)
{
	int fd = open(p, O_WRONLY);

	assert_true(fd >= 0);
	assert_int_equal(pwrite(fd, data, len, (off_t)off), len);
	close(fd);
}

static void
patch32(const char *p, uint64_t off, uint32_t value)
{
	uint8_t b[4];

	put_le32(b, value);
	patch(p, off, b, 4);
}

static uint32_t
peek32(const char *p, uint64_t off)
{
	uint8_t b[4] = { 0 };
	int fd = open(p, O_RDONLY);

	assert_int_equal(pread(fd, b, 4, (off_t)off), 4);
	close(fd);
	return le32(b);
}

/* ---- random operations on an image and on plain memory ---- */

static void
model_test(const char *format, bool fixed)
{
	const uint64_t size = 37 * MIB + 512 * 3;
	const char *p = make("model", format, fixed, size);
	struct block *b = must_open_as(p, format, 0);
	struct block_info info;

	begin_model(size);
	for (int round = 0; round < 4; round++) {
		work(b, 60);
		compare(b);
		block_close(b);
		b = must_open_as(p, !strcmp(format, "raw") ? "raw" : NULL, 0);
		block_get_info(b, &info);
		assert_string_equal(info.format, format);
		assert_int_equal(info.size, size);
		compare(b);
	}
	block_close(b);
	if (have_qemu_img() && strcmp(format, "raw")) {
		assert_int_equal(run("qemu-img check -q -f %s %s", format, p), 0);
		assert_int_equal(run("qemu-img convert -f %s -O raw %s %s", format, p, path("model.raw")), 0);
		b = must_open_as(path("model.raw"), "raw", BLOCK_RDONLY);
		compare(b);
		block_close(b);
	}
}

static void
test_model_raw(void **state)
{
	model_test("raw", false);
	model_test("raw", true);
}

static void
test_model_vdi_dynamic(void **state)
{
	model_test("vdi", false);
}

static void
test_model_vdi_fixed(void **state)
{
	model_test("vdi", true);
}

static void
test_model_qcow2(void **state)
{
	model_test("qcow2", false);
}

/* ---- creation ---- */

static void
test_create_sizes(void **state)
{
	static const uint64_t sizes[] = { 512, MIB, MIB + 512, 10ull << 30, 2ull << 40 };

	for (size_t i = 0; i < ARRAY_LEN(sizes); i++) {
		struct block_info info;
		struct block *b = must_open(make("size.vdi", "vdi", false, sizes[i]), 0);
		uint8_t out[512], in[512];

		memset(out, 0xa5, sizeof(out));
		block_get_info(b, &info);
		assert_int_equal(info.size, sizes[i]);
		assert_string_equal(info.variant, "dynamic");
		assert_int_equal(block_write(b, out, 512, sizes[i] - 512), 0);
		assert_int_equal(block_read(b, in, 512, sizes[i] - 512), 0);
		assert_memory_equal(in, out, 512);
		assert_int_equal(block_read(b, in, 512, sizes[i]), -EINVAL);
		assert_int_equal(block_read(b, in, 512, UINT64_MAX - 511), -EINVAL);
		block_close(b);
		if (have_qemu_img())
			assert_int_equal(run("qemu-img check -q %s", path("size.vdi")), 0);
	}
}

static int last_percent;

static void
note_percent(void *opaque, int percent)
{
	assert_true(percent >= last_percent && percent <= 100);
	last_percent = percent;
}

static void
test_create_fixed(void **state)
{
	struct block_create c = {
		.path = path("fixed.vdi"), .format = "VDI", .fixed = true, .size = 20 * MIB, .progress = note_percent
	};
	struct block_info info;
	struct block *b;

	assert_int_equal(block_create(&c, NULL), 0);
	assert_int_equal(last_percent, 100);
	b = must_open(c.path, 0);
	block_get_info(b, &info);
	assert_string_equal(info.variant, "fixed");
	assert_true(info.on_disk >= 20 * MIB);
	block_close(b);
}

static void
test_create_uuid(void **state)
{
	struct uuid u = uuid_random();
	struct block_create c = { .path = path("uuid.vdi"), .format = "vdi", .size = MIB, .uuid = &u };
	struct block_info info;
	struct block *b;

	assert_int_equal(block_create(&c, NULL), 0);
	b = must_open(c.path, 0);
	block_get_info(b, &info);
	assert_memory_equal(&info.uuid, &u, 16);
	block_close(b);
}

static void
test_create_refusals(void **state)
{
	struct block_create c = { .path = make("there.vdi", "vdi", false, MIB), .format = "vdi", .size = MIB };
	struct err e;

	assert_int_equal(block_create(&c, &e), -1);
	assert_non_null(strstr(e.text, "File exists"));
	c.path = path("new.vdi");
	c.size = 513;
	assert_int_equal(block_create(&c, &e), -1);
	c.size = MIB;
	c.format = "vhdx";
	assert_int_equal(block_create(&c, &e), -1);
	assert_int_equal(e.code, ERR_UNSUPPORTED);
	c.format = "iso";
	assert_int_equal(block_create(&c, &e), -1);
	c.format = "vdi";
	c.path = path("no/such/directory.vdi");
	assert_int_equal(block_create(&c, &e), -1);
	assert_int_equal(access(path("new.vdi"), F_OK), -1);
}

/* Run fn in a child whose files can have `limit` bytes: a disk that is full from there on. */
static void
with_file_limit(uint64_t limit, void (*fn)(void))
{
	int status;
	pid_t pid = fork();

	if (!pid) {
		struct rlimit rl = { limit, limit };

		signal(SIGXFSZ, SIG_IGN);
		setrlimit(RLIMIT_FSIZE, &rl);
		fn();
		_exit(0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
}

static void
create_too_large(void)
{
	struct block_create c = { .path = path("full.vdi"), .format = "vdi", .fixed = true, .size = 50 * MIB };

	if (!block_create(&c, NULL))
		_exit(1);
	if (!access(c.path, F_OK))
		_exit(2);
}

static void
test_create_full_disk(void **state)
{
	with_file_limit(10 * MIB, create_too_large);
	assert_int_equal(access(path("full.vdi"), F_OK), -1);
}

static void
write_until_full(void)
{
	struct block *b = block_open(path("grow.vdi"), NULL, 0, NULL);
	static uint8_t buf[65536];
	int r = 0;

	memset(buf, 0x5a, sizeof(buf));
	for (uint64_t off = 0; off < 30 * MIB && !r; off += sizeof(buf))
		r = block_write(b, buf, sizeof(buf), off);
	if (r != -ENOSPC)
		_exit(1);
	if (block_flush(b))
		_exit(2);
	block_close(b);
}

static void
test_full_disk(void **state)
{
	struct block *b;
	uint8_t buf[512], expected[512];

	make("grow.vdi", "vdi", false, 100 * MIB);
	with_file_limit(10 * MIB, write_until_full);
	if (have_qemu_img())
		assert_int_equal(run("qemu-img check -q %s", path("grow.vdi")), 0);
	b = must_open(path("grow.vdi"), 0);
	memset(expected, 0x5a, sizeof(expected));
	for (uint64_t off = 0; off < 9 * MIB; off += 4096) {
		assert_int_equal(block_read(b, buf, 512, off), 0);
		assert_memory_equal(buf, expected, 512);
	}
	assert_int_equal(block_write(b, expected, 512, 90 * MIB), 0);
	block_close(b);
}

/* ---- probing ---- */

static void
test_probe(void **state)
{
	static const char junk[] = "just some text";
	struct block_info info;
	struct block *b;
	int fd;

	fd = open(path("a.iso"), O_CREAT | O_RDWR | O_TRUNC, 0600);
	assert_int_equal(ftruncate(fd, 400 * 2048), 0);
	assert_int_equal(pwrite(fd, "\1CD001\1", 7, 32768), 7);
	assert_int_equal(pwrite(fd, "\x90\1\0\0", 4, 32768 + 80), 4);
	assert_int_equal(pwrite(fd, "\0\x8", 2, 32768 + 128), 2);
	close(fd);
	b = must_open(path("a.iso"), 0);
	block_get_info(b, &info);
	assert_string_equal(info.format, "iso");
	assert_true(info.read_only);
	assert_int_equal(info.size, 400 * 2048);
	assert_int_equal(block_write(b, junk, 8, 0), -EROFS);
	block_close(b);
	assert_int_equal(truncate(path("a.iso"), 100 * 2048), 0);
	expect_refusal(path("a.iso"), NULL, 0, ERR_FILE, "truncated");

	make("q.img", "raw", false, MIB);
	patch(path("q.img"), 0, "QFI\xfb", 4);
	expect_refusal(path("q.img"), NULL, 0, ERR_UNSUPPORTED, "QCOW");
	b = must_open_as(path("q.img"), "raw", 0);
	block_close(b);

	patch(path("q.img"), 0, junk, sizeof(junk));
	assert_int_equal(truncate(path("q.img"), 1000), 0);
	b = must_open(path("q.img"), 0);
	block_get_info(b, &info);
	assert_string_equal(info.format, "raw");
	assert_int_equal(info.size, 1024);
	block_close(b);
	assert_int_equal(truncate(path("q.img"), 0), 0);
	expect_refusal(path("q.img"), NULL, 0, ERR_FILE, "empty");
	expect_refusal(path("nothing"), NULL, 0, ERR_FILE, "No such file");
	expect_refusal(dir, NULL, BLOCK_RDONLY, ERR_FILE, "neither a file nor a disk");
	mkfifo(path("fifo"), 0600);
	expect_refusal(path("fifo"), NULL, BLOCK_RDONLY, ERR_FILE, "neither a file nor a disk");
	expect_refusal(path("q.img"), "floppy", 0, ERR_UNSUPPORTED, "floppy");
}

/* ---- locks ---- */

static void
test_locks(void **state)
{
	struct block *a, *b;
	char pid[32];
	const char *p = make("lock.vdi", "vdi", false, MIB);

	a = must_open(p, 0);
	snprintf(pid, sizeof(pid), "%d", getpid());
	expect_refusal(p, NULL, 0, ERR_IN_USE, pid);
	expect_refusal(p, NULL, BLOCK_RDONLY, ERR_IN_USE, pid);
	block_close(a);
	a = must_open(p, BLOCK_RDONLY);
	b = must_open(p, BLOCK_RDONLY);
	expect_refusal(p, NULL, 0, ERR_IN_USE, pid);
	block_close(a);
	block_close(b);
	block_close(must_open(p, 0));
}

static void
test_lock_of_dead_process(void **state)
{
	const char *p = make("dead.vdi", "vdi", false, MIB);
	int status, ready[2];
	char c, text[32];
	pid_t pid;

	assert_int_equal(pipe(ready), 0);
	pid = fork();
	if (!pid) {
		struct block *b = block_open(p, NULL, 0, NULL);

		if (!b || write(ready[1], "x", 1) != 1)
			_exit(1);
		pause();
		_exit(0);
	}
	assert_int_equal(read(ready[0], &c, 1), 1);
	snprintf(text, sizeof(text), "process %d", (int)pid);
	expect_refusal(p, NULL, 0, ERR_IN_USE, text);
	kill(pid, SIGKILL);
	waitpid(pid, &status, 0);
	block_close(must_open(p, 0));
}

/* ---- requests ---- */

struct op {
	struct block_req req;
	struct iovec iov;
	int result;
	bool done;
};

static void
op_done(struct block_req *r, int result)
{
	struct op *o = container_of(r, struct op, req);

	o->result = result;
	o->done = true;
}

static void
stop_when_done(struct block_req *r, int result)
{
	op_done(r, result);
	loop_stop(*(struct loop **)((struct op *)r)->iov.iov_base);
}

static void
test_requests(void **state)
{
	static struct op ops[64];
	static uint8_t data[64][4096];
	struct block *b = must_open(make("async.vdi", "vdi", false, 100 * MIB), 0);
	struct block_stats st;

	for (int i = 0; i < 64; i++) {
		memset(data[i], i + 1, 4096);
		ops[i].iov = (struct iovec){ data[i], 4096 };
		ops[i].req = (struct block_req){ .op = BLOCK_WRITE,
			.off = (uint64_t)(i % 8) * MIB + i * 4096u,
			.iov = &ops[i].iov,
			.iovcnt = 1,
			.done = op_done };
		block_submit(b, &ops[i].req);
	}
	block_drain(b);
	for (int i = 0; i < 64; i++) {
		assert_true(ops[i].done);
		assert_int_equal(ops[i].result, 0);
		memset(data[i], 0, 4096);
		ops[i].req.op = BLOCK_READ;
		block_submit(b, &ops[i].req);
	}
	block_drain(b);
	for (int i = 0; i < 64; i++)
		assert_int_equal(data[i][4095], i + 1);
	ops[0].req.op = BLOCK_READ;
	ops[0].req.off = 100 * MIB;
	block_submit(b, &ops[0].req);
	ops[1].req.op = BLOCK_FLUSH;
	block_submit(b, &ops[1].req);
	block_drain(b);
	assert_int_equal(ops[0].result, -EINVAL);
	assert_int_equal(ops[1].result, 0);
	block_get_stats(b, &st);
	assert_int_equal(st.writes, 64);
	assert_int_equal(st.bytes_read, 64 * 4096);
	assert_int_equal(st.errors, 1);
	block_close(b);
}

static void
test_loop(void **state)
{
	pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
	struct loop *l = loop_open(&lock);
	struct block *b = must_open(make("loop.vdi", "vdi", false, MIB), 0);
	struct op o[2] = { { .iov = { &l, sizeof(l) } }, { .iov = { &l, sizeof(l) } } };

	pthread_mutex_lock(&lock);
	block_attach_loop(b, l);
	for (int i = 0; i < 2; i++) {
		o[i].req = (struct block_req){ .op = BLOCK_FLUSH, .done = i ? stop_when_done : op_done };
		block_submit(b, &o[i].req);
	}
	pthread_mutex_unlock(&lock);
	loop_run(l);
	block_drain(b); /* the other may come second */
	assert_true(o[0].done && o[1].done);
	block_close(b);
	loop_close(l);
}

/* One at a time, each at another moment after the one before: while a worker watches for it, and when it sleeps. */
static void
test_alone(void **state)
{
	static uint8_t buf[512] = { 1 };
	pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
	struct loop *l = loop_open(&lock); /* which does not run */
	struct block *b = must_open(make("alone.vdi", "vdi", true, MIB), 0);

	block_attach_loop(b, l);
	for (int i = 0; i < 3000; i++) {
		struct op o = { .iov = { buf, 512 } };
		uint64_t until = loop_now() + (uint64_t)i * 37 % 120 * 1000;

		while (loop_now() < until)
			;
		o.req = (struct block_req){
			.op = BLOCK_WRITE, .iov = &o.iov, .iovcnt = 1, .off = (uint64_t)i % 2048 * 512, .done = op_done
		};
		block_submit(b, &o.req);
		until = loop_now() + 2000000000;
		while (!*(volatile bool *)&o.done && loop_now() < until)
			;
		assert_true(o.done);
		assert_int_equal(o.result, 0);
	}
	block_close(b);
	loop_close(l);
}

/* A guest that never flushes loses about a second, not everything, when its process dies. */
static void
test_idle_commit(void **state)
{
	const char *p = make("idle.vdi", "vdi", false, 4 * MIB);
	static uint8_t buf[512] = { 1 };
	struct block *b = must_open(p, 0);
	struct op o = { .iov = { buf, 512 } };

	o.req = (struct block_req){ .op = BLOCK_WRITE, .iov = &o.iov, .iovcnt = 1, .off = MIB, .done = op_done };
	block_submit(b, &o.req);
	block_drain(b);
	assert_int_equal(peek32(p, 4096 + 4), 0xffffffff);
	for (int i = 0; i < 100 && peek32(p, 4096 + 4); i++)
		usleep(50000);
	assert_int_equal(peek32(p, 4096 + 4), 0);
	assert_int_equal(peek32(p, 0x184), 1);
	block_close(b);
}

/* ---- VDI: what a file may say ---- */

static void
test_hostile_headers(void **state)
{
	static const struct {
		uint64_t off;
		uint32_t value;
		const char *words;
	} lies[] = {
		{ 0x44, 0x00020001, "version" },
		{ 0x48, 0, "header" },
		{ 0x48, 0xfffffff0, "header" },
		{ 0x4c, 7, "type" },
		{ 0x4c, 4, "parent" },
		{ 0x154, 0, "block map" },
		{ 0x154, 4097, "block map" },
		{ 0x154, 0xfffffe00, "data" },
		{ 0x158, 0, "data" },
		{ 0x158, 0xfffffe00, "truncated" },
		{ 0x158, 4096, "data" },
		{ 0x168, 4096, "sectors" },
		{ 0x170, 0, "disk" },
		{ 0x170, 1, "disk" },
		{ 0x174, 0x7fffffff, "disk" },
		{ 0x178, 0, "blocks" },
		{ 0x178, 512, "blocks" },
		{ 0x17c, 512, "between" },
		{ 0x180, 0, "disk" },
		{ 0x180, 0xffffffff, "too many" },
		{ 0x180, 0x01000000, "data" },
		{ 0x184, 99, "allocated" },
		{ 4096, 0, "" }, /* good: block 0 is in the file */
		{ 4096, 1, "missing" },
		{ 4096, 9, "out of range" },
		{ 4096, 0xfffffffd, "out of range" },
		{ 4100, 0, "same" },
	};

	for (size_t i = 0; i < ARRAY_LEN(lies); i++) {
		const char *p = make("lie.vdi", "vdi", false, 8 * MIB);
		struct block *b = must_open(p, 0);

		assert_int_equal(block_write(b, "12345678", 8, 0), 0);
		block_close(b);
		patch32(p, lies[i].off, lies[i].value);
		if (*lies[i].words)
			expect_refusal(p, NULL, 0,
				lies[i].off == 0x44 || lies[i].off == 0x178 ? ERR_UNSUPPORTED : ERR_FILE,
				lies[i].words);
		else
			block_close(must_open(p, 0));
	}
}

static void
test_truncated(void **state)
{
	const char *p = make("cut.vdi", "vdi", false, 8 * MIB);
	struct block *b = must_open(p, 0);
	struct stat st;

	assert_int_equal(block_write(b, "12345678", 8, 5 * MIB), 0);
	block_close(b);
	stat(p, &st);
	assert_int_equal(truncate(p, st.st_size - 1), 0);
	expect_refusal(p, NULL, 0, ERR_FILE, "truncated");
	assert_int_equal(truncate(p, 5000), 0);
	expect_refusal(p, NULL, 0, ERR_FILE, "truncated");
	assert_int_equal(truncate(p, 300), 0);
	expect_refusal(p, NULL, 0, ERR_FILE, "truncated");
}

/* An allocation that a crash cut off left bytes behind the last block: they must not show up in the next one. */
static void
test_stale_tail(void **state)
{
	const char *p = make("stale.vdi", "vdi", false, 8 * MIB);
	static uint8_t junk[3 * MIB], buf[MIB], zero[MIB];
	struct block *b;
	struct stat st;

	memset(junk, 0xee, sizeof(junk));
	stat(p, &st);
	patch(p, (uint64_t)st.st_size, junk, sizeof(junk) - 1000);
	b = must_open(p, 0);
	for (int i = 0; i < 4; i++)
		assert_int_equal(block_write(b, "12345678", 8, (uint64_t)i * MIB + 512), 0);
	for (int i = 0; i < 4; i++) {
		assert_int_equal(block_read(b, buf, MIB, (uint64_t)i * MIB), 0);
		assert_memory_equal(buf + 512, "12345678", 8);
		memset(buf + 512, 0, 8);
		assert_memory_equal(buf, zero, MIB);
	}
	block_close(b);
	if (have_qemu_img())
		assert_int_equal(run("qemu-img check -q %s", p), 0);
}

static void
test_zero_entries(void **state)
{
	const char *p = make("zero.vdi", "vdi", false, 4 * MIB);
	static uint8_t buf[512], zero[512];
	struct block *b;

	patch32(p, 4096, 0xfffffffe);
	patch32(p, 4100, 0xffffffff);
	b = must_open(p, 0);
	for (int i = 0; i < 2; i++) {
		assert_int_equal(block_read(b, buf, 512, (uint64_t)i * MIB), 0);
		assert_memory_equal(buf, zero, 512);
		assert_int_equal(block_write(b, "12345678", 8, (uint64_t)i * MIB), 0);
		assert_int_equal(block_read(b, buf, 512, (uint64_t)i * MIB), 0);
		assert_memory_equal(buf, "12345678", 8);
		memset(buf, 0, 8);
		assert_memory_equal(buf, zero, 512);
	}
	block_close(b);
}

/* ---- VDI: images of other people's tools ---- */

static void
test_qemu_images(void **state)
{
	static const char *const options[] = { "-O vdi", "-O vdi -o static=on" };
	const uint64_t size = 9 * MIB + 512;
	struct block *b;

	need_qemu_img();
	begin_model(size);
	make("src.raw", "raw", false, size);
	b = must_open_as(path("src.raw"), "raw", 0);
	for (uint64_t i = 0; i < size; i++)
		model[i] = i / MIB % 2 ? 0 : (uint8_t)rnd(256);
	assert_int_equal(block_write(b, model, size, 0), 0);
	block_close(b);
	for (size_t i = 0; i < ARRAY_LEN(options); i++) {
		unlink(path("q.vdi"));
		assert_int_equal(
			run("qemu-img convert %s -f raw %s %s", options[i], path("src.raw"), path("q.vdi")), 0);
		b = must_open(path("q.vdi"), 0);
		compare(b);
		assert_int_equal(block_write(b, "12345678", 8, MIB), 0);
		memcpy(model + MIB, "12345678", 8);
		compare(b);
		block_close(b);
		memset(model + MIB, 0, 8);
		assert_int_equal(run("qemu-img check -q %s", path("q.vdi")), 0);
	}
}

static int
set_up(void **state)
{
	return make_dir("/tmp", "lodge-block");
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
		{ "a raw image agrees with a model of random operations", test_model_raw, 0, 0, 0 },
		{ "a dynamic VDI agrees with a model of random operations", test_model_vdi_dynamic, 0, 0, 0 },
		{ "a fixed VDI agrees with a model of random operations", test_model_vdi_fixed, 0, 0, 0 },
		{ "a QCOW2 agrees with a model of random operations", test_model_qcow2, 0, 0, 0 },
		{ "a VDI can be made from 512 bytes to 2 TiB", test_create_sizes, 0, 0, 0 },
		{ "a fixed VDI reserves its space and tells its progress", test_create_fixed, 0, 0, 0 },
		{ "a VDI keeps the UUID it was given", test_create_uuid, 0, 0, 0 },
		{ "a creation that is refused leaves nothing", test_create_refusals, 0, 0, 0 },
		{ "a creation that runs out of space leaves nothing", test_create_full_disk, 0, 0, 0 },
		{ "a full disk is ENOSPC and leaves a good image", test_full_disk, 0, 0, 0 },
		{ "the contents tell the format", test_probe, 0, 0, 0 },
		{ "an image has one writer or many readers", test_locks, 0, 0, 0 },
		{ "the lock names its holder and ends with it", test_lock_of_dead_process, 0, 0, 0 },
		{ "requests in any number complete at a drain", test_requests, 0, 0, 0 },
		{ "a completion comes through the loop", test_loop, 0, 0, 0 },
		{ "the only request in flight is done without the loop, whenever it comes", test_alone, 0, 0, 0 },
		{ "an allocation reaches the file without a flush", test_idle_commit, 0, 0, 0 },
		{ "a VDI header that lies is refused", test_hostile_headers, 0, 0, 0 },
		{ "a truncated VDI is refused", test_truncated, 0, 0, 0 },
		{ "what a crash left behind the blocks is never read", test_stale_tail, 0, 0, 0 },
		{ "both kinds of unallocated block read as zeroes", test_zero_entries, 0, 0, 0 },
		{ "images made by qemu-img are read and written", test_qemu_images, 0, 0, 0 },
	};

	return cmocka_run_group_tests(tests, set_up, tear_down);
}
