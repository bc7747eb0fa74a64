/* SPDX-License-Identifier: MIT */
/*
 * data.c - an external data file: the guest's data in a file of its own, beside the image.
 *
 * The options given for it win over the name in the image, which is relative to the current folder
 * and not to the image's.  It is locked as the image is.
 */
#include <string.h>
#include "blockdev/block_int.h"
#include "blockdev/name.h"

static int open_it(struct disk *d, const struct disk_opts *o, struct file **out, struct why *why)
{
	const char *name = d->fmt->data_name;
	int err;

	if (o->data_file) {
		*out = o->data_file;
		return 0;
	}
	if (!o->data_options && !name)
		return 0;
	if (!o->data_options && !name[0])
		return why_set(why, -EINVAL, "'data-file' is required for this image");
	err = name_open_data(d->loop, o, name, out, &d->data_path, why);
	if (err)
		return why_set(why, err, "Could not open '%s': %s", name ? name : "data-file",
			strerror(-err));
	return 0;
}

int data_file_open(struct disk *d, const struct disk_opts *o, struct why *why)
{
	struct file *f = NULL;
	int err = open_it(d, o, &f, why);

	if (err || !f)
		return err;
	if (!d->fmt->data_name) {
		file_close(f);
		return why_set(why, -EINVAL,
			"'data-file' can only be set for images with an external data file");
	}
	err = disk_tap_file(o, true, &f, why);
	if (err)
		return err;
	d->fmt->data_file = f;
	sync_init(&d->fmt->data_sync, f);
	d->fmt->data_sync.never = o->nosync;
	return 0;
}
