/* SPDX-License-Identifier: MIT */
/*
 * bytes.h - integers with a byte order, so that a forgotten swap does not compile.
 *
 * On-disk and in-ring structures use these types; plain integers are always in
 * host order.  They may lie at any address (packed, alignment 1).
 */
#ifndef UTIL_BYTES_H
#define UTIL_BYTES_H

#include <endian.h>
#include <stdint.h>

#define BYTES_TYPE(name, bits, from, to)                                                           \
	typedef struct {                                                                           \
		uint##bits##_t raw;                                                                \
	} __attribute__((packed)) name##_t;                                                        \
	static inline uint##bits##_t name##_get(name##_t v)                                        \
	{                                                                                          \
		return from(v.raw);                                                                \
	}                                                                                          \
	static inline name##_t name##_make(uint##bits##_t v)                                       \
	{                                                                                          \
		return (name##_t){to(v)};                                                          \
	}

BYTES_TYPE(be16, 16, be16toh, htobe16)
BYTES_TYPE(be32, 32, be32toh, htobe32)
BYTES_TYPE(be64, 64, be64toh, htobe64)
BYTES_TYPE(le16, 16, le16toh, htole16)
BYTES_TYPE(le32, 32, le32toh, htole32)
BYTES_TYPE(le64, 64, le64toh, htole64)

/* Fields of tables that are given by offset and width: the lowest n bytes of v, n from 1 to 8. */
static inline void le_put(uint8_t *p, uint64_t v, unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		p[i] = (uint8_t)(v >> 8 * i);
}

static inline uint64_t le_get(const uint8_t *p, unsigned n)
{
	uint64_t v = 0;

	for (unsigned i = 0; i < n; i++)
		v |= (uint64_t)p[i] << 8 * i;
	return v;
}

static inline void be_put(uint8_t *p, uint64_t v, unsigned n)
{
	for (unsigned i = n; i-- > 0; v >>= 8)
		p[i] = (uint8_t)v;
}

static inline uint64_t be_get(const uint8_t *p, unsigned n)
{
	uint64_t v = 0;

	for (unsigned i = 0; i < n; i++)
		v = v << 8 | p[i];
	return v;
}

#endif
