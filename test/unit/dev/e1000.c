/* SPDX-License-Identifier: Apache-2.0 */
/* The 8254x adapter, driven through its registers and rings as a driver does it, and as no driver should. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/str.h"
#include "dev/dev.h"
#include "dev/e1000_regs.h"
#include "net/net.h"

#define MMIO 0xf0000000u
#define RAM_SIZE (4u << 20)
#define TX_RING 0x10000u
#define RX_RING 0x20000u
#define TX_DATA 0x40000u
#define RX_DATA 0x100000u
#define RING 64u

static const uint8_t mac[6] = { 0x08, 0, 0x27, 0x12, 0x34, 0x56 };

struct bench {
	struct machine m;
	struct ram *ram;
	struct mem_region region;
	struct net_link link;
	struct net_backend_class class;
	struct device *dev;
	pthread_t thread;
	int intx;
	int intx_edges;
	uint8_t sent[64][66000];
	size_t sent_len[64];
	int sent_count;
	uint32_t tail;
};

static void
backend_send(void *backend, const uint8_t *frame, size_t len)
{
	struct bench *b = backend;

	memcpy(b->sent[b->sent_count % 64], frame, len);
	b->sent_len[b->sent_count++ % 64] = len;
}

static void
backend_close(void *backend)
{
}

static void
set_intx(void *opaque, int slot, int pin, int level)
{
	struct bench *b = opaque;

	b->intx_edges += level && !b->intx;
	b->intx = level;
}

static void *
run(void *opaque)
{
	loop_run(opaque);
	return NULL;
}

static uint32_t
rd(struct bench *b, unsigned reg)
{
	return (uint32_t)mem_load(&b->m.mem, MMIO + reg, 4);
}

static void
wr(struct bench *b, unsigned reg, uint32_t v)
{
	mem_store(&b->m.mem, MMIO + reg, v, 4);
}

static uint8_t *
at(struct bench *b, gpa_t gpa)
{
	return b->ram->host + gpa;
}

/* Let timers run until `ready`, or for too long. */
static void
wait_for(struct bench *b, bool (*ready)(struct bench *b))
{
	for (int i = 0; i < 2000 && !ready(b); i++) {
		machine_unlock(&b->m);
		usleep(1000);
		machine_lock(&b->m);
	}
	assert_true(ready(b));
}

static bool
link_is_up(struct bench *b)
{
	return rd(b, STATUS) & STATUS_LU;
}

static bool
is_interrupting(struct bench *b)
{
	return b->intx;
}

static struct bench *
bench_open(const char *variant, bool takes_tso)
{
	struct bench *b = xcalloc(1, sizeof(*b));
	struct err e;

	assert_int_equal(machine_open(&b->m, "test"), 0);
	machine_lock(&b->m);
	b->ram = ram_create(&b->m.mem, "ram", RAM_SIZE);
	b->region =
		(struct mem_region){ .name = "ram", .kind = MEM_RAM, .enabled = true, .size = RAM_SIZE, .ram = b->ram };
	mem_add(&b->m.mem, &b->region);
	b->m.pci.set_intx = set_intx;
	b->m.pci.intx_opaque = b;
	clock_start(&b->m.clock);
	net_link_init(&b->link, mac);
	b->class = (struct net_backend_class){
		.name = "test", .send = backend_send, .close = backend_close, .takes_tso = takes_tso
	};
	b->link.class = &b->class;
	b->link.backend = b;
	b->dev = e1000_create(&b->m, 3, variant, &b->link, &e);
	assert_non_null(b->dev);
	pci_config_write(&b->m.pci, 3 << 3, 0x10, MMIO, 4);
	pci_config_write(&b->m.pci, 3 << 3, 0x04, 7, 2);
	pthread_create(&b->thread, NULL, run, b->m.loop);
	return b;
}

static void
bench_close(struct bench *b)
{
	loop_stop(b->m.loop);
	machine_unlock(&b->m);
	pthread_join(b->thread, NULL);
	net_link_close(&b->link);
	machine_close(&b->m);
	free(b);
}

static void
rings_up(struct bench *b)
{
	wait_for(b, link_is_up);
	rd(b, ICR);
	wr(b, TDBAL, TX_RING);
	wr(b, TDLEN, RING * 16);
	wr(b, TCTL, TCTL_EN | TCTL_PSP);
	wr(b, RDBAL, RX_RING);
	wr(b, RDLEN, RING * 16);
	for (unsigned i = 0; i < RING; i++)
		put_le64(at(b, RX_RING + i * 16), RX_DATA + i * 4096);
	wr(b, RDT, RING - 1);
	wr(b, RCTL, RCTL_EN | RCTL_BAM | RCTL_SECRC);
	wr(b, IMS, 0x1ffff);
}

/* ---- EEPROM and PHY ---- */

static uint16_t
eerd(struct bench *b, unsigned word)
{
	wr(b, EERD, word << 8 | EERD_START);
	assert_true(rd(b, EERD) & EERD_DONE);
	return (uint16_t)(rd(b, EERD) >> 16);
}

static void
clock_eeprom(struct bench *b, unsigned in)
{
	uint32_t v = EECD_REQ | EECD_CS | (in ? EECD_DI : 0);

	wr(b, EECD, v);
	wr(b, EECD, v | EECD_SK);
	wr(b, EECD, v);
}

static uint16_t
microwire(struct bench *b, unsigned word)
{
	uint16_t v = 0;

	wr(b, EECD, EECD_REQ);
	assert_true(rd(b, EECD) & EECD_GNT);
	for (int bit = 8; bit >= 0; bit--)
		clock_eeprom(b, (6u << 6 | word) >> bit & 1);
	for (int bit = 0; bit < 16; bit++) {
		clock_eeprom(b, 0);
		v = (uint16_t)(v << 1 | !!(rd(b, EECD) & EECD_DO));
	}
	wr(b, EECD, 0);
	return v;
}

static void
the_eeprom_holds_the_address_and_its_checksum(void **state)
{
	struct bench *b = bench_open("82540EM", false);
	uint16_t sum = 0;

	for (unsigned i = 0; i < 64; i++) {
		sum = (uint16_t)(sum + eerd(b, i));
		assert_int_equal(eerd(b, i), microwire(b, i));
	}
	assert_int_equal(sum, 0xbaba);
	for (unsigned i = 0; i < 3; i++)
		assert_int_equal(eerd(b, i), le16(mac + 2 * i));
	assert_int_equal(rd(b, RAL), le32(mac));
	assert_int_equal(rd(b, RAL + 4), 0x80000000 | le16(mac + 4));
	bench_close(b);
}

static uint32_t
mdic(struct bench *b, unsigned phy, unsigned reg)
{
	wr(b, MDIC, MDIC_OP_READ | phy << 21 | reg << 16);
	assert_true(rd(b, MDIC) & MDIC_READY);
	return rd(b, MDIC);
}

static void
the_link_comes_up_by_negotiation_and_goes_with_the_cable(void **state)
{
	struct bench *b = bench_open("82540EM", false);

	assert_false(link_is_up(b));
	wait_for(b, link_is_up);
	assert_int_equal(mdic(b, 1, PHY_ID1) & 0xffff, 0x0141);
	assert_true(mdic(b, 1, PHY_STATUS) & PHY_STATUS_LINK);
	assert_true(mdic(b, 2, PHY_ID1) & MDIC_ERROR);
	assert_true(rd(b, ICR) & INT_LSC);
	assert_int_equal(rd(b, ICR), 0);
	net_set_cable(&b->link, false);
	assert_false(link_is_up(b));
	assert_true(rd(b, ICR) & INT_LSC);
	net_set_cable(&b->link, true);
	wait_for(b, link_is_up);
	wr(b, MDIC, MDIC_OP_WRITE | 1 << 21 | PHY_CTRL << 16 | PHY_CTRL_AUTONEG | PHY_CTRL_RESTART);
	assert_false(link_is_up(b));
	wait_for(b, link_is_up);
	bench_close(b);
}

static void
mdio_pins(struct bench *b, unsigned bit, bool drive)
{
	uint32_t v = CTRL_SLU | CTRL_FD | CTRL_SWDPIO2 << 1 | (drive ? CTRL_SWDPIO2 : 0) | (bit ? CTRL_SWDPIN2 : 0);

	wr(b, CTRL, v);
	wr(b, CTRL, v | CTRL_SWDPIN3);
}

static uint16_t
mdio_read(struct bench *b, unsigned reg)
{
	uint32_t frame = 6u << 10 | 1u << 5 | reg;
	uint16_t v = 0;

	for (int i = 0; i < 32; i++)
		mdio_pins(b, 1, true);
	for (int i = 13; i >= 0; i--)
		mdio_pins(b, frame >> i & 1, true);
	mdio_pins(b, 0, false);
	for (int i = 0; i < 16; i++) {
		mdio_pins(b, 0, false);
		v = (uint16_t)(v << 1 | !!(rd(b, CTRL) & CTRL_SWDPIN2));
	}
	mdio_pins(b, 0, false);
	return v;
}

static void
the_82543_reaches_its_phy_through_pins(void **state)
{
	struct bench *b = bench_open("82543GC", false);
	uint32_t frame = 5u << 28 | 1u << 23 | (uint32_t)PHY_ADVERTISE << 18 | 2u << 16 | 0x01e1;

	assert_int_equal(pci_config_read(&b->m.pci, 3 << 3, 0, 4), 0x10048086);
	assert_int_equal(mdio_read(b, PHY_ID1), 0x0141);
	assert_int_equal(mdio_read(b, PHY_ID2), 0x0c50);
	for (int i = 0; i < 32; i++)
		mdio_pins(b, 1, true);
	for (int i = 31; i >= 0; i--)
		mdio_pins(b, frame >> i & 1, true);
	assert_int_equal(mdio_read(b, PHY_ADVERTISE), 0x01e1);
	bench_close(b);
}

/* ---- transmit ---- */

static uint8_t *
tx_put(struct bench *b, gpa_t addr, uint32_t dw2, uint32_t dw3)
{
	uint8_t *d = at(b, TX_RING + b->tail * 16);

	put_le64(d, addr);
	put_le32(d + 8, dw2);
	put_le32(d + 12, dw3);
	b->tail = (b->tail + 1) % RING;
	return d;
}

#define CMD(c) ((uint32_t)(c) << 24)
#define DATA(c) (CMD((c) | TX_DEXT) | 1u << 20)

static void
a_legacy_descriptor_sends_its_bytes(void **state)
{
	struct bench *b = bench_open("82540EM", false);
	uint8_t *d;

	rings_up(b);
	memset(at(b, TX_DATA), 0x5a, 200);
	tx_put(b, TX_DATA, 100, 0);
	d = tx_put(b, TX_DATA + 100, 100 | CMD(TX_EOP | TX_IFCS | TX_RS), 0);
	wr(b, TDT, b->tail);
	assert_int_equal(b->sent_count, 1);
	assert_int_equal(b->sent_len[0], 200);
	assert_memory_equal(b->sent[0], at(b, TX_DATA), 200);
	assert_int_equal(d[12] & TX_DD, TX_DD);
	assert_int_equal(rd(b, TDH), 2);
	assert_int_equal(b->intx, 1);
	assert_int_equal(rd(b, ICR), INT_TXDW | INT_TXQE);
	assert_int_equal(b->intx, 0);
	assert_int_equal(rd(b, GPTC), 1);
	assert_int_equal(rd(b, GPTC), 0);
	/* short ones are padded, tags are put in */
	wr(b, CTRL, rd(b, CTRL) | CTRL_VME);
	tx_put(b, TX_DATA, 20 | CMD(TX_EOP | TX_VLE), 0x1234u << 16);
	wr(b, TDT, b->tail);
	assert_int_equal(b->sent_len[1], 64);
	assert_memory_equal(b->sent[1] + 12, "\x81\x00\x12\x34", 4);
	assert_int_equal(b->sent[1][16], 0x5a);
	assert_int_equal(b->sent[1][25], 0);
	bench_close(b);
}

/* An IPv4 TCP frame at TX_DATA as Linux hands it over: the pseudo header's sum in the checksum field. */
static void
make_tcp(struct bench *b, unsigned payload, bool with_length)
{
	uint8_t *f = at(b, TX_DATA), pseudo[12] = { 0 };
	uint16_t sum;

	memset(f, 0, 54);
	f[12] = 8;
	f[14] = 0x45;
	f[16] = (uint8_t)((payload + 40) >> 8);
	f[17] = (uint8_t)(payload + 40);
	f[19] = 9;
	f[22] = 64;
	f[23] = 6;
	memcpy(f + 26, "\x0a\x00\x02\x0f\x0a\x00\x02\x02", 8);
	f[38] = 0x11;
	f[46] = 0x50;
	f[47] = 0x19;
	memcpy(pseudo, f + 26, 8);
	pseudo[9] = 6;
	if (with_length) {
		pseudo[10] = (uint8_t)((payload + 20) >> 8);
		pseudo[11] = (uint8_t)(payload + 20);
	}
	sum = (uint16_t)~net_sum_fold(net_sum(0, pseudo, 12));
	memcpy(f + 50, &sum, 2);
	for (unsigned i = 0; i < payload; i++)
		f[54 + i] = (uint8_t)(i * 7 >> 2);
}

static void
put_context(struct bench *b, unsigned cmd, unsigned paylen, unsigned hdrlen, unsigned mss)
{
	uint64_t ip = 14 | 24 << 8 | 33u << 16, tcp = 34 | 50 << 8;

	tx_put(b, ip | tcp << 32, paylen | CMD(TX_DEXT | cmd), hdrlen << 8 | mss << 16);
}

static void
checksums_are_put_in_where_the_context_says(void **state)
{
	struct bench *b = bench_open("82540EM", false);

	rings_up(b);
	make_tcp(b, 501, true);
	put_context(b, TX_TUCMD_IP | TX_TUCMD_TCP, 0, 0, 0);
	tx_put(b, TX_DATA, 54 | DATA(0), 3 << 8);
	tx_put(b, TX_DATA + 54, 501 | DATA(TX_EOP | TX_RS), 3 << 8);
	wr(b, TDT, b->tail);
	assert_int_equal(b->sent_count, 1);
	assert_int_equal(b->sent_len[0], 555);
	assert_int_equal(net_checksum_verify(b->sent[0], 555), NET_CSUM_IP | NET_CSUM_L4);
	bench_close(b);
}

static void
segmentation_cuts_a_packet_into_valid_frames(void **state)
{
	static const unsigned sizes[] = { 1, 1459, 1460, 1461, 2920, 20000, 64000 };

	for (size_t k = 0; k < ARRAY_LEN(sizes); k++) {
		struct bench *b = bench_open("82540EM", false);
		unsigned n = sizes[k], got = 0, left = n;
		gpa_t p = TX_DATA + 54;

		rings_up(b);
		make_tcp(b, n, false);
		put_context(b, TX_TUCMD_IP | TX_TUCMD_TCP | TX_TSE, n, 54, 1460);
		tx_put(b, TX_DATA, 54 | DATA(TX_TSE), 3 << 8);
		for (; left > 4096; left -= 4096, p += 4096)
			tx_put(b, p, 4096 | DATA(TX_TSE), 0);
		tx_put(b, p, left | DATA(TX_TSE | TX_EOP | TX_RS), 0);
		wr(b, TDT, b->tail);
		assert_int_equal(b->sent_count, (n + 1459) / 1460);
		for (int i = 0; i < b->sent_count; i++) {
			uint8_t *f = b->sent[i];
			bool last = i == b->sent_count - 1;
			unsigned len = (unsigned)(f[16] << 8 | f[17]) - 40;

			assert_int_equal(net_checksum_verify(f, b->sent_len[i]), NET_CSUM_IP | NET_CSUM_L4);
			assert_int_equal(f[19], 9 + i);
			assert_int_equal(f[38] << 24 | f[39] << 16 | f[40] << 8 | f[41], 0x11000000 + (int)got);
			assert_int_equal(f[47], last ? 0x19 : 0x10);
			assert_memory_equal(f + 54, at(b, TX_DATA + 54 + got), len);
			got += len;
		}
		assert_int_equal(got, n);
		bench_close(b);
	}
}

static void
a_network_that_segments_itself_gets_the_packet_whole(void **state)
{
	struct bench *b = bench_open("82540EM", true);

	rings_up(b);
	make_tcp(b, 30000, false);
	put_context(b, TX_TUCMD_IP | TX_TUCMD_TCP | TX_TSE, 30000, 54, 1460);
	tx_put(b, TX_DATA, 10000 | DATA(TX_TSE), 3 << 8);
	tx_put(b, TX_DATA + 10000, 20054 | DATA(TX_TSE | TX_EOP | TX_RS), 0);
	wr(b, TDT, b->tail);
	assert_int_equal(b->sent_count, 1);
	assert_int_equal(b->sent_len[0], 30054);
	assert_int_equal(net_checksum_verify(b->sent[0], 30054), NET_CSUM_IP | NET_CSUM_L4);
	assert_memory_equal(b->sent[0] + 54, at(b, TX_DATA + 54), 30000);
	assert_int_equal(b->sent[0][47], 0x19);
	bench_close(b);
}

static bool
all_sent(struct bench *b)
{
	return b->sent_count == 1000;
}

static void
a_long_ring_is_worked_off_in_pieces(void **state)
{
	struct bench *b = bench_open("82540EM", false);

	rings_up(b);
	wr(b, TDLEN, 1024 * 16);
	for (unsigned i = 0; i < 1000; i++) {
		put_le64(at(b, TX_RING + i * 16), TX_DATA);
		put_le32(at(b, TX_RING + i * 16 + 8), 60 | CMD(TX_EOP));
	}
	wr(b, TDT, 1000);
	assert_true(b->sent_count > 0 && b->sent_count < 1000);
	wait_for(b, all_sent);
	assert_int_equal(rd(b, TDH), 1000);
	bench_close(b);
}

/* ---- receive ---- */

static uint8_t *
rx_desc(struct bench *b, unsigned i)
{
	return at(b, RX_RING + i * 16);
}

static void
make_rx(struct bench *b, uint8_t *f, const uint8_t *dst, size_t len)
{
	for (size_t i = 0; i < len; i++)
		f[i] = (uint8_t)(i * 13);
	memcpy(f, dst, 6);
	f[12] = 8;
	f[13] = 1;
}

static void
frames_are_filtered_by_address(void **state)
{
	static const uint8_t other[6] = { 8, 0, 0x27, 9, 9, 9 }, all[6] = { 255, 255, 255, 255, 255, 255 };
	static const uint8_t group[6] = { 1, 0, 0x5e, 0, 0, 0xfb };
	struct bench *b = bench_open("82540EM", false);
	unsigned bit = (0x00u | 0xfbu << 8) >> 4 & 0xfff;
	uint8_t f[1514];

	rings_up(b);
	make_rx(b, f, other, 100);
	net_deliver(&b->link, f, 100);
	assert_int_equal(rd(b, RDH), 0);
	make_rx(b, f, mac, 100);
	net_deliver(&b->link, f, 100);
	assert_int_equal(rd(b, RDH), 1);
	assert_int_equal(rx_desc(b, 0)[12], RX_DD | RX_EOP | RX_IXSM);
	assert_int_equal(le16(rx_desc(b, 0) + 8), 100);
	assert_memory_equal(at(b, RX_DATA), f, 100);
	assert_true(rd(b, ICR) & INT_RXT0);
	make_rx(b, f, all, 42);
	net_deliver(&b->link, f, 42);
	assert_int_equal(rd(b, RDH), 2);
	assert_int_equal(le16(rx_desc(b, 1) + 8), 60);
	make_rx(b, f, group, 100);
	net_deliver(&b->link, f, 100);
	assert_int_equal(rd(b, RDH), 2);
	wr(b, MTA + 4 * (bit / 32), 1u << bit % 32);
	net_deliver(&b->link, f, 100);
	assert_int_equal(rd(b, RDH), 3);
	assert_true(rx_desc(b, 2)[12] & RX_PIF);
	wr(b, RCTL, rd(b, RCTL) | RCTL_UPE);
	make_rx(b, f, other, 100);
	net_deliver(&b->link, f, 100);
	assert_int_equal(rd(b, RDH), 4);
	bench_close(b);
}

static void
a_frame_is_spread_over_small_buffers(void **state)
{
	struct bench *b = bench_open("82540EM", false);
	uint8_t f[1514];

	rings_up(b);
	wr(b, RCTL, (rd(b, RCTL) & ~(uint32_t)RCTL_SECRC) | 3u << RCTL_BSIZE_SHIFT); /* 256 bytes, FCS kept */
	make_rx(b, f, mac, 600);
	net_deliver(&b->link, f, 600);
	assert_int_equal(rd(b, RDH), 3);
	assert_int_equal(rx_desc(b, 0)[12], RX_DD);
	assert_int_equal(rx_desc(b, 1)[12], RX_DD);
	assert_int_equal(rx_desc(b, 2)[12], RX_DD | RX_EOP | RX_IXSM);
	assert_int_equal(le16(rx_desc(b, 2) + 8), 604 - 512);
	assert_memory_equal(at(b, RX_DATA + 4096), f + 256, 256);
	assert_memory_equal(at(b, RX_DATA + 8192), f + 512, 88);
	bench_close(b);
}

static void
tags_are_stripped_and_filtered(void **state)
{
	struct bench *b = bench_open("82540EM", false);
	uint8_t f[200];

	rings_up(b);
	wr(b, CTRL, rd(b, CTRL) | CTRL_VME);
	make_rx(b, f, mac, 200);
	memcpy(f + 12, "\x81\x00\x60\x05\x08\x00", 6);
	net_deliver(&b->link, f, 200);
	assert_int_equal(le16(rx_desc(b, 0) + 8), 196);
	assert_true(rx_desc(b, 0)[12] & RX_VP);
	assert_int_equal(le16(rx_desc(b, 0) + 14), 0x6005);
	assert_memory_equal(at(b, RX_DATA + 12), f + 16, 184);
	wr(b, RCTL, rd(b, RCTL) | RCTL_VFE);
	net_deliver(&b->link, f, 200);
	assert_int_equal(rd(b, RDH), 1);
	wr(b, VFTA, 1 << 5);
	net_deliver(&b->link, f, 200);
	assert_int_equal(rd(b, RDH), 2);
	bench_close(b);
}

static void
a_full_ring_keeps_frames_until_there_is_room(void **state)
{
	struct bench *b = bench_open("82540EM", false);
	uint8_t f[200];

	rings_up(b);
	wr(b, RDT, 2);
	make_rx(b, f, mac, 100);
	for (int i = 0; i < 5; i++) {
		f[20] = (uint8_t)i;
		net_deliver(&b->link, f, 100);
	}
	assert_int_equal(rd(b, RDH), 2);
	assert_true(rd(b, RNBC) > 0);
	wr(b, RDT, 8);
	assert_int_equal(rd(b, RDH), 5);
	for (unsigned i = 0; i < 5; i++)
		assert_int_equal(at(b, RX_DATA + i * 4096)[20], i);
	bench_close(b);
}

static void
received_checksums_are_judged(void **state)
{
	struct bench *b = bench_open("82540EM", true);
	uint8_t f[600];

	rings_up(b);
	wr(b, RXCSUM, RXCSUM_IPOFL | RXCSUM_TUOFL);
	make_tcp(b, 500, true);
	memcpy(at(b, TX_DATA), mac, 6);
	put_context(b, TX_TUCMD_IP | TX_TUCMD_TCP, 0, 0, 0);
	tx_put(b, TX_DATA, 554 | DATA(TX_EOP), 3 << 8);
	wr(b, TDT, b->tail);
	memcpy(f, b->sent[0], 554);
	net_deliver(&b->link, f, 554);
	assert_int_equal(rx_desc(b, 0)[12], RX_DD | RX_EOP | RX_TCPCS | RX_IPCS);
	assert_int_equal(rx_desc(b, 0)[13], 0);
	f[100] ^= 1;
	net_deliver(&b->link, f, 554);
	assert_int_equal(rx_desc(b, 1)[13], RX_TCPE);
	bench_close(b);
}

static void
throttling_keeps_interrupts_apart(void **state)
{
	struct bench *b = bench_open("82540EM", false);
	int edges;

	rings_up(b);
	wr(b, ITR, 60000); /* 15 ms */
	wr(b, ICS, INT_RXT0);
	assert_int_equal(b->intx, 1);
	rd(b, ICR);
	edges = b->intx_edges;
	wr(b, ICS, INT_RXT0);
	assert_int_equal(b->intx, 0);
	wait_for(b, is_interrupting);
	assert_int_equal(b->intx_edges, edges + 1);
	rd(b, ICR);
	/* the receive delay timer holds RXT0 back until RDTR says enough */
	wr(b, ITR, 0);
	wr(b, RDTR, 20000);
	net_deliver(&b->link, mac, 0); /* too short: dropped */
	assert_int_equal(b->intx, 0);
	bench_close(b);
}

/* ---- what no driver should do ---- */

static void
malformed_rings_harm_nobody(void **state)
{
	struct bench *b = bench_open("82540EM", false);
	uint8_t f[1514];

	rings_up(b);
	make_rx(b, f, mac, 1514);
	wr(b, TDT, 5000); /* beyond the ring */
	wr(b, RDT, 5000);
	net_deliver(&b->link, f, 1514);
	wr(b, TDH, 4000);
	wr(b, RDH, 60000);
	wr(b, TDT, 10);
	net_deliver(&b->link, f, 1514);
	wr(b, TDLEN, 0);
	wr(b, RDLEN, 0);
	wr(b, TDT, 3);
	net_deliver(&b->link, f, 1514);
	wr(b, TDLEN, 0xffffffff);
	wr(b, RDLEN, 0xffffffff);
	wr(b, TDBAH, 0xffffffff);
	wr(b, RDBAH, 0xffffffff);
	wr(b, TDBAL, 0xffffffff);
	wr(b, RDBAL, 0xffffffff);
	wr(b, TDH, 0);
	wr(b, RDH, 0);
	wr(b, TDT, 0xffff);
	net_deliver(&b->link, f, 1514);
	assert_int_equal(b->sent_count, 0);
	wr(b, CTRL, CTRL_RST);
	b->tail = 0;
	rings_up(b);
	tx_put(b, TX_DATA, 60 | CMD(TX_EOP), 0);
	wr(b, TDT, b->tail);
	assert_int_equal(b->sent_count, 1);
	bench_close(b);
}

static void
malformed_descriptors_harm_nobody(void **state)
{
	struct bench *b = bench_open("82540EM", false);

	rings_up(b);
	put_context(b, TX_TUCMD_TCP | TX_TSE, 0xfffff, 255, 0); /* no MSS */
	tx_put(b, TX_DATA, 4096 | DATA(TX_TSE | TX_EOP), 3 << 8);
	put_context(b, TX_TUCMD_TCP | TX_TSE, 0xfffff, 10, 1460); /* header shorter than its parts */
	tx_put(b, TX_DATA, 4096 | DATA(TX_TSE | TX_EOP), 3 << 8);
	tx_put(b, ~0ull - 100, 0xfffff | DATA(TX_EOP), 3 << 8); /* wraps around */
	for (int i = 0; i < 20; i++)
		tx_put(b, TX_DATA, 0xffff | CMD(0), 0); /* never ends */
	tx_put(b, TX_DATA, 10 | CMD(TX_EOP), 0);
	tx_put(b, TX_DATA, 10 | CMD(TX_EOP | TX_IC), 0xff00); /* too short for Ethernet */
	tx_put(b, 0, 0, 0);
	wr(b, TDT, b->tail);
	assert_int_equal(rd(b, TDH), b->tail);
	assert_int_equal(b->sent_count, 0);
	/* a checksum outside the frame leaves the frame alone */
	memset(at(b, TX_DATA), 0x33, 100);
	tx_put(b, TX_DATA, 100 | 250u << 16 | CMD(TX_EOP | TX_IC), 200 << 8);
	wr(b, TDT, b->tail);
	assert_int_equal(b->sent_count, 1);
	assert_memory_equal(b->sent[0], at(b, TX_DATA), 100);
	bench_close(b);
}

static void
unknown_models_are_refused(void **state)
{
	struct bench *b = bench_open("82545EM", false);
	struct err e;

	assert_null(e1000_create(&b->m, 4, "82541", &b->link, &e));
	assert_non_null(strstr(e.text, "82541"));
	assert_null(e1000_create(&b->m, 3, "82540EM", &b->link, &e));
	assert_int_equal(pci_config_read(&b->m.pci, 3 << 3, 0, 4), 0x100f8086);
	bench_close(b);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_eeprom_holds_the_address_and_its_checksum),
		cmocka_unit_test(the_link_comes_up_by_negotiation_and_goes_with_the_cable),
		cmocka_unit_test(the_82543_reaches_its_phy_through_pins),
		cmocka_unit_test(a_legacy_descriptor_sends_its_bytes),
		cmocka_unit_test(checksums_are_put_in_where_the_context_says),
		cmocka_unit_test(segmentation_cuts_a_packet_into_valid_frames),
		cmocka_unit_test(a_network_that_segments_itself_gets_the_packet_whole),
		cmocka_unit_test(a_long_ring_is_worked_off_in_pieces),
		cmocka_unit_test(frames_are_filtered_by_address),
		cmocka_unit_test(a_frame_is_spread_over_small_buffers),
		cmocka_unit_test(tags_are_stripped_and_filtered),
		cmocka_unit_test(a_full_ring_keeps_frames_until_there_is_room),
		cmocka_unit_test(received_checksums_are_judged),
		cmocka_unit_test(throttling_keeps_interrupts_apart),
		cmocka_unit_test(malformed_rings_harm_nobody),
		cmocka_unit_test(malformed_descriptors_harm_nobody),
		cmocka_unit_test(unknown_models_are_refused),
	};

	return cmocka_run_group_tests_name("e1000", tests, NULL, NULL);
}
