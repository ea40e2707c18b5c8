/* SPDX-License-Identifier: Apache-2.0 */
/* Saved states: what comes out is what went in, and nothing else is let in. */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "base/bytes.h"
#include "test/unit/state/machine.h"

#define RAM (8u << 20)

static const struct rig_options usual = { .ram = RAM, .cpus = 2, .engine = "interp" };

struct fixture {
	char dir[64];
	uint32_t seed;
};

static uint32_t
draw(struct fixture *f)
{
	f->seed = f->seed * 1664525 + 1013904223;
	return f->seed >> 8;
}

static int
setup(void **state)
{
	struct fixture *f = xcalloc(1, sizeof(*f));

	snprintf(f->dir, sizeof(f->dir), "/tmp/lodge-state-XXXXXX");
	assert_non_null(mkdtemp(f->dir));
	f->seed = 1;
	*state = f;
	return 0;
}

static int
teardown(void **state)
{
	struct fixture *f = *state;
	char command[128];

	snprintf(command, sizeof(command), "rm -rf %s", f->dir);
	assert_int_equal(system(command), 0);
	free(f);
	return 0;
}

/* A guest that knocks at every door: ports, registers, memory, processor state. */
static void
disturb(struct fixture *f, struct rig *r)
{
	static const uint16_t ports[] = { 0x20, 0x21, 0x40, 0x43, 0x61, 0x70, 0x71, 0x60, 0x64, 0x3c0, 0x3c4, 0x3d4,
		0x3f9, 0x1f2, 0x1f6, 0x600, 0xcf8 };
	struct machine *m = pc_machine(r->pc);
	struct cpus *c = pc_cpus(r->pc);
	struct ram *ram = m->mem.rams;

	machine_lock(m);
	for (int i = 0; i < 3000; i++)
		io_write(&m->io, ports[draw(f) % ARRAY_LEN(ports)], draw(f), 1);
	for (unsigned devfn = 0; devfn < 256; devfn++)
		for (int i = 0; i < 20; i++)
			pci_config_write(&m->pci, devfn, 0x10 + draw(f) % 0x80, draw(f), 1);
	for (; ram; ram = ram->next)
		for (uint64_t at = 0; at < ram->size; at += 1 + draw(f) % 20000)
			ram->host[at] = (uint8_t)draw(f);
	for (int i = 0; i < c->count; i++) {
		struct x86_state *s = &c->cpu[i]->state;

		for (int g = 0; g < 16; g++)
			s->gpr[g] = (uint64_t)draw(f) << 32 | draw(f);
		for (int z = 0; z < 32; z++)
			memset(s->zmm[z], (int)draw(f), 64);
		s->rip = draw(f);
		s->seg[SEG_FS].base = draw(f);
		s->x87.mxcsr = 0x1fa0;
	}
	clock_set(&m->clock, 1234567890123, 9876543210);
	machine_unlock(m);
}

static char *
path_of(struct fixture *f, const char *name)
{
	return xasprintf("%s/%s", f->dir, name);
}

static void
save(struct fixture *f, struct rig *r, const char *name)
{
	char *path = path_of(f, name);
	int fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);
	struct state_numbers n;
	struct err e = { 0 };

	assert_true(fd >= 0);
	if (state_save(fd, pc_machine(r->pc), pc_cpus(r->pc), NULL, &n, &e))
		fail_msg("%s", e.text);
	assert_true(n.memory >= RAM && n.written > 4096);
	close(fd);
	free(path);
}

static struct state_file *
open_state(struct fixture *f, const char *name, struct err *e)
{
	char *path = path_of(f, name);
	int fd = open(path, O_RDONLY);
	struct state_file *s = state_open(fd, path, e);

	free(path);
	return s;
}

static int
load_into(struct rig *r, struct state_file *s, int uffd, struct err *e)
{
	struct machine *m = pc_machine(r->pc);
	int result;

	machine_lock(m);
	result = state_load(s, m, pc_cpus(r->pc), e) || state_load_memory(s, m, uffd, e);
	machine_unlock(m);
	return result ? -1 : 0;
}

static void
assert_same_file(struct fixture *f, const char *a, const char *b)
{
	char *pa = path_of(f, a), *pb = path_of(f, b);
	size_t na, nb;
	uint8_t *da = file_read(pa, 1 << 30, &na, NULL), *db = file_read(pb, 1 << 30, &nb, NULL);

	assert_int_equal(na, nb);
	assert_memory_equal(da, db, na);
	free(da);
	free(db);
	free(pa);
	free(pb);
}

static void
round_trip(struct fixture *f, const char *engine, int uffd)
{
	struct rig_options o = usual;
	struct rig a, b;
	struct state_file *s;
	struct err e = { 0 };

	assert_int_equal(rig_open(&a, f->dir, &usual, NULL, &e), 0);
	disturb(f, &a);
	save(f, &a, "first");
	rig_close(&a);
	s = open_state(f, "first", &e);
	if (!s || state_verify(s, &e))
		fail_msg("%s", e.text);
	o.engine = engine;
	if (rig_open(&b, f->dir, &o, state_model(s), &e))
		fail_msg("%s", e.text);
	if (load_into(&b, s, uffd, &e))
		fail_msg("%s", e.text);
	state_load_wait(s);
	save(f, &b, "second");
	state_close(s);
	rig_close(&b);
	assert_same_file(f, "first", "second");
}

static void
saving_what_was_loaded_gives_the_same_bytes(void **state)
{
	for (int i = 0; i < 5; i++)
		round_trip(*state, "interp", -1);
}

static void
another_engine_loads_and_saves_the_same_bytes(void **state)
{
	round_trip(*state, "jit", -1);
}

static void
memory_that_is_loaded_when_it_is_touched_is_the_same(void **state)
{
	int uffd = state_uffd_open();

	if (uffd < 0)
		skip();
	round_trip(*state, "interp", uffd);
	close(uffd);
}

/* ---- while it runs ---- */

struct writer {
	struct rig *r;
	_Atomic bool stop;
	_Atomic uint64_t writes;
	uint64_t x; /* the state of its generator: a second run writes other bytes than the first */
};

/* What a guest does: it stores, then looks at the page's flags. */
static void *
write_memory(void *opaque)
{
	struct writer *w = opaque;
	struct ram *ram = pc_machine(w->r->pc)->mem.rams;
	uint64_t x = w->x;

	while (ram->size != RAM)
		ram = ram->next;
	while (!w->stop) {
		uint64_t at;

		x ^= x << 13, x ^= x >> 7, x ^= x << 17;
		at = x % RAM;
		/* A device stores under the machine lock, and may have to wait for the page there. */
		machine_lock(pc_machine(w->r->pc));
		ram->host[at] = (uint8_t)x;
		machine_unlock(pc_machine(w->r->pc));
		if (ram->flags[at >> PAGE_SHIFT])
			mem_page_written(ram, at >> PAGE_SHIFT);
		w->writes++;
	}
	w->x = x;
	return NULL;
}

/* As the machine's process does: who asked is told under the machine lock. */
static void
told(void *opaque, int percent)
{
	struct machine *m = opaque;

	machine_lock(m);
	machine_unlock(m);
}

static void
live_trip(struct fixture *f, int uffd)
{
	struct writer w = { .x = 88172645463325252ull };
	struct state_progress progress = { .at = told };
	struct state_live *l;
	struct state_numbers n;
	struct state_file *s;
	struct err e = { 0 };
	struct rig a, b;
	uint8_t *then = malloc(RAM);
	struct ram *ram;
	char *path = path_of(f, "live");
	pthread_t t;
	int fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);

	assert_int_equal(rig_open(&a, f->dir, &usual, NULL, &e), 0);
	disturb(f, &a);
	w.r = &a;
	pthread_create(&t, NULL, write_memory, &w);
	l = state_live_open(fd, pc_machine(a.pc), pc_cpus(a.pc), uffd, NULL, &e);
	if (!l)
		fail_msg("%s", e.text);
	/* It stands still: nothing writes. */
	w.stop = true;
	pthread_join(t, NULL);
	for (ram = pc_machine(a.pc)->mem.rams; ram->size != RAM;)
		ram = ram->next;
	memcpy(then, ram->host, RAM);
	assert_int_equal(state_live_begin(l, &e), 0);
	/* It runs again. */
	w.stop = false;
	w.writes = 0;
	pthread_create(&t, NULL, write_memory, &w);
	while (w.writes < 10) /* most of its pages are still to come when finish() begins */
		usleep(100);
	progress.opaque = pc_machine(a.pc);
	if (state_live_finish(l, &progress, &n, &e))
		fail_msg("%s", e.text);
	w.stop = true;
	pthread_join(t, NULL);
	state_live_close(l);
	close(fd);
	assert_true(memcmp(then, ram->host, RAM) != 0);
	rig_close(&a);
	s = open_state(f, "live", &e);
	if (!s || state_verify(s, &e))
		fail_msg("%s", e.text);
	assert_int_equal(rig_open(&b, f->dir, &usual, state_model(s), &e), 0);
	assert_int_equal(load_into(&b, s, -1, &e), 0);
	for (ram = pc_machine(b.pc)->mem.rams; ram->size != RAM;)
		ram = ram->next;
	assert_memory_equal(then, ram->host, RAM);
	state_close(s);
	rig_close(&b);
	free(then);
	free(path);
}

static void
memory_is_that_of_the_moment_though_the_guest_writes_on(void **state)
{
	int uffd = state_uffd_open();

	if (uffd < 0)
		skip();
	live_trip(*state, uffd);
	live_trip(*state, uffd); /* the descriptor can be used again */
	close(uffd);
}

static void
without_userfaultfd_memory_is_written_in_rounds(void **state)
{
	live_trip(*state, -1);
}

/* ---- copies ---- */

/* What lies between two pages that were written goes into the next layer with them, and was not looked at since. */
static void
a_machine_that_is_shared_again_keeps_what_it_did_not_touch_between(void **state)
{
	struct fixture *f = *state;
	struct rig a;
	struct state_share *s = state_share_open();
	uint8_t *then = malloc(RAM);
	struct err e = { 0 };
	struct ram *ram;

	assert_int_equal(rig_open(&a, f->dir, &usual, NULL, &e), 0);
	disturb(f, &a);
	for (ram = pc_machine(a.pc)->mem.rams; ram->size != RAM;)
		ram = ram->next;
	for (uint64_t i = 0; i < RAM / 8; i++)
		put_le64(ram->host + i * 8, i * 0x9e3779b97f4a7c15u | 1);
	memcpy(then, ram->host, RAM);
	for (int round = 0; round < 9; round++) { /* more than there may be layers */
		assert_int_equal(state_share(s, pc_machine(a.pc), &e), 0);
		for (uint64_t page = (uint64_t)round; page < RAM / 4096; page += 5)
			ram->host[page * 4096] = then[page * 4096] = (uint8_t)(round + 1);
	}
	assert_memory_equal(ram->host, then, RAM);
	state_share_close(s);
	rig_close(&a);
	free(then);
}

static void
a_copy_shares_memory_and_neither_sees_what_the_other_writes(void **state)
{
	struct fixture *f = *state;
	struct state_share *sa = state_share_open(), *sb = state_share_open(), *sc = state_share_open();
	char *dir_b = path_of(f, "b"), *dir_c = path_of(f, "c"); /* a disk has one user */
	struct rig a, b, c;
	struct ram *ra, *rb, *rc;
	struct err e = { 0 };
	int fds[STATE_LAYERS_MAX], own[STATE_LAYERS_MAX], n;

	assert_int_equal(rig_open(&a, f->dir, &usual, NULL, &e), 0);
	disturb(f, &a);
	for (ra = pc_machine(a.pc)->mem.rams; ra->size != RAM;)
		ra = ra->next;
	state_share_prepare(sa, pc_machine(a.pc));
	ra->host[3 << 20] = 0x44; /* written meanwhile */
	mem_page_written(ra, (3 << 20) >> PAGE_SHIFT);
	assert_int_equal(state_share(sa, pc_machine(a.pc), &e), 0);
	n = state_share_layers(sa, fds);
	assert_int_equal(n, 1);
	own[0] = dup(fds[0]);
	assert_int_equal(mkdir(dir_b, 0700) | mkdir(dir_c, 0700), 0);
	assert_int_equal(rig_open(&b, dir_b, &usual, NULL, &e), 0);
	for (rb = pc_machine(b.pc)->mem.rams; rb->size != RAM;)
		rb = rb->next;
	if (state_share_take(sb, pc_machine(b.pc), own, n, &e))
		fail_msg("%s", e.text);
	assert_memory_equal(ra->host, rb->host, RAM);
	memset(rb->host + 4096, 0x11, 4096);
	memset(ra->host + 8192, 0x22, 100);
	ra->host[5 << 20] = 0x33;
	assert_int_not_equal(ra->host[4096], 0x11);
	assert_int_not_equal(rb->host[8192], 0x22);
	/* The second time, only what has changed since is handed over in a new layer. */
	assert_int_equal(state_share(sa, pc_machine(a.pc), &e), 0);
	n = state_share_layers(sa, fds);
	assert_int_equal(n, 2);
	for (int i = 0; i < n; i++)
		own[i] = dup(fds[i]);
	assert_int_equal(rig_open(&c, dir_c, &usual, NULL, &e), 0);
	for (rc = pc_machine(c.pc)->mem.rams; rc->size != RAM;)
		rc = rc->next;
	assert_int_equal(state_share_take(sc, pc_machine(c.pc), own, n, &e), 0);
	assert_memory_equal(ra->host, rc->host, RAM);
	rig_close(&a);
	assert_int_equal(rc->host[5 << 20], 0x33);
	rig_close(&b);
	rig_close(&c);
	state_share_close(sa);
	state_share_close(sb);
	state_share_close(sc);
	free(dir_b);
	free(dir_c);
}

/* ---- what is refused ---- */

static void
refused(struct fixture *f, struct rig_options o, const char *words)
{
	struct state_file *s;
	struct err e = { 0 };
	struct rig r;

	s = open_state(f, "good", &e);
	assert_non_null(s);
	assert_int_equal(rig_open(&r, f->dir, &o, NULL, &e), 0);
	assert_int_equal(load_into(&r, s, -1, &e), -1);
	if (!strstr(e.text, words))
		fail_msg("'%s' is not in: %s", words, e.text);
	state_close(s);
	rig_close(&r);
}

static void
make_good(struct fixture *f)
{
	struct err e = { 0 };
	struct rig r;

	assert_int_equal(rig_open(&r, f->dir, &usual, NULL, &e), 0);
	save(f, &r, "good");
	rig_close(&r);
}

static void
a_state_of_another_machine_is_refused_with_what_differs(void **state)
{
	make_good(*state);
	refused(*state, (struct rig_options){ .ram = RAM * 2, .cpus = 2, .engine = "interp" }, "memory 'ram'");
	refused(*state, (struct rig_options){ .ram = RAM, .cpus = 1, .engine = "interp" }, "2 CPUs and this one has 1");
	refused(*state, (struct rig_options){ .ram = RAM, .cpus = 2, .engine = "interp", .fewer = true },
		"another machine");
}

static void
a_guest_that_was_told_of_more_features_than_there_are_is_refused(void **state)
{
	struct rig_options o = usual;
	struct state_file *s;
	struct cpu_model more;
	struct err e = { 0 };
	struct rig r;

	make_good(*state);
	s = open_state(*state, "good", &e);
	assert_non_null(s);
	more = *state_model(s);
	for (int i = 0; i < more.leaf_count; i++)
		if (more.leaf[i].leaf == 7 && more.leaf[i].sub == 0)
			more.leaf[i].ebx |= 1 << 2;
	assert_int_equal(rig_open(&r, ((struct fixture *)*state)->dir, &o, &more, &e), -1);
	assert_non_null(strstr(e.text, "CPUID leaf 7 EBX, bit 2"));
	state_close(s);
	rig_close(&r);
}

/* A copy of "good" as "bad", with one change. */
static void
write_bad(struct fixture *f, size_t cut, size_t at, uint8_t flip)
{
	char *good = path_of(f, "good"), *bad = path_of(f, "bad");
	size_t n;
	uint8_t *d = file_read(good, 1 << 30, &n, NULL);
	int fd = open(bad, O_RDWR | O_CREAT | O_TRUNC, 0600);

	n = cut < n ? cut : n;
	if (at < n)
		d[at] ^= flip;
	assert_int_equal(write_full(fd, d, n), n);
	close(fd);
	free(d);
	free(good);
	free(bad);
}

static void
a_file_with_one_bit_changed_is_refused_wherever_it_is(void **state)
{
	struct fixture *f = *state;
	char *good = path_of(f, "good");
	struct stat st;
	int header = 0;

	make_good(f);
	assert_int_equal(stat(good, &st), 0);
	for (int i = 0; i < 400; i++) {
		size_t at = i < 84 ? (size_t)i : 4096 + draw(f) % ((size_t)st.st_size - 4096);
		struct state_file *s;
		struct err e = { 0 };

		write_bad(f, SIZE_MAX, at, (uint8_t)(1 << draw(f) % 8));
		s = open_state(f, "bad", &e);
		if (s && !state_verify(s, &e))
			fail_msg("a change of byte %zu is not noticed", at);
		header += !s;
		assert_int_not_equal(e.text[0], 0);
		state_close(s);
	}
	assert_true(header >= 84);
	free(good);
}

static void
a_file_cut_off_is_refused_at_every_length(void **state)
{
	struct fixture *f = *state;
	char *good = path_of(f, "good");
	struct stat st;

	make_good(f);
	assert_int_equal(stat(good, &st), 0);
	for (int i = 0; i < 200; i++) {
		struct err e = { 0 };
		struct state_file *s;

		write_bad(f, i < 100 ? (size_t)i * 50 : draw(f) % (size_t)st.st_size, SIZE_MAX, 0);
		s = open_state(f, "bad", &e);
		assert_null(s);
		assert_int_not_equal(e.text[0], 0);
	}
	free(good);
}

static void
files_of_others_and_of_the_future_are_refused_by_name(void **state)
{
	struct fixture *f = *state;
	struct err e = { 0 };
	char *bad = path_of(f, "bad");
	uint8_t head[84];
	int fd;

	fd = open(bad, O_RDWR | O_CREAT | O_TRUNC, 0600);
	assert_int_equal(write_full(fd, "\x7fVirtualBox SavedState V2.0\n", 28), 28);
	close(fd);
	assert_null(open_state(f, "bad", &e));
	assert_non_null(strstr(e.text, "is not a saved state"));
	make_good(f);
	write_bad(f, SIZE_MAX, SIZE_MAX, 0);
	fd = open(bad, O_RDWR);
	assert_int_equal(pread(fd, head, sizeof(head), 0), sizeof(head));
	put_le32(head + 8, 7);
	put_le32(head + 80, state_checksum(head, 80));
	assert_int_equal(pwrite(fd, head, sizeof(head), 0), sizeof(head));
	close(fd);
	assert_null(open_state(f, "bad", &e));
	assert_non_null(strstr(e.text, "version 7"));
	free(bad);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
		T(saving_what_was_loaded_gives_the_same_bytes),
		T(another_engine_loads_and_saves_the_same_bytes),
		T(memory_that_is_loaded_when_it_is_touched_is_the_same),
		T(memory_is_that_of_the_moment_though_the_guest_writes_on),
		T(without_userfaultfd_memory_is_written_in_rounds),
		T(a_copy_shares_memory_and_neither_sees_what_the_other_writes),
		T(a_machine_that_is_shared_again_keeps_what_it_did_not_touch_between),
		T(a_state_of_another_machine_is_refused_with_what_differs),
		T(a_guest_that_was_told_of_more_features_than_there_are_is_refused),
		T(a_file_with_one_bit_changed_is_refused_wherever_it_is),
		T(a_file_cut_off_is_refused_at_every_length),
		T(files_of_others_and_of_the_future_are_refused_by_name),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
