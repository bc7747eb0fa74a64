/* SPDX-License-Identifier: MIT */
/*
 * progress.h - how far a long command is: -p, a terminal, SIGUSR1.
 *
 * With -p it is qemu-img's "    (12.00/100%)" on standard output.  Without, a command that
 * takes more than two seconds tells a terminal on standard error, with the time left, and wipes
 * that line when it ends.  SIGUSR1 has a line printed on standard error in either case.
 */
#ifndef IMG_PROGRESS_H
#define IMG_PROGRESS_H

#include "vmm/util/base.h"

struct progress {
	bool asked, terminal, shown;
	double printed, now; /* percent; printed < 0: nothing yet */
	uint64_t start_ns, told_ns;
};

/* asked: -p was given; quiet: nothing but errors is to be printed. */
void progress_start(struct progress *p, bool asked, bool quiet);
void progress_set(struct progress *p, uint64_t done, uint64_t total);
/* Ends the line.  ok: all was done. */
void progress_end(struct progress *p);

#endif
