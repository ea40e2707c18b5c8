/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fuzz target: a guest's requests to the virtio SCSI host: commands, task management, events, targets that come and go.
 * tools/run-fuzz builds and runs it.
 */
#include "base/bytes.h"
#include "test/fuzz/disks.h"

#define BAR 0xfebf0000u
#define DEVFN (5 << 3)

static struct virtio_scsi *scsi;
static uint16_t indices[3];

static void
plug(int target, struct block *b, bool cdrom)
{
	struct drive_config cfg = { .block = b, .cdrom = cdrom, .discard = true };

	virtio_scsi_attach(scsi, target, &cfg, NULL);
}

static void
common(uint32_t reg, uint32_t value, unsigned size)
{
	mem_store(&m.mem, BAR + reg, value, size);
}

/* Three queues of 16 entries: descriptors at 0x1000 * (n + 1), available ring + 0x400, used ring + 0x800. */
static void
power_on(void)
{
	virtio_scsi_detach(scsi, 0);
	virtio_scsi_detach(scsi, 1);
	virtio_scsi_detach(scsi, 2);
	plug(0, disk, false);
	plug(1, disc, true);
	device_reset_all(&m);
	pci_config_write(&m.pci, DEVFN, 0x20, BAR, 4);
	pci_config_write(&m.pci, DEVFN, 4, 6, 2);
	memset(ram->host, 0, 65536);
	memset(indices, 0, sizeof(indices));
	common(20, 3, 1);
	common(8, 0, 4);
	common(12, 0x10000006, 4); /* hot plug, changes, indirect descriptors */
	common(8, 1, 4);
	common(12, 1, 4);
	common(20, 11, 1);
	for (uint32_t n = 0; n < 3; n++) {
		common(22, n, 2);
		common(24, 16, 2);
		common(32, 0x1000 * (n + 1), 4);
		common(40, 0x1000 * (n + 1) + 0x400, 4);
		common(48, 0x1000 * (n + 1) + 0x800, 4);
		common(28, 1, 2);
	}
	common(20, 15, 1);
}

/* A chain of `count` descriptors with lengths and directions from the input, made available and kicked. */
static void
request(struct input *in, uint32_t n, const uint8_t *header, uint32_t header_len)
{
	uint8_t *queue = ram->host + 0x1000 * (n + 1), flags = (uint8_t)take(in, 1);
	uint32_t count = 1 + (flags & 3);

	memcpy(ram->host + 0x5000, header, header_len);
	for (uint32_t i = 0; i < count; i++) {
		uint8_t *d = queue + 16 * i;
		bool write = flags >> (4 + i) & 1;

		put_le64(d, i ? 0x6000 + (take(in, 2) << 2) : 0x5000);
		put_le32(d + 8, i ? take(in, 2) : header_len);
		put_le16(d + 12, (uint16_t)((i + 1 < count ? 1 : 0) | (i && write ? 2 : 0)));
		put_le16(d + 14, (uint16_t)(i + 1));
	}
	put_le16(queue + 0x404 + 2 * (indices[n] % 16), 0);
	put_le16(queue + 0x402, ++indices[n]);
	common(0x3000 + 4 * n, n, 2);
}

static void
command(struct input *in)
{
	uint8_t h[51] = { 1 };

	h[1] = (uint8_t)(take(in, 1) & 3);
	h[2] = 0x40;
	for (int i = 0; i < 16; i++)
		h[19 + i] = (uint8_t)take(in, 1);
	request(in, 2, h, sizeof(h));
}

static void
step(struct input *in)
{
	uint8_t op = (uint8_t)take(in, 1), h[24];

	switch (op & 7) {
	case 0:
		common(take(in, 2) & 0x3fff, take(in, 4), op & 8 ? 4 : 2);
		break;
	case 1:
		mem_load(&m.mem, BAR + take(in, 2) % 0x4000, op & 8 ? 4 : 1);
		break;
	case 2:
		poke_memory(in);
		break;
	case 3:
	case 4:
		command(in);
		break;
	case 5:
		device_drain_all(&m);
		break;
	case 6:
		for (size_t i = 0; i < sizeof(h); i++)
			h[i] = (uint8_t)take(in, 1);
		if (op & 8)
			put_le32(h, op >> 4 & 3);
		request(in, op & 0x80 ? 1 : 0, h, sizeof(h));
		break;
	case 7:
		if (op & 0x80)
			virtio_scsi_detach(scsi, op >> 3 & 3);
		else if (op & 0x40)
			plug(op >> 3 & 3, op & 8 ? NULL : other, op & 8);
		else
			virtio_scsi_change_medium(scsi, 1, op & 0x10 ? disc : NULL, op & 8);
	}
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input in = { data, size };

	if (!scsi) {
		make_machine();
		scsi = virtio_scsi_create(&m, 5, 0, 4, NULL);
	}
	virtio_scsi_detach(scsi, 3);
	power_on();
	while (in.left)
		step(&in);
	device_drain_all(&m);
	return 0;
}
