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

/* ---- idle CPUs ---- */

void
machine_idle_add(struct machine *m, struct machine_idle *i)
{
	i->wanted = false;
	i->next = m->idle;
	m->idle = i;
}

void
machine_idle_remove(struct machine *m, struct machine_idle *i)
{
	struct machine_idle **at = &m->idle;

	while (*at && *at != i)
		at = &(*at)->next;
	if (*at)
		*at = i->next;
}

/* Who wants looks at `halts` after it has said so, a CPU says that it halts before it looks who wants. */
bool
machine_idle_since(struct machine *m, struct machine_idle *i, unsigned seen)
{
	if (m->halts != seen)
		return true;
	i->wanted = true;
	m->idle_wanted = true;
	if (m->halts == seen)
		return false;
	i->wanted = false;
	return true;
}

void
machine_halts(struct machine *m)
{
	m->halts++;
	if (!m->idle_wanted)
		return;
	machine_lock(m);
	m->idle_wanted = false;
	for (struct machine_idle *i = m->idle; i; i = i->next) {
		if (!i->wanted)
			continue;
		i->wanted = false;
		i->fn(i->opaque);
	}
	machine_unlock(m);
}
