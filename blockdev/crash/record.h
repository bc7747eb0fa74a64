/* SPDX-License-Identifier: MIT */
/*
 * record.h - records a disk while a guest uses it: into a log (trace.h), by a thread of its own.
 *
 * recorder_new(), then disk_open() with recorder_tap(), recorder_begin(), the guest's life,
 * disk_close(), recorder_close().  What happens between opening and recorder_begin() is in the log.
 */
#ifndef CRASH_RECORD_H
#define CRASH_RECORD_H

#include "blockdev/block.h"
#include "vmm/util/log.h"

struct recorder;

/* Who set a mark, by the same numbers as in a log (trace.h). */
enum mark_by { MARK_BY_PORT, MARK_BY_SERIAL, MARK_BY_USER };

/*
 * Makes sure that path is, or may become, a log; writes nothing yet.  path stays the caller's.  0,
 * or -errno with words.
 */
must_check int recorder_new(const char *path, struct recorder **out, struct why *why);
struct disk_tap *recorder_tap(struct recorder *r);
/*
 * On the disk's loop, not in a fiber, before the guest's first request: reads the whole disk for
 * its fingerprint, then writes from now on.  0, or -errno with words.
 */
must_check int recorder_begin(
	struct recorder *r, struct loop *l, struct disk *d, struct why *why);
/* Any thread.  Only the first 4096 bytes of the text are kept. */
void recorder_mark(struct recorder *r, enum mark_by by, const char *text, size_t len);
/* The disk is closed, nobody marks any more.  Frees r.  0, or -errno: the log is not complete. */
must_check int recorder_close(struct recorder *r, struct why *why);

#endif
