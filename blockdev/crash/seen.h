/* SPDX-License-Identifier: MIT */
/*
 * seen.h - a set of 64-bit numbers: digests of the states that were judged already; and chance.
 */
#ifndef CRASH_SEEN_H
#define CRASH_SEEN_H

#include <stdbool.h>
#include <stdint.h>

struct seen {
	uint64_t *slot, room, n;
};
/* Adds it.  A zeroed struct is empty. */
bool seen_before(struct seen *s, uint64_t key);
void seen_fini(struct seen *s);

/* One seed gives one sequence, everywhere and always. */
static inline uint64_t rng_next(uint64_t *s)
{
	uint64_t z = *s += 0x9E3779B97F4A7C15ULL;

	z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9ULL;
	z = (z ^ z >> 27) * 0x94D049BB133111EBULL;
	return z ^ z >> 31;
}

#endif
