/* SPDX-License-Identifier: MIT */
/*
 * loop_int.h - what loop.c, its two engines and fiber.c share; nobody else includes it.
 *
 * loop.c owns the turn and everything that needs no kernel.  An engine
 * (loop_uring.c, loop_threads.c; loop_plain.c when they fail) carries out operations and watches
 * descriptors; it only ever collects: finished operations go to completed, readable descriptors to
 * ready_polls, and the turn calls the callbacks.
 */
#ifndef UTIL_LOOP_INT_H
#define UTIL_LOOP_INT_H

#include <stdatomic.h>
#include "vmm/util/fiber.h"
#include "vmm/util/loop.h"

#define LOOP_NEVER UINT64_MAX /* no deadline */

struct poll_entry;

struct loop_engine {
	enum loop_aio aio;
	/* Takes op; it comes back through loop_completed(). */
	void (*submit)(struct loop *l, struct loop_op *op);
	/*
	 * Hands everything taken to the kernel and collects what is finished.  If sleep, waits
	 * until there is something, wake_fd is written, or deadline (CLOCK_MONOTONIC).
	 */
	int (*enter)(struct loop *l, bool sleep, uint64_t deadline_ns);
	int (*poll_add)(struct loop *l, struct loop_poll *p);
	/* Frees e, or will when the kernel lets go of it. */
	void (*poll_del)(struct loop *l, struct loop_poll *p, struct poll_entry *e);
	void (*close)(struct loop *l);
	/*
	 * After enter() has failed: closes, and hands what is not finished and whatever it watches
	 * to loop_take_over().
	 */
	void (*give_up)(struct loop *l);
};

/* A watched descriptor, p->priv.  The uring engine keeps it until the kernel lets go of it. */
struct poll_entry {
	struct loop_poll *p; /* NULL: deleted */
	struct list all;     /* the engine's */
	struct list ready;   /* loop.ready_polls */
	struct list todo;    /* the engine's: to be armed, or cancelled */
	bool in_kernel;	     /* uring: a request is pending */
};

struct loop {
	const struct loop_engine *engine;
	void *priv; /* the engine's */
	struct list completed;	 /* loop_op whose done() is due */
	struct list ready_polls; /* poll_entry whose fn is due */
	struct list deferred;	 /* loop_work */
	struct list timers;	 /* loop_timer, earliest first */
	unsigned in_flight;	 /* ops whose done() has not run */
	unsigned n_polls;
	uint64_t syscalls;
	bool copies, reads_aside; /* see loop_copies() */
	bool never_spins;
	bool failed; /* the engine is loop_plain.c's */

	struct offload_pool *offload; /* offload.c's */

	/* fiber.c's */
	struct fiber_pool *fibers;
	struct list fiber_starts[FIBER_LEVELS]; /* fiber_start in line for a stack, by level */
	struct list fiber_ready;   /* run in this turn */
	struct list fiber_yielded; /* run in the next */

	/* Written by other threads. */
	struct loop_msg *_Atomic msgs; /* newest first */
	atomic_bool sleeping;	       /* somebody must write wake_fd */
	atomic_bool stop;
	int wake_fd;
};

/* done(op, res) is due. */
static inline void loop_completed(struct loop *l, struct loop_op *op, int64_t res)
{
	op->res = res;
	list_add_tail(&l->completed, &op->link);
}

/* Any thread: ends the loop's sleep, if it sleeps. */
void loop_wake(struct loop *l);
/* What op asks for, with plain system calls; bytes or -errno. */
int64_t loop_op_blocking(const struct loop_op *op);

/*
 * loop_plain.c: from now on plain system calls, for these operations too; in_kernel: some were
 * there until now.  polls: poll_entry, by all.
 */
void loop_take_over(struct loop *l, struct list *polls, struct list *ops, bool in_kernel);

int loop_uring_open(struct loop *l);
int loop_threads_open(struct loop *l);

/* Runs whatever can run; true if something did. */
bool fibers_run(struct loop *l);
/* Those who yielded may run again. */
void fibers_next_turn(struct loop *l);
bool fibers_can_run(const struct loop *l);

#endif
