/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A CD-ROM drive's packet commands (MMC-5, SPC-3, ATA/ATAPI-7; SFF-8020i for the old ones). Private to dev/; the
 * registers and the data's way to the host are ata.c's.
 *
 * The disc is one data track of 2048-byte sectors. Up to 900 MB it is presented as a CD-ROM, above as a DVD-ROM, so
 * that guests look for the structures that such a disc has.
 *
 * A disc comes and goes by ata_change_medium() (the host) and START STOP UNIT (the guest). The guest learns of it by a
 * unit attention on its next command and by the media event of GET EVENT STATUS NOTIFICATION.
 */
#include <errno.h>
#include <string.h>

#include "base/bytes.h"
#include "base/log.h"
#include "dev/ata.h"

enum { NO_SENSE = 0, NOT_READY = 2, MEDIUM_ERROR = 3, ILLEGAL_REQUEST = 5, UNIT_ATTENTION = 6 };

/* Additional sense codes, high byte ASC, low byte ASCQ (SPC-3 annex D). */
enum {
	BAD_OPCODE = 0x2000,
	BAD_LBA = 0x2100,
	BAD_FIELD = 0x2400,
	SAVING_UNSUPPORTED = 0x3900,
	MEDIUM_CHANGED = 0x2800,
	POWER_ON = 0x2900,
	NO_MEDIUM_CLOSED = 0x3a01,
	NO_MEDIUM_OPEN = 0x3a02,
	READ_ERROR = 0x1100,
	REMOVAL_PREVENTED = 0x5302,
	WRONG_TRACK_MODE = 0x6400,
};

enum { ALLOW_UA = 1, NEED_MEDIUM = 2 };

#define CD_MAX_BYTES (900ull << 20)
#define LEAD_IN_FRAMES 150

static bool
has_medium(const struct ata_drive *d)
{
	return d->block && !d->s.tray_open;
}

static bool
is_dvd(const struct ata_drive *d)
{
	return d->sectors * CD_SECTOR > CD_MAX_BYTES;
}

/* ---- results ---- */

static void
check_condition(struct ata_cmd *c, uint8_t key, uint16_t code)
{
	struct ata_state *s = &c->drive->s;

	s->sense_key = key;
	s->asc = (uint8_t)(code >> 8);
	s->ascq = (uint8_t)code;
	c->tf.count = ATAPI_COD | ATAPI_IO;
	ata_fail(c, (uint8_t)(key << 4 | ATA_ABRT));
}

static void
good(struct ata_cmd *c)
{
	c->tf.count = ATAPI_COD | ATAPI_IO;
	ata_done(c);
}

static void
no_medium(struct ata_cmd *c)
{
	check_condition(c, NOT_READY, c->drive->s.tray_open ? NO_MEDIUM_OPEN : NO_MEDIUM_CLOSED);
}

void
atapi_io_error(struct ata_cmd *c, int result)
{
	if (result == -ENOMEDIUM)
		no_medium(c);
	else
		check_condition(c, MEDIUM_ERROR, READ_ERROR);
}

/*
 * How the data phase goes: by DMA if the feature register said so; otherwise in blocks of what the byte count register
 * allows, an even number unless it is all (ATA/ATAPI-7 6.20.8).
 */
static uint32_t
data_phase(struct ata_cmd *c)
{
	uint32_t limit = (uint32_t)(c->tf.lba >> 8 & 0xffff);

	c->pio = c->drive->link->pio && !(c->tf.feature & 1);
	if (limit == 0 || limit == 0xffff)
		limit = 0xfffe;
	return limit > 1 ? limit & ~1u : limit;
}

/* `len` bytes of answer are in the buffer; the host asked for at most `max`. */
static void
answer(struct ata_cmd *c, uint32_t len, uint32_t max)
{
	len = MIN(len, max);
	if (len)
		ata_move_buffer(c, ATA_IN, len, data_phase(c), ATA_STEP_END);
	else
		good(c);
}

static void
read_sectors(struct ata_cmd *c, uint32_t lba, uint32_t count)
{
	struct ata_drive *d = c->drive;

	if (count > d->sectors || lba > d->sectors - count) {
		check_condition(c, ILLEGAL_REQUEST, BAD_LBA);
		return;
	}
	/* Longer than any DMA or host wants (32 MiB); keeps byte counts in 32 bits. */
	if (count > 0x4000) {
		check_condition(c, ILLEGAL_REQUEST, BAD_FIELD);
		return;
	}
	if (!count)
		good(c);
	else
		ata_move_medium(c, ATA_IN, (uint64_t)lba * CD_SECTOR, count * CD_SECTOR, data_phase(c));
}

/* ---- commands ---- */

static void
test_unit_ready(struct ata_cmd *c)
{
	good(c);
}

static void
request_sense(struct ata_cmd *c)
{
	struct ata_state *s = &c->drive->s;
	uint8_t *p = c->drive->buf;

	if (s->sense_key == NO_SENSE && s->attention) {
		s->sense_key = UNIT_ATTENTION;
		s->asc = s->attention_asc;
		s->ascq = s->attention_ascq;
		s->attention = 0;
	}
	memset(p, 0, 18);
	p[0] = 0x70;
	p[2] = s->sense_key;
	p[7] = 10;
	p[12] = s->asc;
	p[13] = s->ascq;
	s->sense_key = s->asc = s->ascq = 0;
	answer(c, 18, c->packet[4]);
}

static void
put_text(uint8_t *p, size_t len, const char *text)
{
	size_t n = strlen(text);

	memset(p, ' ', len);
	memcpy(p, text, MIN(n, len));
}

static void
inquiry(struct ata_cmd *c)
{
	struct ata_drive *d = c->drive;
	const char *space = strchr(d->model, ' ');
	char vendor[9] = "";

	if (c->packet[1] & 3) { /* no vital product data pages */
		check_condition(c, ILLEGAL_REQUEST, BAD_FIELD);
		return;
	}
	if (space && space - d->model <= 8)
		memcpy(vendor, d->model, (size_t)(space - d->model));
	memset(d->buf, 0, 36);
	d->buf[0] = 5;	  /* CD-ROM */
	d->buf[1] = 0x80; /* removable */
	d->buf[3] = 0x21; /* ATAPI, response format 1 */
	d->buf[4] = 31;
	put_text(d->buf + 8, 8, vendor);
	put_text(d->buf + 16, 16, *vendor ? space + 1 : d->model);
	put_text(d->buf + 32, 4, d->firmware);
	answer(c, 36, be16(c->packet + 3));
}

static void
start_stop_unit(struct ata_cmd *c)
{
	struct ata_drive *d = c->drive;
	bool start = c->packet[4] & 1, eject = c->packet[4] & 2;

	if (!eject || (c->packet[4] & 0xf0)) { /* spinning up or down, power conditions: nothing to do */
		good(c);
		return;
	}
	if (start) {
		if (d->s.tray_open && d->block) {
			d->s.attention = 1;
			d->s.attention_asc = MEDIUM_CHANGED >> 8;
			d->s.attention_ascq = 0;
			d->s.media_event = 2;
		}
		d->s.tray_open = 0;
		good(c);
		return;
	}
	if (d->s.locked) {
		check_condition(c, d->block ? ILLEGAL_REQUEST : NOT_READY, REMOVAL_PREVENTED);
		return;
	}
	d->s.tray_open = 1;
	good(c);
	if (d->block && d->ejected) {
		ata_detach(d);
		d->sectors = 0;
		d->ejected(d->opaque);
	}
}

static void
prevent_allow(struct ata_cmd *c)
{
	c->drive->s.locked = c->packet[4] & 1;
	good(c);
}

static void
read_capacity(struct ata_cmd *c)
{
	struct ata_drive *d = c->drive;

	put_be32(d->buf, (uint32_t)MIN(d->sectors ? d->sectors - 1 : 0, 0xffffffff));
	put_be32(d->buf + 4, CD_SECTOR);
	answer(c, 8, 8);
}

static void
read_10(struct ata_cmd *c)
{
	read_sectors(c, be32(c->packet + 2), be16(c->packet + 7));
}

static void
read_12(struct ata_cmd *c)
{
	read_sectors(c, be32(c->packet + 2), be32(c->packet + 6));
}

/* READ CD and READ CD MSF: user data of Mode 1 sectors, which is all that an image of 2048-byte sectors has. */
static void
read_cd_sectors(struct ata_cmd *c, uint32_t lba, uint32_t count)
{
	uint8_t type = c->packet[1] >> 2 & 7, parts = c->packet[9] & 0xf8;

	if (type != 0 && type != 2) {
		check_condition(c, ILLEGAL_REQUEST, WRONG_TRACK_MODE);
		return;
	}
	if (!parts && !(c->packet[10] & 7)) {
		good(c);
		return;
	}
	if (parts != 0x10 || (c->packet[10] & 7)) {
		check_condition(c, ILLEGAL_REQUEST, BAD_FIELD);
		return;
	}
	read_sectors(c, lba, count);
}

static void
read_cd(struct ata_cmd *c)
{
	read_cd_sectors(c, be32(c->packet + 2), (uint32_t)c->packet[6] << 16 | be16(c->packet + 7));
}

static uint32_t
from_msf(const uint8_t *p)
{
	return ((uint32_t)p[0] * 60 + p[1]) * 75 + p[2];
}

static void
read_cd_msf(struct ata_cmd *c)
{
	uint32_t start = from_msf(c->packet + 3), end = from_msf(c->packet + 6);

	if (start < LEAD_IN_FRAMES || end < start)
		check_condition(c, ILLEGAL_REQUEST, BAD_LBA);
	else
		read_cd_sectors(c, start - LEAD_IN_FRAMES, end - start);
}

static void
seek(struct ata_cmd *c)
{
	if (be32(c->packet + 2) >= c->drive->sectors)
		check_condition(c, ILLEGAL_REQUEST, BAD_LBA);
	else
		good(c);
}

/* ---- table of contents (MMC-5 6.26) ---- */

static void
put_address(uint8_t *p, uint32_t lba, bool msf)
{
	uint32_t frames = lba + LEAD_IN_FRAMES;

	if (!msf) {
		put_be32(p, lba);
		return;
	}
	p[0] = 0;
	p[1] = (uint8_t)MIN(frames / 75 / 60, 255);
	p[2] = (uint8_t)(frames / 75 % 60);
	p[3] = (uint8_t)(frames % 75);
}

static uint8_t *
toc_entry(uint8_t *p, uint8_t track, uint32_t lba, bool msf)
{
	memset(p, 0, 8);
	p[1] = 0x14; /* current position, data track */
	p[2] = track;
	put_address(p + 4, lba, msf);
	return p + 8;
}

/* Format 0: the tracks. Returns the length, 0 for a track that does not exist. */
static uint32_t
toc_tracks(const struct ata_drive *d, uint8_t *buf, uint8_t first, bool msf)
{
	uint8_t *p = buf + 4;

	if (first > 1 && first != 0xaa)
		return 0;
	buf[2] = buf[3] = 1;
	if (first <= 1)
		p = toc_entry(p, 1, 0, msf);
	p = toc_entry(p, 0xaa, (uint32_t)d->sectors, msf);
	return (uint32_t)(p - buf);
}

/* Format 1: the sessions, of which there is one. */
static uint32_t
toc_sessions(const struct ata_drive *d, uint8_t *buf, bool msf)
{
	buf[2] = buf[3] = 1;
	toc_entry(buf + 4, 1, 0, msf);
	return 12;
}

static uint8_t *
raw_entry(uint8_t *p, uint8_t point, uint8_t m, uint8_t s, uint8_t f)
{
	memset(p, 0, 11);
	p[0] = 1;
	p[1] = 0x14;
	p[3] = point;
	p[8] = m;
	p[9] = s;
	p[10] = f;
	return p + 11;
}

/* Format 2: the raw entries of the lead-in: first track, last track, lead-out, track 1. */
static uint32_t
toc_raw(const struct ata_drive *d, uint8_t *buf)
{
	uint8_t *p = buf + 4, out[4];

	buf[2] = buf[3] = 1;
	put_address(out, (uint32_t)d->sectors, true);
	p = raw_entry(p, 0xa0, 1, 0, 0);
	p = raw_entry(p, 0xa1, 1, 0, 0);
	p = raw_entry(p, 0xa2, out[1], out[2], out[3]);
	p = raw_entry(p, 1, 0, 2, 0);
	return (uint32_t)(p - buf);
}

static void
read_toc(struct ata_cmd *c)
{
	struct ata_drive *d = c->drive;
	uint8_t format = c->packet[2] & 15;
	bool msf = c->packet[1] & 2;
	uint32_t len = 0;

	if (format == 0) /* SFF-8020i had the format in byte 9 */
		format = c->packet[9] >> 6;
	memset(d->buf, 0, 64);
	if (format == 0)
		len = toc_tracks(d, d->buf, c->packet[6], msf);
	else if (format == 1)
		len = toc_sessions(d, d->buf, msf);
	else if (format == 2 && c->packet[6] <= 1)
		len = toc_raw(d, d->buf);
	if (!len) {
		check_condition(c, ILLEGAL_REQUEST, BAD_FIELD);
		return;
	}
	put_be16(d->buf, len - 2);
	answer(c, len, be16(c->packet + 7));
}

static void
read_sub_channel(struct ata_cmd *c)
{
	uint8_t *p = c->drive->buf;

	memset(p, 0, 24);
	p[1] = 0x15; /* no audio status */
	if (!(c->packet[2] & 0x40)) {
		answer(c, 4, be16(c->packet + 7));
		return;
	}
	if (c->packet[3] < 1 || c->packet[3] > 3) {
		check_condition(c, ILLEGAL_REQUEST, BAD_FIELD);
		return;
	}
	p[4] = c->packet[3];
	if (c->packet[3] == 1) {
		put_be16(p + 2, 12);
		p[5] = 0x14;
		p[6] = p[7] = 1;
		put_address(p + 8, 0, c->packet[1] & 2);
		put_address(p + 12, 0, c->packet[1] & 2);
		answer(c, 16, be16(c->packet + 7));
		return;
	}
	put_be16(p + 2, 20); /* no catalogue number, no ISRC */
	answer(c, 24, be16(c->packet + 7));
}

/* ---- what drive and disc can do (MMC-5 5.2, 5.3) ---- */

enum { PROFILE_CD = 0x0008, PROFILE_DVD = 0x0010 };

static uint8_t *
feature(uint8_t *p, uint16_t code, uint8_t version, bool persistent, bool current, uint8_t len)
{
	memset(p, 0, 4u + len);
	put_be16(p, code);
	p[2] = (uint8_t)(version << 2 | (persistent ? 2 : 0) | (current ? 1 : 0));
	p[3] = len;
	return p + 4 + len;
}

static uint8_t *
feature_profiles(struct ata_drive *d, uint8_t *p, uint16_t current)
{
	uint8_t *end = feature(p, 0x0000, 0, true, true, 8);

	put_be16(p + 4, PROFILE_DVD);
	p[6] = current == PROFILE_DVD;
	put_be16(p + 8, PROFILE_CD);
	p[10] = current == PROFILE_CD;
	return end;
}

static uint8_t *
put_feature(struct ata_drive *d, uint8_t *p, uint16_t code, uint16_t current)
{
	uint8_t *end;

	switch (code) {
	case 0x0000:
		return feature_profiles(d, p, current);
	case 0x0001: /* core: ATAPI */
		end = feature(p, code, 2, true, true, 8);
		put_be32(p + 4, 2);
		p[8] = 1; /* device busy events */
		return end;
	case 0x0002: /* morphing: polled */
		return feature(p, code, 1, true, true, 4);
	case 0x0003: /* removable medium: tray, eject, lock */
		end = feature(p, code, 0, true, true, 4);
		p[4] = 0x29;
		return end;
	case 0x0010: /* random readable */
		end = feature(p, code, 0, false, current != 0, 8);
		put_be32(p + 4, CD_SECTOR);
		put_be16(p + 8, 16);
		return end;
	case 0x001e: /* CD read */
		return feature(p, code, 2, false, current == PROFILE_CD, 4);
	case 0x001f: /* DVD read */
		return feature(p, code, 0, false, current == PROFILE_DVD, 0);
	}
	return p;
}

static void
get_configuration(struct ata_cmd *c)
{
	static const uint16_t features[] = { 0x0000, 0x0001, 0x0002, 0x0003, 0x0010, 0x001e, 0x001f };
	struct ata_drive *d = c->drive;
	uint16_t current = !has_medium(d) ? 0 : is_dvd(d) ? PROFILE_DVD : PROFILE_CD, from = be16(c->packet + 2);
	uint8_t which = c->packet[1] & 3, *p = d->buf + 8;

	if (which == 3) {
		check_condition(c, ILLEGAL_REQUEST, BAD_FIELD);
		return;
	}
	memset(d->buf, 0, 8);
	for (size_t i = 0; i < ARRAY_LEN(features); i++) {
		uint8_t *next = p;

		if (which == 2 ? features[i] == from : features[i] >= from)
			next = put_feature(d, p, features[i], current);
		if (next > p && (which != 1 || (p[2] & 1)))
			p = next;
	}
	put_be32(d->buf, (uint32_t)(p - d->buf) - 4);
	put_be16(d->buf + 6, current);
	answer(c, (uint32_t)(p - d->buf), be16(c->packet + 7));
}

/* GET EVENT STATUS NOTIFICATION, polled (MMC-5 6.6): operational change, media. */
static void
get_event_status(struct ata_cmd *c)
{
	struct ata_drive *d = c->drive;
	uint8_t *p = d->buf;

	if (!(c->packet[1] & 1)) { /* asynchronous: no */
		check_condition(c, ILLEGAL_REQUEST, BAD_FIELD);
		return;
	}
	memset(p, 0, 8);
	p[3] = 0x10; /* media is the one class there is */
	if (!(c->packet[4] & 0x10)) {
		p[1] = 2;
		p[2] = 0x80; /* no event available */
		answer(c, 4, be16(c->packet + 7));
		return;
	}
	p[1] = 6;
	p[2] = 4;
	p[4] = d->s.media_event;
	p[5] = (uint8_t)((d->s.tray_open ? 1 : 0) | (has_medium(d) ? 2 : 0));
	d->s.media_event = 0;
	answer(c, 8, be16(c->packet + 7));
}

/* ---- mode pages (MMC-5 7) ---- */

static uint8_t *
mode_page(uint8_t *p, uint8_t code, uint8_t len)
{
	memset(p, 0, 2u + len);
	p[0] = code;
	p[1] = len;
	return p + 2 + len;
}

static uint8_t *
put_mode_page(struct ata_drive *d, uint8_t *p, uint8_t code, bool changeable)
{
	uint8_t *end;

	switch (code) {
	case 0x01: /* read error recovery */
		end = mode_page(p, code, 10);
		p[3] = changeable ? 0 : 5; /* retries */
		return end;
	case 0x0e: /* audio control */
		return mode_page(p, code, 14);
	case 0x1a: /* power condition */
		return mode_page(p, code, 10);
	case 0x2a: /* capabilities and mechanical status */
		end = mode_page(p, code, 20);
		if (changeable)
			return end;
		p[2] = 0x08 | 0x10;				/* reads DVD-ROM */
		p[4] = 0x70;					/* multisession, Mode 2 form 1 and 2 */
		p[6] = (uint8_t)(0x29 | (d->s.locked ? 2 : 0)); /* tray, eject, lock */
		put_be16(p + 8, 706 * 4);			/* kB/s */
		put_be16(p + 10, 2);
		put_be16(p + 12, 128);
		put_be16(p + 14, 706 * 4);
		return end;
	}
	return p;
}

static uint8_t
medium_type(const struct ata_drive *d)
{
	return d->s.tray_open ? 0x71 : has_medium(d) ? 0x01 : 0x70;
}

static void
mode_sense(struct ata_cmd *c)
{
	static const uint8_t pages[] = { 0x01, 0x0e, 0x1a, 0x2a };
	struct ata_drive *d = c->drive;
	bool ten = c->packet[0] == 0x5a;
	uint8_t code = c->packet[2] & 0x3f, control = c->packet[2] >> 6, *p = d->buf + (ten ? 8 : 4), *first = p;

	if (control == 3) {
		check_condition(c, ILLEGAL_REQUEST, SAVING_UNSUPPORTED);
		return;
	}
	memset(d->buf, 0, 8);
	for (size_t i = 0; i < ARRAY_LEN(pages); i++)
		if (code == 0x3f || code == pages[i])
			p = put_mode_page(d, p, pages[i], control == 1);
	if (p == first) {
		check_condition(c, ILLEGAL_REQUEST, BAD_FIELD);
		return;
	}
	if (ten) {
		put_be16(d->buf, (uint32_t)(p - d->buf) - 2);
		d->buf[2] = medium_type(d);
	} else {
		d->buf[0] = (uint8_t)(p - d->buf - 1);
		d->buf[1] = medium_type(d);
	}
	answer(c, (uint32_t)(p - d->buf), ten ? be16(c->packet + 7) : c->packet[4]);
}

static void
mode_select(struct ata_cmd *c)
{
	uint32_t len = c->packet[0] == 0x55 ? be16(c->packet + 7) : c->packet[4];

	if (c->packet[1] & 1) { /* nothing can be saved */
		check_condition(c, ILLEGAL_REQUEST, BAD_FIELD);
		return;
	}
	if (len)
		ata_move_buffer(c, ATA_OUT, MIN(len, ATA_BUF), data_phase(c), ATA_STEP_MODE_SELECT);
	else
		good(c);
}

/* None of our pages has a changeable bit: what the host writes is taken and ignored. */
void
atapi_mode_select(struct ata_cmd *c)
{
	good(c);
}

static void
mechanism_status(struct ata_cmd *c)
{
	uint8_t *p = c->drive->buf;

	memset(p, 0, 8);
	p[1] = c->drive->s.tray_open ? 0x10 : 0;
	answer(c, 8, be16(c->packet + 8));
}

static void
read_disc_information(struct ata_cmd *c)
{
	uint8_t *p = c->drive->buf;

	if (c->packet[1] & 7) {
		check_condition(c, ILLEGAL_REQUEST, BAD_FIELD);
		return;
	}
	memset(p, 0, 34);
	put_be16(p, 32);
	p[2] = 0x0e; /* last session complete, disc finalised */
	p[3] = p[4] = p[5] = p[6] = 1;
	p[7] = 0x20; /* unrestricted use */
	memset(p + 16, 0xff, 8);
	answer(c, 34, be16(c->packet + 7));
}

static void
read_track_information(struct ata_cmd *c)
{
	struct ata_drive *d = c->drive;
	uint32_t where = be32(c->packet + 2);
	uint8_t kind = c->packet[1] & 3, *p = d->buf;

	if (kind == 3 || (kind == 0 && where >= d->sectors) || (kind != 0 && where != 1)) {
		check_condition(c, ILLEGAL_REQUEST, BAD_FIELD);
		return;
	}
	memset(p, 0, 36);
	put_be16(p, 34);
	p[2] = p[3] = 1;
	p[5] = 4; /* data track */
	p[6] = 1; /* Mode 1 */
	put_be32(p + 24, (uint32_t)d->sectors);
	answer(c, 36, be16(c->packet + 7));
}

/* READ DVD STRUCTURE (MMC-5 6.22) formats 00h physical, 01h copyright, 04h manufacturer. */
static void
read_dvd_structure(struct ata_cmd *c)
{
	struct ata_drive *d = c->drive;
	uint8_t *p = d->buf, format = c->packet[7];
	uint32_t len = format == 0 || format == 4 ? 4 + 2048 : 8, last = 0x30000 + (uint32_t)d->sectors - 1;

	if (!is_dvd(d) || c->packet[1] || c->packet[6] || (format != 0 && format != 1 && format != 4)) {
		check_condition(c, ILLEGAL_REQUEST, BAD_FIELD);
		return;
	}
	memset(p, 0, len);
	put_be16(p, len - 2);
	if (format == 0) {
		p[4] = 0x01; /* DVD-ROM, part 1 */
		p[5] = 0x0f; /* 120 mm, no maximum rate */
		p[6] = 0x01; /* one layer, embossed */
		put_be32(p + 8, 0x30000);
		put_be32(p + 12, last);
	}
	answer(c, len, be16(c->packet + 8));
}

static void
nothing(struct ata_cmd *c)
{
	good(c);
}

static const struct {
	void (*run)(struct ata_cmd *c);
	uint8_t flags;
} commands[256] = {
	[0x00] = { test_unit_ready, NEED_MEDIUM },
	[0x03] = { request_sense, ALLOW_UA },
	[0x12] = { inquiry, ALLOW_UA },
	[0x1a] = { mode_sense, 0 },
	[0x1b] = { start_stop_unit, 0 },
	[0x1e] = { prevent_allow, 0 },
	[0x25] = { read_capacity, NEED_MEDIUM },
	[0x28] = { read_10, NEED_MEDIUM },
	[0x2b] = { seek, NEED_MEDIUM },
	[0x42] = { read_sub_channel, NEED_MEDIUM },
	[0x43] = { read_toc, NEED_MEDIUM },
	[0x46] = { get_configuration, ALLOW_UA },
	[0x4a] = { get_event_status, ALLOW_UA },
	[0x4e] = { nothing, 0 }, /* STOP PLAY/SCAN */
	[0x51] = { read_disc_information, NEED_MEDIUM },
	[0x52] = { read_track_information, NEED_MEDIUM },
	[0x55] = { mode_select, 0 },
	[0x5a] = { mode_sense, 0 },
	[0xa8] = { read_12, NEED_MEDIUM },
	[0xad] = { read_dvd_structure, NEED_MEDIUM },
	[0xb9] = { read_cd_msf, NEED_MEDIUM },
	[0xbb] = { nothing, 0 }, /* SET CD SPEED */
	[0xbd] = { mechanism_status, 0 },
	[0xbe] = { read_cd, NEED_MEDIUM },
};

void
atapi_packet(struct ata_cmd *c)
{
	struct ata_state *s = &c->drive->s;
	uint8_t op;

	if (c->drive->link->pio)
		memcpy(c->packet, c->drive->buf, 12);
	op = c->packet[0];
	c->step = ATA_STEP_END;
	if (s->attention && !(commands[op].flags & ALLOW_UA)) {
		s->attention = 0;
		check_condition(c, UNIT_ATTENTION, (uint16_t)(s->attention_asc << 8 | s->attention_ascq));
		return;
	}
	if (op != 0x03)
		s->sense_key = s->asc = s->ascq = NO_SENSE;
	if (!commands[op].run)
		check_condition(c, ILLEGAL_REQUEST, BAD_OPCODE);
	else if ((commands[op].flags & NEED_MEDIUM) && !has_medium(c->drive))
		no_medium(c);
	else
		commands[op].run(c);
}

/* ---- the rest of the drive ---- */

void
atapi_identify(struct ata_drive *d, uint8_t *id)
{
	put_le16(id, 0x85c0);	       /* ATAPI, CD-ROM, removable, DRQ within 50 us, 12-byte packets */
	put_le16(id + 82 * 2, 0x0218); /* DEVICE RESET, PACKET, power management */
	put_le16(id + 83 * 2, 0x4000);
	put_le16(id + 84 * 2, 0x4000);
	put_le16(id + 85 * 2, 0x0218);
	put_le16(id + 87 * 2, 0x4000);
}

void
atapi_reset(struct ata_drive *d, bool hard)
{
	d->s.sense_key = d->s.asc = d->s.ascq = NO_SENSE;
	d->s.locked = 0;
	if (!hard)
		return;
	d->s.attention = 1;
	d->s.attention_asc = POWER_ON >> 8;
	d->s.attention_ascq = POWER_ON & 0xff;
}
