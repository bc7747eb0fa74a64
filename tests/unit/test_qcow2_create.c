/* SPDX-License-Identifier: MIT */
/*
 * test_qcow2_create.c - new images are whole, or not there.
 */
#include <check.h>
#include <stdlib.h>
#include <string.h>
#include "tests/support/damaged.h"

static struct loop *loop;

static void setup(void)
{
	ck_assert_int_eq(loop_new(LOOP_AIO_THREADS, &loop), 0);
}

static void teardown(void)
{
	loop_free(loop);
}

struct args {
	struct cutfile m;
	struct qcow2_create_opts o;
	struct qcow2_header h;
	struct why why;
};

static int create_fiber(void *arg)
{
	struct args *a = arg;

	return qcow2_create(&a->m.file, &a->o, &a->why);
}

static int header_fiber(void *arg)
{
	struct args *a = arg;

	return qcow2_header_read(&a->m.file, &a->h, &a->why);
}

static const uint64_t sizes[] = {0, 1, 512, 65536, 1 * MiB, 3 * GiB, 31000000000, 60 * GiB};
static const uint32_t clusters[] = {512, 1024, 4096, 65536, 2097152};
static const uint32_t widths[] = {1, 2, 4, 8, 16, 32, 64};

START_TEST(every_geometry_is_consistent)
{
	struct qcow2_check res;

	for (size_t c = 0; c < ARRAY_SIZE(clusters); c++)
		for (size_t s = 0; s < ARRAY_SIZE(sizes); s++) {
			struct args a = {.o = {.size = sizes[s],
						 .cluster_size = clusters[c],
						 .refcount_bits = widths[_i]}};

			cutfile_init(&a.m, loop);
			ck_assert_int_eq(fiber_run(loop, create_fiber, &a), 0);
			ck_assert_int_eq(fiber_run(loop, header_fiber, &a), 0);
			ck_assert_uint_eq(a.h.size, round_up(sizes[s], 512));
			ck_assert_int_eq(qcow2_header_supported(&a.h, true, NULL), 0);
			ck_assert_int_eq(check_run(&a.m, 0, &res, NULL), 0);
			ck_assert_msg(!res.corruptions && !res.leaks, "%u %u: %d %d", clusters[c],
				widths[_i], (int)res.corruptions, (int)res.leaks);
			cutfile_free(&a.m);
		}
}
END_TEST

/* Until the header is written there is no image; from then on everything it names is durable. */
START_TEST(the_header_comes_last)
{
	struct args a = {.o = {.size = 3 * GiB, .cluster_size = 512}};
	struct cutfile base, cut;
	struct qcow2_check res;

	cutfile_init(&base, loop);
	cutfile_init(&a.m, loop);
	cutfile_log(&a.m);
	ck_assert_int_eq(fiber_run(loop, create_fiber, &a), 0);
	ck_assert_int_eq(a.m.log[a.m.n_log - 1].op, FILE_FDATASYNC);
	for (unsigned n = 0; n <= a.m.n_log; n++)
		for (unsigned seed = 0; seed < 24; seed++) {
			cutfile_cut(&cut, &base, &a.m, n, seed);
			if (cut.size >= 512 && mem_be32(&cut, 0) == QCOW2_MAGIC) {
				ck_assert_int_eq(check_run(&cut, 0, &res, NULL), 0);
				ck_assert_uint_eq(res.corruptions + res.leaks, 0);
			}
			cutfile_free(&cut);
		}
	cutfile_free(&a.m);
	cutfile_free(&base);
}
END_TEST

/* On a device an older image's header must not be found over the new one's tables. */
START_TEST(an_older_image_on_a_device_goes_first)
{
	struct args a = {.o = {.size = 8 * MiB, .cluster_size = 512}};
	struct cutfile base, cut;
	struct qcow2_check res;

	cutfile_init(&a.m, loop);
	ck_assert_int_eq(fiber_run(loop, create_fiber, &a), 0);
	mem_resize(&a.m, 8 * MiB);
	cutfile_copy(&base, &a.m);
	a.m.file.is_block = true;
	a.o.size = 1 * MiB;
	cutfile_log(&a.m);
	ck_assert_int_eq(fiber_run(loop, create_fiber, &a), 0);
	for (unsigned n = 0; n <= a.m.n_log; n++)
		for (unsigned seed = 0; seed < 24; seed++) {
			cutfile_cut(&cut, &base, &a.m, n, seed);
			if (mem_be32(&cut, 0) == QCOW2_MAGIC) {
				ck_assert_int_eq(check_run(&cut, 0, &res, NULL), 0);
				ck_assert_uint_eq(res.corruptions + res.leaks, 0);
			}
			cutfile_free(&cut);
		}
	cutfile_free(&a.m);
	cutfile_free(&base);
}
END_TEST

START_TEST(every_failing_write_is_passed_on)
{
	for (int at = 1;; at++) {
		struct args a = {.o = {.size = 100 * MiB, .cluster_size = 512}};
		int err;

		cutfile_init(&a.m, loop);
		a.m.fail_at = at;
		err = fiber_run(loop, create_fiber, &a);
		if (a.m.fail_at) {
			ck_assert_int_eq(err, 0);
			ck_assert_int_gt(at, 5);
			cutfile_free(&a.m);
			return;
		}
		ck_assert_int_eq(err, -EIO);
		cutfile_free(&a.m);
	}
}
END_TEST

START_TEST(what_cannot_be_is_refused_before_the_file_is_touched)
{
	static const struct qcow2_create_opts bad[] = {
		{.size = 1, .cluster_size = 256},
		{.size = 1, .cluster_size = 1000},
		{.size = 1, .cluster_size = 4194304},
		{.size = 1, .refcount_bits = 3},
		{.size = 1, .refcount_bits = 128},
		{.size = 1, .version = 1},
		{.size = 1, .version = 4},
		{.size = 1, .version = 2, .lazy_refcounts = true},
		{.size = 1, .version = 2, .refcount_bits = 8},
		{.size = INT64_MAX},
		{.size = UINT64_MAX},
		{.size = 1ULL << 50, .cluster_size = 512},
	};
	struct args a = {.o = bad[_i]};

	cutfile_init(&a.m, loop);
	cutfile_log(&a.m);
	ck_assert_int_lt(fiber_run(loop, create_fiber, &a), 0);
	ck_assert_str_ne(a.why.text, "");
	ck_assert_uint_eq(a.m.n_log, 0);
	cutfile_free(&a.m);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("qcow2 create");
	TCase *t = tcase_create("create");
	SRunner *r;
	int failed;

	tcase_add_checked_fixture(t, setup, teardown);
	tcase_set_timeout(t, 60);
	tcase_add_loop_test(t, every_geometry_is_consistent, 0, (int)ARRAY_SIZE(widths));
	tcase_add_test(t, the_header_comes_last);
	tcase_add_test(t, an_older_image_on_a_device_goes_first);
	tcase_add_test(t, every_failing_write_is_passed_on);
	tcase_add_loop_test(t, what_cannot_be_is_refused_before_the_file_is_touched, 0, 12);
	suite_add_tcase(s, t);
	r = srunner_create(s);
	srunner_run_all(r, CK_NORMAL);
	failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed ? 1 : 0;
}
