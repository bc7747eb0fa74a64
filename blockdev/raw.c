/* SPDX-License-Identifier: MIT */
/*
 * raw.c - an image that is nothing but the guest's bytes: a file or a block device.
 *
 * Every request maps to one host operation, so none needs a fiber.  A file whose
 * length is no multiple of a sector reads as zeros up to the next one.
 */
#include <stdlib.h>
#include "blockdev/format.h"

static int raw_probe(const uint8_t *head, size_t len)
{
	return 1; /* anything can be raw */
}

static int raw_open(struct file *f, const struct disk_opts *o, struct format **out, struct why *why)
{
	struct format *fmt = calloc(1, sizeof(*fmt));

	if (!fmt)
		return -ENOMEM;
	if (file_size(f) > INT64_MAX - SECTOR) {
		free(fmt);
		return why_set(why, -EFBIG, "the file is too large");
	}
	fmt->ops = &raw_format;
	fmt->file = f;
	fmt->size = round_up(file_size(f), SECTOR);
	fmt->readonly = o->readonly;
	sync_init(&fmt->sync, f);
	*out = fmt;
	return 0;
}

static void raw_free(struct format *fmt)
{
	file_close(fmt->file);
	free(fmt);
}

static int raw_flush(struct format *fmt)
{
	file_event(fmt->file, EV_FLUSH_TO_OS);
	file_event(fmt->file, EV_FLUSH_TO_DISK);
	return sync_to(&fmt->sync, fmt->sync.writes);
}

static int raw_close(struct format *fmt, struct why *why)
{
	return fmt->readonly ? 0 : raw_flush(fmt);
}

static bool raw_try_submit(struct format *fmt, struct blk_req *r)
{
	if (fmt->file->inject) /* events need a fiber */
		return false;
	format_submit(fmt, r, r->off);
	return true;
}

static int raw_read(struct format *fmt, struct iovec *iov, int niov, uint64_t off, uint64_t len)
{
	file_event(fmt->file, EV_READ_AIO);
	return file_preadv(fmt->file, iov, niov, off);
}

static int raw_write(struct format *fmt, struct iovec *iov, int niov, uint64_t off, uint64_t len)
{
	int err;

	file_event(fmt->file, EV_WRITE_AIO);
	err = file_pwritev(fmt->file, iov, niov, off);
	if (!err)
		sync_note(&fmt->sync);
	return err;
}

/* What the file takes no zeros in are written. */
static int raw_zeroes(struct format *fmt, uint64_t off, uint64_t len, unsigned flags)
{
	int err;

	uint64_t unit = max_u64(fmt->file->zeroes_unit, 1), end = off + len;
	uint64_t from = div_round_up(off, unit) * unit, to = end / unit * unit;

	if (!fmt->file->zeroes || from >= to || end > file_size(fmt->file))
		return -ENOTSUP;
	err = file_preallocate(fmt->file, off, from - off, PREALLOC_FULL);
	if (!err)
		err = file_punch_how(
			fmt->file, from, to - from, flags & BLK_UNMAP ? PUNCH_UNMAP : PUNCH_KEEP);
	if (!err)
		err = file_preallocate(fmt->file, to, end - to, PREALLOC_FULL);
	if (!err)
		sync_note(&fmt->sync);
	return err;
}

static int raw_discard(struct format *fmt, uint64_t off, uint64_t len)
{
	int err = 0;

	if (fmt->unmap && off < file_size(fmt->file)) {
		err = file_punch_how(fmt->file, off,
			min_u64(len, file_size(fmt->file) - off), PUNCH_MAY);
		if (!err)
			sync_note(&fmt->sync);
	}
	return err;
}

static int raw_extent(struct format *fmt, uint64_t off, uint64_t len, struct extent *e)
{
	uint64_t size = file_size(fmt->file);
	bool data = false;

	e->len = len;
	if (off < size)
		data = file_find_data(fmt->file, off, &e->len);
	e->kind = data ? EXTENT_DATA : EXTENT_ZERO;
	e->len = min_u64(e->len, len);
	e->has_host_off = true;
	e->host_off = off;
	return 0;
}

static int raw_grow(struct format *fmt, uint64_t size)
{
	int err = fmt->file->is_block ? -ENOTSUP : file_truncate(fmt->file, size);

	if (!err)
		err = sync_to(&fmt->sync, sync_note(&fmt->sync));
	if (!err)
		fmt->size = size;
	return err;
}

static int raw_resize(struct format *fmt, uint64_t size, enum prealloc how, struct why *why)
{
	uint64_t old = fmt->size;
	int err;

	if (how != PREALLOC_OFF && size < old)
		return why_set(why, -ENOTSUP, "Cannot use preallocation for shrinking files");
	if (how == PREALLOC_METADATA)
		return why_set(why, -ENOTSUP, "Unsupported preallocation mode: metadata");
	size = round_up(size, SECTOR);
	err = raw_grow(fmt, size);
	if (err || how == PREALLOC_OFF || size <= old)
		return err;
	err = file_preallocate(fmt->file, old, size - old, how);
	return err ? err : sync_to(&fmt->sync, sync_note(&fmt->sync));
}

const struct format_ops raw_format = {
	.name = "raw",
	.probe = raw_probe,
	.open = raw_open,
	.close = raw_close,
	.free = raw_free,
	.try_submit = raw_try_submit,
	.read = raw_read,
	.write = raw_write,
	.zeroes = raw_zeroes,
	.discard = raw_discard,
	.extent = raw_extent,
	.flush = raw_flush,
	.grow = raw_grow,
	.resize = raw_resize,
};
