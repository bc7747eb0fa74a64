/* SPDX-License-Identifier: MIT */
/*
 * cmd.h - what the subcommands of sluice img share; a subcommand is one file ending in its
 * struct img_cmd, and one line in img.c.
 */
#ifndef IMG_CMD_H
#define IMG_CMD_H

#include <getopt.h>
#include "blockdev/file/file.h"
#include "vmm/util/base.h"
#include "vmm/util/log.h"

struct img_cmd {
	const char *name;
	int (*run)(int argc, char **argv); /* argv[0] is the subcommand; exit status */
	const char *summary;               /* one line of sluice img --help */
	const char *help;                  /* options and examples */
};
extern const struct img_cmd img_create, img_info, img_check, img_snapshot;
extern const struct img_cmd img_resize, img_rebase, img_commit, img_amend, img_bitmap;
extern const struct img_cmd img_map, img_compare, img_convert, img_dd, img_measure, img_bench;

/* Image formats, and the names for -f. */
extern const char *const img_formats[]; /* NULL-terminated */
bool img_format_known(const char *name);
/* Says that a format does not do that ("image creation"), or that there is none of that name. */
void img_cannot(const char *format, const char *what);

/* For a getopt_long() that answered '?' or ':': says which option it was.  Exit status 1. */
int img_bad_option(const struct img_cmd *cmd, char **argv);
/* Prints the message and where to read more.  Exit status 1. */
int img_usage(const struct img_cmd *cmd, const char *fmt, ...) printf_like(2, 3);

/*
 * Says what went wrong: "who: words" (who NULL: the words alone); what follows the words' first
 * line is a hint and stands on lines of its own.
 */
void img_say_why(const char *who, const struct why *why, int err);
/* The same of an image that could not be opened. */
void img_say_open(const char *name, const struct why *why, int err);

/* A size as qemu-img reads it: 1.5G, 4096, 0x1000, suffixes b k K M G T P E.  0, -EINVAL, -ERANGE.
 */
must_check int img_parse_size(const char *text, uint64_t *out);
/* "1.5 GiB", three digits. */
const char *img_human_size(uint64_t bytes, char *buf, size_t room);

/* One image, open in a loop of its own. */
struct img_file {
	struct loop *loop;
	struct file *file;
	char *format; /* as given, or probed */
	char *path;   /* of the host's file; "": there is none */
	char *shown;  /* what to call the image: a name that opens it again */
};
/*
 * Opens what the image is read through.  name: a file's, or one of those in blockdev/name.h; with
 * image_opts it is driver=...,file.filename=...; format NULL: by the name, or probed.  Prints why
 * not.  0 or -errno; after 0 img_close() is owed.
 */
must_check int img_open(struct img_file *im, const char *name, bool image_opts, const char *format,
	unsigned flags);
void img_close(struct img_file *im);

enum img_output { IMG_HUMAN, IMG_JSON };
must_check int img_parse_output(const char *text, enum img_output *out);
/* Before JSON is made: without memory for it the program ends, with words and status 1. */
void img_json_start(void);

#endif
