/* SPDX-License-Identifier: MIT */
/*
 * watch.c - see watch.h.
 */
#include <stdlib.h>
#include "blockdev/file/watch.h"

struct watch {
	struct file f;
	struct file_watch *w;
};

struct watched {
	struct file_req below;
	struct file_req *r;
	struct file_watch *w;
	uint64_t number;
};

static void watched_done(struct file_req *below, int err)
{
	struct watched *t = container_of(below, struct watched, below);
	struct file_req *r = t->r;

	t->w->completed(t->w, t->number, err);
	free(t);
	r->done(r, err);
}

static void watch_submit(struct file *f, struct file_req *r)
{
	struct file_watch *w = container_of(f, struct watch, f)->w;
	struct watched *t;

	if (r->op == FILE_READ) {
		file_submit(f->below, r);
		return;
	}
	t = calloc(1, sizeof(*t));
	if (!t) {
		file_finish(f, r, -ENOMEM);
		return;
	}
	t->below = file_req_below(r, watched_done);
	t->r = r;
	t->w = w;
	t->number = w->submitted(w, r);
	file_submit(f->below, &t->below);
}

static uint64_t watch_size(struct file *f)
{
	return file_size(f->below);
}

static void watch_close(struct file *f)
{
	free(container_of(f, struct watch, f));
}

static const struct file_ops watch_ops = {
	.name = "watch",
	.submit = watch_submit,
	.size = watch_size,
	.close = watch_close,
};

int watch_open(struct file *f, struct file_watch *w, struct file **out)
{
	struct watch *watch = calloc(1, sizeof(*watch));

	if (!watch)
		return -ENOMEM;
	watch->f = *f;
	watch->f.ops = &watch_ops;
	watch->f.below = f;
	watch->w = w;
	*out = &watch->f;
	return 0;
}
