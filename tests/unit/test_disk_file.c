/* SPDX-License-Identifier: MIT */
/*
 * test_disk_file.c - images read through images, and disks that keep what they read from below.
 */
#include <check.h>
#include <stdlib.h>
#include <string.h>
#include "blockdev/disk_file.h"
#include "tests/support/image.h"
#include "tests/support/scratch.h"

#define SIZE  (4 * MiB)
#define PIECE 4096
#define N     (SIZE / PIECE)

static unsigned failed;

static void note_end(struct blk_req *r, int err)
{
	failed += err != 0;
}

/* All at once, more than there are fibers: from every other piece, len bytes at a shift. */
static void write_at_once(struct disk *d, uint8_t *buf, uint64_t shift)
{
	struct blk_req *r = calloc(N, sizeof(*r));
	struct iovec *v = calloc(N, sizeof(*v));

	for (unsigned i = 0; i < N; i++) {
		uint64_t off = min_u64(i * PIECE + shift, SIZE - PIECE);

		v[i] = (struct iovec){buf + off, PIECE};
		r[i] = (struct blk_req){.done = note_end,
			.op = BLK_WRITE,
			.iov = &v[i],
			.niov = 1,
			.off = off,
			.len = PIECE};
		if (i % 2 == 0)
			disk_submit(d, &r[i]);
	}
	disk_drain(d);
	ck_assert_uint_eq(failed, 0);
	free(r);
	free(v);
}

struct whole {
	struct disk *d;
	uint8_t *buf;
	struct file *f;
};

static int read_whole(void *arg)
{
	struct whole *w = arg;

	return disk_pread(w->d, w->buf, SIZE, 0);
}

static int make_inside(void *arg)
{
	struct whole *w = arg;
	struct qcow2_create_opts o = {.size = SIZE};
	struct why why = {""};

	return qcow2_create(w->f, &o, &why);
}

static struct disk *open_at(struct loop *l, const char *path, unsigned level, enum cache_mode mode)
{
	struct disk_opts o = {.path = path, .format = "qcow2", .level = level, .cache = mode};
	struct why why = {""};
	struct disk *d;

	ck_assert_int_eq(disk_open(l, &o, &d, &why), 0);
	return d;
}

/* Four images, each in the place of the next one's file; the innermost is the host's. */
static struct disk *open_nest(struct loop *l, const char *path, bool make, enum cache_mode mode)
{
	struct disk *d = open_at(l, path, 8, CACHE_WRITEBACK);
	struct disk_opts o = {.format = "qcow2"};
	struct why why = {""};

	for (unsigned level = 6;; level -= 2) {
		struct whole w = {.d = d};

		ck_assert_int_eq(disk_file_open(d, false, &w.f), 0);
		ck_assert_ptr_eq(disk_file_disk(w.f), d);
		if (make)
			ck_assert_int_eq(fiber_run(l, make_inside, &w), 0);
		o.level = level;
		o.cache = level ? CACHE_WRITEBACK : mode;
		ck_assert_int_eq(disk_open_file(w.f, &o, &d, &why), 0);
		if (!level)
			return d;
	}
}

START_TEST(five_deep_with_more_requests_than_fibers)
{
	struct loop *l = scratch_loop(_i % N_AIO);
	const char *path = image_path("nest.qcow2");
	struct qcow2_create_opts q = {.size = 2 * SIZE};
	uint8_t *want = malloc(SIZE), *got = malloc(SIZE);
	enum cache_mode mode = _i / N_AIO ? CACHE_WRITETHROUGH : CACHE_WRITEBACK;
	struct why why = {""};
	struct whole w;

	for (uint64_t i = 0; i < SIZE; i++)
		want[i] = (uint8_t)(i / 512 * 7 + 1);
	image_create_qcow2(l, path, &q);
	w.d = open_nest(l, path, true, mode);
	write_at_once(w.d, want, 0);
	write_at_once(w.d, want, PIECE);
	write_at_once(w.d, want, 512);
	write_at_once(w.d, want, PIECE + 512);
	ck_assert_int_eq(disk_close(w.d, &why), 0);
	w.d = open_nest(l, path, false, mode);
	w.buf = got;
	ck_assert_int_eq(fiber_run(l, read_whole, &w), 0);
	ck_assert(!memcmp(want, got, SIZE));
	ck_assert_int_eq(disk_close(w.d, &why), 0);
	ck_assert_int_eq(image_check(l, path).corruptions, 0);
	loop_free(l);
	free(want);
	free(got);
}
END_TEST

/* Every piece is read, and every other one written, at the same time. */
START_TEST(what_is_kept_of_a_read_never_hides_a_write)
{
	struct loop *l = scratch_loop(_i);
	const char *base = strdup(image_path("base.raw")), *top = image_path("top.qcow2");
	struct qcow2_create_opts q = {
		.size = SIZE, .backing_file = base, .backing_format = "raw"};
	struct disk_opts o = {.path = top, .format = "qcow2", .copy_on_read = true};
	uint8_t *want = malloc(SIZE), *got = calloc(1, SIZE);
	struct blk_req *r = calloc(N, sizeof(*r));
	struct iovec *v = calloc(N, sizeof(*v));
	struct why why = {""};
	struct whole w = {.buf = got};

	memset(want, 0x5a, SIZE);
	image_create_raw(base, SIZE);
	image_create_qcow2(l, top, &q);
	ck_assert_int_eq(disk_open(l, &o, &w.d, &why), 0);
	for (unsigned i = 0; i < N; i++) {
		v[i] = (struct iovec){got + i * PIECE, PIECE};
		r[i] = (struct blk_req){.done = note_end,
			.op = BLK_READ,
			.iov = &v[i],
			.niov = 1,
			.off = i * PIECE,
			.len = PIECE};
	}
	for (unsigned i = 0; i < N; i++)
		disk_submit(w.d, &r[i]);
	write_at_once(w.d, want, 0);
	ck_assert_int_eq(fiber_run(l, read_whole, &w), 0);
	for (unsigned i = 0; i < N; i++)
		ck_assert_int_eq(got[i * PIECE + 100], i % 2 ? 0 : 0x5a);
	ck_assert_int_eq(disk_close(w.d, &why), 0);
	loop_free(l);
	free((void *)(uintptr_t)base);
	free(want);
	free(got);
	free(r);
	free(v);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("disk_file");
	TCase *t = tcase_create("disk_file");

	tcase_set_timeout(t, 120);
	tcase_add_loop_test(t, five_deep_with_more_requests_than_fibers, 0, 2 * N_AIO);
	tcase_add_loop_test(t, what_is_kept_of_a_read_never_hides_a_write, 0, N_AIO);
	suite_add_tcase(s, t);
	return scratch_main(s);
}
