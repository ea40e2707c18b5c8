/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The HD Audio controller of an ICH6, 8086:2668 ("High Definition Audio Specification" 1.0a, HDA below, chapters 3 and
 * 4), with the codec of dev/hda_codec.h at address 0.
 *
 *	BAR 0, memory: global registers, a ring of verbs (CORB) and one of responses (RIRB), a verb at once (ICOI),
 *	and from 0x80 on two streams of 0x20 bytes: 0 from the line, 1 to it
 *	a stream's list: entries of 16 bytes: address 64 bits, bytes, bit 0: interrupt at its end
 *
 * Theory of operation. Registers are bytes in `regs`, changed under a mask; `written` does what a write means beyond
 * that. A stream that runs moves at its rate in virtual time: what is due since it was last looked at, whenever a timer
 * of TICK fires or the guest reads where it is, as with AC'97. So a paused machine stands still in its music. What is
 * played in 16 bits and one or two channels goes to the audio sink if the codec lets it through; what is recorded is
 * silence.
 */
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/str.h"
#include "dev/audio.h"
#include "dev/hda_codec.h"

#define REGS 0xc0u
#define TICK 5000000ull	 /* ns */
#define PIECE 4096u	 /* bytes at once */
#define ENTRIES_MAX 1024 /* buffers in one go: of a sane list a few */
#define RING 256u
#define STREAMS 2
#define STREAM(n) (0x80u + 0x20u * (unsigned)(n))

enum {
	GCAP = 0x00,
	VMAJ = 0x03,
	OUTPAY = 0x04,
	INPAY = 0x06,
	GCTL = 0x08,
	WAKEEN = 0x0c,
	STATESTS = 0x0e,
	INTCTL = 0x20,
	INTSTS = 0x24,
	WALCLK = 0x30,
	CORBLBASE = 0x40,
	CORBWP = 0x48,
	CORBRP = 0x4a,
	CORBCTL = 0x4c,
	CORBSIZE = 0x4e,
	RIRBLBASE = 0x50,
	RIRBWP = 0x58,
	RINTCNT = 0x5a,
	RIRBCTL = 0x5c,
	RIRBSTS = 0x5d,
	RIRBSIZE = 0x5e,
	ICOI = 0x60,
	ICII = 0x64,
	ICIS = 0x68,
	DPLBASE = 0x70,
};
enum { SD_CTL = 0, SD_STS = 3, SD_LPIB = 4, SD_CBL = 8, SD_LVI = 0x0c, SD_FIFOS = 0x10, SD_FMT = 0x12, SD_BDPL = 0x18 };
enum { CTL_SRST = 1, CTL_RUN = 2, CTL_IOCE = 4, STS_BCIS = 4, STS_FIFORDY = 0x20 };

struct stream {
	uint64_t at;	 /* virtual time up to which it has moved */
	uint32_t offset; /* in the buffer `entry` of its list */
	uint8_t entry;
};

struct hda {
	struct pci_dev pci;
	struct vtimer tick;
	struct audio *sink; /* not ours; NULL: nothing is heard */
	struct hda_codec codec;
	uint8_t regs[REGS];
	uint16_t responses; /* since the last interrupt of RIRB */
	struct stream stream[STREAMS];
};

#define STREAM_FIELDS(n)                                                                                               \
	FIELD(struct hda, stream[n].at), FIELD(struct hda, stream[n].offset), FIELD(struct hda, stream[n].entry)

static const struct field hda_fields[] = {
	HDA_NODE_FIELDS(struct hda, codec),
	FIELD_ARRAY(struct hda, regs),
	FIELD(struct hda, responses),
	STREAM_FIELDS(0),
	STREAM_FIELDS(1),
	FIELD_END,
};

/* What a guest can change, and what it clears by writing ones: masks of bytes. */
static const struct mask {
	uint8_t reg, bytes[4];
} writable[] = {
	{ GCTL, { 1, 1 } }, { WAKEEN, { 1 } }, { INTCTL, { 3, 0, 0, 0xc0 } }, { CORBLBASE, { 0x80, 0xff, 0xff, 0xff } },
	{ CORBLBASE + 4, { 0xff, 0xff, 0xff, 0xff } }, { CORBWP, { 0xff } }, { CORBRP, { 0, 0x80 } }, { CORBCTL, { 3 } },
	{ RIRBLBASE, { 0x80, 0xff, 0xff, 0xff } }, { RIRBLBASE + 4, { 0xff, 0xff, 0xff, 0xff } }, { RINTCNT, { 0xff } },
	{ RIRBCTL, { 7 } }, { ICOI, { 0xff, 0xff, 0xff, 0xff } }, { ICIS, { 1 } }, { DPLBASE, { 0x81, 0xff, 0xff, 0xff } },
	{ DPLBASE + 4, { 0xff, 0xff, 0xff, 0xff } },
}, writable_stream[] = {
	{ SD_CTL, { 0x1f, 0, 0xff } }, { SD_CBL, { 0xff, 0xff, 0xff, 0xff } }, { SD_LVI, { 0xff } }, { SD_FMT, { 0x7f, 0x7f } },
	{ SD_BDPL, { 0x80, 0xff, 0xff, 0xff } }, { SD_BDPL + 4, { 0xff, 0xff, 0xff, 0xff } },
}, cleared[] = { { STATESTS, { 1 } }, { RIRBSTS, { 5 } }, { ICIS, { 2 } } }, cleared_stream[] = { { SD_STS, { 0x1c } } };

static uint8_t
mask_in(const struct mask *list, size_t count, unsigned reg)
{
	for (size_t i = 0; i < count; i++)
		if (reg >= list[i].reg && reg < list[i].reg + 4u && list[i].bytes[reg - list[i].reg])
			return list[i].bytes[reg - list[i].reg];
	return 0;
}

static uint64_t
address(const struct hda *h, unsigned reg)
{
	return le32(h->regs + reg) | (uint64_t)le32(h->regs + reg + 4) << 32;
}

/* ---- interrupts ---- */

static void
update_irq(struct hda *h)
{
	uint32_t status = 0, enabled = le32(h->regs + INTCTL);

	for (int n = 0; n < STREAMS; n++)
		if ((h->regs[STREAM(n) + SD_STS] & STS_BCIS) && (h->regs[STREAM(n)] & CTL_IOCE))
			status |= 1u << n;
	if ((h->regs[RIRBSTS] & h->regs[RIRBCTL] & 5) || (h->regs[STATESTS] & h->regs[WAKEEN]))
		status |= 1u << 30;
	if (status & enabled)
		status |= 1u << 31;
	put_le32(h->regs + INTSTS, status);
	pci_intx(&h->pci, (status & enabled & 0x7fffffff) && enabled >> 31);
}

/* ---- samples ---- */

struct format {
	unsigned rate, channels, bytes; /* of a frame */
	bool heard;
};

static struct format
format_of(const struct hda *h, int n)
{
	static const uint8_t widths[8] = { 1, 2, 4, 4, 4, 4, 4, 4 };
	unsigned v = le16(h->regs + STREAM(n) + SD_FMT), width = widths[v >> 4 & 7], channels = (v & 15) + 1;

	return (struct format){
		.rate = (v & 0x4000 ? 44100 : 48000) * MIN((v >> 11 & 7) + 1, 4u) / ((v >> 8 & 7) + 1),
		.channels = channels,
		.bytes = channels * width,
		.heard = width == 2 && channels <= 2,
	};
}

static void
move_frames(struct hda *h, int n, uint64_t gpa, uint32_t bytes, const struct format *f)
{
	struct mem *mem = &h->pci.dev.m->mem;
	uint8_t raw[PIECE];
	int16_t frames[2 * PIECE];

	if (n == 0) {
		memset(raw, 0, bytes);
		mem_write(mem, gpa, raw, bytes);
		return;
	}
	if (!f->heard || !hda_codec_plays(&h->codec, h->regs[STREAM(n) + SD_CTL + 2] >> 4) ||
		!mem_read(mem, gpa, raw, bytes))
		memset(raw, 0, bytes);
	for (uint32_t i = 0; i < bytes / f->bytes; i++) {
		const uint8_t *p = raw + i * f->bytes;

		frames[2 * i] = f->heard ? (int16_t)le16(p) : 0;
		frames[2 * i + 1] = f->heard ? (int16_t)le16(p + (f->channels == 2 ? 2 : 0)) : 0;
	}
	audio_play(h->sink, frames, bytes / f->bytes, f->rate);
}

/* Move up to `due` bytes of the current buffer; how many that were, and at its end the next one becomes it. */
static uint32_t
move_piece(struct hda *h, int n, uint64_t due, const struct format *f)
{
	uint8_t raw[16], *r = h->regs + STREAM(n);
	struct stream *s = &h->stream[n];
	uint32_t len, count, cycle = le32(r + SD_CBL), place;

	if (!mem_read(&h->pci.dev.m->mem, address(h, STREAM(n) + SD_BDPL) + 16u * s->entry, raw, sizeof(raw)))
		memset(raw, 0, sizeof(raw));
	len = le32(raw + 8);
	count = s->offset < len ? (uint32_t)MIN(MIN(due, (uint64_t)PIECE), (uint64_t)(len - s->offset)) : 0;
	count -= count % f->bytes;
	if (count)
		move_frames(h, n, le64(raw) + s->offset, count, f);
	s->offset += count;
	place = le32(r + SD_LPIB) + count;
	put_le32(r + SD_LPIB, cycle ? place % cycle : 0);
	if (s->offset >= len || len - s->offset < f->bytes) {
		if (raw[12] & 1)
			r[SD_STS] |= STS_BCIS;
		s->entry = s->entry >= r[SD_LVI] ? 0 : (uint8_t)(s->entry + 1);
		s->offset = 0;
	}
	return count;
}

static void
tell_position(struct hda *h, int n)
{
	uint64_t base = address(h, DPLBASE);

	if (base & 1)
		mem_write(&h->pci.dev.m->mem, (base & ~0x7full) + 8u * (unsigned)n, h->regs + STREAM(n) + SD_LPIB, 4);
}

/* Bring a stream up to this moment. */
static void
catch_up(struct hda *h, int n)
{
	struct stream *s = &h->stream[n];
	struct format f = format_of(h, n);
	uint64_t now = clock_now(&h->pci.dev.m->clock), due;

	if (!(h->regs[STREAM(n)] & CTL_RUN) || now <= s->at || !f.rate)
		return;
	/* After a long pause of ours a second is enough: a list is shorter. */
	due = MIN(muldiv64(now - s->at, f.rate, 1000000000), (uint64_t)f.rate);
	if (!due)
		return;
	s->at = due == f.rate ? now : s->at + muldiv64(due, 1000000000, f.rate);
	due *= f.bytes;
	for (int i = 0; due >= f.bytes && i < ENTRIES_MAX; i++)
		due -= move_piece(h, n, due, &f);
	tell_position(h, n);
	update_irq(h);
}

static void
arm(struct hda *h)
{
	if ((h->regs[STREAM(0)] | h->regs[STREAM(1)]) & CTL_RUN)
		vtimer_arm(&h->tick, clock_now(&h->pci.dev.m->clock) + TICK);
	else
		vtimer_cancel(&h->tick);
}

static void
tick(void *opaque)
{
	struct hda *h = opaque;

	for (int n = 0; n < STREAMS; n++)
		catch_up(h, n);
	arm(h);
}

/* ---- verbs ---- */

static uint32_t
run_verb(struct hda *h, uint32_t verb)
{
	return verb >> 28 ? 0 : hda_codec_verb(&h->codec, verb & 0x0fffffff);
}

static void
respond(struct hda *h, uint32_t response, unsigned address_of)
{
	uint8_t raw[8];

	if (!(h->regs[RIRBCTL] & 2))
		return;
	put_le32(raw, response);
	put_le32(raw + 4, address_of);
	h->regs[RIRBWP]++;
	mem_write(&h->pci.dev.m->mem, address(h, RIRBLBASE) + 8u * h->regs[RIRBWP], raw, sizeof(raw));
	if (++h->responses >= (h->regs[RINTCNT] ? h->regs[RINTCNT] : RING)) {
		h->responses = 0;
		h->regs[RIRBSTS] |= 1;
	}
}

/* All verbs there are (HDA 4.4.1). An empty ring is worth an interrupt as well. */
static void
run_ring(struct hda *h)
{
	bool any = false;
	uint8_t raw[4];

	if (!(h->regs[CORBCTL] & 2) || !(h->regs[GCTL] & 1))
		return;
	while (h->regs[CORBRP] != h->regs[CORBWP]) {
		h->regs[CORBRP]++;
		if (!mem_read(&h->pci.dev.m->mem, address(h, CORBLBASE) + 4u * h->regs[CORBRP], raw, sizeof(raw)))
			memset(raw, 0, sizeof(raw));
		respond(h, run_verb(h, le32(raw)), le32(raw) >> 28);
		any = true;
	}
	if (any && h->responses) {
		h->responses = 0;
		h->regs[RIRBSTS] |= 1;
	}
}

/* ---- registers ---- */

static void
reset_registers(struct hda *h)
{
	memset(h->regs, 0, sizeof(h->regs));
	put_le16(h->regs + GCAP, 0x1101); /* a stream each way, addresses of 64 bits */
	h->regs[VMAJ] = 1;
	put_le16(h->regs + OUTPAY, 0x3c);
	put_le16(h->regs + INPAY, 0x1d);
	h->regs[CORBSIZE] = h->regs[RIRBSIZE] = 0x42;
	for (int n = 0; n < STREAMS; n++)
		put_le16(h->regs + STREAM(n) + SD_FIFOS, 0xbf);
	memset(h->stream, 0, sizeof(h->stream));
	h->responses = 0;
	vtimer_cancel(&h->tick);
}

static void
stream_written(struct hda *h, int n, uint8_t was)
{
	uint8_t *r = h->regs + STREAM(n), now = r[SD_CTL];

	if (now & CTL_SRST) {
		memset(r, 0, 0x20);
		r[SD_CTL] = CTL_SRST;
		put_le16(r + SD_FIFOS, 0xbf);
		h->stream[n] = (struct stream){ 0 };
	} else if ((now & CTL_RUN) && !(was & CTL_RUN)) {
		h->stream[n].at = clock_now(&h->pci.dev.m->clock);
		r[SD_STS] |= STS_FIFORDY;
	} else if (!(now & CTL_RUN)) {
		r[SD_STS] &= (uint8_t)~STS_FIFORDY;
	}
	arm(h);
}

/* What a write to a byte means beyond its new value. */
static void
written(struct hda *h, unsigned reg, uint8_t was)
{
	switch (reg) {
	case GCTL:
		if (!(h->regs[GCTL] & 1)) {
			reset_registers(h);
			hda_codec_reset(&h->codec);
		} else if (!(was & 1)) {
			h->regs[STATESTS] |= 1; /* the codec says that it is there */
		}
		break;
	case CORBRP + 1:
		if (h->regs[CORBRP + 1] & 0x80)
			h->regs[CORBRP] = 0;
		break;
	case CORBWP:
	case CORBCTL:
		run_ring(h);
		break;
	case ICIS:
		if (h->regs[ICIS] & 1) {
			put_le32(h->regs + ICII, run_verb(h, le32(h->regs + ICOI)));
			h->regs[ICIS] = 2;
		}
		break;
	case STREAM(0):
	case STREAM(1):
		stream_written(h, reg == STREAM(1), was);
		break;
	default:
		break;
	}
}

static void
write_byte(struct hda *h, unsigned reg, uint8_t v)
{
	unsigned in = reg >= STREAM(0) ? (reg - STREAM(0)) % 0x20 : reg;
	bool stream = reg >= STREAM(0);
	uint8_t mask = stream ? mask_in(writable_stream, ARRAY_LEN(writable_stream), in)
			      : mask_in(writable, ARRAY_LEN(writable), in);
	uint8_t clear = stream ? mask_in(cleared_stream, ARRAY_LEN(cleared_stream), in)
			       : mask_in(cleared, ARRAY_LEN(cleared), in);
	uint8_t was = h->regs[reg];

	/* In reset nothing but the end of it is possible. */
	if (reg != GCTL && !(h->regs[GCTL] & 1))
		return;
	if (reg == RIRBWP + 1 && v & 0x80)
		h->regs[RIRBWP] = 0;
	h->regs[reg] = (uint8_t)(((was & ~mask) | (v & mask)) & ~(v & clear));
	written(h, reg, was);
}

static uint64_t
hda_read(void *opaque, uint64_t off, unsigned size)
{
	struct hda *h = opaque;
	uint64_t v = 0;

	if (off >= REGS || size > REGS - off)
		return 0;
	if (off >= STREAM(0))
		catch_up(h, (int)(off - STREAM(0)) / 0x20);
	put_le32(h->regs + WALCLK, (uint32_t)muldiv64(clock_now(&h->pci.dev.m->clock), 24, 1000));
	for (unsigned i = 0; i < size; i++)
		v |= (uint64_t)h->regs[off + i] << 8 * i;
	return v;
}

static void
hda_write(void *opaque, uint64_t off, uint64_t value, unsigned size)
{
	struct hda *h = opaque;

	if (off >= REGS || size > REGS - off)
		return;
	if (off >= STREAM(0))
		catch_up(h, (int)(off - STREAM(0)) / 0x20);
	/* A control's low byte comes last: its stream's number is beside it. */
	for (unsigned i = size; i--;)
		write_byte(h, (unsigned)off + i, (uint8_t)(value >> 8 * i));
	update_irq(h);
}

static const struct bus_ops hda_ops = { .read = hda_read, .write = hda_write, .min_size = 1, .max_size = 4 };

/* ---- life ---- */

static void
hda_reset(struct device *d)
{
	struct hda *h = container_of(d, struct hda, pci.dev);

	pci_reset(&h->pci);
	reset_registers(h);
	hda_codec_reset(&h->codec);
	update_irq(h);
}

static void
hda_loaded(struct device *d)
{
	struct hda *h = container_of(d, struct hda, pci.dev);

	pci_loaded(&h->pci);
	update_irq(h);
	arm(h);
}

static void
hda_destroy(struct device *d)
{
	struct hda *h = container_of(d, struct hda, pci.dev);

	vtimer_cancel(&h->tick);
	pci_remove(d->m, &h->pci);
	free(h);
}

static const struct dev_class hda_class = {
	.name = "hda",
	.fields = hda_fields,
	.reset = hda_reset,
	.loaded = hda_loaded,
	.destroy = hda_destroy,
};

struct device *
hda_create(struct machine *m, int slot, struct audio *sink, struct err *e)
{
	struct hda *h = xcalloc(1, sizeof(*h));
	struct pci_dev *p = &h->pci;

	p->vendor = 0x8086;
	p->device = 0x2668;
	p->subvendor = 0x8384;
	p->subdevice = 0x7680;
	p->revision = 1;
	p->class = 0x040300;
	p->intx_pin = 1;
	p->bars[0] = (struct pci_bar){ .kind = PCI_BAR_MEM32, .size = 0x4000, .ops = &hda_ops, .opaque = h };
	h->sink = sink;
	if (pci_add(m, p, &hda_class, slot, 0)) {
		free(h);
		err_set(e, ERR_IN_USE, "There is no free PCI slot for the sound card");
		return NULL;
	}
	vtimer_init(&h->tick, &m->clock, tick, h);
	hda_reset(&p->dev);
	return &p->dev;
}
