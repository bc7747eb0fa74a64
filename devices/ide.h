/* SPDX-License-Identifier: MIT */
/*
 * ide.h - the IDE function of a PIIX3: two channels with two drives each.
 */
#ifndef DEVICES_IDE_H
#define DEVICES_IDE_H

#include "blockdev/block.h"
#include "devices/device.h"

#define IDE_DRIVES 4 /* primary master and slave, secondary master and slave */

struct ide_drive_opts {
	struct loop *loop;  /* the disk's */
	struct disk *disk;  /* NULL: no drive here (or, with cdrom, an empty one) */
	const char *serial; /* at most 20 bytes; NULL: one is made up */
	bool cdrom;
};

/* As function 1 of the PIIX3's slot.  0 or -errno; o is copied. */
must_check int ide_create(struct machine_services *s, const struct ide_drive_opts o[IDE_DRIVES],
	struct device **out);
/*
 * The disc of drive n (0..3) is another one, or with NULL none, wherever the tray is; disk stays
 * the caller's and its loop runs as long as it is here.  The old one is no longer used when this
 * returns 0.  -ENOTBLK: no CD-ROM drive.  Not on a loop; may wait for what is in flight.
 */
must_check int ide_cd_change(struct device *d, unsigned n, struct loop *loop, struct disk *disk);
/*
 * The tray goes out or in, with the disc in it.  -EINPROGRESS: the guest has locked it, and is told
 * that somebody wants it open; with force it opens all the same, and is locked no longer.
 */
must_check int ide_cd_tray(struct device *d, unsigned n, bool open, bool force);
struct ide_cd_state {
	bool open, locked;
	unsigned moves; /* of the tray, the guest's and the user's; a reset's are none */
};
bool ide_cd_state(struct device *d, unsigned n, struct ide_cd_state *s); /* false: no CD-ROM */
/* This eventfd is written to when the tray has moved; -1: none.  No CD-ROM drive: nothing. */
void ide_cd_watch(struct device *d, unsigned n, int fd);

#endif
