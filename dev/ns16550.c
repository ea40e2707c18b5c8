/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A 16550A serial port. (National Semiconductor PC16550D data sheet)
 *
 * Transmission takes no time: a byte written to THR goes to the back end at once, and the transmitter is empty again,
 * unless the back end is full; then bytes gather in the transmit FIFO and THRE stays clear until it takes more.
 * Reception is limited by the FIFO: the back end is asked for no more than there is room, so nothing overruns.
 *
 * The interrupt line is the highest pending source of IIR, recomputed after every change (update()).
 */
#include <stdlib.h>
#include <string.h>

#include "base/str.h"
#include "dev/dev.h"

enum {
	RBR = 0, /* THR when written, DLL with DLAB */
	IER = 1, /* DLM with DLAB */
	IIR = 2, /* FCR when written */
	LCR = 3,
	MCR = 4,
	LSR = 5,
	MSR = 6,
	SCR = 7,

	IER_RX = 1,
	IER_THRE = 2,
	IER_LINE = 4,
	IER_MODEM = 8,

	IIR_NONE = 1,
	IIR_MODEM = 0,
	IIR_THRE = 2,
	IIR_RX = 4,
	IIR_LINE = 6,
	IIR_TIMEOUT = 12,
	IIR_FIFOS = 0xc0,

	FCR_ENABLE = 1,
	FCR_RX_RESET = 2,
	FCR_TX_RESET = 4,

	LCR_BREAK = 0x40,
	LCR_DLAB = 0x80,

	MCR_LOOP = 0x10,
	MCR_WRITABLE = 0x1f,

	LSR_DR = 1,
	LSR_OE = 2,
	LSR_BI = 0x10,
	LSR_ERRORS = 0x1e,
	LSR_THRE = 0x20,
	LSR_TEMT = 0x40,

	MSR_CTS = 0x10,
	MSR_DSR = 0x20,
	MSR_RI = 0x40,
	MSR_DCD = 0x80,

	FIFO = 16,
};

struct ns16550 {
	struct device dev;
	struct irq irq;
	struct chardev *cd;
	struct vtimer timeout;
	uint8_t rx[FIFO], tx[FIFO];
	uint8_t rx_start, rx_len, tx_len;
	uint8_t ier, fcr, lcr, mcr, lsr_errors, msr, scr, dll, dlm;
	uint8_t thre_pending; /* the THRE interrupt was not seen yet */
	uint8_t timed_out;    /* bytes below the trigger level have waited long enough */
};

/* ---- interrupt ---- */

static unsigned
trigger(const struct ns16550 *u)
{
	static const uint8_t level[4] = { 1, 4, 8, 14 };

	return u->fcr & FCR_ENABLE ? level[u->fcr >> 6] : 1;
}

static uint8_t
source(const struct ns16550 *u)
{
	if (u->ier & IER_LINE && u->lsr_errors)
		return IIR_LINE;
	if (u->ier & IER_RX && u->rx_len >= trigger(u))
		return IIR_RX;
	if (u->ier & IER_RX && u->timed_out)
		return IIR_TIMEOUT;
	if (u->ier & IER_THRE && u->thre_pending)
		return IIR_THRE;
	if (u->ier & IER_MODEM && u->msr & 15)
		return IIR_MODEM;
	return IIR_NONE;
}

static void
update(struct ns16550 *u)
{
	irq_set(&u->irq, source(u) != IIR_NONE);
}

/* Four characters of ten bits at the programmed rate, within what a host timer can do. */
static uint64_t
timeout_ns(const struct ns16550 *u)
{
	uint64_t divisor = u->dll | u->dlm << 8, ns = (divisor ? divisor : 1) * 40 * 16 * 1000000000u / 1843200;

	return MIN(MAX(ns, 100000u), 20000000u);
}

static void
restart_timeout(struct ns16550 *u)
{
	u->timed_out = 0;
	if (u->rx_len && u->rx_len < trigger(u) && u->ier & IER_RX)
		vtimer_arm(&u->timeout, clock_now(&u->dev.m->clock) + timeout_ns(u));
	else
		vtimer_cancel(&u->timeout);
}

static void
timeout(void *opaque)
{
	struct ns16550 *u = opaque;

	u->timed_out = u->rx_len != 0;
	update(u);
}

/* ---- reception ---- */

static void
push(struct ns16550 *u, uint8_t byte)
{
	unsigned size = u->fcr & FCR_ENABLE ? FIFO : 1;

	if (u->rx_len >= size) { /* only loopback comes here */
		u->lsr_errors |= LSR_OE;
		if (size == 1)
			u->rx[u->rx_start] = byte;
		return;
	}
	u->rx[(u->rx_start + u->rx_len++) % FIFO] = byte;
}

static size_t
room(void *opaque)
{
	struct ns16550 *u = opaque;

	if (u->mcr & MCR_LOOP)
		return 0;
	return (u->fcr & FCR_ENABLE ? FIFO : 1u) - MIN(u->rx_len, u->fcr & FCR_ENABLE ? FIFO : 1u);
}

static void
receive(void *opaque, const uint8_t *bytes, size_t n)
{
	struct ns16550 *u = opaque;

	for (size_t i = 0; i < n; i++)
		push(u, bytes[i]);
	restart_timeout(u);
	update(u);
}

static uint8_t
read_rbr(struct ns16550 *u)
{
	uint8_t byte = u->rx[u->rx_start];

	if (u->rx_len) {
		u->rx_start = (u->rx_start + 1) % FIFO;
		u->rx_len--;
	}
	restart_timeout(u);
	update(u);
	if (u->cd)
		chardev_resume(u->cd);
	return byte;
}

/* ---- transmission ---- */

static void
drain(struct ns16550 *u)
{
	size_t n = u->cd ? chardev_write(u->cd, u->tx, u->tx_len) : u->tx_len;

	memmove(u->tx, u->tx + n, u->tx_len - n);
	u->tx_len -= (uint8_t)n;
	if (!u->tx_len)
		u->thre_pending = 1;
}

static void
writable(void *opaque)
{
	struct ns16550 *u = opaque;

	if (u->tx_len)
		drain(u);
	update(u);
}

static void
write_thr(struct ns16550 *u, uint8_t v)
{
	v &= (uint8_t)(0xff >> (3 - (u->lcr & 3)));
	u->thre_pending = 0;
	update(u); /* an edge, if THRE comes again at once */
	if (u->mcr & MCR_LOOP) {
		push(u, v);
		u->thre_pending = 1;
		restart_timeout(u);
	} else if (u->tx_len < FIFO) {
		u->tx[u->tx_len++] = v;
		drain(u);
	}
	update(u);
}

/* ---- modem lines ---- */

/* What the four inputs are: the outputs in loopback, otherwise those of a cable with somebody at its end. */
static uint8_t
modem_inputs(const struct ns16550 *u)
{
	uint8_t m = u->mcr;

	if (!(m & MCR_LOOP))
		return MSR_CTS | MSR_DSR | (u->cd && chardev_connected(u->cd) ? MSR_DCD : 0);
	return (uint8_t)((m & 2) << 3 | (m & 1) << 5 | (m & 4) << 4 | (m & 8) << 4);
}

/* Low half: CTS, DSR and DCD changed, RI fell. */
static void
update_modem(struct ns16550 *u)
{
	uint8_t now = modem_inputs(u), was = u->msr & 0xf0, changed = now ^ was;

	changed = (uint8_t)((changed & ~MSR_RI) | (was & ~now & MSR_RI));
	u->msr = now | (u->msr & 15) | changed >> 4;
	update(u);
}

static void
connected(void *opaque, bool there)
{
	update_modem(opaque);
}

static const struct chardev_user user = { room, receive, writable, connected };

/* ---- registers ---- */

static uint8_t
read_iir(struct ns16550 *u)
{
	uint8_t s = source(u);

	if (s == IIR_THRE) {
		u->thre_pending = 0;
		update(u);
	}
	return s | (u->fcr & FCR_ENABLE ? IIR_FIFOS : 0);
}

static uint8_t
read_lsr(struct ns16550 *u)
{
	uint8_t v = u->lsr_errors | (u->rx_len ? LSR_DR : 0) | (u->tx_len ? 0 : LSR_THRE | LSR_TEMT);

	u->lsr_errors = 0;
	update(u);
	return v;
}

static uint8_t
read_msr(struct ns16550 *u)
{
	uint8_t v = u->msr;

	u->msr &= 0xf0;
	update(u);
	return v;
}

static uint64_t
port_read(void *opaque, uint64_t off, unsigned size)
{
	struct ns16550 *u = opaque;
	bool dlab = u->lcr & LCR_DLAB;

	switch (off) {
	case RBR:
		return dlab ? u->dll : read_rbr(u);
	case IER:
		return dlab ? u->dlm : u->ier;
	case IIR:
		return read_iir(u);
	case LCR:
		return u->lcr;
	case MCR:
		return u->mcr;
	case LSR:
		return read_lsr(u);
	case MSR:
		return read_msr(u);
	}
	return u->scr;
}

static void
write_ier(struct ns16550 *u, uint8_t v)
{
	/* Enabling the interrupt while the transmitter is empty raises it. */
	if (v & IER_THRE && !(u->ier & IER_THRE) && !u->tx_len)
		u->thre_pending = 1;
	u->ier = v & 15;
	restart_timeout(u);
	update(u);
}

static void
write_fcr(struct ns16550 *u, uint8_t v)
{
	bool toggled = (u->fcr ^ v) & FCR_ENABLE;

	if (toggled || v & FCR_RX_RESET)
		u->rx_len = u->rx_start = 0;
	if ((toggled || v & FCR_TX_RESET) && u->tx_len) {
		u->tx_len = 0;
		u->thre_pending = 1;
	}
	u->fcr = v & 0xc1;
	restart_timeout(u);
	update(u);
	if (u->cd)
		chardev_resume(u->cd);
}

static void
write_lcr(struct ns16550 *u, uint8_t v)
{
	bool broke = v & LCR_BREAK && !(u->lcr & LCR_BREAK);

	u->lcr = v;
	if (!broke || !(u->mcr & MCR_LOOP))
		return;
	push(u, 0);
	u->lsr_errors |= LSR_BI;
	restart_timeout(u);
	update(u);
}

static void
write_mcr(struct ns16550 *u, uint8_t v)
{
	u->mcr = v & MCR_WRITABLE;
	update_modem(u);
	if (u->cd)
		chardev_resume(u->cd);
}

static void
port_write(void *opaque, uint64_t off, uint64_t value, unsigned size)
{
	struct ns16550 *u = opaque;
	bool dlab = u->lcr & LCR_DLAB;
	uint8_t v = (uint8_t)value;

	switch (off) {
	case RBR:
		if (dlab)
			u->dll = v;
		else
			write_thr(u, v);
		break;
	case IER:
		if (dlab)
			u->dlm = v;
		else
			write_ier(u, v);
		break;
	case IIR:
		write_fcr(u, v);
		break;
	case LCR:
		write_lcr(u, v);
		break;
	case MCR:
		write_mcr(u, v);
		break;
	case SCR:
		u->scr = v;
		break;
	}
}

static const struct bus_ops ops = { port_read, port_write, 1, 1 };

/* ---- the device ---- */

static const struct field fields[] = {
	FIELD_ARRAY(struct ns16550, rx),
	FIELD_ARRAY(struct ns16550, tx),
	FIELD(struct ns16550, rx_start),
	FIELD(struct ns16550, rx_len),
	FIELD(struct ns16550, tx_len),
	FIELD(struct ns16550, ier),
	FIELD(struct ns16550, fcr),
	FIELD(struct ns16550, lcr),
	FIELD(struct ns16550, mcr),
	FIELD(struct ns16550, lsr_errors),
	FIELD(struct ns16550, msr),
	FIELD(struct ns16550, scr),
	FIELD(struct ns16550, dll),
	FIELD(struct ns16550, dlm),
	FIELD(struct ns16550, thre_pending),
	FIELD(struct ns16550, timed_out),
	FIELD_END,
};

static void
reset(struct device *d)
{
	struct ns16550 *u = (struct ns16550 *)d;

	u->rx_start = u->rx_len = u->tx_len = 0;
	u->ier = u->fcr = u->lcr = u->mcr = u->lsr_errors = u->scr = 0;
	u->dll = 12; /* 9600 baud */
	u->dlm = 0;
	u->thre_pending = u->timed_out = 0;
	u->msr = modem_inputs(u);
	vtimer_cancel(&u->timeout);
	update(u);
	if (u->cd)
		chardev_resume(u->cd);
}

static void
loaded(struct device *d)
{
	struct ns16550 *u = (struct ns16550 *)d;
	uint8_t timed_out = u->timed_out;

	u->rx_start %= FIFO;
	u->rx_len = MIN(u->rx_len, FIFO);
	u->tx_len = MIN(u->tx_len, FIFO);
	restart_timeout(u);
	u->timed_out = timed_out;
	update_modem(u);
	if (u->cd)
		chardev_resume(u->cd);
}

static void
destroy(struct device *d)
{
	struct ns16550 *u = (struct ns16550 *)d;

	vtimer_cancel(&u->timeout);
	chardev_close(u->cd);
	free(u);
}

static const struct dev_class class = {
	.name = "ns16550",
	.fields = fields,
	.reset = reset,
	.loaded = loaded,
	.destroy = destroy,
};

struct device *
ns16550_create(struct machine *m, uint16_t port, struct irq irq, struct chardev *cd)
{
	struct ns16550 *u = xcalloc(1, sizeof(*u));

	device_add(m, &u->dev, &class);
	u->irq = irq;
	u->cd = cd;
	vtimer_init(&u->timeout, &m->clock, timeout, u);
	io_add(&m->io, port, 8, &ops, u);
	reset(&u->dev);
	if (cd)
		chardev_attach(cd, &user, u);
	return &u->dev;
}
