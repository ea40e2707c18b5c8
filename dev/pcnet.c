/* SPDX-License-Identifier: Apache-2.0 */
/*
 * AMD Am79C970A (PCnet-PCI II) and Am79C973 (PCnet-FAST III) Ethernet controllers. Section numbers are those of AMD's
 * data sheet of the Am79C973 (publication 21510); the Am79C970A (publication 19436) is the same but for its 10 Mb/s.
 *
 * Theory of operation
 *
 * 32 bytes of registers, in I/O space and in memory: the address PROM (16 bytes), then, as words (WIO) or, after a
 * 32-bit write to offset 0x10, as double words (DWIO): RDP 0x10, RAP, RESET, BDP. RAP chooses the CSR that RDP, and
 * the BCR that BDP stands for.
 *
 *  init	CSR0.INIT reads the initialization block at CSR1-2: mode, ring lengths, address, multicast filter, rings
 *  rings	descriptors of 8 bytes (SWSTYLE 0) or 16 (2, and 3 with other order), each with an OWN bit
 *  transmit	CSR0.TDMD, or a poll, takes descriptors until one is not owned; buffers from STP to ENP are a frame
 *  receive	a frame fills the buffers of owned descriptors; where there are none it waits in the link's queue, which
 *		stands for the chip's FIFO, and MISS is told once
 *  interrupts	CSR0 bits 8-14 that CSR3 does not mask, and CSR4, CSR5 and CSR7 bits enabled there, drive INTA while
 *		CSR0.IENA is set
 *  PHY	behind BCR32-34 (MII management): 100 Mb/s full duplex, the link follows the cable
 *
 * The chip polls its transmit ring now and then by itself (CSR4.DPOLL off); here it looks when it is told, and when
 * its poll timer runs out once after that, so that an idle ring costs nothing.
 *
 * Hostile guests: rings and buffers are reached through mem_read()/mem_write() only, descriptors are copied before they
 * are looked at, lengths come from 12 bits, a frame that outgrows the buffer is cut off with an error, a chain that
 * comes round to its start ends there.
 */
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/log.h"
#include "base/str.h"
#include "dev/dev.h"
#include "net/net.h"

#define PORTS 32
#define FRAME_MAX 4096
#define TX_BUDGET 128
#define POLL_NS UINT64_C(1600000)

/* CSR0 (10.1) */
enum {
	CSR0_INIT = 1 << 0,
	CSR0_STRT = 1 << 1,
	CSR0_STOP = 1 << 2,
	CSR0_TDMD = 1 << 3,
	CSR0_TXON = 1 << 4,
	CSR0_RXON = 1 << 5,
	CSR0_IENA = 1 << 6,
	CSR0_INTR = 1 << 7,
	CSR0_IDON = 1 << 8,
	CSR0_TINT = 1 << 9,
	CSR0_RINT = 1 << 10,
	CSR0_MERR = 1 << 11,
	CSR0_MISS = 1 << 12,
	CSR0_CERR = 1 << 13,
	CSR0_BABL = 1 << 14,
	CSR0_ERR = 1 << 15,
	CSR0_CAUSES = CSR0_IDON | CSR0_TINT | CSR0_RINT | CSR0_MERR | CSR0_MISS | CSR0_BABL,
};
enum { CSR3_BSWP = 1 << 2, CSR3_DXMT2PD = 1 << 4, CSR3_LAPPEN = 1 << 5, CSR3_DXSUFLO = 1 << 6 };
enum { CSR4_APAD_XMT = 1 << 11, CSR4_TXSTRT = 1 << 3, CSR4_TXSTRTM = 1 << 2, CSR4_DPOLL = 1 << 12 };
enum { CSR5_SPND = 1 << 0, CSR5_LTINTEN = 1 << 14, CSR5_TOKINTD = 1 << 15 };
enum {
	MODE_DRX = 1 << 0,
	MODE_DTX = 1 << 1,
	MODE_LOOP = 1 << 2,
	MODE_DRCVBC = 1 << 14,
	MODE_PROM = 1 << 15,
};
/* Descriptors, as the upper word of status (10.2) */
enum { D_OWN = 1 << 15, D_ERR = 1 << 14 };
enum { T_ADD_FCS = 1 << 13, T_LTINT = 1 << 12, T_STP = 1 << 9, T_ENP = 1 << 8 };
enum {
	R_OFLO = 1 << 12,
	R_BUFF = 1 << 10,
	R_STP = 1 << 9,
	R_ENP = 1 << 8,
	R_PAM = 1 << 6,
	R_LAFM = 1 << 5,
	R_BAM = 1 << 4
};
enum { BCR18_DWIO = 1 << 7 };

#define CSRS 128
#define BCRS 64

static const struct variant {
	const char *name;
	uint32_t chip; /* CSR88-89 */
	uint8_t revision;
	bool fast; /* 100 Mb/s, with a PHY */
} variants[] = {
	{ "Am79C970A", 0x02621003, 0x16, false },
	{ "Am79C973", 0x02625003, 0x40, true },
};

struct pcnet {
	struct pci_dev pci;
	struct net_link *link;
	const struct variant *variant;
	struct vtimer poll;
	uint64_t poll_when; /* 0: not armed */

	uint16_t csr[CSRS], bcr[BCRS], rap;
	uint16_t phy[32];
	uint8_t prom[16];
	uint32_t rx_base, tx_base; /* of the rings */
	uint16_t rx_len, tx_len;   /* entries */
	uint16_t rx_at, tx_at;
	uint8_t tx_open, tx_drop; /* in a frame; it is dropped */
	uint32_t tx_size;
	uint8_t tx_buf[FRAME_MAX];
};

static const struct field pcnet_fields[] = {
	FIELD(struct pcnet, poll_when),
	FIELD_ARRAY(struct pcnet, csr),
	FIELD_ARRAY(struct pcnet, bcr),
	FIELD(struct pcnet, rap),
	FIELD_ARRAY(struct pcnet, phy),
	FIELD_ARRAY(struct pcnet, prom),
	FIELD(struct pcnet, rx_base),
	FIELD(struct pcnet, tx_base),
	FIELD(struct pcnet, rx_len),
	FIELD(struct pcnet, tx_len),
	FIELD(struct pcnet, rx_at),
	FIELD(struct pcnet, tx_at),
	FIELD(struct pcnet, tx_open),
	FIELD(struct pcnet, tx_drop),
	FIELD(struct pcnet, tx_size),
	FIELD_ARRAY(struct pcnet, tx_buf),
	FIELD_END,
};

/* A descriptor, whatever its form in memory. */
struct desc {
	uint32_t buffer;
	uint16_t status; /* upper half of the second word: OWN and what follows */
	uint16_t count;	 /* BCNT, negative in 12 bits */
	uint32_t extra;	 /* transmit: error bits; receive: MCNT */
};

static struct mem *
memory(struct pcnet *d)
{
	return &d->pci.dev.m->mem;
}

static unsigned
style(const struct pcnet *d)
{
	return d->bcr[20] & 0xff;
}

/* 32-bit software structures (SSIZE32)? */
static bool
wide(const struct pcnet *d)
{
	return style(d) != 0;
}

/* ---- interrupts ---- */

static void
update_interrupt(struct pcnet *d)
{
	uint16_t causes = d->csr[0] & CSR0_CAUSES & (uint16_t)~d->csr[3];
	bool on;

	d->csr[0] &= (uint16_t) ~(CSR0_INTR | CSR0_ERR);
	if (d->csr[0] & (CSR0_MERR | CSR0_MISS | CSR0_CERR | CSR0_BABL))
		d->csr[0] |= CSR0_ERR;
	if ((d->csr[4] & CSR4_TXSTRT) && !(d->csr[4] & CSR4_TXSTRTM))
		causes = 1;
	if (causes)
		d->csr[0] |= CSR0_INTR;
	on = causes && (d->csr[0] & CSR0_IENA);
	if (on != d->pci.intx_level)
		pci_intx(&d->pci, on);
}

static void
raise(struct pcnet *d, uint16_t cause)
{
	d->csr[0] |= cause;
	update_interrupt(d);
}

/* ---- descriptors (10.2 and 10.3) ---- */

static uint32_t
desc_address(const struct pcnet *d, uint32_t base, unsigned index)
{
	return base + index * (wide(d) ? 16 : 8);
}

/*
 * SWSTYLE 0: 0 u24 buffer, 3 u8 status, 4 u16 BCNT, 6 u16 errors or MCNT.
 * SWSTYLE 2: 0 u32 buffer, 4 u16 BCNT, 6 u16 status, 8 u32 errors or MCNT. SWSTYLE 3: buffer and errors swapped.
 */
static bool
desc_read(struct pcnet *d, uint32_t base, unsigned index, struct desc *out)
{
	uint8_t b[16];

	if (!mem_read(memory(d), desc_address(d, base, index), b, wide(d) ? 16 : 8)) {
		raise(d, CSR0_MERR);
		return false;
	}
	if (!wide(d)) {
		*out = (struct desc){ .buffer = le32(b) & 0xffffff,
			.status = (uint16_t)(b[3] << 8),
			.count = le16(b + 4),
			.extra = le16(b + 6) };
		return true;
	}
	*out = (struct desc){ .buffer = le32(style(d) == 3 ? b + 8 : b),
		.count = le16(b + 4),
		.status = le16(b + 6),
		.extra = le32(style(d) == 3 ? b : b + 8) };
	return true;
}

/* The owner's word goes last. */
static void
desc_write(struct pcnet *d, uint32_t base, unsigned index, const struct desc *in)
{
	uint32_t at = desc_address(d, base, index);
	uint8_t b[4];

	if (!wide(d)) {
		put_le16(b, (uint16_t)in->extra);
		mem_write(memory(d), at + 6, b, 2);
		b[0] = (uint8_t)(in->status >> 8);
		mem_write(memory(d), at + 3, b, 1);
		return;
	}
	put_le32(b, in->extra);
	mem_write(memory(d), style(d) == 3 ? at : at + 8, b, 4);
	put_le16(b, in->status);
	mem_write(memory(d), at + 6, b, 2);
}

static unsigned
desc_room(const struct desc *t)
{
	unsigned n = (unsigned)-t->count & 0xfff;

	return n ? n : 4096;
}

/* ---- transmit ---- */

static bool receive(void *opaque, const uint8_t *frame, size_t len);

static void
send_frame(struct pcnet *d)
{
	size_t len = d->tx_size;

	if (d->csr[15] & MODE_LOOP) {
		receive(d, d->tx_buf, len);
		return;
	}
	if (len < 60 && (d->csr[4] & CSR4_APAD_XMT)) {
		memset(d->tx_buf + len, 0, 60 - len);
		len = 60;
	}
	net_send(d->link, d->tx_buf, len);
}

static void
take_buffer(struct pcnet *d, const struct desc *t)
{
	unsigned n = desc_room(t);

	if (t->status & T_STP) {
		d->tx_open = 1;
		d->tx_drop = 0;
		d->tx_size = 0;
	}
	if (!d->tx_open || d->tx_drop)
		return;
	if (n > sizeof(d->tx_buf) - d->tx_size || !mem_read(memory(d), t->buffer, d->tx_buf + d->tx_size, n)) {
		log_guest(d->pci.dev.name, "a frame to send is longer than %d bytes, or not in memory", FRAME_MAX);
		d->tx_drop = 1;
		return;
	}
	d->tx_size += n;
}

static void arm_poll(struct pcnet *d, uint64_t delay);

static void
transmit(struct pcnet *d)
{
	struct desc t;
	bool done = false;

	if (!(d->csr[0] & CSR0_TXON) || !pci_bus_master(&d->pci) || (d->csr[5] & CSR5_SPND) || !d->tx_len)
		return;
	net_burst(d->link);
	for (int left = TX_BUDGET;; left--) {
		bool end;

		if (!d->tx_open && !net_can_send(d->link)) /* send_ready() goes on */
			break;
		if (!desc_read(d, d->tx_base, d->tx_at, &t) || !(t.status & D_OWN))
			break;
		if (!left) {
			arm_poll(d, 0); /* so that one doorbell does not hold the machine for long */
			break;
		}
		take_buffer(d, &t);
		end = t.status & T_ENP;
		if (end) {
			if (d->tx_open && !d->tx_drop)
				send_frame(d);
			d->tx_open = 0;
			/* with LTINTEN only descriptors with LTINT tell (CSR5, 10.1.6) */
			done |= !(d->csr[5] & CSR5_LTINTEN) || (t.status & T_LTINT);
		}
		t.status &= (uint16_t) ~(D_OWN | D_ERR);
		t.extra = 0;
		desc_write(d, d->tx_base, d->tx_at, &t);
		d->tx_at = (uint16_t)((d->tx_at + 1u) % d->tx_len);
	}
	net_burst_end(d->link);
	if (done && !(d->csr[5] & CSR5_TOKINTD)) {
		d->csr[4] |= CSR4_TXSTRT;
		raise(d, CSR0_TINT);
	}
}

static void
arm_poll(struct pcnet *d, uint64_t delay)
{
	d->poll_when = clock_now(&d->pci.dev.m->clock) + delay;
	d->poll_when += !d->poll_when;
	vtimer_arm(&d->poll, d->poll_when);
}

static void
poll_ring(void *opaque)
{
	struct pcnet *d = opaque;

	d->poll_when = 0;
	transmit(d);
}

/* ---- receive ---- */

/* IEEE 802.3 CRC of an address, its upper 6 bits choose the filter's bit (10.1.8). */
static bool
in_filter(const struct pcnet *d, const uint8_t *mac)
{
	uint32_t crc = ~0u;
	unsigned bit;

	for (int i = 0; i < 6; i++) {
		crc ^= mac[i];
		for (int k = 0; k < 8; k++)
			crc = crc >> 1 ^ (crc & 1 ? 0xedb88320u : 0);
	}
	bit = crc >> 26;
	return d->csr[8 + bit / 16] >> bit % 16 & 1;
}

/* The bits that say why it is taken; 0: it is not. */
static uint16_t
accepts(const struct pcnet *d, const uint8_t *frame)
{
	static const uint8_t broadcast[6] = { 0xff, 0xff, 0xff, 0xff, 0xff, 0xff };
	uint8_t own[6];

	for (int i = 0; i < 3; i++)
		put_le16(own + 2 * i, d->csr[12 + i]);
	if (!memcmp(frame, own, 6))
		return R_PAM;
	if (!memcmp(frame, broadcast, 6) && !(d->csr[15] & MODE_DRCVBC))
		return R_BAM;
	if ((frame[0] & 1) && memcmp(frame, broadcast, 6) && in_filter(d, frame))
		return R_LAFM;
	return d->csr[15] & MODE_PROM ? 1 : 0;
}

/* Is there room for `len` bytes in owned descriptors? The number of them, 0: not now, -1: never. */
static int
count_buffers(struct pcnet *d, size_t len)
{
	unsigned at = d->rx_at, n = 0;
	size_t room = 0;
	struct desc r;

	while (room < len) {
		if (n == d->rx_len)
			return -1;
		if (!desc_read(d, d->rx_base, at, &r) || !(r.status & D_OWN))
			return 0;
		room += desc_room(&r);
		at = (at + 1) % d->rx_len;
		n++;
	}
	return (int)n;
}

static void
fill_buffers(struct pcnet *d, const uint8_t *frame, size_t len, int count, uint16_t match)
{
	size_t off = 0;

	for (int i = 0; i < count; i++) {
		struct desc r;
		size_t n;

		if (!desc_read(d, d->rx_base, d->rx_at, &r))
			return;
		n = MIN((size_t)desc_room(&r), len - off);
		if (!mem_write(memory(d), r.buffer, frame + off, n))
			raise(d, CSR0_MERR);
		off += n;
		r.status = (uint16_t)((r.status & 0xf) | (i ? 0 : R_STP | (match & 0x70)));
		r.extra = wide(d) ? 0 : r.extra & 0xf000;
		if (i == count - 1) {
			r.status |= R_ENP;
			r.extra |= (uint32_t)len & 0xfff;
		}
		desc_write(d, d->rx_base, d->rx_at, &r);
		d->rx_at = (uint16_t)((d->rx_at + 1u) % d->rx_len);
	}
}

static bool
receive(void *opaque, const uint8_t *frame, size_t len)
{
	uint8_t padded[FRAME_MAX];
	struct pcnet *d = opaque;
	uint16_t match;
	int count;

	if (!d->pci.dev.m->clock.running)
		return false;
	if (!(d->csr[0] & CSR0_RXON) || !pci_bus_master(&d->pci) || !d->rx_len || len > FRAME_MAX - 4)
		return true;
	if (d->csr[5] & CSR5_SPND)
		return false;
	match = accepts(d, frame);
	if (!match)
		return true;
	/* At least the shortest frame, and four bytes of checksum, which nobody looks at. */
	memcpy(padded, frame, len);
	if (len < 60) {
		memset(padded + len, 0, 60 - len);
		len = 60;
	}
	memset(padded + len, 0, 4);
	count = count_buffers(d, len + 4);
	if (count < 0) {
		d->link->stats.dropped++;
		return true;
	}
	if (!count) {
		if (!(d->csr[0] & CSR0_MISS))
			raise(d, CSR0_MISS);
		return false;
	}
	fill_buffers(d, padded, len + 4, count, match);
	raise(d, CSR0_RINT);
	return true;
}

/* ---- CSRs ---- */

static uint16_t
ring_length(const struct pcnet *d, unsigned code)
{
	return (uint16_t)(1u << MIN(code, wide(d) ? 9u : 7u));
}

/*
 * The initialization block (10.3). SWSTYLE 0, 24 bytes: 0 u16 MODE, 2 PADR, 8 LADRF, 16 u24 RDRA, 19 u3 RLEN in its
 * top bits, 20 u24 TDRA, 23 TLEN. Others, 28 bytes: 0 u16 MODE, 2 u4 RLEN in the top of byte 2, byte 3 TLEN, 4 PADR,
 * 12 LADRF, 20 u32 RDRA, 24 u32 TDRA.
 */
static void
initialize(struct pcnet *d)
{
	uint32_t at = (uint32_t)d->csr[1] | (uint32_t)d->csr[2] << 16;
	uint8_t b[28];
	bool w = wide(d);
	const uint8_t *mac = b + (w ? 4 : 2), *filter = b + (w ? 12 : 8);

	if (!pci_bus_master(&d->pci) || !mem_read(memory(d), w ? at : at & 0xffffff, b, w ? 28 : 24)) {
		raise(d, CSR0_MERR);
		return;
	}
	d->csr[15] = le16(b);
	for (int i = 0; i < 3; i++)
		d->csr[12 + i] = le16(mac + 2 * i);
	for (int i = 0; i < 4; i++)
		d->csr[8 + i] = le16(filter + 2 * i);
	d->rx_base = w ? le32(b + 20) : le32(b + 16) & 0xffffff;
	d->tx_base = w ? le32(b + 24) : le32(b + 20) & 0xffffff;
	d->rx_len = ring_length(d, w ? b[2] >> 4 : b[19] >> 5);
	d->tx_len = ring_length(d, w ? b[3] >> 4 : b[23] >> 5);
	d->csr[24] = (uint16_t)d->rx_base;
	d->csr[25] = (uint16_t)(d->rx_base >> 16);
	d->csr[30] = (uint16_t)d->tx_base;
	d->csr[31] = (uint16_t)(d->tx_base >> 16);
	d->csr[76] = (uint16_t)-d->rx_len;
	d->csr[78] = (uint16_t)-d->tx_len;
	d->rx_at = d->tx_at = 0;
	d->tx_open = 0;
	raise(d, CSR0_IDON);
}

static void
start(struct pcnet *d)
{
	d->csr[0] &= (uint16_t)~CSR0_STOP;
	d->csr[0] |= CSR0_STRT | (d->csr[15] & MODE_DTX ? 0 : CSR0_TXON) | (d->csr[15] & MODE_DRX ? 0 : CSR0_RXON);
	transmit(d);
	net_adapter_ready(d->link);
}

static void
stop(struct pcnet *d)
{
	d->csr[0] = CSR0_STOP;
	d->csr[4] &= (uint16_t)~0x02c2;
	d->csr[5] &= (uint16_t)~0x0a94;
	d->tx_open = 0;
	d->poll_when = 0;
	vtimer_cancel(&d->poll);
	update_interrupt(d);
}

static void
csr0_write(struct pcnet *d, uint16_t v)
{
	bool was_stopped = d->csr[0] & CSR0_STOP;

	d->csr[0] &= (uint16_t) ~(v & (CSR0_CAUSES | CSR0_CERR));
	d->csr[0] = (uint16_t)((d->csr[0] & ~CSR0_IENA) | (v & CSR0_IENA));
	if (v & CSR0_STOP) {
		stop(d);
		return;
	}
	if ((v & CSR0_INIT) && was_stopped) {
		d->csr[0] &= (uint16_t)~CSR0_STOP;
		d->csr[0] |= CSR0_INIT;
		initialize(d);
	}
	if ((v & CSR0_STRT) && !(d->csr[0] & CSR0_STRT))
		start(d);
	if (v & CSR0_TDMD) {
		transmit(d);
		if (!(d->csr[4] & CSR4_DPOLL) && !d->poll_when)
			arm_poll(d, POLL_NS);
	}
	update_interrupt(d);
	if (d->csr[0] & CSR0_RXON)
		net_adapter_ready(d->link);
}

static uint16_t
csr_read(struct pcnet *d, unsigned n)
{
	switch (n) {
	case 0:
		return d->csr[0];
	case 72:
		return (uint16_t)(d->rx_len - d->rx_at);
	case 74:
		return (uint16_t)(d->tx_len - d->tx_at);
	case 88:
		return (uint16_t)d->variant->chip;
	case 89:
		return (uint16_t)(d->variant->chip >> 16);
	default:
		return n < CSRS ? d->csr[n] : 0;
	}
}

static void
csr_write(struct pcnet *d, unsigned n, uint16_t v)
{
	bool stopped = (d->csr[0] & CSR0_STOP) || (d->csr[5] & CSR5_SPND);

	switch (n) {
	case 0:
		csr0_write(d, v);
		return;
	case 3:
		d->csr[3] = v & 0x5f78;
		update_interrupt(d);
		return;
	case 4: /* status bits go when 1 is written to them */
		d->csr[4] = (uint16_t)((v & ~0x026a) | ((d->csr[4] & ~v) & 0x026a));
		update_interrupt(d);
		return;
	case 5:
		d->csr[5] = (uint16_t)((v & ~0x0a90) | ((d->csr[5] & ~v) & 0x0a90));
		if (!(v & CSR5_SPND)) {
			transmit(d);
			net_adapter_ready(d->link);
		}
		return;
	case 1:
	case 2:
	case 8:
	case 9:
	case 10:
	case 11:
	case 12:
	case 13:
	case 14:
	case 15:
	case 47:
	case 49:
	case 80:
	case 82:
		if (stopped || n == 47 || n == 80 || n == 82)
			d->csr[n] = v;
		return;
	case 24:
	case 25:
	case 30:
	case 31:
		if (!stopped)
			return;
		d->csr[n] = v;
		d->rx_base = d->csr[24] | (uint32_t)d->csr[25] << 16;
		d->tx_base = d->csr[30] | (uint32_t)d->csr[31] << 16;
		return;
	case 58: /* the same as BCR20 */
		if (stopped)
			d->bcr[20] = v & 3 ? (v & 3) | 0x0100 : 0;
		return;
	case 76:
	case 78: /* ring lengths, negative */
		if (!stopped)
			return;
		d->csr[n] = v;
		*(n == 76 ? &d->rx_len : &d->tx_len) = (uint16_t)MIN((unsigned)(uint16_t)-v, 512u);
		d->rx_at = d->tx_at = 0;
		return;
	}
}

/* ---- BCRs and the PHY (IEEE 802.3 22.2.4) ---- */

static uint16_t
phy_read(struct pcnet *d, unsigned n)
{
	bool up = net_link_up(d->link);

	switch (n) {
	case 1:
		return (uint16_t)(0x7809 | (up ? 0x0024 : 0));
	case 2:
		return 0x0022; /* Am79C973's own PHY */
	case 3:
		return 0x5561;
	case 5:
		return !up ? 0 : d->link->speed && d->link->speed < 100000 ? 0x4461 : 0x45e1;
	case 6:
		return up ? 1 : 0;
	default:
		return d->phy[n & 31];
	}
}

/* The Am79C973 has its own, at address 30; the Am79C970A has none. */
static bool
has_phy(const struct pcnet *d)
{
	return d->variant->fast && (d->bcr[33] >> 5 & 31) == 30;
}

static uint16_t
bcr_read(struct pcnet *d, unsigned n)
{
	switch (n) {
	case 4:
	case 5:
	case 6:
	case 7: /* LEDs: bit 15 is the light; link status of those set up for it */
		return (uint16_t)((d->bcr[n] & 0x7fff) | (net_link_up(d->link) && (d->bcr[n] & 0x40) ? 0x8000 : 0));
	case 34: /* BCR33: 5 bits of PHY, 5 of register */
		return has_phy(d) ? phy_read(d, d->bcr[33] & 31) : 0xffff;
	default:
		return n < BCRS ? d->bcr[n] : 0;
	}
}

static void
bcr_write(struct pcnet *d, unsigned n, uint16_t v)
{
	switch (n) {
	case 20:
		if ((d->csr[0] & CSR0_STOP) || (d->csr[5] & CSR5_SPND)) {
			static const uint16_t styles[] = { 0x0000, 0x0000, 0x0102, 0x0103 };

			d->bcr[20] = v & 0xff ? styles[v & 3] : 0;
		}
		return;
	case 2:
	case 4:
	case 5:
	case 6:
	case 7:
	case 9:
	case 18:
	case 19:
	case 22:
	case 32:
	case 33:
		d->bcr[n] = n == 18 ? (uint16_t)((v & ~BCR18_DWIO) | (d->bcr[18] & BCR18_DWIO)) : v;
		return;
	case 34:
		if (!has_phy(d))
			return;
		if ((d->bcr[33] & 31) == 0)
			d->phy[0] = v & 0x7dff; /* reset and restart are done at once */
		else if ((d->bcr[33] & 31) == 4)
			d->phy[4] = v;
		return;
	}
}

/* ---- reset ---- */

/* The software reset, by reading RESET (9.1): CSRs, not BCRs. */
static void
soft_reset(struct pcnet *d)
{
	stop(d);
	memset(d->csr, 0, sizeof(d->csr));
	d->csr[0] = CSR0_STOP;
	d->csr[4] = 0x0115;
	d->csr[80] = 0x1410;
	d->rx_len = d->tx_len = d->rx_at = d->tx_at = 0;
	d->rx_base = d->tx_base = 0;
	for (int i = 0; i < 3; i++)
		d->csr[12 + i] = le16(d->link->mac + 2 * i);
	d->rap = 0;
	d->bcr[20] = 0;
	d->bcr[18] &= (uint16_t)~BCR18_DWIO;
	update_interrupt(d);
}

/* 10.4: 0 the address, 6-8 reserved, 9 0x11, 12 u16 sum of the others, 14 "WW" */
static void
fill_prom(struct pcnet *d)
{
	unsigned sum = 0;

	memset(d->prom, 0, sizeof(d->prom));
	memcpy(d->prom, d->link->mac, 6);
	d->prom[9] = 0x11;
	d->prom[14] = d->prom[15] = 0x57;
	for (int i = 0; i < 16; i++)
		sum += i == 12 || i == 13 ? 0 : d->prom[i];
	put_le16(d->prom + 12, (uint16_t)sum);
}

static void
pcnet_reset(struct device *dev)
{
	struct pcnet *d = (struct pcnet *)dev;

	pci_reset(&d->pci);
	fill_prom(d);
	memset(d->bcr, 0, sizeof(d->bcr));
	memset(d->phy, 0, sizeof(d->phy));
	d->bcr[0] = 0x0005;
	d->bcr[1] = 0x0005;
	d->bcr[2] = 0x0002;
	d->bcr[4] = 0x00c0;
	d->bcr[5] = 0x0084;
	d->bcr[6] = 0x0088;
	d->bcr[7] = 0x0090;
	d->bcr[18] = 0x9001;
	d->bcr[19] = 0x0002;
	d->bcr[22] = 0xff06;
	d->bcr[32] = 0x0400;
	d->bcr[33] = 30 << 5;
	d->phy[0] = 0x3100;
	d->phy[4] = 0x01e1;
	soft_reset(d);
}

/* ---- register access ---- */

static bool
dwio(const struct pcnet *d)
{
	return d->bcr[18] & BCR18_DWIO;
}

static uint64_t
reg_read(void *opaque, uint64_t off, unsigned size)
{
	struct pcnet *d = opaque;
	unsigned at = (unsigned)off & 31, unit = dwio(d) ? 4 : 2;
	uint64_t v = 0;

	if (at < 16) {
		for (unsigned i = 0; i < size && at + i < 16; i++)
			v |= (uint64_t)d->prom[at + i] << 8 * i;
		return v;
	}
	if (size != unit)
		return ~UINT64_C(0);
	switch ((at - 16) / unit) {
	case 0:
		return csr_read(d, d->rap);
	case 1:
		return d->rap;
	case 2:
		soft_reset(d);
		return 0;
	case 3:
		return bcr_read(d, d->rap);
	default:
		return 0;
	}
}

static void
reg_write(void *opaque, uint64_t off, uint64_t value, unsigned size)
{
	struct pcnet *d = opaque;
	unsigned at = (unsigned)off & 31, unit;

	if (at < 16)
		return; /* the PROM, unless BCR2 APROMWE, which is for programming it in the factory */
	/* A double word to RDP makes it DWIO (9.1.2). */
	if (!dwio(d) && size == 4 && at == 16)
		d->bcr[18] |= BCR18_DWIO;
	unit = dwio(d) ? 4 : 2;
	if (size != unit)
		return;
	switch ((at - 16) / unit) {
	case 0:
		csr_write(d, d->rap, (uint16_t)value);
		break;
	case 1:
		d->rap = value & 0x7f;
		break;
	case 3:
		bcr_write(d, d->rap, (uint16_t)value);
		break;
	}
}

static const struct bus_ops reg_ops = { reg_read, reg_write, 1, 4 };

/* ---- the device ---- */

static void
pcnet_loaded(struct device *dev)
{
	struct pcnet *d = (struct pcnet *)dev;

	/* what came from a file is as little to be trusted as what comes from a guest */
	d->tx_size = MIN(d->tx_size, (uint32_t)sizeof(d->tx_buf));
	d->rx_len = MIN(d->rx_len, 512);
	d->tx_len = MIN(d->tx_len, 512);
	d->rx_at = d->rx_len ? d->rx_at % d->rx_len : 0;
	d->tx_at = d->tx_len ? d->tx_at % d->tx_len : 0;
	d->rap &= 0x7f;
	if (d->poll_when)
		vtimer_arm(&d->poll, d->poll_when);
	else if (d->csr[0] & CSR0_TXON)
		arm_poll(d, 0); /* what waited for the network to have room */
	else
		vtimer_cancel(&d->poll);
}

static void
pcnet_destroy(struct device *dev)
{
	struct pcnet *d = (struct pcnet *)dev;

	vtimer_cancel(&d->poll);
	d->link->adapter = (struct net_adapter){ 0 };
	pci_remove(dev->m, &d->pci);
	free(d);
}

/* There is no interrupt for it: drivers look at the PHY or a LED register from time to time. */
static void
link_changed(void *opaque, bool up)
{
}

/* The driver reads it when it is loaded. */
static void
address_changed(void *opaque)
{
	fill_prom(opaque);
}

static const struct dev_class pcnet_class = {
	.name = "pcnet",
	.fields = pcnet_fields,
	.reset = pcnet_reset,
	.loaded = pcnet_loaded,
	.destroy = pcnet_destroy,
};

struct device *
pcnet_create(struct machine *m, int slot, const char *variant, struct net_link *link, struct err *e)
{
	struct pcnet *d = xcalloc(1, sizeof(*d));

	for (size_t i = 0; i < ARRAY_LEN(variants); i++)
		if (!strcmp(variants[i].name, variant))
			d->variant = &variants[i];
	if (!d->variant) {
		err_set(e, ERR_INVALID, "'%s' is not a model of the PCnet: Am79C970A, Am79C973", variant);
		free(d);
		return NULL;
	}
	d->link = link;
	d->pci.vendor = 0x1022;
	d->pci.device = 0x2000;
	d->pci.subvendor = 0x1022;
	d->pci.subdevice = 0x2000;
	d->pci.revision = d->variant->revision;
	d->pci.class = 0x020000;
	d->pci.intx_pin = 1;
	d->pci.bars[0] = (struct pci_bar){ .kind = PCI_BAR_IO, .size = PORTS, .ops = &reg_ops, .opaque = d };
	d->pci.bars[1] = (struct pci_bar){ .kind = PCI_BAR_MEM32, .size = 4096, .ops = &reg_ops, .opaque = d };
	if (pci_add(m, &d->pci, &pcnet_class, slot, 0)) {
		free(d);
		err_set(e, ERR_INVALID, "PCI slot %d for a network adapter is taken", slot);
		return NULL;
	}
	vtimer_init(&d->poll, &m->clock, poll_ring, d);
	link->adapter = (struct net_adapter){ .opaque = d,
		.receive = receive,
		.link_changed = link_changed,
		.address_changed = address_changed,
		.send_ready = poll_ring };
	pcnet_reset(&d->pci.dev);
	return &d->pci.dev;
}
