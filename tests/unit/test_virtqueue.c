/* SPDX-License-Identifier: MIT */
/*
 * test_virtqueue.c - chains well-formed and malformed, and who is told of what.
 */
#include <check.h>
#include "devices/virtqueue.h"
#include "tests/support/fake_driver.h"

#define SIZE	 8
#define IOVS	 8
#define INDIRECT 0x80000 /* gpa of a table */
#define W	 VIRTQ_DESC_WRITE
#define N	 VIRTQ_DESC_NEXT
#define I	 VIRTQ_DESC_INDIRECT

static struct gmem mem;
static struct fake_ring r;
static struct virtq q;
static struct iovec iov[IOVS];
static struct virtq_chain c = {.iov = iov, .iov_max = IOVS};

static void start(bool event_idx, bool indirect)
{
	fake_ring_init(&r, &mem, 0, SIZE);
	r.l.event_idx = event_idx;
	r.l.indirect = indirect;
	ck_assert_int_eq(virtq_start(&q, &mem, &r.l), 0);
}

static void setup(void)
{
	fake_mem_init(&mem);
	start(true, true);
}

static void teardown(void)
{
	fake_mem_fini(&mem);
}

static int pop_one(uint16_t head)
{
	fake_avail(&r, head);
	fake_publish(&r);
	return virtq_pop(&q, &c);
}

#define LAYOUT(n, d, a, u) {.size = n, .desc = d, .avail = a, .used = u}

static const struct {
	const char *what;
	struct virtq_layout l;
} layouts[] = {
	{"size 0", LAYOUT(0, 0x1000, 0x3000, 0x4000)},
	{"size 6", LAYOUT(6, 0x1000, 0x3000, 0x4000)},
	{"descriptors not aligned", LAYOUT(8, 0x1008, 0x3000, 0x4000)},
	{"available ring not aligned", LAYOUT(8, 0x1000, 0x3001, 0x4000)},
	{"used ring not aligned", LAYOUT(8, 0x1000, 0x3000, 0x4002)},
	{"descriptors at the end of RAM", LAYOUT(8, FAKE_LOW_BYTES - 16, 0x3000, 0x4000)},
	{"available ring past it", LAYOUT(8, 0x1000, FAKE_LOW_BYTES - 20, 0x4000)},
	{"used ring past it", LAYOUT(8, 0x1000, 0x3000, FAKE_LOW_BYTES - 68)},
	{"in the hole", LAYOUT(8, 0xe0000000, 0x3000, 0x4000)},
	{"at the end of the address space", LAYOUT(8, UINT64_MAX & ~15ULL, 0x3000, 0x4000)},
	{"32768 entries in too little", LAYOUT(32768, FAKE_HIGH + 0x90000, 0x3000, 0x4000)},
};

START_TEST(rings_outside_ram_do_not_start)
{
	ck_assert_msg(virtq_start(&q, &mem, &layouts[_i].l) == -EINVAL, "%s", layouts[_i].what);
	ck_assert_int_lt(virtq_pop(&q, &c), 0);
}
END_TEST

START_TEST(rings_may_touch_the_end_of_ram)
{
	struct virtq_layout l = LAYOUT(8, FAKE_LOW_BYTES - 128, FAKE_HIGH + FAKE_HIGH_BYTES - 22,
		FAKE_LOW_BYTES - 128 - 72);

	ck_assert_int_eq(virtq_start(&q, &mem, &l), 0);
	ck_assert_int_eq(virtq_pop(&q, &c), 0);
	virtq_push(&q, 0, 0);
	ck_assert(!virtq_listen(&q));
}
END_TEST

START_TEST(a_chain_comes_out_in_order)
{
	ck_assert_int_eq(virtq_pop(&q, &c), 0);
	fake_desc(&r, 5, 0x1000, 16, N, 1);
	fake_desc(&r, 1, FAKE_HIGH + 8, 100, N, 7);
	fake_desc(&r, 7, 0x2000, 0, N, 2); /* of no length: left out */
	fake_desc(&r, 2, 0x3000, 512, N | W, 0);
	fake_desc(&r, 0, 0x4000, 1, W, 3);
	ck_assert_int_eq(pop_one(5), 1);
	ck_assert(!c.bad);
	ck_assert_uint_eq(c.head, 5);
	ck_assert_uint_eq(c.n_out, 2);
	ck_assert_uint_eq(c.n_in, 2);
	ck_assert_uint_eq(c.out_len, 116);
	ck_assert_uint_eq(c.in_len, 513);
	ck_assert_ptr_eq(iov[0].iov_base, gmem_ptr(&mem, 0x1000, 16));
	ck_assert_ptr_eq(iov[1].iov_base, gmem_ptr(&mem, FAKE_HIGH + 8, 100));
	ck_assert_ptr_eq(iov[2].iov_base, gmem_ptr(&mem, 0x3000, 512));
	ck_assert_ptr_eq(c.last, gmem_ptr(&mem, 0x4000, 1));
	ck_assert_int_eq(virtq_pop(&q, &c), 0);
}
END_TEST

START_TEST(an_indirect_table_may_follow_descriptors)
{
	fake_desc(&r, 0, 0x1000, 16, N, 3);
	/* WRITE on an indirect descriptor means nothing (2.7.5.3.2). */
	fake_desc(&r, 3, INDIRECT + 8, 3 * 16, I | W, 0);
	fake_desc_at(&mem, INDIRECT + 8, 0, 0x2000, 8, N, 2);
	fake_desc_at(&mem, INDIRECT + 8, 2, 0x3000, 9, W, 0);
	ck_assert_int_eq(pop_one(0), 1);
	ck_assert(!c.bad);
	ck_assert_uint_eq(c.out_len, 24);
	ck_assert_uint_eq(c.in_len, 9);
}
END_TEST

START_TEST(without_the_feature_indirect_breaks_the_queue)
{
	start(false, false);
	fake_desc(&r, 0, INDIRECT, 16, I, 0);
	ck_assert_int_eq(pop_one(0), -EINVAL);
	ck_assert_int_eq(virtq_pop(&q, &c), -EINVAL);
	ck_assert(!virtq_listen(&q));
}
END_TEST

static const struct bad_ring {
	const char *what;
	struct {
		uint64_t addr;
		uint32_t len;
		uint16_t flags, next;
	} d[3]; /* descriptors 0, 1 and, in the indirect table, 0 */
	int err;
} bad_rings[] = {
	{"next out of range", {{0x1000, 1, N, SIZE}}, -EINVAL},
	{"itself next", {{0x1000, 1, N, 0}}, -ELOOP},
	{"a loop of two", {{0x1000, 1, N, 1}, {0x1000, 1, N, 0}}, -ELOOP},
	{"a loop of nothing", {{0, 0, N, 1}, {0, 0, N, 0}}, -ELOOP},
	{"indirect and next", {{INDIRECT, 16, I | N, 1}, {0x1000, 1, W, 0}}, -EINVAL},
	{"indirect of no length", {{INDIRECT, 0, I, 0}}, -EINVAL},
	{"indirect of odd length", {{INDIRECT, 24, I, 0}}, -EINVAL},
	{"indirect outside RAM", {{FAKE_LOW_BYTES - 16, 32, I, 0}}, -EINVAL},
	{"indirect of 4 GiB", {{INDIRECT, 0xfffffff0, I, 0}}, -EINVAL},
	{"nested", {{INDIRECT, 16, I, 0}, {0}, {INDIRECT, 16, I, 0}}, -EINVAL},
	{"nested in the ring's own table", {{0x10000, 16 * SIZE, I, 0}}, -EINVAL},
	{"next out of the table", {{INDIRECT, 16, I, 0}, {0}, {0x1000, 1, N, 1}}, -EINVAL},
	{"a loop in the table", {{INDIRECT, 16, I, 0}, {0}, {0x1000, 1, N, 0}}, -ELOOP},
};

START_TEST(a_meaningless_ring_is_broken_for_good)
{
	const struct bad_ring *b = &bad_rings[_i];

	for (unsigned k = 0; k < 2; k++)
		fake_desc(&r, k, b->d[k].addr, b->d[k].len, b->d[k].flags, b->d[k].next);
	fake_desc_at(&mem, INDIRECT, 0, b->d[2].addr, b->d[2].len, b->d[2].flags, b->d[2].next);
	ck_assert_msg(pop_one(0) == b->err, "%s", b->what);
	fake_desc(&r, 2, 0x1000, 1, 0, 0);
	ck_assert_int_lt(pop_one(2), 0);
	ck_assert(q.broken);
}
END_TEST

START_TEST(indexes_out_of_range_break_the_queue)
{
	ck_assert_int_eq(pop_one(SIZE), -EINVAL);
	start(true, true);
	r.avail_idx = SIZE + 1;
	fake_publish(&r);
	ck_assert_int_eq(virtq_pop(&q, &c), -EINVAL);
	start(true, true);
	r.avail_idx = 0xffff; /* backwards */
	fake_publish(&r);
	ck_assert_int_eq(virtq_pop(&q, &c), -EINVAL);
}
END_TEST

static const struct bad_chain {
	const char *what;
	struct {
		uint64_t addr;
		uint32_t len;
		uint16_t flags;
	} d[3];
	bool has_last;
} bad_chains[] = {
	{"one byte past RAM", {{0x1000, 16, N}, {FAKE_LOW_BYTES - 1, 2, N | W}, {0x3000, 1, W}},
		true},
	{"in the hole", {{0xe0000000, 16, N}, {0x2000, 1, N | W}, {0x3000, 1, W}}, true},
	{"wraps", {{0x1000, 16, N}, {UINT64_MAX - 7, 16, N}, {0x3000, 1, W}}, true},
	{"read after write", {{0x1000, 16, N | W}, {0x2000, 16, N}, {0x3000, 1, W}}, true},
	{"the last one outside", {{0x1000, 16, N}, {0x2000, 16, N | W}, {1ULL << 40, 1, W}}, false},
	{"longer than 4 GiB", {{0x1000, 16, N}, {0x2000, 0xffffffff, N | W}, {0x3000, 1, W}}, true},
};

START_TEST(an_unusable_buffer_comes_out_marked)
{
	const struct bad_chain *b = &bad_chains[_i];
	uint32_t id, len;

	for (unsigned k = 0; k < 3; k++)
		fake_desc(&r, k, b->d[k].addr, b->d[k].len, b->d[k].flags, (uint16_t)(k + 1));
	ck_assert_msg(pop_one(0) == 1 && c.bad, "%s", b->what);
	ck_assert_uint_le(c.n_out + c.n_in, 2);
	ck_assert_ptr_eq(c.last, b->has_last ? gmem_ptr(&mem, 0x3000, 1) : NULL);
	virtq_push(&q, c.head, 1);
	ck_assert(fake_used(&r, &id, &len));
	ck_assert(!q.broken);
}
END_TEST

START_TEST(a_chain_may_be_as_long_as_allowed_and_no_longer)
{
	for (unsigned k = 0; k < IOVS + 1; k++)
		fake_desc_at(&mem, INDIRECT, k, 0x1000, 1, k == IOVS - 1 ? 0 : N,
			(uint16_t)(k + 1));
	fake_desc(&r, 0, INDIRECT, 16 * (IOVS + 1), I, 0);
	ck_assert_int_eq(pop_one(0), 1);
	ck_assert_uint_eq(c.n_out, IOVS);
	fake_desc_at(&mem, INDIRECT, IOVS - 1, 0x1000, 1, N, IOVS);
	fake_desc_at(&mem, INDIRECT, IOVS, 0x1000, 1, 0, 0);
	ck_assert_int_eq(pop_one(0), -ELOOP);
}
END_TEST

START_TEST(used_elements_wrap_with_the_ring)
{
	uint32_t id, len;

	fake_desc(&r, 3, 0x1000, 1, 0, 0);
	for (unsigned i = 0; i < 70000; i++) {
		ck_assert_int_eq(pop_one(3), 1);
		virtq_push(&q, c.head, i);
		ck_assert(fake_used(&r, &id, &len));
		ck_assert_uint_eq(id, 3);
		ck_assert_uint_eq(len, i);
		ck_assert(!fake_used(&r, &id, &len));
	}
}
END_TEST

START_TEST(the_driver_is_asked_to_ring_only_when_nobody_looks)
{
	_Atomic uint16_t *flags, *avail_event;

	start(false, false);
	flags = fake_u16(&r, r.l.used);
	virtq_hush(&q);
	ck_assert_uint_eq(atomic_load(flags), 1);
	ck_assert(!virtq_listen(&q));
	ck_assert_uint_eq(atomic_load(flags), 0);
	fake_desc(&r, 0, 0x1000, 1, 0, 0);
	fake_avail(&r, 0);
	fake_publish(&r);
	ck_assert(virtq_listen(&q)); /* came between the last look and now */

	start(true, false);
	avail_event = fake_u16(&r, r.l.used + 4 + 8 * SIZE);
	fake_desc(&r, 0, 0x1000, 1, 0, 0);
	ck_assert_int_eq(pop_one(0), 1);
	virtq_hush(&q);
	ck_assert_uint_eq(atomic_load(fake_u16(&r, r.l.used)), 0);
	ck_assert(!virtq_listen(&q));
	ck_assert_uint_eq(atomic_load(avail_event), 1);
}
END_TEST

/* used_event, idx at the last decision, idx now, interrupt wanted? */
static const struct {
	uint16_t event, old, now;
	bool wanted;
} events[] = {
	{0, 0, 1, true}, {0, 0, 5, true}, {1, 0, 1, false}, {4, 0, 5, true}, {5, 0, 5, false},
	{0, 1, 2, false}, {0xffff, 0xfffe, 0, true}, {0xffff, 0xfff0, 0xffff, false},
	{0, 0xfffe, 1, true}, {0x8000, 0, 8, false}, {3, 2, 4, true}, {2, 2, 2, false},
};

START_TEST(an_event_index_is_passed_once)
{
	q.signalled = q.used_idx = events[_i].old;
	atomic_store(fake_u16(&r, r.l.avail + 4 + 2 * SIZE), events[_i].event);
	while (q.used_idx != events[_i].now)
		virtq_push(&q, 0, 0);
	ck_assert_int_eq(virtq_wants_irq(&q), events[_i].wanted);
	ck_assert(!virtq_wants_irq(&q)); /* nothing new */
}
END_TEST

START_TEST(without_event_indexes_the_flag_decides)
{
	start(false, false);
	virtq_push(&q, 0, 0);
	ck_assert(virtq_wants_irq(&q));
	ck_assert(!virtq_wants_irq(&q));
	atomic_store(fake_u16(&r, r.l.avail), 1);
	virtq_push(&q, 0, 0);
	ck_assert(!virtq_wants_irq(&q));
}
END_TEST

static uint64_t seed;

static uint32_t rnd(uint32_t below)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return (uint32_t)((seed >> 20) % below);
}

/* Random rings: whatever comes out lies in guest memory, and it ends. */
START_TEST(random_rings_are_survived)
{
	seed = 88172645463325252ULL + (uint64_t)_i;
	for (int round = 0; round < 3000; round++) {
		start(rnd(2), rnd(2));
		for (unsigned k = 0; k < 2 * SIZE; k++) {
			static const uint64_t places[] = {0, 0x10000, INDIRECT, FAKE_LOW_BYTES - 64,
				FAKE_HIGH + FAKE_HIGH_BYTES - 8, 0xe0000000, UINT64_MAX - 63,
				FAKE_HIGH};
			uint64_t addr = places[rnd(8)] + rnd(128);
			uint32_t len = rnd(3) ? rnd(256) & (rnd(2) ? ~15u : ~0u) : rnd(UINT32_MAX);

			fake_desc_at(&mem, k < SIZE ? r.l.desc : INDIRECT, k % SIZE, addr, len,
				(uint16_t)(rnd(4) ? N : rnd(8)), (uint16_t)rnd(SIZE + 1));
		}
		for (int k = 0; k < SIZE; k++)
			fake_avail(&r, (uint16_t)rnd(SIZE + (rnd(16) == 0)));
		r.avail_idx = (uint16_t)rnd(SIZE + 2);
		fake_publish(&r);
		for (int n = 0; virtq_pop(&q, &c) == 1; n++) {
			ck_assert_int_lt(n, SIZE);
			ck_assert_uint_le(c.n_out + c.n_in, IOVS);
			/* The guard pages do the checking. */
			for (unsigned k = 0; k < c.n_out + c.n_in; k++) {
				volatile uint8_t *p = iov[k].iov_base;

				(void)p[0];
				(void)p[iov[k].iov_len - 1];
			}
			if (c.last)
				(void)*(volatile uint8_t *)c.last;
			virtq_push(&q, c.head, 0);
		}
	}
}
END_TEST

int main(void)
{
	Suite *s = suite_create("virtqueue");
	TCase *tc = tcase_create("virtqueue");
	SRunner *sr = srunner_create(s);
	int failed;

	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_add_loop_test(tc, rings_outside_ram_do_not_start, 0, ARRAY_SIZE(layouts));
	tcase_add_test(tc, rings_may_touch_the_end_of_ram);
	tcase_add_test(tc, a_chain_comes_out_in_order);
	tcase_add_test(tc, an_indirect_table_may_follow_descriptors);
	tcase_add_test(tc, without_the_feature_indirect_breaks_the_queue);
	tcase_add_loop_test(tc, a_meaningless_ring_is_broken_for_good, 0, ARRAY_SIZE(bad_rings));
	tcase_add_test(tc, indexes_out_of_range_break_the_queue);
	tcase_add_loop_test(tc, an_unusable_buffer_comes_out_marked, 0, ARRAY_SIZE(bad_chains));
	tcase_add_test(tc, a_chain_may_be_as_long_as_allowed_and_no_longer);
	tcase_add_test(tc, used_elements_wrap_with_the_ring);
	tcase_add_test(tc, the_driver_is_asked_to_ring_only_when_nobody_looks);
	tcase_add_loop_test(tc, an_event_index_is_passed_once, 0, ARRAY_SIZE(events));
	tcase_add_test(tc, without_event_indexes_the_flag_decides);
	tcase_add_loop_test(tc, random_rings_are_survived, 0, 4);
	suite_add_tcase(s, tc);
	srunner_run_all(sr, CK_NORMAL);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed != 0;
}
