/* SPDX-License-Identifier: MIT */
/*
 * bitmaps.h - dirty bitmaps that go along with a copy of their disk.
 */
#ifndef IMG_BITMAPS_H
#define IMG_BITMAPS_H

#include "blockdev/block.h"

/* Can those of d be copied, before there is a copy?  Prints why not.  0 or -errno. */
must_check int img_bitmaps_check(struct disk *d, bool skip_broken);
/* Not in a fiber: all but broken ones are made anew on another disk.  Prints.  0 or -errno. */
must_check int img_bitmaps_copy(struct loop *l, struct disk *from, struct disk *to);

#endif
