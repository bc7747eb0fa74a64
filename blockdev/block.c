/* SPDX-License-Identifier: MIT */
/*
 * block.c - the generic layer: the write-cache contract, for every format.
 *
 * A request goes to its format at once if it maps to a single host operation, else it
 * runs in a fiber.  When a write completes, this layer decides whether it may be
 * acknowledged or must first be durable:
 *
 *   durable is owed if the cache bit was off when the write was submitted, or is off (or
 *   going off) when it completes, or the request carries FUA.
 *
 * Group commit: those who wait for durability gather in one list.  One fiber
 * takes the whole list, has the format flushed once, and acknowledges them all; who comes
 * while it runs waits for the next round.  The round starts at the end of the
 * loop's turn, so that everything that completed in it shares the flush.
 * A flush with nothing acknowledged since the last commit costs nothing.
 *
 * Numbers: acked counts writes that completed; committed says up to which of them
 * all is durable.
 *
 * Not here: opening and closing (disk.c), requests as plain calls (calls.c), standing still and
 * trying again (hold.c), what a flush must order (the formats).
 */
#include <string.h>
#include "blockdev/block_int.h"

static_assert(sizeof(struct file_req) <= BLK_REQ_ROOM * sizeof(uint64_t), "room for a file_req");

static void commit_kick(struct disk *d);

static void hist_add(uint64_t *hist, uint64_t start_ns)
{
	uint64_t us = (loop_now_ns() - start_ns) / 1000;
	unsigned i = us ? 63 - (unsigned)__builtin_clzll(us) : 0;

	hist[i < DISK_HIST ? i : DISK_HIST - 1]++;
}

/*
 * The user hears of a host that fails, once; the guest's own mistakes are between us and it, and
 * without power nobody is told anything.
 */
static void tell_once(struct disk *d, const struct blk_req *r, int err)
{
	static const char *const what[] = {"read", "write", "write of zeros", "discard", "flush"};

	if (d->told || err == -EINVAL || err == -EROFS || err == -ESHUTDOWN)
		return;
	d->told = true;
	log_warn("%s: a %s failed: %s; the guest was told, more of them are only counted", d->path,
		what[r->op], why_text(NULL, err));
}

static void count_done(struct disk *d, const struct blk_req *r, int err)
{
	struct disk_stats *s = &d->stats;

	if (err) {
		s->failed++;
		tell_once(d, r, err);
		return;
	}
	switch (r->op) {
	case BLK_READ:
		s->reads++;
		s->read_bytes += r->len;
		break;
	case BLK_WRITE:
		s->writes++;
		s->write_bytes += r->len;
		hist_add(s->write_us, r->t_start_ns);
		break;
	case BLK_ZEROES:
		s->zeroes++;
		s->zero_bytes += r->len;
		break;
	case BLK_DISCARD:
		s->discards++;
		s->discard_bytes += r->len;
		break;
	case BLK_FLUSH:
		s->flushes++;
		hist_add(s->flush_us, r->t_start_ns);
		break;
	}
}

static void in_flight_drop(struct disk *d)
{
	assert(d->in_flight > 0);
	if (--d->in_flight == 0)
		fiber_queue_wake_all(&d->idle);
}

void block_end(struct blk_req *r, int err)
{
	count_done(r->disk, r, err);
	r->done(r, err);
}

/* The end of a request; on the loop, never inside disk_submit(). */
static void acknowledge(struct blk_req *r, int err)
{
	struct disk *d = r->disk;

	in_flight_drop(d);
	if (d->tap && r->tick)
		d->tap->done(d->tap, r, disk_wce(d), err);
	if (!err || !hold_keeps(d, r, &err))
		block_end(r, err);
}

static void finished_work(struct loop_work *w)
{
	struct disk *d = container_of(w, struct disk, finished_work);
	struct list *n;

	while ((n = list_pop(&d->finished)) != NULL) {
		struct blk_req *r = list_entry(n, struct blk_req, link);

		acknowledge(r, r->err);
	}
}

/* acknowledge() later in this turn: for ends that are known inside disk_submit(). */
static void acknowledge_later(struct blk_req *r, int err)
{
	r->err = err;
	list_add_tail(&r->disk->finished, &r->link);
	loop_defer(r->disk->loop, &r->disk->finished_work);
}

/* ---- completion of reads and writes ---- */

static bool owes_durability(const struct disk *d, const struct blk_req *r)
{
	if (d->mode == CACHE_UNSAFE)
		return false;
	return r->durable || !disk_wce(d) || !list_empty(&d->wce_waiting);
}

/* For the formats' sake: who still uses a cluster that has lost its name (format.h). */
static void epoch_enter(struct format *fmt, struct blk_req *r)
{
	r->epoch = fmt->epoch;
	fmt->in_epoch[r->epoch & 1]++;
}

static void epoch_leave(struct format *fmt, const struct blk_req *r)
{
	assert(fmt->in_epoch[r->epoch & 1] > 0);
	fmt->in_epoch[r->epoch & 1]--;
}

/* What is acknowledged without being durable.  Only the loop writes these. */
static void owed_set(struct owed *o, uint64_t bytes, uint64_t since_ns)
{
	__atomic_store_n(&o->bytes, bytes, __ATOMIC_RELAXED);
	__atomic_store_n(&o->since_ns, since_ns, __ATOMIC_RELAXED);
}

static void owed_add(struct owed *o, uint64_t bytes, uint64_t since_ns)
{
	owed_set(o, o->bytes + bytes, o->since_ns ? o->since_ns : since_ns);
}

void owed_clear(struct disk *d)
{
	owed_set(&d->owed[0], 0, 0);
	owed_set(&d->owed[1], 0, 0);
}

/* What a round that begins now will make durable, with what earlier ones failed to. */
static void owed_stage(struct disk *d)
{
	owed_add(&d->owed[1], d->owed[0].bytes, d->owed[0].since_ns);
	owed_set(&d->owed[0], 0, 0);
}

/* The format is done with r.  On the loop or in r's own fiber. */
static void format_done(struct blk_req *r, int err)
{
	struct disk *d = r->disk;

	epoch_leave(d->fmt, r);
	if (err || r->op == BLK_READ) {
		acknowledge(r, err);
		return;
	}
	r->seq = ++d->acked;
	if (!owes_durability(d, r)) {
		owed_add(&d->owed[0], r->len, loop_now_ns());
		acknowledge(r, 0);
		return;
	}
	list_add_tail(&d->waiting, &r->link);
	commit_kick(d);
}

static void mapped_done(struct file_req *fr, int err)
{
	struct blk_req *r = container_of(fr, struct blk_req, room);

	if (r->op == BLK_WRITE && !err)
		format_data_note(r->disk->fmt);
	format_done(r, err);
}

void format_submit(struct format *fmt, struct blk_req *r, uint64_t host_off)
{
	struct file_req *fr = (struct file_req *)(void *)r->room;

	memset(fr, 0, sizeof(*fr));
	fr->done = mapped_done;
	fr->op = r->op == BLK_READ ? FILE_READ : FILE_WRITE;
	fr->iov = r->iov;
	fr->niov = r->niov;
	fr->off = host_off;
	fr->len = r->len;
	file_submit(format_data(fmt), fr);
}

void format_zeros(struct format *fmt, struct blk_req *r)
{
	for (int i = 0; i < r->niov; i++)
		memset(r->iov[i].iov_base, 0, r->iov[i].iov_len);
	epoch_leave(fmt, r);
	acknowledge_later(r, 0);
}

#define ZEROS_BYTES (64 * KiB)
#define ZEROS_IOV   16

/* For a format that knows no better: zeros, written. */
static int write_zeros(struct format *fmt, uint64_t off, uint64_t len)
{
	static uint8_t zeros[ZEROS_BYTES] __attribute__((aligned(4096))); /* only ever read */
	int err = 0;

	while (len && !err) {
		struct iovec iov[ZEROS_IOV];
		uint64_t n = 0;
		int i = 0;

		for (; i < ZEROS_IOV && n < len; i++) {
			iov[i] = (struct iovec){zeros, min_u64(len - n, ZEROS_BYTES)};
			n += iov[i].iov_len;
		}
		err = fmt->ops->write(fmt, iov, i, off, n);
		off += n;
		len -= n;
	}
	return err;
}

static int run_write(struct format *fmt, const struct blk_req *r)
{
	if (!(r->flags & BLK_COMPRESSED))
		return fmt->ops->write(fmt, r->iov, r->niov, r->off, r->len);
	if (!fmt->ops->write_compressed)
		return -ENOTSUP;
	return fmt->ops->write_compressed(fmt, r->iov, r->niov, r->off, r->len);
}

static int run_zeroes(struct format *fmt, const struct blk_req *r, bool unmap)
{
	unsigned flags = fmt->unmap && unmap ? BLK_UNMAP : 0;
	int err = fmt->ops->zeroes ? fmt->ops->zeroes(fmt, r->off, r->len, flags) : -ENOTSUP;

	return err == -ENOTSUP ? write_zeros(fmt, r->off, r->len) : err;
}

static int run_request(struct format *fmt, const struct blk_req *r)
{
	switch (r->op) {
	case BLK_READ:
		return fmt->ops->read(fmt, r->iov, r->niov, r->off, r->len);
	case BLK_WRITE:
		if (r->zeros)
			return run_zeroes(fmt, r, r->disk->detect == DETECT_UNMAP);
		return run_write(fmt, r);
	case BLK_ZEROES:
		return run_zeroes(fmt, r, r->flags & BLK_UNMAP);
	case BLK_DISCARD:
		return fmt->ops->discard ? fmt->ops->discard(fmt, r->off, r->len) : 0;
	case BLK_FLUSH:
		break;
	}
	assert(!"a flush is for the commit fiber");
	return -EINVAL;
}

static void request_fiber(struct fiber_start *s)
{
	struct blk_req *r = container_of(s, struct blk_req, start);

	format_done(r, run_request(r->disk->fmt, r));
}

/* On a disk that copies what is read. */
static void cor_fiber(struct fiber_start *s)
{
	struct blk_req *r = container_of(s, struct blk_req, start);
	struct disk *d = r->disk;
	int err;

	if (r->op == BLK_READ) {
		err = cor_read(d, r->iov, r->niov, r->off, r->len);
	} else {
		fiber_lock(&d->cor_lock);
		err = run_request(d->fmt, r);
		fiber_unlock(&d->cor_lock);
	}
	format_done(r, err);
}

/* ---- commit ---- */

/* After a failed fdatasync nobody is told so any more (R9). */
static bool all_committed(const struct disk *d)
{
	return d->committed == d->acked && !d->fmt->sync.err;
}

/* Everything acknowledged (or about to be) up to here becomes durable.  In the commit fiber. */
static int commit_round(struct disk *d)
{
	uint64_t upto = d->acked;
	int err;

	if (all_committed(d))
		return 0;
	owed_stage(d);
	err = d->fmt->ops->flush(d->fmt);
	if (!err) {
		d->committed = upto;
		owed_set(&d->owed[1], 0, 0);
	}
	return err;
}

static void wce_settle(struct disk *d, struct wce_change *c, int err)
{
	if (!err) {
		__atomic_store_n(&d->wce_by, c->monitor ? WCE_BY_MONITOR : WCE_BY_GUEST,
			__ATOMIC_RELAXED);
		__atomic_store_n(&d->wce, c->enable, __ATOMIC_RELEASE);
		d->stats.wce_changes++;
		disk_tell(d);
	}
	in_flight_drop(d);
	if (d->tap)
		d->tap->wce_done(d->tap, c, disk_wce(d), err);
	c->done(c, err);
}

static void commit_fiber(struct fiber_start *s)
{
	struct disk *d = container_of(s, struct disk, commit_start);

	while (!list_empty(&d->waiting) || !list_empty(&d->wce_waiting)) {
		struct list reqs, *n;
		unsigned waiters = 0;
		int err;

		list_init(&reqs);
		list_splice_tail(&reqs, &d->waiting);
		/*
		 * Changes to "off" stay listed while the round runs, so that writes which
		 * complete meanwhile know that the bit is about to be off.
		 */
		for (n = d->wce_waiting.next; n != &d->wce_waiting; n = n->next, waiters++)
			list_entry(n, struct wce_change, link)->in_round = true;
		for (n = reqs.next; n != &reqs; n = n->next)
			waiters++;
		d->fmt->sync.alone = d->fmt->data_sync.alone = waiters == d->in_flight;
		err = commit_round(d);
		d->fmt->sync.alone = d->fmt->data_sync.alone = false;
		while (!list_empty(&d->wce_waiting)) {
			struct wce_change *c = list_first(&d->wce_waiting, struct wce_change, link);

			if (!c->in_round)
				break;
			list_del(&c->link);
			wce_settle(d, c, err);
		}
		while ((n = list_pop(&reqs)) != NULL)
			acknowledge(list_entry(n, struct blk_req, link), err);
	}
	d->commit_running = false;
}

static void commit_work(struct loop_work *w)
{
	struct disk *d = container_of(w, struct disk, commit_work);

	if (d->commit_running)
		return;
	d->commit_running = true;
	fiber_start_at(d->loop, &d->commit_start, d->level);
}

static void commit_kick(struct disk *d)
{
	if (!d->commit_running)
		loop_defer(d->loop, &d->commit_work);
}

/* ---- submission ---- */

static int refuse(const struct disk *d, const struct blk_req *r)
{
	int err = d->tap && d->tap->refuse ? d->tap->refuse(d->tap, r) : 0;

	if (err || r->op == BLK_FLUSH)
		return err;
	if (!range_within(r->off, r->len, d->fmt->size))
		return -EINVAL;
	if (r->op != BLK_READ && d->readonly)
		return -EROFS;
	if (r->op != BLK_READ && d->fmt->sync.err)
		return d->fmt->sync.err;
	return 0;
}

static bool detected(const struct disk *d, const struct blk_req *r)
{
	return d->detect && r->op == BLK_WRITE && !(r->flags & BLK_COMPRESSED) &&
	       iov_is_zero(r->iov, r->niov);
}

static void submit_flush(struct disk *d, struct blk_req *r)
{
	if (d->mode == CACHE_UNSAFE || all_committed(d)) {
		acknowledge_later(r, 0);
		return;
	}
	list_add_tail(&d->waiting, &r->link);
	commit_kick(d);
}

/* What is about to change, for bitmaps; a discard that does nothing is none. */
static void note_write(struct format *fmt, const struct blk_req *r)
{
	if (fmt->noting && r->op != BLK_READ && (r->op != BLK_DISCARD || fmt->unmap))
		fmt->ops->note(fmt, r->off, r->len);
}

void disk_submit(struct disk *d, struct blk_req *r)
{
	int err;

	r->disk = d;
	if (d->held) {
		hold_request(d, &r->link);
		return;
	}
	err = refuse(d, r);
	r->t_start_ns = loop_now_ns();
	r->durable = (r->flags & BLK_FUA) || !disk_wce(d);
	r->tick = 0;
	d->in_flight++;
	if (d->tap && !err && r->op != BLK_READ)
		d->tap->submit(d->tap, r, disk_wce(d));
	if (err || (r->op != BLK_FLUSH && r->len == 0)) {
		acknowledge_later(r, err);
	} else if (r->op == BLK_FLUSH) {
		submit_flush(d, r);
	} else {
		note_write(d->fmt, r);
		epoch_enter(d->fmt, r);
		r->zeros = detected(d, r);
		if (r->op > BLK_WRITE || (r->flags & BLK_COMPRESSED) || d->copy_on_read ||
			r->zeros || !d->fmt->ops->try_submit(d->fmt, r)) {
			r->start.fn = d->copy_on_read ? cor_fiber : request_fiber;
			fiber_start_at(d->loop, &r->start, d->level);
		}
	}
}

/* ---- the cache bit ---- */

bool disk_wce(const struct disk *d)
{
	return __atomic_load_n(&d->wce, __ATOMIC_ACQUIRE);
}

static void wce_now(struct loop_msg *m)
{
	struct wce_change *c = container_of(m, struct wce_change, msg);

	wce_settle(c->disk, c, c->disk->mode == CACHE_UNSAFE && !c->enable ? -EPERM : 0);
}

void disk_set_wce(struct disk *d, struct wce_change *c)
{
	c->disk = d;
	if (d->held) {
		list_add_tail(&d->held_wce, &c->link);
		return;
	}
	c->in_round = false;
	d->in_flight++;
	if (d->tap)
		d->tap->wce_submit(d->tap, c, disk_wce(d));
	if (c->enable || d->mode == CACHE_UNSAFE) {
		c->msg.fn = wce_now;
		loop_post(d->loop, &c->msg);
		return;
	}
	list_add_tail(&d->wce_waiting, &c->link);
	commit_kick(d);
}

enum wce_by disk_wce_by(const struct disk *d)
{
	return __atomic_load_n(&d->wce_by, __ATOMIC_RELAXED);
}

void disk_notify(struct disk *d, int event_fd)
{
	d->event_fd = event_fd;
}

uint64_t disk_owed(const struct disk *d, uint64_t *since_ns)
{
	uint64_t bytes = 0;

	*since_ns = 0;
	for (unsigned i = ARRAY_SIZE(d->owed); i-- > 0;) {
		uint64_t since = __atomic_load_n(&d->owed[i].since_ns, __ATOMIC_RELAXED);

		bytes += __atomic_load_n(&d->owed[i].bytes, __ATOMIC_RELAXED);
		*since_ns = *since_ns ? *since_ns : since;
	}
	return bytes;
}

/* ---- waiting ---- */

void disk_drain(struct disk *d)
{
	while (d->in_flight) {
		if (fiber_self())
			fiber_queue_wait(&d->idle);
		else
			(void)!loop_turn(d->loop, true); /* it goes on after an error */
	}
}

void block_init(struct disk *d)
{
	/* What an earlier process acknowledged and no flush covered: our first flush does. */
	d->acked = d->readonly ? 0 : 1;
	list_init(&d->finished);
	list_init(&d->waiting);
	list_init(&d->wce_waiting);
	d->event_fd = -1;
	hold_init(d);
	fiber_queue_init(&d->idle);
	fiber_lock_init(&d->cor_lock);
	loop_work_init(&d->finished_work, finished_work);
	loop_work_init(&d->commit_work, commit_work);
	d->commit_start.fn = commit_fiber;
}
