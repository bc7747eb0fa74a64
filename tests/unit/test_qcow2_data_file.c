/* SPDX-License-Identifier: MIT */
/*
 * test_qcow2_data_file.c - images whose data lies in an external data file: what is refused, and
 * what happens when the host fails.  Random work on such images: test_qcow2_rw.c; cuts: the rows
 * of the crash explorer.
 */
#include <check.h>
#include <string.h>
#include "blockdev/crash/memfile.h"
#include "blockdev/file/fault.h"
#include "tests/support/image.h"
#include "tests/support/scratch.h"

#define SIZE (1 * MiB)

struct bed {
	struct loop *l;
	struct mem_image image, data;
	struct fault_rule rule; /* of the data file */
	struct disk *d;
	struct why why;
};

static int create_fiber(void *arg)
{
	struct qcow2_create_opts o = {.size = SIZE, .data_file = "data"};

	return qcow2_create(arg, &o, NULL);
}

static void make(struct bed *b)
{
	struct file *f;

	memset(b, 0, sizeof(*b));
	b->l = scratch_loop(0);
	mem_init(&b->image);
	mem_init(&b->data);
	mem_set_size(&b->data, SIZE);
	ck_assert_int_eq(memfile_open(b->l, &b->image, 0, &f), 0);
	ck_assert_int_eq(fiber_run(b->l, create_fiber, f), 0);
	file_close(f);
}

static int open_it(struct bed *b)
{
	struct disk_opts o = {.format = "qcow2", .unmap = true, .quiet = true};
	struct file *f, *data;

	ck_assert_int_eq(memfile_open(b->l, &b->image, 0, &f), 0);
	ck_assert_int_eq(memfile_open(b->l, &b->data, 0, &data), 0);
	ck_assert_int_eq(fault_open(data, &o.data_file), 0);
	if (b->rule.nth)
		fault_add(o.data_file, &b->rule);
	return disk_open_file(f, &o, &b->d, &b->why);
}

static void done(struct bed *b)
{
	mem_fini(&b->image);
	mem_fini(&b->data);
	loop_free(b->l);
}

static int a_flush_fails(void *arg)
{
	struct bed *b = arg;
	char buf[SECTOR] = {1};

	ck_assert_int_eq(disk_pwrite(b->d, buf, SECTOR, 0, 0), 0);
	ck_assert_int_eq(disk_flush(b->d), -EIO);
	/* The host may have dropped the data: nothing after it may count as safe. */
	ck_assert_int_eq(disk_flush(b->d), -EIO);
	ck_assert_int_eq(disk_pwrite(b->d, buf, SECTOR, 0, 0), -EIO);
	return 0;
}

START_TEST(a_failed_fdatasync_of_the_data_file_is_final)
{
	struct bed b;

	make(&b);
	b.rule = (struct fault_rule){.ops = FAULT_ON(FILE_FDATASYNC), .nth = 1, .err = -EIO};
	ck_assert_int_eq(open_it(&b), 0);
	ck_assert_int_eq(fiber_run(b.l, a_flush_fails, &b), 0);
	ck_assert_int_eq(disk_close(b.d, NULL), -EIO);
	done(&b);
}
END_TEST

static int write_first(void *arg)
{
	struct bed *b = arg;
	char buf[SECTOR] = {1};

	return disk_pwrite(b->d, buf, SECTOR, 0, 0);
}

static int read_first(void *arg)
{
	struct bed *b = arg;
	char buf[SECTOR];

	return disk_pread(b->d, buf, SECTOR, 0);
}

START_TEST(an_entry_that_names_another_place_is_broken)
{
	struct qcow2_disk_header h;
	struct bed b;
	be64_t e;

	make(&b);
	ck_assert_int_eq(open_it(&b), 0);
	ck_assert_int_eq(fiber_run(b.l, write_first, &b), 0);
	ck_assert_int_eq(disk_close(b.d, NULL), 0);
	mem_read(&b.image, &h, sizeof(h), 0);
	mem_read(&b.image, &e, sizeof(e), be64_get(h.l1_offset));
	uint64_t l2 = be64_get(e) & QCOW2_OFFSET_MASK;

	mem_read(&b.image, &e, sizeof(e), l2);
	ck_assert_uint_eq(be64_get(e), QCOW2_OFLAG_COPIED);
	e = be64_make(QCOW2_OFLAG_COPIED | 65536);
	mem_write(&b.image, &e, sizeof(e), l2, false);
	ck_assert_int_eq(open_it(&b), 0);
	ck_assert_int_eq(fiber_run(b.l, read_first, &b), -EIO);
	disk_abandon(b.d);
	done(&b);
}
END_TEST

START_TEST(an_image_that_holds_its_data_takes_no_data_file)
{
	struct qcow2_disk_header h;
	struct bed b;

	make(&b);
	mem_read(&b.image, &h, sizeof(h), 0);
	h.incompatible = be64_make(0);
	mem_write(&b.image, &h, sizeof(h), 0, false);
	ck_assert_int_eq(open_it(&b), -EINVAL);
	ck_assert_str_eq(b.why.text,
		"'data-file' can only be set for images with an external data file");
	done(&b);
}
END_TEST

START_TEST(both_files_are_locked)
{
	struct qcow2_create_opts o = {.size = SIZE};
	struct loop *l = scratch_loop(0);
	char image[512], data[512];
	struct why why = {""};
	struct disk *a, *b;
	struct disk_opts p = {.path = image, .format = "qcow2"};

	strcpy(image, image_path("locked.qcow2"));
	strcpy(data, scratch_file(SIZE));
	o.data_file = data;
	image_create_qcow2(l, image, &o);
	ck_assert_int_eq(disk_open(l, &p, &a, &why), 0);
	p = (struct disk_opts){.path = data, .format = "raw"};
	ck_assert_int_lt(disk_open(l, &p, &b, &why), 0);
	ck_assert_ptr_nonnull(strstr(why.text, "lock"));
	ck_assert_int_eq(disk_close(a, NULL), 0);
	loop_free(l);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("qcow2 data file");
	TCase *t = tcase_create("data file");

	tcase_add_test(t, a_failed_fdatasync_of_the_data_file_is_final);
	tcase_add_test(t, an_entry_that_names_another_place_is_broken);
	tcase_add_test(t, an_image_that_holds_its_data_takes_no_data_file);
	tcase_add_test(t, both_files_are_locked);
	suite_add_tcase(s, t);
	return scratch_main(s);
}
