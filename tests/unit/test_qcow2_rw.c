/* SPDX-License-Identifier: MIT */
/*
 * test_qcow2_rw.c - reading and writing qcow2 images under random work, against a model.
 *
 * Each row of the table is one geometry; each is worked on at depth 16 in every cache mode, with
 * caches of the smallest size, closed, checked (by us and by qemu-img), opened again and compared.
 */
#include <check.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "tests/support/image.h"

struct row {
	const char *name;
	uint32_t cluster, bits;
	bool lazy;
	uint64_t size;
	uint32_t max_sectors; /* of one request */
	int ops;
	uint64_t l2_cache; /* bytes; 0: automatic */
	uint32_t version;
	uint64_t below; /* bytes of a backing file; 0: none */
	bool ext;
	enum { INSIDE, DATA_FILE, RAW_DATA_FILE } data; /* where the data lies */
};

static const struct row rows[] = {
	{"64k", 65536, 16, false, 64 * MiB, 256, 1500, 0, .version = 0},
	{"64k lazy", 65536, 16, true, 64 * MiB, 256, 1500, 0, .version = 0},
	{"64k tiny cache", 65536, 16, false, 20 * GiB, 300, 1500, 1, .version = 0},
	{"512 bytes", 512, 16, false, 16 * MiB, 40, 2000, 1, .version = 0},
	{"512 bytes, 64-bit counts", 512, 64, false, 32 * MiB, 300, 2000, 1, .version = 0},
	{"512 bytes lazy, 1-bit counts", 512, 1, true, 16 * MiB, 40, 2000, 0, .version = 0},
	{"4k", 4096, 8, false, 256 * MiB, 100, 2000, 1, .version = 0},
	{"2M", 2097152, 16, false, 1 * GiB, 600, 300, 0, .version = 0},
	{"2M lazy", 2097152, 32, true, 1 * GiB, 600, 300, 1, .version = 0},
	{"version 2", 65536, 16, false, 64 * MiB, 256, 1500, 0, .version = 2},
	{"64k over a shorter one", 65536, 16, false, 64 * MiB, 256, 1500, 0, .below = 20 * MiB},
	{"4k over a longer one", 4096, 16, true, 64 * MiB, 100, 2000, 1, .below = 80 * MiB},
	{"512 over another, version 2", 512, 16, false, 16 * MiB, 40, 2000, 1, .version = 2,
		.below = 16 * MiB},
	{"64k subclusters", 65536, 16, false, 64 * MiB, 256, 1500, 0, .ext = true},
	{"16k subclusters over another", 16384, 16, false, 64 * MiB, 100, 2000, 1,
		.below = 20 * MiB, .ext = true},
	{"data file", 65536, 16, false, 50 * MiB + 512, 256, 1500, 1, .data = DATA_FILE},
	{"data file, 4k over another", 4096, 16, true, 64 * MiB, 100, 2000, 0, .below = 20 * MiB,
		.data = DATA_FILE},
	{"raw data file", 65536, 16, false, 50 * MiB + 512, 256, 1500, 0, .data = RAW_DATA_FILE},
	{"data file, subclusters", 65536, 16, false, 50 * MiB + 512, 100, 2000, 1,
		.below = 20 * MiB, .ext = true, .data = DATA_FILE},
	{"raw data file, subclusters", 16384, 16, false, 50 * MiB + 512, 256, 1500, 0, .ext = true,
		.data = RAW_DATA_FILE},
};

static char below_path[512], data_path[512];

struct job {
	const struct row *row;
	struct disk *d;
	uint32_t *versions; /* by sector */
	uint8_t *busy;      /* sector is being written */
	uint64_t sectors;
	int left;
	uint32_t version;
	unsigned seed, workers;
};

static unsigned rnd(struct job *j)
{
	return (unsigned)rand_r(&j->seed) * 32768u + (unsigned)rand_r(&j->seed);
}

/* A range that no other worker is writing; false if the first guess is taken. */
static bool pick(struct job *j, uint64_t *at, uint64_t *n)
{
	*n = 1 + rnd(j) % j->row->max_sectors;
	/* Half of the work near the start, so that writes meet each other and overwrite. */
	*at = rnd(j) % (rnd(j) % 2 ? j->sectors - *n : min_u64(j->sectors - *n, 4096));
	for (uint64_t s = *at; s < *at + *n; s++)
		if (j->busy[s])
			return false;
	memset(j->busy + *at, 1, *n);
	return true;
}

static void all_versions(struct job *j, uint64_t at, uint64_t n, uint32_t v)
{
	for (uint64_t s = 0; s < n; s++)
		j->versions[at + s] = v;
}

/* What is discarded reads as it did or as zeros: as which, the model has to look. */
static void discard(struct job *j, uint8_t *buf, uint64_t at, uint64_t n)
{
	ck_assert_int_eq(disk_discard(j->d, n * SECTOR, at * SECTOR), 0);
	ck_assert_int_eq(disk_pread(j->d, buf, n * SECTOR, at * SECTOR), 0);
	for (uint64_t s = 0; s < n; s++)
		if (!buf[s * SECTOR] && !memcmp(buf + s * SECTOR, buf + s * SECTOR + 1, SECTOR - 1))
			j->versions[at + s] = 0;
	ck_assert(!pattern_differs(buf, at, n, j->versions + at));
}

static void one_op(struct job *j, uint8_t *buf)
{
	uint64_t at, n, bad;
	unsigned kind = rnd(j) % 10;

	if (kind == 0) {
		ck_assert_int_eq(disk_flush(j->d), 0);
		return;
	}
	if (!pick(j, &at, &n))
		return;
	if (kind == 6) {
		ck_assert_int_eq(
			disk_zeroes(j->d, n * SECTOR, at * SECTOR, rnd(j) % 2 ? BLK_UNMAP : 0), 0);
		all_versions(j, at, n, 0);
	} else if (kind == 7) {
		discard(j, buf, at, n);
	} else if (kind < 6) {
		uint32_t v = ++j->version;

		pattern_make(buf, at, n, v);
		ck_assert_int_eq(
			disk_pwrite(j->d, buf, n * SECTOR, at * SECTOR, kind == 1 ? BLK_FUA : 0),
			0);
		all_versions(j, at, n, v);
	} else {
		ck_assert_int_eq(disk_pread(j->d, buf, n * SECTOR, at * SECTOR), 0);
		bad = pattern_differs(buf, at, n, j->versions + at);
		ck_assert_msg(!bad, "%s: sector %llu reads wrong", j->row->name,
			(unsigned long long)(at + bad - 1));
	}
	memset(j->busy + at, 0, n);
}

struct worker {
	struct fiber_start start;
	struct job *j;
};

static void worker_fiber(struct fiber_start *s)
{
	struct worker *w = container_of(s, struct worker, start);
	uint8_t *buf = malloc((size_t)w->j->row->max_sectors * SECTOR);

	while (w->j->left-- > 0)
		one_op(w->j, buf);
	free(buf);
	w->j->workers--;
}

static void work(struct loop *l, struct job *j, unsigned depth)
{
	struct worker w[64];

	j->workers = depth;
	for (unsigned i = 0; i < depth; i++) {
		w[i] = (struct worker){.j = j, .start.fn = worker_fiber};
		fiber_start(l, &w[i].start);
	}
	while (j->workers)
		ck_assert_int_eq(loop_turn(l, true), 0);
}

static int verify_fiber(void *arg)
{
	struct job *j = arg;
	uint64_t step = 2048;
	uint8_t *buf = malloc(step * SECTOR);

	for (uint64_t at = 0; at < j->sectors; at += step) {
		uint64_t n = min_u64(step, j->sectors - at), bad;

		ck_assert_int_eq(disk_pread(j->d, buf, n * SECTOR, at * SECTOR), 0);
		bad = pattern_differs(buf, at, n, j->versions + at);
		ck_assert_msg(!bad, "%s: sector %llu is wrong after reopening", j->row->name,
			(unsigned long long)(at + bad - 1));
	}
	free(buf);
	return 0;
}

static struct disk *reopen(
	struct loop *l, const struct row *row, const char *path, enum cache_mode mode)
{
	struct disk_opts o = {.path = path,
		.format = "qcow2",
		.cache = mode,
		.unmap = true,
		.backing = row->below ? below_path : NULL,
		.backing_format = "qcow2",
		.l2_cache_bytes = row->l2_cache,
		.refcount_cache_bytes = row->l2_cache};
	struct disk *d;

	ck_assert_int_eq(disk_open(l, &o, &d, NULL), 0);
	return d;
}

static void clean_after(struct loop *l, const struct row *row, const char *path)
{
	struct qcow2_check c = image_check(l, path);
	int q = image_check_qemu(path);

	ck_assert_msg(!c.corruptions && !c.leaks, "%s: %llu corruptions, %llu leaks", row->name,
		(unsigned long long)c.corruptions, (unsigned long long)c.leaks);
	ck_assert_msg(q == 0 || q == -1, "%s: qemu-img check says %d", row->name, q);
}

static int fill_below_fiber(void *arg)
{
	struct job *j = arg;
	uint64_t end = disk_size(j->d) / SECTOR;
	uint8_t *buf = malloc(256 * SECTOR);

	/* With holes of all sizes between. */
	for (uint64_t at = 0; at < end;) {
		uint64_t n = min_u64(1 + rnd(j) % 256, end - at);

		pattern_make(buf, at, n, 1);
		ck_assert_int_eq(disk_pwrite(j->d, buf, n * SECTOR, at * SECTOR, 0), 0);
		if (at < j->sectors)
			all_versions(j, at, min_u64(n, j->sectors - at), 1);
		at += n + rnd(j) % 300;
	}
	free(buf);
	j->version = 1;
	return 0;
}

static void make_below(struct loop *l, struct job *j)
{
	struct qcow2_create_opts o = {.size = j->row->below};
	struct row below = {.name = "below"};

	strcpy(below_path, image_path("below.qcow2"));
	image_create_qcow2(l, below_path, &o);
	j->d = reopen(l, &below, below_path, CACHE_WRITEBACK);
	ck_assert_int_eq(fiber_run(l, fill_below_fiber, j), 0);
	ck_assert_int_eq(disk_close(j->d, NULL), 0);
}

static void run_row(const struct row *row, enum loop_aio aio, enum cache_mode mode)
{
	struct qcow2_create_opts o = {.size = row->size,
		.cluster_size = row->cluster,
		.refcount_bits = row->bits,
		.version = row->version,
		.lazy_refcounts = row->lazy,
		.extended_l2 = row->ext};
	struct job j = {.row = row, .sectors = min_u64(row->size, 64 * MiB) / SECTOR, .seed = 7};
	char path[512];
	struct loop *l;

	strcpy(path, image_path("rw.qcow2"));
	ck_assert_int_eq(loop_new(aio, &l), 0);
	if (row->data) {
		strcpy(data_path, image_path("rw.data"));
		image_create_raw(data_path, row->size);
		o.data_file = data_path;
		o.data_file_raw = row->data == RAW_DATA_FILE;
	}
	image_create_qcow2(l, path, &o);
	j.versions = calloc(j.sectors, sizeof(*j.versions));
	j.busy = calloc(j.sectors, 1);
	if (row->below)
		make_below(l, &j);
	for (int round = 0; round < 2; round++) {
		j.d = reopen(l, row, path, mode);
		j.left = row->ops / 2;
		work(l, &j, 16);
		ck_assert_int_eq(disk_close(j.d, NULL), 0);
		clean_after(l, row, path);
	}
	j.d = reopen(l, row, path, CACHE_WRITEBACK);
	ck_assert_int_eq(fiber_run(l, verify_fiber, &j), 0);
	ck_assert_int_eq(disk_close(j.d, NULL), 0);
	if (row->data == RAW_DATA_FILE) {
		j.d = image_open(l, data_path, "raw", CACHE_WRITEBACK);
		ck_assert_uint_eq(disk_size(j.d), row->size);
		ck_assert_int_eq(fiber_run(l, verify_fiber, &j), 0);
		ck_assert_int_eq(disk_close(j.d, NULL), 0);
	}
	loop_free(l);
	unlink(path);
	if (row->data)
		unlink(data_path);
	if (row->below)
		unlink(below_path);
	free(j.versions);
	free(j.busy);
}

START_TEST(random_work_reads_back_and_checks_clean)
{
	run_row(&rows[_i % (int)ARRAY_SIZE(rows)], LOOP_AIO_AUTO,
		_i / (int)ARRAY_SIZE(rows) ? CACHE_DIRECTSYNC : CACHE_WRITEBACK);
}
END_TEST

START_TEST(threads_engine_serves_the_same)
{
	run_row(&rows[_i], LOOP_AIO_THREADS, CACHE_WRITETHROUGH);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("qcow2_rw");
	TCase *t = tcase_create("random work");
	SRunner *r;
	int failed;

	tcase_set_timeout(t, 120);
	tcase_add_loop_test(t, random_work_reads_back_and_checks_clean, 0, 2 * ARRAY_SIZE(rows));
	tcase_add_loop_test(t, threads_engine_serves_the_same, 0, 2);
	suite_add_tcase(s, t);
	r = srunner_create(s);
	srunner_run_all(r, CK_NORMAL);
	failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed != 0;
}
