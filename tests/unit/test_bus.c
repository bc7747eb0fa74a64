/* SPDX-License-Identifier: MIT */
/* test_bus.c - who answers an address, and what removal promises while others are inside. */
#include <check.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <unistd.h>
#include "vmm/bus_dispatch.h"

#define READERS 4

struct probe {
	struct bus_range r;
	unsigned reads, writes;
	uint64_t off; /* of the last access */
	unsigned len;
	uint8_t data[8];
};

static struct bus *bus;

static void setup(void)
{
	ck_assert_int_eq(bus_new(NULL, READERS, &bus), 0);
}

static void teardown(void)
{
	bus_free(bus);
}

static void probe_read(struct bus_range *r, uint64_t off, void *data, unsigned len)
{
	struct probe *p = container_of(r, struct probe, r);

	p->reads++;
	p->off = off;
	p->len = len;
	for (unsigned i = 0; i < len; i++)
		((uint8_t *)data)[i] = (uint8_t)(off + i);
}

static void probe_write(struct bus_range *r, uint64_t off, const void *data, unsigned len)
{
	struct probe *p = container_of(r, struct probe, r);

	p->writes++;
	p->off = off;
	p->len = len;
	memcpy(p->data, data, len);
}

static void probe_init(struct probe *p, uint64_t base, uint64_t len)
{
	*p = (struct probe){.r = {.read = probe_read, .write = probe_write, .base = base,
				     .len = len, .name = "probe"}};
}

static uint64_t rd(enum bus_kind kind, uint64_t addr, unsigned len)
{
	uint64_t v = 0;

	bus_read(bus, 0, kind, addr, &v, len);
	return v;
}

START_TEST(an_access_reaches_its_range_with_its_offset)
{
	struct probe a, b;
	uint32_t v = 0x11223344;

	probe_init(&a, 0x1000, 0x10);
	probe_init(&b, 0x1010, 0x10);
	ck_assert_int_eq(bus_add(bus, BUS_MMIO, &b.r), 0);
	ck_assert_int_eq(bus_add(bus, BUS_MMIO, &a.r), 0);
	ck_assert_uint_eq(rd(BUS_MMIO, 0x1004, 4), 0x07060504);
	ck_assert_uint_eq(a.off, 4);
	bus_write(bus, 1, BUS_MMIO, 0x1018, &v, 4);
	ck_assert_uint_eq(b.off, 8);
	ck_assert_uint_eq(b.len, 4);
	ck_assert_mem_eq(b.data, &v, 4);
	ck_assert_uint_eq(a.writes, 0);
	/* Ports are another world. */
	ck_assert_uint_eq(rd(BUS_PORT, 0x1004, 2), 0xffff);
}
END_TEST

START_TEST(nobody_reads_as_ones_and_swallows_writes)
{
	struct probe a;
	uint64_t v = 0;

	ck_assert_uint_eq(rd(BUS_MMIO, 0x5000, 8), UINT64_MAX);
	ck_assert_uint_eq(rd(BUS_MMIO, UINT64_MAX, 8), UINT64_MAX);
	probe_init(&a, 0x5000, 4);
	a.r.read = NULL;
	a.r.write = NULL;
	ck_assert_int_eq(bus_add(bus, BUS_MMIO, &a.r), 0);
	ck_assert_uint_eq(rd(BUS_MMIO, 0x5000, 4), UINT32_MAX);
	bus_write(bus, 0, BUS_MMIO, 0x5000, &v, 8);
}
END_TEST

START_TEST(an_access_over_an_edge_is_cut_to_bytes)
{
	struct probe a, b;
	uint8_t v[8] = {1, 2, 3, 4, 5, 6, 7, 8};

	probe_init(&a, 0x100, 4);
	probe_init(&b, 0x106, 4);
	ck_assert_int_eq(bus_add(bus, BUS_PORT, &a.r), 0);
	ck_assert_int_eq(bus_add(bus, BUS_PORT, &b.r), 0);
	/* a: 0x102, 0x103; nobody: 0x104, 0x105; b: 0x106 to 0x109 */
	ck_assert_uint_eq(rd(BUS_PORT, 0x102, 8), 0x03020100ffff0302);
	ck_assert_uint_eq(a.reads, 2);
	ck_assert_uint_eq(b.reads, 4);
	ck_assert_uint_eq(b.len, 1);
	bus_write(bus, 0, BUS_PORT, 0x0fe, v, 4);
	ck_assert_uint_eq(a.writes, 2);
	ck_assert_uint_eq(a.off, 1);
	ck_assert_uint_eq(a.data[0], 4);
}
END_TEST

START_TEST(ranges_never_overlap)
{
	static const struct {
		uint64_t base, len;
		int err;
	} cases[] = {
		{0x1000, 0x100, -EEXIST},
		{0x0fff, 2, -EEXIST},
		{0x10ff, 1, -EEXIST},
		{0x1080, 1, -EEXIST},
		{0, UINT64_MAX, -EEXIST},
		{0x0f00, 0x100, 0},
		{0x1100, 0x100, 0},
		{0x2000, 0, -EINVAL},
		{UINT64_MAX - 1, 3, -EINVAL},
		{UINT64_MAX - 1, 2, 0},
	};
	struct probe mid, p[ARRAY_SIZE(cases)];

	probe_init(&mid, 0x1000, 0x100);
	ck_assert_int_eq(bus_add(bus, BUS_MMIO, &mid.r), 0);
	for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
		probe_init(&p[i], cases[i].base, cases[i].len);
		ck_assert_int_eq(bus_add(bus, BUS_MMIO, &p[i].r), cases[i].err);
	}
	ck_assert_uint_eq(rd(BUS_MMIO, UINT64_MAX, 1), 1);
	ck_assert_uint_eq(rd(BUS_MMIO, 0x11ff, 1), 0xff);
	ck_assert_uint_eq(p[6].reads, 1);
}
END_TEST

START_TEST(many_ranges_are_each_found_and_the_last_is_refused)
{
	static struct probe p[257];

	for (unsigned i = 0; i < 256; i++) {
		/* in an order that is neither up nor down */
		probe_init(&p[i], 0x10000 + (uint64_t)(i * 37 % 256) * 32, 16);
		ck_assert_int_eq(bus_add(bus, BUS_MMIO, &p[i].r), 0);
	}
	probe_init(&p[256], 0x100, 16);
	ck_assert_int_eq(bus_add(bus, BUS_MMIO, &p[256].r), -ENOSPC);
	for (unsigned i = 0; i < 256; i++) {
		rd(BUS_MMIO, p[i].r.base + 3, 1);
		ck_assert_uint_eq(p[i].reads, 1);
		ck_assert_uint_eq(rd(BUS_MMIO, p[i].r.base + 16, 1), 0xff);
	}
	for (unsigned i = 0; i < 256; i += 2)
		bus_remove(bus, BUS_MMIO, &p[i].r);
	for (unsigned i = 0; i < 256; i++) {
		rd(BUS_MMIO, p[i].r.base, 1);
		ck_assert_uint_eq(p[i].reads, i % 2 ? 2 : 1);
	}
}
END_TEST

/* A handler that moves another range and then its own. */
static struct probe moved, mover;

static void mover_write(struct bus_range *r, uint64_t off, const void *data, unsigned len)
{
	bus_remove(bus, BUS_MMIO, &moved.r);
	moved.r.base = 0x9000;
	ck_assert_int_eq(bus_add(bus, BUS_MMIO, &moved.r), 0);
	bus_remove(bus, BUS_MMIO, r);
	r->base = 0x8000;
	ck_assert_int_eq(bus_add(bus, BUS_MMIO, r), 0);
}

START_TEST(a_handler_may_move_ranges_and_its_own)
{
	uint8_t v = 0;

	probe_init(&moved, 0x3000, 16);
	probe_init(&mover, 0x4000, 16);
	mover.r.write = mover_write;
	ck_assert_int_eq(bus_add(bus, BUS_MMIO, &moved.r), 0);
	ck_assert_int_eq(bus_add(bus, BUS_MMIO, &mover.r), 0);
	bus_write(bus, 2, BUS_MMIO, 0x4000, &v, 1);
	ck_assert_uint_eq(rd(BUS_MMIO, 0x3001, 1), 0xff);
	ck_assert_uint_eq(rd(BUS_MMIO, 0x9001, 1), 1);
	ck_assert_uint_eq(rd(BUS_MMIO, 0x4001, 1), 0xff);
	ck_assert_uint_eq(rd(BUS_MMIO, 0x8001, 1), 1);
}
END_TEST

/* A range that knows whether it may be called. */
static struct {
	struct bus_range r;
	atomic_bool on_bus;
	atomic_int inside, wrong;
} live;

static void live_read(struct bus_range *r, uint64_t off, void *data, unsigned len)
{
	atomic_fetch_add(&live.inside, 1);
	for (volatile int i = 0; i < 50; i++)
		;
	if (!atomic_load(&live.on_bus))
		atomic_fetch_add(&live.wrong, 1);
	memset(data, 0, len);
	atomic_fetch_sub(&live.inside, 1);
}

static atomic_bool readers_stop;
static atomic_uint hits;

static void *reader_main(void *arg)
{
	unsigned id = (unsigned)(uintptr_t)arg;

	while (!atomic_load(&readers_stop)) {
		uint8_t v = 1;

		bus_read(bus, id, BUS_MMIO, 0x7000, &v, 1);
		ck_assert(v == 0 || v == 0xff);
		if (!v)
			atomic_fetch_add(&hits, 1);
	}
	return NULL;
}

static unsigned strings;

static void take_string(
	struct bus_range *r, uint64_t off, void *in, const void *out, unsigned len, unsigned n)
{
	strings++;
	ck_assert(!in != !out);
	if (in)
		memset(in, (int)off, len * n);
}

START_TEST(a_string_goes_as_a_whole_where_that_is_known)
{
	struct probe p;
	uint8_t v[8] = {1, 2, 3, 4, 5, 6, 7, 8};

	probe_init(&p, 0x1f0, 8);
	ck_assert_int_eq(bus_add(bus, BUS_PORT, &p.r), 0);
	bus_string(bus, 0, 0x1f1, NULL, v, 2, 4);
	ck_assert_uint_eq(p.writes, 4);
	ck_assert_mem_eq(p.data, "\7\10", 2);
	bus_string(bus, 0, 0x1f1, v, NULL, 2, 4);
	ck_assert_uint_eq(p.reads, 4);
	ck_assert_mem_eq(v, "\1\2\1\2\1\2\1\2", 8);
	p.r.string = take_string;
	bus_string(bus, 0, 0x1f5, v, NULL, 2, 4);
	bus_string(bus, 0, 0x1f5, NULL, v, 2, 4);
	ck_assert_uint_eq(strings, 2);
	ck_assert_mem_eq(v, "\5\5\5\5\5\5\5\5", 8);
	bus_string(bus, 0, 0x1f7, v, NULL, 2, 2); /* straddles its end: cut up */
	ck_assert_uint_eq(strings, 2);
	ck_assert_uint_eq(v[1], 0xff);
	bus_string(bus, 0, 0x300, v, NULL, 4, 2); /* nobody's */
	ck_assert_uint_eq(v[7], 0xff);
	bus_remove(bus, BUS_PORT, &p.r);
}
END_TEST

START_TEST(after_removal_nobody_is_inside)
{
	pthread_t t[3];

	live.r = (struct bus_range){.read = live_read, .base = 0x7000, .len = 16, .name = "live"};
	for (uintptr_t i = 0; i < ARRAY_SIZE(t); i++)
		ck_assert_int_eq(pthread_create(&t[i], NULL, reader_main, (void *)(i + 1)), 0);
	for (int i = 0; i < 3000; i++) {
		atomic_store(&live.on_bus, true);
		ck_assert_int_eq(bus_add(bus, BUS_MMIO, &live.r), 0);
		if (i % 8 == 0)
			usleep(50);
		bus_remove(bus, BUS_MMIO, &live.r);
		ck_assert_int_eq(atomic_load(&live.inside), 0);
		atomic_store(&live.on_bus, false);
	}
	atomic_store(&readers_stop, true);
	for (unsigned i = 0; i < ARRAY_SIZE(t); i++)
		pthread_join(t[i], NULL);
	ck_assert_int_eq(atomic_load(&live.wrong), 0);
	ck_assert_uint_gt(atomic_load(&hits), 0);
}
END_TEST

START_TEST(without_kvm_there_are_no_doorbells)
{
	ck_assert_int_eq(bus_doorbell_add(bus, BUS_MMIO, 0x1000, 2, 0), -ENODEV);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("bus");
	TCase *tc = tcase_create("bus");
	SRunner *sr = srunner_create(s);
	int failed;

	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_set_timeout(tc, 60);
	tcase_add_test(tc, an_access_reaches_its_range_with_its_offset);
	tcase_add_test(tc, nobody_reads_as_ones_and_swallows_writes);
	tcase_add_test(tc, an_access_over_an_edge_is_cut_to_bytes);
	tcase_add_test(tc, ranges_never_overlap);
	tcase_add_test(tc, many_ranges_are_each_found_and_the_last_is_refused);
	tcase_add_test(tc, a_handler_may_move_ranges_and_its_own);
	tcase_add_test(tc, a_string_goes_as_a_whole_where_that_is_known);
	tcase_add_test(tc, after_removal_nobody_is_inside);
	tcase_add_test(tc, without_kvm_there_are_no_doorbells);
	suite_add_tcase(s, tc);
	srunner_run_all(sr, CK_NORMAL);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed != 0;
}
