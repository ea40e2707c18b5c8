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
net_send_tso(struct net_link *l, const uint8_t *frame, size_t len, unsigned l3, unsigned l4, unsigned payload,
	unsigned mss, uint8_t *scratch)
{
	size_t off = payload;
	unsigned index = 0;

	do {
		size_t n = MIN(len - off, mss);
		bool last = off + n == len;

		memcpy(scratch, frame, payload);
		memcpy(scratch + payload, frame + off, n);
		fix_ip(scratch + l3, payload + n - l3, l4 - l3, index);
		fix_tcp(scratch + l3, scratch + l4, payload + n - l4, (uint32_t)(off - payload), !index, last);
		net_send(l, scratch, payload + n);
		off += n;
		index++;
	} while (off < len);
}
