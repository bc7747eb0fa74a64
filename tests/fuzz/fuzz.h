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

#endif
