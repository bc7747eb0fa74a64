/* SPDX-License-Identifier: MIT */
/*
 * resize.c - making an image larger: a larger L1 table where the old one is too short.
 *
 * The new table is written whole into new clusters and made durable, then one write of the
 * header's first sector switches size and table, and only when that is durable is the old
 * table free (R3).  A cut leaves the old image or the new one.
 *
 * Requests go on meanwhile: table_lock keeps new L2 tables out, commit_lock keeps L1
 * sectors from being written to the old place.
 */
#include <string.h>
#include "blockdev/qcow2/qcow2.h"

/* Clusters for a table of n entries, adjacent. */
static int table_clusters(struct qcow2 *q, uint64_t n, struct run *r)
{
	uint64_t want = div_round_up(n * 8, q->h.cluster_size);
	int err = qcow2_mark_dirty(q);

	if (!err)
		err = qcow2_refs_grow(q, want);
	/* The run just added is the last one and holds at least what was asked for. */
	if (err)
		return err;
	*r = q->runs[q->n_runs - 1];
	if (r->n < want)
		return -EFBIG;
	r->first += r->n - want;
	r->n = want;
	q->runs[q->n_runs - 1].n -= want;
	q->reserved -= want;
	if (!q->runs[q->n_runs - 1].n)
		q->n_runs--;
	return 0;
}

/* The caller holds both locks. */
static int switch_l1(struct qcow2 *q, struct mem_table *t, uint64_t size)
{
	struct qcow2_header old = q->h;
	uint64_t bytes = round_up(t->n * 8ULL, SECTOR);
	int err = qcow2_meta_write(q, t->e, bytes, t->host_off);

	/* The copied entries' own conditions are numbers given out before now. */
	if (!err)
		err = sync_to(&q->fmt.sync, q->fmt.sync.writes);
	if (err)
		return err;
	q->h.size = size;
	q->h.l1_size = t->n;
	q->h.l1_offset = t->host_off;
	err = qcow2_header_commit(q);
	if (err) {
		q->h = old;
		/* Which table the header names is unknown: nothing may be written any more. */
		if (!q->fmt.sync.err)
			q->fmt.sync.err = err;
	}
	return err;
}

static int grow_l1(struct qcow2 *q, uint64_t n, uint64_t size)
{
	struct mem_table t, old = q->l1;
	struct run r;
	int err;

	if (q->n_runs == RUNS_MAX)
		return -EBUSY;
	err = table_clusters(q, n, &r);
	if (err)
		return err;
	err = mem_table_init(&t, (uint32_t)n, r.first << q->h.cluster_bits);
	if (!err) {
		fiber_lock(&q->commit_lock);
		memcpy(t.e, old.e, old.n * 8ULL);
		err = switch_l1(q, &t, size);
		if (!err)
			q->l1 = t;
		fiber_unlock(&q->commit_lock);
	}
	if (err) {
		qcow2_alloc_add(q, &(struct run){r.first, r.n, false, r.need});
		mem_table_fini(&t);
		return err;
	}
	err = qcow2_refs_set(q, old.host_off >> q->h.cluster_bits,
		div_round_up(old.n * 8ULL, q->h.cluster_size), 0);
	mem_table_fini(&old);
	return err;
}

int qcow2_grow(struct format *fmt, uint64_t size)
{
	struct qcow2 *q = qcow2_of(fmt);
	uint64_t need = qcow2_l1_needed(size, q->h.cluster_bits);
	int err;

	if (size < q->h.size || size % SECTOR)
		return -EINVAL;
	if (need * 8 > QCOW2_L1_BYTES_MAX)
		return -EFBIG;
	fiber_lock(&q->table_lock);
	if (need > q->l1.n) {
		err = grow_l1(q, need, size);
	} else {
		q->h.size = size;
		err = qcow2_header_commit(q);
	}
	fiber_unlock(&q->table_lock);
	if (!err)
		fmt->size = size;
	return err;
}
