/* SPDX-License-Identifier: MIT */
/*
 * mem.c - jobs about the machine itself: all its RAM is there and is distinct, all its CPUs start.
 *
 * `mem` gives each page of the free hole its own address and looks at all of them afterwards; the
 * other pages of RAM are written with what they hold.
 */
#include "guest/guest.h"

#define STAMP 0x6d656d2d73747570ULL

static uint64_t touch(uint64_t start, uint64_t end)
{
	uint64_t pages = 0;

	for (uint64_t at = start; at + 8 <= end; at += PAGE_SIZE, pages++) {
		volatile uint64_t *p = (volatile uint64_t *)at;

		*p = *p;
	}
	return pages;
}

int job_mem(void)
{
	const struct ram_range *ram;
	struct ram_range hole = memory_free();
	unsigned n = ram_ranges(&ram);
	uint64_t limit = (uint64_t)MAPPED_GIB << 30, bytes = 0, unmapped = 0, bad = 0,
		 begin = rdtsc();

	for (unsigned i = 0; i < n; i++) {
		uint64_t start = MAX(ram[i].start, PAGE_SIZE), end = MIN(ram[i].end, limit);

		bytes += ram[i].end - ram[i].start;
		if (ram[i].end > limit)
			unmapped += ram[i].end - MAX(limit, ram[i].start);
		if (start < end)
			touch(start, end);
	}
	for (uint64_t at = hole.start; at < hole.end; at += PAGE_SIZE)
		*(volatile uint64_t *)at = at ^ STAMP;
	for (uint64_t at = hole.start; at < hole.end; at += PAGE_SIZE)
		bad += *(volatile uint64_t *)at != (at ^ STAMP);
	report("mem ranges=%u bytes=%lu untouched=%lu stamped=%lu bad=%lu usec=%lu", n, bytes,
		unmapped, hole.end - hole.start, bad, usec_since(begin));
	return bad ? STATUS_DATA : STATUS_OK;
}

int job_smp(void)
{
	unsigned expected = (unsigned)option_u64("smp", 255, 1, 255), started;
	uint64_t begin = rdtsc();

	start_other_cpus(expected);
	started = ap_count + 1;
	report("smp cpus=%u usec=%lu", started, usec_since(begin));
	return option_str("smp", NULL) && started != expected ? STATUS_DEVICE : STATUS_OK;
}
