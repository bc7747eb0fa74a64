/* SPDX-License-Identifier: MIT */
/*
 * search.h - which cuts of a recorded guest does a command call broken, and why.
 *
 * First each event with nothing and with everything lost that was not durable yet (with a small
 * budget some events of them, evenly), then what cuts_run() chooses.  A state that fails is made
 * smaller: the fewest lost writes, and of those that were kept the ones that matter (cuts.h).
 * Other failing states that lose and keep at least these are counted with it.
 */
#ifndef CRASH_SEARCH_H
#define CRASH_SEARCH_H

#include "blockdev/crash/checker.h"

struct search_opts {
	struct checker_opts check;
	const struct crash_mark *marks; /* by tick */
	uint64_t n_marks;
	uint64_t states, seed;
	uint64_t from, to; /* ticks; only cuts between them; to 0: to the end */
	uint32_t unit;     /* bytes of a piece of a torn write; 0: writes do not tear */
	bool exhaustive;
	unsigned reasons; /* at most so many are looked for */
	/* By operation of the guest's log: only states in which one of these is lost or torn. */
	const uint8_t *one_of; /* NULL: any state */
	void (*progress)(void *arg, uint64_t done, uint64_t failed);
	void *progress_arg;
	const volatile bool *interrupted; /* by the user; NULL: never */
};

/* Of one guest request that was pending at a cut. */
struct fate_of {
	uint32_t op;  /* in the guest's log */
	uint8_t fate; /* enum fate */
};

/* Why states fail: losing these writes while keeping those. */
struct reason {
	uint64_t at;                /* tick of the cut */
	uint64_t mark;              /* how many marks were set before it */
	struct crash_choice choice; /* the smallest one, of all that was pending */
	struct fate_of *pending;    /* the same; lost ones are those that have to be */
	uint32_t n_pending, n_lost, n_kept;
	uint32_t *lost, *kept; /* into the guest's log: what must be lost, what must be there */
	/*
	 * A flush that came after the first's acknowledgement and before the second's submission
	 * would have prevented it: operations of the guest's log, or SEARCH_NONE: the cut.
	 */
	uint32_t after, before;
	uint64_t states; /* that fail for this reason */
	int status;
	char output[400];
};
#define SEARCH_NONE UINT32_MAX

struct search {
	const struct search_opts *o;
	const struct crash_log *log;
	struct guest_disk disk;
	/* what was found */
	uint64_t states, failed, tried, situations, exhausted;
	struct reason *reason;
	uint32_t n_reasons;
	uint64_t unexplained; /* failing states that no reason above accounts for */
	uint64_t *failed_at;  /* ticks of all that fail, ascending */
	struct search_private *p;
};

/* Not in a fiber.  log: the guest's.  0; -EINTR: interrupted, the rest holds; or -errno with words.
 */
must_check int search_run(struct loop *l, struct search *s, const struct search_opts *o,
	const struct crash_log *log, struct why *why);
void search_fini(struct search *s);

#endif
