/* SPDX-License-Identifier: MIT */
/*
 * test_img_size.c - sizes as qemu-img reads and writes them.
 */
#include <check.h>
#include <stdlib.h>
#include "blockdev/img/cmd.h"

static const struct {
	const char *text;
	int err;
	uint64_t bytes;
} sizes[] = {
	{"0", 0, 0},
	{"1", 0, 1},
	{"4096", 0, 4096},
	{"5b", 0, 5},
	{"1k", 0, 1024},
	{"1K", 0, 1024},
	{"64M", 0, 64 * MiB},
	{"1.5G", 0, 1536 * MiB},
	{"2T", 0, 2 * TiB},
	{"1P", 0, 1024 * TiB},
	{"7E", 0, 7 * 1024 * 1024 * TiB},
	{"0x1000", 0, 4096},
	{"1.0", 0, 1},
	{"5.k", 0, 5120},
	{"0.5k", 0, 512},
	{"", -EINVAL, 0},
	{"-1", -EINVAL, 0},
	{"+1", 0, 1},
	{" 1", 0, 1},
	{"+-1", -EINVAL, 0},
	{"1 ", -EINVAL, 0},
	{"k", -EINVAL, 0},
	{"1x", -EINVAL, 0},
	{"1kk", -EINVAL, 0},
	{"1KiB", -EINVAL, 0},
	{"1.5", -EINVAL, 0},
	{"1.5b", -EINVAL, 0},
	{"0x", -EINVAL, 0},
	{"0x10k", 0, 16384},
	{"1e3", -EINVAL, 0},
	{"1 k", -EINVAL, 0},
	{"16E", -ERANGE, 0},
	{"99999999999999999999", -ERANGE, 0},
	{"18446744073709551615k", -ERANGE, 0},
};

START_TEST(a_size_is_read)
{
	uint64_t v = 0;

	ck_assert_msg(img_parse_size(sizes[_i].text, &v) == sizes[_i].err, "%s", sizes[_i].text);
	if (!sizes[_i].err)
		ck_assert_uint_eq(v, sizes[_i].bytes);
}
END_TEST

START_TEST(a_size_is_shown_with_three_digits)
{
	char b[32];

	ck_assert_str_eq(img_human_size(0, b, sizeof(b)), "0 B");
	ck_assert_str_eq(img_human_size(999, b, sizeof(b)), "999 B");
	ck_assert_str_eq(img_human_size(1000, b, sizeof(b)), "0.977 KiB");
	ck_assert_str_eq(img_human_size(200704, b, sizeof(b)), "196 KiB");
	ck_assert_str_eq(img_human_size(64 * MiB, b, sizeof(b)), "64 MiB");
	ck_assert_str_eq(img_human_size(1536 * MiB, b, sizeof(b)), "1.5 GiB");
	ck_assert_str_eq(img_human_size(UINT64_MAX, b, sizeof(b)), "16 EiB");
}
END_TEST

int main(void)
{
	Suite *s = suite_create("img size");
	TCase *t = tcase_create("size");
	SRunner *r;
	int failed;

	tcase_add_loop_test(t, a_size_is_read, 0, (int)ARRAY_SIZE(sizes));
	tcase_add_test(t, a_size_is_shown_with_three_digits);
	suite_add_tcase(s, t);
	r = srunner_create(s);
	srunner_run_all(r, CK_NORMAL);
	failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed ? 1 : 0;
}
