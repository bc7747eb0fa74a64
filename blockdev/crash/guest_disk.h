/* SPDX-License-Identifier: MIT */
/*
 * guest_disk.h - a guest's requests as operations on the disk that the guest sees.
 *
 * That disk is a file to the model (model.h): a write is a write, a discard or a write of zeros a
 * punch, a flush an fdatasync, and so is turning the cache off.  A write goes through if it was FUA
 * or if the cache was off when it was submitted and when it was acknowledged.  So a cut of it
 * leaves what the contract allows any disk to leave, whatever image format lay below.
 *
 * The file is compact: it consists of the sectors that the guest wrote, and of those it discarded
 * or zeroed that held something at first, in order, and of nothing else.  A terabyte that is
 * discarded as a whole, and of which a megabyte is written, costs a megabyte.  A sector keeps its
 * place in its 4096 bytes, so that writes tear where they do on the disk; gaps stay zeros.
 */
#ifndef CRASH_GUEST_DISK_H
#define CRASH_GUEST_DISK_H

#include "blockdev/crash/log.h"
#include "blockdev/crash/memfile.h"
#include "blockdev/crash/spill.h"

/* n sectors from sector on lie in the compact file from sector at on. */
struct guest_run {
	uint64_t sector, n, at;
};

struct guest_disk {
	struct crash_log log; /* host operations only; their data are the guest log's */
	struct mem_image start;
	struct spill content; /* whose pages these are */
	struct guest_run *run; /* ascending, none touches the next */
	uint64_t n_runs, sectors;
	uint32_t *guest; /* by host operation: the guest's, as an index into its log */
};

/* What the disk held when the log began. */
struct guest_start {
	/* len bytes at off; 0 or -errno. */
	int (*read)(struct guest_start *s, void *buf, uint64_t len, uint64_t off);
	/* The first bytes in [off, off + len) that may be no zeros, or *n = 0; 0 or -errno. */
	int (*next_data)(
		struct guest_start *s, uint64_t off, uint64_t len, uint64_t *at, uint64_t *n);
};

/*
 * log: a recorded guest's, with data, stays the caller's and is needed all the while.  0 or -errno.
 */
must_check int guest_disk_init(
	struct guest_disk *g, const struct crash_log *log, struct guest_start *start);
/* The same with an image as what it held; not in a fiber.  0, or -errno with words. */
must_check int guest_disk_open(struct loop *l, struct guest_disk *g, const struct crash_log *log,
	const char *image, const char *format, struct why *why);
void guest_disk_fini(struct guest_disk *g);
/* The run that holds this sector of the compact file. */
const struct guest_run *guest_disk_run(const struct guest_disk *g, uint64_t at);

#endif
