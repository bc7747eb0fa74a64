/* SPDX-License-Identifier: MIT */
/*
 * amend.c - another version or other features for an image that is there.
 *
 * Version 2 knows no zero clusters: before the header says 2, they become holes, or zeros
 * written as data where a hole would show a backing file, in the snapshots too
 * (snapshot_expand.c).  Nor has it bitmaps that could be relied on: they go.  Version 3 wants more
 * in a snapshot's entry: the table is written anew.  The header is replaced in one step
 * (header_rewrite.c), after all that it relies on is durable.
 */
#include <inttypes.h>
#include <string.h>
#include "blockdev/qcow2/snapshot.h"

/* Zero clusters in [off, off + m->len), which map alike. */
static int expand_piece(struct qcow2 *q, uint64_t off, const struct mapping *m)
{
	uint64_t size = q->fmt.size;

	if (q->fmt.backing && off < size && off < q->fmt.backing->size)
		return qcow2_write_zeros(q, off, min_u64(m->len, size - off));
	return qcow2_drop_entries(q, off, off + m->len);
}

/* How far it is: in entries of L1 tables. */
struct steps {
	const struct disk_amend *a;
	uint64_t done, total;
};

static void step(void *arg)
{
	struct steps *st = arg;

	disk_amend_progress(st->a, ++st->done, st->total);
}

/* What one L2 table maps. */
static int expand_table(struct qcow2 *q, uint64_t off, uint64_t end)
{
	uint64_t disk = round_up(q->fmt.size, q->h.cluster_size);

	while (off < end) {
		uint64_t stop = off < disk ? min_u64(disk, end) : end;
		struct mapping m;
		int err = qcow2_map(q, off, stop - off, &m);

		if (!err && (m.kind == MAP_ZERO || m.kind == MAP_ZERO_HOST))
			err = expand_piece(q, off, &m);
		if (err)
			return err;
		off += m.len;
	}
	return 0;
}

/*
 * Also behind the disk, where a machine's state is kept, or nothing should be.  The active disk
 * first: it takes copies of the tables that it shares.
 */
static int expand_zeros(struct qcow2 *q, struct steps *st, struct why *why)
{
	uint64_t covers = (uint64_t)q->h.cluster_size << q->l2_bits;
	int err = 0;

	st->total = q->l1.n;
	for (uint32_t i = 0; i < q->n_snapshots; i++)
		st->total += q->snapshots[i].l1_size;
	for (uint32_t i = 0; i < q->l1.n && !err; i++) {
		err = expand_table(q, i * covers, (i + 1) * covers);
		step(st);
	}
	q->trim = true;
	if (!err)
		err = qcow2_drop_finish(q);
	if (!err && q->n_snapshots)
		err = snapshot_expand_zeros(q, step, st);
	if (err)
		why_set(why, err, "Failed to turn zero into data clusters: %s", strerror(-err));
	return err;
}

/* Who knows version 2 only may look at no more of a snapshot's entry than its L1 table. */
static bool snapshots_fit_v2(const struct qcow2 *q)
{
	for (uint32_t i = 0; i < q->n_snapshots; i++)
		if (q->snapshots[i].vm_state_bytes || q->snapshots[i].disk_bytes != q->h.size)
			return false;
	return true;
}

static int can_be_v2(const struct qcow2 *q, struct why *why)
{
	if (q->h.refcount_bits != 16)
		return why_set(why, -ENOTSUP, "compat=0.10 requires refcount_bits=16");
	if (q->h.incompatible & QCOW2_INCOMPAT_DATA_FILE)
		return why_set(why, -ENOTSUP,
			"Cannot downgrade an image with a data file");
	if (q->h.incompatible & ~(QCOW2_INCOMPAT_DIRTY | QCOW2_INCOMPAT_DATA_FILE))
		return why_set(why, -ENOTSUP,
			"Cannot downgrade an image with incompatible features 0x%" PRIx64 " set",
			q->h.incompatible);
	if (!snapshots_fit_v2(q))
		return why_set(
			why, -ENOTSUP, "Internal snapshots prevent downgrade of image");
	return 0;
}

static int replace(struct qcow2 *q, const struct qcow2_header *h, struct why *why)
{
	int err;

	fiber_lock(&q->table_lock);
	err = qcow2_header_replace(q, h, why);
	fiber_unlock(&q->table_lock);
	return err;
}

/* Version 3 wants an entry's extra data, which version 2 may lack. */
static bool table_is_brief(const struct qcow2 *q)
{
	for (uint32_t i = 0; i < q->n_snapshots; i++)
		if (q->snapshots[i].extra_bytes < SNAPSHOT_EXTRA)
			return true;
	return false;
}

/* The header becomes *h, of version 3, and names a new snapshot table at once. */
static int replace_both(struct qcow2 *q, struct qcow2_header *h, struct why *why)
{
	struct run old = {.first = q->h.snapshots_offset >> q->h.cluster_bits,
		.n = div_round_up(q->snapshots_bytes, q->h.cluster_size)}, new;
	int err;

	fiber_lock(&q->table_lock);
	err = snapshot_table_write(q, &new);
	if (!err)
		err = sync_to(&q->fmt.sync, q->fmt.sync.writes);
	if (!err) {
		h->snapshots_offset = new.first << q->h.cluster_bits;
		err = qcow2_header_replace(q, h, why);
	}
	if (!err) {
		q->snapshots_bytes = snapshot_table_bytes(q);
		err = tree_drop_clusters(q, old.first, old.n);
	} else if (new.n) {
		new.fresh = false;
		qcow2_alloc_add(q, &new);
	}
	fiber_unlock(&q->table_lock);
	return err;
}

static int downgrade(struct qcow2 *q, const struct disk_amend *a, struct why *why)
{
	struct steps st = {.a = a};
	uint64_t dir_offset = q->h.bitmaps_offset, dir_bytes = q->h.bitmaps_bytes;
	struct qcow2_header h;
	int err = can_be_v2(q, why);

	if (err)
		return err;
	/* Counts first: version 2 has no mark that says they are behind. */
	q->lazy = false;
	err = expand_zeros(q, &st, why);
	if (!err)
		err = qcow2_write_refs(q);
	if (!err)
		err = sync_to(&q->fmt.sync, q->fmt.sync.writes);
	if (err)
		return err;
	h = q->h;
	h.version = 2;
	h.incompatible = h.compatible = h.autoclear = 0;
	h.compression_type = 0;
	h.nb_bitmaps = 0; /* without autoclear bits nobody could believe them */
	h.bitmaps_offset = h.bitmaps_bytes = 0;
	err = replace(q, &h, why);
	return err ? err : qcow2_bitmaps_drop(q, dir_offset, dir_bytes);
}

/* What is asked for, NULL for nothing, is what is there, "" for nothing. */
static bool is_same(const char *asked, const char *there)
{
	return asked ? there[0] && !strcmp(asked, there) : !there[0];
}

static bool backing_stays(const struct format *fmt, const struct disk_amend *a)
{
	return (!a->backing && !a->backing_format) ||
	       (is_same(a->backing, fmt->backing_name) &&
		       is_same(a->backing_format, fmt->backing_format));
}

static int check(const struct qcow2 *q, const struct disk_amend *a, struct why *why)
{
	uint32_t version = a->version ? a->version : q->h.version;

	if (a->refcount_bits && a->refcount_bits != 16 && version < 3)
		return why_set(why, -EINVAL,
			"Refcount widths other than 16 bits require compatibility level 1.1 or "
			"above (use compat=1.1 or greater)");
	if (a->set_lazy && a->lazy && version < 3)
		return why_set(why, -EINVAL,
			"Lazy refcounts only supported with compatibility level 1.1 and above (use "
			"compat=1.1 or greater)");
	if (!backing_stays(&q->fmt, a))
		return why_set(why, -EINVAL,
			"Cannot amend the backing file\nYou can use 'qemu-img rebase' instead.");
	if (a->data_file && !q->external)
		return why_set(why, -EINVAL,
			"data-file can only be set for images that use an external data file");
	if (a->data_file && strlen(a->data_file) >= sizeof(q->h.data_file))
		return why_set(why, -EINVAL, "Name of the external data file too long");
	if (a->set_raw && a->raw && !q->raw_data)
		return why_set(why, -EINVAL, "data-file-raw cannot be set on existing images");
	return 0;
}

/* The header alone: its version is not lowered here. */
static void amend_header(struct qcow2_header *h, const struct disk_amend *a)
{
	if (a->version > h->version)
		h->version = a->version;
	if (a->set_lazy && a->lazy)
		h->compatible |= QCOW2_COMPAT_LAZY_REFCOUNTS;
	else if (a->set_lazy)
		h->compatible &= ~QCOW2_COMPAT_LAZY_REFCOUNTS;
	if (a->set_raw && !a->raw)
		h->autoclear &= ~QCOW2_AUTOCLEAR_DATA_RAW;
	if (a->data_file) {
		memset(h->data_file, 0, sizeof(h->data_file));
		memcpy(h->data_file, a->data_file, strlen(a->data_file));
	}
}

int qcow2_amend(struct format *fmt, const struct disk_amend *a, struct why *why)
{
	struct qcow2 *q = qcow2_of(fmt);
	struct qcow2_header h = q->h;
	int err = check(q, a, why);

	if (err)
		return err;
	amend_header(&h, a);
	if (h.version > q->h.version && table_is_brief(q))
		err = replace_both(q, &h, why);
	else if (memcmp(&h, &q->h, sizeof(h)) != 0)
		err = replace(q, &h, why);
	q->raw_data = q->external && (q->h.autoclear & QCOW2_AUTOCLEAR_DATA_RAW);
	if (!err && a->refcount_bits && a->refcount_bits != q->h.refcount_bits)
		err = qcow2_set_refcount_width(q, a, why);
	/* A session that began with one way of counting ends with it: lazy is for the next. */
	if (!err && a->size)
		err = qcow2_resize(fmt, a->size, PREALLOC_OFF, why);
	if (!err && a->version && a->version < q->h.version)
		err = downgrade(q, a, why);
	return err;
}
