/* SPDX-License-Identifier: Apache-2.0 */
/*
 * SCSI logical units: what virtio-scsi and the LSI Logic controllers have in common. Private to dev/.
 *
 * The transport fills in c->cdb, c->lun and the host's buffer (c->iov, of c->len bytes, and c->gpa: the guest addresses
 * of its pieces) and calls scsi_start(). The unit moves the data and calls c->done() once, perhaps before scsi_start()
 * returns; then status, sense, moved and overrun tell what became of it. The buffer and `c` stay the transport's and
 * must not change in between. What was written into the buffer is reported to the memory by the transport.
 *
 * Disks are scsi.c's own (SPC-4, SBC-3). A CD-ROM drive is the packet device of atapi.c behind the same door; it works
 * on one command at a time, the others wait.
 *
 * Machine lock held throughout.
 */
#ifndef DEV_SCSI_H
#define DEV_SCSI_H

#include <stdbool.h>
#include <stdint.h>

#include "block/block.h"
#include "bus/machine.h"
#include "dev/ata.h"
#include "dev/dev.h"

/* Status (SAM-5 5.3.1) */
enum { SCSI_GOOD = 0x00, SCSI_CHECK_CONDITION = 0x02, SCSI_BUSY = 0x08 };
#define SCSI_CDB_MAX 32
#define SCSI_SENSE_LEN 18
/* UNMAP's list: a header of 8 bytes and 255 descriptors of 16 (SBC-3 5.28); the longest list there is. */
#define SCSI_UNMAP_MAX 255
#define SCSI_BUF (8 + SCSI_UNMAP_MAX * 16)

enum scsi_dir { SCSI_NO_DATA, SCSI_IN, SCSI_OUT }; /* as the host sees it */

struct scsi_unit;

struct scsi_cmd {
	struct scsi_unit *u;
	uint8_t cdb[SCSI_CDB_MAX];
	uint64_t lun;
	enum scsi_dir dir;
	const struct iovec *iov;
	const gpa_t *gpa;
	int iovcnt;
	uint32_t len;
	void (*done)(struct scsi_cmd *c);

	/* results */
	uint8_t status;
	bool overrun; /* the command has more data than the buffer takes, or the buffer is unusable; nothing was moved
		       */
	bool has_sense;
	uint8_t sense[SCSI_SENSE_LEN];
	uint32_t moved;

	/* private */
	struct block_req req;
	void (*then)(struct scsi_cmd *c, int result);
	uint64_t off;
	uint32_t left, pos, pass;
	uint64_t range_left; /* blocks of the range that UNMAP or WRITE SAME works on */
	uint32_t range_at;
	bool write, fua, zero;
	struct scsi_cmd *next; /* waits for the CD-ROM drive */
	struct iovec part[BLOCK_IOV_MAX];
	uint8_t buf[SCSI_BUF];
};

/* Conditions of a unit that outlast a command; bytes only, so that a device saves it as it is. */
struct scsi_state {
	uint8_t attention, attention_asc, attention_ascq;
	uint8_t sense_key, asc, ascq; /* for REQUEST SENSE */
	uint8_t write_cache, stopped;
};

struct scsi_unit {
	bool present;
	bool cdrom, nonrotational, discard, read_only;
	struct machine *m;
	struct block *block; /* of a disk */
	uint64_t blocks;     /* of 512 bytes */
	uint8_t uuid[16];
	char who[48], serial[21], vendor[9], product[17], revision[5];
	struct scsi_state s;
	/* a CD-ROM drive */
	struct ata_drive cd;
	struct ata_cmd *cd_cmd;
	uint8_t *cd_buf;
	struct scsi_cmd *cd_now, *cd_queue, **cd_tail;
};

/* The rows of a device's `fields` for one unit. */
#define SCSI_UNIT_FIELDS(type, m) FIELD(type, m.s), FIELD(type, m.cd.s)

/* Fill `u` (zeroed). `id` makes the default serial number and the name for the log. */
void scsi_attach(
	struct scsi_unit *u, struct machine *m, const struct drive_config *cfg, const char *controller, int id);
/* Wait for what is in flight (its done() is called) and let go of the medium. */
void scsi_detach(struct scsi_unit *u);
void scsi_drain(struct scsi_unit *u);
/* Power-on state (hard), or what a reset by the host leaves. Nothing is in flight. */
void scsi_reset(struct scsi_unit *u, bool hard);
void scsi_start(struct scsi_cmd *c);
/* The next command hears of it: unit attention with this code (ASC << 8 | ASCQ). */
void scsi_attention(struct scsi_unit *u, uint16_t code);
/* See ide_change_medium() in dev.h. */
int scsi_change_medium(struct scsi_unit *u, struct block *medium, bool force);

#endif
