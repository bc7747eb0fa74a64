/* SPDX-License-Identifier: MIT */
/*
 * loop_plain.c - the engine of last resort: plain system calls, one at a time.
 *
 * It takes over when the kernel refuses io_uring_enter or epoll_wait.  Whoever waits gets
 * an answer and what was written can be made durable, so that all can be closed; the loop's owner
 * is told, and should do that.  Messages, timers and fibers work on, descriptors are no longer
 * watched.
 *
 * What the old engine had in the kernel is done again: reads and writes of the same bytes.  The
 * kernel is given LET_GO_NS to forget it, since a late write could undo one that comes after.
 */
#include <poll.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>
#include "vmm/util/loop_int.h"

#define LET_GO_NS (100 * 1000 * 1000)

static void plain_submit(struct loop *l, struct loop_op *op)
{
	l->syscalls++;
	loop_completed(l, op, loop_op_blocking(op));
}

static int plain_enter(struct loop *l, bool sleep, uint64_t deadline_ns)
{
	struct pollfd f = {.fd = l->wake_fd, .events = POLLIN};
	uint64_t now = loop_now_ns(), count;
	int ms = 0;

	if (sleep && deadline_ns == LOOP_NEVER)
		ms = -1;
	else if (sleep && deadline_ns > now)
		ms = (int)min_u64(div_round_up(deadline_ns - now, 1000000U), 1000U * 3600U);
	/* Nobody watches for edges now: the counter is read, or it would wake us for ever. */
	if (poll(&f, 1, ms) > 0) {
		ssize_t n = read(l->wake_fd, &count, sizeof(count));

		(void)n; /* it does not block, and there is something */
	}
	return 0;
}

static struct poll_entry *entry_new(struct loop_poll *p)
{
	struct poll_entry *e = calloc(1, sizeof(*e));

	if (!e)
		return NULL;
	e->p = p;
	list_init(&e->all);
	list_init(&e->ready);
	list_init(&e->todo);
	return e;
}

static int plain_poll_add(struct loop *l, struct loop_poll *p)
{
	p->priv = entry_new(p);
	return p->priv ? 0 : -ENOMEM;
}

static void plain_poll_del(struct loop *l, struct loop_poll *p, struct poll_entry *e)
{
	free(e);
}

static void plain_close(struct loop *l)
{
}

static const struct loop_engine plain_engine = {
	.submit = plain_submit,
	.enter = plain_enter,
	.poll_add = plain_poll_add,
	.poll_del = plain_poll_del,
	.close = plain_close,
};

/* Each stays its owner's, who takes it away by plain_poll_del(). */
static void polls_leave(struct list *polls)
{
	struct list *n;

	while ((n = list_pop(polls))) {
		struct poll_entry *e = list_entry(n, struct poll_entry, all);

		list_del(&e->todo);
		if (!e->p) {
			list_del(&e->ready);
			free(e);
		}
	}
}

void loop_take_over(struct loop *l, struct list *polls, struct list *ops, bool in_kernel)
{
	struct list *n;

	polls_leave(polls);
	if (in_kernel)
		nanosleep(&(struct timespec){.tv_nsec = LET_GO_NS}, NULL);
	while ((n = list_pop(ops)))
		plain_submit(l, list_entry(n, struct loop_op, link));
	l->engine = &plain_engine;
	l->priv = NULL;
}
