/* SPDX-License-Identifier: MIT */
/*
 * test_qcow2_free.c - the quarantine of freed clusters (free.c), requests that wait for a table
 * (map.c), and those over preallocated clusters (write.c), where the order of requests is what
 * matters: one request to the host is held back while the guest goes on.
 */
#include <check.h>
#include <stdlib.h>
#include <string.h>
#include "blockdev/block.h"
#include "blockdev/crash/memfile.h"
#include "blockdev/qcow2/format.h"

#define CLUSTER  4096u
#define CLUSTERS 64u
#define PER_TABLE (CLUSTER / 8)

/* ---- a file that keeps one request to itself until told ---- */

struct holder {
	struct file f;
	const void *mark; /* memory of the write to hold; NULL: none */
	bool next;        /* hold the next one, whatever it writes */
	bool next_read;   /* hold the next read */
	struct file_req *held;
};

static void holder_submit(struct file *f, struct file_req *r)
{
	struct holder *h = container_of(f, struct holder, f);

	if ((r->op == FILE_READ && h->next_read) ||
		(r->op == FILE_WRITE &&
			(h->next || (h->mark && r->iov[0].iov_base == h->mark)))) {
		ck_assert_ptr_null(h->held);
		h->held = r;
		h->next = h->next_read = false;
		return;
	}
	file_submit(f->below, r);
}

static uint64_t holder_size(struct file *f)
{
	return file_size(f->below);
}

static void holder_close(struct file *f)
{
	/* part of the bed */
}

static const struct file_ops holder_ops = {
	.name = "holder", .submit = holder_submit, .size = holder_size, .close = holder_close};

struct bed {
	struct loop *l;
	struct mem_image m;
	struct holder h;
	struct disk *d;
};

struct create_args {
	struct file *f;
	uint64_t size;
};

static int create_fiber(void *arg)
{
	struct create_args *a = arg;
	struct qcow2_create_opts o = {.size = a->size, .cluster_size = CLUSTER};

	return qcow2_create(a->f, &o, NULL);
}

/* f is taken over. */
static void open_held(struct bed *b, struct file *f, unsigned overlap)
{
	struct disk_opts o = {.format = "qcow2", .unmap = true, .overlap = overlap};

	b->h.f = *f;
	b->h.f.ops = &holder_ops;
	b->h.f.below = f;
	ck_assert_int_eq(disk_open_file(&b->h.f, &o, &b->d, NULL), 0);
}

static void bed_open(struct bed *b, uint64_t clusters)
{
	struct create_args a = {.size = clusters * CLUSTER};

	memset(b, 0, sizeof(*b));
	ck_assert_int_eq(loop_new(LOOP_AIO_AUTO, &b->l), 0);
	mem_init(&b->m);
	ck_assert_int_eq(memfile_open(b->l, &b->m, 3, &a.f), 0);
	ck_assert_int_eq(fiber_run(b->l, create_fiber, &a), 0);
	open_held(b, a.f, 0);
}

struct check_args {
	struct file *f;
	struct qcow2_check res;
};

static int check_fiber(void *arg)
{
	struct check_args *a = arg;

	return qcow2_check(a->f, 0, &a->res, NULL);
}

static void bed_close(struct bed *b)
{
	struct check_args a = {0};

	ck_assert_int_eq(disk_close(b->d, NULL), 0);
	ck_assert_int_eq(memfile_open(b->l, &b->m, 3, &a.f), 0);
	ck_assert_int_eq(fiber_run(b->l, check_fiber, &a), 0);
	ck_assert_uint_eq(a.res.corruptions, 0);
	ck_assert_uint_eq(a.res.leaks, 0);
	file_close(a.f);
	mem_fini(&b->m);
	loop_free(b->l);
}

/* ---- the guest ---- */

static void fill(uint8_t *buf, unsigned value)
{
	memset(buf, (int)value, CLUSTER);
}

static void put(struct bed *b, unsigned cluster, unsigned value)
{
	uint8_t buf[CLUSTER];

	fill(buf, value);
	ck_assert_int_eq(disk_pwrite(b->d, buf, CLUSTER, cluster * CLUSTER, 0), 0);
}

static void expect(struct bed *b, unsigned cluster, unsigned value)
{
	uint8_t buf[CLUSTER], want[CLUSTER];

	fill(want, value);
	ck_assert_int_eq(disk_pread(b->d, buf, CLUSTER, cluster * CLUSTER), 0);
	ck_assert_msg(!memcmp(buf, want, CLUSTER), "cluster %u reads %#x, not %#x", cluster,
		buf[0], value);
}

static void late_done(struct blk_req *r, int err)
{
	ck_assert_int_eq(err, 0);
	r->done = NULL;
}

static struct blk_req write_of(struct iovec *iov, unsigned first)
{
	return (struct blk_req){.op = BLK_WRITE,
		.iov = iov,
		.niov = 1,
		.off = first * CLUSTER,
		.len = iov->iov_len,
		.done = late_done};
}

static int late_write_fiber(void *arg)
{
	static uint8_t late[CLUSTER] __attribute__((aligned(4096)));
	struct iovec iov = {late, CLUSTER};
	struct blk_req r = write_of(&iov, 0);
	struct bed *b = arg;

	put(b, 0, 0x11);
	ck_assert_int_eq(disk_flush(b->d), 0);
	fill(late, 0xee);
	b->h.mark = late;
	disk_submit(b->d, &r);
	ck_assert_ptr_nonnull(b->h.held); /* mapped: it is on its way to the host */
	ck_assert_int_eq(disk_discard(b->d, CLUSTER, 0), 0);
	ck_assert_int_eq(disk_flush(b->d), 0);
	/* Far more than was counted ahead: whatever counts as free is used. */
	for (unsigned c = 1; c < CLUSTERS; c++) {
		put(b, c, c);
		ck_assert_int_eq(disk_flush(b->d), 0);
	}
	file_submit(b->h.f.below, b->h.held);
	while (r.done)
		fiber_yield();
	for (unsigned c = 1; c < CLUSTERS; c++)
		expect(b, c, c);
	return 0;
}

START_TEST(a_write_in_flight_to_a_discarded_cluster_hits_nobody_else)
{
	struct bed b;

	bed_open(&b, CLUSTERS);
	ck_assert_int_eq(fiber_run(b.l, late_write_fiber, &b), 0);
	bed_close(&b);
}
END_TEST

/* It cannot go on. */
static void waits(const struct blk_req *r)
{
	for (int i = 0; i < 20; i++)
		fiber_yield();
	ck_assert_ptr_nonnull(r->done);
}

static void release(struct bed *b)
{
	struct file_req *r;

	while (!b->h.held)
		fiber_yield();
	r = b->h.held;
	b->h.held = NULL;
	file_submit(b->h.f.below, r);
}

/*
 * After a snapshot three requests queue for the right to copy their tables: zeros for a whole
 * cluster, a write elsewhere, and a write to some of that cluster.  The third gets its turn when
 * the first has ended, and has let the snapshot's cluster go: it must not go a second time.
 */
static int same_table_fiber(void *arg)
{
	static uint8_t sector[512] __attribute__((aligned(4096)));
	struct iovec iov = {sector, sizeof(sector)};
	struct blk_req zeroes = {
		.op = BLK_ZEROES, .flags = BLK_UNMAP, .len = CLUSTER, .done = late_done};
	struct blk_req other, part;
	uint8_t buf[CLUSTER], want[CLUSTER] = {0};
	struct bed *b = arg;

	put(b, 0, 0x11);
	put(b, PER_TABLE, 0x22);
	ck_assert_int_eq(disk_flush(b->d), 0);
	/* Counts more ahead, so that what is written next are tables. */
	put(b, 2 * PER_TABLE, 0x33);
	ck_assert_int_eq(disk_snapshot_change(b->d, SNAPSHOT_CREATE, "before", NULL), 0);
	expect(b, 0, 0x11); /* Both tables are in the cache. */
	expect(b, PER_TABLE, 0x22);
	memset(sector, 0xee, sizeof(sector));
	part = write_of(&iov, 0);
	other = write_of(&iov, PER_TABLE);
	b->h.next = true;
	disk_submit(b->d, &zeroes);
	disk_submit(b->d, &other);
	disk_submit(b->d, &part);
	release(b);
	b->h.next = true; /* the second's copy */
	while (zeroes.done)
		fiber_yield();
	ck_assert_ptr_nonnull(part.done);
	release(b);
	while (other.done || part.done)
		fiber_yield();
	memset(want, 0xee, sizeof(sector));
	ck_assert_int_eq(disk_pread(b->d, buf, CLUSTER, 0), 0);
	ck_assert_uint_eq(buf[0], 0xee);
	ck_assert_msg(!memcmp(buf, want, CLUSTER), "what was zeroed reads %#x", buf[512]);
	return 0;
}

START_TEST(who_waited_for_a_table_looks_at_the_cluster_again)
{
	struct bed b;

	bed_open(&b, 3 * PER_TABLE);
	ck_assert_int_eq(fiber_run(b.l, same_table_fiber, &b), 0);
	bed_close(&b);
}
END_TEST

/* Clusters 0 to 2, of which the one in the middle has a place and is zeros by its entry. */
static void preallocate(struct bed *b)
{
	for (unsigned c = 0; c < 3; c++)
		put(b, c, 0x11);
	ck_assert_int_eq(disk_zeroes(b->d, CLUSTER, CLUSTER, 0), 0);
	ck_assert_int_eq(disk_flush(b->d), 0);
}

/* All that is written at once is kept from others until its entries are set. */
static int one_write_fiber(void *arg)
{
	static uint8_t data[3 * CLUSTER] __attribute__((aligned(4096)));
	struct iovec iov = {data, sizeof(data)};
	struct blk_req all = write_of(&iov, 0);
	struct blk_req last = {.op = BLK_ZEROES,
		.flags = BLK_UNMAP,
		.off = 2 * CLUSTER,
		.len = CLUSTER,
		.done = late_done};
	struct bed *b = arg;

	preallocate(b);
	memset(data, 0xee, sizeof(data));
	b->h.mark = data;
	disk_submit(b->d, &all);
	while (!b->h.held)
		fiber_yield();
	ck_assert_uint_eq(b->h.held->len, sizeof(data));
	disk_submit(b->d, &last);
	waits(&last);
	release(b);
	while (all.done || last.done)
		fiber_yield();
	expect(b, 0, 0xee);
	expect(b, 1, 0xee);
	expect(b, 2, 0);
	return 0;
}

START_TEST(preallocated_clusters_and_their_neighbours_are_one_write)
{
	struct bed b;

	bed_open(&b, CLUSTERS);
	ck_assert_int_eq(fiber_run(b.l, one_write_fiber, &b), 0);
	bed_close(&b);
}
END_TEST

/* Where somebody is at work already, a write ends, and goes on behind that. */
static int met_fiber(void *arg)
{
	static uint8_t data[3 * CLUSTER] __attribute__((aligned(4096)));
	static uint8_t early[CLUSTER] __attribute__((aligned(4096)));
	struct iovec iov = {data, sizeof(data)}, early_iov = {early, CLUSTER};
	struct blk_req all = write_of(&iov, 0), middle = write_of(&early_iov, 1);
	struct bed *b = arg;

	preallocate(b);
	memset(data, 0xee, sizeof(data));
	fill(early, 0x33);
	b->h.mark = early;
	disk_submit(b->d, &middle);
	while (!b->h.held)
		fiber_yield();
	disk_submit(b->d, &all);
	waits(&all);
	release(b);
	while (all.done || middle.done)
		fiber_yield();
	for (unsigned c = 0; c < 3; c++)
		expect(b, c, 0xee);
	return 0;
}

START_TEST(a_write_over_clusters_at_work_waits_for_them)
{
	struct bed b;

	bed_open(&b, CLUSTERS);
	ck_assert_int_eq(fiber_run(b.l, met_fiber, &b), 0);
	bed_close(&b);
}
END_TEST

/* More runs than the list holds: the fiber that frees flushes by itself. */
static int many_fiber(void *arg)
{
	struct bed *b = arg;

	for (unsigned round = 0; round < 1600; round++) {
		for (unsigned c = 0; c < CLUSTERS; c += 2)
			put(b, c, 1 + (c + round) % 200);
		for (unsigned c = CLUSTERS; c > 0; c -= 4) /* no two are adjacent in the file */
			ck_assert_int_eq(disk_discard(b->d, CLUSTER, (c - 4) * CLUSTER), 0);
		for (unsigned c = 0; c < CLUSTERS; c++)
			expect(b, c, c % 4 == 2 ? 1 + (c + round) % 200 : 0);
	}
	return 0;
}

START_TEST(without_flushes_the_quarantine_empties_itself)
{
	struct disk_stats s;
	struct bed b;

	bed_open(&b, CLUSTERS);
	ck_assert_int_eq(fiber_run(b.l, many_fiber, &b), 0);
	disk_stats_get(b.d, &s);
	/* 25,600 clusters of 4 KiB were freed in a disk of 64. */
	ck_assert_uint_ge(s.host_fdatasyncs, 2);
	ck_assert_uint_lt(b.m.size, 13000 * CLUSTER);
	bed_close(&b);
}
END_TEST

/* One request frees more runs than the list holds, and is itself in flight all the time. */
static int one_fiber(void *arg)
{
	const unsigned n = 5000;
	struct bed *b = arg;

	for (unsigned c = n; c-- > 0;) /* so no two are adjacent in the order of the guest */
		put(b, c, 1 + c % 200);
	ck_assert_int_eq(disk_discard(b->d, (uint64_t)n * CLUSTER, 0), 0);
	for (unsigned c = 0; c < n; c++)
		expect(b, c, 0);
	return disk_flush(b->d);
}

START_TEST(one_request_frees_more_than_the_quarantine_holds)
{
	struct bed b;

	bed_open(&b, 5000);
	ck_assert_int_eq(fiber_run(b.l, one_fiber, &b), 0);
	bed_close(&b);
}
END_TEST

/* ---- a damaged image: a cluster of data is an L2 table, too ---- */

static uint64_t be64_at(const struct bed *b, uint64_t off)
{
	be64_t v;

	mem_read(&b->m, &v, sizeof(v), off);
	return be64_get(v);
}

/* The data of guest cluster 0 becomes the table of those from PER_TABLE on. */
static void make_double(struct bed *b, unsigned overlap)
{
	uint64_t l1 = be64_at(b, 40), l2 = be64_at(b, l1) & QCOW2_OFFSET_MASK;
	be64_t entry = be64_make(be64_at(b, l2));
	struct file *f;

	ck_assert_int_eq(disk_close(b->d, NULL), 0);
	mem_write(&b->m, &entry, sizeof(entry), l1 + sizeof(entry), false);
	ck_assert_int_eq(memfile_open(b->l, &b->m, 3, &f), 0);
	open_held(b, f, overlap);
}

static int zeros_fiber(void *arg)
{
	struct bed *b = arg;

	put(b, 0, 0);
	put(b, 1, 0x11);
	return disk_flush(b->d);
}

static void any_done(struct blk_req *r, int err)
{
	(void)err;
	r->done = NULL;
}

/* Cluster 0 is let go while a request that came later has its "table" read. */
static int double_fiber(void *arg)
{
	static uint8_t buf[CLUSTER] __attribute__((aligned(4096)));
	struct iovec iov = {buf, CLUSTER};
	struct blk_req first = {.op = BLK_READ,
		.iov = &iov,
		.niov = 1,
		.off = CLUSTER,
		.len = CLUSTER,
		.done = late_done};
	struct blk_req second = first;
	struct bed *b = arg;
	int err;

	expect(b, 1, 0x11);
	ck_assert_int_eq(disk_discard(b->d, CLUSTER, 0), 0);
	b->h.next_read = true;
	disk_submit(b->d, &first);
	ck_assert_int_eq(disk_flush(b->d), 0);
	release(b);
	while (first.done)
		fiber_yield();
	put(b, 1, 0x22);
	second.off = PER_TABLE * CLUSTER;
	second.done = any_done;
	b->h.next_read = true;
	disk_submit(b->d, &second);
	while (!b->h.held)
		fiber_yield();
	err = disk_flush(b->d);
	release(b);
	while (second.done)
		fiber_yield();
	return err;
}

START_TEST(a_table_is_not_let_go_as_data)
{
	bool checks = _i;
	struct bed b;

	bed_open(&b, 2 * PER_TABLE);
	ck_assert_int_eq(fiber_run(b.l, zeros_fiber, &b), 0);
	make_double(&b, OVERLAP_GIVEN | (checks ? OVERLAP_CACHED : 0));
	ck_assert_int_eq(fiber_run(b.l, double_fiber, &b), checks ? -EIO : 0);
	ck_assert_int_eq(!(be64_at(&b, 72) & QCOW2_INCOMPAT_CORRUPT), !checks);
	disk_abandon(b.d);
	mem_fini(&b.m);
	loop_free(b.l);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("qcow2_free");
	TCase *t = tcase_create("order");
	SRunner *r;
	int failed;

	tcase_set_timeout(t, 60);
	tcase_add_test(t, a_write_in_flight_to_a_discarded_cluster_hits_nobody_else);
	tcase_add_test(t, who_waited_for_a_table_looks_at_the_cluster_again);
	tcase_add_test(t, preallocated_clusters_and_their_neighbours_are_one_write);
	tcase_add_test(t, a_write_over_clusters_at_work_waits_for_them);
	tcase_add_test(t, without_flushes_the_quarantine_empties_itself);
	tcase_add_test(t, one_request_frees_more_than_the_quarantine_holds);
	tcase_add_loop_test(t, a_table_is_not_let_go_as_data, 0, 2);
	suite_add_tcase(s, t);
	r = srunner_create(s);
	srunner_run_all(r, CK_NORMAL);
	failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed != 0;
}
