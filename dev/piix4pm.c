/* SPDX-License-Identifier: Apache-2.0 */
/*
 * PIIX4 power management: ACPI fixed hardware, the PM timer and the APM command port. (Intel 82371AB data sheet, order
 * 290562, chapter 7; ACPI 6.4 section 4.8 "Fixed hardware")
 *
 * The registers appear where firmware puts them (PMBA, config 0x40) once it enables them (PMREGMISC, 0x80). The SCI is
 * a level: any status bit whose enable bit is set, while SCI_EN is set.
 *
 * The PM timer is the virtual clock at 3.579545 MHz, 24 bits. Its status bit is set whenever bit 23 changes; it is
 * brought up to date when somebody looks, and a host timer is armed only while a change would interrupt.
 *
 * There is no system management mode. What an SMI handler would do on a write to the APM command port, switching ACPI
 * mode on and off, happens here. The SMBus controller is absent: its base address cannot be set.
 */
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/log.h"
#include "base/str.h"
#include "dev/dev.h"

enum {
	PMBA = 0x40,
	DEVACTB = 0x58,
	PMREGMISC = 0x80,

	PM1_STS = 0,
	PM1_EN = 2,
	PM1_CNT = 4,
	PM_TMR = 8,
	PM_PORTS = 64,

	TMR_STS = 1 << 0,
	GBL_STS = 1 << 5,
	PWRBTN_STS = 1 << 8,
	RTC_STS = 1 << 10,
	WAK_STS = 1 << 15,
	STS_CLEARABLE = TMR_STS | GBL_STS | PWRBTN_STS | RTC_STS | WAK_STS,
	EN_WRITABLE = TMR_STS | GBL_STS | PWRBTN_STS | RTC_STS,

	SCI_EN = 1 << 0,
	SLP_EN = 1 << 13,
	CNT_WRITABLE = 0x1c03,

	SLP_S5 = 0,
	SLP_S3 = 1,
};

#define PM_HZ 3579545u
#define NS 1000000000u
#define HALF (1u << 23) /* ticks between two changes of bit 23 */

struct piix4pm {
	struct pci_dev pci;
	struct irq sci;
	struct vtimer overflow;
	int ports; /* io_add() handle; -1 while not mapped */
	uint16_t mapped_at;
	uint16_t sts, en, cnt;
	uint16_t gpe_sts, gpe_en;
	uint64_t halves; /* changes of bit 23 that TMR_STS knows of */
	uint8_t apmc, apms;
};

/* ---- timer and interrupt ---- */

static uint64_t
ticks(struct piix4pm *p)
{
	return muldiv64(clock_now(&p->pci.dev.m->clock), PM_HZ, NS);
}

static void
update_timer_status(struct piix4pm *p)
{
	uint64_t halves = ticks(p) / HALF;

	if (halves != p->halves)
		p->sts |= TMR_STS;
	p->halves = halves;
}

static void
update(struct piix4pm *p)
{
	update_timer_status(p);
	irq_set(&p->sci, p->cnt & SCI_EN && (p->sts & p->en & EN_WRITABLE || p->gpe_sts & p->gpe_en));
	if (p->en & TMR_STS && !(p->sts & TMR_STS))
		vtimer_arm(
			&p->overflow, (uint64_t)(((unsigned __int128)(p->halves + 1) * HALF * NS + PM_HZ - 1) / PM_HZ));
	else
		vtimer_cancel(&p->overflow);
}

static void
overflowed(void *opaque)
{
	update(opaque);
}

void
piix4pm_power_button(struct piix4pm *p)
{
	p->sts |= PWRBTN_STS;
	update(p);
}

bool
piix4pm_acpi_enabled(struct piix4pm *p)
{
	return p->cnt & SCI_EN;
}

void
piix4pm_gpe(struct piix4pm *p, int bit)
{
	p->gpe_sts |= (uint16_t)(1u << (bit & 15));
	update(p);
}

void
piix4pm_woken(struct piix4pm *p, bool by_rtc)
{
	p->sts |= WAK_STS | (by_rtc ? RTC_STS : 0);
	update(p);
}

/* ---- PM1 registers: taken byte by byte, so that any width works ---- */

static uint8_t
byte_of(uint16_t v, uint64_t off)
{
	return (uint8_t)(v >> (off & 1 ? 8 : 0));
}

static uint16_t
with_byte(uint16_t old, uint64_t off, uint8_t v, uint16_t writable)
{
	unsigned shift = off & 1 ? 8 : 0;
	uint16_t mask = writable & (uint16_t)(0xff << shift);

	return (uint16_t)((old & ~mask) | ((v << shift) & mask));
}

static uint64_t
pm_read(void *opaque, uint64_t off, unsigned size)
{
	struct piix4pm *p = opaque;
	uint8_t bytes[PM_PORTS + 8] = { 0 };
	uint64_t v = 0;

	update_timer_status(p);
	put_le16(bytes + PM1_STS, p->sts);
	put_le16(bytes + PM1_EN, p->en);
	put_le16(bytes + PM1_CNT, p->cnt);
	put_le32(bytes + PM_TMR, (uint32_t)(ticks(p) & 0xffffff));
	memcpy(&v, bytes + off, size);
	return v;
}

static void
sleep_request(struct piix4pm *p)
{
	struct machine *m = p->pci.dev.m;
	unsigned type = p->cnt >> 10 & 7;

	if (type == SLP_S5)
		machine_event(m, MACHINE_POWEROFF, 0);
	else if (type == SLP_S3)
		machine_event(m, MACHINE_SUSPEND, 0);
	else
		log_guest(p->pci.dev.name, "sleep type %u is not one of this machine's", type);
}

static void
pm_write_byte(struct piix4pm *p, uint64_t off, uint8_t v)
{
	switch (off & ~1ull) {
	case PM1_STS:
		p->sts &= (uint16_t)~with_byte(0, off, v, STS_CLEARABLE);
		break;
	case PM1_EN:
		p->en = with_byte(p->en, off, v, EN_WRITABLE);
		break;
	case PM1_CNT:
		p->cnt = with_byte(p->cnt, off, v, CNT_WRITABLE);
		if (off & 1 && v << 8 & SLP_EN)
			sleep_request(p);
		break;
	}
}

static void
pm_write(void *opaque, uint64_t off, uint64_t value, unsigned size)
{
	struct piix4pm *p = opaque;

	update_timer_status(p);
	for (unsigned i = 0; i < size; i++)
		pm_write_byte(p, off + i, (uint8_t)(value >> 8 * i));
	update(p);
}

static const struct bus_ops pm_ops = { pm_read, pm_write, 1, 4 };

/* ---- general purpose events ---- */

static uint64_t
gpe_read(void *opaque, uint64_t off, unsigned size)
{
	struct piix4pm *p = opaque;

	return byte_of(off < 2 ? p->gpe_sts : p->gpe_en, off);
}

static void
gpe_write(void *opaque, uint64_t off, uint64_t value, unsigned size)
{
	struct piix4pm *p = opaque;

	if (off < 2)
		p->gpe_sts &= (uint16_t)~with_byte(0, off, (uint8_t)value, 0xffff);
	else
		p->gpe_en = with_byte(p->gpe_en, off, (uint8_t)value, 0xffff);
	update(p);
}

static const struct bus_ops gpe_ops = { gpe_read, gpe_write, 1, 1 };

/* ---- APM command and status ports ---- */

static uint64_t
apm_read(void *opaque, uint64_t off, unsigned size)
{
	struct piix4pm *p = opaque;

	return off ? p->apms : p->apmc;
}

static void
apm_write(void *opaque, uint64_t off, uint64_t value, unsigned size)
{
	struct piix4pm *p = opaque;

	if (off) {
		p->apms = (uint8_t)value;
		return;
	}
	p->apmc = (uint8_t)value;
	if (p->apmc == PIIX4PM_ACPI_ENABLE)
		p->cnt |= SCI_EN;
	else if (p->apmc == PIIX4PM_ACPI_DISABLE)
		p->cnt &= (uint16_t)~SCI_EN;
	update(p);
}

static const struct bus_ops apm_ops = { apm_read, apm_write, 1, 1 };

/* ---- configuration and the device ---- */

static void
map_ports(struct piix4pm *p)
{
	struct io *io = &p->pci.dev.m->io;
	uint16_t at = p->pci.config[PMREGMISC] & 1 ? le16(p->pci.config + PMBA) & 0xffc0 : 0;

	if (at == p->mapped_at)
		return;
	io_remove(io, p->ports);
	p->ports = at ? io_add(io, at, PM_PORTS, &pm_ops, p) : -1;
	p->mapped_at = at;
}

static void
config_written(struct pci_dev *d, unsigned reg, uint32_t value, unsigned size)
{
	map_ports((struct piix4pm *)d);
}

static const struct field fields[] = {
	FIELD(struct piix4pm, sts),
	FIELD(struct piix4pm, en),
	FIELD(struct piix4pm, cnt),
	FIELD(struct piix4pm, gpe_sts),
	FIELD(struct piix4pm, gpe_en),
	FIELD(struct piix4pm, halves),
	FIELD(struct piix4pm, apmc),
	FIELD(struct piix4pm, apms),
	FIELD_END,
};

static void
reset(struct device *d)
{
	struct piix4pm *p = (struct piix4pm *)d;

	pci_reset(&p->pci);
	p->pci.config[PMBA] = 1;
	/* APMC_EN: SeaBIOS takes it for "SMM is set up already" and leaves it alone. */
	p->pci.config[DEVACTB + 3] = 0x02;
	p->sts = p->en = p->cnt = p->gpe_sts = p->gpe_en = 0;
	p->apmc = p->apms = 0;
	p->halves = ticks(p) / HALF;
	map_ports(p);
	update(p);
}

static void
loaded(struct device *d)
{
	struct piix4pm *p = (struct piix4pm *)d;

	map_ports(p);
	update(p);
}

static void
destroy(struct device *d)
{
	struct piix4pm *p = (struct piix4pm *)d;

	vtimer_cancel(&p->overflow);
	io_remove(&d->m->io, p->ports);
	pci_remove(d->m, &p->pci);
	free(p);
}

static const struct dev_class class = {
	.name = "piix4pm",
	.fields = fields,
	.reset = reset,
	.loaded = loaded,
	.destroy = destroy,
};

struct piix4pm *
piix4pm_create(struct machine *m, int slot, struct irq sci)
{
	struct piix4pm *p = xcalloc(1, sizeof(*p));
	struct pci_dev *d = &p->pci;

	d->vendor = 0x8086;
	d->device = 0x7113;
	d->subvendor = 0x1af4;
	d->subdevice = 0x1100;
	d->revision = 3;
	d->class = 0x068000;
	d->intx_pin = 1;
	d->config_written = config_written;
	pci_add(m, d, &class, slot, 3);
	put_le16(d->writable + PMBA, 0xffc0);
	d->writable[PMREGMISC] = 1;
	p->sci = sci;
	p->ports = -1;
	vtimer_init(&p->overflow, &m->clock, overflowed, p);
	io_add(&m->io, PIIX4PM_GPE_BASE, 4, &gpe_ops, p);
	io_add(&m->io, 0xb2, 2, &apm_ops, p);
	reset(&d->dev);
	return p;
}
