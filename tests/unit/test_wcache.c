/* SPDX-License-Identifier: MIT */
/*
 * test_wcache.c - a volatile write cache: what is read through it, what an fdatasync makes of it,
 * and that a power cut leaves what the crash model says of the same operations.
 */
#include <stdlib.h>
#include <string.h>
#include "blockdev/crash/seen.h"
#include "blockdev/live/wcache.h"
#include "tests/support/scratch.h"

#define SIZE (256 * KiB)

struct ctx {
	struct loop *l;
	struct mem_image start, below, view; /* at first, on the host, as it must read */
	struct crash_log log;                /* what passes into the cache */
	struct wcache_user user;
	struct file *cache, *top;
	unsigned syncs;
	bool die; /* when the next fdatasync is asked for */
	uint64_t rng;
	enum cut_policy policy;
	struct live_left sum;
};

static void on_syncing(struct wcache_user *u)
{
	struct ctx *c = container_of(u, struct ctx, user);

	c->syncs++;
	if (c->die)
		wcache_die(c->cache);
}

static void begin(struct ctx *c, uint64_t seed)
{
	struct file *f;
	uint8_t page[4096];

	*c = (struct ctx){.l = scratch_loop(0), .user.syncing = on_syncing, .rng = seed};
	mem_init(&c->start);
	mem_init(&c->below);
	mem_init(&c->view);
	for (uint64_t off = 0; off < SIZE; off += sizeof(page)) {
		memset(page, (int)(off / sizeof(page)) + 1, sizeof(page));
		mem_write(&c->start, page, sizeof(page), off, true);
	}
	mem_reset(&c->below, &c->start);
	mem_reset(&c->view, &c->start);
	crash_log_init(&c->log);
	ck_assert_int_eq(fiber_pool_init(c->l), 0);
	ck_assert_int_eq(memfile_open(c->l, &c->below, 0, &f), 0);
	ck_assert_int_eq(wcache_open(f, &c->user, &c->cache), 0);
	ck_assert_int_eq(trace_open(c->cache, &c->log, &c->top), 0);
}

static void end(struct ctx *c)
{
	file_close(c->top);
	crash_log_fini(&c->log);
	mem_fini(&c->view);
	mem_fini(&c->below);
	mem_fini(&c->start);
	loop_free(c->l);
}

static void assert_same(const struct mem_image *a, const struct mem_image *b)
{
	uint8_t x[4096], y[4096];

	ck_assert_uint_eq(a->size, b->size);
	for (uint64_t off = 0; off < a->size; off += sizeof(x)) {
		mem_read(a, x, sizeof(x), off);
		mem_read(b, y, sizeof(y), off);
		ck_assert_msg(!memcmp(x, y, sizeof(x)), "differ behind %d", (int)off);
	}
}

static uint64_t pick(struct ctx *c, uint64_t n)
{
	return rng_next(&c->rng) % n;
}

static void change(struct ctx *c)
{
	uint64_t off = pick(c, SIZE), len = 1 + pick(c, 12 * KiB), what = pick(c, 20);
	static uint8_t buf[12 * KiB];
	static const uint8_t zeros[12 * KiB];

	if (what < 14) {
		memset(buf, (int)rng_next(&c->rng), len);
		ck_assert_int_eq(file_pwrite(c->top, buf, len, off), 0);
		mem_write(&c->view, buf, len, off, true);
	} else if (what < 17) {
		ck_assert_int_eq(file_punch(c->top, off, len), 0);
		mem_write(&c->view, zeros, len, off, false);
	} else if (what < 19) {
		ck_assert_int_eq(file_extend(c->top, off, len), 0);
		mem_set_size(&c->view, max_u64(c->view.size, off + len));
	} else {
		ck_assert_int_eq(file_truncate(c->top, SIZE / 2 + off / 2), 0);
		mem_set_size(&c->view, SIZE / 2 + off / 2);
	}
	ck_assert_uint_eq(file_size(c->top), c->view.size);
}

static void look(struct ctx *c)
{
	uint8_t a[8 * KiB], b[8 * KiB];
	uint64_t off = pick(c, SIZE), len = 1 + pick(c, sizeof(a)), cut = pick(c, len + 1);
	struct iovec iov[] = {{a, cut}, {a + cut, len - cut}};

	ck_assert_int_eq(file_preadv(c->top, iov, 2, off), 0);
	mem_read(&c->view, b, len, off);
	ck_assert_msg(!memcmp(a, b, len), "read of %d at %d", (int)len, (int)off);
}

static int work(void *arg)
{
	struct ctx *c = arg;

	for (unsigned i = 0; i < 300; i++) {
		uint64_t what = pick(c, 10);

		if (what < 6) {
			change(c);
		} else if (what < 9) {
			look(c);
		} else if (pick(c, 3) == 0) {
			ck_assert_int_eq(file_fdatasync(c->top), 0);
			assert_same(&c->below, &c->view);
			ck_assert_uint_eq(c->cache->stats->fdatasyncs, c->syncs);
		}
	}
	/* Something is to be at risk, and some of it to overlap. */
	for (unsigned i = 0; i < 12; i++)
		change(c);
	return 0;
}

START_TEST(reads_see_it_and_an_fdatasync_writes_it)
{
	struct ctx c;

	begin(&c, (uint64_t)_i);
	ck_assert_int_eq(fiber_run(c.l, work, &c), 0);
	ck_assert_uint_gt(c.syncs, 0);
	/* Closing it alive loses nothing. */
	file_close(c.top);
	assert_same(&c.below, &c.view);
	ck_assert_int_eq(memfile_open(c.l, &c.below, 0, &c.top), 0);
	end(&c);
}
END_TEST

static int cut(void *arg)
{
	struct ctx *c = arg;

	return wcache_cut(c->cache, c->policy, 7, 512, &c->sum);
}

static int sync_fails(void *arg)
{
	struct ctx *c = arg;
	uint8_t b = 0;

	c->die = true;
	ck_assert_int_eq(file_fdatasync(c->cache), -ESHUTDOWN);
	ck_assert_int_eq(file_pwrite(c->cache, &b, 1, 0), -ESHUTDOWN);
	ck_assert_int_eq(file_pread(c->cache, &b, 1, 0), -ESHUTDOWN);
	return 0;
}

/* The model's word on the same operations, the same policy and the same seed. */
static void assert_as_the_model_says(struct ctx *c)
{
	struct crash_choice choice = {.fate = calloc(c->log.n_host + 1, 1)};
	struct mem_image says;
	struct crash_model m;

	mem_init(&says);
	model_init(&m, &c->log, &c->start);
	model_advance(&m, c->log.clock);
	policy_choose(&m, c->policy, 7, 512, &choice);
	model_build(&m, &choice, &says);
	assert_same(&c->below, &says);
	mem_fini(&says);
	model_fini(&m);
	free(choice.fate);
}

START_TEST(a_cut_leaves_what_the_model_says)
{
	struct ctx c;

	for (enum cut_policy p = CUT_NONE; p <= CUT_TORN; p++) {
		begin(&c, (uint64_t)_i + 100);
		c.policy = p;
		ck_assert_int_eq(fiber_run(c.l, work, &c), 0);
		ck_assert_int_eq(fiber_run(c.l, sync_fails, &c), 0);
		ck_assert_int_eq(fiber_run(c.l, cut, &c), 0);
		assert_as_the_model_says(&c);
		ck_assert_uint_gt(c.sum.at_risk, 5);
		ck_assert_uint_eq(c.sum.at_risk, c.sum.kept + c.sum.lost + c.sum.torn);
		ck_assert(p != CUT_NONE || c.sum.lost == c.sum.at_risk);
		ck_assert(p != CUT_ALL || c.sum.kept == c.sum.at_risk);
		end(&c);
	}
}
END_TEST

static int fill(void *arg)
{
	struct ctx *c = arg;
	uint8_t *buf = file_buf(MiB);

	/* More than it takes, by bytes and by number, without an fdatasync. */
	for (unsigned i = 0; i < 70; i++) {
		memset(buf, (int)i + 1, MiB);
		ck_assert_int_eq(file_pwrite(c->top, buf, MiB, i % 3 * MiB), 0);
	}
	for (unsigned i = 0; i < 10000; i++) {
		memcpy(buf, &i, sizeof(i));
		ck_assert_int_eq(file_pwrite(c->top, buf, 64, i * 64), 0);
	}
	for (unsigned i = 0; i < 10000; i += 77) {
		ck_assert_int_eq(file_pread(c->top, buf, 64, i * 64), 0);
		ck_assert(!memcmp(buf, &i, sizeof(i)));
	}
	free(buf);
	return 0;
}

START_TEST(a_full_cache_gives_the_oldest_to_the_file)
{
	uint64_t first = 1;
	struct ctx c;

	begin(&c, 0);
	ck_assert_int_eq(fiber_run(c.l, fill, &c), 0);
	ck_assert_uint_eq(c.syncs, 0);
	wcache_die(c.cache);
	c.policy = CUT_NONE;
	ck_assert_int_eq(fiber_run(c.l, cut, &c), 0);
	/* What was given away is there even if all is lost that can be. */
	mem_read(&c.below, &first, 4, 0);
	ck_assert_uint_eq(first, 0);
	ck_assert_uint_gt(c.sum.at_risk, 100);
	ck_assert_uint_lt(c.sum.at_risk, 10000);
	end(&c);
}
END_TEST

/* ---- with a read and a write back on their way at once ---- */

struct racer {
	struct ctx *c;
	struct fiber_start start;
	uint8_t got;
	bool over;
};

static void read_on(struct fiber_start *s)
{
	struct racer *r = container_of(s, struct racer, start);

	ck_assert_int_eq(file_pread(r->c->top, &r->got, 1, 5), 0);
	r->over = true;
}

static int race(void *arg)
{
	struct ctx *c = arg;

	for (unsigned i = 1; i < 200; i++) {
		struct racer r[4] = {{0}};
		uint8_t b = (uint8_t)i;

		ck_assert_int_eq(file_pwrite(c->top, &b, 1, 5), 0);
		for (unsigned k = 0; k < ARRAY_SIZE(r); k++) {
			r[k] = (struct racer){.c = c, .start.fn = read_on};
			fiber_start(c->l, &r[k].start);
			if (k % 2)
				fiber_yield();
		}
		ck_assert_int_eq(file_fdatasync(c->top), 0);
		for (unsigned k = 0; k < ARRAY_SIZE(r); k++) {
			while (!r[k].over)
				fiber_yield();
			ck_assert_uint_eq(r[k].got, b);
		}
	}
	return 0;
}

START_TEST(a_read_sees_what_leaves_the_cache_meanwhile)
{
	struct ctx c;
	struct file *f;

	begin(&c, 0);
	file_close(c.top);
	/* Completes in a random order. */
	ck_assert_int_eq(memfile_open(c.l, &c.below, (uint64_t)_i + 1, &f), 0);
	ck_assert_int_eq(wcache_open(f, &c.user, &c.cache), 0);
	ck_assert_int_eq(trace_open(c.cache, &c.log, &c.top), 0);
	ck_assert_int_eq(fiber_run(c.l, race, &c), 0);
	end(&c);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("wcache");
	TCase *t = tcase_create("wcache");

	tcase_add_loop_test(t, reads_see_it_and_an_fdatasync_writes_it, 0, 20);
	tcase_add_loop_test(t, a_cut_leaves_what_the_model_says, 0, 20);
	tcase_add_test(t, a_full_cache_gives_the_oldest_to_the_file);
	tcase_add_loop_test(t, a_read_sees_what_leaves_the_cache_meanwhile, 0, 8);
	suite_add_tcase(s, t);
	return scratch_main(s);
}
