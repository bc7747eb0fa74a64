/* SPDX-License-Identifier: MIT */
/*
 * bitmap_bits.c - the bits of one bitmap in memory, and where they lie in the image.
 *
 * They are kept in parts, each as long as a cluster and as it lies on disk.  A part of nothing but
 * zeros takes no memory; neither does one of ones, which is also what a part becomes when there is
 * no memory to set single bits in it: too much is noted then, never too little.
 */
#include <stdlib.h>
#include <string.h>
#include "blockdev/qcow2/bitmap.h"

static uint8_t all_ones; /* its address stands for a part of ones */
#define ONES (&all_ones)

static uint64_t part_bits(const struct qcow2_header *h)
{
	return h->cluster_size * 8ULL;
}

uint64_t bitmap_parts(const struct qcow2_header *h, uint32_t grain_bits, uint64_t size)
{
	return div_round_up(div_round_up(size, 1ULL << grain_bits), part_bits(h));
}

/* Bits of a disk of the size that the image has now. */
static uint64_t n_bits(const struct qcow2 *q, const struct bitmap *m)
{
	return div_round_up(q->h.size, 1ULL << m->grain_bits);
}

static void part_free(uint8_t *part)
{
	if (part != ONES)
		free(part);
}

void bitmap_clear(struct bitmap *m)
{
	for (uint32_t i = 0; i < m->n_parts; i++) {
		m->changed[i] |= m->part[i] != NULL;
		part_free(m->part[i]);
		m->part[i] = NULL;
	}
}

int bitmap_load_zeros(struct qcow2 *q, struct bitmap *m)
{
	uint64_t n = bitmap_parts(&q->h, m->grain_bits, q->h.size);

	m->part = calloc(n + 1, sizeof(*m->part));
	m->changed = calloc(n + 1, 1);
	if (!m->part || !m->changed) {
		free(m->part);
		free(m->changed);
		m->part = NULL;
		m->changed = NULL;
		return -ENOMEM;
	}
	m->n_parts = (uint32_t)n;
	return 0;
}

/* ---- reading ---- */

int bitmap_read_table(struct qcow2 *q, struct bitmap *m)
{
	uint64_t bytes = m->table_size * 8ULL;
	be64_t *disk = file_buf(round_up(bytes, SECTOR));
	int err = disk ? file_pread(q->fmt.file, disk, bytes, m->table_offset) : -ENOMEM;
	uint64_t *table = err ? NULL : calloc(m->table_size, sizeof(*table));

	if (!err && !table)
		err = -ENOMEM;
	for (uint32_t i = 0; i < m->table_size && !err; i++) {
		uint64_t off;

		table[i] = be64_get(disk[i]);
		off = table[i] & QCOW2_OFFSET_MASK;
		if ((table[i] & BITMAP_ENTRY_RESERVED) || off % q->h.cluster_size ||
			(off && (table[i] & BITMAP_ENTRY_ONES)))
			err = -EINVAL;
	}
	free(disk);
	if (err)
		free(table);
	else
		m->table = table;
	return err;
}

static int read_part(struct qcow2 *q, struct bitmap *m, uint32_t i)
{
	uint64_t off = m->table[i] & QCOW2_OFFSET_MASK;
	uint8_t *part;
	int err;

	if (!off) {
		m->part[i] = m->table[i] & BITMAP_ENTRY_ONES ? ONES : NULL;
		return 0;
	}
	part = file_buf(q->h.cluster_size);
	if (!part)
		return -ENOMEM;
	err = file_pread(q->fmt.file, part, q->h.cluster_size, off);
	if (err)
		free(part);
	else
		m->part[i] = part;
	return err;
}

int bitmap_load(struct qcow2 *q, struct bitmap *m, struct why *why)
{
	int err;

	if (m->part)
		return 0;
	err = m->table ? 0 : bitmap_read_table(q, m);
	if (err)
		return why_set(why, err,
			"Could not read bitmap_table table from image for bitmap '%s': %s", m->name,
			strerror(-err));
	if (bitmap_parts(&q->h, m->grain_bits, q->h.size) != m->table_size)
		err = -EINVAL;
	if (!err)
		err = bitmap_load_zeros(q, m);
	for (uint32_t i = 0; i < m->n_parts && !err; i++)
		err = read_part(q, m, i);
	if (err)
		return why_set(why, err, "Could not read bitmap '%s' from image: %s", m->name,
			strerror(-err));
	return 0;
}

/* ---- setting ---- */

/* Bits [from, to) of a part; were they all set already? */
static bool fill_bits(uint8_t *p, uint64_t from, uint64_t to)
{
	bool were = true;

	while (from < to) {
		uint8_t mask = (uint8_t)(0xff << (from & 7));
		uint64_t next = (from | 7) + 1;

		if (next > to)
			mask &= (uint8_t)(0xff >> (next - to));
		were &= (p[from / 8] & mask) == mask;
		p[from / 8] |= mask;
		from = next;
	}
	return were;
}

static void set_in_part(struct qcow2 *q, struct bitmap *m, uint32_t i, uint64_t from, uint64_t to)
{
	if (m->part[i] == ONES)
		return;
	if (!m->part[i] && !(m->part[i] = calloc(1, q->h.cluster_size)))
		m->part[i] = ONES;
	if (m->part[i] == ONES || !fill_bits(m->part[i], from, to))
		m->changed[i] = 1;
}

void bitmap_set(struct qcow2 *q, struct bitmap *m, uint64_t off, uint64_t len)
{
	uint64_t per = part_bits(&q->h), bit = off >> m->grain_bits;
	uint64_t end = ((off + len - 1) >> m->grain_bits) + 1;

	while (bit < end) {
		uint64_t i = bit / per, stop = min_u64(end, (i + 1) * per);

		set_in_part(q, m, (uint32_t)i, bit - i * per, stop - i * per);
		bit = stop;
	}
}

/* ---- looking ---- */

/* The first bit in [bit, end) that is (set), or end. */
static uint64_t find(
	const struct qcow2 *q, const struct bitmap *m, uint64_t bit, uint64_t end, bool set)
{
	uint64_t per = part_bits(&q->h);

	while (bit < end) {
		const uint8_t *p = m->part[bit / per];
		uint64_t in = bit % per;

		if (!p || p == ONES) {
			if (set == (p == ONES))
				return bit;
			bit += per - in;
		} else if (!(in & 7) && p[in / 8] == (set ? 0 : 0xff)) {
			bit += 8;
		} else if ((p[in / 8] >> (in & 7) & 1) == set) {
			return bit;
		} else {
			bit++;
		}
	}
	return end;
}

bool bitmap_next(const struct qcow2 *q, const struct bitmap *m, uint64_t *off, uint64_t *len)
{
	uint64_t end = n_bits(q, m), first = find(q, m, *off >> m->grain_bits, end, true);
	uint64_t last = find(q, m, first, end, false);

	if (first >= end)
		return false;
	*off = first << m->grain_bits;
	*len = min_u64(last << m->grain_bits, q->h.size) - *off;
	return true;
}

const uint8_t *bitmap_part(const struct qcow2 *q, const struct bitmap *m, uint32_t i, uint8_t *buf)
{
	uint64_t per = part_bits(&q->h), bits = min_u64(n_bits(q, m) - i * per, per);

	if (m->part[i] != ONES)
		return m->part[i];
	/* qcow2 spec: what is behind the last bit is zeros. */
	memset(buf, 0, q->h.cluster_size);
	fill_bits(buf, 0, bits);
	return buf;
}

/* ---- another size ---- */

/* What lies behind bit end goes. */
static void cut(const struct qcow2 *q, struct bitmap *m, uint64_t end)
{
	uint64_t per = part_bits(&q->h);
	uint8_t *p = end % per ? m->part[end / per] : NULL;

	if (!p || p == ONES) /* of ones only those are written that there are */
		return;
	if (end & 7)
		p[end % per / 8] &= (uint8_t)(0xff >> (8 - (end & 7)));
	end = round_up(end, 8);
	if (end % per)
		memset(p + end % per / 8, 0, (per - end % per) / 8);
	m->changed[(end - 1) / per] = 1;
}

int bitmap_room(struct qcow2 *q, struct bitmap *m, uint64_t size)
{
	uint64_t n = bitmap_parts(&q->h, m->grain_bits, size);
	uint8_t **part, *changed;

	if (n <= m->n_parts)
		return 0;
	part = calloc(n, sizeof(*part));
	changed = calloc(n, 1);
	if (!part || !changed) {
		free(part);
		free(changed);
		return -ENOMEM;
	}
	memcpy(part, m->part, m->n_parts * sizeof(*part));
	memcpy(changed, m->changed, m->n_parts);
	free(m->part);
	free(m->changed);
	m->part = part;
	m->changed = changed;
	m->n_parts = (uint32_t)n;
	return 0;
}

void bitmap_fit(struct qcow2 *q, struct bitmap *m)
{
	uint32_t n = (uint32_t)bitmap_parts(&q->h, m->grain_bits, q->h.size);

	for (; m->n_parts > n; m->n_parts--)
		part_free(m->part[m->n_parts - 1]);
	cut(q, m, n_bits(q, m));
}
