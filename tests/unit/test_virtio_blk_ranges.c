/* SPDX-License-Identifier: MIT */
/*
 * test_virtio_blk_ranges.c - DISCARD and WRITE ZEROES, their limits, and a disk that grows.
 */
#include <check.h>
#include "tests/support/fake_machine.h"
#include "tests/support/fake_blk.h"

#define DATA 0x40000
#define F_DISCARD (1ULL << 13)
#define F_ZEROES  (1ULL << 14)

enum { IN = 0, DISCARD = 11, ZEROES = 13, SECURE_ERASE = 14 };
enum { OK = 0, IOERR = 1, UNSUPP = 2 };

static struct fake_blk b;
static const struct virtio_blk_opts opts;

static void setup(void)
{
	fake_blk_open(&b, CACHE_WRITEBACK, false, &opts);
	ck_assert(fake_blk_start(&b, voffered(&b.d), 1, 64));
}

static void teardown(void)
{
	fake_blk_close(&b);
}

static int range(uint32_t type, uint64_t sector, uint32_t n, uint32_t flags, uint32_t len)
{
	struct {
		uint64_t sector;
		uint32_t n, flags;
	} r = {sector, n, flags};

	memcpy(gmem_ptr(&b.m->mem, DATA, sizeof(r)), &r, sizeof(r));
	return blk_do(&b, type, 0, DATA, len);
}

static struct disk_stats stats(void)
{
	struct disk_stats s;

	disk_stats_get(b.disk.disk, &s);
	return s;
}

START_TEST(zeroes_are_written_and_ranges_discarded)
{
	const uint8_t *p = gmem_ptr(&b.m->mem, DATA, 4 * SECTOR);

	ck_assert_uint_eq(voffered(&b.d) & (F_DISCARD | F_ZEROES), F_DISCARD | F_ZEROES);
	ck_assert_int_eq(range(ZEROES, 10, 2, 0, 16), OK);
	ck_assert_int_eq(blk_do(&b, IN, 9, DATA, 4 * SECTOR), OK);
	ck_assert_uint_eq(p[0], blk_byte(9));
	for (unsigned i = SECTOR; i < 3 * SECTOR; i++)
		ck_assert_uint_eq(p[i], 0);
	ck_assert_uint_eq(p[3 * SECTOR], blk_byte(12));
	ck_assert_int_eq(range(ZEROES, 20, 1, 1, 16), OK); /* may unmap */
	ck_assert_int_eq(blk_do(&b, IN, 20, DATA, SECTOR), OK);
	ck_assert_uint_eq(p[0], 0);
	ck_assert_int_eq(range(DISCARD, 100, 8, 0, 16), OK);
	ck_assert_uint_eq(stats().discards, 1);
	ck_assert_uint_eq(stats().zeroes, 2);
}
END_TEST

START_TEST(impossible_ranges_are_refused)
{
	ck_assert_int_eq(range(DISCARD, BLK_SECTORS - 1, 2, 0, 16), IOERR);
	ck_assert_int_eq(range(ZEROES, UINT64_MAX, 1, 0, 16), IOERR);
	ck_assert_int_eq(range(DISCARD, 0, 0, 0, 16), IOERR);
	ck_assert_int_eq(range(DISCARD, 0, 1, 0, 15), IOERR);
	ck_assert_int_eq(range(DISCARD, 0, 1, 0, 32), IOERR); /* one range, as the limit says */
	ck_assert_int_eq(range(DISCARD, 0, 1, 0, 0), IOERR);
	ck_assert_int_eq(range(DISCARD, 0, 1, 1, 16), UNSUPP);
	ck_assert_int_eq(range(ZEROES, 0, 1, 2, 16), UNSUPP);
	ck_assert_int_eq(range(SECURE_ERASE, 0, 1, 0, 16), UNSUPP);
	ck_assert_uint_eq(stats().discards + stats().zeroes, 0);
}
END_TEST

START_TEST(the_limits_are_true)
{
	ck_assert_uint_eq(vread(&b.d, b.d.config + 36, 4), 1u << 22);
	ck_assert_uint_eq(vread(&b.d, b.d.config + 40, 4), 1);
	ck_assert_uint_ge(vread(&b.d, b.d.config + 44, 4), 1);
	ck_assert_uint_eq(vread(&b.d, b.d.config + 48, 4), 1u << 22);
	ck_assert_uint_eq(vread(&b.d, b.d.config + 52, 4), 1);
	ck_assert_uint_eq(vread(&b.d, b.d.config + 56, 1), 1);
}
END_TEST

static struct fiber_start grow;
static atomic_int grown = 1;

static void grow_fiber(struct fiber_start *s)
{
	atomic_store(&grown, disk_grow(b.disk.disk, (uint64_t)(BLK_SECTORS + 64) * SECTOR));
}

static void start_grow(void *arg)
{
	grow.fn = grow_fiber;
	fiber_start(b.disk.loop, &grow);
}

START_TEST(a_driver_hears_that_the_disk_has_grown)
{
	ck_assert_int_eq(range(DISCARD, BLK_SECTORS, 1, 0, 16), IOERR);
	fake_on_loop(&b.disk, start_grow, NULL);
	for (int i = 0; atomic_load(&grown) == 1 && i < 10000; i++)
		usleep(1000);
	ck_assert_int_eq(atomic_load(&grown), 0);
	vread(&b.d, b.d.isr, 1);
	virtio_blk_resized(b.dev);
	ck_assert_uint_eq(vread(&b.d, b.d.isr, 1) & 2, 2);
	ck_assert_uint_eq(vread(&b.d, b.d.config, 4), BLK_SECTORS + 64);
	ck_assert_int_eq(blk_do(&b, IN, BLK_SECTORS + 63, DATA, SECTOR), OK);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("virtio_blk_ranges");
	TCase *tc = tcase_create("virtio_blk_ranges");
	SRunner *sr = srunner_create(s);
	int failed;

	tcase_set_timeout(tc, 60);
	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_add_test(tc, zeroes_are_written_and_ranges_discarded);
	tcase_add_test(tc, impossible_ranges_are_refused);
	tcase_add_test(tc, the_limits_are_true);
	tcase_add_test(tc, a_driver_hears_that_the_disk_has_grown);
	suite_add_tcase(s, tc);
	srunner_run_all(sr, CK_NORMAL);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed != 0;
}
