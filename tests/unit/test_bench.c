/* SPDX-License-Identifier: MIT */
/*
 * test_bench.c - what a guest's lines mean, when a measurement does not count, the arithmetic, and
 * that a child process is read, judged and ended.
 */
#include <check.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "vmm/bench.h"

#define INSTALL                                                                            \
	"guest: install ops=9 reads=2 writes=5 flushes=2 read_kib=8 write_kib=20 usec=1500000"
#define GOOD_END " errors=0 wrong=0\nguest: verify sectors=40 bad=0 first_bad=none\n"

static void feed(struct bench_guest *g, const char *text)
{
	char copy[1024], *save = NULL;

	snprintf(copy, sizeof(copy), "%s", text);
	for (char *l = strtok_r(copy, "\n", &save); l; l = strtok_r(NULL, "\n", &save))
		bench_guest_line(g, l);
}

START_TEST(figures_are_found_by_name)
{
	struct bench_guest g = { 0 };

	feed(&g, "guest: progress percent=40\n" INSTALL GOOD_END "guest: done status=0\r\n");
	ck_assert_uint_eq(g.percent, 40);
	ck_assert_uint_eq(g.ops, 9);
	ck_assert_uint_eq(g.writes, 5);
	ck_assert_uint_eq(g.flushes, 2);
	ck_assert_uint_eq(g.write_kib, 20);
	ck_assert_uint_eq(g.usec, 1500000);
	ck_assert_uint_eq(g.sectors, 40);
	ck_assert_ptr_null(bench_guest_failed(&g));
}
END_TEST

static const struct {
	const char *text, *words;
} failures[] = {
	{ "", "the guest did not finish" },
	{ "guest: progress percent=7\nRAM too small\n", "did not finish: RAM too small" },
	{ INSTALL " errors=0\n", "did not finish" },
	{ INSTALL " errors=3\nguest: done status=1\n", "3 requests failed" },
	{ INSTALL " errors=0 wrong=2\nguest: done status=1\n", "2 reads gave wrong data" },
	{ INSTALL " errors=0\nguest: verify sectors=40 bad=4 first_bad=17\nguest: done status=2\n",
		"4 of 40 sectors read back wrong, first at 17" },
	{ INSTALL GOOD_END "guest: no such word\nguest: done status=4\n",
		"status 4: no such word" },
	{ INSTALL " errors=0\nguest: done status=0\n", "did not report its verification" },
	{ INSTALL " errors=0\nguest: verify sectors=0 bad=0\nguest: done status=0\n",
		"did not report its verification" },
	{ "guest: verify sectors=4 bad=0\nguest: done status=0\n", "did not report its install" },
};

START_TEST(anything_but_a_clean_end_is_a_failure)
{
	struct bench_guest g = { 0 };
	const char *words;

	feed(&g, failures[_i].text);
	words = bench_guest_failed(&g);
	ck_assert_msg(words && strstr(words, failures[_i].words), "got '%s', expected '%s'",
		words ? words : "success", failures[_i].words);
}
END_TEST

START_TEST(garbage_changes_nothing)
{
	struct bench_guest g = { 0 };

	feed(&g, "guest: install usec= writes=-x reads=1e9 flushes=7q ops\nguest:\nguest: \n=\n");
	ck_assert_uint_eq(g.usec + g.writes + g.reads + g.flushes + g.ops, 0);
}
END_TEST

/* A row with these seconds; 0: that one failed. */
static void fill(struct bench_row *r, enum bench_who who, const double *v, unsigned n)
{
	r->samples[who] = calloc(n, sizeof(*r->samples[who]));
	ck_assert_ptr_nonnull(r->samples[who]);
	r->n[who] = n;
	for (unsigned i = 0; i < n; i++) {
		r->samples[who][i].guest.usec = (uint64_t)(v[i] * 1e6);
		if (v[i] <= 0)
			snprintf(r->samples[who][i].failed, 8, "failed");
	}
}

static void near(double got, double expected)
{
	ck_assert_msg(fabs(got - expected) < 1e-6, "got %f, expected %f", got, expected);
}

START_TEST(medians_and_ratios)
{
	static const double raw[] = { 2, 4, 3 }, ours[] = { 9, 3, 6, 12 };
	static const double theirs[] = { 3, 3, 12, 0 };
	static const struct bench_format formats[] = { { .name = "raw" }, { .name = "qcow2" } };
	static const char cache[] = "none";
	struct bench_row rows[2] = {
		{ .format = &formats[0], .cache = cache },
		{ .format = &formats[1], .cache = cache },
	};
	struct bench b = { .rows = rows, .n_rows = 2 };

	fill(&rows[0], BENCH_SLUICE, raw, 3);
	fill(&rows[1], BENCH_SLUICE, ours, 4);
	fill(&rows[1], BENCH_QEMU, theirs, 4);
	near(bench_seconds(&rows[0], BENCH_SLUICE), 3);
	near(bench_seconds(&rows[1], BENCH_SLUICE), 7.5);
	near(bench_min(&rows[1], BENCH_SLUICE), 3);
	near(bench_max(&rows[1], BENCH_SLUICE), 12);
	near(bench_ratio_raw(&b, &rows[1]), 2.5);
	near(bench_ratio_qemu(&rows[1]), 1); /* of 3, 1 and 0.5; the failed pair does not count */
	ck_assert_str_eq(bench_row_failed(&rows[1]), "failed");
	ck_assert_ptr_null(bench_row_failed(&rows[0]));
	rows[0].cache = "other";
	ck_assert(bench_ratio_raw(&b, &rows[1]) < 0);
	for (int i = 0; i < 2; i++)
		for (int who = 0; who < BENCH_WHO; who++)
			free(rows[i].samples[who]);
}
END_TEST

static char heard[4096];

static void hear(void *arg, char *line)
{
	snprintf(heard + strlen(heard), sizeof(heard) - strlen(heard), "[%s]", line);
}

static int shell(const char *script, unsigned timeout_s, struct bench_child *c)
{
	char sh[] = "sh", flag[] = "-c", text[256], *argv[] = { sh, flag, text, NULL };

	snprintf(text, sizeof(text), "%s", script);
	*c = (struct bench_child){ .argv = argv, .timeout_s = timeout_s, .line = hear };
	heard[0] = 0;
	return bench_child_run(c);
}

START_TEST(a_child_is_read_line_by_line)
{
	struct bench_child c;

	ck_assert_int_eq(
		shell("printf 'a\\n\\nb c'; echo bad >&2; echo worse >&2; exit 3", 9, &c), 0);
	ck_assert_str_eq(heard, "[a][][b c]");
	ck_assert_str_eq(c.words, "worse");
	ck_assert_int_eq(c.status, 3);
	ck_assert_int_eq(shell("kill -9 $$", 9, &c), 0);
	ck_assert_int_eq(c.status, 137);
	ck_assert_int_eq(shell("printf '%01500d\\n' 0", 9, &c), 0);
	ck_assert_uint_eq(strlen(heard), 1500 + 4); /* in two pieces */
}
END_TEST

START_TEST(a_child_that_takes_too_long_is_ended)
{
	struct bench_child c;

	ck_assert_int_eq(shell("echo started; exec sleep 60", 1, &c), -ETIMEDOUT);
	ck_assert_str_eq(heard, "[started]");
	ck_assert_int_eq(c.status, 128 + 15);
}
END_TEST

START_TEST(a_child_that_is_no_program_says_so)
{
	char name[] = "no-such-program-here", *argv[] = { name, NULL };
	struct bench_child c = { .argv = argv };

	ck_assert_int_eq(bench_child_run(&c), 0);
	ck_assert_int_eq(c.status, 127);
	ck_assert_str_eq(c.words, "no-such-program-here: No such file or directory");
	ck_assert(!bench_child_exists(name));
	ck_assert(bench_child_exists("sh"));
}
END_TEST

int main(void)
{
	Suite *s = suite_create("bench");
	TCase *tc = tcase_create("bench");
	SRunner *sr = srunner_create(s);
	int failed;

	tcase_set_timeout(tc, 30);
	tcase_add_test(tc, figures_are_found_by_name);
	tcase_add_loop_test(tc, anything_but_a_clean_end_is_a_failure, 0, ARRAY_SIZE(failures));
	tcase_add_test(tc, garbage_changes_nothing);
	tcase_add_test(tc, medians_and_ratios);
	tcase_add_test(tc, a_child_is_read_line_by_line);
	tcase_add_test(tc, a_child_that_takes_too_long_is_ended);
	tcase_add_test(tc, a_child_that_is_no_program_says_so);
	suite_add_tcase(s, tc);
	srunner_run_all(sr, CK_NORMAL);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed != 0;
}
