/* SPDX-License-Identifier: MIT */
/*
 * bitmap.h - dirty bitmaps that are kept in the image: what was written since somebody asked.
 *
 *   bitmap_dir.c   the bitmap directory as it lies on disk: read and checked, made
 *   bitmap_bits.c  the bits of one bitmap in memory; which of its clusters hold what
 *   bitmap_save.c  opening and closing: marked in use, written back
 *   bitmap.c       what users do: add, remove, clear, enable, disable, merge
 *
 * Rules, all kept by bitmap_save.c:
 *
 *   B1 in use first    the directory says durably that every bitmap is in use before the first
 *                      write of a session: a cut leaves bitmaps that nobody believes
 *   B2 bits, then said so  all bits are durable before the directory says that they are good
 *   B3 count, then name    as R1 and R2: clusters are counted and hold their content before a
 *                      table or the directory names them; what lost its name is free after that
 *
 * While a bitmap is in use its clusters on disk mean nothing, so they are written in place.
 *
 * Source: qcow2 specification, "Bitmaps".
 */
#ifndef QCOW2_BITMAP_H
#define QCOW2_BITMAP_H

#include "blockdev/qcow2/qcow2.h"

#define BITMAP_NAME_MAX        1023u
#define BITMAP_GRAIN_BITS_MIN  9u
#define BITMAP_GRAIN_BITS_MAX  31u
#define BITMAP_TABLE_MAX       0x8000000u    /* entries */
#define BITMAP_BYTES_MAX       (512 * MiB)   /* of one bitmap, in memory at worst */
#define BITMAP_IN_USE          (1u << 0)
#define BITMAP_AUTO            (1u << 1)
#define BITMAP_ENTRY_RESERVED  0xff000000000001feULL
#define BITMAP_ENTRY_ONES      (1ULL << 0)

struct bitmap {
	char *name;
	uint32_t grain_bits; /* a bit stands for so many bytes of the disk, log2 */
	bool enabled;        /* what is written is noted: the auto flag */
	bool inconsistent;   /* in use when it was opened: its bits are lost */
	/* As the image has it. */
	uint64_t table_offset; /* 0: not there yet */
	uint32_t table_size;   /* entries */
	uint64_t *table;       /* NULL: not read yet */
	/* The bits, by the cluster that they fill on disk, once the table was read. */
	uint8_t **part;
	uint32_t n_parts;
	uint8_t *changed; /* per part, since it was read or written */
};

/* ---- bitmap_dir.c ---- */

/* In a fiber: the directory that h names.  0 with *out (qcow2_bitmaps_fini()), or -errno, words. */
must_check int bitmap_dir_read(
	struct file *f, const struct qcow2_header *h, struct bitmaps *out, struct why *why);
/* Bytes of a directory of these. */
uint64_t bitmap_dir_bytes(const struct bitmaps *b);
/* Made in buf, which is zeros and as large as that. */
void bitmap_dir_make(const struct bitmaps *b, uint8_t *buf);
/* 0 with *out new at the end of the list, all zeros but for its name; or -ENOMEM. */
must_check int bitmap_new(struct bitmaps *b, const char *name, size_t bytes, struct bitmap **out);
void bitmap_free(struct bitmap *m);
/* The index, or -1. */
int64_t bitmap_find(const struct bitmaps *b, const char *name);

/* ---- bitmap_bits.c ---- */

/* Clusters that the bits of a disk of this size fill. */
uint64_t bitmap_parts(const struct qcow2_header *h, uint32_t grain_bits, uint64_t size);
/* In a fiber: its table is in memory. */
must_check int bitmap_read_table(struct qcow2 *q, struct bitmap *m);
/* In a fiber: the bits are in memory.  -EINVAL and others with words. */
must_check int bitmap_load(struct qcow2 *q, struct bitmap *m, struct why *why);
/* Its bits are zeros, whatever the image has. */
must_check int bitmap_load_zeros(struct qcow2 *q, struct bitmap *m);
/* [off, off+len) of the disk is noted.  Without memory more than that is. */
void bitmap_set(struct qcow2 *q, struct bitmap *m, uint64_t off, uint64_t len);
void bitmap_clear(struct bitmap *m);
/* The first run of set bits at or behind *off, as bytes of the disk; false: there is none. */
bool bitmap_next(
	const struct qcow2 *q, const struct bitmap *m, uint64_t *off, uint64_t *len);
/* Room for the bits of a larger disk, zeros.  -ENOMEM: nothing was done. */
must_check int bitmap_room(struct qcow2 *q, struct bitmap *m, uint64_t size);
/* The disk has another size: what is behind its end goes. */
void bitmap_fit(struct qcow2 *q, struct bitmap *m);
/* Part i as it goes to disk, in buf (one cluster); NULL: zeros. */
const uint8_t *bitmap_part(const struct qcow2 *q, const struct bitmap *m, uint32_t i, uint8_t *buf);

/* ---- bitmap_save.c; the rest of it, and of bitmap.c, is in qcow2.h ---- */

/*
 * In a fiber: all that the bitmap has on disk loses its name.  qcow2_bitmaps_save() frees it;
 * without memory it leaks.
 */
void bitmap_lose_all(struct qcow2 *q, struct bitmap *m);

#endif
