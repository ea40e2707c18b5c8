/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A disk on USB: "Mass Storage Class Bulk-Only Transport" 1.0 (BOT below) over a logical unit of scsi.c. Endpoints: 1
 * IN and 2 OUT, bulk.
 *
 * Phases of a command:
 *
 *	COMMAND   a command block wrapper comes (31 bytes, OUT)      DATA_OUT, RUN, or STATUS when it is wrong
 *	DATA_OUT  its data comes                                      RUN when all of it is there
 *	RUN       the unit works; the endpoints NAK                   DATA_IN, STATUS
 *	DATA_IN   its data goes; ends with a short packet if there is less than was asked for
 *	STATUS    the command status wrapper goes (13 bytes, IN)      COMMAND
 *
 * A command that asks for more than the buffer holds ends with a phase error. Before a machine is saved the unit is
 * drained, so that RUN is never saved; the buffer and the phase are.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/log.h"
#include "base/str.h"
#include "dev/scsi.h"
#include "dev/usb.h"

enum phase { COMMAND, DATA_OUT, RUN, DATA_IN, STATUS };

#define IN_ENDPOINT 1
#define OUT_ENDPOINT 2

#define BUFFER (256u << 10)

struct storage_state {
	uint8_t configured, phase, status, in;
	uint32_t tag, length, have, sent, residue;
	uint8_t cdb[16];
	uint8_t buffer[BUFFER];
};

struct usb_storage {
	struct usb_device usb;
	struct storage_state s;
	struct scsi_unit unit;
	struct scsi_cmd cmd;
	struct iovec iov;
	gpa_t gpa;
	bool discard; /* the command in flight belongs to a past before a reset */
	char serial[24];
	const char *strings[3];
};

static const struct field storage_fields[] = {
	FIELD(struct usb_storage, s.configured),
	FIELD(struct usb_storage, s.phase),
	FIELD(struct usb_storage, s.status),
	FIELD(struct usb_storage, s.in),
	FIELD(struct usb_storage, s.tag),
	FIELD(struct usb_storage, s.length),
	FIELD(struct usb_storage, s.have),
	FIELD(struct usb_storage, s.sent),
	FIELD(struct usb_storage, s.residue),
	FIELD_ARRAY(struct usb_storage, s.cdb),
	FIELD(struct usb_storage, s.buffer),
	SCSI_UNIT_FIELDS(struct usb_storage, unit),
	FIELD_END,
};

static const uint8_t device_descriptor[] = { 18, 1, 0x00, 0x02, 0, 0, 0, 64, 0xee, 0x80, 0x30, 0x00, 0x00, 0x01, 1, 2,
	3, 1 };
static const uint8_t configuration[] = { 9, 2, 32, 0, 1, 1, 0, 0xc0, 0, 9, 4, 0, 0, 2, 8, 6, 0x50, 0, 7, 5, 0x81, 2,
	0x00, 0x02, 0, 7, 5, 0x02, 2, 0x00, 0x02, 0 };

static struct usb_storage *
storage_of(struct usb_device *d)
{
	return container_of(d, struct usb_storage, usb);
}

static void
wake(struct usb_storage *s, int endpoint, bool in)
{
	if (s->usb.wake)
		s->usb.wake(s->usb.opaque, endpoint, in);
}

/* ---- the unit ---- */

static void
finish(struct usb_storage *s, uint8_t status, uint32_t moved)
{
	s->s.status = status;
	s->s.residue = s->s.length - MIN(moved, s->s.length);
	s->s.have = s->s.in ? MIN(moved, s->s.length) : 0;
	s->s.sent = 0;
	s->s.phase = s->s.in && s->s.length ? DATA_IN : STATUS;
	wake(s, IN_ENDPOINT, true);
}

static void
unit_done(struct scsi_cmd *c)
{
	struct usb_storage *s = container_of(c, struct usb_storage, cmd);

	if (s->discard) {
		s->discard = false;
		return;
	}
	finish(s, c->status == SCSI_GOOD && !c->overrun ? 0 : 1, c->moved);
}

static void
start(struct usb_storage *s)
{
	memset(&s->cmd, 0, offsetof(struct scsi_cmd, part));
	s->s.phase = RUN;
	s->cmd.u = &s->unit;
	memcpy(s->cmd.cdb, s->s.cdb, sizeof(s->s.cdb));
	s->cmd.dir = !s->s.length ? SCSI_NO_DATA : s->s.in ? SCSI_IN : SCSI_OUT;
	s->iov = (struct iovec){ s->s.buffer, s->s.length };
	s->cmd.iov = &s->iov;
	s->cmd.gpa = &s->gpa;
	s->cmd.iovcnt = s->s.length ? 1 : 0;
	s->cmd.len = s->s.length;
	s->cmd.done = unit_done;
	scsi_start(&s->cmd);
}

/* BOT 5.1, 6.2 */
static int
take_command(struct usb_storage *s, const uint8_t *w, int len)
{
	if (len != 31 || le32(w) != 0x43425355 || (w[13] & 0xf) || !w[14] || w[14] > 16) {
		log_guest(s->usb.dev.name, "a command wrapper that is none");
		return USB_STALL;
	}
	s->s.tag = le32(w + 4);
	s->s.length = le32(w + 8);
	s->s.in = w[12] >> 7;
	memset(s->s.cdb, 0, sizeof(s->s.cdb));
	memcpy(s->s.cdb, w + 15, w[14]);
	s->s.have = 0;
	if (s->s.length > BUFFER) {
		s->s.residue = s->s.length;
		s->s.length = 0;
		s->s.status = 2;
		s->s.phase = STATUS;
	} else if (s->s.length && !s->s.in) {
		s->s.phase = DATA_OUT;
	} else {
		start(s);
	}
	return len;
}

static int
take_data(struct usb_storage *s, const uint8_t *data, int len)
{
	uint32_t n = MIN((uint32_t)len, s->s.length - s->s.have);

	memcpy(s->s.buffer + s->s.have, data, n);
	s->s.have += n;
	if (s->s.have == s->s.length)
		start(s);
	return len;
}

static int
give_data(struct usb_storage *s, uint8_t *data, int len)
{
	uint32_t n = MIN((uint32_t)len, s->s.have - s->s.sent);

	memcpy(data, s->s.buffer + s->s.sent, n);
	s->s.sent += n;
	/* All that the host waits for, or what ends with a short packet. */
	if (s->s.sent == s->s.have && (s->s.have == s->s.length || n < (uint32_t)len))
		s->s.phase = STATUS;
	return (int)n;
}

static int
give_status(struct usb_storage *s, uint8_t *data, int len)
{
	uint8_t w[13];

	put_le32(w, 0x53425355);
	put_le32(w + 4, s->s.tag);
	put_le32(w + 8, s->s.residue);
	w[12] = s->s.status;
	s->s.phase = COMMAND;
	len = MIN(len, (int)sizeof(w));
	memcpy(data, w, (size_t)len);
	wake(s, OUT_ENDPOINT, false);
	return len;
}

static int
storage_data(struct usb_device *d, int endpoint, bool in, uint8_t *data, int len)
{
	struct usb_storage *s = storage_of(d);

	if (endpoint == OUT_ENDPOINT && !in)
		return s->s.phase == COMMAND	? take_command(s, data, len)
		       : s->s.phase == DATA_OUT ? take_data(s, data, len)
						: USB_NAK;
	if (endpoint == IN_ENDPOINT && in)
		return s->s.phase == DATA_IN  ? give_data(s, data, len)
		       : s->s.phase == STATUS ? give_status(s, data, len)
					      : USB_NAK;
	return USB_STALL;
}

static void
abandon(struct usb_storage *s)
{
	s->discard = s->s.phase == RUN;
	scsi_drain(&s->unit);
	s->discard = false;
	s->s.phase = COMMAND;
}

static int
storage_control(struct usb_device *d, const uint8_t setup[8], uint8_t *data, int len)
{
	struct usb_storage *s = storage_of(d);
	struct usb_description t = { device_descriptor, configuration, sizeof(configuration), s->strings, 3 };
	int r = usb_standard(&t, setup, data, len, &s->s.configured);

	if (r != USB_NAK)
		return r;
	if (setup[0] == 0xa1 && setup[1] == 0xfe) { /* the highest unit, BOT 3.2 */
		data[0] = 0;
		return MIN(len, 1);
	}
	if (setup[0] == 0x21 && setup[1] == 0xff) { /* reset, BOT 3.1 */
		abandon(s);
		return 0;
	}
	return USB_STALL;
}

static void
storage_reset(struct usb_device *d)
{
	struct usb_storage *s = storage_of(d);

	abandon(s);
	s->s.configured = 0;
	scsi_reset(&s->unit, true);
}

static const struct usb_class usb_class = { storage_control, storage_data, storage_reset };

static void
power_on(struct device *d)
{
	storage_reset(container_of(d, struct usb_device, dev));
}

static void
drain(struct device *d)
{
	scsi_drain(&storage_of(container_of(d, struct usb_device, dev))->unit);
}

/* A saved state is hostile too. */
static void
loaded(struct device *d)
{
	struct storage_state *s = &storage_of(container_of(d, struct usb_device, dev))->s;

	s->length = MIN(s->length, BUFFER);
	s->have = MIN(s->have, s->length);
	s->sent = MIN(s->sent, s->have);
	if (s->phase == RUN || s->phase > STATUS)
		s->phase = COMMAND;
}

static void
destroy(struct device *d)
{
	struct usb_storage *s = storage_of(container_of(d, struct usb_device, dev));

	xhci_unplug(&s->usb);
	s->discard = s->s.phase == RUN;
	scsi_detach(&s->unit);
	free(s);
}

static const struct dev_class storage_class = {
	.name = "usb-storage",
	.fields = storage_fields,
	.reset = power_on,
	.loaded = loaded,
	.destroy = destroy,
	.drain = drain,
};

struct usb_storage *
usb_storage_create(struct machine *m, const struct drive_config *cfg, int id)
{
	struct usb_storage *s = xcalloc(1, sizeof(*s));

	s->usb.class = &usb_class;
	s->usb.speed = USB_HIGH;
	snprintf(s->serial, sizeof(s->serial), "%s", cfg->serial ? cfg->serial : "000000000001");
	s->strings[0] = "Lodge";
	s->strings[1] = "USB Disk";
	s->strings[2] = s->serial;
	scsi_attach(&s->unit, m, cfg, "usb", id);
	device_add(m, &s->usb.dev, &storage_class);
	return s;
}

struct usb_device *
usb_storage_device(struct usb_storage *s)
{
	return &s->usb;
}
