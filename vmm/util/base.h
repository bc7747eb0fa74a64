/* SPDX-License-Identifier: MIT */
/*
 * base.h - what every file may use: attributes, sizes, checked arithmetic.
 */
#ifndef UTIL_BASE_H
#define UTIL_BASE_H

#include <assert.h>
#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define must_check	 __attribute__((warn_unused_result))
#define printf_like(f, a) __attribute__((format(printf, f, a)))
#define maybe_unused	 __attribute__((unused))

#define ARRAY_SIZE(a)	 (sizeof(a) / sizeof((a)[0]))
#define container_of(p, type, member) ((type *)((char *)(p)-offsetof(type, member)))

#define KiB 1024ULL
#define MiB (1024ULL * KiB)
#define GiB (1024ULL * MiB)
#define TiB (1024ULL * GiB)

#define SECTOR 512U /* bytes; the unit of a torn write and of every guest disk */

static inline uint64_t min_u64(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

static inline uint64_t max_u64(uint64_t a, uint64_t b)
{
	return a > b ? a : b;
}

/* Rounding to a power of two.  The caller knows that x + to does not overflow. */
static inline uint64_t round_up(uint64_t x, uint64_t to)
{
	return (x + to - 1) & ~(to - 1);
}

static inline uint64_t round_down(uint64_t x, uint64_t to)
{
	return x & ~(to - 1);
}

static inline uint64_t div_round_up(uint64_t x, uint64_t by)
{
	return x / by + (x % by != 0);
}

static inline bool is_pow2(uint64_t x)
{
	return x && !(x & (x - 1));
}

/* Is [off, off+len) inside [0, size)?  Never overflows. */
static inline bool range_within(uint64_t off, uint64_t len, uint64_t size)
{
	return off <= size && len <= size - off;
}

static inline bool ranges_overlap(uint64_t a, uint64_t a_len, uint64_t b, uint64_t b_len)
{
	return a < b + b_len && b < a + a_len;
}

#endif
