/* SPDX-License-Identifier: MIT */
/*
 * lock.c - see lock.h.
 */
#include <fcntl.h>
#include <string.h>
#include <time.h>
#include "blockdev/file/lock.h"

#define BYTE_DOES    100 /* + N: somebody does N */
#define BYTE_FORBIDS 200 /* + N: somebody wants nobody else to do N */

/* The kernel lets go of a killed process's io_uring, and so of its files, a moment later. */
#define TRIES        10
#define TRY_AGAIN_NS (50 * 1000 * 1000)

#define BIT(n) (1U << (n))

static const char *const use_name[N_IMAGE_USES] = {
	"consistent read", "write", "write unchanged", "resize"};

static int set_byte(int fd, off_t byte, short type)
{
	struct flock fl = {.l_whence = SEEK_SET, .l_start = byte, .l_len = 1, .l_type = type};

	return fcntl(fd, F_OFD_SETLK, &fl) < 0 ? -errno : 0;
}

/* Does anybody else hold it?  1, 0 or -errno. */
static int byte_is_taken(int fd, off_t byte)
{
	/* Asking for an exclusive lock is allowed on a read-only descriptor; taking one is not. */
	struct flock fl = {.l_whence = SEEK_SET, .l_start = byte, .l_len = 1, .l_type = F_WRLCK};

	if (fcntl(fd, F_OFD_GETLK, &fl) < 0)
		return -errno;
	return fl.l_type != F_UNLCK;
}

static int place(int fd, unsigned does, unsigned forbids)
{
	int err = 0;

	for (int n = 0; n < N_IMAGE_USES && !err; n++) {
		if (does & BIT(n))
			err = set_byte(fd, BYTE_DOES + n, F_RDLCK);
		if (!err && (forbids & BIT(n)))
			err = set_byte(fd, BYTE_FORBIDS + n, F_RDLCK);
	}
	return err;
}

void image_unlock(int fd)
{
	for (int n = 0; n < N_IMAGE_USES; n++) {
		/* Unlocking what is not locked is no error, and there is no other. */
		(void)set_byte(fd, BYTE_DOES + n, F_UNLCK);
		(void)set_byte(fd, BYTE_FORBIDS + n, F_UNLCK);
	}
}

static int contradiction(int fd, unsigned does, unsigned forbids, struct why *why)
{
	int taken;

	for (int n = 0; n < N_IMAGE_USES; n++) {
		taken = does & BIT(n) ? byte_is_taken(fd, BYTE_FORBIDS + n) : 0;
		if (taken > 0)
			return why_set(why, -EAGAIN, "Failed to get \"%s\" lock", use_name[n]);
		if (taken < 0)
			return taken;
		taken = forbids & BIT(n) ? byte_is_taken(fd, BYTE_DOES + n) : 0;
		if (taken > 0)
			return why_set(
				why, -EAGAIN, "Failed to get shared \"%s\" lock", use_name[n]);
		if (taken < 0)
			return taken;
	}
	return 0;
}

static int try_lock(int fd, unsigned does, unsigned forbids, struct why *why)
{
	int err = place(fd, does, forbids);

	if (!err)
		err = contradiction(fd, does, forbids, why);
	if (err)
		image_unlock(fd);
	return err;
}

int image_lock(int fd, bool writer, struct why *why)
{
	const unsigned forbids = BIT(USE_WRITE) | BIT(USE_RESIZE);
	unsigned does = BIT(USE_READ);
	int err;

	if (writer)
		does |= BIT(USE_WRITE) | BIT(USE_RESIZE);
	err = try_lock(fd, does, forbids, why);
	for (int i = 1; err == -EAGAIN && i < TRIES; i++) {
		nanosleep(&(struct timespec){.tv_nsec = TRY_AGAIN_NS}, NULL);
		err = try_lock(fd, does, forbids, why);
	}
	if (!err)
		return 0;
	/* No OFD locks in this kernel, or none on this file system: then there is no protection. */
	if (err == -EINVAL || err == -ENOSYS || err == -ENOLCK || err == -EOPNOTSUPP) {
		log_debug("no image lock here: %s", strerror(-err));
		return 0;
	}
	return err;
}
