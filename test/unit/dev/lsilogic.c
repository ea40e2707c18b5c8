/* SPDX-License-Identifier: Apache-2.0 */
/* The LSI Logic controller, and SCSI disks and CD-ROM drives behind it. */
#include "base/bytes.h"
#include "test/unit/dev/small.h"

#define BAR 0xfebf0000u
#define DEVFN (5 << 3)
#define FRAME 0x1000u
#define SENSE 0x7000u
#define REPLIES 0x8000u
#define BUFFER 0x40000u
#define DISK_SIZE (4u << 20)

static struct small s;
static struct lsilogic *lsi;
static struct block *disk, *disc, *other;
static uint32_t moved;

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

/* A message through the doorbell and its reply, as the standard's handshake goes. */
static void
handshake(const uint32_t *words, uint32_t n, uint16_t *reply, uint32_t reply_words)
{
	set_reg(0x30, 0);
	set_reg(0, 0x42000000 | n << 16);
	assert_int_equal(reg(0x30) & 1, 1);
	assert_int_equal(reg(0) & 0x08000000, 0x08000000);
	set_reg(0x30, 0);
	for (uint32_t i = 0; i < n; i++)
		set_reg(0, words[i]);
	for (uint32_t i = 0; i < reply_words; i++) {
		assert_int_equal(reg(0x30) & 1, 1);
		reply[i] = (uint16_t)reg(0);
		set_reg(0x30, 0);
	}
	assert_int_equal(reg(0x30) & 1, 1);
	set_reg(0x30, 0);
	assert_int_equal(reg(0x30) & 1, 0);
	assert_int_equal(reg(0) & 0x08000000, 0);
}

static void
initialise(void)
{
	static const uint32_t init[6] = { 0x02000004, 0x00011000, 0x11223344, 128, 0, 0 };
	uint16_t reply[10];

	handshake(init, 6, reply, 10);
	assert_int_equal(reply[7], 0);
	assert_int_equal(reg(0) >> 28, 2);
	for (uint32_t i = 0; i < 8; i++)
		set_reg(0x44, REPLIES + i * 128);
}

/*
 * A command for a target with `len` bytes at BUFFER (in one list element); way: 0 none, 1 to the drive, 2 from it.
 * Returns SCSI status | IOCStatus << 8.
 */
static int
scsi(uint8_t target, const uint8_t *cdb, uint8_t way, uint32_t len)
{
	uint8_t *f = s.ram->host + FRAME, *r;
	uint32_t reply;

	memset(f, 0, 128);
	f[0] = target;
	f[4] = 16;
	f[5] = 18;
	put_le32(f + 8, 0x1234);
	f[23] = way;
	memcpy(f + 24, cdb, 16);
	put_le32(f + 40, len);
	put_le32(f + 44, SENSE);
	put_le32(f + 48, 0xd1000000 | len);
	put_le32(f + 52, BUFFER);
	set_reg(0x40, FRAME);
	device_drain_all(&s.m);
	reply = reg(0x44);
	assert_int_not_equal(reply, 0xffffffff);
	assert_int_equal(reg(0x44), 0xffffffff);
	moved = len;
	if (reply == 0x1234)
		return 0;
	assert_true(reply & 0x80000000);
	r = s.ram->host + (reply << 1);
	assert_int_equal(le32(r + 8), 0x1234);
	moved = le32(r + 20);
	set_reg(0x44, reply << 1);
	return r[12] | le16(r + 14) << 8;
}

static int
sense_code(void)
{
	const uint8_t *p = s.ram->host + SENSE;

	return p[2] << 16 | p[12] << 8 | p[13];
}

#define CDB(...) ((uint8_t[16]){ __VA_ARGS__ })

static int
set_up(void **state)
{
	struct err e = { 0 };
	struct drive_config cfg = { .discard = true, .serial = "S-1" };

	small_open(&s);
	disk = small_image("disk", DISK_SIZE, 512);
	disc = small_image("disc", 600 * 2048, 2048);
	other = small_image("other", 100 * 2048, 2048);
	lsi = lsilogic_create(&s.m, 5, &e);
	assert_non_null(lsi);
	cfg.block = disk;
	assert_int_equal(lsilogic_attach(lsi, 0, &cfg, &e), 0);
	cfg = (struct drive_config){ .block = disc, .cdrom = true };
	assert_int_equal(lsilogic_attach(lsi, 3, &cfg, &e), 0);
	pci_config_write(&s.m.pci, DEVFN, 0x14, BAR, 4);
	pci_config_write(&s.m.pci, DEVFN, 4, 6, 2);
	initialise();
	/* Power-on is the first thing that each of them tells. */
	assert_int_equal(scsi(0, CDB(0), 0, 0), 2);
	assert_int_equal(sense_code(), 0x062900);
	assert_int_equal(scsi(3, CDB(0), 0, 0), 2);
	assert_int_equal(sense_code(), 0x062900);
	return 0;
}

static int
tear_down(void **state)
{
	small_close(&s);
	block_close(disk);
	block_close(disc);
	block_close(other);
	return 0;
}

static void
a_disk_says_what_it_is(void **state)
{
	uint8_t *p = s.ram->host + BUFFER;

	assert_int_equal(scsi(0, CDB(0x12, 0, 0, 0, 36), 2, 36), 0);
	assert_memory_equal(p + 8, "VBOX    HARDDISK        ", 24);
	assert_int_equal(scsi(0, CDB(0x12, 1, 0x80, 0, 255), 2, 255), 0x4500); /* shorter than asked for */
	assert_int_equal(moved, 7);
	assert_memory_equal(p + 4, "S-1", 3);
	assert_int_equal(scsi(0, CDB(0x25), 2, 8), 0);
	assert_memory_equal(p, "\x00\x00\x1f\xff\x00\x00\x02\x00", 8);
	assert_int_equal(scsi(0, CDB(0x9e, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 32), 2, 32), 0);
	assert_int_equal(p[7], 0xff);
	assert_int_equal(p[14], 0x80);
	assert_int_equal(scsi(0, CDB(0xa0, 0, 0, 0, 0, 0, 0, 0, 0, 16), 2, 16), 0);
	assert_int_equal(p[3], 8);
}

static void
blocks_are_read_and_written(void **state)
{
	uint8_t *p = s.ram->host + BUFFER;

	assert_int_equal(scsi(0, CDB(0x28, 0, 0, 0, 1, 0, 0, 0, 4), 2, 2048), 0);
	assert_int_equal(le64(p), 256);
	assert_int_equal(le64(p + 1536), 259);
	memset(p, 0x33, 1024);
	assert_int_equal(scsi(0, CDB(0x2a, 8, 0, 0, 1, 0, 0, 0, 2), 1, 1024), 0);
	memset(p, 0, 1024);
	assert_int_equal(scsi(0, CDB(0x88, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 2), 2, 1024), 0);
	assert_int_equal(p[1023], 0x33);
	assert_int_equal(scsi(0, CDB(0x35), 0, 0), 0);
}

static void
what_is_wrong_with_a_command_is_told(void **state)
{
	assert_int_equal(scsi(0, CDB(0x28, 0, 0, 0, 0x1f, 0xff, 0, 0, 2), 2, 1024), 2);
	assert_int_equal(sense_code(), 0x052100);
	assert_int_equal(scsi(0, CDB(0xc0), 0, 0), 2);
	assert_int_equal(sense_code(), 0x052000);
	assert_int_equal(
		scsi(0, CDB(0x28, 0, 0, 0, 0, 0, 0, 0, 2), 2, 512), 0x4400); /* more data than the list takes */
	assert_int_equal(scsi(1, CDB(0x12, 0, 0, 0, 36), 2, 36), 0x4300);    /* nobody there */
	assert_int_equal(scsi(20, CDB(0), 0, 0), 0x4200);
}

static void
unmapped_blocks_read_as_zeroes(void **state)
{
	uint8_t *p = s.ram->host + BUFFER;

	memset(p, 0, 24);
	p[1] = 22;
	p[3] = 16;
	p[15] = 10; /* LBA 10 */
	p[19] = 2;
	assert_int_equal(scsi(0, CDB(0x42, 0, 0, 0, 0, 0, 0, 0, 24), 1, 24), 0);
	assert_int_equal(scsi(0, CDB(0x28, 0, 0, 0, 0, 9, 0, 0, 4), 2, 2048), 0);
	assert_int_equal(le64(p), 9);
	assert_int_equal(le64(p + 512), 0);
	assert_int_equal(p[512 + 1023], 0);
	assert_int_equal(le64(p + 1536), 12);
	memset(p, 0, 512);
	assert_int_equal(scsi(0, CDB(0x93, 0, 0, 0, 0, 0, 0, 0, 0, 20, 0, 0, 0, 2), 1, 512), 0);
	assert_int_equal(scsi(0, CDB(0x28, 0, 0, 0, 0, 21, 0, 0, 2), 2, 1024), 0);
	assert_int_equal(le64(p), 0);
	assert_int_equal(le64(p + 512), 22);
}

static void
the_write_cache_is_switched_by_mode_select(void **state)
{
	uint8_t *p = s.ram->host + BUFFER;
	struct block_stats before, after;

	assert_int_equal(scsi(0, CDB(0x1a, 8, 8, 0, 24), 2, 24), 0);
	assert_int_equal(p[6] & 4, 4);
	p[6] = 0;
	assert_int_equal(scsi(0, CDB(0x15, 0x10, 0, 0, 24), 1, 24), 0);
	assert_int_equal(scsi(0, CDB(0x1a, 8, 8, 0, 24), 2, 24), 0);
	assert_int_equal(p[6] & 4, 0);
	block_get_stats(disk, &before);
	assert_int_equal(scsi(0, CDB(0x2a, 0, 0, 0, 0, 1, 0, 0, 1), 1, 512), 0);
	block_get_stats(disk, &after);
	assert_int_equal(after.flushes, before.flushes + 1);
}

static void
a_disc_is_read_and_changed(void **state)
{
	uint8_t *p = s.ram->host + BUFFER;

	assert_int_equal(scsi(3, CDB(0x28, 0, 0, 0, 0, 5, 0, 0, 2), 2, 4096), 0);
	assert_int_equal(le64(p), 5);
	assert_int_equal(le64(p + 2048), 6);
	assert_int_equal(scsi(3, CDB(0x1e, 0, 0, 0, 1), 0, 0), 0);
	assert_int_equal(lsilogic_change_medium(lsi, 3, other, false), -16); /* the door is locked */
	assert_int_equal(lsilogic_change_medium(lsi, 3, other, true), 0);
	assert_int_equal(scsi(3, CDB(0), 0, 0), 2);
	assert_int_equal(sense_code(), 0x062800);
	assert_int_equal(scsi(3, CDB(0x25), 2, 8), 0);
	assert_int_equal(p[3], 99);
	assert_int_equal(lsilogic_change_medium(lsi, 0, other, true), -2);
}

static void
a_saved_controller_goes_on_where_it_was(void **state)
{
	uint8_t *p = s.ram->host + BUFFER;

	small_save_and_load(&s, lsi, true);
	assert_int_equal(scsi(0, CDB(0x28, 0, 0, 0, 0, 7, 0, 0, 1), 2, 512), 0);
	assert_int_equal(le64(p), 7);
	assert_int_equal(scsi(3, CDB(0x28, 0, 0, 0, 0, 8, 0, 0, 1), 2, 2048), 0);
	assert_int_equal(le64(p), 8);
}

static void
a_reset_makes_it_ready_again(void **state)
{
	static const uint8_t keys[] = { 0xf, 0x4, 0xb, 0x2, 0x7, 0xd };

	set_reg(0x08, 4); /* not without the keys */
	assert_int_equal(reg(0) >> 28, 2);
	for (size_t i = 0; i < sizeof(keys); i++)
		set_reg(0x04, keys[i]);
	set_reg(0x08, 4);
	assert_int_equal(reg(0) >> 28, 1);
	initialise();
	assert_int_equal(scsi(0, CDB(0), 0, 0), 2);
	assert_int_equal(scsi(0, CDB(0), 0, 0), 0);
}

/* ---- the SAS controller ---- */

static int
set_up_sas(void **state)
{
	struct err e = { 0 };

	small_open(&s);
	disk = small_image("disk", DISK_SIZE, 512);
	disc = small_image("disc", 600 * 2048, 2048);
	other = small_image("other", 100 * 2048, 2048);
	lsi = lsisas_create(&s.m, 5, &e);
	assert_non_null(lsi);
	assert_int_equal(lsilogic_attach(lsi, 2, &(struct drive_config){ .block = disk }, &e), 0);
	assert_int_equal(lsilogic_attach(lsi, 7, &(struct drive_config){ .block = disc, .cdrom = true }, &e), 0);
	assert_int_not_equal(lsilogic_attach(lsi, 8, &(struct drive_config){ .block = other, .cdrom = true }, &e), 0);
	assert_non_null(strstr(e.text, "has ports 0 to 7, not 8"));
	pci_config_write(&s.m.pci, DEVFN, 0x14, BAR, 4);
	pci_config_write(&s.m.pci, DEVFN, 4, 6, 2);
	initialise();
	return 0;
}

/* Read an extended configuration page to BUFFER. Returns the status, and in *words the page's length. */
static int
extended_page(uint8_t type, uint8_t number, uint32_t address, uint8_t action, uint16_t *words)
{
	uint8_t *f = s.ram->host + FRAME, *r;
	uint32_t reply;

	memset(f, 0, 128);
	memset(s.ram->host + BUFFER, 0xee, 512);
	f[0] = action;
	f[3] = 4;
	f[6] = type;
	put_le32(f + 8, 0x77);
	f[22] = number;
	f[23] = 0xf;
	put_le32(f + 24, address);
	put_le32(f + 28, 0xd1000000 | 512);
	put_le32(f + 32, BUFFER);
	set_reg(0x40, FRAME);
	reply = reg(0x44);
	assert_true(reply & 0x80000000);
	r = s.ram->host + (reply << 1);
	assert_int_equal(r[3], 4);
	assert_int_equal(r[6], type);
	*words = le16(r + 4);
	set_reg(0x44, reply << 1);
	return le16(r + 14);
}

static void
a_driver_finds_the_drives_of_a_sas_controller_by_its_pages(void **state)
{
	const uint8_t *p = s.ram->host + BUFFER;
	uint32_t handle = 0xffff, drives = 0;
	uint16_t words, of_phy;

	assert_int_equal(pci_config_read(&s.m.pci, DEVFN, 0, 4), 0x00541000);
	assert_int_equal(extended_page(0x10, 0, 0, 0, &words), 0); /* the header alone moves nothing */
	assert_int_equal(words, (16 + 16 * 8) / 4);
	assert_int_equal(p[0], 0xee);
	assert_int_equal(extended_page(0x10, 0, 0, 1, &words), 0);
	assert_int_equal(p[12], 8);
	assert_int_equal(p[16 + 3], 0);
	assert_int_equal(p[16 + 2 * 16 + 3], 9);
	assert_int_equal(p[words * 4], 0xee);
	assert_int_equal(extended_page(0x13, 0, 2, 1, &words), 0);
	of_phy = le16(p + 20);
	assert_int_equal(extended_page(0x13, 0, 3, 1, &words), 0);
	assert_int_equal(le16(p + 20), 0);
	assert_int_equal(extended_page(0x13, 0, 8, 1, &words), 0x22);
	/* All devices, one after the other: eight ends of the controller, and two drives. */
	for (int i = 0; i < 32 && !extended_page(0x12, 0, handle, 1, &words); i++) {
		handle = le16(p + 24);
		if (!(le32(p + 28) & 0x400))
			continue;
		assert_int_equal(p[26], drives++ ? 7 : 2);
		assert_int_equal(le16(p + 32), 3);
		if (p[26] == 2)
			assert_int_equal(handle, of_phy);
	}
	assert_int_equal(drives, 2);
	assert_int_equal(extended_page(0x12, 0, 2u << 28 | of_phy, 1, &words), 0);
	assert_int_equal(p[26], 2);
	assert_int_equal(extended_page(0x12, 0, 1u << 28 | 3, 1, &words), 0x22);
	assert_int_equal(extended_page(0x11, 0, 0xffff, 1, &words), 0x22); /* no expanders */
	assert_int_equal(extended_page(0x14, 0, 0, 1, &words), 0x22);
	assert_int_equal(extended_page(0x10, 0, 0, 2, &words), 0x20); /* not to be written */
}

static void
drives_of_a_sas_controller_are_read_at_their_ports(void **state)
{
	uint8_t *p = s.ram->host + BUFFER;

	assert_int_equal(scsi(2, CDB(0), 0, 0), 2);
	assert_int_equal(sense_code(), 0x062900);
	assert_int_equal(scsi(2, CDB(0x28, 0, 0, 0, 1, 0, 0, 0, 4), 2, 2048), 0);
	assert_int_equal(le64(p), 256);
	assert_int_equal(scsi(3, CDB(0), 0, 0), 0x4300);
	assert_int_equal(scsi(8, CDB(0), 0, 0), 0x4200);
	small_save_and_load(&s, lsi, true);
	assert_int_equal(scsi(7, CDB(0), 0, 0), 2);
	assert_int_equal(scsi(7, CDB(0x28, 0, 0, 0, 0, 5, 0, 0, 2), 2, 4096), 0);
	assert_int_equal(le64(p), 5);
}

static void
the_parallel_controller_has_no_sas_pages(void **state)
{
	uint16_t words;

	assert_int_equal(extended_page(0x10, 0, 0, 0, &words), 0x22);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(a_disk_says_what_it_is, set_up, tear_down),
		cmocka_unit_test_setup_teardown(blocks_are_read_and_written, set_up, tear_down),
		cmocka_unit_test_setup_teardown(what_is_wrong_with_a_command_is_told, set_up, tear_down),
		cmocka_unit_test_setup_teardown(unmapped_blocks_read_as_zeroes, set_up, tear_down),
		cmocka_unit_test_setup_teardown(the_write_cache_is_switched_by_mode_select, set_up, tear_down),
		cmocka_unit_test_setup_teardown(a_disc_is_read_and_changed, set_up, tear_down),
		cmocka_unit_test_setup_teardown(a_saved_controller_goes_on_where_it_was, set_up, tear_down),
		cmocka_unit_test_setup_teardown(a_reset_makes_it_ready_again, set_up, tear_down),
		cmocka_unit_test_setup_teardown(
			a_driver_finds_the_drives_of_a_sas_controller_by_its_pages, set_up_sas, tear_down),
		cmocka_unit_test_setup_teardown(
			drives_of_a_sas_controller_are_read_at_their_ports, set_up_sas, tear_down),
		cmocka_unit_test_setup_teardown(the_parallel_controller_has_no_sas_pages, set_up, tear_down),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
