/* SPDX-License-Identifier: MIT */
/*
 * start.c - how long a command takes to its first byte on stdout, and what memory it takes.
 *
 * usage: start time RUNS COMMAND...     milliseconds: median, fastest, slowest
 *        start memory MIB COMMAND...    KiB: the most that was resident outside mappings of
 *                                       MIB and more (a guest's memory), until it ends
 *
 * A guest whose first instruction writes to the serial port says by the former when it began;
 * start.sh makes one.  The first run is not counted: it fills the host's page cache.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include "vmm/util/base.h"

#define RUNS_MAX 1000

extern char **environ;

static void die(const char *what)
{
	fprintf(stderr, "start: %s: %s\n", what, strerror(errno));
	exit(1);
}

static double now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec * 1e3 + (double)t.tv_nsec / 1e6;
}

/* The command's stdout is *out. */
static pid_t spawn(char **argv, int *out)
{
	posix_spawn_file_actions_t fa;
	int fd[2], err;
	pid_t pid;

	if (pipe2(fd, O_CLOEXEC) < 0)
		die("pipe");
	posix_spawn_file_actions_init(&fa);
	posix_spawn_file_actions_addopen(&fa, 0, "/dev/null", O_RDONLY, 0);
	posix_spawn_file_actions_adddup2(&fa, fd[1], 1);
	err = posix_spawnp(&pid, argv[0], &fa, NULL, argv, environ);
	if (err) {
		errno = err;
		die(argv[0]);
	}
	posix_spawn_file_actions_destroy(&fa);
	close(fd[1]);
	*out = fd[0];
	return pid;
}

static int by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

static int measure_time(int runs, char **argv)
{
	static double ms[RUNS_MAX];

	for (int i = -1; i < runs; i++) {
		double from = now_ms();
		int out, status;
		pid_t pid = spawn(argv, &out);
		char c;

		if (read(out, &c, 1) != 1) {
			fprintf(stderr, "start: %s said nothing\n", argv[0]);
			return 1;
		}
		ms[i < 0 ? 0 : i] = now_ms() - from;
		kill(pid, SIGKILL);
		if (waitpid(pid, &status, 0) < 0)
			die("waitpid");
		close(out);
	}
	qsort(ms, (size_t)runs, sizeof(ms[0]), by_value);
	printf("%.1f %.1f %.1f\n", ms[runs / 2], ms[0], ms[runs - 1]);
	return 0;
}

/* KiB resident outside mappings of that many KiB and more; 0 when the process is no more. */
static long resident(pid_t pid, long guest_kib)
{
	char path[64], line[512];
	unsigned long from, to;
	long size = 0, kib, sum = 0;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/smaps", (int)pid);
	f = fopen(path, "re");
	if (!f)
		return 0;
	while (fgets(line, sizeof(line), f)) {
		if (sscanf(line, "%lx-%lx ", &from, &to) == 2)
			size = (long)((to - from) / 1024);
		else if (sscanf(line, "Rss: %ld kB", &kib) == 1 && size < guest_kib)
			sum += kib;
	}
	fclose(f);
	return sum;
}

static int measure_memory(long mib, char **argv)
{
	struct timespec nap = {0, 20000000};
	long most = 0, kib;
	int out, status;
	pid_t pid = spawn(argv, &out);

	/* What it says is little, and stays in the pipe. */
	while (!waitpid(pid, &status, WNOHANG)) {
		kib = resident(pid, mib * 1024);
		if (kib > most)
			most = kib;
		nanosleep(&nap, NULL);
	}
	close(out);
	printf("%ld\n", most);
	return 0;
}

int main(int argc, char **argv)
{
	long n = argc > 3 ? strtol(argv[2], NULL, 10) : 0;

	if (n > 0 && n <= RUNS_MAX && !strcmp(argv[1], "time"))
		return measure_time((int)n, argv + 3);
	if (n > 0 && n <= RUNS_MAX && !strcmp(argv[1], "memory"))
		return measure_memory(n, argv + 3);
	fprintf(stderr, "usage: start time RUNS COMMAND... | start memory MIB COMMAND...\n");
	return 1;
}
