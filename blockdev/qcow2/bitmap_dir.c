/* SPDX-License-Identifier: MIT */
/*
 * bitmap_dir.c - the bitmap directory: read and checked, made.
 *
 * Opening, check and info all read it here.  The limits are the peer's, so that an image which one
 * of the two opens, the other opens too.
 */
#include <stdlib.h>
#include <string.h>
#include "blockdev/qcow2/bitmap.h"

#define TYPE_DIRTY 1 /* qcow2 spec: the only type */

static uint64_t entry_bytes(uint64_t name_bytes, uint64_t extra_bytes)
{
	return round_up(sizeof(struct qcow2_disk_bitmap) + extra_bytes + name_bytes, 8);
}

int bitmap_new(struct bitmaps *b, const char *name, size_t bytes, struct bitmap **out)
{
	struct bitmap **v = realloc(b->v, (b->n + 1) * sizeof(struct bitmap *));
	struct bitmap *m = calloc(1, sizeof(*m));

	if (v)
		b->v = v;
	if (m)
		m->name = strndup(name, bytes);
	if (!v || !m || !m->name) {
		bitmap_free(m);
		return -ENOMEM;
	}
	b->v[b->n++] = m;
	*out = m;
	return 0;
}

static void parts_free(struct bitmap *m)
{
	bitmap_clear(m);
	free(m->part);
	free(m->changed);
	free(m->table);
}

void bitmap_free(struct bitmap *m)
{
	if (!m)
		return;
	parts_free(m);
	free(m->name);
	free(m);
}

void qcow2_bitmaps_fini(struct bitmaps *b)
{
	for (uint32_t i = 0; i < b->n; i++)
		bitmap_free(b->v[i]);
	free(b->v);
	free(b->lost);
	*b = (struct bitmaps){0};
}

int64_t bitmap_find(const struct bitmaps *b, const char *name)
{
	for (uint32_t i = 0; i < b->n; i++)
		if (!strcmp(b->v[i]->name, name))
			return i;
	return -1;
}

/* Can this be?  A bitmap in use need not fit the disk: it may have been resized since. */
static bool is_sane(const struct qcow2_disk_bitmap *d, const struct qcow2_header *h)
{
	uint64_t off = be64_get(d->table_offset);
	uint32_t n = be32_get(d->table_size), flags = be32_get(d->flags);
	uint64_t bytes = (uint64_t)n << h->cluster_bits;

	if (!n || !off || off % h->cluster_size || n > BITMAP_TABLE_MAX ||
		d->granularity_bits < BITMAP_GRAIN_BITS_MIN ||
		d->granularity_bits > BITMAP_GRAIN_BITS_MAX ||
		(flags & ~(BITMAP_IN_USE | BITMAP_AUTO)) ||
		be16_get(d->name_bytes) > BITMAP_NAME_MAX || d->type != TYPE_DIRTY ||
		bytes > BITMAP_BYTES_MAX)
		return false;
	return (flags & BITMAP_IN_USE) || h->size <= bytes * 8 << d->granularity_bits;
}

/* One entry, of *left bytes at p; *left is what remains. */
static int read_entry(struct bitmaps *b, const struct qcow2_header *h, const uint8_t *p,
	uint64_t *left, struct why *why)
{
	struct qcow2_disk_bitmap d;
	const char *name = (const char *)p + sizeof(d);
	uint64_t bytes;
	struct bitmap *m;
	int err;

	if (*left < sizeof(d))
		return why_set(why, -EINVAL, "Broken bitmap directory");
	if (b->n == h->nb_bitmaps)
		return why_set(why, -EINVAL,
			"More bitmaps found than specified in header extension");
	memcpy(&d, p, sizeof(d));
	bytes = entry_bytes(be16_get(d.name_bytes), be32_get(d.extra_bytes));
	if (bytes > *left)
		return why_set(why, -EINVAL, "Broken bitmap directory");
	if (be32_get(d.extra_bytes))
		return why_set(why, -EINVAL, "Bitmap extra data is not supported");
	if (!is_sane(&d, h))
		return why_set(why, -EINVAL, "Bitmap '%.*s' doesn't satisfy the constraints",
			(int)be16_get(d.name_bytes), name);
	err = bitmap_new(b, name, be16_get(d.name_bytes), &m);
	if (err)
		return err;
	m->table_offset = be64_get(d.table_offset);
	m->table_size = be32_get(d.table_size);
	m->grain_bits = d.granularity_bits;
	m->enabled = be32_get(d.flags) & BITMAP_AUTO;
	m->inconsistent = be32_get(d.flags) & BITMAP_IN_USE;
	*left -= bytes;
	return 0;
}

int bitmap_dir_read(
	struct file *f, const struct qcow2_header *h, struct bitmaps *out, struct why *why)
{
	uint64_t left = h->bitmaps_bytes;
	uint8_t *dir;
	int err;

	*out = (struct bitmaps){0};
	if (!h->nb_bitmaps)
		return 0;
	if (!left)
		return why_set(why, -EINVAL, "Requested bitmap directory size is zero");
	dir = file_buf(round_up(left, SECTOR));
	if (!dir)
		return why_set(
			why, -ENOMEM, "Failed to allocate space for bitmap directory");
	err = file_pread(f, dir, left, h->bitmaps_offset);
	if (err)
		err = why_set(
			why, err, "Failed to read bitmap directory: %s", strerror(-err));
	while (!err && left)
		err = read_entry(out, h, dir + (h->bitmaps_bytes - left), &left, why);
	if (!err && out->n < h->nb_bitmaps)
		err = why_set(why, -EINVAL,
			"Less bitmaps found than specified in header extension");
	free(dir);
	if (err)
		qcow2_bitmaps_fini(out);
	return err;
}

int qcow2_bitmaps_describe(struct file *f, const struct qcow2_header *h,
	int (*each)(void *arg, const struct qcow2_bitmap_word *w), void *arg, struct why *why)
{
	struct bitmaps b;
	int err = bitmap_dir_read(f, h, &b, why);

	if (err)
		return err;
	for (uint32_t i = 0; each && i < b.n && !err; i++) {
		const struct bitmap *m = b.v[i];
		struct qcow2_bitmap_word w = {
			m->name, m->inconsistent, m->enabled, 1ULL << m->grain_bits};

		err = each(arg, &w);
	}
	qcow2_bitmaps_fini(&b);
	return err;
}

uint64_t bitmap_dir_bytes(const struct bitmaps *b)
{
	uint64_t bytes = 0;

	for (uint32_t i = 0; i < b->n; i++)
		bytes += entry_bytes(strlen(b->v[i]->name), 0);
	return bytes;
}

void bitmap_dir_make(const struct bitmaps *b, uint8_t *buf)
{
	for (uint32_t i = 0; i < b->n; i++) {
		const struct bitmap *m = b->v[i];
		size_t name_bytes = strlen(m->name);
		struct qcow2_disk_bitmap d = {
			.table_offset = be64_make(m->table_offset),
			.table_size = be32_make(m->table_size),
			.flags = be32_make((m->enabled ? BITMAP_AUTO : 0) |
					   (m->inconsistent || b->in_use ? BITMAP_IN_USE : 0)),
			.type = TYPE_DIRTY,
			.granularity_bits = (uint8_t)m->grain_bits,
			.name_bytes = be16_make((uint16_t)name_bytes)};

		memcpy(buf, &d, sizeof(d));
		memcpy(buf + sizeof(d), m->name, name_bytes);
		buf += entry_bytes(name_bytes, 0);
	}
}
