/* SPDX-License-Identifier: MIT */
/*
 * fiber.h - straight-line code that waits without stopping its thread.
 *
 * A fiber belongs to a loop and runs only there, so fibers of one loop never run
 * in parallel and need no locks; what they need is order, and a fiber_queue gives it.
 * Stacks come from a pool made when the loop first needs it, each with a guard
 * page below; ASan is told of every switch.  No allocation happens when a
 * fiber starts: if all are busy, the start waits in line.
 */
#ifndef UTIL_FIBER_H
#define UTIL_FIBER_H

#include "vmm/util/base.h"
#include "vmm/util/list.h"
#include "vmm/util/loop.h"

struct fiber;

/* How many may be alive in one loop; the pool is made with the loop's first fiber. */
#define FIBERS_MAX   256
#define FIBER_LEVELS 17  /* see fiber_start_at() */
#define FIBERS_INNER 32 /* of them only for levels above 0, as many for each */
#define FIBER_STACK  (64 * 1024) /* bytes; doubled under ASan */

/*
 * Something to run in a fiber.  It belongs to the caller and must stay until fn runs;
 * fn may free it.  Starts at the latest in this turn if a stack is free, else when one is.
 */
struct fiber_start {
	void (*fn)(struct fiber_start *s);
	struct list link;
};
void fiber_start(struct loop *l, struct fiber_start *s);
/*
 * The same for layers that fibers wait for.  A fiber of one level may wait for what fibers of
 * higher levels do, never of lower ones; each level has stacks kept for it, because otherwise all
 * could be held by those who wait.  The highest waits for nothing but the host.
 */
void fiber_start_at(struct loop *l, struct fiber_start *s, unsigned level);

/* Makes the pool now, so that no later start can fail.  0 or -ENOMEM. */
must_check int fiber_pool_init(struct loop *l);
void fiber_pool_free(struct loop *l); /* called by loop_free() */

/* The running fiber, or NULL on the loop's own stack. */
struct fiber *fiber_self(void);
/* Suspends the running fiber until fiber_wake(); spurious wake-ups do not happen. */
void fiber_suspend(void);
/* Makes f run later in this turn.  f is suspended, or about to be, and is woken once only. */
void fiber_wake(struct fiber *f);
/* Lets everything else run and returns in a later turn. */
void fiber_yield(void);

/* Those who wait for something to change; first in, first out. */
struct fiber_queue {
	struct list waiters;
};
void fiber_queue_init(struct fiber_queue *q);
void fiber_queue_wait(struct fiber_queue *q); /* suspends */
void fiber_queue_wake_all(struct fiber_queue *q);
bool fiber_queue_wake_one(struct fiber_queue *q); /* false: nobody waited */

/* Mutual exclusion across suspensions, in order of arrival. */
struct fiber_lock {
	bool held;
	struct fiber_queue q;
};
void fiber_lock_init(struct fiber_lock *lock);
void fiber_lock(struct fiber_lock *lock);
void fiber_unlock(struct fiber_lock *lock);

/*
 * Runs fn(arg) in a fiber and turns the loop until it has returned; gives its result.
 * For threads that own their loop and have nothing else to do: tools, tests, open and close.
 */
int fiber_run(struct loop *l, int (*fn)(void *arg), void *arg);

#endif
