/* SPDX-License-Identifier: MIT */
/*
 * bitmap_save.c - a session with bitmaps: marked in use when it begins, written back when it ends.
 *
 *   open    directory: all in use | the guest's first write
 *   close   (all that the guest wrote)
 *           bits of new clusters | tables that changed | directory: good | lost clusters counted
 *           down
 *
 * Each | is one fdatasync, and is left out where there is nothing before it.  A cut before the last
 * of them leaves bitmaps in use, which everybody takes for lost; so nothing on the way needs an
 * order but for the counts.
 *
 * The flags of a bitmap lie in one sector, so a directory whose flags alone change is written where
 * it is: any mixture of its sectors is a good one.  Otherwise it gets another place, and the header
 * says which it is.
 */
#include <stdlib.h>
#include <string.h>
#include "blockdev/qcow2/bitmap.h"
#include "blockdev/qcow2/snapshot.h"

static int durable(struct qcow2 *q)
{
	return sync_to(&q->fmt.sync, q->fmt.sync.writes);
}

/* The directory as it is in memory, at host_off. */
static int put_dir(struct qcow2 *q, uint64_t host_off, unsigned own)
{
	uint64_t bytes = round_up(bitmap_dir_bytes(&q->bitmaps), SECTOR);
	uint8_t *buf = file_buf(bytes);
	int err = -ENOMEM;

	if (buf) {
		memset(buf, 0, bytes);
		bitmap_dir_make(&q->bitmaps, buf);
		err = qcow2_meta_write(q, own, buf, bytes, host_off);
	}
	free(buf);
	return err;
}

/* B1 */
static int mark_in_use(struct qcow2 *q, struct why *why)
{
	int err;

	q->bitmaps.in_use = true;
	err = put_dir(q, q->h.bitmaps_offset, OVERLAP_BITMAPS);
	if (!err)
		err = durable(q);
	if (err)
		return why_set(why, err, "Can't update bitmap directory: %s", strerror(-err));
	return 0;
}

int qcow2_bitmaps_open(struct qcow2 *q, struct why *why)
{
	struct bitmaps *b = &q->bitmaps;
	bool good = false;
	int err = bitmap_dir_read(q->fmt.file, &q->h, b, why);

	if (err || q->fmt.readonly)
		return err;
	for (uint32_t i = 0; i < b->n && !err; i++) {
		good |= !b->v[i]->inconsistent;
		if (!b->v[i]->inconsistent && b->v[i]->enabled) {
			err = bitmap_load(q, b->v[i], why);
			q->fmt.noting = true;
		}
	}
	return err || !good ? err : mark_in_use(q, why);
}

/* ---- clusters without a name ---- */

/* These lost their name: free_lost() frees them; without memory they leak. */
static void lose(struct qcow2 *q, uint64_t host_off, uint64_t bytes)
{
	struct bitmaps *b = &q->bitmaps;
	struct run r = {.first = host_off >> q->h.cluster_bits,
		.n = div_round_up(bytes, q->h.cluster_size)};
	struct run *lost = realloc(b->lost, (b->n_lost + 1) * sizeof(*lost));

	if (!lost)
		return;
	b->lost = lost;
	b->lost[b->n_lost++] = r;
}

static void lose_entry(struct qcow2 *q, uint64_t entry)
{
	if (entry & QCOW2_OFFSET_MASK)
		lose(q, entry & QCOW2_OFFSET_MASK, q->h.cluster_size);
}

void bitmap_lose_all(struct qcow2 *q, struct bitmap *m)
{
	if (!m->table_offset)
		return;
	if (!m->table && bitmap_read_table(q, m)) /* what it names leaks */
		log_debug("the table of bitmap '%s' cannot be read", m->name);
	for (uint32_t i = 0; m->table && i < m->table_size; i++)
		lose_entry(q, m->table[i]);
	lose(q, m->table_offset, m->table_size * 8ULL);
}

static int free_lost(struct qcow2 *q)
{
	struct bitmaps *b = &q->bitmaps;
	int err = 0;

	for (uint32_t i = 0; i < b->n_lost && !err; i++)
		err = tree_drop_clusters(q, b->lost[i].first, b->lost[i].n);
	b->n_lost = 0;
	return err;
}

/* ---- writing back ---- */

static int new_clusters(struct qcow2 *q, uint64_t bytes, uint64_t *host_off)
{
	struct run r = {.n = 0};
	int err = qcow2_alloc_table(q, div_round_up(bytes, q->h.cluster_size), &r);

	*host_off = r.first << q->h.cluster_bits;
	return err;
}

/* A table of as many entries as the bits need; *moved: it lies elsewhere now. */
static int fit_table(struct qcow2 *q, struct bitmap *m, bool *moved)
{
	uint64_t *table, host_off;
	int err;

	*moved = !m->table_offset || m->table_size != m->n_parts;
	if (!*moved)
		return 0;
	table = calloc(m->n_parts + 1ULL, sizeof(*table));
	err = table ? new_clusters(q, m->n_parts * 8ULL, &host_off) : -ENOMEM;
	if (err) {
		free(table);
		return err;
	}
	for (uint32_t i = 0; m->table && i < m->table_size; i++) {
		if (i < m->n_parts)
			table[i] = m->table[i];
		else
			lose_entry(q, m->table[i]);
	}
	if (m->table_offset)
		lose(q, m->table_offset, m->table_size * 8ULL);
	free(m->table);
	m->table = table;
	m->table_size = m->n_parts;
	m->table_offset = host_off;
	q->bitmaps.renewed = true;
	return 0;
}

static int write_part(struct qcow2 *q, struct bitmap *m, uint32_t i, uint8_t *buf)
{
	uint64_t host_off = m->table[i] & QCOW2_OFFSET_MASK;
	const uint8_t *part = bitmap_part(q, m, i, buf);
	int err = 0;

	if (!part) {
		lose_entry(q, m->table[i]);
		m->table[i] = 0;
		return 0;
	}
	if (!host_off)
		err = new_clusters(q, q->h.cluster_size, &host_off);
	if (!err)
		err = qcow2_meta_write(q, 0, part, q->h.cluster_size, host_off);
	if (!err)
		m->table[i] = host_off;
	return err;
}

/* *table: it must be written too. */
static int write_bits(struct qcow2 *q, struct bitmap *m, uint8_t *buf, bool *table)
{
	int err = fit_table(q, m, table);

	for (uint32_t i = 0; i < m->n_parts && !err; i++) {
		uint64_t before = m->table[i];

		if (!m->changed[i])
			continue;
		err = write_part(q, m, i, buf);
		*table |= m->table[i] != before;
	}
	return err;
}

static int write_table(struct qcow2 *q, const struct bitmap *m)
{
	uint64_t bytes = round_up(m->table_size * 8ULL, SECTOR);
	be64_t *disk = file_buf(bytes);
	int err = -ENOMEM;

	if (disk) {
		memset(disk, 0, bytes);
		for (uint32_t i = 0; i < m->table_size; i++)
			disk[i] = be64_make(m->table[i]);
		err = qcow2_meta_write(q, 0, disk, bytes, m->table_offset);
	}
	free(disk);
	return err;
}

/* Bits, then the tables that name new clusters (B3). */
static int write_all(struct qcow2 *q, bool *tables)
{
	struct bitmaps *b = &q->bitmaps;
	uint8_t *buf = file_buf(q->h.cluster_size);
	bool any = false;
	int err = buf ? 0 : -ENOMEM;

	for (uint32_t i = 0; i < b->n && !err; i++) {
		if (b->v[i]->part)
			err = write_bits(q, b->v[i], buf, &tables[i]);
		any |= tables[i];
	}
	free(buf);
	if (!err && any)
		err = durable(q);
	for (uint32_t i = 0; i < b->n && !err; i++)
		if (tables[i])
			err = write_table(q, b->v[i]);
	return err;
}

/* The header names another directory, or none. */
static int renew_dir(struct qcow2 *q, struct why *why)
{
	struct qcow2_header h = q->h;
	int err = 0;

	h.nb_bitmaps = q->bitmaps.n;
	h.bitmaps_bytes = bitmap_dir_bytes(&q->bitmaps);
	h.bitmaps_offset = 0;
	h.autoclear &= ~QCOW2_AUTOCLEAR_BITMAPS;
	if (h.nb_bitmaps) {
		h.autoclear |= QCOW2_AUTOCLEAR_BITMAPS;
		err = new_clusters(q, h.bitmaps_bytes, &h.bitmaps_offset);
		if (!err)
			err = put_dir(q, h.bitmaps_offset, 0);
	}
	if (q->h.nb_bitmaps)
		lose(q, q->h.bitmaps_offset, q->h.bitmaps_bytes);
	if (!err)
		err = durable(q);
	return err ? err : qcow2_header_replace(q, &h, why);
}

static int save(struct qcow2 *q, bool *tables, struct why *why)
{
	int err = write_all(q, tables);

	if (!err)
		err = durable(q); /* B2 */
	if (err)
		return err;
	q->bitmaps.in_use = false;
	if (q->bitmaps.renewed)
		err = renew_dir(q, why);
	else
		err = put_dir(q, q->h.bitmaps_offset, OVERLAP_BITMAPS);
	/* What is lost has no name any more: in tables durably since B2, or by the header. */
	return err ? err : free_lost(q);
}

int qcow2_bitmaps_drop(struct qcow2 *q, uint64_t dir_offset, uint64_t dir_bytes)
{
	struct bitmaps *b = &q->bitmaps;
	int err;

	for (uint32_t i = 0; i < b->n; i++) {
		bitmap_lose_all(q, b->v[i]);
		bitmap_free(b->v[i]);
	}
	if (dir_bytes)
		lose(q, dir_offset, dir_bytes);
	b->n = 0;
	b->in_use = b->renewed = q->fmt.noting = false;
	fiber_lock(&q->table_lock);
	err = free_lost(q);
	fiber_unlock(&q->table_lock);
	return err;
}

int qcow2_bitmaps_save(struct qcow2 *q, struct why *why)
{
	struct bitmaps *b = &q->bitmaps;
	bool *tables;
	int err = -ENOMEM;

	if (!b->in_use && !b->renewed)
		return 0;
	tables = calloc(b->n + 1ULL, sizeof(*tables));
	if (tables) {
		fiber_lock(&q->table_lock);
		err = save(q, tables, why);
		fiber_unlock(&q->table_lock);
	}
	free(tables);
	b->renewed = b->in_use = false;
	if (err)
		return why_set(why, err, "Lost persistent bitmaps: %s", strerror(-err));
	return 0;
}
