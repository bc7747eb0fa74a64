/* SPDX-License-Identifier: MIT */
/*
 * snapshots.h - what the guest's disk and each of its snapshots hold, exactly; where requests are
 * in flight, but for the sectors that two of them wrote to at the same time.
 */
#ifndef TESTS_CRASH_SNAPSHOTS_H
#define TESTS_CRASH_SNAPSHOTS_H

#include "tests/crash/explore.h"

#define SNAPSHOTS_KEPT 3

struct crash_snapshot {
	char name[16];
	uint64_t born, gone; /* ticks: it must be there from .. before; gone may be NEVER */
	uint32_t *version;   /* by sector; SNAPSHOT_UNSURE: one of several */
};
#define SNAPSHOT_UNSURE UINT32_MAX

/* The workload's side; all zeros at first. */
struct snapshots {
	uint32_t *now; /* version by sector */
	uint64_t n_sectors;
	uint32_t live[SNAPSHOTS_KEPT]; /* 1 + index into the run's; 0: none */
	bool lost; /* an operation failed: what the disk holds is not known any more */
	bool in_flight; /* so are requests, when one is made or deleted */
	struct crash_snapshot *taken; /* on its way; what is submitted from now on is not in it */
	uint64_t taken_at;            /* tick */
	struct snapshots_sector {
		uint16_t busy; /* writes that are on their way there */
		bool mixed;    /* there were several */
	} *flight; /* by sector */
};

/* By sector; what it holds now is the caller's to say. */
void snapshots_init(struct snapshots *s, uint64_t n_sectors, bool in_flight);
/* A write of the guest's begins; has ended so, as the log has it; has changed nothing. */
void snapshots_writes(struct snapshots *s, const struct guest_op *op);
void snapshots_wrote(struct snapshots *s, const struct guest_op *op, int err);
void snapshots_refused(struct snapshots *s, const struct guest_op *op);
/*
 * In a fiber, nothing else in flight: creates, applies or deletes one.  With in_flight: in no
 * fiber, creates or deletes one.  0 or -errno.
 */
must_check int snapshots_step(
	struct snapshots *s, struct run_log *r, struct disk *d, uint64_t *rng);
void snapshots_fini(struct snapshots *s);
void snapshots_free(struct run_log *r);

/* Does e->state hold what each snapshot held that must be there?  If not e->why says why. */
bool snapshots_judge(struct explorer *e);

#endif
