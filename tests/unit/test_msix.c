/* SPDX-License-Identifier: MIT */
/*
 * test_msix.c - masking, pending bits, and routes that are set only when they must be.
 */
#include <check.h>
#include "devices/msix.h"
#include "tests/support/fake_machine.h"

#define VECTORS 3
#define TABLE	0x1000
#define PBA	0x2000
#define ENABLE	0x8000
#define MASKALL 0x4000

static struct fake_machine *m;
static struct device *host;
static struct pci_dev d;
static struct msix x;
static unsigned cap;

static void bar_read(struct bus_range *r, uint64_t off, void *data, unsigned len)
{
	if (off >= PBA)
		msix_pba_read(&x, off - PBA, data, len);
	else
		msix_table_read(&x, off - TABLE, data, len);
}

static void bar_write(struct bus_range *r, uint64_t off, const void *data, unsigned len)
{
	msix_table_write(&x, off - TABLE, data, len);
}

static void config_written(struct pci_dev *p, unsigned off, unsigned len)
{
	msix_config_written(&x);
}

static void setup(void)
{
	static const struct pci_dev_ops ops = {.config_written = config_written};
	static const struct pci_ids ids = {.vendor = 1};

	m = fake_machine_new();
	ck_assert_int_eq(pci_host_create(&m->s, &host), 0);
	pci_dev_init(&d, &ops, "test", &ids);
	pci_bar_init(&d, 0, PCI_BAR_MEM32, 0x4000, bar_read, bar_write);
	ck_assert_int_eq(msix_init(&x, &d, &m->irqs, VECTORS, 0, TABLE, PBA), 0);
	ck_assert_int_eq(pci_dev_add(m->s.pci, &d), 0);
	cap = fake_cap_find(m, 1, 0x11, 0);
}

static void teardown(void)
{
	pci_dev_remove(&d);
	msix_fini(&x);
	host->ops->destroy(host);
	fake_machine_free(m);
}

static void table(uint64_t off, uint64_t v, unsigned len)
{
	fake_write(m, BUS_MMIO, PCI_HOLE_BASE + TABLE + off, v, len);
}

static uint64_t table_at(uint64_t off, unsigned len)
{
	return fake_read(m, BUS_MMIO, PCI_HOLE_BASE + TABLE + off, len);
}

static uint64_t pba(void)
{
	return fake_read(m, BUS_MMIO, PCI_HOLE_BASE + PBA, 8);
}

static void control(uint16_t v)
{
	fake_cfg_write(m, 1, cap + 2, v, 2);
}

static int routes(unsigned i)
{
	return atomic_load(&m->irqs.msi[i].routes);
}

static int fired(unsigned i)
{
	return atomic_load(&m->irqs.msi[i].fired);
}

static void entry(unsigned i, uint64_t addr, uint32_t data, uint32_t mask)
{
	table(16 * i, addr, 8);
	table(16 * i + 8, data, 4);
	table(16 * i + 12, mask, 4);
}

START_TEST(the_capability_tells_where_things_are)
{
	ck_assert_uint_eq(fake_cfg_read(m, 1, cap + 2, 2), VECTORS - 1);
	ck_assert_uint_eq(fake_cfg_read(m, 1, cap + 4, 4), TABLE);
	ck_assert_uint_eq(fake_cfg_read(m, 1, cap + 8, 4), PBA);
	control(0xffff);
	ck_assert_uint_eq(fake_cfg_read(m, 1, cap + 2, 2), ENABLE | MASKALL | (VECTORS - 1));
	for (unsigned i = 0; i < VECTORS; i++)
		ck_assert_uint_eq(table_at(16 * i + 12, 4), 1); /* masked at power-on */
}
END_TEST

START_TEST(an_enabled_vector_is_routed_and_fires)
{
	control(ENABLE);
	entry(1, 0xfee01000, 0x41, 0);
	ck_assert_uint_eq(m->irqs.msi[1].addr, 0xfee01000);
	ck_assert_uint_eq(m->irqs.msi[1].data, 0x41);
	ck_assert_int_eq(routes(1), 1);
	msix_fire(&x, 1);
	msix_fire(&x, 1);
	ck_assert_int_eq(fired(1), 2);
	ck_assert_int_eq(fired(0) + fired(2), 0);
	ck_assert_uint_eq(pba(), 0);
}
END_TEST

START_TEST(masking_costs_no_route)
{
	control(ENABLE);
	entry(0, 0xfee00000, 0x30, 0);
	for (int i = 0; i < 10; i++) {
		table(12, 1, 4);
		table(0, 0xfee00000, 4);
		table(8, 0x30, 4);
		table(12, 0, 4);
		control(ENABLE | MASKALL);
		control(ENABLE);
	}
	ck_assert_int_eq(routes(0), 1);
	table(12, 1, 4);
	table(8, 0x31, 4);
	ck_assert_int_eq(routes(0), 1); /* not before it can fire */
	table(12, 0, 4);
	ck_assert_int_eq(routes(0), 2);
	ck_assert_uint_eq(m->irqs.msi[0].data, 0x31);
}
END_TEST

START_TEST(a_masked_vector_waits_in_the_pending_bits)
{
	control(ENABLE);
	entry(2, 0xfee00000, 0x32, 1);
	msix_fire(&x, 2);
	msix_fire(&x, 2);
	ck_assert_int_eq(fired(2), 0);
	ck_assert_uint_eq(pba(), 4);
	ck_assert_uint_eq(fake_read(m, BUS_MMIO, PCI_HOLE_BASE + PBA, 1), 4);
	table(44, 0, 4);
	ck_assert_int_eq(fired(2), 1);
	ck_assert_uint_eq(pba(), 0);
	control(ENABLE | MASKALL);
	msix_fire(&x, 2);
	ck_assert_uint_eq(pba(), 4);
	control(ENABLE);
	ck_assert_int_eq(fired(2), 2);
}
END_TEST

START_TEST(nothing_fires_while_disabled_or_out_of_range)
{
	entry(0, 0xfee00000, 0x30, 0);
	msix_fire(&x, 0);
	ck_assert_int_eq(routes(0), 0);
	control(ENABLE);
	msix_fire(&x, VECTORS);
	msix_fire(&x, 0xffff);
	ck_assert_int_eq(fired(0), 0);
	ck_assert_uint_eq(pba(), 0);
}
END_TEST

START_TEST(odd_accesses_are_put_together)
{
	control(ENABLE);
	table(12, 0xffffffff, 4);
	ck_assert_uint_eq(table_at(12, 4), 1);
	for (unsigned i = 0; i < 12; i++)
		table(i, 0x10 + i, 1);
	ck_assert_uint_eq(table_at(0, 8), 0x1716151413121110);
	ck_assert_uint_eq(table_at(2, 4), 0x15141312);
	table(14, 0xffffffff, 4); /* half in the next entry */
	ck_assert_uint_eq(table_at(16, 4), 0xffff);
	table(16 * VECTORS - 4, 0, 8);
	ck_assert_uint_eq(table_at(16 * VECTORS - 4, 8), 0);
	ck_assert_uint_eq(table_at(16 * VECTORS, 8), 0);
}
END_TEST

START_TEST(a_refused_route_keeps_the_message_pending)
{
	log_level_set(LOG_ERROR);
	m->irqs.route_fails = true;
	control(ENABLE);
	entry(0, 0xfee00000, 0x30, 0);
	msix_fire(&x, 0);
	ck_assert_uint_eq(pba(), 1);
	m->irqs.route_fails = false;
	table(12, 0, 4);
	ck_assert_int_eq(fired(0), 1);
}
END_TEST

START_TEST(reset_masks_and_forgets)
{
	control(ENABLE | MASKALL);
	entry(0, 0xfee00000, 0x30, 0);
	msix_fire(&x, 0);
	pci_dev_reset(&d);
	msix_reset(&x);
	ck_assert(!msix_enabled(&x));
	ck_assert_uint_eq(pba(), 0);
	ck_assert_uint_eq(table_at(0, 4), 0);
	ck_assert_uint_eq(table_at(12, 4), 1);
	control(ENABLE);
	ck_assert_int_eq(fired(0), 0);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("msix");
	TCase *tc = tcase_create("msix");
	SRunner *sr = srunner_create(s);
	int failed;

	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_add_test(tc, the_capability_tells_where_things_are);
	tcase_add_test(tc, an_enabled_vector_is_routed_and_fires);
	tcase_add_test(tc, masking_costs_no_route);
	tcase_add_test(tc, a_masked_vector_waits_in_the_pending_bits);
	tcase_add_test(tc, nothing_fires_while_disabled_or_out_of_range);
	tcase_add_test(tc, odd_accesses_are_put_together);
	tcase_add_test(tc, a_refused_route_keeps_the_message_pending);
	tcase_add_test(tc, reset_masks_and_forgets);
	suite_add_tcase(s, tc);
	srunner_run_all(sr, CK_NORMAL);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed != 0;
}
