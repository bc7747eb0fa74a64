/* SPDX-License-Identifier: MIT */
/*
 * test_crash_trace.c - the log file: what was written is read, up to where it is whole.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>
#include "blockdev/block.h"
#include "blockdev/crash/trace.h"
#include "blockdev/crash/seen.h"
#include "tests/support/scratch.h"

#define N_EVENTS 400
#define DATA_MAX (70 * KiB)

static const struct trace_info info = {.disk_bytes = 8 * MiB,
	.image = "disk.qcow2",
	.format = "qcow2",
	.image_bytes = 123456,
	.fingerprint = 77,
	.unsafe = true};

static struct trace_event sent[N_EVENTS]; /* what was appended, data and all */
static uint64_t seed;

static uint64_t rnd(uint64_t below)
{
	return rng_next(&seed) % below;
}

/* Half of all blocks are zeros or were there before. */
static uint8_t *some_data(uint64_t len)
{
	uint8_t *p = calloc(1, len + 1);

	for (uint64_t at = 0; at < len; at += TRACE_BLOCK) {
		uint64_t n = min_u64(len - at, TRACE_BLOCK), kind = rnd(4);

		if (kind == 1)
			memset(p + at, (int)rnd(3) + 'a', n);
		else if (kind > 1)
			for (uint64_t i = 0; i < n; i++)
				p[at + i] = (uint8_t)rnd(256);
	}
	return p;
}

static struct trace_event some_event(uint64_t tick)
{
	struct trace_event e = {.tick = tick};
	static const uint8_t ops[] = {BLK_WRITE, BLK_WRITE, BLK_FLUSH, BLK_ZEROES, BLK_DISCARD,
		TRACE_WCE_OFF, TRACE_WCE_ON};
	static const uint8_t host_ops[] = {FILE_WRITE, FILE_FDATASYNC, FILE_PUNCH, FILE_TRUNCATE};
	uint64_t open = rnd(tick);

	e.kind = (enum trace_kind)(rnd(5) + 1);
	if ((e.kind == TRACE_GUEST_DONE || e.kind == TRACE_HOST_DONE) &&
		(!open || sent[open - 1].kind != e.kind - 1 || sent[open - 1].other != NEVER))
		e.kind = TRACE_MARK;
	switch (e.kind) {
	case TRACE_GUEST:
		e.op = ops[rnd(ARRAY_SIZE(ops))];
		e.flags = (uint8_t)rnd(8);
		e.off = rnd(1000) * SECTOR;
		e.len = rnd(DATA_MAX / SECTOR) * SECTOR;
		e.other = NEVER;
		break;
	case TRACE_HOST:
		e.op = host_ops[rnd(ARRAY_SIZE(host_ops))];
		e.off = rnd(1u << 30);
		e.len = rnd(DATA_MAX);
		e.other = NEVER;
		if (open && e.op == FILE_WRITE && trace_has_data(&sent[open - 1]) &&
			sent[open - 1].kind == TRACE_GUEST) {
			e.flags = TRACE_SAME;
			e.same = open;
			e.len = sent[open - 1].len;
			e.data = sent[open - 1].data;
		}
		break;
	case TRACE_GUEST_DONE:
	case TRACE_HOST_DONE:
		e.other = open;
		e.flags = (uint8_t)rnd(2) * TRACE_WCE;
		e.err = rnd(4) ? 0 : -EIO;
		sent[open - 1].other = tick;
		sent[open - 1].err = e.err;
		break;
	case TRACE_MARK:
		e.by = (enum trace_by)rnd(N_TRACE_BY);
		e.data = "text of a mark, with\nmore";
		e.len = rnd(25);
		break;
	}
	if (trace_has_data(&e) && !e.data)
		e.data = some_data(e.len);
	return e;
}

/* A log of the events in sent. */
static const char *new_log(uint64_t from_seed)
{
	const char *path = scratch_file(0);
	struct trace_writer *w;
	struct why why = {""};

	seed = from_seed;
	ck_assert_int_eq(trace_writer_open(path, &info, &w, &why), 0);
	for (uint64_t i = 0; i < N_EVENTS; i++) {
		sent[i] = some_event(i + 1);
		ck_assert_uint_eq(trace_writer_append(w, &sent[i]), i + 1);
		if (i % 16 == 15)
			ck_assert_int_eq(trace_writer_flush(w), 0);
	}
	ck_assert_int_eq(trace_writer_close(w), 0);
	return path;
}

static void free_sent(void)
{
	for (uint64_t i = 0; i < N_EVENTS; i++)
		if (trace_has_data(&sent[i]) && !(sent[i].flags & TRACE_SAME))
			free((void *)(uintptr_t)sent[i].data);
}

static struct trace *must_open(const char *path)
{
	struct why why = {""};
	struct trace *t = NULL;
	int err = trace_reader_open(path, &t, &why);

	ck_assert_msg(!err, "%s", why_text(&why, err));
	return t;
}

/* Are these the first events that were sent?  whole: nothing is missing behind them. */
static void compare(struct trace *t, bool whole)
{
	ck_assert_uint_le(t->n_events, N_EVENTS);
	for (uint64_t i = 0; i < t->n_events; i++) {
		const struct trace_event *a = &t->event[i], *b = &sent[i];

		ck_assert_int_eq(a->kind, b->kind);
		ck_assert_uint_eq(a->tick, i + 1);
		ck_assert_int_eq(a->flags, b->flags);
		ck_assert_uint_eq(a->same, b->same);
		ck_assert_int_eq(a->by, b->by);
		ck_assert_uint_eq(a->len, b->kind & 1 ? b->len : sent[b->other - 1].len);
		if (whole || a->other != NEVER) {
			ck_assert_uint_eq(a->other, b->other);
			ck_assert_int_eq(a->err, b->err);
		}
		if (trace_has_data(a))
			ck_assert(!memcmp(trace_data(t, a), b->data, b->len));
		else if (a->kind & 1 && a->kind != TRACE_MARK)
			ck_assert(a->op == b->op && a->off == b->off);
		else if (a->kind == TRACE_MARK)
			ck_assert(!memcmp(a->data, b->data, b->len) && strlen(a->data) == b->len);
	}
}

START_TEST(what_was_written_is_read)
{
	for (uint64_t s = 1; s <= 12; s++) {
		struct trace *t = must_open(new_log(s));

		ck_assert_str_eq(t->info.image, "disk.qcow2");
		ck_assert_str_eq(t->info.format, "qcow2");
		ck_assert_uint_eq(t->info.disk_bytes, info.disk_bytes);
		ck_assert_uint_eq(t->info.image_bytes, info.image_bytes);
		ck_assert_uint_eq(t->info.fingerprint, info.fingerprint);
		ck_assert(t->info.unsafe && !t->info.blank && !t->cut_off);
		ck_assert_uint_eq(t->n_events, N_EVENTS);
		compare(t, true);
		trace_reader_close(t);
		free_sent();
	}
}
END_TEST

START_TEST(a_log_that_was_cut_off_is_read_to_its_last_whole_frame)
{
	const char *path = new_log(3);
	uint64_t before = N_EVENTS;
	struct stat st;

	ck_assert_int_eq(stat(path, &st), 0);
	for (off_t size = st.st_size; size > 200; size -= size / 37 + 1) {
		struct trace *t;

		ck_assert_int_eq(truncate(path, size), 0);
		t = must_open(path);
		ck_assert_uint_le(t->n_events, before);
		before = t->n_events;
		compare(t, false);
		trace_reader_close(t);
	}
	ck_assert_uint_eq(before, 0);
	free_sent();
}
END_TEST

/* One byte another: what is read is a beginning of what was written, or nothing at all. */
START_TEST(a_damaged_log_is_read_up_to_the_damage)
{
	const char *path = new_log(5);
	FILE *f = fopen(path, "r+");
	struct stat st;

	ck_assert(f && !fstat(fileno(f), &st));
	for (unsigned i = 0; i < 300; i++) {
		long at = (long)(i < 56 ? i : rnd((uint64_t)st.st_size));
		struct why why = {""};
		struct trace *t;
		int was;

		fseek(f, at, SEEK_SET);
		was = fgetc(f);
		fseek(f, at, SEEK_SET);
		fputc(was ^ (1 << rnd(8)), f);
		fflush(f);
		if (!trace_reader_open(path, &t, &why)) {
			ck_assert(at < 56 || t->cut_off);
			compare(t, false);
			trace_reader_close(t);
		} else {
			ck_assert_int_lt(at, 56);
			ck_assert(why.text[0]);
		}
		fseek(f, at, SEEK_SET);
		fputc(was, f);
		fflush(f);
	}
	fclose(f);
	free_sent();
}
END_TEST

START_TEST(equal_blocks_are_there_once)
{
	const char *path = scratch_file(0);
	uint8_t *data = malloc(64 * KiB);
	struct trace_event e = {
		.kind = TRACE_GUEST, .op = BLK_WRITE, .len = 64 * KiB, .data = data};
	struct why why = {""};
	struct trace_writer *w;
	struct trace *t;
	struct stat st;

	seed = 9;
	for (uint64_t i = 0; i < 64 * KiB; i++)
		data[i] = (uint8_t)rnd(256);
	ck_assert_int_eq(trace_writer_open(path, &info, &w, &why), 0);
	for (unsigned i = 0; i < 5000; i++)
		trace_writer_append(w, &e);
	ck_assert_int_eq(trace_writer_close(w), 0);
	ck_assert_int_eq(stat(path, &st), 0);
	ck_assert_int_lt(st.st_size, 70 * KiB); /* of 320 MiB */
	t = must_open(path);
	ck_assert_uint_eq(t->n_events, 5000);
	ck_assert(!memcmp(trace_data(t, &t->event[4999]), data, 64 * KiB));
	trace_reader_close(t);
	free(data);
}
END_TEST

/* Their data are more than one chunk and one frame of events. */
START_TEST(large_writes)
{
	const char *path = scratch_file(0);
	uint64_t len = 64 * MiB + SECTOR;
	uint8_t *data = malloc(len);
	struct trace_info large = info;
	struct trace_event e = {.kind = TRACE_GUEST, .op = BLK_WRITE, .len = len, .data = data};
	struct why why = {""};
	struct trace_writer *w;
	struct trace *t;

	large.disk_bytes = 1 * GiB;
	for (uint64_t i = 0; i < len / 8; i++)
		memcpy(data + i * 8, &i, 8);
	ck_assert_int_eq(trace_writer_open(path, &large, &w, &why), 0);
	trace_writer_append(w, &e);
	ck_assert_int_eq(trace_writer_close(w), 0);
	t = must_open(path);
	ck_assert_uint_eq(t->n_events, 1);
	ck_assert(!memcmp(trace_data(t, &t->event[0]), data, len));
	trace_reader_close(t);
	free(data);
}
END_TEST

START_TEST(what_is_no_log_is_left_alone)
{
	const char *path = scratch_file(1000);
	struct why why = {""};
	struct trace_writer *w;
	struct trace *t;
	uint8_t now[1000];

	ck_assert_int_eq(trace_writer_open(path, &info, &w, &why), -EEXIST);
	ck_assert(strstr(why.text, "no log"));
	scratch_read(path, now, sizeof(now), 0);
	ck_assert(scratch_same(now, sizeof(now), 0));
	why.text[0] = '\0';
	ck_assert_int_eq(trace_reader_open(path, &t, &why), -EINVAL);
	ck_assert(strstr(why.text, "no log"));
	ck_assert_int_eq(trace_reader_open("/nonexistent/log", &t, NULL), -ENOENT);
	ck_assert_int_eq(trace_writer_open("/dev/null", &info, &w, NULL), -EINVAL);
	/* A log may be written over. */
	path = new_log(1);
	free_sent();
	ck_assert_int_eq(trace_writer_open(path, &info, &w, NULL), 0);
	ck_assert_int_eq(trace_writer_close(w), 0);
	t = must_open(path);
	ck_assert_uint_eq(t->n_events, 0);
	trace_reader_close(t);
}
END_TEST

START_TEST(a_full_disk_is_told_at_the_end)
{
	struct trace_event e = {.kind = TRACE_GUEST, .op = BLK_FLUSH};
	struct rlimit limit = {200, 200};
	struct trace_writer *w;

	signal(SIGXFSZ, SIG_IGN);
	ck_assert_int_eq(trace_writer_open(scratch_file(0), &info, &w, NULL), 0);
	ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &limit), 0);
	for (uint64_t i = 1; i < 200; i++) {
		e.off = rnd(1000) * SECTOR;
		ck_assert_uint_eq(trace_writer_append(w, &e), i);
	}
	ck_assert_int_eq(trace_writer_flush(w), -EFBIG);
	ck_assert_uint_eq(trace_writer_append(w, &e), 200);
	ck_assert_int_eq(trace_writer_close(w), -EFBIG);
}
END_TEST

START_TEST(as_a_log_for_model_and_oracle)
{
	const char *path = new_log(7);
	struct trace *t = must_open(path);
	struct crash_mark *marks;
	struct crash_log log;
	uint64_t n = 0, n_guest = 0, n_host = 0;

	ck_assert_int_eq(trace_crash_log(t, TRACE_LOG_HOST | TRACE_LOG_DATA, &log, &marks, &n,
				 NULL, NULL),
		0);
	ck_assert_uint_eq(log.clock, N_EVENTS);
	for (uint64_t i = 0; i < log.n_guest; i++) {
		const struct guest_op *g = &log.guest[i];
		const struct trace_event *e = &sent[g->submitted - 1];

		ck_assert(e->kind == TRACE_GUEST && g->acknowledged == e->other);
		ck_assert_int_eq(g->err, e->err);
		ck_assert(g->fua == (e->flags & TRACE_FUA) && g->sector * SECTOR == e->off);
		ck_assert_int_eq(g->wce_at_submit, (e->flags & TRACE_WCE) != 0);
		if (e->other != NEVER)
			ck_assert_int_eq(
				g->wce_at_end, (sent[e->other - 1].flags & TRACE_WCE) != 0);
		ck_assert_int_eq(g->data != NULL, e->op == BLK_WRITE);
		if (g->data)
			ck_assert(!memcmp(g->data, e->data, e->len));
	}
	for (uint64_t i = 0; i < log.n_host; i++) {
		const struct trace_event *e = &sent[log.host[i].submitted - 1];

		ck_assert(e->kind == TRACE_HOST && log.host[i].completed == e->other);
		if (e->op == FILE_WRITE)
			ck_assert(!memcmp(log.host[i].data, e->data, e->len));
	}
	for (uint64_t i = 0; i < N_EVENTS; i++) {
		n_guest += sent[i].kind == TRACE_GUEST;
		n_host += sent[i].kind == TRACE_HOST;
		n -= sent[i].kind == TRACE_MARK;
	}
	ck_assert_uint_eq(n, 0);
	ck_assert_uint_eq(log.n_guest, n_guest);
	ck_assert_uint_eq(log.n_host, n_host);
	crash_log_fini(&log);
	free(marks);
	trace_reader_close(t);
	free_sent();
}
END_TEST

int main(void)
{
	Suite *s = suite_create("crash trace");
	TCase *t = tcase_create("trace");

	tcase_set_timeout(t, 60);
	tcase_add_test(t, what_was_written_is_read);
	tcase_add_test(t, a_log_that_was_cut_off_is_read_to_its_last_whole_frame);
	tcase_add_test(t, a_damaged_log_is_read_up_to_the_damage);
	tcase_add_test(t, equal_blocks_are_there_once);
	tcase_add_test(t, large_writes);
	tcase_add_test(t, what_is_no_log_is_left_alone);
	tcase_add_test(t, a_full_disk_is_told_at_the_end);
	tcase_add_test(t, as_a_log_for_model_and_oracle);
	suite_add_tcase(s, t);
	return scratch_main(s);
}
