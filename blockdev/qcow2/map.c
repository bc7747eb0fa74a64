/* SPDX-License-Identifier: MIT */
/*
 * map.c - from guest offsets to host offsets, and the one place where an L2 entry changes.
 *
 * An entry that names something past the end of the file needs no care here: reads past
 * the end give zeros, which is what an unallocated cluster holds.
 *
 * Source: qcow2 specification, "Cluster mapping".
 */
#include "blockdev/qcow2/iov.h"
#include "blockdev/qcow2/qcow2.h"

static uint64_t l1_index(const struct qcow2 *q, uint64_t off)
{
	return off >> (q->h.cluster_bits + q->l2_bits);
}

static uint32_t l2_index(const struct qcow2 *q, uint64_t off)
{
	return (off >> q->h.cluster_bits) & (q->l2_entries - 1);
}

/* Host offset of the L2 table for off; 0: none.  -EIO if the entry is broken. */
static int l2_table(struct qcow2 *q, uint64_t off, uint64_t *table, bool *copied)
{
	uint64_t i = l1_index(q, off), e;

	*table = 0;
	if (i >= q->l1.n)
		return 0;
	e = be64_get(q->l1.e[i]);
	*table = e & QCOW2_OFFSET_MASK;
	*copied = e & QCOW2_OFLAG_COPIED;
	if (*table % q->h.cluster_size)
		return qcow2_broken(q, "L2 table at an unaligned offset", *table);
	return 0;
}

static uint64_t entry_off(const struct qcow2 *q, uint64_t table, uint64_t off)
{
	return table + 8ULL * l2_index(q, off);
}

/* One entry, decoded.  host_off is the cluster's start. */
static int decode(struct qcow2 *q, uint64_t e, struct mapping *m)
{
	m->host_off = e & QCOW2_OFFSET_MASK;
	m->writable = e & QCOW2_OFLAG_COPIED;
	m->packed_len = 0;
	if (e & QCOW2_OFLAG_COMPRESSED) {
		m->kind = MAP_COMPRESSED;
		m->writable = false;
		qcow2_compressed_range(e, q->h.cluster_bits, &m->host_off, &m->packed_len);
		return 0;
	}
	if (m->host_off % q->h.cluster_size)
		return qcow2_broken(q, "data cluster at an unaligned offset", m->host_off);
	if (q->h.version >= 3 && (e & QCOW2_OFLAG_ZERO))
		m->kind = m->host_off ? MAP_ZERO_HOST : MAP_ZERO;
	else
		m->kind = m->host_off ? MAP_DATA : MAP_HOLE;
	return 0;
}

static bool continues(const struct mapping *a, const struct mapping *b, uint64_t bytes)
{
	if (a->kind != b->kind || a->writable != b->writable || a->kind == MAP_COMPRESSED)
		return false;
	return a->kind == MAP_HOLE || a->kind == MAP_ZERO || b->host_off == a->host_off + bytes;
}

/* The run that starts at off, as far as this slice tells. */
static int map_slice(struct qcow2 *q, const struct slice *s, uint64_t entry, uint64_t off,
	uint64_t len, struct mapping *m)
{
	const be64_t *e = (const be64_t *)(const void *)s->data;
	uint32_t i = (uint32_t)(entry - s->host_off) / 8, n = q->l2.slice_bytes / 8;
	uint32_t in_cluster = off & (q->h.cluster_size - 1);
	uint64_t got = q->h.cluster_size;
	struct mapping next;
	int err = decode(q, be64_get(e[i]), m);

	if (err)
		return err;
	while (got - in_cluster < len && ++i < n) {
		/* A broken entry is reported when it is its turn, not as somebody's neighbour. */
		uint64_t v = be64_get(e[i]);

		if ((v & QCOW2_OFLAG_COMPRESSED) || (v & QCOW2_OFFSET_MASK) % q->h.cluster_size ||
			decode(q, v, &next) || !continues(m, &next, got))
			break;
		got += q->h.cluster_size;
	}
	m->len = min_u64(len, got - in_cluster);
	if (m->kind != MAP_COMPRESSED)
		m->host_off += in_cluster;
	return 0;
}

/* No table at all: a hole up to the end of what the table would cover. */
static void map_no_table(const struct qcow2 *q, uint64_t off, uint64_t len, struct mapping *m)
{
	uint64_t covers = (uint64_t)q->h.cluster_size << q->l2_bits;

	*m = (struct mapping){.kind = MAP_HOLE, .len = min_u64(len, covers - off % covers)};
}

bool qcow2_map_cached(struct qcow2 *q, uint64_t off, uint64_t len, struct mapping *m)
{
	uint64_t table;
	struct slice *s;
	bool copied;

	if (l2_table(q, off, &table, &copied))
		return false;
	if (!table) {
		map_no_table(q, off, len, m);
		return true;
	}
	s = cache_peek(&q->l2, entry_off(q, table, off));
	if (!s || map_slice(q, s, entry_off(q, table, off), off, len, m))
		return false;
	m->writable &= copied;
	return true;
}

int qcow2_map(struct qcow2 *q, uint64_t off, uint64_t len, struct mapping *m)
{
	uint64_t table;
	struct slice *s;
	bool copied;
	int err = l2_table(q, off, &table, &copied);

	if (err)
		return err;
	if (!table) {
		map_no_table(q, off, len, m);
		return 0;
	}
	err = cache_get(&q->l2, entry_off(q, table, off), &s);
	if (err)
		return err;
	err = map_slice(q, s, entry_off(q, table, off), off, len, m);
	cache_put(&q->l2, &s);
	if (!err)
		m->writable &= copied;
	return err;
}

/* Where a table comes from that is ours alone, and what becomes of the one it replaces. */
struct new_table {
	struct run r;
	uint64_t old; /* host offset of the shared one, or 0 */
};

/*
 * A table in never-used clusters is all zeros already, so only the L1 entry is written.  In
 * a used cluster the zeros must be there first (R2), and so must a copy of a shared table.
 */
static int l2_fill(struct qcow2 *q, struct new_table *t)
{
	uint64_t host_off = t->r.first << q->h.cluster_bits;
	struct iov_cursor nothing = {NULL, 0, 0};
	struct beside content = {q->h.cluster_size, NULL};
	uint8_t *buf = NULL;
	int err = 0;

	if (!t->old && t->r.fresh)
		return 0;
	if (t->old) {
		content.buf = buf = qcow2_cow_get(q);
		err = file_pread(q->fmt.file, buf, q->h.cluster_size, t->old);
	}
	if (!err)
		err = iov_transfer(q->fmt.file, FILE_WRITE, &nothing, host_off, content, 0,
			NOTHING_BESIDE);
	q->fmt.metadata_bytes += q->h.cluster_size;
	if (!err)
		t->r.need = sync_note(&q->fmt.sync);
	if (buf)
		qcow2_cow_put(q, buf);
	return err;
}

/* The caller holds table_lock. */
static int l2_new(struct qcow2 *q, uint64_t off, struct new_table *t)
{
	int err = qcow2_alloc_locked(q, 1, &t->r);

	if (err)
		return err;
	err = l2_fill(q, t);
	if (err) {
		t->r.fresh = false;
		qcow2_alloc_add(q, &t->r);
		return err;
	}
	mem_table_set(&q->l1, (uint32_t)l1_index(q, off),
		(t->r.first << q->h.cluster_bits) | QCOW2_OFLAG_COPIED, t->r.need);
	return 0;
}

int qcow2_l2_ensure(struct qcow2 *q, uint64_t off)
{
	struct new_table t = {.old = 0};
	bool copied;
	int err = l2_table(q, off, &t.old, &copied);

	if (err || (t.old && copied))
		return err;
	if (l1_index(q, off) >= q->l1.n)
		return qcow2_broken(q, "L1 table too short for guest offset", off);
	fiber_lock(&q->table_lock);
	err = l2_table(q, off, &t.old, &copied); /* somebody else may have been quicker */
	if (!err && t.old && copied)
		t.old = 0;
	else if (!err)
		err = l2_new(q, off, &t);
	fiber_unlock(&q->table_lock);
	if (!err && t.old)
		err = qcow2_clusters_free(q, t.old >> q->h.cluster_bits, 1);
	return err;
}

int qcow2_l2_set(struct qcow2 *q, uint64_t off, uint64_t n, uint64_t entry, uint64_t need)
{
	uint32_t per_slice = q->l2.slice_bytes / 8;
	uint64_t step = entry & QCOW2_OFFSET_MASK ? q->h.cluster_size : 0;

	while (n) {
		uint64_t table, at;
		uint32_t i, k;
		struct slice *s;
		be64_t *e;
		bool copied;
		int err = l2_table(q, off, &table, &copied);

		if (err)
			return err;
		assert(table && copied);
		at = entry_off(q, table, off);
		err = cache_get_rw(&q->l2, at, &s);
		if (err)
			return err;
		e = (be64_t *)(void *)s->data;
		i = (uint32_t)(at - s->host_off) / 8;
		k = (uint32_t)min_u64(n, per_slice - i);
		for (uint32_t j = 0; j < k; j++)
			e[i + j] = be64_make(entry + j * step);
		cache_dirty(&q->l2, s, i * 8, k * 8, need);
		cache_put(&q->l2, &s);
		n -= k;
		off += (uint64_t)k << q->h.cluster_bits;
		entry += k * step;
	}
	return 0;
}
