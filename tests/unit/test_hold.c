/* SPDX-License-Identifier: MIT */
/* test_hold.c - a disk that stands still for a moment, and requests that are kept for later. */
#include <check.h>
#include <string.h>
#include "blockdev/file/fault.h"
#include "tests/support/image.h"
#include "tests/support/scratch.h"

#define BYTES (64 * SECTOR)

struct bed {
	struct loop *l;
	struct file *fault;
	struct disk *d;
};

static void bed_open(struct bed *b, enum on_error write, enum on_error read)
{
	struct disk_opts o = {.path = scratch_file(BYTES),
		.format = "raw",
		.on_write_error = write,
		.on_read_error = read};
	struct file *f;

	b->l = scratch_loop(0);
	ck_assert_int_eq(file_open(b->l, o.path, FILE_RDWR, &f, NULL), 0);
	ck_assert_int_eq(fault_open(f, &b->fault), 0);
	ck_assert_int_eq(disk_open_file(b->fault, &o, &b->d, NULL), 0);
}

static void bed_close(struct bed *b)
{
	ck_assert_int_eq(disk_close(b->d, NULL), 0);
	loop_free(b->l);
}

struct ask {
	struct blk_req r;
	struct iovec iov;
	char buf[SECTOR];
	bool wanted;
	int runs, err;
};

static void ask_done(struct blk_req *r, int err)
{
	struct ask *a = container_of(r, struct ask, r);

	a->runs++;
	a->err = err;
}

static void ask(struct bed *b, struct ask *a, enum blk_op op, bool wanted)
{
	*a = (struct ask){.wanted = wanted, .iov = {a->buf, SECTOR}};
	a->r = (struct blk_req){.done = ask_done, .op = op, .wanted = &a->wanted};
	if (op != BLK_FLUSH) {
		a->r.iov = &a->iov;
		a->r.niov = 1;
		a->r.len = SECTOR;
	}
	disk_submit(b->d, &a->r);
}

/* Until nothing is in flight. */
static void settle(struct bed *b)
{
	disk_drain(b->d);
	ck_assert_int_eq(loop_turn(b->l, false), 0);
}

static struct fault_rule rule_for(enum file_op op, int err)
{
	return (struct fault_rule){
		.ops = FAULT_ON(op), .nth = 1, .and_all_after = true, .err = err};
}

START_TEST(a_write_that_finds_no_room_is_kept_and_tried_again)
{
	struct fault_rule full = rule_for(FILE_WRITE, -ENOSPC);
	struct disk_trouble t;
	struct disk_stats s;
	struct ask a[3];
	struct bed b;

	bed_open(&b, ON_ERROR_ENOSPC, ON_ERROR_REPORT);
	ck_assert_int_eq(disk_kept(b.d), 0);
	fault_add(b.fault, &full);
	for (int i = 0; i < 3; i++)
		ask(&b, &a[i], BLK_WRITE, true);
	settle(&b);
	for (int round = 0; round < 2; round++) {
		ck_assert_int_eq(disk_kept(b.d), -ENOSPC);
		disk_trouble(b.d, &t);
		ck_assert_uint_eq(t.n, 3 * (round + 1));
		ck_assert(t.action == ON_ERROR_STOP && t.op == BLK_WRITE && t.err == -ENOSPC);
		ck_assert_int_eq(a[0].runs + a[1].runs + a[2].runs, 0);
		disk_retry(b.d); /* in vain, the first time */
		settle(&b);
	}
	fault_remove(&full);
	disk_retry(b.d);
	settle(&b);
	for (int i = 0; i < 3; i++)
		ck_assert(a[i].runs == 1 && a[i].err == 0);
	ck_assert_int_eq(disk_kept(b.d), 0);
	disk_stats_get(b.d, &s);
	ck_assert_uint_eq(s.failed, 0);
	ck_assert_uint_eq(s.writes, 3);
	bed_close(&b);
}
END_TEST

START_TEST(what_is_no_longer_wanted_ends_with_its_error)
{
	struct fault_rule full = rule_for(FILE_WRITE, -ENOSPC);
	struct ask a, other, late;
	struct bed b;

	bed_open(&b, ON_ERROR_STOP, ON_ERROR_REPORT);
	fault_add(b.fault, &full);
	ask(&b, &a, BLK_WRITE, true);
	ask(&b, &other, BLK_WRITE, true);
	settle(&b);
	disk_give_up(b.d);
	ck_assert_int_eq(a.runs + other.runs, 0);
	a.wanted = false;
	disk_give_up(b.d);
	ck_assert(a.runs == 1 && a.err == -ENOSPC && other.runs == 0);
	ask(&b, &late, BLK_WRITE, false); /* was not when it failed */
	settle(&b);
	ck_assert(late.runs == 1 && late.err == -ENOSPC);
	other.wanted = false;
	disk_give_up(b.d);
	ck_assert(other.runs == 1 && disk_kept(b.d) == 0);
	fault_remove(&full);
	bed_close(&b);
}
END_TEST

START_TEST(what_becomes_of_an_error_is_what_was_said)
{
	static const struct {
		enum on_error write, read;
		enum blk_op op;
		int err;
		int runs, got; /* of done() */
	} cases[] = {
		{ON_ERROR_REPORT, ON_ERROR_STOP, BLK_WRITE, -ENOSPC, 1, -ENOSPC},
		{ON_ERROR_STOP, ON_ERROR_REPORT, BLK_WRITE, -EIO, 0, 0},
		{ON_ERROR_ENOSPC, ON_ERROR_STOP, BLK_WRITE, -EIO, 1, -EIO},
		{ON_ERROR_ENOSPC, ON_ERROR_STOP, BLK_WRITE, -EDQUOT, 0, 0},
		{ON_ERROR_IGNORE, ON_ERROR_STOP, BLK_WRITE, -EIO, 1, 0},
		{ON_ERROR_STOP, ON_ERROR_REPORT, BLK_READ, -EIO, 1, -EIO},
		{ON_ERROR_REPORT, ON_ERROR_STOP, BLK_READ, -EIO, 0, 0},
		{ON_ERROR_REPORT, ON_ERROR_IGNORE, BLK_READ, -EIO, 1, 0},
	};
	struct fault_rule rule;
	struct ask a;
	struct bed b;

	rule = rule_for(cases[_i].op == BLK_READ ? FILE_READ : FILE_WRITE, cases[_i].err);
	bed_open(&b, cases[_i].write, cases[_i].read);
	fault_add(b.fault, &rule);
	ask(&b, &a, cases[_i].op, true);
	settle(&b);
	ck_assert_int_eq(a.runs, cases[_i].runs);
	ck_assert_int_eq(a.err, cases[_i].got);
	fault_remove(&rule);
	disk_retry(b.d);
	settle(&b);
	ck_assert_int_eq(a.runs, 1);
	bed_close(&b);
}
END_TEST

START_TEST(mistakes_of_the_guest_and_requests_of_others_are_never_kept)
{
	struct fault_rule full = rule_for(FILE_WRITE, -ENOSPC);
	struct disk_trouble t;
	struct ask a;
	struct bed b;

	bed_open(&b, ON_ERROR_STOP, ON_ERROR_STOP);
	ask(&b, &a, BLK_FLUSH, true);
	a.r.op = BLK_READ;
	settle(&b);
	a.r.off = BYTES; /* behind the end */
	a.r.len = SECTOR;
	disk_submit(b.d, &a.r);
	settle(&b);
	ck_assert(a.runs == 2 && a.err == -EINVAL);
	disk_trouble(b.d, &t);
	ck_assert_uint_eq(t.n, 0);
	fault_add(b.fault, &full);
	ask(&b, &a, BLK_WRITE, true);
	settle(&b);
	disk_retry(b.d);
	a.r.wanted = NULL; /* as an owner does that knows nothing of it */
	settle(&b);
	ck_assert(a.runs == 1 && a.err == -ENOSPC);
	fault_remove(&full);
	bed_close(&b);
}
END_TEST

START_TEST(a_flush_that_can_never_succeed_is_no_matter_of_room)
{
	struct fault_rule full = rule_for(FILE_FDATASYNC, -ENOSPC);
	struct ask w, f;
	struct bed b;

	bed_open(&b, ON_ERROR_ENOSPC, ON_ERROR_REPORT);
	fault_add(b.fault, &full);
	ask(&b, &w, BLK_WRITE, true);
	settle(&b);
	ask(&b, &f, BLK_FLUSH, true);
	settle(&b);
	ck_assert(w.err == 0 && f.runs == 1 && f.err == -ENOSPC);
	fault_remove(&full);
	disk_abandon(b.d);
	loop_free(b.l);
}
END_TEST

/* Submits a write, and turns the cache off, while the disk stands still. */
struct intruder {
	struct loop_msg msg;
	struct bed *b;
	struct ask a;
	struct wce_change wce;
	bool early; /* something ended before the size had changed */
	int changes;
};

static void wce_over(struct wce_change *c, int err)
{
	container_of(c, struct intruder, wce)->changes++;
	ck_assert_int_eq(err, 0);
}

static void intrude(struct loop_msg *m)
{
	struct intruder *in = container_of(m, struct intruder, msg);

	in->wce = (struct wce_change){.done = wce_over, .enable = false};
	ask(in->b, &in->a, BLK_WRITE, true);
	disk_set_wce(in->b->d, &in->wce);
	in->early = disk_size(in->b->d) != BYTES;
}

START_TEST(what_comes_while_the_size_changes_waits_for_that)
{
	struct intruder in = {.msg.fn = intrude};
	struct why why = {""};
	struct ask before;
	struct bed b;

	bed_open(&b, ON_ERROR_REPORT, ON_ERROR_REPORT);
	in.b = &b;
	ask(&b, &before, BLK_WRITE, true);
	loop_post(b.l, &in.msg);
	ck_assert_int_eq(disk_online_resize(b.d, 2 * BYTES, &why), 0);
	ck_assert(before.runs == 1 && !in.early);
	settle(&b);
	ck_assert(in.a.runs == 1 && in.a.err == 0 && in.changes == 1 && !disk_wce(b.d));
	ck_assert_uint_eq(disk_size(b.d), 2 * BYTES);
	ck_assert_int_lt(disk_online_snapshot(b.d, SNAPSHOT_CREATE, "x", &why), 0); /* raw */
	ask(&b, &before, BLK_READ, true); /* it goes on */
	settle(&b);
	ck_assert(before.runs == 1 && before.err == 0);
	bed_close(&b);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("hold");
	TCase *tc = tcase_create("hold");

	tcase_add_test(tc, a_write_that_finds_no_room_is_kept_and_tried_again);
	tcase_add_test(tc, what_is_no_longer_wanted_ends_with_its_error);
	tcase_add_loop_test(tc, what_becomes_of_an_error_is_what_was_said, 0, 8);
	tcase_add_test(tc, mistakes_of_the_guest_and_requests_of_others_are_never_kept);
	tcase_add_test(tc, a_flush_that_can_never_succeed_is_no_matter_of_room);
	tcase_add_test(tc, what_comes_while_the_size_changes_waits_for_that);
	suite_add_tcase(s, tc);
	return scratch_main(s);
}
