/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fuzz target: a guest's accesses to the IDE controller: ports, bus master, PRDs in memory, disc changes, resets.
 * tools/run-fuzz builds and runs it.
 */
#include "test/fuzz/disks.h"

#define BM 0xc000u

static struct ide *ide;

static void
make_ide(void)
{
	struct ide_wires w = { 0 };
	struct drive_config cfg = { .discard = true };

	make_machine();
	ide = ide_create(&m, 1, 1, &w);
	cfg.block = disk;
	if (!ide || ide_attach(ide, 0, 0, &cfg, NULL))
		abort();
	cfg = (struct drive_config){ .block = disc, .cdrom = true };
	if (ide_attach(ide, 0, 1, &cfg, NULL))
		abort();
}

static void
power_on(void)
{
	device_reset_all(&m);
	ide_change_medium(ide, 0, 1, disc, true);
	pci_config_write(&m.pci, 1 << 3 | 1, 0x20, BM, 4);
	pci_config_write(&m.pci, 1 << 3 | 1, 4, 5, 2);
	memset(ram->host, 0, 65536);
}

/* A whole command, so that the interesting states are a byte away. */
static void
command(struct input *in)
{
	io_write(&m.io, 0x1f6, 0xe0 | (take(in, 1) & 0x1f), 1);
	for (uint16_t reg = 0x1f1; reg <= 0x1f5; reg++) {
		io_write(&m.io, reg, take(in, 1), 1);
		io_write(&m.io, reg, take(in, 1), 1);
	}
	io_write(&m.io, 0x1f7, take(in, 1), 1);
}

static void
packet(struct input *in)
{
	io_write(&m.io, 0x1f6, 0xb0, 1);
	io_write(&m.io, 0x1f1, take(in, 1) & 1, 1);
	io_write(&m.io, 0x1f4, take(in, 1), 1);
	io_write(&m.io, 0x1f5, take(in, 1), 1);
	io_write(&m.io, 0x1f7, 0xa0, 1);
	for (int i = 0; i < 6; i++)
		io_write(&m.io, 0x1f0, take(in, 2), 2);
}

static void
step(struct input *in)
{
	static const uint8_t sizes[4] = { 1, 2, 4, 4 };
	uint8_t op = (uint8_t)take(in, 1);
	uint16_t port = (uint16_t)((op & 8 ? 0x170 : 0x1f0) + (op >> 4 & 7));
	unsigned size = sizes[op >> 6];

	switch (op & 7) {
	case 0:
		io_write(&m.io, port, take(in, size), size);
		break;
	case 1:
		for (uint32_t n = take(in, 1); n != UINT32_MAX; n--)
			io_read(&m.io, port, size);
		break;
	case 2:
		io_write(&m.io, (uint16_t)(BM + (op >> 3 & 15)), take(in, size), size);
		break;
	case 3:
		poke_memory(in);
		break;
	case 4:
		command(in);
		break;
	case 5:
		packet(in);
		break;
	case 6:
		device_drain_all(&m);
		break;
	case 7:
		if (op & 0x80)
			io_write(&m.io, 0x3f6, op >> 4 & 7, 1);
		else if (op & 0x40)
			ide_change_medium(ide, 0, 1, op & 0x20 ? other : op & 0x10 ? disc : NULL, op & 8);
		else
			pci_config_write(&m.pci, 1 << 3 | 1, take(in, 1), take(in, size), size);
	}
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input in = { data, size };

	if (!ide)
		make_ide();
	power_on();
	while (in.left)
		step(&in);
	device_drain_all(&m);
	return 0;
}
