/* SPDX-License-Identifier: MIT */
/*
 * loop.c - the turn, and all of it that needs no kernel: messages, timers, deferred work.
 *
 * A turn starts in the kernel: one call takes in what was submitted since the last
 * turn and, if nothing at all can run here, sleeps.  Then rounds of completions,
 * ready descriptors, messages and fibers until nothing is left, and at last the deferred work.
 * Rounds are limited: work that feeds itself from the page cache may not keep
 * descriptors and deferred work waiting for ever.
 *
 * Waking up.  A poster pushes its message and then looks whether the loop sleeps; the
 * loop says that it sleeps and then looks for messages.  Both orders are sequentially
 * consistent, so one of them sees the other.  Whoever takes the flag away
 * writes the eventfd, so a sleeping loop costs one write and a busy one none.
 * The eventfd is watched for edges and never read: its counter has 64 bits.
 */
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>
#include "vmm/util/fiber.h"
#include "vmm/util/log.h"
#include "vmm/util/loop_int.h"
#include "vmm/util/offload.h"

/* Enough for any chain of requests served from memory; a turn stays below a millisecond or so. */
#define ROUNDS_MAX 32

/*
 * A buffered write is a copy into the page cache.  Inline it costs less than by a worker thread
 * at every size and depth (tests/bench/loop.c, ext4, us each, inline : ring: 4 KiB 3 : 11,
 * 64 KiB 10 : 18, 256 KiB 36 : 45, 1 MiB 119 : 128; workers copy no faster together, since
 * the inode is locked).  Beyond this size the gain is below a tenth and the loop held up for long.
 */
#define INLINE_WRITE_MAX (256 * KiB)

static int loop_open_engine(struct loop *l, enum loop_aio aio)
{
	static atomic_bool said;
	int err;

	if (aio == LOOP_AIO_THREADS)
		return loop_threads_open(l);
	err = loop_uring_open(l);
	if (!err || aio == LOOP_AIO_URING)
		return err;
	if (!atomic_exchange(&said, true)) {
		struct why none = {""};

		log_info("io_uring is not available (%s), using threads", why_text(&none, err));
	}
	return loop_threads_open(l);
}

int loop_new(enum loop_aio aio, struct loop **out)
{
	struct loop *l = calloc(1, sizeof(*l));
	int err;

	if (!l)
		return -ENOMEM;
	list_init(&l->completed);
	list_init(&l->ready_polls);
	list_init(&l->deferred);
	list_init(&l->timers);
	for (unsigned i = 0; i < FIBER_LEVELS; i++)
		list_init(&l->fiber_starts[i]);
	list_init(&l->fiber_ready);
	list_init(&l->fiber_yielded);
	l->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (l->wake_fd < 0) {
		err = -errno;
		goto free_loop;
	}
	err = loop_open_engine(l, aio);
	if (err)
		goto close_wake;
	*out = l;
	return 0;
close_wake:
	close(l->wake_fd);
free_loop:
	free(l);
	return err;
}

void loop_free(struct loop *l)
{
	if (!l)
		return;
	assert(l->in_flight == 0);
	assert(l->n_polls == 0);
	fiber_pool_free(l);
	offload_free(l);
	l->engine->close(l);
	close(l->wake_fd);
	free(l);
}

enum loop_aio loop_aio(const struct loop *l)
{
	return l->engine->aio;
}

uint64_t loop_syscalls(const struct loop *l)
{
	return l->syscalls;
}

uint64_t loop_now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000U + (uint64_t)ts.tv_nsec;
}

/* Async-signal-safe: loop_stop() may come from a handler. */
void loop_wake(struct loop *l)
{
	static const uint64_t one = 1;
	int saved = errno;

	/* Pairs with the store of sleeping in loop_turn(). */
	if (atomic_exchange(&l->sleeping, false)) {
		/* It can only fail with EAGAIN after 2^64 wake-ups. */
		ssize_t n = write(l->wake_fd, &one, sizeof(one));

		(void)n;
	}
	errno = saved;
}

void loop_post(struct loop *l, struct loop_msg *m)
{
	struct loop_msg *head = atomic_load(&l->msgs);

	do {
		m->next = head;
	} while (!atomic_compare_exchange_weak(&l->msgs, &head, m));
	loop_wake(l);
}

void loop_stop(struct loop *l)
{
	atomic_store(&l->stop, true);
	loop_wake(l);
}

static bool run_completed(struct loop *l)
{
	struct list batch;
	struct list *n;

	if (list_empty(&l->completed))
		return false;
	list_init(&batch);
	list_splice_tail(&batch, &l->completed);
	while ((n = list_pop(&batch))) {
		struct loop_op *op = list_entry(n, struct loop_op, link);

		l->in_flight--;
		op->done(op, op->res);
	}
	return true;
}

static bool run_polls(struct loop *l)
{
	struct list batch;
	struct list *n;

	if (list_empty(&l->ready_polls))
		return false;
	list_init(&batch);
	list_splice_tail(&batch, &l->ready_polls);
	while ((n = list_pop(&batch))) {
		struct loop_poll *p = list_entry(n, struct poll_entry, ready)->p;

		p->fn(p);
	}
	return true;
}

static bool run_msgs(struct loop *l)
{
	struct loop_msg *m, *next, *in_order = NULL;

	if (!atomic_load_explicit(&l->msgs, memory_order_relaxed))
		return false;
	for (m = atomic_exchange(&l->msgs, NULL); m; m = next) {
		next = m->next;
		m->next = in_order;
		in_order = m;
	}
	for (m = in_order; m; m = next) {
		next = m->next; /* fn may free m */
		m->fn(m);
	}
	return true;
}

/* Only those due when the turn reads the clock: a timer that sets itself again waits a turn. */
static void run_timers(struct loop *l)
{
	struct list due;
	struct list *n;
	uint64_t now;

	if (list_empty(&l->timers))
		return;
	now = loop_now_ns();
	list_init(&due);
	while (!list_empty(&l->timers)) {
		struct loop_timer *t = list_first(&l->timers, struct loop_timer, link);

		if (t->at_ns > now)
			break;
		list_del(&t->link);
		list_add_tail(&due, &t->link);
	}
	while ((n = list_pop(&due))) {
		struct loop_timer *t = list_entry(n, struct loop_timer, link);

		t->armed = false;
		t->fn(t);
	}
}

static void run_deferred(struct loop *l)
{
	struct list batch;
	struct list *n;

	list_init(&batch);
	list_splice_tail(&batch, &l->deferred);
	while ((n = list_pop(&batch))) {
		struct loop_work *w = list_entry(n, struct loop_work, link);

		w->queued = false;
		w->fn(w);
	}
}

static bool has_work(struct loop *l)
{
	return !list_empty(&l->completed) || !list_empty(&l->ready_polls) ||
	       !list_empty(&l->deferred) || atomic_load(&l->msgs) || atomic_load(&l->stop) ||
	       fibers_can_run(l);
}

static void fail(struct loop *l, int err)
{
	char name[16] = "";

	pthread_getname_np(pthread_self(), name, sizeof(name));
	log_error("%s: its event loop failed: %s", name, strerror(-err));
	l->failed = true;
	l->engine->give_up(l);
}

bool loop_failed(const struct loop *l)
{
	return l->failed;
}

int loop_turn(struct loop *l, bool wait)
{
	uint64_t deadline = LOOP_NEVER;
	bool ran;
	int err;

	assert(!fiber_self());
	if (!list_empty(&l->timers))
		deadline = list_first(&l->timers, struct loop_timer, link)->at_ns;
	if (wait && !has_work(l)) {
		/* Pairs with loop_wake(): it pushed before it looks, we look after we say. */
		atomic_store(&l->sleeping, true);
		wait = !has_work(l);
	} else {
		wait = false;
	}
	err = l->engine->enter(l, wait, deadline);
	if (err)
		fail(l, err);
	atomic_store_explicit(&l->sleeping, false, memory_order_relaxed);

	run_timers(l);
	fibers_next_turn(l);
	for (int round = 0; round < ROUNDS_MAX; round++) {
		ran = run_completed(l);
		ran |= run_polls(l);
		ran |= run_msgs(l);
		ran |= fibers_run(l);
		if (!ran)
			break;
	}
	run_deferred(l);
	return err;
}

int loop_run(struct loop *l)
{
	int err = 0;

	while (!err && !atomic_load(&l->stop))
		err = loop_turn(l, true);
	if (!err)
		atomic_store(&l->stop, false);
	return err;
}

int64_t loop_op_blocking(const struct loop_op *op)
{
	int64_t res = -EINVAL;
	off_t off = (off_t)op->off, len = (off_t)op->len;

	switch (op->code) {
	case LOOP_READV:
		res = preadv(op->fd, op->iov, op->niov, off);
		break;
	case LOOP_WRITEV:
		res = pwritev(op->fd, op->iov, op->niov, off);
		break;
	case LOOP_FDATASYNC:
		res = fdatasync(op->fd);
		break;
	case LOOP_FALLOCATE:
		res = fallocate(op->fd, op->mode, off, len);
		break;
	case LOOP_FTRUNCATE:
		res = ftruncate(op->fd, len);
		break;
	}
	return res < 0 ? -errno : res;
}

/* True if the page cache answered; partly is an answer too. */
static bool try_read_inline(struct loop *l, struct loop_op *op)
{
	ssize_t n;

	l->syscalls++;
	n = preadv2(op->fd, op->iov, op->niov, (off_t)op->off, RWF_NOWAIT);
	if (n < 0) {
		op->refused = errno == EOPNOTSUPP || errno == ENOSYS;
		return false;
	}
	loop_completed(l, op, n);
	return true;
}

static bool try_write_inline(struct loop *l, struct loop_op *op)
{
	uint64_t len = 0;

	for (int i = 0; i < op->niov; i++)
		len += op->iov[i].iov_len;
	if (len > INLINE_WRITE_MAX && !l->copies)
		return false;
	l->syscalls++;
	loop_completed(l, op, loop_op_blocking(op));
	return true;
}

void loop_submit(struct loop *l, struct loop_op *op)
{
	l->in_flight++;
	op->refused = false;
	if (!op->direct && op->code == LOOP_READV && !l->reads_aside && try_read_inline(l, op))
		return;
	if (!op->direct && op->code == LOOP_WRITEV && try_write_inline(l, op))
		return;
	if (op->here && op->code == LOOP_FDATASYNC) {
		l->syscalls++;
		loop_completed(l, op, loop_op_blocking(op));
		return;
	}
	l->engine->submit(l, op);
}

void loop_copies(struct loop *l, bool ahead)
{
	l->copies = true;
	l->reads_aside = ahead;
}

void loop_never_spins(struct loop *l)
{
	l->never_spins = true;
}

void loop_complete(struct loop *l, struct loop_op *op, int64_t res)
{
	l->in_flight++;
	loop_completed(l, op, res);
}

void loop_work_init(struct loop_work *w, void (*fn)(struct loop_work *w))
{
	w->fn = fn;
	w->queued = false;
	list_init(&w->link);
}

void loop_defer(struct loop *l, struct loop_work *w)
{
	if (w->queued)
		return;
	w->queued = true;
	list_add_tail(&l->deferred, &w->link);
}

void loop_undefer(struct loop_work *w)
{
	w->queued = false;
	list_del(&w->link);
}

int loop_poll_add(struct loop *l, struct loop_poll *p)
{
	int err;

	assert(!p->armed);
	err = l->engine->poll_add(l, p);
	if (err)
		return err;
	p->armed = true;
	l->n_polls++;
	return 0;
}

void loop_poll_del(struct loop *l, struct loop_poll *p)
{
	struct poll_entry *e = p->priv;

	if (!p->armed)
		return;
	p->armed = false;
	l->n_polls--;
	p->priv = NULL;
	list_del(&e->ready);
	e->p = NULL;
	l->engine->poll_del(l, p, e);
}

void loop_timer_set(struct loop *l, struct loop_timer *t, uint64_t at_ns)
{
	struct list *before = &l->timers;

	loop_timer_cancel(l, t);
	t->at_ns = at_ns;
	t->armed = true;
	/* Few timers, and a new one mostly is the last. */
	while (before->prev != &l->timers &&
	       list_entry(before->prev, struct loop_timer, link)->at_ns > at_ns)
		before = before->prev;
	list_add_tail(before, &t->link);
}

void loop_timer_cancel(struct loop *l, struct loop_timer *t)
{
	if (!t->armed)
		return;
	t->armed = false;
	list_del(&t->link);
}
