/* SPDX-License-Identifier: Apache-2.0 */
/* What machines may not send into a network whose addresses somebody else gives out. */
#ifndef SWITCH_GUARD_H
#define SWITCH_GUARD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * False: the frame (without a tag) is the answer of a DHCP or DHCPv6 server, a router's advertisement or redirect, or
 * ARP that names one of the `count` addresses (network order) as the sender's.
 */
bool guard_allows(const uint8_t *frame, size_t len, const uint32_t *protected, int count);

#endif
