/* SPDX-License-Identifier: Apache-2.0 */
/* The PCnet, driven through its registers, initialization block and rings as a driver does it, and as none should. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/str.h"
#include "dev/dev.h"
#include "net/net.h"

#define MMIO 0xf0000000u
#define RAM_SIZE (4u << 20)
#define INIT 0x1000u
#define RX_RING 0x2000u
#define TX_RING 0x3000u
#define DATA 0x10000u
#define RING 4u

static const uint8_t mac[6] = { 0x08, 0, 0x27, 0x12, 0x34, 0x56 };

struct bench {
	struct machine m;
	struct ram *ram;
	struct mem_region region;
	struct net_link link;
	int intx, sent_count;
	uint8_t sent[4096];
	size_t sent_len;
	bool wide;
};

static void
backend_send(void *backend, const uint8_t *frame, size_t len)
{
	struct bench *b = backend;

	memcpy(b->sent, frame, len);
	b->sent_len = len;
	b->sent_count++;
}

static void
backend_close(void *backend)
{
}

static const struct net_backend_class sink = { .name = "test", .send = backend_send, .close = backend_close };

static void
set_intx(void *opaque, int slot, int pin, int level)
{
	((struct bench *)opaque)->intx = level;
}

static uint16_t
csr(struct bench *b, unsigned n)
{
	mem_store(&b->m.mem, MMIO + 0x12, n, 2);
	return (uint16_t)mem_load(&b->m.mem, MMIO + 0x10, 2);
}

static void
set_csr(struct bench *b, unsigned n, uint16_t v)
{
	mem_store(&b->m.mem, MMIO + 0x12, n, 2);
	mem_store(&b->m.mem, MMIO + 0x10, v, 2);
}

static uint16_t
bcr(struct bench *b, unsigned n)
{
	mem_store(&b->m.mem, MMIO + 0x12, n, 2);
	return (uint16_t)mem_load(&b->m.mem, MMIO + 0x16, 2);
}

static uint8_t *
at(struct bench *b, gpa_t gpa)
{
	return b->ram->host + gpa;
}

static void
descriptor(struct bench *b, uint32_t ring, unsigned i, uint32_t buffer, uint16_t status, unsigned len)
{
	uint8_t *p = at(b, ring + i * (b->wide ? 16 : 8));

	memset(p, 0, b->wide ? 16 : 8);
	put_le32(p, buffer);
	if (b->wide) {
		put_le16(p + 4, (uint16_t)-len);
		put_le16(p + 6, status);
	} else {
		p[3] = (uint8_t)(status >> 8);
		put_le16(p + 4, (uint16_t)(-len | 0xf000));
	}
}

static uint16_t
status_of(struct bench *b, uint32_t ring, unsigned i)
{
	return b->wide ? le16(at(b, ring + i * 16 + 6)) : (uint16_t)(at(b, ring + i * 8 + 3)[0] << 8);
}

static struct bench *
bench_open(const char *variant, bool wide)
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
	b->link.class = &sink;
	b->link.backend = b;
	b->wide = wide;
	assert_non_null(pcnet_create(&b->m, 3, variant, &b->link, &e));
	pci_config_write(&b->m.pci, 3 << 3, 0x14, MMIO, 4);
	pci_config_write(&b->m.pci, 3 << 3, 0x04, 7, 2);
	return b;
}

static void
bench_close(struct bench *b)
{
	net_link_close(&b->link);
	machine_unlock(&b->m);
	machine_close(&b->m);
	free(b);
}

/* Rings of four, receive buffers of 512 bytes, interrupts on. */
static void
start(struct bench *b)
{
	uint8_t *p = at(b, INIT);

	if (b->wide)
		set_csr(b, 58, 2);
	memcpy(p + (b->wide ? 4 : 2), mac, 6);
	p[b->wide ? 2 : 19] = b->wide ? 0x20 : 0;
	p[3] |= b->wide ? 0x20 : 0;
	put_le32(p + (b->wide ? 20 : 16), RX_RING | (b->wide ? 0 : 0x40000000));
	put_le32(p + (b->wide ? 24 : 20), TX_RING | (b->wide ? 0 : 0x40000000));
	for (unsigned i = 0; i < RING; i++)
		descriptor(b, RX_RING, i, DATA + 0x8000 + i * 512, 0x8000, 512);
	set_csr(b, 1, INIT);
	set_csr(b, 2, 0);
	set_csr(b, 0, 1);
	assert_int_equal(csr(b, 0) & 0x0100, 0x0100); /* IDON */
	set_csr(b, 0, 0x0142);
}

static void
a_driver_finds_the_chip_and_its_address(void **state)
{
	for (int fast = 0; fast < 2; fast++) {
		struct bench *b = bench_open(fast ? "Am79C973" : "Am79C970A", false);

		for (unsigned i = 0; i < 6; i++)
			assert_int_equal(mem_load(&b->m.mem, MMIO + i, 1), mac[i]);
		assert_int_equal(mem_load(&b->m.mem, MMIO + 14, 2), 0x5757);
		assert_int_equal(csr(b, 0), 0x0004);
		assert_int_equal(csr(b, 88) | (uint32_t)csr(b, 89) << 16, fast ? 0x02625003 : 0x02621003);
		mem_store(&b->m.mem, MMIO + 0x12, 33, 2);
		mem_store(&b->m.mem, MMIO + 0x16, 30 << 5 | 2, 2);
		assert_int_equal(bcr(b, 34), fast ? 0x0022 : 0xffff);
		bench_close(b);
	}
}

static void
a_frame_goes_out_of_its_buffers(void **state)
{
	for (int wide = 0; wide < 2; wide++) {
		struct bench *b = bench_open("Am79C973", wide);

		start(b);
		memset(at(b, DATA), 0x11, 20);
		memset(at(b, DATA + 0x1000), 0x22, 80);
		descriptor(b, TX_RING, 0, DATA, 0x8200, 20);	      /* STP */
		descriptor(b, TX_RING, 1, DATA + 0x1000, 0x8100, 80); /* ENP */
		set_csr(b, 0, 0x0048);
		assert_int_equal(b->sent_count, 1);
		assert_int_equal(b->sent_len, 100);
		assert_int_equal(b->sent[19], 0x11);
		assert_int_equal(b->sent[20], 0x22);
		assert_int_equal(status_of(b, TX_RING, 0) & 0x8000, 0);
		assert_int_equal(status_of(b, TX_RING, 1) & 0x8000, 0);
		assert_int_equal(csr(b, 0) & 0x0280, 0x0280); /* TINT, INTR */
		assert_int_equal(b->intx, 1);
		set_csr(b, 0, 0x0240);
		assert_int_equal(b->intx, 0);
		bench_close(b);
	}
}

static void
a_frame_that_comes_fills_buffers_and_interrupts(void **state)
{
	for (int wide = 0; wide < 2; wide++) {
		struct bench *b = bench_open("Am79C973", wide);
		uint8_t frame[800];

		start(b);
		memset(frame, 0x33, sizeof(frame));
		memcpy(frame, mac, 6);
		net_deliver(&b->link, frame, sizeof(frame));
		assert_int_equal(status_of(b, RX_RING, 0) & 0x8300, 0x0200);
		assert_int_equal(status_of(b, RX_RING, 1) & 0x8300, 0x0100);
		assert_int_equal(le16(at(b, RX_RING + (wide ? 24 : 14))) & 0xfff, 804);
		assert_memory_equal(at(b, DATA + 0x8000), frame, 512);
		assert_memory_equal(at(b, DATA + 0x8200), frame + 512, 288);
		assert_int_equal(csr(b, 0) & 0x0400, 0x0400);
		assert_int_equal(b->intx, 1);
		bench_close(b);
	}
}

static void
frames_for_others_are_not_taken_unless_all_are(void **state)
{
	struct bench *b = bench_open("Am79C970A", true);
	uint8_t frame[100] = { 8, 0, 0x27, 9, 9, 9 };

	start(b);
	net_deliver(&b->link, frame, sizeof(frame));
	assert_int_equal(status_of(b, RX_RING, 0), 0x8000);
	memset(frame, 255, 6);
	net_deliver(&b->link, frame, sizeof(frame));
	assert_int_equal(status_of(b, RX_RING, 0) & 0x8310, 0x0310);
	frame[0] = 1; /* a group the filter does not have */
	net_deliver(&b->link, frame, sizeof(frame));
	assert_int_equal(status_of(b, RX_RING, 1), 0x8000);
	set_csr(b, 0, 4);
	set_csr(b, 15, 0x8000);
	set_csr(b, 0, 2);
	net_deliver(&b->link, frame, sizeof(frame));
	assert_int_equal(status_of(b, RX_RING, 1) & 0x8000, 0);
	bench_close(b);
}

static void
without_buffers_a_frame_waits_and_is_told_as_missed(void **state)
{
	struct bench *b = bench_open("Am79C973", true);
	uint8_t frame[100];

	start(b);
	memcpy(frame, mac, 6);
	for (unsigned i = 0; i < RING + 1; i++)
		net_deliver(&b->link, frame, sizeof(frame));
	assert_int_equal(csr(b, 0) & 0x1000, 0x1000);
	descriptor(b, RX_RING, 0, DATA + 0x8000, 0x8000, 512);
	set_csr(b, 0, 0x1040);
	assert_int_equal(status_of(b, RX_RING, 0) & 0x8300, 0x0300);
	bench_close(b);
}

static void
nonsense_from_the_guest_is_device_behaviour(void **state)
{
	struct bench *b = bench_open("Am79C973", true);
	uint8_t frame[100];

	memcpy(frame, mac, 6);
	start(b);
	descriptor(b, TX_RING, 0, 0xfffff000, 0x8300, 100); /* not memory */
	descriptor(b, TX_RING, 1, DATA, 0x8100, 4095);	    /* no beginning */
	descriptor(b, TX_RING, 2, DATA, 0x8200, 4000);	    /* too long together */
	descriptor(b, TX_RING, 3, DATA, 0x8100, 4000);
	set_csr(b, 0, 0x0048);
	assert_int_equal(b->sent_count, 0);
	for (unsigned i = 0; i < RING; i++)
		descriptor(b, RX_RING, i, DATA, 0x8000, 16);
	net_deliver(&b->link, frame, sizeof(frame)); /* the whole ring is not enough */
	assert_int_equal(status_of(b, RX_RING, 0), 0x8000);
	set_csr(b, 0, 4);
	set_csr(b, 1, 0xf000); /* the initialization block is not memory */
	set_csr(b, 2, 0xffff);
	set_csr(b, 0, 3);
	assert_int_equal(csr(b, 0) & 0x0900, 0x0800);
	mem_load(&b->m.mem, MMIO + 0x14, 2); /* reset */
	assert_int_equal(csr(b, 0), 4);
	bench_close(b);
}

static void
what_is_loaded_is_brought_into_bounds(void **state)
{
	struct bench *b = bench_open("Am79C973", true);
	struct device *dev = &b->m.pci.devs[3 << 3]->dev;
	uint8_t frame[100];

	start(b);
	for (const struct field *f = dev->class->fields; f->name; f++)
		memset((char *)dev + f->offset, 0xee, (size_t)f->size * f->count);
	dev->class->loaded(dev);
	memcpy(frame, mac, 6);
	net_deliver(&b->link, frame, sizeof(frame));
	set_csr(b, 0, 0x0048);
	bench_close(b);
}

int
main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_driver_finds_the_chip_and_its_address),
		cmocka_unit_test(a_frame_goes_out_of_its_buffers),
		cmocka_unit_test(a_frame_that_comes_fills_buffers_and_interrupts),
		cmocka_unit_test(frames_for_others_are_not_taken_unless_all_are),
		cmocka_unit_test(without_buffers_a_frame_waits_and_is_told_as_missed),
		cmocka_unit_test(nonsense_from_the_guest_is_device_behaviour),
		cmocka_unit_test(what_is_loaded_is_brought_into_bounds),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
