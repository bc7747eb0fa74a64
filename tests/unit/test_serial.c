/* SPDX-License-Identifier: MIT */
/*
 * test_serial.c - the 16550A: what drivers probe for, interrupts, both directions.
 */
#include <check.h>
#include "devices/serial.h"
#include "tests/support/fake_machine.h"

#define COM1 0x3f8

static struct fake_machine *m;
static struct device *u;
static uint8_t sent[256];
static size_t n_sent;
static int rooms;

static void on_out(void *arg, const uint8_t *p, size_t n)
{
	ck_assert_uint_le(n_sent + n, sizeof(sent));
	memcpy(sent + n_sent, p, n);
	n_sent += n;
}

static void on_room(void *arg)
{
	rooms++;
}

static void setup(void)
{
	struct serial_opts o = {.out = on_out, .room = on_room};

	n_sent = 0;
	rooms = 0;
	m = fake_machine_new();
	ck_assert_int_eq(serial_create(&m->s, &o, &u), 0);
}

static void teardown(void)
{
	u->ops->destroy(u);
	fake_machine_free(m);
}

static bool irq(void)
{
	return atomic_load(&m->irqs.line[4].level);
}

START_TEST(what_is_written_is_sent_at_once)
{
	out8(m, COM1, 'h');
	out8(m, COM1, 'i');
	ck_assert_uint_eq(n_sent, 2);
	ck_assert_mem_eq(sent, "hi", 2);
	ck_assert_uint_eq(in8(m, COM1 + 5), 0x60);
}
END_TEST

START_TEST(the_divisor_latch_hides_data_and_ier)
{
	out8(m, COM1 + 3, 0x80);
	ck_assert_uint_eq(in8(m, COM1), 12);
	out8(m, COM1, 1);
	out8(m, COM1 + 1, 2);
	ck_assert_uint_eq(in8(m, COM1), 1);
	ck_assert_uint_eq(in8(m, COM1 + 1), 2);
	out8(m, COM1 + 3, 3);
	ck_assert_uint_eq(in8(m, COM1 + 1), 0);
	ck_assert_uint_eq(n_sent, 0);
}
END_TEST

/* The steps by which drivers tell a 16550A from its relatives. */
START_TEST(probes_find_a_16550a)
{
	out8(m, COM1 + 1, 0xff);
	ck_assert_uint_eq(in8(m, COM1 + 1), 0x0f);
	out8(m, COM1 + 1, 0);
	out8(m, COM1 + 7, 0xa5);
	ck_assert_uint_eq(in8(m, COM1 + 7), 0xa5);
	ck_assert_uint_eq(in8(m, COM1 + 2), 0x01);
	out8(m, COM1 + 2, 0x01);
	ck_assert_uint_eq(in8(m, COM1 + 2) & 0xc0, 0xc0);
	out8(m, COM1 + 4, 0x1a); /* loop, OUT2, RTS */
	ck_assert_uint_eq(in8(m, COM1 + 6) & 0xf0, 0x90);
	out8(m, COM1 + 4, 0x15); /* loop, OUT1, DTR */
	ck_assert_uint_eq(in8(m, COM1 + 6) & 0xf0, 0x60);
	out8(m, COM1 + 4, 0);
	ck_assert_uint_eq(in8(m, COM1 + 6) & 0xf0, 0xb0);
	ck_assert_uint_eq(in8(m, COM1 + 6) & 0x0f, 0);
}
END_TEST

START_TEST(loopback_returns_what_is_sent)
{
	out8(m, COM1 + 2, 1);
	out8(m, COM1 + 4, 0x10);
	for (int i = 0; i < 17; i++)
		out8(m, COM1, i);
	ck_assert_uint_eq(n_sent, 0);
	ck_assert_uint_eq(in8(m, COM1 + 5), 0x63); /* ready, and one was lost */
	ck_assert_uint_eq(in8(m, COM1 + 5), 0x61);
	for (int i = 0; i < 16; i++)
		ck_assert_uint_eq(in8(m, COM1), i);
	ck_assert_uint_eq(in8(m, COM1 + 5), 0x60);
	ck_assert_uint_eq(serial_input(u, (const uint8_t *)"x", 1), 0);
	out8(m, COM1 + 4, 0);
	ck_assert_int_eq(rooms, 1);
}
END_TEST

START_TEST(the_transmit_interrupt_comes_once_per_reason)
{
	out8(m, COM1 + 1, 2);
	ck_assert(irq());
	ck_assert_uint_eq(in8(m, COM1 + 2), 0x02);
	ck_assert(!irq());
	ck_assert_uint_eq(in8(m, COM1 + 2), 0x01);
	out8(m, COM1, 'x');
	ck_assert(irq());
	out8(m, COM1 + 1, 0);
	ck_assert(!irq());
	out8(m, COM1 + 1, 2);
	ck_assert(irq());
}
END_TEST

START_TEST(input_waits_in_the_fifo_and_interrupts)
{
	static const uint8_t in[20] = "0123456789abcdefghi";

	out8(m, COM1 + 2, 0x81); /* trigger at 8 */
	out8(m, COM1 + 1, 1);
	ck_assert_uint_eq(serial_input(u, in, 3), 3);
	ck_assert(irq());
	ck_assert_uint_eq(in8(m, COM1 + 2), 0xcc);
	ck_assert_uint_eq(serial_input(u, in + 3, 17), 13);
	ck_assert_uint_eq(in8(m, COM1 + 2), 0xc4);
	ck_assert_int_eq(rooms, 0);
	for (int i = 0; i < 16; i++)
		ck_assert_uint_eq(in8(m, COM1), in[i]);
	ck_assert_int_eq(rooms, 1);
	ck_assert(!irq());
	ck_assert_uint_eq(in8(m, COM1), 0);
}
END_TEST

START_TEST(without_fifo_one_byte_is_taken)
{
	ck_assert_uint_eq(serial_input(u, (const uint8_t *)"ab", 2), 1);
	ck_assert_uint_eq(in8(m, COM1 + 5), 0x61);
	out8(m, COM1 + 2, 1); /* switching it on empties it */
	ck_assert_uint_eq(in8(m, COM1 + 5), 0x60);
}
END_TEST

START_TEST(causes_have_their_priority)
{
	out8(m, COM1 + 2, 1);
	out8(m, COM1 + 1, 0x0f);
	out8(m, COM1 + 4, 0x11);
	for (int i = 0; i < 17; i++)
		out8(m, COM1, i);
	ck_assert_uint_eq(in8(m, COM1 + 2), 0xc6);
	in8(m, COM1 + 5);
	ck_assert_uint_eq(in8(m, COM1 + 2), 0xc4);
	for (int i = 0; i < 16; i++)
		in8(m, COM1);
	ck_assert_uint_eq(in8(m, COM1 + 2), 0xc2);
	ck_assert_uint_eq(in8(m, COM1 + 2), 0xc0); /* the modem lines moved into the loop */
	in8(m, COM1 + 6);
	ck_assert_uint_eq(in8(m, COM1 + 2), 0xc1);
	ck_assert(!irq());
}
END_TEST

START_TEST(reset_brings_back_power_on_values)
{
	out8(m, COM1 + 1, 0x0f);
	out8(m, COM1 + 3, 0x83);
	out8(m, COM1 + 4, 0x1f);
	u->ops->reset(u);
	ck_assert(!irq());
	ck_assert_uint_eq(in8(m, COM1 + 1), 0);
	ck_assert_uint_eq(in8(m, COM1 + 3), 0);
	ck_assert_uint_eq(in8(m, COM1 + 4), 0);
	ck_assert_uint_eq(in8(m, COM1 + 6), 0xb0);
}
END_TEST

/* Nothing but the line must change when every register is hit with everything, at every width. */
START_TEST(any_access_is_survived)
{
	uint32_t seed = 1;

	for (int i = 0; i < 20000; i++) {
		seed = seed * 1664525 + 1013904223;
		unsigned port = COM1 + (seed >> 8) % 8, len = 1u << (seed >> 12) % 3;

		n_sent = 0;
		if (seed >> 16 & 1)
			fake_write(m, BUS_PORT, port, seed >> 17, len);
		else
			fake_read(m, BUS_PORT, port, len);
		if (seed >> 28 == 0)
			serial_input(u, sent, seed % 32);
		ck_assert_uint_eq(in8(m, COM1 + 5) & 0x9c, 0);
	}
}
END_TEST

int main(void)
{
	Suite *s = suite_create("serial");
	TCase *tc = tcase_create("serial");
	SRunner *sr = srunner_create(s);
	int failed;

	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_add_test(tc, what_is_written_is_sent_at_once);
	tcase_add_test(tc, the_divisor_latch_hides_data_and_ier);
	tcase_add_test(tc, probes_find_a_16550a);
	tcase_add_test(tc, loopback_returns_what_is_sent);
	tcase_add_test(tc, the_transmit_interrupt_comes_once_per_reason);
	tcase_add_test(tc, input_waits_in_the_fifo_and_interrupts);
	tcase_add_test(tc, without_fifo_one_byte_is_taken);
	tcase_add_test(tc, causes_have_their_priority);
	tcase_add_test(tc, reset_brings_back_power_on_values);
	tcase_add_test(tc, any_access_is_survived);
	suite_add_tcase(s, tc);
	srunner_run_all(sr, CK_NORMAL);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed != 0;
}
