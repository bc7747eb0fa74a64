/* SPDX-License-Identifier: MIT */
/*
 * check.h - what the parts of check and repair share; nobody else includes it.
 */
#ifndef QCOW2_CHECK_H
#define QCOW2_CHECK_H

#include "blockdev/qcow2/format.h"

/*
 * References per cluster, counted by walking everything that can refer to one.  Chunks come
 * to life when one of their clusters is first counted, so a long sparse file costs
 * nothing.
 */
struct refs;
must_check int refs_new(uint64_t clusters, uint32_t refcount_order, struct refs **out);
void refs_free(struct refs *r);
uint64_t refs_get(const struct refs *r, uint64_t cluster); /* 0 outside */
/* The same, at most what the image's refcount width can hold. */
uint64_t refs_count(const struct refs *r, uint64_t cluster);
/* 0, -EOVERFLOW (counted, but the image cannot write it down) or -ENOMEM. */
must_check int refs_add(struct refs *r, uint64_t cluster);
must_check int refs_set(struct refs *r, uint64_t cluster, uint64_t count);
/* First cluster in [from, to) that may have a count; to if there is none. */
uint64_t refs_next(const struct refs *r, uint64_t from, uint64_t to);
/* Clusters that hold the image's own tables. */
must_check int refs_mark_table(struct refs *r, uint64_t cluster);
bool refs_is_table(const struct refs *r, uint64_t cluster);

/* A table in memory and which of its bytes changed, so that a write covers no more than those. */
struct table_buf {
	be64_t *entry;
	uint64_t off; /* in the file */
	uint64_t bytes;
	uint64_t dirty_lo, dirty_hi; /* bytes; lo == hi: clean */
};

/* What qemu-img checks at most; 4 GiB of counters if every cluster were in use. */
#define CHECK_CLUSTERS_MAX ((uint64_t)INT32_MAX)

enum bad_block {
	BLOCK_GOOD,
	BLOCK_OUTSIDE, /* past the end of the file */
	BLOCK_BROKEN,  /* its counts are what they are, but it cannot stay */
};

/* An entry of the snapshot table: where it lies, and what of it counts. */
struct snap {
	uint64_t at, l1_off;
	uint32_t l1_size;
	uint32_t extra, extra_kept; /* bytes of extra data: in the file, and those that stay */
	uint16_t id_bytes, name_bytes;
};

struct snaps {
	struct snap *s;
	uint32_t n;
	uint64_t file_bytes;              /* as long as the file was when the table was read */
	uint64_t bytes;                   /* in the file, up to the last that is kept */
	bool counted;                     /* its clusters are */
	uint64_t over;                    /* of the header's number, those that were too many */
	uint64_t corruptions;             /* what rewriting the table mends */
	uint64_t new_first, new_clusters; /* the rewritten table; 0: none yet */
};

struct chk {
	struct file *file;
	struct qcow2_header h;
	struct qcow2_check *res;
	struct why *why;
	unsigned fix;                  /* what this pass may mend */
	unsigned asked;                /* what the caller wants mended */
	uint64_t file_bytes, clusters; /* clusters: of the file, or the highest counted + 1 */
	uint64_t reach; /* how far the file would go with the refcount blocks that lie outside */
	bool was_dirty;
	bool ext, data_file; /* extended L2 entries; data clusters lie in another file */
	struct refs *refs;
	struct snaps snaps;
	uint64_t *reftable; /* host order, reserved bits kept */
	uint64_t reftable_entries;
	uint64_t reftable_used; /* entries up to the last that is not zero */
	uint8_t *bad_block;     /* per table entry, enum bad_block */
	bool l1_lost;
	bool drops;            /* fix: some entries are to be dropped or cleaned */
	bool rebuild;          /* the counts cannot be mended where they are */
	bool counted_past_end; /* counts for clusters that the file does not have */
	bool again;            /* something was mended in a cluster that has another use as well */
	bool said_unaligned;
	uint64_t l2_walks;
	uint64_t highest; /* cluster in use */
	uint8_t *cluster_buf;
};

void chk_say(struct chk *c, const char *fmt, ...) printf_like(2, 3);
/* The same as an error of the program, with its name before it. */
void chk_error(struct chk *c, const char *fmt, ...) printf_like(2, 3);
/* What a line that reports a damage begins with, counting it as found or as repaired. */
const char *chk_damage(struct chk *c, bool repaired);
/*
 * Counts every cluster of [off, off+len).  A region past the end of the file is
 * reported and not counted; *outside tells (may be NULL).
 */
must_check int chk_count(struct chk *c, uint64_t off, uint64_t len, bool *outside);
must_check int chk_mark_tables(struct chk *c, uint64_t off, uint64_t len);

must_check int table_read(struct chk *c, uint64_t off, uint64_t entries, struct table_buf *t);
void table_set(struct table_buf *t, uint64_t i, uint64_t value);
must_check int table_write_back(struct chk *c, struct table_buf *t);
void table_free(struct table_buf *t);

/* check_walk.c: L1 and L2.  apply: writes the drops that the counting walk announced. */
must_check int walk_l1(struct chk *c, uint64_t l1_off, uint32_t l1_size, bool active, bool apply);
must_check int walk_copied(struct chk *c, bool repair);
/* check_meta.c: what is neither L1 nor L2. */
must_check int meta_mark(struct chk *c);
must_check int meta_extensions(struct chk *c);
must_check int meta_refcounts(struct chk *c);
/* check_snap.c: the snapshot table and what hangs on it. */
must_check int snaps_read(struct chk *c);
must_check int snaps_mark(struct chk *c);
must_check int snaps_count(struct chk *c);
must_check int snaps_apply(struct chk *c); /* drops, as the counting walk announced them */
must_check int snaps_fix(struct chk *c);
/* check_compare.c: counts on disk against references. */
must_check int compare_refcounts(struct chk *c, unsigned fix);
must_check int compare_settle(struct chk *c);
/* The count of a cluster after repair, as far as fix goes. */
uint64_t compare_final(const struct chk *c, uint64_t cluster, uint64_t disk);
/*
 * First cluster in [i, end) that may have a count, on disk or by reference.  block holds the counts
 * from cluster first on; NULL: zeros.
 */
uint64_t compare_next(
	const struct chk *c, const void *block, uint64_t first, uint64_t i, uint64_t end);
/* Without repair: is the count of this cluster in a block that cannot be read? */
bool compare_unreadable(const struct chk *c, uint64_t cluster);
/* repair.c: see there. */
must_check int repair_in_place(struct chk *c);
must_check int repair_rebuild(struct chk *c);
uint64_t repair_first_free(const struct chk *c);
bool repair_has_block(const struct chk *c, uint64_t cluster);

/* check.c: counts everything again, in a file whose refcount structures have changed. */
must_check int chk_recount(struct chk *c);

#endif
