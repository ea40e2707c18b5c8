/* SPDX-License-Identifier: Apache-2.0 */
#include "bus/device.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bus/machine.h"

void
device_add(struct machine *m, struct device *d, const struct dev_class *class)
{
	int same = 0;

	for (struct device *o = m->devices; o; o = o->next)
		same += o->class == class;
	d->class = class;
	d->m = m;
	d->next = NULL;
	/* The first of a kind is called like its class; a second one makes numbers worth reading. */
	if (same)
		snprintf(d->name, sizeof(d->name), "%s%d", class->name, same);
	else
		snprintf(d->name, sizeof(d->name), "%s", class->name);
	*m->devices_tail = d;
	m->devices_tail = &d->next;
}

void
device_reset_all(struct machine *m)
{
	for (struct device *d = m->devices; d; d = d->next)
		if (d->class->reset)
			d->class->reset(d);
}

void
device_drain_all(struct machine *m)
{
	for (struct device *d = m->devices; d; d = d->next)
		if (d->class->drain)
			d->class->drain(d);
}
