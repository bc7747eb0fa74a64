/* SPDX-License-Identifier: MIT */
/*
 * check_refs.c - how often each cluster is referred to: a sparse array of counters.
 *
 * Two bytes a cluster for refcounts of up to 16 bits, four for wider ones (more than
 * four billion references cannot be made in a file that exists).  A chunk is small, so
 * that an image which scatters its references over a huge sparse file does not
 * turn eight bytes of file into much memory.
 */
#include <stdlib.h>
#include <string.h>
#include "blockdev/qcow2/check.h"

#define CHUNK 2048u /* clusters */

struct chunk {
	uint8_t is_table[CHUNK / 8];
	union {
		uint16_t n16[CHUNK];
		uint32_t n32[CHUNK];
		uint64_t words[CHUNK / 2]; /* to pass over zeros; half as many if not wide */
	};
};

struct refs {
	uint64_t clusters, n_chunks;
	uint64_t limit; /* what the image can write down */
	uint64_t max;   /* what a counter here can hold */
	size_t chunk_bytes;
	bool wide;
	struct chunk **chunk;
};

static int refs_grow(struct refs *r, uint64_t clusters)
{
	uint64_t n = div_round_up(clusters, CHUNK);

	if (n > r->n_chunks) {
		struct chunk **bigger = realloc(r->chunk, n * sizeof(*bigger));

		if (!bigger)
			return -ENOMEM;
		memset(bigger + r->n_chunks, 0, (n - r->n_chunks) * sizeof(*bigger));
		r->chunk = bigger;
		r->n_chunks = n;
	}
	r->clusters = max_u64(r->clusters, clusters);
	return 0;
}

int refs_new(uint64_t clusters, uint32_t order, struct refs **out)
{
	struct refs *r = calloc(1, sizeof(*r));
	int err;

	if (!r)
		return -ENOMEM;
	r->wide = order > 4;
	r->max = r->wide ? UINT32_MAX : UINT16_MAX;
	r->limit = order >= 5 ? UINT32_MAX : (1ULL << (1u << order)) - 1;
	r->chunk_bytes = offsetof(struct chunk, n16) + CHUNK * (r->wide ? 4 : 2);
	err = refs_grow(r, clusters);
	if (err) {
		refs_free(r);
		return err;
	}
	*out = r;
	return 0;
}

void refs_free(struct refs *r)
{
	if (!r)
		return;
	for (uint64_t i = 0; i < r->n_chunks; i++)
		free(r->chunk[i]);
	free(r->chunk);
	free(r);
}

static struct chunk *chunk_of(const struct refs *r, uint64_t cluster)
{
	return cluster / CHUNK < r->n_chunks ? r->chunk[cluster / CHUNK] : NULL;
}

static int chunk_make(struct refs *r, uint64_t cluster, struct chunk **out)
{
	int err = refs_grow(r, cluster + 1);

	if (err)
		return err;
	if (!r->chunk[cluster / CHUNK])
		r->chunk[cluster / CHUNK] = calloc(1, r->chunk_bytes);
	*out = r->chunk[cluster / CHUNK];
	return *out ? 0 : -ENOMEM;
}

uint64_t refs_get(const struct refs *r, uint64_t cluster)
{
	const struct chunk *c = chunk_of(r, cluster);

	if (!c)
		return 0;
	return r->wide ? c->n32[cluster % CHUNK] : c->n16[cluster % CHUNK];
}

int refs_set(struct refs *r, uint64_t cluster, uint64_t count)
{
	struct chunk *c;
	int err;

	if (!count && !chunk_of(r, cluster))
		return 0;
	err = chunk_make(r, cluster, &c);
	if (err)
		return err;
	count = min_u64(count, r->max);
	if (r->wide)
		c->n32[cluster % CHUNK] = (uint32_t)count;
	else
		c->n16[cluster % CHUNK] = (uint16_t)count;
	return 0;
}

/* The inner loop of every check: one branch for the chunk, one for the width. */
int refs_add(struct refs *r, uint64_t cluster)
{
	struct chunk *c = chunk_of(r, cluster);
	uint64_t n;

	if (!c) {
		int err = chunk_make(r, cluster, &c);

		if (err)
			return err;
	}
	if (r->wide) {
		n = c->n32[cluster % CHUNK];
		c->n32[cluster % CHUNK] += n < r->max;
	} else {
		n = c->n16[cluster % CHUNK];
		c->n16[cluster % CHUNK] = (uint16_t)(n + (n < r->max));
	}
	return n < r->limit ? 0 : -EOVERFLOW;
}

uint64_t refs_count(const struct refs *r, uint64_t cluster)
{
	return min_u64(refs_get(r, cluster), r->limit);
}

uint64_t refs_next(const struct refs *r, uint64_t from, uint64_t to)
{
	uint64_t per_word = r->wide ? 2 : 4;

	while (from < to) {
		const struct chunk *c = chunk_of(r, from);

		if (c && c->words[from % CHUNK / per_word])
			return from;
		if (c)
			from += per_word - from % per_word;
		else if (from / CHUNK >= r->n_chunks)
			return to;
		else
			from = (from / CHUNK + 1) * CHUNK;
	}
	return to;
}

int refs_mark_table(struct refs *r, uint64_t cluster)
{
	struct chunk *c;
	int err = chunk_make(r, cluster, &c);

	if (!err)
		c->is_table[cluster % CHUNK / 8] |= (uint8_t)(1u << cluster % 8);
	return err;
}

bool refs_is_table(const struct refs *r, uint64_t cluster)
{
	const struct chunk *c = chunk_of(r, cluster);

	return c && (c->is_table[cluster % CHUNK / 8] >> cluster % 8 & 1);
}
