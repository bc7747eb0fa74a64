/* SPDX-License-Identifier: MIT */
/*
 * iov.h - walking through a request's memory piece by piece.
 */
#ifndef QCOW2_IOV_H
#define QCOW2_IOV_H

#include "blockdev/file/file.h"

struct iov_cursor {
	struct iovec *iov;
	int niov;
	uint64_t skip; /* bytes of iov[0] that are used up */
};

/* The next len bytes, as zeros; the cursor moves on. */
void iov_zero(struct iov_cursor *c, uint64_t len);

/* The same from and to other memory. */
void iov_copy_in(struct iov_cursor *to, const void *from, uint64_t len);
void iov_copy_out(struct iov_cursor *from, void *to, uint64_t len);

/* Bytes to write beside a request's own; buf == NULL: zeros. */
struct beside {
	uint64_t len;
	const void *buf;
};

/*
 * In a fiber: moves the next len bytes between the cursor's memory and the file; the cursor moves
 * on.  With WRITE, head and tail are written around them as one whole: the file range is
 * [off, off+head.len+len+tail.len).  0 or -errno.
 */
must_check int iov_transfer(struct file *f, enum file_op op, struct iov_cursor *c, uint64_t off,
	struct beside head, uint64_t len, struct beside tail);
#define NOTHING_BESIDE ((struct beside){0, NULL})

/* In a fiber: the next len bytes from a format at off; the range is inside it.  0 or -errno. */
struct format;
must_check int iov_read_format(
	struct format *fmt, struct iov_cursor *c, uint64_t off, uint64_t len);

#endif
