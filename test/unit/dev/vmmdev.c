/* SPDX-License-Identifier: Apache-2.0 */
/* VirtualBox's guest device: requests, events, calls with page lists, and what a saved machine remembers. */
#include <fcntl.h>
#include <semaphore.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/str.h"
#include "share/share.h"
#include "test/unit/dev/board.h"

#define PORT 0xc000u
#define PAGE 0xfebf0000u
#define DEVFN (4 << 3)
#define REQUEST 0x1000u
#define BUFFER 0x8000u
#define RAM_SIZE (4u << 20)

static struct board b;
static struct ram *ram;
static struct mem_region region;
static struct share *share;
static struct props *props;
static struct vmmdev *dev;
static char top[32];
static pthread_t loop_thread;

static void
intx(void *opaque, int slot, int pin, int level)
{
	b.wire[0].level = level;
}

static void *
loop_main(void *opaque)
{
	loop_run(opaque);
	return NULL;
}

static int
open_all(void **state)
{
	struct share_options o = { 0 };
	struct share_folder f = { .name = "src" };
	struct vmmdev_wires w;

	board_open(&b, 0);
	machine_lock(&b.m);
	pci_add_ports(&b.m);
	b.m.pci.set_intx = intx;
	ram = ram_create(&b.m.mem, "ram", RAM_SIZE);
	region = (struct mem_region){ .name = "ram", .kind = MEM_RAM, .enabled = true, .size = RAM_SIZE, .ram = ram };
	mem_add(&b.m.mem, &region);
	strcpy(top, "/tmp/lodge-vmmdev-XXXXXX");
	assert_non_null(mkdtemp(top));
	props = props_open();
	o.props = props;
	share = share_open(&o, NULL);
	f.fd = open(top, O_PATH | O_DIRECTORY);
	assert_int_equal(share_folder_add(share, &f, NULL), 0);
	w = (struct vmmdev_wires){ share, props, RAM_SIZE, 1 << 20, *state != NULL, -86400000 };
	dev = vmmdev_create(&b.m, 4, &w, NULL);
	assert_non_null(dev);
	pci_config_write(&b.m.pci, DEVFN, 0x10, PORT, 4);
	pci_config_write(&b.m.pci, DEVFN, 0x14, PAGE, 4);
	pci_config_write(&b.m.pci, DEVFN, 4, 7, 2);
	assert_int_equal(pthread_create(&loop_thread, NULL, loop_main, b.m.loop), 0);
	return 0;
}

static int
close_all(void **state)
{
	char *c = xasprintf("rm -r %s", top);

	loop_stop(b.m.loop);
	machine_unlock(&b.m);
	pthread_join(loop_thread, NULL);
	machine_lock(&b.m);
	machine_destroy_devices(&b.m);
	machine_unlock(&b.m);
	board_close(&b);
	share_close(share);
	props_close(props);
	assert_int_equal(system(c), 0);
	free(c);
	return 0;
}

static uint8_t *
head(uint32_t size, uint32_t type)
{
	uint8_t *r = ram->host + REQUEST;

	memset(r, 0, size);
	put_le32(r, size);
	put_le32(r + 4, 0x10001);
	put_le32(r + 8, type);
	put_le32(r + 12, 0xaaaaaaaa);
	return r;
}

static int
send(void)
{
	out32(&b, PORT, REQUEST);
	return (int)le32(ram->host + REQUEST + 12);
}

static uint32_t
connect_to(const char *service)
{
	uint8_t *r = head(168, 60);

	put_le32(r + 32, 2);
	strcpy((char *)r + 36, service);
	assert_int_equal(send(), 0);
	return le32(r + 164);
}

/* A call with one buffer of `size` bytes that begins `off` bytes into the first of two pages that are not neighbours.
 */
static uint8_t *
notification(uint32_t client, uint32_t size, uint32_t off)
{
	uint8_t *r = head(44 + 4 * 16 + 48, 63), *p = r + 44, *list = r + 44 + 64;

	put_le32(r + 32, client);
	put_le32(r + 36, 6);
	put_le32(r + 40, 4);
	put_le32(p, 10);
	put_le32(p + 4, 4);
	put_le32(p + 8, 44 + 64);
	put_le32(list, 1);
	put_le16(list + 6, 1);
	put_le64(list + 8, BUFFER);
	memcpy(ram->host + BUFFER, "/a*", 4);
	put_le32(p + 16, 2);
	put_le32(p + 32, 10);
	put_le32(p + 36, size);
	put_le32(p + 40, 44 + 64 + 16);
	put_le32(list + 16, 2);
	put_le16(list + 20, (uint16_t)off);
	put_le16(list + 22, 2);
	put_le64(list + 24, BUFFER + 0x2000);
	put_le64(list + 32, BUFFER + 0x5000);
	put_le32(p + 48, 1);
	return r;
}

/* ---- tests ---- */

static void
test_requests(void **state)
{
	struct vmmdev_guest g;
	struct prop p;
	uint8_t *r;

	assert_int_equal(mem_load(&b.m.mem, PAGE + 4, 4), 1);
	r = head(40, 4);
	assert_int_equal(send(), 0);
	assert_int_equal(le16(r + 24), 7);
	assert_int_equal(le32(r + 36), 1);
	r = head(168, 58);
	put_le16(r + 24, 6);
	put_le16(r + 26, 1);
	put_le32(r + 28, 4);
	put_le32(r + 32, 127566);
	assert_int_equal(send(), 0);
	r = head(32, 50);
	put_le32(r + 24, 0x10004);
	put_le32(r + 28, 0x53100);
	assert_int_equal(send(), 0);
	vmmdev_guest(dev, &g);
	assert_true(g.major == 6 && g.minor == 1 && g.build == 4 && g.revision == 127566);
	assert_true(props_get(props, "/VirtualBox/GuestAdd/Version", &p));
	assert_string_equal(p.value, "6.1.4");
	head(24, 199);
	assert_int_equal(send(), SHARE_NOT_IMPLEMENTED);
	head(30, 4); /* too short */
	assert_int_equal(send(), SHARE_INVALID_PARAMETER);
	put_le32(head(40, 4) + 4, 0x10002); /* another version */
	assert_int_equal(send(), SHARE_INVALID_PARAMETER);
	put_le32(head(40, 4), 2u << 20); /* too large */
	assert_int_equal(send(), SHARE_INVALID_PARAMETER);
	out32(&b, PORT, 0xfffffff0); /* nowhere */
}

static void
test_the_balloon_takes_what_was_asked_for(void **state)
{
	struct err e = { 0 };
	uint8_t *r;

	assert_int_equal(vmmdev_balloon(dev, 4, &e), -1);
	r = head(32 + 8 * 256, 113);
	put_le32(r + 24, 256);
	put_le32(r + 28, 1);
	assert_int_equal(send(), SHARE_INVALID_PARAMETER); /* nobody asked */
	assert_int_equal(vmmdev_balloon(dev, 1, &e), 0);
	r = head(36, 111);
	assert_int_equal(send(), 0);
	assert_int_equal(le32(r + 24), 1);
	assert_int_equal(le32(r + 28), 4);
	r = head(32 + 8 * 256, 113);
	put_le32(r + 24, 256);
	put_le32(r + 28, 1);
	for (int i = 0; i < 256; i++)
		put_le64(r + 32 + 8 * i, 0x100000 + 4096 * (uint64_t)i);
	ram->host[0x100000] = 42;
	assert_int_equal(send(), 0);
	assert_int_equal(ram->host[0x100000], 0);
	assert_int_equal(send(), SHARE_INVALID_PARAMETER); /* one MiB is what was asked for */
}

static void
test_events_raise_the_interrupt_until_they_are_acknowledged(void **state)
{
	uint8_t *r = head(32, 42);

	put_le32(r + 24, 4);
	assert_int_equal(send(), 0);
	vmmdev_display_hint(dev, 0, 1024, 768, 32);
	assert_int_equal(b.wire[0].level, 1);
	assert_int_equal(mem_load(&b.m.mem, PAGE + 8, 4), 1);
	r = head(28, 41);
	assert_int_equal(send(), 0);
	assert_int_equal(le32(r + 24), 4);
	assert_int_equal(b.wire[0].level, 0);
	r = head(44, 54);
	assert_int_equal(send(), 0);
	assert_int_equal(le32(r + 24), 1024);
}

static void
test_a_driver_that_takes_places_hears_where_the_pointer_is(void **state)
{
	uint8_t *r;

	assert_false(vmmdev_place_pointer(dev, 1, 2));
	put_le32(head(32, 42) + 24, 512);
	assert_int_equal(send(), 0);
	put_le32(head(36, 2) + 24, 1 | 16);
	assert_int_equal(send(), 0);
	assert_true(vmmdev_place_pointer(dev, 0x8000, 0xffff));
	assert_int_equal(b.wire[0].level, 1);
	head(28, 41);
	assert_int_equal(send(), 0);
	r = head(36, 1);
	assert_int_equal(send(), 0);
	assert_int_equal(le32(r + 24), 1 | 2 | 8 | 16);
	assert_int_equal(le32(r + 28), 0x8000);
	assert_int_equal(le32(r + 32), 0xffff);
	assert_true(vmmdev_place_pointer(dev, 0x8000, 0xffff)); /* where it was: nothing to tell */
	assert_int_equal(b.wire[0].level, 0);
}

static void
test_calls_reach_services_and_their_buffers_are_pages(void **state)
{
	uint32_t client = connect_to("VBoxGuestPropSvc");
	unsigned none = 0;
	uint8_t *r;

	r = head(168, 60);
	put_le32(r + 32, 2);
	strcpy((char *)r + 36, "VBoxNothing");
	assert_int_equal(send(), SHARE_SERVICE_NOT_FOUND);

	r = notification(client, 64, 4090);
	put_le64(r + 44 + 16 + 4, 1); /* what has been behind time 1 is told at once */
	props_set(props, PROP_BY_HOST, "/abc", "value", &none);
	assert_int_equal(send(), 0);
	assert_int_equal(le32(r + 24), 1);
	assert_int_equal(le32(r + 28), 0);
	assert_memory_equal(ram->host + BUFFER + 0x2000 + 4090, "/abc\0v", 6);
	assert_memory_equal(ram->host + BUFFER + 0x5000, "alue\0", 6);
}

static void
test_bent_page_lists_are_refused(void **state)
{
	uint32_t client = connect_to("VBoxGuestPropSvc");
	uint8_t *r = notification(client, 64, 5000);

	assert_int_equal(send(), SHARE_INVALID_PARAMETER); /* beyond the first page */
	notification(client, 8193, 0);
	assert_int_equal(send(), SHARE_INVALID_PARAMETER); /* more than its pages hold */
	r = notification(client, 64, 0);
	put_le16(r + 44 + 64 + 22, 500);
	assert_int_equal(send(), SHARE_INVALID_PARAMETER); /* more pages than the request has */
	r = notification(client, 64, 0);
	put_le32(r + 44 + 32 + 8, 0xfffffff8);
	assert_int_equal(send(), SHARE_INVALID_PARAMETER); /* the list is elsewhere */
	r = notification(client, 64, 0);
	put_le32(r + 40, 1000);
	assert_int_equal(send(), SHARE_INVALID_PARAMETER); /* more parameters than there are */
	r = notification(client, 64, 0);
	put_le64(r + 44 + 64 + 8, 0xfffffffffffff000);
	assert_int_equal(send(), SHARE_INVALID_PARAMETER); /* no memory there */
}

static void
passed(void *opaque)
{
	sem_post(opaque);
}

/* What was posted to the loop has been carried out. */
static void
run_loop(void)
{
	sem_t done;

	sem_init(&done, 0, 0);
	loop_post(b.m.loop, passed, &done);
	machine_unlock(&b.m);
	while (sem_wait(&done))
		;
	machine_lock(&b.m);
	sem_destroy(&done);
}

static void
test_a_call_that_waits_ends_with_an_event_and_can_be_cancelled(void **state)
{
	uint32_t client = connect_to("VBoxGuestPropSvc");
	unsigned none = 0;
	uint8_t *r = notification(client, 64, 0);

	assert_int_equal(send(), 2903);
	assert_int_equal(le32(r + 24), 0);
	props_set(props, PROP_BY_HOST, "/other", "1", &none);
	run_loop();
	assert_int_equal(le32(r + 24), 0);
	props_set(props, PROP_BY_HOST, "/abc", "1", &none);
	run_loop();
	assert_int_equal(le32(r + 24), 1);
	assert_int_equal(le32(r + 28), 0);

	r = notification(client, 64, 0);
	assert_int_equal(send(), 2903);
	put_le32(r + 8, 64); /* cancel this one */
	assert_int_equal(send(), 0);
	memset(r, 0x55, 64); /* it is the guest's again */
	props_set(props, PROP_BY_HOST, "/abc", "2", &none);
	run_loop();
	assert_int_equal(r[24], 0x55);
}

static void
test_a_call_that_waits_survives_saving(void **state)
{
	uint32_t client = connect_to("VBoxGuestPropSvc");
	struct device *d = (struct device *)dev;
	unsigned none = 0;
	uint8_t *r = notification(client, 64, 0);

	assert_int_equal(send(), 2903);
	d->class->drain(d);
	d->class->loaded(d); /* as in a machine that got its fields back */
	run_loop();
	assert_int_equal(le32(r + 24), 0);
	props_set(props, PROP_BY_HOST, "/abc", "1", &none);
	run_loop();
	assert_int_equal(le32(r + 24), 1);
	assert_int_equal(le32(r + 28), 0);
}

static void
test_the_hosts_time_has_the_machines_offset_or_is_refused(void **state)
{
	uint8_t *r = head(32, 10);
	uint64_t now = (uint64_t)time(NULL) - 86400;

	assert_int_equal(send(), 0);
	assert_in_range(le64(r + 24) / 1000, now, now + 1);
	close_all(state);
	*state = share; /* open_all() takes it for a wish */
	open_all(state);
	*state = NULL;
	head(32, 10);
	assert_int_equal(send(), SHARE_NOT_SUPPORTED);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_requests, open_all, close_all),
		cmocka_unit_test_setup_teardown(
			test_the_hosts_time_has_the_machines_offset_or_is_refused, open_all, close_all),
		cmocka_unit_test_setup_teardown(test_the_balloon_takes_what_was_asked_for, open_all, close_all),
		cmocka_unit_test_setup_teardown(
			test_events_raise_the_interrupt_until_they_are_acknowledged, open_all, close_all),
		cmocka_unit_test_setup_teardown(
			test_a_driver_that_takes_places_hears_where_the_pointer_is, open_all, close_all),
		cmocka_unit_test_setup_teardown(
			test_calls_reach_services_and_their_buffers_are_pages, open_all, close_all),
		cmocka_unit_test_setup_teardown(test_bent_page_lists_are_refused, open_all, close_all),
		cmocka_unit_test_setup_teardown(
			test_a_call_that_waits_ends_with_an_event_and_can_be_cancelled, open_all, close_all),
		cmocka_unit_test_setup_teardown(test_a_call_that_waits_survives_saving, open_all, close_all),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
