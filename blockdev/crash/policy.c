/* SPDX-License-Identifier: MIT */
/*
 * policy.c - see policy.h.
 */
#include <string.h>
#include "blockdev/crash/policy.h"
#include "blockdev/crash/seen.h"

const char *const cut_policies[] = {"none", "all", "random", "reorder", "torn", NULL};

void choice_all(const struct crash_model *m, const uint64_t *sizes, uint32_t n_sizes, enum fate f,
	struct crash_choice *c)
{
	memset(c->fate, f, m->n_pending);
	c->size = sizes[f == FATE_WHOLE ? n_sizes - 1 : 0];
	c->reversed = false;
	c->tear = 1;
}

void choice_random(const struct crash_model *m, const uint64_t *sizes, uint32_t n_sizes, bool whole,
	uint64_t *rng, struct crash_choice *c)
{
	uint64_t keep = rng_next(rng) % 5, torn = rng_next(rng) % 3;

	for (uint32_t i = 0; i < m->n_pending; i++) {
		uint64_t n = rng_next(rng) % 8;

		c->fate[i] = n < keep * 2 ? FATE_WHOLE : FATE_LOST;
		if (rng_next(rng) % 8 < torn && !whole)
			c->fate[i] = FATE_TORN;
	}
	c->tear = rng_next(rng) | 1;
	c->reversed = rng_next(rng) & 1;
	c->size = sizes[rng_next(rng) % n_sizes];
}

void policy_choose(const struct crash_model *m, enum cut_policy p, uint64_t seed, uint32_t unit,
	struct crash_choice *c)
{
	uint64_t sizes[CUT_SIZES], rng = seed ^ 0x5eed;
	uint32_t n = model_sizes(m, sizes, CUT_SIZES);

	c->unit = unit ? unit : SECTOR;
	if (p == CUT_NONE || p == CUT_ALL) {
		choice_all(m, sizes, n, p == CUT_ALL ? FATE_WHOLE : FATE_LOST, c);
		return;
	}
	choice_random(m, sizes, n, p != CUT_TORN || !unit, &rng, c);
	if (p != CUT_TORN)
		c->reversed = p == CUT_REORDER;
}
