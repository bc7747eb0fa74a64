/* SPDX-License-Identifier: MIT */
/*
 * snapshot.h - internal snapshots, what their files share.
 *
 *   snapshot_table.c  the table of snapshots: read, kept in memory, written
 *   snapshot_tree.c   all that an L1 table reaches: counts and copied flags, in bulk
 *   snapshot.c        create, apply, delete, look at one
 *   snapshot_expand.c zero clusters in snapshots become what version 2 knows
 */
#ifndef QCOW2_SNAPSHOT_H
#define QCOW2_SNAPSHOT_H

#include "blockdev/qcow2/qcow2.h"

#define SNAPSHOT_EXTRA 24u /* bytes of extra data in an entry that are known */

struct snapshot {
	uint64_t l1_offset;
	uint32_t l1_size; /* entries */
	char *id, *name;  /* terminated here; not on disk */
	uint16_t id_bytes, name_bytes;
	uint32_t sec, nsec;
	uint64_t clock_ns, vm_state_bytes, disk_bytes, icount;
	uint8_t *unknown; /* extra data that we know nothing of, kept */
	uint32_t unknown_bytes;
	uint32_t extra_bytes; /* as they were read: of those we know, some may have been missing */
};

/* ---- snapshot_table.c ---- */

/* 0 with *s new at the end of the table, all zeros but what is given; or -ENOMEM. */
must_check int snapshot_add(
	struct qcow2 *q, const char *id, const char *name, struct snapshot **s);
void snapshot_remove(struct qcow2 *q, uint32_t i);
/* NULL matches all.  The index, or -1. */
int64_t snapshot_find(const struct qcow2 *q, const char *id, const char *name);
/* One more than the highest ID. */
uint64_t snapshot_new_id(const struct qcow2 *q);
/* What the table takes on disk. */
uint64_t snapshot_table_bytes(const struct qcow2 *q);
/*
 * In a fiber, with table_lock: the table, written to new clusters; *r names them, n 0: none.  Also
 * after an error: whoever calls gives them back.
 */
must_check int snapshot_table_write(struct qcow2 *q, struct run *r);

/* ---- snapshot.c: the steps of an operation; the last four with table_lock ---- */

/* In a fiber: everything so far is in the file, and no L2 table in memory. */
must_check int snapshot_settle(struct qcow2 *q);
/* With words for the peer's sake: it prints them after what was tried. */
must_check int snapshot_check_l1(
	const struct qcow2 *q, const struct snapshot *s, struct why *why);
/*
 * In a fiber: the snapshot's L1 table as a table of n entries or more; mem_table_fini() is owed
 * after 0.
 */
must_check int snapshot_load_l1(
	struct qcow2 *q, const struct snapshot *s, uint64_t n, struct mem_table *t);
/* In a fiber.  Durable: a repair is needed from now on (version 3), until snapshot_mark_off(). */
must_check int snapshot_mark_on(struct qcow2 *q);
/* In memory; a lazy image stays marked until it is closed. */
void snapshot_mark_off(struct qcow2 *q);
/* In a fiber: counts, flags and the L1 table are in the file, and durable. */
must_check int snapshot_write_out(struct qcow2 *q);

/* ---- snapshot_expand.c ---- */

/* Called as each entry of an L1 table has been dealt with. */
typedef void tree_step(void *arg);
/*
 * In a fiber, nothing else in flight, the active disk without zero clusters: the snapshots have
 * none either, durably.  -errno; once something has changed it is for good, and
 * the image is left to be repaired.
 */
must_check int snapshot_expand_zeros(struct qcow2 *q, tree_step *step, void *arg);

/* ---- snapshot_tree.c ---- */

/* In a fiber: reads the L2 table that L1 entry e names; *off: where it is, 0: there is none. */
must_check int tree_read_table(struct qcow2 *q, uint64_t e, be64_t *l2, uint64_t *off);

struct tree {
	const be64_t *l1;
	uint32_t n;
};

/*
 * In a fiber, with table_lock: one more count for every cluster that the tree reaches, L2 tables
 * included.  -ERANGE: one is as high as it can be; then all is as it was.
 */
must_check int tree_count_up(struct qcow2 *q, const struct tree *t);
/* The same down; what nobody uses any more is free at once. */
must_check int tree_count_down(struct qcow2 *q, const struct tree *t);
/* n clusters from host cluster first on, of a table that nothing names any more. */
must_check int tree_drop_clusters(struct qcow2 *q, uint64_t first, uint64_t n);

enum tree_flags {
	FLAGS_CLEAR,    /* all is shared now */
	FLAGS_BY_COUNT, /* what is counted once is not */
};
/* In a fiber, with table_lock and no L2 table cached: sets copied flags in the tree's L2 tables. */
must_check int tree_set_flags(struct qcow2 *q, const struct tree *t, enum tree_flags how);
/* The same in the active L1 table. */
must_check int tree_set_l1_flags(struct qcow2 *q, enum tree_flags how);

#endif
