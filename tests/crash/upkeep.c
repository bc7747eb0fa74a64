/* SPDX-License-Identifier: MIT */
/*
 * upkeep.c - see upkeep.h.
 *
 * To the oracle a smaller disk is a discard of what lies behind its end, its growth a write of
 * zeros there, and an emptied layer a write of what lies below it.  All the others change
 * nothing that a guest could read.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "blockdev/qcow2/qcow2.h"
#include "tests/crash/upkeep.h"

static void begin(struct run_log *r, const struct disk *d, enum guest_kind kind, uint64_t sector,
	uint64_t n, uint32_t version)
{
	crash_log_submit(&r->log, &(struct guest_op){.kind = kind,
					  .fua = kind == GUEST_WRITE,
					  .wce_at_submit = disk_wce(d),
					  .sector = sector,
					  .n = n,
					  .version = version});
}

static void end(struct run_log *r, const struct disk *d, uint64_t first, int err)
{
	for (uint64_t i = first; i < r->log.n_guest; i++)
		crash_log_ack(&r->log, i, disk_wce(d), err);
}

/* Between half of what it was made with, and all of that. */
static int resize(struct run_log *r, struct disk *d, uint64_t *rng, bool live)
{
	uint64_t all = r->row->create.size / SECTOR, old = disk_size(d) / SECTOR;
	uint64_t size = all / 2 + rng_next(rng) % (all / 2 + 1), first = r->log.n_guest;
	int err;

	if (size < old)
		begin(r, d, GUEST_DISCARD, size, old - size, 0);
	else if (size > old)
		begin(r, d, GUEST_WRITE, old, size - old, 0);
	err = live ? disk_online_resize(d, size * SECTOR, NULL) :
		     disk_resize(d, size * SECTOR, PREALLOC_OFF, NULL);
	end(r, d, first, err);
	return err;
}

static int make_empty(struct run_log *r, struct disk *d)
{
	uint64_t size = disk_size(d) / SECTOR, first = r->log.n_guest;
	int err;

	for (uint64_t at = 0, n; at < size; at += n) {
		uint32_t v = below_version(r->row, at);

		for (n = 1; at + n < size && below_version(r->row, at + n) == v; n++)
			;
		begin(r, d, GUEST_WRITE, at, n, v);
	}
	err = disk_make_empty(d);
	end(r, d, first, err);
	return err;
}

/* Names of any length: with some the header is longer than a sector. */
static int set_backing(struct run_log *r, struct disk *d, uint64_t *rng)
{
	struct backing_name *all = realloc(r->names, (r->n_names + 1) * sizeof(*all)), *one;
	char name[1000];

	if (!all)
		abort();
	r->names = all;
	one = &all[r->n_names];
	*one = (struct backing_name){.submitted = r->log.clock,
		.done = NEVER,
		.len = (uint32_t)(rng_next(rng) % sizeof(name)),
		.letter = (char)('a' + r->n_names % 26)};
	r->n_names++;
	memset(name, one->letter, one->len);
	name[one->len] = '\0';
	one->err = disk_set_backing(d, name, one->len ? "raw" : "", NULL);
	one->done = r->log.clock;
	return one->err;
}

static int amend(const struct run_log *r, struct disk *d, uint64_t *rng)
{
	struct disk_amend a = {0};

	switch (rng_next(rng) % 5) {
	case 0:
		if (r->row->create.extended_l2)
			return 0; /* only version 3 has them */
		a.version = 2;
		a.refcount_bits = 16; /* as version 2 has them */
		a.set_lazy = true; /* off: version 2 has no such thing */
		break;
	case 1:
		a.version = 3;
		break;
	case 2:
		a.version = 3;
		a.refcount_bits = 1u << rng_next(rng) % 7;
		break;
	default:
		a.version = 3;
		a.set_lazy = true;
		a.lazy = rng_next(rng) & 1;
	}
	return disk_amend(d, &a, NULL);
}

/*
 * Snapshots keep the disk's size, and have counts to spare.  Mostly there and back: only version 3
 * makes zero clusters.
 */
static int amend_version(struct disk *d, uint64_t *rng)
{
	struct disk_amend down = {.version = 2, .set_lazy = true}, up = {.version = 3};
	int err = disk_amend(d, &down, NULL);

	return err || rng_next(rng) % 4 == 0 ? err : disk_amend(d, &up, NULL);
}

int upkeep_step(struct run_log *r, struct disk *d, uint64_t *rng)
{
	if (r->row->snapshot)
		return amend_version(d, rng);
	switch (rng_next(rng) % 8) {
	case 0:
		return make_empty(r, d);
	case 1:
	case 2:
		return amend(r, d, rng);
	case 3:
		return r->row->below ? set_backing(r, d, rng) : amend(r, d, rng);
	default:
		return resize(r, d, rng, false);
	}
}

int upkeep_resize_live(struct run_log *r, struct disk *d, uint64_t *rng)
{
	return resize(r, d, rng, true);
}

void upkeep_free(struct run_log *r)
{
	free(r->names);
	r->names = NULL;
	r->n_names = 0;
}

/* ---- judging ---- */

static bool is_name(
	const struct mem_image *m, const struct qcow2_disk_header *h, uint32_t len, char letter)
{
	char found[1024], want[1024];

	if (be32_get(h->backing_size) != len)
		return false;
	mem_read(m, found, len, be64_get(h->backing_offset));
	memset(want, letter, len);
	return !memcmp(found, want, len);
}

bool upkeep_judge(struct explorer *e)
{
	const struct run_log *r = work_of(e)->r;
	struct qcow2_disk_header h;

	mem_read(&e->k.state, &h, sizeof(h), 0);
	for (uint32_t i = r->n_names; i--;) {
		const struct backing_name *b = &r->names[i];

		if (b->submitted >= e->oracle.at)
			continue; /* not yet */
		if (is_name(&e->k.state, &h, b->len, b->letter))
			return true;
		if (b->done < e->oracle.at && !b->err) {
			snprintf(e->why, sizeof(e->why),
				"not the name of a backing file it was given");
			return false;
		}
	}
	if (is_name(&e->k.state, &h, 0, 0))
		return true;
	snprintf(e->why, sizeof(e->why), "a backing file's name that nobody gave it");
	return false;
}
