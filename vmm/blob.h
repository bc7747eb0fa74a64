/* SPDX-License-Identifier: MIT */
/*
 * blob.h - bytes to read: a file, or something built into the program.
 */
#ifndef VMM_BLOB_H
#define VMM_BLOB_H

#include "vmm/util/base.h"
#include "vmm/util/log.h"

struct blob {
	const char *name;   /* for messages */
	const uint8_t *mem; /* NULL: a file */
	int fd;
	uint64_t size; /* bytes */
};

/* A regular file, or anything that can be read at an offset.  0 or -errno with words. */
must_check int blob_open(struct blob *b, const char *path, struct why *why);
void blob_mem(struct blob *b, const char *name, const void *mem, uint64_t size);
void blob_close(struct blob *b); /* harmless on one that is all zero */
/* All of [off, off+len): 0, -ENODATA if the blob ends before, or -errno. */
must_check int blob_read(const struct blob *b, uint64_t off, void *buf, uint64_t len);

#endif
