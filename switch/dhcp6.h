/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A DHCPv6 server (RFC 8415) as a function: a message in, an answer out. It keeps nothing: the address of a client is
 * the network's prefix (/64), two bytes and the client's MAC address, which the switch vouches for. So it is always the
 * same, nobody else's, and there are no leases to be lost.
 */
#ifndef SWITCH_DHCP6_H
#define SWITCH_DHCP6_H

#include <stddef.h>
#include <stdint.h>

#define DHCP6_REPLY_MAX 1024

struct dhcp6_config {
	uint8_t mac[6]; /* of the server */
	uint8_t prefix[16];
	uint32_t lease; /* seconds */
	const char *domain;
	const uint8_t *dns; /* its address; NULL: none */
};

void dhcp6_address(const struct dhcp6_config *c, const uint8_t mac[6], uint8_t out[16]);
/* `message`: what is behind the UDP header. The length of the answer in `out` (DHCP6_REPLY_MAX bytes), 0: none. */
size_t dhcp6_input(
	const struct dhcp6_config *c, const uint8_t mac[6], const uint8_t *message, size_t len, uint8_t *out);

#endif
