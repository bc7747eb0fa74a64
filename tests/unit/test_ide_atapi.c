/* SPDX-License-Identifier: MIT */
/*
 * test_ide_atapi.c - a CD-ROM drive: who it is, its packets, the disc in and out.
 */
#include <check.h>
#include <sys/eventfd.h>
#include <unistd.h>
#include "tests/support/fake_machine.h"
#include "tests/support/fake_ide.h"

#define CD_SECTORS_ALL (BLK_SECTORS / 4)

static struct fake_ide f;
static uint8_t buf[70000];

static void setup(void)
{
	fake_ide_open(&f, CACHE_WRITEBACK, true, true);
}

static void teardown(void)
{
	fake_ide_close(&f);
}

/* Sends a packet; feature 1: the data by bus master. */
static void packet(const void *bytes, size_t n, uint8_t feature, unsigned limit)
{
	uint8_t p[12] = {0};

	memcpy(p, bytes, n);
	ide_issue(&f, 0xa0, feature, (uint64_t)limit << 8, 0, 0xa0);
	ck_assert_uint_eq(in8(f.m, 0x3f6), ST_GOOD | ST_DRQ);
	ck_assert_uint_eq(in8(f.m, 0x1f2), 1);
	for (unsigned i = 0; i < 12; i += 2)
		out16(f.m, 0x1f0, (unsigned)p[i] | (unsigned)p[i + 1] << 8);
}

/* The data of a packet in PIO; *blocks counts DRQs. */
static size_t receive(uint8_t *status, unsigned *blocks)
{
	size_t n = 0;

	for (*blocks = 0;; ++*blocks) {
		ide_settled(&f);
		*status = in8(f.m, 0x1f7);
		if (!(*status & ST_DRQ)) {
			ck_assert_uint_eq(in8(f.m, 0x1f2), 3);
			return n;
		}
		ck_assert_uint_eq(in8(f.m, 0x1f2), 2);
		for (unsigned k = in8(f.m, 0x1f4) | in8(f.m, 0x1f5) << 8, i = 0; i < k; i += 2) {
			uint16_t v = (uint16_t)fake_read(f.m, BUS_PORT, 0x1f0, 2);

			memcpy(buf + n, &v, 2);
			n += 2;
		}
	}
}

#define SEND(limit, ...)                                                                           \
	packet((const uint8_t[]){__VA_ARGS__}, sizeof((const uint8_t[]){__VA_ARGS__}), 0, limit)

static size_t run(uint8_t *status)
{
	unsigned blocks;

	return receive(status, &blocks);
}

static unsigned sense_of(void)
{
	uint8_t s;

	SEND(64, 0x03, 0, 0, 0, 18);
	ck_assert_uint_eq(run(&s), 18);
	ck_assert_uint_eq(s, ST_GOOD);
	return (unsigned)buf[2] << 8 | buf[12];
}

START_TEST(it_is_known_by_its_signature)
{
	uint8_t s;

	ck_assert_uint_eq(in8(f.m, 0x1f7), 0);
	ck_assert_uint_eq(in8(f.m, 0x1f4), 0x14);
	ck_assert_uint_eq(in8(f.m, 0x1f5), 0xeb);
	ck_assert_uint_eq(ide_do(&f, 0xec, 0, 0), ST_GOOD | ST_ERR);
	ck_assert_uint_eq(in8(f.m, 0x1f5), 0xeb);
	ide_issue(&f, 0xa1, 0, 0, 0, 0xa0);
	ck_assert_uint_eq(ide_pio(&f, buf, NULL, SECTOR, &s), SECTOR);
	ck_assert_uint_eq(buf[1], 0x85);
	SEND(64, 0x12, 0, 0, 0, 36);
	ck_assert_uint_eq(run(&s), 36);
	ck_assert_uint_eq(buf[0], 5);
	ck_assert_mem_eq(buf + 16, "SLUICE CD-ROM", 13);
	SEND(64, 0x12, 0, 0, 0, 5); /* a part of it */
	ck_assert_uint_eq(run(&s), 6); /* 5, and the word's other half */
	ide_issue(&f, 0x08, 0, 0, 0, 0xa0);
	ck_assert_uint_eq(ide_settled(&f), 0);
	ck_assert_uint_eq(in8(f.m, 0x1f4), 0x14);
}
END_TEST

static void check_cd(const uint8_t *p, uint32_t lba, unsigned n)
{
	for (unsigned i = 0; i < n * 4; i++)
		ck_assert_uint_eq(p[i * SECTOR], blk_byte(lba * 4 + i));
}

START_TEST(it_reads_in_blocks_and_by_bus_master)
{
	static const uint8_t read[] = {0x28, 0, 0, 0, 0, 100, 0, 0, 20};
	unsigned blocks;
	uint8_t s;

	SEND(64, 0x25);
	ck_assert_uint_eq(run(&s), 8);
	ck_assert_uint_eq(buf[2] << 8 | buf[3], CD_SECTORS_ALL - 1);
	ck_assert_uint_eq(buf[6], 2048 >> 8);
	packet(read, sizeof(read), 0, 4096);
	ck_assert_uint_eq(receive(&s, &blocks), 20 * 2048);
	ck_assert_uint_eq(s, ST_GOOD);
	ck_assert_uint_eq(blocks, 10);
	check_cd(buf, 100, 20);
	packet(read, sizeof(read), 0, 0xffff);
	ck_assert_uint_eq(receive(&s, &blocks), 20 * 2048);
	ck_assert_uint_eq(blocks, 1);
	ide_prd(&f, 0, IDE_DATA, 20 * 2048 | PRD_LAST);
	packet(read, sizeof(read), 1, 0);
	ck_assert_uint_eq(ide_bm_run(&f, true) & 7, 4);
	ck_assert_uint_eq(in8(f.m, 0x1f7), ST_GOOD);
	check_cd(ide_mem(&f, IDE_DATA), 100, 20);
	ide_prd(&f, 0, IDE_DATA, 8 | PRD_LAST);
	packet((const uint8_t[]){0x25}, 1, 1, 0);
	ck_assert_uint_eq(ide_bm_run(&f, true) & 7, 4);
	ck_assert_uint_eq(*ide_mem(&f, IDE_DATA + 6), 8);
	SEND(64, 0xa8, 0, 0, 0, 2, 0, 0, 0, 0, 1); /* past the end */
	run(&s);
	ck_assert_uint_eq(s, ST_GOOD | ST_ERR);
	ck_assert_uint_eq(in8(f.m, 0x1f1) >> 4, 5);
	ck_assert_uint_eq(sense_of(), 0x521);
}
END_TEST

START_TEST(it_tells_of_tracks_and_modes)
{
	uint8_t s;

	SEND(2048, 0x43, 2, 0, 0, 0, 0, 0, 3, 0x24);
	ck_assert_uint_eq(run(&s), 20);
	ck_assert_uint_eq(buf[6], 1);
	ck_assert_uint_eq(buf[10], 2); /* 00:02:00 */
	ck_assert_uint_eq(buf[14], 0xaa);
	SEND(2048, 0x46, 0, 0, 0, 0, 0, 0, 0, 40);
	ck_assert_uint_eq(run(&s), 40);
	ck_assert_uint_eq(buf[7], 8); /* CD-ROM */
	SEND(2048, 0x5a, 0, 0x2a, 0, 0, 0, 0, 0, 128);
	ck_assert_uint_eq(run(&s), 30);
	SEND(2048, 0x4a, 1, 0, 0, 0x10, 0, 0, 0, 8);
	ck_assert_uint_eq(run(&s), 8);
	ck_assert_uint_eq(buf[5], 2); /* a disc is there */
	SEND(2048, 0xff);
	run(&s);
	ck_assert_uint_eq(sense_of(), 0x520);
	SEND(2048, 0x51, 0, 0, 0, 0, 0, 0, 0, 34);
	ck_assert_uint_eq(run(&s), 34);
}
END_TEST

/* A packet without data, and how it ended. */
static uint8_t order(unsigned command, unsigned how)
{
	uint8_t s;

	SEND(64, (uint8_t)command, 0, 0, 0, (uint8_t)how);
	run(&s);
	return s;
}

static unsigned event_of(void)
{
	uint8_t s;

	SEND(2048, 0x4a, 1, 0, 0, 0x10, 0, 0, 0, 8);
	run(&s);
	return (unsigned)buf[4] << 8 | buf[5];
}

START_TEST(the_disc_goes_and_comes)
{
	uint8_t s;

	ck_assert_int_eq(ide_cd_change(f.dev, 1, NULL, NULL), -ENOTBLK);
	ck_assert_int_eq(ide_cd_tray(f.dev, 1, true, true), -ENOTBLK);
	ck_assert_int_eq(ide_cd_tray(f.dev, 0, true, false), 0);
	ck_assert_int_eq(ide_cd_change(f.dev, 0, f.disk.loop, NULL), 0);
	ck_assert_uint_eq(event_of(), 0x301);
	ck_assert_uint_eq(order(0x00, 0), ST_GOOD | ST_ERR);
	ck_assert_uint_eq(sense_of(), 0x23a);
	SEND(64, 0x28, 0, 0, 0, 0, 0, 0, 0, 1);
	run(&s);
	ck_assert_uint_eq(sense_of(), 0x23a);
	ck_assert_int_eq(ide_cd_change(f.dev, 0, f.disk.loop, f.disk.disk), 0);
	order(0x00, 0);
	ck_assert_uint_eq(sense_of(), 0x23a); /* the tray is still out */
	ck_assert_int_eq(ide_cd_tray(f.dev, 0, false, false), 0);
	ck_assert_uint_eq(event_of(), 0x202);
	ck_assert_uint_eq(event_of(), 0x002);
	order(0x00, 0);
	ck_assert_uint_eq(sense_of(), 0x628); /* once */
	ck_assert_uint_eq(order(0x00, 0), ST_GOOD);
}
END_TEST

static struct ide_cd_state door(void)
{
	struct ide_cd_state s = {0};

	ck_assert(ide_cd_state(f.dev, 0, &s));
	return s;
}

/* Whoever watches is woken when the tray moves, and not when it does not. */
START_TEST(the_guest_moves_the_tray_itself)
{
	int fd = eventfd(0, EFD_NONBLOCK);
	uint64_t n;

	ide_cd_watch(f.dev, 1, fd); /* no CD-ROM: nothing */
	ide_cd_watch(f.dev, 0, fd);
	ck_assert_uint_eq(order(0x1b, 3), ST_GOOD); /* it is in */
	ck_assert_uint_eq(order(0x1b, 0x12), ST_GOOD); /* a power condition moves nothing */
	ck_assert_uint_eq(order(0x1b, 0), ST_GOOD);
	ck_assert_int_eq(read(fd, &n, sizeof(n)), -1);
	ck_assert_uint_eq(door().moves, 0);
	ck_assert_uint_eq(order(0x1b, 2), ST_GOOD);
	ck_assert_uint_eq(order(0x1b, 2), ST_GOOD);
	ck_assert_int_eq(read(fd, &n, sizeof(n)), sizeof(n));
	ck_assert_uint_eq(n, 1);
	ck_assert(door().open);
	order(0x00, 0);
	ck_assert_uint_eq(sense_of(), 0x23a);
	ck_assert_uint_eq(order(0x1b, 3), ST_GOOD);
	ck_assert_int_eq(read(fd, &n, sizeof(n)), sizeof(n));
	ck_assert_uint_eq(door().moves, 2);
	order(0x00, 0);
	ck_assert_uint_eq(sense_of(), 0x628);
	ide_cd_watch(f.dev, 0, -1);
	order(0x1b, 2);
	ck_assert_int_eq(read(fd, &n, sizeof(n)), -1);
	ck_assert_uint_eq(door().moves, 3);
	close(fd);
}
END_TEST

START_TEST(a_locked_tray_is_asked_for_and_opens_by_force)
{
	order(0x1e, 1);
	ck_assert_uint_eq(order(0x1b, 2), ST_GOOD | ST_ERR); /* the guest is held to it too */
	ck_assert_uint_eq(sense_of(), 0x553);
	ck_assert_int_eq(ide_cd_tray(f.dev, 0, true, false), -EINPROGRESS);
	ck_assert(!door().open && door().locked && !door().moves);
	ck_assert_uint_eq(event_of(), 0x102);
	ck_assert_uint_eq(event_of(), 0x002);
	/* What has become of the disc is told first. */
	ck_assert_int_eq(ide_cd_change(f.dev, 0, f.disk.loop, f.disk.disk), 0);
	ck_assert_int_eq(ide_cd_tray(f.dev, 0, true, false), -EINPROGRESS);
	ck_assert_uint_eq(event_of(), 0x202);
	ck_assert_uint_eq(event_of(), 0x102);
	/* The guest does as asked. */
	ck_assert_int_eq(ide_cd_tray(f.dev, 0, true, false), -EINPROGRESS);
	order(0x1e, 0);
	order(0x1b, 2);
	ck_assert_int_eq(ide_cd_tray(f.dev, 0, true, false), 0);
	ck_assert_uint_eq(event_of(), 0x001);
	/* A lock holds a tray that is in; force opens the lock with the tray. */
	order(0x1e, 1);
	ck_assert_int_eq(ide_cd_tray(f.dev, 0, true, false), 0);
	order(0x1b, 3);
	ck_assert_int_eq(ide_cd_tray(f.dev, 0, true, true), 0);
	ck_assert(door().open && !door().locked);
	ck_assert_uint_eq(order(0x1b, 3), ST_GOOD);
	ck_assert_uint_eq(order(0x1b, 2), ST_GOOD);
}
END_TEST

static struct fault_rule rule;

static void add_rule(void *arg)
{
	rule = (struct fault_rule){.ops = FAULT_ON(FILE_READ), .nth = 1, .and_all_after = true,
		.err = -EIO, .off = 40 * SECTOR, .len = SECTOR};
	fault_add(f.disk.fault, &rule);
}

START_TEST(a_bad_sector_is_a_medium_error)
{
	uint8_t s;

	fake_on_loop(&f.disk, add_rule, NULL);
	SEND(2048, 0x28, 0, 0, 0, 0, 8, 0, 0, 4);
	run(&s);
	ck_assert_uint_eq(s, ST_GOOD | ST_ERR);
	ck_assert_uint_eq(sense_of(), 0x311);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("ide_atapi");
	TCase *tc = tcase_create("ide_atapi");
	SRunner *sr = srunner_create(s);
	int failed;

	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_set_timeout(tc, 60);
	tcase_add_test(tc, it_is_known_by_its_signature);
	tcase_add_test(tc, it_reads_in_blocks_and_by_bus_master);
	tcase_add_test(tc, it_tells_of_tracks_and_modes);
	tcase_add_test(tc, the_disc_goes_and_comes);
	tcase_add_test(tc, the_guest_moves_the_tray_itself);
	tcase_add_test(tc, a_locked_tray_is_asked_for_and_opens_by_force);
	tcase_add_test(tc, a_bad_sector_is_a_medium_error);
	suite_add_tcase(s, tc);
	srunner_run_all(sr, CK_NORMAL);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed != 0;
}
