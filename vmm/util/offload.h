/* SPDX-License-Identifier: MIT */
/*
 * offload.h - computing that takes long (compression), in threads beside the loop.
 *
 * A job goes to a few worker threads of the loop; the fiber that started it may start others,
 * and waits for each when it needs it.  The loop goes on meanwhile.
 *
 *   IDLE --offload_start()--> QUEUED --a worker--> RUNNING --> OVER --offload_wait()--> IDLE
 *
 * A job that was started must be waited for.
 */
#ifndef UTIL_OFFLOAD_H
#define UTIL_OFFLOAD_H

#include "vmm/util/fiber.h"

struct offload {
	void (*fn)(struct offload *o); /* in a worker: knows nothing of the loop and its fibers */
	/* offload.c's */
	struct loop *loop;
	struct loop_msg msg;
	struct list link;
	struct fiber *waiter;
	bool over;
};

/* On the loop.  o and all that fn uses must stay until offload_wait() has returned. */
void offload_start(struct loop *l, struct offload *o);
/* In a fiber: until fn has returned.  All that fn wrote can be seen. */
void offload_wait(struct offload *o);

void offload_free(struct loop *l); /* called by loop_free() */

#endif
