/* SPDX-License-Identifier: MIT */
/*
 * cmos.c - the clock and the 114 bytes of CMOS memory behind ports 0x70 and 0x71 (MC146818).
 *
 * The time is the host's (UTC) plus what the guest added by setting it; so a guest that sets
 * the clock and resets finds it set.  Digits are BCD or binary, hours 24 or 12, as register
 * B says.  "Update in progress" shows in the last 2 ms of each second, as on the chip;
 * while SET is on, the time stands.  Register C shows an update that has ended since it
 * was last read, and interrupts nobody: alarms and periodic interrupts are not here.
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

enum { SECONDS, MINUTES = 2, HOURS = 4, WEEKDAY = 6, DAY, MONTH, YEAR, REG_A, REG_B, REG_C, REG_D,
	CENTURY = 0x32 };
#define A_UIP	  0x80
#define A_DEFAULT 0x26
#define B_24H	  0x02
#define B_BINARY  0x04
#define B_SET	  0x80
#define C_UPDATED 0x10
#define D_VALID	  0x80
#define UIP_NS	  2000000 /* before the next second */
#define HOUR_PM	  0x80

struct cmos {
	struct device dev;
	struct bus_range range;
	unsigned n_cpus, boot_order;
	pthread_mutex_t lock; /* guards all below */
	uint8_t index;
	uint8_t byte[CMOS_BYTES]; /* of the time: only while SET is on */
	int64_t ahead_s;	  /* of the host's clock */
	int64_t update_seen_s;	  /* when register C was last read */
};

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

/* The time as it is now, into the registers. */
static void time_fill_locked(struct cmos *c, time_t now)
{
	struct tm t;
	int hour, year;

	gmtime_r(&now, &t);
	year = t.tm_year < -1900 ? 0 : t.tm_year + 1900; /* nonsense that was set */
	hour = c->byte[REG_B] & B_24H ? t.tm_hour : (t.tm_hour + 11) % 12 + 1;
	c->byte[SECONDS] = encode(c, t.tm_sec);
	c->byte[MINUTES] = encode(c, t.tm_min);
	c->byte[HOURS] = encode(c, hour);
	if (!(c->byte[REG_B] & B_24H) && t.tm_hour >= 12)
		c->byte[HOURS] |= HOUR_PM;
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

static uint8_t reg_read_locked(struct cmos *c, unsigned reg)
{
	struct timespec host;
	int64_t now;
	uint8_t v;

	clock_gettime(CLOCK_REALTIME, &host);
	now = host.tv_sec + c->ahead_s;
	if (is_time(reg) && !(c->byte[REG_B] & B_SET))
		time_fill_locked(c, (time_t)now);
	v = c->byte[reg];
	if (reg == REG_A && !(c->byte[REG_B] & B_SET) && host.tv_nsec >= 1000000000 - UIP_NS)
		v |= A_UIP;
	if (reg == REG_C) {
		v = now != c->update_seen_s ? C_UPDATED : 0;
		c->update_seen_s = now;
	}
	return v;
}

static void reg_write_locked(struct cmos *c, unsigned reg, uint8_t v)
{
	time_t host = time(NULL);
	bool stands = c->byte[REG_B] & B_SET;

	if (reg == REG_C || reg == REG_D)
		return;
	if (reg == REG_A)
		v &= (uint8_t)~A_UIP;
	if (is_time(reg) && !stands)
		time_fill_locked(c, (time_t)(host + c->ahead_s));
	if (reg == REG_B && !stands && v & B_SET)
		time_fill_locked(c, (time_t)(host + c->ahead_s));
	c->byte[reg] = v;
	if ((is_time(reg) && !stands) || (reg == REG_B && stands && !(v & B_SET)))
		time_take_locked(c, host);
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

static void cmos_destroy(struct device *dev)
{
	struct cmos *c = container_of(dev, struct cmos, dev);

	bus_remove(dev->services->bus, BUS_PORT, &c->range);
	pthread_mutex_destroy(&c->lock);
	free(c);
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
	int err;

	if (!c)
		return -ENOMEM;
	c->dev = (struct device){&cmos_ops, s};
	c->n_cpus = n_cpus;
	c->boot_order = boot_order;
	c->range = (struct bus_range){.read = cmos_read, .write = cmos_write, .base = CMOS_PORT,
		.len = 2, .name = "CMOS"};
	pthread_mutex_init(&c->lock, NULL);
	cmos_reset(&c->dev);
	err = bus_add(s->bus, BUS_PORT, &c->range);
	if (err) {
		pthread_mutex_destroy(&c->lock);
		free(c);
		return err;
	}
	*out = &c->dev;
	return 0;
}
