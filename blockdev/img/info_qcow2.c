/* SPDX-License-Identifier: MIT */
/*
 * info_qcow2.c - snapshots and bitmaps of a qcow2 image, for people to read.
 *
 * The tables are the file's word and nobody acts on them here, so what cannot be is
 * refused and the rest is shown as it is, cut to a bearable length.
 */
#include <stdlib.h>
#include <string.h>
#include "blockdev/img/info.h"

#define BITMAPS_MAX          65535u
#define BITMAP_DIR_BYTES_MAX (128u * MiB)

static int read_string(struct file *f, uint64_t off, uint32_t bytes, char *out, size_t room)
{
	uint64_t n = min_u64(bytes, room - 1);

	memset(out, 0, room);
	return file_pread(f, out, n, off);
}

/* Entry i, at *at; *at moves on to the next. */
static int read_snapshot(
	struct file *f, uint32_t i, uint64_t *at, struct snapshot_info *s, struct why *why)
{
	struct qcow2_disk_snapshot d;
	be64_t extra[3] = {0}; /* VM state, disk size, instruction count */
	uint64_t strings;
	uint32_t n;
	int err = file_pread(f, &d, sizeof(d), *at);

	if (err)
		return err;
	n = be32_get(d.extra_bytes);
	err = qcow2_snapshot_extra_check(n, i, why);
	if (!err)
		err = file_pread(f, extra, min_u64(n, sizeof(extra)), *at + sizeof(d));
	if (err)
		return err;
	s->sec = be32_get(d.sec);
	s->nsec = be32_get(d.nsec);
	s->clock_ns = be64_get(d.vm_clock_ns);
	s->vm_state = n >= 8 ? be64_get(extra[0]) : be32_get(d.vm_state_bytes);
	s->icount = be64_get(extra[2]);
	s->has_icount = n >= 24 && s->icount != UINT64_MAX;
	strings = *at + sizeof(d) + n;
	err = read_string(f, strings, be16_get(d.id_bytes), s->id, sizeof(s->id));
	if (!err)
		err = read_string(f, strings + be16_get(d.id_bytes), be16_get(d.name_bytes),
			s->name, sizeof(s->name));
	*at = round_up(strings + be16_get(d.id_bytes) + be16_get(d.name_bytes), 8);
	return err;
}

static int read_snapshots(struct file *f, struct image_info *info, struct why *why)
{
	uint64_t at = info->h.snapshots_offset;
	int err = 0;

	if (!info->h.nb_snapshots)
		return 0;
	info->snapshots = calloc(info->h.nb_snapshots, sizeof(*info->snapshots));
	if (!info->snapshots)
		return -ENOMEM;
	for (uint32_t i = 0; i < info->h.nb_snapshots && !err; i++) {
		err = read_snapshot(f, i, &at, &info->snapshots[i], why);
		if (!err)
			err = qcow2_snapshots_bytes_check(at - info->h.snapshots_offset,
				info->h.nb_snapshots - i, why);
	}
	return err;
}

static int read_bitmaps(struct file *f, struct image_info *info, struct why *why)
{
	uint64_t at = info->h.bitmaps_offset, left = info->h.bitmaps_bytes;
	struct qcow2_disk_bitmap d;
	int err;

	/* Without the autoclear bit they are not to be believed. */
	if (!info->h.nb_bitmaps || !(info->h.autoclear & QCOW2_AUTOCLEAR_BITMAPS))
		return 0;
	if (info->h.nb_bitmaps > BITMAPS_MAX || left > BITMAP_DIR_BYTES_MAX ||
		!range_within(at, left, file_size(f)) || left / sizeof(d) < info->h.nb_bitmaps)
		return why_set(why, -EINVAL, "bitmaps_ext: Invalid bitmap directory");
	info->bitmaps = calloc(info->h.nb_bitmaps, sizeof(*info->bitmaps));
	if (!info->bitmaps)
		return -ENOMEM;
	for (uint32_t i = 0; i < info->h.nb_bitmaps; i++) {
		struct bitmap_info *b = &info->bitmaps[i];
		uint64_t bytes;

		if (left < sizeof(d))
			return why_set(why, -EINVAL, "Broken bitmap directory");
		err = file_pread(f, &d, sizeof(d), at);
		if (err)
			return err;
		bytes = round_up(
			sizeof(d) + (uint64_t)be32_get(d.extra_bytes) + be16_get(d.name_bytes), 8);
		if (bytes > left || d.granularity_bits > 63)
			return why_set(why, -EINVAL, "Broken bitmap directory");
		b->flags = be32_get(d.flags);
		b->granularity = 1ULL << d.granularity_bits;
		err = read_string(f, at + sizeof(d) + be32_get(d.extra_bytes),
			be16_get(d.name_bytes), b->name, sizeof(b->name));
		if (err)
			return err;
		at += bytes;
		left -= bytes;
		info->nb_bitmaps = i + 1;
	}
	return 0;
}

int info_read_qcow2(struct file *f, struct image_info *info, struct why *why)
{
	int err = qcow2_header_read(f, &info->h, why);

	if (!err && info->h.unknown_features[0]) /* then nothing else here may be believed */
		err = why_set(why, -ENOTSUP, "Unsupported qcow2 feature(s): %s",
			info->h.unknown_features);
	if (!err)
		err = read_snapshots(f, info, why);
	if (!err)
		err = read_bitmaps(f, info, why);
	info->virtual_bytes = info->h.size;
	return err;
}

void info_free(struct image_info *info)
{
	free(info->filename);
	free(info->format);
	free(info->path);
	free(info->snapshots);
	free(info->bitmaps);
}
