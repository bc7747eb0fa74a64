/* SPDX-License-Identifier: MIT */
/*
 * wcache.h - a filter that is a disk's volatile write cache.
 *
 * What is written stays in memory, and reads see it; an fdatasync writes it to the file below
 * and syncs that.  So the file below always is what a power cut that loses everything would
 * leave, and what is in the cache is what such a cut may lose.
 *
 * A cache has an end: when it is full, the oldest half goes to the file without an fdatasync.
 */
#ifndef LIVE_WCACHE_H
#define LIVE_WCACHE_H

#include "blockdev/live/live.h"

/* Told, on the loop, that an fdatasync is asked for and has not begun; may end in wcache_die(). */
struct wcache_user {
	void (*syncing)(struct wcache_user *u);
};

/*
 * Takes f, which is no image's in the place of a file, over; u stays the caller's.  What is in the
 * cache when it is closed alive is written.  0 or -ENOMEM.
 */
must_check int wcache_open(struct file *f, struct wcache_user *u, struct file **out);
/* From now on the file answers nothing but -ESHUTDOWN.  What is being synced is still written. */
void wcache_die(struct file *f);

/*
 * In a fiber, dead, nothing in flight: the file below becomes what the power cut leaves; see
 * policy.h.  Adds to *sum.  0 or -errno of the host.
 */
must_check int wcache_cut(struct file *f, enum cut_policy p, uint64_t seed, uint32_t unit,
	struct live_left *sum);

#endif
