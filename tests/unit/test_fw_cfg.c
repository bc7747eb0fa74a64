/* SPDX-License-Identifier: MIT */
/*
 * test_fw_cfg.c - items by number and by name, and whatever a guest selects.
 */
#include <check.h>
#include "devices/fw_cfg.h"
#include "tests/support/fake_machine.h"

static struct fake_machine *m;
static struct device *dev;

static void setup(void)
{
	m = fake_machine_new();
	ck_assert_int_eq(fw_cfg_create(&m->s, &dev), 0);
}

static void teardown(void)
{
	dev->ops->destroy(dev);
	fake_machine_free(m);
}

static uint32_t be(unsigned bytes)
{
	uint32_t v = 0;

	while (bytes--)
		v = v << 8 | in8(m, 0x511);
	return v;
}

START_TEST(the_signature_is_there)
{
	out16(m, 0x510, 0);
	ck_assert_uint_eq(be(4), 0x51454d55); /* QEMU */
	ck_assert_uint_eq(be(4), 0);
	out16(m, 0x510, 1);
	ck_assert_uint_eq(be(4), 0x01000000); /* no DMA */
}
END_TEST

START_TEST(files_are_found_by_name)
{
	char name[57] = {0};
	unsigned key;

	ck_assert_int_eq(fw_cfg_add_file(dev, "etc/a", "xyz", 3), 0);
	ck_assert_int_eq(fw_cfg_add_file(dev, "etc/b", "12345", 5), 0);
	out16(m, 0x510, 0x19);
	ck_assert_uint_eq(be(4), 2);
	for (unsigned i = 0; i < 64; i++)
		be(1);
	ck_assert_uint_eq(be(4), 5);
	key = be(2);
	be(2);
	for (unsigned i = 0; i < 56; i++)
		name[i] = (char)be(1);
	ck_assert_str_eq(name, "etc/b");
	out16(m, 0x510, key);
	ck_assert_uint_eq(be(4), 0x31323334);
	ck_assert_uint_eq(be(1), '5');
	ck_assert_uint_eq(be(1), 0);
	out16(m, 0x510, key); /* from the start again */
	ck_assert_uint_eq(be(1), '1');
	dev->ops->reset(dev);
	ck_assert_uint_eq(be(1), 'Q');
}
END_TEST

START_TEST(whatever_is_selected_reads)
{
	for (unsigned key = 0; key < 0x10000; key += 7) {
		out16(m, 0x510, key);
		for (unsigned i = 0; i < 3; i++)
			in8(m, 0x511);
		out8(m, 0x511, 0xff); /* items are only read */
		out8(m, 0x510, 0xff);
		in32(m, 0x510);
	}
	out16(m, 0x510, 0x19);
	for (unsigned i = 0; i < 10000; i++)
		ck_assert_uint_eq(in8(m, 0x511), 0);
}
END_TEST

START_TEST(too_many_are_refused)
{
	int err = 0;
	unsigned n;

	for (n = 0; !err && n < 100; n++)
		err = fw_cfg_add_file(dev, "etc/x", "x", 1);
	ck_assert_int_eq(err, -ENOSPC);
	ck_assert_uint_lt(n, 30);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("fw_cfg");
	TCase *tc = tcase_create("fw_cfg");
	SRunner *sr = srunner_create(s);
	int failed;

	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_add_test(tc, the_signature_is_there);
	tcase_add_test(tc, files_are_found_by_name);
	tcase_add_test(tc, whatever_is_selected_reads);
	tcase_add_test(tc, too_many_are_refused);
	suite_add_tcase(s, tc);
	srunner_run_all(sr, CK_NORMAL);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed != 0;
}
