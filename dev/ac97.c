/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The AC'97 controller of an 82801AA, 8086:2415 ("Intel I/O Controller Hub (ICH) AC '97 Digital Controller / Codec
 * Programmer's Reference Manual", ICH below), and a codec of Analog Devices, AD1980 ("Audio Codec '97" 2.3, AC97
 * below).
 *
 *	BAR 0, ports: the codec's registers (mixer), 16 bits each
 *	BAR 1, ports: three bus masters at 0x00 (PCM in), 0x10 (PCM out), 0x20 (microphone), each:
 *	    00 buffer descriptor list  04 current, 05 last valid index  06 status  08 samples left  0a prefetched index
 *	    0b control
 *	  and 0x2c global control, 0x30 global status, 0x34 codec access semaphore
 *	a buffer descriptor: address, samples 15:0, 31 interrupt at its end, 30 what to play behind the last one
 *
 * Theory of operation. A bus master that runs moves samples at the codec's rate in virtual time: what is due since it
 * was last looked at, whenever a timer of TICK fires or the guest reads where it is. So a paused machine stands still
 * in its music, and the guest's idea of time and of the sound agree. Samples played go to the audio sink; samples
 * recorded are silence.
 */
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/str.h"
#include "dev/audio.h"

#define MASTERS 3
#define TICK 5000000ull /* ns */
#define PIECE 1024	/* samples at once */

enum { PCM_IN, PCM_OUT, MIC };
enum { BDBAR = 0, CIV = 4, LVI = 5, SR = 6, PICB = 8, PIV = 10, CR = 11 };
enum { SR_DCH = 1, SR_CELV = 2, SR_LVBCI = 4, SR_BCIS = 8, SR_FIFOE = 16 };
enum { CR_RPBM = 1, CR_RR = 2, CR_LVBIE = 4, CR_FEIE = 8, CR_IOCE = 16 };
enum { GLOB_CNT = 0x2c, GLOB_STA = 0x30, CAS = 0x34 };
enum { STA_READY = 1 << 8, CNT_COLD = 2, CNT_WARM = 4 };
#define BD_IOC (1u << 31)

/* The codec's registers */
enum {
	MASTER_VOLUME = 0x02,
	HEADPHONE_VOLUME = 0x04,
	PCM_VOLUME = 0x18,
	POWERDOWN = 0x26,
	EXTENDED_ID = 0x28,
	EXTENDED = 0x2a,
	DAC_RATE = 0x2c,
	ADC_RATE = 0x32,
	MIC_RATE = 0x34,
	VENDOR1 = 0x7c,
	VENDOR2 = 0x7e,
	MUTE = 0x8000,
	VRA = 1,
};

struct master {
	uint32_t bdbar, address;
	uint8_t civ, lvi, piv, cr;
	uint16_t sr, picb;
	uint8_t ioc, unused[3];
	uint64_t at; /* virtual time up to which samples have moved */
};

struct ac97 {
	struct pci_dev pci;
	struct vtimer tick;
	struct audio *sink; /* not ours; NULL: nothing is heard */
	uint16_t codec[64];
	uint32_t cnt, sta;
	uint8_t cas;
	struct master master[MASTERS];
};

#define MASTER_FIELDS(n)                                                                                               \
	FIELD(struct ac97, master[n].bdbar), FIELD(struct ac97, master[n].address), FIELD(struct ac97, master[n].civ), \
		FIELD(struct ac97, master[n].lvi), FIELD(struct ac97, master[n].piv),                                  \
		FIELD(struct ac97, master[n].cr), FIELD(struct ac97, master[n].sr),                                    \
		FIELD(struct ac97, master[n].picb), FIELD(struct ac97, master[n].ioc),                                 \
		FIELD(struct ac97, master[n].at)

static const struct field ac97_fields[] = {
	FIELD_ARRAY(struct ac97, codec),
	FIELD(struct ac97, cnt),
	FIELD(struct ac97, sta),
	FIELD(struct ac97, cas),
	MASTER_FIELDS(0),
	MASTER_FIELDS(1),
	MASTER_FIELDS(2),
	FIELD_END,
};

/* ---- interrupts ---- */

static void
update_irq(struct ac97 *a)
{
	static const uint32_t bits[MASTERS] = { 1 << 5, 1 << 6, 1 << 7 };
	uint32_t any = 0;

	for (int i = 0; i < MASTERS; i++) {
		const struct master *m = &a->master[i];

		if (((m->sr & SR_LVBCI) && (m->cr & CR_LVBIE)) || ((m->sr & SR_BCIS) && (m->cr & CR_IOCE)))
			any |= bits[i];
	}
	a->sta = (a->sta & ~(bits[0] | bits[1] | bits[2])) | any;
	pci_intx(&a->pci, any != 0);
}

/* ---- samples ---- */

static unsigned
rate_of(const struct ac97 *a, int n)
{
	static const uint8_t regs[MASTERS] = { ADC_RATE, DAC_RATE, MIC_RATE };
	unsigned rate = a->codec[EXTENDED / 2] & VRA ? a->codec[regs[n] / 2] : 48000;

	return rate < 4000 ? 4000 : MIN(rate, 48000u);
}

static void
load_descriptor(struct ac97 *a, struct master *m)
{
	uint8_t raw[8];

	if (!mem_read(&a->pci.dev.m->mem, m->bdbar + 8u * m->civ, raw, sizeof(raw)))
		memset(raw, 0, sizeof(raw));
	m->address = le32(raw) & ~1u;
	m->picb = le16(raw + 4);
	m->ioc = raw[7] >> 7;
	m->piv = (m->civ + 1) & 31;
}

/* The end of a buffer (ICH 3.2.1). False: it was the last. */
static bool
next_descriptor(struct ac97 *a, struct master *m)
{
	if (m->ioc)
		m->sr |= SR_BCIS;
	if (m->civ == m->lvi) {
		m->sr |= SR_LVBCI | SR_DCH | SR_CELV;
		return false;
	}
	m->civ = m->piv;
	load_descriptor(a, m);
	return true;
}

/* Nothing goes in, or nothing comes out: neither of the line nor of the headphones, which drivers take for the same. */
static bool
is_mute(const struct ac97 *a)
{
	return (a->codec[PCM_VOLUME / 2] | (a->codec[MASTER_VOLUME / 2] & a->codec[HEADPHONE_VOLUME / 2])) & MUTE;
}

static void
move_samples(struct ac97 *a, int n, const struct master *m, uint32_t count)
{
	struct mem *mem = &a->pci.dev.m->mem;
	int16_t buf[PIECE];

	if (n != PCM_OUT) {
		memset(buf, 0, 2 * count);
		mem_write(mem, m->address, buf, 2 * count);
		return;
	}
	mem_read(mem, m->address, buf, 2 * count);
	if (is_mute(a))
		memset(buf, 0, 2 * count);
	audio_play(a->sink, buf, count / 2, rate_of(a, n));
}

/* Two channels; the microphone has one. */
static unsigned
channels(int n)
{
	return n == MIC ? 1 : 2;
}

/* Bring a bus master up to this moment. */
static void
catch_up(struct ac97 *a, int n)
{
	struct master *m = &a->master[n];
	uint64_t now = clock_now(&a->pci.dev.m->clock), due;
	unsigned rate = rate_of(a, n);
	int empty = 0;

	if (!(m->cr & CR_RPBM) || (m->sr & SR_DCH) || now <= m->at)
		return;
	/* After a long pause of ours a second is enough: a ring of buffers is shorter. */
	due = MIN(muldiv64(now - m->at, rate, 1000000000), (uint64_t)rate);
	if (!due)
		return;
	m->at = due == rate ? now : m->at + muldiv64(due, 1000000000, rate);
	due *= channels(n);
	while (due && empty < 64) {
		uint32_t count = (uint32_t)MIN(MIN(due, (uint64_t)PIECE), (uint64_t)m->picb);

		if (count) {
			move_samples(a, n, m, count);
			m->address += 2 * count;
			m->picb = (uint16_t)(m->picb - count);
			due -= count;
		} else {
			empty++;
		}
		if (!m->picb && !next_descriptor(a, m))
			break;
	}
	update_irq(a);
}

static void
arm(struct ac97 *a)
{
	for (int i = 0; i < MASTERS; i++)
		if ((a->master[i].cr & CR_RPBM) && !(a->master[i].sr & SR_DCH)) {
			vtimer_arm(&a->tick, clock_now(&a->pci.dev.m->clock) + TICK);
			return;
		}
	vtimer_cancel(&a->tick);
}

static void
tick(void *opaque)
{
	struct ac97 *a = opaque;

	for (int i = 0; i < MASTERS; i++)
		catch_up(a, i);
	arm(a);
}

/* ---- bus masters ---- */

static void
begin(struct ac97 *a, struct master *m)
{
	m->at = clock_now(&a->pci.dev.m->clock);
	if (m->sr & SR_DCH && !(m->sr & SR_CELV)) {
		m->civ = m->piv;
		load_descriptor(a, m);
	}
	m->sr &= ~(uint16_t)SR_DCH;
}

static void
reset_master(struct master *m)
{
	memset(m, 0, sizeof(*m));
	m->sr = SR_DCH;
}

static void
write_control(struct ac97 *a, int n, uint8_t v)
{
	struct master *m = &a->master[n];
	bool ran = m->cr & CR_RPBM;

	if (v & CR_RR) {
		if (!ran)
			reset_master(m);
		update_irq(a);
		return;
	}
	catch_up(a, n);
	m->cr = v & 0x1d;
	if (!(m->cr & CR_RPBM))
		m->sr |= SR_DCH;
	else if (!ran && m->picb)
		begin(a, m);
	else if (!ran) {
		m->sr &= ~(uint16_t)SR_CELV;
		m->piv = m->civ;
		m->sr |= SR_DCH;
		begin(a, m);
	}
	update_irq(a);
	arm(a);
}

/* A new last buffer lets one that had come to its end go on. */
static void
write_lvi(struct ac97 *a, int n, uint8_t v)
{
	struct master *m = &a->master[n];

	catch_up(a, n);
	m->lvi = v & 31;
	if ((m->cr & CR_RPBM) && (m->sr & SR_DCH)) {
		m->sr &= ~(uint16_t)(SR_DCH | SR_CELV);
		m->civ = m->piv;
		load_descriptor(a, m);
		m->at = clock_now(&a->pci.dev.m->clock);
		arm(a);
	}
}

static uint32_t
read_master(struct ac97 *a, int n, unsigned reg)
{
	const struct master *m = &a->master[n];

	catch_up(a, n);
	switch (reg & ~3u) {
	case BDBAR:
		return m->bdbar >> 8 * (reg & 3);
	case CIV:
		return (m->civ | (uint32_t)m->lvi << 8 | (uint32_t)m->sr << 16) >> 8 * (reg & 3);
	default:
		return (m->picb | (uint32_t)m->piv << 16 | (uint32_t)m->cr << 24) >> 8 * (reg & 3);
	}
}

static void
write_master(struct ac97 *a, int n, unsigned reg, uint32_t v, unsigned size)
{
	struct master *m = &a->master[n];

	if (reg == BDBAR && size == 4) {
		m->bdbar = v & ~7u;
	} else if (reg == LVI) {
		write_lvi(a, n, (uint8_t)v);
	} else if (reg == SR) {
		m->sr &= ~(uint16_t)(v & (SR_LVBCI | SR_BCIS | SR_FIFOE));
		update_irq(a);
	} else if (reg == CR) {
		write_control(a, n, (uint8_t)v);
	} else if (reg == CIV && size == 4) {
		write_lvi(a, n, (uint8_t)(v >> 8));
		m->sr &= ~(uint16_t)(v >> 16 & (SR_LVBCI | SR_BCIS | SR_FIFOE));
		update_irq(a);
	}
}

static void codec_reset(struct ac97 *a);

static uint64_t
bus_read_port(void *opaque, uint64_t off, unsigned size)
{
	struct ac97 *a = opaque;
	unsigned reg = (unsigned)off;

	if (reg < 0x30 && (reg & 15) < 12)
		return read_master(a, (int)reg / 16, reg & 15);
	if (reg == GLOB_CNT)
		return a->cnt;
	if (reg == GLOB_STA)
		return a->sta | STA_READY;
	if (reg == CAS) {
		uint8_t was = a->cas;

		a->cas = 1;
		return was;
	}
	return 0;
}

static void
bus_write_port(void *opaque, uint64_t off, uint64_t value, unsigned size)
{
	struct ac97 *a = opaque;
	unsigned reg = (unsigned)off;

	if (reg < 0x30 && (reg & 15) < 12) {
		write_master(a, (int)reg / 16, reg & 15, (uint32_t)value, size);
	} else if (reg == GLOB_CNT) {
		if (!(value & CNT_COLD) || (value & CNT_WARM))
			codec_reset(a);
		a->cnt = (uint32_t)value & 0x3f & ~(uint32_t)CNT_WARM;
	} else if (reg == CAS) {
		a->cas = 0;
	}
}

/* ---- the codec ---- */

static void
codec_reset(struct ac97 *a)
{
	static const struct {
		uint8_t reg;
		uint16_t value;
	} usual[] = { { 0x00, 0x0090 }, { 0x02, 0x8000 }, { 0x04, 0x8000 }, { 0x06, 0x8000 }, { 0x0a, 0 },
		{ 0x0c, 0x8008 }, { 0x0e, 0x8008 }, { 0x10, 0x8808 }, { 0x12, 0x8808 }, { 0x16, 0x8808 },
		{ 0x18, 0x8808 }, { 0x1c, 0x8000 }, { POWERDOWN, 0x000f }, { EXTENDED_ID, VRA }, { DAC_RATE, 48000 },
		{ ADC_RATE, 48000 }, { MIC_RATE, 48000 }, { VENDOR1, 0x4144 }, { VENDOR2, 0x5370 } };

	memset(a->codec, 0, sizeof(a->codec));
	for (size_t i = 0; i < ARRAY_LEN(usual); i++)
		a->codec[usual[i].reg / 2] = usual[i].value;
}

static uint64_t
codec_read(void *opaque, uint64_t off, unsigned size)
{
	struct ac97 *a = opaque;

	a->cas = 0;
	return off < sizeof(a->codec) ? a->codec[off / 2] : 0xffff;
}

static void
codec_write(void *opaque, uint64_t off, uint64_t value, unsigned size)
{
	struct ac97 *a = opaque;
	unsigned reg = (unsigned)off & ~1u;
	uint16_t v = (uint16_t)value;

	a->cas = 0;
	if (reg >= sizeof(a->codec))
		return;
	switch (reg) {
	case 0x00:
		codec_reset(a);
		return;
	case POWERDOWN: /* the ready bits are the codec's */
		v = (uint16_t)((v & 0xff00) | 0x0f);
		break;
	case EXTENDED:
		v &= VRA;
		break;
	case DAC_RATE:
	case ADC_RATE:
	case MIC_RATE:
		for (int i = 0; i < MASTERS; i++)
			catch_up(a, i);
		if (!(a->codec[EXTENDED / 2] & VRA))
			v = 48000;
		v = v < 4000 ? 4000 : MIN(v, 48000);
		break;
	case EXTENDED_ID:
	case VENDOR1:
	case VENDOR2:
		return;
	default:
		break;
	}
	a->codec[reg / 2] = v;
}

static const struct bus_ops codec_ops = { .read = codec_read, .write = codec_write, .min_size = 2, .max_size = 2 };
static const struct bus_ops master_ops = {
	.read = bus_read_port, .write = bus_write_port, .min_size = 1, .max_size = 4
};

/* ---- life ---- */

static void
ac97_reset(struct device *d)
{
	struct ac97 *a = container_of(d, struct ac97, pci.dev);

	pci_reset(&a->pci);
	vtimer_cancel(&a->tick);
	a->cnt = a->sta = 0;
	a->cas = 0;
	for (int i = 0; i < MASTERS; i++)
		reset_master(&a->master[i]);
	codec_reset(a);
	update_irq(a);
}

static void
ac97_loaded(struct device *d)
{
	struct ac97 *a = container_of(d, struct ac97, pci.dev);

	for (int i = 0; i < MASTERS; i++) {
		a->master[i].civ &= 31;
		a->master[i].lvi &= 31;
		a->master[i].piv &= 31;
	}
	pci_loaded(&a->pci);
	update_irq(a);
	arm(a);
}

static void
ac97_destroy(struct device *d)
{
	struct ac97 *a = container_of(d, struct ac97, pci.dev);

	vtimer_cancel(&a->tick);
	pci_remove(d->m, &a->pci);
	free(a);
}

static const struct dev_class ac97_class = {
	.name = "ac97",
	.fields = ac97_fields,
	.reset = ac97_reset,
	.loaded = ac97_loaded,
	.destroy = ac97_destroy,
};

struct device *
ac97_create(struct machine *m, int slot, struct audio *sink, struct err *e)
{
	struct ac97 *a = xcalloc(1, sizeof(*a));
	struct pci_dev *p = &a->pci;

	p->vendor = 0x8086;
	p->device = 0x2415;
	p->subvendor = 0x8086;
	p->subdevice = 0;
	p->revision = 1;
	p->class = 0x040100;
	p->intx_pin = 1;
	p->bars[0] = (struct pci_bar){ .kind = PCI_BAR_IO, .size = 256, .ops = &codec_ops, .opaque = a };
	p->bars[1] = (struct pci_bar){ .kind = PCI_BAR_IO, .size = 64, .ops = &master_ops, .opaque = a };
	a->sink = sink;
	if (pci_add(m, p, &ac97_class, slot, 0)) {
		free(a);
		err_set(e, ERR_IN_USE, "There is no free PCI slot for the sound card");
		return NULL;
	}
	vtimer_init(&a->tick, &m->clock, tick, a);
	ac97_reset(&p->dev);
	return &p->dev;
}
