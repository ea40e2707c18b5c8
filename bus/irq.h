/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A wire: a level that one part drives and one function receives. Copied by value into whoever drives it.
 * A zeroed wire is connected to nothing. Machine lock held.
 */
#ifndef BUS_IRQ_H
#define BUS_IRQ_H

struct irq {
	void (*set)(void *opaque, int n, int level);
	void *opaque;
	int n; /* which input of the receiver */
};

static inline void
irq_set(const struct irq *w, int level)
{
	if (w->set)
		w->set(w->opaque, w->n, level);
}

#endif
