/* SPDX-License-Identifier: MIT */
/*
 * test_loop.c - each promise of loop.h, on both engines.
 */
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>
#include "tests/support/test_op.h"

START_TEST(a_write_and_a_read_give_bytes_and_never_finish_inside_submit)
{
	struct loop *l = scratch_loop(_i);
	int fd = open_scratch(8192);
	char out[4096], in[4096];
	struct test_op w, r;

	memset(out, 0x5a, sizeof(out));
	prep(&w, LOOP_WRITEV, fd, out, sizeof(out), 4096);
	loop_submit(l, &w.op);
	ck_assert_int_eq(w.runs, 0);
	turn_until(l, &w.runs, 1);
	ck_assert_int_eq(w.res, 4096);
	prep(&r, LOOP_READV, fd, in, sizeof(in), 4096);
	loop_submit(l, &r.op);
	ck_assert_int_eq(r.runs, 0);
	turn_until(l, &r.runs, 1);
	ck_assert_int_eq(r.res, 4096);
	ck_assert_mem_eq(in, out, sizeof(in));
	prep(&r, LOOP_READV, fd, in, sizeof(in), 8192 - 100);
	loop_submit(l, &r.op);
	turn_until(l, &r.runs, 1);
	ck_assert_int_eq(r.res, 100);
	loop_free(l);
	close(fd);
}
END_TEST

START_TEST(what_a_copying_loop_writes_needs_no_other_thread)
{
	static char out[1024 * 1024], in[sizeof(out)];
	struct loop *l = scratch_loop(_i);
	int fd = open_scratch(0);
	struct test_op w, r;

	loop_copies(l, true);
	memset(out, 0x5a, sizeof(out));
	prep(&w, LOOP_WRITEV, fd, out, sizeof(out), 4096);
	loop_submit(l, &w.op);
	ck_assert_int_eq(w.runs, 0);
	ck_assert_int_eq(lseek(fd, 0, SEEK_END), 4096 + (off_t)sizeof(out));
	prep(&r, LOOP_READV, fd, in, sizeof(in), 4096);
	loop_submit(l, &r.op);
	turn_until(l, &w.runs, 1);
	ck_assert_int_eq(w.res, sizeof(out));
	turn_until(l, &r.runs, 1);
	ck_assert_mem_eq(in, out, sizeof(in));
	loop_free(l);
	close(fd);
}
END_TEST

START_TEST(an_error_is_the_system_calls_own)
{
	static const enum loop_opcode codes[] = {LOOP_READV, LOOP_WRITEV, LOOP_FDATASYNC,
		LOOP_FALLOCATE, LOOP_FTRUNCATE};
	struct loop *l = scratch_loop(_i);
	char buf[512];
	struct test_op t;

	for (size_t i = 0; i < ARRAY_SIZE(codes); i++) {
		prep(&t, codes[i], -1, buf, sizeof(buf), 0);
		loop_submit(l, &t.op);
		turn_until(l, &t.runs, 1);
		ck_assert_int_eq(t.res, -EBADF);
	}
	loop_free(l);
}
END_TEST

START_TEST(fallocate_truncate_and_fdatasync_do_what_they_say)
{
	struct loop *l = scratch_loop(_i);
	int fd = open_scratch(1000);
	struct test_op t;

	prep(&t, LOOP_FALLOCATE, fd, NULL, 5000, 1000);
	loop_submit(l, &t.op);
	turn_until(l, &t.runs, 1);
	ck_assert_int_eq(t.res, 0);
	ck_assert_int_eq(lseek(fd, 0, SEEK_END), 6000);
	prep(&t, LOOP_FTRUNCATE, fd, NULL, 777, 0);
	loop_submit(l, &t.op);
	turn_until(l, &t.runs, 1);
	ck_assert_int_eq(t.res, 0);
	ck_assert_int_eq(lseek(fd, 0, SEEK_END), 777);
	prep(&t, LOOP_FDATASYNC, fd, NULL, 0, 0);
	loop_submit(l, &t.op);
	ck_assert_int_eq(t.runs, 0);
	turn_until(l, &t.runs, 1);
	ck_assert_int_eq(t.res, 0);
	loop_free(l);
	close(fd);
}
END_TEST

/* More than the ring holds, of a kind that is never done inline. */
START_TEST(a_full_ring_is_not_the_callers_problem)
{
	enum { N = 3000 };
	struct loop *l = scratch_loop(_i);
	int fd = open_scratch(64 * KiB), done = 0;
	struct test_op *t = calloc(N, sizeof(*t));
	char *buf = malloc(N * 16);

	for (int i = 0; i < N; i++) {
		prep(&t[i], LOOP_READV, fd, buf + i * 16, 16, (uint64_t)i * 16);
		t[i].op.direct = true; /* not inline */
		loop_submit(l, &t[i].op);
	}
	while (done < N) {
		ck_assert_int_eq(loop_turn(l, true), 0);
		done = 0;
		for (int i = 0; i < N; i++)
			done += t[i].runs;
	}
	for (int i = 0; i < N; i++) {
		ck_assert_int_eq(t[i].runs, 1);
		ck_assert_int_eq(t[i].res, 16);
	}
	ck_assert(scratch_same(buf, N * 16, 0));
	loop_free(l);
	close(fd);
	free(t);
	free(buf);
}
END_TEST

START_TEST(all_submissions_of_a_turn_enter_with_one_system_call)
{
	struct loop *l = scratch_loop(0);
	int fd = open_scratch(64 * KiB);
	struct test_op t[32];
	char buf[32][16];
	uint64_t before;

	ck_assert_int_eq(loop_turn(l, false), 0);
	for (int i = 0; i < 32; i++) {
		prep(&t[i], LOOP_READV, fd, buf[i], 16, (uint64_t)i * 16);
		t[i].op.direct = true;
		loop_submit(l, &t[i].op);
	}
	/* Without waiting: on some file systems (overlayfs) a wait takes a second one. */
	before = loop_syscalls(l);
	ck_assert_int_eq(loop_turn(l, false), 0);
	ck_assert_int_eq(loop_syscalls(l) - before, 1);
	for (int i = 0; i < 32; i++)
		turn_until(l, &t[i].runs, 1);
	loop_free(l);
	close(fd);
}
END_TEST

struct test_msg {
	struct loop_msg m;
	struct loop *l;
	int nth;
	bool stop;
};

static void msg_fn(struct loop_msg *m)
{
	struct test_msg *t = container_of(m, struct test_msg, m);

	t->nth = order++;
	if (t->stop)
		loop_stop(t->l);
}

static void *poster(void *arg)
{
	struct test_msg *t = arg;

	for (int i = 0; i < 100; i++) {
		t[i].m.fn = msg_fn;
		if (i % 10 == 0)
			usleep(500); /* so that some find the loop asleep */
		loop_post(t[i].l, &t[i].m);
	}
	return NULL;
}

START_TEST(messages_of_a_thread_arrive_once_and_in_order)
{
	struct loop *l = scratch_loop(_i);
	struct test_msg t[2][100];
	pthread_t thread[2];

	order = 0;
	memset(t, 0, sizeof(t));
	for (int k = 0; k < 2; k++) {
		for (int i = 0; i < 100; i++) {
			t[k][i].l = l;
			t[k][i].nth = -1;
		}
		ck_assert_int_eq(pthread_create(&thread[k], NULL, poster, t[k]), 0);
	}
	turn_until(l, &order, 200);
	for (int k = 0; k < 2; k++) {
		pthread_join(thread[k], NULL);
		for (int i = 1; i < 100; i++)
			ck_assert_int_gt(t[k][i].nth, t[k][i - 1].nth);
	}
	ck_assert_int_eq(order, 200);
	loop_free(l);
}
END_TEST

START_TEST(stop_before_run_and_from_a_message_end_it)
{
	struct loop *l = scratch_loop(_i);
	struct test_msg t = {.m.fn = msg_fn, .l = l, .stop = true};

	loop_stop(l);
	ck_assert_int_eq(loop_run(l), 0);
	loop_post(l, &t.m);
	ck_assert_int_eq(loop_run(l), 0);
	loop_free(l);
}
END_TEST

static struct loop *to_stop;

static void on_alarm(int sig)
{
	loop_stop(to_stop);
}

START_TEST(stop_from_a_signal_handler_ends_the_sleep)
{
	struct loop *l = scratch_loop(_i);
	struct sigaction sa = {.sa_handler = on_alarm, .sa_flags = SA_RESTART};

	to_stop = l;
	sigaction(SIGALRM, &sa, NULL);
	ualarm(20000, 0);
	ck_assert_int_eq(loop_run(l), 0);
	loop_free(l);
}
END_TEST

static void *run_loop(void *arg)
{
	ck_assert_int_eq(loop_run(arg), 0);
	return NULL;
}

static void count_poll(struct loop_poll *p)
{
	order++;
	to_stop ? loop_stop(to_stop) : (void)0;
}

/* Opened in one thread, run in another, closed in the first: polls go along. */
START_TEST(a_loop_may_change_its_thread)
{
	struct loop *l = scratch_loop(_i);
	int fd = open_scratch(4096), ev = eventfd(0, EFD_NONBLOCK);
	struct loop_poll p = {.fn = count_poll, .fd = ev, .eventfd = true};
	struct test_op t;
	char buf[4096];
	uint64_t one = 1;
	pthread_t thread;

	for (int k = 0; k < 3; k++) {
		order = 0;
		to_stop = NULL;
		prep(&t, LOOP_FDATASYNC, fd, buf, sizeof(buf), 0);
		loop_submit(l, &t.op);
		turn_until(l, &t.runs, 1);
		if (k == 0)
			ck_assert_int_eq(loop_poll_add(l, &p), 0);
		ck_assert_int_eq(loop_turn(l, false), 0);
		order = 0;
		to_stop = l;
		ck_assert_int_eq(pthread_create(&thread, NULL, run_loop, l), 0);
		usleep(2000);
		ck_assert_int_eq(write(ev, &one, 8), 8);
		pthread_join(thread, NULL);
		ck_assert_int_ge(order, 1);
	}
	loop_poll_del(l, &p);
	loop_free(l);
	close(fd);
	close(ev);
}
END_TEST

START_TEST(an_eventfd_runs_fn_once_for_signals_of_one_turn_and_again_for_later_ones)
{
	struct loop *l = scratch_loop(_i);
	int ev = eventfd(0, EFD_NONBLOCK);
	struct loop_poll p = {.fn = count_poll, .fd = ev, .eventfd = true};
	uint64_t one = 1;

	to_stop = NULL;
	ck_assert_int_eq(loop_poll_add(l, &p), 0);
	for (int i = 0; i < 3; i++)
		ck_assert_int_eq(loop_turn(l, false), 0);
	order = 0;
	for (int k = 1; k <= 50; k++) {
		for (int i = 0; i < 3; i++)
			ck_assert_int_eq(write(ev, &one, 8), 8);
		turn_until(l, &order, k);
		for (int i = 0; i < 3; i++)
			ck_assert_int_eq(loop_turn(l, false), 0);
		ck_assert_int_eq(order, k);
	}
	loop_poll_del(l, &p);
	loop_free(l);
	close(ev);
}
END_TEST

static void read_one(struct loop_poll *p)
{
	char c;

	order++;
	ck_assert_int_eq(read(p->fd, &c, 1), 1);
}

START_TEST(a_pipe_runs_fn_until_all_is_read)
{
	struct loop *l = scratch_loop(_i);
	struct loop_poll p = {.fn = read_one};
	int fd[2];

	ck_assert_int_eq(pipe(fd), 0);
	p.fd = fd[0];
	order = 0;
	ck_assert_int_eq(loop_poll_add(l, &p), 0);
	ck_assert_int_eq(write(fd[1], "abc", 3), 3);
	turn_until(l, &order, 3);
	for (int i = 0; i < 3; i++)
		ck_assert_int_eq(loop_turn(l, false), 0);
	ck_assert_int_eq(order, 3);
	loop_poll_del(l, &p);
	loop_free(l);
	close(fd[0]);
	close(fd[1]);
}
END_TEST

START_TEST(what_is_always_readable_is_so_for_the_loop)
{
	struct loop *l = scratch_loop(_i);
	struct loop_poll p = {.fn = count_poll, .fd = open("/dev/null", O_RDONLY)};

	to_stop = NULL;
	order = 0;
	ck_assert_int_eq(loop_poll_add(l, &p), 0);
	turn_until(l, &order, 3);
	loop_poll_del(l, &p);
	loop_free(l);
	close(p.fd);
}
END_TEST

static struct loop *del_loop;
static struct loop_poll *del_other;

static void del_both(struct loop_poll *p)
{
	order++;
	loop_poll_del(del_loop, p);
	loop_poll_del(del_loop, del_other);
	/* It is ours again: whatever the loop still does with it shows. */
	memset(p, 0xee, sizeof(*p));
}

START_TEST(a_deleted_poll_never_runs_and_its_memory_is_free)
{
	struct loop *l = scratch_loop(_i);
	uint64_t one = 1;

	del_loop = l;
	for (int k = 0; k < 20; k++) {
		int a = eventfd(0, EFD_NONBLOCK), b = eventfd(0, EFD_NONBLOCK);
		struct loop_poll *p = calloc(1, sizeof(*p)), *q = calloc(1, sizeof(*q));

		*p = (struct loop_poll){.fn = del_both, .fd = a, .eventfd = k & 1};
		*q = (struct loop_poll){.fn = del_both, .fd = b, .eventfd = k & 1};
		ck_assert_int_eq(loop_poll_add(l, p), 0);
		ck_assert_int_eq(loop_poll_add(l, q), 0);
		ck_assert_int_eq(loop_turn(l, false), 0);
		order = 0;
		/* Both become ready in one turn; the first to run deletes the other. */
		del_other = q;
		ck_assert_int_eq(write(a, &one, 8), 8);
		if (!(k & 4))
			ck_assert_int_eq(write(b, &one, 8), 8);
		turn_until(l, &order, 1);
		free(p);
		free(q);
		close(a);
		close(b);
		ck_assert_int_eq(loop_turn(l, false), 0);
		ck_assert_int_eq(loop_turn(l, false), 0);
		ck_assert_int_eq(order, 1);
	}
	loop_free(l);
}
END_TEST

struct test_work {
	struct loop_work w;
	struct loop *l;
	int runs, again;
};

static void work_fn(struct loop_work *w)
{
	struct test_work *t = container_of(w, struct test_work, w);

	t->runs++;
	if (t->again-- > 0)
		loop_defer(t->l, w);
}

START_TEST(deferred_work_runs_once_at_the_end_and_the_loop_does_not_sleep_before)
{
	struct loop *l = scratch_loop(_i);
	struct test_work a = {.l = l, .again = 1}, b = {.l = l};

	loop_work_init(&a.w, work_fn);
	loop_work_init(&b.w, work_fn);
	loop_defer(l, &a.w);
	loop_defer(l, &a.w);
	loop_defer(l, &b.w);
	loop_undefer(&b.w);
	ck_assert_int_eq(loop_turn(l, true), 0);
	ck_assert_int_eq(a.runs, 1);
	ck_assert_int_eq(loop_turn(l, true), 0); /* it queued itself */
	ck_assert_int_eq(a.runs, 2);
	ck_assert_int_eq(loop_turn(l, false), 0);
	ck_assert_int_eq(a.runs, 2);
	ck_assert_int_eq(b.runs, 0);
	loop_free(l);
}
END_TEST

struct test_timer {
	struct loop_timer t;
	uint64_t ran_at;
	int nth;
};

static void timer_fn(struct loop_timer *t)
{
	struct test_timer *x = container_of(t, struct test_timer, t);

	x->ran_at = loop_now_ns();
	x->nth = order++;
}

START_TEST(timers_run_in_order_not_early_and_not_when_cancelled)
{
	struct loop *l = scratch_loop(_i);
	struct test_timer t[4] = {0};
	uint64_t now = loop_now_ns();
	static const int at[] = {30, 5, 15, 10};

	order = 0;
	for (int i = 0; i < 4; i++) {
		t[i].t.fn = timer_fn;
		loop_timer_set(l, &t[i].t, now + (uint64_t)at[i] * MS);
	}
	loop_timer_cancel(l, &t[2].t);
	loop_timer_set(l, &t[3].t, now + 8 * MS); /* set again: moves */
	turn_until(l, &order, 3);
	ck_assert_int_eq(t[1].nth, 0);
	ck_assert_int_eq(t[3].nth, 1);
	ck_assert_int_eq(t[0].nth, 2);
	ck_assert_int_eq(t[2].ran_at, 0);
	ck_assert_uint_ge(t[1].ran_at, now + 5 * MS);
	ck_assert_uint_ge(t[3].ran_at, now + 8 * MS);
	ck_assert_uint_ge(t[0].ran_at, now + 30 * MS);
	ck_assert(!t[0].t.armed);
	loop_free(l);
}
END_TEST

START_TEST(an_idle_loop_makes_one_call_and_a_wake_up_one_more)
{
	struct loop *l = scratch_loop(_i);
	struct test_timer t = {.t.fn = timer_fn};
	uint64_t before;

	ck_assert_int_eq(loop_turn(l, false), 0);
	order = 0;
	loop_timer_set(l, &t.t, loop_now_ns() + 30 * MS);
	before = loop_syscalls(l);
	turn_until(l, &order, 1);
	/* The deadline may be met a little early once. */
	ck_assert_int_le(loop_syscalls(l) - before, 2);
	loop_free(l);
}
END_TEST

START_TEST(complete_delivers_later_in_order)
{
	struct loop *l = scratch_loop(_i);
	struct test_op a, b;

	order = 0;
	prep(&a, LOOP_READV, -1, NULL, 0, 0);
	prep(&b, LOOP_READV, -1, NULL, 0, 0);
	loop_complete(l, &a.op, 7);
	loop_complete(l, &b.op, -EIO);
	ck_assert_int_eq(a.runs + b.runs, 0);
	ck_assert_int_eq(loop_turn(l, true), 0);
	ck_assert_int_eq(a.res, 7);
	ck_assert_int_eq(b.res, -EIO);
	ck_assert_int_lt(a.nth, b.nth);
	loop_free(l);
}
END_TEST

/* As containers do it. */
static void forbid_io_uring(void)
{
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_io_uring_setup, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog prog = {.len = ARRAY_SIZE(code), .filter = code};

	ck_assert_int_eq(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
	ck_assert_int_eq(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &prog), 0);
}

START_TEST(auto_is_io_uring_and_threads_where_that_is_forbidden)
{
	struct loop *l;

	ck_assert_int_eq(loop_new(LOOP_AIO_AUTO, &l), 0);
	ck_assert_int_eq(loop_aio(l), LOOP_AIO_URING);
	loop_free(l);
	forbid_io_uring();
	ck_assert_int_eq(loop_new(LOOP_AIO_URING, &l), -EPERM);
	ck_assert_int_eq(loop_new(LOOP_AIO_AUTO, &l), 0);
	ck_assert_int_eq(loop_aio(l), LOOP_AIO_THREADS);
	loop_free(l);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("loop");
	TCase *t = tcase_create("loop");

	tcase_set_timeout(t, 20);
	tcase_add_loop_test(t,
		a_write_and_a_read_give_bytes_and_never_finish_inside_submit, 0, N_AIO);
	tcase_add_loop_test(t, what_a_copying_loop_writes_needs_no_other_thread, 0, N_AIO);
	tcase_add_loop_test(t, an_error_is_the_system_calls_own, 0, N_AIO);
	tcase_add_loop_test(t, fallocate_truncate_and_fdatasync_do_what_they_say, 0, N_AIO);
	tcase_add_loop_test(t, a_full_ring_is_not_the_callers_problem, 0, N_AIO);
	tcase_add_test(t, all_submissions_of_a_turn_enter_with_one_system_call);
	tcase_add_loop_test(t, messages_of_a_thread_arrive_once_and_in_order, 0, N_AIO);
	tcase_add_loop_test(t, stop_before_run_and_from_a_message_end_it, 0, N_AIO);
	tcase_add_loop_test(t, stop_from_a_signal_handler_ends_the_sleep, 0, N_AIO);
	tcase_add_loop_test(t, a_loop_may_change_its_thread, 0, N_AIO);
	tcase_add_loop_test(t,
		an_eventfd_runs_fn_once_for_signals_of_one_turn_and_again_for_later_ones, 0, N_AIO);
	tcase_add_loop_test(t, a_pipe_runs_fn_until_all_is_read, 0, N_AIO);
	tcase_add_loop_test(t, what_is_always_readable_is_so_for_the_loop, 0, N_AIO);
	tcase_add_loop_test(t, a_deleted_poll_never_runs_and_its_memory_is_free, 0, N_AIO);
	tcase_add_loop_test(t,
		deferred_work_runs_once_at_the_end_and_the_loop_does_not_sleep_before, 0, N_AIO);
	tcase_add_loop_test(t, timers_run_in_order_not_early_and_not_when_cancelled, 0, N_AIO);
	tcase_add_loop_test(t, an_idle_loop_makes_one_call_and_a_wake_up_one_more, 0, N_AIO);
	tcase_add_loop_test(t, complete_delivers_later_in_order, 0, N_AIO);
	tcase_add_test(t, auto_is_io_uring_and_threads_where_that_is_forbidden);
	suite_add_tcase(s, t);
	return scratch_main(s);
}
