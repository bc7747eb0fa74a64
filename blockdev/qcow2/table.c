/* SPDX-License-Identifier: MIT */
/*
 * table.c - the tables that are kept whole in memory: L1 and the refcount table.
 *
 * They are held as they lie on disk, so that writing a dirty sector is a copy.
 */
#include <stdlib.h>
#include "blockdev/qcow2/qcow2.h"

#define PER_SECTOR (SECTOR / sizeof(be64_t))

/* n may be 0. */
int mem_table_init(struct mem_table *t, uint32_t n, uint64_t host_off)
{
	/* Whole granules of up to 4 KiB are written (commit.c), so there is memory for them. */
	uint64_t sectors = round_up(div_round_up(n, PER_SECTOR) + 1, 8);

	*t = (struct mem_table){.n = n, .host_off = host_off};
	t->e = calloc(sectors, SECTOR);
	t->need = calloc(sectors, sizeof(*t->need));
	t->dirty = calloc(sectors, 1);
	if (t->e && t->need && t->dirty)
		return 0;
	mem_table_fini(t);
	return -ENOMEM;
}

void mem_table_fini(struct mem_table *t)
{
	free(t->e);
	free(t->need);
	free(t->dirty);
	*t = (struct mem_table){0};
}

/* Entry i is v from now on, and may be on disk once number need is durable. */
void mem_table_set(struct mem_table *t, uint32_t i, uint64_t v, uint64_t need)
{
	uint32_t s = i / PER_SECTOR;

	assert(i < t->n);
	t->e[i] = be64_make(v);
	t->need[s] = max_u64(t->need[s], need);
	t->n_dirty += !t->dirty[s];
	t->dirty[s] = 1;
}
