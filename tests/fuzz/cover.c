/* SPDX-License-Identifier: MIT */
/*
 * cover.c - takes the driver's place under clang -fsanitize=fuzzer, which looks for inputs that
 * reach new code.  Half of its mutations are its own, half are ours (mutate.c).
 *
 *   make COVER=1 CC=clang fuzzers && build-san/tests/fuzz/fuzz_qcow2 --seeds SEEDS
 *   build-cover/tests/fuzz/fuzz_qcow2 -timeout=300 -detect_leaks=0 -close_fd_mask=2 CORPUS SEEDS
 */
#include "tests/fuzz/fuzz.h"
#include "vmm/util/base.h"

size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t max);
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max, unsigned seed);

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max, unsigned seed)
{
	uint64_t rng = (seed + 1ULL) * 0x9e3779b97f4a7c15ULL | 1;

	if (!size || fuzz_random(&rng, 2))
		return LLVMFuzzerMutate(data, size, max);
	for (uint64_t n = 1 + fuzz_random(&rng, 3); n; n--)
		size = fuzz_damage(&rng, data, size);
	return size;
}
