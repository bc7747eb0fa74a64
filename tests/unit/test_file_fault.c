/* SPDX-License-Identifier: MIT */
/*
 * test_file_fault.c - rules that make operations fail (fault.h).
 */
#include <string.h>
#include "blockdev/file/fault.h"
#include "tests/support/scratch.h"

struct ctx {
	struct loop *l;
	struct file *f;
	const char *path;
};

static void run(int (*fn)(void *arg))
{
	struct ctx c = {.l = scratch_loop(0), .path = scratch_file(8192)};
	struct file *below;

	ck_assert_int_eq(file_open(c.l, c.path, FILE_RDWR, &below, NULL), 0);
	ck_assert_int_eq(fault_open(below, &c.f), 0);
	ck_assert_int_eq(fiber_run(c.l, fn, &c), 0);
	file_close(c.f);
	loop_free(c.l);
}

static char buf[4096];

static int nth_only(void *arg)
{
	struct file *f = ((struct ctx *)arg)->f;
	static struct fault_rule r = {.ops = FAULT_ON(FILE_WRITE), .nth = 2, .err = -EIO};

	fault_add(f, &r);
	ck_assert_int_eq(file_pwrite(f, buf, 512, 0), 0);
	ck_assert_int_eq(file_pread(f, buf, 512, 0), 0); /* another operation does not count */
	ck_assert_int_eq(file_pwrite(f, buf, 512, 0), -EIO);
	ck_assert_int_eq(file_pwrite(f, buf, 512, 0), 0);
	ck_assert_uint_eq(r.matched, 3);
	ck_assert_uint_eq(r.failed, 1);
	fault_remove(&r);
	ck_assert_int_eq(file_pwrite(f, buf, 512, 0), 0);
	ck_assert_uint_eq(r.matched, 3);
	return 0;
}

START_TEST(the_nth_fails)
{
	run(nth_only);
}
END_TEST

static int all_after(void *arg)
{
	struct file *f = ((struct ctx *)arg)->f;
	static struct fault_rule r = {.ops = FAULT_ON(FILE_FDATASYNC) | FAULT_ON(FILE_EXTEND),
		.nth = 2, .and_all_after = true, .err = -ENOSPC};

	fault_add(f, &r);
	ck_assert_int_eq(file_fdatasync(f), 0);
	ck_assert_int_eq(file_extend(f, 0, 10000), -ENOSPC);
	ck_assert_uint_eq(file_size(f), 8192); /* it did not happen */
	ck_assert_int_eq(file_fdatasync(f), -ENOSPC);
	return 0;
}

START_TEST(all_from_the_nth_on_fail)
{
	run(all_after);
}
END_TEST

static int in_range(void *arg)
{
	struct file *f = ((struct ctx *)arg)->f;
	static struct fault_rule r = {.ops = FAULT_ON(FILE_READ) | FAULT_ON(FILE_TRUNCATE),
		.nth = 1,
		.and_all_after = true, .err = -EIO, .off = 1024, .len = 512};

	fault_add(f, &r);
	ck_assert_int_eq(file_pread(f, buf, 1024, 0), 0);
	ck_assert_int_eq(file_pread(f, buf, 512, 1536), 0);
	ck_assert_int_eq(file_pread(f, buf, 1, 1535), -EIO);
	ck_assert_int_eq(file_pread(f, buf, 1025, 0), -EIO);
	ck_assert_int_eq(file_truncate(f, 4096), 0);
	ck_assert_int_eq(file_truncate(f, 1000), -EIO);
	ck_assert_uint_eq(file_size(f), 4096);
	return 0;
}

START_TEST(only_what_touches_the_range_fails)
{
	run(in_range);
}
END_TEST

static int partly(void *arg)
{
	struct ctx *c = arg;
	static struct fault_rule r = {
		.ops = FAULT_ON(FILE_WRITE), .nth = 1, .err = -ENOSPC, .partly = 700};
	struct iovec iov[2] = {{buf, 512}, {buf + 512, 512}};
	char in[1024];

	memset(buf, 0x77, sizeof(buf));
	fault_add(c->f, &r);
	ck_assert_int_eq(file_pwritev(c->f, iov, 2, 1000), -ENOSPC);
	scratch_read(c->path, in, 1024, 1000);
	ck_assert_mem_eq(in, buf, 700);
	ck_assert(scratch_same(in + 700, 324, 1700));
	ck_assert_uint_eq(iov[1].iov_len, 512);
	return 0;
}

START_TEST(a_write_may_be_done_partly)
{
	run(partly);
}
END_TEST

static int done_runs;

static void count_done(struct file_req *r, int err)
{
	ck_assert_int_eq(err, -EIO);
	done_runs++;
}

START_TEST(a_failure_comes_later_not_inside_submit)
{
	struct ctx c = {.l = scratch_loop(0), .path = scratch_file(8192)};
	struct fault_rule r = {.ops = ~0U, .nth = 1, .and_all_after = true, .err = -EIO};
	struct file_req req = {.done = count_done, .op = FILE_FDATASYNC};
	struct file *below;

	ck_assert_int_eq(file_open(c.l, c.path, FILE_RDWR, &below, NULL), 0);
	ck_assert_int_eq(fault_open(below, &c.f), 0);
	fault_add(c.f, &r);
	file_submit(c.f, &req);
	ck_assert_int_eq(done_runs, 0);
	ck_assert_int_eq(loop_turn(c.l, true), 0);
	ck_assert_int_eq(done_runs, 1);
	file_close(c.f);
	loop_free(c.l);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("file fault");
	TCase *t = tcase_create("fault");

	tcase_add_test(t, the_nth_fails);
	tcase_add_test(t, all_from_the_nth_on_fail);
	tcase_add_test(t, only_what_touches_the_range_fails);
	tcase_add_test(t, a_write_may_be_done_partly);
	tcase_add_test(t, a_failure_comes_later_not_inside_submit);
	suite_add_tcase(s, t);
	return scratch_main(s);
}
