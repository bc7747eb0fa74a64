/* SPDX-License-Identifier: MIT */
/*
 * loop_uring.c - the loop's engine on io_uring.
 *
 * Operations wait in a list and become SQEs when the turn enters the kernel, so a
 * full ring only makes the list longer.  One io_uring_enter per turn submits and waits.
 *
 * The ring is made for one thread (SINGLE_ISSUER, DEFER_TASKRUN: completions are
 * processed when we ask for them, not by interrupting us).  A loop that is opened in one
 * thread and run in another gets a new ring when the first turn there begins; that is
 * allowed because nothing but polls can be in flight then, and they are armed again.
 *
 * Before it sleeps the loop watches the ring for a moment: a fast device's answer, and a busy
 * guest's next request, come sooner than a sleeping thread wakes up (4 KiB O_DIRECT reads,
 * one at a time: 60 us instead of 100).  Where that fails it is tried ever more rarely, so
 * that slow devices, flushes and idle drives cost no CPU; each of the two has its own record.
 *
 * Polls.  An eventfd gets a multishot poll, which tells of every signal without being
 * armed again.  Other descriptors get one-shot polls, armed again with the next enter after
 * fn had its chance to read; so they are level-triggered.  The kernel may still
 * hold a poll that was deleted: its entry lives on until the last CQE is seen.
 */
#include <liburing.h>
#include <poll.h>
#include <stdlib.h>
#include <unistd.h>
#include "vmm/util/loop_int.h"

#define SQ_ENTRIES 128 /* more in one turn cost a second enter */
#define CQ_ENTRIES 1024
#define OPS_MAX	   768 /* in the kernel at once; the rest of the CQ is for polls and cancels */

#define SPIN_NS	     50000 /* about what going to sleep and waking up costs */
#define SPIN_SKIP_MAX 255  /* sleeps without a try after many tries in vain */

/* Kernel 6.9; not in the headers of liburing 2.3. */
#define OP_FTRUNCATE 55

/* What a CQE is about, in the low bits of user_data. */
enum tag { TAG_OP, TAG_POLL, TAG_WAKE, TAG_NONE, TAG_MASK = 3 };

/* What became of looking instead of sleeping. */
struct spins {
	unsigned skip, penalty; /* sleeps until the next one; the same after the next failure */
};

struct uring {
	struct io_uring ring;
	uint64_t owner; /* thread_id() */
	bool open, wake_armed, has_ftruncate;
	unsigned n_ops; /* in the kernel */
	struct spins for_ops, for_polls; /* while operations are in flight, and while none is */
	bool one_cpu; /* then whoever we wait for needs it */
	struct list ops;     /* loop_op not yet in the ring */
	struct list in_ring; /* loop_op, n_ops of them */
	struct list polls;   /* poll_entry, all */
	struct list to_arm, to_cancel; /* poll_entry.todo */
};

static const unsigned setup_flags[] = {
	IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_TASKRUN_FLAG,
	IORING_SETUP_COOP_TASKRUN | IORING_SETUP_TASKRUN_FLAG,
	0,
};

/* Unlike a pthread_t or a tid it is never used again. */
static uint64_t thread_id(void)
{
	static _Atomic uint64_t last;
	static _Thread_local uint64_t id;

	if (!id)
		id = ++last;
	return id;
}

/* Newer flags first; an older kernel says EINVAL. */
static int ring_open(struct uring *u)
{
	int err = -EINVAL;

	for (size_t i = 0; i < ARRAY_SIZE(setup_flags) && err == -EINVAL; i++) {
		struct io_uring_params p = {
			.flags = setup_flags[i] | IORING_SETUP_CQSIZE | IORING_SETUP_CLAMP,
			.cq_entries = CQ_ENTRIES,
		};

		err = io_uring_queue_init_params(SQ_ENTRIES, &u->ring, &p);
		/* Deadlines need EXT_ARG; without NODROP a full CQ would lose completions. */
		if (!err && (~p.features & (IORING_FEAT_EXT_ARG | IORING_FEAT_NODROP))) {
			io_uring_queue_exit(&u->ring);
			return -ENOSYS;
		}
	}
	if (!err) {
		u->owner = thread_id();
		u->open = true;
	}
	return err;
}

/* Another thread runs the loop now. */
static int ring_move(struct uring *u)
{
	assert(u->n_ops == 0);
	if (u->open)
		io_uring_queue_exit(&u->ring);
	u->open = u->wake_armed = false;
	list_for_each_safe(n, &u->polls) {
		struct poll_entry *e = list_entry(n, struct poll_entry, all);

		list_del(&e->todo);
		e->in_kernel = false;
		if (e->p) {
			list_add_tail(&u->to_arm, &e->todo);
		} else {
			list_del(&e->all);
			free(e);
		}
	}
	return ring_open(u);
}

static struct io_uring_sqe *get_sqe(struct loop *l, struct uring *u)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(&u->ring);

	if (!sqe) {
		l->syscalls++;
		/* Failing means out of memory or a full CQ; the turn's enter tries again. */
		if (io_uring_submit(&u->ring) > 0)
			sqe = io_uring_get_sqe(&u->ring);
	}
	return sqe;
}

static void set_tag(struct io_uring_sqe *sqe, const void *p, enum tag tag)
{
	io_uring_sqe_set_data64(sqe, (uintptr_t)p | tag);
}

static void prep_op(struct io_uring_sqe *sqe, struct loop_op *op)
{
	switch (op->code) {
	case LOOP_READV:
		io_uring_prep_readv(sqe, op->fd, op->iov, (unsigned)op->niov, op->off);
		break;
	case LOOP_WRITEV:
		io_uring_prep_writev(sqe, op->fd, op->iov, (unsigned)op->niov, op->off);
		break;
	case LOOP_FDATASYNC:
		io_uring_prep_fsync(sqe, op->fd, IORING_FSYNC_DATASYNC);
		break;
	case LOOP_FALLOCATE:
		io_uring_prep_fallocate(sqe, op->fd, op->mode, (off_t)op->off, (off_t)op->len);
		break;
	case LOOP_FTRUNCATE:
		io_uring_prep_rw(OP_FTRUNCATE, sqe, op->fd, NULL, 0, op->len);
		break;
	}
	set_tag(sqe, op, TAG_OP);
}

static bool arm_wake(struct loop *l, struct uring *u)
{
	struct io_uring_sqe *sqe = get_sqe(l, u);

	if (!sqe)
		return false;
	io_uring_prep_poll_multishot(sqe, l->wake_fd, POLLIN);
	set_tag(sqe, NULL, TAG_WAKE);
	u->wake_armed = true;
	return true;
}

static bool arm_poll(struct loop *l, struct uring *u, struct poll_entry *e)
{
	struct io_uring_sqe *sqe = get_sqe(l, u);

	if (!sqe)
		return false;
	if (e->p->eventfd)
		io_uring_prep_poll_multishot(sqe, e->p->fd, POLLIN);
	else
		io_uring_prep_poll_add(sqe, e->p->fd, POLLIN);
	set_tag(sqe, e, TAG_POLL);
	e->in_kernel = true;
	return true;
}

static bool cancel_poll(struct loop *l, struct uring *u, struct poll_entry *e)
{
	struct io_uring_sqe *sqe = get_sqe(l, u);

	if (!sqe)
		return false;
	io_uring_prep_poll_remove(sqe, (uintptr_t)e | TAG_POLL);
	set_tag(sqe, NULL, TAG_NONE);
	return true;
}

/* What is waiting becomes SQEs.  What finds no room stays in its list. */
static void fill(struct loop *l, struct uring *u)
{
	struct io_uring_sqe *sqe;
	struct loop_op *op;

	if (!u->wake_armed && !arm_wake(l, u))
		return;
	list_for_each_safe(n, &u->to_cancel) {
		if (!cancel_poll(l, u, list_entry(n, struct poll_entry, todo)))
			return;
		list_del(n);
	}
	list_for_each_safe(n, &u->to_arm) {
		if (!arm_poll(l, u, list_entry(n, struct poll_entry, todo)))
			return;
		list_del(n);
	}
	while (!list_empty(&u->ops) && u->n_ops < OPS_MAX) {
		sqe = get_sqe(l, u);
		if (!sqe)
			return;
		op = list_entry(list_pop(&u->ops), struct loop_op, link);
		list_add_tail(&u->in_ring, &op->link);
		prep_op(sqe, op);
		u->n_ops++;
	}
}

static void reap_poll(struct loop *l, struct uring *u, struct poll_entry *e, bool more)
{
	e->in_kernel = more;
	if (!e->p) {
		if (!more) {
			list_del(&e->all);
			list_del(&e->todo);
			free(e);
		}
		return;
	}
	/* An error is for fn to find out with its own read. */
	if (list_empty(&e->ready))
		list_add_tail(&l->ready_polls, &e->ready);
	if (!more)
		list_add_tail(&u->to_arm, &e->todo);
}

static void reap(struct loop *l, struct uring *u)
{
	struct io_uring_cqe *cqe;
	unsigned head, n = 0;

	io_uring_for_each_cqe(&u->ring, head, cqe) {
		void *p = (void *)(uintptr_t)(cqe->user_data & ~(uint64_t)TAG_MASK);

		switch ((enum tag)(cqe->user_data & TAG_MASK)) {
		case TAG_OP:
			u->n_ops--;
			list_del(&((struct loop_op *)p)->link);
			loop_completed(l, p, cqe->res);
			break;
		case TAG_POLL:
			reap_poll(l, u, p, cqe->flags & IORING_CQE_F_MORE);
			break;
		case TAG_WAKE:
			u->wake_armed = cqe->flags & IORING_CQE_F_MORE;
			break;
		default:
			break;
		}
		n++;
	}
	io_uring_cq_advance(&u->ring, n);
}

/* The kernel has completions that become CQEs when we enter. */
static bool kernel_has_more(struct uring *u)
{
	unsigned flags = __atomic_load_n(u->ring.sq.kflags, __ATOMIC_RELAXED);

	return flags & (IORING_SQ_TASKRUN | IORING_SQ_CQ_OVERFLOW);
}

/* True if something came while we looked. */
static bool spin(struct loop *l, struct uring *u)
{
	struct spins *s = u->n_ops ? &u->for_ops : &u->for_polls;
	uint64_t end;

	if (u->one_cpu || l->never_spins || (!u->n_ops && !l->n_polls))
		return false;
	if (s->skip) {
		s->skip--;
		return false;
	}
	if (io_uring_sq_ready(&u->ring)) {
		l->syscalls++;
		if (io_uring_submit(&u->ring) < 0)
			return false;
	}
	end = loop_now_ns() + SPIN_NS;
	while (!io_uring_cq_ready(&u->ring) && !kernel_has_more(u)) {
		if (loop_now_ns() > end) {
			s->penalty = (unsigned)min_u64(2 * s->penalty + 1, SPIN_SKIP_MAX);
			s->skip = s->penalty;
			return false;
		}
		__builtin_ia32_pause();
	}
	s->penalty /= 2;
	return true;
}

static int ring_wait(struct uring *u, uint64_t deadline_ns)
{
	struct __kernel_timespec ts;
	struct io_uring_cqe *cqe;
	uint64_t now, left;

	if (deadline_ns == LOOP_NEVER)
		return io_uring_submit_and_wait(&u->ring, 1);
	now = loop_now_ns();
	left = deadline_ns > now ? deadline_ns - now : 0;
	ts.tv_sec = (long long)(left / 1000000000U);
	ts.tv_nsec = (long long)(left % 1000000000U);
	return io_uring_submit_and_wait_timeout(&u->ring, &cqe, 1, &ts, NULL);
}

static int uring_enter(struct loop *l, bool sleep, uint64_t deadline_ns)
{
	struct uring *u = l->priv;
	int ret = 0;

	if (!u->open || u->owner != thread_id()) {
		ret = ring_move(u);
		if (ret)
			return ret;
	}
	fill(l, u);
	if (sleep && !io_uring_cq_ready(&u->ring) && !spin(l, u)) {
		l->syscalls++;
		ret = ring_wait(u, deadline_ns);
	} else if (io_uring_sq_ready(&u->ring) || kernel_has_more(u)) {
		l->syscalls++;
		ret = io_uring_submit_and_get_events(&u->ring);
	}
	reap(l, u);
	/* A signal, the deadline, or no memory just now: what was not taken stays in the ring. */
	if (ret == -EINTR || ret == -ETIME || ret == -EAGAIN || ret == -EBUSY)
		ret = 0;
	return ret < 0 ? ret : 0;
}

static void uring_submit(struct loop *l, struct loop_op *op)
{
	struct uring *u = l->priv;

	if (op->code == LOOP_FTRUNCATE && !u->has_ftruncate) {
		l->syscalls++;
		loop_completed(l, op, loop_op_blocking(op));
		return;
	}
	list_add_tail(&u->ops, &op->link);
}

static int uring_poll_add(struct loop *l, struct loop_poll *p)
{
	struct uring *u = l->priv;
	struct poll_entry *e = calloc(1, sizeof(*e));

	if (!e)
		return -ENOMEM;
	e->p = p;
	p->priv = e;
	list_init(&e->ready);
	list_add_tail(&u->polls, &e->all);
	list_add_tail(&u->to_arm, &e->todo);
	return 0;
}

static void uring_poll_del(struct loop *l, struct loop_poll *p, struct poll_entry *e)
{
	struct uring *u = l->priv;

	list_del(&e->todo);
	if (e->in_kernel) {
		list_add_tail(&u->to_cancel, &e->todo);
		return;
	}
	list_del(&e->all);
	free(e);
}

static void uring_close(struct loop *l)
{
	struct uring *u = l->priv;

	if (u->open)
		io_uring_queue_exit(&u->ring);
	list_for_each_safe(n, &u->polls)
		free(list_entry(n, struct poll_entry, all));
	free(u);
}

static void uring_give_up(struct loop *l)
{
	struct uring *u = l->priv;
	bool in_kernel = u->n_ops > 0;

	if (u->open)
		io_uring_queue_exit(&u->ring);
	list_splice_tail(&u->in_ring, &u->ops);
	loop_take_over(l, &u->polls, &u->in_ring, in_kernel);
	free(u);
}

static bool knows_ftruncate(struct uring *u)
{
	struct io_uring_probe *probe = io_uring_get_probe_ring(&u->ring);
	bool known = probe && io_uring_opcode_supported(probe, OP_FTRUNCATE);

	io_uring_free_probe(probe);
	return known;
}

static const struct loop_engine uring_engine = {
	.aio = LOOP_AIO_URING,
	.submit = uring_submit,
	.enter = uring_enter,
	.poll_add = uring_poll_add,
	.poll_del = uring_poll_del,
	.close = uring_close,
	.give_up = uring_give_up,
};

int loop_uring_open(struct loop *l)
{
	struct uring *u = calloc(1, sizeof(*u));
	int err;

	if (!u)
		return -ENOMEM;
	err = ring_open(u);
	if (err) {
		free(u);
		return err;
	}
	u->one_cpu = sysconf(_SC_NPROCESSORS_ONLN) == 1;
	u->has_ftruncate = knows_ftruncate(u);
	list_init(&u->ops);
	list_init(&u->in_ring);
	list_init(&u->polls);
	list_init(&u->to_arm);
	list_init(&u->to_cancel);
	l->engine = &uring_engine;
	l->priv = u;
	return 0;
}
