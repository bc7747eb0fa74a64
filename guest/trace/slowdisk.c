/* SPDX-License-Identifier: MIT */
/*
 * slowdisk.c - an nbdkit plugin: a file that answers as slowly as a disk.
 *
 * A guest under TCG runs its own code many times slower than a real
 * machine, so a disk at its natural speed would have completed nearly every
 * request before the guest came to submit the next one, and the recording
 * would claim that the guest waited where it did not.  Here each request takes
 * a fixed time, side by side with all others: whatever the guest does not wait
 * for overlaps, and a completion that comes between two submissions is one the
 * guest waited for, or did a lot of work in the meantime.
 *
 * A flush only takes its time: the host's durability is not what is recorded.
 *
 * Build:	cc -shared -fPIC -O2 -o slowdisk.so slowdisk.c
 * Run:		nbdkit -U SOCK ./slowdisk.so file=IMAGE [read-us=] [write-us=] [flush-us=]
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define NBDKIT_API_VERSION 2
#include <nbdkit-plugin.h>

#define THREAD_MODEL NBDKIT_THREAD_MODEL_PARALLEL

static const char *path;
static int fd = -1;
static unsigned int read_us = 1000, write_us = 4000, flush_us = 10000;

static int slowdisk_config(const char *key, const char *value)
{
	if (strcmp(key, "file") == 0) {
		path = value;
		return 0;
	}
	if (strcmp(key, "read-us") == 0)
		return nbdkit_parse_unsigned(key, value, &read_us);
	if (strcmp(key, "write-us") == 0)
		return nbdkit_parse_unsigned(key, value, &write_us);
	if (strcmp(key, "flush-us") == 0)
		return nbdkit_parse_unsigned(key, value, &flush_us);
	nbdkit_error("unknown parameter: %s", key);
	return -1;
}

static int slowdisk_get_ready(void)
{
	if (!path) {
		nbdkit_error("file= is missing");
		return -1;
	}
	fd = open(path, O_RDWR | O_CLOEXEC);
	if (fd < 0) {
		nbdkit_error("%s: %m", path);
		return -1;
	}
	return 0;
}

static void *slowdisk_open(int readonly)
{
	(void)readonly;
	return NBDKIT_HANDLE_NOT_NEEDED;
}

static int64_t slowdisk_get_size(void *handle)
{
	struct stat st;

	(void)handle;
	if (fstat(fd, &st) < 0) {
		nbdkit_error("%s: %m", path);
		return -1;
	}
	return st.st_size;
}

static void wait_us(unsigned int us)
{
	struct timespec t = { us / 1000000, us % 1000000 * 1000L };

	while (nanosleep(&t, &t) < 0 && errno == EINTR)
		;
}

/* An access past the end never arrives here: nbdkit checks the range. */
static int transfer(void *buf, uint32_t count, uint64_t offset, int is_write)
{
	char *p = buf;

	while (count > 0) {
		ssize_t n = is_write ? pwrite(fd, p, count, (off_t)offset)
				     : pread(fd, p, count, (off_t)offset);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0) {
			nbdkit_error("%s: %m", path);
			return -1;
		}
		p += n;
		count -= (uint32_t)n;
		offset += (uint64_t)n;
	}
	return 0;
}

static int slowdisk_pread(void *handle, void *buf, uint32_t count, uint64_t offset, uint32_t flags)
{
	(void)handle;
	(void)flags;
	wait_us(read_us);
	return transfer(buf, count, offset, 0);
}

static int slowdisk_pwrite(void *handle, const void *buf, uint32_t count, uint64_t offset,
			   uint32_t flags)
{
	(void)handle;
	(void)flags;
	wait_us(write_us);
	return transfer((void *)buf, count, offset, 1);
}

static int slowdisk_flush(void *handle, uint32_t flags)
{
	(void)handle;
	(void)flags;
	wait_us(flush_us);
	return 0;
}

static struct nbdkit_plugin plugin = {
	.name		= "slowdisk",
	.config		= slowdisk_config,
	.config_help	= "file=IMAGE read-us=N write-us=N flush-us=N",
	.get_ready	= slowdisk_get_ready,
	.open		= slowdisk_open,
	.get_size	= slowdisk_get_size,
	.pread		= slowdisk_pread,
	.pwrite		= slowdisk_pwrite,
	.flush		= slowdisk_flush,
};

NBDKIT_REGISTER_PLUGIN(plugin)
