/* SPDX-License-Identifier: Apache-2.0 */
/* The address ranges that host-only networks may use: /etc/vbox/networks.conf. */
#ifndef NET_RANGES_H
#define NET_RANGES_H

#include <stdbool.h>

#define RANGES_FILE "/etc/vbox/networks.conf"
#define RANGES_DEFAULT "192.168.56.0/21 fe80::/10 fd00::/8"

/* Is the address (struct in_addr or in6_addr) within one of the ranges of a networks.conf ("* CIDR CIDR...", '#' begins
 * a comment)? */
bool ranges_hold(const char *ranges, int family, const void *address);

#endif
