/* SPDX-License-Identifier: MIT */
/*
 * seen.c - see seen.h.
 */
#include <stdlib.h>
#include "blockdev/crash/seen.h"

static void put(uint64_t *slot, uint64_t room, uint64_t key)
{
	uint64_t i = key & (room - 1);

	while (slot[i])
		i = (i + 1) & (room - 1);
	slot[i] = key;
}

static void grow(struct seen *s)
{
	uint64_t room = s->room ? 2 * s->room : 4096, *bigger = calloc(room, sizeof(*bigger));

	if (!bigger)
		abort();
	for (uint64_t i = 0; i < s->room; i++)
		if (s->slot[i])
			put(bigger, room, s->slot[i]);
	free(s->slot);
	s->slot = bigger;
	s->room = room;
}

bool seen_before(struct seen *s, uint64_t key)
{
	key += !key; /* 0 is an empty slot */
	if (s->n * 2 >= s->room)
		grow(s);
	for (uint64_t i = key & (s->room - 1); s->slot[i]; i = (i + 1) & (s->room - 1))
		if (s->slot[i] == key)
			return true;
	put(s->slot, s->room, key);
	s->n++;
	return false;
}

void seen_fini(struct seen *s)
{
	free(s->slot);
	*s = (struct seen){0};
}
