/* SPDX-License-Identifier: MIT */
/*
 * overlap.c - see overlap.h.
 *
 * In a damaged image a table may name a cluster that holds something else, or a cluster in use may
 * count as free.  So every write is held against the metadata that we know of, by whole clusters.
 *
 * Most of it lies in a few places: header, L1, refcount table, snapshot table, bitmap directory are
 * compared as ranges.  L2 tables, refcount blocks and what snapshots own lie anywhere: they are in
 * sets, so that the usual answer, "nothing there", takes a few instructions for 64 clusters, and
 * not a walk over L1 and the refcount table.  A table that was freed stays in its set until a
 * write comes there: then the walk shows that nothing names it, and it is taken out.
 *
 * The sets are made by the first write, and anew after snapshots changed.  Only L2 tables that
 * snapshots alone own must be read from the disk for that, so by default they are not looked at.
 */
#include <stdlib.h>
#include "blockdev/qcow2/overlap.h"
#include "blockdev/qcow2/snapshot.h"

void qcow2_overlap_init(struct qcow2 *q, unsigned classes)
{
	q->overlap.classes = classes & OVERLAP_GIVEN ? classes & ~OVERLAP_GIVEN : OVERLAP_CACHED;
	q->overlap.stale = true;
}

static void drop_sets(struct overlap *o)
{
	cluster_set_fini(&o->active_l2);
	cluster_set_fini(&o->refcount_block);
	cluster_set_fini(&o->inactive_l1);
	cluster_set_fini(&o->inactive_l2);
}

void qcow2_overlap_fini(struct qcow2 *q)
{
	drop_sets(&q->overlap);
}

void qcow2_overlap_forget(struct qcow2 *q)
{
	q->overlap.stale = true;
}

void qcow2_overlap_add(struct qcow2 *q, unsigned class, uint64_t cluster)
{
	struct overlap *o = &q->overlap;

	if (!o->stale &&
		cluster_set_add(class == OVERLAP_ACTIVE_L2 ? &o->active_l2 : &o->refcount_block,
			cluster, 1))
		o->stale = true; /* no memory: the next write tries again, or fails */
}

/* ---- making the sets ---- */

/* The clusters that entries of an L1 or refcount table name. */
static int add_named(const struct qcow2 *q, struct cluster_set *s, const be64_t *e, uint32_t n,
	uint64_t offset_bits)
{
	int err = 0;

	for (uint32_t i = 0; i < n && !err; i++) {
		uint64_t off = be64_get(e[i]) & offset_bits;

		if (off)
			err = cluster_set_add(s, off >> q->h.cluster_bits, 1);
	}
	return err;
}

/* With a table that nothing can be read from, nothing can be known of what it names. */
static int add_inactive_l2(struct qcow2 *q, uint64_t l1_offset, uint32_t l1_size)
{
	be64_t *l1 = file_buf(round_up(l1_size * 8ULL + 1, SECTOR));
	int err = l1 ? file_pread(q->fmt.file, l1, l1_size * 8ULL, l1_offset) : -ENOMEM;

	if (!err)
		err = add_named(q, &q->overlap.inactive_l2, l1, l1_size, QCOW2_OFFSET_MASK);
	free(l1);
	return err;
}

static int add_snapshots(struct qcow2 *q)
{
	int err = 0;

	for (uint32_t i = 0; i < q->n_snapshots && !err; i++) {
		uint64_t off = q->snapshots[i].l1_offset, size = q->snapshots[i].l1_size;
		uint64_t n = div_round_up(size * 8, q->h.cluster_size);

		if (size > QCOW2_L1_BYTES_MAX / 8 || off % q->h.cluster_size)
			continue; /* check says so; nothing uses it */
		err = cluster_set_add(&q->overlap.inactive_l1, off >> q->h.cluster_bits, n);
		if (!err && (q->overlap.classes & OVERLAP_INACTIVE_L2))
			err = add_inactive_l2(q, off, (uint32_t)size);
	}
	return err;
}

static int make_sets(struct qcow2 *q)
{
	struct overlap *o = &q->overlap;
	int err;

	drop_sets(o);
	o->stale = false; /* tables made while we read are added by those who make them */
	err = add_named(q, &o->active_l2, q->l1.e, q->l1.n, QCOW2_OFFSET_MASK);
	if (!err)
		err = add_named(q, &o->refcount_block, q->reftable.e, q->reftable.n,
			~QCOW2_REFTABLE_RESERVED);
	if (!err)
		err = add_snapshots(q);
	if (err)
		o->stale = true;
	return err;
}

/* ---- asking ---- */

struct target {
	unsigned classes;
	uint64_t off, len; /* whole clusters */
	uint64_t first, n; /* the same */
};

static struct target target_of(const struct qcow2 *q, unsigned own, uint64_t host_off, uint64_t len)
{
	uint64_t size = q->h.cluster_size, off = host_off & ~(size - 1);
	struct target t = {q->overlap.classes & ~own, off, round_up(host_off + len, size) - off,
		off >> q->h.cluster_bits, 0};

	t.n = t.len >> q->h.cluster_bits;
	return t;
}

static bool in_range(const struct target *t, unsigned class, uint64_t off, uint64_t bytes)
{
	return (t->classes & class) && bytes && ranges_overlap(t->off, t->len, off, bytes);
}

static bool in_set(const struct target *t, unsigned class, const struct cluster_set *s)
{
	return (t->classes & class) && cluster_set_hits(s, t->first, t->n);
}

static bool hits_range(const struct qcow2 *q, const struct target *t)
{
	return in_range(t, OVERLAP_HEADER, 0, q->h.cluster_size) ||
	       in_range(t, OVERLAP_ACTIVE_L1, q->l1.host_off, q->l1.n * 8ULL) ||
	       in_range(t, OVERLAP_REFCOUNT_TABLE, q->reftable.host_off, q->reftable.n * 8ULL) ||
	       in_range(t, OVERLAP_SNAPSHOT_TABLE, q->h.snapshots_offset, q->snapshots_bytes) ||
	       in_range(t, OVERLAP_BITMAPS, q->h.bitmaps_offset, q->h.bitmaps_bytes);
}

bool qcow2_overlap_none(const struct qcow2 *q, unsigned own, uint64_t host_off, uint64_t len)
{
	const struct overlap *o = &q->overlap;
	struct target t = target_of(q, own, host_off, len);

	return !o->stale && !q->corrupt && !hits_range(q, &t) &&
	       !in_set(&t, OVERLAP_ACTIVE_L2, &o->active_l2) &&
	       !in_set(&t, OVERLAP_REFCOUNT_BLOCK, &o->refcount_block) &&
	       !in_set(&t, OVERLAP_INACTIVE_L1, &o->inactive_l1) &&
	       !in_set(&t, OVERLAP_INACTIVE_L2, &o->inactive_l2);
}

/* As in_set(); what no entry names any more is taken out. */
static bool is_named(const struct qcow2 *q, const struct target *t, unsigned class,
	struct cluster_set *s, const struct mem_table *table, uint64_t offset_bits)
{
	if (!in_set(t, class, s))
		return false;
	for (uint32_t i = 0; i < table->n; i++) {
		uint64_t off = be64_get(table->e[i]) & offset_bits;

		if (off && ranges_overlap(t->off, t->len, off, q->h.cluster_size))
			return true;
	}
	for (uint64_t i = 0; i < t->n; i++)
		cluster_set_remove(s, t->first + i);
	return false;
}

/* The peer's words for what is there, in its order of looking; NULL: nothing. */
static const char *what_is_there(struct qcow2 *q, const struct target *t)
{
	struct overlap *o = &q->overlap;

	if (in_range(t, OVERLAP_HEADER, 0, q->h.cluster_size))
		return "qcow2_header";
	if (in_range(t, OVERLAP_ACTIVE_L1, q->l1.host_off, q->l1.n * 8ULL))
		return "active L1 table";
	if (is_named(q, t, OVERLAP_ACTIVE_L2, &o->active_l2, &q->l1, QCOW2_OFFSET_MASK))
		return "active L2 table";
	if (in_range(t, OVERLAP_REFCOUNT_TABLE, q->reftable.host_off, q->reftable.n * 8ULL))
		return "refcount table";
	if (is_named(q, t, OVERLAP_REFCOUNT_BLOCK, &o->refcount_block, &q->reftable,
		    ~QCOW2_REFTABLE_RESERVED))
		return "refcount block";
	if (in_range(t, OVERLAP_SNAPSHOT_TABLE, q->h.snapshots_offset, q->snapshots_bytes))
		return "snapshot table";
	if (in_set(t, OVERLAP_INACTIVE_L1, &o->inactive_l1))
		return "inactive L1 table";
	if (in_set(t, OVERLAP_INACTIVE_L2, &o->inactive_l2))
		return "inactive L2 table";
	if (in_range(t, OVERLAP_BITMAPS, q->h.bitmaps_offset, q->h.bitmaps_bytes))
		return "bitmap directory";
	return NULL;
}

int qcow2_overlap_check(struct qcow2 *q, unsigned own, uint64_t host_off, uint64_t len)
{
	struct target t;
	const char *what;
	int err = 0;

	if (q->corrupt)
		return -ENOMEDIUM;
	if (q->overlap.stale)
		err = make_sets(q);
	if (err || qcow2_overlap_none(q, own, host_off, len))
		return err;
	t = target_of(q, own, host_off, len);
	what = what_is_there(q, &t);
	if (!what)
		return 0;
	return qcow2_corrupt(
		q, true, "Preventing invalid write on metadata (overlaps with %s)", what);
}
