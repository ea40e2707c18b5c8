/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The switch's own station on the network: it answers ARP and ping for its address, serves DHCP and DNS, and advertises
 * an IPv6 prefix, out of which it gives addresses by DHCPv6 where it serves DHCP. It speaks Ethernet, ARP (RFC 826), and of IP only what fits one frame; it has no TCP.
 *
 * DNS, of both kinds of IP: names of machines are answered here; on a network with NAT other questions go to the host's name servers
 * (resolver.c). A name is what the machine is called in the inventory, or what its guest calls itself to DHCP.
 */
#include <arpa/inet.h>
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/bytes.h"
#include "base/log.h"
#include "switch/dhcp6.h"
#include "switch/private.h"

#define RA_PERIOD_NS (UINT64_C(200) * 1000000000)
#define UDP_PAYLOAD_MAX 1472
#define UDP6_PAYLOAD_MAX 1452
#define HOST_SEEN_MS 600000
#define LEASE6_S 3600

struct station {
	struct network *n;
	int port;
	uint8_t mac[6];
	uint32_t ip;  /* 0: none */
	bool serving; /* DHCP */
	bool silent;  /* its DHCP server was told to stop */
	struct dhcp dhcp;
	struct resolver *resolver;
	struct loop_timer ra;
	uint8_t out[1600];
};

static void
put16(uint8_t *p, unsigned v)
{
	p[0] = (uint8_t)(v >> 8);
	p[1] = (uint8_t)v;
}

static void
put32(uint8_t *p, uint32_t v)
{
	put16(p, v >> 16);
	put16(p + 2, v & 0xffff);
}

static void
transmit(struct station *s, size_t len)
{
	net_inject(s->n, s->port, s->out, MAX(len, (size_t)60), 0);
}

static uint8_t *
ethernet(struct station *s, const uint8_t *to, unsigned type)
{
	memset(s->out, 0, sizeof(s->out));
	memcpy(s->out, to, 6);
	memcpy(s->out + 6, s->mac, 6);
	put16(s->out + 12, type);
	return s->out + 14;
}

/* ---- who is where ---- */

void
hosts_note(struct network *n, uint32_t ip, const uint8_t mac[6])
{
	uint64_t now = loop_now() / 1000000;
	struct host *h = NULL;

	if (!ip || (n->c.netmask && (ip & n->c.netmask) != n->c.network))
		return;
	for (int i = 0; i < n->host_count && !h; i++)
		if (n->hosts[i].ip == ip || !memcmp(n->hosts[i].mac, mac, 6))
			h = &n->hosts[i];
	if (!h && n->host_count < HOSTS_MAX)
		h = &n->hosts[n->host_count++];
	for (int i = 0; i < n->host_count && !h; i++)
		if (now - n->hosts[i].seen > HOST_SEEN_MS)
			h = &n->hosts[i];
	if (!h)
		return;
	h->ip = ip;
	h->seen = now;
	memcpy(h->mac, mac, 6);
}

uint32_t
port_ip(struct network *n, const struct port *p)
{
	const struct dhcp_lease *l = NULL;
	const struct host *best = NULL;

	if (n->station && n->station->serving)
		l = dhcp_find(&n->station->dhcp, p->file.c.mac, time(NULL));
	for (int i = 0; i < n->host_count; i++)
		if (!memcmp(n->hosts[i].mac, p->file.c.mac, 6) && (!best || n->hosts[i].seen > best->seen))
			best = &n->hosts[i];
	return best ? best->ip : l ? l->ip : 0;
}

/* ---- ARP, ping ---- */

/* RFC 826: 0 hardware, 2 protocol, 4 their lengths, 6 operation, 8 sender MAC, 14 sender IP, 18 target MAC, 24 IP */
static void
arp(struct station *s, const uint8_t *frame, size_t len)
{
	const uint8_t *a = frame + 14;
	uint8_t *o;

	if (len < 14 + 28 || be16(a) != 1 || be16(a + 2) != 0x0800 || a[4] != 6 || a[5] != 4)
		return;
	if (!memcmp(a + 8, frame + 6, 6))
		hosts_note(s->n, be32(a + 14), a + 8);
	if (be16(a + 6) != 1 || !s->ip || be32(a + 24) != s->ip)
		return;
	o = ethernet(s, frame + 6, 0x0806);
	memcpy(o, a, 6);
	put16(o + 6, 2);
	memcpy(o + 8, s->mac, 6);
	put32(o + 14, s->ip);
	memcpy(o + 18, a + 8, 10);
	transmit(s, 14 + 28);
}

static void
ip_header(struct station *s, uint8_t *ip, unsigned proto, uint32_t to, size_t payload)
{
	uint16_t sum;

	ip[0] = 0x45;
	put16(ip + 2, (unsigned)(20 + payload));
	ip[8] = 64;
	ip[9] = (uint8_t)proto;
	put32(ip + 12, s->ip);
	put32(ip + 16, to);
	sum = net_sum_fold(net_sum(0, ip, 20));
	memcpy(ip + 10, &sum, 2);
}

/* RFC 792: an echo comes back as it is. */
static void
ping(struct station *s, const uint8_t *frame, const uint8_t *icmp, size_t len)
{
	uint8_t *ip;
	uint16_t sum;

	if (len < 8 || icmp[0] != 8 || len > UDP_PAYLOAD_MAX + 8)
		return;
	ip = ethernet(s, frame + 6, 0x0800);
	ip_header(s, ip, 1, be32(frame + 14 + 12), len);
	memcpy(ip + 20, icmp, len);
	ip[20] = 0;
	put16(ip + 22, 0);
	sum = net_sum_fold(net_sum(0, ip + 20, len));
	memcpy(ip + 22, &sum, 2);
	transmit(s, 34 + len);
}

static void
send_udp(struct station *s, const uint8_t *mac, uint32_t to, uint16_t port, const uint8_t *payload, size_t len)
{
	uint8_t *ip = ethernet(s, mac, 0x0800), *udp = ip + 20;
	uint64_t sum;
	uint16_t folded;

	ip_header(s, ip, 17, to, 8 + len);
	put16(udp, 53);
	put16(udp + 2, port);
	put16(udp + 4, (unsigned)(8 + len));
	memcpy(udp + 8, payload, len);
	sum = net_sum(0, ip + 12, 8) + htons(17) + htons((uint16_t)(8 + len));
	folded = net_sum_fold(net_sum(sum, udp, 8 + len));
	if (!folded)
		folded = 0xffff;
	memcpy(udp + 6, &folded, 2);
	transmit(s, 42 + len);
}

/* ---- IPv6: sending ---- */

static void
own_address6(const struct station *s, uint8_t out[16])
{
	static const uint8_t link_local[8] = { 0xfe, 0x80 };

	memcpy(out, link_local, 8);
	memcpy(out + 8, s->mac, 3);
	out[8] ^= 2;
	out[11] = 0xff;
	out[12] = 0xfe;
	memcpy(out + 13, s->mac + 3, 3);
}

void
names6(const struct net_config *c, uint8_t out[16])
{
	struct dhcp6_config d = { 0 };

	memcpy(d.prefix, &c->prefix6, 16);
	dhcp6_address(&d, c->dhcp.mac, out);
	if (c->kind != KIND_NATNETWORK)
		return;
	memset(out + 8, 0, 8);
	out[15] = 3;
}

/* Is this an address of ours? */
static bool
own6(const struct station *s, const uint8_t *ip)
{
	uint8_t local[16], names[16];

	own_address6(s, local);
	names6(&s->n->c, names);
	return !memcmp(ip, local, 16) || !memcmp(ip, names, 16);
}

/* RFC 8200, section 3; the checksum of `body` is put in. */
static void
send_ip6(struct station *s, const uint8_t *mac, const uint8_t *from, const uint8_t *to, uint8_t next,
	const uint8_t *body, size_t len)
{
	uint8_t *ip = ethernet(s, mac, 0x86dd), tail[8] = { [7] = next }, *field = ip + 40 + (next == 17 ? 6 : 2);
	uint16_t sum;

	ip[0] = 0x60;
	put16(ip + 4, (unsigned)len);
	ip[6] = next;
	ip[7] = 255;
	memcpy(ip + 8, from, 16);
	memcpy(ip + 24, to, 16);
	memcpy(ip + 40, body, len);
	put16(field, 0);
	put16(tail + 2, (unsigned)len);
	sum = net_sum_fold(net_sum(net_sum(net_sum(0, ip + 8, 32), tail, 8), ip + 40, len));
	if (!sum && next == 17)
		sum = 0xffff;
	memcpy(field, &sum, 2);
	transmit(s, 54 + len);
}

static void
send_icmp6(struct station *s, const uint8_t *mac, const uint8_t *to, const uint8_t *body, size_t len)
{
	uint8_t own[16];

	own_address6(s, own);
	send_ip6(s, mac, own, to, 58, body, len);
}

static void
send_udp6(struct station *s, const uint8_t *mac, unsigned from_port, const uint8_t *from, const uint8_t *to,
	unsigned port, const uint8_t *payload, size_t len)
{
	uint8_t udp[8 + UDP6_PAYLOAD_MAX] = { 0 };

	put16(udp, from_port);
	put16(udp + 2, port);
	put16(udp + 4, (unsigned)(8 + len));
	memcpy(udp + 8, payload, len);
	send_ip6(s, mac, from, to, 17, udp, 8 + len);
}

/* ---- DNS ---- */

/* An answer that does not fit a frame: the question with the bit that says so (RFC 1035, TC). */
static void
answer(void *opaque, const struct asker *to, const uint8_t *payload, size_t len)
{
	struct station *s = opaque;
	uint8_t cut[12];

	if (len > (to->six ? UDP6_PAYLOAD_MAX : UDP_PAYLOAD_MAX)) {
		memcpy(cut, payload, 12);
		cut[2] |= 2;
		memset(cut + 4, 0, 8);
		payload = cut;
		len = sizeof(cut);
	}
	if (to->six)
		send_udp6(s, to->mac, 53, to->asked6, to->ip6, to->port, payload, len);
	else
		send_udp(s, to->mac, to->ip, to->port, payload, len);
}

/* "Web Server 1" can be asked for as web-server-1. */
static bool
same_label(const char *name, const char *label)
{
	for (; *name && *label; name++, label++) {
		char c = isalnum((unsigned char)*name) ? (char)tolower((unsigned char)*name) : '-';

		if (c != *label)
			return false;
	}
	return !*name && !*label;
}

/* The port of the machine that is called so. */
static const struct port *
port_called(const struct station *s, const char *label)
{
	for (const struct port *p = s->n->ports; p; p = p->next)
		if (p->number >= 0 && same_label(p->file.machine, label))
			return p;
	return NULL;
}

/* The lease of who calls itself so. */
static const struct dhcp_lease *
lease_called(const struct station *s, const char *label)
{
	int64_t now = time(NULL);

	for (int i = 0; i < s->dhcp.lease_count; i++) {
		const struct dhcp_lease *l = &s->dhcp.leases[i];

		if (*l->name && !strcasecmp(l->name, label) && dhcp_find(&s->dhcp, l->mac, now) == l)
			return l;
	}
	return NULL;
}

static uint32_t
find_name(void *opaque, const char *label)
{
	struct station *s = opaque;
	const struct port *p = port_called(s, label);
	const struct dhcp_lease *l = p ? NULL : lease_called(s, label);

	return p ? port_ip(s->n, p) : l ? l->ip : 0;
}

static bool
find_name6(void *opaque, const char *label, uint8_t out[16])
{
	struct station *s = opaque;
	const struct port *p = port_called(s, label);
	const struct dhcp_lease *l = p ? NULL : lease_called(s, label);

	return (p || l) && hosts6_find(s->n, p ? p->file.c.mac : l->mac, out);
}

static bool
port_label(const struct port *p, char *out, size_t size)
{
	size_t n = 0;

	for (const char *c = p->file.machine; *c && n + 1 < MIN(size, (size_t)64); c++)
		out[n++] = isalnum((unsigned char)*c) ? (char)tolower((unsigned char)*c) : '-';
	out[n] = 0;
	return n > 0;
}

static bool
name_of6(void *opaque, const uint8_t ip[16], char *out, size_t size)
{
	struct station *s = opaque;
	const uint8_t *mac = hosts6_owner(s->n, ip);

	for (struct port *p = s->n->ports; mac && p; p = p->next)
		if (p->number >= 0 && !memcmp(p->file.c.mac, mac, 6))
			return port_label(p, out, size);
	return false;
}

static bool
name_of(void *opaque, uint32_t ip, char *out, size_t size)
{
	struct station *s = opaque;

	for (struct port *p = s->n->ports; p; p = p->next)
		if (p->number >= 0 && port_ip(s->n, p) == ip)
			return port_label(p, out, size);
	for (int i = 0; i < s->dhcp.lease_count; i++)
		if (s->dhcp.leases[i].ip == ip && *s->dhcp.leases[i].name) {
			snprintf(out, size, "%s", s->dhcp.leases[i].name);
			return true;
		}
	return false;
}

static void
dns(struct station *s, const struct asker *from, const uint8_t *query, size_t len)
{
	const struct net_config *c = &s->n->c;
	struct dns_names names = {
		.domain = c->domain,
		.network = c->network,
		.netmask = c->netmask,
		.prefix6 = c->ipv6 && c->prefix6_len == 64 ? c->prefix6.s6_addr : NULL,
		.find = find_name,
		.find6 = find_name6,
		.name = name_of,
		.name6 = name_of6,
		.opaque = s,
	};
	uint8_t out[DNS_MAX + 512];
	size_t out_len;

	switch (dns_query(&names, query, len, !s->resolver, out, &out_len)) {
	case DNS_ANSWERED:
		answer(s, from, out, out_len);
		break;
	case DNS_FORWARD:
		resolver_ask(s->resolver, from, query, len);
		break;
	case DNS_DROP:
		break;
	}
}

static void
dns4(struct station *s, const uint8_t *frame, const uint8_t *udp)
{
	struct asker from = { .port = (uint16_t)be16(udp), .ip = be32(frame + 14 + 12) };

	memcpy(from.mac, frame + 6, 6);
	dns(s, &from, udp + 8, be16(udp + 4) - 8u);
}

/* ---- IPv4 ---- */

static void
save_leases(struct station *s)
{
	struct err e;

	if (s->dhcp.changed && leases_save(s->n->dir, &s->dhcp, &e))
		log_error("dhcp", "%s", e.text);
}

static void
ipv4(struct station *s, const uint8_t *frame, size_t len)
{
	const uint8_t *ip = frame + 14, *l4;
	size_t ihl, total, out;

	if (len < 34)
		return;
	ihl = (ip[0] & 15) * 4u;
	total = be16(ip + 2);
	if (ip[0] >> 4 != 4 || ihl < 20 || total < ihl || total > len - 14 || (be16(ip + 6) & 0x3fff))
		return;
	l4 = ip + ihl;
	total -= ihl;
	if (ip[9] == 17 && total >= 8 && be16(l4 + 2) == 67 && s->serving && !s->silent) {
		out = dhcp_input(&s->dhcp, frame, len, time(NULL), s->out);
		save_leases(s);
		if (out)
			transmit(s, out);
		return;
	}
	if (!s->ip || be32(ip + 16) != s->ip || (net_checksum_verify(frame, len) & (NET_CSUM_IP_BAD | NET_CSUM_L4_BAD)))
		return;
	if (ip[9] == 1)
		ping(s, frame, l4, total);
	else if (ip[9] == 17 && total >= 8 && be16(l4 + 2) == 53 && be16(l4 + 4) >= 8 && be16(l4 + 4) <= total)
		dns4(s, frame, l4);
}

/* ---- IPv6: routers' advertisements (RFC 4861) for SLAAC (RFC 4862) ---- */

/* ---- DHCPv6 ---- */

static bool
serves6(const struct station *s)
{
	return s->serving && !s->silent && s->n->c.prefix6_len == 64 && s->n->c.uplink != UPLINK_NAT;
}

static void
dhcp6(struct station *s, const uint8_t *frame, const uint8_t *udp, size_t len)
{
	struct dhcp6_config c = { .lease = LEASE6_S, .domain = s->n->c.domain };
	uint8_t payload[DHCP6_REPLY_MAX], own[16], dns_server[16];
	size_t n;

	if (len < 12)
		return;
	names6(&s->n->c, dns_server);
	c.dns = dns_server;
	memcpy(c.mac, s->mac, 6);
	memcpy(c.prefix, &s->n->c.prefix6, 16);
	own_address6(s, own);
	n = dhcp6_input(&c, frame + 6, udp + 8, len - 8, payload);
	if (n)
		send_udp6(s, frame + 6, 547, own, frame + 22, 546, payload, n);
}

/* 0 type, 1 length in units of 8, 4 lifetime, 8 address */
void
put_rdnss(const struct net_config *c, uint8_t out[RDNSS_BYTES])
{
	memset(out, 0, RDNSS_BYTES);
	out[0] = RDNSS;
	out[1] = RDNSS_BYTES / 8;
	put32(out + 4, 1800);
	names6(c, out + 8);
}

/*
 * RFC 4861 section 4.2: 0 type 134, 4 hop limit, 5 flags, 6 u16 router lifetime, 8, 12 timers; then options: source
 * link-layer address (1), prefix (3): 2 length, 3 flags (on-link, autonomous), 4 valid, 8 preferred, 16 prefix; DNS (RFC 8106).
 */
static void
advertise(struct station *s)
{
	static const uint8_t all_nodes[16] = { 0xff, 2, [15] = 1 }, all_mac[6] = { 0x33, 0x33, 0, 0, 0, 1 };
	const struct net_config *c = &s->n->c;
	uint8_t b[16 + 8 + 32 + RDNSS_BYTES] = { 134, [4] = 64 };

	b[5] = serves6(s) ? 0xc0 : 0; /* addresses and the rest are to be had by DHCPv6 */
	put16(b + 6, c->default6 ? 1800 : 0);
	b[16] = 1;
	b[17] = 1;
	memcpy(b + 18, s->mac, 6);
	b[24] = 3;
	b[25] = 4;
	b[26] = (uint8_t)c->prefix6_len;
	b[27] = 0xc0;
	put32(b + 28, 86400);
	put32(b + 32, 14400);
	memcpy(b + 40, &c->prefix6, 16);
	put_rdnss(c, b + 56);
	send_icmp6(s, all_mac, all_nodes, b, s->serving ? sizeof(b) : sizeof(b) - RDNSS_BYTES);
}

static void
advertise_again(void *opaque)
{
	struct station *s = opaque;

	advertise(s);
	loop_timer_arm(&s->ra, loop_now() + RA_PERIOD_NS);
}

/*
 * Somebody asks for our link-layer address; who looks whether an address is taken has none yet (RFC 4861, 7.2.4).
 * Answer: 4 flags (router, solicited, override), 8 target, 24 its link-layer address
 */
static void
neighbour(struct station *s, const uint8_t *frame, const uint8_t *ip, const uint8_t *icmp, size_t len)
{
	static const uint8_t none[16], all_nodes[16] = { 0xff, 2, [15] = 1 };
	bool nobody = !memcmp(ip + 8, none, 16);
	uint8_t b[32] = { 136, [4] = 0x20 };

	if (len < 24 || !own6(s, icmp + 8))
		return;
	b[4] |= nobody ? 0 : 0x40;
	b[4] |= s->n->c.uplink == UPLINK_NAT ? 0 : 0x80;
	memcpy(b + 8, icmp + 8, 16);
	b[24] = 2;
	b[25] = 1;
	memcpy(b + 26, s->mac, 6);
	send_icmp6(s, frame + 6, nobody ? all_nodes : ip + 8, b, sizeof(b));
}

/* RFC 4443, section 4.2 */
static void
ping6(struct station *s, const uint8_t *frame, const uint8_t *ip, const uint8_t *icmp, size_t len)
{
	uint8_t b[UDP6_PAYLOAD_MAX];

	if (len > sizeof(b) || !own6(s, ip + 24))
		return;
	memcpy(b, icmp, len);
	b[0] = 129;
	send_ip6(s, frame + 6, ip + 24, ip + 8, 58, b, len);
}

/* Names are for the network's machines: who asks has an address of this link. */
static void
dns6(struct station *s, const uint8_t *frame, const uint8_t *ip, const uint8_t *udp, size_t len)
{
	struct asker from = { .port = (uint16_t)be16(udp), .six = true };

	if (!own6(s, ip + 24))
		return;
	memcpy(from.mac, frame + 6, 6);
	memcpy(from.ip6, ip + 8, 16);
	memcpy(from.asked6, ip + 24, 16);
	hosts6_note(s->n, ip + 8, frame + 6);
	dns(s, &from, udp + 8, len - 8);
}

static void
icmp6(struct station *s, const uint8_t *frame, const uint8_t *ip, size_t len)
{
	const uint8_t *icmp = ip + 40;

	if (icmp[0] == 128)
		ping6(s, frame, ip, icmp, len);
	if (ip[7] != 255)
		return;
	hosts6_hear(s->n, frame, icmp, len);
	if (icmp[0] == 133 && s->n->c.uplink != UPLINK_NAT)
		advertise(s);
	else if (icmp[0] == 135)
		neighbour(s, frame, ip, icmp, len);
}

/* Behind a NAT libslirp is the router and the DHCPv6 server (uplink.c). */
static void
ipv6(struct station *s, const uint8_t *frame, size_t len)
{
	const uint8_t *ip = frame + 14, *udp = ip + 40;
	size_t payload;

	if (len < 14 + 40 + 8 || !s->n->c.ipv6)
		return;
	payload = be16(ip + 4);
	if (payload < 8 || payload > len - 54)
		return;
	if (ip[6] == 58)
		icmp6(s, frame, ip, payload);
	if (ip[6] != 17 || be16(udp + 4) < 8 || be16(udp + 4) > payload ||
		net_checksum_verify(frame, len) != NET_CSUM_L4)
		return;
	if (be16(udp + 2) == 547 && serves6(s))
		dhcp6(s, frame, udp, be16(udp + 4));
	else if (be16(udp + 2) == 53)
		dns6(s, frame, ip, udp, be16(udp + 4));
}

static bool
deliver(void *opaque, const uint8_t *frame, size_t len, unsigned mss)
{
	struct station *s = opaque;

	if (mss)
		return true; /* there is no TCP here */
	switch (be16(frame + 12)) {
	case 0x0806:
		arp(s, frame, len);
		break;
	case 0x0800:
		ipv4(s, frame, len);
		break;
	case 0x86dd:
		ipv6(s, frame, len);
		break;
	}
	return true;
}

/* ---- life ---- */

struct dhcp *
station_dhcp(struct network *n)
{
	return n->station && n->station->serving ? &n->station->dhcp : NULL;
}

void
station_serve(struct network *n, bool on)
{
	n->station->silent = !on;
}

static void
configure(struct station *s)
{
	struct network *n = s->n;
	uint32_t protected[4];
	int count = 0;

	s->ip = n->c.dhcp_enabled ? n->c.dhcp.address : 0;
	s->serving = n->c.dhcp_enabled;
	if (s->ip)
	protected[count++] = htonl(s->ip);
	if (n->c.gateway)
	protected[count++] = htonl(n->c.gateway);
	if (n->c.kind == KIND_NATNETWORK)
	protected[count++] = htonl(n->c.network + 2);
	sw_guard(n->core, n->c.guard, protected, count);
	if (n->c.ipv6 && n->c.uplink != UPLINK_NAT)
		loop_timer_arm(&s->ra, loop_now());
	else
		loop_timer_cancel(&s->ra);
}

/* What it is has to be guarded. */
static void
take_host_lease(struct station *s)
{
	hostlease_take(s->n);
	if (s->n->c.host_dhcp)
		configure(s);
}

int
station_open(struct network *n, struct err *e)
{
	struct station *s = xcalloc(1, sizeof(*s));
	struct sw_port_config c = { .has_mac = true, .host_side = true, .may_serve = true };

	n->station = s;
	s->n = n;
	memcpy(s->mac, n->c.dhcp.mac, 6);
	memcpy(c.mac, s->mac, 6);
	s->port = sw_port_add(n->core, &c, deliver, s);
	loop_timer_init(&s->ra, n->loop, advertise_again, s);
	dhcp_open(&s->dhcp, &n->c.dhcp);
	n->c.dhcp = (struct dhcp_config){ .address = s->dhcp.c.address }; /* taken over */
	memcpy(n->c.dhcp.mac, s->mac, 6);
	if (n->c.uplink == UPLINK_NAT)
		s->resolver = resolver_open(n->loop, answer, s);
	configure(s);
	if (s->serving)
		leases_load(n->dir, &s->dhcp);
	take_host_lease(s);
	return 0;
}

void
station_reload(struct network *n)
{
	struct station *s = n->station;
	bool served = s->serving;

	dhcp_reconfigure(&s->dhcp, &n->c.dhcp);
	n->c.dhcp = (struct dhcp_config){ .address = s->dhcp.c.address };
	memcpy(n->c.dhcp.mac, s->mac, 6);
	memcpy(s->dhcp.c.mac, s->mac, 6);
	configure(s);
	if (s->serving && !served)
		leases_load(n->dir, &s->dhcp);
	take_host_lease(s);
	save_leases(s);
}

void
station_close(struct network *n)
{
	struct station *s = n->station;

	if (!s)
		return;
	loop_timer_cancel(&s->ra);
	if (s->resolver)
		resolver_close(s->resolver);
	sw_port_remove(n->core, s->port);
	dhcp_close(&s->dhcp);
	free(s);
	n->station = NULL;
}
