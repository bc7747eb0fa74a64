/* SPDX-License-Identifier: MIT */
/*
 * test_virtio_legacy.c - a driver of virtio 0.9 on a transitional device, a modern one after it.
 */
#include <check.h>
#include "tests/support/fake_machine.h"
#include "tests/support/fake_blk.h"

#define DATA 0x40000
#define RING 0x20000

static struct fake_blk b;
static uint16_t io;

static void setup(void)
{
	static const struct virtio_blk_opts o = {.transitional = true, .queue_size = 64};
	int err;

	memset(&b, 0, sizeof(b));
	b.m = fake_machine_new();
	fake_mem_init(&b.m->mem);
	fake_disk_open(&b.disk, CACHE_WRITEBACK, false);
	err = pci_host_create(&b.m->s, &b.host);
	ck_assert_int_eq(err, 0);
	err = virtio_blk_create(&b.m->s, b.disk.loop, b.disk.disk, &o, &b.dev, NULL);
	ck_assert_int_eq(err, 0);
	io = (uint16_t)(fake_cfg_read(b.m, 1, PCI_BAR0, 4) & ~3u);
}

static void teardown(void)
{
	fake_blk_close(&b);
}

/* Negotiates, and puts queue 0 at RING; avail and used as 2.7.2 wants them. */
static void start(uint32_t features)
{
	out8(b.m, io + 18, 0);
	out8(b.m, io + 18, 1);
	out8(b.m, io + 18, 3);
	out32(b.m, io + 4, in32(b.m, io) & features);
	out16(b.m, io + 14, 0);
	ck_assert_uint_eq(fake_read(b.m, BUS_PORT, io + 12, 2), 64);
	ck_assert_uint_eq(in32(b.m, io + 8), 0);
	memset(gmem_ptr(&b.m->mem, RING, 0x4000), 0, 0x4000);
	out32(b.m, io + 8, RING / 4096);
	ck_assert_uint_eq(in32(b.m, io + 8), RING / 4096);
	b.r[0] = (struct fake_ring){.mem = &b.m->mem,
		.l = {.size = 64, .desc = RING, .avail = RING + 1024, .used = RING + 4096}};
	out8(b.m, io + 18, 7);
	ck_assert_uint_eq(in8(b.m, io + 18), 7);
}

static int request(uint32_t type, uint64_t sector, uint32_t len)
{
	blk_put(&b, 0, 0, type, sector, DATA, len);
	fake_publish(&b.r[0]);
	out16(b.m, io + 16, 0);
	return blk_all_back(&b, 0) ? blk_status(&b, 0) : -1;
}

START_TEST(a_legacy_driver_is_served)
{
	const uint8_t *p = gmem_ptr(&b.m->mem, DATA, SECTOR);

	ck_assert_uint_eq(fake_cfg_read(b.m, 1, PCI_DEVICE_ID, 2), 0x1001);
	ck_assert_uint_eq(fake_cfg_read(b.m, 1, PCI_REVISION, 1), 0);
	ck_assert_uint_eq(fake_cfg_read(b.m, 1, PCI_SUBSYS_ID, 2), 2);
	start(BLK_F_FLUSH | BLK_F_WCE);
	ck_assert_uint_eq(in32(b.m, io + 20), BLK_SECTORS); /* its configuration */
	ck_assert_int_eq(request(0, 5, SECTOR), 0);
	ck_assert_uint_eq(p[0], blk_byte(5));
	ck_assert_uint_eq(in8(b.m, io + 19) & 1, 1);
	ck_assert_uint_eq(in8(b.m, io + 19), 0);
	memset(gmem_ptr(&b.m->mem, DATA, SECTOR), 0x3c, SECTOR);
	ck_assert_int_eq(request(1, 6, SECTOR), 0);
	ck_assert_int_eq(request(0, 6, SECTOR), 0);
	ck_assert_uint_eq(p[511], 0x3c);
	ck_assert_int_eq(request(4, 0, 0), 0);
	/* The cache bit, through the legacy window. */
	ck_assert_uint_eq(in8(b.m, io + 20 + BLK_WRITEBACK), 1);
	out8(b.m, io + 20 + BLK_WRITEBACK, 0);
	ck_assert(!disk_wce(b.disk.disk));
}
END_TEST

START_TEST(one_that_cannot_flush_gets_writethrough)
{
	uint64_t before;

	start(0);
	before = blk_fdatasyncs(&b);
	ck_assert_int_eq(request(1, 6, SECTOR), 0);
	ck_assert_uint_gt(blk_fdatasyncs(&b), before);
	out8(b.m, io + 18, 0);
	ck_assert_uint_eq(in8(b.m, io + 18), 0);
	ck_assert_uint_eq(in32(b.m, io + 8), 0);
}
END_TEST

START_TEST(a_modern_driver_is_served_after_it)
{
	start(BLK_F_FLUSH);
	ck_assert_int_eq(request(0, 5, SECTOR), 0);
	ck_assert(fake_virtio_find(&b.d, b.m, 1));
	ck_assert(fake_blk_start(&b, BLK_F_FLUSH, 1, 16));
	ck_assert_int_eq(blk_do(&b, 0, 7, DATA, SECTOR), 0);
}
END_TEST

/* Any value at any width: nothing but the guest's own disk may suffer. */
START_TEST(any_write_is_survived)
{
	uint32_t seed = 7;

	for (int i = 0; i < 20000; i++) {
		uint32_t v = seed = seed * 1664525 + 1013904223, off = v >> 8 & 127;
		unsigned len = 1u << (v >> 16) % 3;

		if (v >> 31)
			fake_write(b.m, BUS_PORT, io + off, off == 8 ? v >> 20 : v >> 5, len);
		else
			fake_read(b.m, BUS_PORT, io + off, len);
	}
	start(BLK_F_FLUSH);
	ck_assert_int_eq(request(0, 5, SECTOR), 0);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("virtio_legacy");
	TCase *tc = tcase_create("virtio_legacy");
	SRunner *sr = srunner_create(s);
	int failed;

	tcase_set_timeout(tc, 60);
	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_add_test(tc, a_legacy_driver_is_served);
	tcase_add_test(tc, one_that_cannot_flush_gets_writethrough);
	tcase_add_test(tc, a_modern_driver_is_served_after_it);
	tcase_add_test(tc, any_write_is_survived);
	suite_add_tcase(s, tc);
	srunner_run_all(sr, CK_NORMAL);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed != 0;
}
