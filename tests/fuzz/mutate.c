/* SPDX-License-Identifier: MIT */
/*
 * mutate.c - damage as images know it: big-endian words that name places, cut files, pieces moved.
 *
 * Half of it goes where the headers are, a quarter to words that are not zero: most of an image
 * is zeros that nobody looks at.
 */
#include <string.h>
#include "tests/fuzz/fuzz.h"
#include "vmm/util/base.h"
#include "vmm/util/bytes.h"

uint64_t fuzz_random(uint64_t *state, uint64_t below)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return *state % below;
}

/* A word such as a format might hold: a place in the file, with flags, or a limit. */
static uint64_t a_word(uint64_t *rng, size_t size)
{
	static const uint64_t limits[] = { 0, 1, 2, 0x7f, 0xff, 0x200, 0xffff, 0x10000,
		0x7fffffff, 0x80000000, 0xffffffff, INT64_MAX, 1ULL << 63, UINT64_MAX,
		0x00fffffffffffe00, UINT64_MAX - 511 };
	uint64_t place = fuzz_random(rng, size + 4096) & ~511ULL;

	switch (fuzz_random(rng, 4)) {
	case 0:
		return limits[fuzz_random(rng, ARRAY_SIZE(limits))];
	case 1:
		return place | fuzz_random(rng, 4) << 62 | (fuzz_random(rng, 8) == 0);
	case 2:
		return 1ULL << fuzz_random(rng, 64);
	default:
		return fuzz_random(rng, UINT64_MAX);
	}
}

static size_t a_place(uint64_t *rng, const uint8_t *data, size_t size)
{
	size_t at = 0;

	if (fuzz_random(rng, 2))
		return fuzz_random(rng, min_u64(size, 512));
	for (unsigned tries = fuzz_random(rng, 2) ? 64 : 1; tries; tries--) {
		at = fuzz_random(rng, size);
		if (data[at])
			break;
	}
	return at;
}

size_t fuzz_damage(uint64_t *rng, uint8_t *data, size_t size)
{
	size_t at = a_place(rng, data, size);
	be64_t w64 = be64_make(a_word(rng, size));
	be32_t w32 = be32_make((uint32_t)a_word(rng, size));

	switch (fuzz_random(rng, 8)) {
	case 0:
		data[at] ^= (uint8_t)(1 << fuzz_random(rng, 8));
		break;
	case 1:
		data[at] = (uint8_t)fuzz_random(rng, 256);
		break;
	case 2:
	case 3:
		at &= ~3ULL;
		if (range_within(at, 4, size))
			memcpy(data + at, &w32, 4);
		break;
	case 4: { /* a piece of it elsewhere */
		size_t len = 1ULL << fuzz_random(rng, 10), from = fuzz_random(rng, size);

		if (range_within(at, len, size) && range_within(from, len, size))
			memmove(data + at, data + from, len);
		break;
	}
	case 5:
		if (fuzz_random(rng, 4) == 0)
			size = at + 1;
		break;
	default:
		at &= ~7ULL;
		if (range_within(at, 8, size))
			memcpy(data + at, &w64, 8);
	}
	return size;
}
