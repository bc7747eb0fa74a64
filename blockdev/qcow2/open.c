/* SPDX-License-Identifier: MIT */
/*
 * open.c - opening and closing a qcow2 image; the format's operations (at the end).
 *
 * An image that is marked dirty is repaired before it is opened for writing.  A clean
 * close writes the tables, gives back what was counted ahead, and clears the mark last (R4).
 * After a failed flush nothing is written any more, and the image stays as a power cut
 * would leave it.
 */
#include <stdlib.h>
#include <string.h>
#include "blockdev/qcow2/qcow2.h"

int qcow2_broken(struct qcow2 *q, const char *what, uint64_t at)
{
	if (!q->broken_told)
		log_error("%s: broken image: %s %#llx; 'sluice img check' tells more", q->path,
			what, (unsigned long long)at);
	q->broken_told = true;
	return -EIO;
}

static int qcow2_probe(const uint8_t *head, size_t len)
{
	static const uint8_t magic[4] = {'Q', 'F', 'I', 0xfb};

	return len >= sizeof(magic) && !memcmp(head, magic, sizeof(magic)) ? 100 : 0;
}

static int table_read(struct qcow2 *q, struct mem_table *t, uint32_t n, uint64_t off)
{
	int err = mem_table_init(t, n, off);

	if (err || !n)
		return err;
	return file_pread(q->fmt.file, t->e, n * 8ULL, off);
}

static void say_finding(void *arg, const char *line)
{
	(void)arg;
	log_bare("%s", line);
}

/* Before anything relies on the counts. */
static int repair_if_dirty(struct file *f, const struct disk_opts *o, const char *path,
	struct qcow2_header *h, struct why *why)
{
	struct qcow2_check res = {.report = o->say_repairs ? say_finding : NULL};
	int err;

	if (!(h->incompatible & QCOW2_INCOMPAT_DIRTY))
		return 0;
	err = qcow2_check(f, QCOW2_FIX_LEAKS | QCOW2_FIX_ERRORS, &res, why);
	if (!err)
		err = qcow2_header_read(f, h, why);
	if (!err && (h->incompatible & QCOW2_INCOMPAT_DIRTY))
		err = -EIO;
	if (err)
		return why_set(
			why, err, "the image was not closed cleanly, and repairing it failed");
	log_info("%s: was not closed cleanly; repaired", path);
	return 0;
}

/*
 * Whatever we do not keep up to date must not be believed after we wrote.  Bitmaps are kept, and a
 * data file that is good as a raw image stays one.
 */
static int clear_autoclear(struct qcow2 *q)
{
	uint64_t keep = q->external ? QCOW2_AUTOCLEAR_DATA_RAW : 0;

	if (q->h.nb_bitmaps)
		keep |= QCOW2_AUTOCLEAR_BITMAPS;
	if (!(q->h.autoclear & ~keep))
		return 0;
	q->h.autoclear &= keep;
	return qcow2_header_commit(q);
}

/* Their extension goes; where the header cannot be made anew it stays, and nobody minds it. */
static int forget_stale_bitmaps(struct qcow2 *q)
{
	int err;

	fiber_lock(&q->table_lock);
	err = qcow2_header_replace(q, &q->h, NULL);
	fiber_unlock(&q->table_lock);
	return err == -ENOSPC ? 0 : err;
}

static int load(struct qcow2 *q, const struct disk_opts *o, struct why *why)
{
	uint32_t slice = (uint32_t)min_u64(q->h.cluster_size, SLICE_BYTES_MAX);
	uint64_t l2, refs;
	int err = qcow2_cache_sizes(&q->h, o, &l2, &refs, why);

	if (!err)
		err = cache_init(&q->l2, q->fmt.file, slice, l2, qcow2_writeback_l2, q);
	if (!err)
		err = cache_init(&q->refs, q->fmt.file, slice, refs, qcow2_writeback_refs, q);
	q->l2.loading = EV_L2_LOAD;
	if (!err)
		err = qcow2_commit_init(q);
	if (!err)
		err = qcow2_cow_init(q);
	if (!err)
		err = qcow2_free_init(q);
	if (!err)
		err = qcow2_compress_init(q);
	if (!err)
		err = table_read(q, &q->l1, q->h.l1_size, q->h.l1_offset);
	if (!err)
		err = table_read(q, &q->reftable,
			(uint32_t)((uint64_t)q->h.reftable_clusters * q->h.cluster_size / 8),
			q->h.reftable_offset);
	return err;
}

#define CLEAN_S 600

static void clean_caches(struct loop_timer *t)
{
	struct qcow2 *q = container_of(t, struct qcow2, clean);

	cache_clean(&q->l2);
	cache_clean(&q->refs);
	loop_timer_set(q->fmt.file->loop, t, loop_now_ns() + q->clean_ns);
}

static void start_cleaning(struct qcow2 *q, const struct disk_opts *o)
{
	uint64_t s = o->cache_clean_s ? o->cache_clean_s : CLEAN_S;

	if (s == CACHE_CLEAN_NEVER)
		return;
	q->clean.fn = clean_caches;
	q->clean_ns = min_u64(s, UINT32_MAX) * 1000000000U;
	loop_timer_set(q->fmt.file->loop, &q->clean, loop_now_ns() + q->clean_ns);
}

static void unload(struct qcow2 *q)
{
	if (q->clean_ns)
		loop_timer_cancel(q->fmt.file->loop, &q->clean);
	qcow2_overlap_fini(q);
	cache_fini(&q->l2);
	cache_fini(&q->refs);
	qcow2_commit_fini(q);
	qcow2_cow_fini(q);
	qcow2_free_fini(q);
	qcow2_compress_fini(q);
	qcow2_snapshots_fini(q);
	qcow2_bitmaps_fini(&q->bitmaps);
	mem_table_fini(&q->l1);
	mem_table_fini(&q->reftable);
	free(q->path);
	free(q);
}

static void qcow2_init(struct qcow2 *q, struct file *f, const struct disk_opts *o)
{
	q->fmt.ops = &qcow2_format;
	q->fmt.file = f;
	q->fmt.size = q->h.size;
	q->fmt.cluster_size = q->h.cluster_size;
	q->fmt.readonly = o->readonly;
	q->fmt.backing_name = q->h.backing_file;
	q->fmt.backing_format = q->h.backing_format;
	q->external = q->h.incompatible & QCOW2_INCOMPAT_DATA_FILE;
	q->raw_data = q->external && (q->h.autoclear & QCOW2_AUTOCLEAR_DATA_RAW);
	q->fmt.data_name = q->external ? q->h.data_file : NULL;
	sync_init(&q->fmt.sync, f);
	q->l2_entries = qcow2_l2_entries(&q->h);
	q->l2_bits = (uint32_t)__builtin_ctz(q->l2_entries);
	q->fmt.keeps_bitmaps = q->h.version >= 3;
	q->ext = q->h.incompatible & QCOW2_INCOMPAT_EXTL2;
	q->unit_bits = q->h.cluster_bits - (q->ext ? QCOW2_SUBCLUSTERS_BITS : 0);
	q->refs_per_block = qcow2_refblock_entries(&q->h);
	q->lazy = o->lazy_refcounts ? o->lazy_refcounts > 0
				    : (q->h.compatible & QCOW2_COMPAT_LAZY_REFCOUNTS) != 0;
	q->end = div_round_up(file_size(f), q->h.cluster_size);
	qcow2_overlap_init(q, o->overlap);
	fiber_lock_init(&q->table_lock);
	fiber_lock_init(&q->commit_lock);
	fiber_queue_init(&q->pending_q);
	fiber_queue_init(&q->reserve_q);
	list_init(&q->pending);
}

static int qcow2_open(
	struct file *f, const struct disk_opts *o, struct format **out, struct why *why)
{
	struct qcow2 *q = calloc(1, sizeof(*q));
	int err = -ENOMEM;

	if (!q)
		return err;
	q->path = strdup(o->path ? o->path : "(file)");
	if (q->path)
		err = qcow2_header_read(f, &q->h, why);
	if (!err)
		err = qcow2_header_supported(&q->h, !o->readonly, why);
	if (!err && !o->readonly)
		err = repair_if_dirty(f, o, q->path, &q->h, why);
	if (!err && q->h.l1_size < qcow2_l1_needed(&q->h, q->h.size))
		err = why_set(why, -EINVAL, "the L1 table is too small for the image's size");
	if (err)
		goto out;
	qcow2_header_warn(&q->h);
	qcow2_init(q, f, o);
	err = load(q, o, why);
	if (!err)
		err = qcow2_snapshots_read(q, why);
	if (!err && !o->readonly)
		err = clear_autoclear(q);
	if (!err)
		err = qcow2_bitmaps_open(q, why);
	if (!err && !o->readonly && q->h.bitmaps_stale)
		err = forget_stale_bitmaps(q);
	if (err)
		goto out;
	start_cleaning(q, o);
	*out = &q->fmt;
	return 0;
out:
	unload(q);
	return err;
}

int qcow2_flush(struct format *fmt)
{
	struct qcow2 *q = qcow2_of(fmt);
	uint64_t ticket = qcow2_freed_stage(q);
	int err;

	file_event(fmt->file, EV_FLUSH_TO_OS);
	err = qcow2_write_tables(q);
	if (!err)
		file_event(fmt->file, EV_FLUSH_TO_DISK);
	if (!err)
		err = qcow2_data_sync(q);
	if (!err)
		err = sync_to(&fmt->sync, fmt->sync.writes);
	if (err)
		return err;
	q->count_ahead = q->taken > 0;
	return qcow2_freed_release(q, ticket);
}

static int qcow2_close(struct format *fmt, struct why *why)
{
	struct qcow2 *q = qcow2_of(fmt);
	int err, lost = 0;

	if (fmt->readonly)
		return 0;
	err = qcow2_alloc_settle(q);
	if (!err)
		err = fmt->sync.err ? fmt->sync.err : qcow2_flush(fmt);
	if (!err)
		lost = qcow2_bitmaps_save(q, why);
	if (!err)
		err = fmt->sync.err ? fmt->sync.err : qcow2_alloc_settle(q);
	if (!err)
		err = qcow2_alloc_close(q);
	if (!err)
		err = sync_to(&fmt->sync, fmt->sync.writes);
	if (!err && (q->h.incompatible & QCOW2_INCOMPAT_DIRTY)) {
		q->h.incompatible &= ~QCOW2_INCOMPAT_DIRTY;
		err = qcow2_header_commit(q);
	}
	return err ? err : lost;
}

static void qcow2_free(struct format *fmt)
{
	struct file *f = fmt->file;

	/* No request needs it, so nobody has waited for it yet. */
	if (qcow2_alloc_settle(qcow2_of(fmt)))
		return; /* a loop that does not turn: its fiber still holds all this */
	if (fmt->data_file)
		file_close(fmt->data_file);
	unload(qcow2_of(fmt));
	file_close(f);
}

static bool qcow2_try_submit(struct format *fmt, struct blk_req *r)
{
	struct qcow2 *q = qcow2_of(fmt);
	struct mapping m;

	if (format_injects(fmt)) /* events need a fiber */
		return false;
	if (!qcow2_map_cached(q, r->off, r->len, &m) || m.len < r->len)
		return false;
	if (m.kind == MAP_COMPRESSED || q->corrupt)
		return false;
	if (r->op == BLK_WRITE && !q->external && !qcow2_overlap_none(q, 0, m.host_off, m.len))
		return false; /* to be looked at, in a fiber */
	if (m.kind == MAP_DATA && (r->op == BLK_READ || m.writable))
		format_submit(fmt, r, m.host_off);
	else if (r->op == BLK_READ && m.kind != MAP_DATA &&
		!(map_reads_below(&m) && fmt->backing))
		format_zeros(fmt, r);
	else
		return false;
	return true;
}

static int qcow2_extent(struct format *fmt, uint64_t off, uint64_t len, struct extent *e)
{
	struct mapping m;
	int err = qcow2_map(qcow2_of(fmt), off, len, &m);

	if (err)
		return err;
	switch (m.kind) {
	case MAP_HOLE:
	case MAP_HOLE_HOST:
		e->kind = EXTENT_HOLE;
		break;
	case MAP_ZERO:
	case MAP_ZERO_HOST:
		e->kind = EXTENT_ZERO;
		break;
	case MAP_DATA:
	case MAP_COMPRESSED:
		e->kind = EXTENT_DATA;
		break;
	}
	e->compressed = m.kind == MAP_COMPRESSED;
	e->len = m.len;
	e->has_host_off = m.kind == MAP_DATA || m.kind == MAP_ZERO_HOST;
	e->host_off = m.host_off;
	return 0;
}

const struct format_ops qcow2_format = {
	.name = "qcow2",
	.probe = qcow2_probe,
	.open = qcow2_open,
	.close = qcow2_close,
	.free = qcow2_free,
	.try_submit = qcow2_try_submit,
	.read = qcow2_read,
	.write = qcow2_write,
	.zeroes = qcow2_zeroes,
	.discard = qcow2_discard,
	.write_compressed = qcow2_write_compressed,
	.extent = qcow2_extent,
	.flush = qcow2_flush,
	.snapshot_get = qcow2_snapshot_get,
	.snapshot = qcow2_snapshot,
	.snapshot_load = qcow2_snapshot_load,
	.grow = qcow2_grow,
	.resize = qcow2_resize,
	.amend = qcow2_amend,
	.make_empty = qcow2_make_empty,
	.set_backing = qcow2_set_backing,
	.note = qcow2_note,
	.bitmap_get = qcow2_bitmap_get,
	.bitmap_change = qcow2_bitmap_change,
	.bitmap_merge = qcow2_bitmap_merge,
	.vmstate_offset = qcow2_vmstate_offset,
	.vmstate = qcow2_vmstate,
};
