/* SPDX-License-Identifier: MIT */
/*
 * test_op.h - one operation of a loop, for the loop's tests: prepared, waited for, counted.
 */
#ifndef TESTS_TEST_OP_H
#define TESTS_TEST_OP_H

#include <fcntl.h>
#include "tests/support/scratch.h"
#include "vmm/util/loop.h"

#define MS 1000000ULL /* ns */

struct test_op {
	struct loop_op op;
	struct iovec iov;
	int runs; /* how often it has ended */
	int64_t res;
	int nth; /* of all that ended, from 0 */
};

static int order; /* how many have */

static inline void op_done(struct loop_op *op, int64_t res)
{
	struct test_op *t = container_of(op, struct test_op, op);

	t->runs++;
	t->res = res;
	t->nth = order++;
}

static inline void prep(struct test_op *t, enum loop_opcode code, int fd, void *buf, uint64_t len,
	uint64_t off)
{
	*t = (struct test_op){.op = {.done = op_done, .code = code, .fd = fd, .niov = 1, .off = off,
				     .len = len}};
	t->iov = (struct iovec){.iov_base = buf, .iov_len = len};
	t->op.iov = &t->iov;
}

/* Turns the loop until *runs is n; five seconds at most. */
static inline void turn_until(struct loop *l, const int *runs, int n)
{
	uint64_t end = loop_now_ns() + 5000 * MS;

	while (*runs < n) {
		ck_assert_int_eq(loop_turn(l, true), 0);
		ck_assert_msg(loop_now_ns() < end, "still not done");
	}
}

static inline int open_scratch(uint64_t size)
{
	int fd = open(scratch_file(size), O_RDWR | O_CLOEXEC);

	ck_assert_int_ge(fd, 0);
	return fd;
}

#endif
