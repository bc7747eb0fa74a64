/* SPDX-License-Identifier: MIT */
/*
 * fake_machine.h - buses and interrupts without KVM, for tests of devices.
 *
 * Defines the functions of vmm/bus.h and vmm/irq.h, so that the ones in the archive are
 * not linked: include it once in a test program.  Everything that a device does to its
 * machine can be looked at: ranges, doorbells, lines, routes, events.
 */
#ifndef TESTS_FAKE_MACHINE_H
#define TESTS_FAKE_MACHINE_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "devices/device.h"

#define FAKE_RANGES 64
#define FAKE_GSIS   24
#define FAKE_MSIS   64

struct fake_doorbell {
	enum bus_kind kind;
	uint64_t addr;
	unsigned len;
	int fd;
};

struct bus {
	pthread_mutex_t lock;
	struct bus_range *range[2][FAKE_RANGES];
	struct fake_doorbell bell[FAKE_RANGES];
	int bells;
	int bell_adds, bell_dels; /* ever */
	bool doorbells_fail;
};

struct irq_line {
	unsigned gsi;
	atomic_bool level;
	atomic_int rises;
};

struct irq_msi {
	struct irqs *irqs;
	uint64_t addr;
	uint32_t data;
	atomic_int routes, fired;
};

struct irqs {
	struct irq_line line[FAKE_GSIS];
	struct irq_msi msi[FAKE_MSIS];
	int msis;
	bool route_fails;
};

struct fake_machine {
	struct machine_services s;
	struct bus bus;
	struct irqs irqs;
	struct gmem mem;
	atomic_int events;
	enum machine_event event;
	int code;
};

static inline void fake_event(struct machine_services *s, enum machine_event ev, int code)
{
	struct fake_machine *m = container_of(s, struct fake_machine, s);

	m->event = ev;
	m->code = code;
	atomic_fetch_add(&m->events, 1);
}

static inline struct fake_machine *fake_machine_new(void)
{
	struct fake_machine *m = calloc(1, sizeof(*m));

	m->s = (struct machine_services){
		.mem = &m->mem, .bus = &m->bus, .irqs = &m->irqs, .event = fake_event};
	pthread_mutex_init(&m->bus.lock, NULL);
	return m;
}

/* Asserts that the devices took everything with them. */
static inline void fake_machine_free(struct fake_machine *m)
{
	for (int i = 0; i < FAKE_RANGES; i++)
		assert(!m->bus.range[0][i] && !m->bus.range[1][i]);
	assert(m->bus.bells == 0);
	free(m);
}

int bus_add(struct bus *b, enum bus_kind kind, struct bus_range *r)
{
	int free_at = -1, err = -ENOSPC;

	pthread_mutex_lock(&b->lock);
	for (int i = 0; i < FAKE_RANGES; i++) {
		struct bus_range *o = b->range[kind][i];

		if (!o) {
			free_at = i;
		} else if (r->base <= o->base + o->len - 1 && o->base <= r->base + r->len - 1) {
			err = -EEXIST;
			free_at = -1;
			break;
		}
	}
	if (free_at >= 0) {
		b->range[kind][free_at] = r;
		err = 0;
	}
	pthread_mutex_unlock(&b->lock);
	return err;
}

void bus_remove(struct bus *b, enum bus_kind kind, struct bus_range *r)
{
	int found = 0;

	pthread_mutex_lock(&b->lock);
	for (int i = 0; i < FAKE_RANGES; i++)
		if (b->range[kind][i] == r) {
			b->range[kind][i] = NULL;
			found++;
		}
	pthread_mutex_unlock(&b->lock);
	assert(found == 1);
}

int bus_doorbell_add(struct bus *b, enum bus_kind kind, uint64_t addr, unsigned len, int eventfd)
{
	if (b->doorbells_fail)
		return -ENOSPC;
	for (int i = 0; i < b->bells; i++)
		if (b->bell[i].addr == addr)
			return -EEXIST;
	assert(b->bells < FAKE_RANGES);
	b->bell[b->bells++] = (struct fake_doorbell){kind, addr, len, eventfd};
	b->bell_adds++;
	return 0;
}

void bus_doorbell_del(struct bus *b, enum bus_kind kind, uint64_t addr, unsigned len, int eventfd)
{
	for (int i = 0; i < b->bells; i++)
		if (b->bell[i].addr == addr && b->bell[i].fd == eventfd && b->bell[i].len == len) {
			b->bell[i] = b->bell[--b->bells];
			b->bell_dels++;
			return;
		}
	assert(!"no such doorbell");
}

int bus_hold_back(struct bus *b, uint64_t port, unsigned len)
{
	return -ENOTSUP;
}

int irq_line_new(struct irqs *irqs, unsigned gsi, struct irq_line **out)
{
	assert(gsi < FAKE_GSIS);
	irqs->line[gsi].gsi = gsi;
	*out = &irqs->line[gsi];
	return 0;
}

void irq_line_free(struct irq_line *l)
{
}

void irq_line_set(struct irq_line *l, bool level)
{
	if (level && !atomic_load(&l->level))
		atomic_fetch_add(&l->rises, 1);
	atomic_store(&l->level, level);
}

int irq_msi_new(struct irqs *irqs, struct irq_msi **out)
{
	if (irqs->msis == FAKE_MSIS)
		return -ENOSPC;
	*out = &irqs->msi[irqs->msis++];
	(*out)->irqs = irqs;
	return 0;
}

void irq_msi_free(struct irq_msi *m)
{
}

int irq_msi_route(struct irq_msi *m, uint64_t addr, uint32_t data)
{
	if (m->irqs->route_fails)
		return -ENOSPC;
	m->addr = addr;
	m->data = data;
	atomic_fetch_add(&m->routes, 1);
	return 0;
}

void irq_msi_fire(struct irq_msi *m)
{
	atomic_fetch_add(&m->fired, 1);
}

/* What a vCPU would do: an access to a port or an address; doorbells are not looked at. */
static inline bool fake_access(struct fake_machine *m, enum bus_kind kind, uint64_t addr,
	void *data, unsigned len, bool write)
{
	struct bus_range *r = NULL;

	pthread_mutex_lock(&m->bus.lock);
	for (int i = 0; i < FAKE_RANGES; i++) {
		struct bus_range *o = m->bus.range[kind][i];

		if (o && addr >= o->base && addr - o->base < o->len)
			r = o;
	}
	pthread_mutex_unlock(&m->bus.lock);
	if (!r) {
		if (!write)
			memset(data, 0xff, len);
		return false;
	}
	if (len > r->len - (addr - r->base)) { /* the bus cuts it up */
		for (unsigned i = 0; i < len; i++)
			fake_access(m, kind, addr + i, (uint8_t *)data + i, 1, write);
		return true;
	}
	if (write)
		r->write(r, addr - r->base, data, len);
	else
		r->read(r, addr - r->base, data, len);
	return true;
}

static inline uint64_t fake_read(struct fake_machine *m, enum bus_kind kind, uint64_t addr,
	unsigned len)
{
	uint64_t v = 0;

	fake_access(m, kind, addr, &v, len, false);
	return v;
}

static inline void fake_write(struct fake_machine *m, enum bus_kind kind, uint64_t addr,
	uint64_t v, unsigned len)
{
	fake_access(m, kind, addr, &v, len, true);
}

static inline uint8_t in8(struct fake_machine *m, uint16_t port)
{
	return (uint8_t)fake_read(m, BUS_PORT, port, 1);
}

static inline uint32_t in32(struct fake_machine *m, uint16_t port)
{
	return (uint32_t)fake_read(m, BUS_PORT, port, 4);
}

#define out8(m, port, v)  fake_write(m, BUS_PORT, port, v, 1)
#define out16(m, port, v) fake_write(m, BUS_PORT, port, v, 2)
#define out32(m, port, v) fake_write(m, BUS_PORT, port, v, 4)

/* Configuration space of a slot; len 1, 2 or 4, reg anywhere. */
static inline uint32_t fake_cfg_read(struct fake_machine *m, unsigned slot, unsigned reg,
	unsigned len)
{
	out32(m, 0xcf8, 0x80000000u | slot << 11 | (reg & 0xfc));
	return (uint32_t)fake_read(m, BUS_PORT, 0xcfc + (reg & 3), len);
}

static inline void fake_cfg_write(struct fake_machine *m, unsigned slot, unsigned reg, uint32_t v,
	unsigned len)
{
	out32(m, 0xcf8, 0x80000000u | slot << 11 | (reg & 0xfc));
	fake_write(m, BUS_PORT, 0xcfc + (reg & 3), v, len);
}

/* Offset of a capability, 0 if there is none; after: where to go on, 0 from the start. */
static inline unsigned fake_cap_find(struct fake_machine *m, unsigned slot, uint8_t id,
	unsigned after)
{
	unsigned at = fake_cfg_read(m, slot, after ? after + 1 : 0x34, 1);

	for (int n = 0; at && n < 48; n++, at = fake_cfg_read(m, slot, at + 1, 1))
		if (fake_cfg_read(m, slot, at, 1) == id)
			return at;
	return 0;
}

#endif
