/* SPDX-License-Identifier: MIT */
/*
 * disk_file.h - an open disk in the place of a host file: an image that is read through an image.
 */
#ifndef BLOCKDEV_DISK_FILE_H
#define BLOCKDEV_DISK_FILE_H

#include "blockdev/block.h"
#include "blockdev/file/file.h"

/*
 * Takes d over on success; closing the file abandons it unless disk_file_finish() came first.
 * compress: what is written goes to whole clusters, compressed.  0 or -ENOMEM.
 */
must_check int disk_file_open(struct disk *d, bool compress, struct file **out);
/* The disk at the bottom of a stack of files, or NULL: a host's file is there. */
struct disk *disk_file_disk(struct file *f);
/*
 * Not in a fiber: closes the disk at the bottom of the stack, if there is one, as disk_close()
 * does; after that the stack can only be closed.
 */
must_check int disk_file_finish(struct file *f, struct why *why);

#endif
