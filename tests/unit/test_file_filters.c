/* SPDX-License-Identifier: MIT */
/*
 * test_file_filters.c - what filters that change nothing hand on: the request as it came.
 */
#include <check.h>
#include <string.h>
#include "blockdev/crash/window.h"
#include "blockdev/file/watch.h"
#include "blockdev/live/slow.h"

/* The end of the stack; it remembers the last request. */
struct bottom {
	struct file f;
	struct file_req last;
};

static void bottom_submit(struct file *f, struct file_req *r)
{
	container_of(f, struct bottom, f)->last = *r;
	file_finish(f, r, 0);
}

static uint64_t bottom_size(struct file *f)
{
	(void)f;
	return MiB;
}

static void bottom_close(struct file *f)
{
	(void)f; /* the test's */
}

static const struct file_ops bottom_ops = {
	.name = "bottom", .submit = bottom_submit, .size = bottom_size, .close = bottom_close};

/* ---- the filters ---- */

static uint64_t submitted(struct file_watch *w, const struct file_req *r)
{
	(void)w;
	return r->off;
}

static void completed(struct file_watch *w, uint64_t number, int err)
{
	(void)w;
	(void)number;
	ck_assert_int_eq(err, 0);
}

static int open_watch(struct file *f, struct file **out)
{
	static struct file_watch w = {submitted, completed};

	return watch_open(f, &w, out);
}

static int open_slow(struct file *f, struct file **out)
{
	return slow_open(f, &(struct slow_delays){1, 1, 1}, out);
}

static int open_window(struct file *f, struct file **out)
{
	return window_pair(f, 0, NULL, out);
}

static const struct {
	const char *name;
	int (*open)(struct file *f, struct file **out);
} filters[] = {{"watch", open_watch}, {"slow", open_slow}, {"window", open_window}};

static const struct file_req requests[] = {
	{.op = FILE_WRITE, .niov = 1, .off = 4096, .len = 512},
	{.op = FILE_FDATASYNC, .here = true},
	{.op = FILE_EXTEND, .off = 8192, .len = 4096},
	{.op = FILE_PUNCH, .how = PUNCH_UNMAP, .off = 4096, .len = 4096},
	{.op = FILE_PUNCH, .how = PUNCH_KEEP, .off = 4096, .len = 4096},
	{.op = FILE_PUNCH, .how = PUNCH_MAY, .off = 4096, .len = 4096},
	{.op = FILE_TRUNCATE, .off = 65536},
};

struct end {
	struct file_req r;
	int left;
};

static void note_end(struct file_req *r, int err)
{
	ck_assert_int_eq(err, 0);
	container_of(r, struct end, r)->left--;
}

START_TEST(a_request_arrives_as_it_was)
{
	for (unsigned i = 0; i < sizeof(requests) / sizeof(requests[0]); i++) {
		uint8_t data[512] = {0};
		struct iovec iov = {data, sizeof(data)};
		struct bottom b = {.f.ops = &bottom_ops};
		struct end e = {requests[i], 1};
		const struct file_req *got = &b.last;
		struct file *f;

		ck_assert_int_eq(loop_new(LOOP_AIO_AUTO, &b.f.loop), 0);
		ck_assert_int_eq(filters[_i].open(&b.f, &f), 0);
		e.r.done = note_end;
		e.r.iov = e.r.niov ? &iov : NULL;
		file_submit(f, &e.r);
		while (e.left)
			ck_assert_int_eq(loop_turn(b.f.loop, true), 0);
		ck_assert_msg(got->op == requests[i].op && got->how == requests[i].how &&
				      got->here == requests[i].here &&
				      got->off == requests[i].off && got->len == requests[i].len &&
				      got->niov == requests[i].niov && got->iov == e.r.iov,
			"%s changes request %u", filters[_i].name, i);
		file_close(f);
		loop_free(b.f.loop);
	}
}
END_TEST

int main(void)
{
	Suite *s = suite_create("file_filters");
	TCase *t = tcase_create("filters");
	SRunner *r;
	int failed;

	tcase_add_loop_test(
		t, a_request_arrives_as_it_was, 0, sizeof(filters) / sizeof(filters[0]));
	suite_add_tcase(s, t);
	r = srunner_create(s);
	srunner_run_all(r, CK_NORMAL);
	failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed != 0;
}
