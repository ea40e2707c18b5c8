/* SPDX-License-Identifier: Apache-2.0 */
/*
 * SCSI disks, and the door to SCSI CD-ROM drives. (SPC-4, T10/1731-D; SBC-3, T10/1799-D; SAM-5.) See scsi.h for how a
 * transport uses it.
 *
 * commands[] is the list of what a disk knows; everything else is an illegal request. A command that moves the medium's
 * data goes pass after pass: as many pieces of the host's buffer as a request to the image takes become its iovec, so
 * data is copied once, between the image and guest memory. Answers and parameter lists go through c->buf.
 *
 * The write cache is the host's page cache: SYNCHRONIZE CACHE is a flush of the image. With WCE switched off (mode page
 * 08h), or with FUA, a flush follows the data before the command is good.
 *
 * A CD-ROM drive's commands become packet commands of atapi.c, whose transport is here: its scatter list is the host's
 * buffer, and its sense data comes back with the status.
 */
#include "dev/scsi.h"
#include "base/bytes.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/str.h"

#define BLOCK_SIZE 512u

enum { NO_SENSE = 0, NOT_READY = 2, MEDIUM_ERROR = 3, ILLEGAL_REQUEST = 5, UNIT_ATTENTION = 6, DATA_PROTECT = 7 };

/* Additional sense codes, high byte ASC, low byte ASCQ (SPC-4 annex D). */
enum {
	NOTHING_TO_REPORT = 0x0000,
	NEEDS_START = 0x0402,
	WRITE_ERROR = 0x0c00,
	READ_ERROR = 0x1100,
	LIST_LENGTH = 0x1a00,
	BAD_OPCODE = 0x2000,
	BAD_LBA = 0x2100,
	BAD_FIELD = 0x2400,
	BAD_LUN = 0x2500,
	BAD_PARAMETER = 0x2600,
	WRITE_PROTECTED = 0x2700,
	OUT_OF_SPACE = 0x2707,
	POWER_ON = 0x2900,
	SAVING_UNSUPPORTED = 0x3900,
};

/* ---- numbers ---- */

/* ---- the end of a command ---- */

static void
fill_sense(uint8_t *p, uint8_t key, uint16_t code)
{
	memset(p, 0, SCSI_SENSE_LEN);
	p[0] = 0x70; /* fixed format, current */
	p[2] = key;
	p[7] = SCSI_SENSE_LEN - 8;
	p[12] = (uint8_t)(code >> 8);
	p[13] = (uint8_t)code;
}

static void
good(struct scsi_cmd *c)
{
	c->status = SCSI_GOOD;
	c->done(c);
}

static void
check_condition(struct scsi_cmd *c, uint8_t key, uint16_t code)
{
	c->status = SCSI_CHECK_CONDITION;
	c->has_sense = true;
	fill_sense(c->sense, key, code);
	c->done(c);
}

static void
illegal(struct scsi_cmd *c, uint16_t code)
{
	check_condition(c, ILLEGAL_REQUEST, code);
}

static void
overrun(struct scsi_cmd *c)
{
	c->overrun = true;
	c->status = SCSI_GOOD;
	c->done(c);
}

static void
io_error(struct scsi_cmd *c, int result)
{
	log_guest(c->u->who, "%s at block %llu failed: %s", c->write ? "writing" : "reading",
		(unsigned long long)(c->off / BLOCK_SIZE), strerror(-result));
	if (result == -ENOSPC)
		check_condition(c, DATA_PROTECT, OUT_OF_SPACE);
	else if (result == -EROFS)
		check_condition(c, DATA_PROTECT, WRITE_PROTECTED);
	else
		check_condition(c, MEDIUM_ERROR, c->write ? WRITE_ERROR : READ_ERROR);
}

/* ---- the host's buffer ---- */

/* Copy between the buffer, from its start on, and `p`. Returns bytes copied. */
static uint32_t
copy(struct scsi_cmd *c, void *p, uint32_t n, bool to_host)
{
	uint8_t *at = p;
	uint32_t done = 0;

	for (int i = 0; i < c->iovcnt && done < n; i++) {
		uint32_t k = (uint32_t)MIN((uint64_t)n - done, c->iov[i].iov_len);

		if (to_host)
			memcpy(c->iov[i].iov_base, at + done, k);
		else
			memcpy(at + done, c->iov[i].iov_base, k);
		done += k;
	}
	return done;
}

/* `len` bytes of answer are in c->buf; the command allows `max`. */
static void
answer(struct scsi_cmd *c, uint32_t len, uint32_t max)
{
	if (c->dir == SCSI_IN)
		c->moved = copy(c, c->buf, MIN(len, max), true);
	good(c);
}

/* Fetch `len` bytes of parameters into c->buf. False: they are not there, and the command is over. */
static bool
parameters(struct scsi_cmd *c, uint32_t len)
{
	if (len > sizeof(c->buf)) {
		illegal(c, LIST_LENGTH);
		return false;
	}
	if (c->dir != SCSI_OUT || copy(c, c->buf, len, false) != len) {
		overrun(c);
		return false;
	}
	c->moved = len;
	return true;
}

/* ---- requests to the image ---- */

static void
request_done(struct block_req *r, int result)
{
	struct scsi_cmd *c = container_of(r, struct scsi_cmd, req);

	c->then(c, result);
}

static void
submit(struct scsi_cmd *c, enum block_op op, uint64_t off, uint64_t len, int iovcnt,
	void (*then)(struct scsi_cmd *c, int result))
{
	c->then = then;
	c->req = (struct block_req){
		.op = op, .off = off, .len = len, .iov = c->part, .iovcnt = iovcnt, .done = request_done
	};
	block_submit(c->u->block, &c->req);
}

static void
flushed(struct scsi_cmd *c, int result)
{
	if (result)
		io_error(c, result);
	else
		good(c);
}

static void
end_of_writing(struct scsi_cmd *c)
{
	if (c->write && (c->fua || !c->u->s.write_cache))
		submit(c, BLOCK_FLUSH, 0, 0, 0, flushed);
	else
		good(c);
}

/*
 * The next pieces of the buffer, from c->pos on, as c->part: whole blocks, at most c->left bytes. Returns the bytes,
 * *count the pieces; 0 when BLOCK_IOV_MAX pieces do not hold a block.
 */
static uint32_t
next_pieces(struct scsi_cmd *c, int *count)
{
	uint32_t skip = c->pos, total = 0, extra;
	int n = 0;

	for (int i = 0; i < c->iovcnt && n < BLOCK_IOV_MAX && total < c->left; i++) {
		uint32_t len = (uint32_t)MIN(c->iov[i].iov_len, UINT32_MAX), k;

		if (skip >= len) {
			skip -= len;
			continue;
		}
		k = MIN(len - skip, c->left - total);
		c->part[n++] = (struct iovec){ (uint8_t *)c->iov[i].iov_base + skip, k };
		total += k;
		skip = 0;
	}
	for (extra = total % BLOCK_SIZE, total -= extra; extra && n;) {
		uint32_t k = (uint32_t)MIN((uint64_t)extra, c->part[n - 1].iov_len);

		c->part[n - 1].iov_len -= k;
		extra -= k;
		n -= c->part[n - 1].iov_len == 0;
	}
	*count = n;
	return total;
}

static void pass(struct scsi_cmd *c);

static void
pass_done(struct scsi_cmd *c, int result)
{
	if (result) {
		io_error(c, result);
		return;
	}
	c->off += c->pass;
	c->pos += c->pass;
	c->left -= c->pass;
	c->moved += c->pass;
	if (c->left)
		pass(c);
	else
		end_of_writing(c);
}

static void
pass(struct scsi_cmd *c)
{
	int n;

	c->pass = next_pieces(c, &n);
	if (c->pass)
		submit(c, c->write ? BLOCK_WRITE : BLOCK_READ, c->off, 0, n, pass_done);
	else
		overrun(c);
}

/* ---- reading and writing (SBC-3 5.8 - 5.12, 5.35 - 5.39) ---- */

/* LBA and number of blocks of a command, by the group code of its operation (SPC-4 4.2.5.1). */
static void
address(const uint8_t *cdb, uint64_t *lba, uint32_t *count)
{
	switch (cdb[0] >> 5) {
	case 0:
		*lba = be32(cdb) & 0x1fffff;
		*count = cdb[4] ? cdb[4] : 256;
		return;
	case 4:
		*lba = be64(cdb + 2);
		*count = be32(cdb + 10);
		return;
	case 5:
		*lba = be32(cdb + 2);
		*count = be32(cdb + 6);
		return;
	}
	*lba = be32(cdb + 2);
	*count = be16(cdb + 7);
}

static bool
in_range(const struct scsi_unit *u, uint64_t lba, uint64_t count)
{
	return count <= u->blocks && lba <= u->blocks - count;
}

static bool
may_write(struct scsi_cmd *c)
{
	if (!c->u->read_only)
		return true;
	check_condition(c, DATA_PROTECT, WRITE_PROTECTED);
	return false;
}

static void
transfer(struct scsi_cmd *c, bool write)
{
	uint64_t lba;
	uint32_t count;

	address(c->cdb, &lba, &count);
	c->write = write;
	c->fua = c->cdb[0] >= 0x20 && (c->cdb[1] & 8);
	if (c->cdb[0] == 0x2e || c->cdb[0] == 0x8e || c->cdb[0] == 0xae)
		c->fua = true; /* WRITE AND VERIFY */
	if (!in_range(c->u, lba, count)) {
		illegal(c, BAD_LBA);
	} else if (write && !may_write(c)) {
		return;
	} else if (!count) {
		good(c);
	} else if (c->dir != (write ? SCSI_OUT : SCSI_IN) || count > c->len / BLOCK_SIZE) {
		overrun(c);
	} else {
		c->off = lba * BLOCK_SIZE;
		c->left = count * BLOCK_SIZE;
		pass(c);
	}
}

static void
read_blocks(struct scsi_cmd *c)
{
	transfer(c, false);
}

static void
write_blocks(struct scsi_cmd *c)
{
	transfer(c, true);
}

/* VERIFY without the host's data to compare with: are the blocks there? */
static void
verify(struct scsi_cmd *c)
{
	uint64_t lba;
	uint32_t count;

	address(c->cdb, &lba, &count);
	if (c->cdb[1] & 6)
		illegal(c, BAD_FIELD);
	else if (!in_range(c->u, lba, count))
		illegal(c, BAD_LBA);
	else
		good(c);
}

static void
synchronize_cache(struct scsi_cmd *c)
{
	c->write = true;
	c->off = 0;
	submit(c, BLOCK_FLUSH, 0, 0, 0, flushed);
}

/* ---- UNMAP and WRITE SAME (SBC-3 5.28, 5.43) ---- */

#define RANGE_BLOCKS_MAX (1u << 22) /* 2 GiB a request to the image */

static void next_range(struct scsi_cmd *c);

static void
work_on_range(struct scsi_cmd *c, int result)
{
	uint64_t n = MIN(c->range_left, RANGE_BLOCKS_MAX), off = c->off;

	if (result) {
		io_error(c, result);
		return;
	}
	if (!n) {
		next_range(c);
		return;
	}
	c->off += n * BLOCK_SIZE;
	c->range_left -= n;
	submit(c, c->zero ? BLOCK_WRITE_ZEROES : BLOCK_DISCARD, off, n * BLOCK_SIZE, 0, work_on_range);
}

/* Descriptor after descriptor of UNMAP's list in c->buf: LBA (8), blocks (4). WRITE SAME has none. */
static void
next_range(struct scsi_cmd *c)
{
	if (c->range_at + 16 > c->moved || c->zero || c->cdb[0] != 0x42) {
		end_of_writing(c);
		return;
	}
	c->off = be64(c->buf + c->range_at) * BLOCK_SIZE;
	c->range_left = be32(c->buf + c->range_at + 8);
	c->range_at += 16;
	work_on_range(c, 0);
}

static void
unmap(struct scsi_cmd *c)
{
	uint32_t len = be16(c->cdb + 7), list;

	c->write = true;
	if (!c->u->discard) {
		illegal(c, BAD_OPCODE);
		return;
	}
	if ((c->cdb[1] & 1) || !may_write(c)) {
		if (c->cdb[1] & 1) /* ANCHOR */
			illegal(c, BAD_FIELD);
		return;
	}
	if (!len) {
		good(c);
		return;
	}
	if (len < 8) {
		illegal(c, LIST_LENGTH);
		return;
	}
	if (!parameters(c, len))
		return;
	list = MIN(be16(c->buf + 2), len - 8) & ~15u;
	c->moved = 8 + list;
	for (uint32_t at = 8; at < c->moved; at += 16)
		if (!in_range(c->u, be64(c->buf + at), be32(c->buf + at + 8))) {
			illegal(c, BAD_LBA);
			return;
		}
	c->range_at = 8;
	next_range(c);
}

/* One block of data for all of them: only zeroes, and unmapping, are worth having. */
static void
write_same(struct scsi_cmd *c)
{
	static const uint8_t zeroes[BLOCK_SIZE];
	uint8_t flags = c->cdb[1];
	bool no_data = c->cdb[0] == 0x93 && (flags & 1);
	uint64_t lba;
	uint32_t count;

	address(c->cdb, &lba, &count);
	c->write = true;
	if ((flags & 0x16) || ((flags & 8) && !c->u->discard)) { /* ANCHOR, PBDATA, LBDATA; UNMAP */
		illegal(c, BAD_FIELD);
		return;
	}
	if (!in_range(c->u, lba, count ? count : 1)) {
		illegal(c, BAD_LBA);
		return;
	}
	if (!may_write(c) || (!no_data && !parameters(c, BLOCK_SIZE)))
		return;
	if (!no_data && memcmp(c->buf, zeroes, BLOCK_SIZE)) {
		illegal(c, BAD_FIELD);
		return;
	}
	c->zero = true;
	c->off = lba * BLOCK_SIZE;
	c->range_left = count ? count : c->u->blocks - lba; /* WSNZ is 0: 0 means to the end */
	work_on_range(c, 0);
}

/* ---- what the unit is ---- */

static void
put_text(uint8_t *p, size_t len, const char *text)
{
	size_t n = strlen(text);

	memset(p, ' ', len);
	memcpy(p, text, MIN(n, len));
}

static uint8_t
device_type(const struct scsi_unit *u)
{
	return u->cdrom ? 5 : 0;
}

/* Device identification (SPC-4 7.8.6): vendor, product and serial number as text; for a disk with a UUID a NAA name. */
static uint32_t
identification(const struct scsi_unit *u, uint8_t *p)
{
	uint32_t len = 24 + (uint32_t)strlen(u->serial), at = 4;

	p[at] = 2; /* ASCII */
	p[at + 1] = 1;
	p[at + 3] = (uint8_t)len;
	put_text(p + at + 4, 8, u->vendor);
	put_text(p + at + 12, 16, u->product);
	memcpy(p + at + 28, u->serial, len - 24);
	at += 4 + len;
	if (!le64(u->uuid) && !le64(u->uuid + 8))
		return at;
	p[at] = 1; /* binary */
	p[at + 1] = 3;
	p[at + 3] = 16;
	memcpy(p + at + 4, u->uuid, 16);
	p[at + 4] = 0x60; /* IEEE registered extended: 24 bits of company, the rest from the UUID */
	p[at + 5] = 0x80;
	p[at + 6] = 0x02;
	p[at + 7] = (uint8_t)(0x70 | (p[at + 7] & 15));
	return at + 20;
}

/* Block limits and characteristics, thin provisioning (SBC-3 6.5). */
static uint32_t
block_page(const struct scsi_unit *u, uint8_t page, uint8_t *p)
{
	switch (page) {
	case 0xb0:
		put_be16(p + 6, 8);	 /* granularity of an optimal transfer */
		put_be32(p + 8, 0xffff); /* longest transfer, blocks */
		put_be32(p + 12, 2048);
		if (u->discard) {
			put_be32(p + 20, RANGE_BLOCKS_MAX);
			put_be32(p + 24, SCSI_UNMAP_MAX);
			put_be32(p + 28, 8);
		}
		put_be64(p + 36, RANGE_BLOCKS_MAX);
		return 64;
	case 0xb1:
		put_be16(p + 4, u->nonrotational ? 1 : 7200);
		return 64;
	}
	p[5] = 0xe0; /* LBPU, LBPWS, LBPWS10 */
	p[6] = 2;    /* thin */
	return 8;
}

static void
vital_page(struct scsi_cmd *c)
{
	const struct scsi_unit *u = c->u;
	uint8_t *p = c->buf, page = c->cdb[2];
	uint32_t len = 0;

	memset(p, 0, 256);
	p[0] = device_type(u);
	p[1] = page;
	if (page == 0x00) {
		static const uint8_t pages[] = { 0x00, 0x80, 0x83, 0xb0, 0xb1, 0xb2 };

		len = 4 + (u->cdrom ? 3 : u->discard ? 6 : 5);
		memcpy(p + 4, pages, len - 4);
	} else if (page == 0x80) {
		len = 4 + (uint32_t)strlen(u->serial);
		memcpy(p + 4, u->serial, len - 4);
	} else if (page == 0x83) {
		len = identification(u, p);
	} else if (!u->cdrom && (page == 0xb0 || page == 0xb1 || (page == 0xb2 && u->discard))) {
		len = block_page(u, page, p);
	}
	if (!len) {
		illegal(c, BAD_FIELD);
		return;
	}
	put_be16(p + 2, len - 4);
	answer(c, len, be16(c->cdb + 3));
}

static void
inquiry(struct scsi_cmd *c)
{
	const struct scsi_unit *u = c->u;
	uint8_t *p = c->buf;

	if (c->cdb[1] & 1) {
		vital_page(c);
		return;
	}
	if ((c->cdb[1] & 2) || c->cdb[2]) {
		illegal(c, BAD_FIELD);
		return;
	}
	memset(p, 0, 36);
	p[0] = c->lun ? 0x7f : device_type(u);
	p[1] = u->cdrom ? 0x80 : 0;
	p[2] = 5;    /* SPC-3 */
	p[3] = 0x12; /* HiSup, response data format 2 */
	p[4] = 36 - 5;
	p[7] = 2; /* queues commands */
	put_text(p + 8, 8, u->vendor);
	put_text(p + 16, 16, u->product);
	put_text(p + 32, 4, u->revision);
	answer(c, 36, be16(c->cdb + 3));
}

/* There is one logical unit, number 0. */
static void
report_luns(struct scsi_cmd *c)
{
	if (c->cdb[2] > 2) {
		illegal(c, BAD_FIELD);
		return;
	}
	memset(c->buf, 0, 16);
	if (c->cdb[2] != 1) /* well known units: none */
		put_be32(c->buf, 8);
	answer(c, c->cdb[2] == 1 ? 8 : 16, be32(c->cdb + 6));
}

static void
request_sense(struct scsi_cmd *c)
{
	struct scsi_state *s = &c->u->s;

	if (c->lun) {
		fill_sense(c->buf, ILLEGAL_REQUEST, BAD_LUN);
	} else if (s->attention) {
		fill_sense(c->buf, UNIT_ATTENTION, (uint16_t)(s->attention_asc << 8 | s->attention_ascq));
		s->attention = 0;
	} else {
		fill_sense(c->buf, NO_SENSE, NOTHING_TO_REPORT);
	}
	answer(c, SCSI_SENSE_LEN, c->cdb[4]);
}

static void
read_capacity_10(struct scsi_cmd *c)
{
	put_be32(c->buf, (uint32_t)MIN(c->u->blocks - 1, 0xffffffff));
	put_be32(c->buf + 4, BLOCK_SIZE);
	answer(c, 8, 8);
}

static void
service_action_in(struct scsi_cmd *c)
{
	uint8_t *p = c->buf;

	if ((c->cdb[1] & 31) != 0x10) {
		illegal(c, BAD_FIELD);
		return;
	}
	memset(p, 0, 32);
	put_be64(p, c->u->blocks - 1);
	put_be32(p + 8, BLOCK_SIZE);
	p[14] = c->u->discard ? 0x80 : 0; /* LBPME */
	answer(c, 32, be32(c->cdb + 10));
}

/* ---- mode pages (SPC-4 7.5, SBC-3 6.4) ---- */

/* Page `code` at `p`; `which`: 0 current, 1 changeable bits, 2 default. Returns the end. */
static uint8_t *
mode_page(const struct scsi_unit *u, uint8_t *p, uint8_t code, uint8_t which)
{
	uint8_t len = code == 0x08 ? 18 : 10;

	memset(p, 0, 2u + len);
	p[0] = code;
	p[1] = len;
	if (code == 0x08)
		p[2] = which == 1 || which == 2 || u->s.write_cache ? 4 : 0; /* WCE */
	else if (code == 0x0a && which != 1)
		p[3] = 0x10; /* commands may be reordered */
	return p + 2 + len;
}

static void
mode_sense(struct scsi_cmd *c)
{
	static const uint8_t pages[] = { 0x01, 0x08, 0x0a };
	const struct scsi_unit *u = c->u;
	bool ten = c->cdb[0] == 0x5a, descriptor = !(c->cdb[1] & 8);
	uint8_t code = c->cdb[2] & 0x3f, which = c->cdb[2] >> 6, specific = (uint8_t)(0x10 | (u->read_only ? 0x80 : 0));
	uint8_t *p = c->buf + (ten ? 8 : 4), *first;

	if (which == 3) {
		illegal(c, SAVING_UNSUPPORTED);
		return;
	}
	memset(c->buf, 0, 16);
	if (descriptor) {
		memset(p, 0, 8);
		put_be32(p, (uint32_t)MIN(u->blocks, 0xffffffff));
		put_be32(p + 4, BLOCK_SIZE);
		p += 8;
	}
	first = p;
	for (size_t i = 0; i < ARRAY_LEN(pages); i++)
		if (code == 0x3f || code == pages[i])
			p = mode_page(u, p, pages[i], which);
	if (p == first || (c->cdb[3] && c->cdb[3] != 0xff)) {
		illegal(c, BAD_FIELD);
		return;
	}
	if (ten) {
		put_be16(c->buf, (uint32_t)(p - c->buf) - 2);
		c->buf[3] = specific;
		c->buf[7] = descriptor ? 8 : 0;
	} else {
		c->buf[0] = (uint8_t)(p - c->buf - 1);
		c->buf[2] = specific;
		c->buf[3] = descriptor ? 8 : 0;
	}
	answer(c, (uint32_t)(p - c->buf), ten ? be16(c->cdb + 7) : c->cdb[4]);
}

/* The one bit that can be changed is WCE. Switching it off writes out what the cache holds. */
static void
mode_select(struct scsi_cmd *c)
{
	bool ten = c->cdb[0] == 0x55;
	uint32_t len = ten ? be16(c->cdb + 7) : c->cdb[4], at = ten ? 8 : 4;
	uint8_t cache = c->u->s.write_cache, wanted[20];

	if (!(c->cdb[1] & 0x10) || (c->cdb[1] & 1)) {
		illegal(c, BAD_FIELD);
		return;
	}
	if (!len) {
		good(c);
		return;
	}
	if (!parameters(c, len))
		return;
	at += len < at ? 0 : ten ? be16(c->buf + 6) : c->buf[3];
	while (at < len) {
		uint8_t code = c->buf[at] & 0x3f;
		uint8_t *end = mode_page(c->u, wanted, code, 0);
		uint32_t n = (uint32_t)(end - wanted);

		if ((code != 0x01 && code != 0x08 && code != 0x0a) || n > len - at || c->buf[at + 1] != n - 2) {
			illegal(c, BAD_PARAMETER);
			return;
		}
		if (code == 0x08)
			cache = c->buf[at + 2] & 4 ? 1 : 0;
		at += n;
	}
	c->write = c->fua = c->u->s.write_cache && !cache;
	c->u->s.write_cache = cache;
	end_of_writing(c);
}

/* ---- small ones ---- */

static void
start_stop(struct scsi_cmd *c)
{
	if (c->cdb[4] & 0xf0) { /* power conditions: nothing to do */
		good(c);
		return;
	}
	if (c->cdb[4] & 2) { /* cannot be ejected */
		illegal(c, BAD_FIELD);
		return;
	}
	c->u->s.stopped = !(c->cdb[4] & 1);
	c->write = c->fua = c->u->s.stopped;
	end_of_writing(c);
}

static void
nothing(struct scsi_cmd *c)
{
	good(c);
}

static void
send_diagnostic(struct scsi_cmd *c)
{
	if (c->cdb[1] & 4) /* self test: passed */
		good(c);
	else
		illegal(c, BAD_FIELD);
}

enum { ALLOW_UA = 1, NEED_STARTED = 2 };

static const struct {
	void (*run)(struct scsi_cmd *c);
	uint8_t flags;
} commands[256] = {
	[0x00] = { nothing, NEED_STARTED }, /* TEST UNIT READY */
	[0x03] = { request_sense, ALLOW_UA },
	[0x08] = { read_blocks, NEED_STARTED },
	[0x0a] = { write_blocks, NEED_STARTED },
	[0x12] = { inquiry, ALLOW_UA },
	[0x15] = { mode_select, 0 },
	[0x16] = { nothing, 0 }, /* RESERVE(6), RELEASE(6): there is one initiator */
	[0x17] = { nothing, 0 },
	[0x1a] = { mode_sense, 0 },
	[0x1b] = { start_stop, 0 },
	[0x1d] = { send_diagnostic, 0 },
	[0x25] = { read_capacity_10, 0 },
	[0x28] = { read_blocks, NEED_STARTED },
	[0x2a] = { write_blocks, NEED_STARTED },
	[0x2b] = { nothing, NEED_STARTED }, /* SEEK(10) */
	[0x2e] = { write_blocks, NEED_STARTED },
	[0x2f] = { verify, NEED_STARTED },
	[0x35] = { synchronize_cache, NEED_STARTED },
	[0x41] = { write_same, NEED_STARTED },
	[0x42] = { unmap, NEED_STARTED },
	[0x55] = { mode_select, 0 },
	[0x56] = { nothing, 0 },
	[0x57] = { nothing, 0 },
	[0x5a] = { mode_sense, 0 },
	[0x88] = { read_blocks, NEED_STARTED },
	[0x8a] = { write_blocks, NEED_STARTED },
	[0x8e] = { write_blocks, NEED_STARTED },
	[0x8f] = { verify, NEED_STARTED },
	[0x91] = { synchronize_cache, NEED_STARTED },
	[0x93] = { write_same, NEED_STARTED },
	[0x9e] = { service_action_in, 0 },
	[0xa0] = { report_luns, ALLOW_UA },
	[0xa8] = { read_blocks, NEED_STARTED },
	[0xaa] = { write_blocks, NEED_STARTED },
	[0xae] = { write_blocks, NEED_STARTED },
	[0xaf] = { verify, NEED_STARTED },
};

/* ---- CD-ROM drives: atapi.c's transport ---- */

static bool
cd_piece(struct ata_cmd *a, uint32_t index, gpa_t *at, uint32_t *len)
{
	struct scsi_unit *u = a->drive->port;
	const struct scsi_cmd *c = u->cd_now;

	if (!c || index >= (uint32_t)c->iovcnt)
		return false;
	*at = c->gpa[index];
	*len = (uint32_t)c->iov[index].iov_len;
	return true;
}

static void
cd_next(struct scsi_unit *u)
{
	struct scsi_cmd *c = u->cd_queue;

	if (u->cd_now || !c)
		return;
	u->cd_queue = c->next;
	if (!u->cd_queue)
		u->cd_tail = &u->cd_queue;
	u->cd_now = c;
	memset(&u->cd_cmd->tf, 0, sizeof(u->cd_cmd->tf));
	u->cd_cmd->tf.command = 0xa0;
	u->cd_cmd->tf.feature = 1; /* DMA */
	memcpy(u->cd_cmd->packet, c->cdb, sizeof(u->cd_cmd->packet));
	ata_start(u->cd_cmd);
}

static void
cd_finish(struct scsi_unit *u, bool failed)
{
	struct ata_state *s = &u->cd.s;
	struct scsi_cmd *c = u->cd_now;

	u->cd_now = NULL;
	c->moved = u->cd_cmd->moved;
	if (failed) {
		check_condition(c, s->sense_key, (uint16_t)(s->asc << 8 | s->ascq));
		s->sense_key = s->asc = s->ascq = 0; /* it went with the status */
	} else {
		good(c);
	}
	cd_next(u);
}

static void
cd_done(struct ata_cmd *a, bool interrupt)
{
	cd_finish(a->drive->port, a->tf.status & ATA_ERR);
}

static void
cd_ready(struct ata_cmd *a)
{
	struct scsi_unit *u = a->drive->port;

	if (u->cd_now->dir == (a->dir == ATA_IN ? SCSI_IN : SCSI_OUT))
		ata_dma_go(a);
	else
		a->drive->link->dma_error(a, false);
}

/* The command wants more than the host's buffer holds, or a piece of it is not memory. */
static void
cd_bad_buffer(struct ata_cmd *a, bool bad)
{
	struct scsi_unit *u = a->drive->port;
	struct scsi_cmd *c = u->cd_now;

	a->phase = ATA_IDLE;
	u->cd_now = NULL;
	overrun(c);
	cd_next(u);
}

static void
cd_cancelled(struct ata_cmd *a)
{
}

static const struct ata_link cd_link = {
	.sata = true,
	.sg = cd_piece,
	.dma_wait = cd_ready,
	.dma_error = cd_bad_buffer,
	.done = cd_done,
	.cancelled = cd_cancelled,
};

static void
cd_start(struct scsi_cmd *c)
{
	c->next = NULL;
	*c->u->cd_tail = c;
	c->u->cd_tail = &c->next;
	cd_next(c->u);
}

/* ---- any command ---- */

static void
disk_start(struct scsi_cmd *c)
{
	struct scsi_state *s = &c->u->s;
	uint8_t op = c->cdb[0], flags = commands[op].flags;

	if (s->attention && !(flags & ALLOW_UA)) {
		s->attention = 0;
		check_condition(c, UNIT_ATTENTION, (uint16_t)(s->attention_asc << 8 | s->attention_ascq));
	} else if (!commands[op].run) {
		illegal(c, BAD_OPCODE);
	} else if (s->stopped && (flags & NEED_STARTED)) {
		check_condition(c, NOT_READY, NEEDS_START);
	} else {
		commands[op].run(c);
	}
}

void
scsi_start(struct scsi_cmd *c)
{
	uint8_t op = c->cdb[0];

	c->status = SCSI_GOOD;
	c->overrun = c->has_sense = c->write = c->fua = c->zero = false;
	c->moved = c->pos = c->left = c->range_at = 0;
	c->off = c->range_left = 0;
	if (c->lun && op != 0x03 && op != 0x12 && op != 0xa0)
		illegal(c, BAD_LUN);
	else if (op == 0x12)
		inquiry(c);
	else if (op == 0xa0)
		report_luns(c);
	else if (c->lun)
		request_sense(c);
	else if (c->u->cdrom)
		cd_start(c);
	else
		disk_start(c);
}

/* ---- attaching, resetting ---- */

static void
copy_text(char *to, size_t size, const char *text)
{
	snprintf(to, size, "%s", text);
	for (char *p = to; *p; p++)
		if (*p < ' ' || *p > '~')
			*p = '?';
}

/* "VBOX HARDDISK" is vendor and product. */
static void
set_texts(struct scsi_unit *u, const struct drive_config *cfg)
{
	const char *model = cfg->model ? cfg->model : cfg->cdrom ? "VBOX CD-ROM" : "VBOX HARDDISK";
	const char *space = strchr(model, ' ');
	size_t n = space && space - model <= 8 ? (size_t)(space - model) : 0;

	memset(u->vendor, 0, sizeof(u->vendor));
	memcpy(u->vendor, model, n);
	copy_text(u->product, sizeof(u->product), n ? space + 1 : model);
	copy_text(u->revision, sizeof(u->revision), cfg->firmware ? cfg->firmware : "1.0");
}

/* As ata.c makes it: from the image, so that a disk keeps its name in the guest wherever it is attached. */
static void
set_serial(struct scsi_unit *u, const struct drive_config *cfg, const struct block_info *info, int id)
{
	char text[21];

	memcpy(u->uuid, info->uuid.b, sizeof(u->uuid));
	if (cfg->serial)
		snprintf(text, sizeof(text), "%.20s", cfg->serial);
	else if (!cfg->cdrom && (le64(u->uuid) || le64(u->uuid + 8)))
		snprintf(text, sizeof(text), "VB%02x%02x%02x%02x-%x", u->uuid[0], u->uuid[1], u->uuid[2], u->uuid[3],
			le32(u->uuid + 12));
	else
		snprintf(text, sizeof(text), "%s%08x", cfg->cdrom ? "CD" : "VB", (unsigned)id + 1);
	copy_text(u->serial, sizeof(u->serial), text);
}

void
scsi_attach(struct scsi_unit *u, struct machine *m, const struct drive_config *cfg, const char *controller, int id)
{
	struct block_info info = { 0 };

	memset(u, 0, sizeof(*u));
	if (cfg->block && !cfg->cdrom)
		block_get_info(cfg->block, &info);
	u->m = m;
	u->cdrom = cfg->cdrom;
	u->nonrotational = cfg->nonrotational;
	u->read_only = info.read_only;
	u->discard = cfg->discard && !cfg->cdrom && !u->read_only;
	u->blocks = info.size / BLOCK_SIZE;
	u->cd_tail = &u->cd_queue;
	snprintf(u->who, sizeof(u->who), "%.24s/%.12s.%d", m->name, controller, id);
	set_texts(u, cfg);
	set_serial(u, cfg, &info, id);
	if (u->cdrom) {
		struct drive_config cd = *cfg;

		cd.serial = u->serial;
		u->cd_buf = xcalloc(1, ATA_BUF);
		u->cd_cmd = xcalloc(1, sizeof(*u->cd_cmd));
		u->cd_cmd->drive = &u->cd;
		ata_attach(&u->cd, m, &cd, &cd_link, u, u->cd_buf, controller, id);
	} else {
		u->block = cfg->block;
		block_attach_loop(u->block, m->loop);
	}
	u->present = true;
	scsi_reset(u, true);
}

void
scsi_drain(struct scsi_unit *u)
{
	/* What waits for the CD-ROM drive is started as it becomes free. */
	while (u->present && u->cdrom && u->cd_now && u->cd.block)
		block_drain(u->cd.block);
	if (u->block)
		block_drain(u->block);
}

void
scsi_detach(struct scsi_unit *u)
{
	if (!u->present)
		return;
	scsi_drain(u);
	u->present = false;
	if (u->cdrom)
		ata_detach(&u->cd);
	if (u->block)
		block_attach_loop(u->block, NULL);
	u->block = NULL;
	free(u->cd_cmd);
	free(u->cd_buf);
	u->cd_cmd = NULL;
	u->cd_buf = NULL;
}

void
scsi_attention(struct scsi_unit *u, uint16_t code)
{
	u->s.attention = 1;
	u->s.attention_asc = (uint8_t)(code >> 8);
	u->s.attention_ascq = (uint8_t)code;
	if (u->cdrom) {
		u->cd.s.attention = 1;
		u->cd.s.attention_asc = u->s.attention_asc;
		u->cd.s.attention_ascq = u->s.attention_ascq;
		u->s.attention = 0;
	}
}

void
scsi_reset(struct scsi_unit *u, bool hard)
{
	if (!u->present)
		return;
	if (hard)
		u->s = (struct scsi_state){ .write_cache = 1 };
	u->s.stopped = 0;
	if (u->cdrom)
		ata_reset(&u->cd, hard);
	scsi_attention(u, POWER_ON);
}

int
scsi_change_medium(struct scsi_unit *u, struct block *medium, bool force)
{
	return u->present && u->cdrom ? ata_change_medium(&u->cd, medium, force) : -ENOENT;
}
