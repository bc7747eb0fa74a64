/* SPDX-License-Identifier: MIT */
/*
 * test_qcow2_cache.c - what of the metadata caches leaves memory, and what stays.
 */
#include <check.h>
#include <stdlib.h>
#include "blockdev/crash/memfile.h"
#include "blockdev/qcow2/cache.h"

struct job {
	struct cache c;
	uint32_t slice;
};

static int nothing(void *arg)
{
	return 0;
}

static void use(struct cache *c, uint64_t off, bool dirty)
{
	struct slice *s;

	ck_assert_int_eq(cache_get_rw(c, off, &s), 0);
	if (dirty)
		cache_dirty(c, s, 0, 8, 0);
	cache_put(c, &s);
}

static int clean_fiber(void *arg)
{
	struct job *j = arg;
	struct slice *held;

	for (uint64_t i = 1; i <= 4; i++)
		use(&j->c, i * j->slice, i == 3);
	ck_assert_int_eq(cache_get(&j->c, 4 * j->slice, &held), 0);
	cache_clean(&j->c); /* all of it was used */
	ck_assert_ptr_nonnull(cache_peek(&j->c, j->slice));
	cache_clean(&j->c);
	ck_assert_ptr_nonnull(cache_peek(&j->c, j->slice));
	ck_assert_ptr_null(cache_peek(&j->c, 2 * j->slice));
	ck_assert_ptr_nonnull(cache_peek(&j->c, 3 * j->slice)); /* dirty */
	ck_assert_ptr_nonnull(cache_peek(&j->c, 4 * j->slice)); /* borrowed */
	cache_put(&j->c, &held);
	use(&j->c, 2 * j->slice, false); /* and comes back as the file has it */
	ck_assert_uint_eq(cache_peek(&j->c, 2 * j->slice)->data[0], 2);
	return 0;
}

static int zeros_fiber(void *arg)
{
	struct job *j = arg;

	cache_put_zeros(&j->c, 2 * j->slice + 8);
	use(&j->c, 2 * j->slice, true);
	ck_assert_uint_eq(j->c.misses, 0);
	ck_assert_uint_eq(cache_peek(&j->c, 2 * j->slice)->data[0], 0);
	cache_peek(&j->c, 2 * j->slice)->data[0] = 7;
	cache_put_zeros(&j->c, 2 * j->slice); /* is here already */
	ck_assert_uint_eq(cache_peek(&j->c, 2 * j->slice)->data[0], 7);
	for (uint64_t i = 3; i < 20; i++) /* takes the place of what is clean alone */
		cache_put_zeros(&j->c, i * j->slice);
	ck_assert_uint_eq(cache_peek(&j->c, 2 * j->slice)->data[0], 7);
	return 0;
}

START_TEST(what_is_known_to_be_zeros_is_not_read)
{
	struct job j = {.slice = SLICE_BYTES_MAX};
	struct mem_image m;
	struct loop *l;
	struct file *f;

	mem_init(&m);
	mem_set_size(&m, 8 * (uint64_t)j.slice);
	ck_assert_int_eq(loop_new(LOOP_AIO_AUTO, &l), 0);
	ck_assert_int_eq(memfile_open(l, &m, 0, &f), 0);
	ck_assert_int_eq(cache_init(&j.c, f, j.slice, 8 * j.slice, nothing, NULL), 0);
	ck_assert_int_eq(fiber_run(l, zeros_fiber, &j), 0);
	cache_fini(&j.c);
	file_close(f);
	loop_free(l);
	mem_fini(&m);
}
END_TEST

START_TEST(what_was_not_used_since_leaves_unless_dirty_or_borrowed)
{
	struct job j = {.slice = _i ? 512 : SLICE_BYTES_MAX};
	struct mem_image m;
	struct loop *l;
	struct file *f;

	mem_init(&m);
	for (uint8_t i = 0; i < 8; i++)
		mem_write(&m, &i, 1, (uint64_t)i * j.slice, true);
	ck_assert_int_eq(loop_new(LOOP_AIO_AUTO, &l), 0);
	ck_assert_int_eq(memfile_open(l, &m, 0, &f), 0);
	ck_assert_int_eq(cache_init(&j.c, f, j.slice, 64 * KiB, nothing, NULL), 0);
	ck_assert_int_eq(fiber_run(l, clean_fiber, &j), 0);
	cache_fini(&j.c);
	file_close(f);
	loop_free(l);
	mem_fini(&m);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("qcow2_cache");
	TCase *t = tcase_create("cache");
	SRunner *r;
	int failed;

	tcase_add_test(t, what_is_known_to_be_zeros_is_not_read);
	tcase_add_loop_test(t, what_was_not_used_since_leaves_unless_dirty_or_borrowed, 0, 2);
	suite_add_tcase(s, t);
	r = srunner_create(s);
	srunner_run_all(r, CK_NORMAL);
	failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed != 0;
}
