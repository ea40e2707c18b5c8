/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fuzz target: a guest's queues and registers of every virtio device. The input chooses the device, then writes
 * descriptors and rings at the usual places (and anywhere else), notifies, resets, and lets frames come in.
 * tools/run-fuzz builds and runs it.
 */
#include "base/bytes.h"
#include "dev/virtio/virtio.h"
#include "test/fuzz/disks.h"
#include "test/fuzz/sink.h"
#include "test/fuzz/timers.h"

#define BAR 0xfebf0000u
#define BAR_NOTIFY 0x3000
#define BAR_DEVICE 0x2000
#define PORTS 0xc000
#define QUEUE(n) (0x1000u * (1 + (n)*3)) /* descriptors; avail in the next page, used in the one after */
#define DEVICES 5

static struct virtio *devices[DEVICES];
static struct net_link link_;
static uint16_t avail[VIRTIO_QUEUES_MAX];
static int chosen;

static void
make_devices(void)
{
	static const uint8_t mac[6] = { 8, 0, 0x27, 1, 2, 3 };

	make_machine();
	clock_start(&m.clock);
	net_link_init(&link_, mac);
	link_.class = &sink;
	devices[0] = (struct virtio *)virtio_rng_create(&m, 3, 0, NULL);
	devices[1] = (struct virtio *)virtio_blk_create(&m, 4, 0, disk, "serial", NULL);
	devices[2] = (struct virtio *)virtio_net_create(&m, 5, 0, &link_, NULL);
	devices[3] = (struct virtio *)virtio_console_create(&m, 6, 0, NULL, NULL);
	devices[4] = (struct virtio *)virtio_balloon_create(&m, 7, 0, NULL);
}

static unsigned
devfn(void)
{
	return (unsigned)(3 + chosen) << 3;
}

static void
power_on(uint32_t drop_features)
{
	struct virtio *v = devices[chosen];
	uint64_t features = v->host_features & ~(uint64_t)drop_features;

	memset(ram->host, 0, 65536);
	memset(avail, 0, sizeof(avail));
	device_reset_all(&m);
	pci_config_write(&m.pci, devfn(), 0x10, PORTS, 4);
	pci_config_write(&m.pci, devfn(), 0x20, BAR, 4);
	pci_config_write(&m.pci, devfn(), 0x04, 7, 2);
	mem_store(&m.mem, BAR + 20, 3, 1);
	for (unsigned i = 0; i < 2; i++) {
		mem_store(&m.mem, BAR + 8, i, 4);
		mem_store(&m.mem, BAR + 12, features >> (32 * i), 4);
	}
	mem_store(&m.mem, BAR + 20, 11, 1);
	for (unsigned q = 0; q < VIRTIO_QUEUES_MAX; q++) {
		mem_store(&m.mem, BAR + 22, q, 2);
		mem_store(&m.mem, BAR + 24, 16, 2);
		mem_store(&m.mem, BAR + 32, QUEUE(q), 8);
		mem_store(&m.mem, BAR + 40, QUEUE(q) + 0x1000, 8);
		mem_store(&m.mem, BAR + 48, QUEUE(q) + 0x2000, 8);
		mem_store(&m.mem, BAR + 28, 1, 2);
	}
	mem_store(&m.mem, BAR + 20, 15, 1);
}

/* A chain of up to four descriptors, some of their fields odd, made available and notified. */
static void
chain(struct input *in, unsigned q)
{
	uint32_t n = take(in, 1), head = n >> 4;
	uint8_t *a = ram->host + QUEUE(q) + 0x1000;

	for (uint32_t i = 0; i <= (n & 3); i++) {
		uint8_t *d = ram->host + QUEUE(q) + 16 * ((head + i) & 15);
		uint32_t how = take(in, 1);

		put_le64(d, how & 0x80 ? (uint64_t)take(in, 4) << (how & 0x20) : 0x20000 + take(in, 1) * 256);
		put_le32(d + 8, how & 0x40 ? take(in, 4) : take(in, 2));
		put_le16(d + 12, (uint16_t)((how & 6) | (i < (n & 3))));
		put_le16(d + 14, (uint16_t)(how & 0x10 ? take(in, 1) : (head + i + 1) & 15));
	}
	put_le16(a + 4 + 2 * (avail[q] % 16), (uint16_t)head);
	put_le16(a + 2, ++avail[q]);
	mem_store(&m.mem, BAR + BAR_NOTIFY + 4 * q, q, 2);
}

static void
frame(struct input *in)
{
	uint8_t bytes[4096] = { 8, 0, 0x27, 1, 2, 3 };
	uint32_t len = take(in, 2) & 4095;

	for (int i = 6; i < 64; i++)
		bytes[i] = (uint8_t)take(in, 1);
	if (len & 1)
		net_deliver(&link_, bytes, len);
	else
		net_deliver_large(&link_, bytes, len, 64 + take(in, 1));
}

static void
step(struct input *in)
{
	uint32_t op = take(in, 1);

	switch (op & 15) {
	default:
		chain(in, op >> 4 & 3);
		break;
	case 0:
		mem_store(&m.mem, BAR + take(in, 2) % 0x4000, take(in, 4), 1u << (op >> 4 & 3));
		break;
	case 1:
		mem_load(&m.mem, BAR + take(in, 2) % 0x4000, 1u << (op >> 4 & 3));
		break;
	case 2:
	case 3: /* also where request headers and buffers are */
		poke_memory(in);
		break;
	case 4:
		for (uint32_t at = 0x20000 + take(in, 1) * 256, n = op >> 3; n; n--)
			ram->host[at++ % RAM_SIZE] = (uint8_t)take(in, 1);
		break;
	case 5:
		io_write(&m.io, (uint16_t)(PORTS + take(in, 1)), take(in, 4), op & 16 ? 4 : 2);
		break;
	case 6:
		pci_config_write(&m.pci, devfn(), take(in, 1), take(in, 4), 4);
		pci_config_read(&m.pci, devfn(), take(in, 1), 4);
		break;
	case 7:
		frame(in);
		break;
	case 8:
		expire_timers(&m);
		device_drain_all(&m);
		break;
	case 9:
		sink.takes_tso = op >> 4 & 1;
		large_ok = op >> 6 & 1;
		net_set_cable(&link_, op >> 5 & 1);
		if (chosen == 4)
			virtio_balloon_stats((struct virtio_balloon *)devices[4], &(struct balloon_stats){ 0 });
		break;
	}
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input in = { data, size };

	if (!devices[0])
		make_devices();
	chosen = (int)(take(&in, 1) % DEVICES);
	power_on(take(&in, 1) & 1 ? take(&in, 4) : 0);
	while (in.left)
		step(&in);
	device_drain_all(&m);
	net_set_cable(&link_, false); /* empties the queue */
	net_set_cable(&link_, true);
	return 0;
}
