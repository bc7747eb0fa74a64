/* SPDX-License-Identifier: MIT */
/*
 * serial.c - a 16550A serial port whose wire is infinitely fast.
 *
 * What the guest writes has left before the write returns, so the transmitter is
 * always empty.  Input waits in the 16-byte FIFO (one byte with the FIFO off); who
 * has more keeps it until room() is called, so nothing is ever lost.  Characters below the
 * FIFO's trigger level raise the time-out interrupt at once.
 *
 * The interrupt line follows the registers and is not gated by OUT2: small guests
 * forget it.  lock guards everything but out(), which out_lock keeps one at a time.
 *
 * Not here: baud rates, parity, modem lines other than in loopback mode.
 */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include "devices/serial.h"

#define SERIAL_PORT 0x3f8
#define SERIAL_GSI  4
#define FIFO_BYTES  16

enum { REG_DATA, REG_IER, REG_IIR_FCR, REG_LCR, REG_MCR, REG_LSR, REG_MSR, REG_SCR, REGS };

#define IER_RX	       0x01
#define IER_TX	       0x02
#define IER_LINE       0x04
#define IER_MODEM      0x08
#define IER_BITS       0x0f
#define IIR_NONE       0x01
#define IIR_MODEM      0x00
#define IIR_TX	       0x02
#define IIR_RX	       0x04
#define IIR_LINE       0x06
#define IIR_RX_TIMEOUT 0x0c
#define IIR_FIFO_ON    0xc0
#define FCR_ENABLE     0x01
#define FCR_CLEAR_RX   0x02
#define LCR_DLAB       0x80
#define MCR_BITS       0x1f
#define MCR_LOOP       0x10
#define LSR_READY      0x01
#define LSR_OVERRUN    0x02
#define LSR_TX_EMPTY   0x60
#define MSR_LINES      0xf0
#define MSR_IDLE       0xb0 /* CTS, DSR, DCD: somebody is at the other end */
#define MSR_RI	       0x40

struct serial {
	struct device dev;
	struct serial_opts o;
	struct bus_range range;
	struct irq_line *irq;
	pthread_mutex_t out_lock; /* held around out() alone */
	pthread_mutex_t lock;	  /* guards all below */
	uint8_t ier, fcr, lcr, mcr, msr, scr, dll, dlm;
	uint8_t fifo[FIFO_BYTES];
	unsigned head, count;
	bool overrun;
	bool tx_pending; /* the transmitter became empty and nobody has been told */
	bool refused;	 /* serial_input() took less than it was given */
	bool line;
};

static unsigned fifo_size(const struct serial *u)
{
	return u->fcr & FCR_ENABLE ? FIFO_BYTES : 1;
}

static unsigned fifo_trigger(const struct serial *u)
{
	static const uint8_t level[4] = {1, 4, 8, 14};

	return u->fcr & FCR_ENABLE ? level[u->fcr >> 6] : 1;
}

static void fifo_clear(struct serial *u)
{
	u->head = u->count = 0;
}

static void fifo_put(struct serial *u, uint8_t c)
{
	u->fifo[(u->head + u->count++) % FIFO_BYTES] = c;
}

/* The pending interrupt of the highest priority, as the IIR tells it. */
static uint8_t irq_cause(const struct serial *u)
{
	if (u->ier & IER_LINE && u->overrun)
		return IIR_LINE;
	if (u->ier & IER_RX && u->count)
		return u->count >= fifo_trigger(u) ? IIR_RX : IIR_RX_TIMEOUT;
	if (u->ier & IER_TX && u->tx_pending)
		return IIR_TX;
	if (u->ier & IER_MODEM && u->msr & ~MSR_LINES)
		return IIR_MODEM;
	return IIR_NONE;
}

static void irq_update_locked(struct serial *u)
{
	bool level = irq_cause(u) != IIR_NONE;

	if (level != u->line) {
		u->line = level;
		irq_line_set(u->irq, level);
	}
}

/* New modem lines, and in the low half which of them changed (RI: only its falling edge counts). */
static void modem_update_locked(struct serial *u)
{
	uint8_t now = MSR_IDLE, changed;

	if (u->mcr & MCR_LOOP) /* DTR -> DSR, RTS -> CTS, OUT1 -> RI, OUT2 -> DCD */
		now = (uint8_t)((u->mcr & 0x01) << 5 | (u->mcr & 0x02) << 3 | (u->mcr & 0x0c) << 4);
	changed = (u->msr ^ now) & MSR_LINES;
	if (now & MSR_RI)
		changed &= (uint8_t)~MSR_RI;
	u->msr = (uint8_t)(now | (u->msr & ~MSR_LINES) | changed >> 4);
}

static uint8_t reg_read_locked(struct serial *u, unsigned reg)
{
	uint8_t v = 0;

	switch (reg) {
	case REG_DATA:
		if (u->lcr & LCR_DLAB)
			return u->dll;
		if (u->count) {
			v = u->fifo[u->head];
			u->head = (u->head + 1) % FIFO_BYTES;
			u->count--;
		}
		return v;
	case REG_IER:
		return u->lcr & LCR_DLAB ? u->dlm : u->ier;
	case REG_IIR_FCR:
		v = irq_cause(u);
		if (v == IIR_TX)
			u->tx_pending = false;
		return v | (u->fcr & FCR_ENABLE ? IIR_FIFO_ON : 0);
	case REG_LCR:
		return u->lcr;
	case REG_MCR:
		return u->mcr;
	case REG_LSR:
		v = LSR_TX_EMPTY | (u->count ? LSR_READY : 0) | (u->overrun ? LSR_OVERRUN : 0);
		u->overrun = false;
		return v;
	case REG_MSR:
		v = u->msr;
		u->msr &= MSR_LINES;
		return v;
	default:
		return u->scr;
	}
}

static void fcr_write_locked(struct serial *u, uint8_t v)
{
	/* Switching the FIFO on or off empties it, as does the bit that asks for that. */
	if ((u->fcr ^ v) & FCR_ENABLE || v & FCR_CLEAR_RX)
		fifo_clear(u);
	u->fcr = v & FCR_ENABLE ? v & 0xc9 : 0;
}

/* True if v is to be sent. */
static bool thr_write_locked(struct serial *u, uint8_t v)
{
	u->tx_pending = true;
	if (!(u->mcr & MCR_LOOP))
		return true;
	if (u->count < fifo_size(u))
		fifo_put(u, v);
	else
		u->overrun = true;
	return false;
}

static bool reg_write_locked(struct serial *u, unsigned reg, uint8_t v)
{
	switch (reg) {
	case REG_DATA:
		if (!(u->lcr & LCR_DLAB))
			return thr_write_locked(u, v);
		u->dll = v;
		break;
	case REG_IER:
		if (u->lcr & LCR_DLAB) {
			u->dlm = v;
			break;
		}
		if (v & ~u->ier & IER_TX)
			u->tx_pending = true;
		u->ier = v & IER_BITS;
		break;
	case REG_IIR_FCR:
		fcr_write_locked(u, v);
		break;
	case REG_LCR:
		u->lcr = v;
		break;
	case REG_MCR:
		u->mcr = v & MCR_BITS;
		modem_update_locked(u);
		break;
	case REG_SCR:
		u->scr = v;
		break;
	default: /* LSR and MSR are read-only */
		break;
	}
	return false;
}

/* Takes note that refused input may be offered again; the caller calls room() after unlocking. */
static bool take_room_locked(struct serial *u)
{
	if (!u->refused || u->mcr & MCR_LOOP || u->count >= fifo_size(u))
		return false;
	u->refused = false;
	return true;
}

static void serial_read(struct bus_range *r, uint64_t off, void *data, unsigned len)
{
	struct serial *u = container_of(r, struct serial, range);
	uint8_t *b = data;
	bool room;

	pthread_mutex_lock(&u->lock);
	for (unsigned i = 0; i < len; i++)
		b[i] = off + i < REGS ? reg_read_locked(u, (unsigned)off + i) : 0xff;
	irq_update_locked(u);
	room = take_room_locked(u);
	pthread_mutex_unlock(&u->lock);
	if (room && u->o.room)
		u->o.room(u->o.arg);
}

static void serial_write(struct bus_range *r, uint64_t off, const void *data, unsigned len)
{
	struct serial *u = container_of(r, struct serial, range);
	const uint8_t *b = data;
	uint8_t sent = 0;
	bool send = false, room;

	pthread_mutex_lock(&u->lock);
	for (unsigned i = 0; i < len && off + i < REGS; i++) {
		/* Only the first byte of an access can go to the data register. */
		if (reg_write_locked(u, (unsigned)off + i, b[i])) {
			sent = b[i];
			send = true;
		}
	}
	irq_update_locked(u);
	room = take_room_locked(u);
	pthread_mutex_unlock(&u->lock);
	if (send && u->o.out) {
		pthread_mutex_lock(&u->out_lock);
		u->o.out(u->o.arg, &sent, 1);
		pthread_mutex_unlock(&u->out_lock);
	}
	if (room && u->o.room)
		u->o.room(u->o.arg);
}

size_t serial_input(struct device *dev, const uint8_t *p, size_t n)
{
	struct serial *u = container_of(dev, struct serial, dev);
	size_t taken = 0;

	pthread_mutex_lock(&u->lock);
	if (!(u->mcr & MCR_LOOP))
		while (taken < n && u->count < fifo_size(u))
			fifo_put(u, p[taken++]);
	if (taken < n)
		u->refused = true;
	irq_update_locked(u);
	pthread_mutex_unlock(&u->lock);
	return taken;
}

static void serial_reset(struct device *dev)
{
	struct serial *u = container_of(dev, struct serial, dev);
	bool room;

	pthread_mutex_lock(&u->lock);
	u->ier = u->fcr = u->lcr = u->mcr = u->scr = u->dlm = 0;
	u->dll = 12; /* 9600 baud */
	u->msr = MSR_IDLE;
	u->overrun = u->tx_pending = false;
	fifo_clear(u);
	irq_update_locked(u);
	room = take_room_locked(u);
	pthread_mutex_unlock(&u->lock);
	if (room && u->o.room)
		u->o.room(u->o.arg);
}

static void serial_destroy(struct device *dev)
{
	struct serial *u = container_of(dev, struct serial, dev);

	bus_remove(dev->services->bus, BUS_PORT, &u->range);
	irq_line_free(u->irq);
	pthread_mutex_destroy(&u->lock);
	pthread_mutex_destroy(&u->out_lock);
	free(u);
}

static const struct device_ops serial_ops = {
	.name = "serial",
	.reset = serial_reset,
	.destroy = serial_destroy,
};

int serial_create(struct machine_services *s, const struct serial_opts *o, struct device **out)
{
	struct serial *u = calloc(1, sizeof(*u));
	int err;

	if (!u)
		return -ENOMEM;
	u->dev = (struct device){&serial_ops, s};
	u->o = *o;
	u->range = (struct bus_range){
		.read = serial_read,
		.write = serial_write,
		.base = o->port ? o->port : SERIAL_PORT,
		.len = REGS,
		.name = "serial",
	};
	err = irq_line_new(s->irqs, o->gsi ? o->gsi : SERIAL_GSI, &u->irq);
	if (err)
		goto free_serial;
	pthread_mutex_init(&u->lock, NULL);
	pthread_mutex_init(&u->out_lock, NULL);
	serial_reset(&u->dev);
	err = bus_add(s->bus, BUS_PORT, &u->range);
	if (err)
		goto free_irq;
	*out = &u->dev;
	return 0;
free_irq:
	pthread_mutex_destroy(&u->out_lock);
	pthread_mutex_destroy(&u->lock);
	irq_line_free(u->irq);
free_serial:
	free(u);
	return err;
}
