/* SPDX-License-Identifier: MIT */
/*
 * refcount_width.c - counts of another width, for an image that is there.
 *
 * New blocks and a new table go behind all that is counted:
 *
 *   [what was there] [new blocks] [new table]
 *
 * They say what the old ones say, and count themselves.  Nothing on disk refers to them until
 * they are durable and one write of the header's sector switches to them, with the width; so a cut
 * shows the old counts or the new ones.  The old blocks and their table are counted down
 * after that (R3).  Counts that the new width cannot hold are found before anything is written.
 *
 * Source: qcow2 specification, "Host cluster management", header: refcount_order.
 */
#include <stdlib.h>
#include <string.h>
#include "blockdev/qcow2/snapshot.h"

#define BLOCKS_MAX (QCOW2_REFTABLE_BYTES_MAX / 8)

struct width {
	struct qcow2 *q;
	const struct disk_amend *a;
	uint32_t order, per; /* per: counts in a new block */
	uint64_t top;	     /* first cluster behind all that is counted */
	uint8_t *wanted;     /* new blocks that have something to count, BLOCKS_MAX of them */
	uint64_t n;	     /* of those looked at */
	uint64_t blocks, table; /* clusters, from top on */
	uint64_t done, steps;
};

static void step(struct width *w, bool again)
{
	w->done++;
	disk_amend_progress(w->a, w->done, w->steps);
	if (again)
		disk_amend_progress(w->a, w->done, ++w->steps);
}

static int want(struct width *w, uint64_t first, uint64_t n)
{
	uint64_t last = (first + n - 1) / w->per;

	if (last >= BLOCKS_MAX)
		return -EFBIG;
	for (uint64_t b = first / w->per; b <= last; b++) {
		w->blocks += !w->wanted[b];
		w->wanted[b] = 1;
	}
	w->n = max_u64(w->n, last + 1);
	return 0;
}

static int fits(struct width *w, uint64_t first, uint64_t n, struct why *why)
{
	uint32_t bits = 1u << w->order;

	for (uint64_t c = first; c < first + n; c++) {
		uint64_t count;
		int err = qcow2_refs_get(w->q, c, &count);

		if (err)
			return err;
		if (bits < 64 && count >> bits)
			return why_set(why, -EINVAL,
				"Cannot decrease refcount entry width to %u bits: Cluster at "
				"offset %#llx has a refcount of %llu", bits,
				(unsigned long long)(c << w->q->h.cluster_bits),
				(unsigned long long)count);
	}
	return 0;
}

/* What is counted needs a block. */
static int find(struct width *w, struct why *why)
{
	struct qcow2 *q = w->q;
	uint64_t end = (uint64_t)q->reftable.n * q->refs_per_block, run;

	w->top = q->end;
	for (uint64_t at = 0; at < end; at += run) {
		enum ref_state st;
		int err = qcow2_refs_state(q, at, &st, &run);

		if (!err && st == REF_USED) {
			w->top = max_u64(w->top, at + run);
			err = fits(w, at, run, why);
			if (!err)
				err = want(w, at, run);
		}
		if (err)
			return err;
	}
	step(w, false);
	return 0;
}

/* So do the new blocks and their table: their number is found by trying. */
static int settle(struct width *w)
{
	for (;;) {
		uint64_t blocks = w->blocks;
		int err;

		w->table = div_round_up(w->n * 8, w->q->h.cluster_size);
		err = want(w, w->top, w->blocks + w->table);
		if (!err && w->table * w->q->h.cluster_size > QCOW2_REFTABLE_BYTES_MAX)
			err = -EFBIG;
		if (err)
			return err;
		if (w->blocks == blocks && w->n * 8 <= w->table * w->q->h.cluster_size) {
			step(w, false);
			return 0;
		}
		step(w, true);
	}
}

/* New block b in buf. */
static int fill(struct width *w, uint64_t b, uint8_t *buf)
{
	struct qcow2 *q = w->q;
	uint64_t first = b * w->per, own = w->top + w->blocks + w->table, run;

	memset(buf, 0, q->h.cluster_size);
	for (uint64_t at = first; at < first + w->per && at < w->top; at += run) {
		enum ref_state st;
		int err = qcow2_refs_state(q, at, &st, &run);

		for (uint64_t c = at; !err && st == REF_USED && c < at + run; c++) {
			uint64_t count = 0;

			if (c >= first + w->per)
				break;
			err = qcow2_refs_get(q, c, &count);
			if (!err)
				qcow2_refcount_set(buf, (uint32_t)(c - first), w->order, count);
		}
		if (err)
			return err;
	}
	for (uint64_t c = max_u64(first, w->top); c < first + w->per && c < own; c++)
		qcow2_refcount_set(buf, (uint32_t)(c - first), w->order, 1);
	return 0;
}

/* All that is new, at its place; *t is the new table. */
static int write_new(struct width *w, struct mem_table *t)
{
	struct qcow2 *q = w->q;
	uint64_t host = w->top << q->h.cluster_bits;
	uint8_t *buf = file_buf(q->h.cluster_size);
	int err = buf ? 0 : -ENOMEM;

	for (uint64_t b = 0; b < w->n && !err; b++) {
		if (!w->wanted[b])
			continue;
		t->e[b] = be64_make(host);
		err = fill(w, b, buf);
		if (!err)
			err = qcow2_meta_write(q, 0, buf, q->h.cluster_size, host);
		host += q->h.cluster_size;
	}
	free(buf);
	if (!err)
		err = qcow2_meta_write(q, 0, t->e, w->table << q->h.cluster_bits, t->host_off);
	return err ? err : sync_to(&q->fmt.sync, q->fmt.sync.writes);
}

static int drop_old(struct qcow2 *q, const struct mem_table *old)
{
	uint32_t bits = q->h.cluster_bits;
	int err = tree_drop_clusters(
		q, old->host_off >> bits, div_round_up(old->n * 8ULL, q->h.cluster_size));

	for (uint32_t i = 0; i < old->n && !err; i++) {
		uint64_t host = be64_get(old->e[i]) & ~QCOW2_REFTABLE_RESERVED;

		if (host)
			err = tree_drop_clusters(q, host >> bits, 1);
	}
	return err;
}

static int change(struct width *w, struct why *why)
{
	struct qcow2 *q = w->q;
	struct qcow2_header h = q->h;
	struct mem_table t, old = q->reftable;
	uint64_t at = w->top + w->blocks;
	int err = mem_table_init(
		&t, (uint32_t)(w->table * q->h.cluster_size / 8), at << q->h.cluster_bits);

	if (err)
		return err;
	err = write_new(w, &t);
	h.reftable_offset = t.host_off;
	h.reftable_clusters = (uint32_t)w->table;
	h.refcount_order = w->order;
	h.refcount_bits = 1u << w->order;
	if (!err)
		err = qcow2_header_replace(q, &h, why);
	if (err) {
		mem_table_fini(&t);
		qcow2_end_spoiled(q);
		return err;
	}
	cache_drop(&q->refs);
	q->reftable = t;
	q->refs_per_block = w->per;
	q->end = q->hole = at + w->table;
	qcow2_overlap_forget(q);
	err = drop_old(q, &old);
	mem_table_fini(&old);
	step(w, false);
	return err;
}

int qcow2_set_refcount_width(struct qcow2 *q, const struct disk_amend *a, struct why *why)
{
	struct width w = {.q = q, .a = a, .steps = 3};
	int err = qcow2_flush(&q->fmt);

	w.order = (uint32_t)__builtin_ctz(a->refcount_bits);
	w.per = q->h.cluster_size * 8u >> w.order;
	if (!err)
		err = qcow2_alloc_settle(q);
	if (!err) /* nothing is counted ahead, and all counts are in the file */
		err = qcow2_alloc_close(q);
	if (err)
		return err;
	w.wanted = calloc(BLOCKS_MAX, 1);
	if (!w.wanted)
		return -ENOMEM;
	fiber_lock(&q->table_lock);
	err = find(&w, why);
	if (!err)
		err = settle(&w);
	if (!err)
		err = change(&w, why);
	fiber_unlock(&q->table_lock);
	free(w.wanted);
	return err;
}
