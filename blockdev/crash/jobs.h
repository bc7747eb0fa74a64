/* SPDX-License-Identifier: MIT */
/*
 * jobs.h - independent tasks, several at once, each in a process of its own.
 *
 * Processes and not threads: a task that aborts takes nobody with it, and what the block layer
 * keeps for the whole program (the log's level, what was said once) is each task's own.  What a
 * task prints appears when all before it have printed.
 */
#ifndef CRASH_JOBS_H
#define CRASH_JOBS_H

#include "vmm/util/base.h"

struct jobs {
	unsigned n, at_once;
	size_t result_size; /* bytes of what a task says of itself, shared while it runs */
	void (*run)(unsigned i, void *result, void *arg);
	const char *(*name)(unsigned i, void *arg);
	uint64_t *(*failures)(void *result); /* where a task that dies is counted */
	/* A line for a terminal, of all results. */
	void (*progress)(const void *results, unsigned n, char *line, size_t room);
	void *arg;
	bool until_caught; /* start no more after the first failure, and end those that run */
};

/*
 * With one at a time all run in this process.  results: of each task, filled in as it runs; never
 * freed.  0 or -errno.
 */
must_check int jobs_run(const struct jobs *j, void **results);

#endif
