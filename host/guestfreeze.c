/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Freezing the guest's file systems.
 */
#include <stdlib.h>
#include <string.h>

#include "host/guest.h"

int
host_guest_freeze(struct host *h, const char *vm, bool freeze, int *count, struct err *e)
{
	struct host_guest *g = guest_connect(h, vm, e);
	json_t *r = g ? guest_ask(g, freeze ? "guest-fsfreeze-freeze" : "guest-fsfreeze-thaw", NULL, 30000, e) : NULL;

	*count = (int)json_integer_value(r);
	json_decref(r);
	host_guest_close(g);
	return r ? 0 : -1;
}
