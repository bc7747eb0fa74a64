/* SPDX-License-Identifier: MIT */
/*
 * file.h - a host file, as asynchronous requests; engines at the bottom, filters above.
 *
 * An engine talks to the kernel through the loop.  A filter holds another file and
 * passes requests on, changed or not: align (O_DIRECT for callers that keep no alignment),
 * fault (make the n-th matching operation fail).  Nothing above can tell
 * how deep the stack is.
 *
 *   IDLE --file_submit()--> in flight --done(req, err)--> IDLE
 *
 * The request's memory is the caller's; it is not touched between submit and
 * done().  done() runs on the loop, never inside file_submit().
 *
 * Semantics that every layer keeps:
 *   - READ past the end of the file gives zeros; a short read elsewhere is continued.
 *   - WRITE is all or error; a short write is continued until the host says why.
 *   - FDATASYNC covers every write whose done() ran before it was submitted.
 *   - err is 0 or -errno, never a count.
 */
#ifndef FILE_FILE_H
#define FILE_FILE_H

#include "vmm/util/base.h"
#include "vmm/util/fiber.h"
#include "vmm/util/log.h"
#include "vmm/util/loop.h"

struct file;
struct inject;

/* What a format may be about to do; names in inject.c. */
enum file_event {
	EV_NONE,
	EV_L1_UPDATE,
	EV_L1_GROW_ALLOC_TABLE,
	EV_L1_GROW_WRITE_TABLE,
	EV_L1_GROW_ACTIVATE_TABLE,
	EV_L2_LOAD,
	EV_L2_UPDATE,
	EV_L2_UPDATE_COMPRESSED,
	EV_L2_ALLOC_COW_READ,
	EV_L2_ALLOC_WRITE,
	EV_READ_AIO,
	EV_READ_BACKING_AIO,
	EV_READ_COMPRESSED,
	EV_WRITE_AIO,
	EV_WRITE_COMPRESSED,
	EV_VMSTATE_LOAD,
	EV_VMSTATE_SAVE,
	EV_COW_READ,
	EV_COW_WRITE,
	EV_REFTABLE_LOAD,
	EV_REFTABLE_GROW,
	EV_REFTABLE_UPDATE,
	EV_REFBLOCK_LOAD,
	EV_REFBLOCK_UPDATE,
	EV_REFBLOCK_UPDATE_PART,
	EV_REFBLOCK_ALLOC,
	EV_REFBLOCK_ALLOC_HOOKUP,
	EV_REFBLOCK_ALLOC_WRITE,
	EV_REFBLOCK_ALLOC_WRITE_BLOCKS,
	EV_REFBLOCK_ALLOC_WRITE_TABLE,
	EV_REFBLOCK_ALLOC_SWITCH_TABLE,
	EV_CLUSTER_ALLOC,
	EV_CLUSTER_ALLOC_BYTES,
	EV_CLUSTER_FREE,
	EV_FLUSH_TO_OS,
	EV_FLUSH_TO_DISK,
	EV_PWRITEV_RMW_HEAD,
	EV_PWRITEV_RMW_AFTER_HEAD,
	EV_PWRITEV_RMW_TAIL,
	EV_PWRITEV_RMW_AFTER_TAIL,
	EV_PWRITEV,
	EV_PWRITEV_ZERO,
	EV_PWRITEV_DONE,
	EV_EMPTY_IMAGE_PREPARE,
	EV_L1_SHRINK_WRITE_TABLE,
	EV_L1_SHRINK_FREE_L2_CLUSTERS,
	EV_COR_WRITE,
	EV_CLUSTER_ALLOC_SPACE,
	N_FILE_EVENTS
};
void inject_event(struct inject *in, enum file_event event);

enum file_op {
	FILE_READ,
	FILE_WRITE,
	FILE_FDATASYNC,
	FILE_EXTEND,   /* [off, off+len) exists, reads as zeros if never written; size grows */
	FILE_PUNCH,    /* the range reads as zeros, space given back; see enum file_punch */
	FILE_TRUNCATE, /* to off bytes; a block device keeps its size: 0 if off is not beyond it */
};

/* What else is allowed; host files always punch, and that is right for all of them. */
enum file_punch {
	PUNCH_UNMAP,
	PUNCH_KEEP, /* space need not be given back: file->zeroes */
	PUNCH_MAY,  /* content may also stay as it is */
};

struct file_req {
	/* the caller's */
	void (*done)(struct file_req *r, int err); /* 0 or -errno */
	enum file_op op;
	struct iovec *iov; /* READ, WRITE: host memory, len in total; restored if changed */
	int niov;
	enum file_punch how; /* PUNCH */
	bool here; /* FDATASYNC: in the loop's own thread, which stands still meanwhile */
	uint64_t off, len; /* bytes */
	/* the layers' (engine: loop op, progress) */
	union {
		struct loop_op lop;
		struct fiber_start start; /* a filter that answers from a fiber */
		struct {
			void *a, *b;
			uint64_t x, y;
		} layer;
	};
	struct iovec saved; /* engine: the element a partial transfer cut into */
	int saved_at;	    /* its index, -1: none */
	unsigned tries;	    /* engine: EAGAIN in a row */
	uint64_t moved;
	struct file *file; /* the engine, or the filter that took the request over */
	struct list link; /* free for whichever layer holds the request back */
	/* the align filter's: a write that passes through it and may not meet another */
	struct {
		struct file *file;
		void (*done)(struct file_req *r, int err);
		struct list link;
		bool running, rmw;
	} pass;
};

/* What a layer provides.  size() is cheap: engines keep it up to date themselves. */
struct file_ops {
	const char *name;
	void (*submit)(struct file *f, struct file_req *r);
	uint64_t (*size)(struct file *f); /* bytes */
	/* NULL: all is data.  See file_find_data(). */
	bool (*find_data)(struct file *f, uint64_t off, uint64_t *len);
	void (*close)(struct file *f);	  /* nothing in flight */
};

/* Host operations since open, kept by the engine; one writer (the loop), read by others racily. */
struct file_stats {
	uint64_t reads, writes, fdatasyncs, fallocates, truncates;
	uint64_t read_bytes, written_bytes;
};

struct file {
	const struct file_ops *ops;
	struct loop *loop;
	struct file *below;   /* filters */
	/*
	 * What O_DIRECT wants of offsets and lengths (align_off), and of memory addresses
	 * (align_mem); 1 for the page cache.  With the align filter on top, keeping to it is only
	 * faster.
	 */
	uint32_t align_off, align_mem;
	bool readonly, is_block;
	bool zeroes; /* knows PUNCH_KEEP: cheaper than writing zeros */
	uint32_t zeroes_unit; /* in multiples of so many bytes; 0: any */
	bool nosync; /* set by the owner: file_fdatasync() does nothing, for what need not last */
	struct file_stats *stats; /* the engine's, shared by the filters on it */
	struct inject *inject;	  /* who hears of events (inject.h), or NULL */
};

#define FILE_RDONLY  (0u)
#define FILE_RDWR    (1u << 0)
#define FILE_DIRECT  (1u << 1) /* O_DIRECT; -EINVAL with words if the host's file system refuses */
#define FILE_NOLOCK  (1u << 2) /* take no image lock (tests; -U for readers) */
#define FILE_CREATE  (1u << 3) /* O_CREAT|O_TRUNC, after the lock is had */

/*
 * Opens a regular file or block device with the engine of the loop, takes the image
 * lock (see lock.h), and puts the align filter on top where O_DIRECT needs it, so that callers
 * may ignore alignment (keeping to it is faster).  0, or -errno with words.
 */
must_check int file_open(struct loop *l, const char *path, unsigned flags, struct file **out,
	struct why *why);
void file_close(struct file *f); /* nothing in flight; closes the whole stack */

static inline void file_submit(struct file *f, struct file_req *r)
{
	f->ops->submit(f, r);
}

static inline uint64_t file_size(struct file *f)
{
	return f->ops->size(f);
}

/*
 * Does the host's file hold data at off (else: a hole, zeros)?  *len: for how many bytes that goes
 * on.  off is below the size.  A host that cannot say has data.  In a fiber.
 */
static inline bool file_find_data(struct file *f, uint64_t off, uint64_t *len)
{
	while (f->below && !f->ops->find_data)
		f = f->below;
	*len = file_size(f) - off;
	return !f->ops->find_data || f->ops->find_data(f, off, len);
}

/* In a fiber: the format above is about to do something that users may make fail; may suspend. */
static inline void file_event(struct file *f, enum file_event event)
{
	if (f->inject)
		inject_event(f->inject, event);
}

/* What a filter sends below in the place of r: all that the caller said, and done as its own. */
static inline struct file_req file_req_below(
	const struct file_req *r, void (*done)(struct file_req *below, int err))
{
	return (struct file_req){.done = done,
		.op = r->op,
		.iov = r->iov,
		.niov = r->niov,
		.how = r->how,
		.here = r->here,
		.off = r->off,
		.len = r->len};
}

/* For layers that know the result without asking below: done(r, err) later in this turn. */
void file_finish(struct file *f, struct file_req *r, int err);

/* The same in a fiber: suspends until done.  0 or -errno. */
must_check int file_pread(struct file *f, void *buf, uint64_t len, uint64_t off);
must_check int file_pwrite(struct file *f, const void *buf, uint64_t len, uint64_t off);
must_check int file_preadv(struct file *f, struct iovec *iov, int niov, uint64_t off);
must_check int file_pwritev(struct file *f, struct iovec *iov, int niov, uint64_t off);
must_check int file_fdatasync(struct file *f);
/* For a loop that has nothing else to do: no worker thread, no switch to it and back. */
must_check int file_fdatasync_here(struct file *f);
must_check int file_extend(struct file *f, uint64_t off, uint64_t len);
must_check int file_punch(struct file *f, uint64_t off, uint64_t len);
must_check int file_punch_how(struct file *f, uint64_t off, uint64_t len, enum file_punch how);
must_check int file_truncate(struct file *f, uint64_t size);

/* How much of what will be written has its place beforehand. */
enum prealloc {
	PREALLOC_OFF,
	PREALLOC_METADATA, /* in the image's tables */
	PREALLOC_FALLOC,   /* and the host has reserved room */
	PREALLOC_FULL,     /* and zeros are written there */
};
/* In a fiber: bytes [off, off+len) have room on the host (FALLOC, FULL), as zeros. */
must_check int file_preallocate(struct file *f, uint64_t off, uint64_t len, enum prealloc how);

uint64_t iov_bytes(const struct iovec *iov, int niov);
/* Nothing but zeros? */
bool mem_is_zero(const void *buf, size_t len);
bool iov_is_zero(const struct iovec *iov, int niov);
/* Memory for metadata and bounce buffers: page aligned, zeroed; free with free(). */
void *file_buf(uint64_t len);

#endif
