/* SPDX-License-Identifier: MIT */
/*
 * scratch.c - see scratch.h.
 *
 * check runs each test in a process of its own, so the files are removed by a
 * destructor of that process: it also runs when an assertion ends the test with exit().
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "tests/support/scratch.h"

#define FILES_MAX 16

const enum loop_aio test_aio[N_AIO] = {LOOP_AIO_URING, LOOP_AIO_THREADS};

static char paths[FILES_MAX][256];
static pid_t maker[FILES_MAX];
static int n_paths;

__attribute__((destructor)) static void remove_files(void)
{
	for (int i = 0; i < n_paths; i++)
		if (maker[i] == getpid())
			unlink(paths[i]);
}

struct loop *scratch_loop(int i)
{
	struct loop *l;

	ck_assert_int_eq(loop_new(test_aio[i], &l), 0);
	ck_assert_int_eq(loop_aio(l), test_aio[i]);
	return l;
}

unsigned char scratch_byte(uint64_t off)
{
	return (unsigned char)((off * 2654435761U) >> 13) | 1;
}

bool scratch_same(const void *buf, uint64_t len, uint64_t off)
{
	const unsigned char *p = buf;

	for (uint64_t i = 0; i < len; i++)
		if (p[i] != scratch_byte(off + i))
			return false;
	return true;
}

const char *scratch_file(uint64_t size)
{
	const char *dir = getenv("TMPDIR");
	unsigned char *buf = malloc(64 * KiB);
	char *path = paths[n_paths];
	int fd;

	ck_assert_int_lt(n_paths, FILES_MAX);
	ck_assert_ptr_nonnull(buf);
	snprintf(path, sizeof(paths[0]), "%s/sluice-test-XXXXXX", dir ? dir : "/tmp");
	fd = mkstemp(path);
	ck_assert_int_ge(fd, 0);
	maker[n_paths++] = getpid();
	for (uint64_t at = 0; at < size;) {
		uint64_t n = min_u64(64 * KiB, size - at);

		for (uint64_t i = 0; i < n; i++)
			buf[i] = scratch_byte(at + i);
		ck_assert_int_eq(pwrite(fd, buf, n, (off_t)at), n);
		at += n;
	}
	close(fd);
	free(buf);
	return path;
}

void scratch_read(const char *path, void *buf, uint64_t len, uint64_t off)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(pread(fd, buf, len, (off_t)off), len);
	close(fd);
}

int scratch_main(Suite *s)
{
	SRunner *r = srunner_create(s);
	int failed;

	srunner_run_all(r, CK_ENV);
	failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed != 0;
}
