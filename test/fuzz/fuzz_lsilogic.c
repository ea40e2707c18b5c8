/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fuzz target: a guest's accesses to the LSI Logic controllers (the SAS one when the input ends in an odd byte), and through them SCSI commands to a disk and a CD-ROM
 * drive. tools/run-fuzz builds and runs it.
 */
#include "base/bytes.h"
#include "test/fuzz/disks.h"

#define BAR 0xfebf0000u

static struct lsilogic *lsi, *both[2];
static uint32_t devfn;

static void
write_register(uint32_t reg, uint32_t value)
{
	mem_store(&m.mem, BAR + reg, value, 4);
}

/* Operational: IOC INIT through the doorbell, reply frames from 0x8000 on. */
static void
power_on(void)
{
	static const uint32_t init[6] = { 0x02000004, 0x00011000, 0, 128, 0, 0 };

	device_reset_all(&m);
	pci_config_write(&m.pci, devfn, 0x14, BAR, 4);
	pci_config_write(&m.pci, devfn, 4, 6, 2);
	memset(ram->host, 0, 65536);
	write_register(0, 0x42000000 | 6 << 16);
	for (int i = 0; i < 6; i++)
		write_register(0, init[i]);
	write_register(0x30, 0);
	for (uint32_t i = 0; i < 16; i++)
		write_register(0x44, 0x8000 + i * 128);
}

/* A SCSI request at 0x1000 with a list of up to three elements. */
static void
scsi_request(struct input *in)
{
	uint8_t *f = ram->host + 0x1000, flags = (uint8_t)take(in, 1);
	uint32_t n = flags & 3;

	memset(f, 0, 128);
	f[0] = flags >> 2 & 3;
	f[4] = 16;
	f[5] = 18;
	put_le32(f + 8, 0x1234);
	f[13] = flags & 0x80 ? (uint8_t)take(in, 1) : 0;
	f[23] = flags >> 4 & 3;
	for (int i = 0; i < 16; i++)
		f[24 + i] = (uint8_t)take(in, 1);
	put_le32(f + 40, take(in, 3));
	put_le32(f + 44, 0x7000);
	for (uint32_t i = 0; i < n; i++) {
		uint32_t kind = i + 1 == n ? 0xd1 : 0x10;

		if (flags & 0x40)
			kind = take(in, 1);
		put_le32(f + 48 + i * 8, kind << 24 | take(in, 2));
		put_le32(f + 52 + i * 8, take(in, 2) << 4);
	}
	write_register(0x40, 0x1000);
}

static void
other_request(struct input *in)
{
	uint8_t *f = ram->host + 0x2000;
	uint32_t n = take(in, 1) & 63;

	memset(f, 0, 128);
	for (uint32_t i = 0; i < n; i++)
		f[i] = (uint8_t)take(in, 1);
	write_register(n & 1 ? 0x40 : 0x48, 0x2000);
}

static void
step(struct input *in)
{
	uint8_t op = (uint8_t)take(in, 1);

	switch (op & 7) {
	case 0:
		write_register((take(in, 1) << 2) & 0x7c, take(in, 4));
		break;
	case 1:
		mem_load(&m.mem, BAR + take(in, 1) % 0x100, op & 8 ? 4 : 1);
		break;
	case 2:
		poke_memory(in);
		break;
	case 3:
	case 4:
		scsi_request(in);
		break;
	case 5:
		device_drain_all(&m);
		break;
	case 6:
		if (op & 0x80)
			lsilogic_change_medium(lsi, 1, op & 0x40 ? other : NULL, op & 8);
		else
			other_request(in);
		break;
	case 7:
		for (int i = 0; i < 4; i++)
			mem_load(&m.mem, BAR + 0x44, 4);
		write_register(0x44, 0x8000 + (op & 0xf0) * 8);
	}
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input in = { data, size };

	if (!lsi) {
		make_machine();
		both[0] = lsilogic_create(&m, 5, NULL);
		both[1] = lsisas_create(&m, 6, NULL);
		for (int i = 0; i < 2; i++) {
			lsilogic_attach(both[i], 0, &(struct drive_config){ .block = disk, .discard = true }, NULL);
			lsilogic_attach(both[i], 1, &(struct drive_config){ .block = disc, .cdrom = true }, NULL);
		}
	}
	lsi = both[size && data[size - 1] & 1];
	devfn = lsi == both[0] ? 5 << 3 : 6 << 3;
	lsilogic_change_medium(lsi, 1, disc, true);
	power_on();
	while (in.left)
		step(&in);
	device_drain_all(&m);
	return 0;
}
