/* SPDX-License-Identifier: MIT */
/* cluster_set.c - see cluster_set.h.  Slots are found by linear probing and never given back. */
#include <stdlib.h>
#include "blockdev/qcow2/cluster_set.h"

#define BITS_MIN 6

static int grow(struct cluster_set *s)
{
	struct cluster_set bigger = {.bits = s->g ? s->bits + 1 : BITS_MIN, .used = s->used};

	if (bigger.bits > 31)
		return -ENOMEM;
	bigger.g = calloc(1u << bigger.bits, sizeof(*bigger.g));
	if (!bigger.g)
		return -ENOMEM;
	for (uint32_t i = 0; s->g && i < 1u << s->bits; i++)
		if (s->g[i].key)
			*cluster_slot(&bigger, s->g[i].key) = s->g[i];
	free(s->g);
	*s = bigger;
	return 0;
}

int cluster_set_add(struct cluster_set *s, uint64_t first, uint64_t n)
{
	while (n) {
		uint64_t key = first / 64 + 1, k = min_u64(n, 64 - first % 64);
		struct cluster_group *g;

		if (!s->g || s->used >= 3u << (s->bits - 2)) {
			int err = grow(s);

			if (err)
				return err;
		}
		g = cluster_slot(s, key);
		s->used += !g->key;
		g->key = key;
		g->mask |= cluster_mask(first, k);
		first += k;
		n -= k;
	}
	return 0;
}

void cluster_set_remove(struct cluster_set *s, uint64_t cluster)
{
	if (s->g)
		cluster_slot(s, cluster / 64 + 1)->mask &= ~cluster_mask(cluster, 1);
}

void cluster_set_fini(struct cluster_set *s)
{
	free(s->g);
	*s = (struct cluster_set){0};
}
