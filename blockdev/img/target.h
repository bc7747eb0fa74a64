/* SPDX-License-Identifier: MIT */
/*
 * target.h - the image that convert and dd make.
 */
#ifndef IMG_TARGET_H
#define IMG_TARGET_H

#include "blockdev/img/open.h"

#define TARGET_LISTS_MAX 16

/* What a new image is to be, as given on the command line. */
struct target {
	const char *name, *format;
	const char *lists[TARGET_LISTS_MAX]; /* -o */
	unsigned n_lists;
	const char *backing, *backing_format; /* -B, -F; or NULL */
	bool quiet;
};

/* A value from the -o lists, the last one given; NULL: none.  The caller frees it. */
char *target_option(const struct target *t, const char *key);
/* Makes the image, size bytes.  Prints why not.  0 or -errno. */
must_check int target_create(const struct target *t, uint64_t size);
/* As 'create -o help'.  Exit status. */
int target_help(const struct target *t);
/* Does a -o list ask for help? */
bool target_wants_help(const struct target *t);

#endif
