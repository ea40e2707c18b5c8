/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fuzz target: requests to the network helper, and the two files that say what is allowed. Nothing is carried out; what
 * gets through has to be one of the four things it may be.
 */
#include <arpa/inet.h>
#include <ctype.h>
#include <string.h>

#include "base/str.h"
#include "nethelper/action.h"

static void
check(const struct action *a)
{
	for (const char *p = a->name; *p; p++)
		if (!isalnum((unsigned char)*p) && !strchr("-_.", *p))
			__builtin_trap();
	if (strnlen(a->name, 16) == 16 || (a->kind == ACTION_TAP && strncmp(a->name, "vboxnet", 7)))
		__builtin_trap();
	if ((a->mac[0] & 1) || a->len > 32 || a->len6 > 128)
		__builtin_trap();
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char text[8200] = { 0 }, *request = text, *allowed, *ranges;
	struct action a;
	struct err e;
	struct in_addr home;

	memcpy(text, data, MIN(size, sizeof(text) - 1));
	allowed = strchr(text, '\1');
	if (allowed)
		*allowed++ = 0;
	ranges = allowed ? strchr(allowed, '\2') : NULL;
	if (ranges)
		*ranges++ = 0;
	if (action_parse(request, &a, &e))
		return 0;
	check(&a);
	/* without files: no bridge, no interface, and addresses of the default ranges only */
	if (!action_permit(&a, NULL, NULL, &e)) {
		if (a.kind == ACTION_BRIDGE || a.kind == ACTION_PACKET)
			__builtin_trap();
		inet_pton(AF_INET, "192.168.56.0", &home);
		if (a.has_ip && ((ntohl(a.ip.s_addr) ^ ntohl(home.s_addr)) >> 11))
			__builtin_trap();
	}
	action_permit(&a, allowed, ranges, &e);
	return 0;
}
