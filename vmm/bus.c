/* SPDX-License-Identifier: MIT */
/*
 * bus.c - from an address to its handler, without a lock on the way.
 *
 * Each kind of address has two sorted arrays of ranges; one is published, the other is the
 * spare that the next change is built in.  A reader (a vCPU) announces in its own slot what it
 * looks at, and whoever changes something waits for the announcements to go away:
 *
 *   reader                                writer
 *   slot.table = published                build the spare, publish it
 *   published still the same? else again  wait until no slot.table is the old one
 *   find r; slot.range = r                   (from here on the old one is the spare)
 *   slot.table = NULL                     on removal: wait until no other slot.range is r
 *   call the handler
 *   slot.range = NULL
 *
 * All of these are sequentially consistent, so a reader that passed its second look is
 * seen by the writer, and one that did not looks again.  A slot.range is set before its
 * slot.table is cleared, so the second wait misses nobody.  A reader is not waited for
 * by itself: a handler may remove any range.
 */
#include "vmm/bus_dispatch.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "vmm/kvm.h"

/* 32 PCI devices with six BARs each, and what a PC has. */
#define RANGES_MAX 256

struct table {
	unsigned n;
	struct bus_range *r[RANGES_MAX]; /* by base; never overlapping */
};

struct space {
	_Atomic(struct table *) published;
	struct table tables[2];
};

/* One cache line each, so that vCPUs do not share. */
struct slot {
	_Atomic(struct table *) table;
	_Atomic(struct bus_range *) range;
	pthread_t thread; /* valid while range is set */
} __attribute__((aligned(64)));

struct bus {
	struct kvm *kvm;
	pthread_mutex_t lock;  /* one change at a time */
	struct space space[2]; /* by enum bus_kind */
	unsigned n_slots;
	struct slot slots[];
};

int bus_new(struct kvm *kvm, unsigned n_readers, struct bus **out)
{
	struct bus *b;
	size_t size = round_up(sizeof(*b) + n_readers * sizeof(b->slots[0]), 64);

	b = aligned_alloc(64, size);
	if (!b)
		return -ENOMEM;
	memset(b, 0, size);
	b->kvm = kvm;
	b->n_slots = n_readers;
	pthread_mutex_init(&b->lock, NULL);
	for (unsigned i = 0; i < ARRAY_SIZE(b->space); i++)
		atomic_init(&b->space[i].published, &b->space[i].tables[0]);
	*out = b;
	return 0;
}

void bus_free(struct bus *b)
{
	if (!b)
		return;
	pthread_mutex_destroy(&b->lock);
	free(b);
}

/* Handlers are short; the exception (a reset that drains a disk) must not burn a CPU. */
static void pause_a_little(unsigned *turns)
{
	if ((*turns)++ < 100)
		sched_yield();
	else
		usleep(100);
}

static struct table *spare_locked(struct space *s)
{
	return atomic_load(&s->published) == &s->tables[0] ? &s->tables[1] : &s->tables[0];
}

static void publish_locked(struct bus *b, struct space *s, struct table *t)
{
	struct table *old = atomic_exchange(&s->published, t);

	for (unsigned i = 0, turns = 0; i < b->n_slots; i++) {
		while (atomic_load(&b->slots[i].table) == old)
			pause_a_little(&turns);
	}
}

/* Index of the first range that ends after addr. */
static unsigned table_find(const struct table *t, uint64_t addr)
{
	unsigned lo = 0, hi = t->n;

	while (lo < hi) {
		unsigned mid = (lo + hi) / 2;

		if (addr - t->r[mid]->base < t->r[mid]->len || addr < t->r[mid]->base)
			hi = mid;
		else
			lo = mid + 1;
	}
	return lo;
}

int bus_add(struct bus *b, enum bus_kind kind, struct bus_range *r)
{
	struct space *s = &b->space[kind];
	const struct table *cur;
	struct table *t;
	unsigned at;
	int err = 0;

	if (!r->len || r->base + (r->len - 1) < r->base)
		return -EINVAL;
	pthread_mutex_lock(&b->lock);
	cur = atomic_load(&s->published);
	at = table_find(cur, r->base);
	if (at < cur->n && cur->r[at]->base <= r->base + (r->len - 1)) {
		err = -EEXIST;
	} else if (cur->n == RANGES_MAX) {
		err = -ENOSPC;
	} else {
		t = spare_locked(s);
		memcpy(t->r, cur->r, at * sizeof(t->r[0]));
		t->r[at] = r;
		memcpy(t->r + at + 1, cur->r + at, (cur->n - at) * sizeof(t->r[0]));
		t->n = cur->n + 1;
		publish_locked(b, s, t);
	}
	pthread_mutex_unlock(&b->lock);
	return err;
}

void bus_remove(struct bus *b, enum bus_kind kind, struct bus_range *r)
{
	struct space *s = &b->space[kind];
	const struct table *cur;
	struct table *t;

	pthread_mutex_lock(&b->lock);
	cur = atomic_load(&s->published);
	t = spare_locked(s);
	t->n = 0;
	for (unsigned i = 0; i < cur->n; i++) {
		if (cur->r[i] != r)
			t->r[t->n++] = cur->r[i];
	}
	assert(t->n == cur->n - 1); /* it was there */
	publish_locked(b, s, t);
	pthread_mutex_unlock(&b->lock);
	for (unsigned i = 0, turns = 0; i < b->n_slots; i++) {
		while (atomic_load(&b->slots[i].range) == r &&
			!pthread_equal(b->slots[i].thread, pthread_self()))
			pause_a_little(&turns);
	}
}

/*
 * The range that claims addr, which then stays until leave(); or NULL, and *gap is how many
 * bytes from addr on nobody claims.
 */
static struct bus_range *enter(
	struct bus *b, struct slot *me, enum bus_kind kind, uint64_t addr, uint64_t *gap)
{
	struct space *s = &b->space[kind];
	struct bus_range *r = NULL;
	struct table *t;
	unsigned i;

	do {
		t = atomic_load(&s->published);
		atomic_store(&me->table, t);
	} while (atomic_load(&s->published) != t);
	i = table_find(t, addr);
	*gap = UINT64_MAX;
	if (i < t->n && t->r[i]->base <= addr) {
		r = t->r[i];
		me->thread = pthread_self();
		atomic_store(&me->range, r);
	} else if (i < t->n) {
		*gap = t->r[i]->base - addr;
	}
	atomic_store(&me->table, NULL);
	return r;
}

static void leave(struct slot *me)
{
	atomic_store(&me->range, NULL);
}

/* One access, or the first part of it that has one owner; returns its length. */
static unsigned access_part(struct bus *b, struct slot *me, enum bus_kind kind, uint64_t addr,
	void *in, const void *out, unsigned len)
{
	uint64_t gap, left;
	struct bus_range *r = enter(b, me, kind, addr, &gap);

	if (!r) {
		len = (unsigned)min_u64(len, gap);
		if (in)
			memset(in, 0xff, len);
		return len;
	}
	left = r->len - (addr - r->base);
	if (left < len)
		len = 1; /* straddles the end */
	if (in && r->read)
		r->read(r, addr - r->base, in, len);
	else if (in)
		memset(in, 0xff, len);
	else if (r->write)
		r->write(r, addr - r->base, out, len);
	leave(me);
	return len;
}

static void access_all(struct bus *b, unsigned reader, enum bus_kind kind, uint64_t addr,
	uint8_t *in, const uint8_t *out, unsigned len)
{
	struct slot *me = &b->slots[reader];
	unsigned done = 0;

	assert(reader < b->n_slots && !atomic_load(&me->range));
	while (done < len) {
		/* What is left after a cut is no power of two any more: byte by byte. */
		unsigned part = done ? 1 : len;

		done += access_part(b, me, kind, addr + done, in ? in + done : NULL,
			out ? out + done : NULL, part);
	}
}

void bus_read(
	struct bus *b, unsigned reader, enum bus_kind kind, uint64_t addr, void *data, unsigned len)
{
	access_all(b, reader, kind, addr, data, NULL, len);
}

void bus_write(struct bus *b, unsigned reader, enum bus_kind kind, uint64_t addr, const void *data,
	unsigned len)
{
	access_all(b, reader, kind, addr, NULL, data, len);
}

void bus_string(struct bus *b, unsigned reader, uint64_t port, void *in, const void *out,
	unsigned len, unsigned n)
{
	struct slot *me = &b->slots[reader];
	uint64_t gap;
	struct bus_range *r;

	if (n > 1) {
		r = enter(b, me, BUS_PORT, port, &gap);
		if (r && r->string && r->len - (port - r->base) >= len) {
			r->string(r, port - r->base, in, out, len, n);
			leave(me);
			return;
		}
		leave(me);
	}
	for (unsigned i = 0; i < n; i++)
		access_all(b, reader, BUS_PORT, port, in ? (uint8_t *)in + i * len : NULL,
			out ? (const uint8_t *)out + i * len : NULL, len);
}

int bus_doorbell_add(struct bus *b, enum bus_kind kind, uint64_t addr, unsigned len, int eventfd)
{
	if (!b->kvm)
		return -ENODEV;
	return kvm_doorbell(b->kvm, kind == BUS_PORT, addr, len, eventfd, true);
}

void bus_doorbell_del(struct bus *b, enum bus_kind kind, uint64_t addr, unsigned len, int eventfd)
{
	/* Fails only for a doorbell that was never added. */
	if (b->kvm && kvm_doorbell(b->kvm, kind == BUS_PORT, addr, len, eventfd, false))
		assert(!"a doorbell that is not there");
}

int bus_hold_back(struct bus *b, uint64_t port, unsigned len)
{
	return b->kvm ? kvm_hold_back(b->kvm, port, len) : -ENOTSUP;
}
