/* SPDX-License-Identifier: MIT */
/*
 * cow.c - copy on write: what a cluster reads as before a write gives it a place of its own.
 *
 * The old content comes through the image's own read path, so that it makes no difference
 * whether it lies in a backing file, in a cluster shared with a snapshot, or compressed.
 * The buffers are made at open; a fiber that holds one waits for the host and for metadata, but
 * for no other buffer and for no lock of the allocator.
 */
#include <string.h>
#include <sys/mman.h>
#include "blockdev/qcow2/qcow2.h"

static uint64_t buf_bytes(const struct qcow2 *q)
{
	return 2ULL * q->h.cluster_size;
}

int qcow2_cow_init(struct qcow2 *q)
{
	/* mmap: pages cost memory when a buffer is first used, which most images never do. */
	void *mem = mmap(NULL, COW_BUFS * buf_bytes(q), PROT_READ | PROT_WRITE,
		MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	fiber_queue_init(&q->cow_q);
	q->cow_free = (1u << COW_BUFS) - 1;
	q->cow_mem = mem == MAP_FAILED ? NULL : mem;
	return q->cow_mem ? 0 : -ENOMEM;
}

void qcow2_cow_fini(struct qcow2 *q)
{
	if (q->cow_mem)
		munmap(q->cow_mem, COW_BUFS * buf_bytes(q));
	q->cow_mem = NULL;
}

uint8_t *qcow2_cow_get(struct qcow2 *q)
{
	unsigned i;

	while (!q->cow_free)
		fiber_queue_wait(&q->cow_q);
	i = (unsigned)__builtin_ctz(q->cow_free);
	q->cow_free &= ~(1u << i);
	return q->cow_mem + i * buf_bytes(q);
}

void qcow2_cow_put(struct qcow2 *q, uint8_t *buf)
{
	q->cow_free |= 1u << ((uint64_t)(buf - q->cow_mem) / buf_bytes(q));
	(void)fiber_queue_wake_one(&q->cow_q);
}

/* Of [off, off+len): as far as there is something to read, disk or a machine's state. */
static uint64_t readable(const struct qcow2 *q, uint64_t off, uint64_t len)
{
	if (off >= qcow2_vmstate_offset(&q->fmt))
		return len;
	return off < q->fmt.size ? min_u64(len, q->fmt.size - off) : 0;
}

int qcow2_read_old(struct qcow2 *q, uint8_t *buf, uint64_t off, uint64_t len)
{
	uint64_t in = readable(q, off, len);
	struct iovec iov = {buf, in};

	memset(buf + in, 0, len - in);
	return in ? qcow2_read(&q->fmt, &iov, 1, off, in) : 0;
}

int qcow2_reads_zero(struct qcow2 *q, uint64_t off, uint64_t len, bool *zero)
{
	uint64_t end = off + readable(q, off, len);

	*zero = true;
	while (off < end && *zero) {
		uint64_t n = end - off;
		struct extent e = {.kind = EXTENT_HOLE};

		for (struct format *f = &q->fmt; f == &q->fmt || (f && off < f->size);
			f = off < q->fmt.size ? f->backing : NULL) {
			int err;

			if (off < f->size)
				n = min_u64(n, f->size - off);
			err = f->ops->extent(f, off, n, &e);
			if (err)
				return err;
			n = e.len;
			if (e.kind != EXTENT_HOLE)
				break;
		}
		*zero = e.kind != EXTENT_DATA;
		off += n;
	}
	return 0;
}
