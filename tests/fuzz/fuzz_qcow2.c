/* SPDX-License-Identifier: MIT */
/*
 * fuzz_qcow2.c - hostile qcow2 images: opened, read, written, flushed, closed, checked, repaired.
 *
 * Anything may fail; nothing may crash, hang or reach outside the file.  After a repair that
 * says that it has left no error, a second check finds nothing.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "blockdev/block.h"
#include "blockdev/file/file.h"
#include "blockdev/qcow2/format.h"
#include "tests/fuzz/fuzz.h"

const char fuzz_name[] = "qcow2";

static const struct qcow2_create_opts shapes[] = {
	{ .size = 1 * MiB, .cluster_size = 512, .refcount_bits = 16 },
	{ .size = 1 * MiB, .cluster_size = 4096, .refcount_bits = 1 },
	{ .size = 8 * MiB, .cluster_size = 512, .refcount_bits = 64, .lazy_refcounts = true },
	{ .size = 1 * MiB, .cluster_size = 65536, .version = 2 },
};

static char path[512];
static struct loop *loop;

static void setup(void)
{
	const char *tmp = getenv("TMPDIR");

	if (loop)
		return;
	log_level_set(LOG_ERROR);
	snprintf(path, sizeof(path), "%s/fuzz-qcow2-%d.img", tmp ? tmp : "/tmp", (int)getpid());
	if (loop_new(LOOP_AIO_AUTO, &loop) != 0)
		abort();
}

struct creation {
	struct file *file;
	const struct qcow2_create_opts *opts;
};

static int create_fiber(void *arg)
{
	struct creation *c = arg;

	return qcow2_create(c->file, c->opts, NULL);
}

/* Reads and writes here and there; whatever fails, fails. */
static int use_fiber(void *arg)
{
	static uint8_t buf[16 * 1024];
	struct disk *d = arg;
	uint64_t size = disk_size(d);
	unsigned failed = 0;

	for (unsigned i = 0; i < 24; i++) {
		uint64_t off = i < 8 ? i * 5000 : size / 16 * (i - 8);
		uint64_t len = 512 << i % 5;

		if (off >= size || len > size - off)
			continue;
		memset(buf, (int)i, len);
		if (i % 3 == 0)
			failed += disk_pread(d, buf, len, off) != 0;
		else
			failed += disk_pwrite(d, buf, len, off, 0) != 0;
		if (i % 10 == 9)
			failed += disk_flush(d) != 0;
	}
	return (int)failed;
}

static void use(void)
{
	struct disk_opts o = { .path = path, .format = "qcow2", .cache = CACHE_WRITEBACK };
	struct why why = { "" };
	struct disk *d;

	if (disk_open(loop, &o, &d, &why) != 0)
		return;
	(void)fiber_run(loop, use_fiber, d);
	if (disk_close(d, &why) != 0)
		return;
	/* What we left behind opens again, or says why not. */
	if (disk_open(loop, &o, &d, &why) == 0 && disk_close(d, &why) != 0)
		return;
}

struct checking {
	struct file *file;
	unsigned fix;
	struct qcow2_check res;
};

static int check_fiber(void *arg)
{
	struct checking *c = arg;

	return qcow2_check(c->file, c->fix, &c->res, NULL);
}

/* Whether the check ran. */
static bool check(unsigned fix, struct qcow2_check *res)
{
	struct checking c = { .fix = fix };
	int err = file_open(loop, path, FILE_RDWR, &c.file, NULL);

	if (err)
		return false;
	err = fiber_run(loop, check_fiber, &c);
	file_close(c.file);
	*res = c.res;
	return !err;
}

static void repair(void)
{
	struct qcow2_check first, again;

	if (!check(QCOW2_FIX_LEAKS | QCOW2_FIX_ERRORS, &first))
		return;
	if (first.corruptions || first.check_errors || first.leaks)
		return;
	if (!check(0, &again) || again.corruptions || again.leaks || again.check_errors) {
		fprintf(stderr, "repaired, and yet: %llu errors, %llu leaks\n",
			(unsigned long long)again.corruptions, (unsigned long long)again.leaks);
		abort();
	}
	use();
}

size_t fuzz_seed(uint8_t *data, size_t size, unsigned n)
{
	struct creation c;
	ssize_t got;
	int fd;

	setup();
	if (n >= ARRAY_SIZE(shapes))
		return 0;
	c.opts = &shapes[n];
	if (file_open(loop, path, FILE_RDWR | FILE_CREATE, &c.file, NULL) != 0)
		abort();
	if (fiber_run(loop, create_fiber, &c) != 0)
		abort();
	file_close(c.file);
	use();
	fd = open(path, O_RDONLY | O_CLOEXEC);
	got = fd < 0 ? -1 : read(fd, data, size);
	if (got <= 0)
		abort();
	close(fd);
	return (size_t)got;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	unsigned sum = 0;
	int fd;

	setup();
	fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (fd < 0 || write(fd, data, size) != (ssize_t)size)
		abort();
	close(fd);
	/* Half of the images are repaired as they are, half after they were used. */
	for (size_t i = 0; i < size; i++)
		sum += data[i];
	if (sum % 2)
		use();
	repair();
	unlink(path);
	return 0;
}
