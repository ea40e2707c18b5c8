/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Intel 82540EM, 82545EM and 82543GC gigabit Ethernet controllers. Section numbers are those of Intel's "PCI/PCI-X
 * Family of Gigabit Ethernet Controllers Software Developer's Manual" (317453).
 *
 * Theory of operation
 *
 * Registers are an array of double words at the addresses of the manual; reads and writes with consequences are in two
 * switches, the table `plain` says what else may be written. The chip's parts:
 *
 *  transmit	A write of TDT runs the ring until it is empty or a budget is used up; the rest follows from
 *		the loop, so that no doorbell holds the machine for long. The bytes of a packet are gathered in
 *		`tx.buf`. Without segmentation the packet goes out at its last descriptor. With it (3.5), the header
 *		is kept aside, and a frame goes out whenever MSS bytes of payload stand behind it. A network that is
 *		a TCP/IP stack itself (net_backend_class.takes_tso), or carries large frames (net_takes_large()),
 *		gets the packet in one piece.
 *  receive	A frame passes the filters (13.5), then fills as many buffers as it needs. When there are too few, it
 *		stays in the link's queue, which stands for the chip's packet buffer, until RDT moves.
 *  interrupts	Causes in ICR, masked by IMS, drive INTA. ITR keeps interrupts apart by waiting for a timer; RDTR/RADV
 *		and TIDV/TADV hold back RXT0 and TXDW the same way (13.4.30, 3.2.7).
 *  EEPROM	64 words, read through EERD or by moving the pins in EECD (Microwire, 5.3). Holds the MAC address.
 *  PHY		an M88E1000; auto-negotiation takes 10 ms. The 82543 moves the pins of its serial interface in CTRL
 *		(IEEE 802.3 22.2.4.5), the others have MDIC.
 *
 * A received frame's FCS is not computed; where the guest keeps it, it reads as zeroes.
 *
 * Hostile guests: rings and buffers are reached through mem_map()/mem_read()/mem_write() only, descriptors are copied
 * before they are looked at, indices are checked against the ring's length each time, a packet that outgrows the buffer
 * or a nonsensical segmentation context drops the packet.
 */
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/log.h"
#include "base/str.h"
#include "dev/dev.h"
#include "dev/e1000_regs.h"
#include "net/net.h"

#define MMIO_SIZE 0x20000
#define EEPROM_WORDS 64
#define EEPROM_CHECKSUM 0xbaba
#define RX_ADDRESSES 16
#define FRAME_MAX 16288 /* longest frame the chip sends or takes (RCTL.LPE) */
#define FRAME_MIN 60	/* shorter ones are padded, without FCS */
#define MSS_MIN 64
#define TX_BUDGET 256 /* descriptors, and frames, at one go */
#define AUTONEG_NS UINT64_C(10000000)
#define DELAY_UNIT_NS 1024 /* RDTR, RADV, TIDV, TADV */
#define ITR_UNIT_NS 256

static const struct variant {
	const char *name;
	uint16_t device, subvendor, subdevice, phy_id2;
	bool mdio_by_pins;
} variants[] = {
	{ "82540EM", 0x100e, 0x8086, 0x001e, 0x0c20, false },
	{ "82543GC", 0x1004, 0x8086, 0x1004, 0x0c50, true },
	{ "82545EM", 0x100f, 0x15ad, 0x0750, 0x0c20, false },
};

/* What a context descriptor set up (3.3.6); fixed widths, because it is saved. */
struct tx_context {
	uint8_t ipcss, ipcso, tucss, tucso;
	uint16_t ipcse, tucse, mss;
	uint8_t hdrlen, tucmd;
	uint32_t paylen;
};

enum { TIMER_ITR, TIMER_RX, TIMER_TX, TIMER_TX_MORE, TIMER_AUTONEG, TIMERS };

struct e1000 {
	struct pci_dev pci;
	struct net_link *link;
	const struct variant *variant;
	struct vtimer timer[TIMERS];
	uint64_t when[TIMERS]; /* 0: not armed */
	uint64_t last_interrupt;
	uint64_t rx_delay_end, tx_delay_end; /* absolute bounds: RADV, TADV */

	uint32_t reg[REGS_END / 4];
	uint32_t io_addr;
	uint16_t phy[32];
	uint16_t eeprom[EEPROM_WORDS];
	uint8_t link_up; /* cable in and negotiation done */

	/* Microwire: bits of the command so far, the word on its way out */
	uint8_t mw_bits, mw_addr, mw_out_left, mw_do;
	uint16_t mw_in, mw_out;
	/* MDIO by pins: ones seen, bits of the frame so far */
	uint8_t md_ones, md_bits, md_out;
	uint16_t md_data; /* what a read sends */
	uint32_t md_frame;

	/* The packet in the making */
	struct tx_context context[2]; /* [1]: for segmentation */
	uint8_t tx_open;	      /* the next data descriptor is not a packet's first */
	uint8_t tx_popts, tx_tso, tx_drop, tx_vle;
	uint16_t tx_special;
	uint32_t tx_len;	/* bytes in tx_buf */
	uint32_t tx_seg;	/* payload bytes a frame */
	uint32_t tx_paid;	/* payload bytes sent in earlier frames of the packet */
	uint32_t tx_index;	/* frames of the packet sent */
	uint8_t tx_header[256]; /* as the guest gave it */
	uint8_t tx_room[4];	/* a VLAN tag moves the addresses down into this; directly before tx_buf */
	uint8_t tx_buf[256 + 65536];
};

static const struct field e1000_fields[] = {
	FIELD_ARRAY(struct e1000, when),
	FIELD(struct e1000, last_interrupt),
	FIELD(struct e1000, rx_delay_end),
	FIELD(struct e1000, tx_delay_end),
	FIELD_ARRAY(struct e1000, reg),
	FIELD(struct e1000, io_addr),
	FIELD_ARRAY(struct e1000, phy),
	FIELD_ARRAY(struct e1000, eeprom),
	FIELD(struct e1000, link_up),
	FIELD(struct e1000, mw_bits),
	FIELD(struct e1000, mw_addr),
	FIELD(struct e1000, mw_out_left),
	FIELD(struct e1000, mw_do),
	FIELD(struct e1000, mw_in),
	FIELD(struct e1000, mw_out),
	FIELD(struct e1000, md_ones),
	FIELD(struct e1000, md_bits),
	FIELD(struct e1000, md_out),
	FIELD(struct e1000, md_data),
	FIELD(struct e1000, md_frame),
	FIELD_ARRAY(struct e1000, context),
	FIELD(struct e1000, tx_open),
	FIELD(struct e1000, tx_popts),
	FIELD(struct e1000, tx_tso),
	FIELD(struct e1000, tx_drop),
	FIELD(struct e1000, tx_vle),
	FIELD(struct e1000, tx_special),
	FIELD(struct e1000, tx_len),
	FIELD(struct e1000, tx_seg),
	FIELD(struct e1000, tx_paid),
	FIELD(struct e1000, tx_index),
	FIELD_ARRAY(struct e1000, tx_header),
	FIELD_ARRAY(struct e1000, tx_buf),
	FIELD_END,
};

static inline uint32_t *
r(struct e1000 *d, unsigned off)
{
	return &d->reg[off / 4];
}

static uint64_t
now(struct e1000 *d)
{
	return clock_now(&d->pci.dev.m->clock);
}

static void
arm(struct e1000 *d, int which, uint64_t when)
{
	d->when[which] = when ? when : 1;
	vtimer_arm(&d->timer[which], when);
}

static void
disarm(struct e1000 *d, int which)
{
	d->when[which] = 0;
	vtimer_cancel(&d->timer[which]);
}

/* ---- statistics (13.7): counters stick at their highest value ---- */

static void
count(struct e1000 *d, unsigned reg)
{
	if (*r(d, reg) != UINT32_MAX)
		++*r(d, reg);
}

static void
count64(struct e1000 *d, unsigned reg, uint64_t n)
{
	uint64_t v = (*r(d, reg) | (uint64_t)*r(d, reg + 4) << 32) + n;

	if (v < n)
		v = UINT64_MAX;
	*r(d, reg) = (uint32_t)v;
	*r(d, reg + 4) = (uint32_t)(v >> 32);
}

/* The right one of the six counters by size that begin at `reg`; `len` without FCS, which counts. */
static void
count_size(struct e1000 *d, unsigned reg, size_t len)
{
	unsigned i = 0;

	for (size_t limit = 64; i < 5 && len + 4 > limit; limit = i == 0 ? 127 : limit * 2 + 1)
		i++;
	count(d, reg + 4 * i);
}

static bool
is_broadcast(const uint8_t *mac)
{
	return (mac[0] & mac[1] & mac[2] & mac[3] & mac[4] & mac[5]) == 0xff;
}

static void
count_tx(struct e1000 *d, const uint8_t *frame, size_t len)
{
	count(d, TPT);
	count(d, GPTC);
	count64(d, TOTL, len + 4);
	count64(d, GOTCL, len + 4);
	count_size(d, PTC64, len);
	if (is_broadcast(frame))
		count(d, BPTC);
	else if (frame[0] & 1)
		count(d, MPTC);
}

static void
count_rx(struct e1000 *d, const uint8_t *frame, size_t len)
{
	count(d, GPRC);
	count64(d, GORCL, len + 4);
	count_size(d, PRC64, len);
	if (is_broadcast(frame))
		count(d, BPRC);
	else if (frame[0] & 1)
		count(d, MPRC);
}

/* ---- interrupts ---- */

static void
update_interrupt(struct e1000 *d)
{
	uint64_t gap = (uint64_t)(*r(d, ITR) & 0xffff) * ITR_UNIT_NS, t;

	if (!(*r(d, ICR) & *r(d, IMS))) {
		disarm(d, TIMER_ITR);
		pci_irq(&d->pci, 0);
		return;
	}
	if (d->pci.intx_level || d->when[TIMER_ITR])
		return;
	t = now(d);
	if (gap && d->last_interrupt && t < d->last_interrupt + gap) {
		arm(d, TIMER_ITR, d->last_interrupt + gap);
		return;
	}
	d->last_interrupt = t;
	pci_irq(&d->pci, 1);
}

static void
raise(struct e1000 *d, uint32_t cause)
{
	*r(d, ICR) |= cause;
	update_interrupt(d);
}

static void
itr_expired(void *opaque)
{
	struct e1000 *d = opaque;

	disarm(d, TIMER_ITR);
	update_interrupt(d);
}

/*
 * Raise `cause`, or put it off: by `delay` from the last call, but not beyond `*end`, which `abs_delay` sets at the
 * first (both registers in units of 1.024 us).
 */
static void
raise_delayed(struct e1000 *d, int which, uint32_t cause, uint32_t delay, uint32_t abs_delay, uint64_t *end)
{
	uint64_t t;

	delay &= 0xffff;
	abs_delay &= 0xffff;
	if (!delay) {
		disarm(d, which);
		raise(d, cause);
		return;
	}
	t = now(d);
	if (!d->when[which])
		*end = abs_delay ? t + (uint64_t)abs_delay * DELAY_UNIT_NS : UINT64_MAX;
	arm(d, which, MIN(t + (uint64_t)delay * DELAY_UNIT_NS, *end));
}

static void
rx_delay_expired(void *opaque)
{
	struct e1000 *d = opaque;

	disarm(d, TIMER_RX);
	raise(d, INT_RXT0);
}

static void
tx_delay_expired(void *opaque)
{
	struct e1000 *d = opaque;

	disarm(d, TIMER_TX);
	raise(d, INT_TXDW);
}

/* ---- PHY ---- */

static bool
autoneg_enabled(const struct e1000 *d)
{
	return d->phy[PHY_CTRL] & PHY_CTRL_AUTONEG;
}

/* What the partner offers at most. */
static unsigned
partner_speed(const struct e1000 *d)
{
	uint32_t speed = d->link ? d->link->speed : 0;

	return !speed || speed >= 1000000 ? 2 : speed >= 100000 ? 1 : 0;
}

/* 0: 10, 1: 100, 2: 1000 Mb/s. */
static unsigned
phy_speed(const struct e1000 *d)
{
	unsigned high = !!(d->phy[PHY_CTRL] & PHY_CTRL_SPEED_HIGH), low = !!(d->phy[PHY_CTRL] & PHY_CTRL_SPEED_LOW);

	if (autoneg_enabled(d)) {
		if ((d->phy[PHY_1000T_CTRL] & 0x0300) && partner_speed(d) == 2)
			return 2;
		return (d->phy[PHY_ADVERTISE] & 0x0180) && partner_speed(d) ? 1 : 0;
	}
	return high ? 2 : low;
}

static bool
phy_full_duplex(const struct e1000 *d)
{
	if (!autoneg_enabled(d))
		return d->phy[PHY_CTRL] & PHY_CTRL_FULL_DUPLEX;
	return (d->phy[PHY_1000T_CTRL] & 0x0200) || (d->phy[PHY_ADVERTISE] & 0x0140);
}

static void
link_set(struct e1000 *d, bool up)
{
	if (d->link_up == up)
		return;
	d->link_up = up;
	raise(d, INT_LSC);
}

/* The cable, the PHY's power, or what it is told about negotiation has changed. */
static void
link_restart(struct e1000 *d)
{
	bool can = d->link && net_link_up(d->link) && !(d->phy[PHY_CTRL] & PHY_CTRL_POWER_DOWN);

	if (can && !autoneg_enabled(d)) {
		disarm(d, TIMER_AUTONEG);
		link_set(d, true);
		return;
	}
	link_set(d, false);
	if (can)
		arm(d, TIMER_AUTONEG, now(d) + AUTONEG_NS);
	else
		disarm(d, TIMER_AUTONEG);
}

static void
autoneg_done(void *opaque)
{
	struct e1000 *d = opaque;

	disarm(d, TIMER_AUTONEG);
	link_set(d, true);
}

static void
phy_reset(struct e1000 *d)
{
	memset(d->phy, 0, sizeof(d->phy));
	d->phy[PHY_CTRL] = PHY_CTRL_AUTONEG | PHY_CTRL_FULL_DUPLEX | PHY_CTRL_SPEED_HIGH;
	d->phy[PHY_ID1] = 0x0141;
	d->phy[PHY_ID2] = d->variant->phy_id2;
	d->phy[PHY_ADVERTISE] = 0x0de1;
	d->phy[PHY_1000T_CTRL] = 0x0e00;
	d->phy[PHY_EXT_STATUS] = 0x3000;
	d->phy[PHY_SPEC_CTRL] = 0x0360;
	d->phy[PHY_EXT_SPEC_CTRL] = 0x0d60;
	link_restart(d);
}

static uint16_t
phy_read(struct e1000 *d, unsigned n)
{
	switch (n) {
	case PHY_STATUS: /* every speed to 100 Mb/s, extended status, preamble may be left out, can negotiate */
		return 0x7949 | (d->link_up ? PHY_STATUS_LINK | (autoneg_enabled(d) ? PHY_STATUS_AUTONEG_DONE : 0) : 0);
	case PHY_PARTNER:
		return d->link_up && autoneg_enabled(d) ? (partner_speed(d) ? 0x45e1 : 0x4461) : 0;
	case PHY_EXPANSION:
		return d->link_up && autoneg_enabled(d) ? 1 : 0;
	case PHY_1000T_STATUS:
		return d->link_up && partner_speed(d) == 2 ? 0x3c00 : 0;
	case PHY_SPEC_STATUS:
		return (uint16_t)(phy_speed(d) << 14 | (phy_full_duplex(d) ? 1 << 13 : 0) |
				  (d->link_up ? 1 << 11 | 1 << 10 : 0));
	default:
		return d->phy[n];
	}
}

static void
phy_write(struct e1000 *d, unsigned n, uint16_t v)
{
	uint16_t old = d->phy[PHY_CTRL];

	switch (n) {
	case PHY_CTRL:
		if (v & PHY_CTRL_RESET) {
			/* 802.3 22.2.4.1.1; M88E1000: what was written to the other registers takes effect, and stays
			 */
			v &= (uint16_t)~PHY_CTRL_RESET;
			v |= PHY_CTRL_RESTART;
		}
		d->phy[n] = v & (uint16_t)~PHY_CTRL_RESTART;
		if ((v & PHY_CTRL_RESTART) || ((v ^ old) & (PHY_CTRL_AUTONEG | PHY_CTRL_POWER_DOWN)))
			link_restart(d);
		break;
	case PHY_ADVERTISE:
	case PHY_NEXT_PAGE:
	case PHY_1000T_CTRL:
	case PHY_SPEC_CTRL:
	case PHY_INT_ENABLE:
	case PHY_EXT_SPEC_CTRL:
	case PHY_PAGE:
	case PHY_PAGE_DATA:
		d->phy[n] = v;
		break;
	}
}

static void
mdic_write(struct e1000 *d, uint32_t v)
{
	unsigned n = v >> 16 & 31, addr = v >> 21 & 31;

	v &= ~(uint32_t)(MDIC_READY | MDIC_ERROR);
	if (addr != 1)
		v |= MDIC_ERROR;
	else if ((v & MDIC_OP) == MDIC_OP_READ)
		v = (v & 0xffff0000) | phy_read(d, n);
	else if ((v & MDIC_OP) == MDIC_OP_WRITE)
		phy_write(d, n, (uint16_t)v);
	*r(d, MDIC) = v | MDIC_READY;
	if (v & MDIC_INTERRUPT)
		raise(d, INT_MDAC);
}

/*
 * A rising clock edge with `in` on the wire (IEEE 802.3 22.2.4.5): 32 ones, 01, 10 read or 01 write, PHY, register,
 * two bits of turnaround, 16 of data.
 */
static void
mdio_clock(struct e1000 *d, unsigned in)
{
	bool read;

	if (!d->md_bits && in) { /* preamble: a frame starts with a zero after ones */
		d->md_ones = (uint8_t)MIN(d->md_ones + 1, 32);
		return;
	}
	if (!d->md_bits && d->md_ones < 32) {
		d->md_ones = 0;
		return;
	}
	d->md_frame = d->md_frame << 1 | in;
	d->md_bits++;
	read = d->md_bits >= 14 && (d->md_frame >> (d->md_bits - 4) & 15) == 6;
	if (d->md_bits == 14)
		d->md_data = (d->md_frame >> 5 & 31) == 1 && read ? phy_read(d, d->md_frame & 31) : 0xffff;
	if (d->md_bits >= 16 && d->md_bits < 32)
		d->md_out = d->md_data >> (31 - d->md_bits) & 1;
	if (d->md_bits < 32)
		return;
	if (d->md_frame >> 28 == 5 && (d->md_frame >> 23 & 31) == 1)
		phy_write(d, d->md_frame >> 18 & 31, (uint16_t)d->md_frame);
	d->md_bits = d->md_ones = 0;
}

/* ---- EEPROM (5.6) ---- */

static void
eeprom_fill(struct e1000 *d)
{
	uint16_t *e = d->eeprom, sum = 0;

	memset(e, 0xff, sizeof(d->eeprom));
	for (int i = 0; i < 3; i++)
		e[i] = le16(d->link->mac + 2 * i);
	e[0x03] = 0x0000; /* no compatibility flags */
	e[0x08] = 0xffff; /* no board assembly number */
	e[0x0a] = 0x400b; /* valid; load the PCI identities; power management */
	e[0x0b] = d->variant->subdevice;
	e[0x0c] = d->variant->subvendor;
	e[0x0d] = d->variant->device;
	e[0x0e] = 0x8086;
	e[0x0f] = 0x3040;
	for (int i = 0; i < EEPROM_WORDS - 1; i++)
		sum = (uint16_t)(sum + e[i]);
	e[EEPROM_WORDS - 1] = (uint16_t)(EEPROM_CHECKSUM - sum);
}

static void
eerd_write(struct e1000 *d, uint32_t v)
{
	unsigned addr = v >> 8 & 0xff;

	if (!(v & EERD_START)) {
		*r(d, EERD) = v & 0xff00;
		return;
	}
	*r(d, EERD) = (uint32_t)(addr < EEPROM_WORDS ? d->eeprom[addr] : 0xffff) << 16 | (v & 0xff00) | EERD_DONE |
		      EERD_START;
}

/* A rising edge of SK while CS is high: start bit, two bits of opcode, six of address; READ is opcode 2. */
static void
microwire_clock(struct e1000 *d, unsigned in)
{
	if (d->mw_out_left) {
		d->mw_do = d->mw_out >> 15;
		d->mw_out = (uint16_t)(d->mw_out << 1);
		if (!--d->mw_out_left) { /* reading goes on with the next word */
			d->mw_addr = (d->mw_addr + 1) % EEPROM_WORDS;
			d->mw_out = d->eeprom[d->mw_addr];
			d->mw_out_left = 16;
		}
		return;
	}
	if (!d->mw_bits && !in)
		return;
	d->mw_in = (uint16_t)(d->mw_in << 1 | in);
	if (++d->mw_bits < 9)
		return;
	if ((d->mw_in >> 6 & 7) == 6) {
		d->mw_addr = d->mw_in & (EEPROM_WORDS - 1);
		d->mw_out = d->eeprom[d->mw_addr];
		d->mw_out_left = 16;
		d->mw_do = 0;
	}
	d->mw_bits = 0;
	d->mw_in = 0;
}

static void
eecd_write(struct e1000 *d, uint32_t v)
{
	uint32_t old = *r(d, EECD);

	*r(d, EECD) = v & (EECD_SK | EECD_CS | EECD_DI | EECD_FWE | EECD_REQ);
	if (!(v & EECD_CS)) {
		d->mw_bits = d->mw_out_left = 0;
		d->mw_in = 0;
		d->mw_do = 1; /* ready */
	} else if ((v & EECD_SK) && !(old & EECD_SK)) {
		microwire_clock(d, !!(v & EECD_DI));
	}
}

static uint32_t
eecd_read(struct e1000 *d)
{
	uint32_t v = *r(d, EECD);

	return v | EECD_PRES | (v & EECD_REQ ? EECD_GNT : 0) | (d->mw_do ? EECD_DO : 0);
}

/* ---- receive ---- */

static bool
address_matches(struct e1000 *d, const uint8_t *mac)
{
	uint32_t low = le32(mac), high = le16(mac + 4);

	for (unsigned off = RAL; off < RAL_END; off += 8)
		if (*r(d, off) == low && (*r(d, off + 4) & (RAH_AV | 0xffff)) == (RAH_AV | high))
			return true;
	return false;
}

/* 13.5.1: 12 bits of the address, chosen by RCTL.MO, index the table of 4096 bits. */
static bool
multicast_matches(struct e1000 *d, const uint8_t *mac)
{
	static const uint8_t shift[4] = { 4, 3, 2, 0 };
	unsigned bit = le16(mac + 4) >> shift[*r(d, RCTL) >> RCTL_MO_SHIFT & 3] & 0xfff;

	return *r(d, MTA + 4 * (bit >> 5)) >> (bit & 31) & 1;
}

/* Is the frame for us? *inexact: only the hash said so, software is to look again (RX_PIF). */
static bool
accepts_address(struct e1000 *d, const uint8_t *mac, bool *inexact)
{
	uint32_t rctl = *r(d, RCTL);

	*inexact = false;
	if (is_broadcast(mac) && (rctl & RCTL_BAM))
		return true;
	if (address_matches(d, mac) || (rctl & (mac[0] & 1 ? RCTL_MPE : RCTL_UPE)))
		return true;
	*inexact = (mac[0] & 1) && multicast_matches(d, mac);
	return *inexact;
}

static bool
is_tagged(struct e1000 *d, const uint8_t *frame, size_t len)
{
	return len >= 18 && (unsigned)(frame[12] << 8 | frame[13]) == (*r(d, VET) & 0xffff);
}

static bool
accepts_vlan(struct e1000 *d, uint16_t tag)
{
	uint32_t rctl = *r(d, RCTL);

	if (!(rctl & RCTL_VFE))
		return true;
	if ((rctl & RCTL_CFIEN) && !!(tag & 0x1000) != !!(rctl & RCTL_CFI))
		return false;
	return *r(d, VFTA + 4 * (tag >> 5 & 127)) >> (tag & 31) & 1;
}

static unsigned
rx_buffer_size(struct e1000 *d)
{
	uint32_t rctl = *r(d, RCTL);
	unsigned size = 2048u >> (rctl >> RCTL_BSIZE_SHIFT & 3);

	return (rctl & RCTL_BSEX) && size < 2048 ? size * 16 : size;
}

static bool
frame_fits(struct e1000 *d, const uint8_t *frame, size_t len)
{
	if (len <= 1514 || (len <= 1518 && is_tagged(d, frame, len)) || ((*r(d, RCTL) & RCTL_LPE) && len <= FRAME_MAX))
		return true;
	count(d, ROC);
	return false;
}

/* What goes into the last descriptor of a frame besides its length. */
struct rx_result {
	uint16_t checksum, special;
	uint8_t status, errors;
};

static void
rx_checksums(struct e1000 *d, const uint8_t *frame, size_t len, struct rx_result *res)
{
	uint32_t rxcsum = *r(d, RXCSUM);
	unsigned start = rxcsum & 0xff;
	int found;

	if (start < len)
		res->checksum = (uint16_t)~net_sum_fold(net_sum(0, frame + start, len - start));
	if (!(rxcsum & (RXCSUM_IPOFL | RXCSUM_TUOFL))) {
		res->status |= RX_IXSM;
		return;
	}
	found = net_checksum_verify(frame, len);
	if ((rxcsum & RXCSUM_IPOFL) && (found & NET_CSUM_IP)) {
		res->status |= RX_IPCS;
		res->errors |= found & NET_CSUM_IP_BAD ? RX_IPE : 0;
	}
	if ((rxcsum & RXCSUM_TUOFL) && (found & NET_CSUM_L4)) {
		res->status |= RX_TCPCS;
		res->errors |= found & NET_CSUM_L4_BAD ? RX_TCPE : 0;
	}
}

/* A frame as it is stored: two pieces (a tag may have been cut out between them), then zeroes (the FCS). */
struct rx_data {
	const uint8_t *piece[2];
	size_t len[2];
	size_t total;
};

/* Store `n` bytes of `data` from `off` at `gpa`. */
static void
rx_store(struct e1000 *d, gpa_t gpa, const struct rx_data *data, size_t off, size_t n)
{
	struct mem *mem = &d->pci.dev.m->mem;
	static const uint8_t fcs[4];

	for (int i = 0; i < 3 && n; i++) {
		const uint8_t *src = i < 2 ? data->piece[i] : fcs;
		size_t len = i < 2 ? data->len[i] : sizeof(fcs), k;

		if (off >= len) {
			off -= len;
			continue;
		}
		k = MIN(n, len - off);
		if (!mem_write(mem, gpa, src + off, k))
			log_guest(d->pci.dev.name, "receive buffer at %#llx is not memory", (unsigned long long)gpa);
		gpa += k;
		n -= k;
		off = 0;
	}
}

/* Receive descriptor: 0 u64 buffer, 8 u16 length, 10 u16 checksum, 12 u8 status, 13 u8 errors, 14 u16 special. */
static void
rx_write_back(struct e1000 *d, gpa_t gpa, void *desc, size_t n, bool last, const struct rx_result *res)
{
	uint64_t v = n | (uint64_t)RX_DD << 32;

	if (last)
		v |= (uint64_t)res->checksum << 16 | (uint64_t)(res->status | RX_EOP) << 32 |
		     (uint64_t)res->errors << 40 | (uint64_t)res->special << 48;
	/* the driver may look at it on another CPU: the data first, then all of this at once */
	__atomic_store_n((uint64_t *)((uint8_t *)desc + 8), v, __ATOMIC_RELEASE);
	mem_written(&d->pci.dev.m->mem, gpa, 16);
}

static gpa_t
ring_base(struct e1000 *d, unsigned low)
{
	return *r(d, low) | (uint64_t)*r(d, low + 4) << 32;
}

/* Spread the frame over the ring; the caller has seen that the descriptors are enough. */
static void
rx_fill(struct e1000 *d, const struct rx_data *data, const struct rx_result *res, unsigned ring)
{
	unsigned size = rx_buffer_size(d);
	size_t off = 0;

	while (off < data->total) {
		gpa_t gpa = ring_base(d, RDBAL) + *r(d, RDH) * 16u;
		size_t n = MIN(size, data->total - off);
		void *desc = mem_map(&d->pci.dev.m->mem, gpa, 16, true);

		if (!desc) {
			log_guest(d->pci.dev.name, "receive ring at %#llx is not memory", (unsigned long long)gpa);
			return;
		}
		rx_store(d, le64(desc), data, off, n);
		off += n;
		rx_write_back(d, gpa, desc, n, off == data->total, res);
		*r(d, RDH) = (*r(d, RDH) + 1) % ring;
	}
}

static void
rx_interrupt(struct e1000 *d, size_t len, unsigned ring)
{
	unsigned free_descs = (*r(d, RDT) + ring - *r(d, RDH)) % ring;
	uint32_t now_causes = 0;

	if (free_descs <= ring >> (1 + (*r(d, RCTL) >> RCTL_RDMTS_SHIFT & 3)))
		now_causes |= INT_RXDMT0;
	if (len <= (*r(d, RSRPD) & 0xfff))
		now_causes |= INT_SRPD;
	if (now_causes)
		raise(d, now_causes);
	raise_delayed(d, TIMER_RX, INT_RXT0, *r(d, RDTR), *r(d, RADV), &d->rx_delay_end);
}

/* The chip's half of receiving: `frame` passed the filters. False: no room now. */
static bool
rx_frame(struct e1000 *d, const uint8_t *frame, size_t len, bool inexact)
{
	unsigned ring = *r(d, RDLEN) / 16, needed, avail;
	struct rx_data data = { { frame, NULL }, { len, 0 }, 0 };
	struct rx_result res = { .status = inexact ? RX_PIF : 0 };

	if (*r(d, RDH) >= ring || *r(d, RDT) >= ring)
		return true; /* no ring, or a broken one: dropped */
	rx_checksums(d, frame, len, &res);
	if ((*r(d, CTRL) & CTRL_VME) && is_tagged(d, frame, len)) {
		res.status |= RX_VP;
		res.special = (uint16_t)(frame[14] << 8 | frame[15]);
		data = (struct rx_data){ { frame, frame + 16 }, { 12, len - 16 }, 0 };
	}
	data.total = data.len[0] + data.len[1] + (*r(d, RCTL) & RCTL_SECRC ? 0 : 4);
	needed = (unsigned)((data.total + rx_buffer_size(d) - 1) / rx_buffer_size(d));
	avail = (*r(d, RDT) + ring - *r(d, RDH)) % ring;
	if (needed > avail) {
		count(d, needed < ring ? RNBC : MPC);
		return needed >= ring;
	}
	count_rx(d, frame, len);
	rx_fill(d, &data, &res, ring);
	rx_interrupt(d, len, ring);
	return true;
}

static bool
receive_any(struct e1000 *d, const uint8_t *frame, size_t len)
{
	uint8_t padded[FRAME_MIN];
	bool inexact;

	if (!(*r(d, RCTL) & RCTL_EN) || !pci_bus_master(&d->pci))
		return true;
	count(d, TPR);
	count64(d, TORL, len + 4);
	if (!frame_fits(d, frame, len) || !accepts_address(d, frame, &inexact) ||
		(is_tagged(d, frame, len) && !accepts_vlan(d, (uint16_t)(frame[14] << 8 | frame[15]))))
		return true;
	if (len < FRAME_MIN) {
		memcpy(padded, frame, len);
		memset(padded + len, 0, FRAME_MIN - len);
		frame = padded;
		len = FRAME_MIN;
	}
	return rx_frame(d, frame, len, inexact);
}

/* From the network. While the machine stands still, its memory is left alone. */
static bool
receive(void *opaque, const uint8_t *frame, size_t len)
{
	struct e1000 *d = opaque;

	if (!d->pci.dev.m->clock.running)
		return false;
	return !d->link_up || receive_any(d, frame, len);
}

/* ---- transmit ---- */

/* Sum from `css` to `cse` (0: the end) into `cso` (3.5.7); what lies outside the frame is left alone. */
static void
insert_checksum(uint8_t *frame, size_t len, unsigned css, unsigned cso, unsigned cse)
{
	size_t end = cse && cse + 1u < len ? cse + 1u : len;
	uint16_t sum;

	if (css >= end || cso + 2u > len)
		return;
	sum = net_sum_fold(net_sum(0, frame + css, end - css));
	memcpy(frame + cso, &sum, 2);
}

static bool
looped_back(struct e1000 *d)
{
	return (*r(d, RCTL) & RCTL_LBM) || (d->phy[PHY_CTRL] & PHY_CTRL_LOOPBACK);
}

/* A TCP packet in one piece, to a network that carries such (net_takes_large()). */
static bool
is_large(struct e1000 *d, const uint8_t *frame, size_t len)
{
	const struct tx_context *c = &d->context[1];
	struct net_tcp t;

	return d->tx_tso && d->link->class && !d->link->class->takes_tso && len > c->hdrlen + 4u + c->mss &&
	       net_large_find(frame, len, c->mss, &t);
}

/* tx_buf[0..len) is a whole frame. */
static void
tx_emit(struct e1000 *d, size_t len)
{
	uint8_t *frame = d->tx_buf;

	if (len < 14)
		return;
	if (len < FRAME_MIN && (*r(d, TCTL) & TCTL_PSP)) {
		memset(frame + len, 0, FRAME_MIN - len);
		len = FRAME_MIN;
	}
	if (d->tx_vle && (*r(d, CTRL) & CTRL_VME)) {
		uint8_t addresses[12];

		memcpy(addresses, frame, sizeof(addresses));
		frame = (uint8_t *)d + offsetof(struct e1000, tx_room);
		memcpy(frame, addresses, sizeof(addresses));
		frame[12] = (uint8_t)(*r(d, VET) >> 8);
		frame[13] = (uint8_t)*r(d, VET);
		frame[14] = (uint8_t)(d->tx_special >> 8);
		frame[15] = (uint8_t)d->tx_special;
		len += 4;
	}
	count_tx(d, frame, len);
	if (looped_back(d))
		receive_any(d, frame, len);
	else if (is_large(d, frame, len))
		net_send_large(d->link, frame, len, d->context[1].mss);
	else
		net_send(d->link, frame, len);
}

/*
 * Bring the headers of one segment up to date (3.5.4 to 3.5.6): lengths, IPv4 identification, sequence number, flags of
 * all but the last segment, checksums. The driver has put the pseudo header's sum, without the length, into the TCP
 * checksum. The caller has checked that the headers lie within HDRLEN.
 */
static void
tso_fix_header(struct e1000 *d, const struct tx_context *c, size_t len, bool last)
{
	uint8_t *ip = d->tx_buf + c->ipcss, *l4 = d->tx_buf + c->tucss;
	uint32_t l4_len = (uint32_t)len - c->tucss;

	if (c->tucmd & TX_TUCMD_IP) {
		put_be16(ip + 2, (uint32_t)len - c->ipcss);
		put_be16(ip + 4, be16(ip + 4) + d->tx_index);
	} else {
		put_be16(ip + 4, (uint32_t)len - c->ipcss - 40);
	}
	if (c->tucmd & TX_TUCMD_TCP) {
		uint32_t seq = (be16(l4 + 4) << 16 | be16(l4 + 6)) + d->tx_paid;

		put_be16(l4 + 4, seq >> 16);
		put_be16(l4 + 6, seq);
		if (!last)
			l4[13] &= (uint8_t) ~(1 | 8); /* FIN, PSH */
	} else {
		put_be16(l4 + 4, l4_len);
	}
	if (d->tx_popts & TX_POPTS_TXSM) {
		/* fold the length into the seed; it fits: TUCSO + 2 <= HDRLEN was checked */
		uint32_t seed = be16(d->tx_buf + c->tucso) + l4_len;

		put_be16(d->tx_buf + c->tucso, (seed & 0xffff) + (seed >> 16));
		insert_checksum(d->tx_buf, len, c->tucss, c->tucso, c->tucse);
	}
	if (d->tx_popts & TX_POPTS_IXSM) {
		put_be16(d->tx_buf + c->ipcso, 0);
		insert_checksum(d->tx_buf, len, c->ipcss, c->ipcso, c->ipcse);
	}
}

static bool
tso_context_valid(const struct tx_context *c)
{
	unsigned l3_min = c->tucmd & TX_TUCMD_IP ? 20 : 40, l4_min = c->tucmd & TX_TUCMD_TCP ? 20 : 8;

	return c->mss >= MSS_MIN && c->paylen && c->ipcss >= 14 && c->ipcss + l3_min <= c->tucss &&
	       c->tucss + l4_min <= c->hdrlen && c->ipcso + 2 <= c->hdrlen && c->tucso + 2 <= c->hdrlen;
}

static void
tso_send_segment(struct e1000 *d)
{
	const struct tx_context *c = &d->context[1];
	uint32_t payload = d->tx_len - c->hdrlen;
	bool last = d->tx_paid + payload >= c->paylen;

	tso_fix_header(d, c, d->tx_len, last);
	if (!d->tx_index)
		count(d, TSCTC);
	tx_emit(d, d->tx_len);
	d->tx_paid += payload;
	d->tx_index++;
	memcpy(d->tx_buf, d->tx_header, c->hdrlen);
	d->tx_len = c->hdrlen;
}

static bool
tx_fetch(struct e1000 *d, gpa_t addr, uint32_t n)
{
	if (n > sizeof(d->tx_buf) - d->tx_len) {
		d->tx_drop = 1;
		return false;
	}
	if (!mem_read(&d->pci.dev.m->mem, addr, d->tx_buf + d->tx_len, n)) {
		log_guest(d->pci.dev.name, "transmit buffer at %#llx is not memory", (unsigned long long)addr);
		d->tx_drop = 1;
		return false;
	}
	d->tx_len += n;
	return true;
}

/* Take a buffer of a packet that is to be segmented. */
static void
tso_data(struct e1000 *d, gpa_t addr, uint32_t len)
{
	uint32_t hdrlen = d->context[1].hdrlen, full = hdrlen + d->tx_seg;

	while (len && !d->tx_drop) {
		uint32_t n = MIN(len, (d->tx_len < hdrlen ? hdrlen : full) - d->tx_len);

		if (!tx_fetch(d, addr, n))
			return;
		addr += n;
		len -= n;
		if (!d->tx_index && d->tx_len == hdrlen)
			memcpy(d->tx_header, d->tx_buf, hdrlen);
		if (d->tx_len == full)
			tso_send_segment(d);
	}
}

static void
plain_data(struct e1000 *d, gpa_t addr, uint32_t len)
{
	if (d->tx_drop || !len)
		return;
	if (len > FRAME_MAX - MIN(d->tx_len, FRAME_MAX)) {
		log_guest(d->pci.dev.name, "packet to send is longer than %d bytes", FRAME_MAX);
		d->tx_drop = 1;
		return;
	}
	tx_fetch(d, addr, len);
}

static void
tx_begin(struct e1000 *d, bool tso, uint8_t popts)
{
	const struct tx_context *c = &d->context[1];

	d->tx_open = 1;
	d->tx_tso = tso;
	d->tx_popts = popts;
	d->tx_drop = tso && !tso_context_valid(c);
	d->tx_vle = 0;
	d->tx_len = d->tx_paid = d->tx_index = 0;
	if (d->tx_drop)
		log_guest(d->pci.dev.name, "segmentation of %u bytes by %u with a header of %u makes no sense",
			c->paylen, c->mss, c->hdrlen);
	d->tx_seg = c->mss;
	if (tso && d->link->class && (d->link->class->takes_tso || net_takes_large(d->link)) && !looped_back(d) &&
		(c->tucmd & TX_TUCMD_TCP) && c->paylen <= 65535u - c->hdrlen)
		d->tx_seg = c->paylen;
}

static void
tx_end(struct e1000 *d, uint8_t cmd, uint8_t css, uint8_t cso)
{
	const struct tx_context *c = &d->context[0];

	d->tx_open = 0;
	if (d->tx_drop)
		return;
	if (d->tx_tso) {
		if (d->tx_len > d->context[1].hdrlen)
			tso_send_segment(d);
		return;
	}
	if (!(cmd & TX_DEXT) && (cmd & TX_IC))
		insert_checksum(d->tx_buf, d->tx_len, css, cso, 0);
	if (d->tx_popts & TX_POPTS_TXSM)
		insert_checksum(d->tx_buf, d->tx_len, c->tucss, c->tucso, c->tucse);
	if (d->tx_popts & TX_POPTS_IXSM)
		insert_checksum(d->tx_buf, d->tx_len, c->ipcss, c->ipcso, c->ipcse);
	tx_emit(d, d->tx_len);
}

/* 3.3.6: 0 u8 IPCSS, 1 u8 IPCSO, 2 u16 IPCSE, 4 u8 TUCSS, 5 u8 TUCSO, 6 u16 TUCSE, 8 u20 PAYLEN, 11 u8 TUCMD,
 * 13 u8 HDRLEN, 14 u16 MSS */
static void
tx_set_context(struct e1000 *d, const uint8_t *desc)
{
	d->context[desc[11] & TX_TSE ? 1 : 0] = (struct tx_context){
		.ipcss = desc[0],
		.ipcso = desc[1],
		.ipcse = le16(desc + 2),
		.tucss = desc[4],
		.tucso = desc[5],
		.tucse = le16(desc + 6),
		.paylen = le32(desc + 8) & 0xfffff,
		.tucmd = desc[11],
		.hdrlen = desc[13],
		.mss = le16(desc + 14),
	};
}

/*
 * Legacy (3.3.3): 0 u64 buffer, 8 u16 length, 10 u8 CSO, 11 u8 CMD, 12 u8 status, 13 u8 CSS, 14 u16 special.
 * Data (3.3.7): 0 u64 buffer, 8 u20 length, u4 DTYP, 11 u8 DCMD, 12 u8 status, 13 u8 POPTS, 14 u16 special.
 */
static void
tx_descriptor(struct e1000 *d, const uint8_t *desc)
{
	uint8_t cmd = desc[11];
	bool ext = cmd & TX_DEXT;
	unsigned dtyp = desc[10] >> 4;
	uint32_t len = ext ? le32(desc + 8) & 0xfffff : le16(desc + 8);

	if (ext && dtyp != TX_DTYP_DATA) {
		if (dtyp == TX_DTYP_CONTEXT && !d->tx_open)
			tx_set_context(d, desc);
		return;
	}
	if (!d->tx_open)
		tx_begin(d, ext && (cmd & TX_TSE), ext ? desc[13] : 0);
	if (cmd & TX_VLE) {
		d->tx_vle = 1;
		d->tx_special = le16(desc + 14);
	}
	if (d->tx_tso)
		tso_data(d, le64(desc), len);
	else
		plain_data(d, le64(desc), len);
	if (cmd & TX_EOP)
		tx_end(d, cmd, desc[13], desc[10]);
}

/* Report the descriptor done (3.3.3.2) and raise what follows. Returns the interrupt causes to raise at once. */
static uint32_t
tx_write_back(struct e1000 *d, gpa_t gpa, uint8_t *ring_desc, uint8_t cmd)
{
	if (!(cmd & (TX_RS | TX_RPS)))
		return 0;
	__atomic_store_n(ring_desc + 12, ring_desc[12] | TX_DD, __ATOMIC_RELEASE);
	mem_written(&d->pci.dev.m->mem, gpa, 16);
	if (!(cmd & TX_IDE) || !(*r(d, TIDV) & 0xffff))
		return INT_TXDW;
	raise_delayed(d, TIMER_TX, INT_TXDW, *r(d, TIDV), *r(d, TADV), &d->tx_delay_end);
	return 0;
}

static bool
tx_one(struct e1000 *d, unsigned ring, uint32_t *causes)
{
	gpa_t gpa = ring_base(d, TDBAL) + *r(d, TDH) * 16u;
	uint8_t desc[16], *ring_desc = mem_map(&d->pci.dev.m->mem, gpa, 16, true);

	if (!ring_desc) {
		log_guest(d->pci.dev.name, "transmit ring at %#llx is not memory", (unsigned long long)gpa);
		return false;
	}
	memcpy(desc, ring_desc, sizeof(desc));
	tx_descriptor(d, desc);
	*causes |= tx_write_back(d, gpa, ring_desc, desc[11]);
	*r(d, TDH) = (*r(d, TDH) + 1) % ring;
	return true;
}

static void
tx_run(struct e1000 *d)
{
	unsigned ring = *r(d, TDLEN) / 16;
	uint32_t causes = 0, frames = *r(d, TPT);

	if (!(*r(d, TCTL) & TCTL_EN) || !pci_bus_master(&d->pci) || d->when[TIMER_TX_MORE])
		return;
	if (*r(d, TDH) >= ring || *r(d, TDT) >= ring || *r(d, TDH) == *r(d, TDT))
		return;
	net_burst(d->link);
	for (int left = TX_BUDGET; *r(d, TDH) != *r(d, TDT); left--) {
		if (left <= 0 || *r(d, TPT) - frames >= TX_BUDGET) {
			arm(d, TIMER_TX_MORE, now(d));
			break;
		}
		if (!net_can_send(d->link)) /* send_ready() goes on */
			break;
		if (!tx_one(d, ring, &causes))
			break;
	}
	net_burst_end(d->link);
	if (*r(d, TDH) == *r(d, TDT))
		causes |= INT_TXQE;
	raise(d, causes);
}

static void
tx_more(void *opaque)
{
	struct e1000 *d = opaque;

	disarm(d, TIMER_TX_MORE);
	tx_run(d);
}

/* ---- reset ---- */

static void
load_mac(struct e1000 *d)
{
	*r(d, RAL) = d->eeprom[0] | (uint32_t)d->eeprom[1] << 16;
	*r(d, RAL + 4) = d->eeprom[2] | RAH_AV;
}

/* CTRL.RST (4.6.8): everything but the PHY and PCI. */
static void
mac_reset(struct e1000 *d)
{
	for (int i = 0; i < TIMERS; i++)
		if (i != TIMER_AUTONEG)
			disarm(d, i);
	memset(d->reg, 0, sizeof(d->reg));
	memset(d->context, 0, sizeof(d->context));
	d->tx_open = 0;
	d->tx_len = 0;
	d->last_interrupt = 0;
	d->mw_bits = d->mw_out_left = 0;
	d->md_bits = d->md_ones = 0;
	*r(d, CTRL) = CTRL_FD | CTRL_SLU | CTRL_SPEED_1000;
	*r(d, LEDCTL) = 0x07068302;
	*r(d, PBA) = 0x00100030;
	*r(d, VET) = 0x8100;
	load_mac(d);
	pci_irq(&d->pci, 0);
}

/* ---- registers ---- */

static void
ctrl_write(struct e1000 *d, uint32_t v)
{
	uint32_t old = *r(d, CTRL);

	if (v & CTRL_RST) {
		mac_reset(d);
		return;
	}
	*r(d, CTRL) = v & ~CTRL_PHY_RST;
	if (v & CTRL_PHY_RST)
		phy_reset(d);
	if (d->variant->mdio_by_pins && (v & CTRL_SWDPIN3) && !(old & CTRL_SWDPIN3))
		mdio_clock(d, v & CTRL_SWDPIO2 ? !!(v & CTRL_SWDPIN2) : 1);
}

static uint32_t
ctrl_read(struct e1000 *d)
{
	uint32_t v = *r(d, CTRL);

	if (d->variant->mdio_by_pins && !(v & CTRL_SWDPIO2))
		v = (v & ~(uint32_t)CTRL_SWDPIN2) | (d->md_out ? CTRL_SWDPIN2 : 0);
	return v;
}

static uint32_t
status_read(struct e1000 *d)
{
	return (phy_full_duplex(d) ? STATUS_FD : 0) | (d->link_up ? STATUS_LU : 0) |
	       phy_speed(d) << STATUS_SPEED_SHIFT | phy_speed(d) << STATUS_ASDV_SHIFT;
}

static uint32_t
icr_read(struct e1000 *d)
{
	uint32_t v = *r(d, ICR);

	*r(d, ICR) = 0;
	update_interrupt(d);
	return v;
}

/* Counters are cleared by reading; of the 64-bit ones the low half stays until the high one is read. */
static uint32_t
statistic_read(struct e1000 *d, unsigned off)
{
	uint32_t v = *r(d, off);
	bool low = off == GORCL || off == GOTCL || off == TORL || off == TOTL;

	if (low)
		return v;
	*r(d, off) = 0;
	if (off == GORCL + 4 || off == GOTCL + 4 || off == TORL + 4 || off == TOTL + 4)
		*r(d, off - 4) = 0;
	return v;
}

static uint32_t
reg_read(struct e1000 *d, unsigned off)
{
	if (off >= REGS_END)
		return 0;
	if (off >= STATISTICS && off < STATISTICS_END)
		return statistic_read(d, off);
	switch (off) {
	case CTRL:
		return ctrl_read(d);
	case STATUS:
		return status_read(d);
	case EECD:
		return eecd_read(d);
	case ICR:
		return icr_read(d);
	case ICS:
	case IMC:
		return 0;
	default:
		return *r(d, off);
	}
}

/* Registers that keep what is written, through a mask, and nothing else happens. */
static const struct {
	uint16_t first, end;
	uint32_t mask;
} plain[] = {
	{ FCAL, FCT + 4, ~0u },
	{ VET, VET + 4, 0xffff },
	{ FCTTV, FCTTV + 4, 0xffff },
	{ TXCW, TXCW + 4, ~0u },
	{ TIPG, TIPG + 4, ~0u },
	{ AIFS, AIFS + 4, 0xffff },
	{ LEDCTL, LEDCTL + 4, ~0u },
	{ PBA, PBA + 4, 0xffff },
	{ FCRTL, FCRTL + 4, ~0u },
	{ FCRTH, FCRTH + 4, ~0u },
	{ RDBAL, RDBAL + 4, ~15u },
	{ RDBAH, RDBAH + 4, ~0u },
	{ RDLEN, RDLEN + 4, 0xfff80 },
	{ RDH, RDH + 4, 0xffff },
	{ RXDCTL, RXDCTL + 4, ~0u },
	{ RADV, RADV + 4, 0xffff },
	{ RSRPD, RSRPD + 4, 0xfff },
	{ TXDMAC, TXDMAC + 4, 1 },
	{ TDBAL, TDBAL + 4, ~15u },
	{ TDBAH, TDBAH + 4, ~0u },
	{ TDLEN, TDLEN + 4, 0xfff80 },
	{ TDH, TDH + 4, 0xffff },
	{ TIDV, TIDV + 4, 0xffff },
	{ TXDCTL, TXDCTL + 4, ~0u },
	{ TADV, TADV + 4, 0xffff },
	{ TSPMT, TSPMT + 4, ~0u },
	{ RXCSUM, RXCSUM + 4, 0x3ff },
	{ MTA, RAL_END, ~0u },
	{ VFTA, VFTA_END, ~0u },
	{ WUC, WUC + 4, 0xf },
	{ WUFC, WUFC + 4, ~0u },
	{ MANC, MANC + 4, ~0u },
	{ IPAV, IPAV + 4, ~0u },
	{ IP4AT, IP4AT_END, ~0u },
	{ WUPM, WUPM_END, ~0u },
};

static void
plain_write(struct e1000 *d, unsigned off, uint32_t v)
{
	for (size_t i = 0; i < ARRAY_LEN(plain); i++)
		if (off >= plain[i].first && off < plain[i].end) {
			*r(d, off) = v & plain[i].mask;
			return;
		}
}

/* RDTR bit 31 sends what RDTR holds back (13.4.30). */
static void
rdtr_write(struct e1000 *d, uint32_t v)
{
	*r(d, RDTR) = v & 0xffff;
	if ((v >> 31) && d->when[TIMER_RX])
		rx_delay_expired(d);
}

static void
reg_write(struct e1000 *d, unsigned off, uint32_t v)
{
	if (off >= REGS_END)
		return;
	switch (off) {
	case CTRL:
		ctrl_write(d, v);
		break;
	case EECD:
		eecd_write(d, v);
		break;
	case EERD:
		eerd_write(d, v);
		break;
	case CTRL_EXT:
		*r(d, CTRL_EXT) = v & ~(uint32_t)CTRL_EXT_EE_RST;
		if (v & CTRL_EXT_EE_RST)
			load_mac(d);
		break;
	case MDIC:
		mdic_write(d, v);
		break;
	case ICR:
		*r(d, ICR) &= ~v;
		update_interrupt(d);
		break;
	case ITR:
		*r(d, ITR) = v & 0xffff;
		break;
	case ICS:
		raise(d, v & 0x1ffff);
		break;
	case IMS:
		*r(d, IMS) |= v & 0x1ffff;
		update_interrupt(d);
		break;
	case IMC:
		*r(d, IMS) &= ~v;
		update_interrupt(d);
		break;
	case RCTL:
		*r(d, RCTL) = v;
		net_adapter_ready(d->link);
		break;
	case RDT:
		*r(d, RDT) = v & 0xffff;
		net_adapter_ready(d->link);
		break;
	case RDTR:
		rdtr_write(d, v);
		break;
	case TCTL:
		*r(d, TCTL) = v;
		tx_run(d);
		break;
	case TDT:
		*r(d, TDT) = v & 0xffff;
		tx_run(d);
		break;
	default:
		plain_write(d, off, v);
	}
}

static uint64_t
mmio_read(void *opaque, uint64_t off, unsigned size)
{
	return reg_read(opaque, (unsigned)off & ~3u);
}

static void
mmio_write(void *opaque, uint64_t off, uint64_t value, unsigned size)
{
	reg_write(opaque, (unsigned)off & ~3u, (uint32_t)value);
}

static const struct bus_ops mmio_ops = { mmio_read, mmio_write, 4, 4 };

/* The I/O window (13.2.2): IOADDR at 0 says which register IODATA at 4 is. */
static uint64_t
port_read(void *opaque, uint64_t off, unsigned size)
{
	struct e1000 *d = opaque;

	return off < 4 ? d->io_addr : reg_read(d, d->io_addr & ~3u);
}

static void
port_write(void *opaque, uint64_t off, uint64_t value, unsigned size)
{
	struct e1000 *d = opaque;

	if (off < 4)
		d->io_addr = (uint32_t)value;
	else
		reg_write(d, d->io_addr & ~3u, (uint32_t)value);
}

static const struct bus_ops port_ops = { port_read, port_write, 4, 4 };

/* ---- the device ---- */

static void
e1000_reset(struct device *dev)
{
	struct e1000 *d = (struct e1000 *)dev;

	pci_reset(&d->pci);
	eeprom_fill(d);
	d->link_up = 0;
	mac_reset(d);
	phy_reset(d);
	*r(d, ICR) = 0;
}

static void
e1000_loaded(struct device *dev)
{
	struct e1000 *d = (struct e1000 *)dev;

	/* what came from a file is as little to be trusted as what comes from a guest */
	if (d->tx_len > sizeof(d->tx_buf) || (d->tx_tso && !tso_context_valid(&d->context[1])) ||
		d->context[1].hdrlen + d->tx_seg > sizeof(d->tx_buf))
		d->tx_drop = 1;
	d->mw_addr %= EEPROM_WORDS;
	d->mw_bits %= 9;
	d->md_bits %= 32;
	for (int i = 0; i < TIMERS; i++)
		if (d->when[i])
			vtimer_arm(&d->timer[i], d->when[i]);
		else
			vtimer_cancel(&d->timer[i]);
	/* what waited for the network to have room */
	if (!d->when[TIMER_TX_MORE] && *r(d, TDH) != *r(d, TDT))
		arm(d, TIMER_TX_MORE, now(d));
}

static void
e1000_destroy(struct device *dev)
{
	struct e1000 *d = (struct e1000 *)dev;

	for (int i = 0; i < TIMERS; i++)
		vtimer_cancel(&d->timer[i]);
	d->link->adapter = (struct net_adapter){ 0 };
	pci_remove(dev->m, &d->pci);
	free(d);
}

static void
send_ready(void *opaque)
{
	tx_run(opaque);
}

/* The driver reads it when it is loaded, or at the next reset. */
static void
address_changed(void *opaque)
{
	eeprom_fill(opaque);
}

static void
link_changed(void *opaque, bool up)
{
	link_restart(opaque);
}

static const struct dev_class e1000_class = {
	.name = "e1000",
	.fields = e1000_fields,
	.reset = e1000_reset,
	.loaded = e1000_loaded,
	.destroy = e1000_destroy,
};

static const struct variant *
variant_find(const char *name)
{
	for (size_t i = 0; i < ARRAY_LEN(variants); i++)
		if (!strcmp(variants[i].name, name))
			return &variants[i];
	return NULL;
}

static void
fill_pci(struct e1000 *d)
{
	struct pci_dev *p = &d->pci;
	uint8_t pm;

	p->vendor = 0x8086;
	p->device = d->variant->device;
	p->subvendor = d->variant->subvendor;
	p->subdevice = d->variant->subdevice;
	p->revision = 2;
	p->class = 0x020000;
	p->intx_pin = 1;
	p->bars[0] = (struct pci_bar){ .kind = PCI_BAR_MEM32, .size = MMIO_SIZE, .ops = &mmio_ops, .opaque = d };
	p->bars[2] = (struct pci_bar){ .kind = PCI_BAR_IO, .size = 8, .ops = &port_ops, .opaque = d };
	pm = pci_add_capability(p, 0x01, 8); /* power management 1.1; D3 is only remembered */
	p->config[pm + 2] = 0x02;
	p->writable[pm + 4] = 0x03;
}

struct device *
e1000_create(struct machine *m, int slot, const char *variant, struct net_link *link, struct err *e)
{
	static void (*const expired[TIMERS])(
		void *) = { itr_expired, rx_delay_expired, tx_delay_expired, tx_more, autoneg_done };
	const struct variant *v = variant_find(variant);
	struct e1000 *d;

	if (!v) {
		err_set(e, ERR_INVALID, "'%s' is not a model of the e1000: 82540EM, 82543GC, 82545EM", variant);
		return NULL;
	}
	d = xcalloc(1, sizeof(*d));
	d->variant = v;
	d->link = link;
	fill_pci(d);
	if (pci_add(m, &d->pci, &e1000_class, slot, 0)) {
		free(d);
		err_set(e, ERR_INVALID, "PCI slot %d for a network adapter is taken", slot);
		return NULL;
	}
	for (int i = 0; i < TIMERS; i++)
		vtimer_init(&d->timer[i], &m->clock, expired[i], d);
	link->adapter = (struct net_adapter){ .opaque = d,
		.receive = receive,
		.link_changed = link_changed,
		.address_changed = address_changed,
		.send_ready = send_ready };
	e1000_reset(&d->pci.dev);
	return &d->pci.dev;
}
