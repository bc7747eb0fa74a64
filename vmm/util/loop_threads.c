/* SPDX-License-Identifier: MIT */
/*
 * loop_threads.c - the loop's engine where io_uring is not permitted.
 *
 * Operations go to a few worker threads that make the plain system calls; what is
 * finished comes back in a list under one lock, and a worker wakes the loop if it sleeps.
 * Descriptors are watched by epoll, eventfds for edges and the others for levels.
 * epoll refuses regular files and /dev/null, which are always readable: so is
 * their entry.
 *
 * Workers start when the first operation needs them and stay; a loop that only polls has none.
 */
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <unistd.h>
#include "vmm/util/loop_int.h"

/* A disk is busy with this many; more only fight for the inode's lock and two or three CPUs. */
#define WORKERS_MAX 8
#define EVENTS_MAX  64

struct threads {
	struct loop *loop;
	int epfd;
	struct list polls;  /* poll_entry */
	struct list always; /* poll_entry that is always readable, by todo */
	unsigned n_workers, n_pending; /* pending: taken and not yet collected */
	pthread_t worker[WORKERS_MAX];

	pthread_mutex_t lock; /* guards all below */
	pthread_cond_t work;
	struct list queue, finished; /* loop_op */
	unsigned n_idle, n_queued;
	bool quit;
};

static void *worker_main(void *arg)
{
	struct threads *t = arg;
	struct loop_op *op;

	pthread_mutex_lock(&t->lock);
	for (;;) {
		while (list_empty(&t->queue) && !t->quit) {
			t->n_idle++;
			pthread_cond_wait(&t->work, &t->lock);
			t->n_idle--;
		}
		if (t->quit)
			break;
		op = list_entry(list_pop(&t->queue), struct loop_op, link);
		t->n_queued--;
		pthread_mutex_unlock(&t->lock);
		op->res = loop_op_blocking(op);
		pthread_mutex_lock(&t->lock);
		list_add_tail(&t->finished, &op->link);
		loop_wake(t->loop);
	}
	pthread_mutex_unlock(&t->lock);
	return NULL;
}

/* Signals are for the threads that expect them. */
static int worker_start(struct threads *t)
{
	sigset_t all, old;
	int err;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	err = pthread_create(&t->worker[t->n_workers], NULL, worker_main, t);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (!err)
		t->n_workers++;
	return -err;
}

static void threads_submit(struct loop *l, struct loop_op *op)
{
	struct threads *t = l->priv;
	bool need;

	l->syscalls++;
	pthread_mutex_lock(&t->lock);
	list_add_tail(&t->queue, &op->link);
	need = ++t->n_queued > t->n_idle;
	pthread_cond_signal(&t->work);
	pthread_mutex_unlock(&t->lock);
	t->n_pending++;
	if (!need || t->n_workers == WORKERS_MAX || worker_start(t) == 0 || t->n_workers)
		return;
	/* Not a single thread to be had: then slowly. */
	pthread_mutex_lock(&t->lock);
	list_del(&op->link);
	t->n_queued--;
	pthread_mutex_unlock(&t->lock);
	t->n_pending--;
	loop_completed(l, op, loop_op_blocking(op));
}

static void collect_finished(struct loop *l, struct threads *t)
{
	struct list batch;
	struct list *n;

	if (!t->n_pending)
		return;
	list_init(&batch);
	pthread_mutex_lock(&t->lock);
	list_splice_tail(&batch, &t->finished);
	pthread_mutex_unlock(&t->lock);
	while ((n = list_pop(&batch))) {
		struct loop_op *op = list_entry(n, struct loop_op, link);

		t->n_pending--;
		loop_completed(l, op, op->res);
	}
}

static bool any_finished(struct threads *t)
{
	bool any;

	if (!t->n_pending)
		return false;
	pthread_mutex_lock(&t->lock);
	any = !list_empty(&t->finished);
	pthread_mutex_unlock(&t->lock);
	return any;
}

static int wait_events(struct threads *t, struct epoll_event *ev, bool sleep, uint64_t deadline_ns)
{
	uint64_t now, left = 0;
	struct timespec ts;
	int n;

	if (!sleep)
		return epoll_wait(t->epfd, ev, EVENTS_MAX, 0);
	if (deadline_ns == LOOP_NEVER)
		return epoll_wait(t->epfd, ev, EVENTS_MAX, -1);
	now = loop_now_ns();
	if (deadline_ns > now)
		left = deadline_ns - now;
	ts.tv_sec = (time_t)(left / 1000000000U);
	ts.tv_nsec = (long)(left % 1000000000U);
	n = epoll_pwait2(t->epfd, ev, EVENTS_MAX, &ts, NULL);
	if (n < 0 && (errno == ENOSYS || errno == EPERM))
		n = epoll_wait(t->epfd, ev, EVENTS_MAX,
			(int)min_u64(div_round_up(left, 1000000U), 1000U * 3600U));
	return n;
}

static int threads_enter(struct loop *l, bool sleep, uint64_t deadline_ns)
{
	struct threads *t = l->priv;
	struct epoll_event ev[EVENTS_MAX];
	int n;

	/* A worker that finished before we said that we sleep has woken nobody. */
	if (sleep && (!list_empty(&t->always) || any_finished(t)))
		sleep = false;
	if (!sleep && !l->n_polls) {
		collect_finished(l, t);
		return 0;
	}
	l->syscalls++;
	n = wait_events(t, ev, sleep, deadline_ns);
	if (n < 0 && errno != EINTR)
		return -errno;
	for (int i = 0; i < n; i++) {
		struct poll_entry *e = ev[i].data.ptr;

		if (e) /* NULL: wake_fd */
			list_add_tail(&l->ready_polls, &e->ready);
	}
	list_for_each(p, &t->always)
		list_add_tail(&l->ready_polls, &list_entry(p, struct poll_entry, todo)->ready);
	collect_finished(l, t);
	return 0;
}

static int threads_poll_add(struct loop *l, struct loop_poll *p)
{
	struct threads *t = l->priv;
	struct poll_entry *e = calloc(1, sizeof(*e));
	struct epoll_event ev = {.events = EPOLLIN | (p->eventfd ? EPOLLET : 0), .data.ptr = e};
	int err;

	if (!e)
		return -ENOMEM;
	list_init(&e->ready);
	list_init(&e->todo);
	if (epoll_ctl(t->epfd, EPOLL_CTL_ADD, p->fd, &ev) < 0) {
		err = -errno;
		if (err != -EPERM) {
			free(e);
			return err;
		}
		list_add_tail(&t->always, &e->todo);
	}
	e->p = p;
	p->priv = e;
	list_add_tail(&t->polls, &e->all);
	return 0;
}

static void threads_poll_del(struct loop *l, struct loop_poll *p, struct poll_entry *e)
{
	struct threads *t = l->priv;

	if (list_empty(&e->todo))
		epoll_ctl(t->epfd, EPOLL_CTL_DEL, p->fd, NULL);
	list_del(&e->todo);
	list_del(&e->all);
	free(e);
}

/* What they have begun is finished. */
static void workers_end(struct threads *t)
{
	pthread_mutex_lock(&t->lock);
	t->quit = true;
	pthread_cond_broadcast(&t->work);
	pthread_mutex_unlock(&t->lock);
	for (unsigned i = 0; i < t->n_workers; i++)
		pthread_join(t->worker[i], NULL);
	pthread_cond_destroy(&t->work);
	pthread_mutex_destroy(&t->lock);
	close(t->epfd);
}

static void threads_close(struct loop *l)
{
	workers_end(l->priv);
	free(l->priv);
}

static void threads_give_up(struct loop *l)
{
	struct threads *t = l->priv;
	struct list *n;

	workers_end(t);
	while ((n = list_pop(&t->finished))) {
		struct loop_op *op = list_entry(n, struct loop_op, link);

		loop_completed(l, op, op->res);
	}
	loop_take_over(l, &t->polls, &t->queue, false);
	free(t);
}

static const struct loop_engine threads_engine = {
	.aio = LOOP_AIO_THREADS,
	.submit = threads_submit,
	.enter = threads_enter,
	.poll_add = threads_poll_add,
	.poll_del = threads_poll_del,
	.close = threads_close,
	.give_up = threads_give_up,
};

int loop_threads_open(struct loop *l)
{
	struct threads *t = calloc(1, sizeof(*t));
	struct epoll_event ev = {.events = EPOLLIN | EPOLLET, .data.ptr = NULL};
	int err;

	if (!t)
		return -ENOMEM;
	t->epfd = epoll_create1(EPOLL_CLOEXEC);
	if (t->epfd < 0 || epoll_ctl(t->epfd, EPOLL_CTL_ADD, l->wake_fd, &ev) < 0) {
		err = -errno;
		goto close_epoll;
	}
	t->loop = l;
	pthread_mutex_init(&t->lock, NULL);
	pthread_cond_init(&t->work, NULL);
	list_init(&t->polls);
	list_init(&t->always);
	list_init(&t->queue);
	list_init(&t->finished);
	l->engine = &threads_engine;
	l->priv = t;
	return 0;
close_epoll:
	if (t->epfd >= 0)
		close(t->epfd);
	free(t);
	return err;
}
