/* SPDX-License-Identifier: MIT */
/*
 * sync.h - what is durable: the numbering of host writes against fdatasync.
 *
 * Every host write of an image gets a number when it completes.  An fdatasync
 * makes durable all the numbers given out before it was submitted.  So
 * "X must be durable before Y is written" is a number that Y carries and
 * sync_to(number) before Y; it costs nothing if some other fdatasync came by in
 * the meantime, and fibers that wait at the same moment share one.
 *
 * When nothing else is in flight, the fdatasync is made in the loop's own thread: two thread
 * switches less, a sixth of an install's time in writethrough.  If one took long, the
 * following go to a worker thread again, so that a slow disk does not hold up reads.
 *
 * Number one is whatever was written before us: by a process that was killed, perhaps, and then
 * it lies in the host's memory only.
 *
 * A failed fdatasync is final: the kernel may have dropped the pages and marked
 * them clean, so a later success would mean nothing.  The error stays, and
 * everything that asks for durability from then on fails with it.
 */
#ifndef BLOCKDEV_SYNC_H
#define BLOCKDEV_SYNC_H

#include "blockdev/file/file.h"

struct sync {
	struct file *file;
	uint64_t writes;  /* number of the last host write that completed */
	uint64_t durable; /* all numbers up to here are durable */
	bool running;
	bool never; /* the owner does not care: nothing is made durable, all is said to be */
	bool alone; /* set by the owner: nothing is in flight but those who wait for this */
	unsigned cautious; /* this many more go to a worker thread: one took long */
	int err; /* of the first fdatasync that failed, or sync_give_up() */
	struct fiber_queue q;
};

void sync_init(struct sync *s, struct file *f);

/* A host write (or extension, or truncation) has completed; its number. */
static inline uint64_t sync_note(struct sync *s)
{
	return ++s->writes;
}

/*
 * err, and if it is one it is for good, as that of a failed fdatasync: what the disk holds is not
 * known any more, and nothing may be built on it.
 */
static inline int sync_give_up(struct sync *s, int err)
{
	if (err && !s->err)
		s->err = err;
	return err;
}

/* In a fiber: everything up to number is durable when it returns 0.  -errno is for good. */
must_check int sync_to(struct sync *s, uint64_t number);

#endif
