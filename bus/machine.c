/* SPDX-License-Identifier: Apache-2.0 */
#include "bus/machine.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int
machine_open(struct machine *m, const char *name)
{
	int r;

	memset(m, 0, sizeof(*m));
	snprintf(m->name, sizeof(m->name), "%s", name);
	m->devices_tail = &m->devices;
	/* Recursive: a handler may use code that is also entered from outside, such as mem_load() of another device. */
	fair_lock_init(&m->lock);
	m->loop = loop_open_fair(&m->lock);
	if (!m->loop) {
		fair_lock_destroy(&m->lock);
		return -ENOMEM;
	}
	clock_open(&m->clock, m->loop);
	r = mem_open(&m->mem);
	if (r) {
		clock_close(&m->clock);
		loop_close(m->loop);
		fair_lock_destroy(&m->lock);
	}
	return r;
}

static void
destroy_devices(struct machine *m, struct device *d)
{
	if (!d)
		return;
	destroy_devices(m, d->next);
	if (d->class->destroy)
		d->class->destroy(d);
	else
		free(d);
}

void
machine_destroy_devices(struct machine *m)
{
	destroy_devices(m, m->devices);
	m->devices = NULL;
	m->devices_tail = &m->devices;
}

void
machine_close(struct machine *m)
{
	machine_lock(m);
	machine_destroy_devices(m);
	machine_unlock(m);
	clock_close(&m->clock);
	mem_close(&m->mem);
	loop_close(m->loop);
	fair_lock_destroy(&m->lock);
}

void
machine_event(struct machine *m, enum machine_event what, int status)
{
	if (m->event)
		m->event(m->event_opaque, what, status);
}
