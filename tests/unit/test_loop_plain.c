/* SPDX-License-Identifier: MIT */
/* test_loop_plain.c - a loop whose engine fails goes on with plain system calls. */
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>
#include "tests/support/test_op.h"

/* What the loop talks to the kernel through is gone: its next enter fails. */
static void break_engine(void)
{
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);

	for (int fd = 3; fd < 64; fd++) {
		char name[32], to[64];
		ssize_t n;

		snprintf(name, sizeof(name), "/proc/self/fd/%d", fd);
		n = readlink(name, to, sizeof(to) - 1);
		to[n > 0 ? n : 0] = 0;
		if (strstr(to, "[io_uring]") || strstr(to, "[eventpoll]"))
			ck_assert_int_eq(dup2(null, fd), fd);
	}
	close(null);
}

struct late_msg {
	struct loop_msg msg;
	int runs;
};

static void late_seen(struct loop_msg *m)
{
	container_of(m, struct late_msg, msg)->runs++;
}

static void never(struct loop_poll *p)
{
	ck_abort_msg("nothing was signalled");
}

static void *post_later(void *arg)
{
	void **a = arg;

	usleep(50000);
	loop_post(a[0], a[1]);
	return NULL;
}

START_TEST(who_waits_when_the_kernel_refuses_is_answered)
{
	struct loop *l = scratch_loop(_i);
	int fd = open_scratch(3 * 4096);
	struct loop_poll p = {.fn = never, .fd = eventfd(0, EFD_CLOEXEC), .eventfd = true};
	struct late_msg m = {.msg.fn = late_seen};
	void *args[] = {l, &m.msg};
	char out[4096], in[4096];
	struct test_op w, s, r;
	pthread_t thread;

	memset(out, 0x5a, sizeof(out));
	ck_assert_int_eq(loop_poll_add(l, &p), 0);
	ck_assert_int_eq(loop_turn(l, false), 0);
	prep(&w, LOOP_WRITEV, fd, out, sizeof(out), 4096);
	w.op.direct = true; /* not inline: through the engine */
	loop_submit(l, &w.op);
	prep(&s, LOOP_FDATASYNC, fd, NULL, 0, 0);
	loop_submit(l, &s.op);
	break_engine();
	ck_assert_int_lt(loop_turn(l, true), 0); /* once */
	turn_until(l, &w.runs, 1);
	turn_until(l, &s.runs, 1);
	ck_assert_int_eq(w.res, 4096);
	ck_assert_int_eq(s.res, 0);
	prep(&r, LOOP_READV, fd, in, sizeof(in), 4096);
	r.op.direct = true;
	loop_submit(l, &r.op);
	turn_until(l, &r.runs, 1);
	ck_assert_int_eq(r.res, 4096);
	ck_assert_mem_eq(in, out, 4096);
	/* It sleeps, and messages wake it. */
	ck_assert_int_eq(pthread_create(&thread, NULL, post_later, args), 0);
	turn_until(l, &m.runs, 1);
	pthread_join(thread, NULL);
	ck_assert_int_lt(loop_syscalls(l), 1000);
	loop_stop(l);
	ck_assert_int_eq(loop_run(l), 0);
	loop_poll_del(l, &p);
	ck_assert_int_eq(w.runs + s.runs + r.runs, 3);
	loop_free(l);
	close(fd);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("loop_plain");
	TCase *t = tcase_create("loop_plain");

	tcase_set_timeout(t, 20);
	tcase_add_loop_test(t, who_waits_when_the_kernel_refuses_is_answered, 0, N_AIO);
	suite_add_tcase(s, t);
	return scratch_main(s);
}
