/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fuzz target: a guest's registers, initialization blocks, rings and descriptors of the PCnet, and the frames that meet
 * them. tools/run-fuzz builds and runs it.
 */
#include "base/bytes.h"
#include "dev/dev.h"
#include "test/fuzz/disks.h"
#include "test/fuzz/sink.h"
#include "test/fuzz/timers.h"

#define BAR 0xfebc0000u
#define PORTS 0xc000
#define INIT 0x1000u
#define RX_RING 0x2000u
#define TX_RING 0x4000u

static struct net_link links[2];
static unsigned chosen;

static void
make_devices(void)
{
	static const uint8_t mac[6] = { 8, 0, 0x27, 1, 2, 3 };

	make_machine();
	clock_start(&m.clock);
	for (int i = 0; i < 2; i++) {
		net_link_init(&links[i], mac);
		links[i].class = &sink;
		pcnet_create(&m, 3 + i, i ? "Am79C973" : "Am79C970A", &links[i], NULL);
	}
}

static void
csr(unsigned n, uint16_t v)
{
	mem_store(&m.mem, BAR + 0x12, n, 2);
	mem_store(&m.mem, BAR + 0x10, v, 2);
}

static void
power_on(uint32_t how)
{
	unsigned devfn = (3 + chosen) << 3;
	uint8_t *b = ram->host + INIT;

	device_reset_all(&m);
	memset(ram->host, 0, 65536);
	pci_config_write(&m.pci, devfn, 0x10, PORTS, 4);
	pci_config_write(&m.pci, devfn, 0x14, BAR, 4);
	pci_config_write(&m.pci, devfn, 0x04, 7, 2);
	if (how & 1)
		csr(58, (uint16_t)(how >> 1 & 3));
	put_le16(b, how & 8 ? 0x8000 : 0);
	b[2] = b[3] = (uint8_t)how;
	put_le32(b + (how & 1 ? 20 : 16), RX_RING | (how & 1 ? 0 : (how & 0xe0) << 24));
	put_le32(b + (how & 1 ? 24 : 20), TX_RING | (how & 1 ? 0 : (how & 0xe0) << 24));
	csr(1, INIT);
	csr(2, 0);
	csr(0, 1);
	csr(0, 0x42);
}

static void
descriptor(struct input *in, uint32_t ring)
{
	uint32_t at = ring + take(in, 1) * 8;

	for (int i = 0; i < 8; i++)
		ram->host[at + (unsigned)i] = (uint8_t)take(in, 1);
	ram->host[at + 3] |= 0x80;
	ram->host[at + 7] |= 0x80;
}

static void
frame(struct input *in)
{
	uint8_t bytes[20000] = { 8, 0, 0x27, 1, 2, 3 };
	uint32_t len = take(in, 2) % sizeof(bytes);

	bytes[0] = (uint8_t)take(in, 1);
	for (int i = 6; i < 64; i++)
		bytes[i] = (uint8_t)take(in, 1);
	net_deliver(&links[chosen], bytes, len);
}

static void
step(struct input *in)
{
	uint32_t op = take(in, 1);

	switch (op & 15) {
	default:
		descriptor(in, TX_RING);
		break;
	case 0:
		csr((unsigned)take(in, 1) & 127, (uint16_t)take(in, 2));
		break;
	case 1:
		mem_store(&m.mem, BAR + 0x12, take(in, 1) & 63, 2);
		mem_store(&m.mem, BAR + 0x16, take(in, 2), 2);
		break;
	case 2:
		mem_load(&m.mem, BAR + take(in, 1) % 64, 1u << (op >> 4) % 3);
		break;
	case 3:
		poke_memory(in);
		break;
	case 4:
		descriptor(in, RX_RING);
		break;
	case 5:
	case 6:
		frame(in);
		break;
	case 7:
		expire_timers(&m);
		break;
	case 8:
		io_write(&m.io, (uint16_t)(PORTS + (op >> 4)), take(in, 4), 1u << (op >> 5) % 3);
		break;
	case 9:
	case 10:
		csr(0, 0x48);
		break;
	case 11:
		net_set_cable(&links[chosen], op >> 5 & 1);
		break;
	}
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input in = { data, size };

	if (!disk)
		make_devices();
	chosen = take(&in, 1) & 1;
	net_set_cable(&links[chosen], false); /* empties the queue */
	net_set_cable(&links[chosen], true);
	power_on(take(&in, 1));
	while (in.left)
		step(&in);
	return 0;
}
