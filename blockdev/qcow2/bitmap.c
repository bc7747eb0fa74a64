/* SPDX-License-Identifier: MIT */
/*
 * bitmap.c - what users do with bitmaps: all of it in memory; the image has it when it is closed.
 *
 * Words are the peer's, which scripts look for; it calls the image by a name that it makes up.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "blockdev/qcow2/bitmap.h"

#define GRAIN_DEFAULT_MIN 4096u
#define GRAIN_DEFAULT_MAX 65536u

/* The format's operation: a guest's write is noted. */
void qcow2_note(struct format *fmt, uint64_t off, uint64_t len)
{
	struct qcow2 *q = qcow2_of(fmt);

	for (uint32_t i = 0; i < q->bitmaps.n; i++) {
		struct bitmap *m = q->bitmaps.v[i];

		if (m->enabled && !m->inconsistent && m->part)
			bitmap_set(q, m, off, len);
	}
}

static void update_noting(struct qcow2 *q)
{
	q->fmt.noting = false;
	for (uint32_t i = 0; i < q->bitmaps.n; i++)
		q->fmt.noting |= q->bitmaps.v[i]->enabled && !q->bitmaps.v[i]->inconsistent;
}

bool qcow2_bitmap_get(struct format *fmt, uint32_t i, struct disk_bitmap *out)
{
	struct qcow2 *q = qcow2_of(fmt);

	if (i >= q->bitmaps.n)
		return false;
	*out = (struct disk_bitmap){.name = q->bitmaps.v[i]->name,
		.granularity = 1ULL << q->bitmaps.v[i]->grain_bits,
		.enabled = q->bitmaps.v[i]->enabled,
		.inconsistent = q->bitmaps.v[i]->inconsistent};
	return true;
}

/* ---- finding one ---- */

static int find(const struct qcow2 *q, const char *name, struct bitmap **out, struct why *why)
{
	int64_t i = bitmap_find(&q->bitmaps, name);

	if (i < 0)
		return why_set(why, -ENOENT, "Dirty bitmap '%s' not found", name);
	*out = q->bitmaps.v[i];
	return 0;
}

/* One whose bits are good. */
static int find_good(const struct qcow2 *q, const char *name, struct bitmap **out, struct why *why)
{
	int err = find(q, name, out, why);

	if (!err && (*out)->inconsistent)
		err = why_set(why, -EINVAL,
			"Bitmap '%s' is inconsistent and cannot be used\n"
			"Try block-dirty-bitmap-remove to delete this bitmap from disk",
			name);
	return err;
}

/* ---- adding ---- */

static int cannot_keep(const char *name, struct why *why, const char *because)
{
	return why_set(why, -EINVAL, "Can't make bitmap '%s' persistent in '#block100': %s", name,
		because);
}

static int check_new(
	const struct qcow2 *q, const char *name, uint64_t granularity, struct why *why)
{
	uint32_t bits = (uint32_t)__builtin_ctzll(granularity);
	uint64_t parts = bitmap_parts(&q->h, bits, q->h.size);
	char words[64];

	if (bitmap_find(&q->bitmaps, name) >= 0)
		return why_set(why, -EEXIST, "Bitmap already exists: %s", name);
	/* Without autoclear bits a program that knows no bitmaps would spoil them unnoticed. */
	if (q->h.version < 3)
		return cannot_keep(name, why, "Cannot store dirty bitmaps in qcow2 v2 files");
	if (!parts)
		return cannot_keep(name, why, "The disk has no bytes");
	if (parts << q->h.cluster_bits > BITMAP_BYTES_MAX || parts > BITMAP_TABLE_MAX)
		return cannot_keep(name, why,
			"Too much space will be occupied by the bitmap. Use larger granularity");
	if (strlen(name) > BITMAP_NAME_MAX) {
		snprintf(words, sizeof(words), "Name length exceeds maximum (%u characters)",
			BITMAP_NAME_MAX);
		return cannot_keep(name, why, words);
	}
	if (q->bitmaps.n >= BITMAPS_MAX)
		return cannot_keep(name, why,
			"Maximum number of persistent bitmaps is already reached");
	if (bitmap_dir_bytes(&q->bitmaps) + BITMAP_NAME_MAX + 64 > BITMAP_DIR_BYTES_MAX)
		return cannot_keep(name, why, "Not enough space in the bitmap directory");
	return 0;
}

/* The last one goes before those that are not in the image yet: so the peer orders them. */
static void place_new(struct bitmaps *b)
{
	struct bitmap *m = b->v[b->n - 1];
	uint32_t i = b->n - 1;

	while (i && !b->v[i - 1]->table_offset) {
		b->v[i] = b->v[i - 1];
		i--;
	}
	b->v[i] = m;
}

static int add(struct qcow2 *q, const char *name, uint64_t granularity, struct why *why)
{
	struct bitmap *m;
	int err;

	if (!*name)
		return why_set(why, -EINVAL, "Bitmap name cannot be empty");
	if (!granularity)
		granularity = min_u64(
			max_u64(q->h.cluster_size, GRAIN_DEFAULT_MIN), GRAIN_DEFAULT_MAX);
	if ((granularity & (granularity - 1)) || granularity >> BITMAP_GRAIN_BITS_MIN == 0 ||
		granularity >> (BITMAP_GRAIN_BITS_MAX + 1))
		return why_set(why, -EINVAL,
			"Granularity must be power of 2 and at least 512");
	err = check_new(q, name, granularity, why);
	if (!err)
		err = bitmap_new(&q->bitmaps, name, strlen(name), &m);
	if (err)
		return err;
	m->grain_bits = (uint32_t)__builtin_ctzll(granularity);
	m->enabled = true;
	err = bitmap_load_zeros(q, m);
	if (err) {
		bitmap_free(m);
		q->bitmaps.n--;
		return err;
	}
	place_new(&q->bitmaps);
	q->bitmaps.renewed = true;
	return 0;
}

/* ---- the others ---- */

static int remove_one(struct qcow2 *q, const char *name, struct why *why)
{
	struct bitmaps *b = &q->bitmaps;
	int64_t i = bitmap_find(b, name);
	struct bitmap *m = NULL;
	int err = find(q, name, &m, why);

	if (err)
		return err;
	if (m->table_offset)
		b->renewed = true;
	bitmap_lose_all(q, m);
	memmove(&b->v[i], &b->v[i + 1], (--b->n - (uint32_t)i) * sizeof(struct bitmap *));
	bitmap_free(m);
	return 0;
}

static int change_good(
	struct qcow2 *q, enum bitmap_op op, const char *name, struct why *why)
{
	struct bitmap *m;
	int err = find_good(q, name, &m, why);

	/* What is to note writes needs its bits. */
	if (!err && op != BITMAP_DISABLE)
		err = bitmap_load(q, m, why);
	if (err)
		return err;
	if (op == BITMAP_CLEAR)
		bitmap_clear(m);
	else
		m->enabled = op == BITMAP_ENABLE;
	return 0;
}

int qcow2_bitmap_change(struct format *fmt, enum bitmap_op op, const char *name,
	uint64_t granularity, struct why *why)
{
	struct qcow2 *q = qcow2_of(fmt);
	int err;

	if (fmt->sync.err)
		return fmt->sync.err;
	if (op == BITMAP_ADD)
		err = add(q, name, granularity, why);
	else if (op == BITMAP_REMOVE)
		err = remove_one(q, name, why);
	else
		err = change_good(q, op, name, why);
	update_noting(q);
	return err;
}

int qcow2_bitmap_merge(struct format *fmt, const char *name, struct format *from_fmt,
	const char *from_name, struct why *why)
{
	struct qcow2 *q = qcow2_of(fmt), *from = qcow2_of(from_fmt);
	struct bitmap *m, *src;
	uint64_t off = 0, len;
	int err = find(q, name, &m, why);

	if (!err)
		err = find(from, from_name, &src, why);
	if (!err)
		err = find_good(q, name, &m, why);
	if (!err)
		err = find_good(from, from_name, &src, why);
	if (!err && q->h.size != from->h.size)
		err = why_set(why, -EINVAL,
			"Bitmaps are of different sizes (destination size is %" PRIu64
			", source size is %" PRIu64 ") and can't be merged",
			q->h.size, from->h.size);
	if (!err)
		err = bitmap_load(q, m, why);
	if (!err)
		err = bitmap_load(from, src, why);
	for (; !err && bitmap_next(from, src, &off, &len); off += len)
		bitmap_set(q, m, off, len);
	return err;
}

int qcow2_bitmaps_room(struct qcow2 *q, uint64_t size, struct why *why)
{
	struct bitmaps *b = &q->bitmaps;
	int err = 0;

	for (uint32_t i = 0; i < b->n && !err; i++) {
		struct bitmap *m = b->v[i];
		uint64_t parts = bitmap_parts(&q->h, m->grain_bits, size);

		err = find_good(q, m->name, &m, why);
		if (!err)
			err = bitmap_load(q, m, why);
		if (!err && (!parts || parts << q->h.cluster_bits > BITMAP_BYTES_MAX))
			err = why_set(why, -EINVAL,
				"Bitmap '%s' cannot be kept for a disk of that size", m->name);
	}
	for (uint32_t i = 0; i < b->n && !err; i++)
		err = bitmap_room(q, b->v[i], size);
	return err;
}

void qcow2_bitmaps_fit(struct qcow2 *q)
{
	for (uint32_t i = 0; i < q->bitmaps.n; i++)
		if (q->bitmaps.v[i]->part)
			bitmap_fit(q, q->bitmaps.v[i]);
}
