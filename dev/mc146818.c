/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The MC146818 real-time clock and 256 bytes of CMOS memory. (Motorola MC146818 data sheet; the upper bank at
 * 0x72-0x73: 82371AB data sheet 7.1.6)
 *
 * While the clock runs its date is a sum: an epoch + virtual time. While it is stopped (SET in register B, or a
 * divider that does not run) the time registers are memory, as on the chip, and the sum is made anew when it starts.
 *
 * The date follows the host's: when that has moved against the virtual time (the machine was saved or paused, the host's
 * clock was set), the date moves as far (mc146818_follow()), so that what the guest has set it to beside the host's
 * stays.
 *
 * Nothing ticks. The flags PF, AF and UF are brought up to date from the time since they were last looked at
 * (update_flags()), and a timer is armed only for the next event that is enabled and only while no interrupt is
 * pending: as long as the guest has not read register C, further events change nothing it could see.
 */
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/str.h"
#include "dev/dev.h"

enum {
	SECONDS = 0,
	SECONDS_ALARM = 1,
	MINUTES = 2,
	MINUTES_ALARM = 3,
	HOURS = 4,
	HOURS_ALARM = 5,
	WEEKDAY = 6,
	DAY = 7,
	MONTH = 8,
	YEAR = 9,
	REG_A = 10,
	REG_B = 11,
	REG_C = 12,
	REG_D = 13,
	CENTURY = 0x32,
	CENTURY_PS2 = 0x37,

	A_UIP = 0x80,
	A_DIVIDER = 0x70,
	A_DIVIDER_RUN = 0x20,
	A_RATE = 0x0f,

	B_SET = 0x80,
	B_PIE = 0x40,
	B_AIE = 0x20,
	B_UIE = 0x10,
	B_BINARY = 0x04,
	B_24H = 0x02,

	C_IRQF = 0x80,
	C_PF = 0x40,
	C_AF = 0x20,
	C_UF = 0x10,

	D_VALID = 0x80,
};

#define NS 1000000000ull
#define UIP_NS 244000ull /* UIP rises this long before an update */
#define DAY_S 86400u

struct mc146818 {
	struct device dev;
	struct irq irq8;
	struct vtimer event;
	int64_t host_base_ns; /* the host's time of day less the virtual time, as of when they were last looked at */
	int64_t epoch_s;      /* the clock's date is epoch_s seconds since 1970, in its own time zone, */
	uint64_t epoch_ns;    /* plus epoch_ns (below a second), plus the virtual time */
	uint64_t seen;	      /* virtual time up to which the flags are right */
	uint8_t index, index_high;
	uint8_t cmos[256];
};

/* ---- dates ---- */

/* Days since 1970-01-01 of a proleptic Gregorian date: years are counted from March, so that leap days come last. */
static int64_t
days_of(int64_t year, int month, int day)
{
	int64_t y = year - (month <= 2), era = (y >= 0 ? y : y - 399) / 400, of_era = y - era * 400;
	int64_t of_year = (153 * (month + (month > 2 ? -3 : 9)) + 2) / 5 + day - 1;

	return era * 146097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719468;
}

static bool
running(const struct mc146818 *r)
{
	return !(r->cmos[REG_B] & B_SET) && (r->cmos[REG_A] & A_DIVIDER) == A_DIVIDER_RUN;
}

static int64_t
seconds_at(const struct mc146818 *r, uint64_t now)
{
	return r->epoch_s + (int64_t)((r->epoch_ns + now) / NS);
}

/* Nanoseconds into the second. */
static uint64_t
fraction_at(const struct mc146818 *r, uint64_t now)
{
	return (r->epoch_ns + now) % NS;
}

static int64_t
floor_div(int64_t a, int64_t b)
{
	return a / b - (a % b < 0);
}

static uint32_t
second_of_day(int64_t s)
{
	return (uint32_t)(s - floor_div(s, DAY_S) * DAY_S);
}

static void
set_date(struct mc146818 *r, uint64_t now, int64_t s, uint64_t fraction_ns)
{
	r->epoch_ns = (fraction_ns + NS - now % NS) % NS;
	r->epoch_s = s - (int64_t)((r->epoch_ns + now) / NS);
}

static uint8_t
encode(const struct mc146818 *r, int v)
{
	return (uint8_t)(r->cmos[REG_B] & B_BINARY ? v : v / 10 << 4 | v % 10);
}

static int
decode(const struct mc146818 *r, uint8_t v)
{
	return r->cmos[REG_B] & B_BINARY ? v : (v >> 4) * 10 + (v & 15);
}

static uint8_t
encode_hour(const struct mc146818 *r, int hour)
{
	if (r->cmos[REG_B] & B_24H)
		return encode(r, hour);
	return encode(r, hour % 12 ? hour % 12 : 12) | (hour >= 12 ? 0x80 : 0);
}

static int
decode_hour(const struct mc146818 *r, uint8_t v)
{
	if (r->cmos[REG_B] & B_24H)
		return decode(r, v);
	return decode(r, v & 0x7f) % 12 + (v & 0x80 ? 12 : 0);
}

/* Put the date into the time registers. */
static void
load_registers(struct mc146818 *r, uint64_t now)
{
	time_t t = (time_t)seconds_at(r, now);
	int of_day = (int)second_of_day(t);
	struct tm tm;

	if (!gmtime_r(&t, &tm))
		return;
	r->cmos[SECONDS] = encode(r, of_day % 60);
	r->cmos[MINUTES] = encode(r, of_day / 60 % 60);
	r->cmos[HOURS] = encode_hour(r, of_day / 3600);
	r->cmos[WEEKDAY] = encode(r, tm.tm_wday + 1);
	r->cmos[DAY] = encode(r, tm.tm_mday);
	r->cmos[MONTH] = encode(r, tm.tm_mon + 1);
	r->cmos[YEAR] = encode(r, (tm.tm_year + 1900) % 100);
	r->cmos[CENTURY] = r->cmos[CENTURY_PS2] = encode(r, (tm.tm_year + 1900) / 100 % 100);
}

/* The date in the time registers; what is out of range wraps into the next unit, as good as anything. */
static int64_t
registers_s(const struct mc146818 *r)
{
	int month = decode(r, r->cmos[MONTH]);
	int64_t year = decode(r, r->cmos[CENTURY]) * 100 + decode(r, r->cmos[YEAR]);

	month = month < 1 ? 1 : month > 12 ? 12 : month;
	return days_of(year, month, decode(r, r->cmos[DAY])) * DAY_S + decode_hour(r, r->cmos[HOURS]) * 3600 +
	       decode(r, r->cmos[MINUTES]) * 60 + decode(r, r->cmos[SECONDS]);
}

/* The clock starts again from its registers, `fraction_ns` into their second. */
static void
start_from_registers(struct mc146818 *r, uint64_t now, uint64_t fraction_ns)
{
	set_date(r, now, registers_s(r), fraction_ns);
	r->seen = now;
}

/* ---- alarm ---- */

/* Alarm bytes of 0xc0 and more match everything. */
static bool
alarm_field(uint8_t reg, int alarm, int value)
{
	return reg >= 0xc0 || alarm == value;
}

/* Seconds from second `of_day` to the next one that matches the alarm, 1-86400; 0: none does. */
static uint32_t
next_alarm(const struct mc146818 *r, uint32_t of_day)
{
	const uint8_t *c = r->cmos;
	int hour = decode_hour(r, c[HOURS_ALARM]), minute = decode(r, c[MINUTES_ALARM]);
	int second = decode(r, c[SECONDS_ALARM]);

	for (uint32_t i = 1; i <= DAY_S;) {
		uint32_t t = (of_day + i) % DAY_S;

		if (!alarm_field(c[HOURS_ALARM], hour, (int)(t / 3600)))
			i += 3600 - t % 3600;
		else if (!alarm_field(c[MINUTES_ALARM], minute, (int)(t / 60 % 60)))
			i += 60 - t % 60;
		else if (!alarm_field(c[SECONDS_ALARM], second, (int)(t % 60)))
			i++;
		else
			return i;
	}
	return 0;
}

/* ---- flags and interrupt ---- */

/* Length of the periodic interrupt's period in 32768ths of a second; 0: off. (table 5 of the data sheet) */
static uint32_t
period_ticks(const struct mc146818 *r)
{
	unsigned rate = r->cmos[REG_A] & A_RATE;

	if (!rate || (r->cmos[REG_A] & A_DIVIDER) != A_DIVIDER_RUN)
		return 0;
	return 1u << (rate <= 2 ? rate + 6 : rate - 1);
}

static uint64_t
tick_of(uint64_t ns)
{
	return muldiv64(ns, 32768, NS);
}

static void
update_flags(struct mc146818 *r, uint64_t now)
{
	uint32_t period = period_ticks(r);
	int64_t before = seconds_at(r, r->seen), s = seconds_at(r, now);
	uint8_t flags = 0;

	if (period && tick_of(r->seen) / period != tick_of(now) / period)
		flags |= C_PF;
	if (running(r) && s > before) {
		uint32_t to_alarm = next_alarm(r, second_of_day(before));

		flags |= C_UF;
		if (to_alarm && s - before >= to_alarm)
			flags |= C_AF;
	}
	r->seen = now;
	r->cmos[REG_C] |= flags;
	if (r->cmos[REG_C] & r->cmos[REG_B] & (C_PF | C_AF | C_UF))
		r->cmos[REG_C] |= C_IRQF;
	irq_set(&r->irq8, r->cmos[REG_C] & C_IRQF ? 1 : 0);
}

static void
arm(struct mc146818 *r, uint64_t now)
{
	uint8_t b = r->cmos[REG_B];
	uint64_t when = UINT64_MAX, period = period_ticks(r);

	vtimer_cancel(&r->event);
	if (r->cmos[REG_C] & C_IRQF)
		return;
	if (b & B_PIE && period)
		when = muldiv64((tick_of(now) / period + 1) * period, NS, 32768) + 1;
	if (running(r) && b & (B_UIE | B_AIE)) {
		uint64_t seconds = 1;

		if (!(b & B_UIE))
			seconds = next_alarm(r, second_of_day(seconds_at(r, now)));
		if (seconds)
			when = MIN(when, now + seconds * NS - fraction_at(r, now));
	}
	if (when != UINT64_MAX)
		vtimer_arm(&r->event, when);
}

static void
expired(void *opaque)
{
	struct mc146818 *r = opaque;
	uint64_t now = clock_now(&r->dev.m->clock);

	update_flags(r, now);
	arm(r, now);
}

/* ---- registers ---- */

static uint8_t
read_a(struct mc146818 *r, uint64_t now)
{
	return r->cmos[REG_A] | (running(r) && fraction_at(r, now) >= NS - UIP_NS ? A_UIP : 0);
}

/* Reading C gives the flags and clears them, which ends the interrupt. */
static uint8_t
read_c(struct mc146818 *r, uint64_t now)
{
	uint8_t v;

	update_flags(r, now);
	v = r->cmos[REG_C];
	r->cmos[REG_C] = 0;
	irq_set(&r->irq8, 0);
	arm(r, now);
	return v;
}

static bool
is_time(uint8_t i)
{
	return i == SECONDS || i == MINUTES || i == HOURS || (i >= WEEKDAY && i <= YEAR) || i == CENTURY ||
	       i == CENTURY_PS2;
}

static uint8_t
read_reg(struct mc146818 *r, uint8_t i)
{
	uint64_t now = clock_now(&r->dev.m->clock);

	if (i == REG_A)
		return read_a(r, now);
	if (i == REG_C)
		return read_c(r, now);
	if (i == REG_D)
		return D_VALID;
	if (is_time(i) && running(r))
		load_registers(r, now);
	return r->cmos[i];
}

/* Registers A and B: what they stop or start takes effect at once. */
static void
write_control(struct mc146818 *r, uint8_t i, uint8_t v, uint64_t now)
{
	bool was = running(r), divided = (r->cmos[REG_A] & A_DIVIDER) == A_DIVIDER_RUN;
	uint64_t fraction = fraction_at(r, now);

	if (was) /* the registers show the last moment, in the format they had */
		load_registers(r, now);
	r->cmos[i] = i == REG_A ? v & 0x7f : v;
	if (!was && running(r)) /* the first update comes half a second after the divider starts */
		start_from_registers(r, now, divided ? fraction : NS / 2);
}

static void
write_reg(struct mc146818 *r, uint8_t i, uint8_t v)
{
	uint64_t now = clock_now(&r->dev.m->clock);

	update_flags(r, now);
	if (i == REG_A || i == REG_B) {
		write_control(r, i, v, now);
	} else if (is_time(i)) {
		bool was = running(r);

		if (was)
			load_registers(r, now);
		r->cmos[i] = v;
		if (i == CENTURY || i == CENTURY_PS2)
			r->cmos[CENTURY] = r->cmos[CENTURY_PS2] = v;
		if (was)
			start_from_registers(r, now, fraction_at(r, now));
	} else if (i != REG_C && i != REG_D) {
		r->cmos[i] = v;
	}
	update_flags(r, now);
	arm(r, now);
}

/* Offsets 0 and 2 are the index registers (bit 7 of the first is the NMI mask), 1 and 3 the data. */
static uint64_t
port_read(void *opaque, uint64_t off, unsigned size)
{
	struct mc146818 *r = opaque;

	switch (off) {
	case 1:
		return read_reg(r, r->index);
	case 2:
		return r->index_high;
	case 3:
		return r->cmos[0x80 | r->index_high];
	}
	return 0xff;
}

static void
port_write(void *opaque, uint64_t off, uint64_t v, unsigned size)
{
	struct mc146818 *r = opaque;

	switch (off) {
	case 0:
		r->index = v & 0x7f;
		break;
	case 1:
		write_reg(r, r->index, (uint8_t)v);
		break;
	case 2:
		r->index_high = v & 0x7f;
		break;
	case 3:
		r->cmos[0x80 | r->index_high] = (uint8_t)v;
		break;
	}
}

static const struct bus_ops ops = { port_read, port_write, 1, 1 };

void
mc146818_cmos_set(struct mc146818 *r, uint8_t index, uint8_t value)
{
	r->cmos[index] = value;
}

uint8_t
mc146818_cmos_get(struct mc146818 *r, uint8_t index)
{
	return r->cmos[index];
}

static int64_t
host_base(struct mc146818 *r)
{
	struct timespec ts;

	clock_gettime(CLOCK_REALTIME, &ts);
	return (int64_t)ts.tv_sec * (int64_t)NS + ts.tv_nsec - (int64_t)clock_now(&r->dev.m->clock);
}

int64_t
mc146818_follow(struct mc146818 *r, uint64_t slack_ns)
{
	int64_t base = host_base(r), moved, fraction;
	uint64_t now;

	if (__builtin_sub_overflow(base, r->host_base_ns, &moved))
		moved = 0; /* a saved state of nobody's making */
	else if ((uint64_t)(moved < 0 ? -moved : moved) <= slack_ns)
		return 0;
	r->host_base_ns = base;
	if (!running(r))
		return moved;
	now = clock_now(&r->dev.m->clock);
	update_flags(r, now);
	fraction = (int64_t)fraction_at(r, now) + moved % (int64_t)NS;
	set_date(r, now, seconds_at(r, now) + moved / (int64_t)NS + floor_div(fraction, (int64_t)NS),
		(uint64_t)((fraction % (int64_t)NS + (int64_t)NS) % (int64_t)NS));
	arm(r, now);
	return moved;
}

/* ---- the device ---- */

static const struct field fields[] = {
	FIELD(struct mc146818, host_base_ns),
	FIELD(struct mc146818, epoch_s),
	FIELD(struct mc146818, epoch_ns),
	FIELD(struct mc146818, seen),
	FIELD(struct mc146818, index),
	FIELD(struct mc146818, index_high),
	FIELD_ARRAY(struct mc146818, cmos),
	FIELD_END,
};

/* The battery keeps the clock and the memory; interrupts are off. */
static void
reset(struct device *d)
{
	struct mc146818 *r = (struct mc146818 *)d;

	r->cmos[REG_B] &= (uint8_t) ~(B_PIE | B_AIE | B_UIE | 0x08);
	r->cmos[REG_C] = 0;
	r->index = r->index_high = 0;
	vtimer_cancel(&r->event);
	irq_set(&r->irq8, 0);
}

static void
loaded(struct device *d)
{
	expired(d);
}

static void
destroy(struct device *d)
{
	vtimer_cancel(&((struct mc146818 *)d)->event);
	free(d);
}

static const struct dev_class class = {
	.name = "mc146818",
	.fields = fields,
	.reset = reset,
	.loaded = loaded,
	.destroy = destroy,
};

struct mc146818 *
mc146818_create(struct machine *m, struct irq irq8, bool local_time, int64_t offset_s)
{
	struct mc146818 *r = xcalloc(1, sizeof(*r));
	struct timespec ts;
	struct tm tm;

	device_add(m, &r->dev, &class);
	r->irq8 = irq8;
	vtimer_init(&r->event, &m->clock, expired, r);
	clock_gettime(CLOCK_REALTIME, &ts);
	r->host_base_ns = host_base(r);
	if (local_time && localtime_r(&ts.tv_sec, &tm))
		offset_s += tm.tm_gmtoff;
	set_date(r, clock_now(&m->clock), ts.tv_sec + offset_s, (uint64_t)ts.tv_nsec);
	r->cmos[REG_A] = A_DIVIDER_RUN | 6;
	r->cmos[REG_B] = B_24H;
	r->cmos[REG_D] = D_VALID;
	io_add(&m->io, 0x70, 4, &ops, r);
	reset(&r->dev);
	return r;
}
