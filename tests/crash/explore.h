/* SPDX-License-Identifier: MIT */
/*
 * explore.h - the library's explorer (blockdev/crash/explorer.h) at work on a run of a row.
 */
#ifndef TESTS_CRASH_EXPLORE_H
#define TESTS_CRASH_EXPLORE_H

#include "tests/crash/crash.h"

struct work {
	struct explorer e;
	struct subject subject;
	const struct run_log *r;
	const struct explore_opts *o;
	struct tally *t;
};

static inline struct work *work_of(const struct explorer *e)
{
	return e->arg;
}

void work_init(struct work *w, struct loop *l, const struct run_log *r,
	const struct explore_opts *o, struct tally *t);
void work_fini(struct work *w);

/* A state that does not hold: counts it, minimises it, says how to see it again. */
void explorer_violation(struct explorer *e);
/* One line for each pending operation and what became of it. */
void explorer_print_pending(const struct explorer *e);

/* cases.c: e->k.c fails; says (and keeps, if asked) the line of the case.  Changes e->k.c. */
void case_from(struct explorer *e);

#endif
