/* SPDX-License-Identifier: MIT */
/*
 * judge.c - is one state after a power cut what the contract allows?
 *
 * It is met as a user would meet it: opened for writing (which repairs a dirty image), every sector
 * ever written read and put to the oracle, then checked; after a repair nothing may leak either.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include "tests/crash/explore.h"

#define READ_MAX EXPLORER_BUF_SECTORS

struct judge {
	struct explorer *e;
	struct disk *d;
	struct file *f;
	struct qcow2_check check;
};

static int read_run(struct judge *j, uint64_t at, uint64_t n)
{
	struct explorer *e = j->e;
	int err = disk_pread(j->d, e->buf, n * SECTOR, at * SECTOR);

	if (err) {
		snprintf(
			e->why, sizeof(e->why), "sector %" PRIu64 ": read: %s", at, strerror(-err));
		return -1;
	}
	for (uint64_t s = 0; s < n; s++) {
		enum verdict v = oracle_judge(&e->oracle, at + s, e->buf + s * SECTOR);

		if (v == LEGAL)
			continue;
		snprintf(e->why, sizeof(e->why), "sector %" PRIu64 ": %s", at + s, verdict_name(v));
		return -1;
	}
	return 0;
}

/* The disk may still have its old size, if nothing durable lies past it. */
static int too_small(struct judge *j, uint64_t at, uint64_t n)
{
	static const uint64_t zeros[SECTOR / 8];
	uint64_t size = disk_size(j->d) / SECTOR;

	if (at < size && read_run(j, at, size - at))
		return -1;
	for (at = max_u64(at, size); at < j->e->oracle.n_sectors; at++) {
		if (oracle_judge(&j->e->oracle, at, zeros) == LEGAL)
			continue;
		snprintf(j->e->why, sizeof(j->e->why),
			"sector %" PRIu64 ": the disk ends before it", at);
		return -1;
	}
	return 0;
}

/* All sectors that were ever written, in long reads. */
static int read_all(void *arg)
{
	struct judge *j = arg;
	uint64_t at = 0, n;

	for (; oracle_next_run(&j->e->oracle, &at, &n); at += n) {
		n = min_u64(n, READ_MAX);
		if (at + n > disk_size(j->d) / SECTOR)
			return too_small(j, at, n);
		if (read_run(j, at, n))
			return -1;
	}
	return 0;
}

static void check_line(void *arg, const char *line)
{
	fprintf(stderr, "  check: %s\n", line);
}

static int check_image(void *arg)
{
	struct judge *j = arg;

	/* Wording a finding costs more than finding it. */
	j->check.report = j->e->o->verbose ? check_line : NULL;
	return qcow2_check(j->f, 0, &j->check, NULL);
}

bool explorer_dirty(const struct mem_image *m)
{
	struct qcow2_disk_header h;

	mem_read(m, &h, sizeof(h), 0);
	return be32_get(h.version) >= 3 && (be64_get(h.incompatible) & QCOW2_INCOMPAT_DIRTY);
}

static bool check_ok(struct explorer *e, bool was_dirty)
{
	struct judge j = {.e = e};
	int err = memfile_open(e->loop, &e->state, 0, &j.f);

	if (!err) {
		err = fiber_run(e->loop, check_image, &j);
		file_close(j.f);
	}
	if (err || j.check.corruptions || j.check.check_errors || (was_dirty && j.check.leaks)) {
		snprintf(e->why, sizeof(e->why),
			"check: %" PRIu64 " corruptions, %" PRIu64 " leaks%s, error %d",
			j.check.corruptions, j.check.leaks, was_dirty ? " after repair" : "", err);
		return false;
	}
	e->t->leaks += j.check.leaks > 0;
	return true;
}

/* e->state after the cut: true if it keeps the contract.  The state is used up. */
bool explorer_judge(struct explorer *e)
{
	bool qcow2 = !strcmp(e->r->row->format, "qcow2"), was_dirty = false;
	struct disk_opts o = {.format = e->r->row->format,
		.l2_cache_bytes = 64 * KiB,
		.refcount_cache_bytes = 32 * KiB};
	struct judge j = {.e = e};
	struct why why = {{0}};
	int err;

	if (qcow2) {
		was_dirty = explorer_dirty(&e->state);
		e->t->dirty += was_dirty;
	}
	err = memfile_open(e->loop, &e->state, 0, &j.f);
	if (!err)
		err = disk_open_file(j.f, &o, &j.d, &why);
	if (err) {
		snprintf(e->why, sizeof(e->why), "does not open: %.200s", why_text(&why, err));
		return false;
	}
	err = fiber_run(e->loop, read_all, &j);
	disk_abandon(j.d);
	return !err && (!qcow2 || check_ok(e, was_dirty));
}
