/* SPDX-License-Identifier: MIT */
/*
 * spill.h - room for more than there is memory: a file without a name, mapped.
 *
 * It lies in $TMPDIR, else in /var/tmp: /tmp may itself be memory.  Pages that were not written are
 * zeros and cost nothing.  One thread.
 */
#ifndef CRASH_SPILL_H
#define CRASH_SPILL_H

#include <stdint.h>
#include "vmm/util/base.h"

struct spill {
	uint8_t *at; /* NULL: bytes is 0, or it is not open */
	uint64_t bytes, used;
};

/* 0 or -errno. */
must_check int spill_open(struct spill *s, uint64_t bytes);
void spill_close(struct spill *s);
/* So many bytes more were written or read; now and then memory is given back to the kernel. */
void spill_used(struct spill *s, uint64_t bytes);

#endif
