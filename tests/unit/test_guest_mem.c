/* SPDX-License-Identifier: MIT */
/* test_guest_mem.c - which addresses are RAM, and that no length gets past them. */
#include <check.h>
#include <string.h>
#include "vmm/guest_mem.h"

START_TEST(small_memory_is_one_region)
{
	struct gmem m;

	ck_assert_int_eq(gmem_init(&m, 16 * MiB, NULL), 0);
	ck_assert_int_eq(m.n, 1);
	ck_assert_uint_eq(gmem_bytes(&m), 16 * MiB);
	ck_assert_ptr_eq(gmem_ptr(&m, 0, 16 * MiB), m.r[0].host);
	ck_assert_uint_eq((uintptr_t)m.r[0].host % (2 * MiB), 0);
	gmem_fini(&m);
}
END_TEST

START_TEST(fresh_memory_is_zero_and_writable_to_its_ends)
{
	struct gmem m;
	uint8_t *p;

	ck_assert_int_eq(gmem_init(&m, 6 * MiB + 4096, NULL), 0);
	p = gmem_ptr(&m, 0, 6 * MiB + 4096);
	ck_assert_ptr_nonnull(p);
	for (uint64_t i = 0; i < gmem_bytes(&m); i += 4096)
		ck_assert_uint_eq(p[i], 0);
	memset(p, 0xa5, gmem_bytes(&m));
	gmem_fini(&m);
}
END_TEST

START_TEST(large_memory_goes_on_above_the_pci_hole)
{
	struct gmem m;

	ck_assert_int_eq(gmem_init(&m, 5 * GiB, NULL), 0);
	ck_assert_int_eq(m.n, 2);
	ck_assert_uint_eq(m.r[0].len, GMEM_LOW_END);
	ck_assert_uint_eq(m.r[1].gpa, 4 * GiB);
	ck_assert_uint_eq(gmem_bytes(&m), 5 * GiB);
	ck_assert_ptr_nonnull(gmem_ptr(&m, GMEM_LOW_END - 1, 1));
	ck_assert_ptr_null(gmem_ptr(&m, GMEM_LOW_END - 1, 2));
	ck_assert_ptr_null(gmem_ptr(&m, GMEM_LOW_END, 1));
	ck_assert_ptr_null(gmem_ptr(&m, 4 * GiB - 1, 2));
	ck_assert_ptr_eq(gmem_ptr(&m, 4 * GiB, 2 * GiB), m.r[1].host);
	ck_assert_ptr_null(gmem_ptr(&m, 4 * GiB, 2 * GiB + 1));
	gmem_fini(&m);
}
END_TEST

START_TEST(no_length_wraps_around)
{
	static const struct {
		uint64_t gpa, len;
	} outside[] = {
		{0, UINT64_MAX},
		{1, UINT64_MAX},
		{4096, UINT64_MAX - 4095},
		{UINT64_MAX, 1},
		{UINT64_MAX, 0},
		{4 * MiB, 1},
		{4 * MiB - 1, 2},
	};
	struct gmem m;

	ck_assert_int_eq(gmem_init(&m, 4 * MiB, NULL), 0);
	for (unsigned i = 0; i < ARRAY_SIZE(outside); i++)
		ck_assert_ptr_null(gmem_ptr(&m, outside[i].gpa, outside[i].len));
	ck_assert_ptr_nonnull(gmem_ptr(&m, 4 * MiB - 1, 1));
	gmem_fini(&m);
}
END_TEST

START_TEST(a_size_that_cannot_be_is_refused)
{
	struct why why = {{0}};
	struct gmem m;

	ck_assert_int_eq(gmem_init(&m, 0, &why), -EINVAL);
	ck_assert_int_eq(gmem_init(&m, 4097, &why), -EINVAL);
	ck_assert_int_eq(gmem_init(&m, 1ULL << 62, &why), -ENOMEM);
	ck_assert_int_eq(m.n, 0);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("guest_mem");
	TCase *tc = tcase_create("guest_mem");
	SRunner *sr = srunner_create(s);
	int failed;

	tcase_add_test(tc, small_memory_is_one_region);
	tcase_add_test(tc, fresh_memory_is_zero_and_writable_to_its_ends);
	tcase_add_test(tc, large_memory_goes_on_above_the_pci_hole);
	tcase_add_test(tc, no_length_wraps_around);
	tcase_add_test(tc, a_size_that_cannot_be_is_refused);
	suite_add_tcase(s, tc);
	srunner_run_all(sr, CK_NORMAL);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed != 0;
}
