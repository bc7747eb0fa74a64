/* SPDX-License-Identifier: MIT */
/*
 * test_crash_record.c - a disk that is recorded: each request and each host operation, in order.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "blockdev/crash/record.h"
#include "blockdev/crash/trace.h"
#include "tests/support/scratch.h"

struct work {
	struct loop *l;
	struct disk *d;
	struct recorder *r;
	struct fiber *f;
	bool over;
};

static void wce_changed(struct wce_change *c, int err)
{
	ck_assert_int_eq(err, 0);
}

/* In a fiber. */
static int work(void *arg)
{
	struct work *w = arg;
	uint8_t *buf = file_buf(64 * KiB);
	struct wce_change off = {.done = wce_changed};
	uint64_t before = disk_size(w->d);

	ck_assert_int_eq(disk_pread(w->d, buf, 4096, 0), 0); /* not recorded */
	memset(buf, 'a', 64 * KiB);
	ck_assert_int_eq(disk_pwrite(w->d, buf, 64 * KiB, 4096, 0), 0);
	recorder_mark(w->r, MARK_BY_PORT, "one", 3);
	ck_assert_int_eq(disk_flush(w->d), 0);
	ck_assert_int_eq(disk_pwrite(w->d, buf, 512, 0, BLK_FUA), 0);
	ck_assert_int_eq(disk_pwrite(w->d, buf, 512, before, 0), -EINVAL); /* neither */
	disk_set_wce(w->d, &off);
	disk_drain(w->d);
	memset(buf, 'b', 512);
	ck_assert_int_eq(disk_pwrite(w->d, buf, 512, 512, 0), 0);
	ck_assert_int_eq(disk_zeroes(w->d, 4096, 8192, BLK_UNMAP), 0);
	free(buf);
	return 0;
}

static struct trace *record(int aio, const char *image, const char *log, uint64_t *finger)
{
	struct loop *l = scratch_loop(aio);
	struct work w = {.l = l};
	struct disk_opts o = {.path = image, .format = "raw"};
	struct why why = {""};
	struct trace *t;
	int err;

	ck_assert_int_eq(recorder_new(log, &w.r, &why), 0);
	o.tap = recorder_tap(w.r);
	ck_assert_int_eq(disk_open(l, &o, &w.d, &why), 0);
	ck_assert_int_eq(recorder_begin(w.r, l, w.d, &why), 0);
	ck_assert_int_eq(fiber_run(l, work, &w), 0);
	ck_assert_int_eq(disk_close(w.d, &why), 0);
	err = recorder_close(w.r, &why);
	ck_assert_msg(!err, "%s", why_text(&why, err));
	ck_assert_int_eq(trace_reader_open(log, &t, &why), 0);
	*finger = t->info.fingerprint;
	loop_free(l);
	return t;
}

static const struct expected {
	enum trace_kind kind;
	unsigned op, flags;
	uint64_t off, len;
} expected[] = {
	{TRACE_GUEST, BLK_WRITE, TRACE_WCE, 4096, 64 * KiB},
	{TRACE_HOST, FILE_WRITE, TRACE_SAME, 4096, 64 * KiB},
	{TRACE_HOST_DONE, FILE_WRITE, 0, 4096, 64 * KiB},
	{TRACE_GUEST_DONE, BLK_WRITE, TRACE_WCE, 4096, 64 * KiB},
	{TRACE_MARK, 0, 0, 0, 3},
	{TRACE_GUEST, BLK_FLUSH, TRACE_WCE, 0, 0},
	{TRACE_HOST, FILE_FDATASYNC, 0, 0, 0},
	{TRACE_HOST_DONE, FILE_FDATASYNC, 0, 0, 0},
	{TRACE_GUEST_DONE, BLK_FLUSH, TRACE_WCE, 0, 0},
	{TRACE_GUEST, BLK_WRITE, TRACE_WCE | TRACE_FUA, 0, 512},
	{TRACE_HOST, FILE_WRITE, TRACE_SAME, 0, 512},
	{TRACE_HOST_DONE, FILE_WRITE, 0, 0, 512},
	{TRACE_HOST, FILE_FDATASYNC, 0, 0, 0},
	{TRACE_HOST_DONE, FILE_FDATASYNC, 0, 0, 0},
	{TRACE_GUEST_DONE, BLK_WRITE, TRACE_WCE, 0, 512},
	{TRACE_GUEST, TRACE_WCE_OFF, TRACE_WCE, 0, 0},
	{TRACE_GUEST_DONE, TRACE_WCE_OFF, 0, 0, 0},
	{TRACE_GUEST, BLK_WRITE, 0, 512, 512},
	{TRACE_HOST, FILE_WRITE, TRACE_SAME, 512, 512},
	{TRACE_HOST_DONE, FILE_WRITE, 0, 512, 512},
	{TRACE_HOST, FILE_FDATASYNC, 0, 0, 0},
	{TRACE_HOST_DONE, FILE_FDATASYNC, 0, 0, 0},
	{TRACE_GUEST_DONE, BLK_WRITE, 0, 512, 512},
	{TRACE_GUEST, BLK_ZEROES, TRACE_UNMAP, 8192, 4096},
	{TRACE_HOST, FILE_WRITE, 0, 8192, 4096},
	{TRACE_HOST_DONE, FILE_WRITE, 0, 8192, 4096},
	{TRACE_HOST, FILE_FDATASYNC, 0, 0, 0},
	{TRACE_HOST_DONE, FILE_FDATASYNC, 0, 0, 0},
	{TRACE_GUEST_DONE, BLK_ZEROES, 0, 8192, 4096},
};

START_TEST(every_event_in_its_place)
{
	uint64_t finger;
	struct trace *t = record(_i, scratch_file(1 * MiB), scratch_file(0), &finger);

	for (uint64_t i = 0; i < ARRAY_SIZE(expected) && i < t->n_events; i++) {
		const struct trace_event *e = &t->event[i];
		const struct expected *x = &expected[i];

		ck_assert_msg(e->kind == x->kind && e->op == x->op && e->flags == x->flags &&
				      e->off == x->off && e->len == x->len && !e->err,
			"event %d: kind %d op %u flags %u off %llu len %llu err %d", (int)i + 1,
			e->kind, e->op, e->flags, (unsigned long long)e->off,
			(unsigned long long)e->len, e->err);
		if (e->kind == TRACE_GUEST && e->op == BLK_WRITE)
			ck_assert_int_eq(*trace_data(t, e), e->off == 512 ? 'b' : 'a');
		if (e->flags & TRACE_SAME)
			ck_assert_ptr_eq(trace_data(t, e), trace_data(t, &t->event[i - 1]));
	}
	ck_assert_uint_eq(t->n_events, ARRAY_SIZE(expected));
	ck_assert_str_eq(t->info.format, "raw");
	ck_assert_uint_eq(t->info.disk_bytes, 1 * MiB);
	ck_assert(!t->info.blank && !t->info.unsafe && !t->cut_off);
	trace_reader_close(t);
}
END_TEST

/* The content decides, not the file. */
START_TEST(the_fingerprint_is_of_what_the_disk_held)
{
	const char *a = scratch_file(1 * MiB), *b = scratch_file(1 * MiB);
	uint64_t fa, fb, again;

	trace_reader_close(record(_i, a, scratch_file(0), &fa));
	trace_reader_close(record(_i, b, scratch_file(0), &fb));
	ck_assert_uint_eq(fa, fb);
	trace_reader_close(record(_i, a, scratch_file(0), &again));
	ck_assert_uint_ne(fa, again);
}
END_TEST

START_TEST(an_image_by_mistake)
{
	const char *image = scratch_file(4096);
	struct recorder *r;
	struct why why = {""};
	uint8_t now[4096];

	ck_assert_int_eq(recorder_new(image, &r, &why), -EEXIST);
	ck_assert(strstr(why.text, "no log"));
	scratch_read(image, now, sizeof(now), 0);
	ck_assert(scratch_same(now, sizeof(now), 0));
}
END_TEST

int main(void)
{
	Suite *s = suite_create("crash record");
	TCase *t = tcase_create("record");

	tcase_add_loop_test(t, every_event_in_its_place, 0, N_AIO);
	tcase_add_loop_test(t, the_fingerprint_is_of_what_the_disk_held, 0, N_AIO);
	tcase_add_test(t, an_image_by_mistake);
	suite_add_tcase(s, t);
	return scratch_main(s);
}
