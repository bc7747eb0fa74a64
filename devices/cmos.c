/* SPDX-License-Identifier: MIT */
/*
 * cmos.c - the clock and the 114 bytes of CMOS memory behind ports 0x70 and 0x71 (MC146818).
 *
 * The time is the host's (UTC) plus what the guest added by setting it; so a guest that sets
 * the clock and resets finds it set.  Digits are BCD or binary, hours 24 or 12, as register
 * B says.  "Update in progress" shows in the last 2 ms of each second, as on the chip;
 * while SET is on, the time stands.
 *
 * Register C has a flag for each kind of event since it was last read: an update (each second),
 * the alarm, the periodic tick at the rate of register A.  Flags are brought up to date when
 * somebody looks.  Those that register B lets interrupt (IRQ 8) are waited for by a thread,
 * which is started when the first one is.  Ticks that nobody fetched in time are one.
 *
 * The other bytes are plain memory; at power-on they hold what firmware looks for: the size of
 * memory below 16 MiB, above it, and above 4 GiB, the number of CPUs, and what to boot from.
 */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include "devices/platform.h"
#include "vmm/util/bytes.h"

#define CMOS_PORT 0x70
#define CMOS_BYTES 128

#define RTC_GSI	   8

enum { SECONDS, MINUTES = 2, HOURS = 4, WEEKDAY = 6, DAY, MONTH, YEAR, REG_A, REG_B, REG_C, REG_D,
	CENTURY = 0x32 };
#define A_UIP	  0x80
#define A_DEFAULT 0x26
#define B_24H	  0x02
#define B_BINARY  0x04
#define B_SET	  0x80
#define C_UPDATED 0x10 /* the bits of the flags are in register B what lets them interrupt */
#define C_ALARM	  0x20
#define C_TICK	  0x40
#define C_ALL	  0x70
#define C_IRQ	  0x80
#define D_VALID	  0x80
#define UIP_NS	  2000000 /* before the next second */
#define HOUR_PM	  0x80
#define ANY	  0xc0 /* an alarm's byte with both bits set: any hour, minute, second */
#define DAY_S	  86400
#define SECOND_NS 1000000000LL

struct cmos {
	struct device dev;
	struct bus_range range;
	unsigned n_cpus, boot_order;
	struct irq_line *irq;
	pthread_t ticker;
	pthread_cond_t changed; /* what the ticker waits for; CLOCK_MONOTONIC */
	pthread_mutex_t lock;	/* guards all below, and the line */
	bool ticking, ending;	/* there is a ticker; it is to end */
	bool told;		/* that there can be none */
	uint8_t index;
	uint8_t byte[CMOS_BYTES]; /* of the time: only while SET is on */
	int64_t ahead_s;	  /* of the host's clock */
	int64_t settled_s;	  /* the guest's time up to which the flags are right */
	int64_t alarm_s;	  /* when the alarm goes off next; 0: never */
	int64_t period_ns;	  /* 0: no tick */
	int64_t tick_ns;	  /* when the next one comes; CLOCK_MONOTONIC */
};

static int64_t now_ns(clockid_t clock)
{
	struct timespec t;

	clock_gettime(clock, &t);
	return t.tv_sec * SECOND_NS + t.tv_nsec;
}

static bool is_time(unsigned reg)
{
	return (reg <= YEAR && (reg >= WEEKDAY || reg % 2 == 0)) || reg == CENTURY;
}

static uint8_t encode(const struct cmos *c, int v)
{
	return (uint8_t)(c->byte[REG_B] & B_BINARY ? v : v / 10 << 4 | v % 10);
}

static int decode(const struct cmos *c, uint8_t v)
{
	return c->byte[REG_B] & B_BINARY ? v : (v >> 4) * 10 + (v & 15);
}

static uint8_t encode_hour(const struct cmos *c, int h)
{
	if (c->byte[REG_B] & B_24H)
		return encode(c, h);
	return (uint8_t)(encode(c, (h + 11) % 12 + 1) | (h >= 12 ? HOUR_PM : 0));
}

/* The time as it is now, into the registers. */
static void time_fill_locked(struct cmos *c, time_t now)
{
	struct tm t;
	int year;

	gmtime_r(&now, &t);
	year = t.tm_year < -1900 ? 0 : t.tm_year + 1900; /* nonsense that was set */
	c->byte[SECONDS] = encode(c, t.tm_sec);
	c->byte[MINUTES] = encode(c, t.tm_min);
	c->byte[HOURS] = encode_hour(c, t.tm_hour);
	c->byte[WEEKDAY] = encode(c, t.tm_wday + 1);
	c->byte[DAY] = encode(c, t.tm_mday);
	c->byte[MONTH] = encode(c, t.tm_mon + 1);
	c->byte[YEAR] = encode(c, year % 100);
	c->byte[CENTURY] = encode(c, year / 100);
}

/* The guest's clock from what it wrote; nonsense normalizes to some time. */
static void time_take_locked(struct cmos *c, time_t host)
{
	uint8_t h = c->byte[HOURS];
	struct tm t = {.tm_sec = decode(c, c->byte[SECONDS]),
		.tm_min = decode(c, c->byte[MINUTES]),
		.tm_hour = decode(c, h),
		.tm_mday = decode(c, c->byte[DAY]),
		.tm_mon = decode(c, c->byte[MONTH]) - 1,
		.tm_year = decode(c, c->byte[CENTURY]) * 100 + decode(c, c->byte[YEAR]) - 1900};

	if (!(c->byte[REG_B] & B_24H))
		t.tm_hour = decode(c, h & 0x7f) % 12 + (h & HOUR_PM ? 12 : 0);
	c->ahead_s = (int64_t)timegm(&t) - host;
}

static bool alarm_has(const struct cmos *c, unsigned reg, uint8_t v)
{
	uint8_t want = c->byte[reg + 1];

	return want == v || (want & ANY) == ANY;
}

/* When the alarm goes off next after now, the guest's time. */
static void alarm_find_locked(struct cmos *c, int64_t now)
{
	int tod = (int)((now % DAY_S + DAY_S) % DAY_S);

	c->alarm_s = 0;
	for (int in = 1; in <= DAY_S;) {
		int t = (tod + in) % DAY_S;

		if (!alarm_has(c, HOURS, encode_hour(c, t / 3600))) {
			in += 3600 - t % 3600;
		} else if (!alarm_has(c, MINUTES, encode(c, t / 60 % 60))) {
			in += 60 - t % 60;
		} else if (!alarm_has(c, SECONDS, encode(c, t % 60))) {
			in++;
		} else {
			c->alarm_s = now + in;
			return;
		}
	}
}

/* Periods as the chip has them with a crystal of 32768 Hz; a divider that is held gives none. */
static void period_find_locked(struct cmos *c)
{
	unsigned rate = c->byte[REG_A] & 15;

	c->period_ns = 0;
	if (rate && (c->byte[REG_A] & 0x70) == 0x20)
		c->period_ns = (SECOND_NS << (rate < 3 ? rate + 6 : rate - 1)) / 32768;
	c->tick_ns = now_ns(CLOCK_MONOTONIC) + c->period_ns;
}

/* Sets the flags of what has happened, and the line with them. */
static void settle_locked(struct cmos *c)
{
	int64_t host = now_ns(CLOCK_REALTIME) / SECOND_NS, mono = now_ns(CLOCK_MONOTONIC);
	int64_t now = host + c->ahead_s;
	uint8_t *flags = &c->byte[REG_C];

	if (!(c->byte[REG_B] & B_SET)) {
		if (now != c->settled_s)
			*flags |= C_UPDATED;
		if (c->alarm_s && now >= c->alarm_s)
			*flags |= C_ALARM;
		/* It is found anew also when the host's clock was set back. */
		if (c->alarm_s && (now >= c->alarm_s || c->alarm_s - now > DAY_S))
			alarm_find_locked(c, now);
		c->settled_s = now;
	}
	if (c->period_ns && mono >= c->tick_ns) {
		*flags |= C_TICK;
		c->tick_ns = mono + c->period_ns - (mono - c->tick_ns) % c->period_ns;
	}
	*flags &= C_ALL;
	if (*flags & c->byte[REG_B])
		*flags |= C_IRQ;
	irq_line_set(c->irq, *flags & C_IRQ);
}

/* Nanoseconds until something interrupts that did not yet; INT64_MAX: nothing will. */
static int64_t until_irq_locked(const struct cmos *c)
{
	int64_t host = now_ns(CLOCK_REALTIME), to_second = SECOND_NS - host % SECOND_NS;
	int64_t at = INT64_MAX, alarm;
	uint8_t b = c->byte[REG_B];

	if (c->byte[REG_C] & C_IRQ)
		return at;
	if (b & C_TICK && c->period_ns)
		at = c->tick_ns - now_ns(CLOCK_MONOTONIC);
	if (b & C_UPDATED && !(b & B_SET) && to_second < at)
		at = to_second;
	if (b & C_ALARM && !(b & B_SET) && c->alarm_s) {
		alarm = (c->alarm_s - host / SECOND_NS - c->ahead_s - 1) * SECOND_NS + to_second;
		if (alarm < at)
			at = alarm;
	}
	return at > 0 ? at : 0;
}

static void *ticker_main(void *arg)
{
	struct cmos *c = arg;

	pthread_mutex_lock(&c->lock);
	while (!c->ending) {
		int64_t ns = until_irq_locked(c), at = now_ns(CLOCK_MONOTONIC);
		struct timespec t;

		if (ns == INT64_MAX) {
			pthread_cond_wait(&c->changed, &c->lock);
		} else {
			at += ns;
			t = (struct timespec){at / SECOND_NS, at % SECOND_NS};
			pthread_cond_timedwait(&c->changed, &c->lock, &t);
		}
		settle_locked(c);
	}
	pthread_mutex_unlock(&c->lock);
	return NULL;
}

/* After every change of what is waited for. */
static void tell_ticker_locked(struct cmos *c)
{
	int err = 0;

	if (c->ticking) {
		pthread_cond_signal(&c->changed);
	} else if (c->byte[REG_B] & C_ALL) {
		err = pthread_create(&c->ticker, NULL, ticker_main, c);
		c->ticking = !err;
	}
	if (err && !c->told)
		log_warn("the clock does not interrupt: %s", strerror(err));
	c->told |= err;
}

static uint8_t reg_read_locked(struct cmos *c, unsigned reg)
{
	struct timespec host;
	uint8_t v;

	clock_gettime(CLOCK_REALTIME, &host);
	if (is_time(reg) && !(c->byte[REG_B] & B_SET))
		time_fill_locked(c, (time_t)(host.tv_sec + c->ahead_s));
	if (reg == REG_C)
		settle_locked(c);
	v = c->byte[reg];
	if (reg == REG_A && !(c->byte[REG_B] & B_SET) && host.tv_nsec >= SECOND_NS - UIP_NS)
		v |= A_UIP;
	if (reg == REG_C) {
		c->byte[REG_C] = 0;
		irq_line_set(c->irq, false);
		tell_ticker_locked(c);
	}
	return v;
}

static void reg_write_locked(struct cmos *c, unsigned reg, uint8_t v)
{
	time_t host = time(NULL);
	bool stands = c->byte[REG_B] & B_SET;

	if (reg == REG_C || reg == REG_D)
		return;
	settle_locked(c);
	if (reg == REG_A)
		v &= (uint8_t)~A_UIP;
	if (reg == REG_B && v & B_SET)
		v &= (uint8_t)~C_UPDATED; /* no updates, no interrupts for them */
	if (is_time(reg) && !stands)
		time_fill_locked(c, (time_t)(host + c->ahead_s));
	if (reg == REG_B && !stands && v & B_SET)
		time_fill_locked(c, (time_t)(host + c->ahead_s));
	c->byte[reg] = v;
	if ((is_time(reg) && !stands) || (reg == REG_B && stands && !(v & B_SET)))
		time_take_locked(c, host);
	if (reg == REG_A)
		period_find_locked(c);
	if (reg < REG_A || reg == REG_B || reg == CENTURY) {
		c->settled_s = host + c->ahead_s;
		alarm_find_locked(c, c->settled_s);
	}
	settle_locked(c);
	tell_ticker_locked(c);
}

/* 0x70 selects (its top bit masks NMIs, of which there are none), 0x71 is the byte. */
static void cmos_read(struct bus_range *r, uint64_t off, void *data, unsigned len)
{
	struct cmos *c = container_of(r, struct cmos, range);

	memset(data, 0xff, len);
	if (off + len != 2)
		return;
	pthread_mutex_lock(&c->lock);
	((uint8_t *)data)[len - 1] = reg_read_locked(c, c->index);
	pthread_mutex_unlock(&c->lock);
}

static void cmos_write(struct bus_range *r, uint64_t off, const void *data, unsigned len)
{
	struct cmos *c = container_of(r, struct cmos, range);
	const uint8_t *b = data;

	pthread_mutex_lock(&c->lock);
	if (off == 0)
		c->index = b[0] & 0x7f;
	if (off + len == 2)
		reg_write_locked(c, c->index, b[len - 1]);
	pthread_mutex_unlock(&c->lock);
}

static void cmos_reset(struct device *dev)
{
	struct cmos *c = container_of(dev, struct cmos, dev);
	const struct gmem *m = dev->services->mem;
	uint64_t low = m->n ? m->r[0].len : 0, high = m->n > 1 ? m->r[1].len : 0;
	uint64_t ext_kib = low > MiB ? (low - MiB) / KiB : 0;

	pthread_mutex_lock(&c->lock);
	memset(c->byte, 0, sizeof(c->byte));
	c->index = 0;
	c->byte[REG_A] = A_DEFAULT;
	c->byte[REG_B] = B_24H;
	c->byte[REG_D] = D_VALID;
	irq_line_set(c->irq, false);
	period_find_locked(c);
	alarm_find_locked(c, time(NULL) + c->ahead_s);
	le_put(c->byte + 0x15, 640, 2);
	le_put(c->byte + 0x17, min_u64(ext_kib, 65535), 2);
	le_put(c->byte + 0x30, min_u64(ext_kib, 65535), 2);
	le_put(c->byte + 0x34, low > 16 * MiB ? (low - 16 * MiB) / (64 * KiB) : 0, 2);
	c->byte[0x38] = (uint8_t)(c->boot_order >> 4 & 0xf0);
	c->byte[0x3d] = (uint8_t)c->boot_order;
	le_put(c->byte + 0x5b, high / (64 * KiB), 3);
	c->byte[0x5f] = (uint8_t)(c->n_cpus - 1);
	pthread_mutex_unlock(&c->lock);
}

static void cmos_free(struct cmos *c)
{
	if (c->ticking) {
		pthread_mutex_lock(&c->lock);
		c->ending = true;
		pthread_cond_signal(&c->changed);
		pthread_mutex_unlock(&c->lock);
		pthread_join(c->ticker, NULL);
	}
	irq_line_free(c->irq);
	pthread_cond_destroy(&c->changed);
	pthread_mutex_destroy(&c->lock);
	free(c);
}

static void cmos_destroy(struct device *dev)
{
	struct cmos *c = container_of(dev, struct cmos, dev);

	bus_remove(dev->services->bus, BUS_PORT, &c->range);
	cmos_free(c);
}

static const struct device_ops cmos_ops = {
	.name = "cmos",
	.reset = cmos_reset,
	.destroy = cmos_destroy,
};

int cmos_create(struct machine_services *s, unsigned n_cpus, unsigned boot_order,
	struct device **out)
{
	struct cmos *c = calloc(1, sizeof(*c));
	pthread_condattr_t attr;
	int err;

	if (!c)
		return -ENOMEM;
	c->dev = (struct device){&cmos_ops, s};
	c->n_cpus = n_cpus;
	c->boot_order = boot_order;
	c->range = (struct bus_range){.read = cmos_read, .write = cmos_write, .base = CMOS_PORT,
		.len = 2, .name = "CMOS"};
	pthread_mutex_init(&c->lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&c->changed, &attr);
	pthread_condattr_destroy(&attr);
	err = irq_line_new(s->irqs, RTC_GSI, &c->irq);
	if (!err) {
		cmos_reset(&c->dev);
		err = bus_add(s->bus, BUS_PORT, &c->range);
	}
	if (err) {
		cmos_free(c);
		return err;
	}
	*out = &c->dev;
	return 0;
}
