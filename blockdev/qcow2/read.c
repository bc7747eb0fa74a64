/* SPDX-License-Identifier: MIT */
/*
 * read.c - one guest read that could not go straight to the file: a table must be
 * read first, or the range maps to several places.
 */
#include "blockdev/qcow2/iov.h"
#include "blockdev/qcow2/qcow2.h"

/*
 * What this layer does not hold: the first layer below that does, else zeros.  The layers are
 * walked here and not by each reading through the next: a fiber's stack is small, a chain may be
 * long.
 */
static int read_below(struct format *fmt, struct iov_cursor *dst, uint64_t off, uint64_t len)
{
	while (len) {
		struct format *f = off < fmt->size ? fmt->backing : NULL;
		struct extent e = {.kind = EXTENT_HOLE};
		uint64_t n = len;
		int err = 0;

		for (; f && off < f->size; f = f->backing) {
			n = min_u64(n, f->size - off);
			err = f->ops->extent(f, off, n, &e);
			if (err)
				return err;
			n = e.len;
			if (e.kind != EXTENT_HOLE)
				break;
		}
		if (e.kind == EXTENT_DATA)
			err = iov_read_format(f, dst, off, n);
		else
			iov_zero(dst, n);
		if (err)
			return err;
		off += n;
		len -= n;
	}
	return 0;
}

int qcow2_read(struct format *fmt, struct iovec *iov, int niov, uint64_t off, uint64_t len)
{
	struct qcow2 *q = qcow2_of(fmt);
	struct iov_cursor dst = {iov, niov, 0};

	if (q->corrupt)
		return -ENOMEDIUM;
	while (len) {
		struct mapping m;
		int err = qcow2_map(q, off, len, &m);

		if (err)
			return err;
		if (m.kind == MAP_DATA)
			file_event(fmt->file, EV_READ_AIO);
		if (m.kind == MAP_DATA)
			err = iov_transfer(format_data(fmt), FILE_READ, &dst, m.host_off,
				NOTHING_BESIDE, m.len, NOTHING_BESIDE);
		else if (m.kind == MAP_COMPRESSED)
			err = qcow2_read_compressed(q, &dst, off, &m);
		else if (map_reads_below(&m))
			err = read_below(fmt, &dst, off, m.len);
		else
			iov_zero(&dst, m.len);
		if (err)
			return err;
		off += m.len;
		len -= m.len;
	}
	return 0;
}
