/* SPDX-License-Identifier: MIT */
/*
 * test_piix3.c - the bridge says who it is and that its slot has more functions.
 */
#include <check.h>
#include "devices/pci.h"
#include "devices/piix3.h"
#include "tests/support/fake_machine.h"

static uint32_t cfg(struct fake_machine *m, unsigned fn, unsigned reg)
{
	out32(m, 0xcf8, 0x80000000u | PIIX3_SLOT << 11 | fn << 8 | reg);
	return in32(m, 0xcfc);
}

START_TEST(functions_of_one_slot_are_found)
{
	static const struct pci_dev_ops no_ops;
	static const struct pci_ids ids = {.vendor = 0x1234, .device = 0x5678, .irq_pin = 1};
	struct fake_machine *m = fake_machine_new();
	struct device *host, *bridge;
	struct pci_dev other, next;

	ck_assert_int_eq(pci_host_create(&m->s, &host), 0);
	ck_assert_int_eq(piix3_create(&m->s, &bridge), 0);
	pci_dev_init(&other, &no_ops, "other", &ids);
	ck_assert_int_eq(pci_dev_add_at(m->s.pci, &other, PIIX3_SLOT, 0), -EEXIST);
	ck_assert_int_eq(pci_dev_add_at(m->s.pci, &other, PIIX3_SLOT, PIIX3_FN_PM), 0);
	pci_dev_init(&next, &no_ops, "next", &ids);
	ck_assert_int_eq(pci_dev_add(m->s.pci, &next), 0);
	ck_assert_uint_eq(next.slot, PIIX3_SLOT + 1); /* a new slot, not a free function */
	ck_assert_uint_eq(cfg(m, 0, 0), 0x70008086);
	ck_assert_uint_eq(cfg(m, 0, PCI_REVISION) >> 8, 0x060100);
	ck_assert_uint_eq(cfg(m, 0, PCI_CACHE_LINE) >> 16 & 0xff, PCI_MULTIFUNCTION);
	ck_assert_uint_eq(cfg(m, 3, 0), 0x56781234);
	for (unsigned fn = 1; fn < 8; fn++)
		if (fn != PIIX3_FN_PM)
			ck_assert_uint_eq(cfg(m, fn, 0), 0xffffffff);
	/* Interrupt routes are kept, and are what they were after a reset. */
	ck_assert_uint_eq(cfg(m, 0, 0x60), 0x0b0a0b0a);
	out32(m, 0xcfc, 0x80808005);
	ck_assert_uint_eq(cfg(m, 0, 0x60), 0x80808005);
	bridge->ops->reset(bridge);
	ck_assert_uint_eq(cfg(m, 0, 0x60), 0x0b0a0b0a);
	pci_dev_remove(&next);
	pci_dev_remove(&other);
	bridge->ops->destroy(bridge);
	host->ops->destroy(host);
	fake_machine_free(m);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("piix3");
	TCase *tc = tcase_create("piix3");
	SRunner *sr = srunner_create(s);
	int failed;

	tcase_add_test(tc, functions_of_one_slot_are_found);
	suite_add_tcase(s, tc);
	srunner_run_all(sr, CK_NORMAL);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed != 0;
}
