/* SPDX-License-Identifier: Apache-2.0 */
/* Virtqueues, the PCI transport and the devices behind it, driven through BARs and rings in guest memory. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <linux/virtio_balloon.h>
#include <linux/virtio_blk.h>
#include <linux/virtio_net.h>
#include <linux/virtio_pci.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/bytes.h"
#include "block/block.h"
#include "dev/virtio/virtio.h"
#include "net/net.h"

#define MMIO 0xf0000000u
#define PORTS 0xc000u
#define NOTIFY 0x3000u
#define DEVICE 0x2000u
#define RAM_SIZE (4u << 20)
#define QUEUE(n) (0x10000u + (n)*0x10000u) /* descriptors; avail at +0x4000, used at +0x8000 */
#define DATA 0x100000u

static const uint8_t mac[6] = { 0x08, 0, 0x27, 0x12, 0x34, 0x56 };

struct bench {
	struct machine m;
	struct ram *ram;
	struct mem_region region;
	struct virtio *v;
	pthread_t thread;
	int intx;
	uint16_t avail[4];
	struct net_link link;
	struct net_backend_class class;
	uint8_t sent[64][70000];
	size_t sent_len[64];
	int sent_count;
	const uint8_t *answer; /* comes while a frame is being sent */
	size_t answer_len;
};

static void
backend_send(void *backend, const uint8_t *frame, size_t len)
{
	struct bench *b = backend;

	memcpy(b->sent[b->sent_count % 64], frame, len);
	b->sent_len[b->sent_count++ % 64] = len;
	if (b->answer)
		net_deliver(&b->link, b->answer, b->answer_len);
}

static void
backend_close(void *backend)
{
}

static void
set_intx(void *opaque, int slot, int pin, int level)
{
	((struct bench *)opaque)->intx = level;
}

static void *
run(void *opaque)
{
	loop_run(opaque);
	return NULL;
}

static uint8_t *
at(struct bench *b, gpa_t gpa)
{
	return b->ram->host + gpa;
}

static uint64_t
rd(struct bench *b, unsigned off, unsigned size)
{
	return mem_load(&b->m.mem, MMIO + off, size);
}

static void
wr(struct bench *b, unsigned off, uint64_t v, unsigned size)
{
	mem_store(&b->m.mem, MMIO + off, v, size);
}

static struct bench *
bench_open(void)
{
	struct bench *b = xcalloc(1, sizeof(*b));

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
	b->class = (struct net_backend_class){ .name = "test", .send = backend_send, .close = backend_close };
	b->link.class = &b->class;
	b->link.backend = b;
	return b;
}

/* The device is in slot 3: BARs, features, queues; `drop` features are not taken. */
static void
start(struct bench *b, void *dev, uint64_t drop)
{
	struct virtio *v = b->v = dev;
	uint64_t features;

	assert_non_null(dev);
	pci_config_write(&b->m.pci, 3 << 3, 0x10, PORTS, 4);
	pci_config_write(&b->m.pci, 3 << 3, 0x20, MMIO, 4);
	pci_config_write(&b->m.pci, 3 << 3, 0x04, 7, 2);
	wr(b, VIRTIO_PCI_COMMON_STATUS, 0, 1);
	wr(b, VIRTIO_PCI_COMMON_STATUS, 3, 1);
	wr(b, VIRTIO_PCI_COMMON_DFSELECT, 0, 4);
	features = rd(b, VIRTIO_PCI_COMMON_DF, 4);
	wr(b, VIRTIO_PCI_COMMON_DFSELECT, 1, 4);
	features |= rd(b, VIRTIO_PCI_COMMON_DF, 4) << 32;
	features &= ~drop;
	for (int i = 0; i < 2; i++) {
		wr(b, VIRTIO_PCI_COMMON_GFSELECT, (unsigned)i, 4);
		wr(b, VIRTIO_PCI_COMMON_GF, features >> (32 * i) & UINT32_MAX, 4);
	}
	wr(b, VIRTIO_PCI_COMMON_STATUS, 11, 1);
	assert_int_equal(rd(b, VIRTIO_PCI_COMMON_STATUS, 1), 11);
	assert_int_equal(v->features, features);
	for (unsigned q = 0; q < rd(b, VIRTIO_PCI_COMMON_NUMQ, 2); q++) {
		wr(b, VIRTIO_PCI_COMMON_Q_SELECT, q, 2);
		wr(b, VIRTIO_PCI_COMMON_Q_DESCLO, QUEUE(q), 4);
		wr(b, VIRTIO_PCI_COMMON_Q_AVAILLO, QUEUE(q) + 0x4000, 4);
		wr(b, VIRTIO_PCI_COMMON_Q_USEDLO, QUEUE(q) + 0x8000, 8);
		wr(b, VIRTIO_PCI_COMMON_Q_ENABLE, 1, 2);
		b->avail[q] = 0;
	}
	wr(b, VIRTIO_PCI_COMMON_STATUS, 15, 1);
	pthread_create(&b->thread, NULL, run, b->m.loop);
}

static void
bench_close(struct bench *b)
{
	loop_stop(b->m.loop);
	machine_unlock(&b->m);
	if (b->thread)
		pthread_join(b->thread, NULL);
	net_link_close(&b->link);
	machine_close(&b->m);
	free(b);
}

static void
desc(struct bench *b, int q, unsigned i, uint64_t addr, uint32_t len, unsigned flags, unsigned next)
{
	uint8_t *d = at(b, QUEUE((unsigned)q) + 16 * i);

	put_le64(d, addr);
	put_le32(d + 8, len);
	put_le16(d + 12, (uint16_t)flags);
	put_le16(d + 14, (uint16_t)next);
}

static void
offer(struct bench *b, int q, unsigned head)
{
	uint8_t *a = at(b, QUEUE((unsigned)q) + 0x4000);

	put_le16(a + 4 + 2 * (b->avail[q] % b->v->vq[q].num), (uint16_t)head);
	put_le16(a + 2, ++b->avail[q]);
}

static void
kick(struct bench *b, unsigned q)
{
	wr(b, NOTIFY + 4 * q, q, 2);
}

static unsigned
used_idx(struct bench *b, unsigned q)
{
	return le16(at(b, QUEUE(q) + 0x8002));
}

static uint32_t
used_len(struct bench *b, unsigned q, unsigned i)
{
	return le32(at(b, QUEUE(q) + 0x8004 + 8 * i + 4));
}

static void
wait_used(struct bench *b, unsigned q, unsigned n)
{
	for (int i = 0; i < 3000 && used_idx(b, q) != n; i++) {
		machine_unlock(&b->m);
		usleep(1000);
		machine_lock(&b->m);
	}
	assert_int_equal(used_idx(b, q), n);
}

static bool
is_broken(struct bench *b)
{
	return rd(b, VIRTIO_PCI_COMMON_STATUS, 1) & VIRTIO_CONFIG_S_NEEDS_RESET;
}

#define NEXT VRING_DESC_F_NEXT
#define WRITE VRING_DESC_F_WRITE
#define INDIRECT VRING_DESC_F_INDIRECT

/* ---- queues: the entropy device is the smallest that uses one ---- */

static struct bench *
rng_bench(uint64_t drop)
{
	struct bench *b = bench_open();
	struct err e;

	start(b, virtio_rng_create(&b->m, 3, 0, &e), drop);
	return b;
}

static void
a_buffer_is_filled_and_given_back_with_an_interrupt(void **state)
{
	struct bench *b = rng_bench(0);
	uint8_t zero[64] = { 0 };

	desc(b, 0, 5, DATA, 64, WRITE, 0);
	offer(b, 0, 5);
	kick(b, 0);
	assert_int_equal(used_idx(b, 0), 1);
	assert_int_equal(le32(at(b, QUEUE(0) + 0x8004)), 5);
	assert_int_equal(used_len(b, 0, 0), 64);
	assert_memory_not_equal(at(b, DATA), zero, 64);
	assert_memory_equal(at(b, DATA + 64), zero, 64);
	assert_int_equal(b->intx, 1);
	assert_int_equal(rd(b, 0x1000, 1), 1);
	assert_int_equal(b->intx, 0);
	assert_int_equal(le16(at(b, QUEUE(0) + 0x8004 + 8 * 8)), 1); /* avail_event: tell me of the next */
	/* used_event says: not before the third one */
	put_le16(at(b, QUEUE(0) + 0x4004 + 2 * 8), 2);
	offer(b, 0, 5);
	kick(b, 0);
	assert_int_equal(used_idx(b, 0), 2);
	assert_int_equal(b->intx, 0);
	offer(b, 0, 5);
	kick(b, 0);
	assert_int_equal(b->intx, 1);
	bench_close(b);
}

static void
an_indirect_table_is_followed_once(void **state)
{
	struct bench *b = rng_bench(0);
	uint8_t *t = at(b, DATA + 0x1000);

	put_le64(t, DATA);
	put_le32(t + 8, 10);
	put_le16(t + 12, WRITE | NEXT);
	put_le16(t + 14, 1);
	put_le64(t + 16, DATA + 100);
	put_le32(t + 24, 10);
	put_le16(t + 28, WRITE);
	desc(b, 0, 0, DATA + 0x1000, 32, INDIRECT, 0);
	offer(b, 0, 0);
	kick(b, 0);
	assert_int_equal(used_len(b, 0, 0), 20);
	put_le16(t + 12, INDIRECT); /* a table in a table */
	put_le32(t + 8, 32);
	offer(b, 0, 0);
	kick(b, 0);
	assert_true(is_broken(b));
	assert_int_equal(used_idx(b, 0), 1);
	bench_close(b);
}

/* Offer descriptor 0 as it stands and see that the device stops, and works again after a reset. */
static void
breaks(struct bench *b)
{
	offer(b, 0, 0);
	kick(b, 0);
	assert_true(is_broken(b));
	assert_int_equal(b->intx, 1);
	assert_int_equal(used_idx(b, 0), 0);
	kick(b, 0);
	wr(b, VIRTIO_PCI_COMMON_STATUS, 0, 1);
	assert_int_equal(rd(b, VIRTIO_PCI_COMMON_STATUS, 1), 0);
	assert_int_equal(b->intx, 0);
	bench_close(b);
}

static void
broken_queues_need_a_reset(void **state)
{
	struct bench *b = rng_bench(0);

	desc(b, 0, 0, DATA, 16, WRITE | NEXT, 1); /* a loop */
	desc(b, 0, 1, DATA, 16, WRITE | NEXT, 0);
	breaks(b);
	b = rng_bench(0);
	desc(b, 0, 0, DATA, 16, WRITE | NEXT, 8); /* an index beyond the queue */
	breaks(b);
	b = rng_bench(0);
	desc(b, 0, 0, RAM_SIZE - 8, 16, WRITE, 0); /* a buffer over the end of memory */
	breaks(b);
	b = rng_bench(0);
	desc(b, 0, 0, UINT64_MAX - 8, 16, WRITE, 0); /* over the end of everything */
	breaks(b);
	b = rng_bench(0);
	desc(b, 0, 0, DATA, 0xffffffff, WRITE, 0); /* huge */
	breaks(b);
	b = rng_bench(0);
	desc(b, 0, 0, DATA, 16, WRITE | NEXT, 1); /* readable behind writable */
	desc(b, 0, 1, DATA, 16, 0, 0);
	breaks(b);
	b = rng_bench(0);
	desc(b, 0, 0, DATA, 24, INDIRECT, 0); /* a table of one and a half */
	breaks(b);
	b = rng_bench(0);
	desc(b, 0, 0, RAM_SIZE - 16, 32, INDIRECT, 0); /* a table over the end */
	breaks(b);
	b = rng_bench(VIRTIO_BIT(VIRTIO_RING_F_INDIRECT_DESC));
	desc(b, 0, 0, DATA, 16, INDIRECT, 0); /* not negotiated */
	breaks(b);
	b = rng_bench(0);
	b->avail[0] = 100; /* an index that jumps */
	breaks(b);
}

static void
rings_that_are_not_memory_need_a_reset(void **state)
{
	for (int which = 0; which < 3; which++) {
		struct bench *b = rng_bench(0);
		uint64_t *ring[] = { &b->v->vq[0].desc, &b->v->vq[0].avail, &b->v->vq[0].used };

		*ring[which] = RAM_SIZE - 8;
		desc(b, 0, 0, DATA, 16, WRITE, 0);
		offer(b, 0, 0);
		kick(b, 0);
		assert_true(is_broken(b));
		bench_close(b);
	}
}

static void
features_that_are_not_offered_are_refused(void **state)
{
	struct bench *b = rng_bench(0);

	wr(b, VIRTIO_PCI_COMMON_STATUS, 0, 1);
	wr(b, VIRTIO_PCI_COMMON_STATUS, 3, 1);
	wr(b, VIRTIO_PCI_COMMON_GFSELECT, 1, 4);
	wr(b, VIRTIO_PCI_COMMON_GF, 0xffffffff, 4);
	wr(b, VIRTIO_PCI_COMMON_STATUS, 11, 1);
	assert_int_equal(rd(b, VIRTIO_PCI_COMMON_STATUS, 1), 3);
	bench_close(b);
}

static void
configuration_space_has_a_window_into_the_bar(void **state)
{
	struct bench *b = rng_bench(0);
	struct pci_bus *p = &b->m.pci;
	unsigned cap = pci_config_read(p, 3 << 3, 0x34, 1);

	while (pci_config_read(p, 3 << 3, cap, 1) != 9 || pci_config_read(p, 3 << 3, cap + 3, 1) != 5)
		cap = pci_config_read(p, 3 << 3, cap + 1, 1);
	pci_config_write(p, 3 << 3, cap + 4, 4, 1);
	pci_config_write(p, 3 << 3, cap + 8, VIRTIO_PCI_COMMON_STATUS, 4);
	pci_config_write(p, 3 << 3, cap + 12, 1, 4);
	assert_int_equal(pci_config_read(p, 3 << 3, cap + 16, 4), 15);
	pci_config_write(p, 3 << 3, cap + 16, 0, 4);
	assert_int_equal(rd(b, VIRTIO_PCI_COMMON_STATUS, 1), 0);
	pci_config_write(p, 3 << 3, cap + 8, 0xfffffffc, 4);
	pci_config_write(p, 3 << 3, cap + 12, 4, 4);
	pci_config_read(p, 3 << 3, cap + 16, 4);
	pci_config_write(p, 3 << 3, cap + 16, 0xffffffff, 4);
	bench_close(b);
}

static void
messages_go_to_the_vector_of_the_queue(void **state)
{
	struct bench *b = rng_bench(0);
	unsigned cap = b->v->pci.msix_cap;

	pci_config_write(&b->m.pci, 3 << 3, 0x14, 0xf0010000, 4);
	pci_config_write(&b->m.pci, 3 << 3, cap + 2, 0x8000, 2);
	mem_store(&b->m.mem, 0xf0010010, DATA + 0x2000, 4); /* vector 1 writes to memory, where it can be seen */
	mem_store(&b->m.mem, 0xf0010018, 0x77, 4);
	mem_store(&b->m.mem, 0xf001001c, 0, 4);
	wr(b, VIRTIO_PCI_COMMON_Q_SELECT, 0, 2);
	wr(b, VIRTIO_PCI_COMMON_Q_MSIX, 9, 2);
	assert_int_equal(rd(b, VIRTIO_PCI_COMMON_Q_MSIX, 2), 0xffff);
	wr(b, VIRTIO_PCI_COMMON_Q_MSIX, 1, 2);
	desc(b, 0, 0, DATA, 16, WRITE, 0);
	offer(b, 0, 0);
	kick(b, 0);
	assert_int_equal(le32(at(b, DATA + 0x2000)), 0x77);
	assert_int_equal(b->intx, 0);
	bench_close(b);
}

static void
the_legacy_interface_works_through_ports(void **state)
{
	struct bench *b = bench_open();
	struct io *io = &b->m.io;
	struct err e;

	b->v = (struct virtio *)virtio_rng_create(&b->m, 3, 0, &e);
	assert_int_equal(pci_config_read(&b->m.pci, 3 << 3, 0, 4), 0x10051af4);
	assert_int_equal(pci_config_read(&b->m.pci, 3 << 3, 0x2e, 2), 4);
	pci_config_write(&b->m.pci, 3 << 3, 0x10, PORTS, 4);
	pci_config_write(&b->m.pci, 3 << 3, 0x04, 1, 2); /* not a bus master: old drivers forget it */
	io_write(io, PORTS + VIRTIO_PCI_STATUS, 3, 1);
	assert_int_equal(io_read(io, PORTS + VIRTIO_PCI_QUEUE_NUM, 2), 8);
	io_write(io, PORTS + VIRTIO_PCI_QUEUE_PFN, QUEUE(0) >> 12, 4);
	assert_int_equal(io_read(io, PORTS + VIRTIO_PCI_QUEUE_PFN, 4), QUEUE(0) >> 12);
	desc(b, 0, 0, DATA, 16, WRITE, 0);
	put_le16(at(b, QUEUE(0) + 128 + 2), 1); /* behind eight descriptors: index 1, head 0 */
	io_write(io, PORTS + VIRTIO_PCI_QUEUE_NOTIFY, 0, 2);
	assert_int_equal(le16(at(b, QUEUE(0) + 4096 + 2)), 1);
	assert_int_equal(io_read(io, PORTS + VIRTIO_PCI_ISR, 1), 1);
	bench_close(b);
}

/* ---- disk ---- */

struct disk {
	struct bench *b;
	struct block *block;
	char path[40];
};

static struct disk
disk_open(uint64_t drop)
{
	struct disk d = { .b = bench_open(), .path = "/tmp/lodge-virtio-XXXXXX" };
	struct err e = { 0 };
	int fd = mkstemp(d.path);

	assert_int_equal(ftruncate(fd, 1 << 20), 0);
	close(fd);
	d.block = block_open(d.path, "raw", 0, &e);
	if (!d.block)
		fail_msg("%s", e.text);
	start(d.b, virtio_blk_create(&d.b->m, 3, VIRTIO_MODERN, d.block, "SERIAL0123", &e), drop);
	return d;
}

static void
disk_close(struct disk *d)
{
	bench_close(d->b);
	block_close(d->block);
	unlink(d->path);
}

/* One request: header at DATA, `n` pieces of 512 bytes from DATA + 0x1000 on, 0x1000 apart, status at DATA + 16. */
static uint8_t
request(struct disk *d, uint32_t type, uint64_t sector, unsigned n, bool write)
{
	struct bench *b = d->b;
	unsigned done = b->avail[0];

	put_le32(at(b, DATA), type);
	put_le64(at(b, DATA + 8), sector);
	*at(b, DATA + 16) = 0xee;
	desc(b, 0, 0, DATA, 16, NEXT, 1);
	for (unsigned i = 0; i < n; i++)
		desc(b, 0, 1 + i, DATA + 0x1000 * (1 + i), 512, NEXT | (write ? 0 : WRITE), 2 + i);
	desc(b, 0, 1 + n, DATA + 16, 1, WRITE, 0);
	offer(b, 0, 0);
	kick(b, 0);
	wait_used(b, 0, done + 1);
	return *at(b, DATA + 16);
}

static void
sectors_are_written_and_read_in_pieces(void **state)
{
	for (int flush = 0; flush < 2; flush++) {
		struct disk d = disk_open(flush ? 0 : VIRTIO_BIT(VIRTIO_BLK_F_FLUSH));
		struct bench *b = d.b;
		uint8_t buf[1024];

		assert_int_equal(pci_config_read(&b->m.pci, 3 << 3, 0, 4), 0x10421af4);
		assert_int_equal(rd(b, DEVICE, 8), 2048);
		memset(at(b, DATA + 0x1000), 0xaa, 512);
		memset(at(b, DATA + 0x2000), 0xbb, 512);
		assert_int_equal(request(&d, VIRTIO_BLK_T_OUT, 7, 2, true), VIRTIO_BLK_S_OK);
		assert_int_equal(used_len(b, 0, 0), 1);
		assert_int_equal(block_read(d.block, buf, 1024, 7 * 512), 0);
		assert_int_equal(buf[0], 0xaa);
		assert_int_equal(buf[1023], 0xbb);
		memset(at(b, DATA + 0x1000), 0, 0x2000);
		assert_int_equal(request(&d, VIRTIO_BLK_T_IN, 6, 3, false), VIRTIO_BLK_S_OK);
		assert_int_equal(used_len(b, 0, 1), 3 * 512 + 1);
		assert_int_equal(*at(b, DATA + 0x1000), 0);
		assert_int_equal(*at(b, DATA + 0x2000), 0xaa);
		assert_int_equal(*at(b, DATA + 0x31ff), 0xbb);
		assert_int_equal(request(&d, VIRTIO_BLK_T_FLUSH, 0, 0, false), VIRTIO_BLK_S_OK);
		disk_close(&d);
	}
}

static void
requests_out_of_range_and_unknown_ones_fail_alone(void **state)
{
	struct disk d = disk_open(0);

	assert_int_equal(request(&d, VIRTIO_BLK_T_IN, 2047, 2, false), VIRTIO_BLK_S_IOERR);
	assert_int_equal(request(&d, VIRTIO_BLK_T_IN, 1ull << 55, 1, false), VIRTIO_BLK_S_IOERR);
	assert_int_equal(request(&d, VIRTIO_BLK_T_IN, UINT64_MAX, 1, false), VIRTIO_BLK_S_IOERR);
	assert_int_equal(request(&d, 77, 0, 1, false), VIRTIO_BLK_S_UNSUPP);
	assert_int_equal(request(&d, VIRTIO_BLK_T_OUT, 0, 0, true), VIRTIO_BLK_S_OK);
	assert_int_equal(request(&d, VIRTIO_BLK_T_DISCARD, 0, 1, true), VIRTIO_BLK_S_IOERR);
	assert_int_equal(request(&d, VIRTIO_BLK_T_IN, 2047, 1, false), VIRTIO_BLK_S_OK);
	disk_close(&d);
}

static void
the_serial_number_and_zeroes_are_there(void **state)
{
	struct disk d = disk_open(0);
	struct bench *b = d.b;
	uint8_t buf[512];

	assert_int_equal(request(&d, VIRTIO_BLK_T_GET_ID, 0, 1, false), VIRTIO_BLK_S_OK);
	assert_string_equal((char *)at(b, DATA + 0x1000), "SERIAL0123");
	memset(at(b, DATA + 0x1000), 0xaa, 512);
	assert_int_equal(request(&d, VIRTIO_BLK_T_OUT, 100, 1, true), VIRTIO_BLK_S_OK);
	put_le64(at(b, DATA + 0x1000), 100);
	put_le32(at(b, DATA + 0x1008), 1);
	put_le32(at(b, DATA + 0x100c), 0);
	put_le32(at(b, DATA), VIRTIO_BLK_T_WRITE_ZEROES);
	desc(b, 0, 0, DATA, 16, NEXT, 1);
	desc(b, 0, 1, DATA + 0x1000, 16, NEXT, 2);
	desc(b, 0, 2, DATA + 16, 1, WRITE, 0);
	offer(b, 0, 0);
	kick(b, 0);
	wait_used(b, 0, 3);
	assert_int_equal(*at(b, DATA + 16), VIRTIO_BLK_S_OK);
	assert_int_equal(block_read(d.block, buf, 512, 100 * 512), 0);
	assert_int_equal(buf[0] | buf[511], 0);
	disk_close(&d);
}

static void
a_reset_waits_for_requests_in_flight(void **state)
{
	struct disk d = disk_open(0);
	struct bench *b = d.b;

	put_le32(at(b, DATA), VIRTIO_BLK_T_IN);
	put_le64(at(b, DATA + 8), 0);
	for (unsigned i = 0; i < 50; i++) {
		desc(b, 0, 3 * i, DATA, 16, NEXT, 3 * i + 1);
		desc(b, 0, 3 * i + 1, DATA + 0x1000 + i * 0x8000, 0x8000, NEXT | WRITE, 3 * i + 2);
		desc(b, 0, 3 * i + 2, DATA + 16 + i, 1, WRITE, 0);
		offer(b, 0, 3 * i);
	}
	kick(b, 0);
	wr(b, VIRTIO_PCI_COMMON_STATUS, 0, 1);
	memset(at(b, DATA + 0x1000), 0x11, 512);
	machine_unlock(&b->m);
	usleep(20000);
	machine_lock(&b->m);
	assert_int_equal(*at(b, DATA + 0x1000), 0x11);
	disk_close(&d);
}

/* ---- network ---- */

static struct bench *
net_bench(bool takes_tso, uint64_t drop)
{
	struct bench *b = bench_open();
	struct err e;

	b->class.takes_tso = takes_tso;
	start(b, virtio_net_create(&b->m, 3, 0, &b->link, &e), drop);
	return b;
}

/* Ethernet, IPv4, TCP with the pseudo header's sum in the checksum field, at DATA + 12 behind the virtio header. */
static void
make_tcp(struct bench *b, unsigned payload)
{
	uint8_t *f = at(b, DATA + 12), pseudo[12] = { 0 };
	uint16_t sum;

	memset(at(b, DATA), 0, 66);
	f[12] = 8;
	f[14] = 0x45;
	f[16] = (uint8_t)((payload + 40) >> 8);
	f[17] = (uint8_t)(payload + 40);
	f[22] = 64;
	f[23] = 6;
	memcpy(f + 26, "\x0a\x00\x02\x0f\x0a\x00\x02\x02", 8);
	f[46] = 0x50;
	f[47] = 0x18;
	sum = net_sum_fold(net_sum(0, f + 14, 20));
	memcpy(f + 24, &sum, 2);
	memcpy(pseudo, f + 26, 8);
	pseudo[9] = 6;
	pseudo[10] = (uint8_t)((payload + 20) >> 8);
	pseudo[11] = (uint8_t)(payload + 20);
	sum = (uint16_t)~net_sum_fold(net_sum(0, pseudo, 12));
	memcpy(f + 50, &sum, 2);
	for (unsigned i = 0; i < payload; i++)
		f[54 + i] = (uint8_t)(i * 7 >> 2);
}

static void
send(struct bench *b, unsigned frame_len, unsigned flags, unsigned gso, unsigned mss)
{
	uint8_t *h = at(b, DATA);

	h[0] = (uint8_t)flags;
	h[1] = (uint8_t)gso;
	put_le16(h + 4, (uint16_t)mss);
	put_le16(h + 6, 34);
	put_le16(h + 8, 16);
	desc(b, 1, 0, DATA, 12 + 20, NEXT, 1);
	desc(b, 1, 1, DATA + 32, frame_len - 20, 0, 0);
	offer(b, 1, 0);
	kick(b, 1);
}

static void
frames_leave_with_checksums_and_in_segments(void **state)
{
	struct bench *b = net_bench(false, 0);

	make_tcp(b, 700);
	send(b, 754, 0, 0, 0);
	assert_int_equal(b->sent_count, 1);
	assert_memory_equal(b->sent[0], at(b, DATA + 12), 754);
	send(b, 754, VIRTIO_NET_HDR_F_NEEDS_CSUM, 0, 0);
	assert_int_equal(net_checksum_verify(b->sent[1], 754), NET_CSUM_IP | NET_CSUM_L4);
	make_tcp(b, 30000);
	send(b, 30054, VIRTIO_NET_HDR_F_NEEDS_CSUM, VIRTIO_NET_HDR_GSO_TCPV4, 1448);
	assert_int_equal(b->sent_count, 2 + (30000 + 1447) / 1448);
	for (int i = 2; i < b->sent_count; i++)
		assert_int_equal(net_checksum_verify(b->sent[i], b->sent_len[i]), NET_CSUM_IP | NET_CSUM_L4);
	assert_int_equal(used_idx(b, 1), 3);
	bench_close(b);
	b = net_bench(true, 0);
	make_tcp(b, 30000);
	send(b, 30054, VIRTIO_NET_HDR_F_NEEDS_CSUM, VIRTIO_NET_HDR_GSO_TCPV4, 1448);
	assert_int_equal(b->sent_count, 1);
	assert_int_equal(net_checksum_verify(b->sent[0], 30054), NET_CSUM_IP | NET_CSUM_L4);
	bench_close(b);
}

static void
nonsense_in_a_header_drops_the_frame(void **state)
{
	struct bench *b = net_bench(false, 0);

	make_tcp(b, 3000);
	send(b, 3054, 1, 77, 1448);			/* no such segmentation */
	send(b, 3054, 1, VIRTIO_NET_HDR_GSO_TCPV4, 0);	/* no size */
	send(b, 40, 1, VIRTIO_NET_HDR_GSO_TCPV4, 1448); /* no room for headers */
	at(b, DATA + 12)[46] = 0xf0;			/* TCP header longer than the frame */
	send(b, 60, 1, VIRTIO_NET_HDR_GSO_TCPV4, 1448);
	send(b, 50, VIRTIO_NET_HDR_F_NEEDS_CSUM, 0, 0); /* checksum behind the end */
	desc(b, 1, 0, DATA, 5, 0, 0);			/* not even a header */
	offer(b, 1, 0);
	kick(b, 1);
	assert_int_equal(b->sent_count, 0);
	assert_int_equal(used_idx(b, 1), 6);
	assert_false(is_broken(b));
	bench_close(b);
}

static void
a_frame_is_merged_over_buffers_or_waits(void **state)
{
	struct bench *b = net_bench(false, 0);
	uint8_t f[1000];

	for (size_t i = 0; i < sizeof(f); i++)
		f[i] = (uint8_t)(i * 31);
	for (unsigned i = 0; i < 2; i++) {
		desc(b, 0, i, DATA + 0x1000 * i, 300, WRITE, 0);
		offer(b, 0, i);
	}
	net_deliver(&b->link, f, 1000);
	assert_int_equal(used_idx(b, 0), 0); /* two are not enough, and none is lost */
	for (unsigned i = 2; i < 6; i++) {
		desc(b, 0, i, DATA + 0x1000 * i, 300, WRITE, 0);
		offer(b, 0, i);
	}
	kick(b, 0);
	assert_int_equal(used_idx(b, 0), 4);
	assert_int_equal(le16(at(b, DATA + 10)), 4);
	assert_memory_equal(at(b, DATA + 12), f, 288);
	assert_memory_equal(at(b, DATA + 0x1000), f + 288, 300);
	assert_int_equal(used_len(b, 0, 3), 1000 - 288 - 600);
	bench_close(b);
}

static void
a_frame_may_be_answered_while_it_is_being_sent(void **state)
{
	struct bench *b = net_bench(true, 0);
	static const uint8_t answer[1000] = { 2 };

	b->answer = answer;
	b->answer_len = sizeof(answer);
	for (unsigned i = 10; i < 14; i++) {
		desc(b, 0, i, DATA + 0x1000 * i, 300, WRITE, 0);
		offer(b, 0, i);
	}
	make_tcp(b, 700);
	send(b, 754, 0, 0, 0);
	assert_int_equal(used_idx(b, 0), 4);
	assert_int_equal(used_idx(b, 1), 1);
	assert_int_equal(le32(at(b, QUEUE(1) + 0x8004)), 0); /* the chain that was sent, not one that was received */
	bench_close(b);
}

static void
segments_come_joined_to_a_driver_that_takes_them(void **state)
{
	struct bench *b = net_bench(true, 0);
	static uint8_t f[9054], zeroes[2];
	struct net_tcp t;
	uint8_t *h = at(b, DATA + 0x10000), *got = h + 12;

	make_tcp(b, 9000);
	memcpy(f, at(b, DATA + 12), sizeof(f));
	memcpy(f + 50, zeroes, 2);
	assert_true(b->link.adapter.takes_large(b->link.adapter.opaque));
	desc(b, 0, 0, DATA + 0x10000, 9100, WRITE, 0);
	offer(b, 0, 0);
	net_deliver_large(&b->link, f, sizeof(f), 1448);
	assert_int_equal(used_len(b, 0, 0), 12 + sizeof(f));
	assert_int_equal(h[0], VIRTIO_NET_HDR_F_NEEDS_CSUM);
	assert_int_equal(h[1], VIRTIO_NET_HDR_GSO_TCPV4);
	assert_int_equal(le16(h + 2), 54);
	assert_int_equal(le16(h + 4), 1448);
	assert_int_equal(le16(h + 6), 34);
	assert_int_equal(le16(h + 8), 16);
	assert_memory_equal(got, at(b, DATA + 12), sizeof(f)); /* which has the pseudo header's sum */
	assert_true(net_tcp_find(got, sizeof(f), &t));
	bench_close(b);
	b = net_bench(true, VIRTIO_BIT(VIRTIO_NET_F_GUEST_TSO4));
	assert_false(b->link.adapter.takes_large(b->link.adapter.opaque));
	bench_close(b);
}

/* A hundred datagrams at once, or TCP; how many the driver gets. False: it took so long that the pause was over. */
static bool
a_flood(struct bench *b, uint8_t protocol, unsigned *got)
{
	uint8_t f[60] = { 8, 0, 0x27, 1, 2, 3, [12] = 8, [14] = 0x45, [17] = 46, [23] = protocol };
	uint64_t began = loop_now();

	for (unsigned i = 0; i < 100; i++) {
		desc(b, 0, i, DATA + 0x200 * i, 0x200, WRITE, 0);
		offer(b, 0, i);
	}
	for (unsigned i = 0; i < 100; i++)
		net_deliver(&b->link, f, sizeof(f));
	*got = used_idx(b, 0);
	return loop_now() - began < 3000000;
}

static void
datagrams_come_in_portions_until_the_guest_has_nothing_to_do(void **state)
{
	unsigned got;
	struct bench *b = net_bench(false, 0);

	while (!a_flood(b, 17, &got)) {
		bench_close(b);
		b = net_bench(false, 0);
	}
	assert_int_equal(got, 64);
	machine_halts(&b->m);
	assert_int_equal(used_idx(b, 0), 100);
	bench_close(b);
	b = net_bench(false, 0);
	a_flood(b, 6, &got);
	assert_int_equal(got, 100);
	bench_close(b);
	b = net_bench(false, 0);
	while (!a_flood(b, 17, &got)) {
		bench_close(b);
		b = net_bench(false, 0);
	}
	wait_used(b, 0, 100); /* no CPU sleeps: the pause ends it */
	bench_close(b);
}

static void
the_control_queue_sets_the_filters(void **state)
{
	struct bench *b = net_bench(false, 0);
	uint8_t f[60] = { 8, 0, 0x27, 0xff, 0xff, 1 }, *c = at(b, DATA + 0x8000);

	for (unsigned i = 0; i < 4; i++) {
		desc(b, 0, i, DATA + 0x1000 * i, 2000, WRITE, 0);
		offer(b, 0, i);
	}
	desc(b, 2, 0, DATA + 0x8000, 3, NEXT, 1);
	desc(b, 2, 1, DATA + 0x9000, 1, WRITE, 0);
	net_deliver(&b->link, f, 60); /* promiscuous until told otherwise */
	assert_int_equal(used_idx(b, 0), 1);
	memcpy(c, (uint8_t[]){ VIRTIO_NET_CTRL_RX, VIRTIO_NET_CTRL_RX_PROMISC, 0 }, 3);
	offer(b, 2, 0);
	kick(b, 2);
	assert_int_equal(*at(b, DATA + 0x9000), VIRTIO_NET_OK);
	net_deliver(&b->link, f, 60);
	assert_int_equal(used_idx(b, 0), 1);
	memcpy(c,
		(uint8_t[]){ VIRTIO_NET_CTRL_MAC, VIRTIO_NET_CTRL_MAC_TABLE_SET, 1, 0, 0, 0, 8, 0, 0x27, 0xff, 0xff, 1,
			0, 0, 0, 0 },
		16);
	desc(b, 2, 0, DATA + 0x8000, 16, NEXT, 1);
	offer(b, 2, 0);
	kick(b, 2);
	assert_int_equal(*at(b, DATA + 0x9000), VIRTIO_NET_OK);
	net_deliver(&b->link, f, 60);
	assert_int_equal(used_idx(b, 0), 2);
	put_le32(c + 2, 0xffffffff); /* more entries than bytes */
	offer(b, 2, 0);
	kick(b, 2);
	assert_int_equal(*at(b, DATA + 0x9000), VIRTIO_NET_ERR);
	net_set_cable(&b->link, false);
	assert_int_equal(rd(b, DEVICE + 6, 2), 0);
	assert_int_equal(b->intx, 1);
	bench_close(b);
}

/* ---- balloon, console ---- */

static void
pages_in_the_balloon_are_given_to_the_host(void **state)
{
	struct bench *b = bench_open();
	struct err e;
	struct virtio_balloon *d = virtio_balloon_create(&b->m, 3, 0, &e);
	struct balloon_stats s;

	start(b, d, 0);
	virtio_balloon_set(d, 3 << 12);
	assert_int_equal(rd(b, DEVICE, 4), 3);
	memset(at(b, 0x200000), 0x77, 0x5000);
	put_le32(at(b, DATA), 0x200);
	put_le32(at(b, DATA + 4), 0x201);
	put_le32(at(b, DATA + 8), 0x203);
	put_le32(at(b, DATA + 12), 0xffffffff); /* not memory */
	desc(b, 0, 0, DATA, 16, 0, 0);
	offer(b, 0, 0);
	kick(b, 0);
	assert_int_equal(used_idx(b, 0), 1);
	assert_int_equal(*at(b, 0x200000) | *at(b, 0x201fff) | *at(b, 0x203000), 0);
	assert_int_equal(*at(b, 0x202000), 0x77);
	assert_int_equal(*at(b, 0x204000), 0x77);
	wr(b, DEVICE + 4, 3, 4);
	assert_int_equal(virtio_balloon_actual(d), 3 << 12);
	assert_false(virtio_balloon_stats(d, &s));
	put_le16(at(b, DATA), VIRTIO_BALLOON_S_MEMFREE);
	put_le64(at(b, DATA + 2), 123456);
	desc(b, 2, 0, DATA, 10, 0, 0);
	offer(b, 2, 0);
	kick(b, 2);
	assert_int_equal(used_idx(b, 2), 0);
	assert_true(virtio_balloon_stats(d, &s));
	assert_int_equal(s.free, 123456);
	assert_int_equal(s.total, UINT64_MAX);
	assert_int_equal(used_idx(b, 2), 1);
	bench_close(b);
}

static void
the_console_writes_to_its_file(void **state)
{
	struct bench *b = bench_open();
	char path[] = "/tmp/lodge-console-XXXXXX";
	struct chardev *cd;
	struct err e;
	size_t len;
	char *text;

	close(mkstemp(path));
	cd = chardev_open(b->m.loop, CHARDEV_FILE, path, &e);
	assert_non_null(cd);
	start(b, virtio_console_create(&b->m, 3, 0, cd, &e), 0);
	memcpy(at(b, DATA), "hello, world\n", 13);
	desc(b, 1, 0, DATA, 5, NEXT, 1);
	desc(b, 1, 1, DATA + 5, 8, 0, 0);
	offer(b, 1, 0);
	kick(b, 1);
	wait_used(b, 1, 1);
	wr(b, DEVICE + 8, '!', 4);
	bench_close(b);
	text = file_read(path, 100, &len, &e);
	assert_string_equal(text, "hello, world\n!");
	free(text);
	unlink(path);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_buffer_is_filled_and_given_back_with_an_interrupt),
		cmocka_unit_test(an_indirect_table_is_followed_once),
		cmocka_unit_test(broken_queues_need_a_reset),
		cmocka_unit_test(rings_that_are_not_memory_need_a_reset),
		cmocka_unit_test(features_that_are_not_offered_are_refused),
		cmocka_unit_test(configuration_space_has_a_window_into_the_bar),
		cmocka_unit_test(messages_go_to_the_vector_of_the_queue),
		cmocka_unit_test(the_legacy_interface_works_through_ports),
		cmocka_unit_test(sectors_are_written_and_read_in_pieces),
		cmocka_unit_test(requests_out_of_range_and_unknown_ones_fail_alone),
		cmocka_unit_test(the_serial_number_and_zeroes_are_there),
		cmocka_unit_test(a_reset_waits_for_requests_in_flight),
		cmocka_unit_test(frames_leave_with_checksums_and_in_segments),
		cmocka_unit_test(nonsense_in_a_header_drops_the_frame),
		cmocka_unit_test(a_frame_is_merged_over_buffers_or_waits),
		cmocka_unit_test(a_frame_may_be_answered_while_it_is_being_sent),
		cmocka_unit_test(segments_come_joined_to_a_driver_that_takes_them),
		cmocka_unit_test(datagrams_come_in_portions_until_the_guest_has_nothing_to_do),
		cmocka_unit_test(the_control_queue_sets_the_filters),
		cmocka_unit_test(pages_in_the_balloon_are_given_to_the_host),
		cmocka_unit_test(the_console_writes_to_its_file),
	};

	return cmocka_run_group_tests_name("virtio", tests, NULL, NULL);
}
