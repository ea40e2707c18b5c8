/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A DHCP server (RFC 2131, options RFC 2132) as a function: a request frame in, an answer frame out.
 *
 * Addresses are kept in host byte order. A lease belongs to a MAC address; it is remembered after it has run out, so
 * that who comes back gets the address it had, until the range is used up. Fixed addresses are nobody else's.
 */
#ifndef SWITCH_DHCP_H
#define SWITCH_DHCP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

#define DHCP_LEASES_MAX 8192
#define DHCP_SCOPES_MAX 512
#define DHCP_CONDITIONS_MAX 32
#define DHCP_REPLY_MAX 1514
#define DHCP_OFFER_S 30

struct dhcp_option {
	uint8_t len;
	uint8_t *data; /* NULL: not set */
};

enum dhcp_match { DHCP_MAC, DHCP_MAC_WILD, DHCP_VENDOR, DHCP_VENDOR_WILD, DHCP_USER, DHCP_USER_WILD };
struct dhcp_condition {
	bool include;
	enum dhcp_match type;
	char value[64];
};

/* What some or all clients are told. */
struct dhcp_scope {
	uint32_t min_lease, default_lease, max_lease; /* seconds, 0: not said here */
	struct dhcp_option options[256];
	uint8_t forced[32], suppressed[32];
	/* groups */
	struct dhcp_condition conditions[DHCP_CONDITIONS_MAX];
	int condition_count;
	/* individual */
	uint8_t mac[6];
	uint32_t fixed; /* 0: from the range */
};

struct dhcp_config {
	uint8_t mac[6];	  /* of the server */
	uint32_t address; /* of the server */
	uint32_t netmask, lower, upper;
	uint32_t router, dns, boot_server; /* what is told unless an option says otherwise; 0: nothing */
	char domain[64];
	char boot_file[128];
	struct dhcp_scope global;
	struct dhcp_scope *groups, *individual;
	int group_count, individual_count;
};

enum dhcp_state { DHCP_FREE, DHCP_OFFERED, DHCP_ACKED, DHCP_RELEASED, DHCP_EXPIRED };

struct dhcp_lease {
	enum dhcp_state state;
	uint8_t mac[6];
	uint32_t ip;
	int64_t issued; /* seconds since 1970 */
	uint32_t time;	/* seconds */
	char name[64];	/* as the client calls itself; letters, digits and '-' only, or empty */
};

struct dhcp {
	struct dhcp_config c;
	struct dhcp_lease *leases;
	int lease_count;
	bool changed; /* since whoever keeps them last looked */
	uint64_t count_offers, count_acks, count_naks, count_full;
};

/* Takes over what the scopes of `c` point to. */
void dhcp_open(struct dhcp *d, const struct dhcp_config *c);
void dhcp_close(struct dhcp *d);
void dhcp_config_free(struct dhcp_config *c);
/* Other rules for the leases there are. Takes `c` over. */
void dhcp_reconfigure(struct dhcp *d, const struct dhcp_config *c);

/*
 * `frame`: Ethernet, whole, any frame. Returns the length of the answer in `out` (at least DHCP_REPLY_MAX bytes), a
 * whole frame; 0: there is none.
 */
size_t dhcp_input(struct dhcp *d, const uint8_t *frame, size_t len, int64_t now, uint8_t *out);

/*
 * The address of `mac`, of which the caller says that it takes it, for *seconds from now on, as if it had asked; 0: there
 * is none left.
 */
uint32_t dhcp_take(struct dhcp *d, const uint8_t mac[6], int64_t now, uint32_t *seconds);

/* Put back what was saved; what does not fit the configuration any more is dropped. */
void dhcp_restore(struct dhcp *d, const struct dhcp_lease *l);
/* The lease of `mac` that is in force, or NULL. */
const struct dhcp_lease *dhcp_find(const struct dhcp *d, const uint8_t mac[6], int64_t now);
const char *dhcp_state_text(const struct dhcp_lease *l, int64_t now);

void dhcp_scope_free(struct dhcp_scope *s);
/* Set option `number` to a copy of these bytes. */
void dhcp_option_set(struct dhcp_scope *s, int number, const uint8_t *data, size_t len);

/* Does `value` match the pattern with '*' and '?' (any case)? */
bool dhcp_wild(const char *pattern, const char *value);

#endif
