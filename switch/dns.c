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

enum { TYPE_A = 1, TYPE_PTR = 12, TYPE_ANY = 255, CLASS_IN = 1 };
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

static size_t
answer_reverse(const struct dns_names *n, const uint8_t *query, size_t end, uint32_t ip, uint8_t *out)
{
	char name[64], full[160];
	uint8_t data[200];
	uint8_t *p;

	if (!n->name(n->opaque, ip, name, sizeof(name)))
		return (size_t)(start(query, end, RCODE_NXDOMAIN, 0, out) - out);
	snprintf(full, sizeof(full), "%s%s%s", name, *n->domain ? "." : "", n->domain);
	p = start(query, end, RCODE_OK, 1, out);
	return (size_t)(record(p, TYPE_PTR, data, put_name(data, full)) - out);
}

static size_t
answer_address(const uint8_t *query, size_t end, unsigned type, uint32_t ip, uint8_t *out)
{
	uint8_t data[4] = { (uint8_t)(ip >> 24), (uint8_t)(ip >> 16), (uint8_t)(ip >> 8), (uint8_t)ip };
	bool wanted = type == TYPE_A || type == TYPE_ANY;
	uint8_t *p = start(query, end, RCODE_OK, wanted, out);

	return (size_t)((wanted ? record(p, TYPE_A, data, 4) : p) - out);
}

enum dns_verdict
dns_query(const struct dns_names *n, const uint8_t *query, size_t len, bool only_ours, uint8_t *out, size_t *out_len)
{
	char name[DNS_NAME_MAX], label[64];
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
	if (be16(query + end + 2) == CLASS_IN && reverse_ip(name, &ip) && n->netmask &&
		(ip & n->netmask) == n->network) {
		*out_len = answer_reverse(n, query, end + 4, ip, out);
		return DNS_ANSWERED;
	}
	if (be16(query + end + 2) == CLASS_IN && our_label(n, name, label)) {
		ip = n->find(n->opaque, label);
		/* A name under our domain is ours alone; a lone label may be somebody else's. */
		if (ip || only_ours || strchr(name, '.')) {
			*out_len = ip ? answer_address(query, end + 4, type, ip, out)
				      : (size_t)(start(query, end + 4, RCODE_NXDOMAIN, 0, out) - out);
			return DNS_ANSWERED;
		}
	}
	if (!only_ours)
		return DNS_FORWARD;
	*out_len = (size_t)(start(query, end + 4, RCODE_REFUSED, 0, out) - out);
	return DNS_ANSWERED;
}
