/* SPDX-License-Identifier: MIT */
/*
 * info.h - what sluice img info found out about an image, before it is printed.
 */
#ifndef IMG_INFO_H
#define IMG_INFO_H

#include <sys/types.h>
#include "blockdev/img/cmd.h"
#include "blockdev/qcow2/format.h"

struct snapshot_info {
	char id[64], name[256]; /* cut if longer */
	uint32_t sec, nsec;
	uint64_t clock_ns, vm_state, icount;
	bool has_icount;
};

struct bitmap_info {
	char *name;
	bool in_use, enabled;
	uint64_t granularity;
};

struct image_info {
	char *filename, *format; /* what to call it, and what it is */
	char *path;              /* of the host's file, "" if there is none */
	dev_t dev;
	ino_t ino;
	uint64_t virtual_bytes, disk_bytes;
	/* qcow2 */
	struct qcow2_header h;
	struct snapshot_info *snapshots; /* h.nb_snapshots of them */
	struct bitmap_info *bitmaps;     /* nb_bitmaps of them */
	uint32_t nb_bitmaps;
};

/* The list as people read it; nothing if there is none. */
void info_print_snapshots(const struct snapshot_info *all, uint32_t n);
/* In a fiber: fills in what the qcow2 header and its tables say.  0 or -errno with words. */
must_check int info_read_qcow2(struct file *f, struct image_info *info, struct why *why);
/* The block "Format specific information". */
void info_print_specific(const struct image_info *info);
void info_free(struct image_info *info);

#endif
