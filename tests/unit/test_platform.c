/* SPDX-License-Identifier: MIT */
/*
 * test_platform.c - the ports that end a run.
 */
#include <check.h>
#include "devices/platform.h"
#include "tests/support/fake_machine.h"

static struct fake_machine *m;
static struct device *dev[2];

static void setup(void)
{
	m = fake_machine_new();
	ck_assert_int_eq(debug_exit_create(&m->s, &dev[0]), 0);
	ck_assert_int_eq(power_create(&m->s, &dev[1]), 0);
}

static void teardown(void)
{
	for (int i = 0; i < 2; i++)
		dev[i]->ops->destroy(dev[i]);
	fake_machine_free(m);
}

static const struct {
	uint16_t port;
	uint32_t value;
	unsigned len;
	int event; /* -1: none */
	int code;
} writes[] = {
	{0xf4, 0, 1, EV_EXIT, 0},
	{0xf4, 0x55, 1, EV_EXIT, 0x55},
	{0xf4, 0x1ff, 2, EV_EXIT, 0xff},
	{0xf4, 0x12345678, 4, EV_EXIT, 0x78},
	{0xf5, 1, 1, -1, 0},
	{0xf6, 1, 4, -1, 0},
	{0x64, 0xfe, 1, EV_RESET, 0},
	{0x64, 0xf0, 1, -1, 0},
	{0x63, 0xfefe, 2, -1, 0},
	{0x60, 0xfe, 1, -1, 0},
	{0x604, 0x2000, 2, EV_POWEROFF, 0},
	{0x604, 0x3401, 2, EV_POWEROFF, 0},
	{0x604, 0x2000, 4, EV_POWEROFF, 0},
	{0x605, 0x20, 1, EV_POWEROFF, 0},
	{0x604, 0x20, 1, -1, 0},
	{0x604, 0x0001, 2, -1, 0},
	{0x606, 0x2000, 2, -1, 0},
	{0x607, 0x20202020, 4, -1, 0},
};

START_TEST(a_write_has_its_effect)
{
	fake_write(m, BUS_PORT, writes[_i].port, writes[_i].value, writes[_i].len);
	ck_assert_int_eq(atomic_load(&m->events), writes[_i].event >= 0);
	if (writes[_i].event >= 0) {
		ck_assert_int_eq((int)m->event, writes[_i].event);
		ck_assert_int_eq(m->code, writes[_i].code);
	}
}
END_TEST

START_TEST(reads_answer_as_a_pc_without_keyboard)
{
	ck_assert_uint_eq(in8(m, 0x64) & 3, 1); /* who waits for "input empty" need not */
	ck_assert_uint_eq(in8(m, 0x60), 0xff);
	ck_assert_uint_eq(in32(m, 0x604), 1);
	ck_assert_uint_eq(in8(m, 0x605), 0);
	ck_assert_uint_eq(in32(m, 0xf4), 0xffffffff);
	ck_assert_int_eq(atomic_load(&m->events), 0);
}
END_TEST

START_TEST(a_taken_port_undoes_the_creation)
{
	struct device *more;

	ck_assert_int_eq(power_create(&m->s, &more), -EEXIST);
	ck_assert_int_eq(debug_exit_create(&m->s, &more), -EEXIST);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("platform");
	TCase *tc = tcase_create("platform");
	SRunner *sr = srunner_create(s);
	int failed;

	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_add_loop_test(tc, a_write_has_its_effect, 0, ARRAY_SIZE(writes));
	tcase_add_test(tc, reads_answer_as_a_pc_without_keyboard);
	tcase_add_test(tc, a_taken_port_undoes_the_creation);
	suite_add_tcase(s, tc);
	srunner_run_all(sr, CK_NORMAL);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed != 0;
}
