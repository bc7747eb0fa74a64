/* SPDX-License-Identifier: MIT */
/*
 * zero.c - writing zeros and discarding: whole clusters by their entries, the rest as data.
 *
 *   what is there          zeroes            zeroes, unmap    discard
 *   hole                   zero              zero             zero over a backing file, else as is
 *   zero                   as is             as is            as is
 *   zero + host cluster    as is             zero, freed      zero, freed
 *   data, hole + cluster   zero + cluster    zero, freed      zero, freed
 *   compressed             zero, freed       zero, freed      zero, freed
 *
 * With extended entries whole subclusters within a cluster become zeros too; the cluster stays.
 *
 * Version 2 has no zero flag: without a backing file a freed cluster becomes a hole, over one
 * zeros are written and discards do nothing, since a hole would show what lies below.
 * Clusters are freed as free.c says; no entry here refers to new content, so none waits for any.
 *
 * Source: qcow2 specification, "Standard Cluster Descriptor".
 */
#include "blockdev/qcow2/iov.h"
#include "blockdev/qcow2/qcow2.h"

#define ZEROS_BYTES (64 * KiB)

/* What becomes of one mapping; false: it stays as it is. */
struct change {
	uint64_t entry;
	bool frees;
};

static bool plan(const struct qcow2 *q, const struct mapping *m, bool unmap, struct change *c)
{
	bool v3 = q->h.version >= 3;

	*c = (struct change){.entry = v3 ? QCOW2_OFLAG_ZERO : 0};
	switch (m->kind) {
	case MAP_HOLE:
		return v3;
	case MAP_ZERO:
		return false;
	case MAP_ZERO_HOST:
		c->frees = unmap;
		return unmap;
	case MAP_HOLE_HOST:
	case MAP_DATA:
		c->frees = unmap;
		if (!unmap)
			c->entry |= (m->host_off & ~(uint64_t)(q->h.cluster_size - 1)) |
				    (m->writable ? QCOW2_OFLAG_COPIED : 0);
		return true;
	case MAP_COMPRESSED:
		c->frees = true;
		return true;
	}
	return false;
}

/* The claimed clusters, n of them from off, that *m describes. */
static int change_claimed(
	struct qcow2 *q, uint64_t off, uint64_t n, const struct mapping *m, bool unmap)
{
	struct change c;
	bool changes = plan(q, m, unmap, &c);
	int err = qcow2_data_clear(q, off, m->len, changes && c.frees);

	if (err || !changes)
		return err;
	err = qcow2_l2_set(q, off, n, c.entry, 0);
	if (!err && c.frees && m->kind == MAP_COMPRESSED)
		return qcow2_free_compressed(q, m);
	if (!err && c.frees)
		err = qcow2_data_free(q, m->host_off >> q->h.cluster_bits, n);
	return err;
}

/* Subclusters that map alike, less than a cluster. */
static int change_part(struct qcow2 *q, uint64_t off, uint64_t len, uint64_t *done)
{
	struct pending p;
	struct mapping m;
	int err = qcow2_claim(q, off, len, false, &p, &m);

	if (err)
		return err;
	*done = m.len;
	err = qcow2_data_clear(q, off, m.len, false);
	if (!err && (m.kind == MAP_DATA || map_reads_below(&m)))
		err = qcow2_l2_set_part(
			q, off, round_up(m.len, 1ULL << q->unit_bits), QCOW2_ENTRY_KEEP, false, 0);
	qcow2_unclaim(q, &p);
	/* Packed, it is read as a whole or not at all. */
	return !err && m.kind == MAP_COMPRESSED ? qcow2_write_zeros(q, off, m.len) : err;
}

/* Whole units that map alike; *done bytes of them are dealt with. */
static int change_piece(struct qcow2 *q, uint64_t off, uint64_t len, bool unmap, uint64_t *done)
{
	uint64_t size = q->h.cluster_size, left = size - (off & (size - 1));
	struct pending p;
	struct mapping m;
	int err;

	if (q->ext && (left < size || len < size))
		return change_part(q, off, min_u64(len, left), done);
	err = qcow2_claim_whole(q, off, len, &p, &m);
	if (err)
		return err;
	*done = m.len;
	err = change_claimed(q, off, p.n, &m, unmap);
	qcow2_unclaim(q, &p);
	return err;
}

static int change_all(struct qcow2 *q, uint64_t off, uint64_t end, bool unmap)
{
	while (off < end) {
		uint64_t done;
		int err = change_piece(q, off, end - off, unmap, &done);

		if (err)
			return err;
		off += done;
	}
	return 0;
}

int qcow2_write_zeros(struct qcow2 *q, uint64_t off, uint64_t len)
{
	static uint8_t zeros[ZEROS_BYTES] __attribute__((aligned(4096))); /* only ever read */
	int err = 0;

	while (len && !err) {
		struct iovec iov = {zeros, min_u64(len, ZEROS_BYTES)};
		uint64_t n = iov.iov_len;

		err = qcow2_write(&q->fmt, &iov, 1, off, n);
		off += n;
		len -= n;
	}
	return err;
}

/* Less than a unit: by its entry if all the rest of the unit reads as zeros; else as data. */
static int zero_part(struct qcow2 *q, uint64_t off, uint64_t len, bool unmap)
{
	uint64_t unit = 1ULL << q->unit_bits, start = off & ~(unit - 1);
	uint64_t end = min_u64(start + unit, q->fmt.size);
	bool zero;
	int err = qcow2_reads_zero(q, start, off - start, &zero);

	if (!err && zero)
		err = qcow2_reads_zero(q, off + len, end - off - len, &zero);
	if (err)
		return err;
	if (zero && q->h.version >= 3) {
		struct pending p;
		struct mapping m;

		err = qcow2_claim(q, start, end - start, false, &p, &m);
		if (err)
			return err;
		/* Somebody may have written beside us while we waited. */
		zero = !map_has_data(&m);
		if (zero && !q->ext)
			err = change_claimed(q, start, p.n, &m, unmap);
		else if (zero)
			err = qcow2_data_clear(q, start, end - start, false);
		if (zero && q->ext && !err)
			err = qcow2_l2_set_part(q, start, unit, QCOW2_ENTRY_KEEP, false, 0);
		qcow2_unclaim(q, &p);
		if (err || zero)
			return err;
	}
	return qcow2_write_zeros(q, off, len);
}

/* Is there a packed cluster of which [off, end) is only a part? */
static int cuts_packed(struct qcow2 *q, uint64_t off, uint64_t end, bool *cuts)
{
	uint64_t in = q->h.cluster_size - 1;
	struct mapping m = {.kind = MAP_HOLE};
	int err = 0;

	*cuts = false;
	if (!q->ext)
		return 0;
	if (off & in)
		err = qcow2_map(q, off, 1, &m);
	*cuts = m.kind == MAP_COMPRESSED;
	if (!err && !*cuts && (end & in)) {
		err = qcow2_map(q, end - 1, 1, &m);
		*cuts = m.kind == MAP_COMPRESSED;
	}
	return err;
}

/* Whole units.  What would leave a packed cluster half zero is written as data, as the peer does.
 */
static int zero_units(struct qcow2 *q, uint64_t off, uint64_t end, bool unmap)
{
	bool cuts;
	int err = cuts_packed(q, off, end, &cuts);

	if (err)
		return err;
	return cuts ? qcow2_write_zeros(q, off, end - off) : change_all(q, off, end, unmap);
}

int qcow2_zeroes(struct format *fmt, uint64_t off, uint64_t len, unsigned flags)
{
	struct qcow2 *q = qcow2_of(fmt);
	uint64_t size = 1ULL << q->unit_bits, end = off + len;
	bool unmap = flags & BLK_UNMAP;
	int err = 0;

	if (q->h.version < 3 && (fmt->backing || !unmap))
		return qcow2_write_zeros(q, off, len);
	while (off < end && !err) {
		uint64_t stop = min_u64(end, (off / size + 1) * size); /* of this unit */

		if (off % size || (stop % size && stop != fmt->size)) {
			err = zero_part(q, off, stop - off, unmap);
		} else {
			stop = end == fmt->size ? end : end & ~(size - 1);
			err = zero_units(q, off, stop, unmap);
		}
		off = stop;
	}
	return err;
}

int qcow2_discard(struct format *fmt, uint64_t off, uint64_t len)
{
	struct qcow2 *q = qcow2_of(fmt);
	uint64_t size = q->h.cluster_size, end = off + len;
	uint64_t first = round_up(off, size), last = end == fmt->size ? end : end & ~(size - 1);

	if (!fmt->unmap || (q->h.version < 3 && fmt->backing))
		return 0;
	while (first < last) {
		struct mapping m;
		int err = qcow2_map_whole(q, first, last - first, &m);

		if (err)
			return err;
		/* A hole above nothing is as good as it gets: no table is made for it. */
		if (m.kind != MAP_HOLE || fmt->backing)
			err = change_all(q, first, first + m.len, true);
		if (err)
			return err;
		first += m.len;
	}
	return 0;
}
