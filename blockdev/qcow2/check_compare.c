/* SPDX-License-Identifier: MIT */
/*
 * check_compare.c - the counts on disk against the references that were found.
 */
#include <inttypes.h>
#include <string.h>
#include "blockdev/qcow2/check.h"

/* Reads refcount block b; absent ones and those that lie nowhere count nothing. */
static int block_read(struct chk *c, uint64_t b, void *buf, bool *present)
{
	uint64_t off = b < c->reftable_entries ? c->reftable[b] & ~QCOW2_REFTABLE_RESERVED : 0;

	*present = off && off % c->h.cluster_size == 0 && off < c->file_bytes;
	return *present ? file_pread(c->file, buf, c->h.cluster_size, off) : 0;
}

static bool unreadable(const struct chk *c, uint64_t b)
{
	uint64_t off = b < c->reftable_used ? c->reftable[b] & ~QCOW2_REFTABLE_RESERVED : 0;

	return !c->fix && (off % c->h.cluster_size || off > (uint64_t)INT64_MAX);
}

bool compare_unreadable(const struct chk *c, uint64_t cluster)
{
	return unreadable(c, cluster / qcow2_refblock_entries(&c->h));
}

#define LINE 64u /* bytes that are passed over at once; a cluster has whole ones */

static bool line_empty(const void *block, uint64_t line)
{
	const uint64_t *w = (const uint64_t *)block + line * (LINE / 8);

	return !(w[0] | w[1] | w[2] | w[3] | w[4] | w[5] | w[6] | w[7]);
}

uint64_t compare_next(
	const struct chk *c, const void *block, uint64_t first, uint64_t i, uint64_t end)
{
	uint32_t shift = 9 - c->h.refcount_order; /* counts in a line */

	if (!block)
		return refs_next(c->refs, i, end);
	while (i < end) {
		uint64_t line = (i - first) >> shift, next = first + ((line + 1) << shift), k;

		if (((const uint64_t *)block)[(i - first) >> (shift - 3)])
			return i;
		if (!line_empty(block, line))
			return i;
		k = refs_next(c->refs, i, min_u64(next, end));
		if (k < next)
			return min_u64(k, end);
		i = next;
	}
	return end;
}

static void one_count(struct chk *c, uint64_t cluster, uint64_t disk, uint64_t refs, unsigned fix)
{
	uint64_t *fixed = NULL;

	if (disk > refs && (fix & QCOW2_FIX_LEAKS))
		fixed = &c->res->leaks_fixed;
	else if (!disk) /* it may have been handed out twice: who knows what else is wrong */
		c->rebuild = true;
	else if (disk < refs && (fix & QCOW2_FIX_ERRORS))
		fixed = &c->res->corruptions_fixed;
	chk_say(c, "%s cluster %" PRIu64 " refcount=%" PRIu64 " reference=%" PRIu64,
		fixed         ? "Repairing"
		: disk < refs ? "ERROR"
			      : "Leaked",
		cluster, disk, refs);
	if (fixed)
		++*fixed;
	else if (disk < refs)
		c->res->corruptions++;
	else
		c->res->leaks++;
}

/* Block b holds the counts of clusters [first, end); some may lie past the end of the file. */
struct span {
	uint64_t first, end;
	bool present;
};

/*
 * The next block that matters: those of the file's clusters, then whatever the table still
 * has.  False: no more.  A broken table may name one block often, so past the end of the
 * file only good ones are looked at, each of which has a cluster of its own.
 */
static bool next_span(struct chk *c, uint64_t *b, struct span *s)
{
	uint64_t per_block = qcow2_refblock_entries(&c->h);

	while (*b * per_block >= c->clusters && *b < c->reftable_used &&
		(!c->reftable[*b] || c->bad_block[*b] != BLOCK_GOOD))
		++*b;
	s->first = *b * per_block;
	s->end = s->first + per_block;
	return s->first < c->clusters ||
	       (*b < c->reftable_used && s->first < CHECK_CLUSTERS_MAX);
}

static bool any_count(struct chk *c, const struct span *s, uint64_t from)
{
	uint32_t shift = 9 - c->h.refcount_order;

	for (uint64_t i = max_u64(from, s->first); i < s->end; i++) {
		uint64_t k = i - s->first;

		if (line_empty(c->cluster_buf, k >> shift))
			i = s->first + (((k >> shift) + 1) << shift) - 1;
		else if (qcow2_refcount_get(c->cluster_buf, (uint32_t)k, c->h.refcount_order))
			return true;
	}
	return false;
}

/* What qemu-img says to each count that it cannot get, once and once for each. */
static void say_unreadable(struct chk *c, uint64_t b, uint64_t first, uint64_t end)
{
	uint64_t off = c->reftable[b] & ~QCOW2_REFTABLE_RESERVED;

	if (off % c->h.cluster_size && !c->said_unaligned) {
		c->said_unaligned = true;
		chk_say(c,
			"qcow2: Image is corrupt: Refblock offset %#" PRIx64
			" unaligned (reftable index: %#" PRIx64
			"); further non-fatal corruption events will be suppressed",
			off, b);
	}
	for (uint64_t i = first; i < end; i++) {
		c->res->check_errors++;
		chk_say(c, "Can't get refcount for cluster %" PRIu64 ": %s", i, strerror(EIO));
	}
}

/*
 * Reports every difference; with fix, those are counted as repaired that repair will
 * write afterwards.  Clusters past the end of the file do no harm by being counted (nobody
 * can have them), so they are no finding; repair clears them all the same.
 */
int compare_refcounts(struct chk *c, unsigned fix)
{
	struct span s;
	int err;

	c->highest = 0;
	for (uint64_t b = 0; next_span(c, &b, &s); b++) {
		uint64_t end = min_u64(s.end, c->clusters);
		const void *block;

		if (unreadable(c, b)) {
			say_unreadable(c, b, s.first, end);
			continue;
		}
		err = block_read(c, b, c->cluster_buf, &s.present);
		if (err)
			return err;
		if (s.present && c->fix)
			c->counted_past_end |= any_count(c, &s, c->clusters);
		block = s.present ? c->cluster_buf : NULL;
		for (uint64_t i = s.first; (i = compare_next(c, block, s.first, i, end)) < end;
			i++) {
			uint64_t disk = 0, refs = refs_count(c->refs, i);

			if (block)
				disk = qcow2_refcount_get(
					block, (uint32_t)(i - s.first), c->h.refcount_order);
			if (disk || refs)
				c->highest = i;
			if (disk != refs)
				one_count(c, i, disk, refs, fix);
		}
	}
	return 0;
}

uint64_t compare_final(const struct chk *c, uint64_t cluster, uint64_t disk)
{
	uint64_t refs = refs_count(c->refs, cluster);
	/* A broken entry may name a cluster past the end: while it stays, so does the count. */
	bool keep = cluster >= c->clusters && c->res->corruptions && !(c->fix & QCOW2_FIX_ERRORS);

	if (disk > refs && (keep || !(c->fix & QCOW2_FIX_LEAKS)))
		return disk;
	return disk < refs && !(c->fix & QCOW2_FIX_ERRORS) ? disk : refs;
}

static int settle_span(struct chk *c, const struct span *s)
{
	const void *block = s->present ? c->cluster_buf : NULL;

	for (uint64_t i = s->first; (i = compare_next(c, block, s->first, i, s->end)) < s->end;
		i++) {
		uint64_t disk = 0;
		int err;

		if (block)
			disk = qcow2_refcount_get(
				block, (uint32_t)(i - s->first), c->h.refcount_order);
		err = refs_set(c->refs, i, compare_final(c, i, disk));
		if (err)
			return err;
	}
	return 0;
}

/*
 * What the counts on disk are from now on, repaired as far as fix says: the copied flags
 * are judged by them, not by the references.
 */
int compare_settle(struct chk *c)
{
	struct span s;
	int err;

	if (c->fix & QCOW2_FIX_ERRORS)
		return 0; /* as many as there are references */
	for (uint64_t b = 0; next_span(c, &b, &s); b++) {
		err = block_read(c, b, c->cluster_buf, &s.present);
		if (!err)
			err = settle_span(c, &s);
		if (err)
			return err;
	}
	return 0;
}
