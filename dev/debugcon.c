/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The port that firmware writes its messages to, byte by byte. Reading gives 0xe9, by which SeaBIOS knows that it is
 * there. Without a back end lines go to the log.
 */
#include <stdlib.h>

#include "base/log.h"
#include "base/str.h"
#include "dev/dev.h"

struct debugcon {
	struct device dev;
	struct chardev *cd;
	unsigned len;
	char line[200];
};

static void
log_byte(struct debugcon *c, char byte)
{
	if (byte != '\n' && byte != '\r')
		c->line[c->len++] = byte;
	if (!c->len || (byte != '\n' && c->len < sizeof(c->line) - 1))
		return;
	c->line[c->len] = '\0';
	log_line(LOG_INFO, "firmware", "%s", c->line);
	c->len = 0;
}

static uint64_t
port_read(void *opaque, uint64_t off, unsigned size)
{
	return 0xe9;
}

static void
port_write(void *opaque, uint64_t off, uint64_t value, unsigned size)
{
	struct debugcon *c = opaque;
	uint8_t byte = (uint8_t)value;

	if (c->cd)
		chardev_write(c->cd, &byte, 1);
	else
		log_byte(c, (char)byte);
}

static const struct bus_ops ops = { port_read, port_write, 1, 1 };

static void
destroy(struct device *d)
{
	chardev_close(((struct debugcon *)d)->cd);
	free(d);
}

static const struct dev_class class = { .name = "debugcon", .destroy = destroy };

struct device *
debugcon_create(struct machine *m, uint16_t port, struct chardev *cd)
{
	struct debugcon *c = xcalloc(1, sizeof(*c));

	device_add(m, &c->dev, &class);
	c->cd = cd;
	io_add(&m->io, port, 1, &ops, c);
	return &c->dev;
}
