/* SPDX-License-Identifier: MIT */
/*
 * test_fw_cfg.c - items by number and by name, whatever a guest selects, and descriptors of DMA.
 */
#include <check.h>
#include "devices/fw_cfg.h"
#include "tests/support/fake_machine.h"
#include "vmm/util/bytes.h"

static struct fake_machine *m;
static struct device *dev;

#define RAM (2ull * MiB)

static void setup(void)
{
	m = fake_machine_new();
	ck_assert_int_eq(gmem_init(&m->mem, RAM, NULL), 0);
	ck_assert_int_eq(fw_cfg_create(&m->s, &dev), 0);
}

static void teardown(void)
{
	dev->ops->destroy(dev);
	gmem_fini(&m->mem);
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
	ck_assert_uint_eq(be(4), 0x03000000); /* DMA too */
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

/* A descriptor at that address, run; its control word afterwards.  See QEMU's docs/specs/fw_cfg. */
static uint32_t dma_at(uint64_t gpa, uint32_t control, uint32_t len, uint64_t addr)
{
	uint8_t *d = gmem_ptr(&m->mem, gpa, 16);
	uint8_t half[8];

	if (d) {
		be_put(d, control, 4);
		be_put(d + 4, len, 4);
		be_put(d + 8, addr, 8);
	}
	be_put(half, gpa, 8);
	if (gpa >> 32)
		out32(m, 0x514, le_get(half, 4));
	out32(m, 0x518, le_get(half + 4, 4));
	return d ? (uint32_t)be_get(d, 4) : 0;
}

static uint32_t dma(uint32_t control, uint32_t len, uint64_t addr)
{
	return dma_at(0x1003, control, len, addr);
}

START_TEST(dma_selects_skips_and_reads)
{
	uint8_t *data = gmem_ptr(&m->mem, 0x2000, 16);

	ck_assert_uint_eq(in32(m, 0x514), 0x554d4551); /* QEMU */
	ck_assert_uint_eq(in32(m, 0x518), 0x47464320); /* CFG */
	ck_assert_uint_eq(in8(m, 0x51b), 'G');
	ck_assert_int_eq(fw_cfg_add(dev, 0x8005, "0123456789", 10), 0);
	memset(data, 0xff, 16);
	ck_assert_uint_eq(dma(0x80050000 | 8 | 2, 4, 0x2000), 0);
	ck_assert_mem_eq(data, "0123\377", 5);
	ck_assert_uint_eq(dma(4, 3, ~0ull), 0);
	ck_assert_uint_eq(in8(m, 0x511), '7'); /* one place for both ways */
	ck_assert_uint_eq(dma(2, 5, 0x2000), 0);
	ck_assert_mem_eq(data, "89\0\0\0\377", 6);
	ck_assert_uint_eq(dma(0x80050000 | 8, 100, ~0ull), 0);
	ck_assert_uint_eq(in8(m, 0x511), '0');
	ck_assert_uint_eq(dma(0x80050000, 1, ~0ull), 0); /* nothing asked for */
	ck_assert_uint_eq(in8(m, 0x511), '1');
	ck_assert_uint_eq(dma(0x80060000 | 8 | 2, 1, 0x2005), 0);
	ck_assert_uint_eq(data[5], 0); /* no such item */
}
END_TEST

START_TEST(malformed_dma_says_so_or_does_nothing)
{
	static const uint64_t nowhere[] = {
		RAM - 15, RAM, 0xfffff000, 1ull << 32, ~0ull - 15, ~0ull - 3};
	uint8_t *end = gmem_ptr(&m->mem, RAM - 16, 16);

	ck_assert_int_eq(fw_cfg_add(dev, 0x8005, "0123456789", 10), 0);
	for (unsigned i = 0; i < ARRAY_SIZE(nowhere); i++) {
		out16(m, 0x510, 0);
		dma_at(nowhere[i], 0x80050000 | 8, 0, 0);
		ck_assert_uint_eq(in8(m, 0x511), 'Q');
		ck_assert_uint_eq(dma(0x80050000 | 8 | 2, 16, nowhere[i]), 1);
		ck_assert_uint_eq(in8(m, 0x511), '0'); /* selected, and nothing else done */
	}
	ck_assert_uint_eq(dma(2, UINT32_MAX, 0x2000), 1);
	ck_assert_uint_eq(dma(2, 16, ~0ull - 7), 1);
	ck_assert_uint_eq(dma(0x80050000 | 8 | 16, 4, 0x2000), 1); /* items are only read */
	ck_assert_uint_eq(dma(2, 0, ~0ull), 0);
	ck_assert_uint_eq(dma(0x80050000 | 8 | 4, UINT32_MAX, 0), 0);
	ck_assert_uint_eq(dma(2, 1, 0x2000), 0);
	/* Over itself: the control word is written last.  Up to the last byte of memory. */
	ck_assert_uint_eq(dma_at(RAM - 16, 0x80050000 | 8 | 2, 16, RAM - 16), 0);
	ck_assert_mem_eq(end, "\0\0\0\0" "456789\0\0\0\0\0\0", 16);
	/* Other widths and halves start nothing; a half is good for once, and not after a reset. */
	dma(0x80050000 | 8, 0, 0);
	be_put(gmem_ptr(&m->mem, 0, 16), 8, 4);
	out16(m, 0x518, 0);
	out8(m, 0x51b, 0);
	fake_write(m, BUS_PORT, 0x516, 0, 4);
	ck_assert_uint_eq(be_get(gmem_ptr(&m->mem, 0, 16), 4), 8);
	out32(m, 0x514, 1);
	dev->ops->reset(dev);
	out32(m, 0x518, 0);
	ck_assert_uint_eq(be_get(gmem_ptr(&m->mem, 0, 16), 4), 0);
	be_put(gmem_ptr(&m->mem, 0, 16), 8, 4);
	out32(m, 0x514, 1);
	out32(m, 0x518, 0);
	ck_assert_uint_eq(be_get(gmem_ptr(&m->mem, 0, 16), 4), 8);
	out32(m, 0x518, 0);
	ck_assert_uint_eq(be_get(gmem_ptr(&m->mem, 0, 16), 4), 0);
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

/* The machine is as before: the fake one asserts that nothing is left on its bus. */
START_TEST(ports_that_are_taken_are_an_error)
{
	static const uint64_t ports[] = {0x511, 0x51b};

	for (unsigned i = 0; i < ARRAY_SIZE(ports); i++) {
		struct fake_machine *other = fake_machine_new();
		struct bus_range r = {.base = ports[i], .len = 1};
		struct device *d;

		ck_assert_int_eq(bus_add(&other->bus, BUS_PORT, &r), 0);
		ck_assert_int_eq(fw_cfg_create(&other->s, &d), -EEXIST);
		bus_remove(&other->bus, BUS_PORT, &r);
		fake_machine_free(other);
	}
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
	tcase_add_test(tc, dma_selects_skips_and_reads);
	tcase_add_test(tc, malformed_dma_says_so_or_does_nothing);
	tcase_add_test(tc, too_many_are_refused);
	tcase_add_test(tc, ports_that_are_taken_are_an_error);
	suite_add_tcase(s, tc);
	srunner_run_all(sr, CK_NORMAL);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed != 0;
}
