/* SPDX-License-Identifier: MIT */
/*
 * lock.h - image locks that QEMU's tools understand, and that understand theirs.
 *
 * What a user of an image does, and what it lets others do, are shared OFD locks on single
 * bytes of the file: byte 100+N says "I do N", byte 200+N "nobody else may do N".  A
 * shared lock never fails by itself; after placing its own, each user looks whether a
 * contradicting byte is held by somebody else, so of two that come at once one at least sees the
 * other.  Locks belong to the open file description and go away with it.
 */
#ifndef FILE_LOCK_H
#define FILE_LOCK_H

#include "vmm/util/base.h"
#include "vmm/util/log.h"

/* N */
enum image_use {
	USE_READ,	     /* consistent content */
	USE_WRITE,
	USE_WRITE_UNCHANGED, /* rewrites what is there */
	USE_RESIZE,
	N_IMAGE_USES,
};

/*
 * As a writer, or a reader: neither lets others write or resize.  0; -EAGAIN with words if
 * somebody else's use contradicts for half a second, and then nothing is held; 0 as well where the
 * host's file system has no such locks.
 */
must_check int image_lock(int fd, bool writer, struct why *why);
/*
 * Before the descriptor is closed: io_uring may keep the open file for a moment longer than
 * its process lives, and the locks with it.
 */
void image_unlock(int fd);

#endif
