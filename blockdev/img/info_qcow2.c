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

static int add_bitmap(void *arg, const struct qcow2_bitmap_word *w)
{
	struct image_info *info = arg;
	size_t n = info->nb_bitmaps + 1;
	struct bitmap_info *b = realloc(info->bitmaps, n * sizeof(*b));

	if (!b)
		return -ENOMEM;
	info->bitmaps = b;
	b[n - 1] = (struct bitmap_info){strdup(w->name), w->in_use, w->enabled, w->granularity};
	if (!b[n - 1].name)
		return -ENOMEM;
	info->nb_bitmaps++;
	return 0;
}

int info_read_qcow2(struct file *f, struct image_info *info, struct why *why)
{
	int err = qcow2_header_read(f, &info->h, why);

	if (!err && info->h.unknown_features[0]) /* then nothing else here may be believed */
		err = why_set(why, -ENOTSUP, "Unsupported qcow2 feature(s): %s",
			info->h.unknown_features);
	if (!err)
		qcow2_header_warn(&info->h);
	if (!err)
		err = read_snapshots(f, info, why);
	if (!err)
		err = qcow2_bitmaps_describe(f, &info->h, add_bitmap, info, why);
	info->virtual_bytes = info->h.size;
	return err;
}

void info_free(struct image_info *info)
{
	free(info->filename);
	free(info->format);
	free(info->path);
	free(info->snapshots);
	for (uint32_t i = 0; i < info->nb_bitmaps; i++)
		free(info->bitmaps[i].name);
	free(info->bitmaps);
}
