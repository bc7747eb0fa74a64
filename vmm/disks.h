/* SPDX-License-Identifier: MIT */
/*
 * disks.h - the machine's drives by number, and what the user may do to them while the guest runs.
 *
 * Main thread only, like all that the monitor asks for.
 */
#ifndef VMM_DISKS_H
#define VMM_DISKS_H

#include "devices/ide.h"
#include "vmm/drive.h"

/* As many as there are PCI slots to spare. */
#define MACHINE_DRIVES_MAX 24

struct disks {
	unsigned n;
	int wake_fd; /* an eventfd: there is news of a drive, or of its tray; -1: none */
	struct disks_slot {
		struct drive_config c; /* how it is, or the next disc will be, open */
		char *path;            /* c.disk.path, if it is ours */
		struct drive *drive;   /* NULL: a CD-ROM drive without a disc */
		struct device *dev;    /* that the guest sees it through; IDE drives share one */
	} slot[MACHINE_DRIVES_MAX];
};

/* "driveN" is N, if there is one; else -1. */
int disks_find(const struct disks *s, const char *name);
/* News of all drives from now on; -1: no more. */
void disks_watch(struct disks *s, int fd);
/* What failed and waits is tried again. */
void disks_retry(struct disks *s);

/* All of these: 0, or -errno with words that name no drive, and nothing has changed. */
must_check int disks_resize(struct disks *s, unsigned i, uint64_t size, struct why *why);
/* An overlay at path, made before (in qcow2 format) or there already. */
must_check int disks_overlay(struct disks *s, unsigned i, const char *path, const char *format,
	bool make, struct why *why);
must_check int disks_snapshot(struct disks *s, unsigned i, const char *name, struct why *why);
/* Deletes the one with this ID and name (NULL: any, but not both); *out: what it was, for json. */
struct disks_snapshot {
	char id[64], name[256];
	uint64_t vm_state_bytes, sec, nsec, clock_ns;
};
must_check int disks_snapshot_delete(struct disks *s, unsigned i, const char *id, const char *name,
	struct disks_snapshot *out, struct why *why);

/*
 * CD-ROM drives; -ENOTBLK: it is none.  -EINPROGRESS: the guest has locked the tray, and is asked
 * to open it.
 */
must_check int disks_tray(struct disks *s, unsigned i, bool open, bool force, struct why *why);
/* The tray opens, and stays open without the disc. */
must_check int disks_remove(struct disks *s, unsigned i, bool force, struct why *why);
/* Another disc in the place of what is there, and the tray closes; format NULL: raw. */
must_check int disks_load(struct disks *s, unsigned i, const char *path, const char *format,
	bool force, struct why *why);

#endif
