/* SPDX-License-Identifier: MIT */
/*
 * check_meta.c - whatever refers to clusters besides L1 and L2: snapshots, bitmaps, the
 * encryption header, and the refcount structures themselves.
 *
 * The driver opens only some of these images, check counts them all: calling a
 * bitmap's clusters leaked would be an invitation to destroy it.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include "blockdev/qcow2/check.h"

#define NAME_SHOWN           128 /* bytes of a snapshot's name in a message */
#define BITMAPS_MAX          65535u
#define BITMAP_DIR_BYTES_MAX (128u * MiB)

#define SNAPSHOT_EXTRA_V3 16 /* version 3 must have the first two fields of the extra data */

#define BITMAP_ENTRY_RESERVED 0xff000000000001feULL

/* At most NAME_SHOWN bytes of a string, fit for a terminal. */
static int read_name(struct chk *c, uint64_t off, uint32_t bytes, char *out)
{
	uint32_t n = bytes < NAME_SHOWN ? bytes : NAME_SHOWN;
	int err = file_pread(c->file, out, n, off);

	out[n] = 0;
	for (uint32_t i = 0; i < n && !err; i++)
		if (out[i] < ' ' || out[i] > '~')
			out[i] = '?';
	return err;
}

static int one_snapshot(struct chk *c, const struct qcow2_disk_snapshot *s, uint64_t strings_off,
	enum meta_pass pass)
{
	uint64_t l1_off = be64_get(s->l1_offset);
	uint32_t l1_size = be32_get(s->l1_size);
	bool unaligned = l1_off % c->h.cluster_size, big = l1_size > QCOW2_L1_BYTES_MAX / 8;
	char id[NAME_SHOWN + 1], name[NAME_SHOWN + 1];
	int err;

	if (!unaligned && !big) {
		if (pass == META_MARK)
			return chk_mark_tables(c, l1_off, l1_size * 8ULL);
		return walk_l1(c, l1_off, l1_size, false, pass == META_APPLY);
	}
	if (pass != META_COUNT)
		return 0;
	err = read_name(c, strings_off, be16_get(s->id_bytes), id);
	if (!err)
		err = read_name(
			c, strings_off + be16_get(s->id_bytes), be16_get(s->name_bytes), name);
	if (err)
		return err;
	if (unaligned)
		chk_say(c,
			"%s snapshot %s (%s) l1_offset=%#" PRIx64
			": L1 table is not cluster aligned; "
			"snapshot table entry corrupted",
			chk_damage(c, false), id, name, l1_off);
	else
		chk_say(c,
			"%s snapshot %s (%s) l1_size=%#" PRIx32 ": L1 table is too large; snapshot "
			"table entry corrupted",
			chk_damage(c, false), id, name, l1_size);
	return 0;
}

int meta_snapshots(struct chk *c, enum meta_pass pass)
{
	uint64_t start = c->h.snapshots_offset, at = start;
	struct qcow2_disk_snapshot s;
	int err;

	if (!c->h.nb_snapshots)
		return 0;
	for (uint32_t i = 0; i < c->h.nb_snapshots; i++) {
		uint64_t strings, extra;

		err = file_pread(c->file, &s, sizeof(s), at);
		if (err)
			return err;
		extra = be32_get(s.extra_bytes);
		if (pass == META_MARK && c->h.version >= 3 && extra < SNAPSHOT_EXTRA_V3)
			chk_say(c, "%s snapshot table entry %" PRIu32 " is incomplete",
				chk_damage(c, false), i);
		strings = at + sizeof(s) + extra;
		at = round_up(strings + be16_get(s.id_bytes) + be16_get(s.name_bytes), 8);
		if (at - start > QCOW2_SNAPSHOTS_BYTES_MAX)
			return why_set(c->why, -EFBIG, "Snapshot table is too big");
		err = one_snapshot(c, &s, strings, pass);
		if (err)
			return err;
	}
	if (pass == META_MARK)
		return chk_mark_tables(c, start, at - start);
	return pass == META_COUNT ? chk_count(c, start, at - start, NULL) : 0;
}

static int count_bitmap(struct chk *c, uint64_t table_off, uint32_t entries)
{
	uint64_t per_read = c->h.cluster_size / 8;
	bool outside;
	int err = chk_count(c, table_off, entries * 8ULL, &outside);

	if (err || outside)
		return err;
	for (uint64_t done = 0; done < entries; done += per_read) {
		uint64_t n = min_u64(per_read, entries - done);
		const be64_t *e = (const void *)c->cluster_buf;

		err = file_pread(c->file, c->cluster_buf, n * 8, table_off + done * 8);
		for (uint64_t i = 0; i < n && !err; i++) {
			uint64_t v = be64_get(e[i]), off = v & QCOW2_OFFSET_MASK;

			if ((v & BITMAP_ENTRY_RESERVED) || off % c->h.cluster_size ||
				(off && (v & 1)))
				c->res->corruptions++;
			else if (off)
				err = chk_count(c, off, c->h.cluster_size, NULL);
		}
		if (err)
			return err;
	}
	return 0;
}

static int count_bitmaps(struct chk *c)
{
	uint64_t at = c->h.bitmaps_offset, left = c->h.bitmaps_bytes;
	struct qcow2_disk_bitmap b;
	bool outside;
	int err;

	if (c->h.nb_bitmaps > BITMAPS_MAX || left > BITMAP_DIR_BYTES_MAX || at % c->h.cluster_size)
		return why_set(c->why, -EINVAL, "bitmaps_ext: Invalid bitmap directory");
	err = chk_count(c, at, left, &outside);
	if (err || outside)
		return err;
	for (uint32_t i = 0; i < c->h.nb_bitmaps; i++) {
		uint64_t bytes;

		if (left < sizeof(b))
			return why_set(c->why, -EINVAL,
				"Less bitmaps found than specified in header extension");
		err = file_pread(c->file, &b, sizeof(b), at);
		if (err)
			return err;
		bytes = round_up(
			sizeof(b) + (uint64_t)be32_get(b.extra_bytes) + be16_get(b.name_bytes), 8);
		if (bytes > left)
			return why_set(c->why, -EINVAL, "Broken bitmap directory");
		err = count_bitmap(c, be64_get(b.table_offset), be32_get(b.table_size));
		if (err)
			return err;
		at += bytes;
		left -= bytes;
	}
	return 0;
}

int meta_extensions(struct chk *c)
{
	int err;

	if (c->h.crypto_bytes) {
		err = chk_count(c, c->h.crypto_offset, c->h.crypto_bytes, NULL);
		if (err)
			return err;
	}
	/* Without the autoclear bit somebody wrote to the image without minding the bitmaps. */
	if (c->h.nb_bitmaps && (c->h.autoclear & QCOW2_AUTOCLEAR_BITMAPS))
		return count_bitmaps(c);
	return 0;
}

static bool block_usable(const struct chk *c, uint64_t entry)
{
	uint64_t off = entry & ~QCOW2_REFTABLE_RESERVED;

	return off && off % c->h.cluster_size == 0 && off < c->file_bytes;
}

/* Before anything is walked: which clusters nobody else may write to. */
int meta_mark(struct chk *c)
{
	int err = chk_mark_tables(c, 0, c->h.cluster_size);

	if (!err)
		err = chk_mark_tables(c, c->h.l1_offset, c->h.l1_size * 8ULL);
	if (!err)
		err = chk_mark_tables(c, c->h.reftable_offset, c->reftable_entries * 8);
	for (uint64_t i = 0; i < c->reftable_used && !err; i++)
		if (block_usable(c, c->reftable[i]))
			err = chk_mark_tables(
				c, c->reftable[i] & ~QCOW2_REFTABLE_RESERVED, c->h.cluster_size);
	if (!err && c->h.nb_bitmaps)
		err = chk_mark_tables(c, c->h.bitmaps_offset, c->h.bitmaps_bytes);
	return err ? err : meta_snapshots(c, META_MARK);
}

static void overflow_mended(struct chk *c)
{
	c->res->corruptions--;
	c->res->corruptions_fixed++;
}

/* One entry of the refcount table, and the count of the block it names. */
static int count_block(struct chk *c, uint64_t i)
{
	bool fix = (c->fix & QCOW2_FIX_ERRORS) != 0;
	uint64_t entry = c->reftable[i], off = entry & ~QCOW2_REFTABLE_RESERVED, n;
	int err;

	if (entry & QCOW2_REFTABLE_RESERVED) {
		chk_say(c, "%s refcount table entry %" PRIu64 " has reserved bits set",
			chk_damage(c, fix), i);
		c->bad_block[i] = BLOCK_BROKEN;
		return 0;
	}
	if (!off)
		return 0;
	if (off % c->h.cluster_size) {
		chk_say(c,
			"%s refcount block %" PRIu64
			" is not cluster aligned; refcount table entry "
			"corrupted",
			chk_damage(c, fix), i);
		c->bad_block[i] = BLOCK_BROKEN;
		return 0;
	}
	if (off >= c->file_bytes) {
		chk_say(c, "%s refcount block %" PRIu64 " is outside image", chk_damage(c, fix), i);
		c->bad_block[i] = BLOCK_OUTSIDE;
		return 0;
	}
	err = chk_count(c, off, c->h.cluster_size, NULL);
	if (err)
		return err;
	n = refs_get(c->refs, off >> c->h.cluster_bits);
	if (n == 1)
		return 0;
	if (refs_count(c->refs, off >> c->h.cluster_bits) != 1)
		chk_say(c, "%s refcount block %" PRIu64 " refcount=%" PRIu64, chk_damage(c, fix), i,
			n);
	else if (fix) /* said to be an overflow just now, which moving it mends */
		overflow_mended(c);
	c->bad_block[i] = BLOCK_BROKEN;
	/* Repair moves the block away, and its cluster belongs to the others. */
	return fix ? refs_set(c->refs, off >> c->h.cluster_bits, n - 1) : 0;
}

int meta_refcounts(struct chk *c)
{
	uint64_t first = c->h.reftable_offset >> c->h.cluster_bits;
	bool outside = false;
	int err;

	err = chk_count(c, c->h.reftable_offset, c->reftable_entries * 8, &outside);
	if (err)
		return err;
	c->reftable_bad = outside || !c->reftable_entries;
	for (uint64_t i = 0; i < c->reftable_used; i++) {
		if (!c->reftable[i])
			continue;
		err = count_block(c, i);
		if (err)
			return err;
	}
	if (!outside)
		for (uint64_t k = 0; k < c->h.reftable_clusters; k++)
			c->reftable_bad |= refs_get(c->refs, first + k) != 1;
	/* A table that shares a cluster with something else is moved away, like a block. */
	if (c->reftable_bad && !outside && (c->fix & QCOW2_FIX_ERRORS))
		for (uint64_t k = 0; k < c->h.reftable_clusters; k++) {
			uint64_t n = refs_get(c->refs, first + k);

			if (n > refs_count(c->refs, first + k))
				overflow_mended(c);
			err = refs_set(c->refs, first + k, n - 1);
			if (err)
				return err;
		}
	return 0;
}
