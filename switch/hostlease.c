/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The host's interface of a host-only network as a client of the network's own DHCP server (hostonlyif ipconfig --dhcp).
 * Both are in this process, so that no messages pass between them: the lease is taken, and at half its time renewed. It
 * stands in leases.json like any other, under the interface's MAC address. Without a server, or where that has no
 * address left, the interface has none, until the configuration changes.
 */
#include <time.h>

#include "base/log.h"
#include "switch/private.h"

void
hostlease_take(struct network *n)
{
	struct dhcp *d = station_dhcp(n);
	uint32_t seconds = 0;
	struct err e;

	loop_timer_cancel(&n->host_lease);
	if (!n->c.host_dhcp)
		return;
	n->c.gateway = d ? dhcp_take(d, n->c.mac, time(NULL), &seconds) : 0;
	if (!n->c.gateway) {
		log_warn("switch", "the host's interface has no address: %s",
			d ? "the DHCP server has none left" : "the network has no DHCP server");
		return;
	}
	if (leases_save(n->dir, d, &e))
		log_error("dhcp", "%s", e.text);
	loop_timer_arm(&n->host_lease, loop_now() + seconds / 2 * UINT64_C(1000000000));
}

void
hostlease_renew(void *opaque)
{
	hostlease_take(opaque);
}
