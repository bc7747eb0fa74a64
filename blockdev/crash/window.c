/* SPDX-License-Identifier: MIT */
/*
 * window.c - see window.h.
 */
#include <stdlib.h>
#include "blockdev/crash/window.h"

struct window {
	struct file f;
	struct file *whole; /* f.below of the one that closes it */
	uint64_t at, len;   /* len 0: to its end */
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
	assert(!w->len || (r->op != FILE_TRUNCATE && range_within(r->off, r->len, w->len)));
	p->r = r;
	p->below = file_req_below(r, passed_done);
	p->below.off += w->at;
	if (r->op == FILE_FDATASYNC)
		p->below.len = w->len;
	file_submit(w->whole, &p->below);
}

static uint64_t window_size(struct file *f)
{
	struct window *w = container_of(f, struct window, f);

	return w->len ? w->len : file_size(w->whole) - w->at;
}

static void window_close(struct file *f)
{
	free(container_of(f, struct window, f));
}

static const struct file_ops window_ops = {
	.name = "window",
	.submit = window_submit,
	.size = window_size,
	.close = window_close,
};

static struct file *window(struct file *whole, uint64_t at, uint64_t len)
{
	static struct file_stats none; /* what passes is counted with the other */
	struct window *w = calloc(1, sizeof(*w));

	if (!w)
		return NULL;
	w->f = *whole;
	w->f.ops = &window_ops;
	w->f.below = len ? NULL : whole;
	if (len)
		w->f.stats = &none;
	w->whole = whole;
	w->at = at;
	w->len = len;
	return &w->f;
}

int window_pair(struct file *f, uint64_t bytes, struct file **first, struct file **rest)
{
	*rest = window(f, bytes, 0);
	if (!*rest) {
		file_close(f);
		return -ENOMEM;
	}
	if (!first)
		return 0;
	*first = window(f, 0, bytes);
	if (*first)
		return 0;
	file_close(*rest);
	return -ENOMEM;
}
