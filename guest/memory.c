/* SPDX-License-Identifier: MIT */
/*
 * memory.c - gives out the largest hole in the machine's RAM, once.
 *
 * Memory above 1 MiB and below 4 GiB that is RAM in the loader's map and holds neither the guest
 * nor anything the loader left for it.  The rest is not used.  What is given is zeroed, and so
 * touched before any clock runs.
 */
#include "guest/guest.h"

static struct ram_range hole;

static void widest(struct ram_range r, const struct ram_range *used, unsigned n_used)
{
	/* Cut r at the first used range that overlaps it; both ends are candidates again. */
	for (unsigned i = 0; i < n_used; i++) {
		const struct ram_range *u = &used[i];

		if (u->end <= r.start || u->start >= r.end)
			continue;
		if (u->start > r.start)
			widest((struct ram_range){r.start, u->start}, used, n_used);
		if (u->end < r.end)
			widest((struct ram_range){u->end, r.end}, used, n_used);
		return;
	}
	if (r.end - r.start > hole.end - hole.start)
		hole = r;
}

void memory_init(
	const struct ram_range *ram, unsigned n_ram, const struct ram_range *used, unsigned n_used)
{
	for (unsigned i = 0; i < n_ram; i++) {
		struct ram_range r = ram[i];

		r.start = MAX(r.start, 1u << 20);
		r.end = MIN(r.end, 1ull << 32);
		if (r.start < r.end)
			widest(r, used, n_used);
	}
	hole.start = (hole.start + PAGE_SIZE - 1) & -(uint64_t)PAGE_SIZE;
	hole.end &= -(uint64_t)PAGE_SIZE;
	if (hole.end <= hole.start)
		fail(STATUS_USAGE, "no free RAM");
}

static _Noreturn void too_small(uint64_t bytes, const char *what)
{
	fail(STATUS_USAGE, "RAM too small: %lu KiB needed for %s, %lu KiB free", bytes >> 10, what,
		(hole.end - hole.start) >> 10);
}

void *memory_alloc(uint64_t bytes, uint64_t align, const char *what)
{
	uint64_t at = (hole.start + align - 1) & -align;

	if (at > hole.end || bytes > hole.end - at)
		too_small(bytes, what);
	hole.start = at + bytes;
	return memset((void *)at, 0, bytes);
}

void *memory_alloc_top(uint64_t bytes, const char *what)
{
	bytes = (bytes + PAGE_SIZE - 1) & -(uint64_t)PAGE_SIZE;
	if (bytes > hole.end - hole.start)
		too_small(bytes, what);
	hole.end -= bytes;
	return memset((void *)hole.end, 0, bytes);
}

struct ram_range memory_free(void)
{
	return hole;
}
