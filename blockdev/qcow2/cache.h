/* SPDX-License-Identifier: MIT */
/*
 * cache.h - metadata tables in memory: slices of L2 tables and of refcount blocks.
 *
 * A slice is a piece of a table (4 KiB, or a whole smaller table), found by its host
 * offset, dirty by 512-byte sector.  Each slice carries the number (sync.h) that must be
 * durable before its dirty sectors may be written; commit.c obeys it.
 *
 * A slice is borrowed between cache_get() and cache_put() and is not evicted meanwhile.
 * No fiber keeps one over a suspension except inside cache_get() itself, so a cache of
 * a few slices serves any number of fibers.
 *
 * All memory is taken at open.
 */
#ifndef QCOW2_CACHE_H
#define QCOW2_CACHE_H

#include "blockdev/file/file.h"

#define SLICE_BYTES_MAX 4096u

struct slice {
	uint64_t host_off; /* of its first byte in the image; 0: unused */
	uint8_t *data;
	uint64_t need;   /* durable before a dirty sector is written */
	uint8_t dirty;   /* bit i: sector i */
	uint8_t writing; /* staged copies on their way to the file */
	uint16_t pins;
	bool loading;
	bool used;       /* since cache_clean() was here */
	struct list lru;        /* oldest first; on the cache's free or lru list */
	struct list dirty_link; /* on cache->dirty while dirty */
	struct slice *hash_next;
};

struct cache {
	struct file *file;
	uint32_t slice_bytes, n_slices, n_buckets;
	struct slice *slices, **buckets;
	uint8_t *mem;
	struct list lru, dirty;
	uint32_t n_dirty, n_unclean; /* unclean: dirty or being written */
	struct fiber_queue q; /* loads that end, slices that become free */
	/* In a fiber: writes dirty slices back, in order, so that some become clean. */
	int (*writeback)(void *arg);
	void *arg;
	uint64_t hits, misses;
	enum file_event loading; /* what a read of a slice is called */
};

/* bytes is rounded to slices; at least 8 of them.  0 or -ENOMEM. */
must_check int cache_init(struct cache *c, struct file *f, uint32_t slice_bytes, uint64_t bytes,
	int (*writeback)(void *), void *arg);
void cache_fini(struct cache *c);

/* The slice that holds host_off, if it is here; not pinned, good until the next suspension. */
struct slice *cache_peek(struct cache *c, uint64_t host_off);
/*
 * In a fiber: borrows the slice that holds host_off, from the file if need be.  0, or -errno of
 * that read: a host that takes no writes does not keep a slice from being read.
 */
must_check int cache_get(struct cache *c, uint64_t host_off, struct slice **out);
/* The same for one that is about to be changed.  -errno also if the cache cannot be written back.
 */
must_check int cache_get_rw(struct cache *c, uint64_t host_off, struct slice **out);
void cache_put(struct cache *c, struct slice **s);
/* The slice with host_off is zeros in the file: it need not be read, if there is room for it. */
void cache_put_zeros(struct cache *c, uint64_t host_off);

/* [off, off+len) of the slice has changed and may be written once number need is durable. */
void cache_dirty(struct cache *c, struct slice *s, uint32_t off, uint32_t len, uint64_t need);
/* For commit.c: the dirty bits, cleared; the slice stays until cache_written(). */
uint8_t cache_stage(struct cache *c, struct slice *s);
/* failed: the sectors that did not reach the file and are dirty again. */
void cache_written(struct cache *c, struct slice *s, uint8_t failed);
/*
 * Forgets what is neither dirty nor borrowed and was not used since the last call; whole pages of
 * memory go back to the host.
 */
void cache_clean(struct cache *c);
/* Forgets all; nothing is dirty or borrowed. */
void cache_drop(struct cache *c);
/*
 * Forgets [host_off, host_off+len), dirty or not: a table that is not one any more.  What somebody
 * borrows, reads or writes stays: only where a damaged image names a table twice.
 */
void cache_forget(struct cache *c, uint64_t host_off, uint64_t len);

#endif
