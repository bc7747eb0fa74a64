/* SPDX-License-Identifier: MIT */
/*
 * spill.c - see spill.h.
 *
 * What is mapped counts as this program's memory until it is given back; the kernel keeps it as
 * cache of a file while it has memory to spare, and reads it again when it is looked at.
 */
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>
#include "blockdev/crash/spill.h"

#define RESIDENT_MAX (64 * MiB)

int spill_open(struct spill *s, uint64_t bytes)
{
	const char *dir = getenv("TMPDIR");
	void *at = MAP_FAILED;
	int fd, err = 0;

	*s = (struct spill){0};
	if (!bytes)
		return 0;
	fd = open(dir && *dir ? dir : "/var/tmp", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	if (fd < 0)
		fd = memfd_create("sluice-spill", MFD_CLOEXEC);
	if (fd < 0 || ftruncate(fd, (off_t)bytes))
		err = -errno;
	if (!err)
		at = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (!err && at == MAP_FAILED)
		err = -errno;
	if (fd >= 0)
		close(fd);
	if (!err)
		*s = (struct spill){.at = at, .bytes = bytes};
	return err;
}

void spill_close(struct spill *s)
{
	if (s->at)
		munmap(s->at, s->bytes);
	*s = (struct spill){0};
}

void spill_used(struct spill *s, uint64_t bytes)
{
	s->used += bytes;
	if (s->used < RESIDENT_MAX || !s->at)
		return;
	s->used = 0;
	(void)madvise(s->at, s->bytes, MADV_DONTNEED);
}
