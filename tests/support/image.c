/* SPDX-License-Identifier: MIT */
/* image.c - see image.h. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include "tests/support/image.h"

static void must(bool ok, const char *what, const char *path)
{
	if (ok)
		return;
	fprintf(stderr, "test support: %s: %s failed\n", path, what);
	abort();
}

const char *image_path(const char *name)
{
	static char path[512];
	static unsigned n;
	const char *dir = getenv("TMPDIR");

	snprintf(path, sizeof(path), "%s/sluice-%d-%u-%s", dir ? dir : "/tmp", (int)getpid(), n++,
		name);
	return path;
}

void image_create_raw(const char *path, uint64_t size)
{
	int fd = open(path, O_CREAT | O_TRUNC | O_RDWR | O_CLOEXEC, 0600);

	must(fd >= 0 && ftruncate(fd, (off_t)size) == 0, "create", path);
	close(fd);
}

struct create_args {
	struct file *f;
	const struct qcow2_create_opts *o;
};

static int create_fiber(void *arg)
{
	struct create_args *a = arg;

	return qcow2_create(a->f, a->o, NULL);
}

void image_create_qcow2(struct loop *l, const char *path, const struct qcow2_create_opts *o)
{
	struct create_args a = {.o = o};

	must(file_open(l, path, FILE_RDWR | FILE_CREATE, &a.f, NULL) == 0, "open", path);
	must(fiber_run(l, create_fiber, &a) == 0, "qcow2_create", path);
	file_close(a.f);
}

struct disk *image_open(struct loop *l, const char *path, const char *format, enum cache_mode mode)
{
	struct disk_opts o = {.path = path, .format = format, .cache = mode};
	struct why why = {{0}};
	struct disk *d;
	int err = disk_open(l, &o, &d, &why);

	if (err)
		fprintf(stderr, "%s: %s\n", path, why_text(&why, err));
	must(err == 0, "disk_open", path);
	return d;
}

struct check_args {
	struct file *f;
	struct qcow2_check res;
};

static void check_line(void *arg, const char *line)
{
	fprintf(stderr, "check: %s\n", line);
}

static int check_fiber(void *arg)
{
	struct check_args *a = arg;

	return qcow2_check(a->f, 0, &a->res, NULL);
}

struct qcow2_check image_check(struct loop *l, const char *path)
{
	struct check_args a = {.res.report = getenv("CHECK_VERBOSE") ? check_line : NULL};

	must(file_open(l, path, FILE_RDONLY, &a.f, NULL) == 0, "open", path);
	must(fiber_run(l, check_fiber, &a) == 0, "qcow2_check", path);
	file_close(a.f);
	return a.res;
}

int image_check_qemu(const char *path)
{
	char cmd[700];
	int st;

	if (system("command -v qemu-img >/dev/null 2>&1"))
		return -1;
	snprintf(cmd, sizeof(cmd), "qemu-img check -q '%s' >&2", path);
	st = system(cmd);
	return WIFEXITED(st) ? WEXITSTATUS(st) : 99;
}

static uint64_t mix(uint64_t sector, uint64_t version)
{
	return (sector << 24 | version) * 0x9E3779B97F4A7C15ULL;
}

void pattern_make(void *buf, uint64_t sector, uint64_t n_sectors, uint64_t version)
{
	uint64_t *w = buf;

	for (uint64_t s = 0; s < n_sectors; s++) {
		for (unsigned k = 0; k < SECTOR / 8; k++)
			*w++ = version ? mix(sector + s, version) + k : 0;
	}
}

uint64_t pattern_differs(const void *buf, uint64_t sector, uint64_t n, const uint32_t *versions)
{
	uint8_t want[SECTOR];

	for (uint64_t s = 0; s < n; s++) {
		pattern_make(want, sector + s, 1, versions[s]);
		if (memcmp(want, (const uint8_t *)buf + s * SECTOR, SECTOR))
			return s + 1;
	}
	return 0;
}
