/* SPDX-License-Identifier: MIT */
/*
 * slow.c - a filter that holds answers back; see slow.h.
 *
 * Each for itself: a hundred requests at once take as long as one, as on a disk with many queues.
 */
#include <stdlib.h>
#include "blockdev/live/slow.h"

struct slow {
	struct file file;
	struct slow_delays d;
};

struct delayed {
	struct file_req below;
	struct file_req *r;
	struct loop *loop;
	struct loop_timer timer;
	uint64_t ns;
	int err;
};

static void time_is_up(struct loop_timer *t)
{
	struct delayed *d = container_of(t, struct delayed, timer);
	struct file_req *r = d->r;
	int err = d->err;

	free(d);
	r->done(r, err);
}

static void below_done(struct file_req *below, int err)
{
	struct delayed *d = container_of(below, struct delayed, below);

	d->err = err;
	d->timer.fn = time_is_up;
	loop_timer_set(d->loop, &d->timer, loop_now_ns() + d->ns);
}

static uint64_t delay_of(const struct slow_delays *d, enum file_op op)
{
	switch (op) {
	case FILE_READ:
		return d->read;
	case FILE_WRITE:
		return d->write;
	case FILE_FDATASYNC:
		return d->flush;
	case FILE_EXTEND:
	case FILE_PUNCH:
	case FILE_TRUNCATE:
		break;
	}
	return 0;
}

static void slow_submit(struct file *f, struct file_req *r)
{
	uint64_t ns = delay_of(&container_of(f, struct slow, file)->d, r->op);
	struct delayed *d = ns ? calloc(1, sizeof(*d)) : NULL;

	if (!d) {
		/* Without memory it is a fast disk: nothing is wrong with that. */
		file_submit(f->below, r);
		return;
	}
	d->below = file_req_below(r, below_done);
	d->r = r;
	d->loop = f->loop;
	d->ns = ns;
	file_submit(f->below, &d->below);
}

static uint64_t slow_size(struct file *f)
{
	return file_size(f->below);
}

static void slow_close(struct file *f)
{
	free(container_of(f, struct slow, file));
}

static const struct file_ops slow_ops = {
	.name = "slow",
	.submit = slow_submit,
	.size = slow_size,
	.close = slow_close,
};

int slow_open(struct file *f, const struct slow_delays *d, struct file **out)
{
	struct slow *s = calloc(1, sizeof(*s));

	if (!s)
		return -ENOMEM;
	s->file = *f;
	s->file.ops = &slow_ops;
	s->file.below = f;
	s->d = *d;
	*out = &s->file;
	return 0;
}
