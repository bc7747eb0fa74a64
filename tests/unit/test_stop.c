/* SPDX-License-Identifier: MIT */
/* test_stop.c - which signal ends cleanly, and which at once. */
#include <check.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <unistd.h>
#include "tests/support/scratch.h"
#include "vmm/stop.h"

static int fd;

static void setup(void)
{
	fd = eventfd(0, EFD_NONBLOCK);
	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(stop_watch(fd, NULL), 0);
}

static uint64_t woken(void)
{
	uint64_t n = 0;

	return read(fd, &n, sizeof(n)) == sizeof(n) ? n : 0;
}

START_TEST(the_first_signal_wakes_and_is_remembered)
{
	ck_assert_int_eq(stop_signal(), 0);
	raise(SIGTERM);
	ck_assert_int_eq(stop_signal(), SIGTERM);
	ck_assert_uint_eq(woken(), 1);
}
END_TEST

START_TEST(one_that_follows_at_once_is_the_same_wish)
{
	raise(SIGTERM);
	raise(SIGTERM);
	raise(SIGINT);
	ck_assert_int_eq(stop_signal(), SIGTERM);
	ck_assert_uint_eq(woken(), 1);
}
END_TEST

/* Exits with 128 + SIGINT. */
START_TEST(a_later_one_forces_the_end)
{
	raise(SIGTERM);
	usleep(600000);
	raise(SIGINT);
	ck_abort_msg("still there");
}
END_TEST

START_TEST(a_key_is_like_sigint)
{
	stop_request();
	stop_request();
	ck_assert_int_eq(stop_signal(), SIGINT);
	ck_assert_uint_eq(woken(), 1);
}
END_TEST

START_TEST(nobody_is_woken_after_unwatch)
{
	stop_unwatch();
	raise(SIGTERM);
	ck_assert_int_eq(stop_signal(), SIGTERM);
	ck_assert_uint_eq(woken(), 0);
}
END_TEST

START_TEST(what_was_ignored_stays_ignored)
{
	signal(SIGHUP, SIG_IGN);
	ck_assert_int_eq(stop_watch(fd, NULL), 0);
	raise(SIGHUP);
	/* setup() had taken it before; a second look must not take it again. */
	ck_assert_int_eq(stop_signal(), 0);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("stop");
	TCase *tc = tcase_create("stop");

	tcase_add_checked_fixture(tc, setup, NULL);
	tcase_add_test(tc, the_first_signal_wakes_and_is_remembered);
	tcase_add_test(tc, one_that_follows_at_once_is_the_same_wish);
	tcase_add_exit_test(tc, a_later_one_forces_the_end, 128 + SIGINT);
	tcase_add_test(tc, a_key_is_like_sigint);
	tcase_add_test(tc, nobody_is_woken_after_unwatch);
	tcase_add_test(tc, what_was_ignored_stays_ignored);
	suite_add_tcase(s, tc);
	return scratch_main(s);
}
