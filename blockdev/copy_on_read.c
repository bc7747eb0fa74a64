/* SPDX-License-Identifier: MIT */
/*
 * copy_on_read.c - what is read from the layers below is kept in the top layer.
 *
 * Whole clusters are copied before the read is answered, and what is in the top layer already is
 * not touched.  A change that came between a copy's read and its write would be lost, so on a disk
 * that copies, changes and copies take turns.  A read whose copy could not be written fails: who
 * asked for copies wants to know.
 */
#include <stdlib.h>
#include <string.h>
#include "blockdev/block_int.h"
#include "blockdev/qcow2/iov.h"

#define COPY_BYTES (1 * MiB)

static bool all_zero(const uint8_t *p, uint64_t n)
{
	return !n || (!p[0] && !memcmp(p, p + 1, n - 1));
}

static int keep(struct disk *d, uint8_t *buf, uint64_t off, uint64_t len, bool zero)
{
	struct format *fmt = d->fmt;
	struct iovec iov = {buf, len};
	int err = -ENOTSUP;

	file_event(fmt->file, EV_COR_WRITE);
	if (zero && fmt->ops->zeroes)
		err = fmt->ops->zeroes(fmt, off, len, 0);
	return err == -ENOTSUP ? fmt->ops->write(fmt, &iov, 1, off, len) : err;
}

/* The request whose read this is: where its memory has been filled up to. */
struct cor {
	struct disk *d;
	uint8_t *buf; /* COPY_BYTES */
	struct iov_cursor to;
	uint64_t at, end;
};

/* What of [off, off+len) the request asked for; the first such byte is the cursor's. */
static uint64_t asked_for(const struct cor *c, uint64_t off, uint64_t len)
{
	uint64_t from = max_u64(off, c->at), to = min_u64(off + len, c->end);

	return from < to ? to - from : 0;
}

/* One piece of what is not in the top layer; *n: how long it was. */
static int copy_piece(struct cor *c, uint64_t off, uint64_t len, uint64_t *n)
{
	struct format *fmt = c->d->fmt;
	uint64_t wanted;
	struct extent e;
	struct iovec iov;
	int err = disk_map(c->d, off, len, &e);
	bool zero = !err && e.kind != EXTENT_DATA;

	if (err)
		return err;
	*n = zero && fmt->ops->zeroes ? e.len : min_u64(e.len, COPY_BYTES);
	wanted = asked_for(c, off, *n);
	iov = (struct iovec){c->buf, *n};
	if (zero) {
		memset(c->buf, 0, min_u64(*n, COPY_BYTES));
		iov_zero(&c->to, wanted);
	} else {
		err = fmt->ops->read(fmt, &iov, 1, off, *n);
		if (err)
			return err;
		iov_copy_in(&c->to, c->buf + (max_u64(off, c->at) - off), wanted);
	}
	c->at += wanted;
	return keep(c->d, c->buf, off, *n, zero || all_zero(c->buf, *n));
}

static int read_all(struct cor *c, uint64_t off, uint64_t end)
{
	while (off < end) {
		struct extent e;
		int err = disk_extent(c->d, off, end - off, &e);
		uint64_t n = 0;

		if (err)
			return err;
		if (e.kind == EXTENT_HOLE) {
			err = copy_piece(c, off, e.len, &n);
		} else {
			uint64_t wanted = asked_for(c, off, e.len);

			n = e.len;
			if (wanted)
				err = iov_read_format(c->d->fmt, &c->to, c->at, wanted);
			c->at += wanted;
		}
		if (err)
			return err;
		off += n;
	}
	return 0;
}

int cor_read(struct disk *d, struct iovec *iov, int niov, uint64_t off, uint64_t len)
{
	struct disk *inner = disk_inner(d);
	uint64_t cluster = max_u64(disk_cluster_size(inner ? inner : d), SECTOR);
	uint64_t from = off / cluster * cluster, end = round_up(off + len, cluster);
	struct cor c = {.d = d,
		.buf = file_buf(COPY_BYTES),
		.to = {iov, niov, 0},
		.at = off,
		.end = off + len};
	int err;

	if (!c.buf)
		return -ENOMEM;
	fiber_lock(&d->cor_lock);
	err = read_all(&c, from, min_u64(end, disk_size(d)));
	fiber_unlock(&d->cor_lock);
	free(c.buf);
	return err;
}
