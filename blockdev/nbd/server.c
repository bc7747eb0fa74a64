/* SPDX-License-Identifier: MIT */
/*
 * server.c - a disk's own thread, and calls into it from others.
 *
 * The block layer has no locks: a disk belongs to the thread that runs its loop.  Whoever wants
 * something posts a message to that loop and sleeps until it is answered.  A call lives on its
 * caller's stack, with the request in it, so nothing is allocated; the data goes straight
 * between the caller's buffer and the host's file.  Calls that come while the thread is busy
 * are all taken in its next turn, enter the kernel together, and share one commit if they
 * wait for durability: many callers at once are what makes this cheap.
 *
 * Not here: the protocol (nbdkit's), and what the client is promised (plugin.c).
 */
#include <linux/futex.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>
#include "blockdev/nbd/server.h"

/* Map steps in one call: a fragmented image must not keep everybody else waiting. */
#define MAP_STEPS_MAX 4096

struct server {
	const struct disk_opts *opts;
	enum loop_aio aio;
	pthread_t thread;
	struct loop *loop;
	struct disk *disk;
	struct list over; /* calls whose owners are woken at the end of the turn */
	struct loop_work wake_work;
	int close_err;
	struct why close_why;

	pthread_mutex_t lock; /* guards all below */
	pthread_cond_t cond;
	bool answered;
	int open_err;
	struct why open_why;
};

/* ---- calls ---- */

enum call_state { CALL_RUNS, CALL_SLEEPS, CALL_OVER };

struct call {
	struct loop_msg msg;
	struct list link; /* server.over */
	struct server *s;
	int err;
	_Atomic uint32_t state;
};

static long futex(_Atomic uint32_t *word, int op, uint32_t val)
{
	return syscall(SYS_futex, word, op, val, NULL, NULL, 0);
}

/*
 * Waking somebody often costs this thread the processor, so it is done when the turn's work is
 * done.  A call is gone as soon as its owner sees that it is over.
 */
static void wake_work(struct loop_work *w)
{
	struct server *s = container_of(w, struct server, wake_work);
	struct list *n;

	while ((n = list_pop(&s->over)) != NULL) {
		struct call *c = list_entry(n, struct call, link);

		if (atomic_exchange(&c->state, CALL_OVER) == CALL_SLEEPS)
			futex(&c->state, FUTEX_WAKE_PRIVATE, 1);
	}
}

/* On the loop. */
static void call_end(struct call *c, int err)
{
	c->err = err;
	list_add_tail(&c->s->over, &c->link);
	loop_defer(c->s->loop, &c->s->wake_work);
}

static int call_do(struct server *s, struct call *c, void (*fn)(struct loop_msg *m))
{
	uint32_t runs = CALL_RUNS;

	c->s = s;
	c->msg.fn = fn;
	atomic_init(&c->state, CALL_RUNS);
	loop_post(s->loop, &c->msg);
	if (atomic_compare_exchange_strong(&c->state, &runs, CALL_SLEEPS)) {
		while (atomic_load(&c->state) != CALL_OVER)
			futex(&c->state, FUTEX_WAIT_PRIVATE, CALL_SLEEPS);
	}
	return c->err;
}

/* ---- requests ---- */

struct io_call {
	struct call call;
	struct blk_req r;
	struct iovec iov;
};

static void io_done(struct blk_req *r, int err)
{
	call_end(&container_of(r, struct io_call, r)->call, err);
}

static void io_start(struct loop_msg *m)
{
	struct io_call *io = container_of(m, struct io_call, call.msg);

	disk_submit(io->call.s->disk, &io->r);
}

int server_do(struct server *s, enum blk_op op, unsigned flags, void *buf, uint64_t len,
	uint64_t off)
{
	struct io_call io;

	io.iov = (struct iovec){buf, len};
	io.r = (struct blk_req){.done = io_done,
		.op = op,
		.flags = flags,
		.iov = buf ? &io.iov : NULL,
		.niov = buf ? 1 : 0,
		.off = off,
		.len = len};
	return call_do(s, &io.call, io_start);
}

/* ---- what lies where ---- */

struct map_call {
	struct call call;
	struct fiber_start start;
	uint64_t off, len;
	struct server_extent *e;
	size_t n, room;
};

/* False: no room for it. */
static bool map_add(struct map_call *m, const struct extent *e)
{
	struct server_extent *last = m->n ? &m->e[m->n - 1] : NULL;
	bool zeros = e->kind != EXTENT_DATA;

	if (last && last->zeros == zeros) {
		last->len += e->len;
		return true;
	}
	if (m->n == m->room)
		return false;
	m->e[m->n++] = (struct server_extent){e->len, zeros};
	return true;
}

static void map_fiber(struct fiber_start *st)
{
	struct map_call *m = container_of(st, struct map_call, start);
	int err = 0;

	for (int i = 0; i < MAP_STEPS_MAX && m->len && !err; i++) {
		struct extent e;

		err = disk_map(m->call.s->disk, m->off, m->len, &e);
		if (err || !map_add(m, &e))
			break;
		m->off += e.len;
		m->len -= e.len;
	}
	/* What was found before an error is true; who asks for the rest gets the error. */
	call_end(&m->call, m->n ? 0 : err);
}

static void map_start(struct loop_msg *msg)
{
	struct map_call *m = container_of(msg, struct map_call, call.msg);

	m->start.fn = map_fiber;
	fiber_start(m->call.s->loop, &m->start);
}

int server_map(struct server *s, uint64_t off, uint64_t len, struct server_extent *e, size_t *n)
{
	struct map_call m = {.off = off, .len = len, .e = e, .room = *n};
	int err = call_do(s, &m.call, map_start);

	*n = m.n;
	return err;
}

/* ---- the thread ---- */

static void answer(struct server *s, int err)
{
	pthread_mutex_lock(&s->lock);
	s->open_err = err;
	s->answered = true;
	pthread_cond_broadcast(&s->cond);
	pthread_mutex_unlock(&s->lock);
}

static void *server_main(void *arg)
{
	struct server *s = arg;
	int err = loop_new(s->aio, &s->loop);

	if (err) {
		why_set(&s->open_why, err, "no event loop: %s", strerror(-err));
		answer(s, err);
		return NULL;
	}
	/* Who waits for an answer is another thread, and so, often, is the client's. */
	loop_never_spins(s->loop);
	err = disk_open(s->loop, s->opts, &s->disk, &s->open_why);
	answer(s, err);
	if (!err) {
		err = loop_run(s->loop);
		s->close_err = disk_close(s->disk, &s->close_why);
		if (err) /* those who are inside nbdkit would wait for ever */
			_exit(1);
	}
	loop_free(s->loop);
	return NULL;
}

/* The new thread takes no signals: they are nbdkit's. */
static int start_thread(struct server *s)
{
	sigset_t all, before;
	int err;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	err = -pthread_create(&s->thread, NULL, server_main, s);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (!err)
		pthread_setname_np(s->thread, "disk");
	return err;
}

static void server_free(struct server *s)
{
	pthread_cond_destroy(&s->cond);
	pthread_mutex_destroy(&s->lock);
	free(s);
}

int server_open(
	const struct disk_opts *o, enum loop_aio aio, struct server **out, struct why *why)
{
	struct server *s = calloc(1, sizeof(*s));
	int err;

	if (!s)
		return -ENOMEM;
	s->opts = o;
	s->aio = aio;
	list_init(&s->over);
	loop_work_init(&s->wake_work, wake_work);
	pthread_mutex_init(&s->lock, NULL);
	pthread_cond_init(&s->cond, NULL);
	err = start_thread(s);
	if (err) {
		server_free(s);
		return why_set(why, err, "no thread: %s", strerror(-err));
	}
	pthread_mutex_lock(&s->lock);
	while (!s->answered)
		pthread_cond_wait(&s->cond, &s->lock);
	pthread_mutex_unlock(&s->lock);
	if (s->open_err) {
		err = s->open_err;
		why_set(why, err, "%s", why_text(&s->open_why, err));
		pthread_join(s->thread, NULL);
		server_free(s);
		return err;
	}
	*out = s;
	return 0;
}

int server_close(struct server *s, struct why *why)
{
	int err;

	loop_stop(s->loop);
	pthread_join(s->thread, NULL);
	err = s->close_err;
	if (err)
		why_set(why, err, "%s", why_text(&s->close_why, err));
	server_free(s);
	return err;
}

uint64_t server_disk_size(const struct server *s)
{
	return disk_size(s->disk);
}

uint32_t server_block_size(const struct server *s)
{
	return disk_block_size(s->disk);
}
