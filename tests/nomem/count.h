/* SPDX-License-Identifier: MIT */
/*
 * count.h - what the shared objects for LD_PRELOAD share: the n-th of something fails.
 *
 *   FAIL_AT=N    the N-th from main() on, counted from 1; 0 or unset: none
 *   FAIL_ALL=1   and all after it
 *   FAIL_SAY=F   at exit how many there were is written to file F
 */
#ifndef NOMEM_COUNT_H
#define NOMEM_COUNT_H

#include <stdbool.h>

/* Counts one more; does it fail?  Any thread. */
bool count_fails(void);

#endif
