/* SPDX-License-Identifier: MIT */
/*
 * drop.c - guest clusters taken out of the tables: a smaller disk, an emptied layer.
 *
 * Their entries become holes, L2 tables that map nothing else lose their L1 entries, and all
 * that they named goes into quarantine (free.c): counts go down once no durable table
 * names them (R3).  When the image is closed, the file ends where its last cluster in use does.
 * A cut on the way leaves some of it dropped, or leaks.
 */
#include "blockdev/qcow2/qcow2.h"

static uint64_t table_covers(const struct qcow2 *q)
{
	return (uint64_t)q->h.cluster_size << q->l2_bits;
}

/* Whole clusters that map alike; *done bytes of them are dealt with. */
static int drop_piece(struct qcow2 *q, uint64_t off, uint64_t len, uint64_t *done)
{
	struct pending p;
	struct mapping m;
	int err = qcow2_claim_whole(q, off, len, &p, &m);

	if (err)
		return err;
	*done = m.len;
	err = qcow2_l2_set(q, off, p.n, 0, 0);
	if (!err && map_has_host(&m))
		err = qcow2_data_free(q, m.host_off >> q->h.cluster_bits, p.n);
	if (!err && m.kind == MAP_COMPRESSED)
		err = qcow2_free_compressed(q, &m);
	qcow2_unclaim(q, &p);
	return err;
}

int qcow2_drop_entries(struct qcow2 *q, uint64_t off, uint64_t end)
{
	while (off < end) {
		struct mapping m;
		int err = qcow2_map_whole(q, off, end - off, &m);

		/* claiming would make a table where there is none */
		if (!err && m.kind != MAP_HOLE)
			err = drop_piece(q, off, m.len, &m.len);
		if (err)
			return err;
		off += m.len;
	}
	return 0;
}

/* Table i maps nothing any more. */
static int drop_table(struct qcow2 *q, uint32_t i)
{
	uint64_t host = be64_get(q->l1.e[i]) & QCOW2_OFFSET_MASK;

	if (!host)
		return 0;
	fiber_lock(&q->table_lock);
	mem_table_set(&q->l1, i, 0, 0);
	fiber_unlock(&q->table_lock);
	return qcow2_clusters_free(q, host >> q->h.cluster_bits, 1, OVERLAP_ACTIVE_L2);
}

int qcow2_drop(struct qcow2 *q, uint64_t from, uint64_t to)
{
	uint64_t covers = table_covers(q), size = q->h.cluster_size;
	uint64_t last = round_up(q->fmt.size, size); /* behind it a table maps nothing */
	int err = 0;

	from = round_up(from, size);
	to = round_up(to, size);
	while (from < to && !err) {
		uint64_t i = from / covers, stop = min_u64(to, (i + 1) * covers);

		if (i >= q->l1.n)
			break;
		if (be64_get(q->l1.e[i]) & QCOW2_OFFSET_MASK)
			err = qcow2_drop_entries(q, from, stop);
		if (!err && from % covers == 0 && (stop % covers == 0 || stop >= last))
			err = drop_table(q, (uint32_t)i);
		from = stop;
	}
	q->trim = true;
	return err;
}

/* A flush makes it durable; what it lets go is counted down, and that is durable with the next. */
int qcow2_drop_finish(struct qcow2 *q)
{
	int err = qcow2_flush(&q->fmt);

	return err ? err : qcow2_flush(&q->fmt);
}

int qcow2_make_empty(struct format *fmt)
{
	struct qcow2 *q = qcow2_of(fmt);
	int err = q->raw_data ? -ENOTSUP : qcow2_drop(q, 0, fmt->size);

	return err ? err : qcow2_drop_finish(q);
}
