/* SPDX-License-Identifier: MIT */
/*
 * block_int.h - a disk from the inside; for block.c and disk.c only.
 */
#ifndef BLOCKDEV_BLOCK_INT_H
#define BLOCKDEV_BLOCK_INT_H

#include "blockdev/block.h"
#include "blockdev/format.h"

struct owed {
	uint64_t bytes, since_ns; /* since_ns 0: nothing */
};

struct disk {
	struct loop *loop;
	struct format *fmt;
	struct disk *backing; /* read-only, closed with this one; NULL: none */
	bool backing_lent;    /* it is the caller's: struct disk_opts.base */
	struct disk *above;   /* the layer that this one backs, or NULL */
	char *path;
	char *data_path; /* of an external data file, or NULL */
	char *driver; /* disk_driver(), or NULL: the format's name */
	unsigned level;       /* of its fibers: fiber_start_at() */
	enum detect_zeroes detect;
	bool copy_on_read;    /* what is read from below stays in the top layer */
	struct fiber_lock cor_lock; /* with it, one change or copy at a time */
	enum cache_mode mode;
	bool readonly;
	bool told; /* of the first request that failed on the host */
	bool wce; /* atomic: other threads read it */
	struct disk_tap *tap; /* NULL: none */

	unsigned in_flight; /* requests and cache changes not yet done() */
	struct fiber_queue idle;

	struct list finished; /* ends known inside disk_submit() */
	struct loop_work finished_work;

	uint64_t acked;     /* writes that completed */
	uint64_t committed; /* all up to here are durable */
	struct list waiting, wce_waiting;
	bool commit_running;
	struct loop_work commit_work;
	struct fiber_start commit_start;

	/* Acknowledged and not durable: [0] since the last round began, [1] before.  Atomic. */
	struct owed owed[2];
	enum wce_by wce_by; /* atomic */
	int event_fd;       /* or -1 */

	/* hold.c */
	bool held;
	struct list held_reqs, held_wce; /* not submitted yet */
	struct list kept;
	int kept_err; /* of the first of them; atomic */
	enum on_error on_read_error, on_write_error;
	uint64_t trouble; /* struct disk_trouble in one word; atomic */

	uint64_t size;                     /* of fmt; atomic */
	uint32_t block_size, cluster_size; /* as at the beginning */

	struct disk_stats stats; /* the guest's part; the host's is the file's */
	struct disk_stats past;  /* the host's part of what was the top before */
};

void block_init(struct disk *d);
/* Tells the owner how the request ended. */
void block_end(struct blk_req *r, int err);
/* Nothing is acknowledged and not durable. */
void owed_clear(struct disk *d);

void hold_init(struct disk *d);
/* The request waits until the disk moves on. */
void hold_request(struct disk *d, struct list *request);
/* fmt->size may have changed. */
void hold_sized(struct disk *d);
/* The request has failed.  true: it is kept; else it ends with *err, which may be 0 now. */
must_check bool hold_keeps(struct disk *d, struct blk_req *r, int *err);
/* Writes the eventfd of disk_notify(). */
void disk_tell(const struct disk *d);

/* overlay.c: what disk_online_overlay() does while the disk stands still. */
must_check int overlay_put(struct disk *d, const struct disk_opts *now,
	const struct disk_opts *over, bool create, struct why *why);

/* The disk that a raw one is read through, offset for offset (disk_file.h), or NULL. */
struct disk *disk_inner(const struct disk *d);
/* In a fiber: a read; what lies below the top layer is copied there. */
must_check int cor_read(struct disk *d, struct iovec *iov, int niov, uint64_t off, uint64_t len);

/* disk_open() for a layer below another. */
must_check int disk_open_above(struct loop *l, const struct disk_opts *o, struct disk *above,
	struct disk **out, struct why *why);
/* Not in a fiber: opens what d's format says lies below it.  0, or -errno with words. */
must_check int chain_open(struct disk *d, const struct disk_opts *o, struct why *why);

/* Lets o's tap put its filters on *f, which it closes on error.  0, or -errno with words. */
must_check int disk_tap_file(
	const struct disk_opts *o, bool data, struct file **f, struct why *why);

/*
 * Not in a fiber: opens the external data file that d's format asks for, as options or the image
 * name it.  0, or -errno with words.
 */
must_check int data_file_open(struct disk *d, const struct disk_opts *o, struct why *why);

#endif
