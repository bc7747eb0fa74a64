/* SPDX-License-Identifier: MIT */
/*
 * refcount.c - reference counts, their blocks and the table of blocks.
 *
 * Growing lays the new part of the file out as
 *
 *   [blocks and a larger refcount table, if the old one is full] [clusters to hand out]
 *
 * where a block that counts only clusters to hand out is the first of those that it counts: it
 * counts itself, and can go again with them.  The blocks of a table, and of clusters that have
 * to be adjacent, stand before all that.  It is written so that no cut leaves a table naming
 * something that is not there: the file's length and the blocks' content, then (a number
 * later) what names them.
 *
 * Source: qcow2 specification, "Host cluster management".  Callers hold table_lock.
 */
#include <stdlib.h>
#include <string.h>
#include "blockdev/qcow2/qcow2.h"

static uint32_t entries_per_slice(const struct qcow2 *q)
{
	return (q->refs.slice_bytes * 8u) >> q->h.refcount_order;
}

static uint64_t block_off(const struct qcow2 *q, uint64_t i)
{
	return i < q->reftable.n ? be64_get(q->reftable.e[i]) & ~QCOW2_REFTABLE_RESERVED : 0;
}

/* Host offset of the slice with the cluster's count; 0: there is no block. */
static int count_off(struct qcow2 *q, uint64_t cluster, uint64_t *off)
{
	uint64_t block = block_off(q, cluster / q->refs_per_block);
	uint64_t slice = cluster % q->refs_per_block / entries_per_slice(q);

	if (block % q->h.cluster_size)
		return qcow2_corrupt(q, true,
			"Refblock offset %#llx unaligned (reftable index: %#llx)",
			(unsigned long long)block,
			(unsigned long long)(cluster / q->refs_per_block));
	*off = block ? block + slice * q->refs.slice_bytes : 0;
	return 0;
}

/* Counts that follow each other in one slice: s, borrowed, has them from its entry i on. */
struct counts {
	struct slice *s;
	uint32_t i, n;
};

/* Of the n clusters from first on, as far as the slice goes; -EIO if there is no block. */
static int counts_get(struct qcow2 *q, uint64_t first, uint64_t n, bool rw, struct counts *c)
{
	uint32_t per = entries_per_slice(q);
	uint64_t off;
	int err = count_off(q, first, &off);

	if (!err && !off)
		err = qcow2_broken(q, "no refcount block for cluster", first);
	if (err)
		return err;
	c->i = (uint32_t)(first % q->refs_per_block % per);
	c->n = (uint32_t)min_u64(n, per - c->i);
	return rw ? cache_get_rw(&q->refs, off, &c->s) : cache_get(&q->refs, off, &c->s);
}

static uint64_t count_at(const struct qcow2 *q, const struct counts *c, uint32_t j)
{
	return qcow2_refcount_get(c->s->data, c->i + j, q->h.refcount_order);
}

static void count_set(const struct qcow2 *q, struct counts *c, uint32_t j, uint64_t value)
{
	qcow2_refcount_set(c->s->data, c->i + j, q->h.refcount_order, value);
}

/* The first n of them were changed; the slice is given back. */
static void counts_put(struct qcow2 *q, struct counts *c, uint32_t n)
{
	uint32_t order = q->h.refcount_order;
	uint32_t from = (uint32_t)(((uint64_t)c->i << order) / 8);
	uint32_t to = (uint32_t)(((uint64_t)(c->i + n) << order) + 7) / 8;

	if (n)
		cache_dirty(&q->refs, c->s, from, to - from, 0);
	cache_put(&q->refs, &c->s);
}

int qcow2_refs_set(struct qcow2 *q, uint64_t first, uint64_t n, uint64_t value)
{
	while (n) {
		struct counts c;
		int err = counts_get(q, first, n, true, &c);

		if (err)
			return err;
		for (uint32_t j = 0; j < c.n; j++)
			count_set(q, &c, j, value);
		counts_put(q, &c, c.n);
		first += c.n;
		n -= c.n;
	}
	return 0;
}

int qcow2_refs_drop(struct qcow2 *q, uint64_t first, uint64_t n, uint64_t *k, bool *unused)
{
	struct counts c;
	uint32_t j = 0;
	int err = counts_get(q, first, n, true, &c);

	if (err)
		return err;
	for (; j < c.n; j++) {
		uint64_t old = count_at(q, &c, j);

		if (!old || (j && (old == 1) != *unused))
			break;
		*unused = old == 1;
		count_set(q, &c, j, old - 1);
	}
	counts_put(q, &c, j);
	*k = j;
	return j ? 0 : qcow2_broken(q, "a cluster in use counts as free:", first);
}

uint32_t qcow2_refs_per_slice(const struct qcow2 *q)
{
	return entries_per_slice(q);
}

int qcow2_refs_get(struct qcow2 *q, uint64_t cluster, uint64_t *count)
{
	struct counts c;
	uint64_t off;
	int err = count_off(q, cluster, &off);

	*count = 0;
	if (!err && off)
		err = counts_get(q, cluster, 1, false, &c);
	if (err || !off)
		return err;
	*count = count_at(q, &c, 0);
	counts_put(q, &c, 0);
	return 0;
}

int qcow2_refs_one(struct qcow2 *q, uint64_t first, bool *one, uint64_t *run)
{
	uint32_t k = 1;
	struct counts c;
	int err = counts_get(q, first, UINT64_MAX, false, &c);

	if (err)
		return err;
	*one = count_at(q, &c, 0) == 1;
	while (k < c.n && (count_at(q, &c, k) == 1) == *one)
		k++;
	counts_put(q, &c, 0);
	*run = k;
	return 0;
}

int qcow2_refs_add(struct qcow2 *q, uint64_t first, uint64_t n, int delta)
{
	uint64_t bad = delta > 0 ? UINT64_MAX >> (64 - q->h.refcount_bits) : 0;

	while (n) {
		struct counts c;
		int err = counts_get(q, first, n, true, &c);

		if (err)
			return err;
		for (uint32_t j = 0; j < c.n && !err; j++)
			if (count_at(q, &c, j) == bad)
				err = -ERANGE;
		for (uint32_t j = 0; j < c.n && !err; j++)
			count_set(q, &c, j, count_at(q, &c, j) + (uint64_t)delta);
		counts_put(q, &c, err ? 0 : c.n);
		if (err)
			return err;
		first += c.n;
		n -= c.n;
	}
	return 0;
}

int qcow2_refs_state(struct qcow2 *q, uint64_t first, enum ref_state *st, uint64_t *run)
{
	uint32_t k = 1;
	struct counts c;
	uint64_t off;
	bool is_free;
	int err = count_off(q, first, &off);

	if (err)
		return err;
	if (!off) {
		*st = REF_NO_BLOCK;
		*run = q->refs_per_block - first % q->refs_per_block;
		return 0;
	}
	err = counts_get(q, first, UINT64_MAX, false, &c);
	if (err)
		return err;
	is_free = !count_at(q, &c, 0);
	while (k < c.n && !count_at(q, &c, k) == is_free)
		k++;
	counts_put(q, &c, 0);
	*st = is_free ? REF_FREE : REF_USED;
	*run = k;
	return 0;
}

/* ---- growing ---- */

struct layout {
	uint64_t start;   /* first cluster of the new part */
	uint64_t blocks;  /* refcount blocks there */
	uint64_t table;   /* clusters of the new refcount table, 0 if the old one will do */
	uint64_t whole;	  /* clusters to hand out that are adjacent to each other */
	uint64_t end;	  /* before it, clusters to hand out and the blocks among them */
	uint64_t entries; /* of the refcount table that will do */
};

static uint64_t layout_whole(const struct layout *y)
{
	return y->start + y->blocks + y->table;
}

/* Past what the blocks at the start count. */
static uint64_t layout_rest(const struct layout *y)
{
	return layout_whole(y) + y->whole;
}

/* Blocks that [start, end) lacks. */
static uint64_t missing_blocks(const struct qcow2 *q, uint64_t start, uint64_t end)
{
	uint64_t n = 0;

	for (uint64_t i = start / q->refs_per_block; i * q->refs_per_block < end; i++)
		n += !block_off(q, i);
	return n;
}

/* Blocks and table need counts themselves, so their number is found by trying. */
static int layout_settle(const struct qcow2 *q, struct layout *y, uint64_t want)
{
	for (;;) {
		uint64_t entries, table = 0, blocks = 0;

		y->end = max_u64(layout_whole(y) + want, layout_rest(y));
		entries = (y->end - 1) / q->refs_per_block + 1;
		if (entries > q->reftable.n) {
			entries += entries / 2; /* half as much again, so that this is rare */
			table = div_round_up(entries * 8, q->h.cluster_size);
			entries = table * q->h.cluster_size / 8;
			if (entries * 8 > QCOW2_REFTABLE_BYTES_MAX)
				return -EFBIG;
		}
		if (table || y->table || y->whole)
			blocks = missing_blocks(q, y->start, layout_rest(y));
		if (blocks <= y->blocks && table <= y->table) {
			y->entries = max_u64(y->table * q->h.cluster_size / 8, q->reftable.n);
			return 0;
		}
		y->blocks = max_u64(y->blocks, blocks);
		y->table = max_u64(y->table, table);
	}
}

/* The first cluster from q->end on after which nothing is counted, as far as blocks reach. */
static int free_start(struct qcow2 *q, uint64_t want, uint64_t *start)
{
	uint64_t at = q->end, top = (uint64_t)q->reftable.n * q->refs_per_block;

	*start = at;
	while (at < top && at < *start + want) {
		enum ref_state st;
		uint64_t run;
		int err = qcow2_refs_state(q, at, &st, &run);

		if (err)
			return err;
		at += run;
		if (st == REF_USED)
			*start = at;
	}
	return 0;
}

/* Where block i, which is missing, goes if it counts nothing but clusters to hand out. */
static uint64_t block_place(const struct qcow2 *q, const struct layout *y, uint64_t i)
{
	return max_u64(i * q->refs_per_block, layout_rest(y));
}

/* The new blocks' entries, in memory only; undone, the blocks are forgotten. */
static void place_blocks(struct qcow2 *q, const struct layout *y, bool undo)
{
	uint64_t i = y->start / q->refs_per_block, placed = 0;

	for (; i * q->refs_per_block < y->end && i < q->reftable.n; i++) {
		uint64_t at = placed < y->blocks ? y->start + placed : block_place(q, y, i);
		uint64_t host = at << q->h.cluster_bits;

		if (undo ? be64_get(q->reftable.e[i]) != host : block_off(q, i) != 0)
			continue;
		mem_table_set(&q->reftable, (uint32_t)i, undo ? 0 : host, 0);
		if (undo)
			cache_forget(&q->refs, host, q->h.cluster_size);
		else
			qcow2_overlap_add(q, OVERLAP_REFCOUNT_BLOCK, at);
		placed += placed < y->blocks;
	}
}

/*
 * Sector by sector, each durable before the next: a block is counted in a block that the same
 * or an earlier sector names (R1).  More than one is dirty only where the table's sectors meet.
 */
int qcow2_reftable_write(struct qcow2 *q)
{
	struct mem_table *t = &q->reftable;
	uint32_t per = SECTOR / 8;

	for (uint32_t s = 0; t->n_dirty && s * per < t->n; s++) {
		int err;

		if (!t->dirty[s])
			continue;
		file_event(q->fmt.file, EV_REFBLOCK_ALLOC_HOOKUP);
		err = qcow2_meta_write(q, OVERLAP_REFCOUNT_TABLE, &t->e[s * per], SECTOR,
			t->host_off + s * (uint64_t)SECTOR);
		if (!err && t->n_dirty > 1)
			err = sync_to(&q->fmt.sync, q->fmt.sync.writes);
		if (err)
			return err;
		t->dirty[s] = 0;
		t->n_dirty--;
	}
	return 0;
}

/* q->reftable is the larger one, and the blocks it names are durable. */
static int switch_table(struct qcow2 *q)
{
	struct mem_table *t = &q->reftable;
	int err;

	file_event(q->fmt.file, EV_REFBLOCK_ALLOC_WRITE_TABLE);
	err = qcow2_meta_write(q, OVERLAP_REFCOUNT_TABLE, t->e, t->n * 8ULL, t->host_off);
	if (!err)
		err = sync_to(&q->fmt.sync, q->fmt.sync.writes);
	if (err)
		return err;
	for (uint32_t s = 0; s * (SECTOR / 8) < t->n; s++)
		t->dirty[s] = 0;
	t->n_dirty = 0;
	q->h.reftable_offset = t->host_off;
	q->h.reftable_clusters = (uint32_t)(t->n * 8ULL / q->h.cluster_size);
	file_event(q->fmt.file, EV_REFBLOCK_ALLOC_SWITCH_TABLE);
	/* If it fails, which of the two tables the header names is unknown. */
	return sync_give_up(&q->fmt.sync, qcow2_header_commit(q));
}

/* Room for [start, end); what others have counted between the file's end and start gets none. */
static int grow_file(struct qcow2 *q, uint64_t start, uint64_t end)
{
	uint64_t from = max_u64(file_size(q->fmt.file), start << q->h.cluster_bits);
	uint64_t want = end << q->h.cluster_bits;
	int err = 0;

	if (want > from)
		err = file_extend(q->fmt.file, from, want - from);
	if (!err)
		sync_note(&q->fmt.sync);
	return err;
}

void qcow2_end_spoiled(struct qcow2 *q)
{
	struct file *f = q->fmt.file;

	/* After that nothing is named any more; and a table that the header may name stays. */
	if (q->fmt.sync.err || file_size(f) <= q->end << q->h.cluster_bits)
		return;
	if (file_truncate(f, q->end << q->h.cluster_bits))
		q->end = div_round_up(file_size(f), q->h.cluster_size);
	sync_note(&q->fmt.sync);
}

/* Counts everything in the layout, and makes durable what the tables are about to name. */
static int count_new(struct qcow2 *q, const struct layout *y)
{
	int err;

	assert(!q->lazy || (q->h.incompatible & QCOW2_INCOMPAT_DIRTY));
	if (q->reftable.n_dirty)
		file_event(q->fmt.file, EV_REFBLOCK_ALLOC_WRITE);
	if (y->table)
		file_event(q->fmt.file, EV_REFBLOCK_ALLOC_WRITE_BLOCKS);
	err = qcow2_refs_set(q, y->start, y->end - y->start, 1);
	/* With lazy refcounts the dirty mark stands in for them; new blocks read as zeros. */
	if (!err && !q->lazy)
		err = qcow2_write_refs(q);
	if (!err && q->reftable.n_dirty)
		err = sync_to(&q->fmt.sync, q->fmt.sync.writes);
	return err;
}

/* With a larger table: it serves lookups at once, and the old one comes back if that fails. */
static int grow_table(struct qcow2 *q, const struct layout *y)
{
	struct mem_table old = q->reftable, bigger;
	int err = mem_table_init(
		&bigger, (uint32_t)y->entries, (y->start + y->blocks) << q->h.cluster_bits);

	if (err)
		return err;
	memcpy(bigger.e, old.e, old.n * 8ULL);
	q->reftable = bigger;
	place_blocks(q, y, false);
	err = count_new(q, y);
	if (!err)
		err = switch_table(q);
	if (err) {
		place_blocks(q, y, true);
		mem_table_fini(&q->reftable);
		q->reftable = old;
		qcow2_end_spoiled(q);
		return err;
	}
	q->end = y->end;
	/* R3: the header that no longer names the old table is durable. */
	err = qcow2_refs_set(
		q, old.host_off >> q->h.cluster_bits, old.n * 8ULL >> q->h.cluster_bits, 0);
	mem_table_fini(&old);
	return err;
}

static int grow_blocks(struct qcow2 *q, const struct layout *y)
{
	int err;

	place_blocks(q, y, false);
	err = count_new(q, y);
	if (err) {
		place_blocks(q, y, true);
		qcow2_end_spoiled(q);
		return err;
	}
	q->end = y->end;
	return qcow2_reftable_write(q); /* what fails stays dirty, for the next time */
}

/* The clusters to hand out, around the blocks among them. */
static void hand_out(struct qcow2 *q, const struct layout *y)
{
	struct run r = {.fresh = true, .need = q->fmt.sync.writes, .first = layout_whole(y)};

	for (uint64_t at = layout_rest(y); at < y->end; at++) {
		uint64_t i = at / q->refs_per_block;

		if (block_off(q, i) != at << q->h.cluster_bits) {
			at = min_u64(y->end, (i + 1) * q->refs_per_block) - 1;
			continue;
		}
		r.n = at - r.first;
		if (r.n)
			qcow2_alloc_add(q, &r);
		r.first = at + 1;
	}
	r.n = y->end - r.first;
	if (r.n)
		qcow2_alloc_add(q, &r);
}

void qcow2_refs_event(struct qcow2 *q)
{
	file_event(q->fmt.file, EV_REFBLOCK_LOAD);
	file_event(q->fmt.file, EV_REFBLOCK_ALLOC);
}

/* Where n more clusters go, and room for them in the file. */
static int lay_out(struct qcow2 *q, uint64_t n, bool whole, struct layout *y)
{
	int err;

	n = min_u64(n, (uint64_t)REFBLOCKS_GROW_MAX * q->refs_per_block);
	*y = (struct layout){.whole = whole ? n : 0};
	err = free_start(q, n + REFBLOCKS_GROW_MAX + 2 * q->h.reftable_clusters + 64, &y->start);
	if (!err)
		err = layout_settle(q, y, n);
	return err ? err : grow_file(q, y->start, y->end);
}

int qcow2_refs_grow(struct qcow2 *q, uint64_t want, uint64_t n, bool whole)
{
	struct layout y;
	int err = lay_out(q, n, whole, &y);

	if (n > want && (err == -ENOSPC || err == -EFBIG)) /* not in large steps, then */
		err = lay_out(q, want, whole, &y);
	if (err)
		return err;
	qcow2_refs_event(q);
	err = y.table ? grow_table(q, &y) : grow_blocks(q, &y);
	if (!err)
		hand_out(q, &y);
	return err;
}

/* Does block i count nothing but itself? */
static int block_idle(struct qcow2 *q, uint64_t i, bool *idle)
{
	uint64_t self = block_off(q, i) >> q->h.cluster_bits;
	uint64_t at = i * q->refs_per_block, end = at + q->refs_per_block;

	*idle = true;
	while (at < end && *idle) {
		enum ref_state st;
		uint64_t run;
		int err = qcow2_refs_state(q, at, &st, &run);

		if (err)
			return err;
		*idle = st != REF_USED || (at == self && run == 1);
		at += run;
	}
	return 0;
}

/* Block i goes: first its name (R3), then its count, if that stands in another block. */
static int drop_block(struct qcow2 *q, uint64_t i)
{
	uint64_t host = block_off(q, i), cluster = host >> q->h.cluster_bits;
	int err;

	mem_table_set(&q->reftable, (uint32_t)i, 0, 0);
	err = qcow2_reftable_write(q);
	if (!err)
		err = sync_to(&q->fmt.sync, q->fmt.sync.writes);
	if (err)
		return err;
	cache_forget(&q->refs, host, q->h.cluster_size);
	if (cluster / q->refs_per_block == i)
		return 0;
	return qcow2_refs_set(q, cluster, 1, 0);
}

int qcow2_refs_drop_last(struct qcow2 *q, bool *dropped)
{
	uint64_t last = q->end - 1, i = last / q->refs_per_block;
	bool idle;
	int err = 0;

	*dropped = false;
	if (!i || block_off(q, i) != last << q->h.cluster_bits)
		return 0;
	err = block_idle(q, i, &idle);
	if (err || !idle)
		return err;
	mem_table_set(&q->reftable, (uint32_t)i, 0, 0);
	cache_forget(&q->refs, last << q->h.cluster_bits, q->h.cluster_size);
	q->end--;
	*dropped = true;
	return 0;
}

int qcow2_refs_trim(struct qcow2 *q)
{
	/* From the end, as a block may be all that an earlier one counts. */
	for (uint64_t i = q->reftable.n; i-- > 1;) {
		bool idle;
		int err;

		if (!block_off(q, i))
			continue;
		err = block_idle(q, i, &idle);
		if (!err && idle)
			err = drop_block(q, i);
		if (err)
			return err;
	}
	return qcow2_write_refs(q);
}
