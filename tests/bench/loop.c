/* SPDX-License-Identifier: MIT */
/*
 * loop.c - what host operations cost through the loop, and what a commit costs.
 *
 * Two questions are answered with medians:
 *   1. Is a buffered write cheaper inline or through the ring (a worker thread)?
 *   2. What do writes plus one fdatasync cost in space that was written before, that
 *      was only fallocated, and that lies beyond the end of the file?
 *
 * usage: loop [-t] [DIR]     -t: the thread engine.  DIR: where the test file goes, default /tmp
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "blockdev/file/file.h"

#define REPEATS	  9
#define DEPTH_MAX 32
#define FILE_SIZE (64 * MiB)

enum area { AREA_WRITTEN, AREA_FALLOCATED, AREA_BEYOND, N_AREAS };
static const char *const area_name[N_AREAS] = {"written", "fallocated", "beyond EOF"};

struct slot {
	struct loop_op op;
	struct iovec iov;
	struct bench *b;
};

struct bench {
	struct loop *l;
	const char *path;
	char *buf;
	int fd;
	bool ring; /* not inline */
	uint64_t bytes, next, left, in_flight;
	struct slot slot[DEPTH_MAX];
};

static void must(bool ok, const char *what)
{
	if (ok)
		return;
	perror(what);
	exit(1);
}

static int compare(const void *a, const void *b)
{
	const double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

static double median(double *v, int n)
{
	qsort(v, (size_t)n, sizeof(*v), compare);
	return v[n / 2];
}

static void issue(struct slot *s)
{
	struct bench *b = s->b;

	b->left--;
	b->in_flight++;
	s->op.off = b->next;
	b->next += b->bytes;
	loop_submit(b->l, &s->op);
}

static void slot_done(struct loop_op *op, int64_t res)
{
	struct slot *s = container_of(op, struct slot, op);

	must(res == (int64_t)s->iov.iov_len, "write");
	s->b->in_flight--;
	if (s->b->left)
		issue(s);
}

/* n writes one behind the other from off, depth in flight; nanoseconds. */
static uint64_t run_writes(struct bench *b, uint64_t n, unsigned depth, uint64_t off)
{
	uint64_t begin = loop_now_ns();

	b->left = n;
	b->next = off;
	for (unsigned i = 0; i < depth && b->left; i++) {
		struct slot *s = &b->slot[i];

		*s = (struct slot){.b = b};
		s->iov = (struct iovec){.iov_base = b->buf, .iov_len = b->bytes};
		s->op = (struct loop_op){.done = slot_done, .code = LOOP_WRITEV, .fd = b->fd,
			.direct = b->ring, .iov = &s->iov, .niov = 1};
		issue(s);
	}
	while (b->in_flight)
		must(loop_turn(b->l, true) == 0, "loop");
	return loop_now_ns() - begin;
}

static void sync_done(struct loop_op *op, int64_t res)
{
	must(res == 0, "fdatasync");
	op->fd = -1;
}

static void run_sync(struct bench *b)
{
	struct loop_op op = {.done = sync_done, .code = LOOP_FDATASYNC, .fd = b->fd};

	loop_submit(b->l, &op);
	while (op.fd >= 0)
		must(loop_turn(b->l, true) == 0, "loop");
}

/* A file whose first FILE_SIZE bytes are as area says, everything durable. */
static void make_file(struct bench *b, enum area area, bool direct)
{
	b->fd = open(b->path, O_RDWR | O_CREAT | O_TRUNC | (direct ? O_DIRECT : 0), 0600);
	must(b->fd >= 0, b->path);
	if (area == AREA_FALLOCATED)
		must(fallocate(b->fd, 0, 0, FILE_SIZE) == 0, "fallocate");
	for (uint64_t at = 0; area == AREA_WRITTEN && at < FILE_SIZE; at += MiB)
		must(pwrite(b->fd, b->buf, MiB, (off_t)at) == (ssize_t)MiB, "write");
	must(fsync(b->fd) == 0, "fsync");
}

static void drop_file(struct bench *b)
{
	close(b->fd);
	unlink(b->path);
}

static void bench_paths(struct bench *b)
{
	static const uint64_t sizes[] = {4 * KiB, 64 * KiB, 256 * KiB, 1 * MiB};
	static const unsigned depths[] = {1, DEPTH_MAX};
	double us[2][REPEATS];

	printf("buffered write, us each         inline     ring\n");
	for (int area = 0; area < AREA_BEYOND; area++)
		for (size_t s = 0; s < ARRAY_SIZE(sizes); s++)
			for (size_t d = 0; d < ARRAY_SIZE(depths); d++) {
				uint64_t n = min_u64(256, FILE_SIZE / sizes[s]);

				b->bytes = sizes[s];
				for (int r = 0; r < 2 * REPEATS; r++) {
					make_file(b, area, false);
					b->ring = r & 1;
					us[r & 1][r / 2] = (double)run_writes(b, n, depths[d], 0) /
						(1000.0 * (double)n);
					drop_file(b);
				}
				printf("%-10s %5lluK depth %2u %10.1f %8.1f\n", area_name[area],
					(unsigned long long)(sizes[s] / KiB), depths[d],
					median(us[0], REPEATS), median(us[1], REPEATS));
				fflush(stdout);
			}
}

/* writes of bytes, then fdatasync; microseconds per round, the median of all rounds. */
static double commit_cost(struct bench *b, enum area area, bool direct, unsigned writes)
{
	double us[64];
	int n = 0;

	make_file(b, area, direct);
	b->ring = direct;
	/* The first round pays for what a round finds done later: left out. */
	for (int i = 0; i < 1 + (int)ARRAY_SIZE(us); i++) {
		uint64_t step = writes * b->bytes, begin;

		if ((uint64_t)(i + 1) * step > FILE_SIZE)
			break;
		begin = loop_now_ns();
		run_writes(b, writes, writes, (uint64_t)i * step);
		run_sync(b);
		if (i)
			us[n++] = (double)(loop_now_ns() - begin) / 1000.0;
	}
	drop_file(b);
	return median(us, n);
}

static void bench_commits(struct bench *b)
{
	static const uint64_t sizes[] = {4 * KiB, 64 * KiB};
	static const unsigned counts[] = {1, 16};

	printf("\nwrites + one fdatasync, us a round   buffered   O_DIRECT\n");
	for (size_t s = 0; s < ARRAY_SIZE(sizes); s++)
		for (size_t c = 0; c < ARRAY_SIZE(counts); c++)
			for (int area = 0; area < N_AREAS; area++) {
				double us[2];

				b->bytes = sizes[s];
				for (int direct = 0; direct < 2; direct++)
					us[direct] = commit_cost(b, area, direct, counts[c]);
				printf("%2u x %2lluK %-12s %20.0f %10.0f\n", counts[c],
					(unsigned long long)(sizes[s] / KiB), area_name[area],
					us[0], us[1]);
				fflush(stdout);
			}
}

int main(int argc, char **argv)
{
	struct bench b = {0};
	char path[256];
	int at = 1;
	bool threads = at < argc && !strcmp(argv[at], "-t");

	at += threads;
	snprintf(path, sizeof(path), "%s/sluice-bench.%d", at < argc ? argv[at] : "/tmp", getpid());
	b.path = path;
	b.buf = file_buf(MiB);
	must(b.buf, "memory");
	memset(b.buf, 0x5a, MiB);
	must(loop_new(threads ? LOOP_AIO_THREADS : LOOP_AIO_AUTO, &b.l) == 0, "loop");
	bench_paths(&b);
	bench_commits(&b);
	loop_free(b.l);
	free(b.buf);
	return 0;
}
