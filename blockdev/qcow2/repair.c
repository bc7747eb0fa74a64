/* SPDX-License-Identifier: MIT */
/*
 * repair.c - makes the counts on disk equal to the references.
 *
 * In place, where every cluster in use has a count of its own already:
 *   1  raise counts that are too low; flush
 *   2  take blocks that lie outside the file out of the table; flush
 *   3  lower counts that are too high; flush
 *
 * From nothing, where counts are lost or their blocks cannot stay:
 *   1  write a whole new set of blocks and a new table behind everything that is referenced, the
 *      old ones included; flush
 *   2  switch: the header's sector
 *   3  count again, now without the old set, and lower in place what that leaves
 *
 * A cluster is counted on disk before anything relies on it, and a count goes down only
 * when the structure that it belonged to is out of use, so a cut between any two
 * writes leaves the old structures or the new ones, both whole, and at worst leaks.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include "blockdev/qcow2/check.h"

/* One block: its changed counts, in one write. */
static int update_block(struct chk *c, uint64_t b, bool raise)
{
	struct table_buf t = {.entry = (void *)c->cluster_buf,
		.bytes = c->h.cluster_size,
		.off = c->reftable[b] & ~QCOW2_REFTABLE_RESERVED};
	uint64_t per_block = qcow2_refblock_entries(&c->h);
	uint32_t order = c->h.refcount_order;
	uint64_t first = b * per_block, end = first + per_block;
	int err = file_pread(c->file, c->cluster_buf, c->h.cluster_size, t.off);

	if (err)
		return err;
	for (uint64_t k = first; (k = compare_next(c, c->cluster_buf, first, k, end)) < end; k++) {
		uint64_t i = k - first, at = (i << order) / 8;
		uint64_t disk = qcow2_refcount_get(c->cluster_buf, (uint32_t)i, order);
		uint64_t want = compare_final(c, k, disk);

		if (raise ? want <= disk : want >= disk)
			continue;
		qcow2_refcount_set(c->cluster_buf, (uint32_t)i, order, want);
		if (t.dirty_lo == t.dirty_hi)
			t.dirty_lo = at;
		t.dirty_hi = at + 1;
	}
	return table_write_back(c, &t);
}

static int update_blocks(struct chk *c, bool raise)
{
	int err = 0;

	for (uint64_t b = 0; b < c->reftable_used && !err; b++)
		if (c->reftable[b] && c->bad_block[b] == BLOCK_GOOD)
			err = update_block(c, b, raise);
	return err ? err : file_fdatasync(c->file);
}

/* Blocks that lie outside the file count nothing and are not counted any more. */
static int forget_outside(struct chk *c, bool *any)
{
	*any = false;
	for (uint64_t b = 0; b < c->reftable_used; b++) {
		uint64_t cluster = c->reftable[b] >> c->h.cluster_bits, n;
		int err;

		if (c->bad_block[b] != BLOCK_OUTSIDE)
			continue;
		*any = true;
		n = refs_get(c->refs, cluster);
		err = refs_set(c->refs, cluster, n ? n - 1 : 0);
		if (err)
			return err;
	}
	return 0;
}

static int drop_outside(struct chk *c)
{
	struct table_buf t;
	int err = table_read(c, c->h.reftable_offset, c->reftable_used, &t);

	if (err)
		return err;
	for (uint64_t b = 0; b < c->reftable_used; b++) {
		if (c->bad_block[b] != BLOCK_OUTSIDE)
			continue;
		c->reftable[b] = 0;
		c->bad_block[b] = BLOCK_GOOD;
		table_set(&t, b, 0);
	}
	err = table_write_back(c, &t);
	table_free(&t);
	return err ? err : file_fdatasync(c->file);
}

int repair_in_place(struct chk *c)
{
	bool outside = false;
	int err = 0;

	if (c->fix & QCOW2_FIX_ERRORS) {
		err = forget_outside(c, &outside);
		if (!err)
			err = update_blocks(c, true);
		if (!err && outside)
			err = drop_outside(c);
	}
	return err ? err : update_blocks(c, false);
}

bool repair_has_block(const struct chk *c, uint64_t cluster)
{
	uint64_t b = cluster / qcow2_refblock_entries(&c->h);

	return b < c->reftable_used && c->reftable[b] && c->bad_block[b] == BLOCK_GOOD;
}

uint64_t repair_first_free(const struct chk *c)
{
	uint64_t end = 1, table = c->h.reftable_offset >> c->h.cluster_bits;

	for (uint64_t i = 0; (i = refs_next(c->refs, i, c->clusters)) < c->clusters; i++)
		if (refs_get(c->refs, i))
			end = i + 1;
	/* Old structures that were not counted, being broken, are still in use until the switch. */
	if (c->h.reftable_offset < c->file_bytes)
		end = max_u64(end, table + c->h.reftable_clusters);
	for (uint64_t b = 0; b < c->reftable_used; b++)
		if (c->reftable[b] && c->reftable[b] < c->file_bytes)
			end = max_u64(end, div_round_up(c->reftable[b] + c->h.cluster_size,
						   c->h.cluster_size));
	return end;
}

/* The new structures: the table in n_table clusters from first on, then the blocks. */
struct plan {
	struct chk *c;
	uint64_t per_block; /* counts in a block */
	uint64_t first, n_table, n_blocks;
	uint64_t *table; /* host order; entries up to the last block */
	uint64_t entries;
};

/* Does block b count anything? */
static bool block_needed(const struct plan *p, uint64_t b)
{
	uint64_t i = b * p->per_block, end = i + p->per_block;

	if (b >= p->first / p->per_block &&
		i < p->first + p->n_table + p->n_blocks) /* the new structures themselves */
		return true;
	while (i < end) {
		i = refs_next(p->c->refs, i, end);
		if (i < end && refs_get(p->c->refs, i++))
			return true;
	}
	return false;
}

/* How large the new structures are: they count themselves, so they grow until it fits. */
static int plan_sizes(struct plan *p)
{
	uint64_t cs = p->c->h.cluster_size, n, last;

	p->n_table = 1;
	for (;;) {
		last = (p->first + p->n_table + p->n_blocks - 1) / p->per_block;
		n = 0;
		for (uint64_t b = 0; b <= last; b++)
			n += block_needed(p, b);
		p->entries = last + 1;
		if (p->entries * 8 > QCOW2_REFTABLE_BYTES_MAX)
			return why_set(p->c->why, -EFBIG,
				"The refcount table would become too large");
		if (n <= p->n_blocks && p->entries * 8 <= p->n_table * cs)
			return 0;
		p->n_blocks = max_u64(p->n_blocks, n);
		p->n_table = max_u64(p->n_table, div_round_up(p->entries * 8, cs));
	}
}

static int make_plan(struct plan *p)
{
	struct chk *c = p->c;
	uint64_t next;
	int err;

	p->per_block = qcow2_refblock_entries(&c->h);
	p->first = repair_first_free(c);
	err = plan_sizes(p);
	if (err)
		return err;
	p->table = calloc(p->entries, sizeof(*p->table));
	if (!p->table)
		return -ENOMEM;
	next = p->first + p->n_table;
	for (uint64_t b = 0; b < p->entries; b++)
		if (block_needed(p, b))
			p->table[b] = next++ << c->h.cluster_bits;
	for (uint64_t i = p->first; i < next && !err; i++)
		err = refs_set(c->refs, i, 1);
	return err;
}

static int write_blocks(struct plan *p)
{
	struct chk *c = p->c;
	int err = 0;

	for (uint64_t b = 0; b < p->entries && !err; b++) {
		uint64_t first = b * p->per_block, end = first + p->per_block;

		if (!p->table[b])
			continue;
		memset(c->cluster_buf, 0, c->h.cluster_size);
		for (uint64_t i = first; (i = refs_next(c->refs, i, end)) < end; i++)
			qcow2_refcount_set(c->cluster_buf, (uint32_t)(i - first),
				c->h.refcount_order, refs_count(c->refs, i));
		err = file_pwrite(c->file, c->cluster_buf, c->h.cluster_size, p->table[b]);
	}
	return err;
}

static int write_table(struct plan *p)
{
	struct chk *c = p->c;
	uint64_t bytes = p->n_table << c->h.cluster_bits;
	be64_t *t = file_buf(bytes);
	int err;

	if (!t)
		return -ENOMEM;
	for (uint64_t b = 0; b < p->entries; b++)
		t[b] = be64_make(p->table[b]);
	err = file_pwrite(c->file, t, bytes, p->first << c->h.cluster_bits);
	free(t);
	return err ? err : file_fdatasync(c->file);
}

/* What a table that is no longer in use said. */
struct old_table {
	uint64_t *entry, used;
	uint8_t *bad_block;
};

/* Their counts went with the old blocks. */
static void say_outside(struct chk *c, const struct old_table *old)
{
	for (uint64_t b = 0; b < old->used; b++)
		if (old->bad_block[b] == BLOCK_OUTSIDE)
			chk_say(c, "Repairing cluster %" PRIu64 " refcount=1 reference=0",
				old->entry[b] >> c->h.cluster_bits);
}

/* After the new set is in use: the file is judged anew, and what the old one took given back. */
static int settle_rebuilt(struct chk *c, const struct old_table *old)
{
	struct qcow2_check saved;
	int err = chk_recount(c);

	if (err || !(c->asked & QCOW2_FIX_LEAKS))
		return err;
	saved = *c->res;
	c->rebuild = false;
	err = compare_refcounts(c, QCOW2_FIX_LEAKS);
	say_outside(c, old);
	if (c->rebuild)
		chk_say(c, "ERROR rebuilt refcount structure is still broken");
	*c->res = saved;
	return err ? err : repair_in_place(c);
}

/* Counts that go down next do so in the new blocks: nothing has to wait for this. */
static int switch_table(struct plan *p)
{
	struct chk *c = p->c;

	c->h.reftable_offset = p->first << c->h.cluster_bits;
	c->h.reftable_clusters = (uint32_t)p->n_table;
	return qcow2_header_write(c->file, &c->h);
}

int repair_rebuild(struct chk *c)
{
	struct plan p = {.c = c};
	struct old_table old;
	bool outside;
	int err = forget_outside(c, &outside);

	if (!err)
		err = make_plan(&p);
	if (!err)
		err = write_blocks(&p);
	if (!err)
		err = write_table(&p);
	free(p.table);
	if (!err)
		err = switch_table(&p);
	if (err)
		return err;
	old = (struct old_table){c->reftable, c->reftable_used, c->bad_block};
	c->reftable = NULL;
	c->bad_block = NULL;
	err = settle_rebuilt(c, &old);
	free(old.entry);
	free(old.bad_block);
	return err;
}
