/* SPDX-License-Identifier: MIT */
/*
 * cuts.h - enumerates what the cuts of one recording may leave, each state once.
 *
 * A situation is a set of durable and a set of pending operations; it lasts for some ticks.
 * The states of a situation are choices among the pending ones (model.h).  Exhaustive: with at
 * most CUTS_EXHAUSTIVE writes pending every subset of them, with every length of the file, in
 * both orders if two of them overlap.  Sampled (seeded): with more, and for torn writes always:
 * the two extremes, all writes of one group lost or kept, one write lost or kept, random subsets.
 *
 * No state is visited twice.  Two states are the same if the image holds the same bytes and the
 * user's number of promises is the same: who judges the first has judged the second.
 */
#ifndef CRASH_CUTS_H
#define CRASH_CUTS_H

#include "blockdev/crash/facts.h"
#include "blockdev/crash/policy.h"
#include "blockdev/crash/seen.h"

#define CUTS_EXHAUSTIVE 12 /* pending writes */

struct cuts {
	struct crash_model model;
	struct facts facts;    /* what each sector of the state in hand holds, if usable */
	struct crash_choice c; /* the state in hand */
	struct mem_image state;
	uint64_t sizes[CUT_SIZES];
	uint32_t n_sizes;
	uint32_t *data; /* which pending operations have data: positions in model.pending */
	uint32_t n_data;
	uint64_t rng;
	struct seen own_seen, *seen;
	uint64_t tried, found;          /* choices; states that were not met before */
	uint64_t situations, exhausted; /* cuts_run(): looked at; none of its states left out */
	bool stop;                      /* set by anybody: enough */
	/* The user's, set after cuts_init(). */
	uint64_t from, to;             /* ticks: cuts_run() stays between them; to 0: to the end */
	uint64_t promises;             /* what was promised at this cut, as a number */
	bool whole;                    /* writes do not tear */
	bool exhaustive;               /* wherever few writes are pending, whatever the budget */
	void (*visit)(struct cuts *k); /* a new state is in c */
	/* Is the state in c, met before or not, as it should be?  For cuts_minimise(). */
	bool (*holds)(struct cuts *k);
	void (*moved)(struct cuts *k); /* to model.at, by cuts_run(); NULL: nobody cares */
	unsigned n_groups;             /* 0: none */
	unsigned (*group_of)(struct cuts *k, const struct host_op *o); /* below n_groups */
	void *arg;
};

/* Log and start stay the caller's.  hashes: see facts.h. */
void cuts_init(
	struct cuts *k, const struct crash_log *log, const struct mem_image *start, bool hashes);
void cuts_fini(struct cuts *k);
/* The last tick of each situation of a log; the caller frees. */
uint64_t *cuts_ticks(const struct crash_log *log, uint64_t *n);
/* Moves the cut, forward, and fills in what choices are made from. */
void cuts_at(struct cuts *k, uint64_t tick);
/* The same for a model that was moved already. */
void cuts_situation(struct cuts *k);
/* Sets all fates and the length that goes with them. */
void cuts_set_all(struct cuts *k, enum fate f);
void cuts_random(struct cuts *k);
/* Takes c as the state in hand, which facts then tell. */
void cuts_take(struct cuts *k);
/* A number for that state: equal if image and promises are. */
uint64_t cuts_key(struct cuts *k);
/* Takes c; false if that state was met before. */
bool cuts_is_new(struct cuts *k);
/*
 * Visits about so many new states of all situations; with fewer than these want, some are left
 * out, at random.  What one does not use goes to those that follow.
 */
void cuts_run(struct cuts *k, uint64_t budget);
/*
 * c does not hold.  Afterwards it has the fewest lost operations with which it still does not, lost
 * rather than torn: none of them can be kept.
 */
void cuts_minimise(struct cuts *k);
/*
 * The same for what is kept: of the operations that c keeps, which must be there for it to fail?
 * needed, by pending operation: those; the others may be lost as well.  Leaves c as it was.
 */
void cuts_needed(struct cuts *k, uint8_t *needed);

#endif
