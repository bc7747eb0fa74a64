/* SPDX-License-Identifier: MIT */
/*
 * loop.h - one thread's event loop: host I/O, descriptors, messages, timers.
 *
 * A drive belongs to one thread, and that thread runs one loop.  The loop sits on
 * io_uring; where that is not permitted (containers), a small thread pool and
 * epoll take its place and nothing above can tell.
 *
 * One turn: everything submitted since the last turn enters the kernel with one system
 * call, which also sleeps if nothing else is left to do; then completions, timers, messages
 * and ready descriptors are handled and fibers run until none can; then the
 * deferred work runs (interrupts, group commits).
 *
 * Every function is for the loop's own thread, except loop_post() and loop_stop().
 * The thread may change (opened in one, run in another) while no operation is in flight.
 * Callbacks run on the loop, outside any fiber, never inside the call that
 * asked for them.
 */
#ifndef UTIL_LOOP_H
#define UTIL_LOOP_H

#include <sys/types.h>
#include <sys/uio.h>
#include "vmm/util/base.h"
#include "vmm/util/list.h"

struct loop;

enum loop_aio { LOOP_AIO_AUTO, LOOP_AIO_URING, LOOP_AIO_THREADS };

/* AUTO falls back to threads and says so once (log_info).  0 or -errno. */
must_check int loop_new(enum loop_aio aio, struct loop **out);
/* Nothing may be in flight any more; asserts it. */
void loop_free(struct loop *l);
enum loop_aio loop_aio(const struct loop *l); /* what it really is: URING or THREADS */

/*
 * One turn; with wait, sleeps until there is something to do.  0, or once -errno of the kernel's
 * interface itself: the user has been told; close what is open and end.  Until then the loop
 * goes on with plain system calls, slowly; descriptors are no longer watched.
 */
must_check int loop_turn(struct loop *l, bool wait);
bool loop_failed(const struct loop *l);
/* Turns until loop_stop(), or until that error; it may be called again. */
must_check int loop_run(struct loop *l);
void loop_stop(struct loop *l); /* any thread; also from a signal handler */

/*
 * Host I/O, asynchronous.  op belongs to the caller and must stay until done() is
 * called with res = bytes moved, 0, or -errno, just as the system call would.
 * iov must stay too.  A full ring is not the caller's problem: ops wait their turn.
 * READ and WRITE of the page cache are tried inline where the kernel would
 * only hand them to a worker thread; done() still comes later in the turn.
 */
enum loop_opcode {
	LOOP_READV,
	LOOP_WRITEV,
	LOOP_FDATASYNC,
	LOOP_FALLOCATE, /* mode, off, len: fallocate(2) */
	LOOP_FTRUNCATE, /* len */
};

struct loop_op {
	/* the caller's */
	void (*done)(struct loop_op *op, int64_t res);
	enum loop_opcode code;
	int fd;
	int mode;    /* LOOP_FALLOCATE */
	bool here;   /* LOOP_FDATASYNC: in this thread; the loop stands still meanwhile */
	bool direct; /* never try inline: fd is O_DIRECT, or refused once */
	bool refused; /* set by the loop: READV of this file can never be tried inline */
	struct iovec *iov;
	int niov;
	uint64_t off, len; /* bytes */
	/* the loop's */
	struct list link;
	int64_t res;
};

void loop_submit(struct loop *l, struct loop_op *op);
/*
 * For a loop that does nothing but copy: writes to the page cache, of any length, are done in its
 * own thread; with ahead, reads never are.  So one core reads what another one writes.
 */
void loop_copies(struct loop *l, bool ahead);
/* From now on it sleeps at once: other threads that it works for need the processor. */
void loop_never_spins(struct loop *l);
/* For layers that know the result without the host: done(op, res) runs later in this turn. */
void loop_complete(struct loop *l, struct loop_op *op, int64_t res);

/* A message from any thread: fn runs once on the loop; m must stay until then. */
struct loop_msg {
	void (*fn)(struct loop_msg *m);
	struct loop_msg *next;
};
void loop_post(struct loop *l, struct loop_msg *m); /* any thread */

/* Work for the end of this turn, before the loop submits; queueing it twice queues it once. */
struct loop_work {
	void (*fn)(struct loop_work *w);
	struct list link; /* init with loop_work_init() */
	bool queued;
};
void loop_work_init(struct loop_work *w, void (*fn)(struct loop_work *w));
void loop_defer(struct loop *l, struct loop_work *w);
void loop_undefer(struct loop_work *w);

/*
 * fn runs whenever fd is readable, once a turn at most, until fn has read what there is.
 * An eventfd is different: fn runs once after any number of signals and reads nothing (the
 * counter is left alone, which saves a system call per kick); right after loop_poll_add()
 * it may run for signals sent before.
 */
struct loop_poll {
	void (*fn)(struct loop_poll *p);
	int fd;
	bool eventfd;
	bool armed;
	void *priv; /* the loop's */
};
must_check int loop_poll_add(struct loop *l, struct loop_poll *p);
/* After it returns fn will not run and p is free. */
void loop_poll_del(struct loop *l, struct loop_poll *p);

/* One shot; at is CLOCK_MONOTONIC in nanoseconds. */
struct loop_timer {
	void (*fn)(struct loop_timer *t);
	uint64_t at_ns;
	struct list link;
	bool armed;
};
void loop_timer_set(struct loop *l, struct loop_timer *t, uint64_t at_ns);
void loop_timer_cancel(struct loop *l, struct loop_timer *t);
uint64_t loop_now_ns(void);

/* System calls made so far (enters, inline reads and writes, pool work): for the benchmarks. */
uint64_t loop_syscalls(const struct loop *l);

#endif
