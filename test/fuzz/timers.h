/* SPDX-License-Identifier: Apache-2.0 */
/* Fuzz targets run no loop: this lets every armed timer of the machine expire, in no particular order, once. */
#ifndef FUZZ_TIMERS_H
#define FUZZ_TIMERS_H

#include "bus/machine.h"

static void
expire_timers(struct machine *machine)
{
	struct vtimer *armed[32];
	int n = 0;

	for (struct vtimer *t = machine->clock.timers; t && n < 32; t = t->next)
		armed[n++] = t;
	for (int i = 0; i < n; i++) {
		if (!armed[i]->armed)
			continue;
		vtimer_cancel(armed[i]);
		armed[i]->fn(armed[i]->opaque);
	}
}

#endif
