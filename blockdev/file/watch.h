/* SPDX-License-Identifier: MIT */
/*
 * watch.h - a filter that tells somebody of every operation but reads, and changes none.
 */
#ifndef FILE_WATCH_H
#define FILE_WATCH_H

#include "blockdev/file/file.h"

/* On the file's loop.  submitted() gives the operation a number, which completed() gets back. */
struct file_watch {
	uint64_t (*submitted)(struct file_watch *w, const struct file_req *r);
	void (*completed)(struct file_watch *w, uint64_t number, int err);
};

/* w stays the caller's and outlives the filter.  Takes f over.  0 or -ENOMEM. */
must_check int watch_open(struct file *f, struct file_watch *w, struct file **out);

#endif
