/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who gives out addresses and routes. The same checks as DHCP snooping and RA guard on real switches; IPv6 extension
 * headers and fragments do not get around them (RFC 7113): what hides its kind is taken for the worst.
 */
#include "switch/guard.h"
#include "base/bytes.h"

#include <string.h>

/* RFC 826: 0 hardware, 2 protocol, 4 their lengths, 6 operation, 8 sender MAC, 14 sender IP, 18 target MAC, 24 IP */
static bool
arp_ok(const uint8_t *frame, const uint8_t *arp, size_t len, const uint32_t *protected, int count)
{
	uint32_t sender;

	if (len < 28 || be16(arp) != 1 || be16(arp + 2) != 0x0800 || arp[4] != 6 || arp[5] != 4)
		return true; /* nobody understands it */
	if (memcmp(arp + 8, frame + 6, 6))
		return false; /* speaks for another */
	memcpy(&sender, arp + 14, 4);
	for (int i = 0; i < count; i++)
		if (sender == protected[i])
			return false;
	return true;
}

static bool
ipv4_ok(const uint8_t *ip, size_t len)
{
	size_t ihl = len >= 20 ? (ip[0] & 15) * 4u : 0;

	if (ihl < 20 || ihl > len || ip[9] != 17 || (be16(ip + 6) & 0x1fff))
		return true;
	if (len - ihl < 4)
		return false; /* a first fragment too short to tell its ports */
	return !(be16(ip + ihl) == 67 && be16(ip + ihl + 2) == 68);
}

/* RFC 8200 section 4: extension headers begin with the next header and, mostly, their length in units of 8 bytes. */
static bool
ipv6_ok(const uint8_t *ip, size_t len)
{
	size_t at = 40, length;
	uint8_t next;

	if (len < 40)
		return true;
	next = ip[6];
	for (int i = 0; i < 8; i++) {
		if (next == 58)
			return at < len && ip[at] != 134 && ip[at] != 137;
		if (next == 17)
			return at + 4 <= len && !(be16(ip + at) == 547 && be16(ip + at + 2) == 546);
		if (next != 0 && next != 43 && next != 44 && next != 60)
			return true;
		if (at + 8 > len)
			return false;
		if (next == 44 && (be16(ip + at + 2) & 0xfff8))
			return true; /* not the first fragment */
		length = next == 44 ? 8 : (ip[at + 1] + 1u) * 8u;
		next = ip[at];
		at += length;
	}
	return false;
}

bool
guard_allows(const uint8_t *frame, size_t len, const uint32_t *protected, int count)
{
	if (len < 14)
		return true;
	switch (be16(frame + 12)) {
	case 0x0806:
		return arp_ok(frame, frame + 14, len - 14, protected, count);
	case 0x0800:
		return ipv4_ok(frame + 14, len - 14);
	case 0x86dd:
		return ipv6_ok(frame + 14, len - 14);
	default:
		return true;
	}
}
