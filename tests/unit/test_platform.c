/* SPDX-License-Identifier: MIT */
/*
 * test_platform.c - the ports that end a run, the power button and timer, the clock.
 */
#include <check.h>
#include <time.h>
#include "devices/platform.h"
#include "tests/support/fake_machine.h"

static struct fake_machine *m;
static struct device *dev[4];

static void setup(void)
{
	m = fake_machine_new();
	ck_assert_int_eq(debug_exit_create(&m->s, &dev[0]), 0);
	ck_assert_int_eq(power_create(&m->s, &dev[1]), 0);
	ck_assert_int_eq(acpi_pm_create(&m->s, &dev[2]), 0);
	ck_assert_int_eq(gmem_init(&m->mem, 64 * MiB, NULL), 0);
	ck_assert_int_eq(cmos_create(&m->s, 3, 0x423, &dev[3]), 0);
}

static void teardown(void)
{
	for (int i = 0; i < 4; i++)
		dev[i]->ops->destroy(dev[i]);
	gmem_fini(&m->mem);
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
	{0x92, 3, 1, EV_RESET, 0},
	{0x92, 2, 1, -1, 0},
	{0x604, 0x2000, 2, EV_POWEROFF, 0},
	{0x604, 0x3401, 2, EV_POWEROFF, 0},
	{0x604, 0x2000, 4, EV_POWEROFF, 0},
	{0x605, 0x20, 1, EV_POWEROFF, 0},
	{0x604, 0x20, 1, -1, 0},
	{0x604, 0x0001, 2, -1, 0},
	{0x606, 0x2000, 2, -1, 0},
	{0x607, 0x20202020, 4, -1, 0},
	{0x600, 0xffffffff, 4, -1, 0},
	{0x602, 0x20000000, 4, EV_POWEROFF, 0},
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
	ck_assert_int_eq(acpi_pm_create(&m->s, &more), -EEXIST);
	ck_assert_int_eq(cmos_create(&m->s, 1, 0, &more), -EEXIST);
}
END_TEST

START_TEST(the_button_interrupts_who_enabled_it)
{
	struct irq_line *sci = &m->irqs.line[ACPI_PM_GSI];

	acpi_pm_button(dev[2]);
	ck_assert_uint_eq(fake_read(m, BUS_PORT, 0x600, 2) & 0x100, 0x100);
	ck_assert(!atomic_load(&sci->level));
	out16(m, 0x602, 0x100);
	ck_assert(atomic_load(&sci->level));
	out16(m, 0x600, 0x0001); /* another bit */
	ck_assert(atomic_load(&sci->level));
	out16(m, 0x600, 0x0100);
	ck_assert(!atomic_load(&sci->level));
	acpi_pm_button(dev[2]);
	ck_assert(atomic_load(&sci->level));
	dev[2]->ops->reset(dev[2]);
	ck_assert(!atomic_load(&sci->level));
	ck_assert_uint_eq(in32(m, 0x600) & 0xfffffeff, 0);
}
END_TEST

START_TEST(the_timer_runs_at_its_rate)
{
	struct timespec a, b, nap = {0, 20000000};
	uint32_t from, ticks;
	double s, rate;

	from = in32(m, 0x608);
	clock_gettime(CLOCK_MONOTONIC, &a);
	nanosleep(&nap, NULL);
	clock_gettime(CLOCK_MONOTONIC, &b);
	ticks = in32(m, 0x608) - from;
	s = (double)(b.tv_sec - a.tv_sec) + (double)(b.tv_nsec - a.tv_nsec) / 1e9;
	rate = ticks / s;
	/* However long it took, no fewer ticks than that. */
	ck_assert(rate > 3579545 * 0.99);
}
END_TEST

static uint8_t cmos(uint8_t reg)
{
	out8(m, 0x70, reg);
	return in8(m, 0x71);
}

static void cmos_set(uint8_t reg, uint8_t v)
{
	out8(m, 0x70, reg);
	out8(m, 0x71, v);
}

START_TEST(the_memory_and_the_cpus_are_in_cmos)
{
	ck_assert_uint_eq(cmos(0x34) | cmos(0x35) << 8, 48 * 16);
	ck_assert_uint_eq(cmos(0x5b), 0);
	ck_assert_uint_eq(cmos(0x5f), 2);
	ck_assert_uint_eq(cmos(0x3d), 0x23);
	ck_assert_uint_eq(cmos(0x38), 0x40);
	ck_assert_uint_eq(cmos(0x0d), 0x80);
	cmos_set(0x40, 0x5a);
	ck_assert_uint_eq(cmos(0xc0), 0x5a); /* the top bit selects nothing */
}
END_TEST

/* 1999-12-31 23:59:58, a second or two after it was set. */
START_TEST(the_clock_keeps_what_was_set)
{
	uint8_t s, set[][2] = {{0, 0x58}, {2, 0x59}, {4, 0x23}, {7, 0x31}, {8, 0x12}, {9, 0x99},
			       {0x32, 0x19}};

	cmos_set(0x0b, 0x82);
	for (unsigned i = 0; i < ARRAY_SIZE(set); i++)
		cmos_set(set[i][0], set[i][1]);
	ck_assert_uint_eq(cmos(0), 0x58); /* it stands */
	cmos_set(0x0b, 0x02);
	s = cmos(0);
	if (s == 0x58 || s == 0x59) {
		ck_assert_uint_eq(cmos(8), 0x12);
		ck_assert_uint_eq(cmos(6), 6); /* a Friday */
	}
	cmos_set(0x0b, 0x82);
	s = cmos(4);
	ck_assert(s == 0x23 || s == 0);
	cmos_set(0x0b, 0x02);
	dev[3]->ops->reset(dev[3]);
	s = cmos(0x32);
	ck_assert(s == 0x19 || s == 0x20); /* the time outlives a reset */
}
END_TEST

/* Month 0, day 0 of year 0, and digits that are none. */
START_TEST(nonsense_is_some_time)
{
	cmos_set(0x0b, 0x82);
	for (uint8_t r = 0; r < 10; r++)
		cmos_set(r, 0);
	cmos_set(0x32, 0);
	cmos_set(0x0b, 0x02);
	ck_assert_uint_le(cmos(8), 0x12);
	cmos_set(0x0b, 0x82);
	for (uint8_t r = 0; r < 10; r++)
		cmos_set(r, 0xff);
	cmos_set(0x0b, 0x02);
	ck_assert_uint_le(cmos(0), 0x59);
}
END_TEST

START_TEST(the_clock_shows_the_hosts_time)
{
	time_t t = time(NULL), then;
	struct tm tm;
	int year;

	cmos_set(0x0b, 0x06);
	year = cmos(0x32) * 100 + cmos(9);
	gmtime_r(&t, &tm);
	then = time(NULL);
	ck_assert(year == tm.tm_year + 1900 || then - t > 1 || tm.tm_yday == 0);
	cmos_set(0x0b, 0x04);
	ck_assert_uint_le(cmos(4) & 0x7f, 12);
	ck_assert_uint_ge(cmos(4) & 0x7f, 1);
}
END_TEST

/* Waits for IRQ 8; what register C then says, 0 after many seconds without. */
static uint8_t rtc_irq(void)
{
	struct timespec nap = {0, 1000000};

	for (int i = 0; i < 20000 && !atomic_load(&m->irqs.line[8].level); i++)
		nanosleep(&nap, NULL);
	return cmos(0x0c);
}

START_TEST(the_clock_ticks_at_the_rate_that_is_asked_for)
{
	struct timespec nap = {0, 50000000};
	int rises;

	cmos_set(0x0a, 0x26);
	nanosleep(&nap, NULL);
	ck_assert_int_eq(atomic_load(&m->irqs.line[8].rises), 0);
	ck_assert_uint_eq(cmos(0x0c) & 0xc0, 0x40); /* it went by, and interrupted nobody */
	cmos_set(0x0b, 0x42);
	for (int i = 0; i < 10; i++)
		ck_assert_uint_eq(rtc_irq() & 0xc0, 0xc0);
	ck_assert_int_ge(atomic_load(&m->irqs.line[8].rises), 10);
	cmos_set(0x0a, 0x20);
	cmos(0x0c);
	rises = atomic_load(&m->irqs.line[8].rises);
	nanosleep(&nap, NULL);
	ck_assert_int_eq(atomic_load(&m->irqs.line[8].rises), rises);
	cmos_set(0x0a, 0x26);
	ck_assert_uint_eq(rtc_irq() & 0xc0, 0xc0);
	dev[3]->ops->reset(dev[3]);
	ck_assert(!atomic_load(&m->irqs.line[8].level));
}
END_TEST

START_TEST(updates_and_alarms_interrupt)
{
	/* 23:59:58, and an alarm at midnight. */
	static const uint8_t set[][2] = {{0, 0x58}, {2, 0x59}, {4, 0x23}, {1, 0}, {3, 0}, {5, 0}};

	cmos_set(0x0b, 0x12);
	ck_assert_uint_eq(rtc_irq() & 0xb0, 0x90);
	cmos_set(0x0b, 0x82);
	for (unsigned i = 0; i < ARRAY_SIZE(set); i++)
		cmos_set(set[i][0], set[i][1]);
	cmos(0x0c);
	cmos_set(0x0b, 0x22);
	ck_assert_uint_eq(rtc_irq() & 0xa0, 0xa0);
	ck_assert_uint_eq(cmos(4), 0);
	for (uint8_t reg = 1; reg <= 5; reg += 2)
		cmos_set(reg, 0xff);
	ck_assert_uint_eq(rtc_irq() & 0xa0, 0xa0); /* every second */
	cmos_set(5, 0x12);
	cmos(0x0c);
	cmos_set(0x0b, 0x32);
	ck_assert_uint_eq(rtc_irq() & 0xb0, 0x90);
	cmos_set(0x0b, 0xa2); /* it stands */
	ck_assert_uint_eq(cmos(0x0b), 0xa2);
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
	tcase_add_test(tc, the_button_interrupts_who_enabled_it);
	tcase_add_test(tc, the_timer_runs_at_its_rate);
	tcase_add_test(tc, the_memory_and_the_cpus_are_in_cmos);
	tcase_add_test(tc, the_clock_keeps_what_was_set);
	tcase_add_test(tc, nonsense_is_some_time);
	tcase_add_test(tc, the_clock_shows_the_hosts_time);
	tcase_add_test(tc, the_clock_ticks_at_the_rate_that_is_asked_for);
	tcase_add_test(tc, updates_and_alarms_interrupt);
	tcase_set_timeout(tc, 120);
	suite_add_tcase(s, tc);
	srunner_run_all(sr, CK_NORMAL);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed != 0;
}
