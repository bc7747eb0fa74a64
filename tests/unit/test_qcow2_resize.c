/* SPDX-License-Identifier: MIT */
/*
 * test_qcow2_resize.c - what a larger disk shows behind its old end; and a change of size that
 * fails half way: what the guest is told to be durable afterwards is there after a power cut.
 */
#include <check.h>
#include <string.h>
#include "blockdev/block.h"
#include "blockdev/crash/memfile.h"
#include "blockdev/file/fault.h"
#include "blockdev/qcow2/format.h"

#define CLUSTER 4096u
#define SIZE	(1024 * 1024u)

struct bed {
	struct loop *l;
	struct mem_image m;
	struct file *faulty;
	struct disk *d;
	struct fault_rule rule;
	uint64_t to; /* the new size */
	uint8_t byte;
	bool failed, promised;
};

static int create_fiber(void *f)
{
	struct qcow2_create_opts o = {.size = SIZE, .cluster_size = CLUSTER};

	return qcow2_create(f, &o, NULL);
}

/* The last sector of the disk is written before and after; the resize may fail. */
static int work_fiber(void *arg)
{
	struct bed *b = arg;
	uint8_t buf[SECTOR];
	int err;

	memset(buf, 1, sizeof(buf));
	ck_assert_int_eq(disk_pwrite(b->d, buf, SECTOR, SIZE - SECTOR, 0), 0);
	ck_assert_int_eq(disk_flush(b->d), 0);
	fault_add(b->faulty, &b->rule);
	b->failed = disk_resize(b->d, b->to, PREALLOC_OFF, NULL) != 0;
	fault_remove(&b->rule);
	/* Smaller already: what could not be done was to give back what lies behind. */
	if (!b->failed || disk_size(b->d) < SIZE)
		return 0;
	memset(buf, 2, sizeof(buf));
	err = disk_pwrite(b->d, buf, SECTOR, SIZE - SECTOR, 0);
	if (!err)
		err = disk_flush(b->d);
	b->promised = !err;
	return 0;
}

static int read_fiber(void *arg)
{
	struct bed *b = arg;
	uint8_t buf[SECTOR];
	int err = disk_pread(b->d, buf, SECTOR, SIZE - SECTOR);

	b->byte = buf[0];
	return err;
}

static int abandon_fiber(void *d)
{
	disk_abandon(d);
	return 0;
}

static void bed_open(struct bed *b)
{
	struct disk_opts o = {.format = "qcow2", .unmap = true};
	struct file *f;

	ck_assert_int_eq(loop_new(LOOP_AIO_AUTO, &b->l), 0);
	mem_init(&b->m);
	ck_assert_int_eq(memfile_open(b->l, &b->m, 3, &f), 0);
	ck_assert_int_eq(fiber_run(b->l, create_fiber, f), 0);
	ck_assert_int_eq(fault_open(f, &b->faulty), 0);
	ck_assert_int_eq(disk_open_file(b->faulty, &o, &b->d, NULL), 0);
}

/* The write that many after the resize began fails, with its first sector done or not. */
static void one(uint64_t to, uint64_t nth, uint64_t partly, bool *failed)
{
	struct bed b = {.to = to,
		.rule = {.ops = FAULT_ON(FILE_WRITE), .nth = nth, .err = -EIO, .partly = partly}};
	struct disk_opts o = {.format = "qcow2", .unmap = true};
	struct file *f;

	bed_open(&b);
	ck_assert_int_eq(fiber_run(b.l, work_fiber, &b), 0);
	*failed = b.failed;
	fiber_run(b.l, abandon_fiber, b.d);
	if (b.failed) {
		ck_assert_int_eq(memfile_open(b.l, &b.m, 3, &f), 0);
		ck_assert_int_eq(disk_open_file(f, &o, &b.d, NULL), 0);
		if (b.promised) {
			ck_assert_uint_ge(disk_size(b.d), SIZE);
			ck_assert_int_eq(fiber_run(b.l, read_fiber, &b), 0);
			ck_assert_uint_eq(b.byte, 2);
		}
		ck_assert_int_eq(disk_close(b.d, NULL), 0);
	}
	mem_fini(&b.m);
	loop_free(b.l);
}

static void each_write(uint64_t to)
{
	for (uint64_t partly = 0; partly <= SECTOR; partly += SECTOR) {
		uint64_t n = 1;
		bool failed = true;

		for (; failed; n++)
			one(to, n, partly, &failed);
		ck_assert_uint_gt(n, 2); /* at least one write of it did fail */
	}
}

START_TEST(smaller)
{
	each_write(SIZE / 2);
}
END_TEST

START_TEST(larger)
{
	each_write(2 * SIZE);
}
END_TEST

START_TEST(larger_with_a_larger_table)
{
	each_write(64ULL * SIZE);
}
END_TEST

/* The disk ends in the first of two packed clusters; giving the second back may fail. */
static int packed_fiber(void *arg)
{
	struct bed *b = arg;
	uint8_t buf[2 * CLUSTER];
	uint64_t at = SIZE - sizeof(buf);
	int err;

	memset(buf, 0x5a, sizeof(buf));
	ck_assert_int_eq(disk_pwrite(b->d, buf, sizeof(buf), at, BLK_COMPRESSED), 0);
	ck_assert_int_eq(disk_flush(b->d), 0);
	if (b->rule.err)
		fault_add(b->faulty, &b->rule);
	err = disk_resize(b->d, b->to, PREALLOC_OFF, NULL);
	if (b->rule.err)
		fault_remove(&b->rule);
	ck_assert_int_eq(err, b->rule.err);
	ck_assert_uint_eq(disk_size(b->d), b->to);
	return 0;
}

static int grown_fiber(void *arg)
{
	struct bed *b = arg;
	uint8_t buf[2 * CLUSTER], want[2 * CLUSTER] = {0};

	ck_assert_uint_eq(disk_size(b->d), b->to);
	ck_assert_int_eq(disk_resize(b->d, SIZE, PREALLOC_OFF, NULL), 0);
	ck_assert_int_eq(disk_pread(b->d, buf, sizeof(buf), SIZE - sizeof(buf)), 0);
	memset(want, 0x5a, CLUSTER / 2);
	ck_assert_msg(!memcmp(buf, want, CLUSTER), "%#x behind the old end", buf[CLUSTER / 2]);
	ck_assert_msg(!memcmp(buf + CLUSTER, want + CLUSTER, CLUSTER), "%#x in the next cluster",
		buf[CLUSTER]);
	return 0;
}

START_TEST(packed_data_behind_the_end_does_not_come_back)
{
	struct bed b = {.to = SIZE - 2 * CLUSTER + CLUSTER / 2,
		.rule = {.ops = FAULT_ON(FILE_WRITE), .nth = 2, .and_all_after = true,
			.err = _i ? -EIO : 0}}; /* the header's write is the first */
	struct disk_opts o = {.format = "qcow2", .unmap = true};
	struct file *f;

	bed_open(&b);
	ck_assert_int_eq(fiber_run(b.l, packed_fiber, &b), 0);
	fiber_run(b.l, abandon_fiber, b.d);
	ck_assert_int_eq(memfile_open(b.l, &b.m, 3, &f), 0);
	ck_assert_int_eq(disk_open_file(f, &o, &b.d, NULL), 0);
	ck_assert_int_eq(fiber_run(b.l, grown_fiber, &b), 0);
	ck_assert_int_eq(disk_close(b.d, NULL), 0);
	mem_fini(&b.m);
	loop_free(b.l);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("qcow2 resize");
	TCase *t = tcase_create("errors");
	SRunner *r = srunner_create(s);
	int failed;

	tcase_add_test(t, smaller);
	tcase_add_test(t, larger);
	tcase_add_test(t, larger_with_a_larger_table);
	suite_add_tcase(s, t);
	t = tcase_create("content");
	tcase_add_loop_test(t, packed_data_behind_the_end_does_not_come_back, 0, 2);
	suite_add_tcase(s, t);
	srunner_run_all(r, CK_NORMAL);
	failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed ? 1 : 0;
}
