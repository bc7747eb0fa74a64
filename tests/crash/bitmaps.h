/* SPDX-License-Identifier: MIT */
/*
 * bitmaps.h - dirty bitmaps in the crash explorer.
 *
 * The workload keeps its own account of what is noted in each bitmap, and one copy of that from
 * each clean close.  A state may hold bitmaps that are in use, or none: but one that it calls good
 * must be bit for bit what the last close wrote, nothing may have been written since, and after a
 * close that succeeded they must all be there.
 */
#ifndef TESTS_CRASH_BITMAPS_H
#define TESTS_CRASH_BITMAPS_H

#include "tests/crash/explore.h"

#define CRASH_BITMAPS  4
#define CRASH_SESSIONS 3

struct crash_bitmap {
	bool there, enabled;
	unsigned grain_bits;
	uint8_t *noted; /* by sector: its granule was written to */
};

/* What the bitmaps were when a disk was closed, and when that was. */
struct crash_close {
	struct crash_bitmap b[CRASH_BITMAPS];
	/* Ticks; opening begins, and has ended. */
	uint64_t begun, done, reopening, opened;
};

/* The workload's side; all zeros at first. */
struct bitmaps_work {
	struct crash_bitmap b[CRASH_BITMAPS];
	uint64_t n_sectors;
};

/* A guest's request is about to change these sectors. */
void bitmaps_wrote(struct bitmaps_work *w, const struct guest_op *op);
/* In a fiber, nothing else in flight: changes one of them.  0 or -errno. */
must_check int bitmaps_step(
	struct bitmaps_work *w, struct run_log *r, struct disk *d, uint64_t *rng);
/* The disk is about to be closed; has been; is about to be opened; has been. */
void bitmaps_closing(const struct bitmaps_work *w, struct run_log *r);
void bitmaps_closed(struct run_log *r, int err);
void bitmaps_opening(struct run_log *r);
void bitmaps_opened(struct run_log *r);
void bitmaps_fini(struct bitmaps_work *w);
void bitmaps_free(struct run_log *r);

/* Of a state that nobody has opened yet: see above.  If not e->why says why. */
bool bitmaps_judge(struct explorer *e);

#endif
