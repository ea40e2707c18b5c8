/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The DHCP server.
 *
 * Message, RFC 2131 section 2, behind Ethernet (14), IPv4 (20 and more) and UDP (8):
 *
 *	0 op (1 request, 2 answer)  1 htype (1)  2 hlen (6)  3 hops   4 xid   8 secs   10 flags (bit 15: broadcast)
 *	12 ciaddr   16 yiaddr   20 siaddr   24 giaddr   28 chaddr[16]   44 sname[64]   108 file[128]
 *	236 63 82 53 63, then options: code, length, bytes; 0 pads, 255 ends
 *
 * What a client gets, in this order: the individual configuration of its address, the groups it is in, the global one,
 * what follows from the network itself. It is told the options it asked for (55) that are known, and those forced on
 * it, less those suppressed. Requests through relays (giaddr) are not answered: a switch is one network.
 */
#include "switch/dhcp.h"
#include "base/bytes.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/str.h"
#include "net/net.h"

enum { DISCOVER = 1, OFFER, REQUEST, DECLINE, ACK, NAK, RELEASE, INFORM };
enum {
	OPT_NETMASK = 1,
	OPT_ROUTER = 3,
	OPT_DNS = 6,
	OPT_NAME = 12,
	OPT_DOMAIN = 15,
	OPT_WANTED = 50,
	OPT_LEASE = 51,
	OPT_TYPE = 53,
	OPT_SERVER = 54,
	OPT_LIST = 55,
	OPT_T1 = 58,
	OPT_T2 = 59,
	OPT_VENDOR = 60,
	OPT_BOOT_SERVER = 66,
	OPT_BOOT_FILE = 67,
	OPT_USER = 77,
	OPT_END = 255,
};

#define UDP_AT 34 /* in our own frames */
#define MSG_AT 42
#define OPTIONS_AT 240
#define DEFAULT_LEASE 86400u
#define DECLINE_S 600

/* A request, taken apart. */
struct request {
	const uint8_t *m; /* message */
	const uint8_t *mac;
	int type;
	uint32_t wanted, server, source;
	uint8_t list[255];
	int list_len;
	char name[64], vendor[64], user[64];
};

static void
put32(uint8_t *p, uint32_t v)
{
	v = htonl(v);
	memcpy(p, &v, 4);
}

static void
put16(uint8_t *p, unsigned v)
{
	p[0] = (uint8_t)(v >> 8);
	p[1] = (uint8_t)v;
}

/* ---- scopes ---- */

void
dhcp_option_set(struct dhcp_scope *s, int number, const uint8_t *data, size_t len)
{
	struct dhcp_option *o = &s->options[number & 255];

	free(o->data);
	o->data = xcalloc(1, len + 1);
	memcpy(o->data, data, MIN(len, (size_t)255));
	o->len = (uint8_t)MIN(len, (size_t)255);
}

void
dhcp_scope_free(struct dhcp_scope *s)
{
	for (int i = 0; i < 256; i++)
		free(s->options[i].data);
	memset(s->options, 0, sizeof(s->options));
}

void
dhcp_config_free(struct dhcp_config *c)
{
	dhcp_scope_free(&c->global);
	for (int i = 0; i < c->group_count; i++)
		dhcp_scope_free(&c->groups[i]);
	for (int i = 0; i < c->individual_count; i++)
		dhcp_scope_free(&c->individual[i]);
	free(c->groups);
	free(c->individual);
	c->groups = c->individual = NULL;
	c->group_count = c->individual_count = 0;
}

void
dhcp_open(struct dhcp *d, const struct dhcp_config *c)
{
	*d = (struct dhcp){ .c = *c };
}

void
dhcp_close(struct dhcp *d)
{
	dhcp_config_free(&d->c);
	free(d->leases);
	d->leases = NULL;
	d->lease_count = 0;
}

bool
dhcp_wild(const char *pattern, const char *value)
{
	const char *star = NULL, *back = NULL;

	while (*value) {
		if (*pattern == '*') {
			star = ++pattern;
			back = value;
		} else if (*pattern == '?' || tolower((unsigned char)*pattern) == tolower((unsigned char)*value)) {
			pattern++;
			value++;
		} else if (star) {
			pattern = star;
			value = ++back;
		} else {
			return false;
		}
	}
	while (*pattern == '*')
		pattern++;
	return !*pattern;
}

static bool
condition_holds(const struct dhcp_condition *k, const struct request *q)
{
	char mac[18];
	const char *value = k->type == DHCP_VENDOR || k->type == DHCP_VENDOR_WILD ? q->vendor
			    : k->type == DHCP_USER || k->type == DHCP_USER_WILD	  ? q->user
										  : mac;

	snprintf(mac, sizeof(mac), "%02x:%02x:%02x:%02x:%02x:%02x", q->mac[0], q->mac[1], q->mac[2], q->mac[3],
		q->mac[4], q->mac[5]);
	if (k->type == DHCP_MAC_WILD || k->type == DHCP_VENDOR_WILD || k->type == DHCP_USER_WILD)
		return dhcp_wild(k->value, value);
	return !strcasecmp(k->value, value);
}

/* In when one condition includes it and none excludes it. */
static bool
in_group(const struct dhcp_scope *g, const struct request *q)
{
	bool in = false;

	for (int i = 0; i < g->condition_count; i++) {
		if (!condition_holds(&g->conditions[i], q))
			continue;
		if (!g->conditions[i].include)
			return false;
		in = true;
	}
	return in;
}

static const struct dhcp_scope *
individual_of(const struct dhcp *d, const uint8_t *mac)
{
	for (int i = 0; i < d->c.individual_count; i++)
		if (!memcmp(d->c.individual[i].mac, mac, 6))
			return &d->c.individual[i];
	return NULL;
}

/* The scopes of a client, the most particular first. */
static int
scopes_of(const struct dhcp *d, const struct request *q, const struct dhcp_scope *out[], int max)
{
	const struct dhcp_scope *own = individual_of(d, q->mac);
	int n = 0;

	if (own)
		out[n++] = own;
	for (int i = 0; i < d->c.group_count && n < max - 1; i++)
		if (in_group(&d->c.groups[i], q))
			out[n++] = &d->c.groups[i];
	out[n++] = &d->c.global;
	return n;
}

/* ---- leases ---- */

static bool
in_force(const struct dhcp_lease *l, int64_t now)
{
	return (l->state == DHCP_OFFERED || l->state == DHCP_ACKED) && now < l->issued + (int64_t)l->time;
}

const char *
dhcp_state_text(const struct dhcp_lease *l, int64_t now)
{
	static const char *const texts[] = { "free", "offered", "acked", "released", "expired" };

	return in_force(l, now) || l->state == DHCP_RELEASED ? texts[l->state] : texts[DHCP_EXPIRED];
}

static struct dhcp_lease *
lease_by_mac(const struct dhcp *d, const uint8_t *mac)
{
	for (int i = 0; i < d->lease_count; i++)
		if (!memcmp(d->leases[i].mac, mac, 6))
			return &d->leases[i];
	return NULL;
}

static struct dhcp_lease *
lease_by_ip(const struct dhcp *d, uint32_t ip)
{
	for (int i = 0; i < d->lease_count; i++)
		if (d->leases[i].ip == ip)
			return &d->leases[i];
	return NULL;
}

static void
lease_drop(struct dhcp *d, struct dhcp_lease *l)
{
	*l = d->leases[--d->lease_count];
	d->changed = true;
}

static struct dhcp_lease *
lease_new(struct dhcp *d, const uint8_t *mac, uint32_t ip)
{
	struct dhcp_lease *l;

	if (d->lease_count == DHCP_LEASES_MAX)
		return NULL;
	l = realloc(d->leases, ((size_t)d->lease_count + 1) * sizeof(*l));
	if (!l)
		return NULL;
	d->leases = l;
	l += d->lease_count++;
	*l = (struct dhcp_lease){ .ip = ip };
	memcpy(l->mac, mac, 6);
	return l;
}

const struct dhcp_lease *
dhcp_find(const struct dhcp *d, const uint8_t mac[6], int64_t now)
{
	const struct dhcp_lease *l = lease_by_mac(d, mac);

	return l && l->state == DHCP_ACKED && in_force(l, now) ? l : NULL;
}

/* Is it somebody's by configuration, or the network's own? */
static bool
reserved(const struct dhcp *d, uint32_t ip, const uint8_t *mac)
{
	uint32_t host = ip & ~d->c.netmask;

	if (ip == d->c.address || ip == d->c.router || ip == d->c.dns || !host || host == ~d->c.netmask)
		return true;
	for (int i = 0; i < d->c.individual_count; i++)
		if (d->c.individual[i].fixed == ip && memcmp(d->c.individual[i].mac, mac, 6))
			return true;
	return false;
}

static bool
may_have(const struct dhcp *d, uint32_t ip, const uint8_t *mac)
{
	const struct dhcp_scope *own = individual_of(d, mac);

	if (own && own->fixed)
		return ip == own->fixed;
	return ip >= d->c.lower && ip <= d->c.upper && !reserved(d, ip, mac);
}

void
dhcp_restore(struct dhcp *d, const struct dhcp_lease *l)
{
	struct dhcp_lease *n;

	if (!may_have(d, l->ip, l->mac) || lease_by_mac(d, l->mac) || lease_by_ip(d, l->ip))
		return;
	n = lease_new(d, l->mac, l->ip);
	if (n)
		*n = *l;
}

void
dhcp_reconfigure(struct dhcp *d, const struct dhcp_config *c)
{
	dhcp_config_free(&d->c);
	d->c = *c;
	for (int i = 0; i < d->lease_count;) {
		if (may_have(d, d->leases[i].ip, d->leases[i].mac))
			i++;
		else
			lease_drop(d, &d->leases[i]);
	}
}

/* Take the address for `mac` if nobody has it; a lease that is over gives way. */
static struct dhcp_lease *
try_ip(struct dhcp *d, uint32_t ip, const uint8_t *mac, int64_t now)
{
	struct dhcp_lease *l;

	if (!may_have(d, ip, mac))
		return NULL;
	l = lease_by_ip(d, ip);
	if (l && in_force(l, now))
		return NULL;
	if (l)
		lease_drop(d, l);
	return lease_new(d, mac, ip);
}

/* The free address, or the one whose lease has been over for longest. */
static struct dhcp_lease *
pick(struct dhcp *d, const uint8_t *mac, int64_t now)
{
	struct dhcp_lease *oldest = NULL, *l;
	uint32_t ip = d->c.lower;

	/* Every address is looked at once; a range is never longer than the table of leases is, plus those reserved. */
	for (uint32_t i = 0; ip <= d->c.upper && i < 2 * DHCP_LEASES_MAX; ip++, i++) {
		if (!may_have(d, ip, mac) || lease_by_ip(d, ip))
			continue;
		l = lease_new(d, mac, ip);
		if (l)
			return l;
		break;
	}
	for (int i = 0; i < d->lease_count; i++) {
		l = &d->leases[i];
		if (in_force(l, now) || !may_have(d, l->ip, mac))
			continue;
		if (!oldest || l->issued + l->time < oldest->issued + oldest->time)
			oldest = l;
	}
	if (!oldest) {
		d->count_full++;
		return NULL;
	}
	ip = oldest->ip;
	lease_drop(d, oldest);
	return lease_new(d, mac, ip);
}

static struct dhcp_lease *
lease_for(struct dhcp *d, const struct request *q, int64_t now)
{
	const struct dhcp_scope *own = individual_of(d, q->mac);
	struct dhcp_lease *l = lease_by_mac(d, q->mac);

	if (l && may_have(d, l->ip, q->mac))
		return l;
	if (l)
		lease_drop(d, l);
	if (own && own->fixed) {
		l = lease_by_ip(d, own->fixed);
		if (l)
			lease_drop(d, l); /* who had it before it was given away finds out when it renews */
		return lease_new(d, q->mac, own->fixed);
	}
	l = q->wanted ? try_ip(d, q->wanted, q->mac, now) : NULL;
	return l ? l : pick(d, q->mac, now);
}

static uint32_t
lease_time(const struct dhcp_scope *const scopes[], int n, const uint8_t *asked)
{
	uint32_t least = 0, usual = 0, most = 0, v;

	for (int i = 0; i < n; i++) {
		least = least ? least : scopes[i]->min_lease;
		usual = usual ? usual : scopes[i]->default_lease;
		most = most ? most : scopes[i]->max_lease;
	}
	usual = usual ? usual : DEFAULT_LEASE;
	v = asked ? be32(asked) : usual;
	if (most && v > most)
		v = most;
	if (!most && v > 10 * usual)
		v = 10 * usual;
	return MAX(v, least ? least : 60);
}

/* ---- reading ---- */

/* What a client says of itself goes into files and names of hosts. */
static void
clean_name(char *out, size_t size, const uint8_t *p, size_t len, bool host)
{
	size_t n = 0;

	for (size_t i = 0; i < len && n + 1 < size; i++) {
		if (host && p[i] == '.')
			break;
		if (host ? isalnum(p[i]) || (p[i] == '-' && n) : p[i] >= 0x20 && p[i] < 0x7f)
			out[n++] = (char)p[i];
		else if (host)
			n = 0, len = 0; /* not a name */
	}
	out[n] = 0;
}

static void
read_option(struct request *q, unsigned code, const uint8_t *p, size_t len)
{
	switch (code) {
	case OPT_TYPE:
		if (len == 1)
			q->type = p[0];
		break;
	case OPT_WANTED:
		if (len == 4)
			q->wanted = be32(p);
		break;
	case OPT_SERVER:
		if (len == 4)
			q->server = be32(p);
		break;
	case OPT_LIST:
		memcpy(q->list, p, len);
		q->list_len = (int)len;
		break;
	case OPT_NAME:
		clean_name(q->name, sizeof(q->name), p, len, true);
		break;
	case OPT_VENDOR:
		clean_name(q->vendor, sizeof(q->vendor), p, len, false);
		break;
	case OPT_USER:
		clean_name(q->user, sizeof(q->user), p, len, false);
		break;
	}
}

static const uint8_t *
find_option(const uint8_t *p, const uint8_t *end, unsigned code, size_t want)
{
	while (p < end && *p != OPT_END) {
		if (!*p) {
			p++;
			continue;
		}
		if (end - p < 2 || end - p - 2 < p[1])
			return NULL;
		if (*p == code && p[1] == want)
			return p + 2;
		p += 2 + p[1];
	}
	return NULL;
}

static bool
read_options(struct request *q, const uint8_t *p, const uint8_t *end)
{
	while (p < end && *p != OPT_END) {
		if (!*p) {
			p++;
			continue;
		}
		if (end - p < 2 || end - p - 2 < p[1])
			return false;
		read_option(q, *p, p + 2, p[1]);
		p += 2 + p[1];
	}
	return q->type != 0;
}

/* The message in an Ethernet frame, its end in *end; NULL: it is not one for a server. */
static const uint8_t *
find_message(const uint8_t *frame, size_t len, const uint8_t **end, uint32_t *source)
{
	const uint8_t *ip = frame + 14, *udp;
	size_t ihl, total, udp_len;

	if (len < 14 + 20 || be16(frame + 12) != 0x0800 || ip[0] >> 4 != 4)
		return NULL;
	ihl = (ip[0] & 15) * 4u;
	total = be16(ip + 2);
	if (ihl < 20 || total > len - 14 || total < ihl + 8 || ip[9] != 17 || (be16(ip + 6) & 0x3fff))
		return NULL;
	udp = ip + ihl;
	udp_len = be16(udp + 4);
	if (be16(udp + 2) != 67 || udp_len < 8 + OPTIONS_AT || udp_len > total - ihl)
		return NULL;
	if (net_checksum_verify(frame, len) & (NET_CSUM_IP_BAD | NET_CSUM_L4_BAD))
		return NULL;
	*end = udp + udp_len;
	*source = be32(ip + 12);
	return udp + 8;
}

static bool
read_request(struct request *q, const uint8_t *frame, size_t len, const uint8_t **end)
{
	const uint8_t *m;

	memset(q, 0, sizeof(*q));
	m = find_message(frame, len, end, &q->source);
	if (!m || m[0] != 1 || m[1] != 1 || m[2] != 6 || be32(m + 24) || memcmp(m + 236, "\x63\x82\x53\x63", 4))
		return false;
	q->m = m;
	q->mac = m + 28;
	/* The switch has checked the source; nobody asks for another. */
	if (memcmp(frame + 6, q->mac, 6) || (q->mac[0] & 1))
		return false;
	return read_options(q, m + OPTIONS_AT, *end);
}

/* ---- writing ---- */

struct answer {
	uint8_t *m, *at, *end;
};

static void
add(struct answer *a, int code, const void *data, size_t len)
{
	if ((size_t)(a->end - a->at) < len + 3 || len > 255)
		return;
	*a->at++ = (uint8_t)code;
	*a->at++ = (uint8_t)len;
	memcpy(a->at, data, len);
	a->at += len;
}

static void
add32(struct answer *a, int code, uint32_t v)
{
	uint8_t b[4];

	put32(b, v);
	add(a, code, b, 4);
}

static bool
bit(const uint8_t *set, int n)
{
	return set[n >> 3] >> (n & 7) & 1;
}

/* What the network itself says; 0 bytes: nothing. */
static size_t
builtin(const struct dhcp *d, int code, uint8_t out[256])
{
	uint32_t v = 0;
	char text[16];

	switch (code) {
	case OPT_NETMASK:
		v = d->c.netmask;
		break;
	case OPT_ROUTER:
		v = d->c.router;
		break;
	case OPT_DNS:
		v = d->c.dns;
		break;
	case OPT_DOMAIN:
		memcpy(out, d->c.domain, strlen(d->c.domain));
		return strlen(d->c.domain);
	case OPT_BOOT_FILE:
		memcpy(out, d->c.boot_file, strlen(d->c.boot_file));
		return strlen(d->c.boot_file);
	case OPT_BOOT_SERVER:
		if (!d->c.boot_server)
			return 0;
		snprintf(text, sizeof(text), "%u.%u.%u.%u", d->c.boot_server >> 24, d->c.boot_server >> 16 & 255,
			d->c.boot_server >> 8 & 255, d->c.boot_server & 255);
		memcpy(out, text, strlen(text));
		return strlen(text);
	}
	if (!v)
		return 0;
	put32(out, v);
	return 4;
}

/* Values of `code` for this client, from the most particular scope that has it. */
static void
add_known(const struct dhcp *d, struct answer *a, const struct dhcp_scope *const scopes[], int n, int code)
{
	uint8_t out[256];
	size_t len;

	for (int i = 0; i < n; i++) {
		if (bit(scopes[i]->suppressed, code))
			return;
		if (scopes[i]->options[code].data) {
			add(a, code, scopes[i]->options[code].data, scopes[i]->options[code].len);
			return;
		}
	}
	len = builtin(d, code, out);
	if (len)
		add(a, code, out, len);
}

static bool
is_ours(int code) /* what the protocol itself says */
{
	return !code || code == OPT_END || (code >= OPT_WANTED && code <= OPT_T2);
}

static void
add_wanted(
	const struct dhcp *d, struct answer *a, const struct dhcp_scope *const scopes[], int n, const struct request *q)
{
	uint8_t done[32] = { 0 };

	for (int i = 0; i < q->list_len; i++) {
		int code = q->list[i];

		if (is_ours(code) || bit(done, code))
			continue;
		done[code >> 3] |= (uint8_t)(1 << (code & 7));
		add_known(d, a, scopes, n, code);
	}
	for (int code = 1; code < 255; code++) {
		bool forced = !q->list_len && (code == OPT_NETMASK || code == OPT_ROUTER || code == OPT_DNS);

		for (int i = 0; i < n; i++)
			forced |= bit(scopes[i]->forced, code);
		if (forced && !is_ours(code) && !bit(done, code))
			add_known(d, a, scopes, n, code);
	}
}

static void
begin(const struct dhcp *d, struct answer *a, const struct request *q, uint8_t *out, int type)
{
	uint8_t t = (uint8_t)type;

	memset(out, 0, DHCP_REPLY_MAX);
	a->m = out + MSG_AT;
	a->end = out + MSG_AT + 576 - 28; /* what everyone takes, RFC 2131 section 2 */
	a->m[0] = 2;
	a->m[1] = 1;
	a->m[2] = 6;
	memcpy(a->m + 4, q->m + 4, 4);
	memcpy(a->m + 10, q->m + 10, 2);
	memcpy(a->m + 28, q->m + 28, 16);
	memcpy(a->m + 236, "\x63\x82\x53\x63", 4);
	a->at = a->m + OPTIONS_AT;
	add(a, OPT_TYPE, &t, 1);
	add32(a, OPT_SERVER, d->c.address);
}

static void
add_boot(const struct dhcp *d, struct answer *a, const struct dhcp_scope *const scopes[], int n)
{
	const struct dhcp_option *file = NULL;

	for (int i = 0; i < n && !file; i++)
		if (scopes[i]->options[OPT_BOOT_FILE].data)
			file = &scopes[i]->options[OPT_BOOT_FILE];
	if (file)
		memcpy(a->m + 108, file->data, MIN(file->len, 127));
	else
		memcpy(a->m + 108, d->c.boot_file, strlen(d->c.boot_file));
	put32(a->m + 20, d->c.boot_server);
}

/* Addresses, lengths and checksums (RFC 2131 section 4.1 says where an answer goes). */
static size_t
finish(const struct dhcp *d, struct answer *a, const struct request *q, uint8_t *out, int type)
{
	uint8_t *ip = out + 14, *udp = out + UDP_AT;
	bool broadcast = type == NAK || (!be32(q->m + 12) && (q->m[10] & 0x80));
	uint32_t to = be32(q->m + 12) ? be32(q->m + 12) : be32(a->m + 16);
	size_t len;
	uint16_t sum;
	uint64_t s;

	*a->at++ = OPT_END;
	if (a->at < a->m + 300)
		a->at = a->m + 300;
	len = (size_t)(a->at - udp);
	memcpy(out, broadcast ? (const uint8_t *)"\xff\xff\xff\xff\xff\xff" : q->mac, 6);
	memcpy(out + 6, d->c.mac, 6);
	put16(out + 12, 0x0800);
	ip[0] = 0x45;
	put16(ip + 2, (unsigned)len + 20);
	ip[8] = 64;
	ip[9] = 17;
	put32(ip + 12, d->c.address);
	put32(ip + 16, broadcast || !to ? 0xffffffff : to);
	sum = net_sum_fold(net_sum(0, ip, 20));
	memcpy(ip + 10, &sum, 2);
	put16(udp, 67);
	put16(udp + 2, 68);
	put16(udp + 4, (unsigned)len);
	s = net_sum(0, ip + 12, 8) + htons(17) + htons((uint16_t)len);
	sum = net_sum_fold(net_sum(s, udp, len));
	if (!sum)
		sum = 0xffff;
	memcpy(udp + 6, &sum, 2);
	return MSG_AT - 8 + len;
}

static size_t
nak(struct dhcp *d, const struct request *q, uint8_t *out)
{
	struct answer a;

	d->count_naks++;
	begin(d, &a, q, out, NAK);
	return finish(d, &a, q, out, NAK);
}

static size_t
grant(struct dhcp *d, const struct request *q, struct dhcp_lease *l, const uint8_t *end, int64_t now, int type,
	uint8_t *out)
{
	const struct dhcp_scope *scopes[DHCP_SCOPES_MAX];
	const uint8_t *asked = find_option(q->m + OPTIONS_AT, end, OPT_LEASE, 4);
	int n = scopes_of(d, q, scopes, DHCP_SCOPES_MAX);
	uint32_t time = lease_time(scopes, n, asked);
	bool standing = l->state == DHCP_ACKED && in_force(l, now);
	struct answer a;

	/* An offer leaves a lease that stands as it is. */
	if (type == ACK || !standing) {
		l->state = type == ACK ? DHCP_ACKED : DHCP_OFFERED;
		l->issued = now;
		l->time = type == ACK ? time : DHCP_OFFER_S;
		d->changed |= type == ACK;
	}
	if (*q->name)
		snprintf(l->name, sizeof(l->name), "%s", q->name);
	begin(d, &a, q, out, type);
	put32(a.m + 16, l->ip);
	add32(&a, OPT_LEASE, time);
	add32(&a, OPT_T1, time / 2);
	add32(&a, OPT_T2, (uint32_t)((uint64_t)time * 7 / 8));
	add_boot(d, &a, scopes, n);
	add_wanted(d, &a, scopes, n, q);
	if (type == ACK)
		d->count_acks++;
	else
		d->count_offers++;
	return finish(d, &a, q, out, type);
}

static size_t
discover(struct dhcp *d, const struct request *q, const uint8_t *end, int64_t now, uint8_t *out)
{
	struct dhcp_lease *l = lease_for(d, q, now);

	return l ? grant(d, q, l, end, now, OFFER, out) : 0;
}

/*
 * RFC 2131 section 4.3.2. SELECTING names us; INIT-REBOOT names an address only; RENEWING and REBINDING have it in
 * ciaddr. Of an address that is not of this network, or another's, the client is told so.
 */
static size_t
request(struct dhcp *d, const struct request *q, const uint8_t *end, int64_t now, uint8_t *out)
{
	uint32_t ip = q->wanted ? q->wanted : be32(q->m + 12);
	struct dhcp_lease *l = lease_by_mac(d, q->mac);

	if (q->server && q->server != d->c.address) {
		if (l && l->state == DHCP_OFFERED)
			lease_drop(d, l); /* it took another's offer */
		return 0;
	}
	if (!ip)
		return 0;
	if (!l && may_have(d, ip, q->mac))
		l = try_ip(d, ip, q->mac, now); /* its lease was given before we knew of it */
	if (!l || l->ip != ip || !may_have(d, ip, q->mac))
		return nak(d, q, out);
	return grant(d, q, l, end, now, ACK, out);
}

/* Somebody else has the address: nobody gets it for a while. */
static void
decline(struct dhcp *d, const struct request *q, int64_t now)
{
	struct dhcp_lease *l = lease_by_mac(d, q->mac);

	if (!l || l->ip != q->wanted || individual_of(d, q->mac))
		return;
	memset(l->mac, 0, 6);
	l->mac[0] = 0x01; /* a group's address: no client has it */
	put32(l->mac + 2, l->ip);
	l->state = DHCP_ACKED;
	l->issued = now;
	l->time = DECLINE_S;
	l->name[0] = 0;
	d->changed = true;
}

static void
release(struct dhcp *d, const struct request *q)
{
	struct dhcp_lease *l = lease_by_mac(d, q->mac);

	if (!l || l->ip != be32(q->m + 12))
		return;
	l->state = DHCP_RELEASED;
	d->changed = true;
}

/* It has an address of its own and wants to know the rest. */
static size_t
inform(struct dhcp *d, const struct request *q, uint8_t *out)
{
	const struct dhcp_scope *scopes[DHCP_SCOPES_MAX];
	int n = scopes_of(d, q, scopes, DHCP_SCOPES_MAX);
	struct answer a;

	if (!be32(q->m + 12))
		return 0;
	begin(d, &a, q, out, ACK);
	add_wanted(d, &a, scopes, n, q);
	return finish(d, &a, q, out, ACK);
}

size_t
dhcp_input(struct dhcp *d, const uint8_t *frame, size_t len, int64_t now, uint8_t *out)
{
	struct request q;
	const uint8_t *end;

	if (!read_request(&q, frame, len, &end))
		return 0;
	switch (q.type) {
	case DISCOVER:
		return discover(d, &q, end, now, out);
	case REQUEST:
		return request(d, &q, end, now, out);
	case DECLINE:
		decline(d, &q, now);
		return 0;
	case RELEASE:
		release(d, &q);
		return 0;
	case INFORM:
		return inform(d, &q, out);
	default:
		return 0;
	}
}

uint32_t
dhcp_take(struct dhcp *d, const uint8_t mac[6], int64_t now, uint32_t *seconds)
{
	const struct dhcp_scope *scopes[DHCP_SCOPES_MAX];
	struct request q = { .mac = mac };
	struct dhcp_lease *l = lease_for(d, &q, now);

	if (!l)
		return 0;
	l->state = DHCP_ACKED;
	l->issued = now;
	l->time = *seconds = lease_time(scopes, scopes_of(d, &q, scopes, DHCP_SCOPES_MAX), NULL);
	d->changed = true;
	return l->ip;
}
