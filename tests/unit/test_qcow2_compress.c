/* SPDX-License-Identifier: MIT */
/*
 * test_qcow2_compress.c - compressed clusters: the two codecs, and images that are written, read,
 * overwritten and discarded through the block layer, judged by our check and by qemu-img's.
 */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "blockdev/qcow2/codec.h"
#include "tests/support/image.h"

#define SIZE (8 * MiB)

static uint64_t rng = 1;

static uint64_t rnd(void)
{
	rng = rng * 6364136223846793005ULL + 1442695040888963407ULL;
	return rng >> 33;
}

/* Text-like: it shrinks, differently each time. */
static void fill(uint8_t *p, uint64_t len, uint32_t version)
{
	for (uint64_t i = 0; i < len; i++)
		p[i] = (uint8_t)(i % 64 < version % 48 + 2 ? rnd() : version);
}

START_TEST(what_was_packed_unpacks_to_the_same)
{
	enum codec c = _i ? CODEC_ZSTD : CODEC_ZLIB;
	uint64_t len = 65536, got;
	uint8_t *in = malloc(len), *out = malloc(len), *back = malloc(len);

	for (uint32_t v = 0; v < 40; v++) {
		fill(in, len, v);
		ck_assert_int_eq(codec_pack(c, in, len, out, len - 1, &got), 0);
		ck_assert_uint_lt(got, len);
		ck_assert_int_eq(codec_unpack(c, out, got, back, len), 0);
		ck_assert_mem_eq(in, back, len);
		/* What follows is not looked at; what is cut off is missed. */
		memset(out + got, 0xa5, min_u64(len - got, 512));
		ck_assert_int_eq(codec_unpack(c, out, min_u64(got + 512, len), back, len), 0);
		ck_assert_int_eq(codec_unpack(c, out, got / 2, back, len), -EIO);
	}
	free(in);
	free(out);
	free(back);
}
END_TEST

START_TEST(noise_does_not_fit)
{
	enum codec c = _i ? CODEC_ZSTD : CODEC_ZLIB;
	uint64_t len = 4096, got;
	uint8_t in[4096], out[4096];

	for (uint64_t i = 0; i < len; i++)
		in[i] = (uint8_t)rnd();
	ck_assert_int_eq(codec_pack(c, in, len, out, len - 1, &got), -ENOSPC);
}
END_TEST

START_TEST(garbage_is_an_error_and_nothing_worse)
{
	enum codec c = _i ? CODEC_ZSTD : CODEC_ZLIB;
	uint64_t len = 4096, got;
	uint8_t in[4096], out[4096], back[4096];

	fill(in, len, 3);
	ck_assert_int_eq(codec_pack(c, in, len, out, len - 1, &got), 0);
	for (int i = 0; i < 20000; i++) {
		uint8_t bad[4096];
		int err;

		memcpy(bad, out, got);
		for (unsigned k = 1 + rnd() % 8; k; k--)
			bad[rnd() % (i % 2 ? got : 12)] = (uint8_t)rnd();
		err = codec_unpack(c, bad, got, back, len);
		ck_assert(err == 0 || err == -EIO || err == -ENOMEM);
	}
	memset(in, 0, len);
	ck_assert_int_eq(codec_unpack(c, in, len, back, len), -EIO);
}
END_TEST

struct job {
	struct disk *d;
	uint8_t *want, *buf;
	uint32_t cluster;
	bool thin; /* clusters that do not shrink among them */
};

static void write_one(struct job *j, uint64_t off, uint64_t len, int want_err)
{
	int err;

	if (j->thin && rnd() % 4 == 0)
		for (uint64_t i = 0; i < len; i++)
			j->buf[i] = (uint8_t)rnd();
	else
		fill(j->buf, len, (uint32_t)rnd());
	err = disk_pwrite(j->d, j->buf, len, off, BLK_COMPRESSED);
	ck_assert_int_eq(err, want_err);
	if (!err)
		memcpy(j->want + off, j->buf, len);
}

static void compare(struct job *j)
{
	uint64_t step = 24 * KiB;

	for (uint64_t off = 0; off < SIZE; off += step) {
		uint64_t len = min_u64(step, SIZE - off);

		ck_assert_int_eq(disk_pread(j->d, j->buf, len, off), 0);
		ck_assert_mem_eq(j->buf, j->want + off, len);
	}
}

/* Every other stretch, in several sizes; then what may not be; then reads. */
static int fill_fiber(void *arg)
{
	struct job *j = arg;
	uint64_t off = 0;

	uint64_t most = j->cluster > 65536 ? 2 : 9;

	while (off + most * j->cluster <= SIZE / 2) {
		uint64_t n = 1 + rnd() % most;

		write_one(j, off, n * j->cluster, 0);
		off += (n + rnd() % 3) * j->cluster;
	}
	write_one(j, SIZE - j->cluster, j->cluster, 0);
	if (j->cluster > SECTOR) {
		ck_assert_int_eq(
			disk_pwrite(j->d, j->buf, SECTOR, SIZE / 2, BLK_COMPRESSED), -EINVAL);
		ck_assert_int_eq(disk_pwrite(j->d, j->buf, j->cluster, SIZE / 2 + SECTOR,
					 BLK_COMPRESSED),
			-EINVAL);
	}
	compare(j);
	return 0;
}

static int again_fiber(void *arg)
{
	struct job *j = arg;

	memset(j->buf, 1, j->cluster);
	ck_assert_int_eq(disk_pwrite(j->d, j->buf, j->cluster, 0, BLK_COMPRESSED), -EIO);
	compare(j);
	return 0;
}

/* Normal writes onto packed clusters, zeros, discards, and packed ones in what is free again. */
static int change_fiber(void *arg)
{
	struct job *j = arg;
	uint64_t half = SIZE / 2;

	for (int i = 0; i < 60; i++) {
		uint64_t len = (1 + rnd() % 40) * SECTOR;
		uint64_t off = rnd() % ((half - len) / SECTOR) * SECTOR;

		fill(j->buf, len, (uint32_t)i);
		ck_assert_int_eq(disk_pwrite(j->d, j->buf, len, off, 0), 0);
		memcpy(j->want + off, j->buf, len);
		if (i % 10 == 3)
			ck_assert_int_eq(disk_flush(j->d), 0);
	}
	for (int i = 0; i < 12; i++) {
		uint64_t n = half / j->cluster, first = rnd() % (n - 2), len = 2ULL * j->cluster;

		if (i % 2)
			ck_assert_int_eq(disk_zeroes(j->d, len, first * j->cluster, BLK_UNMAP), 0);
		else
			ck_assert_int_eq(disk_discard(j->d, len, first * j->cluster), 0);
		if (i % 2)
			memset(j->want + first * j->cluster, 0, len);
		else
			ck_assert_int_eq(disk_pread(j->d, j->want + first * j->cluster, len,
						 first * j->cluster),
				0);
		if (i % 4 == 3) {
			ck_assert_int_eq(disk_flush(j->d), 0);
			write_one(j, first * j->cluster, len, 0);
		}
	}
	compare(j);
	return 0;
}

static int compare_fiber(void *arg)
{
	compare(arg);
	return 0;
}

static void is_clean(struct loop *l, const char *path, bool packed)
{
	struct qcow2_check c = image_check(l, path);
	int q = image_check_qemu(path);

	ck_assert_uint_eq(c.corruptions, 0);
	ck_assert_uint_eq(c.leaks, 0);
	ck_assert(!packed || c.compressed_clusters);
	ck_assert_msg(q == 0 || q == -1, "qemu-img check says %d", q);
}

/* Reads the image as qemu sees it, if there is one. */
static void same_for_qemu(const char *path, const uint8_t *want)
{
	char cmd[1200], raw[520];
	uint8_t *got;
	FILE *f;

	if (system("command -v qemu-img >/dev/null 2>&1"))
		return;
	snprintf(raw, sizeof(raw), "%s.raw", path);
	snprintf(cmd, sizeof(cmd), "qemu-img convert -O raw '%s' '%s'", path, raw);
	ck_assert_int_eq(system(cmd), 0);
	got = malloc(SIZE);
	f = fopen(raw, "r");
	ck_assert(f && fread(got, 1, SIZE, f) == SIZE);
	fclose(f);
	ck_assert_mem_eq(got, want, SIZE);
	free(got);
	unlink(raw);
}

static const struct geometry {
	uint32_t cluster, bits;
	bool lazy, zstd;
} geometries[] = {
	{65536, 16, false, false},
	{65536, 16, true, false},
	{65536, 16, false, true},
	{4096, 16, false, false},
	{4096, 2, false, false},
	{4096, 1, true, false},
	{512, 16, false, false},
	{512, 64, false, true},
	{1048576, 16, false, false},
};

static bool make_image(struct loop *l, const char *path, const struct geometry *g)
{
	struct qcow2_create_opts o = {.size = SIZE,
		.cluster_size = g->cluster,
		.refcount_bits = g->bits,
		.lazy_refcounts = g->lazy};
	char cmd[700];

	if (!g->zstd) {
		image_create_qcow2(l, path, &o);
		return true;
	}
	snprintf(cmd, sizeof(cmd),
		"qemu-img create -q -f qcow2 -o compression_type=zstd,cluster_size=%u,"
		"refcount_bits=%u '%s' %llu 2>/dev/null",
		g->cluster, g->bits, path, (unsigned long long)SIZE);
	return system(cmd) == 0;
}

static struct disk *open_unmap(struct loop *l, const char *path)
{
	struct disk_opts o = {.path = path, .format = "qcow2", .unmap = true};
	struct disk *d;

	ck_assert_int_eq(disk_open(l, &o, &d, NULL), 0);
	return d;
}

START_TEST(images_read_back_check_clean_and_take_other_writes)
{
	const struct geometry *g = &geometries[_i];
	struct job j = {.want = calloc(1, SIZE),
		.buf = malloc(SIZE),
		.cluster = g->cluster,
		.thin = _i % 2};
	char path[512];
	struct loop *l;

	strcpy(path, image_path("compress.qcow2"));
	ck_assert_int_eq(loop_new(LOOP_AIO_AUTO, &l), 0);
	if (make_image(l, path, g)) {
		j.d = open_unmap(l, path);
		ck_assert_int_eq(fiber_run(l, fill_fiber, &j), 0);
		ck_assert_int_eq(disk_close(j.d, NULL), 0);
		is_clean(l, path, true);
		same_for_qemu(path, j.want);

		j.d = open_unmap(l, path);
		ck_assert_int_eq(fiber_run(l, again_fiber, &j), 0);
		ck_assert_int_eq(fiber_run(l, change_fiber, &j), 0);
		ck_assert_int_eq(disk_close(j.d, NULL), 0);
		is_clean(l, path, false);
		same_for_qemu(path, j.want);

		j.d = open_unmap(l, path);
		ck_assert_int_eq(fiber_run(l, compare_fiber, &j), 0);
		ck_assert_int_eq(disk_close(j.d, NULL), 0);
		unlink(path);
	}
	loop_free(l);
	free(j.want);
	free(j.buf);
}
END_TEST

struct reader {
	struct fiber_start start;
	struct job *j;
	unsigned *left;
};

static void reader_fiber(struct fiber_start *s)
{
	struct reader *r = container_of(s, struct reader, start);
	uint8_t buf[16 * KiB];

	for (int i = 0; i < 200; i++) {
		uint64_t len = (1 + rnd() % 32) * SECTOR;
		uint64_t off = rnd() % ((SIZE - len) / SECTOR) * SECTOR;

		ck_assert_int_eq(disk_pread(r->j->d, buf, len, off), 0);
		ck_assert_mem_eq(buf, r->j->want + off, len);
	}
	--*r->left;
}

START_TEST(many_readers_share_what_is_unpacked)
{
	struct geometry g = {65536, 16, false, false};
	struct job j = {.want = calloc(1, SIZE), .buf = malloc(SIZE), .cluster = g.cluster};
	struct reader r[32];
	unsigned left = 32;
	char path[512];
	struct loop *l;

	strcpy(path, image_path("readers.qcow2"));
	ck_assert_int_eq(loop_new(_i ? LOOP_AIO_THREADS : LOOP_AIO_AUTO, &l), 0);
	ck_assert(make_image(l, path, &g));
	j.d = open_unmap(l, path);
	ck_assert_int_eq(fiber_run(l, fill_fiber, &j), 0);
	for (unsigned i = 0; i < 32; i++) {
		r[i] = (struct reader){.start.fn = reader_fiber, .j = &j, .left = &left};
		fiber_start(l, &r[i].start);
	}
	while (left)
		ck_assert_int_eq(loop_turn(l, true), 0);
	ck_assert_int_eq(disk_close(j.d, NULL), 0);
	loop_free(l);
	unlink(path);
	free(j.want);
	free(j.buf);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("qcow2_compress");
	TCase *t = tcase_create("codec");
	SRunner *r;
	int failed;

	tcase_set_timeout(t, 60);
	tcase_add_loop_test(t, what_was_packed_unpacks_to_the_same, 0, 2);
	tcase_add_loop_test(t, noise_does_not_fit, 0, 2);
	tcase_add_loop_test(t, garbage_is_an_error_and_nothing_worse, 0, 2);
	suite_add_tcase(s, t);
	t = tcase_create("images");
	tcase_set_timeout(t, 120);
	tcase_add_loop_test(t, images_read_back_check_clean_and_take_other_writes, 0,
		ARRAY_SIZE(geometries));
	tcase_add_loop_test(t, many_readers_share_what_is_unpacked, 0, 2);
	suite_add_tcase(s, t);
	r = srunner_create(s);
	srunner_run_all(r, CK_NORMAL);
	failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed != 0;
}
