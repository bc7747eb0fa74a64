/* SPDX-License-Identifier: MIT */
/*
 * test_ide.c - a drive as a driver meets it: registers, PIO, DMA, the cache, errors, resets.
 */
#include <check.h>
#include "tests/support/fake_machine.h"
#include "tests/support/fake_ide.h"

static struct fake_ide f;
static uint8_t buf[256 * SECTOR];

static void setup(void)
{
	fake_ide_open(&f, CACHE_WRITEBACK, false, false);
}

static void setup_writethrough(void)
{
	fake_ide_open(&f, CACHE_WRITETHROUGH, false, false);
}

static void setup_unsafe(void)
{
	fake_ide_open(&f, CACHE_UNSAFE, false, false);
}

static void setup_readonly(void)
{
	fake_ide_open(&f, CACHE_WRITEBACK, true, false);
}

static void teardown(void)
{
	fake_ide_close(&f);
}

static uint16_t word(unsigned i)
{
	return (uint16_t)(buf[2 * i] | buf[2 * i + 1] << 8);
}

static void identify(void)
{
	uint8_t sum = 0, s;

	ide_issue(&f, 0xec, 0, 0, 0, 0xa0);
	ck_assert_uint_eq(ide_pio(&f, buf, NULL, SECTOR, &s), SECTOR);
	ck_assert_uint_eq(s, ST_GOOD);
	for (unsigned i = 0; i < SECTOR; i++)
		sum = (uint8_t)(sum + buf[i]);
	ck_assert_uint_eq(sum, 0);
}

static bool wce(void)
{
	identify();
	return word(85) >> 5 & 1;
}

static struct disk_stats stats(void)
{
	struct disk_stats s;

	disk_stats_get(f.disk.disk, &s);
	return s;
}

static bool line(void)
{
	return atomic_load(&f.m->irqs.line[14].level);
}

START_TEST(the_drive_says_what_it_is)
{
	char serial[21] = {0};

	out32(f.m, 0xcf8, 0x80000900);
	ck_assert_uint_eq(in32(f.m, 0xcfc), 0x70108086);
	ck_assert_uint_eq(in8(f.m, 0x1f2), 1); /* the signature */
	ck_assert_uint_eq(in8(f.m, 0x1f4) | in8(f.m, 0x1f5), 0);
	identify();
	for (unsigned i = 0; i < 20; i++)
		serial[i] = (char)buf[20 + (i ^ 1)];
	ck_assert_str_eq(serial, "serial number       ");
	ck_assert_uint_eq(word(60) | (uint32_t)word(61) << 16, BLK_SECTORS);
	ck_assert_uint_eq(word(100) | (uint32_t)word(101) << 16, BLK_SECTORS);
	ck_assert_uint_eq(word(49) >> 8 & 3, 3);
	ck_assert_uint_eq(word(83) & 0xc000, 0x4000);
	ck_assert(!line()); /* the status has been read */
	/* No second drive, no second channel. */
	out8(f.m, 0x1f6, 0xb0);
	ck_assert_uint_eq(in8(f.m, 0x1f7), 0);
	out8(f.m, 0x1f2, 0x55);
	ck_assert_uint_eq(in8(f.m, 0x1f2), 0);
	ck_assert_uint_eq(in8(f.m, 0x177), 0);
	ide_issue(&f, 0xec, 0, 0, 0, 0xb0);
	ck_assert(!line());
}
END_TEST

static void check_sectors(const uint8_t *p, uint64_t lba, unsigned n)
{
	for (unsigned i = 0; i < n * SECTOR; i++)
		ck_assert_uint_eq(p[i], blk_byte(lba + i / SECTOR));
}

START_TEST(pio_reads_in_every_form)
{
	uint8_t s;

	for (unsigned n = 1; n <= 256; n = n * 3 + 1) {
		ide_issue(&f, 0x20, 0, 5, n, 0xe0);
		ck_assert_uint_eq(ide_pio(&f, buf, NULL, SECTOR, &s), n * SECTOR);
		check_sectors(buf, 5, n);
		ck_assert_uint_eq(s, ST_GOOD);
	}
	ide_issue(&f, 0x24, 0, 1000, 64, 0x40);
	ck_assert_uint_eq(ide_pio(&f, buf, NULL, SECTOR, &s), 64 * SECTOR);
	check_sectors(buf, 1000, 64);
	ck_assert_uint_eq(ide_do(&f, 0xc6, 0, 8), ST_GOOD);
	ide_issue(&f, 0xc4, 0, 17, 16, 0xe0);
	ck_assert_uint_eq(ide_pio(&f, buf, NULL, 8 * SECTOR, &s), 16 * SECTOR);
	check_sectors(buf, 17, 16);
	ck_assert_uint_eq(ide_do(&f, 0xc6, 0, 5), ST_GOOD | ST_ERR);
	/* CHS: cylinder 0, head 2, sector 3 is block 2 * 63 + 2; 0 sectors are 256. */
	ide_issue(&f, 0x20, 0, 3, 0, 0xa2);
	ck_assert_uint_eq(ide_pio(&f, buf, NULL, SECTOR, &s), 256 * SECTOR);
	check_sectors(buf, 128, 256);
	ck_assert_uint_eq(ide_do(&f, 0x40, 0, 200), ST_GOOD); /* verify */
}
END_TEST

START_TEST(pio_writes_are_there_and_interrupts_come)
{
	uint8_t s;
	int rises;

	memset(buf, 0x5a, sizeof(buf));
	rises = atomic_load(&f.m->irqs.line[14].rises);
	ide_issue(&f, 0x30, 0, 40, 3, 0xe0);
	ck_assert_uint_eq(in8(f.m, 0x3f6), ST_GOOD | ST_DRQ); /* at once, without an interrupt */
	ck_assert(!line());
	ck_assert_uint_eq(ide_pio(&f, NULL, buf, SECTOR, &s), 3 * SECTOR);
	ck_assert_uint_eq(s, ST_GOOD);
	ck_assert_int_eq(atomic_load(&f.m->irqs.line[14].rises) - rises, 3);
	ide_issue(&f, 0x20, 0, 39, 5, 0xe0);
	memset(buf, 0, sizeof(buf));
	ide_pio(&f, buf, NULL, SECTOR, &s);
	check_sectors(buf, 39, 1);
	for (unsigned i = SECTOR; i < 4 * SECTOR; i++)
		ck_assert_uint_eq(buf[i], 0x5a);
	check_sectors(buf + 4 * SECTOR, 43, 1);
	/* More than the buffer holds. */
	ide_issue(&f, 0x34, 0, 100, 700, 0x40);
	for (unsigned n = 0; n < 700; n++) {
		memset(buf, (int)(n % 251), SECTOR);
		ck_assert(ide_settled(&f) & ST_DRQ);
		for (unsigned i = 0; i < SECTOR / 4; i++)
			out32(f.m, 0x1f0, 0x01010101u * (n % 251));
	}
	ck_assert_uint_eq(ide_settled(&f), ST_GOOD);
	ide_issue(&f, 0x24, 0, 799, 1, 0x40);
	ide_pio(&f, buf, NULL, SECTOR, &s);
	ck_assert_uint_eq(buf[0], 699 % 251);
}
END_TEST

START_TEST(dma_follows_the_list_of_regions)
{
	ide_prd(&f, 0, IDE_DATA + 2, 0x200 - 2);
	ide_prd(&f, 1, 0x20000, 2);
	ide_prd(&f, 2, IDE_DATA + 0x1000, 0x400 | PRD_LAST);
	ide_issue(&f, 0x25, 0, 300, 3, 0x40);
	ck_assert_uint_eq(ide_bm_run(&f, true) & 7, 4); /* interrupt, neither active nor error */
	ck_assert(line());
	ck_assert_uint_eq(in8(f.m, 0x1f7), ST_GOOD);
	ck_assert_uint_eq(*ide_mem(&f, IDE_DATA + 2), blk_byte(300));
	ck_assert_uint_eq(*ide_mem(&f, 0x20001), blk_byte(300));
	check_sectors(ide_mem(&f, IDE_DATA + 0x1000), 301, 2);
	/* Back to other sectors; a region of 0 bytes is one of 64 KiB, and too long is fine. */
	memset(ide_mem(&f, IDE_DATA), 0x77, 65536);
	ide_prd(&f, 0, IDE_DATA, PRD_LAST);
	ide_issue(&f, 0xca, 0, 600, 100, 0xe0);
	ck_assert_uint_eq(ide_bm_run(&f, false) & 7, 5); /* still active: regions are left */
	ck_assert_uint_eq(in8(f.m, 0x1f7), ST_GOOD);
	ck_assert_uint_eq(in8(f.m, f.bm + 2) & 1, 0);
	ide_issue(&f, 0xc8, 0, 699, 1, 0xe0);
	ide_bm_run(&f, true);
	ck_assert_uint_eq(*ide_mem(&f, IDE_DATA + 511), 0x77);
}
END_TEST

START_TEST(a_bad_list_ends_the_command)
{
	/* Too short: no interrupt, not active. */
	ide_prd(&f, 0, IDE_DATA, 512 | PRD_LAST);
	ide_issue(&f, 0xc8, 0, 0, 2, 0xe0);
	ck_assert_uint_eq(ide_bm_run(&f, true) & 7, 0);
	ck_assert_uint_eq(in8(f.m, 0x1f7), ST_GOOD);
	/* Outside memory, at a device, the list itself outside memory. */
	ide_prd(&f, 0, 0xfee00000, 512 | PRD_LAST);
	ide_issue(&f, 0xc8, 0, 0, 1, 0xe0);
	ck_assert_uint_eq(ide_bm_run(&f, true) & 7, 6);
	ck_assert_uint_eq(in8(f.m, 0x1f7), ST_GOOD | ST_ERR);
	ide_issue(&f, 0xc8, 0, 0, 1, 0xe0);
	out32(f.m, f.bm + 4, 0xfffffffc);
	out8(f.m, f.bm, 9);
	ck_assert_uint_eq(ide_settled(&f), ST_GOOD | ST_ERR);
	out8(f.m, f.bm, 0);
	/* Pieces of two bytes, more of them than vectors. */
	for (unsigned i = 0; i < 1024; i++)
		ide_prd(&f, i, IDE_DATA + 4 * i, 2 | (i == 1023 ? PRD_LAST : 0));
	ide_issue(&f, 0xc8, 0, 9, 4, 0xe0);
	ck_assert_uint_eq(ide_bm_run(&f, true) & 7, 4);
	for (unsigned i = 0; i < 1024; i++)
		ck_assert_uint_eq(*ide_mem(&f, IDE_DATA + 4 * i), blk_byte(9 + i / 256));
}
END_TEST

START_TEST(ranges_and_unknown_commands_are_refused)
{
	uint8_t s;

	ide_issue(&f, 0x24, 0, BLK_SECTORS - 1, 2, 0x40);
	ck_assert_uint_eq(ide_settled(&f), ST_GOOD | ST_ERR);
	ck_assert_uint_eq(in8(f.m, 0x1f1), ER_IDNF);
	ide_issue(&f, 0x24, 0, 0xffffffffffffULL, 0, 0x40);
	ck_assert_uint_eq(ide_settled(&f), ST_GOOD | ST_ERR);
	ide_issue(&f, 0x20, 0, 0, 1, 0xa0); /* CHS sector 0 */
	ck_assert_uint_eq(ide_settled(&f), ST_GOOD | ST_ERR);
	for (unsigned c = 0; c < 256; c++) {
		if (c == 0x00 || c == 0x01 || c == 0xa0 || c == 0xa1 || c == 0xc7 || c == 0xfe) {
			ck_assert_uint_eq(ide_do(&f, (uint8_t)c, 0, 0), ST_GOOD | ST_ERR);
			ck_assert_uint_eq(in8(f.m, 0x1f1), ER_ABRT);
		}
	}
	ide_issue(&f, 0x20, 0, BLK_SECTORS - 1, 1, 0xe0);
	ck_assert_uint_eq(ide_pio(&f, buf, NULL, SECTOR, &s), SECTOR);
}
END_TEST

START_TEST(the_cache_bit_is_true)
{
	uint64_t before;
	uint8_t s;

	ck_assert(wce());
	memset(buf, 1, SECTOR);
	ide_issue(&f, 0x30, 0, 1, 1, 0xe0);
	ide_pio(&f, NULL, buf, SECTOR, &s);
	before = stats().host_fdatasyncs;
	ck_assert_uint_eq(ide_do(&f, 0xef, 0x82, 0), ST_GOOD);
	ck_assert_uint_gt(stats().host_fdatasyncs, before); /* what was acknowledged is durable */
	ck_assert(!wce());
	before = stats().host_fdatasyncs;
	memset(buf, 2, SECTOR);
	ide_issue(&f, 0x30, 0, 1, 1, 0xe0);
	ide_pio(&f, NULL, buf, SECTOR, &s);
	ck_assert_uint_gt(stats().host_fdatasyncs, before);
	ck_assert_uint_eq(ide_do(&f, 0xef, 0x02, 0), ST_GOOD);
	ck_assert(wce());
	/* FUA with the cache on. */
	before = stats().host_fdatasyncs;
	memset(ide_mem(&f, IDE_DATA), 3, SECTOR);
	ide_prd(&f, 0, IDE_DATA, 512 | PRD_LAST);
	ide_issue(&f, 0x3d, 0, 1, 1, 0x40);
	ck_assert_uint_eq(ide_bm_run(&f, false) & 7, 4);
	ck_assert_uint_gt(stats().host_fdatasyncs, before);
	ck_assert_uint_eq(ide_do(&f, 0xe7, 0, 0), ST_GOOD);
	ck_assert_uint_eq(ide_do(&f, 0xea, 0, 0), ST_GOOD);
	ck_assert_uint_ge(stats().flushes, 2);
}
END_TEST

static void soft_reset(void)
{
	out8(f.m, 0x3f6, CTL_SRST);
	ck_assert_uint_eq(in8(f.m, 0x1f7), ST_BSY);
	out8(f.m, 0x3f6, 0);
	ck_assert_uint_eq(ide_settled(&f), ST_GOOD);
	ck_assert_uint_eq(in8(f.m, 0x1f1), 1);
}

START_TEST(a_reset_keeps_or_reverts_as_told)
{
	ck_assert(!wce());
	ck_assert_uint_eq(ide_do(&f, 0xef, 0x02, 0), ST_GOOD);
	soft_reset();
	ck_assert(wce());
	ck_assert_uint_eq(ide_do(&f, 0xef, 0xcc, 0), ST_GOOD);
	soft_reset();
	ck_assert(!wce());
	ck_assert_uint_eq(ide_do(&f, 0xef, 0x02, 0), ST_GOOD);
	ck_assert_uint_eq(ide_do(&f, 0xef, 0x66, 0), ST_GOOD);
	soft_reset();
	ck_assert(wce());
	f.dev->ops->reset(f.dev); /* power */
	ck_assert(!wce());
}
END_TEST

START_TEST(unsafe_never_says_that_it_is_off)
{
	ck_assert(wce());
	ck_assert_uint_eq(ide_do(&f, 0xef, 0x82, 0), ST_GOOD | ST_ERR);
	ck_assert(wce());
}
END_TEST

/* Until let_go() nothing reaches the host file. */
static void hold_on(void *arg)
{
	f.disk.hold.holding = true;
}

static void let_go(void *arg)
{
	fake_hold_release(&f.disk.hold.timer);
}

START_TEST(a_slow_flush_keeps_bsy_and_no_vcpu)
{
	uint8_t s;

	memset(buf, 9, SECTOR);
	ide_issue(&f, 0x30, 0, 1, 1, 0xe0);
	ide_pio(&f, NULL, buf, SECTOR, &s);
	fake_on_loop(&f.disk, hold_on, NULL);
	ide_issue(&f, 0xe7, 0, 0, 0, 0xe0);
	ck_assert_uint_eq(in8(f.m, 0x3f6), ST_BSY); /* and we are back */
	ck_assert(!line());
	out8(f.m, 0x1f7, 0xec); /* ignored */
	ck_assert_uint_eq(in8(f.m, 0x3f6), ST_BSY);
	fake_on_loop(&f.disk, let_go, NULL);
	ck_assert_uint_eq(ide_settled(&f), ST_GOOD);
	ck_assert(line());
}
END_TEST

START_TEST(a_reset_waits_for_what_is_in_flight)
{
	ide_prd(&f, 0, IDE_DATA, 512 | PRD_LAST);
	fake_on_loop(&f.disk, hold_on, NULL);
	ide_issue(&f, 0xc8, 0, 7, 1, 0xe0);
	out32(f.m, f.bm + 4, IDE_PRDT);
	out8(f.m, f.bm, 9);
	fake_on_loop(&f.disk, hold_on, NULL); /* the loop has begun it */
	out8(f.m, 0x3f6, CTL_SRST);
	out8(f.m, 0x3f6, 0);
	ck_assert_uint_eq(in8(f.m, 0x3f6), ST_BSY);
	fake_on_loop(&f.disk, let_go, NULL);
	ck_assert_uint_eq(ide_settled(&f), ST_GOOD);
	ck_assert_uint_eq(*ide_mem(&f, IDE_DATA), blk_byte(7));
	ck_assert(!line());
	fake_disk_hold(&f.disk);
	ide_issue(&f, 0xc8, 0, 7, 1, 0xe0);
	f.dev->ops->reset(f.dev);
	ck_assert(!line());
	ck_assert_uint_eq(ide_settled(&f), ST_GOOD);
}
END_TEST

static struct fault_rule rule;

static void add_rule(void *arg)
{
	fault_add(f.disk.fault, &rule);
}

START_TEST(a_host_error_names_the_sector)
{
	uint8_t s;

	rule = (struct fault_rule){.ops = FAULT_ON(FILE_READ), .nth = 1, .and_all_after = true,
		.err = -EIO, .off = 45 * SECTOR, .len = SECTOR};
	fake_on_loop(&f.disk, add_rule, NULL);
	ide_issue(&f, 0x24, 0, 40, 10, 0x40);
	ide_pio(&f, buf, NULL, SECTOR, &s);
	ck_assert_uint_eq(s, ST_GOOD | ST_ERR);
	ck_assert_uint_eq(in8(f.m, 0x1f1), ER_UNC);
	ck_assert_uint_eq(ide_lba48(&f), 45);
	ide_prd(&f, 0, IDE_DATA, 5120 | PRD_LAST);
	ide_issue(&f, 0xc8, 0, 42, 10, 0xe0);
	ide_bm_run(&f, true);
	ck_assert_uint_eq(in8(f.m, 0x1f7), ST_GOOD | ST_ERR);
	ck_assert_uint_eq(in8(f.m, 0x1f3), 45);
	check_sectors(ide_mem(&f, IDE_DATA), 42, 3); /* all before it is there */
}
END_TEST

START_TEST(trim_takes_a_list_of_ranges)
{
	uint64_t e[64] = {8 | 16ULL << 48, 0, 100 | 1ULL << 48};
	uint64_t past[64] = {BLK_SECTORS | 1ULL << 48};

	memcpy(ide_mem(&f, IDE_DATA), e, sizeof(e));
	ide_prd(&f, 0, IDE_DATA, 512 | PRD_LAST);
	ide_issue(&f, 0x06, 1, 0, 1, 0x40);
	ck_assert_uint_eq(ide_bm_run(&f, false) & 7, 4);
	ck_assert_uint_eq(in8(f.m, 0x1f7), ST_GOOD);
	ck_assert_uint_eq(stats().discards, 2);
	ck_assert_uint_eq(stats().discard_bytes, 17 * SECTOR);
	memcpy(ide_mem(&f, IDE_DATA), past, sizeof(past));
	ide_issue(&f, 0x06, 1, 0, 1, 0x40);
	ide_bm_run(&f, false);
	ck_assert_uint_eq(in8(f.m, 0x1f7), ST_GOOD | ST_ERR);
	ck_assert_uint_eq(ide_do(&f, 0x06, 0, 1), ST_GOOD | ST_ERR); /* not TRIM */
}
END_TEST

START_TEST(a_readonly_disk_refuses_writes_and_takes_flushes)
{
	ide_issue(&f, 0x30, 0, 0, 1, 0xe0);
	ck_assert_uint_eq(ide_settled(&f), ST_GOOD | ST_ERR);
	ck_assert_uint_eq(ide_do(&f, 0xe7, 0, 0), ST_GOOD);
	ck_assert_uint_eq(ide_do(&f, 0xef, 0x82, 0), ST_GOOD);
	ck_assert(!wce());
}
END_TEST

START_TEST(smart_says_that_all_is_well)
{
	ide_issue(&f, 0xb0, 0xda, 0xc24f00, 0, 0xe0);
	ck_assert_uint_eq(ide_settled(&f), ST_GOOD);
	ck_assert_uint_eq(in8(f.m, 0x1f4), 0x4f);
	ck_assert_uint_eq(in8(f.m, 0x1f5), 0xc2);
	ck_assert_uint_eq(ide_do(&f, 0xb0, 0xda, 0), ST_GOOD | ST_ERR); /* without the key */
}
END_TEST

static void add(Suite *s, const char *name, void (*start)(void), const TTest *const *t)
{
	TCase *tc = tcase_create(name);

	tcase_add_checked_fixture(tc, start, teardown);
	tcase_set_timeout(tc, 60);
	for (; *t; t++)
		tcase_add_test(tc, *t);
	suite_add_tcase(s, tc);
}

int main(void)
{
	Suite *s = suite_create("ide");
	SRunner *sr = srunner_create(s);
	int failed;

	add(s, "writeback", setup,
		(const TTest *const[]){the_drive_says_what_it_is, pio_reads_in_every_form,
			pio_writes_are_there_and_interrupts_come, dma_follows_the_list_of_regions,
			a_bad_list_ends_the_command, ranges_and_unknown_commands_are_refused,
			the_cache_bit_is_true, a_slow_flush_keeps_bsy_and_no_vcpu,
			a_reset_waits_for_what_is_in_flight, a_host_error_names_the_sector,
			trim_takes_a_list_of_ranges, smart_says_that_all_is_well, NULL});
	add(s, "writethrough", setup_writethrough,
		(const TTest *const[]){a_reset_keeps_or_reverts_as_told, NULL});
	add(s, "unsafe", setup_unsafe,
		(const TTest *const[]){unsafe_never_says_that_it_is_off, NULL});
	add(s, "readonly", setup_readonly,
		(const TTest *const[]){a_readonly_disk_refuses_writes_and_takes_flushes, NULL});
	srunner_run_all(sr, CK_NORMAL);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed != 0;
}
