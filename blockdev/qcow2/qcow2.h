/* SPDX-License-Identifier: MIT */
/*
 * qcow2.h - an open qcow2 image.
 *
 * Reading order: map.c (guest offset -> host offset), write.c (one guest write), alloc.c (where
 * clusters come from), commit.c (what is written when: the ordering rules), open.c.
 *
 * The ordering rules, and who keeps them:
 *
 *   R1 count before use       alloc.c raises counts ahead, a whole run at a time; every table
 *                             entry that names a cluster of the run carries the run's number
 *   R2 content before use     a never-used cluster past the old end of the file reads as
 *                             zeros, which is the old content: no number.  A used one is written
 *                             whole, and the entry carries the number of that write, which
 *                             is higher than that of its count
 *   R3 unreference first      free.c: counted down after the flush that took the name away
 *   R6 quarantine             free.c: and after all requests in flight then have ended
 *   R4 dirty mark first       qcow2_mark_dirty(), before the first run is made
 *   R5 extend, then map       the run's number covers the extension of the file
 *   R9 a failed flush is final  sync.c
 *
 * Everything here runs on the image's loop, mostly in fibers; no locks but fiber_lock.
 */
#ifndef QCOW2_QCOW2_H
#define QCOW2_QCOW2_H

#include "blockdev/format.h"
#include "blockdev/qcow2/cache.h"
#include "blockdev/qcow2/format.h"
#include "blockdev/qcow2/overlap.h"

/* A big-endian table kept whole in memory (L1, refcount table), written by dirty sector. */
struct mem_table {
	be64_t *e;
	uint32_t n;        /* entries */
	uint64_t host_off; /* in the image */
	uint64_t *need;    /* per sector: durable before it is written */
	uint8_t *dirty;    /* per sector */
	uint32_t n_dirty;  /* sectors */
};

/* Clusters whose counts are one already and that no table names yet. */
struct run {
	uint64_t first, n; /* clusters */
	bool fresh;        /* never written since the file got that long: reads as zeros */
	uint64_t need;     /* fresh: durable before a table names one of them */
};
#define RUNS_MAX 64

/* The dirty bitmaps that the image keeps (bitmap.h). */
struct bitmap;
struct bitmaps {
	struct bitmap **v;
	uint32_t n;
	bool in_use;  /* and the image says so: they are to be written back */
	bool renewed; /* the directory needs another place: not only its flags changed */
	struct run *lost; /* clusters without a name in memory: free when that is durable */
	uint32_t n_lost;
};

/* Guest clusters that a write is allocating right now. */
struct pending {
	uint64_t first, n; /* guest clusters */
	struct list link;
};

struct qcow2 {
	struct format fmt;
	struct qcow2_header h;
	uint32_t l2_entries, l2_bits, refs_per_block;
	bool ext;           /* L2 entries are extended: with a bitmap of subclusters */
	uint32_t unit_bits; /* what maps alike: a subcluster then, else a cluster */
	struct mem_table l1, reftable;
	struct cache l2, refs;
	struct loop_timer clean; /* of both caches */
	uint64_t clean_ns;       /* how often; 0: never */

	struct run runs[RUNS_MAX];
	uint32_t n_runs;
	uint64_t reserved; /* clusters in runs */
	uint64_t taken;    /* clusters, out of runs, since the image was opened */
	bool count_ahead;  /* some had been taken when a flush ended */
	uint64_t end;      /* first cluster past everything used or counted */
	uint64_t hole;     /* the search for free clusters below end goes on here */
	bool lazy;         /* counts are written at close only, under the dirty bit */
	bool reserving;    /* the fiber that reserves ahead is at work */
	struct fiber_start reserve_start;
	struct fiber_queue reserve_q; /* for those who wait for it to end */
	struct fiber_lock table_lock; /* new L2 tables, refcount structures, runs being made */

	struct freed *freed; /* free.c: clusters in quarantine */
	uint32_t n_freed, freed_room;
	uint64_t ticket;

	uint8_t *cow_mem;  /* cow.c: buffers of two clusters */
	unsigned cow_free; /* which of them nobody holds */
	struct fiber_queue cow_q;

	struct compress *compress; /* compress.c */

	struct snapshot *snapshots; /* snapshot_table.c */
	uint32_t n_snapshots;
	uint64_t snapshots_bytes; /* of the table on disk */

	struct bitmaps bitmaps;

	struct list pending;
	struct fiber_queue pending_q; /* some write has finished allocating */

	struct fiber_lock commit_lock;
	struct stage *stage; /* commit.c */
	char *path;          /* for messages */
	bool broken_told;    /* a broken table was reported once */
	bool external, raw_data; /* the data lies in a file of its own (data_file.c); good as raw */
	bool corrupt;        /* and a write would have made it worse: nothing is done any more */
	bool peeking;	     /* in qcow2_map_cached(): nobody may suspend */
	struct overlap overlap;
	bool trim;           /* much was freed: the file is to end at the last cluster in use */
};

static inline struct qcow2 *qcow2_of(struct format *fmt)
{
	return container_of(fmt, struct qcow2, fmt);
}

/* ---- map.c ---- */

enum map_kind {
	MAP_HOLE,       /* nothing there: reads as what is below, or zeros */
	MAP_HOLE_HOST,  /* the same with a host cluster reserved for it: extended entries only */
	MAP_ZERO,       /* no host cluster, reads as zeros whatever is below */
	MAP_ZERO_HOST,  /* the same with a host cluster reserved for it */
	MAP_DATA,       /* host cluster, written in place */
	MAP_COMPRESSED, /* one cluster, packed; never written in place */
};

struct mapping {
	enum map_kind kind;
	/* DATA and *_HOST: bytes, of the first byte asked for; COMPRESSED: of the packed data */
	uint64_t host_off;
	uint64_t packed_len; /* COMPRESSED: bytes in the file */
	uint64_t len;        /* bytes for which all this holds, host offsets running on */
	bool writable;       /* DATA and *_HOST: the copied flag is set */
};

static inline bool map_reads_below(const struct mapping *m)
{
	return m->kind == MAP_HOLE || m->kind == MAP_HOLE_HOST;
}

static inline bool map_has_data(const struct mapping *m)
{
	return m->kind == MAP_DATA || m->kind == MAP_COMPRESSED;
}

static inline bool map_has_host(const struct mapping *m)
{
	return m->kind == MAP_DATA || m->kind == MAP_ZERO_HOST || m->kind == MAP_HOLE_HOST;
}

/* What lies at [off, off+len); from cache only.  false: a table must be read first. */
bool qcow2_map_cached(struct qcow2 *q, uint64_t off, uint64_t len, struct mapping *m);
/* The same in a fiber.  0, or -errno (-EIO: a broken table, reported once). */
must_check int qcow2_map(struct qcow2 *q, uint64_t off, uint64_t len, struct mapping *m);
/*
 * In a fiber, off at the start of a cluster: the same by whole clusters.  DATA then: some of it;
 * ZERO, ZERO_HOST: all of it; HOLE, HOLE_HOST: no data in it.
 */
must_check int qcow2_map_whole(struct qcow2 *q, uint64_t off, uint64_t len, struct mapping *m);
/* In a fiber: the entry of the cluster with off in it; the table exists. */
struct l2_entry {
	uint64_t desc, bitmap; /* bitmap: 0 if entries are not extended */
};
must_check int qcow2_l2_get(struct qcow2 *q, uint64_t off, struct l2_entry *e);
/* In a fiber: the L2 table for off exists in L1 afterwards. */
must_check int qcow2_l2_ensure(struct qcow2 *q, uint64_t off);
/*
 * In a fiber: the entries of n guest clusters from guest offset off become entry, a host offset
 * in it running on; they reach the file once number need is durable.  The table exists and
 * is ours alone (qcow2_l2_ensure()).  This and the next are the only places that change one.
 * In an extended entry all subclusters become what entry says.
 */
must_check int qcow2_l2_set(
	struct qcow2 *q, uint64_t off, uint64_t n, uint64_t entry, uint64_t need);

/*
 * The same for the subclusters in [off, off+len), whole ones: they become data, or zeros.  entry
 * is that of the first cluster, a host offset in it running on; QCOW2_ENTRY_KEEP: as it is.
 */
#define QCOW2_ENTRY_KEEP UINT64_MAX
must_check int qcow2_l2_set_part(
	struct qcow2 *q, uint64_t off, uint64_t len, uint64_t entry, bool data, uint64_t need);

/* ---- write.c: who may change which entries ---- */

/*
 * In a fiber: waits until nobody else is allocating in the clusters of [off, off+len), of which
 * *m describes the first piece, and keeps others out of that piece until qcow2_unclaim().
 * The table is there and ours.  With in_place, data that may be written in place is not claimed
 * (p->n == 0).
 */
must_check int qcow2_claim(struct qcow2 *q, uint64_t off, uint64_t len, bool in_place,
	struct pending *p, struct mapping *m);
/* The same by whole clusters, see qcow2_map_whole(). */
must_check int qcow2_claim_whole(
	struct qcow2 *q, uint64_t off, uint64_t len, struct pending *p, struct mapping *m);
void qcow2_unclaim(struct qcow2 *q, struct pending *p);

/* ---- cow.c ---- */

#define COW_BUFS 8
must_check int qcow2_cow_init(struct qcow2 *q);
void qcow2_cow_fini(struct qcow2 *q);
/* In a fiber: two clusters of memory, waited for. */
uint8_t *qcow2_cow_get(struct qcow2 *q);
void qcow2_cow_put(struct qcow2 *q, uint8_t *buf);
/* In a fiber: what the guest reads at [off, off+len); zeros past the end of the disk. */
must_check int qcow2_read_old(struct qcow2 *q, uint8_t *buf, uint64_t off, uint64_t len);
/* In a fiber: does no layer hold data there?  By the tables, not by looking at the data. */
must_check int qcow2_reads_zero(struct qcow2 *q, uint64_t off, uint64_t len, bool *zero);

/* ---- free.c ---- */

must_check int qcow2_free_init(struct qcow2 *q);
void qcow2_free_fini(struct qcow2 *q);
/*
 * In a fiber, without table_lock: n host clusters lost a name in some table, in memory so far.
 * own: OVERLAP_ACTIVE_L2 for an L2 table, else 0.  -errno: they leak.
 */
must_check int qcow2_clusters_free(struct qcow2 *q, uint64_t first, uint64_t n, unsigned own);
/* A flush begins; its ticket. */
uint64_t qcow2_freed_stage(struct qcow2 *q);
/* In a fiber: the flush with this ticket has made all durable. */
must_check int qcow2_freed_release(struct qcow2 *q, uint64_t ticket);
/*
 * In a fiber, with table_lock: n clusters count as free, and nothing on disk names them (R3).  The
 * allocator finds them; with unmap the host gets their space back.
 */
must_check int qcow2_clusters_unused(struct qcow2 *q, uint64_t first, uint64_t n);

/* ---- data_file.c ---- */

/*
 * In a fiber: up to n adjacent clusters of data for guest offset off, at least one.  0 with *out,
 * or -errno.
 */
must_check int qcow2_data_alloc(struct qcow2 *q, uint64_t off, uint64_t n, struct run *out);
/* qcow2_overlap_check() for data: a file of its own holds no metadata. */
must_check int qcow2_data_check(struct qcow2 *q, uint64_t host_off, uint64_t len);
/* No table names them after all. */
void qcow2_data_unalloc(struct qcow2 *q, const struct run *r);
/* As qcow2_clusters_free(), for n clusters of data that lost their entries. */
must_check int qcow2_data_free(struct qcow2 *q, uint64_t first, uint64_t n);
/*
 * In a fiber, before [off, off+len), claimed, becomes zeros by its entries: the data file, where it
 * is to show that, or give its space back.
 */
must_check int qcow2_data_clear(struct qcow2 *q, uint64_t off, uint64_t len, bool unmap);
/* In a fiber: all data written to an external data file is durable.  -errno is for good. */
must_check int qcow2_data_sync(struct qcow2 *q);
/* The number that entries wait for behind a write of their data (R2). */
uint64_t qcow2_data_need(const struct qcow2 *q);
/* In a fiber: the data file ends with the disk; durable. */
must_check int qcow2_data_resize(struct qcow2 *q, uint64_t size);
/* Tells of a write of data. */
void qcow2_data_event(struct qcow2 *q);

/* ---- compress.c ---- */

must_check int qcow2_compress_init(struct qcow2 *q);
void qcow2_compress_fini(struct qcow2 *q);
/* Host clusters that nothing names any more: what was kept of them, and room in them, is gone. */
void qcow2_compress_forget(struct qcow2 *q, uint64_t host_off, uint64_t len);
struct iov_cursor;
/* In a fiber: m->len bytes at guest offset off, which *m maps as compressed. */
must_check int qcow2_read_compressed(
	struct qcow2 *q, struct iov_cursor *dst, uint64_t off, const struct mapping *m);
/* As qcow2_clusters_free(), for a compressed cluster that lost its entry. */
must_check int qcow2_free_compressed(struct qcow2 *q, const struct mapping *m);

/* Packed clusters start in a host cluster of their own again. */
void qcow2_compress_restart(struct qcow2 *q);

/* ---- snapshot_table.c, snapshot.c ---- */

/* In a fiber: what the header names, checked. */
must_check int qcow2_snapshots_read(struct qcow2 *q, struct why *why);
void qcow2_snapshots_fini(struct qcow2 *q);
bool qcow2_snapshot_get(struct format *fmt, uint32_t i, struct disk_snapshot *out);
int qcow2_snapshot(struct format *fmt, enum snapshot_op op, const char *name, struct why *why);
int qcow2_snapshot_load(struct format *fmt, const char *id, const char *name, struct why *why);

/* ---- bitmap.c, bitmap_save.c ---- */

/* In a fiber, at open: reads the directory; for writing, the bits, and marks all in use (B1). */
must_check int qcow2_bitmaps_open(struct qcow2 *q, struct why *why);
/* In a fiber, at close, all else written: what changed is written back.  -errno with words. */
must_check int qcow2_bitmaps_save(struct qcow2 *q, struct why *why);
/* In a fiber, once no header names the directory any more, durably: they go. */
must_check int qcow2_bitmaps_drop(struct qcow2 *q, uint64_t dir_offset, uint64_t dir_bytes);
void qcow2_bitmaps_fini(struct bitmaps *b);
/*
 * In a fiber, before the disk gets this size: room for the bits.  -errno with words: one of the
 * bitmaps cannot follow.
 */
must_check int qcow2_bitmaps_room(struct qcow2 *q, uint64_t size, struct why *why);
/* It has another size, or kept its own after all: they end with it. */
void qcow2_bitmaps_fit(struct qcow2 *q);
bool qcow2_bitmap_get(struct format *fmt, uint32_t i, struct disk_bitmap *out);
int qcow2_bitmap_change(struct format *fmt, enum bitmap_op op, const char *name,
	uint64_t granularity, struct why *why);
int qcow2_bitmap_merge(struct format *fmt, const char *name, struct format *from_fmt,
	const char *from_name, struct why *why);
void qcow2_note(struct format *fmt, uint64_t off, uint64_t len);

/* ---- alloc.c ---- */

/* In a fiber: up to want adjacent clusters, at least one.  0 with *out, or -errno. */
must_check int qcow2_alloc(struct qcow2 *q, uint64_t want, struct run *out);
/* The same for a caller that holds table_lock. */
must_check int qcow2_alloc_locked(struct qcow2 *q, uint64_t want, struct run *out);
/*
 * In a fiber, with table_lock: from now on the counts on disk may be too low.  A lazy image says
 * so first: the mark's number is lower than that of any run made after it (R4).
 */
must_check int qcow2_mark_dirty(struct qcow2 *q);
/* Counted clusters for qcow2_alloc() to hand out; with no room to remember them they leak. */
void qcow2_alloc_add(struct qcow2 *q, const struct run *r);
/* Until nothing is being counted ahead: suspends in a fiber, elsewhere turns the loop. */
must_check int qcow2_alloc_settle(struct qcow2 *q);
/*
 * In a fiber, settled, at clean close: counts of unused clusters go back to zero, the file ends
 * where they began.
 */
must_check int qcow2_alloc_close(struct qcow2 *q);

/* In a fiber, with table_lock: n clusters, adjacent, for a table. */
must_check int qcow2_alloc_table(struct qcow2 *q, uint64_t n, struct run *r);

/* ---- refcount.c; the caller holds table_lock ---- */

/* In a fiber: sets counts of [first, first+n) in the cache; -EIO if one has no block. */
must_check int qcow2_refs_set(struct qcow2 *q, uint64_t first, uint64_t n, uint64_t value);

/*
 * In a fiber: counts [first, first+*k) down by one, where k <= n is as far as all of them become
 * unused, or all stay used.
 */
must_check int qcow2_refs_drop(
	struct qcow2 *q, uint64_t first, uint64_t n, uint64_t *k, bool *unused);

/* Counts that change together in memory: of clusters [k * n, (k + 1) * n). */
uint32_t qcow2_refs_per_slice(const struct qcow2 *q);
/* In a fiber: the cluster's count, 0 if it has no block. */
must_check int qcow2_refs_get(struct qcow2 *q, uint64_t cluster, uint64_t *count);
/* In a fiber: is the cluster counted exactly once, and for how many clusters does that go on? */
must_check int qcow2_refs_one(struct qcow2 *q, uint64_t first, bool *one, uint64_t *run);
/*
 * In a fiber: delta (1 or -1) is added to the counts of [first, first+n); -ERANGE if one cannot be,
 * and none is changed then in the slice where it is.
 */
must_check int qcow2_refs_add(struct qcow2 *q, uint64_t first, uint64_t n, int delta);

enum ref_state { REF_FREE, REF_USED, REF_NO_BLOCK };
/* In a fiber: the state of cluster first, and for how many clusters it goes on (at most one slice).
 */
must_check int qcow2_refs_state(struct qcow2 *q, uint64_t first, enum ref_state *st, uint64_t *run);
/*
 * In a fiber, after qcow2_mark_dirty(): grows the file at q->end by about n clusters, or if the
 * host has no room for so many by want, counts them all, and adds them as runs, or with whole
 * as one; makes refcount blocks and a larger refcount table as needed.
 */
#define REFBLOCKS_GROW_MAX 16		  /* made in one step */
#define REFS_GROW_RUNS (REFBLOCKS_GROW_MAX + 2) /* at most added */
must_check int qcow2_refs_grow(struct qcow2 *q, uint64_t want, uint64_t n, bool whole);
/* Counts are about to go up: what the peer calls loading their block, and allocating one. */
void qcow2_refs_event(struct qcow2 *q);
/*
 * In a fiber, when something was written from q->end on and will not be named after all: those are
 * no never-used clusters, which read as zeros.  It goes, or else q->end moves behind it.
 */
void qcow2_end_spoiled(struct qcow2 *q);
/*
 * In a fiber, at close: the last cluster before q->end, if it is a block that counts nothing but
 * itself, is the end now, and no table names it; that is to be durable before the file ends there.
 */
must_check int qcow2_refs_drop_last(struct qcow2 *q, bool *dropped);
/* In a fiber, at close: blocks that count nothing are given back. */
must_check int qcow2_refs_trim(struct qcow2 *q);
/* In a fiber: dirty sectors of the refcount table; the blocks that they name are durable. */
must_check int qcow2_reftable_write(struct qcow2 *q);

/* ---- refcount_width.c ---- */

/*
 * In a fiber, nothing else in flight, without table_lock: counts of a->refcount_bits, another width
 * than the image has; durable.
 */
must_check int qcow2_set_refcount_width(
	struct qcow2 *q, const struct disk_amend *a, struct why *why);

/* ---- commit.c ---- */

must_check int qcow2_commit_init(struct qcow2 *q);
void qcow2_commit_fini(struct qcow2 *q);
/* In a fiber: dirty L2 slices and L1 sectors as they are now reach the file, in order. */
must_check int qcow2_write_tables(struct qcow2 *q);
/* In a fiber: dirty refcount slices reach the file. */
must_check int qcow2_write_refs(struct qcow2 *q);
/* The cache's hooks. */
int qcow2_writeback_l2(void *q);
int qcow2_writeback_refs(void *q);
/*
 * In a fiber: one metadata write, counted and noted; own: which it means to write (OVERLAP_*), 0
 * for new clusters.
 */
must_check int qcow2_meta_write(
	struct qcow2 *q, unsigned own, const void *buf, uint64_t len, uint64_t off);
/* In a fiber: the header's fixed fields, with a number. */
must_check int qcow2_header_put(struct qcow2 *q);
/* The same, durable when it returns 0. */
must_check int qcow2_header_commit(struct qcow2 *q);

/* ---- header_rewrite.c ---- */

/*
 * In a fiber, with table_lock: the whole header becomes h, extensions and names included; durable
 * when it returns 0.  -errno with words; -ENOSPC: it does not fit, and nothing was done.
 */
must_check int qcow2_header_replace(struct qcow2 *q, const struct qcow2_header *h, struct why *why);

/* ---- drop.c ---- */

/*
 * In a fiber, nothing else in flight: the guest clusters that lie wholly in [from, to rounded up)
 * become holes.  Not durable yet.
 */
must_check int qcow2_drop(struct qcow2 *q, uint64_t from, uint64_t to);
/* The same for whole clusters; L2 tables stay where they are. */
must_check int qcow2_drop_entries(struct qcow2 *q, uint64_t from, uint64_t to);
/* In a fiber: durable, and the clusters are free. */
must_check int qcow2_drop_finish(struct qcow2 *q);

/* ---- vmstate.c ---- */

uint64_t qcow2_vmstate_offset(const struct format *fmt);
int qcow2_vmstate(
	struct format *fmt, struct iovec *iov, int niov, uint64_t off, uint64_t len, bool write);

/* ---- table.c ---- */

must_check int mem_table_init(struct mem_table *t, uint32_t n, uint64_t host_off);
void mem_table_fini(struct mem_table *t);
void mem_table_set(struct mem_table *t, uint32_t i, uint64_t v, uint64_t need);

/* ---- open.c ---- */

/* Says once what is wrong with the image; returns -EIO. */
int qcow2_broken(struct qcow2 *q, const char *what, uint64_t at);

/* ---- sizes.c ---- */

/* Bytes for the two caches.  0, or -EINVAL with words for options that contradict. */
must_check int qcow2_cache_sizes(const struct qcow2_header *h, const struct disk_opts *o,
	uint64_t *l2, uint64_t *refs, struct why *why);

/* ---- read.c, write.c, zero.c, resize.c, open.c: the format's operations ---- */

int qcow2_read(struct format *fmt, struct iovec *iov, int niov, uint64_t off, uint64_t len);
must_check int qcow2_write_zeros(struct qcow2 *q, uint64_t off, uint64_t len); /* as data */
int qcow2_grow(struct format *fmt, uint64_t size);
/* In a fiber: the L1 table has entries for all up to guest offset end.  0 or -errno. */
must_check int qcow2_l1_reach(struct qcow2 *q, uint64_t end);
int qcow2_resize(struct format *fmt, uint64_t size, enum prealloc how, struct why *why);
int qcow2_amend(struct format *fmt, const struct disk_amend *a, struct why *why);
int qcow2_make_empty(struct format *fmt);
int qcow2_set_backing(struct format *fmt, const char *name, const char *format, struct why *why);
int qcow2_write(struct format *fmt, struct iovec *iov, int niov, uint64_t off, uint64_t len);
int qcow2_write_compressed(
	struct format *fmt, struct iovec *iov, int niov, uint64_t off, uint64_t len);
int qcow2_zeroes(struct format *fmt, uint64_t off, uint64_t len, unsigned flags);
int qcow2_discard(struct format *fmt, uint64_t off, uint64_t len);
int qcow2_flush(struct format *fmt);

#endif
