/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fuzz target: a guest's registers, rings and descriptors of the e1000, and the frames that meet them. tools/run-fuzz
 * builds and runs it.
 */
#include "base/bytes.h"
#include "dev/dev.h"
#include "dev/e1000_regs.h"
#include "test/fuzz/disks.h"
#include "test/fuzz/sink.h"
#include "test/fuzz/timers.h"

#define BAR 0xfebc0000u
#define PORTS 0xc000
#define TX_RING 0x1000u
#define RX_RING 0x2000u
#define RING 32u

static const char *const models[] = { "82540EM", "82543GC" };
static struct net_link links[2];
static unsigned chosen, tail;

static void
write_register(uint32_t reg, uint32_t value)
{
	mem_store(&m.mem, BAR + reg, value, 4);
}

static void
make_devices(void)
{
	static const uint8_t mac[6] = { 8, 0, 0x27, 1, 2, 3 };

	make_machine();
	clock_start(&m.clock);
	for (int i = 0; i < 2; i++) {
		net_link_init(&links[i], mac);
		links[i].class = &sink;
		e1000_create(&m, 3 + i, models[i], &links[i], NULL);
	}
}

static void
power_on(void)
{
	unsigned devfn = (3 + chosen) << 3;

	device_reset_all(&m);
	tail = 0;
	memset(ram->host, 0, 65536);
	pci_config_write(&m.pci, devfn, 0x10, BAR, 4);
	pci_config_write(&m.pci, devfn, 0x18, PORTS, 4);
	pci_config_write(&m.pci, devfn, 0x04, 7, 2);
	expire_timers(&m); /* the link comes up */
	write_register(TDBAL, TX_RING);
	write_register(TDLEN, RING * 16);
	write_register(TCTL, TCTL_EN | TCTL_PSP);
	write_register(RDBAL, RX_RING);
	write_register(RDLEN, RING * 16);
	for (unsigned i = 0; i < RING; i++)
		put_le64(ram->host + RX_RING + i * 16, 0x30000 + i * 2048);
	write_register(RDT, RING - 1);
	write_register(RCTL, RCTL_EN | RCTL_UPE | RCTL_BAM);
	write_register(IMS, 0x1ffff);
}

/* A descriptor: legacy, context or data, with likely or unlikely fields. */
static void
descriptor(struct input *in)
{
	uint8_t *d = ram->host + TX_RING + tail * 16;
	uint32_t how = take(in, 1);

	for (int i = 0; i < 16 && how & 0x80; i++)
		d[i] = (uint8_t)take(in, 1);
	if (!(how & 0x80)) {
		put_le64(d, 0x20000 + take(in, 1) * 16);
		put_le32(d + 8, take(in, 2) | (how & 2 ? 1u << 20 | 0x20000000 : 0) | (how & 0x1d) << 24);
		put_le32(d + 12, take(in, 1) << 8);
	}
	if (how & 0x40) { /* a context as a driver makes it, more or less */
		memcpy(d, "\x0e\x18\x21\x00\x22\x32\x00\x00", 8);
		put_le32(d + 8, (take(in, 2) & 0xfffff) | 0x27000000);
		put_le32(d + 12, (take(in, 1) & 1 ? 54 : take(in, 1)) << 8 | (take(in, 2) | 64) << 16);
	}
	tail = (tail + 1) % RING;
}

static void
frame(struct input *in)
{
	uint8_t bytes[20000] = { 8, 0, 0x27, 1, 2, 3 };
	uint32_t len = take(in, 2) % sizeof(bytes);

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
		descriptor(in);
		break;
	case 0:
	case 1:
		write_register((take(in, 2) << 2) % 0x6000, take(in, 4));
		break;
	case 2:
		mem_load(&m.mem, BAR + take(in, 2) % 0x6000, op & 16 ? 4 : 1);
		break;
	case 3:
		poke_memory(in);
		break;
	case 4:
		for (uint32_t at = 0x20000 + take(in, 1) * 16, n = op >> 2; n; n--)
			ram->host[at++ % RAM_SIZE] = (uint8_t)take(in, 1);
		break;
	case 5:
		frame(in);
		break;
	case 6:
		expire_timers(&m);
		break;
	case 7:
		io_write(&m.io, (uint16_t)(PORTS + (op >> 4 & 4)), take(in, 4), 4);
		break;
	case 8:
	case 9:
		write_register(TDT, tail);
		break;
	case 10:
		sink.takes_tso = op >> 4 & 1;
		large_ok = op >> 6 & 1;
		net_set_cable(&links[chosen], op >> 5 & 1);
		break;
	case 11: /* pins of the serial interfaces */
		for (uint32_t n = op >> 4; n; n--)
			write_register(op & 16 ? EECD : CTRL, take(in, 1) << (op & 16 ? 0 : 18));
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
	power_on();
	while (in.left)
		step(&in);
	return 0;
}
