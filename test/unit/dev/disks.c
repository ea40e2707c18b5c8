/* SPDX-License-Identifier: Apache-2.0 */
/* IDE and AHCI driven the way drivers do it: ports and registers of a machine without a CPU. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/bytes.h"
#include "base/str.h"
#include "block/block.h"
#include "bus/machine.h"
#include "dev/dev.h"

#define MIB (1u << 20)
#define RAM_SIZE (16u * MIB)
#define DISK_SIZE (64ull * MIB)
#define CD_SECTORS 600u
#define BAR 0xfebf0000u
#define BM 0xc000u

static struct machine m;
static struct ram *ram;
static struct mem_region ram_region;
static struct block *disk, *disc, *disc2;
static struct ide *ide;
static struct ahci *ahci;
static int irq_level[2];
static unsigned messages, ejects;
static char dir[64];

/* ---- the machine ---- */

static void
irq_changed(void *opaque, int n, int level)
{
	irq_level[n] = level;
}

static void
message(void *opaque, uint64_t addr, uint32_t data)
{
	messages++;
}

static void
ejected(void *opaque)
{
	ejects++;
}

/* Sector n of the disk begins with its number; byte 8 on is its low byte. */
static void
fill_disk(struct block *b, uint32_t sector, uint32_t count)
{
	uint8_t *buf = calloc(count, sector);

	for (uint32_t i = 0; i < count; i++) {
		memset(buf + i * sector, (int)i, sector);
		put_le64(buf + i * sector, i);
	}
	assert_int_equal(block_write(b, buf, (uint64_t)count * sector, 0), 0);
	assert_int_equal(block_flush(b), 0);
	free(buf);
}

static struct block *
make_image(const char *name, const char *format, uint64_t size, uint32_t sector, uint32_t count)
{
	char path[128];
	struct block_create c = { .path = path, .format = format, .size = size };
	struct err e = { 0 };
	struct block *b;

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	if (block_create(&c, &e))
		fail_msg("%s", e.text);
	b = block_open(path, format, 0, &e);
	if (!b)
		fail_msg("%s", e.text);
	fill_disk(b, sector, count);
	return b;
}

static void
program_bars(unsigned ide_devfn, unsigned ahci_devfn)
{
	pci_config_write(&m.pci, ide_devfn, 0x20, BM, 4);
	pci_config_write(&m.pci, ide_devfn, 4, 5, 2);
	pci_config_write(&m.pci, ahci_devfn, 0x24, BAR, 4);
	pci_config_write(&m.pci, ahci_devfn, 4, 6, 2);
}

static int
set_up(void **state)
{
	struct ide_wires w = { .irq = { { irq_changed, NULL, 0 }, { irq_changed, NULL, 1 } } };
	struct drive_config cfg = { 0 };
	struct err e = { 0 };

	strcpy(dir, "/tmp/lodge-disks-XXXXXX");
	assert_non_null(mkdtemp(dir));
	assert_int_equal(machine_open(&m, "test"), 0);
	machine_lock(&m);
	pci_add_ports(&m);
	ram = ram_create(&m.mem, "ram", RAM_SIZE);
	ram_region =
		(struct mem_region){ .name = "ram", .kind = MEM_RAM, .enabled = true, .size = RAM_SIZE, .ram = ram };
	mem_add(&m.mem, &ram_region);
	mem_update(&m.mem);
	m.intc.msi = message;
	messages = ejects = 0;
	disk = make_image("disk.vdi", "vdi", DISK_SIZE, 512, 4096);
	disc = make_image("disc.iso", "raw", CD_SECTORS * 2048, 2048, CD_SECTORS);
	disc2 = make_image("disc2.iso", "raw", 100 * 2048, 2048, 100);
	ide = ide_create(&m, 1, 1, &w);
	ahci = ahci_create(&m, 5, 4, &e);
	assert_non_null(ide);
	assert_non_null(ahci);
	program_bars(1 << 3 | 1, 5 << 3);
	cfg.ejected = ejected;
	if (*(int *)*state == 0) {
		cfg.block = disk;
		cfg.serial = "S123";
		cfg.discard = true;
		assert_int_equal(ide_attach(ide, 0, 0, &cfg, &e), 0);
		cfg = (struct drive_config){ .block = disc, .cdrom = true, .ejected = ejected };
		assert_int_equal(ide_attach(ide, 1, 0, &cfg, &e), 0);
	} else {
		cfg.block = disk;
		cfg.discard = cfg.nonrotational = true;
		assert_int_equal(ahci_attach(ahci, 0, &cfg, &e), 0);
		cfg = (struct drive_config){ .block = disc, .cdrom = true };
		assert_int_equal(ahci_attach(ahci, 1, &cfg, &e), 0);
	}
	return 0;
}

static int
tear_down(void **state)
{
	char cmd[128];

	machine_unlock(&m);
	machine_close(&m);
	block_close(disk);
	block_close(disc);
	block_close(disc2);
	snprintf(cmd, sizeof(cmd), "rm -rf %s", dir);
	return system(cmd);
}

static void
settle(void)
{
	device_drain_all(&m);
}

/* Every field of the device, out into `blob` or back in. */
static size_t
transfer_fields(struct device *d, uint8_t *blob, bool load)
{
	size_t n = 0;

	for (const struct field *f = d->class->fields; f->name; f++) {
		uint8_t *p = (uint8_t *)d + f->offset;
		size_t len = (size_t)f->size * f->count;

		if (load)
			memcpy(p, blob + n, len);
		else
			memcpy(blob + n, p, len);
		n += len;
	}
	return n;
}

/* Save the device, reset the machine and wreck the device's state, load it again: the guest must not notice. */
static void
save_and_load(void *device)
{
	struct device *d = device;
	struct pci_dev *p = device;
	uint8_t *blob = malloc(2 << 20), config[256];

	settle();
	memcpy(config, p->config, 256);
	assert_true(transfer_fields(d, blob, false) < 2 << 20);
	device_reset_all(&m);
	transfer_fields(d, blob, true);
	memcpy(p->config, config, 256);
	pci_loaded(p);
	d->class->loaded(d);
	free(blob);
}

/* ---- IDE ---- */

static const uint16_t port[2] = { 0x1f0, 0x170 };

static uint8_t
status(int ch)
{
	return (uint8_t)io_read(&m.io, port[ch] + 7, 1);
}

static void
out(int ch, int reg, uint8_t value)
{
	io_write(&m.io, (uint16_t)(port[ch] + reg), value, 1);
}

static uint8_t
in(int ch, int reg)
{
	return (uint8_t)io_read(&m.io, (uint16_t)(port[ch] + reg), 1);
}

static void
issue28(uint8_t command, uint32_t lba, uint8_t count)
{
	out(0, 6, (uint8_t)(0xe0 | lba >> 24));
	out(0, 2, count);
	out(0, 3, (uint8_t)lba);
	out(0, 4, (uint8_t)(lba >> 8));
	out(0, 5, (uint8_t)(lba >> 16));
	out(0, 7, command);
	settle();
}

static void
issue48(uint8_t command, uint64_t lba, uint16_t count)
{
	out(0, 6, 0xe0);
	for (int i = 3; i >= 0; i -= 3) { /* previous contents first */
		out(0, 2, (uint8_t)(count >> (i ? 8 : 0)));
		out(0, 3, (uint8_t)(lba >> 8 * i));
		out(0, 4, (uint8_t)(lba >> 8 * (i + 1)));
		out(0, 5, (uint8_t)(lba >> 8 * (i + 2)));
	}
	out(0, 7, command);
	settle();
}

static void
data_in(int ch, void *buf, unsigned bytes)
{
	for (unsigned i = 0; i < bytes; i += 4) {
		uint32_t v = io_read(&m.io, port[ch], 4);

		memcpy((char *)buf + i, &v, 4);
	}
	settle();
}

static void
data_out(int ch, const void *buf, unsigned bytes)
{
	for (unsigned i = 0; i < bytes; i += 2)
		io_write(&m.io, port[ch], le16((const char *)buf + i), 2);
	settle();
}

static void
text_of(const uint8_t *id, int word, int words, char *to)
{
	for (int i = 0; i < words * 2; i++)
		to[i] = (char)id[word * 2 + (i ^ 1)];
	for (to += words * 2; to[-1] == ' '; to--)
		;
	*to = 0;
}

static void
test_ide_identify(void **state)
{
	uint8_t id[512], sum = 0;
	char text[64];

	issue28(0xec, 0, 0);
	assert_int_equal(irq_level[0], 1);
	assert_int_equal(status(0), 0x58);
	assert_int_equal(irq_level[0], 0);
	data_in(0, id, 512);
	assert_int_equal(status(0), 0x50);
	text_of(id, 27, 20, text);
	assert_string_equal(text, "VBOX HARDDISK");
	text_of(id, 10, 10, text);
	assert_string_equal(text, "S123");
	assert_int_equal(le32(id + 120), DISK_SIZE / 512);
	assert_int_equal(le64(id + 200), DISK_SIZE / 512);
	assert_int_equal(le16(id + 2), DISK_SIZE / 512 / 16 / 63);
	assert_int_equal(le16(id + 169 * 2), 1);
	for (int i = 0; i < 512; i++)
		sum += id[i];
	assert_int_equal(sum, 0);
	/* the other channel has a CD-ROM drive: IDENTIFY tells its signature */
	out(1, 6, 0xa0);
	out(1, 7, 0xec);
	assert_int_equal(status(1) & 1, 1);
	assert_int_equal(in(1, 4), 0x14);
	assert_int_equal(in(1, 5), 0xeb);
	out(1, 7, 0xa1);
	data_in(1, id, 512);
	assert_int_equal(le16(id), 0x85c0);
	/* nobody is there */
	out(1, 6, 0xb0);
	assert_int_equal(status(1), 0);
}

static void
test_ide_pio(void **state)
{
	static uint8_t buf[300 * 512], expected[512];

	issue28(0x20, 5, 3);
	for (unsigned i = 0; i < 3; i++) {
		assert_int_equal(irq_level[0], 1);
		assert_int_equal(status(0), 0x58);
		data_in(0, buf, 512);
		assert_int_equal(le64(buf), 5 + i);
		assert_int_equal(buf[511], 5 + i);
	}
	assert_int_equal(irq_level[0], 0);
	assert_int_equal(status(0), 0x50);

	/* 300 sectors are more than the read-ahead buffer */
	issue48(0x24, 100, 300);
	for (unsigned i = 0; i < 300; i++)
		data_in(0, buf + 512 * i, 512);
	for (unsigned i = 0; i < 300; i++)
		assert_int_equal(le64(buf + 512 * i), 100 + i);
	assert_int_equal(status(0), 0x50);

	memset(buf, 0x77, sizeof(buf));
	issue28(0x30, 20, 200);
	assert_int_equal(status(0), 0x58);
	for (unsigned i = 0; i < 200; i++)
		data_out(0, buf + 512 * i, 512);
	assert_int_equal(status(0), 0x50);
	issue28(0xe7, 0, 0);
	assert_int_equal(status(0), 0x50);
	memset(expected, 0x77, 512);
	for (unsigned i = 20; i < 220; i++) {
		assert_int_equal(block_read(disk, buf, 512, i * 512), 0);
		assert_memory_equal(buf, expected, 512);
	}
	assert_int_equal(block_read(disk, buf, 512, 220 * 512), 0);
	assert_int_equal(le64(buf), 220);
}

static void
test_ide_multiple(void **state)
{
	static uint8_t buf[20 * 512];

	issue28(0xc4, 0, 20);
	assert_int_equal(status(0) & 1, 1);
	issue28(0xc6, 0, 3);
	assert_int_equal(status(0) & 1, 1);
	issue28(0xc6, 0, 8);
	assert_int_equal(status(0), 0x50);
	issue28(0xc4, 7, 20);
	for (unsigned n = 20; n;) {
		unsigned part = n < 8 ? n : 8;

		assert_int_equal(irq_level[0], 1);
		assert_int_equal(status(0), 0x58);
		data_in(0, buf + (20 - n) * 512, part * 512);
		n -= part;
	}
	assert_int_equal(irq_level[0], 0);
	assert_int_equal(le64(buf + 19 * 512), 26);
}

static void
test_ide_chs(void **state)
{
	uint8_t buf[512];

	out(0, 6, 0xa2); /* head 2 */
	out(0, 2, 1);
	out(0, 3, 5); /* sector 5 */
	out(0, 4, 1); /* cylinder 1 */
	out(0, 5, 0);
	out(0, 7, 0x20);
	settle();
	data_in(0, buf, 512);
	assert_int_equal(le64(buf), (1 * 16 + 2) * 63 + 4);
}

static void
prd(gpa_t table, int n, uint32_t at, uint32_t len, bool last)
{
	put_le32(ram->host + table + n * 8, at);
	put_le32(ram->host + table + n * 8 + 4, (len & 0xffff) | (last ? 0x80000000u : 0));
}

static void
start_bm(gpa_t table, bool to_memory)
{
	io_write(&m.io, BM + 4, (uint32_t)table, 4);
	io_write(&m.io, BM + 2, 6, 1);
	io_write(&m.io, BM, to_memory ? 9 : 1, 1);
	settle();
}

static void
test_ide_dma(void **state)
{
	uint8_t *p = ram->host;

	prd(0x1000, 0, 0x10002, 1022, false);
	prd(0x1000, 1, 0x20000, 0, false); /* 64 KiB */
	prd(0x1000, 2, 0x40000, 200 * 512 - 1022 - 65536, true);
	issue28(0xc8, 1000, 200);
	assert_int_equal(status(0) & 0x80, 0x80);
	start_bm(0x1000, true);
	assert_int_equal(irq_level[0], 1);
	assert_int_equal(io_read(&m.io, BM + 2, 1) & 7, 4);
	assert_int_equal(status(0), 0x50);
	assert_int_equal(le64(p + 0x10002), 1000);
	assert_int_equal(p[0x10002 + 1021], 1001 & 0xff);
	assert_int_equal(le64(p + 0x20002), 1002);
	assert_int_equal(p[0x40000 + 200 * 512 - 1022 - 65536 - 1], 1199 & 0xff);
	io_write(&m.io, BM, 0, 1);

	prd(0x1000, 0, 0x10002, 1022, false);
	prd(0x1000, 1, 0x20000, 2, true);
	issue48(0x35, 50000, 2);
	start_bm(0x1000, false);
	assert_int_equal(status(0), 0x50);
	assert_int_equal(block_read(disk, p + 0x80000, 1024, 50000 * 512), 0);
	assert_memory_equal(p + 0x80000, p + 0x10002, 1022);
	assert_memory_equal(p + 0x80000 + 1022, p + 0x20000, 2);
}

/* More entries than one request takes, none of them a whole sector. */
static void
test_ide_many_prds(void **state)
{
	const uint32_t step = 130;
	uint32_t total = 64 * 512, n = 0;

	for (uint32_t off = 0; off < total; off += step, n++)
		prd(0x1000, (int)n, 0x100000 + n * 0x200, off + step < total ? step : total - off, off + step >= total);
	assert_true(n > 250);
	issue28(0xc8, 300, 64);
	start_bm(0x1000, true);
	assert_int_equal(status(0), 0x50);
	for (uint32_t off = 0; off < total; off++) {
		uint8_t got = ram->host[0x100000 + off / step * 0x200 + off % step];

		if (off % 512 >= 8)
			assert_int_equal(got, (300 + off / 512) & 0xff);
	}
}

static void
test_ide_bad_prds(void **state)
{
	/* too short: the drive waits, and goes on with another table */
	prd(0x1000, 0, 0x10000, 512, true);
	issue28(0xc8, 10, 2);
	start_bm(0x1000, true);
	assert_int_equal(io_read(&m.io, BM + 2, 1) & 7, 0);
	assert_int_equal(status(0) & 0x80, 0x80);
	io_write(&m.io, BM, 0, 1);
	prd(0x1000, 0, 0x10200, 512, true);
	start_bm(0x1000, true);
	assert_int_equal(status(0), 0x50);
	assert_int_equal(le64(ram->host + 0x10000), 10);
	assert_int_equal(le64(ram->host + 0x10200), 11);
	io_write(&m.io, BM, 0, 1);
	/* no memory there */
	prd(0x1000, 0, 0xf0000000, 512, true);
	issue28(0xc8, 10, 1);
	start_bm(0x1000, true);
	assert_int_equal(io_read(&m.io, BM + 2, 1) & 3, 2);
	assert_int_equal(status(0) & 1, 1);
	io_write(&m.io, BM, 0, 1);
	/* the table itself is nowhere, or runs over the end of memory */
	issue28(0xc8, 10, 1);
	start_bm(0xe0000000, true);
	assert_int_equal(status(0) & 0x80, 0x80);
	io_write(&m.io, 0x3f6, 4, 1);
	io_write(&m.io, 0x3f6, 0, 1);
	assert_int_equal(status(0), 0x50);
	assert_int_equal(in(0, 1), 1);
	assert_int_equal(in(0, 2), 1);
	/* past the end of the disk */
	issue48(0x25, DISK_SIZE / 512 - 1, 2);
	assert_int_equal(status(0) & 1, 1);
	assert_int_equal(in(0, 1), 0x10);
	issue48(0x24, 0xffffffffffff, 0);
	assert_int_equal(in(0, 1), 0x10);
	/* no such command */
	issue28(0xff, 0, 0);
	assert_int_equal(in(0, 1), 4);
}

static void
test_ide_reset_in_flight(void **state)
{
	prd(0x1000, 0, 0x10000, 0, true);
	issue28(0xc8, 0, 128);
	io_write(&m.io, BM + 4, 0x1000, 4);
	io_write(&m.io, BM, 9, 1); /* the request is on its way now */
	io_write(&m.io, 0x3f6, 4, 1);
	io_write(&m.io, 0x3f6, 0, 1);
	for (int i = 0; i < 1000 && status(0) & 0x80; i++)
		settle();
	assert_int_equal(status(0), 0x50);
	assert_int_equal(irq_level[0], 0);
	io_write(&m.io, BM, 0, 1);
	/* a diagnostic while the other drive of the cable is busy */
	prd(0x1000, 0, 0x10000, 0, true);
	issue28(0xc8, 0, 128);
	io_write(&m.io, BM, 9, 1);
	out(0, 6, 0xb0);
	out(0, 7, 0x90);
	settle();
	out(0, 6, 0xe0);
	out(0, 7, 0x90);
	settle();
	assert_int_equal(irq_level[0], 1);
	assert_int_equal(status(0), 0x50);
	assert_int_equal(in(0, 1), 1);
	io_write(&m.io, BM, 0, 1);
	issue28(0xec, 0, 0);
	assert_int_equal(status(0), 0x58);
	device_reset_all(&m);
	program_bars(1 << 3 | 1, 5 << 3);
	assert_int_equal(status(0), 0x50);
}

static void
test_ide_trim(void **state)
{
	uint8_t buf[512];

	memset(ram->host + 0x10000, 0, 512);
	put_le64(ram->host + 0x10000, 100 | 50ull << 48);
	put_le64(ram->host + 0x10008, 2000 | 1ull << 48);
	prd(0x1000, 0, 0x10000, 512, true);
	out(0, 1, 0);
	out(0, 1, 1);
	issue48(0x06, 0, 1);
	start_bm(0x1000, false);
	assert_int_equal(status(0), 0x50);
	for (unsigned i = 99; i <= 150; i++) {
		assert_int_equal(block_read(disk, buf, 512, i * 512), 0);
		assert_int_equal(le64(buf), i == 99 || i == 150 ? i : 0);
	}
	assert_int_equal(block_read(disk, buf, 512, 2000 * 512), 0);
	assert_int_equal(le64(buf), 0);
}

static void
test_ide_features(void **state)
{
	uint8_t id[512];
	struct block_stats st;

	out(0, 1, 0x03);
	issue28(0xef, 0, 0x42);
	assert_int_equal(status(0), 0x50);
	out(0, 1, 0x03);
	issue28(0xef, 0, 0x99);
	assert_int_equal(status(0) & 1, 1);
	out(0, 1, 0x82);
	issue28(0xef, 0, 0);
	issue28(0xec, 0, 0);
	data_in(0, id, 512);
	assert_int_equal(le16(id + 88 * 2) >> 8, 4);
	assert_int_equal(le16(id + 85 * 2) & 0x20, 0);
	/* without a write cache each write is flushed */
	block_get_stats(disk, &st);
	issue28(0x30, 0, 1);
	data_out(0, id, 512);
	assert_int_equal(status(0), 0x50);
	id[0] = 0;
	assert_true(st.flushes > 0);
	uint64_t before = st.flushes;
	block_get_stats(disk, &st);
	assert_int_equal(st.flushes, before + 1);
	/* SMART says that all is well; power modes are remembered */
	out(0, 1, 0xda);
	issue28(0xb0, 0xc24f00, 1);
	assert_int_equal(status(0), 0x50);
	assert_int_equal(in(0, 4), 0x4f);
	issue28(0xe0, 0, 0);
	issue28(0xe5, 0, 0);
	assert_int_equal(in(0, 2), 0);
	issue28(0x40, 0, 1);
	issue28(0xe5, 0, 0);
	assert_int_equal(in(0, 2), 0xff);
}

/* Whatever a guest was in the middle of goes on behind a save and a load. */
static void
test_ide_saved(void **state)
{
	static uint8_t buf[300 * 512];

	issue48(0x24, 100, 300);
	for (unsigned i = 0; i < 300; i++) {
		data_in(0, buf + 512 * i, 256);
		if (i % 50 == 0)
			save_and_load(ide);
		data_in(0, buf + 512 * i + 256, 256);
	}
	for (unsigned i = 0; i < 300; i++)
		assert_int_equal(le64(buf + 512 * i), 100 + i);
	/* a write whose data is half there, with a pending interrupt */
	issue28(0x30, 20, 2);
	data_out(0, buf, 512 + 100);
	assert_int_equal(irq_level[0], 1);
	save_and_load(ide);
	assert_int_equal(irq_level[0], 1);
	data_out(0, buf + 612, 412);
	assert_int_equal(status(0), 0x50);
	assert_int_equal(block_read(disk, buf + 2048, 1024, 20 * 512), 0);
	assert_memory_equal(buf, buf + 2048, 1024);
	/* a DMA command that waits for the bus master */
	prd(0x1000, 0, 0x10000, 1024, true);
	issue28(0xc8, 30, 2);
	save_and_load(ide);
	start_bm(0x1000, true);
	assert_int_equal(status(0), 0x50);
	assert_int_equal(le64(ram->host + 0x10200), 31);
}

/* ---- CD-ROM on IDE ---- */

/* Returns the bytes of the answer, -1 for CHECK CONDITION. */
static int
packet(const uint8_t *cdb, void *buf, unsigned limit)
{
	unsigned total = 0;

	out(1, 6, 0xa0);
	out(1, 1, 0);
	out(1, 4, (uint8_t)limit);
	out(1, 5, (uint8_t)(limit >> 8));
	out(1, 7, 0xa0);
	assert_int_equal(in(1, 2) & 3, 1);
	assert_int_equal(status(1) & 0x88, 8);
	data_out(1, cdb, 12);
	while (status(1) & 8) {
		unsigned n = in(1, 4) | (unsigned)in(1, 5) << 8;

		assert_int_equal(in(1, 2) & 3, 2);
		assert_true(n && n <= limit);
		for (unsigned i = 0; i < n; i += 2) {
			uint16_t v = (uint16_t)io_read(&m.io, 0x170, 2);

			memcpy((char *)buf + total + i, &v, n - i < 2 ? 1 : 2);
		}
		total += n;
		settle();
	}
	assert_int_equal(in(1, 2) & 3, 3);
	return status(1) & 1 ? -1 : (int)total;
}

static unsigned
sense(void)
{
	uint8_t buf[32], cdb[12] = { 0x03, 0, 0, 0, 18 };

	assert_int_equal(packet(cdb, buf, 0xfffe), 18);
	return (unsigned)buf[2] << 16 | (unsigned)buf[12] << 8 | buf[13];
}

static void
test_cd_read(void **state)
{
	static uint8_t buf[64 * 2048];
	uint8_t tur[12] = { 0 }, inquiry[12] = { 0x12, 0, 0, 0, 96 }, capacity[12] = { 0x25 };
	uint8_t read10[12] = { 0x28, 0, 0, 0, 0, 100, 0, 0, 40 }, readcd[12] = { 0xbe, 0, 0, 0, 0, 7, 0, 0, 1, 0x10 };
	uint8_t beyond[12] = { 0x28, 0, 0, 0, 0x02, 0x57, 0, 0, 2 };

	assert_int_equal(packet(tur, buf, 0xfffe), -1); /* power on */
	assert_int_equal(sense(), 0x062900);
	assert_int_equal(packet(tur, buf, 0xfffe), 0);
	assert_int_equal(packet(inquiry, buf, 0xfffe), 36);
	assert_memory_equal(buf + 8, "VBOX    CD-ROM          1.0 ", 28);
	assert_int_equal(packet(capacity, buf, 0xfffe), 8);
	assert_memory_equal(buf, "\0\0\x02\x57\0\0\x08\0", 8);
	assert_int_equal(packet(read10, buf, 2048), 40 * 2048);
	for (unsigned i = 0; i < 40; i++)
		assert_int_equal(le64(buf + i * 2048), 100 + i);
	assert_int_equal(packet(read10, buf, 5000), 40 * 2048);
	assert_int_equal(le64(buf + 39 * 2048), 139);
	assert_int_equal(packet(readcd, buf, 0xffff), 2048);
	assert_int_equal(le64(buf), 7);
	assert_int_equal(packet(beyond, buf, 0xfffe), -1);
	assert_int_equal(sense(), 0x052100);
	beyond[0] = 0xee;
	assert_int_equal(packet(beyond, buf, 0xfffe), -1);
	assert_int_equal(sense(), 0x052000);
}

static void
test_cd_dma(void **state)
{
	uint8_t read12[12] = { 0xa8, 0, 0, 0, 0, 3, 0, 0, 0, 2 }, buf[32];

	sense();
	packet((uint8_t[12]){ 0 }, buf, 0xfffe);
	prd(0x1000, 0, 0x10000, 4096, true);
	out(1, 6, 0xa0);
	out(1, 1, 1);
	out(1, 7, 0xa0);
	data_out(1, read12, 12);
	io_write(&m.io, BM + 8 + 4, 0x1000, 4);
	io_write(&m.io, BM + 8, 9, 1);
	settle();
	assert_int_equal(status(1), 0x50);
	assert_int_equal(le64(ram->host + 0x10000), 3);
	assert_int_equal(le64(ram->host + 0x10800), 4);
	assert_int_equal(io_read(&m.io, BM + 8 + 2, 1) & 7, 4);
}

static void
test_cd_toc(void **state)
{
	uint8_t buf[128], toc[12] = { 0x43, 2, 0, 0, 0, 0, 0, 0, 100 };

	sense();
	assert_int_equal(packet(toc, buf, 0xfffe), 20);
	assert_memory_equal(
		buf, "\0\x12\1\1\0\x14\1\0\0\0\2\0\0\x14\xaa\0\0\0\x0a\0", 20); /* 600 + 150 frames: 0:10.0 */
	toc[1] = 0;
	toc[8] = 12; /* no room for the lead-out */
	assert_int_equal(packet(toc, buf, 0xfffe), 12);
	toc[2] = 1;
	assert_int_equal(packet(toc, buf, 0xfffe), 12);
	toc[2] = 2;
	toc[8] = 100;
	assert_int_equal(packet(toc, buf, 0xfffe), 48);
	toc[2] = 0;
	toc[6] = 9;
	assert_int_equal(packet(toc, buf, 0xfffe), -1);
	assert_int_equal(sense(), 0x052400);
}

static void
test_cd_other_commands(void **state)
{
	uint8_t buf[256];

	sense();
	assert_int_equal(packet((uint8_t[12]){ 0x46, 0, 0, 0, 0, 0, 0, 1, 0 }, buf, 0xfffe), 72);
	assert_int_equal(buf[7], 8); /* CD-ROM profile */
	assert_int_equal(packet((uint8_t[12]){ 0x4a, 1, 0, 0, 0x10, 0, 0, 0, 8 }, buf, 0xfffe), 8);
	assert_int_equal(buf[5], 2);
	assert_int_equal(packet((uint8_t[12]){ 0x5a, 0, 0x2a, 0, 0, 0, 0, 0, 128 }, buf, 0xfffe), 30);
	assert_int_equal(buf[8], 0x2a);
	assert_int_equal(packet((uint8_t[12]){ 0x51, 0, 0, 0, 0, 0, 0, 0, 34 }, buf, 0xfffe), 34);
	assert_int_equal(packet((uint8_t[12]){ 0xbd, 0, 0, 0, 0, 0, 0, 0, 0, 8 }, buf, 0xfffe), 8);
	assert_int_equal(packet((uint8_t[12]){ 0xad, 0, 0, 0, 0, 0, 0, 0, 8, 4 }, buf, 0xfffe), -1);
	assert_int_equal(packet((uint8_t[12]){ 0x42, 2, 0x40, 1, 0, 0, 0, 0, 16 }, buf, 0xfffe), 16);
}

static void
test_cd_change(void **state)
{
	uint8_t buf[256], tur[12] = { 0 }, lock[12] = { 0x1e, 0, 0, 0, 1 },
			  event[12] = { 0x4a, 1, 0, 0, 0x10, 0, 0, 0, 8 };
	uint8_t capacity[12] = { 0x25 }, eject[12] = { 0x1b, 0, 0, 0, 2 };

	sense();
	assert_int_equal(packet(lock, buf, 0xfffe), 0);
	assert_int_equal(packet(eject, buf, 0xfffe), -1);
	assert_int_equal(sense(), 0x055302);
	assert_int_equal(ide_change_medium(ide, 1, 0, disc2, false), -EBUSY);
	packet(event, buf, 0xfffe);
	assert_int_equal(buf[4], 1); /* somebody wants it out */
	lock[4] = 0;
	packet(lock, buf, 0xfffe);
	assert_int_equal(ide_change_medium(ide, 1, 0, disc2, false), 0);
	packet(event, buf, 0xfffe);
	assert_int_equal(buf[4], 2);
	assert_int_equal(packet(tur, buf, 0xfffe), -1);
	assert_int_equal(sense(), 0x062800);
	assert_int_equal(packet(capacity, buf, 0xfffe), 8);
	assert_int_equal(buf[3], 99);
	assert_int_equal(ide_change_medium(ide, 1, 0, NULL, false), 0);
	sense();
	assert_int_equal(packet(tur, buf, 0xfffe), -1);
	assert_int_equal(sense(), 0x023a01);
	assert_int_equal(ide_change_medium(ide, 1, 0, disc, false), 0);
	sense();
	assert_int_equal(packet(eject, buf, 0xfffe), 0);
	assert_int_equal(ejects, 1);
	assert_int_equal(packet(tur, buf, 0xfffe), -1);
	assert_int_equal(sense(), 0x023a02);
	assert_int_equal(ide_change_medium(ide, 0, 0, disc, false), -ENOENT);
}

/* The disc goes away in the middle of a PIO read. */
static void
test_cd_removed_while_read(void **state)
{
	static uint8_t buf[2048];
	uint8_t read10[12] = { 0x28, 0, 0, 0, 0, 0, 0, 0, 200 };
	int blocks = 0;

	sense();
	out(1, 6, 0xa0);
	out(1, 1, 0);
	out(1, 4, 0);
	out(1, 5, 8);
	out(1, 7, 0xa0);
	data_out(1, read10, 12);
	assert_int_equal(ide_change_medium(ide, 1, 0, NULL, true), 0);
	while (status(1) & 8) {
		data_in(1, buf, 2048);
		blocks++;
	}
	assert_int_equal(blocks, 32);
	assert_int_equal(status(1) & 1, 1);
	assert_int_equal(sense() >> 8, 0x023a);
}

/* ---- AHCI ---- */

enum { P0 = 0x100, P1 = 0x180, P2 = 0x200, CLB = 0x100000, FB = 0x108000, TABLE = 0x110000 };

static uint32_t
mm(uint32_t reg)
{
	return (uint32_t)mem_load(&m.mem, BAR + reg, 4);
}

static void
mmw(uint32_t reg, uint32_t value)
{
	mem_store(&m.mem, BAR + reg, value, 4);
}

static void
start_port(uint32_t p)
{
	uint32_t offset = (p - 0x100) * 0x100;

	mmw(p + 0x00, CLB + offset);
	mmw(p + 0x08, FB + offset);
	mmw(p + 0x30, 0xffffffff);
	mmw(p + 0x10, 0xffffffff);
	mmw(p + 0x14, 0xffffffff);
	mmw(p + 0x18, mm(p + 0x18) | 0x10);
	mmw(p + 0x18, mm(p + 0x18) | 0x01);
	mmw(0x04, 2);
}

struct ncmd {
	uint8_t command, device;
	uint64_t lba;
	uint16_t count, feature;
	bool write;
	const uint8_t *cdb;
	uint32_t at, len;
};

static void
build(uint32_t p, unsigned slot, const struct ncmd *n)
{
	uint32_t offset = (p - 0x100) * 0x100, table = TABLE + offset * 2 + slot * 0x400;
	uint8_t *h = ram->host + CLB + offset + slot * 32, *t = ram->host + table;
	uint32_t at = n->at, len = n->len, prds = 0;

	memset(h, 0, 32);
	memset(t, 0, 0x80);
	for (; len; prds++) {
		uint32_t part = len > 40000 ? 40000 : len;

		put_le64(t + 0x80 + prds * 16, at);
		put_le32(t + 0x80 + prds * 16 + 12, part - 1);
		at += part;
		len -= part;
	}
	put_le32(h, 5 | (n->write ? 0x40 : 0) | (n->cdb ? 0x20 : 0) | prds << 16);
	put_le32(h + 8, table);
	t[0] = 0x27;
	t[1] = 0x80;
	t[2] = n->command;
	t[3] = (uint8_t)n->feature;
	put_le32(t + 4, (uint32_t)(n->lba & 0xffffff) | (uint32_t)n->device << 24);
	put_le32(t + 8, (uint32_t)(n->lba >> 24) | (uint32_t)(n->feature >> 8) << 24);
	put_le16(t + 12, n->count);
	if (n->cdb)
		memcpy(t + 0x40, n->cdb, 12);
}

static void
run_slot(uint32_t p, unsigned slot, const struct ncmd *n)
{
	build(p, slot, n);
	mmw(p + 0x38, 1u << slot);
	settle();
}

static void
test_ahci_registers(void **state)
{
	assert_int_equal(mm(0x00) & 31, 3);
	assert_int_equal(mm(0x0c), 15);
	assert_int_equal(mm(0x10), 0x10301);
	assert_int_equal(mm(P0 + 0x28), 0x133);
	assert_int_equal(mm(P0 + 0x24), 0x00000101);
	assert_int_equal(mm(P1 + 0x24), 0xeb140101);
	assert_int_equal(mm(P2 + 0x28), 0);
	assert_int_equal(mm(P2 + 0x20), 0x7f);
	assert_int_equal(mm(0x100 + 31 * 0x80), 0);
	/* COMRESET */
	start_port(P0);
	mmw(P0 + 0x18, mm(P0 + 0x18) & ~1u);
	assert_int_equal(mm(P0 + 0x18) & 0x8000, 0);
	mmw(P0 + 0x2c, 0x301);
	assert_int_equal(mm(P0 + 0x28) & 15, 0);
	mmw(P0 + 0x2c, 0x300);
	assert_int_equal(mm(P0 + 0x28), 0x133);
	assert_int_equal(mm(P0 + 0x20), 0x150);
	assert_int_equal(mm(P0 + 0x30) & 1 << 26, 1 << 26);
	assert_int_equal(ram->host[FB + 0x40], 0x34);
	mmw(0x04, 1);
	assert_int_equal(mm(0x04), 0x80000000);
}

static void
test_ahci_identify(void **state)
{
	struct ncmd n = { .command = 0xec, .at = 0x200000, .len = 512 };
	const uint8_t *id = ram->host + 0x200000;
	char text[64], serial[32];
	struct block_info info;

	block_get_info(disk, &info);
	start_port(P0);
	run_slot(P0, 3, &n);
	assert_int_equal(mm(P0 + 0x38), 0);
	assert_int_equal(mm(P0 + 0x10) & 2, 2); /* PIO setup */
	assert_int_equal(mm(P0 + 0x20), 0x50);
	assert_int_equal(mm(0x08), 1);
	assert_int_equal(le32(ram->host + CLB + 3 * 32 + 4), 512);
	text_of(id, 27, 20, text);
	assert_string_equal(text, "VBOX HARDDISK");
	text_of(id, 10, 10, text);
	snprintf(serial, sizeof(serial), "VB%02x%02x%02x%02x-%x", info.uuid.b[0], info.uuid.b[1], info.uuid.b[2],
		info.uuid.b[3], le32(info.uuid.b + 12));
	assert_string_equal(text, serial);
	assert_int_equal(le16(id + 75 * 2), 31);
	assert_int_equal(le16(id + 76 * 2) & 0x100, 0x100);
	assert_int_equal(le16(id + 217 * 2), 1);
	assert_int_equal(le16(id + 93 * 2), 0);
	mmw(P0 + 0x10, 2);
	mmw(0x08, 1);
	assert_int_equal(mm(0x08), 0);
}

static void
test_ahci_dma(void **state)
{
	struct ncmd rd = { .command = 0x25, .device = 0x40, .lba = 200, .count = 1000, .at = 0x300000, .len = 512000 };
	struct ncmd wr = { .command = 0x35,
		.device = 0x40,
		.lba = 90000,
		.count = 1000,
		.write = true,
		.at = 0x300000,
		.len = 512000 };
	static uint8_t buf[512000];

	start_port(P0);
	run_slot(P0, 0, &rd);
	assert_int_equal(mm(P0 + 0x38), 0);
	assert_int_equal(mm(P0 + 0x10) & 1, 1);
	for (unsigned i = 0; i < 1000; i++)
		assert_int_equal(le64(ram->host + 0x300000 + i * 512), 200 + i);
	run_slot(P0, 1, &wr);
	assert_int_equal(mm(P0 + 0x20), 0x50);
	assert_int_equal(block_read(disk, buf, sizeof(buf), 90000 * 512), 0);
	assert_memory_equal(buf, ram->host + 0x300000, sizeof(buf));
	assert_int_equal(le32(ram->host + CLB + 32 + 4), 512000);
}

static void
test_ahci_ncq(void **state)
{
	start_port(P0);
	for (unsigned i = 0; i < 32; i++) {
		struct ncmd n = { .command = 0x60,
			.device = 0x40,
			.lba = i * 100,
			.feature = 8,
			.count = (uint16_t)(i << 3),
			.at = 0x400000 + i * 4096,
			.len = 4096 };

		build(P0, i, &n);
	}
	mmw(P0 + 0x34, 0xffffffff);
	mmw(P0 + 0x38, 0xffffffff);
	assert_int_equal(mm(P0 + 0x38), 0);
	settle();
	assert_int_equal(mm(P0 + 0x34), 0);
	assert_int_equal(mm(P0 + 0x10) & 8, 8);
	assert_int_equal(ram->host[FB + 0x58], 0xa1);
	for (unsigned i = 0; i < 32; i++)
		assert_int_equal(le64(ram->host + 0x400000 + i * 4096 + 7 * 512), i * 100 + 7);
}

static void
test_ahci_ncq_error(void **state)
{
	struct ncmd good = { .command = 0x61,
		.device = 0x40,
		.lba = 50,
		.feature = 1,
		.count = 2 << 3,
		.write = true,
		.at = 0x200000,
		.len = 512 };
	struct ncmd bad = { .command = 0x60,
		.device = 0x40,
		.lba = DISK_SIZE / 512,
		.feature = 1,
		.count = 5 << 3,
		.at = 0x200000,
		.len = 512 };
	struct ncmd log = { .command = 0x2f, .lba = 0x10, .count = 1, .at = 0x200000, .len = 512 };

	start_port(P0);
	build(P0, 5, &bad);
	build(P0, 7, &good);
	mmw(P0 + 0x34, 1 << 5 | 1 << 7);
	mmw(P0 + 0x38, 1 << 5 | 1 << 7);
	settle();
	assert_int_equal(mm(P0 + 0x10) & 1 << 30, 1 << 30);
	assert_int_equal(mm(P0 + 0x34) & 1 << 5, 1 << 5);
	assert_int_equal(mm(P0 + 0x20) & 1, 1);
	mmw(P0 + 0x18, mm(P0 + 0x18) & ~1u);
	assert_int_equal(mm(P0 + 0x34), 0);
	mmw(P0 + 0x10, 0xffffffff);
	mmw(P0 + 0x18, mm(P0 + 0x18) | 1);
	run_slot(P0, 0, &log);
	assert_int_equal(mm(P0 + 0x38), 0);
	assert_int_equal(ram->host[0x200000], 5);
	assert_int_equal(ram->host[0x200003], 0x10);
}

static void
test_ahci_packet(void **state)
{
	uint8_t inquiry[12] = { 0x12, 0, 0, 0, 36 }, read10[12] = { 0x28, 0, 0, 0, 0, 9, 0, 0, 3 },
		toc[12] = { 0x43, 2, 0, 0, 0, 0, 0, 0, 20 };
	struct ncmd n = { .command = 0xa0, .cdb = inquiry, .at = 0x200000, .len = 36 };

	start_port(P1);
	run_slot(P1, 0, &n);
	assert_memory_equal(ram->host + 0x200008, "VBOX", 4);
	/* power-on attention: an error stops the port */
	n.cdb = read10;
	n.feature = 1;
	n.len = 3 * 2048;
	run_slot(P1, 0, &n);
	assert_int_equal(mm(P1 + 0x20), 0x6451);
	assert_int_equal(mm(P1 + 0x38), 1);
	mmw(P1 + 0x18, mm(P1 + 0x18) & ~1u);
	mmw(P1 + 0x18, mm(P1 + 0x18) | 1);
	run_slot(P1, 0, &n);
	assert_int_equal(mm(P1 + 0x38), 0);
	assert_int_equal(le64(ram->host + 0x200000 + 2 * 2048), 11);
	n.cdb = toc;
	n.len = 20;
	run_slot(P1, 9, &n);
	assert_int_equal(ram->host[0x200006], 1);
	assert_int_equal(mm(P1 + 0x38), 0);
}

static void
test_ahci_bad_lists(void **state)
{
	struct ncmd n = { .command = 0x25, .device = 0x40, .lba = 0, .count = 2, .at = 0x200000, .len = 512 };

	start_port(P0);
	run_slot(P0, 0, &n); /* too short */
	assert_int_equal(mm(P0 + 0x10) & (1 << 30 | 1 << 24), 1 << 30 | 1 << 24);
	mmw(P0 + 0x18, mm(P0 + 0x18) & ~1u);
	mmw(P0 + 0x10, 0xffffffff);
	mmw(P0 + 0x18, mm(P0 + 0x18) | 1);
	n.at = 0xf0000000;
	n.len = 1024;
	run_slot(P0, 0, &n); /* no memory */
	assert_int_equal(mm(P0 + 0x10) & (1 << 30 | 1 << 29), 1 << 30 | 1 << 29);
	mmw(P0 + 0x18, mm(P0 + 0x18) & ~1u);
	mmw(P0 + 0x10, 0xffffffff);
	mmw(P0 + 0x00, 0xe0000000); /* the command list is nowhere */
	mmw(P0 + 0x18, mm(P0 + 0x18) | 1);
	mmw(P0 + 0x38, 1);
	settle();
	assert_int_equal(mm(P0 + 0x10) & 1 << 29, 1 << 29);
	mmw(P0 + 0x18, mm(P0 + 0x18) & ~1u);
	assert_int_equal(mm(P0 + 0x38), 0);
	mmw(P0 + 0x38, 1); /* not running: ignored */
	assert_int_equal(mm(P0 + 0x38), 0);
}

static void
test_ahci_stop_in_flight(void **state)
{
	struct ncmd n = { .command = 0x25, .device = 0x40, .lba = 0, .count = 4000, .at = 0x400000, .len = 4000 * 512 };

	start_port(P0);
	build(P0, 0, &n);
	mmw(P0 + 0x38, 1);
	mmw(P0 + 0x18, mm(P0 + 0x18) & ~1u);
	mmw(P0 + 0x2c, 1);
	mmw(P0 + 0x2c, 0);
	for (int i = 0; i < 1000 && mm(P0 + 0x18) & 0x8000; i++)
		settle();
	assert_int_equal(mm(P0 + 0x18) & 0x8000, 0);
	assert_int_equal(mm(P0 + 0x28), 0x133);
	start_port(P0);
	build(P0, 0, &n);
	mmw(P0 + 0x38, 1);
	mmw(0x04, 1);
	for (int i = 0; i < 1000 && mm(0x04) & 1; i++)
		settle();
	assert_int_equal(mm(0x04), 0x80000000);
	start_port(P0);
	run_slot(P0, 0, &n);
	assert_int_equal(le64(ram->host + 0x400000 + 3999 * 512), 3999);
}

static void
test_ahci_soft_reset(void **state)
{
	struct ncmd n = { 0 };
	uint8_t *t = ram->host + TABLE;

	start_port(P0);
	build(P0, 0, &n);
	t[1] = 0;
	t[15] = 4;
	mmw(P0 + 0x38, 1);
	assert_int_equal(mm(P0 + 0x38), 0);
	assert_int_equal(mm(P0 + 0x20) & 0x80, 0x80);
	t[15] = 0;
	mmw(P0 + 0x38, 1);
	assert_int_equal(mm(P0 + 0x20), 0x150);
	assert_int_equal(mm(P0 + 0x24), 0x101);
}

static void
test_ahci_hot_plug(void **state)
{
	struct drive_config cfg = { .block = disc2, .cdrom = true };
	struct ncmd n = { .command = 0xa1, .at = 0x200000, .len = 512 };
	struct err e;

	start_port(P2);
	assert_int_equal(ahci_attach(ahci, 2, &cfg, &e), 0);
	assert_int_equal(mm(P2 + 0x28), 0x133);
	assert_int_equal(mm(P2 + 0x10) & 1 << 6, 1 << 6);
	assert_int_equal(mm(0x08), 4);
	mmw(P2 + 0x30, 0xffffffff);
	assert_int_equal(mm(P2 + 0x10), 0);
	run_slot(P2, 0, &n);
	assert_int_equal(le16(ram->host + 0x200000), 0x85c0);
	assert_int_equal(ahci_attach(ahci, 2, &cfg, &e), -1);
	assert_int_equal(ahci_attach(ahci, 4, &cfg, &e), -1);
	build(P2, 0, &n);
	mmw(P2 + 0x38, 1);
	assert_int_equal(ahci_detach(ahci, 2), 0);
	assert_int_equal(mm(P2 + 0x28), 0);
	assert_int_equal(mm(P2 + 0x10) & 1 << 22, 1 << 22);
	assert_int_equal(ahci_detach(ahci, 2), -ENOENT);
}

static void
test_ahci_messages(void **state)
{
	struct ncmd n = { .command = 0xe7 };

	unsigned cap = pci_config_read(&m.pci, 5 << 3, 0x34, 1);

	assert_int_equal(pci_config_read(&m.pci, 5 << 3, cap, 1), 5);
	pci_config_write(&m.pci, 5 << 3, cap + 4, 0xfee00000, 4);
	pci_config_write(&m.pci, 5 << 3, cap + 2, 0x81, 2);
	start_port(P0);
	messages = 0;
	run_slot(P0, 0, &n);
	assert_int_equal(messages, 1);
	/* the handler clears the port's cause and the controller's bit; the next command tells again */
	mmw(P0 + 0x10, mm(P0 + 0x10));
	mmw(0x08, mm(0x08));
	run_slot(P0, 0, &n);
	assert_int_equal(messages, 2);
	mmw(0x08, mm(0x08)); /* the cause is still there */
	assert_int_equal(messages, 3);
}

static void
test_ahci_saved(void **state)
{
	struct ncmd n = { .command = 0x25, .device = 0x40, .lba = 40, .count = 2, .at = 0x200000, .len = 1024 };

	start_port(P0);
	build(P0, 0, &n);
	mmw(P0 + 0x38, 1);
	save_and_load(ahci);
	assert_int_equal(mm(P0 + 0x38), 0);
	assert_int_equal(mm(P0 + 0x10) & 1, 1);
	assert_int_equal(mm(0x08), 1);
	assert_int_equal(mm(P0 + 0x18) & 0xc011, 0xc011);
	run_slot(P0, 4, &n);
	assert_int_equal(le64(ram->host + 0x200200), 41);
}

int
main(void)
{
	static int on_ide = 0, on_ahci = 1;
	const struct CMUnitTest tests[] = {
		{ "a disk on IDE identifies itself, and so does a CD-ROM drive", test_ide_identify, set_up, tear_down,
			&on_ide },
		{ "sectors are read and written through the data port", test_ide_pio, set_up, tear_down, &on_ide },
		{ "READ MULTIPLE moves blocks of several sectors", test_ide_multiple, set_up, tear_down, &on_ide },
		{ "cylinder, head and sector find the right place", test_ide_chs, set_up, tear_down, &on_ide },
		{ "the bus master moves data both ways", test_ide_dma, set_up, tear_down, &on_ide },
		{ "a PRD table of many odd pieces works", test_ide_many_prds, set_up, tear_down, &on_ide },
		{ "bad PRDs and addresses are the guest's errors", test_ide_bad_prds, set_up, tear_down, &on_ide },
		{ "a reset in the middle of a transfer ends it", test_ide_reset_in_flight, set_up, tear_down, &on_ide },
		{ "TRIM gives zeroes back", test_ide_trim, set_up, tear_down, &on_ide },
		{ "features, SMART and power modes are kept", test_ide_features, set_up, tear_down, &on_ide },
		{ "a save in the middle of a transfer is not noticed", test_ide_saved, set_up, tear_down, &on_ide },
		{ "a CD is read through the data port", test_cd_read, set_up, tear_down, &on_ide },
		{ "a CD is read by DMA", test_cd_dma, set_up, tear_down, &on_ide },
		{ "a CD has a table of contents", test_cd_toc, set_up, tear_down, &on_ide },
		{ "a CD-ROM drive tells what it can do", test_cd_other_commands, set_up, tear_down, &on_ide },
		{ "a disc is changed, locked and ejected", test_cd_change, set_up, tear_down, &on_ide },
		{ "a disc that is taken out during a read is an error", test_cd_removed_while_read, set_up, tear_down,
			&on_ide },
		{ "AHCI's registers say what is there, and resets work", test_ahci_registers, set_up, tear_down,
			&on_ahci },
		{ "a disk on AHCI identifies itself", test_ahci_identify, set_up, tear_down, &on_ahci },
		{ "AHCI moves data both ways", test_ahci_dma, set_up, tear_down, &on_ahci },
		{ "32 queued commands run side by side", test_ahci_ncq, set_up, tear_down, &on_ahci },
		{ "a queued command that fails is in the log", test_ahci_ncq_error, set_up, tear_down, &on_ahci },
		{ "packet commands work on AHCI", test_ahci_packet, set_up, tear_down, &on_ahci },
		{ "bad lists are the guest's errors", test_ahci_bad_lists, set_up, tear_down, &on_ahci },
		{ "a port is stopped and reset in the middle of a transfer", test_ahci_stop_in_flight, set_up,
			tear_down, &on_ahci },
		{ "a soft reset brings the signature", test_ahci_soft_reset, set_up, tear_down, &on_ahci },
		{ "drives are plugged and unplugged at run time", test_ahci_hot_plug, set_up, tear_down, &on_ahci },
		{ "AHCI goes on behind a save and a load", test_ahci_saved, set_up, tear_down, &on_ahci },
		{ "every new cause is a message", test_ahci_messages, set_up, tear_down, &on_ahci },
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
