/* SPDX-License-Identifier: MIT */
/*
 * repair.c - makes the counts on disk equal to the references.
 *
 *   1  plan: which blocks are missing or unusable, whether the table must move; all
 *      that is new lies behind the end of the file, where no entry points any more
 *   2  write the new blocks and the new table; raise counts in the old blocks; flush
 *   3  switch: the header's sector (the table moved) or the sectors of the table; flush
 *   4  lower counts in the old blocks; flush
 *
 * A cluster is counted on disk before anything relies on it, and a count goes down only
 * when the structure that it belonged to is out of use, so a cut between any two
 * writes leaves the old structures or the new ones, both whole, and at worst leaks.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include "blockdev/qcow2/check.h"

struct plan {
	struct chk *c;
	uint64_t per_block;     /* counts in a block */
	uint64_t next;          /* cluster: first one behind everything */
	uint64_t *table;        /* host order: the refcount table as it will be */
	uint64_t entries, room; /* in use; allocated here */
	uint8_t *is_new;        /* per entry */
	bool move;
	uint64_t table_cluster, table_clusters; /* if it moves */
};

/* Giving leaks back needs no block that is only missing. */
static bool any_bad_block(const struct chk *c)
{
	enum bad_block least = (c->fix & QCOW2_FIX_ERRORS) ? BLOCK_OUTSIDE : BLOCK_BROKEN;

	for (uint64_t i = 0; i < c->reftable_used; i++)
		if (c->bad_block[i] >= least)
			return true;
	return false;
}

/* Does block b count anything? */
static bool block_needed(const struct chk *c, uint64_t b)
{
	uint64_t per_block = qcow2_refblock_entries(&c->h);
	uint64_t i = b * per_block, end = min_u64(i + per_block, c->clusters);

	while (i < end) {
		i = refs_next(c->refs, i, end);
		if (i < end && refs_get(c->refs, i++))
			return true;
	}
	return false;
}

bool repair_must_place(const struct chk *c)
{
	uint64_t per_block = qcow2_refblock_entries(&c->h);

	if (any_bad_block(c))
		return true;
	if (!(c->fix & QCOW2_FIX_ERRORS))
		return false;
	if (c->reftable_bad)
		return true;
	for (uint64_t b = 0; b * per_block < c->clusters; b++)
		if ((b >= c->reftable_entries || !c->reftable[b]) && block_needed(c, b))
			return true;
	return false;
}

static int plan_room(struct plan *p, uint64_t entries)
{
	uint64_t room = max_u64(entries, p->room + p->room / 2);
	uint64_t *table;
	uint8_t *is_new;

	if (entries > QCOW2_REFTABLE_BYTES_MAX / 8)
		return why_set(p->c->why, -EFBIG, "The refcount table would become too large");
	if (entries <= p->room)
		return 0;
	table = realloc(p->table, room * sizeof(*table));
	if (!table)
		return -ENOMEM;
	p->table = table;
	is_new = realloc(p->is_new, room);
	if (!is_new)
		return -ENOMEM;
	p->is_new = is_new;
	memset(p->table + p->room, 0, (room - p->room) * sizeof(*table));
	memset(p->is_new + p->room, 0, room - p->room);
	p->room = room;
	return 0;
}

static int take(struct plan *p, uint64_t n, uint64_t *first)
{
	struct chk *c = p->c;

	*first = p->next;
	for (uint64_t i = 0; i < n; i++) {
		int err = refs_set(c->refs, p->next++, 1);

		if (err)
			return err;
	}
	c->clusters = p->next;
	return 0;
}

/* Places the table where it must move: with room for all blocks, its own and those still to come.
 */
static int place_table(struct plan *p)
{
	struct chk *c = p->c;
	uint64_t per_cluster = c->h.cluster_size / 8, n = 1;

	/* Every block still to come takes a cluster; n more clusters may need blocks themselves. */
	while (n * per_cluster < div_round_up(p->next + n, p->per_block) +
					 div_round_up(p->next + n, p->per_block) /
						 (p->per_block > 1 ? p->per_block - 1 : 1) +
					 2)
		n++;
	n = max_u64(n, c->h.reftable_clusters);
	if (n * c->h.cluster_size > QCOW2_REFTABLE_BYTES_MAX)
		return why_set(c->why, -EFBIG, "The refcount table would become too large");
	p->table_clusters = n;
	p->entries = n * per_cluster;
	return take(p, n, &p->table_cluster);
}

static int place_blocks(struct plan *p, bool *full)
{
	struct chk *c = p->c;

	*full = false;
	/* New clusters come at the end, so their blocks are met later in the same scan. */
	for (uint64_t b = 0; b * p->per_block < c->clusters; b++) {
		uint64_t cluster;
		int err;

		if ((b < p->room && p->table[b]) || !block_needed(c, b))
			continue;
		if (b >= p->entries) {
			*full = true;
			return 0;
		}
		err = plan_room(p, b + 1);
		if (!err)
			err = take(p, 1, &cluster);
		if (err)
			return err;
		p->table[b] = cluster << c->h.cluster_bits;
		p->is_new[b] = 1;
	}
	return 0;
}

static int make_plan(struct plan *p)
{
	struct chk *c = p->c;
	bool full;
	int err;

	p->per_block = qcow2_refblock_entries(&c->h);
	p->next = c->clusters =
		max_u64(c->clusters, div_round_up(c->file_bytes, c->h.cluster_size));
	p->entries = c->reftable_entries;
	p->move = c->reftable_bad;
	err = plan_room(p, max_u64(p->entries, 1));
	if (err)
		return err;
	for (uint64_t i = 0; i < c->reftable_used; i++)
		p->table[i] = c->bad_block[i] ? 0 : c->reftable[i];
	if (!(c->fix & QCOW2_FIX_ERRORS))
		return 0;
	for (;;) {
		if (p->move && !p->table_clusters) {
			err = place_table(p);
			if (err)
				return err;
		}
		err = place_blocks(p, &full);
		if (err || !full)
			return err;
		if (p->table_clusters) /* place_table()'s sum was wrong */
			return -EFBIG;
		p->move = true;
		/* The old table's clusters are free once the header names the new one. */
		for (uint64_t k = 0; k < c->h.reftable_clusters; k++) {
			err = refs_set(c->refs, (c->h.reftable_offset >> c->h.cluster_bits) + k, 0);
			if (err)
				return err;
		}
	}
}

/* One old block: its changed counts, in one write. */
static int update_block(struct plan *p, uint64_t b, bool raise)
{
	struct chk *c = p->c;
	struct table_buf t = {
		.entry = (void *)c->cluster_buf, .bytes = c->h.cluster_size, .off = p->table[b]};
	uint32_t order = c->h.refcount_order;
	uint64_t first = b * p->per_block, end = first + p->per_block;
	int err = file_pread(c->file, c->cluster_buf, c->h.cluster_size, t.off);

	if (err)
		return err;
	for (uint64_t k = first; (k = compare_next(c, c->cluster_buf, first, k, end)) < end; k++) {
		uint64_t i = k - first, at = (i << order) / 8;
		uint64_t disk = qcow2_refcount_get(c->cluster_buf, (uint32_t)i, order);
		uint64_t want = compare_final(c, k, disk);

		if (raise) /* lowering comes after the switch */
			want = max_u64(want, disk);
		if (want == disk)
			continue;
		qcow2_refcount_set(c->cluster_buf, (uint32_t)i, order, want);
		if (t.dirty_lo == t.dirty_hi)
			t.dirty_lo = at;
		t.dirty_hi = at + 1;
	}
	return table_write_back(c, &t);
}

static int update_blocks(struct plan *p, bool raise)
{
	int err = 0;

	for (uint64_t b = 0; b < p->entries && b < p->room && !err; b++)
		if (p->table[b] && !p->is_new[b])
			err = update_block(p, b, raise);
	return err ? err : file_fdatasync(p->c->file);
}

static int write_new_blocks(struct plan *p)
{
	struct chk *c = p->c;
	int err = 0;

	for (uint64_t b = 0; b < p->room && !err; b++) {
		if (!p->is_new[b])
			continue;
		memset(c->cluster_buf, 0, c->h.cluster_size);
		for (uint64_t i = 0; i < p->per_block; i++)
			qcow2_refcount_set(c->cluster_buf, (uint32_t)i, c->h.refcount_order,
				refs_count(c->refs, b * p->per_block + i));
		err = file_pwrite(c->file, c->cluster_buf, c->h.cluster_size, p->table[b]);
	}
	return err;
}

/* The table as it will be: whole in its new place, or its changed sectors in the old one. */
static int write_table(struct plan *p)
{
	struct chk *c = p->c;
	uint64_t off = p->move ? p->table_cluster << c->h.cluster_bits : c->h.reftable_offset;
	struct table_buf t;
	int err = table_read(c, off, p->entries, &t);

	if (err)
		return err;
	for (uint64_t i = 0; i < p->entries; i++) {
		uint64_t want = i < p->room ? p->table[i] : 0;

		if (p->move || be64_get(t.entry[i]) != want)
			table_set(&t, i, want);
	}
	err = table_write_back(c, &t);
	table_free(&t);
	return err;
}

static int write_placed(struct plan *p)
{
	struct chk *c = p->c;
	int err = write_new_blocks(p);

	if (!err && p->move)
		err = write_table(p);
	if (!err)
		err = update_blocks(p, true); /* and flush */
	if (err)
		return err;
	if (p->move) {
		c->h.reftable_offset = p->table_cluster << c->h.cluster_bits;
		c->h.reftable_clusters = (uint32_t)p->table_clusters;
		err = qcow2_header_write(c->file, &c->h);
	} else {
		err = write_table(p);
	}
	return err ? err : file_fdatasync(c->file);
}

int repair_refcounts(struct chk *c)
{
	struct plan p = {.c = c};
	bool place = repair_must_place(c);
	int err = make_plan(&p);

	if (!err && place)
		err = write_placed(&p);
	if (!err && !place && (c->fix & QCOW2_FIX_ERRORS))
		err = update_blocks(&p, true);
	if (!err)
		err = update_blocks(&p, false);
	if (!err && place)
		c->highest = p.next - 1;
	free(p.table);
	free(p.is_new);
	return err;
}
