/* SPDX-License-Identifier: Apache-2.0 */
/* The xHCI controller driven the way a driver does it: a disk is read and written, a tablet and a keyboard are heard.
 */
#include "test/unit/dev/small.h"

#define BAR 0xfebf0000u
#define DEVFN (5 << 3)
#define OP 0x80u
#define DCBAA 0x1000u
#define COMMANDS 0x2000u
#define EVENTS 0x3000u
#define TABLE 0x4000u
#define INPUT 0x5000u
#define OUTPUT 0x6000u /* 0x400 a slot */
#define RINGS 0x10000u /* 0x4000 a slot, 0x400 an endpoint */
#define BUFFERS 0x40000u

enum {
	NORMAL = 1,
	SETUP,
	DATA,
	STATUS,
	ENABLE = 9,
	ADDRESS = 11,
	CONFIGURE = 12,
	RESET_ENDPOINT = 14,
	SET_DEQUEUE = 16
};
#define IOC 32u

static struct small s;
static struct xhci *xhci;
static struct usb_hid *tablet, *keyboard;
static struct block *disk;
static uint32_t tails[4][32], event;
static struct {
	uint64_t parameter;
	uint32_t status, control;
} last;

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

static uint32_t
ring_of(int slot, int dci)
{
	return slot ? RINGS + 0x4000u * (unsigned)(slot - 1) + 0x400u * (unsigned)dci : COMMANDS;
}

static void
put(int slot, int dci, uint64_t parameter, uint32_t status, uint32_t control)
{
	uint8_t *p = s.ram->host + ring_of(slot, dci) + 16 * tails[slot][dci]++;

	put_le64(p, parameter);
	put_le32(p + 8, status);
	put_le32(p + 12, control | 1);
}

/* The next event into `last`; its completion code, 0: there is none. */
static unsigned
next_event(void)
{
	const uint8_t *p = s.ram->host + EVENTS + 16 * event;

	device_drain_all(&s.m);
	if (!(p[12] & 1))
		return 0;
	last.parameter = le64(p);
	last.status = le32(p + 8);
	last.control = le32(p + 12);
	event++;
	set_reg(0x1038, EVENTS + 16 * event);
	return last.status >> 24;
}

static unsigned
command(uint64_t parameter, uint32_t control)
{
	put(0, 0, parameter, 0, control);
	set_reg(0x2000, 0);
	do {
		if (!next_event())
			return 0;
	} while ((last.control >> 10 & 63) != 33);
	return last.status >> 24;
}

static void
endpoint(int slot, int dci, uint32_t type)
{
	uint8_t *c = s.ram->host + INPUT + 32 * (dci + 1);

	put_le32(c + 4, type << 3 | 64 << 16);
	put_le64(c + 8, ring_of(slot, dci) | 1);
}

static int
control_in(int slot, uint64_t setup, uint32_t len)
{
	put(slot, 1, setup, 8, SETUP << 10 | 64);
	put(slot, 1, BUFFERS, len, DATA << 10 | 1 << 16 | IOC);
	put(slot, 1, 0, 0, STATUS << 10);
	set_reg(0x2000 + 4 * (unsigned)slot, 1);
	return (int)next_event();
}

static unsigned
control_out(int slot, uint64_t setup)
{
	put(slot, 1, setup, 8, SETUP << 10 | 64);
	put(slot, 1, 0, 0, STATUS << 10 | 1 << 16 | IOC);
	set_reg(0x2000 + 4 * (unsigned)slot, 1);
	return next_event();
}

/* Reset the port, address what is there, configure it and endpoint 1 IN (of `type`), and 2 OUT of a disk. */
static int
bring_up(int port, uint32_t type)
{
	int slot;

	set_reg(OP + 0x400 + 16 * (unsigned)port, 0x210);
	assert_int_equal(reg(OP + 0x400 + 16 * (unsigned)port) & 3, 3);
	assert_int_equal(command(0, ENABLE << 10), 1);
	slot = (int)(last.control >> 24);
	put_le64(s.ram->host + DCBAA + 8 * slot, OUTPUT + 0x400u * (unsigned)slot);
	memset(s.ram->host + INPUT, 0, 0x1000);
	put_le32(s.ram->host + INPUT + 4, 3);
	s.ram->host[INPUT + 32 + 6] = (uint8_t)(port + 1);
	endpoint(slot, 1, 4);
	assert_int_equal(command(INPUT, ADDRESS << 10 | (uint32_t)slot << 24), 1);
	put_le32(s.ram->host + INPUT + 4, 1 | 1 << 3 | 1 << 4);
	endpoint(slot, 3, type);
	endpoint(slot, 4, 2);
	assert_int_equal(command(INPUT, CONFIGURE << 10 | (uint32_t)slot << 24), 1);
	assert_int_equal(control_out(slot, 0x0000000000010900), 1);
	return slot;
}

static int
setup(void **state)
{
	struct drive_config cfg = { 0 };
	struct err e;

	small_open(&s);
	disk = small_image("disk", 1 << 20, 512);
	cfg.block = disk;
	xhci = xhci_create(&s.m, 5, &e);
	assert_int_equal(xhci_attach(xhci, 0, &cfg, &e), 0);
	keyboard = xhci_add_keyboard(xhci, &e);
	tablet = xhci_add_tablet(xhci, &e);
	memset(tails, 0, sizeof(tails));
	event = 0;
	pci_config_write(&s.m.pci, DEVFN, 0x10, BAR, 4);
	pci_config_write(&s.m.pci, DEVFN, 4, 6, 2);
	put_le64(s.ram->host + TABLE, EVENTS);
	put_le32(s.ram->host + TABLE + 8, 256);
	set_reg(OP + 0x38, 8);
	set_reg(OP + 0x30, DCBAA);
	set_reg(OP + 0x18, COMMANDS | 1);
	set_reg(0x1028, 1);
	set_reg(0x1038, EVENTS);
	set_reg(0x1030, TABLE);
	set_reg(0x1034, 0);
	set_reg(0x1020, 2);
	set_reg(OP, 5);
	return 0;
}

static int
teardown(void **state)
{
	machine_destroy_devices(&s.m);
	block_close(disk);
	small_close(&s);
	return 0;
}

/* A command with its data, and the status the disk gives. */
static unsigned
disk_command(int slot, const uint8_t cdb[10], uint32_t len, bool in)
{
	uint8_t *w = s.ram->host + BUFFERS + 0x10000;
	uint32_t flags = NORMAL << 10 | IOC | 4;
	unsigned code;

	memset(w, 0, 31);
	put_le32(w, 0x43425355);
	put_le32(w + 4, 0x1234);
	put_le32(w + 8, len);
	w[12] = in ? 0x80 : 0;
	w[14] = 10;
	memcpy(w + 15, cdb, 10);
	put(slot, 4, BUFFERS + 0x10000, 31, NORMAL << 10 | IOC);
	set_reg(0x2000 + 4 * (unsigned)slot, 4);
	code = next_event();
	assert_int_equal(code, 1);
	if (len) {
		put(slot, in ? 3 : 4, BUFFERS, len, flags);
		set_reg(0x2000 + 4 * (unsigned)slot, in ? 3 : 4);
		code = next_event();
	}
	put(slot, 3, BUFFERS + 0x11000, 13, flags);
	set_reg(0x2000 + 4 * (unsigned)slot, 3);
	assert_int_equal(next_event(), 1);
	assert_int_equal(le32(s.ram->host + BUFFERS + 0x11000), 0x53425355);
	assert_int_equal(le32(s.ram->host + BUFFERS + 0x11004), 0x1234);
	return code << 8 | s.ram->host[BUFFERS + 0x1100c];
}

static void
test_disk(void **state)
{
	int slot = bring_up(0, 6);
	uint8_t read[10] = { 0x28, 0, 0, 0, 0, 7, 0, 0, 2 }, write[10] = { 0x2a, 0, 0, 0, 0, 9, 0, 0, 1 }, sector[512];
	static const uint8_t ready[10];

	assert_int_equal(disk_command(slot, ready, 0, false), 1 << 8 | 1); /* it has been switched on */
	assert_int_equal(disk_command(slot, read, 1024, true), 1 << 8);
	assert_int_equal(le64(s.ram->host + BUFFERS), 7);
	assert_int_equal(le64(s.ram->host + BUFFERS + 512), 8);
	memset(s.ram->host + BUFFERS, 0x5a, 512);
	assert_int_equal(disk_command(slot, write, 512, false), 1 << 8);
	block_read(disk, sector, 512, 9 * 512);
	assert_int_equal(sector[0], 0x5a);
	read[2] = 1; /* far behind the end: the data is short, the status says failed */
	assert_int_equal(disk_command(slot, read, 1024, true), 13 << 8 | 1);
	assert_int_equal(last.status & 0xffffff, 0);
	assert_int_equal(le32(s.ram->host + BUFFERS + 0x11008), 1024);
}

static void
test_wrong_wrapper(void **state)
{
	int slot = bring_up(0, 6);

	put(slot, 4, BUFFERS, 31, NORMAL << 10 | IOC); /* zeroes */
	set_reg(0x2000 + 4 * (unsigned)slot, 4);
	assert_int_equal(next_event(), 6);
	assert_int_equal(s.ram->host[OUTPUT + 0x400 * slot + 32 * 4] & 7, 2); /* halted */
	assert_int_equal(command(0, RESET_ENDPOINT << 10 | 4 << 16 | (uint32_t)slot << 24), 1);
	assert_int_equal(command((ring_of(slot, 4) + 16) | 1, SET_DEQUEUE << 10 | 4 << 16 | (uint32_t)slot << 24), 1);
	assert_int_equal(s.ram->host[OUTPUT + 0x400 * slot + 32 * 4] & 7, 3); /* stopped */
}

static void
test_tablet(void **state)
{
	int slot = bring_up(7 - 1, 7);

	assert_true(usb_hid_listening(tablet));
	assert_false(usb_hid_listening(keyboard));
	put(slot, 3, BUFFERS, 8, NORMAL << 10 | IOC | 4);
	set_reg(0x2000 + 4 * (unsigned)slot, 3);
	assert_int_equal(next_event(), 0); /* nothing has moved */
	usb_tablet_move(tablet, 100, 32767, 0, 1);
	assert_int_equal(next_event(), 13);
	assert_int_equal(last.status & 0xffffff, 2);
	assert_memory_equal(s.ram->host + BUFFERS, "\x01\x64\x00\xff\x7f\x00", 6);
}

static void
test_keyboard(void **state)
{
	int slot = bring_up(8 - 1, 7);
	static const uint8_t typed[] = { 0x2a, 0x1e, 0x9e, 0xaa, 0xe0, 0x48 }; /* shift, a, both up; arrow up */
	static const uint8_t reports[5][8] = { { 2 }, { 2, 0, 4 }, { 2 }, { 0 }, { 0, 0, 0x52 } };

	assert_true(usb_keyboard_type(keyboard, typed, sizeof(typed)));
	for (int i = 0; i < 5; i++) {
		put(slot, 3, BUFFERS, 8, NORMAL << 10 | IOC);
		set_reg(0x2000 + 4 * (unsigned)slot, 3);
		assert_int_equal(next_event(), 1);
		assert_memory_equal(s.ram->host + BUFFERS, reports[i], 8);
	}
}

static void
test_saved(void **state)
{
	int slot = bring_up(0, 6);
	uint8_t read[10] = { 0x28, 0, 0, 0, 0, 3, 0, 0, 1 };

	static const uint8_t ready[10];

	disk_command(slot, ready, 0, false);
	small_save_and_load(&s, xhci, true);
	assert_int_equal(disk_command(slot, read, 512, true), 1 << 8);
	assert_int_equal(le64(s.ram->host + BUFFERS), 3);
	assert_int_equal(control_in(slot, 0x0012000001000680, 18), 1);
	assert_int_equal(s.ram->host[BUFFERS], 18);
}

static void
test_endless_ring(void **state)
{
	int slot = bring_up(0, 6);

	/* A ring of nothing but a link to itself, and one of commands. */
	put(slot, 3, ring_of(slot, 3), 0, 6 << 10);
	set_reg(0x2000 + 4 * (unsigned)slot, 3);
	assert_int_equal(s.ram->host[OUTPUT + 0x400 * slot + 32 * 3] & 7, 4); /* error */
	put(0, 0, COMMANDS + 16 * tails[0][0], 0, 6 << 10);
	set_reg(0x2000, 0);
	assert_int_equal(next_event(), 0);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		{ "a disk on USB is read and written, and says what failed", test_disk, setup, teardown, NULL },
		{ "a wrapper that is none stalls, and the endpoint can be reset", test_wrong_wrapper, setup, teardown,
			NULL },
		{ "the tablet reports where the pointer is, when it moves", test_tablet, setup, teardown, NULL },
		{ "the keyboard reports every state of its keys in turn", test_keyboard, setup, teardown, NULL },
		{ "a saved controller goes on where it was", test_saved, setup, teardown, NULL },
		{ "rings without an end do not hold the machine", test_endless_ring, setup, teardown, NULL },
	};

	return cmocka_run_group_tests_name("xhci", tests, NULL, NULL);
}
