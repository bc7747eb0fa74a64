/* SPDX-License-Identifier: MIT */
/*
 * check_meta.c - whatever refers to clusters besides L1, L2 and snapshots: bitmaps, the encryption
 * header, and the refcount structures themselves.
 *
 * The driver opens only some of these images, check counts them all: calling a
 * bitmap's clusters leaked would be an invitation to destroy it.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include "blockdev/qcow2/bitmap.h"
#include "blockdev/qcow2/check.h"

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
	struct bitmaps b;
	bool outside;
	int err = chk_count(c, c->h.bitmaps_offset, c->h.bitmaps_bytes, &outside);

	if (err || outside)
		return err;
	err = bitmap_dir_read(c->file, &c->h, &b, c->why);
	if (err)
		return err;
	for (uint32_t i = 0; i < b.n && !err; i++)
		err = count_bitmap(c, b.v[i]->table_offset, b.v[i]->table_size);
	qcow2_bitmaps_fini(&b);
	return err;
}

int meta_extensions(struct chk *c)
{
	int err;

	if (c->h.crypto_bytes) {
		err = chk_count(c, c->h.crypto_offset, c->h.crypto_bytes, NULL);
		if (err)
			return err;
	}
	return c->h.nb_bitmaps ? count_bitmaps(c) : 0;
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
	return err ? err : snaps_mark(c);
}

static void say_block(struct chk *c, const char *word, uint64_t i, const char *what)
{
	chk_say(c, "%s refcount block %" PRIu64 " is %s", word, i, what);
}

static int broken(struct chk *c, uint64_t i)
{
	c->bad_block[i] = BLOCK_BROKEN;
	c->rebuild = true;
	return 0;
}

/*
 * A block past the end counts nothing.  qemu-img makes the file longer, so that there is one of
 * zeros; here it is counted as if, and repair takes it out of the table.
 */
static int outside_block(struct chk *c, uint64_t i, uint64_t off)
{
	uint64_t cluster = off >> c->h.cluster_bits;
	int err;

	c->bad_block[i] = BLOCK_OUTSIDE;
	if (!(c->fix & QCOW2_FIX_ERRORS)) {
		say_block(c, chk_damage(c, false), i, "outside image");
		return 0;
	}
	if (off > (uint64_t)INT64_MAX - c->h.cluster_size || cluster >= CHECK_CLUSTERS_MAX) {
		bool never = off > (uint64_t)INT64_MAX - c->h.cluster_size;

		say_block(c, "Repairing", i, "outside image");
		if (!never)
			chk_error(c, "Could not resize file: %s", strerror(EFBIG));
		chk_say(c, "%s could not resize image: %s", chk_damage(c, false),
			strerror(never ? EINVAL : EFBIG));
		return broken(c, i);
	}
	say_block(c, chk_damage(c, true), i, "outside image");
	c->reach = off + c->h.cluster_size;
	err = refs_add(c->refs, cluster);
	c->clusters = max_u64(c->clusters, cluster + 1);
	return err == -EOVERFLOW ? 0 : err;
}

/* One entry of the refcount table, and the count of the block it names. */
static int count_block(struct chk *c, uint64_t i)
{
	uint64_t entry = c->reftable[i], off = entry & ~QCOW2_REFTABLE_RESERVED, n;
	int err;

	if (entry & QCOW2_REFTABLE_RESERVED) {
		chk_say(c, "%s refcount table entry %" PRIu64 " has reserved bits set",
			chk_damage(c, false), i);
		return broken(c, i);
	}
	if (!off)
		return 0;
	if (off % c->h.cluster_size) {
		say_block(c, chk_damage(c, false), i,
			"not cluster aligned; refcount table entry corrupted");
		return broken(c, i);
	}
	if (off >= max_u64(c->file_bytes, c->reach))
		return outside_block(c, i, off);
	err = off < c->file_bytes ? chk_count(c, off, c->h.cluster_size, NULL)
				  : refs_add(c->refs, off >> c->h.cluster_bits);
	if (err)
		return err == -EOVERFLOW ? broken(c, i) : err;
	n = refs_count(c->refs, off >> c->h.cluster_bits);
	if (n == 1)
		return refs_get(c->refs, off >> c->h.cluster_bits) == 1 ? 0 : broken(c, i);
	chk_say(c, "%s refcount block %" PRIu64 " refcount=%" PRIu64, chk_damage(c, false), i, n);
	return broken(c, i);
}

int meta_refcounts(struct chk *c)
{
	uint64_t first = c->h.reftable_offset >> c->h.cluster_bits;
	bool outside = false;
	int err;

	err = chk_count(c, c->h.reftable_offset, c->reftable_entries * 8, &outside);
	if (err)
		return err;
	c->rebuild |= outside || !c->reftable_entries;
	c->reach = c->file_bytes;
	for (uint64_t i = 0; i < c->reftable_used; i++) {
		if (!c->reftable[i])
			continue;
		err = count_block(c, i);
		if (err)
			return err;
	}
	/* A table that shares a cluster with something else cannot stay there, like a block. */
	for (uint64_t k = 0; k < c->h.reftable_clusters && !outside; k++)
		c->rebuild |= refs_get(c->refs, first + k) != 1;
	return 0;
}
