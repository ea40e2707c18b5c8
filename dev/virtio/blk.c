/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Virtio block device (5.2): one queue of requests onto one disk image.
 *
 *	request: 0 u32 type, 4 u32 reserved, 8 u64 sector; data; at the very end of the writable part 1 status byte
 *
 * Theory of operation. A request's data is moved between the image and guest memory without a copy: the chain's pieces,
 * less the header and the status byte, are the block layer's iovec. Requests are carried out by the image's workers and
 * come back on the loop, in any order. Request objects are kept for reuse; there are never more than the queue has
 * entries.
 *
 * Write cache: with VIRTIO_BLK_F_FLUSH (and writeback = 1) a write is done when the host's page cache has it. A driver
 * that does not know flushes gets write-through: each write is followed by a flush before it is reported (5.2.6.2).
 */
#include <errno.h>
#include <linux/virtio_blk.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "block/block.h"
#include "dev/virtio/virtio.h"

#define SECTOR 512u
#define QUEUE_SIZE 256
#define HEADER_LEN 16
#define CONFIG_LEN 60
#define SEG_MAX (BLOCK_IOV_MAX - 2)
#define DISCARD_SECTORS_MAX (1u << 22) /* 2 GiB at a time */
#define RANGE_LEN 16

struct virtio_blk {
	struct virtio v;
	struct block *block;
	uint64_t sectors;
	bool read_only;
	char serial[VIRTIO_BLK_ID_BYTES];
	struct request *idle;
	uint8_t writeback;
	uint8_t error_logged;
};

struct request {
	struct block_req io;
	struct virtio_blk *d;
	struct request *next_idle;
	uint8_t *status;
	bool flush_after, status_cut;
	struct virtq_chain chain;
};

static const struct field virtio_blk_fields[] = {
	VIRTIO_FIELDS(struct virtio_blk),
	FIELD(struct virtio_blk, writeback),
	FIELD_END,
};

static void
finish(struct request *rq, uint8_t status)
{
	struct virtio_blk *d = rq->d;
	struct virtq_chain *c = &rq->chain;

	if (rq->status_cut)
		c->iov[c->out + c->in - 1].iov_len++;
	*rq->status = status;
	virtq_push(&d->v, 0, c, c->in_len);
	virtq_notify(&d->v, 0);
	rq->next_idle = d->idle;
	d->idle = rq;
}

static void
log_failure(struct request *rq, int result)
{
	struct virtio_blk *d = rq->d;

	if (d->error_logged)
		return;
	d->error_logged = 1;
	log_error(d->v.pci.dev.name, "'%s': %s at byte %llu failed: %s (more errors are not reported here)",
		block_path(d->block), rq->io.op == BLOCK_READ ? "a read" : "a write", (unsigned long long)rq->io.off,
		strerror(-result));
}

static void
done(struct block_req *io, int result)
{
	struct request *rq = container_of(io, struct request, io);

	if (!result && rq->flush_after) {
		rq->flush_after = false;
		io->op = BLOCK_FLUSH;
		io->iovcnt = 0;
		block_submit(rq->d->block, io);
		return;
	}
	if (result)
		log_failure(rq, result);
	finish(rq, !result ? VIRTIO_BLK_S_OK : result == -EOPNOTSUPP ? VIRTIO_BLK_S_UNSUPP : VIRTIO_BLK_S_IOERR);
}

static void
submit(struct request *rq, enum block_op op, uint64_t sector, uint64_t len)
{
	struct virtio_blk *d = rq->d;
	bool changes = op == BLOCK_WRITE || op == BLOCK_WRITE_ZEROES;

	rq->flush_after = changes && !(virtio_has(&d->v, VIRTIO_BLK_F_FLUSH) && d->writeback);
	rq->io.op = op;
	rq->io.off = sector * SECTOR;
	rq->io.len = len;
	rq->io.done = done;
	block_submit(d->block, &rq->io);
}

static bool
in_range(const struct virtio_blk *d, uint64_t sector, uint64_t len)
{
	return sector <= d->sectors && len / SECTOR <= d->sectors - sector;
}

/* Reads and writes: the data pieces of the chain become the iovec. */
static void
transfer(struct request *rq, bool write, uint64_t sector)
{
	struct virtq_chain *c = &rq->chain;
	struct iovec *iov = write ? c->iov : c->iov + c->out;
	int n = write ? c->out : c->in;
	uint32_t len = write ? c->out_len - HEADER_LEN : c->in_len - 1, skip = write ? HEADER_LEN : 0;

	for (; n && skip >= iov->iov_len; n--, iov++)
		skip -= (uint32_t)iov->iov_len;
	if (skip) {
		iov->iov_base = (uint8_t *)iov->iov_base + skip;
		iov->iov_len -= skip;
	}
	if (!write && iov[n - 1].iov_len == 1) {
		n--;
	} else if (!write) {
		iov[n - 1].iov_len--;
		rq->status_cut = true;
	}
	if (len % SECTOR || !in_range(rq->d, sector, len) || n > BLOCK_IOV_MAX) {
		finish(rq, VIRTIO_BLK_S_IOERR);
	} else if (!len) {
		finish(rq, VIRTIO_BLK_S_OK);
	} else {
		rq->io.iov = iov;
		rq->io.iovcnt = n;
		submit(rq, write ? BLOCK_WRITE : BLOCK_READ, sector, len);
	}
}

/* Discard and write zeroes (5.2.6): one range { u64 sector, u32 sectors, u32 flags } behind the header. */
static void
range_request(struct request *rq, enum block_op op)
{
	uint8_t range[RANGE_LEN];
	uint64_t sector, len;
	uint32_t flags, allowed = op == BLOCK_WRITE_ZEROES ? VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP : 0;

	if (virtq_read(&rq->chain, HEADER_LEN, range, sizeof(range)) != sizeof(range) ||
		rq->chain.out_len != HEADER_LEN + RANGE_LEN) {
		finish(rq, VIRTIO_BLK_S_IOERR);
		return;
	}
	sector = le64(range);
	len = (uint64_t)le32(range + 8) * SECTOR;
	flags = le32(range + 12);
	if (flags & ~allowed)
		finish(rq, VIRTIO_BLK_S_UNSUPP);
	else if (!in_range(rq->d, sector, len) || len / SECTOR > DISCARD_SECTORS_MAX)
		finish(rq, VIRTIO_BLK_S_IOERR);
	else if (!len)
		finish(rq, VIRTIO_BLK_S_OK);
	else
		submit(rq, op, sector, len);
}

static void
get_id(struct request *rq)
{
	uint32_t room = rq->chain.in_len - 1;

	virtq_write(&rq->chain, 0, rq->d->serial, MIN(room, (uint32_t)VIRTIO_BLK_ID_BYTES));
	finish(rq, room < VIRTIO_BLK_ID_BYTES ? VIRTIO_BLK_S_IOERR : VIRTIO_BLK_S_OK);
}

static void
start(struct request *rq, uint32_t type, uint64_t sector)
{
	struct virtio_blk *d = rq->d;
	bool changes = type == VIRTIO_BLK_T_OUT || type == VIRTIO_BLK_T_DISCARD || type == VIRTIO_BLK_T_WRITE_ZEROES;

	if (changes && d->read_only) {
		finish(rq, VIRTIO_BLK_S_IOERR);
		return;
	}
	switch (type) {
	case VIRTIO_BLK_T_IN:
		transfer(rq, false, sector);
		break;
	case VIRTIO_BLK_T_OUT:
		transfer(rq, true, sector);
		break;
	case VIRTIO_BLK_T_FLUSH:
		submit(rq, BLOCK_FLUSH, 0, 0);
		break;
	case VIRTIO_BLK_T_GET_ID:
		get_id(rq);
		break;
	case VIRTIO_BLK_T_DISCARD:
		range_request(rq, BLOCK_DISCARD);
		break;
	case VIRTIO_BLK_T_WRITE_ZEROES:
		range_request(rq, BLOCK_WRITE_ZEROES);
		break;
	default:
		finish(rq, VIRTIO_BLK_S_UNSUPP);
	}
}

static struct request *
request_get(struct virtio_blk *d)
{
	struct request *rq = d->idle;

	if (rq) {
		d->idle = rq->next_idle;
		return rq;
	}
	rq = xcalloc(1, sizeof(*rq));
	rq->d = d;
	return rq;
}

static void
blk_kick(struct virtio *v, int queue)
{
	struct virtio_blk *d = (struct virtio_blk *)v;
	struct request *rq = request_get(d);
	struct virtq_chain *c = &rq->chain;

	while (virtq_pop(v, queue, c)) {
		uint8_t header[HEADER_LEN];

		if (virtq_read(c, 0, header, sizeof(header)) != sizeof(header) || !c->in_len) {
			virtio_broken(v, queue, "a request has no header or no status byte");
			break;
		}
		rq->status = (uint8_t *)c->iov[c->out + c->in - 1].iov_base + c->iov[c->out + c->in - 1].iov_len - 1;
		rq->status_cut = false;
		memset(&rq->io, 0, sizeof(rq->io));
		start(rq, le32(header), le64(header + 8));
		rq = request_get(d);
		c = &rq->chain;
	}
	rq->next_idle = d->idle;
	d->idle = rq;
}

static void
blk_config_read(struct virtio *v, uint8_t *c)
{
	struct virtio_blk *d = (struct virtio_blk *)v;
	uint64_t cylinders = d->sectors / (16 * 63);

	put_le64(c + 0, d->sectors);
	put_le32(c + 12, SEG_MAX);
	put_le16(c + 16, (uint16_t)MIN(cylinders, 16383));
	c[18] = 16; /* heads, sectors: for firmware only */
	c[19] = 63;
	put_le32(c + 20, SECTOR);
	c[32] = d->writeback;
	put_le16(c + 34, 1); /* queues */
	put_le32(c + 36, DISCARD_SECTORS_MAX);
	put_le32(c + 40, 1);
	put_le32(c + 44, 8); /* discard alignment, sectors */
	put_le32(c + 48, DISCARD_SECTORS_MAX);
	put_le32(c + 52, 1);
	c[56] = 1; /* write zeroes may unmap */
}

static void
blk_config_write(struct virtio *v, unsigned off, uint32_t value, unsigned size)
{
	struct virtio_blk *d = (struct virtio_blk *)v;

	if (off == 32 && size == 1 && virtio_has(v, VIRTIO_BLK_F_CONFIG_WCE))
		d->writeback = value & 1;
}

static void
blk_reset(struct virtio *v)
{
	struct virtio_blk *d = (struct virtio_blk *)v;

	block_drain(d->block);
	d->writeback = 1;
}

static void
blk_drain(struct device *dev)
{
	block_drain(((struct virtio_blk *)dev)->block);
}

static void
blk_destroy(struct device *dev)
{
	struct virtio_blk *d = (struct virtio_blk *)dev;
	struct request *rq;

	block_drain(d->block);
	block_attach_loop(d->block, NULL);
	virtio_remove(&d->v);
	while ((rq = d->idle)) {
		d->idle = rq->next_idle;
		free(rq);
	}
	free(d);
}

static const struct virtio_class blk_class = {
	.dev = {
		.name = "virtio-blk",
		.fields = virtio_blk_fields,
		.reset = virtio_power_on,
		.loaded = virtio_loaded,
		.destroy = blk_destroy,
		.drain = blk_drain,
	},
	.id = VIRTIO_ID_BLOCK,
	.legacy_id = 0x1001,
	.pci_class = 0x010000,
	.config_len = CONFIG_LEN,
	.config_read = blk_config_read,
	.config_write = blk_config_write,
	.kick = blk_kick,
	.reset = blk_reset,
};

struct device *
virtio_blk_create(struct machine *m, int slot, unsigned flags, struct block *b, const char *serial, struct err *e)
{
	static const uint16_t sizes[] = { QUEUE_SIZE };
	struct virtio_blk *d = xcalloc(1, sizeof(*d));
	struct block_info info;

	block_get_info(b, &info);
	d->block = b;
	d->sectors = info.size / SECTOR;
	d->read_only = info.read_only;
	if (serial)
		memcpy(d->serial, serial, strnlen(serial, sizeof(d->serial)));
	d->v.host_features = VIRTIO_BIT(VIRTIO_BLK_F_SEG_MAX) | VIRTIO_BIT(VIRTIO_BLK_F_GEOMETRY) |
			     VIRTIO_BIT(VIRTIO_BLK_F_BLK_SIZE) | VIRTIO_BIT(VIRTIO_BLK_F_FLUSH) |
			     VIRTIO_BIT(VIRTIO_BLK_F_CONFIG_WCE);
	d->v.host_features |= d->read_only ? VIRTIO_BIT(VIRTIO_BLK_F_RO)
					   : VIRTIO_BIT(VIRTIO_BLK_F_DISCARD) | VIRTIO_BIT(VIRTIO_BLK_F_WRITE_ZEROES);
	block_attach_loop(b, m->loop);
	if (virtio_add(m, &d->v, &blk_class, slot, flags & VIRTIO_MODERN, sizes, ARRAY_LEN(sizes))) {
		block_attach_loop(b, NULL);
		free(d);
		err_set(e, ERR_INVALID, "PCI slot %d for a virtio disk is taken", slot);
		return NULL;
	}
	return &d->v.pci.dev;
}
