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
#include "blockdev/block.h"
#include "blockdev/crash/explorer.h"
#include "blockdev/crash/window.h"
#include "blockdev/qcow2/format.h"

#define READ_MAX EXPLORER_BUF_SECTORS

struct judge {
	struct explorer *e;
	struct disk *d;
	struct file *f;
	struct qcow2_check check;
	bool qcow2, dirty;
	bool noting;
	unsigned fix;
	uint64_t run; /* in e->memo, of the sector that is read */
};

static bool fails(struct explorer *e, uint64_t sector, enum verdict v)
{
	e->sector = sector;
	snprintf(e->why, sizeof(e->why), "sector %" PRIu64 ": %s", sector, verdict_name(v));
	return false;
}

/* ---- from what is known ---- */

bool explorer_judge_data(struct explorer *e, const struct memo_leaf *l)
{
	for (uint32_t i = 0; i < l->n_runs; i++) {
		const struct memo_run *r = &l->run[i];

		for (uint64_t k = 0; k < r->n; k++) {
			uint64_t s = r->guest + k, word = 0;
			enum verdict v;

			if (r->host != MEMO_ZEROS)
				word = facts_get(&e->k.facts, r->host + k)->word;
			if (word && word == oracle_legal_word(&e->oracle, s))
				continue;
			v = oracle_judge_word(&e->oracle, s, word);
			if (v != LEGAL)
				return fails(e, s, v);
		}
	}
	return true;
}

/* Notes where all sectors lie that were ever written. */
static int map_all(void *arg)
{
	struct judge *j = arg;
	struct memo *m = j->e->memo;
	uint64_t at = 0, n, size = disk_size(j->d) / SECTOR;

	m->unfit |= disk_backing(j->d) || j->e->s->below_bytes;
	for (; oracle_next_run(&j->e->oracle, &at, &n); at += n) {
		struct extent x = {.kind = EXTENT_ZERO, .len = n * SECTOR};
		uint64_t host = MEMO_ZEROS;

		if (at < size) {
			n = min_u64(n, size - at);
			if (disk_extent(j->d, at * SECTOR, n * SECTOR, &x))
				return -1; /* reading will say what is wrong */
			n = x.len / SECTOR;
		}
		if (x.kind == EXTENT_DATA)
			host = x.host_off / SECTOR;
		m->unfit |= x.kind == EXTENT_DATA && (!x.has_host_off || x.compressed);
		memo_map(m, at, host, n);
	}
	return 0;
}

/* Was this read from where the map says it lies? */
static bool as_mapped(struct judge *j, uint64_t sector, uint64_t found)
{
	const struct memo *m = j->e->memo;
	const struct memo_run *r;
	uint64_t word = 0;

	if (!j->noting || m->unfit)
		return true;
	while (m->run[j->run].guest + m->run[j->run].n <= sector)
		j->run++;
	r = &m->run[j->run];
	if (r->host != MEMO_ZEROS)
		word = facts_get(&j->e->k.facts, r->host + sector - r->guest)->word;
	return word == found;
}

/* ---- in full ---- */

static int read_run(struct judge *j, uint64_t at, uint64_t n)
{
	struct explorer *e = j->e;
	int err = disk_pread(j->d, e->buf, n * SECTOR, at * SECTOR);

	if (e->s->log->used)
		e->s->log->used(e->s->log->used_arg, n * SECTOR);
	if (err) {
		snprintf(
			e->why, sizeof(e->why), "sector %" PRIu64 ": read: %s", at, strerror(-err));
		return -1;
	}
	for (uint64_t s = 0; s < n; s++) {
		uint64_t word = oracle_word_of(&e->oracle, e->buf + s * SECTOR);
		enum verdict v = oracle_judge_word(&e->oracle, at + s, word);

		if (v != LEGAL)
			return fails(e, at + s, v) - 1;
		if (as_mapped(j, at + s, word))
			continue;
		/* Another place, or a repair that wrote there: no word on other states. */
		e->memo->unfit = true;
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

static int check_image(void *arg)
{
	struct judge *j = arg;

	/* Wording a finding costs more than finding it. */
	j->check.report = j->e->report;
	return qcow2_check(j->f, j->fix, &j->check, NULL);
}

bool explorer_overlaid(const struct explorer *e)
{
	return e->s->below_bytes && e->oracle.at > e->s->overlaid_at;
}

static bool is_qcow2(const struct explorer *e)
{
	return explorer_overlaid(e) || !strcmp(e->s->format, "qcow2");
}

bool explorer_dirty(const struct explorer *e, const struct mem_image *m)
{
	struct qcow2_disk_header h;

	if (!is_qcow2(e))
		return false;
	mem_read(m, &h, sizeof(h), explorer_overlaid(e) ? e->s->below_bytes : e->s->data_bytes);
	return be32_get(h.version) >= 3 && (be64_get(h.incompatible) & QCOW2_INCOMPAT_DIRTY);
}

/*
 * The state's image as j->f and, unless other is NULL, as *other its data file or what lies below
 * it in the same file, if it has one.
 */
static int open_state(struct judge *j, struct file **other)
{
	struct explorer *e = j->e;
	uint64_t first = e->s->data_bytes + e->s->below_bytes;
	bool grows = e->s->below_bytes && !strcmp(e->s->format, "qcow2");
	struct file *all, *rest;
	int err = memfile_open(e->loop, &e->k.state, 0, &all);

	if (err || !first) {
		j->f = all;
	} else if (e->s->data_bytes || explorer_overlaid(e)) {
		err = window_pair(all, first, other, &j->f);
	} else {
		err = window_pair(all, first, &j->f, &rest);
		if (!err)
			file_close(rest); /* an overlay that is not in use */
	}
	if (!err && grows && (other || !explorer_overlaid(e)))
		window_grows(explorer_overlaid(e) ? *other : j->f, first / 2);
	return err;
}

static int check(struct judge *j, unsigned fix)
{
	struct explorer *e = j->e;
	int err = open_state(j, NULL);

	j->fix = fix;
	if (!err) {
		err = fiber_run(e->loop, check_image, j);
		file_close(j->f);
	}
	return err;
}

/*
 * Version 2 has no mark under which counts and copied flags could change together, and a
 * snapshot changes both.  What may be left is leaks, and flags that are right once the counts
 * are, or that are not set: never one that is set on what two share.
 */
static bool flags_may_lag(struct judge *j)
{
	struct qcow2_disk_header h;

	mem_read(&j->e->k.state, &h, sizeof(h), j->e->s->data_bytes);
	if (be32_get(h.version) != 2 || !j->e->s->flags_may_lag || j->check.check_errors)
		return false;
	return !check(j, QCOW2_FIX_LEAKS) && !check(j, 0) && !j->check.leaks &&
	       j->check.corruptions == j->check.missing_flags;
}

static bool check_ok(struct judge *j)
{
	struct explorer *e = j->e;
	struct qcow2_check *k = &j->check;
	int err = check(j, 0);

	if (!err && k->corruptions && flags_may_lag(j))
		return true;
	if (err || k->corruptions || k->check_errors || (j->dirty && k->leaks)) {
		snprintf(e->why, sizeof(e->why),
			"check: %" PRIu64 " corruptions, %" PRIu64 " leaks%s, error %d",
			k->corruptions, k->leaks, j->dirty ? " after repair" : "", err);
		return false;
	}
	e->n->leaks += k->leaks > 0;
	return true;
}

static int map_and_read(void *arg)
{
	struct judge *j = arg;
	struct explorer *e = j->e;

	if (j->noting) {
		e->memo->unfit |= map_all(arg) != 0;
		/* Data, and tables that map_all() has read. */
		memo_unwatch(&e->k.state);
	}
	return read_all(arg);
}

/* The disk of the state, and base if it lies over one in the same file; both to be abandoned. */
static int open_disk(struct judge *j, struct disk **base, struct why *why)
{
	struct explorer *e = j->e;
	struct disk_opts below = {.format = e->s->format, .readonly = true};
	struct disk_opts o = {.format = is_qcow2(e) ? "qcow2" : e->s->format,
		.backing = e->s->backing,
		.backing_format = e->s->backing_format,
		.base_depth = 1,
		.l2_cache_bytes = 64 * KiB,
		.refcount_cache_bytes = 32 * KiB};
	struct file *other = NULL;
	int err = open_state(j, &other);

	if (!err && explorer_overlaid(e)) {
		err = disk_open_file(other, &below, base, why);
		if (err)
			file_close(j->f);
		o.base = *base;
	} else {
		o.data_file = other;
	}
	return err ? err : disk_open_file(j->f, &o, &j->d, why);
}

static bool open_and_read(struct judge *j)
{
	struct explorer *e = j->e;
	struct disk *base = NULL;
	struct why why = {{0}};
	int err = open_disk(j, &base, &why);

	if (err) {
		snprintf(e->why, sizeof(e->why), "does not open: %.200s", why_text(&why, err));
	} else {
		err = fiber_run(e->loop, map_and_read, j);
		disk_abandon(j->d);
	}
	if (base)
		disk_abandon(base);
	return !err;
}

static bool judge(struct judge *j)
{
	struct explorer *e = j->e;
	bool ok;

	if (e->first && !e->first(e))
		return false;
	j->dirty = explorer_dirty(e, &e->k.state);
	e->n->dirty += j->dirty;
	if (j->noting)
		memo_watch(e->memo, &e->k.state);
	ok = open_and_read(j);
	if (j->noting)
		memo_watch(e->memo, &e->k.state);
	ok = ok && (!j->qcow2 || check_ok(j));
	memo_unwatch(&e->k.state);
	return ok && (!e->also || e->also(e));
}

bool explorer_judge(struct explorer *e)
{
	struct judge j = {.e = e, .qcow2 = is_qcow2(e)};

	return judge(&j);
}

bool explorer_judge_noting(struct explorer *e, const struct memo_leaf *known)
{
	struct judge j = {.e = e, .qcow2 = is_qcow2(e)};
	bool leaks;

	j.noting = e->k.facts.usable;
	memo_begin(e->memo);
	if (!judge(&j))
		return false;
	leaks = j.check.leaks > 0;
	if (!known && j.noting)
		memo_keep(e->memo, &e->k.facts, j.dirty, leaks);
	if (!known || memo_same(e->memo, known, j.dirty, leaks))
		return true;
	snprintf(e->why, sizeof(e->why), "another outcome than a state that is read alike");
	return false;
}
