/* SPDX-License-Identifier: MIT */
/*
 * snapshot_expand.c - no zero clusters in any snapshot, for version 2, which knows none.
 *
 * A zero cluster becomes a hole, or, where a hole would show a backing file, a cluster of zeros.
 * An L2 table that several snapshots share is changed where it lies, for all of them at once, and
 * what it names is counted as often as the table.  The active disk's own zeros are gone before
 * (amend.c), so it shares none of the tables that change.
 *
 * All of it happens under the dirty mark, so counts and copied flags may be anything
 * meanwhile (snapshot.c).  New clusters are zeros on disk before a table names them (R2); one that
 * a table named for its zeros is free at once, for the table does not care what it holds.
 */
#include <stdlib.h>
#include <string.h>
#include "blockdev/qcow2/snapshot.h"

struct expand {
	struct qcow2 *q;
	const struct snapshot *s;
	be64_t *l2, *old; /* the table at hand, as it will be and as it was */
	void *zeros;      /* a cluster of them */
	uint64_t count;   /* of the table */
	uint64_t need;    /* durable before the table is written */
};

static bool is_zero(be64_t e)
{
	return (be64_get(e) & (QCOW2_OFLAG_COMPRESSED | QCOW2_OFLAG_ZERO)) == QCOW2_OFLAG_ZERO;
}

/* Would a hole at guest offset off show something? */
static bool shows_below(const struct expand *x, uint64_t off)
{
	const struct format *below = x->q->fmt.backing;

	return below && off < x->s->disk_bytes && off < below->size;
}

/* A cluster of zeros, counted as often as the table; *entry names it. */
static int make_zeros(struct expand *x, be64_t *entry)
{
	struct qcow2 *q = x->q;
	uint64_t host;
	struct run r;
	int err = qcow2_alloc_locked(q, 1, &r);

	if (err)
		return err;
	host = r.first << q->h.cluster_bits;
	*entry = be64_make(host);
	if (!r.fresh) {
		err = file_pwrite(q->fmt.file, x->zeros, q->h.cluster_size, host);
		r.need = sync_note(&q->fmt.sync);
	}
	x->need = max_u64(x->need, r.need);
	return err ? err : qcow2_refs_set(q, r.first, 1, x->count);
}

/* What the table named for its zeros, and names no more. */
static int drop_old(struct expand *x)
{
	struct qcow2 *q = x->q;

	for (uint32_t i = 0; i < q->l2_entries; i++) {
		uint64_t host = be64_get(x->old[i]) & QCOW2_OFFSET_MASK;

		if (!is_zero(x->old[i]) || !host)
			continue;
		for (uint64_t k = 0; k < x->count; k++) {
			int err = tree_drop_clusters(q, host >> q->h.cluster_bits, 1);

			if (err)
				return err;
		}
	}
	return 0;
}

/* The table at host, which serves the guest's disk from off on. */
static int expand_table(struct expand *x, uint64_t host, uint64_t off)
{
	struct qcow2 *q = x->q;
	bool changed = false;
	int err = qcow2_refs_get(q, host >> q->h.cluster_bits, &x->count);

	memcpy(x->old, x->l2, q->h.cluster_size);
	for (uint32_t i = 0; i < q->l2_entries && !err; i++) {
		if (!is_zero(x->old[i]))
			continue;
		changed = true;
		x->l2[i] = be64_make(0);
		if (shows_below(x, off + ((uint64_t)i << q->h.cluster_bits)))
			err = make_zeros(x, &x->l2[i]);
	}
	if (err || !changed)
		return err;
	err = sync_to(&q->fmt.sync, x->need);
	if (!err)
		err = qcow2_meta_write(q, OVERLAP_INACTIVE_L2, x->l2, q->h.cluster_size, host);
	return err ? err : drop_old(x);
}

static int expand_one(struct expand *x, tree_step *step, void *arg)
{
	struct qcow2 *q = x->q;
	uint64_t covers = (uint64_t)q->h.cluster_size << q->l2_bits;
	struct mem_table l1;
	int err = snapshot_load_l1(q, x->s, 0, &l1);

	if (err)
		return err;
	for (uint32_t i = 0; i < l1.n && !err; i++) {
		uint64_t host;

		err = tree_read_table(q, be64_get(l1.e[i]), x->l2, &host);
		if (!err && host)
			err = expand_table(x, host, i * covers);
		step(arg);
	}
	mem_table_fini(&l1);
	return err;
}

static int expand_all(struct expand *x, tree_step *step, void *arg)
{
	struct qcow2 *q = x->q;
	struct tree active = {q->l1.e, q->l1.n};
	int err = snapshot_mark_on(q);

	for (uint32_t i = 0; i < q->n_snapshots && !err; i++) {
		x->s = &q->snapshots[i];
		err = expand_one(x, step, arg);
	}
	/* What a snapshot named too may be the disk's alone now. */
	if (!err)
		err = tree_set_flags(q, &active, FLAGS_BY_COUNT);
	if (!err)
		err = tree_set_l1_flags(q, FLAGS_BY_COUNT);
	return err ? err : snapshot_write_out(q);
}

/* Before anything is marked: what cannot be done leaves no repair to be done. */
static int check_all(const struct qcow2 *q)
{
	for (uint32_t i = 0; i < q->n_snapshots; i++) {
		struct why why = { "" };
		int err = snapshot_check_l1(q, &q->snapshots[i], &why);

		if (err) {
			log_error("%s", why.text); /* the caller says what could not be done */
			return err;
		}
	}
	return 0;
}

int snapshot_expand_zeros(struct qcow2 *q, tree_step *step, void *arg)
{
	uint64_t size = q->h.cluster_size;
	struct expand x = {.q = q, .l2 = file_buf(size), .old = file_buf(size),
		.zeros = file_buf(size)};
	int err = x.l2 && x.old && x.zeros ? check_all(q) : -ENOMEM;

	if (!err)
		err = snapshot_settle(q);
	if (!err) {
		fiber_lock(&q->table_lock);
		err = sync_give_up(&q->fmt.sync, expand_all(&x, step, arg));
		if (!err)
			snapshot_mark_off(q);
		qcow2_overlap_forget(q);
		fiber_unlock(&q->table_lock);
	}
	free(x.zeros);
	free(x.old);
	free(x.l2);
	return err;
}
