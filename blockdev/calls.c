/* SPDX-License-Identifier: MIT */
/*
 * calls.c - a disk's requests and changes as plain calls, for fibers.
 */
#include "blockdev/block_int.h"

struct wait_req {
	struct blk_req r;
	struct fiber *f;
	int err;
	bool over;
};

static void wait_done(struct blk_req *r, int err)
{
	struct wait_req *w = container_of(r, struct wait_req, r);

	w->err = err;
	w->over = true;
	fiber_wake(w->f);
}

static int submit_and_wait(struct disk *d, struct blk_req r)
{
	struct wait_req w = {.r = r, .f = fiber_self()};

	assert(w.f);
	w.r.done = wait_done;
	disk_submit(d, &w.r);
	while (!w.over)
		fiber_suspend();
	return w.err;
}

int disk_preadv(struct disk *d, struct iovec *iov, int niov, uint64_t len, uint64_t off)
{
	return submit_and_wait(d,
		(struct blk_req){.op = BLK_READ, .iov = iov, .niov = niov, .off = off, .len = len});
}

int disk_pread(struct disk *d, void *buf, uint64_t len, uint64_t off)
{
	struct iovec iov = {buf, len};

	return disk_preadv(d, &iov, 1, len, off);
}

int disk_pwritev(
	struct disk *d, struct iovec *iov, int niov, uint64_t len, uint64_t off, unsigned flags)
{
	return submit_and_wait(d, (struct blk_req){.op = BLK_WRITE,
					  .flags = flags,
					  .iov = iov,
					  .niov = niov,
					  .off = off,
					  .len = len});
}

int disk_pwrite(struct disk *d, const void *buf, uint64_t len, uint64_t off, unsigned flags)
{
	struct iovec iov = {(void *)(uintptr_t)buf, len};

	return disk_pwritev(d, &iov, 1, len, off, flags);
}

int disk_zeroes(struct disk *d, uint64_t len, uint64_t off, unsigned flags)
{
	return submit_and_wait(
		d, (struct blk_req){.op = BLK_ZEROES, .flags = flags, .off = off, .len = len});
}

int disk_discard(struct disk *d, uint64_t len, uint64_t off)
{
	return submit_and_wait(d, (struct blk_req){.op = BLK_DISCARD, .off = off, .len = len});
}

int disk_flush(struct disk *d)
{
	return submit_and_wait(d, (struct blk_req){.op = BLK_FLUSH});
}

static int sized(struct disk *d, int err)
{
	hold_sized(d);
	return err;
}

int disk_grow(struct disk *d, uint64_t size)
{
	if (d->readonly)
		return -EROFS;
	if (size < d->fmt->size || size % SECTOR)
		return -EINVAL;
	return sized(d, d->fmt->ops->grow(d->fmt, size));
}

int disk_resize(struct disk *d, uint64_t size, enum prealloc how, struct why *why)
{
	if (d->readonly)
		return -EROFS;
	if (!d->fmt->ops->resize)
		return -ENOTSUP;
	return sized(d, d->fmt->ops->resize(d->fmt, size, how, why));
}

int disk_make_empty(struct disk *d)
{
	if (d->readonly)
		return -EROFS;
	return d->fmt->ops->make_empty ? d->fmt->ops->make_empty(d->fmt) : -ENOTSUP;
}

int disk_set_backing(struct disk *d, const char *name, const char *format, struct why *why)
{
	if (d->readonly)
		return -EROFS;
	if (!d->fmt->ops->set_backing)
		return -ENOTSUP;
	return d->fmt->ops->set_backing(d->fmt, name, format, why);
}

int disk_amend(struct disk *d, const struct disk_amend *a, struct why *why)
{
	if (d->readonly)
		return -EROFS;
	return sized(d, d->fmt->ops->amend ? d->fmt->ops->amend(d->fmt, a, why) : -ENOTSUP);
}
