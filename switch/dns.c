/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Message, RFC 1035 section 4.1.1: 0 id, 2 flags, 4 questions, 6 answers, 8 authorities, 10 additional; then a question
 * (name, type, class). Names are read without compression: a question has nothing before it to point to.
 */
#include "switch/dns.h"
#include "base/bytes.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

#include "base/str.h"

enum { TYPE_A = 1, TYPE_PTR = 12, TYPE_AAAA = 28, TYPE_ANY = 255, CLASS_IN = 1 };
enum { RCODE_OK = 0, RCODE_NXDOMAIN = 3, RCODE_REFUSED = 5 };
#define TTL 30

/* The name at 12 as lower-case text without a last dot; where the question ends, 0: malformed. */
static size_t
read_name(const uint8_t *q, size_t len, char text[DNS_NAME_MAX])
{
	size_t at = 12, n = 0;

	while (at < len && q[at]) {
		unsigned label = q[at++];

		if (label > 63 || label > len - at || n + label + 2 > DNS_NAME_MAX)
			return 0;
		if (n)
			text[n++] = '.';
		for (unsigned i = 0; i < label; i++) {
			uint8_t c = q[at + i];

			if (c <= ' ' || c == '.' || c >= 0x7f)
				return 0;
			text[n++] = (char)tolower(c);
		}
		at += label;
	}
	text[n] = 0;
	return at < len && len - at - 1 >= 4 ? at + 1 : 0;
}

/* "d.c.b.a.in-addr.arpa" */
static bool
reverse_ip(const char *name, uint32_t *ip)
{
	unsigned a, b, c, d;
	int end = 0;

	if (sscanf(name, "%3u.%3u.%3u.%3u.in-addr.arpa%n", &d, &c, &b, &a, &end) != 4 || !end || name[end] || a > 255 ||
		b > 255 || c > 255 || d > 255)
		return false;
	*ip = a << 24 | b << 16 | c << 8 | d;
	return true;
}

/* 32 hexadecimal digits, the last first, and "ip6.arpa" (RFC 3596, section 2.5) */
static bool
reverse_ip6(const char *name, uint8_t ip[16])
{
	if (strlen(name) != 64 + 8 || strcmp(name + 64, "ip6.arpa") != 0)
		return false;
	for (int i = 0; i < 32; i++) {
		const char *digits = "0123456789abcdef", *d = strchr(digits, name[2 * i]);

		if (!d || name[2 * i + 1] != '.')
			return false;
		ip[15 - i / 2] = (uint8_t)(i & 1 ? ip[15 - i / 2] | (d - digits) << 4 : d - digits);
	}
	return true;
}

/* The machine's label when the name is one of this network's: a lone label, or one under the domain. */
static bool
our_label(const struct dns_names *n, const char *name, char label[64])
{
	size_t len = strcspn(name, ".");

	if (!len || len > 63)
		return false;
	if (name[len] && (!*n->domain || strcasecmp(name + len + 1, n->domain)))
		return false;
	memcpy(label, name, len);
	label[len] = 0;
	return true;
}

static size_t
put_name(uint8_t *out, const char *text)
{
	size_t at = 0;

	while (*text) {
		size_t n = MIN(strcspn(text, "."), (size_t)63);

		out[at++] = (uint8_t)n;
		memcpy(out + at, text, n);
		at += n;
		text += n + (text[n] == '.');
	}
	out[at++] = 0;
	return at;
}

/* Header and question back, with this result; the answer's data, if any, is added by the caller. */
static uint8_t *
start(const uint8_t *query, size_t question_end, int rcode, int answers, uint8_t *out)
{
	memcpy(out, query, question_end);
	out[2] = (uint8_t)(0x84 | (query[2] & 0x79)); /* answer, authoritative; opcode and RD as asked */
	out[3] = (uint8_t)(0x80 | rcode);
	memset(out + 6, 0, 6);
	out[7] = (uint8_t)answers;
	return out + question_end;
}

static uint8_t *
record(uint8_t *p, int type, const void *data, size_t len)
{
	uint8_t head[] = { 0xc0, 12, 0, (uint8_t)type, 0, CLASS_IN, 0, 0, 0, TTL, (uint8_t)(len >> 8), (uint8_t)len };

	memcpy(p, head, sizeof(head));
	memcpy(p + sizeof(head), data, len);
	return p + sizeof(head) + len;
}

/* `name` "": nobody has the address. */
static size_t
answer_reverse(const struct dns_names *n, const uint8_t *query, size_t end, const char *name, uint8_t *out)
{
	char full[160];
	uint8_t data[200];
	uint8_t *p;

	if (!*name)
		return (size_t)(start(query, end, RCODE_NXDOMAIN, 0, out) - out);
	snprintf(full, sizeof(full), "%s%s%s", name, *n->domain ? "." : "", n->domain);
	p = start(query, end, RCODE_OK, 1, out);
	return (size_t)(record(p, TYPE_PTR, data, put_name(data, full)) - out);
}

/* Of a machine: its addresses of the kind that is asked for, 0 and NULL: none. */
static size_t
answer_address(const uint8_t *query, size_t end, unsigned type, uint32_t ip, const uint8_t *ip6, uint8_t *out)
{
	uint8_t data[4] = { (uint8_t)(ip >> 24), (uint8_t)(ip >> 16), (uint8_t)(ip >> 8), (uint8_t)ip };
	bool four = ip && (type == TYPE_A || type == TYPE_ANY), six = ip6 && (type == TYPE_AAAA || type == TYPE_ANY);
	uint8_t *p = start(query, end, RCODE_OK, four + six, out);

	if (four)
		p = record(p, TYPE_A, data, 4);
	if (six)
		p = record(p, TYPE_AAAA, ip6, 16);
	return (size_t)(p - out);
}

/* Is this about an address of the network? Then `name` says whose it is, or "". */
static bool
asks_reverse(const struct dns_names *n, const char *question, char name[64])
{
	uint8_t ip6[16];
	uint32_t ip;

	*name = 0;
	if (reverse_ip(question, &ip) && n->netmask && (ip & n->netmask) == n->network) {
		if (!n->name(n->opaque, ip, name, 64))
			*name = 0;
		return true;
	}
	if (!n->prefix6 || !reverse_ip6(question, ip6) || memcmp(ip6, n->prefix6, 8) != 0)
		return false;
	if (!n->name6(n->opaque, ip6, name, 64))
		*name = 0;
	return true;
}

enum dns_verdict
dns_query(const struct dns_names *n, const uint8_t *query, size_t len, bool only_ours, uint8_t *out, size_t *out_len)
{
	char name[DNS_NAME_MAX], label[64];
	uint8_t ip6[16];
	bool six;
	size_t end;
	unsigned type;
	uint32_t ip;

	/* One question, of an ordinary query, nothing else that would have to be understood (EDNS may follow). */
	if (len < 17 || len > DNS_MAX || (query[2] & 0xf8) || be16(query + 4) != 1 || be16(query + 6))
		return DNS_DROP;
	end = read_name(query, len, name);
	if (!end)
		return DNS_DROP;
	type = be16(query + end);
	if (be16(query + end + 2) == CLASS_IN && asks_reverse(n, name, label)) {
		*out_len = answer_reverse(n, query, end + 4, label, out);
		return DNS_ANSWERED;
	}
	if (be16(query + end + 2) == CLASS_IN && our_label(n, name, label)) {
		ip = n->find(n->opaque, label);
		six = n->prefix6 && n->find6(n->opaque, label, ip6);
		/* A name under our domain is ours alone; a lone label may be somebody else's. */
		if (ip || six || only_ours || strchr(name, '.')) {
			*out_len = ip || six ? answer_address(query, end + 4, type, ip, six ? ip6 : NULL, out)
					     : (size_t)(start(query, end + 4, RCODE_NXDOMAIN, 0, out) - out);
			return DNS_ANSWERED;
		}
	}
	if (!only_ours)
		return DNS_FORWARD;
	*out_len = (size_t)(start(query, end + 4, RCODE_REFUSED, 0, out) - out);
	return DNS_ANSWERED;
}
