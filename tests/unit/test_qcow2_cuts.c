/* SPDX-License-Identifier: MIT */
/*
 * test_qcow2_cuts.c - the power fails while bitmaps are written back, while an image becomes one
 * of another version, while the file grows into the next sector of the refcount table, or after
 * giving back what was counted ahead has failed: each cut leaves what check finds at worst leaking,
 * of before or of after.
 */
#include <check.h>
#include <stdio.h>
#include <string.h>
#include "blockdev/block.h"
#include "tests/support/damaged.h"

#define SEEDS 24u

static struct loop *loop;

/* With the smaller ones each growth makes a refcount block; with the larger ones none does. */
static const uint32_t cluster_sizes[] = {512, 4096};

static void setup(void)
{
	log_level_set(LOG_ERROR);
	ck_assert_int_eq(loop_new(LOOP_AIO_THREADS, &loop), 0);
}

static void teardown(void)
{
	loop_free(loop);
}

/* A session: what is done between opening and closing. */
struct session {
	const char *name;
	int (*work)(void *disk);
	unsigned bitmaps; /* that are there afterwards */
};

/* An image, and what happened to it before. */
struct past {
	uint32_t cluster_size, version, refcount_bits;
	bool lazy;
	int (*first)(void *disk), (*second)(void *disk); /* sessions; NULL: none */
	unsigned bitmaps;
};

static int write_first(void *disk)
{
	static uint8_t buf[4096];

	memset(buf, 'x', sizeof(buf));
	return disk_pwrite(disk, buf, sizeof(buf), 0, 0);
}

static int add_two(void *disk)
{
	int err = write_first(disk);

	if (!err)
		err = disk_bitmap_change(disk, BITMAP_ADD, "a", 512, NULL);
	return err ? err : disk_bitmap_change(disk, BITMAP_ADD, "b", 4096, NULL);
}

static int remove_first(void *disk)
{
	return disk_bitmap_change(disk, BITMAP_REMOVE, "a", 0, NULL);
}

static int remove_both(void *disk)
{
	int err = remove_first(disk);

	return err ? err : disk_bitmap_change(disk, BITMAP_REMOVE, "b", 0, NULL);
}

static int clear(void *disk)
{
	return disk_bitmap_change(disk, BITMAP_CLEAR, "a", 0, NULL);
}

static int add_third(void *disk)
{
	int err = write_first(disk);

	return err ? err : disk_bitmap_change(disk, BITMAP_ADD, "c", 512, NULL);
}

static int enlarge(void *disk)
{
	int err = write_first(disk);

	return err ? err : disk_resize(disk, 64 * MiB, PREALLOC_OFF, NULL);
}

static int write_and_downgrade(void *disk)
{
	struct disk_amend a = {.version = 2, .set_lazy = true};
	int err = write_first(disk);

	return err ? err : disk_amend(disk, &a, NULL);
}

static int snapshot(void *disk)
{
	int err = write_first(disk);

	return err ? err : disk_snapshot_change(disk, SNAPSHOT_CREATE, "s", NULL);
}

static int upgrade(void *disk)
{
	struct disk_amend a = {.version = 3};

	return disk_amend(disk, &a, NULL);
}

static const struct session sessions[] = {
	{"bits are set in place of none", write_first, 2},
	{"one is removed", remove_first, 1},
	{"both are removed", remove_both, 0},
	{"one is cleared", clear, 2},
	{"one is added", add_third, 3},
	{"the disk grows", enlarge, 2},
};

static void run(struct cutfile *m, int (*work)(void *disk))
{
	struct disk_opts o = {.format = "qcow2"};
	struct disk *d;

	ck_assert_int_eq(disk_open_file(&m->file, &o, &d, NULL), 0);
	ck_assert_int_eq(fiber_run(loop, work, d), 0);
	ck_assert_int_eq(disk_close(d, NULL), 0);
}

struct creation {
	struct file *file;
	const struct past *p;
};

static int create_fiber(void *arg)
{
	const struct creation *c = arg;
	struct qcow2_create_opts o = {.size = 1 * MiB,
		.cluster_size = c->p->cluster_size,
		.version = c->p->version,
		.refcount_bits = c->p->refcount_bits,
		.lazy_refcounts = c->p->lazy};

	return qcow2_create(c->file, &o, NULL);
}

static bool marked(const struct cutfile *m)
{
	return mem_be32(m, 4) >= 3 && (mem_be64(m, 72) & QCOW2_INCOMPAT_DIRTY);
}

/* What the image holds; libcheck's assertions are too slow for thousands of cuts. */
static unsigned bitmaps_in(struct cutfile *m, const char *what)
{
	struct disk_opts o = {.format = "qcow2", .readonly = true};
	struct disk_bitmap b;
	struct qcow2_check res;
	struct disk *d;
	unsigned n = 0;

	/* With the mark its counts may lag: who opens it for writing repairs them. */
	if (!marked(m) && (check_run(m, 0, &res, NULL) != 0 || res.corruptions || res.check_errors))
		ck_abort_msg("%s: check finds %d errors", what, (int)res.corruptions);
	if (disk_open_file(&m->file, &o, &d, NULL) != 0)
		ck_abort_msg("%s: it cannot be opened", what);
	while (disk_bitmap_get(d, n, &b))
		n++;
	disk_abandon(d);
	return n;
}

static void each_cut(const struct cutfile *base, const struct cutfile *m, const struct session *s,
	unsigned before)
{
	for (unsigned n = 0; n <= m->n_log; n++)
		for (unsigned seed = 0; seed < SEEDS; seed++) {
			struct cutfile cut;
			unsigned found;
			char what[200];

			snprintf(what, sizeof(what), "%s, cut before %u of %u, seed %u", s->name, n,
				m->n_log, seed);
			cutfile_cut(&cut, base, m, n, seed);
			found = bitmaps_in(&cut, what);
			if (found != before && found != s->bitmaps)
				ck_abort_msg("%s: %u bitmaps", what, found);
			cutfile_free(&cut);
		}
}

static void make(struct cutfile *m, const struct past *p)
{
	struct creation c = {&m->file, p};

	cutfile_init(m, loop);
	ck_assert_int_eq(fiber_run(loop, create_fiber, &c), 0);
	if (p->first)
		run(m, p->first);
	if (p->second)
		run(m, p->second);
}

static void cut_session(struct cutfile *m, const struct past *p, const struct session *s)
{
	struct cutfile base;

	cutfile_copy(&base, m);
	cutfile_log(m);
	run(m, s->work);
	ck_assert_uint_eq(bitmaps_in(m, s->name), s->bitmaps);
	each_cut(&base, m, s, p->bitmaps);
	cutfile_free(m);
	cutfile_free(&base);
}

START_TEST(a_cut_leaves_the_bitmaps_of_before_or_after)
{
	for (size_t i = 0; i < 2 * ARRAY_SIZE(cluster_sizes); i++) {
		struct past p = {.cluster_size = cluster_sizes[i / 2],
			.first = add_two,
			.second = i % 2 ? write_first : NULL,
			.bitmaps = 2};
		struct cutfile m;

		make(&m, &p);
		cut_session(&m, &p, &sessions[_i]);
	}
}
END_TEST

/* What lazy counts lag behind by must be made up for before there is no mark to say so. */
START_TEST(a_cut_on_the_way_to_version_2)
{
	static const struct session s = {"downgrade", write_and_downgrade, 0};

	for (size_t i = 0; i < ARRAY_SIZE(cluster_sizes); i++) {
		struct past p = {.cluster_size = cluster_sizes[i], .lazy = true};
		struct cutfile m;

		make(&m, &p);
		cut_session(&m, &p, &s);
	}
}
END_TEST

/* A snapshot's entry as old programs wrote it: 16 bytes of extra data, not 24. */
static void shorten_entry(struct cutfile *m)
{
	uint64_t at = mem_be64(m, 64);

	ck_assert_uint_eq(mem_be32(m, at + 36), 24);
	mem_set_be32(m, at + 36, 16);
	memmove(m->data + at + 40 + 16, m->data + at + 40 + 24, 8);
}

START_TEST(a_cut_on_the_way_to_version_3)
{
	static const struct session s = {"upgrade", upgrade, 0};

	for (size_t i = 0; i < ARRAY_SIZE(cluster_sizes); i++) {
		struct past p = {.cluster_size = cluster_sizes[i], .version = 2, .first = snapshot};
		struct cutfile m;

		make(&m, &p);
		shorten_entry(&m);
		cut_session(&m, &p, &s);
	}
}
END_TEST

/* ---- refcount blocks of 64 counts, and 64 of those to a sector of the table ---- */

#define CLUSTER    512u
#define PER_BLOCK  64u
#define PER_SECTOR (64 * PER_BLOCK)

static const struct past wide_counts = {.cluster_size = CLUSTER, .refcount_bits = 64};
static const struct past wide_larger = {.cluster_size = 4 * CLUSTER, .refcount_bits = 64};

#define SOME (200 * CLUSTER)

/* Flushed. */
static int write_at(void *disk, uint64_t at)
{
	static uint8_t buf[SOME];
	int err;

	memset(buf, 'y', sizeof(buf));
	err = disk_pwrite(disk, buf, sizeof(buf), at, 0);
	return err ? err : disk_flush(disk);
}

static int write_some(void *disk)
{
	return write_at(disk, MiB - SOME);
}

static void assert_each_cut_whole(const struct cutfile *base, const struct cutfile *m)
{
	for (unsigned n = 0; n <= m->n_log; n++)
		for (unsigned seed = 0; seed < SEEDS / 6; seed++) {
			struct qcow2_check res;
			struct cutfile cut;

			cutfile_cut(&cut, base, m, n, seed);
			if (check_run(&cut, 0, &res, NULL) != 0 || res.corruptions)
				ck_abort_msg("cut before %u of %u, seed %u: %d errors", n, m->n_log,
					seed, (int)res.corruptions);
			cutfile_free(&cut);
		}
}

/* Clusters that have to be adjacent, for an L1 table: their blocks are counted in the first of
 * them. */
static int enlarge_much(void *disk)
{
	return disk_resize(disk, 256 * MiB, PREALLOC_OFF, NULL);
}

/* Blocks that are new at once, in both sectors: those of the later are counted in the earlier's. */
START_TEST(a_cut_where_sectors_of_the_table_meet)
{
	uint64_t meet = 3 * PER_SECTOR;

	for (uint64_t end = meet - 3 * PER_BLOCK; end <= meet; end += PER_BLOCK / 2) {
		struct cutfile m, base;

		make(&m, &wide_counts);
		mem_resize(&m, (2 * PER_SECTOR + 1) * CLUSTER); /* a table of four sectors */
		run(&m, write_some);
		ck_assert_uint_lt(m.size, end * CLUSTER);
		mem_resize(&m, end * CLUSTER);
		cutfile_copy(&base, &m);
		cutfile_log(&m);
		run(&m, enlarge_much);
		assert_each_cut_whole(&base, &m);
		cutfile_free(&m);
		cutfile_free(&base);
	}
}
END_TEST

/* Blocks for what was counted ahead go at a close: first their names, then the end of the file. */
START_TEST(a_cut_while_what_was_counted_ahead_is_given_back)
{
	struct cutfile m, base;

	make(&m, &wide_counts);
	cutfile_copy(&base, &m);
	cutfile_log(&m);
	run(&m, write_some);
	assert_each_cut_whole(&base, &m);
	cutfile_free(&m);
	cutfile_free(&base);
}
END_TEST

struct attempt {
	struct cutfile *m;
	struct disk *d;
	int fail_at;
	bool failed, parts_first;
};

/* Where nothing was written zeros are read, also beside what is written now. */
static int write_parts(void *disk)
{
	uint8_t buf[2 * SECTOR];

	for (uint64_t at = 0; at < SOME; at += 4 * CLUSTER) {
		int err;

		memset(buf, 'z', sizeof(buf));
		err = disk_pwrite(disk, buf, SECTOR, at + SECTOR, 0);
		if (err)
			return err;
		ck_assert_int_eq(disk_pread(disk, buf, sizeof(buf), at), 0);
		for (unsigned i = 0; i < SECTOR; i++)
			if (buf[i] || buf[SECTOR + i] != 'z')
				ck_abort_msg("something is where nothing was written");
	}
	return 0;
}

static int fail_once(void *arg)
{
	struct attempt *a = arg;
	struct disk_amend narrower = {.refcount_bits = 32};

	ck_assert_int_eq(write_at(a->d, SOME), 0);
	ck_assert_int_eq(write_at(a->d, 3 * SOME), 0);
	a->m->fail_at = a->fail_at;
	/* Its first step is to give back what was counted ahead, as at a close. */
	a->failed = disk_amend(a->d, &narrower, NULL) != 0;
	a->m->fail_at = 0;
	/* What goes on after that may fail too, and damages nothing. */
	if (a->parts_first)
		(void)!write_parts(a->d);
	if (enlarge_much(a->d) == 0 && write_parts(a->d) == 0)
		(void)!write_some(a->d);
	return 0;
}

static void fail_everywhere(const struct past *p, bool parts_first)
{
	struct disk_opts o = {.format = "qcow2"};
	struct attempt a = {.failed = true};

	for (int at = 1; a.failed; at++) {
		struct cutfile m, base;

		make(&m, p);
		cutfile_copy(&base, &m);
		cutfile_log(&m);
		a = (struct attempt){.m = &m, .fail_at = at, .parts_first = parts_first};
		ck_assert_int_eq(disk_open_file(&m.file, &o, &a.d, NULL), 0);
		ck_assert_int_eq(fiber_run(loop, fail_once, &a), 0);
		disk_abandon(a.d);
		assert_each_cut_whole(&base, &m);
		cutfile_free(&m);
		cutfile_free(&base);
	}
}

START_TEST(a_change_of_the_counts_that_fails_damages_nothing)
{
	for (unsigned i = 0; i < 4; i++)
		fail_everywhere(i & 2 ? &wide_larger : &wide_counts, i & 1);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("qcow2 cuts");
	TCase *t = tcase_create("cuts");
	SRunner *r;
	int failed;

	tcase_add_checked_fixture(t, setup, teardown);
	tcase_set_timeout(t, 120);
	tcase_add_loop_test(
		t, a_cut_leaves_the_bitmaps_of_before_or_after, 0, (int)ARRAY_SIZE(sessions));
	tcase_add_test(t, a_cut_on_the_way_to_version_2);
	tcase_add_test(t, a_cut_on_the_way_to_version_3);
	tcase_add_test(t, a_cut_where_sectors_of_the_table_meet);
	tcase_add_test(t, a_cut_while_what_was_counted_ahead_is_given_back);
	tcase_add_test(t, a_change_of_the_counts_that_fails_damages_nothing);
	suite_add_tcase(s, t);
	r = srunner_create(s);
	srunner_run_all(r, CK_NORMAL);
	failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed != 0;
}
