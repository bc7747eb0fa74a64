/* SPDX-License-Identifier: MIT */
/*
 * test_qcow2_alloc.c - how far ahead clusters are counted (alloc.c): what a process that dies
 * leaks, and what the first writes after opening cost.
 */
#include <check.h>
#include <stdlib.h>
#include <string.h>
#include "blockdev/block.h"
#include "blockdev/crash/memfile.h"
#include "blockdev/qcow2/format.h"

#define CLUSTER 65536u
#define DISK	(128 * MiB)

struct bed {
	struct loop *l;
	struct mem_image m;
	struct disk *d;
	bool lazy;
};

struct file_arg {
	struct bed *b;
	struct file *f;
	struct qcow2_check res;
};

static int create_fiber(void *arg)
{
	struct file_arg *a = arg;
	struct qcow2_create_opts o = {.size = DISK, .lazy_refcounts = a->b->lazy};

	return qcow2_create(a->f, &o, NULL);
}

static int check_fiber(void *arg)
{
	struct file_arg *a = arg;

	return qcow2_check(a->f, 0, &a->res, NULL);
}

static void disk_up(struct bed *b, enum cache_mode mode)
{
	struct disk_opts o = {.format = "qcow2", .cache = mode};
	struct file *f;

	ck_assert_int_eq(memfile_open(b->l, &b->m, 3, &f), 0);
	ck_assert_int_eq(disk_open_file(f, &o, &b->d, NULL), 0);
}

static void bed_open(struct bed *b, enum cache_mode mode, bool lazy)
{
	struct file_arg a = {.b = b};

	*b = (struct bed){.lazy = lazy};
	ck_assert_int_eq(loop_new(LOOP_AIO_AUTO, &b->l), 0);
	mem_init(&b->m);
	ck_assert_int_eq(memfile_open(b->l, &b->m, 3, &a.f), 0);
	ck_assert_int_eq(fiber_run(b->l, create_fiber, &a), 0);
	file_close(a.f);
	disk_up(b, mode);
}

/* As a process that is killed leaves it. */
static struct qcow2_check die(struct bed *b)
{
	struct file_arg a = {.b = b};

	disk_abandon(b->d);
	ck_assert_int_eq(memfile_open(b->l, &b->m, 3, &a.f), 0);
	ck_assert_int_eq(fiber_run(b->l, check_fiber, &a), 0);
	file_close(a.f);
	return a.res;
}

static void bed_free(struct bed *b)
{
	mem_fini(&b->m);
	loop_free(b->l);
}

/* ---- writers, each a cluster at a time ---- */

static uint8_t data[CLUSTER] __attribute__((aligned(4096)));

struct writer {
	struct blk_req r;
	struct iovec iov;
	struct work *w;
};

struct work {
	struct disk *d;
	uint64_t next, end; /* clusters */
	unsigned busy;
	struct writer writers[32];
};

static void go_on(struct blk_req *r, int err)
{
	struct writer *me = container_of(r, struct writer, r);
	struct work *w = me->w;

	ck_assert_int_eq(err, 0);
	if (w->next == w->end) {
		w->busy--;
		return;
	}
	*r = (struct blk_req){.op = BLK_WRITE,
		.iov = &me->iov,
		.niov = 1,
		.off = w->next++ * CLUSTER,
		.len = CLUSTER,
		.done = go_on};
	disk_submit(w->d, r);
}

static int work_fiber(void *arg)
{
	struct work *w = arg;

	for (unsigned i = 0, n = w->busy; i < n; i++) {
		w->writers[i].w = w;
		w->writers[i].iov = (struct iovec){data, CLUSTER};
		go_on(&w->writers[i].r, 0);
	}
	while (w->busy)
		fiber_yield();
	return 0;
}

/* Clusters [from, end), by so many writers at once. */
static void write_by(struct bed *b, unsigned writers, uint64_t from, uint64_t end)
{
	struct work w = {.d = b->d, .next = from, .end = end, .busy = writers};

	ck_assert_int_eq(fiber_run(b->l, work_fiber, &w), 0);
}

/* ---- */

START_TEST(a_process_that_dies_after_one_write_leaks_nothing)
{
	struct qcow2_check c;
	struct bed b;

	bed_open(&b, _i ? CACHE_WRITETHROUGH : CACHE_WRITEBACK, false);
	write_by(&b, 1, 0, 1);
	c = die(&b);
	ck_assert_uint_eq(c.corruptions, 0);
	/* Written back, the tables still name nothing. */
	ck_assert_uint_eq(c.leaks, _i ? 0 : 2);
	bed_free(&b);
}
END_TEST

START_TEST(one_that_dies_later_leaks_in_proportion)
{
	for (uint64_t n = 2; n < 64; n *= 2) {
		struct qcow2_check c;
		struct bed b;

		bed_open(&b, CACHE_WRITETHROUGH, false);
		write_by(&b, 1, 0, n);
		c = die(&b);
		ck_assert_uint_eq(c.corruptions, 0);
		ck_assert_uint_le(c.leaks, 5 * (n + 2));
		bed_free(&b);
	}
}
END_TEST

/* A program that takes no notice of the dirty mark shall not put data over a table. */
START_TEST(tables_are_counted_with_lazy_refcounts_too)
{
	struct qcow2_check c;
	struct bed b;

	bed_open(&b, CACHE_WRITETHROUGH, true);
	write_by(&b, 1, 0, 1);
	c = die(&b);
	ck_assert_uint_eq(c.leaks, 0);
	ck_assert_uint_eq(c.corruptions, 2); /* the data's count, and the flag that relies on it */
	bed_free(&b);
}
END_TEST

START_TEST(the_first_writes_cost_one_fdatasync_each_and_two_more)
{
	struct disk_stats s;
	struct bed b;

	bed_open(&b, CACHE_WRITETHROUGH, _i);
	write_by(&b, 1, 0, 100);
	disk_stats_get(b.d, &s);
	ck_assert_uint_le(s.host_fdatasyncs, 102);
	ck_assert_int_eq(disk_close(b.d, NULL), 0);
	bed_free(&b);
}
END_TEST

/* One growth serves all who begin together: they share their commits from then on too. */
START_TEST(writers_at_once_do_not_wait_for_a_growth_each)
{
	struct disk_stats s;
	struct bed b;

	bed_open(&b, CACHE_WRITEBACK, false);
	write_by(&b, 16, 0, 16);
	disk_stats_get(b.d, &s);
	ck_assert_uint_le(s.metadata_bytes, 2 * 512); /* the second is ahead */
	ck_assert_int_eq(disk_close(b.d, NULL), 0);
	bed_free(&b);
}
END_TEST

/* Nor does who never flushes count them one by one. */
START_TEST(without_flushes_clusters_are_counted_ahead_soon)
{
	struct disk_stats s;
	struct bed b;

	bed_open(&b, CACHE_UNSAFE, false);
	write_by(&b, 1, 0, 1024);
	disk_stats_get(b.d, &s);
	ck_assert_uint_le(s.metadata_bytes, 32 * 512);
	ck_assert_int_eq(disk_close(b.d, NULL), 0);
	bed_free(&b);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("qcow2_alloc");
	TCase *t = tcase_create("ahead");
	SRunner *r;
	int failed;

	tcase_set_timeout(t, 60);
	tcase_add_loop_test(t, a_process_that_dies_after_one_write_leaks_nothing, 0, 2);
	tcase_add_test(t, one_that_dies_later_leaks_in_proportion);
	tcase_add_test(t, tables_are_counted_with_lazy_refcounts_too);
	tcase_add_loop_test(t, the_first_writes_cost_one_fdatasync_each_and_two_more, 0, 2);
	tcase_add_test(t, writers_at_once_do_not_wait_for_a_growth_each);
	tcase_add_test(t, without_flushes_clusters_are_counted_ahead_soon);
	suite_add_tcase(s, t);
	r = srunner_create(s);
	srunner_run_all(r, CK_NORMAL);
	failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed != 0;
}
