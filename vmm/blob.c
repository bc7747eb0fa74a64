/* SPDX-License-Identifier: MIT */
/*
 * blob.c - kernels and initial RAM disks, read straight to where they belong.
 *
 * A file stays open while the machine lives and is read again at each reset, so that nothing
 * is kept in memory twice.
 */
#include "vmm/blob.h"

#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

int blob_open(struct blob *b, const char *path, struct why *why)
{
	struct stat st;
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY), err = 0;

	if (fd < 0) {
		err = -errno;
		return why_set(why, err, "%s: %s", path, strerror(-err));
	}
	if (fstat(fd, &st))
		err = -errno;
	else if (S_ISDIR(st.st_mode))
		err = -EISDIR;
	else if (!S_ISREG(st.st_mode))
		err = -EINVAL;
	if (err) {
		close(fd);
		return why_set(why, err, "%s: %s", path,
			err == -EINVAL ? "not a regular file" : strerror(-err));
	}
	*b = (struct blob){.name = path, .fd = fd, .size = (uint64_t)st.st_size};
	return 0;
}

void blob_mem(struct blob *b, const char *name, const void *mem, uint64_t size)
{
	*b = (struct blob){.name = name, .mem = mem, .fd = -1, .size = size};
}

void blob_close(struct blob *b)
{
	if (b->name && !b->mem)
		close(b->fd);
	memset(b, 0, sizeof(*b));
}

int blob_read(const struct blob *b, uint64_t off, void *buf, uint64_t len)
{
	uint8_t *p = buf;

	if (!range_within(off, len, b->size))
		return -ENODATA;
	if (b->mem) {
		memcpy(p, b->mem + off, len);
		return 0;
	}
	while (len) {
		ssize_t n = pread(b->fd, p, len, (off_t)off);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n ? -errno : -ENODATA; /* it shrank */
		p += n;
		off += (uint64_t)n;
		len -= (uint64_t)n;
	}
	return 0;
}
