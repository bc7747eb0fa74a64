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

#endif
