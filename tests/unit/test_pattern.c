/* SPDX-License-Identifier: MIT */
/*
 * test_pattern.c - a sector tells which write it comes from, and nothing else passes for one.
 */
#include <check.h>
#include <string.h>
#include "guest/pattern.h"

static _Alignas(8) unsigned char data[512];
static uint64_t sector;
static uint32_t version;

START_TEST(what_is_filled_decodes)
{
	static const struct {
		uint64_t sector;
		uint32_t version;
	} of[] = {{0, 1}, {1, 1}, {12345678901, 77}, {~0ull, 0xffffffff}};

	pattern_fill(data, of[_i].sector, of[_i].version);
	ck_assert_int_eq(pattern_check(data, &sector, &version), PATTERN_OK);
	ck_assert_uint_eq(sector, of[_i].sector);
	ck_assert_uint_eq(version, of[_i].version);
	ck_assert(pattern_is(data, of[_i].sector, of[_i].version));
	ck_assert(!pattern_is(data, of[_i].sector + 1, of[_i].version));
	ck_assert(!pattern_is(data, of[_i].sector, of[_i].version - 1));
}
END_TEST

/* The format is fixed: images and traces outlive a version of this program. */
START_TEST(the_words_are_as_written_down)
{
	uint64_t w[PATTERN_WORDS];

	pattern_fill(data, 3, 5);
	memcpy(w, data, sizeof(w));
	ck_assert_uint_eq(w[0], 0x534c554300000005);
	ck_assert_uint_eq(w[1], 3);
	ck_assert_uint_eq(w[2], (0x534c554300000005 ^ 0xdaa66d2c7ddf743full) + 2);
	ck_assert_uint_eq(w[63], w[2] + 61);
}
END_TEST

START_TEST(zeros_are_told_from_garbage)
{
	memset(data, 0, sizeof(data));
	ck_assert_int_eq(pattern_check(data, &sector, &version), PATTERN_ZERO);
	for (unsigned i = 0; i < sizeof(data); i++) {
		data[i] = 1;
		ck_assert_int_eq(pattern_check(data, &sector, &version), PATTERN_BAD);
		ck_assert_uint_eq(sector, 0);
		ck_assert_uint_eq(version, 0);
		data[i] = 0;
	}
}
END_TEST

START_TEST(one_changed_byte_is_seen)
{
	for (unsigned i = 0; i < sizeof(data); i++) {
		pattern_fill(data, 99, 4);
		data[i] ^= 0x40;
		ck_assert_int_eq(pattern_check(data, &sector, &version), PATTERN_BAD);
		ck_assert(!pattern_is(data, 99, 4));
	}
}
END_TEST

START_TEST(a_torn_sector_is_seen)
{
	_Alignas(8) unsigned char older[512];

	pattern_fill(older, 99, 4);
	for (size_t at = 8; at < sizeof(data); at += 8) {
		pattern_fill(data, 99, 5);
		memcpy(data + at, older + at, sizeof(data) - at);
		ck_assert_int_eq(pattern_check(data, &sector, &version), PATTERN_BAD);
	}
}
END_TEST

int main(void)
{
	Suite *s = suite_create("pattern");
	TCase *tc = tcase_create("pattern");
	SRunner *sr = srunner_create(s);
	int failed;

	tcase_add_loop_test(tc, what_is_filled_decodes, 0, 4);
	tcase_add_test(tc, the_words_are_as_written_down);
	tcase_add_test(tc, zeros_are_told_from_garbage);
	tcase_add_test(tc, one_changed_byte_is_seen);
	tcase_add_test(tc, a_torn_sector_is_seen);
	suite_add_tcase(s, tc);
	srunner_run_all(sr, CK_NORMAL);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed != 0;
}
