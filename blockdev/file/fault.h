/* SPDX-License-Identifier: MIT */
/*
 * fault.h - a filter that makes chosen operations fail, for tests and for people who test.
 */
#ifndef FILE_FAULT_H
#define FILE_FAULT_H

#include "blockdev/file/file.h"

struct fault_rule {
	/* the caller's */
	unsigned ops;	   /* bits of enum file_op: FAULT_ON(FILE_WRITE) | ... */
	uint64_t nth;	   /* the first matching operation to fail; 1 is the next one */
	bool and_all_after;
	int err;	   /* -errno that it fails with */
	uint64_t off, len; /* only operations that touch this range; len 0: any */
	/* A WRITE first gets this much of it done, then fails; 0: nothing is done. */
	uint64_t partly;   /* bytes */
	/* the filter's; the caller may read it */
	uint64_t matched, failed;
	struct list link;
};

#define FAULT_ON(op) (1U << (op))

/* Takes over below from success on; closing the result closes both. */
must_check int fault_open(struct file *below, struct file **out);
/* rule belongs to the caller and stays until fault_remove() or the file is closed. */
void fault_add(struct file *f, struct fault_rule *rule);
void fault_remove(struct fault_rule *rule);

#endif
