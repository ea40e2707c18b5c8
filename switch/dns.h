/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DNS of a network, as a function: names of the machines on it are answered here (RFC 1035), what is not ours is left
 * to whoever forwards it.
 */
#ifndef SWITCH_DNS_H
#define SWITCH_DNS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define DNS_MAX 4096
#define DNS_NAME_MAX 256

struct dns_names {
	const char *domain; /* "natnetwork"; may be "" */
	uint32_t network, netmask;
	const uint8_t *prefix6; /* 8 bytes, NULL: none */
	/* The address (host order) of the machine `name` (lower case, one label); 0: there is none. */
	uint32_t (*find)(void *opaque, const char *name);
	/* The same of IPv6; false: there is none. */
	bool (*find6)(void *opaque, const char *name, uint8_t out[16]);
	/* The name of who has the address; false: nobody. */
	bool (*name)(void *opaque, uint32_t ip, char *out, size_t size);
	bool (*name6)(void *opaque, const uint8_t ip[16], char *out, size_t size);
	void *opaque;
};

enum dns_verdict { DNS_DROP, DNS_ANSWERED, DNS_FORWARD };

/*
 * `query` is a UDP payload. ANSWERED: the answer is in `out` (DNS_MAX bytes) and *out_len. FORWARD: a well-formed
 * question about something else. With `only_ours` what is not known is answered (REFUSED) instead of forwarded.
 */
enum dns_verdict dns_query(
	const struct dns_names *n, const uint8_t *query, size_t len, bool only_ours, uint8_t *out, size_t *out_len);

#endif
