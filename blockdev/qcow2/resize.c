/* SPDX-License-Identifier: MIT */
/*
 * resize.c - a larger or smaller disk: a larger L1 table where the old one is too short.
 *
 * The new table is written whole into new clusters and made durable, then one write of the
 * header's first sector switches size and table, and only when that is durable is the old
 * table free (R3).  A cut leaves the old image or the new one.
 *
 * A smaller disk is one from the moment that the header says so; what lies behind its end is
 * dropped after that (drop.c).
 *
 * Requests go on while the disk grows: table_lock keeps new L2 tables out, commit_lock keeps L1
 * sectors from being written to the old place.
 */
#include <string.h>
#include "blockdev/qcow2/qcow2.h"

/* The caller holds both locks. */
static int switch_l1(struct qcow2 *q, struct mem_table *t, uint64_t size)
{
	struct qcow2_header old = q->h;
	uint64_t bytes = round_up(t->n * 8ULL, SECTOR);
	int err;

	file_event(q->fmt.file, EV_L1_GROW_WRITE_TABLE);
	err = qcow2_meta_write(q, 0, t->e, bytes, t->host_off);

	/* The copied entries' own conditions are numbers given out before now. */
	if (!err)
		err = sync_to(&q->fmt.sync, q->fmt.sync.writes);
	if (err)
		return err;
	q->h.size = size;
	q->h.l1_size = t->n;
	q->h.l1_offset = t->host_off;
	file_event(q->fmt.file, EV_L1_GROW_ACTIVATE_TABLE);
	err = qcow2_header_commit(q);
	if (err)
		q->h = old;
	/* Which table the header names is unknown then. */
	return sync_give_up(&q->fmt.sync, err);
}

static int grow_l1(struct qcow2 *q, uint64_t n, uint64_t size)
{
	struct mem_table t, old = q->l1;
	struct run r;
	int err;

	file_event(q->fmt.file, EV_L1_GROW_ALLOC_TABLE);
	err = qcow2_alloc_table(q, div_round_up(n * 8, q->h.cluster_size), &r);
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

int qcow2_l1_reach(struct qcow2 *q, uint64_t end)
{
	uint64_t need = qcow2_l1_needed(&q->h, end);
	int err = 0;

	if (need > QCOW2_L1_BYTES_MAX / 8)
		return -EFBIG;
	fiber_lock(&q->table_lock);
	if (need > q->l1.n)
		err = grow_l1(q, need, q->h.size);
	fiber_unlock(&q->table_lock);
	return err;
}

/* The size alone, or with a larger table.  The caller holds table_lock. */
static int commit_size(struct qcow2 *q, uint64_t size)
{
	uint64_t need = qcow2_l1_needed(&q->h, size), old = q->h.size;
	int err;

	if (need > q->l1.n)
		return grow_l1(q, need, size);
	q->h.size = size;
	err = qcow2_header_commit(q);
	if (err)
		q->h.size = old;
	/* Which size the header has is unknown then: what is behind the smaller one is not safe. */
	return sync_give_up(&q->fmt.sync, err);
}

/*
 * What lies behind the old end must read as zeros when the guest first sees it: the rest of the
 * last cluster, what an interrupted shrinking left behind, and a backing file that goes on there.
 */
static int clear_new(struct qcow2 *q, uint64_t from, uint64_t to)
{
	const struct format *below = q->fmt.backing;
	uint64_t shown = below && below->size > from ? below->size : 0;
	uint64_t whole = round_up(from, q->h.cluster_size);
	struct mapping m;
	int err = 0;

	for (; from < whole && !err; from += m.len) {
		err = qcow2_map(q, from, whole - from, &m);
		if (!err && (map_has_data(&m) || (map_reads_below(&m) && from < shown)))
			err = qcow2_write_zeros(q, from, m.len);
	}
	to = round_up(to, q->h.cluster_size);
	for (from = whole; from < to && !err; from += m.len) {
		err = qcow2_map(q, from, to - from, &m);
		if (!err && map_reads_below(&m) && from < shown) {
			m.len = min_u64(m.len, round_up(shown - from, q->h.cluster_size));
			err = qcow2_zeroes(&q->fmt, from, m.len, 0);
		} else if (!err && map_has_data(&m)) {
			err = qcow2_zeroes(&q->fmt, from, m.len, BLK_UNMAP);
		}
	}
	return err;
}

/* New clusters for the n guest clusters at off, which have none and are claimed. */
static int place_claimed(struct qcow2 *q, uint64_t off, uint64_t n, enum prealloc how)
{
	while (n) {
		struct run r;
		struct file *f = format_data(&q->fmt);
		uint64_t host, bytes, need;
		int err = qcow2_data_alloc(q, off, n, &r);

		if (err)
			return err;
		host = r.first << q->h.cluster_bits;
		bytes = r.n << q->h.cluster_bits;
		/* Behind its end a data file is zeros; one that is raw shows what it holds. */
		if (q->external)
			r.fresh = q->raw_data || host >= file_size(f);
		/* R2: a used cluster is written with zeros before a table names it. */
		err = qcow2_data_check(q, host, bytes);
		if (err)
			return err;
		err = file_preallocate(f, host, bytes, r.fresh ? how : PREALLOC_FULL);
		need = r.need;
		if (!r.fresh || how != PREALLOC_METADATA) {
			format_data_note(&q->fmt);
			need = qcow2_data_need(q);
		}
		if (!err)
			err = qcow2_l2_set(q, off, r.n, host | QCOW2_OFLAG_COPIED, need);
		if (err)
			return err; /* what was not placed leaks */
		off += bytes;
		n -= r.n;
	}
	return 0;
}

static int preallocate(struct qcow2 *q, uint64_t from, uint64_t to, enum prealloc how)
{
	uint64_t whole = round_up(from, q->h.cluster_size);

	/* The cluster with the old end in it is half the guest's already. */
	if (from < whole) {
		struct mapping m;
		int err = qcow2_map(q, from, whole - from, &m);

		if (!err && m.kind == MAP_HOLE)
			err = qcow2_write_zeros(q, from, whole - from);
		if (err)
			return err;
	}
	from = whole;
	to = round_up(to, q->h.cluster_size);
	while (from < to) {
		struct pending p;
		struct mapping m;
		int err = qcow2_claim_whole(q, from, to - from, &p, &m);

		if (err)
			return err;
		if (m.kind == MAP_HOLE || m.kind == MAP_ZERO) /* new clusters are zeros */
			err = place_claimed(q, from, p.n, how);
		qcow2_unclaim(q, &p);
		if (err)
			return err;
		from += m.len;
	}
	return 0;
}

/*
 * Three steps: room in the tables, zeros where old content would show, then the size.  A cut
 * before the last leaves the old disk.
 */
static int grow(struct qcow2 *q, uint64_t size, enum prealloc how)
{
	uint64_t need = qcow2_l1_needed(&q->h, size), old = q->h.size;
	int err = 0;

	fiber_lock(&q->table_lock);
	if (need > q->l1.n)
		err = grow_l1(q, need, old);
	fiber_unlock(&q->table_lock);
	if (err)
		return err;
	if (q->raw_data) { /* the disk shows what the file holds: zeros if it had to grow */
		err = qcow2_data_resize(q, size);
		how = how == PREALLOC_OFF ? PREALLOC_METADATA : how;
	} else {
		err = clear_new(q, old, size);
	}
	if (!err && how != PREALLOC_OFF)
		err = preallocate(q, old, size, how);
	if (!err)
		err = qcow2_data_resize(q, size);
	if (!err)
		err = qcow2_flush(&q->fmt);
	if (!err) {
		fiber_lock(&q->table_lock);
		err = commit_size(q, size);
		fiber_unlock(&q->table_lock);
	}
	if (!err)
		q->fmt.size = size;
	return err;
}

static int shrink(struct qcow2 *q, uint64_t size)
{
	uint64_t old = q->h.size;
	int err;

	fiber_lock(&q->table_lock);
	err = commit_size(q, size);
	fiber_unlock(&q->table_lock);
	if (err)
		return err;
	/* The rest of the last cluster is cleared when it is seen again: clear_new(). */
	err = qcow2_drop(q, size, old);
	q->fmt.size = size;
	if (!err)
		err = qcow2_drop_finish(q);
	return err ? err : qcow2_data_resize(q, size);
}

int qcow2_resize(struct format *fmt, uint64_t size, enum prealloc how, struct why *why)
{
	struct qcow2 *q = qcow2_of(fmt);
	int err;

	if (size % SECTOR)
		return why_set(why, -EINVAL, "The new size must be a multiple of %d", SECTOR);
	if (q->h.nb_snapshots && q->h.version < 3)
		return why_set(why, -ENOTSUP, "Can't resize a v2 image which has snapshots");
	if (size > (uint64_t)INT64_MAX || qcow2_l1_needed(&q->h, size) * 8 > QCOW2_L1_BYTES_MAX)
		return why_set(why, -EFBIG, "Failed to grow the L1 table: File too large");
	if (how != PREALLOC_OFF && size < q->h.size)
		return why_set(
			why, -ENOTSUP, "Preallocation can't be used for shrinking an image");
	err = qcow2_bitmaps_room(q, size, why);
	if (err)
		return err;
	err = size < q->h.size ? shrink(q, size) : grow(q, size, how);
	qcow2_bitmaps_fit(q);
	return err;
}

int qcow2_grow(struct format *fmt, uint64_t size)
{
	struct qcow2 *q = qcow2_of(fmt);

	if (size < q->h.size)
		return -EINVAL;
	return qcow2_resize(fmt, size, PREALLOC_OFF, NULL);
}
