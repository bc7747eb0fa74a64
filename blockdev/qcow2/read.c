/* SPDX-License-Identifier: MIT */
/*
 * read.c - one guest read that could not go straight to the file: a table must be
 * read first, or the range maps to several places.
 */
#include "blockdev/qcow2/iov.h"
#include "blockdev/qcow2/qcow2.h"

int qcow2_read(struct format *fmt, struct iovec *iov, int niov, uint64_t off, uint64_t len)
{
	struct qcow2 *q = qcow2_of(fmt);
	struct iov_cursor dst = {iov, niov, 0};

	while (len) {
		struct mapping m;
		int err = qcow2_map(q, off, len, &m);

		if (err)
			return err;
		if (m.kind == MAP_DATA)
			err = iov_transfer(
				fmt->file, FILE_READ, &dst, m.host_off, 0, m.len, 0);
		else
			iov_zero(&dst, m.len);
		if (err)
			return err;
		off += m.len;
		len -= m.len;
	}
	return 0;
}
