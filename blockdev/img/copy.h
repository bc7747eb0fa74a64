/* SPDX-License-Identifier: MIT */
/*
 * copy.h - the content of some disks, one after the other, into another disk.
 */
#ifndef IMG_COPY_H
#define IMG_COPY_H

#include "blockdev/img/open.h"
#include "blockdev/img/progress.h"

#define COPY_WORKERS_MAX 16

struct copy_source {
	struct disk *disk;
	const char *name;
	uint64_t start; /* where it lies in the whole */
	uint64_t skip;  /* bytes of it that are left out at its start */
};

/* What is to be done; the caller fills it in, zero is a good default but for what says so. */
struct copy {
	struct loop *loop;
	struct copy_source *src; /* in order, without gaps */
	unsigned n_src;          /* > 0 */
	struct disk *dst;        /* not smaller than total */
	uint64_t total;          /* bytes */
	unsigned workers;        /* > 0: requests in flight */
	uint64_t min_sparse;     /* bytes; so many zeros in a row are a hole; 0: all is written */
	bool compress;           /* whole clusters of the target, compressed */
	bool any_order;          /* the target's space may be taken in any order */
	bool salvage;            /* what cannot be read is told and reads as zeros */
	bool zero_init;          /* the target reads as zeros */
	bool over_backing;       /* what the top layer of the source has not, the target need not */
	uint64_t backing_size;   /* over_backing: beyond it the target reads as zeros */
	uint64_t rate;           /* bytes of data in a second, at most; 0: any */
	bool quiet;
	struct progress *progress;
};

/* Not in a fiber.  Says what went wrong, with the offset.  0 or -errno. */
must_check int copy_run(struct copy *c);

#endif
