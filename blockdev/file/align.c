/* SPDX-License-Identifier: MIT */
/*
 * align.c - O_DIRECT below, callers of any alignment above.
 *
 * A request that keeps the alignment passes through: no copy, no fiber.  Others go in
 * pieces through a bounce buffer in a fiber; a write that covers part of a block reads the
 * block first.  That would lose a neighbour's write which lands between the read and the write,
 * so everything that changes content starts in the order of arrival and only when no
 * earlier one overlaps in blocks, if at least one of the two is such a read-modify-write:
 *
 *   changes (list, oldest first):   [pass, running] [rmw, running] [pass, waits for rmw] ...
 *
 * As long as all is aligned (rmw == 0) the list is kept and never searched.
 *
 * After an unaligned write at the end of the file, its size is a multiple of the alignment.
 */
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include "blockdev/file/engine.h"

#define BOUNCE_MAX (1 * MiB) /* memory of one unaligned request; longer ones take turns */

struct align {
	struct file file;
	struct list changes; /* file_req.pass.link */
	unsigned rmw;	     /* of them not aligned */
};

static struct align *align_of(struct file *f)
{
	return container_of(f, struct align, file);
}

static bool range_aligned(const struct file *f, const struct file_req *r)
{
	return ((r->off | r->len) & (f->below->align_off - 1)) == 0;
}

static bool memory_aligned(const struct file *f, const struct file_req *r)
{
	if (r->niov > IOV_MAX)
		return false; /* the engine would cut it anywhere */
	for (int i = 0; i < r->niov; i++)
		if (((uintptr_t)r->iov[i].iov_base & (f->below->align_mem - 1)) ||
		    (r->iov[i].iov_len & (f->below->align_off - 1)))
			return false;
	return true;
}

static bool passes(const struct file *f, const struct file_req *r)
{
	return range_aligned(f, r) && (r->op == FILE_PUNCH || memory_aligned(f, r));
}

/* Copies between buf and the caller's memory from byte at on. */
static void copy(const struct file_req *r, uint64_t at, char *buf, uint64_t n, bool to_caller)
{
	for (int i = 0; i < r->niov && n; i++) {
		uint64_t len = r->iov[i].iov_len, part;
		char *p = (char *)r->iov[i].iov_base;

		if (at >= len) {
			at -= len;
			continue;
		}
		part = min_u64(len - at, n);
		if (to_caller)
			memcpy(p + at, buf, part);
		else
			memcpy(buf, p + at, part);
		buf += part;
		n -= part;
		at = 0;
	}
}

static int read_piece(struct file *f, struct file_req *r, char *buf, uint64_t at, uint64_t n)
{
	uint64_t align = f->below->align_off, off = r->off + at;
	uint64_t from = round_down(off, align);
	int err = file_pread(f->below, buf, round_up(off + n, align) - from, from);

	if (!err)
		copy(r, at, buf + (off - from), n, true);
	return err;
}

/* PUNCH without memory writes zeros. */
static int write_piece(struct file *f, struct file_req *r, char *buf, uint64_t at, uint64_t n)
{
	uint64_t align = f->below->align_off, off = r->off + at, end = off + n;
	uint64_t from = round_down(off, align), to = round_up(end, align);
	int err = 0;

	if (from != off)
		err = file_pread(f->below, buf, align, from);
	if (!err && to != end && (from == off || to - from > align))
		err = file_pread(f->below, buf + (to - from - align), align, to - align);
	if (err)
		return err;
	if (r->op == FILE_PUNCH)
		memset(buf + (off - from), 0, n);
	else
		copy(r, at, buf + (off - from), n, false);
	return file_pwrite(f->below, buf, to - from, from);
}

static int transfer_by_pieces(struct file *f, struct file_req *r, uint64_t begin, uint64_t end)
{
	uint64_t align = f->below->align_off;
	char *buf;
	int err = 0;

	if (begin >= end)
		return 0;
	buf = file_buf(min_u64(end - begin, BOUNCE_MAX) + 2 * align);
	if (!buf)
		return -ENOMEM;
	while (begin < end && !err) {
		/* Up to a block's boundary, so that only the first and last block are partial. */
		uint64_t n = min_u64(end - begin, BOUNCE_MAX - (r->off + begin) % align);

		if (r->op == FILE_READ)
			err = read_piece(f, r, buf, begin, n);
		else
			err = write_piece(f, r, buf, begin, n);
		begin += n;
	}
	free(buf);
	return err;
}

/* The edges are zeroed, the blocks between given back. */
static int punch_unaligned(struct file *f, struct file_req *r)
{
	uint64_t align = f->below->align_off;
	uint64_t end = min_u64(r->off + r->len, file_size(f->below));
	uint64_t from = round_up(r->off, align), to = round_down(end, align);
	int err;

	if (end <= r->off)
		return 0;
	if (from >= to)
		return transfer_by_pieces(f, r, 0, end - r->off);
	err = transfer_by_pieces(f, r, 0, from - r->off);
	if (!err)
		err = file_punch(f->below, from, to - from);
	if (!err)
		err = transfer_by_pieces(f, r, to - r->off, end - r->off);
	return err;
}

static void change_finished(struct align *a, struct file_req *r);

static void bounce_main(struct fiber_start *s)
{
	struct file_req *r = container_of(s, struct file_req, start);
	struct align *a = align_of(r->file);
	int err;

	if (r->op == FILE_PUNCH)
		err = punch_unaligned(&a->file, r);
	else
		err = transfer_by_pieces(&a->file, r, 0, r->len);
	if (r->op != FILE_READ) {
		a->rmw--;
		change_finished(a, r);
	}
	file_finish(&a->file, r, err);
}

static void start_bounce(struct file *f, struct file_req *r)
{
	r->file = f;
	r->start.fn = bounce_main;
	/* Our caller may be a fiber, and all may be: we must not wait for one of them to end. */
	fiber_start_at(f->loop, &r->start, FIBER_LEVELS - 1);
}

static void passed_done(struct file_req *r, int err)
{
	struct align *a = align_of(r->pass.file);

	r->done = r->pass.done;
	change_finished(a, r);
	r->done(r, err);
}

static void start_change(struct align *a, struct file_req *r)
{
	r->pass.running = true;
	if (r->pass.rmw) {
		start_bounce(&a->file, r);
		return;
	}
	r->pass.done = r->done;
	r->done = passed_done;
	file_submit(a->file.below, r);
}

static bool conflict(struct align *a, const struct file_req *x, const struct file_req *y)
{
	uint64_t align = a->file.below->align_off;
	uint64_t x_from = round_down(x->off, align), x_to = round_up(x->off + x->len, align);
	uint64_t y_from = round_down(y->off, align), y_to = round_up(y->off + y->len, align);

	if (!ranges_overlap(x_from, x_to - x_from, y_from, y_to - y_from))
		return false;
	return x->pass.rmw || y->pass.rmw;
}

/* No older change is in the way. */
static bool may_start(struct align *a, struct file_req *r)
{
	if (!a->rmw)
		return true;
	list_for_each(n, &a->changes) {
		struct file_req *older = list_entry(n, struct file_req, pass.link);

		if (older == r)
			break;
		if (conflict(a, older, r))
			return false;
	}
	return true;
}

static void change_finished(struct align *a, struct file_req *r)
{
	list_del(&r->pass.link);
	if (!a->rmw && !r->pass.rmw)
		return; /* nobody waited */
	/* Starting finishes nothing before the next completion, so the list stays as it is. */
	list_for_each(n, &a->changes) {
		struct file_req *w = list_entry(n, struct file_req, pass.link);

		if (!w->pass.running && may_start(a, w))
			start_change(a, w);
	}
}

static void align_submit(struct file *f, struct file_req *r)
{
	struct align *a = align_of(f);
	uint64_t end;
	bool changes = r->op == FILE_WRITE || r->op == FILE_PUNCH;

	if ((!changes && r->op != FILE_READ) || r->len == 0 || (f->readonly && changes)) {
		file_submit(f->below, r);
		return;
	}
	if (__builtin_add_overflow(r->off, r->len, &end) || end > INT64_MAX - 4096) {
		file_finish(f, r, -EFBIG);
		return;
	}
	if (!changes) {
		if (passes(f, r))
			file_submit(f->below, r);
		else
			start_bounce(f, r);
		return;
	}
	r->pass.file = f;
	r->pass.running = false;
	r->pass.rmw = !passes(f, r); /* asked once: in flight the iovec may be cut */
	list_add_tail(&a->changes, &r->pass.link);
	a->rmw += r->pass.rmw;
	if (may_start(a, r))
		start_change(a, r);
}

static uint64_t align_size(struct file *f)
{
	return file_size(f->below);
}

static void align_close(struct file *f)
{
	struct align *a = align_of(f);

	assert(list_empty(&a->changes));
	free(a);
}

static const struct file_ops align_ops = {
	.name = "align",
	.submit = align_submit,
	.size = align_size,
	.close = align_close,
};

int align_open(struct file *below, struct file **out)
{
	struct align *a = calloc(1, sizeof(*a));

	if (!a)
		return -ENOMEM;
	a->file = *below;
	a->file.ops = &align_ops;
	a->file.below = below;
	list_init(&a->changes);
	*out = &a->file;
	return 0;
}
