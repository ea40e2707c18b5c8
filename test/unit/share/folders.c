/* SPDX-License-Identifier: Apache-2.0 */
/* Shared folders and guest properties as a transport uses them: calls in, status and buffers out. */
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/bytes.h"
#include "base/rights.h"
#include "base/str.h"
#include "share/share.h"

static char top[] = "/tmp/lodge-share-XXXXXX";
static struct share *s;
static struct props *props;
static uint32_t client;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t cond = PTHREAD_COND_INITIALIZER;

struct wait {
	struct share_call c;
	bool ended;
};

static void
ended(struct share_call *c)
{
	pthread_mutex_lock(&lock);
	container_of(c, struct wait, c)->ended = true;
	pthread_cond_broadcast(&cond);
	pthread_mutex_unlock(&lock);
}

static int
finish(struct wait *w)
{
	pthread_mutex_lock(&lock);
	while (!w->ended)
		pthread_cond_wait(&cond, &lock);
	pthread_mutex_unlock(&lock);
	return w->c.status;
}

static int
call(struct wait *w)
{
	w->ended = false;
	w->c.client = client;
	w->c.done = ended;
	share_submit(s, &w->c);
	return finish(w);
}

static void
number(struct wait *w, enum share_kind kind, uint64_t v)
{
	w->c.parm[w->c.count++] = (struct share_parm){ .kind = kind, .value = v };
}

static void
buffer(struct wait *w, void *p, size_t n)
{
	w->c.parm[w->c.count++] = (struct share_parm){ .kind = SHARE_BUF, .data = p, .size = (uint32_t)n };
}

/* {size, length, bytes} */
static void
text(struct wait *w, uint8_t *room, const char *t)
{
	put_le16(room, (uint16_t)(strlen(t) + 1));
	put_le16(room + 2, (uint16_t)strlen(t));
	memcpy(room + 4, t, strlen(t) + 1);
	buffer(w, room, strlen(t) + 5);
}

static void
add(const char *name, const char *dir, bool readonly, bool symlinks)
{
	char *path = xasprintf("%s/%s", top, dir);
	struct share_folder f = { .name = name, .fd = open(path, O_PATH | O_DIRECTORY), .readonly = readonly };
	struct err e = { 0 };

	f.symlinks = symlinks;
	assert_true(f.fd >= 0);
	assert_int_equal(share_folder_add(s, &f, &e), 0);
	free(path);
}

static uint32_t
map(const char *name)
{
	struct wait w = { .c.function = 17 };
	uint8_t room[300];

	text(&w, room, name);
	number(&w, SHARE_U32, 0);
	number(&w, SHARE_U32, '/');
	number(&w, SHARE_U32, 1);
	assert_int_equal(call(&w), SHARE_OK);
	return (uint32_t)w.c.parm[1].value;
}

enum { LOOKUP = 1, MKDIR = 4, MUST_BE_NEW = 0x10, MUST_EXIST = 0x100, RD = 0x1000, WR = 0x2000 };

static uint32_t create_mode = 0644;

static int
create(uint32_t root, const char *path, uint32_t flags, uint64_t *handle, uint32_t *result)
{
	struct wait w = { .c.function = 3 };
	uint8_t room[5000], parms[108] = { 0 };
	int r;

	put_le32(parms + 12, flags);
	put_le32(parms + 64, create_mode);
	number(&w, SHARE_U32, root);
	text(&w, room, path);
	buffer(&w, parms, sizeof(parms));
	r = call(&w);
	*handle = le64(parms);
	*result = le32(parms + 8);
	return r;
}

static int
transfer(uint32_t root, uint64_t handle, bool write, char *data, size_t *len)
{
	struct wait w = { .c.function = write ? 6 : 5 };
	int r;

	number(&w, SHARE_U32, root);
	number(&w, SHARE_U64, handle);
	number(&w, SHARE_U64, 0);
	number(&w, SHARE_U32, *len);
	buffer(&w, data, *len);
	r = call(&w);
	*len = w.c.parm[3].value;
	return r;
}

static int
two_names(uint32_t root, uint32_t function, const char *a, const char *b, uint32_t flags)
{
	struct wait w = { .c.function = function };
	uint8_t one[5000], two[5000], info[92];

	number(&w, SHARE_U32, root);
	text(&w, one, a);
	if (b)
		text(&w, two, b);
	if (function == 19)
		buffer(&w, info, sizeof(info));
	else
		number(&w, SHARE_U32, flags);
	return call(&w);
}

static void
make(const char *format, ...)
{
	va_list ap;
	char *c;

	va_start(ap, format);
	if (vasprintf(&c, format, ap) < 0)
		abort();
	va_end(ap);
	assert_int_equal(system(c), 0);
	free(c);
}

static int
open_all(void **state)
{
	struct share_options o = { .max_handles = 8 };
	struct wait w = { .c.function = 16 }, links = { .c.function = 20 };
	struct err e = { 0 };

	strcpy(top, "/tmp/lodge-share-XXXXXX");
	assert_non_null(mkdtemp(top));
	make("cd %s && mkdir -p in/sub out && echo secret >out/secret && ln -s ../out in/esc && ln -s /etc in/abs && "
	     "echo hello >in/f && ln -s f in/l && mkfifo in/pipe",
		top);
	props = props_open();
	o.props = props;
	s = share_open(&o, &e);
	assert_non_null(s);
	add("in", "in", false, false);
	assert_int_equal(share_connect(s, "VBoxSharedFolders", &client), SHARE_OK);
	assert_int_equal(call(&w), SHARE_OK);
	assert_int_equal(call(&links), SHARE_OK);
	return 0;
}

static int
close_all(void **state)
{
	share_close(s);
	props_close(props);
	make("rm -r %s", top);
	return 0;
}

/* ---- tests ---- */

static void
test_files(void **state)
{
	uint32_t root = map("in"), result;
	char data[16] = "written";
	uint64_t h, again;
	size_t n = 7;

	assert_int_equal(create(root, "/new", RD | WR | MUST_BE_NEW, &h, &result), SHARE_OK);
	assert_int_equal(result, 4);
	assert_int_equal(transfer(root, h, true, data, &n), SHARE_OK);
	assert_int_equal(n, 7);
	memset(data, 0, sizeof(data));
	n = sizeof(data);
	assert_int_equal(transfer(root, h, false, data, &n), SHARE_OK);
	assert_int_equal(n, 7);
	assert_string_equal(data, "written");
	assert_int_equal(create(root, "/new", RD | MUST_BE_NEW, &again, &result), SHARE_OK);
	assert_int_equal(result, 3);
	assert_true(again == UINT64_MAX);
	assert_int_equal(create(root, "/none", RD | MUST_EXIST, &again, &result), SHARE_OK);
	assert_int_equal(result, 2);
	assert_int_equal(two_names(root, 14, "/new", "/sub/moved", 5), SHARE_OK);
	assert_int_equal(create(root, "sub/moved", LOOKUP, &again, &result), SHARE_OK);
	assert_int_equal(result, 3);
	assert_int_equal(two_names(root, 11, "/sub/moved", NULL, 1), SHARE_OK);
}

static void
test_nothing_leads_out(void **state)
{
	static const char *const paths[] = { "/esc/secret", "/abs/passwd", "/sub/../../out/secret", "/..",
		"/../out/secret" };
	uint32_t root = map("in"), result;
	uint64_t h;

	for (size_t i = 0; i < ARRAY_LEN(paths); i++) {
		int r = create(root, paths[i], RD | MUST_EXIST, &h, &result);

		assert_true(r == SHARE_ACCESS_DENIED || r == SHARE_INVALID_NAME);
		assert_true(h == UINT64_MAX);
		r = create(root, paths[i], RD | WR, &h, &result);
		assert_true(r < 0 && h == UINT64_MAX);
		assert_true(two_names(root, 11, paths[i], NULL, 1) < 0);
		assert_true(two_names(root, 14, "/f", paths[i], 5) < 0);
		assert_true(two_names(root, 14, paths[i], "/g", 5) < 0);
	}
	/* ".." is refused even where it would stay inside. */
	assert_int_equal(create(root, "/sub/../f", RD | MUST_EXIST, &h, &result), SHARE_INVALID_NAME);
	assert_int_equal(two_names(root, 11, "/sub/..", NULL, 2), SHARE_INVALID_NAME);
	/* A link as the last name is not followed by who wants to see links. */
	assert_int_equal(create(root, "/esc", RD | MUST_EXIST, &h, &result), SHARE_TOO_MANY_SYMLINKS);
	/* Neither is a pipe opened: nobody waits for its other end. */
	assert_int_equal(create(root, "/pipe", RD | MUST_EXIST, &h, &result), SHARE_ACCESS_DENIED);
	/* The folder itself cannot be removed or moved. */
	assert_true(two_names(root, 11, "/", NULL, 2) < 0);
	assert_true(two_names(root, 14, "/", "/x", 0) < 0);
}

/* One thread turns a directory into a link and back while the guest looks through it. */
static void *
swapper(void *stop)
{
	char *a = xasprintf("%s/in/race", top), *b = xasprintf("%s/in/race2", top), *link = xasprintf("%s/in/rl", top);

	while (!__atomic_load_n((bool *)stop, __ATOMIC_RELAXED)) {
		rename(a, b);
		rename(link, a);
		rename(a, link);
		rename(b, a);
	}
	free(a);
	free(b);
	free(link);
	return NULL;
}

static void
test_races_do_not_lead_out_either(void **state)
{
	uint32_t root = map("in"), result;
	bool stop = false;
	pthread_t t;

	make("mkdir %s/in/race && ln -s ../out %s/in/rl", top, top);
	pthread_create(&t, NULL, swapper, &stop);
	for (int i = 0; i < 3000; i++) {
		uint64_t h;
		struct wait w = { .c.function = 4 };

		if (create(root, "/race/secret", RD | (i & 1 ? MUST_EXIST : WR), &h, &result) || h == UINT64_MAX)
			continue;
		number(&w, SHARE_U32, root);
		number(&w, SHARE_U64, h);
		assert_int_equal(call(&w), SHARE_OK);
	}
	__atomic_store_n(&stop, true, __ATOMIC_RELAXED);
	pthread_join(t, NULL);
	make("cd %s && [ \"$(cat out/secret)\" = secret ] && [ \"$(ls out)\" = secret ]", top);
}

/* Ask for mode and time of what is open. */
static int
set_mode(uint32_t root, uint64_t handle, uint32_t mode)
{
	struct wait w = { .c.function = 9 };
	uint8_t info[92] = { 0 };

	put_le64(info + 24, 1000000000);
	put_le32(info + 48, mode);
	number(&w, SHARE_U32, root);
	number(&w, SHARE_U64, handle);
	number(&w, SHARE_U32, 1 | 8);
	number(&w, SHARE_U32, sizeof(info));
	buffer(&w, info, sizeof(info));
	return call(&w);
}

static void
test_read_only_and_symlinks(void **state)
{
	uint32_t root, result;
	uint64_t h;

	add("ro", "in", true, true);
	root = map("ro");
	assert_int_equal(create(root, "/f", RD | MUST_EXIST, &h, &result), SHARE_OK);
	assert_int_equal(set_mode(root, h, 0777), SHARE_WRITE_PROTECT);
	assert_int_equal(create(root, "/f", RD | WR | MUST_EXIST, &h, &result), SHARE_WRITE_PROTECT);
	assert_int_equal(create(root, "/g", RD, &h, &result), SHARE_WRITE_PROTECT);
	assert_int_equal(create(root, "/d", MKDIR, &h, &result), SHARE_WRITE_PROTECT);
	assert_int_equal(two_names(root, 11, "/f", NULL, 1), SHARE_WRITE_PROTECT);
	assert_int_equal(two_names(root, 14, "/f", "/g", 5), SHARE_WRITE_PROTECT);
	assert_int_equal(two_names(root, 19, "/s", "f", 0), SHARE_WRITE_PROTECT);
	assert_int_equal(two_names(map("in"), 19, "/s", "f", 0), SHARE_WRITE_PROTECT);
	share_folder_symlinks(s, "in", true);
	assert_int_equal(two_names(map("in"), 19, "/s", "f", 0), SHARE_OK);
}

static void
test_a_guest_makes_no_setuid_programs(void **state)
{
	uint32_t root = map("in"), result;
	uint64_t h;

	make("chmod 2755 %s/in/f", top);
	assert_int_equal(create(root, "/f", RD | WR | MUST_EXIST, &h, &result), SHARE_OK);
	assert_int_equal(set_mode(root, h, S_IFREG | 06700), SHARE_OK);
	make("[ $(stat -c %%a %s/in/f) = 2700 ]", top); /* what the host has set stays */
	create_mode = S_IFREG | 06755;
	assert_int_equal(create(root, "/new", RD | WR | MUST_BE_NEW, &h, &result), SHARE_OK);
	assert_int_equal(create(root, "/dir", MKDIR | MUST_BE_NEW, &h, &result), SHARE_OK);
	create_mode = 0644;
	make("[ $(stat -c %%a %s/in/new) = 755 ] && [ $(stat -c %%a %s/in/dir) = 755 ]", top, top);
}

static void
test_handles_have_a_limit(void **state)
{
	uint32_t root = map("in"), result;
	uint64_t h[9];

	for (int i = 0; i < 8; i++)
		assert_int_equal(create(root, "/f", RD | MUST_EXIST, &h[i], &result), SHARE_OK);
	assert_int_equal(create(root, "/f", RD | MUST_EXIST, &h[8], &result), SHARE_TOO_MANY_OPEN_FILES);
	assert_int_equal(share_open_handles(s), 8);
	assert_int_equal(share_disconnect(s, client), SHARE_OK);
	assert_int_equal(share_open_handles(s), 0);
}

static void
test_a_folder_that_is_gone(void **state)
{
	uint32_t root = map("in"), result;
	struct err e = { 0 };
	char data[8];
	size_t n = 8;
	uint64_t h;

	assert_int_equal(create(root, "/f", RD | MUST_EXIST, &h, &result), SHARE_OK);
	assert_int_equal(share_folder_remove(s, "in", &e), 0);
	assert_int_equal(transfer(root, h, false, data, &n), SHARE_MEDIA_NOT_PRESENT);
	add("in", "in", false, false);
	n = 8;
	assert_int_equal(transfer(root, h, false, data, &n), SHARE_INVALID_HANDLE);
	assert_int_equal(create(root, "/f", RD | MUST_EXIST, &h, &result), SHARE_OK);
}

static void
test_saved_handles(void **state)
{
	static uint8_t saved[SHARE_SAVED_SIZE];
	uint32_t root = map("in"), result;
	uint64_t f, gone;
	char data[8];
	size_t n = 8;

	make("echo x >%s/in/gone", top);
	assert_int_equal(create(root, "/f", RD | MUST_EXIST, &f, &result), SHARE_OK);
	assert_int_equal(create(root, "/gone", RD | MUST_EXIST, &gone, &result), SHARE_OK);
	share_save(s, saved);
	share_reset(s);
	make("rm %s/in/gone && echo y >%s/in/gone", top, top);
	share_load(s, saved);
	assert_int_equal(transfer(root, f, false, data, &n), SHARE_OK);
	assert_memory_equal(data, "hello\n", 6);
	n = 8;
	assert_int_equal(transfer(root, gone, false, data, &n), SHARE_DEV_IO_ERROR);
	for (size_t i = 0; i < 4096; i++) { /* damaged */
		saved[i * 7 % SHARE_SAVED_SIZE] ^= (uint8_t)(i * 31);
		if (i % 64 == 0)
			share_load(s, saved);
	}
}

static int
no_openat2(int dirfd, const char *path, const void *how, size_t size)
{
	errno = ENOSYS;
	return -1;
}

static void
test_a_kernel_without_openat2_shares_nothing(void **state)
{
	struct share_options o = { .openat2 = no_openat2 };
	struct share_folder f = { .name = "x", .fd = open("/tmp", O_PATH | O_DIRECTORY) };
	struct err e = { 0 };
	struct share *without = share_open(&o, &e);

	assert_int_equal(share_folder_add(without, &f, &e), -1);
	assert_int_equal(e.code, ERR_UNSUPPORTED);
	assert_non_null(strstr(e.text, "openat2"));
	share_close(without);
}

static int
careless_openat2(int dirfd, const char *path, const void *how, size_t size)
{
	const struct open_how *h = how;

	return openat(dirfd, path, (int)h->flags & ~O_NOFOLLOW, (mode_t)h->mode);
}

/* What a hole in the handling of paths would give a guest: the folder's threads have no rights outside. */
static void
test_the_kernel_holds_guests_inside_too(void **state)
{
	struct share_options o = { .confine = true, .keep_capabilities = true, .openat2 = careless_openat2 };
	struct share *strict = s;
	uint32_t root, result;
	struct err e = { 0 };
	struct wait w = { .c.function = 16 };
	uint64_t h;

	if (landlock_version() < 2) {
		print_message("SKIPPED: this kernel has no Landlock of version 2\n");
		skip();
	}
	s = share_open(&o, &e);
	assert_non_null(s);
	add("in", "in", false, true);
	assert_int_equal(share_connect(s, "VBoxSharedFolders", &client), SHARE_OK);
	assert_int_equal(call(&w), SHARE_OK);
	root = map("in");
	assert_int_equal(create(root, "/f", RD | MUST_EXIST, &h, &result), SHARE_OK);
	assert_int_equal(create(root, "/esc/secret", RD | MUST_EXIST, &h, &result), SHARE_ACCESS_DENIED);
	assert_int_equal(create(root, "/esc/secret", RD | WR | MUST_EXIST, &h, &result), SHARE_ACCESS_DENIED);
	assert_int_equal(create(root, "/esc/new", RD | WR, &h, &result), SHARE_ACCESS_DENIED);
	assert_int_equal(create(root, "/esc/dir", MKDIR, &h, &result), SHARE_ACCESS_DENIED);
	assert_int_equal(create(root, "/abs/passwd", RD | MUST_EXIST, &h, &result), SHARE_ACCESS_DENIED);
	assert_int_equal(two_names(root, 11, "/esc/secret", NULL, 1), SHARE_ACCESS_DENIED);
	assert_true(two_names(root, 14, "/esc/secret", "/stolen", 5) < 0);
	assert_true(two_names(root, 14, "/f", "/esc/f", 5) < 0);
	assert_true(two_names(root, 19, "/esc/link", "x", 0) < 0);
	share_close(s);
	s = strict;
	make("cd %s && [ \"$(cat out/secret)\" = secret ] && [ \"$(ls out)\" = secret ] && [ -e in/f ]", top);
}

/* ---- guest properties ---- */

static void
test_properties(void **state)
{
	struct wait get = { .c.function = 1 }, set = { .c.function = 2 }, wait = { .c.function = 6 };
	char value[64], pattern[] = "/a/*", changed[128];
	unsigned flags = PROP_RDONLYGUEST;

	assert_int_equal(share_connect(s, "VBoxGuestPropSvc", &client), SHARE_OK);
	buffer(&wait, pattern, sizeof(pattern));
	number(&wait, SHARE_U64, 0);
	buffer(&wait, changed, sizeof(changed));
	number(&wait, SHARE_U32, 0);
	wait.c.client = client;
	wait.c.done = ended;
	share_submit(s, &wait.c);
	assert_false(wait.ended);

	buffer(&set, (char[]){ "/a/b" }, 5);
	buffer(&set, (char[]){ "c" }, 2);
	buffer(&set, (char[]){ "TRANSIENT" }, 10);
	assert_int_equal(call(&set), SHARE_OK);
	assert_int_equal(finish(&wait), SHARE_OK);
	assert_memory_equal(changed, "/a/b\0c\0TRANSIENT", 17);

	buffer(&get, (char[]){ "/a/b" }, 5);
	buffer(&get, value, sizeof(value));
	number(&get, SHARE_U64, 0);
	number(&get, SHARE_U32, 0);
	assert_int_equal(call(&get), SHARE_OK);
	assert_memory_equal(value, "c\0TRANSIENT", 12);
	assert_int_equal(get.c.parm[3].value, 12);
	assert_int_equal(props_set(props, PROP_BY_HOST, "/a/b", "d", &flags), SHARE_OK);
	assert_int_equal(call(&set), SHARE_PERMISSION_DENIED);
	set.c.parm[1].size = 1; /* not terminated */
	assert_int_equal(call(&set), SHARE_INVALID_PARAMETER);
	assert_true(prop_match("/x|/a/*c", "/a/bc"));
	assert_false(prop_match("/a/?", "/a/bc"));
}

int
main(void)
{
	umask(022);
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_files, open_all, close_all),
		cmocka_unit_test_setup_teardown(test_nothing_leads_out, open_all, close_all),
		cmocka_unit_test_setup_teardown(test_races_do_not_lead_out_either, open_all, close_all),
		cmocka_unit_test_setup_teardown(test_read_only_and_symlinks, open_all, close_all),
		cmocka_unit_test_setup_teardown(test_a_guest_makes_no_setuid_programs, open_all, close_all),
		cmocka_unit_test_setup_teardown(test_handles_have_a_limit, open_all, close_all),
		cmocka_unit_test_setup_teardown(test_a_folder_that_is_gone, open_all, close_all),
		cmocka_unit_test_setup_teardown(test_saved_handles, open_all, close_all),
		cmocka_unit_test_setup_teardown(test_a_kernel_without_openat2_shares_nothing, open_all, close_all),
		cmocka_unit_test_setup_teardown(test_the_kernel_holds_guests_inside_too, open_all, close_all),
		cmocka_unit_test_setup_teardown(test_properties, open_all, close_all),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
