/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An AHCI controller as Intel's ICH8M has it, with up to 30 ports. (AHCI 1.3.1, "AHCI" below; Serial ATA 3.1 for
 * frames)
 *
 * A port's work: the guest sets bits in PxCI; for each, the command header and the frame in the command table are
 * fetched and the command goes to the drive (ata.c), whose data moves by the table's PRD list. What the drive answers
 * is written as a frame into the guest's receive area, shows in PxTFD, PxSACT and PxCI, and raises bits in PxIS.
 *
 *   command list  CLB + 32 * slot: flags and PRDTL, PRDBC, table address
 *   command table +0x00 frame (64), +0x40 ATAPI packet (16), +0x80 PRDs of 16 bytes
 *   receive area  FB + 0x20 PIO setup, + 0x40 register, + 0x58 set device bits
 *
 * States of a port, as the registers show them, and what moves it on:
 *
 *   EMPTY     PxSSTS.DET 0, PxTFD 7Fh             ahci_attach(): LINKED, SERR.X and SERR.N tell of it
 *   LINKED    DET 3, signature in PxSIG           PxCMD.ST: RUNNING. PxSCTL.DET 1: RESETTING. ahci_detach(): EMPTY
 *   RUNNING   PxCMD.CR                            fills slots from PxCI; ST cleared: STOPPING; an error: HALTED
 *   HALTED    as RUNNING, PxIS.TFES set           takes nothing until ST is cleared (AHCI 6.2.2)
 *   STOPPING  ST clear, CR still set              nothing in flight any more: LINKED
 *   RESETTING DET 0 while PxSCTL.DET is 1, and    SCTL.DET back to 0 and nothing in flight: LINKED, with the signature
 *             until nothing is in flight          frame and SERR.X
 *
 * A request to the image cannot be called back, so STOPPING, RESETTING and the reset of the controller (GHC.HR) last
 * until it has returned; the guest polls CR, DET or HR meanwhile, as the standard lets it.
 *
 * Queued commands (NCQ) run side by side, any other command alone. After one fails, nothing else of that port is
 * reported; the guest stops the port and reads log page 10h, which ata.c keeps.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/log.h"
#include "base/str.h"
#include "dev/ata.h"
#include "dev/dev.h"

#define PORTS_MAX 30
#define SLOTS 32

/* Generic host control (AHCI 3.1) */
enum { CAP = 0x00, GHC = 0x04, IS = 0x08, PI = 0x0c, VS = 0x10, GHC_HR = 1, GHC_IE = 2 };
#define GHC_AE 0x80000000u
#define VERSION 0x00010301u
/* 64-bit addresses, NCQ, command list override, 6 Gb/s, AHCI only, 32 slots; the ports are added */
#define CAPABILITIES (1u << 31 | 1u << 30 | 1u << 24 | 3u << 20 | 1u << 18 | 31u << 8)

/* Port registers (AHCI 3.3) */
enum {
	PxCLB = 0x00,
	PxCLBU = 0x04,
	PxFB = 0x08,
	PxFBU = 0x0c,
	PxIS = 0x10,
	PxIE = 0x14,
	PxCMD = 0x18,
	PxTFD = 0x20,
	PxSIG = 0x24,
	PxSSTS = 0x28,
	PxSCTL = 0x2c,
	PxSERR = 0x30,
	PxSACT = 0x34,
	PxCI = 0x38,

	PORT_BASE = 0x100,
	PORT_SIZE = 0x80,

	IS_DHRS = 1 << 0,
	IS_PSS = 1 << 1,
	IS_SDBS = 1 << 3,
	IS_PCS = 1 << 6,
	IS_PRCS = 1 << 22,
	IS_OFS = 1 << 24,
	IS_HBFS = 1 << 29,
	IS_TFES = 1 << 30,

	CMD_ST = 1 << 0,
	CMD_SUD = 1 << 1,
	CMD_POD = 1 << 2,
	CMD_CLO = 1 << 3,
	CMD_FRE = 1 << 4,
	CMD_CCS_SHIFT = 8,
	CMD_FR = 1 << 14,
	CMD_CR = 1 << 15,
	CMD_HPCP = 1 << 18,
	CMD_ATAPI = 1 << 24,
	CMD_DLAE = 1 << 25,

	SSTS_UP = 0x133, /* device present, 6 Gb/s, interface active */
	SERR_N = 1 << 16,
	SERR_X = 1 << 26,
	SCTL_DET = 15,

	TFD_NO_DEVICE = 0x7f,
};
#define IE_WRITABLE 0xfdc000ffu
#define CMD_WRITABLE (CMD_ST | CMD_SUD | CMD_POD | CMD_FRE | CMD_ATAPI | CMD_DLAE)

/* Frames (SATA 3.1 10.5) and where they are received (AHCI 4.2.1) */
enum { FIS_H2D = 0x27, FIS_D2H = 0x34, FIS_PIO_SETUP = 0x5f, FIS_SDB = 0xa1 };
enum { AT_PIO_SETUP = 0x20, AT_D2H = 0x40, AT_SDB = 0x58 };

struct port;

struct slot {
	struct ata_cmd cmd;
	struct port *port;
	gpa_t table;
	uint16_t prdtl;
	bool pio; /* a PIO data-in command: ends with a PIO setup frame */
	/* the PRD read last */
	bool prd_valid;
	uint32_t prd_index, prd_len;
	gpa_t prd_at;
};

struct port {
	struct ahci *hba;
	int n;
	struct ata_drive drive;
	struct slot *slots; /* SLOTS of them, while a drive is there */
	uint8_t *buf;
	uint64_t clb, fb;
	uint32_t is, ie, cmd, tfd, sig, ssts, sctl, serr, sact, ci;
	uint8_t soft_reset;	/* a frame with SRST came, the one without has not */
	uint8_t signature_held; /* the frame of a reset waits for PxCMD.FRE */
	uint8_t halted;
	/* not saved: 0 once drained */
	uint32_t busy;	 /* slots whose command is at the drive */
	uint32_t queued; /* those of them that are queued commands */
	bool filling;	 /* fill_slots() is on the stack */
	bool link_reset; /* RESETTING, waiting for what is in flight */
};

struct ahci {
	struct pci_dev pci;
	int ports;
	uint32_t ghc, is;
	bool resetting; /* GHC.HR, waiting for what is in flight */
	struct port port[PORTS_MAX];
};

#define PORT_FIELDS(n)                                                                                                 \
	FIELD(struct ahci, port[n].clb), FIELD(struct ahci, port[n].fb), FIELD(struct ahci, port[n].is),               \
		FIELD(struct ahci, port[n].ie), FIELD(struct ahci, port[n].cmd), FIELD(struct ahci, port[n].tfd),      \
		FIELD(struct ahci, port[n].sig), FIELD(struct ahci, port[n].ssts), FIELD(struct ahci, port[n].sctl),   \
		FIELD(struct ahci, port[n].serr), FIELD(struct ahci, port[n].sact), FIELD(struct ahci, port[n].ci),    \
		FIELD(struct ahci, port[n].soft_reset), FIELD(struct ahci, port[n].signature_held),                    \
		FIELD(struct ahci, port[n].halted), ATA_STATE_FIELDS(struct ahci, port[n].drive.s)

static const struct field ahci_fields[] = {
	FIELD(struct ahci, ghc),
	FIELD(struct ahci, is),
	PORT_FIELDS(0),
	PORT_FIELDS(1),
	PORT_FIELDS(2),
	PORT_FIELDS(3),
	PORT_FIELDS(4),
	PORT_FIELDS(5),
	PORT_FIELDS(6),
	PORT_FIELDS(7),
	PORT_FIELDS(8),
	PORT_FIELDS(9),
	PORT_FIELDS(10),
	PORT_FIELDS(11),
	PORT_FIELDS(12),
	PORT_FIELDS(13),
	PORT_FIELDS(14),
	PORT_FIELDS(15),
	PORT_FIELDS(16),
	PORT_FIELDS(17),
	PORT_FIELDS(18),
	PORT_FIELDS(19),
	PORT_FIELDS(20),
	PORT_FIELDS(21),
	PORT_FIELDS(22),
	PORT_FIELDS(23),
	PORT_FIELDS(24),
	PORT_FIELDS(25),
	PORT_FIELDS(26),
	PORT_FIELDS(27),
	PORT_FIELDS(28),
	PORT_FIELDS(29),
	FIELD_END,
};

static struct mem *
memory(struct port *p)
{
	return &p->hba->pci.dev.m->mem;
}

/* ---- interrupts (AHCI 5.6.2) ---- */

/*
 * IS bits stay until the guest clears them, and come back while PxIS & PxIE is not 0. A message is sent when a bit
 * appears, and again when the guest cleared some and others remain (`again`), so that none is missed.
 */
static void
update_irq(struct ahci *a, bool again)
{
	uint32_t was = a->is;

	for (int i = 0; i < a->ports; i++)
		if (a->port[i].is & a->port[i].ie)
			a->is |= 1u << i;
	pci_intx(&a->pci, a->is && a->ghc & GHC_IE);
	if (a->ghc & GHC_IE && a->is && (again || a->is & ~was))
		pci_msi(&a->pci);
}

static void
raise(struct port *p, uint32_t bits)
{
	p->is |= bits;
	update_irq(p->hba, false);
}

/* ---- frames to the guest ---- */

static void
receive(struct port *p, uint32_t at, const uint8_t *fis, size_t len)
{
	if (!(p->cmd & CMD_FRE) || !pci_bus_master(&p->hba->pci))
		return;
	if (!mem_write(memory(p), p->fb + at, fis, len))
		log_guest(p->drive.who, "PxFB %llx is not memory", (unsigned long long)p->fb);
}

static void
fill_registers(uint8_t *fis, const struct ata_tf *tf)
{
	fis[2] = tf->status;
	fis[3] = tf->error;
	fis[4] = (uint8_t)tf->lba;
	fis[5] = (uint8_t)(tf->lba >> 8);
	fis[6] = (uint8_t)(tf->lba >> 16);
	fis[7] = tf->device;
	fis[8] = (uint8_t)(tf->lba >> 24);
	fis[9] = (uint8_t)(tf->lba >> 32);
	fis[10] = (uint8_t)(tf->lba >> 40);
	fis[12] = (uint8_t)tf->count;
	fis[13] = (uint8_t)(tf->count >> 8);
}

static void
set_tfd(struct port *p, const struct ata_tf *tf)
{
	p->tfd = tf->status | (uint32_t)tf->error << 8;
}

static void
receive_d2h(struct port *p, const struct ata_tf *tf, bool interrupt)
{
	uint8_t fis[20] = { FIS_D2H, interrupt ? 0x40 : 0 };

	fill_registers(fis, tf);
	set_tfd(p, tf);
	receive(p, AT_D2H, fis, sizeof(fis));
}

static void
receive_pio_setup(struct port *p, const struct ata_tf *tf, uint32_t count)
{
	uint8_t fis[20] = { FIS_PIO_SETUP, 0x60 }; /* to the host, interrupt */

	fill_registers(fis, tf);
	fis[2] |= ATA_DRQ;
	fis[15] = tf->status;
	put_le16(fis + 16, (uint16_t)count);
	set_tfd(p, tf);
	receive(p, AT_PIO_SETUP, fis, sizeof(fis));
}

static void
receive_sdb(struct port *p, const struct ata_tf *tf, uint32_t finished)
{
	uint8_t fis[8] = { FIS_SDB, 0x40, tf->status & 0x77, tf->error };

	put_le32(fis + 4, finished);
	p->sact &= ~finished;
	p->tfd = (p->tfd & 0x88) | (tf->status & 0x77) | (uint32_t)tf->error << 8;
	receive(p, AT_SDB, fis, sizeof(fis));
}

/* The frame that a drive sends when it comes out of a reset: kind of drive and "diagnostic passed". */
static void
send_signature(struct port *p)
{
	struct ata_tf tf = { .status = p->drive.cdrom ? 0 : ATA_DRDY | ATA_DSC, .error = 1 };

	ata_signature(&p->drive, &tf);
	p->sig = (uint32_t)(tf.lba & 0xffffff) << 8 | tf.count;
	p->signature_held = !(p->cmd & CMD_FRE);
	receive_d2h(p, &tf, false);
}

/* ---- what the drive asks for ---- */

static bool
prd_entry(struct ata_cmd *c, uint32_t index, gpa_t *at, uint32_t *len)
{
	struct slot *s = container_of(c, struct slot, cmd);
	uint8_t e[16];

	if (index >= s->prdtl)
		return false;
	if (!s->prd_valid || s->prd_index != index) {
		if (!mem_read(memory(s->port), s->table + 0x80 + (gpa_t)index * 16, e, sizeof(e)))
			return false;
		s->prd_at = le64(e) & ~1ull;
		s->prd_len = ((le32(e + 12) & 0x3fffff) | 1) + 1;
		s->prd_index = index;
		s->prd_valid = true;
	}
	*at = s->prd_at;
	*len = s->prd_len;
	return true;
}

static void
dma_ready(struct ata_cmd *c)
{
	ata_dma_go(c);
}

static void
dma_failed(struct ata_cmd *c, bool bad)
{
	struct port *p = c->drive->port;

	log_guest(c->drive->who, "command %02x: %s", c->tf.command,
		bad ? "its PRD list names no memory" : "its PRD list is too short");
	p->is |= bad ? IS_HBFS : IS_OFS;
	if (ata_is_queued(c->tf.command)) {
		c->drive->s.ncq_failed = 1;
		c->drive->s.ncq_tag = c->tf.count >> 3 & 31;
		c->drive->s.ncq_status = ATA_DRDY | ATA_ERR;
		c->drive->s.ncq_error = ATA_ABRT;
	}
	ata_fail(c, ATA_ABRT);
}

static void fill_slots(struct port *p);
static void settle(struct port *p);

/* AHCI 4.2.2: PRDBC, bytes moved. */
static void
write_byte_count(struct port *p, uint32_t slot, uint32_t count)
{
	uint8_t bytes[4];

	put_le32(bytes, count);
	mem_write(memory(p), p->clb + slot * 32u + 4, bytes, sizeof(bytes));
}

static void
halt(struct port *p)
{
	p->halted = 1;
	raise(p, IS_TFES);
}

static void
queued_done(struct port *p, struct ata_cmd *c, uint32_t bit)
{
	p->queued &= ~bit;
	if (p->halted)
		return; /* an earlier one failed: the drive has dropped the others */
	receive_sdb(p, &c->tf, c->tf.status & ATA_ERR ? 0 : bit);
	if (c->tf.status & ATA_ERR)
		halt(p);
	raise(p, IS_SDBS);
}

static void
single_done(struct port *p, struct slot *s, uint32_t bit)
{
	struct ata_cmd *c = &s->cmd;

	write_byte_count(p, (uint32_t)(s - p->slots), c->moved);
	if (c->tf.status & ATA_ERR) {
		receive_d2h(p, &c->tf, true);
		halt(p);
		raise(p, IS_DHRS);
		return;
	}
	p->ci &= ~bit;
	if (s->pio) {
		receive_pio_setup(p, &c->tf, c->moved);
		raise(p, IS_PSS);
	} else {
		receive_d2h(p, &c->tf, true);
		raise(p, IS_DHRS);
	}
}

static void
command_done(struct ata_cmd *c, bool interrupt)
{
	struct slot *s = container_of(c, struct slot, cmd);
	struct port *p = s->port;
	uint32_t bit = 1u << (s - p->slots);

	p->busy &= ~bit;
	if (p->queued & bit)
		queued_done(p, c, bit);
	else
		single_done(p, s, bit);
	fill_slots(p);
}

static void
command_cancelled(struct ata_cmd *c)
{
	struct slot *s = container_of(c, struct slot, cmd);
	struct port *p = s->port;
	uint32_t bit = 1u << (s - p->slots);

	p->busy &= ~bit;
	p->queued &= ~bit;
	settle(p);
}

static const struct ata_link link = {
	.sata = true,
	.sg = prd_entry,
	.dma_wait = dma_ready,
	.dma_error = dma_failed,
	.done = command_done,
	.cancelled = command_cancelled,
};

/* ---- commands from the guest ---- */

static void
load_registers(struct ata_tf *tf, const uint8_t *fis)
{
	tf->command = fis[2];
	tf->feature = (uint16_t)(fis[3] | fis[11] << 8);
	tf->lba = fis[4] | (uint64_t)fis[5] << 8 | (uint64_t)fis[6] << 16 | (uint64_t)fis[8] << 24 |
		  (uint64_t)fis[9] << 32 | (uint64_t)fis[10] << 40;
	tf->device = fis[7];
	tf->count = (uint16_t)(fis[12] | fis[13] << 8);
	tf->status = ATA_BSY;
	tf->error = 0;
}

/* A frame that only carries the device control register: a soft reset is one with SRST and one without. */
static void
control_frame(struct port *p, uint32_t bit, const uint8_t *fis)
{
	bool srst = fis[15] & 4;

	p->ci &= ~bit;
	if (srst) {
		p->soft_reset = 1;
		p->tfd = ATA_BSY;
	} else if (p->soft_reset) {
		p->soft_reset = 0;
		ata_reset(&p->drive, false);
		send_signature(p);
	}
}

/* PIO data-in commands end with a PIO setup frame instead of a register frame (SATA 3.1 11.7). */
static bool
is_pio_in(uint8_t command)
{
	switch (command) {
	case 0x20:
	case 0x21:
	case 0x24:
	case 0x29:
	case 0x2f:
	case 0xa1:
	case 0xc4:
	case 0xe4:
	case 0xec:
		return true;
	}
	return false;
}

static bool
smart_reads(const struct ata_tf *tf)
{
	return tf->command == 0xb0 && ((tf->feature & 0xff) == 0xd0 || (tf->feature & 0xff) == 0xd1);
}

/* Fetch header and frame. False: they are not in memory, or no frame we know. */
static bool
fetch(struct port *p, uint32_t slot, struct slot *s, uint8_t fis[64])
{
	uint8_t header[16];

	if (!mem_read(memory(p), p->clb + slot * 32u, header, sizeof(header)))
		return false;
	s->prdtl = le16(header + 2);
	s->table = le64(header + 8) & ~127ull;
	s->prd_valid = false;
	if ((header[0] & 31) < 2 || (header[0] & 31) > 16 || !mem_read(memory(p), s->table, fis, 64) ||
		fis[0] != FIS_H2D)
		return false;
	if (header[0] & 0x20 && !mem_read(memory(p), s->table + 0x40, s->cmd.packet, 16))
		return false;
	return true;
}

/* A queued command is taken at once: BSY clears, its PxCI bit goes, PxSACT keeps it. */
static void
accept_queued(struct port *p, struct slot *s, uint32_t bit)
{
	struct ata_tf tf = s->cmd.tf;

	tf.status = ATA_DRDY | ATA_DSC;
	p->queued |= bit;
	p->ci &= ~bit;
	receive_d2h(p, &tf, false);
}

static void
start_slot(struct port *p, uint32_t slot)
{
	struct slot *s = &p->slots[slot];
	uint32_t bit = 1u << slot;
	uint8_t fis[64];

	p->cmd = (p->cmd & ~(31u << CMD_CCS_SHIFT)) | slot << CMD_CCS_SHIFT;
	if (!fetch(p, slot, s, fis)) {
		log_guest(p->drive.who, "command slot %u: no command there", slot);
		p->halted = 1;
		raise(p, IS_HBFS);
		return;
	}
	if (fis[1] & 15) { /* there is no port multiplier, so nobody answers */
		p->ci &= ~bit;
		return;
	}
	if (!(fis[1] & 0x80)) {
		control_frame(p, bit, fis);
		return;
	}
	load_registers(&s->cmd.tf, fis);
	s->pio = is_pio_in(s->cmd.tf.command) || smart_reads(&s->cmd.tf);
	p->busy |= bit;
	p->tfd = ATA_BSY;
	if (ata_is_queued(s->cmd.tf.command) && !p->drive.cdrom) {
		/* The tag is the slot; a guest that says otherwise hears of what it named (AHCI 5.5.1.3). */
		s->cmd.tf.count = (uint16_t)((s->cmd.tf.count & 7) | slot << 3);
		accept_queued(p, s, bit);
	}
	ata_start(&s->cmd);
}

/* Which slot is next; -1: none can be started now. A command that is not queued waits for all others, and they for it.
 */
static int
next_slot(struct port *p)
{
	uint32_t ready = p->ci & ~p->busy;

	if (!(p->cmd & CMD_ST) || p->halted || !p->drive.present || !pci_bus_master(&p->hba->pci) || p->link_reset ||
		p->hba->resetting || !ready || (p->busy & ~p->queued))
		return -1;
	return __builtin_ctz(ready);
}

/* Would starting `slot` have to wait for the queued commands in flight? */
static bool
has_to_wait(struct port *p, int slot)
{
	uint8_t header[16], command = 0;

	if (!p->queued)
		return false;
	if (mem_read(memory(p), p->clb + (uint32_t)slot * 32, header, sizeof(header)))
		mem_read(memory(p), (le64(header + 8) & ~127ull) + 2, &command, 1);
	return !ata_is_queued(command);
}

static void
fill_slots(struct port *p)
{
	int slot;

	if (p->filling)
		return;
	p->filling = true;
	while ((slot = next_slot(p)) >= 0 && !has_to_wait(p, slot))
		start_slot(p, (uint32_t)slot);
	p->filling = false;
}

/* ---- resets and the link ---- */

static void
cancel_all(struct port *p)
{
	for (uint32_t busy = p->busy, i = 0; busy; busy >>= 1, i++)
		if (busy & 1)
			ata_cancel(&p->slots[i].cmd);
}

static void
link_down(struct port *p)
{
	p->ssts = 0;
	p->tfd = TFD_NO_DEVICE;
	p->sig = 0xffffffff;
}

/* COMINIT, speed negotiation and the drive's first frame, which take no time here. */
static void
link_up(struct port *p)
{
	p->ssts = SSTS_UP;
	p->serr |= SERR_X;
	p->soft_reset = 0;
	send_signature(p);
	raise(p, IS_PCS);
}

static void
port_registers_reset(struct port *p)
{
	p->clb = p->fb = 0;
	p->is = p->ie = p->sctl = p->serr = p->sact = p->ci = 0;
	p->cmd = CMD_SUD | CMD_POD | CMD_HPCP;
	p->halted = p->soft_reset = p->signature_held = 0;
	p->link_reset = false;
	link_down(p);
}

static void
finish_hba_reset(struct ahci *a)
{
	for (int i = 0; i < a->ports; i++)
		if (a->port[i].busy)
			return;
	a->resetting = false;
	a->ghc = GHC_AE;
	a->is = 0;
	for (int i = 0; i < a->ports; i++) {
		struct port *p = &a->port[i];

		port_registers_reset(p);
		if (!p->drive.present)
			continue;
		ata_reset(&p->drive, false);
		link_up(p);
	}
	update_irq(a, false);
}

/* Nothing may be in flight any more: go on with what waited for that. */
static void
settle(struct port *p)
{
	if (p->busy)
		return;
	if (!(p->cmd & CMD_ST))
		p->cmd &= ~(uint32_t)CMD_CR;
	if (p->hba->resetting) {
		finish_hba_reset(p->hba);
		return;
	}
	if (!p->link_reset || (p->sctl & SCTL_DET))
		return;
	p->link_reset = false;
	if (p->drive.present) {
		ata_reset(&p->drive, false);
		link_up(p);
	}
}

static void
stop(struct port *p)
{
	p->ci = p->sact = 0;
	p->halted = 0;
	p->cmd &= ~(31u << CMD_CCS_SHIFT);
	cancel_all(p);
	settle(p);
}

/* ---- registers ---- */

static void
write_cmd(struct port *p, uint32_t value)
{
	uint32_t was = p->cmd;

	p->cmd = (p->cmd & ~(uint32_t)CMD_WRITABLE) | (value & CMD_WRITABLE);
	p->cmd = (p->cmd & ~(uint32_t)CMD_FR) | (p->cmd & CMD_FRE ? CMD_FR : 0);
	if (value & CMD_CLO)
		p->tfd &= ~(uint32_t)(ATA_BSY | ATA_DRQ);
	if (p->signature_held && p->cmd & CMD_FRE)
		send_signature(p);
	if (p->cmd & CMD_ST && !(was & CMD_ST))
		p->cmd |= CMD_CR;
	else if (!(p->cmd & CMD_ST) && was & CMD_ST)
		stop(p);
}

/* PxSCTL.DET (AHCI 3.3.11): 1 holds the link in reset, 4 switches it off, 0 lets it come up. */
static void
write_sctl(struct port *p, uint32_t value)
{
	uint32_t was = p->sctl & SCTL_DET, det = value & SCTL_DET;

	p->sctl = value & 0xfff;
	if (det == was)
		return;
	if (det) {
		p->link_reset = true;
		link_down(p);
		if (det == 4)
			p->ssts = 4;
		cancel_all(p);
	}
	settle(p);
}

static void
write_serr(struct port *p, uint32_t value)
{
	p->serr &= ~value;
	if (!(p->serr & SERR_X))
		p->is &= ~(uint32_t)IS_PCS;
	if (!(p->serr & SERR_N))
		p->is &= ~(uint32_t)IS_PRCS;
}

static uint32_t
port_read(struct port *p, unsigned reg)
{
	switch (reg) {
	case PxCLB:
		return (uint32_t)p->clb;
	case PxCLBU:
		return (uint32_t)(p->clb >> 32);
	case PxFB:
		return (uint32_t)p->fb;
	case PxFBU:
		return (uint32_t)(p->fb >> 32);
	case PxIS:
		return p->is;
	case PxIE:
		return p->ie;
	case PxCMD:
		return p->cmd;
	case PxTFD:
		return p->tfd;
	case PxSIG:
		return p->sig;
	case PxSSTS:
		return p->ssts;
	case PxSCTL:
		return p->sctl;
	case PxSERR:
		return p->serr;
	case PxSACT:
		return p->sact;
	case PxCI:
		return p->ci;
	}
	return 0;
}

static void
port_write(struct port *p, unsigned reg, uint32_t value)
{
	switch (reg) {
	case PxCLB:
		p->clb = (p->clb & ~0xffffffffull) | (value & ~1023u);
		return;
	case PxCLBU:
		p->clb = (p->clb & 0xffffffff) | (uint64_t)value << 32;
		return;
	case PxFB:
		p->fb = (p->fb & ~0xffffffffull) | (value & ~255u);
		return;
	case PxFBU:
		p->fb = (p->fb & 0xffffffff) | (uint64_t)value << 32;
		return;
	case PxIS: /* PCS and PRCS show PxSERR's bits */
		p->is &= ~(value & ~(uint32_t)(IS_PCS | IS_PRCS));
		break;
	case PxIE:
		p->ie = value & IE_WRITABLE;
		break;
	case PxCMD:
		write_cmd(p, value);
		break;
	case PxSCTL:
		write_sctl(p, value);
		break;
	case PxSERR:
		write_serr(p, value);
		break;
	case PxSACT:
		if (p->cmd & CMD_ST)
			p->sact |= value;
		return;
	case PxCI:
		if (p->cmd & CMD_ST)
			p->ci |= value;
		break;
	default:
		return;
	}
	update_irq(p->hba, false);
	fill_slots(p);
}

static void
write_ghc(struct ahci *a, uint32_t value)
{
	a->ghc = (a->ghc & ~(uint32_t)GHC_IE) | (value & GHC_IE);
	update_irq(a, true);
	if (!(value & GHC_HR) || a->resetting)
		return;
	a->resetting = true;
	a->ghc |= GHC_HR;
	for (int i = 0; i < a->ports; i++)
		cancel_all(&a->port[i]);
	if (a->resetting)
		finish_hba_reset(a);
}

static uint64_t
ahci_read(void *opaque, uint64_t off, unsigned size)
{
	struct ahci *a = opaque;

	if (off >= PORT_BASE) {
		uint64_t n = (off - PORT_BASE) / PORT_SIZE;

		return n < (uint64_t)a->ports ? port_read(&a->port[n], off % PORT_SIZE & ~3u) : 0;
	}
	switch (off & ~3u) {
	case CAP:
		return CAPABILITIES | (uint32_t)(a->ports - 1);
	case GHC:
		return a->ghc;
	case IS:
		return a->is;
	case PI:
		return (1u << a->ports) - 1;
	case VS:
		return VERSION;
	}
	return 0;
}

static void
ahci_write(void *opaque, uint64_t off, uint64_t value, unsigned size)
{
	struct ahci *a = opaque;

	if (off >= PORT_BASE) {
		uint64_t n = (off - PORT_BASE) / PORT_SIZE;

		if (n < (uint64_t)a->ports)
			port_write(&a->port[n], off % PORT_SIZE & ~3u, (uint32_t)value);
	} else if ((off & ~3u) == GHC) {
		write_ghc(a, (uint32_t)value);
	} else if ((off & ~3u) == IS) {
		a->is &= ~(uint32_t)value;
		update_irq(a, true);
	}
}

static const struct bus_ops ahci_ops = { ahci_read, ahci_write, 4, 4 };

/* A guest that allows bus mastering after it has filled PxCI. */
static void
config_written(struct pci_dev *d, unsigned reg, uint32_t value, unsigned size)
{
	struct ahci *a = (struct ahci *)d;

	for (int i = 0; reg <= 4 && i < a->ports; i++)
		fill_slots(&a->port[i]);
}

/* ---- the device ---- */

static void
ahci_drain(struct device *dev)
{
	struct ahci *a = (struct ahci *)dev;

	for (int i = 0; i < a->ports; i++)
		if (a->port[i].drive.block)
			block_drain(a->port[i].drive.block);
}

static void
ahci_reset(struct device *dev)
{
	struct ahci *a = (struct ahci *)dev;

	a->resetting = true;
	for (int i = 0; i < a->ports; i++)
		cancel_all(&a->port[i]);
	ahci_drain(dev);
	for (int i = 0; i < a->ports; i++)
		if (a->port[i].drive.present)
			ata_reset(&a->port[i].drive, true);
	finish_hba_reset(a);
	pci_reset(&a->pci);
}

static void
ahci_loaded(struct device *dev)
{
	struct ahci *a = (struct ahci *)dev;

	pci_intx(&a->pci, a->is && a->ghc & GHC_IE);
}

static void
free_port(struct port *p)
{
	free(p->slots);
	free(p->buf);
	p->slots = NULL;
	p->buf = NULL;
}

static void
ahci_destroy(struct device *dev)
{
	struct ahci *a = (struct ahci *)dev;

	a->resetting = true; /* nothing new is started */
	for (int i = 0; i < a->ports; i++) {
		cancel_all(&a->port[i]);
		if (a->port[i].drive.present)
			ata_detach(&a->port[i].drive);
		a->port[i].drive.present = false;
		free_port(&a->port[i]);
	}
	pci_remove(dev->m, &a->pci);
	free(a);
}

static const struct dev_class ahci_class = {
	.name = "ahci",
	.fields = ahci_fields,
	.reset = ahci_reset,
	.loaded = ahci_loaded,
	.destroy = ahci_destroy,
	.drain = ahci_drain,
};

struct ahci *
ahci_create(struct machine *m, int slot, int ports, struct err *e)
{
	struct ahci *a;
	struct pci_dev *d;

	if (ports < 1 || ports > PORTS_MAX) {
		err_set(e, ERR_INVALID, "A SATA controller has 1 to %d ports, not %d", PORTS_MAX, ports);
		return NULL;
	}
	a = xcalloc(1, sizeof(*a));
	d = &a->pci;
	d->vendor = 0x8086;
	d->device = 0x2829;
	d->revision = 0x02;
	d->class = 0x010601;
	d->intx_pin = 1;
	d->config_written = config_written;
	d->bars[5] = (struct pci_bar){ .kind = PCI_BAR_MEM32, .size = 0x2000, .ops = &ahci_ops, .opaque = a };
	a->ports = ports;
	for (int i = 0; i < ports; i++) {
		a->port[i].hba = a;
		a->port[i].n = i;
	}
	pci_add_msi(d);
	if (pci_add(m, d, &ahci_class, slot, 0)) {
		free(a);
		err_set(e, ERR_IN_USE, "There is no free PCI slot for the SATA controller");
		return NULL;
	}
	ahci_reset(&d->dev);
	return a;
}

static struct port *
find_port(struct ahci *a, int port)
{
	return port >= 0 && port < a->ports ? &a->port[port] : NULL;
}

int
ahci_attach(struct ahci *a, int port, const struct drive_config *cfg, struct err *e)
{
	struct port *p = find_port(a, port);

	if (!p)
		return err_set(e, ERR_INVALID, "The SATA controller has ports 0 to %d, not %d", a->ports - 1, port);
	if (p->drive.present)
		return err_set(e, ERR_IN_USE, "There is a drive already at SATA port %d", port);
	if (!cfg->cdrom && !cfg->block)
		return err_set(e, ERR_INVALID, "The disk at SATA port %d has no image", port);
	p->buf = xcalloc(1, ATA_BUF);
	p->slots = xcalloc(SLOTS, sizeof(*p->slots));
	for (int i = 0; i < SLOTS; i++) {
		p->slots[i].port = p;
		p->slots[i].cmd.drive = &p->drive;
	}
	ata_attach(&p->drive, a->pci.dev.m, cfg, &link, p, p->buf, a->pci.dev.name, port);
	if (p->sctl & SCTL_DET)
		return 0; /* held in reset: it comes up when the guest lets it */
	p->serr |= SERR_N;
	link_up(p);
	raise(p, IS_PRCS);
	return 0;
}

int
ahci_detach(struct ahci *a, int port)
{
	struct port *p = find_port(a, port);

	if (!p || !p->drive.present)
		return -ENOENT;
	p->drive.present = false; /* nothing new is started */
	cancel_all(p);
	ata_detach(&p->drive);
	free_port(p);
	link_down(p);
	p->serr |= SERR_N;
	raise(p, IS_PRCS);
	settle(p);
	return 0;
}

int
ahci_change_medium(struct ahci *a, int port, struct block *medium, bool force)
{
	struct port *p = find_port(a, port);

	return p ? ata_change_medium(&p->drive, medium, force) : -ENOENT;
}
