/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The switch's own station on the network: it answers ARP and ping for its address, serves DHCP and DNS, and advertises
 * an IPv6 prefix, out of which it gives addresses by DHCPv6 where it serves DHCP. It speaks Ethernet, ARP (RFC 826), and of IP only what fits one frame; it has no TCP.
 *
 * DNS: names of machines are answered here; on a network with NAT other questions go to the host's name servers
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

/* ---- DNS ---- */

/* An answer that does not fit a frame: the question with the bit that says so (RFC 1035, TC). */
static void
answer(void *opaque, const uint8_t *mac, uint32_t ip, uint16_t port, const uint8_t *payload, size_t len)
{
	struct station *s = opaque;
	uint8_t cut[12];

	if (len <= UDP_PAYLOAD_MAX) {
		send_udp(s, mac, ip, port, payload, len);
		return;
	}
	memcpy(cut, payload, 12);
	cut[2] |= 2;
	memset(cut + 4, 0, 8);
	send_udp(s, mac, ip, port, cut, sizeof(cut));
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

static uint32_t
find_name(void *opaque, const char *label)
{
	struct station *s = opaque;
	int64_t now = time(NULL);

	for (struct port *p = s->n->ports; p; p = p->next)
		if (p->number >= 0 && same_label(p->file.machine, label))
			return port_ip(s->n, p);
	for (int i = 0; i < s->dhcp.lease_count; i++) {
		const struct dhcp_lease *l = &s->dhcp.leases[i];

		if (*l->name && !strcasecmp(l->name, label) && dhcp_find(&s->dhcp, l->mac, now) == l)
			return l->ip;
	}
	return 0;
}

static bool
name_of(void *opaque, uint32_t ip, char *out, size_t size)
{
	struct station *s = opaque;
	size_t n = 0;

	for (struct port *p = s->n->ports; p; p = p->next) {
		if (p->number < 0 || port_ip(s->n, p) != ip)
			continue;
		for (const char *c = p->file.machine; *c && n + 1 < MIN(size, (size_t)64); c++)
			out[n++] = isalnum((unsigned char)*c) ? (char)tolower((unsigned char)*c) : '-';
		out[n] = 0;
		return n > 0;
	}
	for (int i = 0; i < s->dhcp.lease_count; i++)
		if (s->dhcp.leases[i].ip == ip && *s->dhcp.leases[i].name) {
			snprintf(out, size, "%s", s->dhcp.leases[i].name);
			return true;
		}
	return false;
}

static void
dns(struct station *s, const uint8_t *frame, const uint8_t *ip, const uint8_t *udp, size_t len)
{
	struct dns_names names = { s->n->c.domain, s->n->c.network, s->n->c.netmask, find_name, name_of, s };
	uint32_t from = be32(ip + 12);
	uint16_t port = (uint16_t)be16(udp);
	uint8_t out[DNS_MAX + 512];
	size_t out_len;

	switch (dns_query(&names, udp + 8, len, !s->resolver, out, &out_len)) {
	case DNS_ANSWERED:
		answer(s, frame + 6, from, port, out, out_len);
		break;
	case DNS_FORWARD:
		resolver_ask(s->resolver, frame + 6, from, port, udp + 8, len);
		break;
	case DNS_DROP:
		break;
	}
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
		dns(s, frame, ip, l4, be16(l4 + 4) - 8u);
}

/* ---- IPv6: routers' advertisements (RFC 4861) for SLAAC (RFC 4862) ---- */

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

static void
send_icmp6(struct station *s, const uint8_t *mac, const uint8_t *to, const uint8_t *body, size_t len)
{
	uint8_t *ip = ethernet(s, mac, 0x86dd);
	uint8_t tail[8] = { 0, 0, 0, (uint8_t)len, 0, 0, 0, 58 };
	uint16_t sum;

	ip[0] = 0x60;
	put16(ip + 4, (unsigned)len);
	ip[6] = 58;
	ip[7] = 255;
	own_address6(s, ip + 8);
	memcpy(ip + 24, to, 16);
	memcpy(ip + 40, body, len);
	sum = net_sum_fold(net_sum(net_sum(net_sum(0, ip + 8, 32), tail, 8), body, len));
	memcpy(ip + 42, &sum, 2);
	transmit(s, 54 + len);
}

/* ---- DHCPv6 ---- */

static bool
serves6(const struct station *s)
{
	return s->serving && !s->silent && s->n->c.prefix6_len == 64;
}

static void
dhcp6(struct station *s, const uint8_t *frame, size_t len)
{
	const uint8_t *udp = frame + 54;
	size_t udp_len = len >= 62 ? be16(udp + 4) : 0, n;
	struct dhcp6_config c = { .lease = LEASE6_S, .domain = s->n->c.domain };
	uint8_t payload[DHCP6_REPLY_MAX], tail[8] = { [7] = 17 }, *ip;
	uint16_t sum;

	if (udp_len < 12 || udp_len > len - 54 || be16(udp + 2) != 547 || !serves6(s) ||
		net_checksum_verify(frame, len) != NET_CSUM_L4)
		return;
	memcpy(c.mac, s->mac, 6);
	memcpy(c.prefix, &s->n->c.prefix6, 16);
	n = dhcp6_input(&c, frame + 6, udp + 8, udp_len - 8, payload);
	if (!n)
		return;
	ip = ethernet(s, frame + 6, 0x86dd);
	ip[0] = 0x60;
	put16(ip + 4, (unsigned)(8 + n));
	ip[6] = 17;
	ip[7] = 64;
	own_address6(s, ip + 8);
	memcpy(ip + 24, frame + 22, 16);
	put16(ip + 40, 547);
	put16(ip + 42, 546);
	put16(ip + 44, (unsigned)(8 + n));
	memcpy(ip + 48, payload, n);
	put16(tail + 2, (unsigned)(8 + n));
	sum = net_sum_fold(net_sum(net_sum(net_sum(0, ip + 8, 32), tail, 8), ip + 40, 8 + n));
	if (!sum)
		sum = 0xffff;
	memcpy(ip + 46, &sum, 2);
	transmit(s, 62 + n);
}

/*
 * RFC 4861 section 4.2: 0 type 134, 4 hop limit, 5 flags, 6 u16 router lifetime, 8, 12 timers; then options: source
 * link-layer address (1), prefix (3): 2 length, 3 flags (on-link, autonomous), 4 valid, 8 preferred, 16 prefix.
 */
static void
advertise(struct station *s)
{
	static const uint8_t all_nodes[16] = { 0xff, 2, [15] = 1 }, all_mac[6] = { 0x33, 0x33, 0, 0, 0, 1 };
	const struct net_config *c = &s->n->c;
	uint8_t b[16 + 8 + 32] = { 134, [4] = 64 };

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
	send_icmp6(s, all_mac, all_nodes, b, sizeof(b));
}

static void
advertise_again(void *opaque)
{
	struct station *s = opaque;

	advertise(s);
	loop_timer_arm(&s->ra, loop_now() + RA_PERIOD_NS);
}

/* Somebody asks for our link-layer address. */
static void
neighbour(struct station *s, const uint8_t *frame, const uint8_t *ip, const uint8_t *icmp, size_t len)
{
	uint8_t own[16], b[32] = { 136, [4] = 0xe0 };

	own_address6(s, own);
	if (len < 24 || memcmp(icmp + 8, own, 16))
		return;
	memcpy(b + 8, own, 16);
	b[24] = 2;
	b[25] = 1;
	memcpy(b + 26, s->mac, 6);
	send_icmp6(s, frame + 6, ip + 8, b, sizeof(b));
}

static void
ipv6(struct station *s, const uint8_t *frame, size_t len)
{
	const uint8_t *ip = frame + 14;
	size_t payload;

	if (len < 14 + 40 + 8 || !s->n->c.ipv6 || s->n->c.uplink == UPLINK_NAT)
		return;
	if (ip[6] == 17)
		dhcp6(s, frame, len);
	payload = be16(ip + 4);
	if (ip[6] != 58 || ip[7] != 255 || payload < 8 || payload > len - 54)
		return;
	if (ip[40] == 133)
		advertise(s);
	else if (ip[40] == 135)
		neighbour(s, frame, ip, ip + 40, payload);
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
