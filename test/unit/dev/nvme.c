/* SPDX-License-Identifier: Apache-2.0 */
/* The NVMe controller driven the way a driver does it. */
#include "base/bytes.h"
#include "test/unit/dev/small.h"

#define BAR 0xfebf0000u
#define DEVFN (5 << 3)
#define BUFFER 0x40000u
#define LIST 0x20000u
#define DISK_SIZE (4u << 20)

static struct small s;
static struct nvme *nvme;
static struct block *disk, *second;
static uint32_t tail[3], head[3], phase[3];

static uint32_t
reg(uint32_t at)
{
	return (uint32_t)mem_load(&s.m.mem, BAR + at, 4);
}

static void
set_reg(uint32_t at, uint32_t value)
{
	mem_store(&s.m.mem, BAR + at, value, 4);
}

/* Submission queue n is at 0x1000 * (n + 1), completion queue n at 0x8000 + 0x1000 * n, of 16 entries each. */
static void
submit(uint32_t n, const uint8_t sqe[64])
{
	memcpy(s.ram->host + 0x1000 * (n + 1) + tail[n] * 64, sqe, 64);
	tail[n] = (tail[n] + 1) % 16;
	set_reg(0x1000 + n * 8, tail[n]);
}

/* The next completion: its status without the phase, the result in *result. -1: there is none. */
static int
reap(uint32_t n, uint32_t *result)
{
	const uint8_t *e = s.ram->host + 0x8000 + 0x1000 * n + head[n] * 16;

	device_drain_all(&s.m);
	if ((le16(e + 14) & 1) != phase[n])
		return -1;
	head[n] = (head[n] + 1) % 16;
	phase[n] ^= head[n] == 0;
	set_reg(0x1004 + n * 8, head[n]);
	if (result)
		*result = le32(e);
	return le16(e + 14) >> 1;
}

static void
make_entry(uint8_t sqe[64], uint8_t opcode, uint32_t nsid, uint64_t prp1, uint64_t prp2)
{
	memset(sqe, 0, 64);
	sqe[0] = opcode;
	sqe[2] = 7;
	put_le32(sqe + 4, nsid);
	put_le64(sqe + 24, prp1);
	put_le64(sqe + 32, prp2);
}

static int
admin(uint8_t opcode, uint32_t nsid, uint32_t cdw10, uint32_t cdw11, uint32_t *result)
{
	uint8_t sqe[64];

	make_entry(sqe, opcode, nsid, BUFFER, 0);
	put_le32(sqe + 40, cdw10);
	put_le32(sqe + 44, cdw11);
	submit(0, sqe);
	return reap(0, result);
}

static int
io(uint8_t opcode, uint32_t nsid, uint64_t lba, uint32_t blocks, uint64_t prp1, uint64_t prp2)
{
	uint8_t sqe[64];

	make_entry(sqe, opcode, nsid, prp1, prp2);
	put_le64(sqe + 40, lba);
	put_le32(sqe + 48, blocks - 1);
	submit(1, sqe);
	return reap(1, NULL);
}

static void
enable(void)
{
	memset(s.ram->host, 0, 0x10000);
	memset(tail, 0, sizeof(tail));
	memset(head, 0, sizeof(head));
	for (int i = 0; i < 3; i++)
		phase[i] = 1;
	set_reg(0x24, 15 | 15 << 16);
	set_reg(0x28, 0x1000);
	set_reg(0x30, 0x8000);
	set_reg(0x14, 0x00460001);
	assert_int_equal(reg(0x1c), 1);
}

static int
create_pair(uint32_t n)
{
	uint8_t sqe[64];
	int r;

	make_entry(sqe, 5, 0, 0x8000 + n * 0x1000, 0);
	put_le32(sqe + 40, n | 15 << 16);
	put_le32(sqe + 44, 3);
	submit(0, sqe);
	r = reap(0, NULL);
	make_entry(sqe, 1, 0, 0x1000 * (n + 1), 0);
	put_le32(sqe + 40, n | 15 << 16);
	put_le32(sqe + 44, 1 | n << 16);
	submit(0, sqe);
	return r ? r : reap(0, NULL);
}

static int
set_up(void **state)
{
	struct err e = { 0 };
	struct drive_config cfg = { .discard = true };

	small_open(&s);
	disk = small_image("disk", DISK_SIZE, 512);
	second = small_image("second", 65536, 512);
	nvme = nvme_create(&s.m, 5, 4, &e);
	assert_non_null(nvme);
	cfg.block = disk;
	assert_int_equal(nvme_attach(nvme, 0, &cfg, &e), 0);
	device_reset_all(&s.m);
	pci_config_write(&s.m.pci, DEVFN, 0x10, BAR, 4);
	pci_config_write(&s.m.pci, DEVFN, 4, 6, 2);
	enable();
	assert_int_equal(create_pair(1), 0);
	return 0;
}

static int
tear_down(void **state)
{
	small_close(&s);
	block_close(disk);
	block_close(second);
	return 0;
}

static void
the_controller_and_its_namespaces_identify_themselves(void **state)
{
	uint8_t *p = s.ram->host + BUFFER;

	assert_int_equal(admin(6, 0, 1, 0, NULL), 0);
	assert_int_equal(le32(p + 516), 4);
	assert_memory_equal(p + 24, "ORCL-VBOX-NVME-VER12", 20);
	assert_int_equal(admin(6, 1, 0, 0, NULL), 0);
	assert_int_equal(le64(p), DISK_SIZE / 512);
	assert_int_equal(p[130], 9);
	assert_int_equal(admin(6, 0, 2, 0, NULL), 0);
	assert_int_equal(le32(p), 1);
	assert_int_equal(le32(p + 4), 0);
	assert_int_equal(admin(6, 9, 0, 0, NULL), 0x400b); /* no such namespace, do not try again */
}

static void
blocks_are_read_and_written_over_prp_lists(void **state)
{
	/* 17 KiB from the middle of a page: five more pages in a list */
	for (uint32_t i = 0; i < 5; i++)
		put_le64(s.ram->host + LIST + 8 * i, 0x60000 + (4 - i) * 0x1000);
	assert_int_equal(io(2, 1, 100, 34, BUFFER + 0x800, LIST), 0);
	assert_int_equal(le64(s.ram->host + BUFFER + 0x800), 100);
	assert_int_equal(le64(s.ram->host + 0x60000 + 4 * 0x1000), 104);
	assert_int_equal(le64(s.ram->host + 0x60000 + 3 * 0x1000 + 512), 113);
	memset(s.ram->host + BUFFER, 0x5a, 8192);
	assert_int_equal(io(1, 1, 8, 16, BUFFER, BUFFER + 0x1000), 0);
	memset(s.ram->host + BUFFER, 0, 8192);
	assert_int_equal(io(2, 1, 8, 16, BUFFER, BUFFER + 0x1000), 0);
	assert_int_equal(s.ram->host[BUFFER + 8191], 0x5a);
	assert_int_equal(io(0, 0xffffffff, 0, 1, 0, 0), 0);
}

static void
what_makes_no_sense_is_an_error_of_the_command(void **state)
{
	assert_int_equal(io(2, 1, DISK_SIZE / 512 - 1, 2, BUFFER, 0), 0x4080);
	assert_int_equal(io(2, 1, UINT64_MAX, 1, BUFFER, 0), 0x4080);
	assert_int_equal(io(2, 1, 0, 8, 0xfffff000ull << 8, 0), 0x4013);
	assert_int_equal(io(2, 2, 0, 8, BUFFER, 0), 0x400b);
	assert_int_equal(io(0x7f, 1, 0, 8, BUFFER, 0), 0x4001);
	assert_int_equal(io(2, 1, 0, 0x10000, BUFFER, LIST), 0x4080);
	assert_int_equal(admin(0x7f, 0, 0, 0, NULL), 0x4001);
	assert_int_equal(admin(1, 0, 1 | 15 << 16, 1 | 1 << 16, NULL), 0x4101); /* that queue exists */
	assert_int_equal(admin(4, 0, 1, 0, NULL), 0x410c);			/* it is used */
	assert_int_equal(reg(0x1c), 1);
}

static void
deallocated_and_zeroed_blocks_read_as_zeroes(void **state)
{
	uint8_t sqe[64];

	put_le32(s.ram->host + BUFFER + 4, 8);
	put_le64(s.ram->host + BUFFER + 8, 16);
	make_entry(sqe, 9, 1, BUFFER, 0);
	put_le32(sqe + 44, 4);
	submit(1, sqe);
	assert_int_equal(reap(1, NULL), 0);
	assert_int_equal(io(8, 1, 32, 8, 0, 0), 0);
	for (uint32_t lba = 16; lba <= 32; lba += 16) {
		assert_int_equal(io(2, 1, lba, 8, BUFFER, 0), 0);
		for (int i = 0; i < 4096; i++)
			assert_int_equal(s.ram->host[BUFFER + i], 0);
	}
	assert_int_equal(io(2, 1, 24, 1, BUFFER, 0), 0);
	assert_int_equal(le64(s.ram->host + BUFFER), 24);
}

static void
a_namespace_that_comes_or_goes_is_told_by_an_event(void **state)
{
	struct drive_config cfg = { .block = second };
	uint8_t sqe[64];
	uint32_t result = 0;

	assert_int_equal(admin(9, 0, 0x0b, 1 << 8, NULL), 0);
	make_entry(sqe, 0x0c, 0, 0, 0);
	submit(0, sqe);
	assert_int_equal(reap(0, NULL), -1);
	assert_int_equal(nvme_attach(nvme, 2, &cfg, NULL), 0);
	assert_int_equal(reap(0, &result), 0);
	assert_int_equal(result, 0x00040002);
	assert_int_equal(admin(2, 0, 4 | 1023 << 16, 0, NULL), 0);
	assert_int_equal(le32(s.ram->host + BUFFER), 3);
	assert_int_equal(io(2, 3, 5, 1, BUFFER, 0), 0);
	assert_int_equal(le64(s.ram->host + BUFFER), 5);
	submit(0, sqe);
	assert_int_equal(nvme_detach(nvme, 2), 0);
	assert_int_equal(reap(0, &result), 0);
	assert_int_equal(io(2, 3, 5, 1, BUFFER, 0), 0x400b);
}

static void
completions_wait_for_room_and_none_is_lost(void **state)
{
	uint8_t sqe[64];
	int done = 0;

	/* 15 commands into a queue whose completions nobody takes: room for 15, then 5 more */
	make_entry(sqe, 2, 1, BUFFER, 0);
	for (int i = 0; i < 15; i++)
		submit(1, sqe);
	device_drain_all(&s.m);
	for (int i = 0; i < 5; i++)
		submit(1, sqe);
	while (reap(1, NULL) == 0)
		done++;
	assert_int_equal(done, 20);
}

static void
a_saved_controller_goes_on_where_it_was(void **state)
{
	assert_int_equal(io(2, 1, 3, 1, BUFFER, 0), 0);
	small_save_and_load(&s, nvme, true);
	assert_int_equal(reg(0x1c), 1);
	assert_int_equal(io(2, 1, 4, 1, BUFFER, 0), 0);
	assert_int_equal(le64(s.ram->host + BUFFER), 4);
}

static void
a_shutdown_flushes_and_a_reset_forgets(void **state)
{
	struct block_stats before, after;

	block_get_stats(disk, &before);
	set_reg(0x14, 0x00464001);
	device_drain_all(&s.m);
	assert_int_equal(reg(0x1c) & 12, 8);
	block_get_stats(disk, &after);
	assert_true(after.flushes > before.flushes);
	set_reg(0x14, 0);
	assert_int_equal(reg(0x1c), 0);
	enable();
	assert_int_equal(create_pair(1), 0);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(
			the_controller_and_its_namespaces_identify_themselves, set_up, tear_down),
		cmocka_unit_test_setup_teardown(blocks_are_read_and_written_over_prp_lists, set_up, tear_down),
		cmocka_unit_test_setup_teardown(what_makes_no_sense_is_an_error_of_the_command, set_up, tear_down),
		cmocka_unit_test_setup_teardown(deallocated_and_zeroed_blocks_read_as_zeroes, set_up, tear_down),
		cmocka_unit_test_setup_teardown(a_namespace_that_comes_or_goes_is_told_by_an_event, set_up, tear_down),
		cmocka_unit_test_setup_teardown(completions_wait_for_room_and_none_is_lost, set_up, tear_down),
		cmocka_unit_test_setup_teardown(a_saved_controller_goes_on_where_it_was, set_up, tear_down),
		cmocka_unit_test_setup_teardown(a_shutdown_flushes_and_a_reset_forgets, set_up, tear_down),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
