/* SPDX-License-Identifier: MIT */
/*
 * map.c - from guest offsets to host offsets, and the one place where an L2 entry changes.
 *
 * Extended entries have a bitmap that says of each 32nd of a cluster whether it is data, zeros or
 * a hole; the map then goes by such subclusters, and claims (write.c) still by clusters.
 *
 * An entry that names something past the end of the file needs no care here: reads past
 * the end give zeros, which is what an unallocated cluster holds.
 *
 * Source: qcow2 specification, "Cluster mapping", "Extended L2 Entries".
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
		return qcow2_corrupt(q, true, "L2 table offset %#llx unaligned (L1 index: %#llx)",
			(unsigned long long)*table, (unsigned long long)i);
	return 0;
}

static uint32_t entry_words(const struct qcow2 *q)
{
	return q->ext ? 2 : 1;
}

static uint64_t entry_off(const struct qcow2 *q, uint64_t table, uint64_t off)
{
	return table + 8ULL * entry_words(q) * l2_index(q, off);
}

static struct l2_entry entry_at(const struct qcow2 *q, const be64_t *e)
{
	return (struct l2_entry){be64_get(e[0]), q->ext ? be64_get(e[1]) : 0};
}

/* Has the cluster a place?  In a data file offset 0 is one. */
static bool has_host(const struct qcow2 *q, uint64_t desc)
{
	return desc & (QCOW2_OFFSET_MASK | (q->external ? QCOW2_OFLAG_COPIED : 0));
}

/* What the bits of a subcluster say; with both set they contradict each other. */
static enum map_kind subcluster_kind(uint64_t bitmap, unsigned sub, bool host)
{
	if (bitmap >> (32 + sub) & 1)
		return host ? MAP_ZERO_HOST : MAP_ZERO;
	if (!host)
		return MAP_HOLE;
	return bitmap >> sub & 1 ? MAP_DATA : MAP_HOLE_HOST;
}

/*
 * One entry, decoded for one of its subclusters (0 if entries are not extended). host_off is the
 * cluster's start.  false: it names no whole cluster, or says of the subcluster what cannot be.
 */
static bool decode(struct qcow2 *q, struct l2_entry e, unsigned sub, struct mapping *m)
{
	bool host;

	m->host_off = e.desc & QCOW2_OFFSET_MASK;
	m->writable = e.desc & QCOW2_OFLAG_COPIED;
	m->packed_len = 0;
	if (e.desc & QCOW2_OFLAG_COMPRESSED) {
		m->kind = MAP_COMPRESSED;
		m->writable = false;
		qcow2_compressed_range(e.desc, q->h.cluster_bits, &m->host_off, &m->packed_len);
		return true;
	}
	if (m->host_off % q->h.cluster_size)
		return false;
	host = has_host(q, e.desc);
	if (q->ext) {
		m->kind = subcluster_kind(e.bitmap, sub, host);
		if (e.bitmap >> sub & (e.bitmap >> (32 + sub) | !host) & 1)
			return false;
	} else if (q->h.version >= 3 && (e.desc & QCOW2_OFLAG_ZERO)) {
		m->kind = host ? MAP_ZERO_HOST : MAP_ZERO;
	} else {
		m->kind = host ? MAP_DATA : MAP_HOLE;
	}
	return true;
}

/* In a data file each guest cluster has its own place, as it is. */
static const char *external_wrong(uint64_t off, const struct mapping *m)
{
	if (m->kind == MAP_COMPRESSED)
		return "compressed cluster, but an external data file";
	if (map_has_host(m) && m->host_off != off)
		return "another place in the external data file than its own";
	return NULL;
}

static bool continues(const struct mapping *a, const struct mapping *b, uint64_t bytes)
{
	if (a->kind != b->kind || a->writable != b->writable || a->kind == MAP_COMPRESSED)
		return false;
	return !map_has_host(a) || b->host_off == a->host_off + bytes;
}

static uint64_t table_of(const struct qcow2 *q, uint64_t entry)
{
	return entry & ~(uint64_t)(q->h.cluster_size - 1);
}

static unsigned index_of(const struct qcow2 *q, uint64_t entry)
{
	return (unsigned)((entry - table_of(q, entry)) / (q->h.cluster_size / q->l2_entries));
}

/* Entry v, at host offset entry, names no whole cluster. */
static int unaligned(struct qcow2 *q, uint64_t v, uint64_t entry)
{
	return qcow2_corrupt(q, true, "%s offset %#llx unaligned (L2 offset: %#llx, L2 index: %#x)",
		v & QCOW2_OFLAG_ZERO ? "Preallocated zero cluster" : "Cluster allocation",
		(unsigned long long)(v & QCOW2_OFFSET_MASK), (unsigned long long)table_of(q, entry),
		index_of(q, entry));
}

static bool is_unaligned(const struct qcow2 *q, uint64_t v)
{
	return !(v & QCOW2_OFLAG_COMPRESSED) && (v & QCOW2_OFFSET_MASK) % q->h.cluster_size;
}

/* The run that starts at off, as far as this slice tells. */
static int map_slice(struct qcow2 *q, const struct slice *s, uint64_t entry, uint64_t off,
	uint64_t len, struct mapping *m)
{
	const be64_t *e = (const be64_t *)(const void *)s->data;
	uint32_t first = (uint32_t)(entry - s->host_off) / 8, n = q->l2.slice_bytes / 8;
	uint32_t in_cluster = off & (q->h.cluster_size - 1), unit = 1u << q->unit_bits;
	uint64_t got = (in_cluster & ~(uint64_t)(unit - 1)) + unit;
	const char *wrong;

	if (is_unaligned(q, be64_get(e[first])))
		return unaligned(q, be64_get(e[first]), entry);
	if (!decode(q, entry_at(q, &e[first]), in_cluster >> q->unit_bits, m))
		return qcow2_corrupt(q, true,
			"Invalid cluster entry found (L2 offset: %#llx, L2 index: %#x)",
			(unsigned long long)table_of(q, entry), index_of(q, entry));
	wrong = q->external ? external_wrong(off - in_cluster, m) : NULL;
	if (wrong)
		return qcow2_broken(q, wrong, m->host_off);
	if (m->kind == MAP_COMPRESSED)
		got = q->h.cluster_size;
	while (got - in_cluster < len) {
		uint64_t cluster = got >> q->h.cluster_bits, start = cluster << q->h.cluster_bits;
		uint64_t i = first + cluster * entry_words(q);
		struct mapping next;

		/* A broken entry is reported when it is its turn, not as somebody's neighbour. */
		if (i >= n ||
			!decode(q, entry_at(q, &e[i]), (unsigned)((got - start) >> q->unit_bits),
				&next) ||
			!continues(m, &next, start))
			break;
		got += unit;
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

static bool peek(struct qcow2 *q, uint64_t off, uint64_t len, struct mapping *m)
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

bool qcow2_map_cached(struct qcow2 *q, uint64_t off, uint64_t len, struct mapping *m)
{
	bool known;

	q->peeking = true;
	known = peek(q, off, len, m);
	q->peeking = false;
	return known;
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

/* One cluster with extended entries, as a whole. */
static void whole(struct qcow2 *q, struct l2_entry e, struct mapping *m)
{
	bool host = has_host(q, e.desc);

	*m = (struct mapping){.host_off = e.desc & QCOW2_OFFSET_MASK,
		.writable = host && (e.desc & QCOW2_OFLAG_COPIED),
		.len = q->h.cluster_size};
	if (e.bitmap & QCOW2_SUB_ALLOC)
		m->kind = MAP_DATA;
	else if ((e.bitmap & QCOW2_SUB_ZERO) == QCOW2_SUB_ZERO)
		m->kind = host ? MAP_ZERO_HOST : MAP_ZERO;
	else
		m->kind = host ? MAP_HOLE_HOST : MAP_HOLE;
}

int qcow2_map_whole(struct qcow2 *q, uint64_t off, uint64_t len, struct mapping *m)
{
	uint64_t table;
	struct l2_entry e;
	bool copied;
	int err = qcow2_map(q, off, len, m);

	assert(off % q->h.cluster_size == 0);
	if (err || !q->ext || m->kind == MAP_COMPRESSED)
		return err;
	err = l2_table(q, off, &table, &copied);
	if (err || !table)
		return err;
	err = qcow2_l2_get(q, off, &e);
	if (err)
		return err;
	whole(q, e, m);
	m->writable &= copied;
	m->len = min_u64(m->len, len);
	return 0;
}

int qcow2_l2_get(struct qcow2 *q, uint64_t off, struct l2_entry *e)
{
	uint64_t table, at;
	struct slice *s;
	bool copied;
	int err = l2_table(q, off, &table, &copied);

	if (err)
		return err;
	assert(table);
	at = entry_off(q, table, off);
	err = cache_get(&q->l2, at, &s);
	if (err)
		return err;
	*e = entry_at(q, (const be64_t *)(const void *)(s->data + (at - s->host_off)));
	cache_put(&q->l2, &s);
	return 0;
}

/* Where a table comes from that is ours alone, and what becomes of the one it replaces. */
struct new_table {
	struct run r;
	uint64_t old; /* host offset of the shared one, or 0 */
};

/*
 * A table in never-used clusters is all zeros already, so only the L1 entry is written.  In
 * a used cluster the zeros must be there first (R2), and so must a copy of a shared table.  An
 * error injected at the write of a table that needs none hits what is written next.
 */
static int l2_fill(struct qcow2 *q, struct new_table *t)
{
	uint64_t host_off = t->r.first << q->h.cluster_bits;
	struct iov_cursor nothing = {NULL, 0, 0};
	struct beside content = {q->h.cluster_size, NULL};
	uint8_t *buf = NULL;
	int err = 0;

	if (!t->old)
		file_event(q->fmt.file, EV_L2_ALLOC_WRITE);
	if (!t->old && t->r.fresh)
		return 0;
	if (t->old) {
		file_event(q->fmt.file, EV_L2_ALLOC_COW_READ);
		content.buf = buf = qcow2_cow_get(q);
		err = file_pread(q->fmt.file, buf, q->h.cluster_size, t->old);
		file_event(q->fmt.file, EV_L2_ALLOC_WRITE);
	}
	if (!err)
		err = qcow2_overlap_check(q, 0, host_off, q->h.cluster_size);
	if (!err)
		err = iov_transfer(
			q->fmt.file, FILE_WRITE, &nothing, host_off, content, 0, NOTHING_BESIDE);
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
	if (!t->r.first)
		return qcow2_corrupt(
			q, true, "Preventing invalid allocation of L2 table at offset 0");
	/* With lazy counts too a table's count goes to the file, for programs that do not mind the
	 * dirty mark; nothing waits for it. */
	if (q->lazy)
		err = qcow2_write_refs(q);
	if (!err)
		err = l2_fill(q, t);
	if (err) {
		t->r.fresh = false;
		qcow2_alloc_add(q, &t->r);
		return err;
	}
	qcow2_overlap_add(q, OVERLAP_ACTIVE_L2, t->r.first);
	if (!t->old)
		cache_put_zeros(&q->l2, entry_off(q, t->r.first << q->h.cluster_bits, off));
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
		err = qcow2_clusters_free(
			q, t.old >> q->h.cluster_bits, 1, OVERLAP_ACTIVE_L2);
	return err;
}

/* The entry of off, to be changed: from then on until cache_put(). */
static int get_rw(struct qcow2 *q, uint64_t off, struct slice **s, uint32_t *word)
{
	uint64_t table, at;
	bool copied;
	int err = l2_table(q, off, &table, &copied);

	if (err)
		return err;
	assert(table && copied);
	at = entry_off(q, table, off);
	err = cache_get_rw(&q->l2, at, s);
	if (!err)
		*word = (uint32_t)(at - (*s)->host_off) / 8;
	return err;
}

/* What an entry says in all its subclusters, where it has a bitmap for that. */
static uint64_t bitmap_of(const struct qcow2 *q, uint64_t entry)
{
	if (entry & QCOW2_OFLAG_COMPRESSED)
		return 0;
	if (entry & QCOW2_OFLAG_ZERO)
		return QCOW2_SUB_ZERO;
	return has_host(q, entry) ? QCOW2_SUB_ALLOC : 0;
}

static void put_entry(const struct qcow2 *q, be64_t *e, uint64_t entry)
{
	if (q->ext) {
		e[1] = be64_make(bitmap_of(q, entry));
		if (!(entry & QCOW2_OFLAG_COMPRESSED))
			entry &= ~QCOW2_OFLAG_ZERO;
	}
	e[0] = be64_make(entry);
}

int qcow2_l2_set(struct qcow2 *q, uint64_t off, uint64_t n, uint64_t entry, uint64_t need)
{
	uint32_t words = entry_words(q), per_slice = q->l2.slice_bytes / 8 / words;
	uint64_t step = has_host(q, entry) ? q->h.cluster_size : 0;

	while (n) {
		uint32_t word, k;
		struct slice *s;
		be64_t *e;
		int err = get_rw(q, off, &s, &word);

		if (err)
			return err;
		e = (be64_t *)(void *)s->data + word;
		k = (uint32_t)min_u64(n, per_slice - word / words);
		for (uint32_t j = 0; j < k; j++)
			put_entry(q, &e[j * words], entry + j * step);
		cache_dirty(&q->l2, s, word * 8, k * words * 8, need);
		cache_put(&q->l2, &s);
		n -= k;
		off += (uint64_t)k << q->h.cluster_bits;
		entry += k * step;
	}
	return 0;
}

/* Bits for [off, off+len), which lies in one cluster. */
static uint64_t subclusters(const struct qcow2 *q, uint64_t off, uint64_t len)
{
	uint32_t first = (uint32_t)(off & (q->h.cluster_size - 1)) >> q->unit_bits;
	uint32_t n = (uint32_t)(len >> q->unit_bits);

	return ((1ULL << n) - 1) << first;
}

int qcow2_l2_set_part(
	struct qcow2 *q, uint64_t off, uint64_t len, uint64_t entry, bool data, uint64_t need)
{
	assert(q->ext && !((off | len) & ((1u << q->unit_bits) - 1)));
	while (len) {
		uint64_t size = q->h.cluster_size, k = min_u64(len, size - (off & (size - 1)));
		uint64_t bits = subclusters(q, off, k), bitmap;
		uint32_t word;
		struct slice *s;
		be64_t *e;
		int err = get_rw(q, off, &s, &word);

		if (err)
			return err;
		e = (be64_t *)(void *)s->data + word;
		bitmap = be64_get(e[1]) & ~(bits | bits << 32);
		e[1] = be64_make(bitmap | (data ? bits : bits << 32));
		if (entry != QCOW2_ENTRY_KEEP) {
			e[0] = be64_make(entry);
			entry += size;
		}
		cache_dirty(&q->l2, s, word * 8, 16, need);
		cache_put(&q->l2, &s);
		off += k;
		len -= k;
	}
	return 0;
}
