/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The PIIX4's (and PIIX3's) IDE controller: two channels of two drives at the ports PCs have always had, and a bus
 * master that moves their data. (Intel 82371AB data sheet, order 290562, chapter 9; ATA/ATAPI-7 volume 2; Programming
 * Interface for Bus Master IDE Controller 1.0, "BM" below)
 *
 *   primary   0x1f0-0x1f7  0x3f6  interrupt 14  BAR4 + 0      offset  read           write
 *   secondary 0x170-0x177  0x376  interrupt 15  BAR4 + 8         0    data           data
 *                                                                1    error          feature
 *   BAR4 + 0  bus master command                                2    count          count
 *        + 2  bus master status                                  3-5  LBA low..high  the same
 *        + 4  address of the PRD table                            6    device         device
 *                                                                7    status         command
 *                                                               3f6   status         device control
 *
 * Both drives of a cable see every register write, and the one that the device register selects answers. Commands and
 * their data are ata.c's; this file has the registers, INTRQ, the DRQ block that is being moved through the data port,
 * and the bus master.
 *
 * A reset while a request to the image is in flight: the drives show BSY until it has come back (finish_resets()), so
 * that nothing of the old command touches memory or registers afterwards.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/log.h"
#include "base/str.h"
#include "dev/ata.h"
#include "dev/dev.h"

enum { CONTROL_NIEN = 2, CONTROL_SRST = 4, CONTROL_HOB = 0x80 };

/* BM 2.1, 2.2 */
enum {
	BM_START = 1,
	BM_WRITE = 8, /* to memory */
	BM_ACTIVE = 1,
	BM_ERROR = 2,
	BM_INTERRUPT = 4,
	BM_CAPABLE = 0x60,
};

/* IDE timing registers (82371AB 4.1.10): bit 15 decodes the channel's ports. */
enum { IDETIM = 0x40, IDETIM_IDE = 0x80 };

#define PRD_LAST 0x80000000u

struct channel {
	struct ide *ide;
	int n;
	struct ata_drive drive[2];
	struct ata_cmd cmd[2];
	uint8_t buf[2][ATA_BUF];
	uint32_t data_pos; /* in the DRQ block */
	uint8_t selected;  /* by the device register */
	uint8_t control;
	uint8_t intrq;
	uint8_t soft_reset;	 /* SRST was raised; not over before nothing is in flight */
	uint8_t diagnosing;	 /* it is EXECUTE DEVICE DIAGNOSTIC instead, and ends with an interrupt */
	uint8_t device_reset[2]; /* DEVICE RESET of a drive that was busy */
	uint8_t bm_command, bm_status;
	uint32_t bm_table;
	/* derived: the PRD table as read so far */
	uint32_t prd_index, prd_end; /* entry held; entries, as far as known (UINT32_MAX: no end seen) */
	bool prd_valid;
	gpa_t prd_at;
	uint32_t prd_len;
};

struct ide {
	struct pci_dev pci;
	struct irq irq[2];
	struct channel ch[2];
};

#define CHANNEL_FIELDS(n)                                                                                              \
	ATA_CMD_FIELDS(struct ide, ch[n].cmd[0]), ATA_CMD_FIELDS(struct ide, ch[n].cmd[1]),                            \
		ATA_STATE_FIELDS(struct ide, ch[n].drive[0].s), ATA_STATE_FIELDS(struct ide, ch[n].drive[1].s),        \
		FIELD(struct ide, ch[n].buf), FIELD(struct ide, ch[n].data_pos), FIELD(struct ide, ch[n].selected),    \
		FIELD(struct ide, ch[n].control), FIELD(struct ide, ch[n].intrq), FIELD(struct ide, ch[n].soft_reset), \
		FIELD(struct ide, ch[n].diagnosing), FIELD_ARRAY(struct ide, ch[n].device_reset),                      \
		FIELD(struct ide, ch[n].bm_command), FIELD(struct ide, ch[n].bm_status),                               \
		FIELD(struct ide, ch[n].bm_table)

static const struct field ide_fields[] = { CHANNEL_FIELDS(0), CHANNEL_FIELDS(1), FIELD_END };

/* ---- interrupts ---- */

static void
drive_irq(struct channel *ch)
{
	irq_set(&ch->ide->irq[ch->n], ch->intrq && !(ch->control & CONTROL_NIEN));
}

static void
set_intrq(struct channel *ch, uint8_t level)
{
	if (level && !ch->intrq)
		ch->bm_status |= BM_INTERRUPT;
	ch->intrq = level;
	drive_irq(ch);
}

/* ---- what the drives ask for ---- */

/* PRD `index`: 4 bytes address, 2 bytes count (0: 64 KiB), bit 31 ends the table, which is within 64 KiB (BM 1.2). */
static bool
prd_entry(struct ata_cmd *c, uint32_t index, gpa_t *at, uint32_t *len)
{
	struct channel *ch = c->drive->port;
	uint8_t e[8];

	if (!(ch->bm_command & BM_START) || !pci_bus_master(&ch->ide->pci))
		return false;
	if (!ch->prd_valid || ch->prd_index != index) {
		if (index >= ch->prd_end || index >= (65536 - (ch->bm_table & 0xffff)) / 8 ||
			!mem_read(&ch->ide->pci.dev.m->mem, (gpa_t)ch->bm_table + index * 8, e, 8))
			return false;
		ch->prd_at = le32(e) & ~1u;
		ch->prd_len = le32(e + 4) & 0xfffe ? le32(e + 4) & 0xfffe : 65536;
		ch->prd_index = index;
		ch->prd_valid = true;
		if (le32(e + 4) & PRD_LAST)
			ch->prd_end = index + 1;
	}
	*at = ch->prd_at;
	*len = ch->prd_len;
	return true;
}

static void
block_ready(struct ata_cmd *c, bool interrupt)
{
	struct channel *ch = c->drive->port;

	ch->data_pos = 0;
	c->tf.status = ATA_DRDY | ATA_DSC | ATA_DRQ;
	c->tf.error = 0;
	if (c->tf.command == 0xa0 && c->step != ATA_STEP_PACKET) {
		c->tf.count = c->dir == ATA_IN ? ATAPI_IO : 0;
		c->tf.lba = (c->tf.lba & 0xff) | (uint64_t)c->drq_len << 8;
	}
	if (interrupt)
		set_intrq(ch, 1);
}

static void
start_dma(struct channel *ch, struct ata_cmd *c)
{
	ch->bm_status |= BM_ACTIVE;
	ch->prd_valid = false;
	ch->prd_end = UINT32_MAX;
	c->sg_index = c->sg_off = 0;
	ata_dma_go(c);
}

static void
dma_ready(struct ata_cmd *c)
{
	struct channel *ch = c->drive->port;

	c->tf.status = ATA_BSY | ATA_DRDY | ATA_DSC;
	if (ch->bm_command & BM_START)
		start_dma(ch, c);
}

/*
 * A table that ends early leaves the drive waiting for more, as the hardware does: the guest sees neither ACTIVE nor
 * INTERRUPT (BM 3.1), and may start a new table. An address without memory is the master abort of a PCI cycle.
 */
static void
dma_failed(struct ata_cmd *c, bool bad)
{
	struct channel *ch = c->drive->port;

	ch->bm_status &= (uint8_t)~BM_ACTIVE;
	log_guest(c->drive->who, "command %02x: %s", c->tf.command,
		bad ? "a PRD names no memory" : "its PRD table is too short");
	if (!bad)
		return;
	ch->bm_status |= BM_ERROR;
	ata_fail(c, ATA_ABRT);
}

static void
command_done(struct ata_cmd *c, bool interrupt)
{
	struct channel *ch = c->drive->port;

	if (!c->pio)
		ch->bm_status &= (uint8_t)~BM_ACTIVE;
	if (interrupt)
		set_intrq(ch, 1);
}

/* ---- resets ---- */

static void
drive_reset(struct channel *ch, int unit)
{
	struct ata_drive *d = &ch->drive[unit];
	struct ata_tf *tf = &ch->cmd[unit].tf;

	memset(tf, 0, sizeof(*tf));
	ch->cmd[unit].phase = ATA_IDLE;
	if (!d->present)
		return;
	ata_reset(d, false);
	ata_signature(d, tf);
	tf->error = 1; /* diagnostic passed */
	tf->status = d->cdrom ? 0 : ATA_DRDY | ATA_DSC;
}

static void
finish_resets(struct channel *ch)
{
	for (int i = 0; i < 2; i++) {
		if (ch->cmd[i].phase == ATA_DISK || !ch->device_reset[i])
			continue;
		ch->device_reset[i] = 0;
		drive_reset(ch, i);
	}
	if (!ch->soft_reset || ch->control & CONTROL_SRST || ch->cmd[0].phase == ATA_DISK ||
		ch->cmd[1].phase == ATA_DISK)
		return;
	ch->soft_reset = 0;
	ch->selected = 0;
	drive_reset(ch, 0);
	drive_reset(ch, 1);
	if (ch->diagnosing)
		set_intrq(ch, 1);
	ch->diagnosing = 0;
}

static void
command_cancelled(struct ata_cmd *c)
{
	finish_resets(c->drive->port);
}

static void
begin_soft_reset(struct channel *ch, bool diagnostic)
{
	ch->soft_reset = 1;
	ch->diagnosing = diagnostic;
	set_intrq(ch, 0);
	ch->cmd[0].tf.status = ch->cmd[1].tf.status = ATA_BSY;
	for (int i = 0; i < 2; i++)
		if (ch->cmd[i].phase != ATA_IDLE)
			ata_cancel(&ch->cmd[i]);
	finish_resets(ch);
}

static const struct ata_link link = {
	.pio = true,
	.sg = prd_entry,
	.drq = block_ready,
	.dma_wait = dma_ready,
	.dma_error = dma_failed,
	.done = command_done,
	.cancelled = command_cancelled,
};

/* ---- command block registers ---- */

static void
command(struct channel *ch, uint8_t value)
{
	struct ata_drive *d = &ch->drive[ch->selected];
	struct ata_cmd *c = &ch->cmd[ch->selected];

	if (!d->present || ch->soft_reset || ch->device_reset[ch->selected])
		return;
	set_intrq(ch, 0);
	if (value == 0x08 && d->cdrom) { /* DEVICE RESET is taken at any time */
		c->tf.status = ATA_BSY;
		ch->device_reset[ch->selected] = 1;
		if (c->phase != ATA_IDLE)
			ata_cancel(c);
		else
			finish_resets(ch);
		return;
	}
	if (c->phase == ATA_DRQ_WAIT) {
		c->phase = ATA_IDLE; /* a new command ends the one whose data nobody fetches */
	} else if (c->phase != ATA_IDLE) {
		log_guest(d->who, "command %02x while %02x is not done", value, c->tf.command);
		return;
	}
	c->tf.command = value;
	c->tf.status = ATA_BSY;
	c->tf.error = 0;
	if (value == 0x90) /* EXECUTE DEVICE DIAGNOSTIC is for both drives (ATA/ATAPI-7 6.9) */
		begin_soft_reset(ch, true);
	else
		ata_start(c);
}

static void
device_control(struct channel *ch, uint8_t value)
{
	uint8_t was = ch->control;

	ch->control = value;
	drive_irq(ch);
	if (value & CONTROL_SRST && !(was & CONTROL_SRST))
		begin_soft_reset(ch, false);
	else
		finish_resets(ch);
}

/* Byte n of the LBA register pair: what was there becomes the previous content. */
static uint64_t
push_lba(uint64_t lba, unsigned n, uint8_t value)
{
	uint64_t current = lba >> (8 * n) & 0xff, low = 0xffull << (8 * n), high = low << 24;

	return (lba & ~(low | high)) | current << (8 * n + 24) | (uint64_t)value << (8 * n);
}

static void
register_write(struct channel *ch, unsigned reg, uint8_t value)
{
	ch->control &= (uint8_t)~CONTROL_HOB;
	if (reg == 7) {
		command(ch, value);
		return;
	}
	if (reg == 6)
		ch->selected = value >> 4 & 1;
	for (int i = 0; i < 2; i++) {
		struct ata_tf *tf = &ch->cmd[i].tf;

		if (ch->cmd[i].phase != ATA_IDLE && reg != 6)
			continue; /* BSY or DRQ: the drive ignores it */
		if (reg == 1)
			tf->feature = (uint16_t)(tf->feature << 8 | value);
		else if (reg == 2)
			tf->count = (uint16_t)(tf->count << 8 | value);
		else if (reg == 6)
			tf->device = value;
		else
			tf->lba = push_lba(tf->lba, reg - 3, value);
	}
}

static uint8_t
register_value(const struct channel *ch, unsigned reg)
{
	const struct ata_tf *tf = &ch->cmd[ch->selected].tf;
	bool previous = ch->control & CONTROL_HOB;

	if (!ch->drive[ch->selected].present) /* a lone drive answers for the missing one; an empty cable floats */
		return ch->drive[ch->selected ^ 1].present ? 0 : 0xff;
	switch (reg) {
	case 1:
		return tf->error;
	case 2:
		return (uint8_t)(previous ? tf->count >> 8 : tf->count);
	case 6:
		return (uint8_t)(tf->device | 0xa0);
	case 7:
		return tf->status;
	}
	return (uint8_t)(tf->lba >> (8 * (reg - 3) + (previous ? 24 : 0)));
}

static uint8_t
register_read(struct channel *ch, unsigned reg)
{
	uint8_t value = register_value(ch, reg);

	if (reg == 7 && ch->intrq)
		set_intrq(ch, 0);
	return value;
}

/* ---- the data port ---- */

/* Bytes of the DRQ block that this access moves; NULL: there is none. */
static uint8_t *
data_access(struct channel *ch, enum ata_dir dir, unsigned *size)
{
	struct ata_cmd *c = &ch->cmd[ch->selected];

	if (c->phase != ATA_DRQ_WAIT || c->dir != dir || ch->data_pos >= c->drq_len)
		return NULL;
	*size = MIN(*size, c->drq_len - ch->data_pos);
	return ata_drq_data(c) + ch->data_pos;
}

static void
data_moved(struct channel *ch, unsigned size)
{
	struct ata_cmd *c = &ch->cmd[ch->selected];

	ch->data_pos += size;
	if (ch->data_pos < c->drq_len)
		return;
	c->tf.status = ATA_BSY | ATA_DRDY | ATA_DSC;
	ata_drq_done(c);
}

static uint64_t
data_read(struct channel *ch, unsigned size)
{
	uint64_t value = 0;
	uint8_t *p = data_access(ch, ATA_IN, &size);

	if (!p)
		return ~0ull;
	memcpy(&value, p, size);
	data_moved(ch, size);
	return value;
}

static void
data_write(struct channel *ch, uint64_t value, unsigned size)
{
	uint8_t *p = data_access(ch, ATA_OUT, &size);

	if (!p)
		return;
	memcpy(p, &value, size);
	data_moved(ch, size);
}

/* ---- ports ---- */

static bool
decoded(const struct channel *ch)
{
	return ch->ide->pci.config[IDETIM + 2 * ch->n + 1] & IDETIM_IDE;
}

static uint64_t
ports_read(void *opaque, uint64_t off, unsigned size)
{
	struct channel *ch = opaque;
	uint64_t value = 0;

	if (!decoded(ch))
		return ~0ull;
	if (off == 0)
		return data_read(ch, size);
	for (unsigned i = 0; i < size && off + i < 8; i++)
		value |= (uint64_t)register_read(ch, (unsigned)off + i) << (8 * i);
	return value;
}

static void
ports_write(void *opaque, uint64_t off, uint64_t value, unsigned size)
{
	struct channel *ch = opaque;

	if (!decoded(ch))
		return;
	if (off == 0) {
		data_write(ch, value, size);
		return;
	}
	for (unsigned i = 0; i < size && off + i < 8; i++)
		register_write(ch, (unsigned)off + i, (uint8_t)(value >> (8 * i)));
}

static uint64_t
control_read(void *opaque, uint64_t off, unsigned size)
{
	struct channel *ch = opaque;

	return decoded(ch) ? register_value(ch, 7) : 0xff;
}

static void
control_write(void *opaque, uint64_t off, uint64_t value, unsigned size)
{
	struct channel *ch = opaque;

	if (decoded(ch))
		device_control(ch, (uint8_t)value);
}

static const struct bus_ops ports_ops = { ports_read, ports_write, 1, 4 };
static const struct bus_ops control_ops = { control_read, control_write, 1, 1 };

/* ---- bus master registers ---- */

static void
bm_command_write(struct channel *ch, uint8_t value)
{
	bool rising = value & BM_START && !(ch->bm_command & BM_START);

	ch->bm_command = value & (BM_START | BM_WRITE);
	if (!(value & BM_START))
		ch->bm_status &= (uint8_t)~BM_ACTIVE;
	if (!rising)
		return;
	ch->bm_status |= BM_ACTIVE;
	for (int i = 0; i < 2; i++)
		if (ch->drive[i].present && ch->cmd[i].phase == ATA_DMA_WAIT)
			start_dma(ch, &ch->cmd[i]);
}

static uint64_t
bm_read(void *opaque, uint64_t off, unsigned size)
{
	struct ide *ide = opaque;
	struct channel *ch = &ide->ch[off >> 3];

	switch (off & 7) {
	case 0:
		return ch->bm_command;
	case 2:
		return ch->bm_status;
	case 4:
	case 5:
	case 6:
	case 7:
		return ch->bm_table >> (8 * (off & 3)) & 0xff;
	}
	return 0;
}

static void
bm_write(void *opaque, uint64_t off, uint64_t value, unsigned size)
{
	struct ide *ide = opaque;
	struct channel *ch = &ide->ch[off >> 3];
	unsigned shift = 8 * (off & 3);

	if ((off & 7) == 0) {
		bm_command_write(ch, (uint8_t)value);
	} else if ((off & 7) == 2) { /* error and interrupt are cleared by writing 1 */
		ch->bm_status &= (uint8_t) ~(value & (BM_ERROR | BM_INTERRUPT));
		ch->bm_status = (uint8_t)((ch->bm_status & ~BM_CAPABLE) | (value & BM_CAPABLE));
	} else if (off & 4) {
		ch->bm_table = (ch->bm_table & ~(0xffu << shift)) | (uint32_t)(value & 0xff) << shift;
		ch->bm_table &= ~3u;
		ch->prd_valid = false;
	}
}

static const struct bus_ops bm_ops = { bm_read, bm_write, 1, 1 };

/* ---- the device ---- */

static void
ide_drain(struct device *dev)
{
	struct ide *ide = (struct ide *)dev;

	for (int i = 0; i < 4; i++)
		if (ide->ch[i / 2].drive[i % 2].block)
			block_drain(ide->ch[i / 2].drive[i % 2].block);
}

static void
channel_reset(struct channel *ch)
{
	ch->control = ch->soft_reset = ch->diagnosing = ch->selected = 0;
	ch->device_reset[0] = ch->device_reset[1] = 0;
	ch->bm_command = 0;
	ch->bm_status = 0;
	ch->bm_table = 0;
	ch->data_pos = 0;
	ch->prd_valid = false;
	set_intrq(ch, 0);
	for (int i = 0; i < 2; i++) {
		if (ch->drive[i].present)
			ata_reset(&ch->drive[i], true);
		drive_reset(ch, i);
	}
}

static void
ide_reset(struct device *dev)
{
	struct ide *ide = (struct ide *)dev;

	/* A guest that resets in the middle of a transfer: let it come to its end first. */
	for (int i = 0; i < 4; i++)
		if (ide->ch[i / 2].cmd[i % 2].phase == ATA_DISK)
			ide->ch[i / 2].cmd[i % 2].cancel = 1;
	ide_drain(dev);
	channel_reset(&ide->ch[0]);
	channel_reset(&ide->ch[1]);
	pci_reset(&ide->pci);
	/*
	 * Real chips power up with both channels off and the BIOS turns them on. On a kernel that is started without a
	 * BIOS nobody would, so they are on.
	 */
	ide->pci.config[IDETIM + 1] = ide->pci.config[IDETIM + 3] = IDETIM_IDE;
}

static void
ide_loaded(struct device *dev)
{
	struct ide *ide = (struct ide *)dev;

	for (int i = 0; i < 2; i++) {
		ide->ch[i].prd_valid = false;
		ide->ch[i].prd_end = UINT32_MAX;
		drive_irq(&ide->ch[i]);
	}
}

static void
ide_destroy(struct device *dev)
{
	struct ide *ide = (struct ide *)dev;

	for (int i = 0; i < 4; i++)
		if (ide->ch[i / 2].drive[i % 2].present)
			ata_detach(&ide->ch[i / 2].drive[i % 2]);
	pci_remove(dev->m, &ide->pci);
	free(ide);
}

static const struct dev_class ide_class = {
	.name = "ide",
	.fields = ide_fields,
	.reset = ide_reset,
	.loaded = ide_loaded,
	.destroy = ide_destroy,
	.drain = ide_drain,
};

static void
channel_create(struct ide *ide, int n, uint16_t ports, uint16_t control)
{
	struct channel *ch = &ide->ch[n];

	ch->ide = ide;
	ch->n = n;
	ch->cmd[0].drive = &ch->drive[0];
	ch->cmd[1].drive = &ch->drive[1];
	io_add(&ide->pci.dev.m->io, ports, 8, &ports_ops, ch);
	io_add(&ide->pci.dev.m->io, control, 1, &control_ops, ch);
}

struct ide *
ide_create(struct machine *m, int slot, int function, const struct ide_wires *w)
{
	struct ide *ide = xcalloc(1, sizeof(*ide));
	struct pci_dev *p = &ide->pci;

	p->vendor = 0x8086;
	p->device = w->piix3 ? 0x7010 : w->ich6 ? 0x269e : 0x7111;
	p->revision = 0x01;
	p->class = 0x010180; /* IDE, legacy ports only, bus master */
	p->multifunction = true;
	p->bars[4] = (struct pci_bar){ .kind = PCI_BAR_IO, .size = 16, .ops = &bm_ops, .opaque = ide };
	memset(p->writable + IDETIM, 0xff, 4);
	p->writable[0x44] = 0xff; /* slave timing */
	p->writable[0x48] = 0x0f; /* Ultra DMA control and timing */
	memset(p->writable + 0x4a, 0x33, 2);
	ide->irq[0] = w->irq[0];
	ide->irq[1] = w->irq[1];
	if (pci_add(m, p, &ide_class, slot, function)) {
		free(ide);
		return NULL;
	}
	channel_create(ide, 0, 0x1f0, 0x3f6);
	channel_create(ide, 1, 0x170, 0x376);
	ide_reset(&p->dev);
	return ide;
}

int
ide_attach(struct ide *ide, int channel, int unit, const struct drive_config *cfg, struct err *e)
{
	struct channel *ch;

	if (channel < 0 || channel > 1 || unit < 0 || unit > 1)
		return err_set(e, ERR_INVALID, "An IDE controller has channels 0 and 1 with units 0 and 1, not %d:%d",
			channel, unit);
	ch = &ide->ch[channel];
	if (ch->drive[unit].present)
		return err_set(e, ERR_IN_USE, "There is a drive already at IDE %d:%d", channel, unit);
	if (!cfg->cdrom && !cfg->block)
		return err_set(e, ERR_INVALID, "The disk at IDE %d:%d has no image", channel, unit);
	ata_attach(
		&ch->drive[unit], ide->pci.dev.m, cfg, &link, ch, ch->buf[unit], ide->pci.dev.name, channel * 2 + unit);
	drive_reset(ch, unit);
	return 0;
}

int
ide_change_medium(struct ide *ide, int channel, int unit, struct block *medium, bool force)
{
	if (channel < 0 || channel > 1 || unit < 0 || unit > 1)
		return -ENOENT;
	return ata_change_medium(&ide->ch[channel].drive[unit], medium, force);
}
