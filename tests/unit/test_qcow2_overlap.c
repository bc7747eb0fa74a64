/* SPDX-License-Identifier: MIT */
/*
 * test_qcow2_overlap.c - a damaged image is not damaged further: each class of metadata is
 * protected, what is refused is marked durably first, and check -r all takes the mark off.
 */
#include <check.h>
#include <stdlib.h>
#include <string.h>
#include "blockdev/block.h"
#include "blockdev/qcow2/cluster_set.h"
#include "blockdev/qcow2/qcow2.h"
#include "tests/support/damaged.h"

#define CLUSTER 4096u

static struct loop *loop;

static void setup(void)
{
	ck_assert_int_eq(loop_new(LOOP_AIO_THREADS, &loop), 0);
}

static void teardown(void)
{
	loop_free(loop);
}

/* Opens a copy of m (disk_open_file() takes its file over), with some of the checks. */
static int open_with(struct cutfile *m, unsigned classes, bool readonly, struct disk **d)
{
	struct disk_opts o = {
		.format = "qcow2", .overlap = OVERLAP_GIVEN | classes, .readonly = readonly};

	return disk_open_file(&m->file, &o, d, NULL);
}

/* ---- what the guest does ---- */

enum deed { WRITE, READ, FLUSH, SNAPSHOT, EMPTY };

struct guest {
	struct disk *d;
	enum deed deed;
	uint64_t cluster;
};

static int guest_fiber(void *arg)
{
	const struct guest *g = arg;
	static uint8_t buf[CLUSTER];

	memset(buf, 'x', sizeof(buf));
	switch (g->deed) {
	case WRITE:
		return disk_pwrite(g->d, buf, sizeof(buf), g->cluster * CLUSTER, 0);
	case READ:
		return disk_pread(g->d, buf, sizeof(buf), g->cluster * CLUSTER);
	case FLUSH:
		return disk_flush(g->d);
	case SNAPSHOT:
		return disk_snapshot_change(g->d, SNAPSHOT_CREATE, "s", NULL);
	case EMPTY:
		return disk_make_empty(g->d);
	}
	return -EINVAL;
}

static int guest(struct disk *d, enum deed deed, uint64_t cluster)
{
	struct guest g = {d, deed, cluster};

	return fiber_run(loop, guest_fiber, &g);
}

static int write_cluster(struct disk *d, uint64_t cluster)
{
	return guest(d, WRITE, cluster);
}

/* An image with a snapshot, whose own L2 table differs from the active one. */
static void make(struct damaged *d, struct cutfile *m, uint32_t version)
{
	struct qcow2_create_opts o = {
		.size = 64 * MiB, .cluster_size = CLUSTER, .version = version};
	struct disk *disk;
	struct cutfile work;

	damaged_init(d, m, loop, &o);
	cutfile_copy(&work, m);
	ck_assert_int_eq(open_with(&work, OVERLAP_ALL, false, &disk), 0);
	ck_assert_int_eq(guest(disk, SNAPSHOT, 0), 0);
	ck_assert_int_eq(write_cluster(disk, 0), 0);
	ck_assert_int_eq(guest(disk, FLUSH, 0), 0);
	mem_resize(m, work.size);
	memcpy(m->data, work.data, work.size);
	disk_abandon(disk);
	cutfile_free(&work);
}

/* Where each class lies in that image. */
static uint64_t place_of(const struct cutfile *m, unsigned class)
{
	uint64_t l1 = mem_be64(m, 40), reftable = mem_be64(m, 48), snapshots = mem_be64(m, 64);
	uint64_t old_l1 = mem_be64(m, snapshots);

	switch (class) {
	case OVERLAP_ACTIVE_L1:
		return l1;
	case OVERLAP_ACTIVE_L2:
		return mem_be64(m, l1) & QCOW2_OFFSET_MASK;
	case OVERLAP_REFCOUNT_TABLE:
		return reftable;
	case OVERLAP_REFCOUNT_BLOCK:
		return mem_be64(m, reftable);
	case OVERLAP_SNAPSHOT_TABLE:
		return snapshots;
	case OVERLAP_INACTIVE_L1:
		return old_l1;
	default:
		return mem_be64(m, old_l1) & QCOW2_OFFSET_MASK;
	}
}

/* Guest cluster 1 is said to lie where that is. */
static void point_at(struct cutfile *m, uint64_t host_off)
{
	uint64_t l2 = mem_be64(m, mem_be64(m, 40)) & QCOW2_OFFSET_MASK;

	mem_set_be64(m, l2 + 8, host_off | QCOW2_OFLAG_COPIED);
}

/* An entry cannot name the header: 0 is a hole. */
static const unsigned classes[] = {OVERLAP_ACTIVE_L1, OVERLAP_ACTIVE_L2, OVERLAP_REFCOUNT_TABLE,
	OVERLAP_REFCOUNT_BLOCK, OVERLAP_SNAPSHOT_TABLE, OVERLAP_INACTIVE_L1, OVERLAP_INACTIVE_L2};

static bool marked(const struct cutfile *m)
{
	return mem_be64(m, 72) & QCOW2_INCOMPAT_CORRUPT;
}

/* What the file holds at the moment when the write is answered, all that is not durable lost. */
static void assert_marked_durably(const struct cutfile *before, const struct cutfile *m)
{
	struct cutfile cut;

	cutfile_cut(&cut, before, m, m->n_log, 1);
	ck_assert_msg(marked(&cut), "refused, and the mark is not durable");
	cutfile_free(&cut);
}

START_TEST(metadata_is_not_written_over)
{
	unsigned class = classes[_i];
	struct cutfile m, work, before;
	struct damaged d;
	struct disk *disk;
	uint64_t at;

	make(&d, &m, 3);
	at = place_of(&m, class);
	point_at(&m, at);
	cutfile_copy(&work, &m);
	cutfile_copy(&before, &m);
	ck_assert_int_eq(open_with(&work, class, false, &disk), 0);
	/* With the table in the cache the write would go straight to the file. */
	ck_assert_int_eq(guest(disk, READ, 0), 0);
	cutfile_log(&work);
	ck_assert_int_eq(write_cluster(disk, 1), -EIO);
	assert_marked_durably(&before, &work);
	ck_assert_int_eq(write_cluster(disk, 0), -ENOMEDIUM);
	ck_assert_int_eq(guest(disk, READ, 0), -ENOMEDIUM);
	ck_assert_int_lt(guest(disk, FLUSH, 0), 0);
	/* The header's mark is all that changed. */
	ck_assert_uint_eq(work.size, m.size);
	ck_assert(!memcmp(work.data + 80, m.data + 80, m.size - 80));
	disk_abandon(disk);
	cutfile_free(&work);

	/* Without the check it is. */
	cutfile_copy(&work, &m);
	ck_assert_int_eq(
		open_with(&work, OVERLAP_ALL & ~class & ~OVERLAP_ACTIVE_L2, false, &disk), 0);
	if (class != OVERLAP_ACTIVE_L2) {
		ck_assert_int_eq(write_cluster(disk, 1), 0);
		ck_assert_int_eq(work.data[at + CLUSTER - 1], 'x');
	}
	disk_abandon(disk);
	cutfile_free(&work);
	cutfile_free(&before);
	cutfile_free(&m);
}
END_TEST

static int refused_open(struct cutfile *m)
{
	struct cutfile again;
	struct disk *disk;
	int err;

	cutfile_copy(&again, m);
	err = open_with(&again, OVERLAP_ALL, false, &disk);
	if (!err)
		disk_abandon(disk);
	cutfile_free(&again);
	return err;
}

START_TEST(a_marked_image_opens_for_writing_after_repair_only)
{
	struct cutfile m, work;
	struct qcow2_check res;
	struct damaged d;
	struct disk *disk;

	make(&d, &m, 3);
	point_at(&m, place_of(&m, OVERLAP_REFCOUNT_BLOCK));
	cutfile_copy(&work, &m);
	ck_assert_int_eq(open_with(&work, OVERLAP_CACHED, false, &disk), 0);
	ck_assert_int_eq(write_cluster(disk, 1), -EIO);
	mem_resize(&m, work.size);
	memcpy(m.data, work.data, work.size);
	disk_abandon(disk);
	cutfile_free(&work);
	ck_assert(marked(&m));
	ck_assert_int_eq(refused_open(&m), -EACCES);

	cutfile_copy(&work, &m);
	ck_assert_int_eq(open_with(&work, OVERLAP_CACHED, true, &disk), 0); /* to read it is good */
	disk_abandon(disk);
	cutfile_free(&work);

	ck_assert_int_eq(check_run(&m, QCOW2_FIX_LEAKS | QCOW2_FIX_ERRORS, &res, NULL), 0);
	ck_assert(!marked(&m));
	ck_assert_int_eq(refused_open(&m), 0);
	cutfile_free(&m);
}
END_TEST

START_TEST(version_2_has_no_mark_but_is_protected)
{
	struct cutfile m, work;
	struct damaged d;
	struct disk *disk;

	make(&d, &m, 2);
	point_at(&m, place_of(&m, OVERLAP_ACTIVE_L1));
	cutfile_copy(&work, &m);
	ck_assert_int_eq(open_with(&work, OVERLAP_CACHED, false, &disk), 0);
	ck_assert_int_eq(write_cluster(disk, 1), -EIO);
	ck_assert_int_eq(write_cluster(disk, 0), -ENOMEDIUM);
	ck_assert(!memcmp(work.data, m.data, m.size));
	disk_abandon(disk);
	cutfile_free(&work);
	cutfile_free(&m);
}
END_TEST

/* A table that is in use counts as free: found when it is handed out, by what is written there. */
START_TEST(clusters_that_wrongly_count_as_free_are_found_out)
{
	struct qcow2_create_opts o = {.size = 64 * MiB, .cluster_size = CLUSTER};
	struct cutfile m;
	struct damaged d;
	struct disk *disk;

	damaged_init(&d, &m, loop, &o);
	for (unsigned c = 0; c < 4; c++)
		damaged_set_count(&d, c, 0);
	ck_assert_int_eq(open_with(&m, OVERLAP_CACHED, false, &disk), 0);
	ck_assert_int_eq(write_cluster(disk, 100), -EIO);
	ck_assert(marked(&m));
	disk_abandon(disk);
	cutfile_free(&m);
}
END_TEST

/* L1 says that it is an L2 table itself: found when that "table" is to be written. */
START_TEST(tables_are_held_against_each_other)
{
	struct cutfile m;
	struct damaged d;
	struct disk *disk;
	uint64_t l1;

	make(&d, &m, 3);
	l1 = place_of(&m, OVERLAP_ACTIVE_L1);
	mem_set_be64(&m, l1 + 8, l1 | QCOW2_OFLAG_COPIED);
	ck_assert_int_eq(open_with(&m, OVERLAP_CACHED, false, &disk), 0);
	ck_assert_int_eq(write_cluster(disk, CLUSTER / 8 + 5), 0);
	ck_assert_int_eq(guest(disk, FLUSH, 0), -EIO);
	ck_assert(marked(&m));
	ck_assert_uint_eq(mem_be64(&m, l1 + 5 * 8ULL), 0);
	disk_abandon(disk);
	cutfile_free(&m);
}
END_TEST

/* What held a table once is good for data: the sets forget. */
START_TEST(a_freed_table_is_no_obstacle)
{
	struct qcow2_create_opts o = {.size = 64 * MiB, .cluster_size = CLUSTER};
	struct disk_opts opts = {.format = "qcow2"};
	struct cutfile m;
	struct damaged d;
	struct disk *disk;

	damaged_init(&d, &m, loop, &o);
	ck_assert_int_eq(disk_open_file(&m.file, &opts, &disk, NULL), 0);
	for (unsigned round = 0; round < 3; round++) {
		for (uint64_t c = 0; c < 16 * 512; c += 256)
			ck_assert_int_eq(write_cluster(disk, c), 0);
		ck_assert_int_eq(guest(disk, EMPTY, 0), 0);
	}
	disk_abandon(disk);
	ck_assert(!marked(&m));
	cutfile_free(&m);
}
END_TEST

START_TEST(a_set_of_clusters_holds_what_was_added)
{
	struct cluster_set s = {0};

	ck_assert(!cluster_set_hits(&s, 0, 1000));
	for (uint64_t i = 0; i < 5000; i++)
		ck_assert_int_eq(cluster_set_add(&s, i * 1000003, 1 + i % 3), 0);
	for (uint64_t i = 0; i < 5000; i++) {
		uint64_t c = i * 1000003;

		if (!cluster_set_hits(&s, c, 1) || !cluster_set_hits(&s, c + i % 3, 1) ||
			!cluster_set_hits(&s, c - min_u64(c, 100), 101) ||
			cluster_set_hits(&s, c + 1 + i % 3, 999000))
			ck_abort_msg("cluster %d", (int)i);
	}
	cluster_set_remove(&s, 1000003);
	ck_assert(!cluster_set_hits(&s, 1000003, 1));
	ck_assert(cluster_set_hits(&s, 1000004, 1));
	cluster_set_fini(&s);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("qcow2_overlap");
	TCase *t = tcase_create("all");
	SRunner *r;
	int failed;

	tcase_add_checked_fixture(t, setup, teardown);
	tcase_set_timeout(t, 60);
	tcase_add_loop_test(t, metadata_is_not_written_over, 0, ARRAY_SIZE(classes));
	tcase_add_test(t, a_marked_image_opens_for_writing_after_repair_only);
	tcase_add_test(t, version_2_has_no_mark_but_is_protected);
	tcase_add_test(t, clusters_that_wrongly_count_as_free_are_found_out);
	tcase_add_test(t, tables_are_held_against_each_other);
	tcase_add_test(t, a_freed_table_is_no_obstacle);
	tcase_add_test(t, a_set_of_clusters_holds_what_was_added);
	suite_add_tcase(s, t);
	r = srunner_create(s);
	srunner_run_all(r, CK_NORMAL);
	failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed != 0;
}
