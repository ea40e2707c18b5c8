/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The IPv6 addresses of machines, for names: read out of neighbour discovery (RFC 4861, 4.3 and 4.4; RFC 4862, 5.4), in
 * which whoever takes an address or uses one says so to all. Of the network's prefix only. A MAC address, which the
 * switch vouches for, has PER_MAC of them at most, so that one machine does not crowd out others.
 */
#include <string.h>

#include "base/bytes.h"
#include "switch/dhcp6.h"
#include "switch/private.h"

#define PER_MAC 8
#define SEEN_MS (UINT64_C(2) * 3600 * 1000)

static bool
in_prefix(const struct net_config *c, const uint8_t ip[16])
{
	return c->ipv6 && c->prefix6_len == 64 && !memcmp(ip, &c->prefix6, 8);
}

/* The entry for one more address of `mac`: its own oldest, a new one, or one that nobody has used for long. */
static struct host6 *
place(struct network *n, const uint8_t mac[6], uint64_t now)
{
	struct host6 *own = NULL, *old = NULL;
	int count = 0;

	for (int i = 0; i < n->host6_count; i++) {
		struct host6 *h = &n->hosts6[i];

		if (!memcmp(h->mac, mac, 6)) {
			count++;
			if (!own || h->seen < own->seen)
				own = h;
		}
		if (now - h->seen > SEEN_MS)
			old = h;
	}
	if (count >= PER_MAC)
		return own;
	return n->host6_count < HOSTS_MAX ? &n->hosts6[n->host6_count++] : old;
}

void
hosts6_note(struct network *n, const uint8_t ip[16], const uint8_t mac[6])
{
	uint64_t now = loop_now() / 1000000;
	struct host6 *h = NULL;

	if (!in_prefix(&n->c, ip))
		return;
	for (int i = 0; i < n->host6_count && !h; i++)
		if (!memcmp(n->hosts6[i].ip, ip, 16))
			h = &n->hosts6[i];
	if (!h)
		h = place(n, mac, now);
	if (!h)
		return;
	memcpy(h->ip, ip, 16);
	memcpy(h->mac, mac, 6);
	h->seen = now;
}

void
hosts6_hear(struct network *n, const uint8_t *frame, const uint8_t *icmp, size_t len)
{
	static const uint8_t none[16];
	const uint8_t *from = frame + 14 + 8;

	if (len < 24 || (icmp[0] != 135 && icmp[0] != 136))
		return;
	if (icmp[0] == 136 || !memcmp(from, none, 16)) /* an answer, or "does anybody have this?" */
		hosts6_note(n, icmp + 8, frame + 6);
	else
		hosts6_note(n, from, frame + 6);
}

/* What our DHCPv6 gave it is better than what it made of its MAC address, and that than one that may change. */
static int
rank(const struct host6 *h)
{
	const uint8_t *m = h->mac, eui[8] = { m[0] ^ 2, m[1], m[2], 0xff, 0xfe, m[3], m[4], m[5] };
	struct dhcp6_config c = { 0 };
	uint8_t given[16];

	memcpy(c.prefix, h->ip, 8);
	dhcp6_address(&c, m, given);
	return !memcmp(h->ip, given, 16) ? 2 : !memcmp(h->ip + 8, eui, 8) ? 1 : 0;
}

bool
hosts6_find(const struct network *n, const uint8_t mac[6], uint8_t out[16])
{
	const struct host6 *best = NULL;

	for (int i = 0; i < n->host6_count; i++) {
		const struct host6 *h = &n->hosts6[i];

		if (memcmp(h->mac, mac, 6) != 0 || !in_prefix(&n->c, h->ip))
			continue;
		if (!best || rank(h) > rank(best) || (rank(h) == rank(best) && h->seen > best->seen))
			best = h;
	}
	if (best)
		memcpy(out, best->ip, 16);
	return best != NULL;
}

const uint8_t *
hosts6_owner(const struct network *n, const uint8_t ip[16])
{
	for (int i = 0; i < n->host6_count; i++)
		if (!memcmp(n->hosts6[i].ip, ip, 16))
			return n->hosts6[i].mac;
	return NULL;
}
