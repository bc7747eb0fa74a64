/* SPDX-License-Identifier: MIT */
/*
 * window.h - two files that lie one behind the other in a third.
 *
 * An image and its external data file are recorded, cut and rebuilt as one file: first the data
 * file, which has one length for ever, then the image.  An fdatasync says with offset and length
 * which part it covers, so that of what is pending a cut takes from both files independently.
 */
#ifndef CRASH_WINDOW_H
#define CRASH_WINDOW_H

#include "blockdev/file/file.h"

/*
 * The first bytes of f as *first, of that length, and the rest as *rest, which closes f.  first
 * NULL: not wanted.  Takes f over.  0 or -ENOMEM.
 */
must_check int window_pair(
	struct file *f, uint64_t bytes, struct file **first, struct file **rest);

#endif
