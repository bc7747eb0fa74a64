/* SPDX-License-Identifier: MIT */
/*
 * stats.h - the figures of a run as JSON.
 */
#ifndef VMM_STATS_H
#define VMM_STATS_H

#include "vmm/machine.h"

struct stats_out;

/* "-" is standard output.  Opened before the run, so that a bad path is told before it. */
must_check int stats_open(const char *path, struct stats_out **out, struct why *why);
must_check int stats_write(struct stats_out *o, const struct machine_config *c,
	const struct machine_report *r, struct why *why);
void stats_close(struct stats_out *o); /* NULL is fine */

#endif
