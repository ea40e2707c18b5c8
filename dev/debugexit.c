/* SPDX-License-Identifier: Apache-2.0 */
/* The port with which test kernels end their machine and leave a value (QEMU's "isa-debug-exit"). */
#include "base/str.h"
#include "dev/dev.h"

static uint64_t
port_read(void *opaque, uint64_t off, unsigned size)
{
	return 0;
}

static void
port_write(void *opaque, uint64_t off, uint64_t value, unsigned size)
{
	machine_event(((struct device *)opaque)->m, MACHINE_DEBUG_EXIT, (int)((uint32_t)value << 1 | 1));
}

static const struct bus_ops ops = { port_read, port_write, 1, 4 };

static const struct dev_class class = { .name = "debug-exit" };

struct device *
debugexit_create(struct machine *m, uint16_t port, unsigned ports)
{
	struct device *d = xcalloc(1, sizeof(*d));

	device_add(m, d, &class);
	io_add(&m->io, port, ports < 1 ? 1 : MIN(ports, 8u), &ops, d);
	return d;
}
