/* SPDX-License-Identifier: MIT */
/*
 * test_sync.c - host writes and the fdatasyncs that cover them: a failed one is final.
 */
#include <check.h>
#include "blockdev/crash/memfile.h"
#include "blockdev/file/fault.h"
#include "blockdev/sync.h"

static int fail_fiber(void *arg)
{
	struct file *f = arg;
	struct fault_rule rule = {.ops = FAULT_ON(FILE_FDATASYNC), .nth = 1, .err = -EIO};
	struct sync s;
	uint64_t first;

	sync_init(&s, f);
	first = sync_note(&s);
	ck_assert_int_eq(sync_to(&s, first), 0);
	fault_add(f, &rule);
	ck_assert_int_eq(sync_to(&s, sync_note(&s)), -EIO);
	fault_remove(&rule);
	/* The next fdatasync would succeed. */
	ck_assert_int_eq(sync_to(&s, sync_note(&s)), -EIO);
	/* Who asks for what was durable before is about to build on it, and is told, too. */
	ck_assert_int_eq(sync_to(&s, first), -EIO);
	ck_assert_uint_eq(rule.failed, 1);
	return 0;
}

static int give_up_fiber(void *arg)
{
	struct sync s;

	sync_init(&s, arg);
	ck_assert_int_eq(sync_give_up(&s, 0), 0);
	ck_assert_int_eq(sync_to(&s, s.writes), 0);
	ck_assert_int_eq(sync_give_up(&s, -ENOSPC), -ENOSPC);
	ck_assert_int_eq(sync_give_up(&s, -EIO), -EIO);
	ck_assert_int_eq(sync_to(&s, s.writes), -ENOSPC); /* the first one stays */
	return 0;
}

static void on_a_file(int (*fn)(void *file))
{
	struct mem_image m;
	struct loop *l;
	struct file *f, *faulty;

	ck_assert_int_eq(loop_new(LOOP_AIO_AUTO, &l), 0);
	mem_init(&m);
	ck_assert_int_eq(memfile_open(l, &m, 1, &f), 0);
	ck_assert_int_eq(fault_open(f, &faulty), 0);
	ck_assert_int_eq(fiber_run(l, fn, faulty), 0);
	file_close(faulty);
	mem_fini(&m);
	loop_free(l);
}

START_TEST(a_failed_fdatasync_is_final)
{
	on_a_file(fail_fiber);
}
END_TEST

START_TEST(so_is_giving_up)
{
	on_a_file(give_up_fiber);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("sync");
	TCase *t = tcase_create("errors");
	SRunner *r;
	int failed;

	tcase_add_test(t, a_failed_fdatasync_is_final);
	tcase_add_test(t, so_is_giving_up);
	suite_add_tcase(s, t);
	r = srunner_create(s);
	srunner_run_all(r, CK_NORMAL);
	failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed != 0;
}
