/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Chains of differencing images, in every mixture of formats: random work beside a model, overlays put in front and
 * neighbours merged while requests are on their way, and what a child says when its parent is not what it was.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sys/stat.h>

#include "test/unit/block/disk.h"

#define SIZE (9ull * MIB + 1536)

static const char *const formats[] = { "vdi", "vmdk", "vhd", "qcow2" };

/* A chain of `length` images, "c0" the base, with data in each; `format` NULL: at random. The top is open. */
static struct block *
make_chain(const char *format, int length, int ops)
{
	struct block_create c = { .path = path("c0"), .format = format ? format : formats[rnd(4)], .size = SIZE };
	struct err e = { 0 };
	struct block *b;

	must_run("rm -rf c*");
	memset(model, 0, SIZE);
	if (block_create(&c, &e))
		fail_msg("%s", e.text);
	for (int i = 0;; i++) {
		b = must_open(path("c%d", i), 0);
		compare(b);
		work(b, ops);
		compare(b);
		if (i == length - 1)
			return b;
		block_close(b);
		must_diff(path("c%d", i), path("c%d", i + 1), format ? format : formats[rnd(4)]);
	}
}

static void
test_models(void **state)
{
	for (size_t i = 0; i < ARRAY_LEN(formats); i++) {
		struct block *b = make_chain(formats[i], 5, 60);
		struct block_info info;

		assert_int_equal(block_chain_length(b), 5);
		assert_true(block_chain_info(b, 4, &info));
		assert_string_equal(info.path, path("c0"));
		assert_null(info.backing);
		block_get_info(b, &info);
		assert_string_equal(info.variant, "differencing");
		assert_string_equal(info.backing, path("c3"));
		block_close(b);
		for (int round = 0; round < 4; round++) {
			b = must_open(path("c4"), 0);
			compare(b);
			work(b, 80);
			block_close(b);
		}
		b = must_open(path("c4"), BLOCK_RDONLY);
		compare(b);
		block_close(b);
	}
}

/*
 * What block_create() does not make, qemu-img does: the options for the image %d of a chain. With -c what an image holds is
 * compressed before the next is put on it, and again before the top is worked on.
 */
static struct block *
make_qemu_chain(const char *options, int length, int ops)
{
	bool compressed = str_starts(options, "-c ");
	char o[96], backing[32] = "", size[32];
	struct block *b;

	must_run("rm -f c*");
	memset(model, 0, SIZE);
	for (int i = 0;; i++) {
		snprintf(o, sizeof(o), options + (compressed ? 3 : 0), i);
		snprintf(size, sizeof(size), "%llu", SIZE);
		if (i)
			snprintf(backing, sizeof(backing), "-F qcow2 -b c%d", i - 1);
		must_run("qemu-img create -q -f qcow2 -o %s %s c%d %s", o, backing, i, i ? "" : size);
		b = must_open(path("c%d", i), 0);
		compare(b);
		work(b, ops);
		compare(b);
		block_close(b);
		if (i)
			snprintf(backing, sizeof(backing), "-F qcow2 -B c%d", i - 1);
		if (compressed)
			must_run("qemu-img convert -c -O qcow2 -o %s %s c%d t && mv t c%d", o, i ? backing : "", i, i);
		if (i == length - 1)
			return must_open(path("c%d", i), 0);
	}
}

static void
test_qemu_models(void **state)
{
	static const char *const options[] = { "compat=0.10", "-c compat=0.10", "-c compression_type=zstd",
		"extended_l2=on", "-c extended_l2=on,cluster_size=16k", "cluster_size=512,refcount_bits=64",
		"cluster_size=2M,refcount_bits=1", "lazy_refcounts=on", "data_file=c%d.data",
		"data_file=c%d.data,extended_l2=on" };

	need_qemu_img();
	for (size_t i = 0; i < ARRAY_LEN(options); i++) {
		struct block *b = make_qemu_chain(options[i], 5, 40);

		assert_int_equal(block_chain_length(b), 5);
		for (int round = 0; round < 3; round++) {
			compare(b);
			work(b, 60);
			block_close(b);
			b = must_open(path("c4"), 0);
		}
		compare(b);
		block_close(b);
		save_model("c.raw");
		for (int k = 0; k < 5; k++)
			must_run("qemu-img check -q -f qcow2 c%d", k);
		must_run("qemu-img compare -q -f raw -F qcow2 c.raw c4");
	}
}

static void
test_mixed(void **state)
{
	for (int i = 0; i < 12; i++) {
		struct block *b = make_chain(NULL, 5, 40);

		work(b, 60);
		compare(b);
		block_close(b);
		b = must_open(path("c4"), 0);
		compare(b);
		block_close(b);
	}
}

static void
test_raw_parent(void **state)
{
	struct err e = { 0 };

	for (size_t i = 0; i < ARRAY_LEN(formats); i++) {
		struct block *b;
		FILE *f;

		must_run("rm -rf top base.raw");
		for (uint64_t k = 0; k < SIZE; k += 8)
			put_le64(model + k, k / MIB % 2 ? rnd(~0ull) : 0);
		f = fopen(path("base.raw"), "wb");
		assert_int_equal(fwrite(model, 1, SIZE, f), SIZE);
		fclose(f);
		if (!strcmp(formats[i], "vhd")) {
			assert_int_equal(
				block_create_diff(path("base.raw"), "raw", path("top"), formats[i], NULL, &e), -1);
			assert_non_null(strstr(e.text, "raw"));
			continue;
		}
		must_diff(path("base.raw"), path("top"), formats[i]);
		b = must_open(path("top"), 0);
		compare(b);
		work(b, 100);
		compare(b);
		block_close(b);
	}
}

static void
test_moved_parent(void **state)
{
	for (size_t i = 0; i < ARRAY_LEN(formats); i++) {
		struct block *b = make_chain(formats[i], 2, 40);
		struct err e = { 0 };

		block_close(b);
		/* Together they can go anywhere. */
		must_run("rm -rf there; mkdir there; mv c0 c1 there");
		b = must_open(path("there/c1"), BLOCK_RDONLY);
		compare(b);
		block_close(b);
		/* A parent somewhere else is said so. */
		must_run("mkdir -p away/deep; mv there/c0 away/deep/c0");
		b = block_open(path("there/c1"), NULL, 0, &e);
		assert_null(b);
		assert_non_null(strstr(e.text, "parent"));
		if (block_rebase(path("there/c1"), path("away/deep/c0"), NULL, &e))
			fail_msg("%s", e.text);
		b = must_open(path("there/c1"), 0);
		compare(b);
		block_close(b);
		must_run("rm -rf away there");
	}
}

static void
test_changed_parent(void **state)
{
	static const char *const which[] = { "vdi", "vmdk" };

	for (size_t i = 0; i < ARRAY_LEN(which); i++) {
		struct block *b = make_chain(which[i], 2, 20);
		struct err e = { 0 };

		block_close(b);
		b = must_open(path("c0"), 0);
		assert_int_equal(block_write(b, "changed!", 8, 0), 0);
		block_close(b);
		assert_null(block_open(path("c1"), NULL, 0, &e));
		assert_non_null(strstr(e.text, "was written to after"));
	}
}

static void
test_other_parent(void **state)
{
	struct block *b = make_chain("vdi", 2, 20);
	struct block_create c = { .path = path("c0"), .format = "vdi", .size = SIZE };
	struct err e = { 0 };

	block_close(b);
	must_run("rm c0");
	assert_int_equal(block_create(&c, &e), 0);
	assert_null(block_open(path("c1"), NULL, 0, &e));
	assert_non_null(strstr(e.text, "another UUID"));
}

/* VirtualBox does not write where the parent is: it lies in the same directory, or above. */
static void
test_found_by_uuid(void **state)
{
	struct block *b = make_chain("vdi", 2, 20);
	uint8_t zero[3072] = { 0 };
	int fd;

	block_close(b);
	fd = open(path("c1"), O_RDWR);
	assert_int_equal(pwrite(fd, zero, sizeof(zero), 512), sizeof(zero));
	close(fd);
	must_run("rm -rf m; mkdir -p m/Snapshots; mv c0 m/base.vdi; mv c1 m/Snapshots/{x}.vdi");
	b = must_open(path("m/Snapshots/{x}.vdi"), 0);
	compare(b);
	block_close(b);
	must_run("rm -rf m");
}

/* ---- overlays and merges ---- */

static void
push(struct block *b, const char *name, const char *format)
{
	struct err e = { 0 };

	if (block_push_overlay(b, path("%s", name), format, NULL, &e))
		fail_msg("%s", e.text);
}

static void
test_push(void **state)
{
	for (int i = 0; i < 8; i++) {
		struct block *b = make_chain(formats[i % 4], 1, 40);
		struct err e = { 0 };

		for (int k = 1; k < 8; k++) {
			push(b, path("c%d", k) + strlen(dir) + 1, formats[rnd(4)]);
			compare(b);
			work(b, 20);
		}
		assert_int_equal(block_chain_length(b), 8);
		assert_int_equal(block_push_overlay(b, path("c3"), "vdi", NULL, &e), -1);
		assert_int_equal(block_push_overlay(b, path("c9"), "raw", NULL, &e), -1);
		compare(b);
		work(b, 20);
		block_close(b);
		b = must_open(path("c7"), 0);
		compare(b);
		block_close(b);
	}
}

static void
merge(struct block *b, int child, enum block_merge_way way)
{
	struct err e = { 0 };

	if (block_merge_offline(b, child, way, NULL, &e))
		fail_msg("%s", e.text);
}

static void
test_merge_offline(void **state)
{
	for (int i = 0; i < 24; i++) {
		struct block *b = make_chain(i < 8 ? formats[i % 4] : NULL, 5, 30);
		struct block_info info;
		char top[160];

		for (int length = 5; length > 1; length--) {
			int child = (int)rnd((uint64_t)length - 1), up = (int)rnd(2);

			assert_int_equal(block_chain_length(b), length);
			if (getenv("TALK")) {
				for (int k = 0; block_chain_info(b, k, &info); k++)
					fprintf(stderr, "%s %s, ", info.path, info.format);
				fprintf(stderr, "round %d child %d %s\n", i, child, up ? "up" : "down");
			}
			merge(b, child, up ? BLOCK_MERGE_UP : BLOCK_MERGE_DOWN);
			compare(b);
			work(b, 10);
			block_get_info(b, &info);
			snprintf(top, sizeof(top), "%s", info.path);
			block_close(b);
			b = must_open(top, 0);
			compare(b);
		}
		assert_int_equal(block_chain_length(b), 1);
		work(b, 20);
		block_close(b);
		b = must_open(top, BLOCK_RDONLY);
		compare(b);
		block_close(b);
	}
}

/* A guest with requests on their way: numbered sectors, one request at a time for each of its threads' own part. */
struct guest {
	struct block *b;
	struct block_req req;
	struct iovec iov;
	uint8_t buf[65536];
	uint64_t off, len;
	uint64_t from, to; /* its part of the disk */
	int left;
};

static pthread_mutex_t machine = PTHREAD_MUTEX_INITIALIZER;

static void guest_go(struct guest *g);

static void
guest_done(struct block_req *r, int result)
{
	struct guest *g = r->done == guest_done ? (struct guest *)((char *)r - offsetof(struct guest, req)) : NULL;

	assert_int_equal(result, 0);
	if (r->op == BLOCK_READ)
		assert_memory_equal(g->buf, model + g->off, g->len);
	if (g->left-- > 0)
		guest_go(g);
}

static void
guest_go(struct guest *g)
{
	int what = (int)rnd(8);

	g->off = g->from + rnd((g->to - g->from) / 512) * 512;
	g->len = (rnd(120) + 1) * 512;
	g->len = MIN(g->len, g->to - g->off);
	g->iov = (struct iovec){ g->buf, g->len };
	g->req = (struct block_req){ .off = g->off, .len = g->len, .iov = &g->iov, .iovcnt = 1, .done = guest_done };
	g->req.op = what == 0 ? BLOCK_FLUSH : what == 1 ? BLOCK_WRITE_ZEROES : what < 4 ? BLOCK_READ : BLOCK_WRITE;
	if (g->req.op == BLOCK_WRITE_ZEROES)
		memset(model + g->off, 0, g->len);
	if (g->req.op == BLOCK_WRITE) {
		for (uint64_t i = 0; i < g->len; i += 8)
			put_le64(g->buf + i, rnd(~0ull));
		memcpy(model + g->off, g->buf, g->len);
	}
	block_submit(g->b, &g->req);
}

struct notes {
	struct loop *loop;
	int ready;
};

static void
notify(void *opaque, struct block_merge *m)
{
	__atomic_add_fetch(&((struct notes *)opaque)->ready, 1, __ATOMIC_SEQ_CST);
}

static void *
loop_thread(void *l)
{
	loop_run(l);
	return NULL;
}

static void
merge_beside(struct block *b, struct notes *notes, int child, enum block_merge_way way)
{
	int before = __atomic_load_n(&notes->ready, __ATOMIC_SEQ_CST);
	struct err e = { 0 };
	struct block_merge *m = block_merge_start(b, child, way, notify, notes, &e);

	if (!m)
		fail_msg("%s", e.text);
	while (block_merge_poll(m, NULL, &e) == BLOCK_MERGE_RUNNING)
		usleep(200);
	if (block_merge_poll(m, NULL, &e) != BLOCK_MERGE_READY)
		fail_msg("%s", e.text);
	while (child % 2 == 0 && __atomic_load_n(&notes->ready, __ATOMIC_SEQ_CST) == before)
		usleep(100);
	usleep((useconds_t)(7 * (before % 3) * 100)); /* the guest writes to both for a while */
	pthread_mutex_lock(&machine);
	if (block_merge_finish(m, &e))
		fail_msg("%s", e.text);
	pthread_mutex_unlock(&machine);
}

static void
test_merge_live(void **state)
{
	for (int i = 0; i < 20; i++) {
		struct block *b = make_chain(i < 8 ? formats[i % 4] : NULL, 4, 30);
		struct notes notes = { .loop = loop_open(&machine) };
		static struct guest guests[6];
		struct block_info info;
		pthread_t thread;
		char top[160];

		pthread_mutex_lock(&machine);
		block_attach_loop(b, notes.loop);
		for (int k = 0; k < 6; k++) {
			guests[k] = (struct guest){ .b = b, .left = 1000000 };
			guests[k].from = SIZE / 6 / 512 * 512 * (uint64_t)k;
			guests[k].to = k == 5 ? SIZE : SIZE / 6 / 512 * 512 * (uint64_t)(k + 1);
			guest_go(&guests[k]);
		}
		pthread_mutex_unlock(&machine);
		pthread_create(&thread, NULL, loop_thread, notes.loop);
		push(b, "c4", formats[i % 4]);
		for (int length = 5; length > 1; length--)
			merge_beside(b, &notes, (i + length) % (length - 1),
				(i + length) % 3 ? BLOCK_MERGE_DOWN : BLOCK_MERGE_UP);
		pthread_mutex_lock(&machine);
		for (int k = 0; k < 6; k++)
			guests[k].left = 0;
		block_drain(b);
		block_attach_loop(b, NULL);
		pthread_mutex_unlock(&machine);
		loop_stop(notes.loop);
		pthread_join(thread, NULL);
		loop_close(notes.loop);
		assert_in_range(notes.ready, 1, 4);
		compare(b);
		assert_int_equal(block_chain_length(b), 1);
		block_get_info(b, &info);
		snprintf(top, sizeof(top), "%s", info.path);
		block_close(b);
		b = must_open(top, 0);
		compare(b);
		block_close(b);
	}
}

/* Half a merge does no harm, whichever of the two is opened afterwards. */
static void
test_merge_cancel(void **state)
{
	for (int i = 0; i < 12; i++) {
		struct block *b = make_chain(NULL, 3, 40);
		struct err e = { 0 };
		struct block_merge *m =
			block_merge_start(b, i & 1, i & 2 ? BLOCK_MERGE_UP : BLOCK_MERGE_DOWN, NULL, NULL, &e);

		if (!m)
			fail_msg("%s", e.text);
		assert_int_equal(block_merge_start(b, 0, BLOCK_MERGE_UP, NULL, NULL, &e) == NULL, 1);
		if (i & 4)
			assert_int_equal(block_merge_wait(m, NULL, &e), 0);
		work(b, 10);
		if (i == 5)
			block_close(b); /* as a crash would, with a flush */
		else
			block_merge_cancel(m);
		if (i != 5) {
			compare(b);
			assert_int_equal(block_chain_length(b), 3);
			block_close(b);
		}
		b = must_open(path("c2"), 0);
		compare(b);
		merge(b, 0, BLOCK_MERGE_UP);
		compare(b);
		block_close(b);
	}
}

/* A parent that another machine reads through to is not written to. */
static void
test_merge_shared(void **state)
{
	struct block *b = make_chain("vdi", 2, 20), *other;
	struct err e = { 0 };

	must_diff(path("c0"), path("other"), "vdi");
	other = must_open(path("other"), 0);
	assert_null(block_merge_start(b, 0, BLOCK_MERGE_DOWN, NULL, NULL, &e));
	assert_int_equal(e.code, ERR_IN_USE);
	compare(b);
	merge(b, 0, BLOCK_MERGE_UP);
	compare(b);
	block_close(other);
	block_close(b);
	must_run("rm other");
}

static int
set_up(void **state)
{
	begin_model(SIZE);
	return make_dir("/dev/shm", "lodge-chains");
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
		{ "chains of five of each format show what a model does", test_models, 0, 0, 0 },
		{ "chains of five of what only qemu-img makes do", test_qemu_models, 0, 0, 0 },
		{ "chains of five in any mixture of formats do", test_mixed, 0, 0, 0 },
		{ "a raw disk can be a parent, and the child says that it is raw", test_raw_parent, 0, 0, 0 },
		{ "a chain can move as a whole, and a child follows its parent", test_moved_parent, 0, 0, 0 },
		{ "a parent that was written to after the child was made is refused", test_changed_parent, 0, 0, 0 },
		{ "another image in the place of the parent is refused", test_other_parent, 0, 0, 0 },
		{ "a VDI without a path of its parent finds it by the UUID", test_found_by_uuid, 0, 0, 0 },
		{ "overlays can be put in front of an open disk", test_push, 0, 0, 0 },
		{ "any neighbours can be merged, up and down", test_merge_offline, 0, 0, 0 },
		{ "neighbours are merged while the guest reads and writes", test_merge_live, 0, 0, 0 },
		{ "a merge that is given up changes nothing", test_merge_cancel, 0, 0, 0 },
		{ "a parent that others use is not merged into", test_merge_shared, 0, 0, 0 },
	};

	return cmocka_run_group_tests(tests, set_up, tear_down);
}
