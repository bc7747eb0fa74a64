/* SPDX-License-Identifier: MIT */
/*
 * buf.c - memory of requests: patterns, files as patterns, vectors; and one request, waited for.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "blockdev/io/cmd.h"

#define ALIGN      4096
#define MISALIGNED 16 /* -m: so many bytes past a page */

void *io_buf(const struct io *io, uint64_t len, int fill)
{
	char *p;

	if (posix_memalign((void **)&p, ALIGN, (len ? len : 1) + MISALIGNED)) {
		printf("%s\n", strerror(ENOMEM));
		return NULL;
	}
	if (io->misaligned)
		p += MISALIGNED;
	memset(p, fill, len);
	return p;
}

void io_buf_free(const struct io *io, void *buf)
{
	if (buf)
		free((char *)buf - (io->misaligned ? MISALIGNED : 0));
}

void *io_buf_from(const struct io *io, uint64_t len, const char *path)
{
	FILE *f = fopen(path, "rb");
	char *p = f ? io_buf(io, len, 0) : NULL;
	uint64_t have = p ? fread(p, 1, len, f) : 0;

	if (!f || (p && ferror(f))) {
		fflush(stdout);
		fprintf(stderr, "%s: %s\n", path, strerror(errno));
	} else if (p && !have) {
		fprintf(stderr, "%s: file is empty\n", path);
	}
	if (f)
		fclose(f);
	if (!have) {
		io_buf_free(io, p);
		return NULL;
	}
	for (uint64_t at = have; at < len; at += have)
		memcpy(p + at, p, min_u64(have, len - at));
	return p;
}

int io_iov(const struct io *io, int n, char **words, int fill, struct iovec **iov, uint64_t *len)
{
	struct iovec *v = calloc((size_t)n, sizeof(*v));
	char *p;

	*len = 0;
	if (!v)
		return -ENOMEM;
	for (int i = 0; i < n; i++) {
		uint64_t one;

		if (io_number(words[i], &one))
			goto bad;
		if (one > IO_BYTES_MAX) {
			printf("Argument '%s' exceeds maximum size %llu\n", words[i], IO_BYTES_MAX);
			goto bad;
		}
		if (*len + one > IO_BYTES_MAX) {
			printf("The total number of bytes exceed the maximum size %llu\n",
				IO_BYTES_MAX);
			goto bad;
		}
		v[i].iov_len = one;
		*len += one;
	}
	p = io_buf(io, *len, fill);
	if (!p)
		goto bad;
	for (int i = 0; i < n; i++) {
		v[i].iov_base = p;
		p += v[i].iov_len;
	}
	*iov = v;
	return 0;
bad:
	free(v);
	return -EINVAL;
}

void io_iov_free(const struct io *io, struct iovec *iov)
{
	io_buf_free(io, iov[0].iov_base);
	free(iov);
}

int io_verify(const void *buf, uint64_t len, int pattern, uint64_t off)
{
	const unsigned char *p = buf;

	if (!len || (p[0] == pattern && !memcmp(p, p + 1, len - 1)))
		return 0;
	printf("Pattern verification failed at offset %" PRIu64 ", %" PRIu64 " bytes\n", off, len);
	return -EINVAL;
}

struct request {
	struct io *io;
	enum blk_op op;
	unsigned flags;
	struct iovec *iov;
	int niov;
	uint64_t off, len;
};

static int request_fiber(void *arg)
{
	struct request *q = arg;
	struct disk *d = q->io->disk;

	switch (q->op) {
	case BLK_READ:
		return disk_preadv(d, q->iov, q->niov, q->len, q->off);
	case BLK_WRITE:
		return disk_pwritev(d, q->iov, q->niov, q->len, q->off, q->flags);
	case BLK_ZEROES:
		return disk_zeroes(d, q->len, q->off, q->flags);
	case BLK_DISCARD:
		return disk_discard(d, q->len, q->off);
	default:
		return disk_flush(d);
	}
}

int io_request(struct io *io, enum blk_op op, unsigned flags, struct iovec *iov, int niov,
	uint64_t off, uint64_t len)
{
	struct request q = {io, op, flags, iov, niov, off, len};

	return io_told_err(io, off, len, fiber_run(io->loop, request_fiber, &q));
}

struct vmstate {
	struct disk *d;
	void *buf;
	uint64_t off, len;
	bool write;
};

static int vmstate_fiber(void *arg)
{
	struct vmstate *v = arg;

	return disk_vmstate(v->d, v->buf, v->off, v->len, v->write);
}

int io_vmstate(struct io *io, void *buf, uint64_t off, uint64_t len, bool write)
{
	struct vmstate v = {io->disk, buf, off, len, write};

	return fiber_run(io->loop, vmstate_fiber, &v);
}

int io_told_err(const struct io *io, uint64_t off, uint64_t len, int err)
{
	if (err == -EINVAL && !range_within(off, len, disk_size(io->disk)))
		return -EIO;
	return err;
}

void io_drain(struct io *io)
{
	while (io->in_flight)
		if (loop_turn(io->loop, true))
			break;
	if (io->disk)
		disk_drain(io->disk);
}
