/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One drive, two transports. Private to dev/.
 *
 * ata.c (disks) and atapi.c (CD-ROM drives) carry out commands; ide.c and ahci.c bring them and move their data. The
 * transport fills in c->tf and calls ata_start(); what follows is calls through `struct ata_link`:
 *
 *   no data        -> done(c)
 *   PIO            -> drq(c): drq_len bytes at ata_drq_data(c) are the host's to read (dir ATA_IN) or fill (ATA_OUT);
 *                     the transport answers with ata_drq_done(c); and so on until done(c)
 *   DMA            -> dma_wait(c): the transport calls ata_dma_go(c) once its scatter list is valid; then sg(c, n) is
 *                     asked for its entries, and done(c), or dma_error(c) when the list is too short or names no memory
 *   cancelled      -> after ata_cancel(c), cancelled(c) as soon as nothing of the command is in flight
 *
 * In a transport without PIO (link->pio false: AHCI) all data goes through the scatter list.
 *
 * States of a command (c->phase), and what moves it on:
 *   IDLE     ata_start()
 *   DISK     waits for a block request                         its completion
 *   DRQ      waits for the host to move a DRQ block            ata_drq_done()
 *   DMA      waits for the transport to start the DMA engine   ata_dma_go()
 * A drive with one command a time (ide.c) is busy while phase != IDLE. Machine lock held throughout.
 */
#ifndef DEV_ATA_H
#define DEV_ATA_H

#include <stdbool.h>
#include <stdint.h>

#include "block/block.h"
#include "bus/machine.h"
#include "dev/dev.h"

/* Status and error registers (ATA8-ACS section 6) */
enum {
	ATA_ERR = 0x01, /* CHK for packet commands */
	ATA_DRQ = 0x08,
	ATA_DSC = 0x10,
	ATA_DF = 0x20,
	ATA_DRDY = 0x40,
	ATA_BSY = 0x80,
	ATA_ABRT = 0x04,
	ATA_IDNF = 0x10,
	ATA_UNC = 0x40,
};

/* Interrupt reason in the count register of packet commands */
enum { ATAPI_COD = 1, ATAPI_IO = 2 };

#define ATA_SECTOR 512u
#define CD_SECTOR 2048u
/* A DRQ block is within the buffer; PIO reads ahead and writes behind by as much as fits. */
#define ATA_BUF 65536u
#define ATA_MULTIPLE_MAX 16

/*
 * The task file. 48-bit commands have the "previous" bytes above the current ones: count and feature 15:8, LBA 47:24.
 * Results of a command are put back here.
 */
struct ata_tf {
	uint64_t lba; /* 7:0 low, 15:8 mid, 23:16 high, 47:24 previous contents of the same */
	uint16_t feature, count;
	uint8_t device, command, status, error;
};

enum ata_dir { ATA_IN, ATA_OUT }; /* as the host sees it */
enum ata_phase { ATA_IDLE, ATA_DISK, ATA_DRQ_WAIT, ATA_DMA_WAIT };
/* What to do with a buffer that the host has filled, or when all data was moved. */
enum ata_step { ATA_STEP_END, ATA_STEP_DSM, ATA_STEP_PACKET, ATA_STEP_MODE_SELECT };

struct ata_drive;

struct ata_cmd {
	struct ata_drive *drive;
	struct ata_tf tf;
	uint8_t packet[16];

	/* the transfer */
	uint64_t off;	  /* of the next byte on the medium */
	uint32_t left;	  /* bytes between here and the end of the command's data, not yet in a DRQ block or DMA pass */
	uint32_t chunk;	  /* most bytes in a DRQ block */
	uint32_t drq_len; /* bytes of the current DRQ block */
	uint32_t buf_pos, buf_len;
	uint32_t sg_index, sg_off; /* cursor in the scatter list */
	uint32_t moved;		   /* bytes through the scatter list so far */
	uint8_t phase;		   /* enum ata_phase */
	uint8_t dir;		   /* enum ata_dir */
	uint8_t step;		   /* enum ata_step */
	uint8_t media;		   /* the data is the medium's, otherwise the buffer's */
	uint8_t pio;		   /* the data goes in DRQ blocks */
	uint8_t fua;		   /* flush behind the data */
	uint8_t first;		   /* no DRQ block was given yet */
	uint8_t cancel;

	/* derived: the request in flight */
	struct block_req req;
	void (*then)(struct ata_cmd *c, int result);
	uint32_t mapped;
	int ranges;
	struct iovec iov[BLOCK_IOV_MAX];
	gpa_t at[BLOCK_IOV_MAX];
};

/* The rows of a device's `fields` for one command (it has to be at `m`, an expression of constants). */
#define ATA_CMD_FIELDS(type, m)                                                                                        \
	FIELD(type, m.tf.lba), FIELD(type, m.tf.feature), FIELD(type, m.tf.count), FIELD(type, m.tf.device),           \
		FIELD(type, m.tf.command), FIELD(type, m.tf.status), FIELD(type, m.tf.error),                          \
		FIELD_ARRAY(type, m.packet), FIELD(type, m.off), FIELD(type, m.left), FIELD(type, m.chunk),            \
		FIELD(type, m.drq_len), FIELD(type, m.buf_pos), FIELD(type, m.buf_len), FIELD(type, m.sg_index),       \
		FIELD(type, m.sg_off), FIELD(type, m.moved), FIELD(type, m.phase), FIELD(type, m.dir),                 \
		FIELD(type, m.step), FIELD(type, m.media), FIELD(type, m.pio), FIELD(type, m.fua),                     \
		FIELD(type, m.first)

/* Settings and conditions of a drive that outlast a command. */
struct ata_state {
	uint64_t ncq_lba;
	uint8_t multiple;   /* sectors in a DRQ block of READ/WRITE MULTIPLE; 0: not set */
	uint8_t heads, spt; /* of the current CHS translation */
	uint8_t dma_mode;   /* as SET FEATURES gave it: 0x20 | multiword, 0x40 | ultra */
	uint8_t write_cache, read_ahead, smart, standby;
	/* the queued command that failed, for READ LOG EXT page 10h */
	uint8_t ncq_failed, ncq_tag, ncq_status, ncq_error;
	/* CD-ROM */
	uint8_t sense_key, asc, ascq;
	uint8_t attention, attention_asc, attention_ascq;
	uint8_t tray_open, locked, media_event;
};

#define ATA_STATE_FIELDS(type, m)                                                                                      \
	FIELD(type, m.ncq_lba), FIELD(type, m.multiple), FIELD(type, m.heads), FIELD(type, m.spt),                     \
		FIELD(type, m.dma_mode), FIELD(type, m.write_cache), FIELD(type, m.read_ahead), FIELD(type, m.smart),  \
		FIELD(type, m.standby), FIELD(type, m.ncq_failed), FIELD(type, m.ncq_tag), FIELD(type, m.ncq_status),  \
		FIELD(type, m.ncq_error), FIELD(type, m.sense_key), FIELD(type, m.asc), FIELD(type, m.ascq),           \
		FIELD(type, m.attention), FIELD(type, m.attention_asc), FIELD(type, m.attention_ascq),                 \
		FIELD(type, m.tray_open), FIELD(type, m.locked), FIELD(type, m.media_event)

struct ata_link {
	bool sata; /* what IDENTIFY says about the cable; queued commands */
	bool pio;  /* there are drq() and ata_drq_done() */
	/* Entry `index` of the scatter list; false: it has no such entry. */
	bool (*sg)(struct ata_cmd *c, uint32_t index, gpa_t *at, uint32_t *len);
	/* A DRQ block waits for the host; `interrupt` says whether the standard wants one now. */
	void (*drq)(struct ata_cmd *c, bool interrupt);
	void (*dma_wait)(struct ata_cmd *c);
	/* `bad`: an entry names no memory; otherwise the list ended early. The command stays unfinished. */
	void (*dma_error)(struct ata_cmd *c, bool bad);
	/* The command is over; c->tf has its results. No interrupt after the last DRQ block of a PIO read. */
	void (*done)(struct ata_cmd *c, bool interrupt);
	void (*cancelled)(struct ata_cmd *c);
};

struct ata_drive {
	bool present;
	bool cdrom, nonrotational, discard;
	const struct ata_link *link;
	void *port; /* the transport's */
	struct machine *m;
	struct block *block; /* not owned; NULL: a CD-ROM drive with nothing in it */
	uint64_t sectors;    /* of 512 bytes (disk) or 2048 (disc) */
	uint16_t cylinders;
	char who[48];
	char serial[21], model[41], firmware[9];
	void (*ejected)(void *opaque);
	void *opaque;
	uint8_t *buf; /* ATA_BUF bytes, the transport's */
	struct ata_state s;
};

/* Fill `d`; `buf` has ATA_BUF bytes. `unit` makes the default serial number and the name for the log. */
void ata_attach(struct ata_drive *d, struct machine *m, const struct drive_config *cfg, const struct ata_link *link,
	void *port, uint8_t *buf, const char *controller, int unit);
/* Let go of the medium (nothing is in flight any more). */
void ata_detach(struct ata_drive *d);
/* Power-on state (hard), or what a soft reset leaves. Nothing is in flight. */
void ata_reset(struct ata_drive *d, bool hard);
/* Registers after a reset or diagnostic: the signature of the drive's kind. */
void ata_signature(const struct ata_drive *d, struct ata_tf *tf);

/* Carry out c->tf.command. c->phase is ATA_IDLE. Without PIO c->packet is already filled in. */
void ata_start(struct ata_cmd *c);
uint8_t *ata_drq_data(struct ata_cmd *c);
void ata_drq_done(struct ata_cmd *c);
void ata_dma_go(struct ata_cmd *c);
void ata_cancel(struct ata_cmd *c);
static inline bool
ata_is_queued(uint8_t command)
{
	return command == 0x60 || command == 0x61; /* READ and WRITE FPDMA QUEUED */
}

/* Change the disc: NULL takes it out. See ide_change_medium() in dev.h. */
int ata_change_medium(struct ata_drive *d, struct block *medium, bool force);

/* ---- between ata.c and atapi.c ---- */

void ata_done(struct ata_cmd *c);
void ata_fail(struct ata_cmd *c, uint8_t error);
/* Move `len` bytes of the drive's buffer from or to the host, then take `step`. */
void ata_move_buffer(struct ata_cmd *c, enum ata_dir dir, uint32_t len, uint32_t chunk, enum ata_step step);
/* Move `len` bytes of the medium at `off`. */
void ata_move_medium(struct ata_cmd *c, enum ata_dir dir, uint64_t off, uint32_t len, uint32_t chunk);
/* Put `text` into IDENTIFY words from `word` on: padded with spaces, bytes of each word swapped. */
void ata_identify_text(uint8_t *id, int word, int words, const char *text);

void atapi_identify(struct ata_drive *d, uint8_t *id);
void atapi_reset(struct ata_drive *d, bool hard);
void atapi_packet(struct ata_cmd *c);		    /* c->packet is complete */
void atapi_mode_select(struct ata_cmd *c);	    /* its parameters are in the buffer */
void atapi_io_error(struct ata_cmd *c, int result); /* reading the medium failed: -errno */
uint64_t ata_medium_size(const struct ata_drive *d);

#endif
