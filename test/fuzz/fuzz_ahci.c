/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fuzz target: a guest's accesses to the AHCI controller: registers, command lists and tables in memory, hot plug.
 * tools/run-fuzz builds and runs it.
 */
#include "base/bytes.h"
#include "test/fuzz/disks.h"

#define BAR 0xfebf0000u
#define DEVFN (5 << 3)

static struct ahci *ahci;

static void
plug(int port, struct block *b, bool cdrom)
{
	struct drive_config cfg = { .block = b, .cdrom = cdrom, .discard = true };

	ahci_attach(ahci, port, &cfg, NULL);
}

static void
write_register(uint32_t reg, uint32_t value)
{
	mem_store(&m.mem, BAR + reg, value, 4);
}

/* Two ports running: lists at 0x1000 and 0x2000, frames at 0x3000 and 0x3100. */
static void
power_on(void)
{
	ahci_detach(ahci, 0);
	ahci_detach(ahci, 1);
	plug(0, disk, false);
	plug(1, disc, true);
	device_reset_all(&m);
	pci_config_write(&m.pci, DEVFN, 0x24, BAR, 4);
	pci_config_write(&m.pci, DEVFN, 4, 6, 2);
	memset(ram->host, 0, 65536);
	for (uint32_t i = 0; i < 2; i++) {
		uint32_t p = 0x100 + i * 0x80;

		write_register(p, 0x1000 + i * 0x1000);
		write_register(p + 8, 0x3000 + i * 0x100);
		write_register(p + 0x14, 0xffffffff);
		write_register(p + 0x18, 0x17);
	}
}

/* A command in a slot of a port, with a PRD list of one or two entries; then PxSACT and PxCI. */
static void
command(struct input *in, uint32_t port)
{
	uint32_t slot = take(in, 1) & 31, table = 0x4000 + port * 0x4000 + slot * 0x200, flags = take(in, 1);
	uint8_t *h = ram->host + 0x1000 + port * 0x1000 + slot * 32, *t = ram->host + table;

	put_le32(h, 5 | (flags & 0x60) | (flags & 3) << 16);
	put_le32(h + 8, table);
	put_le16(t, 0x8027);
	t[2] = (uint8_t)take(in, 1);
	for (int i = 3; i < 16; i++)
		t[i] = (uint8_t)take(in, 1);
	for (int i = 0; i < 12 && flags & 0x20; i++)
		t[0x40 + i] = (uint8_t)take(in, 1);
	for (uint32_t i = 0; i < (flags & 3); i++) {
		put_le32(t + 0x80 + i * 16, take(in, 2) << 4);
		put_le32(t + 0x80 + i * 16 + 12, take(in, 2));
	}
	if (flags & 4)
		write_register(0x100 + port * 0x80 + 0x34, 1u << slot);
	write_register(0x100 + port * 0x80 + 0x38, 1u << slot | (flags & 8 ? take(in, 4) : 0));
}

static void
step(struct input *in)
{
	uint8_t op = (uint8_t)take(in, 1);

	switch (op & 7) {
	case 0:
		write_register((take(in, 1) << 2) & 0x1fc, take(in, 4));
		break;
	case 1:
		mem_load(&m.mem, BAR + take(in, 2) % 0x2000, op & 8 ? 4 : 1);
		break;
	case 2:
		poke_memory(in);
		break;
	case 3:
	case 4:
		command(in, op >> 3 & 1);
		break;
	case 5:
		device_drain_all(&m);
		break;
	case 6: /* ST off, on */
		write_register(0x100 + (op >> 3 & 1) * 0x80 + 0x18, 0x16);
		write_register(0x100 + (op >> 3 & 1) * 0x80 + 0x18, 0x17);
		break;
	case 7:
		if (op & 0x80)
			ahci_detach(ahci, op >> 3 & 1);
		else if (op & 0x40)
			plug(op >> 3 & 1, op & 8 ? disc : disk, op & 8);
		else if (op & 0x20)
			ahci_change_medium(ahci, 1, op & 0x10 ? other : NULL, op & 8);
		else
			pci_config_write(&m.pci, DEVFN, take(in, 1), take(in, 4), 4);
	}
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input in = { data, size };

	if (!ahci) {
		make_machine();
		ahci = ahci_create(&m, 5, 2, NULL);
	}
	power_on();
	while (in.left)
		step(&in);
	device_drain_all(&m);
	return 0;
}
