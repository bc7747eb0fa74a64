/* SPDX-License-Identifier: MIT */
/*
 * disk_file.c - see disk_file.h.
 *
 * Each request runs in a fiber, which waits for the disk below.  The disk was opened with its
 * write cache on, so a write here is no more durable than one to a host's file, and FDATASYNC is
 * its flush: the ordering rules of the format above hold over both.  A write beyond the end
 * makes the disk larger first.
 *
 * Who waits for whom: a disk's fibers are of its level, those here of the next, those of the disk
 * below of the one after that (fiber_start_at()), so that all can always go on.
 */
#include <stdlib.h>
#include <string.h>
#include "blockdev/block_int.h"
#include "blockdev/disk_file.h"
#include "blockdev/qcow2/iov.h"

struct disk_file {
	struct file file;
	struct disk *disk; /* NULL: closed before its time */
	bool compress;
	struct fiber_lock whole; /* compress: one piece of a cluster at a time */
};

static struct disk_file *disk_file_of(struct file *f)
{
	return container_of(f, struct disk_file, file);
}

/* Past the end are zeros. */
static int read_some(struct disk *d, struct file_req *r)
{
	uint64_t size = disk_size(d), n = r->off < size ? min_u64(r->len, size - r->off) : 0;
	struct iov_cursor all = {r->iov, r->niov, 0};
	struct iovec *part;
	uint64_t left = n;
	int err, k = 0;

	if (n == r->len)
		return disk_preadv(d, r->iov, r->niov, r->len, r->off);
	iov_zero(&all, r->len);
	if (!n)
		return 0;
	part = calloc((size_t)r->niov, sizeof(*part));
	if (!part)
		return -ENOMEM;
	for (; left; left -= part[k++].iov_len) {
		part[k] = r->iov[k];
		part[k].iov_len = min_u64(part[k].iov_len, left);
	}
	err = disk_preadv(d, part, k, n, r->off);
	free(part);
	return err;
}

static int reach(struct disk *d, uint64_t end)
{
	return end <= disk_size(d) ? 0 : disk_grow(d, round_up(end, SECTOR));
}

/* Whole clusters, with what was in them around the new. */
static int write_whole(struct disk_file *df, struct file_req *r)
{
	struct disk *d = df->disk;
	uint64_t cluster = max_u64(disk_cluster_size(d), SECTOR), end = r->off + r->len;
	uint64_t from = r->off / cluster * cluster, to;
	uint8_t *buf;
	struct iov_cursor src = {r->iov, r->niov, 0};
	int err;

	to = min_u64(round_up(end, cluster), disk_size(d));
	buf = file_buf(to - from);
	if (!buf)
		return -ENOMEM;
	fiber_lock(&df->whole);
	err = disk_pread(d, buf, to - from, from);
	if (!err) {
		iov_copy_out(&src, buf + (r->off - from), r->len);
		err = disk_pwrite(d, buf, to - from, from, BLK_COMPRESSED);
	}
	fiber_unlock(&df->whole);
	free(buf);
	return err;
}

static int write_some(struct disk_file *df, struct file_req *r)
{
	int err = reach(df->disk, r->off + r->len);

	if (err)
		return err;
	return df->compress ? write_whole(df, r)
			    : disk_pwritev(df->disk, r->iov, r->niov, r->len, r->off, 0);
}

static int punch(struct disk *d, const struct file_req *r)
{
	uint64_t size = disk_size(d), n = r->off < size ? min_u64(r->len, size - r->off) : 0;

	if (r->how == PUNCH_MAY)
		return disk_discard(d, n, r->off);
	return disk_zeroes(d, n, r->off, r->how == PUNCH_KEEP ? 0 : BLK_UNMAP);
}

static int carry_out(struct disk_file *df, struct file_req *r)
{
	struct why why = {""};

	switch (r->op) {
	case FILE_READ:
		return read_some(df->disk, r);
	case FILE_WRITE:
		return write_some(df, r);
	case FILE_FDATASYNC:
		return disk_flush(df->disk);
	case FILE_EXTEND:
		return reach(df->disk, r->off + r->len);
	case FILE_PUNCH:
		return punch(df->disk, r);
	case FILE_TRUNCATE:
		disk_drain(df->disk);
		return disk_resize(df->disk, r->off, PREALLOC_OFF, &why);
	}
	return -EINVAL;
}

static void request_main(struct fiber_start *s)
{
	struct file_req *r = container_of(s, struct file_req, start);
	struct disk_file *df = disk_file_of(r->file);

	file_finish(&df->file, r, carry_out(df, r));
}

static void disk_file_submit(struct file *f, struct file_req *r)
{
	r->file = f;
	r->start.fn = request_main;
	fiber_start_at(f->loop, &r->start, disk_file_of(f)->disk->level - 1);
}

static uint64_t disk_file_size(struct file *f)
{
	return disk_size(disk_file_of(f)->disk);
}

static bool disk_file_find_data(struct file *f, uint64_t off, uint64_t *len)
{
	struct disk *d = disk_file_of(f)->disk;
	struct extent e;

	*len = disk_size(d) - off;
	if (disk_map(d, off, *len, &e)) /* reading it says what is wrong */
		return true;
	*len = e.len;
	return e.kind == EXTENT_DATA;
}

static void disk_file_close(struct file *f)
{
	struct disk_file *df = disk_file_of(f);

	if (df->disk)
		disk_abandon(df->disk);
	free(df);
}

static const struct file_ops disk_file_ops = {
	.name = "disk",
	.submit = disk_file_submit,
	.size = disk_file_size,
	.find_data = disk_file_find_data,
	.close = disk_file_close,
};

int disk_file_open(struct disk *d, bool compress, struct file **out)
{
	struct disk_file *df = calloc(1, sizeof(*df));

	if (!df)
		return -ENOMEM;
	df->disk = d;
	df->compress = compress;
	fiber_lock_init(&df->whole);
	df->file = (struct file){.ops = &disk_file_ops,
		.loop = d->loop,
		.align_off = 1,
		.align_mem = 1,
		.readonly = d->readonly,
		.zeroes = true,
		.stats = d->fmt->file->stats};
	*out = &df->file;
	return 0;
}

static struct disk_file *bottom(struct file *f)
{
	while (f->below)
		f = f->below;
	return f->ops == &disk_file_ops ? disk_file_of(f) : NULL;
}

struct disk *disk_file_disk(struct file *f)
{
	struct disk_file *df = bottom(f);

	return df ? df->disk : NULL;
}

int disk_file_finish(struct file *f, struct why *why)
{
	struct disk_file *df = bottom(f);
	struct disk *d = df ? df->disk : NULL;

	if (!d)
		return 0;
	df->disk = NULL;
	return disk_close(d, why);
}
