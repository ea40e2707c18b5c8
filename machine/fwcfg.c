/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Items are selected by a 16-bit key and read byte by byte, or by DMA:
 *
 *	0x510 (2)  write: select an item, and go to its first byte
 *	0x511 (1)  read: the next byte of the item; zero behind its end
 *	0x514 (8)  big-endian: the guest address of a DMA command; writing the lower half (0x518) starts it.
 *	           Reads "QEMU CFG".
 *
 * A DMA command is 16 bytes, big-endian: control (4), length (4), address (8). Control: 1 error, 2 read, 4 skip,
 * 8 select the item in bits 16-31, 16 write. When the command is done its control word is written back: 0, or 1 after
 * an error. Items cannot be written here: nothing in this machine has a writable one.
 *
 * Files are items from 0x20 on, listed by name in item 0x19: count (4, big-endian), then for each size (4), key (2),
 * reserved (2), name (56).
 *
 * Bounds: a command moves at most as much as the item still has; what a guest asks for beyond is zero-filled page by
 * page and stops at the first byte that is not memory.
 */
#include "machine/fwcfg.h"
#include "base/bytes.h"

#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/str.h"

#define PORT_SELECT 0x510
#define PORT_DMA 0x514

struct item {
	uint8_t *data;
	uint32_t len;
};

struct file_entry {
	char name[56];
	unsigned key;
};

struct fwcfg {
	struct device dev;
	struct item items[2][FWCFG_ITEMS]; /* [1]: keys with bit 15 */
	struct file_entry files[FWCFG_ITEMS - FWCFG_FILE_FIRST];
	uint32_t file_count;

	uint16_t key;
	uint32_t pos;
	uint32_t dma_high;
};

enum dma_control { DMA_ERROR = 1, DMA_READ = 2, DMA_SKIP = 4, DMA_SELECT = 8, DMA_WRITE = 16 };

static struct item *
find_item(struct fwcfg *f, unsigned key)
{
	unsigned n = key & 0x3fff; /* bit 14 asks for writing, which nothing supports */

	return n < FWCFG_ITEMS ? &f->items[key >> 15 & 1][n] : NULL;
}

static void
select_item(struct fwcfg *f, uint16_t key)
{
	f->key = key;
	f->pos = 0;
}

/* How many bytes the selected item has from the current position on; *data to them. */
static uint32_t
rest_of_item(struct fwcfg *f, const uint8_t **data)
{
	struct item *i = find_item(f, f->key);

	if (!i || !i->data || f->pos >= i->len)
		return 0;
	*data = i->data + f->pos;
	return i->len - f->pos;
}

static uint64_t
select_read(void *opaque, uint64_t off, unsigned size)
{
	struct fwcfg *f = opaque;
	const uint8_t *data;
	uint64_t value = 0;

	if (off == 0)
		return f->key;
	if (rest_of_item(f, &data)) {
		value = *data;
		f->pos++;
	}
	return value;
}

static void
select_write(void *opaque, uint64_t off, uint64_t value, unsigned size)
{
	if (off == 0 && size == 2)
		select_item(opaque, (uint16_t)value);
}

static const struct bus_ops select_ops = { .read = select_read, .write = select_write, .max_size = 2 };

/* Move `len` bytes of the item to guest memory; zeroes behind its end. */
static bool
dma_read(struct fwcfg *f, gpa_t to, uint32_t len)
{
	static const uint8_t zeroes[PAGE_SIZE];

	while (len) {
		const uint8_t *data = zeroes;
		uint32_t have = rest_of_item(f, &data);
		uint32_t n = MIN(len, (uint32_t)PAGE_SIZE);

		if (have)
			n = MIN(n, have);
		if (!mem_write(&f->dev.m->mem, to, data, n))
			return false;
		f->pos += have ? n : 0;
		to += n;
		len -= n;
	}
	return true;
}

static bool
dma_command(struct fwcfg *f, uint32_t control, uint32_t len, gpa_t address)
{
	const uint8_t *data;

	if (control & DMA_SELECT)
		select_item(f, (uint16_t)(control >> 16));
	if (control & DMA_READ)
		return dma_read(f, address, len);
	if (control & DMA_WRITE)
		return false;
	if (control & DMA_SKIP)
		f->pos += MIN(len, rest_of_item(f, &data));
	return true;
}

static void
dma_start(struct fwcfg *f, gpa_t command)
{
	uint32_t words[4], done;

	if (!mem_read(&f->dev.m->mem, command, words, sizeof(words))) {
		log_guest(
			f->dev.m->name, "fw_cfg: DMA command at 0x%llx is not in memory", (unsigned long long)command);
		return;
	}
	done = dma_command(f, __builtin_bswap32(words[0]), __builtin_bswap32(words[1]),
		       (gpa_t)__builtin_bswap32(words[2]) << 32 | __builtin_bswap32(words[3]))
		       ? 0
		       : __builtin_bswap32(DMA_ERROR);
	mem_write(&f->dev.m->mem, command, &done, sizeof(done));
}

static uint64_t
dma_port_read(void *opaque, uint64_t off, unsigned size)
{
	return off == 0 ? __builtin_bswap32(0x51454d55) : __builtin_bswap32(0x20434647); /* "QEMU", " CFG" */
}

static void
dma_port_write(void *opaque, uint64_t off, uint64_t value, unsigned size)
{
	struct fwcfg *f = opaque;
	uint32_t half = __builtin_bswap32((uint32_t)value);

	if (off == 0) {
		f->dma_high = half;
		return;
	}
	dma_start(f, (gpa_t)f->dma_high << 32 | half);
	f->dma_high = 0;
}

static const struct bus_ops dma_ops = { .read = dma_port_read, .write = dma_port_write, .min_size = 4, .max_size = 4 };

static void
reset(struct device *d)
{
	struct fwcfg *f = container_of(d, struct fwcfg, dev);

	select_item(f, 0);
	f->dma_high = 0;
}

static void
destroy(struct device *d)
{
	struct fwcfg *f = container_of(d, struct fwcfg, dev);

	for (unsigned bank = 0; bank < 2; bank++)
		for (unsigned i = 0; i < FWCFG_ITEMS; i++)
			free(f->items[bank][i].data);
	free(f);
}

static const struct field fields[] = {
	FIELD(struct fwcfg, key),
	FIELD(struct fwcfg, pos),
	FIELD(struct fwcfg, dma_high),
	FIELD_END,
};

static const struct dev_class fwcfg_class = {
	.name = "fwcfg",
	.fields = fields,
	.reset = reset,
	.destroy = destroy,
};

struct fwcfg *
fwcfg_create(struct machine *m)
{
	struct fwcfg *f = xcalloc(1, sizeof(*f));

	device_add(m, &f->dev, &fwcfg_class);
	io_add(&m->io, PORT_SELECT, 2, &select_ops, f);
	io_add(&m->io, PORT_DMA, 8, &dma_ops, f);
	fwcfg_add(f, FWCFG_SIGNATURE, "QEMU", 4);
	fwcfg_add_int(f, FWCFG_ID, 1 | 2, 4); /* by port and by DMA */
	return f;
}

void
fwcfg_add(struct fwcfg *f, unsigned key, const void *data, size_t len)
{
	struct item *i = find_item(f, key);

	free(i->data);
	i->data = xcalloc(len ? len : 1, 1);
	memcpy(i->data, data, len);
	i->len = (uint32_t)len;
}

void
fwcfg_add_int(struct fwcfg *f, unsigned key, uint64_t value, unsigned size)
{
	uint8_t bytes[8];

	put_le64(bytes, value);
	fwcfg_add(f, key, bytes, size);
}

static void
update_directory(struct fwcfg *f)
{
	uint8_t dir[4 + 64 * ARRAY_LEN(f->files)] = { 0 };
	uint8_t *p = dir + 4;
	uint32_t count = __builtin_bswap32(f->file_count);

	memcpy(dir, &count, 4);
	for (uint32_t i = 0; i < f->file_count; i++, p += 64) {
		uint32_t size = __builtin_bswap32(find_item(f, f->files[i].key)->len);
		uint16_t key = __builtin_bswap16((uint16_t)f->files[i].key);

		memcpy(p, &size, 4);
		memcpy(p + 4, &key, 2);
		memcpy(p + 8, f->files[i].name, 56);
	}
	fwcfg_add(f, FWCFG_FILE_DIR, dir, (size_t)(p - dir));
}

void
fwcfg_add_file(struct fwcfg *f, const char *name, const void *data, size_t len)
{
	struct file_entry *e = NULL;

	for (uint32_t i = 0; i < f->file_count; i++)
		if (!strcmp(f->files[i].name, name))
			e = &f->files[i];
	if (!e) {
		if (f->file_count == ARRAY_LEN(f->files) || strlen(name) >= sizeof(e->name))
			return;
		e = &f->files[f->file_count];
		memcpy(e->name, name, strlen(name) + 1);
		e->key = FWCFG_FILE_FIRST + f->file_count++;
	}
	fwcfg_add(f, e->key, data, len);
	update_directory(f);
}
