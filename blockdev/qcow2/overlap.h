/* SPDX-License-Identifier: MIT */
/*
 * overlap.h - no write may hit metadata that is not what it means to write.
 *
 * Private to blockdev/qcow2/.
 */
#ifndef QCOW2_OVERLAP_H
#define QCOW2_OVERLAP_H

#include "blockdev/qcow2/cluster_set.h"

struct qcow2;

struct overlap {
	unsigned classes; /* OVERLAP_*: those that are looked at */
	bool stale;       /* the sets must be made anew */
	struct cluster_set active_l2, refcount_block, inactive_l1, inactive_l2;
};

void qcow2_overlap_init(struct qcow2 *q, unsigned classes);
void qcow2_overlap_fini(struct qcow2 *q);
/*
 * From cache only: is it certain that a write of len bytes at host_off hits no metadata but that
 * of the classes in own?  false: ask qcow2_overlap_check().
 */
must_check bool qcow2_overlap_none(
	const struct qcow2 *q, unsigned own, uint64_t host_off, uint64_t len);
/*
 * In a fiber.  0: the write may go ahead.  -EIO: it would destroy metadata; the image has been
 * marked corrupt, durably, and nothing may be written any more.  -ENOMEDIUM: it was so before.
 */
must_check int qcow2_overlap_check(struct qcow2 *q, unsigned own, uint64_t host_off, uint64_t len);
/* A table names this cluster as an L2 table or refcount block from now on. */
void qcow2_overlap_add(struct qcow2 *q, unsigned class, uint64_t cluster);
/* Snapshots were made or went, or L1 was replaced. */
void qcow2_overlap_forget(struct qcow2 *q);

/* ---- corrupt.c ---- */

/*
 * In a fiber.  Says once what is wrong with the image; returns -EIO.  Fatal, and the image is
 * writable: it is marked corrupt first (version 3), durably, and every request fails from then on.
 */
int qcow2_corrupt(struct qcow2 *q, bool fatal, const char *fmt, ...) printf_like(3, 4);

#endif
