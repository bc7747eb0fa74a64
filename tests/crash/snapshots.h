/* SPDX-License-Identifier: MIT */
/*
 * snapshots.h - what the guest's disk and each of its snapshots hold, exactly; for rows of depth 1.
 */
#ifndef TESTS_CRASH_SNAPSHOTS_H
#define TESTS_CRASH_SNAPSHOTS_H

#include "tests/crash/explore.h"

#define SNAPSHOTS_KEPT 3

struct crash_snapshot {
	char name[16];
	uint64_t born, gone; /* ticks: it must be there from .. before; gone may be NEVER */
	uint32_t *version;   /* by sector */
};

/* The workload's side; all zeros at first. */
struct snapshots {
	uint32_t *now; /* version by sector */
	uint64_t n_sectors;
	uint32_t live[SNAPSHOTS_KEPT]; /* 1 + index into the run's; 0: none */
	bool lost; /* an operation failed: what the disk holds is not known any more */
};

/* A write of the guest's has ended so. */
void snapshots_wrote(struct snapshots *s, const struct guest_op *op, int err);
/* In a fiber, nothing else in flight: creates, applies or deletes one.  0 or -errno. */
must_check int snapshots_step(
	struct snapshots *s, struct run_log *r, struct disk *d, uint64_t *rng);
void snapshots_fini(struct snapshots *s);
void snapshots_free(struct run_log *r);

/* Does e->state hold what each snapshot held that must be there?  If not e->why says why. */
bool snapshots_judge(struct explorer *e);

#endif
