/* SPDX-License-Identifier: MIT */
/*
 * hold.c - a disk in use that stands still for a moment, and requests that wait for better times.
 *
 * Held: what is submitted, and what is to change the cache bit, waits in a list; what was in flight
 * has ended.  Then the image can be changed under the guest (another size, a snapshot,
 * an overlay: overlay.c), and the guest only sees that its requests took long.
 *
 * Kept: a request that failed on the host where the user wants the machine to stop (werror=,
 * rerror=).  It is neither in flight nor answered until disk_retry() submits it again, or its owner
 * no longer wants it.  The user's program hears of it by the eventfd of disk_notify().
 */
#include <unistd.h>
#include "blockdev/block_int.h"

void hold_init(struct disk *d)
{
	list_init(&d->held_reqs);
	list_init(&d->held_wce);
	list_init(&d->kept);
}

void hold_sized(struct disk *d)
{
	__atomic_store_n(&d->size, d->fmt->size, __ATOMIC_RELEASE);
}

void disk_tell(const struct disk *d)
{
	uint64_t one = 1;

	if (d->event_fd >= 0) {
		ssize_t n = write(d->event_fd, &one, sizeof(one));

		(void)n; /* a full counter wakes as well */
	}
}

/* ---- kept ---- */

static bool no_space(int err)
{
	return err == -ENOSPC || err == -EDQUOT;
}

/* The guest's own mistakes are between us and it; and without power nobody can do anything. */
static bool not_the_hosts(int err)
{
	return err == -EINVAL || err == -EROFS || err == -ENOTSUP || err == -ESHUTDOWN;
}

/* What is to be done about a request that failed with err. */
static enum on_error action(const struct disk *d, const struct blk_req *r, int err)
{
	enum on_error how = r->op == BLK_READ ? d->on_read_error : d->on_write_error;
	const bool *wanted = r->wanted;

	if (not_the_hosts(err) || !wanted)
		return ON_ERROR_REPORT;
	/* An fdatasync that failed can never succeed: room alone would not help. */
	if (how == ON_ERROR_ENOSPC)
		how = no_space(err) && !d->fmt->sync.err ? ON_ERROR_STOP : ON_ERROR_REPORT;
	if (how == ON_ERROR_STOP && !__atomic_load_n(wanted, __ATOMIC_ACQUIRE))
		how = ON_ERROR_REPORT;
	return how;
}

int disk_kept(const struct disk *d)
{
	return __atomic_load_n(&d->kept_err, __ATOMIC_RELAXED);
}

static void note_kept(struct disk *d)
{
	int err = list_empty(&d->kept) ? 0 : list_first(&d->kept, struct blk_req, link)->err;

	__atomic_store_n(&d->kept_err, err, __ATOMIC_RELAXED);
}

bool hold_keeps(struct disk *d, struct blk_req *r, int *err)
{
	enum on_error how = action(d, r, *err);
	uint64_t n = (d->trouble >> 32) + 1;

	if (not_the_hosts(*err))
		return false;
	if (how == ON_ERROR_STOP) {
		r->err = *err;
		list_add_tail(&d->kept, &r->link);
		note_kept(d);
	}
	/* Last: whoever sees this sees what was kept, too. */
	__atomic_store_n(&d->trouble,
		n << 32 | (uint64_t)-*err << 16 | (uint64_t)r->op << 8 | how, __ATOMIC_RELEASE);
	if (how == ON_ERROR_IGNORE)
		*err = 0;
	disk_tell(d);
	return how == ON_ERROR_STOP;
}

void disk_trouble(const struct disk *d, struct disk_trouble *t)
{
	uint64_t word = __atomic_load_n(&d->trouble, __ATOMIC_ACQUIRE);

	t->n = (uint32_t)(word >> 32);
	t->err = -(int)(word >> 16 & 0xffff);
	t->op = (enum blk_op)(word >> 8 & 0xff);
	t->action = (enum on_error)(word & 0xff);
}

static void submit_all(struct disk *d, struct list *from)
{
	struct list all, *n;

	list_init(&all);
	list_splice_tail(&all, from);
	while ((n = list_pop(&all)))
		disk_submit(d, list_entry(n, struct blk_req, link));
}

void disk_retry(struct disk *d)
{
	submit_all(d, &d->kept);
	note_kept(d);
}

void disk_give_up(struct disk *d)
{
	struct list all, *n;

	list_init(&all);
	list_splice_tail(&all, &d->kept);
	while ((n = list_pop(&all))) {
		struct blk_req *r = list_entry(n, struct blk_req, link);

		if (__atomic_load_n(r->wanted, __ATOMIC_ACQUIRE))
			list_add_tail(&d->kept, &r->link);
		else
			block_end(r, r->err);
	}
	note_kept(d);
}

/* ---- held ---- */

void hold_request(struct disk *d, struct list *request)
{
	list_add_tail(&d->held_reqs, request);
}

static void hold(struct disk *d)
{
	assert(!d->held);
	d->held = true;
	disk_drain(d);
}

static void release(struct disk *d)
{
	d->held = false;
	submit_all(d, &d->held_reqs);
	while (!list_empty(&d->held_wce)) {
		struct wce_change *c = list_first(&d->held_wce, struct wce_change, link);

		list_del(&c->link);
		disk_set_wce(d, c);
	}
}

struct work {
	struct disk *d;
	uint64_t size;
	enum snapshot_op op;
	const char *name;
	struct why *why;
};

static int resize_fiber(void *arg)
{
	struct work *w = arg;

	return disk_resize(w->d, w->size, PREALLOC_OFF, w->why);
}

static int snapshot_fiber(void *arg)
{
	struct work *w = arg;

	return disk_snapshot_change(w->d, w->op, w->name, w->why);
}

static int standing_still(struct disk *d, int (*fn)(void *arg), void *arg)
{
	int err;

	hold(d);
	err = fiber_run(d->loop, fn, arg);
	release(d);
	return err;
}

int disk_online_resize(struct disk *d, uint64_t size, struct why *why)
{
	struct work w = {.d = d, .size = size, .why = why};

	if (d->tap)
		return why_set(why, -EBUSY, "the disk is recorded, or has a personality");
	return standing_still(d, resize_fiber, &w);
}

int disk_online_snapshot(struct disk *d, enum snapshot_op op, const char *name, struct why *why)
{
	struct work w = {.d = d, .op = op, .name = name, .why = why};

	return standing_still(d, snapshot_fiber, &w);
}

int disk_online_overlay(struct disk *d, const struct disk_opts *now, const struct disk_opts *over,
	bool create, struct why *why)
{
	int err;

	if (d->tap)
		return why_set(why, -EBUSY, "the disk is recorded, or has a personality");
	hold(d);
	err = overlay_put(d, now, over, create, why);
	release(d);
	return err;
}
