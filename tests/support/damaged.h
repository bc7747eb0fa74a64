/* SPDX-License-Identifier: MIT */
/*
 * damaged.h - a small qcow2 image in memory, and ways to damage it.
 */
#ifndef TESTS_SUPPORT_DAMAGED_H
#define TESTS_SUPPORT_DAMAGED_H

#include "blockdev/qcow2/format.h"
#include "tests/support/cutfile.h"

#define DAMAGED_DATA 6u /* data clusters: guest clusters 0..5, one after the other in the file */

struct damaged {
	struct cutfile *m;
	struct qcow2_header h;
	uint64_t l2, data; /* offsets in the file */
	uint64_t refblock; /* the first */
};

/* An image with DAMAGED_DATA clusters of data (cluster i filled with 'A' + i); asserts success. */
void damaged_init(
	struct damaged *d, struct cutfile *m, struct loop *l, const struct qcow2_create_opts *o);
uint64_t damaged_entry(const struct damaged *d, uint32_t guest_cluster);
void damaged_set_entry(struct damaged *d, uint32_t guest_cluster, uint64_t v);
void damaged_set_count(struct damaged *d, uint64_t cluster, uint64_t count);

struct damage {
	const char *name;
	void (*inflict)(struct damaged *d);
	const char *line;       /* a finding that check must report */
	uint64_t errors, leaks; /* without fix */
	uint32_t lost;          /* bit i: guest cluster i need not keep its data */
};
extern const struct damage damages[];
extern const int n_damages;

/* qcow2_check() in a fiber; lines (may be NULL) collects what it reports. */
struct lines {
	char text[16384];
	size_t used;
};
int check_run(struct cutfile *m, unsigned fix, struct qcow2_check *res, struct lines *lines);

#endif
