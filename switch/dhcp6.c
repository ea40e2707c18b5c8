/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DHCPv6; dhcp6.h says how addresses are chosen. Of RFC 8415: section 16 which messages are taken, 18.3 what is
 * answered, 21 the options.
 *
 *	message: 0 type, 1 transaction[3], 4 options; option: 0 u16 code, 2 u16 length, 4 data
 *	IA_NA:	 0 u32 IAID, 4 u32 T1, 8 u32 T2, 12 options; IA address: 0 address[16], 16 preferred, 20 valid, 24 options
 */
#include "switch/dhcp6.h"

#include <stdbool.h>
#include <string.h>

#include "base/bytes.h"

enum { SOLICIT = 1, ADVERTISE, REQUEST, CONFIRM, RENEW, REBIND, REPLY, RELEASE, DECLINE, INFORMATION = 11 };
enum {
	OPT_CLIENT = 1,
	OPT_SERVER = 2,
	OPT_IA_NA = 3,
	OPT_ADDRESS = 5,
	OPT_STATUS = 13,
	OPT_RAPID = 14,
	OPT_DNS = 23, /* RFC 3646 */
	OPT_DOMAINS = 24,
};
enum { SUCCESS, NO_ADDRESS = 2, NOT_ON_LINK = 4 };

#define DUID_MAX 130
#define IAS_MAX 4
#define ADDRESSES_MAX 4
#define OWN_DUID 10

struct ia {
	uint8_t id[4];
	const uint8_t *address[ADDRESSES_MAX]; /* that the client names */
	int count;
};

struct request {
	uint8_t type;
	const uint8_t *client, *server; /* DUIDs, NULL: none */
	size_t client_len, server_len;
	struct ia ia[IAS_MAX];
	int ia_count;
	bool rapid;
};

struct answer {
	uint8_t *p;
	size_t len;
};

/* ---- what is asked ---- */

/* The next option; false: there is none, or it is cut off. */
static bool
next_option(const uint8_t **p, size_t *left, unsigned *code, const uint8_t **data, size_t *len)
{
	if (*left < 4)
		return false;
	*code = be16(*p);
	*len = be16(*p + 2);
	if (*len > *left - 4)
		return false;
	*data = *p + 4;
	*p += 4 + *len;
	*left -= 4 + *len;
	return true;
}

static void
read_ia(struct request *r, const uint8_t *p, size_t left)
{
	struct ia *ia = &r->ia[r->ia_count];
	const uint8_t *data;
	unsigned code;
	size_t len;

	if (left < 12 || r->ia_count == IAS_MAX)
		return;
	r->ia_count++;
	memcpy(ia->id, p, 4);
	p += 12;
	left -= 12;
	while (next_option(&p, &left, &code, &data, &len))
		if (code == OPT_ADDRESS && len >= 24 && ia->count < ADDRESSES_MAX)
			ia->address[ia->count++] = data;
}

static void
read_request(struct request *r, const uint8_t *p, size_t left)
{
	const uint8_t *data;
	unsigned code;
	size_t len;

	r->type = p[0];
	p += 4;
	left -= 4;
	while (next_option(&p, &left, &code, &data, &len)) {
		if (code == OPT_CLIENT && len && len <= DUID_MAX) {
			r->client = data;
			r->client_len = len;
		} else if (code == OPT_SERVER) {
			r->server = data;
			r->server_len = len;
		} else if (code == OPT_IA_NA) {
			read_ia(r, data, len);
		} else if (code == OPT_RAPID) {
			r->rapid = true;
		}
	}
}

/* RFC 8415, 11.4: a DUID of the link-layer address */
static void
own_duid(const struct dhcp6_config *c, uint8_t out[OWN_DUID])
{
	memcpy(out, (uint8_t[]){ 0, 3, 0, 1 }, 4);
	memcpy(out + 4, c->mac, 6);
}

/* Section 16: who has to be named, and who must not be. */
static bool
valid(const struct dhcp6_config *c, const struct request *r)
{
	uint8_t own[OWN_DUID];
	bool ours;

	own_duid(c, own);
	ours = r->server && r->server_len == sizeof(own) && !memcmp(r->server, own, sizeof(own));
	switch (r->type) {
	case SOLICIT:
	case CONFIRM:
	case REBIND:
		return r->client && !r->server;
	case REQUEST:
	case RENEW:
	case RELEASE:
	case DECLINE:
		return r->client && ours;
	case INFORMATION:
		return (!r->server || ours) && !r->ia_count;
	default:
		return false;
	}
}

/* ---- what is answered ---- */

static uint8_t *
put_option(struct answer *a, unsigned code, size_t len)
{
	uint8_t *p = a->p + a->len;

	put_be16(p, code);
	put_be16(p + 2, (unsigned)len);
	memset(p + 4, 0, len);
	a->len += 4 + len;
	return p + 4;
}

static void
put_address(struct answer *a, const uint8_t *address, uint32_t lifetime)
{
	uint8_t *p = put_option(a, OPT_ADDRESS, 24);

	memcpy(p, address, 16);
	put_be32(p + 16, lifetime);
	put_be32(p + 20, lifetime);
}

/* One IA: the client's address in the first, none in others; what else the client has is over (18.3.4). */
static void
put_ia(struct answer *a, const struct dhcp6_config *c, const uint8_t mac[6], const struct ia *ia, bool first)
{
	uint8_t own[16], *p = put_option(a, OPT_IA_NA, 12);
	size_t begin = a->len - 12;

	dhcp6_address(c, mac, own);
	memcpy(p, ia->id, 4);
	if (first) {
		put_be32(p + 4, c->lease / 2);
		put_be32(p + 8, c->lease / 5 * 4);
		put_address(a, own, c->lease);
	} else {
		put_be16(put_option(a, OPT_STATUS, 2), NO_ADDRESS);
	}
	for (int i = 0; i < ia->count; i++)
		if (memcmp(ia->address[i], own, 16) != 0)
			put_address(a, ia->address[i], 0);
	put_be16(p - 2, (unsigned)(a->len - begin));
}

/* RFC 8415, section 10: labels with their lengths */
static void
put_domain(struct answer *a, const char *domain)
{
	size_t n = strlen(domain);
	uint8_t *p;

	if (!n || n > 60 || *domain == '.' || strstr(domain, ".."))
		return;
	p = put_option(a, OPT_DOMAINS, n + 2);
	for (const char *s = domain; *s; s += *s == '.') {
		size_t label = strcspn(s, ".");

		*p++ = (uint8_t)label;
		memcpy(p, s, label);
		p += label;
		s += label;
	}
}

/* Are all addresses of the client's on this link? -1: it named none. */
static int
on_link(const struct dhcp6_config *c, const struct request *r)
{
	int found = -1;

	for (int i = 0; i < r->ia_count; i++)
		for (int k = 0; k < r->ia[i].count && found != 0; k++)
			found = !memcmp(r->ia[i].address[k], c->prefix, 8);
	return found;
}

void
dhcp6_address(const struct dhcp6_config *c, const uint8_t mac[6], uint8_t out[16])
{
	memcpy(out, c->prefix, 8);
	out[8] = 0;
	out[9] = 0xd6;
	memcpy(out + 10, mac, 6);
}

size_t
dhcp6_input(const struct dhcp6_config *c, const uint8_t mac[6], const uint8_t *message, size_t len, uint8_t *out)
{
	struct request r = { 0 };
	struct answer a = { out, 4 };
	int confirmed;

	if (len < 4)
		return 0;
	read_request(&r, message, len);
	if (!valid(c, &r))
		return 0;
	confirmed = r.type == CONFIRM ? on_link(c, &r) : 1;
	if (confirmed < 0)
		return 0;
	memcpy(out, message, 4);
	out[0] = r.type == SOLICIT && !r.rapid ? ADVERTISE : REPLY;
	own_duid(c, put_option(&a, OPT_SERVER, OWN_DUID));
	if (r.client)
		memcpy(put_option(&a, OPT_CLIENT, r.client_len), r.client, r.client_len);
	if (r.type == SOLICIT && r.rapid)
		put_option(&a, OPT_RAPID, 0);
	if (r.type == CONFIRM || r.type == RELEASE || r.type == DECLINE) {
		put_be16(put_option(&a, OPT_STATUS, 2), confirmed ? SUCCESS : NOT_ON_LINK);
		return a.len;
	}
	for (int i = 0; i < r.ia_count; i++)
		put_ia(&a, c, mac, &r.ia[i], i == 0);
	if (c->dns)
		memcpy(put_option(&a, OPT_DNS, 16), c->dns, 16);
	put_domain(&a, c->domain);
	return a.len;
}
