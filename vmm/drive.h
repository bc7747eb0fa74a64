/* SPDX-License-Identifier: MIT */
/*
 * drive.h - a disk with the thread and the loop that it belongs to.
 */
#ifndef VMM_DRIVE_H
#define VMM_DRIVE_H

#include "blockdev/block.h"
#include "blockdev/crash/record.h"
#include "blockdev/live/live.h"
#include "vmm/util/log.h"
#include "vmm/util/loop.h"

/* What the guest sees. */
enum drive_iface { DRIVE_VIRTIO, DRIVE_IDE };

struct drive_config {
	struct disk_opts disk;
	enum loop_aio aio;
	const char *serial; /* shown to the guest; NULL: none */
	unsigned queues;    /* 0: the device's default */
	bool transitional;  /* virtio: for legacy drivers too */
	enum drive_iface iface;
	unsigned index; /* IDE: which of the four places */
	bool cdrom; /* disk.path NULL: no disc in it */
	bool throwaway; /* what is written is gone at the end */
	const char *trace; /* where what happens to the disk is recorded; NULL: nowhere */
	struct live_config live;
	/*
	 * On the drive's thread, once: the kernel refuses to work for its loop.  The user has been
	 * told; all goes on, slowly, so that the machine can end cleanly (loop.h).
	 */
	void (*failed)(void *arg);
	void *failed_arg;
};

/* What a drive did, told when it is closed. */
struct drive_report {
	char name[16]; /* "drive0" */
	char format[16];
	const char *path;
	enum cache_mode cache;
	bool wce;
	struct disk_stats running; /* just before it was closed */
	struct disk_stats total;   /* and after */
	bool known;                /* it was opened and closed: the above is filled in */
	bool cut;                  /* its power was cut, and the image is what that leaves: */
	struct live_left left;
};

struct drive;

/*
 * Starts the thread "driveN" and opens the disk on it; the words of *c must stay as long as that.
 * 0, or -errno with words that begin with the path.
 */
must_check int drive_open(
	const struct drive_config *c, unsigned index, struct drive **out, struct why *why);
/* Closes the disk on its thread, ends the thread.  0, or -errno if the image is not left clean. */
must_check int drive_close(struct drive *d, struct drive_report *r, struct why *why);

/*
 * Has fn run on the drive's thread between two turns of its loop, and waits for it; fn may turn the
 * loop itself.  Requests come and end meanwhile.  One thread at a time.  fn's result.
 */
int drive_do(struct drive *d, int (*fn)(struct drive *d, void *arg), void *arg);

/*
 * Any thread: a mark in the drive's log, if it has one; and if it is the mark that cuts the power,
 * that has happened when it returns.
 */
void drive_mark(struct drive *d, enum mark_by by, const char *text, size_t len);

/* Before the guest runs: cut(arg) is called on the drive's thread when its power is cut. */
void drive_on_powercut(struct drive *d, void (*cut)(void *arg), void *arg);
/*
 * Not on the drive's thread: its power is cut when this returns, unless it was before.  A drive
 * without powercut= keeps what it was given and is not closed.  by: see live_cut().
 */
void drive_powercut(struct drive *d, const char *by);

struct loop *drive_loop(const struct drive *d);
struct disk *drive_disk(const struct drive *d);
unsigned drive_index(const struct drive *d); /* N of "driveN" */

#endif
