/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Internet checksums (RFC 1071) and TCP segmentation, done on the host for guests whose adapter offers them.
 *
 * A sum is kept in host byte order as the sum of the 16-bit words as they lie in memory; the one's complement sum does
 * not mind (RFC 1071 section 2B), and the folded result is stored as it is. Four bytes at a time into 64 bits cannot
 * overflow below 16 GiB.
 */
#include "base/bytes.h"
#include "net/net.h"

#include <arpa/inet.h>
#include <string.h>

#include "base/str.h"

uint64_t
net_sum(uint64_t sum, const void *data, size_t len)
{
	const uint8_t *p = data;
	uint64_t a = 0, b = 0;
	uint32_t w[4];

	for (; len >= 16; p += 16, len -= 16) {
		memcpy(w, p, 16);
		a += (uint64_t)w[0] + w[1];
		b += (uint64_t)w[2] + w[3];
	}
	for (; len >= 4; p += 4, len -= 4) {
		memcpy(w, p, 4);
		a += w[0];
	}
	w[0] = 0;
	memcpy(w, p, len);
	return sum + a + b + w[0];
}

uint16_t
net_sum_fold(uint64_t sum)
{
	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return (uint16_t)~sum;
}

/* Sum of the pseudo header of the IPv4 or IPv6 packet at `ip` (RFC 9293 section 3.1, RFC 8200 section 8.1). */
static uint64_t
pseudo_sum(const uint8_t *ip, unsigned proto, size_t l4_len)
{
	uint32_t tail[2] = { htonl((uint32_t)l4_len), htonl(proto) };
	uint64_t sum = net_sum(0, tail, sizeof(tail));

	if (ip[0] >> 4 == 4)
		return net_sum(sum, ip + 12, 8);
	return net_sum(sum, ip + 8, 32);
}

static int
verify_l4(const uint8_t *ip, unsigned proto, const uint8_t *l4, size_t l4_len)
{
	if (proto == 6 ? l4_len < 20 : l4_len < 8)
		return 0;
	if (proto == 17) {
		size_t udp_len = be16(l4 + 4);

		if (udp_len < 8 || udp_len > l4_len)
			return 0;
		if (!l4[6] && !l4[7])
			return 0; /* the sender left it out */
		l4_len = udp_len;
	}
	return NET_CSUM_L4 | (net_sum_fold(net_sum(pseudo_sum(ip, proto, l4_len), l4, l4_len)) ? NET_CSUM_L4_BAD : 0);
}

static int
verify_ipv4(const uint8_t *ip, size_t len)
{
	unsigned ihl = len >= 20 ? (ip[0] & 15) * 4u : 0;
	size_t total = len >= 20 ? be16(ip + 2) : 0;
	int found = NET_CSUM_IP;

	if (ihl < 20 || total < ihl || total > len || ip[0] >> 4 != 4)
		return 0;
	if (net_sum_fold(net_sum(0, ip, ihl)))
		return found | NET_CSUM_IP_BAD;
	if ((be16(ip + 6) & 0x3fff) || (ip[9] != 6 && ip[9] != 17))
		return found;
	return found | verify_l4(ip, ip[9], ip + ihl, total - ihl);
}

static int
verify_ipv6(const uint8_t *ip, size_t len)
{
	size_t l4_len = len >= 40 ? be16(ip + 4) : 0;

	if (len < 40 || ip[0] >> 4 != 6 || l4_len > len - 40 || (ip[6] != 6 && ip[6] != 17))
		return 0;
	return verify_l4(ip, ip[6], ip + 40, l4_len);
}

int
net_checksum_verify(const uint8_t *frame, size_t len)
{
	size_t l3 = 14;
	unsigned type;

	if (len < 18)
		return 0;
	type = be16(frame + 12);
	if (type == 0x8100) {
		type = be16(frame + 16);
		l3 = 18;
	}
	if (type == 0x0800)
		return verify_ipv4(frame + l3, len - l3);
	if (type == 0x86dd)
		return verify_ipv6(frame + l3, len - l3);
	return 0;
}

/* ---- segmentation ---- */

enum { TCP_FIN = 1, TCP_PSH = 8, TCP_CWR = 0x80 };

/* Lengths and the IPv4 header checksum of a segment whose packet starts at `ip`. */
static void
fix_ip(uint8_t *ip, size_t len, unsigned l4_off, unsigned index)
{
	uint16_t sum;

	if (ip[0] >> 4 != 4) {
		put_be16(ip + 4, (unsigned)len - 40);
		return;
	}
	put_be16(ip + 2, (unsigned)len);
	put_be16(ip + 4, be16(ip + 4) + index);
	put_be16(ip + 10, 0);
	sum = net_sum_fold(net_sum(0, ip, l4_off));
	memcpy(ip + 10, &sum, 2);
}

static void
fix_tcp(uint8_t *ip, uint8_t *tcp, size_t tcp_len, uint32_t advance, bool first, bool last)
{
	uint16_t sum;

	put_be32(tcp + 4, be32(tcp + 4) + advance);
	if (!last)
		tcp[13] &= (uint8_t) ~(TCP_FIN | TCP_PSH);
	if (!first)
		tcp[13] &= (uint8_t)~TCP_CWR;
	put_be16(tcp + 16, 0);
	sum = net_sum_fold(net_sum(pseudo_sum(ip, 6, tcp_len), tcp, tcp_len));
	memcpy(tcp + 16, &sum, 2);
}

void
net_cut_tcp(const uint8_t *frame, size_t len, const struct net_tcp *t, uint8_t *scratch,
	void (*emit)(void *opaque, const uint8_t *frame, size_t len), void *opaque)
{
	size_t off = t->payload;
	unsigned index = 0;

	do {
		size_t n = MIN(len - off, t->mss);
		bool last = off + n == len;

		memcpy(scratch, frame, t->payload);
		memcpy(scratch + t->payload, frame + off, n);
		fix_ip(scratch + t->l3, t->payload + n - t->l3, t->l4 - t->l3, index);
		fix_tcp(scratch + t->l3, scratch + t->l4, t->payload + n - t->l4, (uint32_t)(off - t->payload), !index,
			last);
		emit(opaque, scratch, t->payload + n);
		off += n;
		index++;
	} while (off < len);
}

static void
emit_send(void *opaque, const uint8_t *frame, size_t len)
{
	net_send(opaque, frame, len);
}

void
net_send_tso(struct net_link *l, const uint8_t *frame, size_t len, unsigned l3, unsigned l4, unsigned payload,
	unsigned mss, uint8_t *scratch)
{
	net_cut_tcp(frame, len, &(struct net_tcp){ l3, l4, payload, mss }, scratch, emit_send, l);
}

bool
net_tcp_find(const uint8_t *frame, size_t len, struct net_tcp *t)
{
	unsigned header = 0;

	t->l3 = len >= 18 && be16(frame + 12) == 0x8100 ? 18 : 14;
	if (len < t->l3 + 20)
		return false;
	if (be16(frame + t->l3 - 2) == 0x0800 && frame[t->l3] >> 4 == 4 && frame[t->l3 + 9] == 6 &&
		!(be16(frame + t->l3 + 6) & 0x3fff))
		header = (frame[t->l3] & 15) * 4u;
	else if (be16(frame + t->l3 - 2) == 0x86dd && frame[t->l3] >> 4 == 6 && frame[t->l3 + 6] == 6)
		header = 40;
	t->l4 = t->l3 + header;
	if (header < 20 || len < t->l4 + 20)
		return false;
	t->payload = t->l4 + (frame[t->l4 + 12] >> 4) * 4u;
	return t->payload >= t->l4 + 20 && t->payload <= len;
}

bool
net_large_find(const uint8_t *frame, size_t len, unsigned mss, struct net_tcp *t)
{
	size_t ip_len;

	if (mss < NET_MSS_MIN || !net_tcp_find(frame, len, t) || t->payload == len)
		return false;
	t->mss = mss;
	ip_len = frame[t->l3] >> 4 == 4 ? be16(frame + t->l3 + 2) : be16(frame + t->l3 + 4) + 40u;
	return ip_len == len - t->l3;
}

void
net_tcp_finish(uint8_t *frame, size_t len, const struct net_tcp *t)
{
	uint8_t *tcp = frame + t->l4;
	uint16_t sum;

	put_be16(tcp + 16, 0);
	sum = net_sum_fold(net_sum(pseudo_sum(frame + t->l3, 6, len - t->l4), tcp, len - t->l4));
	memcpy(tcp + 16, &sum, 2);
}

uint16_t
net_tcp_pseudo(const uint8_t *frame, size_t len, const struct net_tcp *t)
{
	return (uint16_t)~net_sum_fold(pseudo_sum(frame + t->l3, 6, len - t->l4));
}

/* ---- fragments ---- */

enum { IP_MORE = 0x2000, MTU = 1500 };

void
net_cut_ipv4(const uint8_t *frame, size_t len, uint8_t *scratch,
	void (*emit)(void *opaque, const uint8_t *frame, size_t len), void *opaque)
{
	size_t ihl = len >= 34 ? (frame[14] & 15) * 4u : 0, end = len >= 34 ? 14 + be16(frame + 16) : 0, step;
	unsigned field;

	if (len <= 14 + MTU || be16(frame + 12) != 0x0800 || ihl < 20 || end > len || end < 14 + ihl) {
		emit(opaque, frame, len);
		return;
	}
	step = (MTU - ihl) & ~(size_t)7;
	field = be16(frame + 20);
	for (size_t off = 14 + ihl; off < end; off += step) {
		size_t n = MIN(step, end - off);
		uint16_t sum;

		memcpy(scratch, frame, 14 + ihl);
		memcpy(scratch + 14 + ihl, frame + off, n);
		put_be16(scratch + 16, (unsigned)(ihl + n));
		put_be16(scratch + 20, (field + (unsigned)((off - 14 - ihl) / 8)) | (off + n < end ? IP_MORE : 0));
		put_be16(scratch + 24, 0);
		sum = net_sum_fold(net_sum(0, scratch + 14, ihl));
		memcpy(scratch + 24, &sum, 2);
		emit(opaque, scratch, 14 + ihl + n);
	}
}
