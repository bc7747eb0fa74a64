/* SPDX-License-Identifier: MIT */
/*
 * explore.h - the explorer from the inside.
 */
#ifndef TESTS_CRASH_EXPLORE_H
#define TESTS_CRASH_EXPLORE_H

#include "tests/crash/crash.h"
#include "blockdev/crash/cuts.h"
#include "tests/crash/memo.h"
#include "tests/crash/roles.h"

#define EXPLORER_BUF_SECTORS 2048 /* in one read */

struct explorer {
	struct loop *loop;
	const struct run_log *r;
	const struct explore_opts *o;
	struct tally *t;
	struct cuts k;
	struct oracle oracle;
	uint8_t *buf;
	char why[256]; /* what the last judgement found */
	struct roles roles;
	struct memo own_memo, *memo;
};

void explorer_init(struct explorer *e, struct loop *l, const struct run_log *r,
	const struct explore_opts *o, struct tally *t);
/* Like e, but for cuts of another log, which begins at another image. */
void explorer_init_on(struct explorer *in, struct explorer *e, const struct crash_log *log,
	const struct mem_image *start);
void explorer_fini(struct explorer *e);
/* Moves the cut of model and oracle, and fills in what the choices are made from. */
void explorer_at(struct explorer *e, uint64_t tick);
/* Takes e->k.c as the state; false if it was judged before. */
bool explorer_is_new(struct explorer *e);
/* Judges what explorer_is_new() took, in full or from what is known. */
bool explorer_verdict(struct explorer *e);
/* Builds and judges e->k.c, whether it was judged before or not. */
bool explorer_holds(struct explorer *e);
/* A state that does not hold: counts it, minimises it, says how to see it again. */
void explorer_violation(struct explorer *e);
/* One line for each pending operation and what became of it. */
void explorer_print_pending(const struct explorer *e);

/* judge.c: does e->k.state keep the contract?  If not e->why says why.  Uses the state up. */
bool explorer_judge(struct explorer *e);
/* The same, noting in e->memo what it came from; known: what was noted before, must agree. */
bool explorer_judge_noting(struct explorer *e, const struct memo_leaf *known);
/* The guest's data where the leaf says it lies, by e->k.facts alone. */
bool explorer_judge_data(struct explorer *e, const struct memo_leaf *l);
bool explorer_dirty(const struct mem_image *m);

/* cases.c: e->k.c fails; says (and keeps, if asked) the line of the case.  Changes e->k.c. */
void case_from(struct explorer *e);

#endif
