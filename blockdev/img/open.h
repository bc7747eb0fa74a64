/* SPDX-License-Identifier: MIT */
/*
 * open.h - opening images as disks for the tools, and the options that several of them share.
 */
#ifndef IMG_OPEN_H
#define IMG_OPEN_H

#include "blockdev/block.h"
#include "blockdev/img/cmd.h"

/* One image as named on the command line. */
struct img_source {
	const char *name;
	const char *format; /* -f; NULL: probed */
	bool image_opts;    /* name is driver=...,file.filename=... */
	bool unlocked;      /* -U */
	bool writable;
	bool nobacking;
	bool unmap; /* discards reach the host */
	enum cache_mode cache; /* unsafe: not even closing waits for the disk */
};

/* Prints why not, in qemu-img's words.  0 or -errno; after 0 disk_close() is owed. */
must_check int img_disk_open(struct loop *l, const struct img_source *s, struct disk **out);
/* Prints what went wrong.  0 or -errno. */
must_check int img_disk_close(struct disk *d);
/*
 * Not in a fiber: d, read-only, reads as an internal snapshot: "ID", "NAME", or
 * "snapshot.id=ID,snapshot.name=NAME".  Prints why not.  0 or -errno.
 */
must_check int img_load_snapshot(struct loop *l, struct disk *d, const char *param);
/* Prints why not. */
must_check int img_loop_new(enum loop_aio aio, struct loop **out);

/* For a getopt_long() with ':' first in its letters.  Prints; exit status 1. */
int img_opt_error(int c, char **argv);
/* Prints the words and where to read more.  Exit status 1. */
int img_try_help(const char *fmt, ...) printf_like(1, 2);

/* A number with a suffix, within bounds; what: "buffer size".  Prints.  0 or -errno. */
must_check int img_parse_number(
	const char *what, const char *text, uint64_t min, uint64_t max, uint64_t *out);

/* Memory for data, as O_DIRECT wants it; NULL: none.  Free with free(). */
void *img_data_buf(uint64_t len);

#endif
