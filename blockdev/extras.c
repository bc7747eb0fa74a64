/* SPDX-License-Identifier: MIT */
/*
 * extras.c - what an image may keep besides the disk: snapshots, dirty bitmaps, a machine's state.
 * A format that keeps none is asked nothing; all the rest is the format's.
 */
#include "blockdev/block_int.h"

bool disk_snapshot_get(const struct disk *d, uint32_t i, struct disk_snapshot *out)
{
	return d->fmt->ops->snapshot_get && d->fmt->ops->snapshot_get(d->fmt, i, out);
}

int disk_snapshot_change(struct disk *d, enum snapshot_op op, const char *name, struct why *why)
{
	int err;

	if (!d->fmt->ops->snapshot)
		return -ENOTSUP;
	if (d->readonly)
		return -EROFS;
	disk_drain(d);
	err = d->fmt->ops->snapshot(d->fmt, op, name, why);
	hold_sized(d);
	return err;
}

int disk_snapshot_load(struct disk *d, const char *id, const char *name, struct why *why)
{
	int err;

	if (!d->fmt->ops->snapshot_load)
		return -ENOTSUP;
	disk_drain(d);
	err = d->fmt->ops->snapshot_load(d->fmt, id, name, why);
	hold_sized(d);
	return err;
}

int disk_vmstate(struct disk *d, void *buf, uint64_t off, uint64_t len, bool write)
{
	struct iovec iov = {buf, len};
	int err;

	if (disk_inner(d))
		return disk_vmstate(disk_inner(d), buf, off, len, write);
	if (write && d->readonly)
		return -EROFS;
	if (!d->fmt->ops->vmstate)
		return -ENOTSUP;
	disk_drain(d);
	err = d->fmt->ops->vmstate(d->fmt, &iov, 1, off, len, write);
	d->acked += write; /* by nobody; but there is something to flush */
	return !err && write && !disk_wce(d) ? disk_flush(d) : err;
}

bool disk_has_bitmaps(const struct disk *d)
{
	return d->fmt->keeps_bitmaps;
}

bool disk_bitmap_get(const struct disk *d, uint32_t i, struct disk_bitmap *out)
{
	return d->fmt->ops->bitmap_get && d->fmt->ops->bitmap_get(d->fmt, i, out);
}

/* In the peer's words. */
static int without(enum bitmap_op op, const char *name, struct why *why)
{
	if (op == BITMAP_ADD)
		return why_set(why, -ENOTSUP,
			"Can't store persistent bitmaps to #block100: Operation not supported");
	return why_set(why, -ENOENT, "Dirty bitmap '%s' not found", name);
}

int disk_bitmap_change(struct disk *d, enum bitmap_op op, const char *name, uint64_t granularity,
	struct why *why)
{
	if (d->readonly)
		return -EROFS;
	disk_drain(d);
	if (!d->fmt->ops->bitmap_change)
		return without(op, name, why);
	return d->fmt->ops->bitmap_change(d->fmt, op, name, granularity, why);
}

int disk_bitmap_merge(struct disk *d, const char *name, struct disk *from, const char *from_name,
	struct why *why)
{
	if (d->readonly)
		return -EROFS;
	disk_drain(d);
	disk_drain(from);
	if (!d->fmt->ops->bitmap_merge)
		return without(BITMAP_CLEAR, name, why);
	if (!from->fmt->ops->bitmap_merge)
		return without(BITMAP_CLEAR, from_name, why);
	return d->fmt->ops->bitmap_merge(d->fmt, name, from->fmt, from_name, why);
}
