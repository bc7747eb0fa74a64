/* SPDX-License-Identifier: MIT */
/*
 * fuzz.h - between the driver and a target: seeds in, damaged copies out.
 *
 * The target's entry is libFuzzer's, so that a target also links with clang -fsanitize=fuzzer.
 */
#ifndef TESTS_FUZZ_H
#define TESTS_FUZZ_H

#include <stddef.h>
#include <stdint.h>

/* The target's name, for messages and files. */
extern const char fuzz_name[];
/* Makes the n-th valid input: its size, at most size; 0 if there is no n-th. */
size_t fuzz_seed(uint8_t *data, size_t size, unsigned n);
/* Must come back, whatever the input; 0. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* mutate.c.  Below that, at random; *state is not 0. */
uint64_t fuzz_random(uint64_t *state, uint64_t below);
/* Damages size bytes (> 0) in one way; how many there are then, never more. */
size_t fuzz_damage(uint64_t *rng, uint8_t *data, size_t size);

/* Noise, the same for the same n: a seed for targets to which all bytes are steps. */
static inline void fuzz_noise(uint8_t *data, size_t len, unsigned n)
{
	uint64_t s = 0x9e3779b97f4a7c15ULL * (n + 1);

	for (size_t i = 0; i < len; i++) {
		s ^= s << 13;
		s ^= s >> 7;
		s ^= s << 17;
		data[i] = (uint8_t)(s >> 24);
	}
}

#endif
