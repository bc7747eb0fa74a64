/* SPDX-License-Identifier: MIT */
/*
 * iov.c - see iov.h.  The pieces are built in one array on the fiber's stack; a piece with more
 * elements than it holds goes to the file in several operations.
 */
#include <string.h>
#include "blockdev/format.h"
#include "blockdev/qcow2/iov.h"

#define IOV_BATCH   128
#define ZEROS_BYTES (64 * KiB)

/* Only ever read; page aligned for O_DIRECT. */
static uint8_t zeros[ZEROS_BYTES] __attribute__((aligned(4096)));

struct batch {
	struct iovec v[IOV_BATCH];
	int n;
	uint64_t bytes;
};

/* Takes up to len bytes from the cursor into the batch; returns how many. */
static uint64_t take(struct batch *b, struct iov_cursor *c, uint64_t len)
{
	uint64_t got = 0;

	while (got < len && b->n < IOV_BATCH) {
		uint64_t here = c->iov->iov_len - c->skip;
		uint64_t k = min_u64(here, len - got);

		if (k)
			b->v[b->n++] = (struct iovec){(char *)c->iov->iov_base + c->skip, k};
		got += k;
		c->skip += k;
		if (k == here) {
			c->iov++;
			c->niov--;
			c->skip = 0;
		}
	}
	b->bytes += got;
	return got;
}

/* As much as there is room for; the rest stays in *from. */
static void take_beside(struct batch *b, struct beside *from)
{
	while (from->len && b->n < IOV_BATCH) {
		uint64_t k = from->buf ? from->len : min_u64(from->len, ZEROS_BYTES);

		b->v[b->n++] = (struct iovec){
			from->buf ? (void *)(uintptr_t)from->buf : (void *)zeros, k};
		from->len -= k;
		b->bytes += k;
	}
}

void iov_zero(struct iov_cursor *c, uint64_t len)
{
	while (len) {
		struct batch b = {.n = 0};

		len -= take(&b, c, len);
		for (int i = 0; i < b.n; i++)
			memset(b.v[i].iov_base, 0, b.v[i].iov_len);
	}
}

void iov_copy_in(struct iov_cursor *to, const void *from, uint64_t len)
{
	const uint8_t *p = from;

	while (len) {
		struct batch b = {.n = 0};

		len -= take(&b, to, len);
		for (int i = 0; i < b.n; p += b.v[i++].iov_len)
			memcpy(b.v[i].iov_base, p, b.v[i].iov_len);
	}
}

void iov_copy_out(struct iov_cursor *from, void *to, uint64_t len)
{
	uint8_t *p = to;

	while (len) {
		struct batch b = {.n = 0};

		len -= take(&b, from, len);
		for (int i = 0; i < b.n; p += b.v[i++].iov_len)
			memcpy(p, b.v[i].iov_base, b.v[i].iov_len);
	}
}

int iov_transfer(struct file *f, enum file_op op, struct iov_cursor *c, uint64_t off,
	struct beside head, uint64_t len, struct beside tail)
{
	while (head.len + len + tail.len) {
		struct batch b = {.n = 0};
		int err;

		take_beside(&b, &head);
		if (!head.len && len)
			len -= take(&b, c, len);
		if (!head.len && !len)
			take_beside(&b, &tail);
		err = op == FILE_READ ? file_preadv(f, b.v, b.n, off)
				      : file_pwritev(f, b.v, b.n, off);
		if (err)
			return err;
		off += b.bytes;
	}
	return 0;
}

int iov_read_format(struct format *fmt, struct iov_cursor *c, uint64_t off, uint64_t len)
{
	while (len) {
		struct batch b = {.n = 0};
		int err;

		len -= take(&b, c, len);
		err = fmt->ops->read(fmt, b.v, b.n, off, b.bytes);
		if (err)
			return err;
		off += b.bytes;
	}
	return 0;
}
