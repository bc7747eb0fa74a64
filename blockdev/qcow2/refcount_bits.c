/* SPDX-License-Identifier: MIT */
/*
 * refcount_bits.c - one count inside a refcount block, of any width from 1 to 64 bits.
 *
 * Counts of a byte and more are big-endian; narrower ones fill each byte from its
 * least significant bit up (qcow2 spec: refcount block entry).
 */
#include "blockdev/qcow2/format.h"

uint64_t qcow2_refcount_get(const void *block, uint32_t i, uint32_t order)
{
	const uint8_t *bytes = block;

	switch (order) {
	case 0:
	case 1:
	case 2: {
		uint32_t per_byte = 8u >> order, bits = 1u << order;

		return (uint8_t)(bytes[i / per_byte] >> (i % per_byte * bits)) & ((1u << bits) - 1);
	}
	case 3:
		return bytes[i];
	case 4:
		return be16_get(((const be16_t *)block)[i]);
	case 5:
		return be32_get(((const be32_t *)block)[i]);
	}
	assert(order == 6);
	return be64_get(((const be64_t *)block)[i]);
}

void qcow2_refcount_set(void *block, uint32_t i, uint32_t order, uint64_t value)
{
	uint8_t *bytes = block;

	assert(order == 6 || value >> (1u << order) == 0);
	switch (order) {
	case 0:
	case 1:
	case 2: {
		uint32_t per_byte = 8u >> order, bits = 1u << order, shift = i % per_byte * bits;
		uint8_t mask = (uint8_t)(((1u << bits) - 1) << shift);

		bytes[i / per_byte] = (uint8_t)((bytes[i / per_byte] & ~mask) | (value << shift));
		return;
	}
	case 3:
		bytes[i] = (uint8_t)value;
		return;
	case 4:
		((be16_t *)block)[i] = be16_make((uint16_t)value);
		return;
	case 5:
		((be32_t *)block)[i] = be32_make((uint32_t)value);
		return;
	}
	assert(order == 6);
	((be64_t *)block)[i] = be64_make(value);
}
