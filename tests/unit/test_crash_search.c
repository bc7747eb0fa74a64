/* SPDX-License-Identifier: MIT */
/*
 * test_crash_search.c - a command judges the cuts of a guest; what fails is explained.
 *
 * The guest keeps a journal of one: it writes data, then a pointer that says that they are there.
 * With the flush between them every cut is all right; without it one is not, and the search has to
 * name the data that was lost, the pointer that was not, and the place of the missing flush.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "blockdev/crash/search.h"
#include "tests/support/image.h"
#include "tests/support/scratch.h"

#define SIZE (1 * MiB)
/* Byte 0: is there a pointer?  Then sectors 100 to 103 must be full of D. */
#define CHECK                                                                                      \
	"p=$(head -c 1 \"$1\"); [ \"$p\" != P ] || "                                               \
	"[ $(tail -c +51201 {} | head -c 2048 | tr -dc D | wc -c) = 2048 ]"

static uint8_t block_d[4 * SECTOR], block_p[SECTOR], block_x[SECTOR];

static uint64_t begin(struct crash_log *log, uint64_t sector, uint64_t n, const uint8_t *data)
{
	struct guest_op op = {
		.kind = GUEST_WRITE, .wce_at_submit = true, .sector = sector, .n = n, .data = data};

	return crash_log_submit(log, &op);
}

static void write_now(struct crash_log *log, uint64_t sector, uint64_t n, const uint8_t *data)
{
	crash_log_ack(log, begin(log, sector, n, data), true, 0);
}

static void flush(struct crash_log *log)
{
	struct guest_op op = {.kind = GUEST_FLUSH};

	crash_log_ack(log, crash_log_submit(log, &op), true, 0);
}

/* Writes of something else before and after. */
static void guest(struct crash_log *log, bool flushes)
{
	memset(block_d, 'D', sizeof(block_d));
	memset(block_p, 'P', sizeof(block_p));
	memset(block_x, 'x', sizeof(block_x));
	crash_log_init(log);
	write_now(log, 500, 1, block_x);
	flush(log);
	write_now(log, 501, 1, block_x);
	write_now(log, 100, 4, block_d); /* the guest's operation 3 */
	write_now(log, 502, 1, block_x);
	if (flushes)
		flush(log);
	write_now(log, 0, 1, block_p); /* 5, or 6 with the flush */
	write_now(log, 503, 1, block_x);
	flush(log);
}

static struct search_opts opts(const char *start, const char *command)
{
	return (struct search_opts){.check = {.command = command,
					    .start = start,
					    .start_format = "raw",
					    .jobs = 2,
					    .size = SIZE},
		.states = 200,
		.seed = 1,
		.unit = SECTOR,
		.reasons = 5};
}

static const char *new_raw(void)
{
	const char *path = image_path("start.raw");

	image_create_raw(path, SIZE);
	return path;
}

static void search(struct search *s, const struct search_opts *o, const struct crash_log *log)
{
	struct loop *l = scratch_loop(0);
	struct why why = {""};
	int err = search_run(l, s, o, log, &why);

	ck_assert_msg(!err, "%s", why_text(&why, err));
	loop_free(l);
}

START_TEST(with_the_flush_nothing_fails)
{
	struct search_opts o = opts(new_raw(), CHECK);
	struct crash_log log;
	struct search s;

	guest(&log, true);
	search(&s, &o, &log);
	ck_assert_uint_gt(s.states, 15);
	ck_assert_uint_eq(s.failed, 0);
	ck_assert_uint_eq(s.n_reasons, 0);
	search_fini(&s);
	crash_log_fini(&log);
}
END_TEST

static void one_reason(const struct search *s, const struct crash_log *log)
{
	const struct reason *r = s->reason;

	ck_assert_uint_gt(s->failed, 0);
	ck_assert_uint_eq(s->n_reasons, 1);
	ck_assert_uint_eq(s->unexplained, 0);
	ck_assert_uint_eq(r->states, s->failed);
	ck_assert_uint_eq(r->n_lost, 1);
	ck_assert_uint_eq(r->n_kept, 1);
	ck_assert_uint_eq(r->lost[0], 3);
	ck_assert_uint_eq(r->kept[0], 5);
	ck_assert_uint_eq(r->after, 3);
	ck_assert_uint_eq(r->before, 5);
	ck_assert_uint_ge(r->at, log->guest[5].submitted);
	ck_assert_int_eq(r->status, 1);
}

START_TEST(without_it_the_missing_flush_is_named)
{
	const char *start = new_raw();
	struct search_opts o = opts(start, CHECK);
	struct crash_log log;
	struct search s;
	struct stat st;

	guest(&log, false);
	search(&s, &o, &log);
	one_reason(&s, &log);
	search_fini(&s);
	/* Images that the command writes to are made anew. */
	o.check.command = CHECK " || { echo broken >&2; exit 1; }; printf Q | dd of=\"$IMAGE\" "
				"conv=notrunc bs=1 count=1 seek=0 2>/dev/null";
	search(&s, &o, &log);
	one_reason(&s, &log);
	ck_assert_str_eq(s.reason->output, "broken");
	search_fini(&s);
	/* Overlays, one job, other chance. */
	o.check.command =
		"\"${SLUICE:-build/sluice}\" img convert -f qcow2 -O raw {} $SCRATCH/raw &&"
		" set -- \"$SCRATCH/raw\" && p=$(head -c 1 \"$1\"); [ \"$p\" != P ] || "
		"[ $(tail -c +51201 \"$1\" | head -c 2048 | tr -dc D | wc -c) = 2048 ]";
	o.check.overlay = true;
	o.check.jobs = 1;
	o.seed = 99;
	o.states = 60;
	search(&s, &o, &log);
	one_reason(&s, &log);
	search_fini(&s);
	/* The starting image is only ever read. */
	ck_assert_int_eq(stat(start, &st), 0);
	ck_assert_int_eq(st.st_blocks, 0);
	crash_log_fini(&log);
}
END_TEST

/* Of 4096 bytes as one piece, or not torn at all, data are there or not: still lost. */
START_TEST(what_tears)
{
	struct search_opts o =
		opts(new_raw(), "n=$(tail -c +51201 {} | head -c 2048 | tr -dc D | wc -c); "
				"[ $n = 0 ] || [ $n = 2048 ]");
	struct crash_log log;
	struct search s;

	guest(&log, true);
	search(&s, &o, &log);
	ck_assert_uint_gt(s.failed, 0);
	ck_assert_int_eq(s.reason[0].n_lost, 1);
	ck_assert_uint_eq(s.reason[0].lost[0], 3);
	search_fini(&s);
	o.unit = 0;
	search(&s, &o, &log);
	ck_assert_uint_eq(s.failed, 0);
	search_fini(&s);
	crash_log_fini(&log);
}
END_TEST

/* What the guest was told decides: the same image is right before the mark and wrong after it. */
START_TEST(marks)
{
	struct crash_mark mark = {.text = "saved"};
	struct search_opts o = opts(new_raw(), "[ \"$MARK\" != saved ] || "
					       "[ \"$(head -c 1 {})\" = P ]");
	struct crash_log log;
	struct search s;

	guest(&log, true);
	o.marks = &mark;
	o.n_marks = 1;
	mark.at = log.clock;
	search(&s, &o, &log);
	ck_assert_uint_eq(s.failed, 0);
	search_fini(&s);
	/* Too early: the flush is submitted, and not over. */
	mark.at = log.clock - 1;
	search(&s, &o, &log);
	ck_assert_uint_gt(s.failed, 0);
	ck_assert_uint_eq(s.n_reasons, 1);
	ck_assert_uint_eq(s.reason->lost[0], 6);
	ck_assert_uint_eq(s.reason->n_kept, 0);
	ck_assert_uint_eq(s.reason->after, 6);
	ck_assert_uint_eq(s.reason->before, SEARCH_NONE);
	ck_assert_uint_eq(s.reason->mark, 1);
	search_fini(&s);
	crash_log_fini(&log);
}
END_TEST

/* With nothing lost: not a matter of flushes. */
START_TEST(fails_with_nothing_lost)
{
	struct search_opts o = opts(new_raw(), "[ \"$(head -c 1 {})\" != P ]");
	struct crash_log log;
	struct search s;

	guest(&log, true);
	search(&s, &o, &log);
	ck_assert_uint_eq(s.n_reasons, 1);
	ck_assert_uint_eq(s.reason->n_lost, 0);
	ck_assert_uint_eq(s.reason->n_kept, 1);
	ck_assert_uint_eq(s.reason->kept[0], 6);
	ck_assert_uint_eq(s.reason->after, SEARCH_NONE);
	search_fini(&s);
	crash_log_fini(&log);
}
END_TEST

START_TEST(commands_that_do_not_exist)
{
	struct loop *l = scratch_loop(0);
	struct search_opts o = opts(new_raw(), "no-such-command {}");
	struct why why = {""};
	struct crash_log log;
	struct search s;

	guest(&log, true);
	ck_assert_int_eq(search_run(l, &s, &o, &log, &why), -ENOEXEC);
	ck_assert(strstr(why.text, "no-such-command"));
	loop_free(l);
	crash_log_fini(&log);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("crash search");
	TCase *t = tcase_create("search");

	tcase_set_timeout(t, 120);
	tcase_add_test(t, with_the_flush_nothing_fails);
	tcase_add_test(t, without_it_the_missing_flush_is_named);
	tcase_add_test(t, what_tears);
	tcase_add_test(t, marks);
	tcase_add_test(t, fails_with_nothing_lost);
	tcase_add_test(t, commands_that_do_not_exist);
	suite_add_tcase(s, t);
	return scratch_main(s);
}
