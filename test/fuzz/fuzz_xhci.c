/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fuzz target: a guest's accesses to the xHCI controller, with a tablet, a keyboard and a disk plugged in: registers,
 * rings and contexts in memory. The disk is slot 1, addressed and configured, before the input begins. tools/run-fuzz
 * builds and runs it.
 */
#include "base/bytes.h"
#include "test/fuzz/disks.h"

#define BAR 0xfebf0000u
#define DEVFN (5 << 3)
#define OP 0x80
#define DCBAA 0x1000
#define COMMANDS 0x2000
#define EVENTS 0x3000
#define TABLE 0x4000
#define INPUT 0x5000
#define OUTPUT 0x6000
#define RINGS 0x8000 /* 0x400 each, by device context index */
#define BUFFERS 0x20000

static struct xhci *xhci;
static struct usb_hid *tablet, *keyboard;
static uint32_t tail[32];

static void
reg(uint32_t at, uint32_t value)
{
	mem_store(&m.mem, BAR + at, value, 4);
}

/* On ring `n` (0: commands), whose 16 entries are not reused: past them there is nothing. */
static void
trb(uint32_t n, uint64_t parameter, uint32_t status, uint32_t control)
{
	uint8_t *p = ram->host + (n ? RINGS + 0x400 * n : COMMANDS) + 16 * (tail[n] % 60);

	put_le64(p, parameter);
	put_le32(p + 8, status);
	put_le32(p + 12, control | 1);
	tail[n]++;
}

static void
endpoint(uint32_t dci, uint32_t type)
{
	uint8_t *c = ram->host + INPUT + 32 * (dci + 1);

	put_le32(c + 4, type << 3 | 512 << 16);
	put_le64(c + 8, (RINGS + 0x400 * dci) | 1);
}

static void
power_on(void)
{
	device_reset_all(&m);
	pci_config_write(&m.pci, DEVFN, 0x10, BAR, 4);
	pci_config_write(&m.pci, DEVFN, 4, 6, 2);
	memset(ram->host, 0, RAM_SIZE / 2);
	memset(tail, 0, sizeof(tail));
	put_le64(ram->host + DCBAA + 8, OUTPUT);
	put_le64(ram->host + TABLE, EVENTS);
	put_le32(ram->host + TABLE + 8, 64);
	reg(OP + 0x38, 8);
	reg(OP + 0x30, DCBAA);
	reg(OP + 0x18, COMMANDS | 1);
	reg(0x1028, 1);
	reg(0x1038, EVENTS);
	reg(0x1030, TABLE);
	reg(0x1034, 0);
	reg(0x1020, 2);
	reg(OP, 5);
	reg(OP + 0x400, 0x210); /* reset the first port */
	put_le32(ram->host + INPUT + 4, 3);
	ram->host[INPUT + 32 + 6] = 1;
	endpoint(1, 4);
	trb(0, 0, 0, 9 << 10);
	trb(0, INPUT, 0, 11 << 10 | 1 << 24);
	reg(0x2000, 0);
	put_le32(ram->host + INPUT + 4, 1 | 1 << 3 | 1 << 4);
	endpoint(3, 6);
	endpoint(4, 2);
	trb(0, INPUT, 0, 12 << 10 | 1 << 24);
	reg(0x2000, 0);
}

/* A command wrapper and the status that it is to have, in 31 bytes of input. */
static void
disk_command(struct input *in)
{
	uint8_t *w = ram->host + BUFFERS;

	put_le32(w, 0x43425355);
	put_le32(w + 8, take(in, 3));
	w[12] = (uint8_t)(take(in, 1) & 0x80);
	w[14] = (uint8_t)(take(in, 1) & 15) + 1;
	for (int i = 15; i < 31; i++)
		w[i] = (uint8_t)take(in, 1);
	trb(4, BUFFERS, 31, 1 << 10 | 32);
	reg(0x2004, 4);
	trb(3, BUFFERS + 0x1000, take(in, 2), 1 << 10 | 36);
	trb(3, BUFFERS + 0x800, 13, 1 << 10 | 32);
	reg(0x2004, 3);
}

static void
step(struct input *in)
{
	uint8_t op = (uint8_t)take(in, 1), codes[4];
	uint32_t n;

	switch (op & 7) {
	case 0:
		reg(take(in, 2) & 0x21fc, take(in, 4));
		break;
	case 1:
		mem_load(&m.mem, BAR + take(in, 2), op & 8 ? 4 : op & 16 ? 2 : 1);
		break;
	case 2:
		poke_memory(in);
		break;
	case 3:
		n = op >> 3 & 3 ? op >> 3 & 7 : 0;
		trb(n, take(in, 3), take(in, 4), (take(in, 1) & 0x3f) << 10 | (take(in, 3) & 0xff1f03fe));
		reg(n ? 0x2004 : 0x2000, n);
		break;
	case 4:
		disk_command(in);
		break;
	case 5:
		device_drain_all(&m);
		break;
	case 6:
		trb(1, (uint64_t)take(in, 4) << 32 | take(in, 4), 8, 2 << 10 | 64);
		trb(1, BUFFERS + 0x2000, take(in, 2), 3 << 10 | (op & 8 ? 1 << 16 : 0) | 36);
		trb(1, 0, 0, 4 << 10 | 32);
		reg(0x2004, 1);
		break;
	case 7:
		put_le32(codes, take(in, 4));
		if (op & 8)
			usb_keyboard_type(keyboard, codes, 4);
		else
			usb_tablet_move(tablet, take(in, 2), take(in, 2), (int8_t)take(in, 1), op >> 4);
	}
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input in = { data, size };

	if (!xhci) {
		struct drive_config cfg = { 0 };

		make_machine();
		cfg.block = disk;
		xhci = xhci_create(&m, 5, NULL);
		if (xhci_attach(xhci, 0, &cfg, NULL))
			abort();
		tablet = xhci_add_tablet(xhci, NULL);
		keyboard = xhci_add_keyboard(xhci, NULL);
	}
	power_on();
	while (in.left)
		step(&in);
	device_drain_all(&m);
	return 0;
}
