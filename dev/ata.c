/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The drive behind a controller: ATA commands of a disk, and the movement of data for disks and CD-ROM drives alike.
 * (ATA8-ACS, T13/1699; ATA/ATAPI-7 for what PATA needs.) See ata.h for the states of a command.
 *
 * commands[] is the list of what there is; everything else is aborted. A command that moves data ends up in
 * ata_move_medium() or ata_move_buffer() and goes one of two ways:
 *
 * - DMA: pass after pass, as much of the scatter list as an iovec holds is turned into host pointers and handed to the
 *   image as one request, so data is copied once, by the kernel, between the image and guest memory.
 * - PIO: up to 64 KiB of the medium are read ahead into the drive's buffer (or gathered there before they are written),
 *   and the host moves them block by block.
 *
 * The write cache is the host's page cache: FLUSH is a flush of the image. With the cache switched off, or for FUA
 * commands, a flush follows each write before it is reported as done.
 */
#include "dev/ata.h"
#include "base/bytes.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"

enum {
	DISK = 1,   /* for disks */
	PACKET = 2, /* for CD-ROM drives */
	EXT = 4,    /* 48-bit address and 16-bit count */
	DMA = 8,
	MULTI = 16, /* DRQ blocks of several sectors */
	WRITE = 32,
	FUA = 64,
};

struct command {
	void (*start)(struct ata_cmd *c, unsigned flags);
	uint8_t flags;
};

/* ---- the end of a command ---- */

static void
finish(struct ata_cmd *c, uint8_t status, uint8_t error, bool interrupt)
{
	c->phase = ATA_IDLE;
	c->tf.status = status;
	c->tf.error = error;
	c->drive->link->done(c, interrupt);
}

void
ata_done(struct ata_cmd *c)
{
	finish(c, ATA_DRDY | ATA_DSC, 0, true);
}

void
ata_fail(struct ata_cmd *c, uint8_t error)
{
	finish(c, ATA_DRDY | ATA_DSC | ATA_ERR, error, true);
}

static void
io_error(struct ata_cmd *c, int result)
{
	struct ata_drive *d = c->drive;

	log_guest(d->who, "%s at sector %llu failed: %s", c->dir == ATA_IN ? "reading" : "writing",
		(unsigned long long)(c->off / ATA_SECTOR), strerror(-result));
	if (d->cdrom) {
		atapi_io_error(c, result);
		return;
	}
	if (ata_is_queued(c->tf.command)) {
		d->s.ncq_failed = 1;
		d->s.ncq_tag = c->tf.count >> 3 & 31;
		d->s.ncq_lba = c->off / ATA_SECTOR;
		d->s.ncq_status = ATA_DRDY | ATA_ERR;
		d->s.ncq_error = c->dir == ATA_IN ? ATA_UNC : ATA_ABRT;
	}
	c->tf.lba = c->off / ATA_SECTOR;
	ata_fail(c, c->dir == ATA_IN ? ATA_UNC : ATA_ABRT);
}

/* ---- requests to the image ---- */

static void
unmap(struct ata_cmd *c)
{
	for (int i = 0; i < c->ranges; i++)
		mem_unmap(&c->drive->m->mem, c->at[i], c->iov[i].iov_len, c->dir == ATA_IN);
	c->ranges = 0;
}

static void
request_done(struct block_req *r, int result)
{
	struct ata_cmd *c = container_of(r, struct ata_cmd, req);

	unmap(c);
	if (c->cancel) {
		c->cancel = 0;
		c->phase = ATA_IDLE;
		c->drive->link->cancelled(c);
		return;
	}
	c->then(c, result);
}

static void
submit(struct ata_cmd *c, enum block_op op, uint64_t off, uint64_t len, int iovcnt, void (*then)(struct ata_cmd *, int))
{
	c->phase = ATA_DISK;
	c->then = then;
	if (!c->drive->block) { /* the disc was taken out between two blocks of a PIO read */
		unmap(c);
		then(c, -ENOMEDIUM);
		return;
	}
	c->req = (struct block_req){
		.op = op, .off = off, .len = len, .iov = c->iov, .iovcnt = iovcnt, .done = request_done
	};
	block_submit(c->drive->block, &c->req);
}

/* A request over the drive's buffer. */
static void
submit_buffer(struct ata_cmd *c, enum block_op op, uint32_t len, void (*then)(struct ata_cmd *, int))
{
	c->iov[0] = (struct iovec){ c->drive->buf, len };
	c->ranges = 0;
	submit(c, op, c->off, len, 1, then);
}

void
ata_cancel(struct ata_cmd *c)
{
	if (c->phase == ATA_DISK) {
		c->cancel = 1; /* the request cannot be called back: request_done() sees this */
		return;
	}
	c->phase = ATA_IDLE;
	c->drive->link->cancelled(c);
}

/* ---- all data was moved ---- */

static void
flushed(struct ata_cmd *c, int result)
{
	if (result)
		io_error(c, result);
	else
		ata_done(c);
}

static void trim(struct ata_cmd *c);

static void
end_of_data(struct ata_cmd *c)
{
	switch ((enum ata_step)c->step) {
	case ATA_STEP_DSM:
		trim(c);
		return;
	case ATA_STEP_PACKET:
		atapi_packet(c);
		return;
	case ATA_STEP_MODE_SELECT:
		atapi_mode_select(c);
		return;
	case ATA_STEP_END:
		break;
	}
	if (c->media && c->dir == ATA_OUT && (c->fua || !c->drive->s.write_cache)) {
		submit(c, BLOCK_FLUSH, 0, 0, 0, flushed);
		return;
	}
	if (c->tf.command == 0xa0)
		c->tf.count = ATAPI_COD | ATAPI_IO;
	/* After the last block of a PIO read the host has all it wanted: no interrupt (ATA/ATAPI-7 volume 2, PIO
	 * data-in). */
	finish(c, ATA_DRDY | ATA_DSC, 0, !c->pio || c->dir == ATA_OUT || c->tf.command == 0xa0);
}

/* ---- DMA ---- */

/* The part of [at, at+len) that lies in one stretch of memory. */
static uint32_t
clip(struct mem *m, gpa_t at, uint32_t len)
{
	struct mem_section s;

	if (!mem_find(m, at, &s))
		return 0;
	return (uint32_t)MIN((uint64_t)len - 1, s.last - at) + 1;
}

/* Map from the cursor on, at most `want` bytes; returns how many. *bad: an entry names no memory. */
static uint32_t
map_list(struct ata_cmd *c, uint32_t want, bool *bad)
{
	struct mem *mem = &c->drive->m->mem;
	uint32_t total = 0, len;
	gpa_t at;

	while (total < want && c->ranges < BLOCK_IOV_MAX && c->drive->link->sg(c, c->sg_index, &at, &len)) {
		uint32_t n;
		void *p;

		if (c->sg_off >= len) {
			c->sg_index++;
			c->sg_off = 0;
			continue;
		}
		n = clip(mem, at + c->sg_off, MIN(len - c->sg_off, want - total));
		p = n ? mem_map(mem, at + c->sg_off, n, c->dir == ATA_IN) : NULL;
		if (!p) {
			*bad = true;
			break;
		}
		c->at[c->ranges] = at + c->sg_off;
		c->iov[c->ranges++] = (struct iovec){ p, n };
		c->sg_off += n;
		total += n;
	}
	return total;
}

/* As map_list(), but only whole sectors. 256 entries of at least 2 bytes always hold one. */
static uint32_t
map_sectors(struct ata_cmd *c, uint32_t want, bool *bad)
{
	uint32_t index = c->sg_index, off = c->sg_off, n;

	*bad = false;
	n = map_list(c, want, bad);
	if (n % ATA_SECTOR == 0)
		return n;
	unmap(c);
	c->sg_index = index;
	c->sg_off = off;
	return n < ATA_SECTOR ? 0 : map_list(c, n - n % ATA_SECTOR, bad);
}

static void medium_pass(struct ata_cmd *c);

static void
medium_pass_done(struct ata_cmd *c, int result)
{
	if (result) {
		io_error(c, result);
		return;
	}
	c->off += c->mapped;
	c->left -= c->mapped;
	c->moved += c->mapped;
	if (c->left)
		medium_pass(c);
	else
		end_of_data(c);
}

static void
medium_pass(struct ata_cmd *c)
{
	bool bad;

	c->mapped = map_sectors(c, c->left, &bad);
	if (!c->mapped) {
		c->phase = ATA_DMA_WAIT;
		c->drive->link->dma_error(c, bad);
		return;
	}
	submit(c, c->dir == ATA_IN ? BLOCK_READ : BLOCK_WRITE, c->off, 0, c->ranges, medium_pass_done);
}

/* Copy between the drive's buffer and the scatter list; false: an entry names no memory. */
static bool
copy_list(struct ata_cmd *c)
{
	struct mem *mem = &c->drive->m->mem;
	uint8_t *p = c->drive->buf;
	uint32_t left = c->buf_len, len;
	gpa_t at;

	while (left && c->drive->link->sg(c, c->sg_index, &at, &len)) {
		uint32_t n = MIN(left, len);

		if (c->dir == ATA_IN ? !mem_write(mem, at, p, n) : !mem_read(mem, at, p, n))
			return false;
		p += n;
		left -= n;
		c->moved += n;
		c->sg_index++;
	}
	return true;
}

void
ata_dma_go(struct ata_cmd *c)
{
	if (c->phase != ATA_DMA_WAIT)
		return;
	if (c->media) {
		medium_pass(c);
		return;
	}
	if (c->dir == ATA_OUT)
		memset(c->drive->buf, 0, c->buf_len);
	if (copy_list(c))
		end_of_data(c);
	else
		c->drive->link->dma_error(c, true);
}

/* ---- PIO ---- */

static void
offer_block(struct ata_cmd *c)
{
	bool interrupt = c->dir == ATA_IN || !c->first;

	/* The packet of a packet command is asked for without, its data always with an interrupt. */
	if (c->tf.command == 0xa0)
		interrupt = c->step != ATA_STEP_PACKET;
	c->first = 0;
	c->drq_len = MIN(c->chunk, c->buf_len - c->buf_pos);
	c->phase = ATA_DRQ_WAIT;
	c->drive->link->drq(c, interrupt);
}

static void
read_ahead_done(struct ata_cmd *c, int result)
{
	if (result) {
		io_error(c, result);
		return;
	}
	c->off += c->buf_len;
	offer_block(c);
}

static void
pio_in(struct ata_cmd *c)
{
	if (c->buf_pos < c->buf_len) {
		offer_block(c);
	} else if (c->left) {
		c->buf_pos = 0;
		c->buf_len = MIN(c->left, ATA_BUF);
		c->left -= c->buf_len;
		submit_buffer(c, BLOCK_READ, c->buf_len, read_ahead_done);
	} else {
		end_of_data(c);
	}
}

static void
gather(struct ata_cmd *c)
{
	c->buf_pos = 0;
	c->buf_len = MIN(c->left, ATA_BUF);
	c->left -= c->buf_len;
	offer_block(c);
}

static void
gathered_written(struct ata_cmd *c, int result)
{
	if (result) {
		io_error(c, result);
		return;
	}
	c->off += c->buf_len;
	if (c->left)
		gather(c);
	else
		end_of_data(c);
}

static void
pio_out(struct ata_cmd *c)
{
	if (c->buf_pos < c->buf_len)
		offer_block(c);
	else if (c->media)
		submit_buffer(c, BLOCK_WRITE, c->buf_len, gathered_written);
	else
		end_of_data(c);
}

uint8_t *
ata_drq_data(struct ata_cmd *c)
{
	return c->drive->buf + c->buf_pos;
}

void
ata_drq_done(struct ata_cmd *c)
{
	c->buf_pos += c->drq_len;
	if (c->dir == ATA_IN)
		pio_in(c);
	else
		pio_out(c);
}

/* ---- the two ways to begin ---- */

static void
begin(struct ata_cmd *c, enum ata_dir dir, uint32_t chunk, enum ata_step step)
{
	c->dir = dir;
	c->chunk = chunk;
	c->step = step;
	c->first = 1;
	c->buf_pos = 0;
	c->sg_index = c->sg_off = c->moved = 0;
	c->ranges = 0;
}

void
ata_move_buffer(struct ata_cmd *c, enum ata_dir dir, uint32_t len, uint32_t chunk, enum ata_step step)
{
	begin(c, dir, chunk, step);
	c->media = 0;
	c->left = 0;
	c->buf_len = len;
	if (c->pio) {
		offer_block(c);
	} else {
		c->phase = ATA_DMA_WAIT;
		c->drive->link->dma_wait(c);
	}
}

void
ata_move_medium(struct ata_cmd *c, enum ata_dir dir, uint64_t off, uint32_t len, uint32_t chunk)
{
	begin(c, dir, chunk, ATA_STEP_END);
	c->media = 1;
	c->off = off;
	c->left = len;
	c->buf_len = 0;
	if (!c->pio) {
		c->phase = ATA_DMA_WAIT;
		c->drive->link->dma_wait(c);
	} else if (dir == ATA_IN) {
		pio_in(c);
	} else {
		gather(c);
	}
}

/* ---- reading and writing ---- */

static uint64_t
address(const struct ata_cmd *c, unsigned flags)
{
	const struct ata_drive *d = c->drive;
	uint32_t low = (uint32_t)(c->tf.lba & 0xffffff), cylinder = low >> 8, head = c->tf.device & 15;

	if (flags & EXT)
		return c->tf.lba;
	if (c->tf.device & 0x40)
		return low | (uint64_t)head << 24;
	if ((low & 0xff) == 0)
		return UINT64_MAX; /* there is no sector 0 */
	return ((uint64_t)cylinder * d->s.heads + head) * d->s.spt + (low & 0xff) - 1;
}

static uint32_t
sector_count(const struct ata_cmd *c, unsigned flags)
{
	if (flags & EXT)
		return c->tf.count ? c->tf.count : 65536;
	return c->tf.count & 0xff ? c->tf.count & 0xff : 256;
}

/* False, and the command failed: the sectors are not all on the disk. */
static bool
check_range(struct ata_cmd *c, uint64_t lba, uint32_t count)
{
	if (count <= c->drive->sectors && lba <= c->drive->sectors - count)
		return true;
	log_guest(c->drive->who, "command %02x: sector %llu + %u is past the end", c->tf.command,
		(unsigned long long)lba, count);
	ata_fail(c, ATA_IDNF);
	return false;
}

static void
read_write(struct ata_cmd *c, unsigned flags)
{
	uint64_t lba = address(c, flags);
	uint32_t count = sector_count(c, flags), chunk = ATA_SECTOR;

	if (!check_range(c, lba, count))
		return;
	if (flags & MULTI) {
		if (!c->drive->s.multiple) {
			ata_fail(c, ATA_ABRT);
			return;
		}
		chunk *= c->drive->s.multiple;
	}
	c->pio = c->drive->link->pio && !(flags & DMA);
	c->fua = flags & FUA ? 1 : 0;
	ata_move_medium(c, flags & WRITE ? ATA_OUT : ATA_IN, lba * ATA_SECTOR, count * ATA_SECTOR, chunk);
}

/* READ/WRITE FPDMA QUEUED: the count is in the feature register, the tag in count 7:3, FUA in device bit 7. */
static void
queued(struct ata_cmd *c, unsigned flags)
{
	uint32_t count = c->tf.feature ? c->tf.feature : 65536;

	if (!c->drive->link->sata) {
		ata_fail(c, ATA_ABRT);
		return;
	}
	if (c->tf.lba >= c->drive->sectors || count > c->drive->sectors - c->tf.lba) {
		c->drive->s.ncq_failed = 1;
		c->drive->s.ncq_tag = c->tf.count >> 3 & 31;
		c->drive->s.ncq_lba = c->tf.lba;
		c->drive->s.ncq_status = ATA_DRDY | ATA_ERR;
		c->drive->s.ncq_error = ATA_IDNF;
		ata_fail(c, ATA_IDNF);
		return;
	}
	c->pio = 0;
	c->fua = c->tf.device >> 7;
	ata_move_medium(c, flags & WRITE ? ATA_OUT : ATA_IN, c->tf.lba * ATA_SECTOR, count * ATA_SECTOR, ATA_SECTOR);
}

static void
verify(struct ata_cmd *c, unsigned flags)
{
	if (check_range(c, address(c, flags), sector_count(c, flags)))
		ata_done(c);
}

static void
flush(struct ata_cmd *c, unsigned flags)
{
	c->dir = ATA_OUT;
	c->off = 0;
	c->ranges = 0;
	if (c->drive->block)
		submit(c, BLOCK_FLUSH, 0, 0, 0, flushed);
	else
		ata_done(c);
}

/* ---- DATA SET MANAGEMENT (ATA8-ACS 7.5): ranges of 6 bytes of LBA and 2 of length, 64 in a block ---- */

#define DSM_BLOCKS_MAX (ATA_BUF / 512)

static void
data_set_management(struct ata_cmd *c, unsigned flags)
{
	uint32_t blocks = c->tf.count;

	if (!c->drive->discard || !(c->tf.feature & 1) || !blocks || blocks > DSM_BLOCKS_MAX) {
		ata_fail(c, ATA_ABRT);
		return;
	}
	c->pio = 0;
	ata_move_buffer(c, ATA_OUT, blocks * 512, 512, ATA_STEP_DSM);
}

static void
trimmed(struct ata_cmd *c, int result)
{
	if (result)
		io_error(c, result);
	else
		trim(c);
}

/* The next range; buf_pos is the cursor over them. */
static void
trim(struct ata_cmd *c)
{
	while (c->buf_pos < c->buf_len) {
		uint64_t range = le64(c->drive->buf + c->buf_pos), lba = range & 0xffffffffffff, count = range >> 48;

		c->buf_pos += 8;
		if (!count)
			continue;
		if (!check_range(c, lba, (uint32_t)count))
			return;
		c->off = lba * ATA_SECTOR;
		submit(c, BLOCK_DISCARD, c->off, count * ATA_SECTOR, 0, trimmed);
		return;
	}
	ata_done(c);
}

/* ---- IDENTIFY ---- */

void
ata_identify_text(uint8_t *id, int word, int words, const char *text)
{
	size_t len = strlen(text);

	for (size_t i = 0; i < (size_t)words * 2; i++)
		id[word * 2 + (int)(i ^ 1)] = (uint8_t)(i < len ? text[i] : ' ');
}

static void
put_word(uint8_t *id, int word, uint64_t value)
{
	put_le16(id + 2 * word, (uint16_t)value);
}

static void
identify_geometry(const struct ata_drive *d, uint8_t *id)
{
	uint32_t track = (uint32_t)d->s.heads * d->s.spt;
	uint32_t cylinders = track ? (uint32_t)MIN(d->sectors / track, 16383) : 0, capacity = cylinders * track;
	uint32_t lba28 = (uint32_t)MIN(d->sectors, 0x0fffffff);

	put_word(id, 1, d->cylinders);
	put_word(id, 3, 16);
	put_word(id, 6, 63);
	put_word(id, 54, cylinders);
	put_word(id, 55, d->s.heads);
	put_word(id, 56, d->s.spt);
	put_le32(id + 57 * 2, capacity);
	put_le32(id + 60 * 2, lba28);
	put_le64(id + 100 * 2, d->sectors);
}

/* Words that disks and CD-ROM drives have in common: modes, power, texts. */
static void
identify_common(struct ata_drive *d, uint8_t *id)
{
	uint8_t mode = d->s.dma_mode;

	ata_identify_text(id, 10, 10, d->serial);
	ata_identify_text(id, 23, 4, d->firmware);
	ata_identify_text(id, 27, 20, d->model);
	put_word(id, 49, 0x0f00); /* LBA, DMA, IORDY */
	put_word(id, 53, 0x0007);
	put_word(id, 63, 0x0007u | (mode >= 0x20 && mode < 0x40 ? 0x100u << (mode & 7) : 0));
	put_word(id, 64, 0x0003); /* PIO modes 3, 4 */
	for (int word = 65; word <= 68; word++)
		put_word(id, word, 120);
	put_word(id, 80, 0x01f0); /* ATA/ATAPI-4 to ATA8-ACS */
	put_word(id, 88, 0x003fu | (mode >= 0x40 ? 0x100u << (mode & 7) : 0));
	if (!d->link->sata) {
		put_word(id, 93, 0x6001); /* 80-conductor cable, device 0 passed its diagnostic */
		return;
	}
	put_word(id, 76, 0x000e | (d->cdrom ? 0 : 0x0100)); /* 1.5, 3, 6 Gb/s; queued commands */
	put_word(id, 222, 0x101f);			    /* a serial transport */
}

static void
identify_features(const struct ata_drive *d, uint8_t *id)
{
	uint16_t w82 = 0x4069, w83 = 0x7400,
		 w84 = 0x4060; /* NOP, cache, look-ahead, power, SMART; flushes, LBA48; FUA, GPL */
	uint16_t off = (uint16_t)((d->s.write_cache ? 0 : 0x20) | (d->s.read_ahead ? 0 : 0x40) | (d->s.smart ? 0 : 1));

	put_word(id, 82, w82);
	put_word(id, 83, w83);
	put_word(id, 84, w84);
	put_word(id, 85, w82 & ~off);
	put_word(id, 86, w83 & 0x3fff);
	put_word(id, 87, w84);
}

static void
identify_disk(struct ata_drive *d, uint8_t *id)
{
	identify_common(d, id);
	identify_geometry(d, id);
	identify_features(d, id);
	put_word(id, 0, 0x0040);
	put_word(id, 47, 0x8000 | ATA_MULTIPLE_MAX);
	put_word(id, 50, 0x4000);
	put_word(id, 59, d->s.multiple ? 0x0100 | d->s.multiple : 0);
	put_word(id, 106, 0x4000);
	put_word(id, 217, d->nonrotational ? 1 : 7200);
	if (d->link->sata)
		put_word(id, 75, 31);
	if (d->discard) {
		put_word(id, 105, DSM_BLOCKS_MAX);
		put_word(id, 169, 1);
	}
}

static void
identify_checksum(uint8_t *id)
{
	uint8_t sum = 0xa5;

	id[510] = 0xa5;
	for (int i = 0; i < 510; i++)
		sum += id[i];
	id[511] = (uint8_t)-sum;
}

static void
identify(struct ata_cmd *c, unsigned flags)
{
	struct ata_drive *d = c->drive;

	if (d->cdrom) { /* says what it is, then aborts (ATA/ATAPI-7 6.16) */
		ata_signature(d, &c->tf);
		ata_fail(c, ATA_ABRT);
		return;
	}
	memset(d->buf, 0, 512);
	identify_disk(d, d->buf);
	identify_checksum(d->buf);
	c->pio = d->link->pio;
	ata_move_buffer(c, ATA_IN, 512, 512, ATA_STEP_END);
}

static void
identify_packet(struct ata_cmd *c, unsigned flags)
{
	struct ata_drive *d = c->drive;

	memset(d->buf, 0, 512);
	identify_common(d, d->buf);
	atapi_identify(d, d->buf);
	identify_checksum(d->buf);
	c->pio = d->link->pio;
	ata_move_buffer(c, ATA_IN, 512, 512, ATA_STEP_END);
}

/* ---- settings ---- */

static bool
set_transfer_mode(struct ata_drive *d, uint8_t mode)
{
	if (mode <= 0x01 || (mode >= 0x08 && mode <= 0x0c))
		return true; /* PIO */
	if ((mode < 0x20 || mode > 0x22) && (mode < 0x40 || mode > 0x45))
		return false;
	d->s.dma_mode = mode;
	return true;
}

static void
set_features(struct ata_cmd *c, unsigned flags)
{
	struct ata_state *s = &c->drive->s;
	bool ok = true;

	switch (c->tf.feature & 0xff) {
	case 0x02:
		s->write_cache = 1;
		break;
	case 0x82:
		s->write_cache = 0;
		flush(c, flags); /* what the cache held is written out (ATA8-ACS 7.45) */
		return;
	case 0x03:
		ok = set_transfer_mode(c->drive, c->tf.count & 0xff);
		break;
	case 0xaa:
	case 0x55:
		s->read_ahead = (c->tf.feature & 0xff) == 0xaa;
		break;
	case 0x66: /* keep, and go back to, defaults over a soft reset */
	case 0xcc:
		break;
	default:
		ok = false;
	}
	if (ok)
		ata_done(c);
	else
		ata_fail(c, ATA_ABRT);
}

static void
set_multiple(struct ata_cmd *c, unsigned flags)
{
	uint8_t n = c->tf.count & 0xff;

	if (n > ATA_MULTIPLE_MAX || (n & (n - 1))) {
		ata_fail(c, ATA_ABRT);
		return;
	}
	c->drive->s.multiple = n;
	ata_done(c);
}

static void
initialize_parameters(struct ata_cmd *c, unsigned flags)
{
	uint8_t spt = c->tf.count & 0xff;

	if (!spt) {
		ata_fail(c, ATA_ABRT);
		return;
	}
	c->drive->s.spt = spt;
	c->drive->s.heads = (uint8_t)((c->tf.device & 15) + 1);
	ata_done(c);
}

static void
succeed(struct ata_cmd *c, unsigned flags)
{
	ata_done(c);
}

/* ---- power (ATA8-ACS 4.15): nothing spins; only the mode is remembered ---- */

static void
power(struct ata_cmd *c, unsigned flags)
{
	uint8_t low = c->tf.command & 15;

	/* 94-99 are the old codes of E0-E6. */
	if (c->tf.command == 0xe5 || c->tf.command == 0x98) {
		c->tf.count = c->drive->s.standby ? 0x00 : 0xff;
		ata_done(c);
		return;
	}
	if (c->tf.command >= 0xe0)
		c->drive->s.standby = low == 0 || low == 2 || low == 6;
	else
		c->drive->s.standby = low == 4 || low == 6 || low == 9;
	if (c->drive->s.standby && c->drive->block)
		flush(c, flags);
	else
		ata_done(c);
}

static void
diagnostic(struct ata_cmd *c, unsigned flags)
{
	ata_signature(c->drive, &c->tf);
	finish(c, c->drive->cdrom ? 0 : ATA_DRDY | ATA_DSC, 0x01, true);
}

/* ---- READ and WRITE BUFFER: 512 bytes that come back ---- */

static void
read_buffer(struct ata_cmd *c, unsigned flags)
{
	c->pio = c->drive->link->pio;
	ata_move_buffer(c, ATA_IN, 512, 512, ATA_STEP_END);
}

static void
write_buffer(struct ata_cmd *c, unsigned flags)
{
	c->pio = c->drive->link->pio;
	ata_move_buffer(c, ATA_OUT, 512, 512, ATA_STEP_END);
}

/* ---- logs: 00h directory, 10h the queued command that failed (ATA8-ACS A.14) ---- */

static void
fill_log(struct ata_drive *d, uint8_t page, uint8_t *p)
{
	uint8_t sum = 0;

	if (page == 0) {
		put_le16(p, 1); /* version */
		put_le16(p + 0x10 * 2, 1);
		return;
	}
	p[0] = d->s.ncq_failed ? d->s.ncq_tag : 0x80;
	p[2] = d->s.ncq_status;
	p[3] = d->s.ncq_error;
	p[4] = (uint8_t)d->s.ncq_lba;
	p[5] = (uint8_t)(d->s.ncq_lba >> 8);
	p[6] = (uint8_t)(d->s.ncq_lba >> 16);
	p[7] = 0x40;
	p[8] = (uint8_t)(d->s.ncq_lba >> 24);
	p[9] = (uint8_t)(d->s.ncq_lba >> 32);
	p[10] = (uint8_t)(d->s.ncq_lba >> 40);
	for (int i = 0; i < 511; i++)
		sum += p[i];
	p[511] = (uint8_t)-sum;
	d->s.ncq_failed = 0;
}

static void
read_log(struct ata_cmd *c, unsigned flags)
{
	uint8_t page = (uint8_t)c->tf.lba;

	if (c->tf.count != 1 || (c->tf.lba >> 8 & 0xff) || (c->tf.lba >> 32 & 0xff) || (page != 0 && page != 0x10)) {
		ata_fail(c, ATA_ABRT);
		return;
	}
	memset(c->drive->buf, 0, 512);
	fill_log(c->drive, page, c->drive->buf);
	c->pio = c->drive->link->pio && !(flags & DMA);
	ata_move_buffer(c, ATA_IN, 512, 512, ATA_STEP_END);
}

/* ---- SMART (ATA/ATAPI-7 6.54): always in good health, one attribute: power-on hours 0 ---- */

static void
smart_page(struct ata_cmd *c, bool thresholds)
{
	uint8_t *p = c->drive->buf, sum = 0;

	memset(p, 0, 512);
	put_le16(p, 16); /* revision of the structure */
	p[2] = 9;	 /* power-on hours */
	if (thresholds) {
		p[3] = 0; /* never fails */
	} else {
		put_le16(p + 3, 0x0032);
		p[5] = p[6] = 100;
	}
	for (int i = 0; i < 511; i++)
		sum += p[i];
	p[511] = (uint8_t)-sum;
	c->pio = c->drive->link->pio;
	ata_move_buffer(c, ATA_IN, 512, 512, ATA_STEP_END);
}

static void
smart(struct ata_cmd *c, unsigned flags)
{
	struct ata_state *s = &c->drive->s;
	uint8_t what = c->tf.feature & 0xff;

	if ((c->tf.lba & 0xffff00) != 0xc24f00 || (!s->smart && what != 0xd8)) {
		ata_fail(c, ATA_ABRT);
		return;
	}
	switch (what) {
	case 0xd0:
	case 0xd1:
		smart_page(c, what == 0xd1);
		return;
	case 0xd8:
	case 0xd9:
		s->smart = what == 0xd8;
		ata_done(c);
		return;
	case 0xd2: /* attribute autosave */
	case 0xda: /* return status: C24Fh stays in the LBA registers, so all is well */
		ata_done(c);
		return;
	}
	ata_fail(c, ATA_ABRT);
}

/* ---- PACKET ---- */

static void
packet(struct ata_cmd *c, unsigned flags)
{
	if (!c->drive->link->pio) {
		c->pio = 0;
		atapi_packet(c);
		return;
	}
	c->pio = 1;
	c->tf.count = ATAPI_COD;
	ata_move_buffer(c, ATA_OUT, 12, 12, ATA_STEP_PACKET);
}

static void
device_reset(struct ata_cmd *c, unsigned flags)
{
	ata_reset(c->drive, false);
	ata_signature(c->drive, &c->tf);
	finish(c, 0, 0x01, false);
}

static const struct command commands[256] = {
	[0x06] = { data_set_management, DISK | EXT | DMA },
	[0x08] = { device_reset, PACKET },
	[0x10] = { succeed, DISK }, /* RECALIBRATE */
	[0x20] = { read_write, DISK },
	[0x21] = { read_write, DISK },
	[0x24] = { read_write, DISK | EXT },
	[0x25] = { read_write, DISK | EXT | DMA },
	[0x29] = { read_write, DISK | EXT | MULTI },
	[0x2f] = { read_log, DISK | EXT },
	[0x30] = { read_write, DISK | WRITE },
	[0x31] = { read_write, DISK | WRITE },
	[0x34] = { read_write, DISK | WRITE | EXT },
	[0x35] = { read_write, DISK | WRITE | EXT | DMA },
	[0x39] = { read_write, DISK | WRITE | EXT | MULTI },
	[0x3d] = { read_write, DISK | WRITE | EXT | DMA | FUA },
	[0x40] = { verify, DISK },
	[0x41] = { verify, DISK },
	[0x42] = { verify, DISK | EXT },
	[0x47] = { read_log, DISK | EXT | DMA },
	[0x60] = { queued, DISK | EXT | DMA },
	[0x61] = { queued, DISK | WRITE | EXT | DMA },
	[0x70] = { succeed, DISK }, /* SEEK */
	[0x90] = { diagnostic, DISK | PACKET },
	[0x91] = { initialize_parameters, DISK },
	[0x94] = { power, DISK | PACKET },
	[0x95] = { power, DISK | PACKET },
	[0x96] = { power, DISK | PACKET },
	[0x97] = { power, DISK | PACKET },
	[0x98] = { power, DISK | PACKET },
	[0x99] = { power, DISK | PACKET },
	[0xa0] = { packet, PACKET },
	[0xa1] = { identify_packet, PACKET },
	[0xb0] = { smart, DISK },
	[0xc4] = { read_write, DISK | MULTI },
	[0xc5] = { read_write, DISK | WRITE | MULTI },
	[0xc6] = { set_multiple, DISK },
	[0xc8] = { read_write, DISK | DMA },
	[0xc9] = { read_write, DISK | DMA },
	[0xca] = { read_write, DISK | WRITE | DMA },
	[0xcb] = { read_write, DISK | WRITE | DMA },
	[0xce] = { read_write, DISK | WRITE | EXT | MULTI | FUA },
	[0xe0] = { power, DISK | PACKET },
	[0xe1] = { power, DISK | PACKET },
	[0xe2] = { power, DISK | PACKET },
	[0xe3] = { power, DISK | PACKET },
	[0xe4] = { read_buffer, DISK },
	[0xe5] = { power, DISK | PACKET },
	[0xe6] = { power, DISK | PACKET },
	[0xe7] = { flush, DISK | PACKET },
	[0xe8] = { write_buffer, DISK },
	[0xea] = { flush, DISK },
	[0xec] = { identify, DISK | PACKET },
	[0xef] = { set_features, DISK | PACKET },
};

void
ata_start(struct ata_cmd *c)
{
	const struct command *k = &commands[c->tf.command];

	c->media = c->cancel = c->fua = 0;
	c->step = ATA_STEP_END;
	c->moved = 0;
	c->dir = ATA_IN;
	if (!k->start || !(k->flags & (c->drive->cdrom ? PACKET : DISK))) {
		if (c->drive->cdrom && (c->tf.command == 0x20 || c->tf.command == 0x21))
			ata_signature(c->drive, &c->tf);
		ata_fail(c, ATA_ABRT);
		return;
	}
	if (k->start == read_write || k->start == queued || k->start == verify)
		c->drive->s.standby = 0;
	k->start(c, k->flags);
}

/* ---- attaching, resetting, changing the disc ---- */

uint64_t
ata_medium_size(const struct ata_drive *d)
{
	struct block_info info = { 0 };

	if (d->block)
		block_get_info(d->block, &info);
	return info.size;
}

static void
copy_text(char *to, size_t size, const char *text)
{
	snprintf(to, size, "%s", text);
	for (char *p = to; *p; p++)
		if (*p < ' ' || *p > '~')
			*p = '?';
}

/* Use `medium` from now on. */
static void
take_medium(struct ata_drive *d, struct block *medium)
{
	d->block = medium;
	if (medium)
		block_attach_loop(medium, d->m->loop);
	d->sectors = ata_medium_size(d) / (d->cdrom ? CD_SECTOR : ATA_SECTOR);
	d->cylinders = (uint16_t)MIN(d->sectors / (16 * 63), 16383);
}

/* As VirtualBox derives it from the image, so that a disk keeps its name in the guest wherever it is attached. */
static void
default_serial(const struct ata_drive *d, int unit, char out[21])
{
	struct block_info info = { 0 };

	if (d->block && !d->cdrom)
		block_get_info(d->block, &info);
	if (le64(info.uuid.b) || le64(info.uuid.b + 8))
		snprintf(out, 21, "VB%02x%02x%02x%02x-%x", info.uuid.b[0], info.uuid.b[1], info.uuid.b[2],
			info.uuid.b[3], le32(info.uuid.b + 12));
	else
		snprintf(out, 21, "%s%08x", d->cdrom ? "CD" : "VB", (unsigned)unit + 1);
}

void
ata_attach(struct ata_drive *d, struct machine *m, const struct drive_config *cfg, const struct ata_link *link,
	void *port, uint8_t *buf, const char *controller, int unit)
{
	char serial[21];

	memset(d, 0, sizeof(*d));
	d->present = true;
	d->cdrom = cfg->cdrom;
	d->nonrotational = cfg->nonrotational;
	d->discard = cfg->discard && !cfg->cdrom;
	d->link = link;
	d->port = port;
	d->m = m;
	d->buf = buf;
	d->ejected = cfg->ejected;
	d->opaque = cfg->opaque;
	snprintf(d->who, sizeof(d->who), "%.24s/%.12s.%d", m->name, controller, unit);
	take_medium(d, cfg->block);
	default_serial(d, unit, serial);
	copy_text(d->serial, sizeof(d->serial), cfg->serial ? cfg->serial : serial);
	copy_text(d->model, sizeof(d->model), cfg->model ? cfg->model : cfg->cdrom ? "VBOX CD-ROM" : "VBOX HARDDISK");
	copy_text(d->firmware, sizeof(d->firmware), cfg->firmware ? cfg->firmware : "1.0");
	ata_reset(d, true);
}

void
ata_detach(struct ata_drive *d)
{
	if (d->block) {
		block_drain(d->block);
		block_attach_loop(d->block, NULL);
	}
	d->block = NULL;
}

void
ata_reset(struct ata_drive *d, bool hard)
{
	struct ata_state *s = &d->s;

	if (hard) {
		uint8_t open = s->tray_open;

		memset(s, 0, sizeof(*s));
		s->write_cache = s->read_ahead = s->smart = 1;
		s->dma_mode = 0x45;
		s->tray_open = open;
	}
	s->heads = 16;
	s->spt = 63;
	s->standby = 0;
	s->ncq_failed = 0;
	if (d->cdrom)
		atapi_reset(d, hard);
}

void
ata_signature(const struct ata_drive *d, struct ata_tf *tf)
{
	tf->count = 1;
	tf->lba = d->cdrom ? 0xeb1401 : 0x000001;
	tf->device &= 0x10;
}

int
ata_change_medium(struct ata_drive *d, struct block *medium, bool force)
{
	if (!d->present || !d->cdrom)
		return -ENOENT;
	if (d->s.locked && !force && d->block) {
		d->s.media_event = 1; /* EjectRequest (MMC-5 6.6.2.6) */
		return -EBUSY;
	}
	ata_detach(d);
	d->s.tray_open = 0;
	d->s.locked = 0;
	take_medium(d, medium);
	d->s.attention = 1;
	d->s.attention_asc = medium ? 0x28 : 0x3a; /* medium may have changed; medium not present */
	d->s.attention_ascq = 0;
	d->s.media_event = medium ? 2 : 3; /* NewMedia, MediaRemoval */
	return 0;
}
