/* SPDX-License-Identifier: MIT */
/*
 * format.h - what an image format provides to the generic layer (block.c).
 *
 * A format knows guest ranges and host ranges.  It does not know cache modes: it has
 * write and flush, and block.c calls flush when durability is owed.
 */
#ifndef BLOCKDEV_FORMAT_H
#define BLOCKDEV_FORMAT_H

#include "blockdev/block.h"
#include "blockdev/file/file.h"
#include "blockdev/sync.h"

struct format {
	const struct format_ops *ops;
	struct file *file; /* owned by the format once open succeeded */
	struct sync sync;  /* every host write to file is noted here */
	/*
	 * Where the guest's data lies, if not in file: set and opened after the format (data.c),
	 * closed by it; NULL: in file.  Writes to it are noted in data_sync.
	 */
	struct file *data_file;
	struct sync data_sync;
	/* Set by open: it needs a data file; of this name, "": the image does not say. */
	const char *data_name;
	uint64_t size;     /* bytes the guest sees */
	uint32_t cluster_size;
	bool readonly;
	bool unmap;              /* discards give the host's space back */
	bool noting;             /* ops->note() wants to hear of writes */
	bool keeps_bitmaps;      /* or could */
	unsigned level;          /* of its fibers: fiber_start_at() */
	struct format *backing;  /* the layer below, or NULL; not owned */
	/* Set by open: what the image says lies below it; "" if nothing. */
	const char *backing_name, *backing_format;
	/* Requests in flight, by whether they came in the current epoch or the one before. */
	uint64_t epoch;
	unsigned in_epoch[2];
	uint64_t metadata_bytes; /* written so far, of the file's written bytes */
};

struct format_ops {
	const char *name;
	/* 0..100: how sure are we, from the first bytes of the file? */
	int (*probe)(const uint8_t *head, size_t len);
	/* In a fiber.  Takes f over on success only.  0, or -errno with words. */
	int (*open)(
		struct file *f, const struct disk_opts *o, struct format **out, struct why *why);
	/* In a fiber; nothing in flight.  Writes back, makes durable and marks clean. */
	int (*close)(struct format *fmt, struct why *why);
	/* Frees fmt and closes the file without another host write; after close, or instead of it.
	 */
	void (*free)(struct format *fmt);
	/*
	 * On the loop, no fiber: takes the request if it maps to one host operation (then it
	 * calls format_submit()), or to none (format_zeros()).  false: call read or write in a
	 * fiber.
	 */
	bool (*try_submit)(struct format *fmt, struct blk_req *r);
	/* In a fiber; the range is inside the disk.  0 or -errno. */
	int (*read)(struct format *fmt, struct iovec *iov, int niov, uint64_t off, uint64_t len);
	int (*write)(struct format *fmt, struct iovec *iov, int niov, uint64_t off, uint64_t len);
	/* flags: BLK_UNMAP.  NULL, or -ENOTSUP: zeros are written. */
	int (*zeroes)(struct format *fmt, uint64_t off, uint64_t len, unsigned flags);
	/* NULL: nothing is done, which is allowed. */
	int (*discard)(struct format *fmt, uint64_t off, uint64_t len);
	/* NULL: -ENOTSUP.  Whole clusters, or up to the end of the disk. */
	int (*write_compressed)(
		struct format *fmt, struct iovec *iov, int niov, uint64_t off, uint64_t len);
	/* This layer alone; sets all but depth and layer. */
	int (*extent)(struct format *fmt, uint64_t off, uint64_t len, struct extent *e);
	/*
	 * In a fiber: every write that had returned before the call is durable with its
	 * metadata when it returns 0.  Not run twice at once by block.c.
	 */
	int (*flush)(struct format *fmt);
	/* In a fiber, nothing in flight: see block.h.  NULL: -ENOTSUP. */
	bool (*snapshot_get)(struct format *fmt, uint32_t i, struct disk_snapshot *out);
	int (*snapshot)(struct format *fmt, enum snapshot_op op, const char *name, struct why *why);
	int (*snapshot_load)(
		struct format *fmt, const char *id, const char *name, struct why *why);
	/* In a fiber: the guest sees size bytes from now on, more than before; durable. */
	int (*grow)(struct format *fmt, uint64_t size);
	/* In a fiber, nothing in flight; durable.  -errno with words.  NULL: -ENOTSUP. */
	int (*resize)(struct format *fmt, uint64_t size, enum prealloc how, struct why *why);
	int (*amend)(struct format *fmt, const struct disk_amend *a, struct why *why);
	/* This layer holds nothing any more. */
	int (*make_empty)(struct format *fmt);
	/* Before a write (zeroes, discard) begins, with noting; on the loop, does not suspend. */
	void (*note)(struct format *fmt, uint64_t off, uint64_t len);
	/* Bitmaps, see block.h; all three or none. */
	bool (*bitmap_get)(struct format *fmt, uint32_t i, struct disk_bitmap *out);
	int (*bitmap_change)(struct format *fmt, enum bitmap_op op, const char *name,
		uint64_t granularity, struct why *why);
	int (*bitmap_merge)(struct format *fmt, const char *name, struct format *from,
		const char *from_name, struct why *why);
	/*
	 * Where behind the disk a machine's state is kept, and in a fiber, nothing else in flight:
	 * a piece of it is read or written, off bytes into it.  NULL: there is no room.
	 */
	uint64_t (*vmstate_offset)(const struct format *fmt);
	int (*vmstate)(struct format *fmt, struct iovec *iov, int niov, uint64_t off, uint64_t len,
		bool write);
	/* What lies below is called so from now on; "" none.  What is open stays open. */
	int (*set_backing)(
		struct format *fmt, const char *name, const char *format, struct why *why);
};

/* Have all requests ended that were in flight when fmt->epoch was then? */
static inline bool format_epoch_over(struct format *fmt, uint64_t then)
{
	while (fmt->epoch < then + 2 && !fmt->in_epoch[(fmt->epoch + 1) & 1])
		fmt->epoch++;
	return fmt->epoch >= then + 2;
}

static inline struct file *format_data(const struct format *fmt)
{
	return fmt->data_file ? fmt->data_file : fmt->file;
}

/* A host write of the guest's data has completed. */
static inline void format_data_note(struct format *fmt)
{
	sync_note(fmt->data_file ? &fmt->data_sync : &fmt->sync);
}

/* Does somebody want to hear of what is done to the files?  Then it is done in fibers. */
static inline bool format_injects(const struct format *fmt)
{
	return fmt->file->inject || (fmt->data_file && fmt->data_file->inject);
}

extern const struct format_ops raw_format, qcow2_format;

/* For try_submit: the whole request as one host operation at host_off. */
void format_submit(struct format *fmt, struct blk_req *r, uint64_t host_off);
/* For try_submit: a read of nothing but zeros. */
void format_zeros(struct format *fmt, struct blk_req *r);

#endif
