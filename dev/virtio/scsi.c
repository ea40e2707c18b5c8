/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Virtio SCSI host (5.6): a control queue, an event queue and one queue of commands; targets 0 to ports - 1, each with
 * logical unit 0.
 *
 *	command out: 0 u8 lun[8], 8 u64 id, 16 u8 task attribute, 17 u8 priority, 18 u8 crn, 19 cdb[cdb_size]; data
 *	        in:  0 u32 sense_len, 4 u32 residual, 8 u16 status qualifier, 10 u8 status, 11 u8 response,
 *	             12 sense[sense_size]; data
 *	lun: 1, target, 0x40 | unit 13:8, unit 7:0, 0...; 0xc1, 1, 0... asks who is there (REPORT LUNS, 5.6.6.1)
 *	control out: u32 type; task management: u32 subtype, u8 lun[8], u64 id -> u8 response
 *	             asynchronous notification: u8 lun[8], u32 events -> u32 events, u8 response
 *	event   in:  u32 event, u8 lun[8], u32 reason
 *
 * Theory of operation. The pieces of a chain behind the headers are the command's buffer, given to scsi.c without a
 * copy. Request objects are kept for reuse; there are never more than the queue has entries.
 *
 * Task management: a request to the image cannot be called back, so every function that has to end commands waits for
 * them, and they end in the ordinary way ahead of the answer.
 *
 * Hot plug: targets come and go by virtio_scsi_attach() and virtio_scsi_detach(); the driver hears of it through the
 * event queue, and, where it has put no buffer there, by the flag "events missed" on the next one.
 */
#include <errno.h>
#include <linux/virtio_scsi.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "dev/scsi.h"
#include "dev/virtio/virtio.h"

enum { CONTROL, EVENTS, COMMANDS, QUEUES };

#define QUEUE_SIZE 256
#define CONFIG_LEN 36
#define SEG_MAX (VIRTQ_IOV_MAX - 4)
#define OUT_HEADER 19	    /* and the command block */
#define IN_HEADER 12	    /* and the sense data */
#define FUNCTION_COMPLETE 0 /* VIRTIO_SCSI_S_FUNCTION_COMPLETE, which Linux does not name */

struct virtio_scsi {
	struct virtio v;
	int targets;
	struct request *idle;
	uint32_t sense_size, cdb_size;
	uint8_t events_missed;
	struct scsi_unit unit[VIRTIO_SCSI_TARGETS];
};

struct request {
	struct scsi_cmd cmd;
	struct virtio_scsi *d;
	struct request *next_idle;
	struct iovec iov[VIRTQ_IOV_MAX];
	gpa_t gpa[VIRTQ_IOV_MAX];
	struct virtq_chain chain;
};

/* One row a target. */
#define UNIT(n) SCSI_UNIT_FIELDS(struct virtio_scsi, unit[n])
#define UNITS_8(n) UNIT(n), UNIT(n + 1), UNIT(n + 2), UNIT(n + 3), UNIT(n + 4), UNIT(n + 5), UNIT(n + 6), UNIT(n + 7)

static const struct field virtio_scsi_fields[] = {
	VIRTIO_FIELDS(struct virtio_scsi),
	FIELD(struct virtio_scsi, sense_size),
	FIELD(struct virtio_scsi, cdb_size),
	FIELD(struct virtio_scsi, events_missed),
	UNITS_8(0),
	UNITS_8(8),
	UNITS_8(16),
	UNITS_8(24),
	UNITS_8(32),
	UNITS_8(40),
	UNITS_8(48),
	UNITS_8(56),
	FIELD_END,
};
_Static_assert(VIRTIO_SCSI_TARGETS == 64, "virtio_scsi_fields has a row for each target");

/* ---- commands ---- */

static void
release(struct request *rq)
{
	rq->next_idle = rq->d->idle;
	rq->d->idle = rq;
}

static void
respond(struct request *rq, uint8_t response, uint32_t residual)
{
	struct virtio_scsi *d = rq->d;
	const struct scsi_cmd *c = &rq->cmd;
	uint8_t header[IN_HEADER] = { 0 };

	if (c->has_sense) {
		put_le32(header, MIN(d->sense_size, (uint32_t)SCSI_SENSE_LEN));
		virtq_write(&rq->chain, IN_HEADER, c->sense, MIN(d->sense_size, (uint32_t)SCSI_SENSE_LEN));
	}
	put_le32(header + 4, residual);
	header[10] = c->status;
	header[11] = response;
	virtq_write(&rq->chain, 0, header, sizeof(header));
	virtq_push(&d->v, COMMANDS, &rq->chain, IN_HEADER + d->sense_size + (c->dir == SCSI_IN ? c->moved : 0));
	virtq_notify(&d->v, COMMANDS);
	release(rq);
}

static void
command_done(struct scsi_cmd *c)
{
	struct request *rq = container_of(c, struct request, cmd);

	if (c->overrun)
		respond(rq, VIRTIO_SCSI_S_OVERRUN, 0);
	else
		respond(rq, VIRTIO_SCSI_S_OK, c->len - MIN(c->moved, c->len));
}

static void
refuse(struct request *rq, uint8_t response)
{
	rq->cmd.has_sense = false;
	rq->cmd.status = SCSI_GOOD;
	rq->cmd.moved = 0;
	respond(rq, response, 0);
}

/* The target that an address names, NULL: none is there. */
static struct scsi_unit *
find_unit(struct virtio_scsi *d, const uint8_t lun[8], uint64_t *number)
{
	*number = ((uint64_t)(lun[2] & 0x3f) << 8) | lun[3];
	if (lun[0] != 1 || lun[1] >= d->targets || (lun[2] & 0xc0) == 0x80 || !d->unit[lun[1]].present)
		return NULL;
	return &d->unit[lun[1]];
}

/* The pieces of one direction of the chain behind `skip` bytes of header become the command's buffer. */
static void
take_buffer(struct request *rq, bool in, uint32_t skip)
{
	const struct virtq_chain *c = &rq->chain;
	int first = in ? c->out : 0, count = in ? c->in : c->out, n = 0;

	for (int i = first; i < first + count; i++) {
		uint32_t len = (uint32_t)c->iov[i].iov_len;

		if (skip >= len) {
			skip -= len;
			continue;
		}
		rq->iov[n] = (struct iovec){ (uint8_t *)c->iov[i].iov_base + skip, len - skip };
		rq->gpa[n++] = c->gpa[i] + skip;
		skip = 0;
	}
	rq->cmd.iov = rq->iov;
	rq->cmd.gpa = rq->gpa;
	rq->cmd.iovcnt = n;
}

static void
start(struct request *rq)
{
	struct virtio_scsi *d = rq->d;
	struct virtq_chain *c = &rq->chain;
	uint32_t out = OUT_HEADER + d->cdb_size, in = IN_HEADER + d->sense_size;
	uint8_t lun[8];

	virtq_read(c, 0, lun, sizeof(lun));
	memset(rq->cmd.cdb, 0, sizeof(rq->cmd.cdb));
	virtq_read(c, OUT_HEADER, rq->cmd.cdb, MIN(d->cdb_size, (uint32_t)SCSI_CDB_MAX));
	rq->cmd.dir = c->in_len > in ? SCSI_IN : c->out_len > out ? SCSI_OUT : SCSI_NO_DATA;
	rq->cmd.len = c->in_len > in ? c->in_len - in : c->out_len - out;
	if (c->in_len > in && c->out_len > out) { /* both ways: not without the feature INOUT */
		refuse(rq, VIRTIO_SCSI_S_FAILURE);
		return;
	}
	take_buffer(rq, rq->cmd.dir == SCSI_IN, rq->cmd.dir == SCSI_IN ? in : out);
	rq->cmd.u = find_unit(d, lun, &rq->cmd.lun);
	if (!rq->cmd.u) {
		refuse(rq, VIRTIO_SCSI_S_BAD_TARGET);
		return;
	}
	scsi_start(&rq->cmd);
}

static struct request *
request_get(struct virtio_scsi *d)
{
	struct request *rq = d->idle;

	if (rq) {
		d->idle = rq->next_idle;
		return rq;
	}
	rq = xcalloc(1, sizeof(*rq));
	rq->d = d;
	rq->cmd.done = command_done;
	return rq;
}

static void
commands_kick(struct virtio_scsi *d)
{
	struct request *rq = request_get(d);

	while (virtq_pop(&d->v, COMMANDS, &rq->chain)) {
		if (rq->chain.out_len < OUT_HEADER + d->cdb_size || rq->chain.in_len < IN_HEADER + d->sense_size) {
			virtio_broken(&d->v, COMMANDS, "a command is shorter than its headers");
			break;
		}
		start(rq);
		rq = request_get(d);
	}
	release(rq);
}

/* ---- control ---- */

/* Returns the response; nothing of what was to end is in flight any more. */
static uint8_t
task_management(struct virtio_scsi *d, const uint8_t *request)
{
	uint32_t subtype = le32(request + 4);
	uint64_t number;
	struct scsi_unit *u = find_unit(d, request + 8, &number);

	if (!u)
		return VIRTIO_SCSI_S_BAD_TARGET;
	if (number)
		return VIRTIO_SCSI_S_INCORRECT_LUN;
	switch (subtype) {
	case VIRTIO_SCSI_T_TMF_ABORT_TASK:
	case VIRTIO_SCSI_T_TMF_ABORT_TASK_SET:
	case VIRTIO_SCSI_T_TMF_CLEAR_TASK_SET:
		scsi_drain(u);
		return FUNCTION_COMPLETE;
	case VIRTIO_SCSI_T_TMF_LOGICAL_UNIT_RESET:
	case VIRTIO_SCSI_T_TMF_I_T_NEXUS_RESET:
		scsi_drain(u);
		scsi_reset(u, false);
		return FUNCTION_COMPLETE;
	case VIRTIO_SCSI_T_TMF_QUERY_TASK:
	case VIRTIO_SCSI_T_TMF_QUERY_TASK_SET:
		return FUNCTION_COMPLETE; /* no: it is over by now, or about to be */
	}
	return VIRTIO_SCSI_S_FUNCTION_REJECTED;
}

/* False: the driver broke the rules. */
static bool
control(struct virtio_scsi *d, struct virtq_chain *c)
{
	uint8_t request[24] = { 0 }, response[5] = { 0 };
	uint32_t n = virtq_read(c, 0, request, sizeof(request)), len;

	switch (le32(request)) {
	case VIRTIO_SCSI_T_TMF:
		if (n < 24 || c->in_len < 1)
			return false;
		response[0] = task_management(d, request);
		len = 1;
		break;
	case VIRTIO_SCSI_T_AN_QUERY:
	case VIRTIO_SCSI_T_AN_SUBSCRIBE: /* no event of any drive here is one of those */
		if (n < 16 || c->in_len < 5)
			return false;
		response[4] = VIRTIO_SCSI_S_OK;
		len = 5;
		break;
	default:
		if (c->in_len < 1)
			return false;
		response[0] = VIRTIO_SCSI_S_FUNCTION_REJECTED;
		len = 1;
	}
	virtq_write(c, 0, response, len);
	virtq_push(&d->v, CONTROL, c, len);
	virtq_notify(&d->v, CONTROL);
	return true;
}

static void
control_kick(struct virtio_scsi *d)
{
	struct virtq_chain *c = xcalloc(1, sizeof(*c));

	while (virtq_pop(&d->v, CONTROL, c))
		if (!control(d, c)) {
			virtio_broken(&d->v, CONTROL, "a request is too short");
			break;
		}
	free(c);
}

/* ---- events ---- */

static void
send_event(struct virtio_scsi *d, uint32_t event, int target, uint32_t reason)
{
	struct virtq_chain *c;
	uint8_t e[16] = { 0 };

	if (!virtio_has(&d->v, VIRTIO_SCSI_F_HOTPLUG) || !virtio_running(&d->v))
		return;
	c = xcalloc(1, sizeof(*c));
	if (!virtq_pop(&d->v, EVENTS, c)) {
		d->events_missed = 1;
	} else if (c->in_len < sizeof(e)) {
		virtio_broken(&d->v, EVENTS, "a buffer is too short");
	} else {
		put_le32(e, event | (d->events_missed ? VIRTIO_SCSI_T_EVENTS_MISSED : 0));
		if (event != VIRTIO_SCSI_T_NO_EVENT) {
			e[4] = 1;
			e[5] = (uint8_t)target;
			e[6] = 0x40;
			put_le32(e + 12, reason);
		}
		d->events_missed = 0;
		virtq_write(c, 0, e, sizeof(e));
		virtq_push(&d->v, EVENTS, c, sizeof(e));
		virtq_notify(&d->v, EVENTS);
	}
	free(c);
}

static void
scsi_kick(struct virtio *v, int queue)
{
	struct virtio_scsi *d = (struct virtio_scsi *)v;

	if (queue == COMMANDS)
		commands_kick(d);
	else if (queue == CONTROL)
		control_kick(d);
	else if (d->events_missed && virtq_ready(v, EVENTS))
		send_event(d, VIRTIO_SCSI_T_NO_EVENT, 0, 0);
}

/* ---- configuration and life ---- */

static void
scsi_config_read(struct virtio *v, uint8_t *c)
{
	struct virtio_scsi *d = (struct virtio_scsi *)v;

	put_le32(c, 1); /* queues of commands */
	put_le32(c + 4, SEG_MAX);
	put_le32(c + 8, 0xffff); /* blocks in a command */
	put_le32(c + 12, 128);	 /* commands for a unit */
	put_le32(c + 16, 16);	 /* bytes of an event */
	put_le32(c + 20, d->sense_size);
	put_le32(c + 24, d->cdb_size);
	put_le16(c + 28, 0);
	put_le16(c + 30, (uint16_t)(d->targets - 1));
	put_le32(c + 32, 0); /* units are number 0 */
}

static void
scsi_config_write(struct virtio *v, unsigned off, uint32_t value, unsigned size)
{
	struct virtio_scsi *d = (struct virtio_scsi *)v;

	if (size != 4)
		return;
	if (off == 20 && value <= 252)
		d->sense_size = value;
	else if (off == 24 && value >= 16 && value <= 260)
		d->cdb_size = value;
}

static void
drain_units(struct virtio_scsi *d)
{
	for (int i = 0; i < d->targets; i++)
		scsi_drain(&d->unit[i]);
}

static void
scsi_driver_reset(struct virtio *v)
{
	struct virtio_scsi *d = (struct virtio_scsi *)v;

	drain_units(d);
	for (int i = 0; i < d->targets; i++)
		scsi_reset(&d->unit[i], false);
	d->sense_size = VIRTIO_SCSI_SENSE_DEFAULT_SIZE;
	d->cdb_size = VIRTIO_SCSI_CDB_DEFAULT_SIZE;
	d->events_missed = 0;
}

static void
scsi_power_on(struct device *dev)
{
	struct virtio_scsi *d = (struct virtio_scsi *)dev;

	virtio_power_on(dev);
	for (int i = 0; i < d->targets; i++)
		scsi_reset(&d->unit[i], true);
}

static void
scsi_loaded(struct device *dev)
{
	struct virtio_scsi *d = (struct virtio_scsi *)dev;

	virtio_loaded(dev);
	if (d->sense_size > 252)
		d->sense_size = VIRTIO_SCSI_SENSE_DEFAULT_SIZE;
	if (d->cdb_size < 16 || d->cdb_size > 260)
		d->cdb_size = VIRTIO_SCSI_CDB_DEFAULT_SIZE;
}

static void
scsi_device_drain(struct device *dev)
{
	drain_units((struct virtio_scsi *)dev);
}

static void
scsi_destroy(struct device *dev)
{
	struct virtio_scsi *d = (struct virtio_scsi *)dev;
	struct request *rq;

	for (int i = 0; i < d->targets; i++)
		scsi_detach(&d->unit[i]);
	virtio_remove(&d->v);
	while ((rq = d->idle)) {
		d->idle = rq->next_idle;
		free(rq);
	}
	free(d);
}

static const struct virtio_class scsi_class = {
	.dev = {
		.name = "virtio-scsi",
		.fields = virtio_scsi_fields,
		.reset = scsi_power_on,
		.loaded = scsi_loaded,
		.destroy = scsi_destroy,
		.drain = scsi_device_drain,
	},
	.id = VIRTIO_ID_SCSI,
	.legacy_id = 0x1004,
	.pci_class = 0x010000,
	.config_len = CONFIG_LEN,
	.config_read = scsi_config_read,
	.config_write = scsi_config_write,
	.kick = scsi_kick,
	.reset = scsi_driver_reset,
};

struct virtio_scsi *
virtio_scsi_create(struct machine *m, int slot, unsigned flags, int targets, struct err *e)
{
	static const uint16_t sizes[QUEUES] = { 64, 64, QUEUE_SIZE };
	struct virtio_scsi *d;

	if (targets < 1 || targets > VIRTIO_SCSI_TARGETS) {
		err_set(e, ERR_INVALID, "A virtio SCSI controller has 1 to %d ports, not %d", VIRTIO_SCSI_TARGETS,
			targets);
		return NULL;
	}
	d = xcalloc(1, sizeof(*d));
	d->targets = targets;
	d->v.host_features = VIRTIO_BIT(VIRTIO_SCSI_F_HOTPLUG) | VIRTIO_BIT(VIRTIO_SCSI_F_CHANGE);
	if (virtio_add(m, &d->v, &scsi_class, slot, flags & VIRTIO_MODERN, sizes, QUEUES)) {
		free(d);
		err_set(e, ERR_IN_USE, "There is no free PCI slot for the virtio SCSI controller");
		return NULL;
	}
	return d;
}

int
virtio_scsi_attach(struct virtio_scsi *d, int target, const struct drive_config *cfg, struct err *e)
{
	if (target < 0 || target >= d->targets)
		return err_set(
			e, ERR_INVALID, "The virtio SCSI controller has ports 0 to %d, not %d", d->targets - 1, target);
	if (d->unit[target].present)
		return err_set(
			e, ERR_IN_USE, "There is a drive already at port %d of the virtio SCSI controller", target);
	if (!cfg->cdrom && !cfg->block)
		return err_set(
			e, ERR_INVALID, "The disk at port %d of the virtio SCSI controller has no image", target);
	scsi_attach(&d->unit[target], d->v.pci.dev.m, cfg, d->v.pci.dev.name, target);
	send_event(d, VIRTIO_SCSI_T_TRANSPORT_RESET, target, VIRTIO_SCSI_EVT_RESET_RESCAN);
	return 0;
}

int
virtio_scsi_detach(struct virtio_scsi *d, int target)
{
	if (target < 0 || target >= d->targets || !d->unit[target].present)
		return -ENOENT;
	scsi_detach(&d->unit[target]);
	send_event(d, VIRTIO_SCSI_T_TRANSPORT_RESET, target, VIRTIO_SCSI_EVT_RESET_REMOVED);
	return 0;
}

int
virtio_scsi_change_medium(struct virtio_scsi *d, int target, struct block *medium, bool force)
{
	if (target < 0 || target >= d->targets)
		return -ENOENT;
	return scsi_change_medium(&d->unit[target], medium, force);
}
