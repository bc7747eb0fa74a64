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
 * The disc of drive n (0..3) is another one, or with NULL none; disk stays the caller's and its
 * loop runs as long as it is here.  The old one is no longer used when this returns 0.  -EBUSY:
 * the guest has locked the door, and is told that somebody wants it open; -ENOTBLK: no CD-ROM
 * drive.  Not on a loop; may wait for what is in flight.
 */
must_check int ide_cd_change(
	struct device *d, unsigned n, struct loop *loop, struct disk *disk, bool force);
/* The tray goes out, which the guest may have locked, or in.  As above; the disc stays in it. */
must_check int ide_cd_tray(struct device *d, unsigned n, bool open, bool force);
struct ide_cd_state {
	bool open, locked;
};
bool ide_cd_state(struct device *d, unsigned n, struct ide_cd_state *s); /* false: no CD-ROM */

#endif
