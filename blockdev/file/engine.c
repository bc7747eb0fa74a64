/* SPDX-License-Identifier: MIT */
/*
 * engine.c - a host file through the loop: one request, one or more host operations.
 *
 * The host may move less than was asked for, and may be asked again only for the rest.
 * The rest starts inside some element of the caller's iovec: that element is cut in place,
 * remembered in saved, and put back before anything else happens to the request.
 *
 *   submit --> host operation --> all moved, end of file or error --> done
 *                  ^------- rest ------'
 *
 * What the host cannot do is done another way: fallocate by ftruncate, punching by
 * writing zeros.  The size is ours to know, because the image lock keeps others from changing it.
 *
 * Not here: alignment (align.c), opening and locking (file.c, lock.c).
 */
#include <fcntl.h>
#include <limits.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>
#include "blockdev/file/engine.h"
#include "blockdev/file/lock.h"

#define TRIES_MAX 1000 /* EAGAIN in a row; then it is the host's answer */
#define ZEROS	  (1 * MiB)

struct engine {
	struct file file;
	struct file_stats stats;
	int fd;
	bool direct, no_nowait;
	uint64_t size; /* bytes */
};

/* What punching writes where the host cannot punch; never written, so one page of zeros. */
static char zeros[ZEROS] __attribute__((aligned(4096)));

static struct engine *engine_of(struct file *f)
{
	return container_of(f, struct engine, file);
}

static void engine_issue(struct engine *e, struct file_req *r);

static void iov_restore(struct file_req *r)
{
	if (r->saved_at >= 0)
		r->iov[r->saved_at] = r->saved;
	r->saved_at = -1;
}

/* lop.iov becomes what is left after the first r->moved bytes. */
static void iov_skip_moved(struct file_req *r)
{
	uint64_t skip = r->moved;
	int i = 0;

	iov_restore(r);
	while (i < r->niov && skip >= r->iov[i].iov_len)
		skip -= r->iov[i++].iov_len;
	if (skip) {
		r->saved = r->iov[i];
		r->saved_at = i;
		r->iov[i].iov_base = (char *)r->iov[i].iov_base + skip;
		r->iov[i].iov_len -= skip;
	}
	r->lop.iov = r->iov + i;
	r->lop.niov = r->niov - i;
	if (r->lop.niov > IOV_MAX)
		r->lop.niov = IOV_MAX;
}

static void zero_fill_rest(struct file_req *r)
{
	uint64_t skip = r->moved;

	iov_restore(r);
	for (int i = 0; i < r->niov; i++) {
		uint64_t n = min_u64(skip, r->iov[i].iov_len);

		if (n < r->iov[i].iov_len)
			memset((char *)r->iov[i].iov_base + n, 0, r->iov[i].iov_len - n);
		skip -= n;
	}
}

static void engine_done(struct engine *e, struct file_req *r, int err)
{
	iov_restore(r);
	r->done(r, err);
}

static void read_moved(struct engine *e, struct file_req *r, uint64_t n)
{
	e->stats.read_bytes += n;
	r->moved += n;
	/* Nothing, or less than asked up to the end: what is missing does not exist. */
	if (r->moved < r->len && (n == 0 || r->off + r->moved >= e->size)) {
		zero_fill_rest(r);
		r->moved = r->len;
	}
	if (r->moved == r->len)
		engine_done(e, r, 0);
	else
		engine_issue(e, r);
}

static void write_moved(struct engine *e, struct file_req *r, uint64_t n)
{
	uint64_t had = r->moved;

	e->stats.written_bytes += n;
	r->moved += n;
	e->size = max_u64(e->size, r->off + r->moved);
	if (r->moved == r->len) {
		engine_done(e, r, 0);
		return;
	}
	/* O_DIRECT takes the rest only from a block's start: a part of a block is written twice. */
	if (e->direct)
		r->moved = round_down(r->off + r->moved, e->file.align_off) - r->off;
	if (r->moved <= had)
		engine_done(e, r, -EIO);
	else
		engine_issue(e, r);
}

/* The host has no fallocate here: a hole will do, zeros will be read and the size is right. */
static void extend_by_truncate(struct engine *e, struct file_req *r)
{
	uint64_t end = r->off + r->len;

	if (end <= e->size) {
		engine_done(e, r, 0);
		return;
	}
	e->stats.truncates++;
	r->lop.code = LOOP_FTRUNCATE;
	r->lop.len = end;
	loop_submit(e->file.loop, &r->lop);
}

/* The host cannot punch: zeros, a piece at a time.  moved counts, saved is the iovec. */
static void punch_by_writing(struct engine *e, struct file_req *r)
{
	uint64_t at = r->off + r->moved;
	/* O_DIRECT writes whole blocks, the last one too. */
	uint64_t end = min_u64(r->off + r->len, round_up(e->size, e->file.align_off));

	if (at >= end) {
		engine_done(e, r, 0);
		return;
	}
	r->saved = (struct iovec){.iov_base = zeros, .iov_len = min_u64(ZEROS, end - at)};
	r->lop.code = LOOP_WRITEV;
	r->lop.direct = e->direct;
	r->lop.iov = &r->saved;
	r->lop.niov = 1;
	r->lop.off = at;
	e->stats.writes++;
	loop_submit(e->file.loop, &r->lop);
}

static void refresh_size(struct engine *e)
{
	struct stat st;

	if (!e->file.is_block && fstat(e->fd, &st) == 0)
		e->size = (uint64_t)st.st_size;
}

static bool host_cannot(int64_t res)
{
	return res == -EOPNOTSUPP || res == -ENOSYS || res == -ENODEV;
}

static void extend_done(struct engine *e, struct file_req *r, int64_t res)
{
	if (r->lop.code == LOOP_FALLOCATE && host_cannot(res)) {
		extend_by_truncate(e, r);
		return;
	}
	if (res == 0)
		e->size = max_u64(e->size, r->off + r->len);
	else
		refresh_size(e); /* it may have got part of the way */
	engine_done(e, r, (int)res);
}

static void punch_done(struct engine *e, struct file_req *r, int64_t res)
{
	/* A device punches whole blocks and nothing beyond its end. */
	bool refused = host_cannot(res) || (res == -EINVAL && e->file.is_block);

	if (r->lop.code == LOOP_FALLOCATE && refused) {
		punch_by_writing(e, r);
	} else if (r->lop.code == LOOP_WRITEV && res > 0) {
		r->moved += (uint64_t)res;
		e->size = max_u64(e->size, r->off + r->moved);
		e->stats.written_bytes += (uint64_t)res;
		punch_by_writing(e, r);
	} else if (r->lop.code == LOOP_WRITEV && res == 0) {
		engine_done(e, r, -EIO);
	} else {
		engine_done(e, r, (int)res);
	}
}

static void host_done(struct loop_op *op, int64_t res)
{
	struct file_req *r = container_of(op, struct file_req, lop);
	struct engine *e = engine_of(r->file);

	e->no_nowait |= op->refused;
	if (res == -EINTR || (res == -EAGAIN && ++r->tries < TRIES_MAX)) {
		loop_submit(e->file.loop, op);
		return;
	}
	r->tries = 0;
	switch (r->op) {
	case FILE_READ:
		if (res >= 0)
			read_moved(e, r, (uint64_t)res);
		else
			engine_done(e, r, (int)res);
		break;
	case FILE_WRITE:
		if (res >= 0)
			write_moved(e, r, (uint64_t)res);
		else
			engine_done(e, r, (int)res);
		break;
	case FILE_FDATASYNC:
		engine_done(e, r, (int)res);
		break;
	case FILE_EXTEND:
		extend_done(e, r, res);
		break;
	case FILE_PUNCH:
		punch_done(e, r, res);
		break;
	case FILE_TRUNCATE:
		if (res == 0)
			e->size = r->off;
		engine_done(e, r, (int)res);
		break;
	}
}

/* Transfers what is left of a READ or WRITE. */
static void engine_issue(struct engine *e, struct file_req *r)
{
	iov_skip_moved(r);
	r->lop.code = r->op == FILE_READ ? LOOP_READV : LOOP_WRITEV;
	r->lop.direct = e->direct || (r->op == FILE_READ && e->no_nowait);
	r->lop.off = r->off + r->moved;
	if (r->op == FILE_READ)
		e->stats.reads++;
	else
		e->stats.writes++;
	loop_submit(e->file.loop, &r->lop);
}

static void issue_fallocate(struct engine *e, struct file_req *r, int mode)
{
	e->stats.fallocates++;
	r->lop.code = LOOP_FALLOCATE;
	r->lop.mode = mode;
	r->lop.off = r->off;
	r->lop.len = r->len;
	loop_submit(e->file.loop, &r->lop);
}

static void issue_truncate(struct engine *e, struct file_req *r)
{
	e->stats.truncates++;
	r->lop.code = LOOP_FTRUNCATE;
	r->lop.len = r->off;
	loop_submit(e->file.loop, &r->lop);
}

static void engine_submit(struct file *f, struct file_req *r)
{
	struct engine *e = engine_of(f);
	uint64_t end;

	r->file = f;
	r->moved = 0;
	r->tries = 0;
	r->saved_at = -1;
	if (r->op != FILE_FDATASYNC && r->op != FILE_TRUNCATE && r->len == 0) {
		file_finish(f, r, 0);
		return;
	}
	/* The host's offsets are signed. */
	if (__builtin_add_overflow(r->off, r->len, &end) || end > INT64_MAX) {
		file_finish(f, r, -EFBIG);
		return;
	}
	if (f->readonly && r->op != FILE_READ && r->op != FILE_FDATASYNC) {
		file_finish(f, r, -EBADF);
		return;
	}
	if (f->is_block && (r->op == FILE_EXTEND || r->op == FILE_TRUNCATE)) {
		file_finish(f, r, end <= e->size ? 0 : -ENOSPC);
		return;
	}
	r->lop = (struct loop_op){.done = host_done, .fd = e->fd};
	switch (r->op) {
	case FILE_READ:
	case FILE_WRITE:
		engine_issue(e, r);
		break;
	case FILE_FDATASYNC:
		e->stats.fdatasyncs++;
		r->lop.code = LOOP_FDATASYNC;
		r->lop.here = r->here;
		loop_submit(f->loop, &r->lop);
		break;
	case FILE_EXTEND:
		issue_fallocate(e, r, 0);
		break;
	case FILE_PUNCH:
		issue_fallocate(e, r, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE);
		break;
	case FILE_TRUNCATE:
		issue_truncate(e, r);
		break;
	}
}

static uint64_t engine_size(struct file *f)
{
	return engine_of(f)->size;
}

static bool engine_find_data(struct file *f, uint64_t off, uint64_t *len)
{
	struct engine *e = engine_of(f);
	off_t data = lseek(e->fd, (off_t)off, SEEK_DATA), hole;

	if (data < 0) {
		/* ENXIO: nothing but a hole up to the end; else the host has no such call. */
		return errno != ENXIO;
	}
	if ((uint64_t)data > off) {
		*len = min_u64(*len, (uint64_t)data - off);
		return false;
	}
	hole = lseek(e->fd, (off_t)off, SEEK_HOLE);
	if (hole > (off_t)off)
		*len = min_u64(*len, (uint64_t)hole - off);
	return true;
}

static void engine_close(struct file *f)
{
	struct engine *e = engine_of(f);

	image_unlock(e->fd);
	close(e->fd);
	free(e);
}

static const struct file_ops engine_ops = {
	.name = "engine",
	.submit = engine_submit,
	.size = engine_size,
	.find_data = engine_find_data,
	.close = engine_close,
};

int engine_fd(const struct file *f)
{
	assert(f->ops == &engine_ops);
	return container_of(f, struct engine, file)->fd;
}

static int host_size(int fd, bool *is_block, uint64_t *size)
{
	struct stat st;

	if (fstat(fd, &st) < 0)
		return -errno;
	*is_block = S_ISBLK(st.st_mode);
	*size = (uint64_t)st.st_size;
	if (*is_block && ioctl(fd, BLKGETSIZE64, size) < 0)
		return -errno;
	return *is_block || S_ISREG(st.st_mode) ? 0 : -EINVAL;
}

int engine_open(struct loop *l, int fd, bool direct, bool readonly, struct file **out)
{
	struct engine *e = calloc(1, sizeof(*e));
	int err;

	if (!e)
		return -ENOMEM;
	err = host_size(fd, &e->file.is_block, &e->size);
	if (err) {
		free(e);
		return err;
	}
	e->fd = fd;
	e->direct = direct;
	e->file.ops = &engine_ops;
	e->file.loop = l;
	e->file.readonly = readonly;
	e->file.align_off = e->file.align_mem = 1;
	e->file.stats = &e->stats;
	*out = &e->file;
	return 0;
}
