/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Virtio network adapter (5.1): queue 0 receives, 1 transmits, 2 controls the filters.
 *
 *	header: 0 u8 flags, 1 u8 gso_type, 2 u16 hdr_len, 4 u16 gso_size, 6 u16 csum_start, 8 u16 csum_offset,
 *		10 u16 num_buffers (absent for legacy drivers without mergeable buffers)
 *
 * Theory of operation. Transmit: a chain is copied once, into `tx_buf`; the checksum the driver left out is put in; a
 * frame to be segmented goes in one piece to a network that is a TCP/IP stack itself (net_backend_class.takes_tso) or
 * carries large frames (net_takes_large()), to others cut up (net_send_tso()). Receive: straight from the network's
 * frame into the driver's buffers, over several chains where they are mergeable; when there are too few, those taken
 * are put back and the frame stays in the link's queue until the driver notifies. Checksums are verified here,
 * natively, so that the guest need not; a large frame (net/net.h) goes to the driver as joined segments.
 *
 * Nothing slows down who sends UDP, and a guest that is given more than it keeps up with works for what it throws away
 * ("receive livelock", Mogul and Ramakrishnan, 1996). So after RX_PORTION datagrams the rest waits, in the link and the
 * network, until a CPU of the guest has nothing to do, or for RX_PAUSE_NS.
 */
#include <linux/virtio_net.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "dev/virtio/virtio.h"
#include "net/net.h"

enum { RX, TX, CONTROL };
#define QUEUE_SIZE 256
#define CONTROL_SIZE 64
#define CONFIG_LEN 17
#define HEADER_MAX 12
#define HEADER_LEGACY 10
#define MAC_TABLE_MAX 64
#define TX_BUDGET 256
#define RX_CHAINS_MAX 64
#define RX_PORTION 64
#define RX_PAUSE_NS UINT64_C(4000000)
#define VLANS 4096

struct virtio_net {
	struct virtio v;
	struct net_link *link;
	struct vtimer more; /* goes on transmitting where the budget ended */
	struct vtimer pause;
	struct machine_idle idle;
	unsigned portion, halts; /* datagrams, since m->halts was that, */
	uint64_t portion_start;	 /* and since then */

	uint8_t mac[6];
	uint8_t promisc, all_multi, all_uni, no_multi, no_uni, no_broadcast;
	uint8_t macs[MAC_TABLE_MAX][6];
	uint32_t uni_count, multi_count; /* in macs: first the unicast ones */
	uint8_t vlans[VLANS / 8];

	/* A network may answer a frame while it is being sent: nothing is used in both directions. */
	struct virtq_chain chain, first, next; /* sent or control; received */
	uint8_t tx_buf[NET_FRAME_MAX + 2], scratch[NET_FRAME_MAX + 2];
	uint8_t rx_buf[NET_FRAME_MAX + 2];
};

static const struct field net_fields[] = {
	VIRTIO_FIELDS(struct virtio_net),
	FIELD_ARRAY(struct virtio_net, mac),
	FIELD(struct virtio_net, promisc),
	FIELD(struct virtio_net, all_multi),
	FIELD(struct virtio_net, all_uni),
	FIELD(struct virtio_net, no_multi),
	FIELD(struct virtio_net, no_uni),
	FIELD(struct virtio_net, no_broadcast),
	FIELD_ARRAY(struct virtio_net, macs),
	FIELD(struct virtio_net, uni_count),
	FIELD(struct virtio_net, multi_count),
	FIELD_ARRAY(struct virtio_net, vlans),
	FIELD_END,
};

static uint32_t
header_len(const struct virtio *v)
{
	return virtio_has(v, VIRTIO_F_VERSION_1) || virtio_has(v, VIRTIO_NET_F_MRG_RXBUF) ? HEADER_MAX : HEADER_LEGACY;
}

/* ---- transmit ---- */

/* 5.1.6.2: the sum from csum_start to the end goes to csum_start + csum_offset. False: that is outside the frame. */
static bool
finish_checksum(uint8_t *frame, uint32_t len, uint32_t start, uint32_t offset)
{
	uint16_t sum;

	if (start >= len || offset + 2 > len - start)
		return false;
	sum = net_sum_fold(net_sum(0, frame + start, len - start));
	if (!sum)
		sum = 0xffff; /* for UDP, 0 means no checksum; for TCP both mean the same */
	memcpy(frame + start + offset, &sum, 2);
	return true;
}

/* Cut up the TCP frame in tx_buf. The driver's header says where TCP begins (csum_start); the rest is checked. */
static void
send_segments(struct virtio_net *d, uint32_t len, uint32_t l4, uint32_t mss)
{
	const uint8_t *frame = d->tx_buf;
	uint32_t l3 = be16(frame + 12) == 0x8100 ? 18 : 14, payload;
	uint32_t l3_min = l3 + 20 <= len && frame[l3] >> 4 == 4 ? 20 : 40;

	if (!mss || l4 < l3 + l3_min || l4 > len || len - l4 < 20)
		return;
	payload = l4 + (frame[l4 + 12] >> 4) * 4u;
	if (payload < l4 + 20 || payload > len || (len - payload) / mss > 2048)
		return;
	net_send_tso(d->link, frame, len, l3, l4, payload, mss, d->scratch);
}

/* In one piece, where the network and the frame are such. */
static bool
send_large(struct virtio_net *d, uint32_t len, unsigned mss)
{
	struct net_tcp t;

	if (!net_takes_large(d->link) || !net_large_find(d->tx_buf, len, mss, &t) || len - t.payload <= mss)
		return false;
	net_send_large(d->link, d->tx_buf, len, mss);
	return true;
}

static void
send_frame(struct virtio_net *d, const uint8_t *h, uint32_t len)
{
	uint8_t gso = h[1] & (uint8_t)~VIRTIO_NET_HDR_GSO_ECN;
	uint32_t start = le16(h + 6);

	if (gso != VIRTIO_NET_HDR_GSO_NONE && gso != VIRTIO_NET_HDR_GSO_TCPV4 && gso != VIRTIO_NET_HDR_GSO_TCPV6)
		return;
	if (gso != VIRTIO_NET_HDR_GSO_NONE && d->link->class && !d->link->class->takes_tso) {
		if (!send_large(d, len, le16(h + 4)))
			send_segments(d, len, start, le16(h + 4));
		return;
	}
	if ((h[0] & VIRTIO_NET_HDR_F_NEEDS_CSUM) && !finish_checksum(d->tx_buf, len, start, le16(h + 8)))
		return;
	net_send(d->link, d->tx_buf, len);
}

static void
send_chain(struct virtio_net *d)
{
	struct virtio *v = &d->v;
	uint8_t h[HEADER_MAX] = { 0 };
	uint32_t hlen = header_len(v), len;

	if (d->chain.out_len < hlen + 14 || d->chain.out_len - hlen > NET_FRAME_MAX) {
		d->link->stats.dropped++;
		return;
	}
	virtq_read(&d->chain, 0, h, hlen);
	len = virtq_read(&d->chain, hlen, d->tx_buf, NET_FRAME_MAX);
	send_frame(d, h, len);
}

static void
transmit(struct virtio_net *d)
{
	int left = TX_BUDGET;

	net_burst(d->link);
	while (left-- && net_can_send(d->link) && virtq_pop(&d->v, TX, &d->chain)) {
		send_chain(d);
		virtq_push(&d->v, TX, &d->chain, 0);
	}
	net_burst_end(d->link);
	if (left < TX_BUDGET - 1)
		virtq_notify(&d->v, TX);
	if (left < 0)
		vtimer_arm(&d->more, clock_now(&d->v.pci.dev.m->clock));
}

static void
transmit_more(void *opaque)
{
	transmit(opaque);
}

/* ---- receive ---- */

static bool
in_table(const uint8_t (*macs)[6], uint32_t n, const uint8_t *mac)
{
	for (uint32_t i = 0; i < n; i++)
		if (!memcmp(macs[i], mac, 6))
			return true;
	return false;
}

static bool
accepts(const struct virtio_net *d, const uint8_t *frame, size_t len)
{
	static const uint8_t broadcast[6] = { 0xff, 0xff, 0xff, 0xff, 0xff, 0xff };

	if (d->promisc)
		return true;
	if (virtio_has(&d->v, VIRTIO_NET_F_CTRL_VLAN) && len >= 18 && be16(frame + 12) == 0x8100) {
		unsigned vid = be16(frame + 14) & (VLANS - 1);

		if (!(d->vlans[vid / 8] & 1 << vid % 8))
			return false;
	}
	if (!memcmp(frame, broadcast, 6))
		return !d->no_broadcast;
	if (frame[0] & 1)
		return !d->no_multi && (d->all_multi || in_table(d->macs + d->uni_count, d->multi_count, frame));
	return !d->no_uni && (d->all_uni || !memcmp(frame, d->mac, 6) || in_table(d->macs, d->uni_count, frame));
}

/* The header goes in front; with `chains` as num_buffers. */
static void
fill_header(struct virtio_net *d, uint8_t *h, const uint8_t *frame, size_t len)
{
	memset(h, 0, HEADER_MAX);
	put_le16(h + 10, 1);
	if (virtio_has(&d->v, VIRTIO_NET_F_GUEST_CSUM)) {
		int found = net_checksum_verify(frame, len);

		if ((found & NET_CSUM_L4) && !(found & (NET_CSUM_L4_BAD | NET_CSUM_IP_BAD)))
			h[0] = VIRTIO_NET_HDR_F_DATA_VALID;
	}
}

static bool
takes_large(void *opaque)
{
	struct virtio_net *d = opaque;

	return virtio_running(&d->v) && virtio_has(&d->v, VIRTIO_NET_F_GUEST_CSUM) &&
	       virtio_has(&d->v, VIRTIO_NET_F_GUEST_TSO4) && virtio_has(&d->v, VIRTIO_NET_F_GUEST_TSO6);
}

/*
 * The header of a large frame, and the frame as the driver wants it (5.1.6.4.1): with the sum of the pseudo header only
 * in its checksum field. NULL: it is nothing of the kind, or not taken now.
 */
static const uint8_t *
fill_large_header(struct virtio_net *d, uint8_t *h, const uint8_t *frame, size_t len, unsigned mss)
{
	struct net_tcp t;
	bool v4;
	uint16_t sum;

	if (!takes_large(d) || !net_tcp_find(frame, len, &t))
		return NULL;
	v4 = be16(frame + t.l3 - 2) == 0x0800;
	memset(h, 0, HEADER_MAX);
	h[0] = VIRTIO_NET_HDR_F_NEEDS_CSUM;
	h[1] = v4 ? VIRTIO_NET_HDR_GSO_TCPV4 : VIRTIO_NET_HDR_GSO_TCPV6;
	put_le16(h + 2, t.payload);
	put_le16(h + 4, (uint16_t)mss);
	put_le16(h + 6, t.l4);
	put_le16(h + 8, 16);
	put_le16(h + 10, 1);
	memcpy(d->rx_buf, frame, len);
	sum = net_tcp_pseudo(frame, len, &t);
	memcpy(d->rx_buf + t.l4 + 16, &sum, 2);
	return d->rx_buf;
}

/*
 * Spread the frame over chains. Returns how many, all filled but not published; 0: there were not enough now (none is
 * taken); -1: it can never fit.
 */
static int
fill_chains(struct virtio_net *d, const uint8_t *h, const uint8_t *frame, uint32_t len)
{
	struct virtio *v = &d->v;
	uint32_t hlen = header_len(v), off = 0;
	bool merge = virtio_has(v, VIRTIO_NET_F_MRG_RXBUF);
	int chains = 0;

	do {
		struct virtq_chain *c = chains ? &d->next : &d->first;
		uint32_t skip = chains ? 0 : hlen, n;

		if (chains == RX_CHAINS_MAX || !virtq_pop(v, RX, c)) {
			virtq_unpop(v, RX, (unsigned)chains);
			return chains == RX_CHAINS_MAX ? -1 : 0;
		}
		if (c->in_len <= skip || (!merge && c->in_len - skip < len)) {
			virtq_unpop(v, RX, (unsigned)chains + 1);
			return -1;
		}
		if (skip)
			virtq_write(c, 0, h, hlen);
		n = virtq_write(c, skip, frame + off, len - off);
		virtq_fill(v, RX, c, skip + n, (unsigned)chains);
		off += n;
		chains++;
	} while (off < len);
	return chains;
}

static bool
is_udp(const uint8_t *frame, size_t len)
{
	if (len < 54)
		return len >= 34 && be16(frame + 12) == 0x0800 && frame[23] == 17;
	return (be16(frame + 12) == 0x0800 && frame[23] == 17) || (be16(frame + 12) == 0x86dd && frame[20] == 17);
}

/* May the guest have one more now? If not, the link is told when. */
static bool
portion_left(struct virtio_net *d)
{
	struct machine *m = d->v.pci.dev.m;
	uint64_t now;

	if (d->portion && d->portion < RX_PORTION)
		return true;
	now = clock_now(&m->clock);
	if (d->portion && now - d->portion_start < RX_PAUSE_NS && !machine_idle_since(m, &d->idle, d->halts)) {
		vtimer_arm(&d->pause, d->portion_start + RX_PAUSE_NS);
		return false;
	}
	d->portion = 0;
	d->halts = m->halts;
	d->portion_start = now;
	return true;
}

static void
next_portion(void *opaque)
{
	struct virtio_net *d = opaque;

	d->portion = 0;
	vtimer_cancel(&d->pause);
	net_adapter_ready(d->link);
}

static bool
receive_large(void *opaque, const uint8_t *frame, size_t len, unsigned mss)
{
	struct virtio_net *d = opaque;
	uint8_t h[HEADER_MAX], n[2];
	int chains;

	if (!d->v.pci.dev.m->clock.running)
		return false;
	if (!virtio_running(&d->v) || !d->v.vq[RX].enabled || !accepts(d, frame, len))
		return true;
	if (!portion_left(d))
		return false;
	if (mss)
		frame = fill_large_header(d, h, frame, len, mss);
	else
		fill_header(d, h, frame, len);
	if (!frame) {
		d->link->stats.dropped++;
		return true;
	}
	chains = fill_chains(d, h, frame, (uint32_t)len);
	if (!chains)
		return !virtio_running(&d->v);
	if (chains < 0) {
		d->link->stats.dropped++;
		return true;
	}
	if (chains > 1) {
		put_le16(n, (uint16_t)chains);
		virtq_write(&d->first, 10, n, 2);
	}
	d->portion += is_udp(frame, len);
	virtq_publish(&d->v, RX, (unsigned)chains);
	virtq_notify(&d->v, RX);
	return true;
}

static bool
receive(void *opaque, const uint8_t *frame, size_t len)
{
	return receive_large(opaque, frame, len, 0);
}

/* ---- control queue (5.1.6.5): 0 u8 class, 1 u8 command, then its data; one status byte back ---- */

static uint8_t *
rx_mode(struct virtio_net *d, uint8_t command)
{
	switch (command) {
	case VIRTIO_NET_CTRL_RX_PROMISC:
		return &d->promisc;
	case VIRTIO_NET_CTRL_RX_ALLMULTI:
		return &d->all_multi;
	case VIRTIO_NET_CTRL_RX_ALLUNI:
		return &d->all_uni;
	case VIRTIO_NET_CTRL_RX_NOMULTI:
		return &d->no_multi;
	case VIRTIO_NET_CTRL_RX_NOUNI:
		return &d->no_uni;
	case VIRTIO_NET_CTRL_RX_NOBCAST:
		return &d->no_broadcast;
	default:
		return NULL;
	}
}

static bool
control_rx(struct virtio_net *d, uint8_t command)
{
	uint8_t *mode = rx_mode(d, command), on;

	if (!mode || virtq_read(&d->chain, 2, &on, 1) != 1)
		return false;
	*mode = !!on;
	return true;
}

/* One of the two tables: u32 entries, 6 bytes each. More than there is room for: take all of that kind. */
static bool
read_table(struct virtio_net *d, uint32_t *off, uint32_t first, uint32_t *kept, uint8_t *overflow)
{
	uint8_t n[4];
	uint32_t entries;

	if (virtq_read(&d->chain, *off, n, 4) != 4)
		return false;
	entries = le32(n);
	*off += 4;
	if (entries > (d->chain.out_len - *off) / 6)
		return false;
	*overflow = entries > MAC_TABLE_MAX - first;
	*kept = *overflow ? 0 : entries;
	virtq_read(&d->chain, *off, d->macs[first], *kept * 6);
	*off += entries * 6;
	return true;
}

static bool
control_mac(struct virtio_net *d, uint8_t command)
{
	uint32_t off = 2;
	uint8_t uni_overflow = 0, multi_overflow = 0;
	bool ok;

	if (command == VIRTIO_NET_CTRL_MAC_ADDR_SET)
		return d->chain.out_len == 8 && virtq_read(&d->chain, 2, d->mac, 6) == 6;
	if (command != VIRTIO_NET_CTRL_MAC_TABLE_SET)
		return false;
	d->uni_count = d->multi_count = 0;
	ok = read_table(d, &off, 0, &d->uni_count, &uni_overflow) &&
	     read_table(d, &off, d->uni_count, &d->multi_count, &multi_overflow);
	if (!ok)
		d->uni_count = d->multi_count = 0;
	if (uni_overflow)
		d->all_uni = 1;
	if (multi_overflow)
		d->all_multi = 1;
	return ok;
}

static bool
control_vlan(struct virtio_net *d, uint8_t command)
{
	uint8_t id[2];
	unsigned vid;

	if (virtq_read(&d->chain, 2, id, 2) != 2 || le16(id) >= VLANS)
		return false;
	vid = le16(id);
	if (command == VIRTIO_NET_CTRL_VLAN_ADD)
		d->vlans[vid / 8] |= (uint8_t)(1 << vid % 8);
	else if (command == VIRTIO_NET_CTRL_VLAN_DEL)
		d->vlans[vid / 8] &= (uint8_t) ~(1 << vid % 8);
	else
		return false;
	return true;
}

static void
control(struct virtio_net *d)
{
	uint8_t h[2], status;
	bool any = false, ok;

	while (virtq_pop(&d->v, CONTROL, &d->chain)) {
		if (virtq_read(&d->chain, 0, h, 2) != 2 || !d->chain.in_len) {
			virtio_broken(&d->v, CONTROL, "a command is too short");
			return;
		}
		ok = h[0] == VIRTIO_NET_CTRL_RX	    ? control_rx(d, h[1])
		     : h[0] == VIRTIO_NET_CTRL_MAC  ? control_mac(d, h[1])
		     : h[0] == VIRTIO_NET_CTRL_VLAN ? control_vlan(d, h[1])
						    : false;
		status = ok ? VIRTIO_NET_OK : VIRTIO_NET_ERR;
		virtq_push(&d->v, CONTROL, &d->chain, virtq_write(&d->chain, 0, &status, 1));
		any = true;
	}
	if (any)
		virtq_notify(&d->v, CONTROL);
}

/* ---- the device ---- */

static void
net_kick(struct virtio *v, int queue)
{
	struct virtio_net *d = (struct virtio_net *)v;

	if (queue == RX)
		net_adapter_ready(d->link);
	else if (queue == TX)
		transmit(d);
	else
		control(d);
}

/* 0 u8 mac[6], 6 u16 status (1: link up), 12 u32 speed (Mbit/s), 16 u8 duplex (1: full) */
static void
net_config_read(struct virtio *v, uint8_t *c)
{
	struct virtio_net *d = (struct virtio_net *)v;

	memcpy(c, d->mac, 6);
	put_le16(c + 6, net_link_up(d->link) ? VIRTIO_NET_S_LINK_UP : 0);
	put_le32(c + 12, d->link->speed ? MAX(d->link->speed / 1000, 1u) : UINT32_MAX);
	c[16] = d->link->speed ? 1 : 0xff;
}

/* Legacy drivers may set the address here (5.1.4.1). */
static void
net_config_write(struct virtio *v, unsigned off, uint32_t value, unsigned size)
{
	struct virtio_net *d = (struct virtio_net *)v;

	for (unsigned i = 0; i < size && off + i < 6 && !virtio_has(v, VIRTIO_F_VERSION_1); i++)
		d->mac[off + i] = (uint8_t)(value >> (8 * i));
}

static void
net_reset(struct virtio *v)
{
	struct virtio_net *d = (struct virtio_net *)v;

	vtimer_cancel(&d->more);
	vtimer_cancel(&d->pause);
	d->portion = 0;
	memcpy(d->mac, d->link->mac, 6);
	d->promisc = 1; /* until the driver says otherwise; many never do */
	d->all_multi = d->all_uni = d->no_multi = d->no_uni = d->no_broadcast = 0;
	d->uni_count = d->multi_count = 0;
	memset(d->vlans, 0, sizeof(d->vlans));
}

static void
net_loaded(struct device *dev)
{
	struct virtio_net *d = (struct virtio_net *)dev;

	virtio_loaded(dev);
	d->uni_count = MIN(d->uni_count, (uint32_t)MAC_TABLE_MAX);
	d->multi_count = MIN(d->multi_count, MAC_TABLE_MAX - d->uni_count);
	vtimer_arm(&d->more, 0);
}

static void
net_destroy(struct device *dev)
{
	struct virtio_net *d = (struct virtio_net *)dev;

	vtimer_cancel(&d->more);
	vtimer_cancel(&d->pause);
	machine_idle_remove(d->v.pci.dev.m, &d->idle);
	d->link->adapter = (struct net_adapter){ 0 };
	virtio_remove(&d->v);
	free(d);
}

static void
address_changed(void *opaque)
{
	struct virtio_net *d = opaque;

	memcpy(d->mac, d->link->mac, sizeof(d->mac));
	virtio_config_changed(&d->v);
}

static void
link_changed(void *opaque, bool up)
{
	struct virtio_net *d = opaque;

	virtio_config_changed(&d->v);
}

static const struct virtio_class net_class = {
	.dev = {
		.name = "virtio-net",
		.fields = net_fields,
		.reset = virtio_power_on,
		.loaded = net_loaded,
		.destroy = net_destroy,
	},
	.id = VIRTIO_ID_NET,
	.legacy_id = 0x1000,
	.pci_class = 0x020000,
	.config_len = CONFIG_LEN,
	.config_read = net_config_read,
	.config_write = net_config_write,
	.kick = net_kick,
	.reset = net_reset,
};

struct device *
virtio_net_create(struct machine *m, int slot, unsigned flags, struct net_link *link, struct err *e)
{
	static const uint16_t sizes[] = { QUEUE_SIZE, QUEUE_SIZE, CONTROL_SIZE };
	struct virtio_net *d = xcalloc(1, sizeof(*d));

	d->link = link;
	vtimer_init(&d->more, &m->clock, transmit_more, d);
	vtimer_init(&d->pause, &m->clock, next_portion, d);
	d->idle = (struct machine_idle){ .fn = next_portion, .opaque = d };
	d->v.host_features = VIRTIO_BIT(VIRTIO_NET_F_MAC) | VIRTIO_BIT(VIRTIO_NET_F_STATUS) |
			     VIRTIO_BIT(VIRTIO_NET_F_MRG_RXBUF) | VIRTIO_BIT(VIRTIO_NET_F_CSUM) |
			     VIRTIO_BIT(VIRTIO_NET_F_GUEST_CSUM) | VIRTIO_BIT(VIRTIO_NET_F_HOST_TSO4) |
			     VIRTIO_BIT(VIRTIO_NET_F_GUEST_TSO4) | VIRTIO_BIT(VIRTIO_NET_F_GUEST_TSO6) |
			     VIRTIO_BIT(VIRTIO_NET_F_HOST_TSO6) | VIRTIO_BIT(VIRTIO_NET_F_HOST_ECN) |
			     VIRTIO_BIT(VIRTIO_NET_F_CTRL_VQ) | VIRTIO_BIT(VIRTIO_NET_F_CTRL_RX) |
			     VIRTIO_BIT(VIRTIO_NET_F_CTRL_RX_EXTRA) | VIRTIO_BIT(VIRTIO_NET_F_CTRL_VLAN) |
			     VIRTIO_BIT(VIRTIO_NET_F_CTRL_MAC_ADDR);
	if (link->speed)
		d->v.host_features |= VIRTIO_BIT(VIRTIO_NET_F_SPEED_DUPLEX);
	if (virtio_add(m, &d->v, &net_class, slot, flags & VIRTIO_MODERN, sizes, ARRAY_LEN(sizes))) {
		free(d);
		err_set(e, ERR_INVALID, "PCI slot %d for a virtio network adapter is taken", slot);
		return NULL;
	}
	machine_idle_add(m, &d->idle);
	link->adapter = (struct net_adapter){ .opaque = d,
		.receive = receive,
		.takes_large = takes_large,
		.receive_large = receive_large,
		.link_changed = link_changed,
		.address_changed = address_changed,
		.send_ready = transmit_more };
	return &d->v.pci.dev;
}
