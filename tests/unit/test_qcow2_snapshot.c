/* SPDX-License-Identifier: MIT */
/*
 * test_qcow2_snapshot.c - internal snapshots: created, applied, deleted and looked at under random
 * work, against a model of what each of them holds; judged by our check and by qemu-img's.
 */
#include <check.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "blockdev/crash/memfile.h"
#include "tests/support/image.h"

#define SIZE (4 * MiB)
#define KEPT 4 /* snapshots at a time */

static const struct geometry {
	uint32_t cluster, bits, version;
	bool lazy;
} geometries[] = {
	{65536, 16, 3, false},
	{65536, 16, 2, false},
	{65536, 16, 3, true},
	{4096, 8, 3, false},
	{512, 16, 3, false},
	{512, 64, 3, true},
	{512, 16, 2, false},
};

struct job {
	struct disk *d;
	uint32_t cluster;
	uint8_t *now, *buf;
	uint8_t *then[KEPT]; /* what the snapshot of that name holds, or NULL */
	unsigned seed;
};

static unsigned rnd(struct job *j)
{
	return (unsigned)rand_r(&j->seed);
}

static void name_of(unsigned i, char *name)
{
	snprintf(name, 16, "snap-%u", i);
}

/* Normal, compressed, zero, discard. */
static void write_some(struct job *j)
{
	for (int k = 0; k < 12; k++) {
		uint64_t len = (1 + rnd(j) % 100) * SECTOR;
		uint64_t off = rnd(j) % ((SIZE - len) / SECTOR) * SECTOR;

		memset(j->buf, (int)rnd(j), len);
		if (k % 6 == 4) {
			unsigned flags = rnd(j) % 2 ? BLK_UNMAP : 0;

			ck_assert_int_eq(disk_zeroes(j->d, len, off, flags), 0);
			memset(j->now + off, 0, len);
			continue;
		}
		if (k % 6 == 5) {
			ck_assert_int_eq(disk_discard(j->d, len, off), 0);
			ck_assert_int_eq(disk_pread(j->d, j->now + off, len, off), 0);
			continue;
		}
		ck_assert_int_eq(disk_pwrite(j->d, j->buf, len, off, 0), 0);
		memcpy(j->now + off, j->buf, len);
	}
	for (int k = 0; k < 3; k++) {
		uint64_t off = rnd(j) % (SIZE / j->cluster) * j->cluster;
		int err;

		memset(j->buf, (int)rnd(j) % 200, j->cluster);
		err = disk_pwrite(j->d, j->buf, j->cluster, off, BLK_COMPRESSED);
		ck_assert(err == 0 || err == -EIO); /* taken already */
		if (!err)
			memcpy(j->now + off, j->buf, j->cluster);
	}
}

static void compare(struct job *j, const uint8_t *want)
{
	ck_assert_int_eq(disk_pread(j->d, j->buf, SIZE, 0), 0);
	ck_assert_mem_eq(j->buf, want, SIZE);
}

static int work_fiber(void *arg)
{
	struct job *j = arg;

	for (int round = 0; round < 24; round++) {
		unsigned i = rnd(j) % KEPT;
		char name[16];

		name_of(i, name);
		write_some(j);
		if (!j->then[i]) {
			ck_assert_int_eq(
				disk_snapshot_change(j->d, SNAPSHOT_APPLY, name, NULL), -ENOENT);
			ck_assert_int_eq(
				disk_snapshot_change(j->d, SNAPSHOT_CREATE, name, NULL), 0);
			j->then[i] = malloc(SIZE);
			memcpy(j->then[i], j->now, SIZE);
		} else if (rnd(j) % 2) {
			ck_assert_int_eq(disk_snapshot_change(j->d, SNAPSHOT_APPLY, name, NULL), 0);
			memcpy(j->now, j->then[i], SIZE);
		} else {
			ck_assert_int_eq(
				disk_snapshot_change(j->d, SNAPSHOT_DELETE, name, NULL), 0);
			free(j->then[i]);
			j->then[i] = NULL;
		}
		compare(j, j->now);
	}
	return 0;
}

static int compare_fiber(void *arg)
{
	struct job *j = arg;

	compare(j, j->now);
	return 0;
}

static void is_clean(struct loop *l, const char *path)
{
	struct qcow2_check c = image_check(l, path);
	int q = image_check_qemu(path);

	ck_assert_uint_eq(c.corruptions, 0);
	ck_assert_uint_eq(c.leaks, 0);
	ck_assert_msg(q == 0 || q == -1, "qemu-img check says %d", q);
}

static struct disk *open_disk(struct loop *l, const char *path, bool readonly)
{
	struct disk_opts o = {
		.path = path, .format = "qcow2", .unmap = true, .readonly = readonly};
	struct disk *d;

	ck_assert_int_eq(disk_open(l, &o, &d, NULL), 0);
	return d;
}

struct load {
	struct job *j;
	unsigned i;
};

static int load_fiber(void *arg)
{
	struct load *a = arg;
	char name[16];

	name_of(a->i, name);
	ck_assert_int_eq(disk_snapshot_load(a->j->d, NULL, "nothing", NULL), -ENOENT);
	ck_assert_int_eq(disk_snapshot_load(a->j->d, NULL, name, NULL), 0);
	compare(a->j, a->j->then[a->i]);
	return 0;
}

START_TEST(each_holds_what_it_held)
{
	const struct geometry *g = &geometries[_i];
	struct qcow2_create_opts o = {.size = SIZE,
		.cluster_size = g->cluster,
		.refcount_bits = g->bits,
		.version = g->version,
		.lazy_refcounts = g->lazy};
	struct job j = {.cluster = g->cluster,
		.now = calloc(1, SIZE),
		.buf = malloc(SIZE),
		.seed = 5 + (unsigned)_i};
	char path[512];
	struct loop *l;

	strcpy(path, image_path("snapshot.qcow2"));
	ck_assert_int_eq(loop_new(LOOP_AIO_AUTO, &l), 0);
	image_create_qcow2(l, path, &o);
	for (int round = 0; round < 2; round++) {
		j.d = open_disk(l, path, false);
		ck_assert_int_eq(fiber_run(l, work_fiber, &j), 0);
		ck_assert_int_eq(disk_close(j.d, NULL), 0);
		is_clean(l, path);
	}
	for (unsigned i = 0; i < KEPT; i++) {
		struct load a = {&j, i};

		if (!j.then[i])
			continue;
		j.d = open_disk(l, path, true);
		ck_assert_int_eq(fiber_run(l, load_fiber, &a), 0);
		ck_assert_int_eq(disk_close(j.d, NULL), 0);
		free(j.then[i]);
	}
	j.d = open_disk(l, path, true);
	ck_assert_int_eq(fiber_run(l, compare_fiber, &j), 0);
	ck_assert_int_eq(disk_close(j.d, NULL), 0);
	loop_free(l);
	unlink(path);
	free(j.now);
	free(j.buf);
}
END_TEST

/* ---- counts that are full ---- */

static int fill_fiber(void *arg)
{
	struct job *j = arg;

	memset(j->buf, 7, SIZE);
	ck_assert_int_eq(disk_pwrite(j->d, j->buf, SIZE, 0, 0), 0);
	return 0;
}

static int full_fiber(void *arg)
{
	struct job *j = arg;

	for (int i = 0; i < 2; i++)
		ck_assert_int_eq(disk_snapshot_change(j->d, SNAPSHOT_CREATE, "s", NULL), 0);
	ck_assert_int_eq(disk_snapshot_change(j->d, SNAPSHOT_CREATE, "s", NULL), -EINVAL);
	ck_assert_int_eq(disk_snapshot_change(j->d, SNAPSHOT_APPLY, "1", NULL), -EINVAL);
	compare(j, j->now);
	return 0;
}

START_TEST(what_a_count_cannot_hold_changes_nothing)
{
	struct qcow2_create_opts o = {.size = SIZE, .cluster_size = 4096, .refcount_bits = 2};
	struct job j = {.now = malloc(SIZE), .buf = malloc(SIZE)};
	struct qcow2_check c;
	char path[512];
	struct loop *l;

	strcpy(path, image_path("full.qcow2"));
	ck_assert_int_eq(loop_new(LOOP_AIO_AUTO, &l), 0);
	image_create_qcow2(l, path, &o);
	j.d = open_disk(l, path, false);
	memset(j.now, 7, SIZE);
	ck_assert_int_eq(fiber_run(l, fill_fiber, &j), 0);
	ck_assert_int_eq(fiber_run(l, full_fiber, &j), 0);
	ck_assert_int_eq(disk_close(j.d, NULL), 0);
	c = image_check(l, path);
	ck_assert_uint_eq(c.corruptions, 0);
	ck_assert_uint_le(c.leaks, 2); /* the L1 copies of what failed */
	loop_free(l);
	unlink(path);
	free(j.now);
	free(j.buf);
}
END_TEST

/* ---- what it costs ---- */

static int two_fiber(void *arg)
{
	struct disk *d = arg;
	struct disk_stats before, after;

	for (int op = 0; op < 3; op++) {
		static const enum snapshot_op ops[] = {
			SNAPSHOT_CREATE, SNAPSHOT_APPLY, SNAPSHOT_DELETE};

		disk_stats_get(d, &before);
		ck_assert_int_eq(disk_snapshot_change(d, ops[op], "s", NULL), 0);
		disk_stats_get(d, &after);
		ck_assert_uint_le(after.host_fdatasyncs - before.host_fdatasyncs, 8);
	}
	return 0;
}

START_TEST(few_flushes_however_large_the_image)
{
	struct qcow2_create_opts o = {.size = SIZE, .cluster_size = _i ? 512 : 65536};
	struct job j = {.now = malloc(SIZE), .buf = malloc(SIZE)};
	struct disk_stats s;
	char path[512];
	struct loop *l;

	strcpy(path, image_path("cost.qcow2"));
	ck_assert_int_eq(loop_new(LOOP_AIO_AUTO, &l), 0);
	image_create_qcow2(l, path, &o);
	j.d = open_disk(l, path, false);
	ck_assert_int_eq(fiber_run(l, fill_fiber, &j), 0);
	ck_assert_int_eq(disk_close(j.d, NULL), 0);
	j.d = open_disk(l, path, false);
	ck_assert_int_eq(fiber_run(l, two_fiber, j.d), 0);
	ck_assert_int_eq(disk_close_stats(j.d, &s, NULL), 0);
	ck_assert_uint_le(s.host_fdatasyncs, 3 * 8);
	is_clean(l, path);
	loop_free(l);
	unlink(path);
	free(j.now);
	free(j.buf);
}
END_TEST

/* ---- extra data ---- */

static int create_fiber(void *arg)
{
	return disk_snapshot_change(arg, SNAPSHOT_CREATE, "one", NULL);
}

static void pwrite_all(int fd, const void *buf, size_t len, uint64_t off)
{
	ck_assert_int_eq(pwrite(fd, buf, len, (off_t)off), (ssize_t)len);
}

START_TEST(unknown_extra_data_stays_and_too_much_is_refused)
{
	struct qcow2_create_opts o = {.size = SIZE};
	struct qcow2_disk_header h;
	struct qcow2_disk_snapshot s;
	uint8_t entry[256] = {0}, got[256];
	struct disk_opts opts = {.format = "qcow2"};
	struct why why = {""};
	char path[512];
	struct loop *l;
	struct disk *d;
	int fd;

	strcpy(path, image_path("extra.qcow2"));
	ck_assert_int_eq(loop_new(LOOP_AIO_AUTO, &l), 0);
	image_create_qcow2(l, path, &o);
	d = open_disk(l, path, false);
	ck_assert_int_eq(fiber_run(l, create_fiber, d), 0);
	ck_assert_int_eq(disk_close(d, NULL), 0);

	fd = open(path, O_RDWR | O_CLOEXEC);
	ck_assert_int_eq(pread(fd, &h, sizeof(h), 0), sizeof(h));
	ck_assert_int_eq(pread(fd, entry, sizeof(entry), (off_t)be64_get(h.snapshots_offset)),
		sizeof(entry));
	memcpy(&s, entry, sizeof(s));
	ck_assert_uint_eq(be32_get(s.extra_bytes), 24);
	s.extra_bytes = be32_make(24 + 16);
	memcpy(entry, &s, sizeof(s));
	memcpy(entry + 40 + 24, "0123456789abcdef1one", 20);
	pwrite_all(fd, entry, sizeof(entry), be64_get(h.snapshots_offset));

	d = open_disk(l, path, false);
	ck_assert_int_eq(fiber_run(l, create_fiber, d), 0);
	ck_assert_int_eq(disk_close(d, NULL), 0);
	is_clean(l, path);
	ck_assert_int_eq(pread(fd, &h, sizeof(h), 0), sizeof(h));
	ck_assert_int_eq(
		pread(fd, got, sizeof(got), (off_t)be64_get(h.snapshots_offset)), sizeof(got));
	ck_assert_mem_eq(got, entry, 40 + 24 + 20);

	s.extra_bytes = be32_make(1025);
	pwrite_all(fd, &s, sizeof(s), be64_get(h.snapshots_offset));
	opts.path = path;
	ck_assert_int_eq(disk_open(l, &opts, &d, &why), -EFBIG);
	ck_assert(strstr(why.text, "Too much extra metadata in snapshot table entry 0"));
	close(fd);
	loop_free(l);
	unlink(path);
}
END_TEST

static int load_one_fiber(void *arg)
{
	return disk_snapshot_load(arg, NULL, "one", NULL);
}

static int apply_one_fiber(void *arg)
{
	return disk_snapshot_change(arg, SNAPSHOT_APPLY, "one", NULL);
}

START_TEST(one_of_a_disk_that_no_image_can_have_is_refused)
{
	static const uint64_t sizes[] = {1ULL << 50, INT64_MAX, 1ULL << 63, UINT64_MAX};
	struct qcow2_create_opts o = {.size = SIZE, .cluster_size = 512};
	be64_t size = be64_make(sizes[_i]);
	struct qcow2_disk_header h;
	char path[512];
	struct loop *l;
	struct disk *d;
	int fd;

	strcpy(path, image_path("large.qcow2"));
	ck_assert_int_eq(loop_new(LOOP_AIO_AUTO, &l), 0);
	image_create_qcow2(l, path, &o);
	d = open_disk(l, path, false);
	ck_assert_int_eq(fiber_run(l, create_fiber, d), 0);
	ck_assert_int_eq(disk_close(d, NULL), 0);
	fd = open(path, O_RDWR | O_CLOEXEC);
	ck_assert_int_eq(pread(fd, &h, sizeof(h), 0), sizeof(h));
	pwrite_all(fd, &size, sizeof(size), be64_get(h.snapshots_offset) + 40 + 8);
	close(fd);

	d = open_disk(l, path, true);
	ck_assert_int_eq(fiber_run(l, load_one_fiber, d), -EFBIG);
	ck_assert_uint_eq(disk_size(d), SIZE);
	ck_assert_int_eq(disk_close(d, NULL), 0);
	d = open_disk(l, path, false);
	ck_assert_int_eq(fiber_run(l, apply_one_fiber, d), -EFBIG);
	ck_assert_int_eq(disk_close(d, NULL), 0);
	is_clean(l, path);
	loop_free(l);
	unlink(path);
}
END_TEST

struct full {
	struct disk *d;
	struct mem_image *m;
};

/* All of the host's room is used but for one cluster, which the snapshot's L1 table takes. */
static int full_host_fiber(void *arg)
{
	struct full *f = arg;
	uint8_t buf[4096] = {1};
	uint64_t n = 2;

	ck_assert_int_eq(disk_pwrite(f->d, buf, sizeof(buf), 0, 0), 0);
	ck_assert_int_eq(disk_pwrite(f->d, buf, sizeof(buf), sizeof(buf), 0), 0);
	f->m->limit = f->m->size;
	while (!disk_pwrite(f->d, buf, sizeof(buf), n * sizeof(buf), 0))
		n++;
	ck_assert_int_eq(disk_discard(f->d, sizeof(buf), 0), 0);
	ck_assert_int_eq(disk_flush(f->d), 0);
	ck_assert_int_eq(disk_pwrite(f->d, buf, sizeof(buf), sizeof(buf), 0), 0);
	ck_assert_int_eq(disk_flush(f->d), 0);
	ck_assert_int_eq(disk_snapshot_change(f->d, SNAPSHOT_CREATE, "s", NULL), -EFBIG);
	ck_assert_int_eq(disk_pwrite(f->d, buf, sizeof(buf), sizeof(buf), 0), 0);
	return disk_flush(f->d);
}

static int create_in_memory_fiber(void *f)
{
	struct qcow2_create_opts o = {.size = SIZE, .cluster_size = 4096};

	return qcow2_create(f, &o, NULL);
}

START_TEST(a_full_host_refuses_a_snapshot_and_nothing_else)
{
	struct disk_opts o = {.format = "qcow2", .unmap = true};
	struct mem_image m;
	struct full full = {.m = &m};
	struct file *f;
	struct loop *l;

	ck_assert_int_eq(loop_new(LOOP_AIO_AUTO, &l), 0);
	mem_init(&m);
	ck_assert_int_eq(memfile_open(l, &m, 3, &f), 0);
	ck_assert_int_eq(fiber_run(l, create_in_memory_fiber, f), 0);
	ck_assert_int_eq(disk_open_file(f, &o, &full.d, NULL), 0);
	ck_assert_int_eq(fiber_run(l, full_host_fiber, &full), 0);
	ck_assert_int_eq(disk_close(full.d, NULL), 0);
	mem_fini(&m);
	loop_free(l);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("qcow2_snapshot");
	TCase *t = tcase_create("snapshots");
	SRunner *r;
	int failed;

	tcase_set_timeout(t, 120);
	tcase_add_loop_test(t, each_holds_what_it_held, 0, ARRAY_SIZE(geometries));
	tcase_add_test(t, what_a_count_cannot_hold_changes_nothing);
	tcase_add_loop_test(t, few_flushes_however_large_the_image, 0, 2);
	tcase_add_test(t, unknown_extra_data_stays_and_too_much_is_refused);
	tcase_add_loop_test(t, one_of_a_disk_that_no_image_can_have_is_refused, 0, 4);
	tcase_add_test(t, a_full_host_refuses_a_snapshot_and_nothing_else);
	suite_add_tcase(s, t);
	r = srunner_create(s);
	srunner_run_all(r, CK_NORMAL);
	failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed != 0;
}
