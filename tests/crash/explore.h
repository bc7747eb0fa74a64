/* SPDX-License-Identifier: MIT */
/*
 * explore.h - the explorer from the inside.
 */
#ifndef TESTS_CRASH_EXPLORE_H
#define TESTS_CRASH_EXPLORE_H

#include "tests/crash/crash.h"
#include "tests/crash/facts.h"
#include "tests/crash/memo.h"
#include "tests/crash/roles.h"

#define SIZES_MAX            8
#define EXPLORER_BUF_SECTORS 2048 /* in one read */

struct explorer {
	struct loop *loop;
	const struct run_log *r;
	const struct explore_opts *o;
	struct tally *t;
	struct crash_model model;
	struct oracle oracle;
	struct mem_image state;
	struct crash_choice c;
	uint64_t sizes[SIZES_MAX];
	uint32_t n_sizes;
	uint32_t *data; /* which pending operations have data: positions in model.pending */
	uint32_t n_data;
	uint64_t rng;
	uint8_t *buf;
	char why[256]; /* what the last judgement found */
	struct roles roles;
	struct seen own_seen, *seen;
	struct facts facts;
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
/* The same for a model that was moved already. */
void explorer_situation(struct explorer *e);
/* Sets all fates and the length that goes with them. */
void explorer_set_all(struct explorer *e, enum fate f);
/* A random choice into e->c. */
void explorer_random(struct explorer *e);
/* Takes e->c as the state; false if it was judged before. */
bool explorer_is_new(struct explorer *e);
/* Judges what explorer_is_new() took, in full or from what is known. */
bool explorer_verdict(struct explorer *e);
/* Builds and judges e->c, whether it was judged before or not. */
bool explorer_holds(struct explorer *e);
/* A state that does not hold: counts it, minimises it, says how to see it again. */
void explorer_violation(struct explorer *e);
/* One line for each pending operation and what became of it. */
void explorer_print_pending(const struct explorer *e);
/* The last tick of each situation of a log; the caller frees. */
uint64_t *explorer_ticks(const struct crash_log *log, uint64_t *n);

/* judge.c: does e->state keep the contract?  If not e->why says why.  Uses the state up. */
bool explorer_judge(struct explorer *e);
/* The same, noting in e->memo what it came from; known: what was noted before, must agree. */
bool explorer_judge_noting(struct explorer *e, const struct memo_leaf *known);
/* The guest's data where the leaf says it lies, by e->facts alone. */
bool explorer_judge_data(struct explorer *e, const struct memo_leaf *l);
bool explorer_dirty(const struct mem_image *m);

/* cases.c: e->c fails; says (and keeps, if asked) the line of the case.  Changes e->c. */
void case_from(struct explorer *e);

#endif
