/* SPDX-License-Identifier: MIT */
/*
 * test_qcow2_check.c - each damage is found, said in words, repaired for good, and
 * repaired again after a cut at any write of the repair.
 */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "blockdev/block.h"
#include "tests/support/damaged.h"

static struct loop *loop;

static const struct qcow2_create_opts geometries[] = {
	{.size = 1 * MiB, .cluster_size = 512},
	{.size = 1 * MiB, .cluster_size = 512, .version = 2},
	{.size = 64 * MiB, .cluster_size = 4096, .refcount_bits = 64},
	{.size = 1 * MiB, .cluster_size = 512, .refcount_bits = 8, .lazy_refcounts = true},
	{.size = 1 * GiB, .cluster_size = 65536, .refcount_bits = 2},
};
#define N_GEOMETRIES ((int)ARRAY_SIZE(geometries))

static void setup(void)
{
	ck_assert_int_eq(loop_new(LOOP_AIO_THREADS, &loop), 0);
}

static void teardown(void)
{
	loop_free(loop);
}

/* Version 2 has no dirty bit to set, and wants no extra data. */
static bool applies(const struct damage *dm, const struct qcow2_create_opts *o)
{
	return o->version != 2 || (strncmp(dm->name, "dirty", 5) != 0 &&
					  strncmp(dm->name, "snapshot", 8) != 0);
}

static void assert_clean(struct cutfile *m, const char *what)
{
	static struct lines lines;
	struct qcow2_check res;

	/* libcheck keeps a record of each assertion that holds: too slow for thousands of cuts. */
	if (check_run(m, 0, &res, &lines) != 0)
		ck_abort_msg("%s: check failed", what);
	if (res.corruptions || res.leaks || res.check_errors)
		ck_abort_msg("%s: %s", what, lines.text);
}

static bool all_bytes(const uint8_t *p, uint64_t n, uint8_t v)
{
	for (uint64_t i = 0; i < n; i++)
		if (p[i] != v)
			return false;
	return true;
}

static void assert_data(
	const struct damaged *d, const struct cutfile *m, uint32_t lost, const char *what)
{
	for (uint32_t i = 0; i < DAMAGED_DATA; i++) {
		uint64_t off = mem_be64(m, d->l2 + i * 8ULL) & QCOW2_OFFSET_MASK;

		if (lost & (1u << i))
			continue;
		if (off != d->data + i * d->h.cluster_size)
			ck_abort_msg("%s: entry %u is lost", what, i);
		if (!all_bytes(m->data + off, d->h.cluster_size, (uint8_t)('A' + i)))
			ck_abort_msg("%s: data of cluster %u", what, i);
	}
}

START_TEST(damage_is_found_and_said)
{
	static struct lines lines;

	for (int i = 0; i < n_damages; i++) {
		const struct damage *dm = &damages[i];
		struct qcow2_check res;
		struct damaged d;
		struct cutfile m;

		damaged_init(&d, &m, loop, &geometries[0]);
		dm->inflict(&d);
		cutfile_log(&m);
		ck_assert_int_eq(check_run(&m, 0, &res, &lines), 0);
		ck_assert_msg(m.n_log == 0, "%s: check wrote to the image", dm->name);
		if (dm->line[0])
			ck_assert_msg(res.corruptions || res.leaks, "%s: not found", dm->name);
		/* It needs clusters of two sectors. */
		if (strcmp(dm->name, "entry of zeros unaligned") != 0)
			ck_assert_msg(strstr(lines.text, dm->line) != NULL, "%s: said %s", dm->name,
				lines.text);
		if (dm->errors || dm->leaks)
			ck_assert_msg(res.corruptions == dm->errors && res.leaks == dm->leaks,
				"%s: %d errors, %d leaks", dm->name, (int)res.corruptions,
				(int)res.leaks);
		cutfile_free(&m);
	}
}
END_TEST

START_TEST(repair_leaves_nothing_to_find)
{
	const struct qcow2_create_opts *o = &geometries[_i];

	for (int i = 0; i < n_damages; i++) {
		const struct damage *dm = &damages[i];
		struct qcow2_check res;
		struct damaged d;
		struct cutfile m;

		if (!applies(dm, o))
			continue;
		damaged_init(&d, &m, loop, o);
		dm->inflict(&d);
		ck_assert_int_eq(check_run(&m, QCOW2_FIX_LEAKS | QCOW2_FIX_ERRORS, &res, NULL), 0);
		ck_assert_msg(!res.corruptions && !res.leaks, "%s: left over", dm->name);
		assert_clean(&m, dm->name);
		assert_data(&d, &m, dm->lost, dm->name);
		if (o->version != 2)
			ck_assert_msg(!(mem_be64(&m, 72) & QCOW2_INCOMPAT_DIRTY), "%s: still dirty",
				dm->name);
		cutfile_free(&m);
	}
}
END_TEST

/* Whichever table the header names holds the snapshot. */
static void assert_snapshot(const struct cutfile *m, const char *what)
{
	uint64_t at = mem_be64(m, offsetof(struct qcow2_disk_header, snapshots_offset));

	if (memcmp(m->data + at + 40 + mem_be32(m, at + 36), "7name", 5) != 0)
		ck_abort_msg("%s: the snapshot is lost", what);
}

static void cut_and_repair(const struct damaged *d, const struct cutfile *base,
	const struct cutfile *m, const struct damage *dm)
{
	unsigned seeds = d->h.cluster_size > 512 ? 6 : 24;

	for (unsigned n = 0; n <= m->n_log; n++)
		for (unsigned seed = 0; seed < seeds; seed++) {
			struct cutfile cut;
			struct qcow2_check res;
			char what[128];

			snprintf(what, sizeof(what), "%s, cut before %u of %u, seed %u", dm->name,
				n, m->n_log, seed);
			cutfile_cut(&cut, base, m, n, seed);
			if (check_run(&cut, QCOW2_FIX_LEAKS | QCOW2_FIX_ERRORS, &res, NULL) != 0)
				ck_abort_msg("%s: repair failed", what);
			assert_clean(&cut, what);
			assert_data(d, &cut, dm->lost, what);
			if (!strncmp(dm->name, "snapshot", 8))
				assert_snapshot(&cut, what);
			cutfile_free(&cut);
		}
}

START_TEST(a_cut_repair_can_be_finished)
{
	const struct qcow2_create_opts *o = &geometries[_i];

	for (int i = 0; i < n_damages; i++) {
		struct cutfile m, base;
		struct qcow2_check res;
		struct damaged d;

		if (!applies(&damages[i], o))
			continue;
		damaged_init(&d, &m, loop, o);
		damages[i].inflict(&d);
		cutfile_copy(&base, &m);
		cutfile_log(&m);
		ck_assert_int_eq(check_run(&m, QCOW2_FIX_LEAKS | QCOW2_FIX_ERRORS, &res, NULL), 0);
		cut_and_repair(&d, &base, &m, &damages[i]);
		cutfile_free(&m);
		cutfile_free(&base);
	}
}
END_TEST

/* Clusters that are counted too low: the next writer may hand them out again. */
static unsigned counted_too_low(struct cutfile *m)
{
	static struct lines lines;
	struct qcow2_check res;
	unsigned n = 0;

	lines.used = 0;
	if (check_run(m, 0, &res, &lines) != 0)
		ck_abort_msg("check failed");
	for (const char *p = lines.text; (p = strstr(p, "ERROR cluster ")) != NULL; p++)
		n++;
	return n;
}

/* One table cluster names 64 blocks of 256 counts: 16384 clusters of 512 bytes. */
#define FAR (40000ULL * 512)

static void table_too_small(struct damaged *d)
{
	mem_resize(d->m, FAR + 512);
	memset(d->m->data + FAR, 'Z', 512);
	damaged_set_entry(d, 10, FAR | QCOW2_OFLAG_COPIED);
}

/* To be dropped, after which its count is too high: in that order. */
static void block_as_l2_counted(struct damaged *d)
{
	mem_set_be64(d->m, d->h.l1_offset + 8, d->refblock);
	damaged_set_count(d, d->refblock / d->h.cluster_size, 2);
}

static void cut_version_2(const char *name, void (*inflict)(struct damaged *d), unsigned seeds)
{
	struct cutfile m, base, cut;
	struct qcow2_check res;
	struct damaged d;
	unsigned before;

	damaged_init(&d, &m, loop, &geometries[1]);
	inflict(&d);
	before = counted_too_low(&m);
	cutfile_copy(&base, &m);
	cutfile_log(&m);
	ck_assert_int_eq(check_run(&m, QCOW2_FIX_LEAKS | QCOW2_FIX_ERRORS, &res, NULL), 0);
	ck_assert(m.n_log && m.log[m.n_log - 1].op == FILE_FDATASYNC);
	for (unsigned n = 0; n <= m.n_log; n++)
		for (unsigned seed = 0; seed < seeds; seed++) {
			cutfile_cut(&cut, &base, &m, n, seed);
			if (counted_too_low(&cut) > before)
				ck_abort_msg("%s, cut before %u of %u, seed %u", name, n, m.n_log,
					seed);
			cutfile_free(&cut);
		}
	cutfile_free(&m);
	cutfile_free(&base);
}

/*
 * Version 2 has no mark that makes the next program repair first: the order inside a repair is
 * all there is.  After a cut the image is no more dangerous than before.
 */
START_TEST(a_cut_repair_of_version_2_makes_nothing_worse)
{
	for (int i = 0; i < n_damages; i++)
		if (applies(&damages[i], &geometries[1]))
			cut_version_2(damages[i].name, damages[i].inflict, 24);
	cut_version_2("table too small", table_too_small, 6);
	cut_version_2("block mapped as an L2 table", block_as_l2_counted, 24);
}
END_TEST

/* From the first write on until the last, version 3 says that it is dirty. */
START_TEST(repair_of_errors_runs_under_the_dirty_bit)
{
	for (int i = 0; i < n_damages; i++) {
		struct cutfile m, base;
		struct qcow2_check res;
		struct damaged d;

		damaged_init(&d, &m, loop, &geometries[0]);
		damages[i].inflict(&d);
		cutfile_copy(&base, &m);
		cutfile_log(&m);
		ck_assert_int_eq(check_run(&m, QCOW2_FIX_LEAKS | QCOW2_FIX_ERRORS, &res, NULL), 0);
		ck_assert(m.n_log && m.log[m.n_log - 1].op == FILE_FDATASYNC);
		for (unsigned n = 0; n < m.n_log; n++) {
			struct cutfile cut;

			if (m.log[n].op != FILE_WRITE || m.log[n].off == 0 ||
				!res.refcounts_rebuilt)
				continue;
			cutfile_cut(&cut, &base, &m, n, 1); /* only what was flushed */
			ck_assert_msg(mem_be64(&cut, 72) & QCOW2_INCOMPAT_DIRTY,
				"%s: write %u came before the dirty bit was durable",
				damages[i].name, n);
			cutfile_free(&cut);
		}
		cutfile_free(&m);
		cutfile_free(&base);
	}
}
END_TEST

#define AUTOCLEAR_AT offsetof(struct qcow2_disk_header, autoclear)

/* Whoever does not know such a bit clears it before anything that it may speak of changes. */
START_TEST(autoclear_bits_go_first)
{
	struct disk_opts o = {.format = "qcow2"};
	struct cutfile m, base, cut;
	struct qcow2_check res;
	struct damaged d;
	struct disk *disk;

	damaged_init(&d, &m, loop, &geometries[0]);
	damages[1].inflict(&d); /* a leak: mending it sets no mark that flushes the header */
	mem_set_be64(&m, AUTOCLEAR_AT, 1ULL << 40);
	cutfile_copy(&base, &m);
	cutfile_log(&m);
	ck_assert_int_eq(check_run(&m, QCOW2_FIX_LEAKS, &res, NULL), 0);
	for (unsigned n = 0; n < m.n_log; n++) {
		if (m.log[n].op != FILE_WRITE || m.log[n].off == 0)
			continue;
		cutfile_cut(&cut, &base, &m, n, 1);
		ck_assert_uint_eq(mem_be64(&cut, AUTOCLEAR_AT), 0);
		cutfile_free(&cut);
	}
	/* A guest's disk, before the guest writes. */
	mem_set_be64(&m, AUTOCLEAR_AT, 1ULL << 40);
	cutfile_log(&m);
	ck_assert_int_eq(disk_open_file(&m.file, &o, &disk, NULL), 0);
	ck_assert_uint_eq(mem_be64(&m, AUTOCLEAR_AT), 0);
	ck_assert(m.n_log && m.log[m.n_log - 1].op == FILE_FDATASYNC);
	disk_abandon(disk);
	cutfile_free(&m);
	cutfile_free(&base);
}
END_TEST

START_TEST(every_failing_write_is_passed_on)
{
	for (int i = 0; i < n_damages; i++)
		for (int at = 1;; at++) {
			struct qcow2_check res;
			struct damaged d;
			struct cutfile m;
			int err;

			damaged_init(&d, &m, loop, &geometries[0]);
			damages[i].inflict(&d);
			m.fail_at = at;
			err = check_run(&m, QCOW2_FIX_LEAKS | QCOW2_FIX_ERRORS, &res, NULL);
			if (m.fail_at) { /* there were not so many */
				ck_assert_int_eq(err, 0);
				cutfile_free(&m);
				break;
			}
			ck_assert_msg(
				err == -EIO, "%s: failure %d gave %d", damages[i].name, at, err);
			ck_assert_int_eq(
				check_run(&m, QCOW2_FIX_LEAKS | QCOW2_FIX_ERRORS, &res, NULL), 0);
			assert_clean(&m, damages[i].name);
			cutfile_free(&m);
		}
}
END_TEST

/* What a driver that was cut had reserved ahead, inside the file and past its end. */
START_TEST(leaks_alone_are_given_back_in_place)
{
	struct qcow2_check res;
	struct damaged d;
	struct cutfile m;
	uint64_t end;

	damaged_init(&d, &m, loop, &geometries[0]);
	end = m.size / 512;
	mem_resize(&m, m.size + 8 * 512);
	for (uint64_t i = 0; i < 16; i++)
		damaged_set_count(&d, end + i, 1);
	ck_assert_int_eq(check_run(&m, 0, &res, NULL), 0);
	ck_assert_uint_eq(res.leaks, 8); /* qemu-img sees no more */
	cutfile_log(&m);
	ck_assert_int_eq(check_run(&m, QCOW2_FIX_LEAKS, &res, NULL), 0);
	ck_assert_uint_eq(res.leaks_fixed, 8);
	ck_assert_uint_eq(res.leaks + res.corruptions, 0);
	for (uint64_t i = 0; i < 16; i++)
		ck_assert_uint_eq(
			qcow2_refcount_get(m.data + d.refblock, (uint32_t)(end + i), 4), 0);
	for (unsigned n = 0; n < m.n_log; n++)
		ck_assert_msg(m.log[n].op != FILE_WRITE || m.log[n].off != 0, "header touched");
	assert_data(&d, &m, 0, "leaks");
	cutfile_free(&m);
}
END_TEST

/* Repair must not hand all data to the allocator because one header field is wrong. */
START_TEST(a_lost_l1_table_is_not_repaired)
{
	struct qcow2_check res;
	struct damaged d;
	struct cutfile m;

	damaged_init(&d, &m, loop, &geometries[0]);
	mem_set_be64(&m, offsetof(struct qcow2_disk_header, l1_offset), 1ULL << 40);
	cutfile_log(&m);
	ck_assert_int_eq(check_run(&m, 0, &res, NULL), 0);
	ck_assert_uint_ge(res.corruptions, 1);
	ck_assert_int_eq(check_run(&m, QCOW2_FIX_LEAKS, &res, NULL), -EIO);
	ck_assert_int_eq(check_run(&m, QCOW2_FIX_LEAKS | QCOW2_FIX_ERRORS, &res, NULL), -EIO);
	for (unsigned n = 0; n < m.n_log; n++)
		ck_assert_int_eq(m.log[n].op, FILE_FDATASYNC);
	cutfile_free(&m);
}
END_TEST

START_TEST(a_table_too_small_for_the_file_is_replaced)
{
	struct qcow2_check res;
	struct damaged d;
	struct cutfile m;

	damaged_init(&d, &m, loop, &geometries[0]);
	table_too_small(&d);
	ck_assert_int_eq(check_run(&m, QCOW2_FIX_LEAKS | QCOW2_FIX_ERRORS, &res, NULL), 0);
	ck_assert(res.refcounts_rebuilt);
	assert_clean(&m, "table too small");
	assert_data(&d, &m, 0, "table too small");
	ck_assert_uint_gt(mem_be32(&m, offsetof(struct qcow2_disk_header, reftable_clusters)), 1);
	ck_assert_uint_eq(damaged_entry(&d, 10), FAR | QCOW2_OFLAG_COPIED);
	ck_assert_int_eq(m.data[FAR], 'Z');
	cutfile_free(&m);
}
END_TEST

/* What the image knew of a snapshot is kept; what it did not say is as if there were none. */
START_TEST(a_snapshot_is_completed)
{
	const struct damage *dm = damages;
	struct qcow2_check res;
	struct damaged d;
	struct cutfile m;
	uint64_t old, at;

	while (strcmp(dm->name, "snapshot incomplete") != 0)
		dm++;
	damaged_init(&d, &m, loop, &geometries[0]);
	dm->inflict(&d);
	old = mem_be64(&m, offsetof(struct qcow2_disk_header, snapshots_offset));
	ck_assert_int_eq(check_run(&m, QCOW2_FIX_LEAKS | QCOW2_FIX_ERRORS, &res, NULL), 0);
	ck_assert_uint_eq(res.corruptions_fixed, 1);
	at = mem_be64(&m, offsetof(struct qcow2_disk_header, snapshots_offset));
	ck_assert_uint_gt(at, old); /* never over what is still in use */
	ck_assert_uint_eq(mem_be32(&m, at + 32), 77);
	ck_assert_uint_eq(mem_be32(&m, at + 36), 24);
	ck_assert_uint_eq(mem_be64(&m, at + 40), 0x5a5a5a5a5a5a5a5a); /* had that */
	ck_assert_uint_eq(mem_be64(&m, at + 48), 1 * MiB);
	ck_assert_uint_eq(mem_be64(&m, at + 56), UINT64_MAX);
	ck_assert_mem_eq(m.data + at + 64, "7name", 5);
	ck_assert_uint_eq(qcow2_refcount_get(m.data + d.refblock, (uint32_t)(old / 512), 4), 0);
	ck_assert_uint_eq(qcow2_refcount_get(m.data + d.refblock, (uint32_t)(at / 512), 4), 1);
	cutfile_free(&m);
}
END_TEST

START_TEST(statistics_are_those_of_qemu_img)
{
	struct qcow2_check res;
	struct damaged d;
	struct cutfile m;

	damaged_init(&d, &m, loop, &geometries[0]);
	damaged_set_entry(&d, 20, damaged_entry(&d, 5)); /* out of order: fragmented */
	damaged_set_entry(&d, 5, 0);
	ck_assert_int_eq(check_run(&m, 0, &res, NULL), 0);
	ck_assert_uint_eq(res.allocated_clusters, 6);
	ck_assert_uint_eq(res.fragmented_clusters, 0);
	damaged_set_entry(&d, 19, damaged_entry(&d, 4));
	damaged_set_entry(&d, 4, 0);
	damaged_set_entry(&d, 0, 0);
	damaged_set_entry(&d, 30, d.data | QCOW2_OFLAG_COPIED);
	ck_assert_int_eq(check_run(&m, 0, &res, NULL), 0);
	ck_assert_uint_eq(res.fragmented_clusters, 1);
	ck_assert_uint_eq(res.total_clusters, 2048);
	ck_assert_uint_eq(res.image_end_offset, m.size);
	cutfile_free(&m);
}
END_TEST

/* Counting must cost what is used, not what the file's length allows. */
START_TEST(compressed_clusters_are_counted_by_their_sectors)
{
	struct qcow2_check res;
	struct damaged d;
	struct cutfile m;
	uint64_t off;

	/* 4 KiB clusters: 7 sectors from the middle of data cluster 0 reach into cluster 1. */
	damaged_init(&d, &m, loop, &geometries[2]);
	off = d.data + 2048;
	damaged_set_entry(&d, 9, QCOW2_OFLAG_COMPRESSED | (6ULL << 58) | off);
	damaged_set_entry(&d, 0, 0);
	damaged_set_entry(&d, 1, 0);
	ck_assert_int_eq(check_run(&m, 0, &res, NULL), 0);
	ck_assert_uint_eq(res.corruptions + res.leaks, 0);
	ck_assert_uint_eq(res.compressed_clusters, 1);
	damaged_set_entry(&d, 9, QCOW2_OFLAG_COMPRESSED | (3ULL << 58) | off);
	ck_assert_int_eq(check_run(&m, 0, &res, NULL), 0);
	ck_assert_uint_eq(res.leaks, 1);
	cutfile_free(&m);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("qcow2 check");
	TCase *t = tcase_create("check");
	SRunner *r;
	int failed;

	tcase_add_checked_fixture(t, setup, teardown);
	tcase_set_timeout(t, 120);
	tcase_add_test(t, damage_is_found_and_said);
	tcase_add_loop_test(t, repair_leaves_nothing_to_find, 0, N_GEOMETRIES);
	tcase_add_loop_test(t, a_cut_repair_can_be_finished, 0, N_GEOMETRIES);
	tcase_add_test(t, a_cut_repair_of_version_2_makes_nothing_worse);
	tcase_add_test(t, repair_of_errors_runs_under_the_dirty_bit);
	tcase_add_test(t, autoclear_bits_go_first);
	tcase_add_test(t, every_failing_write_is_passed_on);
	tcase_add_test(t, leaks_alone_are_given_back_in_place);
	tcase_add_test(t, a_lost_l1_table_is_not_repaired);
	tcase_add_test(t, a_table_too_small_for_the_file_is_replaced);
	tcase_add_test(t, a_snapshot_is_completed);
	tcase_add_test(t, statistics_are_those_of_qemu_img);
	tcase_add_test(t, compressed_clusters_are_counted_by_their_sectors);
	suite_add_tcase(s, t);
	r = srunner_create(s);
	srunner_run_all(r, CK_NORMAL);
	failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed ? 1 : 0;
}
