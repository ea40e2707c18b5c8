/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What every device has in common: a class, a name, a table of its state, reset and destruction.
 *
 * A board chip is a constructor whose arguments are its wires (`struct i8254 *i8254_create(struct machine *m, ...)`).
 * A device a user can name has one exported symbol, its `const struct dev_class`. Either way the object starts with
 * `struct device`, is registered with device_add(), and is owned by the machine: machine_close() destroys all devices
 * in the reverse order of their registration.
 *
 * `fields` is the single source for saving, loading, comparing and dumping a device's state (fixed-width integers and
 * byte arrays only; derived state such as IRQ levels is recomputed in `loaded`).
 */
#ifndef BUS_DEVICE_H
#define BUS_DEVICE_H

#include <stddef.h>
#include <stdint.h>

struct machine;
struct device;

struct field {
	const char *name; /* NULL ends a table */
	uint32_t offset;  /* in the device's object */
	uint32_t size;	  /* of one element: 1, 2, 4, 8; larger: opaque bytes */
	uint32_t count;	  /* number of elements */
};
#define FIELD(type, member)                                                                                            \
	{                                                                                                              \
#member, offsetof(type, member), sizeof(((type *)0)->member), 1                                        \
	}
#define FIELD_ARRAY(type, member)                                                                                      \
	{                                                                                                              \
#member, offsetof(type, member), sizeof(((type *)0)->member[0]),                                       \
			sizeof(((type *)0)->member) / sizeof(((type *)0)->member[0])                                   \
	}
#define FIELD_END                                                                                                      \
	{                                                                                                              \
		0                                                                                                      \
	}

struct dev_class {
	const char *name;		  /* "e1000" */
	const struct field *fields;	  /* may be NULL: nothing to save */
	void (*reset)(struct device *d);  /* power-on state; called under the machine lock; may be NULL */
	void (*loaded)(struct device *d); /* recompute derived state after load; may be NULL */
	/* Stop I/O in flight and free the object; no callback of it runs afterwards. May be NULL: free(d). */
	void (*destroy)(struct device *d);
	/* Called when the machine is about to stop: all I/O in flight is completed when it returns. May be NULL. */
	void (*drain)(struct device *d);
};

struct device {
	const struct dev_class *class;
	struct machine *m;
	char name[32]; /* unique in its machine: class name, and "0", "1", ... where there are several */
	struct device *next;
};

/* Register `d` (already allocated, zeroed) with `m`; picks its name. */
void device_add(struct machine *m, struct device *d, const struct dev_class *class);

/* Every device's reset, in the order of registration. Machine lock held. */
void device_reset_all(struct machine *m);
void device_drain_all(struct machine *m);

#endif
