/* SPDX-License-Identifier: MIT */
/*
 * window.h - two files that lie one behind the other in a third.
 *
 * An image and its external data file, or an image and its overlay, are recorded, cut and rebuilt
 * as one file: first the data file or the image below, then the other.  An fdatasync says with
 * offset and length which part it covers, so that of what is pending a cut takes from both files
 * independently.
 *
 * The first has one length for ever.  Or it grows into room that is there for it: then its length
 * is no part of what a cut takes, and reads as zeros where it was not written.
 */
#ifndef CRASH_WINDOW_H
#define CRASH_WINDOW_H

#include "blockdev/file/file.h"

/*
 * The first bytes of f as *first, of that length, and the rest as *rest; the last that is closed
 * closes f.  first NULL: not wanted.  Takes f over.  0 or -ENOMEM.
 */
must_check int window_pair(
	struct file *f, uint64_t bytes, struct file **first, struct file **rest);
/* What such a one shows, once more.  0 or -ENOMEM. */
must_check int window_again(struct file *window, struct file **out);
/* The first one is so long as yet, and what it was given is room. */
void window_grows(struct file *first, uint64_t size);

#endif
