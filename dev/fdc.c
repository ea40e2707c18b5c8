/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An 82077AA floppy disk controller with two 3.5" drives. (Intel 82077AA data sheet, order 290166, "DS" below)
 *
 *	0x3f2  DOR  drive select 1:0, not-reset 2, DMA and interrupt gate 3, motors 7:4
 *	0x3f3  TDR
 *	0x3f4  MSR  drives seeking 3:0, busy 4, non-DMA 5, direction 6 (to the host), request for master 7
 *	            written: DSR, data rate 1:0, reset 7
 *	0x3f5  FIFO
 *	0x3f7  DIR  disk change 7; written: CCR, data rate 1:0
 *
 * Phases of a command (DS 5.0), and what moves it on:
 *
 *	COMMAND  bytes into the FIFO            all parameters are there: the command is carried out
 *	DISK     a request to the image         its completion
 *	DATA     non-DMA: bytes through the     the last byte of the part that is in `buf`
 *	         FIFO
 *	RESULT   bytes out of the FIFO          the last one is read: COMMAND
 *
 * Data moves a head's side of a track at a time: up to 36 sectors between `buf` and the image in one request, between
 * `buf` and memory through DMA channel 2, whose terminal count ends a command. Reading goes image first, writing memory
 * first. Nothing takes time: seeks, motors and rotation are over at once, and their interrupts come at once.
 *
 * A disk is what an image's size says (formats[]). A drive reads it only at its data rate, so that a guest that tries
 * rates finds out which disk it is, as with the real ones. The line "disk change" is up from when a disk is changed
 * until the head moves with one in the drive.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/str.h"
#include "block/block.h"
#include "dev/dev.h"

#define DRIVES 2
#define SECTOR 512u
#define TRACK_MAX 36u
#define CYLINDERS_MAX 85 /* where the head stops */
#define DMA_CHANNEL 2

enum { DOR_RUN = 4, DOR_GATE = 8, DSR_RESET = 0x80 };
enum { MSR_BUSY = 0x10, MSR_NON_DMA = 0x20, MSR_TO_HOST = 0x40, MSR_REQUEST = 0x80 };
/* Status registers (DS 6.0) */
enum {
	ST0_ABNORMAL = 0x40,
	ST0_INVALID = 0x80,
	ST0_RESET = 0xc0,
	ST0_SEEK_END = 0x20,
	ST0_CHECK = 0x10,
	ST1_END = 0x80,
	ST1_DATA = 0x20,
	ST1_OVERRUN = 0x10,
	ST1_NO_DATA = 0x04,
	ST1_PROTECTED = 0x02,
	ST1_NO_MARK = 0x01,
	ST2_CONTROL_MARK = 0x40,
	ST2_WRONG_CYLINDER = 0x10,
	ST3_PROTECTED = 0x40,
	ST3_READY = 0x20,
	ST3_TRACK_0 = 0x10,
	ST3_TWO_SIDES = 0x08,
};
enum phase { COMMAND, DISK, DATA, RESULT };

struct format {
	uint8_t cylinders, heads, sectors, rate; /* rate as in DSR: 0 500, 1 300, 2 250, 3 1000 kbit/s */
};

static const struct format formats[] = {
	{ 80, 2, 18, 0 }, /* 1.44 MB */
	{ 80, 2, 36, 3 }, /* 2.88 MB */
	{ 80, 2, 20, 0 },
	{ 80, 2, 21, 0 }, /* 1.68 MB */
	{ 82, 2, 21, 0 },
	{ 83, 2, 21, 0 },
	{ 80, 2, 15, 0 }, /* 1.2 MB */
	{ 80, 2, 9, 2 },  /* 720 KB */
	{ 80, 2, 10, 2 },
	{ 40, 2, 9, 2 }, /* 360 KB and older */
	{ 40, 1, 9, 2 },
	{ 40, 2, 8, 2 },
	{ 40, 1, 8, 2 },
};

struct drive {
	bool present;
	struct block *block; /* NULL: no disk */
	const struct format *format;
	bool read_only;
	uint8_t cylinder; /* where the head is */
	uint8_t changed;
	uint8_t id_sector; /* READ ID finds the next one each time */
};

struct fdc {
	struct device dev;
	struct irq irq;
	struct i8237 *dma;
	struct drive drive[DRIVES];
	uint8_t dor, tdr, rate;
	uint8_t phase, irq_level;
	uint8_t fifo[16], fifo_len, fifo_pos; /* command or result bytes */
	uint8_t non_dma, config[3], perpendicular, lock, specify[2];
	uint8_t reset_status; /* drives of which SENSE INTERRUPT tells after a reset */
	uint8_t seek_ended;   /* bit n: drive n, told by SENSE INTERRUPT */
	uint8_t seek_status[4];
	/* the transfer */
	uint8_t cylinder, head, sector, last, control_mark;
	uint8_t count; /* sectors in `buf` */
	uint32_t data_pos;
	uint8_t buf[TRACK_MAX * SECTOR];
	/* derived: the request in flight */
	struct block_req req;
	struct iovec iov;
	bool cancelled;
};

static const struct field fdc_fields[] = {
	FIELD(struct fdc, drive[0].cylinder),
	FIELD(struct fdc, drive[0].changed),
	FIELD(struct fdc, drive[0].id_sector),
	FIELD(struct fdc, drive[1].cylinder),
	FIELD(struct fdc, drive[1].changed),
	FIELD(struct fdc, drive[1].id_sector),
	FIELD(struct fdc, dor),
	FIELD(struct fdc, tdr),
	FIELD(struct fdc, rate),
	FIELD(struct fdc, phase),
	FIELD(struct fdc, irq_level),
	FIELD_ARRAY(struct fdc, fifo),
	FIELD(struct fdc, fifo_len),
	FIELD(struct fdc, fifo_pos),
	FIELD(struct fdc, non_dma),
	FIELD_ARRAY(struct fdc, config),
	FIELD(struct fdc, perpendicular),
	FIELD(struct fdc, lock),
	FIELD_ARRAY(struct fdc, specify),
	FIELD(struct fdc, reset_status),
	FIELD(struct fdc, seek_ended),
	FIELD_ARRAY(struct fdc, seek_status),
	FIELD(struct fdc, cylinder),
	FIELD(struct fdc, head),
	FIELD(struct fdc, sector),
	FIELD(struct fdc, last),
	FIELD(struct fdc, control_mark),
	FIELD(struct fdc, count),
	FIELD(struct fdc, data_pos),
	FIELD_ARRAY(struct fdc, buf),
	FIELD_END,
};

/* ---- interrupts ---- */

static void
update_irq(struct fdc *f)
{
	irq_set(&f->irq, f->irq_level && f->dor & DOR_GATE);
}

static void
set_irq(struct fdc *f, uint8_t level)
{
	f->irq_level = level;
	update_irq(f);
}

/* ---- results ---- */

static void
expect_command(struct fdc *f)
{
	f->phase = COMMAND;
	f->fifo_len = f->fifo_pos = 0;
}

static void
give_result(struct fdc *f, const uint8_t *bytes, uint8_t n)
{
	memcpy(f->fifo, bytes, n);
	f->fifo_len = n;
	f->fifo_pos = 0;
	f->phase = RESULT;
}

static struct drive *
selected(struct fdc *f)
{
	struct drive *d = &f->drive[f->fifo[1] & 1];

	return (f->fifo[1] & 2) || !d->present ? NULL : d;
}

/* The seven bytes that data commands end with. */
static void
end_transfer(struct fdc *f, uint8_t st0, uint8_t st1, uint8_t st2)
{
	uint8_t bytes[7] = { (uint8_t)(st0 | (f->fifo[1] & 3) | f->head << 2), st1, st2, f->cylinder, f->head,
		f->sector, 2 };

	give_result(f, bytes, sizeof(bytes));
	set_irq(f, 1);
}

static void
fail_transfer(struct fdc *f, uint8_t st1, uint8_t st2)
{
	end_transfer(f, ST0_ABNORMAL, st1, st2);
}

static void
invalid(struct fdc *f)
{
	uint8_t st0 = ST0_INVALID;

	log_guest(f->dev.name, "command %02x is not one", f->fifo[0]);
	give_result(f, &st0, 1);
}

/* ---- reading and writing ---- */

enum {
	READ_TRACK = 0x02,
	WRITE = 0x05,
	READ = 0x06,
	WRITE_DELETED = 0x09,
	READ_DELETED = 0x0c,
	FORMAT = 0x0d,
	VERIFY = 0x16
};

static uint8_t
operation(const struct fdc *f)
{
	return f->fifo[0] & 0x1f;
}

static bool
writes(const struct fdc *f)
{
	uint8_t op = operation(f);

	return op == WRITE || op == WRITE_DELETED || op == FORMAT;
}

static uint64_t
offset(const struct fdc *f, const struct drive *d)
{
	const struct format *m = d->format;

	return (((uint64_t)f->cylinder * m->heads + f->head) * m->sectors + f->sector - 1) * SECTOR;
}

/* The sectors of `buf` are done: name the one behind them, as the result bytes do (DS table 5-6). */
static void
advance(struct fdc *f, uint8_t sectors)
{
	bool both_sides = f->fifo[0] & 0x80;

	if (f->sector + sectors <= f->last) {
		f->sector = (uint8_t)(f->sector + sectors);
		return;
	}
	f->sector = 1;
	if (both_sides && !f->head) {
		f->head = 1;
	} else {
		f->cylinder++;
		if (both_sides)
			f->head = 0;
	}
}

static void next_part(struct fdc *f);

/* A part was moved, and `tc` tells whether the host wants no more. */
static void
part_moved(struct fdc *f, uint8_t sectors, bool tc)
{
	bool end_of_side = f->sector + sectors > f->last, more_side = (f->fifo[0] & 0x80) && !f->head;
	uint8_t st2 = f->control_mark ? ST2_CONTROL_MARK : 0;

	advance(f, sectors);
	if (tc)
		end_transfer(f, 0, 0, st2);
	else if (end_of_side && !more_side)
		fail_transfer(f, ST1_END, st2);
	else
		next_part(f);
}

static void
request_done(struct block_req *r, int result)
{
	struct fdc *f = container_of(r, struct fdc, req);
	bool tc = false;
	size_t n;

	if (f->cancelled) {
		f->cancelled = false;
		return;
	}
	if (result) {
		log_guest(f->dev.name, "%s sector %u of cylinder %u, head %u failed: %s",
			r->op == BLOCK_READ ? "reading" : "writing", f->sector, f->cylinder, f->head,
			strerror(-result));
		fail_transfer(f, ST1_DATA, 0);
		return;
	}
	if (operation(f) == FORMAT) {
		end_transfer(f, 0, 0, 0);
	} else if (operation(f) == VERIFY) { /* no terminal count: the last sector is the end */
		f->fifo[0] &= 0x7f;
		advance(f, f->count);
		end_transfer(f, 0, 0, 0);
	} else if (writes(f)) { /* data_pos: terminal count was there */
		part_moved(f, f->count, f->data_pos);
	} else if (f->non_dma) {
		f->phase = DATA;
		f->data_pos = 0;
		set_irq(f, 1);
	} else {
		n = i8237_transfer(f->dma, DMA_CHANNEL, f->buf, f->count * SECTOR, true, &tc);
		if (!tc && n < f->count * SECTOR)
			fail_transfer(f, ST1_OVERRUN, 0);
		else
			part_moved(f, (uint8_t)((n + SECTOR - 1) / SECTOR), tc);
	}
}

static void
submit(struct fdc *f, struct drive *d, enum block_op op)
{
	f->phase = DISK;
	f->iov = (struct iovec){ f->buf, f->count * SECTOR };
	f->req = (struct block_req){ .op = op, .off = offset(f, d), .iov = &f->iov, .iovcnt = 1, .done = request_done };
	block_submit(d->block, &f->req);
}

/* Writing: fetch what there is, then write it. */
static void
take_and_write(struct fdc *f, struct drive *d)
{
	bool tc = false;
	size_t n;

	if (f->non_dma) {
		f->phase = DATA;
		f->data_pos = 0;
		set_irq(f, 1);
		return;
	}
	n = i8237_transfer(f->dma, DMA_CHANNEL, f->buf, f->count * SECTOR, false, &tc);
	if (!n || (!tc && n < f->count * SECTOR)) {
		fail_transfer(f, ST1_OVERRUN, 0);
		return;
	}
	memset(f->buf + n, 0, sizeof(f->buf) - n); /* of the last sector, what the host did not give */
	f->count = (uint8_t)((n + SECTOR - 1) / SECTOR);
	f->data_pos = tc;
	submit(f, d, BLOCK_WRITE);
}

/* From f->sector to the last one wanted on this side, as far as they exist. */
static void
next_part(struct fdc *f)
{
	struct drive *d = selected(f);
	uint8_t end = d && d->block ? MIN(f->last, d->format->sectors) : 0;

	if (!end || f->head >= d->format->heads || f->cylinder >= d->format->cylinders || !f->sector ||
		f->sector > end) {
		fail_transfer(f, ST1_NO_DATA, 0);
		return;
	}
	f->count = (uint8_t)(end - f->sector + 1);
	if (writes(f))
		take_and_write(f, d);
	else
		submit(f, d, BLOCK_READ);
}

/* Can the selected drive see a disk now? False, and the command is over: it cannot. */
static bool
find_disk(struct fdc *f, struct drive *d)
{
	if (!d || !d->block || f->rate != d->format->rate) {
		fail_transfer(f, ST1_NO_MARK, 0);
		return false;
	}
	if (writes(f) && d->read_only) {
		fail_transfer(f, ST1_PROTECTED, 0);
		return false;
	}
	return true;
}

static void
transfer(struct fdc *f)
{
	struct drive *d = selected(f);
	uint8_t op = operation(f);

	f->cylinder = f->fifo[2];
	f->head = f->fifo[3] & 1;
	f->sector = f->fifo[4];
	f->last = f->fifo[6];
	f->control_mark = op == READ_DELETED;
	if (!find_disk(f, d))
		return;
	if (f->fifo[3] > 1 || f->head != (f->fifo[1] >> 2 & 1) || f->fifo[5] != 2 || !(f->fifo[0] & 0x40)) {
		fail_transfer(f, f->fifo[0] & 0x40 ? ST1_NO_DATA : ST1_NO_MARK, 0);
		return;
	}
	if (f->cylinder != d->cylinder) {
		fail_transfer(f, ST1_NO_DATA, ST2_WRONG_CYLINDER);
		return;
	}
	if (op == READ_TRACK) {
		f->sector = 1;
		f->fifo[0] &= 0x7f;
	} else if (op == VERIFY && f->fifo[1] & 0x80) { /* EC: the last parameter is a number of sectors */
		f->last = (uint8_t)MIN(f->sector + f->fifo[8] - 1, 255);
	}
	next_part(f);
}

/* FORMAT TRACK: the host gives cylinder, head, sector and size code of each sector; all get the filler byte. */
static void
format_track(struct fdc *f)
{
	struct drive *d = selected(f);
	uint8_t ids[4 * TRACK_MAX];
	size_t n = MIN(f->fifo[3], TRACK_MAX) * 4u;
	bool tc;

	f->cylinder = d ? d->cylinder : 0;
	f->head = f->fifo[1] >> 2 & 1;
	f->sector = 1;
	if (!find_disk(f, d))
		return;
	if (f->fifo[2] != 2 || f->fifo[3] != d->format->sectors || f->head >= d->format->heads ||
		f->cylinder >= d->format->cylinders || !(f->fifo[0] & 0x40)) {
		fail_transfer(f, ST1_NO_DATA, 0); /* not a disk that this image can become */
		return;
	}
	if (!f->non_dma && i8237_transfer(f->dma, DMA_CHANNEL, ids, n, false, &tc) < n) {
		fail_transfer(f, ST1_OVERRUN, 0);
		return;
	}
	f->count = d->format->sectors;
	memset(f->buf, f->fifo[5], f->count * SECTOR);
	submit(f, d, BLOCK_WRITE);
}

static void
read_id(struct fdc *f)
{
	struct drive *d = selected(f);

	f->cylinder = d ? d->cylinder : 0;
	f->head = f->fifo[1] >> 2 & 1;
	f->sector = 1;
	if (!find_disk(f, d))
		return;
	if (f->head >= d->format->heads || d->cylinder >= d->format->cylinders || !(f->fifo[0] & 0x40)) {
		fail_transfer(f, ST1_NO_MARK, 0);
		return;
	}
	d->id_sector = (uint8_t)(d->id_sector % d->format->sectors + 1);
	f->sector = d->id_sector;
	end_transfer(f, 0, 0, 0);
}

/* ---- moving the head ---- */

static void
seek_to(struct fdc *f, int cylinder)
{
	unsigned n = f->fifo[1] & 3;
	struct drive *d = selected(f);
	uint8_t st0 = (uint8_t)(ST0_SEEK_END | n);

	expect_command(f);
	if (d) {
		d->cylinder = (uint8_t)MAX(0, MIN(cylinder, CYLINDERS_MAX));
		if (d->block)
			d->changed = 0;
	} else {
		st0 |= ST0_ABNORMAL | ST0_CHECK; /* track 0 was never seen */
	}
	f->seek_status[n] = st0;
	f->seek_ended |= (uint8_t)(1 << n);
	set_irq(f, 1);
}

static void
recalibrate(struct fdc *f)
{
	f->fifo[1] &= 3;
	seek_to(f, 0);
}

static void
seek(struct fdc *f)
{
	struct drive *d = selected(f);

	if (!(f->fifo[0] & 0x80))
		seek_to(f, f->fifo[2]);
	else /* relative: 40h is inwards */
		seek_to(f, (d ? d->cylinder : 0) + (f->fifo[0] & 0x40 ? f->fifo[2] : -f->fifo[2]));
}

static void
sense_interrupt(struct fdc *f)
{
	uint8_t bytes[2] = { ST0_INVALID, 0 };

	set_irq(f, 0);
	if (f->reset_status) {
		unsigned n = 4u - f->reset_status--;

		bytes[0] = (uint8_t)(ST0_RESET | n);
		bytes[1] = n < DRIVES ? f->drive[n].cylinder : 0;
		give_result(f, bytes, 2);
		return;
	}
	if (!f->seek_ended) {
		give_result(f, bytes, 1);
		return;
	}
	for (unsigned n = 0; n < 4; n++) {
		if (!(f->seek_ended >> n & 1))
			continue;
		f->seek_ended &= (uint8_t) ~(1 << n);
		bytes[0] = f->seek_status[n];
		bytes[1] = n < DRIVES ? f->drive[n].cylinder : 0;
		break;
	}
	give_result(f, bytes, 2);
	if (f->seek_ended)
		set_irq(f, 1);
}

/* ---- settings ---- */

static void
sense_drive(struct fdc *f)
{
	struct drive *d = selected(f);
	uint8_t st3 = (uint8_t)((f->fifo[1] & 7) | ST3_TWO_SIDES);

	if (d)
		st3 |= ST3_READY | (d->cylinder ? 0 : ST3_TRACK_0) | (d->block && d->read_only ? ST3_PROTECTED : 0);
	give_result(f, &st3, 1);
}

static void
specify(struct fdc *f)
{
	f->specify[0] = f->fifo[1];
	f->specify[1] = f->fifo[2];
	f->non_dma = f->fifo[2] & 1;
	expect_command(f);
}

static void
configure(struct fdc *f)
{
	memcpy(f->config, f->fifo + 1, sizeof(f->config));
	expect_command(f);
}

static void
perpendicular(struct fdc *f)
{
	f->perpendicular = f->fifo[1];
	expect_command(f);
}

static void
lock(struct fdc *f)
{
	uint8_t result;

	f->lock = f->fifo[0] >> 7;
	result = (uint8_t)(f->lock << 4);
	give_result(f, &result, 1);
}

static void
dump_registers(struct fdc *f)
{
	uint8_t b[10] = { f->drive[0].cylinder, f->drive[1].cylinder, 0, 0, f->specify[0], f->specify[1], f->last,
		(uint8_t)(f->lock << 7 | (f->perpendicular & 0x3f)), f->config[1], f->config[2] };

	give_result(f, b, sizeof(b));
}

static void
version(struct fdc *f)
{
	uint8_t v = 0x90;

	give_result(f, &v, 1);
}

static const struct command {
	uint8_t value, mask, params;
	void (*run)(struct fdc *f);
} commands[] = {
	{ READ, 0x1f, 8, transfer },
	{ WRITE, 0x3f, 8, transfer },
	{ READ_DELETED, 0x1f, 8, transfer },
	{ WRITE_DELETED, 0x3f, 8, transfer },
	{ READ_TRACK, 0x9f, 8, transfer },
	{ VERIFY, 0x1f, 8, transfer },
	{ FORMAT, 0xbf, 5, format_track },
	{ 0x0a, 0xbf, 1, read_id },
	{ 0x07, 0xff, 1, recalibrate },
	{ 0x08, 0xff, 0, sense_interrupt },
	{ 0x03, 0xff, 2, specify },
	{ 0x04, 0xff, 1, sense_drive },
	{ 0x0f, 0xff, 2, seek },
	{ 0x8f, 0xbf, 2, seek },
	{ 0x13, 0xff, 3, configure },
	{ 0x0e, 0xff, 0, dump_registers },
	{ 0x10, 0xff, 0, version },
	{ 0x12, 0xff, 1, perpendicular },
	{ 0x14, 0x7f, 0, lock },
};

static const struct command *
find_command(uint8_t byte)
{
	for (size_t i = 0; i < ARRAY_LEN(commands); i++)
		if ((byte & commands[i].mask) == commands[i].value)
			return &commands[i];
	return NULL;
}

/* ---- the FIFO ---- */

static void
command_byte(struct fdc *f, uint8_t value)
{
	const struct command *c;

	f->fifo[f->fifo_len++] = value;
	c = find_command(f->fifo[0]);
	if (!c)
		invalid(f);
	else if (f->fifo_len == c->params + 1)
		c->run(f);
}

/* Non-DMA: all of the part was moved. There is no terminal count, so such a command ends behind its last sector. */
static void
data_complete(struct fdc *f)
{
	struct drive *d = selected(f);

	set_irq(f, 0);
	f->data_pos = 0;
	if (!writes(f))
		part_moved(f, f->count, false);
	else if (d && d->block)
		submit(f, d, BLOCK_WRITE);
	else
		fail_transfer(f, ST1_NO_MARK, 0);
}

static uint8_t
fifo_read(struct fdc *f)
{
	uint8_t value = 0;

	if (f->phase == DATA && !writes(f)) {
		value = f->buf[f->data_pos++];
		if (f->data_pos == f->count * SECTOR)
			data_complete(f);
	} else if (f->phase == RESULT) {
		set_irq(f, 0);
		value = f->fifo[f->fifo_pos++];
		if (f->fifo_pos >= f->fifo_len)
			expect_command(f);
	}
	return value;
}

static void
fifo_write(struct fdc *f, uint8_t value)
{
	if (!(f->dor & DOR_RUN))
		return;
	if (f->phase == DATA && writes(f)) {
		f->buf[f->data_pos++] = value;
		if (f->data_pos == f->count * SECTOR)
			data_complete(f);
	} else if (f->phase == COMMAND) {
		command_byte(f, value);
	}
}

/* ---- registers ---- */

static void
cancel(struct fdc *f)
{
	if (f->phase == DISK)
		f->cancelled = true;
}

/* Wait for a request of a command that a reset has ended: `buf` is not free before. */
static void
wait_cancelled(struct fdc *f)
{
	for (int i = 0; i < DRIVES && f->cancelled; i++)
		if (f->drive[i].block)
			block_drain(f->drive[i].block);
	f->cancelled = false;
}

static void
chip_reset(struct fdc *f)
{
	cancel(f);
	wait_cancelled(f);
	expect_command(f);
	f->seek_ended = 0;
	f->reset_status = 0;
	set_irq(f, 0);
	if (f->lock)
		return;
	memset(f->config, 0, sizeof(f->config));
	f->perpendicular = 0;
	f->non_dma = 0;
}

/* Out of reset: the interrupt of DS 4.2, and four results for SENSE INTERRUPT, unless polling is off. */
static void
chip_start(struct fdc *f)
{
	f->reset_status = f->config[1] & 0x10 ? 0 : 4;
	set_irq(f, f->reset_status != 0);
}

static void
write_dor(struct fdc *f, uint8_t value)
{
	uint8_t was = f->dor;

	f->dor = value;
	if (!(value & DOR_RUN) && was & DOR_RUN)
		chip_reset(f);
	else if (value & DOR_RUN && !(was & DOR_RUN))
		chip_start(f);
	update_irq(f);
}

static uint8_t
main_status(const struct fdc *f)
{
	uint8_t s = 0;

	if (!(f->dor & DOR_RUN))
		return 0;
	switch ((enum phase)f->phase) {
	case COMMAND:
		return MSR_REQUEST | (f->fifo_len ? MSR_BUSY : 0);
	case DISK:
		return MSR_BUSY;
	case DATA:
		s = MSR_BUSY | MSR_REQUEST | MSR_NON_DMA;
		return writes(f) ? s : s | MSR_TO_HOST;
	case RESULT:
		break;
	}
	return MSR_BUSY | MSR_REQUEST | MSR_TO_HOST;
}

static uint8_t
digital_input(const struct fdc *f)
{
	const struct drive *d = &f->drive[f->dor & 1];

	if ((f->dor & 2) || !d->present || !(f->dor >> 4 >> (f->dor & 3) & 1)) /* no drive, or its motor is off */
		return 0;
	return d->changed || !d->block ? 0x80 : 0;
}

static uint64_t
fdc_read(void *opaque, uint64_t off, unsigned size)
{
	struct fdc *f = opaque;

	switch (off) {
	case 2:
		return f->dor;
	case 3:
		return f->tdr;
	case 4:
		return main_status(f);
	case 5:
		return fifo_read(f);
	}
	return 0xff;
}

static void
fdc_write(void *opaque, uint64_t off, uint64_t value, unsigned size)
{
	struct fdc *f = opaque;

	switch (off) {
	case 2:
		write_dor(f, (uint8_t)value);
		break;
	case 3:
		f->tdr = value & 3;
		break;
	case 4:
		f->rate = value & 3;
		if (value & DSR_RESET) {
			chip_reset(f);
			if (f->dor & DOR_RUN)
				chip_start(f);
		}
		break;
	case 5:
		fifo_write(f, (uint8_t)value);
		break;
	}
}

static uint64_t
dir_read(void *opaque, uint64_t off, unsigned size)
{
	return digital_input(opaque);
}

static void
ccr_write(void *opaque, uint64_t off, uint64_t value, unsigned size)
{
	((struct fdc *)opaque)->rate = value & 3;
}

static const struct bus_ops fdc_ops = { fdc_read, fdc_write, 1, 1 };
static const struct bus_ops dir_ops = { dir_read, ccr_write, 1, 1 };

/* ---- the device ---- */

static void
fdc_drain(struct device *dev)
{
	struct fdc *f = (struct fdc *)dev;

	/* A completed part may start the next one. */
	for (int i = 0; i < DRIVES; i++)
		if (f->drive[i].block)
			block_drain(f->drive[i].block);
}

static void
fdc_reset(struct device *dev)
{
	struct fdc *f = (struct fdc *)dev;

	f->lock = 0;
	chip_reset(f);
	f->dor = f->tdr = 0;
	f->rate = 2;
	f->specify[0] = f->specify[1] = 0;
	for (int i = 0; i < DRIVES; i++) {
		f->drive[i].cylinder = 0;
		f->drive[i].changed = 1;
		f->drive[i].id_sector = 0;
	}
	update_irq(f);
}

static void
fdc_loaded(struct device *dev)
{
	struct fdc *f = (struct fdc *)dev;

	if (f->phase == DISK || f->phase > RESULT || f->fifo_len > sizeof(f->fifo) || f->fifo_pos > f->fifo_len ||
		f->count > TRACK_MAX || f->data_pos > f->count * SECTOR ||
		(f->phase == RESULT && f->fifo_pos == f->fifo_len) || (f->phase == COMMAND && f->fifo_len > 8) ||
		(f->phase == DATA && f->data_pos >= f->count * SECTOR))
		expect_command(f);
	f->reset_status = MIN(f->reset_status, 4);
	f->seek_ended &= 15;
	update_irq(f);
}

static void
fdc_destroy(struct device *dev)
{
	struct fdc *f = (struct fdc *)dev;

	cancel(f);
	for (int i = 0; i < DRIVES; i++)
		if (f->drive[i].block) {
			block_drain(f->drive[i].block);
			block_attach_loop(f->drive[i].block, NULL);
		}
	free(f);
}

static const struct dev_class fdc_class = {
	.name = "fdc",
	.fields = fdc_fields,
	.reset = fdc_reset,
	.loaded = fdc_loaded,
	.destroy = fdc_destroy,
	.drain = fdc_drain,
};

struct fdc *
fdc_create(struct machine *m, struct irq irq6, struct i8237 *dma)
{
	struct fdc *f = xcalloc(1, sizeof(*f));

	f->irq = irq6;
	f->dma = dma;
	device_add(m, &f->dev, &fdc_class);
	io_add(&m->io, 0x3f0, 6, &fdc_ops, f);
	io_add(&m->io, 0x3f7, 1, &dir_ops, f);
	fdc_reset(&f->dev);
	return f;
}

static const struct format *
format_of(struct block *b, bool *read_only)
{
	struct block_info info;

	block_get_info(b, &info);
	*read_only = info.read_only;
	for (size_t i = 0; i < ARRAY_LEN(formats); i++)
		if (info.size == (uint64_t)formats[i].cylinders * formats[i].heads * formats[i].sectors * SECTOR)
			return &formats[i];
	return NULL;
}

int
fdc_change_medium(struct fdc *f, int unit, struct block *medium)
{
	struct drive *d = unit >= 0 && unit < DRIVES ? &f->drive[unit] : NULL;
	const struct format *format = NULL;
	bool read_only = false;

	if (!d || !d->present)
		return -ENOENT;
	if (medium && !(format = format_of(medium, &read_only)))
		return -EINVAL;
	if (d->block) {
		block_drain(d->block);
		block_attach_loop(d->block, NULL);
	}
	d->block = medium;
	d->format = format;
	d->read_only = read_only;
	d->changed = 1;
	if (medium)
		block_attach_loop(medium, f->dev.m->loop);
	return 0;
}

int
fdc_set_drive(struct fdc *f, int unit, struct block *medium, struct err *e)
{
	struct block_info info = { 0 };
	int r;

	if (unit < 0 || unit >= DRIVES)
		return err_set(e, ERR_INVALID, "A floppy controller has drives 0 and 1, not %d", unit);
	f->drive[unit].present = true;
	r = fdc_change_medium(f, unit, medium);
	if (!r)
		return 0;
	block_get_info(medium, &info);
	return err_set(e, ERR_INVALID, "'%s' has %llu bytes: no floppy disk has that size", block_path(medium),
		(unsigned long long)info.size);
}

uint8_t
fdc_drive_type(const struct fdc *f, int unit)
{
	const struct drive *d = unit >= 0 && unit < DRIVES ? &f->drive[unit] : NULL;

	if (!d || !d->present)
		return 0;
	return d->format && d->format->rate == 3 ? 5 : 4;
}
