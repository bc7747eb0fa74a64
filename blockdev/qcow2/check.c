/* SPDX-License-Identifier: MIT */
/*
 * check.c - is an image what it says it is, and the order in which repair makes it so.
 *
 *   1  walk everything that refers to a cluster, counting         (check_walk, check_meta)
 *   2  compare with the counts on disk                            (check_compare)
 *   -- only with fix, and only if there is something to fix --
 *   3  set the dirty bit; flush
 *   4  drop entries that no opener can use                        (check_walk)
 *   5  make the counts right, in place or from nothing            (repair)
 *   -- always --
 *   6  check the copied flags against the counts, mending them    (check_walk)
 *   7  write the snapshot table anew if it was broken             (check_snap)
 *   8  flush; clear the dirty and the corrupt bit; flush
 *
 * From 3 to 8 the image is marked dirty (version 3), so after a cut anywhere the next
 * opener starts again at 1, and each step leaves an image on which 1 finds what is still to
 * do.  4 comes before 5, so when repair takes fresh clusters at the end of the
 * file, no entry names one of them.  Leaks alone are mended in place without the dirty bit:
 * any subset of lowered counts is a better image.
 *
 * Where tables overlap, what was mended last may have broken what was read first: then all
 * of it again.
 *
 * Findings are worded as qemu-img words them.
 */
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "blockdev/qcow2/check.h"

#define PASSES 8 /* over an image whose tables overlap; two or three do */

void chk_say(struct chk *c, const char *fmt, ...)
{
	char line[512];
	va_list ap;

	if (!c->res->report)
		return;
	va_start(ap, fmt);
	vsnprintf(line, sizeof(line), fmt, ap);
	va_end(ap);
	c->res->report(c->res->report_arg, line);
}

void chk_error(struct chk *c, const char *fmt, ...)
{
	char line[512];
	va_list ap;

	if (!c->res->report)
		return;
	va_start(ap, fmt);
	vsnprintf(line, sizeof(line), fmt, ap);
	va_end(ap);
	log_error("%s", line);
}

const char *chk_damage(struct chk *c, bool repaired)
{
	if (repaired)
		c->res->corruptions_fixed++;
	else
		c->res->corruptions++;
	return repaired ? "Repairing" : "ERROR";
}

int chk_count(struct chk *c, uint64_t off, uint64_t len, bool *outside)
{
	uint64_t end = c->file_bytes + c->h.cluster_size, first, last;

	if (outside)
		*outside = false;
	if (!len)
		return 0;
	/* The last cluster of a file may be there in part only. */
	if (off >= end || len >= end - off) {
		chk_say(c,
			"%s: counting reference for region exceeding the end of the file by one "
			"cluster or more: offset 0x%" PRIx64 " size 0x%" PRIx64,
			chk_damage(c, false), off, len);
		if (outside)
			*outside = true;
		return 0;
	}
	first = off >> c->h.cluster_bits;
	last = (off + len - 1) >> c->h.cluster_bits;
	for (uint64_t i = first; i <= last; i++) {
		int err = refs_add(c->refs, i);

		if (err == -EOVERFLOW) {
			chk_say(c, "%s: overflow cluster offset=0x%" PRIx64, chk_damage(c, false),
				i << c->h.cluster_bits);
			chk_say(c, "Use qemu-img amend to increase the refcount entry width or "
				   "qemu-img "
				   "convert to create a clean copy if the image cannot be opened "
				   "for writing");
		} else if (err) {
			return err;
		}
	}
	c->clusters = max_u64(c->clusters, last + 1);
	return 0;
}

int chk_mark_tables(struct chk *c, uint64_t off, uint64_t len)
{
	uint64_t last;

	if (!len || off >= c->file_bytes)
		return 0;
	last = min_u64(off + len, c->file_bytes) - 1;
	for (uint64_t i = off >> c->h.cluster_bits; i <= last >> c->h.cluster_bits; i++) {
		int err = refs_mark_table(c->refs, i);

		if (err)
			return err;
	}
	return 0;
}

int table_read(struct chk *c, uint64_t off, uint64_t entries, struct table_buf *t)
{
	int err;

	*t = (struct table_buf){.off = off, .bytes = entries * 8};
	t->entry = file_buf(round_up(t->bytes, SECTOR));
	if (!t->entry)
		return -ENOMEM;
	err = file_pread(c->file, t->entry, t->bytes, off);
	if (err) {
		table_free(t);
		return why_set(c->why, err, "Could not read the table at 0x%" PRIx64 ": %s", off,
			strerror(-err));
	}
	return 0;
}

void table_set(struct table_buf *t, uint64_t i, uint64_t value)
{
	t->entry[i] = be64_make(value);
	if (t->dirty_lo == t->dirty_hi)
		t->dirty_lo = t->dirty_hi = i * 8;
	t->dirty_lo = min_u64(t->dirty_lo, i * 8);
	t->dirty_hi = max_u64(t->dirty_hi, i * 8 + 8);
}

int table_write_back(struct chk *c, struct table_buf *t)
{
	uint64_t lo = round_down(t->dirty_lo, SECTOR);
	uint64_t hi = min_u64(round_up(t->dirty_hi, SECTOR), t->bytes);
	unsigned shift = c->h.cluster_bits;

	if (t->dirty_lo == t->dirty_hi)
		return 0;
	t->dirty_lo = t->dirty_hi = 0;
	for (uint64_t i = (t->off + lo) >> shift; i <= (t->off + hi - 1) >> shift; i++)
		c->again |= refs_get(c->refs, i) > 1;
	return file_pwrite(c->file, (uint8_t *)t->entry + lo, hi - lo, t->off + lo);
}

void table_free(struct table_buf *t)
{
	free(t->entry);
	t->entry = NULL;
}

static int reftable_read(struct chk *c)
{
	uint64_t n = ((uint64_t)c->h.reftable_clusters << c->h.cluster_bits) / 8;
	struct table_buf t;
	int err;

	c->bad_block = calloc(n + 1, 1);
	c->reftable = calloc(n + 1, sizeof(*c->reftable));
	if (!c->reftable || !c->bad_block)
		return -ENOMEM;
	err = table_read(c, c->h.reftable_offset, n, &t);
	if (err)
		return err;
	c->reftable_entries = c->reftable_used = n;
	while (c->reftable_used && !be64_get(t.entry[c->reftable_used - 1]))
		c->reftable_used--;
	for (uint64_t i = 0; i < c->reftable_used; i++)
		c->reftable[i] = be64_get(t.entry[i]);
	table_free(&t);
	return 0;
}

/* What the length of the file says; again after repair has made it longer. */
static int measure(struct chk *c)
{
	c->file_bytes = file_size(c->file);
	c->clusters = div_round_up(c->file_bytes, c->h.cluster_size);
	if (c->clusters > CHECK_CLUSTERS_MAX)
		return why_set(c->why, -EFBIG, "The image file is too large to be checked");
	refs_free(c->refs);
	c->refs = NULL;
	return refs_new(c->clusters + 1, c->h.refcount_order, &c->refs);
}

static int setup(struct chk *c)
{
	int err = qcow2_header_read_to_check(c->file, &c->h, c->why);

	if (err)
		return err;
	if (c->h.unknown_features[0])
		return why_set(c->why, -ENOTSUP, "Unsupported qcow2 feature(s): %s",
			c->h.unknown_features);
	c->ext = (c->h.incompatible & QCOW2_INCOMPAT_EXTL2) != 0;
	c->data_file = (c->h.incompatible & QCOW2_INCOMPAT_DATA_FILE) != 0;
	c->was_dirty = (c->h.incompatible & QCOW2_INCOMPAT_DIRTY) != 0;
	c->res->total_clusters = div_round_up(c->h.size, c->h.cluster_size);
	c->cluster_buf = file_buf(c->h.cluster_size);
	if (!c->cluster_buf)
		return -ENOMEM;
	err = measure(c);
	return err ? err : reftable_read(c);
}

static int count_all(struct chk *c)
{
	int err = meta_mark(c);

	if (!err)
		err = chk_count(c, 0, c->h.cluster_size, NULL);
	if (!err)
		err = walk_l1(c, c->h.l1_offset, c->h.l1_size, true, false);
	if (!err)
		err = snaps_count(c);
	if (!err)
		err = meta_extensions(c);
	return err ? err : meta_refcounts(c);
}

int chk_recount(struct chk *c)
{
	struct qcow2_check *res = c->res;
	int err;

	free(c->reftable);
	free(c->bad_block);
	c->reftable = NULL;
	c->bad_block = NULL;
	err = measure(c);
	if (!err)
		err = reftable_read(c);
	if (err)
		return err;
	res->corruptions = res->leaks = 0;
	res->allocated_clusters = res->compressed_clusters = res->fragmented_clusters = 0;
	c->l2_walks = 0;
	c->rebuild = false;
	c->fix = 0;
	err = count_all(c);
	c->fix = c->asked;
	return err;
}

/* qcow2 spec: who does not know an autoclear bit clears it before the first write. */
static int clear_unknown_autoclear(struct chk *c)
{
	uint64_t known = c->h.autoclear & (QCOW2_AUTOCLEAR_BITMAPS | QCOW2_AUTOCLEAR_DATA_RAW);
	int err;

	if (!c->fix || c->h.autoclear == known)
		return 0;
	c->h.autoclear = known;
	err = qcow2_header_write(c->file, &c->h);
	return err ? err : file_fdatasync(c->file);
}

static int mark_dirty(struct chk *c)
{
	int err;

	if (c->h.version < 3 || (c->h.incompatible & QCOW2_INCOMPAT_DIRTY))
		return 0;
	c->h.incompatible |= QCOW2_INCOMPAT_DIRTY;
	err = qcow2_header_write(c->file, &c->h);
	return err ? err : file_fdatasync(c->file);
}

/* Durable before a count goes down: repair raises counts first, or writes new ones, and flushes. */
static int apply_drops(struct chk *c)
{
	int err;

	c->l2_walks = 0;
	err = walk_l1(c, c->h.l1_offset, c->h.l1_size, true, true);
	return err ? err : snaps_apply(c);
}

/* From nothing.  What was found before and is not found afterwards has been mended. */
static int rebuild_counts(struct chk *c)
{
	struct qcow2_check *res = c->res, old = *res;
	int err;

	err = repair_rebuild(c);
	if (err)
		return err;
	res->refcounts_rebuilt = true;
	if (old.corruptions > res->corruptions)
		res->corruptions_fixed += old.corruptions - res->corruptions;
	if (old.leaks > res->leaks)
		res->leaks_fixed += old.leaks - res->leaks;
	return 0;
}

/* Steps 3 to 5.  found: what the comparison has just added to the counters. */
static int fix_counts(struct chk *c, uint64_t leaks, uint64_t corruptions)
{
	struct qcow2_check *res = c->res;
	bool errors = (c->fix & QCOW2_FIX_ERRORS) != 0, rebuild = c->rebuild, outside = false;
	int err = 0;

	for (uint64_t i = 0; i < c->reftable_used; i++)
		outside |= errors && c->bad_block[i] == BLOCK_OUTSIDE;
	if (!leaks && !corruptions && !c->drops && !rebuild && !outside && !c->counted_past_end)
		return 0;
	if (c->l1_lost) /* everything would look leaked, and be given away */
		return why_set(c->why, -EIO,
			"The L1 table lies outside the image file; nothing was "
			"repaired");
	if (rebuild && !errors) {
		chk_say(c, "ERROR need to rebuild refcount structures");
		return -EIO;
	}
	if (rebuild) {
		chk_say(c, "Rebuilding refcount structure");
	} else {
		res->leaks -= leaks;
		res->corruptions -= corruptions;
		err = compare_refcounts(c, c->fix);
	}
	if (!err && errors)
		err = mark_dirty(c);
	if (!err && errors && c->drops)
		err = apply_drops(c);
	if (err)
		return err;
	return rebuild ? rebuild_counts(c) : repair_in_place(c);
}

static int fix_snapshots(struct chk *c)
{
	int err = 0;

	if (c->snaps.corruptions && (c->fix & QCOW2_FIX_ERRORS))
		err = mark_dirty(c);
	return err ? err : snaps_fix(c);
}

static int finish(struct chk *c)
{
	uint64_t marks = QCOW2_INCOMPAT_DIRTY | QCOW2_INCOMPAT_CORRUPT;
	struct qcow2_check *res = c->res;
	int err;

	if (!c->fix)
		return 0;
	if (res->leaks_fixed || res->corruptions_fixed || res->refcounts_rebuilt) {
		err = file_fdatasync(c->file);
		if (err)
			return err;
	}
	/* What repair cannot mend stays as it was, marks included. */
	if (res->corruptions || res->check_errors)
		marks = c->was_dirty ? 0 : QCOW2_INCOMPAT_DIRTY;
	if (!(c->h.incompatible & marks))
		return 0;
	c->h.incompatible &= ~marks;
	err = qcow2_header_write(c->file, &c->h);
	return err ? err : file_fdatasync(c->file);
}

static int run(struct chk *c)
{
	struct qcow2_check *res = c->res;
	uint64_t leaks, corruptions;
	bool mend_flags;
	int err;

	err = setup(c);
	/* What a killed process wrote may not be durable, and repair builds on all of it. */
	if (!err && c->fix)
		err = file_fdatasync(c->file);
	if (!err)
		err = snaps_read(c);
	if (!err)
		err = count_all(c);
	if (err)
		return err;
	err = clear_unknown_autoclear(c);
	if (err)
		return err;
	leaks = res->leaks;
	corruptions = res->corruptions;
	err = compare_refcounts(c, 0);
	if (!err && c->fix)
		err = fix_counts(c, res->leaks - leaks, res->corruptions - corruptions);
	if (!err)
		err = compare_settle(c);
	if (err)
		return err;
	res->image_end_offset = (c->highest + 1) << c->h.cluster_bits;
	mend_flags = (c->fix & QCOW2_FIX_ERRORS) ||
		     (c->fix && !res->corruptions && !res->leaks && !res->check_errors);
	err = walk_copied(c, mend_flags);
	if (!err)
		err = fix_snapshots(c);
	return err ? err : finish(c);
}

/* One pass over the image.  again: what it counted does not hold any more. */
static int pass(struct file *f, unsigned fix, struct qcow2_check *res, bool *again, struct why *why)
{
	struct chk *c = calloc(1, sizeof(*c));
	int err;

	if (!c)
		return -ENOMEM;
	c->file = f;
	c->fix = c->asked = fix;
	c->res = res;
	c->why = why;
	err = run(c);
	*again = c->again;
	refs_free(c->refs);
	free(c->snaps.s);
	free(c->reftable);
	free(c->bad_block);
	free(c->cluster_buf);
	free(c);
	return err;
}

/*
 * Where tables lie on top of each other, mending one changes what was read of the other.  Then
 * all is done anew, without a word: what is left in the end is said by whoever checks once more.
 */
int qcow2_check(struct file *f, unsigned fix, struct qcow2_check *res, struct why *why)
{
	uint64_t corruptions = 0, leaks = 0;
	bool again = false, rebuilt = false;
	int err;

	for (int i = 0; i < PASSES; i++) {
		void (*report)(void *, const char *) = i ? NULL : res->report;
		void *arg = res->report_arg;

		*res = (struct qcow2_check){.report = report, .report_arg = arg};
		err = pass(f, fix, res, &again, why);
		corruptions += res->corruptions_fixed;
		leaks += res->leaks_fixed;
		rebuilt |= res->refcounts_rebuilt;
		if (err || !again)
			break;
	}
	res->corruptions_fixed = corruptions;
	res->leaks_fixed = leaks;
	res->refcounts_rebuilt = rebuilt;
	res->check_errors += again && !err;
	return err;
}
