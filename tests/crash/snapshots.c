/* SPDX-License-Identifier: MIT */
/*
 * snapshots.c - see snapshots.h.
 *
 * To the oracle, applying a snapshot is a write of all that changes by it.  What a
 * snapshot itself holds is compared from the tick on at which it was there, until its deletion
 * begins.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "tests/crash/snapshots.h"

void snapshots_init(struct snapshots *s, uint64_t n_sectors, bool in_flight)
{
	s->n_sectors = n_sectors;
	s->in_flight = in_flight;
	s->now = calloc(n_sectors, sizeof(*s->now));
	s->flight = calloc(n_sectors, sizeof(*s->flight));
	if (!s->now || !s->flight)
		abort();
}

void snapshots_writes(struct snapshots *s, const struct guest_op *op)
{
	for (uint64_t i = op->sector; s->now && i < op->sector + op->n; i++)
		s->flight[i].mixed |= s->flight[i].busy++ > 0;
}

void snapshots_wrote(struct snapshots *s, const struct guest_op *op, int err)
{
	s->lost |= err != 0;
	for (uint64_t i = op->sector; s->now && i < op->sector + op->n; i++) {
		struct snapshots_sector *f = &s->flight[i];

		s->now[i] = f->mixed ? SNAPSHOT_UNSURE : op->version;
		if (s->taken && op->submitted <= s->taken_at)
			s->taken->version[i] = s->now[i];
		f->mixed &= --f->busy > 0;
	}
}

void snapshots_refused(struct snapshots *s, const struct guest_op *op)
{
	for (uint64_t i = op->sector; s->now && i < op->sector + op->n; i++)
		s->flight[i].mixed &= --s->flight[i].busy > 0;
}

static int change(const struct snapshots *s, struct disk *d, enum snapshot_op op, const char *name)
{
	return s->in_flight ? disk_online_snapshot(d, op, name, NULL) :
			 disk_snapshot_change(d, op, name, NULL);
}

static int create(struct snapshots *s, struct run_log *r, struct disk *d, uint32_t *live)
{
	struct crash_snapshot *all = realloc(r->snapshots, (r->n_snapshots + 1) * sizeof(*all));
	struct crash_snapshot *one;
	int err;

	if (!all)
		abort();
	r->snapshots = all;
	one = &all[r->n_snapshots];
	*one = (struct crash_snapshot){.born = NEVER, .gone = NEVER};
	snprintf(one->name, sizeof(one->name), "s%u", r->n_snapshots);
	one->version = malloc(s->n_sectors * sizeof(*one->version));
	memcpy(one->version, s->now, s->n_sectors * sizeof(*one->version));
	r->n_snapshots++;
	s->taken = one;
	s->taken_at = r->log.clock;
	err = change(s, d, SNAPSHOT_CREATE, one->name);
	s->taken = NULL;
	/* A write that failed while it was waited for has left nobody knows what. */
	if (err || s->lost)
		return err;
	one->born = r->log.clock;
	*live = r->n_snapshots;
	return 0;
}

static int apply(struct snapshots *s, struct run_log *r, struct disk *d,
	const struct crash_snapshot *one)
{
	uint64_t first = r->log.n_guest;
	int err;

	for (uint64_t at = 0, n; at < s->n_sectors; at += n) {
		uint32_t v = one->version[at];

		for (n = 1; at + n < s->n_sectors && one->version[at + n] == v; n++)
			;
		crash_log_submit(&r->log, &(struct guest_op){.kind = GUEST_WRITE,
						  .fua = true,
						  .wce_at_submit = disk_wce(d),
						  .sector = at,
						  .n = n,
						  .version = v});
	}
	err = change(s, d, SNAPSHOT_APPLY, one->name);
	for (uint64_t i = first; i < r->log.n_guest; i++)
		crash_log_ack(&r->log, i, disk_wce(d), err);
	if (!err)
		memcpy(s->now, one->version, s->n_sectors * sizeof(*s->now));
	return err;
}

int snapshots_step(struct snapshots *s, struct run_log *r, struct disk *d, uint64_t *rng)
{
	uint32_t *live = &s->live[rng_next(rng) % SNAPSHOTS_KEPT];
	struct crash_snapshot *one;
	int err;

	if (s->lost)
		return 0;
	if (!*live) {
		err = create(s, r, d, live);
	} else if (!s->in_flight && rng_next(rng) & 1) {
		err = apply(s, r, d, &r->snapshots[*live - 1]);
	} else {
		one = &r->snapshots[*live - 1];
		one->gone = r->log.clock;
		err = change(s, d, SNAPSHOT_DELETE, one->name);
		*live = 0;
	}
	s->lost |= err != 0;
	return err;
}

void snapshots_fini(struct snapshots *s)
{
	free(s->now);
	free(s->flight);
	*s = (struct snapshots){0};
}

void snapshots_free(struct run_log *r)
{
	for (uint32_t i = 0; i < r->n_snapshots; i++)
		free(r->snapshots[i].version);
	free(r->snapshots);
	r->snapshots = NULL;
	r->n_snapshots = 0;
}

/* ---- judging ---- */

struct look {
	struct explorer *e;
	struct disk *d;
	const struct crash_snapshot *one;
};

static int look_fiber(void *arg)
{
	struct look *k = arg;
	struct explorer *e = k->e;
	uint64_t sectors;
	int err = disk_snapshot_load(k->d, NULL, k->one->name, NULL);

	if (err) {
		snprintf(e->why, sizeof(e->why), "snapshot %s: %s", k->one->name, strerror(-err));
		return err;
	}
	sectors = disk_size(k->d) / SECTOR;
	for (uint64_t at = 0, n; at < sectors; at += n) {
		uint8_t want[SECTOR];

		n = min_u64(EXPLORER_BUF_SECTORS, sectors - at);
		err = disk_pread(k->d, e->buf, n * SECTOR, at * SECTOR);
		for (uint64_t i = 0; !err && i < n; i++) {
			if (k->one->version[at + i] == SNAPSHOT_UNSURE)
				continue;
			oracle_fill(want, at + i, k->one->version[at + i]);
			if (memcmp(want, e->buf + i * SECTOR, SECTOR))
				err = -EIO;
		}
		if (err) {
			snprintf(e->why, sizeof(e->why),
				"snapshot %s, near sector %" PRIu64 ": not what it held",
				k->one->name, at);
			return err;
		}
	}
	return 0;
}

bool snapshots_judge(struct explorer *e)
{
	const struct row *row = work_of(e)->r->row;
	struct disk_opts o = {.format = row->format,
		.readonly = true,
		.backing = below_path(row),
		.backing_format = row->below ? "raw" : NULL};

	for (uint32_t i = 0; i < work_of(e)->r->n_snapshots; i++) {
		const struct crash_snapshot *one = &work_of(e)->r->snapshots[i];
		struct look k = {.e = e, .one = one};
		struct file *f;
		int err;

		if (one->born > e->oracle.at || one->gone <= e->oracle.at)
			continue;
		err = memfile_open(e->loop, &e->k.state, 0, &f);
		if (!err)
			err = disk_open_file(f, &o, &k.d, NULL);
		if (err) {
			snprintf(e->why, sizeof(e->why), "does not open for a snapshot");
			return false;
		}
		err = fiber_run(e->loop, look_fiber, &k);
		disk_abandon(k.d);
		if (err)
			return false;
	}
	return true;
}
