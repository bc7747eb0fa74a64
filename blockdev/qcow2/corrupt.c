/* SPDX-License-Identifier: MIT */
/*
 * corrupt.c - an image that turns out to be damaged while it is in use.
 *
 * What is found while reading, or while freeing something, fails the request.  What is found
 * while writing is worse: whatever is written next may destroy more.  So the image is marked
 * corrupt, and that is durable before the request is answered: whoever opens it next
 * cannot write either, until check has repaired it.
 *
 * What is only a look into the cache before the real work (q->peeking) says nothing: the fiber that
 * takes over meets the same.
 */
#include <stdarg.h>
#include <stdio.h>
#include "blockdev/qcow2/qcow2.h"

static void tell(bool fatal, const char *what)
{
	if (fatal)
		log_bare("qcow2: Marking image as corrupt: %s; further corruption events will be "
			 "suppressed",
			what);
	else
		log_bare("qcow2: Image is corrupt: %s; further non-fatal corruption events will be "
			 "suppressed",
			what);
}

int qcow2_corrupt(struct qcow2 *q, bool fatal, const char *fmt, ...)
{
	char what[256];
	va_list ap;
	int err = 0;

	fatal = fatal && !q->fmt.readonly;
	if (q->peeking || q->corrupt || (!fatal && q->broken_told))
		return -EIO;
	va_start(ap, fmt);
	vsnprintf(what, sizeof(what), fmt, ap);
	va_end(ap);
	tell(fatal, what);
	q->broken_told = true;
	if (!fatal)
		return -EIO;
	q->corrupt = true; /* nobody else writes anything while the mark is on its way */
	if (q->h.version >= 3 && !q->fmt.sync.err) {
		q->h.incompatible |= QCOW2_INCOMPAT_CORRUPT;
		err = qcow2_header_commit(q);
	}
	if (err)
		log_error("%s: could not be marked as corrupt", q->path);
	sync_give_up(&q->fmt.sync, -ENOMEDIUM);
	return -EIO;
}
