/* SPDX-License-Identifier: MIT */
/*
 * cluster_set.h - a set of host clusters, asked for every write: 64 of them to a bit mask, masks
 * in a hash table.  Holds what is scattered over any file in 16 bytes for each place.
 */
#ifndef QCOW2_CLUSTER_SET_H
#define QCOW2_CLUSTER_SET_H

#include "vmm/util/base.h"

struct cluster_group {
	uint64_t key;  /* cluster / 64 + 1; 0: a free slot */
	uint64_t mask; /* may be 0: all were taken out again */
};

struct cluster_set {
	struct cluster_group *g;
	uint32_t bits; /* 1 << bits slots, a quarter of them free at least; g == NULL: none */
	uint32_t used;
};

/* -ENOMEM: some of them may be missing. */
must_check int cluster_set_add(struct cluster_set *s, uint64_t first, uint64_t n);
void cluster_set_remove(struct cluster_set *s, uint64_t cluster);
void cluster_set_fini(struct cluster_set *s);

/* The slot with the key, or the free one where it belongs. */
static inline struct cluster_group *cluster_slot(const struct cluster_set *s, uint64_t key)
{
	uint32_t mask = (1u << s->bits) - 1;
	uint32_t i = (uint32_t)(key * 0x9e3779b97f4a7c15ULL >> (64 - s->bits));

	while (s->g[i].key && s->g[i].key != key)
		i = (i + 1) & mask;
	return &s->g[i];
}

/* Of the n clusters from first on, those in first's group. */
static inline uint64_t cluster_mask(uint64_t first, uint64_t n)
{
	uint64_t from = first % 64, k = min_u64(n, 64 - from);

	return (k == 64 ? ~0ULL : (1ULL << k) - 1) << from;
}

/* Is one of [first, first+n) in it? */
static inline bool cluster_set_hits(const struct cluster_set *s, uint64_t first, uint64_t n)
{
	if (!s->used)
		return false;
	while (n) {
		uint64_t k = min_u64(n, 64 - first % 64);

		if (cluster_slot(s, first / 64 + 1)->mask & cluster_mask(first, k))
			return true;
		first += k;
		n -= k;
	}
	return false;
}

#endif
