/* SPDX-License-Identifier: MIT */
/* test_overlay.c - a new image over the one that a disk is made of; and one to be thrown away. */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>
#include "blockdev/file/fault.h"
#include "tests/support/image.h"
#include "tests/support/scratch.h"

#define BYTES (4 * MiB)
#define N     64 /* sectors that are written at a time */

static const char *const formats[] = {"raw", "qcow2"};

/* In the place of libc's: how often, and of which directory last. */
static unsigned dir_syncs;
static ino_t dir_synced;

int fsync(int fd)
{
	struct stat st;

	if (!fstat(fd, &st) && S_ISDIR(st.st_mode)) {
		dir_syncs++;
		dir_synced = st.st_ino;
	}
	return (int)syscall(SYS_fsync, fd);
}

struct bed {
	struct loop *l;
	const char *format, *path;
	struct disk_opts now;
	struct disk *d;
	struct file *fault; /* NULL: without */
};

/* Of the few that a test uses each stays. */
static const char *path_of(const char *name)
{
	static char paths[4][256];
	static unsigned n;

	n = (n + 1) % ARRAY_SIZE(paths);
	snprintf(paths[n], sizeof(paths[n]), "%s", image_path(name));
	return paths[n];
}

static void bed_open(struct bed *b, const char *format, bool faulty)
{
	struct qcow2_create_opts q = {.size = BYTES};
	struct file *f;

	*b = (struct bed){.l = scratch_loop(0), .format = format, .path = path_of("base")};
	if (strcmp(format, "raw"))
		image_create_qcow2(b->l, b->path, &q);
	else
		image_create_raw(b->path, BYTES);
	b->now = (struct disk_opts){.path = b->path, .format = format};
	if (!faulty) {
		ck_assert_int_eq(disk_open(b->l, &b->now, &b->d, NULL), 0);
		return;
	}
	ck_assert_int_eq(file_open(b->l, b->path, FILE_RDWR, &f, NULL), 0);
	ck_assert_int_eq(fault_open(f, &b->fault), 0);
	ck_assert_int_eq(disk_open_file(b->fault, &b->now, &b->d, NULL), 0);
}

struct io {
	struct disk *d;
	uint64_t sector, version;
};

static int write_fiber(void *arg)
{
	struct io *io = arg;
	char buf[N * SECTOR];

	pattern_make(buf, io->sector, N, io->version);
	return disk_pwrite(io->d, buf, sizeof(buf), io->sector * SECTOR, 0);
}

static int read_fiber(void *arg)
{
	struct io *io = arg;
	char buf[N * SECTOR];
	uint32_t versions[N];
	int err = disk_pread(io->d, buf, sizeof(buf), io->sector * SECTOR);

	for (int i = 0; i < N; i++)
		versions[i] = (uint32_t)io->version;
	return err ? err : pattern_differs(buf, io->sector, N, versions) ? -EILSEQ : 0;
}

static int flush_fiber(void *arg)
{
	return disk_flush(arg);
}

static void put(struct bed *b, uint64_t sector, uint64_t version)
{
	struct io io = {b->d, sector, version};

	ck_assert_int_eq(fiber_run(b->l, write_fiber, &io), 0);
}

static void holds(struct loop *l, struct disk *d, uint64_t sector, uint64_t version)
{
	struct io io = {d, sector, version};

	ck_assert_int_eq(fiber_run(l, read_fiber, &io), 0);
}

static void image_holds(struct bed *b, const char *path, const char *format, uint64_t sector,
	uint64_t version)
{
	struct disk *d = image_open(b->l, path, format, CACHE_WRITEBACK);

	holds(b->l, d, sector, version);
	ck_assert_int_eq(disk_close(d, NULL), 0);
}

static int put_over(struct bed *b, const char *path, bool create)
{
	struct disk_opts over = {.path = path, .format = "qcow2"};
	struct why why = {""};

	return disk_online_overlay(b->d, &b->now, &over, create, &why);
}

START_TEST(each_layer_keeps_what_was_written_while_it_was_the_top)
{
	const char *over[2] = {path_of("over1"), path_of("over2")};
	uint64_t syncs;
	struct disk_stats s;
	struct bed b;

	bed_open(&b, formats[_i], false);
	put(&b, 0, 1);
	put(&b, 1000, 1);
	disk_stats_get(b.d, &s);
	syncs = s.host_fdatasyncs;
	ck_assert_int_eq(put_over(&b, over[0], true), 0);
	disk_stats_get(b.d, &s);
	ck_assert_uint_gt(s.host_fdatasyncs, syncs); /* what was acknowledged is durable */
	ck_assert_uint_eq(s.writes, 2);
	put(&b, 0, 2);
	b.now = (struct disk_opts){.path = over[0], .format = "qcow2"};
	ck_assert_int_eq(put_over(&b, over[1], true), 0);
	put(&b, 2000, 3);
	holds(b.l, b.d, 0, 2);
	holds(b.l, b.d, 1000, 1);
	holds(b.l, b.d, 2000, 3);
	/* The first flush reaches the new top. */
	disk_stats_get(b.d, &s);
	syncs = s.host_fdatasyncs;
	ck_assert_int_eq(fiber_run(b.l, flush_fiber, b.d), 0);
	disk_stats_get(b.d, &s);
	ck_assert_uint_gt(s.host_fdatasyncs, syncs);
	ck_assert_str_eq(disk_path(b.d), over[1]);
	ck_assert_int_eq(disk_close(b.d, NULL), 0);
	image_holds(&b, b.path, b.format, 0, 1);
	image_holds(&b, b.path, b.format, 2000, 0);
	image_holds(&b, over[0], "qcow2", 0, 2);
	image_holds(&b, over[0], "qcow2", 2000, 0);
	image_holds(&b, over[1], "qcow2", 2000, 3);
	image_holds(&b, over[1], "qcow2", 1000, 1);
	for (int i = 0; i < 2; i++) {
		struct qcow2_check c = image_check(b.l, over[i]);

		ck_assert_uint_eq(c.corruptions + c.leaks, 0);
	}
	loop_free(b.l);
}
END_TEST

START_TEST(the_name_of_an_overlay_is_durable_too)
{
	char dir[256];
	struct stat st;
	struct bed b;

	bed_open(&b, formats[_i], false);
	snprintf(dir, sizeof(dir), "%s", path_of("over"));
	ck_assert_int_eq(put_over(&b, dir, true), 0);
	*strrchr(dir, '/') = 0;
	ck_assert_int_eq(stat(dir, &st), 0);
	ck_assert_uint_eq(dir_syncs, 1);
	ck_assert_uint_eq(dir_synced, st.st_ino);
	ck_assert_int_eq(disk_close(b.d, NULL), 0);
	loop_free(b.l);
}
END_TEST

/* Whoever made it need not have flushed it. */
START_TEST(the_first_flush_reaches_an_overlay_that_was_there)
{
	struct qcow2_create_opts q = {.size = BYTES};
	const char *over = path_of("over");
	struct disk_stats s;
	uint64_t syncs;
	struct bed b;

	bed_open(&b, formats[_i], false);
	put(&b, 0, 1);
	image_create_qcow2(b.l, over, &q);
	ck_assert_int_eq(put_over(&b, over, false), 0);
	disk_stats_get(b.d, &s);
	syncs = s.host_fdatasyncs;
	ck_assert_int_eq(fiber_run(b.l, flush_fiber, b.d), 0);
	disk_stats_get(b.d, &s);
	ck_assert_uint_eq(s.host_fdatasyncs, syncs + 1);
	ck_assert_int_eq(fiber_run(b.l, flush_fiber, b.d), 0);
	disk_stats_get(b.d, &s);
	ck_assert_uint_eq(s.host_fdatasyncs, syncs + 1);
	ck_assert_int_eq(disk_close(b.d, NULL), 0);
	loop_free(b.l);
}
END_TEST

START_TEST(the_image_below_is_read_by_others_and_written_by_nobody)
{
	struct disk_opts o = {.format = formats[_i], .readonly = true};
	struct disk *other;
	struct bed b;

	bed_open(&b, formats[_i], false);
	put(&b, 0, 1);
	ck_assert_int_eq(put_over(&b, path_of("over"), true), 0);
	o.path = b.path;
	ck_assert_int_eq(disk_open(b.l, &o, &other, NULL), 0);
	holds(b.l, other, 0, 1);
	ck_assert_int_eq(disk_close(other, NULL), 0);
	o.readonly = false;
	ck_assert_int_eq(disk_open(b.l, &o, &other, NULL), -EAGAIN);
	ck_assert_int_eq(disk_close(b.d, NULL), 0);
	loop_free(b.l);
}
END_TEST

START_TEST(without_a_flush_of_the_image_there_is_no_overlay)
{
	struct fault_rule rule = {.ops = FAULT_ON(FILE_FDATASYNC), .nth = 1, .err = -EIO};
	const char *over = path_of("over");
	struct bed b;

	bed_open(&b, formats[_i], true);
	put(&b, 0, 1);
	fault_add(b.fault, &rule);
	ck_assert_int_eq(put_over(&b, over, true), -EIO);
	ck_assert_str_eq(disk_path(b.d), b.path);
	ck_assert_int_ne(access(over, F_OK), 0);
	holds(b.l, b.d, 0, 1);
	fault_remove(&rule);
	disk_abandon(b.d);
	loop_free(b.l);
}
END_TEST

START_TEST(what_cannot_be_an_overlay_changes_nothing)
{
	struct qcow2_create_opts small = {.size = BYTES / 2};
	const char *path = path_of("small");
	struct bed b;

	bed_open(&b, formats[_i], false);
	put(&b, 0, 1);
	image_create_qcow2(b.l, path, &small);
	ck_assert_int_eq(put_over(&b, path, false), -EINVAL);
	ck_assert_int_eq(put_over(&b, path, true), -EEXIST);
	ck_assert_int_eq(put_over(&b, "/nonexistent/over", true), -ENOENT);
	ck_assert_int_eq(put_over(&b, b.path, true), -EEXIST);
	ck_assert_int_lt(put_over(&b, b.path, false), 0);
	ck_assert_int_eq(access(path, F_OK), 0);
	put(&b, 0, 2);
	holds(b.l, b.d, 0, 2);
	ck_assert_int_eq(disk_close(b.d, NULL), 0);
	loop_free(b.l);
}
END_TEST

START_TEST(what_is_thrown_away_leaves_the_image_alone)
{
	struct disk_opts o = {.format = formats[_i]};
	struct why why = {""};
	struct disk *d;
	struct bed b;

	bed_open(&b, formats[_i], false);
	put(&b, 0, 1);
	ck_assert_int_eq(disk_close(b.d, NULL), 0);
	o.path = b.path;
	ck_assert_int_eq(disk_open_throwaway(b.l, &o, &d, &why), 0);
	b.d = d;
	ck_assert_int_ne(access(disk_path(d), F_OK), 0);
	holds(b.l, d, 0, 1);
	put(&b, 0, 2);
	holds(b.l, d, 0, 2);
	ck_assert_int_eq(fiber_run(b.l, flush_fiber, d), 0);
	ck_assert_int_eq(disk_close(d, NULL), 0);
	image_holds(&b, b.path, b.format, 0, 1);
	setenv("TMPDIR", "/nonexistent", 1);
	ck_assert_int_eq(disk_open_throwaway(b.l, &o, &d, &why), -ENOENT);
	loop_free(b.l);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("overlay");
	TCase *tc = tcase_create("overlay");

	tcase_add_loop_test(tc, each_layer_keeps_what_was_written_while_it_was_the_top, 0, 2);
	tcase_add_loop_test(tc, the_name_of_an_overlay_is_durable_too, 0, 2);
	tcase_add_loop_test(tc, the_first_flush_reaches_an_overlay_that_was_there, 0, 2);
	tcase_add_loop_test(tc, the_image_below_is_read_by_others_and_written_by_nobody, 0, 2);
	tcase_add_loop_test(tc, without_a_flush_of_the_image_there_is_no_overlay, 0, 2);
	tcase_add_loop_test(tc, what_cannot_be_an_overlay_changes_nothing, 0, 2);
	tcase_add_loop_test(tc, what_is_thrown_away_leaves_the_image_alone, 0, 2);
	suite_add_tcase(s, tc);
	return scratch_main(s);
}
