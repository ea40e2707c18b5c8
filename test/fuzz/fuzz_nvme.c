/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fuzz target: a guest's accesses to the NVMe controller: registers, queues, PRP lists in memory, namespaces that come
 * and go. tools/run-fuzz builds and runs it.
 */
#include "base/bytes.h"
#include "test/fuzz/disks.h"

#define BAR 0xfebf0000u
#define DEVFN (5 << 3)

static struct nvme *nvme;

static void
plug(int port, struct block *b)
{
	struct drive_config cfg = { .block = b, .discard = true };

	nvme_attach(nvme, port, &cfg, NULL);
}

static void
write_register(uint32_t reg, uint32_t value)
{
	mem_store(&m.mem, BAR + reg, value, 4);
}

/* A submission entry in queue n, which is at 0x1000 * (n + 1), and its doorbell. */
static void
submit(uint32_t n, uint32_t *tail, const uint8_t sqe[64])
{
	memcpy(ram->host + 0x1000 * (n + 1) + *tail * 64, sqe, 64);
	*tail = (*tail + 1) % 16;
	write_register(0x1000 + n * 8, *tail);
}

static uint32_t tails[3];

static void
create_queues(void)
{
	for (uint32_t n = 1; n < 3; n++) {
		uint8_t sqe[64] = { 5 };

		put_le64(sqe + 24, 0x8000 + n * 0x1000);
		put_le32(sqe + 40, n | 15 << 16);
		put_le32(sqe + 44, 3);
		submit(0, &tails[0], sqe);
		sqe[0] = 1;
		put_le64(sqe + 24, 0x1000 * (n + 1));
		put_le32(sqe + 44, 1 | n << 16);
		submit(0, &tails[0], sqe);
	}
}

static void
power_on(void)
{
	nvme_detach(nvme, 0);
	nvme_detach(nvme, 1);
	plug(0, disk);
	device_reset_all(&m);
	pci_config_write(&m.pci, DEVFN, 0x10, BAR, 4);
	pci_config_write(&m.pci, DEVFN, 4, 6, 2);
	memset(ram->host, 0, 65536);
	memset(tails, 0, sizeof(tails));
	write_register(0x24, 15 | 15 << 16);
	write_register(0x28, 0x1000);
	write_register(0x30, 0x8000);
	write_register(0x14, 0x00460001);
	create_queues();
}

static void
command(struct input *in, uint32_t n)
{
	uint8_t sqe[64] = { 0 };

	for (int i = 0; i < 4; i++)
		sqe[i] = (uint8_t)take(in, 1);
	put_le32(sqe + 4, take(in, 1) & 0x80 ? take(in, 4) : 1);
	put_le64(sqe + 24, take(in, 2) << 4);
	put_le64(sqe + 32, take(in, 2) << 3);
	for (int i = 40; i < 52; i++)
		sqe[i] = (uint8_t)take(in, 1);
	submit(n, &tails[n], sqe);
}

static void
step(struct input *in)
{
	uint8_t op = (uint8_t)take(in, 1);

	switch (op & 7) {
	case 0:
		write_register((take(in, 1) << 2) & 0x3c, take(in, 4));
		break;
	case 1:
		mem_load(&m.mem, BAR + take(in, 2) % 0x2000, op & 8 ? 8 : op & 16 ? 4 : 1);
		break;
	case 2:
		poke_memory(in);
		break;
	case 3:
		command(in, 0);
		break;
	case 4:
		command(in, 1 + (op >> 3 & 1));
		break;
	case 5:
		device_drain_all(&m);
		break;
	case 6:
		write_register(0x1000 + (take(in, 1) & 0xfc), take(in, 1));
		break;
	case 7:
		if (op & 0x80)
			nvme_detach(nvme, op >> 3 & 1);
		else if (op & 0x40)
			plug(op >> 3 & 1, op & 8 ? other : disk);
		else if (op & 0x20)
			write_register(0x1000 + 4 + (op >> 3 & 3) * 8, take(in, 1) & 15);
		else
			pci_config_write(&m.pci, DEVFN, take(in, 1), take(in, 4), 4);
	}
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input in = { data, size };

	if (!nvme) {
		make_machine();
		nvme = nvme_create(&m, 5, 2, NULL);
	}
	power_on();
	while (in.left)
		step(&in);
	device_drain_all(&m);
	return 0;
}
