/* SPDX-License-Identifier: MIT */
/*
 * test_file_engine.c - opening files and the engine's promises (file.h), on both engines.
 *
 * RLIMIT_FSIZE plays a host that takes less than it is given.
 */
#include <fcntl.h>
#include <limits.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>
#include "blockdev/file/file.h"
#include "tests/support/scratch.h"

struct ctx {
	struct loop *l;
	struct file *f;
	const char *path;
};

static struct ctx open_on(int i, uint64_t size, unsigned flags)
{
	struct ctx c = {.l = scratch_loop(i), .path = scratch_file(size)};

	ck_assert_int_eq(file_open(c.l, c.path, flags, &c.f, NULL), 0);
	return c;
}

static void close_ctx(struct ctx *c)
{
	file_close(c->f);
	loop_free(c->l);
}

static int read_past_the_end(void *arg)
{
	struct ctx *c = arg;
	char *buf = file_buf(64 * KiB);
	struct iovec iov[3] = {{buf, 100}, {buf + 100, 5000}, {buf + 5100, 3000}}, copy[3];

	memcpy(copy, iov, sizeof(iov));
	memset(buf, 0xaa, 64 * KiB);
	ck_assert_int_eq(file_preadv(c->f, iov, 3, 1000), 0); /* the file has 5000 */
	ck_assert_mem_eq(iov, copy, sizeof(iov));
	ck_assert(scratch_same(buf, 4000, 1000));
	for (int i = 4000; i < 8100; i++)
		ck_assert_int_eq(buf[i], 0);
	ck_assert_int_eq((unsigned char)buf[8100], 0xaa);
	memset(buf, 0xaa, 100);
	ck_assert_int_eq(file_pread(c->f, buf, 100, 1 * TiB), 0);
	ck_assert_int_eq(buf[0] | buf[99], 0);
	ck_assert_uint_eq(file_size(c->f), 5000);
	ck_assert_int_eq(file_pread(c->f, buf, 100, UINT64_MAX - 10), -EFBIG);
	free(buf);
	return 0;
}

START_TEST(a_read_past_the_end_gives_zeros)
{
	struct ctx c = open_on(_i, 5000, FILE_RDONLY);

	ck_assert_int_eq(fiber_run(c.l, read_past_the_end, &c), 0);
	close_ctx(&c);
}
END_TEST

static int write_and_look(void *arg)
{
	struct ctx *c = arg;
	char out[3000], in[3000];

	memset(out, 0x42, sizeof(out));
	ck_assert_int_eq(file_pwrite(c->f, out, sizeof(out), 4000), 0);
	ck_assert_uint_eq(file_size(c->f), 7000);
	ck_assert_int_eq(file_fdatasync(c->f), 0);
	scratch_read(c->path, in, sizeof(in), 4000);
	ck_assert_mem_eq(in, out, sizeof(in));
	ck_assert_uint_eq(c->f->stats->writes, 1);
	ck_assert_uint_eq(c->f->stats->written_bytes, 3000);
	ck_assert_uint_eq(c->f->stats->fdatasyncs, 1);
	ck_assert_int_eq(file_pread(c->f, in, 1000, 3000), 0);
	ck_assert(scratch_same(in, 1000, 3000));
	ck_assert_uint_eq(c->f->stats->reads, 1);
	ck_assert_uint_eq(c->f->stats->read_bytes, 1000);
	return 0;
}

START_TEST(a_write_is_in_the_file_and_counted_and_the_size_follows)
{
	struct ctx c = open_on(_i, 5000, FILE_RDWR);

	ck_assert_int_eq(fiber_run(c.l, write_and_look, &c), 0);
	close_ctx(&c);
}
END_TEST

static int change_size(void *arg)
{
	struct ctx *c = arg;
	struct stat st;
	char buf[4096];

	ck_assert_int_eq(file_extend(c->f, 5000, 100000), 0);
	ck_assert_uint_eq(file_size(c->f), 105000);
	ck_assert_int_eq(stat(c->path, &st), 0);
	ck_assert_int_eq(st.st_size, 105000);
	ck_assert_int_ge(st.st_blocks * 512, 105000);
	ck_assert_int_eq(file_pread(c->f, buf, 4096, 50000), 0);
	ck_assert_int_eq(buf[0] | buf[4095], 0);
	ck_assert_int_eq(file_extend(c->f, 0, 4096), 0); /* inside: keeps content and size */
	ck_assert_uint_eq(file_size(c->f), 105000);
	ck_assert_int_eq(file_pread(c->f, buf, 4096, 0), 0);
	ck_assert(scratch_same(buf, 4096, 0));
	ck_assert_int_eq(file_punch(c->f, 100, 3000), 0);
	ck_assert_int_eq(file_pread(c->f, buf, 4096, 0), 0);
	ck_assert(scratch_same(buf, 100, 0));
	ck_assert(scratch_same(buf + 3100, 996, 3100));
	for (int i = 100; i < 3100; i++)
		ck_assert_int_eq(buf[i], 0);
	ck_assert_int_eq(file_truncate(c->f, 3200), 0);
	ck_assert_uint_eq(file_size(c->f), 3200);
	ck_assert_int_eq(file_truncate(c->f, 1 * GiB), 0);
	ck_assert_uint_eq(file_size(c->f), 1 * GiB);
	ck_assert_int_eq(stat(c->path, &st), 0);
	ck_assert_int_eq(st.st_size, 1 * GiB);
	return 0;
}

START_TEST(extend_punch_and_truncate)
{
	struct ctx c = open_on(_i, 5000, FILE_RDWR);

	ck_assert_int_eq(fiber_run(c.l, change_size, &c), 0);
	close_ctx(&c);
}
END_TEST

/* The host takes the first 8000 bytes only, then says EFBIG. */
static int write_over_the_limit(void *arg)
{
	struct ctx *c = arg;
	struct rlimit old, lim;
	char *buf = malloc(20000), in[3000];
	struct iovec iov[2] = {{buf, 4096}, {buf + 4096, 20000 - 4096}}, copy[2];

	memcpy(copy, iov, sizeof(iov));
	memset(buf, 0x33, 20000);
	signal(SIGXFSZ, SIG_IGN);
	getrlimit(RLIMIT_FSIZE, &old);
	lim = (struct rlimit){.rlim_cur = 8000, .rlim_max = old.rlim_max};
	setrlimit(RLIMIT_FSIZE, &lim);
	ck_assert_int_eq(file_pwritev(c->f, iov, 2, 5000), -EFBIG);
	setrlimit(RLIMIT_FSIZE, &old);
	ck_assert_mem_eq(iov, copy, sizeof(iov));
	ck_assert_uint_eq(file_size(c->f), 8000);
	scratch_read(c->path, in, 3000, 5000);
	ck_assert_mem_eq(in, buf, 3000);
	free(buf);
	return 0;
}

START_TEST(a_short_write_is_continued_until_the_host_says_why)
{
	struct ctx c = open_on(_i, 5000, FILE_RDWR);

	ck_assert_int_eq(fiber_run(c.l, write_over_the_limit, &c), 0);
	close_ctx(&c);
}
END_TEST

static int many_pieces(void *arg)
{
	enum { N = IOV_MAX + 500, PIECE = 7 };
	struct ctx *c = arg;
	struct iovec *iov = calloc(N, sizeof(*iov));
	char *buf = malloc(N * PIECE), *in = calloc(N, PIECE);

	for (int i = 0; i < N; i++) {
		iov[i] = (struct iovec){.iov_base = buf + i * PIECE, .iov_len = PIECE};
		memset(buf + i * PIECE, i % 251, PIECE);
	}
	ck_assert_int_eq(file_pwritev(c->f, iov, N, 33), 0);
	ck_assert_int_eq(file_pread(c->f, in, N * PIECE, 33), 0);
	ck_assert_mem_eq(in, buf, N * PIECE);
	memset(buf, 0, N * PIECE);
	ck_assert_int_eq(file_preadv(c->f, iov, N, 33), 0);
	ck_assert_mem_eq(in, buf, N * PIECE);
	free(iov);
	free(buf);
	free(in);
	return 0;
}

START_TEST(more_pieces_than_the_host_takes_at_once)
{
	struct ctx c = open_on(_i, 100, FILE_RDWR);

	ck_assert_int_eq(fiber_run(c.l, many_pieces, &c), 0);
	close_ctx(&c);
}
END_TEST

static int read_only(void *arg)
{
	struct ctx *c = arg;
	char buf[10] = {0};

	ck_assert_int_eq(file_pwrite(c->f, buf, 10, 0), -EBADF);
	ck_assert_int_eq(file_truncate(c->f, 0), -EBADF);
	ck_assert_int_eq(file_punch(c->f, 0, 10), -EBADF);
	ck_assert_int_eq(file_extend(c->f, 0, 10), -EBADF);
	ck_assert_int_eq(file_pread(c->f, buf, 10, 0), 0);
	ck_assert(scratch_same(buf, 10, 0));
	return 0;
}

START_TEST(a_read_only_file_stays_as_it_is)
{
	struct ctx c = open_on(_i, 5000, FILE_RDONLY);

	ck_assert(c.f->readonly);
	ck_assert_int_eq(fiber_run(c.l, read_only, &c), 0);
	close_ctx(&c);
}
END_TEST

static int n_done;

static void count_done(struct file_req *r, int err)
{
	ck_assert_int_eq(err, 0);
	n_done++;
}

START_TEST(done_never_runs_inside_submit)
{
	struct ctx c = open_on(_i, 8192, FILE_RDWR);
	char buf[512];
	struct iovec iov = {buf, 512};
	static const enum file_op ops[] = {FILE_READ, FILE_WRITE, FILE_FDATASYNC, FILE_EXTEND,
		FILE_PUNCH, FILE_TRUNCATE};

	for (size_t i = 0; i < ARRAY_SIZE(ops); i++)
		for (int empty = 0; empty < 2; empty++) {
			struct file_req r = {.done = count_done, .op = ops[i], .iov = &iov,
				.niov = !empty, .off = 512, .len = empty ? 0 : 512};

			n_done = 0;
			file_submit(c.f, &r);
			ck_assert_int_eq(n_done, 0);
			while (!n_done)
				ck_assert_int_eq(loop_turn(c.l, true), 0);
		}
	close_ctx(&c);
}
END_TEST

START_TEST(create_makes_or_empties_a_file)
{
	struct ctx c = open_on(_i, 5000, FILE_RDWR | FILE_CREATE);
	char path[300];

	ck_assert_uint_eq(file_size(c.f), 0);
	file_close(c.f);
	snprintf(path, sizeof(path), "%s.new", c.path);
	ck_assert_int_eq(file_open(c.l, path, FILE_RDWR, &c.f, NULL), -ENOENT);
	ck_assert_int_eq(file_open(c.l, path, FILE_RDWR | FILE_CREATE, &c.f, NULL), 0);
	ck_assert_int_eq(unlink(path), 0);
	close_ctx(&c);
}
END_TEST

START_TEST(what_is_no_disk_is_refused_with_words)
{
	struct loop *l = scratch_loop(_i);
	struct file *f;
	struct why why = {""}, dir = {""};

	ck_assert_int_eq(file_open(l, "/dev/null", FILE_RDWR, &f, &why), -EINVAL);
	ck_assert_str_eq(why.text, "'file' driver requires '/dev/null' to be a regular file");
	ck_assert_int_eq(file_open(l, "/tmp", FILE_RDONLY, &f, &dir), -EINVAL);
	ck_assert_str_eq(dir.text, "'file' driver requires '/tmp' to be a regular file");
	ck_assert_int_eq(file_open(l, "/tmp", FILE_RDWR, &f, NULL), -EISDIR);
	loop_free(l);
}
END_TEST


/* A directory on a file system that can neither fallocate nor punch; false: not permitted. */
static bool mount_ramfs(const char *dir)
{
	if (unshare(CLONE_NEWNS) < 0 || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
		return false;
	return mount("none", dir, "ramfs", 0, NULL) == 0;
}

static int without_fallocate(void *arg)
{
	enum { SIZE = 3 * 1024 * 1024 };
	struct ctx *c = arg;
	char *buf = malloc(SIZE), *in = malloc(SIZE);

	for (int i = 0; i < SIZE; i++)
		buf[i] = (char)scratch_byte((uint64_t)i);
	ck_assert_int_eq(file_pwrite(c->f, buf, SIZE, 0), 0);
	ck_assert_int_eq(file_extend(c->f, 100, 1000), 0); /* inside: nothing to do */
	ck_assert_uint_eq(file_size(c->f), SIZE);
	ck_assert_int_eq(file_extend(c->f, SIZE, 5000), 0);
	ck_assert_uint_eq(file_size(c->f), SIZE + 5000);
	ck_assert_uint_eq(c->f->stats->truncates, 1);
	/* Longer than one write of zeros, and beyond the end of the file. */
	ck_assert_int_eq(file_punch(c->f, 1000, 2 * MiB + 5), 0);
	ck_assert_int_eq(file_punch(c->f, SIZE + 1000, 1 * GiB), 0);
	ck_assert_uint_eq(file_size(c->f), SIZE + 5000);
	memset(buf + 1000, 0, 2 * MiB + 5);
	ck_assert_int_eq(file_pread(c->f, in, SIZE, 0), 0);
	ck_assert_mem_eq(in, buf, SIZE);
	ck_assert_int_eq(file_pread(c->f, in, 5000, SIZE), 0);
	for (int i = 0; i < 5000; i++)
		ck_assert_int_eq(in[i], 0);
	free(buf);
	free(in);
	return 0;
}

START_TEST(what_the_host_cannot_is_done_another_way)
{
	char dir[] = "/tmp/sluice-ramfs-XXXXXX", path[64];
	struct ctx c = {.l = scratch_loop(_i)};
	bool mounted;

	ck_assert_ptr_nonnull(mkdtemp(dir));
	mounted = mount_ramfs(dir);
	if (mounted) {
		snprintf(path, sizeof(path), "%s/f", dir);
		ck_assert_int_eq(
			file_open(c.l, path, FILE_RDWR | FILE_CREATE, &c.f, NULL), 0);
		ck_assert_int_eq(fiber_run(c.l, without_fallocate, &c), 0);
		file_close(c.f);
		umount(dir);
	} else {
		printf("skip what_the_host_cannot_is_done_another_way: may not mount a ramfs\n");
	}
	rmdir(dir);
	loop_free(c.l);
}
END_TEST

static int on_a_device(void *arg)
{
	struct ctx *c = arg;
	char buf[3000], in[3000];

	ck_assert(c->f->is_block);
	ck_assert_uint_eq(file_size(c->f), 8 * MiB);
	memset(buf, 7, sizeof(buf));
	ck_assert_int_eq(file_pwrite(c->f, buf, sizeof(buf), 100), 0);
	ck_assert_int_eq(file_fdatasync(c->f), 0);
	ck_assert_int_eq(file_extend(c->f, 0, 8 * MiB), 0);
	ck_assert_int_eq(file_extend(c->f, 8 * MiB, 512), -ENOSPC);
	ck_assert_int_eq(file_truncate(c->f, 100), 0);
	ck_assert_int_eq(file_truncate(c->f, 9 * MiB), -ENOSPC);
	ck_assert_int_eq(file_pwrite(c->f, buf, sizeof(buf), 8 * MiB - 1000), -ENOSPC);
	ck_assert_int_eq(file_punch(c->f, 1000, 1500), 0);
	memset(buf + 900, 0, 1500);
	ck_assert_int_eq(file_pread(c->f, in, sizeof(in), 100), 0);
	ck_assert_mem_eq(in, buf, sizeof(in));
	ck_assert_int_eq(file_punch(c->f, 0, 1 * GiB), 0);
	ck_assert_int_eq(file_pread(c->f, in, sizeof(in), 100), 0);
	for (size_t i = 0; i < sizeof(in); i++)
		ck_assert_int_eq(in[i], 0);
	ck_assert_uint_eq(file_size(c->f), 8 * MiB);
	return 0;
}

/* Even _i: page cache, odd: O_DIRECT. */
START_TEST(a_block_device_keeps_its_size)
{
	struct ctx c = {.l = scratch_loop(_i / 2), .path = scratch_file(8 * MiB)};
	char cmd[400], dev[64] = "";
	FILE *p;

	snprintf(cmd, sizeof(cmd), "losetup -f --show '%s' 2>/dev/null", c.path);
	p = popen(cmd, "r");
	ck_assert_ptr_nonnull(p);
	if (fscanf(p, "%63s", dev) == 1) {
		ck_assert_int_eq(file_open(c.l, dev, FILE_RDWR | (_i & 1 ? FILE_DIRECT : 0), &c.f,
			NULL), 0);
		ck_assert_int_eq(fiber_run(c.l, on_a_device, &c), 0);
		file_close(c.f);
		snprintf(cmd, sizeof(cmd), "losetup -d %s", dev);
		ck_assert_int_eq(system(cmd), 0);
	} else {
		printf("skip a_block_device_keeps_its_size: no loop device to be had\n");
	}
	pclose(p);
	loop_free(c.l);
}
END_TEST

START_TEST(helpers)
{
	struct iovec iov[2] = {{NULL, 5}, {NULL, 7}};
	char *p = file_buf(5000);

	ck_assert_uint_eq(iov_bytes(iov, 2), 12);
	ck_assert_uint_eq((uintptr_t)p % 4096, 0);
	for (int i = 0; i < 8192; i++)
		ck_assert_int_eq(p[i], 0);
	free(p);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("file engine");
	TCase *t = tcase_create("engine");

	tcase_set_timeout(t, 20);
	tcase_add_loop_test(t, a_read_past_the_end_gives_zeros, 0, N_AIO);
	tcase_add_loop_test(t, a_write_is_in_the_file_and_counted_and_the_size_follows, 0, N_AIO);
	tcase_add_loop_test(t, extend_punch_and_truncate, 0, N_AIO);
	tcase_add_loop_test(t, a_short_write_is_continued_until_the_host_says_why, 0, N_AIO);
	tcase_add_loop_test(t, more_pieces_than_the_host_takes_at_once, 0, N_AIO);
	tcase_add_loop_test(t, a_read_only_file_stays_as_it_is, 0, N_AIO);
	tcase_add_loop_test(t, done_never_runs_inside_submit, 0, N_AIO);
	tcase_add_loop_test(t, create_makes_or_empties_a_file, 0, N_AIO);
	tcase_add_loop_test(t, what_is_no_disk_is_refused_with_words, 0, N_AIO);
	tcase_add_loop_test(t, what_the_host_cannot_is_done_another_way, 0, N_AIO);
	tcase_add_loop_test(t, a_block_device_keeps_its_size, 0, 2 * N_AIO);
	tcase_add_test(t, helpers);
	suite_add_tcase(s, t);
	return scratch_main(s);
}
