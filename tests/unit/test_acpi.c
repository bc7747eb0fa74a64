/* SPDX-License-Identifier: MIT */
/*
 * test_acpi.c - the tables are found from the root pointer, sum up to zero, and say what is there.
 */
#include <check.h>
#include <string.h>
#include "devices/platform.h"
#include "vmm/acpi.h"
#include "vmm/boot.h"
#include "vmm/util/bytes.h"

static struct gmem mem;

static void setup(void)
{
	ck_assert_int_eq(gmem_init(&mem, 2 * MiB, NULL), 0);
	memset(gmem_ptr(&mem, 0, 2 * MiB), 0xee, 2 * MiB);
}

static void teardown(void)
{
	gmem_fini(&mem);
}

static uint8_t sum(const uint8_t *p, uint64_t n)
{
	uint8_t s = 0;

	while (n--)
		s = (uint8_t)(s + *p++);
	return s;
}

/* The table at gpa, whole inside the room and right in itself. */
static uint8_t *table(uint64_t gpa, const char *signature)
{
	uint8_t *t = gmem_ptr(&mem, gpa, 36);
	uint64_t len;

	ck_assert_ptr_nonnull(t);
	len = le_get(t + 4, 4);
	ck_assert(range_within(gpa - ACPI_GPA, len, ACPI_BYTES));
	ck_assert_mem_eq(t, signature, 4);
	ck_assert_uint_eq(sum(t, len), 0);
	return t;
}

START_TEST(every_table_is_found_and_whole)
{
	uint8_t *rsdp, *xsdt, *rsdt, *fadt;

	ck_assert_int_eq(acpi_build(&mem, ACPI_GPA, 3), 0);
	rsdp = gmem_ptr(&mem, ACPI_GPA, ACPI_RSDP_BYTES);
	ck_assert_mem_eq(rsdp, "RSD PTR ", 8);
	ck_assert_uint_eq(sum(rsdp, 20), 0);
	ck_assert_uint_eq(sum(rsdp, ACPI_RSDP_BYTES), 0);
	xsdt = table(le_get(rsdp + 24, 8), "XSDT");
	rsdt = table(le_get(rsdp + 16, 4), "RSDT");
	ck_assert_uint_eq(le_get(xsdt + 36, 8), le_get(rsdt + 36, 4));
	ck_assert_uint_eq(le_get(xsdt + 44, 8), le_get(rsdt + 40, 4));
	fadt = table(le_get(xsdt + 36, 8), "FACP");
	ck_assert_uint_eq(le_get(fadt + 76, 4), ACPI_PM_PORT + 8);
	ck_assert_uint_eq(le_get(fadt + 46, 2), ACPI_PM_GSI);
	table(le_get(fadt + 40, 4), "DSDT");
	ck_assert_uint_eq(le_get(fadt + 40, 4), le_get(fadt + 140, 8));
	ck_assert_mem_eq(gmem_ptr(&mem, le_get(fadt + 36, 4), 64), "FACS", 4);
}
END_TEST

START_TEST(the_madt_has_every_cpu)
{
	static const unsigned counts[] = {1, 2, 255};
	unsigned n = counts[_i], seen = 0;
	uint8_t *madt, *xsdt, *rsdp;

	ck_assert_int_eq(acpi_build(&mem, ACPI_GPA, n), 0);
	rsdp = gmem_ptr(&mem, ACPI_GPA, ACPI_RSDP_BYTES);
	xsdt = table(le_get(rsdp + 24, 8), "XSDT");
	madt = table(le_get(xsdt + 44, 8), "APIC");
	for (uint64_t at = 44; at < le_get(madt + 4, 4); at += madt[at + 1]) {
		ck_assert_uint_ge(madt[at + 1], 6);
		if (madt[at] == 0)
			ck_assert_uint_eq(madt[at + 3], seen++);
	}
	ck_assert_uint_eq(seen, n);
}
END_TEST

START_TEST(nothing_is_written_elsewhere)
{
	ck_assert_int_eq(acpi_build(&mem, ACPI_GPA, 255), 0);
	ck_assert_uint_eq(*(uint8_t *)gmem_ptr(&mem, ACPI_GPA - 1, 1), 0xee);
	ck_assert_uint_eq(*(uint8_t *)gmem_ptr(&mem, ACPI_GPA + ACPI_BYTES, 1), 0xee);
	ck_assert_int_eq(acpi_build(&mem, 2 * MiB - 4096, 1), -ENOMEM);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("acpi");
	TCase *tc = tcase_create("acpi");
	SRunner *sr = srunner_create(s);
	int failed;

	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_add_test(tc, every_table_is_found_and_whole);
	tcase_add_loop_test(tc, the_madt_has_every_cpu, 0, 3);
	tcase_add_test(tc, nothing_is_written_elsewhere);
	suite_add_tcase(s, tc);
	srunner_run_all(sr, CK_NORMAL);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed != 0;
}
