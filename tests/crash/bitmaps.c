/* SPDX-License-Identifier: MIT */
/*
 * bitmaps.c - see bitmaps.h.
 *
 * What a state holds is read here from its bytes, by the specification alone: the code that is
 * tested has no word in it.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "tests/crash/bitmaps.h"

static const char *const names[CRASH_BITMAPS] = {"a", "second", "third", "x"};

static void note(struct bitmaps_work *w, struct crash_bitmap *b, uint64_t first, uint64_t n)
{
	uint64_t per = 1ULL << b->grain_bits >> 9;

	n = round_up(first + n, per) - round_down(first, per);
	first = round_down(first, per);
	memset(b->noted + first, 1, min_u64(n, w->n_sectors - first));
}

void bitmaps_wrote(struct bitmaps_work *w, const struct guest_op *op)
{
	for (unsigned i = 0; i < CRASH_BITMAPS; i++)
		if (w->b[i].there && w->b[i].enabled)
			note(w, &w->b[i], op->sector, op->n);
}

static int add(struct bitmaps_work *w, struct disk *d, unsigned i, uint64_t *rng)
{
	struct crash_bitmap *b = &w->b[i];

	b->grain_bits = 9 + rng_next(rng) % 8;
	b->there = b->enabled = true;
	if (!b->noted)
		b->noted = malloc(w->n_sectors);
	memset(b->noted, 0, w->n_sectors);
	return disk_bitmap_change(d, BITMAP_ADD, names[i], 1ULL << b->grain_bits, NULL);
}

static int change(
	struct bitmaps_work *w, struct disk *d, unsigned i, bool last_session, uint64_t *rng)
{
	struct crash_bitmap *b = &w->b[i];
	unsigned other = rng_next(rng) % CRASH_BITMAPS;

	switch (rng_next(rng) % 5) {
	case 0:
		if (last_session) /* the directory stays where it is */
			return 0;
		b->there = false;
		return disk_bitmap_change(d, BITMAP_REMOVE, names[i], 0, NULL);
	case 1:
		memset(b->noted, 0, w->n_sectors);
		return disk_bitmap_change(d, BITMAP_CLEAR, names[i], 0, NULL);
	case 2:
		if (!w->b[other].there)
			return 0;
		for (uint64_t s = 0; s < w->n_sectors; s++)
			if (w->b[other].noted[s])
				note(w, b, s, 1);
		return disk_bitmap_merge(d, names[i], d, names[other], NULL);
	default:
		b->enabled = !b->enabled;
		return disk_bitmap_change(
			d, b->enabled ? BITMAP_ENABLE : BITMAP_DISABLE, names[i], 0, NULL);
	}
}

int bitmaps_step(struct bitmaps_work *w, struct run_log *r, struct disk *d, uint64_t *rng)
{
	unsigned i = rng_next(rng) % CRASH_BITMAPS;
	bool second = r->n_closes == 1;

	if (w->b[i].there)
		return change(w, d, i, second, rng);
	return second ? 0 : add(w, d, i, rng);
}

/* ---- closing and opening ---- */

void bitmaps_closing(const struct bitmaps_work *w, struct run_log *r)
{
	struct crash_close *c;

	r->closes = r->closes ? r->closes : calloc(CRASH_SESSIONS, sizeof(*r->closes));
	assert(r->n_closes < CRASH_SESSIONS);
	c = &r->closes[r->n_closes++];
	*c = (struct crash_close){
		.begun = r->log.clock, .done = NEVER, .reopening = NEVER, .opened = NEVER};
	for (unsigned i = 0; i < CRASH_BITMAPS; i++) {
		c->b[i] = w->b[i];
		if (!w->b[i].noted)
			continue;
		c->b[i].noted = malloc(w->n_sectors);
		memcpy(c->b[i].noted, w->b[i].noted, w->n_sectors);
	}
}

void bitmaps_closed(struct run_log *r, int err)
{
	r->closes[r->n_closes - 1].done = err ? NEVER : r->log.clock;
}

void bitmaps_opening(struct run_log *r)
{
	if (r->n_closes)
		r->closes[r->n_closes - 1].reopening = r->log.clock;
}

void bitmaps_opened(struct run_log *r)
{
	if (r->n_closes)
		r->closes[r->n_closes - 1].opened = r->log.clock;
}

static void drop(struct crash_bitmap *b)
{
	for (unsigned i = 0; i < CRASH_BITMAPS; i++)
		free(b[i].noted);
}

void bitmaps_fini(struct bitmaps_work *w)
{
	drop(w->b);
}

void bitmaps_free(struct run_log *r)
{
	for (unsigned i = 0; i < r->n_closes; i++)
		drop(r->closes[i].b);
	free(r->closes);
	r->closes = NULL;
	r->n_closes = 0;
}

/* ---- judging ---- */

#define IN_USE 1u
#define AUTO   2u

struct found {
	struct qcow2_disk_bitmap d;
	char name[16];
};

static bool bit_at(const struct mem_image *m, const struct qcow2_disk_bitmap *d, uint64_t bit,
	uint32_t cluster_size)
{
	uint64_t part = bit / (cluster_size * 8ULL), in = bit % (cluster_size * 8ULL), off;
	be64_t entry;
	uint8_t byte;

	if (part >= be32_get(d->table_size))
		return false;
	mem_read(m, &entry, sizeof(entry), be64_get(d->table_offset) + part * 8);
	off = be64_get(entry) & QCOW2_OFFSET_MASK;
	if (!off)
		return be64_get(entry) & 1;
	mem_read(m, &byte, 1, off + in / 8);
	return byte >> (in & 7) & 1;
}

static bool as_noted(struct explorer *e, const struct found *f, const struct crash_bitmap *b)
{
	const struct row *row = work_of(e)->r->row;
	uint64_t per = 1ULL << f->d.granularity_bits >> 9;

	for (uint64_t s = 0; s < row->create.size / SECTOR; s += per) {
		if (bit_at(&e->k.state, &f->d, s / per, row->create.cluster_size) == b->noted[s])
			continue;
		snprintf(e->why, sizeof(e->why),
			"bitmap %s: sector %" PRIu64 " was %swritten to", f->name, s,
			b->noted[s] ? "" : "not ");
		return false;
	}
	return true;
}

/* The latest close that has begun, or NULL. */
static const struct crash_close *last_close(const struct run_log *r, uint64_t tick)
{
	for (unsigned i = r->n_closes; i-- > 0;)
		if (r->closes[i].begun < tick)
			return &r->closes[i];
	return NULL;
}

/* One entry of the directory. */
static bool judge_one(struct explorer *e, const struct found *f)
{
	const struct crash_close *c = last_close(work_of(e)->r, e->oracle.at);
	uint32_t flags = be32_get(f->d.flags);

	if (flags & IN_USE)
		return true;
	for (unsigned i = 0; c && i < CRASH_BITMAPS; i++) {
		const struct crash_bitmap *b = &c->b[i];

		if (strcmp(f->name, names[i]) != 0 || !b->there)
			continue;
		if (c->opened < e->oracle.at)
			break;
		if (b->grain_bits == f->d.granularity_bits && b->enabled == !!(flags & AUTO))
			return as_noted(e, f, b);
	}
	snprintf(e->why, sizeof(e->why), "bitmap %s is said to be good", f->name);
	return false;
}

struct header_args {
	struct file *f;
	struct qcow2_header h;
};

static int header_fiber(void *arg)
{
	struct header_args *a = arg;

	return qcow2_header_read(a->f, &a->h, NULL);
}

/* false: not even that; others will say so. */
static bool read_header(struct explorer *e, struct header_args *a)
{
	int err = memfile_open(e->loop, &e->k.state, 0, &a->f);

	if (err)
		return false;
	err = fiber_run(e->loop, header_fiber, a);
	file_close(a->f);
	return !err;
}

bool bitmaps_judge(struct explorer *e)
{
	const struct crash_close *c = last_close(work_of(e)->r, e->oracle.at);
	struct header_args a = {0};
	unsigned good = 0, want = 0;
	uint64_t at;

	e->memo->unfit = true; /* what is right depends on when it is */
	if (!read_header(e, &a))
		return true;
	at = a.h.bitmaps_offset;
	for (uint32_t i = 0; i < a.h.nb_bitmaps; i++) {
		struct found f = {.name = ""};

		mem_read(&e->k.state, &f.d, sizeof(f.d), at);
		mem_read(&e->k.state, f.name, min_u64(be16_get(f.d.name_bytes), 15),
			at + sizeof(f.d));
		at += round_up(sizeof(f.d) + be16_get(f.d.name_bytes), 8);
		if (!judge_one(e, &f))
			return false;
		good += !(be32_get(f.d.flags) & IN_USE);
	}
	/* Between a close and what comes after it they are all there. */
	if (!c || c->done >= e->oracle.at || c->reopening < e->oracle.at)
		return true;
	for (unsigned i = 0; i < CRASH_BITMAPS; i++)
		want += c->b[i].there;
	if (good == want)
		return true;
	snprintf(e->why, sizeof(e->why), "%u good bitmaps of the %u that were saved", good, want);
	return false;
}
