/* SPDX-License-Identifier: MIT */
/*
 * server.h - a disk that many threads may use at once: a thread of its own does their requests.
 */
#ifndef NBD_SERVER_H
#define NBD_SERVER_H

#include "blockdev/block.h"

struct server;

/* Starts the thread and opens the disk on it; *o must stay.  0, or -errno with words. */
must_check int server_open(
	const struct disk_opts *o, enum loop_aio aio, struct server **out, struct why *why);
/* No call may be running.  Frees s; -errno with words if the image was not left clean. */
must_check int server_close(struct server *s, struct why *why);

uint64_t server_disk_size(const struct server *s);
uint32_t server_block_size(const struct server *s);

/*
 * One request, waited for; any thread, any number at once.  buf is NULL for what moves no data.
 * 0 or -errno.
 */
must_check int server_do(struct server *s, enum blk_op op, unsigned flags, void *buf, uint64_t len,
	uint64_t off);

struct server_extent {
	uint64_t len;
	bool zeros; /* known to read as zeros */
};
/*
 * What lies in [off, off+len): neighbours that are alike come as one.  *n is the room in e, then
 * how many there are: at least one, not always all.  Any thread.  0 or -errno.
 */
must_check int server_map(
	struct server *s, uint64_t off, uint64_t len, struct server_extent *e, size_t *n);

#endif
