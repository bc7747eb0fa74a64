/* SPDX-License-Identifier: MIT */
/*
 * test_log.c - messages are one line each, and words travel with an error.
 */
#include <fcntl.h>
#include <string.h>
#include <unistd.h>
#include "tests/support/scratch.h"
#include "vmm/util/log.h"

static int saved_stderr, reading;

static void catch_stderr(void)
{
	int fd[2];

	ck_assert_int_eq(pipe(fd), 0);
	reading = fd[0];
	fcntl(reading, F_SETFL, O_NONBLOCK);
	saved_stderr = dup(2);
	ck_assert_int_eq(dup2(fd[1], 2), 2);
	close(fd[1]);
}

static const char *caught(void)
{
	static char out[4096];
	ssize_t n;

	ck_assert_int_eq(dup2(saved_stderr, 2), 2);
	n = read(reading, out, sizeof(out) - 1);
	out[n > 0 ? n : 0] = 0;
	return out;
}

START_TEST(a_message_is_a_line_with_its_prefix)
{
	catch_stderr();
	log_error("a.qcow2: %s", "no");
	log_prefix("sluice run");
	log_warn("careful");
	errno = EDOM;
	log_error("b");
	ck_assert_int_eq(errno, EDOM);
	ck_assert_str_eq(caught(), "a.qcow2: no\nsluice run: warning: careful\nsluice run: b\n");
}
END_TEST

START_TEST(only_what_the_level_admits_is_printed)
{
	catch_stderr();
	log_level_set(LOG_ERROR);
	log_warn("x");
	log_level_set(LOG_DEBUG);
	log_info("i");
	log_debug("d");
	ck_assert_str_eq(caught(), "i\ndebug: d\n");
}
END_TEST

START_TEST(hostile_and_long_texts_stay_one_line)
{
	char text[5000];
	const char *out;

	memset(text, 'y', sizeof(text) - 1);
	text[sizeof(text) - 1] = 0;
	text[3] = '\n';
	text[4] = 0x1b;
	catch_stderr();
	log_error("%s", text);
	out = caught();
	ck_assert_int_lt(strlen(out), 2000);
	ck_assert(!strncmp(out, "yyy??y", 6));
	ck_assert_ptr_eq(strchr(out, '\n'), out + strlen(out) - 1);
}
END_TEST

START_TEST(the_first_words_stay_and_without_any_the_error_speaks)
{
	struct why why = {""};

	ck_assert_str_eq(why_text(&why, -ENOSPC), strerror(ENOSPC));
	ck_assert_str_eq(why_text(NULL, -ENOSPC), strerror(ENOSPC));
	ck_assert_int_eq(why_set(&why, -EIO, "cluster %d", 7), -EIO);
	ck_assert_int_eq(why_set(&why, -EINVAL, "later"), -EINVAL);
	ck_assert_str_eq(why_text(&why, -EIO), "cluster 7");
	ck_assert_int_eq(why_set(NULL, -EIO, "nobody asks"), -EIO);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("log");
	TCase *t = tcase_create("log");

	tcase_add_test(t, a_message_is_a_line_with_its_prefix);
	tcase_add_test(t, only_what_the_level_admits_is_printed);
	tcase_add_test(t, hostile_and_long_texts_stay_one_line);
	tcase_add_test(t, the_first_words_stay_and_without_any_the_error_speaks);
	suite_add_tcase(s, t);
	return scratch_main(s);
}
