/* SPDX-License-Identifier: MIT */
/*
 * policy.h - what one power cut leaves, said by a word and a number.
 *
 * The same pending operations, word, number and unit give the same choice, always.
 */
#ifndef CRASH_POLICY_H
#define CRASH_POLICY_H

#include "blockdev/crash/model.h"

enum cut_policy {
	CUT_NONE,    /* nothing of what is pending */
	CUT_ALL,     /* all of it */
	CUT_RANDOM,  /* whole writes, by chance */
	CUT_REORDER, /* and where they overlap, an earlier one over a later one */
	CUT_TORN,    /* torn ones too, in either order */
};
extern const char *const cut_policies[]; /* NULL-terminated, in enum order */

#define CUT_SIZES 8 /* lengths of the file that are told apart */

/*
 * Fills in c, whose fate has room for all of m's pending operations.  unit: bytes of a piece of a
 * torn write, 0: none is torn.
 */
void policy_choose(const struct crash_model *m, enum cut_policy p, uint64_t seed, uint32_t unit,
	struct crash_choice *c);

/* Its parts.  sizes: model_sizes().  All of one fate, with the length that goes with it. */
void choice_all(const struct crash_model *m, const uint64_t *sizes, uint32_t n_sizes, enum fate f,
	struct crash_choice *c);
/* By chance; whole: none is torn. */
void choice_random(const struct crash_model *m, const uint64_t *sizes, uint32_t n_sizes, bool whole,
	uint64_t *rng, struct crash_choice *c);

#endif
