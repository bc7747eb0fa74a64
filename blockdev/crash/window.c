/* SPDX-License-Identifier: MIT */
/*
 * window.c - see window.h.
 */
#include <stdlib.h>
#include "blockdev/crash/window.h"

struct whole {
	struct file *f;
	unsigned windows;
	uint64_t first_size; /* bytes of the first one */
};

struct window {
	struct file f;
	struct whole *whole;
	uint64_t at, len; /* len 0: to its end */
};

struct passed {
	struct file_req below;
	struct file_req *r;
};

static void passed_done(struct file_req *below, int err)
{
	struct passed *p = container_of(below, struct passed, below);
	struct file_req *r = p->r;

	free(p);
	r->done(r, err);
}

static void window_submit(struct file *f, struct file_req *r)
{
	struct window *w = container_of(f, struct window, f);
	struct passed *p = calloc(1, sizeof(*p));

	if (!p)
		abort();
	assert(!w->len || range_within(r->off, r->len, w->len));
	p->r = r;
	p->below = file_req_below(r, passed_done);
	p->below.off += w->at;
	if (r->op == FILE_FDATASYNC)
		p->below.len = w->len;
	if (w->len && r->op == FILE_TRUNCATE) {
		p->below.op = FILE_PUNCH;
		p->below.how = PUNCH_UNMAP;
		p->below.len = w->len - r->off;
		w->whole->first_size = r->off;
	} else if (w->len && (r->op == FILE_WRITE || r->op == FILE_EXTEND)) {
		w->whole->first_size = max_u64(w->whole->first_size, r->off + r->len);
	}
	file_submit(w->whole->f, &p->below);
}

static uint64_t window_size(struct file *f)
{
	struct window *w = container_of(f, struct window, f);

	return w->len ? w->whole->first_size : file_size(w->whole->f) - w->at;
}

static void whole_put(struct whole *whole)
{
	if (--whole->windows)
		return;
	file_close(whole->f);
	free(whole);
}

static void window_close(struct file *f)
{
	struct window *w = container_of(f, struct window, f);

	whole_put(w->whole);
	free(w);
}

static const struct file_ops window_ops = {
	.name = "window",
	.submit = window_submit,
	.size = window_size,
	.close = window_close,
};

static int window(struct whole *whole, uint64_t at, uint64_t len, struct file **out)
{
	static struct file_stats none; /* what passes is counted with the other */
	struct window *w = calloc(1, sizeof(*w));

	if (!w)
		return -ENOMEM;
	w->f = *whole->f;
	w->f.ops = &window_ops;
	w->f.below = NULL;
	if (len)
		w->f.stats = &none;
	w->whole = whole;
	whole->windows++;
	w->at = at;
	w->len = len;
	*out = &w->f;
	return 0;
}

int window_pair(struct file *f, uint64_t bytes, struct file **first, struct file **rest)
{
	struct whole *whole = calloc(1, sizeof(*whole));
	int err;

	if (!whole) {
		file_close(f);
		return -ENOMEM;
	}
	*whole = (struct whole){.f = f, .windows = 1, .first_size = bytes};
	err = window(whole, bytes, 0, rest);
	if (!err && first) {
		err = window(whole, 0, bytes, first);
		if (err)
			file_close(*rest);
	}
	whole_put(whole);
	return err;
}

int window_again(struct file *f, struct file **out)
{
	struct window *w = container_of(f, struct window, f);

	return window(w->whole, w->at, w->len, out);
}

void window_grows(struct file *f, uint64_t size)
{
	struct window *w = container_of(f, struct window, f);

	w->whole->first_size = size;
}
