/* SPDX-License-Identifier: MIT */
/*
 * resize.c - sluice img resize.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include "blockdev/img/open.h"
#include "blockdev/img/options.h"

struct command {
	struct img_source src;
	const char *size;  /* as given */
	int sign;          /* +1, -1: relative to what is there */
	uint64_t bytes;
	enum prealloc how;
	bool quiet, shrink;
	struct disk *d;
	struct why why;
};

/* Of the new disk.  0 or -EINVAL, told. */
static int new_size(const struct command *c, uint64_t *out)
{
	uint64_t now = disk_size(c->d), size = c->bytes;
	bool bad = false;

	if (c->sign > 0)
		bad = __builtin_add_overflow(now, size, &size);
	else if (c->sign < 0)
		bad = __builtin_sub_overflow(now, size, &size);
	if (bad || !size || size > (uint64_t)INT64_MAX) {
		log_error("New image size must be positive");
		return -EINVAL;
	}
	if (size <= now && c->how != PREALLOC_OFF) {
		log_error("Preallocation can only be used for growing images");
		return -EINVAL;
	}
	if (size < now && !c->shrink) {
		log_error("Use the --shrink option to perform a shrink operation.");
		log_warn("Shrinking an image will delete all data beyond the shrunken image's end. "
			 "Before performing such an operation, make sure there is no important "
			 "data there.");
		return -EINVAL;
	}
	*out = size;
	return 0;
}

static int resize_fiber(void *arg)
{
	struct command *c = arg;

	return disk_resize(c->d, c->bytes, c->how, &c->why);
}

static int resize(struct command *c)
{
	struct loop *l;
	int err = img_loop_new(LOOP_AIO_AUTO, &l), closed;

	if (err)
		return err;
	err = img_disk_open(l, &c->src, &c->d);
	if (!err) {
		err = new_size(c, &c->bytes);
		if (!err) {
			err = fiber_run(l, resize_fiber, c);
			if (err)
				img_say_why(NULL, &c->why, err);
		}
		closed = img_disk_close(c->d);
		err = err ? err : closed;
	}
	loop_free(l);
	return err;
}

/* The size goes first, as "-5M" looks like an option. */
static int parse_size(struct command *c, const char *text)
{
	struct img_opts o;
	struct why why = {""};
	int err;

	c->sign = *text == '+' ? 1 : *text == '-' ? -1 : 0;
	img_opts_init(&o, "raw", false);
	err = img_opts_set(&o, OPT_SIZE, text + (c->sign != 0), &why);
	c->bytes = o.v[OPT_SIZE].n;
	img_opts_fini(&o);
	if (err)
		img_say_why(NULL, &why, err);
	return err;
}

static int parse_option(struct command *c, int opt, char **argv)
{
	switch (opt) {
	case 'f':
		c->src.format = optarg;
		return 0;
	case 'q':
		c->quiet = true;
		return 0;
	case 's':
		c->shrink = true;
		return 0;
	case 'I':
		c->src.image_opts = true;
		return 0;
	case 'O':
		return 0;
	case 'p':
		if (!img_parse_prealloc(optarg, &c->how))
			return 0;
		log_error("Invalid preallocation mode '%s'", optarg);
		return 1;
	}
	return img_opt_error(opt, argv);
}

static int resize_main(int argc, char **argv)
{
	static const struct option longs[] = {{"object", required_argument, NULL, 'O'},
		{"image-opts", no_argument, NULL, 'I'},
		{"preallocation", required_argument, NULL, 'p'},
		{"shrink", no_argument, NULL, 's'}, {NULL, 0, NULL, 0}};
	struct command c = {.src.writable = true, .src.unmap = true};
	int opt;

	if (argc < 3)
		return img_try_help("Not enough arguments");
	c.size = argv[--argc];
	argv[argc] = NULL;
	while ((opt = getopt_long(argc, argv, ":f:q", longs, NULL)) != -1)
		if (parse_option(&c, opt, argv))
			return 1;
	if (optind != argc - 1)
		return img_try_help("Expecting image file name and size");
	c.src.name = argv[optind];
	if (parse_size(&c, c.size) || resize(&c))
		return 1;
	if (!c.quiet)
		printf("Image resized.\n");
	return 0;
}

const struct img_cmd img_resize = {
	.name = "resize",
	.run = resize_main,
	.summary = "makes a disk larger or smaller",
	.help = "[-f FMT] [--preallocation=MODE] [--shrink] [-q] FILENAME [+|-]SIZE\n"
		"\n"
		"  -f FMT                format of the image (default: by its first bytes)\n"
		"  --preallocation=MODE  off (default), metadata, falloc, full: of what is new\n"
		"  --shrink              a smaller disk is meant: what is behind its end is lost\n"
		"  -q                    print nothing\n"
		"\n"
		"SIZE with a sign is relative to the size that the disk has.\n"
		"\n"
		"  sluice img resize disk.qcow2 +10G\n"
		"  sluice img resize --shrink disk.qcow2 20G\n",
};
