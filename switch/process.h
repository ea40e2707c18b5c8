/* SPDX-License-Identifier: Apache-2.0 */
/* The two processes of a network: the keeper and the switch (switch/protocol.h). */
#ifndef SWITCH_PROCESS_H
#define SWITCH_PROCESS_H

#include "switch/private.h"

/* What the keeper hands to each switch it starts. */
struct inherited {
	int tap_fd;  /* -1: none */
	bool packet; /* it is a packet socket */
	int helper;  /* socket of the helper's session, -1 */
	char mode[16], reason[512], interface[16];
};

/* The switch: comes back when it is to end, with 0, or with -1 and *e. `ready` (>= 0) gets a byte when its sockets are
 * there. */
int network_run(const char *dir, const struct inherited *i, int ready, struct err *e);
/* Read the configuration and the ports again. */
int network_reload(struct network *n, struct err *e);

/* Become the keeper of `dir`: take the lock, get the TAP, start the switch and start it again whenever it dies.
 * `ready_fd` (-1: none) gets the line of switch/protocol.h. Returns the exit status. */
int keeper_run(const char *dir, int ready_fd, bool foreground);

#endif
