/* SPDX-License-Identifier: MIT */
/*
 * pattern.h - what a sector contains when (sector, version) was written to it.
 *
 * The guest writes it, guest and host tests read it back: any 512 bytes tell which sector they
 * belong to and which write they come from, and a torn or misplaced sector does not decode.
 * Version 0 is never written; a sector of zeros decodes as PATTERN_ZERO.
 */
#ifndef GUEST_PATTERN_H
#define GUEST_PATTERN_H

#include <stdint.h>

#define PATTERN_WORDS 64
#define PATTERN_TAG   0x534c5543ULL /* high half of word 0 */
#define PATTERN_MIX   0x9E3779B97F4A7C15ULL

enum pattern_kind { PATTERN_BAD, PATTERN_ZERO, PATTERN_OK };

/* sector512: 512 bytes, aligned to 8. */
static inline void pattern_fill(void *sector512, uint64_t sector, uint32_t version)
{
	uint64_t *w = (uint64_t *)sector512;
	uint64_t word0 = (PATTERN_TAG << 32) | version;
	uint64_t base = word0 ^ (sector * PATTERN_MIX);

	w[0] = word0;
	w[1] = sector;
	for (unsigned k = 2; k < PATTERN_WORDS; k++)
		w[k] = base + k;
}

/* PATTERN_OK sets *sector and *version to what the sector says it is; else they are 0. */
static inline enum pattern_kind pattern_check(
	const void *sector512, uint64_t *sector, uint32_t *version)
{
	const uint64_t *w = (const uint64_t *)sector512;
	uint64_t base = w[0] ^ (w[1] * PATTERN_MIX), differ = 0, any = w[0] | w[1];

	*sector = 0;
	*version = 0;
	for (unsigned k = 2; k < PATTERN_WORDS; k++) {
		differ |= w[k] ^ (base + k);
		any |= w[k];
	}
	if (any == 0)
		return PATTERN_ZERO;
	if (differ || w[0] >> 32 != PATTERN_TAG || (uint32_t)w[0] == 0)
		return PATTERN_BAD;
	*sector = w[1];
	*version = (uint32_t)w[0];
	return PATTERN_OK;
}

/* Whether the sector holds exactly (sector, version): cheaper than decoding. */
static inline int pattern_is(const void *sector512, uint64_t sector, uint32_t version)
{
	const uint64_t *w = (const uint64_t *)sector512;
	uint64_t word0 = (PATTERN_TAG << 32) | version;
	uint64_t base = word0 ^ (sector * PATTERN_MIX);
	uint64_t differ = (w[0] ^ word0) | (w[1] ^ sector);

	for (unsigned k = 2; k < PATTERN_WORDS; k++)
		differ |= w[k] ^ (base + k);
	return differ == 0;
}

#endif
