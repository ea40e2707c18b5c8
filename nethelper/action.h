/* SPDX-License-Identifier: Apache-2.0 */
/* What the network helper can be asked: reading a request and judging it, apart from carrying it out. */
#ifndef NETHELPER_ACTION_H
#define NETHELPER_ACTION_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

enum action_kind { ACTION_TAP, ACTION_BRIDGE, ACTION_PACKET, ACTION_ADDRESS };

struct action {
	enum action_kind kind;
	char name[16]; /* of the interface */
	uint8_t mac[6];
	bool has_ip, has_ip6;
	struct in_addr ip;
	unsigned len; /* of the network part */
	struct in6_addr ip6;
	unsigned len6;
};

/* Only what is exactly one of the forms of nethelper/protocol.h. */
int action_parse(const char *text, struct action *a, struct err *e);

/* `allowed`, `ranges`: the text of the two files, NULL: there is none. */
int action_permit(const struct action *a, const char *allowed, const char *ranges, struct err *e);

/* Carry it out: a descriptor (ACTION_ADDRESS: 0), or -1 and *e. `a->name` is filled in where it was left open. */
int action_run(struct action *a, struct err *e);

#endif
