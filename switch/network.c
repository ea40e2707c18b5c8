/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The switch process: everything put together, and taken apart again.
 */
#include "switch/process.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "nethelper/protocol.h"
#include "switch/helper.h"

static void
nobody_left(void *opaque)
{
	struct network *n = opaque;

	log_info("switch", "nobody has been plugged in for %d s: the network ends", n->c.linger);
	loop_stop(n->loop);
}

void
net_linger(struct network *n, int s)
{
	if (n->held || n->c.linger < 0)
		loop_timer_cancel(&n->linger);
	else
		loop_timer_arm(&n->linger, loop_now() + (uint64_t)s * 1000000000u);
}

/* The TAP's addresses, where they are others now. */
static int
change_addresses(struct network *n, const struct net_config *old, struct err *e)
{
	char request[NETHELPER_MESSAGE_MAX], name[16];
	uint32_t ip = n->c.gateway;

	if (n->tap_fd < 0 || n->c.uplink != UPLINK_HOST || n->helper < 0)
		return 0;
	if (old->gateway == n->c.gateway && old->prefix == n->c.prefix && !strcmp(old->address6, n->c.address6))
		return 0;
	if (ip)
		snprintf(request, sizeof(request), "address %u.%u.%u.%u/%u %s", ip >> 24, ip >> 16 & 255, ip >> 8 & 255,
			ip & 255, n->c.prefix, *n->c.address6 ? n->c.address6 : "-");
	else
		snprintf(request, sizeof(request), "address - %s", *n->c.address6 ? n->c.address6 : "-");
	return helper_ask(n->helper, request, name, e) < 0 ? -1 : 0;
}

/* The keeper has made a TAP with the addresses of the configuration; one that DHCP gives is known only now. */
static int
host_address(struct network *n, struct err *e)
{
	if (n->c.host_dhcp && change_addresses(n, &(struct net_config){ 0 }, e))
		log_error("switch", "%s", e->text);
	return 0;
}

static int
open_parts(struct network *n, struct err *e)
{
	n->dir_fd = open(n->dir, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (n->dir_fd < 0)
		return err_sys(e, ERR_FILE, errno, "Cannot open '%s'", n->dir);
	return station_open(n, e) || host_address(n, e) || uplink_open(n, e) || control_open(n, e) ||
	       ports_open(n, e) || switch_sandbox(n->dir, n->c.tftp, e);
}

static void
close_parts(struct network *n)
{
	ports_close(n);
	control_close(n);
	uplink_close(n);
	station_close(n);
	pcap_close(n->trace);
	if (n->dir_fd >= 0)
		close(n->dir_fd);
}

int
network_run(const char *dir, const struct inherited *i, int ready, struct err *e)
{
	struct network *n = xcalloc(1, sizeof(*n));
	int r = -1;

	*n = (struct network){ .dir = dir, .dir_fd = -1, .listen_fd = -1, .tap_fd = i->tap_fd, .packet = i->packet };
	snprintf(n->mode, sizeof(n->mode), "%s", i->mode);
	snprintf(n->mode_reason, sizeof(n->mode_reason), "%s", i->reason);
	n->helper = i->helper;
	if (config_read(dir, &n->c, e)) {
		free(n);
		return -1;
	}
	n->frame = xcalloc(1, SW_HEADROOM + NET_FRAME_MAX + 64);
	n->scratch = xcalloc(1, NET_FRAME_MAX);
	n->later = xcalloc(1, LATER_BYTES);
	n->core = sw_open();
	pthread_mutex_init(&n->lock, NULL);
	n->loop = loop_open(&n->lock);
	loop_timer_init(&n->linger, n->loop, nobody_left, n);
	loop_timer_init(&n->host_lease, n->loop, hostlease_renew, n);
	/* The interface is there as long as it is not removed, used or not. */
	n->held = n->tap_fd >= 0 && n->c.kind == KIND_HOSTONLY;
	net_linger(n, MAX(n->c.linger, EXPECT_S)); /* the machine it was started for takes its time */
	if (!open_parts(n, e)) {
		log_info("switch", "network '%s' is there, %s%s%s", n->c.name, n->mode, *n->mode_reason ? ": " : "",
			n->mode_reason);
		if (ready >= 0 && write(ready, "1", 1) == 1)
			close(ready);
		loop_run(n->loop);
		r = 0;
	}
	close_parts(n);
	loop_close(n->loop);
	pthread_mutex_destroy(&n->lock);
	sw_close(n->core);
	config_free(&n->c);
	free(n->later);
	free(n->frame);
	free(n->scratch);
	free(n);
	return r;
}

int
network_reload(struct network *n, struct err *e)
{
	struct net_config old = n->c, fresh;
	int r;

	if (config_read(n->dir, &fresh, e))
		return -1;
	n->c = fresh;
	station_reload(n); /* first: the gateway may be what its DHCP server says */
	r = change_addresses(n, &old, e);
	if (old.gateway != n->c.gateway || old.network != fresh.network || old.prefix != fresh.prefix ||
		old.localhost_reachable != fresh.localhost_reachable ||
		old.localhost_reachable6 != fresh.localhost_reachable6 || old.forward_count != fresh.forward_count ||
		memcmp(old.forwards, fresh.forwards, sizeof(old.forwards)) || old.ipv6 != fresh.ipv6 ||
		memcmp(&old.prefix6, &fresh.prefix6, sizeof(old.prefix6)) || strcmp(old.tftp, fresh.tftp) ||
		old.uplink != fresh.uplink)
		uplink_reload(n);
	ports_reload(n);
	if (!n->port_count)
		net_linger(n, n->c.linger);
	return r;
}
