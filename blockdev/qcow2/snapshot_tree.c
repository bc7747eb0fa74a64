/* SPDX-License-Identifier: MIT */
/*
 * snapshot_tree.c - all that an L1 table reaches: counts and copied flags, in bulk.
 *
 * L2 tables are read one after the other past the cache, which must hold none of them, and
 * entries that follow each other in the file become one change of counts.  Counts go
 * through their cache and reach the file when it is full or at the end; nothing here waits for an
 * fdatasync: whoever calls has made sure that a cut meanwhile does no harm (snapshot.c).
 */
#include <stdlib.h>
#include "blockdev/qcow2/snapshot.h"

/* A walk that changes counts. */
struct walk {
	struct qcow2 *q;
	int delta;
	uint64_t done, limit; /* clusters; limit: no further (undoing part of a walk) */
	uint64_t first, n;    /* gathered, not done yet */
};

int tree_drop_clusters(struct qcow2 *q, uint64_t first, uint64_t n)
{
	while (n) {
		uint64_t k;
		bool unused;
		int err = qcow2_refs_drop(q, first, n, &k, &unused);

		if (!err && unused)
			err = qcow2_clusters_unused(q, first, k);
		if (err)
			return err;
		first += k;
		n -= k;
	}
	return 0;
}

/* What was gathered; stops at the limit. */
static int walk_apply(struct walk *w)
{
	uint32_t per = qcow2_refs_per_slice(w->q);

	w->n = min_u64(w->n, w->limit - w->done);
	while (w->n) {
		uint64_t k = min_u64(w->n, per - w->first % per);
		int err = w->delta > 0 ? qcow2_refs_add(w->q, w->first, k, 1)
				       : tree_drop_clusters(w->q, w->first, k);

		if (err)
			return err;
		w->done += k;
		w->first += k;
		w->n -= k;
	}
	return 0;
}

static int walk_clusters(struct walk *w, uint64_t first, uint64_t n)
{
	int err = 0;

	if (w->n && w->first + w->n == first) {
		w->n += n;
		return 0;
	}
	err = walk_apply(w);
	w->first = first;
	w->n = n;
	return err;
}

static int walk_entry(struct walk *w, uint64_t e)
{
	struct qcow2 *q = w->q;
	uint32_t bits = q->h.cluster_bits;
	uint64_t off = e & QCOW2_OFFSET_MASK, len;

	if (e & QCOW2_OFLAG_COMPRESSED) {
		qcow2_compressed_range(e, bits, &off, &len);
		return walk_clusters(w, off >> bits, ((off + len - 1) >> bits) - (off >> bits) + 1);
	}
	if (!off)
		return 0;
	if (off % q->h.cluster_size)
		return qcow2_broken(q, "data cluster at an unaligned offset", off);
	return walk_clusters(w, off >> bits, 1);
}

int tree_read_table(struct qcow2 *q, uint64_t e, be64_t *l2, uint64_t *off)
{
	*off = e & QCOW2_OFFSET_MASK;
	if (!*off)
		return 0;
	if (*off % q->h.cluster_size)
		return qcow2_broken(q, "L2 table at an unaligned offset", *off);
	return file_pread(q->fmt.file, l2, q->h.cluster_size, *off);
}

static uint32_t words_per_entry(const struct qcow2 *q)
{
	return q->h.cluster_size / 8 / q->l2_entries;
}

static int walk_tree(struct walk *w, const struct tree *t, be64_t *l2)
{
	uint32_t step = words_per_entry(w->q), words = w->q->h.cluster_size / 8;
	int err = 0;

	for (uint32_t i = 0; i < t->n && !err && w->done + w->n < w->limit; i++) {
		uint64_t off;

		err = tree_read_table(w->q, be64_get(t->l1[i]), l2, &off);
		if (err || !off)
			continue;
		for (uint32_t k = 0; k < words && !err; k += step)
			err = walk_entry(w, be64_get(l2[k]));
		if (!err)
			err = walk_clusters(w, off >> w->q->h.cluster_bits, 1);
	}
	return err ? err : walk_apply(w);
}

int tree_count_up(struct qcow2 *q, const struct tree *t)
{
	struct walk w = {.q = q, .delta = 1, .limit = UINT64_MAX};
	be64_t *l2 = file_buf(q->h.cluster_size);
	int err = l2 ? walk_tree(&w, t, l2) : -ENOMEM;

	if (err && w.done) {
		struct walk back = {.q = q, .delta = -1, .limit = w.done};

		if (walk_tree(&back, t, l2))
			log_warn("%s: clusters leak; 'sluice img check' tells more", q->path);
	}
	free(l2);
	return err;
}

int tree_count_down(struct qcow2 *q, const struct tree *t)
{
	struct walk w = {.q = q, .delta = -1, .limit = UINT64_MAX};
	be64_t *l2 = file_buf(q->h.cluster_size);
	int err = l2 ? walk_tree(&w, t, l2) : -ENOMEM;

	free(l2);
	return err;
}

/* ---- copied flags ---- */

/* Is the cluster counted once?  Remembers the last answer for those that follow. */
struct once {
	uint64_t first, n;
	bool one;
};

static int is_one(struct qcow2 *q, uint64_t cluster, struct once *o, bool *one)
{
	int err = 0;

	if (cluster < o->first || cluster - o->first >= o->n) {
		o->first = cluster;
		o->n = 0;
		err = qcow2_refs_one(q, cluster, &o->one, &o->n);
	}
	*one = o->one;
	return err;
}

static int flag_entry(
	struct qcow2 *q, enum tree_flags how, struct once *o, be64_t *e, bool *changed)
{
	uint64_t v = be64_get(*e), off = v & QCOW2_OFFSET_MASK, new;
	bool one = false;
	int err = 0;

	if (v & QCOW2_OFLAG_COMPRESSED)
		return 0;
	if (off && how == FLAGS_BY_COUNT)
		err = is_one(q, off >> q->h.cluster_bits, o, &one);
	new = (v & ~QCOW2_OFLAG_COPIED) | (off && one ? QCOW2_OFLAG_COPIED : 0);
	if (!err && new != v) {
		*e = be64_make(new);
		*changed = true;
	}
	return err;
}

static int flag_table(struct qcow2 *q, uint64_t e, be64_t *l2, enum tree_flags how, struct once *o)
{
	uint32_t step = words_per_entry(q), words = q->h.cluster_size / 8;
	bool changed = false;
	uint64_t off;
	int err = tree_read_table(q, e, l2, &off);

	if (err || !off)
		return err;
	for (uint32_t k = 0; k < words && !err; k += step)
		err = flag_entry(q, how, o, &l2[k], &changed);
	if (!err && changed)
		err = qcow2_meta_write(
			q, OVERLAP_ACTIVE_L2 | OVERLAP_INACTIVE_L2, l2, q->h.cluster_size, off);
	return err;
}

int tree_set_flags(struct qcow2 *q, const struct tree *t, enum tree_flags how)
{
	be64_t *l2 = file_buf(q->h.cluster_size);
	struct once o = {.n = 0};
	int err = l2 ? 0 : -ENOMEM;

	for (uint32_t i = 0; i < t->n && !err; i++)
		err = flag_table(q, be64_get(t->l1[i]), l2, how, &o);
	free(l2);
	return err;
}

int tree_set_l1_flags(struct qcow2 *q, enum tree_flags how)
{
	struct once o = {.n = 0};
	int err = 0;

	for (uint32_t i = 0; i < q->l1.n && !err; i++) {
		be64_t e = q->l1.e[i];
		bool changed = false;

		err = flag_entry(q, how, &o, &e, &changed);
		if (!err && changed)
			mem_table_set(&q->l1, i, be64_get(e), 0);
	}
	return err;
}
