/* SPDX-License-Identifier: MIT */
/*
 * test_fiber.c - each promise of fiber.h.
 */
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include "tests/support/scratch.h"
#include "vmm/util/fiber.h"

struct test_fiber {
	struct fiber_start s;
	struct fiber *self;
	int id, *log, *n_log;
	struct fiber_queue *q;
	struct fiber_lock *lock;
	int rounds;
};

static int trail[4096], n_trail, n_ended;

static void mark(int id)
{
	trail[n_trail++] = id;
}

static void turns(struct loop *l, int n)
{
	for (int i = 0; i < n; i++)
		ck_assert_int_eq(loop_turn(l, false), 0);
}

static void suspend_once(struct fiber_start *s)
{
	struct test_fiber *t = container_of(s, struct test_fiber, s);

	t->self = fiber_self();
	mark(t->id);
	fiber_suspend();
	mark(-t->id);
	n_ended++;
}

START_TEST(a_fiber_starts_in_this_turn_not_inside_start_and_goes_on_when_woken)
{
	struct loop *l = scratch_loop(0);
	struct test_fiber t = {.s.fn = suspend_once, .id = 1};

	fiber_start(l, &t.s);
	ck_assert_int_eq(n_trail, 0);
	turns(l, 1);
	ck_assert_int_eq(n_trail, 1);
	turns(l, 3);
	ck_assert_int_eq(n_trail, 1); /* nobody wakes it by chance */
	fiber_wake(t.self);
	ck_assert_int_eq(n_trail, 1);
	ck_assert_int_eq(loop_turn(l, true), 0); /* does not sleep */
	ck_assert_int_eq(n_ended, 1);
	ck_assert_ptr_null(fiber_self());
	loop_free(l);
}
END_TEST

static void wake_self_first(struct fiber_start *s)
{
	fiber_wake(fiber_self());
	fiber_suspend();
	n_ended++;
}

START_TEST(a_wake_before_the_suspend_is_not_lost)
{
	struct loop *l = scratch_loop(0);
	struct fiber_start s = {.fn = wake_self_first};

	fiber_start(l, &s);
	turns(l, 1);
	ck_assert_int_eq(n_ended, 1);
	loop_free(l);
}
END_TEST

static void free_self(struct fiber_start *s)
{
	free(container_of(s, struct test_fiber, s));
	n_ended++;
}

START_TEST(fn_may_free_its_start)
{
	struct loop *l = scratch_loop(0);

	for (int i = 0; i < 1000; i++) {
		struct test_fiber *t = calloc(1, sizeof(*t));

		t->s.fn = free_self;
		fiber_start(l, &t->s);
		turns(l, i % 7 == 0);
	}
	turns(l, 20);
	ck_assert_int_eq(n_ended, 1000);
	loop_free(l);
}
END_TEST

START_TEST(starts_wait_in_line_for_a_stack_and_inner_ones_have_theirs)
{
	enum { N = FIBERS_MAX + 20 };
	struct loop *l = scratch_loop(0);
	struct test_fiber *t = calloc(N, sizeof(*t)), inner = {.s.fn = suspend_once, .id = 9999};

	for (int i = 0; i < N; i++) {
		t[i] = (struct test_fiber){.s.fn = suspend_once, .id = i + 1};
		fiber_start(l, &t[i].s);
	}
	turns(l, 3);
	ck_assert_int_eq(n_trail, FIBERS_MAX - FIBERS_INNER);
	fiber_start_at(l, &inner.s, FIBER_LEVELS - 1);
	turns(l, 1);
	ck_assert_int_eq(trail[n_trail - 1], 9999);
	fiber_wake(inner.self);
	/* Each end lets the next in, in order. */
	for (int i = 0; i < N; i++) {
		ck_assert_ptr_nonnull(t[i].self);
		fiber_wake(t[i].self);
		turns(l, 2);
	}
	ck_assert_int_eq(n_ended, N + 1);
	for (int i = 0, id = 0; i < n_trail; i++)
		if (trail[i] > 0 && trail[i] != 9999)
			ck_assert_int_eq(trail[i], ++id);
	loop_free(l);
	free(t);
}
END_TEST

static void yield_marks(struct fiber_start *s)
{
	struct test_fiber *t = container_of(s, struct test_fiber, s);

	for (int i = 0; i < 3; i++) {
		mark(t->id);
		fiber_yield();
	}
	n_ended++;
}

START_TEST(yield_returns_in_a_later_turn)
{
	struct loop *l = scratch_loop(0);
	struct test_fiber a = {.s.fn = yield_marks, .id = 1}, b = {.s.fn = yield_marks, .id = 2};
	static const int expect[] = {1, 2, 1, 2, 1, 2};

	fiber_start(l, &a.s);
	fiber_start(l, &b.s);
	for (int i = 1; i <= 3; i++) {
		ck_assert_int_eq(loop_turn(l, true), 0); /* who yielded keeps the loop awake */
		ck_assert_int_eq(n_trail, 2 * i);
	}
	turns(l, 1);
	ck_assert_int_eq(n_ended, 2);
	ck_assert_mem_eq(trail, expect, sizeof(expect));
	loop_free(l);
}
END_TEST

static void wait_in_queue(struct fiber_start *s)
{
	struct test_fiber *t = container_of(s, struct test_fiber, s);

	fiber_queue_wait(t->q);
	mark(t->id);
	n_ended++;
}

START_TEST(a_queue_wakes_first_in_first_out)
{
	struct loop *l = scratch_loop(0);
	struct fiber_queue q;
	struct test_fiber t[5];

	fiber_queue_init(&q);
	ck_assert(!fiber_queue_wake_one(&q));
	for (int i = 0; i < 5; i++) {
		t[i] = (struct test_fiber){.s.fn = wait_in_queue, .id = i, .q = &q};
		fiber_start(l, &t[i].s);
	}
	turns(l, 1);
	ck_assert_int_eq(n_ended, 0);
	ck_assert(fiber_queue_wake_one(&q));
	turns(l, 1);
	ck_assert_int_eq(n_ended, 1);
	fiber_queue_wake_all(&q);
	turns(l, 1);
	ck_assert_int_eq(n_ended, 5);
	for (int i = 0; i < 5; i++)
		ck_assert_int_eq(trail[i], i);
	loop_free(l);
}
END_TEST

static void lock_and_yield(struct fiber_start *s)
{
	struct test_fiber *t = container_of(s, struct test_fiber, s);

	for (int i = 0; i < t->rounds; i++) {
		fiber_lock(t->lock);
		mark(t->id);
		fiber_yield();
		mark(t->id);
		fiber_unlock(t->lock);
	}
	n_ended++;
}

START_TEST(a_lock_excludes_across_suspensions_and_is_fair)
{
	struct loop *l = scratch_loop(0);
	struct fiber_lock lock;
	struct test_fiber t[4];

	fiber_lock_init(&lock);
	for (int i = 0; i < 4; i++) {
		t[i] = (struct test_fiber){
			.s.fn = lock_and_yield, .id = i, .lock = &lock, .rounds = 5};
		fiber_start(l, &t[i].s);
	}
	turns(l, 100);
	ck_assert_int_eq(n_ended, 4);
	ck_assert_int_eq(n_trail, 4 * 5 * 2);
	ck_assert(!lock.held);
	for (int i = 0; i < n_trail; i++)
		ck_assert_int_eq(trail[i], i / 2 % 4);
	loop_free(l);
}
END_TEST

static int deep(int n)
{
	volatile char pad[512];

	memset((char *)pad, n, sizeof(pad));
	return n ? deep(n - 1) + pad[7] - n : 0;
}

/* Registers, floating point and a deep stack survive the others' turns. */
static void compute(struct fiber_start *s)
{
	struct test_fiber *t = container_of(s, struct test_fiber, s);
	double x = t->id;

	for (int i = 0; i < 20; i++) {
		x = x * 1.5 + 1;
		deep(60);
		fiber_yield();
		x = (x - 1) / 1.5;
	}
	ck_assert(x > t->id - 0.001 && x < t->id + 0.001);
	n_ended++;
}

START_TEST(a_fiber_keeps_its_registers_and_its_stack)
{
	struct loop *l = scratch_loop(0);
	struct test_fiber t[50];

	for (int i = 0; i < 50; i++) {
		t[i] = (struct test_fiber){.s.fn = compute, .id = i};
		fiber_start(l, &t[i].s);
	}
	turns(l, 25);
	ck_assert_int_eq(n_ended, 50);
	loop_free(l);
}
END_TEST

static int half(void *arg)
{
	fiber_yield();
	ck_assert_ptr_nonnull(fiber_self());
	return *(int *)arg / 2;
}

START_TEST(run_gives_the_result)
{
	struct loop *l = scratch_loop(_i);
	int x = 84;

	ck_assert_int_eq(fiber_run(l, half, &x), 42);
	loop_free(l);
}
END_TEST

#ifndef __SANITIZE_ADDRESS__ /* ASan reports it, and exits, in its own way */
static void overflow(struct fiber_start *s)
{
	deep(1000 * 1000);
}

START_TEST(an_overflowing_stack_hits_the_guard_page)
{
	struct loop *l = scratch_loop(0);
	struct fiber_start s = {.fn = overflow};

	fiber_start(l, &s);
	(void)!loop_turn(l, false);
}
END_TEST
#endif

int main(void)
{
	Suite *s = suite_create("fiber");
	TCase *t = tcase_create("fiber");

	tcase_add_test(t, a_fiber_starts_in_this_turn_not_inside_start_and_goes_on_when_woken);
	tcase_add_test(t, a_wake_before_the_suspend_is_not_lost);
	tcase_add_test(t, fn_may_free_its_start);
	tcase_add_test(t, starts_wait_in_line_for_a_stack_and_inner_ones_have_theirs);
	tcase_add_test(t, yield_returns_in_a_later_turn);
	tcase_add_test(t, a_queue_wakes_first_in_first_out);
	tcase_add_test(t, a_lock_excludes_across_suspensions_and_is_fair);
	tcase_add_test(t, a_fiber_keeps_its_registers_and_its_stack);
	tcase_add_loop_test(t, run_gives_the_result, 0, N_AIO);
#ifndef __SANITIZE_ADDRESS__
	tcase_add_test_raise_signal(t, an_overflowing_stack_hits_the_guard_page, SIGSEGV);
#endif
	suite_add_tcase(s, t);
	return scratch_main(s);
}
