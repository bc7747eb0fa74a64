/* SPDX-License-Identifier: MIT */
/*
 * slow.h - two filters that are a worse host: one whose answers take longer, one that gets full.
 */
#ifndef LIVE_SLOW_H
#define LIVE_SLOW_H

#include "blockdev/file/file.h"

/* Nanoseconds that each answer takes longer than the host's own; others are not delayed. */
struct slow_delays {
	uint64_t read, write, flush;
};
/* Takes f over.  0 or -ENOMEM. */
must_check int slow_open(struct file *f, const struct slow_delays *d, struct file **out);

/*
 * The host has room for so many bytes more, in blocks of 4 KiB that its file has not yet; then
 * -ENOSPC for what needs one.  Room given back is not counted.  host: f, or below it, the host's
 * own file.  Takes f over.  0 or -ENOMEM.
 */
must_check int full_open(struct file *f, struct file *host, uint64_t bytes, struct file **out);

#endif
