/* SPDX-License-Identifier: MIT */
/*
 * test_block.c - the write-cache contract of block.c, counted in fdatasyncs of the host.
 *
 * On files in memory, so that a count is exact; for raw and qcow2 alike.
 */
#include <check.h>
#include <stdlib.h>
#include <string.h>
#include "blockdev/crash/memfile.h"
#include "tests/support/image.h"

/* A filter that can make fdatasync, or writes, fail. */
struct breaker {
	struct file f;
	int sync_err, write_err;
	uint64_t write_below; /* only writes that begin before it fail; 0: all */
	struct list failing;
	struct loop_work work;
};

static int breaks(const struct breaker *b, const struct file_req *r)
{
	if (r->op == FILE_FDATASYNC)
		return b->sync_err;
	if (r->op != FILE_WRITE || (b->write_below && r->off >= b->write_below))
		return 0;
	return b->write_err;
}

/* Later in the turn: done() never runs inside submit. */
static void breaker_work(struct loop_work *w)
{
	struct breaker *b = container_of(w, struct breaker, work);
	struct list *n;

	while ((n = list_pop(&b->failing)) != NULL) {
		struct file_req *r = list_entry(n, struct file_req, link);

		r->done(r, r->op == FILE_FDATASYNC ? b->sync_err : b->write_err);
	}
}

static void breaker_submit(struct file *f, struct file_req *r)
{
	struct breaker *b = container_of(f, struct breaker, f);

	if (!breaks(b, r)) {
		file_submit(f->below, r);
		return;
	}
	list_add_tail(&b->failing, &r->link);
	loop_defer(f->loop, &b->work);
}

static uint64_t breaker_size(struct file *f)
{
	return file_size(f->below);
}

static void breaker_close(struct file *f)
{
	/* part of the bed */
}

static const struct file_ops breaker_ops = {
	.name = "breaker", .submit = breaker_submit, .size = breaker_size, .close = breaker_close};

/* ---- a disk in memory ---- */

static const char *const formats[] = {"raw", "qcow2"};

struct bed {
	struct loop *l;
	struct mem_image m;
	struct breaker b;
	struct disk *d;
	uint64_t base; /* fdatasyncs so far */
};

static int create_fiber(void *f)
{
	struct qcow2_create_opts o = {.size = 16 * MiB};

	return qcow2_create(f, &o, NULL);
}

static struct file *bed_file(struct bed *b)
{
	struct file *f;

	ck_assert_int_eq(memfile_open(b->l, &b->m, 3, &f), 0);
	b->b.f = *f;
	b->b.f.ops = &breaker_ops;
	b->b.f.below = f;
	list_init(&b->b.failing);
	loop_work_init(&b->b.work, breaker_work);
	return &b->b.f;
}

static void bed_open(struct bed *b, const char *format, enum cache_mode mode, bool readonly)
{
	struct disk_opts o = {.format = format, .cache = mode, .readonly = readonly};

	ck_assert_int_eq(disk_open_file(bed_file(b), &o, &b->d, NULL), 0);
}

/* With the image that the fiber creates; NULL: 16 MiB of zeros. */
static void bed_new_by(struct bed *b, int (*create)(void *file))
{
	memset(b, 0, sizeof(*b));
	ck_assert_int_eq(loop_new(LOOP_AIO_AUTO, &b->l), 0);
	mem_init(&b->m);
	if (!create) {
		mem_set_size(&b->m, 16 * MiB);
	} else {
		struct file *f = bed_file(b);

		ck_assert_int_eq(fiber_run(b->l, create, f), 0);
		file_close(f);
	}
}

static void bed_new(struct bed *b, const char *format, enum cache_mode mode)
{
	bed_new_by(b, strcmp(format, "raw") ? create_fiber : NULL);
	bed_open(b, format, mode, false);
}

static void bed_free(struct bed *b)
{
	mem_fini(&b->m);
	loop_free(b->l);
}

static uint64_t syncs(struct bed *b)
{
	struct disk_stats s;
	uint64_t n;

	disk_stats_get(b->d, &s);
	n = s.host_fdatasyncs - b->base;
	b->base = s.host_fdatasyncs;
	return n;
}

/* ---- one call in a fiber ---- */

struct call {
	struct disk *d;
	enum blk_op op;
	uint64_t off, len;
	unsigned flags;
};

static int call_fiber(void *arg)
{
	static uint8_t buf[MiB];
	struct call *c = arg;

	if (c->op == BLK_FLUSH)
		return disk_flush(c->d);
	if (c->op == BLK_READ)
		return disk_pread(c->d, buf, c->len, c->off);
	return disk_pwrite(c->d, buf, c->len, c->off, c->flags);
}

static int call(struct bed *b, enum blk_op op, uint64_t off, uint64_t len, unsigned flags)
{
	struct call c = {b->d, op, off, len, flags};

	return fiber_run(b->l, call_fiber, &c);
}

/* So that counts are about the contract and not about taking clusters. */
static void warm_up(struct bed *b)
{
	ck_assert_int_eq(call(b, BLK_WRITE, 0, MiB, 0), 0);
	ck_assert_int_eq(call(b, BLK_FLUSH, 0, 0, 0), 0);
	ck_assert_int_eq(call(b, BLK_WRITE, 0, 512, 0), 0);
	ck_assert_int_eq(call(b, BLK_FLUSH, 0, 0, 0), 0);
	syncs(b);
}

struct flip {
	struct wce_change c;
	int err;
	bool over;
};

static void flip_done(struct wce_change *c, int err)
{
	struct flip *f = container_of(c, struct flip, c);

	f->err = err;
	f->over = true;
}

static int set_wce(struct bed *b, bool on)
{
	struct flip f = {.c = {.done = flip_done, .enable = on}};

	disk_set_wce(b->d, &f.c);
	while (!f.over)
		ck_assert_int_eq(loop_turn(b->l, true), 0);
	return f.err;
}

START_TEST(writeback_syncs_at_flush_only_and_an_idle_flush_is_free)
{
	struct bed b;

	bed_new(&b, formats[_i], CACHE_WRITEBACK);
	ck_assert(disk_wce(b.d));
	warm_up(&b);
	for (int i = 0; i < 8; i++)
		ck_assert_int_eq(call(&b, BLK_WRITE, (uint64_t)i * 4096, 4096, 0), 0);
	ck_assert_uint_eq(syncs(&b), 0);
	ck_assert_int_eq(call(&b, BLK_FLUSH, 0, 0, 0), 0);
	ck_assert_uint_eq(syncs(&b), 1);
	ck_assert_int_eq(call(&b, BLK_FLUSH, 0, 0, 0), 0);
	ck_assert_int_eq(call(&b, BLK_READ, 0, 4096, 0), 0);
	ck_assert_int_eq(call(&b, BLK_FLUSH, 0, 0, 0), 0);
	ck_assert_uint_eq(syncs(&b), 0);
	ck_assert_int_eq(disk_close(b.d, NULL), 0);
	bed_free(&b);
}
END_TEST

START_TEST(writethrough_syncs_every_write_and_flushes_are_free)
{
	struct bed b;

	bed_new(&b, formats[_i], CACHE_WRITETHROUGH);
	ck_assert(!disk_wce(b.d));
	warm_up(&b);
	for (int i = 0; i < 8; i++)
		ck_assert_int_eq(call(&b, BLK_WRITE, (uint64_t)i * 4096, 4096, 0), 0);
	ck_assert_uint_eq(syncs(&b), 8);
	ck_assert_int_eq(call(&b, BLK_FLUSH, 0, 0, 0), 0);
	ck_assert_uint_eq(syncs(&b), 0);
	ck_assert_int_eq(disk_close(b.d, NULL), 0);
	bed_free(&b);
}
END_TEST

START_TEST(fua_syncs_its_own_write)
{
	struct bed b;

	bed_new(&b, formats[_i], CACHE_WRITEBACK);
	warm_up(&b);
	ck_assert_int_eq(call(&b, BLK_WRITE, 0, 4096, BLK_FUA), 0);
	ck_assert_uint_eq(syncs(&b), 1);
	ck_assert_int_eq(disk_close(b.d, NULL), 0);
	bed_free(&b);
}
END_TEST

START_TEST(unsafe_acknowledges_flushes_and_keeps_the_bit_on)
{
	struct bed b;

	bed_new(&b, formats[_i], CACHE_UNSAFE);
	ck_assert(disk_wce(b.d));
	ck_assert_int_eq(call(&b, BLK_WRITE, 0, 4096, BLK_FUA), 0);
	syncs(&b);
	ck_assert_int_eq(call(&b, BLK_WRITE, 4096, 4096, BLK_FUA), 0);
	ck_assert_int_eq(call(&b, BLK_FLUSH, 0, 0, 0), 0);
	ck_assert_uint_eq(syncs(&b), 0);
	ck_assert_int_eq(set_wce(&b, false), -EPERM);
	ck_assert(disk_wce(b.d));
	ck_assert_int_eq(disk_close(b.d, NULL), 0);
	bed_free(&b);
}
END_TEST

START_TEST(turning_the_cache_off_makes_what_was_acknowledged_durable_first)
{
	struct bed b;

	bed_new(&b, formats[_i], CACHE_WRITEBACK);
	warm_up(&b);
	ck_assert_int_eq(call(&b, BLK_WRITE, 0, 4096, 0), 0);
	ck_assert_uint_eq(syncs(&b), 0);
	ck_assert_int_eq(set_wce(&b, false), 0);
	ck_assert(!disk_wce(b.d));
	ck_assert_uint_eq(syncs(&b), 1);
	ck_assert_int_eq(set_wce(&b, false), 0);
	ck_assert_uint_eq(syncs(&b), 0); /* nothing left to do */
	ck_assert_int_eq(call(&b, BLK_WRITE, 0, 4096, 0), 0);
	ck_assert_uint_eq(syncs(&b), 1);
	ck_assert_int_eq(set_wce(&b, true), 0);
	ck_assert(disk_wce(b.d));
	ck_assert_int_eq(call(&b, BLK_WRITE, 0, 4096, 0), 0);
	ck_assert_uint_eq(syncs(&b), 0);
	ck_assert_int_eq(disk_close(b.d, NULL), 0);
	bed_free(&b);
}
END_TEST

struct grow_call {
	struct disk *d;
	uint64_t size;
};

static int grow_fiber(void *arg)
{
	struct grow_call *c = arg;

	return disk_grow(c->d, c->size);
}

static int grow(struct bed *b, uint64_t size)
{
	struct grow_call c = {b->d, size};

	return fiber_run(b->l, grow_fiber, &c);
}

/* ---- many at once ---- */

struct many {
	struct blk_req r;
	struct iovec iov;
	int err;
	unsigned *left;
};

static void many_done(struct blk_req *r, int err)
{
	struct many *m = container_of(r, struct many, r);

	m->err = err;
	--*m->left;
}

static void submit_many(struct bed *b, enum blk_op op, unsigned n)
{
	static uint8_t buf[4096];
	struct many m[64];
	unsigned left = n;

	for (unsigned i = 0; i < n; i++) {
		m[i] = (struct many){.iov = {buf, 4096}, .left = &left};
		m[i].r = (struct blk_req){.done = many_done, .op = op};
		if (op != BLK_FLUSH) {
			m[i].r.iov = &m[i].iov;
			m[i].r.niov = 1;
			m[i].r.off = i * 4096ULL;
			m[i].r.len = 4096;
		}
		disk_submit(b->d, &m[i].r);
	}
	ck_assert_uint_eq(left, n); /* never done() inside submit */
	while (left)
		ck_assert_int_eq(loop_turn(b->l, true), 0);
	for (unsigned i = 0; i < n; i++)
		ck_assert_int_eq(m[i].err, 0);
}

START_TEST(writes_that_wait_together_share_their_commits)
{
	struct bed b;

	bed_new(&b, formats[_i], CACHE_WRITETHROUGH);
	warm_up(&b);
	submit_many(&b, BLK_WRITE, 64);
	ck_assert_uint_le(syncs(&b), 32);
	ck_assert_int_eq(disk_close(b.d, NULL), 0);
	bed_free(&b);
}
END_TEST

START_TEST(flushes_that_overlap_are_merged)
{
	struct bed b;

	bed_new(&b, formats[_i], CACHE_WRITEBACK);
	warm_up(&b);
	ck_assert_int_eq(call(&b, BLK_WRITE, 0, 4096, 0), 0);
	submit_many(&b, BLK_FLUSH, 16);
	ck_assert_uint_eq(syncs(&b), 1);
	ck_assert_int_eq(disk_close(b.d, NULL), 0);
	bed_free(&b);
}
END_TEST

/* ---- errors ---- */

START_TEST(requests_outside_the_disk_and_writes_to_a_readonly_one_fail)
{
	struct bed b;
	struct disk_stats s;

	bed_new(&b, formats[_i], CACHE_WRITEBACK);
	ck_assert_uint_eq(disk_size(b.d), 16 * MiB);
	ck_assert_int_eq(call(&b, BLK_WRITE, 16 * MiB - 512, 1024, 0), -EINVAL);
	ck_assert_int_eq(call(&b, BLK_READ, 16 * MiB, 512, 0), -EINVAL);
	ck_assert_int_eq(call(&b, BLK_READ, UINT64_MAX - 511, 512, 0), -EINVAL);
	ck_assert_int_eq(call(&b, BLK_READ, 16 * MiB, 0, 0), 0);
	disk_stats_get(b.d, &s);
	ck_assert_uint_eq(s.failed, 3);
	ck_assert_int_eq(disk_close(b.d, NULL), 0);
	bed_open(&b, formats[_i], CACHE_WRITEBACK, true);
	ck_assert_int_eq(call(&b, BLK_WRITE, 0, 512, 0), -EROFS);
	ck_assert_int_eq(call(&b, BLK_FLUSH, 0, 0, 0), 0);
	ck_assert_int_eq(disk_close(b.d, NULL), 0);
	bed_free(&b);
}
END_TEST

START_TEST(a_failed_fdatasync_is_final)
{
	struct bed b;
	uint64_t since;

	bed_new(&b, formats[_i], CACHE_WRITEBACK);
	warm_up(&b);
	ck_assert_int_eq(call(&b, BLK_WRITE, 0, 4096, 0), 0);
	b.b.sync_err = -EIO;
	ck_assert_int_eq(call(&b, BLK_FLUSH, 0, 0, 0), -EIO);
	b.b.sync_err = 0;
	/* The pages may be gone and marked clean: a later success would be a lie. */
	ck_assert_int_eq(call(&b, BLK_FLUSH, 0, 0, 0), -EIO);
	ck_assert_int_eq(call(&b, BLK_WRITE, 0, 4096, 0), -EIO);
	ck_assert_int_eq(set_wce(&b, false), -EIO);
	ck_assert(disk_wce(b.d));
	ck_assert_uint_gt(disk_owed(b.d, &since), 0);
	ck_assert_uint_gt(since, 0);
	ck_assert_int_eq(call(&b, BLK_READ, 0, 4096, 0), 0);
	ck_assert_int_eq(disk_close(b.d, NULL), -EIO);
	bed_free(&b);
}
END_TEST

START_TEST(what_is_acknowledged_and_not_durable_is_counted)
{
	uint64_t since, first;
	struct bed b;

	bed_new(&b, formats[_i], CACHE_WRITEBACK);
	warm_up(&b);
	ck_assert_uint_eq(disk_owed(b.d, &since), 0);
	ck_assert_uint_eq(since, 0);
	ck_assert_int_eq(disk_wce_by(b.d), WCE_BY_POWER_ON);
	ck_assert_int_eq(call(&b, BLK_WRITE, 0, 4096, 0), 0);
	ck_assert_uint_eq(disk_owed(b.d, &first), 4096);
	ck_assert_uint_gt(first, 0);
	ck_assert_uint_le(first, loop_now_ns());
	ck_assert_int_eq(call(&b, BLK_WRITE, 4096, 512, 0), 0);
	ck_assert_uint_eq(disk_owed(b.d, &since), 4608);
	ck_assert_uint_eq(since, first);
	ck_assert_int_eq(call(&b, BLK_FLUSH, 0, 0, 0), 0);
	ck_assert_uint_eq(disk_owed(b.d, &since), 0);
	ck_assert_uint_eq(since, 0);
	ck_assert_int_eq(call(&b, BLK_WRITE, 0, 4096, 0), 0);
	ck_assert_int_eq(set_wce(&b, false), 0);
	ck_assert_int_eq(disk_wce_by(b.d), WCE_BY_GUEST);
	ck_assert_int_eq(call(&b, BLK_WRITE, 0, 4096, 0), 0);
	ck_assert_uint_eq(disk_owed(b.d, &since), 0);
	ck_assert_int_eq(disk_close(b.d, NULL), 0);
	bed_free(&b);
}
END_TEST

/* Nobody knows which L1 table a header names that failed to be written. */
START_TEST(a_header_in_doubt_is_final)
{
	struct bed b;

	bed_new(&b, "qcow2", CACHE_WRITEBACK);
	warm_up(&b);
	b.b.write_err = -EIO;
	b.b.write_below = 512;
	ck_assert_int_eq(grow(&b, 64 * GiB), -EIO);
	b.b.write_err = 0;
	ck_assert_int_eq(call(&b, BLK_WRITE, 0, 4096, 0), -EIO);
	ck_assert_int_eq(call(&b, BLK_FLUSH, 0, 0, 0), -EIO);
	ck_assert_int_eq(disk_close(b.d, NULL), -EIO);
	bed_free(&b);
}
END_TEST

static int create_dense_fiber(void *f)
{
	struct qcow2_create_opts o = {.size = 16 * MiB, .cluster_size = 512, .refcount_bits = 64};

	return qcow2_create(f, &o, NULL);
}

/* Nor which refcount table: here one counts 2 MiB, and grows when clusters past it are reserved. */
START_TEST(a_header_in_doubt_about_the_refcount_table_is_final)
{
	uint64_t at = 0;
	struct bed b;
	int err = 0;

	bed_new_by(&b, create_dense_fiber);
	bed_open(&b, "qcow2", CACHE_WRITEBACK, false);
	warm_up(&b);
	b.b.write_err = -EIO;
	b.b.write_below = 512;
	for (; !err && at < 16 * MiB; at += 64 * KiB)
		err = call(&b, BLK_WRITE, at, 64 * KiB, 0);
	ck_assert_int_eq(err, -EIO);
	b.b.write_err = 0;
	ck_assert_int_eq(call(&b, BLK_WRITE, 0, 4096, 0), -EIO);
	ck_assert_int_eq(call(&b, BLK_FLUSH, 0, 0, 0), -EIO);
	ck_assert_int_eq(disk_close(b.d, NULL), -EIO);
	bed_free(&b);
}
END_TEST

/* A process that was killed may have acknowledged what is not durable: nobody else knows of it. */
START_TEST(the_first_flush_is_carried_out)
{
	struct bed b;

	bed_new(&b, formats[_i], CACHE_WRITEBACK);
	syncs(&b);
	ck_assert_int_eq(call(&b, BLK_FLUSH, 0, 0, 0), 0);
	ck_assert_uint_eq(syncs(&b), 1);
	ck_assert_int_eq(call(&b, BLK_FLUSH, 0, 0, 0), 0);
	ck_assert_uint_eq(syncs(&b), 0);
	ck_assert_int_eq(disk_close(b.d, NULL), 0);
	bed_free(&b);
}
END_TEST

/* Also where nothing that was acknowledged is lost: who flushes asks whether all is well. */
START_TEST(a_failed_fdatasync_of_our_own_is_final)
{
	struct bed b;

	bed_new(&b, formats[_i], CACHE_WRITEBACK);
	warm_up(&b);
	b.b.sync_err = -EIO;
	ck_assert_int_eq(grow(&b, 64 * GiB), -EIO);
	b.b.sync_err = 0;
	ck_assert_int_eq(call(&b, BLK_FLUSH, 0, 0, 0), -EIO);
	ck_assert_int_eq(call(&b, BLK_WRITE, 0, 4096, 0), -EIO);
	ck_assert_int_eq(disk_close(b.d, NULL), -EIO);
	bed_free(&b);
}
END_TEST

START_TEST(a_failed_write_reaches_the_guest_and_harms_nothing_else)
{
	struct bed b;
	struct disk_stats s;

	bed_new(&b, formats[_i], CACHE_WRITETHROUGH);
	warm_up(&b);
	b.b.write_err = -ENOSPC;
	ck_assert_int_eq(call(&b, BLK_WRITE, 0, 4096, 0), -ENOSPC);
	ck_assert_int_eq(call(&b, BLK_WRITE, 8 * MiB, 4096, 0), -ENOSPC);
	b.b.write_err = 0;
	ck_assert_int_eq(call(&b, BLK_WRITE, 8 * MiB, 4096, 0), 0);
	disk_stats_get(b.d, &s);
	ck_assert_uint_eq(s.failed, 2);
	ck_assert_int_eq(disk_close(b.d, NULL), 0);
	bed_free(&b);
}
END_TEST

static int create_lazy_fiber(void *f)
{
	struct qcow2_create_opts o = {.size = 128 * MiB, .lazy_refcounts = true};

	return qcow2_create(f, &o, NULL);
}

static int create_plain_fiber(void *f)
{
	struct qcow2_create_opts o = {.size = 128 * MiB};

	return qcow2_create(f, &o, NULL);
}

/* What a peer pays for the same: 2003 fdatasyncs and 128 MiB of metadata. */
START_TEST(allocating_writes_in_writethrough_cost_one_fdatasync_and_a_sector)
{
	struct disk_stats s;
	struct bed b;

	bed_new_by(&b, _i ? create_lazy_fiber : create_plain_fiber);
	bed_open(&b, "qcow2", CACHE_WRITETHROUGH, false);
	for (uint64_t i = 0; i < 1000; i++)
		ck_assert_int_eq(call(&b, BLK_WRITE, i * 64 * KiB, 64 * KiB, 0), 0);
	disk_stats_get(b.d, &s);
	ck_assert_uint_ge(s.host_fdatasyncs, 1000);
	ck_assert_uint_le(s.host_fdatasyncs, 1010);
	ck_assert_uint_eq(s.data_bytes, 1000 * 64 * KiB);
	ck_assert_uint_le(s.metadata_bytes, MiB);
	ck_assert_int_eq(disk_close(b.d, NULL), 0);
	bed_free(&b);
}
END_TEST

/* 4 KiB writes into new clusters: zeros around them where each is followed by an fdatasync. */
START_TEST(small_writes_fill_their_neighbourhood_only_where_fdatasyncs_are_frequent)
{
	struct disk_stats s;
	struct bed b;

	bed_new(&b, "qcow2", CACHE_WRITETHROUGH);
	for (uint64_t i = 0; i < 64; i++)
		ck_assert_int_eq(call(&b, BLK_WRITE, i * 64 * KiB + 8 * KiB, 4 * KiB, 0), 0);
	disk_stats_get(b.d, &s);
	ck_assert_uint_eq(s.data_bytes, 64 * 64 * KiB);
	for (uint64_t i = 0; i < 64; i++)
		ck_assert_int_eq(call(&b, BLK_WRITE, i * 64 * KiB + 32 * KiB, 4 * KiB, 0), 0);
	disk_stats_get(b.d, &s);
	ck_assert_uint_eq(s.data_bytes, 64 * 68 * KiB);
	ck_assert_int_eq(disk_close(b.d, NULL), 0);
	bed_free(&b);
	bed_new(&b, "qcow2", CACHE_WRITEBACK);
	for (uint64_t i = 0; i < 64; i++)
		ck_assert_int_eq(call(&b, BLK_WRITE, i * 64 * KiB + 8 * KiB, 4 * KiB, 0), 0);
	disk_stats_get(b.d, &s);
	ck_assert_uint_lt(s.data_bytes, 16 * 64 * KiB);
	ck_assert_int_eq(disk_close(b.d, NULL), 0);
	bed_free(&b);
}
END_TEST

START_TEST(a_disk_grows_and_keeps_what_it_holds)
{
	struct bed b;

	bed_new(&b, formats[_i], CACHE_WRITEBACK);
	ck_assert_int_eq(call(&b, BLK_WRITE, 15 * MiB, MiB, 0), 0);
	ck_assert_int_eq(grow(&b, 15 * MiB), -EINVAL);
	ck_assert_int_eq(grow(&b, 16 * MiB + 100), -EINVAL);
	syncs(&b);
	ck_assert_int_eq(grow(&b, 64 * GiB), 0);
	ck_assert_uint_ge(syncs(&b), 1);
	ck_assert_uint_eq(disk_size(b.d), 64 * GiB);
	ck_assert_int_eq(call(&b, BLK_WRITE, 64 * GiB - MiB, MiB, 0), 0);
	ck_assert_int_eq(disk_close(b.d, NULL), 0);
	bed_open(&b, formats[_i], CACHE_WRITEBACK, false);
	ck_assert_uint_eq(disk_size(b.d), 64 * GiB);
	ck_assert_int_eq(call(&b, BLK_READ, 64 * GiB - MiB, MiB, 0), 0);
	ck_assert_int_eq(disk_close(b.d, NULL), 0);
	bed_free(&b);
}
END_TEST

START_TEST(cache_modes_are_known_by_their_names)
{
	enum cache_mode m;

	for (int i = 0; cache_mode_names[i]; i++) {
		ck_assert_int_eq(cache_mode_parse(cache_mode_names[i], &m), 0);
		ck_assert_int_eq((int)m, i);
		ck_assert_str_eq(cache_mode_name(m), cache_mode_names[i]);
	}
	ck_assert_int_eq(cache_mode_parse("writearound", &m), -EINVAL);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("block");
	TCase *t = tcase_create("contract");
	int n = ARRAY_SIZE(formats), failed;
	SRunner *r;

	tcase_add_loop_test(t, writeback_syncs_at_flush_only_and_an_idle_flush_is_free, 0, n);
	tcase_add_loop_test(t, writethrough_syncs_every_write_and_flushes_are_free, 0, n);
	tcase_add_loop_test(t, fua_syncs_its_own_write, 0, n);
	tcase_add_loop_test(t, unsafe_acknowledges_flushes_and_keeps_the_bit_on, 0, n);
	tcase_add_loop_test(
		t, turning_the_cache_off_makes_what_was_acknowledged_durable_first, 0, n);
	tcase_add_loop_test(t, writes_that_wait_together_share_their_commits, 0, n);
	tcase_add_loop_test(t, flushes_that_overlap_are_merged, 0, n);
	tcase_add_loop_test(t, requests_outside_the_disk_and_writes_to_a_readonly_one_fail, 0, n);
	tcase_add_loop_test(t, what_is_acknowledged_and_not_durable_is_counted, 0, n);
	tcase_add_loop_test(t, a_failed_fdatasync_is_final, 0, n);
	tcase_add_loop_test(t, a_failed_fdatasync_of_our_own_is_final, 0, n);
	tcase_add_loop_test(t, the_first_flush_is_carried_out, 0, n);
	tcase_add_test(t, a_header_in_doubt_is_final);
	tcase_add_test(t, a_header_in_doubt_about_the_refcount_table_is_final);
	tcase_add_loop_test(t, a_failed_write_reaches_the_guest_and_harms_nothing_else, 0, n);
	tcase_add_loop_test(
		t, allocating_writes_in_writethrough_cost_one_fdatasync_and_a_sector, 0, 2);
	tcase_add_test(t, small_writes_fill_their_neighbourhood_only_where_fdatasyncs_are_frequent);
	tcase_add_loop_test(t, a_disk_grows_and_keeps_what_it_holds, 0, n);
	tcase_add_test(t, cache_modes_are_known_by_their_names);
	suite_add_tcase(s, t);
	r = srunner_create(s);
	srunner_run_all(r, CK_NORMAL);
	failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed != 0;
}
