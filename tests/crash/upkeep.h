/* SPDX-License-Identifier: MIT */
/*
 * upkeep.h - what an image tool does to a disk, between the requests of a guest: a smaller disk
 * and its growth, an emptied layer, another backing name, other features.
 */
#ifndef TESTS_CRASH_UPKEEP_H
#define TESTS_CRASH_UPKEEP_H

#include "tests/crash/explore.h"

struct backing_name {
	uint64_t submitted, done; /* ticks */
	int err;
	uint32_t len; /* so many times the letter */
	char letter;
};

/* In a fiber, nothing in flight: one of them.  0 or -errno. */
must_check int upkeep_step(struct run_log *r, struct disk *d, uint64_t *rng);
/* In no fiber, under what is in flight: another size.  0 or -errno. */
must_check int upkeep_resize_live(struct run_log *r, struct disk *d, uint64_t *rng);
void upkeep_free(struct run_log *r);

/* Does e->state have a backing name that it may have at the cut?  If not e->why says why. */
bool upkeep_judge(struct explorer *e);

#endif
