/* SPDX-License-Identifier: MIT */
/*
 * hostfail.c - a shared object for LD_PRELOAD: what the program asks of the host's files fails, see
 * count.h.
 *
 * Counted are open, reads and writes at an offset, fsync, fdatasync, fallocate and ftruncate.
 * FAIL_ERRNO is what they fail with (default 5, EIO).  io_uring is not permitted, so that all of
 * these go through libc, and no read is tried inline: one that fails there is tried again.
 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>
#include "tests/nomem/count.h"

/* With errno set. */
static bool fails(void)
{
	const char *e = getenv("FAIL_ERRNO");

	if (!count_fails())
		return false;
	errno = e ? atoi(e) : EIO;
	return true;
}

#define REAL(name) __typeof__(&name) real = (__typeof__(&name))dlsym(RTLD_NEXT, #name)

int io_uring_queue_init_params(unsigned entries, void *ring, void *params);
int io_uring_queue_init_params(unsigned entries, void *ring, void *params)
{
	return -EPERM;
}

int open64(const char *path, int flags, ...)
{
	REAL(open64);
	mode_t mode = 0;
	va_list ap;

	va_start(ap, flags);
	if (flags & O_CREAT)
		mode = va_arg(ap, mode_t);
	va_end(ap);
	return fails() ? -1 : real(path, flags, mode);
}

ssize_t preadv64v2(int fd, const struct iovec *iov, int n, off64_t off, int flags)
{
	errno = EOPNOTSUPP;
	return -1;
}

ssize_t pread64(int fd, void *buf, size_t len, off64_t off)
{
	REAL(pread64);
	return fails() ? -1 : real(fd, buf, len, off);
}

ssize_t preadv64(int fd, const struct iovec *iov, int n, off64_t off)
{
	REAL(preadv64);
	return fails() ? -1 : real(fd, iov, n, off);
}

ssize_t pwrite64(int fd, const void *buf, size_t len, off64_t off)
{
	REAL(pwrite64);
	return fails() ? -1 : real(fd, buf, len, off);
}

ssize_t pwritev64(int fd, const struct iovec *iov, int n, off64_t off)
{
	REAL(pwritev64);
	return fails() ? -1 : real(fd, iov, n, off);
}

int fsync(int fd)
{
	REAL(fsync);
	return fails() ? -1 : real(fd);
}

int fdatasync(int fd)
{
	REAL(fdatasync);
	return fails() ? -1 : real(fd);
}

int fallocate64(int fd, int mode, off64_t off, off64_t len)
{
	REAL(fallocate64);
	return fails() ? -1 : real(fd, mode, off, len);
}

int ftruncate64(int fd, off64_t len)
{
	REAL(ftruncate64);
	return fails() ? -1 : real(fd, len);
}
