/* SPDX-License-Identifier: MIT */
/*
 * test_live.c - a disk's personality: what its words mean, where its triggers cut the power, which
 * requests fail, and what a full host refuses.
 */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "blockdev/live/live.h"
#include "tests/support/scratch.h"

#define BLOCK 4096u

struct ctx {
	struct loop *l;
	const char *path;
	struct live_config config;
	struct live *live;
	struct disk *disk;
	unsigned told; /* of a cut */
};

static void on_cut(void *arg)
{
	((struct ctx *)arg)->told++;
}

static void begin(struct ctx *c, const char *path, struct live_words w, enum cache_mode mode)
{
	struct disk_opts o = {.path = path, .format = "raw", .cache = mode, .quiet = true};
	struct why why = {""};
	int err;

	*c = (struct ctx){.l = scratch_loop(0), .path = path};
	err = live_parse(&w, &c->config, &why);
	ck_assert_msg(!err, "%s", why.text);
	ck_assert_int_eq(live_new(&c->config, NULL, &c->live, &why), 0);
	live_on_cut(c->live, on_cut, c);
	o.tap = live_tap(c->live);
	err = disk_open(c->l, &o, &c->disk, &why);
	ck_assert_msg(!err, "%s", why_text(&why, err));
	live_watch(c->live, true);
}

static void end(struct ctx *c)
{
	struct why why = {""};

	live_watch(c->live, false);
	if (live_is_cut(c->live))
		disk_abandon(c->disk);
	else
		ck_assert_int_eq(disk_close(c->disk, &why), 0);
	live_free(c->live);
	loop_free(c->l);
}

/* "w0" writes block 0, "r0" reads it, "z0" writes zeros there, "f" flushes; "w0!" fails. */
struct steps {
	struct ctx *c;
	const char *p;
	int err; /* what a '!' must be */
};

static int steps_main(void *arg)
{
	struct steps *s = arg;
	struct disk *d = s->c->disk;
	uint8_t *buf = file_buf(BLOCK);

	while (*s->p) {
		char op = *s->p++;
		uint64_t off = op == 'f' ? 0 : (uint64_t)(*s->p++ - '0') * BLOCK;
		int err = -EINVAL;

		memset(buf, 'a' + (int)(off / BLOCK), BLOCK);
		if (op == 'w')
			err = disk_pwrite(d, buf, BLOCK, off, 0);
		else if (op == 'W')
			err = disk_pwrite(d, buf, BLOCK, off, BLK_FUA);
		else if (op == 'z')
			err = disk_zeroes(d, BLOCK, off, 0);
		else if (op == 'r')
			err = disk_pread(d, buf, BLOCK, off);
		else if (op == 'f')
			err = disk_flush(d);
		ck_assert_msg(err == (*s->p == '!' ? s->err : 0), "%c before '%s': %d", op, s->p,
			err);
		s->p += *s->p == '!';
		s->p += *s->p == ' ';
	}
	free(buf);
	return 0;
}

static void run(struct ctx *c, const char *steps, int err)
{
	struct steps s = {c, steps, err};

	ck_assert_int_eq(fiber_run(c->l, steps_main, &s), 0);
}

/* What the file holds now, a letter a block; '.': what it held at first, '0': zeros. */
static const char *holds(const char *path, unsigned blocks)
{
	static char text[32];
	uint8_t buf[BLOCK];

	for (unsigned i = 0; i < blocks; i++) {
		uint8_t first;

		scratch_read(path, buf, BLOCK, i * BLOCK);
		first = buf[0];
		text[i] = scratch_same(buf, BLOCK, i * BLOCK) ? '.' : first ? (char)first : '0';
		for (unsigned k = 0; text[i] != '.' && k < BLOCK; k++)
			ck_assert_uint_eq(buf[k], first);
	}
	text[blocks] = 0;
	return text;
}

/* ---- cuts ---- */

static const struct cut_row {
	const char *powercut, *steps;
	enum cache_mode mode;
	const char *none, *all; /* what is there with these policies */
} cut_rows[] = {
	{"flush:2", "w0 f w1 f!", CACHE_WRITEBACK, "a...", "ab.."},
	{"flush:1", "f!", CACHE_WRITEBACK, "....", "...."},
	{"write:3", "w0 f w1 w2 r2! w3! f!", CACHE_WRITEBACK, "a...", "abc."},
	/* Not acknowledged, because it is not durable. */
	{"write:2", "w0 W1!", CACHE_WRITEBACK, "....", "ab.."},
	{"write:2", "w0 w1!", CACHE_WRITETHROUGH, "a...", "ab.."},
	{"byte:4097", "w0 z1 w2!", CACHE_WRITEBACK, "....", "a0.."},
	{"byte:4K", "w0 w1!", CACHE_WRITEBACK, "....", "a..."},
	{"sector:16-23", "w0 w1 r2 w3 w2 r3!", CACHE_WRITEBACK, "....", "abcd"},
	/* Not even what costs nothing is answered. */
	{"after:2", "w0 f f! r0!", CACHE_WRITEBACK, "a...", "a..."},
	{"after:3", "w0 r0 f w1 w2!", CACHE_WRITEBACK, "a...", "ab.."},
};

START_TEST(the_power_fails_where_the_words_say)
{
	const struct cut_row *row = &cut_rows[_i / 2];
	const char *policy = _i % 2 ? "all" : "none";
	struct live_words w = {.powercut = row->powercut, .policy = policy};
	char said[LIVE_LINE], again[LIVE_LINE], expected[LIVE_LINE];
	struct ctx c;

	begin(&c, scratch_file(4 * BLOCK), w, row->mode);
	run(&c, row->steps, -ESHUTDOWN);
	ck_assert(live_is_cut(c.live));
	ck_assert_uint_eq(c.told, 1);
	ck_assert(!live_missed(c.live, said));
	ck_assert_int_eq(live_leave(c.live, c.l, said, again), 0);
	ck_assert_str_eq(holds(c.path, 4), _i % 2 ? row->all : row->none);
	snprintf(expected, sizeof(expected), "powercut=%s,policy=%s,seed=1", row->powercut, policy);
	ck_assert_str_eq(again, expected);
	end(&c);
}
END_TEST

START_TEST(asked_for_it_can_be_repeated)
{
	const char *path = scratch_file(4 * BLOCK), *first;
	struct live_words w = {.powercut = "asked", .policy = "torn", .seed = "5", .tear = "512"};
	char said[LIVE_LINE], again[LIVE_LINE];
	struct ctx c;

	begin(&c, path, w, CACHE_WRITEBACK);
	run(&c, "w0 f w1", 0);
	live_cut(c.live, NULL);
	ck_assert_int_eq(live_leave(c.live, c.l, said, again), 0);
	end(&c);
	ck_assert_ptr_nonnull(strstr(said, "cut with another drive: of 1 writes at risk"));
	ck_assert_str_eq(again, "powercut=asked,policy=torn,seed=5,tear=512");
	path = scratch_file(4 * BLOCK);
	begin(&c, path, w, CACHE_WRITEBACK);
	run(&c, "w0 f w1 w2", 0);
	live_cut(c.live, "by a test");
	ck_assert_int_eq(live_leave(c.live, c.l, said, again), 0);
	end(&c);
	ck_assert_ptr_nonnull(strstr(said, "by a test: of 2 writes at risk"));
	ck_assert_str_eq(again, "powercut=after:4,policy=torn,seed=5,tear=512");
	first = path;
	path = scratch_file(4 * BLOCK);
	w.powercut = "after:4";
	begin(&c, path, w, CACHE_WRITEBACK);
	run(&c, "w0 f w1 w2", 0);
	ck_assert(live_is_cut(c.live));
	ck_assert_int_eq(live_leave(c.live, c.l, said, again), 0);
	end(&c);
	for (unsigned i = 0; i < 4; i++) {
		uint8_t a[BLOCK], b[BLOCK];

		scratch_read(first, a, BLOCK, i * BLOCK);
		scratch_read(path, b, BLOCK, i * BLOCK);
		ck_assert(!memcmp(a, b, BLOCK));
	}
}
END_TEST

START_TEST(without_a_cut_nothing_is_lost)
{
	struct live_words w = {.powercut = "flush:9"};
	char said[LIVE_LINE];
	struct ctx c;

	begin(&c, scratch_file(4 * BLOCK), w, CACHE_WRITEBACK);
	run(&c, "w0 f w1 z2 w3", 0);
	ck_assert(live_missed(c.live, said));
	ck_assert_ptr_nonnull(strstr(said, "4 writes of 16384 bytes, 1 flushes"));
	ck_assert_uint_eq(c.told, 0);
	end(&c);
	ck_assert_str_eq(holds(c.path, 4), "ab0d");
}
END_TEST

START_TEST(marks_and_lines)
{
	struct live_words w = {.powercut = "mark:12"};
	struct ctx c;

	begin(&c, scratch_file(4 * BLOCK), w, CACHE_WRITEBACK);
	ck_assert(live_mark_cuts(c.live, false, "12", 2));
	ck_assert(!live_mark_cuts(c.live, false, "123", 3));
	ck_assert(!live_mark_cuts(c.live, true, "12", 2));
	end(&c);
	w.powercut = "serial:^order [0-9]+ is paid$";
	begin(&c, scratch_file(4 * BLOCK), w, CACHE_WRITEBACK);
	ck_assert(live_mark_cuts(c.live, true, "order 17 is paid, they say", 16));
	ck_assert(!live_mark_cuts(c.live, true, "order 17 is paid, they say", 17));
	ck_assert(!live_mark_cuts(c.live, false, "order 17 is paid", 16));
	end(&c);
}
END_TEST

/* ---- failures ---- */

static const struct {
	const char *fail, *steps, *holds;
} fail_rows[] = {
	{"write:2", "w0 r1 w1! w2 f r2", "a.c."},
	{"read:1+read:3", "r0! r0 w1 r2! r2 f", ".b.."},
	{"flush:2+write:1", "w0! w1 f f! f", ".b.."},
	{"sector:15", "w0 w1! r1! z1! w2 r2 f", "a.c."},
	{"sector:0-8", "w0! r1! w2", "..c."},
};

START_TEST(what_is_to_fail_fails)
{
	struct live_words w = {.fail = fail_rows[_i].fail};
	struct ctx c;

	begin(&c, scratch_file(4 * BLOCK), w, CACHE_WRITEBACK);
	run(&c, fail_rows[_i].steps, -EIO);
	end(&c);
	ck_assert_str_eq(holds(c.path, 4), fail_rows[_i].holds);
}
END_TEST

static void hole(const char *path, uint64_t size)
{
	ck_assert_int_eq(truncate(path, 0), 0);
	ck_assert_int_eq(truncate(path, (off_t)size), 0);
}

START_TEST(a_full_host_takes_no_new_block)
{
	struct live_words w = {.full = "8K", .powercut = _i ? "asked" : NULL};
	const char *path = scratch_file(0);
	struct ctx c;

	hole(path, 4 * BLOCK);
	begin(&c, path, w, CACHE_WRITEBACK);
	run(&c, "w0 w0 w1 w2! w1 r2 w0 f w3! f", -ENOSPC);
	end(&c);
	ck_assert_str_eq(holds(path, 4), "ab00");
	/* What has its place needs no room, and is known from before. */
	w.full = "0";
	begin(&c, path, w, CACHE_WRITEBACK);
	run(&c, "w0 w1 w2! f", -ENOSPC);
	end(&c);
}
END_TEST

START_TEST(a_slow_disk_is_a_disk)
{
	struct live_words w = {.delay = "nvme+flush:2ms", .powercut = _i ? "flush:3" : NULL};
	struct ctx c;

	begin(&c, scratch_file(4 * BLOCK), w, CACHE_WRITETHROUGH);
	run(&c, "w0 r0 f z1 w2 f", 0);
	end(&c);
	ck_assert_str_eq(holds(c.path, 4), "a0c.");
}
END_TEST

/* ---- words ---- */

static const struct {
	struct live_words w;
	const char *complaint; /* NULL: good */
} word_rows[] = {
	{{.powercut = "flush:12", .seed = "18446744073709551615", .policy = "reorder"}, NULL},
	{{.powercut = "byte:3G", .tear = "none"}, NULL},
	{{.powercut = "asked"}, NULL},
	{{.delay = "hdd+flush:20ms+read:0ns"}, NULL},
	{{.fail = "sector:1-2+sector:9+read:1"}, NULL},
	{{.full = "0"}, NULL},
	{{.powercut = ""}, "powercut=: expected"},
	{{.powercut = "never"}, "powercut=never: expected"},
	{{.powercut = "asked2"}, "expected"},
	{{.powercut = "flush:"}, "expected"},
	{{.powercut = "flush:0"}, "expected"},
	{{.powercut = "flush:1K"}, "expected"},
	{{.powercut = "flush:-1"}, "expected"},
	{{.powercut = "write:99999999999999999999"}, "expected"},
	{{.powercut = "byte:99999999999G"}, "expected"},
	{{.powercut = "sector:9-8"}, "expected"},
	{{.powercut = "sector:36028797018963968"}, "expected"},
	{{.powercut = "serial:"}, "expected"},
	{{.powercut = "serial:a(b"}, "serial:a(b: "},
	{{.powercut = "mark:"}, "expected"},
	{{.powercut = "asked", .policy = "some"}, "policy=some: expected none, all"},
	{{.powercut = "asked", .seed = "x"}, "seed=x"},
	{{.powercut = "asked", .tear = "513"}, "tear=513"},
	{{.seed = "7"}, "go with powercut="},
	{{.policy = "torn"}, "go with powercut="},
	{{.delay = "floppy"}, "delay=floppy: expected hdd"},
	{{.delay = "read:1"}, "delay=read:1: "},
	{{.delay = "read:1h"}, "delay=read:1h: "},
	{{.delay = "flush:61s"}, "delay=flush:61s: "},
	{{.delay = "flush:1ms+"}, "delay=: "},
	{{.fail = "write:1+discard:1"}, "fail=discard:1: "},
	{{.fail = "write:0"}, "fail=write:0: "},
	{{.fail = "read:1+read:2+read:3+read:4+read:5+read:6+read:7+read:8+read:9"}, "at most 8"},
	{{.full = "lots"}, "full=lots: "},
};

START_TEST(words_are_understood_or_refused)
{
	struct live_config c;
	struct why why = {""};
	int err = live_parse(&word_rows[_i].w, &c, &why);

	ck_assert_msg((err != 0) == (word_rows[_i].complaint != NULL), "row %d: %s", _i, why.text);
	if (err)
		ck_assert_msg(strstr(why.text, word_rows[_i].complaint) != NULL, "row %d: %s", _i,
			why.text);
	else
		ck_assert(live_wanted(&c));
}
END_TEST

START_TEST(words_say_the_same_again)
{
	struct live_words w = {.powercut = "serial:a,b", .policy = "torn", .seed = "3"};
	struct live_config c;
	struct why why = {""};
	char again[LIVE_LINE];

	ck_assert_int_eq(live_parse(&w, &c, &why), 0);
	live_again(&c, again, sizeof(again));
	ck_assert_str_eq(again, "powercut=serial:a,,b,policy=torn,seed=3,tear=512");
	w = (struct live_words){.powercut = "asked", .tear = "4096"};
	ck_assert_int_eq(live_parse(&w, &c, &why), 0);
	live_again(&c, again, sizeof(again));
	ck_assert_str_eq(again, "powercut=asked,policy=torn,seed=1,tear=4096");
	ck_assert(!live_wanted(&(struct live_config){.seed = 1}));
}
END_TEST

int main(void)
{
	Suite *s = suite_create("live");
	TCase *t = tcase_create("live");

	tcase_add_loop_test(
		t, the_power_fails_where_the_words_say, 0, 2 * (int)ARRAY_SIZE(cut_rows));
	tcase_add_test(t, asked_for_it_can_be_repeated);
	tcase_add_test(t, without_a_cut_nothing_is_lost);
	tcase_add_test(t, marks_and_lines);
	tcase_add_loop_test(t, what_is_to_fail_fails, 0, (int)ARRAY_SIZE(fail_rows));
	tcase_add_loop_test(t, a_full_host_takes_no_new_block, 0, 2);
	tcase_add_loop_test(t, a_slow_disk_is_a_disk, 0, 2);
	tcase_add_loop_test(t, words_are_understood_or_refused, 0, (int)ARRAY_SIZE(word_rows));
	tcase_add_test(t, words_say_the_same_again);
	suite_add_tcase(s, t);
	return scratch_main(s);
}
