/* SPDX-License-Identifier: MIT */
/*
 * alloc.c - where clusters come from.
 *
 * Clusters are counted ahead, a run at a time, and a run carries the number that
 * makes its counts (R1) and the file's new length (R5) durable.  Whoever names one of its
 * clusters in a table passes that number on, so an allocating write waits for
 * nothing here, and by the time its table entry is written some fdatasync has usually
 * come by.  A power cut leaks at most what is reserved; a clean close gives it back.
 *
 * For one request at a time, how far ahead grows with what was taken since the image was opened: a
 * process that makes one write and dies before the second flush leaks nothing.  Who makes several
 * at once must not wait for one growth after the other: that would part them, and each part would
 * have a commit of its own from then on; and where a run ends in the middle of a request, its data
 * would lie in two places.  And who never flushes shall not grow the file by the cluster.
 *
 * Free clusters inside the file are looked for first, a bounded stretch at a time, then the
 * file grows, in steps of an eighth of its size, and for a small disk of an eighth of the disk.
 */
#include <string.h>
#include "blockdev/qcow2/qcow2.h"

/* Large enough that fdatasync seldom meets a changed file size; small enough to leak in a cut. */
#define STEP_MIN     (16 * MiB)
#define STEP_MAX     (128 * MiB)
#define CLUSTERS_MIN 16
#define ALONE_MAX    16 /* clusters taken without any ahead, if no flush comes before */
#define AHEAD	     4	/* times what was taken, of one request at a time */
#define SEARCH_MAX   64 /* slices of refcounts looked at in one search for free clusters */

/* How many to count at once, if they are more than what is wanted now. */
static uint64_t step_clusters(const struct qcow2 *q)
{
	uint64_t bytes = (q->end << q->h.cluster_bits) / 8;
	uint64_t most;
	bool alone = q->fmt.in_epoch[0] + q->fmt.in_epoch[1] <= 1;

	if (alone && !q->count_ahead && q->taken < ALONE_MAX)
		return 0;
	bytes = bytes < STEP_MIN ? STEP_MIN : min_u64(bytes, STEP_MAX);
	bytes = min_u64(bytes, q->fmt.size / 8);
	most = max_u64(bytes >> q->h.cluster_bits, CLUSTERS_MIN);
	return alone ? min_u64(most, AHEAD * (q->taken + 1)) : most;
}

void qcow2_alloc_add(struct qcow2 *q, const struct run *r)
{
	struct run *last = q->n_runs ? &q->runs[q->n_runs - 1] : NULL;

	if (last && last->first + last->n == r->first && last->fresh == r->fresh &&
		(last->need == r->need || !r->fresh)) {
		last->n += r->n;
	} else if (q->n_runs < RUNS_MAX) {
		q->runs[q->n_runs++] = *r;
	} else {
		return;
	}
	q->reserved += r->n;
}

static void note_taken(struct qcow2 *q, uint64_t n)
{
	q->reserved -= n;
	q->taken += n;
}

static bool take(struct qcow2 *q, uint64_t want, struct run *out)
{
	struct run *r = &q->runs[0];

	if (!q->n_runs)
		return false;
	*out = *r;
	out->n = min_u64(want, r->n);
	r->first += out->n;
	r->n -= out->n;
	note_taken(q, out->n);
	if (!r->n)
		memmove(r, r + 1, --q->n_runs * sizeof(*r));
	return true;
}

int qcow2_mark_dirty(struct qcow2 *q)
{
	int err;

	if (!q->lazy || (q->h.incompatible & QCOW2_INCOMPAT_DIRTY))
		return 0;
	q->h.incompatible |= QCOW2_INCOMPAT_DIRTY;
	err = qcow2_header_put(q);
	if (err)
		q->h.incompatible &= ~QCOW2_INCOMPAT_DIRTY;
	return err;
}

/* Does the cluster hold the header or a table?  In a broken image they may count as free. */
static bool is_table(const struct qcow2 *q, uint64_t cluster)
{
	uint64_t at = cluster << q->h.cluster_bits;

	return !cluster ||
	       ranges_overlap(at, q->h.cluster_size, q->l1.host_off, q->l1.n * 8ULL) ||
	       ranges_overlap(at, q->h.cluster_size, q->reftable.host_off, q->reftable.n * 8ULL);
}

static bool run_hits_table(const struct qcow2 *q, const struct run *r)
{
	for (uint64_t i = 0; i < r->n; i++)
		if (is_table(q, r->first + i))
			return true;
	return false;
}

/* Up to n free clusters below q->end; 0 with nothing added if this stretch has none. */
static int reserve_hole(struct qcow2 *q, uint64_t n)
{
	uint64_t added = 0;

	for (int i = 0; i < SEARCH_MAX && q->hole < q->end && added < n; i++) {
		struct run r = {.first = q->hole};
		enum ref_state st;
		int err = qcow2_refs_state(q, q->hole, &st, &r.n);

		if (err)
			return err;
		r.n = min_u64(r.n, q->end - q->hole);
		if (st == REF_FREE && q->n_runs == RUNS_MAX)
			break;
		if (st == REF_FREE)
			r.n = min_u64(r.n, n - added);
		q->hole += r.n;
		if (st != REF_FREE || (!q->overlap.classes && run_hits_table(q, &r)))
			continue;
		qcow2_refs_event(q);
		err = qcow2_refs_set(q, r.first, r.n, 1);
		if (!err && !q->lazy)
			err = qcow2_write_refs(q);
		if (err)
			return err;
		qcow2_alloc_add(q, &r);
		added += r.n;
	}
	return 0;
}

/* The caller holds table_lock. */
static int reserve(struct qcow2 *q, uint64_t want)
{
	uint64_t n = max_u64(step_clusters(q), want), before = q->reserved;
	int err = qcow2_mark_dirty(q);

	if (err)
		return err;
	err = reserve_hole(q, n);
	if (err || q->reserved > before)
		return err;
	if (q->n_runs + REFS_GROW_RUNS > RUNS_MAX)
		return 0;
	return qcow2_refs_grow(q, want, n, false);
}

static void reserve_fiber(struct fiber_start *s)
{
	struct qcow2 *q = container_of(s, struct qcow2, reserve_start);

	fiber_lock(&q->table_lock);
	/* A failure is for the write that really needs a cluster to report. */
	if (q->reserved < step_clusters(q) / 4 && reserve(q, 1))
		log_debug("reserving clusters ahead failed");
	fiber_unlock(&q->table_lock);
	q->reserving = false;
	fiber_queue_wake_all(&q->reserve_q);
}

static void reserve_ahead(struct qcow2 *q)
{
	/* Who injects errors wants them to hit a request, which hears of it. */
	if (q->reserving || q->fmt.file->inject || q->reserved >= step_clusters(q) / 4)
		return;
	q->reserving = true;
	q->reserve_start.fn = reserve_fiber;
	fiber_start_at(q->fmt.file->loop, &q->reserve_start, q->fmt.level);
}

/* The caller holds table_lock. */
static int take_or_reserve(struct qcow2 *q, uint64_t want, struct run *out)
{
	while (!take(q, want, out)) {
		int err = reserve(q, want);

		if (err)
			return err;
	}
	reserve_ahead(q);
	return 0;
}

int qcow2_alloc_locked(struct qcow2 *q, uint64_t want, struct run *out)
{
	file_event(q->fmt.file, EV_CLUSTER_ALLOC);
	return take_or_reserve(q, want, out);
}

/* n clusters out of one run. */
static bool take_whole(struct qcow2 *q, uint64_t n, struct run *out)
{
	for (uint32_t i = 0; i < q->n_runs; i++) {
		struct run *r = &q->runs[i];

		if (r->n < n)
			continue;
		*out = *r;
		out->n = n;
		r->first += n;
		r->n -= n;
		note_taken(q, n);
		if (!r->n)
			memmove(r, r + 1, (--q->n_runs - i) * sizeof(*r));
		return true;
	}
	return false;
}

int qcow2_alloc_table(struct qcow2 *q, uint64_t n, struct run *out)
{
	int err = 0;

	if (n == 1)
		return qcow2_alloc_locked(q, 1, out);
	file_event(q->fmt.file, EV_CLUSTER_ALLOC);
	if (take_whole(q, n, out))
		return 0;
	if (q->n_runs == RUNS_MAX)
		return -EBUSY;
	err = qcow2_mark_dirty(q);
	if (!err)
		err = qcow2_refs_grow(q, n, n, true);
	if (!err && !take_whole(q, n, out))
		err = -EFBIG; /* more than refcounts can be made for at once */
	return err;
}

int qcow2_alloc(struct qcow2 *q, uint64_t want, struct run *out)
{
	int err;

	file_event(q->fmt.file, EV_CLUSTER_ALLOC);
	if (take(q, want, out)) {
		reserve_ahead(q);
		return 0;
	}
	fiber_lock(&q->table_lock);
	err = take_or_reserve(q, want, out);
	fiber_unlock(&q->table_lock);
	return err;
}

/* Runs at the end of the file shorten it. */
static void drop_tail(struct qcow2 *q)
{
	for (uint32_t i = 0; i < q->n_runs; i++) {
		if (q->runs[i].first + q->runs[i].n != q->end)
			continue;
		q->end = q->runs[i].first;
		q->runs[i] = q->runs[--q->n_runs];
		i = UINT32_MAX; /* look at all again */
	}
}

/* The same, with the blocks that stand between the runs; durable. */
static int drop_end(struct qcow2 *q)
{
	bool dropped;
	int err;

	do {
		drop_tail(q);
		err = qcow2_refs_drop_last(q, &dropped);
	} while (!err && dropped);
	if (err || !q->reftable.n_dirty)
		return err;
	err = qcow2_reftable_write(q);
	return err ? err : sync_to(&q->fmt.sync, q->fmt.sync.writes);
}

/* Clusters at the end of the file that nobody uses; the runs have been given back. */
static int trim_tail(struct qcow2 *q)
{
	while (q->end > 1) {
		enum ref_state st;
		uint64_t n;
		int err = qcow2_refs_state(q, q->end - 1, &st, &n);

		if (err)
			return err;
		if (st == REF_USED)
			return 0;
		q->end--;
	}
	return 0;
}

int qcow2_alloc_settle(struct qcow2 *q)
{
	int err = 0;

	while (q->reserving && !err) {
		if (fiber_self())
			fiber_queue_wait(&q->reserve_q);
		else
			err = loop_turn(q->fmt.file->loop, true);
	}
	return err;
}

int qcow2_alloc_close(struct qcow2 *q)
{
	bool shorten = q->n_runs || q->trim;
	uint64_t bytes, end = q->end;
	int err = 0;

	fiber_lock(&q->table_lock);
	for (uint32_t i = 0; i < q->n_runs && !err; i++)
		err = qcow2_refs_set(q, q->runs[i].first, q->runs[i].n, 0);
	if (!err)
		err = qcow2_write_refs(q);
	if (!err)
		err = qcow2_reftable_write(q);
	if (!err && q->n_runs)
		err = drop_end(q);
	if (!err && q->trim)
		err = qcow2_refs_trim(q);
	if (!err && q->trim)
		err = trim_tail(q);
	if (!err && shorten) {
		bytes = q->end << q->h.cluster_bits;
		if (bytes < file_size(q->fmt.file))
			err = file_truncate(q->fmt.file, bytes);
		sync_note(&q->fmt.sync);
	}
	if (err) /* the file ends where it did, and a block there may still be named */
		q->end = end;
	q->n_runs = 0;
	q->reserved = 0;
	fiber_unlock(&q->table_lock);
	return err;
}
