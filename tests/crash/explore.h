/* SPDX-License-Identifier: MIT */
/*
 * explore.h - the explorer from the inside, for explore.c and repair.c.
 */
#ifndef TESTS_CRASH_EXPLORE_H
#define TESTS_CRASH_EXPLORE_H

#include "tests/crash/crash.h"

#define SIZES_MAX 8

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
	uint64_t rng;
	uint8_t *buf;
	char why[256]; /* what the last judgement found */
};

void explorer_init(struct explorer *e, struct loop *l, const struct run_log *r,
	const struct explore_opts *o, struct tally *t);
void explorer_fini(struct explorer *e);
/* e->state after the cut: true if it keeps the contract, else e->why says what.  Uses it up. */
bool explorer_judge(struct explorer *e);
/* A random choice into e->c; e->sizes must be filled. */
void explorer_random(struct explorer *e);
bool explorer_dirty(const struct mem_image *m);
/* The last tick of each situation of a log; the caller frees. */
uint64_t *explorer_ticks(const struct crash_log *log, uint64_t *n);

#endif
