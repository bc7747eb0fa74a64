/* SPDX-License-Identifier: MIT */
/*
 * block.h - all that a device, a tool or a test may know about a disk.
 *
 * A disk is a guest-visible array of bytes with a write cache.  It belongs to one
 * loop, and everything here is called on that loop's thread except where it says
 * otherwise.  This layer owns the write-cache contract: WCE, FUA and FLUSH are decided
 * here, and formats below never ask which mode they are in.
 *
 *   IDLE --disk_submit()--> QUEUED/RUNNING --done(r, err)--> IDLE
 *
 * A request's memory is the caller's always, and must not be touched between submit
 * and done().  done() runs on the loop, never inside disk_submit().
 */
#ifndef BLOCKDEV_BLOCK_H
#define BLOCKDEV_BLOCK_H

#include <sys/uio.h>
#include "vmm/util/base.h"
#include "vmm/util/fiber.h"
#include "vmm/util/list.h"
#include "vmm/util/log.h"
#include "vmm/util/loop.h"

struct disk;
struct disk_stats;
struct file;

/* cache= on the command line; design: table of modes. */
enum cache_mode { CACHE_WRITEBACK, CACHE_NONE, CACHE_WRITETHROUGH, CACHE_DIRECTSYNC, CACHE_UNSAFE };
/* 0 or -EINVAL. */
must_check int cache_mode_parse(const char *name, enum cache_mode *out);
const char *cache_mode_name(enum cache_mode m);
extern const char *const cache_mode_names[]; /* NULL-terminated, in enum order */

/* Writes of nothing but zeros become zeroes, or zeroes that need no space. */
enum detect_zeroes { DETECT_OFF, DETECT_ON, DETECT_UNMAP };
extern const char *const detect_zeroes_names[]; /* NULL-terminated, in enum order */

#define CACHE_CLEAN_NEVER UINT64_MAX

struct disk_tap;

/* What a qcow2 image holds that no other write may hit; bits for disk_opts.overlap. */
#define OVERLAP_HEADER         (1u << 0)
#define OVERLAP_ACTIVE_L1      (1u << 1)
#define OVERLAP_ACTIVE_L2      (1u << 2)
#define OVERLAP_REFCOUNT_TABLE (1u << 3)
#define OVERLAP_REFCOUNT_BLOCK (1u << 4)
#define OVERLAP_SNAPSHOT_TABLE (1u << 5)
#define OVERLAP_INACTIVE_L1    (1u << 6)
#define OVERLAP_INACTIVE_L2    (1u << 7) /* must be read from the image to be known */
#define OVERLAP_BITMAPS        (1u << 8) /* the bitmap directory */
#define OVERLAP_CONSTANT                                                                           \
	(OVERLAP_HEADER | OVERLAP_ACTIVE_L1 | OVERLAP_REFCOUNT_TABLE | OVERLAP_SNAPSHOT_TABLE |    \
		OVERLAP_BITMAPS)
#define OVERLAP_CACHED                                                                             \
	(OVERLAP_CONSTANT | OVERLAP_ACTIVE_L2 | OVERLAP_REFCOUNT_BLOCK | OVERLAP_INACTIVE_L1)
#define OVERLAP_ALL   (OVERLAP_CACHED | OVERLAP_INACTIVE_L2)
#define OVERLAP_GIVEN (1u << 31) /* else OVERLAP_CACHED */

/* What becomes of a request that fails on the host, besides counting it. */
enum on_error {
	ON_ERROR_REPORT, /* the guest is told */
	ON_ERROR_STOP,   /* it is kept for disk_retry(), if its owner knows of that */
	ON_ERROR_ENOSPC, /* the latter where the host is full, else the former */
	ON_ERROR_IGNORE, /* the guest is told that all is well */
};

struct disk_opts {
	const char *path;
	/* The image's file, open already, which path only names; taken over, also on error. */
	struct file *file;
	const char *format; /* "raw", "qcow2" or NULL: probed, raw with a warning */
	enum cache_mode cache;
	bool readonly;
	bool quiet;              /* no warnings: a guessed format, a request that failed */
	bool say_repairs;        /* each finding that opening an image mends, as check words it */
	bool nolock;             /* read an image that somebody else writes */
	bool nobacking;          /* the top layer alone: unallocated reads as zeros */
	bool nosync;             /* no fdatasync, not even at the end: for an image being made */
	bool unmap;              /* discards free clusters and punch holes in the host's file */
	/* Already open: serves where the chain names its file; stays the caller's.  Or NULL. */
	struct disk *base;
	unsigned base_depth; /* layers from the top to base */
	const char *backing;     /* in place of the backing file that the image names, or NULL */
	const char *backing_format;
	uint64_t l2_cache_bytes; /* 0: automatic */
	uint64_t refcount_cache_bytes;
	/* As users write them, over what stands above: name.h. */
	const char *options; /* key=value,...; path may then be NULL; NULL: none */
	const char *backing_options; /* the same for the backing file */
	const char *data_options;    /* the same for the external data file */
	/* The external data file, open already; taken over, also on error; or NULL. */
	struct file *data_file;
	uint64_t cache_bytes;        /* both caches together; 0: automatic */
	uint64_t l2_entry_bytes;     /* of the L2 cache; 0: automatic */
	int lazy_refcounts;          /* 1: on, -1: off, 0: as the image says */
	enum detect_zeroes detect_zeroes; /* UNMAP: with unmap only */
	/* Tables not used for so many seconds leave memory; 0: as many as usual (600). */
	uint64_t cache_clean_s;
	struct disk_tap *tap; /* stays the caller's, outlives the disk; NULL: none */
	unsigned level; /* 0; of a disk that is another's file: that one's and two */
	bool copy_on_read;
	unsigned overlap; /* OVERLAP_GIVEN and those that are looked at before a write */
	enum on_error on_read_error, on_write_error;
};

/* 0, or -errno with words (path not included).  Turns the loop until the image is open. */
must_check int disk_open(
	struct loop *l, const struct disk_opts *o, struct disk **out, struct why *why);
/* Same on a file that the caller made (tests, filters); takes the file over, also on error. */
must_check int disk_open_file(
	struct file *f, const struct disk_opts *o, struct disk **out, struct why *why);
/*
 * Waits for what is in flight, makes everything durable, marks the image clean, closes.
 * Frees d in any case; -errno if the image could not be left clean (say so to the user).
 */
must_check int disk_close(struct disk *d, struct why *why);
/* The same; out (not NULL) gets the figures including what closing itself cost. */
must_check int disk_close_stats(struct disk *d, struct disk_stats *out, struct why *why);
/* Drops everything without another host write: what a power cut of the process leaves.  For tests.
 */
void disk_abandon(struct disk *d);

/* These three from any thread, also while the disk's layers change. */
uint64_t disk_size(const struct disk *d);         /* bytes */
uint32_t disk_block_size(const struct disk *d);   /* bytes: what the host prefers for alignment */
uint32_t disk_cluster_size(const struct disk *d); /* bytes; 0: the format has none */
const char *disk_format(const struct disk *d);
/* What users call the top layer: the format, or blkdebug, file, ... where that is all. */
const char *disk_driver(const struct disk *d);
const char *disk_path(const struct disk *d);
/* Where the data of the top layer lies: disk_path(), or the external data file's. */
const char *disk_data_path(const struct disk *d);
bool disk_readonly(const struct disk *d);
enum cache_mode disk_cache_mode(const struct disk *d);

/*
 * BLK_ZEROES and BLK_DISCARD have no iov.  After BLK_ZEROES the range reads as zeros.  After
 * BLK_DISCARD it reads as what it held or as zeros, and never as something older.  Both
 * are writes to the write cache.
 */
enum blk_op { BLK_READ, BLK_WRITE, BLK_ZEROES, BLK_DISCARD, BLK_FLUSH };
#define BLK_FUA (1u << 0) /* a write: acknowledged means durable */
#define BLK_UNMAP (1u << 1)      /* BLK_ZEROES: need not keep the space */
#define BLK_COMPRESSED (1u << 2) /* BLK_WRITE: whole new clusters, compressed if that helps */
/* The driver knows no flush: whatever the cache bit, acknowledged means durable. */
#define BLK_WRITETHROUGH BLK_FUA

#define BLK_REQ_ROOM 32

struct blk_req {
	/* the caller's */
	void (*done)(struct blk_req *r, int err); /* 0 or -errno */
	enum blk_op op;
	unsigned flags;
	struct iovec *iov; /* host memory, already checked; total length == len */
	int niov;
	uint64_t off, len; /* bytes; any alignment */
	/* Not NULL: the request may be kept while this is so; other threads may change it. */
	const bool *wanted;
	/* block.c's */
	struct disk *disk;
	struct list link;
	struct fiber_start start;
	uint64_t t_start_ns, seq, epoch;
	uint64_t tick; /* the tap's */
	int err;
	bool durable;                /* must be durable before done() */
	bool zeros;                  /* WRITE: of nothing but zeros, done as such */
	uint64_t room[BLK_REQ_ROOM]; /* the one host operation of a mapped request */
};

void disk_submit(struct disk *d, struct blk_req *r);
/* Until nothing is in flight: suspends in a fiber; elsewhere turns the loop, so not in a callback.
 */
void disk_drain(struct disk *d);

/* The guest-visible cache bit.  Readable from any thread. */
bool disk_wce(const struct disk *d);
/*
 * Changes it.  Going off, everything acknowledged so far is durable before the bit reads as
 * off and done() runs.  -EPERM in mode unsafe (the bit stays on), -errno of a failed flush
 * (the bit stays on).
 */
struct wce_change {
	void (*done)(struct wce_change *c, int err);
	bool enable;
	bool monitor; /* asked for by the user, not by the guest */
	/* block.c's */
	struct disk *disk;
	struct list link;
	struct loop_msg msg;
	uint64_t tick; /* the tap's */
	bool in_round;
};
void disk_set_wce(struct disk *d, struct wce_change *c);
bool disk_wce_default(const struct disk *d); /* at power-on */
/* Who changed it last; any thread.  A reset that brings the default back counts as the guest's. */
enum wce_by { WCE_BY_POWER_ON, WCE_BY_GUEST, WCE_BY_MONITOR };
enum wce_by disk_wce_by(const struct disk *d);
/* From now on this eventfd is written after each change and each failed request; -1: none. */
void disk_notify(struct disk *d, int event_fd);
/*
 * Bytes written, zeroed or discarded that were acknowledged and are not yet durable; *since_ns:
 * when the oldest of them was acknowledged (CLOCK_MONOTONIC), 0: there are none.  Any thread.
 */
uint64_t disk_owed(const struct disk *d, uint64_t *since_ns);

/* ---- requests that the host failed, see enum on_error ---- */

struct disk_trouble {
	uint32_t n; /* so many failed; of the last of them: */
	int err;
	enum blk_op op;
	enum on_error action; /* never ENOSPC */
};
void disk_trouble(const struct disk *d, struct disk_trouble *t); /* any thread */
/* Are some kept?  0, or how the first of them failed; any thread. */
int disk_kept(const struct disk *d);
/* All that were kept are submitted again. */
void disk_retry(struct disk *d);
/* Those of them that are no longer wanted end with their error. */
void disk_give_up(struct disk *d);

/*
 * Who is told of what a disk is asked and answers, on its loop.  Reads and what is refused at once
 * are left out.  wce: how the cache bit stands, at completion after a change.
 */
struct disk_tap {
	/*
	 * Before all that, also of reads: 0, or the -errno that answers r, -ESHUTDOWN if the disk
	 * has no power any more.  NULL: all are let through.
	 */
	int (*refuse)(struct disk_tap *t, const struct blk_req *r);
	void (*submit)(struct disk_tap *t, struct blk_req *r, bool wce);
	void (*done)(struct disk_tap *t, struct blk_req *r, bool wce, int err);
	void (*wce_submit)(struct disk_tap *t, struct wce_change *c, bool wce);
	void (*wce_done)(struct disk_tap *t, struct wce_change *c, bool wce, int err);
	/*
	 * May put filters on the image's file f, or on its external data file (data).  *out, f at
	 * first, is what is to be closed, also on error.  0, or -errno.  NULL: none.
	 */
	int (*file)(struct disk_tap *t, struct file *f, bool data, struct file **out,
		struct why *why);
};

/* In a fiber: one request, waited for.  0 or -errno. */
must_check int disk_pread(struct disk *d, void *buf, uint64_t len, uint64_t off);
must_check int disk_pwrite(
	struct disk *d, const void *buf, uint64_t len, uint64_t off, unsigned flags);
must_check int disk_preadv(struct disk *d, struct iovec *iov, int niov, uint64_t len, uint64_t off);
must_check int disk_pwritev(
	struct disk *d, struct iovec *iov, int niov, uint64_t len, uint64_t off, unsigned flags);
must_check int disk_zeroes(struct disk *d, uint64_t len, uint64_t off, unsigned flags);
must_check int disk_discard(struct disk *d, uint64_t len, uint64_t off);
must_check int disk_flush(struct disk *d);

/* ---- what lies where ---- */

enum extent_kind {
	EXTENT_HOLE, /* not in this layer: the backing file's content, or zeros without one */
	EXTENT_ZERO, /* in this layer, reads as zeros */
	EXTENT_DATA,
};

struct extent {
	enum extent_kind kind;
	uint64_t len;      /* bytes that all this holds for */
	uint64_t host_off; /* if has_host_off: of the first byte, running on */
	bool has_host_off;
	bool compressed;
	int depth;           /* disk_map(): layers below the top; 0 is the top */
	struct disk *layer;  /* disk_map(): the disk of that layer */
};
/* In a fiber: the top layer's own word on [off, off+something up to len).  0 or -errno. */
must_check int disk_extent(struct disk *d, uint64_t off, uint64_t len, struct extent *e);
/*
 * In a fiber: the same through the whole chain: EXTENT_HOLE is what no layer has, with depth that
 * of the layer which ends the search.
 */
must_check int disk_map(struct disk *d, uint64_t off, uint64_t len, struct extent *e);
/* The disk below, opened read-only with this one; NULL: none. */
struct disk *disk_backing(const struct disk *d);
/* What d's image says lies below it; "": nothing. */
const char *disk_backing_name(const struct disk *d);
/* Where the backing file that an image names is found.  0 or -ENAMETOOLONG. */
must_check int disk_backing_path(const char *image, const char *name, char *out, size_t len);

/* ---- internal snapshots, for formats that have them ---- */

struct disk_snapshot {
	const char *id, *name; /* the disk's, until its snapshots change */
	uint32_t sec, nsec;    /* when */
	uint64_t clock_ns, vm_state_bytes, icount; /* icount UINT64_MAX: none */
};
/* false: there are not that many. */
bool disk_snapshot_get(const struct disk *d, uint32_t i, struct disk_snapshot *out);

enum snapshot_op { SNAPSHOT_CREATE, SNAPSHOT_APPLY, SNAPSHOT_DELETE };
/*
 * In a fiber, nothing else submitted meanwhile.  name: of the snapshot; APPLY also knows it by its
 * ID.  Durable when it returns 0; else -errno, with words or without.  After an error that
 * left something half done, closing the disk fails too, and the next opening repairs it.
 */
must_check int disk_snapshot_change(
	struct disk *d, enum snapshot_op op, const char *name, struct why *why);
/*
 * In a fiber, on a disk opened read-only: from now on it reads as the snapshot with this ID and
 * name; NULL: any, but not both.
 */
must_check int disk_snapshot_load(
	struct disk *d, const char *id, const char *name, struct why *why);

/* ---- dirty bitmaps that an image keeps: which parts were written to ---- */

struct disk_bitmap {
	const char *name; /* the disk's, until its bitmaps change */
	uint64_t granularity; /* bytes */
	bool enabled;         /* writes are noted */
	bool inconsistent;    /* was not saved by who wrote last: all it can is be removed */
};
/* false: there are not that many. */
bool disk_bitmap_get(const struct disk *d, uint32_t i, struct disk_bitmap *out);

enum bitmap_op { BITMAP_ADD, BITMAP_REMOVE, BITMAP_CLEAR, BITMAP_ENABLE, BITMAP_DISABLE };
/*
 * In a fiber, nothing else in flight.  The image has it once the disk is closed.  ADD: granularity
 * in bytes, 0: the usual.  -errno with words.
 */
must_check int disk_bitmap_change(struct disk *d, enum bitmap_op op, const char *name,
	uint64_t granularity, struct why *why);
/* The same: what is set in the bitmap from_name of from is set in name of d. */
must_check int disk_bitmap_merge(struct disk *d, const char *name, struct disk *from,
	const char *from_name, struct why *why);
/* Can it keep bitmaps? */
bool disk_has_bitmaps(const struct disk *d);

/* Where behind the disk a machine's state is kept; 0: the format has no room for it. */
uint64_t disk_vmstate_offset(const struct disk *d);
/*
 * In a fiber, nothing else submitted meanwhile: len bytes of that state, off bytes into it; what
 * was never written reads as zeros.  A write is durable with the next flush, or at once with the
 * cache off.  0 or -errno.
 */
must_check int disk_vmstate(struct disk *d, void *buf, uint64_t off, uint64_t len, bool write);

/*
 * Requests held at an event of the fault filter (blkdebug), by tag.  -ENOTSUP without the filter,
 * -EINVAL: no such event, -ENOENT: no such tag.
 */
must_check int disk_break(struct disk *d, const char *event, const char *tag);
must_check int disk_break_resume(struct disk *d, const char *tag);
must_check int disk_break_remove(struct disk *d, const char *tag);
bool disk_break_held(const struct disk *d, const char *tag);

/*
 * ---- under a guest that goes on: its requests wait meanwhile ----
 *
 * On the loop's thread, not in a fiber or a callback; they turn the loop.  0, or -errno with words
 * and all as it was.
 */
must_check int disk_online_resize(struct disk *d, uint64_t size, struct why *why);
must_check int disk_online_snapshot(
	struct disk *d, enum snapshot_op op, const char *name, struct why *why);
/*
 * From now on all is written to another image, which is made before (create: a new file in qcow2
 * format) or there already; the one that was written to is below it.  now: what the disk was
 * opened with.
 */
must_check int disk_online_overlay(struct disk *d, const struct disk_opts *now,
	const struct disk_opts *over, bool create, struct why *why);
/* A disk that reads as what o says; what is written to it is gone when it is closed. */
must_check int disk_open_throwaway(
	struct loop *l, const struct disk_opts *o, struct disk **out, struct why *why);

/* In a fiber: size bytes, a multiple of 512, not less than now; durable when it returns 0. */
must_check int disk_grow(struct disk *d, uint64_t size);

/*
 * In a fiber, nothing in flight: any size, how much of what is new has its place at once.
 * Durable when it returns 0; -errno with words.
 */
enum prealloc;
must_check int disk_resize(struct disk *d, uint64_t size, enum prealloc how, struct why *why);
/* In a fiber, nothing in flight: the top layer holds nothing, all is read from below; durable. */
must_check int disk_make_empty(struct disk *d);
/*
 * In a fiber, nothing in flight: the image says from now on that this lies below it ("": nothing);
 * durable.  What is open stays open.  -errno with words.
 */
must_check int disk_set_backing(
	struct disk *d, const char *name, const char *format, struct why *why);

/* What is to be changed; 0: left as it is. */
struct disk_amend {
	uint32_t version, refcount_bits;
	bool set_lazy, lazy;
	uint64_t size;
	const char *backing, *backing_format; /* may be said, but only as they are */
	const char *data_file; /* name of the external data file; "": the image does not say */
	bool set_raw, raw;     /* is it good as a raw image? */
	/* How far it is, or NULL.  total may grow meanwhile. */
	void (*progress)(void *arg, uint64_t done, uint64_t total);
	void *progress_arg;
};
static inline void disk_amend_progress(const struct disk_amend *a, uint64_t done, uint64_t total)
{
	if (a->progress)
		a->progress(a->progress_arg, done, total);
}
/* In a fiber, nothing in flight.  Durable when it returns 0; -errno with words. */
must_check int disk_amend(struct disk *d, const struct disk_amend *a, struct why *why);

/* Latency histogram: bucket i counts requests that took [2^i, 2^(i+1)) microseconds; 0 also less.
 */
#define DISK_HIST 24
struct disk_stats {
	uint64_t reads, writes, flushes;          /* the guest's, completed */
	uint64_t read_bytes, write_bytes, failed; /* failed: of any kind */
	uint64_t zeroes, zero_bytes, discards, discard_bytes;
	uint64_t wce_changes;
	uint64_t host_reads, host_writes, host_fdatasyncs, host_fallocates;
	uint64_t host_read_bytes;
	uint64_t data_bytes, metadata_bytes; /* written to the host file */
	uint64_t write_us[DISK_HIST], flush_us[DISK_HIST];
};
/* A copy; any thread (each figure is exact, together they may be a moment apart). */
void disk_stats_get(const struct disk *d, struct disk_stats *out);

#endif
