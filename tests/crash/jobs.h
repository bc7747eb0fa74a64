/* SPDX-License-Identifier: MIT */
/*
 * jobs.h - independent tasks, several at once, each in a process of its own.
 *
 * Processes and not threads: a task that aborts takes nobody with it, and what the block layer
 * keeps for the whole program (the log's level, what was said once) is each task's own.  What a
 * task prints appears when all before it have printed.
 */
#ifndef TESTS_CRASH_JOBS_H
#define TESTS_CRASH_JOBS_H

#include "tests/crash/crash.h"

struct jobs {
	unsigned n, at_once;
	void (*run)(unsigned i, struct tally *t, void *arg);
	const char *(*name)(unsigned i, void *arg);
	void *arg;
	bool until_caught; /* start no more after the first violation, and end those that run */
};

/* With one at a time all run in this process.  tally: of each task, filled in as it runs. */
must_check int jobs_run(const struct jobs *j, const struct tally **tally);

#endif
