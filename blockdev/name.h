/* SPDX-License-Identifier: MIT */
/*
 * name.h - what an image is called, and what that opens.
 *
 * A name is a file's, or "file:PATH", "blkdebug:RULES:PATH", "json:{...}", or options alone
 * (driver=qcow2,file.filename=PATH).  At the top stands a format (raw, qcow2), below it in
 * "file" what it is read through: a host file, nothing (null-co), the fault filter (blkdebug),
 * or another image (disk_file.h).
 */
#ifndef BLOCKDEV_NAME_H
#define BLOCKDEV_NAME_H

#include "blockdev/block.h"
#include "blockdev/file/file.h"
#include "blockdev/opts.h"

struct image_name {
	struct disk_opts o; /* what the disk is opened with; points into the rest */
	const char *driver; /* what the top is called where that is no format; else NULL */
	bool copy_on_read;
	char *path, *format, *backing, *data; /* of o */
	struct opts top, file, backing_opts;
};

/* o->path and o->options are taken apart.  0, or -errno with words.  name_fini() is owed either
 * way. */
must_check int name_read(struct image_name *n, const struct disk_opts *o, struct why *why);
/* Opens what the format is read through.  0, or -errno with words. */
must_check int name_open(struct loop *l, struct image_name *n, struct file **out, struct why *why);
void name_fini(struct image_name *n);
/*
 * Opens a data file by what the options say ("driver=...", "filename=...") or, without any, by
 * its name; *path is how messages call it, for free().  0, or -errno with words.
 */
must_check int name_open_data(struct loop *l, const struct disk_opts *o, const char *name,
	struct file **out, char **path, struct why *why);

/* "file:PATH" is PATH. */
const char *name_host_path(const char *name);
/* Is the driver one that stands below formats (file, blkdebug, ...)? */
bool name_is_protocol(const char *driver);
/* Is it one of the options that may change while the image is open? */
bool name_may_change(const char *key);

#endif
